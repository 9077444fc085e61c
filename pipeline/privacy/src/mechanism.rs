//! Noise, once, against a charge. Only this file and `question/quantile.rs` name OpenDP.
//!
//! # What is used of OpenDP 0.16, and why each is sound
//!
//! Read in the crate's source, 0.16.0, and in that of dashu 0.6 and rand 0.7 below it. Tests of ours are named where they look at the same thing.
//!
//! | what | what it does here | why it holds |
//! |---|---|---|
//! | `make_gaussian` over `VectorDomain<AtomDomain<i64>>`, `L2Distance<f64>`, into `ZeroConcentratedDivergence` | adds a discrete Gaussian draw to each sum | `IntExpFamily`: sums are widened to `IBig` exactly, the scale is the exact rational of its `f64` (`integerize_scale` with k = 0; infinite and NaN are errors), noise is added in `IBig`, and the result is cast back by saturation, which is post-processing. Its map is (d/σ)²/2 in rationals, then `f64::inf_cast`: dashu's `to_f64` tells the sign of its rounding error, and a result below the exact one is moved to the next float up. Vectors of whole numbers cost no more than that (Canonne, Kamath & Steinke 2020, theorem 14) |
//! | `make_laplace` over the same domain, `L1Distance<f64>`, into `MaxDivergence` | the same with a discrete Laplace draw | the same code; its map is d/b, rounded up the same way |
//! | `make_pureDP_to_zCDP` | states the Laplace's cost in the ledger's currency | ε²/2 (Bun & Steinke 2016, proposition 1.4), both steps rounded up (`inf_powi`, `inf_div`). A bound, not the truth: `tests/accounting` tells by how much |
//! | `ConcentratedMeasure::convert`, `PrivacyProfile::epsilon` | tells people ε at δ | `cdp_delta` is proposition 12 of the same paper at one α: every α gives a true bound, so that its search need not be exact, and what it computes at the α found is rounded up step by step. `epsilon` returns no ε whose δ it has not computed and found small enough, so that its search need not be right either. That dashu rounds exp and ln the right way is not proven there; `tests/accounting` compares with 60 digits |
//! | `sample_discrete_gaussian` | the draws | algorithm 3, in rationals throughout: a discrete Laplace of t = ⌊σ⌋ + 1, kept with probability exp(−(∣x∣ − σ²/t)²/2σ²) |
//! | `sample_discrete_laplace` | below it | algorithm 2: for a scale t/s, u even below t and kept with exp(−u/t), v geometric at e⁻¹, ⌊(v·t + u)/s⌋ with a sign; minus zero is drawn again |
//! | `sample_bernoulli_exp`, `…_exp1` | below both; not public | algorithm 1: exp(−1) as often as 1 fits, then the alternating series, a rational Bernoulli a term. `question/quantile.rs` has its own, over the next |
//! | `sample_bernoulli_rational` | below it, and in quantiles | a number even below the denominator is less than the numerator; a probability above 1 or below 0 is an error |
//! | `sample_uniform_ubig_below`, `sample_uniform_uint_below` | below all, and in quantiles | whole bytes, drawn again at or above the largest multiple of the bound (one multiple fewer than could be kept where the bound is a power of 2: slower, not uneven), then the remainder. A bound of 0 would panic: dividing by zero, it draws nothing |
//!
//! Integers only, no rounding of floats anywhere near the data. `audit.rs` measures all of it from outputs.
//!
//! # Faults known upstream, and where they stand to this
//!
//! | issue | what | here |
//! |---|---|---|
//! | 2922, open | `make_laplace_threshold` and `make_gaussian_threshold` show at `>=` T and account for the strict tail beyond it: reported δ 0.0049, truly 0.0134 at b = 1 and T = 5 | not used: `question/threshold.rs` has its own tail. `audit/planted.rs` shows that the fault is still there, and catches it in a threshold of ours |
//! | 2945, 2949 | margins and redefined columns in the Polars API | not compiled |
//! | 2911, fixed in 0.16.0 | noisy max under zCDP cost four times what it said: ε²/8 is the exponential mechanism's, not permute-and-flip's | selection is not used; our quantiles are an exponential mechanism, drawn as one |
//! | not reported | `inf_powi`, `inf_exp` and the like silence the process's panic hook around each step (`catch_unwind_silent`: `take_hook`, `set_hook`). Two threads at once leave the process with a silent hook, or the default one, for good. Not a matter of noise, but one of I4: our hook withholds what a panic says | the Laplace's map and [`epsilon`] go through it, one at a time (`alone`); draws and the Gaussian's map do not |
//!
//! We do not take its word for it either: before each draw the measurement's own map is asked what our sensitivity costs, and
//! [`PrivacyError::CostsMoreThanCharged`] if that is more than the charge.
//!
//! # Where randomness comes from
//!
//! OpenDP draws its own. Built without OpenSSL, as here, its `fill_bytes` is `rand` 0.7's thread generator: ChaCha20, seeded from the
//! operating system at a thread's first draw, again every 64 KiB and after a fork. It cannot be handed in. If the system gives no first seed the
//! generator panics; a draw runs on the runtime's pool of blocking threads, so that this becomes [`PrivacyError::NotDrawn`], never weak noise. If
//! it gives no later one the generator goes on with the key it has, which nobody can tell from random either.
//! Draws do not take constant time: whoever can time single draws learns something of the noise. Releases are batch work whose duration
//! no reader sees.

