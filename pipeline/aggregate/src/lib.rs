//! # aggregate: clean rows become person rows
//!
//! **Comes in:** batches of clean rows ([`CLEAN_ROWS`](starling_schemas::rows::CLEAN_ROWS)), one per accepted event, of a planned range.
//! **Goes out:** for each day one table of person rows ([`PERSON_ROWS`](starling_schemas::rows::PERSON_ROWS)), encrypted under the day's
//! own
//! data key, written when the day closes; and the end of the day's pseudonym key.
//!
//! ```text
//!  clean rows of one range                                                    one range = one (partition, sequence)
//!      │ Folder            (person, country, platform, activity, version, detail, account) → events, seconds
//!      │                                                                                 a hash table per day
//!      ▼
//!  sorted person rows ── write_segment ──► segments/<day>/<source>-p<partition>-s<sequence>.parquet      encrypted
//!                                               │
//!       decide: is the day over?                │  at most 64 at a time, fewer where memory is short;
//!       │ watermark · idleness · deadline       │  between levels: runs in a private spill folder, encrypted
//!       ▼                                       ▼
//!  Closer::close ── begin_close ─► wait for older plans ─► SortPreservingMergeExec ─► AggregateExec(Sorted) ─► people/<day>.parquet
//!                                                                                                             │
//!       destroy the pseudonym key, with receipt ◄── delete segments ◄── audit ◄── finish_close ◄── counts agree (I1)
//! ```
//!
//! Beside it, and apart: [`Billing`] keeps what businesses are billed for, exactly, by range; nobody is in it.
//!
//! A person's events of a day may come through any number of partitions and ranges: nothing is keyed by person on the way, and no state
//! about a person is held in memory between ranges (design 3.2). Partial rows lie in segments until the day is merged.
//!
//! **Invariants kept here.**
//!
//! - **I1**: a window closes as complete only if every partition's events equal the sum of its counts, no plan from before the close is
//!   open, and the merged table holds exactly as many events as were counted for the day. Otherwise the close is refused; past its deadline
//!   it is done nevertheless, the window is marked incomplete, and the log says what was missing ("privacy still wins", design 3.4).
//! - **I4**: segments, runs and tables are encrypted; errors and log lines carry days, paths and counts, never a pseudonym.
//! - **I5**: a person row has one person. Nothing here joins two.
//! - **I7**: when the window has closed, its pseudonym key is destroyed; when its time has run out, its data key is.
//! - **I9**: saturating addition of counters neither depends on order nor on grouping, a segment's name depends on (partition, sequence)
//!   alone, and every step of a close may be done again: any split into batches and segments, any replay and any crash leave the same rows.
//!
//! **Memory.** Segments are sorted by all key columns, so a merge streams: the plan holds a few batches per input and never more than one
//! output batch of groups, whatever the number of people. How many inputs are open at once follows from
//! [`Closer::memory_bytes`]; more segments than that are merged in levels, smallest first.
//!
//! **Spilling, and its encryption.** DataFusion writes its own spill files in clear text. It is not allowed to here: its disk manager is
//! switched off, and the plan (a sorted aggregation over a merge) has no operator that would spill. What is kept between the levels of a
//! large merge are
//! *runs*: tables like segments, encrypted under the same data key, in a folder with mode 0700 below [`Closer::spill_dir`] that is removed
//! when the
//! merge ends in any way. A killed process leaves it to the next close or [`Closer::repair`], which remove what they find; till then it is
//! as unreadable as
//! the segments are.
//!
//! **What can go wrong.** A partition may stand still with unread events: the window waits, and closes as incomplete at the deadline. The
//! process may die anywhere: [`Closer::repair`] and a repeated [`Closer::close`] finish the work. A segment may be lost or damaged: a
//! complete close is
//! refused with the segment's path; at the deadline the window closes without it and says so. The same holds for a segment whose columns another
//! version wrote: nothing is converted. Two closes may run at once: the spill folder
//! is locked, and a second one is refused.

mod billing;
mod close;
mod decide;
mod error;
mod fold;
mod merge;
mod rows;
mod segment;
mod spill;
mod steadiness;
#[cfg(test)]
mod testing;

pub use billing::{Billing, COMPACT_FROM};
pub use close::{CloseReport, Closer, MAX_KEEP_MS, Shortfall, table_path};
pub use decide::{ClosePolicy, Decision, FRESH_MS, decide, is_idle, watermark_ms};
pub use error::AggregateError;
pub use fold::Folder;
pub use segment::{EncodedSegment, encode_segment, segment_path, write_segment};
pub use steadiness::{HOLD_MS, JUMP_MS, Look, Steadiness};
