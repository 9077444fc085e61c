//! Who created groups, without the groups: what is counted of an account that makes them by the dozen.
//!
//! # Privacy
//! A row must not join a person and a group (I5, P6), so the signal of a created group has no person, and that of its maker no group. Nothing else may lead
//! from one to the other either: a maker's row has the start of its hour for a time, of the account's age one bit, and stands behind the rows of all other
//! events, in the order of pseudonyms, which is that of no event.
//!
//! What stays: a range in which one group was created has one maker. Who reads the signals of a deployment that is so small, or so quiet, that few groups
//! are created in a range, knows that the few groups of the range were made by its few makers. A range is what came within `ingest.linger_ms`, or as much
//! as is taken at once: who runs something small makes that longer, or gives nobody the signals.

use starling_schemas::codes::SignalKind;
use starling_schemas::ids::{EpochId, HOUR_MS, Integrity};

use crate::MinimizeError;
use crate::keys::{KeySource, OpenKeys};
use crate::output::{Person, SignalColumns, SignalRow};
use crate::phone::Phone;

/// One group that somebody made, until the range ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Made {
    /// Set when the range ends.
    person: [u8; 16],
    /// Start of the hour, in milliseconds since 1970-01-01 UTC.
    hour_ms: i64,
    is_new_account: bool,
    place: usize,
}

/// The makers of one range.
pub(crate) struct Makers {
    keys: OpenKeys<Integrity>,
    people: Person<Integrity>,
    made: Vec<Made>,
}

impl Makers {
    pub(crate) fn new() -> Self {
        Self { keys: OpenKeys::new(), people: Person::default(), made: Vec::new() }
    }

    /// Forgets everything but how much room it took.
    pub(crate) fn clear(&mut self) {
        self.keys.clear();
        self.people.begin(0);
        self.made.clear();
    }

    /// Takes somebody who made a group, unless the day's key has been destroyed.
    pub(crate) fn push(
        &mut self,
        source: &dyn KeySource,
        time_ms: i64,
        person: &Phone,
        is_new_account: bool,
    ) -> Result<(), MinimizeError> {
        let Some(key) = self.keys.get(source, EpochId::of(time_ms), &mut self.people)? else { return Ok(()) };
        let place = self.people.rows();
        key.push_person(person, &mut self.people);
        self.made.push(Made { person: [0; 16], hour_ms: time_ms.div_euclid(HOUR_MS) * HOUR_MS, is_new_account, place });
        Ok(())
    }

    /// Ends the range: writes their rows behind what is there.
    pub(crate) fn finish(&mut self, signals: &mut SignalColumns) -> Result<(), MinimizeError> {
        self.keys.settle(&mut self.people);
        for made in &mut self.made {
            made.person = self.people.value(made.place).ok_or(MinimizeError::Columns)?;
            // The order of events must not show, not even among equals.
            made.place = 0;
        }
        self.made.sort_unstable();
        for made in &self.made {
            signals.push_known(&made.person);
            signals.push(
                &SignalRow {
                    strangers: u32::from(made.is_new_account),
                    ..SignalRow::of(SignalKind::GroupMade, made.hour_ms, EpochId::of(made.hour_ms))
                },
                true,
            )?;
        }
        Ok(())
    }
}
