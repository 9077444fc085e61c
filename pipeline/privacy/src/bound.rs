//! Bounds what one person can change, then sums exactly. Integers only.

use std::sync::Arc;

use arrow::array::{Array, FixedSizeBinaryArray, PrimitiveArray, RecordBatch};
use arrow::datatypes::{ArrowPrimitiveType, UInt8Type, UInt16Type, UInt32Type};
use starling_schemas::metrics::{Measure, Metric};
use starling_schemas::rows::PSEUDONYM_BYTES;

use crate::PrivacyError;
use crate::groups::PublicGroups;

/// How much the vector of sums can change when one person's rows are added or removed.
///
/// # Privacy
/// Neighbours are two person tables of which one has all rows of one person more than the other (add/remove). Then the vectors of sums
/// differ in at most `groups` places, in each by at most `value`, and by the distances below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sensitivity {
    groups: u32,
    value: u32,
}

impl Sensitivity {
    /// L0: in how many groups.
    #[must_use]
    pub const fn groups(self) -> u32 {
        self.groups
    }

    /// L∞: by how much in one group.
    #[must_use]
    pub const fn value(self) -> u32 {
        self.value
    }

    /// L1 distance, exactly.
    #[must_use]
    pub fn l1(self) -> u64 {
        u64::from(self.groups) * u64::from(self.value)
    }

    /// Square of the L2 distance, exactly.
    #[must_use]
    pub fn l2_squared(self) -> u128 {
        u128::from(self.groups) * u128::from(self.value) * u128::from(self.value)
    }

    #[cfg(test)]
    pub(crate) const fn planted(groups: u32, value: u32) -> Self {
        Self { groups, value }
    }
}

/// Exact sums of bounded contributions, with the sensitivity they were bounded to. Made by [`Bounder`], read by the mechanism only: no
/// `Debug`, no accessor outside this crate.
pub struct BoundedSums {
    groups: Arc<PublicGroups>,
    sums: Vec<i64>,
    sensitivity: Sensitivity,
}

impl BoundedSums {
    /// How much one person can change.
    #[must_use]
    pub const fn sensitivity(&self) -> Sensitivity {
        self.sensitivity
    }

    pub(crate) fn into_parts(self) -> (Arc<PublicGroups>, Vec<i64>, Sensitivity) {
        (self.groups, self.sums, self.sensitivity)
    }
}

/// Takes person rows in order of person, batch by batch, and holds one person at a time.
///
/// # Privacy
/// What a person adds depends on that person's rows and on the metric alone:
/// 1. their rows are summed by group (for [`Measure::People`], a group they have a row in counts 1);
/// 2. each group's sum is clamped, as one sum, to `value_per_group`;
/// 3. of more groups (with anything in them) than `groups_per_person` those stay whose BLAKE3 hash with the pseudonym is smallest, a choice
///    that other people's rows do not enter.
///
/// So adding or removing one person changes the sums by at most [`Sensitivity`]. A person who came twice would be bounded twice: rows out of
/// order are an error, never a wrong sum.
pub struct Bounder {
    groups: Arc<PublicGroups>,
    measure: Measure,
    sensitivity: Sensitivity,
    person: Option<u128>,
    /// What the current person has in which group; several entries a group until the person is complete.
    theirs: Vec<(u32, u64)>,
    sums: Vec<i64>,
}

impl Bounder {
    /// Begins the sums of `metric`, all zero.
    ///
    /// # Errors
    /// [`PrivacyError::Definition`] if the metric cannot be grouped.
    pub fn new(metric: &Metric) -> Result<Self, PrivacyError> {
        let groups = Arc::new(PublicGroups::of(metric)?);
        let most = u32::try_from(groups.count()).unwrap_or(u32::MAX);
        let value = if metric.measure == Measure::People { 1 } else { metric.bounds.value_per_group };
        let sensitivity = Sensitivity { groups: metric.bounds.groups_per_person.min(most), value };
        if sensitivity.l1() == 0 {
            return Err(PrivacyError::Definition { metric: metric.name.clone(), what: "bounds must be at least 1".to_owned() });
        }
        let sums = vec![0; groups.count()];
        Ok(Self { groups, measure: metric.measure, sensitivity, person: None, theirs: Vec::new(), sums })
    }

