//! Released statistics: one Parquet file per metric and window, written once and never changed (I3), so a file that was read and checked once
//! is kept in memory by its path.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Date32Array, RecordBatch, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Date32Type, Int64Type, SchemaRef};
use async_trait::async_trait;
use bytes::Bytes;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use datafusion::physical_plan::ExecutionPlan;
use starling_schemas::ids::EpochId;
use starling_store::{NewestRelease, ReleaseRecord};

use crate::error::{CORRUPTED, QueryError};
use crate::limits::BATCH_ROWS;
use crate::private::table::{DAY, HOUR};
use crate::written::{CUT, PEOPLE_CUT};

/// Bytes of a label in a released file, at most. The gate counts on it.
pub(crate) const LABEL_BYTES: usize = 64;

/// One window of one metric, checked.
#[derive(Debug, Clone)]
pub(crate) struct Day {
    /// Which one: a day, or an hour.
    pub(crate) epoch: EpochId,
    /// All its rows.
    pub(crate) rows: RecordBatch,
}

/// Reads a released file and checks it against its record: same bytes, same columns, same day, same number of rows,
/// short labels.
///
/// # Errors
/// [`CORRUPTED`] naming metric and day. What cannot be checked is not served (I8).
pub(crate) fn read(record: &ReleaseRecord, schema: &SchemaRef, bytes: Bytes) -> Result<Day, QueryError> {
    let wrong = |what: &str| {
        QueryError::new(
            CORRUPTED,
            format!("the released file of {} for {} {what}", record.metric, record.epoch),
            "restore the file from a backup: it was written once and its hash is in meta.releases. Other days and metrics can still be queried",
        )
    };
    if !blake3::hash(&bytes).to_hex().eq_ignore_ascii_case(&record.blake3) {
        return Err(wrong("is not the one that was recorded"));
    }
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).and_then(|builder| builder.with_batch_size(64 * 1024).build());
    let reader = reader.map_err(|_| wrong("is not readable as Parquet"))?;
    let mut batches = Vec::new();
    for batch in reader {
        let batch = batch.map_err(|_| wrong("is not readable as Parquet"))?;
        let columns: Option<Vec<ArrayRef>> = schema
            .fields()
            .iter()
            .map(|field| {
                let Some(column) = batch.column_by_name(field.name()) else {
                    let later = [CUT, PEOPLE_CUT].contains(&field.name().as_str());
                    return later.then(|| new_null_array(field.data_type(), batch.num_rows()));
                };
                let same = column.data_type() == field.data_type()
                    || (field.data_type() == &DataType::Utf8
                        && matches!(column.data_type(), DataType::Utf8View | DataType::LargeUtf8));
                if same { cast(column, field.data_type()).ok() } else { None }
            })
            .collect();
        let columns = columns.ok_or_else(|| wrong("does not have the columns of its metric"))?;
        batches.push(RecordBatch::try_new(Arc::clone(schema), columns).map_err(|_| wrong("has NULL where its metric has none"))?);
    }
    let rows = arrow::compute::concat_batches(schema, &batches).map_err(|_| wrong("does not have the columns of its metric"))?;
    if u64::try_from(rows.num_rows()).ok() != Some(record.rows) {
        return Err(wrong("does not have the number of rows that was recorded"));
    }
    let days = rows.column(0).as_primitive_opt::<Date32Type>();
    if !days.is_some_and(|days| days.iter().all(|day| day == Some(record.epoch.day().0))) {
        return Err(wrong("has rows of another day"));
    }
    let hours = rows.column_by_name(HOUR).map(|hours| hours.as_primitive_opt::<Int64Type>());
    let hour = record.epoch.hour().map(i64::from);
    // Only a metric of hours has such a column: a name that is reserved.
    if hours.is_some() != hour.is_some() || hours.is_some_and(|hours| hours.is_none_or(|hours| hours.iter().any(|h| h != hour))) {
        return Err(wrong("has rows of another hour"));
    }
    let labels = rows.columns().iter().filter_map(|column| column.as_string_opt::<i32>());
    if labels.flat_map(|column| column.iter().flatten()).any(|label| label.len() > LABEL_BYTES) {
        return Err(wrong("has a label that is too long"));
    }
    Ok(Day { epoch: record.epoch, rows })
}

