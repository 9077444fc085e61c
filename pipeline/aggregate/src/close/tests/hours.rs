//! Hours: they go by themselves, hold each person once and nothing else of them, and are gone soon.

use super::spans::{day, present, pseudonym};
use super::*;

fn hour(number: u8) -> WindowId {
    DAY.hour_at(number).into()
}

/// The middle of an hour of the day.
fn half_past(number: u8) -> i64 {
    DAY.hour_at(number).start_ms() + 30 * 60_000
}

impl House {
    /// Hours are kept: three ranges in that from nine, of which one goes on into the next.
    async fn morning() -> Self {
        let house = Self::new().await;
        assert!(house.closer.metastore.turn_hours(true, 0, 0).await.expect("turns"));
        house.ingest_present(0, 0, DAY, &[1, 2, 2, 3], &[hour(9)]).await;
        house.ingest_present(1, 0, DAY, &[3, 9], &[hour(9)]).await;
        house.ingest_present(0, 4, DAY, &[1, 7], &[hour(9), hour(10)]).await;
        house
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_hour_closes_by_itself_to_each_of_its_people_once_and_its_pseudonym_key_dies() {
    let house = House::morning().await;
    let closer = &house.closer;
    let report = closer.close(hour(9), true).await.expect("closes");
    assert!(report.complete && !report.already_closed && report.outcomes.is_empty());
    assert_eq!((report.segments, report.table.rows), (3, 5));
    assert_eq!(house.people_of(hour(9)).await, [1, 2, 3, 7, 9].map(pseudonym));
    assert!(!house.has_key(KeyKind::Pseudonym, hour(9)) && house.has_key(KeyKind::Data, hour(9)));
    assert!(closer.files.list("segments/hour-2026-01-05T09/").await.expect("lists").is_empty());
    let told = house.audit("window_closed").await;
    assert_eq!(told.last().expect("an entry").detail, json!({ "hour": "2026-01-05T09", "complete": true }));

    // The day and the next hour go on, and what is planned now keeps nobody in the hour that is over.
    assert_eq!(house.state().await, WindowState::Open);
    assert!(house.has_key(KeyKind::Pseudonym, DAY.into()) && house.has_key(KeyKind::Pseudonym, hour(10)));
    let plan = house.plan(0, 6, &events(1, 1)).await;
    assert_eq!((plan.hours_after, plan.closed_through), (Some(hour(9).epoch), None));
    let late = RangeOutcome {
        events: 1,
        counts: vec![(Some(DAY), Outcome::Counted, 1)],
        missed_hours: vec![(hour(9).epoch, 1), (hour(3).epoch, 5)],
        ..RangeOutcome::default()
    };
    closer.metastore.commit(&plan, &late, house.now()).await.expect("commits");
    let missed = closer.metastore.windows_of(Span::Hour).await.expect("reads");
    assert_eq!(missed.iter().map(|w| (w.id(), w.missed_events)).collect::<Vec<_>>(), [(hour(9), 1), (hour(10), 0)]);

    let again = closer.close(hour(9), true).await.expect("again");
    assert!(again.already_closed && again.table == report.table);
    closer.repair().await.expect("nothing is left");
    assert_eq!((house.audit("window_closed").await.len(), house.audit("key_destroyed").await.len()), (1, 1));
    closer.close(hour(10), true).await.expect("closes");
    assert_eq!(house.people_of(hour(10)).await, [1, 7].map(pseudonym));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_hour_waits_for_what_was_planned_before_and_keeps_it_and_for_nothing_else() {
    let house = House::morning().await;
    let closer = &house.closer;
    let before = house.plan(1, 2, &events(4, 1)).await;
    closer.metastore.turn_hours(false, 0, 0).await.expect("turns");
    let without = house.plan(0, 6, &events(1, 1)).await;
    assert_eq!(without.hours_after, None);
    closer.metastore.turn_hours(true, 0, 0).await.expect("turns");
    let forced = closer.close_waiting(hour(10), false, SOON).await.expect("past its deadline");
    assert_eq!(forced.shortfall.map(|s| s.open_plans), Some(1), "the range without hours is none of them");
    assert_eq!(closer.metastore.open_plans_before(hour(9).epoch).await.expect("reads"), std::slice::from_ref(&before));
    let rows = present(&[4]);
    let kept =
        write_segment(&closer.files, &closer.keyring, &before.partition, before.sequence, hour(9), &rows).await.expect("writes");
    let counts = vec![(Some(DAY), Outcome::Late, 1)];
    let outcome = RangeOutcome { events: 1, counts, segments: vec![kept], ..RangeOutcome::default() };
    closer.metastore.commit(&before, &outcome, house.now()).await.expect("commits");
    closer.close(hour(9), true).await.expect("closes, though a range without hours is open");
    assert_eq!(house.people_of(hour(9)).await, [1, 2, 3, 4, 7, 9].map(pseudonym));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_complete_close_of_an_hour_is_refused_while_its_ranges_are_open() {
    let house = House::morning().await;
    let _open = house.plan(1, 2, &events(4, 1)).await;
    let error = house.closer.close_waiting(hour(9), true, SOON).await.expect_err("a range may bring more of it");
    assert!(matches!(error, AggregateError::WaitingForPlans { window, plans: 1 } if window == hour(9)), "{error}");
    assert!(house.has_key(KeyKind::Pseudonym, hour(9)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_whole_hour_began_after_hours_were_turned_on_and_open_ones_close_as_incomplete_when_they_are_turned_off() {
    let house = House::new().await;
    let closer = &house.closer;
    // Read without hours, up to half past nine.
    house.ingest_present(0, 0, DAY, &[1, 2], &[]).await;
    assert!(closer.metastore.turn_hours(true, half_past(9), 0).await.expect("turns"));
    assert!(!closer.metastore.turn_hours(true, half_past(20), 0).await.expect("is on"));
    assert_eq!(house.plan(1, 0, &events(1, 2)).await.hours_after, Some(hour(8).epoch));
    let owned = closer.metastore.take_ownership(&partition(1), "test", house.now()).await.expect("takes");
    let plan = owned.open_plan.expect("the plan goes on");
    let counts = vec![(Some(DAY), Outcome::Counted, 2)];
    closer
        .metastore
        .commit(&plan, &RangeOutcome { events: 2, counts, ..RangeOutcome::default() }, house.now())
        .await
        .expect("commits");
    for (from, number) in (2..).step_by(1).zip([9, 10, 11]) {
        house.ingest_present(0, from, DAY, &[number], &[hour(number)]).await;
    }
    let complete = |report: CloseReport| (report.complete, report.shortfall.map(|s| s.partly_kept));
    assert_eq!(complete(closer.close(hour(9), true).await.expect("closes")), (false, Some(true)));
    assert_eq!(complete(closer.close(hour(10), true).await.expect("closes")), (true, None));
    closer.metastore.turn_hours(false, 0, 0).await.expect("turns");
    assert_eq!(complete(closer.close(hour(11), true).await.expect("closes")), (false, Some(true)));
    for number in [9, 10, 11] {
        assert_eq!(house.people_of(hour(number)).await, [pseudonym(number)], "what came is there");
        assert!(!house.has_key(KeyKind::Pseudonym, hour(number)), "on or off, the key dies");
    }
    let told = house.audit("window_incomplete").await;
    assert_eq!(told.iter().map(|entry| entry.detail["partly_kept"].clone()).collect::<Vec<_>>(), [json!(true), json!(true)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i9_an_hour_s_close_that_died_on_its_way_is_finished_by_the_next_one() {
    for (step, point) in ["after_begin_close", "after_finish_close", "after_segments", "after_key_destroyed"].iter().enumerate() {
        let house = House::morning().await;
        let (closer, window) = (&house.closer, hour(9));
        closer.metastore.begin_close(window, house.now()).await.expect("begins");
        if step >= 1 {
            let mut segments = closer.metastore.segments(window).await.expect("reads");
            let spill = Spill::open(&closer.spill_dir).expect("opens");
            let merged = closer.merge(window, true, &mut segments, &mut Shortfall::default(), &spill).await;
            let table = merged.expect("merges").0.finish().await.expect("finishes");
            closer.metastore.finish_close(window, &table, true, house.now()).await.expect("finishes");
        }
        if step >= 2 {
            closer.delete_segments(window).await.expect("deletes");
        }
        if step >= 3 {
            let id = KeyId { kind: KeyKind::Pseudonym, purpose: Purpose::AnalyticsHour, epoch: window.epoch };
            closer.keyring.destroy(id, house.now()).expect("destroys");
        }
        closer.repair().await.expect("repairs");
        assert_eq!(closer.close(window, true).await.expect("closes").already_closed, step >= 1, "{point}");
        assert_eq!(house.people_of(window).await, [1, 2, 3, 7, 9].map(pseudonym), "{point}");
        assert!(!house.has_key(KeyKind::Pseudonym, window), "{point}");
        assert_eq!((house.audit("window_closed").await.len(), house.audit("key_destroyed").await.len()), (1, 1), "{point}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i7_an_hour_s_rows_end_two_days_after_its_close_however_long_others_live() {
    let house = House::morning().await;
    let closer = &house.closer;
    closer.close(hour(9), true).await.expect("closes");
    closer.close(DAY, true).await.expect("closes");
    let closed_ms = house.now();
    house.clock.set(closed_ms + MAX_KEEP_HOUR_MS - 1);
    assert_eq!(closer.expire(MAX_KEEP_MS, &BTreeSet::new()).await.expect("a millisecond is left"), []);
    house.clock.set(closed_ms + MAX_KEEP_HOUR_MS);
    assert_eq!(closer.expire(MAX_KEEP_MS, &BTreeSet::from([hour(9)])).await.expect("spared"), []);
    assert_eq!(closer.expire(MAX_KEEP_MS, &BTreeSet::new()).await.expect("expires"), [hour(9)]);
    assert_eq!(closer.expire(MAX_KEEP_MS, &BTreeSet::new()).await.expect("once"), []);
    assert!(!house.has_key(KeyKind::Data, hour(9)) && house.files_of(hour(9)).await == 0);
    assert!(matches!(closer.close(hour(9), true).await, Err(AggregateError::Expired { .. })));
    assert_eq!(house.audit("key_destroyed").await.len(), 3, "a receipt for each: the hour's two, the day's first");
    assert!(house.has_key(KeyKind::Data, DAY.into()), "the day lives on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p42_rows_that_cannot_be_deleted_hold_up_no_other_window_s_end_and_their_key_is_gone() {
    let house = House::morning().await;
    let closer = &house.closer;
    closer.close(hour(9), true).await.expect("closes");
    closer.close(DAY, true).await.expect("closes");
    // Something stands where the hour's table was, and is no file.
    let table = closer.files.local_root().expect("local files").join(table_path(hour(9)));
    std::fs::remove_file(&table).expect("removes");
    std::fs::create_dir(&table).expect("makes");
    house.clock.set(house.now() + MAX_KEEP_MS);
    let failed = closer.expire(MAX_KEEP_MS, &BTreeSet::new()).await;
    assert!(matches!(failed, Err(AggregateError::Store(StoreError::File { .. }))), "{failed:?}");
    assert!(!house.has_key(KeyKind::Data, hour(9)) && !house.has_key(KeyKind::Data, DAY.into()));
    assert!(closer.files.get(&table_path(DAY)).await.expect("reads").is_none(), "the day's turn came after the hour's");
    std::fs::remove_dir(&table).expect("removes");
    assert_eq!(closer.expire(MAX_KEEP_MS, &BTreeSet::new()).await.expect("expires"), [hour(9)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i1_rows_that_an_hour_s_segments_lost_refuse_a_complete_close() {
    let house = House::morning().await;
    let closer = &house.closer;
    let segments = closer.metastore.segments(hour(9)).await.expect("reads");
    closer.files.delete(&segments[0].path).await.expect("deletes");
    assert!(matches!(closer.close(hour(9), true).await, Err(AggregateError::Store(StoreError::FileMissing { .. }))));
    let report = closer.close_waiting(hour(9), false, SOON).await.expect("the deadline overrides");
    assert_eq!(report.shortfall.map(|s| (s.lost_segments, s.counted, s.in_rows, s.partly_kept)), Some((1, 7, 4, false)));
    assert!(!house.has_key(KeyKind::Pseudonym, hour(9)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p14_an_hour_takes_no_row_that_says_more_than_that_somebody_was_there() {
    let house = House::morning().await;
    let mut folder = Folder::new();
    folder.fold(&clean(&events(1, 2))).expect("clean rows");
    let rows = folder.finish().expect("rows").remove(0).1;
    let closer = &house.closer;
    let refused =
        write_segment(&closer.files, &closer.keyring, &partition(0), starling_schemas::ids::Sequence(9), hour(9), &rows).await;
    assert!(matches!(refused, Err(AggregateError::WrongColumn { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_hours_nobody_was_counted_in_die_when_a_later_hour_or_the_day_is_over() {
    let house = House::morning().await;
    let closer = &house.closer;
    let id = |number| KeyId { kind: KeyKind::Pseudonym, purpose: Purpose::AnalyticsHour, epoch: hour(number).epoch };
    for number in [8, 11] {
        closer.keyring.get_or_create(id(number)).expect("key");
    }
    closer.repair().await.expect("repairs");
    assert!(house.has_key(KeyKind::Pseudonym, hour(8)), "nothing is over yet");
    closer.close(hour(9), true).await.expect("closes");
    closer.repair().await.expect("repairs");
    assert!(!house.has_key(KeyKind::Pseudonym, hour(8)) && house.has_key(KeyKind::Pseudonym, hour(11)));
    closer.close(hour(10), true).await.expect("closes");
    closer.close(DAY, true).await.expect("closes");
    closer.repair().await.expect("repairs");
    assert!(!house.has_key(KeyKind::Pseudonym, hour(11)), "of a day that is over nothing comes");
    // A day's close makes no hour late that is not in it.
    closer.keyring.get_or_create(KeyId { epoch: day(1).hour_at(0), ..id(0) }).expect("key");
    closer.repair().await.expect("repairs");
    assert!(house.has_key(KeyKind::Pseudonym, day(1).hour_at(0).into()));
}
