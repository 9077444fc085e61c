//! `business.accounts`: what businesses say of themselves, a row each (P34), for who works with businesses.
//!
//! **Comes in:** the metastore's accounts, as ingest committed them. **Goes out:** a row a business: what it said last, and on which day. Nobody is
//! in it. Each reading is in the audit log before a row of it is there (I6), as `business_read`; where the log cannot be written nothing is read.
//!
//! There may be hundreds of millions. A statement whose `WHERE` plainly names businesses looks up those and no other. Any other reads page by page as
//! the statement goes on, so that it holds one page in memory however many there are, and ends with a `LIMIT` or with the statement's time. Pages are
//! read one after the other: a business that changes meanwhile is there once, as it was before or after.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, Date32Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::ScalarValue;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::json;
use starling_schemas::business::BusinessAccount;
use starling_schemas::ids::EpochId;

use crate::catalogue::{Shelf, unreadable};
use crate::error::{INTERNAL, QueryError};
use crate::meta::Table;
use crate::released;
use crate::rights::Rights;

/// Schema of what is known of businesses.
pub(crate) const BUSINESS: &str = "business";
/// Accounts read at one time.
const PAGE: u32 = 8_192;
/// Businesses that are looked up one by one; where more are named all are read.
const LOOKED_UP: usize = 256;

/// All tables of `business`.
pub(crate) static TABLES: [Table; 1] = [Table {
    name: "accounts",
    columns: &[
        (KEY, DataType::Utf8, false, "business identifier, as in billing and alerts; not a person"),
        ("portfolio", DataType::Utf8, true, "portfolio of the business; NULL where none was said"),
        (
            "name",
            DataType::Utf8,
            true,
            "what it calls itself; # stands for each digit of what may be a phone number; NULL where nothing was said",
        ),
        ("category", DataType::Utf8, false, "what its messages are for: unknown, marketing, utility, authentication or service"),
        ("tier", DataType::Utf8, false, "people it may write to in 24 hours: unknown, 250, 2k, 10k, 100k or unlimited"),
        ("told_on", DataType::Date32, false, "UTC day on which it last said so"),
    ],
}];

const KEY: &str = "business";

/// What a table of `business` holds.
pub(crate) const ABOUT: &str =
    "what businesses say of themselves, as they said it last; nobody is in it, and each reading is logged";

/// `business.accounts`, as one statement sees it.
#[derive(Debug)]
pub(crate) struct Accounts {
    shelf: Arc<Shelf>,
    rights: Rights,
    schema: SchemaRef,
}

impl Accounts {
    /// The table. Nothing is read yet.
    pub(crate) fn new(table: &Table, shelf: &Arc<Shelf>, rights: Rights) -> Self {
        Self { shelf: Arc::clone(shelf), rights, schema: table.schema() }
    }

    /// Puts into the log that it will be read; `named`: how many businesses are looked up, which are not told.
    async fn log(&self, named: Option<usize>) -> Result<(), QueryError> {
        let role = match self.rights {
            Rights::All => "operator",
            Rights::Of(role) => role.name(),
        };
        let detail = json!({ "table": "business.accounts", "role": role, "named": named });
        let logged = self.shelf.metastore.append_audit("business_read", detail, self.shelf.clock.now_ms()).await;
        logged.map(drop).map_err(|error| unreadable(&error))
    }
}

/// Accounts as rows of the table.
fn rows(schema: &SchemaRef, accounts: &[BusinessAccount]) -> Result<RecordBatch, QueryError> {
    let text = |of: &dyn Fn(&BusinessAccount) -> &str| -> ArrayRef {
        Arc::new(accounts.iter().map(|account| Some(of(account)).filter(|text| !text.is_empty())).collect::<StringArray>())
    };
    let columns: Vec<ArrayRef> = vec![
        text(&|account| &account.business),
        text(&|account| &account.portfolio),
        text(&|account| &account.name),
        text(&|account| account.category.name()),
        text(&|account| account.tier.name()),
        Arc::new(Date32Array::from_iter_values(accounts.iter().map(|account| EpochId::of(account.told_ms).0))),
    ];
    RecordBatch::try_new(Arc::clone(schema), columns).map_err(|_| {
        QueryError::new(INTERNAL, "business.accounts could not be built", "report this: it is a fault of the server")
    })
}

