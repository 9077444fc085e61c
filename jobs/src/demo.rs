//! `starling demo`: a simulated day through all rooms in one process, and what came of it beside the truth.
//!
//! The embedded broker keeps little and drops in silence what is more, so traffic is made no faster than it is committed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use indicatif::ProgressBar;
use starling_ingest::{EmbeddedBroker, Producer};
use starling_integrity::Alert;
use starling_schemas::ids::{EpochId, Purpose};
use starling_store::{KeyId, KeyKind, KeyState, ReleaseRecord};
use tokio::sync::watch;

use crate::cli::{Demo, Global};
use crate::config::{Config, Transport};
use crate::demo_report;
use crate::home::Home;
use crate::integrity_job::{self, LocalDetector};
use crate::simulate::{Settings, Truth, World};
use crate::summary::{books, grouped};
use crate::windows_job::{self, Extent};
use crate::{alerts, keyed, on_us, progress, run, status};

/// Partitions of the demo's topic.
const PARTITIONS: i32 = 4;
/// Most events that are produced but not committed: far below what the embedded broker keeps of a partition (5 MiB).
const MOST_IN_FLIGHT: u64 = 60_000;
/// Marks a folder that a demo made and the next one may remove.
const MARKER: &str = "made-by-starling-demo";

/// Runs it.
///
/// # Errors
/// When the folder is not the demo's to use, or any room fails.
pub async fn run(global: &Global, mut config: Config, demo: &Demo) -> anyhow::Result<()> {
    let started = Instant::now();
    let dir = global.data_dir.clone().unwrap_or_else(|| PathBuf::from("starling-demo"));
    prepare(&dir)?;
    let start = EpochId::parse("2026-01-05").context("the demo's day")?;
    let world = World::new(Settings::new(demo.people, 1, demo.seed, start))?;

    let broker = EmbeddedBroker::start(&[("events", PARTITIONS), ("integrity.alerts", 1)])?;
    config.data_dir.clone_from(&dir);
    // A day that was made up belongs into no metastore but its own.
    config.metastore.url.clear();
    config.kafka.brokers = broker.brokers();
    config.kafka.topic = "events".into();
    config.alerts.topic = "integrity.alerts".into();
    config.signals.transport = Transport::Local;
    config.ingest.max_events = 10_000;
    config.ingest.linger_ms = 50;
    let home = Home::open(config).await?;
    println!(
        "A simulated Monday: {} people, one embedded broker, one process. Data goes to {}.",
        grouped(demo.people),
        dir.display()
    );

    let (sender, stop) = watch::channel(false);
    let ingesting = tokio::spawn(run::ingest(home.clone(), stop.clone()));
    let detecting = tokio::spawn(LocalDetector::open(&home).await?.run(stop.clone()));
    let publishing = tokio::spawn(integrity_job::publish_alerts(home.clone(), stop.clone()));

    let bar = bar();
    let committed = Arc::new(AtomicU64::new(0));
    let produced = produce(&home, world, Arc::clone(&committed), bar.clone());
    tokio::pin!(produced);
    let (truth, total) = loop {
        tokio::select! {
            done = &mut produced => break done?,
            () = tokio::time::sleep(Duration::from_millis(20)) => {
                refresh(&home, &committed).await?;
                anyhow::ensure!(!ingesting.is_finished() && !detecting.is_finished(), "a job ended early; run with --log info to see why");
            }
        }
    };
    while refresh(&home, &committed).await? < total {
        anyhow::ensure!(!ingesting.is_finished(), "ingest ended early; run with --log info to see why");
        bar.set_position(committed.load(Ordering::Relaxed));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let _ = sender.send(true);
    ingesting.await??;
    detecting.await??;
    publishing.await??;
    let streamed = started.elapsed();
    bar.set_message("closing the day, releasing statistics");

    // While the integrity keys live, the demo alone may look up which planted abuser an alert means.
    let found = find_planted(&home, &truth).await?;
    on_us::look(&home).await?;
    windows_job::close(&home, Extent::All).await?;
    windows_job::release(&home).await?;
    bar.finish_and_clear();

    let mut out = String::new();
    let rate = (total as f64 / streamed.as_secs_f64()) as u64;
    let _ = writeln!(
        out,
        "\nWhat came in ({} events in {:.1} s, {} a second with the simulator on the same machine)",
        grouped(total),
        streamed.as_secs_f64(),
        grouped(rate)
    );
    out.push_str(&books(&status::collect(&home).await?));
    out.push_str(&demo_report::statistics(&home, &truth).await?);
    out.push_str(&demo_report::alerts(&truth, &found));
    out.push_str(&keys(&home)?);
    let _ = writeln!(
        out,
        "\nDone in {:.0} s{}.",
        started.elapsed().as_secs_f64(),
        peak_memory().map_or(String::new(), |m| format!(", {m} MiB of memory at the most"))
    );
    let executable = std::env::args().next().unwrap_or_else(|| "starling".into());
    let _ = write!(
        out,
        "\nTry next\n  {executable} sql --data-dir {dir} \"SELECT country, sum(value) AS messages FROM stats.messages_daily WHERE status = 'released' GROUP BY country ORDER BY messages DESC LIMIT 5\"\n  {executable} alerts --data-dir {dir}\n  {executable} sql --data-dir {dir} \"EXPLAIN PRIVACY SELECT platform, AVG(events) FROM private.person_day GROUP BY platform\"\n  {executable} budget --data-dir {dir}",
        dir = dir.display()
    );
    println!("{out}");
    drop(broker);
    Ok(())
}

/// Makes the folder, or empties one that a demo made.
fn prepare(dir: &Path) -> anyhow::Result<()> {
    if dir.exists() {
        let empty = std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none());
        anyhow::ensure!(
            empty || dir.join(MARKER).exists(),
            "{}: this folder was not made by a demo and is not empty; choose another with --data-dir",
            dir.display()
        );
        std::fs::remove_dir_all(dir).with_context(|| format!("{}: the last demo cannot be removed", dir.display()))?;
    }
    std::fs::create_dir_all(dir)
        .with_context(|| format!("{}: cannot be made; choose another folder with --data-dir", dir.display()))?;
    std::fs::write(dir.join(MARKER), "The next `starling demo` removes this folder.\n")?;
    Ok(())
}

