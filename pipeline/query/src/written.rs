//! A release as a file: what it holds, how it is written, and how it tells what it is.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Date32Array, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Float64Type, Schema, SchemaRef};
use bytes::Bytes;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use datafusion::parquet::basic::{Compression, ZstdLevel};
use datafusion::parquet::file::metadata::KeyValue;
use datafusion::parquet::file::properties::WriterProperties;
use starling_privacy::question::{Aggregate, Plan};
use starling_privacy::{THRESHOLD_STDDEVS, epsilon};
use starling_schemas::ids::EpochId;
use starling_schemas::metrics::{Metric, NanoRho};
use starling_schemas::rows::column;

use crate::metric::Key;
use crate::private::table::{DAY, HOUR};
use crate::private::{Leaf, aggregate_name};

/// Where the release of a metric's window stands, below the file store.
pub(crate) fn path(metric: &str, epoch: EpochId) -> String {
    format!("stats/{metric}/{epoch}.parquet")
}

/// Columns that tell what the bounds cut off. Releases from before they were told do not have them.
pub(crate) const CUT: &str = "cut";
pub(crate) const PEOPLE_CUT: &str = "people_cut";

/// The columns of `stats.<metric>`.
pub(crate) fn schema(metric: &Metric, keys: &[Key], leaf: &Leaf) -> SchemaRef {
    let unit = &metric.unit;
    let text = |what: &str| format!("{what}, {unit}");
    let spec = &leaf.spec;
    let groups = if spec.groups_per_person == 1 { "1 group".to_owned() } else { format!("{} groups", spec.groups_per_person) };
    let parts: Vec<String> = spec.aggregates.iter().map(aggregate_name).collect();
    let share = format!("one person counts in at most {groups} ({})", parts.join("; "));
    let sum = spec.aggregates.iter().find(|aggregate| matches!(aggregate, Aggregate::Sum { .. })).map(aggregate_name);
    let cut = format!(
        "share that bounds cut off, at least, over all groups, with noise; NULL where the noise drowns it, and for quantiles{}",
        sum.map_or(String::new(), |sum| format!(" (of: {sum})"))
    );
    let number = |name: &str, nullable: bool, comment: &str| column(name, DataType::Float64, nullable, comment);
    let mut fields = vec![column(DAY, DataType::Date32, false, "UTC day")];
    if leaf.table.is_of_the_block(HOUR) {
        fields.push(column(HOUR, DataType::Int64, false, "UTC hour of the day, 0 to 23"));
    }
    fields.extend(keys.iter().map(|key| column(&key.name, DataType::Utf8, false, &key.comment)));
    fields.extend([
        number("value", true, &text(&format!("{}, with noise; {share}; NULL where suppressed", metric.title))),
        number("low", true, &text("lower end of the 95 % interval of the noise; NULL where there is none")),
        number("high", true, &text("upper end of the 95 % interval of the noise")),
        number("stddev", true, &text("standard deviation of the noise; NULL where there is none, as for a quantile")),
        number(CUT, true, &cut),
        number(
            PEOPLE_CUT,
            true,
            "share of people of whom bounds cut off anything, over all groups, with noise; NULL where the noise drowns it",
        ),
        column("status", DataType::Utf8, false, "released, or suppressed where the noisy value cannot be told from nobody"),
        number(
            "epsilon",
            false,
            if leaf.table.is_of_the_block(HOUR) {
                "what the whole metric cost each person that hour, at delta"
            } else {
                "what the whole metric cost each person that day, at delta"
            },
        ),
        number("delta", false, "delta of epsilon"),
    ]);
    Arc::new(Schema::new(fields))
}

/// What a release says of itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Summary {
    pub(crate) rows: u64,
    pub(crate) suppressed: u64,
    pub(crate) rho: NanoRho,
    pub(crate) epsilon: f64,
    pub(crate) delta: f64,
}

/// Of which window a table is, and what it cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts<'a> {
    pub(crate) metric: &'a Metric,
    pub(crate) epoch: EpochId,
    /// Whether every partition had passed the window when it closed.
    pub(crate) complete: bool,
    pub(crate) plan: &'a Plan,
    /// The share that the bounds cut off, and of how many people they cut off anything, as far as that is known.
    pub(crate) cut: [Option<f64>; 2],
    /// δ at which ε is told.
    pub(crate) told_at: f64,
    /// Whether groups are listed: then those that are nothing but noise are suppressed. Found groups have passed a threshold.
    pub(crate) listed: bool,
}

