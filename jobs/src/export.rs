//! `starling metrics export`: what dbt and MetricFlow need to know of the released statistics, made from the same text as they are.
//!
//! ```text
//!  schemas/metrics/NAME.toml ─► starling_query::tables ─► dbt: sources, with what each column means, and tests
//!                                                   └───► metricflow: a model over each, semantic models, metrics
//! ```
//!
//! **What a semantic layer does with numbers** is add them up as it is told to, over whatever is not asked for. So only what is a number of what it
//! is called may be a sum ([`AddsUp`]). Events add up, and so do the variances of their noise, of which the root is the standard deviation of the
//! sum. People who are in one group each add up over groups and never over days: of several days it is the last one that counts. Everything
//! else (people who may be in several groups, means, quantiles) is the largest of what is asked for, and is called so; it has no
//! interval, since the largest of the ends are not the ends of the largest.
//!
//! **What is missing in a sum.** Suppressed groups have no value and add nothing; how many there are is a metric of its own. Of
//! groups that are found in the data, those that are suppressed are not there at all, and nobody can say how many they are: there
//! is no such metric then.
//!
//! **At the PostgreSQL door**, where nothing can be made, a profile whose schema is `stats` lets each model be the table it selects from: `dbt
//! parse`, `dbt test` and `mf query` then read released statistics, and `dbt run` has nothing to do there. In a warehouse that holds a copy of
//! them (the Delta tables of `[releases] delta`) `dbt run` makes views over it. dbt has to be 1.10.5 or newer: older ones do not
//! know `arguments`, which hold the values that `accepted_values` takes.

mod metricflow;

use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;
use starling_query::{AddsUp, MetricTable};
use starling_schemas::metrics::Metric;

use crate::config::Config;

/// For whom it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Tool {
    /// Sources of a dbt project.
    Dbt,
    /// Semantic models and metrics of a dbt project.
    Metricflow,
}

/// Name of the source, and of the schema that its tables are in.
const SOURCE: &str = "stats";

/// What is true of each number, whatever it counts.
const NOISE: &str = "Values are differentially private: noise was added once, low and high are its 95 % interval, and what is suppressed is NULL, \
which is not zero.";

#[derive(Serialize)]
struct Sources<'a> {
    version: u8,
    sources: [Source<'a>; 1],
}

#[derive(Serialize)]
struct Source<'a> {
    name: &'a str,
    schema: &'a str,
    description: String,
    tables: Vec<Table<'a>>,
}

#[derive(Serialize)]
struct Table<'a> {
    name: &'a str,
    description: String,
    config: Settings<'a>,
    columns: Vec<Column<'a>>,
}

#[derive(Serialize)]
struct Settings<'a> {
    meta: Meta<'a>,
}

#[derive(Serialize)]
struct Meta<'a> {
    unit: &'a str,
    dataset: &'a str,
    adds_up: &'a str,
}

#[derive(Serialize)]
struct Column<'a> {
    name: &'a str,
    description: &'a str,
    data_type: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    data_tests: Vec<Test>,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Test {
    NotNull,
    AcceptedValues { arguments: Accepted },
}

#[derive(Serialize)]
struct Accepted {
    values: [&'static str; 2],
}

/// Shows the file of a tool, or writes all its files into a folder.
///
/// # Errors
/// When a metric cannot be planned, or a file cannot be written.
pub async fn run(config: &Config, tool: Tool, folder: Option<&Path>) -> anyhow::Result<()> {
    let files = files(config, tool).await?;
    let Some(folder) = folder else {
        let first = files.first().map_or("", |(_, text)| text);
        std::io::stdout().lock().write_all(first.as_bytes())?;
        return Ok(());
    };
    std::fs::create_dir_all(folder).with_context(|| format!("{}: cannot be made", folder.display()))?;
    for (name, text) in &files {
        let path = folder.join(name);
        std::fs::write(&path, text).with_context(|| format!("{}: cannot be written", path.display()))?;
    }
    println!("{} files are in {}", files.len(), folder.display());
    Ok(())
}

/// Name and text of each file, the one that is shown first.
async fn files(config: &Config, tool: Tool) -> anyhow::Result<Vec<(String, String)>> {
    let catalogue = config.definitions()?;
    let tables = starling_query::tables(&catalogue).await?;
    let both: Vec<(&Metric, &MetricTable)> = catalogue.metrics.iter().zip(&tables).collect();
    let sources = ("starling_sources.yml".to_owned(), yaml(&sources(&both))?);
    Ok(match tool {
        Tool::Dbt => vec![sources],
        Tool::Metricflow => {
            let mut files = metricflow::files(&both)?;
            files.push(sources);
            files
        }
    })
}

fn yaml<T: Serialize>(value: &T) -> anyhow::Result<String> {
    let text = serde_saphyr::to_string(value)?;
    Ok(format!("# Written by `starling metrics export`: change the metrics, not this file.\n{text}"))
}

fn sources<'a>(both: &[(&'a Metric, &'a MetricTable)]) -> Sources<'a> {
    let tables = both.iter().map(|(metric, table)| Table {
        name: &table.name,
        description: format!("{}. {} {NOISE}", metric.title, metric.description),
        config: Settings { meta: Meta { unit: &metric.unit, dataset: &metric.dataset, adds_up: adds_up(table.adds_up) } },
        columns: table
            .columns
            .iter()
            .map(|column| Column {
                name: &column.name,
                description: &column.comment,
                data_type: column.kind,
                data_tests: tests(&column.name, column.nullable),
            })
            .collect(),
    });
    Sources {
        version: 2,
        sources: [Source {
            name: SOURCE,
            schema: SOURCE,
            description: format!("Released statistics of Starling: each window of each metric once, and never changed. {NOISE}"),
            tables: tables.collect(),
        }],
    }
}

fn adds_up(how: AddsUp) -> &'static str {
    match how {
        AddsUp::Everywhere => "over groups and windows",
        AddsUp::WithinWindow => "over the groups of one window",
        AddsUp::Nowhere => "no",
    }
}

