//! An idempotent producer that tells of every message it could not deliver.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};

use crate::fault::{Fault, Faults};
use crate::{IngestError, config};

/// Settings an operator cannot change: no duplicates, no reordering, nothing acknowledged that a broker's loss could take back.
const FIXED: &[(&str, &str)] = &[("enable.idempotence", "true"), ("acks", "all")];

const DEFAULTS: &[(&str, &str)] = &[
    ("client.id", "starling"),
    ("compression.type", "lz4"),
    ("linger.ms", "5"),
    ("batch.size", "1000000"),
    ("queue.buffering.max.messages", "500000"),
    ("queue.buffering.max.kbytes", "262144"),
];

/// Counts deliveries that failed.
#[derive(Default)]
struct Deliveries {
    failed: AtomicU64,
    first: Mutex<Option<String>>,
    denied: Mutex<Option<Fault>>,
    faults: Faults,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        config::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.faults.observe(reason);
        config::client_error(&error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _message)) = result {
            self.failed.fetch_add(1, Ordering::AcqRel);
            self.first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| error.to_string());
            if let Some(fault) = error.rdkafka_error_code().and_then(Fault::denied) {
                self.denied.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(fault);
            }
        }
    }
}

/// Sends messages to Kafka. One instance may be shared by threads.
pub struct Producer {
    inner: ThreadedProducer<Deliveries>,
}

impl Producer {
    /// Connects lazily to `brokers` (`host:port`, comma-separated). `properties` are librdkafka's.
    ///
    /// # Errors
    /// [`IngestError::Setting`] for a property that is unknown or fixed here, [`IngestError::Kafka`] if the client cannot be made.
    pub fn new(brokers: &str, properties: &BTreeMap<String, String>) -> Result<Self, IngestError> {
        let mut client = ClientConfig::new();
        for (key, value) in DEFAULTS {
            client.set(*key, *value);
        }
        for (key, _) in FIXED {
            if properties.contains_key(*key) {
                return Err(IngestError::Setting {
                    key: (*key).to_owned(),
                    why: "it is set by this job and cannot be changed".into(),
                });
            }
        }
        config::apply(&mut client, properties)?;
        for (key, value) in FIXED {
            client.set(*key, *value);
        }
        client.set("bootstrap.servers", brokers);
        let inner = client.create_with_context(Deliveries::default()).map_err(|e| IngestError::kafka("making a producer", &e))?;
        Ok(Self { inner })
    }

    /// Queues a message. Blocks while the queue is full, so call it from a thread that may block. The message is delivered only when a
    /// later [`Producer::flush`] returns `Ok`.
    ///
    /// # Errors
    /// [`IngestError::Kafka`] if it cannot be queued: too large, an unknown partition, or a producer that is broken for good;
    /// [`IngestError::Refused`] if the queue is full because the brokers refuse this client.
    pub fn send(&self, topic: &str, partition: Option<i32>, key: Option<&[u8]>, payload: &[u8]) -> Result<(), IngestError> {
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic).payload(payload);
        record.key = key;
        record.partition = partition;
        self.queue(record)
    }

    /// The same with headers, to the partition of its key.
    ///
    /// # Errors
    /// See [`Producer::send`].
    pub fn send_with_headers(
        &self,
        topic: &str,
        key: &[u8],
        headers: &[(String, String)],
        payload: &[u8],
    ) -> Result<(), IngestError> {
        let mut owned = OwnedHeaders::new_with_capacity(headers.len());
        for (key, value) in headers {
            owned = owned.insert(Header { key, value: Some(value) });
        }
        self.queue(BaseRecord::to(topic).key(key).payload(payload).headers(owned))
    }

    fn queue(&self, mut record: BaseRecord<'_, [u8], [u8]>) -> Result<(), IngestError> {
        loop {
            match self.inner.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again)) => {
                    if let Some(fault) = self.inner.context().faults.last() {
                        return Err(IngestError::Refused(fault));
                    }
                    record = again;
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err((error, _)) => return Err(IngestError::kafka("queueing a message", &error)),
            }
        }
    }

    /// Waits until everything queued is delivered.
    ///
    /// # Errors
    /// [`IngestError::Refused`] if the brokers refuse this client, [`IngestError::Delivery`] if any message since the last flush failed, [`IngestError::FlushTimeout`] if some are still queued after
    /// `timeout`: they may be delivered yet.
    pub fn flush(&self, timeout: Duration) -> Result<(), IngestError> {
        let begun = Instant::now();
        let flushed = self.inner.flush(timeout);
        // The delivery reports of the last messages are served by the producer's own thread.
        while flushed.is_ok() && self.inner.in_flight_count() > 0 && begun.elapsed() < timeout {
            std::thread::sleep(Duration::from_millis(1));
        }
        let failed = self.inner.context().failed.swap(0, Ordering::AcqRel);
        let first = self.inner.context().first.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(fault) = self.inner.context().denied.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(IngestError::Refused(fault));
        }
        if failed > 0 {
            return Err(IngestError::Delivery { failed, first: first.unwrap_or_else(|| "unknown".into()) });
        }
        let left = u64::try_from(self.inner.in_flight_count()).unwrap_or(0);
        match flushed {
            Ok(()) if left == 0 => {
                self.inner.context().faults.clear();
                Ok(())
            }
            Ok(()) | Err(KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut)) => {
                if let Some(fault) = self.inner.context().faults.last() {
                    return Err(IngestError::Refused(fault));
                }
                Err(IngestError::FlushTimeout { left, timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX) })
            }
            Err(error) => Err(IngestError::kafka("flushing", &error)),
        }
    }
}
