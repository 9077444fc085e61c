//! # What businesses are billed for, exactly (P35)
//!
//! ```text
//!  a range's billing rows ─► billing/<source>-p0-s000000000007.parquet ─┐  those whose range is committed,
//!  …                                                                    ├─► each range once ─► sums by day, business, portfolio, category, country
//!  many of them ─► compact ─► billing/<source>-p0-s000…0-s000…99.parquet┘
//! ```
//!
//! **Comes in:** rows of [`BILLING`], one file a range, written before the range is committed. **Goes out:** exact sums.
//!
//! **Exactly once without a list.** A file is named by its partition and the range's number. It counts if, and only if, the partition has committed that
//! number (its next number is greater), so a crash before the commit counts nothing, and the replay overwrites the file with an equal one. A
//! compacted file is named by the first and last number in it, and what lies within another file's numbers is left out: so a crash between
//! writing it and deleting what it was made of counts nothing twice. What late events bring is added to the day they belong to: a bill is
//! final when nothing of that day can come any more, which is the platform's to say.
//!
//! **Apart.** The files are encrypted under a key of the billing purpose, which no window's close destroys, and hold no person: erasure and
//! expiry of person rows do not touch them, and no private budget is spent on them.
//!
//! **What can go wrong.** A file that is missing or damaged is an error with its path, never a smaller bill. `starling accept-loss` gives up a range
//! that was planned and not committed; its file goes with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, Date32Array, RecordBatch, StringArray, UInt8Array, UInt16Array, UInt64Array};
use arrow::datatypes::{Date32Type, UInt8Type, UInt16Type, UInt64Type};
use futures::TryStreamExt as _;
use starling_schemas::ids::{EpochId, PartitionId, Purpose, Sequence};
use starling_schemas::rows::BILLING;
use starling_store::{Files, KeyId, KeyKind, Keyring, Metastore, SecretKey, StoreError, encrypt_batches, killpoint, read_table};

use crate::AggregateError;
use crate::segment::file_name;

/// Where the files lie.
const FOLDER: &str = "billing";
/// How often the files are looked at anew when one of them has gone.
const LOOKS: usize = 4;
/// A partition with more committed files than this is compacted.
pub const COMPACT_FROM: usize = 64;

/// The billing of everything that is committed.
#[derive(Clone)]
pub struct Billing {
    /// Says what is committed.
    pub metastore: Arc<Metastore>,
    /// Holds the files.
    pub files: Arc<Files>,
    /// Holds their key.
    pub keyring: Arc<Keyring>,
}

/// What rows are added up by: day, business, portfolio, category, country.
type Key = (i32, String, Option<String>, u8, u16);
/// Sent, delivered, read, replied.
type Counts = [u64; 4];

/// A file of one partition, by the numbers of its ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    first: i64,
    last: i64,
    path: String,
}

fn prefix(partition: &PartitionId) -> String {
    format!("{FOLDER}/{}-p{}-", file_name(&partition.source), partition.partition)
}

fn path(partition: &PartitionId, sequence: Sequence) -> String {
    format!("{}s{:012}.parquet", prefix(partition), sequence.0)
}

impl Billing {
    fn key(&self) -> Result<SecretKey, AggregateError> {
        // One for all: bills are kept as long as books are, and nobody is in them.
        Ok(self.keyring.get_or_create(KeyId { kind: KeyKind::Data, purpose: Purpose::Billing, epoch: EpochId(0) })?)
    }

    /// Keeps the billing rows of a range; to be called before the range is committed. Durable on return. Of no rows there is no file.
    ///
    /// # Errors
    /// [`AggregateError::WrongColumn`], and errors of store and keyring.
    pub async fn keep(&self, partition: &PartitionId, sequence: Sequence, rows: &RecordBatch) -> Result<(), AggregateError> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let bytes = encrypt_batches(&self.key()?, Arc::clone(&BILLING), std::slice::from_ref(rows))?;
        self.files.put(&path(partition, sequence), bytes).await?;
        killpoint::reached("after_billing");
        Ok(())
    }

    /// Drops the rows of a range that was planned and will never be committed.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn give_up(&self, partition: &PartitionId, sequence: Sequence) -> Result<(), AggregateError> {
        Ok(self.files.delete(&path(partition, sequence)).await?)
    }

    /// The sums of the days from `from` through `to`, as rows of [`BILLING`], sorted.
    ///
    /// # Errors
    /// Errors of store and keyring: a file that is missing or damaged is never left out.
    pub async fn rows(&self, from: EpochId, to: EpochId) -> Result<RecordBatch, AggregateError> {
        let mut looks = 1;
        let sums = loop {
            match self.sums(from, to).await {
                // Another process has just compacted it: its rows are in a file that this look did not see yet.
                Err(AggregateError::Store(StoreError::FileMissing { .. })) if looks < LOOKS => looks += 1,
                other => break other?,
            }
        };
        batch(&sums)
    }

    async fn sums(&self, from: EpochId, to: EpochId) -> Result<BTreeMap<Key, Counts>, AggregateError> {
        let mut sums = BTreeMap::new();
        for (_, parts) in self.committed().await? {
            for part in outermost(&parts) {
                self.add(&part.path, &mut sums).await?;
                // As each file is read, so that no more is held than is asked for and one file has.
                sums.retain(|(day, ..), _| (from.0..=to.0).contains(day));
            }
        }
        Ok(sums)
    }

    /// Makes one file of a partition's many, where there are more than `from`. Gives how many files became fewer.
    ///
    /// # Errors
    /// As [`Self::rows`].
    pub async fn compact(&self, from: usize) -> Result<usize, AggregateError> {
        let mut fewer = 0;
        for (partition, parts) in self.committed().await? {
            let counting = outermost(&parts);
            let (Some(first), Some(last), true) = (counting.first(), counting.last(), parts.len() > from.max(1)) else {
                continue;
            };
            let whole = format!("{}s{:012}-s{:012}.parquet", prefix(&partition), first.first, last.last);
            if counting.iter().all(|part| part.path != whole) {
                let mut sums = BTreeMap::new();
                for part in &counting {
                    self.add(&part.path, &mut sums).await?;
                }
                let bytes = encrypt_batches(&self.key()?, Arc::clone(&BILLING), &[batch(&sums)?])?;
                self.files.put(&whole, bytes).await?;
            }
            for part in parts.iter().filter(|part| part.path != whole) {
                self.files.delete(&part.path).await?;
            }
            fewer += parts.len() - 1;
        }
        Ok(fewer)
    }

    /// The files of what is committed, by partition; what lies within another one's numbers is among them.
    async fn committed(&self) -> Result<Vec<(PartitionId, Vec<Part>)>, AggregateError> {
        // Listed first: what is committed afterwards is left out by its number, and nothing that was committed before can be missing.
        let names = self.files.list(FOLDER).await?;
        let mut out = Vec::new();
        for status in self.metastore.partitions().await? {
            let prefix = prefix(&status.partition);
            let of = |path: &String| parse(path.strip_prefix(&prefix)?, path);
            let parts: Vec<Part> = names.iter().filter_map(of).filter(|part| part.last < status.next_sequence.0).collect();
            out.push((status.partition, parts));
        }
        Ok(out)
    }

    async fn add(&self, path: &str, sums: &mut BTreeMap<Key, Counts>) -> Result<(), AggregateError> {
        let mut rows = read_table(&self.files, &self.key()?, path).await?;
        while let Some(batch) = rows.try_next().await? {
            add(&batch, sums)?;
        }
        Ok(())
    }
}

