//! What the journeys share: a processor that writes down what it saw, and the checks over it.
#![allow(dead_code, unreachable_pub)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use starling_ingest::{BatchLimits, Frames, IngestError, KafkaSource, ProcessError, Producer, RangeProcessor, run_kafka};
use starling_schemas::codes::Outcome;
use starling_schemas::ids::EpochId;
use starling_schemas::time::Clock;
use starling_store::{Metastore, Plan, RangeOutcome};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The real clock; libraries are handed one.
pub struct WallClock;

impl Clock for WallClock {
    fn now_ms(&self) -> i64 {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        i64::try_from(now.as_millis()).unwrap_or_default()
    }
}

/// Writes each range into a file named by partition and sequence, and notices when a replay differs from what is there.
pub struct Scribe {
    dir: PathBuf,
    pub delay: Duration,
    /// How many calls fail before one succeeds.
    pub failures: AtomicU32,
    pub calls: AtomicU64,
    /// The call from which on it waits until it is told to go on.
    pub gate: Option<(u64, watch::Receiver<bool>)>,
}

impl Scribe {
    pub fn new(dir: &Path) -> Self {
        std::fs::create_dir_all(dir).expect("scribe's folder");
        let dir = dir.to_path_buf();
        Self { dir, delay: Duration::ZERO, failures: AtomicU32::new(0), calls: AtomicU64::new(0), gate: None }
    }
}

#[async_trait]
impl RangeProcessor for Scribe {
    async fn process(&self, plan: &Plan, frames: Arc<Frames>) -> Result<RangeOutcome, ProcessError> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        if let Some((from, go_on)) = &self.gate
            && call >= *from
        {
            let mut go_on = go_on.clone();
            drop(go_on.wait_for(|go_on| *go_on).await.expect("whoever closed it opens it"));
        }
        tokio::time::sleep(self.delay).await;
        if self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok() {
            return Err(ProcessError("told to fail".into()));
        }
        let mut text = format!("{} {}\n", plan.from, plan.to);
        for (offset, payload) in frames.iter() {
            assert!(plan.from <= offset && offset < plan.to, "an offset outside its plan");
            text.push_str(&format!("{offset} {}\n", hex(payload)));
        }
        let source = plan.partition.source.replace(':', "_");
        let path = self.dir.join(format!("{source}-p{}-s{:09}", plan.partition.partition, plan.sequence.0));
        if let Ok(before) = std::fs::read_to_string(&path)
            && before != text
        {
            std::fs::write(
                self.dir.join("MISMATCH"),
                format!("{}\nbefore {}now {}", path.display(), &before[..before.len().min(80)], &text[..text.len().min(80)]),
            )
            .expect("write");
        }
        // As the real processor does: in place at once or not at all.
        let temporary = path.with_extension(format!("tmp{}", plan.generation.0));
        std::fs::write(&temporary, &text).expect("write");
        std::fs::rename(&temporary, &path).expect("rename");
        let events = frames.len() as u64;
        let counts = if events > 0 { vec![(Some(EpochId(20_000)), Outcome::Counted, events)] } else { Vec::new() };
        Ok(RangeOutcome { events, counts, watermark_ms: None, segments: Vec::new(), ..RangeOutcome::default() })
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// What was committed of a source: per partition, offset and payload in order. Checks that ranges tile.
pub async fn committed(dir: &Path, metastore: &Metastore, source: &str) -> BTreeMap<i32, Vec<(i64, String)>> {
    assert!(
        !dir.join("MISMATCH").exists(),
        "a replay differed: {}",
        std::fs::read_to_string(dir.join("MISMATCH")).unwrap_or_default()
    );
    let mut all = BTreeMap::new();
    for status in metastore.partitions().await.expect("partitions").into_iter().filter(|s| s.partition.source == source) {
        let mut next: Option<i64> = None;
        let mut seen = Vec::new();
        for sequence in 0..status.next_sequence.0 {
            let name = format!("{}-p{}-s{sequence:09}", source.replace(':', "_"), status.partition.partition);
            let text = std::fs::read_to_string(dir.join(name)).expect("a committed range has its file");
            let mut lines = text.lines();
            let (from, to) = lines.next().and_then(|l| l.split_once(' ')).expect("first line");
            let (from, to): (i64, i64) = (from.parse().expect("from"), to.parse().expect("to"));
            assert!(next.is_none_or(|next| next == from), "gap or overlap before {from}");
            next = Some(to);
            for line in lines {
                let (offset, payload) = line.split_once(' ').expect("a line");
                let offset: i64 = offset.parse().expect("offset");
                assert!((from..to).contains(&offset));
                assert!(seen.last().is_none_or(|(last, _)| *last < offset), "an event twice, or out of order");
                seen.push((offset, payload.to_owned()));
            }
        }
        assert_eq!(status.events, seen.len() as u64, "the metastore counts what was committed");
        assert_eq!(status.next_offset.map(|o| o.0), next);
        all.insert(status.partition.partition, seen);
    }
    assert!(metastore.unbalanced().await.expect("unbalanced").is_empty(), "I1");
    all
}

/// Sends `count` numbered messages to each partition, numbers from `from`.
pub fn produce(brokers: &str, topic: &str, partitions: i32, from: usize, count: usize) {
    let producer = Producer::new(brokers, &BTreeMap::new()).expect("producer");
    for n in from..from + count {
        for partition in 0..partitions {
            producer.send(topic, Some(partition), None, message(partition, n).as_bytes()).expect("send");
        }
    }
    producer.flush(Duration::from_secs(120)).expect("flush");
}

pub fn message(partition: i32, n: usize) -> String {
    format!("p{partition} n{n} {}", "x".repeat(n % 37))
}

/// Every message of every partition once, in order.
pub fn assert_all(got: &BTreeMap<i32, Vec<(i64, String)>>, partitions: i32, count: usize) {
    assert_eq!(got.len(), usize::try_from(partitions).expect("fits"));
    for (partition, events) in got {
        let payloads: Vec<&str> = events.iter().map(|(_, p)| p.as_str()).collect();
        let expected: Vec<String> = (0..count).map(|n| hex(message(*partition, n).as_bytes())).collect();
        assert_eq!(payloads, expected, "partition {partition}");
    }
}

pub fn small() -> BatchLimits {
    BatchLimits { max_events: 97, max_bytes: 1 << 16, linger_ms: 20 }
}

pub fn source(brokers: &str, group: &str, topic: &str) -> KafkaSource {
    let properties = [("session.timeout.ms", "6000"), ("heartbeat.interval.ms", "500")];
    let mut properties: BTreeMap<String, String> = properties.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    if let Ok(facilities) = std::env::var("STARLING_TEST_KAFKA_DEBUG") {
        properties.insert("debug".to_owned(), facilities);
    }
    KafkaSource { brokers: brokers.into(), group: group.into(), topic: topic.into(), properties }
}

/// The same with a session that outlasts what a busy machine keeps a member from its heartbeats: for tests that count how often
/// partitions were taken. Not for several members in a group of the embedded broker, which waits nearly a session for the others
/// in every rebalance.
pub fn lasting(mut source: KafkaSource) -> KafkaSource {
    source.properties.extend([LASTING].map(|(k, v)| (k.to_owned(), v.to_owned())));
    source
}

/// The setting for [`lasting`].
pub const LASTING: (&str, &str) = ("session.timeout.ms", "60000");

/// A running ingest job.
pub struct Worker {
    pub stop: watch::Sender<bool>,
    pub task: JoinHandle<Result<(), IngestError>>,
}

impl Worker {
    pub fn start(
        source: KafkaSource,
        limits: BatchLimits,
        metastore: &Arc<Metastore>,
        processor: Arc<dyn RangeProcessor>,
    ) -> Self {
        let (stop, shutdown) = watch::channel(false);
        let task = tokio::spawn(run_kafka(source, limits, Arc::clone(metastore), processor, Arc::new(WallClock), shutdown));
        Self { stop, task }
    }

