//! The checked-in corpus as ordinary tests, on any toolchain: what the fuzzer once found stays found.
//!
//! The decoder's corpus is replayed by `pipeline/minimize/src/decode/tests.rs`, which may see inside.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used)]

use starling_fuzz::corpus::{folder, inputs, seeds};
use starling_ingest::IngestError;

/// The checks that the fuzzer makes on `ingest`'s source files, made on the crate itself.
mod files {
    pub use starling_ingest::trace::{BUFFER_BYTES, MAX_FRAME_BYTES};
    pub use starling_ingest::{FrameRead, TraceReader, TraceWriter};
}
mod wire {
    pub use starling_ingest::wire::{event_bytes, put_varint, varint};
}
#[path = "../src/framing.rs"]
mod framing;
#[path = "../src/trace.rs"]
mod trace;

fn replay(target: &str, check: impl Fn(&[u8]) + std::panic::RefUnwindSafe) {
    let failed: Vec<_> = inputs(target)
        .into_iter()
        .filter(|(_, input)| std::panic::catch_unwind(|| check(input)).is_err())
        .map(|(name, _)| name)
        .collect();
    assert!(failed.is_empty(), "inputs of corpus/{target} that fail: {failed:?}");
}

#[test]
fn canonical_forms_keep_their_rules() {
    replay("canonical", starling_fuzz::canonical::check);
}

#[test]
fn valid_numbers_are_the_numbers_of_the_numbering_plans() {
    replay("plans", starling_fuzz::canonical::check_with_plans);
}

#[test]
fn traces_are_read_as_what_they_are() {
    replay("trace", trace::check);
    replay("trace", starling_fuzz::trace::check);
}

#[test]
fn framing_is_taken_off_by_its_rules() {
    replay("framing", framing::check);
    replay("framing", starling_fuzz::framing::check);
}

#[test]
fn i1_i4_i9_ranges_keep_their_promises() {
    replay("range", starling_fuzz::range::check);
}

/// To write them anew: `STARLING_REGENERATE=1 cargo test -p starling-fuzz --test corpus`.
#[test]
fn every_seed_is_checked_in() {
    let regenerate = std::env::var_os("STARLING_REGENERATE").is_some();
    for (target, name, bytes) in seeds() {
        let path = folder(target).join(&name);
        if regenerate {
            std::fs::create_dir_all(folder(target)).expect("a folder");
            std::fs::write(&path, &bytes).expect("a file");
        }
        // The same compression may be written otherwise by another version of zstd: what is in it is replayed all the same.
        let there = std::fs::read(&path).is_ok_and(|there| there == bytes || name.contains("zst"));
        assert!(there, "corpus/{target}/{name} is stale: write the seeds anew, see above this test");
    }
}

#[test]
fn the_corpus_stays_small() {
    let targets = ["decoder", "canonical", "plans", "trace", "framing", "range"];
    let bytes: usize = targets.iter().flat_map(|target| inputs(target)).map(|(_, input)| input.len()).sum();
    assert!(bytes <= 200 << 10, "{bytes} bytes: merge it anew (`tests/fuzz/run.sh --merge`), or look for a giant among it");
}
