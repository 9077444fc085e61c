//! The log's life: a topic made anew, records deleted before they were read, a log cut short. Each ends in a stop that is recorded, and goes on
//! where an operator says.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::admin::AdminOptions;
use starling_ingest::{IngestError, STOPPED, create_topic, topic_id};
use starling_schemas::ids::{Offset, PartitionId};
use starling_store::{AcceptedLoss, Metastore};

use super::{admin, brokers, topic};
use crate::common::{Scribe, Worker, assert_all, committed, events, open, produce, small, source, wait_for, wait_until};

async fn assert_recorded(metastore: &Metastore, error: &IngestError) {
    let recorded = metastore.last_audit(STOPPED).await.expect("audit").expect("the stop is recorded");
    assert_eq!(recorded.detail["reason"], error.to_string());
    assert!(error.to_string().contains("starling accept-loss"), "it says what to do");
}

async fn make_anew(brokers: &str, topic: &str, partitions: i32) {
    let old = id_of(brokers, topic).await.expect("an id");
    let deleted = admin(brokers).delete_topics(&[topic], &AdminOptions::new()).await.expect("asked");
    deleted.into_iter().for_each(|result| assert!(result.is_ok(), "{result:?}"));
    // Making it does nothing while the deleted one is still known.
    wait_until("the topic to be there anew", async || {
        let (at, name) = (brokers.to_owned(), topic.to_owned());
        let made = tokio::task::spawn_blocking(move || create_topic(&at, &name, partitions)).await.expect("no panic");
        made.is_ok() && id_of(brokers, topic).await.is_some_and(|id| id != old)
    })
    .await;
}

async fn id_of(brokers: &str, topic: &str) -> Option<String> {
    let (brokers, topic) = (brokers.to_owned(), topic.to_owned());
    tokio::task::spawn_blocking(move || topic_id(&brokers, &topic, &BTreeMap::new())).await.expect("no panic").ok().flatten()
}

pub(crate) async fn i8_a_topic_made_anew_while_we_were_away_is_not_read_on() {
    let brokers = brokers();
    let topic = topic(&brokers, "anew", 2).await;
    let dir = tempfile::tempdir().expect("dir");
    let metastore = open(dir.path()).await;
    let files = dir.path().join("out");
    let start = |out: &Path| Worker::start(source(&brokers, &topic, &topic), small(), &metastore, Arc::new(Scribe::new(out)));
    produce(&brokers, &topic, 2, 0, 100);
    let worker = start(&files);
    wait_for(&metastore, &topic, 200).await;
    worker.stop().await.expect("a clean stop");
    make_anew(&brokers, &topic, 2).await;
    // Grown past the old position: by offsets alone, nothing is wrong.
    produce(&brokers, &topic, 2, 0, 150);
    let error = start(&files).fails().await;
    let found = id_of(&brokers, &topic).await.expect("an id");
    assert!(matches!(&error, IngestError::TopicRecreated { found: f, kept, .. } if *f == found && *kept != found), "{error}");
    assert_recorded(&metastore, &error).await;
    assert_all(&committed(&files, &metastore, &topic).await, 2, 100);

    // An operator accepts it: the new topic is read from its beginning, and what was counted of the old one stays.
    let loss = AcceptedLoss { topic_id: Some(found), starts: BTreeMap::from([(0, None), (1, None)]) };
    metastore.accept_loss(&topic, &loss, 1).await.expect("accepted");
    let worker = start(&dir.path().join("new"));
    wait_for(&metastore, &topic, 200 + 300).await;
    worker.stop().await.expect("a clean stop");
    let status = metastore.partitions().await.expect("partitions");
    assert!(status.iter().all(|p| p.next_offset == Some(Offset(150)) && p.events == 250), "{status:?}");
    assert!(metastore.unbalanced().await.expect("unbalanced").is_empty(), "I1");
    metastore.verify_audit().await.expect("the chain holds");
}

/// What the id is for: with the new id kept and the old offsets, the new topic's first hundred events are passed over without a word.
pub(crate) async fn without_its_id_a_topic_made_anew_would_be_read_on() {
    let brokers = brokers();
    let topic = topic(&brokers, "unknown", 1).await;
    let dir = tempfile::tempdir().expect("dir");
    let metastore = open(dir.path()).await;
    let files = dir.path().join("out");
    let start = || Worker::start(source(&brokers, &topic, &topic), small(), &metastore, Arc::new(Scribe::new(&files)));
    produce(&brokers, &topic, 1, 0, 100);
    let worker = start();
    wait_for(&metastore, &topic, 100).await;
    worker.stop().await.expect("a clean stop");
    make_anew(&brokers, &topic, 1).await;
    produce(&brokers, &topic, 1, 1000, 150);
    let blinded = AcceptedLoss { topic_id: id_of(&brokers, &topic).await, starts: BTreeMap::new() };
    metastore.accept_loss(&topic, &blinded, 1).await.expect("accepted");
    let worker = start();
    wait_for(&metastore, &topic, 150).await;
    worker.stop().await.expect("a clean stop: nothing looks wrong");
    assert_eq!(events(&metastore, &topic).await, 150, "a hundred of the new topic's events are missing");
}

