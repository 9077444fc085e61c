//! Several sets of keys in one statement: `ROLLUP`, `CUBE`, `GROUPING SETS`. Each set is a question of its own; their answers become one table.
//!
//! Where the sets are nested (`ROLLUP` always is) and all groups are listed, totals are made to add up: every group's number is the sum of the
//! numbers of the groups inside it. A total that was measured by itself and the sum of its parts tell of the same thing with different noise; both
//! are used, each by its precision (Hay, Rastogi, Miklau & Suciu 2010, "Boosting the accuracy of differentially private histograms through
//! consistency"), and whole numbers are kept by the largest remainder. All of it is made of noisy numbers: post-processing.
//!
//! Distinct people do not add up (a person can be in several groups) and are left alone, as are averages and quantiles. Error bars stay those of
//! the numbers as they were measured: adding up only narrows them.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{Int64Type, Schema};
use arrow::row::{OwnedRow, RowConverter, SortField};
use datafusion::logical_expr::{Expr, GroupingSet};
use starling_privacy::question::Blur;

use super::leaf::{COMPANIONS, Output};
use super::price::Priced;
use super::table::Noisy;
use crate::error::{INTERNAL, QueryError};

/// The questions that are one aggregate of the statement, and the table of their answers.
#[derive(Debug)]
pub(crate) struct Family {
    pub(crate) noisy: Arc<Noisy>,
    pub(crate) schema: Arc<Schema>,
    /// Number of different key expressions.
    pub(crate) keys: usize,
    pub(crate) members: Vec<Member>,
}

/// One set of keys.
#[derive(Debug)]
pub(crate) struct Member {
    /// Number of its leaf.
    pub(crate) leaf: usize,
    /// Which of the family's keys it has, ascending.
    pub(crate) keys: Vec<usize>,
    /// What `GROUPING` is made of.
    pub(crate) id: u64,
}

/// The sets of a grouping set, as places in the list of its different expressions.
pub(crate) fn sets(grouping: &GroupingSet) -> (Vec<Expr>, Vec<Vec<usize>>) {
    let all: Vec<Expr> = grouping.distinct_expr().into_iter().cloned().collect();
    let place = |expression: &Expr| all.iter().position(|known| known == expression).unwrap_or(0);
    let sorted = |set: Vec<usize>| {
        let mut set = set;
        set.sort_unstable();
        set.dedup();
        set
    };
    let sets = match grouping {
        GroupingSet::Rollup(expressions) => {
            (0..=expressions.len()).rev().map(|n| sorted(expressions.iter().take(n).map(place).collect())).collect()
        }
        GroupingSet::Cube(expressions) => (0..1_u64 << expressions.len().min(16))
            .rev()
            .map(|mask| {
                sorted(expressions.iter().enumerate().filter(|(at, _)| mask >> at & 1 == 1).map(|(_, e)| place(e)).collect())
            })
            .collect(),
        GroupingSet::GroupingSets(sets) => sets.iter().map(|set| sorted(set.iter().map(place).collect())).collect(),
    };
    (all, sets)
}

/// The grouping id of a set: a bit for each expression that is not in it, the first one's the highest.
pub(crate) fn grouping_id(keys: usize, set: &[usize]) -> u64 {
    (0..keys).filter(|at| !set.contains(at)).map(|at| 1 << (keys - 1 - at)).sum()
}

fn internal() -> QueryError {
    QueryError::new(INTERNAL, "the engine failed on this statement", "write it in another way, and report this")
}

