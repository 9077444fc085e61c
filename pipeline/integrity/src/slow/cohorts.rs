//! Coordinated senders: of accounts that were registered together, too many write to strangers of whom nobody answers.
//!
//! Each may be far too slow for a test of its own. So members of a cohort are looked at from their first stranger on, and at the first hour instead of
//! the first day; what counts is how many of them are answered by nearly nobody, against how many would be if all were answered alike.
//!
//! ```text
//!  contact of a member ── an hour later: answered or not ──► its counters ──► five contacts, and a tenth answered at most? ──► K of N
//!                      └─ answered later that day ──► out of K at that moment, and what was told of it is taken back              │
//!  the cohort's own share of answers, p₀ at least ──► how many of N would be so by chance ───────────────────── improbable? ◄────┘──► Crowd
//! ```
//!
//! **The test.** N: members with `contacts` new people or more. K: those of them of whom a tenth at most were answered. Let r be the share of the cohort's
//! contacts that were answered by now, but between p₀ and q within the hour of all senders together: attackers can be most of the new accounts and would set
//! that segment's, and who writes to a friend or two is answered more than who writes to many. Were each member's own share drawn from a beta distribution around r, with
//! the `spread` of the rule, then one of n contacts is in K with a probability that is a sum of beta-binomial terms; π is its mean over N. It fires when
//! K is at least `members`, and so many or more of N have at most the probability `tail` (binomial, which bounds a sum of unequal chances from above:
//! Hoeffding 1956, theorem 5). Members of one cohort are alike in what no model knows, so that more than `alike` of them say no more than as many do:
//! beyond that N, K and π N are scaled down.
//!
//! K is of answers by now as r is, so an old contact counts on both sides. A young one is asked a little more of than an hour gives; q bounds that, and what
//! it makes of innocents their answers take back. (With answers of the hour in r and those by now in K, a class that dilutes attackers tenfold hid them: of
//! three simulations one found 71 %.)
//!
//! How often it is wrong, where members are answered as the model says and q is 30 %: `how_often_a_class_is_told_that_is_answered_less_than_others` draws
//! classes of 60 with ten contacts each and looks once: of 200 that are answered at 15 % none is told, at 10 % five are. It is asked at each contact, which
//! makes that several times as many. A class that writes at night and is answered in the morning is told in the evening, as a priority, and taken back in
//! the morning.
//!
//! What has fired holds as long as K is more than chance makes: innocents who come to N later do not spare the slower of K. A member that an answer takes
//! out of K is taken back (`Crowd::stands`), under every pseudonym that it was told under (`told`). So is one that wrote to fewer than `lasting` and then, for a
//! calendar day, to nobody new: a cohort that is attacked from says of five silent strangers that they may be chance's as well as an attack's, and an attack goes on.
//!
//! *Counting members* survives dilution where adding up their contacts does not, and it spares whom a count alone would hit: a class of newcomers all write
//! to many new people, and all are answered as the class is. Innocents who are registered with attackers raise r, and with it what is asked of chance.
//! Members with few contacts are in r and not in N: there may be any number of them.
//!
//! Only members of K are named. Who is registered beside them and is answered, or writes to few, is never told.
//!
//! # Invariants
//! - **I9.** Contacts, hand-overs and days are taken in the order of their times, whatever the partitions' order: see [`Core::judge_due`](super::Core).
//! - What is left out hides: a contact that a filter takes for known, one that a table has no room for, a cohort without its day before.
//!
//! # Privacy
//! A cohort is known by its keyed form of a day, a member by its pseudonym; both go on under the next day's by the copy that a suspect's record goes on by.
//! Neither is kept when two days have passed without a contact. A crossing names a member and no cohort. Whoever has been told of is known by the pseudonyms it
//! was told under, as long as it is a member: the copies tie those already, and who has the state learns of a told account on which days it was told.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use starling_schemas::ids::EpochId;
use statrs::function::beta::checked_beta_reg;

use super::seconds;
use super::told::Told;
use crate::evidence::{Counts, EValue};
use crate::rules::Coordinated as Rule;

/// A member is forgotten after so many days without a contact.
const DAYS: i32 = 2;
/// More contacts of a member than this are taken for as many: what chance makes of more is less.
pub(super) const MOST_CONTACTS: usize = 24;

