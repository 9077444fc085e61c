//! What a commit brings: counts (I1), quarantine (I4), windows from open to closed.

use std::collections::BTreeMap;

use starling_schemas::codes::{Fault, Outcome, Refusal};
use starling_schemas::ids::{EpochId, Offset, Span, WindowId};
use starling_store::{
    Hours, Metastore, Plan, QuarantineEntry, QuarantineFilter, QuarantineRecord, RangeOutcome, SegmentRecord, StoreError,
    TableInfo, WindowRecord, WindowState,
};

use crate::support::{DAY, Place, commit_range, outcome, partition, segment};

pub(crate) async fn i1_counts_of_every_outcome_come_back_and_a_balance_broken_by_hand_is_found(place: Place) {
    let metastore = place.open().await;
    let all: Vec<_> = Outcome::all().map(|o| (Some(DAY), o, 1)).chain([(None, Outcome::Quarantined(Fault::Empty), 2)]).collect();
    let events = all.iter().map(|c| c.2).sum();
    let range = |_: &Plan| RangeOutcome { events, counts: all.clone(), ..RangeOutcome::default() };
    for _ in 0..2 {
        commit_range(&metastore, &partition(0), range).await.expect("commits");
    }
    let counts = metastore.counts().await.expect("reads");
    let found: BTreeMap<_, _> = counts.into_iter().map(|c| ((c.epoch, c.outcome), c.events)).collect();
    assert_eq!(found, all.iter().map(|(e, o, n)| ((*e, *o), n * 2)).collect());
    assert!(metastore.unbalanced().await.expect("reads").is_empty());
    place.execute("UPDATE counts SET events = events + 1 WHERE outcome = 'late'").await;
    assert_eq!(metastore.unbalanced().await.expect("reads"), [partition(0)]);
}

pub(crate) async fn i4_quarantine_keeps_where_why_and_how_long_for_any_number_of_events(place: Place) {
    let metastore = place.open().await;
    let records: Vec<_> =
        (0..2500).map(|i| QuarantineRecord { offset: Offset(i), fault: Fault::Malformed, length: i.unsigned_abs() }).collect();
    let counts = vec![(None, Outcome::Quarantined(Fault::Malformed), 2500)];
    let range =
        |_: &Plan| RangeOutcome { events: 2500, counts: counts.clone(), quarantined: records.clone(), ..RangeOutcome::default() };
    commit_range(&metastore, &partition(0), range).await.expect("commits");
    let latest = quarantined(&metastore, 3).await;
    assert_eq!(latest.iter().map(|entry| entry.record.offset.0).collect::<Vec<_>>(), [2499, 2498, 2497]);
    assert_eq!((&latest[0].partition, &latest[0].record), (&partition(0), &records[2499]));
    assert_eq!(quarantined(&metastore, 9999).await.len(), 2500);
}

async fn quarantined(metastore: &Metastore, limit: u32) -> Vec<QuarantineEntry> {
    let filter = QuarantineFilter { since_ms: None, fault: None, limit };
    metastore.quarantine_list(&filter).await.expect("reads")
}

pub(crate) async fn only_counted_events_open_a_window(place: Place) {
    let metastore = place.open().await;
    let counts = vec![
        (Some(EpochId(1)), Outcome::Late, 1),
        (Some(EpochId(2)), Outcome::Refused(Refusal::NoConsent), 1),
        (Some(DAY), Outcome::Counted, 1),
    ];
    commit_range(&metastore, &partition(0), |_| RangeOutcome { events: 3, counts: counts.clone(), ..RangeOutcome::default() })
        .await
        .expect("commits");
    let windows = metastore.windows().await.expect("reads");
    assert_eq!(windows.iter().map(|w| (w.epoch, w.state)).collect::<Vec<_>>(), [(DAY, WindowState::Open)]);
}

