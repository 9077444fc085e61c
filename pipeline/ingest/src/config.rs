//! Client settings: what is always so, what an operator may change, and where librdkafka's log goes.

use std::collections::BTreeMap;

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;

use crate::IngestError;

/// Settings that make reading exact. An operator cannot change them.
///
/// Rebalances are eager on purpose. Read in a batch, librdkafka 2.12 counts the report "end of partition at 860" as a message and takes
/// 861 for the application's position (librdkafka issue 4844, mended upstream by pull request 5213). It goes on from that position only when it resumes a partition,
/// which it does in cooperative rebalances: there a message would be skipped. In an eager rebalance every partition is given up and
/// begins again at the offset that the metastore says.
const FIXED: &[(&str, &str)] = &[
    ("group.protocol", "classic"),
    ("partition.assignment.strategy", "range"),
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("auto.offset.reset", "error"),
    ("enable.partition.eof", "true"),
];

/// What an operator may change. The sizes count per partition, because each partition has its own queue.
const DEFAULTS: &[(&str, &str)] = &[
    ("client.id", "starling"),
    ("queued.max.messages.kbytes", "16384"),
    ("queued.min.messages", "100000"),
    ("fetch.message.max.bytes", "4194304"),
    ("fetch.wait.max.ms", "100"),
    ("fetch.queue.backoff.ms", "5"),
    ("fetch.error.backoff.ms", "100"),
    ("topic.metadata.refresh.interval.ms", "30000"),
];

/// A consumer's settings: defaults, then `properties`, then what is fixed.
pub(crate) fn consumer(brokers: &str, group: &str, properties: &BTreeMap<String, String>) -> Result<ClientConfig, IngestError> {
    let mut config = ClientConfig::new();
    for (key, value) in DEFAULTS {
        config.set(*key, *value);
    }
    apply(&mut config, properties)?;
    for (key, value) in FIXED {
        config.set(*key, *value);
    }
    config.set("bootstrap.servers", brokers).set("group.id", group);
    Ok(config)
}

/// Sets `properties`, but refuses those that would make reading inexact.
pub(crate) fn apply(config: &mut ClientConfig, properties: &BTreeMap<String, String>) -> Result<(), IngestError> {
    // The client would take its level from the `log` crate, which nobody sets up here.
    config.set_log_level(if properties.contains_key("debug") { RDKafkaLogLevel::Debug } else { RDKafkaLogLevel::Info });
    for (key, value) in properties {
        if FIXED.iter().any(|(fixed, _)| fixed == key) || ["bootstrap.servers", "group.id"].contains(&key.as_str()) {
            return Err(IngestError::Setting { key: key.clone(), why: "it is set by this job and cannot be changed".into() });
        }
        config.set(key, value);
    }
    Ok(())
}

/// Sends librdkafka's log to `tracing`. Its lines name brokers, topics and settings, never messages.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LoggedContext;

impl ClientContext for LoggedContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        client_error(&error, reason);
    }
}

impl rdkafka::consumer::ConsumerContext for LoggedContext {}

pub(crate) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
            tracing::error!(target: "librdkafka", facility, "{message}");
        }
        RDKafkaLogLevel::Warning => tracing::warn!(target: "librdkafka", facility, "{message}"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => tracing::info!(target: "librdkafka", facility, "{message}"),
        RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", facility, "{message}"),
    }
}

pub(crate) fn client_error(error: &KafkaError, reason: &str) {
    tracing::warn!(target: "librdkafka", %error, "{reason}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_may_tune_but_not_make_reading_inexact() {
        let tuned = BTreeMap::from([("fetch.wait.max.ms".to_owned(), "7".to_owned())]);
        let config = consumer("localhost:1", "g", &tuned).expect("tuning is allowed");
        assert_eq!(config.get("fetch.wait.max.ms"), Some("7"));
        assert_eq!(config.get("auto.offset.reset"), Some("error"));
        for key in ["auto.offset.reset", "enable.auto.commit", "group.id", "partition.assignment.strategy", "group.protocol"] {
            let refused = BTreeMap::from([(key.to_owned(), "latest".to_owned())]);
            assert!(matches!(consumer("localhost:1", "g", &refused), Err(IngestError::Setting { .. })), "{key}");
        }
    }
}
