use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeBinaryArray, RecordBatch, UInt8Array, UInt16Array, UInt32Array};
use arrow::datatypes::{DataType, Date32Type, Float64Type, Int64Type};
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use starling_schemas::codes::{Activity, Country};
use starling_schemas::ids::{Purpose, Span};
use starling_schemas::rows::{PERSON_ROWS, PRESENCE_ROWS};
use starling_schemas::time::{Entropy, FixedClock, NoEntropy};
use starling_store::TableWriter;

use super::*;

const DAY: EpochId = EpochId(20_458);
const NOW_MS: i64 = 20_460 * 86_400_000;

/// Not random: tests only.
struct Counting(AtomicU64);

impl Entropy for Counting {
    fn fill(&self, out: &mut [u8]) -> Result<(), NoEntropy> {
        let count = self.0.fetch_add(1, Ordering::SeqCst);
        blake3::Hasher::new().update(&count.to_be_bytes()).finalize_xof().fill(out);
        Ok(())
    }
}

fn data_key() -> KeyId {
    KeyId { kind: KeyKind::Data, purpose: Purpose::AnalyticsDay, epoch: DAY }
}

async fn releaser(folder: &Path) -> Releaser {
    let url = format!("sqlite:{}", folder.join("meta.sqlite").display());
    Releaser {
        metastore: Arc::new(Metastore::open(&url).await.expect("opens")),
        files: Arc::new(Files::open_local(&folder.join("files")).expect("opens")),
        keyring: Arc::new(Keyring::open(&folder.join("keys"), Arc::new(Counting(AtomicU64::new(0)))).expect("opens")),
        clock: Arc::new(FixedClock::new(NOW_MS)),
        catalogue: Arc::new(Catalogue::builtin().expect("reviewed")),
    }
}

/// One person row.
#[derive(Debug, Clone, Copy)]
struct Row {
    person: u128,
    country: u16,
    platform: u8,
    activity: u8,
    events: u32,
    seconds: u32,
}

/// The rows as a batch of `PERSON_ROWS`; whatever else a row may say is not said.
fn batch(rows: &[Row]) -> RecordBatch {
    let people: Vec<[u8; 16]> = rows.iter().map(|r| r.person.to_be_bytes()).collect();
    let people = FixedSizeBinaryArray::try_new(16, people.concat().into(), None).expect("16 bytes each");
    let columns = PERSON_ROWS.fields().iter().map(|field| -> ArrayRef {
        match (field.name().as_str(), field.data_type()) {
            ("person", _) => Arc::new(people.clone()),
            ("country", _) => Arc::new(rows.iter().map(|r| r.country).collect::<UInt16Array>()),
            ("platform", _) => Arc::new(rows.iter().map(|r| r.platform).collect::<UInt8Array>()),
            ("activity", _) => Arc::new(rows.iter().map(|r| r.activity).collect::<UInt8Array>()),
            ("events", _) => Arc::new(rows.iter().map(|r| r.events).collect::<UInt32Array>()),
            ("seconds", _) => Arc::new(rows.iter().map(|r| r.seconds).collect::<UInt32Array>()),
            (_, DataType::UInt16) => Arc::new(UInt16Array::from_value(0, rows.len())),
            (_, _) => Arc::new(UInt8Array::from_value(0, rows.len())),
        }
    });
    RecordBatch::try_new(Arc::clone(&PERSON_ROWS), columns.collect()).expect("the schema")
}

/// 8,000 people in Germany on Android, each with 20 messages to a person and a call of 30 minutes.
fn people() -> Vec<Row> {
    let country = Country::parse("DE").expect("listed").code();
    let row = |person, activity: Activity, events, seconds| Row {
        person,
        country,
        platform: 1,
        activity: activity.code(),
        events,
        seconds,
    };
    (0..8000).flat_map(|p| [row(p, Activity::MessagePerson, 20, 0), row(p, Activity::CallVoice, 1, 1800)]).collect()
}

