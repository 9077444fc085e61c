//! From rows to an answer: the one place where exact numbers become noisy ones.

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeBinaryArray, RecordBatch};
use arrow::datatypes::{DataType, Int32Type, Int64Type, UInt32Type, UInt64Type};

use super::beside::{Beside, Cuts};
use super::contributions::{Contributions, Exact, Order, People};
use super::keys::Keys;
use super::plan::{BiasPlan, Blur, Plan, pooled_sensitivity, together};
use super::quantile;
use super::spec::{ABSENT, Aggregate, Spec};
use crate::PrivacyError;
use crate::bound::Sensitivity;
use crate::mechanism::add_noise;
use crate::noise::Noise;

/// A question's answer. Only noisy numbers.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The keys of the groups that are shown, a column each.
    pub keys: Vec<ArrayRef>,
    /// How many groups are shown.
    pub groups: usize,
    /// By aggregate, by group: a noisy total, or a value of the quantile's grid. Where bounds were to be found: one value each.
    pub values: Vec<Vec<i64>>,
    /// By aggregate, by group: both ends of a quantile's 95 % interval, where it was asked for; else empty.
    pub intervals: Vec<Vec<(i64, i64)>>,
    /// By aggregate: the noisy total over all groups that are not shown, where it was asked for; none for quantiles.
    pub other: Option<Vec<Option<i64>>>,
    /// How much the bounds cut off, where it was asked for.
    pub bias: Option<Bias>,
}

/// How much the bounds cut off, at least, over all groups. Noisy numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bias {
    /// By aggregate: what was kept, and what was cut; none for quantiles.
    pub parts: Vec<Option<[i64; 2]>>,
    /// How many people there are, and of how many anything was cut.
    pub people: [i64; 2],
}

/// A question that takes rows.
///
/// Columns of a batch: the person first (a whole number, or bytes or text, which are hashed to 128 bits), then the keys, then the inputs as
/// `Int64`, where NULL is no value.
pub struct Asked {
    spec: Spec,
    keys: Option<Keys>,
    listed: Option<Vec<ArrayRef>>,
    contributions: Contributions,
    short: Vec<u64>,
    long: Vec<u128>,
    inputs: Vec<Vec<i64>>,
}

impl Asked {
    /// Begins. `listed`: the groups' keys where they are public, a column each.
    ///
    /// # Errors
    /// [`PrivacyError::Question`].
    pub fn new(spec: Spec, order: Order, listed: Option<Vec<ArrayRef>>) -> Result<Self, PrivacyError> {
        spec.check()?;
        if spec.keys > 0 && spec.discovered == listed.is_some() {
            return Err(PrivacyError::Question { what: "groups are either listed or discovered" });
        }
        let keys = match &listed {
            Some(columns) => Some(Keys::listed(columns)?),
            None if spec.keys == 0 => Some(Keys::new(&[])?),
            None => None,
        };
        let inputs = vec![Vec::new(); spec.inputs.len()];
        Ok(Self {
            contributions: Contributions::new(spec.clone(), order),
            spec,
            keys,
            listed,
            short: Vec::new(),
            long: Vec::new(),
            inputs,
        })
    }

    /// Measures this beside the groups, too. No rows may have come yet.
    #[must_use]
    pub fn beside(self, beside: Beside) -> Self {
        Self { contributions: self.contributions.beside(beside), ..self }
    }

    /// Finds the bounds that the plan names, if it names any, in place of an answer. No rows may have come yet.
    #[must_use]
    pub fn probing(self, plan: &Plan) -> Self {
        Self { contributions: self.contributions.probing(plan.probes.clone()), ..self }
    }

    /// Rows of another block follow: people have other pseudonyms there, so nobody goes on.
    ///
    /// # Errors
    /// [`PrivacyError::Overflow`].
    pub fn next_block(&mut self) -> Result<(), PrivacyError> {
        match &self.keys {
            Some(keys) => self.contributions.complete(keys.lots()),
            None => Ok(()),
        }
    }

    /// Leaves half of the people whose rows are taken for another pass over all rows, and forgets theirs: for less memory. `false` if there is nothing
    /// to leave: rows come in order of person, or are of few people.
    pub fn narrow(&mut self) -> bool {
        self.contributions.narrow()
    }

