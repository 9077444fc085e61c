//! A broker inside the process: librdkafka's mock cluster, for demos and tests.
//!
//! It speaks the real protocol over loopback, with consumer groups and idempotent producers. It is no store: each partition keeps 5 MiB or
//! 100,000 message sets and drops older ones silently, and everything ends with the process. A consumer that falls behind that far meets
//! [`IngestError::Gap`], so bound what is produced by the lag.

use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, DefaultProducerContext, Producer as _};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use crate::IngestError;

/// A running mock cluster of one broker. It stops when dropped.
pub struct EmbeddedBroker {
    host: BaseProducer<DefaultProducerContext>,
}

impl EmbeddedBroker {
    /// Starts a broker on a free loopback port with these topics: name and number of partitions.
    ///
    /// # Errors
    /// [`IngestError::Kafka`] if it cannot be started or a topic cannot be made.
    pub fn start(topics: &[(&str, i32)]) -> Result<Self, IngestError> {
        let host: BaseProducer<DefaultProducerContext> = ClientConfig::new()
            .set("client.id", "starling-embedded-broker")
            .set("test.mock.num.brokers", "1")
            // Without this the library says once a process that this is for tests.
            .set("log_level", "3")
            .create()
            .map_err(|e| IngestError::kafka("starting the embedded broker", &e))?;
        crate::native::join_at_once(host.client());
        let broker = Self { host };
        for (topic, partitions) in topics {
            broker
                .cluster()?
                .create_topic(topic, *partitions, 1)
                .map_err(|e| IngestError::kafka("making a topic in the embedded broker", &e))?;
        }
        broker.cluster()?;
        Ok(broker)
    }

    /// Where clients connect: `host:port`.
    #[must_use]
    pub fn brokers(&self) -> String {
        self.cluster().map(|cluster| cluster.bootstrap_servers()).unwrap_or_default()
    }

    /// From now on the broker answers so many requests that bring messages with "not enough replicas", which clients try again: its disk is
    /// full, so to say. Reading goes on.
    ///
    /// # Errors
    /// [`IngestError::Kafka`] if the broker is not up.
    pub fn refuse_messages(&self, requests: usize) -> Result<(), IngestError> {
        let refusals = vec![RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS; requests];
        self.cluster()?.request_errors(RDKafkaApiKey::Produce, &refusals);
        Ok(())
    }

    fn cluster(&self) -> Result<rdkafka::mocking::MockCluster<'_, DefaultProducerContext>, IngestError> {
        self.host
            .client()
            .mock_cluster()
            .ok_or_else(|| IngestError::Kafka { during: "starting the embedded broker", kind: "it did not come up".into() })
    }
}