fn failed(error: QueryError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// All accounts, a page at a time.
#[derive(Debug)]
struct Pages {
    shelf: Arc<Shelf>,
    schema: SchemaRef,
    /// Rows of a page.
    page: u32,
}

impl PartitionStream for Pages {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (shelf, schema, page) = (Arc::clone(&self.shelf), Arc::clone(&self.schema), self.page);
        // Behind which business the next page begins; `None` after the last one.
        let pages = futures::stream::try_unfold(Some(String::new()), move |after| {
            let (shelf, schema) = (Arc::clone(&shelf), Arc::clone(&schema));
            async move {
                let Some(after) = after else { return Ok::<_, DataFusionError>(None) };
                let accounts = shelf.metastore.businesses_after(Some(&after), page).await;
                let accounts = accounts.map_err(|error| failed(unreadable(&error)))?;
                let is_full = usize::try_from(page).is_ok_and(|page| accounts.len() >= page);
                let next = accounts.last().map(|last| last.business.clone()).filter(|_| is_full);
                Ok(Some((rows(&schema, &accounts).map_err(failed)?, next)))
            }
        });
        let batches = pages.map_ok(|page| {
            let batches: Vec<_> = released::in_batches(&page).map(Ok).collect();
            futures::stream::iter(batches)
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches.try_flatten().boxed()))
    }
}

/// The businesses that can fulfil all of these conditions, as far as they plainly name them; `None`: any.
fn named(filters: &[Expr]) -> Option<BTreeSet<String>> {
    let both = |one: BTreeSet<String>, other: BTreeSet<String>| one.intersection(&other).cloned().collect();
    filters.iter().filter_map(named_by).reduce(both)
}

fn named_by(filter: &Expr) -> Option<BTreeSet<String>> {
    let is_key = |expression: &Expr| matches!(expression, Expr::Column(column) if column.name == KEY);
    let literal = |expression: &Expr| match expression {
        Expr::Literal(ScalarValue::Utf8(text) | ScalarValue::Utf8View(text) | ScalarValue::LargeUtf8(text), _) => text.clone(),
        _ => None,
    };
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
            named(&[left.as_ref().clone(), right.as_ref().clone()])
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            let (mut left, right) = (named_by(left)?, named_by(right)?);
            left.extend(right);
            Some(left)
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => match (is_key(left), is_key(right)) {
            (true, false) => literal(right).map(|text| [text].into()),
            (false, true) => literal(left).map(|text| [text].into()),
            _ => None,
        },
        Expr::InList(within) if !within.negated && is_key(&within.expr) => within.list.iter().map(literal).collect(),
        _ => None,
    }
}

#[async_trait]
impl TableProvider for Accounts {
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
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let named = named(filters).filter(|named| named.len() <= LOOKED_UP);
        self.log(named.as_ref().map(BTreeSet::len)).await.map_err(failed)?;
        let schema = Arc::clone(&self.schema);
        if let Some(named) = named {
            let named: Vec<String> = named.into_iter().collect();
            let accounts = self.shelf.metastore.businesses(&named).await.map_err(|error| failed(unreadable(&error)))?;
            let batches = released::in_batches(&rows(&schema, &accounts).map_err(failed)?).collect();
            return Ok(MemorySourceConfig::try_new_exec(&[batches], schema, projection.cloned())?);
        }
        let page = limit.and_then(|limit| u32::try_from(limit).ok()).map_or(PAGE, |limit| limit.clamp(1, PAGE));
        let pages = Arc::new(Pages { shelf: Arc::clone(&self.shelf), schema: Arc::clone(&schema), page });
        Ok(Arc::new(StreamingTableExec::try_new(schema, vec![pages], projection, [], false, limit)?))
    }
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::{col, lit};

    use super::*;

    #[test]
    fn businesses_are_looked_up_only_where_no_other_can_be_meant() {
        let of = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>());
        let is = |name: &str| col("business").eq(lit(name));
        for (filters, expected) in [
            (vec![], None),
            (vec![is("a")], of(&["a"])),
            (vec![lit("a").eq(col("business"))], of(&["a"])),
            (vec![is("a").or(is("b")).or(is("c"))], of(&["a", "b", "c"])),
            (vec![col("business").in_list(vec![lit("a"), lit("b")], false), is("b")], of(&["b"])),
            (vec![is("a"), is("b")], of(&[])),
            (vec![is("a").and(col("name").eq(lit("x")))], of(&["a"])),
            (vec![is("a").or(col("name").eq(lit("x")))], None),
            (vec![col("business").in_list(vec![lit("a")], true)], None),
            (vec![col("business").in_list(vec![lit("a"), col("name")], false)], None),
            (vec![col("business").not_eq(lit("a"))], None),
            (vec![col("business").eq(col("name"))], None),
            (vec![col("name").eq(lit("a"))], None),
            (vec![!is("a")], None),
            (vec![col("business").gt(lit("a"))], None),
        ] {
            assert_eq!(named(&filters), expected, "{filters:?}");
        }
    }
}
