//! # Evidence as e-values, and which alerts it chooses under a stated false-discovery level
//!
//! **Comes in:** what a statistical rule computed of a subject, and how many subjects it tested. **Goes out:** an e-value an alert, and of each alert the
//! least false-discovery level at which it is chosen. Pure functions over numbers, and counters of what was tested; no clock, no database.
//!
//! ```text
//!   slow_bulk            sum of the reply test, by levels it reached ─┐
//!   coordinated_senders  tail of a binomial, paid for each look ──────┤ calibrated ─► e-value ─► mean over the channels ─► e-BH over the ─► level
//!   business_blocks      tail of a gamma-Poisson ─────────────────────┤   of an alert            of a subject              subjects of a   of an alert
//!   group_reports        the same, paid for each window ──────────────┘                                                    kind and day
//! ```
//!
//! Rules with a hard limit (`bulk_per_minute`, `business_reach`, `group_listed` and others) say that a limit was passed and promise no error rate. They have
//! no e-value and are never chosen among: they are told. So is what `business_template` finds: blocks come hours behind the messages they are of, so that its likelihood
//! ratio is below the martingale's for a while and beyond it later; it states an error of its own, for each template, measured with such delays.
//!
//! # An e-value
//! An *e-value* is a number that is never negative and on average at most 1 where nothing is wrong; 1 000 is what a fair bet makes of 1 with a probability
//! of at most one in a thousand (Vovk and Wang 2021; Shafer 2021). It is kept as its decimal logarithm, rounded down to a tenth.
//!
//! **`slow_bulk`.** A hypothesis is a *trial*: it begins with each new contact that is judged while the sum is at zero, and ends where the sum is at zero
//! again. One whose first contact is answered ends at once. It must be counted all the same: of those that go on, the first contact speaks against the sender
//! with certainty, and their mean is above 1. From its beginning the likelihood ratio is a supermartingale where a sender is answered at p₀ or more, as p₀ is held
//! fixed from zero to zero, increments are rounded against an alert, and a contact of which a filter erred can only lower it. What it is when it first
//! reaches a level is an e-value (0 if it never does), and so is any average of such. Levels are the multiples of the rule's threshold `h`, with the
//! weights 0.9, 0.09, 0.009 …:
//!
//! ```text
//!   e  =  Σ  0.9 · 0.1ʲ · exp((j+1) h)   over the multiples that the sum has reached
//!         j
//! ```
//!
//! That grows with the sum and never falls (e-processes that start at each time: Shin, Ramdas and Rinaldo 2024; a running maximum is no e-value, its average
//! over levels is: Shafer, Shen, Vereshchagin and Vovk 2011). A second pseudonym of the same trial has what it reached anew, which is no more; an alert that
//! tells of two trials of a day has the larger, which is no more than both, and both are counted.
//!
//! **`coordinated_senders`.** The tail of `slow/cohorts.rs` is looked at with each contact of a cohort. The n-th look is given the share
//! 1 / (n (n + 1)) of the error, and n is at most the cohort's contacts, so that the least of `n (n + 1) p` is a p-value whenever one looks;
//! members are looked at for two days, in each of which contacts only come, so it is taken twice. All members of K have their cohort's.
//!
//! **`business_blocks`, `group_reports`.** The tail of a count is a p-value of the day, and of one window; a group's day has [`WINDOWS`] at most, and
//! so many times the tail is one of their least.
//!
//! A p-value becomes an e-value by the calibrator `κ p^(κ−1)` with κ = 0.1, whose integral over p is 1 (Vovk and Wang 2021, section 2); κ = −1 / ln p is the best
//! at p, which is 0.07 at one in a million.
//!
//! # Fusion
//! A person's evidence is the mean of the e-values of all channels that look at people, which is an e-value whatever ties them together (Vovk and Wang 2021,
//! proposition 3.1: the mean is the only symmetric way of merging that is). A channel with nothing to say counts as 0, not as 1: what it has not told may be
//! anything from 0 on, and a mean of what is not known to be at most 1 promises nothing. It costs a factor of 2 at most.
//!
//! # The choosing
//! It is [`starling_schemas::chosen`], for others read alerts as well. e-BH (Wang and Ramdas 2022): of `m` tested, sorted e₍₁₎ ≥ e₍₂₎ ≥ …, the level of the i-th is the least `m / (k e₍ₖ₎)` over k ≥ i, at most 1.
//! What has a level of α or less is chosen at α; of it at most the share α is false on average, *under any dependence* between subjects.
//!
//! `m` is of a kind of subject and a day, and of what could have been found:
//!
//! | kind | m |
//! |---|---|
//! | person | trials that began on the day or the 15 before, as long as one may last; and members of cohorts that have as many contacts as are asked for, of that day and the one before |
//! | business | businesses that anything was said of on the day |
//! | group | groups that something happened in, by a sketch: three standard errors more than it estimates |
//!
//! Not all users: who wrote to nobody new was not tested. Not those only of whom something was found: what is chosen by its outcome is no hypothesis.
//!
//! # It keeps nothing back
//! The settings state a level (`integrity.false_discovery`, 5 %), at which verdicts on what is chosen are told beside what was promised. What is not chosen is told all
//! the same. On three simulated traces of ten days (2,000 and twice 4,000 people, 279 planted abusers; `starling evaluate`) 679 alerts had an e-value, all of
//! them on abusers: at 10 % 649 were chosen, at 5 % 618, at 1 % 584. Keeping back what 5 % does not choose would have spared nobody and missed 9 abusers whom
//! nothing but `slow_bulk` finds; on the first trace four of the five who write to twelve strangers a day. Just over its threshold an alert is worth 9,000,
//! which is enough where one of some two hundred that were tested is found, and not where fewer are. Among 20,000 people for fourteen days, where fewer are, it
//! would have missed 53 (`benches/results`, 2026-11-28).
//! Nor may it be kept back of a rule that users were promised tells (`business_blocks`, P23). Where verdicts show that what is not chosen is mostly false, the
//! rule's threshold is to be raised, or its standing changed.
//!
//! # Invariants
//! - **I9.** E-values and `m` are functions of the signals taken, not of how they were cut into batches. The level of a day is moved by all that is found on it, so it
//!   is computed where it is read and is in no alert; it is settled when the day's signals are judged, which for people is a day and an hour later.
//! - What is left out (records that overload drops, a rule's floor) counts as e = 0 and stays in `m`: it hides and never adds.
//!
//! # Privacy
//! An e-value of `slow_bulk` moves at multiples of the threshold only, of which the alert tells the first by being there and the second by its severity: it does
//! not tell how many answered. Of cohorts and groups it is rounded to a tenth of a decade, and what came under ten counts as ten as in the rule. `m` is a count of a day.
//!
//! # What can go wrong
//! - **The null is the model's.** Senders who are answered less than p₀ though nothing is wrong, categories that are blocked more than `rules.toml` says, classes
//!   whose members share what no model knows: their e-values are not of mean 1. Nothing here sees that. Verdicts do (`promise`), which is why what is promised and what is observed stand apart.
//! - **`m` is itself drawn.** One sender's trials move it by as many as he has; where thousands are tested that is nothing, with a handful the level is rough.
//! - **A mean is of days.** A day on which one alert is chosen and false has a share of 1; the promise is for the mean over days, not for each.
//! - With several parts (`pair_partitions` above 1) each part chooses among its own.

