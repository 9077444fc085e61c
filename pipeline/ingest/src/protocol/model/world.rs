//! Log, owners, letters and scheduler of the model.

mod checks;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;
use starling_schemas::codes::{Fault, Outcome};
use starling_schemas::ids::{DAY_MS, EpochId, Generation, Offset};
use starling_store::{Ownership, Plan, RangeOutcome, StoreError, WindowState};

use super::super::{Action, Cutter, Fact, Offer, Range, Refusal, Turn, Verdict};
use super::ledger::{Ledger, Processed, partition as partition_id};
use super::{Fate, OWNERS, Op, PARTITIONS, Planted, Produced};
use crate::BatchLimits;

/// The middle one of the days that events have.
const TODAY: i32 = 100;
const FUTURE_TOLERANCE_MS: i64 = 600_000;

/// Every owner cuts by other limits: settings change between two starts.
fn limits(generation: Generation) -> BatchLimits {
    let number = usize::try_from(generation.0).unwrap_or_default();
    BatchLimits { max_events: 1 + number % 5, max_bytes: 4 + number % 7, linger_ms: 0 }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Message {
    offset: i64,
    time_ms: i64,
    bytes: usize,
}

/// What an event is by its plan alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    Counts(EpochId),
    Late(EpochId),
    Future,
}

/// One partition's log.
#[derive(Default)]
struct Log {
    messages: Vec<Message>,
    end: i64,
}

/// An owner's work on one partition: what it loses when it crashes.
struct Work {
    cutter: Cutter,
    turn: Turn,
    action: Action,
    filling: Vec<Message>,
    cut: VecDeque<(Range, Vec<Message>)>,
    in_work: Vec<Message>,
    outcome: Processed,
    /// Index into the log of the next message it gets.
    cursor: usize,
}

/// An owner's place for one partition.
#[derive(Default)]
struct Place {
    /// Whether it believes that the partition is its own.
    assigned: bool,
    work: Option<Work>,
    /// The question it waits for.
    asked: Option<u64>,
}

enum Content {
    Take,
    Plan { generation: Generation, range: Range, now_ms: i64 },
    Commit { plan: Plan, outcome: Processed },
    Taken(Result<Ownership, StoreError>),
    Planned(Result<Plan, StoreError>),
    Committed(Result<(), StoreError>),
}

/// A question to the metastore, or its answer.
struct Letter {
    owner: usize,
    partition: usize,
    question: u64,
    content: Content,
}

/// An attempt at a range: partition, sequence, and what was read and decided.
type Attempts = BTreeMap<(usize, i64), (Range, Vec<Message>, Vec<Sort>)>;

pub(super) struct World {
    planted: Planted,
    now_ms: i64,
    logs: Vec<Log>,
    places: Vec<Vec<Place>>,
    letters: Vec<Letter>,
    questions: u64,
    ledger: Ledger,
    first_attempts: Attempts,
    /// What must not be, in the order in which it was seen.
    wrong: Vec<&'static str>,
}

fn unclear() -> StoreError {
    StoreError::Database { during: "the model", kind: "no answer", code: None }
}

impl World {
    pub(super) fn new(log_start: i64, planted: Planted) -> Self {
        let log = || Log { messages: Vec::new(), end: log_start };
        Self {
            planted,
            now_ms: EpochId(TODAY).start_ms() + DAY_MS / 2,
            logs: (0..PARTITIONS).map(|_| log()).collect(),
            places: (0..OWNERS).map(|_| (0..PARTITIONS).map(|_| Place::default()).collect()).collect(),
            letters: Vec::new(),
            questions: 0,
            ledger: Ledger { progress: vec![starling_store::protocol::Progress::default(); PARTITIONS], ..Ledger::default() },
            first_attempts: Attempts::new(),
            wrong: Vec::new(),
        }
    }

