//! The two distributions noise comes from, as formulas: how wide they are. Nothing is drawn here.
//!
//! Both live on the integers and are symmetric around 0 (Canonne, Kamath & Steinke 2020, "The Discrete Gaussian for Differential Privacy").

/// Share of the intervals that hold the exact bounded sum.
pub const COVERAGE: f64 = 0.95;

/// A listed group is published when its noisy value is above 0 and reaches so many standard deviations of the noise. An empty group gets there with probability
/// 3 in 100,000 (Gaussian) or 2 in 1,000 (Laplace), so a table of 1,500 mostly empty groups rarely shows one that is nothing but noise.
pub const THRESHOLD_STDDEVS: f64 = 4.0;

/// From this scale on, a discrete Gaussian's quantiles are taken from the continuous one and rounded up: they differ by less than a unit.
const WIDE: f64 = 1000.0;

/// The 97.5 % quantile of the standard normal distribution: half of a 95 % interval, in standard deviations.
pub const Z: f64 = 1.959_963_984_540_054;

/// A distribution of noise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Noise {
    /// P(x) ∝ exp(−x² / 2·scale²).
    DiscreteGaussian {
        /// σ. The standard deviation, but for very small scales.
        scale: f64,
    },
    /// P(x) ∝ exp(−|x| / scale).
    DiscreteLaplace {
        /// b. The standard deviation is about √2 times this.
        scale: f64,
    },
}

impl Noise {
    /// The name in files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::DiscreteGaussian { .. } => "discrete_gaussian",
            Self::DiscreteLaplace { .. } => "discrete_laplace",
        }
    }

    /// Its scale.
    #[must_use]
    pub const fn scale(self) -> f64 {
        match self {
            Self::DiscreteGaussian { scale } | Self::DiscreteLaplace { scale } => scale,
        }
    }

    /// Exact variance, to rounding.
    #[must_use]
    pub fn variance(self) -> f64 {
        match self {
            // The difference to σ² is below 10⁻⁶⁰ from here on (Poisson summation: it falls with exp(−2π²σ²)).
            Self::DiscreteGaussian { scale } if scale > 4.0 => scale * scale,
            Self::DiscreteGaussian { scale } => {
                let (mut all, mut squares) = (1.0, 0.0);
                for x in 1..200_u32 {
                    let x = f64::from(x);
                    let weight = 2.0 * (-x * x / (2.0 * scale * scale)).exp();
                    all += weight;
                    squares += x * x * weight;
                }
                squares / all
            }
            Self::DiscreteLaplace { scale } => 0.5 / (0.5 / scale).sinh().powi(2),
        }
    }

    /// Standard deviation.
    #[must_use]
    pub fn stddev(self) -> f64 {
        self.variance().sqrt()
    }

    /// The smallest integer `m` for which noise lies in [−m, m] with probability [`COVERAGE`] or more. As a float: it may be large.
    #[must_use]
    pub fn half_width(self) -> f64 {
        match self {
            Self::DiscreteGaussian { scale } if scale > WIDE => (Z * scale).ceil(),
            Self::DiscreteGaussian { scale } => {
                let weight = |x: f64| (-x * x / (2.0 * scale * scale)).exp();
                let mut tail = 0.0;
                let mut x = (10.0 * scale).ceil() + 2.0;
                while x >= 1.0 {
                    tail += 2.0 * weight(x);
                    x -= 1.0;
                }
                let all = tail + 1.0;
                let mut m = 0.0;
                while tail > (1.0 - COVERAGE) * all {
                    m += 1.0;
                    tail -= 2.0 * weight(m);
                }
                m
            }
            // P(|X| > m) = 2·q^(m+1) / (1 + q) with q = exp(−1/b).
            Self::DiscreteLaplace { scale } => {
                let q = (-1.0 / scale).exp();
                (scale * (2.0 / ((1.0 - COVERAGE) * (1.0 + q))).ln() - 1.0).ceil().max(0.0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// P(X = x) by summing the definition.
    fn probability(noise: Noise, x: f64) -> f64 {
        let weight = |x: f64| match noise {
            Noise::DiscreteGaussian { scale } => (-x * x / (2.0 * scale * scale)).exp(),
            Noise::DiscreteLaplace { scale } => (-x.abs() / scale).exp(),
        };
        let reach = (60.0 * noise.scale()).ceil() as i64 + 5;
        weight(x) / (-reach..=reach).map(|x| weight(x as f64)).sum::<f64>()
    }

    fn examples() -> Vec<Noise> {
        let scales = [0.1, 0.5, 1.0, 3.9, 4.1, 15.8, 300.0];
        scales.into_iter().flat_map(|scale| [Noise::DiscreteGaussian { scale }, Noise::DiscreteLaplace { scale }]).collect()
    }

    #[test]
    fn the_variance_is_that_of_the_definition() {
        for noise in examples() {
            let reach = (60.0 * noise.scale()).ceil() as i64 + 5;
            let weights: Vec<(f64, f64)> = (-reach..=reach).map(|x| (x as f64, probability_weight(noise, x as f64))).collect();
            let all: f64 = weights.iter().map(|w| w.1).sum();
            let variance = weights.iter().map(|(x, w)| x * x * w).sum::<f64>() / all;
            assert!(
                (noise.variance() - variance).abs() <= 1e-9 * variance.max(1e-12),
                "{noise:?}: {} {variance}",
                noise.variance()
            );
        }
    }

    fn probability_weight(noise: Noise, x: f64) -> f64 {
        match noise {
            Noise::DiscreteGaussian { scale } => (-x * x / (2.0 * scale * scale)).exp(),
            Noise::DiscreteLaplace { scale } => (-x.abs() / scale).exp(),
        }
    }

    #[test]
    fn the_half_width_is_the_smallest_that_covers() {
        for noise in examples().into_iter().filter(|n| n.scale() < 20.0) {
            let m = noise.half_width() as i64;
            let inside = |m: i64| (-m..=m).map(|x| probability(noise, x as f64)).sum::<f64>();
            assert!(inside(m) >= COVERAGE - 1e-12, "{noise:?}: {m}");
            assert!(m == 0 || inside(m - 1) < COVERAGE, "{noise:?}: {m}");
        }
    }

    #[test]
    fn the_rule_for_wide_gaussians_continues_the_exact_one() {
        let below = Noise::DiscreteGaussian { scale: 999.0 }.half_width();
        assert!((below - 1958.0).abs() <= 1.0, "{below}");
        assert_eq!(Noise::DiscreteGaussian { scale: 1342.0 }.half_width(), 2631.0);
    }

    #[test]
    fn an_empty_group_is_published_less_than_three_times_in_a_thousand() {
        for noise in examples() {
            let from = (THRESHOLD_STDDEVS * noise.stddev()).ceil().max(1.0) as i64;
            let reach = (60.0 * noise.scale()).ceil() as i64 + 5;
            let all: f64 = (-reach..=reach).map(|x| probability_weight(noise, x as f64)).sum();
            let shown = (from..=reach).map(|x| probability_weight(noise, x as f64)).sum::<f64>() / all;
            assert!(shown < 0.003, "{noise:?}: {shown}");
        }
    }
}
