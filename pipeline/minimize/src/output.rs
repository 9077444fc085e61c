//! The rows of a range, gathered column by column and handed to Arrow without a copy.
//!
//! A range begins with room for as many rows as the range before had, so pushing a row allocates nothing unless a range grows.

use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, FixedSizeBinaryArray, RecordBatch, StringArray, TimestampMillisecondArray, UInt8Array,
    UInt16Array, UInt32Array, UInt64Array,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use starling_schemas::codes::{
    AccountAge, Activity, Category, ClientVersion, Conversation, Country, Detail, PlatformCode, ProfileField, SignalKind, Tier,
};
use starling_schemas::ids::{AnalyticsDay, Domain, EpochId, Integrity, Pseudonym};
use starling_schemas::rows::{CLEAN_ROWS, PRESENCE_ROWS, PSEUDONYM_BYTES, SIGNALS, TOKEN_BYTES};

use crate::MinimizeError;
use crate::keyed::Written;
use crate::pairs::Tokens;
use crate::present::{Counted, Present};

/// A column of people whose pseudonyms may come later than their rows: numbers wait to be hashed side by side.
///
/// A place that was reserved and not filled makes the column unusable, so that a zero can never pass for a person (I8).
pub(crate) struct Person<D: Domain> {
    values: Vec<[u8; 16]>,
    waiting: usize,
    domain: PhantomData<D>,
}

impl<D: Domain> Default for Person<D> {
    fn default() -> Self {
        Self { values: Vec::new(), waiting: 0, domain: PhantomData }
    }
}

impl<D: Domain> Person<D> {
    /// Makes it empty, with room for `rows`.
    pub(crate) fn begin(&mut self, rows: usize) {
        prepare(&mut self.values, rows);
        self.waiting = 0;
    }

    /// A row without a person.
    #[inline]
    fn push_nobody(&mut self) {
        self.values.push([0; 16]);
    }

    /// How many places there are.
    pub(crate) const fn rows(&self) -> usize {
        self.values.len()
    }

    /// The value in a place; `None` while any is missing.
    pub(crate) fn value(&self, place: usize) -> Option<[u8; 16]> {
        self.values.get(place).filter(|_| self.waiting == 0).copied()
    }

    #[cfg(test)]
    pub(crate) fn values(&self) -> &[[u8; 16]] {
        assert_eq!(self.waiting, 0);
        &self.values
    }

    fn finish(self, nulls: Option<NullBuffer>) -> Result<ArrayRef, ArrowError> {
        if self.waiting != 0 {
            return Err(ArrowError::ComputeError("a person is missing".to_owned()));
        }
        pseudonyms(self.values, nulls)
    }
}

/// Takes the people of one purpose whose numbers are hashed side by side.
pub(crate) trait Place<D: Domain> {
    /// A place for a pseudonym to come.
    fn reserve(&mut self) -> usize;

    /// Puts the pseudonym of `epoch` into its reserved place. `written`: the number, which is overwritten afterwards.
    fn fill(&mut self, place: usize, person: Pseudonym<D>, epoch: EpochId, written: &Written);
}

impl<D: Domain> Place<D> for Person<D> {
    #[inline]
    fn reserve(&mut self) -> usize {
        self.values.push([0; 16]);
        self.waiting += 1;
        self.values.len() - 1
    }

    #[inline]
    fn fill(&mut self, place: usize, person: Pseudonym<D>, _: EpochId, _: &Written) {
        if let Some(value) = self.values.get_mut(place) {
            *value = *person.as_bytes();
            self.waiting = self.waiting.wrapping_sub(1);
        }
    }
}

/// People and nothing else, as a batch of [`PRESENCE_ROWS`].
pub(crate) fn presence<D: Domain>(people: Person<D>) -> Result<RecordBatch, MinimizeError> {
    batch(&PRESENCE_ROWS, || Ok(vec![people.finish(None)?]))
}

/// One row of [`CLEAN_ROWS`], but for its person.
pub(crate) struct CleanRow {
    pub(crate) day: EpochId,
    pub(crate) hour: u8,
    pub(crate) country: Country,
    pub(crate) platform: PlatformCode,
    pub(crate) activity: Activity,
    pub(crate) version: ClientVersion,
    pub(crate) detail: Detail,
    pub(crate) account: AccountAge,
    pub(crate) seconds: u32,
}

