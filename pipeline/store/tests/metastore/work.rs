//! The work on alerts: steps, silences, and their entries in the log.

use starling_schemas::ids::Generation;
use starling_store::{AlertRecord, Metastore, SilenceRecord, StepRecord, StoreError};

use crate::support::{Place, told};

pub(crate) fn alert(fingerprint: &str) -> AlertRecord {
    AlertRecord {
        fingerprint: fingerprint.into(),
        rule: "business_reach".into(),
        rule_version: 1,
        subject_kind: "business".into(),
        subject: "b1".into(),
        severity: "high".into(),
        first_ms: 1,
        last_ms: 2,
        body: "{}".into(),
        position: 0,
    }
}

pub(crate) fn step(fingerprint: &str, number: i64) -> StepRecord {
    StepRecord {
        fingerprint: fingerprint.into(),
        step: number,
        at_ms: number * 10,
        by: "ana".into(),
        body: format!("step {number}"),
    }
}

pub(crate) async fn with_alerts(place: &Place, fingerprints: &[&str]) -> (Metastore, Generation) {
    let metastore = place.open().await;
    let generation = metastore.take_integrity("local", "test", 1).await.expect("takes");
    let alerts = told(fingerprints.iter().map(|f| alert(f)));
    metastore.commit_integrity("local", generation, "state", "{}", &alerts, 1).await.expect("commits");
    (metastore, generation)
}

pub(crate) async fn i6_a_step_is_kept_with_its_entry_in_the_log_and_moves_the_alert_to_the_end_of_the_feed(place: Place) {
    let (metastore, generation) = with_alerts(&place, &["aa01", "aa02", "bb01"]).await;
    metastore.mark_published("aa01", 1).await.expect("marks");
    metastore.take_step(&step("aa01", 1), "take", "stands 1").await.expect("takes");
    metastore.take_step(&step("aa01", 2), "confirm", "stands 2").await.expect("takes");

    let feed: Vec<_> =
        metastore.alerts_after(0, 9).await.expect("reads").into_iter().map(|a| (a.fingerprint, a.position)).collect();
    assert_eq!(feed, [("aa02".to_owned(), 2), ("bb01".to_owned(), 3), ("aa01".to_owned(), 5)]);
    let waiting: Vec<_> = metastore.unpublished_alerts(9).await.expect("reads").into_iter().map(|a| a.fingerprint).collect();
    assert_eq!(waiting, ["aa02", "bb01"], "the alert itself has not changed, so it is not published again");
    let work = metastore.work_on("aa01").await.expect("reads").expect("somebody worked on it");
    assert_eq!((work.step, work.standing.as_str(), work.updated_ms), (2, "stands 2", 20));
    assert_eq!(metastore.work_between(0, 4).await.expect("reads"), []);
    assert_eq!(metastore.work_between(4, 5).await.expect("reads"), [work]);
    assert_eq!(metastore.steps_on("aa01").await.expect("reads"), [step("aa01", 1), step("aa01", 2)]);
    let log: Vec<_> =
        metastore.audit_tail(9).await.expect("reads").into_iter().map(|e| (e.kind, e.detail["step"].clone())).collect();
    assert_eq!(log, [("alert_step".to_owned(), "take".into()), ("alert_step".to_owned(), "confirm".into())]);
    assert_eq!(metastore.verify_audit().await.expect("holds"), 2);

    // An alert that grows goes on under the same work.
    let grown = AlertRecord { body: "{\"more\":1}".into(), ..alert("aa01") };
    metastore.commit_integrity("local", generation, "state", "{}", &told([grown]), 2).await.expect("commits");
    assert_eq!(metastore.work_on("aa01").await.expect("reads").map(|w| w.step), Some(2));
}

pub(crate) async fn of_two_who_decide_at_once_one_is_told_to_look_again(place: Place) {
    let (metastore, _) = with_alerts(&place, &["aa01"]).await;
    let other = place.open().await;
    let (first, second) = (step("aa01", 1), StepRecord { by: "ben".into(), ..step("aa01", 1) });
    let (one, two) = tokio::join!(metastore.take_step(&first, "take", "a"), other.take_step(&second, "take", "b"));
    let refused = match (one, two) {
        (Ok(()), Err(error)) | (Err(error), Ok(())) => error,
        both => panic!("one of them must be refused: {both:?}"),
    };
    assert!(matches!(refused, StoreError::StepTaken), "{refused:?}");
    assert_eq!(metastore.steps_on("aa01").await.expect("reads").len(), 1);
    assert_eq!(metastore.verify_audit().await.expect("holds"), 1, "what was refused is not in the log");
    for wrong in [0, 1, 3] {
        assert!(matches!(metastore.take_step(&step("aa01", wrong), "take", "c").await, Err(StoreError::StepTaken)), "{wrong}");
    }
    assert!(matches!(metastore.take_step(&step("cc", 1), "take", "c").await, Err(StoreError::NoAlert)));
}

pub(crate) async fn alerts_are_found_by_the_beginning_of_their_fingerprint(place: Place) {
    let (metastore, _) = with_alerts(&place, &["a9", "aa01", "aaff", "ab00"]).await;
    let named = |prefix: &'static str| {
        let metastore = metastore.clone();
        async move { metastore.alerts_named(prefix, 9).await.expect("reads").into_iter().map(|a| a.fingerprint).collect::<Vec<_>>() }
    };
    assert_eq!(named("aa").await, ["aa01", "aaff"]);
    assert_eq!(named("aaff").await, ["aaff"]);
    assert!(named("ac").await.is_empty());
}

pub(crate) async fn a_silence_is_kept_until_it_ends_or_is_ended(place: Place) {
    let metastore = place.open().await;
    let silence = |until_ms, body: &str| SilenceRecord {
        rule: "business_reach".into(),
        subject_kind: "business".into(),
        subject: "b1".into(),
        until_ms,
        body: body.into(),
    };
    metastore.silence(&silence(100, "one"), "ana", 1).await.expect("silences");
    metastore.silence(&silence(200, "two"), "ben", 2).await.expect("silences");
    assert_eq!(metastore.silences(199).await.expect("reads"), [silence(200, "two")]);
    assert_eq!(metastore.silences(200).await.expect("reads"), []);
    assert!(!metastore.end_silence(&silence(0, ""), "ana", 200).await.expect("it has ended"));
    assert!(metastore.end_silence(&silence(0, ""), "ana", 150).await.expect("ends"));
    assert_eq!(metastore.silences(0).await.expect("reads"), []);
    let log: Vec<_> = metastore.audit_tail(9).await.expect("reads").into_iter().map(|e| e.kind).collect();
    assert_eq!(log, ["alert_silenced", "alert_silenced", "alert_silence_ended"]);
    assert!(metastore.audit_tail(9).await.expect("reads").iter().all(|e| !e.detail.to_string().contains("b1")), "P44");
}
