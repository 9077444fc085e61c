//! How integrity signals travel: Arrow IPC streams whose schema metadata says which committed range they came from.
//!
//! The same bytes are the value of a message on `integrity.signals` and the content of a file of the local signal log. A range that is
//! replayed after a crash yields the same batches under the same (origin, sequence, chunk), so a reader drops what it has seen.
//!
//! # Privacy
//! A message of b to a gives two rows, b's contact and an answer that has the token of a's contact. They stand beside each other, so whoever reads the
//! tokens can join a and b, which nothing at rest may do (I5). Hence they are *covered* wherever rows are written: [`SignalBatch::cover`] encrypts them, and
//! them alone, under a key that lives as long as tokens do.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeBinaryArray, RecordBatch, UInt32Array, new_null_array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{Schema, UInt8Type};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use arrow_ipc::CompressionType;
use arrow_ipc::writer::IpcWriteOptions;

use crate::codes::SignalKind;
use crate::ids::{PartitionId, Sequence};
use crate::rows::{SIGNALS, TOKEN_BYTES};

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
    /// What uncovers the tokens of pairs, beside the key; `None` when there are none, or they are bare.
    pub cover: Option<String>,
}

/// Columns of tokens.
const TOKENS: [&str; 2] = ["pair", "pair_before"];

/// How many columns [`SIGNALS`] had before there were tokens, before it said how old the account is that a contact went to, before groups were
/// held against lists, and before blocks and reports had a voice and templates were named. Such batches are still read.
const FIELDS_BEFORE: [usize; 4] = [15, 17, 18, 20];

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
        let mut metadata = HashMap::from([
            ("origin".to_owned(), self.origin.source.clone()),
            ("partition".to_owned(), self.origin.partition.to_string()),
            ("sequence".to_owned(), self.sequence.to_string()),
            ("chunk".to_owned(), self.chunk.to_string()),
        ]);
        metadata.extend(self.cover.iter().map(|cover| ("cover".to_owned(), cover.clone())));
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
        let (fields, wanted) = (schema.fields(), SIGNALS.fields());
        if fields[..] != wanted[..] && !FIELDS_BEFORE.iter().any(|known| fields[..] == wanted[..*known]) {
            return Err(SignalError::NotSignals);
        }
        let cover = schema.metadata().get("cover").cloned();
        let rows = reader.next().ok_or(SignalError::NotSignals)?.map_err(|_| SignalError::NotSignals)?;
        let missing = wanted.iter().skip(fields.len()).map(|field| new_null_array(field.data_type(), rows.num_rows()));
        let columns = rows.columns().iter().cloned().chain(missing).collect();
        let rows = RecordBatch::try_new(Arc::clone(&SIGNALS), columns).map_err(|_| SignalError::NotSignals)?;
        Ok(Self { origin, sequence, chunk, rows, cover })
    }

    /// Every token there is, one after the other.
    ///
    /// # Errors
    /// [`SignalError::Write`] when the rows are not of [`SIGNALS`].
    pub fn tokens(&self) -> Result<Vec<u8>, SignalError> {
        let mut out = Vec::new();
        for name in TOKENS {
            out.extend(token_column(&self.rows, name)?.iter().flatten().flatten());
        }
        Ok(out)
    }

    /// Puts other bytes in place of the tokens, as many as [`Self::tokens`] gave: what encrypts them has made of them, or what decrypts them. `cover`: what
    /// is needed to do that. `None` for the bytes takes all tokens away, for ever.
    ///
    /// # Errors
    /// [`SignalError::Write`] when the rows are not of [`SIGNALS`], or for another number of bytes.
    pub fn cover(&mut self, bytes: Option<&[u8]>, cover: Option<String>) -> Result<(), SignalError> {
        let mut columns = self.rows.columns().to_vec();
        let mut left = bytes.unwrap_or_default().chunks_exact(TOKEN_BYTES.unsigned_abs() as usize);
        for name in TOKENS {
            let before = token_column(&self.rows, name)?;
            let mut next = |is_there: bool| if is_there { left.next() } else { None };
            let tokens: Vec<Option<&[u8]>> = (0..before.len()).map(|row| next(before.is_valid(row))).collect();
            if bytes.is_some() && tokens.iter().filter(|t| t.is_none()).count() != before.null_count() {
                return Err(not_of_the_schema());
            }
            let after = FixedSizeBinaryArray::try_from_sparse_iter_with_size(tokens.into_iter(), TOKEN_BYTES);
            let place = SIGNALS.index_of(name).map_err(SignalError::Write)?;
            let column: ArrayRef = Arc::new(after.map_err(SignalError::Write)?);
            *columns.get_mut(place).ok_or_else(not_of_the_schema)? = column;
        }
        if left.next().is_some() {
            return Err(not_of_the_schema());
        }
        self.rows = RecordBatch::try_new(Arc::clone(&SIGNALS), columns).map_err(SignalError::Write)?;
        self.cover = cover;
        Ok(())
    }
}

