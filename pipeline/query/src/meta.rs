//! `meta.*`: what there is to know about the statistics. Definitions, budgets and hashes; nothing about a person.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, Date32Array, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use starling_privacy::epsilon;
use starling_schemas::metrics::{Catalogue, Measure, Metric, NanoRho};
use starling_schemas::rows::{COMMENT, column};
use starling_store::BudgetRow;

use crate::catalogue::{META, STATS, Shelf, unreadable};
use crate::error::{INTERNAL, QueryError};
use crate::released;

/// A table of this schema: its name and (column, type, may be NULL, comment).
pub(crate) struct Table {
    /// Name without schema.
    pub(crate) name: &'static str,
    columns: &'static [(&'static str, DataType, bool, &'static str)],
}

const TIME: DataType = DataType::Timestamp(TimeUnit::Millisecond, None);

/// All tables of `meta`.
pub(crate) static TABLES: [Table; 5] = [
    Table {
        name: "budget",
        columns: &[
            ("dataset", DataType::Utf8, false, "dataset of the block"),
            ("day", DataType::Date32, false, "UTC day of the block"),
            ("limit_rho", DataType::Float64, false, "zCDP the block may ever spend"),
            ("spent_rho", DataType::Float64, false, "zCDP spent; never falls"),
            ("left_rho", DataType::Float64, false, "zCDP left"),
            ("limit_epsilon", DataType::Float64, true, "the limit as epsilon at delta"),
            ("spent_epsilon", DataType::Float64, true, "what was spent as epsilon at delta"),
            ("delta", DataType::Float64, true, "delta of the epsilons; NULL if the dataset is no longer defined"),
            ("charges", DataType::Int64, false, "number of charges"),
        ],
    },
    Table {
        name: "charges",
        columns: &[
            ("dataset", DataType::Utf8, false, "dataset of the block"),
            ("day", DataType::Date32, false, "UTC day of the block"),
            ("question", DataType::Utf8, false, "what was paid for"),
            ("rho", DataType::Float64, false, "zCDP charged"),
            (
                "epsilon",
                DataType::Float64,
                true,
                "the charge as epsilon at delta; epsilons of charges do not add up, their rho does",
            ),
            ("delta", DataType::Float64, true, "delta of epsilon; NULL if the dataset is no longer defined"),
            ("charged_at", TIME, false, "when, UTC"),
        ],
    },
    Table {
        name: "columns",
        columns: &[
            ("table_schema", DataType::Utf8, false, "stats or meta"),
            ("table_name", DataType::Utf8, false, "table"),
            ("column_name", DataType::Utf8, false, "column"),
            ("data_type", DataType::Utf8, false, "type in SQL"),
            ("comment", DataType::Utf8, false, "what the column holds"),
            ("ordinal_position", DataType::Int64, false, "place in the table, from 1"),
        ],
    },
    Table {
        name: "metrics",
        columns: &[
            ("name", DataType::Utf8, false, "table name under stats"),
            ("title", DataType::Utf8, false, "a few words"),
            ("description", DataType::Utf8, false, "what the number means"),
            ("dataset", DataType::Utf8, false, "what it draws from; see meta.budget"),
            ("measure", DataType::Utf8, false, "what is summed: people, events or seconds"),
            ("unit", DataType::Utf8, false, "unit of the released value"),
            ("dimensions", DataType::Utf8, false, "columns it is grouped by, with commas"),
            ("activities", DataType::Utf8, false, "activities that count, with commas"),
            ("groups_per_person", DataType::Int64, false, "one person counts in at most so many groups"),
            ("value_per_group", DataType::Int64, false, "and with at most so much in each, in units of the measure"),
            ("rho", DataType::Float64, false, "zCDP one day costs"),
            ("epsilon", DataType::Float64, true, "the cost as epsilon at delta"),
            ("delta", DataType::Float64, true, "delta of epsilon"),
            ("windows_released", DataType::Int64, false, "days released so far"),
            ("newest_day", DataType::Date32, true, "newest day released"),
        ],
    },
    Table {
        name: "releases",
        columns: &[
            ("metric", DataType::Utf8, false, "metric"),
            ("day", DataType::Date32, false, "UTC day"),
            ("rows", DataType::Int64, false, "groups in the release"),
            ("suppressed", DataType::Int64, false, "how many of them are suppressed"),
            ("rho", DataType::Float64, false, "zCDP it cost"),
            ("epsilon", DataType::Float64, false, "the cost as epsilon at delta"),
            ("delta", DataType::Float64, false, "delta of epsilon"),
            ("released_at", TIME, false, "when, UTC"),
            ("file", DataType::Utf8, false, "path below the file store"),
            ("blake3", DataType::Utf8, false, "BLAKE3 of the file, in hex"),
        ],
    },
];