    pub(super) fn run(&mut self, op: &Op) {
        match op {
            Op::Produce { partition, messages, markers } => self.produce(*partition, messages, *markers),
            Op::Assign { owner, partition } => {
                self.places[*owner][*partition] = Place { assigned: true, ..Place::default() };
                self.ask(*owner, *partition, Content::Take);
            }
            Op::Deliver { owner, partition, messages, again } => self.deliver(*owner, *partition, *messages, *again),
            Op::EndOfLog { owner, partition } => self.end_of_log(*owner, *partition),
            Op::Linger { owner, partition } => {
                if let Some(work) = &mut self.places[*owner][*partition].work
                    && let Some(range) = work.cutter.cut()
                {
                    work.cut.push_back((range, std::mem::take(&mut work.filling)));
                }
            }
            Op::Act { owner, partition, fails } => self.act(*owner, *partition, *fails),
            Op::Go { owner, partition, rounds } => {
                for _ in 0..*rounds {
                    self.deliver(*owner, *partition, 3, 0);
                    self.end_of_log(*owner, *partition);
                    self.run(&Op::Linger { owner: *owner, partition: *partition });
                    self.act(*owner, *partition, false);
                    let is_mine = |l: &Letter| (l.owner, l.partition) == (*owner, *partition);
                    // The question first, then its answer.
                    for _ in 0..2 {
                        if let Some(index) = self.letters.iter().rposition(is_mine) {
                            let letter = self.letters.remove(index);
                            self.letter(letter, Fate::Arrives);
                        }
                    }
                }
            }
            Op::GiveUp { owner, partition } => self.give_up(*owner, *partition),
            Op::Letter { index, fate } => {
                if !self.letters.is_empty() {
                    let letter = self.letters.remove(index % self.letters.len());
                    self.letter(letter, *fate);
                }
            }
            Op::Crash { owner } => self.places[*owner] = (0..PARTITIONS).map(|_| Place::default()).collect(),
            Op::Revoke { owner, partition } => {
                let place = &mut self.places[*owner][*partition];
                place.assigned = false;
                if place.work.is_some() {
                    self.observe(*owner, *partition, Fact::Stop);
                }
            }
            Op::Clock { by_ms } => self.now_ms += by_ms,
            Op::BeginClose => self.ledger.begin_close(),
            Op::FinishClose { complete } => self.ledger.finish_close(*complete, self.planted),
            Op::DestroyKeys => self.ledger.destroy_keys(),
        }
    }

    fn produce(&mut self, partition: usize, messages: &[Produced], markers: u8) {
        let log = &mut self.logs[partition];
        for (hole, day, bytes) in messages {
            log.end += i64::from(*hole);
            let day = EpochId(TODAY - 2 + i32::from(*day));
            log.messages.push(Message { offset: log.end, time_ms: day.start_ms() + log.end, bytes: usize::from(*bytes) });
            log.end += 1;
        }
        log.end += i64::from(markers);
    }

    fn deliver(&mut self, owner: usize, partition: usize, messages: usize, again: usize) {
        let (log, planted) = (&self.logs[partition], self.planted);
        let Some(work) = &mut self.places[owner][partition].work else { return };
        let end = (work.cursor + messages).min(log.messages.len());
        for message in &log.messages[work.cursor.saturating_sub(again)..end] {
            match work.cutter.offer(Offset(message.offset), message.bytes) {
                Offer::Behind if planted == Planted::BehindIsKept => work.filling.push(*message),
                Offer::Behind => {}
                Offer::Take => work.filling.push(*message),
                Offer::TakeAfter(range) => {
                    let mut ended = std::mem::take(&mut work.filling);
                    if planted == Planted::MessageBehindTheCutIsKept {
                        ended.push(*message);
                    } else {
                        work.filling.push(*message);
                    }
                    work.cut.push_back((range, ended));
                }
            }
        }
        work.cursor = end;
    }