pub(crate) async fn a_window_closes_only_after_the_plans_made_before_and_takes_no_row_afterwards(place: Place) {
    let metastore = place.open().await;
    let table = TableInfo { path: "people/x.parquet".into(), rows: 4, bytes: 5 };
    commit_range(&metastore, &partition(0), outcome).await.expect("commits");
    assert!(matches!(metastore.finish_close(DAY, &table, true, 5).await, Err(StoreError::NotClosing)));
    assert!(matches!(metastore.expire_window(DAY, 5).await, Err(StoreError::NotClosed)));

    let own = metastore.take_ownership(&partition(1), "test", 1).await.expect("takes");
    let older = metastore.plan(&partition(1), own.generation, Offset(0), Offset(1), 2).await.expect("plans");
    metastore.begin_close(DAY, 6).await.expect("begins");
    metastore.begin_close(DAY, 6).await.expect("begins again");
    metastore.begin_close(EpochId(DAY.0 - 5), 6).await.expect("an older day lowers nothing");
    assert_eq!(metastore.open_plans_before(DAY).await.expect("reads"), std::slice::from_ref(&older));
    assert!(matches!(metastore.finish_close(DAY, &table, true, 7).await, Err(StoreError::PlanOpen)));
    metastore.commit(&older, &outcome(&older), 8).await.expect("a plan made before may still bring rows");
    assert_eq!(metastore.segments(DAY).await.expect("reads").len(), 2);

    let own = metastore.take_ownership(&partition(1), "test", 9).await.expect("takes");
    let newer = metastore.plan(&partition(1), own.generation, Offset(1), Offset(2), 9).await.expect("plans");
    assert_eq!(newer.closed_through, Some(DAY));
    assert!(metastore.open_plans_before(DAY).await.expect("reads").is_empty());
    metastore.finish_close(DAY, &table, true, 10).await.expect("finishes");
    let other = TableInfo { rows: 0, ..table.clone() };
    metastore.finish_close(DAY, &other, false, 11).await.expect("is finished already");
    metastore.begin_close(DAY, 12).await.expect("changes nothing");
    assert!(metastore.segments(DAY).await.expect("reads").is_empty());
    assert!(matches!(metastore.commit(&newer, &outcome(&newer), 13).await, Err(StoreError::WindowClosed)));
    let late = RangeOutcome { events: 1, counts: vec![(Some(DAY), Outcome::Late, 1)], ..RangeOutcome::default() };
    metastore.commit(&newer, &late, 14).await.expect("as late events they are counted");

    metastore.expire_window(DAY, 20).await.expect("expires");
    metastore.expire_window(DAY, 30).await.expect("expires once");
    let windows = metastore.windows().await.expect("reads");
    let closed = windows.iter().find(|w| w.epoch == DAY).expect("there");
    let expected = WindowRecord {
        span: Span::Day,
        epoch: DAY,
        state: WindowState::Closed,
        table: Some(table),
        opened_at_ms: closed.opened_at_ms,
        closed_at_ms: Some(10),
        expired_at_ms: Some(20),
        gathered_through: None,
        swept_through: None,
        missed_events: 0,
    };
    assert_eq!(closed, &expected);
}

pub(crate) async fn weeks_and_months_stand_beside_days_and_their_segments_become_one_once(place: Place) {
    let metastore = place.open().await;
    let (week, month) = (Span::Week.of(DAY), Span::Month.of(DAY));
    assert_eq!(week.epoch, DAY, "a day and a week of one beginning must not be mixed up");
    let with_all = |plan: &Plan| {
        let own = outcome(plan);
        let more = [week, month].map(|window| SegmentRecord {
            window,
            path: format!("segments/{window}/{}-{}", plan.partition, plan.sequence),
            ..segment(plan, DAY)
        });
        RangeOutcome { segments: own.segments.iter().cloned().chain(more).collect(), ..own }
    };
    for _ in 0..3 {
        commit_range(&metastore, &partition(0), with_all).await.expect("commits");
    }
    for span in [Span::Day, Span::Week, Span::Month] {
        let windows = metastore.windows_of(span).await.expect("reads");
        assert_eq!(windows.iter().map(WindowRecord::id).collect::<Vec<_>>(), [span.of(DAY)]);
        assert_eq!(metastore.segments(span.of(DAY)).await.expect("reads").len(), 3);
    }
    assert_eq!(metastore.windows().await.expect("reads").len(), 1, "days alone");

    // Segments become one, in one step, once for each closed day.
    let segments = metastore.segments(week).await.expect("reads");
    let one = |name: &str| SegmentRecord { path: format!("segments/{week}/{name}"), rows: 7, ..segments[0].clone() };
    let missing = [segments.clone(), vec![one("never committed")]].concat();
    assert!(!metastore.gather_segments(&missing, &one("a"), DAY).await.expect("refuses"));
    assert_eq!(metastore.segments(week).await.expect("reads"), segments);
    assert!(metastore.gather_segments(&segments, &one("a"), DAY).await.expect("gathers"));
    assert!(!metastore.gather_segments(&[one("a")], &one("b"), DAY).await.expect("was done for this day"));
    commit_range(&metastore, &partition(0), with_all).await.expect("commits");
    let both = metastore.segments(week).await.expect("reads");
    assert_eq!(both.len(), 2);
    let record = |windows: Vec<WindowRecord>| (windows[0].gathered_through, windows[0].swept_through);
    assert_eq!(record(metastore.windows_of(Span::Week).await.expect("reads")), (Some(DAY), None));
    metastore.note_swept(week, DAY).await.expect("notes");
    assert_eq!(record(metastore.windows_of(Span::Week).await.expect("reads")), (Some(DAY), Some(DAY)));
    assert!(metastore.gather_segments(&both, &one("c"), EpochId(DAY.0 + 1)).await.expect("gathers"));
    assert_eq!(metastore.segments(week).await.expect("reads"), [one("c")]);
    for other in [DAY.into(), month] {
        assert_eq!(metastore.segments(other).await.expect("reads").len(), 4, "{other}");
    }

    // The close of a week makes its days late, and neither closes a day nor the month.
    let table = TableInfo { path: "people/week".into(), rows: 7, bytes: 5 };
    metastore.begin_close(week, 5).await.expect("begins");
    assert!(!metastore.gather_segments(&[one("c")], &one("d"), EpochId(DAY.0 + 2)).await.expect("too late"));
    metastore.finish_close(week, &table, true, 6).await.expect("finishes");
    assert!(metastore.segments(week).await.expect("reads").is_empty());
    let own = metastore.take_ownership(&partition(1), "test", 9).await.expect("takes");
    let plan = metastore.plan(&partition(1), own.generation, Offset(0), Offset(1), 9).await.expect("plans");
    assert_eq!(plan.closed_through, Some(week.last()));
    assert!(matches!(metastore.commit(&plan, &with_all(&plan), 10).await, Err(StoreError::WindowClosed)));
    assert_eq!(metastore.windows().await.expect("reads")[0].state, WindowState::Open);

    // A month ends when its time is over, closed or not; a day does not.
    assert!(matches!(metastore.expire_window(DAY, 20).await, Err(StoreError::NotClosed)));
    assert!(matches!(metastore.expire_window(Span::Month.of(EpochId(0)), 20).await, Err(StoreError::NotClosed)));
    metastore.expire_window(month, 20).await.expect("expires");
    let months = metastore.windows_of(Span::Month).await.expect("reads");
    assert_eq!((months[0].state, months[0].expired_at_ms, months[0].table.is_none()), (WindowState::Incomplete, Some(20), true));
    assert!(metastore.segments(month).await.expect("reads").is_empty());
    assert_eq!(metastore.segments(DAY).await.expect("reads").len(), 4);
}

