//! What can go wrong between the broker and the commit. No text here holds a byte of a payload or a key (I4).

use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaConfRes;
use starling_schemas::ids::{Offset, PartitionId};
use starling_store::StoreError;

use crate::config;
use crate::fault::Fault;

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
         they were read; nothing was skipped. Restore them, or lengthen the topic's retention and accept the loss with `starling \
         accept-loss`, which says what it is and records it"
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
    /// The log is shorter than what was read of it, or was cut below and written anew: other events stand where some were read.
    #[error(
        "{partition}: read up to {wanted}, but the log was cut below that and the broker has {low} to {high} (exclusive), as after an unclean \
         leader election. What was read is counted and stays so; what was written into the cut part is not read. Find out which broker lost \
         data, then go on at the log's present end, or where you say, with `starling accept-loss`, which records it"
    )]
    Truncated {
        /// The partition.
        partition: PartitionId,
        /// The offset that was to be read.
        wanted: Offset,
        /// First offset the broker has.
        low: i64,
        /// First offset the broker does not have yet.
        high: i64,
    },
    /// The topic was deleted and made anew: its offsets mean nothing to the progress that is kept.
    #[error(
        "topic `{topic}` was deleted and made anew: it was read as the topic with id {kept}, and now has id {found}. Nothing of the new one \
         was read. Bring the old one back, or read the new one from its beginning after `starling accept-loss`, which says what of the \
         old one is lost and records it"
    )]
    TopicRecreated {
        /// The topic.
        topic: String,
        /// The id under which it was read.
        kept: String,
        /// The id it has now.
        found: String,
    },
    /// The topic was there and is gone.
    #[error(
        "topic `{topic}` is gone, and was read before (as id {kept}): it was deleted, or this client may not see it any more. Bring it back; if it \
         is to be made anew, do that and then run `starling accept-loss`"
    )]
    TopicGone {
        /// The topic.
        topic: String,
        /// The id under which it was read.
        kept: String,
    },
    /// Another process joined the group under the same name.
    #[error(
        "another process has joined the group as `{instance}`, so this one is out: `group.instance.id` must be different in every process. If \
         the other one replaced this one on purpose, nothing is to be done; else give one of them another id and start it again"
    )]
    InstanceFenced {
        /// The static member's id.
        instance: String,
    },
    /// The group's members do not agree on how partitions move.
    #[error(
        "group `{group}` has members whose `partition.assignment.strategy` does not go together with this one's (`{strategy}`): give all processes \
         of the group the same, or stop all before you change it"
    )]
    MixedGroup {
        /// The group.
        group: String,
        /// What this process wants.
        strategy: String,
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
    /// The brokers do not let us in, and asking again will not change that.
    #[error("Kafka: {0}")]
    Refused(Fault),
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
            KafkaError::ClientConfig(result, why, key, value) => Self::setting(*result, why, key, value),
            KafkaError::ClientCreation(text) => {
                Self::credential_file(text).unwrap_or_else(|| Self::Kafka { during, kind: error.to_string() })
            }
            other => match other.rdkafka_error_code().and_then(Fault::denied) {
                Some(fault) => Self::Refused(fault),
                None => Self::Kafka { during, kind: other.to_string() },
            },
        }
    }

    /// librdkafka's reason may quote the value, which may be a password.
    fn setting(result: RDKafkaConfRes, why: &str, key: &str, value: &str) -> Self {
        let why = match result {
            RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN => "librdkafka has no setting of this name",
            _ if config::is_secret(key) || (!value.is_empty() && why.contains(value)) => {
                "librdkafka does not take this value; its CONFIGURATION.md lists what it takes"
            }
            _ => why,
        };
        Self::Setting { key: key.to_owned(), why: why.to_owned() }
    }

    /// A client that could not be made because of a file with a key or a certificate: `ssl.key.location failed: error:0A080009:…`.
    fn credential_file(text: &str) -> Option<Self> {
        let why = [
            ("ssl.ca.location", "the file cannot be read, or holds no certificates in PEM"),
            ("ssl.certificate.location", "the file cannot be read, or holds no certificate in PEM"),
            ("ssl.key.location", "the file cannot be read, holds no key in PEM, or `ssl.key.password` does not open it"),
            (
                "ssl.keystore.location",
                "the file cannot be read, is no PKCS#12 keystore, or `ssl.keystore.password` does not open it",
            ),
            ("ssl.ca.pem", "it is no certificate in PEM"),
            ("ssl.certificate.pem", "it is no certificate in PEM"),
            ("ssl.key.pem", "it is no key in PEM, or `ssl.key.password` does not open it"),
        ];
        let (key, why) = why.iter().find(|(key, _)| text.contains(key))?;
        Some(Self::Setting { key: (*key).to_owned(), why: (*why).to_owned() })
    }

    pub(crate) fn file(path: &std::path::Path, during: &'static str, error: &std::io::Error) -> Self {
        Self::File { path: path.display().to_string(), during, kind: error.kind() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_setting_is_named_without_its_value() {
        let mut client = rdkafka::ClientConfig::new();
        client.set("sasl.mechanism", "SCRAM-SHA-512").set("enable.idempotence", "hunter2-quoted-by-the-library");
        let Err(error) = client.create_native_config() else { panic!("no such value") };
        assert!(error.to_string().contains("hunter2"), "librdkafka does not quote values any more: this test can go");
        let told = IngestError::kafka("making a producer", &error);
        assert!(!told.to_string().contains("hunter2"), "{told}");
        assert!(told.to_string().contains("enable.idempotence"), "{told}");
    }

    #[test]
    fn a_key_that_cannot_be_opened_is_told_with_the_settings_to_look_at() {
        let error = KafkaError::ClientCreation("ssl.key.location failed: error:0A080009:SSL routines::PEM lib".into());
        let told = IngestError::kafka("making a consumer", &error).to_string();
        assert!(told.contains("ssl.key.location") && told.contains("ssl.key.password"), "{told}");
    }
}