/// One row of [`SIGNALS`], but for its person. Empty text stands for null.
pub(crate) struct SignalRow<'a> {
    pub(crate) kind: SignalKind,
    pub(crate) time_ms: i64,
    pub(crate) epoch: EpochId,
    pub(crate) overlap: bool,
    pub(crate) group: Option<Pseudonym<Integrity>>,
    pub(crate) business: &'a str,
    pub(crate) portfolio: &'a str,
    pub(crate) category: Category,
    pub(crate) tier: Tier,
    pub(crate) conversation: u8,
    pub(crate) thread_is_new: bool,
    pub(crate) count: u32,
    pub(crate) strangers: u32,
    pub(crate) account_age_s: Option<u64>,
    /// Label of a list, and what is on it.
    pub(crate) listed: Option<(&'a str, ProfileField)>,
    /// [`Voice`](starling_schemas::voice::Voice) of who objects.
    pub(crate) voice: Option<u16>,
    pub(crate) template: &'a str,
}

impl SignalRow<'_> {
    /// A row that says no more than what happened, and when.
    pub(crate) const fn of(kind: SignalKind, time_ms: i64, epoch: EpochId) -> Self {
        Self {
            kind,
            time_ms,
            epoch,
            overlap: false,
            group: None,
            business: "",
            portfolio: "",
            category: Category::Unknown,
            tier: Tier::Unknown,
            conversation: 0,
            thread_is_new: false,
            count: 1,
            strangers: 0,
            account_age_s: None,
            listed: None,
            voice: None,
            template: "",
        }
    }
}

/// One row of [`SIGNALS`] that is about a pair: everything else in it is empty.
#[derive(Clone, Copy)]
pub(crate) struct PairRow {
    pub(crate) kind: SignalKind,
    pub(crate) time_ms: i64,
    pub(crate) epoch: EpochId,
    pub(crate) overlap: bool,
    pub(crate) person: Option<[u8; 16]>,
    pub(crate) account_age_s: Option<u64>,
    pub(crate) pair: Tokens,
    /// Keyed like the person.
    pub(crate) cohort: Option<[u8; 16]>,
    pub(crate) to_new_account: Option<bool>,
}

/// Clean rows as columns.
#[derive(Default)]
pub(crate) struct CleanColumns {
    person: Person<AnalyticsDay>,
    day: Vec<i32>,
    hour: Vec<u8>,
    country: Vec<u16>,
    platform: Vec<u8>,
    activity: Vec<u8>,
    version: Vec<u16>,
    detail: Vec<u8>,
    account: Vec<u8>,
    seconds: Vec<u32>,
    expected: usize,
}

impl CleanColumns {
    /// Empties the columns and makes room for a range like the one before.
    pub(crate) fn begin(&mut self) {
        let rows = self.expected;
        self.person.begin(rows);
        prepare(&mut self.day, rows);
        prepare(&mut self.hour, rows);
        prepare(&mut self.country, rows);
        prepare(&mut self.platform, rows);
        prepare(&mut self.activity, rows);
        prepare(&mut self.version, rows);
        prepare(&mut self.detail, rows);
        prepare(&mut self.account, rows);
        prepare(&mut self.seconds, rows);
    }

    /// Where the people of rows go, and those of them who did something are met.
    #[inline]
    pub(crate) const fn counted<'a>(&'a mut self, present: &'a mut Present) -> Counted<'a> {
        Counted { person: &mut self.person, activity: self.activity.as_slice(), hour: self.hour.as_slice(), present }
    }

    /// Takes a row whose person is pushed next.
    #[inline]
    pub(crate) fn push(&mut self, row: &CleanRow) {
        self.day.push(row.day.0);
        self.hour.push(row.hour);
        self.country.push(row.country.code());
        self.platform.push(row.platform.code());
        self.activity.push(row.activity.code());
        self.version.push(row.version.code());
        self.detail.push(row.detail.code());
        self.account.push(row.account.code());
        self.seconds.push(row.seconds);
    }

    /// Hands the rows out as a batch of [`CLEAN_ROWS`]; the columns are empty then.
    pub(crate) fn finish(&mut self) -> Result<RecordBatch, MinimizeError> {
        let expected = self.day.len();
        let rows = std::mem::replace(self, Self { expected, ..Self::default() });
        batch(&CLEAN_ROWS, || {
            Ok(vec![
                rows.person.finish(None)?,
                Arc::new(Date32Array::from(rows.day)),
                Arc::new(UInt8Array::from(rows.hour)),
                Arc::new(UInt16Array::from(rows.country)),
                Arc::new(UInt8Array::from(rows.platform)),
                Arc::new(UInt8Array::from(rows.activity)),
                Arc::new(UInt16Array::from(rows.version)),
                Arc::new(UInt8Array::from(rows.detail)),
                Arc::new(UInt8Array::from(rows.account)),
                Arc::new(UInt32Array::from(rows.seconds)),
            ])
        })
    }
}

