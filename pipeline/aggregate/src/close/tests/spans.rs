//! Weeks and months: whom they hold, what they wait for, and when they end.

use starling_schemas::ids::{AnalyticsWeek, Pseudonym};
use starling_schemas::rows::PRESENCE_ROWS;

use super::*;

/// 2026-01-05, a Monday: both a week and its fourth part of a month begin by then.
const WEEK: WindowId = Span::Week.of(DAY);

pub(super) fn day(number: i32) -> EpochId {
    EpochId(DAY.0 + number)
}

/// As minimize would name person `n` in a week or month.
pub(super) fn pseudonym(n: u8) -> [u8; 16] {
    *Pseudonym::<AnalyticsWeek>::from_keyed_hash([n; 16]).as_bytes()
}

pub(super) fn present(people: &[u8]) -> RecordBatch {
    let values = people.iter().map(|n| pseudonym(*n));
    let column = FixedSizeBinaryArray::try_from_iter(values).expect("a column");
    RecordBatch::try_new(Arc::clone(&PRESENCE_ROWS), vec![Arc::new(column)]).expect("rows")
}

impl House {
    /// One range: `people` are counted on `day` and were there in `windows`.
    pub(super) async fn ingest_present(&self, number: i32, from: i64, day: EpochId, people: &[u8], windows: &[WindowId]) {
        let closer = &self.closer;
        let events: Vec<Event> = people
            .iter()
            .map(|n| Event { person: u128::from(*n), day: day.0, country: 1, platform: 1, activity: 1, ..Event::default() })
            .collect();
        let plan = self.plan(number, from, &events).await;
        let mut folder = Folder::new();
        folder.fold(&clean(&events)).expect("clean rows");
        let mut segments = Vec::new();
        let key = |window: WindowId| KeyId { kind: KeyKind::Pseudonym, purpose: window.span.purpose(), epoch: window.epoch };
        for (day, rows) in folder.finish().expect("rows") {
            closer.keyring.get_or_create(key(day.into())).expect("key");
            segments.push(
                write_segment(&closer.files, &closer.keyring, &plan.partition, plan.sequence, day, &rows).await.expect("writes"),
            );
        }
        for window in windows {
            closer.keyring.get_or_create(key(*window)).expect("key");
            let rows = present(people);
            segments.push(
                write_segment(&closer.files, &closer.keyring, &plan.partition, plan.sequence, *window, &rows)
                    .await
                    .expect("writes"),
            );
        }
        let events = events.len() as u64;
        let outcome = RangeOutcome {
            events,
            counts: vec![(Some(day), Outcome::Counted, events)],
            watermark_ms: Some(1),
            segments,
            ..RangeOutcome::default()
        };
        closer.metastore.commit(&plan, &outcome, self.now()).await.expect("commits");
    }

    /// Two ranges in the week's first day, one in its last, one in the week after.
    async fn week() -> Self {
        let house = Self::new().await;
        house.ingest_present(0, 0, DAY, &[1, 2, 2, 3], &[WEEK]).await;
        house.ingest_present(1, 0, DAY, &[3, 9], &[WEEK]).await;
        house.ingest_present(0, 4, day(6), &[1, 7], &[WEEK]).await;
        house.ingest_present(0, 6, day(7), &[5], &[Span::Week.of(day(7))]).await;
        house
    }

    pub(super) async fn people_of(&self, window: WindowId) -> Vec<[u8; 16]> {
        let key = data_key(&self.closer.keyring, window).expect("key");
        let mut batches = read_table(&self.closer.files, &key, &table_path(window)).await.expect("opens");
        let mut people = Vec::new();
        while let Some(batch) = batches.next().await {
            let batch = batch.expect("reads");
            assert_eq!(batch.num_columns(), 1, "the person and nothing more");
            people.extend_from_slice(crate::rows::people(&batch).expect("people"));
        }
        people
    }

    pub(super) fn has_key(&self, kind: KeyKind, window: WindowId) -> bool {
        self.closer.keyring.get(KeyId { kind, purpose: window.span.purpose(), epoch: window.epoch }).is_ok()
    }