/// A member of K, of a cohort that has too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crowd {
    /// Its newest pseudonym.
    pub person: [u8; 16],
    /// Day of the key the pseudonym is under.
    pub epoch: i32,
    /// New people it wrote to.
    pub contacts: u32,
    /// Those of them who answered.
    pub answered: u32,
    /// N: members of its cohort with as many contacts as the rule asks for.
    pub members: u32,
    /// K: those of them whom nearly nobody answered.
    pub evident: u32,
    /// r, in thousandths.
    pub rate_permille: u16,
    /// How many of N chance makes so, in hundredths.
    pub usual_centi: u32,
    /// Probability that chance makes one of so many contacts so, in thousandths.
    pub own_chance_permille: u16,
    /// First of its contacts, in milliseconds since 1970-01-01 UTC.
    pub first_ms: i64,
    /// Last of them.
    pub last_ms: i64,
    /// Whether it is one of them; else what was told of it is taken back.
    pub stands: bool,
    /// Whether it is taken back because it wrote to few, and then to nobody new.
    pub is_silent: bool,
    /// What K of N speaks against the cohort: see [`evidence`](crate::evidence).
    pub e_value: Option<EValue>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) cohort: u32,
    pub(super) epoch: i32,
    pub(super) contacts: u16,
    /// Answered within the hour; within the day.
    pub(super) soon: u16,
    pub(super) answered: u16,
    /// First and last contact, in seconds since 1970.
    pub(super) first_s: u32,
    pub(super) last_s: u32,
}
const _: () = assert!(size_of::<([u8; 16], Member)>() <= 40);

impl Member {
    fn is_evident(&self, rule: &Rule) -> bool {
        u32::from(self.contacts) >= rule.contacts && u32::from(self.answered) <= most_answered(self.contacts.into())
    }
}

/// Of so many contacts, how many may be answered without speaking for the sender.
fn most_answered(contacts: u32) -> u32 {
    contacts.min(MOST_CONTACTS as u32) / 10
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Cohort {
    /// The one it became a part of, when it was seen that both are one.
    pub(super) into: Option<u32>,
    pub(super) epoch: i32,
    /// Contacts of all members, and those that were answered within the hour.
    pub(super) contacts: u32,
    pub(super) soon: u32,
    /// Those that were answered by now.
    pub(super) answered: u32,
    /// K.
    pub(super) evident: u32,
    /// Members by their contacts, from one on.
    pub(super) members: [u32; MOST_CONTACTS],
    pub(super) has_fired: bool,
}

impl Cohort {
    /// Counts a member as it is.
    fn add(&mut self, member: &Member, rule: &Rule) {
        let slot = usize::from(member.contacts).min(MOST_CONTACTS).checked_sub(1);
        if let Some(members) = slot.and_then(|slot| self.members.get_mut(slot)) {
            *members = members.saturating_add(1);
        }
        self.contacts = self.contacts.saturating_add(member.contacts.into());
        self.soon = self.soon.saturating_add(member.soon.into());
        self.answered = self.answered.saturating_add(member.answered.into());
        self.evident = self.evident.saturating_add(member.is_evident(rule).into());
    }

    /// Counts it no more.
    fn remove(&mut self, member: &Member, rule: &Rule) {
        let slot = usize::from(member.contacts).min(MOST_CONTACTS).checked_sub(1);
        if let Some(members) = slot.and_then(|slot| self.members.get_mut(slot)) {
            *members = members.saturating_sub(1);
        }
        self.contacts = self.contacts.saturating_sub(member.contacts.into());
        self.soon = self.soon.saturating_sub(member.soon.into());
        self.answered = self.answered.saturating_sub(member.answered.into());
        self.evident = self.evident.saturating_sub(member.is_evident(rule).into());
    }

    /// Whether, once it has fired, it still holds: as long as there are more members of K than chance makes. Who is slower than others of K is not spared
    /// because innocents beside it have come to N since.
    fn holds(&self, rule: &Rule, usual: Usual) -> bool {
        self.evident >= rule.members && f64::from(self.evident) > self.by_chance(rule, usual).2
    }

    /// What is to be said of one of its members.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn tell(&self, person: &[u8; 16], m: &Member, rule: &Rule, usual: Usual) -> Crowd {
        let (members, rate, by_chance) = self.by_chance(rule, usual);
        Crowd {
            person: *person,
            epoch: m.epoch,
            contacts: m.contacts.into(),
            answered: m.answered.into(),
            members,
            evident: self.evident,
            rate_permille: (rate * 1000.0).round() as u16,
            // Never more than it is.
            usual_centi: (by_chance * 100.0).floor() as u32,
            own_chance_permille: (chance(m.contacts.into(), m.answered.into(), rate, rule.spread) * 1000.0).round() as u16,
            first_ms: i64::from(m.first_s) * 1000,
            last_ms: i64::from(m.last_s) * 1000,
            stands: true,
            is_silent: false,
            e_value: EValue::of_looks(improbability(self.evident, members, by_chance, rule), self.contacts),
        }
    }

    /// N, r, and how many of N chance makes members of K.
    fn by_chance(&self, rule: &Rule, usual: Usual) -> (u32, f64, f64) {
        let own = f64::from(self.answered) / f64::from(self.contacts.max(1));
        let (p0, q) = (f64::from(usual.p0_permille) / 1000.0, f64::from(usual.q_permille) / 1000.0);
        let rate = own.min(q).max(p0).clamp(0.001, 0.999);
        let (mut of, mut usual) = (0_u32, 0.0);
        for (contacts, members) in (1..).zip(self.members).filter(|(contacts, _)| *contacts >= rule.contacts) {
            of = of.saturating_add(members);
            usual += f64::from(members) * chance(contacts, most_answered(contacts), rate, rule.spread);
        }
        (of, rate, usual)
    }
}

