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
//!   fanout        of one row few are made, whatever public tables hold                                                         no data
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
//! *What is not closed.* Limits of memory, time and the number of groups end a statement by an error, and that one was reached is an exact fact about
//! the rows. What it tells is little, by three bounds:
//! 1. It takes many rows. A protected row becomes 1,024 rows at most (`fanout`), so 4,194,304 groups are not exceeded by fewer than 4,096 protected
//!    rows, nor is the memory for rows that wait, 4 GiB, filled by fewer than 64, be they as wide as rows may be (where they do not fit, a
//!    256th of the people has to). No error tells whether a row is
//!    there that few conditions single out, whatever is joined with it.
//! 2. One person decides only at the edge. The number of distinct groups of all the others has to be within what that person's rows add of the limit:
//!    whoever would learn that the person is there has to know that number to so many groups, and has no way to add rows of nobody to it.
//! 3. It is one bit a question: the question is charged before, stays charged, stands in the audit log, and gives nothing else.
//!
//! That is no promise of differential privacy for this bit. Noise on the limit would make it one only if a person's distinct groups were bounded before
//! they are counted, and they are counted as rows come. How long an answer takes is seen, too.

mod aggregates;
mod ask;
mod bars;
mod expand;
mod explain;
pub(crate) mod family;
mod fanout;
mod fractions;
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
pub(crate) use explain::{SIZES, explain, explained, name as aggregate_name};
pub(crate) use family::assemble;
pub(crate) use leaf::{Leaf, Split, is_private, split};
pub(crate) use notes::{cut_shares, notes};
pub(crate) use price::{Priced, one as price_one, price};
pub(crate) use suggest::{suggest, suggested};
