//! What must never change: spent budget (I2), releases (I3), the feed of alerts (I9), the audit chain (I6).

use futures::StreamExt as _;
use serde_json::json;
use starling_schemas::cost::{Cost, NanoRho};
use starling_schemas::ids::{EpochId, Generation};
use starling_store::{
    AlertRecord, ChargeOutcome, ChargeRequest, Checkpoint, NewestRelease, ReleaseRecord, SavedState, StoreError,
};

use crate::support::{DAY, Kind, Place, release, told};

pub(crate) async fn i2_many_tasks_over_two_handles_never_spend_more_than_the_limit_and_charge_no_question_twice(place: Place) {
    let first = place.open().await;
    let second = place.open().await;
    let ask = |limit, cost, question: &str, now_ms| ChargeRequest { now_ms, ..release(question, DAY, limit, cost) };
    let tasks = (0..60_i64).map(|i| {
        let metastore = if i % 2 == 0 { first.clone() } else { second.clone() };
        // Thirty questions, each asked twice at once: cost 10 each, and a limit for twelve and a half.
        let asked = ask(125, 10, &format!("question {}", i / 2), i);
        tokio::spawn(async move { metastore.charge(&asked).await })
    });
    // No more at a time than there are connections: whoever waits for one too long is told so, and that is not the subject here.
    let outcomes: Vec<_> =
        futures::stream::iter(tasks).buffer_unordered(20).map(|o| o.expect("joins").expect("answers")).collect().await;
    assert_eq!(outcomes.iter().filter(|o| **o == ChargeOutcome::Charged).count(), 12);
    assert!(outcomes.iter().all(|o| !matches!(o, ChargeOutcome::Refused(refusal) if refusal.left.rho.0 >= 10)));
    let budget = first.budget().await.expect("reads");
    assert_eq!(budget.len(), 1);
    assert_eq!((budget[0].limits.total, budget[0].spent), (Cost::noise(NanoRho(125)), Cost::noise(NanoRho(120))));
    assert_eq!(budget[0].charges.iter().map(|c| c.cost.rho.0).sum::<i64>(), 120);
    let asked = &budget[0].charges[0].question;
    let charge = async |request: ChargeRequest| second.charge(&request).await.expect("answers");
    assert_eq!(charge(ask(125, 10, asked, 99)).await, ChargeOutcome::AlreadyCharged { cost: Cost::noise(NanoRho(10)) });
    let raised = charge(ask(1_000_000, 6, "raised the limit", 99)).await;
    let ChargeOutcome::Refused(refusal) = raised else { panic!("the smallest limit applies: {raised:?}") };
    assert_eq!((refusal.epoch, refusal.left.rho), (Some(DAY), NanoRho(5)));
    assert_eq!(charge(ChargeRequest { epochs: [EpochId(1)].into(), ..ask(125, 10, asked, 99) }).await, ChargeOutcome::Charged);
}

pub(crate) async fn i3_a_metric_window_is_released_once(place: Place) {
    let metastore = place.open().await;
    let release = ReleaseRecord {
        metric: "messages_daily".into(),
        epoch: DAY,
        path: "stats/a".into(),
        blake3: "00".into(),
        rows: 10,
        suppressed: 2,
        rho: NanoRho(5),
        epsilon: 0.5,
        delta: 1e-9,
        released_at_ms: 7,
    };
    assert!(metastore.record_release(&release).await.expect("records"));
    let other = ReleaseRecord { path: "stats/b".into(), ..release.clone() };
    assert!(!metastore.record_release(&other).await.expect("records"));
    assert_eq!(metastore.releases().await.expect("reads"), [release]);
}

pub(crate) async fn i3_who_knows_the_newest_release_reads_what_came_since_and_nothing_of_another_database(place: Place) {
    let (metastore, other) = (place.open().await, place.open().await);
    assert_eq!(metastore.newest_release().await.expect("reads"), None);
    let release = |metric: &str, day: i32| ReleaseRecord {
        metric: metric.into(),
        epoch: EpochId(day),
        path: format!("stats/{metric}/{day}"),
        blake3: format!("{metric}{day}"),
        rows: 10,
        suppressed: 2,
        rho: NanoRho(5),
        epsilon: 0.5,
        delta: 1e-9,
        // Clocks differ: what is newest is not asked of them.
        released_at_ms: i64::from(100 - day),
    };
    assert!(metastore.record_release(&release("b", 1)).await.expect("records"));
    let first = metastore.newest_release().await.expect("reads").expect("one");
    assert_eq!(first, NewestRelease { number: 1, blake3: "b1".into() });
    assert_eq!(metastore.releases_since(&first).await.expect("reads"), Some(Vec::new()));
    assert!(other.record_release(&release("c", 1)).await.expect("records"));
    assert!(!other.record_release(&release("b", 1)).await.expect("records"));
    assert!(metastore.record_release(&release("a", 2)).await.expect("records"));
    let since = metastore.releases_since(&first).await.expect("reads").expect("the first is there");
    let newest = metastore.newest_release().await.expect("reads").expect("three");
    assert_eq!(since.iter().map(|(_, record)| record.clone()).collect::<Vec<_>>(), [release("c", 1), release("a", 2)]);
    assert_eq!((since.last().map(|(newest, _)| newest), newest.number), (Some(&newest), 3));
    let of_another = NewestRelease { blake3: "x".into(), ..newest };
    assert_eq!(metastore.releases_since(&of_another).await.expect("reads"), None);
    let of_later = NewestRelease { number: 4, ..first };
    assert_eq!(metastore.releases_since(&of_later).await.expect("reads"), None);
}

