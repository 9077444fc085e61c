//! A model of owners, log and metastore, driven by arbitrary schedules: crashes, stalls (zombies), duplicated and lost answers, failing
//! processors, holes in the log.

use proptest::prelude::*;
use starling_schemas::ids::{Generation, Offset, PartitionId, Sequence};
use starling_store::{Ownership, Plan};

use super::{Action, Cutter, Fact, Offer, Range, Refusal, Turn, Verdict};
use crate::BatchLimits;

/// What the metastore keeps of a partition, by the contract of `starling_store`.
#[derive(Default)]
struct Metastore {
    generation: i64,
    next_offset: Option<i64>,
    sequence: i64,
    open: Option<(i64, i64)>,
    committed: Vec<Commit>,
}

struct Commit {
    from: i64,
    to: i64,
    by_generation: i64,
    at_generation: i64,
    offsets: Vec<i64>,
}

impl Metastore {
    fn take(&mut self) -> Ownership {
        self.generation += 1;
        Ownership {
            partition: partition(),
            generation: Generation(self.generation),
            next_offset: self.next_offset.map(Offset),
            next_sequence: Sequence(self.sequence),
            watermark_ms: None,
            open_plan: self.open.map(|(from, to)| self.render(self.generation, from, to)),
        }
    }

    fn render(&self, generation: i64, from: i64, to: i64) -> Plan {
        Plan {
            partition: partition(),
            generation: Generation(generation),
            sequence: Sequence(self.sequence),
            from: Offset(from),
            to: Offset(to),
            closed_through: None,
            planned_at_ms: 0,
        }
    }

    fn plan(&mut self, generation: i64, range: Range) -> Result<Plan, Refusal> {
        if generation != self.generation {
            return Err(Refusal::Fenced);
        }
        if self.open.is_some() || self.next_offset.is_some_and(|next| next != range.from.0) || range.to <= range.from {
            return Err(Refusal::Breach);
        }
        self.open = Some((range.from.0, range.to.0));
        Ok(self.render(generation, range.from.0, range.to.0))
    }

    fn commit(&mut self, plan: &Plan, offsets: Vec<i64>) -> Result<(), Refusal> {
        if plan.generation.0 != self.generation {
            return Err(Refusal::Fenced);
        }
        if self.open != Some((plan.from.0, plan.to.0)) || plan.sequence.0 != self.sequence {
            return Err(Refusal::NotTheOpenPlan);
        }
        self.open = None;
        self.next_offset = Some(plan.to.0);
        self.sequence += 1;
        self.committed.push(Commit {
            from: plan.from.0,
            to: plan.to.0,
            by_generation: plan.generation.0,
            at_generation: self.generation,
            offsets,
        });
        Ok(())
    }
}

/// One worker: what it holds in memory and loses when it crashes.
struct Owner {
    cutter: Cutter,
    turn: Turn,
    action: Action,
    filling: Vec<i64>,
    cut: std::collections::VecDeque<(Range, Vec<i64>)>,
    in_work: Vec<i64>,
    /// Index into the log of the next message it gets.
    cursor: usize,
}

/// What happens to one request to the metastore.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Answered,
    LostRequest,
    LostAnswer,
}

#[derive(Debug, Clone)]
enum Op {
    /// Messages are appended, each after a hole of some offsets; `markers` offsets without a message follow.
    Produce { holes: Vec<u8>, markers: u8 },
    /// The owner is assigned the partition. The other one, if it had it, learns nothing.
    Assign { owner: usize },
    /// The owner's consumer delivers messages, the first `duplicates` of them once more.
    Deliver { owner: usize, messages: u8, duplicates: u8 },
    /// The owner's consumer reports the end of the log, if it is there.
    End { owner: usize },
    /// The owner's linger time is over.
    Linger { owner: usize },
    /// The owner does its next action.
    Step { owner: usize, fate: Fate, fails: bool },
    /// The owner dies and forgets everything.
    Crash { owner: usize },
    /// The owner's partition is revoked in an orderly way.
    Revoke { owner: usize },
}

