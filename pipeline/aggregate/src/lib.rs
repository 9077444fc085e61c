//! # aggregate: clean rows become person rows
//!
//! **Comes in:** batches of clean rows ([`CLEAN_ROWS`](starling_schemas::rows::CLEAN_ROWS)), one per accepted event, of a planned range.
//! **Goes out:** for each day one table of person rows ([`PERSON_ROWS`](starling_schemas::rows::PERSON_ROWS)), encrypted under the day's
//! own
//! data key, written when the day closes; and the end of the day's pseudonym key. For each week and month (28 days), and for each hour where hours
//! are kept, a table of who did something in it, one column ([`PRESENCE_ROWS`](starling_schemas::rows::PRESENCE_ROWS)).
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
//! **Weeks and months** go the same way as days, with segments, a merge, keys and an expiry of their own. They are not made of days: the pseudonyms
//! of two days cannot be joined, which is their point, so minimize names a person once more under the week's key and the month's. A pseudonym that
//! lives for a month could tie a person's days together, therefore nothing stands beside it: no country, no day, no count, and no order, since a
//! segment is sorted by pseudonym. A segment says of its people that they were there in one range, which is minutes; were they kept apart until the
//! month is over, they would be a diary. So when a day closes, all segments of its week and its month become one ([`Closer::gather`]), in which
//! nothing says any more on which of the days somebody was there. Who holds the month's key and all files learns of a number whether its person
//! did something in that month, and when in the days that are still open. The key goes when the month closes, the rows at most 30 days after it
//! began (P42). A long window closes once its last day has, is complete only if its days are, and has no counts of its own: I1 is there
//! that as many rows were read as its segments were committed with.
//!
//! **Hours** are kept where a setting asks for them, and go the same way again, by themselves: an hour closes when the watermark has passed it, and
//! waits for no day. What was said against them is true: the rows of 24 hours, if they could be joined, would tell when a person is awake, and what
//! 24 hours cost a person adds up. So an hour has a key of its own, which nothing of another hour or of the day is named under. Its rows say that
//! somebody was there, one column as of a week, and no two of them can be joined once the keys and the segments are gone. The pseudonym key goes when
//! the hour closes: about two hours after its beginning, where everything is read; where it is not, because one partition lags, say, six hours later at
//! the most ([`HOUR_PATIENCE_MS`], counted from the hour's first row where that came after the hour), and then the hour is incomplete. The rows go two
//! days after that at most ([`MAX_KEEP_HOUR_MS`]).
//!
//! Till an hour closes, whoever holds its key, its files and a number learns whether that person did something in that hour, and in which ranges, as of
//! the day that is open. And it takes neither pseudonym key nor number to join the hour's names with the day's: a range has a segment for each, a
//! person is in the same set of ranges under both names, and ranges are so short, seconds to minutes, that nearly every active person has a set of
//! their own. So **while the segments of both lie there, whoever can read them can tell which name of the hour is which of the day, for nearly
//! everybody who was active**, and through the day's name can join that hour with any other whose segments are there or were copied. Only who was in
//! few ranges, together with many others, cannot be told apart. It takes the data keys of both, which this process holds. It ends when the hour closes
//! and its segments are deleted, but not for who has copied them: their data key lives as long as the hour's rows, two days more. Segments of an hour
//! are not gathered, which would end it no sooner: the close that gathers them comes as soon.
//!
//! And the budget of an hour is so small that what a person loses in all 24 of a day together is a sixth of what the day itself may cost
//! (`datasets.toml`), which `starling budget` adds up; an hour's number has the noise of a hundred people, which is of use where thousands are there.
//! What comes too late for its hour and not for its day is in the day alone, and
//! is counted beside the hour. Hours are off unless asked for, since they are one more keyed hash for each person and hour of a range, and a segment,
//! a merge and two keys for each hour: then nothing is kept or made for any. When they are turned off, the open ones close as incomplete and their keys
//! die; when they are turned on, the first complete hour is the first that began after whatever had been read by then.
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
//! refused with the segment's path; at the deadline the window closes without it and says so, also where all its events were read. The same holds
//! for a segment whose columns another version wrote: nothing is converted. A store that is out of reach says nothing of what is missing: then the
//! close waits; where events are missing as well, the key dies at the deadline all the same. A window that cannot close holds up no other: newer ones close, and rows and keys whose time has run out go. Two
//! closes may run at once: the spill folder is locked, and a second one is refused.

mod billing;
mod close;
mod decide;
mod error;
mod fold;
mod gather;
mod merge;
mod presence;
mod rows;
mod segment;
mod spill;
mod steadiness;
#[cfg(test)]
mod testing;

pub use billing::{Billing, COMPACT_FROM};
pub use close::{CloseReport, Closer, MAX_KEEP_HOUR_MS, MAX_KEEP_MS, Shortfall, table_path};
pub use decide::{ClosePolicy, Decision, FRESH_MS, HOUR_PATIENCE_MS, decide, is_idle, is_overdue, watermark_ms};
pub use error::AggregateError;
pub use fold::Folder;
pub use segment::{EncodedSegment, encode_segment, segment_path, write_segment};
pub use steadiness::{HOLD_MS, JUMP_MS, Look, Steadiness};