pub(crate) async fn hours_stand_beside_days_and_close_without_them(place: Place) {
    let metastore = place.open().await;
    let [nine, ten] = [9, 10].map(|hour| WindowId::from(DAY.hour_at(hour)));
    let plan = async |number, from| {
        let own = metastore.take_ownership(&partition(number), "test", 1).await.expect("takes");
        metastore.plan(&partition(number), own.generation, Offset(from), Offset(from + 1), 2).await.expect("plans")
    };
    let in_hours = |plan: &Plan, hours: &[WindowId]| {
        let name = |window: WindowId| format!("segments/{window}/{}-{}", plan.partition, plan.sequence);
        let segments = hours.iter().map(|window| SegmentRecord { window: *window, path: name(*window), ..segment(plan, DAY) });
        RangeOutcome { segments: segments.collect(), ..outcome(plan) }
    };
    assert_eq!(
        (metastore.hours().await.expect("reads"), metastore.turn_hours(false, 0, 0).await.expect("is off")),
        (Hours::default(), false)
    );
    let without = plan(0, 0).await;
    assert_eq!(without.hours_after, None);
    // The range that is planned may bring events up to half past eight.
    let tolerance_ms = DAY.hour_at(8).start_ms() + 30 * 60_000;
    assert!(metastore.turn_hours(true, 0, tolerance_ms).await.expect("turns"));
    assert!(!metastore.turn_hours(true, 0, i64::MAX).await.expect("is on"));
    let hours = metastore.hours().await.expect("reads");
    assert_eq!((hours.on, hours.is_whole(DAY.hour_at(8)), hours.is_whole(nine.epoch)), (true, false, true));
    let with = plan(1, 0).await;
    assert_eq!(with.hours_after, Some(DAY.hour_at(7)));
    // A plan outlives its owner as it was made, whatever is turned on or off meanwhile.
    let again = metastore.take_ownership(&partition(0), "another", 3).await.expect("takes").open_plan.expect("open");
    assert_eq!(again.hours_after, None);
    assert!(metastore.open_plans_before(nine.epoch).await.expect("reads").iter().eq([&with]), "the other brings no row of it");
    assert_eq!(metastore.open_plans_before(EpochId::LAST_DAY).await.expect("reads").len(), 2, "of days both do");
    metastore.commit(&again, &outcome(&again), 4).await.expect("commits");

    // An hour's close makes no day late, waits for its own plans, and refuses what comes after.
    metastore.begin_close(nine, 5).await.expect("begins");
    let table = TableInfo { path: "people/hour".into(), rows: 7, bytes: 5 };
    assert!(matches!(metastore.finish_close(nine, &table, true, 6).await, Err(StoreError::PlanOpen)));
    metastore.commit(&with, &in_hours(&with, &[nine, ten]), 7).await.expect("commits");
    metastore.finish_close(nine, &table, true, 8).await.expect("finishes");
    let later = plan(0, 1).await;
    assert_eq!((later.hours_after, later.closed_through), (Some(nine.epoch), None));
    assert!(matches!(metastore.commit(&later, &in_hours(&later, &[nine]), 9).await, Err(StoreError::WindowClosed)));
    let missed = RangeOutcome { missed_hours: vec![(nine.epoch, 2), (DAY.hour_at(3), 4)], ..in_hours(&later, &[ten]) };
    metastore.commit(&later, &missed, 10).await.expect("commits");
    let records = metastore.windows_of(Span::Hour).await.expect("reads");
    let told: Vec<_> = records.iter().map(|w| (w.id(), w.state, w.missed_events)).collect();
    assert_eq!(told, [(nine, WindowState::Closed, 2), (ten, WindowState::Open, 0)]);
    assert_eq!(metastore.windows().await.expect("reads")[0].state, WindowState::Open);
    metastore.expire_window(nine, 11).await.expect("expires");
    let living = metastore.living_windows(Span::Hour).await.expect("reads");
    assert_eq!(living.iter().map(WindowRecord::id).collect::<Vec<_>>(), [ten]);

    // Off: what is open is not whole. On again: what was over stays over.
    assert!(metastore.turn_hours(false, 0, 0).await.expect("turns"));
    assert!(!metastore.hours().await.expect("reads").is_whole(ten.epoch));
    assert_eq!(plan(1, 1).await.hours_after, None);
    assert!(metastore.turn_hours(true, 0, 0).await.expect("turns"));
    assert_eq!(metastore.hours().await.expect("reads").after, Some(nine.epoch));
}

