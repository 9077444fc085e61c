//! A question: the private part of a statement, from rows to a table with noise.
//!
//! ```text
//!  the statement's text ─► Spec (what, by what, within which bounds) ─► Plan (which noise, which threshold, what it costs)      no data
//!                                                                          │ Charge
//!  rows: person, keys, inputs ─► Keys (groups by number) ─► Contributions (bound, add up exactly) ─► Exact ─► Answer        noise, once
//! ```
//!
//! Everything is a whole number between the clamp of a row's input and the noise. An [`Answer`] holds noisy numbers only; what is made of it is
//! post-processing.

mod answer;
mod beside;
mod contributions;
mod interval;
mod keys;
mod plan;
mod quantile;
mod spec;
mod suggest;
mod threshold;

#[cfg(feature = "exact")]
pub use answer::ExactForTests;
pub use answer::{Answer, Asked, Bias};
pub use beside::Beside;
pub use contributions::Order;
pub use keys::MOST_GROUPS;
pub use plan::{Added, BiasPlan, Blur, Interval, Plan, QuantileGamma, plan, plan_with};
pub use spec::{ABSENT, Aggregate, Grid, Input, Rank, Source, Spec};
pub use suggest::{Bound, Probe, suggest};

/// The steps of a question, for tests that look between them.
#[cfg(test)]
pub(crate) mod testing {
    pub(crate) use super::contributions::{Contributions, Order, People};
    pub(crate) use super::keys::Keys;
    pub(crate) use super::quantile::Gamma;
}
