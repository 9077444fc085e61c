//! A lane: the task that takes one partition's ranges through plan → process → commit, as its [`Turn`] decides.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use starling_schemas::ids::PartitionId;
use starling_schemas::time::Clock;
use starling_store::{Metastore, Ownership, RangeOutcome, killpoint};
use tokio::sync::mpsc;

use crate::frames::Batch;
use crate::protocol::{Action, Fact, MAX_TRIES, Range, Refusal, Turn, Verdict};
use crate::{IngestError, RangeProcessor};

/// What every lane of a job shares.
#[derive(Clone)]
pub(crate) struct Workshop {
    pub(crate) metastore: Arc<Metastore>,
    pub(crate) processor: Arc<dyn RangeProcessor>,
    pub(crate) clock: Arc<dyn Clock>,
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
}

/// How a lane ended: the turn's verdict, and for the loud ones the error.
pub(crate) struct Ended {
    pub(crate) verdict: Verdict,
    pub(crate) error: Option<IngestError>,
}

/// Runs until the channel closes, it is told to stop, or the turn is over. `wake` is called whenever the lane can take another batch.
pub(crate) async fn run(
    workshop: Workshop,
    ownership: Ownership,
    mut batches: mpsc::Receiver<Batch>,
    progress: Arc<Progress>,
    wake: Arc<dyn Fn() + Send + Sync>,
) -> Ended {
    let partition = ownership.partition.clone();
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
                    Some(next) => {
                        wake();
                        let range = Range { from: next.from, to: next.to };
                        batch = Some(next);
                        Fact::Cut(range)
                    }
                    None => Fact::Stop,
                }
            }
            Action::Plan(range) => {
                let now_ms = workshop.clock.now_ms();
                match workshop.metastore.plan(&partition, turn.generation(), range.from, range.to, now_ms).await {
                    Ok(plan) => {
                        killpoint::reached("after_plan");
                        Fact::Planned(plan)
                    }
                    Err(source) => Fact::PlanRefused(refused(&partition, source, &mut error)),
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
                        tracing::warn!(%partition, from = plan.from.0, to = plan.to.0, attempt, "a range could not be processed: {source}");
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
                match workshop.metastore.commit(&plan, done, workshop.clock.now_ms()).await {
                    Ok(()) => {
                        killpoint::reached("after_commit");
                        Fact::Committed
                    }
                    Err(source) => Fact::CommitRefused(refused(&partition, source, &mut error)),
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
            progress.committed.store(turn.next_offset().map_or(-1, |o| o.0), Ordering::Release);
            progress.events.fetch_add(i64::try_from(events).unwrap_or(i64::MAX), Ordering::AcqRel);
            progress.ranges.fetch_add(1, Ordering::AcqRel);
        }
    }
}

/// Keeps the error for the case that the turn ends with it, and says what it means to the protocol.
fn refused(partition: &PartitionId, source: starling_store::StoreError, error: &mut Option<IngestError>) -> Refusal {
    let refusal = Refusal::from(&source);
    match refusal {
        Refusal::Fenced => tracing::info!(%partition, "fenced: another owner has this partition; the range in work is dropped"),
        Refusal::Unclear => tracing::warn!(%partition, "the metastore gave no clear answer: {source}"),
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