/// Puts the answers of a family's questions into its table.
///
/// # Errors
/// A fault of the engine.
pub(crate) fn assemble(family: &Family, priced: &[Priced]) -> Result<(), QueryError> {
    let questions: Vec<&Priced> =
        family.members.iter().map(|member| priced.get(member.leaf)).collect::<Option<_>>().ok_or_else(internal)?;
    let mut answers: Vec<RecordBatch> =
        questions.iter().map(|question| question.leaf.noisy.rows().cloned()).collect::<Option<_>>().ok_or_else(internal)?;
    let nested = chain(&family.members);
    if let Some(order) = nested.filter(|_| questions.iter().all(|question| !question.leaf.spec.discovered)) {
        let outputs = questions.first().map_or(0, |question| question.leaf.outputs.len());
        for output in 0..outputs {
            add_up(family, &questions, &order, output, &mut answers)?;
        }
    }
    let mut parts = Vec::new();
    for ((member, question), answer) in family.members.iter().zip(&questions).zip(&answers) {
        let rows = answer.num_rows();
        let mut columns: Vec<ArrayRef> = Vec::new();
        for key in 0..family.keys {
            let kind = family.schema.field(key).data_type();
            columns.push(match member.keys.iter().position(|own| *own == key) {
                Some(at) => cast(answer.column(at), kind).map_err(|_| internal())?,
                None => new_null_array(kind, rows),
            });
        }
        let id: ArrayRef = Arc::new(arrow::array::UInt64Array::from_value(member.id, rows));
        columns.push(cast(&id, family.schema.field(family.keys).data_type()).map_err(|_| internal())?);
        columns.extend(answer.columns().iter().skip(question.leaf.spec.keys).cloned());
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        parts.push(RecordBatch::try_new_with_options(Arc::clone(&family.schema), columns, &options).map_err(|_| internal())?);
    }
    family.noisy.fill(concat_batches(&family.schema, &parts).map_err(|_| internal())?);
    Ok(())
}

/// The members from the smallest set to the largest, if each is inside the next and no two are the same.
fn chain(members: &[Member]) -> Option<Vec<usize>> {
    let mut order: Vec<usize> = (0..members.len()).collect();
    order.sort_by_key(|at| members[*at].keys.len());
    let nested = order.windows(2).all(|pair| {
        let (small, large) = (&members[pair[0]].keys, &members[pair[1]].keys);
        small.len() < large.len() && small.iter().all(|key| large.contains(key))
    });
    nested.then_some(order)
}

/// Makes one total of nested sets add up.
fn add_up(
    family: &Family,
    questions: &[&Priced],
    order: &[usize],
    output: usize,
    answers: &mut [RecordBatch],
) -> Result<(), QueryError> {
    // By level, smallest set first: the numbers, their variance, and the place of each group's parent on the level before.
    let mut levels: Vec<Level> = Vec::new();
    for (depth, at) in order.iter().enumerate() {
        let (Some(question), Some(answer)) = (questions.get(*at), answers.get(*at)) else { return Ok(()) };
        let Some(Output::One(aggregate)) = question.leaf.outputs.get(output) else { return Ok(()) };
        let adds =
            question.leaf.spec.aggregates.get(*aggregate).is_some_and(starling_privacy::question::Aggregate::is_one_vector);
        let Some(Blur::Noise { noise, .. }) = question.plan.blurs.get(*aggregate) else { return Ok(()) };
        let column = answer.column(question.leaf.spec.keys + output);
        let (true, Some(values)) = (adds, column.as_primitive_opt::<Int64Type>()) else { return Ok(()) };
        let parents = match depth.checked_sub(1).and_then(|before| order.get(before)) {
            None => vec![0; values.len()],
            Some(before) => match parents(family, *before, *at, answers)? {
                Some(parents) => parents,
                None => return Ok(()),
            },
        };
        #[allow(clippy::cast_precision_loss)]
        let measured = values.values().iter().map(|v| *v as f64).collect();
        levels.push(Level { measured, variance: noise.variance(), parents });
    }
    let Some(whole) = consistent(&levels) else { return Ok(()) };
    for (at, values) in order.iter().zip(whole) {
        let (Some(question), Some(answer)) = (questions.get(*at), answers.get_mut(*at)) else { continue };
        replace(answer, question.leaf.spec.keys, question.leaf.outputs.len(), output, values)?;
    }
    Ok(())
}

