//! Bounds what each person contributes, then adds up exactly. Whole numbers only.
//!
//! ```text
//!  rows (person, group, inputs) ─┬─ in order of person ──────────────► one person at a time ─► bound ─► totals, values per group
//!                                └─ in any order ─► piles by person ─► each pile sorted ────►    │
//!                                                                                                └ lots of the groups' keys
//! ```
//! Piles that do not fit the memory are left for another pass over the rows ([`Contributions::narrow`]): everybody is in one pile, whose rows are all
//! taken in one pass, so the answer is the same.
//!
//! # Privacy
//! Neighbours: two sets of rows of which one has all rows of one person more. What a person adds depends on their own rows, the question's
//! text and nothing else:
//! 1. each input of a row is clamped, and a person's rows in a group are summed per aggregate;
//! 2. a sum that is [one vector](Aggregate::is_one_vector): its parts, over all groups, are scaled down together until their squares add up to
//!    k·c² at most, with k = `groups_per_person` and c = [`Aggregate::step`], and rounded towards zero;
//! 3. what is 0 or 1, such as being there at all: of more groups (with anything in them) than k those stay whose lot, mixed with the person, is
//!    smallest; a lot is made of a group's keys, never of its number, which depends on who came first;
//! 4. a quantile's values: of each group so many stay that the squares of these numbers, over all groups, add up to `per_person`² at most; they
//!    are every so-manieth of the person's own in that group, from a start by lot.
//!
//! What is measured [beside](super::beside) the groups has bounds of its own.
//!
//! So a person changes a vector of totals by at most √k·c in length (L2); vectors of what is 0 or 1 in at most k places, by at most 1 in each; and
//! adds or takes values of a quantile whose numbers by group are a vector no longer than `per_person`. A person who came in two pieces would be bounded twice: rows that are said to be
//! in order are checked, and rows in any order are brought together before anything is bounded.

mod bounder;
mod piles;

use std::ops::Range;

use self::bounder::{Ball, Bounder, Rule, Totals};
use self::piles::{Held, PILES, bound_piles, empty, no_piles, scatter};
use super::beside::{Beside, Cuts, Pool};
use super::keys::NO_GROUP;
use super::spec::{ABSENT, Aggregate, Spec};
use super::suggest::{Histograms, Probe};
use crate::PrivacyError;

/// Who the rows are of, by batch.
#[derive(Debug, Clone, Copy)]
pub(crate) enum People<'a> {
    /// Identifiers that are whole numbers, or hashes of 64 bits that cannot collide.
    Short(&'a [u64]),
    /// Pseudonyms, and hashes of longer identifiers.
    Long(&'a [u128]),
}

impl People<'_> {
    pub(crate) fn len(self) -> usize {
        match self {
            Self::Short(people) => people.len(),
            Self::Long(people) => people.len(),
        }
    }
}

/// How rows come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// All rows of a person stand together, in ascending order of the person.
    ByPerson,
    /// In any order.
    Any,
}

/// A person as a number.
trait Person: Copy + Ord {
    fn mixed(self) -> u64;
}

/// Multiplies and folds: every bit of the product depends on every bit of the factors.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    #[allow(clippy::cast_possible_truncation)]
    let (low, high) = (product as u64, (product >> 64) as u64);
    low ^ high
}

const SALT: [u64; 3] = [0x9e37_79b9_7f4a_7c15, 0xd1b5_4a32_d192_ed03, 0xa076_1d64_78bd_642f];

impl Person for u64 {
    #[inline]
    fn mixed(self) -> u64 {
        fold(self ^ SALT[0], SALT[1])
    }
}

impl Person for u128 {
    #[inline]
    fn mixed(self) -> u64 {
        #[allow(clippy::cast_possible_truncation)]
        let (low, high) = (self as u64, (self >> 64) as u64);
        fold(low ^ SALT[0], high ^ SALT[1])
    }
}

/// The lot a person draws for a group. Groups whose lots are equal in all bits, of which there are none, would be one lot.
#[inline]
fn drawn(mixed: u64, lot: u128) -> (u64, u128) {
    #[allow(clippy::cast_possible_truncation)]
    let (low, high) = (lot as u64, (lot >> 64) as u64);
    (fold(mixed ^ low, high ^ SALT[2]), lot)
}

