//! Saving and restoring all detectors. A restored engine goes on as if nothing had happened.

use std::collections::BTreeSet;

use starling_schemas::codes::ProfileField;
use starling_schemas::ids::{EpochId, PartitionId};
use starling_schemas::voice::BUCKETS;

use crate::IntegrityError;
use crate::alert::Alert;
use crate::businesses::{Business, Day, Past};
use crate::codec::{Reader, Writer};
use crate::engine::{Engine, KEEP_ALERTS_MS};
use crate::evidence::Tested;
use crate::facts::Fact;
use crate::groups::{Group, Pane};
use crate::hours::{self, Hours};
use crate::listed::{Listed, MOST_HITS};
use crate::makers::{HOURS, Maker};
use crate::reports::Told;
use crate::rules::Rules;
use crate::senders::Sender;
use crate::sketch::{REGISTERS, Reach};
use crate::slow::SlowSenders;
use crate::templates::Catalogue;
use crate::voices::{Heard, Voices, WHOLE};

const MAGIC: &[u8; 8] = b"STARINT\x0a";
/// Before it was counted how many were tested: of days before, nothing is chosen.
pub(crate) const MAGIC_BEFORE_EVIDENCE: &[u8; 8] = b"STARINT\x09";
/// Before templates were known: what was saved then goes on as if none had been seen.
pub(crate) const MAGIC_BEFORE_TEMPLATES: &[u8; 8] = b"STARINT\x08";
/// Before it was noted under which names senders were told of.
pub(crate) const MAGIC_BEFORE_TOLD: &[u8; 8] = b"STARINT\x07";
/// Before it was told whose blocks and reports were: what was counted then counts as nobody's that is known.
pub(crate) const MAGIC_BEFORE_VOICES: &[u8; 8] = b"STARINT\x06";
/// Before it was counted who creates groups, and which are on a list.
pub(crate) const MAGIC_BEFORE_MAKERS: &[u8; 8] = b"STARINT\x05";
/// Before portfolios were known, and days that are over kept what was objected to: what was saved then goes on without them.
const MAGIC_BEFORE_NUMBERS: &[u8; 8] = b"STARINT\x04";
/// Before rules were written. Still read, as are earlier ones.
const MAGIC_BEFORE_WRITTEN: &[u8; 8] = b"STARINT\x03";
/// Before cohorts were looked at, and reports told apart: what was saved then goes on without them.
const MAGIC_BEFORE_COHORTS: &[u8; 8] = b"STARINT\x02";
/// Before groups had hours and slow senders were looked for.
const MAGIC_BEFORE: &[u8; 8] = b"STARINT\x01";

impl Engine {
    /// Everything the detectors hold, as bytes. Equal engines give equal bytes.
    ///
    /// # Errors
    /// [`IntegrityError::Json`] when an alert cannot be written.
    pub fn snapshot(&self) -> Result<Vec<u8>, IntegrityError> {
        self.snapshot_as(MAGIC)
    }

