//! Whole journeys over the embedded broker and over trace files, with restarts, takeovers, failures and kills; each with its progress in SQLite,
//! and in a real PostgreSQL. Where no server is installed that half is reported as ignored, never as passed.

mod common;
#[path = "../../../tests/postgres/server.rs"]
mod server;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::{
    Scribe, WallClock, Worker, assert_all, committed, events, hex, lasting, open, produce, small, source, wait_for, wait_until,
};
use libtest_mimic::{Arguments, Failed, Trial};
use starling_ingest::{
    BatchLimits, DrainMode, EmbeddedBroker, FrameRead, IngestError, Producer, STOPPED, TopicReader, TraceReader, TraceSummary,
    TraceWriter, bare_drain, run_trace,
};
use starling_schemas::ids::{Offset, PartitionId};
use starling_store::{Metastore, RangeOutcome};
use tokio::sync::watch;

const TOPIC: &str = "events";

/// Where the metastore of a journey is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Sqlite,
    Postgres,
}

impl Place {
    /// A new folder, which says where its metastore is.
    fn dir(self) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("dir");
        if self == Self::Postgres {
            std::fs::write(dir.path().join("metastore.url"), server::shared_database()).expect("address");
        }
        dir
    }
}

fn run(journey: impl Future<Output = ()>) -> Result<(), Failed> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(journey);
    Ok(())
}

fn main() -> ExitCode {
    let missing = server::missing();
    if let Some(why) = &missing {
        eprintln!("{why}");
    }
    let mut trials = Vec::new();
    macro_rules! on_both {
        ($($name:ident),* $(,)?) => {$(
            for (place, label) in [(Place::Sqlite, "sqlite"), (Place::Postgres, "postgres")] {
                let name = format!(concat!("{}::", stringify!($name)), label);
                trials.push(
                    Trial::test(name, move || run($name(place)))
                        .with_ignored_flag(missing.is_some() && place == Place::Postgres),
                );
            }
        )*};
    }
    macro_rules! alone {
        ($($name:ident),* $(,)?) => {$(trials.push(Trial::test(stringify!($name), move || run($name())));)*};
    }
    on_both!(
        i9_restarts_leave_no_gap_and_no_duplicate,
        i9_a_dropped_job_is_taken_over_from_its_open_plan,
        i9_two_workers_share_a_group_and_one_takes_over_when_the_other_stops,
        a_processor_that_fails_is_asked_again_and_one_that_keeps_failing_stops_the_job,
        i8_a_log_shorter_than_what_was_read_stops_loudly_and_says_where_and_what_to_do,
        framing_is_taken_off_and_an_empty_message_becomes_an_empty_frame,
        the_end_of_an_idle_partition_is_noted,
        memory_is_bounded_while_processing_is_slow,
        a_job_whose_brokers_are_away_waits_and_stops_when_told,
        a_processor_that_panics_stops_the_job_and_commits_nothing,
        a_trace_is_read_once_however_often_it_is_given,
        i1_a_truncated_trace_gives_one_malformed_event_and_says_so,
        a_gigantic_frame_is_one_event_that_is_too_large,
        an_empty_trace_is_done_at_once_and_a_shorter_one_is_refused,
    );
    #[cfg(debug_assertions)]
    on_both!(
        i9_kill_9_at_every_point_leaves_every_event_once_from_kafka,
        i9_kill_9_at_every_point_leaves_every_event_once_from_a_trace,
    );
    #[cfg(debug_assertions)]
    alone!(i9_a_topic_s_id_that_cannot_be_kept_is_kept_the_next_time);
    alone!(the_bare_drain_and_the_plain_reader_see_every_message, a_delivery_that_fails_is_told_at_the_flush);
    // No test: what one of them starts.
    if std::env::var_os("STARLING_TEST_CHILD_DIR").is_some() {
        alone!(child_process);
    }
    let done = libtest_mimic::run(&Arguments::from_args(), trials);
    server::stop_shared();
    done.exit_code()
}

