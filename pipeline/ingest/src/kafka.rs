//! The Kafka side: a consumer group whose progress lives in the metastore.
//!
//! One thread reads. It polls the group's queue for events, drains each partition's own queue into arenas, cuts ranges and hands them to
//! lanes over channels that hold one. When a lane is busy and its next range is ready, its queue is left alone, and librdkafka stops
//! fetching it; when all lanes together hold too many bytes, every queue is left alone. The thread never waits for a lane, so that the
//! group's events are always served.
//!
//! Ownership follows the assignment: an assigned partition is taken in the metastore before it is read. Two cases end a lane although the
//! partition is still assigned. After an unclear answer of the metastore, ownership is taken anew after a second. After being fenced
//! nothing is done until the next assignment; should none come for [`RECLAIM_AFTER`] (a zombie took the partition and then died), it is
//! taken anew too. The consumer that is wrong about its assignment learns so within the session timeout, so this settles.

mod group;
mod slot;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};
use starling_schemas::ids::{Generation, Offset, PartitionId};
use starling_schemas::time::Clock;
use starling_store::{Metastore, Ownership};
use tokio::sync::{oneshot, watch};

use self::group::{GroupContext, GroupEvent};
use self::slot::{Slot, Surroundings, Trouble};
use crate::frames::Pool;
use crate::lane::Workshop;
use crate::native::BatchQueue;
use crate::protocol::{Refusal, Verdict};
use crate::{BatchLimits, IngestError, RangeProcessor, config};

/// A fenced lane whose partition stays assigned takes it again after this long.
pub const RECLAIM_AFTER: Duration = Duration::from_secs(60);
/// How long a revoked partition's range may go on.
const REVOKE_PATIENCE: Duration = Duration::from_secs(5);
/// How long ranges in work may go on at shutdown.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(10);
/// How long the log may be shorter than an open plan: a new leader may need a moment to know its end.
const SHORT_LOG_PATIENCE: Duration = Duration::from_secs(30);
/// How often ownership may lead to nothing before the job stops.
const MAX_STRIKES: u32 = 5;
/// Batches in memory, of all partitions together, in multiples of `max_bytes`.
const BATCHES_IN_MEMORY: usize = 16;
/// How often offsets are told to Kafka for lag dashboards.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// How often the partitions' ends are asked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Events of the group's queue served before the partitions have their turn.
const EVENTS_AT_ONCE: usize = 16;
/// Longest sleep of the reader. It is woken earlier when something comes.
const NAP: Duration = Duration::from_millis(50);

/// Where to read, and as whom.
#[derive(Clone)]
pub struct KafkaSource {
    /// `host:port`, comma-separated.
    pub brokers: String,
    /// Consumer group.
    pub group: String,
    /// The topic.
    pub topic: String,
    /// Further settings of librdkafka, such as credentials. They have no `Debug`.
    pub properties: BTreeMap<String, String>,
}

