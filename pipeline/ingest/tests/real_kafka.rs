//! Journeys over a real Kafka. They run when `STARLING_TEST_BROKERS` names one, such as `tests/kafka/run.sh` starts.

mod common;
#[path = "real_kafka/group.rs"]
mod group;
#[path = "real_kafka/log.rs"]
mod log;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::{Scribe, Worker, assert_all, committed, open, produce, small, source, wait_for, wait_until};
use libtest_mimic::{Arguments, Trial};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{ClientConfig, TopicPartitionList};
use starling_ingest::{BatchLimits, DrainMode, IngestError, bare_drain, create_topic, partitions};
use starling_schemas::ids::Offset;

/// The brokers. Asked for only where there are some.
fn brokers() -> String {
    std::env::var("STARLING_TEST_BROKERS").expect("STARLING_TEST_BROKERS names brokers")
}

/// Every test, each ignored where there is no Kafka: a test that did not run has not passed, which Rust's own harness cannot say.
fn main() -> ExitCode {
    let missing = std::env::var("STARLING_TEST_BROKERS").unwrap_or_default().is_empty();
    if missing {
        eprintln!("skipped: STARLING_TEST_BROKERS names no Kafka; `tests/kafka/run.sh COMMAND` starts one");
    }
    let mut trials = Vec::new();
    macro_rules! trials {
        ($($name:path),* $(,)?) => {$(
            trials.push(Trial::test(stringify!($name).replace(' ', ""), || {
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on($name());
                Ok(())
            }).with_ignored_flag(missing));
        )*};
    }
    trials!(
        i9_restarts_leave_no_gap_and_no_duplicate,
        i9_two_workers_share_a_group_and_one_takes_over_when_the_other_stops,
        i9_a_worker_that_was_taken_over_without_knowing_is_fenced_and_recovers,
        i8_deleted_events_stop_the_job_loudly,
        a_transaction_s_markers_at_the_end_are_passed_and_aborted_events_are_not_read,
        a_tombstone_is_an_empty_frame_and_large_batches_flow,
        group::i9_partitions_that_stay_are_not_touched_while_others_move,
        group::i9_a_message_written_during_a_rebalance_to_a_partition_read_to_its_end_is_not_skipped,
        group::i9_a_storm_of_members_in_a_cooperative_group_loses_nothing_and_doubles_nothing,
        group::i9_a_storm_of_members_in_an_eager_group_loses_nothing_and_doubles_nothing,
        group::a_static_member_that_restarts_gets_its_partitions_back_without_a_rebalance,
        group::of_two_processes_with_the_same_instance_id_the_older_one_stops_loudly,
        group::a_member_that_wants_partitions_to_move_another_way_is_refused,
        group::i9_a_reader_that_stands_still_past_the_poll_interval_loses_its_partitions_and_comes_back,
        group::a_processor_slower_than_the_poll_interval_keeps_its_partitions,
        group::i9_a_process_frozen_past_its_session_is_fenced_when_it_thaws,
        group::partitions_added_while_running_are_found_and_read_from_their_beginning,
        log::i8_a_topic_made_anew_while_we_were_away_is_not_read_on,
        log::without_its_id_a_topic_made_anew_would_be_read_on,
        log::i8_a_topic_made_anew_while_it_is_read_stops_before_anything_of_it_is_committed,
        log::i8_a_topic_that_is_gone_stops_the_job_after_a_while,
        log::i8_events_deleted_ahead_of_a_slow_reader_stop_the_job_and_it_goes_on_where_an_operator_says,
        log::i8_a_log_cut_below_what_was_read_stops_the_job_also_after_it_has_grown_again,
    );
    // No test: what one of them starts.
    if std::env::var_os("STARLING_TEST_CHILD_DIR").is_some() {
        trials!(child_process);
    }
    #[cfg(debug_assertions)]
    trials!(i9_a_worker_killed_in_the_middle_is_taken_over_when_its_session_ends);
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn admin(brokers: &str) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", brokers).create().expect("admin")
}

/// A topic of its own for each test and run.
async fn topic(brokers: &str, name: &str, partitions: i32) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("clock").as_nanos();
    let (brokers, topic) = (brokers.to_owned(), format!("{name}-{now}"));
    tokio::task::spawn_blocking(move || {
        create_topic(&brokers, &topic, partitions).expect("topic");
        create_topic(&brokers, &topic, partitions).expect("making it twice is fine");
        topic
    })
    .await
    .expect("no panic")
}

async fn i9_restarts_leave_no_gap_and_no_duplicate() {
    let brokers = brokers();
    let topic = topic(&brokers, "restarts", 3).await;
    assert_eq!(tokio::task::block_in_place(|| partitions(&brokers, &topic, &BTreeMap::new())).expect("partitions"), [0, 1, 2]);
    let dir = tempfile::tempdir().expect("dir");
    let metastore = open(dir.path()).await;
    let files = dir.path().join("out");
    for round in 0..3usize {
        produce(&brokers, &topic, 3, round * 2000, 2000);
        let mut scribe = Scribe::new(&files);
        scribe.delay = Duration::from_millis(3);
        let worker = Worker::start(source(&brokers, &topic, &topic), small(), &metastore, Arc::new(scribe));
        wait_for(&metastore, &topic, if round == 2 { 18_000 } else { (round as u64) * 6000 + 1500 }).await;
        worker.stop().await.expect("a clean stop");
    }
    assert_all(&committed(&files, &metastore, &topic).await, 3, 6000);
    for mode in [DrainMode::Poll, DrainMode::Batch] {
        let report = bare_drain(&source(&brokers, "unused", &topic), mode).await.expect("drain");
        assert_eq!(report.events, 18_000, "{mode:?}");
    }
}

