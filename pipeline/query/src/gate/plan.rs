//! The second look: the logical plan. Nodes and expressions are allowed by list; what is not named here is refused, whatever it is.

use arrow::datatypes::DataType;
use datafusion::common::TableReference;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::source_as_provider;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::expr::WindowFunctionDefinition;
use datafusion::logical_expr::{Expr, LogicalPlan, Operator, TableScan};

use super::functions::{aggregate_allowed, aggregate_over_window_allowed, scalar_allowed, window_allowed};
use super::{refused, refused_function};
use crate::alerts::INTEGRITY;
use crate::bills::{BILLING, Billed};
use crate::businesses::{Accounts, BUSINESS};
use crate::catalogue::{CATALOGUE, META, STATS};
use crate::error::QueryError;
use crate::meta::Facts;
use crate::private::table::{Noisy, PRIVATE};
use crate::released::Released;
use crate::system::functions::may_stand;
use crate::system::{INFORMATION_SCHEMA, PG_CATALOG};

/// Checks every node and every expression of a plan, subqueries too.
///
/// # Errors
/// The first thing that is not on the lists.
pub(crate) fn check(plan: &LogicalPlan, system: bool) -> Result<(), QueryError> {
    let mut found = None;
    let walked = plan.apply_with_subqueries(|node| {
        if let Err(error) = check_node(node, system) {
            found = Some(error);
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    match (found, walked) {
        (Some(error), _) => Err(error),
        (None, Ok(_)) => Ok(()),
        (None, Err(_)) => Err(refused("a plan that cannot be walked is", "write the statement in another way")),
    }
}

fn check_node(node: &LogicalPlan, system: bool) -> Result<(), QueryError> {
    match node {
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::Window(_)
        | LogicalPlan::Aggregate(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Join(_)
        | LogicalPlan::Union(_)
        | LogicalPlan::EmptyRelation(_)
        | LogicalPlan::Subquery(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Limit(_)
        | LogicalPlan::Values(_)
        | LogicalPlan::Distinct(_) => {}
        LogicalPlan::TableScan(scan) => check_scan(scan, system)?,
        LogicalPlan::RecursiveQuery(_) => {
            return Err(refused("a recursive query is", "write each step as a query of its own under WITH"));
        }
        LogicalPlan::Unnest(_) => {
            return Err(refused("UNNEST is", "no released column is a list; use VALUES for rows of your own"));
        }
        _ => return Err(refused("a statement that does anything but read is", "write a SELECT over stats.* or meta.*")),
    }
    let mut found = None;
    let walked = node.apply_expressions(|expression| {
        expression.apply(|expression| match check_expression(expression, system) {
            Ok(()) => Ok(TreeNodeRecursion::Continue),
            Err(error) => {
                found = Some(error);
                Ok::<_, DataFusionError>(TreeNodeRecursion::Stop)
            }
        })
    });
    match (found, walked) {
        (Some(error), _) => Err(error),
        (None, Ok(_)) => Ok(()),
        (None, Err(_)) => Err(refused("an expression that cannot be walked is", "write the statement in another way")),
    }
}

/// A table is one of ours by its type, not only by its name.
fn check_scan(scan: &TableScan, system: bool) -> Result<(), QueryError> {
    let (catalogue, schema) = match &scan.table_name {
        TableReference::Bare { .. } => (CATALOGUE, if system { PG_CATALOG } else { STATS }),
        TableReference::Partial { schema, .. } => (CATALOGUE, schema.as_ref()),
        TableReference::Full { catalog, schema, .. } => (catalog.as_ref(), schema.as_ref()),
    };
    let ours = source_as_provider(&scan.source).is_ok_and(|table| match schema {
        // Both or neither: what is about system tables reads nothing else.
        PG_CATALOG | INFORMATION_SCHEMA => system && table.is::<Facts>(),
        _ if system => false,
        STATS => table.is::<Released>(),
        META | INTEGRITY => table.is::<Facts>(),
        BILLING => table.is::<Billed>(),
        BUSINESS => table.is::<Accounts>(),
        // What is left of protected rows after the noise.
        PRIVATE => table.is::<Noisy>(),
        _ => false,
    });
    if catalogue == CATALOGUE && ours {
        Ok(())
    } else {
        Err(refused("a table outside stats and meta is", "read stats.* or meta.*"))
    }
}

fn is_literal(expression: &Expr) -> bool {
    match expression {
        Expr::Literal(..) => true,
        Expr::Cast(cast) => is_literal(&cast.expr),
        _ => false,
    }
}

fn check_expression(expression: &Expr, system: bool) -> Result<(), QueryError> {
    match expression {
        Expr::Alias(_)
        | Expr::Column(_)
        | Expr::OuterReferenceColumn(..)
        | Expr::Not(_)
        | Expr::IsNotNull(_)
        | Expr::IsNull(_)
        | Expr::IsTrue(_)
        | Expr::IsFalse(_)
        | Expr::IsUnknown(_)
        | Expr::IsNotTrue(_)
        | Expr::IsNotFalse(_)
        | Expr::IsNotUnknown(_)
        | Expr::Negative(_)
        | Expr::Between(_)
        | Expr::Case(_)
        | Expr::InList(_)
        | Expr::Exists(_)
        | Expr::InSubquery(_)
        | Expr::ScalarSubquery(_)
        | Expr::GroupingSet(_)
        | Expr::Like(_) => Ok(()),
        Expr::Literal(value, _) => check_type(&value.data_type()),
        Expr::BinaryExpr(binary) => match binary.op {
            Operator::RegexMatch | Operator::RegexIMatch | Operator::RegexNotMatch | Operator::RegexNotIMatch if system => {
                // One pattern is compiled once. Patterns of rows would all be compiled and kept, megabytes each, in a call that nothing interrupts.
                if is_literal(&binary.right) {
                    Ok(())
                } else {
                    Err(refused("a regular expression that is not written out is", "write the pattern itself"))
                }
            }
            operator => check_operator(operator),
        },
        Expr::Cast(cast) => check_type(cast.field.data_type()),
        Expr::TryCast(cast) => check_type(cast.field.data_type()),
        Expr::ScalarFunction(call) => {
            check_function(call.name(), scalar_allowed(call.name()) || (system && may_stand(call.name())))
        }
        Expr::AggregateFunction(call) => {
            let name = call.func.name();
            check_function(name, aggregate_allowed(name) || (system && name == "string_agg"))
        }
        Expr::WindowFunction(call) => match &call.fun {
            WindowFunctionDefinition::AggregateUDF(function)
                if call.params.distinct || !aggregate_over_window_allowed(function.name()) =>
            {
                Err(refused(
                    "a DISTINCT, a median or a percentile over a window is",
                    "compute it in a query with GROUP BY and join that",
                ))
            }
            WindowFunctionDefinition::AggregateUDF(_) => Ok(()),
            WindowFunctionDefinition::WindowUDF(function) => check_function(function.name(), window_allowed(function.name())),
        },
        // COUNT(*) before it is planned; a star in a list of columns is expanded by then.
        #[expect(deprecated, reason = "there is no other name for this variant")]
        Expr::Wildcard { .. } => Ok(()),
        Expr::ScalarVariable(..) => Err(refused("a variable is", "write the value itself")),
        Expr::Placeholder(_) => Err(super::unbound()),
        Expr::SimilarTo(_) => Err(refused("SIMILAR TO is", "use LIKE, starts_with or contains")),
        Expr::SetComparison(_) => {
            Err(refused("a comparison with ANY or ALL of a query is", "use IN, EXISTS, or compare with its min or max"))
        }
        _ => Err(refused("an expression of this kind is", "use plain columns, operators and the listed functions")),
    }
}

fn check_function(name: &str, allowed: bool) -> Result<(), QueryError> {
    if allowed { Ok(()) } else { Err(refused_function(name)) }
}

fn check_operator(operator: Operator) -> Result<(), QueryError> {
    match operator {
        Operator::Eq
        | Operator::NotEq
        | Operator::Lt
        | Operator::LtEq
        | Operator::Gt
        | Operator::GtEq
        | Operator::Plus
        | Operator::Minus
        | Operator::Multiply
        | Operator::Divide
        | Operator::Modulo
        | Operator::IntegerDivide
        | Operator::And
        | Operator::Or
        | Operator::IsDistinctFrom
        | Operator::IsNotDistinctFrom
        | Operator::LikeMatch
        | Operator::ILikeMatch
        | Operator::NotLikeMatch
        | Operator::NotILikeMatch
        | Operator::BitwiseAnd
        | Operator::BitwiseOr
        | Operator::BitwiseXor
        | Operator::BitwiseShiftRight
        | Operator::BitwiseShiftLeft
        | Operator::StringConcat => Ok(()),
        Operator::RegexMatch | Operator::RegexIMatch | Operator::RegexNotMatch | Operator::RegexNotIMatch => {
            Err(refused("a regular expression is", "use LIKE, starts_with or contains"))
        }
        _ => Err(refused("an operator for lists or JSON is", "no released column is a list or JSON; use plain comparisons")),
    }
}

fn check_type(kind: &DataType) -> Result<(), QueryError> {
    match kind {
        DataType::Null
        | DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::UInt8
        | DataType::UInt16
        | DataType::UInt32
        | DataType::UInt64
        | DataType::Float32
        | DataType::Float64
        | DataType::Decimal128(..)
        | DataType::Decimal256(..)
        | DataType::Date32
        | DataType::Date64
        | DataType::Time32(_)
        | DataType::Time64(_)
        | DataType::Timestamp(..)
        | DataType::Duration(_)
        | DataType::Interval(_)
        | DataType::Utf8
        | DataType::Utf8View
        | DataType::LargeUtf8 => Ok(()),
        _ => Err(refused("a value of this type is", "use numbers, text, dates, timestamps, intervals and booleans")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, RecordBatch};
    use arrow::datatypes::{Field, Schema};
    use datafusion::datasource::MemTable;
    use datafusion::prelude::{SessionConfig, SessionContext};

    use super::*;

    /// An engine with everything on and a table of its own: what the plan gate would face if the text gate had a hole.
    fn open_house() -> SessionContext {
        let context = SessionContext::new_with_config(SessionConfig::new().with_information_schema(true));
        let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
        let rows = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(Int64Array::from(vec![1]))]).expect("fits");
        context.register_table("t", Arc::new(MemTable::try_new(schema, vec![vec![rows]]).expect("fits"))).expect("new");
        context
    }

    #[tokio::test]
    async fn i8_the_plan_gate_alone_refuses_what_only_the_text_gate_was_meant_to_see() {
        let state = open_house().state();
        for sql in [
            "COPY (SELECT 1) TO 'x.csv' STORED AS CSV",
            "CREATE EXTERNAL TABLE x STORED AS CSV LOCATION 'x.csv'",
            "CREATE TABLE x AS SELECT 1",
            "CREATE VIEW x AS SELECT 1",
            "CREATE SCHEMA x",
            "DROP TABLE t",
            "INSERT INTO t VALUES (1)",
            "DELETE FROM t",
            "UPDATE t SET a = 2",
            "SET datafusion.execution.batch_size = 1",
            "PREPARE p AS SELECT 1",
            "START TRANSACTION",
            "EXPLAIN SELECT 1",
            "EXPLAIN ANALYZE SELECT 1",
            "DESCRIBE t",
            "SELECT * FROM t",
            "SELECT 1 WHERE 1 IN (SELECT a FROM t)",
            "SELECT * FROM information_schema.tables",
            "SHOW TABLES",
            "SELECT * FROM generate_series(1, 3)",
            "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 3) SELECT * FROM n",
            "SELECT random()",
            "SELECT uuid()",
            "SELECT version()",
            "SELECT repeat('x', 3)",
            "SELECT arrow_cast(1, 'Int8')",
            "SELECT array_agg(x) FROM (VALUES (1)) AS v (x)",
            "SELECT string_agg(x, ',') OVER () FROM (VALUES ('1')) AS v (x)",
            "SELECT * FROM information_schema.df_settings",
            "SELECT (SELECT random())",
            "SELECT 1 ORDER BY random()",
            "SELECT 'a' ~ 'b'",
            "SELECT 'a' SIMILAR TO 'b'",
            "SELECT $1",
            "SELECT CAST('x' AS BYTEA)",
            "SELECT struct(1)",
        ] {
            let plan = state.create_logical_plan(sql).await.expect(sql);
            // What system statements may do of it; their session has a `version` of its own.
            let is_systems = sql.contains('~') || sql.contains("version");
            let refused = (check(&plan, false).is_err(), check(&plan, true).is_err());
            assert_eq!(refused, (true, !is_systems), "{sql}\n{}", plan.display_indent());
        }
        for sql in ["SELECT 1", "VALUES (1), (2)", "SELECT sum(x) FROM (VALUES (1)) AS v (x) WHERE x > 0 GROUP BY x"] {
            let plan = state.create_logical_plan(sql).await.expect(sql);
            assert!(check(&plan, false).is_ok() && check(&plan, true).is_ok(), "{sql}");
        }
    }
}
