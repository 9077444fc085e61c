//! The group's life: partitions that move, members that come and go, members that stand still.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::admin::{AdminOptions, NewPartitions};
use starling_ingest::{IngestError, KafkaSource, STOPPED, run_kafka};
use starling_schemas::time::Clock;
use starling_store::Metastore;
use tokio::sync::watch;

use super::{admin, brokers, topic};
use crate::common::{
    LASTING, Scribe, WallClock, Worker, assert_all, committed, events, open, produce, small, source, wait_for, wait_until,
};

/// A member of the group `topic` with one more setting.
fn member(brokers: &str, topic: &str, settings: &[(&str, &str)]) -> KafkaSource {
    let mut source = source(brokers, topic, topic);
    source.properties.extend(settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
    source
}

const EAGER: &[(&str, &str)] = &[("partition.assignment.strategy", "range")];

async fn generations(metastore: &Metastore, topic: &str) -> BTreeMap<i32, i64> {
    let all = metastore.partitions().await.expect("partitions");
    all.into_iter().filter(|p| p.partition.source == topic).map(|p| (p.partition.partition, p.generation.0)).collect()
}

/// How many members the group has, if that can be told.
async fn members(brokers: &str, group: &str) -> Option<usize> {
    let (admin, group) = (admin(brokers), group.to_owned());
    let asked = tokio::task::spawn_blocking(move || {
        let wait = Duration::from_secs(10);
        // The list is asked of the brokers that are known.
        admin.inner().fetch_metadata(None, wait).ok()?;
        let list = admin.inner().fetch_group_list(Some(&group), wait).ok()?;
        // One without members may be forgotten.
        Some(list.groups().iter().find(|found| found.name() == group).map_or(0, |found| found.members().len()))
    });
    asked.await.expect("no panic")
}

pub(crate) async fn i9_partitions_that_stay_are_not_touched_while_others_move() {
    let brokers = brokers();
    let topic = topic(&brokers, "stay", 4).await;
    let dir = tempfile::tempdir().expect("dir");
    let metastore = open(dir.path()).await;
    let files = dir.path().join("out");
    produce(&brokers, &topic, 4, 0, 100);
    let start = || Worker::start(member(&brokers, &topic, &[LASTING]), small(), &metastore, Arc::new(Scribe::new(&files)));
    let first = start();
    wait_for(&metastore, &topic, 400).await;
    let second = start();
    wait_until("two partitions to move", async || {
        generations(&metastore, &topic).await.values().filter(|g| **g == 2).count() == 2
    })
    .await;
    produce(&brokers, &topic, 4, 100, 100);
    wait_for(&metastore, &topic, 800).await;
    let moved = generations(&metastore, &topic).await;
    assert_eq!(moved.values().sum::<i64>(), 2 + 2 + 1 + 1, "the others were not taken anew: {moved:?}");
    second.stop().await.expect("a clean stop");
    produce(&brokers, &topic, 4, 200, 100);
    wait_for(&metastore, &topic, 1200).await;
    let back = generations(&metastore, &topic).await;
    assert_eq!(back.values().sum::<i64>(), 3 + 3 + 1 + 1, "only what had moved came back: {back:?}");
    first.stop().await.expect("a clean stop");
    assert_all(&committed(&files, &metastore, &topic).await, 4, 300);
}

/// The bug of librdkafka that `protocol/continuity.rs` tells of: a partition read to its end is read on one offset too far after a rebalance in
/// which it stays. Here every partition is read to its end in every rebalance, and one message is written just then.
pub(crate) async fn i9_a_message_written_during_a_rebalance_to_a_partition_read_to_its_end_is_not_skipped() {
    let brokers = brokers();
    let topic = topic(&brokers, "skip", 6).await;
    let dir = tempfile::tempdir().expect("dir");
    let metastore = open(dir.path()).await;
    let files = dir.path().join("out");
    let start = || Worker::start(member(&brokers, &topic, &[]), small(), &metastore, Arc::new(Scribe::new(&files)));
    let mut sent = 1;
    produce(&brokers, &topic, 6, 0, 1);
    let first = start();
    wait_for(&metastore, &topic, 6).await;
    for _ in 0..4 {
        let visitor = start();
        // While it joins, and after it has joined.
        for _ in 0..4 {
            wait_for(&metastore, &topic, 6 * sent as u64).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
            produce(&brokers, &topic, 6, sent, 1);
            sent += 1;
        }
        wait_for(&metastore, &topic, 6 * sent as u64).await;
        visitor.stop().await.expect("a clean stop");
        produce(&brokers, &topic, 6, sent, 1);
        sent += 1;
        wait_for(&metastore, &topic, 6 * sent as u64).await;
    }
    first.stop().await.expect("a clean stop");
    assert_all(&committed(&files, &metastore, &topic).await, 6, sent);
}

/// A small generator, so that a storm can be had again: `STARLING_TEST_SEED=N`.
struct Seed(u64);

impl Seed {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

async fn storm(name: &str, settings: &[(&str, &str)]) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("clock").as_nanos();
    let seed = std::env::var("STARLING_TEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(now as u64 | 1);
    eprintln!("{name}: STARLING_TEST_SEED={seed}");
    let mut seed = Seed(seed);
    let brokers = brokers();
    let topic = topic(&brokers, name, 6).await;
    let dir = tempfile::tempdir().expect("dir");
    let metastore = open(dir.path()).await;
    let files = dir.path().join("out");
    let mut sent = 0;
    let mut workers: Vec<Worker> = Vec::new();
    for _ in 0..60 {
        match seed.next(8) {
            0..=2 if workers.len() < 5 => {
                let mut scribe = Scribe::new(&files);
                scribe.delay = Duration::from_millis(seed.next(40));
                workers.push(Worker::start(member(&brokers, &topic, settings), small(), &metastore, Arc::new(scribe)));
            }
            3 if !workers.is_empty() => {
                let leaving = workers.swap_remove(usize::try_from(seed.next(workers.len() as u64)).expect("small"));
                leaving.stop().await.expect("a clean stop");
            }
            // Its task dies; its consumer leaves the group a moment later, with whatever was in work abandoned.
            4 if !workers.is_empty() => {
                let dying = workers.swap_remove(usize::try_from(seed.next(workers.len() as u64)).expect("small"));
                dying.task.abort();
            }
            _ => {}
        }
        let count = usize::try_from(seed.next(30)).expect("small");
        produce(&brokers, &topic, 6, sent, count);
        sent += count;
        tokio::time::sleep(Duration::from_millis(seed.next(500))).await;
        for worker in &workers {
            assert!(!worker.task.is_finished(), "a worker ended by itself");
        }
    }
    let last = Worker::start(member(&brokers, &topic, settings), small(), &metastore, Arc::new(Scribe::new(&files)));
    wait_for(&metastore, &topic, 6 * sent as u64).await;
    for worker in workers {
        worker.stop().await.expect("a clean stop");
    }
    last.stop().await.expect("a clean stop");
    assert_all(&committed(&files, &metastore, &topic).await, 6, sent);
}

pub(crate) async fn i9_a_storm_of_members_in_a_cooperative_group_loses_nothing_and_doubles_nothing() {
    storm("storm", &[]).await;
}

pub(crate) async fn i9_a_storm_of_members_in_an_eager_group_loses_nothing_and_doubles_nothing() {
    storm("eager-storm", EAGER).await;
}

pub(crate) async fn a_static_member_that_restarts_gets_its_partitions_back_without_a_rebalance() {
    let brokers = brokers();
    let topic = topic(&brokers, "static", 4).await;
    let dir = tempfile::tempdir().expect("dir");
    let metastore = open(dir.path()).await;
    let files = dir.path().join("out");
    let scribes = ["a", "b"].map(|id| (id, Arc::new(Scribe::new(&files))));
    let start = |(id, scribe): &(&str, Arc<Scribe>)| {
        let source = member(&brokers, &topic, &[("group.instance.id", *id), LASTING]);
        Worker::start(source, small(), &metastore, scribe.clone())
    };
    produce(&brokers, &topic, 4, 0, 50);
    let (a, b) = (start(&scribes[0]), start(&scribes[1]));
    let mut sent = 50;
    // Until both had some of what was sent at one time: while only one takes anything, the other may not have joined yet.
    wait_until("both to have partitions", async || {
        let calls = || scribes.iter().map(|(_, scribe)| scribe.calls.load(Ordering::SeqCst)).collect::<Vec<_>>();
        let before = calls();
        produce(&brokers, &topic, 4, sent, 1);
        sent += 1;
        wait_for(&metastore, &topic, 4 * sent as u64).await;
        calls().iter().zip(&before).all(|(now, before)| now > before)
    })
    .await;
    let before = generations(&metastore, &topic).await;
    a.stop().await.expect("a clean stop");
    produce(&brokers, &topic, 4, sent, 50);
    sent += 50;
    // Long enough for a rebalance, were there one: `a` has not left the group.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(generations(&metastore, &topic).await, before, "nobody takes the partitions of a static member that will be back");
    let a = start(&scribes[0]);
    wait_for(&metastore, &topic, 4 * sent as u64).await;
    let after = generations(&metastore, &topic).await;
    let taken: Vec<i64> = after.iter().map(|(partition, generation)| generation - before[partition]).collect();
    assert_eq!(taken.iter().sum::<i64>(), 2, "its own two were taken anew, the other's not touched: {taken:?}");
    assert!(taken.iter().all(|t| *t <= 1));
    a.stop().await.expect("a clean stop");
    b.stop().await.expect("a clean stop");
    assert_all(&committed(&files, &metastore, &topic).await, 4, sent);
}

pub(crate) async fn of_two_processes_with_the_same_instance_id_the_older_one_stops_loudly() {
    let brokers = brokers();
    let topic = topic(&brokers, "twins", 2).await;
    let dir = tempfile::tempdir().expect("dir");
    let metastore = open(dir.path()).await;
    let files = dir.path().join("out");
    produce(&brokers, &topic, 2, 0, 100);
    let start = || {
        let source = member(&brokers, &topic, &[("group.instance.id", "ingest-1")]);
        Worker::start(source, small(), &metastore, Arc::new(Scribe::new(&files)))
    };
    let older = start();
    wait_for(&metastore, &topic, 200).await;
    let newer = start();
    let error = older.fails().await;
    assert!(matches!(&error, IngestError::InstanceFenced { instance } if instance == "ingest-1"), "{error}");
    let recorded = metastore.last_audit(STOPPED).await.expect("audit").expect("recorded");
    assert!(
        recorded.detail["reason"].as_str().is_some_and(|r| r.contains("`group.instance.id` must be different")),
        "{recorded:?}"
    );
    produce(&brokers, &topic, 2, 100, 100);
    wait_for(&metastore, &topic, 400).await;
    newer.stop().await.expect("a clean stop");
    assert_all(&committed(&files, &metastore, &topic).await, 2, 200);
}

pub(crate) async fn a_member_that_wants_partitions_to_move_another_way_is_refused() {
    let brokers = brokers();
    let topic = topic(&brokers, "mixed", 2).await;
    let dir = tempfile::tempdir().expect("dir");
    let metastore = open(dir.path()).await;
    let files = dir.path().join("out");
    produce(&brokers, &topic, 2, 0, 100);
    let start = |settings| Worker::start(member(&brokers, &topic, settings), small(), &metastore, Arc::new(Scribe::new(&files)));
    let cooperative = start(&[]);
    wait_for(&metastore, &topic, 200).await;
    let error = start(EAGER).fails().await;
    assert!(matches!(&error, IngestError::MixedGroup { strategy, .. } if strategy == "range"), "{error}");
    produce(&brokers, &topic, 2, 100, 100);
    wait_for(&metastore, &topic, 400).await;
    cooperative.stop().await.expect("a clean stop");
    assert_all(&committed(&files, &metastore, &topic).await, 2, 200);
}

/// Stops the reading thread, and no other, for as long as it is told to.
struct StandingClock(AtomicBool);

impl Clock for StandingClock {
    fn now_ms(&self) -> i64 {
        while std::thread::current().name() == Some("kafka-reader") && self.0.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(20));
        }
        WallClock.now_ms()
    }
}

