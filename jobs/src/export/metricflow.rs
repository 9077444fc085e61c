//! Semantic models and metrics, and the models they stand on.

use serde::Serialize;
use starling_query::{AddsUp, MetricTable};
use starling_schemas::ids::Span;
use starling_schemas::metrics::Metric;

use super::{NOISE, SOURCE, yaml};

/// Name of the model with one row a day, which MetricFlow wants where it fills gaps.
const DAYS: &str = "starling_days";

#[derive(Serialize)]
struct Semantics {
    version: u8,
    semantic_models: Vec<SemanticModel>,
    metrics: Vec<MetricFlow>,
}

#[derive(Serialize)]
struct SemanticModel {
    name: String,
    label: String,
    description: String,
    model: String,
    defaults: Defaults,
    primary_entity: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    entities: Vec<Entity>,
    dimensions: Vec<Dimension>,
    measures: Vec<Measure>,
}

#[derive(Serialize)]
struct Defaults {
    agg_time_dimension: &'static str,
}

/// What several tables are grouped by has one name in all of them, so that one question can be asked of all of them, and a table of one's own
/// (of countries and their continents) can be joined.
#[derive(Serialize)]
struct Entity {
    name: String,
    description: String,
    #[serde(rename = "type")]
    kind: &'static str,
}

#[derive(Serialize)]
struct Dimension {
    name: &'static str,
    expr: &'static str,
    description: String,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    type_params: Option<Granularity>,
}

#[derive(Serialize)]
struct Granularity {
    time_granularity: &'static str,
}

#[derive(Serialize)]
struct Measure {
    name: String,
    description: String,
    agg: &'static str,
    expr: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    non_additive_dimension: Option<NonAdditive>,
}

#[derive(Serialize)]
struct NonAdditive {
    name: &'static str,
    window_choice: &'static str,
}

#[derive(Serialize)]
struct MetricFlow {
    name: String,
    label: String,
    description: String,
    #[serde(rename = "type")]
    kind: &'static str,
    type_params: Parameters,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Parameters {
    Simple { measure: String },
    Derived { expr: String, metrics: [Input; 1] },
}

#[derive(Serialize)]
struct Input {
    name: String,
}

#[derive(Serialize)]
struct Models {
    version: u8,
    models: [Spine; 1],
}

#[derive(Serialize)]
struct Spine {
    name: &'static str,
    description: &'static str,
    time_spine: TimeSpine,
    columns: [SpineColumn; 1],
}

#[derive(Serialize)]
struct TimeSpine {
    standard_granularity_column: &'static str,
}

#[derive(Serialize)]
struct SpineColumn {
    name: &'static str,
    granularity: &'static str,
}

/// The name of the day: MetricFlow keeps `day` and `hour` to itself.
const TIME: &str = "utc_day";
/// The variance of the noise of what is not suppressed: of independent noises the variances add up.
const VARIANCE: &str = "CASE WHEN status = 'released' THEN stddev * stddev END";
const SUPPRESSED: &str = "CASE WHEN status = 'suppressed' THEN 1 ELSE 0 END";

/// Name and text of each file: semantic models and metrics, a model over each source, and the days.
pub(super) fn files(both: &[(&Metric, &MetricTable)]) -> anyhow::Result<Vec<(String, String)>> {
    let semantics = Semantics {
        version: 2,
        semantic_models: both.iter().map(|(metric, table)| model(metric, table)).collect(),
        metrics: both.iter().flat_map(|(metric, table)| metrics(metric, table)).collect(),
    };
    let days = Models {
        version: 2,
        models: [Spine {
            name: DAYS,
            description: "One row a day. Leave it out where the project has a time spine already.",
            time_spine: TimeSpine { standard_granularity_column: "date_day" },
            columns: [SpineColumn { name: "date_day", granularity: "day" }],
        }],
    };
    let mut files = vec![
        ("starling_metrics.yml".to_owned(), yaml(&semantics)?),
        (format!("{DAYS}.yml"), yaml(&days)?),
        (
            format!("{DAYS}.sql"),
            "{{ config(materialized='table') }}\n\
             {{ dbt.date_spine('day', \"cast('2025-01-01' as date)\", \"cast('2036-01-01' as date)\") }}\n"
                .to_owned(),
        ),
    ];
    for (_, table) in both {
        let text =
            format!("{{{{ config(materialized='view') }}}}\nselect * from {{{{ source('{SOURCE}', '{}') }}}}\n", table.name);
        files.push((format!("{}.sql", table.name), text));
    }
    Ok(files)
}

/// How a table's values are put together. People of an hour may be there in the next one, too, and MetricFlow knows one dimension at most that
/// does not add up: day and hour are two.
fn adds_up(table: &MetricTable) -> AddsUp {
    match table.adds_up {
        AddsUp::WithinWindow if table.window == Span::Hour => AddsUp::Nowhere,
        how => how,
    }
}

fn said(table: &MetricTable) -> &'static str {
    match adds_up(table) {
        AddsUp::Everywhere => "Added up over groups and days.",
        AddsUp::WithinWindow => "Added up over groups, never over time: of several windows the last one counts.",
        AddsUp::Nowhere => {
            "It does not add up: this is the largest of what is asked for, without an interval, and the released value where all \
             its groups and the day are asked for."
        }
    }
}

