//! One assigned partition on the reader's side: its queue, the range being filled, and its lane.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rdkafka::error::RDKafkaErrorCode;
use starling_schemas::ids::{Generation, Offset, PartitionId};
use starling_store::Ownership;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::JoinHandle;

use super::group::GroupContext;
use crate::BatchLimits;
use crate::frames::{Batch, Frames, Pool};
use crate::lane::{self, Ended, Progress, Workshop};
use crate::native::{BatchQueue, Item};
use crate::protocol::{Cutter, Offer, Range};
use crate::wire::event_bytes;

/// Calls to the queue for one partition before the next partition has its turn.
const ROUNDS: usize = 16;

/// A lane and the way to it.
struct Lane {
    batches: mpsc::Sender<Batch>,
    task: JoinHandle<Ended>,
}

/// What every slot needs of the reader.
pub(super) struct Surroundings {
    pub(super) limits: BatchLimits,
    pub(super) pool: Arc<Pool>,
    pub(super) workshop: Workshop,
    pub(super) runtime: tokio::runtime::Handle,
    pub(super) wake: Arc<dyn Fn() + Send + Sync>,
}

/// Why a partition cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The broker does not have the wanted offset.
    OutOfRange { wanted: Option<Offset> },
    /// Another error of this partition.
    Failed(RDKafkaErrorCode),
}

/// An assigned partition.
pub(super) struct Slot {
    pub(super) id: PartitionId,
    pub(super) generation: Generation,
    /// When to take ownership anew, because the lane ended without a revocation.
    pub(super) retry_at: Option<Instant>,
    /// How often in a row ownership led to nothing.
    pub(super) strikes: u32,
    /// Last offset told to Kafka for lag dashboards.
    pub(super) told: i64,
    queue: BatchQueue<GroupContext>,
    cutter: Cutter,
    filling: Frames,
    opened: Option<Instant>,
    ready: VecDeque<Batch>,
    lane: Option<Lane>,
    /// Of the present lane, or of the last one.
    progress: Arc<Progress>,
    /// Since when the log has been shorter than the open plan.
    short_since: Option<Instant>,
}

impl Slot {
    /// A slot that reads from where `ownership` says; the caller positions the consumer at [`Slot::position`].
    pub(super) fn new(ownership: &Ownership, queue: BatchQueue<GroupContext>, around: &Surroundings) -> Self {
        Self {
            id: ownership.partition.clone(),
            generation: ownership.generation,
            retry_at: None,
            strikes: 0,
            told: -1,
            queue,
            cutter: Cutter::new(ownership, around.limits),
            filling: around.pool.lend(),
            opened: None,
            ready: VecDeque::new(),
            lane: None,
            progress: Arc::default(),
            short_since: None,
        }
        .with_lane(ownership, around)
    }

    fn with_lane(mut self, ownership: &Ownership, around: &Surroundings) -> Self {
        self.start_lane(ownership, around);
        self
    }

    fn start_lane(&mut self, ownership: &Ownership, around: &Surroundings) {
        // One batch waits here while another is in work; a third is being filled.
        let (batches, receiver) = mpsc::channel(1);
        self.progress = Arc::new(Progress::default());
        self.progress.committed.store(ownership.next_offset.map_or(-1, |o| o.0), Ordering::Release);
        let (progress, wake) = (Arc::clone(&self.progress), Arc::clone(&around.wake));
        let task = around.runtime.spawn(lane::run(around.workshop.clone(), ownership.clone(), receiver, progress, wake));
        self.lane = Some(Lane { batches, task });
    }

    /// Begins anew under a new ownership, on the same queue; the caller seeks to [`Slot::position`].
    pub(super) fn begin_again(&mut self, ownership: &Ownership, around: &Surroundings) {
        self.generation = ownership.generation;
        self.retry_at = None;
        self.drop_everything();
        self.cutter = Cutter::new(ownership, around.limits);
        self.start_lane(ownership, around);
    }

    /// Where reading must go on; `None`: at the log's beginning.
    pub(super) fn position(&self) -> Option<Offset> {
        self.cutter.position()
    }

    /// Bytes in the range being filled.
    pub(super) fn filling_bytes(&self) -> usize {
        self.filling.bytes()
    }

    /// Moves what the queue has into the range being filled, and ranges that are done towards the lane. With `tight` memory only an
    /// open plan is filled, and whatever else is being filled ends here. Returns how much was read.
    pub(super) fn step(&mut self, around: &Surroundings, tight: bool, now: Instant) -> Result<usize, Trouble> {
        let mut read = 0;
        if self.lane.is_some() && (!tight || self.cutter.replaying()) {
            for _ in 0..ROUNDS {
                if !self.ready.is_empty() {
                    break;
                }
                let got = self.drain(around, now)?;
                read += got;
                if got == 0 {
                    break;
                }
            }
        }
        let waited =
            self.opened.is_some_and(|opened| now.duration_since(opened) >= Duration::from_millis(around.limits.linger_ms));
        let has_room = self.lane.as_ref().is_some_and(|lane| lane.batches.capacity() > 0);
        let due = self.cutter.full() || tight || (has_room && (waited || self.cutter.only_markers_left()));
        if self.ready.is_empty()
            && due
            && let Some(range) = self.cutter.cut()
        {
            self.finish(range, &around.pool);
        }
        self.hand_over();
        Ok(read)
    }

