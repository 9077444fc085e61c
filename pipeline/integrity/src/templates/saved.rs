//! Templates in saved state.

use super::{Catalogue, Hour, Known, MOST_KNOWN, MOST_TESTED, Templates, Tested};
use crate::IntegrityError;
use crate::codec::{Reader, Writer};

/// Bytes of an hour.
const HOUR_BYTES: usize = 36;
/// More hours are in no test: a day's, and those before the first message.
const MOST_HOURS: usize = 24 + super::HOURS_BEFORE.unsigned_abs() as usize;

impl Catalogue {
    pub(crate) fn save(&self, out: &mut Writer) {
        out.i32(self.since.unwrap_or(i32::MAX));
        let mut all: Vec<_> = self.of.iter().collect();
        all.sort_unstable_by_key(|(name, _)| name.as_str());
        out.count(all.len());
        for (name, templates) in all {
            out.bytes(name.as_bytes());
            out.count(templates.known.len());
            for known in &templates.known {
                out.0.extend_from_slice(&known.id);
                out.i32(known.day);
            }
            out.count(templates.tested.len());
            templates.tested.iter().for_each(|tested| save_tested(out, tested));
        }
    }

    /// # Errors
    /// [`IntegrityError::Snapshot`].
    pub(crate) fn read(input: &mut Reader<'_>) -> Result<Self, IntegrityError> {
        input.part("templates");
        let wrong = || IntegrityError::Snapshot("templates");
        let mut read = Self { since: Some(input.i32()?).filter(|day| *day < i32::MAX), ..Self::default() };
        for _ in 0..input.count(12)? {
            let name = input.text()?;
            let mut templates = Templates::default();
            for _ in 0..input.count(12)? {
                templates.known.push(Known { id: input.array()?, day: input.i32()? });
            }
            for _ in 0..input.count(24)? {
                templates.tested.push(read_tested(input)?);
            }
            let is_sorted =
                templates.known.is_sorted_by(|a, b| a.id < b.id) && templates.tested.is_sorted_by(|a, b| a.name < b.name);
            if !is_sorted || templates.known.len() > MOST_KNOWN || templates.tested.len() > MOST_TESTED {
                return Err(wrong());
            }
            read.of.insert(name, templates);
        }
        Ok(read)
    }
}

fn save_tested(out: &mut Writer, tested: &Tested) {
    out.bytes(tested.name.as_bytes());
    out.i64(tested.first_ms.unwrap_or(i64::MAX));
    out.i32(tested.last_day);
    out.u32(tested.touched);
    out.count(tested.hours.len());
    for hour in &tested.hours {
        out.i32(hour.hour);
        hour.by_category.iter().for_each(|n| out.u32(*n));
        let feedback = [hour.blocks, hour.reports, hour.young_blocks, hour.young_reports];
        feedback.iter().for_each(|n| out.0.extend_from_slice(&n.to_le_bytes()));
        out.u32(hour.last_ms);
    }
}

fn read_tested(input: &mut Reader<'_>) -> Result<Tested, IntegrityError> {
    let mut tested = Tested { name: input.text()?.into(), ..Tested::default() };
    tested.first_ms = Some(input.i64()?).filter(|first| *first < i64::MAX);
    (tested.last_day, tested.touched) = (input.i32()?, input.u32()?);
    for _ in 0..input.count(HOUR_BYTES)? {
        let mut hour = Hour { hour: input.i32()?, ..Hour::default() };
        for slot in &mut hour.by_category {
            *slot = input.u32()?;
        }
        for slot in [&mut hour.blocks, &mut hour.reports, &mut hour.young_blocks, &mut hour.young_reports] {
            *slot = u16::from_le_bytes(input.array()?);
        }
        hour.last_ms = input.u32()?;
        tested.hours.push(hour);
    }
    if tested.hours.len() > MOST_HOURS || !tested.hours.is_sorted_by(|a, b| a.hour < b.hour) {
        return Err(IntegrityError::Snapshot("templates"));
    }
    Ok(tested)
}
