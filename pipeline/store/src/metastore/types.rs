//! What the metastore takes and gives.

use std::collections::BTreeMap;

use serde_json::Value;
use starling_schemas::business::BusinessAccount;
use starling_schemas::codes::{Fault, Outcome};
use starling_schemas::ids::{EpochId, Generation, Offset, PartitionId, Sequence, Span, WindowId};
use starling_schemas::metrics::NanoRho;

use crate::table::TableInfo;

/// A range of offsets that its owner has promised to process, and how.
///
/// Everything a processor needs to be deterministic stands here: a range that is replayed after a crash has the same plan but for its
/// generation, and so gives the same files under the same names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The partition.
    pub partition: PartitionId,
    /// Generation of the owner that may commit it.
    pub generation: Generation,
    /// Number of the range.
    pub sequence: Sequence,
    /// First offset.
    pub from: Offset,
    /// First offset after the range.
    pub to: Offset,
    /// Events of this day and all days before it are late. `None`: no day has closed.
    pub closed_through: Option<EpochId>,
    /// Who was there is kept for the hours after this one. `None`: for none.
    pub hours_after: Option<EpochId>,
    /// The version of the operator's lists that profiles of groups are held against. `None`: none.
    pub group_lists: Option<i64>,
    /// When it was first planned, milliseconds since 1970-01-01 UTC.
    pub planned_at_ms: i64,
    /// Largest event time committed before it.
    pub watermark_ms: Option<i64>,
}

/// What an owner learns when it takes a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ownership {
    /// The partition.
    pub partition: PartitionId,
    /// The new generation: every older owner is fenced.
    pub generation: Generation,
    /// Where the next range begins. `None`: the partition was never read.
    pub next_offset: Option<Offset>,
    /// Number of the next range.
    pub next_sequence: Sequence,
    /// Largest event time committed so far.
    pub watermark_ms: Option<i64>,
    /// A range planned but not committed: process exactly this first. Its generation is the new one.
    pub open_plan: Option<Plan>,
}

/// What an operator accepts after a stop that no program may get over by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AcceptedLoss {
    /// The topic's id from now on, where the topic was made anew.
    pub topic_id: Option<String>,
    /// Where partitions begin. `None`: at the log's beginning. Others go on as they are.
    pub starts: BTreeMap<i32, Option<Offset>>,
}

/// A partition that begins elsewhere, and what that gives up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restarted {
    /// The partition.
    pub partition: PartitionId,
    /// Where it would have gone on.
    pub was_next: Option<Offset>,
    /// The open plan that was given up: first offset, and first offset after it.
    pub given_up: Option<(Offset, Offset)>,
    /// Where it begins. `None`: at the log's beginning.
    pub begins: Option<Offset>,
}

/// A file of person rows of one window from one range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentRecord {
    /// The window.
    pub window: WindowId,
    /// Path below the file store.
    pub path: String,
    /// Rows in it.
    pub rows: u64,
    /// Bytes of the file.
    pub bytes: u64,
}

/// An unreadable event: where it was, never what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantineRecord {
    /// Its offset.
    pub offset: Offset,
    /// Why it could not be read.
    pub fault: Fault,
    /// Bytes of the frame.
    pub length: u64,
}

/// An unreadable event as the quarantine keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantineEntry {
    /// Its partition.
    pub partition: PartitionId,
    /// Where it was and why it could not be read.
    pub record: QuarantineRecord,
    /// When its range was committed, milliseconds since 1970-01-01 UTC.
    pub at_ms: i64,
}

/// Which unreadable events are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuarantineFilter {
    /// Committed at this moment or later, milliseconds since 1970-01-01 UTC. `None`: whenever.
    pub since_ms: Option<i64>,
    /// Of this class. `None`: of any.
    pub fault: Option<Fault>,
    /// At most so many.
    pub limit: u32,
}

/// What processing a range gave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RangeOutcome {
    /// Events read. The counts add up to this (I1).
    pub events: u64,
    /// How many events of which window met which outcome. `None`: the event named no readable time.
    pub counts: Vec<(Option<EpochId>, Outcome, u64)>,
    /// Largest event time in the range.
    pub watermark_ms: Option<i64>,
    /// Files written, all durable.
    pub segments: Vec<SegmentRecord>,
    /// Events that were counted for their day and came too late for their hour.
    pub missed_hours: Vec<(EpochId, u64)>,
    /// What businesses said of themselves.
    pub businesses: Vec<BusinessAccount>,
    /// Unreadable events.
    pub quarantined: Vec<QuarantineRecord>,
    /// The same events as in `counts`, by the hour to which the partition had been read when they came.
    pub by_clock: Vec<(EpochId, Outcome, u64)>,
    /// Those of them that lay more than an hour behind, by the same hours.
    pub behind: Vec<(EpochId, u64)>,
}

