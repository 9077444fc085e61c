//! Plan → process → commit, as two pure machines per partition (design 3.1).
//!
//! ```text
//!  messages ──► Cutter ──► ranges [from, to)                       no I/O, no time, no memory of payloads
//!                             │
//!            Fact ──► Turn ──► Action ──► the driver acts ──► Fact …
//!
//!  Reading ──Range──► Planning ──Planned──► Processing ──Processed──► Committing ──Committed──► Reading
//!                        │ Fenced, unclear      │ failed: again           │ unclear: ask again
//!                        ▼                      ▼                         ▼
//!                      Over(Fenced | Unclear | Failed | Breach)      a driver drops everything it holds
//!  Replaying ──Range = the open plan──► Processing
//! ```
//!
//! # Why it is exactly once
//!
//! The metastore keeps, per partition: generation, next offset, next sequence, and at most one open plan. It accepts a plan only from the
//! current generation, only at the next offset and only if none is open; it accepts a commit only of the open plan and from the current
//! generation. So committed ranges tile the partition whatever this side does. This side's part is to make the *content* of a range the
//! same each time: a plan that is open when ownership is taken is replayed as exactly its range, however it was cut before.
//!
//! An answer of the metastore may be lost after it acted. A lost answer to a commit is asked again: under an unmoved generation, "not the
//! open plan" then means that the first try went through, since nobody else could have committed it. A lost answer to a plan is not
//! guessed at: the turn ends as [`Verdict::Unclear`] and ownership is taken anew, which reads the open plan back. So does a turn that is told
//! that its plan is open already, or at the first try that it is not: a question that arrived twice is answered like that.
//!
//! One thing may change the content of a range between two attempts: a day that closes at its deadline while the range is in work. Its rows are
//! refused, its key is destroyed, and processed again its events are late. Privacy does not wait for them; they are counted all the same (I1).

use starling_schemas::ids::{Generation, Offset, Sequence};
use starling_store::{Ownership, Plan, StoreError};

use crate::BatchLimits;

pub mod continuity;
pub mod epochs;

pub use continuity::{Belief, Continuity, LogFault, judge_out_of_range};
pub use epochs::{Checkpoint, Epochs};

/// How often a range is processed, or a commit is asked for, before the turn ends.
pub const MAX_TRIES: u32 = 5;

/// A range of offsets that follows what was planned before: `from` inclusive, `to` exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// First offset.
    pub from: Offset,
    /// First offset after it.
    pub to: Offset,
}

/// What is to be done with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// It belongs to the range being filled.
    Take,
    /// The range being filled ends before it; the message begins the next one.
    TakeAfter(Range),
    /// It was read before and is dropped.
    Behind,
}

/// Cuts a partition into ranges. It sees offsets and sizes, nothing else.
///
/// Offsets missing from the log (compacted away, or a transaction's markers) belong to the range of the offset that follows them, or, at
/// the log's end, to the range that ends there.
#[derive(Debug, Clone)]
pub struct Cutter {
    limits: BatchLimits,
    /// Begin of the range being filled; `None` until the first offset of a never-read partition is seen.
    from: Option<Offset>,
    /// Lowest offset that was not seen yet.
    next: Option<Offset>,
    /// End of the open plan being replayed.
    replay_to: Option<Offset>,
    /// The log's end as last reported behind everything seen.
    end: Option<Offset>,
    events: usize,
    bytes: usize,
}

impl Cutter {
    /// Begins where the metastore says: at the open plan, at the next offset, or, if never read, at the log's beginning.
    #[must_use]
    pub fn new(ownership: &Ownership, limits: BatchLimits) -> Self {
        let (from, replay_to) = match &ownership.open_plan {
            Some(plan) => (Some(plan.from), Some(plan.to)),
            None => (ownership.next_offset, None),
        };
        Self { limits, from, next: from, replay_to, end: None, events: 0, bytes: 0 }
    }

    /// Where reading must go on. `None`: at the log's beginning.
    #[must_use]
    pub fn position(&self) -> Option<Offset> {
        self.next
    }

    /// Whether an open plan is being filled, which neither size nor time may cut.
    #[must_use]
    pub fn replaying(&self) -> bool {
        self.replay_to.is_some()
    }