async fn i9_restarts_leave_no_gap_and_no_duplicate(place: Place) {
    let dir = place.dir();
    let broker = EmbeddedBroker::start(&[(TOPIC, 3)]).expect("broker");
    let metastore = open(dir.path()).await;
    let files = dir.path().join("out");
    for round in 0..4usize {
        produce(&broker.brokers(), TOPIC, 3, round * 500, 500);
        let mut scribe = Scribe::new(&files);
        scribe.delay = Duration::from_millis(5);
        let worker = Worker::start(source(&broker.brokers(), "g", TOPIC), small(), &metastore, Arc::new(scribe));
        if round == 3 {
            wait_for(&metastore, TOPIC, 6000).await;
        } else {
            wait_for(&metastore, TOPIC, (round as u64) * 1500 + 300).await;
        }
        worker.stop().await.expect("a clean stop");
    }
    assert_all(&committed(&files, &metastore, TOPIC).await, 3, 2000);
}

async fn i9_a_dropped_job_is_taken_over_from_its_open_plan(place: Place) {
    let dir = place.dir();
    let broker = EmbeddedBroker::start(&[(TOPIC, 2)]).expect("broker");
    let metastore = open(dir.path()).await;
    let files = dir.path().join("out");
    produce(&broker.brokers(), TOPIC, 2, 0, 300);
    let mut stuck = Scribe::new(&files);
    stuck.delay = Duration::from_secs(3600);
    // Each takes the partitions once: a session that ended on a busy machine would make it take them again.
    let of = |group: &str| lasting(source(&broker.brokers(), group, TOPIC));
    let worker = Worker::start(of("g"), small(), &metastore, Arc::new(stuck));
    wait_until("both plans", async || {
        metastore.partitions().await.expect("partitions").iter().filter(|p| p.has_open_plan).count() == 2
    })
    .await;
    worker.task.abort();
    let next = Worker::start(of("g2"), small(), &metastore, Arc::new(Scribe::new(&files)));
    wait_for(&metastore, TOPIC, 600).await;
    next.stop().await.expect("a clean stop");
    let status = metastore.partitions().await.expect("partitions");
    assert!(status.iter().all(|p| p.generation.0 == 2 && !p.has_open_plan));
    assert_all(&committed(&files, &metastore, TOPIC).await, 2, 300);
}

async fn i9_two_workers_share_a_group_and_one_takes_over_when_the_other_stops(place: Place) {
    let dir = place.dir();
    let broker = EmbeddedBroker::start(&[(TOPIC, 4)]).expect("broker");
    let metastore = open(dir.path()).await;
    let files = dir.path().join("out");
    produce(&broker.brokers(), TOPIC, 4, 0, 300);
    let scribes: Vec<Arc<Scribe>> = (0..2)
        .map(|_| {
            let mut scribe = Scribe::new(&files);
            scribe.delay = Duration::from_millis(30);
            Arc::new(scribe)
        })
        .collect();
    let first = Worker::start(source(&broker.brokers(), "g", TOPIC), small(), &metastore, scribes[0].clone());
    wait_for(&metastore, TOPIC, 200).await;
    let second = Worker::start(source(&broker.brokers(), "g", TOPIC), small(), &metastore, scribes[1].clone());
    let mut sent = 300;
    wait_until("the second worker to get partitions", async || {
        produce(&broker.brokers(), TOPIC, 4, sent, 20);
        sent += 20;
        scribes[1].calls.load(Ordering::SeqCst) > 0
    })
    .await;
    first.stop().await.expect("a clean stop");
    produce(&broker.brokers(), TOPIC, 4, sent, 200);
    wait_for(&metastore, TOPIC, 4 * (sent as u64 + 200)).await;
    second.stop().await.expect("a clean stop");
    assert_all(&committed(&files, &metastore, TOPIC).await, 4, sent + 200);
}

