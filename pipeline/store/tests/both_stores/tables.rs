//! Tables of person rows.

use std::sync::Arc;

use arrow::array::{AsArray, FixedSizeBinaryArray, RecordBatch, RecordBatchOptions, UInt8Array, UInt16Array, UInt32Array};
use arrow::datatypes::UInt32Type;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use starling_schemas::rows::PERSON_ROWS;
use starling_store::table::{BATCH_ROWS, ROW_GROUP_ROWS};
use starling_store::{Files, SecretKey, StoreError, TableWriter, encrypt_batches, read_table};

use crate::places::{Place, key, wait_until};

const CANARY: [u8; 16] = *b"CANARY-PSEUDONYM";

/// Rows whose pseudonyms are all the same: small.
pub(crate) fn rows(from: u32, count: u32) -> RecordBatch {
    with_people(from, count, |_| CANARY)
}

/// Rows whose pseudonyms cannot be compressed: as large as real ones.
pub(crate) fn real_rows(from: u32, count: u32) -> RecordBatch {
    with_people(from, count, |n| {
        let half = |salt: u64| {
            (u64::from(n) ^ salt).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31).wrapping_mul(0xbf58_476d_1ce4_e5b9)
        };
        (u128::from(half(1)) << 64 | u128::from(half(2))).to_be_bytes()
    })
}

fn with_people(from: u32, count: u32, person: impl Fn(u32) -> [u8; 16]) -> RecordBatch {
    let numbers = from..from + count;
    let people = FixedSizeBinaryArray::try_from_iter(numbers.clone().map(person)).expect("sixteen bytes");
    let n = count as usize;
    let columns: Vec<arrow::array::ArrayRef> = vec![
        Arc::new(people),
        Arc::new(UInt16Array::from(vec![1; n])),
        Arc::new(UInt8Array::from(vec![2; n])),
        Arc::new(UInt8Array::from(vec![3; n])),
        Arc::new(UInt16Array::from(vec![4; n])),
        Arc::new(UInt8Array::from(vec![5; n])),
        Arc::new(UInt8Array::from(vec![2; n])),
        Arc::new(UInt32Array::from_iter_values(numbers)),
        Arc::new(UInt32Array::from(vec![4; n])),
    ];
    RecordBatch::try_new_with_options(Arc::clone(&PERSON_ROWS), columns, &RecordBatchOptions::new()).expect("rows")
}

pub(crate) async fn begin(files: &Files, key: &SecretKey, path: &str) -> TableWriter {
    TableWriter::new(files, key, path, Arc::clone(&PERSON_ROWS)).await.expect("begins")
}

/// Writes so many of `real_rows`.
pub(crate) async fn fill(writer: &mut TableWriter, total: u32) {
    let mut from = 0;
    while from < total {
        let count = 50_000.min(total - from);
        writer.write(&real_rows(from, count)).await.expect("writes");
        from += count;
    }
}

pub(crate) async fn read_all(files: &Files, key: &SecretKey, path: &str) -> Result<Vec<u32>, StoreError> {
    let mut stream = read_table(files, key, path).await?;
    let mut numbers = Vec::new();
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        assert!(batch.num_rows() <= BATCH_ROWS);
        numbers.extend_from_slice(batch.column(7).as_primitive::<UInt32Type>().values());
    }
    Ok(numbers)
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|w| w == needle)
}

pub(crate) async fn i4_neither_values_nor_column_names_nor_the_key_are_in_the_file(place: Place) {
    let key = key();
    let segment = encrypt_batches(&key, Arc::clone(&PERSON_ROWS), &[rows(0, 5000)]).expect("encrypts");
    let mut writer = begin(&place.files, &key, "people/t.parquet").await;
    writer.write(&rows(0, 5000)).await.expect("writes");
    writer.finish().await.expect("finishes");
    let table = place.files.get("people/t.parquet").await.expect("gets").expect("there");
    for bytes in [segment, table] {
        for needle in [CANARY.as_slice(), b"person", b"country", key.expose()] {
            assert!(!contains(&bytes, needle));
        }
        assert!(bytes.starts_with(b"PARE"), "an encrypted footer");
    }
}

/// Some 20 MB: on S3, in several parts.
pub(crate) async fn a_table_of_many_row_groups_streams_back_in_order_in_small_batches(place: Place) {
    let (files, key) = (&place.files, key());
    let total = u32::try_from(ROW_GROUP_ROWS * 5 + 1000).expect("fits");
    let mut writer = begin(files, &key, "people/t.parquet").await;
    fill(&mut writer, total).await;
    assert!(files.list("").await.expect("lists").is_empty(), "it is not there before it is finished");
    let info = writer.finish().await.expect("finishes");
    assert_eq!((info.path.as_str(), info.rows), ("people/t.parquet", u64::from(total)));
    assert!(info.bytes > 16 << 20, "{}", info.bytes);
    assert_eq!(info.bytes, files.get("people/t.parquet").await.expect("gets").expect("there").len() as u64);
    assert!(read_all(files, &key, "people/t.parquet").await.expect("reads") == (0..total).collect::<Vec<_>>());
    assert_eq!(files.count_unfinished("people").await.expect("counts"), 0);
}

pub(crate) async fn a_table_replaces_the_one_before_only_when_it_is_finished(place: Place) {
    let (files, key) = (&place.files, key());
    for (from, count) in [(0, 10), (100, 20)] {
        let before = files.get("t").await.expect("gets");
        let mut writer = begin(files, &key, "t").await;
        writer.write(&rows(from, count)).await.expect("writes");
        assert_eq!(files.get("t").await.expect("gets"), before);
        writer.finish().await.expect("finishes");
        assert_eq!(read_all(files, &key, "t").await.expect("reads"), (from..from + count).collect::<Vec<_>>());
    }
}

