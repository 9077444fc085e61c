//! What brokers and networks do, in the middle of reading and writing. After each: every event once, in order, in ranges that tile (I1, I9).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use starling_ingest::{Producer, TopicReader, create_topic};
use starling_store::Metastore;

use crate::brokers::{self, Cluster};
use crate::common::{Scribe, Worker, assert_all, committed, events, message, open, produce, small};
use crate::proxy::Weather;
use crate::security::{rules, scram, secured};

const PARTITIONS: i32 = 4;

/// A slow processor, so that a fault falls into the middle.
fn slow(files: &std::path::Path) -> Arc<Scribe> {
    let mut scribe = Scribe::new(files);
    scribe.delay = Duration::from_millis(5);
    Arc::new(scribe)
}

/// Sends numbered messages to each partition, a few every moment, until told to stop.
struct Sender {
    sent: Arc<AtomicUsize>,
    stop: Arc<std::sync::atomic::AtomicBool>,
    thread: std::thread::JoinHandle<()>,
}

impl Sender {
    fn start(brokers: &str, topic: &str) -> Self {
        let (sent, stop) = (Arc::<AtomicUsize>::default(), Arc::<std::sync::atomic::AtomicBool>::default());
        let (count, stopped) = (Arc::clone(&sent), Arc::clone(&stop));
        let (brokers, topic) = (brokers.to_owned(), topic.to_owned());
        let thread = std::thread::spawn(move || {
            let producer = Producer::new(&brokers, &BTreeMap::new()).expect("producer");
            while !stopped.load(Ordering::SeqCst) {
                let from = count.load(Ordering::SeqCst);
                for n in from..from + 10 {
                    (0..PARTITIONS).for_each(|p| producer.send(&topic, Some(p), None, message(p, n).as_bytes()).expect("send"));
                }
                count.store(from + 10, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(20));
            }
            producer.flush(Duration::from_secs(180)).expect("everything is delivered");
        });
        Self { sent, stop, thread }
    }

    /// Stops, and returns how many were sent to each partition, all of them acknowledged.
    async fn finish(self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        tokio::task::block_in_place(|| self.thread.join()).expect("the sender");
        self.sent.load(Ordering::SeqCst)
    }
}