use std::sync::{Mutex, PoisonError};

use opendp::combinators::{ConcentratedMeasure, make_pureDP_to_zCDP};
use opendp::core::{Measurement, Metric};
use opendp::domains::{AtomDomain, VectorDomain};
use opendp::measurements::{make_gaussian, make_laplace};
use opendp::measures::ZeroConcentratedDivergence;
use opendp::metrics::{L1Distance, L2Distance};
use starling_schemas::metrics::NanoRho;

use crate::PrivacyError;
use crate::bound::Sensitivity;
use crate::noise::Noise;

/// A charge beyond this many nano-ρ (ρ = 1000) is a mistake in a definition, not privacy.
const MOST_NANO_RHO: i64 = 1_000_000_000_000;

type Sums = VectorDomain<AtomDomain<i64>>;
type Noisy<M> = Measurement<Sums, M, ZeroConcentratedDivergence, Vec<i64>>;

/// The narrower of the two distributions that cost at most `cost` at this sensitivity.
///
/// In zCDP that is the Gaussian, always: for L0 groups its variance is about 1/(2·L0) of the Laplace's. The comparison is made all the same,
/// with the exact variances: it is two formulas, and a ledger in another currency would decide otherwise.
///
/// # Errors
/// [`PrivacyError::Calibration`] for a cost that is not positive, or beyond reason.
pub fn calibrate(sensitivity: Sensitivity, cost: NanoRho) -> Result<Noise, PrivacyError> {
    let gaussian =
        narrowest(gaussian_guess(sensitivity, cost)?, |scale| map(Noise::DiscreteGaussian { scale }, sensitivity), cost)?;
    let laplace = narrowest(laplace_guess(sensitivity, cost)?, |scale| map(Noise::DiscreteLaplace { scale }, sensitivity), cost)?;
    let (gaussian, laplace) = (Noise::DiscreteGaussian { scale: gaussian }, Noise::DiscreteLaplace { scale: laplace });
    Ok(if laplace.variance() < gaussian.variance() { laplace } else { gaussian })
}

/// The Gaussian that costs at most `cost` at this sensitivity, of which only the L2 distance is used.
///
/// # Errors
/// [`PrivacyError::Calibration`] for a cost that is not positive, or beyond reason.
pub(crate) fn calibrate_gaussian(sensitivity: Sensitivity, cost: NanoRho) -> Result<Noise, PrivacyError> {
    let costs = |scale| map(Noise::DiscreteGaussian { scale }, sensitivity);
    Ok(Noise::DiscreteGaussian { scale: narrowest(gaussian_guess(sensitivity, cost)?, costs, cost)? })
}