/// Exact answers below the noise: read by the mechanisms only, so no `Debug` and nothing public.
pub(crate) struct Exact {
    /// By aggregate: a total per group; empty for quantiles.
    pub(crate) totals: Vec<Vec<i64>>,
    /// By aggregate: (group, place on the grid) of every value, sorted; empty for sums.
    pub(crate) values: Vec<Vec<u64>>,
    /// What can be added up over groups that are not shown.
    pub(crate) pool: Option<Pool>,
    /// What was cut off.
    pub(crate) cuts: Option<Cuts>,
    /// Where bounds are to be found: people's values. Then there is nothing else.
    pub(crate) histograms: Histograms,
}

/// (group, place) as one number that sorts by group first.
#[inline]
pub(crate) fn value_of(group: u32, place: usize) -> u64 {
    (u64::from(group) << 32) | (place as u64 & 0xffff_ffff)
}

/// Takes rows batch by batch.
pub(crate) struct Contributions {
    spec: Spec,
    order: Order,
    beside: Beside,
    probes: Vec<Probe>,
    held: Option<Held>,
    rows: usize,
    /// The piles whose people are taken in this pass over the rows.
    taken: Range<usize>,
    /// Rows in order: the current person, their rows (group, row of `current_inputs`) so far, and what came before.
    current: Option<u128>,
    theirs: Vec<(u32, u32)>,
    current_inputs: Vec<Vec<i64>>,
    bounder: Bounder,
    balls: Vec<Option<Ball>>,
}

impl Contributions {
    /// Begins, with nobody in it.
    pub(crate) fn new(spec: Spec, order: Order) -> Self {
        let (bounder, inputs) = (Bounder::new(&spec, Beside::default(), &[]), vec![Vec::new(); spec.inputs.len()]);
        let beside = Beside::default();
        let groups = spec.groups_at_most();
        let balls = spec.aggregates.iter().map(|aggregate| Ball::of(aggregate, groups)).collect();
        Self {
            spec,
            order,
            beside,
            probes: Vec::new(),
            held: None,
            rows: 0,
            taken: 0..PILES,
            current: None,
            theirs: Vec::new(),
            current_inputs: inputs,
            bounder,
            balls,
        }
    }

    /// Measures this beside the groups, too. Nobody may have come yet.
    pub(crate) fn beside(self, beside: Beside) -> Self {
        Self { bounder: Bounder::new(&self.spec, beside, &self.probes), beside, ..self }
    }

    /// Finds bounds, in place of answers. Nobody may have come yet.
    pub(crate) fn probing(self, probes: Vec<Probe>) -> Self {
        Self { bounder: Bounder::new(&self.spec, self.beside, &probes), probes, ..self }
    }

    /// Bytes that the rows which wait to be bounded take, and what is held of people who were.
    pub(crate) fn bytes(&self) -> usize {
        let person = if matches!(self.held, Some(Held::Short(_))) { 8 } else { 16 };
        self.rows * (person + 4 + 8 * self.spec.inputs.len()) + self.bounder.out.pool.as_ref().map_or(0, Pool::bytes)
    }

    /// Adds rows. `groups`: each row's, or empty where there is one group; `inputs`: a column each, clamped when the person is bounded; `lots`: of all groups so far.
    ///
    /// # Errors
    /// [`PrivacyError::Unsorted`], [`PrivacyError::Overflow`]; [`PrivacyError::Question`] for columns that do not fit the question.
    pub(crate) fn push(
        &mut self,
        people: People<'_>,
        groups: &[u32],
        inputs: &[&[i64]],
        lots: &[u128],
    ) -> Result<(), PrivacyError> {
        let rows = people.len();
        let fits = (groups.len() == rows || (self.spec.keys == 0 && groups.is_empty()))
            && inputs.len() == self.spec.inputs.len()
            && inputs.iter().all(|input| input.len() == rows);
        if !fits {
            return Err(PrivacyError::Question { what: "the rows do not have the question's columns" });
        }
        match (self.order, people) {
            (Order::ByPerson, People::Long(people)) => self.stream(people, groups, inputs, lots),
            (Order::ByPerson, People::Short(people)) => {
                let people: Vec<u128> = people.iter().map(|person| u128::from(*person)).collect();
                self.stream(&people, groups, inputs, lots)
            }
            (Order::Any, People::Short(people)) => {
                let columns = self.spec.inputs.len();
                let held = self.held.get_or_insert_with(|| Held::Short(no_piles(columns)));
                let Held::Short(piles) = held else { return Err(MIXED) };
                self.rows += scatter(piles, &self.taken, people, groups, inputs);
                Ok(())
            }
            (Order::Any, People::Long(people)) => {
                let columns = self.spec.inputs.len();
                let held = self.held.get_or_insert_with(|| Held::Long(no_piles(columns)));
                let Held::Long(piles) = held else { return Err(MIXED) };
                self.rows += scatter(piles, &self.taken, people, groups, inputs);
                Ok(())
            }
        }
    }

