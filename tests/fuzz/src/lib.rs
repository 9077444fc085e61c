//! # fuzz: what any bytes must not do
//!
//! Producers send what they like, files are damaged, and everything that reads them stands before the first check. This crate says, for each
//! of those readers, what must hold for *every* input, and lets libFuzzer look for one where it does not.
//!
//! ```text
//!  target     reader                                      held to
//!  decoder    minimize::decode, behind `--cfg fuzzing`    prost, and the schema's table; what is skipped is not touched   P1 P2 P4
//!  canonical  minimize::Phone                             a naive reading of its rules                                    P31
//!  plans      minimize::Phone, valid numbers              the phonenumber crate, which is slow: hence by itself           P31
//!  trace      ingest::trace::files                        a naive reader of the unpacked bytes; memory; round trip        I1
//!  framing    ingest::wire                                prost's varints; a naive reader                                 I1
//!  range      minimize::Minimizer, many frames            conservation; no event changes another; no number comes out     I1 I4 I9
//! ```
//!
//! **Comes in:** bytes: from libFuzzer (`run.sh`), or from `corpus/`, which `cargo test` replays on any toolchain and without the engine.
//! **Goes out:** nothing, or a panic that says what does not hold.
//!
//! The decoder and the range are reached through `starling-minimize`. `starling-ingest` would drag in librdkafka, OpenSSL and the stores, many
//! times as much to build, so its two readers are compiled from their own source files, which need nothing but `zstd`; `tests/corpus.rs`
//! replays the same corpus against the real crate. The decoder is not public and stays so: its check is built into `minimize` under
//! `--cfg fuzzing`, which only `run.sh` sets, and `minimize`'s unit tests replay its corpus.
//!
//! **What can go wrong.** A check may be weaker than it looks: each was seen to catch planted faults (`tests/README.md`). The library knows of
//! national prefixes and we do not: `+44 020…` is another number here than `+44 20…`, and `plans` takes it as such.

#![allow(clippy::unwrap_used)]

pub mod canonical;
pub mod corpus;
pub mod framing;
pub mod range;
pub mod trace;

/// `ingest`'s reader of trace files, from its own source.
#[path = "../../../pipeline/ingest/src/trace/files.rs"]
pub mod files;
/// `ingest`'s reader of wire framing, from its own source.
#[path = "../../../pipeline/ingest/src/wire.rs"]
pub mod wire;

/// The part of `starling_ingest::IngestError` that a trace file can give. The texts are the real crate's matter.
#[derive(Debug)]
pub enum IngestError {
    /// A file could not be read or written.
    File {
        /// The file.
        path: String,
        /// What was being done.
        during: &'static str,
        /// Kind of the failure.
        kind: std::io::ErrorKind,
    },
    /// A trace file cannot be read further.
    TraceDamaged {
        /// The file.
        path: String,
        /// Index of the frame, from 0.
        frame: i64,
    },
}

impl IngestError {
    pub(crate) fn file(path: &std::path::Path, during: &'static str, error: &std::io::Error) -> Self {
        Self::File { path: path.display().to_string(), during, kind: error.kind() }
    }
}