/// What takes the releases back to before they were numbered, with two of then.
const BEFORE: [&str; 5] = [
    "DROP TABLE releases",
    "CREATE TABLE releases (metric TEXT NOT NULL, epoch BIGINT NOT NULL, path TEXT NOT NULL, blake3 TEXT NOT NULL, row_count BIGINT NOT NULL, \
     suppressed BIGINT NOT NULL, nano_rho BIGINT NOT NULL, epsilon DOUBLE PRECISION NOT NULL, delta DOUBLE PRECISION NOT NULL, \
     released_at_ms BIGINT NOT NULL, PRIMARY KEY (metric, epoch))",
    "INSERT INTO releases VALUES ('b', 2, 'stats/b', 'late', 10, 2, 5, 0.5, 1e-9, 9)",
    "INSERT INTO releases VALUES ('c', 1, 'stats/c', 'early', 10, 2, 5, 0.5, 1e-9, 8)",
    "DELETE FROM _sqlx_migrations WHERE version = 12",
];

pub(crate) async fn i3_releases_of_before_they_were_numbered_are_numbered(place: Place) {
    place.open().await.close().await;
    for statement in BEFORE {
        place.execute(statement).await;
    }
    let metastore = place.open().await;
    assert_eq!(metastore.releases().await.expect("reads").into_iter().map(|r| r.blake3).collect::<Vec<_>>(), ["late", "early"]);
    let newest = NewestRelease { number: 2, blake3: "late".into() };
    assert_eq!(metastore.newest_release().await.expect("reads"), Some(newest.clone()));
    let first = NewestRelease { number: 1, blake3: "early".into() };
    let since = metastore.releases_since(&first).await.expect("reads").expect("the first is there");
    assert_eq!(since.into_iter().map(|(newest, _)| newest).collect::<Vec<_>>(), [newest]);
}

fn alert(fingerprint: &str, body: &str) -> AlertRecord {
    AlertRecord {
        fingerprint: fingerprint.into(),
        rule: "bulk_sender".into(),
        rule_version: 1,
        subject_kind: "business".into(),
        subject: "b1".into(),
        severity: "high".into(),
        first_ms: 1,
        last_ms: 2,
        body: body.into(),
        position: 0,
    }
}