fn tests(column: &str, nullable: bool) -> Vec<Test> {
    match column {
        "status" => {
            vec![Test::NotNull, Test::AcceptedValues { arguments: Accepted { values: ["released", "suppressed"] } }]
        }
        _ if nullable => Vec::new(),
        _ => vec![Test::NotNull],
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    async fn read(tool: Tool, hours: bool) -> Value {
        let config = Config::load(None, &[("window.hours", hours.to_string())]).expect("defaults");
        let files = files(&config, tool).await.expect("files");
        crate::deployed::yaml(&files[0].1).remove(0)
    }

    fn named<'a>(list: &'a Value, name: &str) -> &'a Value {
        list.as_array().expect("a list").iter().find(|entry| entry["name"] == name).unwrap_or_else(|| panic!("{name}"))
    }

    #[tokio::test]
    async fn sources_are_the_tables_with_what_their_columns_mean() {
        let tables = read(Tool::Dbt, true).await["sources"][0]["tables"].clone();
        let columns = &named(&tables, "people_served_hourly")["columns"];
        let (day, value) = (named(columns, "day"), named(columns, "value"));
        assert_eq!((&day["data_type"], &day["data_tests"][0]), (&"date".into(), &"not_null".into()));
        assert_eq!((&value["data_type"], value.get("data_tests")), (&"double precision".into(), None));
        assert!(value["description"].as_str().is_some_and(|text| text.contains("with noise")), "{value}");
        assert!(
            named(&tables, "messages_daily")["description"].as_str().is_some_and(|text| text.contains("differentially private"))
        );
        let without = read(Tool::Dbt, false).await["sources"][0]["tables"].clone();
        assert!(!without.to_string().contains("people_served_hourly"), "hours are not kept, so nobody is told of them");
    }

    #[tokio::test]
    async fn people_are_never_added_up_over_days_and_what_does_not_add_up_is_no_sum() {
        let all = read(Tool::Metricflow, true).await;
        let measure = |model: &str, name: &str| {
            let measures = named(&all["semantic_models"], model)["measures"].clone();
            let found = named(&measures, &format!("{model}_{name}")).clone();
            (found["agg"].as_str().expect("text").to_owned(), found["non_additive_dimension"]["name"].clone())
        };
        for (model, agg, only_one_day) in [
            ("messages_daily", "sum", false),
            ("senders_daily", "sum", true),
            ("people_served_weekly", "sum", true),
            ("people_served_hourly", "max", false),
            ("people_served_daily", "max", false),
            ("call_length_daily", "max", false),
        ] {
            let expected = if only_one_day { Value::from("utc_day") } else { Value::Null };
            assert_eq!(measure(model, "value"), (agg.to_owned(), expected), "{model}");
        }
        let metrics = &all["metrics"];
        assert_eq!(named(metrics, "messages_daily_stddev")["type"], "derived");
        assert!(
            !metrics.as_array().expect("a list").iter().any(|m| m["name"] == "people_served_daily"),
            "it is called the largest"
        );
        assert_eq!(named(metrics, "max_people_served_daily")["type"], "simple");
        let is_there = |name: &str| metrics.as_array().expect("a list").iter().any(|metric| metric["name"] == name);
        assert!(!is_there("max_people_served_daily_low"), "the largest of the ends are not the ends of the largest");
        assert!(is_there("senders_daily_suppressed") && is_there("max_people_served_daily_suppressed"));
        // Its groups are found in the data: of those that are suppressed nothing is known.
        assert!(!metrics.to_string().contains("versions_daily_suppressed"));
        assert!(!named(&all["semantic_models"], "versions_daily")["measures"].to_string().contains("suppressed"));
    }

    #[tokio::test]
    async fn what_is_written_for_one_metric_is_looked_at() {
        let config = Config::load(None, &[]).expect("defaults");
        let metric = |name: &str| {
            let mut catalogue = config.definitions().expect("reviewed");
            catalogue.metrics.retain(|metric| metric.name == name);
            catalogue
        };
        let mut text = String::new();
        for name in ["senders_daily", "call_length_daily"] {
            let catalogue = metric(name);
            let tables = starling_query::tables(&catalogue).await.expect("plans");
            let both: Vec<(&Metric, &MetricTable)> = catalogue.metrics.iter().zip(&tables).collect();
            text += &yaml(&sources(&both)).expect("YAML");
            metricflow::files(&both).expect("files").iter().for_each(|(file, body)| text += &format!("--- {file}\n{body}"));
        }
        crate::snapshots().bind(|| insta::assert_snapshot!("export", text));
    }
}
