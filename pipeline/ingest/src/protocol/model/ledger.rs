//! The metastore of the model: the real [`Progress`] of each partition, and around it what its transactions do with windows, segments and
//! keys. A planted bug of the metastore is put in here.

use std::collections::{BTreeMap, BTreeSet};

use starling_schemas::codes::Outcome;
use starling_schemas::ids::{EpochId, Generation, Offset, PartitionId};
use starling_store::protocol::{PlannedRange, Progress};
use starling_store::{Ownership, Plan, RangeOutcome, StoreError, WindowState};

use super::super::Range;
use super::Planted;

/// What became of a range: what is told to the metastore, and what a check needs to judge it.
#[derive(Debug, Clone, Default)]
pub(super) struct Processed {
    pub(super) told: RangeOutcome,
    /// (offset, its day if it was counted) for each event read.
    pub(super) decided: Vec<(i64, Option<EpochId>)>,
    /// Days of events that the plan counts, but whose key is destroyed.
    pub(super) lost: BTreeSet<EpochId>,
}

/// What a commit made count, with what a check needs to judge it.
pub(super) struct Commit {
    pub(super) partition: usize,
    pub(super) range: Range,
    pub(super) by: Generation,
    pub(super) at: Generation,
    pub(super) sequence: i64,
    pub(super) decided: Vec<(i64, Option<EpochId>)>,
    pub(super) lost: BTreeSet<EpochId>,
}

/// A segment file by what names it: partition, sequence, day.
pub(super) type Segment = (usize, i64, EpochId);

#[derive(Default)]
pub(super) struct Ledger {
    pub(super) progress: Vec<Progress>,
    pub(super) windows: BTreeMap<EpochId, WindowState>,
    pub(super) closed_through: Option<EpochId>,
    /// Days whose pseudonym key is destroyed.
    pub(super) dead_keys: BTreeSet<EpochId>,
    /// Files, named or not. A replay overwrites its own.
    pub(super) files: BTreeMap<Segment, Vec<i64>>,
    /// Segments that wait for their window's merge.
    pub(super) segments: BTreeSet<Segment>,
    /// Offsets in each closed window's table.
    pub(super) merged: BTreeMap<EpochId, Vec<(usize, i64)>>,
    pub(super) counts: BTreeMap<(usize, Option<EpochId>, Outcome), u64>,
    pub(super) commits: Vec<Commit>,
    /// Windows that were closed as complete although their table did not hold what was counted.
    pub(super) short_tables: usize,
    /// How often what happened: a schedule that meets nothing proves nothing.
    pub(super) met: BTreeMap<&'static str, usize>,
}

pub(super) fn partition(number: usize) -> PartitionId {
    PartitionId { source: "events".into(), partition: i32::try_from(number).unwrap_or_default() }
}

impl Ledger {
    pub(super) fn meet(&mut self, what: &'static str) {
        *self.met.entry(what).or_default() += 1;
    }

    pub(super) fn take(&mut self, number: usize, planted: Planted) -> Ownership {
        let progress = &mut self.progress[number];
        match planted {
            Planted::TakeForgetsThePlan => progress.plan = None,
            Planted::TakeKeepsTheGeneration if progress.generation.0 > 0 => progress.generation.0 -= 1,
            Planted::TakeRenewsThePlan => {
                if let Some(plan) = &mut progress.plan {
                    plan.closed_through = self.closed_through;
                }
            }
            _ => {}
        }
        let ownership = progress.take(&partition(number));
        if ownership.open_plan.is_some() {
            self.meet("take-over of an open plan");
        }
        ownership
    }

    pub(super) fn plan(
        &mut self,
        number: usize,
        mut generation: Generation,
        range: Range,
        now_ms: i64,
        planted: Planted,
    ) -> Result<Plan, StoreError> {
        let progress = &mut self.progress[number];
        match planted {
            Planted::PlanByAnyGeneration => generation = progress.generation,
            Planted::PlanWhileOneIsOpen => progress.plan = None,
            _ => {}
        }
        let closed_through = self.closed_through;
        progress.plan(
            generation,
            PlannedRange {
                from: range.from,
                to: range.to,
                closed_through,
                hours_after: None,
                group_lists: None,
                planned_at_ms: now_ms,
            },
        )?;
        progress.open_plan(&partition(number)).ok_or(StoreError::NotTheOpenPlan)
    }

