//! Client settings: what is always so, what an operator may change, and where librdkafka's log goes.

use std::collections::BTreeMap;

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;

use crate::IngestError;
use crate::fault::Faults;

/// Settings that make reading exact. An operator cannot change them.
const FIXED: &[(&str, &str)] = &[
    ("group.protocol", "classic"),
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("auto.offset.reset", "error"),
    ("enable.partition.eof", "true"),
];

/// What an operator may change. The sizes count per partition, because each partition has its own queue; see [`bound_prefetch`].
const DEFAULTS: &[(&str, &str)] = &[
    ("client.id", "starling"),
    // Partitions that stay with their owner are not taken from it while others move. What that needs in librdkafka stands in
    // `protocol/continuity.rs`.
    (STRATEGY, "cooperative-sticky"),
    (PREFETCH, "16384"),
    ("queued.min.messages", "100000"),
    (FETCH, "4194304"),
    ("fetch.wait.max.ms", "100"),
    ("fetch.queue.backoff.ms", "5"),
    ("fetch.error.backoff.ms", "100"),
    // Within this time partitions that were added to the topic are found.
    ("topic.metadata.refresh.interval.ms", "30000"),
];

pub(crate) const STRATEGY: &str = "partition.assignment.strategy";
pub(crate) const INSTANCE: &str = "group.instance.id";

const PREFETCH: &str = "queued.max.messages.kbytes";
const FETCH: &str = "fetch.message.max.bytes";
/// Most and least that is read ahead of one partition, in KiB. Below the least, reading would wait for the network at every message.
const PREFETCH_KIB: std::ops::RangeInclusive<usize> = 256..=16_384;

/// Deals `bytes` out to the partitions, so that what librdkafka reads ahead of all of them together is bounded, whoever of the group has how
/// many. It counts per partition, and takes the number once, when the client is made: for partitions that are added later it is as for the
/// others. What an operator has set stays.
pub(crate) fn bound_prefetch(config: &mut ClientConfig, properties: &BTreeMap<String, String>, bytes: usize, partitions: usize) {
    let each_kib = (bytes / 1024 / partitions.max(1)).clamp(*PREFETCH_KIB.start(), *PREFETCH_KIB.end());
    if !properties.contains_key(PREFETCH) {
        config.set(PREFETCH, each_kib.to_string());
    }
    if !properties.contains_key(FETCH) {
        // An answer that is longer than the queue may be would go past the bound.
        config.set(FETCH, (each_kib * 1024).min(4 << 20).to_string());
    }
}

/// How partitions move between the members of the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rebalancing {
    /// In every rebalance all members give all partitions up.
    Eager,
    /// Only partitions that move are given up.
    Cooperative,
}

/// How the group of a consumer with these settings rebalances.
pub(crate) fn rebalancing(config: &ClientConfig) -> Result<Rebalancing, IngestError> {
    match config.get(STRATEGY) {
        Some("cooperative-sticky") => Ok(Rebalancing::Cooperative),
        Some("range" | "roundrobin" | "range,roundrobin" | "roundrobin,range") => Ok(Rebalancing::Eager),
        _ => Err(IngestError::Setting {
            key: STRATEGY.into(),
            why: "it must be `cooperative-sticky`, or `range` or `roundrobin` for a group that moves all partitions at once"
                .into(),
        }),
    }
}

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
    trust_this_system(config, |name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
    Ok(())
}

/// Lets TLS clients trust the system's certificate authorities when no others are named. OpenSSL is built in, and looks for them where it
/// would have been installed itself; `probe` has librdkafka look where systems keep them. Who sets OpenSSL's own variables is left alone.
fn trust_this_system(config: &mut ClientConfig, is_set: impl Fn(&str) -> bool) {
    let tls = config.get("security.protocol").is_some_and(|protocol| protocol.to_ascii_lowercase().contains("ssl"));
    let named = ["ssl.ca.location", "ssl.ca.pem"].iter().any(|key| config.get(key).is_some());
    if tls && !named && !is_set("SSL_CERT_FILE") && !is_set("SSL_CERT_DIR") {
        config.set("ssl.ca.location", "probe");
    }
}

/// Whether the value of this setting of librdkafka's must never be shown. Names of files and of users may.
#[must_use]
pub fn is_secret(setting: &str) -> bool {
    let name = setting.to_ascii_lowercase();
    let marks =
        ["password", "passphrase", "secret", "token", "jaas", "pem", "assertion", "oauthbearer.config", "credential", "key"];
    let open = [".location", ".file", ".url", ".algorithm", "mechanism", "mechanisms"];
    marks.iter().any(|mark| name.contains(mark)) && !open.iter().any(|end| name.ends_with(end))
}

/// Sends librdkafka's log to `tracing`, and notes why brokers refuse. The lines name brokers, topics and settings, never messages.
#[derive(Debug, Default)]
pub(crate) struct LoggedContext {
    pub(crate) faults: Faults,
}

impl ClientContext for LoggedContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.faults.observe(reason);
        client_error(&error, reason);
    }
}

