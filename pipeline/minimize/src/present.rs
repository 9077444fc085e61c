//! Who of a range did something, for weeks and months (P14): a pseudonym under the week's key and one under the month's, and nothing beside it. Where
//! hours are kept, one more under the key of the hour.
//!
//! A person is hashed for them once a range, when its pseudonym of the day is new in it. Whether it is costs a look into a table of the day's
//! pseudonyms, which are uniform and so their own hashes; most events of a busy person need no more than that look. The number itself is taken from the
//! block that was just hashed, before its digits are overwritten.
//!
//! With hours a person is hashed once more for each hour it is there in. The same table knows that: beside the pseudonym stands the pseudonym with the
//! hour in its lowest bits, and it is looked for first, so a busy person's events still need one look. That it is somebody else's is as likely as that
//! two people have one pseudonym.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use starling_schemas::codes::Activity;
use starling_schemas::ids::{
    AnalyticsDay, AnalyticsHour, AnalyticsMonth, AnalyticsWeek, Domain, EpochId, Pseudonym, Span, WindowId,
};

use crate::MinimizeError;
use crate::keyed::{EpochKey, Written};
use crate::keys::KeySource;
use crate::output::{Person, Place, presence};

/// One hour, week or month of a range.
struct Window<D: Domain> {
    id: WindowId,
    /// `None`: destroyed.
    key: Option<EpochKey<D>>,
    people: Person<D>,
}

impl<D: Domain> Window<D> {
    /// Has this window in `windows`, opened if need be.
    fn open(windows: &mut Vec<Self>, source: &dyn KeySource, id: WindowId, room: usize) -> Result<(), MinimizeError> {
        if windows.iter().any(|window| window.id == id) {
            return Ok(());
        }
        let (purpose, epoch) = (D::PURPOSE, id.epoch);
        let key = source
            .pseudonym_key(purpose, epoch)
            .map_err(|source| MinimizeError::KeySource { purpose, epoch, source })?
            .map(|key| EpochKey::open(key, epoch));
        let mut people = Person::default();
        people.begin(room);
        windows.push(Self { id, key, people });
        Ok(())
    }

    fn meet(windows: &mut [Self], id: WindowId, written: &Written) {
        let window = windows.iter_mut().find(|window| window.id == id);
        if let Some(Self { key: Some(key), people, .. }) = window {
            key.push_written(written, people);
        }
    }

    fn finish(windows: &mut Vec<Self>, out: &mut Vec<(WindowId, RecordBatch)>) -> Result<(), MinimizeError> {
        windows.sort_unstable_by_key(|window| window.id);
        for mut window in windows.drain(..) {
            if let Some(key) = &mut window.key {
                key.settle(&mut window.people);
            }
            let rows = presence(window.people)?;
            if rows.num_rows() > 0 {
                out.push((window.id, rows));
            }
        }
        Ok(())
    }
}

/// The people of one range.
#[derive(Default)]
pub(crate) struct Present {
    /// Pseudonyms of their days, and with hours in them. Those of two days are unrelated values, so one table serves all.
    met: HashTable<u128>,
    hours: Vec<Window<AnalyticsHour>>,
    weeks: Vec<Window<AnalyticsWeek>>,
    months: Vec<Window<AnalyticsMonth>>,
    /// The day whose windows are known to be open.
    ready: Option<EpochId>,
    /// The hour that is known to be open, or missed.
    ready_hour: Option<EpochId>,
    /// How many events came too late for which hours.
    missed: BTreeMap<EpochId, u64>,
    /// Most people of a window of the last range: room that the next one's are given at once.
    room: usize,
}

/// Room for a window's people in the first range.
const FIRST_ROOM: usize = 1024;

impl Present {
    /// Forgets all people and keys; the table's room stays.
    pub(crate) fn clear(&mut self) {
        self.met.clear();
        self.hours.clear();
        self.weeks.clear();
        self.months.clear();
        (self.ready, self.ready_hour) = (None, None);
        self.missed.clear();
    }

