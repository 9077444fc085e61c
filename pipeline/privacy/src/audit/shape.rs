//! Whether draws look like the distribution that is claimed: distribution function, mean and variance.
//!
//! The distribution function is bounded by the Dvoretzky–Kiefer–Wolfowitz inequality at one in a billion; mean and variance get 6.2 standard
//! errors. So right noise practically never fails here.

use super::{draws, gaussian, laplace};
use crate::noise::Noise;

/// Natural logarithm of a billion.
const LN_BILLION: f64 = 20.723_265_836_946_41;

/// P(X ≤ x) for all x in −reach..=reach, by summing the definition.
fn distribution(noise: Noise, reach: i64) -> Vec<f64> {
    let weight = |x: f64| match noise {
        Noise::DiscreteGaussian { scale } => (-x * x / (2.0 * scale * scale)).exp(),
        Noise::DiscreteLaplace { scale } => (-x.abs() / scale).exp(),
    };
    let mut running = 0.0;
    let sums: Vec<f64> = (-reach..=reach)
        .map(|x| {
            running += weight(x as f64);
            running
        })
        .collect();
    sums.into_iter().map(|s| s / running).collect()
}

/// Whether draws around 0 look like `claimed`: distribution function, mean and variance.
fn check_shape(claimed: Noise, drawn: &[i64]) -> Result<(), String> {
    let n = drawn.len() as f64;
    let reach = (60.0 * claimed.scale()).ceil() as i64 + 10;
    let expected = distribution(claimed, reach);
    let mut counts = vec![0.0; expected.len()];
    for x in drawn {
        let at = usize::try_from((x + reach).clamp(0, 2 * reach)).expect("inside");
        counts[at] += 1.0;
    }
    let (mut seen, mut gap) = (0.0, 0.0_f64);
    for (count, expected) in counts.iter().zip(&expected) {
        seen += count;
        gap = gap.max((seen / n - expected).abs());
    }
    let allowed = ((LN_BILLION + 2_f64.ln()) / (2.0 * n)).sqrt();
    if gap > allowed {
        return Err(format!("distribution function off by {gap}, allowed {allowed}"));
    }
    let mean = drawn.iter().map(|x| *x as f64).sum::<f64>() / n;
    if mean.abs() > 6.2 * claimed.stddev() / n.sqrt() {
        return Err(format!("mean {mean}"));
    }
    let squares: Vec<f64> = drawn.iter().map(|x| (*x as f64).powi(2)).collect();
    let variance = squares.iter().sum::<f64>() / n;
    // The fourth moment of the claimed distribution, for the spread of the variance.
    let probability = |at: usize| expected[at] - if at == 0 { 0.0 } else { expected[at - 1] };
    let fourth: f64 = (0..expected.len()).map(|at| (at as f64 - reach as f64).powi(4) * probability(at)).sum();
    let spread = ((fourth - claimed.variance().powi(2)) / n).sqrt();
    if (variance - claimed.variance()).abs() > 6.2 * spread {
        return Err(format!("variance {variance}, claimed {}", claimed.variance()));
    }
    Ok(())
}

#[test]
fn noise_has_the_distribution_it_claims() {
    for scale in [0.4, 1.0, 15.8, 1342.0] {
        for noise in [gaussian(scale), laplace(scale)] {
            assert_eq!(check_shape(noise, &draws(noise, vec![0; 20_000])), Ok(()), "{noise:?}");
        }
    }
}

#[test]
fn a_planted_wrong_distribution_is_caught() {
    let claimed = gaussian(5.0);
    let right = draws(claimed, vec![0; 20_000]);
    let planted: [(&str, Vec<i64>); 6] = [
        ("scale a tenth too large", draws(gaussian(5.5), vec![0; 20_000])),
        ("scale a tenth too small", draws(gaussian(4.5), vec![0; 20_000])),
        ("half the scale", draws(gaussian(2.5), vec![0; 20_000])),
        ("the other distribution with the same variance", draws(laplace(5.0 / 2_f64.sqrt()), vec![0; 20_000])),
        ("noise that is never negative", right.iter().map(|x| x.abs()).collect()),
        ("noise off by one", right.iter().map(|x| x + 1).collect()),
    ];
    for (name, drawn) in planted {
        assert!(check_shape(claimed, &drawn).is_err(), "{name}");
    }
}
