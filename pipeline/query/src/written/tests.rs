use arrow::array::Array;
use starling_privacy::question::{Aggregate, Spec, plan};
use starling_schemas::metrics::Catalogue;
use starling_schemas::rows::COMMENT;

use super::*;
use crate::metric::Planner;

const DAY: EpochId = EpochId(20_458);

/// Releases of (value, standard deviation), each with an interval of one standard deviation.
async fn written(rows: &[(Option<f64>, Option<f64>)], listed: bool) -> (Metric, SchemaRef, Bytes) {
    let catalogue = Catalogue::builtin().expect("reviewed");
    let metric = catalogue.metrics.iter().find(|m| m.name == "senders_daily").expect("listed").clone();
    let planned = Planner::over(&catalogue).expect("sets up").plan(&metric).await.expect("plans");
    let schema = schema(&metric, &planned.keys, &planned.leaf);
    let spec = Spec { keys: 1, inputs: Vec::new(), groups_per_person: 1, discovered: false, aggregates: vec![Aggregate::PEOPLE] };
    let plan = plan(&spec, metric.rho, 0.0).expect("a plan");
    let numbers = |of: &dyn Fn(f64, f64) -> f64| -> ArrayRef {
        Arc::new(rows.iter().map(|(value, stddev)| Some(of((*value)?, (*stddev)?))).collect::<Float64Array>())
    };
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("country", Arc::new(StringArray::from_iter_values((0..rows.len()).map(|at| format!("C{at}"))))),
        ("value", Arc::new(rows.iter().map(|row| row.0).collect::<Float64Array>())),
        ("low", numbers(&|value, stddev| value - stddev)),
        ("high", numbers(&|value, stddev| value + stddev)),
        ("stddev", Arc::new(rows.iter().map(|row| row.1).collect::<Float64Array>())),
    ];
    let table =
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).expect("fits");
    let facts =
        Facts { metric: &metric, epoch: DAY, complete: true, plan: &plan, cut: [Some(0.25), None], told_at: 1e-9, listed };
    let bytes = encode(facts, &schema, &table).expect("encodes");
    assert_eq!(encode(facts, &schema, &table), Some(bytes.clone()), "I3: the same noisy numbers are the same bytes");
    (metric, schema, bytes)
}

fn read(bytes: &Bytes) -> RecordBatch {
    let reader =
        datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).expect("Parquet");
    reader.build().expect("reads").map(|b| b.expect("reads")).next().expect("one batch")
}

fn statuses(table: &RecordBatch) -> Vec<&str> {
    table.column_by_name("status").expect("a column").as_string::<i32>().iter().flatten().collect()
}

#[tokio::test]
async fn every_column_says_what_it_is_and_in_which_unit() {
    let catalogue = Catalogue::builtin().expect("reviewed");
    let planner = Planner::over(&catalogue).expect("sets up");
    for metric in &catalogue.metrics {
        let planned = planner.plan(metric).await.expect("plans");
        let schema = schema(metric, &planned.keys, &planned.leaf);
        let lines = schema.fields().iter().map(|f| {
            format!("{} {}{}: {}", f.name(), f.data_type(), if f.is_nullable() { "" } else { " not null" }, f.metadata()[COMMENT])
        });
        if ["people_served_daily", "messages_daily", "call_minutes_daily", "call_seconds_per_caller_daily"]
            .contains(&metric.name.as_str())
        {
            insta::assert_snapshot!(format!("columns_of_{}", metric.name), lines.collect::<Vec<_>>().join("\n"));
        }
    }
}

#[tokio::test]
async fn a_listed_group_is_shown_from_four_standard_deviations_on() {
    let (_, schema, bytes) = written(
        &[(Some(400.0), Some(100.0)), (Some(399.9), Some(100.0)), (Some(-900.0), Some(100.0)), (Some(0.0), Some(0.0))],
        true,
    )
    .await;
    let table = read(&bytes);
    assert_eq!(table.schema().fields(), schema.fields(), "comments survive the file");
    assert_eq!(statuses(&table), ["released", "suppressed", "suppressed", "suppressed"]);
    for name in ["value", "low", "high"] {
        let column = table.column_by_name(name).expect("a column");
        assert_eq!((0..4).map(|i| column.is_null(i)).collect::<Vec<_>>(), [false, true, true, true], "{name}");
    }
    assert_eq!(table.column_by_name("stddev").expect("a column").null_count(), 0);
}

#[tokio::test]
async fn what_has_no_value_is_suppressed_and_a_found_group_or_one_without_error_bars_is_not() {
    let table = read(
        &written(&[(None, None), (Some(f64::NAN), Some(1.0)), (Some(f64::INFINITY), None), (Some(12.0), None)], true).await.2,
    );
    assert_eq!(statuses(&table), ["suppressed", "suppressed", "suppressed", "released"]);
    // It has passed its threshold of people.
    let table = read(&written(&[(Some(5.0), Some(100.0))], false).await.2);
    assert_eq!(statuses(&table), ["released"]);
}

#[tokio::test]
async fn i3_a_file_tells_what_it_is() {
    let (metric, _, bytes) = written(&[(Some(400.0), Some(100.0)), (Some(1.0), Some(100.0))], true).await;
    let expected = Summary { rows: 2, suppressed: 1, rho: metric.rho, epsilon: epsilon(metric.rho, 1e-9), delta: 1e-9 };
    assert_eq!(summary(&bytes, &metric, DAY), Some(expected));
    assert_eq!(summary(&bytes, &metric, EpochId(1)), None);
    let table = read(&bytes);
    let cut = |name: &str| table.column_by_name(name).expect("a column").as_primitive::<Float64Type>().iter().collect::<Vec<_>>();
    assert_eq!((cut(CUT), cut(PEOPLE_CUT)), (vec![Some(0.25); 2], vec![None; 2]));
    assert_eq!(summary(&Bytes::from_static(b"PAR1 not really PAR1"), &metric, DAY), None);
}
