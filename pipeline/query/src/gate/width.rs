//! How wide a row of a plan can be. Text that is glued together, padded or replaced grows with each step (`x || x` thirty times is a gigabyte), and
//! operators that hold one batch do not ask the memory pool. So the gate works out an upper bound before anything runs.

use datafusion::common::ScalarValue;
use datafusion::common::tree_node::TreeNode;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Expr, LogicalPlan, Operator};

use super::{STACK_LEFT, STACK_MORE};
use crate::alerts::{INTEGRITY, NOTE};
use crate::bills::BILLING;
use crate::businesses::BUSINESS;
use crate::catalogue::META;
use crate::error::{QueryError, TOO_MUCH};
use crate::limits::Limits;
use crate::released::LABEL_BYTES;
use crate::system::{INFORMATION_SCHEMA, PG_CATALOG};

/// Bytes of a text in `meta`: names and comments, which stand in reviewed definitions.
const FACT: usize = 512;
/// Bytes of a number, date or time, as text too.
const PLAIN: usize = 64;

/// Checks that no text and no row of the plan can be wider than the limits.
///
/// # Errors
/// [`TOO_MUCH`].
pub(crate) fn check(plan: &LogicalPlan, limits: &Limits) -> Result<(), QueryError> {
    node(plan, PLAIN, limits).map(|_| ())
}

fn too_wide() -> QueryError {
    QueryError::new(
        TOO_MUCH,
        "the statement can make a text or a row that is too long",
        "glue less text together, give lpad and rpad a number of at most 1000, and select fewer columns",
    )
}

/// Widest text of the node's rows. `outer`: the same of the query around a subquery.
fn node(plan: &LogicalPlan, outer: usize, limits: &Limits) -> Result<usize, QueryError> {
    stacker::maybe_grow(STACK_LEFT, STACK_MORE, || node_here(plan, outer, limits))
}

