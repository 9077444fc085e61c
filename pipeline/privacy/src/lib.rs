//! # privacy: rows to noisy numbers
//!
//! ```text
//!  question/   spec: what is asked, by what, within which bounds ─► plan: which noise, which threshold, at what cost       no data
//!                                                                     │
//!  ledger.rs                           charge every block, once per question ─► Charge         no rows are read before this
//!                                                                     │
//!  question/   rows: person, keys, inputs ─► groups by number ─► per person: sum by group → one vector, bounded in length; people: so many groups
//!                                                                     │ exact whole numbers, zeros filled in where groups are listed
//!  mechanism.rs   ask the measurement what it costs → draw once       │                        OpenDP is named here only
//!                                                                     ▼
//!                                           Answer: noisy numbers, and with noise.rs how wide they are
//! ```
//!
//! **Comes in:** what a question asks, as a [`question::Spec`], and rows in batches. **Goes out:** noisy numbers, and a charge in the ledger.
//! `query` makes specs from SQL, reads the rows, and keeps what comes out: scheduled releases and questions alike.
//!
//! # Privacy
//!
//! *Neighbours:* two tables, of which one has all rows of one person of one block more. *Promise:* an answer is δ-approximate ρ-zCDP (Bun &
//! Steinke 2016) with the plan's ρ and δ, and everything answered over one block is so with their sums, at most the dataset's limit; people
//! are told ε at δ. *Assumes:* a person is one pseudonym for the day (`minimize`), rows that are promised in order of person are so (checked),
//! the public lists are public, OpenDP's generator cannot be predicted. *Not hidden:* which days have closed, and whether completely; what is
//! asked; the scale of the noise.
//!
//! Intervals of sums are made from noisy values alone: post-processing. They are for the noise: sums are of bounded shares, and the bounds cut off what
//! heavy users did beyond them. Over all groups 95 in 100 intervals hold the exact bounded sum; among published groups that are close to a
//! threshold fewer do, because luck helped them over it. A quantile's interval cannot be made from its value: its ends are drawn, from the
//! quantile's own budget, and only where they are asked for (`question/interval.rs`).
//!
//! # Invariants kept here
//!
//! - **I2 budget**: [`Charge::draw`] uses a [`Charge`] up, which only [`Ledger::charge`] makes, after the metastore's serializable transaction. It
//!   names the days it was charged to, all of them or none.
//!   A charge is used at the cost that is recorded. A crash never refunds. The measurement's own privacy map is asked before each draw.
//! - **I4**: no error holds a value from the data.
//! - **I8 fail closed**: unsorted rows, other columns, overflow, a scale that does not calibrate, missing entropy: an error, no number.
//!
//! Where this departs from the design: 3.7 asks for Laplace or Gaussian, whichever is better. Both are here, calibrated and audited, and the
//! variances are compared; with a ledger in zCDP the Gaussian wins always, by a factor of about 2·L0.
//!
//! # OpenDP 0.16
//!
//! Which constructors are used and why each is sound, and where its randomness comes from, stands in `mechanism.rs`. In short: exact integer
//! Gaussian (or Laplace) noise on integer vectors; none of its thresholds, selections or Polars. Thresholds and the exponential mechanism of
//! quantiles and their intervals are `question`'s own, over its exact uniform and Bernoulli draws. Its noise comes from `rand`'s thread generator
//! (ChaCha20 seeded from the operating system), because it is built without OpenSSL; it cannot be given another source.
//!
//! # What can go wrong
//!
//! | what | what happens |
//! |---|---|
//! | killed after the charge, or after the draw | who asks again finds the charge, reads again, draws under it; no second charge |
//! | budget spent | [`Decision::Refused`] with what is left; nothing is read |
//! | a question became dearer since it was charged | it is drawn at the cost charged then |
//! | rows that are not in order of person | [`PrivacyError::Unsorted`]: a person could have been bounded twice |

mod bound;
mod error;
mod ledger;
mod mechanism;
mod noise;
pub mod question;

#[cfg(test)]
mod audit;
#[cfg(test)]
mod testing;

pub use bound::Sensitivity;
pub use error::PrivacyError;
pub use ledger::{Charge, Decision, Ledger};
pub use mechanism::{calibrate, epsilon};
pub use noise::{COVERAGE, Noise, THRESHOLD_STDDEVS, Z};
