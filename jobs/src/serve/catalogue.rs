//! `GET /v1/metrics`: what is released, of whom, within which bounds, and what it costs, as this house's catalogue has it.

use std::collections::HashMap;

use arrow::array::{Array as _, AsArray as _};
use arrow::datatypes::{Date32Type, Float64Type, Int64Type};
use axum::Extension;
use axum::extract::State;
use serde_json::{Value, json};
use starling_query::{Answer as Rows, QueryError};
use starling_schemas::ids::EpochId;

use super::Door;
use super::told::{Answer, Refused, json_of};
use super::way_in::Caller;

/// Columns of every released table that say nothing of how large something is.
const BESIDE: [&str; 4] = ["day", "status", "epsilon", "delta"];

/// Asked of the gate like everything else, as whoever asks.
pub(super) async fn metrics(State(door): State<Door>, Extension(caller): Extension<Caller>) -> Answer {
    let ask = async |sql: &str| -> Result<Rows, QueryError> { door.engine.query_as(&caller.who, sql).await };
    let metrics =
        ask("SELECT name, title, description, dataset, unit, dimensions, query, bounds, rho, epsilon, delta, threshold_delta, \
         groups_per_person, windows_released, newest_day FROM meta.metrics")
        .await?;
    let columns = ask(
        "SELECT table_name, column_name, comment FROM meta.columns WHERE table_schema = 'stats' ORDER BY table_name, ordinal_position",
    )
    .await?;
    let mut of_table: HashMap<&str, Vec<(&str, &str)>> = HashMap::new();
    for batch in &columns.batches {
        let text = |at: usize| batch.column(at).as_string::<i32>();
        for ((table, column), comment) in text(0).iter().zip(text(1)).zip(text(2)) {
            let (Some(table), Some(column)) = (table, column) else { continue };
            of_table.entry(table).or_default().push((column, comment.unwrap_or_default()));
        }
    }
    let mut told = Vec::new();
    for batch in &metrics.batches {
        for row in 0..batch.num_rows() {
            told.push(
                one(&door, batch, row, &of_table)
                    .ok_or_else(|| Refused::new("XX000", "a metric cannot be told", "report this"))?,
            );
        }
    }
    json_of(&json!({ "metrics": told }))
}

fn one(door: &Door, batch: &arrow::array::RecordBatch, row: usize, of_table: &HashMap<&str, Vec<(&str, &str)>>) -> Option<Value> {
    let text = |name: &str| Some(batch.column_by_name(name)?.as_string_opt::<i32>()?.value(row));
    let real = |name: &str| {
        let column = batch.column_by_name(name)?.as_primitive_opt::<Float64Type>()?;
        Some(column.is_valid(row).then(|| column.value(row)))
    };
    let whole = |name: &str| Some(batch.column_by_name(name)?.as_primitive_opt::<Int64Type>()?.value(row));
    let newest = batch.column_by_name("newest_day")?.as_primitive_opt::<Date32Type>()?;
    let newest = newest.is_valid(row).then(|| EpochId(newest.value(row)).to_string());
    let (name, unit, dataset) = (text("name")?, text("unit")?, text("dataset")?);
    let dimensions: Vec<&str> = text("dimensions")?.split(", ").filter(|name| !name.is_empty()).collect();
    let bounds: Vec<&str> = text("bounds")?.split("; ").filter(|part| !part.is_empty()).collect();
    let columns = of_table.get(name).map(Vec::as_slice).unwrap_or_default();
    let values = columns.iter().filter(|(column, _)| !BESIDE.contains(column) && !dimensions.contains(column));
    let values: Vec<Value> =
        values.map(|(column, comment)| json!({ "column": column, "meaning": comment, "unit": unit })).collect();
    let span = door.home.catalogue.datasets.get(dataset).map_or("day", |dataset| dataset.window.name());
    Some(json!({
        "name": name, "title": text("title")?, "description": text("description")?, "dataset": dataset, "span": span,
        "sql": text("query")?, "dimensions": dimensions, "values": values, "unit": unit, "bounds": bounds,
        "rho": real("rho")?, "epsilon": real("epsilon")?, "delta": real("delta")?, "threshold_delta": real("threshold_delta")?,
        "groups_per_person": whole("groups_per_person")?, "windows_released": whole("windows_released")?, "newest_day": newest,
    }))
}
