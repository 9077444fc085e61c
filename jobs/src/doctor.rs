//! # `starling doctor`: what is likeliest to be wrong, tried out, with what to do about it
//!
//! A setting that cannot be right is refused before this begins, with file and line. What is left can only be seen by trying, and is tried with the
//! very settings, keys and passwords that the jobs would use:
//!
//! | | likeliest fault | where it is looked for |
//! |---|---|---|
//! | 1 | brokers out of reach, or one that announces an address which is | `kafka.rs`: each partition is asked for what comes after its end |
//! | 2 | wrong user, password, mechanism, authority or protocol of Kafka | the same, told apart from one another |
//! | 3 | a topic that is not there, or may not be read; fewer partitions than the settings name | the same, topic by topic |
//! | 4 | `events` kept shorter than late events count, for longer than numbers may be kept, or compacted | `kafka.rs`: the topic's own settings |
//! | 5 | a metastore out of reach, of a newer build, that takes no writes, or that a power failure may damage | here: it is opened and written to |
//! | 6 | a clock that is wrong: it closes days and destroys keys | `clocks.rs`: the database's clock, and what was written in the future |
//! | 7 | an object store that refuses, or that replaces what is there (I3) | here: a file is written, and written once more |
//! | 8 | keys and secrets that everybody on this machine may read | here, `kafka.rs`, `doors.rs` |
//! | 9 | a certificate with another one's key | `doors.rs`: both are loaded as the doors load them |
//! | 10 | a door that nobody can come through: no users, no token | `doors.rs` |
//! | 11 | an address that is twice in the settings, or another machine's | `doors.rs`: the settings are compared, then each is bound; what is taken is told, and no fault beside a running job |
//! | 12 | a receiver of alerts that does not answer, or has given up answering | here: each is knocked at |
//!
//! Beside these: written rules and lists of hashes that cannot be used, books that do not balance (I1), a broken audit chain (I6), unfinished uploads. It writes nothing that stays, spends no budget,
//! and tells no secret.

mod clocks;
mod doors;
mod kafka;

use std::path::Path;

use starling_schemas::metrics::Catalogue;
use starling_schemas::time::Entropy as _;
use starling_store::{Files, Metastore};

use crate::clock::SystemEntropy;
use crate::config::Config;
use crate::group_lists;
use crate::home::Home;
use crate::receivers::Receivers;
use crate::rules;

/// Most deliveries that are counted.
const MOST_DELIVERIES: u32 = 1_000;

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
    match rules::load(config) {
        Ok(rules) => {
            say(true, format!("rules: {} written ones beside the detectors; their tests hold", rules.written.rules().len()))
        }
        Err(error) => say(false, format!("rules: {error:#}")),
    }
    match group_lists::read(config) {
        Ok(None) => {}
        Ok(Some(lists)) => say(
            true,
            format!(
                "group hashes: {} on {} lists; jobs that read events hold groups against them",
                lists.hashes(),
                lists.labels().len()
            ),
        ),
        Err(error) => say(false, format!("group hashes: {error:#}")),
    }
    let dir = &config.data_dir;
    match Metastore::is_there(&config.metastore_address()).await {
        Ok(true) => match looked_at(config, &mut say).await {
            Ok(home) => {
                metastore(&home, &mut say).await;
                clocks::look(&home, &mut say).await;
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
        kafka::look(config, file, &mut say);
    }
    receivers(config, &mut say).await;
    doors::look(config, &mut say).await;
    for finding in &findings {
        println!("{}  {}", if finding.good { "ok  " } else { "FAIL" }, finding.what);
    }
    let failed = findings.iter().filter(|f| !f.good).count();
    anyhow::ensure!(failed == 0, "{failed} of {} checks failed", findings.len());
    Ok(())
}

/// Opens what is there, after a look at what opening changes.
async fn looked_at(config: &Config, say: &mut impl FnMut(bool, String)) -> anyhow::Result<Home> {
    permissions(&config.data_dir, say);
    Home::open_existing(config.clone()).await
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
    match home.metastore.deliveries(true, MOST_DELIVERIES).await {
        Ok(dead) if dead.is_empty() => {}
        Ok(dead) => say(
            false,
            format!(
                "receivers: {}{} deliveries of alerts were given up: see `starling alerts deliveries --dead`, then `resend`",
                dead.len(),
                if dead.len() as u64 == u64::from(MOST_DELIVERIES) { " or more" } else { "" }
            ),
        ),
        Err(error) => say(false, format!("metastore: {error}")),
    }
    match home.metastore.verify_audit().await {
        Ok(entries) => say(true, format!("audit log: {entries} entries, the chain holds (I6)")),
        Err(error) => say(false, format!("audit log: {error}")),
    }
}

/// Knocks at each receiver of alerts, without an alert.
async fn receivers(config: &Config, say: &mut impl FnMut(bool, String)) {
    let receivers = match Receivers::open(config) {
        Ok(receivers) => receivers,
        Err(error) => return say(false, format!("receivers: {error:#}")),
    };
    for (who, knocked) in receivers.knock().await {
        match knocked {
            Ok(()) => say(true, format!("receivers: {who} answers")),
            Err(fault) => say(false, format!("receivers: {who}: {fault}")),
        }
    }
    for hook in config.alerts.webhooks.values() {
        readable("receivers", &hook.secret_file, say);
    }
}

/// Says if everybody on this machine may read a file that holds a secret.
fn readable(whose: &str, file: &str, say: &mut impl FnMut(bool, String)) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        if std::fs::metadata(file).is_ok_and(|file| file.permissions().mode() & 0o004 != 0) {
            say(
                false,
                format!("{whose}: {file} holds a secret and everybody on this machine may read it; run `chmod o-r` on it"),
            );
        }
    }
    #[cfg(not(unix))]
    let _ = (whose, file, say);
}

/// Looks at the keys before anything opens them: that makes the folder private again, and with it what was wrong unseen.
#[cfg(unix)]
fn permissions(dir: &Path, say: &mut impl FnMut(bool, String)) {
    use std::os::unix::fs::PermissionsExt as _;
    let keys = dir.join("keys");
    let is_private = |path: &Path| std::fs::metadata(path).map(|metadata| metadata.permissions().mode() & 0o077 == 0);
    match is_private(&keys) {
        Ok(true) => say(true, "keys: only their owner may enter the folder".to_owned()),
        Ok(false) => say(
            false,
            format!(
                "keys: others could enter {}, which is put right now; whoever is on this machine may have copied what was in it",
                keys.display()
            ),
        ),
        Err(_) => return say(false, format!("keys: {} is missing; without it no open window can be read", keys.display())),
    }
    let open = std::fs::read_dir(&keys).into_iter().flatten().flatten().filter(|key| is_private(&key.path()).is_ok_and(|it| !it));
    match open.count() {
        0 => {}
        count => say(
            false,
            format!(
                "keys: others may read {count} of the files in {}; jobs refuse them; run `chmod 600` on them",
                keys.display()
            ),
        ),
    }
}

#[cfg(not(unix))]
fn permissions(_: &Path, _: &mut impl FnMut(bool, String)) {}