    /// One transaction: everything or nothing.
    pub(super) fn commit(&mut self, number: usize, plan: &Plan, outcome: &Processed, planted: Planted) -> Result<(), StoreError> {
        let mut progress = self.progress[number];
        let (at, mut accepted) = (progress.generation, plan.clone());
        match planted {
            Planted::CommitByAnyGeneration => accepted.generation = progress.generation,
            Planted::CommitOfAnyPlan => {
                accepted.sequence = progress.next_sequence;
                let Plan { from, to, closed_through, hours_after, group_lists, planned_at_ms, .. } = accepted.clone();
                progress.plan = Some(PlannedRange { from, to, closed_through, hours_after, group_lists, planned_at_ms });
            }
            _ => {}
        }
        progress.commit(&accepted, &outcome.told)?;
        let days: BTreeSet<EpochId> = outcome.decided.iter().filter_map(|(_, day)| *day).collect();
        if days.iter().any(|day| self.windows.get(day).is_some_and(|state| state.is_final())) {
            return Err(StoreError::WindowClosed);
        }
        self.progress[number] = progress;
        for (epoch, outcome, events) in &outcome.told.counts {
            *self.counts.entry((number, *epoch, *outcome)).or_default() += events;
        }
        for day in days {
            self.windows.entry(day).or_insert(WindowState::Open);
            self.segments.insert((number, plan.sequence.0, day));
        }
        self.commits.push(Commit {
            partition: number,
            range: Range { from: plan.from, to: plan.to },
            by: plan.generation,
            at,
            sequence: plan.sequence.0,
            decided: outcome.decided.clone(),
            lost: outcome.lost.clone(),
        });
        Ok(())
    }

    /// Begins to close the oldest open window.
    pub(super) fn begin_close(&mut self) {
        let oldest = self.windows.iter_mut().find(|(_, state)| **state == WindowState::Open);
        if let Some((epoch, state)) = oldest {
            *state = WindowState::Closing;
            self.closed_through = self.closed_through.max(Some(*epoch));
        }
    }

    /// Finishes the oldest close that has begun, unless it has to wait.
    pub(super) fn finish_close(&mut self, complete: bool, planted: Planted) {
        let oldest = self.windows.iter().find(|(_, state)| **state == WindowState::Closing).map(|(epoch, _)| *epoch);
        let Some(epoch) = oldest else { return };
        let must_wait = self.progress.iter().any(|p| p.plan.is_some_and(|plan| plan.closed_through.is_none_or(|c| c < epoch)));
        if complete && must_wait && planted != Planted::CloseWithoutWaiting {
            self.meet("close that waits");
            return;
        }
        let of_day: Vec<Segment> = self.segments.iter().filter(|(.., day)| *day == epoch).copied().collect();
        let mut table = Vec::new();
        for segment in of_day {
            self.segments.remove(&segment);
            table.extend(self.files.remove(&segment).unwrap_or_default().into_iter().map(|offset| (segment.0, offset)));
        }
        let counted: u64 = self
            .counts
            .iter()
            .filter(|((_, day, outcome), _)| (*day, *outcome) == (Some(epoch), Outcome::Counted))
            .map(|(_, n)| n)
            .sum();
        self.short_tables += usize::from(table.len() as u64 != counted);
        self.merged.insert(epoch, table);
        self.windows.insert(epoch, if complete { WindowState::Closed } else { WindowState::Incomplete });
        self.meet(if must_wait { "close that did not wait" } else { "close" });
    }

    /// Destroys the keys of closed windows; files that nobody named go, too.
    pub(super) fn destroy_keys(&mut self) {
        let closed: Vec<EpochId> = self.windows.iter().filter(|(_, state)| state.is_final()).map(|(epoch, _)| *epoch).collect();
        self.files.retain(|(.., day), _| !closed.contains(day));
        self.dead_keys.extend(closed);
    }

    pub(super) fn next_offset(&self, number: usize) -> Option<Offset> {
        self.progress[number].next_offset
    }
}
