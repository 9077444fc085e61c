//! # Vectors: facts of windows that are over, kept so that a rule can be tried on the last days
//!
//! ```text
//!   a business's day is over, a group is forgotten ──► Vectors ──commit──► integrity/PART/facts-NUMBER-GENERATION-DAY.SUBJECTS.sealed
//!                                                                           Arrow IPC under the day's integrity data key: 14 days at most
//! ```
//!
//! **What is kept** is the row that rules last judged ([`facts`](crate::facts)), of windows in which something was counted ten times or more: no
//! rule can fire on others. A business's day is kept six hours after its end, or when a third day of it begins; if signals of it still
//! come, it is kept once more, and the later row is the one that is read. A group is kept when it is forgotten. A source that has come to its end keeps
//! all there is.
//!
//! **Who is in it.** Businesses by name, which are not people. Of a group only a number, which holds within one file and means nothing outside of it:
//! a group that falls silent and wakes again on the same day is two.
//!
//! **Once.** The number of a file is part of the detectors' state, which is committed with the position: after a crash the same number is
//! written again. Of files of one number those of the newest generation count, of businesses and groups together, so what a fenced owner leaves behind does
//! not: the newest one may have found nothing of one kind.
//!
//! **Bounds.** At most 50,000 windows wait for a commit; business days and groups beyond that wait where they are, and days that a third day
//! pushes out then are left out. Files whose key is gone are removed with the first commit after a part is taken over and of each day.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, AsArray as _, Date32Array, RecordBatch, StringArray, UInt32Array};
use arrow::datatypes::{DataType, Date32Type, Field, Float64Type, Schema, UInt32Type};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use arrow_ipc::CompressionType;
use arrow_ipc::writer::IpcWriteOptions;
use starling_schemas::codes::Tier;
use starling_schemas::ids::{EpochId, Generation, Purpose};
use starling_store::{Files, KeyId, KeyKind, Keyring, KeyringError, unseal};

use crate::IntegrityError;
use crate::businesses::{Business, Day};
use crate::facts::{self, Cell, Fact, Kind, Row};
use crate::groups::Group;
use crate::hours::LONGEST_MS;

/// Most windows that wait for a commit.
const MOST_WAITING: usize = 50_000;
/// A window in which nothing was counted so often is not kept: no rule can fire on it.
const LEAST: u32 = 10;
/// Files are removed when their key's day is so long ago: a data key of this room lives for 14 days after its day.
const KEEP_DAYS: i32 = 15;
/// Folder of all parts.
const FOLDER: &str = "integrity";

/// A business's day.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct KeptDay {
    pub(crate) business: String,
    pub(crate) day: i32,
    pub(crate) row: Row,
}

/// A group's windows, in order of time.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct KeptGroup {
    pub(crate) day: i32,
    pub(crate) rows: Vec<Row>,
}

/// Rows of windows that are over.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Vectors {
    pub(crate) days: Vec<KeptDay>,
    pub(crate) groups: Vec<KeptGroup>,
    windows: usize,
}

