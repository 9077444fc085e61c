//! One assigned partition on the reader's side: its queue, the range being filled, and its lane.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::error::RDKafkaErrorCode;
use starling_schemas::ids::{Generation, Offset, PartitionId};
use starling_store::Ownership;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::JoinHandle;

use super::group::GroupContext;
use super::identity::Freshness;
use crate::BatchLimits;
use crate::events::{Event, tell};
use crate::frames::{Batch, Frames, Pool};
use crate::lane::{self, Ended, Handed, Progress, Workshop};
use crate::native::{BatchQueue, Item};
use crate::protocol::{Belief, Checkpoint, Continuity, Cutter, Offer, Range};
use crate::wire::event_bytes;

/// Calls to the queue for one partition before the next partition has its turn.
const ROUNDS: usize = 16;

/// How often a partition is tried to be sought to its checkpoint, a nap apart.
const MAX_TRIES: u32 = 100;

/// A lane and the way to it.
struct Lane {
    batches: mpsc::Sender<Handed>,
    task: JoinHandle<Ended>,
}

/// What every slot needs of the reader.
pub(super) struct Surroundings {
    pub(super) limits: BatchLimits,
    pub(super) pool: Arc<Pool>,
    pub(super) workshop: Workshop,
    pub(super) runtime: tokio::runtime::Handle,
    pub(super) wake: Arc<dyn Fn() + Send + Sync>,
    /// Whether the topic is still the one that was read before.
    pub(super) fresh: Freshness,
}

/// Why a partition cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The broker does not have the offset it was asked for; `truncated`: because its log was cut.
    OutOfRange { asked: Offset, truncated: bool },
    /// The log has been shorter than the open plan for too long.
    Short,
    /// Something beyond the wanted position came first: see [`Continuity`].
    ReadAgain,
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
    /// How often in a row "out of range" was answered by reading again.
    pub(super) rereads: u32,
    queue: BatchQueue<GroupContext>,
    cutter: Cutter,
    continuity: Continuity,
    filling: Frames,
    opened: Option<Instant>,
    ready: VecDeque<Batch>,
    lane: Option<Lane>,
    /// Of the present lane, or of the last one.
    progress: Arc<Progress>,
    /// Since when the log has been shorter than the open plan.
    short_since: Option<Instant>,
    /// Time spent reading since a range was last handed over.
    reading: Duration,
    /// Where the log must be asked, by epoch, whether it is still the one that was read, before anything is taken.
    unproven: Option<Checkpoint>,
    /// How often that could not be asked.
    tries: u32,
}