fn bar() -> ProgressBar {
    let bar = progress::bar(None, "{spinner} {human_pos} events committed  {msg}  {elapsed}");
    if !bar.is_hidden() {
        bar.enable_steady_tick(Duration::from_millis(120));
    }
    bar
}

/// How many events are committed.
async fn refresh(home: &Home, committed: &AtomicU64) -> anyhow::Result<u64> {
    let sum =
        home.metastore.partitions().await?.iter().map(|p| p.next_offset.map_or(0, |o| u64::try_from(o.0).unwrap_or(0))).sum();
    committed.store(sum, Ordering::Relaxed);
    Ok(sum)
}

/// Makes the traffic in a thread of its own; gives the truth and how many events there were.
async fn produce(home: &Home, world: World, committed: Arc<AtomicU64>, bar: ProgressBar) -> anyhow::Result<(Truth, u64)> {
    let producer = Producer::new(&home.config.kafka.brokers, &home.config.kafka.client_properties()?)?;
    let topic = home.config.kafka.topic.clone();
    tokio::task::spawn_blocking(move || {
        let mut sent = 0_u64;
        let truth = world.for_each_event(
            &mut |event| {
                while sent.saturating_sub(committed.load(Ordering::Relaxed)) >= MOST_IN_FLIGHT {
                    std::thread::sleep(Duration::from_millis(2));
                }
                producer.send(&topic, None, Some(&event.key), event.encoded)?;
                sent += 1;
                if sent.is_multiple_of(4096) {
                    bar.set_position(committed.load(Ordering::Relaxed));
                    bar.set_message(status::timestamp(event.time_ms));
                }
                anyhow::Ok(())
            },
            &mut |_| {},
        )?;
        producer.flush(Duration::from_secs(60))?;
        Ok((truth, sent))
    })
    .await?
}

/// Alerts, each with the place of the planted abuser it means.
async fn find_planted(home: &Home, truth: &Truth) -> anyhow::Result<Vec<(Alert, Option<usize>)>> {
    let mut subjects: BTreeMap<String, usize> = BTreeMap::new();
    for (i, planted) in truth.abusers.iter().enumerate() {
        let epoch = EpochId::of(planted.start_ms);
        let Some(key) = home.keyring.get(KeyId { kind: KeyKind::Pseudonym, purpose: Purpose::Integrity, epoch })? else {
            continue;
        };
        if let Some(subject) = keyed::subject(&planted.subject_kind, &planted.subject, key.expose(), epoch) {
            subjects.insert(subject.value, i);
        }
    }
    let records = home.metastore.alerts_after(0, u32::MAX).await?;
    records.iter().map(|record| Ok((alerts::alert(record)?, subjects.get(&record.subject).copied()))).collect()
}

/// Which keys died, and which live.
fn keys(home: &Home) -> anyhow::Result<String> {
    let mut out = String::from("\nKeys\n");
    for (id, state) in home.keyring.list()? {
        let what = match (state, id.kind) {
            (KeyState::Destroyed { .. }, KeyKind::Pseudonym) => "destroyed: nobody can tell any more who a pseudonym was",
            (KeyState::Destroyed { .. }, KeyKind::Data) => "destroyed: its rows are unreadable, in backups too",
            (KeyState::Alive, KeyKind::Pseudonym) => "alive",
            (KeyState::Alive, KeyKind::Data) => "alive until its rows expire",
        };
        let _ = writeln!(out, "  {:<40} {what}", id.to_string());
    }
    Ok(out)
}

/// Peak resident memory in MiB, where the system tells it.
fn peak_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib: u64 = text.lines().find_map(|l| l.strip_prefix("VmHWM:"))?.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib / 1024)
}

/// A release of the demo's day.
#[must_use]
pub fn of_metric<'a>(releases: &'a [ReleaseRecord], metric: &str) -> Option<&'a ReleaseRecord> {
    releases.iter().find(|r| r.metric == metric)
}