    /// All rows have come. `true` if all of them have to come once more, for people who were left.
    ///
    /// # Errors
    /// [`PrivacyError::Overflow`].
    pub fn next_pass(&mut self) -> Result<bool, PrivacyError> {
        self.contributions.next_pass(self.keys.as_ref().map_or(&[], Keys::lots))
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.contributions.bytes() + self.keys.as_ref().map_or(0, Keys::bytes)
    }

    /// Adds rows.
    ///
    /// # Errors
    /// [`PrivacyError::Unsorted`], [`PrivacyError::Overflow`], [`PrivacyError::Question`] for other columns.
    pub fn push(&mut self, batch: &RecordBatch) -> Result<(), PrivacyError> {
        let columns = batch.columns();
        let (Some(person), Some(keys), Some(inputs)) =
            (columns.first(), columns.get(1..1 + self.spec.keys), columns.get(1 + self.spec.keys..))
        else {
            return Err(COLUMNS);
        };
        if inputs.len() != self.spec.inputs.len() {
            return Err(COLUMNS);
        }
        let known = match &mut self.keys {
            Some(known) => known,
            None => self.keys.insert(Keys::new(keys)?),
        };
        let groups: &[u32] = if keys.is_empty() { &[] } else { known.intern(keys)? };
        let groups = groups.to_vec();
        for (held, column) in self.inputs.iter_mut().zip(inputs) {
            let column = column.as_primitive_opt::<Int64Type>().ok_or(COLUMNS)?;
            held.clear();
            if column.null_count() == 0 {
                held.extend(column.values().iter().map(|value| (*value).max(ABSENT + 1)));
            } else {
                held.extend(column.iter().map(|value| value.map_or(ABSENT, |value| value.max(ABSENT + 1))));
            }
        }
        let inputs: Vec<&[i64]> = self.inputs.iter().map(Vec::as_slice).collect();
        let people = people(person, &mut self.short, &mut self.long)?;
        self.contributions.push(people, &groups, &inputs, known.lots())
    }

    /// Bounds, adds up, and draws noise as planned. Blocks a thread: call it where that is allowed.
    ///
    /// # Privacy
    /// The caller holds a charge of the plan's ρ and δ for every block the rows are of. For neighbours (all rows of one person more or less) the
    /// answer is δ-approximate ρ-zCDP: each aggregate's mechanism is asked what it costs at the sensitivity its totals were bounded to, and
    /// nothing is drawn if that is more than planned.
    ///
    /// # Errors
    /// [`PrivacyError::CostsMoreThanCharged`], [`PrivacyError::NotDrawn`], [`PrivacyError::Overflow`].
    pub(crate) fn draw(self, plan: &Plan) -> Result<Answer, PrivacyError> {
        let Self { spec, keys, contributions, .. } = self;
        let keys = match keys {
            Some(keys) => keys,
            // No rows came, and groups are discovered: there are none. What is measured beside them is measured all the same.
            None => Keys::new(&[])?,
        };
        let mut exact = contributions.finish(keys.lots())?;
        if !plan.probes.is_empty() {
            if plan.spent() > i128::from(plan.rho.0) || !plan.blurs.is_empty() || plan.beside() != Beside::default() {
                return Err(PrivacyError::CostsMoreThanCharged);
            }
            let found = exact.histograms.draw(&plan.probes)?;
            if found.len() != plan.probes.len() {
                return Err(NOT_GATHERED);
            }
            return Ok(Answer {
                keys: Vec::new(),
                groups: 1,
                values: found.into_iter().map(|v| vec![v]).collect(),
                intervals: Vec::new(),
                other: None,
                bias: None,
            });
        }
        let (pool, cuts) = (exact.pool.take(), exact.cuts.take());
        let Blurred { shown, values, intervals } = blur(&spec, plan, exact, &keys)?;
        let other = match (&plan.other, pool) {
            (None, _) => None,
            (Some(_), None) => return Err(NOT_GATHERED),
            (Some(added), Some(pool)) => {
                // The groups that are shown are an answer with noise; everything else is pooled, whatever it is.
                let mut is_shown = vec![false; keys.len()];
                for group in &shown {
                    if let Some(place) = is_shown.get_mut(*group as usize) {
                        *place = true;
                    }
                }
                let one = |at: usize, aggregate: &Aggregate| -> Result<Option<i64>, PrivacyError> {
                    let Some(Some(added)) = added.get(at) else { return Ok(None) };
                    let total = pool.total(at, aggregate, &is_shown)?;
                    let drawn = add_noise(added.noise, pooled_sensitivity(&spec, aggregate)?, added.rho, vec![total])?;
                    Ok(drawn.first().copied())
                };
                Some(spec.aggregates.iter().enumerate().map(|(at, a)| one(at, a)).collect::<Result<Vec<_>, _>>()?)
            }
        };
        let bias = match (&plan.bias, cuts) {
            (None, _) => None,
            (Some(_), None) => return Err(NOT_GATHERED),
            (Some(planned), Some(cuts)) => Some(bias(&spec, planned, &cuts)?),
        };
        Ok(Answer { keys: keys.columns(&shown)?, groups: shown.len(), values, intervals, other, bias })
    }

