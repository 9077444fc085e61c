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
//!
//! `assignment.rs` says what a rebalance does to the slots, `identity.rs` that no range is planned before its topic is known to be the one that
//! was read, `ends.rs` notes ends and checkpoints, `stop.rs` records why the job stopped.

mod assignment;
mod ends;
mod group;
pub(crate) mod identity;
mod slot;
mod stop;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use starling_schemas::ids::{Offset, PartitionId};
use starling_schemas::time::Clock;
use starling_store::{Metastore, Ownership};
use tokio::sync::{oneshot, watch};

use self::assignment::tell_offsets;
use self::ends::{EndWatcher, Watched};
use self::group::{GroupContext, GroupEvent};
use self::identity::TopicWatch;
use self::slot::{Slot, Surroundings, Trouble};
pub use self::stop::STOPPED;
use crate::config::{LoggedContext, Rebalancing};
use crate::events::{Event, Pulse, Thread, tell};
use crate::fault::Fault;
use crate::frames::Pool;
use crate::lane::Workshop;
use crate::protocol::{LogFault, Verdict, judge_out_of_range};
use crate::{BatchLimits, IngestError, RangeProcessor, config};

/// A fenced lane whose partition stays assigned takes it again after this long.
pub const RECLAIM_AFTER: Duration = Duration::from_secs(60);
/// How long ranges in work may go on at shutdown: what else ending takes fits into the promised ten seconds beside it.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(6);
/// How long the log may be shorter than an open plan: a new leader may need a moment to know its end.
const SHORT_LOG_PATIENCE: Duration = Duration::from_secs(30);
/// How often ownership may lead to nothing before the job stops.
const MAX_STRIKES: u32 = 5;
/// Batches in memory, of all partitions together, in multiples of `max_bytes`.
const BATCHES_IN_MEMORY: usize = 16;
/// How long the reader waits to hear how many partitions there are.
const METADATA_PATIENCE: Duration = Duration::from_secs(2);
/// As many partitions are assumed where that was not to be heard.
const PARTITIONS_UNKNOWN: usize = 128;
/// How often offsets are told to Kafka for lag dashboards.
const TELL_EVERY: Duration = Duration::from_secs(5);
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
/// Ranges in work at shutdown are finished if that takes less than 6 s; otherwise the next run replays them. Must be called within a
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
    let workshop = Workshop::new(metastore, processor, clock);
    let recorder = stop::Recorder::new(&source, &workshop);
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
    let ended = tokio::select! {
        ended = &mut answered => ended,
        () = told => {
            stop.0.store(true, Ordering::Release);
            answered.await
        }
    };
    let result = ended.unwrap_or(Err(IngestError::Thread("ended without an answer")));
    if let Err(error) = &result {
        recorder.record(error).await;
    }
    result
}

struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

struct Reader {
    topic: String,
    group: String,
    owner: String,
    rebalancing: Rebalancing,
    /// `partition.assignment.strategy` and `group.instance.id`, for errors.
    strategy: String,
    instance: String,
    consumer: Arc<BaseConsumer<GroupContext>>,
    around: Surroundings,
    slots: BTreeMap<i32, Slot>,
    budget: usize,
    watched: Watched,
    identity: TopicWatch,
}

/// How many partitions the topic has now, for dealing out memory. Where nobody answers quickly a number that is on the safe side: the group
/// is joined when the brokers are back.
fn partitions_at_start(client: &ClientConfig, topic: &str) -> usize {
    let asked = client.create_with_context::<_, BaseConsumer<LoggedContext>>(LoggedContext::default());
    let found = asked.and_then(|asked| asked.fetch_metadata(Some(topic), METADATA_PATIENCE));
    let found = found.ok().and_then(|metadata| metadata.topics().first().map(|topic| topic.partitions().len()));
    found.filter(|partitions| *partitions > 0).unwrap_or(PARTITIONS_UNKNOWN)
}