    pub async fn stop(self) -> Result<(), IngestError> {
        let _ = self.stop.send(true);
        tokio::time::timeout(Duration::from_secs(180), self.task).await.expect("stops in time").expect("no panic")
    }

    /// The error that ends it.
    pub async fn fails(self) -> IngestError {
        let ended = tokio::time::timeout(Duration::from_secs(600), self.task).await.expect("ends in time").expect("no panic");
        ended.expect_err("an error")
    }
}

/// Opens the metastore of a test, SQLite unless `metastore.url` in its folder names another; with `RUST_LOG` set, also shows what the libraries say.
pub async fn open(dir: &Path) -> Arc<Metastore> {
    if std::env::var_os("RUST_LOG").is_some() {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
    }
    let url = std::fs::read_to_string(dir.join("metastore.url"))
        .unwrap_or_else(|_| format!("sqlite:{}", dir.join("metastore.db").display()));
    Arc::new(Metastore::open(&url).await.expect("metastore"))
}

pub async fn events(metastore: &Metastore, source: &str) -> u64 {
    let partitions = metastore.partitions().await.expect("partitions");
    partitions.iter().filter(|p| p.partition.source == source).map(|p| p.events).sum()
}

/// Waits until so many events are committed: in vain only when there were no more for five minutes, however long all take.
pub async fn wait_for(metastore: &Metastore, source: &str, wanted: u64) {
    let mut last = (0, Instant::now());
    loop {
        let now = events(metastore, source).await;
        if now >= wanted {
            return;
        }
        if now > last.0 {
            last = (now, Instant::now());
        }
        assert!(last.1.elapsed() < Duration::from_secs(300), "stuck at {now} of {wanted} events of {source}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub async fn wait_until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !done().await {
        assert!(begun.elapsed() < Duration::from_secs(600), "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