    fn end_of_log(&mut self, owner: usize, partition: usize) {
        let log = &self.logs[partition];
        let Some(work) = &mut self.places[owner][partition].work else { return };
        if work.cursor == log.messages.len()
            && let Some(range) = work.cutter.at_end(Offset(log.end))
        {
            work.cut.push_back((range, std::mem::take(&mut work.filling)));
        }
    }

    fn ask(&mut self, owner: usize, partition: usize, content: Content) {
        self.questions += 1;
        self.places[owner][partition].asked = Some(self.questions);
        self.letters.push(Letter { owner, partition, question: self.questions, content });
    }

    /// The owner does what its turn says, unless it waits for an answer.
    fn act(&mut self, owner: usize, partition: usize, fails: bool) {
        let place = &mut self.places[owner][partition];
        if place.asked.is_some() {
            return;
        }
        let Some(work) = &mut place.work else {
            if place.assigned {
                self.ask(owner, partition, Content::Take);
            }
            return;
        };
        match work.action.clone() {
            Action::Wait => {
                if let Some((range, messages)) = work.cut.pop_front() {
                    work.in_work = messages;
                    self.observe(owner, partition, Fact::Cut(range));
                }
            }
            Action::Plan(range) => {
                let (generation, now_ms) = (work.turn.generation(), self.now_ms);
                self.ask(owner, partition, Content::Plan { generation, range, now_ms });
            }
            Action::Process { .. } if fails => self.observe(owner, partition, Fact::ProcessFailed),
            Action::Process { plan, .. } => self.process(owner, partition, &plan),
            Action::Commit { plan, .. } => {
                let outcome = work.outcome.clone();
                self.ask(owner, partition, Content::Commit { plan, outcome });
            }
            Action::End(verdict) => {
                if verdict == Verdict::Breach {
                    self.wrong.push("an owner that keeps the protocol met a breach");
                }
                place.work = None;
            }
        }
    }

    /// Decides about every message of the range and writes a segment per day, as `jobs` does.
    fn process(&mut self, owner: usize, partition: usize, plan: &Plan) {
        let Some(work) = &mut self.places[owner][partition].work else { return };
        let by_clock = self.planted == Planted::OutcomeByTheClock;
        let latest_ms = if by_clock { self.now_ms } else { plan.planned_at_ms } + FUTURE_TOLERANCE_MS;
        let closed_through = if by_clock { self.ledger.closed_through } else { plan.closed_through };
        let fate_of = |message: &Message| match EpochId::of(message.time_ms) {
            _ if message.time_ms > latest_ms => Sort::Future,
            day if closed_through.is_some_and(|closed| day <= closed) => Sort::Late(day),
            day => Sort::Counts(day),
        };
        let messages = work.in_work.clone();
        let fates: Vec<Sort> = messages.iter().map(fate_of).collect();
        let mut counts: BTreeMap<(Option<EpochId>, Outcome), u64> = BTreeMap::new();
        let mut days: BTreeMap<EpochId, Vec<i64>> = BTreeMap::new();
        let mut outcome = Processed::default();
        for (message, fate) in messages.iter().zip(&fates) {
            let (day, what) = match fate {
                Sort::Future => (None, Outcome::Quarantined(Fault::TimeOutOfRange)),
                Sort::Counts(day) if !self.ledger.dead_keys.contains(day) => (Some(*day), Outcome::Counted),
                Sort::Counts(day) => {
                    outcome.lost.insert(*day);
                    (Some(*day), Outcome::Late)
                }
                Sort::Late(day) => (Some(*day), Outcome::Late),
            };
            *counts.entry((day, what)).or_default() += 1;
            let counted = day.filter(|_| what == Outcome::Counted);
            outcome.decided.push((message.offset, counted));
            if let Some(day) = counted {
                days.entry(day).or_default().push(message.offset);
            }
        }
        for (day, offsets) in days {
            self.ledger.files.insert((partition, plan.sequence.0, day), offsets);
        }
        let counts = counts.into_iter().map(|((day, outcome), events)| (day, outcome, events)).collect();
        outcome.told = RangeOutcome { events: messages.len() as u64, counts, ..RangeOutcome::default() };
        work.outcome = outcome;
        let attempt = (Range { from: plan.from, to: plan.to }, messages, fates);
        self.ledger.meet(if self.first_attempts.contains_key(&(partition, plan.sequence.0)) {
            "replay"
        } else {
            "first attempt"
        });
        let first = self.first_attempts.entry((partition, plan.sequence.0)).or_insert_with(|| attempt.clone());
        if *first != attempt {
            self.wrong.push("a replay differs from the first attempt");
        }
        self.observe(owner, partition, Fact::Processed);
    }