pub(crate) async fn i9_a_reader_that_stands_still_past_the_poll_interval_loses_its_partitions_and_comes_back() {
    let brokers = brokers();
    let topic = topic(&brokers, "slow", 4).await;
    let dir = tempfile::tempdir().expect("dir");
    let metastore = open(dir.path()).await;
    let files = dir.path().join("out");
    produce(&brokers, &topic, 4, 0, 200);
    let settings = &[("max.poll.interval.ms", "6000")];
    let clock = Arc::new(StandingClock(AtomicBool::new(false)));
    let (stop, shutdown) = watch::channel(false);
    let slow = tokio::spawn(run_kafka(
        member(&brokers, &topic, settings),
        small(),
        Arc::clone(&metastore),
        Arc::new(Scribe::new(&files)),
        Arc::clone(&clock) as Arc<dyn Clock>,
        shutdown,
    ));
    wait_for(&metastore, &topic, 800).await;
    // It stands still in the middle of the next rebalance: the first thing it does there is to take ownership, with the time.
    clock.0.store(true, Ordering::SeqCst);
    let other = Worker::start(member(&brokers, &topic, settings), small(), &metastore, Arc::new(Scribe::new(&files)));
    let mut sent = 200;
    wait_until("the other one to have two", async || {
        produce(&brokers, &topic, 4, sent, 10);
        sent += 10;
        tokio::time::sleep(Duration::from_millis(200)).await;
        generations(&metastore, &topic).await.values().filter(|g| **g == 2).count() >= 2
    })
    .await;
    other.stop().await.expect("a clean stop");
    // What the other one gives back comes to the standing one, which cannot take it, and is thrown out after six seconds.
    wait_until("the standing one to be thrown out", async || members(&brokers, &topic).await == Some(0)).await;
    let third = Worker::start(member(&brokers, &topic, settings), small(), &metastore, Arc::new(Scribe::new(&files)));
    produce(&brokers, &topic, 4, sent, 100);
    sent += 100;
    wait_for(&metastore, &topic, 4 * sent as u64).await;
    let before = generations(&metastore, &topic).await;
    clock.0.store(false, Ordering::SeqCst);
    wait_until("the slow one to be back", async || {
        produce(&brokers, &topic, 4, sent, 10);
        sent += 10;
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = generations(&metastore, &topic).await;
        now.iter().any(|(partition, generation)| *generation > before[partition])
    })
    .await;
    third.stop().await.expect("a clean stop");
    produce(&brokers, &topic, 4, sent, 100);
    sent += 100;
    wait_for(&metastore, &topic, 4 * sent as u64).await;
    stop.send(true).expect("it runs");
    slow.await.expect("no panic").expect("a clean stop");
    assert_all(&committed(&files, &metastore, &topic).await, 4, sent);
}

