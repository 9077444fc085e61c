//! Which bounds fit the data: of each person one value a bound, and a quantile of these over all people, by the exponential mechanism.
//!
//! Of a bound c on one person's part in a group two errors come: noise, whose standard deviation is √k·c/√(2ρ), and what c cuts off. In a group of n
//! people of whom a share 1 − F(c) has more than c, a little more of c adds √k/√(2ρ) to the noise and takes n·(1 − F(c)) from what is cut: their sum is least where F(c) = 1 −
//! √k/(n·√(2ρ)). So the best bound is a quantile whose rank is public ([`best_rank`]): no error has to be measured. Half of the people must be within it, or the group
//! is too small for this question whatever its bounds are; and one in a thousand may be beyond it.
//!
//! # Privacy
//! Each person has one value in each [`Probe`]: how many groups they are in, or the most they have in any one. Values are bounded by the probe's public grid. One person more or
//! less changes the scores of a grid by [`Rank::step`] at most; what that costs stands with [`Gamma::within`]. Nothing else of the data comes out: no group, no
//! key. Rows are as the question reads them, so that a person is one of one block.

use starling_schemas::metrics::NanoRho;

use super::plan::{Added, Blur, Plan, QuantileGamma};
use super::quantile::{self, Gamma};
use super::spec::{Aggregate, Grid, Rank, Source, Spec};
use crate::PrivacyError;

/// A bound that a value can be found for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// In how many groups a person is.
    Groups,
    /// How large a person's part of the aggregate at this place is in a group.
    Part(usize),
}

/// One bound, and how its value is found.
#[derive(Debug, Clone, PartialEq)]
pub struct Probe {
    /// Which.
    pub bound: Bound,
    /// What it is now.
    pub now: u64,
    /// The share of people who are to be within it.
    pub rank: Rank,
    /// What may be answered.
    pub grid: Grid,
    /// What it costs.
    pub rho: NanoRho,
    /// The rate of its draw.
    pub gamma: QuantileGamma,
}

/// How far beyond the present bound a suggestion may be.
const REACH: u64 = 16;

/// The share of people who are to be within the number of groups: its price is paid by all aggregates, so that no one error decides.
const WITHIN_GROUPS: f64 = 0.99;

/// The rank at which noise and what is cut add up to the least, in a group of so many people; `noise` of a bound `step` in each of k groups.
#[must_use]
fn best_rank(stddev: f64, step: u64, people: u32) -> f64 {
    #[allow(clippy::cast_precision_loss)]
    let slope = stddev / step.max(1) as f64;
    let rank = 1.0 - slope / f64::from(people.max(1));
    ((rank * 1000.0).round() / 1000.0).clamp(0.5, 0.999)
}

/// Bounds cost one part in so many of what the question costs that they are for: a quantile of all people is off by few of them.
const SHARE: i64 = 10;

/// Plans the probes of a question for groups of so many people: its bounds on groups and on parts. `answered`: how the question itself would be.
///
/// # Errors
/// [`PrivacyError::Question`] where there is no bound to find.
pub fn suggest(spec: &Spec, answered: &Plan, people: u32) -> Result<Plan, PrivacyError> {
    spec.check()?;
    let mut wanted: Vec<(Bound, u64, f64)> = Vec::new();
    if spec.keys > 0 {
        wanted.push((Bound::Groups, spec.groups_per_person.into(), WITHIN_GROUPS));
    }
    for (at, (aggregate, blur)) in spec.aggregates.iter().zip(&answered.blurs).enumerate() {
        if let (true, Blur::Noise { noise, .. }) = (aggregate.is_one_vector(), blur) {
            wanted.push((Bound::Part(at), aggregate.step(), best_rank(noise.stddev(), aggregate.step(), people)));
        }
    }
    if wanted.is_empty() {
        return Err(PrivacyError::Question { what: "it has no bounds to find: add GROUP BY, COUNT(*) or SUM" });
    }
    let (rho, n) = (NanoRho(answered.rho.0 / SHARE), i64::try_from(wanted.len()).unwrap_or(i64::MAX));
    let mut probes = Vec::with_capacity(wanted.len());
    for (at, (bound, now, rank)) in (0..).zip(wanted) {
        // The last one takes what rounding left.
        let share = NanoRho(rho.0 / n + if at + 1 == n { rho.0 % n } else { 0 });
        let rank = Rank::of(rank)?;
        let high = i64::try_from(now.saturating_mul(REACH)).unwrap_or(i64::MAX).max(2);
        let grid = Grid::over(1, high)?;
        let gamma = Gamma::within(share, rank.step().into())?;
        probes.push(Probe { bound, now, rank, grid, rho: share, gamma: QuantileGamma(gamma) });
    }
    let none: Option<Vec<Option<Added>>> = None;
    Ok(Plan { blurs: Vec::new(), threshold: None, rho, delta: 0.0, other: none, bias: None, probes })
}

/// How many people's values lie at each place of each probe's grid.
#[derive(Default)]
pub(crate) struct Histograms(Vec<Vec<u64>>);

impl Histograms {
    pub(crate) fn new(probes: &[Probe]) -> Self {
        Self(probes.iter().map(|probe| vec![0; probe.grid.values().len()]).collect())
    }

    /// Adds a person: so many groups, and by aggregate the most in one. Who has nothing of an aggregate does not count for its bound.
    pub(crate) fn person(&mut self, probes: &[Probe], groups: u64, largest: &[u128]) {
        for (probe, places) in probes.iter().zip(&mut self.0) {
            let value = match probe.bound {
                Bound::Groups => groups.into(),
                Bound::Part(at) => largest.get(at).copied().unwrap_or(0),
            };
            let place = probe.grid.place(i64::try_from(value).unwrap_or(i64::MAX));
            if let (true, Some(slot)) = (value > 0, places.get_mut(place)) {
                *slot += 1;
            }
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().flatten().zip(other.0.iter().flatten()) {
            *mine += theirs;
        }
    }

    /// Draws a value for each probe.
    pub(crate) fn draw(&self, probes: &[Probe]) -> Result<Vec<i64>, PrivacyError> {
        let one = |(probe, places): (&Probe, &Vec<u64>)| {
            // What is drawn costs what was planned, asked once more.
            if Gamma::within(probe.rho, probe.rank.step().into())? < probe.gamma.0 {
                return Err(PrivacyError::CostsMoreThanCharged);
            }
            let place = quantile::draw(&quantile::scores(places.iter().copied(), probe.rank), probe.gamma.0)?;
            probe.grid.values().get(place).copied().ok_or(PrivacyError::NotDrawn)
        };
        probes.iter().zip(&self.0).map(one).collect()
    }
}

/// The size of an aggregate's part of one person in a group before it is clipped: rows clamped, as the question clamps them.
pub(crate) fn part(aggregate: &Aggregate, rows: u64, value: impl Fn(usize) -> i128) -> u128 {
    match aggregate {
        Aggregate::Sum { of: Source::Rows, .. } => rows.into(),
        Aggregate::Sum { of: Source::Column(column), .. } => value(*column).unsigned_abs(),
        Aggregate::Quantile { .. } => 0,
    }
}

#[cfg(test)]
mod tests;
