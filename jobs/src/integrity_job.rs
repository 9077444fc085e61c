//! The integrity job: reads signals, keeps detectors' state, commits alerts with the position they were raised at.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use starling_ingest::{Producer, TopicReader, partitions};
use starling_integrity::{Alert, IntegrityError, Rules, Runner, RunnerParts, cloud_event};
use starling_schemas::ids::{PartitionId, Sequence};
use starling_schemas::signals::SignalBatch;
use starling_store::StoreError;
use tokio::sync::watch;

use crate::config::Transport;
use crate::home::Home;
use crate::metrics::{Beat, Loop, Work};
use crate::signal_log;

/// Pause when there is nothing to read.
const PAUSE: Duration = Duration::from_millis(25);

/// Pause after the object store was out of reach, which itself took a while to find out.
const AFTER_OUTAGE: Duration = Duration::from_secs(2);

fn runner_parts(home: &Home) -> RunnerParts {
    RunnerParts {
        metastore: Arc::clone(&home.metastore),
        files: Arc::clone(&home.files),
        keyring: Arc::clone(&home.keyring),
        clock: Arc::clone(&home.clock),
        entropy: Arc::clone(&home.entropy),
    }
}

/// Detects until `stop` says so, from wherever the settings say signals come. Where the object store is out of reach for a while, detection
/// begins again from its last durable state: what was read since is read again.
///
/// # Errors
/// When another integrity job has taken over, or signals, state or metastore cannot be read or written.
pub async fn run(home: Home, mut stop: watch::Receiver<bool>) -> anyhow::Result<()> {
    loop {
        let result = match (home.config.signals.transport, stop.clone()) {
            (Transport::Local, stop) => match LocalDetector::open(&home).await {
                Ok(detector) => detector.run(stop).await,
                Err(error) => Err(error),
            },
            (Transport::Kafka, stop) => run_kafka(home.clone(), stop).await,
        };
        match result {
            Err(error) if is_outage(&error) && !*stop.borrow() => {
                tracing::warn!(error = format!("{error:#}"), "detection begins again from its last durable state");
                tokio::select! {
                    _ = stop.changed() => {}
                    () = tokio::time::sleep(AFTER_OUTAGE) => {}
                }
            }
            other => return other,
        }
    }
}

/// Detects, and sends alerts to their topic, until `stop` says so.
///
/// # Errors
/// See [`run`] and [`publish_alerts`].
pub async fn with_publishing(home: Home, stop: watch::Receiver<bool>) -> anyhow::Result<()> {
    let publishing = tokio::spawn(publish_alerts(home.clone(), stop.clone()));
    run(home, stop).await?;
    publishing.await?
}

fn is_outage(error: &anyhow::Error) -> bool {
    let of_store = |error: &(dyn std::error::Error + 'static)| match error.downcast_ref::<IntegrityError>() {
        Some(IntegrityError::Store(error)) => error.is_outage(),
        _ => error.downcast_ref::<StoreError>().is_some_and(StoreError::is_outage),
    };
    error.chain().any(of_store)
}

/// The detector of the local signal log.
pub struct LocalDetector {
    home: Home,
    runner: Runner,
    fed: Vec<String>,
    last_commit: Instant,
    beat: Beat,
}

impl LocalDetector {
    /// Takes over the local part and restores its state.
    ///
    /// # Errors
    /// When state or metastore cannot be read.
    pub async fn open(home: &Home) -> anyhow::Result<Self> {
        let runner = Runner::open("local", &owner(), runner_parts(home), Rules::builtin()?).await?;
        let beat = Beat::start(&home.metrics, Loop::Integrity);
        Ok(Self { home: home.clone(), runner, fed: Vec::new(), last_commit: Instant::now(), beat })
    }

    /// Detects until `stop` says so; then commits what it has read.
    ///
    /// # Errors
    /// See [`run`].
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) -> anyhow::Result<()> {
        while !*stop.borrow() {
            if !self.step().await? {
                tokio::select! {
                    _ = stop.changed() => {}
                    () = tokio::time::sleep(PAUSE) => {}
                }
            }
            let due = Duration::from_millis(self.home.config.signals.commit_every_ms);
            if !self.fed.is_empty() && self.last_commit.elapsed() >= due {
                self.commit().await?;
            }
        }
        self.drain().await
    }

    /// Reads all that is committed, and commits.
    ///
    /// # Errors
    /// See [`run`].
    pub async fn drain(&mut self) -> anyhow::Result<()> {
        while self.step().await? {}
        self.commit().await
    }

    /// Feeds the files there are; says whether there were any.
    async fn step(&mut self) -> anyhow::Result<bool> {
        self.beat.turned();
        // The committed sequences are asked for before the folder is listed: a listing may miss a file that is being added, but none
        // of those that were there when it began, so no sequence is passed over.
        let committed: BTreeMap<PartitionId, Sequence> =
            self.home.metastore.partitions().await?.into_iter().map(|p| (p.partition, p.next_sequence)).collect();
        let mut any = false;
        for path in signal_log::list(&self.home.local_files).await? {
            if self.fed.contains(&path) {
                continue;
            }
            let Some(batch) = signal_log::read(&self.home.local_files, &self.home.keyring, &path).await? else { continue };
            if committed.get(&batch.origin).is_none_or(|next| batch.sequence >= *next) {
                continue;
            }
            tokio::task::block_in_place(|| self.runner.feed(&batch))?;
            self.beat.turned();
            self.fed.push(path);
            any = true;
            if self.fed.len() >= 64 {
                self.commit().await?;
            }
        }
        Ok(any)
    }

    async fn commit(&mut self) -> anyhow::Result<()> {
        self.runner.commit("{}").await?;
        for path in self.fed.drain(..) {
            self.home.local_files.delete(&path).await?;
        }
        self.last_commit = Instant::now();
        Ok(())
    }
}