pub(crate) async fn a_processor_slower_than_the_poll_interval_keeps_its_partitions() {
    let brokers = brokers();
    let topic = topic(&brokers, "patient", 2).await;
    let dir = tempfile::tempdir().expect("dir");
    let metastore = open(dir.path()).await;
    let files = dir.path().join("out");
    produce(&brokers, &topic, 2, 0, 150);
    let mut scribe = Scribe::new(&files);
    // By a third longer than the interval, and all of it so long that a busy machine does not end the session meanwhile.
    scribe.delay = Duration::from_secs(27);
    let settings = &[("max.poll.interval.ms", "20000"), ("session.timeout.ms", "20000")];
    let worker = Worker::start(member(&brokers, &topic, settings), small(), &metastore, Arc::new(scribe));
    wait_for(&metastore, &topic, 300).await;
    worker.stop().await.expect("a clean stop");
    assert_eq!(generations(&metastore, &topic).await, BTreeMap::from([(0, 1), (1, 1)]), "nobody was thrown out of the group");
    assert_all(&committed(&files, &metastore, &topic).await, 2, 150);
}

fn signal(child: &std::process::Child, name: &str) {
    let sent = std::process::Command::new("kill").args([name, &child.id().to_string()]).status().expect("kill");
    assert!(sent.success());
}

