//! What the demo shows: released numbers beside the true ones, alerts beside the planted abusers. Only a demo can: it made the truth.

use std::fmt::Write as _;

use arrow::array::{Array as _, AsArray as _};
use arrow::datatypes::Float64Type;
use starling_integrity::Alert;

use crate::home::Home;
use crate::simulate::Truth;
use crate::summary::grouped;

/// Rows shown of each table.
const SHOWN: usize = 6;

/// Metrics whose true values the simulator tells.
const TRUTH_OF: &[&str] = &["people_served_daily", "messages_daily", "call_minutes_daily"];

/// One released cell.
struct Cell {
    labels: Vec<String>,
    value: Option<f64>,
    /// Ends of the interval, where it has one.
    low: Option<f64>,
    high: Option<f64>,
}

/// The released tables, largest cells first, with 95 % intervals, beside the truth.
///
/// # Errors
/// When SQL cannot answer.
pub async fn statistics(home: &Home, truth: &Truth) -> anyhow::Result<String> {
    let engine =
        starling_query::Engine::open(home.metastore.clone(), home.files.clone(), home.catalogue.clone(), home.clock.clone())
            .await?;
    let releases = home.metastore.releases().await?;
    let mut out = String::new();
    let (mut inside, mut released) = (0_u64, 0_u64);
    let mut others = String::new();
    for metric in &home.catalogue.metrics {
        let Some(release) = crate::demo::of_metric(&releases, &metric.name) else { continue };
        let dimensions = dimensions(&engine, &metric.name).await?;
        let cells = read(&engine, &metric.name, &dimensions).await?;
        if !TRUTH_OF.contains(&metric.name.as_str()) {
            let largest = cells.first().map_or("every group is too small".to_owned(), |cell| {
                let value = cell.value.map_or(String::new(), number);
                let interval = cell
                    .low
                    .zip(cell.high)
                    .map_or(String::new(), |(low, high)| format!(" ({} to {})", number(low), number(high)));
                format!("{} {value} {}{interval}", cell.labels.join(" "), metric.unit)
            });
            let shown = format!("{} of {}", grouped(release.rows - release.suppressed), grouped(release.rows));
            let _ = writeln!(others, "  stats.{:<30} {shown:>12}   {largest}", metric.name);
            continue;
        }
        let _ = writeln!(
            out,
            "\nstats.{}: {} by {} (epsilon {:.2} at delta {:e}; {} of {} groups are too small and suppressed)",
            metric.name,
            metric.title.to_lowercase(),
            dimensions.join(" and "),
            release.epsilon,
            release.delta,
            grouped(release.suppressed),
            grouped(release.rows)
        );
        let _ = writeln!(out, "  {:<24} {:>10}   {:<25} {:>10}", "", "released", "95 % interval", "truth");
        for (i, cell) in cells.iter().enumerate() {
            let (Some(value), Some(low), Some(high)) = (cell.value, cell.low, cell.high) else { continue };
            let exact = exact(truth, &metric.name, &cell.labels);
            released += 1;
            inside += u64::from((low..=high).contains(&exact));
            if i < SHOWN {
                let interval = format!("{low:.0} to {high:.0}");
                let _ = writeln!(out, "  {:<24} {value:>10.0}   {interval:<25} {exact:>10.0}", cell.labels.join(" "));
            }
        }
    }
    let _ = writeln!(
        out,
        "\n  {inside} of {released} released cells hold the truth in their interval. Where they do not, the bounds cut the busiest people (see meta.metrics)."
    );
    let _ = writeln!(
        out,
        "\nThe other metrics: groups released of all, and the largest value (`starling metrics list` says what they are)\n{}",
        others.trim_end()
    );
    Ok(out)
}

