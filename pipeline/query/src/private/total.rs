//! Expressions below the noise are total: whatever the data hold, they give a value. An error, an overflow that is told, a cast that fails or a
//! division by zero would say something of a single row to whoever asked.
//!
//! Checked on the plan as it will run, after types were made to fit: a comparison of a text with a number is a cast by then.

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, Operator};

use super::expand::expand;
use super::functions::CLIP;
use super::intact::scans;
use super::refusals::below;
use super::table::{DAY, plain};
use crate::error::QueryError;

/// Functions that give a value for every input.
const TOTAL: &[&str] = &[
    "coalesce",
    "nullif",
    "nvl",
    "nvl2",
    "greatest",
    "least",
    "lower",
    "upper",
    "character_length",
    "octet_length",
    "starts_with",
    "ends_with",
    "contains",
    "strpos",
    "btrim",
    "ltrim",
    "rtrim",
    "concat",
    "date_part",
    "date_trunc",
];

/// Checks every expression of the private part.
///
/// # Errors
/// The first expression that is not total, with what to write instead.
pub(crate) fn check(plan: &LogicalPlan) -> Result<(), QueryError> {
    let mut found = None;
    // Lists of public values are no one's rows.
    let only_public = scans(plan) == 0;
    let walked = plan.apply_with_subqueries(|node| {
        let schema = merged(node);
        let inputs = node.inputs();
        let from = if let [input] = inputs.as_slice() { *input } else { node };
        // The day is the block's and not a person's, and always one of this century's. Another column may have its name.
        let is_day = |expression: &Expr| {
            schema_type(expression, &schema) == Some(DataType::Date32)
                && (only_public || matches!(expand(expression, from), Some(Expr::Column(column)) if column.name == DAY))
        };
        node.apply_expressions(|expression| {
            expression.apply(|part| match one(part, &schema, &is_day) {
                Ok(()) => Ok(TreeNodeRecursion::Continue),
                Err(error) => {
                    found.get_or_insert(error);
                    Ok::<_, DataFusionError>(TreeNodeRecursion::Stop)
                }
            })
        })
    });
    match (found, walked) {
        (Some(error), _) => Err(error),
        (None, Ok(_)) => Ok(()),
        (None, Err(_)) => Err(below("an expression that cannot be walked is", "write it in another way")),
    }
}

/// Everything the node's expressions may name.
fn merged(node: &LogicalPlan) -> DFSchema {
    let mut schema = DFSchema::empty();
    for input in node.inputs() {
        schema.merge(input.schema());
    }
    if let LogicalPlan::TableScan(_) = node {
        schema.merge(node.schema());
    }
    schema
}

fn schema_type(expression: &Expr, schema: &DFSchema) -> Option<DataType> {
    expression.get_type(schema).ok()
}

fn one(part: &Expr, schema: &DFSchema, is_day: &impl Fn(&Expr) -> bool) -> Result<(), QueryError> {
    match part {
        Expr::Alias(_)
        | Expr::Column(_)
        | Expr::Literal(..)
        | Expr::Not(_)
        | Expr::IsNotNull(_)
        | Expr::IsNull(_)
        | Expr::IsTrue(_)
        | Expr::IsFalse(_)
        | Expr::IsUnknown(_)
        | Expr::IsNotTrue(_)
        | Expr::IsNotFalse(_)
        | Expr::IsNotUnknown(_)
        // Whole numbers wrap around.
        | Expr::Negative(_)
        | Expr::Between(_)
        | Expr::Case(_)
        | Expr::InList(_) => Ok(()),
        Expr::Like(like) if like.escape_char.is_none() && matches!(like.pattern.as_ref(), Expr::Literal(..)) => Ok(()),
        Expr::Like(_) => Err(below("LIKE with a pattern from a column is", "write the pattern as text")),
        Expr::BinaryExpr(binary) => match binary.op {
            Operator::Eq
            | Operator::NotEq
            | Operator::Lt
            | Operator::LtEq
            | Operator::Gt
            | Operator::GtEq
            | Operator::And
            | Operator::Or
            | Operator::IsDistinctFrom
            | Operator::IsNotDistinctFrom
            | Operator::LikeMatch
            | Operator::NotLikeMatch
            | Operator::ILikeMatch
            | Operator::NotILikeMatch
            | Operator::StringConcat => Ok(()),
            // Whole numbers wrap around, floats become infinite: neither is an error. Dates do fail.
            Operator::Plus | Operator::Minus | Operator::Multiply => {
                let numbers = [&binary.left, &binary.right].iter().all(|side| side.get_type(schema).is_ok_and(|kind| is_number(&kind)));
                if numbers { Ok(()) } else { Err(below("arithmetic on anything but numbers is", "use date_trunc or date_part on dates")) }
            }
            Operator::Divide | Operator::Modulo => match binary.right.as_ref() {
                Expr::Literal(value, _) if positive(value) => Ok(()),
                _ => Err(below(
                    "a division by anything but a number above 0 is",
                    "divide above the noise, as in SUM(seconds) / COUNT(*), or by a number such as seconds / 60",
                )),
            },
            _ => Err(below("this operator is", "use comparisons, AND, OR, +, -, * and CASE")),
        },
        Expr::Cast(cast) => {
            let fits = schema_type(&cast.expr, schema).is_some_and(|from| casts_always(&from, cast.field.data_type()));
            if fits || (is_day(&cast.expr) && casts_a_day(cast.field.data_type())) {
                Ok(())
            } else {
                Err(below("a cast that may fail is", "write TRY_CAST, which gives NULL instead, and compare values of one type"))
            }
        }
        Expr::TryCast(cast) => {
            let fits = schema_type(&cast.expr, schema).is_some_and(|from| tries_always(&from, cast.field.data_type()));
            if fits || (is_day(&cast.expr) && casts_a_day(cast.field.data_type())) {
                Ok(())
            } else {
                Err(below("TRY_CAST between these types is", "use whole numbers, DOUBLE, BOOLEAN and VARCHAR; it may fail for others all the same"))
            }
        }
        Expr::ScalarFunction(call) if ["date_part", "date_trunc"].contains(&call.name()) && !matches!(call.args.first(), Some(Expr::Literal(..))) => {
            Err(below("date_part or date_trunc with a unit from a column is", "write the unit as text, such as 'week'"))
        }
        Expr::ScalarFunction(call) if TOTAL.contains(&call.name()) => Ok(()),
        Expr::ScalarFunction(call) if call.name() == CLIP => Err(below(
            "dp_clip anywhere but right inside SUM, AVG, STDDEV or a quantile is",
            "write SUM(dp_clip(seconds, 0, 600)); in a condition, use LEAST and GREATEST",
        )),
        Expr::ScalarFunction(_) => Err(below(
            "this function is",
            "use CASE, comparisons, arithmetic, coalesce, nullif, least, greatest, lower, upper, length, starts_with, contains, date_part, date_trunc, \
             and everything else above the noise",
        )),
        Expr::AggregateFunction(_) | Expr::WindowFunction(_) | Expr::GroupingSet(_) => {
            Err(below("an aggregate or window function inside another query is", "aggregate once, over the protected table itself"))
        }
        // Those that stand in WHERE are joins by now.
        Expr::InSubquery(_) | Expr::Exists(_) => Err(below(
            "IN (SELECT …) or EXISTS outside WHERE is",
            "put it into WHERE of a subquery, or LEFT JOIN the public table and compare its column",
        )),
        Expr::ScalarSubquery(_) | Expr::OuterReferenceColumn(..) => {
            Err(below("a subquery for each row is", "join a public table, or ask first and write the number"))
        }
        _ => Err(below("this expression is", "use plain columns, comparisons, CASE and arithmetic")),
    }
}

