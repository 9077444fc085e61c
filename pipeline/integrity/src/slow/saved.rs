//! The detector as bytes. Equal detectors give equal bytes.

use starling_schemas::ids::PartitionId;

use super::cohorts::{Cohort, Cohorts, Crowd, Member};
use super::filter::{PairFilter, Slice, words};
use super::parts::{LOOKED_AT, LateAnswer, OWNER, Pool, Reached, Screened, Segment, Suspect, Waiting};
use super::{CopyOf, Crossing, HOUR_MS, PAIR_LIFE_DAYS, Pair, SCREEN_SLOTS, STEP_MS, SlowSenders, seconds};
use crate::IntegrityError;
use crate::codec::{Reader, Writer};
use crate::evidence::{Counts, EValue};
use crate::rules::Rules;

/// The bits of an owner's place before there were cohorts.
const OWNER_BEFORE: u32 = (1 << 28) - 1;

fn write_pair(out: &mut Writer, pair: Pair) {
    out.0.extend_from_slice(&pair.0.to_le_bytes());
}

fn read_pair(input: &mut Reader<'_>) -> Result<Pair, IntegrityError> {
    input.array().map(|b| Pair(u64::from_le_bytes(b)))
}

impl SlowSenders {
    /// Writes everything, also crossings that nobody took yet.
    pub(crate) fn save(&self, out: &mut Writer) {
        let core = &self.core;
        [core.newest_ms, core.judged_step].iter().for_each(|v| out.i64(*v));
        out.u32(core.sweep);
        out.i32(core.pool_day);
        for counted in [core.dropped, core.late] {
            out.0.extend_from_slice(&counted.to_le_bytes());
        }
        for pool in &core.pools {
            [pool.contacts, pool.answered, pool.soon, u32::from(pool.p0_permille)].iter().for_each(|v| out.u32(*v));
        }
        [core.soon.0, core.soon.1].iter().for_each(|v| out.u32((*v).into()));
        out.count(core.origins.len());
        for (origin, reached) in &core.origins {
            out.bytes(origin.source.as_bytes());
            out.i32(origin.partition);
            out.i64(reached.newest_ms);
            out.u32(reached.touched);
        }
        out.count(core.filters.len());
        for (epoch, filter) in &core.filters {
            out.i32(*epoch);
            out.count(filter.slices.len());
            for slice in &filter.slices {
                out.u32(slice.pairs);
                slice.words.iter().for_each(|w| out.0.extend_from_slice(&w.to_le_bytes()));
            }
        }
        // Of earlier days' pseudonyms nothing comes any more.
        let newest = core.screen.iter().map(|s| s.epoch).max().unwrap_or_default();
        let screened = || core.screen.iter().zip(0_u32..).filter(|(s, _)| s.count > 0 && s.epoch >= newest - 1);
        out.count(screened().count());
        for (slot, place) in screened() {
            out.u32(place);
            out.0.extend_from_slice(&slot.tag.to_le_bytes());
            out.i32(slot.epoch);
            out.u32(slot.count);
        }
        let mut suspects: Vec<(&Suspect, usize)> =
            core.suspects.iter().enumerate().filter_map(|(place, s)| s.as_ref().map(|s| (s, place))).collect();
        suspects.sort_unstable_by_key(|(s, _)| s.person);
        let mut ranks = vec![OWNER; core.suspects.len()];
        out.count(suspects.len());
        for ((s, place), rank) in suspects.into_iter().zip(0_u32..) {
            if let Some(slot) = ranks.get_mut(place) {
                *slot = rank;
            }
            out.0.extend_from_slice(&s.person);
            out.0.extend_from_slice(&s.before);
            [s.epoch, s.score].iter().for_each(|v| out.i32(*v));
            let counters = [s.unanswered, s.answered, s.fresh, s.first_s, u32::from(s.since_minute), u32::from(s.p0_permille)];
            counters.iter().for_each(|v| out.u32(*v));
        }
        let mut waiting: Vec<(Pair, Waiting)> = core.waiting.iter().map(|(p, w)| (*p, *w)).collect();
        waiting.sort_unstable_by_key(|(p, _)| *p);
        out.count(waiting.len());
        for (pair, w) in waiting {
            write_pair(out, pair);
            out.u32(w.at_s);
            let rank = w.owner().and_then(|o| ranks.get(o)).copied().unwrap_or(OWNER);
            out.u32(w.packed & !OWNER | rank);
        }
        out.count(core.copies.len());
        for (pair, copy) in &core.copies {
            write_pair(out, *pair);
            out.0.extend_from_slice(&copy.person);
            out.u8(copy.cohort.is_some().into());
            out.0.extend_from_slice(&copy.cohort.unwrap_or_default());
            out.u32(copy.at_s);
        }
        out.count(core.found.len());
        for c in &core.found {
            out.0.extend_from_slice(&c.person);
            [c.epoch, c.score].iter().for_each(|v| out.i32(*v));
            [c.unanswered, c.answered, u32::from(c.expected_permille), c.segment as u32].iter().for_each(|v| out.u32(*v));
            [c.first_ms, c.last_ms].iter().for_each(|v| out.i64(*v));
        }
        save_cohorts(&core.cohorts, out);
        let mut late: Vec<_> = core.late_answers.iter().map(|(pair, late)| (*pair, *late)).collect();
        late.sort_unstable_by_key(|(pair, _)| *pair);
        out.count(late.len());
        for (pair, late) in late {
            write_pair(out, pair);
            out.u32(late.at_s);
            out.u8(late.is_counted.into());
        }
    }

