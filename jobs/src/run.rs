//! Jobs that stay: ingest, integrity, closing, serving, alone or all in one process.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use anyhow::Context as _;
use starling_ingest::{KafkaSource, TraceSummary, run_kafka, run_trace};
use starling_query::Engine;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::Config;
use crate::doors::heard;
use crate::group_lists;
use crate::home::Home;
use crate::instance::Place;
use crate::integrity_job::{self, LocalDetector};
use crate::metrics::{Door, Duties};
use crate::processor::Processor;
use crate::receivers::Receivers;
use crate::windows_job::{self, Extent};
use crate::{flight, on_us, postgres, progress, serve, signal_log, stop, summary};

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
    home.turn_hours().await?;
    group_lists::put_at_start(&home).await?;
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

/// The doors alone: HTTP, and SQL for clients of PostgreSQL and of Arrow Flight where it is wanted.
///
/// # Errors
/// The first failure of one of them, which ends the others.
pub async fn serve(home: Home, stop: watch::Receiver<bool>) -> anyhow::Result<()> {
    let engine = engine(&home).await?;
    let http = serve::run(home.clone(), Arc::clone(&engine), stop.clone(), |address, secure| {
        let scheme = if secure { "https" } else { "http" };
        println!("Console: {scheme}://{address}/  Routes: {scheme}://{address}/v1/openapi.json");
    });
    let sql = async {
        if !postgres::is_wanted(&home.config) {
            return Ok(());
        }
        let told = |address: std::net::SocketAddr| println!("SQL: psql -h {} -p {} -U NAME", address.ip(), address.port());
        postgres::run(home.clone(), Arc::clone(&engine), stop.clone(), told).await
    };
    let columns = async {
        if !flight::is_wanted(&home.config) {
            return Ok(());
        }
        let told = |address: std::net::SocketAddr, secure| {
            println!("Flight SQL: grpc{}://{address}", if secure { "+tls" } else { "" });
        };
        flight::run(home.clone(), Arc::clone(&engine), stop.clone(), told).await
    };
    let accounts = async {
        heard::hand_in(home.clone(), stop.clone()).await;
        Ok(())
    };
    let done = tokio::try_join!(http, sql, columns, accounts).map(|_| ());
    heard::hand_in_rest(&home).await;
    done
}

/// The one engine of all doors. Released files are read now, so that the first statements do not wait for them.
async fn engine(home: &Home) -> anyhow::Result<Arc<Engine>> {
    let engine = Arc::new(home.engine().await?);
    let warming = Arc::clone(&engine);
    tokio::spawn(async move {
        if let Err(error) = warming.warm().await {
            tracing::warn!(%error, "a released file cannot be read; other metrics can");
        }
    });
    Ok(engine)
}

type Job = Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>;

/// All rooms in one process, until `stop` or until one of them fails.
///
/// # Errors
/// The first failure, after the others have stopped.
pub async fn all(home: Home, outer: watch::Receiver<bool>) -> anyhow::Result<()> {
    let (sender, stop) = watch::channel(false);
    let engine = engine(&home).await?;
    let mut jobs: Vec<(&'static str, Job)> = vec![
        ("ingest", Box::pin(ingest(home.clone(), stop.clone()))),
        ("integrity", Box::pin(integrity_job::run(home.clone(), stop.clone()))),
        ("alerts", Box::pin(integrity_job::publish_alerts(home.clone(), stop.clone()))),
        ("receivers", Box::pin(Receivers::open(&home.config)?.run(home.clone(), stop.clone()))),
        ("windows", Box::pin(windows_job::watch(home.clone(), stop.clone()))),
        (
            "serve",
            Box::pin(serve::run(
                home.clone(),
                Arc::clone(&engine),
                stop.clone(),
                |address, tls| tracing::info!(%address, tls, "the console at /, routes at /v1/openapi.json"),
            )),
        ),
    ];
    let accounts = heard::hand_in(home.clone(), stop.clone());
    jobs.push((
        "accounts",
        Box::pin(async move {
            accounts.await;
            Ok(())
        }),
    ));
    if postgres::is_wanted(&home.config) {
        let told = |address| tracing::info!(%address, "SQL for PostgreSQL clients");
        jobs.push(("postgres", Box::pin(postgres::run(home.clone(), Arc::clone(&engine), stop.clone(), told))));
    }
    if flight::is_wanted(&home.config) {
        let told = |address, tls| tracing::info!(%address, tls, "SQL for Arrow Flight clients");
        jobs.push(("flight", Box::pin(flight::run(home.clone(), engine, stop.clone(), told))));
    }
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
    heard::hand_in_rest(&home).await;
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
    let detector = LocalDetector::open(&home).await?.of_recording();
    let detecting = tokio::spawn(detector.run(detectors_stopped));
    home.turn_hours().await?;
    group_lists::put_at_start(&home).await?;
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
    on_us::look(&home)
        .await
        .context("whether the recording holds an attack on the pipeline itself cannot be told; run the same command again")?;
    windows_job::close(&home, Extent::All).await?;
    windows_job::release(&home).await?;
    windows_job::publish_delta(&home).await?;
    Ok(taken)
}
