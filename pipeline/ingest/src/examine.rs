//! A look at the brokers for somebody who wants to know whether they can be used, and why not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::{Duration, Instant};

use rdkafka::Message as _;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};

use crate::IngestError;
use crate::config::{self, LoggedContext};
use crate::fault::Fault;

/// How long brokers may take to answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// A question is asked again after this long, and answers of the connections are looked at in between.
const STEP: Duration = Duration::from_secs(2);
/// How long connections are listened to between two questions.
const HEARING: Duration = Duration::from_millis(200);
/// What was being done, where [`sharpen`] knows more.
const ASKING: &str = "asking for a topic";

/// Looks whether a topic can be read with these settings, by `group` if one is given: that brokers are there, that they let this client in, and that
/// the access rules let it read. Nothing is read: it asks for what comes after the end. Returns the partition numbers. Blocks.
///
/// # Errors
/// [`IngestError::NoTopic`], [`IngestError::Refused`] or [`IngestError::Setting`], each with what to do; [`IngestError::Kafka`] for the rest.
pub fn examine(
    brokers: &str,
    topic: &str,
    group: Option<&str>,
    properties: &BTreeMap<String, String>,
) -> Result<Vec<i32>, IngestError> {
    let consumer: BaseConsumer<LoggedContext> = config::consumer(brokers, group.unwrap_or("starling-doctor"), properties)?
        .create_with_context(LoggedContext::default())
        .map_err(|e| IngestError::kafka("making a consumer", &e))?;
    let mut told = None;
    let found = describe(&consumer, topic, &mut told).map_err(|error| sharpen(error, brokers, properties))?;
    let mut list = TopicPartitionList::with_capacity(found.len());
    for partition in &found {
        list.add_partition_offset(topic, *partition, KafkaOffset::End)
            .map_err(|e| IngestError::kafka("assigning partitions", &e))?;
    }
    if group.is_some() {
        may_use_group(&consumer, &list, told)?;
    }
    consumer.assign(&list).map_err(|e| IngestError::kafka("assigning partitions", &e))?;
    let mut left: BTreeSet<i32> = found.iter().copied().collect();
    let until = Instant::now() + PATIENCE;
    while !left.is_empty() {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Err(KafkaError::PartitionEOF(partition))) => drop(left.remove(&partition)),
            // Sent just now. It is not looked at.
            Some(Ok(message)) => drop(left.remove(&message.partition())),
            Some(Err(error)) if denied(&error).is_some_and(|fault| fault != Fault::Group || group.is_some()) => {
                return Err(IngestError::kafka("reading", &error));
            }
            Some(Err(_)) | None => {}
        }
        if let Some(fault) = consumer.context().faults.last() {
            return Err(sharpen(IngestError::Refused(fault), brokers, properties));
        }
        if Instant::now() >= until {
            let kind = format!(
                "{} of {} partitions do not answer: the brokers are known, but one that leads partitions cannot be reached. Is it up, and can \
                 the address that it announces (`advertised.listeners`) be reached from here?",
                left.len(),
                found.len()
            );
            return Err(IngestError::Kafka { during: "reading", kind });
        }
    }
    Ok(found)
}

/// Hears what connections tell, which waits in the consumer's queue until somebody polls; returns what a rule denied. One poll serves the
/// library's log as well and is over after its time at the latest, so it has to be given some.
fn hear(consumer: &BaseConsumer<LoggedContext>) -> Option<Fault> {
    let until = Instant::now() + HEARING;
    let mut heard = None;
    while let Some(event) = consumer.poll(until.saturating_duration_since(Instant::now())) {
        heard = heard.or(event.err().as_ref().and_then(denied));
        if Instant::now() >= until {
            break;
        }
    }
    heard
}

/// Asks for the group's offsets, as one who may read in it can. A denial is told once, on the consumer's queue, while the library goes on
/// asking; `told` is whether it was told before.
fn may_use_group(
    consumer: &BaseConsumer<LoggedContext>,
    list: &TopicPartitionList,
    mut told: Option<Fault>,
) -> Result<(), IngestError> {
    let until = Instant::now() + PATIENCE;
    loop {
        if told == Some(Fault::Group) {
            return Err(IngestError::Refused(Fault::Group));
        }
        match consumer.committed_offsets(list.clone(), STEP) {
            Ok(_) => return Ok(()),
            Err(error) if denied(&error).is_some() || Instant::now() >= until => {
                return Err(IngestError::kafka("asking for the group", &error));
            }
            Err(_) => told = hear(consumer),
        }
    }
}

