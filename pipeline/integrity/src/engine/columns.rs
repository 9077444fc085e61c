//! A batch of signals by its columns.

use arrow::array::{Array as _, AsArray as _, BooleanArray, FixedSizeBinaryArray, PrimitiveArray, RecordBatch, StringArray};
use arrow::datatypes::{ArrowPrimitiveType, Date32Type, TimestampMillisecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type};
use starling_schemas::codes::{Category, ProfileField, SignalKind};
use starling_schemas::voice::Voice;

use crate::listed::LABEL_BYTES;
use crate::slow::Pair;

/// The columns of a batch, found once.
pub(super) struct Columns<'a> {
    pub(super) kind: &'a PrimitiveArray<UInt8Type>,
    pub(super) time: &'a PrimitiveArray<TimestampMillisecondType>,
    pub(super) epoch: &'a PrimitiveArray<Date32Type>,
    pub(super) overlap: &'a BooleanArray,
    pub(super) person: &'a FixedSizeBinaryArray,
    pub(super) group: &'a FixedSizeBinaryArray,
    pub(super) business: &'a StringArray,
    pub(super) portfolio: &'a StringArray,
    pub(super) category: &'a PrimitiveArray<UInt8Type>,
    pub(super) tier: &'a PrimitiveArray<UInt8Type>,
    pub(super) count: &'a PrimitiveArray<UInt32Type>,
    pub(super) strangers: &'a PrimitiveArray<UInt32Type>,
    pub(super) account_age_s: &'a PrimitiveArray<UInt64Type>,
    pub(super) pair: &'a FixedSizeBinaryArray,
    pub(super) pair_before: &'a FixedSizeBinaryArray,
    pub(super) to_new_account: &'a BooleanArray,
    pub(super) list: &'a StringArray,
    pub(super) listed: &'a PrimitiveArray<UInt8Type>,
    pub(super) voice: &'a PrimitiveArray<UInt16Type>,
    pub(super) template: &'a StringArray,
}

/// A signal about a business, without the business and the person at the other end.
pub(super) struct Said<'a> {
    pub(super) kind: SignalKind,
    /// What the business belongs to, of a message that it sent.
    pub(super) portfolio: Option<&'a str>,
    pub(super) time_ms: i64,
    pub(super) category: Option<Category>,
    pub(super) tier: u8,
    /// A report by somebody to whom nothing had been delivered.
    pub(super) is_unfounded: bool,
    /// An objection by an account of its first week.
    pub(super) is_young: bool,
    /// Whose an objection is.
    pub(super) voice: Voice,
    /// Of a message that was sent its template, of an objection the one it follows; empty for none.
    pub(super) template: &'a str,
}

impl<'a> Columns<'a> {
    pub(super) fn of(rows: &'a RecordBatch) -> Option<Self> {
        fn numbers<'a, T: ArrowPrimitiveType>(rows: &'a RecordBatch, name: &str) -> Option<&'a PrimitiveArray<T>> {
            rows.column_by_name(name)?.as_primitive_opt::<T>()
        }
        Some(Self {
            kind: numbers(rows, "kind")?,
            time: numbers(rows, "time")?,
            epoch: numbers(rows, "epoch")?,
            overlap: rows.column_by_name("overlap")?.as_boolean_opt()?,
            person: rows.column_by_name("person")?.as_fixed_size_binary_opt()?,
            group: rows.column_by_name("group")?.as_fixed_size_binary_opt()?,
            business: rows.column_by_name("business")?.as_string_opt()?,
            portfolio: rows.column_by_name("portfolio")?.as_string_opt()?,
            category: numbers(rows, "category")?,
            tier: numbers(rows, "tier")?,
            count: numbers(rows, "count")?,
            strangers: numbers(rows, "strangers")?,
            account_age_s: numbers(rows, "account_age_s")?,
            pair: rows.column_by_name("pair")?.as_fixed_size_binary_opt()?,
            pair_before: rows.column_by_name("pair_before")?.as_fixed_size_binary_opt()?,
            to_new_account: rows.column_by_name("to_new_account")?.as_boolean_opt()?,
            list: rows.column_by_name("list")?.as_string_opt()?,
            listed: numbers(rows, "listed")?,
            voice: numbers(rows, "voice")?,
            template: rows.column_by_name("template")?.as_string_opt()?,
        })
    }

    pub(super) fn keyed<const N: usize>(column: &FixedSizeBinaryArray, row: usize) -> Option<[u8; N]> {
        if column.is_valid(row) { column.value(row).try_into().ok() } else { None }
    }

    /// Both tokens of a row; `None` when they are gone.
    pub(super) fn pairs(&self, row: usize) -> Option<(Pair, Pair)> {
        let token = |column| Self::keyed(column, row).map(u64::from_le_bytes).map(Pair);
        Some((token(self.pair)?, token(self.pair_before)?))
    }

    /// What of a group is on which list; `None` where it is not said in words that are taken.
    pub(super) fn hit(&self, row: usize) -> Option<(ProfileField, &'a str)> {
        let field = self.listed.is_valid(row).then(|| ProfileField::from_code(self.listed.value(row)))??;
        let label = self.list.is_valid(row).then(|| self.list.value(row))?;
        (label.len() <= LABEL_BYTES).then_some((field, label))
    }

    /// Whose a block or report is; of an old edge nothing is known.
    pub(super) fn voice(&self, row: usize) -> Voice {
        if self.voice.is_valid(row) { Voice::from_code(self.voice.value(row)) } else { Voice::default() }
    }

    pub(super) fn age_s(&self, row: usize) -> Option<u64> {
        self.account_age_s.is_valid(row).then(|| self.account_age_s.value(row))
    }
}