fn partition() -> PartitionId {
    PartitionId { source: "events".into(), partition: 0 }
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let owner = 0usize..2;
    let fate = prop_oneof![8 => Just(Fate::Answered), 1 => Just(Fate::LostRequest), 1 => Just(Fate::LostAnswer)];
    let op = prop_oneof![
        3 => (proptest::collection::vec(prop_oneof![6 => Just(0u8), 1 => 1..4u8], 1..8), prop_oneof![4 => Just(0u8), 1 => 1..3u8])
            .prop_map(|(holes, markers)| Op::Produce { holes, markers }),
        2 => owner.clone().prop_map(|owner| Op::Assign { owner }),
        6 => (owner.clone(), 1..6u8, 0..3u8).prop_map(|(owner, messages, duplicates)| Op::Deliver { owner, messages, duplicates }),
        2 => owner.clone().prop_map(|owner| Op::End { owner }),
        2 => owner.clone().prop_map(|owner| Op::Linger { owner }),
        16 => (owner.clone(), fate, prop::bool::weighted(0.1)).prop_map(|(owner, fate, fails)| Op::Step { owner, fate, fails }),
        1 => owner.clone().prop_map(|owner| Op::Crash { owner }),
        1 => owner.prop_map(|owner| Op::Revoke { owner }),
    ];
    proptest::collection::vec(op, 1..400)
}

struct World {
    log: Vec<i64>,
    log_end: i64,
    metastore: Metastore,
    owners: [Option<Owner>; 2],
    /// Every attempt at processing: sequence, range, offsets seen.
    attempts: Vec<(i64, i64, i64, Vec<i64>)>,
    breaches: usize,
}

impl World {
    fn new(start: i64) -> Self {
        Self {
            log: Vec::new(),
            log_end: start,
            metastore: Metastore::default(),
            owners: [None, None],
            attempts: Vec::new(),
            breaches: 0,
        }
    }

    fn assign(&mut self, owner: usize) {
        let ownership = self.metastore.take();
        let limits = BatchLimits { max_events: 4, max_bytes: 1000, linger_ms: 0 };
        let cutter = Cutter::new(&ownership, limits);
        let cursor = cutter.position().map_or(0, |from| self.log.partition_point(|o| *o < from.0));
        self.owners[owner] = Some(Owner {
            cutter,
            turn: Turn::new(&ownership),
            action: Action::Wait,
            filling: Vec::new(),
            cut: std::collections::VecDeque::new(),
            in_work: Vec::new(),
            cursor,
        });
    }

    fn deliver(&mut self, owner: usize, messages: usize, duplicates: usize) {
        let Some(o) = &mut self.owners[owner] else { return };
        let begin = o.cursor.saturating_sub(duplicates);
        let end = (o.cursor + messages).min(self.log.len());
        for offset in &self.log[begin..end] {
            match o.cutter.offer(Offset(*offset), 1) {
                Offer::Behind => {}
                Offer::Take => o.filling.push(*offset),
                Offer::TakeAfter(range) => {
                    o.cut.push_back((range, std::mem::replace(&mut o.filling, vec![*offset])));
                }
            }
        }
        o.cursor = end;
    }

    fn end(&mut self, owner: usize) {
        let Some(o) = &mut self.owners[owner] else { return };
        if o.cursor == self.log.len()
            && let Some(range) = o.cutter.at_end(Offset(self.log_end))
        {
            o.cut.push_back((range, std::mem::take(&mut o.filling)));
        }
    }

    fn linger(&mut self, owner: usize) {
        let Some(o) = &mut self.owners[owner] else { return };
        if let Some(range) = o.cutter.cut() {
            o.cut.push_back((range, std::mem::take(&mut o.filling)));
        }
    }