fn is_number(kind: &DataType) -> bool {
    kind.is_integer() || kind.is_floating() || kind.is_null()
}

fn positive(value: &ScalarValue) -> bool {
    match value {
        ScalarValue::Int8(Some(n)) => *n > 0,
        ScalarValue::Int16(Some(n)) => *n > 0,
        ScalarValue::Int32(Some(n)) => *n > 0,
        ScalarValue::Int64(Some(n)) => *n > 0,
        ScalarValue::UInt8(Some(n)) => *n > 0,
        ScalarValue::UInt16(Some(n)) => *n > 0,
        ScalarValue::UInt32(Some(n)) => *n > 0,
        ScalarValue::UInt64(Some(n)) => *n > 0,
        ScalarValue::Float32(Some(n)) => *n > 0.0,
        ScalarValue::Float64(Some(n)) => *n > 0.0,
        _ => false,
    }
}

fn text(kind: &DataType) -> bool {
    matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// What a day of this century can be made into.
fn casts_a_day(to: &DataType) -> bool {
    text(to) || matches!(to, DataType::Date32 | DataType::Date64 | DataType::Timestamp(..))
}

/// Whether TRY_CAST gives a value or NULL for every value. The engine's casts from dates to text, and into lists of few texts, fail even then.
fn tries_always(from: &DataType, to: &DataType) -> bool {
    if casts_always(from, to) {
        return true;
    }
    if let DataType::Dictionary(_, value) = from {
        return tries_always(value, to);
    }
    let simple = |kind: &DataType| is_number(kind) || text(kind) || *kind == DataType::Boolean;
    (simple(from) && simple(to) && (!text(to) || !from.is_floating())) || (text(from) && *to == DataType::Date32)
}

/// Whether every value of one type has one of the other.
fn casts_always(from: &DataType, to: &DataType) -> bool {
    if from == to {
        return true;
    }
    if let DataType::Dictionary(key, value) = to {
        // A batch has fewer rows than such keys can tell apart; with shorter keys a batch of many values would not fit.
        return !matches!(**key, DataType::Int8 | DataType::UInt8) && casts_always(from, value);
    }
    if let DataType::Dictionary(_, value) = from {
        return casts_always(value, to);
    }
    let width = |kind: &DataType| -> Option<(u8, bool)> {
        Some(match kind {
            DataType::Int8 => (8, true),
            DataType::Int16 => (16, true),
            DataType::Int32 => (32, true),
            DataType::Int64 => (64, true),
            DataType::UInt8 => (8, false),
            DataType::UInt16 => (16, false),
            DataType::UInt32 => (32, false),
            DataType::UInt64 => (64, false),
            _ => return None,
        })
    };
    if from == to
        || from.is_null()
        // Dates of far years cannot be written.
        || (text(to) && plain(from) && *from != DataType::Date32)
        || (to.is_floating() && (is_number(from) || *from == DataType::Boolean))
    {
        return true;
    }
    match (width(from), width(to)) {
        (Some((a, a_signed)), Some((b, b_signed))) => (a_signed == b_signed && a <= b) || (!a_signed && b_signed && a < b),
        (None, Some(_)) => *from == DataType::Boolean,
        _ => false,
    }
}
