//! What a commit brings: counts (I1), quarantine (I4), windows from open to closed.

use std::collections::BTreeMap;

use starling_schemas::codes::{Fault, Outcome, Refusal};
use starling_schemas::ids::{EpochId, Offset};
use starling_store::{
    Metastore, Plan, QuarantineEntry, QuarantineFilter, QuarantineRecord, RangeOutcome, SegmentRecord, StoreError, TableInfo,
    WindowRecord, WindowState,
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
        epoch: DAY,
        state: WindowState::Closed,
        table: Some(table),
        opened_at_ms: closed.opened_at_ms,
        closed_at_ms: Some(10),
        expired_at_ms: Some(20),
    };
    assert_eq!(closed, &expected);
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