impl Slot {
    /// A slot that reads from where `ownership` says; the caller positions the consumer at [`Slot::position`].
    pub(super) fn new(
        ownership: &Ownership,
        checkpoint: Option<Checkpoint>,
        queue: BatchQueue<GroupContext>,
        around: &Surroundings,
    ) -> Self {
        Self {
            id: ownership.partition.clone(),
            generation: ownership.generation,
            retry_at: None,
            strikes: 0,
            told: -1,
            rereads: 0,
            queue,
            cutter: Cutter::new(ownership, around.limits),
            continuity: Continuity::default(),
            filling: around.pool.lend(),
            opened: None,
            ready: VecDeque::new(),
            lane: None,
            progress: Arc::default(),
            short_since: None,
            reading: Duration::ZERO,
            // Beyond what was committed it would say nothing.
            unproven: checkpoint.filter(|(at, _)| ownership.next_offset.is_some_and(|next| *at <= next)),
            tries: 0,
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
        let fresh = around.fresh.clone();
        let task = around.runtime.spawn(lane::run(around.workshop.clone(), ownership.clone(), receiver, fresh, progress, wake));
        self.lane = Some(Lane { batches, task });
    }

    /// Begins anew under a new ownership, on the same queue; the caller seeks to [`Slot::position`].
    pub(super) fn begin_again(&mut self, ownership: &Ownership, around: &Surroundings) {
        self.generation = ownership.generation;
        self.retry_at = None;
        self.drop_everything();
        self.cutter = Cutter::new(ownership, around.limits);
        self.continuity.interrupted();
        self.start_lane(ownership, around);
    }

    /// The client may have lost its place in this partition: what it hands out next is compared with what is wanted.
    pub(super) fn interrupted(&mut self) {
        self.continuity.interrupted();
    }

    /// The wanted position was sought because of [`Trouble::ReadAgain`].
    pub(super) fn sought(&mut self) {
        self.continuity.sought();
    }

    /// Where, and under which leader epoch, the client must be sought before anything is taken.
    pub(super) fn unproven(&self) -> Option<Checkpoint> {
        self.unproven
    }

    /// It was sought there, or (`false`) could not be yet. A partition that never begins has an error waiting in its queue: then it goes unproven.
    pub(super) fn proving(&mut self, sought: bool) {
        self.tries += 1;
        if !sought && self.tries >= MAX_TRIES {
            tracing::warn!(partition = %self.id, "the log could not be asked whether it is still the one that was read");
        }
        if sought || self.tries >= MAX_TRIES {
            self.unproven = None;
            self.tries = 0;
        }
    }

    /// Leader epoch of the message before the position, if it was read.
    pub(super) fn epoch(&self) -> Option<i32> {
        self.progress.epochs.lock().unwrap_or_else(PoisonError::into_inner).before(self.position()?)
    }

    /// What the lane tells, for whoever notes it.
    pub(super) fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
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
            let begun = Instant::now();
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
            if read > 0 {
                self.reading += begun.elapsed();
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
        self.hand_over(around);
        Ok(read)
    }

    fn drain(&mut self, around: &Surroundings, now: Instant) -> Result<usize, Trouble> {
        let Self { id, queue, cutter, continuity, filling, opened, ready, short_since, rereads, .. } = self;
        let pool = &around.pool;
        let mut trouble = None;
        let mut cut = |range: Range, filling: &mut Frames, opened: &mut Option<Instant>| {
            *opened = None;
            ready.push_back(Batch::new(range.from, range.to, std::mem::replace(filling, pool.lend()), pool));
        };
        let mut doubted = false;
        // `true`: go on with it. The place is compared only until it was found right.
        let mut follows = |cutter: &Cutter, offset: i64| {
            let believed = continuity.is_proven() || continuity.see(cutter.position(), Offset(offset)) == Belief::Believed;
            doubted |= !believed;
            believed
        };
        let drained = queue.drain(|item| match item {
            Item::Message { offset, .. } | Item::End { offset } if !follows(cutter, offset) => {}
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
                *rereads = 0;
                filling.push(Offset(offset), frame);
            }
            Item::End { offset } => {
                *rereads = 0;
                if let Some(range) = cutter.at_end(Offset(offset)) {
                    cut(range, filling, opened);
                    *short_since = None;
                } else if cutter.replaying() {
                    short_since.get_or_insert(now);
                }
            }
            Item::OutOfRange { asked, reason, truncated } => {
                tracing::warn!(partition = %id, "{reason}");
                trouble = Some(Trouble::OutOfRange { asked: Offset(asked), truncated });
            }
            Item::Failed(code) => trouble = Some(Trouble::Failed(code)),
        });
        if let Some((offset, epoch)) = drained.last.filter(|_| !doubted) {
            self.progress.epochs.lock().unwrap_or_else(PoisonError::into_inner).saw(Offset(offset), epoch);
        }
        match trouble {
            Some(trouble) => Err(trouble),
            None if doubted => Err(Trouble::ReadAgain),
            None => Ok(drained.count),
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

    fn hand_over(&mut self, around: &Surroundings) {
        let Some(lane) = &self.lane else { return };
        while let Some(batch) = self.ready.pop_front() {
            match lane.batches.try_send((batch, Instant::now())) {
                Ok(()) => {
                    let took = std::mem::take(&mut self.reading);
                    tell(around.workshop.observer.as_ref(), &Event::Read { took });
                    around.fresh.ask();
                }
                Err(TrySendError::Full((batch, _))) => {
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
