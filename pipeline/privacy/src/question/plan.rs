//! How a question's budget is spent: which noise on which aggregate, and from how many people on a group is shown. Looks at no data.

use starling_schemas::metrics::NanoRho;

use super::beside::{self, Beside};
use super::interval::Ends;
use super::quantile::Gamma;
use super::spec::{Aggregate, Spec};
use super::suggest::Probe;
use super::threshold::threshold;
use crate::PrivacyError;
use crate::bound::Sensitivity;
use crate::mechanism::{calibrate, calibrate_gaussian};
use crate::noise::Noise;

/// What blurs one aggregate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Blur {
    /// Noise added to every group's total.
    Noise {
        /// Its distribution.
        noise: Noise,
        /// What it costs.
        rho: NanoRho,
    },
    /// The exponential mechanism, a draw in every group.
    Quantile {
        /// A value is drawn with probability ∝ exp(−this · how far off its score is).
        per_score: f64,
        /// What it costs, with its interval.
        rho: NanoRho,
        /// The rate, exactly.
        gamma: QuantileGamma,
        /// How its interval is drawn, where that was asked for.
        interval: Option<Interval>,
    },
}

/// How the 95 % interval of a quantile is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// What both ends cost, of what the quantile costs in all.
    pub rho: NanoRho,
    /// Each end is drawn about so many ranks beside the quantile.
    pub ranks: f64,
    pub(crate) ends: Ends,
}

/// The exact rate of a quantile's draws.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QuantileGamma(pub(crate) Gamma);

impl Blur {
    /// What it costs.
    #[must_use]
    pub const fn rho(&self) -> NanoRho {
        match self {
            Self::Noise { rho, .. } | Self::Quantile { rho, .. } => *rho,
        }
    }
}

/// A question's budget, spent.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// By aggregate.
    pub blurs: Vec<Blur>,
    /// Discovered groups: the noisy number of people from which on a group is shown.
    pub threshold: Option<i64>,
    /// ρ of all together.
    pub rho: NanoRho,
    /// δ of the threshold; 0 without one.
    pub delta: f64,
    /// By aggregate: the noise on the one total of all groups that are not shown, where it is asked for; none for quantiles.
    pub other: Option<Vec<Option<Added>>>,
    /// The noise on what the bounds cut off, where it is asked for.
    pub bias: Option<BiasPlan>,
    /// Bounds that are to be found, in place of an answer; else empty.
    pub probes: Vec<Probe>,
}

/// Noise and its cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Added {
    /// Its distribution.
    pub noise: Noise,
    /// What it costs.
    pub rho: NanoRho,
}

/// How it is measured what the bounds cut off.
#[derive(Debug, Clone, PartialEq)]
pub struct BiasPlan {
    /// By aggregate: the noise on what was kept and on what was cut; none for quantiles.
    pub parts: Vec<Option<Added>>,
    /// The noise on how many people there are, and of how many anything was cut.
    pub people: Added,
}

impl Plan {
    /// What it measures beside the groups.
    #[must_use]
    pub const fn beside(&self) -> Beside {
        Beside { other: self.other.is_some(), bias: self.bias.is_some() }
    }

    /// What all its parts cost together.
    pub(crate) fn spent(&self) -> i128 {
        let groups = self.blurs.iter().map(|blur| blur.rho().0);
        let other = self.other.iter().flatten().flatten().map(|added| added.rho.0);
        let bias = self.bias.iter().flat_map(|bias| bias.parts.iter().flatten().chain([&bias.people])).map(|added| added.rho.0);
        let probes = self.probes.iter().map(|probe| probe.rho.0);
        groups.chain(other).chain(bias).chain(probes).map(i128::from).sum()
    }
}

/// One part in so many of the budget goes to the row of groups that are not shown: few numbers over many people, which need little.
const OTHER: i64 = 16;

/// And to what the bounds cut off.
const BIAS: i64 = 50;

/// And one part in so many of a quantile's own budget to each end of its interval.
const END: i64 = 4;

/// How much of the budget an aggregate gets, in proportion.
///
/// Equal shares would give sums and row counts the noise of their rarest, largest part. Where people decide which groups are shown, their number
/// is worth more: every group it loses is lost for all aggregates.
fn weight(spec: &Spec, aggregate: &Aggregate) -> u64 {
    if spec.discovered && *aggregate == Aggregate::PEOPLE { 2 } else { 1 }
}

/// Vectors are bounded in length (L2) alone: that is what a Gaussian needs, and no bound for anything else.
fn calibrated(aggregate: &Aggregate, sensitivity: Sensitivity, rho: NanoRho) -> Result<Noise, PrivacyError> {
    if aggregate.is_one_vector() { calibrate_gaussian(sensitivity, rho) } else { calibrate(sensitivity, rho) }
}