/// The columns a metric is grouped by.
async fn dimensions(engine: &starling_query::Engine, metric: &str) -> anyhow::Result<Vec<String>> {
    let answer = engine.query(&format!("SELECT dimensions FROM meta.metrics WHERE name = '{metric}'")).await?;
    let list = answer.batches.first().map(|batch| text(batch.column(0), 0)).unwrap_or_default();
    Ok(list.split(", ").filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

async fn read(engine: &starling_query::Engine, metric: &str, dimensions: &[String]) -> anyhow::Result<Vec<Cell>> {
    let labels: String = dimensions.iter().map(|d| format!(", CAST({d} AS VARCHAR)")).collect();
    let sql = format!("SELECT value, low, high{labels} FROM stats.{metric} WHERE status = 'released' ORDER BY value DESC");
    let answer = engine.query(&sql).await?;
    let mut cells = Vec::new();
    for batch in &answer.batches {
        let number = |i: usize, row: usize| {
            let column = batch.column(i).as_primitive::<Float64Type>();
            column.is_valid(row).then(|| column.value(row))
        };
        for row in 0..batch.num_rows() {
            let labels = (3..batch.num_columns()).map(|i| text(batch.column(i), row)).collect();
            cells.push(Cell { labels, value: number(0, row), low: number(1, row), high: number(2, row) });
        }
    }
    Ok(cells)
}

/// With as many digits as can be read.
fn number(value: f64) -> String {
    if value.abs() < 10.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}

fn text(column: &arrow::array::ArrayRef, row: usize) -> String {
    column
        .as_string_opt::<i32>()
        .map(|c| c.value(row))
        .or_else(|| column.as_string_view_opt().map(|c| c.value(row)))
        .unwrap_or_default()
        .to_owned()
}

/// The true value of a cell, unbounded and without noise.
fn exact(truth: &Truth, metric: &str, labels: &[String]) -> f64 {
    let Some(day) = truth.days.first() else { return 0.0 };
    let label = |i: usize| labels.get(i).map_or("", String::as_str);
    let found = match metric {
        "people_served_daily" => {
            day.people_served.iter().find(|c| c.country == label(0) && c.platform == label(1)).map(|c| c.people as f64)
        }
        "messages_daily" => {
            day.messages.iter().find(|c| c.country == label(0) && c.conversation_kind == label(1)).map(|c| c.messages as f64)
        }
        _ => day.call_seconds.iter().find(|c| c.country == label(0)).map(|c| c.seconds as f64 / 60.0),
    };
    found.unwrap_or(0.0)
}

/// Alerts against planted abusers.
#[must_use]
pub fn alerts(truth: &Truth, found: &[(Alert, Option<usize>)]) -> String {
    let mut out = String::from("\nAlerts against planted abusers\n");
    for (i, planted) in truth.abusers.iter().enumerate() {
        let expected = planted.expected_rule.as_deref().unwrap_or("-");
        match found.iter().find(|(alert, of)| *of == Some(i) && alert.rule == expected) {
            Some((alert, _)) => {
                let _ = writeln!(out, "  found    {:<20} {:<8} {}", expected, alert.severity, alert.explanation);
            }
            None => {
                let _ = writeln!(out, "  MISSED   {expected:<20} {} of {}", planted.subject_kind, planted.count);
            }
        }
    }
    for (alert, of) in found {
        let meant =
            of.is_some_and(|i| truth.abusers.get(i).and_then(|p| p.expected_rule.as_deref()) == Some(alert.rule.as_str()));
        if !meant {
            let _ = writeln!(out, "  FALSE    {:<20} {:<8} {}", alert.rule, alert.severity, alert.explanation);
        }
    }
    let hits = truth
        .abusers
        .iter()
        .enumerate()
        .filter(|(i, p)| found.iter().any(|(a, of)| *of == Some(*i) && Some(&a.rule) == p.expected_rule.as_ref()))
        .count();
    let _ = writeln!(
        out,
        "  {hits} of {} found, {} heavy but harmless senders and groups were in the traffic",
        truth.abusers.len(),
        truth.harmless.len()
    );
    out
}
