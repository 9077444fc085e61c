//! Bounds what each person contributes, then adds up exactly. Whole numbers only.
//!
//! ```text
//!  rows (person, group, inputs) ─┬─ in order of person ──────────────► one person at a time ─► bound ─► totals, values per group
//!                                └─ in any order ─► piles by person ─► each pile sorted ────►    │
//!                                                                                                └ lots of the groups' keys
//! ```
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

use super::beside::{self, Beside, Cuts, Pool};
use super::keys::NO_GROUP;
use super::spec::{ABSENT, Aggregate, Source, Spec};
use super::suggest::{self, Histograms, Probe};
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

/// What people who were bounded have added.
#[derive(Default)]
struct Totals {
    totals: Vec<Vec<i64>>,
    values: Vec<Vec<u64>>,
    pool: Option<Pool>,
    cuts: Option<Cuts>,
    histograms: Histograms,
}

impl Totals {
    fn new(spec: &Spec, beside: Beside) -> Self {
        let aggregates = spec.aggregates.len();
        Self {
            totals: vec![Vec::new(); aggregates],
            values: vec![Vec::new(); aggregates],
            pool: beside.other.then(|| Pool::new(aggregates)),
            cuts: beside.bias.then(|| Cuts::new(aggregates)),
            histograms: Histograms::default(),
        }
    }

    fn add(&mut self, aggregate: usize, group: u32, amount: i64) -> Result<(), PrivacyError> {
        let (Some(totals), Ok(group)) = (self.totals.get_mut(aggregate), usize::try_from(group)) else { return Ok(()) };
        if totals.len() <= group {
            totals.resize(group + 1, 0);
        }
        let Some(slot) = totals.get_mut(group) else { return Ok(()) };
        *slot = slot.checked_add(amount).ok_or(PrivacyError::Overflow)?;
        Ok(())
    }

    fn merge(&mut self, other: Self) -> Result<(), PrivacyError> {
        for (aggregate, totals) in other.totals.into_iter().enumerate() {
            for (group, amount) in (0..).zip(totals) {
                if amount != 0 {
                    self.add(aggregate, group, amount)?;
                }
            }
        }
        for (mine, theirs) in self.values.iter_mut().zip(other.values) {
            mine.extend(theirs);
        }
        if let (Some(mine), Some(theirs)) = (&mut self.pool, other.pool) {
            mine.merge(theirs)?;
        }
        if let (Some(mine), Some(theirs)) = (&mut self.cuts, other.cuts) {
            mine.merge(&theirs)?;
        }
        self.histograms.merge(&other.histograms);
        Ok(())
    }
}

/// Bounds one person after the other.
#[derive(Default)]
struct Bounder {
    out: Totals,
    /// The current person's groups that have something in them: where their amounts and values begin.
    groups: Vec<u32>,
    /// By group of `groups`, by aggregate.
    amounts: Vec<i64>,
    /// The same before any bound, where it is measured what is cut off.
    raw: Vec<i128>,
    /// (place in `groups`, aggregate, place on the grid).
    values: Vec<(u32, u32, u32)>,
    own: Vec<i64>,
    order: Vec<(u64, u128, u32)>,
    set: Vec<u32>,
}

/// The longest vector of one person, for aggregates that are one vector.
#[derive(Debug, Clone, Copy)]
struct Ball {
    /// k·c², the square of its length.
    square: u128,
    /// The largest whole part any group may have, and the smallest.
    high: i64,
    low: i64,
}

impl Ball {
    fn of(aggregate: &Aggregate, groups: u32) -> Option<Self> {
        let square = |side: u64| u128::from(side) * u128::from(side) * u128::from(groups);
        let longest = |side: u64| i64::try_from(square(side).isqrt()).unwrap_or(i64::MAX);
        match aggregate {
            Aggregate::Sum { low, high, .. } => aggregate.is_one_vector().then(|| Self {
                square: square(aggregate.step()),
                high: longest(high.unsigned_abs()),
                low: -longest(low.unsigned_abs()),
            }),
            Aggregate::Quantile { per_person, .. } => {
                Some(Self { square: u128::from(*per_person).pow(2), high: i64::MAX, low: 0 })
            }
        }
    }

    fn length(parts: &[i64]) -> u128 {
        parts.iter().map(|part| u128::from(part.unsigned_abs()).pow(2)).fold(0, u128::saturating_add)
    }

