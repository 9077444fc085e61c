//! Is the topic still the one that was read before? (KIP-516)
//!
//! A topic that was deleted and made anew keeps its name, and its offsets begin at 0 again. Once it has grown past the position kept for the
//! old one, offsets alone cannot tell them apart, and librdkafka 2.12.1 reads on: when metadata brings another id it takes that over and
//! leaves the fetch position as it is (`rd_kafka_topic_metadata_update`, "FIXME: an offset reset must be triggered").
//!
//! So the id is kept in the metastore, and **no range is planned before the id was asked for again after the range was read**. An id never comes
//! back, so if it is still the kept one, every message of the range was of the kept topic. A thread of its own asks: at once when a
//! range waits, and otherwise once a second. One answer serves all partitions, and is asked for while the range before is still in work.
//!
//! ```text
//!   slot ──range, handed over at t──► lane ── waits for Since(≥ t) ──► plan → process → commit
//!     └──────── ask ──► this thread ── DescribeTopics ──► kept id the same?  Since(when asked) · another: stop, loudly
//! ```

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use starling_store::Metastore;
use tokio::sync::watch;

use super::group::GroupContext;
use crate::lane::Workshop;
use crate::{IngestError, native};

/// How often the id is asked for when nobody waits.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// After a question that was not answered.
const TRY_AGAIN: Duration = Duration::from_millis(200);
/// Patience with one question.
const TIMEOUT: Duration = Duration::from_secs(3);
/// How long a topic that was read before may be missing: brokers need a moment to agree on what there is.
const GONE_PATIENCE: Duration = Duration::from_secs(30);

/// Since when the topic is known to be the kept one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    NotYet,
    /// It was when this moment had passed.
    Since(Instant),
    /// The brokers give topics no ids: nothing can be known, and nothing is waited for.
    Unknowable,
    /// It is another one, or the job is over: nothing more is to be planned.
    Never,
}

/// What an answer of the brokers means.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Identity {
    Same,
    Unknowable,
    Recreated {
        kept: String,
        found: String,
    },
    /// Not there, or not there yet.
    Missing,
    /// No answer: it is asked again.
    Unanswered(RDKafkaErrorCode),
}

/// Compares what was found with what is kept. `kept` is `None` while the topic was never seen.
fn judge(kept: Option<&str>, found: Result<Option<String>, RDKafkaErrorCode>) -> Identity {
    match (found, kept) {
        (Ok(None), _) => Identity::Unknowable,
        (Ok(Some(found)), Some(kept)) if kept != found => Identity::Recreated { kept: kept.to_owned(), found },
        (Ok(Some(_)), _) => Identity::Same,
        (Err(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopicId), _) => Identity::Missing,
        (Err(code), _) => Identity::Unanswered(code),
    }
}

/// Lets a lane wait for the topic to be known.
#[derive(Clone)]
pub(crate) struct Freshness {
    known: watch::Receiver<Known>,
    wanted: Arc<Wanted>,
}

struct Wanted {
    asked: AtomicBool,
    thread: std::thread::Thread,
}

impl Freshness {
    /// For a source that has no topic: nothing is waited for.
    pub(crate) fn of_a_file() -> Self {
        let wanted = Wanted { asked: AtomicBool::new(false), thread: std::thread::current() };
        Self { known: watch::channel(Known::Unknowable).1, wanted: Arc::new(wanted) }
    }

    /// Has the id asked for soon.
    pub(crate) fn ask(&self) {
        self.wanted.asked.store(true, Ordering::Release);
        self.wanted.thread.unpark();
    }

    /// Waits until the topic is known to have been the kept one after `read_at`. `false`: it is not, or the job is over.
    pub(crate) async fn confirmed_since(&mut self, read_at: Instant) -> bool {
        let wanted = Arc::clone(&self.wanted);
        let known = self.known.wait_for(|known| match known {
            Known::Since(at) if *at < read_at => {
                // The question under way was asked too early for this range.
                wanted.asked.store(true, Ordering::Release);
                wanted.thread.unpark();
                false
            }
            Known::NotYet => false,
            Known::Since(_) | Known::Unknowable | Known::Never => true,
        });
        known.await.is_ok_and(|known| *known != Known::Never)
    }
}

/// The thread that asks.
pub(super) struct TopicWatch {
    freshness: Freshness,
    stop: Arc<AtomicBool>,
    fault: Arc<Mutex<Option<IngestError>>>,
    thread: std::thread::JoinHandle<()>,
}

