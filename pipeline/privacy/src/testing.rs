//! Person rows for tests.

use std::sync::Arc;

use arrow::array::{FixedSizeBinaryArray, RecordBatch, UInt8Array, UInt16Array, UInt32Array};
use starling_schemas::rows::PERSON_ROWS;

/// One person row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) person: u128,
    pub(crate) country: u16,
    pub(crate) platform: u8,
    pub(crate) activity: u8,
    pub(crate) events: u32,
    pub(crate) seconds: u32,
}

/// The rows as a batch of `PERSON_ROWS`.
pub(crate) fn batch(rows: &[Row]) -> RecordBatch {
    let people: Vec<[u8; 16]> = rows.iter().map(|r| r.person.to_be_bytes()).collect();
    let people = FixedSizeBinaryArray::try_new(16, people.concat().into(), None).expect("16 bytes each");
    RecordBatch::try_new(
        Arc::clone(&PERSON_ROWS),
        vec![
            Arc::new(people),
            Arc::new(rows.iter().map(|r| r.country).collect::<UInt16Array>()),
            Arc::new(rows.iter().map(|r| r.platform).collect::<UInt8Array>()),
            Arc::new(rows.iter().map(|r| r.activity).collect::<UInt8Array>()),
            Arc::new(rows.iter().map(|r| r.events).collect::<UInt32Array>()),
            Arc::new(rows.iter().map(|r| r.seconds).collect::<UInt32Array>()),
        ],
    )
    .expect("the schema")
}
