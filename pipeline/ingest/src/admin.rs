//! Topics: making them and looking at them.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;

use crate::IngestError;
use crate::config::{self, LoggedContext};

const TIMEOUT: Duration = Duration::from_secs(15);

/// Makes a topic with the brokers' default replication. Blocks. A topic that is there already is left as it is.
///
/// # Errors
/// [`IngestError::Kafka`] if the brokers refuse or cannot be reached.
pub fn create_topic(brokers: &str, topic: &str, partitions: i32) -> Result<(), IngestError> {
    create_topic_with(brokers, topic, partitions, -1, &[], &BTreeMap::new())
}

/// Makes a topic. `replication`: copies, or -1 for the brokers' default. `settings`: of the topic, such as `retention.ms`. `properties`:
/// of the client, such as credentials.
///
/// # Errors
/// [`IngestError::Kafka`] if the brokers refuse or cannot be reached, [`IngestError::Setting`] for an unknown property.
pub fn create_topic_with(
    brokers: &str,
    topic: &str,
    partitions: i32,
    replication: i32,
    settings: &[(&str, &str)],
    properties: &BTreeMap<String, String>,
) -> Result<(), IngestError> {
    let mut client = rdkafka::ClientConfig::new();
    config::apply(&mut client, properties)?;
    client.set("bootstrap.servers", brokers);
    let admin: AdminClient<LoggedContext> =
        client.create_with_context(LoggedContext).map_err(|e| IngestError::kafka("making an admin client", &e))?;
    let mut wanted = NewTopic::new(topic, partitions, TopicReplication::Fixed(replication));
    for (key, value) in settings {
        wanted = wanted.set(key, value);
    }
    let options = AdminOptions::new().operation_timeout(Some(TIMEOUT)).request_timeout(Some(TIMEOUT));
    let results = futures::executor::block_on(admin.create_topics(&[wanted], &options))
        .map_err(|e| IngestError::kafka("making a topic", &e))?;
    for result in results {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((_, code)) => return Err(IngestError::Kafka { during: "making a topic", kind: code.to_string() }),
        }
    }
    Ok(())
}

/// A topic's partition numbers, in order. Blocks.
///
/// # Errors
/// [`IngestError::NoTopic`] if it is not there, [`IngestError::Kafka`] if the brokers cannot be reached.
pub fn partitions(brokers: &str, topic: &str, properties: &BTreeMap<String, String>) -> Result<Vec<i32>, IngestError> {
    let consumer: BaseConsumer<LoggedContext> = config::consumer(brokers, "starling-metadata", properties)?
        .create_with_context(LoggedContext)
        .map_err(|e| IngestError::kafka("making a consumer", &e))?;
    partitions_of(&consumer, topic)
}

pub(crate) fn partitions_of(consumer: &BaseConsumer<LoggedContext>, topic: &str) -> Result<Vec<i32>, IngestError> {
    let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT).map_err(|e| IngestError::kafka("asking for a topic", &e))?;
    let mut found: Vec<i32> = metadata
        .topics()
        .iter()
        .filter(|t| t.name() == topic && t.error().is_none())
        .flat_map(|t| t.partitions().iter().map(rdkafka::metadata::MetadataPartition::id))
        .collect();
    found.sort_unstable();
    if found.is_empty() {
        return Err(IngestError::NoTopic { topic: topic.to_owned() });
    }
    Ok(found)
}