impl Vectors {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.days.is_empty() && self.groups.is_empty()
    }

    /// Whether more may wait.
    pub(crate) fn has_room(&self) -> bool {
        self.windows < MOST_WAITING
    }

    /// Keeps a business's day, if something of note was counted and there is room.
    pub(crate) fn day(&mut self, name: &str, business: &Business, day: &Day) {
        if self.has_room() && facts::business_bounds(day).iter().any(|n| *n >= LEAST) {
            self.windows += 1;
            self.days.push(KeptDay { business: name.to_owned(), day: day.day, row: facts::business_day(business, day) });
        }
    }

    /// Keeps a group's windows in which something of note was counted.
    pub(crate) fn group(&mut self, group: &Group) {
        let of_note = |seen: &crate::hours::Figures| facts::group_bounds(seen).iter().any(|n| *n >= LEAST);
        let rows: Vec<Row> = group.hours.windows(LONGEST_MS).filter(of_note).map(|seen| facts::group_hour(&seen)).collect();
        if !rows.is_empty() {
            self.windows += rows.len();
            self.groups.push(KeptGroup { day: group.epoch, rows });
        }
    }

    /// The rows of a fact as Arrow IPC, in an order that depends on nothing else; empty where there are none.
    pub(crate) fn encode(&mut self, fact: Fact) -> Result<Vec<u8>, IntegrityError> {
        let (key, days, rows): (ArrayRef, Vec<i32>, Vec<Row>) = match fact {
            Fact::BusinessDay => {
                self.days.sort_by(|a, b| (&a.business, a.day).cmp(&(&b.business, b.day)));
                let names = self.days.iter().map(|kept| kept.business.as_str());
                let rows = self.days.iter().map(|kept| kept.row.clone()).collect();
                (Arc::new(StringArray::from_iter_values(names)), self.days.iter().map(|kept| kept.day).collect(), rows)
            }
            Fact::GroupHour => {
                self.groups.sort_by_cached_key(|kept| (kept.day, kept.rows.iter().map(order).collect::<Vec<_>>()));
                let numbers = (0_u32..).zip(&self.groups).flat_map(|(n, kept)| kept.rows.iter().map(move |_| n));
                let days = self.groups.iter().flat_map(|kept| kept.rows.iter().map(|_| kept.day)).collect();
                let rows = self.groups.iter().flat_map(|kept| kept.rows.clone()).collect();
                (Arc::new(UInt32Array::from_iter_values(numbers)), days, rows)
            }
        };
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let wrong = |_| IntegrityError::Vectors;
        let mut columns = vec![key, Arc::new(Date32Array::from(days)) as ArrayRef];
        columns.extend(fact.arrays(&rows));
        let schema = Arc::new(schema(fact));
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns).map_err(wrong)?;
        let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME)).map_err(wrong)?;
        let mut writer = StreamWriter::try_new_with_options(Vec::new(), &schema, options).map_err(wrong)?;
        writer.write(&batch).map_err(wrong)?;
        writer.into_inner().map_err(wrong)
    }

    /// Adds what [`Self::encode`] gave.
    pub(crate) fn decode(&mut self, fact: Fact, bytes: &[u8]) -> Result<(), IntegrityError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let reader = StreamReader::try_new(Cursor::new(bytes), None).map_err(|_| IntegrityError::Vectors)?;
        for batch in reader {
            let batch = batch.map_err(|_| IntegrityError::Vectors)?;
            self.add(fact, &batch).ok_or(IntegrityError::Vectors)?;
        }
        Ok(())
    }

    fn add(&mut self, fact: Fact, batch: &RecordBatch) -> Option<()> {
        let days = batch.column_by_name("day")?.as_primitive_opt::<Date32Type>()?;
        let rows = rows(fact, batch)?;
        self.windows += rows.len();
        match fact {
            Fact::BusinessDay => {
                let names = batch.column_by_name("business")?.as_string_opt::<i32>()?;
                for (place, row) in rows.into_iter().enumerate() {
                    self.days.push(KeptDay { business: names.value(place).to_owned(), day: days.value(place), row });
                }
            }
            Fact::GroupHour => {
                let numbers = batch.column_by_name("group")?.as_primitive_opt::<UInt32Type>()?;
                let mut before = None;
                for (place, row) in rows.into_iter().enumerate() {
                    let number = numbers.value(place);
                    match self.groups.last_mut() {
                        Some(kept) if before == Some(number) => kept.rows.push(row),
                        _ => self.groups.push(KeptGroup { day: days.value(place), rows: vec![row] }),
                    }
                    before = Some(number);
                }
            }
        }
        Some(())
    }
}

/// A row as something that can be put in order: floats that are not negative stand in the order of their bits.
fn order(row: &Row) -> Vec<u64> {
    let bits = |cell: &Cell| match cell {
        Cell::Number(n) => n.map_or(0, |n| 1 + n.to_bits()),
        Cell::Flag(flag) => u64::from(*flag),
        Cell::Tier(tier) => u64::from(tier.code()),
    };
    row.iter().map(bits).collect()
}

fn schema(fact: Fact) -> Schema {
    let key = match fact {
        Fact::BusinessDay => Field::new("business", DataType::Utf8, false),
        Fact::GroupHour => Field::new("group", DataType::UInt32, false),
    };
    let own = [key, Field::new("day", DataType::Date32, false)];
    Schema::new(own.into_iter().map(Arc::new).chain(fact.schema().fields().iter().cloned()).collect::<Vec<_>>())
}