    /// Writes under which names members of cohorts were told.
    pub(crate) fn save_told(&self, out: &mut Writer) {
        let told = &self.core.cohorts.told.0;
        out.count(told.len());
        for (person, names) in told {
            out.0.extend_from_slice(person);
            out.count(names.len());
            for (name, epoch) in names {
                out.0.extend_from_slice(name);
                out.i32(*epoch);
            }
        }
    }

    /// Reads what [`Self::save_told`] wrote.
    pub(crate) fn read_told(&mut self, input: &mut Reader<'_>) -> Result<(), IntegrityError> {
        input.part("names that were told");
        for _ in 0..input.count(20)? {
            let person = input.array()?;
            let names =
                (0..input.count(20)?).map(|_| Ok((input.array()?, input.i32()?))).collect::<Result<_, IntegrityError>>()?;
            self.core.cohorts.told.0.insert(person, names);
        }
        Ok(())
    }

    /// Writes how many were tested, and e-values of members of cohorts that nobody took yet.
    pub(crate) fn save_tested(&self, out: &mut Writer) {
        let core = &self.core;
        [&core.trials, &core.cohorts.tested].iter().for_each(|counts| counts.save(out));
        out.count(core.cohorts.found.len());
        for crowd in &core.cohorts.found {
            out.u8(crowd.e_value.is_some().into());
            out.i32(crowd.e_value.map_or(0, EValue::deci));
        }
    }

    /// Reads what [`Self::save_tested`] wrote, after [`Self::read`].
    pub(crate) fn read_tested(&mut self, input: &mut Reader<'_>) -> Result<(), IntegrityError> {
        let core = &mut self.core;
        (core.trials, core.cohorts.tested) = (Counts::read(input)?, Counts::read(input)?);
        if input.count(5)? != core.cohorts.found.len() {
            return Err(IntegrityError::Snapshot("what was tested"));
        }
        for crowd in &mut core.cohorts.found {
            let is_there = input.u8()? != 0;
            crowd.e_value = Some(EValue::of_deci(input.i32()?)).filter(|_| is_there);
        }
        Ok(())
    }