/// Writes a noisy table (keys, value, low, high, stddev) as a release. `None` if it cannot be written.
///
/// # Privacy
/// Post-processing of noisy numbers: suppression looks at the noisy value alone, so it costs no δ.
pub(crate) fn encode(facts: Facts<'_>, schema: &SchemaRef, table: &RecordBatch) -> Option<Bytes> {
    let (metric, plan) = (facts.metric, facts.plan);
    let keys = table.num_columns().checked_sub(4)?;
    let rows = table.num_rows();
    let numbers = |at: usize| -> Option<Vec<Option<f64>>> {
        let column = table.column(keys + at).as_primitive_opt::<Float64Type>()?;
        Some(column.iter().map(|number| number.filter(|number| number.is_finite())).collect())
    };
    let (value, low, high, stddev) = (numbers(0)?, numbers(1)?, numbers(2)?, numbers(3)?);
    let is_shown = |value: Option<f64>, stddev: Option<f64>| match (value, stddev) {
        (None, _) => false,
        (Some(value), Some(stddev)) if facts.listed => value > 0.0 && value >= THRESHOLD_STDDEVS * stddev,
        (Some(_), _) => true,
    };
    let shown: Vec<bool> = value.iter().zip(&stddev).map(|(value, stddev)| is_shown(*value, *stddev)).collect();
    let suppressed = shown.iter().filter(|shown| !**shown).count();
    let delta = facts.told_at + plan.delta;
    let told = epsilon(plan.rho, facts.told_at);

    let where_shown = |numbers: &[Option<f64>]| -> ArrayRef {
        Arc::new(numbers.iter().zip(&shown).map(|(number, shown)| number.filter(|_| *shown)).collect::<Float64Array>())
    };
    let same = |value: f64| -> ArrayRef { Arc::new(Float64Array::from_value(value, rows)) };
    let mut columns: Vec<ArrayRef> = vec![Arc::new(Date32Array::from_value(facts.epoch.day().0, rows))];
    if let Some(hour) = facts.epoch.hour() {
        columns.push(Arc::new(Int64Array::from_value(i64::from(hour), rows)));
    }
    for at in 0..keys {
        let labels = table.column(at).as_string_opt::<i32>()?;
        columns.push(Arc::new(StringArray::from_iter_values(labels.iter().map(|label| label.unwrap_or("none")))));
    }
    columns.extend([where_shown(&value), where_shown(&low), where_shown(&high)]);
    columns.push(Arc::new(stddev.iter().copied().collect::<Float64Array>()));
    columns.extend(facts.cut.map(|share| -> ArrayRef { Arc::new(std::iter::repeat_n(share, rows).collect::<Float64Array>()) }));
    let status = shown.iter().map(|shown| if *shown { "released" } else { "suppressed" });
    columns.push(Arc::new(StringArray::from_iter_values(status)));
    columns.extend([same(told), same(delta)]);
    let batch = RecordBatch::try_new(Arc::clone(schema), columns).ok()?;

    let said = [
        ("metric", metric.name.clone()),
        ("day", facts.epoch.to_string()),
        ("window", if facts.complete { "closed" } else { "incomplete" }.to_owned()),
        ("rows", rows.to_string()),
        ("suppressed", suppressed.to_string()),
        ("nano_rho", plan.rho.0.to_string()),
        ("epsilon", told.to_string()),
        ("delta", delta.to_string()),
        ("threshold", plan.threshold.map_or(String::new(), |threshold| threshold.to_string())),
        ("query", metric.query.clone()),
        ("unit", metric.unit.clone()),
    ];
    write(&batch, said.into_iter().map(|(key, value)| KeyValue::new(format!("starling.{key}"), value)).collect())
}

fn write(batch: &RecordBatch, facts: Vec<KeyValue>) -> Option<Bytes> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3).ok()?))
        .set_created_by("starling".to_owned())
        .set_key_value_metadata(Some(facts))
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).ok()?;
    writer.write(batch).ok()?;
    writer.into_inner().ok().map(Bytes::from)
}

/// Reads what a release says of itself; `None` if it is not a release of this metric and window.
pub(crate) fn summary(bytes: &Bytes, metric: &Metric, epoch: EpochId) -> Option<Summary> {
    let metadata = ArrowReaderMetadata::load(bytes, ArrowReaderOptions::default()).ok()?;
    let facts = metadata.metadata().file_metadata().key_value_metadata()?;
    let fact = |name: &str| facts.iter().find(|f| f.key.strip_prefix("starling.") == Some(name)).and_then(|f| f.value.as_deref());
    if fact("metric")? != metric.name || fact("day")? != epoch.to_string() {
        return None;
    }
    Some(Summary {
        rows: fact("rows")?.parse().ok()?,
        suppressed: fact("suppressed")?.parse().ok()?,
        rho: NanoRho(fact("nano_rho")?.parse().ok()?),
        epsilon: fact("epsilon")?.parse().ok()?,
        delta: fact("delta")?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests;