async fn a_processor_that_fails_is_asked_again_and_one_that_keeps_failing_stops_the_job(place: Place) {
    let dir = place.dir();
    let broker = EmbeddedBroker::start(&[(TOPIC, 1)]).expect("broker");
    let metastore = open(dir.path()).await;
    let files = dir.path().join("out");
    produce(&broker.brokers(), TOPIC, 1, 0, 50);
    let hopeless = Scribe::new(&files);
    hopeless.failures.store(1000, Ordering::SeqCst);
    let hopeless = Arc::new(hopeless);
    let error = Worker::start(source(&broker.brokers(), "g", TOPIC), small(), &metastore, hopeless.clone()).fails().await;
    assert!(matches!(error, IngestError::Processing { from: Offset(0), .. }), "{error}");
    assert_eq!(hopeless.calls.load(Ordering::SeqCst), 5);
    let shaky = Scribe::new(&files);
    shaky.failures.store(2, Ordering::SeqCst);
    let worker = Worker::start(source(&broker.brokers(), "g", TOPIC), small(), &metastore, Arc::new(shaky));
    wait_for(&metastore, TOPIC, 50).await;
    worker.stop().await.expect("a clean stop");
    assert_all(&committed(&files, &metastore, TOPIC).await, 1, 50);
}

async fn i8_a_log_shorter_than_what_was_read_stops_loudly_and_says_where_and_what_to_do(place: Place) {
    let dir = place.dir();
    let broker = EmbeddedBroker::start(&[(TOPIC, 2)]).expect("broker");
    let metastore = open(dir.path()).await;
    produce(&broker.brokers(), TOPIC, 2, 0, 10);
    let partition = PartitionId { source: TOPIC.into(), partition: 1 };
    let owned = metastore.take_ownership(&partition, "before", 1).await.expect("take");
    let plan = metastore.plan(&partition, owned.generation, Offset(0), Offset(500), 1).await.expect("plan");
    metastore.commit(&plan, &RangeOutcome::default(), 1).await.expect("commit");
    let scribe = Arc::new(Scribe::new(&dir.path().join("out")));
    let error = Worker::start(source(&broker.brokers(), "g", TOPIC), small(), &metastore, scribe).fails().await;
    assert_eq!(
        error.to_string(),
        "events/1: read up to 500, but the log was cut below that and the broker has 0 to 10 (exclusive), as after an unclean leader election. \
         What was read is counted and stays so; what was written into the cut part is not read. Find out which broker lost data, then go on \
         at the log's present end, or where you say, with `starling accept-loss`, which records it"
    );
    let recorded = metastore.last_audit(STOPPED).await.expect("audit").expect("the stop is recorded");
    assert_eq!(recorded.detail["reason"], error.to_string());
}

async fn framing_is_taken_off_and_an_empty_message_becomes_an_empty_frame(place: Place) {
    let dir = place.dir();
    let broker = EmbeddedBroker::start(&[(TOPIC, 1)]).expect("broker");
    let metastore = open(dir.path()).await;
    let producer = Producer::new(&broker.brokers(), &BTreeMap::new()).expect("producer");
    for payload in [&b"\0\0\0\0\x07\0\x08\x01"[..], b"\x08\x02", b"", b"\0broken"] {
        producer.send(TOPIC, Some(0), Some(b"key"), payload).expect("send");
    }
    producer.flush(Duration::from_secs(120)).expect("flush");
    let files = dir.path().join("out");
    let worker = Worker::start(source(&broker.brokers(), "g", TOPIC), small(), &metastore, Arc::new(Scribe::new(&files)));
    wait_for(&metastore, TOPIC, 4).await;
    worker.stop().await.expect("a clean stop");
    let got = committed(&files, &metastore, TOPIC).await;
    let payloads: Vec<&str> = got[&0].iter().map(|(_, p)| p.as_str()).collect();
    assert_eq!(payloads, ["0801", "0802", "", &hex(b"\0broken")]);
}