    /// Reads what [`Self::save`] wrote, under the rules of now; `has_cohorts` and `has_late`: whether it knew cohorts when it wrote, and late answers to
    /// their members.
    pub(crate) fn read(rules: &Rules, input: &mut Reader<'_>, has_cohorts: bool, has_late: bool) -> Result<Self, IntegrityError> {
        const WRONG: IntegrityError = IntegrityError::Snapshot("slow senders");
        let mut slow = Self::new(rules.slow_bulk.clone(), rules.coordinated_senders.clone());
        let core = &mut slow.core;
        input.part("slow senders");
        (core.newest_ms, core.judged_step) = (input.i64()?, input.i64()?);
        if !has_cohorts {
            // It was judged by the hour.
            core.judged_step = core.judged_step.saturating_mul(HOUR_MS / STEP_MS);
        }
        (core.sweep, core.pool_day) = (input.u32()?, input.i32()?);
        core.dropped = u64::from_le_bytes(input.array()?);
        core.late = u64::from_le_bytes(input.array()?);
        for pool in &mut core.pools {
            let (contacts, answered) = (input.u32()?, input.u32()?);
            let soon = if has_cohorts { input.u32()? } else { 0 };
            let p0 = u16::try_from(input.u32()?).map_err(|_| WRONG)?;
            *pool = Pool { contacts, answered, soon, p0_permille: p0 };
        }
        if has_cohorts {
            let mut short = || u16::try_from(input.u32()?).map_err(|_| WRONG);
            core.soon = (short()?, short()?);
        }
        for _ in 0..input.count(20)? {
            let origin = PartitionId { source: input.text()?, partition: input.i32()? };
            core.origins.insert(origin, Reached { newest_ms: input.i64()?, touched: input.u32()? });
        }
        for _ in 0..input.count(8)? {
            let epoch = input.i32()?;
            let mut filter = PairFilter::default();
            for place in 0..input.count(4)? {
                let pairs = input.u32()?;
                let length = words(place).ok_or(WRONG)?;
                let words = (0..length).map(|_| input.array().map(u64::from_le_bytes)).collect::<Result<_, _>>()?;
                filter.slices.push(Slice { words, pairs });
            }
            core.filters.insert(epoch, filter);
        }
        for _ in 0..input.count(20)? {
            let place = usize::try_from(input.u32()?).map_err(|_| WRONG)?;
            let slot = Screened { tag: u64::from_le_bytes(input.array()?), epoch: input.i32()?, count: input.u32()? };
            *core.screen.get_mut(place).ok_or(WRONG)? = slot;
        }
        let short = |v: u32| u16::try_from(v).map_err(|_| WRONG);
        let suspects = input.count(64)?;
        for rank in 0..u32::try_from(suspects).map_err(|_| WRONG)? {
            let (person, before, epoch) = (input.array()?, input.array()?, input.i32()?);
            let score = input.i32()?;
            let (unanswered, answered, fresh) = (input.u32()?, input.u32()?, input.u32()?);
            let (first_s, since_minute, p0_permille) = (input.u32()?, short(input.u32()?)?, short(input.u32()?)?);
            let suspect =
                Suspect { person, before, epoch, score, unanswered, answered, fresh, first_s, since_minute, p0_permille };
            core.places.insert(suspect.person, rank);
            core.suspects.push(Some(suspect));
        }
        for _ in 0..input.count(16)? {
            let (pair, mut w) = (read_pair(input)?, Waiting { at_s: input.u32()?, packed: input.u32()? });
            if !has_cohorts {
                // Two bits of the place had no other meaning yet.
                let owner = w.packed & OWNER_BEFORE;
                w.packed = w.packed & !OWNER_BEFORE | LOOKED_AT | if owner == OWNER_BEFORE { OWNER } else { owner };
            }
            if w.owner().is_some_and(|o| o >= suspects) {
                return Err(WRONG);
            }
            core.waiting.insert(pair, w);
        }
        for _ in 0..input.count(24)? {
            let (pair, person) = (read_pair(input)?, input.array()?);
            let mut copy = CopyOf { person, cohort: None, at_s: seconds(core.newest_ms) };
            if has_cohorts {
                let (is_there, cohort) = (input.u8()? != 0, input.array()?);
                copy = CopyOf { cohort: is_there.then_some(cohort), at_s: input.u32()?, ..copy };
            }
            core.copies.insert(pair, copy);
        }
        for _ in 0..input.count(56)? {
            let (person, epoch, score) = (input.array()?, input.i32()?, input.i32()?);
            let (unanswered, answered, expected) = (input.u32()?, input.u32()?, input.u32()?);
            let segment = Segment::from_bits(input.u32()?);
            let (expected_permille, first_ms, last_ms) =
                (u16::try_from(expected).map_err(|_| WRONG)?, input.i64()?, input.i64()?);
            let crossing = Crossing { person, epoch, unanswered, answered, expected_permille, segment, score, first_ms, last_ms };
            core.found.push(crossing);
        }
        if has_cohorts {
            read_cohorts(&mut core.cohorts, input, has_late)?;
        }
        if has_late {
            for _ in 0..input.count(13)? {
                let (pair, at_s) = (read_pair(input)?, input.u32()?);
                core.late_answers.insert(pair, LateAnswer { at_s, is_counted: input.u8()? != 0 });
            }
        }
        if core.places.len() != suspects || core.filters.len() > PAIR_LIFE_DAYS as usize || core.screen.len() != SCREEN_SLOTS {
            return Err(WRONG);
        }
        Ok(slow)
    }
}

