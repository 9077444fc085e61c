//! Findings that are told or kept, the allowance of a rule's day, and demotions.

use serde_json::json;
use starling_store::{AlertRecord, Finding, KeptCount, Metastore, Telling};

use crate::support::{Place, told};
use crate::work::{alert, step, with_alerts};

const DAY_MS: i64 = 86_400_000;

/// A finding of one rule, by number.
fn found(number: i64, body: &str, telling: Telling) -> Finding {
    let alert = AlertRecord { body: body.into(), ..alert(&format!("{number:04x}")) };
    Finding { key: alert.rule.clone(), alert, stands: true, telling }
}

fn daily(daily: u32) -> Telling {
    Telling::Told { daily, demotable: true }
}

async fn feed(metastore: &Metastore) -> Vec<(String, i64)> {
    metastore.alerts_after(0, 999).await.expect("reads").into_iter().map(|a| (a.fingerprint, a.position)).collect()
}

/// Fingerprint, position and reason of what is kept.
async fn kept(metastore: &Metastore) -> Vec<(String, i64, String)> {
    let kept = metastore.kept_after(0, None, 999).await.expect("reads");
    kept.into_iter().map(|k| (k.alert.fingerprint, k.alert.position, k.kept_for)).collect()
}

pub(crate) async fn a_kept_finding_is_at_no_door_of_the_feed_and_is_told_when_its_standing_allows_that(place: Place) {
    let metastore = place.open().await;
    let generation = metastore.take_integrity("local", "test", 1).await.expect("takes");
    let commit = |findings: Vec<Finding>, at_ms: i64| {
        let metastore = metastore.clone();
        async move { metastore.commit_integrity("local", generation, "s", "{}", &findings, at_ms).await.expect("commits") }
    };
    let of = |number, position, reason: &str| (format!("{number:04x}"), position, reason.to_owned());
    commit(vec![found(1, "a", Telling::Kept("shadow")), found(2, "a", Telling::Kept("canary"))], 10).await;
    assert_eq!(kept(&metastore).await, [of(1, 1, "shadow"), of(2, 2, "canary")]);
    assert!(feed(&metastore).await.is_empty());
    assert!(metastore.unpublished_alerts(9).await.expect("reads").is_empty(), "it is on no topic");
    assert!(metastore.alerts_named("0001", 9).await.expect("reads").is_empty(), "nobody can work on it");
    let refused = metastore.take_step(&step("0001", 1), "take", "{}").await;
    assert!(matches!(refused, Err(starling_store::StoreError::NoAlert)), "{refused:?}");

    // As it was it keeps its place, and when it was first kept; grown, or kept for another reason, it goes to the end.
    commit(vec![found(1, "a", Telling::Kept("shadow")), found(2, "a", Telling::Kept("expired"))], 20).await;
    assert_eq!(kept(&metastore).await, [of(1, 1, "shadow"), of(2, 3, "expired")]);
    commit(vec![found(1, "b", Telling::Kept("shadow"))], 30).await;
    let all = metastore.kept_after(0, Some("business_reach"), 9).await.expect("reads");
    assert_eq!(all.iter().map(|k| (k.alert.body.as_str(), k.kept_ms)).collect::<Vec<_>>(), [("a", 10), ("b", 10)]);
    assert!(metastore.kept_after(0, Some("other"), 9).await.expect("reads").is_empty());
    assert_eq!(metastore.kept_after(3, None, 9).await.expect("reads").len(), 1);
    let count = |kept_for: &str| KeptCount { rule: "business_reach".into(), kept_for: kept_for.into(), count: 1 };
    assert_eq!(metastore.kept_counts(10).await.expect("counts"), [count("expired"), count("shadow")]);
    assert!(metastore.kept_counts(11).await.expect("counts").is_empty());

    commit(vec![found(1, "b", daily(9)), found(3, "a", daily(9))], 40).await;
    assert_eq!(feed(&metastore).await, [("0001".to_owned(), 5), ("0003".to_owned(), 6)]);
    assert_eq!(kept(&metastore).await, [of(2, 3, "expired")], "no alert is in both");
}

