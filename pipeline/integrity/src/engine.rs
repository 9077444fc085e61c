//! The detectors together: rows of signals in, alerts out, nothing but memory in between.

mod columns;

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::Array as _;
use hashbrown::HashMap;
use starling_schemas::codes::{Category, ProfileField, SignalKind};
use starling_schemas::ids::{EpochId, PartitionId};
use starling_schemas::signals::SignalBatch;

use self::columns::{Columns, Said};
use crate::IntegrityError;
use crate::alert::Alert;
use crate::businesses::{Business, Day, Portfolios, Totals, judged_on_reach};
use crate::evidence::Tested;
use crate::groups::Group;
use crate::hours::{Moved, NEEDED_MS};
use crate::judge;
use crate::listed::Listed;
use crate::makers::{Maker, is_over};
use crate::rules::Rules;
use crate::senders::{Sender, Window};
use crate::slow::{Answered, Contact, SlowSenders};
use crate::templates::{Catalogue, Heard};
use crate::vectors::Vectors;

/// A sender, or a group's panes of ten seconds, that nothing came from during two sweeps is forgotten, if it is also this far behind the
/// newest signal. A group's hours are needed longer: see [`NEEDED_MS`].
pub(crate) const FORGET_AFTER_MS: i64 = 20 * 60_000;
/// Alerts are kept this long after their last window, so that they can grow.
pub(crate) const KEEP_ALERTS_MS: i64 = 3 * 86_400_000;
/// Facts of a business's day are kept for backtests this long after its end: what comes later is kept once more.
const KEEP_FACTS_AFTER_MS: i64 = 6 * 3_600_000;
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
    /// Their bytes, those of their portfolios and templates included.
    pub business_bytes: usize,
    /// Groups in which something happened in the last two hours.
    pub groups: usize,
    /// Their bytes, and those of groups that were on a list in the day.
    pub group_bytes: usize,
    /// Bytes of accounts that created groups in the day.
    pub maker_bytes: usize,
    /// Bytes of the reply test: suspects, contacts that wait, and what everybody shares.
    pub slow_bytes: usize,
}

/// All detectors of one part of the signals.
#[derive(Debug)]
pub struct Engine {
    pub(crate) rules: Rules,
    pub(crate) senders: HashMap<[u8; 16], Sender>,
    pub(crate) businesses: HashMap<String, Business>,
    pub(crate) portfolios: Portfolios,
    /// What is known of businesses' templates, and which are under test.
    pub(crate) templates: Catalogue,
    pub(crate) groups: HashMap<[u8; 16], Group>,
    /// Accounts that created groups today, or as long ago as late signals come.
    pub(crate) makers: HashMap<[u8; 16], Maker>,
    /// The same of groups that were on a list.
    pub(crate) listed: HashMap<[u8; 16], Listed>,
    /// Newest (sequence, chunk) of each origin.
    pub(crate) origins: BTreeMap<PartitionId, (i64, u32)>,
    /// Open alerts by fingerprint.
    pub(crate) alerts: BTreeMap<String, Alert>,
    /// Fingerprints that changed since they were taken last.
    pub(crate) changed: BTreeSet<String>,
    /// Businesses to be judged when alerts are taken: counting a sketch is too dear for every signal.
    pub(crate) to_judge: BTreeSet<String>,
    /// Groups whose hours are to be judged then.
    pub(crate) groups_to_judge: BTreeSet<[u8; 16]>,
    /// Alerts on hours of groups that were forgotten since, by fingerprint.
    pub(crate) settled: BTreeMap<String, Alert>,
    pub(crate) slow: SlowSenders,
    /// How many businesses and groups were tested.
    pub(crate) tested: Tested,
    /// Facts of windows that are over, until they are taken.
    pub(crate) vectors: Vectors,
    /// How often facts were taken.
    pub(crate) vectors_taken: u64,
    pub(crate) newest_ms: i64,
    pub(crate) sweep: u32,
}