    /// The same as it was written by an earlier version, from [`MAGIC_BEFORE_MAKERS`] on: without what that did not know.
    pub(crate) fn snapshot_as(&self, version: &[u8; 8]) -> Result<Vec<u8>, IntegrityError> {
        let mut out = Writer(version.to_vec());
        out.i64(self.newest_ms);
        out.u32(self.sweep);
        out.count(self.origins.len());
        for (origin, (sequence, chunk)) in &self.origins {
            out.bytes(origin.source.as_bytes());
            out.i32(origin.partition);
            out.i64(*sequence);
            out.u32(*chunk);
        }
        let mut senders: Vec<_> = self.senders.iter().collect();
        senders.sort_unstable_by_key(|(person, _)| **person);
        out.count(senders.len());
        for (person, sender) in senders {
            out.0.extend_from_slice(person);
            out.i32(sender.epoch);
            out.u32(sender.touched);
            out.count(sender.times.len());
            sender.times.iter().for_each(|t| out.i64(*t));
        }
        let mut groups: Vec<_> = self.groups.iter().collect();
        groups.sort_unstable_by_key(|(group, _)| **group);
        out.count(groups.len());
        for (group, kept) in groups {
            out.0.extend_from_slice(group);
            out.i32(kept.epoch);
            out.u32(kept.touched);
            out.count(kept.panes.len());
            for pane in &kept.panes {
                out.i64(pane.index);
                out.u32(pane.added);
                out.u32(pane.strangers);
            }
            write_hours(&mut out, kept);
        }
        let mut businesses: Vec<_> = self.businesses.iter().collect();
        businesses.sort_unstable_by_key(|(name, _)| name.as_str());
        out.count(businesses.len());
        for (name, business) in businesses {
            write_business(&mut out, name, business);
        }
        out.count(self.alerts.len());
        for alert in self.alerts.values() {
            write_alert(&mut out, alert)?;
        }
        out.count(self.settled.len());
        for alert in self.settled.values() {
            write_alert(&mut out, alert)?;
        }
        for names in [&self.changed, &self.to_judge] {
            out.count(names.len());
            names.iter().for_each(|n| out.bytes(n.as_bytes()));
        }
        self.slow.save(&mut out);
        self.save_written(&mut out)?;
        if version > MAGIC_BEFORE_MAKERS {
            self.save_days(&mut out);
        }
        if version > MAGIC_BEFORE_VOICES {
            self.save_voices(&mut out);
        }
        if version > MAGIC_BEFORE_TOLD {
            self.slow.save_told(&mut out);
        }
        if version > MAGIC_BEFORE_TEMPLATES {
            self.templates.save(&mut out);
        }
        if version > MAGIC_BEFORE_EVIDENCE {
            self.slow.save_tested(&mut out);
            self.tested.save(&mut out);
        }
        Ok(out.0)
    }

