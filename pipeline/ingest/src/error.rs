//! What can go wrong between the broker and the commit. No text here holds a byte of a payload or a key (I4).

use rdkafka::error::KafkaError;
use starling_schemas::ids::{Offset, PartitionId};
use starling_store::StoreError;

/// A range could not be processed now. The text must not hold a value from the data.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct ProcessError(pub String);

/// Everything that can go wrong in this room.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The log does not hold what comes next: going on would lose events silently.
    #[error(
        "{partition}: the next wanted offset is {wanted}, but the broker has {low} to {high} (exclusive). Events between were deleted before \
         they were read, or the topic was made anew. Restore the topic, or lengthen its retention and accept the loss by starting this \
         topic under a new name; nothing was skipped"
    )]
    Gap {
        /// The partition.
        partition: PartitionId,
        /// The offset that was to be read.
        wanted: Offset,
        /// First offset the broker has.
        low: i64,
        /// First offset the broker does not have yet.
        high: i64,
    },
    /// The processor failed on the same range again and again.
    #[error("{partition}: the range {from} to {to} (exclusive) could not be processed after {tries} tries: {source}")]
    Processing {
        /// The partition.
        partition: PartitionId,
        /// First offset of the range.
        from: Offset,
        /// First offset after the range.
        to: Offset,
        /// How often it was tried.
        tries: u32,
        /// The last failure.
        source: ProcessError,
    },
    /// The metastore failed, or gave an answer that must not be.
    #[error("{partition}: {source}")]
    Metastore {
        /// The partition.
        partition: PartitionId,
        /// What the metastore said.
        source: StoreError,
    },
    /// The protocol was left: a fault of this program, so nothing more is read.
    #[error("{partition}: {what}; nothing was committed out of order. Restart the job, and report this")]
    Breach {
        /// The partition.
        partition: PartitionId,
        /// What was seen.
        what: &'static str,
    },
    /// Another process reads the same source.
    #[error("{partition}: another process has taken this source over; let one of them run")]
    Fenced {
        /// The partition.
        partition: PartitionId,
    },
    /// The broker refuses us.
    #[error("Kafka refuses this client ({code}): check the credentials and the access rules for topic and group")]
    Refused {
        /// librdkafka's name of the error.
        code: String,
    },
    /// A Kafka client call failed.
    #[error("Kafka, {during}: {kind}")]
    Kafka {
        /// What was being done.
        during: &'static str,
        /// librdkafka's own text, which names brokers, topics and settings.
        kind: String,
    },
    /// A client setting was refused.
    #[error("Kafka setting `{key}` is not accepted: {why}")]
    Setting {
        /// The setting's name.
        key: String,
        /// librdkafka's reason.
        why: String,
    },
    /// Messages were not delivered.
    #[error("{failed} messages were not delivered; the first failure was: {first}. Produce them again when the brokers answer")]
    Delivery {
        /// How many.
        failed: u64,
        /// Kind of the first failure.
        first: String,
    },
    /// The queue was not empty in time.
    #[error("{left} messages were not delivered within {timeout_ms} ms: are the brokers up?")]
    FlushTimeout {
        /// How many are still in the queue.
        left: u64,
        /// The time given, in milliseconds.
        timeout_ms: u64,
    },
    /// There is no such topic.
    #[error("topic `{topic}` is not there: create it, or check its name")]
    NoTopic {
        /// The topic.
        topic: String,
    },
    /// A file could not be read or written.
    #[error("{path}, {during}: {kind}")]
    File {
        /// The file.
        path: String,
        /// What was being done.
        during: &'static str,
        /// Kind of the failure.
        kind: std::io::ErrorKind,
    },
    /// A trace file cannot be read further.
    #[error("{path}: frame {frame} cannot be read: the file is damaged. Copy it again; nothing behind this frame was read")]
    TraceDamaged {
        /// The file.
        path: String,
        /// Index of the frame, from 0.
        frame: i64,
    },
    /// The trace is shorter than what was committed of it before.
    #[error(
        "{path}: {wanted} frames were read from it before, but it holds {found}: it was replaced. Give the new trace another name"
    )]
    TraceShorter {
        /// The file.
        path: String,
        /// Frames read before.
        wanted: i64,
        /// Frames found now.
        found: i64,
    },
    /// A thread could not be started, or ended without an answer.
    #[error("a thread of the ingest job {0}")]
    Thread(&'static str),
}

impl IngestError {
    /// Wraps an error of the client library. Its texts name settings, brokers and codes, never messages.
    pub(crate) fn kafka(during: &'static str, error: &KafkaError) -> Self {
        match error {
            // The value is left out: it may be a password.
            KafkaError::ClientConfig(_, why, key, _) => Self::Setting { key: key.clone(), why: why.clone() },
            other => Self::Kafka { during, kind: other.to_string() },
        }
    }

    pub(crate) fn file(path: &std::path::Path, during: &'static str, error: &std::io::Error) -> Self {
        Self::File { path: path.display().to_string(), during, kind: error.kind() }
    }
}