async fn the_end_of_an_idle_partition_is_noted(place: Place) {
    let dir = place.dir();
    let broker = EmbeddedBroker::start(&[(TOPIC, 2)]).expect("broker");
    let metastore = open(dir.path()).await;
    let producer = Producer::new(&broker.brokers(), &BTreeMap::new()).expect("producer");
    for _ in 0..7 {
        producer.send(TOPIC, Some(0), None, b"\x08\x01").expect("send");
    }
    producer.flush(Duration::from_secs(120)).expect("flush");
    let scribe = Arc::new(Scribe::new(&dir.path().join("out")));
    let worker = Worker::start(source(&broker.brokers(), "g", TOPIC), small(), &metastore, scribe);
    wait_until("both ends", async || {
        let ends: Vec<_> = metastore.partitions().await.expect("partitions").iter().map(|p| p.end_offset.map(|o| o.0)).collect();
        ends == [Some(7), Some(0)]
    })
    .await;
    let seen = metastore.partitions().await.expect("partitions")[1].seen_ms;
    wait_until("a later look", async || metastore.partitions().await.expect("partitions")[1].seen_ms > seen).await;
    worker.stop().await.expect("a clean stop");
}

async fn memory_is_bounded_while_processing_is_slow(place: Place) {
    let dir = place.dir();
    let broker = EmbeddedBroker::start(&[(TOPIC, 3)]).expect("broker");
    let metastore = open(dir.path()).await;
    let files = dir.path().join("out");
    produce(&broker.brokers(), TOPIC, 3, 0, 1000);
    // 16 batches of 200 bytes are all the memory there is.
    let limits = BatchLimits { max_events: 1000, max_bytes: 200, linger_ms: 5 };
    let worker = Worker::start(source(&broker.brokers(), "g", TOPIC), limits, &metastore, Arc::new(Scribe::new(&files)));
    wait_for(&metastore, TOPIC, 3000).await;
    worker.stop().await.expect("a clean stop");
    assert_all(&committed(&files, &metastore, TOPIC).await, 3, 1000);
}

async fn the_bare_drain_and_the_plain_reader_see_every_message() {
    let broker = EmbeddedBroker::start(&[(TOPIC, 2), ("empty", 1)]).expect("broker");
    produce(&broker.brokers(), TOPIC, 2, 0, 1000);
    for mode in [DrainMode::Poll, DrainMode::Batch] {
        let report = bare_drain(&source(&broker.brokers(), "unused", TOPIC), mode).await.expect("drain");
        assert_eq!(report.events, 2000, "{mode:?}");
        assert_eq!(bare_drain(&source(&broker.brokers(), "unused", "empty"), mode).await.expect("drain").events, 0);
    }
    let brokers = broker.brokers();
    let read = tokio::task::spawn_blocking(move || {
        assert_eq!(TopicReader::partitions(&brokers, TOPIC, &BTreeMap::new()).expect("partitions"), [0, 1]);
        let start = BTreeMap::from([(0, -1), (1, 990)]);
        let mut reader = TopicReader::open(&brokers, TOPIC, start, &BTreeMap::new()).expect("open");
        assert_eq!(reader.ends().expect("ends"), BTreeMap::from([(0, 1000), (1, 1000)]));
        let mut read = Vec::new();
        while read.len() < 1010 {
            read.extend(reader.poll(Duration::from_secs(20)).expect("poll"));
        }
        let mut lost = TopicReader::open(&brokers, TOPIC, BTreeMap::from([(1, 5000)]), &BTreeMap::new()).expect("open");
        let gap = loop {
            if let Err(error) = lost.poll(Duration::from_secs(20)) {
                break error;
            }
        };
        assert!(matches!(gap, IngestError::Gap { wanted: Offset(5000), low: 0, high: 1000, .. }), "{gap}");
        read
    })
    .await
    .expect("no panic");
    assert_eq!(read.iter().filter(|m| m.partition == 1).map(|m| m.offset).collect::<Vec<_>>(), (990..1000).collect::<Vec<_>>());
}

async fn a_delivery_that_fails_is_told_at_the_flush() {
    let properties = BTreeMap::from([("message.timeout.ms".to_owned(), "300".to_owned())]);
    let nobody = Producer::new("127.0.0.1:1", &properties).expect("producer");
    nobody.send("t", None, None, b"x").expect("queued");
    let error = nobody.flush(Duration::from_secs(120)).expect_err("not delivered");
    assert!(matches!(error, IngestError::Delivery { failed: 1, .. }), "{error}");
    nobody.flush(Duration::from_secs(1)).expect("told once");
}

