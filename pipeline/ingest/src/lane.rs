//! A lane: the task that takes one partition's ranges through plan → process → commit, as its [`Turn`] decides.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use starling_schemas::ids::PartitionId;
use starling_schemas::time::Clock;
use starling_store::{Metastore, Ownership, Plan, RangeOutcome, killpoint};
use tokio::sync::mpsc;

use crate::events::{Event, Observer, Step, tell};
use crate::frames::Batch;
use crate::kafka::identity::Freshness;
use crate::protocol::{Action, Epochs, Fact, MAX_TRIES, Range, Refusal, Turn, Verdict};
use crate::{IngestError, RangeProcessor};

/// What every lane of a job shares.
#[derive(Clone)]
pub(crate) struct Workshop {
    pub(crate) metastore: Arc<Metastore>,
    pub(crate) processor: Arc<dyn RangeProcessor>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) observer: Arc<dyn Observer>,
}

impl Workshop {
    pub(crate) fn new(metastore: Arc<Metastore>, processor: Arc<dyn RangeProcessor>, clock: Arc<dyn Clock>) -> Self {
        let observer = processor.observer();
        Self { metastore, processor, clock, observer }
    }
}

/// What a lane tells while it works.
#[derive(Default)]
pub(crate) struct Progress {
    /// Tells it to take up no further range.
    pub(crate) stopping: AtomicBool,
    /// Offset after the last committed one, or -1.
    pub(crate) committed: AtomicI64,
    /// Ranges committed.
    pub(crate) ranges: AtomicI64,
    /// Events committed.
    pub(crate) events: AtomicI64,
    /// Leader epochs of what was read.
    pub(crate) epochs: Mutex<Epochs>,
}

/// A range, and a moment by which all of it had been read.
pub(crate) type Handed = (Batch, Instant);

/// How a lane ended: the turn's verdict, and for the loud ones the error.
pub(crate) struct Ended {
    pub(crate) verdict: Verdict,
    pub(crate) error: Option<IngestError>,
}