async fn close(releaser: &Releaser, rows: &[Row], complete: bool) {
    let key = releaser.keyring.get_or_create(data_key()).expect("a key");
    let mut table =
        TableWriter::new(&releaser.files, &key, &format!("people/{DAY}.parquet"), Arc::clone(&PERSON_ROWS)).await.expect("opens");
    for part in rows.chunks(999) {
        table.write(&batch(part)).await.expect("writes");
    }
    let table = table.finish().await.expect("in place");
    releaser.metastore.begin_close(DAY, NOW_MS).await.expect("begins");
    releaser.metastore.finish_close(DAY, &table, complete, NOW_MS).await.expect("closes");
}

async fn closed(folder: &Path) -> Releaser {
    let releaser = releaser(folder).await;
    close(&releaser, &people(), true).await;
    releaser
}

async fn bytes(releaser: &Releaser, metric: &str) -> Option<Bytes> {
    releaser.files.get(&written::path(metric, DAY)).await.expect("reads")
}

fn statuses(reports: &[ReleaseReport]) -> Vec<ReleaseStatus> {
    reports.iter().map(|r| r.status).collect()
}

async fn log(releaser: &Releaser, kind: &str) -> usize {
    releaser.metastore.verify_audit().await.expect("the chain holds");
    releaser.metastore.audit_tail(100).await.expect("reads").iter().filter(|e| e.kind == kind).count()
}

/// The metrics of a day.
fn daily(catalogue: &Catalogue) -> Vec<&Metric> {
    catalogue.metrics_of(Span::Day).collect()
}

/// As many of the status as a day has metrics.
fn all(status: ReleaseStatus) -> Vec<ReleaseStatus> {
    vec![status; daily(&Catalogue::builtin().expect("reviewed")).len()]
}

async fn table(releaser: &Releaser, metric: &str) -> RecordBatch {
    let bytes = bytes(releaser, metric).await.expect("there");
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).expect("Parquet").build().expect("reads");
    let schema = arrow::array::RecordBatchReader::schema(&reader);
    let batches: Vec<RecordBatch> = reader.map(|batch| batch.expect("reads")).collect();
    arrow::compute::concat_batches(&schema, &batches).expect("one schema")
}

/// The row with these labels, as (value, low, high, stddev, status).
fn row(table: &RecordBatch, labels: &[&str]) -> (Option<f64>, Option<f64>, Option<f64>, Option<f64>, String) {
    let at = (0..table.num_rows())
        .find(|row| labels.iter().zip(1..).all(|(label, column)| table.column(column).as_string::<i32>().value(*row) == *label))
        .unwrap_or_else(|| panic!("every group has a row: {labels:?}"));
    let number = |name: &str| {
        let column = table.column_by_name(name).expect("a column").as_primitive::<Float64Type>();
        column.is_valid(at).then(|| column.value(at))
    };
    let status = table.column_by_name("status").expect("a column").as_string::<i32>().value(at).to_owned();
    (number("value"), number("low"), number("high"), number("stddev"), status)
}

async fn spent(releaser: &Releaser) -> (i64, usize) {
    let rows = releaser.metastore.budget().await.expect("reads");
    (rows.iter().map(|r| r.spent.rho.0).sum(), rows.iter().map(|r| r.charges.len()).sum())
}

