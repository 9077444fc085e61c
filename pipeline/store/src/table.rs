//! Person rows at rest: Parquet with modular encryption.
//!
//! The footer is encrypted too, so a file shows neither column names nor counts. One key, the epoch's data key, serves all columns: AES-256-GCM
//! (`parquet` takes 32-byte keys as they are). Pages are authenticated against a random value of their own file, so pages cannot be moved
//! between files or places without notice. Values never appear in clear: no statistics outside the encrypted footer, no plain page
//! headers.
//!
//! ```text
//!  batches ─► TableWriter ─► people/<day>.parquet#123 ─ sync ─ rename ─► people/<day>.parquet ─► read_table ─► batches
//!                 one row group in memory                                      one row group's pages in memory
//! ```

use std::fs::File;
use std::io::BufWriter;
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ArrowWriter;
use parquet::arrow::ParquetRecordBatchStreamBuilder;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::basic::{Compression, ZstdLevel};
use parquet::encryption::decrypt::FileDecryptionProperties;
use parquet::encryption::encrypt::FileEncryptionProperties;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use parquet::file::properties::WriterProperties;

use crate::error::StoreError;
use crate::files::{Files, Staged, blocking, object_path};
use crate::keyring::SecretKey;

/// Rows of a row group: what a writer or reader holds in memory at a time.
pub const ROW_GROUP_ROWS: usize = 256 * 1024;

/// Rows of a batch that is read.
pub const BATCH_ROWS: usize = 8192;

/// A table file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableInfo {
    /// Path below the file store.
    pub path: String,
    /// Rows in it.
    pub rows: u64,
    /// Bytes of the file.
    pub bytes: u64,
}

fn writer_properties(key: &SecretKey) -> Result<WriterProperties, StoreError> {
    let encryption = FileEncryptionProperties::builder(key.expose().to_vec()).build().map_err(|_| StoreError::TableUnwritable)?;
    let zstd = ZstdLevel::try_new(1).map_err(|_| StoreError::TableUnwritable)?;
    Ok(WriterProperties::builder()
        .set_created_by("starling".to_owned())
        .set_compression(Compression::ZSTD(zstd))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .with_file_encryption_properties(encryption)
        .build())
}

/// What a Parquet reader of another engine needs to open a table under `key`. It holds the key: keep it no longer than the read.
///
/// # Errors
/// [`StoreError::TableUnreadable`] when the key is not accepted.
pub fn decryption_properties(key: &SecretKey) -> Result<Arc<FileDecryptionProperties>, StoreError> {
    FileDecryptionProperties::builder(key.expose().to_vec())
        .build()
        .map_err(|_| StoreError::TableUnreadable { path: String::new() })
}

/// Refuses batches of other columns: `ArrowWriter` would write them as they come. Comments in the metadata may differ.
fn check_columns(schema: &SchemaRef, batch: &RecordBatch) -> Result<(), StoreError> {
    let same = schema.fields().len() == batch.num_columns()
        && schema.fields().iter().zip(batch.schema_ref().fields()).zip(batch.columns()).all(|((wanted, given), column)| {
            wanted.name() == given.name()
                && wanted.data_type() == given.data_type()
                && (wanted.is_nullable() || column.null_count() == 0)
        });
    same.then_some(()).ok_or(StoreError::TableUnwritable)
}

/// Writes batches as one encrypted Parquet file in memory: for segments.
///
/// # Errors
/// [`StoreError::TableUnwritable`] when a batch is not of `schema`.
pub fn encrypt_batches(key: &SecretKey, schema: SchemaRef, batches: &[RecordBatch]) -> Result<Bytes, StoreError> {
    let unwritable = |_| StoreError::TableUnwritable;
    let mut writer = ArrowWriter::try_new(Vec::new(), Arc::clone(&schema), Some(writer_properties(key)?)).map_err(unwritable)?;
    for batch in batches {
        check_columns(&schema, batch)?;
        writer.write(batch).map_err(unwritable)?;
    }
    writer.into_inner().map(Bytes::from).map_err(unwritable)
}