    fn drain(&mut self, around: &Surroundings, now: Instant) -> Result<usize, Trouble> {
        let Self { id, queue, cutter, filling, opened, ready, short_since, .. } = self;
        let pool = &around.pool;
        let mut trouble = None;
        let mut cut = |range: Range, filling: &mut Frames, opened: &mut Option<Instant>| {
            *opened = None;
            ready.push_back(Batch::new(range.from, range.to, std::mem::replace(filling, pool.lend()), pool));
        };
        let got = queue.drain(|item| match item {
            Item::Message { offset, payload } => {
                let frame = event_bytes(payload);
                match cutter.offer(Offset(offset), frame.len()) {
                    Offer::Behind => return,
                    Offer::Take => {}
                    Offer::TakeAfter(range) => cut(range, filling, opened),
                }
                if opened.is_none() {
                    *opened = Some(now);
                }
                *short_since = None;
                filling.push(Offset(offset), frame);
            }
            Item::End { offset } => {
                if let Some(range) = cutter.at_end(Offset(offset)) {
                    cut(range, filling, opened);
                    *short_since = None;
                } else if cutter.replaying() {
                    short_since.get_or_insert(now);
                }
            }
            Item::OutOfRange { reason } => {
                tracing::warn!(partition = %id, "{reason}");
                trouble = Some(Trouble::OutOfRange { wanted: None });
            }
            Item::Failed(code) => trouble = Some(Trouble::Failed(code)),
        });
        match trouble {
            Some(Trouble::OutOfRange { .. }) => Err(Trouble::OutOfRange { wanted: self.cutter.position() }),
            Some(failed) => Err(failed),
            None => Ok(got),
        }
    }

    /// Whether the log has been shorter than the open plan for as long as this.
    pub(super) fn short_for(&self, patience: Duration, now: Instant) -> bool {
        self.short_since.is_some_and(|since| now.duration_since(since) >= patience)
    }

    fn finish(&mut self, range: Range, pool: &Arc<Pool>) {
        self.opened = None;
        let frames = std::mem::replace(&mut self.filling, pool.lend());
        self.ready.push_back(Batch::new(range.from, range.to, frames, pool));
    }

    fn hand_over(&mut self) {
        let Some(lane) = &self.lane else { return };
        while let Some(batch) = self.ready.pop_front() {
            match lane.batches.try_send(batch) {
                Ok(()) => {}
                Err(TrySendError::Full(batch)) => {
                    self.ready.push_front(batch);
                    return;
                }
                // The lane has ended; its verdict is read next.
                Err(TrySendError::Closed(_)) => return self.ready.clear(),
            }
        }
    }

    /// When this slot wants to be looked at again, if nothing comes.
    pub(super) fn due(&self, linger: Duration) -> Option<Instant> {
        match (self.retry_at, self.opened) {
            (Some(at), _) => Some(at),
            (None, Some(opened)) if self.ready.is_empty() => Some(opened + linger),
            _ => None,
        }
    }

    /// The lane's end, if it has ended by itself. The lane is gone then.
    pub(super) fn ended(&mut self, runtime: &tokio::runtime::Handle) -> Option<Option<Ended>> {
        if !self.lane.as_ref().is_some_and(|lane| lane.task.is_finished()) {
            return None;
        }
        let lane = self.lane.take()?;
        if self.progress.ranges.load(Ordering::Acquire) > 0 {
            self.strikes = 0;
        }
        self.drop_everything();
        Some(runtime.block_on(lane.task).ok())
    }

    /// Frees the memory of what was read and not handed over.
    fn drop_everything(&mut self) {
        self.filling = Frames::new();
        self.ready.clear();
        self.opened = None;
        self.short_since = None;
    }

    /// Offset after the last committed one, as far as the present or last lane knows.
    pub(super) fn committed(&self) -> Option<i64> {
        let at = self.progress.committed.load(Ordering::Acquire);
        (at >= 0).then_some(at)
    }

    /// Tells the lane to take up nothing more.
    pub(super) fn tell_to_stop(&mut self) {
        self.drop_everything();
        if let Some(lane) = &mut self.lane {
            self.progress.stopping.store(true, Ordering::Release);
            // Closes the channel.
            lane.batches = mpsc::channel(1).0;
        }
    }

    /// Waits until the lane has finished its range, at most until `deadline`; then abandons it. What was planned stays planned.
    pub(super) fn wait_or_abandon(&mut self, runtime: &tokio::runtime::Handle, deadline: Instant) {
        let Some(mut lane) = self.lane.take() else { return };
        let left = deadline.saturating_duration_since(Instant::now());
        let finished = runtime.block_on(async { tokio::time::timeout(left, &mut lane.task).await });
        if finished.is_err() {
            tracing::info!(partition = %self.id, "the range in work is abandoned; the next owner replays it");
            lane.task.abort();
        }
    }
}
