//! Released tables as other tools are told of them: columns, and which numbers may be added to which.

use arrow::datatypes::Schema;
use starling_privacy::question::Aggregate;
use starling_schemas::ids::Span;
use starling_schemas::metrics::{Catalogue, Metric};
use starling_schemas::rows::COMMENT;

use super::price::imagined;
use super::{Planner, wrong};
use crate::error::QueryError;
use crate::system::{type_of, type_shown};
use crate::written;

/// The unit of metrics that count people.
const PEOPLE: &str = "people";

/// Whether the values of a released table may be added to one another.
///
/// # Privacy
/// Adding released values is free whatever they are. This says whether the sum is a number of what it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddsUp {
    /// Over groups and windows: something was counted or summed, of each row once.
    Everywhere,
    /// Over the groups of one window only: people, each of whom is in one group and may be there again tomorrow.
    WithinWindow,
    /// Not at all: people who may be in several groups, means, shares, quantiles.
    Nowhere,
}

/// A column of a released table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricColumn {
    /// Name.
    pub name: String,
    /// Its type, as PostgreSQL calls it.
    pub kind: &'static str,
    /// Whether it may be NULL.
    pub nullable: bool,
    /// What it holds.
    pub comment: String,
}

/// `stats.<name>`, told from its metric's text alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricTable {
    /// Name under `stats`.
    pub name: String,
    /// How long its windows are.
    pub window: Span,
    /// In the order of the table.
    pub columns: Vec<MetricColumn>,
    /// The columns it is grouped by, beside the window.
    pub keys: Vec<String>,
    /// Whether its values add up.
    pub adds_up: AddsUp,
    /// Whether its groups are listed, so that one that is suppressed has a row. Of groups that are found in the data only those
    /// that are released have one.
    pub listed: bool,
}

/// The released tables of a catalogue, in order.
///
/// # Errors
/// What of a metric's query cannot be released, and what to write instead.
pub async fn tables(catalogue: &Catalogue) -> Result<Vec<MetricTable>, QueryError> {
    let planner = Planner::over(catalogue)?;
    let mut out = Vec::with_capacity(catalogue.metrics.len());
    for metric in &catalogue.metrics {
        out.push(table(&planner, catalogue, metric).await?);
    }
    Ok(out)
}

async fn table(planner: &Planner, catalogue: &Catalogue, metric: &Metric) -> Result<MetricTable, QueryError> {
    let dataset = catalogue.datasets.get(&metric.dataset);
    let dataset = dataset.ok_or_else(|| wrong("its dataset is not there", "name one of datasets.toml"))?;
    let planned = planner.plan(metric).await?;
    let schema = written::schema(metric, &planned.keys, &planned.leaf);
    let spec = &planned.leaf.spec;
    // However they are counted: who was counted today may be there tomorrow. The unit says it where the query does not, as in a
    // sum of flags.
    let people = spec.aggregates == [Aggregate::PEOPLE] || metric.unit == PEOPLE;
    let alone = spec.keys == 0 || spec.groups_per_person == 1;
    Ok(MetricTable {
        name: metric.name.clone(),
        window: dataset.window,
        columns: columns(&schema),
        keys: planned.keys.iter().map(|key| key.name.clone()).collect(),
        adds_up: match is_proportional(planner, catalogue, metric).await? {
            false => AddsUp::Nowhere,
            true if !people => AddsUp::Everywhere,
            true if alone => AddsUp::WithinWindow,
            true => AddsUp::Nowhere,
        },
        listed: spec.keys == 0 || metric.threshold_delta <= 0.0,
    })
}

fn columns(schema: &Schema) -> Vec<MetricColumn> {
    let column = |field: &arrow::datatypes::FieldRef| MetricColumn {
        name: field.name().clone(),
        kind: type_shown(type_of(field.data_type()).0),
        nullable: field.is_nullable(),
        comment: field.metadata().get(COMMENT).cloned().unwrap_or_default(),
    };
    schema.fields().iter().map(column).collect()
}