/// The numbers in a name behind its prefix: `s000000000007.parquet`, or first and last of a compacted file.
fn parse(name: &str, path: &str) -> Option<Part> {
    let numbers = name.strip_suffix(".parquet")?.strip_prefix('s')?;
    let (first, last) = numbers.split_once("-s").unwrap_or((numbers, numbers));
    Some(Part { first: first.parse().ok()?, last: last.parse().ok()?, path: path.to_owned() })
}

/// The files that lie within no other one's numbers, in order.
fn outermost(parts: &[Part]) -> Vec<Part> {
    let mut parts = parts.to_vec();
    parts.sort_unstable_by_key(|part| (part.first, std::cmp::Reverse(part.last)));
    let mut through = i64::MIN;
    parts.retain(|part| {
        let counts = part.last > through;
        through = through.max(part.last);
        counts
    });
    parts
}

fn add(rows: &RecordBatch, sums: &mut BTreeMap<Key, Counts>) -> Result<(), AggregateError> {
    let column = |name: &'static str| rows.column_by_name(name).ok_or(AggregateError::WrongColumn { column: name });
    let wrong = |column| move || AggregateError::WrongColumn { column };
    let day = column("day")?.as_primitive_opt::<Date32Type>().ok_or_else(wrong("day"))?;
    let business = column("business")?.as_string_opt::<i32>().ok_or_else(wrong("business"))?;
    let portfolio = column("portfolio")?.as_string_opt::<i32>().ok_or_else(wrong("portfolio"))?;
    let category = column("category")?.as_primitive_opt::<UInt8Type>().ok_or_else(wrong("category"))?;
    let country = column("country")?.as_primitive_opt::<UInt16Type>().ok_or_else(wrong("country"))?;
    let mut stages = Vec::with_capacity(4);
    for name in ["sent", "delivered", "read", "replied"] {
        stages.push(column(name)?.as_primitive_opt::<UInt64Type>().ok_or_else(wrong(name))?);
    }
    for row in 0..rows.num_rows() {
        let key = (
            day.value(row),
            business.value(row).to_owned(),
            portfolio.is_valid(row).then(|| portfolio.value(row).to_owned()),
            category.value(row),
            country.value(row),
        );
        let counts: &mut Counts = sums.entry(key).or_default();
        for (count, stage) in counts.iter_mut().zip(&stages) {
            *count = count.saturating_add(stage.value(row));
        }
    }
    Ok(())
}

fn batch(sums: &BTreeMap<Key, Counts>) -> Result<RecordBatch, AggregateError> {
    let stage = |at: usize| Arc::new(sums.values().map(|counts| counts.get(at).copied().unwrap_or(0)).collect::<UInt64Array>());
    RecordBatch::try_new(
        Arc::clone(&BILLING),
        vec![
            Arc::new(Date32Array::from_iter_values(sums.keys().map(|key| key.0))),
            Arc::new(StringArray::from_iter_values(sums.keys().map(|key| &key.1))),
            Arc::new(sums.keys().map(|key| key.2.as_deref()).collect::<StringArray>()),
            Arc::new(UInt8Array::from_iter_values(sums.keys().map(|key| key.3))),
            Arc::new(UInt16Array::from_iter_values(sums.keys().map(|key| key.4))),
            stage(0),
            stage(1),
            stage(2),
            stage(3),
        ],
    )
    .map_err(|_| AggregateError::WrongColumn { column: "day" })
}

#[cfg(test)]
mod tests;