/// Where a partition stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionStatus {
    /// The partition.
    pub partition: PartitionId,
    /// Current generation.
    pub generation: Generation,
    /// Name the current owner gave itself.
    pub owner: String,
    /// Where the next range begins.
    pub next_offset: Option<Offset>,
    /// Number of the next range.
    pub next_sequence: Sequence,
    /// End of the partition as last seen by its owner.
    pub end_offset: Option<Offset>,
    /// Largest event time committed.
    pub watermark_ms: Option<i64>,
    /// When a range was last committed; before the first commit, when the partition was first taken.
    pub last_commit_ms: i64,
    /// When the owner was last heard of (took, planned, committed or noted its position).
    pub seen_ms: i64,
    /// Events committed.
    pub events: u64,
    /// Whether a range is planned and not committed.
    pub has_open_plan: bool,
}

/// How many events of a partition and window met one outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CountRow {
    /// The partition.
    pub partition: PartitionId,
    /// The window. `None`: the event named no readable time.
    pub epoch: Option<EpochId>,
    /// The outcome.
    pub outcome: Outcome,
    /// How many.
    pub events: u64,
}

/// What a window is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WindowState {
    /// Rows may come.
    Open,
    /// New plans count its events as late; older plans are being waited for, or the merge is under way.
    Closing,
    /// Merged, and every partition had passed it.
    Closed,
    /// Merged at the deadline, before every partition had passed it.
    Incomplete,
}

impl WindowState {
    /// All states.
    pub const ALL: [Self; 4] = [Self::Open, Self::Closing, Self::Closed, Self::Incomplete];

    /// The name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closing => "closing",
            Self::Closed => "closed",
            Self::Incomplete => "incomplete",
        }
    }

    /// The state with this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.name() == name)
    }

    /// Whether its table is final.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Closed | Self::Incomplete)
    }
}

/// A window and its table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowRecord {
    /// How long it is.
    pub span: Span,
    /// Its first day, or the hour it is.
    pub epoch: EpochId,
    /// Its state.
    pub state: WindowState,
    /// Its merged person rows, once closed. The record stays after expiry; the file and its key do not.
    pub table: Option<TableInfo>,
    /// When its first rows were committed.
    pub opened_at_ms: i64,
    /// When its close finished.
    pub closed_at_ms: Option<i64>,
    /// When its rows expired.
    pub expired_at_ms: Option<i64>,
    /// Of a week or month: the newest closed day since whose close its segments have been put into one.
    pub gathered_through: Option<EpochId>,
    /// The same, with the files of those segments gone.
    pub swept_through: Option<EpochId>,
    /// Of an hour: events that were counted for their day and came too late for it.
    pub missed_events: u64,
}

impl WindowRecord {
    /// Which window it is.
    #[must_use]
    pub const fn id(&self) -> WindowId {
        WindowId { span: self.span, epoch: self.epoch }
    }
}

/// What a budget is held for: one dataset's one unit window.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Block {
    /// Dataset name.
    pub dataset: String,
    /// Window.
    pub epoch: EpochId,
}

/// What a question was answered with: one per question, for ever (I3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerRecord {
    /// The question, as it was charged.
    pub question: String,
    /// Path below the file store.
    pub path: String,
    /// BLAKE3 of the file, in hex.
    pub blake3: String,
    /// When it was answered, milliseconds since 1970-01-01 UTC.
    pub answered_ms: i64,
}

/// A released statistic: one per metric and window, for ever (I3).
#[derive(Debug, Clone, PartialEq)]
pub struct ReleaseRecord {
    /// Metric name.
    pub metric: String,
    /// Window.
    pub epoch: EpochId,
    /// Path below the file store.
    pub path: String,
    /// BLAKE3 of the file, in hex.
    pub blake3: String,
    /// Rows in it.
    pub rows: u64,
    /// How many of them are suppressed.
    pub suppressed: u64,
    /// What it cost.
    pub rho: NanoRho,
    /// The same cost for people, at `delta`.
    pub epsilon: f64,
    /// δ of `epsilon`.
    pub delta: f64,
    /// When it was released, milliseconds since 1970-01-01 UTC.
    pub released_at_ms: i64,
}

/// The newest of all releases, which tells one state of their table from every other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewestRelease {
    /// Releases are numbered from 1 in the order in which they were recorded.
    pub number: i64,
    /// BLAKE3 of its file, in hex.
    pub blake3: String,
}