    /// Whether the range being filled has no events.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events == 0
    }

    /// Shows the next message to it. `bytes`: payload size.
    pub fn offer(&mut self, offset: Offset, bytes: usize) -> Offer {
        if self.next.is_some_and(|next| offset < next) {
            return Offer::Behind;
        }
        let cut = match (self.replay_to, self.from) {
            (Some(to), Some(from)) if offset >= to => {
                self.next = Some(to);
                Some(Range { from, to })
            }
            (Some(_), _) => None,
            _ if self.events > 0 && (self.full() || self.bytes.saturating_add(bytes) > self.limits.max_bytes) => self.bounds(),
            _ => None,
        };
        if let Some(range) = cut {
            self.begin(range.to);
        }
        self.from.get_or_insert(offset);
        self.next = Some(Offset(offset.0.saturating_add(1)));
        self.events += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        cut.map_or(Offer::Take, Offer::TakeAfter)
    }

    /// Says that the log ends at `end` (exclusive) and that everything before it was offered. Returns the replayed range if that was all
    /// that it waited for.
    pub fn at_end(&mut self, end: Offset) -> Option<Range> {
        self.end = Some(end);
        match (self.replay_to, self.from) {
            (Some(to), Some(from)) if end >= to => {
                self.begin(to);
                Some(Range { from, to })
            }
            _ => None,
        }
    }

    /// Whether the range being filled has reached a limit.
    #[must_use]
    pub fn full(&self) -> bool {
        self.events >= self.limits.max_events.max(1) || self.bytes >= self.limits.max_bytes
    }

    /// Whether nothing but offsets without a message lie between what was seen and the log's end.
    #[must_use]
    pub fn only_markers_left(&self) -> bool {
        self.events == 0 && !self.replaying() && self.bounds().is_some()
    }

    /// Ends the range being filled: because it is full, or has waited long enough. `None` if there is nothing to cut, or an open plan is
    /// being filled.
    pub fn cut(&mut self) -> Option<Range> {
        if self.replaying() {
            return None;
        }
        let range = self.bounds()?;
        self.begin(range.to);
        Some(range)
    }

    /// The range being filled, up to what was seen, or up to the log's end where that is known to follow.
    fn bounds(&self) -> Option<Range> {
        let (from, next) = (self.from?, self.next?);
        let to = self.end.map_or(next, |end| end.max(next));
        (to > from).then_some(Range { from, to })
    }

    fn begin(&mut self, from: Offset) {
        self.from = Some(from);
        self.next = Some(self.next.map_or(from, |next| next.max(from)));
        self.replay_to = None;
        self.events = 0;
        self.bytes = 0;
    }
}

/// What the metastore's refusal means to the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Another owner has taken the partition.
    Fenced,
    /// No clear answer: it may have acted or not.
    Unclear,
    /// The range is not the open plan.
    NotTheOpenPlan,
    /// The range holds rows of a day that was closed at its deadline meanwhile.
    WindowClosed,
    /// Something that cannot be if the protocol was kept.
    Breach,
}

impl From<&StoreError> for Refusal {
    fn from(error: &StoreError) -> Self {
        match error {
            StoreError::Fenced => Self::Fenced,
            StoreError::NotTheOpenPlan => Self::NotTheOpenPlan,
            StoreError::WindowClosed => Self::WindowClosed,
            StoreError::Database { .. } | StoreError::File { .. } | StoreError::Object { .. } | StoreError::Cancelled => {
                Self::Unclear
            }
            // Only this owner plans under its generation: the question arrived twice, and this is the second answer.
            StoreError::PlanOpen => Self::Unclear,
            _ => Self::Breach,
        }
    }
}

/// Something that was observed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// The next range is complete.
    Cut(Range),
    /// The metastore holds this plan.
    Planned(Plan),
    /// The metastore refused to plan.
    PlanRefused(Refusal),
    /// What came of the range is durable.
    Processed,
    /// The range could not be processed.
    ProcessFailed,
    /// The metastore has committed the range.
    Committed,
    /// The metastore refused to commit.
    CommitRefused(Refusal),
    /// The partition is given up.
    Stop,
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Wait for the next range.
    Wait,
    /// Plan this range in the metastore.
    Plan(Range),
    /// Process the range of this plan; it is the `attempt`-th time, from 1.
    Process {
        /// The plan.
        plan: Plan,
        /// From 1 to [`MAX_TRIES`].
        attempt: u32,
    },
    /// Commit this plan with the outcome of its processing; it is the `attempt`-th time, from 1.
    Commit {
        /// The plan.
        plan: Plan,
        /// From 1 to [`MAX_TRIES`].
        attempt: u32,
    },
    /// Drop everything held of this partition.
    End(Verdict),
}

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It was told to stop.
    Stopped,
    /// Another owner has the partition.
    Fenced,
    /// The metastore gave no clear answer: take ownership anew, if the partition is still assigned.
    Unclear,
    /// The range could not be processed.
    Failed,
    /// The protocol was left: stop the job.
    Breach,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Reading,
    Replaying(Plan),
    Planning(Range),
    Processing {
        plan: Plan,
        attempt: u32,
    },
    /// `processed`: the attempt at processing that succeeded.
    Committing {
        plan: Plan,
        attempt: u32,
        processed: u32,
    },
    Over(Verdict),
}