/// The rows of a batch. `None`: it is of another version.
fn rows(fact: Fact, batch: &RecordBatch) -> Option<Vec<Row>> {
    let mut rows = vec![Row::with_capacity(fact.columns().len()); batch.num_rows()];
    for column in fact.columns() {
        let array = batch.column_by_name(column.name)?;
        for (place, row) in rows.iter_mut().enumerate() {
            let valid = array.is_valid(place);
            if !valid && !column.nullable {
                return None;
            }
            row.push(match column.kind {
                Kind::Number => Cell::Number(valid.then_some(array.as_primitive_opt::<Float64Type>()?.value(place))),
                Kind::Flag => Cell::Flag(array.as_boolean_opt()?.value(place)),
                Kind::Tier => Cell::Tier(Tier::parse(array.as_string_opt::<i32>()?.value(place))?),
            });
        }
    }
    Some(rows)
}

/// Whom a fact is about, as its files are called.
fn subjects(fact: Fact) -> &'static str {
    match fact {
        Fact::BusinessDay => "businesses",
        Fact::GroupHour => "groups",
    }
}

/// A file of vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FileId {
    /// Counted by the detectors' state, from 0.
    pub(crate) number: u64,
    /// Of the owner that wrote it.
    pub(crate) generation: i64,
    /// Day of the key it is sealed under.
    pub(crate) epoch: EpochId,
    pub(crate) fact: Fact,
}

impl FileId {
    pub(crate) fn new(number: u64, generation: Generation, epoch: EpochId, fact: Fact) -> Self {
        Self { number, generation: generation.0, epoch, fact }
    }

    /// Where it lies; `part` is a folder's name.
    pub(crate) fn path(self, part: &str) -> String {
        let Self { number, generation, epoch, fact } = self;
        format!("{FOLDER}/{part}/facts-{number:012}-{generation}-{epoch}.{}.sealed", subjects(fact))
    }

    /// Part and file of a path; `None`: it is something else.
    pub(crate) fn parse(path: &str) -> Option<(&str, Self)> {
        let (part, name) = path.strip_prefix(FOLDER)?.strip_prefix('/')?.split_once('/')?;
        let (name, fact) = name.strip_prefix("facts-")?.strip_suffix(".sealed")?.split_once('.')?;
        let (number, rest) = name.split_once('-')?;
        let (generation, day) = rest.split_once('-')?;
        let (number, generation) = (number.parse().ok()?, generation.parse().ok()?);
        Some((
            part,
            Self {
                number,
                generation,
                epoch: EpochId::parse(day)?,
                fact: Fact::ALL.into_iter().find(|known| subjects(*known) == fact)?,
            },
        ))
    }
}

/// Removes files of a part whose key is gone by now.
///
/// # Errors
/// [`IntegrityError::Store`].
pub(crate) async fn remove_expired(files: &Files, part: &str, today: EpochId) -> Result<(), IntegrityError> {
    for path in files.list(&format!("{FOLDER}/{part}")).await? {
        if FileId::parse(&path).is_some_and(|(_, file)| file.epoch.0 < today.0.saturating_sub(KEEP_DAYS)) {
            files.delete(&path).await?;
        }
    }
    Ok(())
}

/// The files of one number of one part, of the newest generation that wrote it.
#[derive(Default)]
struct Newest {
    generation: i64,
    files: BTreeMap<Fact, (FileId, String)>,
}

/// What is kept of the last days, of all parts.
#[derive(Debug, Default)]
pub struct Kept {
    pub(crate) vectors: Vectors,
    /// Files that cannot be read any more, or are of another version.
    pub left_out: usize,
}

