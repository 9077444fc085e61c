//! # On us: what is done to the pipeline itself (P28)
//!
//! Who wants to move statistics, bury an alert or find out about somebody can also attack Starling: feed it events again, feed it events that are
//! made up, try the doors. Each of that leaves traces in accounts that are kept anyway, or cost a number an hour; this module says which of them are
//! alerts.
//!
//! ```text
//!  minimize ─ outcomes and what lay behind, by the partition's clock ─► partition_hours ─┐                      pipeline_replay
//!             (in the transaction that commits the range)                                ├─► cells ─► judge ─►  pipeline_poisoning
//!  doors ──── refused statements, log-ins, look-ups, by the wall's ───► door_hours ──────┘             │        door_probing · door_differencing
//!             (some seconds to a transaction, in the log, too)                                         │        door_lookups · door_guessing
//!                                                                    one process of all ───────────────┴─► findings, told or kept as all others
//! ```
//!
//! **Comes in:** [`Cell`]s, how often what was counted in which hour. **Goes out:** [`Alert`]s, one a rule, subject and day. Nothing here reads a
//! clock or a database, and there is no state: what is found is a function of the accounts (I9), whoever looks, however often, after whatever crash.
//!
//! ## What is seen, and by what
//!
//! | attack | what is counted | rule |
//! |---|---|---|
//! | events are played again, or old ones are put in | events more than an hour before the latest that their partition had | `pipeline_replay` |
//! | made-up events: broken, with impossible numbers or times, without what clients say | quarantined events by fault; those without an age band | `pipeline_poisoning` |
//! | somebody tries what may be read | refused statements by kind: forbidden, unknown names, budget spent, limits, others | `door_probing` |
//! | questions that differ in a literal, to take one answer from another | private questions that are an earlier one of the hour but for literals | `door_differencing` |
//! | somebody leafs through alerts, or guesses which there are | different alerts that were opened or worked on one by one; those that there are none of | `door_lookups` |
//! | passwords, names and tokens are guessed | refused log-ins of a user and at a door, different names among them, tokens that are nobody's | `door_guessing` |
//!
//! ## What it is held against
//!
//! A threshold is fixed for a day and an account before the day begins: the largest of a fixed number, a share of the events that the partition has
//! in a usual hour, and a multiple of what the account itself had in the fullest hour of its usual day, which is the median over those of the
//! fourteen days before of which something is known. So nobody makes something usual in less than half of those days, an ordinary weekend is usual,
//! and a count only ever grows towards it: hours that are not over are judged, too, and nothing is taken back.
//!
//! Partitions are held against nothing before three days of their own are known: a new installation is quiet, and so is a new partition. People's and
//! doors' fixed numbers hold from the first hour.
//!
//! **The partition's clock.** Hours are those of the latest event time a partition had, not the wall's. A backlog that is worked off after an outage
//! or a deployment passes the same hours with the same events in each, in whatever time; so does a recording: as long as no event in it is ahead of
//! its time (see below). Only what lies *behind what was read before it* is behind. Of a partition to which nothing new comes the clock stands, and
//! its hour fills.
//!
//! **Growth.** Told is the threshold times the power of two that was passed: "at least". An alert is told again when one of its cells has doubled or
//! another has passed, and not at every look.
//!
//! **After a restart.** A process that begins to look judges once more the days for which findings are kept, fourteen of each account. So what was kept
//! and not told is told then if its rule's standing has changed to that, and what was told stays as it is.
//!
//! ## Who is named, and who sees it
//!
//! Subjects are `pipeline`, a source or a door, and `principal`, a user's name. Users are staff, not those whom the platform promised anything; the
//! same names stand in the audit log. Alerts on them go where all alerts go, to role integrity. Nobody takes a step on an alert about himself, nor
//! silences it ([`check_not_own`](crate::work::check_not_own)). A name that somebody tried and that is no user's is told nowhere: it may be a
//! password. Of statements nothing is kept, no text and no value: whether two differ in literals alone is seen in memory, by their hashes.
//!
//! ## What can go wrong
//!
//! - What is played again within the hour is not behind. It counts twice, as far as clamps let a person count; broker and producer are to keep such
//!   duplicates out (`enable.idempotence`), and no id of an event is here to find them by.
//! - Made-up events that look like real ones, in time and of people who are nobody, are statistics. Whoever may write the topic may write them.
//! - One event that is ahead moves the partition's clock, and all that follows looks behind until that time is passed. Times are accepted up to the
//!   *wall's* now and `ingest.future_tolerance_s`. Of a partition that is read as events come, a tolerance of an hour or more is enough. Within a
//!   backlog or an old recording there is as much room as the partition is behind the wall: one phone there whose clock runs ahead by two hours makes
//!   the rest look behind for two hours, one that runs ahead by a year for a year. That is told as a replay, and is none.
//! - What is kept of a partition's clock is its watermark. Raising `ingest.disorder_s` moves the clock ahead by as much at the next start: by more than
//!   an hour, what follows looks behind until events have passed that. Lowering it moves the clock back, and less looks behind.
//! - The loop that detects waits for each look. One reads some fifteen days of all partitions' accounts when one has grown and a count has reached its
//!   rule's fixed number, and at the start all there are; with very many partitions detection is that much later. A look that failed is tried again at
//!   the next.
//! - A producer's release that writes what this version cannot read looks like poisoning, and phones that come back after a long outage of their
//!   network like a replay. The alert says in which partitions it is seen: where in all, it is mostly that. How many do not show it is not said: there
//!   may be more of them without any growth.
//! - A rule's new version is held against the last fourteen days of each account, too, when the job starts anew.
//! - Those fourteen days are by the partition's clock, and findings are kept fourteen by the wall's. Of a partition whose clock has stood for longer,
//!   and of a recording that is taken once more, what was kept and erased is kept again.
//! - Who begins to look passes over what is older than that, if a partition went on by more than fourteen days since the look before. Of a recording
//!   thirty days of each account are judged at its end; those before only by looks that come in between.
//! - A dashboard with a broken statement looks like somebody who tries. After a week it is usual.
//! - A process that is killed, or that cannot write when it stops, takes the doors' counts of its last seconds along. Questions that differ in
//!   literals are compared within one process.
//! - Someone who stays below the fixed numbers is not seen. The ledger bounds what can be learned all the same (I2).

