//! A plain reader of chosen partitions from chosen offsets, for those who keep their positions themselves.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::Message as _;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Headers as _};
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};
use starling_schemas::ids::{Offset, PartitionId};

use crate::config::{self, LoggedContext};
use crate::{IngestError, admin};

/// One message.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// Partition it stands in.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its bytes; empty for a tombstone.
    pub payload: Vec<u8>,
    /// Its headers, in order; the value of one that has none is empty.
    pub headers: Vec<(String, Vec<u8>)>,
}

/// Reads assigned partitions. It joins no group and commits nothing.
pub struct TopicReader {
    consumer: BaseConsumer<LoggedContext>,
    topic: String,
    /// Where reading goes on, per partition; -1: at the log's beginning.
    positions: BTreeMap<i32, i64>,
}

impl TopicReader {
    /// Reads the partitions named in `start`, each from its offset; a negative one means the log's beginning.
    ///
    /// # Errors
    /// [`IngestError::Setting`] for a property that is unknown or fixed, [`IngestError::Kafka`] if the client cannot be made.
    pub fn open(
        brokers: &str,
        topic: &str,
        start: BTreeMap<i32, i64>,
        properties: &BTreeMap<String, String>,
    ) -> Result<Self, IngestError> {
        // librdkafka wants a group name to assign by hand, but never joins it.
        let consumer: BaseConsumer<LoggedContext> = config::consumer(brokers, "starling-reader", properties)?
            .set("enable.partition.eof", "false")
            .create_with_context(LoggedContext::default())
            .map_err(|e| IngestError::kafka("making a consumer", &e))?;
        let mut list = TopicPartitionList::with_capacity(start.len());
        for (partition, offset) in &start {
            let at = if *offset < 0 { KafkaOffset::Beginning } else { KafkaOffset::Offset(*offset) };
            list.add_partition_offset(topic, *partition, at).map_err(|e| IngestError::kafka("assigning partitions", &e))?;
        }
        consumer.assign(&list).map_err(|e| IngestError::kafka("assigning partitions", &e))?;
        Ok(Self { consumer, topic: topic.to_owned(), positions: start })
    }

    /// The next message of any partition, or `None` if none came within `timeout`. Blocks.
    ///
    /// # Errors
    /// [`IngestError::Gap`] if a wanted offset is not in the log, [`IngestError::Refused`] if the brokers refuse this client. While
    /// brokers cannot be reached it returns `None`.
    pub fn poll(&mut self, timeout: Duration) -> Result<Option<Message>, IngestError> {
        match self.consumer.poll(timeout) {
            None => Ok(None),
            Some(Ok(message)) => {
                let (partition, offset) = (message.partition(), message.offset());
                self.positions.insert(partition, offset.saturating_add(1));
                let header = |h: Header<'_, &[u8]>| (h.key.to_owned(), h.value.unwrap_or_default().to_vec());
                let headers = message.headers().map_or_else(Vec::new, |headers| headers.iter().map(header).collect());
                Ok(Some(Message { partition, offset, payload: message.payload().unwrap_or_default().to_vec(), headers }))
            }
            Some(Err(KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange))) => {
                Err(self.gap())
            }
            // librdkafka asks for the coordinator of a group that it never joins. There need be no rule for it.
            Some(Err(KafkaError::MessageConsumption(RDKafkaErrorCode::GroupAuthorizationFailed))) => Ok(None),
            Some(Err(error)) => {
                if let Some(fault) = self.consumer.context().faults.last() {
                    return Err(IngestError::Refused(fault));
                }
                crate::kafka::refuse_or_wait(&error)?;
                Ok(None)
            }
        }
    }

    /// A topic's partition numbers.
    ///
    /// # Errors
    /// [`IngestError::NoTopic`] if it is not there, [`IngestError::Kafka`] if the brokers cannot be reached.
    pub fn partitions(brokers: &str, topic: &str, properties: &BTreeMap<String, String>) -> Result<Vec<i32>, IngestError> {
        admin::partitions(brokers, topic, properties)
    }

    /// The end of each partition that is read: the offset the next message will get. Blocks, asking the brokers.
    ///
    /// # Errors
    /// [`IngestError::Kafka`] if the brokers cannot be reached.
    pub fn ends(&self) -> Result<BTreeMap<i32, i64>, IngestError> {
        let mut ends = BTreeMap::new();
        for partition in self.positions.keys() {
            let (_, high) = self
                .consumer
                .fetch_watermarks(&self.topic, *partition, Duration::from_secs(10))
                .map_err(|e| IngestError::kafka("asking for a partition's end", &e))?;
            ends.insert(*partition, high);
        }
        Ok(ends)
    }

    /// librdkafka does not say which partition it is: the one whose position lies outside its log.
    fn gap(&self) -> IngestError {
        for (partition, wanted) in &self.positions {
            let Ok((low, high)) = self.consumer.fetch_watermarks(&self.topic, *partition, Duration::from_secs(10)) else {
                continue;
            };
            if *wanted >= 0 && (*wanted < low || *wanted > high) {
                let partition = PartitionId { source: self.topic.clone(), partition: *partition };
                return IngestError::Gap { partition, wanted: Offset(*wanted), low, high };
            }
        }
        IngestError::Kafka { during: "reading", kind: "a wanted offset is not in the log".into() }
    }
}
