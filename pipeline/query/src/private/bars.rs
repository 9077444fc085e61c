//! Error bars above the noise: `dp_stddev(x)`, `dp_low(x)` and `dp_high(x)` become columns.
//!
//! A noisy column brings its standard deviation and interval along, from the noisy table upwards through projections, filters, sorts, limits,
//! joins and subqueries. Of an expression over several noisy columns the error is propagated to first order (Taylor), the columns' noises being
//! independent: var f = Σ (∂f/∂x)²·var x. That is what `SUM(seconds) / COUNT(*)` needs. Intervals of such expressions are ±1.96 standard deviations.
//!
//! *A quantile* has an interval and no standard deviation: how far the ranks it misses by are in values depends on the values. Its ends are drawn, from
//! its own budget, so only where a statement asks for `dp_low` or `dp_high` of it: that is found here, before anything is priced, and told to the question
//! ([`starling_privacy::question`]). Its interval goes through what moves or stretches values, such as `MEDIAN(seconds) / 60.0`; together with another
//! noisy number it has none, as nothing is known of how they err together.
//!
//! *A CASE* that takes one of several noisy numbers has the bars of the one it takes, if what decides is no noisy number: of `CASE WHEN a > b THEN a ELSE b
//! END` it is unsure which is meant. A noisy number may decide whether there is a value at all.

use std::collections::{BTreeMap, BTreeSet};

use arrow::datatypes::DataType;
use datafusion::common::Column;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::DataFusionError;
use datafusion::functions::core;
use datafusion::logical_expr::{Case, Expr, LogicalPlan, LogicalPlanBuilder, Operator, cast, lit};

use starling_privacy::Z;
use starling_privacy::question::Aggregate;

use super::family::Family;
use super::functions::{HIGH, LOW, STDDEV};
use super::leaf::{COMPANIONS, Leaf, Output, companion};
use crate::error::{NOT_SUPPORTED, QueryError};

/// The columns that hold an output column's error bars.
#[derive(Debug, Clone)]
struct Bars {
    /// `None` of a quantile, and of what is made of one.
    stddev: Option<Expr>,
    low: Expr,
    high: Expr,
    /// The quantiles it is made of.
    of: BTreeSet<Drawn>,
}

/// A quantile: number of its leaf, and place of its output there.
type Drawn = (usize, usize);

/// What is known of a plan's output columns.
#[derive(Debug, Default)]
struct Known {
    bars: BTreeMap<Column, Bars>,
    /// Columns that depend on noise, with bars or without.
    noisy: BTreeSet<Column>,
}

/// What is known of the leaves, and what was asked of them.
struct Leaves<'a> {
    all: &'a [Leaf],
    /// Quantiles whose interval was asked for.
    asked: BTreeSet<Drawn>,
}

