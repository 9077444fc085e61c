//! A release as a file: what it holds, how it is written, and how it tells what it is.

use std::sync::Arc;

use arrow::array::{ArrayRef, Date32Array, Float64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use starling_schemas::ids::EpochId;
use starling_schemas::metrics::{Measure, Metric, NanoRho};
use starling_schemas::rows::column;

use crate::PrivacyError;
use crate::mechanism::{NoisySums, epsilon};

/// Where the release of a metric's window stands, below the file store.
#[must_use]
pub fn path(metric: &str, epoch: EpochId) -> String {
    format!("stats/{metric}/{epoch}.parquet")
}

/// The columns of a metric's released table; each comes with a comment under `starling_schemas::rows::COMMENT`.
#[must_use]
pub fn schema(metric: &Metric) -> SchemaRef {
    let unit = &metric.unit;
    let bounds = &metric.bounds;
    let most_groups =
        if bounds.groups_per_person == 1 { "1 group".to_owned() } else { format!("{} groups", bounds.groups_per_person) };
    let share = if metric.measure == Measure::People {
        format!("A person counts in at most {most_groups}.")
    } else {
        let most = f64::from(bounds.value_per_group) / f64::from(metric.divide_by);
        format!("A person counts in at most {most_groups}, with at most {most} {unit} each; what is beyond is not here.")
    };
    let mut columns = vec![column("day", DataType::Date32, false, "UTC day")];
    for dimension in &metric.dimensions {
        let comment = match dimension.name() {
            "country" => "ISO 3166-1 alpha-2 of the calling code; ZZ if unknown",
            "platform" => "client platform",
            _ => "kind of conversation",
        };
        columns.push(column(dimension.name(), DataType::Utf8, false, comment));
    }
    let numbers = [
        ("value", true, format!("{unit}, with noise. {} {share} NULL where suppressed.", metric.description)),
        (
            "low",
            true,
            format!("{unit}: lower end of the 95 % interval for the noise; it does not cover what the bounds per person cut off"),
        ),
        ("high", true, format!("{unit}: upper end of the 95 % interval for the noise")),
        ("stddev", false, format!("{unit}: standard deviation of the noise, the same in every row")),
    ];
    columns.extend(numbers.into_iter().map(|(name, nullable, comment)| column(name, DataType::Float64, nullable, &comment)));
    columns.extend([
        column("status", DataType::Utf8, false, "released, or suppressed: the noisy value is too small to tell from nobody"),
        column("epsilon", DataType::Float64, false, "privacy loss of this whole table to one person for the day, at delta"),
        column("delta", DataType::Float64, false, "chance with which epsilon does not hold"),
    ]);
    Arc::new(Schema::new(columns))
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

/// Writes noisy sums as a released table. `complete`: whether every partition had passed the window when it closed.
///
/// # Privacy
/// Post-processing: of the data only the noisy sums are here. Suppression looks at the noisy sum alone, so it costs no δ.
pub(crate) fn encode(
    metric: &Metric,
    epoch: EpochId,
    complete: bool,
    noisy: &NoisySums,
    delta: f64,
) -> Result<Bytes, PrivacyError> {
    let (noise, divide_by) = (noisy.noise, f64::from(metric.divide_by));
    let (threshold, half_width) = (noise.threshold(), noise.half_width());
    #[allow(clippy::cast_precision_loss)]
    let shown: Vec<Option<f64>> = noisy.values.iter().map(|v| Some(*v as f64).filter(|v| *v >= threshold)).collect();
    let rows = shown.len();
    let suppressed = shown.iter().filter(|v| v.is_none()).count();
    let told = epsilon(noisy.cost, delta);

    let floats = |value: &dyn Fn(f64) -> f64| -> ArrayRef {
        Arc::new(shown.iter().map(|v| v.map(|v| value(v) / divide_by)).collect::<Float64Array>())
    };
    let same = |value: f64| -> ArrayRef { Arc::new(Float64Array::from_value(value, rows)) };
    let mut columns: Vec<ArrayRef> = vec![Arc::new(Date32Array::from_value(epoch.0, rows))];
    for index in 0..metric.dimensions.len() {
        columns.push(Arc::new(StringArray::from_iter_values(noisy.groups.labels(index))));
    }
    columns.extend([floats(&|v| v), floats(&|v| v - half_width), floats(&|v| v + half_width), same(noise.stddev() / divide_by)]);
    let status = shown.iter().map(|v| if v.is_some() { "released" } else { "suppressed" });
    columns.push(Arc::new(StringArray::from_iter_values(status)));
    columns.extend([same(told), same(delta)]);

    let facts = [
        ("metric", metric.name.clone()),
        ("day", epoch.to_string()),
        ("window", if complete { "closed" } else { "incomplete" }.to_owned()),
        ("rows", rows.to_string()),
        ("suppressed", suppressed.to_string()),
        ("nano_rho", noisy.cost.0.to_string()),
        ("epsilon", told.to_string()),
        ("delta", delta.to_string()),
        ("noise", noise.name().to_owned()),
        ("scale", (noise.scale() / divide_by).to_string()),
        ("threshold", (threshold / divide_by).to_string()),
        ("groups_per_person", metric.bounds.groups_per_person.to_string()),
        ("value_per_group", metric.bounds.value_per_group.to_string()),
        ("unit", metric.unit.clone()),
    ];
    let facts = facts.into_iter().map(|(key, value)| KeyValue::new(format!("starling.{key}"), value)).collect();
    write(schema(metric), columns, facts).map_err(|()| PrivacyError::NotEncoded)
}

fn write(schema: SchemaRef, columns: Vec<ArrayRef>, facts: Vec<KeyValue>) -> Result<Bytes, ()> {
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns).map_err(drop)?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3).map_err(drop)?))
        .set_created_by("starling".to_owned())
        .set_key_value_metadata(Some(facts))
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), schema, Some(properties)).map_err(drop)?;
    writer.write(&batch).map_err(drop)?;
    writer.into_inner().map(Bytes::from).map_err(drop)
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
mod tests {
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::Float64Type;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use starling_schemas::metrics::Catalogue;
    use starling_schemas::rows::COMMENT;

