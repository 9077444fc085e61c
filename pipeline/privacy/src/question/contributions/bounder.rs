//! Bounds one person after the other, and holds what they have added.

use super::super::beside::{self, Beside, Cuts, Pool};
use super::super::keys::NO_GROUP;
use super::super::spec::{ABSENT, Aggregate, Source, Spec};
use super::super::suggest::{self, Histograms, Probe};
use super::{SALT, drawn, value_of};
use crate::PrivacyError;

/// What people who were bounded have added.
#[derive(Default)]
pub(super) struct Totals {
    pub(super) totals: Vec<Vec<i64>>,
    pub(super) values: Vec<Vec<u64>>,
    pub(super) pool: Option<Pool>,
    pub(super) cuts: Option<Cuts>,
    pub(super) histograms: Histograms,
}

impl Totals {
    pub(super) fn new(spec: &Spec, beside: Beside) -> Self {
        let aggregates = spec.aggregates.len();
        Self {
            totals: vec![Vec::new(); aggregates],
            values: vec![Vec::new(); aggregates],
            pool: beside.other.then(|| Pool::new(aggregates)),
            cuts: beside.bias.then(|| Cuts::new(aggregates)),
            histograms: Histograms::default(),
        }
    }

    pub(super) fn add(&mut self, aggregate: usize, group: u32, amount: i64) -> Result<(), PrivacyError> {
        let (Some(totals), Ok(group)) = (self.totals.get_mut(aggregate), usize::try_from(group)) else { return Ok(()) };
        if totals.len() <= group {
            totals.resize(group + 1, 0);
        }
        let Some(slot) = totals.get_mut(group) else { return Ok(()) };
        *slot = slot.checked_add(amount).ok_or(PrivacyError::Overflow)?;
        Ok(())
    }

    pub(super) fn merge(&mut self, other: Self) -> Result<(), PrivacyError> {
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
pub(super) struct Bounder {
    pub(super) out: Totals,
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
pub(super) struct Ball {
    /// k·c², the square of its length.
    square: u128,
    /// The largest whole part any group may have, and the smallest.
    high: i64,
    low: i64,
}

impl Ball {
    pub(super) fn of(aggregate: &Aggregate, groups: u32) -> Option<Self> {
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

    pub(super) fn length(parts: &[i64]) -> u128 {
        parts.iter().map(|part| u128::from(part.unsigned_abs()).pow(2)).fold(0, u128::saturating_add)
    }

    /// Scales parts down to the ball, rounding towards zero. Whether they are inside is decided in whole numbers. Gives what is left of the square;
    /// `None` if they were inside.
    pub(super) fn scale(self, parts: &mut [i64]) -> Option<u128> {
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
pub(super) struct Rule<'a> {
    pub(super) spec: &'a Spec,
    /// By aggregate.
    pub(super) balls: &'a [Option<Ball>],
    /// By group.
    pub(super) lots: &'a [u128],
    /// Bounds that are to be found.
    pub(super) probes: &'a [Probe],
}

impl Bounder {
    pub(super) fn new(spec: &Spec, beside: Beside, probes: &[Probe]) -> Self {
        let mut out = Totals::new(spec, beside);
        out.histograms = Histograms::new(probes);
        Self { out, ..Self::default() }
    }

    /// Notes a person's values for the bounds that are to be found.
    pub(super) fn probe(&mut self, rule: Rule<'_>, rows: &[(u32, u32)], input: impl Fn(usize, u32) -> i64 + Copy) {
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
    pub(super) fn person(
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
    pub(super) fn cut(&mut self, rule: Rule<'_>, aggregate: usize) -> Result<bool, PrivacyError> {
        let (Some(cuts), Some(asked)) = (&mut self.out.cuts, rule.spec.aggregates.get(aggregate)) else { return Ok(false) };
        let raw = self.raw.iter().skip(aggregate).step_by(rule.spec.aggregates.len().max(1));
        let cut = raw.zip(&self.own).map(|(raw, own)| (raw - i128::from(*own)).unsigned_abs()).fold(0, u128::saturating_add);
        cuts.add(aggregate, beside::size(&self.own), cut, beside::most(rule.spec, asked))?;
        Ok(cut > 0)
    }

    /// Takes as many of the person's values in each group as `own` says: every so-manieth in ascending order, from a start by lot (systematic
    /// sampling), so that each value has the same chance.
    pub(super) fn spread(&mut self, aggregate: usize, mixed: u64, lots: &[u128]) {
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
    pub(super) fn group(&mut self, rule: Rule<'_>, group: u32, rows: &[(u32, u32)], input: impl Fn(usize, u32) -> i64 + Copy) {
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

#[inline]
pub(super) fn clamped(value: i64, low: i64, high: i64) -> i64 {
    if value == ABSENT { ABSENT } else { value.clamp(low, high) }
}
