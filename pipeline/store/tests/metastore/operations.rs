//! What the engineer on call reads.

use starling_schemas::codes::{Fault, Outcome};
use starling_schemas::ids::{Offset, PartitionId};
use starling_store::{Metastore, QuarantineFilter, QuarantineRecord, RangeOutcome};

use crate::support::Place;

/// Commits a range with one unreadable event of each of these classes, at this time.
async fn quarantine(metastore: &Metastore, partition: i32, faults: &[Fault], now_ms: i64) {
    let partition = PartitionId { source: "events".into(), partition };
    let own = metastore.take_ownership(&partition, "test", now_ms).await.expect("takes");
    let from = own.next_offset.unwrap_or_default();
    let events = faults.len() as u64;
    let to = Offset(from.0 + faults.len() as i64);
    let plan = metastore.plan(&partition, own.generation, from, to, now_ms).await.expect("plans");
    let record = |(i, fault): (i64, &Fault)| QuarantineRecord { offset: Offset(from.0 + i), fault: *fault, length: 9 };
    let outcome = RangeOutcome {
        events,
        counts: faults.iter().map(|f| (None, Outcome::Quarantined(*f), 1)).collect(),
        quarantined: (0..).zip(faults).map(record).collect(),
        ..RangeOutcome::default()
    };
    metastore.commit(&plan, &outcome, now_ms).await.expect("commits");
}

pub(crate) async fn the_quarantine_is_listed_newest_first_by_time_and_class_and_counted(place: Place) {
    let metastore = place.open().await;
    quarantine(&metastore, 0, &[Fault::Empty, Fault::Malformed], 1000).await;
    quarantine(&metastore, 1, &[Fault::Malformed, Fault::Malformed, Fault::TooLarge], 2000).await;
    let places = async |filter: QuarantineFilter| {
        let found = metastore.quarantine_list(&filter).await.expect("reads");
        found.iter().map(|e| (e.partition.partition, e.record.offset.0, e.at_ms)).collect::<Vec<_>>()
    };
    let all = QuarantineFilter { since_ms: None, fault: None, limit: 100 };
    assert_eq!(places(all).await, [(1, 2, 2000), (1, 1, 2000), (1, 0, 2000), (0, 1, 1000), (0, 0, 1000)]);
    assert_eq!(places(QuarantineFilter { since_ms: Some(1001), ..all }).await.len(), 3);
    let malformed = QuarantineFilter { fault: Some(Fault::Malformed), ..all };
    assert_eq!(places(malformed).await, [(1, 1, 2000), (1, 0, 2000), (0, 1, 1000)]);
    assert_eq!(places(QuarantineFilter { limit: 1, ..malformed }).await, [(1, 1, 2000)]);
    let counts = metastore.quarantine_counts(None).await.expect("counts");
    assert_eq!(counts, [(Fault::Empty, 1), (Fault::Malformed, 3), (Fault::TooLarge, 1)]);
    assert_eq!(metastore.quarantine_counts(Some(2001)).await.expect("counts"), []);
}

pub(crate) async fn an_open_plan_is_seen_until_it_is_committed(place: Place) {
    let metastore = place.open().await;
    metastore.ping().await.expect("answers");
    let partition = PartitionId { source: "events".into(), partition: 3 };
    let own = metastore.take_ownership(&partition, "test", 1).await.expect("takes");
    assert_eq!(metastore.open_plans().await.expect("reads"), []);
    let plan = metastore.plan(&partition, own.generation, Offset(5), Offset(9), 77).await.expect("plans");
    assert_eq!(metastore.open_plans().await.expect("reads"), std::slice::from_ref(&plan));
    let outcome = RangeOutcome { events: 4, counts: vec![(None, Outcome::Late, 4)], ..RangeOutcome::default() };
    metastore.commit(&plan, &outcome, 78).await.expect("commits");
    assert_eq!(metastore.open_plans().await.expect("reads"), []);
}
