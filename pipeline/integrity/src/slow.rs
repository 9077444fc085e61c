//! Slow bulk: strangers who do not answer. A sequential test of one sender's first contacts, by whether they are answered within a day.
//!
//! ```text
//!  Contact ──► pair filters ──new?──► screen: 5 new a day ──► suspect, 64 bytes ◄─── 24 h later: answered or not
//!  (sender, a→b)   ▲                                            └─ waiting contact, 16 bytes ──┘        │
//!  Answered ───────┴─────────────── marks the waiting contact ────────────────────────────────►        ▼
//!  (b→a's message, which says a→b only)                                                           Crossing ──► alert
//! ```
//!
//! **The test.** Let q be the share of first contacts that people in this sender's segment get answered within 24 h, p₀ = 0.6 q and p₁ = p₀ / 5.
//! A contact that was not answered adds ln((1−p₁)/(1−p₀)), an answered one ln(p₁/p₀), which is −1.6. The sum never falls below zero, and at
//! zero the record is erased. It alerts at the threshold of `rules.toml`. This is Page's CUSUM of a likelihood ratio: of a sender who is
//! answered at p₀ or more, one excursion from zero in exp(threshold) crosses it (Ville's inequality). p₀ is held fixed from zero to
//! zero, so that the sum is told again by three counters: `unanswered × gain − answered × loss`.
//!
//! **q** is measured: of one first contact in 16, chosen by its pair and kept *without its sender*, whether it was answered. It begins at the
//! rules' prior, which weighs as much as 500 contacts, is renewed daily and halved weekly; p₀ stays between the rules' bounds, so that
//! neither few contacts nor an attacker who fills the pool moves it far. The event has the age of the sender's account and not
//! that of the recipient's: every recipient is taken for established. Whose account is of unknown age is in a segment of his own.
//!
//! **What counts.** Messages between two people, as `minimize` tells them apart: what is said to a group, a channel or a business is neither contact nor answer,
//! nor is a call. Any message back is an answer, whatever is in it.
//!
//! # Privacy
//! A *pair token* is 8 bytes of a keyed hash of (a→b) under a key of its own that begins with a day and is destroyed 72 h later. Each message has two,
//! under its own day's key and the day before's, so that a pair is known for 24 to 48 h.
//! - *Who sees rows and has no key:* a contact names its sender's pseudonym, an answer names nobody, and the tokens of both are covered wherever rows are
//!   written down ([`SignalBatch::cover`](starling_schemas::signals::SignalBatch::cover)), under a data key that dies 72 h after the day began on
//!   which they were written. Bare tokens would join two people: b's answer stands beside b's contact, as both are of one message, and its token is that of
//!   a's contact (I5). Covered, they are random bytes; and which rows there are joins nobody, as it depends on their sender's own messages alone: every
//!   message has its answer, and a contact is left out only where it repeats its sender's last one in the range.
//! - *Who has the key of the cover and the rows*, as the job that runs this has while it reads, could join the pseudonyms of two who answered each other.
//!   Nothing here does, and no state holds it: of an answer one bit is kept, at the contact it answers.
//! - *Who has the live pair key and the rows* can ask of two numbers he already suspects whether they are a pair, and for one number try all others. That
//!   is what the key is for and why it lives 72 h; with it gone, nobody can.
//! - *A sender's days* are tied only by a copy of its contact under the day before's pseudonym, which stands before it and bears the same token. It is needed: twelve
//!   strangers a day are no evidence in one day. What it costs: who reads rows can follow one active sender over the days whose rows
//!   still exist, without learning who it is. Who is silent for a day is not followed. A pseudonym that lives for two weeks would need no copy, but its key would,
//!   for two weeks, turn any number into its rows; the day keys die as before.
//! - Tokens are in memory and in each new state for 72 h of event time at most, and in no [`Crossing`]. A sealed state that is left behind when nobody
//!   detects any more holds tokens until its data key goes; without the pair key they say nothing.
//!
//! Where contacts are spread over parts, an answer names nobody and so has to go to every part, and a record is handed over only where both
//! pseudonyms meet in one part; elsewhere evidence begins anew each day, which hides and never adds. So one part takes them all unless told otherwise
//! ([`route`](starling_schemas::signals::route)).
//!
//! # Invariants
//! - **A sketch's error hides, and never adds.** A contact that the filter takes for seen is never held against the sender, but its answer speaks for
//!   him. So increments are at most those of exact sets, and so is the sum, which rises with every increment
//!   (`a_filters_error_never_adds_evidence`; it is proven for one fortnight, after which a record begins anew). The price: answers of people he wrote to before speak for a sender, too, one a pair and day.
//! - **Overload drops whole records**, the least suspicious first, and counts them; never a single contact of a record.
//! - **I9.** Contacts are judged in the order of event time, when every live partition is an hour past their 24 h. How rows are cut does not matter,
//!   nor how partitions interleave (none more than a day behind), as long as a sender's own contacts come in order and an answer does not overtake its contact; an answer that
//!   does hides the contact.
//!
//! # Bounds
//! 64 bytes a suspect, 16 a waiting contact, for 25 h of the slowest partition's time and 72 h at most; a record is erased at zero, after 14 days, and two
//! days after its pseudonym's day. Everybody else shares the filters (11 MiB each, three at most) and the screen (1 MiB).

