//! From how many noisy people on a discovered group may be shown.

use crate::PrivacyError;
use crate::noise::Noise;

/// A sum of floats is a little wrong; bounds are made this much safer.
const SAFE: f64 = 1.0 + 1e-9;

/// P(X ≥ `t`) for noise on the whole numbers, never less than it is. `t` ≥ 1.
#[must_use]
pub(crate) fn tail(noise: Noise, t: u64) -> f64 {
    #[allow(clippy::cast_precision_loss)]
    let t = t as f64;
    match noise {
        Noise::DiscreteGaussian { scale } => {
            // The normaliser is at least σ√(2π) (Poisson summation), and at least its middle term.
            let whole = (scale * (2.0 * std::f64::consts::PI).sqrt()).max(1.0);
            let exponent = |x: f64| -x * x / (2.0 * scale * scale);
            // Σ_{x ≥ t} exp(−x²/2σ²) in steps: each of `step` terms is at most its first. The factor by which terms fall grows, so that a
            // geometric series bounds what is left.
            let step = (scale / 64.0).floor().max(1.0);
            let (mut x, mut sum) = (t, 0.0);
            loop {
                let term = step * exponent(x).exp();
                let ratio = (exponent(x + step) - exponent(x)).exp();
                sum += term;
                x += step;
                if ratio < 0.5 && term < sum * 1e-6 {
                    sum += term * ratio / (1.0 - ratio);
                    break;
                }
                if term == 0.0 {
                    break;
                }
            }
            (sum / whole * SAFE).min(1.0)
        }
        // q^t / (1 + q) with q = exp(−1/b).
        Noise::DiscreteLaplace { scale } => (((-t / scale).exp() / (1.0 + (-1.0 / scale).exp())) * SAFE).min(1.0),
    }
}

/// The smallest noisy number of people at which a group is shown, so that groups with one person in them, of which one person has at most
/// `groups`, are shown with probability `delta` at most, all of them together.
///
/// # Privacy
/// Let one data set have one person more. Groups with people in both differ by what `Sensitivity` says. Groups with people in the larger alone
/// have that person counted alone: there are `groups` of them at most, their exact count is 1, and each is shown with probability P(1 + X ≥ T).
/// By the union bound none is shown with probability 1 − δ at least, and given that, the two outputs show the same groups, whose totals are within
/// the noise's ρ: δ-approximate ρ-zCDP (Bun & Steinke 2016, definition 8.1). Where the person is not among the counted people, sums may hold a part
/// of theirs, which is bounded with all others; it is shown only if others are there, and nobody is there where nobody is counted. A group
/// is shown at `>=` T, and the tail is that of `>=`: not the strict one of OpenDP's threshold constructors (upstream issue 2922).
///
/// # Errors
/// [`PrivacyError::Calibration`] for a δ that is not between 0 and 1.
pub(crate) fn threshold(noise: Noise, groups: u32, delta: f64) -> Result<i64, PrivacyError> {
    if !(delta > 0.0 && delta < 1.0) {
        return Err(PrivacyError::Calibration { what: "discovered groups need a delta above 0 and below 1" });
    }
    let each = delta / f64::from(groups.max(1)) / SAFE;
    let is_rare = |t: u64| tail(noise, t) <= each;
    // Doubled until it is rare, then halved to the first.
    let mut high = 1_u64;
    while !is_rare(high) {
        high = high
            .checked_mul(2)
            .filter(|h| *h < 1 << 40)
            .ok_or(PrivacyError::Calibration { what: "no threshold is high enough for this delta" })?;
    }
    let mut low = high / 2;
    while low + 1 < high {
        let middle = low.midpoint(high);
        if is_rare(middle) { high = middle } else { low = middle }
    }
    // 1 + X ≥ T means X ≥ T − 1.
    i64::try_from(high + 1).map_err(|_| PrivacyError::Overflow)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the definition, term by term.
    fn exact(noise: Noise, t: i64) -> f64 {
        let weight = |x: i64| match noise {
            #[allow(clippy::cast_precision_loss)]
            Noise::DiscreteGaussian { scale } => (-(x as f64).powi(2) / (2.0 * scale * scale)).exp(),
            #[allow(clippy::cast_precision_loss)]
            Noise::DiscreteLaplace { scale } => (-(x as f64).abs() / scale).exp(),
        };
        let reach = 60_000;
        let whole: f64 = (-reach..=reach).map(weight).sum();
        (t..=reach).rev().map(weight).sum::<f64>() / whole
    }

    #[test]
    fn a_tail_is_never_less_than_it_is_and_little_more() {
        for scale in [0.5, 1.0, 3.3, 20.0, 200.0, 1_000.0] {
            for noise in [Noise::DiscreteGaussian { scale }, Noise::DiscreteLaplace { scale }] {
                for sigmas in [0.3, 1.0, 3.0, 6.0] {
                    #[allow(clippy::cast_possible_truncation)]
                    let t = (sigmas * scale).ceil().max(1.0) as i64;
                    let (told, true_one) = (tail(noise, t.unsigned_abs()), exact(noise, t));
                    assert!(told >= true_one, "{noise:?} {t}: {told} {true_one}");
                    assert!(told <= true_one * 1.2 + 1e-300, "{noise:?} {t}: {told} {true_one}");
                }
            }
        }
    }

    #[test]
    fn a_lonely_person_is_shown_no_more_often_than_delta_allows_and_a_threshold_one_lower_would_show_them() {
        for scale in [2.0, 20.0, 117.0] {
            for noise in [Noise::DiscreteGaussian { scale }, Noise::DiscreteLaplace { scale }] {
                for (groups, delta) in [(1, 1e-3), (4, 1e-8), (50, 1e-9)] {
                    let t = threshold(noise, groups, delta).expect("a threshold");
                    assert!(f64::from(groups) * exact(noise, t - 1) <= delta, "{noise:?}");
                    // Not more careful than it must be, by the step's coarseness.
                    #[allow(clippy::cast_possible_truncation)]
                    let slack = 1 + (scale / 20.0).ceil() as i64;
                    assert!(f64::from(groups) * exact(noise, t - 1 - slack) > delta, "{noise:?} {groups} {delta}: {t}");
                }
            }
        }
    }

    #[test]
    fn a_delta_that_is_none_is_refused() {
        for delta in [0.0, 1.0, -1.0, f64::NAN] {
            assert!(threshold(Noise::DiscreteGaussian { scale: 1.0 }, 1, delta).is_err());
        }
    }
}