/// Probability that of so many contacts so few or fewer are answered, where the share is beta-distributed around `rate` with this spread: the sum of
/// beta-binomial terms.
pub(super) fn chance(contacts: u32, at_most: u32, rate: f64, spread: f64) -> f64 {
    let (a, b) = (rate * spread, (1.0 - rate) * spread);
    let mut term: f64 = (0..contacts).map(|i| (b + f64::from(i)) / (spread + f64::from(i))).product();
    let mut sum = term;
    for k in 0..at_most {
        let rest = f64::from(contacts - k);
        term *= rest / f64::from(k + 1) * (a + f64::from(k)) / (b + rest - 1.0);
        sum += term;
    }
    sum.clamp(0.0, 1.0)
}

/// Share of first contacts that are answered within the hour, of all senders together, and what of it still is nothing wrong; in thousandths.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usual {
    pub(super) p0_permille: u16,
    pub(super) q_permille: u16,
}

/// Whether one look at members with so many contacts and answers within the hour fires.
#[cfg(test)]
pub(super) fn fires(members: &[(u16, u16)], usual: Usual, rule: &Rule) -> bool {
    let mut cohort = Cohort::default();
    for &(contacts, soon) in members {
        cohort.add(&Member { cohort: 0, epoch: 0, contacts, soon, answered: soon, first_s: 0, last_s: 0 }, rule);
    }
    let (members, _, by_chance) = cohort.by_chance(rule, usual);
    cohort.evident >= rule.members && is_improbable(cohort.evident, members, by_chance, rule)
}

/// All cohorts and their members.
#[derive(Debug)]
pub(super) struct Cohorts {
    rule: Rule,
    pub(super) names: HashMap<[u8; 16], (u32, i32)>,
    /// By number; numbers are not used again.
    pub(super) all: BTreeMap<u32, Cohort>,
    pub(super) next: u32,
    pub(super) members: HashMap<[u8; 16], Member>,
    /// Names that turned out to be one cohort's, the day before's and the day's, and the second at which it was seen.
    pub(super) joined: BTreeMap<([u8; 16], [u8; 16]), u32>,
    pub(super) day: i32,
    pub(super) found: Vec<Crowd>,
    pub(super) told: Told,
    /// Members with as many contacts as are asked for, by day.
    pub(super) tested: Counts,
}

impl Cohorts {
    pub(super) fn new(rule: Rule) -> Self {
        Self {
            rule,
            names: HashMap::new(),
            all: BTreeMap::new(),
            next: 0,
            members: HashMap::new(),
            joined: BTreeMap::new(),
            day: i32::MIN,
            found: Vec::new(),
            told: Told::default(),
            tested: Counts::default(),
        }
    }

    /// Heap bytes.
    pub(super) fn bytes(&self) -> usize {
        self.names.capacity() * (size_of::<([u8; 16], (u32, i32))>() + 1)
            + self.all.len() * size_of::<(u32, Cohort)>()
            + self.members.capacity() * (size_of::<([u8; 16], Member)>() + 1)
            + self.told.bytes()
    }