    /// The engine that was saved, under the rules of now.
    ///
    /// # Errors
    /// [`IntegrityError::Snapshot`] names the damaged part.
    pub fn restore(rules: Rules, snapshot: &[u8]) -> Result<Self, IntegrityError> {
        let mut input = Reader::new(snapshot);
        let magic = input.array::<8>()?;
        let known = [
            MAGIC,
            MAGIC_BEFORE_EVIDENCE,
            MAGIC_BEFORE_TEMPLATES,
            MAGIC_BEFORE_TOLD,
            MAGIC_BEFORE_VOICES,
            MAGIC_BEFORE_MAKERS,
            MAGIC_BEFORE_NUMBERS,
            MAGIC_BEFORE_WRITTEN,
            MAGIC_BEFORE_COHORTS,
            MAGIC_BEFORE,
        ];
        if !known.contains(&&magic) {
            return Err(IntegrityError::Snapshot("version"));
        }
        // Versions are in order.
        let (has_hours, has_cohorts, has_written, has_numbers) =
            (magic > *MAGIC_BEFORE, magic > *MAGIC_BEFORE_COHORTS, magic > *MAGIC_BEFORE_WRITTEN, magic > *MAGIC_BEFORE_NUMBERS);
        let mut engine = Self::new(rules);
        engine.newest_ms = input.i64()?;
        engine.sweep = input.u32()?;
        input.part("origins");
        for _ in 0..input.count(20)? {
            let origin = PartitionId { source: input.text()?, partition: input.i32()? };
            engine.origins.insert(origin, (input.i64()?, input.u32()?));
        }
        input.part("senders");
        for _ in 0..input.count(28)? {
            let person = input.array()?;
            let (epoch, touched) = (input.i32()?, input.u32()?);
            let times = (0..input.count(8)?).map(|_| input.i64()).collect::<Result<Vec<_>, _>>()?;
            if !times.is_sorted() {
                return Err(IntegrityError::Snapshot("senders"));
            }
            engine.senders.insert(person, Sender { times, epoch, touched });
        }
        input.part("groups");
        for _ in 0..input.count(28)? {
            let group = input.array()?;
            let (epoch, touched) = (input.i32()?, input.u32()?);
            let mut panes = Vec::new();
            for _ in 0..input.count(16)? {
                panes.push(Pane { index: input.i64()?, added: input.u32()?, strangers: input.u32()? });
            }
            let mut kept = Group { panes, epoch, touched, ..Group::default() };
            if has_hours {
                read_hours(&mut input, &mut kept)?;
            }
            if kept.to_judge {
                engine.groups_to_judge.insert(group);
            }
            engine.groups.insert(group, kept);
        }
        input.part("businesses");
        for _ in 0..input.count(13)? {
            let (name, business) = read_business(&mut input, has_cohorts, has_written, has_numbers)?;
            if let Some((_, portfolio)) = &business.portfolio {
                engine.portfolios.put(portfolio, &name, true);
            }
            engine.businesses.insert(name, business);
        }
        engine.settle_numbers();
        input.part("alerts");
        for _ in 0..input.count(4)? {
            let alert = read_alert(&mut input)?;
            engine.alerts.insert(alert.fingerprint.clone(), alert);
        }
        let settled = if has_hours { input.count(4)? } else { 0 };
        for _ in 0..settled {
            let alert = read_alert(&mut input)?;
            engine.settled.insert(alert.fingerprint.clone(), alert);
        }
        input.part("names");
        for _ in 0..input.count(4)? {
            engine.changed.insert(input.text()?);
        }
        for _ in 0..input.count(4)? {
            let name = input.text()?;
            if let Some(business) = engine.businesses.get_mut(&name) {
                business.to_judge = true;
            }
            engine.to_judge.insert(name);
        }
        if has_hours {
            engine.slow = SlowSenders::read(&engine.rules, &mut input, has_cohorts, has_written)?;
        }
        engine.read_written(&mut input, has_written)?;
        if magic > *MAGIC_BEFORE_MAKERS {
            engine.read_days(&mut input)?;
        }
        engine.read_voices(&mut input, magic > *MAGIC_BEFORE_VOICES)?;
        if magic > *MAGIC_BEFORE_TOLD {
            engine.slow.read_told(&mut input)?;
        }
        if magic > *MAGIC_BEFORE_TEMPLATES {
            engine.templates = Catalogue::read(&mut input)?;
        }
        if magic > *MAGIC_BEFORE_EVIDENCE {
            input.part("what was tested");
            engine.slow.read_tested(&mut input)?;
            engine.tested = Tested::read(&mut input)?;
        } else if engine.newest_ms > i64::MIN {
            let next = EpochId::of(engine.newest_ms).0.saturating_add(1);
            engine.slow.begin_counting(next);
            engine.tested.begin(next);
        }
        input.end()?;
        Ok(engine)
    }

    /// Who created groups, and which groups are on a list.
    fn save_days(&self, out: &mut Writer) {
        let mut makers: Vec<_> = self.makers.iter().collect();
        makers.sort_unstable_by_key(|(person, _)| **person);
        out.count(makers.len());
        for (person, maker) in makers {
            out.0.extend_from_slice(person);
            out.i32(maker.epoch);
            out.u32(maker.touched);
            out.u8(u8::from(maker.is_new));
            maker.hours.iter().for_each(|groups| out.0.extend_from_slice(&groups.to_le_bytes()));
        }
        let mut listed: Vec<_> = self.listed.iter().collect();
        listed.sort_unstable_by_key(|(group, _)| **group);
        out.count(listed.len());
        for (group, kept) in listed {
            out.0.extend_from_slice(group);
            out.i32(kept.epoch);
            out.u32(kept.touched);
            out.i64(kept.first_ms);
            out.i64(kept.last_ms);
            out.count(kept.hits.len());
            for ((field, label), often) in &kept.hits {
                out.u8(field.code());
                out.bytes(label.as_bytes());
                out.u32(*often);
            }
        }
    }