fn model(metric: &Metric, table: &MetricTable) -> SemanticModel {
    let name = |what: &str| format!("{}_{what}", table.name);
    let only_one = || (adds_up(table) == AddsUp::WithinWindow).then_some(NonAdditive { name: TIME, window_choice: "max" });
    let measure = |what: &str, agg, expr, description: String| Measure {
        name: name(what),
        description,
        agg,
        expr,
        non_additive_dimension: if agg == "sum" { only_one() } else { None },
    };
    let title = format!("{}, in {}", metric.title, metric.unit);
    // The largest low and the largest high need not be of one group: the largest value has no interval here. The table has each
    // value's own.
    let mut measures = match adds_up(table) {
        AddsUp::Nowhere => vec![measure("value", "max", "value", title)],
        AddsUp::Everywhere | AddsUp::WithinWindow => vec![
            measure("value", "sum", "value", title),
            measure("variance", "sum", VARIANCE, "variance of the noise of the sum of the released groups".to_owned()),
        ],
    };
    // Of groups that are found in the data those that are suppressed have no row: a count of rows would say that there are none.
    if table.listed {
        measures.push(measure("suppressed", "sum", SUPPRESSED, "groups that are suppressed, and so add nothing".to_owned()));
    }
    SemanticModel {
        name: table.name.clone(),
        label: metric.title.clone(),
        description: format!("{} {NOISE}", metric.description),
        model: format!("ref('{}')", table.name),
        defaults: Defaults { agg_time_dimension: TIME },
        primary_entity: table.name.clone(),
        entities: entities(table),
        dimensions: dimensions(table),
        measures,
    }
}

fn entities(table: &MetricTable) -> Vec<Entity> {
    let keys = table.columns.iter().filter(|column| table.keys.contains(&column.name));
    keys.map(|column| Entity { name: column.name.clone(), description: column.comment.clone(), kind: "foreign" }).collect()
}

fn dimensions(table: &MetricTable) -> Vec<Dimension> {
    // Of windows that begin on a Monday nothing is known by the day.
    let time_granularity = match table.window {
        Span::Hour | Span::Day => "day",
        Span::Week | Span::Month => "week",
    };
    let about = |name: &str| table.columns.iter().find(|column| column.name == name).map(|column| column.comment.clone());
    let day = Dimension {
        name: TIME,
        expr: "day",
        description: about("day").unwrap_or_default(),
        kind: "time",
        type_params: Some(Granularity { time_granularity }),
    };
    let hour = about("hour").map(|description| Dimension {
        name: "utc_hour",
        expr: "hour",
        description,
        kind: "categorical",
        type_params: None,
    });
    std::iter::once(day).chain(hour).collect()
}

fn metrics(metric: &Metric, table: &MetricTable) -> Vec<MetricFlow> {
    let how = adds_up(table);
    let called = if how == AddsUp::Nowhere { format!("max_{}", table.name) } else { table.name.clone() };
    let title = if how == AddsUp::Nowhere { format!("{} (largest)", metric.title) } else { metric.title.clone() };
    let simple = |name: String, label: String, measure: &str, description: String| MetricFlow {
        name,
        label,
        description,
        kind: "simple",
        type_params: Parameters::Simple { measure: format!("{}_{measure}", table.name) },
    };
    let about = |what: &str| format!("{what}: see {called}.");
    let mut out = vec![simple(called.clone(), title.clone(), "value", format!("{} {} {NOISE}", metric.description, said(table)))];
    if how != AddsUp::Nowhere {
        let variance = format!("{called}_variance");
        let what = "Variance of the noise of the sum of the released groups";
        out.push(simple(variance.clone(), format!("{title}, variance of the noise"), "variance", about(what)));
        out.push(MetricFlow {
            name: format!("{called}_stddev"),
            label: format!("{title}, standard deviation of the noise"),
            description: about(
                "Standard deviation of the noise of the sum of the released groups; 1.96 times that to each side is the 95 % \
                 interval",
            ),
            kind: "derived",
            type_params: Parameters::Derived { expr: format!("sqrt({variance})"), metrics: [Input { name: variance }] },
        });
    }
    if table.listed {
        out.push(simple(
            format!("{called}_suppressed"),
            format!("{title}, suppressed groups"),
            "suppressed",
            about("Groups that are suppressed and so are not in it"),
        ));
    }
    out
}