/// Writes a table of any size with one row group in memory.
///
/// The file appears under its name, whole and durable, when [`Self::finish`] returns; a writer that is dropped before leaves nothing.
pub struct TableWriter {
    /// `None` only while a batch is being written, or after a failure.
    inner: Option<Box<OpenTable>>,
}

struct OpenTable {
    // Dropped before `staged`, which removes the file.
    writer: ArrowWriter<BufWriter<File>>,
    schema: SchemaRef,
    staged: Staged,
    rows: u64,
}

impl TableWriter {
    /// Begins a table at `path`. What is there stays until [`Self::finish`].
    ///
    /// # Errors
    /// [`StoreError::PathRefused`], [`StoreError::File`], [`StoreError::TableUnwritable`] for a schema that Parquet cannot hold.
    pub async fn new(files: &Files, key: &SecretKey, path: &str, schema: SchemaRef) -> Result<Self, StoreError> {
        let staged = files.stage(path)?;
        let properties = writer_properties(key)?;
        blocking(move || {
            let file = BufWriter::with_capacity(1 << 20, staged.create()?);
            let writer =
                ArrowWriter::try_new(file, Arc::clone(&schema), Some(properties)).map_err(|_| StoreError::TableUnwritable)?;
            Ok(Self { inner: Some(Box::new(OpenTable { writer, schema, staged, rows: 0 })) })
        })
        .await
    }

    /// Appends a batch.
    ///
    /// # Errors
    /// [`StoreError::TableUnwritable`] when the batch is not of the schema, or the disk is full; the writer is of no use afterwards.
    pub async fn write(&mut self, batch: &RecordBatch) -> Result<(), StoreError> {
        let mut open = self.inner.take().ok_or(StoreError::TableUnwritable)?;
        let batch = batch.clone();
        let open = blocking(move || {
            check_columns(&open.schema, &batch)?;
            open.writer.write(&batch).map_err(|_| StoreError::TableUnwritable)?;
            open.rows += batch.num_rows() as u64;
            Ok(open)
        })
        .await?;
        self.inner = Some(open);
        Ok(())
    }

    /// Syncs the file and puts it in place, replacing what was there.
    ///
    /// # Errors
    /// [`StoreError::TableUnwritable`], [`StoreError::File`].
    pub async fn finish(self) -> Result<TableInfo, StoreError> {
        let open = self.inner.ok_or(StoreError::TableUnwritable)?;
        blocking(move || {
            let OpenTable { writer, staged, rows, .. } = *open;
            let file = writer.into_inner().map_err(|_| StoreError::TableUnwritable)?;
            let file = file.into_inner().map_err(|e| staged.failed("writing", e.error()))?;
            file.sync_all().map_err(|e| staged.failed("writing", &e))?;
            let bytes = file.metadata().map_err(|e| staged.failed("writing", &e))?.len();
            let path = staged.path().to_owned();
            staged.replace()?;
            Ok(TableInfo { path, rows, bytes })
        })
        .await
    }
}

/// Opens an encrypted table (or segment) and streams its batches, in order, holding the pages of one row group at a time.
///
/// # Errors
/// [`StoreError::FileMissing`]; [`StoreError::TableUnreadable`] for a wrong key or changed bytes, here or as an item of the stream.
pub async fn read_table(
    files: &Files,
    key: &SecretKey,
    path: &str,
) -> Result<BoxStream<'static, Result<RecordBatch, StoreError>>, StoreError> {
    let location = object_path(path)?;
    let store = files.object_store();
    let size = match store.head(&location).await {
        Ok(found) => found.size,
        Err(object_store::Error::NotFound { .. }) => return Err(StoreError::FileMissing { path: path.to_owned() }),
        Err(_) => return Err(StoreError::TableUnreadable { path: path.to_owned() }),
    };
    let reader = TableReader { store, location, size };
    let options = ArrowReaderOptions::new().with_file_decryption_properties(decryption_properties(key)?);
    let unreadable = {
        let path = path.to_owned();
        move || StoreError::TableUnreadable { path: path.clone() }
    };
    // Parquet's decryption takes lengths from the file and panics on some that cannot be: a damaged file must not end the process (I8).
    let stream = AssertUnwindSafe(ParquetRecordBatchStreamBuilder::new_with_options(reader, options))
        .catch_unwind()
        .await
        .map_err(|_| unreadable())?
        .map_err(|_| unreadable())?
        .with_batch_size(BATCH_ROWS)
        .build()
        .map_err(|_| unreadable())?;
    let stream = AssertUnwindSafe(stream).catch_unwind();
    Ok(stream.map(move |batch| batch.map_err(|_| unreadable())?.map_err(|_| unreadable())).boxed())
}