    fn read_days(&mut self, input: &mut Reader<'_>) -> Result<(), IntegrityError> {
        input.part("makers");
        for _ in 0..input.count(25 + 2 * HOURS)? {
            let person = input.array()?;
            let mut maker = Maker { epoch: input.i32()?, touched: input.u32()?, ..Maker::default() };
            maker.is_new = match input.u8()? {
                0 => false,
                1 => true,
                _ => return Err(IntegrityError::Snapshot("makers")),
            };
            for groups in &mut maker.hours {
                *groups = u16::from_le_bytes(input.array()?);
            }
            self.makers.insert(person, maker);
        }
        input.part("listed groups");
        let wrong = || IntegrityError::Snapshot("listed groups");
        for _ in 0..input.count(44)? {
            let group = input.array()?;
            let mut kept = Listed { epoch: input.i32()?, touched: input.u32()?, ..Listed::default() };
            (kept.first_ms, kept.last_ms) = (input.i64()?, input.i64()?);
            let hits = input.count(9)?;
            if hits > MOST_HITS {
                return Err(wrong());
            }
            for _ in 0..hits {
                let field = ProfileField::from_code(input.u8()?).ok_or_else(wrong)?;
                let label = input.text()?;
                kept.hits.insert((field, label.into()), input.u32()?);
            }
            self.listed.insert(group, kept);
        }
        Ok(())
    }

    /// Whose blocks and reports are, of the days on which there were any.
    fn save_voices(&self, out: &mut Writer) {
        let mut days: Vec<_> = self.businesses.iter().flat_map(|(name, of)| of.days.iter().map(move |day| (name, day))).collect();
        days.retain(|(_, day)| day.voices != Voices::default());
        days.sort_unstable_by_key(|(name, day)| (name.as_str(), day.day));
        out.count(days.len());
        for (name, day) in days {
            out.bytes(name.as_bytes());
            out.i32(day.day);
            let voices = &day.voices;
            [voices.unknown, voices.unknown_quarters, voices.quarters, voices.several, voices.many]
                .iter()
                .for_each(|n| out.u32(*n));
            out.count(voices.heard.len());
            for heard in &voices.heard {
                out.u8(heard.bucket);
                out.0.extend_from_slice(&heard.voices.to_le_bytes());
                out.0.extend_from_slice(&heard.quarters.to_le_bytes());
            }
        }
        let mut groups: Vec<_> = self.groups.iter().filter(|(_, kept)| !kept.hours.reports.0.is_empty()).collect();
        groups.sort_unstable_by_key(|(group, _)| **group);
        out.count(groups.len());
        for (group, kept) in groups {
            out.0.extend_from_slice(group);
            out.count(kept.hours.reports.0.len());
            for told in &kept.hours.reports.0 {
                out.i32(told.pane);
                [told.bucket, told.voices, told.quarters].iter().for_each(|n| out.0.extend_from_slice(&n.to_le_bytes()));
            }
        }
    }

    fn read_voices(&mut self, input: &mut Reader<'_>, is_there: bool) -> Result<(), IntegrityError> {
        if !is_there {
            for day in self.businesses.values_mut().flat_map(|business| &mut business.days) {
                day.voices = Voices::of_nobody_known(day.objections.saturating_sub(day.young));
            }
            for hours in self.groups.values_mut().map(|group| &mut group.hours) {
                for pane in &hours.panes {
                    (0..pane.reported).for_each(|_| hours.reports.hear(pane.index, None, WHOLE));
                }
            }
            return Ok(());
        }
        input.part("voices");
        let wrong = || IntegrityError::Snapshot("voices");
        for _ in 0..input.count(32)? {
            let (name, of) = (input.text()?, input.i32()?);
            let business = self.businesses.get_mut(&name).ok_or_else(wrong)?;
            let day = business.days.iter_mut().find(|day| day.day == of).ok_or_else(wrong)?;
            let (unknown, unknown_quarters) = (input.u32()?, input.u32()?);
            let (quarters, several, many) = (input.u32()?, input.u32()?, input.u32()?);
            let buckets = input.count(5)?;
            if buckets > BUCKETS {
                return Err(wrong());
            }
            let mut heard = Vec::with_capacity(buckets);
            for _ in 0..buckets {
                let bucket = input.u8()?;
                let (voices, quarters) = (u16::from_le_bytes(input.array()?), u16::from_le_bytes(input.array()?));
                heard.push(Heard { bucket, voices, quarters });
            }
            if !heard.is_sorted_by(|a, b| a.bucket < b.bucket) {
                return Err(wrong());
            }
            day.voices = Voices { heard, unknown, unknown_quarters, quarters, several, many };
        }
        for _ in 0..input.count(20)? {
            let group = self.groups.get_mut(&input.array::<16>()?).ok_or_else(wrong)?;
            for _ in 0..input.count(10)? {
                let pane = input.i32()?;
                let mut number = || input.array().map(u16::from_le_bytes);
                group.hours.reports.0.push(Told { pane, bucket: number()?, voices: number()?, quarters: number()? });
            }
            if !group.hours.reports.is_in_order() {
                return Err(wrong());
            }
        }
        Ok(())
    }