    /// Adds rows of `PERSON_ROWS`, which follow those handed in before.
    ///
    /// # Errors
    /// [`PrivacyError::Unsorted`] if a person comes after a greater one, [`PrivacyError::WrongColumn`], [`PrivacyError::Overflow`].
    pub fn push(&mut self, batch: &RecordBatch) -> Result<(), PrivacyError> {
        let people = people(batch)?;
        let countries = numbers::<UInt16Type>(batch, "country")?.values();
        let platforms = numbers::<UInt8Type>(batch, "platform")?.values();
        let activities = numbers::<UInt8Type>(batch, "activity")?.values();
        let events = numbers::<UInt32Type>(batch, "events")?.values();
        let seconds = numbers::<UInt32Type>(batch, "seconds")?.values();
        let amounts = if self.measure == Measure::Seconds { seconds } else { events };

        let dimensions = countries.iter().zip(platforms).zip(activities);
        for ((person, amount), ((country, platform), activity)) in people.zip(amounts).zip(dimensions) {
            match self.person {
                Some(last) if last == person => {}
                Some(last) if last > person => return Err(PrivacyError::Unsorted),
                Some(_) => {
                    self.add_person()?;
                    self.person = Some(person);
                }
                None => self.person = Some(person),
            }
            if let Some(group) = self.groups.of_row(*country, *platform, *activity) {
                let amount = if self.measure == Measure::People { 1 } else { u64::from(*amount) };
                self.theirs.push((group, amount));
            }
        }
        Ok(())
    }

    /// The sums over everybody handed in.
    ///
    /// # Errors
    /// [`PrivacyError::Overflow`].
    pub fn finish(mut self) -> Result<BoundedSums, PrivacyError> {
        self.add_person()?;
        Ok(BoundedSums { groups: self.groups, sums: self.sums, sensitivity: self.sensitivity })
    }

    /// Bounds the current person and adds them to the sums.
    fn add_person(&mut self) -> Result<(), PrivacyError> {
        let Some(person) = self.person else { return Ok(()) };
        bound(person, &mut self.theirs, self.sensitivity);
        for (group, amount) in self.theirs.drain(..) {
            let slot = usize::try_from(group).ok().and_then(|at| self.sums.get_mut(at)).ok_or(PrivacyError::Overflow)?;
            let amount = i64::try_from(amount).map_err(|_| PrivacyError::Overflow)?;
            *slot = slot.checked_add(amount).ok_or(PrivacyError::Overflow)?;
        }
        Ok(())
    }
}

/// Bounds one person, in place: afterwards at most `groups` entries, of different groups, each from 1 to `value`.
fn bound(person: u128, theirs: &mut Vec<(u32, u64)>, sensitivity: Sensitivity) {
    theirs.sort_unstable_by_key(|(group, _)| *group);
    theirs.dedup_by(|next, kept| {
        let same = next.0 == kept.0;
        if same {
            kept.1 = kept.1.saturating_add(next.1);
        }
        same
    });
    // Nothing in a group is not being in it: it must not take the place of something.
    theirs.retain(|(_, amount)| *amount > 0);
    for (_, amount) in theirs.iter_mut() {
        *amount = (*amount).min(u64::from(sensitivity.value));
    }
    let most = usize::try_from(sensitivity.groups).unwrap_or(usize::MAX);
    if theirs.len() > most {
        theirs.sort_by_cached_key(|(group, _)| lot(person, *group));
        theirs.truncate(most);
    }
}

/// The lot a person draws for a group. Pseudonyms are keyed hashes, so lots are as good as random, and the same at every reading.
fn lot(person: u128, group: u32) -> [u8; 32] {
    let mut input = [0; 20];
    let (head, tail) = input.split_at_mut(16);
    head.copy_from_slice(&person.to_be_bytes());
    tail.copy_from_slice(&group.to_be_bytes());
    *blake3::hash(&input).as_bytes()
}