    /// Opens the week and the month of a day, whose people may then be met.
    #[inline]
    pub(crate) fn ready(&mut self, source: &dyn KeySource, day: EpochId) -> Result<(), MinimizeError> {
        if self.ready == Some(day) {
            return Ok(());
        }
        let room = self.room.max(FIRST_ROOM);
        Window::open(&mut self.weeks, source, Span::Week.of(day), room)?;
        Window::open(&mut self.months, source, Span::Month.of(day), room)?;
        self.ready = Some(day);
        Ok(())
    }

    /// Opens the hour of an event that somebody did, whose people may then be met; or notes that it came too late, where the hour is not one of those
    /// after `after`.
    #[inline]
    pub(crate) fn ready_hour(&mut self, source: &dyn KeySource, hour: EpochId, after: EpochId) -> Result<(), MinimizeError> {
        if hour <= after {
            *self.missed.entry(hour).or_default() += 1;
            return Ok(());
        }
        if self.ready_hour == Some(hour) {
            return Ok(());
        }
        Window::open(&mut self.hours, source, Span::Hour.of(hour), self.room.max(FIRST_ROOM))?;
        self.ready_hour = Some(hour);
        Ok(())
    }

    /// Notes that a person was there on a day, at this hour of it.
    #[inline]
    fn meet(&mut self, day: EpochId, hour: u8, person: Pseudonym<AnalyticsDay>, written: &Written) {
        let person = u128::from_be_bytes(*person.as_bytes());
        if !self.hours.is_empty() {
            // No hour's number is 0, which is the day's own.
            if !self.is_new(person ^ (u128::from(hour) + 1)) {
                return;
            }
            Window::meet(&mut self.hours, Span::Hour.of(day.hour_at(hour)), written);
        }
        if self.is_new(person) {
            Window::meet(&mut self.weeks, Span::Week.of(day), written);
            Window::meet(&mut self.months, Span::Month.of(day), written);
        }
    }

    /// Notes a value, and says whether it was not there before.
    #[inline]
    fn is_new(&mut self, value: u128) -> bool {
        #[allow(clippy::cast_possible_truncation)]
        let uniform = |value: &u128| *value as u64;
        match self.met.entry(uniform(&value), |met| *met == value, uniform) {
            Entry::Occupied(_) => false,
            Entry::Vacant(entry) => {
                entry.insert(value);
                true
            }
        }
    }

    /// How many events came too late for which hours, in order.
    pub(crate) fn missed(&self) -> Vec<(EpochId, u64)> {
        self.missed.iter().map(|(hour, events)| (*hour, *events)).collect()
    }

    /// Hands out who was there, by window; windows with nobody in them are not there. Each person is in a window at most once a day of
    /// it, and in an hour once.
    pub(crate) fn finish(&mut self) -> Result<Vec<(WindowId, RecordBatch)>, MinimizeError> {
        let mut out = Vec::with_capacity(self.hours.len() + self.weeks.len() + self.months.len());
        Window::finish(&mut self.hours, &mut out)?;
        Window::finish(&mut self.weeks, &mut out)?;
        Window::finish(&mut self.months, &mut out)?;
        self.room = out.iter().map(|(_, rows)| rows.num_rows()).max().unwrap_or_default();
        Ok(out)
    }
}

/// Where counted people go: into the column of the clean rows and, unless it was done to them, among those that were there.
pub(crate) struct Counted<'a> {
    pub(crate) person: &'a mut Person<AnalyticsDay>,
    /// Activities of the rows, by place.
    pub(crate) activity: &'a [u8],
    /// Hours of the day of the rows, by place.
    pub(crate) hour: &'a [u8],
    pub(crate) present: &'a mut Present,
}

impl Place<AnalyticsDay> for Counted<'_> {
    #[inline]
    fn reserve(&mut self) -> usize {
        self.person.reserve()
    }

    #[inline]
    fn fill(&mut self, place: usize, person: Pseudonym<AnalyticsDay>, day: EpochId, written: &Written) {
        self.person.fill(place, person, day, written);
        if self.activity.get(place).is_some_and(|code| Activity::from_code(*code).is_some_and(Activity::is_active)) {
            self.present.meet(day, self.hour.get(place).copied().unwrap_or_default(), person, written);
        }
    }
}