pub(crate) async fn i8_a_topic_made_anew_while_it_is_read_stops_before_anything_of_it_is_committed() {
    let brokers = brokers();
    let topic = topic(&brokers, "swapped", 2).await;
    let dir = tempfile::tempdir().expect("dir");
    let metastore = open(dir.path()).await;
    let files = dir.path().join("out");
    produce(&brokers, &topic, 2, 0, 100);
    let worker = Worker::start(source(&brokers, &topic, &topic), small(), &metastore, Arc::new(Scribe::new(&files)));
    wait_for(&metastore, &topic, 200).await;
    make_anew(&brokers, &topic, 2).await;
    produce(&brokers, &topic, 2, 5000, 150);
    let error = worker.fails().await;
    assert!(matches!(error, IngestError::TopicRecreated { .. }), "{error}");
    assert_recorded(&metastore, &error).await;
    assert_all(&committed(&files, &metastore, &topic).await, 2, 100);
}

pub(crate) async fn i8_a_topic_that_is_gone_stops_the_job_after_a_while() {
    let brokers = brokers();
    let topic = topic(&brokers, "gone", 1).await;
    let dir = tempfile::tempdir().expect("dir");
    let metastore = open(dir.path()).await;
    let files = dir.path().join("out");
    produce(&brokers, &topic, 1, 0, 100);
    let worker = Worker::start(source(&brokers, &topic, &topic), small(), &metastore, Arc::new(Scribe::new(&files)));
    wait_for(&metastore, &topic, 100).await;
    admin(&brokers).delete_topics(&[&topic], &AdminOptions::new()).await.expect("deleted");
    let error = worker.fails().await;
    assert!(matches!(error, IngestError::TopicGone { .. }), "{error}");
    assert_recorded(&metastore, &error).await;
    assert_all(&committed(&files, &metastore, &topic).await, 1, 100);
}

async fn delete_before(brokers: &str, topic: &str, offset: i64) {
    let mut before = TopicPartitionList::new();
    before.add_partition_offset(topic, 0, rdkafka::Offset::Offset(offset)).expect("offset");
    admin(brokers).delete_records(&before, &AdminOptions::new()).await.expect("deleted");
}

pub(crate) async fn i8_events_deleted_ahead_of_a_slow_reader_stop_the_job_and_it_goes_on_where_an_operator_says() {
    let brokers = brokers();
    let topic = topic(&brokers, "overtaken", 1).await;
    let dir = tempfile::tempdir().expect("dir");
    let metastore = open(dir.path()).await;
    let files = dir.path().join("out");
    // More than the client and the job hold together: 64 KiB, and a few ranges of 97.
    let count = 20_000;
    produce(&brokers, &topic, 1, 0, count);
    let mut slow = Scribe::new(&files);
    slow.delay = Duration::from_millis(300);
    let mut narrow = source(&brokers, &topic, &topic);
    for (key, value) in [
        ("queued.max.messages.kbytes", "64"),
        ("queued.min.messages", "200"),
        ("fetch.message.max.bytes", "16384"),
        ("fetch.max.bytes", "65536"),
        ("message.max.bytes", "65536"),
    ] {
        narrow.properties.insert(key.to_owned(), value.to_owned());
    }
    let worker = Worker::start(narrow.clone(), small(), &metastore, Arc::new(slow));
    wait_for(&metastore, &topic, 500).await;
    delete_before(&brokers, &topic, 19_000).await;
    let error = worker.fails().await;
    let IngestError::Gap { wanted, low: 19_000, high: 20_000, .. } = error else { panic!("{error}") };
    assert!(wanted.0 < 19_000);
    assert_recorded(&metastore, &error).await;

    // What was read before the gap is committed: none of it was lost by the stop.
    let status = &metastore.partitions().await.expect("partitions")[0];
    let next = status.next_offset.expect("an offset");
    assert!(next <= wanted);
    let loss = AcceptedLoss { topic_id: None, starts: BTreeMap::from([(0, Some(Offset(19_000)))]) };
    let restarted = metastore.accept_loss(&topic, &loss, 1).await.expect("accepted");
    assert_eq!(restarted[0].was_next, Some(next));
    let before = events(&metastore, &topic).await;
    let worker = Worker::start(narrow, small(), &metastore, Arc::new(Scribe::new(&files)));
    wait_for(&metastore, &topic, before + 1000).await;
    worker.stop().await.expect("a clean stop");
    assert_eq!(events(&metastore, &topic).await, before + 1000);
    assert!(metastore.unbalanced().await.expect("unbalanced").is_empty(), "I1");
}