    /// Scales parts down to the ball, rounding towards zero. Whether they are inside is decided in whole numbers. Gives what is left of the square;
    /// `None` if they were inside.
    fn scale(self, parts: &mut [i64]) -> Option<u128> {
        let mut square = Self::length(parts);
        if square <= self.square {
            return None;
        }
        while square > self.square {
            #[allow(clippy::cast_precision_loss)]
            let factor = (self.square as f64 / square as f64).sqrt() * (1.0 - 1e-12);
            for part in parts.iter_mut() {
                #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
                let scaled = (*part as f64 * factor) as i64;
                // A float cannot hold every whole number: never longer than before.
                *part = if scaled.unsigned_abs() < part.unsigned_abs() { scaled } else { *part - part.signum() };
            }
            square = Self::length(parts);
        }
        Some(self.square - square)
    }
}

/// What bounding depends on beside the person's own rows.
#[derive(Clone, Copy)]
struct Rule<'a> {
    spec: &'a Spec,
    /// By aggregate.
    balls: &'a [Option<Ball>],
    /// By group.
    lots: &'a [u128],
    /// Bounds that are to be found.
    probes: &'a [Probe],
}

impl Bounder {
    fn new(spec: &Spec, beside: Beside, probes: &[Probe]) -> Self {
        let mut out = Totals::new(spec, beside);
        out.histograms = Histograms::new(probes);
        Self { out, ..Self::default() }
    }

    /// Notes a person's values for the bounds that are to be found.
    fn probe(&mut self, rule: Rule<'_>, rows: &[(u32, u32)], input: impl Fn(usize, u32) -> i64 + Copy) {
        let spec = rule.spec;
        let mut largest = vec![0_u128; spec.aggregates.len()];
        let mut groups = 0;
        for theirs in rows.chunk_by(|a, b| a.0 == b.0).filter(|theirs| theirs.first().is_some_and(|row| row.0 != NO_GROUP)) {
            let value = |column: usize| -> i128 {
                let clamp = spec.inputs.get(column);
                let within = |row: u32| clamp.map_or(ABSENT, |clamp| clamped(input(column, row), clamp.low, clamp.high));
                theirs.iter().map(|(_, row)| within(*row)).filter(|value| *value != ABSENT).map(i128::from).sum()
            };
            groups += 1;
            for (largest, aggregate) in largest.iter_mut().zip(&spec.aggregates) {
                *largest = (*largest).max(suggest::part(aggregate, theirs.len() as u64, value));
            }
        }
        self.out.histograms.person(rule.probes, groups, &largest);
    }

