//! Finds the private parts of a statement: each lowest aggregate over a protected table becomes a [`Leaf`], and the table of its noisy answer
//! stands in its place.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, TableReference};
use datafusion::datasource::provider_as_source;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{Aggregate, Expr, GroupingSet, LogicalPlan, LogicalPlanBuilder, Operator, lit};
use starling_privacy::question::{self, Spec};

use super::aggregates::Asked;
use super::expand::{bare, expand, first_protected};
use super::family::{Family, Member, grouping_id, sets};
use super::refusals::below;
use super::row_wise::{
    PERSON_HINT, PERSON_USED, check_row_wise, gather_conditions, no_person, no_private_subquery, over_protected_rows, with_person,
};
use super::settings::Settings;
use super::table::{Noisy, PERSON, PRIVATE, Protected, Role};
use crate::catalogue::CATALOGUE;
use crate::error::QueryError;

/// The private part of a statement.
#[derive(Debug)]
pub(crate) struct Leaf {
    pub(crate) table: Protected,
    /// Row-wise: the person, the keys, the inputs.
    pub(crate) rows: LogicalPlan,
    /// What is asked. Whether groups are discovered is decided with the statement's settings.
    pub(crate) spec: Spec,
    /// How each aggregate of the statement is made from the answer's.
    pub(crate) outputs: Vec<Output>,
    /// The keys over the protected table's own columns, where that is all they are made of.
    pub(crate) keys: Vec<Option<Expr>>,
    /// Conditions every row meets, over the table's own columns; others may be there that are not here.
    pub(crate) conditions: Vec<Expr>,
    /// Stands in the plan in place of the private part.
    pub(crate) noisy: Arc<Noisy>,
    /// Columns of `noisy`.
    pub(crate) schema: Arc<Schema>,
}

/// An aggregate of the statement, from those of the answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Output {
    /// As it is.
    One(usize),
    /// `sum / count`.
    Mean { sum: usize, count: usize },
    /// Of a sample or of a whole, and its square root or itself.
    Spread { sum: usize, squares: usize, count: usize, sample: bool, root: bool },
    /// Whether the row is the one of groups that are left out.
    IsOther,
}

/// A plan without protected rows in it, and the questions that have to be answered before it can run, in order.
pub(crate) struct Split {
    pub(crate) plan: LogicalPlan,
    pub(crate) leaves: Vec<Leaf>,
    /// Leaves that are sets of keys of one aggregate.
    pub(crate) families: Vec<Family>,
}

/// Whether a plan names protected rows.
pub(crate) fn is_private(plan: &LogicalPlan) -> bool {
    first_protected(plan).is_some()
}

/// Takes the private parts out of a plan that was not optimised yet.
///
/// # Errors
/// What cannot be made private, with what to write instead.
pub(crate) fn split(plan: LogicalPlan, settings: &Settings) -> Result<Split, QueryError> {
    let mut leaves: Vec<Leaf> = Vec::new();
    let mut families = Vec::new();
    let mut failed = None;
    let replaced = plan.transform_up_with_subqueries(|node| {
        let node = node.recompute_schema()?;
        let LogicalPlan::Aggregate(aggregate) = &node else { return Ok(Transformed::yes(node)) };
        if !over_protected_rows(&aggregate.input) {
            return Ok(Transformed::yes(node));
        }
        let found = match aggregate.group_expr.as_slice() {
            [Expr::GroupingSet(grouping)] => {
                family(aggregate, grouping, settings, leaves.len()).map(|(more, family, stands_for)| {
                    families.push(family);
                    (more, stands_for)
                })
            }
            _ => leaf(aggregate, settings, leaves.len()).map(|(leaf, stands_for)| (vec![leaf], stands_for)),
        };
        match found {
            Ok((more, stands_for)) => {
                leaves.extend(more);
                Ok(Transformed::yes(stands_for))
            }
            Err(error) => {
                failed.get_or_insert(error);
                Err(DataFusionError::Plan("refused".to_owned()))
            }
        }
    });
    if let Some(error) = failed {
        return Err(error);
    }
    let plan = replaced
        .map_err(|_| below("a statement of this shape is", "aggregate the protected table in a query of its own under WITH"))?
        .data;
    if let Some(table) = first_protected(&plan) {
        return Err(below(
            "showing rows of a protected table is",
            &format!(
                "aggregate them, as in SELECT country, COUNT(DISTINCT person) FROM {PRIVATE}.{} GROUP BY country; DISTINCT, LIMIT and window functions \
                 go above an aggregate",
                table.dataset
            ),
        ));
    }
    Ok(Split { plan, leaves, families })
}

