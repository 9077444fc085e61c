//! Many at once: owners who fight over partitions (I9), and everybody beside everybody (I1, I2, I6).

use std::sync::{Arc, Mutex};

use serde_json::json;
use starling_schemas::codes::Outcome;
use starling_schemas::cost::{Cost, NanoRho};
use starling_schemas::ids::{Generation, Offset, PartitionId};
use starling_store::{AlertRecord, ChargeOutcome, Metastore, Plan, RangeOutcome, StoreError, TableInfo};
use tokio::sync::watch;

use crate::support::{DAY, Place, outcome, partition, release, segment, told};

/// What an owner brings for a plan: rows of the day, or late events when the plan says that the day has closed.
fn honest(plan: &Plan) -> RangeOutcome {
    if plan.closed_through.is_none_or(|closed| closed < DAY) {
        return outcome(plan);
    }
    let events = (plan.to.0 - plan.from.0).unsigned_abs();
    RangeOutcome { events, counts: vec![(Some(DAY), Outcome::Late, events)], ..RangeOutcome::default() }
}

/// Takes a partition again and again, commits a few ranges each time, and notes them, until it is read up to `end`. Being fenced, at any
/// step, is what may happen; no other error may. The last range is planned only when `may_end` says so.
async fn own(
    metastore: Metastore,
    partition: PartitionId,
    end: i64,
    done: Arc<Mutex<Vec<Plan>>>,
    mut may_end: watch::Receiver<bool>,
) {
    'take: loop {
        let own = metastore.take_ownership(&partition, "crowd", 1).await.expect("takes");
        let (mut next, mut open) = (own.next_offset.unwrap_or_default(), own.open_plan);
        for _ in 0..3 {
            if next.0 + 5 >= end {
                drop(may_end.wait_for(|may| *may).await.expect("somebody says so"));
            }
            let plan = match open.take() {
                Some(plan) => plan,
                None if next.0 >= end => return,
                None => match metastore.plan(&partition, own.generation, next, Offset(next.0 + 5), 2).await {
                    Ok(plan) => plan,
                    Err(StoreError::Fenced) => continue 'take,
                    Err(error) => panic!("planning: {error}"),
                },
            };
            tokio::task::yield_now().await;
            match metastore.commit(&plan, &honest(&plan), 3).await {
                Ok(()) => {
                    next = plan.to;
                    done.lock().expect("lock").push(plan);
                }
                Err(StoreError::Fenced) => continue 'take,
                Err(error) => panic!("committing: {error}"),
            }
        }
        match metastore.note_position(&partition, own.generation, Offset(end), 4).await {
            Ok(()) | Err(StoreError::Fenced) => {}
            Err(error) => panic!("noting: {error}"),
        }
    }
}

/// Every offset of every partition committed once, in order, and the books say so.
async fn assert_tiled(metastore: &Metastore, done: &[Plan], partitions: i32, end: i64) {
    for number in 0..partitions {
        let mut mine: Vec<_> = done.iter().filter(|plan| plan.partition == partition(number)).collect();
        mine.sort_by_key(|plan| plan.sequence);
        assert!(mine.windows(2).all(|pair| pair[0].to == pair[1].from && pair[0].sequence < pair[1].sequence), "I9");
        assert_eq!((mine[0].from, mine[mine.len() - 1].to), (Offset(0), Offset(end)));
        assert!(mine.windows(2).all(|pair| pair[0].generation <= pair[1].generation), "I9: nobody commits after being fenced");
    }
    let statuses = metastore.partitions().await.expect("reads");
    assert!(statuses.iter().all(|s| s.events == end.unsigned_abs() && !s.has_open_plan), "I1: {statuses:?}");
    let counted: u64 = metastore.counts().await.expect("reads").iter().map(|c| c.events).sum();
    assert_eq!(counted, end.unsigned_abs() * u64::try_from(partitions).expect("small"), "I1");
    assert!(metastore.unbalanced().await.expect("reads").is_empty(), "I1");
}

pub(crate) async fn i9_owners_who_fight_over_partitions_commit_every_offset_once_and_in_order(place: Place) {
    let handles = [place.open().await, place.open().await, place.open().await];
    let done = Arc::new(Mutex::new(Vec::new()));
    let owners = (0..4).flat_map(|number| handles.iter().map(move |handle| (number, handle.clone())));
    let (_always, may_end) = watch::channel(true);
    let owners: Vec<_> = owners
        .map(|(number, handle)| tokio::spawn(own(handle, partition(number), 100, Arc::clone(&done), may_end.clone())))
        .collect();
    for owner in owners {
        owner.await.expect("no error but being fenced");
    }
    let done = done.lock().expect("lock").clone();
    assert_tiled(&handles[0], &done, 4, 100).await;
    let generations: i64 = handles[0].partitions().await.expect("reads").iter().map(|s| s.generation.0).sum();
    assert!(generations >= 12, "each took it at least once");
}

