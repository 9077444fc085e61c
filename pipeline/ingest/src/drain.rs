//! The bare drain: how fast the same library reads a topic when nothing else is done. It is what the ingest bench is measured against.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::Message as _;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};

use crate::config::{self, LoggedContext};
use crate::kafka::KafkaSource;
use crate::native::{BatchQueue, Item, librdkafka_version};
use crate::{IngestError, examine};

/// How messages are taken out of the library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrainMode {
    /// `BaseConsumer::poll`, a message at a time.
    Poll,
    /// `rd_kafka_consume_batch_queue` on each partition's own queue.
    Batch,
}

/// What a drain read, and how fast.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrainReport {
    /// How.
    pub mode: DrainMode,
    /// Messages read.
    pub events: u64,
    /// Payload bytes read.
    pub bytes: u64,
    /// From the first message to the last.
    pub elapsed: Duration,
    /// From the call, connecting included.
    pub total: Duration,
    /// Version of librdkafka.
    pub library: String,
}

impl DrainReport {
    /// Messages a second, connecting not counted.
    #[must_use]
    pub fn events_per_second(&self) -> f64 {
        self.events as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// Reads every partition of the topic from its beginning to the end it has when called, with the settings of
/// [`run_kafka`](crate::run_kafka), and looks at nothing but sizes. Joins no group, commits nothing.
///
/// # Errors
/// [`IngestError::NoTopic`], [`IngestError::Kafka`]; also if nothing comes for 30 s.
pub async fn bare_drain(source: &KafkaSource, mode: DrainMode) -> Result<DrainReport, IngestError> {
    let source = source.clone();
    tokio::task::spawn_blocking(move || drain(&source, mode)).await.map_err(|_| IngestError::Thread("panicked while draining"))?
}

fn drain(source: &KafkaSource, mode: DrainMode) -> Result<DrainReport, IngestError> {
    let called = Instant::now();
    let consumer: BaseConsumer<LoggedContext> = config::consumer(&source.brokers, "starling-bare-drain", &source.properties)?
        .create_with_context(LoggedContext::default())
        .map_err(|e| IngestError::kafka("making a consumer", &e))?;
    let consumer = Arc::new(consumer);
    let mut left = BTreeMap::new();
    let mut list = TopicPartitionList::new();
    for partition in examine::partitions_of(&consumer, &source.topic)? {
        let (low, high) = consumer
            .fetch_watermarks(&source.topic, partition, Duration::from_secs(10))
            .map_err(|e| IngestError::kafka("asking for a partition's end", &e))?;
        if high > low {
            left.insert(partition, high);
            list.add_partition_offset(&source.topic, partition, KafkaOffset::Offset(low))
                .map_err(|e| IngestError::kafka("assigning partitions", &e))?;
        }
    }
    let mut queues = Vec::new();
    if mode == DrainMode::Batch {
        let reader = std::thread::current();
        for partition in left.keys() {
            let reader = reader.clone();
            let queue = BatchQueue::split(&consumer, &source.topic, *partition, move || reader.unpark())
                .ok_or_else(|| IngestError::NoTopic { topic: source.topic.clone() })?;
            queues.push((*partition, queue));
        }
    }
    consumer.assign(&list).map_err(|e| IngestError::kafka("assigning partitions", &e))?;

    let mut tally = Tally { left, events: 0, bytes: 0, first: None, last: Instant::now() };
    while !tally.left.is_empty() {
        match mode {
            DrainMode::Poll => {
                if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
                    tally.count(message.partition(), message.offset(), message.payload_len());
                }
            }
            DrainMode::Batch => {
                let mut got = 0;
                for (partition, queue) in &mut queues {
                    got += queue
                        .drain(|item| match item {
                            Item::Message { offset, payload } => tally.count(*partition, offset, payload.len()),
                            Item::End { offset } => tally.ended(*partition, offset),
                            Item::OutOfRange { .. } | Item::Failed(_) => {}
                        })
                        .count;
                }
                let _ = consumer.poll(Duration::ZERO);
                if got == 0 {
                    std::thread::park_timeout(Duration::from_millis(10));
                }
            }
        }
        if tally.last.elapsed() > Duration::from_secs(30) {
            return Err(IngestError::Kafka { during: "draining", kind: "nothing came for 30 s".into() });
        }
    }
    Ok(DrainReport {
        mode,
        events: tally.events,
        bytes: tally.bytes,
        elapsed: tally.first.map_or(Duration::ZERO, |first| tally.last.duration_since(first)),
        total: called.elapsed(),
        library: librdkafka_version(),
    })
}

struct Tally {
    /// Partitions not read to their end: where that is.
    left: BTreeMap<i32, i64>,
    events: u64,
    bytes: u64,
    first: Option<Instant>,
    last: Instant,
}

impl Tally {
    fn count(&mut self, partition: i32, offset: i64, bytes: usize) {
        if self.first.is_none() {
            self.first = Some(Instant::now());
        }
        self.events += 1;
        self.bytes += bytes as u64;
        // The time is taken now and then only: reading the clock costs as much as reading a message.
        if self.events & 0xff == 0 {
            self.last = Instant::now();
        }
        self.ended(partition, offset + 1);
    }

    fn ended(&mut self, partition: i32, next: i64) {
        if self.left.get(&partition).is_some_and(|end| next >= *end) {
            self.last = Instant::now();
            self.left.remove(&partition);
        }
    }
}