/// Splits `rho` over the question's aggregates.
///
/// # Privacy
/// The aggregates compose to at most `rho` (zCDP adds up), with `delta` on top where groups are discovered. What an aggregate costs is what
/// its own mechanism's map says at its own sensitivity.
///
/// # Errors
/// [`PrivacyError::Question`] for a question whose parts do not fit, [`PrivacyError::Calibration`] for a budget that cannot be spent.
pub fn plan(spec: &Spec, rho: NanoRho, delta: f64) -> Result<Plan, PrivacyError> {
    plan_with(spec, rho, delta, Beside::default())
}

/// The same, with what is measured beside the groups: its share is set apart first, whatever the data will be.
///
/// # Errors
/// As [`plan`].
pub fn plan_with(spec: &Spec, rho: NanoRho, delta: f64, beside: Beside) -> Result<Plan, PrivacyError> {
    spec.check()?;
    let whole = rho;
    let is_sum = |aggregate: &&Aggregate| matches!(aggregate, Aggregate::Sum { .. });
    let sums = i64::try_from(spec.aggregates.iter().filter(is_sum).count()).unwrap_or(i64::MAX);
    let mut rho = rho;
    let mut other = None;
    if beside.other {
        if !spec.discovered {
            return Err(PrivacyError::Question { what: "where groups are listed, none is left out: there is nothing to pool" });
        }
        // Each the same share, so that none is lost to rounding but what the groups then get.
        let share = NanoRho(rho.0 / OTHER / sums.max(1));
        let added: Result<Vec<Option<Added>>, PrivacyError> = spec.aggregates.iter().map(|a| pooled(spec, a, share)).collect();
        let added = added?;
        rho.0 -= added.iter().flatten().map(|added| added.rho.0).sum::<i64>();
        other = Some(added);
    }
    let mut bias = None;
    if beside.bias {
        let share = NanoRho(whole.0 / BIAS / sums.saturating_add(1));
        let pair = |aggregate: &Aggregate| match aggregate {
            Aggregate::Sum { .. } => {
                let noise = calibrate_gaussian(Sensitivity::of(2, together(spec, aggregate)?), share)?;
                Ok(Some(Added { noise, rho: share }))
            }
            Aggregate::Quantile { .. } => Ok(None),
        };
        let parts = spec.aggregates.iter().map(pair).collect::<Result<Vec<_>, PrivacyError>>()?;
        let people = Added { noise: calibrate_gaussian(Sensitivity::of(2, 1), share)?, rho: share };
        rho.0 -= parts.iter().flatten().chain([&people]).map(|added| added.rho.0).sum::<i64>();
        bias = Some(BiasPlan { parts, people });
    }
    let weights: Vec<u64> = spec.aggregates.iter().map(|aggregate| weight(spec, aggregate)).collect();
    let all: u64 = weights.iter().sum();
    let mut left = rho.0;
    let mut blurs = Vec::with_capacity(spec.aggregates.len());
    for (at, (aggregate, weight)) in spec.aggregates.iter().zip(&weights).enumerate() {
        let share = i128::from(rho.0) * i128::from(*weight) / i128::from(all.max(1));
        let last = at + 1 == spec.aggregates.len();
        let share = if last { left } else { i64::try_from(share).unwrap_or(0) };
        left -= share;
        let share = NanoRho(share);
        let groups = spec.groups_at_most();
        blurs.push(match aggregate {
            Aggregate::Sum { .. } => {
                let value = u32::try_from(aggregate.step()).map_err(|_| PrivacyError::Calibration {
                    what: "a person's part of a sum may be 4,294,967,295 at most: clip it to less, or ask in a larger unit",
                })?;
                Blur::Noise { noise: calibrated(aggregate, Sensitivity::of(groups, value), share)?, rho: share }
            }
            Aggregate::Quantile { rank, grid, interval, .. } => {
                let end = NanoRho(if *interval { share.0 / END } else { 0 });
                let gamma = Gamma::within(NanoRho(share.0 - 2 * end.0), aggregate.step())?;
                let drawn = || -> Result<Interval, PrivacyError> {
                    let ends = Ends::of(Gamma::within(end, aggregate.step())?, *rank, grid.values().len());
                    #[allow(clippy::cast_precision_loss)]
                    let ranks = ends.reach as f64 / f64::from(rank.denominator());
                    Ok(Interval { rho: NanoRho(2 * end.0), ranks, ends })
                };
                let interval = interval.then(drawn).transpose()?;
                Blur::Quantile { per_score: gamma.per_score(), rho: share, gamma: QuantileGamma(gamma), interval }
            }
        });
    }
    let threshold = match (spec.discovered, spec.people().and_then(|at| blurs.get(at))) {
        (true, Some(Blur::Noise { noise, .. })) => Some(threshold(*noise, spec.groups_per_person, delta)?),
        (true, _) => return Err(PrivacyError::Question { what: "discovered groups need the number of distinct people" }),
        (false, _) => None,
    };
    Ok(Plan {
        blurs,
        threshold,
        rho: whole,
        delta: if threshold.is_some() { delta } else { 0.0 },
        other,
        bias,
        probes: Vec::new(),
    })
}

