//! # integrity: signals to explained, content-blind alerts
//!
//! Finds abuse that can be seen without reading a message and without knowing who wrote to whom.
//!
//! ```text
//!  SignalBatch ──► Engine ─┬─ senders     times of recent messages, exact          bulk_per_minute · new_account_burst
//!   (origin, sequence,     ├─ slow        strangers who do not answer, over days   slow_bulk · coordinated_senders
//!    chunk: repeats drop)  ├─ businesses  people a day by sketch, own past         business_reach · business_blocks · business_fresh_number · report_brigade
//!                          ├─ voices      who objects by cohort and rate           what business_blocks, group_reports and the two brigade rules count
//!                          ├─ templates   what the first batch of each draws       business_template
//!                          ├─ groups      members added, in panes of 10 s          group_mass_add
//!                          ├─ hours       who came, left, reported, in 10 min      group_link_joins · group_churn · group_reports · group_report_brigade
//!                          ├─ makers      groups an account made, by the hour      group_creation_burst
//!                          ├─ listed      what of a group is on which list         group_listed
//!                          ├─ facts       a row a business's day or group's hour   rules that somebody wrote (`written`)
//!                          └─ judge       what was seen → Alert, with its reasons
//!                                              │
//!  Runner: state sealed + position + alerts ───┴─► metastore, one transaction ─► feed, or kept
//!          facts of what is over, sealed ──────────► files, 14 days ───────────► backtest
//! ```
//!
//! Rules are of two kinds. Detectors are code with reviewed thresholds (`rules.toml`); only they look at people. Written rules are text (`written`):
//! a condition of SQL over facts of businesses' days and groups' hours, with tests beside it, tried on the last days ([`backtest()`]) before
//! anybody is told of what it finds. Whether a finding is told or kept is its rule's [`Standing`]; what a rule promises of it is held against what
//! people judge ([`promise`]). Rules with a model of where nothing is wrong say how much a finding speaks against it, and at which false-discovery level it is
//! chosen ([`evidence`]).
//!
//! What is done to the pipeline itself is found elsewhere, from accounts and not from signals, and told in the same way: [`on_us`] (P28).
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
//!   What a share or a rate is taken of may come late, so an alert of a rule over hours is what the counters say when it is taken; one that
//!   late signals undo is told once more, with numbers below its threshold ([`Alert::stands`]). What stands does not depend on the order. Written
//!   rules are judged in the same way, whenever what they look at has changed; facts are kept once, whatever is repeated.
//! - **I4.** Alerts name a business, or the keyed form of the flagged sender or group; never a recipient, never a reporter. Counts of people
//!   under ten that speak for a subject are told as "<10". Facts of businesses have their names, those of groups a number that means nothing.
//! - P22: 1000 messages in any 60 s fire, 999 do not, also across midnight: a message shortly after midnight comes twice, under both days'
//!   keys, and a window belongs to the day it starts in.
//!
//! ## Bounds
//!
//! | who | what is kept | bytes |
//! |---|---|---|
//! | a sender in its active minutes | times of its recent messages | 32 + 8 a message, 4,096 messages at most; nothing when silent |
//! | a business | two days of sketch, 28 days as seven numbers each, its portfolio | below 4,096 (tested) |
//! | a business that is blocked or reported | two numbers for each of 256 buckets of cohorts that were heard of, on two days | 6 a bucket: 3,072 more at most (tested) |
//! | the templates of a business | 64 known as 12 bytes each; 8 at most under test, with their name and 36 bytes an hour in which something happened | 1,000 as a rule, below 16,384 (tested); nothing where no template is named |
//! | a group that something happens in | panes of 10 s, 64 at most, for 20 min; panes of 10 min, 144 at most, for 2 h 10 min | 88 + 16 a pane of 10 s + 20 a pane of 10 min: 128 as a rule, below 4,096 (tested); nothing when silent |
//! | a sender of five strangers or more a day | sums of the reply test | 64 + 16 a contact of the last day; nothing at zero |
//! | a group that is reported | the same for each pane of 10 min, 16 buckets at most | 12 a bucket: nothing as a rule, below 30,720 where sixteen cohorts report it in every pane of a day (tested) |
//! | an account that created a group | 24 counts, until six hours after the day | 80 (tested), of 1,000,000 at most |
//! | a group that was on a list | which lists, by what, how often, as long | some 200, of 100,000 at most |
//! | a window that is over | its facts, until the next commit | some 300, of 50,000 windows at most |
//! | a new account whose cohort is said, that writes to somebody new | the same from the first stranger on, and its cohort | 40 more, some 200 a cohort, and 20 a name it was told of under; nothing after two days of silence |
//!
//! ## What can go wrong
//!
//! A limit or a sketch can hide messages or people; it can make an alert only where a sketch errs by more than three standard errors. A mass-add
//! that spans midnight is seen as two, since groups have no copies under the day before's key; so is a wave of people who come and leave, and
//! just after midnight nothing is known of the hour before it, so it is no more than a priority. Who leaves a group is not known to be who
//! came to it, and reports can be made by arrangement: the alerts say so, and reports alone are never more than a priority. Who reports is no signal's; of a
//! block or report of a business its row says whether its account is of its first week, how often it objects, and a bucket of its cohort (`minimize`'s
//! essay says what that tells of a person), so that accounts that are made to complain, do nothing else, or were registered together count for little and are
//! told of as a brigade (`voices`). A brigade that was bought one account here and one there, out of two dozen cohorts and more, is told from honest anger by
//! nothing but the business's usual day; so is every one where edges say no cohorts, which the alert says. Honest people can be of one cohort: the staff
//! of a company to whom one shop writes. They are capped and may be told as a brigade, a priority that says this. A bucket counts up to 65,535 voices a day. Reports of a
//! group count in the same way, but that of a pane in which more than sixteen cohorts report only sixteen are capped; no brigade against a group is told as one. How large a group
//! is, no signal says: what is usual of it is told by who came. A template is new once, of a
//! business that is not: who sends the unwanted under a name that was used before, by eight names at once, or under one that differs in a number alone,
//! is found by the day's count. What a template draws is not told apart by whose voices it is, but for accounts of their first week. Numbers of one portfolio are held
//! against each other within one part: what is
//! about businesses goes to as few parts as pairs do, by default to one; with more, numbers are told of and missed by what a part knows of their portfolio.
//! A new number's day is judged for the last time when it is over; what becomes known of other numbers after that changes nothing. An account that creates groups by the dozen is known by a row of its own, that has no
//! group and no more of the time than its hour (I5); what became of the groups is not known with it, its hours are those of the clock, and a burst over midnight is seen as two.
//! Who reads the signals of a deployment so small that few groups are created in a range can tell who made which (`minimize`'s `makers.rs`). Whether a list of hashes is a good
//! one, nothing here knows: a name on it accuses whoever has the same, which is why names are no more than a priority. Names of businesses are kept while they are active: they are not people. A written rule
//! can find nothing of senders, of whom there are no facts; and what its condition says of small counts is known where it fires. Slow senders under these limits are found by [`slow`] alone, over days, and only while their pair tokens can be read: a job that is three days behind, or has
//! another keyring than ingest, finds none.