fn save_cohorts(cohorts: &Cohorts, out: &mut Writer) {
    out.i32(cohorts.day);
    out.u32(cohorts.next);
    let mut names: Vec<_> = cohorts.names.iter().collect();
    names.sort_unstable_by_key(|(name, _)| **name);
    out.count(names.len());
    for (name, (number, epoch)) in names {
        out.0.extend_from_slice(name);
        out.u32(*number);
        out.i32(*epoch);
    }
    out.count(cohorts.all.len());
    for (number, cohort) in &cohorts.all {
        // Of no other: of itself.
        // Its counters are its members'.
        [*number, cohort.into.unwrap_or(*number)].iter().for_each(|v| out.u32(*v));
        out.i32(cohort.epoch);
        out.u8(cohort.has_fired.into());
    }
    let mut members: Vec<_> = cohorts.members.iter().collect();
    members.sort_unstable_by_key(|(person, _)| **person);
    out.count(members.len());
    for (person, m) in members {
        out.0.extend_from_slice(person);
        out.i32(m.epoch);
        let counters = [m.contacts, m.soon, m.answered].map(u32::from);
        [m.cohort, m.first_s, m.last_s].iter().chain(&counters).for_each(|v| out.u32(*v));
    }
    out.count(cohorts.joined.len());
    for ((before, now), at_s) in &cohorts.joined {
        out.0.extend_from_slice(before);
        out.0.extend_from_slice(now);
        out.u32(*at_s);
    }
    out.count(cohorts.found.len());
    for c in &cohorts.found {
        out.0.extend_from_slice(&c.person);
        out.i32(c.epoch);
        let counters =
            [c.contacts, c.answered, c.members, c.evident, c.rate_permille.into(), c.usual_centi, c.own_chance_permille.into()];
        counters.iter().for_each(|v| out.u32(*v));
        [c.first_ms, c.last_ms].iter().for_each(|v| out.i64(*v));
        out.u8(if c.is_silent { 2 } else { c.stands.into() });
    }
}

fn read_cohorts(cohorts: &mut Cohorts, input: &mut Reader<'_>, has_late: bool) -> Result<(), IntegrityError> {
    const WRONG: IntegrityError = IntegrityError::Snapshot("cohorts");
    let short = |v: u32| u16::try_from(v).map_err(|_| WRONG);
    input.part("cohorts");
    (cohorts.day, cohorts.next) = (input.i32()?, input.u32()?);
    for _ in 0..input.count(24)? {
        cohorts.names.insert(input.array()?, (input.u32()?, input.i32()?));
    }
    for _ in 0..input.count(13)? {
        let (number, into) = (input.u32()?, input.u32()?);
        let into = Some(into).filter(|into| *into != number);
        let cohort = Cohort { into, epoch: input.i32()?, has_fired: input.u8()? != 0, ..Cohort::default() };
        cohorts.all.insert(number, cohort);
    }
    if !cohorts.has_roots() {
        return Err(WRONG);
    }
    for _ in 0..input.count(44)? {
        let (person, epoch) = (input.array()?, input.i32()?);
        let (cohort, first_s, last_s) = (input.u32()?, input.u32()?, input.u32()?);
        let (contacts, soon, answered) = (short(input.u32()?)?, short(input.u32()?)?, short(input.u32()?)?);
        cohorts.members.insert(person, Member { cohort, epoch, contacts, soon, answered, first_s, last_s });
    }
    cohorts.recount();
    for _ in 0..input.count(36)? {
        let names = (input.array()?, input.array()?);
        cohorts.joined.insert(names, input.u32()?);
    }
    for _ in 0..input.count(64)? {
        let (person, epoch) = (input.array()?, input.i32()?);
        let (contacts, answered, members, evident) = (input.u32()?, input.u32()?, input.u32()?, input.u32()?);
        let (rate_permille, usual_centi, own_chance_permille) = (short(input.u32()?)?, input.u32()?, short(input.u32()?)?);
        let (first_ms, last_ms) = (input.i64()?, input.i64()?);
        let says = if has_late { input.u8()? } else { 1 };
        cohorts.found.push(Crowd {
            person,
            epoch,
            contacts,
            answered,
            members,
            evident,
            rate_permille,
            usual_centi,
            own_chance_permille,
            first_ms,
            last_ms,
            stands: says == 1,
            is_silent: says == 2,
            e_value: None,
        });
    }
    Ok(())
}