    /// Facts that wait to be kept, and which written rules judged what there is.
    fn save_written(&self, out: &mut Writer) -> Result<(), IntegrityError> {
        out.i64(i64::try_from(self.vectors_taken).unwrap_or(i64::MAX));
        let mut vectors = self.vectors.clone();
        for fact in Fact::ALL {
            out.bytes(&vectors.encode(fact)?);
        }
        let rules = self.rules.written.rules();
        out.count(rules.len());
        for rule in rules {
            out.bytes(rule.first_name().as_bytes());
            out.0.extend_from_slice(rule.digest());
        }
        Ok(())
    }

    fn read_written(&mut self, input: &mut Reader<'_>, is_there: bool) -> Result<(), IntegrityError> {
        let mut judged = BTreeSet::new();
        if is_there {
            input.part("facts");
            self.vectors_taken = u64::try_from(input.i64()?).map_err(|_| IntegrityError::Snapshot("facts"))?;
            for fact in Fact::ALL {
                self.vectors.decode(fact, input.bytes()?).map_err(|_| IntegrityError::Snapshot("facts"))?;
            }
            input.part("rules");
            for _ in 0..input.count(20)? {
                judged.insert((input.text()?, input.array::<16>()?));
            }
        }
        let rules = self.rules.written.rules();
        if !rules.iter().all(|rule| judged.contains(&(rule.first_name().to_owned(), *rule.digest()))) {
            self.judge_anew();
        }
        Ok(())
    }

    /// Has all windows judged that are still counted, but for days so old that alerts on them have been forgotten.
    fn judge_anew(&mut self) {
        let oldest = self.newest_ms.saturating_sub(KEEP_ALERTS_MS);
        for (name, business) in &mut self.businesses {
            for day in business.days.iter_mut().filter(|day| day.last_ms >= oldest) {
                day.to_judge = true;
                if !std::mem::replace(&mut business.to_judge, true) {
                    self.to_judge.insert(name.clone());
                }
            }
        }
        for (group, kept) in &mut self.groups {
            if !std::mem::replace(&mut kept.to_judge, true) {
                self.groups_to_judge.insert(*group);
            }
        }
    }
}

fn write_alert(out: &mut Writer, alert: &Alert) -> Result<(), IntegrityError> {
    let json = serde_json::to_vec(alert).map_err(|_| IntegrityError::Json { rule: alert.rule.clone() })?;
    out.bytes(&json);
    Ok(())
}

fn read_alert(input: &mut Reader<'_>) -> Result<Alert, IntegrityError> {
    serde_json::from_slice(input.bytes()?).map_err(|_| IntegrityError::Snapshot("alerts"))
}

fn write_hours(out: &mut Writer, group: &Group) {
    out.u8(u8::from(group.to_judge) | u8::from(group.has_alert) << 1 | u8::from(group.to_keep) << 2);
    out.count(group.hours.panes.len());
    for pane in &group.hours.panes {
        out.i32(pane.index);
        [pane.added, pane.joined, pane.left, u32::from(pane.reported) << 1 | u32::from(pane.created)]
            .iter()
            .for_each(|n| out.u32(*n));
    }
}

