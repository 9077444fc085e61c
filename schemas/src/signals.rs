//! How integrity signals travel: Arrow IPC streams whose schema metadata says which committed range they came from.
//!
//! The same bytes are the value of a message on `integrity.signals` and the content of a file of the local signal log. A range that is
//! replayed after a crash yields the same batches under the same (origin, sequence, chunk), so a reader drops what it has seen.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{Schema, UInt8Type};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use arrow_ipc::CompressionType;
use arrow_ipc::writer::IpcWriteOptions;

use crate::codes::SignalKind;
use crate::ids::{PartitionId, Sequence};
use crate::rows::SIGNALS;

/// Signals of one committed range, or a part of them.
#[derive(Debug, Clone)]
pub struct SignalBatch {
    /// Partition of `events` the range was read from.
    pub origin: PartitionId,
    /// Number of the range in that partition.
    pub sequence: Sequence,
    /// Part of the range, from 0.
    pub chunk: u32,
    /// Rows of [`SIGNALS`].
    pub rows: RecordBatch,
}

/// Bytes that are no signal batch.
#[derive(Debug, thiserror::Error)]
pub enum SignalError {
    /// Not an Arrow IPC stream of the signals schema.
    #[error("a message on the signals topic is no Arrow IPC stream of signals: is another producer writing there?")]
    NotSignals,
    /// Arrow refused to write. The text is Arrow's, over schemas only.
    #[error("signals could not be written: {0}")]
    Write(#[source] ArrowError),
}

impl SignalBatch {
    /// Encodes as an Arrow IPC stream of one batch.
    ///
    /// # Errors
    /// [`SignalError::Write`] when the rows are not of [`SIGNALS`].
    pub fn encode(&self) -> Result<Vec<u8>, SignalError> {
        let metadata = HashMap::from([
            ("origin".to_owned(), self.origin.source.clone()),
            ("partition".to_owned(), self.origin.partition.to_string()),
            ("sequence".to_owned(), self.sequence.to_string()),
            ("chunk".to_owned(), self.chunk.to_string()),
        ]);
        let schema = Arc::new(Schema::new(SIGNALS.fields().clone()).with_metadata(metadata));
        let rows = self.rows.clone().with_schema(Arc::clone(&schema)).map_err(SignalError::Write)?;
        // Most signals are of one kind, so most columns are nearly all zeros; what LZ4 finds nothing in it passes over quickly. Half the bytes
        // are then encrypted, written and synced.
        let options =
            IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME)).map_err(SignalError::Write)?;
        let mut writer = StreamWriter::try_new_with_options(Vec::new(), &schema, options).map_err(SignalError::Write)?;
        writer.write(&rows).map_err(SignalError::Write)?;
        writer.into_inner().map_err(SignalError::Write)
    }

    /// Decodes what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// [`SignalError::NotSignals`], which says nothing of the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, SignalError> {
        let mut reader = StreamReader::try_new(bytes, None).map_err(|_| SignalError::NotSignals)?;
        let schema = reader.schema();
        let text = |key: &str| schema.metadata().get(key).ok_or(SignalError::NotSignals);
        let origin = PartitionId {
            source: text("origin")?.clone(),
            partition: text("partition")?.parse().map_err(|_| SignalError::NotSignals)?,
        };
        let sequence = Sequence(text("sequence")?.parse().map_err(|_| SignalError::NotSignals)?);
        let chunk = text("chunk")?.parse().map_err(|_| SignalError::NotSignals)?;
        if schema.fields() != SIGNALS.fields() {
            return Err(SignalError::NotSignals);
        }
        let rows = reader.next().ok_or(SignalError::NotSignals)?.map_err(|_| SignalError::NotSignals)?;
        let rows = RecordBatch::try_new(Arc::clone(&SIGNALS), rows.columns().to_vec()).map_err(|_| SignalError::NotSignals)?;
        Ok(Self { origin, sequence, chunk, rows })
    }
}

/// Splits rows of [`SIGNALS`] by subject over `partitions` parts, keeping their order, so that all signals of a subject meet in one place.
///
/// The subject is the person of a sender's signal, the business of a business's, the group of a group's. Empty parts are `None`.
///
/// # Errors
/// [`SignalError::Write`] when the rows are not of [`SIGNALS`].
pub fn route(rows: &RecordBatch, partitions: u32) -> Result<Vec<Option<RecordBatch>>, SignalError> {
    if partitions <= 1 {
        return Ok(vec![(rows.num_rows() > 0).then(|| rows.clone())]);
    }
    let wrong = || SignalError::Write(ArrowError::SchemaError("rows are not of the signals schema".to_owned()));
    let column = |name: &str| rows.column_by_name(name).ok_or_else(wrong);
    let kind = column("kind")?.as_primitive_opt::<UInt8Type>().ok_or_else(wrong)?;
    let person = column("person")?.as_fixed_size_binary_opt().ok_or_else(wrong)?;
    let group = column("group")?.as_fixed_size_binary_opt().ok_or_else(wrong)?;
    let business = column("business")?.as_string_opt::<i32>().ok_or_else(wrong)?;
    let mut parts: Vec<Vec<u32>> = vec![Vec::new(); partitions as usize];
    for row in 0..rows.num_rows() {
        let subject: &[u8] = match SignalKind::from_code(kind.value(row)) {
            Some(SignalKind::MessageSent) if person.is_valid(row) => person.value(row),
            Some(
                SignalKind::MembersAdded
                | SignalKind::GroupJoined
                | SignalKind::GroupLeft
                | SignalKind::GroupReported
                | SignalKind::GroupCreated,
            ) if group.is_valid(row) => group.value(row),
            _ if business.is_valid(row) => business.value(row).as_bytes(),
            _ if person.is_valid(row) => person.value(row),
            _ => &[],
        };
        // FNV-1a: spreads business names too; pseudonyms are uniform already.
        let hash = subject.iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
        let part = usize::try_from((hash >> 32) % u64::from(partitions)).unwrap_or_default();
        parts[part].push(u32::try_from(row).unwrap_or(u32::MAX));
    }
    parts
        .into_iter()
        .map(|indices| {
            if indices.is_empty() {
                return Ok(None);
            }
            take_record_batch(rows, &UInt32Array::from(indices)).map(Some).map_err(SignalError::Write)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::new_empty_array;

    #[test]
    fn a_batch_comes_back_with_its_origin() {
        let rows =
            RecordBatch::try_new(Arc::clone(&SIGNALS), SIGNALS.fields().iter().map(|f| new_empty_array(f.data_type())).collect())
                .expect("empty");
        let batch =
            SignalBatch { origin: PartitionId { source: "events".into(), partition: 3 }, sequence: Sequence(9), chunk: 1, rows };
        let back = SignalBatch::decode(&batch.encode().expect("encodes")).expect("decodes");
        assert_eq!((back.origin, back.sequence, back.chunk), (batch.origin, batch.sequence, 1));
    }

    #[test]
    fn foreign_bytes_are_refused_without_being_quoted() {
        let error = SignalBatch::decode(b"+491701234567").expect_err("no signals");
        assert!(!error.to_string().contains("49170"));
    }
}