impl Table {
    fn schema(&self) -> SchemaRef {
        let fields: Vec<Field> =
            self.columns.iter().map(|(name, kind, null, comment)| column(name, kind.clone(), *null, comment)).collect();
        Arc::new(Schema::new(fields))
    }
}

/// ε of (ρ, δ), computed once each.
#[derive(Debug, Default)]
pub(crate) struct Epsilons(Mutex<HashMap<(NanoRho, u64), f64>>);

impl Epsilons {
    fn of(&self, rho: NanoRho, delta: f64) -> f64 {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *known.entry((rho, delta.to_bits())).or_insert_with(|| epsilon(rho, delta))
    }
}

/// Builds a table as of now.
///
/// # Errors
/// When the metastore cannot be read.
pub(crate) async fn table(table: &Table, shelf: &Shelf) -> Result<Facts, QueryError> {
    let columns = match table.name {
        "budget" => budget(&shelf.metastore.budget().await.map_err(|error| unreadable(&error))?, shelf),
        "charges" => charges(&shelf.metastore.budget().await.map_err(|error| unreadable(&error))?, shelf),
        "columns" => all_columns(shelf),
        "metrics" => metrics(shelf).await?,
        _ => releases(shelf).await?,
    };
    let schema = table.schema();
    let rows = RecordBatch::try_new(Arc::clone(&schema), columns).map_err(|_| {
        QueryError::new(INTERNAL, format!("meta.{} could not be built", table.name), "report this: it is a fault of the server")
    })?;
    Ok(Facts { schema, rows })
}

fn text<T: AsRef<str>>(values: impl IntoIterator<Item = T>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

fn float(values: impl IntoIterator<Item = f64>) -> ArrayRef {
    Arc::new(Float64Array::from_iter_values(values))
}

fn maybe_float(values: impl IntoIterator<Item = Option<f64>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<Float64Array>())
}

fn whole(values: impl IntoIterator<Item = u64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values.into_iter().map(|value| i64::try_from(value).unwrap_or(i64::MAX))))
}

fn day(values: impl IntoIterator<Item = i32>) -> ArrayRef {
    Arc::new(Date32Array::from_iter_values(values))
}

fn time(values: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(TimestampMillisecondArray::from_iter_values(values))
}

fn delta(catalogue: &Catalogue, dataset: &str) -> Option<f64> {
    catalogue.datasets.get(dataset).map(|dataset| dataset.delta)
}

fn budget(blocks: &[BudgetRow], shelf: &Shelf) -> Vec<ArrayRef> {
    let deltas: Vec<Option<f64>> = blocks.iter().map(|row| delta(&shelf.catalogue, &row.block.dataset)).collect();
    let epsilons = |rho: fn(&BudgetRow) -> NanoRho| {
        maybe_float(blocks.iter().zip(&deltas).map(|(row, delta)| delta.map(|delta| shelf.epsilons.of(rho(row), delta))))
    };
    vec![
        text(blocks.iter().map(|row| &row.block.dataset)),
        day(blocks.iter().map(|row| row.block.epoch.0)),
        float(blocks.iter().map(|row| row.limit.rho())),
        float(blocks.iter().map(|row| row.spent.rho())),
        float(blocks.iter().map(|row| NanoRho(row.limit.0.saturating_sub(row.spent.0)).rho())),
        epsilons(|row| row.limit),
        epsilons(|row| row.spent),
        maybe_float(deltas.iter().copied()),
        whole(blocks.iter().map(|row| row.charges.len() as u64)),
    ]
}

fn charges(blocks: &[BudgetRow], shelf: &Shelf) -> Vec<ArrayRef> {
    let rows: Vec<_> = blocks.iter().flat_map(|row| row.charges.iter().map(move |charge| (&row.block, charge))).collect();
    let deltas: Vec<Option<f64>> = rows.iter().map(|(block, _)| delta(&shelf.catalogue, &block.dataset)).collect();
    let epsilons = rows.iter().zip(&deltas).map(|((_, charge), delta)| delta.map(|delta| shelf.epsilons.of(charge.1, delta)));
    vec![
        text(rows.iter().map(|(block, _)| &block.dataset)),
        day(rows.iter().map(|(block, _)| block.epoch.0)),
        text(rows.iter().map(|(_, charge)| &charge.0)),
        float(rows.iter().map(|(_, charge)| charge.1.rho())),
        maybe_float(epsilons),
        maybe_float(deltas.iter().copied()),
        time(rows.iter().map(|(_, charge)| charge.2)),
    ]
}