/// Reads `source` until `shutdown` turns true, and takes every range through plan → process → commit.
///
/// Ranges in work at shutdown are finished if that takes less than 10 s; otherwise the next run replays them. Must be called within a
/// Tokio runtime. Dropping the future stops the reader as well.
///
/// # Errors
/// [`IngestError::Gap`] when the log lost what comes next, [`IngestError::Processing`] when a range cannot be processed,
/// [`IngestError::Metastore`], [`IngestError::Refused`] and [`IngestError::Kafka`] when the metastore or the brokers do not work.
pub async fn run_kafka(
    source: KafkaSource,
    limits: BatchLimits,
    metastore: Arc<Metastore>,
    processor: Arc<dyn RangeProcessor>,
    clock: Arc<dyn Clock>,
    mut shutdown: watch::Receiver<bool>,
) -> Result<(), IngestError> {
    let runtime = tokio::runtime::Handle::current();
    let stop = StopOnDrop(Arc::new(AtomicBool::new(false)));
    let stopping = Arc::clone(&stop.0);
    let (answer, mut answered) = oneshot::channel();
    let workshop = Workshop { metastore, processor, clock };
    std::thread::Builder::new()
        .name("kafka-reader".into())
        .spawn(move || {
            let result = Reader::open(source, limits, workshop, runtime).and_then(|reader| reader.run(&stopping));
            let _ = answer.send(result);
        })
        .map_err(|_| IngestError::Thread("could not be started"))?;
    let told = async {
        if shutdown.wait_for(|stop| *stop).await.is_err() {
            // Nobody can ask for a shutdown any more.
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        result = &mut answered => return result.unwrap_or(Err(IngestError::Thread("ended without an answer"))),
        () = told => stop.0.store(true, Ordering::Release),
    }
    answered.await.unwrap_or(Err(IngestError::Thread("ended without an answer")))
}

struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Partitions whose ends are asked for, each with the generation under which it may be noted.
type Watched = Arc<Mutex<Vec<(PartitionId, Generation)>>>;

struct Reader {
    topic: String,
    owner: String,
    consumer: Arc<BaseConsumer<GroupContext>>,
    around: Surroundings,
    slots: BTreeMap<i32, Slot>,
    budget: usize,
    watched: Watched,
}

impl Reader {
    fn open(
        source: KafkaSource,
        limits: BatchLimits,
        workshop: Workshop,
        runtime: tokio::runtime::Handle,
    ) -> Result<Self, IngestError> {
        let client = config::consumer(&source.brokers, &source.group, &source.properties)?;
        let mut consumer: BaseConsumer<GroupContext> =
            client.create_with_context(GroupContext::default()).map_err(|e| IngestError::kafka("making a consumer", &e))?;
        let reader = std::thread::current();
        let wake: Arc<dyn Fn() + Send + Sync> = Arc::new(move || reader.unpark());
        let on_event = Arc::clone(&wake);
        consumer.set_nonempty_callback(move || on_event());
        consumer.subscribe(&[&source.topic]).map_err(|e| IngestError::kafka("subscribing", &e))?;
        let budget = limits.max_bytes.saturating_mul(BATCHES_IN_MEMORY).max(1);
        Ok(Self {
            owner: format!("{}/{}", source.group, std::process::id()),
            topic: source.topic,
            consumer: Arc::new(consumer),
            around: Surroundings { limits, pool: Pool::new(budget / 4), workshop, runtime, wake },
            slots: BTreeMap::new(),
            budget,
            watched: Watched::default(),
        })
    }

    fn run(mut self, stop: &AtomicBool) -> Result<(), IngestError> {
        let watcher = EndWatcher::start(&self)?;
        let result = self.read_until(stop);
        self.consumer.context().close();
        watcher.stop();
        self.release_all(SHUTDOWN_PATIENCE);
        result
    }

    fn read_until(&mut self, stop: &AtomicBool) -> Result<(), IngestError> {
        let linger = Duration::from_millis(self.around.limits.linger_ms);
        let mut tell_at = Instant::now() + TELL_EVERY;
        while !stop.load(Ordering::Acquire) {
            self.serve_group()?;
            let now = Instant::now();
            let filling: usize = self.slots.values().map(Slot::filling_bytes).sum();
            let tight = self.around.pool.in_flight() + filling >= self.budget;
            let mut read = 0;
            let mut troubles = Vec::new();
            for (partition, slot) in &mut self.slots {
                match slot.step(&self.around, tight, now) {
                    Ok(count) => read += count,
                    Err(trouble) => troubles.push((*partition, trouble)),
                }
                if slot.short_for(SHORT_LOG_PATIENCE, now) {
                    troubles.push((*partition, Trouble::OutOfRange { wanted: slot.position() }));
                }
            }
            for (partition, trouble) in troubles {
                self.meet(partition, trouble)?;
            }
            self.tend_lanes(now)?;
            if now >= tell_at {
                tell_offsets(&self.consumer, &self.topic, &mut self.slots);
                tell_at = now + TELL_EVERY;
            }
            if read == 0 {
                let due = self.slots.values().filter_map(|slot| slot.due(linger)).min();
                let nap = due.map_or(NAP, |at| at.saturating_duration_since(Instant::now()).min(NAP));
                std::thread::park_timeout(nap.max(Duration::from_millis(1)));
            }
        }
        Ok(())
    }

    /// Serves the group's queue: rebalances, errors, answers to commits. Partitions' messages do not come this way.
    fn serve_group(&mut self) -> Result<(), IngestError> {
        let mut stray = None;
        // One poll serves one event, a line of the library's log among them, and does not say whether there are more.
        for _ in 0..EVENTS_AT_ONCE {
            match self.consumer.poll(Duration::ZERO) {
                None | Some(Err(KafkaError::PartitionEOF(_))) => {}
                Some(Ok(message)) => stray = Some(rdkafka::Message::partition(&message)),
                Some(Err(error)) => refuse_or_wait(&error)?,
            }
        }
        if let Some(slot) = stray.and_then(|partition| self.slots.get_mut(&partition)) {
            // It was on its way before the partition's queue was taken apart. Reading it here could break the order: read anew.
            tracing::warn!(partition = %slot.id, "a message came over the group's queue; the partition is read anew");
            slot.tell_to_stop();
        }
        for event in self.consumer.context().take_events() {
            match event {
                GroupEvent::Assigned(partitions) => self.assign(&partitions)?,
                GroupEvent::Revoked => self.revoke()?,
            }
        }
        Ok(())
    }

    fn assign(&mut self, partitions: &[i32]) -> Result<(), IngestError> {
        self.release_all(REVOKE_PATIENCE);
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            let ownership = self.take(*partition)?;
            let wake = Arc::clone(&self.around.wake);
            let queue = BatchQueue::split(&self.consumer, &self.topic, *partition, move || wake())
                .ok_or_else(|| IngestError::NoTopic { topic: self.topic.clone() })?;
            let slot = Slot::new(&ownership, queue, &self.around);
            tracing::info!(partition = %slot.id, generation = slot.generation.0, from = ?slot.position().map(|o| o.0),
                replay = ownership.open_plan.is_some(), "partition taken");
            list.add_partition_offset(&self.topic, *partition, kafka_offset(slot.position()))
                .map_err(|e| IngestError::kafka("assigning partitions", &e))?;
            self.slots.insert(*partition, slot);
        }
        self.watch();
        self.consumer.assign(&list).map_err(|e| IngestError::kafka("assigning partitions", &e))
    }

    fn revoke(&mut self) -> Result<(), IngestError> {
        self.release_all(REVOKE_PATIENCE);
        self.consumer.unassign().map_err(|e| IngestError::kafka("giving partitions up", &e))
    }

    /// Stops all lanes at once and forgets them.
    fn release_all(&mut self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let mut leaving = std::mem::take(&mut self.slots);
        self.watch();
        leaving.values_mut().for_each(Slot::tell_to_stop);
        for slot in leaving.values_mut() {
            slot.wait_or_abandon(&self.around.runtime, deadline);
            tracing::info!(partition = %slot.id, "partition released");
        }
        if !self.consumer.assignment_lost() {
            tell_offsets(&self.consumer, &self.topic, &mut leaving);
        }
    }

    fn take(&self, partition: i32) -> Result<Ownership, IngestError> {
        let id = PartitionId { source: self.topic.clone(), partition };
        let workshop = &self.around.workshop;
        let mut tries = 0;
        loop {
            let now_ms = workshop.clock.now_ms();
            match self.around.runtime.block_on(workshop.metastore.take_ownership(&id, &self.owner, now_ms)) {
                Ok(ownership) => return Ok(ownership),
                Err(source) if Refusal::from(&source) == Refusal::Unclear && tries < MAX_STRIKES => {
                    tries += 1;
                    tracing::warn!(partition = %id, "taking ownership: {source}");
                    std::thread::sleep(Duration::from_millis(200 << tries.min(4)));
                }
                Err(source) => return Err(IngestError::Metastore { partition: id, source }),
            }
        }
    }

    /// Acts on lanes that ended by themselves, and takes ownership anew where it is time.
    fn tend_lanes(&mut self, now: Instant) -> Result<(), IngestError> {
        let mut again = Vec::new();
        for (partition, slot) in &mut self.slots {
            if let Some(ended) = slot.ended(&self.around.runtime) {
                let Some(ended) = ended else { return Err(IngestError::Thread("panicked while processing a range")) };
                match ended.verdict {
                    Verdict::Fenced => slot.retry_at = Some(now + RECLAIM_AFTER),
                    Verdict::Stopped => slot.retry_at = Some(now),
                    Verdict::Unclear => {
                        slot.strikes += 1;
                        if slot.strikes > MAX_STRIKES {
                            return Err(ended.error.unwrap_or(IngestError::Thread("ended without a reason")));
                        }
                        slot.retry_at = Some(now + Duration::from_secs(1));
                    }
                    Verdict::Failed | Verdict::Breach => {
                        return Err(ended.error.unwrap_or(IngestError::Thread("ended without a reason")));
                    }
                }
            }
            if slot.retry_at.is_some_and(|at| now >= at) {
                again.push(*partition);
            }
        }
        for partition in &again {
            if self.consumer.assignment_lost() {
                continue;
            }
            let ownership = self.take(*partition)?;
            let Some(slot) = self.slots.get_mut(partition) else { continue };
            slot.begin_again(&ownership, &self.around);
            let at = kafka_offset(slot.position());
            tracing::info!(partition = %slot.id, generation = slot.generation.0, "partition taken anew");
            if let Err(error) = self.consumer.seek(&self.topic, *partition, at, Duration::from_secs(10)) {
                slot.tell_to_stop();
                slot.strikes += 1;
                if slot.strikes > MAX_STRIKES {
                    return Err(IngestError::kafka("seeking", &error));
                }
            }
        }
        if !again.is_empty() {
            self.watch();
        }
        Ok(())
    }

    fn meet(&self, partition: i32, trouble: Trouble) -> Result<(), IngestError> {
        match trouble {
            Trouble::Failed(code) => refuse_or_wait(&KafkaError::MessageConsumption(code)),
            Trouble::OutOfRange { wanted } => {
                let ends = self.consumer.fetch_watermarks(&self.topic, partition, Duration::from_secs(10));
                let (low, high) = ends.unwrap_or((-1, -1));
                let id = PartitionId { source: self.topic.clone(), partition };
                let wanted = wanted.unwrap_or(Offset(0));
                tracing::error!(partition = %id, wanted = wanted.0, low, high, "the log does not hold what comes next");
                Err(IngestError::Gap { partition: id, wanted, low, high })
            }
        }
    }

    fn watch(&self) {
        let list = self.slots.values().map(|slot| (slot.id.clone(), slot.generation)).collect();
        *self.watched.lock().unwrap_or_else(PoisonError::into_inner) = list;
    }
}