pub(crate) async fn i9_a_process_frozen_past_its_session_is_fenced_when_it_thaws() {
    let brokers = brokers();
    let topic = topic(&brokers, "frozen", 4).await;
    let dir = tempfile::tempdir().expect("dir");
    let metastore = open(dir.path()).await;
    let files = dir.path().join("out");
    produce(&brokers, &topic, 4, 0, 100);
    let mut child = super::child(dir.path(), &topic, None);
    wait_for(&metastore, &topic, 400).await;
    let first = Worker::start(member(&brokers, &topic, &[]), small(), &metastore, Arc::new(Scribe::new(&files)));
    let mut sent = 100;
    let taken = async |wanted: usize, metastore: &Metastore| {
        let ours = format!("{topic}/{}", std::process::id());
        metastore.partitions().await.expect("partitions").iter().filter(|p| p.owner == ours).count() == wanted
    };
    wait_until("both to have two", async || taken(2, &metastore).await).await;
    // In the middle of its work, so that plans and batches are in its memory.
    produce(&brokers, &topic, 4, sent, 3000);
    sent += 3000;
    signal(&child, "-STOP");
    wait_until("the frozen one's session to end", async || taken(4, &metastore).await).await;
    produce(&brokers, &topic, 4, sent, 100);
    sent += 100;
    wait_for(&metastore, &topic, 4 * sent as u64).await;
    signal(&child, "-CONT");
    let mut rounds = 0;
    wait_until("the thawed one to be back in the group", async || {
        produce(&brokers, &topic, 4, sent, 10);
        sent += 10;
        rounds += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
        rounds > 10 && taken(2, &metastore).await
    })
    .await;
    wait_for(&metastore, &topic, 4 * sent as u64).await;
    child.kill().expect("kill");
    child.wait().expect("gone");
    produce(&brokers, &topic, 4, sent, 100);
    sent += 100;
    wait_for(&metastore, &topic, 4 * sent as u64).await;
    first.stop().await.expect("a clean stop");
    assert_all(&committed(&files, &metastore, &topic).await, 4, sent);
}

