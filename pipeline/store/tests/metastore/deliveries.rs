//! Deliveries of alerts to receivers outside, and the one process that sends them.

use starling_schemas::ids::Generation;
use starling_store::{Delivery, DeliveryEnd, Metastore, ReceiverRecord, StoreError};

use crate::support::Place;
use crate::work::with_alerts;

const DAY_MS: i64 = 86_400_000;

fn delivery(id: &str) -> Delivery {
    Delivery { id: id.into(), body: format!("body of {id}") }
}

async fn due(metastore: &Metastore, receiver: &str, now_ms: i64) -> Vec<String> {
    metastore.due_deliveries(receiver, now_ms, 9).await.expect("reads").into_iter().map(|d| d.id).collect()
}

fn again(next_ms: i64) -> DeliveryEnd {
    DeliveryEnd::Again { next_ms, fault: "unreachable".into() }
}

pub(crate) async fn i6_what_is_queued_moves_the_receiver_and_is_in_the_log_in_one_step(place: Place) {
    let (metastore, _) = with_alerts(&place, &["aa01", "aa02"]).await;
    let own = metastore.take_sending("one", 1).await.expect("takes");
    assert_eq!(metastore.receiver("webhook/a").await.expect("reads"), None);
    metastore.queue_deliveries(own, "webhook/a", 0, &[], 5).await.expect("is met");
    assert_eq!(metastore.receiver("webhook/a").await.expect("reads"), Some(ReceiverRecord { position: 0, began_at: 2 }));
    assert_eq!(metastore.audit_tail(9).await.expect("reads"), [], "nothing was read");
    let two = [delivery("aa01-1"), delivery("aa02-2")];
    for _ in 0..2 {
        metastore.queue_deliveries(own, "webhook/a", 2, &two, 6).await.expect("queues");
    }
    metastore.queue_deliveries(own, "webhook/b", 1, &two[..1], 7).await.expect("queues");
    assert_eq!(metastore.receiver("webhook/a").await.expect("reads"), Some(ReceiverRecord { position: 2, began_at: 2 }));
    assert_eq!(due(&metastore, "webhook/a", 6).await, ["aa01-1", "aa02-2"]);
    assert_eq!(due(&metastore, "webhook/a", 5).await, [""; 0], "not due yet");
    assert_eq!(due(&metastore, "webhook/b", 7).await, ["aa01-1"]);
    let log: Vec<_> = metastore.audit_tail(9).await.expect("reads").into_iter().map(|e| (e.kind, e.detail)).collect();
    let entry = |door: &str, count: u64| {
        ("integrity_read".to_owned(), serde_json::json!({ "what": "alerts", "door": door, "count": count }))
    };
    assert_eq!(log, [entry("webhook/a", 2), entry("webhook/a", 2), entry("webhook/b", 1)]);
    assert_eq!(metastore.verify_audit().await.expect("holds"), 3);
}

pub(crate) async fn a_sender_that_was_taken_over_from_can_write_nothing_more(place: Place) {
    let metastore = place.open().await;
    assert_eq!(metastore.sender().await.expect("reads").generation, Generation(0));
    let one = metastore.take_sending("one", 10).await.expect("takes");
    metastore.queue_deliveries(one, "webhook/a", 1, &[delivery("aa01-1")], 11).await.expect("queues");
    let two = metastore.take_sending("two", 20).await.expect("takes");
    assert_eq!((one, two), (Generation(1), Generation(2)));
    let fenced = |done: Result<(), StoreError>| assert!(matches!(done, Err(StoreError::Fenced)), "{done:?}");
    fenced(metastore.keep_sending(one, 30).await);
    fenced(metastore.queue_deliveries(one, "webhook/a", 2, &[delivery("aa02-2")], 30).await);
    for end in [DeliveryEnd::Done, again(40), DeliveryEnd::Dead { fault: "x".into() }] {
        fenced(metastore.note_delivery(one, "webhook/a", "aa01-1", &end).await);
    }
    assert_eq!(due(&metastore, "webhook/a", 99).await, ["aa01-1"], "nothing has changed");
    assert_eq!(metastore.receiver("webhook/a").await.expect("reads").map(|r| r.position), Some(1));
    metastore.keep_sending(two, 50).await.expect("it sends");
    let sender = metastore.sender().await.expect("reads");
    assert_eq!((sender.generation, sender.owner.as_str(), sender.seen_ms), (two, "two", 50));
}