impl TopicWatch {
    pub(super) fn start(
        consumer: &Arc<BaseConsumer<GroupContext>>,
        topic: &str,
        workshop: &Workshop,
        runtime: &tokio::runtime::Handle,
        wake: Arc<dyn Fn() + Send + Sync>,
    ) -> Result<Self, IngestError> {
        let stop = Arc::new(AtomicBool::new(false));
        let fault = Arc::new(Mutex::new(None));
        let (known, receiver) = watch::channel(Known::NotYet);
        // The thread needs to know whether it was asked, and who asks needs its handle.
        let (hand, handed) = std::sync::mpsc::sync_channel::<Arc<Wanted>>(1);
        let asker = Asker {
            consumer: Arc::clone(consumer),
            topic: topic.to_owned(),
            workshop: workshop.clone(),
            runtime: runtime.clone(),
            stop: Arc::clone(&stop),
            fault: Arc::clone(&fault),
            known,
            wake,
        };
        let thread = std::thread::Builder::new()
            .name("kafka-topic".into())
            .spawn(move || {
                if let Ok(wanted) = handed.recv() {
                    asker.run(&wanted);
                }
            })
            .map_err(|_| IngestError::Thread("could not be started"))?;
        let wanted = Arc::new(Wanted { asked: AtomicBool::new(true), thread: thread.thread().clone() });
        let _ = hand.send(Arc::clone(&wanted));
        Ok(Self { freshness: Freshness { known: receiver, wanted }, stop, fault, thread })
    }

    pub(super) fn freshness(&self) -> Freshness {
        self.freshness.clone()
    }

    /// What was found to be wrong.
    pub(super) fn fault(&self) -> Option<IngestError> {
        // Without an answer every range would wait for ever.
        let over = self.thread.is_finished();
        let found = self.fault.lock().unwrap_or_else(PoisonError::into_inner).take();
        found.or_else(|| over.then_some(IngestError::Thread("panicked while watching the topic's id")))
    }

    /// Waits until the topic was looked at after now, at most for `patience`.
    pub(super) fn look_now(&self, runtime: &tokio::runtime::Handle, patience: Duration) {
        let mut freshness = self.freshness.clone();
        freshness.ask();
        let _ = runtime.block_on(async { tokio::time::timeout(patience, freshness.confirmed_since(Instant::now())).await });
    }

    /// Lanes that still wait give up.
    pub(super) fn stop(self) {
        self.stop.store(true, Ordering::Release);
        self.thread.thread().unpark();
        if self.thread.join().is_err() {
            tracing::warn!("the thread that watches the topic's id panicked");
        }
    }
}

struct Asker {
    consumer: Arc<BaseConsumer<GroupContext>>,
    topic: String,
    workshop: Workshop,
    runtime: tokio::runtime::Handle,
    stop: Arc<AtomicBool>,
    fault: Arc<Mutex<Option<IngestError>>>,
    known: watch::Sender<Known>,
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl Asker {
    fn run(self, wanted: &Wanted) {
        let mut missing_since = None;
        let mut kept: Option<String> = None;
        let mut brokers = VecDeque::new();
        while !self.stop.load(Ordering::Acquire) {
            wanted.asked.store(false, Ordering::Release);
            let asked_at = Instant::now();
            let found = self.find(&mut brokers);
            let identity = match self.keep(&mut kept, &found) {
                Ok(()) => judge(kept.as_deref(), found),
                Err(error) => {
                    tracing::warn!(topic = %self.topic, "the topic's id could not be compared: {error}");
                    Identity::Unanswered(RDKafkaErrorCode::NoError)
                }
            };
            if identity != Identity::Missing {
                missing_since = None;
            }
            let answered = match identity {
                Identity::Same => self.tell(Known::Since(asked_at)),
                Identity::Unknowable => self.tell(Known::Unknowable),
                Identity::Recreated { kept, found } => {
                    return self.end(IngestError::TopicRecreated { topic: self.topic.clone(), kept, found });
                }
                Identity::Missing => {
                    let since = *missing_since.get_or_insert_with(|| {
                        tracing::warn!(topic = %self.topic, "the topic is not there");
                        asked_at
                    });
                    match kept.take() {
                        Some(kept) if since.elapsed() >= GONE_PATIENCE => {
                            return self.end(IngestError::TopicGone { topic: self.topic.clone(), kept });
                        }
                        before => kept = before,
                    }
                    false
                }
                Identity::Unanswered(code) => {
                    // Another broker is asked next.
                    brokers.rotate_left(1.min(brokers.len()));
                    tracing::debug!(topic = %self.topic, %code, "the topic's id was not told; asking again");
                    false
                }
            };
            if !answered {
                std::thread::park_timeout(TRY_AGAIN);
            } else if !wanted.asked.load(Ordering::Acquire) {
                std::thread::park_timeout(LOOK_EVERY);
            }
        }
        self.known.send_replace(Known::Never);
    }

    /// Asks the first of `brokers`; fills them when there is none, and again when all have been tried.
    fn find(&self, brokers: &mut VecDeque<Option<i32>>) -> Result<Option<String>, RDKafkaErrorCode> {
        let Some(Some(broker)) = brokers.front().copied() else {
            let metadata = self.consumer.fetch_metadata(Some(&self.topic), TIMEOUT);
            let metadata = metadata.map_err(|error| error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail))?;
            let ids = metadata.brokers().iter().map(|broker| Some(broker.id()));
            // The end of a round: by then there may be other brokers.
            *brokers = ids.chain([None]).collect();
            return match brokers.front().copied().flatten() {
                Some(broker) => native::topic_id(self.consumer.client(), broker, &self.topic, TIMEOUT),
                None => Err(RDKafkaErrorCode::BrokerNotAvailable),
            };
        };
        native::topic_id(self.consumer.client(), broker, &self.topic, TIMEOUT)
    }