#[cfg(test)]
mod cohort_tests;
mod cohorts;
mod due;
#[cfg(test)]
mod evidence_tests;
mod filter;
mod parts;
mod saved;
#[cfg(test)]
mod tests;
mod told;
#[cfg(test)]
mod trace;

use std::collections::BTreeMap;

use hashbrown::HashMap;
use starling_schemas::ids::{DAY_MS, EpochId, PartitionId};

use crate::evidence::{Counts, people_tested};
use crate::rules::{Coordinated, SlowBulk};
use cohorts::Cohorts;
pub use cohorts::Crowd;
pub(crate) use cohorts::threshold as crowd_threshold;
use filter::{PairFilter, Seen};
use parts::{ANSWERED, KNOWN, LateAnswer, OWNER, Pool, Reached, SEGMENT_SHIFT, SOON, Screened, Suspect, Waiting};
pub use parts::{Answered, Contact, Crossing, Pair, Segment, SlowFigures, increments};

const HOUR_MS: i64 = 3_600_000;
/// How often contacts are judged, in event time.
const STEP_MS: i64 = 600_000;
/// An answer later than this is none.
const ANSWER_WITHIN_MS: i64 = DAY_MS;
/// An answer within this is one of the first hour.
const SOON_MS: i64 = HOUR_MS;
/// How far a live partition may be out of order. Everybody is found that much later; events are written when the server sees them.
const LATENESS_MS: i64 = HOUR_MS / 4;
/// A pair key's life, and so a token's.
const PAIR_LIFE_DAYS: i32 = 3;
/// One pair in so many is in the pool.
const POOL_SHARE: u64 = 16;
/// Pooled contacts that the prior weighs as much as.
const PRIOR_CONTACTS: f64 = 500.0;
/// After so many sweeps a silent partition is waited for no longer.
const HEARD: u32 = 2;
/// Entries of the screen.
const SCREEN_SLOTS: usize = 1 << 16;

/// The detector. `F` is exact in tests, to be compared with.
#[derive(Debug)]
pub struct SlowSenders {
    core: Core<PairFilter>,
}

/// A sender under the day before's key, with its cohort.
#[derive(Debug, Clone, Copy)]
struct CopyOf {
    person: [u8; 16],
    cohort: Option<[u8; 16]>,
    at_s: u32,
}

#[derive(Debug)]
struct Core<F> {
    rule: SlowBulk,
    filters: BTreeMap<i32, F>,
    screen: Vec<Screened>,
    suspects: Vec<Option<Suspect>>,
    free: Vec<u32>,
    places: HashMap<[u8; 16], u32>,
    waiting: HashMap<Pair, Waiting>,
    /// Copies whose contact is still to come: of suspects and members only.
    copies: BTreeMap<Pair, CopyOf>,
    late_answers: HashMap<Pair, LateAnswer>,
    cohorts: Cohorts,
    prior_soon_rate: f64,
    /// p₀ and q within the hour, in thousandths: renewed when a day begins.
    soon: (u16, u16),
    pools: [Pool; 4],
    pool_day: i32,
    origins: BTreeMap<PartitionId, Reached>,
    newest_ms: i64,
    judged_step: i64,
    sweep: u32,
    dropped: u64,
    late: u64,
    found: Vec<Crossing>,
    /// Trials, by the day of their first contact: see [`evidence`](crate::evidence).
    trials: Counts,
}

impl SlowSenders {
    /// A detector that has seen nothing.
    #[must_use]
    pub fn new(rule: SlowBulk, crowds: Coordinated) -> Self {
        Self { core: Core::new(rule, crowds) }
    }

    /// Takes in a contact, or its copy, that came from `origin`.
    pub fn contact(&mut self, origin: &PartitionId, contact: &Contact) {
        self.core.contact(origin, contact);
    }

    /// Takes in an answer that came from `origin`.
    pub fn answered(&mut self, origin: &PartitionId, answered: &Answered) {
        self.core.answered(origin, answered);
    }

