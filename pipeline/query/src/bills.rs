//! `billing.daily`: what businesses are billed for, exactly (P35), as a table, for who writes bills and for nobody else.
//!
//! **Comes in:** exact sums of whoever keeps them ([`Bills`]): this crate knows no billing file. **Goes out:** a row for each day, business, portfolio,
//! category and country. Nobody is in it. Each reading is in the audit log before a row of it is there (I6), as `billing_read`; where the log cannot
//! be written nothing is read.
//!
//! Days that a statement's `WHERE` plainly leaves out are not asked for; files hold many days, so they are read all the same. A day is final when nothing of it can come any more.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray as _, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, SchemaRef, UInt8Type, UInt16Type, UInt64Type};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::ScalarValue;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use serde_json::json;
use starling_schemas::codes::{Category, Country};
use starling_schemas::ids::EpochId;
use starling_schemas::rows::BILLING as ROWS;

use crate::alerts::NOTE;
use crate::catalogue::{Shelf, unreadable};
use crate::error::{INTERNAL, QueryError, TOO_MUCH, UNREADABLE};
use crate::meta::Table;
use crate::private::table::DAY;
use crate::released;
use crate::rights::Rights;

/// Schema of what is billed.
pub(crate) const BILLING: &str = "billing";
/// Rows that one statement reads at most.
const MOST: usize = 2_000_000;

/// Whoever keeps what businesses are billed for.
#[async_trait]
pub trait Bills: std::fmt::Debug + Send + Sync {
    /// Exact sums of `from..=to`: rows of [`starling_schemas::rows::BILLING`], one for each day, business, portfolio, category and country.
    ///
    /// # Errors
    /// What a file or the metastore said; it goes to the log and not to whoever asked.
    async fn of_days(&self, from: EpochId, to: EpochId) -> Result<RecordBatch, Box<dyn std::error::Error + Send + Sync>>;
}

/// All tables of `billing`.
pub(crate) static TABLES: [Table; 1] = [Table {
    name: "daily",
    columns: &[
        (DAY, DataType::Date32, false, "UTC day of the messages"),
        ("business", DataType::Utf8, false, "business identifier; not a person"),
        ("portfolio", DataType::Utf8, true, "portfolio of the business; NULL where none was said"),
        ("category", DataType::Utf8, false, "unknown, marketing, utility, authentication or service"),
        ("country", DataType::Utf8, false, "country of the calling code at the other end"),
        ("sent", DataType::Int64, false, "messages that were sent"),
        ("delivered", DataType::Int64, false, "of them, delivered; in the day in which that happened"),
        ("read", DataType::Int64, false, "messages that were read"),
        ("replied", DataType::Int64, false, "messages that were replied to"),
    ],
}];

/// What a table of `billing` holds.
pub(crate) const ABOUT: &str = "what businesses are billed for, exactly; nobody is in it, and each reading is logged";

/// `billing.daily`, as one statement sees it.
#[derive(Debug)]
pub(crate) struct Billed {
    shelf: Arc<Shelf>,
    bills: Arc<dyn Bills>,
    rights: Rights,
    schema: SchemaRef,
}

impl Billed {
    /// The table. Nothing is read yet.
    pub(crate) fn new(table: &Table, shelf: &Arc<Shelf>, bills: &Arc<dyn Bills>, rights: Rights) -> Self {
        Self { shelf: Arc::clone(shelf), bills: Arc::clone(bills), rights, schema: table.schema() }
    }

    async fn rows(&self, from: EpochId, to: EpochId) -> Result<RecordBatch, QueryError> {
        let role = match self.rights {
            Rights::All => "operator",
            Rights::Of(role) => role.name(),
        };
        let said = |day: EpochId| (day > EpochId(i32::MIN) && day < EpochId::LAST_DAY).then(|| day.to_string());
        let detail = json!({ "table": "billing.daily", "role": role, "from": said(from), "to": said(to) });
        let logged = self.shelf.metastore.append_audit("billing_read", detail, self.shelf.clock.now_ms()).await;
        logged.map_err(|error| unreadable(&error))?;
        let rows = self.bills.of_days(from, to).await.map_err(|error| {
            // A file's error names its path.
            tracing::error!(%error, "billing could not be read for a statement");
            QueryError::new(UNREADABLE, "billing could not be read", "try again; if it stays, see the server's log")
        })?;
        if rows.num_rows() > MOST {
            let hint = format!("ask for fewer days at a time: WHERE {DAY} BETWEEN … AND …");
            return Err(QueryError::new(TOO_MUCH, format!("these days have more than {MOST} rows of billing"), hint));
        }
        let is_long = |name: &str| {
            let texts = rows.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
            texts.is_some_and(|texts| texts.iter().flatten().any(|text| text.len() > NOTE))
        };
        if is_long("business") || is_long("portfolio") {
            // Cut, two businesses could become one.
            let reason = format!("a business or portfolio of these days has a name of more than {NOTE} bytes");
            return Err(QueryError::new(TOO_MUCH, reason, "`starling billing` tells what it is billed for"));
        }
        self.named(&rows).ok_or_else(|| {
            QueryError::new(INTERNAL, "billing.daily could not be built", "report this: it is a fault of the server")
        })
    }

