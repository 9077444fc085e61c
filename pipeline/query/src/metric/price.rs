//! What a metric will cost and how good it will be, before any window of it is there.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, new_null_array};
use arrow::datatypes::Float64Type;
use starling_privacy::epsilon;
use starling_privacy::question::{Aggregate, Answer, Blur, Source};
use starling_schemas::metrics::{Catalogue, Metric, NanoRho};

use super::{Measured, Planner};
use crate::error::QueryError;
use crate::private::{self, SIZES};

/// The price of a metric. Made from reviewed text alone.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricPrice {
    /// Its name.
    pub name: String,
    /// Its dataset, of which each window is charged.
    pub dataset: String,
    /// ρ of one window.
    pub rho: NanoRho,
    /// ε of one window at `delta`.
    pub epsilon: f64,
    /// δ of ε.
    pub delta: f64,
    /// δ on top for finding the groups in the data; 0 where they are listed.
    pub threshold_delta: f64,
    /// How many groups are listed; `None` where they are found in the data.
    pub groups: Option<usize>,
    /// Found groups are shown from so many people on (with noise).
    pub threshold: Option<i64>,
    /// At most so many groups hold something of one person.
    pub groups_per_person: u32,
    /// What it is made of, as it is bounded.
    pub parts: Vec<String>,
    /// (people in the group, expected error as a share of the value: one standard deviation of the noise, or of a quantile the ranks that it may be
    /// off). Each of them is taken to bring a tenth of what may count of one person. `None`: no value is expected.
    pub errors: Vec<(u64, Option<f64>)>,
}

/// Prices all metrics of a catalogue, in order.
///
/// # Errors
/// By metric: what is wrong with its query, and what to write instead.
pub async fn prices(catalogue: &Catalogue) -> Result<Vec<Result<MetricPrice, (String, QueryError)>>, QueryError> {
    let planner = Planner::over(catalogue)?;
    let mut out = Vec::with_capacity(catalogue.metrics.len());
    for metric in &catalogue.metrics {
        out.push(price(&planner, catalogue, metric).await.map_err(|error| (metric.name.clone(), error)));
    }
    Ok(out)
}

async fn price(planner: &Planner, catalogue: &Catalogue, metric: &Metric) -> Result<MetricPrice, QueryError> {
    let measured = measured(planner, catalogue, metric).await?;
    let delta = catalogue.datasets.get(&metric.dataset).map_or(0.0, |dataset| dataset.delta);
    let mut errors = Vec::new();
    for size in SIZES {
        let measured = self::measured(planner, catalogue, metric).await?;
        let row = imagined(planner, measured, |aggregate| brought(aggregate, size)).await?;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        errors.push((size as u64, row.and_then(|row| row.error(size))));
    }
    let priced = &measured.priced;
    let spec = &priced.leaf.spec;
    Ok(MetricPrice {
        name: metric.name.clone(),
        dataset: metric.dataset.clone(),
        rho: priced.plan.rho,
        epsilon: epsilon(priced.plan.rho, delta),
        delta,
        threshold_delta: priced.plan.delta,
        groups: match (&priced.listed, spec.keys) {
            (Some(columns), _) => columns.first().map(|column| column.len()),
            (None, 0) => Some(1),
            (None, _) => None,
        },
        threshold: priced.plan.threshold,
        groups_per_person: spec.groups_per_person,
        parts: spec.aggregates.iter().map(private::aggregate_name).collect(),
        errors,
    })
}

pub(super) async fn measured(planner: &Planner, catalogue: &Catalogue, metric: &Metric) -> Result<Measured, QueryError> {
    let dataset = catalogue.datasets.get(&metric.dataset);
    let dataset = dataset.ok_or_else(|| super::wrong("its dataset is not there", "name one of datasets.toml"))?;
    let planned = planner.plan(metric).await?;
    planner.price(planned, metric, dataset, None).await
}

/// What so many people bring together, each a tenth of what may count of one.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
fn brought(aggregate: &Aggregate, people: f64) -> i64 {
    match aggregate {
        Aggregate::Sum { of: Source::Rows, low: 0, high: 1 } => people as i64,
        Aggregate::Sum { high, .. } => (people * (*high as f64 / 10.0).max(1.0)) as i64,
        Aggregate::Quantile { grid, .. } => grid.values().get(grid.values().len() / 2).copied().unwrap_or_default(),
    }
}

/// A released row that was made of imagined numbers.
pub(super) struct Imagined {
    pub(super) value: Option<f64>,
    stddev: Option<f64>,
    /// Ranks that a quantile may be off.
    ranks: Option<f64>,
}

impl Imagined {
    fn error(&self, people: f64) -> Option<f64> {
        let value = self.value.filter(|value| *value != 0.0)?;
        self.stddev.map(|stddev| (stddev / value).abs()).or_else(|| self.ranks.map(|ranks| ranks / people))
    }
}

/// The first row that is released where a group's noisy numbers are these; `None` if no row is left of it.
pub(super) async fn imagined(
    planner: &Planner,
    measured: Measured,
    number: impl Fn(&Aggregate) -> i64,
) -> Result<Option<Imagined>, QueryError> {
    let noisy = one_group(&measured, number)?;
    let ranks = measured.priced.leaf.spec.aggregates.iter().zip(&measured.priced.plan.blurs).filter_map(|part| match part {
        (Aggregate::Quantile { rank, .. }, Blur::Quantile { per_score, .. }) => {
            Some(1.0 / (per_score * f64::from(rank.denominator())))
        }
        _ => None,
    });
    let ranks = ranks.reduce(f64::max);
    let keys = measured.keys.len();
    let table = measured.table(noisy, &planner.sessions).await?;
    let number = |at: usize| {
        let column = table.column(keys + at).as_primitive_opt::<Float64Type>()?;
        (!column.is_empty() && column.is_valid(0)).then(|| column.value(0)).filter(|number| number.is_finite())
    };
    Ok((table.num_rows() > 0).then(|| Imagined { value: number(0), stddev: number(3), ranks }))
}

fn one_group(measured: &Measured, number: impl Fn(&Aggregate) -> i64) -> Result<RecordBatch, QueryError> {
    let priced = &measured.priced;
    let spec = &priced.leaf.spec;
    let keys: Vec<ArrayRef> = match &priced.listed {
        Some(columns) => columns.iter().map(|column| column.slice(0, column.len().min(1))).collect(),
        None => (0..spec.keys).map(|at| new_null_array(priced.leaf.schema.field(at).data_type(), 1)).collect(),
    };
    let groups = keys.first().map_or(1, |column| column.len());
    let values = spec.aggregates.iter().map(|aggregate| vec![number(aggregate); groups]).collect();
    private::noisy_table(
        priced,
        &Answer {
            keys: keys.into_iter().map(|key| Arc::clone(&key)).collect(),
            groups,
            values,
            intervals: Vec::new(),
            other: None,
            bias: None,
        },
    )
}