async fn i9_two_workers_share_a_group_and_one_takes_over_when_the_other_stops() {
    let brokers = brokers();
    let topic = topic(&brokers, "takeover", 4).await;
    let dir = tempfile::tempdir().expect("dir");
    let metastore = open(dir.path()).await;
    let files = dir.path().join("out");
    let scribes: Vec<Arc<Scribe>> = (0..2)
        .map(|_| {
            let mut scribe = Scribe::new(&files);
            scribe.delay = Duration::from_millis(30);
            Arc::new(scribe)
        })
        .collect();
    produce(&brokers, &topic, 4, 0, 500);
    let first = Worker::start(source(&brokers, &topic, &topic), small(), &metastore, scribes[0].clone());
    wait_for(&metastore, &topic, 200).await;
    let second = Worker::start(source(&brokers, &topic, &topic), small(), &metastore, scribes[1].clone());
    let mut sent = 500;
    wait_until("both workers to have partitions", async || {
        let calls = || scribes.iter().map(|s| s.calls.load(Ordering::SeqCst)).collect::<Vec<_>>();
        let before = calls();
        produce(&brokers, &topic, 4, sent, 20);
        sent += 20;
        tokio::time::sleep(Duration::from_millis(200)).await;
        calls().iter().zip(&before).all(|(now, before)| now > before)
    })
    .await;
    // The second one is cut off in the middle, as if its task had died; the first one takes over.
    second.task.abort();
    produce(&brokers, &topic, 4, sent, 500);
    wait_for(&metastore, &topic, 4 * (sent as u64 + 500)).await;
    first.stop().await.expect("a clean stop");
    assert_all(&committed(&files, &metastore, &topic).await, 4, sent + 500);
}

async fn i9_a_worker_that_was_taken_over_without_knowing_is_fenced_and_recovers() {
    let brokers = brokers();
    let topic = topic(&brokers, "zombie", 1).await;
    let dir = tempfile::tempdir().expect("dir");
    let metastore = open(dir.path()).await;
    let files = dir.path().join("out");
    produce(&brokers, &topic, 1, 0, 300);
    // Two groups, so that neither knows of the other: the later one has the partition.
    let mut slow = Scribe::new(&files);
    slow.delay = Duration::from_millis(100);
    let zombie = Worker::start(source(&brokers, &format!("{topic}-a"), &topic), small(), &metastore, Arc::new(slow));
    wait_for(&metastore, &topic, 50).await;
    let owner =
        Worker::start(source(&brokers, &format!("{topic}-b"), &topic), small(), &metastore, Arc::new(Scribe::new(&files)));
    wait_until("the takeover", async || metastore.partitions().await.expect("partitions")[0].generation.0 == 2).await;
    produce(&brokers, &topic, 1, 300, 300);
    wait_for(&metastore, &topic, 600).await;
    zombie.stop().await.expect("a fenced worker stops cleanly");
    owner.stop().await.expect("a clean stop");
    assert_all(&committed(&files, &metastore, &topic).await, 1, 600);
}

async fn i8_deleted_events_stop_the_job_loudly() {
    let brokers = brokers();
    let topic = topic(&brokers, "deleted", 1).await;
    let dir = tempfile::tempdir().expect("dir");
    let metastore = open(dir.path()).await;
    let scribe = Arc::new(Scribe::new(&dir.path().join("out")));
    produce(&brokers, &topic, 1, 0, 100);
    let worker = Worker::start(source(&brokers, &topic, &topic), small(), &metastore, scribe.clone());
    wait_for(&metastore, &topic, 100).await;
    worker.stop().await.expect("a clean stop");
    produce(&brokers, &topic, 1, 100, 100);
    let admin = admin(&brokers);
    let mut before = TopicPartitionList::new();
    before.add_partition_offset(&topic, 0, rdkafka::Offset::Offset(150)).expect("offset");
    admin.delete_records(&before, &AdminOptions::new()).await.expect("deleted");
    let error = Worker::start(source(&brokers, &topic, &topic), small(), &metastore, scribe).fails().await;
    assert!(matches!(error, IngestError::Gap { wanted: Offset(100), low: 150, high: 200, .. }), "{error}");
}

