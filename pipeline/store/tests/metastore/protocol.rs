//! Plan and commit: the database against the pure state machine, step by step.

use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence, TestRunner};
use starling_schemas::codes::Outcome;
use starling_schemas::ids::{Generation, Offset, Sequence};
use starling_store::protocol::{PlannedRange, Progress};
use starling_store::{Plan, StoreError};

use crate::support::{DAY, Place, outcome, partition, segment};

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
async fn agree(place: &Place, steps: Vec<Step>) {
    let handles = [place.open().await, place.open().await];
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
                let range = PlannedRange {
                    from: *next,
                    to: Offset(next.0 + length),
                    closed_through: None,
                    hours_after: None,
                    group_lists: None,
                    planned_at_ms: 7,
                };
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

pub(crate) async fn i1_i9_the_database_follows_the_protocol_under_any_order_of_owners_crashes_zombies_and_replays(place: Place) {
    let runtime = tokio::runtime::Handle::current();
    let persistence = Some(Box::new(FileFailurePersistence::WithSource("proptest-regressions")) as Box<_>);
    let config = Config { cases: 24, failure_persistence: persistence, source_file: Some(file!()), ..Config::default() };
    tokio::task::block_in_place(|| {
        TestRunner::new(config)
            .run(&prop::collection::vec(step(), 1..60), |steps| {
                runtime.block_on(agree(&place.another(), steps));
                Ok(())
            })
            .expect("the database follows the protocol");
    });
}

pub(crate) async fn a_crash_between_plan_and_commit_gives_the_next_owner_the_same_range_and_the_zombie_nothing(place: Place) {
    let metastore = place.open().await;
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
