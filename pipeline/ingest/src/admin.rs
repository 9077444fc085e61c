//! Topics: making them and looking at them.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::RDKafkaErrorCode;

use crate::IngestError;
use crate::config::{self, LoggedContext};
use crate::fault::Fault;
use crate::{examine, native};

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
        client.create_with_context(LoggedContext::default()).map_err(|e| IngestError::kafka("making an admin client", &e))?;
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
            Err((_, code)) if Fault::denied(code).is_some() => {
                return Err(IngestError::Refused(Fault::denied(code).unwrap_or(Fault::Topic)));
            }
            Err((_, code)) => return Err(IngestError::Kafka { during: "making a topic", kind: code.to_string() }),
        }
    }
    Ok(())
}

/// A topic's settings by name, such as `retention.ms`, with the brokers' defaults where it has none of its own. `None`: the access rules do not let
/// this client ask. Blocks.
///
/// # Errors
/// [`IngestError::Kafka`] if the brokers refuse or cannot be reached, [`IngestError::Setting`] for an unknown property.
pub fn topic_settings(
    brokers: &str,
    topic: &str,
    properties: &BTreeMap<String, String>,
) -> Result<Option<BTreeMap<String, String>>, IngestError> {
    const DURING: &str = "asking for a topic's settings";
    let mut client = rdkafka::ClientConfig::new();
    config::apply(&mut client, properties)?;
    client.set("bootstrap.servers", brokers);
    let admin: AdminClient<LoggedContext> =
        client.create_with_context(LoggedContext::default()).map_err(|e| IngestError::kafka("making an admin client", &e))?;
    let options = AdminOptions::new().request_timeout(Some(TIMEOUT));
    let wanted = [ResourceSpecifier::Topic(topic)];
    let answered = futures::executor::block_on(admin.describe_configs(&wanted, &options));
    let mut found = BTreeMap::new();
    for resource in answered.map_err(|e| IngestError::kafka(DURING, &e))? {
        match resource {
            Ok(resource) => {
                found.extend(resource.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))));
            }
            Err(code) if Fault::denied(code).is_some() => return Ok(None),
            Err(code) => return Err(IngestError::Kafka { during: DURING, kind: code.to_string() }),
        }
    }
    Ok(Some(found))
}

/// A topic's partition numbers, in order. Blocks.
///
/// # Errors
/// [`IngestError::NoTopic`] if it is not there, [`IngestError::Refused`] if the brokers refuse this client, or why they cannot be reached.
pub fn partitions(brokers: &str, topic: &str, properties: &BTreeMap<String, String>) -> Result<Vec<i32>, IngestError> {
    let consumer: BaseConsumer<LoggedContext> = config::consumer(brokers, "starling-metadata", properties)?
        .create_with_context(LoggedContext::default())
        .map_err(|e| IngestError::kafka("making a consumer", &e))?;
    examine::partitions_of(&consumer, topic).map_err(|error| examine::sharpen(error, brokers, properties))
}

/// A topic's id (KIP-516); `None` where the brokers are too old to give it one. Blocks.
///
/// # Errors
/// [`IngestError::NoTopic`] if it is not there, [`IngestError::Kafka`] if the brokers cannot be reached.
pub fn topic_id(brokers: &str, topic: &str, properties: &BTreeMap<String, String>) -> Result<Option<String>, IngestError> {
    const DURING: &str = "asking for a topic's id";
    let consumer: BaseConsumer<LoggedContext> = config::consumer(brokers, "starling-metadata", properties)?
        .create_with_context(LoggedContext::default())
        .map_err(|e| IngestError::kafka("making a consumer", &e))?;
    // Says also why the brokers refuse this client.
    examine::partitions_of(&consumer, topic).map_err(|error| examine::sharpen(error, brokers, properties))?;
    let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT).map_err(|e| IngestError::kafka(DURING, &e))?;
    let broker = metadata.brokers().first().map_or(-1, rdkafka::metadata::MetadataBroker::id);
    native::topic_id(consumer.client(), broker, topic, TIMEOUT).map_err(|code| match code {
        RDKafkaErrorCode::UnknownTopicOrPartition => IngestError::NoTopic { topic: topic.to_owned() },
        code => IngestError::Kafka { during: DURING, kind: code.to_string() },
    })
}

/// What the brokers have of each partition: first offset, and first offset that is not there yet. Blocks.
///
/// # Errors
/// As [`partitions`].
pub fn log_ends(
    brokers: &str,
    topic: &str,
    properties: &BTreeMap<String, String>,
) -> Result<BTreeMap<i32, (i64, i64)>, IngestError> {
    let consumer: BaseConsumer<LoggedContext> = config::consumer(brokers, "starling-metadata", properties)?
        .create_with_context(LoggedContext::default())
        .map_err(|e| IngestError::kafka("making a consumer", &e))?;
    examine::partitions_of(&consumer, topic)
        .map_err(|error| examine::sharpen(error, brokers, properties))?
        .into_iter()
        .map(|partition| {
            let ends = consumer.fetch_watermarks(topic, partition, TIMEOUT);
            Ok((partition, ends.map_err(|e| IngestError::kafka("asking for a partition's ends", &e))?))
        })
        .collect()
}