impl Reader {
    fn open(
        source: KafkaSource,
        limits: BatchLimits,
        workshop: Workshop,
        runtime: tokio::runtime::Handle,
    ) -> Result<Self, IngestError> {
        let mut client = config::consumer(&source.brokers, &source.group, &source.properties)?;
        let budget = limits.max_bytes.saturating_mul(BATCHES_IN_MEMORY).max(1);
        let partitions = partitions_at_start(&client, &source.topic);
        config::bound_prefetch(&mut client, &source.properties, budget, partitions);
        let rebalancing = config::rebalancing(&client)?;
        let setting = |key| client.get(key).unwrap_or_default().to_owned();
        let mut consumer: BaseConsumer<GroupContext> =
            client.create_with_context(GroupContext::default()).map_err(|e| IngestError::kafka("making a consumer", &e))?;
        let reader = std::thread::current();
        let wake: Arc<dyn Fn() + Send + Sync> = Arc::new(move || reader.unpark());
        let on_event = Arc::clone(&wake);
        consumer.set_nonempty_callback(move || on_event());
        consumer.subscribe(&[&source.topic]).map_err(|e| IngestError::kafka("subscribing", &e))?;
        let consumer = Arc::new(consumer);
        let identity = TopicWatch::start(&consumer, &source.topic, &workshop, &runtime, Arc::clone(&wake))?;
        let fresh = identity.freshness();
        Ok(Self {
            owner: format!("{}/{}", source.group, std::process::id()),
            rebalancing,
            strategy: setting(config::STRATEGY),
            instance: setting(config::INSTANCE),
            group: source.group,
            topic: source.topic,
            consumer,
            around: Surroundings { limits, pool: Pool::new(budget / 4), workshop, runtime, wake, fresh },
            identity,
            slots: BTreeMap::new(),
            budget,
            watched: Watched::default(),
        })
    }

    fn run(mut self, stop: &AtomicBool) -> Result<(), IngestError> {
        let watcher = EndWatcher::start(&self)?;
        let pulse = Pulse::start(&self.around.workshop.observer, Thread::Reader);
        let result = self.read_until(stop, &pulse);
        self.consumer.context().close();
        watcher.stop();
        // Ranges that wait may still be finished, unless something is wrong with the topic itself.
        self.release(|_| true, SHUTDOWN_PATIENCE);
        self.identity.stop();
        result
    }

    fn read_until(&mut self, stop: &AtomicBool, pulse: &Pulse) -> Result<(), IngestError> {
        let linger = Duration::from_millis(self.around.limits.linger_ms);
        let mut tell_at = Instant::now() + TELL_EVERY;
        while !stop.load(Ordering::Acquire) {
            pulse.turned();
            if let Some(fault) = self.identity.fault() {
                return Err(fault);
            }
            self.serve_group()?;
            self.prove();
            let now = Instant::now();
            let filling: usize = self.slots.values().map(Slot::filling_bytes).sum();
            let tight = self.around.pool.in_flight() + filling >= self.budget;
            let mut read = 0;
            let mut troubles = Vec::new();
            for (partition, slot) in self.slots.iter_mut().filter(|(_, slot)| slot.unproven().is_none()) {
                match slot.step(&self.around, tight, now) {
                    Ok(count) => read += count,
                    Err(trouble) => troubles.push((*partition, trouble)),
                }
                if slot.short_for(SHORT_LOG_PATIENCE, now) {
                    troubles.push((*partition, Trouble::Short));
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
                Some(Err(error)) => self.meet_group(&error)?,
            }
        }
        if let Some(fault) = self.consumer.context().faults.last() {
            return Err(IngestError::Refused(fault));
        }
        if let Some(slot) = stray.and_then(|partition| self.slots.get_mut(&partition)) {
            // It was on its way before the partition's queue was taken apart. Reading it here could break the order: read anew.
            tracing::warn!(partition = %slot.id, "a message came over the group's queue; the partition is read anew");
            slot.tell_to_stop();
        }
        for event in self.consumer.context().take_events() {
            self.act_on(&event)?;
            let assigned = matches!(event, GroupEvent::Assigned(_));
            self.tell(&Event::Rebalanced { partitions: self.slots.len(), assigned });
        }
        Ok(())
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
            tell(self.around.workshop.observer.as_ref(), &taken(slot, &ownership, true));
            self.seek(*partition)?;
        }
        if !again.is_empty() {
            self.watch();
        }
        Ok(())
    }