/// k·c, the most one person adds to a total beside the groups.
pub(crate) fn together(spec: &Spec, aggregate: &Aggregate) -> Result<u32, PrivacyError> {
    u32::try_from(beside::most(spec, aggregate)).map_err(|_| PrivacyError::Calibration {
        what: "a person's part of a sum, times groups_per_person, may be 4,294,967,295 at most with other or bias: clip it to less, or ask in a larger unit",
    })
}

/// What one person changes in the total of an aggregate over groups that are not shown.
pub(crate) fn pooled_sensitivity(spec: &Spec, aggregate: &Aggregate) -> Result<Sensitivity, PrivacyError> {
    Ok(Sensitivity::of(1, if aggregate.is_one_vector() { together(spec, aggregate)? } else { 1 }))
}

fn pooled(spec: &Spec, aggregate: &Aggregate, share: NanoRho) -> Result<Option<Added>, PrivacyError> {
    if matches!(aggregate, Aggregate::Quantile { .. }) {
        return Ok(None);
    }
    Ok(Some(Added { noise: calibrate_gaussian(pooled_sensitivity(spec, aggregate)?, share)?, rho: share }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::question::spec::{Grid, Input, Rank, Source};

    fn spec(discovered: bool) -> Spec {
        Spec {
            keys: 2,
            inputs: vec![Input { low: 0, high: 20_000 }],
            groups_per_person: 4,
            discovered,
            aggregates: vec![
                Aggregate::PEOPLE,
                Aggregate::Sum { of: Source::Rows, low: 0, high: 10 },
                Aggregate::Sum { of: Source::Column(0), low: 0, high: 40_000 },
                Aggregate::Quantile {
                    of: 0,
                    rank: Rank::of(0.5).expect("a share"),
                    per_person: 10,
                    grid: Grid::over(0, 20_000).expect("a range"),
                    interval: true,
                },
            ],
        }
    }

    #[test]
    fn the_shares_add_up_to_the_budget_exactly() {
        for rho in [1_000_003, 15_000_000, 7] {
            for discovered in [false, true] {
                let Ok(plan) = plan(&spec(discovered), NanoRho(rho), 1e-9) else { continue };
                assert_eq!(plan.blurs.iter().map(|blur| blur.rho().0).sum::<i64>(), rho);
                assert_eq!(plan.threshold.is_some(), discovered);
            }
        }
    }

    #[test]
    fn an_interval_is_paid_from_the_quantiles_own_share_and_takes_half_of_it() {
        let asked = spec(false);
        let mut without = asked.clone();
        for aggregate in &mut without.aggregates {
            if let Aggregate::Quantile { interval, .. } = aggregate {
                *interval = false;
            }
        }
        let of = |spec: &Spec| {
            let plan = plan(spec, NanoRho(8_000_000), 0.0).expect("a plan");
            let Some(Blur::Quantile { per_score, rho, interval, .. }) = plan.blurs.last().copied() else { panic!("a quantile") };
            (plan, per_score, rho, interval)
        };
        let (with, half, share, interval) = of(&asked);
        let (plain, per_score, same, none) = of(&without);
        assert_eq!((with.rho, share, none), (plain.rho, same, None));
        let interval = interval.expect("an interval");
        assert_eq!(interval.rho, NanoRho(share.0 / 2));
        assert!((per_score / half - 2.0_f64.sqrt()).abs() < 1e-6, "{per_score} {half}");
        // The logarithm of twenty times some 36 places, over the rate of a quarter of the share, at two scores a rank; and a rank for customs.
        let reach = (interval.ranks - 1.0) * per_score;
        assert!(((20.0 * 34.0_f64).ln()..(20.0 * 38.0_f64).ln()).contains(&reach), "{reach} {interval:?}");
    }

    #[test]
    fn noise_is_as_wide_as_the_bounds_ask() {
        let plan = plan(&spec(false), NanoRho(8_000_000), 0.0).expect("a plan");
        let Some(Blur::Noise { noise, .. }) = plan.blurs.get(1) else { panic!("noise") };
        // √4 · 10 / √(2 · 0.002).
        assert!((noise.scale() - 20.0 / 0.004_f64.sqrt()).abs() < 0.1, "{noise:?}");
    }

    #[test]
    fn discovered_groups_need_people_and_a_delta() {
        let mut without = spec(true);
        without.aggregates.remove(0);
        assert!(plan(&without, NanoRho(8_000_000), 1e-9).is_err());
        assert!(plan(&spec(true), NanoRho(8_000_000), 0.0).is_err());
    }
}
