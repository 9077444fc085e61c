//! Error bars above the noise: `dp_stddev(x)`, `dp_low(x)` and `dp_high(x)` become columns.
//!
//! A noisy column brings its standard deviation and interval along, from the noisy table upwards through projections, filters, sorts, limits,
//! joins and subqueries. Of an expression over several noisy columns the error is propagated to first order (Taylor), the columns' noises being
//! independent: var f = Σ (∂f/∂x)²·var x. That is what `SUM(seconds) / COUNT(*)` needs. Intervals of such expressions are ±1.96 standard deviations.

use std::collections::BTreeMap;

use arrow::datatypes::DataType;
use datafusion::common::Column;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Operator, cast, lit};

use starling_privacy::Z;

use super::functions::{HIGH, LOW, STDDEV};
use super::leaf::{COMPANIONS, Leaf, companion};
use crate::error::{NOT_SUPPORTED, QueryError};

/// The columns that hold an output column's error bars.
#[derive(Debug, Clone)]
struct Bars {
    stddev: Expr,
    low: Expr,
    high: Expr,
}

/// By output column.
type Known = BTreeMap<Column, Bars>;

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

/// Replaces all error bars that a statement asks for.
///
/// # Errors
/// For what has none, with what to write instead.
pub(crate) fn replace(plan: LogicalPlan, leaves: &[Leaf]) -> Result<LogicalPlan, QueryError> {
    if !asks(&plan) {
        return Ok(plan);
    }
    let wanted: Vec<Column> = plan.schema().columns();
    let (plan, _) = walk(plan, leaves)?;
    // What came along to the top is not what was asked for.
    let shown: Vec<Expr> = wanted.into_iter().map(Expr::Column).collect();
    let plan = LogicalPlanBuilder::from(plan).project(shown).and_then(LogicalPlanBuilder::build).map_err(|_| none())?;
    if asks(&plan) { Err(none()) } else { Ok(plan) }
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

fn walk(plan: LogicalPlan, leaves: &[Leaf]) -> Result<(LogicalPlan, Known), QueryError> {
    if let LogicalPlan::Projection(projection) = &plan
        && let Some((number, leaf)) = stands_for(projection, leaves)
    {
        return Ok((plan.clone(), of_leaf(&plan, &projection.expr, number, leaf)));
    }
    match plan {
        LogicalPlan::Projection(projection) => {
            let (input, known) = walk(projection.input.as_ref().clone(), leaves)?;
            let mut shown = Vec::new();
            let mut out = Known::new();
            let mut extra = Vec::new();
            for expression in &projection.expr {
                let expression = with_bars(expression, &known)?;
                let column = name_of(&expression);
                if let Some(bars) = bars(&expression, &known) {
                    let names: Vec<String> =
                        COMPANIONS.iter().map(|what| format!("dp of {} {what}", column.flat_name())).collect();
                    let [stddev, low, high] = names.as_slice() else { return Err(none()) };
                    extra.extend([bars.stddev.alias(stddev), bars.low.alias(low), bars.high.alias(high)]);
                    let by = |name: &String| Expr::Column(Column::new_unqualified(name));
                    out.insert(column, Bars { stddev: by(stddev), low: by(low), high: by(high) });
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
            let known = known
                .into_iter()
                .map(|(column, bars)| {
                    let column = Column::new(Some(alias.alias.clone()), column.name);
                    (column, Bars { stddev: renamed(&bars.stddev), low: renamed(&bars.low), high: renamed(&bars.high) })
                })
                .collect();
            let plan = LogicalPlanBuilder::from(input).alias(alias.alias.clone()).and_then(LogicalPlanBuilder::build);
            Ok((plan.map_err(|e| shape(&e))?, known))
        }
        LogicalPlan::Filter(_) | LogicalPlan::Sort(_) | LogicalPlan::Limit(_) | LogicalPlan::Join(_) | LogicalPlan::Window(_) => {
            let mut known = Known::new();
            let mut inputs = Vec::new();
            for input in plan.inputs() {
                let (input, more) = walk(input.clone(), leaves)?;
                known.extend(more);
                inputs.push(input);
            }
            let expressions: Result<Vec<Expr>, QueryError> = plan.expressions().iter().map(|e| with_bars(e, &known)).collect();
            let plan = plan.with_new_exprs(expressions?, inputs).and_then(LogicalPlan::recompute_schema);
            Ok((plan.map_err(|e| shape(&e))?, known))
        }
        // Rows are mixed here: what came along stays below.
        other => {
            let mut inputs = Vec::new();
            for input in other.inputs() {
                let wanted: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
                let (input, known) = walk(input.clone(), leaves)?;
                inputs.push(if known.is_empty() {
                    input
                } else {
                    LogicalPlanBuilder::from(input).project(wanted).and_then(LogicalPlanBuilder::build).map_err(|e| shape(&e))?
                });
            }
            let expressions: Result<Vec<Expr>, QueryError> =
                other.expressions().iter().map(|e| with_bars(e, &Known::new())).collect();
            let plan = other.with_new_exprs(expressions?, inputs).and_then(LogicalPlan::recompute_schema);
            Ok((plan.map_err(|e| shape(&e))?, Known::new()))
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
    let mut known = Known::new();
    for at in 0..leaf.outputs.len() {
        // By its name in the noisy table: GROUPING may stand between.
        let name = format!("a{at}");
        let place = shown.iter().position(|e| matches!(super::expand::bare(e), Expr::Column(column) if column.name == name));
        let Some(column) = place.and_then(|place| super::expand::nth(plan, place)) else { continue };
        let by = |what: &str| Expr::Column(Column::new_unqualified(companion(number, at, what)));
        known.insert(column, Bars { stddev: by("stddev"), low: by("low"), high: by("high") });
    }
    known
}

fn name_of(expression: &Expr) -> Column {
    let (relation, name) = expression.qualified_name();
    Column::new(relation, name)
}

fn known_of<'a>(column: &Column, known: &'a Known) -> Option<&'a Bars> {
    known.get(column).or_else(|| {
        // A name without its table, where only one table has it.
        let mut fitting =
            known.iter().filter(|(k, _)| k.name == column.name && (column.relation.is_none() || k.relation.is_none()));
        match (fitting.next(), fitting.next()) {
            (Some((_, bars)), None) => Some(bars),
            _ => None,
        }
    })
}

/// The expression with its error bars written out, under the name it had.
fn with_bars(expression: &Expr, known: &Known) -> Result<Expr, QueryError> {
    let mut failed = None;
    let name = name_of(expression);
    let replaced = expression.clone().transform_up(|part| {
        let Expr::ScalarFunction(call) = &part else { return Ok(Transformed::no(part)) };
        let which = call.name();
        if ![LOW, HIGH, STDDEV].contains(&which) {
            return Ok(Transformed::no(part));
        }
        match call.args.first().and_then(|argument| bars(argument, known)) {
            Some(found) => Ok(Transformed::yes(match which {
                LOW => found.low,
                HIGH => found.high,
                _ => found.stddev,
            })),
            None => {
                failed.get_or_insert(none());
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
    let mut variance: Option<Expr> = None;
    let mut columns: Vec<&Column> = expression.column_refs().into_iter().collect();
    columns.sort();
    for column in columns {
        let Some(bars) = known_of(column, known) else { continue };
        let by = slope(&expression, column)?;
        let term = by.clone() * by * (bars.stddev.clone() * bars.stddev.clone());
        variance = Some(match variance {
            Some(sum) => sum + term,
            None => term,
        });
    }
    let stddev = datafusion::functions::math::expr_fn::sqrt(variance?);
    let value = float(expression);
    let half = lit(Z) * stddev.clone();
    Some(Bars { low: value.clone() - half.clone(), high: value + half, stddev })
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
