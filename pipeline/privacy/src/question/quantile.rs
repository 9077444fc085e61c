//! Quantiles by the exponential mechanism, drawn exactly.
//!
//! Of a public grid of values, one is drawn with probability ∝ exp(−γ·s), where the score s of a value tells by how many values it misses the
//! quantile. Scores are whole numbers, γ is a fraction, and the draw is by rejection with Bernoulli(exp(−x)) (Canonne, Kamath & Steinke 2020,
//! algorithm 1) over OpenDP's exact Bernoulli and uniform draws: no floating point decides anything.

use dashu::integer::{IBig, UBig};
use dashu::rational::RBig;
use opendp::traits::samplers::{sample_bernoulli_rational, sample_uniform_uint_below};
use starling_schemas::metrics::NanoRho;

use super::spec::Rank;
use crate::PrivacyError;

/// γ = `numerator` / 2^40, at least one part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub(crate) struct Gamma(u64);

const PARTS: f64 = 1_099_511_627_776.0;

impl Gamma {
    /// The largest γ at which the draws of all groups cost at most `cost`, where one person changes the scores of group g by at most s(g), and the
    /// squares of s(g) add up to `step`² at most.
    ///
    /// # Privacy
    /// Adding or removing one person changes every score of group g by at most s(g), so the log-ratio of the two distributions has a range of at
    /// most ε(g) = 2·γ·s(g) (bounded range; Durfee & Rogers 2019), which is ε(g)²/8-zCDP (Cesar & Rogers 2021, lemma 3.4). The groups' draws are
    /// independent: Σ ε(g)²/8 = γ²/2 · Σ s(g)² ≤ γ²·step²/2 in all.
    ///
    /// # Errors
    /// [`PrivacyError::Calibration`] for a cost too small for the bounds.
    pub(crate) fn within(cost: NanoRho, step: u64) -> Result<Self, PrivacyError> {
        let none = PrivacyError::Calibration { what: "the cost is too small for a quantile within these bounds" };
        if cost.0 <= 0 {
            return Err(none);
        }
        #[allow(clippy::cast_precision_loss)]
        let length = (2.0 * (cost.0 as f64 / 1e9).next_down()).sqrt() * (1.0 - 1e-12);
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let numerator = (length / step as f64 * PARTS).floor() as u64;
        if numerator == 0 { Err(none) } else { Ok(Self(numerator)) }
    }

    /// As a float, for what people are told.
    #[allow(clippy::cast_precision_loss)]
    pub(crate) fn per_score(self) -> f64 {
        self.0 as f64 / PARTS
    }

    #[cfg(test)]
    pub(crate) fn planted(per_score: f64) -> Self {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        Self((per_score * PARTS) as u64)
    }
}

/// Score of every place of the grid, given how many values lie at each: 0 where the place is a quantile, else how far its rank is off, times
/// the rank's denominator.
pub(crate) fn scores(counts: impl Iterator<Item = u64> + Clone, rank: Rank) -> Vec<u64> {
    let n: u64 = counts.clone().sum();
    let (share, whole) = (u64::from(rank.numerator()), u64::from(rank.denominator()));
    let mut below = 0;
    counts
        .map(|here| {
            let up_to = below + here;
            // Too high where more than the share lies strictly below; too low where less than it lies up to here.
            let score = (whole * below).saturating_sub(share * n).max((share * n).saturating_sub(whole * up_to));
            below = up_to;
            score
        })
        .collect()
}

/// Draws a place with probability ∝ exp(−γ·score). Exact.
///
/// # Errors
/// [`PrivacyError::NotDrawn`] without entropy, or without places.
pub(crate) fn draw(scores: &[u64], gamma: Gamma) -> Result<usize, PrivacyError> {
    let best = scores.iter().min().copied().ok_or(PrivacyError::NotDrawn)?;
    let places = u32::try_from(scores.len()).map_err(|_| PrivacyError::NotDrawn)?;
    loop {
        let place = sample_uniform_uint_below::<u32, 4>(places).map_err(|_| PrivacyError::NotDrawn)? as usize;
        let score = scores.get(place).copied().ok_or(PrivacyError::NotDrawn)?;
        let x = u128::from(score - best) * u128::from(gamma.0);
        if bernoulli_exp(x)? {
            return Ok(place);
        }
    }
}

