//! Plan and commit as a state machine (design 3.1), without I/O.
//!
//! ```text
//!            take                     plan                        commit
//!   (none) ───────► owned, no plan ─────────► owned, plan open ───────────► owned, no plan, sequence + 1
//!                     ▲    │ take                │ take
//!                     └────┘ generation + 1      └─► the same plan under the new generation: processed again, to the same bytes
//! ```
//!
//! `restart`, an operator's word after a loss, leads from both states to "owned by nobody, no plan", at another offset and under a new
//! generation.
//!
//! It is public because it is the specification: the transactions of `progress.rs` call it, and tests drive it beside the real databases.
//!
//! An owner whose generation is not the row's may do nothing. A plan can be committed once: afterwards it is not the open one.

use starling_schemas::ids::{EpochId, Generation, Offset, PartitionId, Sequence};

use super::types::{Ownership, Plan, RangeOutcome};
use crate::error::StoreError;

/// The part of an open plan that outlives its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedRange {
    /// First offset.
    pub from: Offset,
    /// First offset after the range.
    pub to: Offset,
    /// Events of this day and all days before it are late.
    pub closed_through: Option<EpochId>,
    /// Who was there is kept for the hours after this one. `None`: for none.
    pub hours_after: Option<EpochId>,
    /// The version of the operator's lists that profiles of groups are held against. `None`: none.
    pub group_lists: Option<i64>,
    /// When it was planned, milliseconds since 1970-01-01 UTC.
    pub planned_at_ms: i64,
}

/// Where a partition stands.
///
/// Public, though hidden from the documentation, so that the model of `starling_ingest` drives this machine and no copy of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Of the current owner. 0: nobody took it yet.
    pub generation: Generation,
    /// Where the next range begins. `None`: the partition was never read.
    pub next_offset: Option<Offset>,
    /// Number of the next range.
    pub next_sequence: Sequence,
    /// Largest event time committed so far, milliseconds since 1970-01-01 UTC.
    pub watermark_ms: Option<i64>,
    /// Events committed so far.
    pub events: i64,
    /// The open plan.
    pub plan: Option<PlannedRange>,
}

impl Progress {
    /// A new owner: everybody before is fenced; an open plan passes to it.
    pub fn take(&mut self, partition: &PartitionId) -> Ownership {
        self.generation.0 += 1;
        Ownership {
            partition: partition.clone(),
            generation: self.generation,
            next_offset: self.next_offset,
            next_sequence: self.next_sequence,
            watermark_ms: self.watermark_ms,
            open_plan: self.open_plan(partition),
        }
    }

    /// Begins elsewhere, by an operator's word: everybody before is fenced, and an open plan goes together with its number, under which files and
    /// signals may exist already. Returns what was.
    pub(super) fn restart(&mut self, at: Option<Offset>) -> Self {
        let before = *self;
        self.generation.0 += 1;
        self.next_offset = at;
        if self.plan.take().is_some() {
            self.next_sequence.0 += 1;
        }
        before
    }

    /// The open plan under the current generation.
    #[must_use]
    pub fn open_plan(&self, partition: &PartitionId) -> Option<Plan> {
        self.plan.map(|p| Plan {
            partition: partition.clone(),
            generation: self.generation,
            sequence: self.next_sequence,
            from: p.from,
            to: p.to,
            closed_through: p.closed_through,
            hours_after: p.hours_after,
            group_lists: p.group_lists,
            planned_at_ms: p.planned_at_ms,
            watermark_ms: self.watermark_ms,
        })
    }

    /// Opens a plan, or says why not.
    ///
    /// # Errors
    /// [`StoreError::Fenced`], [`StoreError::PlanOpen`], [`StoreError::Gap`]; then nothing has changed.
    pub fn plan(&mut self, generation: Generation, range: PlannedRange) -> Result<(), StoreError> {
        if generation != self.generation {
            return Err(StoreError::Fenced);
        }
        if self.plan.is_some() {
            return Err(StoreError::PlanOpen);
        }
        if range.to <= range.from || self.next_offset.is_some_and(|next| next != range.from) {
            return Err(StoreError::Gap);
        }
        self.plan = Some(range);
        Ok(())
    }

    /// Closes the open plan with what came of it, or says why not.
    ///
    /// # Errors
    /// [`StoreError::Fenced`], [`StoreError::NotTheOpenPlan`], [`StoreError::Unbalanced`]; then nothing has changed.
    pub fn commit(&mut self, plan: &Plan, outcome: &RangeOutcome) -> Result<(), StoreError> {
        if plan.generation != self.generation {
            return Err(StoreError::Fenced);
        }
        let Plan { from, to, closed_through, hours_after, group_lists, planned_at_ms, .. } = *plan;
        let handed_in = PlannedRange { from, to, closed_through, hours_after, group_lists, planned_at_ms };
        if self.plan != Some(handed_in) || plan.sequence != self.next_sequence {
            return Err(StoreError::NotTheOpenPlan);
        }
        self.events = balanced(outcome).and_then(|events| self.events.checked_add(events)).ok_or(StoreError::Unbalanced)?;
        self.next_offset = Some(plan.to);
        self.next_sequence.0 += 1;
        self.watermark_ms = self.watermark_ms.max(outcome.watermark_ms);
        self.plan = None;
        Ok(())
    }
}