    /// Says which partitions there are. Each holds judgement up until it is heard, or silent for two sweeps; that there may be others need
    /// not be waited for any more. So a source that is read at once, a day in a second, is judged as it is when it happens.
    pub fn expect<'a>(&mut self, origins: impl Iterator<Item = &'a PartitionId>) {
        self.core.expect(origins);
    }

    /// Says that nothing more comes of any partition heard so far: none of them holds judgement up, now or when another source is read later.
    pub fn source_is_over(&mut self) {
        self.core.source_is_over();
    }

    /// Senders who are over the threshold and had a contact judged since this was asked last, in the order of judgement.
    pub fn take_crossings(&mut self) -> Vec<Crossing> {
        std::mem::take(&mut self.core.found)
    }

    /// Members of cohorts with too many of their kind, since this was asked last, in the order of judgement.
    pub fn take_crowds(&mut self) -> Vec<Crowd> {
        std::mem::take(&mut self.core.cohorts.found)
    }

    /// To be called about once a minute of the wall clock: a partition from which nothing came during two sweeps holds nobody's judgement
    /// up any more. Nothing is judged before the second sweep, so that every partition has been heard, unless it is [known](Self::expect) which there are.
    pub fn sweep(&mut self) {
        self.core.sweep += 1;
        self.core.judge_due(false);
    }

    /// How many people were tested on a day since 1970-01-01: see [`evidence`](crate::evidence).
    pub(crate) fn tested(&self, day: i32) -> Option<u64> {
        people_tested(&self.core.trials, &self.core.cohorts.tested, day)
    }

    /// Says that what was tested before this day was not counted.
    pub(crate) fn begin_counting(&mut self, day: i32) {
        self.core.trials.begin(day);
        self.core.cohorts.tested.begin(day);
    }

    /// What is held and what was left out.
    #[must_use]
    pub fn figures(&self) -> SlowFigures {
        let core = &self.core;
        SlowFigures {
            suspects: core.places.len(),
            waiting: core.waiting.len(),
            bytes: core.suspects.capacity() * size_of::<Option<Suspect>>()
                + core.places.capacity() * (size_of::<([u8; 16], u32)>() + 1)
                + core.waiting.capacity() * (size_of::<(Pair, Waiting)>() + 1)
                + core.late_answers.capacity() * (size_of::<(Pair, LateAnswer)>() + 1)
                + core.screen.capacity() * size_of::<Screened>()
                + core.cohorts.bytes()
                + core.filters.values().map(PairFilter::bytes).sum::<usize>(),
            dropped: core.dropped,
            late: core.late,
        }
    }
}

fn seconds(ms: i64) -> u32 {
    u32::try_from(ms.div_euclid(1000)).unwrap_or_default()
}

fn tag(person: &[u8; 16]) -> u64 {
    person.first_chunk::<8>().map_or(0, |b| u64::from_le_bytes(*b))
}

impl<F: Seen> Core<F> {
    fn new(rule: SlowBulk, crowds: Coordinated) -> Self {
        let mut core = Self {
            prior_soon_rate: crowds.prior_rate,
            soon: (0, 0),
            cohorts: Cohorts::new(crowds),
            rule,
            filters: BTreeMap::new(),
            screen: vec![Screened::default(); SCREEN_SLOTS],
            suspects: Vec::new(),
            free: Vec::new(),
            places: HashMap::new(),
            waiting: HashMap::new(),
            copies: BTreeMap::new(),
            late_answers: HashMap::new(),
            pools: [Pool::default(); 4],
            pool_day: i32::MIN,
            origins: BTreeMap::new(),
            newest_ms: i64::MIN,
            judged_step: i64::MIN,
            sweep: 0,
            dropped: 0,
            late: 0,
            found: Vec::new(),
            trials: Counts::default(),
        };
        core.renew_pools();
        core
    }