/// Signals as columns.
#[derive(Default)]
pub(crate) struct SignalColumns {
    kind: Vec<u8>,
    time_ms: Vec<i64>,
    epoch: Vec<i32>,
    overlap: Vec<bool>,
    pub(crate) person: Person<Integrity>,
    has_person: Vec<bool>,
    group: Vec<[u8; 16]>,
    has_group: Vec<bool>,
    business: Texts,
    portfolio: Texts,
    category: Vec<u8>,
    tier: Vec<u8>,
    conversation: Vec<u8>,
    thread_is_new: Vec<bool>,
    count: Vec<u32>,
    strangers: Vec<u32>,
    account_age_s: Vec<u64>,
    has_account_age: Vec<bool>,
    pair: Vec<Tokens>,
    has_pair: Vec<bool>,
    to_new_account: Vec<bool>,
    has_to_new_account: Vec<bool>,
    /// As long as what came before only where there is one, and at the end: hardly any row has it.
    list: Texts,
    listed: Vec<u8>,
    has_listed: Vec<bool>,
    /// In the same way.
    voice: Vec<u16>,
    has_voice: Vec<bool>,
    template: Texts,
    expected: usize,
}

impl SignalColumns {
    /// Empties the columns and makes room for a range like the one before.
    pub(crate) fn begin(&mut self) {
        let rows = self.expected;
        for bytes in [&mut self.kind, &mut self.category, &mut self.tier, &mut self.conversation] {
            prepare(bytes, rows);
        }
        for flags in [
            &mut self.overlap,
            &mut self.has_person,
            &mut self.has_group,
            &mut self.thread_is_new,
            &mut self.has_account_age,
            &mut self.has_pair,
            &mut self.to_new_account,
            &mut self.has_to_new_account,
        ] {
            prepare(flags, rows);
        }
        self.list.begin(0);
        self.listed.clear();
        self.has_listed.clear();
        self.voice.clear();
        self.has_voice.clear();
        prepare(&mut self.pair, rows);
        self.person.begin(rows);
        prepare(&mut self.group, rows);
        for texts in [&mut self.business, &mut self.portfolio, &mut self.template] {
            texts.begin(rows);
        }
        for numbers in [&mut self.count, &mut self.strangers] {
            prepare(numbers, rows);
        }
        prepare(&mut self.time_ms, rows);
        prepare(&mut self.epoch, rows);
        prepare(&mut self.account_age_s, rows);
    }

    /// How many rows there are.
    pub(crate) const fn rows(&self) -> usize {
        self.kind.len()
    }

    /// Takes a row of a pair, of which few columns differ from row to row; the others wait for [`Self::fill`]. Behind it come rows of pairs alone.
    #[inline]
    pub(crate) fn push_of_pair(&mut self, row: &PairRow) {
        self.kind.push(row.kind.code());
        self.time_ms.push(row.time_ms);
        self.epoch.push(row.epoch.0);
        self.overlap.push(row.overlap);
        self.person.values.push(row.person.unwrap_or_default());
        self.has_person.push(row.person.is_some());
        self.conversation.push(if row.person.is_some() { Conversation::Person.code() } else { 0 });
        self.account_age_s.push(row.account_age_s.unwrap_or_default());
        self.has_account_age.push(row.account_age_s.is_some());
        self.pair.push(row.pair);
        // The columns of groups and of accounts written to are as long as what came before only now.
        if let Some(cohort) = row.cohort {
            self.group.resize(self.kind.len() - 1, [0; 16]);
            self.has_group.resize(self.kind.len() - 1, false);
            self.group.push(cohort);
            self.has_group.push(true);
        }
        if let Some(is_new) = row.to_new_account {
            self.to_new_account.resize(self.kind.len() - 1, false);
            self.has_to_new_account.resize(self.kind.len() - 1, false);
            self.to_new_account.push(is_new);
            self.has_to_new_account.push(true);
        }
    }