impl rdkafka::consumer::ConsumerContext for LoggedContext {}

pub(crate) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    let message = without_signature(message);
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
    tracing::warn!(target: "librdkafka", %error, "{}", without_signature(reason));
}

/// librdkafka redacts the secrets among its settings, but when a broker fails to prove that it knows the password, it prints what the proof
/// should have been, which is computed from the password.
fn without_signature(text: &str) -> &str {
    text.split_once("(server's ").map_or(text, |(before, _)| before.trim_end())
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
        for key in ["auto.offset.reset", "enable.auto.commit", "group.id", "group.protocol"] {
            let refused = BTreeMap::from([(key.to_owned(), "latest".to_owned())]);
            assert!(matches!(consumer("localhost:1", "g", &refused), Err(IngestError::Setting { .. })), "{key}");
        }
    }
    #[test]
    fn what_is_read_ahead_is_bounded_over_all_partitions() {
        let bounded = |partitions: usize, set: &[(&str, &str)]| {
            let properties: BTreeMap<String, String> = set.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            let mut config = consumer("localhost:1", "g", &properties).expect("settings of librdkafka");
            bound_prefetch(&mut config, &properties, 256 << 20, partitions);
            let read = |key| config.get(key).and_then(|v| v.parse::<usize>().ok()).expect("a number");
            (read(PREFETCH), read(FETCH))
        };
        assert_eq!(bounded(4, &[]), (16_384, 4 << 20), "few partitions need no more than this");
        assert_eq!(bounded(128, &[]), (2048, 2 << 20));
        for partitions in [1, 16, 17, 100, 1000] {
            assert!(bounded(partitions, &[]).0 * partitions <= 256 << 10, "{partitions}");
        }
        assert_eq!(bounded(100_000, &[]).0, 256, "never so little that reading would stand still");
        assert_eq!(bounded(1000, &[(PREFETCH, "999"), (FETCH, "77777")]), (999, 77_777), "an operator's word");
    }

    #[test]
    fn partitions_move_one_way_or_the_other_but_not_both() {
        let strategy = |value: Option<&str>| {
            let properties = value.map(|value| (STRATEGY.to_owned(), value.to_owned())).into_iter().collect();
            rebalancing(&consumer("localhost:1", "g", &properties).expect("a setting of librdkafka"))
        };
        assert_eq!(strategy(None).expect("default"), Rebalancing::Cooperative);
        assert_eq!(strategy(Some("range")).expect("eager"), Rebalancing::Eager);
        for mixed in ["cooperative-sticky,range", "range,cooperative-sticky", "sticky", ""] {
            assert!(matches!(strategy(Some(mixed)), Err(IngestError::Setting { .. })), "{mixed}");
        }
    }

    #[test]
    fn tls_without_an_authority_trusts_those_of_the_system() {
        let with = |settings: &[(&str, &str)], variable: &str| {
            let mut config = ClientConfig::new();
            for (key, value) in settings {
                config.set(*key, *value);
            }
            trust_this_system(&mut config, |name| name == variable);
            config.get("ssl.ca.location").map(str::to_owned)
        };
        assert_eq!(with(&[("security.protocol", "SASL_SSL")], "").as_deref(), Some("probe"));
        assert_eq!(with(&[("security.protocol", "ssl")], "").as_deref(), Some("probe"));
        assert_eq!(with(&[("security.protocol", "SSL"), ("ssl.ca.location", "/ca.pem")], "").as_deref(), Some("/ca.pem"));
        assert_eq!(with(&[("security.protocol", "SSL"), ("ssl.ca.pem", "-")], ""), None);
        assert_eq!(with(&[("security.protocol", "SSL")], "SSL_CERT_FILE"), None);
        assert_eq!(with(&[("security.protocol", "SASL_PLAINTEXT")], ""), None);
        assert_eq!(with(&[], ""), None);
    }

    #[test]
    fn secrets_are_known_by_their_names() {
        let secret = [
            "sasl.password",
            "ssl.key.password",
            "ssl.key.pem",
            "ssl.keystore.password",
            "sasl.oauthbearer.config",
            "sasl.oauthbearer.client.secret",
            "sasl.oauthbearer.assertion.private.key.passphrase",
            "SASL.PASSWORD",
            "sasl.jaas.config",
        ];
        let open = [
            "sasl.username",
            "sasl.mechanism",
            "security.protocol",
            "ssl.key.location",
            "ssl.ca.location",
            "ssl.certificate.location",
            "ssl.keystore.location",
            "fetch.wait.max.ms",
            "debug",
            "client.id",
        ];
        assert!(secret.iter().all(|name| is_secret(name)) && !open.iter().any(|name| is_secret(name)));
    }

    #[test]
    fn what_a_broker_should_have_proved_is_not_logged() {
        let text = "h:1: SASL authentication error: SASL SCRAM authentication failed: ServerSignature mismatch (server's AAA= != ours BBB=)";
        assert!(without_signature(text).ends_with("ServerSignature mismatch"));
    }
}