fn asks(plan: &LogicalPlan) -> bool {
    let mut found = false;
    let _walked = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expression| {
            expression.apply(|part| {
                found |= matches!(part, Expr::ScalarFunction(call) if [LOW, HIGH, STDDEV].contains(&call.name()));
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    found
}

/// Replaces all error bars that a statement asks for, and tells the leaves which quantiles need an interval.
///
/// # Errors
/// For what has none, with what to write instead: the leaves are as they were.
pub(crate) fn replace(plan: LogicalPlan, leaves: &mut [Leaf], families: &[Family]) -> Result<LogicalPlan, QueryError> {
    if !asks(&plan) {
        return Ok(plan);
    }
    let wanted: Vec<Column> = plan.schema().columns();
    let mut found = Leaves { all: leaves, asked: BTreeSet::new() };
    let (plan, _) = walk(plan, &mut found)?;
    let asked = found.asked;
    // What came along to the top is not what was asked for.
    let shown: Vec<Expr> = wanted.into_iter().map(Expr::Column).collect();
    let plan = LogicalPlanBuilder::from(plan).project(shown).and_then(LogicalPlanBuilder::build).map_err(|_| none())?;
    if asks(&plan) {
        return Err(none());
    }
    for (number, output) in asked {
        // All sets of keys of one aggregate are asked the same.
        let family = families.iter().find(|family| family.members.iter().any(|member| member.leaf == number));
        let members = family.map_or_else(|| vec![number], |family| family.members.iter().map(|member| member.leaf).collect());
        for member in members {
            let Some(leaf) = leaves.get_mut(member) else { continue };
            let Some(Output::One(at)) = leaf.outputs.get(output) else { continue };
            if let Some(Aggregate::Quantile { interval, .. }) = leaf.spec.aggregates.get_mut(*at) {
                *interval = true;
            }
        }
    }
    Ok(plan)
}

/// Why an expression has no error bars.
fn why(expression: &Expr, known: &Known) -> QueryError {
    let is_of_a_quantile =
        expression.column_refs().into_iter().filter_map(|column| known_of(column, known)).any(|bars| bars.stddev.is_none());
    if !is_of_a_quantile {
        return none();
    }
    QueryError::new(
        NOT_SUPPORTED,
        "there are no error bars for a quantile together with another noisy number, nor for what does more than move or stretch it",
        "write dp_low and dp_high around the quantile alone, or around what adds to it, or multiplies or divides it by, a number that is written out, such \
         as dp_low(MEDIAN(seconds) / 60.0)",
    )
}

fn no_deviation() -> QueryError {
    QueryError::new(
        NOT_SUPPORTED,
        "a quantile has no standard deviation: how far it may be off depends on how dense values are around it",
        "write dp_low and dp_high around it: the ends of its 95 % interval",
    )
}

fn none() -> QueryError {
    QueryError::new(
        NOT_SUPPORTED,
        "there are no error bars for this",
        "write dp_stddev, dp_low and dp_high around an aggregate over a protected table, or around +, -, * and / of such aggregates, in the query that \
         aggregates or right above it; released tables have columns stddev, low and high",
    )
}

fn shape(error: &DataFusionError) -> QueryError {
    let _ = error;
    none()
}

fn walk(plan: LogicalPlan, leaves: &mut Leaves<'_>) -> Result<(LogicalPlan, Known), QueryError> {
    if let LogicalPlan::Projection(projection) = &plan
        && let Some((number, leaf)) = stands_for(projection, leaves.all)
    {
        return Ok((plan.clone(), of_leaf(&plan, &projection.expr, number, leaf)));
    }
    match plan {
        LogicalPlan::Projection(projection) => {
            let (input, known) = walk(projection.input.as_ref().clone(), leaves)?;
            let mut shown = Vec::new();
            let mut out = Known::default();
            let mut extra = Vec::new();
            for expression in &projection.expr {
                let expression = with_bars(expression, &known, leaves)?;
                let column = name_of(&expression);
                if is_noisy(&expression, &known) {
                    out.noisy.insert(column.clone());
                }
                if let Some(bars) = bars(&expression, &known) {
                    let mut brought = |what: &str, bar: Expr| {
                        let name = format!("dp of {} {what}", column.flat_name());
                        extra.push(bar.alias(&name));
                        Expr::Column(Column::new_unqualified(name))
                    };
                    let stddev = bars.stddev.map(|bar| brought("stddev", bar));
                    let bars = Bars { stddev, low: brought("low", bars.low), high: brought("high", bars.high), of: bars.of };
                    out.bars.insert(column, bars);
                }
                shown.push(expression);
            }
            shown.extend(extra);
            let plan = LogicalPlanBuilder::from(input).project(shown).and_then(LogicalPlanBuilder::build);
            Ok((plan.map_err(|e| shape(&e))?, out))
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let (input, known) = walk(alias.input.as_ref().clone(), leaves)?;
            let renamed = |expression: &Expr| -> Expr {
                expression
                    .clone()
                    .transform(|part| match part {
                        Expr::Column(column) => {
                            Ok(Transformed::yes(Expr::Column(Column::new(Some(alias.alias.clone()), column.name))))
                        }
                        other => Ok(Transformed::no(other)),
                    })
                    .map_or_else(|_| expression.clone(), |done| done.data)
            };
            let column = |column: Column| Column::new(Some(alias.alias.clone()), column.name);
            let bar = |(of, bars): (Column, Bars)| {
                let stddev = bars.stddev.as_ref().map(renamed);
                (column(of), Bars { stddev, low: renamed(&bars.low), high: renamed(&bars.high), of: bars.of })
            };
            let known =
                Known { bars: known.bars.into_iter().map(bar).collect(), noisy: known.noisy.into_iter().map(column).collect() };
            let plan = LogicalPlanBuilder::from(input).alias(alias.alias.clone()).and_then(LogicalPlanBuilder::build);
            Ok((plan.map_err(|e| shape(&e))?, known))
        }
        LogicalPlan::Filter(_) | LogicalPlan::Sort(_) | LogicalPlan::Limit(_) | LogicalPlan::Join(_) | LogicalPlan::Window(_) => {
            let mut known = Known::default();
            let mut inputs = Vec::new();
            for input in plan.inputs() {
                let (input, more) = walk(input.clone(), leaves)?;
                known.bars.extend(more.bars);
                known.noisy.extend(more.noisy);
                inputs.push(input);
            }
            if let LogicalPlan::Window(window) = &plan {
                known.noisy.extend(window.window_expr.iter().map(name_of));
            }
            let expressions: Result<Vec<Expr>, QueryError> =
                plan.expressions().iter().map(|e| with_bars(e, &known, leaves)).collect();
            let plan = plan.with_new_exprs(expressions?, inputs).and_then(LogicalPlan::recompute_schema);
            Ok((plan.map_err(|e| shape(&e))?, known))
        }
        // Rows are mixed here: what came along stays below.
        other => {
            let mut inputs = Vec::new();
            let mut is_noisy = false;
            for input in other.inputs() {
                let wanted: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
                let (input, known) = walk(input.clone(), leaves)?;
                is_noisy |= !known.noisy.is_empty();
                inputs.push(if known.bars.is_empty() {
                    input
                } else {
                    LogicalPlanBuilder::from(input).project(wanted).and_then(LogicalPlanBuilder::build).map_err(|e| shape(&e))?
                });
            }
            let expressions: Result<Vec<Expr>, QueryError> =
                other.expressions().iter().map(|e| with_bars(e, &Known::default(), leaves)).collect();
            let plan = other.with_new_exprs(expressions?, inputs).and_then(LogicalPlan::recompute_schema);
            let plan = plan.map_err(|e| shape(&e))?;
            let noisy = if is_noisy { plan.schema().columns().into_iter().collect() } else { BTreeSet::new() };
            Ok((plan, Known { bars: BTreeMap::new(), noisy }))
        }
    }
}

/// The leaf whose noisy table this projection is right above.
fn stands_for<'a>(projection: &datafusion::logical_expr::Projection, leaves: &'a [Leaf]) -> Option<(usize, &'a Leaf)> {
    let LogicalPlan::TableScan(scan) = projection.input.as_ref() else { return None };
    let name = scan.table_name.table();
    let number: usize = name.strip_prefix("answer ")?.parse().ok()?;
    (scan.table_name.schema() == Some(super::table::PRIVATE)).then(|| Some((number, leaves.get(number)?)))?
}

fn of_leaf(plan: &LogicalPlan, shown: &[Expr], number: usize, leaf: &Leaf) -> Known {
    let mut known = Known::default();
    for (place, expression) in shown.iter().enumerate() {
        // Keys have no noise, nor has which set of keys a row is of.
        let is_key = |column: &&Column| column.name.starts_with('k') || column.name == "set";
        if !expression.column_refs().iter().all(is_key) {
            known.noisy.extend(super::expand::nth(plan, place));
        }
    }
    for (at, output) in leaf.outputs.iter().enumerate() {
        // By its name in the noisy table: GROUPING may stand between.
        let name = format!("a{at}");
        let place = shown.iter().position(|e| matches!(super::expand::bare(e), Expr::Column(column) if column.name == name));
        let Some(column) = place.and_then(|place| super::expand::nth(plan, place)) else { continue };
        let by = |what: &str| Expr::Column(Column::new_unqualified(companion(number, at, what)));
        let is_quantile =
            matches!(output, Output::One(of) if matches!(leaf.spec.aggregates.get(*of), Some(Aggregate::Quantile { .. })));
        let of = if is_quantile { BTreeSet::from([(number, at)]) } else { BTreeSet::new() };
        let [stddev, low, high] = COMPANIONS.map(by);
        known.bars.insert(column, Bars { stddev: (!is_quantile).then_some(stddev), low, high, of });
    }
    known
}

fn name_of(expression: &Expr) -> Column {
    let (relation, name) = expression.qualified_name();
    Column::new(relation, name)
}

fn known_of<'a>(column: &Column, known: &'a Known) -> Option<&'a Bars> {
    known.bars.get(column).or_else(|| {
        // A name without its table, where only one table has it.
        let mut fitting =
            known.bars.iter().filter(|(k, _)| k.name == column.name && (column.relation.is_none() || k.relation.is_none()));
        match (fitting.next(), fitting.next()) {
            (Some((_, bars)), None) => Some(bars),
            _ => None,
        }
    })
}

