use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::AsArray;
use arrow::datatypes::Float64Type;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use starling_schemas::codes::{Activity, Country};
use starling_schemas::rows::PERSON_ROWS;
use starling_schemas::time::{Entropy, FixedClock, NoEntropy};
use starling_store::TableWriter;

use super::*;
use crate::testing::{Row, batch};

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

/// 3,000 people in Germany on Android, each with 20 messages to a person and a call of 30 minutes.
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
    (0..3000).flat_map(|p| [row(p, Activity::MessagePerson, 20, 0), row(p, Activity::CallVoice, 1, 1800)]).collect()
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
    releaser.files.get(&released::path(metric, DAY)).await.expect("reads")
}

fn statuses(reports: &[ReleaseReport]) -> Vec<ReleaseStatus> {
    reports.iter().map(|r| r.status).collect()
}

async fn log(releaser: &Releaser, kind: &str) -> usize {
    releaser.metastore.verify_audit().await.expect("the chain holds");
    releaser.metastore.audit_tail(100).await.expect("reads").iter().filter(|e| e.kind == kind).count()
}

async fn spent(releaser: &Releaser) -> (i64, usize) {
    let rows = releaser.metastore.budget().await.expect("reads");
    (rows.iter().map(|r| r.spent.0).sum(), rows.iter().map(|r| r.charges.len()).sum())
}

#[tokio::test]
async fn a_closed_window_is_released_with_noise_around_the_truth() {
    let folder = tempfile::tempdir().expect("a folder");
    let releaser = closed(folder.path()).await;
    let reports = releaser.release_window(DAY).await.expect("releases");
    assert_eq!(statuses(&reports), [ReleaseStatus::Released; 3]);
    let names: Vec<&str> = reports.iter().map(|r| r.record.metric.as_str()).collect();
    assert_eq!(names, ["people_served_daily", "messages_daily", "call_minutes_daily"]);

    // Truth, and six standard deviations of each metric's noise.
    for (metric, truth, within, group) in [
        ("people_served_daily", 3000.0, 95.0, 2),
        ("messages_daily", 60_000.0, 8050.0, 2),
        ("call_minutes_daily", 90_000.0, 9300.0, 1),
    ] {
        let bytes = bytes(&releaser, metric).await.expect("there");
        let table = ParquetRecordBatchReaderBuilder::try_new(bytes)
            .expect("Parquet")
            .build()
            .expect("reads")
            .next()
            .expect("a batch")
            .expect("reads");
        let country = table.column_by_name("country").expect("a column").as_string::<i32>();
        let value = table.column_by_name("value").expect("a column").as_primitive::<Float64Type>();
        let second = table.column(group).as_any().downcast_ref::<arrow::array::StringArray>();
        let wanted = |row: &usize| {
            country.value(*row) == "DE" && second.is_none_or(|s| ["android", "person", "DE"].contains(&s.value(*row)))
        };
        let row = (0..table.num_rows()).find(wanted).expect("every group has a row");
        assert!((value.value(row) - truth).abs() < within, "{metric}: {}", value.value(row));
    }

    let catalogue = Catalogue::builtin().expect("reviewed");
    assert_eq!(spent(&releaser).await, (catalogue.metrics.iter().map(|m| m.rho.0).sum(), 3));
    assert_eq!((log(&releaser, "person_rows_read").await, log(&releaser, "released").await), (1, 3));
}

#[tokio::test]
async fn i3_a_window_released_twice_gives_the_same_bytes_and_costs_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let releaser = closed(folder.path()).await;
    let first = releaser.release_window(DAY).await.expect("releases");
    let before = (bytes(&releaser, "messages_daily").await, spent(&releaser).await);
    let second = releaser.release_window(DAY).await.expect("releases");
    assert_eq!(statuses(&second), [ReleaseStatus::AlreadyReleased; 3]);
    assert_eq!(before, (bytes(&releaser, "messages_daily").await, spent(&releaser).await));
    for (a, b) in first.iter().zip(&second) {
        assert_eq!(a.record, b.record);
    }
    let hash = blake3::hash(&before.0.expect("there")).to_hex().to_string();
    assert_eq!(first[1].record.blake3, hash);
    assert_eq!(log(&releaser, "released").await, 3);
}

