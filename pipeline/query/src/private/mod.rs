//! Private questions: statements over `private.<dataset>`, answered with noise.
//!
//! ```text
//!  plan of the statement
//!     │ leaf      the lowest aggregate over a protected table, with all below it, is taken out; a table for noisy numbers stands in its place
//!     │           below: row-wise steps and joins with public tables only; the person for COUNT(DISTINCT person) only
//!     ├─────────► the rest: anything; checked by the gate like every statement
//!     ▼
//!   price         blocks by the conditions on the day · groups listed, or discovered · noise and threshold within the budget       no data
//!     │ total     every expression below gives a value for every row, as it will run                                              no data
//!     ├─────────► EXPLAIN PRIVACY
//!     ▼
//!   ask           stored answer? ─► charge every block ─► audit entry ─► rows (vault) ─► bound, add up, noise (privacy) ─► file, once
//!     ▼
//!   suggest       bounds that fit, in place of an answer: the same steps
//!   family        ROLLUP, CUBE, GROUPING SETS: one question a set of keys; nested totals add up
//!   bars          dp_stddev, dp_low, dp_high
//!   notes         what it cost, what is left out, how much the bounds cut off
//! ```
//!
//! # Privacy
//! *Neighbours:* all rows of one person of one block more or less. *Promise:* all answers ever given over a block are together within its limit
//! (I2): each leaf is δ-approximate ρ-zCDP (`starling_privacy::question`), is charged before a row is read, and is answered once (I3). *What the
//! asker sees besides:* which days have closed, whether completely, how long it took, and whether somebody asked the same before.
//!
//! *What a statement may not do* below the noise, and why: use the person but to count people (a question about one person); DISTINCT, LIMIT,
//! ORDER BY, window functions, outer joins that keep rows of nobody, self-joins (one person's row would decide over another's); expressions
//! that can fail (an error would be an answer without noise); functions outside a short list.

//!
//! *What is not closed.* Limits of memory, time and the number of groups end a statement by an error, and that they were reached is an exact fact
//! about the rows: who knows nearly all of them could, with joins that make many groups of one row, ask whether one more is there. The question is
//! charged all the same, stands in the audit log, and gives nothing else. How long an answer takes is seen, too.

mod aggregates;
mod ask;
mod bars;
mod expand;
mod explain;
pub(crate) mod family;
pub(crate) mod functions;
mod identity;
mod intact;
pub(crate) mod leaf;
mod notes;
mod price;
mod refusals;
mod renamed;
mod row_wise;
pub(crate) mod settings;
mod suggest;
pub(crate) mod table;
mod total;
pub(crate) mod vault;

#[cfg(test)]
mod tests;

pub(crate) use ask::{Asking, answer, read, table as noisy_table};
pub(crate) use bars::replace as replace_bars;
pub(crate) use explain::{SIZES, explain, name as aggregate_name};
pub(crate) use family::assemble;
pub(crate) use leaf::{Leaf, Split, is_private, split};
pub(crate) use notes::notes;
pub(crate) use price::{Priced, one as price_one, price};
pub(crate) use suggest::suggest;