    /// Reads the kept id, once, or keeps the found one.
    fn keep(
        &self,
        kept: &mut Option<String>,
        found: &Result<Option<String>, RDKafkaErrorCode>,
    ) -> Result<(), starling_store::StoreError> {
        if kept.is_none() {
            let metastore: &Metastore = &self.workshop.metastore;
            *kept = match found {
                Ok(Some(id)) => {
                    let now_ms = self.workshop.clock.now_ms();
                    Some(self.runtime.block_on(metastore.keep_topic_id(&self.topic, id, now_ms))?)
                }
                _ => self.runtime.block_on(metastore.topic_ids())?.remove(&self.topic),
            };
        }
        Ok(())
    }

    fn tell(&self, known: Known) -> bool {
        self.known.send_replace(known);
        true
    }

    fn end(&self, fault: IngestError) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
        self.known.send_replace(Known::Never);
        (self.wake)();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_id_is_another_topic_and_no_id_says_nothing() {
        let id = |id: &str| Ok(Some(id.to_owned()));
        assert_eq!(judge(Some("a"), id("a")), Identity::Same);
        assert_eq!(judge(None, id("a")), Identity::Same);
        assert_eq!(judge(Some("a"), id("b")), Identity::Recreated { kept: "a".into(), found: "b".into() });
        assert_eq!(judge(Some("a"), Ok(None)), Identity::Unknowable);
        assert_eq!(judge(Some("a"), Err(RDKafkaErrorCode::UnknownTopicOrPartition)), Identity::Missing);
        let code = RDKafkaErrorCode::RequestTimedOut;
        assert_eq!(judge(Some("a"), Err(code)), Identity::Unanswered(code));
    }

    #[tokio::test]
    async fn a_range_waits_for_a_look_that_began_after_it_was_read() {
        let (tell, known) = watch::channel(Known::NotYet);
        let wanted = Arc::new(Wanted { asked: AtomicBool::new(false), thread: std::thread::current() });
        let mut freshness = Freshness { known, wanted: Arc::clone(&wanted) };
        let read_at = Instant::now();
        let before = read_at.checked_sub(Duration::from_millis(1)).expect("the clock runs");
        tell.send_replace(Known::Since(before));
        let waiting = tokio::time::timeout(Duration::from_millis(50), freshness.confirmed_since(read_at)).await;
        assert!(waiting.is_err(), "an older look is not enough");
        assert!(wanted.asked.load(Ordering::Acquire), "and a newer one is asked for");
        tell.send_replace(Known::Since(read_at));
        assert!(freshness.confirmed_since(read_at).await);
        tell.send_replace(Known::Unknowable);
        assert!(freshness.confirmed_since(Instant::now()).await);
        tell.send_replace(Known::Never);
        assert!(!freshness.confirmed_since(read_at).await);
        drop(tell);
        assert!(!freshness.confirmed_since(read_at).await);
    }
}