/// Puts other numbers into an answer; its intervals move along.
fn replace(answer: &mut RecordBatch, keys: usize, outputs: usize, output: usize, values: Vec<i64>) -> Result<(), QueryError> {
    let mut columns = answer.columns().to_vec();
    let at = keys + output;
    let before = answer.column(at).as_primitive_opt::<Int64Type>().ok_or_else(internal)?.clone();
    for end in 1..COMPANIONS.len() {
        let place = keys + outputs + COMPANIONS.len() * output + end;
        let Some(bar) = columns.get(place).and_then(|column| column.as_primitive_opt::<arrow::datatypes::Float64Type>()) else {
            return Err(internal());
        };
        #[allow(clippy::cast_precision_loss)]
        let moved: Float64Array = bar
            .iter()
            .zip(before.values())
            .zip(&values)
            .map(|((bar, old), new)| bar.map(|bar| bar + (*new - *old) as f64))
            .collect();
        if let Some(slot) = columns.get_mut(place) {
            *slot = Arc::new(moved);
        }
    }
    if let Some(slot) = columns.get_mut(at) {
        *slot = Arc::new(Int64Array::from(values));
    }
    *answer = RecordBatch::try_new(answer.schema(), columns).map_err(|_| internal())?;
    Ok(())
}

/// For each group of a larger set the place of the group of the smaller set it is in; `None` if one has none.
fn parents(family: &Family, small: usize, large: usize, answers: &[RecordBatch]) -> Result<Option<Vec<usize>>, QueryError> {
    let (Some(inner), Some(outer), Some(few), Some(many)) =
        (family.members.get(small), family.members.get(large), answers.get(small), answers.get(large))
    else {
        return Ok(None);
    };
    if inner.keys.is_empty() {
        return Ok((few.num_rows() == 1).then(|| vec![0; many.num_rows()]));
    }
    let shared: Vec<ArrayRef> = inner
        .keys
        .iter()
        .filter_map(|key| outer.keys.iter().position(|own| own == key))
        .map(|at| Arc::clone(many.column(at)))
        .collect();
    let own: Vec<ArrayRef> = (0..inner.keys.len()).map(|at| Arc::clone(few.column(at))).collect();
    let fields: Vec<SortField> = own.iter().map(|column| SortField::new(column.data_type().clone())).collect();
    let converter = RowConverter::new(fields).map_err(|_| internal())?;
    let known = converter.convert_columns(&own).map_err(|_| internal())?;
    let places: HashMap<OwnedRow, usize> = known.iter().enumerate().map(|(at, row)| (row.owned(), at)).collect();
    let rows = converter.convert_columns(&shared).map_err(|_| internal())?;
    Ok(rows.iter().map(|row| places.get(&row.owned()).copied()).collect())
}

/// One level of a hierarchy.
#[derive(Debug, Clone)]
struct Level {
    measured: Vec<f64>,
    variance: f64,
    parents: Vec<usize>,
}