    /// The columns of the listed groups.
    #[must_use]
    pub fn listed(&self) -> Option<&[ArrayRef]> {
        self.listed.as_deref()
    }
}

/// Exact answers below the noise, for tests that compare neighbours. There is no other way to them, and none in a build that people run.
#[cfg(feature = "exact")]
#[derive(Debug)]
pub struct ExactForTests {
    /// The keys of all groups, a column each.
    pub keys: Vec<ArrayRef>,
    /// How many groups there are.
    pub groups: usize,
    /// By aggregate, by group; empty for quantiles.
    pub totals: Vec<Vec<i64>>,
    /// By aggregate: (group, place on the grid) of every value; empty for sums.
    pub values: Vec<Vec<(u32, u32)>>,
}

#[cfg(feature = "exact")]
impl Asked {
    /// Draws without a charge.
    ///
    /// # Errors
    /// As a charge's draw.
    pub fn draw_for_tests(self, plan: &Plan) -> Result<Answer, PrivacyError> {
        self.draw(plan)
    }

    /// Bounds and adds up once, then draws so many times: for audits from outputs. Of sums alone, with nothing beside the groups.
    ///
    /// # Errors
    /// As a charge's draw.
    pub fn draws_for_tests(self, plan: &Plan, times: usize) -> Result<Vec<Vec<Vec<i64>>>, PrivacyError> {
        let Self { spec, keys, contributions, .. } = self;
        let keys = keys.map_or_else(|| Keys::new(&[]), Ok)?;
        if plan.beside() != Beside::default() || !plan.probes.is_empty() {
            return Err(NOT_GATHERED);
        }
        let Exact { totals, values, .. } = contributions.finish(keys.lots())?;
        let again = || Exact {
            totals: totals.clone(),
            values: values.clone(),
            pool: None,
            cuts: None,
            histograms: super::suggest::Histograms::new(&[]),
        };
        (0..times).map(|_| blur(&spec, plan, again(), &keys).map(|blurred| blurred.values)).collect()
    }

    /// What [`Self::draw`] would add noise to.
    ///
    /// # Errors
    /// [`PrivacyError::Overflow`].
    pub fn exact_for_tests(self) -> Result<ExactForTests, PrivacyError> {
        let Self { spec, keys, contributions, .. } = self;
        let Some(keys) = keys else {
            let none = || vec![Vec::new(); spec.aggregates.len()];
            return Ok(ExactForTests {
                keys: Vec::new(),
                groups: 0,
                totals: none(),
                values: vec![Vec::new(); spec.aggregates.len()],
            });
        };
        let exact = contributions.finish(keys.lots())?;
        let all: Vec<u32> = (0..u32::try_from(keys.len()).map_err(|_| PrivacyError::Overflow)?).collect();
        #[allow(clippy::cast_possible_truncation)]
        let values =
            exact.values.iter().map(|of| of.iter().map(|value| ((value >> 32) as u32, *value as u32)).collect()).collect();
        Ok(ExactForTests { keys: keys.columns(&all)?, groups: all.len(), totals: exact.totals, values })
    }
}

