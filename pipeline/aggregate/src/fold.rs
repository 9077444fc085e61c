//! Clean rows of one range to person rows, per day.

use arrow::array::RecordBatch;
use arrow::datatypes::{Date32Type, UInt32Type};
use hashbrown::hash_table::Entry;
use hashbrown::{HashMap, HashTable};
use starling_schemas::ids::EpochId;

use crate::AggregateError;
use crate::rows::{self, PersonRows};

/// One person row while it is being counted: 32 bytes, inline in the table.
#[derive(Clone, Copy)]
struct Row {
    person: u128,
    dimensions: u64,
    events: u32,
    seconds: u32,
}

impl Row {
    /// Pseudonyms are keyed hashes, uniform and not to be chosen by anybody without the key: their own bits are the hash, and only the
    /// dimensions have to be spread over them.
    #[inline]
    fn hash(person: u128, dimensions: u64) -> u64 {
        #[allow(clippy::cast_possible_truncation)]
        let uniform = person as u64;
        uniform ^ (dimensions ^ (dimensions >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// Folds [`CLEAN_ROWS`](starling_schemas::rows::CLEAN_ROWS) into [`PERSON_ROWS`](starling_schemas::rows::PERSON_ROWS), a table per day.
///
/// Key: (person, country, platform, activity, version, detail, account). Counters saturate at `u32::MAX`, so that the order and the split of the input do not matter
/// (I9). Memory grows with the number of different keys of one range, not with its events.
#[derive(Default)]
pub struct Folder {
    days: Vec<(i32, HashTable<Row>)>,
    /// Where in `days` a day stands.
    index: HashMap<i32, usize>,
    /// An emptied table of the last range, to be filled again.
    spare: HashTable<Row>,
}

impl Folder {
    /// An empty folder.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds every row of `clean`, a batch of [`CLEAN_ROWS`](starling_schemas::rows::CLEAN_ROWS).
    ///
    /// # Errors
    /// [`AggregateError::WrongColumn`] when the batch is not of that schema; then nothing of it was added.
    pub fn fold(&mut self, clean: &RecordBatch) -> Result<(), AggregateError> {
        let people = rows::people(clean)?.iter();
        let days = rows::primitive::<Date32Type>(clean, "day")?.iter();
        let dimensions = rows::dimensions(clean)?;
        let seconds = rows::primitive::<UInt32Type>(clean, "seconds")?.iter();
        let mut current = 0;
        for (((person, day), dimensions), seconds) in people.zip(days).zip(dimensions).zip(seconds) {
            if self.days.get(current).is_none_or(|(d, _)| d != day) {
                current = self.table_of(*day);
            }
            let Some((_, table)) = self.days.get_mut(current) else { continue };
            let person = u128::from_be_bytes(*person);
            match table.entry(
                Row::hash(person, dimensions),
                |row| row.person == person && row.dimensions == dimensions,
                |row| Row::hash(row.person, row.dimensions),
            ) {
                Entry::Occupied(mut entry) => {
                    let row = entry.get_mut();
                    row.events = row.events.saturating_add(1);
                    row.seconds = row.seconds.saturating_add(*seconds);
                }
                Entry::Vacant(entry) => {
                    entry.insert(Row { person, dimensions, events: 1, seconds: *seconds });
                }
            }
        }
        Ok(())
    }

    fn table_of(&mut self, day: i32) -> usize {
        *self.index.entry(day).or_insert_with(|| {
            self.days.push((day, std::mem::take(&mut self.spare)));
            self.days.len() - 1
        })
    }

    /// Hands out what was folded, by day, each batch sorted by all key columns, and begins anew. Days without rows are not there.
    ///
    /// # Errors
    /// [`AggregateError::Rows`] when Arrow refuses the columns, which would be a defect here.
    pub fn finish(&mut self) -> Result<Vec<(EpochId, RecordBatch)>, AggregateError> {
        self.index.clear();
        let mut out = Vec::with_capacity(self.days.len());
        let mut sorted: Vec<Row> = Vec::new();
        for (day, mut table) in self.days.drain(..) {
            sorted.clear();
            sorted.extend(table.drain());
            if table.capacity() > self.spare.capacity() {
                self.spare = table;
            }
            sorted.sort_unstable_by_key(|row| (row.person, row.dimensions));
            let mut columns = PersonRows::with_capacity(sorted.len());
            for row in &sorted {
                columns.push((row.person, row.dimensions), row.events, row.seconds);
            }
            out.push((EpochId(day), columns.finish()?));
        }
        out.sort_unstable_by_key(|(day, _)| *day);
        Ok(out)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Date32Array, FixedSizeBinaryArray, UInt8Array, UInt16Array, UInt32Array};
    use arrow::datatypes::{UInt8Type, UInt16Type};
    use proptest::prelude::*;
    use starling_schemas::rows::{CLEAN_ROWS, PERSON_ROWS};

    use super::*;

    /// One accepted event, as plainly as it can be said.
    #[derive(Debug, Clone, Copy, Default)]
    pub(crate) struct Event {
        pub(crate) person: u128,
        pub(crate) day: i32,
        pub(crate) country: u16,
        pub(crate) platform: u8,
        pub(crate) activity: u8,
        pub(crate) version: u16,
        pub(crate) detail: u8,
        pub(crate) account: u8,
        pub(crate) seconds: u32,
    }

    /// (day, person, (country, platform, activity, version, detail, account)) → (events, seconds).
    pub(crate) type Model = BTreeMap<(i32, u128, (u16, u8, u8, u16, u8, u8)), (u32, u32)>;

    /// What person rows should be, computed in the plainest way.
    pub(crate) fn model(events: &[Event]) -> Model {
        let mut sums: BTreeMap<_, (u128, u128)> = BTreeMap::new();
        for e in events {
            let dimensions = (e.country, e.platform, e.activity, e.version, e.detail, e.account);
            let sum = sums.entry((e.day, e.person, dimensions)).or_default();
            sum.0 += 1;
            sum.1 += u128::from(e.seconds);
        }
        let cap = |n: u128| u32::try_from(n).unwrap_or(u32::MAX);
        sums.into_iter().map(|(key, (n, s))| (key, (cap(n), cap(s)))).collect()
    }

    pub(crate) fn clean(events: &[Event]) -> RecordBatch {
        let bytes: Vec<u8> = events.iter().flat_map(|e| e.person.to_be_bytes()).collect();
        let person = FixedSizeBinaryArray::try_new(16, bytes.into(), None).expect("16 bytes each");
        let columns: Vec<ArrayRef> = vec![
            Arc::new(person),
            Arc::new(Date32Array::from_iter_values(events.iter().map(|e| e.day))),
            Arc::new(UInt8Array::from_iter_values(events.iter().map(|_| 7))),
            Arc::new(UInt16Array::from_iter_values(events.iter().map(|e| e.country))),
            Arc::new(UInt8Array::from_iter_values(events.iter().map(|e| e.platform))),
            Arc::new(UInt8Array::from_iter_values(events.iter().map(|e| e.activity))),
            Arc::new(UInt16Array::from_iter_values(events.iter().map(|e| e.version))),
            Arc::new(UInt8Array::from_iter_values(events.iter().map(|e| e.detail))),
            Arc::new(UInt8Array::from_iter_values(events.iter().map(|e| e.account))),
            Arc::new(UInt32Array::from_iter_values(events.iter().map(|e| e.seconds))),
        ];
        RecordBatch::try_new(Arc::clone(&CLEAN_ROWS), columns).expect("clean rows")
    }

    /// Person rows as a model, checking schema and order on the way.
    pub(crate) fn read(day: EpochId, batch: &RecordBatch, last: &mut Option<rows::Key>, into: &mut Model) {
        assert_eq!(batch.schema().fields(), PERSON_ROWS.fields());
        rows::check_sorted(batch, last, "test").expect("sorted, and each key once");
        let events = rows::primitive::<UInt32Type>(batch, "events").expect("column");
        let seconds = rows::primitive::<UInt32Type>(batch, "seconds").expect("column");
        let byte = |column, row: usize| rows::primitive::<UInt8Type>(batch, column).expect("column")[row];
        let wide = |column, row: usize| rows::primitive::<UInt16Type>(batch, column).expect("column")[row];
        for (row, person) in rows::people(batch).expect("people").iter().enumerate() {
            let dimensions = (
                wide("country", row),
                byte("platform", row),
                byte("activity", row),
                wide("version", row),
                byte("detail", row),
                byte("account", row),
            );
            let key = (day.0, u128::from_be_bytes(*person), dimensions);
            assert!(into.insert(key, (events[row], seconds[row])).is_none(), "each key once");
        }
    }

    prop_compose! {
        /// Few people, so that they meet; long calls, so that counters saturate.
        pub(crate) fn event()(
            person in prop_oneof![0_u128..6, Just(u128::MAX), Just(1 << 64)],
            day in 20_458..20_461_i32,
            country in prop_oneof![Just(0x4445_u16), Just(0x5553)],
            platform in 0..3_u8,
            activity in 5..7_u8,
            version in prop_oneof![Just(0_u16), Just(0x1a04), Just(0x1a05)],
            detail in 0..2_u8,
            account in prop_oneof![4 => Just(2_u8), 1 => Just(1)],
            seconds in prop_oneof![3 => 0..4000_u32, 1 => u32::MAX - 10..=u32::MAX],
        ) -> Event {
            Event { person, day, country, platform, activity, version, detail, account, seconds }
        }
    }

    proptest! {
        #[test]
        fn i9_any_split_into_batches_folds_to_the_rows_of_the_naive_model(
            events in prop::collection::vec(event(), 0..200),
            cuts in prop::collection::vec(0..200_usize, 0..6),
        ) {
            let mut folder = Folder::new();
            for round in 0..2 {
                let mut cuts: Vec<usize> = cuts.iter().map(|c| (c + round) % (events.len() + 1)).chain([0, events.len()]).collect();
                cuts.sort_unstable();
                for pair in cuts.windows(2) {
                    // A slice of a larger batch, as Arrow hands them around.
                    folder.fold(&clean(&events).slice(pair[0], pair[1] - pair[0])).expect("clean rows");
                }
                let folded = folder.finish().expect("person rows");
                prop_assert!(folded.is_sorted_by_key(|(day, _)| *day));
                let mut got = Model::new();
                for (day, batch) in &folded {
                    read(*day, batch, &mut None, &mut got);
                }
                prop_assert_eq!(got, model(&events));
            }
        }
    }

    #[test]
    fn a_folder_begins_anew_after_finish() {
        let event = Event { person: 9, day: 3, country: 1, platform: 2, activity: 3, seconds: 4, ..Event::default() };
        let mut folder = Folder::new();
        folder.fold(&clean(&[event, event])).expect("clean rows");
        assert_eq!(folder.finish().expect("rows").len(), 1);
        assert!(folder.finish().expect("rows").is_empty());
    }

    #[test]
    fn a_batch_of_another_schema_is_refused_by_column_name() {
        let person_rows = PersonRows::with_capacity(0).finish().expect("rows");
        let error = Folder::new().fold(&person_rows).expect_err("no clean rows");
        assert!(matches!(error, AggregateError::WrongColumn { column: "day" }), "{error}");
    }
}