    /// Takes in that this one, who wrote to somebody new, is of this cohort. Whether there was room.
    pub(super) fn note(&mut self, person: [u8; 16], cohort: [u8; 16], epoch: i32) -> bool {
        let most = self.rule.most_members as usize;
        let is_full = !self.members.contains_key(&person) && self.members.len() >= most;
        if is_full || (!self.names.contains_key(&cohort) && self.names.len() >= most) {
            return false;
        }
        let (all, next) = (&mut self.all, &mut self.next);
        let (number, newest) = self.names.entry(cohort).or_insert_with(|| {
            let number = *next;
            *next = next.wrapping_add(1);
            all.insert(number, Cohort { epoch, ..Cohort::default() });
            (number, epoch)
        });
        *newest = epoch.max(*newest);
        let number = *number;
        let new = Member { cohort: number, epoch, contacts: 0, soon: 0, answered: 0, first_s: u32::MAX, last_s: 0 };
        let own = self.members.entry(person).or_insert(new).cohort;
        for number in [number, own] {
            let root = self.root(number);
            if let Some(cohort) = self.all.get_mut(&root) {
                cohort.epoch = cohort.epoch.max(epoch);
            }
        }
        true
    }

    /// Lets a member go on under the next day's pseudonym. Of two that meet the one with more contacts stays.
    pub(super) fn renamed(&mut self, before: &[u8; 16], person: [u8; 16], epoch: i32) {
        let Some(old) = self.members.remove(before) else { return };
        self.told.renamed(before, person);
        let mut stays = old;
        if let Some(met) = self.members.remove(&person) {
            let (more, less) = if met.contacts > old.contacts { (met, old) } else { (old, met) };
            stays = more;
            self.uncount(&less);
        }
        self.members.insert(person, Member { epoch, ..stays });
    }

    /// Notes that the day before's name and the day's are of one cohort.
    pub(super) fn are_one(&mut self, time_ms: i64, before: [u8; 16], now: [u8; 16]) {
        let number = |name: &[u8; 16]| self.names.get(name).map(|(number, _)| self.root(*number));
        if number(&before).is_some_and(|root| number(&now) != Some(root)) {
            let seen_s = self.joined.entry((before, now)).or_insert(u32::MAX);
            *seen_s = seconds(time_ms).min(*seen_s);
        }
    }

    /// What became known of names before this second.
    pub(super) fn joined_before(&mut self, soon_s: u32) -> Vec<(u32, [u8; 16], [u8; 16])> {
        let (joined, later): (BTreeMap<_, _>, _) =
            std::mem::take(&mut self.joined).into_iter().partition(|(_, at_s)| *at_s < soon_s);
        self.joined = later;
        joined.into_iter().map(|((before, now), at_s)| (at_s, before, now)).collect()
    }

    /// Makes them one.
    pub(super) fn join(&mut self, before: &[u8; 16], now: &[u8; 16]) {
        let root = |name: &[u8; 16]| self.names.get(name).map(|(number, _)| self.root(*number));
        let (Some(to), from) = (root(before), root(now)) else { return };
        let Some(from) = from else {
            // Nobody of it has written to somebody new under today's name yet.
            let epoch = self.names.get(before).map_or(self.day, |(_, epoch)| epoch + 1);
            self.names.insert(*now, (to, epoch));
            return;
        };
        if to == from {
            return;
        }
        let Some(part) = self.all.get_mut(&from) else { return };
        let was = std::mem::replace(part, Cohort { into: Some(to), epoch: part.epoch, ..Cohort::default() });
        if let Some(whole) = self.all.get_mut(&to) {
            whole.members.iter_mut().zip(was.members).for_each(|(sum, more)| *sum = sum.saturating_add(more));
            whole.contacts = whole.contacts.saturating_add(was.contacts);
            whole.soon = whole.soon.saturating_add(was.soon);
            whole.answered = whole.answered.saturating_add(was.answered);
            whole.evident = whole.evident.saturating_add(was.evident);
            whole.epoch = whole.epoch.max(was.epoch);
            whole.has_fired |= was.has_fired;
        }
    }

    /// Whether each is a part of one that is there and a part of none: of damaged bytes it may go round in a circle.
    pub(super) fn has_roots(&self) -> bool {
        let mut steps = self.all.len() * 2;
        self.all.keys().all(|number| {
            let mut number = *number;
            while let Some(into) = self.all.get(&number).and_then(|c| c.into) {
                if steps == 0 {
                    return false;
                }
                (number, steps) = (into, steps - 1);
            }
            self.all.contains_key(&number)
        })
    }

    fn root(&self, mut number: u32) -> u32 {
        while let Some(into) = self.all.get(&number).and_then(|c| c.into) {
            number = into;
        }
        number
    }