pub(crate) async fn i9_a_plan_keeps_the_lists_of_groups_that_it_was_made_with_until_it_is_committed(place: Place) {
    let metastore = place.open().await;
    let own = async |number| metastore.take_ownership(&partition(number), "test", 1).await.expect("takes");
    let plan = async |number: i32, from| {
        let own = own(number).await;
        metastore.plan(&partition(number), own.generation, Offset(from), Offset(from + 1), 2).await.expect("plans")
    };
    let put = async |content| metastore.put_group_lists(content, 3).await.expect("puts");
    assert!(!put(None).await, "there was none");
    let without = plan(0, 0).await;
    assert_eq!(without.group_lists, None);
    assert!(put(Some("a")).await && !put(Some("a")).await, "the same is no other");
    let first = plan(1, 0).await;
    assert!(put(Some("b")).await);
    let second = plan(2, 0).await;
    let [Some(a), Some(b)] = [first.group_lists, second.group_lists] else { panic!("plans name them") };
    assert_ne!(a, b);
    // Plans outlive their owners as they were made, whatever is in force now.
    assert!(put(None).await);
    for (number, expected) in [(0, None), (1, Some(a)), (2, Some(b))] {
        let again = own(number).await.open_plan.expect("open");
        assert_eq!(again.group_lists, expected);
        assert!(matches!(
            metastore.commit(&Plan { group_lists: Some(99), ..again.clone() }, &outcome(&again), 4).await,
            Err(StoreError::NotTheOpenPlan)
        ));
        if let Some(version) = expected {
            assert_eq!(metastore.group_lists(version).await.expect("kept"), if version == a { "a" } else { "b" });
        }
        metastore.commit(&again, &outcome(&again), 5).await.expect("commits");
    }
    assert_eq!(plan(0, 1).await.group_lists, None, "none is in force");
    // What no plan names is forgotten when something else is put in force, and its number is no other's.
    assert!(put(Some("a")).await);
    assert!(matches!(metastore.group_lists(a).await, Err(StoreError::UnreadableRow { table: "group_lists" })));
    let third = plan(1, 1).await.group_lists.expect("named");
    assert!(third > b && metastore.group_lists(third).await.expect("in force") == "a");
}

pub(crate) async fn i4_an_error_of_the_database_quotes_no_value(place: Place) {
    let metastore = place.open().await;
    let canary = |plan: &Plan| {
        let segment = SegmentRecord { path: "CANARY-4917".into(), ..segment(plan, DAY) };
        RangeOutcome { segments: vec![segment], ..outcome(plan) }
    };
    commit_range(&metastore, &partition(0), canary).await.expect("commits");
    let error = commit_range(&metastore, &partition(0), canary).await.expect_err("the same path again");
    assert!(matches!(error, StoreError::Database { .. }));
    assert!(!format!("{error} {error:?}").contains("CANARY"), "{error:?}");
    let status = metastore.partitions().await.expect("reads").remove(0);
    assert_eq!((status.events, status.has_open_plan), (10, true), "nothing of the failed commit stayed");
}
