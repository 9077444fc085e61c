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

/// One released cell.
struct Cell {
    labels: Vec<String>,
    value: Option<f64>,
    low: f64,
    high: f64,
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
    for metric in &home.catalogue.metrics {
        let dimensions: Vec<_> = metric.dimensions.iter().map(|d| d.name()).collect();
        let Some(release) = crate::demo::of_metric(&releases, &metric.name) else { continue };
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
        let cells = read(&engine, &metric.name, &dimensions).await?;
        let _ = writeln!(out, "  {:<24} {:>10}   {:<25} {:>10}", "", "released", "95 % interval", "truth");
        for (i, cell) in cells.iter().enumerate() {
            let Some(value) = cell.value else { continue };
            let exact = exact(truth, &metric.name, &cell.labels);
            released += 1;
            inside += u64::from((cell.low..=cell.high).contains(&exact));
            if i < SHOWN {
                let interval = format!("{:.0} to {:.0}", cell.low, cell.high);
                let _ = writeln!(out, "  {:<24} {value:>10.0}   {interval:<25} {exact:>10.0}", cell.labels.join(" "));
            }
        }
    }
    let _ = writeln!(
        out,
        "\n  {inside} of {released} released cells hold the truth in their interval. Where they do not, the bounds cut the busiest people (see meta.metrics)."
    );
    Ok(out)
}

async fn read(engine: &starling_query::Engine, metric: &str, dimensions: &[&str]) -> anyhow::Result<Vec<Cell>> {
    let labels = dimensions.iter().map(|d| format!("CAST({d} AS VARCHAR)")).collect::<Vec<_>>().join(", ");
    let sql = format!("SELECT value, low, high, {labels} FROM stats.{metric} WHERE status = 'released' ORDER BY value DESC");
    let answer = engine.query(&sql).await?;
    let mut cells = Vec::new();
    for batch in &answer.batches {
        let number = |i: usize| batch.column(i).as_primitive::<Float64Type>();
        for row in 0..batch.num_rows() {
            let labels = (3..batch.num_columns()).map(|i| text(batch.column(i), row)).collect();
            let value = number(0).is_valid(row).then(|| number(0).value(row));
            cells.push(Cell { labels, value, low: number(1).value(row), high: number(2).value(row) });
        }
    }
    Ok(cells)
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
