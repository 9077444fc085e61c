//! `starling doctor`: looks for what is likeliest to be wrong, and says what to do about it.

use std::path::Path;
use std::time::Duration;

use starling_ingest::partitions;
use starling_schemas::metrics::Catalogue;
use starling_schemas::time::Entropy as _;

use crate::clock::SystemEntropy;
use crate::config::{Config, Transport};
use crate::home::Home;

struct Finding {
    good: bool,
    what: String,
}

/// Prints one line a check.
///
/// # Errors
/// When a check failed, after all of them have been told.
pub async fn run(config: &Config, file: Option<&Path>) -> anyhow::Result<()> {
    let mut findings = Vec::new();
    let mut say = |good: bool, what: String| findings.push(Finding { good, what });
    say(true, format!("settings: good ({})", file.map_or("built-in defaults".to_owned(), |f| f.display().to_string())));
    say(
        SystemEntropy.fill(&mut [0; 32]).is_ok(),
        "entropy: the system's random device answers; without it no key can be made".to_owned(),
    );
    match Catalogue::builtin() {
        Ok(catalogue) => say(true, format!("metrics: {} definitions, all within their budgets", catalogue.metrics.len())),
        Err(error) => say(false, format!("metrics: {error}")),
    }
    let dir = &config.data_dir;
    if dir.join("metastore.db").exists() {
        match Home::open_existing(config.clone()).await {
            Ok(home) => {
                permissions(dir, &mut say);
                match home.metastore.unbalanced().await {
                    Ok(off) if off.is_empty() => {
                        say(true, "books: events in = counted + late + refused + quarantined (I1)".to_owned())
                    }
                    Ok(off) => say(
                        false,
                        format!(
                            "books: {} partitions do not add up (I1): stop ingest and keep the data directory for inquiry",
                            off.len()
                        ),
                    ),
                    Err(error) => say(false, format!("metastore: {error}")),
                }
                match home.metastore.verify_audit().await {
                    Ok(entries) => say(true, format!("audit log: {entries} entries, the chain holds (I6)")),
                    Err(error) => say(false, format!("audit log: {error}")),
                }
            }
            Err(error) => say(false, format!("data directory: {error:#}")),
        }
    } else {
        say(true, format!("data directory: {} is empty; `starling demo` or `starling run` fills it", dir.display()));
    }
    if config.kafka.brokers.is_empty() {
        say(true, "kafka: no brokers set; traces and the demo work without".to_owned());
    } else {
        let mut topics = vec![&config.kafka.topic];
        if config.signals.transport == Transport::Kafka {
            topics.push(&config.signals.topic);
        }
        for topic in topics {
            let count = tokio::task::block_in_place(|| partitions(&config.kafka.brokers, topic, &config.kafka.properties));
            match count {
                Ok(found) if found.is_empty() => say(false, format!("kafka: topic `{topic}` is not there; make it")),
                Ok(found) => say(true, format!("kafka: topic `{topic}` has {} partitions", found.len())),
                Err(error) => say(false, format!("kafka: {} does not answer for `{topic}`: {error}", config.kafka.brokers)),
            }
        }
    }
    match tokio::time::timeout(Duration::from_secs(2), tokio::net::TcpListener::bind(&config.serve.listen)).await {
        Ok(Ok(_)) => say(true, format!("serve: {} is free", config.serve.listen)),
        _ => say(
            false,
            format!(
                "serve: {} cannot be bound; another `starling serve`, or another address in serve.listen?",
                config.serve.listen
            ),
        ),
    }
    for finding in &findings {
        println!("{}  {}", if finding.good { "ok  " } else { "FAIL" }, finding.what);
    }
    let failed = findings.iter().filter(|f| !f.good).count();
    anyhow::ensure!(failed == 0, "{failed} of {} checks failed", findings.len());
    Ok(())
}

#[cfg(unix)]
fn permissions(dir: &Path, say: &mut impl FnMut(bool, String)) {
    use std::os::unix::fs::PermissionsExt as _;
    let keys = dir.join("keys");
    match std::fs::metadata(&keys) {
        Ok(metadata) if metadata.permissions().mode() & 0o077 == 0 => {
            say(true, "keys: only their owner may enter the folder".to_owned())
        }
        Ok(_) => say(false, format!("keys: others may enter {}; run `chmod 700` on it", keys.display())),
        Err(_) => say(false, format!("keys: {} is missing; without it no open window can be read", keys.display())),
    }
}

#[cfg(not(unix))]
fn permissions(_: &Path, _: &mut impl FnMut(bool, String)) {}
