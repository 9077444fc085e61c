//! An answer as a Delta table of its own: one Parquet file and one commit, for whoever goes on with it in another program.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use bytes::Bytes;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::basic::{Compression, ZstdLevel};
use datafusion::parquet::file::properties::WriterProperties;
use serde_json::json;

use super::{Log, actions, fields, table_id};
use crate::answer::Answer;
use crate::error::{INTERNAL, NOT_PERMITTED, QueryError, name};

/// Name of the file of rows, below the table's folder.
pub const ROWS: &str = "answer.parquet";
/// Name of the commit, below the table's folder. The table is there when this is.
pub const COMMIT: &str = "_delta_log/00000000000000000000.json";

/// The two files of a table that holds an answer: [`ROWS`] and [`COMMIT`]. `said`: what was asked, for the table's description.
///
/// # Errors
/// 42501 for columns whose names or types Delta does not have, with what to write.
pub fn keep(answer: &Answer, said: &str, now_ms: i64) -> Result<[Bytes; 2], QueryError> {
    let mut seen = BTreeSet::new();
    let mut kinds = Vec::new();
    for field in answer.schema.fields() {
        let called = field.name();
        if called.is_empty()
            || called.contains([' ', ',', ';', '{', '}', '(', ')', '\n', '\t', '='])
            || !seen.insert(called.to_lowercase())
        {
            return Err(QueryError::new(
                NOT_PERMITTED,
                format!("a Delta table cannot have the column {}", name(called)),
                "give each column a name of its own with AS, without blanks and any of ,;{}()=",
            ));
        }
        let kind = kind(field.data_type()).ok_or_else(|| {
            QueryError::new(
                NOT_PERMITTED,
                format!("a Delta table cannot have the type of the column {}", name(called)),
                "CAST it AS VARCHAR or DOUBLE",
            )
        })?;
        kinds.push(Field::new(called, kind, true).with_metadata(field.metadata().clone()));
    }
    let schema = Arc::new(Schema::new(kinds));
    let internal = || QueryError::new(INTERNAL, "the answer could not be written", "write the statement in another way");
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_created_by("starling".to_owned())
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), Arc::clone(&schema), Some(properties)).map_err(|_| internal())?;
    for batch in &answer.batches {
        let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| cast(column, field.data_type()));
        let columns: Vec<ArrayRef> = columns.collect::<Result<_, _>>().map_err(|_| internal())?;
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns).map_err(|_| internal())?;
        writer.write(&batch).map_err(|_| internal())?;
    }
    let rows = Bytes::from(writer.into_inner().map_err(|_| internal())?);
    let named = blake3::hash(&rows).to_hex();
    let table = json!({
        "id": table_id(&named),
        "name": "answer",
        "description": said,
        "format": { "provider": "parquet", "options": {} },
        "schemaString": fields(&schema).ok_or_else(internal)?,
        "partitionColumns": [],
        "createdTime": now_ms,
        "configuration": {},
    });
    let add = json!({ "add": {
        "path": ROWS,
        "partitionValues": {},
        "size": rows.len(),
        "modificationTime": now_ms,
        "dataChange": true,
        "stats": json!({ "numRecords": answer.rows() }).to_string(),
    }});
    Ok([rows, actions(&Log::default(), now_ms, Some(table), vec![add])])
}

/// The type of Delta that holds a column's values; `None` if none does.
fn kind(of: &DataType) -> Option<DataType> {
    Some(match of {
        DataType::Dictionary(_, value) => kind(value)?,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => DataType::Utf8,
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => DataType::Int64,
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 => DataType::Int64,
        // What does not fit has no whole number there.
        DataType::UInt64 | DataType::Float16 | DataType::Float32 | DataType::Float64 => DataType::Float64,
        DataType::Boolean => DataType::Boolean,
        DataType::Date32 | DataType::Date64 => DataType::Date32,
        DataType::Timestamp(..) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        _ => return None,
    })
}