#[tokio::test]
async fn a_closed_window_is_released_with_noise_around_the_truth() {
    let folder = tempfile::tempdir().expect("a folder");
    let releaser = closed(folder.path()).await;
    let reports = releaser.release_window(DAY).await.expect("releases");
    assert_eq!(statuses(&reports), all(ReleaseStatus::Released));
    let names: Vec<&str> = reports.iter().map(|r| r.record.metric.as_str()).collect();
    let listed: Vec<&str> = daily(&releaser.catalogue).iter().map(|m| m.name.as_str()).collect();
    assert_eq!(names, listed);

    // The truth, and the share of it that the bounds or the noise may take beside six standard deviations.
    for (metric, labels, truth) in [
        ("people_served_daily", &["DE", "android"][..], 8_000.0),
        ("messages_daily", &["DE", "person"], 160_000.0),
        ("call_minutes_daily", &["DE"], 240_000.0),
        ("senders_daily", &["DE"], 8_000.0),
        ("messages_per_sender_daily", &["android"], 20.0),
        ("callers_daily", &["DE", "voice"], 8_000.0),
        ("call_length_daily", &["voice"], 30.0),
        ("versions_daily", &["android", "unknown"], 8_000.0),
    ] {
        let (value, low, high, stddev, status) = row(&table(&releaser, metric).await, labels);
        let (value, stddev) = (value.expect("released"), stddev.expect("noise is told"));
        assert!((value - truth).abs() <= 6.0 * stddev, "{metric}: {value} ± {stddev} and not {truth}");
        assert!(stddev < truth / 3.0 && low < Some(value) && Some(value) < high && status == "released", "{metric}: {stddev}");
    }
    // Found groups have no rows where nobody is.
    assert_eq!(
        (table(&releaser, "versions_daily").await.num_rows(), table(&releaser, "crashes_by_version_daily").await.num_rows()),
        (1, 0)
    );
    // All callers called for half an hour: every quantile is near that, and so is the median's interval; there is no standard
    // deviation.
    let seconds = table(&releaser, "call_seconds_per_caller_daily").await;
    for share in ["median", "p90"] {
        let (value, low, high, stddev, status) = row(&seconds, &["voice", share]);
        // That an interval holds the truth is true of 95 in 100: `quantiles` counts them.
        assert!(low <= value && value <= high, "{share}: {low:?} {value:?} {high:?}");
        assert!(low > Some(1_700.0), "{share}: {low:?}");
        // Only a tenth of the callers is above the 90th percentile: the noise may reach beyond them, where nobody is any more.
        assert!(share != "median" || high < Some(1_900.0), "{share}: {value:?} {high:?}");
        assert_eq!((stddev, status.as_str()), (None, "released"));
        let nobody = row(&seconds, &["group video", share]);
        assert_eq!(
            (nobody.0, nobody.1, nobody.2, nobody.4.as_str()),
            (None, None, None, "suppressed"),
            "nobody made such a call"
        );
    }

    let catalogue = Catalogue::builtin().expect("reviewed");
    let metrics = daily(&catalogue).len();
    assert_eq!(spent(&releaser).await, (daily(&catalogue).iter().map(|m| m.rho.0).sum(), metrics));
    assert_eq!((log(&releaser, "person_rows_read").await, log(&releaser, "released").await), (1, metrics));
}

#[tokio::test]
async fn a_suppressed_group_is_null_and_never_zero() {
    let folder = tempfile::tempdir().expect("a folder");
    let releaser = closed(folder.path()).await;
    releaser.release_window(DAY).await.expect("releases");
    for metric in ["people_served_daily", "messages_daily", "call_minutes_daily"] {
        let table = table(&releaser, metric).await;
        let status = table.column_by_name("status").expect("a column").as_string::<i32>();
        let stddev = table.column_by_name("stddev").expect("a column").as_primitive::<Float64Type>();
        let value = table.column_by_name("value").expect("a column").as_primitive::<Float64Type>();
        let mut suppressed = 0;
        for row in 0..table.num_rows() {
            let is_suppressed = status.value(row) == "suppressed";
            suppressed += usize::from(is_suppressed);
            for name in ["value", "low", "high"] {
                assert_eq!(table.column_by_name(name).expect("a column").is_null(row), is_suppressed, "{metric} {name}");
            }
            assert!(is_suppressed || value.value(row) >= 4.0 * stddev.value(row));
        }
        assert!(suppressed > table.num_rows() - 8, "{metric}: nearly all groups are empty");
    }
}

/// A catalogue of this one metric, with a budget that leaves no noise to speak of.
fn rich(metric: &str) -> Catalogue {
    let datasets = include_str!("../../../../schemas/metrics/datasets.toml").replace("rho_limit = 0.0149", "rho_limit = 1000");
    let (before, budget) = metric.split_once("[budget]").expect("a budget");
    assert!(budget.contains("rho = "));
    Catalogue::parse(&datasets, &[("metric.toml", &format!("{before}[budget]\nrho = 300"))]).expect("definitions")
}

