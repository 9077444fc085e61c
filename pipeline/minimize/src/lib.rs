//! # minimize: identifiers end here
//!
//! **Comes in:** frames (borrowed bytes, one protobuf `Event` each), and pseudonym keys. **Goes out:** clean rows for statistics, exact counts for
//! billing, what businesses say of themselves, signals for integrity, and how many events came to which outcome. This is the only room that can
//! name a phone number.
//!
//! ```text
//!            frame
//!              │  decode    allowlist walk over borrowed bytes; the rest is skipped by length, unread
//!              ▼
//!          few fields ──────► quarantined: why, offset and length; never bytes
//!              │  decide    pure: kind, subject, age, consent
//!              ├────────────► refused, by reason ───────────┐
//!              │                                            │ safety does not ask for consent
//!     keyed person, country, platform,             keyed person or group, business,
//!     version, hour, activity and detail           time, counts
//!              │                                            │
//!              ▼                                            ▼
//!         CLEAN_ROWS (AnalyticsDay key)               SIGNALS (Integrity key) ◄── pairs   tokens of who wrote to whom (Pair keys)
//!              │                                                            ◄── makers  who created a group, and not which
//!              │                                                            ◄── listed  which operator's list a group's hash is on, and not the hash
//!              │  present   who is new in the range
//!              ▼
//!         PRESENCE_ROWS (AnalyticsWeek and AnalyticsMonth keys): the person, and nothing else
//! ```
//!
//! The order of decisions stands in `decide.rs`, the layout of the keyed hash in `keyed.rs`.
//!
//! ## Invariants kept here
//!
//! - **I1** every frame pushed has exactly one outcome; `events` is the sum of the counts.
//! - **I4** no number, IP address or content byte leaves: [`Phone`] cannot be printed, cloned or serialised and is overwritten when dropped; errors
//!   name purposes and days; quarantine keeps a length; of a client's version two numbers of 8 bits are left. A business's identifier is no
//!   person's datum and goes out as it is; what it calls itself and its templates goes out without what may be a number in it (`account.rs`), and who told it is not
//!   read.
//! - **I5** no row has two people: a call's peer is never read, a message's recipient only to be hashed together with its sender, a reporter never
//!   written but for a bucket of his cohort beside a business or group (below), a group's signal has no person, a sender's signal no group but its registration cohort, an answer's signal nobody (`pairs.rs`); who created a
//!   group is in a row that nothing but a small range leads to from the group's (`makers.rs`).
//! - **I8** what cannot be checked is refused: no stated choice is no consent, no stated age is no permission, an unknown kind is not guessed.
//! - **I9** a range is a function of its frames, context, keys and lists: replays give equal batches. Lists change as operators please, so a plan names the
//!   version that its range is held against, as it names the days that are closed; other settings that change a range, such as [`Limits::pairs`], are the job's.
//!
//! Promises: P1, P2, P4, P5, P6, P7, P11, P12, P14, P16, P19, P20, P22 (across a key epoch), P23, P31, P34, P35, P55, P56, P58, P60.
//!
//! ## Signals across midnight
//!
//! Pseudonyms of two days cannot be compared, so a 60-second window over midnight would see two senders. A message of the first
//! [`Limits::overlap_ms`] of a day is therefore also written under the day before's key, marked `overlap`: under that key the window is whole.
//!
//! ## The voice of who objects
//!
//! A block or report of a business says three things of whose it is, and not who: whether the account is of its first week, how often it objects (five
//! classes, which the edge says), and a bucket of the cohort it was registered in: the first byte of a keyed hash of day, business and cohort. A report of a
//! group says the same, and its bucket is of day, group and cohort. It is what tells a brigade from people who are angry, who are of all cohorts.
//! Beside a person who is accused nothing of it is said.
//!
//! *Who sees it:* whoever reads signals, which is the integrity room and who has the day's data key; no table, fact or alert has a bucket, and what the room
//! keeps of it is two numbers a bucket for two days. *What it tells without the key:* that two rows of one business, or group, and day are of people who were registered
//! together, or of any other two out of one bucket, which holds one in 256 of everybody, a million people of 256 million. No bucket can be held against
//! one of another day or business, nor against the cohort of a contact: they are hashed under another label. *Who plants accounts:* an account that he
//! had registered in somebody's cohort and that blocks the same business shows him that cohort's bucket, if he reads signals as well. Then he has 8 bits:
//! that a row in it is of that cohort, or of one in 256 others; that it is of a certain person only if he knows beforehand that one of that cohort has
//! objected. That nobody of the cohort did, an empty bucket tells him for sure. *Who has the key* can try every cohort, as he can try every number (P12).
//! *A small deployment:* of n people a bucket holds n/256. With fewer than some ten thousand it is a handful, and may hold one cohort alone; there an
//! edge says no cohorts beside blocks and reports, which are then not capped, and the alert says so.
//!
//! ## What can go wrong
//!
//! The key source fails: [`Minimizer::push`] says so and the range is begun again. A key is destroyed: events of its day are late, or give
//! no signal. A producer sends garbage: it is quarantined, and nothing panics (property tests). Key material and digits may
//! still be found in registers and in stack memory that the compiler copied them through; swap and core dumps are the operator's to turn off.

mod account;
mod bill;
mod country;
mod decide;
mod decode;
mod keyed;
mod keys;
mod lanes;
mod listed;
mod makers;
mod minimizer;
mod output;
mod pairs;
mod phone;
mod present;
mod tally;
mod wire;

pub use keyed::{EpochKey, keyed_cohort, keyed_group, keyed_pair, keyed_subject};
pub use keys::{KeySource, KeySourceError};
pub use listed::{GroupLists, ListError, MOST_HASHES};
pub use minimizer::{Limits, MinimizeError, Minimized, Minimizer, RangeContext};
pub use phone::Phone;
/// What keys are handed over in: overwritten when dropped.
pub use zeroize::Zeroizing;

/// Panics where the decoder and `prost` do not agree on `frame`. A door for the fuzzer alone: it exists with `--cfg fuzzing` only, and
/// nothing that was read comes out through it.
#[cfg(fuzzing)]
#[doc(hidden)]
pub fn check_decoder(frame: &[u8]) {
    decode::oracle::check(frame);
}
