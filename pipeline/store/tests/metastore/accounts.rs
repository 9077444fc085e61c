//! Accounts of what is done to the pipeline itself, and who looks at them.

use starling_schemas::codes::{Fault, Outcome};
use starling_schemas::ids::{EpochId, Generation};
use starling_store::{BEHIND, DoorHour, PartitionHour, Plan, RangeOutcome, StoreError};

use crate::support::{DAY, Place, commit_range, outcome, partition, told};
use crate::work::alert;

const PART: &str = "on us";

fn hour(hour: u8) -> EpochId {
    DAY.hour_at(hour)
}

fn door(hour_of_day: u8, is_principal: bool, name: &str, what: &str, times: u64) -> DoorHour {
    DoorHour { hour: hour(hour_of_day), is_principal, name: name.into(), what: what.into(), times }
}

pub(crate) async fn i9_each_range_is_in_the_accounts_of_its_hours_once_whatever_is_committed_again(place: Place) {
    let metastore = place.open().await;
    let bad = Outcome::Quarantined(Fault::Malformed);
    for number in [0, 1] {
        for nth in 0..2_u8 {
            let range = |plan: &Plan| RangeOutcome {
                by_clock: vec![(hour(nth), Outcome::Counted, 7), (hour(1), bad, 3), (hour(1), Outcome::Late, 0)],
                behind: vec![(hour(1), 5)],
                ..outcome(plan)
            };
            let plan = commit_range(&metastore, &partition(number), range).await.expect("commits");
            assert_eq!(plan.watermark_ms, (nth > 0).then_some(10_000), "a plan says how far the partition was");
            let again = metastore.commit(&plan, &outcome(&plan), 4).await;
            assert!(matches!(again, Err(StoreError::NotTheOpenPlan)), "{again:?}");
        }
    }
    let of = |number, hour, what: &str, events| PartitionHour { hour, partition: partition(number), what: what.into(), events };
    let one = |number| {
        [
            of(number, hour(0), "counted", 7),
            of(number, hour(1), BEHIND, 10),
            of(number, hour(1), "counted", 7),
            of(number, hour(1), "quarantined:malformed", 6),
        ]
    };
    assert_eq!(metastore.partition_hours(hour(0)).await.expect("reads"), [one(0), one(1)].concat());
    assert_eq!(metastore.partition_hours(hour(1)).await.expect("reads").len(), 6);
}

pub(crate) async fn i6_what_is_refused_at_doors_adds_up_over_processes_and_is_in_the_log(place: Place) {
    let (one, other) = (place.open().await, place.open().await);
    let before = one.verify_audit().await.expect("verifies");
    for (metastore, lot_name) in [(&one, "a"), (&other, "b"), (&other, "a")] {
        let lot = [
            door(9, true, "ana", "refused:forbidden", 4),
            door(9, true, "ana", "refused:forbidden", 1),
            door(9, false, "ana", "refused:forbidden", 1),
            door(10, true, "ana", "refused:forbidden", 2),
        ];
        metastore.add_door_hours(lot_name, &lot, 7).await.expect("adds, or has added");
        metastore.add_door_hours("c", &[], 8).await.expect("nothing is no entry");
    }
    assert_eq!(
        one.door_hours(hour(0)).await.expect("reads"),
        [
            door(9, false, "ana", "refused:forbidden", 2),
            door(9, true, "ana", "refused:forbidden", 10),
            door(10, true, "ana", "refused:forbidden", 4),
        ]
    );
    assert_eq!(one.door_hours(hour(10)).await.expect("reads").len(), 1);
    assert_eq!(one.verify_audit().await.expect("verifies"), before + 2, "an entry a lot, however much is in it");
    let entry = one.last_audit("door_accounts").await.expect("reads").expect("one");
    let told = entry.detail["counted"].as_array().expect("a list");
    assert_eq!(told[0], serde_json::json!({ "door": "ana", "what": "refused:forbidden", "times": 1 }));
    assert_eq!(told[1], serde_json::json!({ "user": "ana", "what": "refused:forbidden", "times": 5 }));
}

pub(crate) async fn accounts_are_gone_after_their_time_those_of_partitions_by_their_own_clock(place: Place) {
    let metastore = place.open().await;
    for (number, last) in [(0, 20), (1, 12)] {
        commit_range(&metastore, &partition(number), |plan| RangeOutcome {
            by_clock: (10..=last).map(|h| (hour(h), Outcome::Counted, 1)).collect(),
            ..outcome(plan)
        })
        .await
        .expect("commits");
    }
    let lot = [door(9, true, "ana", "variants", 1), door(10, true, "ana", "variants", 1)];
    metastore.add_door_hours("a", &lot, 7).await.expect("adds");
    metastore.erase_accounts(3, hour(10)).await.expect("erases");
    let left: Vec<_> = metastore.partition_hours(hour(0)).await.expect("reads").into_iter().map(|row| row.hour).collect();
    assert_eq!(left, [17, 18, 19, 20, 10, 11, 12].map(hour));
    assert_eq!(metastore.door_hours(hour(0)).await.expect("reads"), [door(10, true, "ana", "variants", 1)]);
}

pub(crate) async fn one_process_looks_and_another_takes_over_when_it_has_gone(place: Place) {
    let (one, other) = (place.open().await, place.open().await);
    let unknown = one.commit_findings(PART, Generation(1), &[], 1).await;
    assert!(matches!(unknown, Err(StoreError::UnknownPartition)), "{unknown:?}");
    let first = one.hold_integrity(PART, ("one", None), 100, 1_000).await.expect("asks").expect("it is nobody's");
    assert_eq!(other.hold_integrity(PART, ("other", None), 100, 1_099).await.expect("asks"), None);
    assert_eq!(one.hold_integrity(PART, ("one", Some(first)), 100, 1_050).await.expect("asks"), Some(first));
    assert_eq!(other.hold_integrity(PART, ("other", None), 100, 1_149).await.expect("asks"), None, "it was seen");
    let second = other.hold_integrity(PART, ("other", None), 100, 1_150).await.expect("asks").expect("it has gone");
    assert!(second > first);
    let finding = told([alert("00aa")]);
    let fenced = one.commit_findings(PART, first, &finding, 1_151).await;
    assert!(matches!(fenced, Err(StoreError::Fenced)), "{fenced:?}");
    assert_eq!(one.hold_integrity(PART, ("one", Some(first)), 100, 1_160).await.expect("asks"), None);
    for at_ms in [1_160, 1_170] {
        other.commit_findings(PART, second, &finding, at_ms).await.expect("commits");
        let feed = one.alerts_after(0, 9).await.expect("reads");
        assert_eq!(feed.iter().map(|alert| alert.position).collect::<Vec<_>>(), [1], "once");
    }
    // A holder whose clock was ahead holds nobody up for long.
    let ahead = one.hold_integrity("another", ("one", None), 100, 9_000_000).await.expect("asks");
    assert!(ahead.is_some() && other.hold_integrity("another", ("other", None), 100, 1_000).await.expect("asks").is_some());
}