/// Whether an expression depends on noise, as far as can be seen.
fn is_noisy(expression: &Expr, known: &Known) -> bool {
    let is = |column: &Column| {
        known.noisy.contains(column)
            || known.noisy.iter().any(|k| k.name == column.name && (column.relation.is_none() || k.relation.is_none()))
    };
    let asks_more = |part: &Expr| matches!(part, Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_));
    let mut found = false;
    let walked = expression.apply(|part| {
        found |= asks_more(part) || matches!(part, Expr::Column(column) if is(column));
        Ok(TreeNodeRecursion::Continue)
    });
    found || walked.is_err()
}

/// The expression with its error bars written out, under the name it had.
fn with_bars(expression: &Expr, known: &Known, leaves: &mut Leaves<'_>) -> Result<Expr, QueryError> {
    let mut failed = None;
    let name = name_of(expression);
    let replaced = expression.clone().transform_up(|part| {
        let Expr::ScalarFunction(call) = &part else { return Ok(Transformed::no(part)) };
        let which = call.name();
        if ![LOW, HIGH, STDDEV].contains(&which) {
            return Ok(Transformed::no(part));
        }
        let found = call.args.first().ok_or_else(none).and_then(|argument| {
            let found = bars(argument, known).ok_or_else(|| why(argument, known))?;
            if which == STDDEV {
                return found.stddev.ok_or_else(no_deviation);
            }
            leaves.asked.extend(found.of);
            Ok(if which == LOW { found.low } else { found.high })
        });
        match found {
            Ok(bar) => Ok(Transformed::yes(bar)),
            Err(error) => {
                failed.get_or_insert(error);
                Ok(Transformed::no(part))
            }
        }
    });
    match (failed, replaced) {
        (Some(error), _) => Err(error),
        (None, Ok(done)) if done.transformed && !matches!(done.data, Expr::Alias(_)) => {
            Ok(done.data.alias_qualified(name.relation, name.name))
        }
        (None, Ok(done)) => Ok(done.data),
        (None, Err(_)) => Err(none()),
    }
}