fn all_columns(shelf: &Shelf) -> Vec<ArrayRef> {
    let stats = shelf.catalogue.metrics.iter().map(|metric| (STATS, metric.name.as_str(), released::schema(metric)));
    let tables: Vec<(&str, &str, SchemaRef)> =
        stats.chain(TABLES.iter().map(|table| (META, table.name, table.schema()))).collect();
    let rows: Vec<(&str, &str, &Field, u64)> = tables
        .iter()
        .flat_map(|(schema, name, columns)| {
            columns.fields().iter().zip(1..).map(move |(field, place)| (*schema, *name, field.as_ref(), place))
        })
        .collect();
    vec![
        text(rows.iter().map(|row| row.0)),
        text(rows.iter().map(|row| row.1)),
        text(rows.iter().map(|row| row.2.name())),
        text(rows.iter().map(|row| sql_type(row.2.data_type()))),
        text(rows.iter().map(|row| row.2.metadata().get(COMMENT).map_or("", String::as_str))),
        whole(rows.iter().map(|row| row.3)),
    ]
}

fn sql_type(kind: &DataType) -> &'static str {
    match kind {
        DataType::Date32 => "date",
        DataType::Float64 => "double",
        DataType::Int64 => "bigint",
        DataType::Timestamp(..) => "timestamp",
        _ => "text",
    }
}

const fn measure(measure: Measure) -> &'static str {
    match measure {
        Measure::People => "people",
        Measure::Events => "events",
        Measure::Seconds => "seconds",
    }
}

async fn metrics(shelf: &Shelf) -> Result<Vec<ArrayRef>, QueryError> {
    let releases = shelf.releases().await?;
    let metrics = &shelf.catalogue.metrics;
    let of = |metric: &Metric| {
        releases.iter().filter(|record| record.metric == metric.name).map(|record| record.epoch.0).collect::<Vec<_>>()
    };
    let days: Vec<Vec<i32>> = metrics.iter().map(of).collect();
    let list = |names: Vec<String>| names.join(", ");
    let deltas: Vec<Option<f64>> = metrics.iter().map(|metric| delta(&shelf.catalogue, &metric.dataset)).collect();
    Ok(vec![
        text(metrics.iter().map(|metric| &metric.name)),
        text(metrics.iter().map(|metric| &metric.title)),
        text(metrics.iter().map(|metric| &metric.description)),
        text(metrics.iter().map(|metric| &metric.dataset)),
        text(metrics.iter().map(|metric| measure(metric.measure))),
        text(metrics.iter().map(|metric| &metric.unit)),
        text(metrics.iter().map(|metric| list(metric.dimensions.iter().map(|dimension| dimension.name().to_owned()).collect()))),
        text(metrics.iter().map(|metric| list(metric.activities.iter().map(ToString::to_string).collect()))),
        whole(metrics.iter().map(|metric| metric.bounds.groups_per_person.into())),
        whole(metrics.iter().map(|metric| metric.bounds.value_per_group.into())),
        float(metrics.iter().map(|metric| metric.rho.rho())),
        maybe_float(metrics.iter().zip(&deltas).map(|(metric, delta)| delta.map(|delta| shelf.epsilons.of(metric.rho, delta)))),
        maybe_float(deltas.iter().copied()),
        whole(days.iter().map(|days| days.len() as u64)),
        Arc::new(days.iter().map(|days| days.iter().max().copied()).collect::<Date32Array>()),
    ])
}

async fn releases(shelf: &Shelf) -> Result<Vec<ArrayRef>, QueryError> {
    let records = shelf.releases().await?;
    Ok(vec![
        text(records.iter().map(|record| &record.metric)),
        day(records.iter().map(|record| record.epoch.0)),
        whole(records.iter().map(|record| record.rows)),
        whole(records.iter().map(|record| record.suppressed)),
        float(records.iter().map(|record| record.rho.rho())),
        float(records.iter().map(|record| record.epsilon)),
        float(records.iter().map(|record| record.delta)),
        time(records.iter().map(|record| record.released_at_ms)),
        text(records.iter().map(|record| &record.path)),
        text(records.iter().map(|record| &record.blake3)),
    ])
}

/// A table of `meta` as one statement sees it.
#[derive(Debug)]
pub(crate) struct Facts {
    schema: SchemaRef,
    rows: RecordBatch,
}

#[async_trait]
impl TableProvider for Facts {
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
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let batches = released::in_batches(&self.rows).collect();
        let plan: Arc<dyn ExecutionPlan> =
            MemorySourceConfig::try_new_exec(&[batches], Arc::clone(&self.schema), projection.cloned())?;
        Ok(plan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_is_explained() {
        for table in &TABLES {
            assert!(
                table.schema().fields().iter().all(|f| f.metadata().get(COMMENT).is_some_and(|c| !c.is_empty())),
                "{}",
                table.name
            );
        }
    }
}
