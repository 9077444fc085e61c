//! Protected tables, as the planner sees them, and the tables that hold what is left of them after the noise.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use starling_schemas::ids::EpochId;
use starling_schemas::questions::{MeasureBounds, Questions};

/// Schema of protected tables.
pub(crate) const PRIVATE: &str = "private";

/// Name of the column that says whose row it is, in every protected table.
pub(crate) const PERSON: &str = "person";

/// Name of the column that says which day's block a row is in, where a dataset has blocks by day.
pub(crate) const DAY: &str = "day";

/// Name of the column that says which hour of the day it is, where a dataset has blocks by hour. It is a number beside the day, and no time of the
/// two: of a whole number every expression has a value ([`total`](super::total)), of a time that is added to or cast it has not.
pub(crate) const HOUR: &str = "hour";

/// What a column of a protected table is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Role {
    /// Whose row it is.
    Person,
    /// The day of the block.
    Day,
    /// The hour of the day that the block is.
    Hour,
    /// A column to group by, with its public list if there is one.
    Dimension(Option<Arc<Vec<String>>>),
    /// A whole number with bounds.
    Measure(MeasureBounds),
}

/// A protected table. It can be planned over and not be read: reading is done by a question, block by block, after it was charged.
#[derive(Debug, Clone)]
pub(crate) struct Protected {
    /// Name of the dataset.
    pub(crate) dataset: Arc<str>,
    pub(crate) schema: SchemaRef,
    pub(crate) roles: Arc<BTreeMap<String, Role>>,
    pub(crate) questions: Arc<Questions>,
    /// What is read in its place, once a question has been charged.
    pub(crate) rows: Option<Rows>,
}

/// Rows a question may read.
#[derive(Clone)]
pub(crate) struct Rows {
    pub(crate) table: Arc<dyn TableProvider>,
    pub(crate) blocks: Arc<Vec<EpochId>>,
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rows").field("blocks", &self.blocks).finish_non_exhaustive()
    }
}

impl Protected {
    pub(crate) fn role(&self, column: &str) -> Option<&Role> {
        self.roles.get(column)
    }

    /// Whether a column is the same in all rows of a block, and says which block it is.
    pub(crate) fn is_of_the_block(&self, column: &str) -> bool {
        matches!(self.role(column), Some(Role::Day | Role::Hour))
    }
}

#[async_trait]
impl TableProvider for Protected {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match &self.rows {
            Some(rows) => rows.table.scan(state, projection, filters, limit).await,
            // Nothing that is planned reads it; if a plan came here all the same, it must not be answered (I8).
            None => Err(DataFusionError::Plan("protected rows cannot be read".to_owned())),
        }
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        match &self.rows {
            Some(rows) => rows.table.supports_filters_pushdown(filters),
            None => Ok(vec![TableProviderFilterPushDown::Unsupported; filters.len()]),
        }
    }
}

/// Noisy numbers, in place of the private part of a statement. Empty until the question was answered.
#[derive(Debug)]
pub(crate) struct Noisy {
    schema: SchemaRef,
    rows: OnceLock<RecordBatch>,
}

impl Noisy {
    pub(crate) fn new(schema: SchemaRef) -> Self {
        Self { schema, rows: OnceLock::new() }
    }

    /// The answer, once it is there.
    pub(crate) fn rows(&self) -> Option<&RecordBatch> {
        self.rows.get()
    }

    /// Puts the answer in, once.
    pub(crate) fn fill(&self, rows: RecordBatch) {
        let _already = self.rows.set(rows);
    }
}

#[async_trait]
impl TableProvider for Noisy {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let rows = self.rows.get().ok_or_else(|| DataFusionError::Plan("a question was not answered".to_owned()))?;
        let batches = crate::released::in_batches(rows).collect();
        let plan: Arc<dyn ExecutionPlan> =
            MemorySourceConfig::try_new_exec(&[batches], Arc::clone(&self.schema), projection.cloned())?;
        Ok(plan)
    }
}

/// The protected table behind a scan's source, if it is one.
pub(crate) fn protected(source: &Arc<dyn datafusion::logical_expr::TableSource>) -> Option<Protected> {
    let provider = datafusion::datasource::source_as_provider(source).ok()?;
    provider.downcast_ref::<Protected>().cloned()
}

/// Whether values of this type may be grouped and compared below the noise.
pub(crate) fn plain(kind: &DataType) -> bool {
    match kind {
        DataType::Dictionary(_, value) => plain(value),
        DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::UInt8
        | DataType::UInt16
        | DataType::UInt32
        | DataType::UInt64
        | DataType::Date32
        | DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Utf8View => true,
        _ => false,
    }
}