    fn stream(&mut self, people: &[u128], groups: &[u32], inputs: &[&[i64]], lots: &[u128]) -> Result<(), PrivacyError> {
        let mut from = 0;
        for rows in people.chunk_by(|a, b| a == b) {
            let Some(person) = rows.first() else { continue };
            match self.current {
                Some(last) if last == *person => {}
                Some(last) if last > *person => return Err(PrivacyError::Unsorted),
                Some(_) => self.complete(lots)?,
                None => {}
            }
            self.current = Some(*person);
            for row in from..from + rows.len() {
                let group = groups.get(row).copied().unwrap_or(0);
                if group == NO_GROUP {
                    continue;
                }
                self.theirs.push((group, u32::try_from(self.theirs.len()).unwrap_or(u32::MAX)));
                for (held, input) in self.current_inputs.iter_mut().zip(inputs) {
                    held.push(input.get(row).copied().unwrap_or(ABSENT));
                }
            }
            from += rows.len();
        }
        Ok(())
    }

    /// Bounds the current person, who has no more rows.
    pub(crate) fn complete(&mut self, lots: &[u128]) -> Result<(), PrivacyError> {
        if let Some(person) = self.current.take() {
            self.theirs.sort_unstable();
            let inputs = &self.current_inputs;
            let input = |column: usize, row: u32| inputs.get(column).and_then(|c| c.get(row as usize)).copied().unwrap_or(ABSENT);
            self.bounder.person(
                Rule { spec: &self.spec, balls: &self.balls, lots, probes: &self.probes },
                person.mixed(),
                &self.theirs,
                input,
            )?;
            self.theirs.clear();
            self.current_inputs.iter_mut().for_each(Vec::clear);
        }
        Ok(())
    }

    /// Leaves half of the people of this pass for another one, and forgets their rows. `false` if there is nothing more to leave.
    pub(crate) fn narrow(&mut self) -> bool {
        if self.order == Order::ByPerson || self.taken.len() < 2 {
            return false;
        }
        self.taken.end = self.taken.start + self.taken.len() / 2;
        self.rows = match &mut self.held {
            None => 0,
            Some(Held::Short(piles)) => empty(piles, self.taken.end),
            Some(Held::Long(piles)) => empty(piles, self.taken.end),
        };
        true
    }

    /// All rows have come. `true` if there are people left, for whom all rows have to come once more.
    ///
    /// # Errors
    /// [`PrivacyError::Overflow`].
    pub(crate) fn next_pass(&mut self, lots: &[u128]) -> Result<bool, PrivacyError> {
        if self.taken.end == PILES {
            return Ok(false);
        }
        self.settle(lots)?;
        self.taken = self.taken.end..PILES;
        Ok(true)
    }

    /// Bounds whoever waits in piles.
    fn settle(&mut self, lots: &[u128]) -> Result<(), PrivacyError> {
        let rule = Rule { spec: &self.spec, balls: &self.balls, lots, probes: &self.probes };
        self.rows = 0;
        match self.held.take() {
            None => Ok(()),
            Some(Held::Short(piles)) => bound_piles(piles, rule, self.beside, &mut self.bounder.out),
            Some(Held::Long(piles)) => bound_piles(piles, rule, self.beside, &mut self.bounder.out),
        }
    }

    /// Bounds whoever waits, and gives the exact answers for `groups` groups.
    ///
    /// # Errors
    /// [`PrivacyError::Overflow`]; [`PrivacyError::Question`] while people are left for another pass.
    pub(crate) fn finish(mut self, lots: &[u128]) -> Result<Exact, PrivacyError> {
        self.complete(lots)?;
        if self.taken.end != PILES {
            return Err(PrivacyError::Question { what: "not all rows were read" });
        }
        self.settle(lots)?;
        let Totals { mut totals, mut values, pool, cuts, histograms } = self.bounder.out;
        for (totals, aggregate) in totals.iter_mut().zip(&self.spec.aggregates) {
            if matches!(aggregate, Aggregate::Sum { .. }) {
                totals.resize(lots.len(), 0);
            }
        }
        values.iter_mut().for_each(|values| values.sort_unstable());
        Ok(Exact { totals, values, pool, cuts, histograms })
    }
}

const MIXED: PrivacyError = PrivacyError::Question { what: "the person column changed its type" };

#[cfg(test)]
mod tests;