/// Numbers that add up, as near to the measured ones as their variances say, as whole numbers. `None` if a group has no groups inside it.
fn consistent(levels: &[Level]) -> Option<Vec<Vec<i64>>> {
    // Upwards: what a group and all below it say of its total.
    let mut known: Vec<Vec<(f64, f64)>> =
        levels.iter().map(|level| level.measured.iter().map(|value| (*value, level.variance)).collect()).collect();
    for depth in (1..levels.len()).rev() {
        let groups = levels[depth - 1].measured.len();
        let mut below = vec![(0.0, 0.0, 0_usize); groups];
        for ((value, variance), parent) in known[depth].iter().zip(&levels[depth].parents) {
            let sum = below.get_mut(*parent)?;
            *sum = (sum.0 + value, sum.1 + variance, sum.2 + 1);
        }
        for (own, (value, variance, n)) in known[depth - 1].iter_mut().zip(below) {
            if n == 0 {
                return None;
            }
            let weight = variance / (own.1 + variance);
            *own = (weight * own.0 + (1.0 - weight) * value, own.1 * variance / (own.1 + variance));
        }
    }
    // Downwards: what is missing from a total is spread over its parts by their variances.
    let mut out: Vec<Vec<i64>> = Vec::with_capacity(levels.len());
    #[allow(clippy::cast_possible_truncation)]
    out.push(known.first()?.iter().map(|(value, _)| value.round() as i64).collect());
    for depth in 1..levels.len() {
        let totals = out.last()?;
        let mut sums = vec![(0.0, 0.0); totals.len()];
        for ((value, variance), parent) in known[depth].iter().zip(&levels[depth].parents) {
            let sum = sums.get_mut(*parent)?;
            *sum = (sum.0 + value, sum.1 + variance);
        }
        #[allow(clippy::cast_precision_loss)]
        let exact: Vec<f64> = known[depth]
            .iter()
            .zip(&levels[depth].parents)
            .map(|((value, variance), parent)| {
                let (sum, all) = sums[*parent];
                value + (totals[*parent] as f64 - sum) * variance / all
            })
            .collect();
        // Whole numbers that add up: each rounded down, and what is left given to the largest remainders.
        #[allow(clippy::cast_possible_truncation)]
        let mut whole: Vec<i64> = exact.iter().map(|value| value.floor() as i64).collect();
        let mut left = totals.clone();
        for (value, parent) in whole.iter().zip(&levels[depth].parents) {
            left[*parent] -= value;
        }
        let mut by_remainder: Vec<usize> = (0..whole.len()).collect();
        by_remainder.sort_by(|a, b| (exact[*b] - exact[*b].floor()).total_cmp(&(exact[*a] - exact[*a].floor())));
        for at in by_remainder {
            let left = &mut left[levels[depth].parents[at]];
            if *left > 0 {
                whole[at] += 1;
                *left -= 1;
            }
        }
        // Floats of large numbers: what rounding still left goes to the first.
        for (value, parent) in whole.iter_mut().zip(&levels[depth].parents) {
            *value += std::mem::take(&mut left[*parent]);
        }
        out.push(whole);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_add_up_and_lean_on_the_more_precise() {
        let total = Level { measured: vec![100.0], variance: 1.0, parents: vec![0] };
        let parts = Level { measured: vec![40.0, 50.0], variance: 100.0, parents: vec![0, 0] };
        let whole = consistent(&[total, parts]).expect("a hierarchy");
        assert_eq!(whole[0], [100], "the total is known far better than its parts");
        assert_eq!(whole[1].iter().sum::<i64>(), 100);
        assert_eq!(whole[1], [45, 55], "what was missing is spread evenly");
        let vague = Level { measured: vec![100.0], variance: 1e6, parents: vec![0] };
        let sharp = Level { measured: vec![40.0, 50.0], variance: 0.01, parents: vec![0, 0] };
        assert_eq!(consistent(&[vague, sharp]).expect("a hierarchy"), [vec![90], vec![40, 50]]);
    }

    #[test]
    fn three_levels_add_up_to_the_last_unit() {
        let levels = [
            Level { measured: vec![1_000.4], variance: 9.0, parents: vec![0] },
            Level { measured: vec![333.3, 333.3, 320.9], variance: 4.0, parents: vec![0, 0, 0] },
            Level {
                measured: vec![111.1, 222.0, 300.0, 11.0, 1.0, 322.2, -4.4],
                variance: 25.0,
                parents: vec![0, 0, 1, 1, 1, 2, 2],
            },
        ];
        let whole = consistent(&levels).expect("a hierarchy");
        for depth in 1..3 {
            let mut sums = vec![0; whole[depth - 1].len()];
            for (value, parent) in whole[depth].iter().zip(&levels[depth].parents) {
                sums[*parent] += value;
            }
            assert_eq!(sums, whole[depth - 1]);
        }
    }

    #[test]
    fn a_rollup_is_nested_and_a_cube_is_not() {
        let columns = |names: &[&str]| names.iter().map(|name| datafusion::logical_expr::col(*name)).collect::<Vec<_>>();
        let (all, found) = sets(&GroupingSet::Rollup(columns(&["a", "b"])));
        assert_eq!((all.len(), &found), (2, &vec![vec![0, 1], vec![0], vec![]]));
        let members = |sets: Vec<Vec<usize>>| -> Vec<Member> {
            sets.into_iter().enumerate().map(|(leaf, keys)| Member { leaf, id: grouping_id(2, &keys), keys }).collect()
        };
        assert_eq!(chain(&members(found)), Some(vec![2, 1, 0]));
        let (_, found) = sets(&GroupingSet::Cube(columns(&["a", "b"])));
        assert_eq!(found, [vec![0, 1], vec![1], vec![0], vec![]]);
        assert_eq!(chain(&members(found)), None);
        assert_eq!((grouping_id(2, &[]), grouping_id(2, &[0]), grouping_id(2, &[0, 1])), (3, 1, 0));
    }
}
