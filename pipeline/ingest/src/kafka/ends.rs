//! Where the partitions end, asked once a second, and up to where their logs are known to be the ones that were read.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};
use starling_schemas::ids::{Generation, Offset, PartitionId};

use super::Reader;
use super::group::GroupContext;
use crate::IngestError;
use crate::events::{Event, Pulse, Thread, tell};
use crate::lane::{Progress, Workshop};

/// How often the partitions' ends are asked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A partition whose end is asked for, the generation under which it may be noted, and how far its lane is.
type Entry = (PartitionId, Generation, Arc<Progress>);

/// Partitions whose ends are asked for.
pub(super) type Watched = Arc<Mutex<Vec<Entry>>>;

/// Asks the brokers once a second for the partitions' ends and notes them, so that an idle partition is known to be idle. The ends come
/// fresh from the brokers: a cached end would make a partition look idle while its broker is away.
pub(super) struct EndWatcher {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
}

impl EndWatcher {
    pub(super) fn start(reader: &Reader) -> Result<Self, IngestError> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let consumer = Arc::clone(&reader.consumer);
        let watched = Arc::clone(&reader.watched);
        let workshop = reader.around.workshop.clone();
        let runtime = reader.around.runtime.clone();
        let thread = std::thread::Builder::new()
            .name("kafka-ends".into())
            .spawn(move || {
                let pulse = Pulse::start(&workshop.observer, Thread::Ends);
                while !stopping.load(Ordering::Acquire) {
                    pulse.turned();
                    let list = watched.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    look_once(&consumer, &list, &workshop, &runtime, &stopping);
                    std::thread::park_timeout(LOOK_EVERY);
                }
            })
            .map_err(|_| IngestError::Thread("could not be started"))?;
        Ok(Self { stop, thread })
    }

    pub(super) fn stop(self) {
        self.stop.store(true, Ordering::Release);
        self.thread.thread().unpark();
        if self.thread.join().is_err() {
            tracing::warn!("the thread that watches partitions' ends panicked");
        }
    }
}

fn look_once(
    consumer: &BaseConsumer<GroupContext>,
    watched: &[Entry],
    workshop: &Workshop,
    runtime: &tokio::runtime::Handle,
    stop: &AtomicBool,
) {
    if watched.is_empty() {
        return;
    }
    let mut list = TopicPartitionList::with_capacity(watched.len());
    for (id, ..) in watched {
        // As a timestamp, -1 asks for the end of the log.
        if list.add_partition_offset(&id.source, id.partition, KafkaOffset::End).is_err() {
            return;
        }
    }
    let ends = match consumer.offsets_for_times(list, Duration::from_secs(3)) {
        Ok(ends) => ends,
        Err(error) => return tracing::warn!(%error, "the partitions' ends could not be asked for"),
    };
    for element in ends.elements() {
        let found = watched.iter().find(|(id, ..)| id.partition == element.partition() && id.source == element.topic());
        let (Some((id, generation, progress)), Ok(()), KafkaOffset::Offset(end)) = (found, element.error(), element.offset())
        else {
            continue;
        };
        if stop.load(Ordering::Acquire) {
            return;
        }
        tell(workshop.observer.as_ref(), &Event::EndSeen { partition: id, end: Offset(end) });
        let committed = Some(progress.committed.load(Ordering::Acquire)).filter(|at| *at >= 0).map(Offset);
        let checkpoint = committed.and_then(|at| progress.epochs.lock().unwrap_or_else(PoisonError::into_inner).checkpoint(at));
        let noted = workshop.metastore.note_log(id, *generation, Offset(end), checkpoint, workshop.clock.now_ms());
        if let Err(error) = runtime.block_on(noted) {
            tracing::debug!(partition = %id, "the end was not noted: {error}");
        }
    }
}