const COLUMNS: PrivacyError = PrivacyError::Question { what: "the rows do not have the question's columns" };

const NOT_GATHERED: PrivacyError = PrivacyError::Question { what: "what is measured beside the groups was not gathered" };

/// Noise on what the bounds kept and cut.
fn bias(spec: &Spec, plan: &BiasPlan, cuts: &Cuts) -> Result<Bias, PrivacyError> {
    let pair = |noisy: Vec<i64>| <[i64; 2]>::try_from(noisy).map_err(|_| PrivacyError::NotDrawn);
    let part = |at: usize, aggregate: &Aggregate| {
        let Some(Some(added)) = plan.parts.get(at) else { return Ok(None) };
        let exact = cuts.parts.get(at).map_or_else(|| vec![0; 2], |part| part.to_vec());
        pair(add_noise(added.noise, Sensitivity::of(2, together(spec, aggregate)?), added.rho, exact)?).map(Some)
    };
    let parts = spec.aggregates.iter().enumerate().map(|(at, aggregate)| part(at, aggregate)).collect::<Result<Vec<_>, _>>()?;
    let people = pair(add_noise(plan.people.noise, Sensitivity::of(2, 1), plan.people.rho, cuts.people.to_vec())?)?;
    Ok(Bias { parts, people })
}

/// The groups that are shown, and their noisy values and intervals by aggregate.
struct Blurred {
    shown: Vec<u32>,
    values: Vec<Vec<i64>>,
    intervals: Vec<Vec<(i64, i64)>>,
}

fn blur(spec: &Spec, plan: &Plan, exact: Exact, keys: &Keys) -> Result<Blurred, PrivacyError> {
    if plan.blurs.len() != spec.aggregates.len() || plan.spent() > i128::from(plan.rho.0) {
        return Err(PrivacyError::CostsMoreThanCharged);
    }
    let Exact { totals, values, .. } = exact;
    let per_person = spec.groups_at_most();
    let noisy = |aggregate: &Aggregate, blur: &Blur, totals: Vec<i64>| match blur {
        // A vector that is bounded in length alone gets Gaussian noise, or none.
        Blur::Noise { noise: Noise::DiscreteLaplace { .. }, .. } if aggregate.is_one_vector() => {
            Err(PrivacyError::CostsMoreThanCharged)
        }
        Blur::Noise { noise, rho } => {
            let value = u32::try_from(aggregate.step()).map_err(|_| PrivacyError::Overflow)?;
            add_noise(*noise, Sensitivity::of(per_person, value), *rho, totals)
        }
        Blur::Quantile { .. } => Err(PrivacyError::CostsMoreThanCharged),
    };
    let of = |totals: &[i64], groups: &[u32]| -> Vec<i64> {
        groups.iter().map(|group| totals.get(*group as usize).copied().unwrap_or(0)).collect()
    };

    let mut shown: Vec<u32> = (0..u32::try_from(keys.len()).map_err(|_| PrivacyError::Overflow)?).collect();
    let mut people = None;
    if spec.discovered {
        let (Some(at), Some(threshold)) = (spec.people(), plan.threshold) else { return Err(PrivacyError::CostsMoreThanCharged) };
        let (Some(aggregate), Some(blur), Some(totals)) = (spec.aggregates.get(at), plan.blurs.get(at), totals.get(at)) else {
            return Err(COLUMNS);
        };
        // Groups that nobody is in after bounding are not there.
        shown.retain(|group| totals.get(*group as usize).is_some_and(|n| *n > 0));
        keys.in_order(&mut shown);
        let drawn = noisy(aggregate, blur, of(totals, &shown))?;
        let kept: Vec<(u32, i64)> = shown.into_iter().zip(drawn).filter(|(_, people)| *people >= threshold).collect();
        shown = kept.iter().map(|(group, _)| *group).collect();
        people = Some((at, kept.into_iter().map(|(_, people)| people).collect::<Vec<i64>>()));
    }
    let mut out = Vec::with_capacity(spec.aggregates.len());
    let mut intervals = vec![Vec::new(); spec.aggregates.len()];
    for (at, (aggregate, blur)) in spec.aggregates.iter().zip(&plan.blurs).enumerate() {
        if let Some((place, drawn)) = &people
            && *place == at
        {
            out.push(drawn.clone());
            continue;
        }
        out.push(match (aggregate, blur) {
            (Aggregate::Sum { .. }, Blur::Noise { .. }) => {
                noisy(aggregate, blur, of(totals.get(at).map_or(&[], Vec::as_slice), &shown))?
            }
            (Aggregate::Quantile { rank, grid, .. }, Blur::Quantile { gamma, interval, .. }) => {
                let values = values.get(at).map_or(&[][..], Vec::as_slice);
                let mut counts = vec![0_u64; grid.values().len()];
                let mut drawn = Vec::with_capacity(shown.len());
                for group in &shown {
                    let from = values.partition_point(|value| (value >> 32) < u64::from(*group));
                    let mine =
                        values.get(from..).unwrap_or_default().iter().take_while(|value| (**value >> 32) == u64::from(*group));
                    counts.fill(0);
                    for value in mine {
                        if let Some(count) = counts.get_mut((value & 0xffff_ffff) as usize) {
                            *count += 1;
                        }
                    }
                    let place = quantile::draw(&quantile::scores(counts.iter().copied(), *rank), gamma.0)?;
                    drawn.push(grid.values().get(place).copied().unwrap_or_default());
                    if let (Some(interval), Some(slot)) = (interval, intervals.get_mut(at)) {
                        let (low, high) = interval.ends.draw(&counts, *rank, place)?;
                        // What was counted at a place may be anything that is nearest to it.
                        slot.push((grid.covered(low).0, grid.covered(high).1));
                    }
                }
                drawn
            }
            _ => return Err(PrivacyError::CostsMoreThanCharged),
        });
    }
    Ok(Blurred { shown, values: out, intervals })
}

