//! Which log a source is read from, and losses that an operator accepted.

use std::collections::BTreeMap;

use starling_schemas::codes::{Fault, Outcome};
use starling_schemas::ids::Offset;
use starling_store::{AcceptedLoss, Metastore, QuarantineFilter, QuarantineRecord, RangeOutcome, StoreError};

use crate::support::{Place, partition};

async fn committed(store: &Metastore, number: i32, to: i64) {
    let owned = store.take_ownership(&partition(number), "a", 1).await.expect("take");
    let plan = store.plan(&partition(number), owned.generation, Offset(0), Offset(to), 1).await.expect("plan");
    let outcome = RangeOutcome {
        events: 1,
        counts: vec![(None, Outcome::Counted, 1)],
        quarantined: vec![QuarantineRecord { offset: Offset(3), fault: Fault::Malformed, length: 7 }],
        ..RangeOutcome::default()
    };
    store.commit(&plan, &outcome, 1).await.expect("commit");
}

pub(crate) async fn the_first_id_of_a_topic_is_kept_and_a_later_one_only_told(place: Place) {
    let store = place.open().await;
    assert_eq!(store.keep_topic_id("events", "one", 1).await.expect("kept"), "one");
    assert_eq!(store.keep_topic_id("events", "two", 2).await.expect("told"), "one");
    assert_eq!(store.keep_topic_id("other", "two", 2).await.expect("kept"), "two");
    assert_eq!(store.topic_ids().await.expect("ids").get("events").map(String::as_str), Some("one"));
}

pub(crate) async fn an_accepted_loss_fences_owners_gives_the_open_plan_up_with_its_number_and_is_recorded(place: Place) {
    let store = place.open().await;
    store.keep_topic_id("events", "one", 1).await.expect("kept");
    committed(&store, 0, 10).await;
    committed(&store, 1, 20).await;
    let zombie = store.take_ownership(&partition(0), "zombie", 2).await.expect("take");
    store.note_log(&partition(0), zombie.generation, Offset(99), Some((Offset(8), 5)), 2).await.expect("noted");
    store.note_log(&partition(0), zombie.generation, Offset(99), None, 2).await.expect("noted");
    assert_eq!(store.log_checkpoint(&partition(0)).await.expect("read"), Some((Offset(8), 5)));
    assert_eq!(store.log_checkpoint(&partition(7)).await.expect("read"), None);
    let plan = store.plan(&partition(0), zombie.generation, Offset(10), Offset(15), 2).await.expect("plan");
    let loss = AcceptedLoss { topic_id: Some("two".into()), starts: BTreeMap::from([(0, None), (1, Some(Offset(25)))]) };
    let restarted = store.accept_loss("events", &loss, 3).await.expect("accepted");
    assert_eq!(restarted[0].given_up, Some((Offset(10), Offset(15))));
    assert_eq!((restarted[1].was_next, restarted[1].given_up), (Some(Offset(20)), None));
    assert!(matches!(store.commit(&plan, &RangeOutcome::default(), 4).await, Err(StoreError::Fenced)));
    let owned = store.take_ownership(&partition(0), "b", 4).await.expect("take");
    assert_eq!((owned.next_offset, owned.next_sequence.0, owned.open_plan), (None, 2, None));
    assert_eq!(store.log_checkpoint(&partition(0)).await.expect("read"), None, "it was of another log");
    let owned = store.take_ownership(&partition(1), "b", 4).await.expect("take");
    assert_eq!((owned.next_offset, owned.next_sequence.0), (Some(Offset(25)), 1));
    assert_eq!(store.keep_topic_id("events", "three", 5).await.expect("kept"), "two");
    assert!(store.unbalanced().await.expect("unbalanced").is_empty(), "I1: what was counted stays counted");
    let filter = QuarantineFilter { since_ms: None, fault: None, limit: 10 };
    let quarantined = store.quarantine_list(&filter).await.expect("quarantine");
    assert!(!quarantined.is_empty() && quarantined.iter().all(|entry| entry.partition.source == "events@one"), "{quarantined:?}");
    let entry = store.last_audit("loss_accepted").await.expect("audit").expect("an entry");
    assert_eq!(
        entry.detail.to_string(),
        r#"{"new_topic":"two","old_topic":"one","partitions":[{"begins":"beginning","partition":0,"planned_and_given_up":[10,15],"was_next":10},{"begins":25,"partition":1,"planned_and_given_up":null,"was_next":20}],"source":"events"}"#
    );
    store.verify_audit().await.expect("the chain holds");
}

pub(crate) async fn a_loss_of_a_partition_nobody_read_is_refused_and_nothing_changes(place: Place) {
    let store = place.open().await;
    committed(&store, 0, 10).await;
    let loss = AcceptedLoss { topic_id: None, starts: BTreeMap::from([(0, None), (7, None)]) };
    assert!(matches!(store.accept_loss("events", &loss, 3).await, Err(StoreError::UnknownPartition)));
    assert_eq!(store.partitions().await.expect("partitions")[0].next_offset, Some(Offset(10)));
    assert!(store.last_audit("loss_accepted").await.expect("audit").is_none());
}