    fn give_up(&mut self, owner: usize, partition: usize) {
        if self.places[owner][partition].asked.is_some() {
            self.answer_unclear(owner, partition);
        }
    }

    /// The owner hears nothing, or an error that says nothing.
    fn answer_unclear(&mut self, owner: usize, partition: usize) {
        let place = &mut self.places[owner][partition];
        place.asked = None;
        let Some(work) = &mut place.work else { return };
        let refusal = Refusal::from(&unclear());
        match (work.action.clone(), self.planted) {
            (Action::Plan(range), Planted::LostPlanIsGuessed) => {
                let (generation, sequence) = (work.turn.generation(), self.ledger.progress[partition].next_sequence);
                let (from, to, planned_at_ms) = (range.from, range.to, self.now_ms);
                let plan = Plan {
                    partition: partition_id(partition),
                    generation,
                    sequence,
                    from,
                    to,
                    closed_through: None,
                    hours_after: None,
                    group_lists: None,
                    planned_at_ms,
                    watermark_ms: None,
                };
                self.observe(owner, partition, Fact::Planned(plan));
            }
            (Action::Plan(_), _) => self.observe(owner, partition, Fact::PlanRefused(refusal)),
            (Action::Commit { .. }, Planted::LostCommitIsTakenForDone) => self.observe(owner, partition, Fact::Committed),
            (Action::Commit { plan, .. }, Planted::LostCommitIsTakenForFailed) => {
                // The same range is planned again, as if nothing had been kept.
                let again = Ownership {
                    partition: partition_id(partition),
                    generation: plan.generation,
                    next_offset: Some(plan.from),
                    next_sequence: plan.sequence,
                    watermark_ms: None,
                    open_plan: None,
                };
                work.turn = Turn::new(&again);
                work.action = work.turn.observe(Fact::Cut(Range { from: plan.from, to: plan.to }));
            }
            (Action::Commit { .. }, _) => self.observe(owner, partition, Fact::CommitRefused(refusal)),
            _ => {}
        }
    }