async fn a_job_whose_brokers_are_away_waits_and_stops_when_told(place: Place) {
    let dir = place.dir();
    let metastore = open(dir.path()).await;
    let scribe = Arc::new(Scribe::new(&dir.path().join("out")));
    let worker = Worker::start(source("127.0.0.1:1", "g", TOPIC), small(), &metastore, scribe);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!worker.task.is_finished());
    let begun = std::time::Instant::now();
    worker.stop().await.expect("a clean stop");
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
}

struct Panicking;

#[async_trait::async_trait]
impl starling_ingest::RangeProcessor for Panicking {
    async fn process(
        &self,
        _plan: &starling_store::Plan,
        _frames: Arc<starling_ingest::Frames>,
    ) -> Result<RangeOutcome, starling_ingest::ProcessError> {
        panic!("told to");
    }
}

async fn a_processor_that_panics_stops_the_job_and_commits_nothing(place: Place) {
    let dir = place.dir();
    let broker = EmbeddedBroker::start(&[(TOPIC, 1)]).expect("broker");
    let metastore = open(dir.path()).await;
    produce(&broker.brokers(), TOPIC, 1, 0, 10);
    let error = Worker::start(source(&broker.brokers(), "g", TOPIC), small(), &metastore, Arc::new(Panicking)).fails().await;
    assert!(matches!(error, IngestError::Thread(_)), "{error}");
    assert_eq!(events(&metastore, TOPIC).await, 0);
    assert!(metastore.partitions().await.expect("partitions")[0].has_open_plan);
}

// --- kills ------------------------------------------------------------------------------------------------------------------------

/// The source under which a trace's progress is kept.
fn source_of(path: &std::path::Path) -> String {
    starling_ingest::trace::trace_partition(path).expect("a trace").source
}

/// The process that `i9_kill_9_at_every_point_…` starts and kills.
async fn child_process() {
    let Ok(dir) = std::env::var("STARLING_TEST_CHILD_DIR") else { return };
    let dir = PathBuf::from(dir);
    let metastore = open(&dir).await;
    let scribe = Arc::new(Scribe::new(&dir.join("out")));
    let wanted: u64 = std::env::var("STARLING_TEST_CHILD_EVENTS").expect("events").parse().expect("a number");
    match std::env::var("STARLING_TEST_CHILD_BROKERS") {
        Ok(brokers) => {
            // A group of its own: the killed one's session must not be waited for.
            let group = format!("g{}", std::process::id());
            let worker = Worker::start(source(&brokers, &group, TOPIC), small(), &metastore, scribe);
            wait_for(&metastore, TOPIC, wanted).await;
            worker.stop().await.expect("a clean stop");
        }
        Err(_) => {
            trace(&dir.join("t.trace.zst"), &metastore, scribe).await.expect("trace");
        }
    }
}

#[cfg(debug_assertions)]
async fn i9_a_topic_s_id_that_cannot_be_kept_is_kept_the_next_time() {
    let broker = EmbeddedBroker::start(&[(TOPIC, 1)]).expect("broker");
    produce(&broker.brokers(), TOPIC, 1, 0, 300);
    for point in
        ["begin keeping a topic's id:1:3=EIO", "commit keeping a topic's id=ENOSPC", "committed keeping a topic's id=EIO"]
    {
        let dir = tempfile::tempdir().expect("dir");
        let failing = [("STARLING_FAIL_AT", point)];
        assert!(child_with(dir.path(), Some(&broker.brokers()), 300, &failing), "{point}: it goes on");
        let metastore = open(dir.path()).await;
        assert_eq!(metastore.topic_ids().await.expect("ids").len(), 1, "{point}");
        assert_all(&committed(&dir.path().join("out"), &metastore, TOPIC).await, 1, 300);
    }
}