async fn a_transaction_s_markers_at_the_end_are_passed_and_aborted_events_are_not_read() {
    let brokers = brokers();
    let topic = topic(&brokers, "transactions", 1).await;
    let dir = tempfile::tempdir().expect("dir");
    let metastore = open(dir.path()).await;
    let files = dir.path().join("out");
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", &brokers).set("transactional.id", &topic).create().expect("producer");
    tokio::task::block_in_place(|| {
        let wait = Duration::from_secs(30);
        producer.init_transactions(wait).expect("init");
        for (n, commit) in [(0, true), (1, false), (2, true), (3, false)] {
            producer.begin_transaction().expect("begin");
            for _ in 0..10 {
                producer.send(BaseRecord::<(), str>::to(&topic).partition(0).payload(&format!("t{n}"))).expect("send");
            }
            producer.flush(wait).expect("flush");
            if commit {
                producer.commit_transaction(wait).expect("commit")
            } else {
                producer.abort_transaction(wait).expect("abort")
            }
        }
    });
    let worker = Worker::start(source(&brokers, &topic, &topic), small(), &metastore, Arc::new(Scribe::new(&files)));
    wait_until("the very end", async || {
        let status = metastore.partitions().await.expect("partitions");
        status.first().is_some_and(|p| p.next_offset == Some(Offset(44)) && p.end_offset == Some(Offset(44)))
    })
    .await;
    worker.stop().await.expect("a clean stop");
    let got = committed(&files, &metastore, &topic).await;
    let payloads: Vec<&str> = got[&0].iter().map(|(_, p)| p.as_str()).collect();
    assert_eq!(payloads, [["7430"; 10], ["7432"; 10]].concat());
}

async fn a_tombstone_is_an_empty_frame_and_large_batches_flow() {
    let brokers = brokers();
    let topic = topic(&brokers, "large", 2).await;
    let dir = tempfile::tempdir().expect("dir");
    let metastore = open(dir.path()).await;
    let files = dir.path().join("out");
    let tombstones: BaseProducer = ClientConfig::new().set("bootstrap.servers", &brokers).create().expect("producer");
    tombstones.send(BaseRecord::<str, str>::to(&topic).partition(0).key("k")).expect("send");
    tokio::task::block_in_place(|| tombstones.flush(Duration::from_secs(30))).expect("flush");
    produce(&brokers, &topic, 2, 0, 100_000);
    let begun = std::time::Instant::now();
    let worker =
        Worker::start(source(&brokers, &topic, &topic), BatchLimits::default(), &metastore, Arc::new(Scribe::new(&files)));
    wait_for(&metastore, &topic, 200_001).await;
    eprintln!("200001 events in {:?}, joining the group and writing them down included", begun.elapsed());
    worker.stop().await.expect("a clean stop");
    let mut got = committed(&files, &metastore, &topic).await;
    assert_eq!(got.get_mut(&0).expect("partition 0").remove(0), (0, String::new()));
    assert_all(&got, 2, 100_000);
    for mode in [DrainMode::Poll, DrainMode::Batch] {
        let report = bare_drain(&source(&brokers, "unused", &topic), mode).await.expect("drain");
        eprintln!("{mode:?}: {:.0} events/s", report.events_per_second());
    }
}

/// Not a test of its own: the worker that the next one starts and that kills itself.
async fn child_process() {
    let (Ok(dir), Ok(topic)) = (std::env::var("STARLING_TEST_CHILD_DIR"), std::env::var("STARLING_TEST_CHILD_TOPIC")) else {
        return;
    };
    let brokers = brokers();
    let metastore = open(std::path::Path::new(&dir)).await;
    let scribe = Arc::new(Scribe::new(&std::path::Path::new(&dir).join("out")));
    let worker = Worker::start(source(&brokers, &topic, &topic), small(), &metastore, scribe);
    let _ = worker.task.await;
}

/// Starts a worker in a process of its own.
fn child(dir: &std::path::Path, topic: &str, kill_at: Option<&str>) -> std::process::Child {
    let mut command = std::process::Command::new(std::env::current_exe().expect("exe"));
    command.args(["--exact", "child_process"]).env("STARLING_TEST_CHILD_DIR", dir).env("STARLING_TEST_CHILD_TOPIC", topic);
    if let Some(point) = kill_at {
        command.env("STARLING_KILL_AT", point);
    }
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().expect("child")
}

#[cfg(debug_assertions)]
async fn i9_a_worker_killed_in_the_middle_is_taken_over_when_its_session_ends() {
    let brokers = brokers();
    let topic = topic(&brokers, "killed", 4).await;
    let dir = tempfile::tempdir().expect("dir");
    let metastore = open(dir.path()).await;
    let files = dir.path().join("out");
    produce(&brokers, &topic, 4, 0, 500);
    let mut child = child(dir.path(), &topic, Some("after_process:12"));
    let first = Worker::start(source(&brokers, &topic, &topic), small(), &metastore, Arc::new(Scribe::new(&files)));
    let mut sent = 500;
    wait_until("the child to kill itself", async || {
        produce(&brokers, &topic, 4, sent, 20);
        sent += 20;
        child.try_wait().expect("child").is_some()
    })
    .await;
    assert!(!child.wait().expect("child").success());
    wait_for(&metastore, &topic, 4 * sent as u64).await;
    first.stop().await.expect("a clean stop");
    assert_all(&committed(&files, &metastore, &topic).await, 4, sent);
}