/// Whether a value is one noisy sum, or so many times that: then values of several groups add up as the sums below them do. Found by trying, as
/// what stands above a sum may be written in many ways.
async fn is_proportional(planner: &Planner, catalogue: &Catalogue, metric: &Metric) -> Result<bool, QueryError> {
    let mut values = Vec::new();
    for number in [1_000_000, 3_000_000, 4_000_000] {
        let measured = super::price::measured(planner, catalogue, metric).await?;
        if !matches!(measured.priced.leaf.spec.aggregates.as_slice(), [Aggregate::Sum { .. }]) {
            return Ok(false);
        }
        let Some(value) = imagined(planner, measured, |_| number).await?.and_then(|row| row.value) else { return Ok(false) };
        values.push(value);
    }
    let [one, three, four] = values.as_slice() else { return Ok(false) };
    let near = |a: f64, b: f64| (a - b).abs() <= 1e-9 * one.abs();
    Ok(*one > 0.0 && near(*three, 3.0 * one) && near(*four, 4.0 * one))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn of(query: &str, groups_per_person: Option<u32>) -> AddsUp {
        of_unit("events", query, groups_per_person).await
    }

    async fn of_unit(unit: &str, query: &str, groups_per_person: Option<u32>) -> AddsUp {
        let mut catalogue = Catalogue::builtin().expect("reviewed");
        catalogue.metrics.truncate(1);
        let metric = catalogue.metrics.first_mut().expect("one");
        (metric.query, metric.groups_per_person, metric.dataset) = (query.to_owned(), groups_per_person, "person_day".to_owned());
        metric.unit = unit.to_owned();
        tables(&catalogue).await.expect("plans").first().expect("one").adds_up
    }

    #[tokio::test]
    async fn what_adds_up_is_told_from_what_does_not() {
        let by = |value: &str| format!("SELECT country, {value} AS value FROM private.person_day GROUP BY country");
        let sum = "SUM(dp_clip(events, 0, 5))";
        for (value, groups, expected) in [
            (sum, 3, AddsUp::Everywhere),
            ("SUM(dp_clip(seconds, 0, 7200)) / 60.0", 1, AddsUp::Everywhere),
            ("CAST(SUM(dp_clip(events, 0, 5)) AS DOUBLE) * 2", 1, AddsUp::Everywhere),
            ("COUNT(*)", 2, AddsUp::Everywhere),
            ("COUNT(DISTINCT person)", 1, AddsUp::WithinWindow),
            ("COUNT(DISTINCT person)", 2, AddsUp::Nowhere),
            ("COUNT(DISTINCT person) + 1", 1, AddsUp::Nowhere),
            ("CAST(SUM(dp_clip(events, 0, 5)) AS DOUBLE) / CAST(COUNT(DISTINCT person) AS DOUBLE)", 1, AddsUp::Nowhere),
            ("MEDIAN(events)", 1, AddsUp::Nowhere),
        ] {
            assert_eq!(of(&by(value), Some(groups)).await, expected, "{value}, {groups}");
        }
        assert_eq!(of("SELECT COUNT(DISTINCT person) AS value FROM private.person_day", None).await, AddsUp::WithinWindow);
        // What is called people is people, in whatever way it is counted.
        for (value, groups, expected) in [
            ("SUM(dp_clip(events, 0, 1))", 1, AddsUp::WithinWindow),
            ("COUNT(*)", 1, AddsUp::WithinWindow),
            ("COUNT(*)", 2, AddsUp::Nowhere),
        ] {
            assert_eq!(of_unit(PEOPLE, &by(value), Some(groups)).await, expected, "{value}, {groups}");
        }
    }

    #[tokio::test]
    async fn every_released_table_is_told_with_its_columns() {
        let catalogue = Catalogue::builtin().expect("reviewed");
        let tables = tables(&catalogue).await.expect("plans");
        assert_eq!(tables.len(), catalogue.metrics.len());
        for table in &tables {
            let names: Vec<&str> = table.columns.iter().map(|column| column.name.as_str()).collect();
            assert_eq!(names.first(), Some(&"day"), "{}", table.name);
            assert_eq!(names.contains(&"hour"), table.window == Span::Hour, "{}", table.name);
            assert!(table.keys.iter().all(|key| names.contains(&key.as_str())), "{}", table.name);
            assert!(table.columns.iter().all(|column| !column.comment.is_empty() && column.kind != "???"), "{table:?}");
        }
        let mut of_people = 0;
        for (metric, table) in catalogue.metrics.iter().zip(&tables).filter(|(metric, _)| metric.unit == PEOPLE) {
            assert_ne!(table.adds_up, AddsUp::Everywhere, "{}: people are never added up over days", metric.name);
            of_people += 1;
        }
        assert!(of_people > 10, "{of_people}");
        let mut found: Vec<&str> = tables.iter().filter(|table| !table.listed).map(|table| table.name.as_str()).collect();
        found.sort_unstable();
        assert_eq!(found, ["crashes_by_version_daily", "versions_daily"]);
        let how = |name: &str| tables.iter().find(|table| table.name == name).expect(name).adds_up;
        for (name, expected) in [
            ("messages_daily", AddsUp::Everywhere),
            ("call_minutes_daily", AddsUp::Everywhere),
            ("senders_daily", AddsUp::WithinWindow),
            ("people_served_weekly", AddsUp::WithinWindow),
            ("people_served_daily", AddsUp::Nowhere),
            ("callers_daily", AddsUp::Nowhere),
            ("call_length_daily", AddsUp::Nowhere),
            ("call_seconds_per_caller_daily", AddsUp::Nowhere),
        ] {
            assert_eq!(how(name), expected, "{name}");
        }
    }
}
