//! What the group's changes do to the slots: partitions are taken, kept or released.
//!
//! In an eager group a change takes everything away and deals it out anew. In a cooperative group partitions come and go one by one, and
//! those that stay keep their slot, their lane and what is in work; why they are sought to their own position all the same stands
//! in `protocol/continuity.rs`.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};
use starling_schemas::ids::{Offset, PartitionId};
use starling_store::Ownership;

use super::group::{GroupContext, GroupEvent};
use super::slot::Slot;
use super::{MAX_STRIKES, Reader, taken};
use crate::IngestError;
use crate::config::Rebalancing;
use crate::events::{Event, Step, Thread, tell};
use crate::native::{self, BatchQueue};
use crate::protocol::{Checkpoint, Refusal};

/// How long a revoked partition's range may go on.
const REVOKE_PATIENCE: Duration = Duration::from_secs(5);
/// librdkafka's number for the log's beginning.
const BEGINNING: i64 = -2;
/// A seek is answered by the client itself, so this is for a machine that stands still.
const SEEK_PATIENCE: Duration = Duration::from_secs(10);

impl Reader {
    /// Does what a rebalance asks for, and answers it.
    pub(super) fn act_on(&mut self, event: &GroupEvent) -> Result<(), IngestError> {
        match (self.rebalancing, event) {
            (Rebalancing::Eager, GroupEvent::Assigned(partitions)) => {
                self.release(|_| true, REVOKE_PATIENCE);
                let list = self.take_all(partitions)?;
                self.consumer.assign(&list).map_err(|e| IngestError::kafka("assigning partitions", &e))
            }
            (Rebalancing::Eager, GroupEvent::Revoked(_)) => {
                self.release(|_| true, REVOKE_PATIENCE);
                self.consumer.unassign().map_err(|e| IngestError::kafka("giving partitions up", &e))
            }
            (Rebalancing::Cooperative, GroupEvent::Assigned(partitions)) => {
                self.release(|partition| partitions.contains(&partition), REVOKE_PATIENCE);
                self.keep_place();
                let list = self.take_all(partitions)?;
                self.consumer.incremental_assign(&list).map_err(|e| IngestError::kafka("assigning partitions", &e))
            }
            (Rebalancing::Cooperative, GroupEvent::Revoked(partitions)) => {
                self.release(|partition| partitions.contains(&partition), REVOKE_PATIENCE);
                self.keep_place();
                let list = self.list(partitions.iter().map(|partition| (*partition, KafkaOffset::Invalid)))?;
                self.consumer.incremental_unassign(&list).map_err(|e| IngestError::kafka("giving partitions up", &e))
            }
        }
    }

    /// Takes ownership of `partitions` and makes slots for them. Returns where the client is to begin.
    fn take_all(&mut self, partitions: &[i32]) -> Result<TopicPartitionList, IngestError> {
        let mut starts = Vec::with_capacity(partitions.len());
        for partition in partitions {
            let ownership = self.take(*partition)?;
            let checkpoint = self.checkpoint(&ownership)?;
            let slot = Slot::new(&ownership, checkpoint, self.split(*partition)?, &self.around);
            self.tell(&taken(&slot, &ownership, false));
            starts.push((*partition, kafka_offset(slot.position())));
            self.slots.insert(*partition, slot);
        }
        self.watch();
        self.list(starts)
    }

    fn split(&self, partition: i32) -> Result<BatchQueue<GroupContext>, IngestError> {
        let wake = std::sync::Arc::clone(&self.around.wake);
        BatchQueue::split(&self.consumer, &self.topic, partition, move || wake())
            .ok_or_else(|| IngestError::NoTopic { topic: self.topic.clone() })
    }

    fn list(&self, places: impl IntoIterator<Item = (i32, KafkaOffset)>) -> Result<TopicPartitionList, IngestError> {
        let mut list = TopicPartitionList::new();
        for (partition, at) in places {
            list.add_partition_offset(&self.topic, partition, at).map_err(|e| IngestError::kafka("naming partitions", &e))?;
        }
        Ok(list)
    }

    /// Seeks every partition that stays to its own position, while the client still has all of them paused for the rebalance.
    fn keep_place(&mut self) {
        for (partition, slot) in &mut self.slots {
            slot.interrupted();
            if let Err(error) = seek(&self.consumer, &self.topic, *partition, slot) {
                // It has not begun yet and will begin where it was assigned; should it not, the slot notices.
                tracing::debug!(partition = %slot.id, %error, "a partition that stays could not be sought");
            }
        }
    }

    /// Seeks one partition to its slot's position.
    pub(super) fn seek(&mut self, partition: i32) -> Result<(), IngestError> {
        let Some(slot) = self.slots.get_mut(&partition) else { return Ok(()) };
        if let Err(error) = seek(&self.consumer, &self.topic, partition, slot) {
            slot.strikes += 1;
            tracing::warn!(partition = %slot.id, %error, "seeking");
            if slot.strikes > MAX_STRIKES {
                return Err(IngestError::Kafka { during: "seeking", kind: error.to_string() });
            }
            return self.restart(partition);
        }
        slot.sought();
        Ok(())
    }