pub(crate) async fn what_was_told_stays_told_and_grows_whatever_became_of_its_rule(place: Place) {
    let (metastore, generation) = with_alerts(&place, &["0001"]).await;
    metastore.demote("business_reach", 1, &json!({}), 0, 2).await.expect("demotes");
    for (body, telling) in [("b", Telling::Kept("shadow")), ("c", daily(1)), ("d", Telling::Kept("expired"))] {
        let finding = found(1, body, telling);
        metastore.commit_integrity("local", generation, "s", "{}", &[finding], 3).await.expect("commits");
        let told = metastore.alerts_named("0001", 9).await.expect("reads");
        assert_eq!(told.iter().map(|a| a.body.as_str()).collect::<Vec<_>>(), [body]);
        assert!(kept(&metastore).await.is_empty());
    }
}

pub(crate) async fn i9_a_day_tells_its_allowance_and_no_more_over_all_parts_and_processes_at_once(place: Place) {
    const ALLOWANCE: u32 = 7;
    let handles = [place.open().await, place.open().await];
    for day in 0..2_i64 {
        let mut runners = Vec::new();
        for part in 0..4_i64 {
            let metastore = handles[usize::try_from(part).expect("small") % 2].clone();
            runners.push(tokio::spawn(async move {
                let name = format!("signals/{part}");
                let generation = metastore.take_integrity(&name, "test", 1).await.expect("takes");
                for n in 0..6 {
                    let numbers = [n, n + 100].map(|n| 1_000 * day + 200 * part + n);
                    // One of another rule beside them, which has an allowance of its own.
                    let mut findings: Vec<_> = numbers.into_iter().map(|n| found(n, "x", daily(ALLOWANCE))).collect();
                    let mut other = found(numbers[0] + 5_000, "x", daily(100));
                    (other.alert.rule, other.key) = ("other".into(), "other".into());
                    findings.push(other);
                    let at_ms = day * DAY_MS + n;
                    metastore.commit_integrity(&name, generation, "s", "{}", &findings, at_ms).await.expect("commits");
                }
            }));
        }
        for runner in runners {
            runner.await.expect("no error that may not be");
        }
        let days = usize::try_from(day + 1).expect("small");
        let told = handles[0].alerts_after(0, 999).await.expect("reads");
        let of = |rule: &str| told.iter().filter(|a| a.rule == rule).count();
        assert_eq!((of("business_reach"), of("other")), (days * ALLOWANCE as usize, days * 24));
        let kept = kept(&handles[1]).await;
        assert_eq!(kept.len(), days * (48 - ALLOWANCE as usize), "what is not told is kept");
        assert!(kept.iter().all(|(.., reason)| reason == "allowance"));
        let positions: std::collections::BTreeSet<_> = told.iter().map(|a| a.position).chain(kept.iter().map(|k| k.1)).collect();
        assert_eq!(positions.len(), told.len() + kept.len(), "one order of all");
    }
}

pub(crate) async fn i9_a_commit_whose_answer_was_lost_is_repeated_and_counts_nothing_twice(place: Place) {
    let metastore = place.open().await;
    let lost = [found(1, "a", daily(3)), found(2, "a", daily(3)), found(9, "a", Telling::Kept("shadow"))];
    for _ in 0..3 {
        // Whoever takes over restores the state before, and finds the same.
        let generation = metastore.take_integrity("local", "test", 1).await.expect("takes");
        metastore.commit_integrity("local", generation, "s", "{}", &lost, 5).await.expect("commits");
    }
    let (told, kept_before) = (feed(&metastore).await, kept(&metastore).await);
    assert_eq!((told.len(), kept_before.len()), (2, 1));
    let generation = metastore.take_integrity("local", "test", 1).await.expect("takes");
    // A finding that comes twice in one commit is one.
    let more = [found(3, "a", daily(3)), found(3, "b", daily(3)), found(4, "a", daily(3))];
    metastore.commit_integrity("local", generation, "s", "{}", &more, 6).await.expect("commits");
    let told: Vec<_> = feed(&metastore).await.into_iter().map(|(fingerprint, _)| fingerprint).collect();
    assert_eq!(told, ["0001", "0002", "0003"]);
    let kept: Vec<_> = kept(&metastore).await.into_iter().map(|(fingerprint, _, reason)| (fingerprint, reason)).collect();
    assert_eq!(kept, [("0009".to_owned(), "shadow".to_owned()), ("0004".to_owned(), "allowance".to_owned())]);
}

