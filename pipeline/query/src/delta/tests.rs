use arrow::array::{ArrayRef, Date32Array, Float64Array, Int32Array, RecordBatch, StringArray};
use arrow::datatypes::Field;
use datafusion::parquet::arrow::ArrowWriter;
use starling_schemas::ids::EpochId;
use starling_schemas::metrics::NanoRho;
use starling_schemas::rows::column;

use super::*;

const FIRST: i32 = 20_458;

fn parquet(columns: Vec<(Field, ArrayRef)>) -> Bytes {
    let (fields, arrays): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).expect("fits");
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).expect("begins");
    writer.write(&batch).expect("writes");
    Bytes::from(writer.into_inner().expect("ends"))
}

/// A day's file: two rows, and a country where `wide`.
fn file(day: i32, wide: bool) -> Bytes {
    let mut columns: Vec<(Field, ArrayRef)> = vec![
        (column("day", DataType::Date32, false, "UTC day"), Arc::new(Date32Array::from_value(day, 2))),
        (column("value", DataType::Float64, true, "how many"), Arc::new(Float64Array::from(vec![Some(1.5), None]))),
    ];
    if wide {
        columns.push((column("country", DataType::Utf8, false, "where"), Arc::new(StringArray::from(vec!["DE", "FR"]))));
    }
    parquet(columns)
}

async fn released(files: &Files, metric: &str, day: i32, bytes: Bytes) -> ReleaseRecord {
    let epoch = EpochId(day);
    let path = format!("stats/{metric}/{epoch}.parquet");
    let (blake3, size) = (blake3::hash(&bytes).to_hex().to_string(), bytes.len() as u64);
    assert!(size > 0 && files.put_new(&path, bytes).await.expect("writes"));
    ReleaseRecord {
        metric: metric.to_owned(),
        epoch,
        path,
        blake3,
        rows: 2,
        suppressed: 1,
        rho: NanoRho(1),
        epsilon: 0.1,
        delta: 1e-9,
        released_at_ms: i64::from(day) * 1000,
    }
}

/// The actions of one commit.
async fn actions(files: &Files, metric: &str, version: u64) -> Vec<Value> {
    let bytes = files.get(&format!("stats/{metric}/_delta_log/{version:020}.json")).await.expect("reads").expect("is there");
    bytes.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(|l| serde_json::from_slice(l).expect("JSON")).collect()
}

fn added(actions: &[Value]) -> Vec<&str> {
    actions.iter().filter_map(|a| a.pointer("/add/path")?.as_str()).collect()
}

#[tokio::test]
async fn i3_each_release_is_named_once_whoever_and_however_often_one_asks() {
    let dir = tempfile::tempdir().expect("dir");
    let files = Files::open_local(dir.path()).expect("opens");
    let mut releases = vec![
        released(&files, "people", FIRST + 1, file(FIRST + 1, false)).await,
        released(&files, "people", FIRST, file(FIRST, false)).await,
    ];
    let (one, two, three) = tokio::join!(publish(&files, &releases), publish(&files, &releases), publish(&files, &releases));
    assert_eq!(one.expect("writes") + two.expect("writes") + three.expect("writes"), 2);
    let first = actions(&files, "people", 0).await;
    assert_eq!(added(&first), ["2026-01-05.parquet", "2026-01-06.parquet"], "in order of their days");
    assert!(first.iter().any(|a| a.pointer("/protocol/minReaderVersion") == Some(&json!(1))));
    let stats: Value =
        serde_json::from_str(first[3].pointer("/add/stats").and_then(Value::as_str).expect("stats")).expect("JSON");
    assert_eq!((&stats["numRecords"], &stats["minValues"]["day"]), (&json!(2), &json!("2026-01-05")));

    releases.push(released(&files, "people", FIRST + 2, file(FIRST + 2, false)).await);
    assert_eq!(publish(&files, &releases).await.expect("writes"), 1);
    assert_eq!(publish(&files, &releases).await.expect("nothing to do"), 0);
    let second = actions(&files, "people", 1).await;
    assert_eq!(added(&second), ["2026-01-07.parquet"]);
    assert!(second.iter().all(|a| a.get("metaData").is_none() && a.get("protocol").is_none()), "said before");
    assert_eq!(files.list("stats/people/_delta_log").await.expect("lists").len(), 2);
}

#[tokio::test]
async fn a_metric_that_gets_another_column_says_so_in_a_commit_of_its_own() {
    let dir = tempfile::tempdir().expect("dir");
    let files = Files::open_local(dir.path()).expect("opens");
    let releases = [
        released(&files, "people", FIRST, file(FIRST, false)).await,
        released(&files, "people", FIRST + 1, file(FIRST + 1, true)).await,
        released(&files, "calls", FIRST, file(FIRST, true)).await,
    ];
    assert_eq!(publish(&files, &releases).await.expect("writes"), 3);
    let schema = |actions: &[Value]| -> Vec<String> {
        let text = actions.iter().find_map(|a| a.pointer("/metaData/schemaString")?.as_str()).expect("a schema");
        let schema: Value = serde_json::from_str(text).expect("JSON");
        schema["fields"].as_array().expect("fields").iter().map(|f| format!("{} {}", f["name"], f["type"])).collect()
    };
    let (before, after) = (actions(&files, "people", 0).await, actions(&files, "people", 1).await);
    assert_eq!(schema(&before), [r#""day" "date""#, r#""value" "double""#]);
    assert_eq!(schema(&after), [r#""day" "date""#, r#""value" "double""#, r#""country" "string""#]);
    let id = |actions: &[Value]| actions.iter().find_map(|a| a.pointer("/metaData/id")?.as_str().map(str::to_owned));
    assert_eq!(id(&before), id(&after), "the same table");
    assert_ne!(id(&before), id(&actions(&files, "calls", 0).await));
}

#[tokio::test]
async fn a_log_that_others_changed_is_left_alone_and_named() {
    for (version, line, what) in [
        (0, r#"{"remove":{"path":"2026-01-05.parquet"}}"#, "was removed"),
        (0, r#"{"protocol":{"minReaderVersion":3,"minWriterVersion":7}}"#, "later version"),
        (0, "{", "no JSON"),
        (3, "{}", "commits before it are missing"),
    ] {
        let dir = tempfile::tempdir().expect("dir");
        let files = Files::open_local(dir.path()).expect("opens");
        let release = [released(&files, "people", FIRST, file(FIRST, false)).await];
        let path = format!("stats/people/_delta_log/{version:020}.json");
        files.put(&path, Bytes::from_static(line.as_bytes())).await.expect("writes");
        let error = publish(&files, &release).await.expect_err("refused").to_string();
        assert!(error.contains(what) && error.contains("_delta_log"), "{error}");
        assert_eq!(files.list("stats/people/_delta_log").await.expect("lists"), [path]);
    }
}

#[tokio::test]
async fn a_file_that_is_no_release_is_not_named() {
    let dir = tempfile::tempdir().expect("dir");
    let files = Files::open_local(dir.path()).expect("opens");
    let odd = parquet(vec![(
        column("n", DataType::Int32, false, "a type no release has"),
        Arc::new(Int32Array::from(vec![1])) as ArrayRef,
    )]);
    for (at, bytes) in [(0, odd), (1, Bytes::from_static(b"no Parquet"))] {
        let release = [released(&files, "people", FIRST + at, bytes).await];
        assert!(matches!(publish(&files, &release).await, Err(ReleaseError::ForeignFile { .. })));
    }
    assert!(files.list("stats/people/_delta_log").await.expect("lists").is_empty());
}