/// Error bars of an expression over noisy columns; `None` if it has none.
fn bars(expression: &Expr, known: &Known) -> Option<Bars> {
    let expression = super::expand::bare(expression);
    if let Expr::Column(column) = &expression {
        return known_of(column, known).cloned();
    }
    if let Expr::Case(case) = &expression {
        return of_case(case, known);
    }
    let mut variance: Option<Expr> = None;
    let mut columns: Vec<&Column> = expression.column_refs().into_iter().collect();
    columns.sort();
    for column in columns {
        let Some(bars) = known_of(column, known) else { continue };
        let Some(stddev) = &bars.stddev else {
            // A division of whole numbers leaves something off, and the value is not to be outside.
            let found = moved(&expression, known)?;
            let (low, high) = (vec![found.low, float(expression.clone())], vec![found.high, float(expression.clone())]);
            let (low, high) = (core::expr_fn::least(low), core::expr_fn::greatest(high));
            return Some(Bars { stddev: None, low, high, of: found.of });
        };
        let by = slope(&expression, column)?;
        let term = by.clone() * by * (stddev.clone() * stddev.clone());
        variance = Some(match variance {
            Some(sum) => sum + term,
            None => term,
        });
    }
    let stddev = datafusion::functions::math::expr_fn::sqrt(variance?);
    let value = float(expression);
    let half = lit(Z) * stddev.clone();
    Some(Bars { low: value.clone() - half.clone(), high: value + half, stddev: Some(stddev), of: BTreeSet::new() })
}

/// Of one noisy number, or of another, or of none.
fn of_case(case: &Case, known: &Known) -> Option<Bars> {
    let is_null = |branch: &Expr| matches!(super::expand::bare(branch), Expr::Literal(value, _) if value.is_null());
    let branches = || case.when_then_expr.iter().map(|(_, then)| then.as_ref()).chain(case.else_expr.as_deref());
    let mut taken: Vec<&Expr> = branches().filter(|branch| !is_null(branch)).collect();
    taken.dedup();
    let mut conditions = case.when_then_expr.iter().map(|(when, _)| when.as_ref()).chain(case.expr.as_deref());
    if taken.is_empty() || (taken.len() > 1 && conditions.any(|condition| is_noisy(condition, known))) {
        return None;
    }
    let of_branches: Vec<Option<Bars>> = branches()
        .map(|branch| if is_null(branch) { Some(None) } else { bars(branch, known).map(Some) })
        .collect::<Option<_>>()?;
    let with = |bar: &dyn Fn(&Bars) -> Option<Expr>| -> Option<Expr> {
        let none = lit(datafusion::common::ScalarValue::Float64(None));
        let bars = of_branches.iter().map(|bars| bars.as_ref().map_or(Some(none.clone()), bar).map(Box::new));
        let mut bars = bars.collect::<Option<Vec<_>>>()?.into_iter();
        let when_then_expr = case.when_then_expr.iter().map(|(when, _)| when.clone()).zip(bars.by_ref()).collect();
        Some(Expr::Case(Case { expr: case.expr.clone(), when_then_expr, else_expr: bars.next() }))
    };
    Some(Bars {
        stddev: with(&|bars| bars.stddev.clone()),
        low: with(&|bars| Some(bars.low.clone()))?,
        high: with(&|bars| Some(bars.high.clone()))?,
        of: of_branches.iter().flatten().flat_map(|bars| bars.of.iter().copied()).collect(),
    })
}

