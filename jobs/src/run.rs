//! Jobs that stay: ingest, integrity, closing, serving, alone or all in one process.

use std::future::Future;
use std::io::IsTerminal as _;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use starling_ingest::{KafkaSource, TraceProgress, TraceSummary, run_kafka, run_trace};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::Config;
use crate::home::Home;
use crate::integrity_job::{self, LocalDetector};
use crate::processor::Processor;
use crate::windows_job::{self, Extent};
use crate::{serve, signal_log, summary};

/// A signal to stop, heard by all jobs of the process: SIGINT or SIGTERM.
#[must_use]
pub fn stop_signal() -> watch::Receiver<bool> {
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        #[cfg(unix)]
        let terminated = async {
            match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
                Ok(mut signal) => {
                    signal.recv().await;
                }
                Err(_) => std::future::pending().await,
            }
        };
        #[cfg(not(unix))]
        let terminated = std::future::pending::<()>();
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            () = terminated => {}
        }
        tracing::info!("stopping: what is in work is finished first");
        let _ = sender.send(true);
        // Kept until the process ends, so that receivers do not mistake its going for a stop.
        std::future::pending::<()>().await;
    });
    receiver
}

/// Reads `events` from Kafka until `stop`.
///
/// # Errors
/// What ingest cannot wait out: a gap in the topic, a range that fails again and again.
pub async fn ingest(home: Home, stop: watch::Receiver<bool>) -> anyhow::Result<()> {
    let kafka = &home.config.kafka;
    anyhow::ensure!(!kafka.brokers.is_empty(), "kafka.brokers is not set: name them with --brokers, or in the settings file");
    let source = KafkaSource {
        brokers: kafka.brokers.clone(),
        group: kafka.group.clone(),
        topic: kafka.topic.clone(),
        properties: kafka.properties.clone(),
    };
    let processor = Arc::new(Processor::new(home.clone(), signal_log::sink(&home)?));
    run_kafka(source, home.batch_limits(), Arc::clone(&home.metastore), processor, Arc::clone(&home.clock), stop)
        .await
        .context("ingest stopped")
}

type Job = Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>;

/// All rooms in one process, until `stop` or until one of them fails.
///
/// # Errors
/// The first failure, after the others have stopped.
pub async fn all(home: Home, outer: watch::Receiver<bool>) -> anyhow::Result<()> {
    let (sender, stop) = watch::channel(false);
    let jobs: Vec<(&'static str, Job)> = vec![
        ("ingest", Box::pin(ingest(home.clone(), stop.clone()))),
        ("integrity", Box::pin(integrity_job::run(home.clone(), stop.clone()))),
        ("alerts", Box::pin(integrity_job::publish_alerts(home.clone(), stop.clone()))),
        ("windows", Box::pin(windows_job::watch(home.clone(), stop.clone()))),
        (
            "serve",
            Box::pin(serve::run(
                home.clone(),
                stop.clone(),
                |address| tracing::info!(%address, "alerts at /v1/alerts and /v1/alerts/stream"),
            )),
        ),
    ];
    let mut set = JoinSet::new();
    for (name, job) in jobs {
        set.spawn(async move { (name, job.await) });
    }
    let mut outer = outer;
    let mut first_failure = None;
    loop {
        tokio::select! {
            _ = outer.wait_for(|stopped| *stopped), if !*stop.borrow() => {
                let _ = sender.send(true);
            }
            done = set.join_next() => {
                let Some(done) = done else { break };
                let (name, result) = done.context("a job panicked")?;
                if let Err(error) = result {
                    tracing::error!(job = name, error = format!("{error:#}"), "a job failed; the others stop");
                    first_failure.get_or_insert(error.context(format!("job `{name}` failed")));
                }
                let _ = sender.send(true);
            }
        }
    }
    first_failure.map_or(Ok(()), Err)
}

/// Takes a trace file to its end, closes every window, releases, and prints what became of it.
///
/// # Errors
/// When the file cannot be read or a room fails.
pub async fn trace(config: Config, path: &Path, stop: watch::Receiver<bool>) -> anyhow::Result<()> {
    let home = Home::open(config).await?;
    let summary = take_trace(&home, path, stop).await?;
    println!("{}", summary::trace(&home, path, &summary).await?);
    Ok(())
}

async fn take_trace(home: &Home, path: &Path, stop: watch::Receiver<bool>) -> anyhow::Result<TraceSummary> {
    // A trace is a recording: its events lie in the past, and there is nothing to wait for at its end.
    let mut config = (*home.config).clone();
    config.ingest.future_tolerance_s = config.ingest.future_tolerance_s.max(86_400);
    config.signals.transport = crate::config::Transport::Local;
    let home = Home { config: Arc::new(config), ..home.clone() };
    let bar = progress_bar(std::fs::metadata(path).map(|m| m.len()).unwrap_or(0));
    let shown = bar.clone();
    let progress = Arc::new(move |p: TraceProgress| {
        shown.set_position(p.bytes_read);
        shown.set_message(format!("{} events", p.frames_committed));
    });
    let (detectors_stop, detectors_stopped) = watch::channel(false);
    let detector = LocalDetector::open(&home).await?;
    let detecting = tokio::spawn(detector.run(detectors_stopped));
    let processor = Arc::new(Processor::new(home.clone(), signal_log::sink(&home)?));
    let taken = run_trace(
        path,
        home.batch_limits(),
        Arc::clone(&home.metastore),
        processor,
        Arc::clone(&home.clock),
        stop.clone(),
        progress,
    )
    .await
    .with_context(|| format!("{}: the trace could not be taken", path.display()));
    let _ = detectors_stop.send(true);
    detecting.await.context("detectors panicked")??;
    let taken = taken?;
    bar.finish_and_clear();
    if *stop.borrow() {
        anyhow::bail!("stopped before the trace's end; the same command goes on where it was");
    }
    windows_job::close(&home, Extent::All).await?;
    windows_job::release(&home).await?;
    Ok(taken)
}

/// A bar over bytes on a terminal, nothing elsewhere.
#[must_use]
pub fn progress_bar(bytes: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(bytes);
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes} {msg} {elapsed}") {
        bar.set_style(style);
    }
    bar
}