    /// Gives the rows of pairs, which are all rows behind the first `others`, what is the same in all of them.
    pub(crate) fn fill(&mut self, others: usize) {
        let rows = self.rows();
        self.group.resize(rows, [0; 16]);
        self.business.fill(rows);
        self.portfolio.fill(rows);
        self.template.fill(rows);
        self.category.resize(rows, Category::Unknown.code());
        self.tier.resize(rows, Tier::Unknown.code());
        self.count.resize(rows, 1);
        self.strangers.resize(rows, 0);
        self.has_group.resize(rows, false);
        self.thread_is_new.resize(rows, false);
        self.has_pair.resize(others, false);
        self.has_pair.resize(rows, true);
        self.to_new_account.resize(rows, false);
        self.has_to_new_account.resize(rows, false);
        debug_assert_eq!(self.pair.len(), rows);
    }

    /// Takes the person of the row that is pushed next.
    pub(crate) fn push_known(&mut self, person: &[u8; 16]) {
        self.person.values.push(*person);
    }

    /// Takes a row; `has_person`: whether its person has been pushed already.
    ///
    /// # Errors
    /// [`MinimizeError::RangeTooLarge`]; the columns must then be begun again.
    #[inline]
    pub(crate) fn push(&mut self, row: &SignalRow<'_>, has_person: bool) -> Result<(), MinimizeError> {
        if !has_person {
            self.person.push_nobody();
        }
        if let Some((list, field)) = row.listed {
            self.fill_listed(self.kind.len());
            self.list.push(list)?;
            self.listed.push(field.code());
            self.has_listed.push(true);
        }
        if let Some(voice) = row.voice {
            self.fill_voices(self.kind.len());
            self.voice.push(voice);
            self.has_voice.push(true);
        }
        self.business.push(row.business)?;
        self.portfolio.push(row.portfolio)?;
        self.template.push(row.template)?;
        self.kind.push(row.kind.code());
        self.time_ms.push(row.time_ms);
        self.epoch.push(row.epoch.0);
        self.overlap.push(row.overlap);
        self.has_person.push(has_person);
        self.group.push(row.group.map_or([0; 16], |group| *group.as_bytes()));
        self.has_group.push(row.group.is_some());
        self.category.push(row.category.code());
        self.tier.push(row.tier.code());
        self.conversation.push(row.conversation);
        self.thread_is_new.push(row.thread_is_new);
        self.count.push(row.count);
        self.strangers.push(row.strangers);
        self.account_age_s.push(row.account_age_s.unwrap_or_default());
        self.has_account_age.push(row.account_age_s.is_some());
        self.pair.push(Tokens::default());
        self.has_pair.push(false);
        Ok(())
    }

    /// Says of rows up to this number that nothing of theirs is listed, where it was not said before.
    fn fill_listed(&mut self, rows: usize) {
        self.list.fill(rows);
        self.listed.resize(rows, 0);
        self.has_listed.resize(rows, false);
    }

    /// Says of rows up to this number that they have no voice, where it was not said before.
    fn fill_voices(&mut self, rows: usize) {
        self.voice.resize(rows, 0);
        self.has_voice.resize(rows, false);
    }

    /// Hands the rows out as a batch of [`SIGNALS`]; the columns are empty then.
    pub(crate) fn finish(&mut self) -> Result<RecordBatch, MinimizeError> {
        self.fill_listed(self.kind.len());
        self.fill_voices(self.kind.len());
        let (expected, business, portfolio) = (self.kind.len(), self.business.emptied(), self.portfolio.emptied());
        let template = self.template.emptied();
        let rows = std::mem::replace(self, Self { expected, business, portfolio, template, ..Self::default() });
        let pairs = nulls(rows.has_pair);
        let to_new_account = BooleanArray::new(rows.to_new_account.into(), nulls(rows.has_to_new_account));
        batch(&SIGNALS, || {
            Ok(vec![
                Arc::new(UInt8Array::from(rows.kind)),
                Arc::new(TimestampMillisecondArray::from(rows.time_ms)),
                Arc::new(Date32Array::from(rows.epoch)),
                Arc::new(BooleanArray::from(rows.overlap)),
                rows.person.finish(nulls(rows.has_person))?,
                pseudonyms(rows.group, nulls(rows.has_group))?,
                rows.business.finish()?,
                rows.portfolio.finish()?,
                Arc::new(UInt8Array::from(rows.category)),
                Arc::new(UInt8Array::from(rows.tier)),
                Arc::new(UInt8Array::from(rows.conversation)),
                Arc::new(BooleanArray::from(rows.thread_is_new)),
                Arc::new(UInt32Array::from(rows.count)),
                Arc::new(UInt32Array::from(rows.strangers)),
                Arc::new(UInt64Array::try_new(rows.account_age_s.into(), nulls(rows.has_account_age))?),
                tokens(rows.pair.iter().map(|[now, _]| *now), pairs.clone())?,
                tokens(rows.pair.iter().map(|[_, before]| *before), pairs)?,
                Arc::new(to_new_account),
                rows.list.finish()?,
                Arc::new(UInt8Array::try_new(rows.listed.into(), nulls(rows.has_listed))?),
                Arc::new(UInt16Array::try_new(rows.voice.into(), nulls(rows.has_voice))?),
                rows.template.finish()?,
            ])
        })
    }
}