    fn expect<'a>(&mut self, origins: impl Iterator<Item = &'a PartitionId>) {
        let mut any = false;
        for origin in origins {
            any = true;
            if !self.origins.contains_key(origin) {
                self.origins.insert(origin.clone(), Reached { newest_ms: i64::MIN, touched: self.sweep });
            }
        }
        if any && self.sweep < HEARD {
            let passed = HEARD - self.sweep;
            self.origins.values_mut().for_each(|reached| reached.touched += passed);
            self.sweep = HEARD;
        }
    }

    fn source_is_over(&mut self) {
        let silent_since = self.sweep.saturating_sub(HEARD);
        self.origins.values_mut().for_each(|reached| reached.touched = silent_since);
        self.judge_due(false);
    }

    /// Notes how far a partition is, forgets dead tokens, and judges what has become due.
    fn reach(&mut self, origin: &PartitionId, time_ms: i64) {
        let sweep = self.sweep;
        let step_before = match self.origins.get_mut(origin) {
            Some(reached) => {
                let before = reached.newest_ms;
                *reached = Reached { newest_ms: before.max(time_ms), touched: sweep };
                before.div_euclid(STEP_MS)
            }
            None => {
                self.origins.insert(origin.clone(), Reached { newest_ms: time_ms, touched: sweep });
                i64::MIN
            }
        };
        let day_before = EpochId::of(self.newest_ms).0;
        self.newest_ms = self.newest_ms.max(time_ms);
        let day = EpochId::of(self.newest_ms).0;
        if day != day_before {
            self.filters.retain(|epoch, _| *epoch > day - PAIR_LIFE_DAYS);
        }
        // The watermark's step moves with a partition's, or with a sweep: for most rows there is nothing to ask.
        if time_ms.div_euclid(STEP_MS) > step_before || day != day_before {
            self.judge_due(day != day_before);
        }
    }

    /// Adds a message's tokens to the filters of its two epochs; whether the pair was in touch before. `None` if a key of them is over.
    fn touch(&mut self, time_ms: i64, pair: Pair, pair_before: Pair) -> Option<bool> {
        let (day, newest) = (EpochId::of(time_ms).0, EpochId::of(self.newest_ms).0);
        if day - 1 <= newest - PAIR_LIFE_DAYS {
            self.late += 1;
            return None;
        }
        let before = self.filters.entry(day - 1).or_default().add(pair_before);
        let now = self.filters.entry(day).or_default().add(pair);
        Some(before || now)
    }

    fn answered(&mut self, origin: &PartitionId, answered: &Answered) {
        self.reach(origin, answered.time_ms);
        self.touch(answered.time_ms, answered.pair, answered.pair_before);
        for pair in [answered.pair, answered.pair_before] {
            if let Some(waiting) = self.waiting.get_mut(&pair)
                && seconds(answered.time_ms) <= waiting.at_s.saturating_add(seconds(ANSWER_WITHIN_MS))
            {
                let at_s = seconds(answered.time_ms);
                let is_soon = at_s <= waiting.at_s.saturating_add(seconds(SOON_MS));
                waiting.packed |= if is_soon { ANSWERED | SOON } else { ANSWERED };
                let owner = waiting.owner().filter(|_| !is_soon).and_then(|o| self.suspects.get(o)).copied().flatten();
                if owner.is_some_and(|suspect| self.cohorts.members.contains_key(&suspect.person)) {
                    let late = self.late_answers.entry(pair).or_insert(LateAnswer { at_s, is_counted: false });
                    // Once it counted, it counted.
                    if !late.is_counted {
                        late.at_s = late.at_s.min(at_s);
                    }
                }
            }
        }
    }

    fn contact(&mut self, origin: &PartitionId, contact: &Contact) {
        self.reach(origin, contact.time_ms);
        let day = EpochId::of(contact.time_ms).0;
        if contact.overlap {
            if self.places.contains_key(&contact.person) || self.cohorts.members.contains_key(&contact.person) {
                let (person, cohort, at_s) = (contact.person, contact.cohort, seconds(contact.time_ms));
                self.copies.insert(contact.pair, CopyOf { person, cohort, at_s });
            }
            return;
        }
        if let Some(copy) = self.copies.remove(&contact.pair) {
            self.hand_over(copy.person, contact.person, contact.time_ms);
            self.cohorts.renamed(&copy.person, contact.person, day);
            if let (Some(before), Some(now)) = (copy.cohort, contact.cohort) {
                self.cohorts.are_one(contact.time_ms, before, now);
            }
        }
        let Some(known) = self.touch(contact.time_ms, contact.pair, contact.pair_before) else { return };
        if known && !F::ERRS {
            return;
        }
        // While it waits the pair is known for certain: nothing is to be added.
        if self.waiting.contains_key(&contact.pair) || self.waiting.contains_key(&contact.pair_before) {
            return;
        }
        // Nobody knows yet who of the new accounts answers: they speak neither for nor against who writes to them.
        if contact.to_new_account == Some(true) {
            return;
        }
        let is_member = !known && contact.cohort.is_some_and(|cohort| self.cohorts.note(contact.person, cohort, day));
        let enough = is_member || !known && self.screened(&contact.person, day) >= self.rule.new_a_day;
        let place = self.places.get(&contact.person).copied();
        let is_live = place.and_then(|p| self.suspect_at(p)).is_some_and(|s| s.is_live());
        let owner = match place {
            Some(place) if is_live || enough => Some(place),
            None if enough => self.suspect(contact.person, day),
            _ => None,
        };
        let pooled = !known && contact.pair.0.is_multiple_of(POOL_SHARE);
        if owner.is_none() && !pooled {
            return;
        }
        if let Some(suspect) = owner.filter(|_| !known).and_then(|o| self.suspect_at(o)) {
            suspect.fresh += 1;
        }
        let flags = if known { KNOWN } else { 0 };
        let packed = owner.unwrap_or(OWNER) | (Segment::of(contact.account_age_s) as u32) << SEGMENT_SHIFT | flags;
        self.waiting.insert(contact.pair, Waiting { at_s: seconds(contact.time_ms), packed });
        self.make_room();
    }

    fn suspect_at(&mut self, place: u32) -> Option<&mut Suspect> {
        self.suspects.get_mut(place as usize)?.as_mut()
    }

    /// Counts a new contact of this pseudonym; how many it has had.
    fn screened(&mut self, person: &[u8; 16], epoch: i32) -> u32 {
        let tag = tag(person);
        let place = usize::try_from(tag % SCREEN_SLOTS as u64).unwrap_or_default();
        let Some(slot) = self.screen.get_mut(place) else { return 0 };
        if slot.tag == tag && slot.epoch == epoch {
            slot.count = slot.count.saturating_add(1);
            return slot.count;
        }
        // Two of one day take turns at each other's cost: a count is never too high.
        if slot.epoch >= epoch && slot.count > 1 {
            slot.count -= 1;
            return 0;
        }
        *slot = Screened { tag, epoch, count: 1 };
        1
    }

    /// A place for a new suspect.
    fn suspect(&mut self, person: [u8; 16], epoch: i32) -> Option<u32> {
        let place = match self.free.pop() {
            Some(place) => place,
            None => {
                let place = u32::try_from(self.suspects.len()).ok().filter(|p| *p < OWNER)?;
                self.suspects.push(None);
                place
            }
        };
        *self.suspects.get_mut(place as usize)? = Some(Suspect::new(person, epoch));
        self.places.insert(person, place);
        Some(place)
    }

    /// Lets the record of yesterday's pseudonym go on as today's. Of two records that meet, the greater sum stays: the
    /// younger has had nothing judged yet. All that waits stays.
    fn hand_over(&mut self, before: [u8; 16], person: [u8; 16], time_ms: i64) {
        let epoch = EpochId::of(time_ms).0;
        let Some(old) = self.places.remove(&before) else { return };
        let Some(now) = self.places.get(&person).copied() else {
            if let Some(suspect) = self.suspect_at(old) {
                *suspect = suspect.renamed(person, epoch, time_ms);
            }
            self.places.insert(person, old);
            return;
        };
        let Some(given) = self.suspects.get_mut(old as usize).and_then(Option::take) else { return };
        self.free.push(old);
        if let Some(kept) = self.suspect_at(now) {
            let fresh = kept.fresh + given.fresh;
            let more = if given.score > kept.score { given.renamed(person, epoch, time_ms) } else { *kept };
            *kept = Suspect { fresh, ..more };
        }
        for waiting in self.waiting.values_mut().filter(|w| w.packed & OWNER == old) {
            waiting.packed = waiting.packed & !OWNER | now;
        }
    }

    /// Drops whole records, the least suspicious first, when there are too many suspects or waiting contacts: an eighth at once.
    fn make_room(&mut self) {
        let over = |core: &Self| {
            core.places.len() > core.rule.most_suspects as usize || core.waiting.len() > core.rule.most_waiting as usize
        };
        if !over(self) {
            return;
        }
        let mut ranked: Vec<(i32, [u8; 16], u32)> = self
            .places
            .iter()
            .filter_map(|(person, place)| {
                self.suspects.get(*place as usize).copied().flatten().map(|s| (s.score, *person, *place))
            })
            .collect();
        ranked.sort_unstable();
        ranked.truncate(ranked.len().div_ceil(8));
        let mut gone = vec![false; self.suspects.len()];
        for (_, person, place) in &ranked {
            self.places.remove(person);
            if let Some(kept) = self.suspects.get_mut(*place as usize) {
                *kept = None;
            }
            self.free.push(*place);
            gone[*place as usize] = true;
        }
        self.dropped += ranked.len() as u64;
        self.waiting.retain(|_, w| w.owner().is_none_or(|o| !gone.get(o).copied().unwrap_or_default()));
        if over(self) {
            // Only the pool's are left to go.
            self.waiting.retain(|_, w| w.owner().is_some());
        }
    }
}