#[cfg(debug_assertions)]
fn child(dir: &Path, brokers: Option<&str>, events: usize, kill_at: Option<&str>) -> bool {
    let kill = kill_at.map(|point| ("STARLING_KILL_AT", point));
    child_with(dir, brokers, events, kill.as_slice())
}

#[cfg(debug_assertions)]
fn child_with(dir: &Path, brokers: Option<&str>, events: usize, disturbed: &[(&str, &str)]) -> bool {
    let mut command = std::process::Command::new(std::env::current_exe().expect("exe"));
    command
        .args(["--exact", "child_process"])
        .env("STARLING_TEST_CHILD_DIR", dir)
        .env("STARLING_TEST_CHILD_EVENTS", events.to_string());
    command.env_remove("STARLING_KILL_AT").stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    if let Some(brokers) = brokers {
        command.env("STARLING_TEST_CHILD_BROKERS", brokers);
    }
    command.envs(disturbed.iter().copied());
    command.status().expect("child").success()
}

#[cfg(debug_assertions)]
async fn i9_kill_9_at_every_point_leaves_every_event_once_from_kafka(place: Place) {
    let dir = place.dir();
    let broker = EmbeddedBroker::start(&[(TOPIC, 2)]).expect("broker");
    produce(&broker.brokers(), TOPIC, 2, 0, 1000);
    for point in ["after_plan", "after_process:2", "after_commit", "after_plan:3", "after_commit:2", "after_process"] {
        assert!(!child(dir.path(), Some(&broker.brokers()), 2000, Some(point)), "{point} kills");
    }
    assert!(child(dir.path(), Some(&broker.brokers()), 2000, None), "the last one finishes");
    let metastore = open(dir.path()).await;
    assert_all(&committed(&dir.path().join("out"), &metastore, TOPIC).await, 2, 1000);
}

#[cfg(debug_assertions)]
async fn i9_kill_9_at_every_point_leaves_every_event_once_from_a_trace(place: Place) {
    let dir = place.dir();
    write_trace(&dir.path().join("t.trace.zst"), 1000);
    for point in ["after_plan", "after_process:2", "after_commit", "after_plan:3", "after_commit:2", "after_process"] {
        assert!(!child(dir.path(), None, 0, Some(point)), "{point} kills");
    }
    assert!(child(dir.path(), None, 0, None), "the last one finishes");
    let metastore = open(dir.path()).await;
    assert_all(&committed(&dir.path().join("out"), &metastore, &source_of(&dir.path().join("t.trace.zst"))).await, 1, 1000);
}

// --- traces -----------------------------------------------------------------------------------------------------------------------

fn write_trace(path: &Path, count: usize) {
    let mut writer = TraceWriter::create(path).expect("create");
    for n in 0..count {
        writer.write(common::message(0, n).as_bytes()).expect("write");
    }
    writer.finish().expect("finish");
}

async fn trace(path: &Path, metastore: &Arc<Metastore>, scribe: Arc<Scribe>) -> Result<TraceSummary, IngestError> {
    let (_stop, shutdown) = watch::channel(false);
    run_trace(path, small(), Arc::clone(metastore), scribe, Arc::new(WallClock), shutdown, Arc::new(|_| {})).await
}