fn denied(error: &KafkaError) -> Option<Fault> {
    error.rdkafka_error_code().and_then(Fault::denied)
}

/// A topic's partition numbers, in order.
pub(crate) fn partitions_of(consumer: &BaseConsumer<LoggedContext>, topic: &str) -> Result<Vec<i32>, IngestError> {
    describe(consumer, topic, &mut None)
}

/// The same; `told` becomes what a rule was heard to deny meanwhile, such as a group that only some who ask want to use.
fn describe(consumer: &BaseConsumer<LoggedContext>, topic: &str, told: &mut Option<Fault>) -> Result<Vec<i32>, IngestError> {
    let until = Instant::now() + PATIENCE;
    loop {
        let answer = consumer.fetch_metadata(Some(topic), STEP);
        *told = hear(consumer).or(told.take());
        let code = match &answer {
            Ok(metadata) => {
                let Some(described) = metadata.topics().iter().find(|described| described.name() == topic) else {
                    return Err(IngestError::NoTopic { topic: topic.to_owned() });
                };
                let code = described.error().map(RDKafkaErrorCode::from);
                let mut found: Vec<i32> = described.partitions().iter().map(rdkafka::metadata::MetadataPartition::id).collect();
                if code.is_none() && !found.is_empty() {
                    found.sort_unstable();
                    return Ok(found);
                }
                code.unwrap_or(RDKafkaErrorCode::UnknownTopicOrPartition)
            }
            Err(error) => error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail),
        };
        if let Some(fault) = Fault::denied(code).or_else(|| consumer.context().faults.last()) {
            return Err(IngestError::Refused(fault));
        }
        match (code, answer) {
            (RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic, _) => {
                return Err(IngestError::NoTopic { topic: topic.to_owned() });
            }
            (_, Err(error)) if Instant::now() >= until => return Err(IngestError::kafka(ASKING, &error)),
            (code, Ok(_)) if Instant::now() >= until => {
                return Err(IngestError::Kafka { during: ASKING, kind: code.to_string() });
            }
            // A leader is being chosen, or the brokers cannot be reached yet.
            _ => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// Finds out more where an error leaves two reasons open.
pub(crate) fn sharpen(error: IngestError, brokers: &str, properties: &BTreeMap<String, String>) -> IngestError {
    match error {
        IngestError::Refused(Fault::Certificate) => IngestError::Refused(authority_or_name(brokers, properties)),
        IngestError::Kafka { during: ASKING, .. } => IngestError::Refused(silence(brokers, properties)),
        other => other,
    }
}

/// Looks whether the certificate verifies when its name is not compared. No password goes over this connection, which ends after the
/// handshake: it speaks TLS without SASL.
fn authority_or_name(brokers: &str, properties: &BTreeMap<String, String>) -> Fault {
    let mut properties: BTreeMap<String, String> =
        properties.iter().filter(|(key, _)| !key.starts_with("sasl.")).map(|(k, v)| (k.clone(), v.clone())).collect();
    properties.insert("security.protocol".into(), "ssl".into());
    properties.insert("ssl.endpoint.identification.algorithm".into(), "none".into());
    let Ok(consumer) = config::consumer(brokers, "starling-doctor", &properties)
        .and_then(|c| c.create_with_context(LoggedContext::default()).map_err(|e| IngestError::kafka("making a consumer", &e)))
    else {
        return Fault::Certificate;
    };
    let consumer: BaseConsumer<LoggedContext> = consumer;
    let _ = consumer.fetch_metadata(None, STEP);
    hear(&consumer);
    if consumer.context().faults.last() == Some(Fault::Certificate) { Fault::Authority } else { Fault::HostName }
}

/// Nobody there, or somebody who does not answer.
fn silence(brokers: &str, properties: &BTreeMap<String, String>) -> Fault {
    let reached = brokers.split(',').any(|broker| {
        let address = broker.rsplit_once("://").map_or(broker, |(_, address)| address).trim();
        let addresses = address.to_socket_addrs().into_iter().flatten();
        addresses.into_iter().any(|address| TcpStream::connect_timeout(&address, STEP).is_ok())
    });
    let spoken = properties.get("security.protocol").map_or("PLAINTEXT", String::as_str).to_ascii_uppercase();
    if reached { Fault::Protocol { spoken } } else { Fault::Unreachable }
}