fn node_here(plan: &LogicalPlan, outer: usize, limits: &Limits) -> Result<usize, QueryError> {
    let mut text = match plan {
        LogicalPlan::TableScan(scan) if [META, PG_CATALOG, INFORMATION_SCHEMA].map(Some).contains(&scan.table_name.schema()) => {
            FACT
        }
        LogicalPlan::TableScan(scan) if [INTEGRITY, BILLING, BUSINESS].map(Some).contains(&scan.table_name.schema()) => NOTE,
        LogicalPlan::TableScan(_) => LABEL_BYTES,
        _ => PLAIN,
    };
    for input in plan.inputs() {
        text = text.max(node(input, outer, limits)?);
    }
    if let LogicalPlan::Aggregate(aggregate) = plan
        && aggregate.aggr_expr.iter().any(glues)
        && !has_few_rows(&aggregate.input)
    {
        // Of one system table's rows a text of some megabytes may be made; of as many rows as joins can make it would have no end.
        return Err(too_wide());
    }
    let inside = text;
    let mut found = Ok(());
    let mut computed: usize = 0;
    let walked = plan.apply_expressions(|expression| {
        match width(expression, inside, outer, limits) {
            Ok(bytes) => {
                text = text.max(bytes);
                computed = computed.saturating_add(bytes);
            }
            Err(error) => {
                found = Err(error);
                return Ok::<_, DataFusionError>(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    });
    found?;
    let columns = plan.schema().fields().iter().map(|field| if field.data_type().is_primitive() { 16 } else { text });
    let row = columns.fold(0, usize::saturating_add).max(if matches!(plan, LogicalPlan::Values(_)) { 0 } else { computed });
    if walked.is_err() || text > limits.text_bytes || row > limits.row_bytes {
        return Err(too_wide());
    }
    Ok(text)
}

/// Whether an expression glues texts of many rows together.
fn glues(expression: &Expr) -> bool {
    let is_one = |part: &Expr| Ok(matches!(part, Expr::AggregateFunction(call) if call.func.name() == "string_agg"));
    expression.exists(is_one).unwrap_or(true)
}

/// Whether rows come from one table, or from two short lists.
fn has_few_rows(plan: &LogicalPlan) -> bool {
    let (mut joins, mut tables) = (0, 0);
    let walked = plan.apply(|node| {
        joins += usize::from(matches!(node, LogicalPlan::Join(_)));
        tables += usize::from(matches!(node, LogicalPlan::TableScan(_)));
        Ok(TreeNodeRecursion::Continue)
    });
    walked.is_ok() && (joins == 0 || (joins == 1 && tables == 0))
}

fn width(expression: &Expr, inside: usize, outer: usize, limits: &Limits) -> Result<usize, QueryError> {
    stacker::maybe_grow(STACK_LEFT, STACK_MORE, || width_here(expression, inside, outer, limits))
}

fn width_here(expression: &Expr, inside: usize, outer: usize, limits: &Limits) -> Result<usize, QueryError> {
    let recurse = |expression: &Expr| width(expression, inside, outer, limits);
    let bytes = match expression {
        Expr::Literal(value, _) => literal(value),
        Expr::Column(_) => inside,
        Expr::OuterReferenceColumn(..) => outer,
        Expr::ScalarSubquery(subquery) => node(&subquery.subquery, inside, limits)?,
        Expr::Exists(exists) => {
            node(&exists.subquery.subquery, inside, limits)?;
            PLAIN
        }
        Expr::InSubquery(within) => {
            node(&within.subquery.subquery, inside, limits)?;
            recurse(&within.expr)?
        }
        Expr::BinaryExpr(binary) => {
            let (left, right) = (recurse(&binary.left)?, recurse(&binary.right)?);
            if binary.op == Operator::StringConcat { left.saturating_add(right) } else { left.max(right) }
        }
        Expr::ScalarFunction(call) => function(call, &recurse)?,
        // Of one table's rows: longer than this, and no longer by much where it is glued to others.
        Expr::AggregateFunction(call) if call.func.name() == "string_agg" => limits.text_bytes / 4,
        _ => {
            // Everything else gives at most the widest of what it is given.
            let mut widest = Ok(PLAIN);
            let walked = expression.apply_children(|child| {
                match (&widest, recurse(child)) {
                    (Ok(so_far), Ok(bytes)) => widest = Ok((*so_far).max(bytes)),
                    (_, Err(error)) => widest = Err(error),
                    (Err(_), _) => return Ok::<_, DataFusionError>(TreeNodeRecursion::Stop),
                }
                Ok(TreeNodeRecursion::Continue)
            });
            if walked.is_err() {
                return Err(too_wide());
            }
            widest?
        }
    };
    if bytes > limits.text_bytes { Err(too_wide()) } else { Ok(bytes.max(PLAIN)) }
}

fn literal(value: &ScalarValue) -> usize {
    match value {
        ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)) | ScalarValue::LargeUtf8(Some(text)) => text.len(),
        _ => PLAIN,
    }
}

fn function(call: &ScalarFunction, recurse: &dyn Fn(&Expr) -> Result<usize, QueryError>) -> Result<usize, QueryError> {
    let widths = call.args.iter().map(recurse).collect::<Result<Vec<usize>, _>>()?;
    let sum = widths.iter().copied().fold(0, usize::saturating_add);
    let at = |index: usize| widths.get(index).copied().unwrap_or(PLAIN);
    Ok(match call.name() {
        "concat" | "overlay" => sum,
        // Each separator stands between two of the others.
        "concat_ws" => at(0).saturating_mul(widths.len()).saturating_add(sum),
        // Each character, or the place between two, may become the third argument.
        "replace" => at(0).saturating_add(1).saturating_mul(replacement(call.args.get(2), at(2)).max(1)).max(at(0)),
        // One character may become one of another length; case mapping gives at most three characters for one.
        "translate" => at(0).saturating_mul(4),
        "upper" | "lower" | "initcap" => at(0).saturating_mul(3),
        "lpad" | "rpad" => match call.args.get(1).and_then(number) {
            Some(length) if length <= 1000 => usize::try_from(length).unwrap_or(0).saturating_mul(4),
            _ => return Err(too_wide()),
        },
        // System functions. A separator of one sign takes the place of a comma.
        "array_to_string" => at(0).saturating_mul(replacement(call.args.get(1), at(1)).max(1)),
        "string_to_array" | "quote_ident" | "parse_ident" | "format" => sum.saturating_mul(2).saturating_add(4),
        "obj_description" | "col_description" | "version" => FACT,
        // A pattern's sign gives at most a few tens of characters.
        "to_char" => at(1).saturating_mul(16),
        _ => widths.iter().copied().fold(PLAIN, usize::max),
    })
}

/// A literal's own length, which is shorter than the floor all widths have.
fn replacement(argument: Option<&Expr>, width: usize) -> usize {
    match argument {
        Some(Expr::Literal(value, _)) => literal(value),
        _ => width,
    }
}

fn number(expression: &Expr) -> Option<i64> {
    match expression {
        Expr::Literal(ScalarValue::Int64(Some(number)), _) => Some(*number),
        Expr::Literal(ScalarValue::Int32(Some(number)), _) => Some(i64::from(*number)),
        _ => None,
    }
}