    /// Takes a member out of its cohort's counts.
    fn uncount(&mut self, member: &Member) {
        let root = self.root(member.cohort);
        if let Some(cohort) = self.all.get_mut(&root) {
            cohort.remove(member, &self.rule);
        }
    }

    /// Begins a day: who has been silent for two is over. What was told of one that wrote to few is taken back.
    pub(super) fn begin(&mut self, day: i32, usual: Usual) {
        if day <= self.day {
            return;
        }
        self.day = day;
        let roots: BTreeMap<u32, u32> = self.all.keys().map(|number| (*number, self.root(*number))).collect();
        self.members.values_mut().for_each(|m| m.cohort = roots.get(&m.cohort).copied().unwrap_or(m.cohort));
        self.names.values_mut().for_each(|(number, _)| *number = roots.get(number).copied().unwrap_or(*number));
        let over_s = seconds(EpochId(day - DAYS + 1).start_ms());
        let stays = |member: &Member| member.last_s >= over_s || member.epoch > day - DAYS;
        let (all, rule) = (&mut self.all, &self.rule);
        // All of a cohort are told with the numbers it has while they are still of it.
        let leave =
            self.members.iter().filter(|(person, m)| !stays(m) && u32::from(m.contacts) < rule.lasting && self.told.has(person));
        let tell = |(person, m): (&[u8; 16], &Member)| {
            let cohort = all.get(&m.cohort)?;
            Some(Crowd { stands: false, is_silent: true, ..cohort.tell(person, m, rule, usual) })
        };
        let mut silent: Vec<Crowd> = leave.filter_map(tell).collect();
        silent.sort_unstable_by_key(|crowd| crowd.person);
        self.members.retain(|person, member| {
            let stays = stays(member);
            if !stays {
                if let Some(cohort) = all.get_mut(&member.cohort) {
                    cohort.remove(member, rule);
                }
                // What is to be taken back was put down just now.
                if silent.binary_search_by_key(person, |crowd| crowd.person).is_err() {
                    self.told.forget(person);
                }
            }
            stays
        });
        self.found.append(&mut silent);
        for cohort in self.all.values_mut() {
            cohort.has_fired &= cohort.evident > 0;
        }
        self.names.retain(|_, (_, epoch)| *epoch > day - DAYS - 1);
        self.all.retain(|_, cohort| cohort.into.is_none() && cohort.epoch > day - DAYS - 1);
    }

    /// An hour has passed since a member wrote to somebody new.
    pub(super) fn first_hour(&mut self, person: &[u8; 16], at_s: u32, was_answered: bool, usual: Usual) {
        let Some(before) = self.members.get(person).copied() else { return };
        let after = Member {
            contacts: before.contacts.saturating_add(1),
            soon: before.soon.saturating_add(was_answered.into()),
            answered: before.answered.saturating_add(was_answered.into()),
            first_s: before.first_s.min(at_s),
            last_s: before.last_s.max(at_s),
            ..before
        };
        self.count_tested(&before, &after);
        self.replace(person, &before, after);
        self.take_back(person, &before, &after, usual);
        self.let_go(after.cohort, usual);
        if after.is_evident(&self.rule) {
            self.ask(person, &after, usual);
        }
    }

    /// Counts a member of N, once a day on which it writes to somebody new.
    fn count_tested(&mut self, before: &Member, after: &Member) {
        let day = |at_s: u32| EpochId::of(i64::from(at_s) * 1000).0;
        let asked = self.rule.contacts;
        let is_first = u32::from(before.contacts) < asked || day(before.last_s) < day(after.last_s);
        if u32::from(after.contacts) >= asked && is_first {
            self.tested.add(day(after.last_s));
        }
    }

    /// An answer came within the day of a contact, but not within the hour.
    pub(super) fn late_answer(&mut self, person: &[u8; 16], usual: Usual) {
        let Some(before) = self.members.get(person).copied() else { return };
        let answered = before.answered.saturating_add(1).min(before.contacts);
        let after = Member { answered, ..before };
        self.replace(person, &before, after);
        self.take_back(person, &before, &after, usual);
        self.let_go(after.cohort, usual);
    }

    /// Takes back what was told of a cohort in which there are not more members of K any more than chance makes.
    fn let_go(&mut self, cohort: u32, usual: Usual) {
        let (root, rule) = (self.root(cohort), &self.rule);
        let Some(cohort) = self.all.get_mut(&root).filter(|cohort| cohort.has_fired) else { return };
        if cohort.holds(rule, usual) {
            return;
        }
        cohort.has_fired = false;
        let cohort = *cohort;
        let mut rest = self.of_k(root, |person, m| Crowd { stands: false, e_value: None, ..cohort.tell(person, m, rule, usual) });
        self.found.append(&mut rest);
    }