    /// Tables and segments of a window.
    pub(super) async fn files_of(&self, window: WindowId) -> usize {
        let mut files = self.closer.files.list("people/").await.expect("lists");
        files.extend(self.closer.files.list("segments/").await.expect("lists"));
        files.iter().filter(|path| path.contains(&window.to_string())).count()
    }

    async fn closed_days(&self, days: &[i32]) {
        for number in days {
            self.closer.close(day(*number), true).await.expect("closes");
        }
    }
}

#[test]
fn a_week_is_seven_days_from_monday_and_a_month_four_of_them() {
    assert_eq!((WEEK.to_string(), WEEK.last()), ("week-2026-01-05".to_owned(), day(6)));
    let month = Span::Month.of(DAY);
    assert_eq!((month.span.epochs(), Span::Week.of(month.epoch).epoch), (28, month.epoch));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_week_closes_to_each_of_its_people_once_and_its_pseudonym_key_dies() {
    let house = House::week().await;
    let closer = &house.closer;
    assert_eq!(closer.over().await.expect("reads"), []);
    for closed in [&[][..], &[0]] {
        house.closed_days(closed).await;
        let error = closer.close(WEEK, true).await.expect_err("its days are open");
        assert!(matches!(error, AggregateError::DaysOpen { window } if window == WEEK), "{error}");
        let forced = closer.close(WEEK, false).await.expect_err("a deadline changes nothing of that");
        assert!(matches!(forced, AggregateError::DaysOpen { .. }), "{forced}");
        assert!(house.has_key(KeyKind::Pseudonym, WEEK), "it can still be written to");
    }
    house.closed_days(&[6]).await;
    assert_eq!(closer.over().await.expect("reads").iter().map(WindowRecord::id).collect::<Vec<_>>(), [WEEK]);

    let report = closer.close(WEEK, true).await.expect("closes");
    assert!(report.complete && !report.already_closed && report.outcomes.is_empty());
    assert_eq!((report.segments, report.table.rows), (3, 5));
    assert_eq!(house.people_of(WEEK).await, [1, 2, 3, 7, 9].map(pseudonym));
    assert!(!house.has_key(KeyKind::Pseudonym, WEEK) && house.has_key(KeyKind::Data, WEEK));
    assert!(closer.files.list("segments/week-2026-01-05/").await.expect("lists").is_empty());
    let next = Span::Week.of(day(7));
    assert!(house.has_key(KeyKind::Pseudonym, next));
    assert_eq!(closer.metastore.segments(next).await.expect("reads").len(), 1);
    assert_eq!(closer.over().await.expect("reads"), []);
    let told = house.audit("window_closed").await;
    assert_eq!(told.last().expect("an entry").detail["week"], json!("2026-01-05"), "{:?}", told.last());

    let again = closer.close(WEEK, true).await.expect("again");
    assert!(again.already_closed);
    assert_eq!(again.table, report.table);
    closer.repair().await.expect("nothing is left");
    assert_eq!(house.audit("window_closed").await.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_week_whose_last_day_nobody_came_on_is_over_when_a_later_day_is() {
    let house = House::new().await;
    house.ingest_present(0, 0, DAY, &[1], &[WEEK]).await;
    house.ingest_present(0, 1, day(8), &[2], &[]).await;
    house.closed_days(&[0]).await;
    assert_eq!(house.closer.over().await.expect("reads"), []);
    house.closed_days(&[8]).await;
    assert_eq!(house.closer.over().await.expect("reads").len(), 1);
    house.closer.close(WEEK, true).await.expect("closes");
    assert_eq!(house.people_of(WEEK).await, [pseudonym(1)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i9_a_week_s_close_that_died_on_its_way_is_finished_by_the_next_one() {
    for (step, point) in ["after_begin_close", "after_finish_close", "after_segments", "after_key_destroyed"].iter().enumerate() {
        let house = House::week().await;
        house.closed_days(&[0, 6]).await;
        let closer = &house.closer;
        closer.metastore.begin_close(WEEK, house.now()).await.expect("begins");
        if step >= 1 {
            let mut segments = closer.metastore.segments(WEEK).await.expect("reads");
            let spill = Spill::open(&closer.spill_dir).expect("opens");
            let (writer, _) = closer.merge(WEEK, true, &mut segments, &mut Shortfall::default(), &spill).await.expect("merges");
            let table = writer.finish().await.expect("finishes");
            closer.metastore.finish_close(WEEK, &table, true, house.now()).await.expect("finishes");
            drop(spill);
        }
        if step >= 2 {
            closer.delete_segments(WEEK).await.expect("deletes");
        }
        if step >= 3 {
            let id = KeyId { kind: KeyKind::Pseudonym, purpose: Purpose::AnalyticsWeek, epoch: WEEK.epoch };
            closer.keyring.destroy(id, house.now()).expect("destroys");
        }
        closer.repair().await.expect("repairs");
        let report = closer.close(WEEK, true).await.expect("closes");
        assert_eq!(report.already_closed, step >= 1, "{point}");
        assert_eq!(house.people_of(WEEK).await, [1, 2, 3, 7, 9].map(pseudonym), "{point}");
        assert!(!house.has_key(KeyKind::Pseudonym, WEEK), "{point}");
        let closes = house.audit("window_closed").await;
        assert_eq!(closes.len(), 3, "{point}");
        assert_eq!(house.audit("key_destroyed").await.len(), 3, "{point}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p16_when_a_day_has_closed_a_weeks_segments_become_one_that_tells_no_day() {
    let house = House::week().await;
    let closer = &house.closer;
    assert_eq!(closer.gather().await.expect("no day has closed"), 0);
    house.closed_days(&[0]).await;
    // A range in work has written its segment and not committed it; a zombie has written one that nobody knows.
    let in_work = house.plan(1, 2, &events(4, 1)).await;
    let written = |sequence| {
        let (files, keyring, partition) = (&closer.files, &closer.keyring, &in_work.partition);
        let rows = present(&[4]);
        async move { write_segment(files, keyring, partition, sequence, WEEK, &rows).await.expect("writes") }
    };
    let kept = written(in_work.sequence).await;
    let stray = written(starling_schemas::ids::Sequence(99)).await;

    assert_eq!(closer.gather().await.expect("gathers"), 3);
    let segments = closer.metastore.segments(WEEK).await.expect("reads");
    let [one] = &segments[..] else { panic!("one is left: {segments:?}") };
    assert_eq!((&*one.path, one.rows), ("segments/week-2026-01-05/gathered-2026-01-05-3.parquet", 5));
    let mut files = closer.files.list("segments/week-2026-01-05/").await.expect("lists");
    files.sort();
    assert_eq!(files, [kept.path.clone(), one.path.clone()]);
    assert!(closer.files.get(&stray.path).await.expect("reads").is_none());
    assert_eq!(closer.gather().await.expect("once a day"), 0);
    assert_eq!(closer.metastore.segments(Span::Week.of(day(7))).await.expect("reads").len(), 1, "it has not begun");

    // Its own day is none of this test's business: counted, it would hold the week open.
    let counts = vec![(Some(day(1)), Outcome::Late, 1)];
    let outcome = RangeOutcome { events: 1, counts, watermark_ms: Some(1), segments: vec![kept], ..RangeOutcome::default() };
    closer.metastore.commit(&in_work, &outcome, house.now()).await.expect("commits");
    house.closed_days(&[6]).await;
    assert_eq!(closer.gather().await.expect("gathers"), 2);
    closer.close(WEEK, true).await.expect("closes");
    assert_eq!(house.people_of(WEEK).await, [1, 2, 3, 4, 7, 9].map(pseudonym));
    assert_eq!(closer.gather().await.expect("it is closed"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i9_a_gathering_that_died_anywhere_is_finished_by_the_next_look_and_loses_nobody() {
    for point in ["after_file", "after_records", "after_some_files"] {
        let house = House::week().await;
        house.closed_days(&[0]).await;
        let closer = &house.closer;
        let segments = closer.metastore.segments(WEEK).await.expect("reads");
        let path = "segments/week-2026-01-05/gathered-2026-01-05-3.parquet".to_owned();
        let spill = Spill::open(&closer.spill_dir).expect("opens");
        let key = Arc::new(data_key(&closer.keyring, WEEK).expect("key"));
        let merger = Merger::new(key, Span::Week, closer.memory_bytes).expect("merger");
        let (writer, _) = merger.merge(&closer.files, &segments, &spill, &path).await.expect("merges");
        let table = writer.finish().await.expect("finishes");
        drop(spill);
        if point != "after_file" {
            let into = SegmentRecord { window: WEEK, path, rows: table.rows, bytes: table.bytes };
            assert!(closer.metastore.gather_segments(&segments, &into, DAY).await.expect("replaces"));
            assert!(!closer.metastore.gather_segments(&segments, &into, DAY).await.expect("nothing"), "once");
        }
        if point == "after_some_files" {
            closer.files.delete(&segments[0].path).await.expect("deletes");
        }
        closer.gather().await.expect("gathers or sweeps");
        let records = closer.metastore.segments(WEEK).await.expect("reads");
        let files = closer.files.list("segments/week-2026-01-05/").await.expect("lists");
        assert_eq!((records.len(), files), (1, vec![records[0].path.clone()]), "{point}");
        house.closed_days(&[6]).await;
        closer.gather().await.expect("gathers");
        assert!(closer.close(WEEK, true).await.expect("closes").complete);
        assert_eq!(house.people_of(WEEK).await, [1, 2, 3, 7, 9].map(pseudonym), "{point}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i1_what_is_lost_is_not_gathered_over_and_who_was_slower_changes_nothing() {
    let house = House::week().await;
    house.closed_days(&[0]).await;
    let closer = &house.closer;
    let segments = closer.metastore.segments(WEEK).await.expect("reads");
    let lost = closer.files.get(&segments[1].path).await.expect("reads").expect("there");
    closer.files.delete(&segments[1].path).await.expect("deletes");
    assert_eq!(closer.gather().await.expect("says so in the log"), 0);
    assert_eq!(closer.metastore.segments(WEEK).await.expect("reads"), segments);
    closer.files.put(&segments[1].path, lost).await.expect("puts");
    assert_eq!(closer.gather().await.expect("gathers"), 3);

    // Records that are not there any more, a window that is being closed: nothing is put into their place.
    let into = SegmentRecord { path: "segments/week-2026-01-05/gathered-x".to_owned(), ..segments[0].clone() };
    assert!(!closer.metastore.gather_segments(&segments, &into, day(1)).await.expect("nothing"));
    let now = closer.metastore.segments(WEEK).await.expect("reads");
    closer.metastore.begin_close(WEEK, house.now()).await.expect("begins");
    assert!(!closer.metastore.gather_segments(&now, &into, day(1)).await.expect("nothing"));
    assert_eq!(closer.metastore.segments(WEEK).await.expect("reads"), now);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_week_with_an_incomplete_day_is_incomplete_and_the_log_says_so() {
    let house = House::week().await;
    let closer = &house.closer;
    let lost = closer.metastore.segments(day(6)).await.expect("reads");
    closer.files.delete(&lost[0].path).await.expect("deletes");
    house.closed_days(&[0]).await;
    closer.close_waiting(day(6), false, SOON).await.expect("closes without its rows");
    let report = closer.close(WEEK, true).await.expect("closes");
    assert!(!report.complete);
    assert_eq!(report.shortfall.map(|s| (s.incomplete_days, s.lost_segments, s.counted, s.in_rows)), Some((1, 0, 7, 7)));
    assert_eq!(closer.window(WEEK).await.expect("window").state, WindowState::Incomplete);
    assert_eq!(house.audit("window_incomplete").await.last().expect("an entry").detail["incomplete_days"], json!(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i1_rows_that_a_week_s_segments_lost_refuse_a_complete_close() {
    let house = House::week().await;
    let closer = &house.closer;
    house.closed_days(&[0, 6]).await;
    let segments = closer.metastore.segments(WEEK).await.expect("reads");
    assert_eq!(segments.iter().map(|s| s.rows).sum::<u64>(), 3 + 2 + 2);
    // A file that opens and holds a person less.
    let key = data_key(&closer.keyring, WEEK).expect("key");
    let bytes = starling_store::encrypt_batches(&key, Arc::clone(&PRESENCE_ROWS), &[present(&[1, 2])]).expect("encrypts");
    closer.files.put(&segments[0].path, bytes).await.expect("puts");
    let error = closer.close(WEEK, true).await.expect_err("one is missing");
    assert!(matches!(error, AggregateError::CountsDiffer { what: "rows", counted: 7, in_rows: 6, .. }), "{error}");
    assert!(house.has_key(KeyKind::Pseudonym, WEEK));

    closer.files.delete(&segments[0].path).await.expect("deletes");
    assert!(matches!(closer.close(WEEK, true).await, Err(AggregateError::Store(StoreError::FileMissing { .. }))));
    let report = closer.close_waiting(WEEK, false, SOON).await.expect("the deadline overrides");
    assert_eq!(report.shortfall.map(|s| (s.incomplete_days, s.lost_segments, s.counted, s.in_rows)), Some((0, 1, 7, 4)));
    assert_eq!(house.people_of(WEEK).await, [1, 3, 7, 9].map(pseudonym));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p42_a_month_s_rows_end_thirty_days_after_its_beginning_closed_or_not_and_are_spared_once() {
    for closes in [true, false] {
        let house = House::new().await;
        let month = Span::Month.of(DAY);
        house.clock.set(month.epoch.start_ms());
        house.ingest_present(0, 0, month.last(), &[1, 2], &[month]).await;
        let closer = &house.closer;
        house.clock.set(month.epoch.start_ms() + MAX_KEEP_MS - 1);
        if closes {
            closer.close(month.last(), true).await.expect("closes");
            closer.close(month, true).await.expect("closes");
        }
        assert_eq!(house.files_of(month).await, 1);
        assert_eq!(closer.expire(MAX_KEEP_MS, &BTreeSet::new()).await.expect("a millisecond is left"), []);
        house.clock.set(month.epoch.start_ms() + MAX_KEEP_MS);
        assert_eq!(closer.expire(MAX_KEEP_MS, &BTreeSet::from([month])).await.expect("spared"), []);
        assert_eq!(closer.expire(MAX_KEEP_MS, &BTreeSet::new()).await.expect("expires"), [month]);
        assert_eq!(closer.expire(MAX_KEEP_MS, &BTreeSet::new()).await.expect("once"), []);
        assert!(!house.has_key(KeyKind::Data, month) && !house.has_key(KeyKind::Pseudonym, month));
        assert_eq!(house.files_of(month).await, 0);
        assert!(matches!(closer.close(month, true).await, Err(AggregateError::Expired { .. } | AggregateError::DaysOpen { .. })));
        assert!(matches!(data_key(&closer.keyring, month), Err(AggregateError::Expired { window }) if window == month));
        closer.repair().await.expect("leaves it alone");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_weeks_nobody_was_counted_in_die_with_the_week() {
    let house = House::new().await;
    let closer = &house.closer;
    house.ingest_present(0, 0, DAY, &[1], &[]).await;
    house.ingest_present(0, 1, day(6), &[1], &[]).await;
    let id = KeyId { kind: KeyKind::Pseudonym, purpose: Purpose::AnalyticsWeek, epoch: WEEK.epoch };
    closer.keyring.get_or_create(id).expect("key");
    house.closed_days(&[0]).await;
    closer.repair().await.expect("repairs");
    assert!(house.has_key(KeyKind::Pseudonym, WEEK), "the week goes on");
    house.closed_days(&[6]).await;
    closer.repair().await.expect("repairs");
    assert!(!house.has_key(KeyKind::Pseudonym, WEEK));
}