fn not_of_the_schema() -> SignalError {
    SignalError::Write(ArrowError::SchemaError("rows are not of the signals schema".to_owned()))
}

fn token_column<'a>(rows: &'a RecordBatch, name: &str) -> Result<&'a FixedSizeBinaryArray, SignalError> {
    let column = rows.column_by_name(name).ok_or_else(not_of_the_schema)?;
    column.as_fixed_size_binary_opt().filter(|c| c.value_length() == TOKEN_BYTES).ok_or_else(not_of_the_schema)
}

/// Splits rows of [`SIGNALS`] by subject over `partitions` parts, keeping their order, so that all signals of a subject meet in one place.
///
/// The subject is the person of a sender's signal, the business of a business's, the group of a group's. Contacts go to the first `of_pairs` parts by
/// their sender, and an answer to each of those, as nobody may know whose contact it answers. Where that is one part, a sender's days
/// meet in it; elsewhere they rarely do. What is about businesses goes to the same parts, by business: where that is one, all numbers of a portfolio meet
/// in it. A block names no portfolio, so portfolios cannot be what it goes by. Empty parts are `None`.
///
/// # Errors
/// [`SignalError::Write`] when the rows are not of [`SIGNALS`].
pub fn route(rows: &RecordBatch, partitions: u32, of_pairs: u32) -> Result<Vec<Option<RecordBatch>>, SignalError> {
    if partitions <= 1 {
        return Ok(vec![(rows.num_rows() > 0).then(|| rows.clone())]);
    }
    let wrong = not_of_the_schema;
    let column = |name: &str| rows.column_by_name(name).ok_or_else(wrong);
    let kind = column("kind")?.as_primitive_opt::<UInt8Type>().ok_or_else(wrong)?;
    let person = column("person")?.as_fixed_size_binary_opt().ok_or_else(wrong)?;
    let group = column("group")?.as_fixed_size_binary_opt().ok_or_else(wrong)?;
    let business = column("business")?.as_string_opt::<i32>().ok_or_else(wrong)?;
    let mut parts: Vec<Vec<u32>> = vec![Vec::new(); partitions as usize];
    for row in 0..rows.num_rows() {
        let kind = SignalKind::from_code(kind.value(row));
        let subject: &[u8] = match kind {
            Some(SignalKind::Answered) => {
                let of_pairs = parts.iter_mut().take(of_pairs.max(1) as usize);
                of_pairs.for_each(|part| part.push(u32::try_from(row).unwrap_or(u32::MAX)));
                continue;
            }
            Some(SignalKind::MessageSent | SignalKind::Contact | SignalKind::GroupMade) if person.is_valid(row) => {
                person.value(row)
            }
            Some(
                SignalKind::MembersAdded
                | SignalKind::GroupJoined
                | SignalKind::GroupLeft
                | SignalKind::GroupReported
                | SignalKind::GroupCreated
                | SignalKind::GroupListed,
            ) if group.is_valid(row) => group.value(row),
            _ if business.is_valid(row) => business.value(row).as_bytes(),
            _ if person.is_valid(row) => person.value(row),
            _ => &[],
        };
        // FNV-1a: spreads business names too; pseudonyms are uniform already.
        let hash = subject.iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
        let meets = kind == Some(SignalKind::Contact) || business.is_valid(row);
        let of = if meets { of_pairs.clamp(1, partitions) } else { partitions };
        let part = usize::try_from((hash >> 32) % u64::from(of)).unwrap_or_default();
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
    use arrow::array::{StringArray, UInt8Array, new_empty_array};
    use arrow::datatypes::DataType;

    fn batch(rows: RecordBatch) -> SignalBatch {
        let origin = PartitionId { source: "events".into(), partition: 3 };
        SignalBatch { origin, sequence: Sequence(9), chunk: 1, rows, cover: None }
    }

    /// Three rows: a message, its contact, its answer.
    fn three() -> RecordBatch {
        use arrow::array::{BooleanArray, Date32Array, TimestampMillisecondArray, UInt16Array, UInt64Array};
        let bytes = |values: [Option<&[u8]>; 3], size| -> ArrayRef {
            Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(values.into_iter(), size).expect("sizes"))
        };
        let kinds = [SignalKind::MessageSent, SignalKind::Contact, SignalKind::Answered].map(SignalKind::code);
        let zeros: ArrayRef = Arc::new(UInt8Array::from(vec![0; 3]));
        let no: ArrayRef = Arc::new(BooleanArray::from(vec![false; 3]));
        let ones: ArrayRef = Arc::new(UInt32Array::from(vec![1; 3]));
        let texts = || new_null_array(SIGNALS.field(6).data_type(), 3);
        let columns = vec![
            Arc::new(UInt8Array::from(kinds.to_vec())) as ArrayRef,
            Arc::new(TimestampMillisecondArray::from(vec![5; 3])),
            Arc::new(Date32Array::from(vec![1; 3])),
            Arc::clone(&no),
            bytes([Some(&[7; 16]), Some(&[7; 16]), None], 16),
            bytes([None; 3], 16),
            texts(),
            texts(),
            Arc::clone(&zeros),
            Arc::clone(&zeros),
            zeros,
            no,
            Arc::clone(&ones),
            ones,
            Arc::new(UInt64Array::from(vec![None::<u64>; 3])),
            bytes([None, Some(&[1; 8]), Some(&[2; 8])], 8),
            bytes([None, Some(&[3; 8]), Some(&[4; 8])], 8),
            Arc::new(BooleanArray::from(vec![None, Some(true), None])),
            texts(),
            new_null_array(&DataType::UInt8, 3),
            Arc::new(UInt16Array::from(vec![Some(0x307), None, None])),
            texts(),
        ];
        RecordBatch::try_new(Arc::clone(&SIGNALS), columns).expect("signals")
    }

    #[test]
    fn a_batch_comes_back_with_its_origin() {
        let rows =
            RecordBatch::try_new(Arc::clone(&SIGNALS), SIGNALS.fields().iter().map(|f| new_empty_array(f.data_type())).collect())
                .expect("empty");
        let batch = batch(rows);
        let back = SignalBatch::decode(&batch.encode().expect("encodes")).expect("decodes");
        assert_eq!((back.origin, back.sequence, back.chunk), (batch.origin, batch.sequence, 1));
    }

    #[test]
    fn tokens_are_covered_and_uncovered_in_their_places_and_nothing_else_changes() {
        let bare = batch(three());
        let tokens = bare.tokens().expect("signals");
        assert_eq!(tokens, [[1; 8], [2; 8], [3; 8], [4; 8]].concat());
        let mut covered = bare.clone();
        let flipped: Vec<u8> = tokens.iter().map(|b| b ^ 0xa5).collect();
        covered.cover(Some(&flipped), Some("how".into())).expect("as many");
        let mut back = SignalBatch::decode(&covered.encode().expect("encodes")).expect("decodes");
        assert_eq!((back.cover.as_deref(), back.tokens().expect("signals")), (Some("how"), flipped.clone()));
        back.cover(Some(&tokens), None).expect("as many");
        assert_eq!((&back.rows, back.cover), (&bare.rows, None));
        for wrong in [&tokens[8..], &[&tokens[..], &[0; 8]].concat()] {
            assert!(covered.cover(Some(wrong), None).is_err());
        }
        covered.cover(None, None).expect("signals");
        assert_eq!((covered.tokens().expect("signals"), covered.rows.num_rows()), (Vec::new(), 3));
    }

    #[test]
    fn a_batch_from_before_there_were_columns_is_read_as_one_without() {
        let rows = three();
        for known in FIELDS_BEFORE {
            let back = read_back(&rows, known);
            let tokens = if known == 15 { 0 } else { 32 };
            assert_eq!((back.rows.num_rows(), back.tokens().expect("signals").len()), (3, tokens));
            assert_eq!(back.rows["to_new_account"].null_count(), if known < 18 { 3 } else { 2 });
            assert_eq!(["list", "listed", "voice", "template"].map(|name| back.rows[name].null_count()), [3; 4]);
        }
    }

    /// The first columns alone, written and read.
    fn read_back(rows: &RecordBatch, known: usize) -> SignalBatch {
        let fields: Vec<_> = SIGNALS.fields().iter().take(known).cloned().collect();
        let numbers = ["partition", "sequence", "chunk"].map(|key| (key.to_owned(), "3".to_owned()));
        let metadata = numbers.into_iter().chain([("origin".to_owned(), "events".to_owned())]).collect();
        let schema = Arc::new(Schema::new(fields).with_metadata(metadata));
        let old = RecordBatch::try_new(Arc::clone(&schema), rows.columns()[..known].to_vec()).expect("rows");
        let mut writer = StreamWriter::try_new(Vec::new(), &schema).expect("writer");
        writer.write(&old).expect("written");
        SignalBatch::decode(&writer.into_inner().expect("bytes")).expect("still read")
    }

    #[test]
    fn an_answer_goes_to_every_part_that_takes_contacts() {
        let kinds = |of_pairs| -> Vec<Vec<u8>> {
            let parts = route(&three(), 4, of_pairs).expect("routes");
            let kinds = |p: &RecordBatch| p["kind"].as_primitive::<UInt8Type>().values().to_vec();
            parts.iter().map(|part| part.as_ref().map_or(Vec::new(), kinds)).collect()
        };
        let [sent, contact, answered] =
            [SignalKind::MessageSent, SignalKind::Contact, SignalKind::Answered].map(SignalKind::code);
        let with = |kind: u8, parts: &[Vec<u8>]| -> Vec<bool> { parts.iter().map(|p| p.contains(&kind)).collect() };
        assert_eq!(with(answered, &kinds(4)), [true; 4]);
        assert_eq!(with(answered, &kinds(2)), [true, true, false, false]);
        for of_pairs in [0, 1] {
            let parts = kinds(of_pairs);
            assert_eq!(
                (with(answered, &parts), with(contact, &parts)),
                (vec![true, false, false, false], vec![true, false, false, false])
            );
            assert_eq!(parts.iter().flatten().filter(|k| **k == sent).count(), 1, "other signals go where they always did");
        }
        assert_eq!(with(contact, &kinds(4)), with(sent, &kinds(4)), "by the sender");
    }

    #[test]
    fn what_is_about_businesses_meets_in_the_parts_that_take_contacts() {
        let rows = three();
        let names: Vec<String> = (0..3).map(|n| format!("shop-{n}")).collect();
        let businesses = Arc::new(StringArray::from(names)) as ArrayRef;
        let kinds = Arc::new(UInt8Array::from(vec![SignalKind::BusinessSent.code(); 3])) as ArrayRef;
        let schema = rows.schema();
        let columns = schema.fields().iter().zip(rows.columns()).map(|(field, column)| match field.name().as_str() {
            "business" => Arc::clone(&businesses),
            "kind" => Arc::clone(&kinds),
            _ => Arc::clone(column),
        });
        let rows = RecordBatch::try_new(Arc::clone(&SIGNALS), columns.collect()).expect("rows");
        for (of_pairs, used) in [(1, 1), (2, 2)] {
            let parts = route(&rows, 4, of_pairs).expect("routes");
            assert!(parts.iter().skip(used).all(Option::is_none), "{of_pairs}");
            assert_eq!(parts.iter().flatten().map(RecordBatch::num_rows).sum::<usize>(), 3);
        }
    }

    /// What is about one subject, of three kinds, with a person and a group in every row.
    fn of_subjects(kinds: [SignalKind; 3]) -> RecordBatch {
        let rows = three();
        let keyed = |from: u8| -> ArrayRef {
            Arc::new(FixedSizeBinaryArray::try_from_iter((from..from + 3).map(|n| [n; 16])).expect("sizes"))
        };
        let (people, groups) = (keyed(40), keyed(90));
        let kinds = Arc::new(UInt8Array::from(kinds.map(SignalKind::code).to_vec())) as ArrayRef;
        let schema = rows.schema();
        let columns = schema.fields().iter().zip(rows.columns()).map(|(field, column)| match field.name().as_str() {
            "kind" => Arc::clone(&kinds),
            "person" => Arc::clone(&people),
            "group" => Arc::clone(&groups),
            _ => Arc::clone(column),
        });
        RecordBatch::try_new(Arc::clone(&SIGNALS), columns.collect()).expect("rows")
    }

    #[test]
    fn i9_a_maker_of_groups_meets_its_messages_and_a_listed_group_what_else_is_of_it() {
        for (one, other) in
            [(SignalKind::GroupMade, SignalKind::MessageSent), (SignalKind::GroupListed, SignalKind::GroupReported)]
        {
            let sizes = |kind| -> Vec<usize> {
                let parts = route(&of_subjects([kind; 3]), 64, 1).expect("routes");
                parts.iter().map(|part| part.as_ref().map_or(0, RecordBatch::num_rows)).collect()
            };
            assert_eq!(sizes(one), sizes(other), "{one} goes elsewhere than {other}");
        }
        assert_ne!(
            route(&of_subjects([SignalKind::GroupMade; 3]), 64, 1).expect("routes"),
            route(&of_subjects([SignalKind::GroupListed; 3]), 64, 1).expect("routes"),
            "by the person, and by the group"
        );
    }

    #[test]
    fn foreign_bytes_are_refused_without_being_quoted() {
        let error = SignalBatch::decode(b"+491701234567").expect_err("no signals");
        assert!(!error.to_string().contains("49170"));
    }
}