pub(crate) async fn i1_i2_i6_all_rooms_at_once_keep_every_book(place: Place) {
    let handles = [place.open().await, place.open().await];
    let done = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = Vec::new();
    let (has_begun, may_end) = watch::channel(false);
    for number in 0..4 {
        let handle = handles[usize::try_from(number).expect("small") % 2].clone();
        tasks.push(tokio::spawn(own(handle, partition(number), 150, Arc::clone(&done), may_end.clone())));
    }
    // The day closes in the middle: plans made before bring rows, later ones late events, and no row comes after the close.
    // However busy the machine is, each owner has a range left when it does.
    let (closer, seen) = (handles[1].clone(), Arc::clone(&done));
    tasks.push(tokio::spawn(async move {
        while seen.lock().expect("lock").len() < 20 {
            tokio::task::yield_now().await;
        }
        closer.begin_close(DAY, 5).await.expect("begins");
        has_begun.send(true).expect("owners wait");
        let table = TableInfo { path: "people/x.parquet".into(), rows: 4, bytes: 5 };
        while let Err(error) = closer.finish_close(DAY, &table, true, 6).await {
            assert!(matches!(error, StoreError::PlanOpen), "{error}");
        }
    }));
    for client in 0..8_i64 {
        let handle = handles[usize::try_from(client).expect("small") % 2].clone();
        tasks.push(tokio::spawn(async move {
            for question in 0..10 {
                let name = format!("question {}", question + 5 * (client % 4));
                let charged = handle.charge(&release(&name, DAY, 125, 10)).await.expect("answers");
                if charged == ChargeOutcome::Charged {
                    handle.append_audit("charged", json!({ "question": name }), client).await.expect("appends");
                }
            }
        }));
    }
    let alerting = handles[0].clone();
    tasks.push(tokio::spawn(async move {
        let generation = alerting.take_integrity("local", "crowd", 1).await.expect("takes");
        assert_eq!(generation, Generation(1));
        for n in 0..20 {
            let alert = AlertRecord {
                fingerprint: format!("f{}", n % 3),
                rule: "bulk_sender".into(),
                rule_version: 1,
                subject_kind: "business".into(),
                subject: "b\0x".into(),
                severity: "high".into(),
                first_ms: 1,
                last_ms: 2,
                body: n.to_string(),
                position: 0,
            };
            alerting.commit_integrity("local", generation, "state", "{}", &told([alert]), n).await.expect("commits");
        }
    }));
    for task in tasks {
        task.await.expect("no error that may not be");
    }
    let plans = done.lock().expect("lock").clone();
    assert_tiled(&handles[0], &plans, 4, 150).await;
    let late = plans.iter().filter(|p| p.closed_through == Some(DAY)).count();
    assert!(late > 0 && late < plans.len(), "the close fell in the middle: {late} of {}", plans.len());
    assert!(handles[0].segments(DAY).await.expect("reads").is_empty(), "no row came after the close");
    let budget = handles[0].budget().await.expect("reads");
    assert_eq!((budget[0].spent, budget[0].charges.len()), (Cost::noise(NanoRho(120)), 12), "I2");
    assert_eq!(handles[1].verify_audit().await.expect("verifies"), 12, "I6");
    let feed = handles[1].alerts_after(0, 99).await.expect("reads");
    assert_eq!(feed.iter().map(|a| a.position).collect::<Vec<_>>(), [18, 19, 20]);
    assert!(feed.iter().all(|a| a.subject == "b\u{fffd}x"), "text holds no NUL");
}

pub(crate) async fn paths_are_in_the_order_of_their_bytes(place: Place) {
    let metastore = place.open().await;
    let own = metastore.take_ownership(&partition(0), "test", 1).await.expect("takes");
    let plan = metastore.plan(&partition(0), own.generation, Offset(0), Offset(1), 2).await.expect("plans");
    let paths = ["b", "a", "B", "a-2", "a/1", "é", "_"];
    let segments = paths.map(|path| starling_store::SegmentRecord { path: path.into(), ..segment(&plan, DAY) }).to_vec();
    metastore.commit(&plan, &RangeOutcome { segments, ..outcome(&plan) }, 3).await.expect("commits");
    let found: Vec<_> = metastore.segments(DAY).await.expect("reads").into_iter().map(|s| s.path).collect();
    assert_eq!(found, ["B", "_", "a", "a-2", "a/1", "b", "é"], "I9: the same on every database, whatever its language");
}
