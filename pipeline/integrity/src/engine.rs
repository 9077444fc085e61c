//! The detectors together: rows of signals in, alerts out, nothing but memory in between.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{Array as _, AsArray as _, BooleanArray, FixedSizeBinaryArray, PrimitiveArray, RecordBatch, StringArray};
use arrow::datatypes::{ArrowPrimitiveType, Date32Type, TimestampMillisecondType, UInt8Type, UInt32Type, UInt64Type};
use hashbrown::HashMap;
use starling_schemas::codes::{Category, SignalKind};
use starling_schemas::ids::{EpochId, PartitionId};
use starling_schemas::signals::SignalBatch;

use crate::IntegrityError;
use crate::alert::Alert;
use crate::businesses::{Business, judged_on_reach};
use crate::groups::Group;
use crate::judge;
use crate::rules::Rules;
use crate::senders::{Sender, Window};

/// A sender or group that nothing came from during two sweeps is forgotten, if it is also this far behind the newest signal.
pub(crate) const FORGET_AFTER_MS: i64 = 20 * 60_000;
/// Alerts are kept this long after their last window, so that they can grow.
const KEEP_ALERTS_MS: i64 = 3 * 86_400_000;
/// Businesses are forgotten after this long without a signal.
const KEEP_BUSINESS_DAYS: i32 = 35;

/// What a batch was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// New: its rows were looked at.
    Rows(usize),
    /// Seen before, by (origin, sequence, chunk).
    Duplicate,
}

/// Bytes in memory, and of whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Footprint {
    /// Senders active in the last minutes.
    pub senders: usize,
    /// Their bytes.
    pub sender_bytes: usize,
    /// Businesses.
    pub businesses: usize,
    /// Their bytes.
    pub business_bytes: usize,
    /// Groups that members were added to in the last minutes.
    pub groups: usize,
    /// Their bytes.
    pub group_bytes: usize,
}

/// All detectors of one part of the signals.
#[derive(Debug)]
pub struct Engine {
    pub(crate) rules: Rules,
    pub(crate) senders: HashMap<[u8; 16], Sender>,
    pub(crate) businesses: HashMap<String, Business>,
    pub(crate) groups: HashMap<[u8; 16], Group>,
    /// Newest (sequence, chunk) of each origin.
    pub(crate) origins: BTreeMap<PartitionId, (i64, u32)>,
    /// Open alerts by fingerprint.
    pub(crate) alerts: BTreeMap<String, Alert>,
    /// Fingerprints that changed since they were taken last.
    pub(crate) changed: BTreeSet<String>,
    /// Businesses to be judged when alerts are taken: counting a sketch is too dear for every signal.
    pub(crate) to_judge: BTreeSet<String>,
    pub(crate) newest_ms: i64,
    pub(crate) sweep: u32,
}

/// The columns of a batch, found once.
struct Columns<'a> {
    kind: &'a PrimitiveArray<UInt8Type>,
    time: &'a PrimitiveArray<TimestampMillisecondType>,
    epoch: &'a PrimitiveArray<Date32Type>,
    overlap: &'a BooleanArray,
    person: &'a FixedSizeBinaryArray,
    group: &'a FixedSizeBinaryArray,
    business: &'a StringArray,
    category: &'a PrimitiveArray<UInt8Type>,
    tier: &'a PrimitiveArray<UInt8Type>,
    count: &'a PrimitiveArray<UInt32Type>,
    strangers: &'a PrimitiveArray<UInt32Type>,
    account_age_s: &'a PrimitiveArray<UInt64Type>,
}

impl<'a> Columns<'a> {
    fn of(rows: &'a RecordBatch) -> Option<Self> {
        fn numbers<'a, T: ArrowPrimitiveType>(rows: &'a RecordBatch, name: &str) -> Option<&'a PrimitiveArray<T>> {
            rows.column_by_name(name)?.as_primitive_opt::<T>()
        }
        Some(Self {
            kind: numbers(rows, "kind")?,
            time: numbers(rows, "time")?,
            epoch: numbers(rows, "epoch")?,
            overlap: rows.column_by_name("overlap")?.as_boolean_opt()?,
            person: rows.column_by_name("person")?.as_fixed_size_binary_opt()?,
            group: rows.column_by_name("group")?.as_fixed_size_binary_opt()?,
            business: rows.column_by_name("business")?.as_string_opt()?,
            category: numbers(rows, "category")?,
            tier: numbers(rows, "tier")?,
            count: numbers(rows, "count")?,
            strangers: numbers(rows, "strangers")?,
            account_age_s: numbers(rows, "account_age_s")?,
        })
    }

    fn keyed(column: &FixedSizeBinaryArray, row: usize) -> Option<[u8; 16]> {
        if column.is_valid(row) { column.value(row).try_into().ok() } else { None }
    }
}