pub(crate) async fn an_empty_table_reads_as_empty(place: Place) {
    let (files, key) = (&place.files, key());
    files.put("s", encrypt_batches(&key, Arc::clone(&PERSON_ROWS), &[]).expect("encrypts")).await.expect("puts");
    assert_eq!(read_all(files, &key, "s").await.expect("reads"), Vec::<u32>::new());
    begin(files, &key, "t").await.finish().await.expect("finishes");
    assert_eq!(read_all(files, &key, "t").await.expect("reads"), Vec::<u32>::new());
}

pub(crate) async fn another_key_opens_nothing_and_a_missing_file_says_so(place: Place) {
    let files = &place.files;
    files.put("s", encrypt_batches(&key(), Arc::clone(&PERSON_ROWS), &[rows(0, 10)]).expect("encrypts")).await.expect("puts");
    assert!(matches!(read_all(files, &key(), "s").await, Err(StoreError::TableUnreadable { .. })));
    assert!(matches!(read_all(files, &key(), "t").await, Err(StoreError::FileMissing { .. })));
}

pub(crate) async fn a_changed_byte_anywhere_is_noticed_and_none_ends_the_process(place: Place) {
    let (files, key) = (&place.files, key());
    let batch = rows(0, 40).project(&[7]).expect("projects");
    let good = encrypt_batches(&key, batch.schema(), std::slice::from_ref(&batch)).expect("encrypts");
    let changes: [fn(u8) -> u8; 3] = [|_| 0, |byte| byte ^ 1, |byte| !byte];
    // Every position once in both places; over the network, with the three changes taking turns.
    let all = (0..good.len()).flat_map(|p| changes.into_iter().enumerate().map(move |(n, change)| (p, n, change)));
    for (position, _, change) in all.filter(|(p, n, _)| !place.is_s3 || p % 3 == *n) {
        let mut bad = good.to_vec();
        bad[position] = change(bad[position]);
        files.put("s", bad.into()).await.expect("writes");
        let found: Result<Vec<RecordBatch>, StoreError> = match read_table(files, &key, "s").await {
            Ok(stream) => stream.try_collect().await,
            Err(e) => Err(e),
        };
        match found {
            Err(StoreError::TableUnreadable { .. }) => {}
            Err(e) => panic!("another error at {position}: {e}"),
            // A byte that nobody reads, such as the length before an encrypted page.
            Ok(found) => assert_eq!(found, std::slice::from_ref(&batch), "wrong rows at {position}"),
        }
    }
}

pub(crate) async fn a_table_cut_short_is_unreadable_and_not_missing(place: Place) {
    let (files, key) = (&place.files, key());
    let mut writer = begin(files, &key, "t").await;
    fill(&mut writer, 20_000).await;
    writer.finish().await.expect("finishes");
    let good = files.get("t").await.expect("gets").expect("there");
    assert!(good.len() > 128 << 10, "more than what is read of its end");
    let end = good.slice(good.len() - 40_000..);
    for cut in [Bytes::new(), good.slice(..7), good.slice(..good.len() / 2), good.slice(..good.len() - 1), end] {
        files.put("t", cut.clone()).await.expect("puts");
        let found = read_all(files, &key, "t").await;
        assert!(matches!(found, Err(StoreError::TableUnreadable { .. })), "{} bytes: {:?}", cut.len(), found.err());
    }
}

pub(crate) async fn rows_of_another_schema_are_refused_and_a_dropped_writer_leaves_nothing(place: Place) {
    let files = &place.files;
    let mut writer = begin(files, &key(), "t").await;
    let other = rows(0, 1).project(&[0]).expect("projects");
    assert!(matches!(writer.write(&other).await, Err(StoreError::TableUnwritable)));
    assert!(matches!(writer.finish().await, Err(StoreError::TableUnwritable)));
    drop(begin(files, &key(), "u").await);
    assert!(files.list("").await.expect("lists").is_empty());
    if let Some(root) = files.local_root() {
        assert_eq!(std::fs::read_dir(root).expect("lists").count(), 0);
    }
}

pub(crate) async fn a_large_table_dropped_in_the_middle_leaves_nothing(place: Place) {
    let (files, key) = (&place.files, key());
    let mut writer = begin(files, &key, "people/t.parquet").await;
    fill(&mut writer, u32::try_from(ROW_GROUP_ROWS * 3).expect("fits")).await;
    assert_eq!(files.count_unfinished("people").await.expect("counts"), 1, "it has begun");
    drop(writer);
    wait_until("the end of the upload", async || files.count_unfinished("people").await.expect("counts") == 0).await;
    assert!(files.list("").await.expect("lists").is_empty());
}

pub(crate) async fn what_a_killed_writer_left_goes_with_its_folder(place: Place) {
    let (files, key) = (&place.files, key());
    for path in ["people/a.parquet", "people/b.parquet", "other/c.parquet"] {
        let mut writer = begin(files, &key, path).await;
        fill(&mut writer, u32::try_from(ROW_GROUP_ROWS * 3).expect("fits")).await;
        // No destructor runs, as after kill -9.
        std::mem::forget(writer);
    }
    assert!(files.list("").await.expect("lists").is_empty());
    assert_eq!(files.count_unfinished("people").await.expect("counts"), 2);
    files.delete_folder("people").await.expect("deletes");
    assert_eq!(files.count_unfinished("people").await.expect("counts"), 0);
    assert_eq!(files.count_unfinished("other").await.expect("counts"), 1, "another folder's upload stays");
}