    /// Adds a person. `rows`: (group, row), sorted by group; `input(column, row)` is an input as it came, or [`ABSENT`].
    fn person(
        &mut self,
        rule: Rule<'_>,
        mixed: u64,
        rows: &[(u32, u32)],
        input: impl Fn(usize, u32) -> i64 + Copy,
    ) -> Result<(), PrivacyError> {
        let Rule { spec, balls, lots, probes } = rule;
        if !probes.is_empty() {
            self.probe(rule, rows, input);
            return Ok(());
        }
        self.groups.clear();
        self.amounts.clear();
        self.raw.clear();
        self.values.clear();
        for theirs in rows.chunk_by(|a, b| a.0 == b.0) {
            let Some((group, _)) = theirs.first() else { continue };
            if *group == NO_GROUP {
                continue;
            }
            self.group(rule, *group, theirs, input);
        }
        let aggregates = spec.aggregates.len();
        // The person's groups in the order of their lots, where they are not all to stay as they are.
        let most = usize::try_from(spec.groups_per_person).unwrap_or(usize::MAX);
        let draw = |order: &mut Vec<(u64, u128, u32)>, groups: &[u32]| {
            let lot = |group: u32| usize::try_from(group).ok().and_then(|at| lots.get(at)).copied().unwrap_or_default();
            order.clear();
            order.extend((0..).zip(groups).map(|(at, group)| {
                let (drawn, lot) = drawn(mixed, lot(*group));
                (drawn, lot, at)
            }));
            order.sort_unstable();
        };
        self.order.clear();
        if self.groups.len() > most {
            draw(&mut self.order, &self.groups);
        }
        let mut is_cut = false;
        for (aggregate, ball) in balls.iter().enumerate() {
            let Some(ball) = ball else { continue };
            self.own.clear();
            self.own.extend(self.amounts.iter().skip(aggregate).step_by(aggregates.max(1)));
            if let Some(mut left) = ball.scale(&mut self.own) {
                // Rounding would leave nothing of a person who has a little in many groups: what is left is spent one by one.
                if self.order.is_empty() {
                    draw(&mut self.order, &self.groups);
                }
                for (_, _, at) in &self.order {
                    let at = *at as usize;
                    let before = self.amounts.get(at * aggregates + aggregate).copied().unwrap_or(0);
                    let Some(part) = self.own.get_mut(at) else { continue };
                    let costs = 2 * u128::from(part.unsigned_abs()) + 1;
                    if part.unsigned_abs() < before.unsigned_abs() && costs <= left {
                        *part += before.signum();
                        left -= costs;
                    }
                }
            }
            if matches!(spec.aggregates.get(aggregate), Some(Aggregate::Quantile { .. })) {
                self.spread(aggregate, mixed, lots);
                continue;
            }
            for (group, amount) in self.groups.iter().zip(&self.own) {
                if *amount != 0 {
                    self.out.add(aggregate, *group, *amount)?;
                }
            }
            is_cut |= self.cut(rule, aggregate)?;
            let Some(pool) = &mut self.out.pool else { continue };
            let together = spec.aggregates.get(aggregate).map_or(0, |aggregate| beside::most(spec, aggregate));
            if beside::size(&self.own) > together {
                if self.order.is_empty() {
                    draw(&mut self.order, &self.groups);
                }
                beside::shrink(&mut self.own, together, self.order.iter().map(|(_, _, at)| *at as usize));
            }
            for (group, part) in self.groups.iter().zip(&self.own).filter(|(_, part)| **part != 0) {
                pool.add(aggregate, *group, *part)?;
            }
        }
        // Of what is 0 or 1 the first groups by lot stay.
        if self.groups.len() > most {
            self.own.clear();
            self.own.resize(self.groups.len(), 0);
            for (_, _, at) in self.order.iter().take(most) {
                if let Some(stays) = self.own.get_mut(*at as usize) {
                    *stays = 1;
                }
            }
        } else {
            self.own.clear();
            self.own.resize(self.groups.len(), 1);
        }
        let stays = std::mem::take(&mut self.own);
        for (aggregate, _) in balls.iter().enumerate().filter(|(_, ball)| ball.is_none()) {
            let amounts = self.amounts.iter().skip(aggregate).step_by(aggregates.max(1));
            self.own.clear();
            self.own.extend(amounts.zip(&stays).map(|(amount, stays)| amount * stays));
            self.set.clear();
            for (group, amount) in self.groups.iter().zip(&self.own).filter(|(_, amount)| **amount != 0) {
                self.out.add(aggregate, *group, *amount)?;
                self.set.push(group << 1 | u32::from(*amount < 0));
            }
            is_cut |= self.cut(rule, aggregate)?;
            if let Some(pool) = &mut self.out.pool {
                pool.add_set(aggregate, &self.set, 1);
            }
        }
        self.own = stays;
        if let Some(cuts) = &mut self.out.cuts
            && !self.groups.is_empty()
        {
            cuts.person(is_cut);
        }
        Ok(())
    }

    /// Notes what the bounds left of the person's parts of a sum, which is in `own`, and what they cut off; gives whether that is anything.
    fn cut(&mut self, rule: Rule<'_>, aggregate: usize) -> Result<bool, PrivacyError> {
        let (Some(cuts), Some(asked)) = (&mut self.out.cuts, rule.spec.aggregates.get(aggregate)) else { return Ok(false) };
        let raw = self.raw.iter().skip(aggregate).step_by(rule.spec.aggregates.len().max(1));
        let cut = raw.zip(&self.own).map(|(raw, own)| (raw - i128::from(*own)).unsigned_abs()).fold(0, u128::saturating_add);
        cuts.add(aggregate, beside::size(&self.own), cut, beside::most(rule.spec, asked))?;
        Ok(cut > 0)
    }