/// The interval of a quantile that is moved, stretched or turned round by numbers without noise.
fn moved(expression: &Expr, known: &Known) -> Option<Bars> {
    let through = |inside: &Expr, turns: bool, change: &dyn Fn(Expr) -> Expr| {
        let Bars { low, high, of, .. } = moved(inside, known)?;
        let (low, high) = if turns { (high, low) } else { (low, high) };
        Some(Bars { stddev: None, low: change(low), high: change(high), of })
    };
    match super::expand::bare(expression) {
        Expr::Column(column) => known_of(&column, known).cloned(),
        Expr::Case(case) => of_case(&case, known),
        Expr::Negative(inside) => through(&inside, true, &|end| lit(0.0) - end),
        // A cast to whole numbers leaves something off, of the quantile too: the ends go outwards.
        Expr::Cast(inside) if inside.field.data_type().is_integer() => {
            let Bars { low, high, of, .. } = moved(&inside.expr, known)?;
            let (low, high) =
                (datafusion::functions::math::expr_fn::floor(low), datafusion::functions::math::expr_fn::ceil(high));
            Some(Bars { stddev: None, low, high, of })
        }
        Expr::Cast(inside) if inside.field.data_type().is_numeric() => through(&inside.expr, false, &|end| end),
        Expr::BinaryExpr(binary) => {
            let (left, right) = (binary.left.as_ref(), binary.right.as_ref());
            let other = |side: &Expr| float(side.clone());
            match (binary.op, is_noisy(left, known), is_noisy(right, known)) {
                (Operator::Plus, true, false) => through(left, false, &|end| end + other(right)),
                (Operator::Plus, false, true) => through(right, false, &|end| other(left) + end),
                (Operator::Minus, true, false) => through(left, false, &|end| end - other(right)),
                (Operator::Minus, false, true) => through(right, true, &|end| other(left) - end),
                (Operator::Multiply, true, false) => through(left, is_below_zero(right)?, &|end| end * other(right)),
                (Operator::Multiply, false, true) => through(right, is_below_zero(left)?, &|end| other(left) * end),
                (Operator::Divide, true, false) => through(left, is_below_zero(right)?, &|end| end / other(right)),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Of a number that is written out and is not 0.
fn is_below_zero(expression: &Expr) -> Option<bool> {
    match super::expand::bare(expression) {
        Expr::Literal(value, _) => match value.cast_to(&DataType::Float64).ok()? {
            datafusion::common::ScalarValue::Float64(Some(number)) if number != 0.0 => Some(number < 0.0),
            _ => None,
        },
        Expr::Negative(inside) => is_below_zero(&inside).map(|below| !below),
        Expr::Cast(inside) if inside.field.data_type().is_numeric() => is_below_zero(&inside.expr),
        _ => None,
    }
}

fn float(expression: Expr) -> Expr {
    cast(expression, DataType::Float64)
}

/// ∂expression/∂column, for sums, differences, products and quotients.
fn slope(expression: &Expr, column: &Column) -> Option<Expr> {
    match expression {
        Expr::Alias(alias) => slope(&alias.expr, column),
        Expr::Column(found) => Some(lit(if found == column { 1.0 } else { 0.0 })),
        Expr::Literal(..) => Some(lit(0.0)),
        Expr::Negative(inside) => Some(lit(0.0) - slope(inside, column)?),
        Expr::Cast(inside) if inside.field.data_type().is_numeric() => slope(&inside.expr, column),
        Expr::BinaryExpr(binary) => {
            let (a, b) = (float(binary.left.as_ref().clone()), float(binary.right.as_ref().clone()));
            let (da, db) = (slope(&binary.left, column)?, slope(&binary.right, column)?);
            Some(match binary.op {
                Operator::Plus => da + db,
                Operator::Minus => da - db,
                Operator::Multiply => da * b + a * db,
                Operator::Divide => (da * b.clone() - a * db) / (b.clone() * b),
                _ => return None,
            })
        }
        _ if !expression.column_refs().contains(column) => Some(lit(0.0)),
        _ => None,
    }
}