#[tokio::test]
async fn every_row_tells_what_the_bounds_cut_off_of_the_whole_metric() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut releaser = releaser(folder.path()).await;
    // One person in ten sent 180 messages, of which the bound takes 60: a third of all messages is cut off.
    let mut rows: Vec<Row> = people().into_iter().filter(|row| row.events == 20).take(1_000).collect();
    rows.iter_mut().step_by(10).for_each(|row| row.events = 180);
    close(&releaser, &rows, true).await;
    releaser.catalogue = Arc::new(rich(include_str!("../../../../schemas/metrics/messages_daily.toml")));
    releaser.release_window(DAY).await.expect("releases");
    let told = table(&releaser, "messages_daily").await;
    let column = |name: &str| told.column_by_name(name).expect("a column").as_primitive::<Float64Type>().clone();
    let (cut, people) = (column("cut"), column("people_cut"));
    assert!(told.num_rows() > 900 && cut.null_count() == 0, "suppressed groups tell it, too");
    assert!(cut.iter().flatten().all(|share| (share - 1.0 / 3.0).abs() < 0.02), "{}", cut.value(0));
    assert!(people.iter().flatten().all(|share| (share - 0.1).abs() < 0.01), "{}", people.value(0));
    let (value, ..) = row(&told, &["DE", "person"]);
    assert!(value.is_some_and(|value| (value - 24_000.0).abs() < 100.0), "{value:?}");
}

#[tokio::test]
async fn what_the_bounds_cut_off_is_not_told_where_noise_drowns_it_and_nothing_of_people_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let releaser = closed(folder.path()).await;
    releaser.release_window(DAY).await.expect("releases");
    for (metric, told) in [("messages_daily", [true, false]), ("call_seconds_per_caller_daily", [true, true])] {
        let table = table(&releaser, metric).await;
        for (name, nothing) in ["cut", "people_cut"].iter().zip(told) {
            assert_eq!(table.column_by_name(name).expect("a column").is_null(0), nothing, "{metric} {name}");
        }
    }
}

#[tokio::test]
async fn i3_a_window_released_twice_gives_the_same_bytes_and_costs_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let releaser = closed(folder.path()).await;
    let first = releaser.release_window(DAY).await.expect("releases");
    let before = (bytes(&releaser, "messages_daily").await, spent(&releaser).await);
    let second = releaser.release_window(DAY).await.expect("releases");
    assert_eq!(statuses(&second), all(ReleaseStatus::AlreadyReleased));
    assert_eq!(before, (bytes(&releaser, "messages_daily").await, spent(&releaser).await));
    for (a, b) in first.iter().zip(&second) {
        assert_eq!(a.record, b.record);
    }
    let hash = blake3::hash(&before.0.expect("there")).to_hex().to_string();
    assert_eq!(first[1].record.blake3, hash);
    assert_eq!(log(&releaser, "released").await, first.len());
}

#[tokio::test]
async fn i2_a_crash_between_charge_and_file_gives_one_release_under_the_one_charge() {
    let folder = tempfile::tempdir().expect("a folder");
    let releaser = closed(folder.path()).await;
    for metric in daily(&releaser.catalogue) {
        let Ok(Decision::Granted(charge)) = releaser.charge(metric, DAY).await else { panic!("granted") };
        assert!(charge.is_fresh());
    }
    let before = spent(&releaser).await;
    let reports = releaser.release_window(DAY).await.expect("releases");
    assert_eq!(statuses(&reports), all(ReleaseStatus::Released));
    assert_eq!(spent(&releaser).await, before);
    assert_eq!(log(&releaser, "released").await, reports.len());
}