    use super::*;
    use crate::groups::PublicGroups;
    use crate::noise::Noise;

    const DAY: EpochId = EpochId(20_458);

    fn minutes(sums: &[i64]) -> (Metric, NoisySums) {
        let metric =
            Catalogue::builtin().expect("reviewed").metrics.into_iter().find(|m| m.name == "call_minutes_daily").expect("listed");
        let groups = Arc::new(PublicGroups::of(&metric).expect("sound"));
        let mut values = sums.to_vec();
        values.resize(groups.count(), 0);
        let noisy = NoisySums { groups, values, noise: Noise::DiscreteGaussian { scale: 600.0 }, cost: NanoRho(3_000_000) };
        (metric, noisy)
    }

    fn read(bytes: &Bytes) -> RecordBatch {
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).expect("Parquet").build().expect("reads");
        reader.map(|b| b.expect("reads")).next().expect("one batch")
    }

    #[test]
    fn every_column_says_what_it_is_and_in_which_unit() {
        for metric in Catalogue::builtin().expect("reviewed").metrics {
            let schema = schema(&metric);
            let lines = schema.fields().iter().map(|f| {
                format!(
                    "{} {}{}: {}",
                    f.name(),
                    f.data_type(),
                    if f.is_nullable() { "" } else { " not null" },
                    f.metadata()[COMMENT]
                )
            });
            insta::assert_snapshot!(format!("columns_of_{}", metric.name), lines.collect::<Vec<_>>().join("\n"));
        }
    }

    #[test]
    fn values_are_in_the_metrics_unit_and_every_group_has_a_row() {
        // Threshold: 4 · 600 s. Half width: ⌈1176⌉ s.
        let (metric, noisy) = minutes(&[60_000, 2_400, 2_399, -5]);
        let bytes = encode(&metric, DAY, true, &noisy, 1e-9).expect("encodes");
        let table = read(&bytes);
        assert_eq!(table.num_rows(), noisy.groups.count());
        assert_eq!(table.schema().fields(), schema(&metric).fields(), "comments survive the file");
        let number = |name: &str, row: usize| {
            let column = table.column_by_name(name).expect("a column").as_primitive::<Float64Type>();
            column.is_valid(row).then(|| column.value(row))
        };
        assert_eq!(number("value", 0), Some(1000.0));
        assert_eq!((number("low", 0), number("high", 0)), (Some(1000.0 - 1176.0 / 60.0), Some(1000.0 + 1176.0 / 60.0)));
        assert_eq!(number("stddev", 0), Some(10.0));
        assert_eq!(number("value", 1), Some(40.0));
        assert_eq!(number("epsilon", 3), Some(epsilon(NanoRho(3_000_000), 1e-9)));
    }

    #[test]
    fn a_suppressed_group_is_null_and_never_zero() {
        let (metric, noisy) = minutes(&[60_000, 2_399, 0, -90_000]);
        let table = read(&encode(&metric, DAY, true, &noisy, 1e-9).expect("encodes"));
        let status = table.column_by_name("status").expect("a column").as_string::<i32>();
        let value = table.column_by_name("value").expect("a column").as_primitive::<Float64Type>();
        assert_eq!((0..4).map(|i| status.value(i)).collect::<Vec<_>>(), ["released", "suppressed", "suppressed", "suppressed"]);
        for name in ["value", "low", "high"] {
            let column = table.column_by_name(name).expect("a column");
            assert_eq!((0..4).map(|i| column.is_null(i)).collect::<Vec<_>>(), [false, true, true, true], "{name}");
        }
        assert!(value.iter().flatten().all(|v| v > 0.0));
    }

    #[test]
    fn i3_the_same_noisy_sums_are_the_same_bytes_and_tell_what_they_are() {
        let (metric, noisy) = minutes(&[60_000]);
        let bytes = encode(&metric, DAY, true, &noisy, 1e-9).expect("encodes");
        assert_eq!(bytes, encode(&metric, DAY, true, &noisy, 1e-9).expect("encodes"));
        let rows = noisy.groups.count() as u64;
        let rho = NanoRho(3_000_000);
        let expected = Summary { rows, suppressed: rows - 1, rho, epsilon: epsilon(rho, 1e-9), delta: 1e-9 };
        assert_eq!(summary(&bytes, &metric, DAY), Some(expected));
        assert_eq!(summary(&bytes, &metric, EpochId(1)), None);
        assert_eq!(summary(&Bytes::from_static(b"PAR1 not really PAR1"), &metric, DAY), None);
    }
}