    /// Judges an error of the whole group or client.
    fn meet_group(&self, error: &KafkaError) -> Result<(), IngestError> {
        if let Some((code, _)) = self.consumer.client().fatal_error() {
            return Err(match code {
                RDKafkaErrorCode::FencedInstanceId => IngestError::InstanceFenced { instance: self.instance.clone() },
                code => IngestError::Kafka { during: "reading", kind: code.to_string() },
            });
        }
        if matches!(error, KafkaError::MessageConsumption(RDKafkaErrorCode::InconsistentGroupProtocol)) {
            return Err(IngestError::MixedGroup { group: self.group.clone(), strategy: self.strategy.clone() });
        }
        refuse_or_wait(error)
    }

    /// Judges an error of one partition.
    fn meet(&mut self, partition: i32, trouble: Trouble) -> Result<(), IngestError> {
        let Some(slot) = self.slots.get(&partition) else { return Ok(()) };
        let (wanted, rereads) = (slot.position(), slot.rereads);
        let (asked, truncated) = match trouble {
            Trouble::Failed(code) => return refuse_or_wait(&KafkaError::MessageConsumption(code)),
            Trouble::ReadAgain => {
                tracing::info!(partition = %slot.id, wanted = ?wanted.map(|o| o.0), "the client went on elsewhere; reading again from here");
                return self.seek(partition);
            }
            Trouble::OutOfRange { asked, truncated } => (Some(asked), truncated),
            Trouble::Short => (wanted, true),
        };
        // A topic that was made anew explains everything else, and wants another answer.
        self.identity.look_now(&self.around.runtime, Duration::from_secs(10));
        if let Some(fault) = self.identity.fault() {
            return Err(fault);
        }
        let ask = || self.consumer.fetch_watermarks(&self.topic, partition, Duration::from_secs(5)).ok();
        let ends = ask().or_else(ask).or_else(ask);
        let (low, high) = ends.unwrap_or((-1, -1));
        let id = PartitionId { source: self.topic.clone(), partition };
        let fault = judge_out_of_range(wanted, asked, ends.map(|(low, _)| low), truncated, rereads);
        let wanted = wanted.unwrap_or(Offset(0));
        match fault {
            LogFault::ReadAgain => {
                tracing::warn!(partition = %id, wanted = wanted.0, asked = ?asked.map(|o| o.0), low, high, "the client asked for another place");
                if let Some(slot) = self.slots.get_mut(&partition) {
                    slot.rereads += 1;
                }
                self.restart(partition)
            }
            LogFault::Gap => Err(IngestError::Gap { partition: id, wanted, low, high }),
            LogFault::Truncated => Err(IngestError::Truncated { partition: id, wanted, low, high }),
        }
    }

    fn tell(&self, event: &Event<'_>) {
        tell(self.around.workshop.observer.as_ref(), event);
    }

    fn watch(&self) {
        let list = self.slots.values().map(|slot| (slot.id.clone(), slot.generation, slot.progress())).collect();
        *self.watched.lock().unwrap_or_else(PoisonError::into_inner) = list;
    }
}

fn taken<'a>(slot: &'a Slot, ownership: &Ownership, anew: bool) -> Event<'a> {
    let replay = ownership.open_plan.is_some();
    Event::Taken { partition: &slot.id, generation: slot.generation, from: slot.position(), replay, anew }
}

/// What the client recovers from by itself is logged; what it cannot recover from ends the job.
pub(crate) fn refuse_or_wait(error: &KafkaError) -> Result<(), IngestError> {
    if let Some(fault) = error.rdkafka_error_code().and_then(Fault::denied) {
        return Err(IngestError::Refused(fault));
    }
    match error {
        KafkaError::MessageConsumptionFatal(_) => Err(IngestError::kafka("reading", error)),
        other => {
            tracing::warn!(error = %other, "Kafka: waiting for it to recover");
            Ok(())
        }
    }
}