/// Runs until the channel closes, it is told to stop, or the turn is over. `wake` is called whenever the lane can take another batch.
pub(crate) async fn run(
    workshop: Workshop,
    ownership: Ownership,
    mut batches: mpsc::Receiver<Handed>,
    mut fresh: Freshness,
    progress: Arc<Progress>,
    wake: Arc<dyn Fn() + Send + Sync>,
) -> Ended {
    let partition = ownership.partition.clone();
    let observer = Arc::clone(&workshop.observer);
    let mut taken_up = Instant::now();
    // The plan that was last asked to be committed, and how long the answer took.
    let mut last: Option<(Plan, Duration)> = None;
    let mut turn = Turn::new(&ownership);
    let mut action = Action::Wait;
    let mut batch: Option<Batch> = None;
    let mut outcome: Option<RangeOutcome> = None;
    let mut error: Option<IngestError> = None;
    loop {
        let fact = match action {
            Action::Wait => {
                batch = None;
                outcome = None;
                match batches.recv().await {
                    Some(_) if progress.stopping.load(Ordering::Acquire) => Fact::Stop,
                    Some((next, read_at)) => {
                        wake();
                        if !fresh.confirmed_since(read_at).await {
                            action = turn.observe(Fact::Stop);
                            continue;
                        }
                        taken_up = Instant::now();
                        let range = Range { from: next.from, to: next.to };
                        batch = Some(next);
                        Fact::Cut(range)
                    }
                    None => Fact::Stop,
                }
            }
            Action::Plan(range) => {
                let (now_ms, begun) = (workshop.clock.now_ms(), Instant::now());
                match workshop.metastore.plan(&partition, turn.generation(), range.from, range.to, now_ms).await {
                    Ok(plan) => {
                        tell(observer.as_ref(), &Event::Planned { took: begun.elapsed() });
                        killpoint::reached("after_plan");
                        Fact::Planned(plan)
                    }
                    Err(source) => Fact::PlanRefused(refused(observer.as_ref(), &partition, Step::Plan, source, &mut error)),
                }
            }
            Action::Process { plan, attempt } => {
                pause_before(attempt).await;
                let frames = batch.as_ref().map(Batch::frames).unwrap_or_default();
                match workshop.processor.process(&plan, frames).await {
                    Ok(done) => {
                        killpoint::reached("after_process");
                        outcome = Some(done);
                        error = None;
                        Fact::Processed
                    }
                    Err(source) => {
                        tracing::debug!(%partition, from = plan.from.0, to = plan.to.0, attempt, "the range that could not be processed");
                        tell(observer.as_ref(), &Event::Unclear { partition: &partition, step: Step::Process, reason: &source });
                        error = Some(IngestError::Processing {
                            partition: partition.clone(),
                            from: plan.from,
                            to: plan.to,
                            tries: MAX_TRIES,
                            source,
                        });
                        Fact::ProcessFailed
                    }
                }
            }
            Action::Commit { plan, attempt } => {
                pause_before(attempt).await;
                let done = outcome.get_or_insert_default();
                let begun = Instant::now();
                let answer = workshop.metastore.commit(&plan, done, workshop.clock.now_ms()).await;
                last = Some((plan, begun.elapsed()));
                match answer {
                    Ok(()) => {
                        killpoint::reached("after_commit");
                        Fact::Committed
                    }
                    Err(source) => Fact::CommitRefused(refused(observer.as_ref(), &partition, Step::Commit, source, &mut error)),
                }
            }
            Action::End(verdict) => {
                if verdict == Verdict::Breach && error.is_none() {
                    error = Some(IngestError::Breach { partition, what: "a range did not fit the protocol" });
                }
                wake();
                return Ended { verdict, error };
            }
        };
        let committing = matches!(fact, Fact::Committed | Fact::CommitRefused(Refusal::NotTheOpenPlan));
        action = turn.observe(fact);
        if committing && action == Action::Wait {
            error = None;
            let events = outcome.as_ref().map_or(0, |o| o.events);
            if let (Some((plan, took)), Some(outcome)) = (&last, &outcome) {
                let (bytes, whole) = (batch.as_ref().map_or(0, Batch::bytes), taken_up.elapsed());
                tell(observer.as_ref(), &Event::Committed { plan, outcome, bytes, took: *took, whole });
            }
            progress.committed.store(turn.next_offset().map_or(-1, |o| o.0), Ordering::Release);
            progress.events.fetch_add(i64::try_from(events).unwrap_or(i64::MAX), Ordering::AcqRel);
            progress.ranges.fetch_add(1, Ordering::AcqRel);
        }
    }
}

/// Keeps the error for the case that the turn ends with it, and says what it means to the protocol.
fn refused(
    observer: &dyn Observer,
    partition: &PartitionId,
    step: Step,
    source: starling_store::StoreError,
    error: &mut Option<IngestError>,
) -> Refusal {
    let refusal = Refusal::from(&source);
    match refusal {
        Refusal::Fenced => tell(observer, &Event::Fenced { partition }),
        Refusal::Unclear => tell(observer, &Event::Unclear { partition, step, reason: &source }),
        Refusal::WindowClosed => {
            tracing::warn!(%partition, "a day closed at its deadline while a range was in work; it is processed again")
        }
        // An answer to a commit that was asked before; the turn decides.
        Refusal::NotTheOpenPlan => tracing::debug!(%partition, "the range is not the open plan"),
        Refusal::Breach => tracing::error!(%partition, "the metastore refused: {source}"),
    }
    *error = Some(IngestError::Metastore { partition: partition.clone(), source });
    refusal
}

/// 0 before the first attempt, then 0.2, 0.4, 0.8, 1.6 s.
async fn pause_before(attempt: u32) {
    if attempt > 1 {
        tokio::time::sleep(Duration::from_millis(100 << attempt.saturating_sub(1).min(6))).await;
    }
}
