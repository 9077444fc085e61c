//! Columns of batches, and person rows from plain vectors.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, FixedSizeBinaryArray, PrimitiveArray, RecordBatch};
use arrow::buffer::Buffer;
use arrow::datatypes::{UInt8Type, UInt16Type};
use starling_schemas::rows::{PERSON_ROWS, PSEUDONYM_BYTES};

use crate::AggregateError;

/// Key of a person row, in sort order: the pseudonym as a big-endian number, then country, platform and activity, packed.
pub(crate) type Key = (u128, u32);

/// The values of a column of this type without nulls.
pub(crate) fn primitive<'a, T: ArrowPrimitiveType>(
    batch: &'a RecordBatch,
    column: &'static str,
) -> Result<&'a [T::Native], AggregateError> {
    let array = batch.column_by_name(column).and_then(|c| c.as_primitive_opt::<T>());
    Ok(array.filter(|a| a.null_count() == 0).ok_or(AggregateError::WrongColumn { column })?.values())
}

/// The pseudonyms of the column `person`.
pub(crate) fn people(batch: &RecordBatch) -> Result<&[[u8; 16]], AggregateError> {
    let array = batch.column_by_name("person").and_then(|c| c.as_fixed_size_binary_opt());
    let array = array.filter(|a| a.null_count() == 0 && a.value_length() == PSEUDONYM_BYTES);
    let (values, _) = array.ok_or(AggregateError::WrongColumn { column: "person" })?.value_data().as_chunks::<16>();
    Ok(values)
}

/// Country, platform and activity in one number that sorts like the three columns.
#[inline]
pub(crate) fn pack(country: u16, platform: u8, activity: u8) -> u32 {
    (u32::from(country) << 16) | (u32::from(platform) << 8) | u32::from(activity)
}

/// The keys of a batch that has the key columns of person rows.
pub(crate) fn keys(batch: &RecordBatch) -> Result<impl Iterator<Item = Key>, AggregateError> {
    let people = people(batch)?.iter();
    let country = primitive::<UInt16Type>(batch, "country")?.iter();
    let platform = primitive::<UInt8Type>(batch, "platform")?.iter();
    let activity = primitive::<UInt8Type>(batch, "activity")?.iter();
    Ok(people
        .zip(country)
        .zip(platform)
        .zip(activity)
        .map(|(((person, c), p), a)| (u128::from_be_bytes(*person), pack(*c, *p, *a))))
}

/// Fails unless the keys of `batch` are strictly ascending and above `last`, which then becomes the batch's last key.
pub(crate) fn check_sorted(batch: &RecordBatch, last: &mut Option<Key>, place: &'static str) -> Result<(), AggregateError> {
    for key in keys(batch)? {
        if last.is_some_and(|last| key <= last) {
            return Err(AggregateError::NotSorted { place });
        }
        *last = Some(key);
    }
    Ok(())
}

/// Person rows being built, column by column.
pub(crate) struct PersonRows {
    person: Vec<u8>,
    country: Vec<u16>,
    platform: Vec<u8>,
    activity: Vec<u8>,
    events: Vec<u32>,
    seconds: Vec<u32>,
}

impl PersonRows {
    pub(crate) fn with_capacity(rows: usize) -> Self {
        Self {
            person: Vec::with_capacity(rows.saturating_mul(16)),
            country: Vec::with_capacity(rows),
            platform: Vec::with_capacity(rows),
            activity: Vec::with_capacity(rows),
            events: Vec::with_capacity(rows),
            seconds: Vec::with_capacity(rows),
        }
    }

    #[inline]
    pub(crate) fn push(&mut self, (person, dimensions): Key, events: u32, seconds: u32) {
        let [country_high, country_low, platform, activity] = dimensions.to_be_bytes();
        self.person.extend_from_slice(&person.to_be_bytes());
        self.country.push(u16::from_be_bytes([country_high, country_low]));
        self.platform.push(platform);
        self.activity.push(activity);
        self.events.push(events);
        self.seconds.push(seconds);
    }

    /// One batch of [`PERSON_ROWS`].
    pub(crate) fn finish(self) -> Result<RecordBatch, AggregateError> {
        fn column<T: ArrowPrimitiveType>(values: Vec<T::Native>) -> ArrayRef {
            Arc::new(PrimitiveArray::<T>::from_iter_values(values))
        }
        let person = FixedSizeBinaryArray::try_new(PSEUDONYM_BYTES, Buffer::from_vec(self.person), None)
            .map_err(|_| AggregateError::Rows)?;
        let columns = vec![
            Arc::new(person) as ArrayRef,
            column::<UInt16Type>(self.country),
            column::<UInt8Type>(self.platform),
            column::<UInt8Type>(self.activity),
            column::<arrow::datatypes::UInt32Type>(self.events),
            column::<arrow::datatypes::UInt32Type>(self.seconds),
        ];
        RecordBatch::try_new(Arc::clone(&PERSON_ROWS), columns).map_err(|_| AggregateError::Rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_keys_sort_like_the_columns_and_come_back() {
        let mut rows = PersonRows::with_capacity(3);
        let keys_in = [(1, pack(0x4142, 255, 255)), (1, pack(0x4143, 0, 0)), (u128::MAX, pack(0, 0, 0))];
        for key in keys_in {
            rows.push(key, 1, 2);
        }
        let batch = rows.finish().expect("columns fit");
        assert_eq!(keys(&batch).expect("key columns").collect::<Vec<_>>(), keys_in);
        let slice = batch.slice(1, 2);
        assert_eq!(keys(&slice).expect("key columns").collect::<Vec<_>>(), keys_in[1..]);
        check_sorted(&batch, &mut None, "test").expect("ascending");
        assert!(check_sorted(&slice, &mut Some(keys_in[1]), "test").is_err());
    }
}