/// ε at `delta` of a release that costs `rho`: what people are told. Never above ρ + 2·√(ρ·ln 1/δ) (Bun & Steinke 2016, proposition 1.3).
/// Infinite for a δ outside (0, 1) or a negative cost: no promise.
#[must_use]
pub fn epsilon(rho: NanoRho, delta: f64) -> f64 {
    if !(delta > 0.0 && delta < 1.0) || rho.0 < 0 {
        return f64::INFINITY;
    }
    if rho.0 == 0 {
        return 0.0;
    }
    let rho = rho.rho().next_up();
    let simple = rho + 2.0 * (rho * -delta.ln()).sqrt();
    let tight = alone(|| ZeroConcentratedDivergence::convert(rho).and_then(|profile| profile.epsilon(delta)));
    // Where the numbers leave what OpenDP can compute, the simple bound still holds.
    tight.ok().filter(|e| e.is_finite() && *e >= 0.0).map_or(simple, |e| e.min(simple))
}

/// OpenDP's rounded arithmetic takes the process's panic hook and puts it back around each step. Two threads at once would lose ours, which
/// withholds what a panic says (I4); so there is one at a time.
fn alone<T>(work: impl FnOnce() -> T) -> T {
    static ALONE: Mutex<()> = Mutex::new(());
    let _held = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    work()
}

/// ρ of a cost, never more than it.
#[allow(clippy::cast_precision_loss)]
fn spendable(cost: NanoRho) -> Result<f64, PrivacyError> {
    if cost.0 <= 0 || cost.0 > MOST_NANO_RHO {
        return Err(PrivacyError::Calibration { what: "the cost must be above 0 and at most 1000" });
    }
    Ok((cost.0 as f64 / 1e9).next_down())
}

/// L1 and L2 distance as floats, never less than they are.
#[allow(clippy::cast_precision_loss)]
fn distances(sensitivity: Sensitivity) -> (f64, f64) {
    ((sensitivity.l1() as f64).next_up(), (sensitivity.l2_squared() as f64).next_up().sqrt().next_up())
}

fn gaussian_guess(sensitivity: Sensitivity, cost: NanoRho) -> Result<f64, PrivacyError> {
    Ok(distances(sensitivity).1 / (2.0 * spendable(cost)?).sqrt())
}

fn laplace_guess(sensitivity: Sensitivity, cost: NanoRho) -> Result<f64, PrivacyError> {
    Ok(distances(sensitivity).0 / (2.0 * spendable(cost)?).sqrt())
}

/// The first scale from `guess` on, float by float, that the measurement's own map allows.
fn narrowest(guess: f64, costs: impl Fn(f64) -> Result<f64, PrivacyError>, cost: NanoRho) -> Result<f64, PrivacyError> {
    let spendable = spendable(cost)?;
    let mut scale = guess;
    for _ in 0..64 {
        if costs(scale)? <= spendable {
            return Ok(scale);
        }
        scale = scale.next_up();
    }
    Err(PrivacyError::Calibration { what: "no scale near the formula's satisfies the measurement's own privacy map" })
}

/// What one draw of `noise` costs at this sensitivity, by the measurement's own map, in ρ.
fn map(noise: Noise, sensitivity: Sensitivity) -> Result<f64, PrivacyError> {
    let (l1, l2) = distances(sensitivity);
    match noise {
        Noise::DiscreteGaussian { scale } => ask(&gaussian(scale, 1)?, l2),
        Noise::DiscreteLaplace { scale } => ask(&laplace(scale, 1)?, l1),
    }
}

/// Checks the cost, then draws.
pub(crate) fn add_noise(noise: Noise, sensitivity: Sensitivity, cost: NanoRho, sums: Vec<i64>) -> Result<Vec<i64>, PrivacyError> {
    let (spendable, (l1, l2)) = (spendable(cost)?, distances(sensitivity));
    match noise {
        Noise::DiscreteGaussian { scale } => invoke(&gaussian(scale, sums.len())?, l2, spendable, &sums),
        Noise::DiscreteLaplace { scale } => invoke(&laplace(scale, sums.len())?, l1, spendable, &sums),
    }
}