/// The pseudonyms as numbers that order as their bytes do.
fn people(batch: &RecordBatch) -> Result<impl Iterator<Item = u128>, PrivacyError> {
    let wrong = || PrivacyError::WrongColumn { column: "person" };
    let column = batch.column_by_name("person").ok_or_else(wrong)?;
    let column = column.as_any().downcast_ref::<FixedSizeBinaryArray>().ok_or_else(wrong)?;
    if column.value_length() != PSEUDONYM_BYTES || column.null_count() > 0 {
        return Err(wrong());
    }
    let (chunks, _) = column.value_data().as_chunks::<16>();
    if chunks.len() != column.len() {
        return Err(wrong());
    }
    Ok(chunks.iter().map(|bytes| u128::from_be_bytes(*bytes)))
}

fn numbers<'a, T: ArrowPrimitiveType>(batch: &'a RecordBatch, name: &'static str) -> Result<&'a PrimitiveArray<T>, PrivacyError> {
    let wrong = || PrivacyError::WrongColumn { column: name };
    let column = batch.column_by_name(name).ok_or_else(wrong)?;
    let column = column.as_any().downcast_ref::<PrimitiveArray<T>>().ok_or_else(wrong)?;
    if column.null_count() > 0 { Err(wrong()) } else { Ok(column) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use starling_schemas::codes::{Activity, COUNTRIES, Country};
    use starling_schemas::metrics::{Bounds, Catalogue, Dimension};

    use super::*;
    use crate::testing::{Row, batch};

    fn metric(measure: Measure, groups_per_person: u32, value_per_group: u32) -> Metric {
        let mut metric = Catalogue::builtin().expect("reviewed").metrics.into_iter().next().expect("listed");
        metric.measure = measure;
        metric.dimensions = vec![Dimension::Country, Dimension::Platform];
        metric.bounds = Bounds { groups_per_person, value_per_group };
        metric
    }

    fn sums(metric: &Metric, rows: &[Row], at_once: usize) -> Result<Vec<i64>, PrivacyError> {
        let mut bounder = Bounder::new(metric)?;
        for part in rows.chunks(at_once) {
            bounder.push(&batch(part))?;
        }
        Ok(bounder.finish()?.into_parts().1)
    }

    fn row(person: u128, platform: u8, activity: Activity, events: u32, seconds: u32) -> Row {
        let country = Country::parse("DE").expect("listed").code();
        Row { person, country, platform, activity: activity.code(), events, seconds }
    }

    fn non_zero(sums: &[i64]) -> Vec<i64> {
        sums.iter().copied().filter(|s| *s != 0).collect()
    }

    #[test]
    fn a_persons_share_of_a_group_is_clipped_as_one_sum() {
        // 40 + 40 in one group, through two activities: 60 stay, not 80.
        let rows = [
            row(1, 1, Activity::MessagePerson, 40, 0),
            row(1, 1, Activity::MessageGroup, 40, 0),
            row(2, 1, Activity::CallVoice, 5, 9),
        ];
        for at_once in [1, 2, 3] {
            assert_eq!(non_zero(&sums(&metric(Measure::Events, 2, 60), &rows, at_once).expect("sorted")), [65]);
        }
        assert_eq!(non_zero(&sums(&metric(Measure::People, 2, 1), &rows, 3).expect("sorted")), [2]);
        assert_eq!(non_zero(&sums(&metric(Measure::Seconds, 2, 7), &rows, 3).expect("sorted")), [7]);
    }

    #[test]
    fn which_groups_of_a_person_stay_is_the_same_at_every_reading_and_differs_between_people() {
        let rows: Vec<Row> =
            (1..=64).flat_map(|person| (1..=6).map(move |p| row(person, p, Activity::CallVoice, 1, 1))).collect();
        let metric = metric(Measure::People, 2, 1);
        let first = sums(&metric, &rows, 100).expect("sorted");
        assert_eq!(first, sums(&metric, &rows, 7).expect("sorted"));
        assert_eq!(first.iter().sum::<i64>(), 128, "two groups each");
        assert!(non_zero(&first).len() > 2, "not everybody keeps the same two");
    }

    #[test]
    fn an_empty_share_does_not_take_the_place_of_another() {
        let rows =
            [row(1, 1, Activity::CallVoice, 1, 0), row(1, 2, Activity::CallVoice, 1, 30), row(1, 3, Activity::CallVoice, 1, 0)];
        assert_eq!(non_zero(&sums(&metric(Measure::Seconds, 1, 100), &rows, 3).expect("sorted")), [30]);
    }

    #[test]
    fn rows_out_of_order_are_an_error_not_a_wrong_sum() {
        let rows =
            [row(1, 1, Activity::CallVoice, 1, 0), row(2, 1, Activity::CallVoice, 1, 0), row(1, 2, Activity::CallVoice, 1, 0)];
        for at_once in [1, 2, 3] {
            let error = sums(&metric(Measure::People, 1, 1), &rows, at_once).map(|_| ()).expect_err("refused");
            assert!(matches!(error, PrivacyError::Unsorted), "{error}");
        }
    }

    #[test]
    fn a_table_of_another_shape_is_refused_by_column() {
        let full = batch(&[row(1, 1, Activity::CallVoice, 1, 0)]);
        let without = full.project(&[0, 1, 2, 3, 4]).expect("columns");
        let error = Bounder::new(&metric(Measure::People, 1, 1)).expect("sound").push(&without).expect_err("refused");
        assert!(matches!(error, PrivacyError::WrongColumn { column: "seconds" }), "{error}");
    }

    #[test]
    fn nobody_gives_a_zero_for_every_group() {
        let sums = sums(&metric(Measure::People, 2, 1), &[], 1).expect("sorted");
        assert_eq!(sums, vec![0; COUNTRIES.len() * 7]);
    }

    #[test]
    fn a_person_cannot_be_in_more_groups_than_there_are() {
        let mut total = metric(Measure::Events, 5, 60);
        total.dimensions.clear();
        assert_eq!(Bounder::new(&total).expect("sound").finish().expect("fits").sensitivity(), Sensitivity::planted(1, 60));
    }

    fn rows() -> impl Strategy<Value = Vec<Row>> {
        let country = prop::sample::select(vec!["DE", "FR", "IN", "ZZ"]);
        let activity = prop::sample::select(Activity::ALL.to_vec());
        let row = (0..12_u128, country, 0..7_u8, activity, 0..200_u32, prop_oneof![0..5000_u32, Just(u32::MAX)]);
        prop::collection::vec(row, 0..120).prop_map(|rows| {
            let mut rows: Vec<Row> = rows
                .into_iter()
                .map(|(person, country, platform, activity, events, seconds)| {
                    let country = Country::parse(country).expect("listed").code();
                    Row { person, country, platform, activity: activity.code(), events, seconds }
                })
                .collect();
            rows.sort_by_key(|r| (r.person, r.country, r.platform, r.activity));
            rows
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn i2_one_person_more_or_less_stays_within_the_stated_sensitivity(
            rows in rows(),
            groups in 1..5_u32,
            value in 1..100_u32,
            measure in prop::sample::select(vec![Measure::People, Measure::Events, Measure::Seconds]),
            at_once in 1..40_usize,
        ) {
            let metric = metric(measure, groups, value);
            let sensitivity = Bounder::new(&metric).expect("sound").sensitivity;
            let all = sums(&metric, &rows, at_once).expect("sorted");
            for person in 0..12 {
                let others: Vec<Row> = rows.iter().filter(|r| r.person != person).copied().collect();
                let without = sums(&metric, &others, at_once).expect("sorted");
                let gaps: Vec<u64> = all.iter().zip(&without).map(|(a, b)| a.abs_diff(*b)).filter(|d| *d > 0).collect();
                prop_assert!(gaps.len() <= sensitivity.groups() as usize);
                prop_assert!(gaps.iter().all(|d| *d <= u64::from(sensitivity.value())));
                prop_assert!(gaps.iter().sum::<u64>() <= sensitivity.l1());
                prop_assert!(gaps.iter().map(|d| u128::from(d * d)).sum::<u128>() <= sensitivity.l2_squared());
            }
        }
    }
}