impl Kept {
    /// Reads all that can be read.
    ///
    /// # Errors
    /// [`IntegrityError::Store`] and [`IntegrityError::Keyring`] when files or keys cannot be read at all.
    pub async fn read(files: &Files, keyring: &Keyring) -> Result<Self, IntegrityError> {
        let mut newest: BTreeMap<(String, u64), Newest> = BTreeMap::new();
        for path in files.list(FOLDER).await? {
            let Some((part, file)) = FileId::parse(&path) else { continue };
            let newest = newest.entry((part.to_owned(), file.number)).or_default();
            if file.generation > newest.generation {
                *newest = Newest { generation: file.generation, files: BTreeMap::new() };
            }
            // One owner writes a number again on another day, if its commit failed at midnight.
            if file.generation == newest.generation
                && newest.files.get(&file.fact).is_none_or(|(other, _)| other.epoch < file.epoch)
            {
                newest.files.insert(file.fact, (file, path));
            }
        }
        let mut kept = Self::default();
        let mut days: BTreeMap<(String, i32), Row> = BTreeMap::new();
        for (file, path) in newest.into_values().flat_map(|newest| newest.files.into_values()) {
            let key = match keyring.get(KeyId { kind: KeyKind::Data, purpose: Purpose::Integrity, epoch: file.epoch }) {
                Ok(Some(key)) => key,
                Ok(None) | Err(KeyringError::Destroyed { .. }) => {
                    kept.left_out += 1;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let Some(sealed) = files.get(&path).await? else { continue };
            let read = unseal(&key, &path, &sealed).map_err(IntegrityError::from);
            let mut vectors = Vectors::default();
            if read.and_then(|bytes| vectors.decode(file.fact, &bytes)).is_err() {
                kept.left_out += 1;
                continue;
            }
            kept.vectors.groups.append(&mut vectors.groups);
            // Files of a part come in order of their numbers, so the last one counts.
            days.extend(vectors.days.into_iter().map(|kept| ((kept.business, kept.day), kept.row)));
        }
        kept.vectors.days = days.into_iter().map(|((business, day), row)| KeptDay { business, day, row }).collect();
        Ok(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::businesses::Past;

    fn vectors() -> Vectors {
        let mut vectors = Vectors::default();
        let day = |day, sent, replied| Day { day, sent, replied, by_category: [0, sent, 0, 0, 0], ..Day::default() };
        for (name, day) in [("b", day(5, 40, 0)), ("a", day(6, 20, 11)), ("a", day(5, 10, 0)), ("small", day(5, 9, 9))] {
            vectors.day(
                name,
                &Business { history: vec![Past { day: 4, people: 30, ..Past::default() }], ..Business::default() },
                &day,
            );
        }
        for (epoch, joined) in [(6, 30_u32), (5, 12), (5, 9)] {
            let mut group = Group { epoch, ..Group::default() };
            (0..joined).for_each(|n| assert!(group.hours.count(i64::from(n) * 120_000, crate::hours::Moved::Joined)));
            vectors.group(&group);
        }
        vectors
    }

    #[test]
    fn what_is_written_comes_back_in_one_order_and_small_windows_are_not_kept() {
        let mut first = vectors();
        assert_eq!((first.days.len(), first.groups.len()), (3, 2));
        let mut second = vectors();
        second.days.reverse();
        second.groups.reverse();
        let mut back = Vectors::default();
        for fact in Fact::ALL {
            let bytes = first.encode(fact).expect("writes");
            assert_eq!(bytes, second.encode(fact).expect("writes"), "{}", fact.name());
            back.decode(fact, &bytes).expect("reads");
        }
        assert_eq!(back, first);
        let names: Vec<_> = back.days.iter().map(|kept| (kept.business.as_str(), kept.day)).collect();
        assert_eq!(names, [("a", 5), ("a", 6), ("b", 5)]);
        assert_eq!(back.groups.iter().map(|kept| kept.day).collect::<Vec<_>>(), [5, 6]);
        assert!(Vectors::default().encode(Fact::GroupHour).expect("nothing").is_empty());
        assert!(Vectors::default().decode(Fact::GroupHour, b"no stream").is_err());
    }

    #[test]
    fn i5_of_a_group_only_a_number_within_the_file_is_written() {
        let bytes = vectors().encode(Fact::GroupHour).expect("writes");
        let mut reader = StreamReader::try_new(Cursor::new(bytes), None).expect("a stream");
        let batch = reader.next().expect("one").expect("reads");
        let numbers = batch["group"].as_primitive::<UInt32Type>();
        assert!(numbers.values().is_sorted() && numbers.values().last() == Some(&1));
        for field in batch.schema().fields() {
            assert!(!matches!(field.data_type(), DataType::FixedSizeBinary(_) | DataType::Binary), "{}", field.name());
        }
    }

    #[test]
    fn more_than_fit_wait_or_are_left_out() {
        let mut vectors = Vectors { windows: MOST_WAITING, ..Vectors::default() };
        assert!(!vectors.has_room());
        vectors.day("a", &Business::default(), &Day { sent: 100, ..Day::default() });
        assert!(vectors.is_empty());
    }

    #[test]
    fn a_path_says_part_number_generation_day_and_fact() {
        let file = FileId { number: 7, generation: 3, epoch: EpochId(20_458), fact: Fact::GroupHour };
        assert_eq!(FileId::parse(&file.path("local")), Some(("local", file)));
        for other in [
            "integrity/local/state-1-000000000001-2026-01-05.sealed",
            "integrity/x",
            "stats/local/facts-1-1-2026-01-05.groups.sealed",
        ] {
            assert_eq!(FileId::parse(other), None, "{other}");
        }
    }
}