use std::collections::BTreeMap;

use starling_schemas::chosen::{Found, OfPart};
pub use starling_schemas::chosen::{TestedDays, chosen, levels};
use starling_schemas::ids::EpochId;

use crate::IntegrityError;
use crate::alert::Alert;
use crate::codec::{Reader, Writer};
use crate::engine::Engine;
use crate::sketch::{REGISTERS, Reach};

#[cfg(test)]
mod tests;

/// Exponent of the calibrator.
const KAPPA: f64 = 0.1;
/// What the next multiple of the threshold weighs beside the one before.
const NEXT_LEVEL: f64 = 0.1;
/// Multiples of the threshold that are looked at.
const MOST_LEVELS: u32 = 24;
/// Hours of a group's day that are looked at: one ends with each pane of ten minutes, the last after midnight.
const WINDOWS: f64 = 150.0;
/// A trial of a day's sender may have begun so many days before.
const TRIAL_DAYS: i32 = 15;
/// Days that counts of what was tested are kept.
const KEEP_DAYS: usize = 40;
/// Days whose groups are still counted.
const LIVE_DAYS: i32 = 3;

/// An e-value: its decimal logarithm, rounded down to a tenth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EValue {
    deci: i32,
}

impl EValue {
    /// As it is saved.
    pub(crate) const fn deci(self) -> i32 {
        self.deci
    }

    /// As it was saved.
    pub(crate) const fn of_deci(deci: i32) -> Self {
        Self { deci }
    }

    /// Of this decimal logarithm.
    #[allow(clippy::cast_possible_truncation)]
    fn of_log10(log10: f64) -> Option<Self> {
        log10.is_finite().then(|| Self { deci: (log10 * 10.0).floor() as i32 })
    }

