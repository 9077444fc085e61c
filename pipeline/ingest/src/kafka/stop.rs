//! A stop that somebody has to do something about is written into the audit log, so that whoever is called later finds it with
//! `starling audit tail`, also if the process's own log is gone.

use std::sync::Arc;

use serde_json::json;
use starling_schemas::ids::EpochId;
use starling_schemas::time::Clock;
use starling_store::Metastore;

use super::KafkaSource;
use crate::IngestError;
use crate::lane::Workshop;

/// The kind of such an entry.
pub const STOPPED: &str = "ingest_stopped";

pub(super) struct Recorder {
    metastore: Arc<Metastore>,
    clock: Arc<dyn Clock>,
    topic: String,
    group: String,
}

impl Recorder {
    pub(super) fn new(source: &KafkaSource, workshop: &Workshop) -> Self {
        Self {
            metastore: Arc::clone(&workshop.metastore),
            clock: Arc::clone(&workshop.clock),
            topic: source.topic.clone(),
            group: source.group.clone(),
        }
    }

    /// Records why the job stops. A supervisor may start it again every few seconds, so the same reason is recorded once a day.
    pub(super) async fn record(&self, error: &IngestError) {
        let text = error.to_string();
        let now_ms = self.clock.now_ms();
        let day = EpochId::of(now_ms);
        let once = format!("{STOPPED}/{day}/{}/{}", self.topic, blake3::hash(text.as_bytes()).to_hex());
        // The text names topic, partition, offsets and settings, never a value from the data (I4).
        let detail = json!({ "topic": self.topic, "group": self.group, "reason": text });
        match self.metastore.append_audit_once(&once, STOPPED, detail, now_ms).await {
            Ok(_) => tracing::error!(topic = %self.topic, "ingest stops: {text}"),
            Err(source) => {
                tracing::error!(topic = %self.topic, "ingest stops, and the audit log does not take it ({source}): {text}")
            }
        }
    }
}
