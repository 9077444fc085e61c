//! Person rows of one range to an encrypted file.

use std::fmt::Write as _;

use arrow::array::RecordBatch;
use bytes::Bytes;
use starling_schemas::ids::{PartitionId, Sequence, Span, WindowId};
use starling_schemas::rows::{PERSON_ROWS, PRESENCE_ROWS};
use starling_store::{Files, KeyId, KeyKind, Keyring, KeyringError, SecretKey, SegmentRecord, encrypt_batches, killpoint};

use crate::{AggregateError, presence, rows};

/// Where the segments of a window lie.
pub(crate) fn segment_folder(window: WindowId) -> String {
    format!("segments/{window}/")
}

/// The path of the segment of one range and window: the same for every replay of the range.
///
/// Letters, digits, `.`, `_` and `-` of the source's name stay; every other byte becomes `=` and two hexadecimal digits, so that two
/// sources never share a path.
#[must_use]
pub fn segment_path(partition: &PartitionId, sequence: Sequence, window: impl Into<WindowId>) -> String {
    let name = file_name(&partition.source);
    format!("{}{name}-p{}-s{:012}.parquet", segment_folder(window.into()), partition.partition, sequence.0)
}

/// A source's name as a part of a file's: different names stay different.
pub(crate) fn file_name(source: &str) -> String {
    let mut name = String::with_capacity(source.len());
    for byte in source.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' => name.push(char::from(byte)),
            other => {
                let _ = write!(name, "={other:02x}");
            }
        }
    }
    name
}

/// The key under which person rows of a window are encrypted.
pub(crate) fn data_key(keyring: &Keyring, window: impl Into<WindowId>) -> Result<SecretKey, AggregateError> {
    let window = window.into();
    let id = KeyId { kind: KeyKind::Data, purpose: window.span.purpose(), epoch: window.epoch };
    keyring.get_or_create(id).map_err(|error| match error {
        KeyringError::Destroyed(..) => AggregateError::Expired { window },
        other => other.into(),
    })
}

/// Writes the person rows of one range and one window, encrypted under the window's data key, and says what to commit.
///
/// `rows`: for a day one batch of [`PERSON_ROWS`], strictly ascending by its key columns, as [`Folder::finish`](crate::Folder::finish) gives it;
/// for an hour, week or month one of [`PRESENCE_ROWS`], in any order. A replay of the range overwrites the file with an equal one. Durable on return.
///
/// # Errors
/// [`AggregateError::NotSorted`] and [`AggregateError::WrongColumn`] for other rows, [`AggregateError::Expired`] when the window's data key is
/// destroyed, and errors of store and keyring.
pub async fn write_segment(
    files: &Files,
    keyring: &Keyring,
    partition: &PartitionId,
    sequence: Sequence,
    window: impl Into<WindowId>,
    rows: &RecordBatch,
) -> Result<SegmentRecord, AggregateError> {
    encode_segment(keyring, partition, sequence, window, rows)?.write(files).await
}

/// The first half of [`write_segment`]: the rows as an encrypted file, in memory. Its own step, so that what encoding costs and what the disk
/// costs can be told apart.
///
/// # Errors
/// As [`write_segment`], but for the file store's.
pub fn encode_segment(
    keyring: &Keyring,
    partition: &PartitionId,
    sequence: Sequence,
    window: impl Into<WindowId>,
    rows: &RecordBatch,
) -> Result<EncodedSegment, AggregateError> {
    let window = window.into();
    let present;
    let (schema, rows) = match window.span {
        Span::Day => {
            rows::check_sorted(rows, &mut None, "a segment to be written")?;
            (&PERSON_ROWS, rows)
        }
        Span::Hour | Span::Week | Span::Month => {
            present = presence::sorted(rows)?;
            (&PRESENCE_ROWS, &present)
        }
    };
    let key = data_key(keyring, window)?;
    let bytes = encrypt_batches(&key, std::sync::Arc::clone(schema), std::slice::from_ref(rows))?;
    let record = SegmentRecord {
        window,
        path: segment_path(partition, sequence, window),
        rows: u64::try_from(rows.num_rows()).unwrap_or(u64::MAX),
        bytes: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
    };
    Ok(EncodedSegment { record, bytes })
}

/// A segment that is encrypted and not yet written.
pub struct EncodedSegment {
    record: SegmentRecord,
    bytes: Bytes,
}

impl EncodedSegment {
    /// Writes it, and says what to commit. Durable on return.
    ///
    /// # Errors
    /// Those of the file store.
    pub async fn write(self, files: &Files) -> Result<SegmentRecord, AggregateError> {
        files.put(&self.record.path, self.bytes).await?;
        killpoint::reached("after_segment_written");
        Ok(self.record)
    }
}

#[cfg(test)]
mod tests {
    use starling_schemas::ids::EpochId;

    use super::*;

    #[test]
    fn a_segments_path_is_named_by_its_range_alone() {
        let partition = PartitionId { source: "trace:may day".to_owned(), partition: 3 };
        assert_eq!(
            segment_path(&partition, Sequence(42), EpochId(20_458)),
            "segments/2026-01-05/trace=3amay=20day-p3-s000000000042.parquet"
        );
        assert_eq!(
            segment_path(&partition, Sequence(42), Span::Month.of(EpochId(20_458))),
            "segments/month-2025-12-15/trace=3amay=20day-p3-s000000000042.parquet"
        );
    }

    #[test]
    fn two_sources_never_share_a_path() {
        let names = ["trace:a", "trace_a", "trace=3aa", "trace/a", "../a", "trace:a-p0-s000000000000.parquet"];
        let paths: std::collections::HashSet<_> = names
            .iter()
            .map(|name| segment_path(&PartitionId { source: (*name).to_owned(), partition: 0 }, Sequence(0), EpochId(0)))
            .collect();
        assert_eq!(paths.len(), names.len());
        assert!(paths.iter().all(|path| path.matches('/').count() == 2), "{paths:?}");
    }
}
