//! Groups by their keys: each combination of key values gets a number when it is first met.

use arrow::array::ArrayRef;
use arrow::row::{RowConverter, Rows, SortField};
use hashbrown::hash_table::{Entry, HashTable};
use std::hash::BuildHasher;

use crate::PrivacyError;

/// The number of no group: the row's keys are not listed.
pub(crate) const NO_GROUP: u32 = u32::MAX;

/// More groups than this are refused.
pub const MOST_GROUPS: usize = 1 << 22;

/// The groups met so far, or a list of groups that is closed.
///
/// # Privacy
/// A group's number depends on who came before: it must not enter the choice of a person's groups. Its `lot` is made from its keys alone.
pub(crate) struct Keys {
    /// `None` where there are no keys: then there is one group.
    converter: Option<RowConverter>,
    rows: Option<Rows>,
    table: HashTable<u32>,
    hasher: hashbrown::DefaultHashBuilder,
    lots: Vec<u128>,
    closed: bool,
    /// The row's groups of the last batch.
    scratch: Vec<u32>,
}

impl Keys {
    /// Groups over key columns like these, which may be empty.
    pub(crate) fn new(columns: &[ArrayRef]) -> Result<Self, PrivacyError> {
        let fields: Vec<SortField> = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
        let converter = if fields.is_empty() { None } else { Some(RowConverter::new(fields).map_err(|_| WRONG_KEYS)?) };
        let rows = converter.as_ref().map(|converter| converter.empty_rows(0, 0));
        let lots = if converter.is_none() { vec![0] } else { Vec::new() };
        Ok(Self {
            converter,
            rows,
            table: HashTable::new(),
            hasher: Default::default(),
            lots,
            closed: false,
            scratch: Vec::new(),
        })
    }

    /// The groups in `columns`, one a row, and no others.
    pub(crate) fn listed(columns: &[ArrayRef]) -> Result<Self, PrivacyError> {
        let mut keys = Self::new(columns)?;
        if !columns.is_empty() {
            keys.intern(columns)?;
        }
        keys.closed = true;
        Ok(keys)
    }

    /// How many groups there are.
    pub(crate) fn len(&self) -> usize {
        self.lots.len()
    }

    /// By group: 128 bits of the BLAKE3 hash of its keys.
    pub(crate) fn lots(&self) -> &[u128] {
        &self.lots
    }

    /// The group of every row of `columns`; [`NO_GROUP`] where the list has none.
    pub(crate) fn intern(&mut self, columns: &[ArrayRef]) -> Result<&[u32], PrivacyError> {
        self.scratch.clear();
        let (Some(converter), Some(known)) = (&self.converter, &mut self.rows) else { return Ok(&self.scratch) };
        let rows = converter.convert_columns(columns).map_err(|_| WRONG_KEYS)?;
        self.scratch.reserve(rows.num_rows());
        for row in &rows {
            let hash = self.hasher.hash_one(row.data());
            let same = |group: &u32| known.row(place(*group)) == row;
            if self.closed {
                self.scratch.push(self.table.find(hash, same).copied().unwrap_or(NO_GROUP));
                continue;
            }
            let entry = self.table.entry(hash, same, |group| self.hasher.hash_one(known.row(place(*group)).data()));
            let group = match entry {
                Entry::Occupied(entry) => *entry.get(),
                Entry::Vacant(entry) => {
                    if self.lots.len() >= MOST_GROUPS {
                        return Err(PrivacyError::Question { what: "there are more than 4,194,304 groups: group by less" });
                    }
                    let group = u32::try_from(self.lots.len()).unwrap_or(NO_GROUP);
                    entry.insert(group);
                    let mut head = [0; 16];
                    head.iter_mut().zip(blake3::hash(row.data()).as_bytes()).for_each(|(to, from)| *to = *from);
                    self.lots.push(u128::from_le_bytes(head));
                    known.push(row);
                    group
                }
            };
            self.scratch.push(group);
        }
        Ok(&self.scratch)
    }

    /// The keys of these groups, as columns.
    pub(crate) fn columns(&self, groups: &[u32]) -> Result<Vec<ArrayRef>, PrivacyError> {
        let (Some(converter), Some(rows)) = (&self.converter, &self.rows) else { return Ok(Vec::new()) };
        converter.convert_rows(groups.iter().map(|group| rows.row(place(*group)))).map_err(|_| WRONG_KEYS)
    }

    /// The groups in order of their keys, which says nothing of who came first.
    pub(crate) fn in_order(&self, groups: &mut [u32]) {
        if let Some(rows) = &self.rows {
            groups.sort_unstable_by(|a, b| rows.row(place(*a)).cmp(&rows.row(place(*b))));
        }
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.rows.as_ref().map_or(0, Rows::size) + self.table.capacity() * 5 + self.lots.len() * size_of::<u128>()
    }
}

const WRONG_KEYS: PrivacyError = PrivacyError::Question { what: "a key column's type cannot be grouped by" };

fn place(group: u32) -> usize {
    usize::try_from(group).unwrap_or(usize::MAX)
}
