//! What librdkafka tells about the group. Rebalances are written down here and acted on by the reader's loop, right after the poll.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;

use crate::config;
use crate::fault::Faults;

/// A change of the assignment. Partitions of the one subscribed topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum GroupEvent {
    /// These are ours now: in an eager group these only, in a cooperative one these also.
    Assigned(Vec<i32>),
    /// These are ours no more.
    Revoked(Vec<i32>),
}

/// The consumer's context.
#[derive(Default)]
pub(super) struct GroupContext {
    events: Mutex<Vec<GroupEvent>>,
    closing: AtomicBool,
    pub(super) faults: Faults,
}

impl GroupContext {
    /// What has happened since the last call, in order.
    pub(super) fn take_events(&self) -> Vec<GroupEvent> {
        std::mem::take(&mut *self.events.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on every partition is given up at once: the loop that would act is over.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }
}

impl ClientContext for GroupContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        config::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.faults.observe(reason);
        config::client_error(&error, reason);
    }
}

impl ConsumerContext for GroupContext {
    /// librdkafka waits until the assignment is answered with `assign` or `unassign`, which need not happen in here.
    fn rebalance(&self, consumer: &BaseConsumer<Self>, code: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        if self.closing.load(Ordering::Acquire) {
            // Once the client is told to close it takes the first for an answer in every group; before, a cooperative group wants the second.
            if consumer.unassign().is_err()
                && let Err(error) = consumer.incremental_unassign(partitions)
            {
                tracing::warn!(%error, "leaving the group");
            }
            return;
        }
        let partitions = partitions.elements().iter().map(|p| p.partition()).collect();
        let event = if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            GroupEvent::Assigned(partitions)
        } else {
            GroupEvent::Revoked(partitions)
        };
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }

    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        // These offsets are for lag dashboards only; nothing is read from them.
        if let Err(error) = result {
            tracing::debug!(%error, "offsets for lag dashboards were not committed");
        }
    }
}