fn read_hours(input: &mut Reader<'_>, group: &mut Group) -> Result<(), IntegrityError> {
    let wrong = || IntegrityError::Snapshot("groups");
    let flags = input.u8()?;
    let count = input.count(20)?;
    if flags > 7 || count > hours::MOST_PANES {
        return Err(wrong());
    }
    let mut panes = Vec::with_capacity(count);
    for _ in 0..count {
        let index = input.i32()?;
        let (added, joined, left, packed) = (input.u32()?, input.u32()?, input.u32()?, input.u32()?);
        let reported = u16::try_from(packed >> 1).map_err(|_| wrong())?;
        panes.push(hours::Pane { index, added, joined, left, reported, created: packed & 1 == 1 });
    }
    if !panes.is_sorted_by(|a, b| a.index < b.index) {
        return Err(wrong());
    }
    group.hours = Hours { panes, ..Hours::default() };
    (group.to_judge, group.has_alert, group.to_keep) = (flags & 1 == 1, flags & 2 == 2, flags & 4 == 4);
    Ok(())
}

fn write_business(out: &mut Writer, name: &str, business: &Business) {
    out.bytes(name.as_bytes());
    out.u8(business.tier);
    out.count(business.days.len());
    for day in &business.days {
        out.i32(day.day);
        out.0.extend_from_slice(day.reach.registers.as_slice());
        [day.sent, day.replied, day.objections, day.reported, day.unfounded]
            .iter()
            .chain(&day.by_category)
            .for_each(|n| out.u32(*n));
        [day.young, day.young_reported].iter().for_each(|n| out.u32(*n));
        out.i64(day.first_ms);
        out.i64(day.last_ms);
        out.u8(u8::from(day.to_judge) | u8::from(day.to_keep) << 1 | u8::from(day.has_alert) << 2);
    }
    out.count(business.history.len());
    for past in &business.history {
        out.i32(past.day);
        [past.people, past.objections].iter().chain(&past.by_category).for_each(|n| out.u32(*n));
    }
    out.i32(business.first_day.unwrap_or(i32::MAX));
    let (newest_ms, portfolio) = business.portfolio.as_ref().map_or((i64::MIN, ""), |(newest_ms, name)| (*newest_ms, &**name));
    out.i64(newest_ms);
    out.bytes(portfolio.as_bytes());
}

fn read_business(
    input: &mut Reader<'_>,
    has_unfounded: bool,
    has_flags: bool,
    has_numbers: bool,
) -> Result<(String, Business), IntegrityError> {
    let name = input.text()?;
    let mut business = Business { tier: input.u8()?, ..Business::default() };
    for _ in 0..input.count(REGISTERS)? {
        let mut day = Day { day: input.i32()?, reach: Reach { registers: Box::new(input.array()?) }, ..Day::default() };
        (day.sent, day.replied, day.objections) = (input.u32()?, input.u32()?, input.u32()?);
        if has_unfounded {
            (day.reported, day.unfounded) = (input.u32()?, input.u32()?);
        }
        for slot in &mut day.by_category {
            *slot = input.u32()?;
        }
        if has_numbers {
            (day.young, day.young_reported) = (input.u32()?, input.u32()?);
        }
        (day.first_ms, day.last_ms) = (input.i64()?, input.i64()?);
        let flags = if has_flags { input.u8()? } else { 2 };
        if flags > 7 {
            return Err(IntegrityError::Snapshot("businesses"));
        }
        (day.to_judge, day.to_keep, day.has_alert) = (flags & 1 == 1, flags & 2 == 2, flags & 4 == 4);
        business.days.push(day);
    }
    for _ in 0..input.count(8)? {
        let mut past = Past { day: input.i32()?, people: input.u32()?, ..Past::default() };
        if has_numbers {
            past.objections = input.u32()?;
            for slot in &mut past.by_category {
                *slot = input.u32()?;
            }
        }
        business.history.push(past);
    }
    if has_numbers {
        business.first_day = Some(input.i32()?).filter(|day| *day < i32::MAX);
        let newest_ms = input.i64()?;
        business.portfolio = Some((newest_ms, input.text()?.into())).filter(|(_, name): &(i64, Box<str>)| !name.is_empty());
    } else {
        let days = business.history.iter().map(|past| past.day).chain(business.days.iter().map(|day| day.day));
        business.first_day = days.min();
    }
    Ok((name, business))
}