pub(crate) async fn partitions_added_while_running_are_found_and_read_from_their_beginning() {
    let brokers = brokers();
    let topic = topic(&brokers, "added", 2).await;
    let dir = tempfile::tempdir().expect("dir");
    let metastore = open(dir.path()).await;
    let files = dir.path().join("out");
    produce(&brokers, &topic, 2, 0, 100);
    let source = member(&brokers, &topic, &[("topic.metadata.refresh.interval.ms", "1000")]);
    let worker = Worker::start(source, small(), &metastore, Arc::new(Scribe::new(&files)));
    wait_for(&metastore, &topic, 200).await;
    let added = admin(&brokers).create_partitions(&[NewPartitions::new(&topic, 5)], &AdminOptions::new()).await;
    added.expect("asked").into_iter().for_each(|result| assert!(result.is_ok(), "{result:?}"));
    // Written before anybody of the group knows of them.
    wait_until("the producer to see them", async || {
        let (brokers, topic) = (brokers.clone(), topic.clone());
        let seen = tokio::task::spawn_blocking(move || starling_ingest::partitions(&brokers, &topic, &BTreeMap::new()));
        seen.await.expect("no panic").is_ok_and(|seen| seen.len() == 5)
    })
    .await;
    let producer = starling_ingest::Producer::new(&brokers, &BTreeMap::new()).expect("producer");
    for partition in 2..5 {
        for n in 0..100 {
            let message = crate::common::message(partition, n);
            producer.send(&topic, Some(partition), None, message.as_bytes()).expect("send");
        }
    }
    producer.flush(Duration::from_secs(30)).expect("flush");
    wait_until("the new ones to be read", async || events(&metastore, &topic).await == 500).await;
    worker.stop().await.expect("a clean stop");
    assert_all(&committed(&files, &metastore, &topic).await, 5, 100);
}
