//! Topics compressed in each of the ways that Kafka knows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use starling_ingest::{Producer, create_topic};

use crate::brokers;
use crate::common::{Scribe, Worker, assert_all, committed, message, open, small, source, wait_for};

const CODECS: [(&str, u8); 5] = [("none", 0), ("gzip", 1), ("snappy", 2), ("lz4", 3), ("zstd", 4)];
const EVENTS: usize = 3000;

pub(crate) async fn every_compression_gives_the_same_events() {
    let cluster = brokers::one();
    let dir = tempfile::tempdir().expect("dir");
    let metastore = open(dir.path()).await;
    let files = dir.path().join("out");
    let mut all = Vec::new();
    for (codec, number) in CODECS {
        let topic = format!("compressed-{codec}");
        tokio::task::block_in_place(|| {
            create_topic(cluster.bootstrap(), &topic, 2).expect("topic");
            let properties = BTreeMap::from([("compression.type".to_owned(), codec.to_owned())]);
            let producer = Producer::new(cluster.bootstrap(), &properties).expect("producer");
            for n in 0..EVENTS {
                for partition in 0..2 {
                    producer.send(&topic, Some(partition), None, message(partition, n).as_bytes()).expect("send");
                }
            }
            producer.flush(Duration::from_secs(60)).expect("flush");
        });
        let worker =
            Worker::start(source(cluster.bootstrap(), &topic, &topic), small(), &metastore, Arc::new(Scribe::new(&files)));
        wait_for(&metastore, &topic, 2 * EVENTS as u64).await;
        worker.stop().await.expect("a clean stop");
        let got = committed(&files, &metastore, &topic).await;
        assert_all(&got, 2, EVENTS);
        all.push(got);
        // What the broker keeps is compressed in that way: otherwise this would have proved nothing.
        for partition in 0..2 {
            let log = cluster.data(1).join(format!("{topic}-{partition}/00000000000000000000.log"));
            let found = codecs_of(&std::fs::read(log).expect("the partition's log"));
            assert!(!found.is_empty() && found.iter().all(|found| *found == number), "{codec}: {found:?}");
        }
    }
    assert!(all.windows(2).all(|two| two[0] == two[1]), "offsets and payloads do not depend on the compression");
}

/// The compression of each record batch of a log: its length is at byte 8, its attributes at byte 21.
fn codecs_of(log: &[u8]) -> Vec<u8> {
    let mut found = Vec::new();
    let mut rest = log;
    while let Some(length) = rest.get(8..12).map(|b| u32::from_be_bytes(b.try_into().expect("four bytes")) as usize) {
        // Kafka reserves room in a segment file: zeros follow the last batch.
        if length == 0 || rest.len() < 12 + length {
            break;
        }
        found.push(rest[22] & 7);
        rest = &rest[12 + length..];
    }
    found
}