    /// Codes as names, and counts as SQL has them.
    fn named(&self, rows: &RecordBatch) -> Option<RecordBatch> {
        if rows.schema().fields().len() != ROWS.fields().len() {
            return None;
        }
        let column = |name: &str| rows.column_by_name(name);
        let text = |name: &str| -> Option<ArrayRef> {
            let texts = column(name)?.as_string_opt::<i32>()?;
            Some(Arc::new(texts.iter().collect::<StringArray>()))
        };
        let count = |name: &str| -> Option<ArrayRef> {
            let counts = column(name)?.as_primitive_opt::<UInt64Type>()?;
            let whole = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
            Some(Arc::new(Int64Array::from_iter_values(counts.values().iter().map(|count| whole(*count)))))
        };
        let category = |code: &u8| Category::from_code(*code).unwrap_or(Category::Unknown).name();
        let categories = column("category")?.as_primitive_opt::<UInt8Type>()?.values().iter().map(category);
        let countries = column("country")?.as_primitive_opt::<UInt16Type>()?.values().iter();
        let columns: Vec<ArrayRef> = vec![
            Arc::clone(column(DAY)?),
            text("business")?,
            text("portfolio")?,
            Arc::new(StringArray::from_iter_values(categories)),
            Arc::new(StringArray::from_iter_values(countries.map(|code| Country::from_code(*code).name()))),
            count("sent")?,
            count("delivered")?,
            count("read")?,
            count("replied")?,
        ];
        RecordBatch::try_new(Arc::clone(&self.schema), columns).ok()
    }
}

/// The days that can fulfil all of these conditions, as far as they say so plainly.
fn days(filters: &[Expr]) -> (EpochId, EpochId) {
    let (mut from, mut to) = (i32::MIN, EpochId::LAST_DAY.0);
    for filter in filters {
        let (first, last) = days_of(filter);
        (from, to) = (from.max(first), to.min(last));
    }
    (EpochId(from), EpochId(to))
}

fn days_of(filter: &Expr) -> (i32, i32) {
    const ALL: (i32, i32) = (i32::MIN, i32::MAX);
    let is_day = |expression: &Expr| matches!(expression, Expr::Column(column) if column.name == DAY);
    let literal = |expression: &Expr| match expression {
        Expr::Literal(ScalarValue::Date32(Some(day)), _) => Some(*day),
        _ => None,
    };
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
            let (left, right) = (days_of(left), days_of(right));
            (left.0.max(right.0), left.1.min(right.1))
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let (op, day) = if is_day(left) {
                (Some(*op), literal(right))
            } else if is_day(right) {
                (op.swap(), literal(left))
            } else {
                return ALL;
            };
            match (op, day) {
                (Some(Operator::Eq), Some(day)) => (day, day),
                (Some(Operator::GtEq), Some(day)) => (day, i32::MAX),
                (Some(Operator::Gt), Some(day)) => (day.saturating_add(1), i32::MAX),
                (Some(Operator::LtEq), Some(day)) => (i32::MIN, day),
                (Some(Operator::Lt), Some(day)) => (i32::MIN, day.saturating_sub(1)),
                _ => ALL,
            }
        }
        Expr::Between(between) if !between.negated && is_day(&between.expr) => {
            (literal(&between.low).unwrap_or(i32::MIN), literal(&between.high).unwrap_or(i32::MAX))
        }
        _ => ALL,
    }
}

#[async_trait]
impl TableProvider for Billed {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DataFusionResult<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let (from, to) = days(filters);
        let rows = self.rows(from, to).await.map_err(|error| DataFusionError::External(Box::new(error)))?;
        let batches = released::in_batches(&rows).collect();
        let plan: Arc<dyn ExecutionPlan> =
            MemorySourceConfig::try_new_exec(&[batches], Arc::clone(&self.schema), projection.cloned())?;
        Ok(plan)
    }
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::{col, lit};

    use super::*;

    #[test]
    fn only_days_that_a_condition_plainly_leaves_out_are_left_out() {
        let day = |n: i32| Expr::Literal(ScalarValue::Date32(Some(n)), None);
        let (least, most) = (i32::MIN, EpochId::LAST_DAY.0);
        for (filters, expected) in [
            (vec![], (least, most)),
            (vec![col("day").eq(day(5))], (5, 5)),
            (vec![day(5).lt(col("day"))], (6, most)),
            (vec![col("day").gt_eq(day(5)).and(col("day").lt(day(9)))], (5, 8)),
            (vec![col("day").between(day(2), day(4)), col("day").lt_eq(day(3))], (2, 3)),
            (vec![col("day").not_between(day(2), day(4))], (least, most)),
            (vec![col("day").eq(day(5)).or(col("day").eq(day(9)))], (least, most)),
            (vec![col("day").not_eq(day(5))], (least, most)),
            (vec![col("sent").gt(lit(5_i64))], (least, most)),
            (vec![col("day").eq(day(5)), col("day").eq(day(6))], (6, 5)),
        ] {
            let (from, to) = days(&filters);
            assert_eq!((from.0, to.0), expected, "{filters:?}");
        }
    }
}
