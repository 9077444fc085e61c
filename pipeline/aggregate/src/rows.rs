//! Columns of batches, and person rows from plain vectors.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, FixedSizeBinaryArray, PrimitiveArray, RecordBatch};
use arrow::buffer::Buffer;
use arrow::datatypes::{UInt8Type, UInt16Type, UInt32Type};
use starling_schemas::rows::{PERSON_ROWS, PSEUDONYM_BYTES, first_difference};

use crate::AggregateError;

/// Key of a person row, in sort order: the pseudonym as a big-endian number, then its packed [`Dimensions`].
pub(crate) type Key = (u128, u64);

/// The key columns of a person row behind `person`, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dimensions {
    pub(crate) country: u16,
    pub(crate) platform: u8,
    pub(crate) activity: u8,
    pub(crate) version: u16,
    pub(crate) detail: u8,
    pub(crate) account: u8,
}

impl Dimensions {
    /// All in one number that sorts like the columns.
    #[inline]
    pub(crate) fn pack(self) -> u64 {
        (u64::from(self.country) << 48)
            | (u64::from(self.platform) << 40)
            | (u64::from(self.activity) << 32)
            | (u64::from(self.version) << 16)
            | (u64::from(self.detail) << 8)
            | u64::from(self.account)
    }

    #[inline]
    pub(crate) fn unpack(packed: u64) -> Self {
        let [c1, c0, platform, activity, v1, v0, detail, account] = packed.to_be_bytes();
        Self { country: u16::from_be_bytes([c1, c0]), platform, activity, version: u16::from_be_bytes([v1, v0]), detail, account }
    }
}

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

/// The packed dimensions of a batch that has these columns of person rows, clean or folded.
pub(crate) fn dimensions(batch: &RecordBatch) -> Result<impl Iterator<Item = u64>, AggregateError> {
    let country = primitive::<UInt16Type>(batch, "country")?.iter();
    let platform = primitive::<UInt8Type>(batch, "platform")?.iter();
    let activity = primitive::<UInt8Type>(batch, "activity")?.iter();
    let version = primitive::<UInt16Type>(batch, "version")?.iter();
    let detail = primitive::<UInt8Type>(batch, "detail")?.iter();
    let account = primitive::<UInt8Type>(batch, "account")?.iter();
    Ok(country.zip(platform).zip(activity).zip(version).zip(detail).zip(account).map(
        |(((((country, platform), activity), version), detail), account)| {
            Dimensions {
                country: *country,
                platform: *platform,
                activity: *activity,
                version: *version,
                detail: *detail,
                account: *account,
            }
            .pack()
        },
    ))
}

/// The keys of a batch that has the key columns of person rows.
pub(crate) fn keys(batch: &RecordBatch) -> Result<impl Iterator<Item = Key>, AggregateError> {
    Ok(people(batch)?.iter().zip(dimensions(batch)?).map(|(person, dimensions)| (u128::from_be_bytes(*person), dimensions)))
}

/// Fails with the first column that is not as this version writes it.
pub(crate) fn check_columns(batch: &RecordBatch) -> Result<(), AggregateError> {
    first_difference(&PERSON_ROWS, batch.schema_ref()).map_or(Ok(()), |column| Err(AggregateError::WrongColumn { column }))
}

/// Fails unless the keys of `batch` are strictly ascending and above `last`, which then becomes the batch's last key.
pub(crate) fn check_sorted(batch: &RecordBatch, last: &mut Option<Key>, place: &'static str) -> Result<(), AggregateError> {
    keys(batch)?.try_for_each(|key| check_above(key, last, place))
}

/// Fails unless `key` is above `last`, which it then becomes.
#[inline]
pub(crate) fn check_above(key: Key, last: &mut Option<Key>, place: &'static str) -> Result<(), AggregateError> {
    if last.is_some_and(|last| key <= last) {
        return Err(AggregateError::NotSorted { place });
    }
    *last = Some(key);
    Ok(())
}

/// Person rows being built, column by column.
pub(crate) struct PersonRows {
    person: Vec<u8>,
    country: Vec<u16>,
    platform: Vec<u8>,
    activity: Vec<u8>,
    version: Vec<u16>,
    detail: Vec<u8>,
    account: Vec<u8>,
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
            version: Vec::with_capacity(rows),
            detail: Vec::with_capacity(rows),
            account: Vec::with_capacity(rows),
            events: Vec::with_capacity(rows),
            seconds: Vec::with_capacity(rows),
        }
    }

    #[inline]
    pub(crate) fn push(&mut self, (person, dimensions): Key, events: u32, seconds: u32) {
        let Dimensions { country, platform, activity, version, detail, account } = Dimensions::unpack(dimensions);
        self.person.extend_from_slice(&person.to_be_bytes());
        self.country.push(country);
        self.platform.push(platform);
        self.activity.push(activity);
        self.version.push(version);
        self.detail.push(detail);
        self.account.push(account);
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
            column::<UInt16Type>(self.version),
            column::<UInt8Type>(self.detail),
            column::<UInt8Type>(self.account),
            column::<UInt32Type>(self.events),
            column::<UInt32Type>(self.seconds),
        ];
        RecordBatch::try_new(Arc::clone(&PERSON_ROWS), columns).map_err(|_| AggregateError::Rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_keys_sort_like_the_columns_and_come_back() {
        // A column of less weight at its most beside one of more weight at its least.
        let of = |[country, platform, activity, version, detail, account]: [u16; 6]| {
            let byte = |value: u16| u8::try_from(value).expect("a byte");
            let dimensions = Dimensions {
                country,
                version,
                platform: byte(platform),
                activity: byte(activity),
                detail: byte(detail),
                account: byte(account),
            };
            assert_eq!(Dimensions::unpack(dimensions.pack()), dimensions);
            dimensions.pack()
        };
        let keys_in = [
            (1, of([0x4142, 1, 1, 0, 0, 255])),
            (1, of([0x4142, 1, 1, 0, 1, 0])),
            (1, of([0x4142, 1, 1, 0, 255, 255])),
            (1, of([0x4142, 1, 1, 1, 0, 0])),
            (1, of([0x4142, 1, 1, 65_535, 255, 255])),
            (1, of([0x4142, 1, 2, 0, 0, 0])),
            (1, of([0x4142, 1, 255, 65_535, 255, 255])),
            (1, of([0x4142, 2, 0, 0, 0, 0])),
            (1, of([0x4143, 0, 0, 0, 0, 0])),
            (u128::MAX, of([0; 6])),
        ];
        let mut rows = PersonRows::with_capacity(keys_in.len());
        for key in keys_in {
            rows.push(key, 1, 2);
        }
        let batch = rows.finish().expect("columns fit");
        assert_eq!(keys(&batch).expect("key columns").collect::<Vec<_>>(), keys_in);
        let slice = batch.slice(1, keys_in.len() - 1);
        assert_eq!(keys(&slice).expect("key columns").collect::<Vec<_>>(), keys_in[1..]);
        check_sorted(&batch, &mut None, "test").expect("ascending");
        assert!(check_sorted(&slice, &mut Some(keys_in[1]), "test").is_err());
    }
}