pub(crate) async fn a_delivery_is_tried_again_when_its_time_comes_given_up_listed_and_sent_again_under_its_id(place: Place) {
    let metastore = place.open().await;
    let own = metastore.take_sending("one", 1).await.expect("takes");
    let three = [delivery("a-1"), delivery("b-2"), delivery("c-3")];
    metastore.queue_deliveries(own, "webhook/a", 3, &three, 10).await.expect("queues");
    metastore.queue_deliveries(own, "webhook/b", 3, &three[..1], 10).await.expect("queues");
    metastore.note_delivery(own, "webhook/a", "a-1", &DeliveryEnd::Done).await.expect("notes");
    metastore.note_delivery(own, "webhook/a", "b-2", &again(100)).await.expect("notes");
    assert_eq!(due(&metastore, "webhook/a", 99).await, ["c-3"]);
    assert_eq!(due(&metastore, "webhook/a", 100).await, ["c-3", "b-2"], "the longest due first");
    assert_eq!(due(&metastore, "webhook/b", 100).await, ["a-1"], "of another receiver nothing was said");
    metastore.note_delivery(own, "webhook/a", "b-2", &DeliveryEnd::Dead { fault: "HTTP 500".into() }).await.expect("notes");
    metastore.note_delivery(own, "webhook/a", "b-2", &again(5)).await.expect("notes");
    assert_eq!(due(&metastore, "webhook/a", 999).await, ["c-3"], "what was given up is not tried again by itself");
    let dead = metastore.deliveries(true, 9).await.expect("reads");
    assert_eq!(dead.len(), 1);
    assert_eq!(
        (dead[0].id.as_str(), dead[0].attempts, dead[0].fault.as_deref(), dead[0].dead),
        ("b-2", 2, Some("HTTP 500"), true)
    );
    let waiting: Vec<_> = metastore.deliveries(false, 9).await.expect("reads").into_iter().map(|d| (d.receiver, d.id)).collect();
    assert_eq!(metastore.delivery_counts().await.expect("counts"), (waiting.len() as u64, dead.len() as u64));
    assert_eq!(waiting, [("webhook/a".to_owned(), "c-3".to_owned()), ("webhook/b".to_owned(), "a-1".to_owned())]);

    for (id, receiver) in [(Some("x"), None), (Some("b-2"), Some("webhook/b")), (Some("c-3"), None)] {
        assert_eq!(metastore.resend_deliveries(id, receiver, "ana", 200).await.expect("asks"), 0, "{id:?} {receiver:?}");
    }
    assert_eq!(metastore.resend_deliveries(Some("b-2"), Some("webhook/a"), "ana", 200).await.expect("sends"), 1);
    let back = metastore.due_deliveries("webhook/a", 200, 9).await.expect("reads").pop().expect("is there");
    assert_eq!((back.id.as_str(), back.body.as_str(), back.attempts, back.dead), ("b-2", "body of b-2", 0, false));
    metastore.note_delivery(own, "webhook/b", "a-1", &DeliveryEnd::Dead { fault: "x".into() }).await.expect("notes");
    assert_eq!(metastore.resend_deliveries(None, None, "ana", 200).await.expect("sends"), 1, "all that are dead");
    let last = metastore.audit_tail(1).await.expect("reads").pop().expect("an entry");
    assert_eq!((last.kind.as_str(), &last.detail["by"]), ("alerts_sent_again", &"ana".into()));
}

pub(crate) async fn p42_what_could_not_be_delivered_is_gone_after_thirty_days(place: Place) {
    let metastore = place.open().await;
    let own = metastore.take_sending("one", 1).await.expect("takes");
    metastore.queue_deliveries(own, "webhook/a", 1, &[delivery("a-1")], 0).await.expect("queues");
    metastore.queue_deliveries(own, "webhook/a", 2, &[delivery("b-2")], 1).await.expect("queues");
    metastore.note_delivery(own, "webhook/a", "a-1", &DeliveryEnd::Dead { fault: "x".into() }).await.expect("notes");
    metastore.keep_sending(own, 30 * DAY_MS).await.expect("keeps");
    assert_eq!(metastore.deliveries(true, 9).await.expect("reads").len(), 1, "30 days");
    metastore.keep_sending(own, 30 * DAY_MS + 1).await.expect("keeps");
    assert_eq!(metastore.deliveries(true, 9).await.expect("reads").len(), 0);
    assert_eq!(metastore.deliveries(false, 9).await.expect("reads").len(), 1);
}