async fn a_trace_is_read_once_however_often_it_is_given(place: Place) {
    let dir = place.dir();
    let metastore = open(dir.path()).await;
    let path = dir.path().join("day.trace.zst");
    write_trace(&path, 1000);
    let files = dir.path().join("out");
    let (stop, shutdown) = watch::channel(false);
    let mut halting = Scribe::new(&files);
    // Of eleven ranges three are done before the stop, however long whoever looks takes to see them, and the fourth after it.
    let (go_on, gate) = watch::channel(false);
    halting.gate = Some((4, gate));
    let progress = Arc::new(std::sync::Mutex::new(Vec::new()));
    let told = Arc::clone(&progress);
    let running = tokio::spawn({
        let (path, metastore) = (path.clone(), Arc::clone(&metastore));
        async move {
            let tell = Arc::new(move |p| told.lock().expect("lock").push(p));
            run_trace(&path, small(), metastore, Arc::new(halting), Arc::new(WallClock), shutdown, tell).await
        }
    });
    wait_for(&metastore, &source_of(&path), 200).await;
    stop.send(true).expect("running");
    go_on.send(true).expect("it waits");
    let first = running.await.expect("no panic").expect("a clean stop");
    assert!(!first.finished && first.frames >= 200 && first.frames < 1000, "{first:?}");
    let second = trace(&path, &metastore, Arc::new(Scribe::new(&files))).await.expect("finishes");
    assert!(second.finished && second.skipped == first.frames && second.frames == 1000 - first.frames, "{second:?}");
    let third = trace(&path, &metastore, Arc::new(Scribe::new(&files))).await.expect("nothing to do");
    assert!(third.finished && third.frames == 0 && third.skipped == 1000, "{third:?}");
    assert_all(&committed(&files, &metastore, &source_of(&path)).await, 1, 1000);
    assert_eq!(metastore.partitions().await.expect("partitions")[0].end_offset, Some(Offset(1000)));
    let progress = progress.lock().expect("lock");
    assert!(
        progress.iter().all(|p| p.bytes_total == std::fs::metadata(&path).expect("file").len() && p.bytes_read <= p.bytes_total)
    );
}

async fn i1_a_truncated_trace_gives_one_malformed_event_and_says_so(place: Place) {
    let dir = place.dir();
    let metastore = open(dir.path()).await;
    let path = dir.path().join("cut.trace");
    write_trace(&path, 100);
    let bytes = std::fs::read(&path).expect("file");
    std::fs::write(&path, &bytes[..bytes.len() - 3]).expect("file");
    let files = dir.path().join("out");
    for _ in 0..2 {
        let summary = trace(&path, &metastore, Arc::new(Scribe::new(&files))).await.expect("finishes");
        assert!(summary.truncated && summary.finished, "{summary:?}");
    }
    let got = committed(&files, &metastore, &source_of(&path)).await;
    assert_eq!(got[&0].len(), 100);
    assert_eq!(got[&0][99], (99, "00".to_owned()), "tag 0 is malformed for every decoder");
}

async fn a_gigantic_frame_is_one_event_that_is_too_large(place: Place) {
    let dir = place.dir();
    let metastore = open(dir.path()).await;
    let path = dir.path().join("huge.trace");
    let mut bytes = b"\x02ab".to_vec();
    bytes.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
    std::fs::write(&path, &bytes).expect("file");
    let files = dir.path().join("out");
    let summary = trace(&path, &metastore, Arc::new(Scribe::new(&files))).await.expect("finishes");
    assert_eq!((summary.frames, summary.too_large, summary.finished), (2, 1, true));
    let got = committed(&files, &metastore, &source_of(&path)).await;
    assert!(got[&0][1].1.len() > 2 * 16 * 1024, "larger than any event may be");
}

async fn an_empty_trace_is_done_at_once_and_a_shorter_one_is_refused(place: Place) {
    let dir = place.dir();
    let metastore = open(dir.path()).await;
    let path = dir.path().join("t.trace");
    let files = dir.path().join("out");
    write_trace(&path, 0);
    let summary = trace(&path, &metastore, Arc::new(Scribe::new(&files))).await.expect("nothing to do");
    assert!(summary.finished && summary.frames == 0);
    // More than the bytes by which a trace is known.
    write_trace(&path, 100);
    trace(&path, &metastore, Arc::new(Scribe::new(&files))).await.expect("a hundred");
    assert_eq!(events(&metastore, &source_of(&path)).await, 100);
    write_trace(&path, 50);
    let error = trace(&path, &metastore, Arc::new(Scribe::new(&files))).await.expect_err("refused");
    assert!(matches!(error, IngestError::TraceShorter { wanted: 100, found: 50, .. }), "{error}");
    let mut reader = TraceReader::open(&path).expect("open");
    assert_eq!(reader.next_frame(&mut Vec::new()).expect("read"), FrameRead::Frame);
}