fn gaussian(scale: f64, length: usize) -> Result<Noisy<L2Distance<f64>>, PrivacyError> {
    let domain = VectorDomain::new(AtomDomain::<i64>::default()).with_size(length);
    make_gaussian(domain, L2Distance::default(), scale, None).map_err(|e| refused("make_gaussian", &e))
}

fn laplace(scale: f64, length: usize) -> Result<Noisy<L1Distance<f64>>, PrivacyError> {
    let domain = VectorDomain::new(AtomDomain::<i64>::default()).with_size(length);
    let pure = make_laplace(domain, L1Distance::default(), scale, None).map_err(|e| refused("make_laplace", &e))?;
    make_pureDP_to_zCDP(pure).map_err(|e| refused("make_pureDP_to_zCDP", &e))
}

fn ask<M: Metric<Distance = f64>>(measurement: &Noisy<M>, distance: f64) -> Result<f64, PrivacyError>
where
    (Sums, M): opendp::core::MetricSpace,
{
    alone(|| measurement.map(&distance)).map_err(|e| refused("privacy map", &e))
}

fn invoke<M: Metric<Distance = f64>>(
    measurement: &Noisy<M>,
    distance: f64,
    spendable: f64,
    sums: &Vec<i64>,
) -> Result<Vec<i64>, PrivacyError>
where
    (Sums, M): opendp::core::MetricSpace,
{
    if ask(measurement, distance)? > spendable {
        return Err(PrivacyError::CostsMoreThanCharged);
    }
    measurement.invoke(sums).map_err(|e| refused("invoke", &e))
}