/// `stats.<metric>` as one statement sees it: the days released when the statement began.
/// Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Released {
    schema: SchemaRef,
    days: Arc<[Arc<Day>]>,
    /// The newest of all releases, of any metric, when these days were all.
    newest: Option<Arc<NewestRelease>>,
}

impl Released {
    pub(crate) fn new(schema: SchemaRef, days: Vec<Arc<Day>>, newest: Option<NewestRelease>) -> Self {
        Self { schema, days: days.into(), newest: newest.map(Arc::new) }
    }

    /// The releases that it is of.
    pub(crate) fn releases(&self) -> Option<&NewestRelease> {
        self.newest.as_deref()
    }

    /// The windows whose releases are in the table.
    pub(crate) fn days(&self) -> Vec<i32> {
        self.days.iter().map(|day| day.epoch.0).collect()
    }

    /// Days that can have rows for these filters. When in doubt, all.
    fn kept(&self, state: &dyn Session, filters: &[Expr]) -> Vec<bool> {
        let all = vec![true; self.days.len()];
        let Some(filter) = conjunction(filters.iter().cloned()) else { return all };
        let pruned = DFSchema::try_from(Arc::clone(&self.schema))
            .and_then(|schema| state.create_physical_expr(filter, &schema))
            .and_then(|filter| PruningPredicateBuilder::new().with_file_schema(Arc::clone(&self.schema)).try_build(filter))
            .and_then(|predicate| predicate.prune(&Days(&self.days)));
        pruned.unwrap_or(all)
    }
}

#[async_trait]
impl TableProvider for Released {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DataFusionResult<Vec<TableProviderFilterPushDown>> {
        let only_day = |filter: &&Expr| filter.column_refs().iter().all(|column| column.name == DAY);
        let answer =
            |useful| if useful { TableProviderFilterPushDown::Inexact } else { TableProviderFilterPushDown::Unsupported };
        Ok(filters.iter().map(|filter| answer(only_day(filter))).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let kept = self.kept(state, filters);
        let days = self.days.iter().zip(kept).filter(|(_, keep)| *keep);
        let batches: Vec<RecordBatch> = days.flat_map(|(day, _)| in_batches(&day.rows)).collect();
        let plan: Arc<dyn ExecutionPlan> =
            MemorySourceConfig::try_new_exec(&[batches], Arc::clone(&self.schema), projection.cloned())?;
        Ok(plan)
    }
}

/// The same rows in pieces of at most [`BATCH_ROWS`].
pub(crate) fn in_batches(rows: &RecordBatch) -> impl Iterator<Item = RecordBatch> {
    (0..rows.num_rows()).step_by(BATCH_ROWS).map(|from| rows.slice(from, BATCH_ROWS.min(rows.num_rows() - from)))
}

struct Days<'a>(&'a [Arc<Day>]);

impl Days<'_> {
    fn of(&self, column: &Column) -> Option<ArrayRef> {
        (column.name == DAY)
            .then(|| Arc::new(Date32Array::from_iter_values(self.0.iter().map(|day| day.epoch.day().0))) as ArrayRef)
    }
}

impl PruningStatistics for Days<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.of(column)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.of(column)
    }

    fn num_containers(&self) -> usize {
        self.0.len()
    }

    fn null_counts(&self, _column: &Column) -> Option<ArrayRef> {
        None
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        None
    }

    fn contained(&self, _column: &Column, _values: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}

/// Files that were read and checked, by path.
pub(crate) type Checked = HashMap<String, Arc<Day>>;