async fn run_kafka(home: Home, stop: watch::Receiver<bool>) -> anyhow::Result<()> {
    let (brokers, topic) = (home.config.kafka.brokers.clone(), home.config.signals.topic.clone());
    let properties = home.config.kafka.client_properties()?;
    let found = tokio::task::block_in_place(|| partitions(&brokers, &topic, &properties))
        .with_context(|| format!("topic `{topic}` cannot be read; make it, or set signals.topic"))?;
    let mut runners = BTreeMap::new();
    let mut start = BTreeMap::new();
    for partition in found {
        let runner = Runner::open(&format!("{topic}/{partition}"), &owner(), runner_parts(&home), Rules::builtin()?).await?;
        let next: i64 = runner.positions().parse().unwrap_or(0);
        start.insert(partition, next);
        runners.insert(partition, (runner, next, false));
    }
    let mut reader = TopicReader::open(&brokers, &topic, start, &properties)?;
    let due = Duration::from_millis(home.config.signals.commit_every_ms);
    let mut last_commit = Instant::now();
    let beat = Beat::start(&home.metrics, Loop::Integrity);
    while !*stop.borrow() {
        beat.turned();
        let message = tokio::task::block_in_place(|| reader.poll(Duration::from_millis(50)))?;
        if let Some(message) = message
            && let Some((runner, next, dirty)) = runners.get_mut(&message.partition)
        {
            match SignalBatch::decode(&message.payload) {
                Ok(batch) => {
                    tokio::task::block_in_place(|| runner.feed(&batch))?;
                }
                Err(error) => {
                    tracing::warn!(topic, partition = message.partition, offset = message.offset, %error, "a message was passed over")
                }
            }
            *next = message.offset + 1;
            *dirty = true;
        }
        if last_commit.elapsed() >= due {
            for (runner, next, dirty) in runners.values_mut() {
                if std::mem::take(dirty) {
                    runner.commit(&next.to_string()).await?;
                }
            }
            last_commit = Instant::now();
        }
    }
    for (runner, next, dirty) in runners.values_mut() {
        if std::mem::take(dirty) {
            runner.commit(&next.to_string()).await?;
        }
    }
    Ok(())
}

/// Sends alerts to their topic as CloudEvents until `stop` says so: at least once, with an id by which a reader drops repeats.
///
/// # Errors
/// When the metastore cannot be read. A broker that is away is waited for: alerts stay in the metastore.
pub async fn publish_alerts(home: Home, mut stop: watch::Receiver<bool>) -> anyhow::Result<()> {
    if home.config.kafka.brokers.is_empty() {
        return Ok(());
    }
    let producer = Producer::new(&home.config.kafka.brokers, &home.config.kafka.client_properties()?)?;
    let beat = Beat::start(&home.metrics, Loop::Alerts);
    loop {
        beat.turned();
        let last_round = *stop.borrow();
        let sent = publish_once(&home, &producer).await;
        if let Err(error) = &sent {
            home.metrics.failed(Work::PublishAlerts);
            tracing::warn!(%error, "alerts did not reach their topic; they stay in the metastore and are tried again");
        }
        if last_round {
            return Ok(());
        }
        if !matches!(sent, Ok(1..)) {
            tokio::select! {
                _ = stop.changed() => {}
                () = tokio::time::sleep(Duration::from_millis(200)) => {}
            }
        }
    }
}

async fn publish_once(home: &Home, producer: &Producer) -> anyhow::Result<usize> {
    let records = home.metastore.unpublished_alerts(256).await?;
    if records.is_empty() {
        return Ok(0);
    }
    tokio::task::block_in_place(|| {
        for record in &records {
            let alert: Alert = serde_json::from_str(&record.body).context("an alert in the metastore cannot be read")?;
            let event = serde_json::to_vec(&cloud_event(&alert))?;
            producer.send(&home.config.alerts.topic, None, Some(record.fingerprint.as_bytes()), &event)?;
        }
        producer.flush(Duration::from_secs(10))?;
        anyhow::Ok(())
    })?;
    for record in &records {
        home.metastore.mark_published(&record.fingerprint, record.position).await?;
    }
    Ok(records.len())
}

/// Who holds a part: tells two processes apart in the metastore, and names no person and no host.
#[must_use]
pub fn owner() -> String {
    format!("process-{}", std::process::id())
}
