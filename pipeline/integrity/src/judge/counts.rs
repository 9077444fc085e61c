//! When a count is too large to be chance.
//!
//! Of many who may report or block, each does with a small probability that differs between subjects and days: the count is beta-binomial. With rates
//! of a few in a thousand that is a Poisson count whose mean is gamma-distributed, negative binomial, which needs no largest count: a business can
//! be blocked by more people than it wrote to.

use statrs::function::beta::checked_beta_reg;

/// Probability of `count` or more, where counts are Poisson with a mean that is gamma-distributed around `usual` with shape `shape`: negative
/// binomial, whose tail is the regularised incomplete beta function (Abramowitz and Stegun 26.5.26). What cannot be computed is not improbable.
pub(super) fn tail(count: u32, usual: f64, shape: f64) -> f64 {
    if count == 0 {
        return 1.0;
    }
    checked_beta_reg(f64::from(count), shape, usual / (usual + shape)).ok().filter(|p| p.is_finite()).unwrap_or(1.0)
}

/// The least count, from `floor` on, of which as many or more have at most the probability `enough`.
pub(super) fn least_improbable(floor: u32, usual: f64, shape: f64, enough: f64) -> u32 {
    let improbable = |count: u32| tail(count, usual, shape) <= enough;
    let (mut low, mut high) = (floor, floor);
    while !improbable(high) {
        if high == u32::MAX {
            return u32::MAX;
        }
        (low, high) = (high, high.saturating_mul(2));
    }
    // `high` is improbable; below `low` nothing is.
    while low < high {
        let middle = low + (high - low) / 2;
        if improbable(middle) { high = middle } else { low = middle + 1 }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_the_sum_of_what_it_is_the_tail_of() {
        for (usual, shape) in [(1.1, 2.0), (3.0, 2.0), (11.0, 0.5), (40.0, 10.0)] {
            // P(0) = (k / (k + m))^k, and each next by its ratio.
            let x: f64 = usual / (usual + shape);
            let (mut term, mut below) = ((1.0 - x).powf(shape), 0.0);
            for reports in 0..60_u32 {
                let expected: f64 = 1.0 - below;
                assert!((tail(reports, usual, shape) - expected).abs() < 1e-9, "{reports} {usual} {shape}");
                below += term;
                term *= x * (f64::from(reports) + shape) / (f64::from(reports) + 1.0);
            }
        }
    }
}