    fn letter(&mut self, letter: Letter, fate: Fate) {
        let Letter { owner, partition, question, content } = letter;
        let planted = self.planted;
        let (answer, copy) = match content {
            Content::Take => {
                let done = (!matches!(fate, Fate::Lost | Fate::Refused)).then(|| self.ledger.take(partition, planted));
                (Content::Taken(done.ok_or_else(unclear)), Content::Take)
            }
            Content::Plan { generation, range, now_ms } => {
                let done = (!matches!(fate, Fate::Lost | Fate::Refused))
                    .then(|| self.ledger.plan(partition, generation, range, now_ms, planted));
                self.ledger.meet(match &done {
                    None => "plan not asked for",
                    Some(Ok(_)) => "plan",
                    Some(Err(StoreError::Fenced)) => "plan of a zombie",
                    Some(Err(_)) => "plan refused",
                });
                (Content::Planned(done.unwrap_or_else(|| Err(unclear()))), Content::Plan { generation, range, now_ms })
            }
            Content::Commit { plan, outcome } => {
                let done = (!matches!(fate, Fate::Lost | Fate::Refused))
                    .then(|| self.ledger.commit(partition, &plan, &outcome, planted));
                self.ledger.meet(match &done {
                    None => "commit not asked for",
                    Some(Ok(())) => "commit",
                    Some(Err(StoreError::Fenced)) => "commit of a zombie",
                    Some(Err(StoreError::NotTheOpenPlan)) => "commit asked for twice",
                    Some(Err(StoreError::WindowClosed)) => "commit into a closed day",
                    Some(Err(_)) => "commit refused",
                });
                (Content::Committed(done.unwrap_or_else(|| Err(unclear()))), Content::Commit { plan, outcome })
            }
            // An answer arrives, perhaps as an error, or never.
            answer => {
                let is_expected = self.places[owner][partition].asked == Some(question);
                match fate {
                    _ if !is_expected && planted != Planted::LateAnswersAreTaken => {}
                    // It is lost: the owner waits until it gives up.
                    Fate::Lost => {}
                    Fate::Refused | Fate::RefusedThoughDone => self.answer_unclear(owner, partition),
                    Fate::Arrives | Fate::ArrivesAndStays => self.answered(owner, partition, answer),
                }
                return;
            }
        };
        if matches!(fate, Fate::ArrivesAndStays) {
            self.letters.push(Letter { owner, partition, question, content: copy });
        }
        let answer = match (fate, answer) {
            (Fate::Lost, _) => return,
            (Fate::RefusedThoughDone, Content::Taken(_)) => Content::Taken(Err(unclear())),
            (Fate::RefusedThoughDone, Content::Planned(_)) => Content::Planned(Err(unclear())),
            (Fate::RefusedThoughDone, Content::Committed(_)) => Content::Committed(Err(unclear())),
            (_, answer) => answer,
        };
        self.letters.push(Letter { owner, partition, question, content: answer });
    }

    fn answered(&mut self, owner: usize, partition: usize, answer: Content) {
        let log = &self.logs[partition];
        let place = &mut self.places[owner][partition];
        let waits_for = place.work.as_ref().map(|work| work.action.clone());
        match (answer, waits_for) {
            (Content::Taken(Ok(ownership)), None) => {
                place.asked = None;
                let seen_by_cutter = match self.planted {
                    Planted::ReplayIsCutAnew => Ownership { open_plan: None, ..ownership.clone() },
                    _ => ownership.clone(),
                };
                let cutter = Cutter::new(&seen_by_cutter, limits(ownership.generation));
                let cursor = cutter.position().map_or(0, |from| log.messages.partition_point(|m| m.offset < from.0));
                place.work = Some(Work {
                    cutter,
                    turn: Turn::new(&ownership),
                    action: Action::Wait,
                    filling: Vec::new(),
                    cut: VecDeque::new(),
                    in_work: Vec::new(),
                    outcome: Processed::default(),
                    cursor,
                });
            }
            (Content::Taken(Err(_)), None) => place.asked = None,
            (Content::Planned(answer), Some(Action::Plan(_))) => {
                place.asked = None;
                let fact = answer.map_or_else(|e| Fact::PlanRefused(Refusal::from(&e)), Fact::Planned);
                match fact {
                    Fact::PlanRefused(Refusal::Unclear) => self.answer_unclear(owner, partition),
                    fact => self.observe(owner, partition, fact),
                }
            }
            (Content::Committed(answer), Some(Action::Commit { .. })) => {
                place.asked = None;
                let fact = answer.map_or_else(|e| Fact::CommitRefused(Refusal::from(&e)), |()| Fact::Committed);
                match fact {
                    Fact::CommitRefused(Refusal::Unclear) => self.answer_unclear(owner, partition),
                    fact => self.observe(owner, partition, fact),
                }
            }
            // Not an answer to what it waits for: only with a planted bug.
            _ => {}
        }
    }

    fn observe(&mut self, owner: usize, partition: usize, fact: Fact) {
        if let Some(work) = &mut self.places[owner][partition].work {
            work.action = work.turn.observe(fact);
        }
    }
}
