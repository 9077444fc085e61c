//! # privacy: person rows to released statistics
//!
//! ```text
//!  person table of a closed window (encrypted, sorted by person)        metric: what, by what, within which bounds, at what cost
//!        │                                                                     │
//!        │            ledger.rs   charge the block, once per question ◄────────┤      no rows are read before this
//!        │               │ Charge                                              │
//!        ▼               │                                                     ▼
//!  bound.rs   per person: sum by group → clamp → at most so many groups ◄── groups.rs   every combination of public lists
//!        │ BoundedSums   │                                                            exact i64 sums, zeros filled in
//!        ▼               ▼
//!  mechanism.rs   calibrate to the charge → ask the measurement what it costs → draw once      OpenDP is named here only
//!        │ NoisySums
//!        ▼
//!  released.rs   threshold, intervals (noise.rs), Parquet ──► stats/<metric>/<day>.parquet, created, never replaced
//!        │
//!  release.rs    ties it together: charge → sum → draw → file → audit entry → record
//! ```
//!
//! **Comes in:** a window that has closed, its person table and data key, the catalogue of metrics. **Goes out:** one table per metric and
//! day that anybody may read for ever, a charge in the ledger, an entry in the audit log.
//!
//! # Privacy
//!
//! *Neighbours:* two person tables of one day, of which one has all rows of one person more. *Promise:* a released table is ρ-zCDP (Bun &
//! Steinke 2016) with the metric's ρ, and everything released of one day is so with the sum of ρ, at most the dataset's limit; people
//! are told ε at δ. *Assumes:* a person is one pseudonym for the day (`minimize`), all of a person's rows stand together (checked), the
//! public lists are public, OpenDP's generator cannot be predicted. *Not hidden:* which days have closed, and whether completely; the
//! metrics' definitions; the scale of the noise.
//!
//! Suppression and intervals are made from noisy values alone: post-processing, no δ of their own. A suppressed group has no value; it is
//! not zero. Intervals are for the noise: sums are of bounded shares, and the bounds cut off what heavy users did beyond them, which the
//! columns' comments say. Over all groups 95 in 100 intervals hold the exact bounded sum; among published groups that are close to the
//! threshold fewer do, because luck helped them over it.
//!
//! # Invariants kept here
//!
//! - **I2 budget**: [`draw`] consumes a [`Charge`], which only [`Ledger::charge`] makes, after the metastore's serializable transaction.
//!   A charge is used at the cost that is recorded. A crash never refunds. The measurement's own privacy map is asked before each draw.
//! - **I3 one draw**: noisy sums cannot be read outside this crate; the file is put by create-if-absent, and who comes second takes the
//!   first one's bytes. A recorded metric is never computed again.
//! - **I6 audit**: an entry before person rows are read, an entry before a release becomes visible. A crash between the second entry and
//!   the record does not repeat it; two releasers at the same instant may both write it.
//! - **I7 expiry**: an expired window answers [`PrivacyError::Expired`], and costs nothing.
//! - **I8 fail closed**: unsorted rows, other columns, overflow, a scale that does not calibrate, missing entropy: an error, no number.
//!
//! # Where this departs from the design
//!
//! 3.5 has one planner for scheduled releases and questions in SQL. Here are the scheduled releases: a metric is reviewed text (what is
//! counted, by which public lists, within which bounds), and bounding is a single pass over the person table in person order instead of a
//! query plan, with one person in memory. The parts (bound, charge, draw) take any [`Metric`](starling_schemas::metrics::Metric).
//! 3.7 asks for Laplace or Gaussian, whichever is better. Both are here, calibrated and audited, and the variances are compared; with a
//! ledger in zCDP the Gaussian wins always, by a factor of about 2·L0.
//!
//! # OpenDP 0.16
//!
//! Which constructors are used and why each is sound, and where its randomness comes from, stands in `mechanism.rs`. In short: exact integer
//! Gaussian (or Laplace) noise on integer vectors, no thresholds, no Polars, no selection. Its noise comes from `rand`'s thread generator
//! (ChaCha20 seeded from the operating system), because it is built without OpenSSL; it cannot be given another source.
//!
//! # What can go wrong
//!
//! | what | what happens |
//! |---|---|
//! | killed after the charge, or after the draw | the next call finds the charge, reads again, draws under it; no second charge |
//! | killed after the file | the next call takes the file as it is, even after the rows have expired |
//! | two releasers at once | both may draw; one file; both report its bytes |
//! | budget spent | the metric is reported as refused with what is left; the others go on |
//! | a metric's definition changes | released windows keep their release; a charged window is drawn at the cost charged then |
//! | metastore restored from an old copy | files that are there are charged again and adopted, not drawn again |
//! | a foreign file at a release's path | [`PrivacyError::ForeignFile`]: nothing is recorded |

mod bound;
mod error;
mod groups;
mod ledger;
mod mechanism;
mod noise;
mod release;
mod released;

#[cfg(test)]
mod audit;
#[cfg(test)]
mod testing;

pub use bound::{BoundedSums, Bounder, Sensitivity};
pub use error::PrivacyError;
pub use groups::PublicGroups;
pub use ledger::{Charge, Decision, Ledger};
pub use mechanism::{NoisySums, calibrate, draw, epsilon};
pub use noise::{COVERAGE, Noise, THRESHOLD_STDDEVS};
pub use release::{ReleaseReport, ReleaseStatus, Releaser};
pub use released::{path as release_path, schema as release_schema};