/// People as numbers. Bytes and text that do not fit are hashed with BLAKE3 to 128 bits, of which no two are equal.
fn people<'a>(column: &ArrayRef, short: &'a mut Vec<u64>, long: &'a mut Vec<u128>) -> Result<People<'a>, PrivacyError> {
    if column.null_count() > 0 {
        return Err(PrivacyError::WrongColumn { column: "person" });
    }
    short.clear();
    long.clear();
    let hashed = |bytes: &[u8]| -> u128 {
        let mut head = [0; 16];
        head.iter_mut().zip(blake3::hash(bytes).as_bytes()).for_each(|(to, from)| *to = *from);
        u128::from_le_bytes(head)
    };
    match column.data_type() {
        DataType::Int64 => short.extend(column.as_primitive::<Int64Type>().values().iter().map(|v| v.cast_unsigned())),
        DataType::UInt64 => short.extend_from_slice(column.as_primitive::<UInt64Type>().values()),
        DataType::UInt32 => short.extend(column.as_primitive::<UInt32Type>().values().iter().map(|v| u64::from(*v))),
        DataType::Int32 => short.extend(column.as_primitive::<Int32Type>().values().iter().map(|v| u64::from(v.cast_unsigned()))),
        DataType::FixedSizeBinary(16) => {
            let column = column.as_any().downcast_ref::<FixedSizeBinaryArray>().ok_or(COLUMNS)?;
            long.extend(column.value_data().as_chunks::<16>().0.iter().map(|bytes| u128::from_be_bytes(*bytes)));
        }
        DataType::Utf8 => long.extend(column.as_string::<i32>().iter().flatten().map(|v| hashed(v.as_bytes()))),
        DataType::LargeUtf8 => long.extend(column.as_string::<i64>().iter().flatten().map(|v| hashed(v.as_bytes()))),
        DataType::Utf8View => long.extend(column.as_string_view().iter().flatten().map(|v| hashed(v.as_bytes()))),
        DataType::Binary => long.extend(column.as_binary::<i32>().iter().flatten().map(hashed)),
        DataType::BinaryView => long.extend(column.as_binary_view().iter().flatten().map(hashed)),
        _ => return Err(PrivacyError::WrongColumn { column: "person" }),
    }
    let people = if long.is_empty() { People::Short(short) } else { People::Long(long) };
    if people.len() == column.len() { Ok(people) } else { Err(PrivacyError::WrongColumn { column: "person" }) }
}