fn leaf(aggregate: &Aggregate, settings: &Settings, number: usize) -> Result<(Leaf, LogicalPlan), QueryError> {
    let table = first_protected(&aggregate.input).ok_or_else(|| below("this is", "read one protected table"))?;
    check_row_wise(&aggregate.input)?;
    let (input, who) = with_person(&aggregate.input)?;
    check_row_wise(&input)?;
    let mut conditions = Vec::new();
    gather_conditions(&input, &mut conditions);

    // What is grouped by twice is one column of the aggregate.
    let mut keys: Vec<Expr> = Vec::new();
    for key in aggregate.group_expr.iter().map(bare) {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    if keys.len() + aggregate.aggr_expr.len() != aggregate.schema.fields().len() {
        return Err(below("grouping by these columns is", "name each column once in GROUP BY"));
    }
    if keys.iter().any(|key| matches!(key, Expr::GroupingSet(_))) {
        return Err(below("a grouping set inside another is", "write one GROUPING SETS with all sets of columns"));
    }
    for key in &keys {
        no_person(
            key,
            &input,
            "grouping by person is",
            "one row a person is never shown; group by a dimension, such as country",
        )?;
    }
    let mut asked =
        Asked { table: &table, input: &input, settings, inputs: Vec::new(), columns: Vec::new(), aggregates: Vec::new() };
    let mut outputs = Vec::new();
    for expression in &aggregate.aggr_expr {
        let Expr::AggregateFunction(call) = bare(expression) else {
            return Err(below("this aggregate is", "use COUNT, SUM, AVG, STDDEV, MEDIAN or PERCENTILE_CONT"));
        };
        outputs.push(asked.output(&call)?);
    }
    let Asked { inputs, columns, mut aggregates, .. } = asked;
    for column in &columns {
        no_person(column, &input, PERSON_USED, PERSON_HINT)?;
    }
    // Where groups may have to be discovered, people decide; where nothing is asked but keys, they are what is asked.
    if aggregates.is_empty() {
        aggregates.push(question::Aggregate::PEOPLE);
    }

    let questions = &table.questions;
    let lowered = settings.groups_per_person.map_or(questions.groups_per_person, |own| own.min(questions.groups_per_person));
    let spec = Spec { keys: keys.len(), inputs, groups_per_person: lowered, discovered: false, aggregates };

    let mut shown = vec![Expr::Column(who).alias(PERSON)];
    shown.extend(keys.iter().enumerate().map(|(at, key)| key.clone().alias(format!("k{at}"))));
    shown.extend(
        columns
            .iter()
            .enumerate()
            .map(|(at, column)| datafusion::logical_expr::cast(column.clone(), DataType::Int64).alias(format!("i{at}"))),
    );
    let rows = planned(LogicalPlanBuilder::from(input.clone()).project(shown).and_then(LogicalPlanBuilder::build))?;
    no_private_subquery(&rows)?;

    let schema = Arc::new(noisy_schema(aggregate, keys.len())?);
    let noisy = Arc::new(Noisy::new(Arc::clone(&schema)));
    let stands_for = stand_in(aggregate, &noisy, keys.len(), number)?;
    let expanded = keys.iter().map(|key| expand(key, &input)).collect();
    Ok((Leaf { table, rows, spec, outputs, keys: expanded, conditions, noisy, schema }, stands_for))
}

/// A leaf for each set of keys, and one table for all of them.
fn family(
    aggregate: &Aggregate,
    grouping: &GroupingSet,
    settings: &Settings,
    first: usize,
) -> Result<(Vec<Leaf>, Family, LogicalPlan), QueryError> {
    let (all, sets) = sets(grouping);
    if sets.len() > MOST_SETS || all.len() > 8 {
        return Err(below(
            "so many sets of keys are",
            "name fewer columns in ROLLUP, CUBE or GROUPING SETS: each set has its share of the budget",
        ));
    }
    let is_grouping =
        |expression: &Expr| matches!(bare(expression), Expr::AggregateFunction(call) if call.func.name() == "grouping");
    let asked: Vec<Expr> = aggregate.aggr_expr.iter().filter(|expression| !is_grouping(expression)).cloned().collect();
    let (mut leaves, mut members) = (Vec::new(), Vec::new());
    for set in sets {
        let keys: Vec<Expr> = set.iter().filter_map(|at| all.get(*at).cloned()).collect();
        let one = Aggregate::try_new(Arc::clone(&aggregate.input), keys, asked.clone())
            .map_err(|_| below("this set of keys is", "write one SELECT for each set of columns, joined by UNION ALL"))?;
        let (leaf, _) = leaf(&one, settings, first + leaves.len())?;
        members.push(Member { leaf: first + leaves.len(), id: grouping_id(all.len(), &set), keys: set });
        leaves.push(leaf);
    }
    let mut fields = Vec::new();
    for at in 0..all.len() {
        let kind = match aggregate.schema.field(at).data_type() {
            DataType::Dictionary(_, value) => value.as_ref().clone(),
            kind => kind.clone(),
        };
        fields.push(Field::new(format!("k{at}"), kind, true));
    }
    fields.push(Field::new("set", aggregate.schema.field(all.len()).data_type().clone(), true));
    if let Some(leaf) = leaves.first() {
        fields.extend(leaf.schema.fields().iter().skip(leaf.spec.keys).map(|field| field.as_ref().clone()));
    }
    let schema = Arc::new(Schema::new(fields));
    let noisy = Arc::new(Noisy::new(Arc::clone(&schema)));

    let name = TableReference::full(CATALOGUE, PRIVATE, format!("answer {first}"));
    let scan = LogicalPlanBuilder::scan(name.clone(), provider_as_source(Arc::clone(&noisy) as _), None);
    let of = |column: String| Expr::Column(Column::new(Some(name.clone()), column));
    let (mut shown, mut place) = (Vec::new(), 0);
    for at in 0..aggregate.schema.fields().len() {
        let (relation, field) = aggregate.schema.qualified_field(at);
        let column = match at.checked_sub(all.len() + 1) {
            None if at < all.len() => of(format!("k{at}")),
            None => of("set".to_owned()),
            Some(output) => match aggregate.aggr_expr.get(output).map(bare) {
                Some(Expr::AggregateFunction(call)) if call.func.name() == "grouping" => {
                    grouping_of(&call, &all, &of("set".to_owned()), field.data_type())?
                }
                _ => {
                    place += 1;
                    of(format!("a{}", place - 1))
                }
            },
        };
        shown.push(column.alias_qualified(relation.cloned(), field.name()));
    }
    for at in 0..asked.len() {
        shown.extend(COMPANIONS.iter().map(|what| of(format!("{what}{at}")).alias(companion(first, at, what))));
    }
    let stands_for = planned(scan.and_then(|scan| scan.project(shown)).and_then(LogicalPlanBuilder::build))?;
    Ok((leaves, Family { noisy, schema, keys: all.len(), members }, stands_for))
}

/// Sets of keys in one aggregate.
const MOST_SETS: usize = 16;

/// `GROUPING(a, b)`: a bit for each argument, 1 where the row's set does not have it.
fn grouping_of(call: &AggregateFunction, all: &[Expr], set: &Expr, kind: &DataType) -> Result<Expr, QueryError> {
    let mut sum: Option<Expr> = None;
    for argument in &call.params.args {
        let place = all.iter().position(|key| bare(key) == bare(argument));
        let place =
            place.ok_or_else(|| below("GROUPING of anything but a key is", "name a column of ROLLUP, CUBE or GROUPING SETS"))?;
        let number = datafusion::logical_expr::cast(set.clone(), DataType::Int64);
        let shift = i64::try_from(all.len() - 1 - place).unwrap_or(0);
        let bit = datafusion::logical_expr::binary_expr(
            datafusion::logical_expr::binary_expr(number, Operator::BitwiseShiftRight, lit(shift)),
            Operator::BitwiseAnd,
            lit(1_i64),
        );
        sum = Some(match sum {
            Some(sum) => sum * lit(2_i64) + bit,
            None => bit,
        });
    }
    let sum = sum.ok_or_else(|| below("GROUPING without a key is", "name a column of ROLLUP, CUBE or GROUPING SETS"))?;
    Ok(datafusion::logical_expr::cast(sum, kind.clone()))
}

pub(super) fn planned(plan: datafusion::error::Result<LogicalPlan>) -> Result<LogicalPlan, QueryError> {
    plan.map_err(|_| below("a statement of this shape is", "aggregate the protected table in a query of its own under WITH"))
}

/// Names of the companions of the noisy table's aggregate `at`.
pub(crate) fn companion(number: usize, at: usize, what: &str) -> String {
    format!("dp {number} {at} {what}")
}

/// Error bars of an aggregate, in the noisy table.
pub(crate) const COMPANIONS: [&str; 3] = ["stddev", "low", "high"];

fn noisy_schema(aggregate: &Aggregate, keys: usize) -> Result<Schema, QueryError> {
    let mut fields = Vec::new();
    for (at, field) in aggregate.schema.fields().iter().enumerate() {
        let kind = match field.data_type() {
            DataType::Dictionary(_, value) => value.as_ref(),
            kind => kind,
        };
        if at < keys {
            if !super::table::plain(kind) {
                return Err(below(
                    "grouping by a column of this type is",
                    "group by text, whole numbers, dates or booleans; floor or bucket what is finer",
                ));
            }
            fields.push(Field::new(format!("k{at}"), kind.clone(), true));
            continue;
        }
        if kind.is_unsigned_integer() {
            return Err(below("an unsigned aggregate is", "cast what is summed to BIGINT: a noisy number may be below zero"));
        }
        fields.push(Field::new(format!("a{}", at - keys), kind.clone(), true));
    }
    for at in 0..aggregate.aggr_expr.len() {
        fields.extend(COMPANIONS.iter().map(|what| Field::new(format!("{what}{at}"), DataType::Float64, true)));
    }
    Ok(Schema::new(fields))
}

/// A scan of the noisy table under the names the aggregate's columns had.
fn stand_in(aggregate: &Aggregate, noisy: &Arc<Noisy>, keys: usize, number: usize) -> Result<LogicalPlan, QueryError> {
    let name = TableReference::full(CATALOGUE, PRIVATE, format!("answer {number}"));
    let source = provider_as_source(Arc::clone(noisy) as _);
    let scan = LogicalPlanBuilder::scan(name.clone(), source, None);
    let of = |column: String| Expr::Column(Column::new(Some(name.clone()), column));
    let mut shown = Vec::new();
    for at in 0..aggregate.schema.fields().len() {
        let (relation, field) = aggregate.schema.qualified_field(at);
        let column = if at < keys { format!("k{at}") } else { format!("a{}", at - keys) };
        shown.push(of(column).alias_qualified(relation.cloned(), field.name()));
    }
    for at in 0..aggregate.aggr_expr.len() {
        shown.extend(COMPANIONS.iter().map(|what| of(format!("{what}{at}")).alias(companion(number, at, what))));
    }
    planned(scan.and_then(|scan| scan.project(shown)).and_then(LogicalPlanBuilder::build))
}

/// Whether the keys are made of columns whose values are all listed, and of which.
pub(crate) fn listed_columns(leaf: &Leaf) -> Option<Vec<String>> {
    let mut names: Vec<String> = Vec::new();
    for key in &leaf.keys {
        for column in key.as_ref()?.column_refs() {
            match leaf.table.role(&column.name)? {
                Role::Day | Role::Hour | Role::Dimension(Some(_)) => names.push(column.name.clone()),
                _ => return None,
            }
        }
    }
    names.sort();
    names.dedup();
    Some(names)
}

/// Conditions on nothing but the block: its day, and its hour.
pub(crate) fn on_the_block(leaf: &Leaf) -> Vec<Expr> {
    let only_block = |condition: &&Expr| {
        let columns = condition.column_refs();
        !columns.is_empty() && columns.iter().all(|column| leaf.table.is_of_the_block(&column.name))
    };
    leaf.conditions.iter().filter(only_block).cloned().collect()
}
