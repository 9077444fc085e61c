//! Person rows at rest: Parquet with modular encryption.
//!
//! The footer is encrypted too, so a file shows neither column names nor counts. One key, the epoch's data key, serves all columns: AES-256-GCM
//! (`parquet` takes 32-byte keys as they are). Pages are authenticated against a random value of their own file, so pages cannot be moved
//! between files or places without notice. Values never appear in clear: no statistics outside the encrypted footer, no plain page
//! headers.
//!
//! ```text
//!  batches ─► TableWriter ─► Draft: people/<day>.parquet#123 ─ sync ─ rename ─► people/<day>.parquet ─► read_table ─► batches
//!                            or an upload in parts, on S3
//!                 one row group in memory                                           one row group's pages in memory
//! ```

use std::io;
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
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt};
use parquet::arrow::ArrowWriter;
use parquet::arrow::ParquetRecordBatchStreamBuilder;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::basic::{Compression, ZstdLevel};
use parquet::encryption::decrypt::FileDecryptionProperties;
use parquet::encryption::encrypt::FileEncryptionProperties;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;

use crate::error::StoreError;
use crate::faultpoint;
use crate::files::{Draft, Files, blocking, file_error, object_path};
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

/// How tables are laid out, before they are encrypted.
///
/// Pseudonyms are random bytes, each but a few times in a table: neither a dictionary nor compression finds anything in them, and both would
/// cost more than all the rest. Nobody asks for a table's statistics: tables are read whole, in order.
#[must_use]
pub fn plain_properties() -> WriterPropertiesBuilder {
    let person = ColumnPath::from("person");
    WriterProperties::builder()
        .set_created_by("starling".to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_statistics_enabled(EnabledStatistics::None)
        .set_column_dictionary_enabled(person.clone(), false)
        .set_column_compression(person, Compression::UNCOMPRESSED)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
}

fn writer_properties(key: &SecretKey) -> Result<WriterProperties, StoreError> {
    let encryption = FileEncryptionProperties::builder(key.expose().to_vec()).build().map_err(|_| StoreError::TableUnwritable)?;
    Ok(plain_properties().with_file_encryption_properties(encryption).build())
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
    writer: ArrowWriter<Draft>,
    schema: SchemaRef,
    path: String,
    rows: u64,
}

impl TableWriter {
    /// Begins a table at `path`. What is there stays until [`Self::finish`].
    ///
    /// # Errors
    /// [`StoreError::PathRefused`], [`StoreError::File`], [`StoreError::Object`], [`StoreError::TableUnwritable`] for a schema that Parquet cannot hold.
    pub async fn new(files: &Files, key: &SecretKey, path: &str, schema: SchemaRef) -> Result<Self, StoreError> {
        let properties = writer_properties(key)?;
        let draft = files.draft(path).await?;
        let writer = ArrowWriter::try_new(draft, Arc::clone(&schema), Some(properties)).map_err(|e| unwritable(path, &e))?;
        Ok(Self { inner: Some(Box::new(OpenTable { writer, schema, path: path.to_owned(), rows: 0 })) })
    }

    /// Appends a batch.
    ///
    /// # Errors
    /// [`StoreError::TableUnwritable`] when the batch is not of the schema, [`StoreError::File`] when the disk is full or fails;
    /// [`StoreError::Object`]. The writer is of no use afterwards.
    pub async fn write(&mut self, batch: &RecordBatch) -> Result<(), StoreError> {
        let mut open = self.inner.take().ok_or(StoreError::TableUnwritable)?;
        let batch = batch.clone();
        let mut open = blocking(move || {
            check_columns(&open.schema, &batch)?;
            open.writer.write(&batch).map_err(|e| unwritable(&open.path, &e))?;
            open.rows += batch.num_rows() as u64;
            Ok(open)
        })
        .await?;
        open.writer.inner_mut().send().await?;
        self.inner = Some(open);
        Ok(())
    }

    /// Puts the file in place, durable, replacing what was there.
    ///
    /// # Errors
    /// [`StoreError::TableUnwritable`], [`StoreError::File`], [`StoreError::Object`].
    pub async fn finish(self) -> Result<TableInfo, StoreError> {
        let open = self.inner.ok_or(StoreError::TableUnwritable)?;
        let OpenTable { writer, path, rows, .. } = *open;
        let (draft, path) = blocking(move || {
            let draft = writer.into_inner().map_err(|e| unwritable(&path, &e))?;
            Ok((draft, path))
        })
        .await?;
        let bytes = draft.finish().await?;
        Ok(TableInfo { path, rows, bytes })
    }
}

/// Opens an encrypted table (or segment) and streams its batches, in order, holding the pages of one row group at a time.
///
/// On S3 that is one request for the footer, which brings a small table whole, and one for each row group.
///
/// # Errors
/// [`StoreError::FileMissing`]; [`StoreError::TableUnreadable`] for a wrong key or changed bytes, here or as an item of the stream;
/// [`StoreError::File`] and [`StoreError::Object`] where the bytes could not be had, which says nothing about the table.
pub async fn read_table(
    files: &Files,
    key: &SecretKey,
    path: &str,
) -> Result<BoxStream<'static, Result<RecordBatch, StoreError>>, StoreError> {
    let reader = TableReader::open(files, path).await?;
    let options = ArrowReaderOptions::new().with_file_decryption_properties(decryption_properties(key)?);
    let (files, path) = (files.clone(), path.to_owned());
    // Parquet's decryption takes lengths from the file and panics on some that cannot be: a damaged file must not end the process (I8).
    let panicked = {
        let path = path.clone();
        move || StoreError::TableUnreadable { path: path.clone() }
    };
    let failed = move |error: ParquetError| unreadable(&files, &path, &error);
    let stream = AssertUnwindSafe(ParquetRecordBatchStreamBuilder::new_with_options(reader, options))
        .catch_unwind()
        .await
        .map_err(|_| panicked())?
        .map_err(&failed)?
        .with_batch_size(BATCH_ROWS)
        .build()
        .map_err(&failed)?;
    let stream = AssertUnwindSafe(stream).catch_unwind();
    Ok(stream.map(move |batch| batch.map_err(|_| panicked())?.map_err(&failed)).boxed())
}