/// An alert as kept. Its subject is a business, a group or a flagged sender in keyed form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertRecord {
    /// What makes two alerts the same one.
    pub fingerprint: String,
    /// Rule name.
    pub rule: String,
    /// Rule version.
    pub rule_version: u32,
    /// `business`, `group`, `sender` …
    pub subject_kind: String,
    /// Business identifier, or keyed form in hex.
    pub subject: String,
    /// Severity name.
    pub severity: String,
    /// First evidence, milliseconds since 1970-01-01 UTC.
    pub first_ms: i64,
    /// Last evidence, milliseconds since 1970-01-01 UTC.
    pub last_ms: i64,
    /// The whole alert as JSON. Two records with equal bodies are equal.
    pub body: String,
    /// Place in the feed: rises at each insert and change. 0 when handed in.
    pub position: i64,
}

/// Where the work on an alert stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkRecord {
    /// The alert.
    pub fingerprint: String,
    /// Number of the last step, from 1.
    pub step: i64,
    /// Where it stands, as the integrity room's JSON.
    pub standing: String,
    /// When the last step was taken, milliseconds since 1970-01-01 UTC.
    pub updated_ms: i64,
}

/// A step that somebody took on an alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepRecord {
    /// The alert.
    pub fingerprint: String,
    /// Its number, from 1.
    pub step: i64,
    /// When, milliseconds since 1970-01-01 UTC.
    pub at_ms: i64,
    /// Who: a colleague's name, never a subject's.
    pub by: String,
    /// What, as the integrity room's JSON.
    pub body: String,
}

/// A rule that is not to be heard about a subject for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SilenceRecord {
    /// The rule.
    pub rule: String,
    /// Kind of the subject.
    pub subject_kind: String,
    /// Business identifier, or keyed form in hex.
    pub subject: String,
    /// When it ends by itself, milliseconds since 1970-01-01 UTC.
    pub until_ms: i64,
    /// The whole silence as the integrity room's JSON.
    pub body: String,
}

/// Which process sends alerts to receivers outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SenderRecord {
    /// Its generation; 0 when none has ever sent.
    pub generation: Generation,
    /// Its name.
    pub owner: String,
    /// When it was last heard of, milliseconds since 1970-01-01 UTC.
    pub seen_ms: i64,
}

/// How far a receiver has come in the feed of alerts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceiverRecord {
    /// What stands up to here in the feed is queued for it, or was delivered.
    pub position: i64,
    /// Where the feed ended when the receiver was first met.
    pub began_at: i64,
}

/// Something to be delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The same at every attempt: a receiver drops repeats by it.
    pub id: String,
    /// What is sent, byte for byte.
    pub body: String,
}

/// A delivery as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryRecord {
    /// To whom, such as `webhook/NAME`.
    pub receiver: String,
    /// The same at every attempt.
    pub id: String,
    /// What is sent, byte for byte.
    pub body: String,
    /// When it was queued, milliseconds since 1970-01-01 UTC.
    pub made_ms: i64,
    /// How often it was tried.
    pub attempts: i64,
    /// When it is tried next, milliseconds since 1970-01-01 UTC.
    pub next_ms: i64,
    /// Whether it was given up.
    pub dead: bool,
    /// Why the last attempt failed: a kind of fault, nothing that the receiver said.
    pub fault: Option<String>,
}

/// How an attempt at a delivery ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryEnd {
    /// It is there.
    Done,
    /// It is to be tried again.
    Again {
        /// When, milliseconds since 1970-01-01 UTC.
        next_ms: i64,
        /// Why it failed.
        fault: String,
    },
    /// It is given up, and waits for somebody to send it again.
    Dead {
        /// Why it failed.
        fault: String,
    },
}

/// Where an integrity part stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Current generation of the part.
    pub generation: Generation,
    /// Path of its sealed state below the file store.
    pub state_path: String,
    /// What it has read, as JSON.
    pub positions: String,
}

/// An entry of the hash-chained log.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditEntry {
    /// Number, from 1, without gaps.
    pub sequence: i64,
    /// When, milliseconds since 1970-01-01 UTC.
    pub at_ms: i64,
    /// What kind of thing happened, such as `key_destroyed`.
    pub kind: String,
    /// What happened. Holds no subject identifier (P44).
    pub detail: Value,
    /// BLAKE3 over the hash before and this entry, in hex.
    pub hash: String,
}

/// Some entries of the log.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditPage {
    /// Newest first.
    pub entries: Vec<AuditEntry>,
    /// Whether each is linked to the one before it, and the newest is the chain's head.
    pub verified: bool,
}