/// A file of the object store as Parquet's reader wants it.
struct TableReader {
    store: Arc<dyn ObjectStore>,
    location: ObjectPath,
    size: u64,
}

impl AsyncFileReader for TableReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        async move { self.store.get_range(&self.location, range).await.map_err(|e| ParquetError::External(Box::new(e))) }.boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        async move { self.store.get_ranges(&self.location, &ranges).await.map_err(|e| ParquetError::External(Box::new(e))) }
            .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        let size = self.size;
        async move {
            let reader = ParquetMetaDataReader::new().with_arrow_reader_options(options);
            reader.load_and_finish(self, size).await.map(Arc::new)
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, FixedSizeBinaryArray, RecordBatchOptions, UInt8Array, UInt16Array, UInt32Array};
    use arrow::datatypes::UInt32Type;
    use futures::TryStreamExt;
    use starling_schemas::rows::PERSON_ROWS;

    use super::*;
    use crate::testing::OsEntropy;

    const CANARY: [u8; 16] = *b"CANARY-PSEUDONYM";

    fn key() -> SecretKey {
        SecretKey::generate(&OsEntropy).expect("entropy")
    }

    fn rows(from: u32, count: u32) -> RecordBatch {
        let numbers = from..from + count;
        let people = FixedSizeBinaryArray::try_from_iter(numbers.clone().map(|_| CANARY)).expect("sixteen bytes");
        let n = count as usize;
        let columns: Vec<arrow::array::ArrayRef> = vec![
            Arc::new(people),
            Arc::new(UInt16Array::from(vec![1; n])),
            Arc::new(UInt8Array::from(vec![2; n])),
            Arc::new(UInt8Array::from(vec![3; n])),
            Arc::new(UInt32Array::from_iter_values(numbers)),
            Arc::new(UInt32Array::from(vec![4; n])),
        ];
        RecordBatch::try_new_with_options(Arc::clone(&PERSON_ROWS), columns, &RecordBatchOptions::new()).expect("rows")
    }

    fn open() -> (tempfile::TempDir, Files) {
        let dir = tempfile::tempdir().expect("tempdir");
        let files = Files::open_local(dir.path()).expect("opens");
        (dir, files)
    }

    fn contains(bytes: &[u8], needle: &[u8]) -> bool {
        bytes.windows(needle.len()).any(|w| w == needle)
    }

    async fn read_all(files: &Files, key: &SecretKey, path: &str) -> Result<Vec<u32>, StoreError> {
        let mut stream = read_table(files, key, path).await?;
        let mut numbers = Vec::new();
        while let Some(batch) = stream.next().await {
            numbers.extend_from_slice(batch?.column(4).as_primitive::<UInt32Type>().values());
        }
        Ok(numbers)
    }

    #[tokio::test]
    async fn i4_neither_values_nor_column_names_nor_the_key_are_in_the_file() {
        let (_dir, files) = open();
        let key = key();
        let segment = encrypt_batches(&key, Arc::clone(&PERSON_ROWS), &[rows(0, 5000)]).expect("encrypts");
        let mut writer = TableWriter::new(&files, &key, "people/t.parquet", Arc::clone(&PERSON_ROWS)).await.expect("begins");
        writer.write(&rows(0, 5000)).await.expect("writes");
        writer.finish().await.expect("finishes");
        let table = files.get("people/t.parquet").await.expect("gets").expect("there");
        for bytes in [segment, table] {
            for needle in [CANARY.as_slice(), b"person", b"country", key.expose()] {
                assert!(!contains(&bytes, needle));
            }
            assert!(bytes.starts_with(b"PARE"), "an encrypted footer");
        }
    }

    #[tokio::test]
    async fn a_table_of_many_row_groups_streams_back_in_order_in_small_batches() {
        let (_dir, files) = open();
        let key = key();
        let mut writer = TableWriter::new(&files, &key, "people/t.parquet", Arc::clone(&PERSON_ROWS)).await.expect("begins");
        let total = u32::try_from(ROW_GROUP_ROWS * 2 + 1000).expect("fits");
        let mut from = 0;
        while from < total {
            let count = 50_000.min(total - from);
            writer.write(&rows(from, count)).await.expect("writes");
            from += count;
        }
        assert!(files.list("").await.expect("lists").is_empty(), "it is not there before it is finished");
        let info = writer.finish().await.expect("finishes");
        assert_eq!((info.path.as_str(), info.rows), ("people/t.parquet", u64::from(total)));
        assert_eq!(info.bytes, files.get("people/t.parquet").await.expect("gets").expect("there").len() as u64);
        assert_eq!(read_all(&files, &key, "people/t.parquet").await.expect("reads"), (0..total).collect::<Vec<_>>());
        let mut stream = read_table(&files, &key, "people/t.parquet").await.expect("opens");
        while let Some(batch) = stream.next().await {
            assert!(batch.expect("reads").num_rows() <= BATCH_ROWS);
        }
    }

    #[tokio::test]
    async fn an_empty_table_reads_as_empty() {
        let (_dir, files) = open();
        let key = key();
        files.put("s", encrypt_batches(&key, Arc::clone(&PERSON_ROWS), &[]).expect("encrypts")).await.expect("puts");
        assert_eq!(read_all(&files, &key, "s").await.expect("reads"), Vec::<u32>::new());
    }

    #[tokio::test]
    async fn another_key_opens_nothing_and_a_missing_file_says_so() {
        let (_dir, files) = open();
        files.put("s", encrypt_batches(&key(), Arc::clone(&PERSON_ROWS), &[rows(0, 10)]).expect("encrypts")).await.expect("puts");
        assert!(matches!(read_all(&files, &key(), "s").await, Err(StoreError::TableUnreadable { .. })));
        assert!(matches!(read_all(&files, &key(), "t").await, Err(StoreError::FileMissing { .. })));
    }

    #[tokio::test]
    async fn a_changed_byte_anywhere_is_noticed_and_none_ends_the_process() {
        let (_dir, files) = open();
        let key = key();
        let batch = rows(0, 40).project(&[4]).expect("projects");
        let good = encrypt_batches(&key, batch.schema(), std::slice::from_ref(&batch)).expect("encrypts");
        let path = files.root().join("s");
        let changes: [fn(u8) -> u8; 3] = [|_| 0, |byte| byte ^ 1, |byte| !byte];
        for (position, change) in (0..good.len()).flat_map(|p| changes.map(|c| (p, c))) {
            let mut bad = good.to_vec();
            bad[position] = change(bad[position]);
            std::fs::write(&path, bad).expect("writes");
            let found: Result<Vec<RecordBatch>, StoreError> = match read_table(&files, &key, "s").await {
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

    #[tokio::test]
    async fn rows_of_another_schema_are_refused_and_a_dropped_writer_leaves_nothing() {
        let (dir, files) = open();
        let mut writer = TableWriter::new(&files, &key(), "t", Arc::clone(&PERSON_ROWS)).await.expect("begins");
        let other = rows(0, 1).project(&[0]).expect("projects");
        assert!(matches!(writer.write(&other).await, Err(StoreError::TableUnwritable)));
        assert!(matches!(writer.finish().await, Err(StoreError::TableUnwritable)));
        assert_eq!(std::fs::read_dir(dir.path()).expect("lists").count(), 0);
    }
}