impl Engine {
    /// Detectors that have seen nothing.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self {
            slow: SlowSenders::new(rules.slow_bulk.clone(), rules.coordinated_senders.clone()),
            rules,
            senders: HashMap::new(),
            businesses: HashMap::new(),
            portfolios: Portfolios::default(),
            templates: Catalogue::default(),
            groups: HashMap::new(),
            makers: HashMap::new(),
            listed: HashMap::new(),
            origins: BTreeMap::new(),
            alerts: BTreeMap::new(),
            changed: BTreeSet::new(),
            to_judge: BTreeSet::new(),
            groups_to_judge: BTreeSet::new(),
            settled: BTreeMap::new(),
            tested: Tested::default(),
            vectors: Vectors::default(),
            vectors_taken: 0,
            newest_ms: i64::MIN,
            sweep: 0,
        }
    }

    /// The rules in force.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
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
            self.row(&batch.origin, &columns, row);
        }
        self.origins.insert(batch.origin.clone(), position);
        Ok(Applied::Rows(batch.rows.num_rows()))
    }

    /// Looks at a first contact, or another message of the same two: see [`slow`](crate::slow).
    fn contact(&mut self, origin: &PartitionId, contact: &Contact) {
        self.slow.contact(origin, contact);
    }

    /// Looks at a message as somebody's answer; nobody is in it.
    fn answered(&mut self, origin: &PartitionId, answered: &Answered) {
        self.slow.answered(origin, answered);
    }

    /// Says which partitions there are: see [`SlowSenders::expect`].
    pub fn expect<'a>(&mut self, origins: impl Iterator<Item = &'a PartitionId>) {
        self.slow.expect(origins);
    }

    /// Says that nothing more comes of the partitions there were: see [`SlowSenders::source_is_over`]. Facts of all windows are kept.
    ///
    /// `false`: not all of them found room; say it once more when what there is has been committed.
    pub fn source_is_over(&mut self) -> bool {
        self.slow.source_is_over();
        self.keep_days(i64::MAX);
        for group in self.groups.values_mut().filter(|group| group.to_keep) {
            if !self.vectors.has_room() {
                return false;
            }
            self.vectors.group(group);
            group.to_keep = false;
        }
        self.vectors.has_room()
    }

    /// Keeps the facts of businesses' days that ended at `passed_ms` or before.
    fn keep_days(&mut self, passed_ms: i64) {
        for (name, business) in &mut self.businesses {
            for place in 0..business.days.len() {
                let Some(day) = business.days.get(place) else { continue };
                if day.to_keep && EpochId(day.day).end_ms() <= passed_ms && self.vectors.has_room() {
                    self.vectors.day(name, business, day);
                    business.days.iter_mut().skip(place).take(1).for_each(|day| day.to_keep = false);
                }
            }
        }
    }

    /// Facts of windows that are over, and the number of times that there were any before: see [`vectors`](crate::vectors). To be taken before the
    /// state is saved.
    pub fn take_vectors(&mut self) -> Option<(u64, Vectors)> {
        if self.vectors.is_empty() {
            return None;
        }
        let number = self.vectors_taken;
        self.vectors_taken += 1;
        Some((number, std::mem::take(&mut self.vectors)))
    }

    fn row(&mut self, origin: &PartitionId, columns: &Columns<'_>, row: usize) {
        let time_ms = columns.time.value(row);
        self.newest_ms = self.newest_ms.max(time_ms);
        let epoch = columns.epoch.value(row);
        let person = || Columns::keyed(columns.person, row);
        match SignalKind::from_code(columns.kind.value(row)) {
            Some(SignalKind::MessageSent) => {
                if let Some(person) = person() {
                    self.sent(person, epoch, time_ms, columns.age_s(row));
                }
            }
            Some(SignalKind::Contact) => {
                if let (Some(person), Some((pair, pair_before))) = (person(), columns.pairs(row)) {
                    let (overlap, account_age_s) = (columns.overlap.value(row), columns.age_s(row));
                    let cohort = Columns::keyed(columns.group, row);
                    let to_new_account = columns.to_new_account.is_valid(row).then(|| columns.to_new_account.value(row));
                    let contact = Contact { time_ms, person, overlap, pair, pair_before, account_age_s, cohort, to_new_account };
                    self.contact(origin, &contact);
                }
            }
            Some(SignalKind::Answered) => {
                if let Some((pair, pair_before)) = columns.pairs(row) {
                    self.answered(origin, &Answered { time_ms, pair, pair_before });
                }
            }
            // Copies under the day before's key are for windows of senders that span midnight; nothing else counts them.
            _ if columns.overlap.value(row) => {}
            Some(SignalKind::GroupMade) => {
                if let Some(person) = person() {
                    self.made(person, epoch, time_ms, columns.count.value(row), columns.strangers.value(row) > 0);
                }
            }
            Some(SignalKind::GroupListed) => {
                if let (Some(group), Some(hit)) = (Columns::keyed(columns.group, row), columns.hit(row)) {
                    self.on_list(group, epoch, time_ms, hit);
                }
            }
            Some(SignalKind::MembersAdded) => {
                if let Some(group) = Columns::keyed(columns.group, row) {
                    let members = columns.count.value(row);
                    self.moved(group, epoch, time_ms, Moved::Added(members));
                    self.added(group, epoch, time_ms, members, columns.strangers.value(row));
                }
            }
            Some(
                kind @ (SignalKind::GroupJoined | SignalKind::GroupLeft | SignalKind::GroupReported | SignalKind::GroupCreated),
            ) => {
                if let Some(group) = Columns::keyed(columns.group, row) {
                    let moved = match kind {
                        SignalKind::GroupJoined => Moved::Joined,
                        SignalKind::GroupLeft => Moved::Left,
                        SignalKind::GroupReported => {
                            let voice = columns.voice(row);
                            let weights = &self.rules.business_blocks.voices;
                            Moved::Reported(voice.bucket, weights.in_group(voice.rate, columns.strangers.value(row) > 0))
                        }
                        _ => Moved::Created,
                    };
                    self.moved(group, epoch, time_ms, moved);
                }
            }
            Some(
                kind @ (SignalKind::BusinessSent | SignalKind::BusinessReplied | SignalKind::Blocked | SignalKind::Reported),
            ) if columns.business.is_valid(row) => {
                let category = Category::from_code(columns.category.value(row));
                let is_unfounded = kind == SignalKind::Reported && columns.count.value(row) == 0;
                let names_portfolio = kind == SignalKind::BusinessSent && columns.portfolio.is_valid(row);
                let portfolio = names_portfolio.then(|| columns.portfolio.value(row)).filter(|name| !name.is_empty());
                let is_young = matches!(kind, SignalKind::Blocked | SignalKind::Reported) && columns.strangers.value(row) > 0;
                let template = if columns.template.is_valid(row) { columns.template.value(row) } else { "" };
                let (tier, voice) = (columns.tier.value(row), columns.voice(row));
                let said = Said { kind, portfolio, time_ms, category, tier, is_unfounded, is_young, voice, template };
                self.business(columns.business.value(row), said, person());
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

    fn moved(&mut self, group: [u8; 16], epoch: i32, time_ms: i64, moved: Moved) {
        let sweep = self.sweep;
        self.tested.group(epoch, &group);
        let kept = self.groups.entry(group).or_default();
        (kept.epoch, kept.touched) = (epoch, sweep);
        if kept.hours.count(time_ms, moved) {
            kept.to_keep = true;
            if !std::mem::replace(&mut kept.to_judge, true) {
                self.groups_to_judge.insert(group);
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

    fn made(&mut self, person: [u8; 16], epoch: i32, hour_ms: i64, groups: u32, is_new: bool) {
        let rule = &self.rules.group_creation_burst;
        if self.makers.len() >= rule.most_accounts as usize && !self.makers.contains_key(&person) {
            return;
        }
        let maker = self.makers.entry(person).or_insert(Maker { epoch, ..Maker::default() });
        maker.touched = self.sweep;
        if maker.count(hour_ms, groups, is_new) {
            judge::maker(&mut self.alerts, &mut self.changed, rule, &person, maker);
        }
    }

    fn on_list(&mut self, group: [u8; 16], epoch: i32, time_ms: i64, (field, list): (ProfileField, &str)) {
        let rule = &self.rules.group_listed;
        if self.listed.len() >= rule.most_groups as usize && !self.listed.contains_key(&group) {
            return;
        }
        let kept = self.listed.entry(group).or_insert_with(|| Listed::new(epoch));
        kept.touched = self.sweep;
        if kept.hit(time_ms, field, list) {
            judge::listed(&mut self.alerts, &mut self.changed, rule, &group, kept);
        }
    }

    fn business(&mut self, name: &str, said: Said<'_>, person: Option<[u8; 16]>) {
        let Said { kind, portfolio, time_ms, category, tier, is_unfounded, is_young, voice, template } = said;
        if !self.businesses.contains_key(name) {
            self.businesses.insert(name.to_owned(), Business::default());
        }
        let oldest_ms = self.newest_ms.saturating_sub(KEEP_ALERTS_MS);
        let Some(business) = self.businesses.get_mut(name) else { return };
        if kind == SignalKind::BusinessSent && tier > business.tier {
            business.tier = tier;
            business.touch(i32::MIN, oldest_ms);
        }
        let today = EpochId::of(time_ms).0;
        if let Some(over) = business.make_room(today) {
            self.over(name, &over, oldest_ms);
        }
        let Some(business) = self.businesses.get_mut(name) else { return };
        let is_new = business.days.iter().all(|known| known.day != today);
        let Some(day) = business.day(today, time_ms) else { return };
        if is_new {
            self.tested.businesses.add(today);
        }
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
            _ if is_unfounded => day.unfounded = day.unfounded.saturating_add(1),
            _ => {
                let is_report = kind == SignalKind::Reported;
                day.objections = day.objections.saturating_add(1);
                day.reported = day.reported.saturating_add(u32::from(is_report));
                day.young = day.young.saturating_add(u32::from(is_young));
                day.young_reported = day.young_reported.saturating_add(u32::from(is_young && is_report));
                if !is_young {
                    day.voices.hear(voice, self.rules.business_blocks.voices.quarters(voice.rate));
                }
            }
        }
        business.touch(today, oldest_ms);
        if !std::mem::replace(&mut business.to_judge, true) {
            self.to_judge.insert(name.to_owned());
        }
        if let Some(heard) = Heard::of(kind, template, time_ms, category, is_young).filter(|_| !is_unfounded) {
            self.heard(name, &heard);
        }
        if let Some(portfolio) = portfolio {
            self.belongs(name, portfolio, time_ms);
        }
    }

    /// Judges a day of a business for the last time, and keeps its facts.
    fn over(&mut self, name: &str, over: &Day, oldest_ms: i64) {
        let Some(business) = self.businesses.get(name) else { return };
        let (alerts, changed, rules) = (&mut self.alerts, &mut self.changed, &self.rules);
        // What is known of other numbers may have changed since a new one was judged.
        let is_fresh = business.is_fresh(over.day, rules.business_fresh_number.fresh_days);
        if (over.to_judge || is_fresh) && over.last_ms >= oldest_ms {
            let totals = Totals::of(&self.portfolios, &self.businesses);
            let seen = judge::Seen { name, business, totals: &totals };
            judge::business_day(alerts, changed, rules, &seen, over);
            let mut days = judge::written::Days::default();
            days.take(&rules.written, name, business, over);
            days.judge(alerts, changed, &rules.written);
        }
        if over.to_keep {
            self.vectors.day(name, business, over);
        }
    }

    /// Notes the portfolio that a business's message named.
    fn belongs(&mut self, name: &str, portfolio: &str, time_ms: i64) {
        let Some(business) = self.businesses.get_mut(name) else { return };
        let before = business.portfolio.as_ref().filter(|(_, before)| **before != *portfolio).map(|(_, before)| before.clone());
        if business.belongs(portfolio, time_ms) {
            let is_fresh = self.is_fresh(name);
            if let Some(before) = before {
                self.portfolios.take(&before, name);
                // What is left of it is less.
                self.to_judge.extend(self.portfolios.fresh(&before).map(ToOwned::to_owned));
            }
            self.portfolios.put(portfolio, name, is_fresh);
        }
    }

    /// Whether a number may be judged as a new one: a day that is still counted is one of its first.
    fn is_fresh(&self, name: &str) -> bool {
        let days = self.rules.business_fresh_number.fresh_days;
        self.businesses.get(name).is_some_and(|b| b.days.first().is_none_or(|oldest| b.is_fresh(oldest.day, days)))
    }

    /// Businesses to be judged: those that something came of, and new numbers of their portfolios.
    fn take_to_judge(&mut self) -> BTreeSet<String> {
        let mut names = std::mem::take(&mut self.to_judge);
        let portfolios = names.iter().filter_map(|name| self.businesses.get(name)?.portfolio.as_ref());
        let portfolios: BTreeSet<&str> = portfolios.map(|(_, portfolio)| &**portfolio).collect();
        let with: Vec<String> =
            portfolios.into_iter().flat_map(|portfolio| self.portfolios.fresh(portfolio)).map(ToOwned::to_owned).collect();
        names.extend(with);
        names
    }

    /// Judges businesses and groups' hours that changed, and gives every alert that is new or has grown since it was taken last.
    pub fn take_alerts(&mut self) -> Vec<Alert> {
        let oldest_ms = self.newest_ms.saturating_sub(KEEP_ALERTS_MS);
        let mut days = judge::written::Days::default();
        let names = self.take_to_judge();
        let totals = Totals::of(&self.portfolios, &self.businesses);
        for name in &names {
            if let Some(business) = self.businesses.get(name) {
                let seen = judge::Seen { name, business, totals: &totals };
                judge::business(&mut self.alerts, &mut self.changed, &self.rules, &seen, oldest_ms);
                let of = (name.as_str(), business);
                judge::templates(&mut self.alerts, &mut self.changed, &self.rules, &self.templates, of, oldest_ms);
                for day in business.days.iter().filter(|day| day.to_judge) {
                    days.take(&self.rules.written, name, business, day);
                }
            }
        }
        for name in &names {
            if let Some(business) = self.businesses.get_mut(name) {
                business.to_judge = false;
                business.days.iter_mut().for_each(|day| day.to_judge = false);
            }
        }
        for (name, found) in days.judge(&mut self.alerts, &mut self.changed, &self.rules.written) {
            let days = self.businesses.get_mut(&name).map(|business| business.days.iter_mut());
            days.into_iter().flatten().filter(|day| day.day == found).for_each(|day| day.has_alert = true);
        }
        let mut groups = Vec::new();
        for group in std::mem::take(&mut self.groups_to_judge) {
            if let Some(kept) = self.groups.get_mut(&group) {
                kept.to_judge = false;
                judge::group_hours(&mut self.alerts, &mut self.changed, &self.settled, &self.rules, &group, kept);
                groups.push(group);
            }
        }
        judge::written::groups(
            &mut self.alerts,
            &mut self.changed,
            &self.settled,
            &self.rules.written,
            &groups,
            &mut self.groups,
        );
        for crossing in self.slow.take_crossings() {
            judge::slow(&mut self.alerts, &mut self.changed, &self.rules.slow_bulk, &crossing);
        }
        for crowd in self.slow.take_crowds() {
            judge::crowd(&mut self.alerts, &mut self.changed, &self.rules.coordinated_senders, &crowd);
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
        self.slow.sweep();
        self.keep_days(self.newest_ms.saturating_sub(KEEP_FACTS_AFTER_MS));
        let (sweep, horizon) = (self.sweep, self.newest_ms.saturating_sub(FORGET_AFTER_MS));
        let silent = |touched: u32| sweep.saturating_sub(touched) >= 2;
        self.senders.retain(|_, s| !silent(s.touched) || s.newest_ms() >= horizon);
        let newest_ms = self.newest_ms;
        self.makers.retain(|_, m| !silent(m.touched) || !is_over(m.epoch, newest_ms));
        self.listed.retain(|_, l| !silent(l.touched) || !is_over(l.epoch, newest_ms));
        let needed = self.newest_ms.saturating_sub(NEEDED_MS);
        let (alerts, settled, vectors, written) = (&self.alerts, &mut self.settled, &mut self.vectors, &self.rules.written);
        self.groups.retain(|group, kept| {
            if !silent(kept.touched) || kept.to_judge {
                return true;
            }
            if kept.newest_ms() < horizon {
                kept.panes = Vec::new();
            }
            let stays = !kept.panes.is_empty() || kept.hours.newest_ms() >= needed || !vectors.has_room();
            if !stays && kept.has_alert {
                judge::settle(alerts, settled, group, kept.epoch);
                judge::written::settle(alerts, settled, written, group, kept.epoch);
            }
            if !stays && kept.to_keep {
                vectors.group(kept);
            }
            stays
        });
        let day = EpochId::of(self.newest_ms).0;
        let portfolios = &mut self.portfolios;
        self.businesses.retain(|name, b| {
            let stays = b.days.last().is_none_or(|d| d.day >= day.saturating_sub(KEEP_BUSINESS_DAYS));
            if let Some((_, portfolio)) = b.portfolio.as_ref().filter(|_| !stays) {
                portfolios.take(portfolio, name);
            }
            stays
        });
        self.settle_numbers();
        self.sweep_templates();
        let oldest = self.newest_ms.saturating_sub(KEEP_ALERTS_MS);
        let changed = &self.changed;
        self.alerts.retain(|f, a| a.last_ms >= oldest || changed.contains(f));
        self.settled.retain(|_, a| a.last_ms >= oldest);
        self.sweep += 1;
    }

    /// Says of numbers that were new that they are not any more.
    pub(crate) fn settle_numbers(&mut self) {
        let mut portfolios = std::mem::take(&mut self.portfolios);
        portfolios.settle(|name| self.is_fresh(name));
        self.portfolios = portfolios;
    }

    /// Bytes in memory.
    #[must_use]
    pub fn footprint(&self) -> Footprint {
        let entry = size_of::<[u8; 16]>() + 1;
        Footprint {
            senders: self.senders.len(),
            sender_bytes: self.senders.values().map(|s| s.bytes() + entry).sum(),
            businesses: self.businesses.len(),
            business_bytes: self.businesses.iter().map(|(n, b)| b.bytes() + n.len() + size_of::<String>() + 1).sum::<usize>()
                + self.portfolios.bytes()
                + self.templates.bytes(),
            groups: self.groups.len(),
            group_bytes: self.groups.values().map(|g| g.bytes() + entry).sum::<usize>()
                + self.listed.values().map(|l| l.bytes() + entry).sum::<usize>()
                + self.tested.bytes(),
            maker_bytes: self.makers.len() * (size_of::<Maker>() + entry),
            slow_bytes: self.slow.figures().bytes,
        }
    }
}