#[tokio::test]
async fn i2_a_crash_between_charge_and_file_gives_one_release_under_the_one_charge() {
    let folder = tempfile::tempdir().expect("a folder");
    let releaser = closed(folder.path()).await;
    for metric in &releaser.catalogue.metrics {
        let Ok(Decision::Granted(charge)) = releaser.charge(metric, DAY).await else { panic!("granted") };
        assert!(charge.is_fresh());
    }
    let before = spent(&releaser).await;
    let reports = releaser.release_window(DAY).await.expect("releases");
    assert_eq!(statuses(&reports), [ReleaseStatus::Released; 3]);
    assert_eq!(spent(&releaser).await, before);
    assert_eq!(log(&releaser, "released").await, 3);
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
    after.files.put(&released::path("people_served_daily", DAY), drawn.clone()).await.expect("puts");
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
    assert_eq!(spent(&one).await.1, 3);
}

#[tokio::test]
async fn i2_a_spent_budget_refuses_the_metric_and_says_what_is_left() {
    let folder = tempfile::tempdir().expect("a folder");
    let releaser = closed(folder.path()).await;
    let block = Block { dataset: "person_day".to_owned(), epoch: DAY };
    let limit = releaser.catalogue.datasets["person_day"].limit();
    let other = NanoRho(limit.0 - 7_000_000 - 1);
    releaser.metastore.charge(&block, limit, other, "somebody else's question", NOW_MS).await.expect("charged");
    let reports = releaser.release_window(DAY).await.expect("releases");
    let left = NanoRho(1);
    assert_eq!(statuses(&reports), [ReleaseStatus::Released, ReleaseStatus::Released, ReleaseStatus::Refused { left }]);
    assert_eq!(bytes(&releaser, "call_minutes_daily").await, None);
    assert_eq!(reports[2].record.blake3, "");
}

#[tokio::test]
async fn a_window_of_nobody_is_released_and_shows_hardly_any_group() {
    let folder = tempfile::tempdir().expect("a folder");
    let releaser = releaser(folder.path()).await;
    close(&releaser, &[], false).await;
    let reports = releaser.release_window(DAY).await.expect("releases");
    for report in &reports {
        assert!(report.record.rows - report.record.suppressed <= 5, "{report:?}");
        assert!(report.record.rows >= 250);
    }
}

#[tokio::test]
async fn i7_expired_rows_are_said_to_be_expired_and_cost_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let releaser = closed(folder.path()).await;
    releaser.keyring.destroy(data_key(), NOW_MS).expect("destroys");
    let error = releaser.release_window(DAY).await.expect_err("gone");
    assert!(matches!(error, PrivacyError::Expired { epoch: DAY }), "{error}");
    releaser.metastore.expire_window(DAY, NOW_MS).await.expect("expires");
    let error = releaser.release_window(DAY).await.expect_err("gone");
    insta::assert_snapshot!(error, @"window 2026-01-05 has expired: its person rows are gone, and what was not released cannot be released any more");
    assert_eq!(spent(&releaser).await, (0, 0));
}

#[tokio::test]
async fn a_window_that_is_open_or_unknown_is_not_released() {
    let folder = tempfile::tempdir().expect("a folder");
    let releaser = releaser(folder.path()).await;
    let error = releaser.release_window(DAY).await.expect_err("unknown");
    insta::assert_snapshot!(error, @"window 2026-01-05 is not known: no event of that day was counted");
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
    assert!(matches!(error, PrivacyError::Unsorted), "{error}");
    assert_eq!(bytes(&releaser, "people_served_daily").await, None);
}

#[tokio::test]
async fn a_foreign_file_at_a_releases_place_is_not_recorded() {
    let folder = tempfile::tempdir().expect("a folder");
    let releaser = closed(folder.path()).await;
    releaser.files.put(&released::path("messages_daily", DAY), Bytes::from_static(b"something else")).await.expect("puts");
    let error = releaser.release_window(DAY).await.expect_err("foreign");
    insta::assert_snapshot!(error, @"`stats/messages_daily/2026-01-05.parquet` is not a release of this metric and window: move it away and look at where it came from");
    assert!(releaser.metastore.releases().await.expect("reads").is_empty());
}