/// A broker of one test's own, which it may kill and whose files it may cut. It is stopped when dropped.
struct OwnBroker {
    dir: tempfile::TempDir,
    command: Vec<String>,
    brokers: String,
}

impl OwnBroker {
    fn scripts() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/kafka")
    }

    fn start() -> Self {
        let dir = tempfile::tempdir().expect("dir");
        let out = Command::new(Self::scripts().join("start.sh")).args(["1"]).arg(dir.path()).output().expect("start.sh");
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success(), "{said}{}", String::from_utf8_lossy(&out.stderr));
        let brokers = said.trim().rsplit_once("bootstrap=").expect("brokers").1.to_owned();
        let mut own = Self { dir, command: Vec::new(), brokers };
        let line = std::fs::read(format!("/proc/{}/cmdline", own.pid())).expect("the broker runs");
        own.command =
            line.split(|b| *b == 0).filter(|w| !w.is_empty()).map(|w| String::from_utf8_lossy(w).into_owned()).collect();
        own
    }

    fn pid(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("broker-1.pid")).expect("pid").trim().to_owned()
    }

    fn kill(&self) {
        let killed = Command::new("kill").args(["-KILL", &self.pid()]).status().expect("kill");
        assert!(killed.success());
        while Path::new(&format!("/proc/{}/fd/0", self.pid())).exists() {
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Loses the end of a partition, as a disk does that had not written it.
    fn cut(&self, topic: &str) {
        let log = self.dir.path().join(format!("data-1/{topic}-0/00000000000000000000.log"));
        let file = std::fs::OpenOptions::new().write(true).open(&log).expect("the log");
        let length = file.metadata().expect("length").len();
        file.set_len(length / 2).expect("cut");
    }

    fn is_back(&self) -> bool {
        let said = std::fs::read_to_string(self.dir.path().join("broker-1-again.log")).unwrap_or_default();
        said.contains("Kafka Server started")
    }

    #[expect(clippy::zombie_processes, reason = "stop.sh ends it by its id when this is dropped, as it would the first one")]
    fn start_again(&self) {
        let log = std::fs::File::create(self.dir.path().join("broker-1-again.log")).expect("log");
        let child = Command::new(&self.command[0])
            .args(&self.command[1..])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log"))
            .stderr(log)
            .spawn()
            .expect("the broker");
        std::fs::write(self.dir.path().join("broker-1.pid"), child.id().to_string()).expect("pid");
    }
}

impl Drop for OwnBroker {
    fn drop(&mut self) {
        let _ = Command::new(Self::scripts().join("stop.sh")).arg(self.dir.path()).stdout(Stdio::null()).status();
    }
}

pub(crate) async fn i8_a_log_cut_below_what_was_read_stops_the_job_also_after_it_has_grown_again() {
    let own = tokio::task::spawn_blocking(OwnBroker::start).await.expect("no panic");
    let (brokers, topic) = (own.brokers.clone(), "cut".to_owned());
    tokio::task::block_in_place(|| create_topic(&brokers, &topic, 1)).expect("topic");
    let dir = tempfile::tempdir().expect("dir");
    let metastore = open(dir.path()).await;
    let files = dir.path().join("out");
    for n in 0..30 {
        produce(&brokers, &topic, 1, n * 10, 10);
    }
    let worker = Worker::start(source(&brokers, &topic, &topic), small(), &metastore, Arc::new(Scribe::new(&files)));
    wait_for(&metastore, &topic, 300).await;
    let partition = PartitionId { source: topic.clone(), partition: 0 };
    wait_until("the checkpoint", async || {
        metastore.log_checkpoint(&partition).await.expect("read").is_some_and(|(at, _)| at == Offset(300))
    })
    .await;
    tokio::task::block_in_place(|| {
        own.kill();
        own.cut(&topic);
        own.start_again();
    });
    // Grown far past the position as soon as the broker is back.
    wait_until("the broker to be back", async || own.is_back()).await;
    produce(&brokers, &topic, 1, 9000, 1000);
    let error = worker.fails().await;
    assert!(matches!(error, IngestError::Truncated { wanted: Offset(300), low: 0, .. }), "{error}");
    assert_recorded(&metastore, &error).await;
    // Also for one that comes later and finds an offset that is there.
    let error = Worker::start(source(&brokers, &topic, &topic), small(), &metastore, Arc::new(Scribe::new(&files))).fails().await;
    // Half of the log's bytes are some 150 of its messages: how many whole ones are left depends on how they were sent.
    let IngestError::Truncated { wanted: Offset(300), low: 0, high, .. } = error else { panic!("{error}") };
    assert!((1_001..1_300).contains(&high), "what was left, and a thousand more: {high}");
    assert_all(&committed(&files, &metastore, &topic).await, 1, 300);
}