    fn step(&mut self, owner: usize, fate: Fate, fails: bool) {
        let Some(o) = &mut self.owners[owner] else { return };
        let generation = o.turn.generation().0;
        let fact = match o.action.clone() {
            Action::Wait => match o.cut.pop_front() {
                Some((range, offsets)) => {
                    o.in_work = offsets;
                    Fact::Cut(range)
                }
                None => return,
            },
            Action::Plan(range) => match (fate, self.metastore_plan(generation, range, fate)) {
                (Fate::Answered, Some(Ok(plan))) => Fact::Planned(plan),
                (Fate::Answered, Some(Err(refusal))) => Fact::PlanRefused(refusal),
                _ => Fact::PlanRefused(Refusal::Unclear),
            },
            Action::Process { .. } if fails => Fact::ProcessFailed,
            Action::Process { plan, .. } => {
                self.attempts.push((plan.sequence.0, plan.from.0, plan.to.0, o.in_work.clone()));
                Fact::Processed
            }
            Action::Commit { plan, .. } => {
                let offsets = o.in_work.clone();
                let answer = match fate {
                    Fate::LostRequest => None,
                    _ => Some(self.metastore.commit(&plan, offsets)),
                };
                match (fate, answer) {
                    (Fate::Answered, Some(Ok(()))) => Fact::Committed,
                    (Fate::Answered, Some(Err(refusal))) => Fact::CommitRefused(refusal),
                    _ => Fact::CommitRefused(Refusal::Unclear),
                }
            }
            Action::End(verdict) => {
                self.breaches += usize::from(verdict == Verdict::Breach);
                self.owners[owner] = None;
                if verdict == Verdict::Unclear {
                    self.assign(owner);
                }
                return;
            }
        };
        if let Some(o) = &mut self.owners[owner] {
            o.action = o.turn.observe(fact);
        }
    }

    fn metastore_plan(&mut self, generation: i64, range: Range, fate: Fate) -> Option<Result<Plan, Refusal>> {
        match fate {
            Fate::LostRequest => None,
            _ => Some(self.metastore.plan(generation, range)),
        }
    }

    fn run(&mut self, op: &Op) {
        match op {
            Op::Produce { holes, markers } => {
                for hole in holes {
                    self.log_end += i64::from(*hole);
                    self.log.push(self.log_end);
                    self.log_end += 1;
                }
                self.log_end += i64::from(*markers);
            }
            Op::Assign { owner } => self.assign(*owner),
            Op::Deliver { owner, messages, duplicates } => self.deliver(*owner, usize::from(*messages), usize::from(*duplicates)),
            Op::End { owner } => self.end(*owner),
            Op::Linger { owner } => self.linger(*owner),
            Op::Step { owner, fate, fails } => self.step(*owner, *fate, *fails),
            Op::Crash { owner } => self.owners[*owner] = None,
            Op::Revoke { owner } => {
                if let Some(o) = &mut self.owners[*owner] {
                    o.action = o.turn.observe(Fact::Stop);
                }
            }
        }
    }

    /// Everything that must hold at any time.
    fn check(&self) -> Result<(), TestCaseError> {
        prop_assert_eq!(self.breaches, 0, "an owner that keeps the protocol never meets a breach");
        let mut next: Option<i64> = None;
        for commit in &self.metastore.committed {
            prop_assert_eq!(commit.by_generation, commit.at_generation, "a zombie committed");
            prop_assert!(next.is_none_or(|next| next == commit.from), "gap or overlap");
            prop_assert!(commit.to > commit.from);
            let expected: Vec<i64> = self.log.iter().copied().filter(|o| (commit.from..commit.to).contains(o)).collect();
            prop_assert_eq!(&commit.offsets, &expected, "a committed range is not what the log holds");
            next = Some(commit.to);
        }
        if let Some(first) = self.metastore.committed.first() {
            prop_assert!(self.log.first().is_some_and(|o| *o >= first.from), "the log's beginning was skipped");
        }
        let mut by_sequence = std::collections::BTreeMap::new();
        for (sequence, from, to, offsets) in &self.attempts {
            let first = by_sequence.entry(sequence).or_insert((from, to, offsets));
            prop_assert_eq!(*first, (from, to, offsets), "a replay differs from the first attempt");
        }
        Ok(())
    }

    /// One healthy owner in the end: everything in the log becomes committed.
    fn settle(&mut self) {
        self.owners = [None, None];
        self.assign(0);
        for _ in 0..self.log.len() * 8 + 64 {
            self.deliver(0, 3, 1);
            self.end(0);
            self.linger(0);
            self.step(0, Fate::Answered, false);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn i9_ranges_tile_the_partition_and_replays_are_exact_under_any_schedule(start in 0i64..3, ops in ops()) {
        let mut world = World::new(start);
        for op in &ops {
            world.run(op);
        }
        world.check()?;
        world.settle();
        world.check()?;
        if !world.log.is_empty() {
            prop_assert_eq!(world.metastore.next_offset, Some(world.log_end), "something was left unread");
            let committed: Vec<i64> = world.metastore.committed.iter().flat_map(|c| c.offsets.clone()).collect();
            prop_assert_eq!(committed, world.log, "each message once, in order");
        }
    }
}