    /// Of a p-value, by the calibrator. What is no probability is no evidence.
    #[must_use]
    pub fn of_p(p: f64) -> Option<Self> {
        if p.is_nan() {
            return None;
        }
        // Below this a tail is told as zero.
        Self::of_log10(KAPPA.log10() + (KAPPA - 1.0) * p.clamp(1e-300, 1.0).log10())
    }

    /// Of the reply test's sum, in thousandths of a nat, where the rule alerts at `threshold`. `None` below it.
    pub(crate) fn of_sum(score: i32, threshold: i32) -> Option<Self> {
        if threshold <= 0 || score < threshold {
            return None;
        }
        let h = f64::from(threshold) / 1000.0;
        let reached = u32::try_from(score / threshold).unwrap_or(1).min(MOST_LEVELS);
        // By the largest, which may be beyond what a float holds.
        let (mut log, mut weight) = (f64::NEG_INFINITY, (1.0 - NEXT_LEVEL).ln());
        for level in 1..=reached {
            let term = weight + f64::from(level) * h;
            log = term.max(log) + (-(term - log).abs()).exp().ln_1p();
            weight += NEXT_LEVEL.ln();
        }
        Self::of_log10(log / std::f64::consts::LN_10)
    }

    /// Of a cohort's tail `p` after so many contacts of it.
    pub(crate) fn of_looks(p: f64, contacts: u32) -> Option<Self> {
        let n = f64::from(contacts.max(1));
        Self::of_p(2.0 * n * (n + 1.0) * p)
    }

    /// Of the least tail of a group's windows of a day.
    pub(crate) fn of_windows(p: f64) -> Option<Self> {
        Self::of_p(WINDOWS * p)
    }

    /// Its decimal logarithm.
    #[must_use]
    pub fn log10(self) -> f64 {
        f64::from(self.deci) / 10.0
    }
}

/// An alert as it is chosen. `None`: its rule promises no error rate, or it does not hold any more.
#[must_use]
pub fn found(alert: &Alert) -> Option<Found<'_>> {
    let log10 = alert.e_value_log10.filter(|_| alert.stands())?;
    let day = match &alert.subject.epoch {
        Some(epoch) => EpochId::parse(epoch)?,
        None => EpochId::of(alert.window.start_ms),
    };
    let (fingerprint, kind, subject) = (&alert.fingerprint, &alert.subject.kind, &alert.subject.value);
    Some(Found { fingerprint, kind, subject, day: day.0, log10 })
}

/// How many hypotheses began on which day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Counts {
    days: BTreeMap<i32, u64>,
    /// The first day of which all were counted.
    from: i32,
}

impl Default for Counts {
    /// Of a detector that has seen nothing: before it there was nothing that it could find.
    fn default() -> Self {
        Self { days: BTreeMap::new(), from: i32::MIN }
    }
}

impl Counts {
    /// One more.
    pub(crate) fn add(&mut self, day: i32) {
        self.put(day, 1);
    }

    fn put(&mut self, day: i32, more: u64) {
        let count = self.days.entry(day).or_default();
        *count = count.saturating_add(more);
        if self.days.len() > KEEP_DAYS
            && let Some((over, _)) = self.days.pop_first()
        {
            self.from = self.from.max(over.saturating_add(1));
        }
    }

    /// Says that what was before this day was not counted.
    pub(crate) fn begin(&mut self, day: i32) {
        self.from = self.from.max(day);
    }

    /// Those of the day and so many before it. `None`: not all of them were counted.
    fn through(&self, day: i32, before: i32) -> Option<u64> {
        let first = day.saturating_sub(before);
        (first >= self.from).then(|| self.days.range(first..=day).fold(0_u64, |sum, (_, count)| sum.saturating_add(*count)))
    }

    pub(crate) fn save(&self, out: &mut Writer) {
        out.i32(self.from);
        out.count(self.days.len());
        for (day, count) in &self.days {
            out.i32(*day);
            out.0.extend_from_slice(&count.to_le_bytes());
        }
    }

    pub(crate) fn read(input: &mut Reader<'_>) -> Result<Self, IntegrityError> {
        let (from, mut days) = (input.i32()?, BTreeMap::new());
        for _ in 0..input.count(12)? {
            days.insert(input.i32()?, u64::from_le_bytes(input.array()?));
        }
        Ok(Self { days, from })
    }
}