mod judge;
mod rules;
#[cfg(test)]
mod tests;

use starling_schemas::ids::EpochId;

pub use judge::{HISTORY_DAYS, JUDGED_DAYS, judge, judge_last, may_fire};
pub use rules::{DoorDifferencing, DoorGuessing, DoorLookups, DoorProbing, PipelinePoisoning, PipelineReplay};

use crate::alert::Subject;

/// The rules of this module.
pub const RULES: [&str; 6] =
    ["pipeline_replay", "pipeline_poisoning", "door_probing", "door_differencing", "door_lookups", "door_guessing"];

/// Subjects of kind `pipeline`: sources and doors.
pub const PIPELINE: &str = "pipeline";
/// Subjects of kind `principal`: users.
pub const PRINCIPAL: &str = "principal";

/// What is counted at the doors, by the word that accounts have for it.
pub mod deeds {
    /// A statement over what the role may not read.
    pub const FORBIDDEN: &str = "refused:forbidden";
    /// A statement that names what there is not.
    pub const UNKNOWN: &str = "refused:unknown";
    /// A question that the budget does not hold.
    pub const BUDGET: &str = "refused:budget";
    /// A statement beyond the limits of size, time or memory.
    pub const LIMITS: &str = "refused:limits";
    /// Any other refused statement.
    pub const UNFIT: &str = "refused:unfit";
    /// A private question that an earlier one of the hour was but for its literals.
    pub const VARIANT: &str = "variants";
    /// An alert that was opened, once an hour each.
    pub const LOOKUP: &str = "lookups";
    /// An alert that was asked for and is not there.
    pub const MISSING: &str = "missing";
    /// A log-in that was refused.
    pub const LOGIN: &str = "logins_refused";
    /// A name that somebody was refused under, once an hour each.
    pub const NAME: &str = "names_tried";
    /// A token that is nobody's.
    pub const TOKEN: &str = "tokens_refused";

    /// All of them.
    pub const ALL: [&str; 11] = [FORBIDDEN, UNKNOWN, BUDGET, LIMITS, UNFIT, VARIANT, LOOKUP, MISSING, LOGIN, NAME, TOKEN];
}

/// Whose account it is: alerts are about sources, doors and principals, and partitions have accounts of their own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Account {
    /// A partition of a source.
    Partition {
        /// The source.
        source: String,
        /// The partition's number.
        number: i32,
    },
    /// A door by its name.
    Door(String),
    /// A user by its name.
    Principal(String),
}

impl Account {
    fn subject(&self) -> Subject {
        let (kind, value) = match self {
            Self::Partition { source, .. } => (PIPELINE, source),
            Self::Door(name) => (PIPELINE, name),
            Self::Principal(name) => (PRINCIPAL, name),
        };
        Subject { kind: kind.to_owned(), value: value.clone(), epoch: None }
    }
}

/// How often something was counted in an account within one hour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// Whose.
    pub account: Account,
    /// The hour: of a partition by its own clock, otherwise by the wall's.
    pub hour: EpochId,
    /// What was counted: an outcome's label, `behind`, or one of [`deeds`].
    pub what: String,
    /// How often.
    pub times: u64,
}
