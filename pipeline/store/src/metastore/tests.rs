//! The metastore over a real file, as several processes use it.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;
use starling_schemas::codes::{Fault, Outcome, Refusal};
use starling_schemas::ids::{EpochId, Generation, Offset, PartitionId, Sequence};
use starling_schemas::metrics::NanoRho;

use super::protocol::{PlannedRange, Progress};
use super::*;
use crate::table::TableInfo;
use crate::testing::{open_metastore, url};

const DAY: EpochId = EpochId(20_458);

fn partition(number: i32) -> PartitionId {
    PartitionId { source: "events".into(), partition: number }
}

fn segment(plan: &Plan, epoch: EpochId) -> SegmentRecord {
    SegmentRecord { epoch, path: format!("segments/{epoch}/{}-{}", plan.partition, plan.sequence), rows: 3, bytes: 99 }
}

fn outcome(plan: &Plan) -> RangeOutcome {
    let events = (plan.to.0 - plan.from.0).unsigned_abs();
    RangeOutcome {
        events,
        counts: vec![(Some(DAY), Outcome::Counted, events)],
        watermark_ms: Some(plan.to.0 * 1000),
        segments: vec![segment(plan, DAY)],
        quarantined: Vec::new(),
    }
}

/// Takes, plans and commits one range of ten offsets.
async fn commit_range(
    metastore: &Metastore,
    partition: &PartitionId,
    outcome: impl Fn(&Plan) -> RangeOutcome,
) -> Result<Plan, StoreError> {
    let own = metastore.take_ownership(partition, "test", 1).await?;
    let from = own.next_offset.unwrap_or_default();
    let plan = match own.open_plan {
        Some(plan) => plan,
        None => metastore.plan(partition, own.generation, from, Offset(from.0 + 10), 2).await?,
    };
    metastore.commit(&plan, &outcome(&plan), 3).await?;
    Ok(plan)
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Take { owner: usize, partition: usize },
    Plan { owner: usize, length: i64 },
    Commit { owner: usize },
    CommitAgain,
    CommitUnbalanced { owner: usize },
    Note { owner: usize },
    Crash { owner: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let owner = 0..3_usize;
    prop_oneof![
        2 => (owner.clone(), 0..2_usize).prop_map(|(owner, partition)| Step::Take { owner, partition }),
        3 => (owner.clone(), 0..9_i64).prop_map(|(owner, length)| Step::Plan { owner, length }),
        3 => owner.clone().prop_map(|owner| Step::Commit { owner }),
        1 => Just(Step::CommitAgain),
        1 => owner.clone().prop_map(|owner| Step::CommitUnbalanced { owner }),
        1 => owner.clone().prop_map(|owner| Step::Note { owner }),
        1 => owner.prop_map(|owner| Step::Crash { owner }),
    ]
}

fn same(database: &Result<(), StoreError>, model: &Result<(), StoreError>) -> bool {
    match (database, model) {
        (Ok(()), Ok(())) => true,
        (Err(a), Err(b)) => std::mem::discriminant(a) == std::mem::discriminant(b),
        _ => false,
    }
}

/// Drives the database through two handles, and the pure state machine beside it, through the same steps; they must agree at each.
async fn agree(steps: Vec<Step>) {
    let (dir, first) = open_metastore().await;
    let second = Metastore::open(&url(&dir)).await.expect("opens");
    let handles = [first, second];
    let mut model = [Progress::default(), Progress::default()];
    // Per owner: its partition, generation, next offset and plan, as it believes.
    type Owner = (usize, Generation, Offset, Option<Plan>);
    let mut owners: [Option<Owner>; 3] = [None, None, None];
    let mut committed: Vec<Plan> = Vec::new();
    for (i, step) in steps.into_iter().enumerate() {
        let handle = &handles[i % 2];
        match step {
            Step::Take { owner, partition: p } => {
                let id = partition(i32::try_from(p).expect("small"));
                let own = handle.take_ownership(&id, "test", 1).await.expect("takes");
                assert_eq!(own, model[p].take(&id));
                owners[owner] = Some((p, own.generation, own.next_offset.unwrap_or_default(), own.open_plan));
            }
            Step::Plan { owner, length } => {
                let Some((p, generation, next, plan)) = &mut owners[owner] else { continue };
                let id = partition(i32::try_from(*p).expect("small"));
                let range = PlannedRange { from: *next, to: Offset(next.0 + length), closed_through: None, planned_at_ms: 7 };
                let made = handle.plan(&id, *generation, range.from, range.to, 7).await;
                let expected = model[*p].plan(*generation, range);
                if let Ok(made) = &made {
                    assert_eq!(Some(made.clone()), model[*p].open_plan(&id));
                    *plan = Some(made.clone());
                }
                assert!(same(&made.map(drop), &expected));
            }
            Step::Commit { owner } => {
                let Some((p, _, next, plan)) = &mut owners[owner] else { continue };
                let Some(plan) = plan.take() else { continue };
                let done = handle.commit(&plan, &outcome(&plan), 9).await;
                assert!(same(&done, &model[*p].commit(&plan, &outcome(&plan))));
                if done.is_ok() {
                    *next = plan.to;
                    committed.push(plan);
                }
            }
            Step::CommitAgain => {
                let Some(plan) = committed.last() else { continue };
                let done = handle.commit(plan, &outcome(plan), 9).await;
                assert!(matches!(done, Err(StoreError::Fenced | StoreError::NotTheOpenPlan)));
            }
            Step::CommitUnbalanced { owner } => {
                let Some((.., Some(plan))) = &owners[owner] else { continue };
                let mut wrong = outcome(plan);
                wrong.counts.push((None, Outcome::Late, 1));
                assert!(matches!(handle.commit(plan, &wrong, 9).await, Err(StoreError::Unbalanced | StoreError::Fenced)));
            }
            Step::Note { owner } => {
                let Some((p, generation, ..)) = &owners[owner] else { continue };
                let id = partition(i32::try_from(*p).expect("small"));
                let done = handle.note_position(&id, *generation, Offset(5), 9).await;
                assert_eq!(done.is_ok(), *generation == model[*p].generation);
            }
            Step::Crash { owner } => owners[owner] = None,
        }
    }
    for status in handles[0].partitions().await.expect("reads") {
        let model = &model[usize::try_from(status.partition.partition).expect("small")];
        assert_eq!(status.generation, model.generation);
        assert_eq!(status.next_offset, model.next_offset);
        assert_eq!(status.next_sequence, model.next_sequence);
        assert_eq!(status.watermark_ms, model.watermark_ms);
        assert_eq!(status.has_open_plan, model.plan.is_some());
        let mine: Vec<_> = committed.iter().filter(|p| p.partition == status.partition).collect();
        let sum: u64 = mine.iter().map(|p| outcome(p).events).sum();
        assert_eq!(status.events, sum, "I1");
        assert_eq!(status.next_sequence, Sequence(i64::try_from(mine.len()).expect("small")));
        assert!(mine.windows(2).all(|pair| pair[0].to == pair[1].from), "I9: no gap, no overlap");
    }
    let counted: u64 = handles[1].counts().await.expect("reads").iter().map(|c| c.events).sum();
    assert_eq!(counted, committed.iter().map(|p| outcome(p).events).sum::<u64>());
    let mut paths: Vec<_> = committed.iter().map(|p| segment(p, DAY).path).collect();
    paths.sort();
    assert_eq!(handles[0].segments(DAY).await.expect("reads").into_iter().map(|s| s.path).collect::<Vec<_>>(), paths);
    assert!(handles[0].unbalanced().await.expect("reads").is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn i1_i9_the_database_follows_the_protocol_under_any_order_of_owners_crashes_zombies_and_replays(steps in prop::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(agree(steps));
    }
}

#[tokio::test]
async fn a_crash_between_plan_and_commit_gives_the_next_owner_the_same_range_and_the_zombie_nothing() {
    let (_dir, metastore) = open_metastore().await;
    let first = metastore.take_ownership(&partition(0), "first", 1).await.expect("takes");
    assert_eq!((first.generation, first.next_offset, first.open_plan), (Generation(1), None, None));
    let plan = metastore.plan(&partition(0), first.generation, Offset(5), Offset(9), 2).await.expect("plans");
    metastore.begin_close(DAY, 3).await.expect("begins");
    let second = metastore.take_ownership(&partition(0), "second", 4).await.expect("takes");
    let again = second.open_plan.expect("an open plan");
    assert_eq!(again, Plan { generation: Generation(2), ..plan.clone() }, "and what is late for it is as it was");
    assert!(matches!(metastore.commit(&plan, &outcome(&plan), 5).await, Err(StoreError::Fenced)));
    assert!(matches!(metastore.plan(&partition(0), Generation(1), Offset(9), Offset(10), 5).await, Err(StoreError::Fenced)));
    assert!(matches!(metastore.note_position(&partition(0), Generation(1), Offset(9), 5).await, Err(StoreError::Fenced)));
    assert!(matches!(metastore.plan(&partition(0), Generation(2), Offset(9), Offset(10), 5).await, Err(StoreError::PlanOpen)));
    metastore.commit(&again, &outcome(&again), 6).await.expect("commits");
    let next = metastore.plan(&partition(0), Generation(2), Offset(9), Offset(10), 7).await.expect("plans");
    assert_eq!((next.sequence, next.closed_through), (Sequence(1), Some(DAY)));
    assert!(matches!(
        metastore.plan(&partition(9), Generation(1), Offset(0), Offset(1), 7).await,
        Err(StoreError::UnknownPartition)
    ));
}

#[tokio::test]
async fn i1_counts_of_every_outcome_come_back_and_a_balance_broken_by_hand_is_found() {
    let (_dir, metastore) = open_metastore().await;
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
    sqlx::query("UPDATE counts SET events = events + 1 WHERE outcome = 'late'")
        .execute(&metastore.writer)
        .await
        .expect("tampers");
    assert_eq!(metastore.unbalanced().await.expect("reads"), [partition(0)]);
}

#[tokio::test]
async fn i4_quarantine_keeps_where_why_and_how_long_for_any_number_of_events() {
    let (_dir, metastore) = open_metastore().await;
    let records: Vec<_> =
        (0..2500).map(|i| QuarantineRecord { offset: Offset(i), fault: Fault::Malformed, length: i.unsigned_abs() }).collect();
    let counts = vec![(None, Outcome::Quarantined(Fault::Malformed), 2500)];
    let range =
        |_: &Plan| RangeOutcome { events: 2500, counts: counts.clone(), quarantined: records.clone(), ..RangeOutcome::default() };
    commit_range(&metastore, &partition(0), range).await.expect("commits");
    let latest = metastore.quarantine(3).await.expect("reads");
    assert_eq!(latest.iter().map(|(_, r)| r.offset.0).collect::<Vec<_>>(), [2499, 2498, 2497]);
    assert_eq!(latest[0], (partition(0), records[2499].clone()));
    assert_eq!(metastore.quarantine(9999).await.expect("reads").len(), 2500);
}

#[tokio::test]
async fn only_counted_events_open_a_window() {
    let (_dir, metastore) = open_metastore().await;
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

#[tokio::test]
async fn a_window_closes_only_after_the_plans_made_before_and_takes_no_row_afterwards() {
    let (_dir, metastore) = open_metastore().await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn i2_many_tasks_over_two_handles_never_spend_more_than_the_limit_and_charge_no_question_twice() {
    let (dir, first) = open_metastore().await;
    let second = Metastore::open(&url(&dir)).await.expect("opens");
    let block = Block { dataset: "people_day".into(), epoch: DAY };
    let tasks = (0..60_i64).map(|i| {
        let metastore = if i % 2 == 0 { first.clone() } else { second.clone() };
        let block = block.clone();
        // Thirty questions, each asked twice at once: cost 10 each, and a limit for twelve and a half.
        tokio::spawn(async move { metastore.charge(&block, NanoRho(125), NanoRho(10), &format!("question {}", i / 2), i).await })
    });
    let outcomes: Vec<_> =
        futures::future::join_all(tasks).await.into_iter().map(|o| o.expect("joins").expect("answers")).collect();
    assert_eq!(outcomes.iter().filter(|o| **o == ChargeOutcome::Charged).count(), 12);
    assert!(outcomes.iter().all(|o| !matches!(o, ChargeOutcome::Refused { left } if left.0 >= 10)));
    let budget = first.budget().await.expect("reads");
    assert_eq!(budget.len(), 1);
    assert_eq!((budget[0].limit, budget[0].spent), (NanoRho(125), NanoRho(120)));
    assert_eq!(budget[0].charges.iter().map(|c| c.1.0).sum::<i64>(), 120);
    let asked = &budget[0].charges[0].0;
    assert_eq!(
        second.charge(&block, NanoRho(125), NanoRho(10), asked, 99).await.expect("answers"),
        ChargeOutcome::AlreadyCharged
    );
    let refused = second.charge(&block, NanoRho(1_000_000), NanoRho(6), "raised the limit", 99).await.expect("answers");
    assert_eq!(refused, ChargeOutcome::Refused { left: NanoRho(5) }, "the smallest limit applies");
    let other = Block { epoch: EpochId(1), ..block.clone() };
    assert_eq!(second.charge(&other, NanoRho(125), NanoRho(10), asked, 99).await.expect("answers"), ChargeOutcome::Charged);
}

#[tokio::test]
async fn i3_a_metric_window_is_released_once() {
    let (_dir, metastore) = open_metastore().await;
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

#[tokio::test]
async fn i9_alerts_rise_in_the_feed_only_when_they_change_and_leave_the_outbox_only_in_the_form_that_was_published() {
    let (_dir, metastore) = open_metastore().await;
    assert!(metastore.integrity_checkpoint("local").await.expect("reads").is_none());
    let early = metastore.commit_integrity("local", Generation(1), "s", "{}", &[], 0).await;
    assert!(matches!(early, Err(StoreError::UnknownPartition)));
    let zombie = metastore.take_integrity("local", "first", 1).await.expect("takes");
    assert!(metastore.integrity_checkpoint("local").await.expect("reads").is_none(), "taken, but nothing committed");
    let generation = metastore.take_integrity("local", "second", 1).await.expect("takes");
    assert_eq!((zombie, generation), (Generation(1), Generation(2)));
    let fenced = metastore.commit_integrity("local", zombie, "s", "{}", &[alert("z", "1")], 0).await;
    assert!(matches!(fenced, Err(StoreError::Fenced)));
    assert!(metastore.alerts_after(0, 9).await.expect("reads").is_empty());

    let commit = |alerts: Vec<AlertRecord>| {
        let metastore = metastore.clone();
        async move { metastore.commit_integrity("local", generation, "state-1", r#"{"0":5}"#, &alerts, 3).await.expect("commits") }
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
}

#[tokio::test]
async fn i6_an_audit_entry_that_is_changed_moved_removed_or_cut_off_breaks_the_chain() {
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
    for (statement, broken_at) in tampering {
        let (_dir, metastore) = open_metastore().await;
        assert_eq!(metastore.verify_audit().await.expect("verifies"), 0);
        for n in 1..=4 {
            let entry = metastore.append_audit("read", json!({"z": n, "a": 1.1}), n * 10).await.expect("appends");
            assert_eq!(entry.sequence, n);
        }
        assert_eq!(metastore.verify_audit().await.expect("verifies"), 4);
        sqlx::query(statement).execute(&metastore.writer).await.expect("tampers");
        match metastore.verify_audit().await {
            Err(StoreError::BrokenChain { sequence }) => assert_eq!(sequence, broken_at, "{statement}"),
            other => panic!("{statement}: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn i6_entries_appended_at_once_over_two_handles_make_one_chain() {
    let (dir, first) = open_metastore().await;
    let second = Metastore::open(&url(&dir)).await.expect("opens");
    let tasks = (0..40_i64).map(|i| {
        let metastore = if i % 2 == 0 { first.clone() } else { second.clone() };
        tokio::spawn(async move { metastore.append_audit("read", json!({ "i": i }), i).await })
    });
    for done in futures::future::join_all(tasks).await {
        done.expect("joins").expect("appends");
    }
    assert_eq!(first.verify_audit().await.expect("verifies"), 40);
    let tail = second.audit_tail(5).await.expect("reads");
    assert_eq!(tail.iter().map(|e| e.sequence).collect::<Vec<_>>(), [36, 37, 38, 39, 40]);
    assert!(second.append_audit_once("x", "k", json!({}), 1).await.expect("appends").is_some());
    assert!(first.append_audit_once("x", "k", json!({}), 1).await.expect("appends").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_new_file_may_be_opened_by_many_at_once_and_keeps_what_was_committed() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("tempdir");
    let tasks = (0..8).map(|_| {
        let url = url(&dir);
        tokio::spawn(async move {
            let metastore = Metastore::open(&url).await.expect("opens");
            metastore.append_audit("read", json!({}), 1).await.expect("appends");
        })
    });
    for done in futures::future::join_all(tasks).await {
        done.expect("joins");
    }
    assert_eq!(Metastore::open(&url(&dir)).await.expect("opens").verify_audit().await.expect("verifies"), 8);
    for entry in std::fs::read_dir(dir.path()).expect("lists") {
        let mode = entry.expect("entry").metadata().expect("there").permissions().mode();
        assert_eq!(mode & 0o077, 0, "only the owner may read");
    }
}

#[tokio::test]
async fn a_file_of_a_newer_version_is_refused_and_so_is_an_address_of_another_kind() {
    let (dir, metastore) = open_metastore().await;
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, installed_on, success, checksum, execution_time) \
         VALUES (9999, 'later', '2030-01-01', TRUE, x'00', 0)",
    )
    .execute(&metastore.writer)
    .await
    .expect("inserts");
    let error = Metastore::open(&url(&dir)).await.err().expect("refused");
    assert!(error.to_string().contains("newer version"), "{error}");
    for address in ["postgres://localhost/x", "metastore.db", "sqlite:/no/such/folder/x.db"] {
        assert!(matches!(Metastore::open(address).await, Err(StoreError::MetastoreAddress)), "{address}");
    }
}

#[tokio::test]
async fn i4_an_error_of_the_database_quotes_no_value() {
    let (_dir, metastore) = open_metastore().await;
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