/// OpenDP's name for a failure, without its text, which may quote numbers.
fn refused(constructor: &'static str, error: &opendp::error::Error) -> PrivacyError {
    PrivacyError::Mechanism { constructor, kind: error.variant.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i2_calibrated_noise_costs_what_was_charged_by_the_measurements_own_map_and_hardly_less() {
        for (groups, value) in [(1, 1), (2, 1), (3, 60), (1, 7200), (7, u32::MAX)] {
            for nano_rho in [1, 999, 3_000_000, 4_000_000, 500_000_000, 7_000_000_000] {
                let (sensitivity, cost) = (Sensitivity::planted(groups, value), NanoRho(nano_rho));
                let noise = calibrate(sensitivity, cost).expect("calibrates");
                let costs = map(noise, sensitivity).expect("map");
                assert!(costs <= cost.rho() && costs > cost.rho() * (1.0 - 1e-9), "{noise:?} {costs} {cost:?}");
            }
        }
    }

    #[test]
    fn in_zcdp_the_gaussian_is_always_the_narrower_one() {
        for groups in [1, 2, 3, 10] {
            for value in [1, 2, 60] {
                for exponent in 3..11 {
                    let noise =
                        calibrate(Sensitivity::planted(groups, value), NanoRho(10_i64.pow(exponent))).expect("calibrates");
                    assert_eq!(noise.name(), "discrete_gaussian", "{groups} {value} {exponent}");
                }
            }
        }
    }

    #[test]
    fn i2_noise_that_costs_more_than_was_charged_is_not_drawn() {
        let (sensitivity, cost) = (Sensitivity::planted(2, 1), NanoRho(4_000_000));
        let right = calibrate(sensitivity, cost).expect("calibrates").scale();
        assert!(add_noise(Noise::DiscreteGaussian { scale: right }, sensitivity, cost, vec![0; 3]).is_ok());
        let refused = |noise, sensitivity| {
            let error = add_noise(noise, sensitivity, cost, vec![0; 3]).expect_err("refused");
            assert!(matches!(error, PrivacyError::CostsMoreThanCharged), "{error}");
        };
        refused(Noise::DiscreteGaussian { scale: right / 2.0 }, sensitivity);
        refused(Noise::DiscreteGaussian { scale: right * (1.0 - 1e-12) }, sensitivity);
        refused(Noise::DiscreteGaussian { scale: right }, Sensitivity::planted(3, 1));
        refused(Noise::DiscreteLaplace { scale: right }, sensitivity);
        refused(Noise::DiscreteGaussian { scale: 0.0 }, sensitivity);
    }

    #[test]
    fn a_cost_of_nothing_buys_nothing() {
        for cost in [0, -1, i64::MIN, i64::MAX] {
            assert!(matches!(calibrate(Sensitivity::planted(1, 1), NanoRho(cost)), Err(PrivacyError::Calibration { .. })));
        }
    }

    #[test]
    fn sums_at_the_edge_of_64_bits_saturate_instead_of_wrapping() {
        let noise = Noise::DiscreteGaussian { scale: 1e6 };
        let noisy = add_noise(noise, Sensitivity::planted(1, 1), NanoRho(4_000_000), vec![i64::MAX; 64]).expect("draws");
        assert!(noisy.iter().all(|v| *v > i64::MAX - 100_000_000));
    }

    /// δ at ε of the continuous Gaussian mechanism with ρ (Balle & Wang 2018), by its tails: a lower bound of what zCDP may promise.
    fn gaussian_delta(rho: f64, epsilon: f64) -> f64 {
        let mu = (2.0 * rho).sqrt();
        upper_tail(epsilon / mu - mu / 2.0) - epsilon.exp() * upper_tail(epsilon / mu + mu / 2.0)
    }

    /// P(Z > x) of the standard normal, by Simpson's rule.
    fn upper_tail(x: f64) -> f64 {
        let (steps, end) = (20_000, x.max(0.0) + 12.0);
        let h = (end - x) / f64::from(steps);
        let density = |t: f64| (-t * t / 2.0).exp() / std::f64::consts::TAU.sqrt();
        let inner: f64 = (1..steps).map(|i| density(x + h * f64::from(i)) * if i % 2 == 1 { 4.0 } else { 2.0 }).sum();
        h / 3.0 * (density(x) + inner + density(end))
    }

    #[test]
    fn epsilon_lies_between_what_the_gaussian_needs_and_the_simple_bound() {
        for nano_rho in [1_000, 3_000_000, 4_000_000, 11_500_000, 100_000_000, 1_000_000_000, 5_000_000_000] {
            for delta in [1e-12, 1e-9, 1e-6, 1e-3, 0.1] {
                let rho = NanoRho(nano_rho).rho();
                let told = epsilon(NanoRho(nano_rho), delta);
                assert!(told <= rho.next_up() + 2.0 * (rho.next_up() * -delta.ln()).sqrt(), "{rho} {delta}: {told}");
                assert!(gaussian_delta(rho, told) <= delta, "{rho} {delta}: {told}");
            }
        }
    }

    #[test]
    fn epsilon_of_known_costs() {
        // Minima over α of the bound in Canonne, Kamath & Steinke 2020, proposition 12, computed apart with 50 digits.
        let known = [
            (3_000_000, 1e-9, 0.433_276_579_975),
            (4_000_000, 1e-9, 0.503_065_778_718),
            (11_500_000, 1e-9, 0.871_385_884_922),
            (500_000_000, 1e-6, 5.221_534_444_53),
            (1_000_000_000, 1e-3, 5.419_919_168_22),
        ];
        for (nano_rho, delta, known) in known {
            let told = epsilon(NanoRho(nano_rho), delta);
            assert!((told - known).abs() < 1e-6 * known, "{nano_rho} {delta}: {told} {known}");
        }
    }

    #[test]
    fn epsilon_promises_nothing_where_it_cannot() {
        assert_eq!(epsilon(NanoRho(0), 1e-9), 0.0);
        for delta in [0.0, -1.0, 1.0, f64::NAN] {
            assert_eq!(epsilon(NanoRho(1_000), delta), f64::INFINITY);
        }
        assert_eq!(epsilon(NanoRho(-1), 1e-9), f64::INFINITY);
    }
}