/// A text column in which the empty text is null.
#[derive(Default)]
struct Texts {
    /// Where each text ends.
    ends: Vec<i32>,
    bytes: Vec<u8>,
    present: Vec<bool>,
    expected_bytes: usize,
}

impl Texts {
    fn begin(&mut self, rows: usize) {
        prepare(&mut self.ends, rows);
        prepare(&mut self.present, rows);
        prepare(&mut self.bytes, self.expected_bytes);
    }

    #[inline]
    fn push(&mut self, text: &str) -> Result<(), MinimizeError> {
        self.bytes.extend_from_slice(text.as_bytes());
        self.ends.push(i32::try_from(self.bytes.len()).map_err(|_| MinimizeError::RangeTooLarge)?);
        self.present.push(!text.is_empty());
        Ok(())
    }

    /// Appends empty texts until there are so many.
    fn fill(&mut self, rows: usize) {
        self.ends.resize(rows, self.ends.last().copied().unwrap_or_default());
        self.present.resize(rows, false);
    }

    /// An empty column that expects as much as is in this one.
    fn emptied(&self) -> Self {
        Self { expected_bytes: self.bytes.len(), ..Self::default() }
    }

    fn finish(self) -> Result<ArrayRef, ArrowError> {
        // Arrow's offsets begin with 0. They rise, as every end is at or behind the one before it.
        let offsets: Vec<i32> = std::iter::once(0).chain(self.ends).collect();
        let offsets = OffsetBuffer::new(offsets.into());
        Ok(Arc::new(StringArray::try_new(offsets, Buffer::from_vec(self.bytes), nulls(self.present))?))
    }
}

/// Empties a column and makes room.
fn prepare<T>(column: &mut Vec<T>, rows: usize) {
    column.clear();
    column.reserve(rows);
}

/// Packs which values are there; `None` when all are.
fn nulls(present: Vec<bool>) -> Option<NullBuffer> {
    Some(NullBuffer::from(present)).filter(|nulls| nulls.null_count() > 0)
}

fn pseudonyms(values: Vec<[u8; 16]>, nulls: Option<NullBuffer>) -> Result<ArrayRef, ArrowError> {
    let rows = values.len();
    Ok(Arc::new(FixedSizeBinaryArray::try_new_with_len(PSEUDONYM_BYTES, Buffer::from_vec(values.into_flattened()), nulls, rows)?))
}

fn tokens(values: impl Iterator<Item = [u8; 8]>, nulls: Option<NullBuffer>) -> Result<ArrayRef, ArrowError> {
    let values: Vec<[u8; 8]> = values.collect();
    let rows = values.len();
    Ok(Arc::new(FixedSizeBinaryArray::try_new_with_len(TOKEN_BYTES, Buffer::from_vec(values.into_flattened()), nulls, rows)?))
}

/// Puts columns under their schema. Arrow's own text is dropped: it is not ours to know what it quotes.
fn batch(schema: &SchemaRef, columns: impl FnOnce() -> Result<Vec<ArrayRef>, ArrowError>) -> Result<RecordBatch, MinimizeError> {
    columns().and_then(|columns| RecordBatch::try_new(Arc::clone(schema), columns)).map_err(|_| MinimizeError::Columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i8_a_person_who_is_missing_is_an_error_and_never_a_zero() {
        let mut column = Person::<AnalyticsDay>::default();
        let (first, second) = (column.reserve(), column.reserve());
        column.fill(second, Pseudonym::from_keyed_hash([2; 16]), EpochId(0), &[0; 17]);
        let mut unsettled = CleanColumns { person: column, ..CleanColumns::default() };
        assert!(matches!(unsettled.finish(), Err(MinimizeError::Columns)));
        let mut column = Person::<AnalyticsDay>::default();
        let place = column.reserve();
        column.fill(place, Pseudonym::from_keyed_hash([1; 16]), EpochId(0), &[0; 17]);
        assert_eq!((first, column.finish(None).expect("all are there").len()), (0, 1));
    }
}