mod alert;
mod backtest;
mod businesses;
mod codec;
mod engine;
mod error;
pub mod evidence;
mod facts;
mod groups;
mod hours;
mod judge;
mod listed;
mod makers;
pub mod on_us;
pub mod promise;
mod reports;
mod rules;
mod runner;
mod senders;
mod sketch;
pub mod slow;
mod snapshot;
mod standing;
mod templates;
#[cfg(test)]
mod tests;
mod vectors;
mod voices;
pub mod work;
mod written;

pub use alert::{Alert, Baseline, SeenWindow, Subject, cloud_event, cloud_event_headers};
pub use backtest::{DayFound, backtest};
pub use engine::{Applied, Engine, Footprint};
pub use error::IntegrityError;
pub use facts::{Column, Fact, Kind};
pub use judge::template_fingerprint;
pub use rules::{
    BUILT_IN, BulkPerMinute, BusinessBlocks, BusinessFreshNumber, BusinessReach, Coordinated, GroupBaseline, GroupChurn,
    GroupCreationBurst, GroupLinkJoins, GroupListed, GroupMassAdd, GroupReportBrigade, GroupReports, NewAccountBurst,
    ReportBrigade, Rules, SlowBulk,
};
pub use runner::{Runner, RunnerParts, findings};
pub use standing::{Kept, Stage, Standing};
pub use templates::BusinessTemplate;
pub use vectors::{Kept as KeptVectors, Vectors};
pub use voices::VoiceWeights;
pub use written::{RuleFile, Written, WrittenRule};