    /// Takes as many of the person's values in each group as `own` says: every so-manieth in ascending order, from a start by lot (systematic
    /// sampling), so that each value has the same chance.
    fn spread(&mut self, aggregate: usize, mixed: u64, lots: &[u128]) {
        for theirs in self.values.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
            let Some((at, of, _)) = theirs.first() else { continue };
            let at = *at as usize;
            let (true, Some(group), Some(out)) =
                (*of as usize == aggregate, self.groups.get(at), self.out.values.get_mut(aggregate))
            else {
                continue;
            };
            let n = theirs.len() as u128;
            let taken = self.own.get(at).map_or(0, |taken| u128::try_from(*taken).unwrap_or(0)).min(n);
            let lot = usize::try_from(*group).ok().and_then(|at| lots.get(at)).copied().unwrap_or_default();
            let start = u128::from(drawn(mixed ^ SALT[1], lot).0);
            // Place i is ⌊(i + start) · n / taken⌋, the start being a share of 2^64.
            let place = |i: u128| usize::try_from((((i << 64) + start) / taken.max(1) * n) >> 64).unwrap_or(usize::MAX);
            let values = (0..taken).filter_map(|i| theirs.get(place(i)));
            out.extend(values.map(|(.., place)| value_of(*group, *place as usize)));
        }
    }

    /// What the person has in one group. Nothing in a group is not being in it: it must not take the place of something.
    fn group(&mut self, rule: Rule<'_>, group: u32, rows: &[(u32, u32)], input: impl Fn(usize, u32) -> i64 + Copy) {
        let (before, values_before, raw_before) = (self.amounts.len(), self.values.len(), self.raw.len());
        let within = |column: usize, row: u32| {
            let value = input(column, row);
            rule.spec.inputs.get(column).map_or(ABSENT, |clamp| clamped(value, clamp.low, clamp.high))
        };
        let at = u32::try_from(self.groups.len()).unwrap_or(u32::MAX);
        let mut anything = false;
        for ((place, aggregate), ball) in (0..).zip(&rule.spec.aggregates).zip(rule.balls) {
            match aggregate {
                Aggregate::Sum { of, low, high } => {
                    let sum = match of {
                        Source::Rows => i64::try_from(rows.len()).unwrap_or(i64::MAX),
                        Source::Column(column) => rows
                            .iter()
                            .map(|(_, row)| within(*column, *row))
                            .filter(|value| *value != ABSENT)
                            .fold(0_i64, i64::saturating_add),
                    };
                    let clipped = ball.map_or_else(|| sum.clamp(*low, *high), |ball| sum.clamp(ball.low, ball.high));
                    if self.out.cuts.is_some() {
                        self.raw.push(match of {
                            // Of what is 0 or 1 only a group that goes is cut: that somebody has many rows is not.
                            _ if ball.is_none() => i128::from(clipped),
                            Source::Rows => i128::from(sum),
                            Source::Column(column) => {
                                let values = rows.iter().map(|(_, row)| input(*column, *row));
                                values.filter(|value| *value != ABSENT).map(i128::from).fold(0, i128::saturating_add)
                            }
                        });
                    }
                    anything |= clipped != 0;
                    self.amounts.push(clipped);
                }
                Aggregate::Quantile { of, grid, .. } => {
                    let from = self.values.len();
                    let values = rows.iter().map(|(_, row)| within(*of, *row)).filter(|value| *value != ABSENT);
                    self.values.extend(values.map(|value| (at, place, u32::try_from(grid.place(value)).unwrap_or(u32::MAX))));
                    if let Some(own) = self.values.get_mut(from..) {
                        own.sort_unstable();
                        anything |= !own.is_empty();
                        // How many there are, which is what is bounded.
                        self.amounts.push(i64::try_from(own.len()).unwrap_or(i64::MAX));
                        if self.out.cuts.is_some() {
                            self.raw.push(0);
                        }
                    }
                }
            }
        }
        if anything {
            self.groups.push(group);
        } else {
            self.amounts.truncate(before);
            self.values.truncate(values_before);
            self.raw.truncate(raw_before);
        }
    }
}

/// Rows of some people, in any order.
struct Pile<P> {
    people: Vec<P>,
    groups: Vec<u32>,
    inputs: Vec<Vec<i64>>,
}

impl<P: Person> Pile<P> {
    fn new(inputs: usize) -> Self {
        Self { people: Vec::new(), groups: Vec::new(), inputs: vec![Vec::new(); inputs] }
    }