/// Waits while it goes on: in vain only when nothing has been committed for five minutes: a coordinator that comes back on a busy machine takes its time.
async fn wait_for(metastore: &Metastore, topic: &str, wanted: u64) {
    let mut last = (0, Instant::now());
    loop {
        let now = events(metastore, topic).await;
        if now >= wanted {
            return;
        }
        if now > last.0 {
            last = (now, Instant::now());
        }
        assert!(last.1.elapsed() < Duration::from_secs(300), "stuck at {now} of {wanted} events of {topic}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits for something new.
async fn goes_on(metastore: &Metastore, topic: &str) {
    let now = events(metastore, topic).await;
    wait_for(metastore, topic, now + 200).await;
}

async fn generations(metastore: &Metastore, topic: &str) -> i64 {
    let partitions = metastore.partitions().await.expect("partitions");
    partitions.iter().filter(|p| p.partition.source == topic).map(|p| p.generation.0).sum()
}

fn make(cluster: &Cluster, topic: &str) {
    tokio::task::block_in_place(|| create_topic(cluster.bootstrap(), topic, PARTITIONS).expect("topic"));
}

/// A connection that is reset anywhere within TLS, the offer of mechanisms and SCRAM looks much like a refusal, and must not be taken for one.
pub(crate) async fn i8_a_connection_that_ends_within_its_handshakes_is_no_refusal() {
    let cluster = brokers::one_to_break();
    rules(&cluster).await;
    let proxy = cluster.proxy.as_ref().expect("this cluster has one");
    let brokers = format!("localhost:{}", proxy.port);
    let properties = scram(&cluster, "starling", "SCRAM-SHA-512");
    make(&cluster, "open-handshakes");
    tokio::task::block_in_place(|| produce(cluster.bootstrap(), "open-handshakes", 1, 0, 1));
    let before = proxy.resets();
    // All of it together is about 3 kB, and the shortest answer a few dozen bytes.
    for bytes in (0..3600).step_by(40) {
        proxy.reset_after(bytes);
        tokio::task::block_in_place(|| {
            let start = BTreeMap::from([(0, 0)]);
            let mut reader = TopicReader::open(&brokers, "open-handshakes", start, &properties).expect("reader");
            let begun = Instant::now();
            loop {
                match reader.poll(Duration::from_millis(100)) {
                    Ok(Some(_)) => break,
                    Ok(None) => assert!(begun.elapsed() < Duration::from_secs(60), "reset after {bytes} bytes: nothing comes"),
                    Err(error) => panic!("reset after {bytes} bytes: {error}"),
                }
            }
        });
    }
    proxy.reset_after(-1);
    assert!(proxy.resets() - before > 40, "connections were reset within their handshakes");
}

pub(crate) async fn i9_a_network_that_is_cut_stalled_and_reset_leaves_no_gap_and_no_duplicate() {
    let cluster = brokers::one_to_break();
    rules(&cluster).await;
    let topic = "open-network";
    make(&cluster, topic);
    let proxy = cluster.proxy.as_ref().expect("this cluster has one");
    let dir = tempfile::tempdir().expect("dir");
    let metastore = open(dir.path()).await;
    let files = dir.path().join("out");
    let sender = Sender::start(cluster.bootstrap(), topic);
    // The group is formed over the proxy too: its heartbeats go the same way as its events.
    let through = secured(&format!("localhost:{}", proxy.port), topic, &scram(&cluster, "starling", "SCRAM-SHA-512"));
    let worker = Worker::start(through, small(), &metastore, slow(&files));
    wait_for(&metastore, topic, 400).await;

    // In the middle of an answer, here and there; small allowances end inside the TLS handshake and the SASL exchange that follow.
    for bytes in [30_000, 0, 700, 12_345, 1_500, 2_500, 8_000] {
        let before = proxy.resets();
        proxy.reset_after(bytes);
        let begun = Instant::now();
        while proxy.resets() == before {
            assert!(begun.elapsed() < Duration::from_secs(60), "no connection was reset");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        goes_on(&metastore, topic).await;
    }
    // Gone for a while: whoever connects is thrown out at once.
    let accepted = proxy.accepted();
    proxy.set(Weather::Cut);
    let begun = Instant::now();
    while proxy.accepted() <= accepted {
        assert!(begun.elapsed() < Duration::from_secs(300), "the client did not try again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    proxy.set(Weather::Fair);
    goes_on(&metastore, topic).await;
    // A stall that is shorter than a session: nobody is thrown out of the group.
    proxy.set(Weather::Stalled);
    tokio::time::sleep(Duration::from_secs(2)).await;
    proxy.set(Weather::Fair);
    goes_on(&metastore, topic).await;
    // One that is longer than a session (6 s): heartbeats do not arrive, the group goes on without this member, and takes it back.
    let before = generations(&metastore, topic).await;
    proxy.set(Weather::Stalled);
    tokio::time::sleep(Duration::from_secs(30)).await;
    proxy.set(Weather::Fair);
    let begun = Instant::now();
    while generations(&metastore, topic).await < before + i64::from(PARTITIONS) {
        assert!(begun.elapsed() < Duration::from_secs(300), "the member was not thrown out of the group");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    goes_on(&metastore, topic).await;

    let sent = sender.finish().await;
    wait_for(&metastore, topic, (sent * 4) as u64).await;
    worker.stop().await.expect("a clean stop");
    assert_all(&committed(&files, &metastore, topic).await, PARTITIONS, sent);
}

pub(crate) async fn i9_a_broker_that_is_stopped_and_killed_leaves_no_gap_and_no_duplicate() {
    let cluster = brokers::one_to_break();
    rules(&cluster).await;
    let topic = "open-restarts";
    make(&cluster, topic);
    let dir = tempfile::tempdir().expect("dir");
    let metastore = open(dir.path()).await;
    let files = dir.path().join("out");
    let sender = Sender::start(cluster.bootstrap(), topic);
    let source = secured(cluster.listener("sasl_ssl"), topic, &scram(&cluster, "starling", "SCRAM-SHA-256"));
    let worker = Worker::start(source, small(), &metastore, slow(&files));
    wait_for(&metastore, topic, 400).await;
    for signal in ["-TERM", "-KILL"] {
        tokio::task::block_in_place(|| cluster.end(1, signal));
        // Down for a moment; reader and writer meet a closed port.
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(!worker.task.is_finished(), "a broker that is away is waited for");
        tokio::task::block_in_place(|| cluster.start_again(1));
        goes_on(&metastore, topic).await;
    }
    let sent = sender.finish().await;
    wait_for(&metastore, topic, (sent * 4) as u64).await;
    worker.stop().await.expect("a clean stop");
    assert_all(&committed(&files, &metastore, topic).await, PARTITIONS, sent);
}

/// Who leads each partition.
fn leaders(cluster: &Cluster, topic: &str) -> Vec<i32> {
    tokio::task::block_in_place(|| {
        let client: BaseConsumer = ClientConfig::new().set("bootstrap.servers", cluster.bootstrap()).create().expect("client");
        let Ok(metadata) = client.fetch_metadata(Some(topic), Duration::from_secs(10)) else { return Vec::new() };
        metadata.topics()[0].partitions().iter().map(rdkafka::metadata::MetadataPartition::leader).collect()
    })
}

async fn leaders_become(cluster: &Cluster, topic: &str, what: &str, mut good: impl FnMut(&[i32]) -> bool) {
    let begun = Instant::now();
    loop {
        let now = leaders(cluster, topic);
        if now.len() == PARTITIONS as usize && good(&now) {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(120), "{what}: {now:?}");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

pub(crate) async fn i9_leaders_that_move_leave_no_gap_and_no_duplicate() {
    let cluster = brokers::three();
    let topic = "leaders";
    make(&cluster, topic);
    let dir = tempfile::tempdir().expect("dir");
    let metastore = open(dir.path()).await;
    let files = dir.path().join("out");
    let sender = Sender::start(cluster.bootstrap(), topic);
    let source = secured(cluster.bootstrap(), topic, &BTreeMap::new());
    let worker = Worker::start(source, small(), &metastore, slow(&files));
    wait_for(&metastore, topic, 400).await;
    leaders_become(&cluster, topic, "each partition to have a leader", |now| now.iter().all(|leader| *leader > 0)).await;
    let preferred = leaders(&cluster, topic);
    for (signal, place) in [("-KILL", 0), ("-TERM", 1)] {
        let broker = preferred[place];
        let id = u8::try_from(broker).expect("an id");
        tokio::task::block_in_place(|| cluster.end(id, signal));
        leaders_become(&cluster, topic, "others to lead", |now| now.iter().all(|l| *l > 0 && *l != broker)).await;
        goes_on(&metastore, topic).await;
        // When it is back, the controller elects the preferred leaders again: they move once more, without a fault.
        tokio::task::block_in_place(|| cluster.start_again(id));
        leaders_become(&cluster, topic, "the preferred leaders", |now| now == preferred).await;
        goes_on(&metastore, topic).await;
    }
    let sent = sender.finish().await;
    wait_for(&metastore, topic, (sent * 4) as u64).await;
    worker.stop().await.expect("a clean stop");
    assert_all(&committed(&files, &metastore, topic).await, PARTITIONS, sent);
}