/// One owner's turn with one partition, from taking ownership to losing it.
///
/// A commit is asked for only out of [`Action::Commit`], which only a held turn with a processed plan gives.
#[derive(Debug, Clone)]
pub struct Turn {
    generation: Generation,
    next_offset: Option<Offset>,
    next_sequence: Sequence,
    state: State,
}

impl Turn {
    /// Begins with what taking ownership returned.
    #[must_use]
    pub fn new(ownership: &Ownership) -> Self {
        let state = ownership.open_plan.clone().map_or(State::Reading, State::Replaying);
        Self {
            generation: ownership.generation,
            next_offset: ownership.next_offset,
            next_sequence: ownership.next_sequence,
            state,
        }
    }

    /// The generation under which it plans and commits.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// The offset after the last committed one; `None` if nothing was ever committed.
    #[must_use]
    pub fn next_offset(&self) -> Option<Offset> {
        self.next_offset
    }

    /// Takes in a fact and says what is to be done. A turn that is over stays over; a fact that does not answer what was asked is a
    /// breach, except that [`Fact::Stop`] may come at any time.
    pub fn observe(&mut self, fact: Fact) -> Action {
        let state = std::mem::replace(&mut self.state, State::Over(Verdict::Breach));
        self.state = match (state, fact) {
            (State::Over(verdict), _) => State::Over(verdict),
            (_, Fact::Stop) => State::Over(Verdict::Stopped),

            (State::Reading, Fact::Cut(range)) => {
                if range.to > range.from && self.next_offset.is_none_or(|next| next == range.from) {
                    State::Planning(range)
                } else {
                    State::Over(Verdict::Breach)
                }
            }
            (State::Replaying(plan), Fact::Cut(range)) => {
                if (plan.from, plan.to) == (range.from, range.to) {
                    State::Processing { plan, attempt: 1 }
                } else {
                    State::Over(Verdict::Breach)
                }
            }

            (State::Planning(range), Fact::Planned(plan)) => {
                let asked = (range.from, range.to, self.generation, self.next_sequence);
                if asked == (plan.from, plan.to, plan.generation, plan.sequence) {
                    State::Processing { plan, attempt: 1 }
                } else {
                    State::Over(Verdict::Breach)
                }
            }
            (State::Planning(_), Fact::PlanRefused(refusal)) => State::Over(match refusal {
                Refusal::Fenced => Verdict::Fenced,
                Refusal::Unclear => Verdict::Unclear,
                Refusal::NotTheOpenPlan | Refusal::WindowClosed | Refusal::Breach => Verdict::Breach,
            }),

            (State::Processing { plan, attempt }, Fact::Processed) => State::Committing { plan, attempt: 1, processed: attempt },
            (State::Processing { plan, attempt }, Fact::ProcessFailed) => {
                if attempt < MAX_TRIES {
                    State::Processing { plan, attempt: attempt + 1 }
                } else {
                    State::Over(Verdict::Failed)
                }
            }

            (State::Committing { plan, .. }, Fact::Committed) => self.advance(&plan),
            (State::Committing { plan, attempt, processed }, Fact::CommitRefused(refusal)) => match refusal {
                Refusal::Fenced => State::Over(Verdict::Fenced),
                Refusal::Unclear if attempt < MAX_TRIES => State::Committing { plan, attempt: attempt + 1, processed },
                Refusal::Unclear => State::Over(Verdict::Unclear),
                // A deadline closed the day, and its key is destroyed, or will be in a moment: then the day's events are late.
                Refusal::WindowClosed if processed < MAX_TRIES => State::Processing { plan, attempt: processed + 1 },
                Refusal::WindowClosed => State::Over(Verdict::Failed),
                // An earlier, unanswered try went through: nobody else can commit under this generation.
                Refusal::NotTheOpenPlan if attempt > 1 => self.advance(&plan),
                // It should be the open plan. Perhaps the question arrived twice, and this is the second answer: taking anew tells.
                Refusal::NotTheOpenPlan => State::Over(Verdict::Unclear),
                Refusal::Breach => State::Over(Verdict::Breach),
            },
            _ => State::Over(Verdict::Breach),
        };
        self.action()
    }

    fn advance(&mut self, plan: &Plan) -> State {
        self.next_offset = Some(plan.to);
        self.next_sequence = Sequence(plan.sequence.0.saturating_add(1));
        State::Reading
    }

    fn action(&self) -> Action {
        match &self.state {
            State::Reading | State::Replaying(_) => Action::Wait,
            State::Planning(range) => Action::Plan(*range),
            State::Processing { plan, attempt } => Action::Process { plan: plan.clone(), attempt: *attempt },
            State::Committing { plan, attempt, .. } => Action::Commit { plan: plan.clone(), attempt: *attempt },
            State::Over(verdict) => Action::End(*verdict),
        }
    }
}

#[cfg(test)]
mod model;

#[cfg(test)]
mod tests;
