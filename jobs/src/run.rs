//! Jobs that stay: ingest, integrity, closing, serving, alone or all in one process.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use anyhow::Context as _;
use starling_ingest::{KafkaSource, TraceSummary, run_kafka, run_trace};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::Config;
use crate::home::Home;
use crate::instance::Place;
use crate::integrity_job::{self, LocalDetector};
use crate::metrics::{Door, Duties};
use crate::processor::Processor;
use crate::windows_job::{self, Extent};
use crate::{progress, serve, signal_log, stop, summary};

/// Runs a long-running job: with its door for metrics and health, and with a progress bar while it catches up.
///
/// # Errors
/// The job's own, or an address for metrics that is not this machine's.
pub async fn service(
    home: &Home,
    duties: Duties,
    stop: watch::Receiver<bool>,
    job: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    if duties.ingest {
        brokers_are_named(home)?;
    }
    let mut beside = JoinSet::new();
    if let Some(door) = Door::open(home, duties, stop.clone()).await? {
        beside.spawn(async move {
            if let Err(error) = door.serve().await {
                tracing::error!(error = format!("{error:#}"), "metrics and health can no longer be asked for");
            }
        });
    }
    if duties.ingest {
        beside.spawn(progress::show_backlog(Arc::clone(&home.metrics), stop));
    }
    // What stands beside ends with the job: until then a process that is stopping can be asked how it is.
    job.await
}

/// The member's own name in its group, which an operator may give instead. `""`: none.
const INSTANCE_ID: &str = "group.instance.id";

/// Reads `events` from Kafka until `stop`.
///
/// # Errors
/// What ingest cannot wait out: a gap in the topic, a range that fails again and again.
pub async fn ingest(home: Home, stop: watch::Receiver<bool>) -> anyhow::Result<()> {
    brokers_are_named(&home)?;
    let kafka = &home.config.kafka;
    let mut properties = kafka.client_properties()?;
    let place = match properties.get(INSTANCE_ID).map(String::is_empty) {
        Some(false) => None,
        Some(true) => {
            properties.remove(INSTANCE_ID);
            None
        }
        None => Some(Place::take(&home.config.data_dir.join("group"), home.entropy.as_ref())?),
    };
    if let Some(place) = &place {
        properties.insert(INSTANCE_ID.to_owned(), place.name().to_owned());
    }
    let source =
        KafkaSource { brokers: kafka.brokers.clone(), group: kafka.group.clone(), topic: kafka.topic.clone(), properties };
    let processor = Arc::new(Processor::new(home.clone(), signal_log::sink(&home)?));
    run_kafka(source, home.batch_limits(), Arc::clone(&home.metastore), processor, Arc::clone(&home.clock), stop)
        .await
        .context("ingest stopped")
}

fn brokers_are_named(home: &Home) -> anyhow::Result<()> {
    let named = !home.config.kafka.brokers.is_empty();
    anyhow::ensure!(named, "kafka.brokers is not set: name them with --brokers, or in the settings file");
    Ok(())
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
        let stop = stop.clone();
        set.spawn(async move { (name, stop::within_grace(name, stop, job).await) });
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
/// When the file cannot be read, a room fails, or it was stopped before the end.
pub async fn trace(config: Config, path: &Path, stop: watch::Receiver<bool>) -> anyhow::Result<()> {
    let home = Home::open(config).await?;
    let taking = {
        let (home, path, stop) = (home.clone(), path.to_owned(), stop.clone());
        async move { take_trace(&home, &path, stop).await }
    };
    let summary = stop::within_grace("trace", stop, taking).await?.context(STOPPED)?;
    println!("{}", summary::trace(&home, path, &summary).await?);
    Ok(())
}

const STOPPED: &str = "stopped before the trace's end; the same command goes on where it was";

async fn take_trace(home: &Home, path: &Path, stop: watch::Receiver<bool>) -> anyhow::Result<TraceSummary> {
    // A trace is a recording: its events lie in the past, and there is nothing to wait for at its end.
    let mut config = (*home.config).clone();
    config.ingest.future_tolerance_s = config.ingest.future_tolerance_s.max(86_400);
    config.signals.transport = crate::config::Transport::Local;
    let home = Home { config: Arc::new(config), ..home.clone() };
    let (bar, progress) = progress::trace_bar(std::fs::metadata(path).map(|m| m.len()).unwrap_or(0));
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
        anyhow::bail!(STOPPED);
    }
    windows_job::close(&home, Extent::All).await?;
    windows_job::release(&home).await?;
    windows_job::publish_delta(&home).await?;
    Ok(taken)
}