/// I1: the events of a range, if its outcomes add up to them.
fn balanced(outcome: &RangeOutcome) -> Option<i64> {
    let sum = outcome.counts.iter().try_fold(0_u64, |sum, (_, _, events)| sum.checked_add(*events))?;
    i64::try_from(outcome.events).ok().filter(|_| sum == outcome.events)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use starling_schemas::codes::Outcome;

    fn partition() -> PartitionId {
        PartitionId { source: "events".into(), partition: 0 }
    }

    /// An owner as a process knows itself: it may be a zombie.
    #[derive(Debug, Clone)]
    struct Owner {
        generation: Generation,
        next: Offset,
        plan: Option<Plan>,
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Take(usize),
        Plan(usize, i64),
        Commit(usize),
        CommitAgain,
        CommitUnbalanced(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..3_usize).prop_map(Step::Take),
            (0..3_usize, 1..20_i64).prop_map(|(o, n)| Step::Plan(o, n)),
            (0..3_usize).prop_map(Step::Commit),
            Just(Step::CommitAgain),
            (0..3_usize).prop_map(Step::CommitUnbalanced),
        ]
    }

    fn outcome(plan: &Plan) -> RangeOutcome {
        let events = (plan.to.0 - plan.from.0).unsigned_abs();
        RangeOutcome { events, counts: vec![(None, Outcome::Counted, events)], ..RangeOutcome::default() }
    }

    proptest! {
        #[test]
        fn i9_under_any_order_of_owners_crashes_and_replays_every_offset_is_committed_once_and_in_order(steps in prop::collection::vec(step(), 1..200)) {
            let mut truth = Progress::default();
            let mut owners: [Option<Owner>; 3] = [None, None, None];
            let mut committed: Vec<Plan> = Vec::new();
            for step in steps {
                let current = truth.generation;
                match step {
                    Step::Take(o) => {
                        let own = truth.take(&partition());
                        prop_assert_eq!(own.generation.0, current.0 + 1);
                        owners[o] = Some(Owner { generation: own.generation, next: own.next_offset.unwrap_or_default(), plan: own.open_plan });
                    }
                    Step::Plan(o, length) => {
                        let Some(owner) = &mut owners[o] else { continue };
                        let range = PlannedRange { from: owner.next, to: Offset(owner.next.0 + length), closed_through: None, hours_after: None, group_lists: None, planned_at_ms: 0 };
                        let had_plan = truth.plan.is_some();
                        match truth.plan(owner.generation, range) {
                            Ok(()) => {
                                prop_assert!(owner.generation == current && !had_plan);
                                owner.plan = truth.open_plan(&partition());
                            }
                            Err(StoreError::Fenced) => prop_assert!(owner.generation < current),
                            Err(StoreError::PlanOpen) => prop_assert!(owner.generation == current && had_plan),
                            Err(e) => prop_assert!(false, "{e}"),
                        }
                    }
                    Step::Commit(o) => {
                        let Some(owner) = &mut owners[o] else { continue };
                        let Some(plan) = owner.plan.take() else { continue };
                        match truth.commit(&plan, &outcome(&plan)) {
                            Ok(()) => {
                                prop_assert_eq!(plan.generation, current);
                                owner.next = plan.to;
                                committed.push(plan);
                            }
                            Err(StoreError::Fenced) => prop_assert!(plan.generation < current),
                            Err(e) => prop_assert!(false, "{e}"),
                        }
                    }
                    Step::CommitAgain => {
                        let Some(plan) = committed.last() else { continue };
                        let again = truth.commit(plan, &outcome(plan));
                        prop_assert!(matches!(again, Err(StoreError::Fenced | StoreError::NotTheOpenPlan)));
                    }
                    Step::CommitUnbalanced(o) => {
                        let Some(plan) = owners[o].as_ref().and_then(|o| o.plan.clone()) else { continue };
                        let before = truth;
                        let mut wrong = outcome(&plan);
                        wrong.events += 1;
                        prop_assert!(matches!(truth.commit(&plan, &wrong), Err(StoreError::Unbalanced | StoreError::Fenced)));
                        prop_assert_eq!(truth, before, "nothing changed");
                    }
                }
            }
            let mut next = Offset(0);
            for (sequence, plan) in committed.iter().enumerate() {
                prop_assert_eq!(plan.from, next);
                prop_assert_eq!(plan.sequence.0, i64::try_from(sequence).expect("small"));
                next = plan.to;
            }
            prop_assert_eq!(truth.events, next.0);
        }
    }

    #[test]
    fn a_range_must_begin_where_the_last_ended_and_hold_something() {
        let mut progress = Progress { next_offset: Some(Offset(10)), ..Progress::default() };
        let range = |from, to| PlannedRange {
            from: Offset(from),
            to: Offset(to),
            closed_through: None,
            hours_after: None,
            group_lists: None,
            planned_at_ms: 0,
        };
        for (from, to) in [(9, 20), (11, 20), (10, 10), (10, 5)] {
            assert!(matches!(progress.plan(Generation(0), range(from, to)), Err(StoreError::Gap)));
        }
        progress.plan(Generation(0), range(10, 20)).expect("plans");
    }

    #[test]
    fn i1_counts_that_overflow_do_not_balance() {
        let outcome = RangeOutcome {
            events: 1,
            counts: vec![(None, Outcome::Counted, u64::MAX), (None, Outcome::Late, 2)],
            ..RangeOutcome::default()
        };
        assert_eq!(balanced(&outcome), None);
        assert_eq!(
            balanced(&RangeOutcome {
                events: u64::MAX,
                counts: vec![(None, Outcome::Late, u64::MAX)],
                ..RangeOutcome::default()
            }),
            None
        );
    }
}
