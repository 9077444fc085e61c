//! # integrity: signals to explained, content-blind alerts
//!
//! Finds abuse that can be seen without reading a message and without knowing who wrote to whom.
//!
//! ```text
//!  SignalBatch ──► Engine ─┬─ senders     times of recent messages, exact          bulk_per_minute · new_account_burst
//!   (origin, sequence,     ├─ businesses  people a day by sketch, own past         business_reach · business_blocks
//!    chunk: repeats drop)  ├─ groups      members added, in panes of 10 s          group_mass_add
//!                          └─ judge       what was seen → Alert, with its reasons
//!                                              │
//!  Runner: state sealed + position + alerts ───┴─► metastore, one transaction ─► feed
//! ```
//!
//! People then work on what was found: [`work`] says which steps there are, and which of them nobody may take.
//!
//! **Comes in:** rows of [`SIGNALS`](starling_schemas::rows::SIGNALS), under keys that this room never sees. **Goes out:** [`Alert`]s.
//!
//! ## Invariants kept here
//!
//! - **I5 no edge.** A row has one person at most; of a business's people only a sketch is kept, from which nobody can be listed.
//! - **I9 same answer.** What is found does not depend on how rows are cut into batches, nor on the order in which they come (as long as
//!   partitions are not further apart than two sweeps, two minutes of the wall clock). Batches seen before are dropped by (origin, sequence,
//!   chunk); state and position are committed together, so a crash repeats exactly what was not committed.
//! - **I4.** Alerts name a business, or the keyed form of the flagged sender or group; never a recipient, never a reporter. Counts of people
//!   under ten that speak for a subject are told as "<10".
//! - P22: 1000 messages in any 60 s fire, 999 do not, also across midnight: a message shortly after midnight comes twice, under both days'
//!   keys, and a window belongs to the day it starts in.
//!
//! ## Bounds
//!
//! | who | what is kept | bytes |
//! |---|---|---|
//! | a sender in its active minutes | times of its recent messages | 32 + 8 a message, 4,096 messages at most; nothing when silent |
//! | a business | two days of sketch, 28 days as a number each | below 4,096 (tested) |
//! | a group members are being added to | panes of 10 s, 64 at most | 32 + 16 a pane; nothing when silent |
//!
//! ## What can go wrong
//!
//! A limit or a sketch can hide messages or people; it can make an alert only where a sketch errs by more than three standard errors. A mass-add
//! that spans midnight is seen as two, since groups have no copies under the day before's key. Names of businesses are kept while they are
//! active: they are not people. Slow senders under these limits are not found by these rules.

mod alert;
mod businesses;
mod codec;
mod engine;
mod error;
mod groups;
mod judge;
mod rules;
mod runner;
mod senders;
mod sketch;
mod snapshot;
#[cfg(test)]
mod tests;
pub mod work;

pub use alert::{Alert, Baseline, SeenWindow, Subject, cloud_event};
pub use engine::{Applied, Engine, Footprint};
pub use error::IntegrityError;
pub use rules::{BulkPerMinute, BusinessBlocks, BusinessReach, GroupMassAdd, NewAccountBurst, Rules};
pub use runner::{Runner, RunnerParts};
