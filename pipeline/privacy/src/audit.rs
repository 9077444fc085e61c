//! Measures noise and privacy loss from outputs. The same checks are run on planted faults, which they must catch.
//!
//! ```text
//!  loss.rs        outputs of two neighbours → a lower bound of ε or δ, wrong once in a thousand (Clopper–Pearson)
//!  curves.rs      what a distribution costs exactly, to compare with
//!  mechanisms.rs  every mechanism: never above its claim, and above 0.9 of it where it is tight
//!  tables.rs      whole tables through the bounder, and bounders with a fault
//!  planted.rs     faults of noise, threshold and selection, each caught; OpenDP's own fault 2922 among them
//!  questions.rs   whole questions, from rows to answer
//!  suggestions.rs bounds that are found in the data
//!  shape.rs       draws have the distribution, mean and variance they claim
//!  intervals.rs   95 % intervals over 100,000 runs
//! ```
//!
//! # How sure
//!
//! Randomness cannot be handed to OpenDP, so no run is like another. By its construction a bound of loss is above the true loss once in 1,000
//! runs at most; for it to be so both of its probabilities must be far off at once, each the wrong way, and where right noise is measured here the
//! bound stands 4.8 standard errors below the noise's own curve (simulated; less than one run in a million above), and further below what people
//! are told. These tests run often: so right noise may show up to 3 % more than its own curve, which is some six standard errors
//! off or more, and a fault must show more than the claim itself. The numbers of runs leave four standard errors or more where a
//! fault must be caught or 0.9 of a claim be reached.
//!
//! # A mechanism more
//!
//! Write two closures, run [`loss::Neighbours::run`], compare with the claim; plant a fault, and see that the same comparison fails. A test of
//! another crate includes `loss.rs` by its path (and statrs among its dev-dependencies), with closures that ask whole queries.

mod curves;
mod intervals;
mod loss;
mod mechanisms;
mod planted;
mod questions;
mod shape;
mod suggestions;
mod tables;

use starling_schemas::metrics::NanoRho;

use crate::bound::Sensitivity;
use crate::mechanism::add_noise;
use crate::noise::Noise;

/// Draws through the real mechanism, with the check of costs out of the way so that faults can be planted.
fn draws(noise: Noise, sums: Vec<i64>) -> Vec<i64> {
    add_noise(noise, Sensitivity::planted(1, 1), NanoRho(1_000_000_000_000), sums).expect("draws")
}

/// A closure that gives one draw around `sum` each time, out of many made at once.
fn around(noise: Noise, sum: i64, runs: usize) -> impl FnMut() -> i64 {
    let mut drawn = draws(noise, vec![sum; runs]).into_iter();
    move || drawn.next().expect("enough draws")
}

/// The same for a vector of sums.
fn around_all(noise: Noise, sums: &[i64], runs: usize) -> impl FnMut() -> Vec<i64> {
    let width = sums.len();
    let mut drawn = draws(noise, sums.repeat(runs)).into_iter();
    move || drawn.by_ref().take(width).collect()
}

fn gaussian(scale: f64) -> Noise {
    Noise::DiscreteGaussian { scale }
}

fn laplace(scale: f64) -> Noise {
    Noise::DiscreteLaplace { scale }
}
