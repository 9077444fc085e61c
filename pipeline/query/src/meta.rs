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
use starling_schemas::cost::RELEASES;
use starling_schemas::ids::EpochId;
use starling_schemas::metrics::{Catalogue, Metric, NanoRho};
use starling_schemas::rows::{COMMENT, column};
use starling_store::BudgetRow;

use crate::alerts::{self, INTEGRITY};
use crate::bills::{self, BILLING};
use crate::businesses::{self, BUSINESS};
use crate::catalogue::{META, STATS, Shelf, unreadable};
use crate::error::{INTERNAL, QueryError};
use crate::private::table::{PRIVATE, Protected, Role};
use crate::private::vault::Vault;
use crate::released;
use crate::rights::Rights;

/// A table of this schema: its name and (column, type, may be NULL, comment).
pub(crate) struct Table {
    /// Name without schema.
    pub(crate) name: &'static str,
    pub(crate) columns: &'static [(&'static str, DataType, bool, &'static str)],
}

pub(crate) const TIME: DataType = DataType::Timestamp(TimeUnit::Millisecond, None);

/// All tables of `meta`.
pub(crate) static TABLES: [Table; 6] = [
    Table {
        name: "allotments",
        columns: &[
            ("team", DataType::Utf8, false, "team whose questions pay from it"),
            ("dataset", DataType::Utf8, false, "dataset they may be asked of"),
            ("rho_per_block", DataType::Float64, false, "zCDP the team may spend in any one day's block, ever"),
            ("rho_per_refill", DataType::Float64, false, "zCDP the team may spend in a refill period, summed over days"),
            ("refill_days", DataType::Int64, false, "days of a refill period"),
            ("spent_rho", DataType::Float64, false, "zCDP spent in this refill period"),
            ("left_rho", DataType::Float64, false, "zCDP left now"),
            ("refilled_at", TIME, false, "when this refill period began, UTC"),
            ("more_at", TIME, false, "when the whole of rho_per_refill is there again, UTC; what is left by then lapses"),
        ],
    },
    Table {
        name: "budget",
        columns: &[
            ("dataset", DataType::Utf8, false, "dataset of the block"),
            ("day", DataType::Date32, false, "UTC day of the block"),
            ("hour", DataType::Int64, true, "UTC hour of the day, where the block is one; NULL for longer ones"),
            ("limit_rho", DataType::Float64, false, "zCDP the block may ever spend"),
            ("spent_rho", DataType::Float64, false, "zCDP spent; never falls"),
            ("left_rho", DataType::Float64, false, "zCDP left"),
            ("releases_spent_rho", DataType::Float64, false, "zCDP that scheduled releases spent of it"),
            ("teams_limit_rho", DataType::Float64, false, "zCDP that questions of all teams together may ever spend of it"),
            ("teams_spent_rho", DataType::Float64, false, "zCDP that they spent"),
            ("teams_left_rho", DataType::Float64, false, "zCDP left for questions"),
            ("limit_epsilon", DataType::Float64, true, "the limit as epsilon at delta"),
            ("spent_epsilon", DataType::Float64, true, "what was spent as epsilon at delta"),
            (
                "left_epsilon",
                DataType::Float64,
                true,
                "what is left as epsilon at delta; epsilons do not add up, so it is not the difference of the two",
            ),
            ("delta", DataType::Float64, true, "delta of the epsilons; NULL if the dataset is no longer defined"),
            (
                "threshold_delta_limit",
                DataType::Float64,
                false,
                "delta that thresholds may ever spend, beside the delta of epsilon",
            ),
            (
                "threshold_delta_spent",
                DataType::Float64,
                false,
                "delta that they spent; the promise is epsilon at the sum of both deltas",
            ),
            ("charges", DataType::Int64, false, "number of charges"),
        ],
    },
    Table {
        name: "charges",
        columns: &[
            ("dataset", DataType::Utf8, false, "dataset of the block"),
            ("day", DataType::Date32, false, "UTC day of the block; a question over several days has a row for each"),
            ("hour", DataType::Int64, true, "UTC hour of the day, where the block is one; NULL for longer ones"),
            ("who", DataType::Utf8, false, "the team that asked, or releases"),
            ("question", DataType::Utf8, false, "what was paid for"),
            ("rho", DataType::Float64, false, "zCDP charged to this day"),
            (
                "epsilon",
                DataType::Float64,
                true,
                "the charge as epsilon at delta; epsilons of charges do not add up, their rho does",
            ),
            ("delta", DataType::Float64, true, "delta of epsilon; NULL if the dataset is no longer defined"),
            (
                "threshold_delta",
                DataType::Float64,
                false,
                "delta charged to this day for a threshold, beside the delta of epsilon",
            ),
            ("charged_at", TIME, false, "when, UTC"),
        ],
    },
    Table {
        name: "columns",
        columns: &[
            ("table_schema", DataType::Utf8, false, "schema of the table"),
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
            ("unit", DataType::Utf8, false, "unit of the released value"),
            ("dimensions", DataType::Utf8, false, "columns it is grouped by, with commas"),
            ("query", DataType::Utf8, false, "what is asked of each day's protected rows"),
            ("groups_per_person", DataType::Int64, false, "one person counts in at most so many groups"),
            ("bounds", DataType::Utf8, false, "what it is made of, and how much of it one person may add to a group"),
            ("rho", DataType::Float64, false, "zCDP one day costs"),
            ("epsilon", DataType::Float64, true, "the cost as epsilon at delta"),
            ("delta", DataType::Float64, true, "delta of epsilon"),
            (
                "threshold_delta",
                DataType::Float64,
                false,
                "delta on top, for groups that are found in the data; 0 where they are listed",
            ),
            ("windows_released", DataType::Int64, false, "windows released so far"),
            ("newest_day", DataType::Date32, true, "newest day released, or day of the newest hour"),
        ],
    },
    Table {
        name: "releases",
        columns: &[
            ("metric", DataType::Utf8, false, "metric"),
            ("day", DataType::Date32, false, "UTC day"),
            ("hour", DataType::Int64, true, "UTC hour of the day, where it is a release of one; NULL for longer ones"),
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
    pub(crate) fn schema(&self) -> SchemaRef {
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

/// Builds a table as of now. `meta.columns` tells of what may be read, the others are the same for everybody.
///
/// # Errors
/// When the metastore cannot be read.
pub(crate) async fn table(table: &Table, shelf: &Shelf, rights: Rights) -> Result<Facts, QueryError> {
    let columns = match table.name {
        "allotments" => allotments(shelf).await?,
        "budget" => budget(&shelf.metastore.budget().await.map_err(|error| unreadable(&error))?, shelf),
        "charges" => charges(&shelf.metastore.budget().await.map_err(|error| unreadable(&error))?, shelf),
        "columns" => all_columns(shelf, rights).await,
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

/// The days of epochs, and their hours, where they are some.
fn day_and_hour(epochs: impl Iterator<Item = EpochId> + Clone) -> [ArrayRef; 2] {
    let hours = epochs.clone().map(|epoch| epoch.hour().map(i64::from));
    [Arc::new(Date32Array::from_iter_values(epochs.map(|epoch| epoch.day().0))), Arc::new(hours.collect::<Int64Array>())]
}

fn time(values: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(TimestampMillisecondArray::from_iter_values(values))
}

fn delta(catalogue: &Catalogue, dataset: &str) -> Option<f64> {
    catalogue.datasets.get(dataset).map(|dataset| dataset.delta)
}

fn budget(blocks: &[BudgetRow], shelf: &Shelf) -> Vec<ArrayRef> {
    let deltas: Vec<Option<f64>> = blocks.iter().map(|row| delta(&shelf.catalogue, &row.block.dataset)).collect();
    let rhos = |of: fn(&BudgetRow) -> NanoRho| float(blocks.iter().map(|row| of(row).rho()));
    let epsilons = |rho: fn(&BudgetRow) -> NanoRho| {
        maybe_float(blocks.iter().zip(&deltas).map(|(row, delta)| delta.map(|delta| shelf.epsilons.of(rho(row), delta))))
    };
    let [day, hour] = day_and_hour(blocks.iter().map(|row| row.block.epoch));
    vec![
        text(blocks.iter().map(|row| &row.block.dataset)),
        day,
        hour,
        rhos(|row| row.limits.total.rho),
        rhos(|row| row.spent.rho),
        rhos(|row| row.left().rho),
        rhos(|row| NanoRho(row.spent.rho.0.saturating_sub(row.teams_spent.0))),
        rhos(|row| row.limits.teams_rho),
        rhos(|row| row.teams_spent),
        rhos(BudgetRow::left_for_teams),
        epsilons(|row| row.limits.total.rho),
        epsilons(|row| row.spent.rho),
        epsilons(|row| row.left().rho),
        maybe_float(deltas.iter().copied()),
        float(blocks.iter().map(|row| row.limits.total.delta.delta())),
        float(blocks.iter().map(|row| row.spent.delta.delta())),
        whole(blocks.iter().map(|row| row.charges.len() as u64)),
    ]
}

fn charges(blocks: &[BudgetRow], shelf: &Shelf) -> Vec<ArrayRef> {
    let rows: Vec<_> = blocks.iter().flat_map(|row| row.charges.iter().map(move |charge| (&row.block, charge))).collect();
    let deltas: Vec<Option<f64>> = rows.iter().map(|(block, _)| delta(&shelf.catalogue, &block.dataset)).collect();
    let epsilons =
        rows.iter().zip(&deltas).map(|((_, charge), delta)| delta.map(|delta| shelf.epsilons.of(charge.cost.rho, delta)));
    let [day, hour] = day_and_hour(rows.iter().map(|(block, _)| block.epoch));
    vec![
        text(rows.iter().map(|(block, _)| &block.dataset)),
        day,
        hour,
        text(rows.iter().map(|(_, charge)| charge.team.as_deref().unwrap_or(RELEASES))),
        text(rows.iter().map(|(_, charge)| &charge.question)),
        float(rows.iter().map(|(_, charge)| charge.cost.rho.rho())),
        maybe_float(epsilons),
        maybe_float(deltas.iter().copied()),
        float(rows.iter().map(|(_, charge)| charge.cost.delta.delta())),
        time(rows.iter().map(|(_, charge)| charge.at_ms)),
    ]
}

async fn allotments(shelf: &Shelf) -> Result<Vec<ArrayRef>, QueryError> {
    let now_ms = shelf.clock.now_ms();
    let mut rows = Vec::new();
    for (dataset, definition) in &shelf.catalogue.datasets {
        for (team, allotment) in definition.allotments() {
            let (from_ms, to_ms) = allotment.period(now_ms);
            let spent = shelf.metastore.team_spent(dataset, team, from_ms, to_ms).await.map_err(|error| unreadable(&error))?;
            rows.push((team, dataset, allotment, spent, from_ms, to_ms));
        }
    }
    rows.sort_by_key(|(team, dataset, ..)| (*team, *dataset));
    Ok(vec![
        text(rows.iter().map(|row| row.0)),
        text(rows.iter().map(|row| row.1)),
        float(rows.iter().map(|row| row.2.rho_per_block.rho())),
        float(rows.iter().map(|row| row.2.rho_per_refill.rho())),
        whole(rows.iter().map(|row| row.2.refill_days.into())),
        float(rows.iter().map(|row| row.3.rho())),
        float(rows.iter().map(|row| NanoRho(row.2.rho_per_refill.0.saturating_sub(row.3.0).max(0)).rho())),
        time(rows.iter().map(|row| row.4)),
        time(rows.iter().map(|row| row.5)),
    ])
}

/// A column of a protected table, whose comment says what may be done with it.
fn protected_column(table: &Protected, field: &Field) -> Field {
    let comment = field.metadata().get(COMMENT).map_or("", String::as_str);
    let told = match table.role(field.name()) {
        Some(Role::Dimension(Some(values))) => format!("{comment}; public, {} values: groups are listed", values.len()),
        Some(Role::Dimension(None)) => format!("{comment}; groups are discovered"),
        Some(Role::Measure(bounds)) => {
            let ([low, high], [least, most]) = (bounds.row, bounds.person);
            format!("{comment}; {low} to {high} in a row, {least} to {most} of a person in a group")
        }
        Some(Role::Day | Role::Hour) => format!("{comment}; public"),
        _ => comment.to_owned(),
    };
    // Text is text, however it is kept.
    let kind = match field.data_type() {
        DataType::Dictionary(_, value) => value.as_ref().clone(),
        kind => kind.clone(),
    };
    column(field.name(), kind, field.is_nullable(), &told)
}

/// A table that may be read.
pub(crate) struct Readable {
    pub(crate) schema: &'static str,
    pub(crate) name: String,
    /// What it holds.
    pub(crate) comment: String,
    pub(crate) columns: SchemaRef,
}

/// All tables of `stats`, `meta`, `integrity`, `billing`, `business` and `private` that may be read, and no other. Whatever tells of tables tells
/// of these.
pub(crate) async fn readable(shelf: &Shelf, rights: Rights) -> Vec<Readable> {
    let mut tables = Vec::new();
    for metric in &shelf.catalogue.metrics {
        if let Ok(defined) = shelf.defined(metric) {
            let comment = format!("{}. {}", metric.title.trim_end_matches('.'), metric.description);
            tables.push(Readable { schema: STATS, name: metric.name.clone(), comment, columns: Arc::clone(&defined.schema) });
        }
    }
    for table in &TABLES {
        tables.push(Readable {
            schema: META,
            name: table.name.to_owned(),
            comment: about(table.name).to_owned(),
            columns: table.schema(),
        });
    }
    for table in &alerts::TABLES {
        let (name, comment) = (table.name.to_owned(), alerts::about(table.name).to_owned());
        tables.push(Readable { schema: INTEGRITY, name, comment, columns: table.schema() });
    }
    for table in bills::TABLES.iter().filter(|_| shelf.bills.is_some()) {
        let (name, comment) = (table.name.to_owned(), bills::ABOUT.to_owned());
        tables.push(Readable { schema: BILLING, name, comment, columns: table.schema() });
    }
    for table in &businesses::TABLES {
        let (name, comment) = (table.name.to_owned(), businesses::ABOUT.to_owned());
        tables.push(Readable { schema: BUSINESS, name, comment, columns: table.schema() });
    }
    if let Some(vault) = shelf.vault.as_ref().filter(|_| rights.allow(PRIVATE)) {
        for name in Vault::datasets(&vault.catalogue) {
            // A file that cannot be read has no columns to tell of; asking it says why.
            if let (Ok(table), Ok((dataset, _))) = (vault.table(name).await, vault.dataset(name)) {
                let fields: Vec<Field> = table.schema.fields().iter().map(|field| protected_column(&table, field)).collect();
                let columns = Arc::new(Schema::new(fields));
                tables.push(Readable { schema: PRIVATE, name: name.clone(), comment: dataset.description.clone(), columns });
            }
        }
    }
    tables.retain(|table| rights.allow(table.schema));
    tables
}

/// What a table of `meta` holds.
fn about(table: &str) -> &'static str {
    match table {
        "allotments" => "what each team may spend of a dataset, and what is left of it",
        "budget" => "what each day's block may ever spend, and what is left of it",
        "charges" => "what was paid for, by whom",
        "columns" => "all tables and columns that may be read, with what they hold",
        "metrics" => "what the released statistics are, and what they cost",
        _ => "what was released, when, and the hash of its file",
    }
}

async fn all_columns(shelf: &Shelf, rights: Rights) -> Vec<ArrayRef> {
    let tables = readable(shelf, rights).await;
    let rows: Vec<(&str, &str, &Field, u64)> = tables
        .iter()
        .flat_map(|table| {
            let columns = table.columns.fields().iter().zip(1..);
            columns.map(move |(field, place)| (table.schema, table.name.as_str(), field.as_ref(), place))
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

async fn metrics(shelf: &Shelf) -> Result<Vec<ArrayRef>, QueryError> {
    let releases = shelf.releases().await?;
    let metrics = &shelf.catalogue.metrics;
    let of = |metric: &Metric| {
        releases.iter().filter(|record| record.metric == metric.name).map(|record| record.epoch.day().0).collect::<Vec<_>>()
    };
    let days: Vec<Vec<i32>> = metrics.iter().map(of).collect();
    let defined = metrics.iter().map(|metric| shelf.defined(metric)).collect::<Result<Vec<_>, _>>()?;
    let deltas: Vec<Option<f64>> = metrics.iter().map(|metric| delta(&shelf.catalogue, &metric.dataset)).collect();
    Ok(vec![
        text(metrics.iter().map(|metric| &metric.name)),
        text(metrics.iter().map(|metric| &metric.title)),
        text(metrics.iter().map(|metric| &metric.description)),
        text(metrics.iter().map(|metric| &metric.dataset)),
        text(metrics.iter().map(|metric| &metric.unit)),
        text(defined.iter().map(|defined| defined.keys.join(", "))),
        text(metrics.iter().map(|metric| &metric.query)),
        whole(defined.iter().map(|defined| defined.groups_per_person.into())),
        text(defined.iter().map(|defined| defined.parts.join("; "))),
        float(metrics.iter().map(|metric| metric.rho.rho())),
        maybe_float(metrics.iter().zip(&deltas).map(|(metric, delta)| delta.map(|delta| shelf.epsilons.of(metric.rho, delta)))),
        maybe_float(deltas.iter().copied()),
        float(metrics.iter().map(|metric| metric.threshold_delta)),
        whole(days.iter().map(|days| days.len() as u64)),
        Arc::new(days.iter().map(|days| days.iter().max().copied()).collect::<Date32Array>()),
    ])
}

async fn releases(shelf: &Shelf) -> Result<Vec<ArrayRef>, QueryError> {
    let records = shelf.releases().await?;
    let [day, hour] = day_and_hour(records.iter().map(|record| record.epoch));
    Ok(vec![
        text(records.iter().map(|record| &record.metric)),
        day,
        hour,
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

impl Facts {
    /// Rows of this schema.
    pub(crate) const fn of(schema: SchemaRef, rows: RecordBatch) -> Self {
        Self { schema, rows }
    }
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