/// Tells Kafka what is committed, for lag dashboards. Nothing is ever read from it.
fn tell_offsets(consumer: &BaseConsumer<GroupContext>, topic: &str, slots: &mut BTreeMap<i32, Slot>) {
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

fn kafka_offset(position: Option<Offset>) -> KafkaOffset {
    position.map_or(KafkaOffset::Beginning, |offset| KafkaOffset::Offset(offset.0))
}

/// What the client recovers from by itself is logged; what it cannot recover from ends the job.
pub(crate) fn refuse_or_wait(error: &KafkaError) -> Result<(), IngestError> {
    match error {
        KafkaError::MessageConsumptionFatal(_) => Err(IngestError::kafka("reading", error)),
        KafkaError::MessageConsumption(
            code @ (RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
            | RDKafkaErrorCode::SaslAuthenticationFailed
            | RDKafkaErrorCode::Authentication),
        ) => Err(IngestError::Refused { code: code.to_string() }),
        other => {
            tracing::warn!(error = %other, "Kafka: waiting for it to recover");
            Ok(())
        }
    }
}

/// Asks the brokers once a second for the partitions' ends and notes them, so that an idle partition is known to be idle. The ends come
/// fresh from the brokers: a cached end would make a partition look idle while its broker is away.
struct EndWatcher {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
}

impl EndWatcher {
    fn start(reader: &Reader) -> Result<Self, IngestError> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let consumer = Arc::clone(&reader.consumer);
        let watched = Arc::clone(&reader.watched);
        let workshop = reader.around.workshop.clone();
        let runtime = reader.around.runtime.clone();
        let thread = std::thread::Builder::new()
            .name("kafka-ends".into())
            .spawn(move || {
                while !stopping.load(Ordering::Acquire) {
                    let list = watched.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    look_once(&consumer, &list, &workshop, &runtime, &stopping);
                    std::thread::park_timeout(LOOK_EVERY);
                }
            })
            .map_err(|_| IngestError::Thread("could not be started"))?;
        Ok(Self { stop, thread })
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Release);
        self.thread.thread().unpark();
        if self.thread.join().is_err() {
            tracing::warn!("the thread that watches partitions' ends panicked");
        }
    }
}

fn look_once(
    consumer: &BaseConsumer<GroupContext>,
    watched: &[(PartitionId, Generation)],
    workshop: &Workshop,
    runtime: &tokio::runtime::Handle,
    stop: &AtomicBool,
) {
    if watched.is_empty() {
        return;
    }
    let mut list = TopicPartitionList::with_capacity(watched.len());
    for (id, _) in watched {
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
        let found = watched.iter().find(|(id, _)| id.partition == element.partition() && id.source == element.topic());
        let (Some((id, generation)), Ok(()), KafkaOffset::Offset(end)) = (found, element.error(), element.offset()) else {
            continue;
        };
        if stop.load(Ordering::Acquire) {
            return;
        }
        let noted = workshop.metastore.note_position(id, *generation, Offset(end), workshop.clock.now_ms());
        if let Err(error) = runtime.block_on(noted) {
            tracing::debug!(partition = %id, "the end was not noted: {error}");
        }
    }
}
