//! `starling doctor`: looks for what is likeliest to be wrong, and says what to do about it.

use std::path::Path;
use std::time::Duration;

use starling_ingest::{Fault, IngestError, examine, partitions};
use starling_schemas::metrics::Catalogue;
use starling_schemas::time::Entropy as _;
use starling_store::{Files, Metastore};

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
    match Metastore::is_there(&config.metastore_address()).await {
        Ok(true) => match Home::open_existing(config.clone()).await {
            Ok(home) => {
                permissions(dir, &mut say);
                metastore(&home, &mut say).await;
            }
            Err(error) => say(false, format!("data directory: {error:#}")),
        },
        Ok(false) if config.metastore.url.is_empty() => {
            say(true, format!("data directory: {} is empty; `starling demo` or `starling run` fills it", dir.display()));
        }
        Ok(false) => say(true, "metastore: it answers and has no tables yet; `starling run` makes them".to_owned()),
        Err(error) => say(false, format!("metastore: {}: {error}", Metastore::shown_address(&config.metastore_address()))),
    }
    files(config, &mut say).await;
    if config.kafka.brokers.is_empty() {
        say(true, "kafka: no brokers set; traces and the demo work without".to_owned());
    } else {
        kafka(config, file, &mut say);
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

/// Writes, creates once, reads, lists and removes a small file.
async fn files(config: &Config, say: &mut impl FnMut(bool, String)) {
    let local = config.data_dir.join("files");
    let (place, opened) = match config.files.s3() {
        Ok(None) if !local.exists() => return,
        Ok(None) => (local.display().to_string(), Files::open_local(&local)),
        Ok(Some(settings)) => (config.files.url.clone(), Files::open_s3(&settings)),
        Err(error) => return say(false, format!("files: {error}")),
    };
    let tried = match opened {
        Ok(files) => files.check().await.map(|()| files),
        Err(error) => Err(error),
    };
    match tried {
        Ok(files) => {
            say(true, format!("files: {place} creates a file once, reads, lists and removes it"));
            match files.count_unfinished("people").await {
                Ok(0) => {}
                Ok(count) => say(
                    true,
                    format!(
                        "files: {count} unfinished below people/: being written now, or left by a killed process; see [files] in the settings"
                    ),
                ),
                Err(error) => say(false, format!("files: {error}")),
            }
        }
        Err(error) => say(false, format!("files: {place}: {error}")),
    }
}

async fn metastore(home: &Home, say: &mut impl FnMut(bool, String)) {
    match home.metastore.probe().await {
        Ok(probe) => {
            let over = match probe.encrypted {
                None => "",
                Some(true) => ", over an encrypted connection",
                Some(false) => ", over a connection in plain text",
            };
            say(true, format!("metastore: {} answers and takes writes{over}", probe.engine));
            if !probe.durable {
                say(
                    false,
                    "metastore: the server runs without fsync or full_page_writes: a power failure may damage it; set both to on"
                        .to_owned(),
                );
            }
        }
        Err(error) => say(false, format!("metastore: {error}")),
    }
    match home.metastore.unbalanced().await {
        Ok(off) if off.is_empty() => say(true, "books: events in = counted + late + refused + quarantined (I1)".to_owned()),
        Ok(off) => say(
            false,
            format!("books: {} partitions do not add up (I1): stop ingest and keep the data directory for inquiry", off.len()),
        ),
        Err(error) => say(false, format!("metastore: {error}")),
    }
    match home.metastore.verify_audit().await {
        Ok(entries) => say(true, format!("audit log: {entries} entries, the chain holds (I6)")),
        Err(error) => say(false, format!("audit log: {error}")),
    }
}

/// Looks at the brokers with the settings that jobs would use.
fn kafka(config: &Config, file: Option<&Path>, say: &mut impl FnMut(bool, String)) {
    let settings = &config.kafka;
    for file in settings.readable_by_all(file) {
        say(false, format!("kafka: {file} holds a secret and everybody on this machine may read it; run `chmod o-r` on it"));
    }
    let properties = match settings.client_properties() {
        Ok(properties) => properties,
        Err(error) => return say(false, format!("{error:#}")),
    };
    let spoken = properties.get("security.protocol").map_or("plaintext".to_owned(), |protocol| protocol.to_ascii_lowercase());
    // Anything else is refused below, and not repeated: it may be a password in the wrong place.
    match spoken.as_str() {
        "ssl" | "sasl_ssl" => say(true, "kafka: connections are encrypted (`security.protocol`)".to_owned()),
        "plaintext" | "sasl_plaintext" => say(true, "kafka: connections are not encrypted (`security.protocol`)".to_owned()),
        _ => {}
    }
    // Those that are written only are looked at without reading: whether they may be written cannot be tried without writing.
    let mut topics = vec![(&settings.topic, Some(settings.group.as_str())), (&config.alerts.topic, None)];
    if config.signals.transport == Transport::Kafka {
        topics.push((&config.signals.topic, None));
    }
    for (topic, group) in topics {
        let written_only = topic == &config.alerts.topic;
        let found = tokio::task::block_in_place(|| match written_only {
            true => partitions(&settings.brokers, topic, &properties),
            false => examine(&settings.brokers, topic, group, &properties),
        });
        match found {
            Ok(found) => {
                let may = if written_only { "is there" } else { "may be read" };
                say(true, format!("kafka: topic `{topic}` {may}; it has {} partitions", found.len()));
            }
            Err(error) => {
                say(false, format!("kafka: {}, topic `{topic}`: {error}", settings.brokers));
                // What keeps us from the brokers keeps us from every topic.
                if !matches!(error, IngestError::NoTopic { .. } | IngestError::Refused(Fault::Topic | Fault::Group)) {
                    break;
                }
            }
        }
    }
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
