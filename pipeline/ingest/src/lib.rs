//! # ingest: Kafka to frames, exactly once
//!
//! The only room that knows Kafka. It reads a topic (or a recorded trace), cuts each partition into ranges of offsets, and takes every
//! range through *plan → process → commit* (design 3.1). What the bytes mean is not its matter: it sees frames, never events.
//!
//! ```text
//!  broker ──rdkafka──► one consumer thread ──► Cutter (pure) ──► Batch [from, to) ──bounded channel──► a lane per partition
//!                       │ copies payloads into one arena a batch   decides where       1 waiting,          │
//!                       │ strips schema-registry framing (wire)    ranges end          1 in work           ▼
//!                       │                                                                            Turn (pure) decides
//!                       ▼                                                        plan ──► process ──► commit ──► next
//!                end offsets, once a second ──────────────────────────────────►  metastore   RangeProcessor   metastore
//! ```
//!
//! **Comes in:** messages of a topic, or length-delimited frames of a trace file. **Goes out:** [`Frames`], a range at a time, to a
//! [`RangeProcessor`], and its [`RangeOutcome`] to the metastore.
//!
//! [`events`] is what the room tells while it works, for the log and for metrics: the processor names who hears it.
//!
//! ## Who decides, who acts
//!
//! [`protocol`] holds the two pure machines: [`protocol::Cutter`] says where a range ends, [`protocol::Turn`] says what is to be done
//! next with a range and what an answer of the metastore means. [`kafka`] and [`trace`] carry it out and report back. A model test
//! drives the machines through crashes, lost answers, duplicates and zombies without any I/O. Beside them two pure guards stand over what the
//! client library says: [`protocol::continuity`] (does this follow what was seen before?) and [`protocol::epochs`] (is this still the log that was
//! read?).
//!
//! ## Invariants kept here
//!
//! - **I9 same answer.** Committed ranges tile a partition: no gap, no overlap. An open plan is replayed as exactly the planned range.
//!   A range is committed only under the generation that planned it, and the metastore refuses an older one.
//! - **I1 conservation**, the ingest part: every offset between the first and the last committed one was handed to the processor, or
//!   is not in the log (compacted away, or a transaction's marker). Tombstones and empty messages are handed over as empty frames.
//! - **I4 no identifier.** Payloads are copied into memory and handed over. No error, log line or thread name holds a byte of them.
//! - **I8 fail closed.** A gap, a lost log or an unclear answer that does not clear up stops the job, loudly. Nothing is skipped.
//!
//! ## What can go wrong
//!
//! | what happens | what is done |
//! |---|---|
//! | killed anywhere | the next owner replays the open plan exactly, or goes on at the next offset |
//! | the partition moves to another worker | the range in work may finish for a moment, then it is abandoned; the metastore fences it |
//! | a zombie wakes up | its plan and commit are refused as fenced; it drops the range and waits for its next assignment |
//! | members join and leave | only partitions that move are given up (`cooperative-sticky`); with `range` all are, and begin anew |
//! | the client goes on at a wrong place after a rebalance | the first thing beyond the wanted offset is not believed: it is read again from there |
//! | a reader stands still past `max.poll.interval.ms` | the group takes its partitions away; it comes back as a member, and what it held is fenced |
//! | a processor is slower than that | nothing: the reader goes on polling |
//! | a static member (`group.instance.id`) restarts within its session | it gets its partitions back, nobody else notices |
//! | two processes with one `group.instance.id` | the older stops: [`IngestError::InstanceFenced`] |
//! | members that want different strategies | the newcomer stops: [`IngestError::MixedGroup`] |
//! | partitions are added | found within `topic.metadata.refresh.interval.ms` (30 s), each read from its beginning |
//! | the log no longer has the wanted offset | [`IngestError::Gap`]: partition, wanted offset, what the broker has, what to do |
//! | the log was cut below what was read, also if it has grown since | [`IngestError::Truncated`], found by offset or by leader epoch |
//! | the topic was deleted and made anew | [`IngestError::TopicRecreated`], found by its id before anything of it is planned |
//! | the topic is gone | after half a minute [`IngestError::TopicGone`] |
//! | a broker restarts, a leader moves, the network is cut | the client comes back by itself; the same offsets go on |
//! | password, certificate or access rules are refused | [`IngestError::Refused`], which names the setting or the rule |
//! | the metastore gives no clear answer | the commit is asked again; a plan is read again by taking ownership anew; then it stops |
//! | the processor fails | the same range again, five times with growing pauses, then [`IngestError::Processing`] |
//! | processing is slower than reading | the reader stops draining: bytes in memory are bounded, what librdkafka reads ahead of all partitions together is too |
//!
//! Every such stop of the Kafka side is written into the audit log ([`STOPPED`]), once a day for the same reason. Where only an operator may decide,
//! `starling accept-loss` says what going on gives up ([`loss`]), does it, and records that, too.
//!
//! What is not seen: a log that was cut in the second before the last checkpoint was noted; a topic without id (brokers before 2.8) that was made anew
//! and has grown past the old position; and a never-read partition's first events that were deleted before anybody looked.
//!
//! `unsafe` is used in `native.rs` only, for what the safe wrapper does not offer: librdkafka's batch read of one partition, a topic's id, and a
//! seek that names a leader epoch.

pub mod admin;
mod config;
pub mod drain;
pub mod embedded;
pub mod error;
pub mod events;
mod examine;
pub mod fault;
pub mod frames;
pub mod kafka;
mod lane;
pub mod loss;
#[allow(unsafe_code)]
mod native;
pub mod producer;
pub mod protocol;
pub mod reader;
pub mod trace;
pub mod wire;

use async_trait::async_trait;
use std::sync::Arc;

use starling_store::{Plan, RangeOutcome};

pub use admin::{create_topic, log_ends, partitions, topic_id, topic_settings};
pub use config::is_secret;
pub use drain::{DrainMode, DrainReport, bare_drain};
pub use embedded::EmbeddedBroker;
pub use error::{IngestError, ProcessError};
pub use events::{Event, Observer, Unobserved};
pub use examine::examine;
pub use fault::Fault;
pub use frames::Frames;
pub use kafka::{KafkaSource, STOPPED, run_kafka};
pub use producer::Producer;
pub use reader::{Message, TopicReader};
pub use trace::{FrameRead, TraceProgress, TraceReader, TraceSummary, TraceWriter, run_trace};

/// How large a range may become before it is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Most events in a range.
    pub max_events: usize,
    /// Most payload bytes in a range. One event larger than this is a range of its own.
    pub max_bytes: usize,
    /// How long the first event of a range waits for others, in milliseconds, when there is time to wait.
    pub linger_ms: u64,
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self { max_events: 100_000, max_bytes: 16 << 20, linger_ms: 200 }
    }
}

/// Takes a planned range and makes durable what comes of it; the commit follows when it returns.
#[async_trait]
pub trait RangeProcessor: Send + Sync + 'static {
    /// Processes one range. It must be deterministic in (`plan`, `frames`) and may be called again with the same range, also by another
    /// process: what it writes is named by the plan's partition and sequence.
    ///
    /// # Errors
    /// [`ProcessError`] when the range could not be processed now. The same range is tried again; after five times the job stops.
    async fn process(&self, plan: &Plan, frames: Arc<Frames>) -> Result<RangeOutcome, ProcessError>;

    /// Who hears what happens while ranges are read for this processor. Nobody, unless it says so.
    fn observer(&self) -> Arc<dyn Observer> {
        Arc::new(Unobserved)
    }
}