    /// What is to be said of all members of K of a cohort.
    fn of_k(&self, root: u32, tell: impl Fn(&[u8; 16], &Member) -> Crowd) -> Vec<Crowd> {
        let of_it = self.members.iter().filter(|(_, m)| m.is_evident(&self.rule) && self.root(m.cohort) == root);
        let mut named: Vec<_> = of_it.map(|(person, m)| tell(person, m)).collect();
        named.sort_unstable_by_key(|crowd| crowd.person);
        named
    }

    /// Takes back what was told of a member whom an answer has cleared.
    fn take_back(&mut self, person: &[u8; 16], before: &Member, after: &Member, usual: Usual) {
        if !before.is_evident(&self.rule) || after.is_evident(&self.rule) {
            return;
        }
        let root = self.root(after.cohort);
        if let Some(cohort) = self.all.get(&root).filter(|cohort| cohort.has_fired) {
            self.found.push(Crowd { stands: false, e_value: None, ..cohort.tell(person, after, &self.rule, usual) });
        }
    }

    /// Counts all members anew, under the rule of now.
    pub(super) fn recount(&mut self) {
        for cohort in self.all.values_mut() {
            *cohort = Cohort { into: cohort.into, epoch: cohort.epoch, has_fired: cohort.has_fired, ..Cohort::default() };
        }
        let members: Vec<Member> = self.members.values().copied().collect();
        for member in members {
            let root = self.root(member.cohort);
            if let Some(cohort) = self.all.get_mut(&root) {
                cohort.add(&member, &self.rule);
            }
        }
    }

    fn replace(&mut self, person: &[u8; 16], before: &Member, after: Member) {
        let root = self.root(before.cohort);
        if let Some(cohort) = self.all.get_mut(&root) {
            cohort.remove(before, &self.rule);
            cohort.add(&after, &self.rule);
        }
        self.members.insert(*person, after);
    }

    /// Asks of its cohort what a member of K makes of it.
    fn ask(&mut self, person: &[u8; 16], member: &Member, of_all: Usual) {
        let (root, rule) = (self.root(member.cohort), &self.rule);
        let Some(cohort) = self.all.get_mut(&root) else { return };
        if !cohort.has_fired {
            let (members, _, usual) = cohort.by_chance(rule, of_all);
            if cohort.evident < rule.members || !is_improbable(cohort.evident, members, usual, rule) {
                return;
            }
            cohort.has_fired = true;
            let cohort = *cohort;
            let mut all = self.of_k(root, |one, m| cohort.tell(one, m, rule, of_all));
            self.found.append(&mut all);
            return;
        }
        let told = cohort.tell(person, member, rule, of_all);
        self.found.push(told);
    }
}

/// Whether so many or more of so many have at most the rule's probability, where chance makes `usual` of them. What cannot be computed is not improbable.
pub(super) fn is_improbable(evident: u32, members: u32, usual: f64, rule: &Rule) -> bool {
    improbability(evident, members, usual, rule) <= rule.tail
}

/// The probability of so many or more; 1 where it is of no interest or cannot be computed.
fn improbability(evident: u32, members: u32, usual: f64, rule: &Rule) -> f64 {
    if evident == 0 || evident > members || f64::from(evident) <= usual {
        return 1.0;
    }
    let share = (usual / f64::from(members)).clamp(1e-12, 1.0);
    let scale = (f64::from(rule.alike) / f64::from(members)).min(1.0);
    let (evident, others) = (f64::from(evident) * scale, f64::from(members - evident) * scale);
    // The binomial's tail is the regularised incomplete beta function (Abramowitz and Stegun 26.5.24).
    checked_beta_reg(evident, others + 1.0, share).ok().filter(|p| p.is_finite()).unwrap_or(1.0)
}

/// How many of so many are improbable, at least the rule's fewest.
#[must_use]
pub(crate) fn threshold(members: u32, usual: f64, rule: &Rule) -> u32 {
    let (mut low, mut high) = (rule.members, members.max(rule.members));
    while low < high {
        let middle = low + (high - low) / 2;
        if is_improbable(middle, members, usual, rule) { high = middle } else { low = middle + 1 }
    }
    low
}