    /// Brings each person's rows together and bounds them.
    fn bound(
        &self,
        rule: Rule<'_>,
        bounder: &mut Bounder,
        sorted: &mut Vec<(P, u32, u32)>,
        theirs: &mut Vec<(u32, u32)>,
    ) -> Result<(), PrivacyError> {
        sorted.clear();
        sorted.extend(self.people.iter().zip(&self.groups).zip(0..).map(|((person, group), row)| (*person, *group, row)));
        sorted.sort_unstable();
        let input =
            |column: usize, row: u32| self.inputs.get(column).and_then(|c| c.get(row as usize)).copied().unwrap_or(ABSENT);
        for rows in sorted.chunk_by(|a, b| a.0 == b.0) {
            let Some((person, ..)) = rows.first() else { continue };
            theirs.clear();
            theirs.extend(rows.iter().map(|(_, group, row)| (*group, *row)));
            bounder.person(rule, person.mixed(), theirs, input)?;
        }
        Ok(())
    }
}

/// Piles: rows in any order lie in as many, by person.
const PILES: usize = 256;

enum Held {
    Short(Vec<Pile<u64>>),
    Long(Vec<Pile<u128>>),
}

/// Takes rows batch by batch.
pub(crate) struct Contributions {
    spec: Spec,
    order: Order,
    beside: Beside,
    probes: Vec<Probe>,
    held: Option<Held>,
    rows: usize,
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
                let held = self.held.get_or_insert_with(|| Held::Short((0..PILES).map(|_| Pile::new(columns)).collect()));
                let Held::Short(piles) = held else { return Err(MIXED) };
                scatter(piles, people, groups, inputs);
                self.rows += rows;
                Ok(())
            }
            (Order::Any, People::Long(people)) => {
                let columns = self.spec.inputs.len();
                let held = self.held.get_or_insert_with(|| Held::Long((0..PILES).map(|_| Pile::new(columns)).collect()));
                let Held::Long(piles) = held else { return Err(MIXED) };
                scatter(piles, people, groups, inputs);
                self.rows += rows;
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

    /// Bounds whoever waits, and gives the exact answers for `groups` groups.
    ///
    /// # Errors
    /// [`PrivacyError::Overflow`].
    pub(crate) fn finish(mut self, lots: &[u128]) -> Result<Exact, PrivacyError> {
        self.complete(lots)?;
        let rule = Rule { spec: &self.spec, balls: &self.balls, lots, probes: &self.probes };
        match self.held.take() {
            None => {}
            Some(Held::Short(piles)) => bound_piles(piles, rule, self.beside, &mut self.bounder.out)?,
            Some(Held::Long(piles)) => bound_piles(piles, rule, self.beside, &mut self.bounder.out)?,
        }
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

#[inline]
fn clamped(value: i64, low: i64, high: i64) -> i64 {
    if value == ABSENT { ABSENT } else { value.clamp(low, high) }
}

fn scatter<P: Person>(piles: &mut [Pile<P>], people: &[P], groups: &[u32], inputs: &[&[i64]]) {
    for (row, person) in people.iter().enumerate() {
        let group = groups.get(row).copied().unwrap_or(0);
        if group == NO_GROUP {
            continue;
        }
        #[allow(clippy::cast_possible_truncation)]
        let Some(pile) = piles.get_mut((person.mixed() >> 56) as usize) else { continue };
        pile.people.push(*person);
        pile.groups.push(group);
        for (held, input) in pile.inputs.iter_mut().zip(inputs) {
            held.push(input.get(row).copied().unwrap_or(ABSENT));
        }
    }
}

/// Bounds piles on all cores: no person is in two.
fn bound_piles<P: Person + Send + Sync>(
    piles: Vec<Pile<P>>,
    rule: Rule<'_>,
    beside: Beside,
    into: &mut Totals,
) -> Result<(), PrivacyError> {
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(8);
    let next = std::sync::atomic::AtomicUsize::new(0);
    let work = || {
        let mut bounder = Bounder::new(rule.spec, beside, rule.probes);
        let (mut sorted, mut theirs) = (Vec::new(), Vec::new());
        while let Some(pile) = piles.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
            pile.bound(rule, &mut bounder, &mut sorted, &mut theirs)?;
        }
        Ok(bounder.out)
    };
    let parts: Vec<Result<Totals, PrivacyError>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join().unwrap_or(Err(PrivacyError::NotDrawn))).collect()
    });
    for part in parts {
        into.merge(part?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