/// A failed write is the disk's or the batch's.
fn unwritable(path: &str, error: &ParquetError) -> StoreError {
    match error {
        ParquetError::External(e) => match e.downcast_ref::<io::Error>() {
            Some(e) => file_error("writing", path, e),
            None => StoreError::TableUnwritable,
        },
        _ => StoreError::TableUnwritable,
    }
}

/// A failed read is the store's, or the bytes are not what the key made.
fn unreadable(files: &Files, path: &str, error: &ParquetError) -> StoreError {
    match error {
        ParquetError::External(e) => match (e.downcast_ref::<object_store::Error>(), e.downcast_ref::<io::Error>()) {
            (Some(e), _) => files.failed("reading", path, e),
            (None, Some(e)) => file_error("reading", path, e),
            (None, None) => StoreError::TableUnreadable { path: path.to_owned() },
        },
        _ => StoreError::TableUnreadable { path: path.to_owned() },
    }
}

/// Bytes that are read from a table's end at once: the footer of most tables, and the whole of many segments.
const TAIL_BYTES: u64 = 64 * 1024;

/// A file of the object store as Parquet's reader wants it.
struct TableReader {
    store: Arc<dyn ObjectStore>,
    location: ObjectPath,
    size: u64,
    tail: Bytes,
}

impl TableReader {
    async fn open(files: &Files, path: &str) -> Result<Self, StoreError> {
        let (store, location) = (files.object_store(), object_path(path)?);
        faultpoint::check("table_read").map_err(|e| file_error("reading", path, &e))?;
        let options = GetOptions { range: Some(GetRange::Suffix(TAIL_BYTES)), ..GetOptions::default() };
        let read = async {
            let found = store.get_opts(&location, options).await?;
            Ok((found.meta.size, found.bytes().await?))
        };
        let (size, tail) = read.await.map_err(|e| files.failed("reading", path, &e))?;
        Ok(Self { store, location, size, tail })
    }

    /// The bytes of this range, if they were read with the tail. An error where the file ends before.
    fn tail_part(&self, range: &Range<u64>) -> parquet::errors::Result<Option<Bytes>> {
        if range.start > range.end || range.end > self.size {
            return Err(ParquetError::EOF("the file ends before".to_owned()));
        }
        let Some(start) = range.start.checked_sub(self.size - self.tail.len() as u64) else { return Ok(None) };
        let at = |n: u64| usize::try_from(n).map_err(|_| ParquetError::EOF("the file is too large".to_owned()));
        Ok(Some(self.tail.slice(at(start)?..at(start + (range.end - range.start))?)))
    }
}

impl AsyncFileReader for TableReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        async move {
            faultpoint::check("table_read")?;
            match self.tail_part(&range)? {
                Some(bytes) => Ok(bytes),
                None => self.store.get_range(&self.location, range).await.map_err(|e| ParquetError::External(Box::new(e))),
            }
        }
        .boxed()
    }

    /// Ranges that lie together are read together.
    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        async move {
            faultpoint::check("table_read")?;
            let known = ranges.iter().map(|range| self.tail_part(range)).collect::<Result<Option<Vec<_>>, _>>()?;
            match known {
                Some(bytes) => Ok(bytes),
                None => self.store.get_ranges(&self.location, &ranges).await.map_err(|e| ParquetError::External(Box::new(e))),
            }
        }
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
