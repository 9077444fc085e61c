//! Saving and restoring all detectors. A restored engine goes on as if nothing had happened.

use starling_schemas::ids::PartitionId;

use crate::IntegrityError;
use crate::businesses::{Business, Day};
use crate::codec::{Reader, Writer};
use crate::engine::Engine;
use crate::groups::{Group, Pane};
use crate::rules::Rules;
use crate::senders::Sender;
use crate::sketch::{REGISTERS, Reach};

const MAGIC: &[u8; 8] = b"STARINT\x01";

impl Engine {
    /// Everything the detectors hold, as bytes. Equal engines give equal bytes.
    ///
    /// # Errors
    /// [`IntegrityError::Json`] when an alert cannot be written.
    pub fn snapshot(&self) -> Result<Vec<u8>, IntegrityError> {
        let mut out = Writer(MAGIC.to_vec());
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
        }
        let mut businesses: Vec<_> = self.businesses.iter().collect();
        businesses.sort_unstable_by_key(|(name, _)| name.as_str());
        out.count(businesses.len());
        for (name, business) in businesses {
            write_business(&mut out, name, business);
        }
        out.count(self.alerts.len());
        for alert in self.alerts.values() {
            let json = serde_json::to_vec(alert).map_err(|_| IntegrityError::Json { rule: alert.rule.clone() })?;
            out.bytes(&json);
        }
        for names in [&self.changed, &self.to_judge] {
            out.count(names.len());
            names.iter().for_each(|n| out.bytes(n.as_bytes()));
        }
        Ok(out.0)
    }

    /// The engine that was saved, under the rules of now.
    ///
    /// # Errors
    /// [`IntegrityError::Snapshot`] names the damaged part.
    pub fn restore(rules: Rules, snapshot: &[u8]) -> Result<Self, IntegrityError> {
        let mut input = Reader::new(snapshot);
        if input.array::<8>()? != *MAGIC {
            return Err(IntegrityError::Snapshot("version"));
        }
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
            engine.groups.insert(group, Group { panes, epoch, touched });
        }
        input.part("businesses");
        for _ in 0..input.count(13)? {
            let (name, business) = read_business(&mut input)?;
            engine.businesses.insert(name, business);
        }
        input.part("alerts");
        for _ in 0..input.count(4)? {
            let alert: crate::Alert = serde_json::from_slice(input.bytes()?).map_err(|_| IntegrityError::Snapshot("alerts"))?;
            engine.alerts.insert(alert.fingerprint.clone(), alert);
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
        input.end()?;
        Ok(engine)
    }
}

fn write_business(out: &mut Writer, name: &str, business: &Business) {
    out.bytes(name.as_bytes());
    out.u8(business.tier);
    out.count(business.days.len());
    for day in &business.days {
        out.i32(day.day);
        out.0.extend_from_slice(day.reach.registers.as_slice());
        [day.sent, day.replied, day.objections].iter().chain(&day.by_category).for_each(|n| out.u32(*n));
        out.i64(day.first_ms);
        out.i64(day.last_ms);
    }
    out.count(business.history.len());
    for (day, people) in &business.history {
        out.i32(*day);
        out.u32(*people);
    }
}

fn read_business(input: &mut Reader<'_>) -> Result<(String, Business), IntegrityError> {
    let name = input.text()?;
    let mut business = Business { tier: input.u8()?, ..Business::default() };
    for _ in 0..input.count(REGISTERS)? {
        let mut day = Day { day: input.i32()?, reach: Reach { registers: Box::new(input.array()?) }, ..Day::default() };
        (day.sent, day.replied, day.objections) = (input.u32()?, input.u32()?, input.u32()?);
        for slot in &mut day.by_category {
            *slot = input.u32()?;
        }
        (day.first_ms, day.last_ms) = (input.i64()?, input.i64()?);
        business.days.push(day);
    }
    for _ in 0..input.count(8)? {
        business.history.push((input.i32()?, input.u32()?));
    }
    Ok((name, business))
}