/// True with probability exp(−x / 2^40).
fn bernoulli_exp(x: u128) -> Result<bool, PrivacyError> {
    const ONE: u128 = 1 << 40;
    let mut left = x;
    while left > ONE {
        if !bernoulli_exp_of_a_share(ONE)? {
            return Ok(false);
        }
        left -= ONE;
    }
    bernoulli_exp_of_a_share(left)
}

/// The same for x ≤ 2^40.
fn bernoulli_exp_of_a_share(x: u128) -> Result<bool, PrivacyError> {
    let mut k = 1_u64;
    loop {
        let share = RBig::from_parts(IBig::from(x), UBig::from(1_u64 << 40) * UBig::from(k));
        if sample_bernoulli_rational(share).map_err(|_| PrivacyError::NotDrawn)? {
            k += 1;
        } else {
            return Ok(k % 2 == 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn median() -> Rank {
        Rank::of(0.5).expect("a share")
    }

    #[test]
    fn a_quantile_scores_zero_and_other_places_by_how_far_they_are_off() {
        // Values 0,0,0,2,3: the median is 0.
        assert_eq!(scores([3, 0, 1, 1].into_iter(), median()), [0, 1, 1, 3]);
        // Nobody: every place is as good.
        assert_eq!(scores([0, 0, 0].into_iter(), median()), [0, 0, 0]);
        let ninth = Rank::of(0.9).expect("a share");
        assert_eq!(scores([9, 1].into_iter(), ninth), [0, 0], "0 has nine tenths up to it; 1 has nine tenths below it");
    }

    #[test]
    fn one_value_more_changes_a_score_by_no_more_than_the_ranks_step() {
        for rank in [0.1, 0.5, 0.9, 0.95] {
            let rank = Rank::of(rank).expect("a share");
            let counts: [u64; 6] = [5, 0, 3, 9, 1, 2];
            let before = scores(counts.into_iter(), rank);
            for place in 0..counts.len() {
                let mut more = counts;
                more[place] += 1;
                let after = scores(more.into_iter(), rank);
                assert!(before.iter().zip(&after).all(|(a, b)| a.abs_diff(*b) <= u64::from(rank.step())));
            }
        }
    }

    #[test]
    fn places_are_drawn_as_often_as_their_scores_say() {
        let (scores, gamma) = ([0_u64, 1, 2, 5, 9], Gamma::planted(0.7));
        let weights: Vec<f64> = scores.iter().map(|s| (-0.7 * f64::from(u32::try_from(*s).expect("small"))).exp()).collect();
        let (n, whole) = (40_000, weights.iter().sum::<f64>());
        let mut seen = [0_u32; 5];
        for _ in 0..n {
            seen[draw(&scores, gamma).expect("draws")] += 1;
        }
        for (seen, weight) in seen.iter().zip(&weights) {
            let p = weight / whole;
            let spread = (p * (1.0 - p) / f64::from(n)).sqrt();
            assert!((f64::from(*seen) / f64::from(n) - p).abs() < 6.0 * spread + 1e-9, "{seen} of {n}, expected {p}");
        }
    }

    #[test]
    fn gamma_never_costs_more_than_was_asked() {
        for (rho, step) in [(0.01, 10), (0.5, 1), (0.000_1, 90)] {
            let gamma = Gamma::within(NanoRho::cost(rho), step).expect("a gamma").per_score();
            #[allow(clippy::cast_precision_loss)]
            let cost = (gamma * step as f64).powi(2) / 2.0;
            assert!(cost <= rho && cost > rho * 0.999, "{cost} {rho}");
        }
        assert!(Gamma::within(NanoRho(0), 1).is_err());
        assert!(Gamma::within(NanoRho(1), u64::MAX).is_err());
    }
}