#[tokio::test]
async fn i3_a_crash_between_file_and_record_keeps_the_file_even_after_the_rows_expired() {
    let folder = tempfile::tempdir().expect("a folder");
    let releaser = closed(folder.path()).await;
    releaser.release_window(DAY).await.expect("releases");
    let drawn = bytes(&releaser, "people_served_daily").await.expect("there");

    // Another metastore knows the charge, the file is there, the rows are gone.
    let folder = tempfile::tempdir().expect("a folder");
    let mut after = self::releaser(folder.path()).await;
    let mut one = (*after.catalogue).clone();
    one.metrics.truncate(1);
    after.catalogue = Arc::new(one);
    let _ = after.charge(&after.catalogue.metrics[0], DAY).await.expect("charged");
    after.files.put(&written::path("people_served_daily", DAY), drawn.clone()).await.expect("puts");
    let reports = after.release_window(DAY).await.expect("adopts");
    assert_eq!(statuses(&reports), [ReleaseStatus::Released]);
    assert_eq!(bytes(&after, "people_served_daily").await, Some(drawn));
    assert_eq!((log(&after, "released").await, log(&after, "person_rows_read").await), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i3_two_releasers_at_once_give_the_same_bytes() {
    let folder = tempfile::tempdir().expect("a folder");
    let one = closed(folder.path()).await;
    let two = self::releaser(folder.path()).await;
    let (a, b) = {
        let (one, two) = (one.clone(), two.clone());
        let (a, b) = (
            tokio::spawn(async move { one.release_window(DAY).await }),
            tokio::spawn(async move { two.release_window(DAY).await }),
        );
        (a.await.expect("ran").expect("releases"), b.await.expect("ran").expect("releases"))
    };
    for (a, b) in a.iter().zip(&b) {
        assert_eq!((&a.record.metric, &a.record.blake3), (&b.record.metric, &b.record.blake3));
        let there = bytes(&one, &a.record.metric).await.expect("there");
        assert_eq!(a.record.blake3, blake3::hash(&there).to_hex().to_string());
        let fresh = [a, b].iter().filter(|r| r.status == ReleaseStatus::Released).count();
        assert_eq!(fresh, 1, "one of the two recorded it");
    }
    assert_eq!(spent(&one).await.1, a.len());
}

#[tokio::test]
async fn i2_a_spent_budget_refuses_the_metric_and_says_what_is_left() {
    let folder = tempfile::tempdir().expect("a folder");
    let releaser = closed(folder.path()).await;
    let limits = releaser.catalogue.datasets["person_day"].limits();
    let [one, two, ..] = releaser.catalogue.metrics.as_slice() else { panic!("there are more") };
    let other = ChargeRequest {
        dataset: "person_day".to_owned(),
        epochs: [DAY].into(),
        question: "somebody else's question".to_owned(),
        cost: Cost::noise(NanoRho(limits.total.rho.0 - one.rho.0 - two.rho.0 - 1)),
        limits,
        spender: Spender::Releases,
        now_ms: NOW_MS,
    };
    releaser.metastore.charge(&other).await.expect("charged");
    let reports = releaser.release_window(DAY).await.expect("releases");
    let left = NanoRho(1);
    let refused = vec![ReleaseStatus::Refused { left }; reports.len() - 2];
    assert_eq!(statuses(&reports), [vec![ReleaseStatus::Released; 2], refused].concat());
    assert_eq!(bytes(&releaser, "call_minutes_daily").await, None);
    assert_eq!(reports[2].record.blake3, "");
}

#[tokio::test]
async fn a_window_of_nobody_is_released_and_shows_hardly_any_group() {
    let folder = tempfile::tempdir().expect("a folder");
    let releaser = releaser(folder.path()).await;
    close(&releaser, &[], false).await;
    let reports = releaser.release_window(DAY).await.expect("releases");
    let shown: u64 = reports.iter().map(|report| report.record.rows - report.record.suppressed).sum();
    // An empty group is shown in 3 of 100,000 cases; shares of nobody, where both numbers are noise, now and then more.
    assert!(shown <= 20, "{reports:#?}");
    assert!(reports.iter().any(|report| report.record.rows >= 1_700), "every group has a row");
}

#[tokio::test]
async fn i7_expired_rows_are_said_to_be_expired_and_cost_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let releaser = closed(folder.path()).await;
    releaser.keyring.destroy(data_key(), NOW_MS).expect("destroys");
    let error = releaser.release_window(DAY).await.expect_err("gone");
    assert!(matches!(error, ReleaseError::Expired { window } if window == DAY.into()), "{error}");
    releaser.metastore.expire_window(DAY, NOW_MS).await.expect("expires");
    let error = releaser.release_window(DAY).await.expect_err("gone");
    insta::assert_snapshot!(error, @"window 2026-01-05 has expired: its person rows are gone, and what was not released cannot be released any more");
    assert_eq!(spent(&releaser).await, (0, 0));
}

#[tokio::test]
async fn i3_an_hour_is_released_once_and_its_rows_say_which_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let releaser = releaser(folder.path()).await;
    let hour = DAY.hour_at(9);
    let id = KeyId { kind: KeyKind::Data, purpose: Purpose::AnalyticsHour, epoch: hour };
    let key = releaser.keyring.get_or_create(id).expect("a key");
    let mut table =
        TableWriter::new(&releaser.files, &key, "people/hour.parquet", Arc::clone(&PRESENCE_ROWS)).await.expect("opens");
    let people = (0..2_000_u128).map(u128::to_be_bytes).collect::<Vec<_>>().concat();
    let people = FixedSizeBinaryArray::try_new(16, people.into(), None).expect("16 bytes each");
    table
        .write(&RecordBatch::try_new(Arc::clone(&PRESENCE_ROWS), vec![Arc::new(people)]).expect("the schema"))
        .await
        .expect("writes");
    let table = table.finish().await.expect("in place");
    releaser.metastore.begin_close(hour, NOW_MS).await.expect("begins");
    releaser.metastore.finish_close(hour, &table, true, NOW_MS).await.expect("closes");

    let reports = releaser.release_window(hour).await.expect("releases");
    let [report] = &reports[..] else { panic!("one metric is of hours: {reports:?}") };
    assert_eq!(report.record.path, "stats/people_served_hourly/2026-01-05T09.parquet");
    let first = releaser.files.get(&report.record.path).await.expect("reads").expect("there");
    let again = releaser.release_window(hour).await.expect("again");
    assert_eq!(statuses(&again), [ReleaseStatus::AlreadyReleased]);
    assert_eq!(releaser.files.get(&report.record.path).await.expect("reads"), Some(first.clone()));
    assert_eq!(spent(&releaser).await, (50_000, 1));
    assert_eq!(releaser.metastore.budget().await.expect("reads")[0].block.epoch, hour);

    // Its Delta log tells a reader which day and hour the file is of.
    assert_eq!(crate::delta::publish(&releaser.files, std::slice::from_ref(&report.record)).await.expect("publishes"), 1);
    let log = releaser
        .files
        .get("stats/people_served_hourly/_delta_log/00000000000000000000.json")
        .await
        .expect("reads")
        .expect("there");
    let log = String::from_utf8(log.to_vec()).expect("text");
    assert!(log.contains(r#"\"minValues\":{\"day\":\"2026-01-05\",\"hour\":9}"#), "{log}");

    // It is served as what it is, and another hour's file, whose hash were recorded for it, is not.
    let metric = releaser.catalogue.metrics_of(Span::Hour).next().expect("one").clone();
    let planner = Planner::over(&releaser.catalogue).expect("plans");
    let planned = planner.plan(&metric).await.expect("plans");
    let schema = written::schema(&metric, &planned.keys, &planned.leaf);
    let read = crate::released::read(&report.record, &schema, first.clone()).expect("as it was released");
    let [day, at] = ["day", "hour"].map(|name| read.rows.column_by_name(name).expect("a column"));
    assert_eq!((day.as_primitive::<Date32Type>().value(0), at.as_primitive::<Int64Type>().value(0)), (DAY.0, 9));
    for other in [DAY.hour_at(10), EpochId(DAY.0 + 1).hour_at(9), DAY] {
        let record = ReleaseRecord { epoch: other, ..report.record.clone() };
        assert!(crate::released::read(&record, &schema, first.clone()).is_err(), "{other}");
    }
}

#[tokio::test]
async fn a_window_that_is_open_or_unknown_is_not_released() {
    let folder = tempfile::tempdir().expect("a folder");
    let releaser = releaser(folder.path()).await;
    let error = releaser.release_window(DAY).await.expect_err("unknown");
    insta::assert_snapshot!(error, @"window 2026-01-05 is not known: no event of it was counted");
    releaser.metastore.begin_close(DAY, NOW_MS).await.expect("begins");
    let error = releaser.release_window(DAY).await.expect_err("closing");
    insta::assert_snapshot!(error, @"window 2026-01-05 is closing: statistics are released when it has closed");
    assert_eq!(spent(&releaser).await, (0, 0));
}

#[tokio::test]
async fn i8_an_unsorted_table_gives_an_error_and_no_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let releaser = releaser(folder.path()).await;
    let mut rows = people();
    rows.reverse();
    close(&releaser, &rows, true).await;
    let error = releaser.release_window(DAY).await.expect_err("refused");
    assert!(error.to_string().contains("not sorted by person"), "{error}");
    assert_eq!(bytes(&releaser, "people_served_daily").await, None);
}

#[tokio::test]
async fn a_foreign_file_at_a_releases_place_is_not_recorded() {
    let folder = tempfile::tempdir().expect("a folder");
    let releaser = closed(folder.path()).await;
    releaser.files.put(&written::path("messages_daily", DAY), Bytes::from_static(b"something else")).await.expect("puts");
    let error = releaser.release_window(DAY).await.expect_err("foreign");
    insta::assert_snapshot!(error, @"`stats/messages_daily/2026-01-05.parquet` is not a release of this metric and window: move it away and look at where it came from");
    assert!(releaser.metastore.releases().await.expect("reads").is_empty());
}

#[tokio::test]
async fn i2_a_metric_that_became_dearer_since_it_was_charged_is_drawn_at_the_cost_of_then() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut releaser = closed(folder.path()).await;
    let metric = releaser.catalogue.metrics[0].clone();
    let then = NanoRho(100_000);
    let request = ChargeRequest {
        dataset: metric.dataset.clone(),
        epochs: [DAY].into(),
        question: metric.question(),
        cost: Cost::noise(then),
        limits: releaser.catalogue.datasets[&metric.dataset].limits(),
        spender: Spender::Releases,
        now_ms: NOW_MS,
    };
    releaser.metastore.charge(&request).await.expect("charged");
    let mut one = (*releaser.catalogue).clone();
    one.metrics.truncate(1);
    releaser.catalogue = Arc::new(one);
    let reports = releaser.release_window(DAY).await.expect("releases");
    assert_eq!(reports[0].record.rho, then);
    let (.., stddev, _) = row(&table(&releaser, &metric.name).await, &["DE", "android"]);
    // √2 / √(2ρ) people, of 0.98 ρ: a fiftieth tells what the bounds cut off.
    assert!(stddev.is_some_and(|stddev| (stddev - 101.0).abs() < 0.5), "{stddev:?}");
    assert_eq!(spent(&releaser).await, (then.0, 1));
}

#[tokio::test]
async fn a_metric_that_cannot_be_planned_is_told_before_anything_is_charged() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut releaser = closed(folder.path()).await;
    let mut wrong = (*releaser.catalogue).clone();
    wrong.metrics[1].query = "SELECT country, MAX(events) AS value FROM private.person_day GROUP BY country".to_owned();
    releaser.catalogue = Arc::new(wrong);
    let error = releaser.release_window(DAY).await.expect_err("no single row's value");
    assert!(matches!(&error, ReleaseError::Definition { metric, .. } if metric == "messages_daily"), "{error}");
    assert_eq!(spent(&releaser).await, (0, 0));
}
