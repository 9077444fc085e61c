//! Who was there in an hour, a week or a month, and nothing else of them (P14): one column, one row a person.
//!
//! Within a merge such a row is a person row without dimensions, so that both go through one plan; what is written has the person alone.

use std::sync::Arc;

use arrow::array::{FixedSizeBinaryArray, RecordBatch, UInt32Array, UInt64Array};
use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;
use starling_schemas::rows::{PRESENCE_ROWS, PSEUDONYM_BYTES, first_difference};

use crate::AggregateError;
use crate::rows::{self, Key};

/// Each person of `present`, a batch of [`PRESENCE_ROWS`], once and in order.
pub(crate) fn sorted(present: &RecordBatch) -> Result<RecordBatch, AggregateError> {
    check_columns(present)?;
    let mut people = rows::people(present)?.to_vec();
    people.sort_unstable();
    people.dedup();
    batch(people.into_flattened())
}

/// The same rows with the columns that a merge works on.
pub(crate) fn packed(present: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, AggregateError> {
    check_columns(present)?;
    let person = present.column_by_name("person").ok_or(AggregateError::WrongColumn { column: "person" })?;
    let rows = present.num_rows();
    let counter = || Arc::new(UInt32Array::from_value(0, rows));
    RecordBatch::try_new(
        Arc::clone(schema),
        vec![Arc::clone(person), Arc::new(UInt64Array::from_value(0, rows)), counter(), counter()],
    )
    .map_err(|_| AggregateError::Rows)
}

/// The persons of a merge's batch, checked to be strictly ascending over all batches.
pub(crate) fn merged(batch_of_merge: &RecordBatch, last: &mut Option<Key>) -> Result<RecordBatch, AggregateError> {
    let people = rows::people(batch_of_merge)?;
    for person in people {
        rows::check_above((u128::from_be_bytes(*person), 0), last, "the merge of a window")?;
    }
    batch(people.to_vec().into_flattened())
}

fn check_columns(present: &RecordBatch) -> Result<(), AggregateError> {
    first_difference(&PRESENCE_ROWS, present.schema_ref()).map_or(Ok(()), |column| Err(AggregateError::WrongColumn { column }))
}

fn batch(people: Vec<u8>) -> Result<RecordBatch, AggregateError> {
    let people =
        FixedSizeBinaryArray::try_new(PSEUDONYM_BYTES, Buffer::from_vec(people), None).map_err(|_| AggregateError::Rows)?;
    RecordBatch::try_new(Arc::clone(&PRESENCE_ROWS), vec![Arc::new(people)]).map_err(|_| AggregateError::Rows)
}