    /// Has the client begin a partition anew at its slot's position: after "out of range" it has stopped, and cannot be sought.
    pub(super) fn restart(&mut self, partition: i32) -> Result<(), IngestError> {
        if self.consumer.assignment_lost() {
            return Ok(());
        }
        let failed = |e| IngestError::kafka("beginning a partition anew", &e);
        if self.rebalancing == Rebalancing::Cooperative {
            let Some(at) = self.slots.get(&partition).map(|slot| kafka_offset(slot.position())) else { return Ok(()) };
            let one = self.list([(partition, at)])?;
            self.consumer.incremental_unassign(&one).map_err(failed)?;
            self.consumer.incremental_assign(&one).map_err(failed)?;
        } else {
            let all = self.list(self.slots.iter().map(|(partition, slot)| (*partition, kafka_offset(slot.position()))))?;
            self.consumer.assign(&all).map_err(failed)?;
            self.slots.values_mut().for_each(Slot::interrupted);
        }
        Ok(())
    }

    /// Stops the lanes of the partitions that `leaves` says, all at once, and forgets them.
    pub(super) fn release(&mut self, leaves: impl Fn(i32) -> bool, patience: Duration) {
        let deadline = Instant::now() + patience;
        let (mut leaving, staying) = std::mem::take(&mut self.slots).into_iter().partition(|(partition, _)| leaves(*partition));
        self.slots = staying;
        self.watch();
        leaving.values_mut().for_each(Slot::tell_to_stop);
        for slot in leaving.values_mut() {
            slot.wait_or_abandon(&self.around.runtime, deadline);
            tell(self.around.workshop.observer.as_ref(), &Event::Released { partition: &slot.id });
        }
        if !self.consumer.assignment_lost() {
            tell_offsets(&self.consumer, &self.topic, &mut leaving);
        }
    }

    /// Seeks partitions to their checkpoints where that is still to be done. Until then nothing of them is to be taken.
    pub(super) fn prove(&mut self) {
        for (partition, slot) in &mut self.slots {
            if let Some((Offset(at), epoch)) = slot.unproven() {
                let sought = native::seek(self.consumer.client(), &self.topic, *partition, at, epoch, SEEK_PATIENCE);
                slot.proving(sought.is_ok());
            }
        }
    }

    fn checkpoint(&self, ownership: &Ownership) -> Result<Option<Checkpoint>, IngestError> {
        let found = self.around.runtime.block_on(self.around.workshop.metastore.log_checkpoint(&ownership.partition));
        found.map_err(|source| IngestError::Metastore { partition: ownership.partition.clone(), source })
    }

    pub(super) fn take(&self, partition: i32) -> Result<Ownership, IngestError> {
        let id = PartitionId { source: self.topic.clone(), partition };
        let workshop = &self.around.workshop;
        let mut tries = 0;
        loop {
            // A metastore that is slow to answer is no stuck reader.
            self.tell(&Event::Turned(Thread::Reader));
            let now_ms = workshop.clock.now_ms();
            match self.around.runtime.block_on(workshop.metastore.take_ownership(&id, &self.owner, now_ms)) {
                Ok(ownership) => return Ok(ownership),
                Err(source) if Refusal::from(&source) == Refusal::Unclear && tries < MAX_STRIKES => {
                    tries += 1;
                    self.tell(&Event::Unclear { partition: &id, step: Step::Take, reason: &source });
                    std::thread::sleep(Duration::from_millis(200 << tries.min(4)));
                }
                Err(source) => return Err(IngestError::Metastore { partition: id, source }),
            }
        }
    }
}

/// Tells Kafka what is committed, for lag dashboards. Nothing is ever read from it.
pub(super) fn tell_offsets(
    consumer: &BaseConsumer<GroupContext>,
    topic: &str,
    slots: &mut std::collections::BTreeMap<i32, Slot>,
) {
    let mut list = TopicPartitionList::new();
    for (partition, slot) in slots {
        if let Some(at) = slot.committed().filter(|at| *at > slot.told)
            && list.add_partition_offset(topic, *partition, KafkaOffset::Offset(at)).is_ok()
        {
            slot.told = at;
        }
    }
    if list.count() > 0
        && let Err(error) = consumer.commit(&list, CommitMode::Async)
    {
        tracing::debug!(%error, "offsets for lag dashboards were not committed");
    }
}

/// Seeks to where the slot goes on, and has the log's epochs compared where the message before was read.
fn seek(
    consumer: &BaseConsumer<GroupContext>,
    topic: &str,
    partition: i32,
    slot: &Slot,
) -> Result<(), rdkafka::error::RDKafkaErrorCode> {
    let at = slot.position().map_or(BEGINNING, |Offset(offset)| offset);
    native::seek(consumer.client(), topic, partition, at, slot.epoch().unwrap_or(-1), SEEK_PATIENCE)
}

fn kafka_offset(position: Option<Offset>) -> KafkaOffset {
    position.map_or(KafkaOffset::Beginning, |offset| KafkaOffset::Offset(offset.0))
}
