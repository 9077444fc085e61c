//! What a distribution of noise costs, exactly: the whole (ε, δ) curve, by summing the definition.
//!
//! The claims an audit compares with are two. What people are *told* is ε at δ of the charge in ρ ([`epsilon`](crate::mechanism::epsilon)): for every
//! mechanism of that ρ, so it is 4 to 24 % above what Gaussians need at δ of 10⁻¹⁰ to 10⁻³ (`tests/accounting`), more at the large δ that an audit can
//! measure, and no audit of a Gaussian could come closer. What the noise *claims*
//! is the curve of its own distribution, which is below: an audit that sees well must come close to it, and a bug of a tenth is above it.

use crate::noise::Noise;

/// P(x) for x in −reach..=reach; what lies beyond is below 10⁻³⁰.
pub(crate) fn probabilities(noise: Noise) -> (Vec<f64>, i64) {
    let sigmas = match noise {
        Noise::DiscreteGaussian { .. } => 12.0,
        Noise::DiscreteLaplace { .. } => 75.0,
    };
    let reach = (sigmas * noise.scale()).ceil() as i64 + 10;
    let weights: Vec<f64> = (-reach..=reach).map(|x| weight(noise, x as f64)).collect();
    let all: f64 = weights.iter().sum();
    (weights.into_iter().map(|w| w / all).collect(), reach)
}

fn weight(noise: Noise, x: f64) -> f64 {
    match noise {
        Noise::DiscreteGaussian { scale } => (-x * x / (2.0 * scale * scale)).exp(),
        Noise::DiscreteLaplace { scale } => (-x.abs() / scale).exp(),
    }
}

/// P(X ≥ t).
pub(crate) fn tail(noise: Noise, t: i64) -> f64 {
    let (probabilities, reach) = probabilities(noise);
    let from = usize::try_from((t + reach).clamp(0, 2 * reach + 1)).expect("inside");
    probabilities[from..].iter().rev().sum()
}

/// δ at `epsilon` of outputs that differ by `shift`: Σ max(0, P(x − shift) − e^ε·P(x)).
pub(crate) fn delta(noise: Noise, shift: i64, epsilon: f64) -> f64 {
    delta_of(&probabilities(noise), shift, epsilon)
}

fn delta_of((probabilities, reach): &(Vec<f64>, i64), shift: i64, epsilon: f64) -> f64 {
    let (reach, ratio) = (*reach, epsilon.exp());
    let at = |x: i64| usize::try_from(x + reach).ok().and_then(|i| probabilities.get(i)).copied().unwrap_or(0.0);
    (-reach..=reach + shift).map(|x| (at(x - shift) - ratio * at(x)).max(0.0)).sum()
}

/// ε at `delta` of outputs that differ by `shift`: the smallest whose [`delta`] is no more.
pub(crate) fn epsilon(noise: Noise, shift: i64, at: f64) -> f64 {
    let probabilities = probabilities(noise);
    let (mut low, mut high) = (0.0, 100.0);
    for _ in 0..40 {
        let middle = f64::midpoint(low, high);
        if delta_of(&probabilities, shift, middle) <= at { high = middle } else { low = middle }
    }
    high
}

#[test]
fn a_laplaces_curve_ends_where_its_definition_says() {
    let noise = Noise::DiscreteLaplace { scale: 3.0 };
    // The ratio is e^(shift/b) from the shift on, and never more.
    assert!(delta(noise, 2, 2.0 / 3.0) < 1e-15 && delta(noise, 2, 0.666) > 1e-5);
    assert!((epsilon(noise, 2, 1e-9) - 2.0 / 3.0).abs() < 1e-6);
}

#[test]
fn a_wide_gaussians_curve_is_the_continuous_one() {
    // Balle & Wang 2018, theorem 8, for μ = 1: Φ(1/2 − ε) − e^ε·Φ(−1/2 − ε), by SciPy 1.17.
    let known = [(0.0, 0.382_924_922_548_026_24), (1.0, 0.126_936_737_506_643_92), (3.0, 0.001_537_185_369_400_952_5)];
    let noise = Noise::DiscreteGaussian { scale: 60.0 };
    for (at, known) in known {
        let told = delta(noise, 60, at);
        assert!((told - known).abs() < 1e-3 * known, "{at}: {told}");
        assert!((epsilon(noise, 60, known) - at).abs() < 1e-3, "{at}");
    }
}