/// m of people on a day: `trials` of the reply test, by the day of their first contact, and `members` of cohorts with as many contacts as are asked for.
/// `None`: not all of them were counted.
pub(crate) fn people_tested(trials: &Counts, members: &Counts, day: i32) -> Option<u64> {
    Some(trials.through(day, TRIAL_DAYS)?.saturating_add(members.through(day, 1)?))
}

/// How many businesses and groups were tested, by day.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Tested {
    /// Businesses.
    pub(crate) businesses: Counts,
    /// Groups: a sketch, of the last days.
    groups: BTreeMap<i32, Reach>,
    /// The same of days that are over.
    groups_over: Counts,
}

impl Tested {
    /// Something happened in a group, under the key of this day.
    pub(crate) fn group(&mut self, day: i32, group: &[u8; 16]) {
        // What is that old has been counted, without this one.
        if self.groups_over.days.last_key_value().is_some_and(|(over, _)| *over >= day) {
            self.groups_over.begin(day.saturating_add(1));
            return;
        }
        self.groups.entry(day).or_default().add(group);
        let newest = self.groups.last_key_value().map_or(day, |(newest, _)| *newest);
        while let Some(over) = self.groups.first_entry().filter(|first| *first.key() <= newest.saturating_sub(LIVE_DAYS)) {
            let (day, reach) = over.remove_entry();
            self.groups_over.put(day, at_most(&reach));
        }
    }

    /// Says that what was before this day was not counted.
    pub(crate) fn begin(&mut self, day: i32) {
        self.businesses.begin(day);
        self.groups_over.begin(day);
    }

    /// m of a kind of subject, `business` or `group`, on a day since 1970-01-01: see this module's text. `None`: not all of them were counted.
    pub(crate) fn of(&self, kind: &str, day: i32) -> Option<u64> {
        match (kind, self.groups.get(&day)) {
            ("business", _) => self.businesses.through(day, 0),
            ("group", Some(reach)) => self.groups_over.through(day, 0).map(|_| at_most(reach)),
            ("group", None) => self.groups_over.through(day, 0),
            _ => None,
        }
    }

    /// Bytes of sketches.
    pub(crate) fn bytes(&self) -> usize {
        self.groups.len() * REGISTERS
    }

    pub(crate) fn save(&self, out: &mut Writer) {
        self.businesses.save(out);
        out.count(self.groups.len());
        for (day, reach) in &self.groups {
            out.i32(*day);
            out.0.extend_from_slice(reach.registers.as_slice());
        }
        self.groups_over.save(out);
    }

    pub(crate) fn read(input: &mut Reader<'_>) -> Result<Self, IntegrityError> {
        let businesses = Counts::read(input)?;
        let mut groups = BTreeMap::new();
        for _ in 0..input.count(4 + REGISTERS)? {
            let day = input.i32()?;
            groups.insert(day, Reach { registers: Box::new(input.array()?) });
        }
        Ok(Self { businesses, groups, groups_over: Counts::read(input)? })
    }
}

impl Engine {
    /// How many subjects of a kind, `person`, `business` or `group`, were tested by rules with an e-value on a day since 1970-01-01. `None`: not all of
    /// them were counted.
    #[must_use]
    pub fn tested(&self, kind: &str, day: i32) -> Option<u64> {
        if kind == "person" { self.slow.tested(day) } else { self.tested.of(kind, day) }
    }

    /// Of each alert with an e-value, by its fingerprint, the least false-discovery level at which it is chosen as of now.
    #[must_use]
    pub fn levels(&self) -> BTreeMap<String, f64> {
        chosen(self.alerts.values().filter_map(found), |kind, day| self.tested(kind, day))
    }

    /// How many were tested on the last days, as [`TestedDays`] reads it. Empty before the first signal.
    ///
    /// # Errors
    /// [`IntegrityError::Snapshot`] when it cannot be written.
    pub fn tested_days(&self) -> Result<String, IntegrityError> {
        if self.newest_ms == i64::MIN {
            return Ok(String::new());
        }
        // A sender's alert may have the next day's name.
        let last = EpochId::of(self.newest_ms).0.saturating_add(1);
        let first = last.saturating_sub(i32::try_from(KEEP_DAYS).unwrap_or_default());
        let of = |kind: &str| (first..=last).map(|day| self.tested(kind, day)).collect();
        let part = OfPart { first, person: of("person"), business: of("business"), group: of("group") };
        part.json().ok_or(IntegrityError::Snapshot("what was tested"))
    }
}

/// At most so many were counted by a sketch, as far as three standard errors go.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn at_most(reach: &Reach) -> u64 {
    reach.at_most().ceil() as u64
}