pub(crate) async fn i6_a_demotion_keeps_what_its_version_finds_until_it_is_lifted_and_both_are_in_the_log(place: Place) {
    let metastore = place.open().await;
    let generation = metastore.take_integrity("local", "test", 1).await.expect("takes");
    let figures = json!({ "dismissed": 12, "confirmed": 8 });
    assert!(metastore.demote("business_reach", 1, &figures, 0, 10).await.expect("demotes"));
    assert!(!metastore.demote("business_reach", 1, &figures, 0, 11).await.expect("asks"), "it is demoted");
    let mut newer = found(2, "a", daily(9));
    newer.alert.rule_version = 2;
    let held = Telling::Told { daily: 9, demotable: false };
    let findings = [found(1, "a", daily(9)), newer, found(3, "a", held)];
    metastore.commit_integrity("local", generation, "s", "{}", &findings, 12).await.expect("commits");
    assert_eq!(kept(&metastore).await, [("0001".to_owned(), 1, "demoted".to_owned())]);
    assert_eq!(feed(&metastore).await.len(), 2, "a new version starts anew, and a promise that it tells holds");

    assert_eq!(metastore.restore_rule("other", "ana", "why", 20).await.expect("asks"), [0_u32; 0]);
    assert_eq!(metastore.restore_rule("business_reach", "ana", "a campaign of one shop", 20).await.expect("lifts"), [1]);
    assert_eq!(metastore.restore_rule("business_reach", "ana", "again", 21).await.expect("asks"), [0_u32; 0]);
    metastore.commit_integrity("local", generation, "s", "{}", &findings, 22).await.expect("commits");
    assert_eq!((feed(&metastore).await.len(), kept(&metastore).await.len()), (3, 0));

    let all = metastore.demotions().await.expect("reads");
    let one = all.first().expect("one");
    assert_eq!((all.len(), one.rule.as_str(), one.rule_version, one.demoted_ms), (1, "business_reach", 1, 10));
    assert_eq!(one.figures, r#"{"confirmed":8,"dismissed":12}"#);
    assert_eq!((one.restored_ms, one.restored_by.as_deref()), (Some(20), Some("ana")));
    assert_eq!(one.restored_note.as_deref(), Some("a campaign of one shop"));
    let log: Vec<_> = metastore.audit_tail(9).await.expect("reads").into_iter().map(|e| (e.kind, e.at_ms, e.detail)).collect();
    let demoted = json!({ "rule": "business_reach", "version": 1, "figures": figures });
    let restored = json!({ "rule": "business_reach", "versions": [1], "by": "ana" });
    assert_eq!(log, [("rule_demoted".to_owned(), 10, demoted), ("rule_restored".to_owned(), 20, restored)]);
    assert_eq!(metastore.verify_audit().await.expect("holds"), 2);
}

pub(crate) async fn of_two_who_demote_at_once_one_does_and_none_past_a_lifting_it_has_not_seen(place: Place) {
    let (one, two) = (place.open().await, place.open().await);
    let figures = json!({});
    let (a, b) = tokio::join!(one.demote("r", 1, &figures, 0, 10), two.demote("r", 1, &figures, 0, 10));
    assert_eq!([a, b].into_iter().filter(|done| matches!(done, Ok(true))).count(), 1);
    assert_eq!(one.verify_audit().await.expect("holds"), 1);
    one.restore_rule("r", "ana", "why", 20).await.expect("lifts");
    assert!(!two.demote("r", 1, &figures, 0, 21).await.expect("asks"), "on verdicts that ana has set aside");
    assert!(two.demote("r", 1, &figures, 20, 30).await.expect("demotes"), "on newer ones");
    let states: Vec<_> = one.demotions().await.expect("reads").into_iter().map(|d| (d.demoted_ms, d.restored_ms)).collect();
    assert_eq!(states, [(30, None), (10, Some(20))], "the newest first");
}

pub(crate) async fn i7_kept_findings_are_gone_after_their_time_with_one_entry_in_the_log(place: Place) {
    let metastore = place.open().await;
    let generation = metastore.take_integrity("local", "test", 1).await.expect("takes");
    for (number, at_ms) in [(1, 100), (2, 200)] {
        let finding = found(number, "a", Telling::Kept("shadow"));
        metastore.commit_integrity("local", generation, "s", "{}", &[finding], at_ms).await.expect("commits");
    }
    // Growing on does not lengthen its life.
    let grown = found(1, "b", Telling::Kept("shadow"));
    metastore.commit_integrity("local", generation, "s", "{}", &[grown], 300).await.expect("commits");
    assert_eq!(metastore.erase_kept(100, 400).await.expect("looks"), 0);
    assert_eq!(metastore.erase_kept(101, 400).await.expect("erases"), 1);
    assert_eq!(metastore.erase_kept(101, 500).await.expect("looks"), 0);
    let left: Vec<_> = kept(&metastore).await.into_iter().map(|(fingerprint, ..)| fingerprint).collect();
    assert_eq!(left, ["0002"]);
    let log: Vec<_> = metastore.audit_tail(9).await.expect("reads").into_iter().map(|e| (e.kind, e.at_ms)).collect();
    assert_eq!(log, [("kept_findings_erased".to_owned(), 400)], "and none for looking");
    assert_eq!(metastore.audit_tail(1).await.expect("reads")[0].detail["count"], 1);
}

pub(crate) async fn verdicts_are_found_by_when_their_alerts_were_told_first(place: Place) {
    let metastore = place.open().await;
    let generation = metastore.take_integrity("local", "test", 1).await.expect("takes");
    for (fingerprint, at_ms) in [("aa01", 10), ("aa02", 20), ("aa03", 30)] {
        metastore.commit_integrity("local", generation, "s", "{}", &told([alert(fingerprint)]), at_ms).await.expect("commits");
    }
    // Another version, under another name, has judged its window since.
    let grown = AlertRecord { body: "more".into(), rule: "renamed".into(), rule_version: 2, ..alert("aa01") };
    metastore.commit_integrity("local", generation, "s", "{}", &told([grown]), 40).await.expect("commits");
    for fingerprint in ["aa01", "aa02"] {
        metastore.take_step(&step(fingerprint, 1), "confirm", fingerprint).await.expect("steps");
    }
    let found = |from_ms| {
        let metastore = metastore.clone();
        async move {
            let mut found = metastore.worked_on_since(from_ms).await.expect("reads");
            found.sort_by_key(|j| j.told_ms);
            found.into_iter().map(|j| (j.rule, j.rule_version, j.told_ms, j.standing)).collect::<Vec<_>>()
        }
    };
    let of = |told_ms, standing: &str| ("business_reach".to_owned(), 1, told_ms, standing.to_owned());
    assert_eq!(found(0).await, [of(10, "aa01"), of(20, "aa02")], "growing does not move it, and nobody worked on the third");
    assert_eq!(found(11).await, [of(20, "aa02")]);
}

pub(crate) async fn what_does_not_stand_is_told_to_those_only_who_were_told_that_it_did(place: Place) {
    let metastore = place.open().await;
    let generation = metastore.take_integrity("local", "test", 1).await.expect("takes");
    let back = |number, telling| Finding { stands: false, ..found(number, "back", telling) };
    for (findings, at_ms) in [
        (vec![found(1, "a", daily(1)), found(2, "a", daily(1)), found(3, "a", Telling::Kept("shadow"))], 10),
        // A day later, with room for all: the first was told, two are kept, and of the fourth nobody ever knew.
        (vec![back(1, daily(9)), back(2, daily(9)), back(3, daily(9)), back(4, daily(9))], 10 + DAY_MS),
    ] {
        metastore.commit_integrity("local", generation, "s", "{}", &findings, at_ms).await.expect("commits");
    }
    let told: Vec<_> = metastore.alerts_after(0, 9).await.expect("reads").into_iter().map(|a| (a.fingerprint, a.body)).collect();
    assert_eq!(told, [("0001".to_owned(), "back".to_owned())]);
    let kept: Vec<_> = metastore.kept_after(0, None, 9).await.expect("reads");
    let kept: Vec<_> = kept.iter().map(|k| (k.alert.fingerprint.as_str(), k.alert.body.as_str(), k.kept_for.as_str())).collect();
    assert_eq!(kept, [("0002", "back", "allowance"), ("0003", "back", "shadow")]);
    // It took none of the day's allowance.
    metastore.commit_integrity("local", generation, "s", "{}", &[found(5, "a", daily(1))], 20 + DAY_MS).await.expect("commits");
    assert_eq!(feed(&metastore).await.len(), 2);
}

pub(crate) async fn another_name_of_a_rule_changes_neither_allowance_nor_demotion(place: Place) {
    let metastore = place.open().await;
    let generation = metastore.take_integrity("local", "test", 1).await.expect("takes");
    let renamed = |number, telling| {
        let finding = found(number, "a", telling);
        Finding { alert: AlertRecord { rule: "renamed".into(), ..finding.alert.clone() }, ..finding }
    };
    let findings = [found(1, "a", daily(1)), renamed(2, daily(1))];
    metastore.commit_integrity("local", generation, "s", "{}", &findings, 10).await.expect("commits");
    metastore.demote("business_reach", 1, &json!({}), 0, 11).await.expect("demotes");
    metastore.commit_integrity("local", generation, "s", "{}", &[renamed(3, daily(9))], 12).await.expect("commits");
    assert_eq!(feed(&metastore).await.len(), 1);
    let reasons: Vec<_> = kept(&metastore).await.into_iter().map(|(fingerprint, _, reason)| (fingerprint, reason)).collect();
    assert_eq!(reasons, [("0002".to_owned(), "allowance".to_owned()), ("0003".to_owned(), "demoted".to_owned())]);
}

/// What takes the tables back to before this was kept, with one alert told then.
const BEFORE: [&str; 8] = [
    "DROP TABLE kept_alerts",
    "DROP TABLE demotions",
    "DROP INDEX alerts_told",
    "ALTER TABLE alerts DROP COLUMN told_ms",
    "ALTER TABLE alerts DROP COLUMN told_rule",
    "ALTER TABLE alerts DROP COLUMN told_version",
    "DELETE FROM _sqlx_migrations WHERE version = 8",
    "INSERT INTO alerts (fingerprint, rule, rule_version, subject_kind, subject, severity, first_ms, last_ms, body, position, \
     published_position) VALUES ('aa01', 'business_reach', 1, 'business', 'b1', 'high', 5, 77, '{}', 1, 1)",
];

pub(crate) async fn alerts_told_before_this_was_kept_stay_told_as_of_their_last_evidence(place: Place) {
    place.open().await.close().await;
    for statement in BEFORE {
        place.execute(statement).await;
    }
    let metastore = place.open().await;
    assert_eq!(feed(&metastore).await, [("aa01".to_owned(), 1)]);
    metastore.take_step(&step("aa01", 1), "confirm", "x").await.expect("steps");
    let worked = metastore.worked_on_since(0).await.expect("reads");
    assert_eq!(
        worked.iter().map(|j| (j.rule.as_str(), j.rule_version, j.told_ms)).collect::<Vec<_>>(),
        [("business_reach", 1, 77)]
    );
}
