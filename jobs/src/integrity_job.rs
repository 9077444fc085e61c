//! The integrity job: reads signals, keeps detectors' state, commits alerts with the position they were raised at.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use starling_ingest::{Producer, TopicReader, partitions};
use starling_integrity::{Alert, IntegrityError, Runner, RunnerParts, cloud_event_headers};
use starling_schemas::ids::{PartitionId, Sequence};
use starling_schemas::signals::SignalBatch;
use starling_store::StoreError;
use tokio::sync::watch;

use crate::alerts;
use crate::config::Transport;
use crate::home::Home;
use crate::metrics::{Beat, Loop, Work};
use crate::on_us::Watch;
use crate::pair_cover;
use crate::receivers::Receivers;
use crate::signal_log;
use crate::standing::{self, Looks};

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

/// Detects, and sends alerts to their topic and their receivers, until `stop` says so.
///
/// # Errors
/// See [`run`], [`publish_alerts`] and [`Receivers::run`].
pub async fn with_sending(home: Home, receivers: Receivers, stop: watch::Receiver<bool>) -> anyhow::Result<()> {
    let publishing = tokio::spawn(publish_alerts(home.clone(), stop.clone()));
    let sending = tokio::spawn(receivers.run(home.clone(), stop.clone()));
    run(home, stop).await?;
    publishing.await??;
    sending.await?
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
    watch: Watch,
    fed: Vec<String>,
    last_commit: Instant,
    beat: Beat,
    is_recording: bool,
}

impl LocalDetector {
    /// Takes over the local part and restores its state.
    ///
    /// # Errors
    /// When state or metastore cannot be read.
    pub async fn open(home: &Home) -> anyhow::Result<Self> {
        let rules = standing::rules(&home.config)?;
        let watch = Watch::new(rules.clone());
        let runner = Runner::open("local", &owner(), runner_parts(home), rules).await?;
        let beat = Beat::start(&home.metrics, Loop::Integrity);
        Ok(Self { home: home.clone(), runner, watch, fed: Vec::new(), last_commit: Instant::now(), beat, is_recording: false })
    }

    /// Of a source that has come to its end when this one is told to stop.
    #[must_use]
    pub fn of_recording(self) -> Self {
        Self { is_recording: true, ..self }
    }

    /// Detects until `stop` says so; then commits what it has read.
    ///
    /// # Errors
    /// See [`run`].
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) -> anyhow::Result<()> {
        let mut looks = Looks::default();
        while !*stop.borrow() {
            looks.due(&self.home).await;
            self.watch.due(&self.home).await;
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
        if self.is_recording {
            while !self.runner.source_is_over() {
                self.commit().await?;
            }
        }
        self.commit().await
    }

    /// Feeds the files there are; says whether there were any.
    async fn step(&mut self) -> anyhow::Result<bool> {
        self.beat.turned();
        // The committed sequences are asked for before the folder is listed: a listing may miss a file that is being added, but none
        // of those that were there when it began, so no sequence is passed over.
        let committed: BTreeMap<PartitionId, Sequence> =
            self.home.metastore.partitions().await?.into_iter().map(|p| (p.partition, p.next_sequence)).collect();
        self.runner.expect(committed.keys());
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
    let rules = standing::rules(&home.config)?;
    let mut runners = BTreeMap::new();
    let mut start = BTreeMap::new();
    for partition in found {
        let runner = Runner::open(&format!("{topic}/{partition}"), &owner(), runner_parts(&home), rules.clone()).await?;
        let next: i64 = runner.positions().parse().unwrap_or(0);
        start.insert(partition, next);
        runners.insert(partition, (runner, next, false));
    }
    let mut reader = TopicReader::open(&brokers, &topic, start, &properties)?;
    // Partitions of the source as the metastore had them when one came that was not among them.
    let mut known = BTreeSet::new();
    let due = Duration::from_millis(home.config.signals.commit_every_ms);
    let mut last_commit = Instant::now();
    let beat = Beat::start(&home.metrics, Loop::Integrity);
    let (mut looks, mut watch) = (Looks::default(), Watch::new(rules));
    while !*stop.borrow() {
        beat.turned();
        looks.due(&home).await;
        watch.due(&home).await;
        let message = tokio::task::block_in_place(|| reader.poll(Duration::from_millis(50)))?;
        if let Some(message) = message {
            let batch = match SignalBatch::decode(&message.payload) {
                Ok(batch) => Some(batch),
                Err(error) => {
                    tracing::warn!(topic, partition = message.partition, offset = message.offset, %error, "a message was passed over");
                    None
                }
            };
            if let Some(origin) = batch.as_ref().map(|batch| &batch.origin)
                && !known.contains(origin)
            {
                known = home.metastore.partitions().await?.into_iter().map(|p| p.partition).collect();
                known.insert(origin.clone());
                runners.values_mut().for_each(|(runner, ..)| runner.expect(known.iter()));
            }
            let Some((runner, next, dirty)) = runners.get_mut(&message.partition) else { continue };
            if let Some(mut batch) = batch {
                tokio::task::block_in_place(|| {
                    pair_cover::uncover(&home.keyring, &mut batch)?;
                    anyhow::Ok(runner.feed(&batch)?)
                })?;
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

/// Sends alerts to their topic as CloudEvents in binary content mode until `stop` says so: at least once, with an id by which a reader drops
/// repeats. An entry in the hash-chained log comes first (I6).
///
/// # Errors
/// When the metastore cannot be read. A broker that is away is waited for: alerts stay in the metastore.
pub async fn publish_alerts(home: Home, mut stop: watch::Receiver<bool>) -> anyhow::Result<()> {
    if home.config.kafka.brokers.is_empty() {
        return Ok(());
    }
    let producer = Producer::new(&home.config.kafka.brokers, &home.config.kafka.client_properties()?)?;
    let beat = Beat::start(&home.metrics, Loop::Alerts);
    let mut logged_to = 0;
    loop {
        beat.turned();
        let last_round = *stop.borrow();
        let sent = publish_once(&home, &producer, &mut logged_to).await;
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

/// `logged_to`: the last position of the feed that this process has an entry in the log for. Tries at what has one fill no log.
async fn publish_once(home: &Home, producer: &Producer, logged_to: &mut i64) -> anyhow::Result<usize> {
    let records = home.metastore.unpublished_alerts(256).await?;
    let Some(last) = records.last() else { return Ok(0) };
    if last.position > *logged_to {
        alerts::record_read(home, "kafka", None).await?;
        *logged_to = last.position;
    }
    tokio::task::block_in_place(|| {
        for record in &records {
            let alert: Alert = serde_json::from_str(&record.body).context("an alert in the metastore cannot be read")?;
            let (topic, key) = (&home.config.alerts.topic, record.fingerprint.as_bytes());
            producer.send_with_headers(topic, key, &cloud_event_headers(&alert), &serde_json::to_vec(&alert)?)?;
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