pub(crate) async fn i9_alerts_rise_in_the_feed_only_when_they_change_and_leave_the_outbox_only_in_the_form_that_was_published(
    place: Place,
) {
    let metastore = place.open().await;
    assert!(metastore.integrity_checkpoint("local").await.expect("reads").is_none());
    let early = metastore.commit_integrity("local", Generation(1), "s", "{}", &[], 0).await;
    assert!(matches!(early, Err(StoreError::UnknownPartition)));
    let zombie = metastore.take_integrity("local", "first", 1).await.expect("takes");
    assert!(metastore.integrity_checkpoint("local").await.expect("reads").is_none(), "taken, but nothing committed");
    let generation = metastore.take_integrity("local", "second", 1).await.expect("takes");
    assert_eq!((zombie, generation), (Generation(1), Generation(2)));
    let fenced = metastore.commit_integrity("local", zombie, "s", "{}", &told([alert("z", "1")]), 0).await;
    assert!(matches!(fenced, Err(StoreError::Fenced)));
    assert!(metastore.alerts_after(0, 9).await.expect("reads").is_empty());

    let commit = |alerts: Vec<AlertRecord>| {
        let metastore = metastore.clone();
        async move {
            metastore.commit_integrity("local", generation, "state-1", r#"{"0":5}"#, &told(alerts), 3).await.expect("commits")
        }
    };
    commit(vec![alert("a", "1"), alert("b", "1")]).await;
    commit(vec![alert("a", "1"), alert("b", "2"), alert("c", "1")]).await;
    let feed = |after| {
        let metastore = metastore.clone();
        async move {
            let alerts = metastore.alerts_after(after, 9).await.expect("reads");
            alerts.into_iter().map(|a| (a.fingerprint, a.position)).collect::<Vec<_>>()
        }
    };
    let expected = [("a".to_owned(), 1), ("b".to_owned(), 3), ("c".to_owned(), 4)];
    assert_eq!(feed(0).await, expected);
    assert_eq!(feed(2).await, expected[1..]);
    let checkpoint = metastore.integrity_checkpoint("local").await.expect("reads").expect("committed");
    assert_eq!(checkpoint, Checkpoint { generation, state_path: "state-1".into(), positions: r#"{"0":5}"#.into() });

    metastore.mark_published("a", 1).await.expect("marks");
    metastore.mark_published("b", 2).await.expect("an older form");
    let waiting: Vec<_> = metastore.unpublished_alerts(9).await.expect("reads").into_iter().map(|a| a.fingerprint).collect();
    assert_eq!(waiting, ["b", "c"]);
    commit(vec![alert("a", "2")]).await;
    assert_eq!(feed(4).await, [("a".to_owned(), 5)]);
    assert_eq!(metastore.unpublished_alerts(9).await.expect("reads").len(), 3);

    // What a part tested is committed with its state, by its owner alone, and stays where a commit says nothing of it.
    assert_eq!(metastore.integrity_tested().await.expect("reads"), [] as [String; 0]);
    for (owner, tested) in [(generation, "{}"), (zombie, "[]")] {
        let state = SavedState { path: "state-2", tested: Some(tested) };
        assert_eq!(metastore.commit_integrity("local", owner, state, "{}", &[], 4).await.is_ok(), owner == generation);
    }
    commit(Vec::new()).await;
    assert_eq!(metastore.integrity_tested().await.expect("reads"), ["{}"]);
}

pub(crate) async fn i6_an_audit_entry_that_is_changed_moved_removed_or_cut_off_breaks_the_chain(place: Place) {
    let tampering = [
        ("UPDATE audit SET detail = '{\"n\":9}' WHERE sequence = 2", 2),
        ("UPDATE audit SET at_ms = 0 WHERE sequence = 3", 3),
        ("UPDATE audit SET kind = 'other' WHERE sequence = 1", 1),
        ("UPDATE audit SET hash = '00' WHERE sequence = 3", 3),
        ("DELETE FROM audit WHERE sequence = 2", 2),
        ("DELETE FROM audit WHERE sequence = 4", 4),
        ("DELETE FROM audit", 1),
        ("INSERT INTO audit SELECT 5, at_ms, kind, detail, hash, NULL FROM audit WHERE sequence = 4", 5),
        ("UPDATE audit SET detail = CAST(x'ff' AS BLOB) WHERE sequence = 2", 2),
    ];
    // PostgreSQL keeps no text that is not UTF-8, whoever writes it.
    for (statement, broken_at) in tampering.into_iter().filter(|t| place.kind == Kind::Sqlite || !t.0.contains("BLOB")) {
        let place = place.another();
        let metastore = place.open().await;
        assert_eq!(metastore.verify_audit().await.expect("verifies"), 0);
        for n in 1..=4 {
            let entry = metastore.append_audit("read", json!({"z": n, "a": 1.1}), n * 10).await.expect("appends");
            assert_eq!(entry.sequence, n);
        }
        assert_eq!(metastore.verify_audit().await.expect("verifies"), 4);
        for (before, limit, shown) in
            [(None, 9, vec![4, 3, 2, 1]), (None, 2, vec![4, 3]), (Some(3), 9, vec![2, 1]), (Some(1), 9, vec![])]
        {
            let page = metastore.audit_page(before, limit).await.expect("reads");
            assert!(page.verified, "before {before:?}");
            assert_eq!(page.entries.iter().map(|entry| entry.sequence).collect::<Vec<_>>(), shown);
        }
        place.execute(statement).await;
        let page = metastore.audit_page(None, 9).await;
        assert!(!page.is_ok_and(|page| page.verified), "{statement}");
        match metastore.verify_audit().await {
            Err(StoreError::BrokenChain { sequence }) => assert_eq!(sequence, broken_at, "{statement}"),
            other => panic!("{statement}: {other:?}"),
        }
    }
}

pub(crate) async fn i6_entries_appended_at_once_over_two_handles_make_one_chain(place: Place) {
    let first = place.open().await;
    let second = place.open().await;
    let tasks = (0..40_i64).map(|i| {
        let metastore = if i % 2 == 0 { first.clone() } else { second.clone() };
        tokio::spawn(async move { metastore.append_audit("read", json!({ "i": i }), i).await })
    });
    let mut tasks = futures::stream::iter(tasks).buffer_unordered(20);
    while let Some(done) = tasks.next().await {
        done.expect("joins").expect("appends");
    }
    assert_eq!(first.verify_audit().await.expect("verifies"), 40);
    let tail = second.audit_tail(5).await.expect("reads");
    assert_eq!(second.audit_after(35, 9).await.expect("reads"), tail);
    assert_eq!(second.audit_after(35, 2).await.expect("reads"), tail[..2]);
    assert_eq!(second.audit_of_kind(&tail[4].kind, 1).await.expect("reads"), tail[4..]);
    assert_eq!(tail.iter().map(|e| e.sequence).collect::<Vec<_>>(), [36, 37, 38, 39, 40]);
    assert!(second.append_audit_once("x", "k", json!({}), 1).await.expect("appends").is_some());
    assert!(first.append_audit_once("x", "k", json!({}), 1).await.expect("appends").is_none());
}