impl Engine {
    /// Detectors that have seen nothing.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            senders: HashMap::new(),
            businesses: HashMap::new(),
            groups: HashMap::new(),
            origins: BTreeMap::new(),
            alerts: BTreeMap::new(),
            changed: BTreeSet::new(),
            to_judge: BTreeSet::new(),
            newest_ms: i64::MIN,
            sweep: 0,
        }
    }

    /// Looks at a batch, unless it was seen before. Batches of one origin must come in the order of (sequence, chunk).
    ///
    /// # Errors
    /// [`IntegrityError::Columns`] when the rows are of another version; nothing of the batch is taken in then.
    pub fn apply(&mut self, batch: &SignalBatch) -> Result<Applied, IntegrityError> {
        let position = (batch.sequence.0, batch.chunk);
        if self.origins.get(&batch.origin).is_some_and(|seen| *seen >= position) {
            return Ok(Applied::Duplicate);
        }
        let columns = Columns::of(&batch.rows).ok_or(IntegrityError::Columns)?;
        for row in 0..batch.rows.num_rows() {
            self.row(&columns, row);
        }
        self.origins.insert(batch.origin.clone(), position);
        Ok(Applied::Rows(batch.rows.num_rows()))
    }

    fn row(&mut self, columns: &Columns<'_>, row: usize) {
        let time_ms = columns.time.value(row);
        self.newest_ms = self.newest_ms.max(time_ms);
        let epoch = columns.epoch.value(row);
        let person = || Columns::keyed(columns.person, row);
        match SignalKind::from_code(columns.kind.value(row)) {
            Some(SignalKind::MessageSent) => {
                if let Some(person) = person() {
                    let age = columns.account_age_s.is_valid(row).then(|| columns.account_age_s.value(row));
                    self.sent(person, epoch, time_ms, age);
                }
            }
            // Copies under the day before's key are for windows of senders that span midnight; nothing else counts them.
            _ if columns.overlap.value(row) => {}
            Some(SignalKind::MembersAdded) => {
                if let Some(group) = Columns::keyed(columns.group, row) {
                    self.added(group, epoch, time_ms, columns.count.value(row), columns.strangers.value(row));
                }
            }
            Some(
                kind @ (SignalKind::BusinessSent | SignalKind::BusinessReplied | SignalKind::Blocked | SignalKind::Reported),
            ) if columns.business.is_valid(row) => {
                let category = Category::from_code(columns.category.value(row));
                self.business(columns.business.value(row), kind, time_ms, category, columns.tier.value(row), person());
            }
            _ => {}
        }
    }

    fn sent(&mut self, person: [u8; 16], epoch: i32, time_ms: i64, age_s: Option<u64>) {
        let young = age_s.is_some_and(|age| age <= self.rules.new_account_burst.account_age_s);
        let sweep = self.sweep;
        let sender = self.senders.entry(person).or_default();
        (sender.epoch, sender.touched) = (epoch, sweep);
        let Some(place) = sender.add(time_ms, young) else { return };
        let start_before_ms = EpochId(epoch).end_ms();
        let bulk = &self.rules.bulk_per_minute;
        let window = Window { within_ms: bulk.within_ms, messages: bulk.messages, young_only: false, start_before_ms };
        if let Some(peak) = sender.peak(place, window) {
            judge::sender(&mut self.alerts, &mut self.changed, judge::SenderRule::bulk(&self.rules), &person, epoch, peak);
        }
        if young {
            let burst = &self.rules.new_account_burst;
            let window = Window { within_ms: burst.within_ms, messages: burst.messages, young_only: true, start_before_ms };
            if let Some(peak) = sender.peak(place, window) {
                judge::sender(
                    &mut self.alerts,
                    &mut self.changed,
                    judge::SenderRule::new_account(&self.rules),
                    &person,
                    epoch,
                    peak,
                );
            }
        }
    }

    fn added(&mut self, group: [u8; 16], epoch: i32, time_ms: i64, count: u32, strangers: u32) {
        let sweep = self.sweep;
        let kept = self.groups.entry(group).or_default();
        (kept.epoch, kept.touched) = (epoch, sweep);
        let rule = &self.rules.group_mass_add;
        let Some(place) = kept.add(time_ms, count, strangers) else { return };
        if let Some(burst) = kept.burst(place, rule.within_ms, rule.members, rule.stranger_share) {
            judge::group(&mut self.alerts, &mut self.changed, rule, &group, epoch, burst);
        }
    }

    fn business(
        &mut self,
        name: &str,
        kind: SignalKind,
        time_ms: i64,
        category: Option<Category>,
        tier: u8,
        person: Option<[u8; 16]>,
    ) {
        if !self.businesses.contains_key(name) {
            self.businesses.insert(name.to_owned(), Business::default());
        }
        let Some(business) = self.businesses.get_mut(name) else { return };
        if kind == SignalKind::BusinessSent {
            business.tier = business.tier.max(tier);
        }
        let Some(day) = business.day(EpochId::of(time_ms).0, time_ms) else { return };
        match kind {
            SignalKind::BusinessSent => {
                day.sent = day.sent.saturating_add(1);
                if let Some(slot) = category.and_then(|c| day.by_category.get_mut(usize::from(c.code()))) {
                    *slot = slot.saturating_add(1);
                }
                if let Some(person) = person.filter(|_| judged_on_reach(category)) {
                    day.reach.add(&person);
                }
            }
            SignalKind::BusinessReplied => day.replied = day.replied.saturating_add(1),
            _ => day.objections = day.objections.saturating_add(1),
        }
        if !std::mem::replace(&mut business.to_judge, true) {
            self.to_judge.insert(name.to_owned());
        }
    }

    /// Judges businesses that changed, and gives every alert that is new or has grown since it was taken last.
    pub fn take_alerts(&mut self) -> Vec<Alert> {
        for name in std::mem::take(&mut self.to_judge) {
            if let Some(business) = self.businesses.get_mut(&name) {
                business.to_judge = false;
                judge::business(&mut self.alerts, &mut self.changed, &self.rules, &name, business);
            }
        }
        let changed = std::mem::take(&mut self.changed);
        let mut out = Vec::with_capacity(changed.len());
        for fingerprint in changed {
            if let Some(alert) = self.alerts.get_mut(&fingerprint) {
                alert.revision += 1;
                out.push(alert.clone());
            }
        }
        out
    }

    /// Forgets who has been silent. To be called about once a minute of the wall clock: a sender is forgotten when nothing came from it
    /// during two sweeps and it is far behind the newest event. So partitions of a topic that is being caught up may be hours of
    /// event time apart without one of them forgetting what belongs to another.
    pub fn sweep(&mut self) {
        let (sweep, horizon) = (self.sweep, self.newest_ms.saturating_sub(FORGET_AFTER_MS));
        let silent = |touched: u32| sweep.saturating_sub(touched) >= 2;
        self.senders.retain(|_, s| !silent(s.touched) || s.newest_ms() >= horizon);
        self.groups.retain(|_, g| !silent(g.touched) || g.newest_ms() >= horizon);
        let day = EpochId::of(self.newest_ms).0;
        self.businesses.retain(|_, b| b.days.last().is_none_or(|d| d.day >= day.saturating_sub(KEEP_BUSINESS_DAYS)));
        let oldest = self.newest_ms.saturating_sub(KEEP_ALERTS_MS);
        let changed = &self.changed;
        self.alerts.retain(|f, a| a.last_ms >= oldest || changed.contains(f));
        self.sweep += 1;
    }

    /// Bytes in memory.
    #[must_use]
    pub fn footprint(&self) -> Footprint {
        let entry = size_of::<[u8; 16]>() + 1;
        Footprint {
            senders: self.senders.len(),
            sender_bytes: self.senders.values().map(|s| s.bytes() + entry).sum(),
            businesses: self.businesses.len(),
            business_bytes: self.businesses.iter().map(|(n, b)| b.bytes() + n.len() + size_of::<String>() + 1).sum(),
            groups: self.groups.len(),
            group_bytes: self.groups.values().map(|g| g.bytes() + entry).sum(),
        }
    }
}
