//! Clocks that are set on, back, or stand, and disks that fail at a deadline.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::{ClosePolicy, decide};

const POLICY: ClosePolicy = ClosePolicy { allowed_lateness_ms: 1_000, idle_after_ms: 60_000, deadline_ms: 2 * DAY_MS };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i1_i9_a_clock_set_on_or_back_between_plan_and_commit_and_within_a_close_changes_no_row() {
    let jumps = [0, DAY_MS, -DAY_MS, 30 * DAY_MS, -30 * DAY_MS];
    for (number, first) in jumps.into_iter().enumerate() {
        // Each step under another wrong clock; the first one is the clock that stands.
        let jump = |step: usize| if first == 0 { 0 } else { jumps[(number + step) % jumps.len()] };
        let house = House::new().await;
        let right_ms = house.now();
        let (a, b) = (events(1, 3), [events(1, 2), events(2, 1)].concat());
        let plan = house.plan(0, 0, &a).await;
        house.clock.set(right_ms + jump(1));
        let outcome = house.process(&plan, &a).await;
        house.clock.set(right_ms + jump(2));
        house.closer.metastore.commit(&plan, &outcome, house.now()).await.expect("commits");
        house.ingest(1, 0, &b).await;
        house.clock.set(right_ms + jump(3));
        house.closer.metastore.begin_close(DAY, house.now()).await.expect("begins");
        house.clock.set(right_ms + jump(4));
        let report = house.closer.close(DAY, true).await.expect("closes");
        assert_eq!(report.outcomes, BTreeMap::from([("counted", 6)]), "from {first}");
        house.assert_closed(&model(&[a, b].concat())).await;
        assert!(house.closer.metastore.unbalanced().await.expect("reads").is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i1_a_clock_set_on_by_a_month_closes_as_incomplete_says_so_and_the_range_in_work_is_counted_as_late() {
    let (house, expected) = house_with_events().await;
    let late = events(3, 2);
    let plan = house.plan(1, 3, &late).await;
    let outcome = house.process(&plan, &late).await;
    house.clock.set(house.now() + 30 * DAY_MS);
    let metastore = &house.closer.metastore;
    let (partitions, windows) = (metastore.partitions().await.expect("reads"), metastore.windows().await.expect("reads"));
    let decisions = decide(&partitions, &windows, &POLICY, house.now());
    assert_eq!(decisions.len(), 1);
    assert!(!decisions[0].complete, "a range is in work");
    let report = house.closer.close_waiting(DAY, false, SOON).await.expect("closes");
    assert_eq!(report.shortfall.map(|s| (s.open_plans, s.counted)), Some((1, 10)));
    let told = house.audit("window_incomplete").await;
    assert_eq!((told.len(), &told[0].detail["open_plans"]), (1, &json!(1)));
    assert!(house.pseudonym_key_is_destroyed());

    // The range's rows are refused; without the key its events are late, and all of them are counted.
    let refused = metastore.commit(&plan, &outcome, house.now()).await;
    assert!(matches!(refused, Err(StoreError::WindowClosed)), "{refused:?}");
    let counts = vec![(Some(DAY), Outcome::Late, 2)];
    metastore.commit(&plan, &RangeOutcome { events: 2, counts, ..RangeOutcome::default() }, house.now()).await.expect("commits");
    assert!(metastore.unbalanced().await.expect("reads").is_empty());
    assert_eq!(house.table().await, expected, "nothing was added to the closed day");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i7_at_the_deadline_the_key_dies_also_where_the_table_cannot_be_written() {
    let (house, expected) = house_with_events().await;
    house.clock.set(DAY.end_ms() + POLICY.deadline_ms);
    // Something stands where the folder of tables should be made.
    let people = house.closer.files.local_root().expect("local files").join("people");
    std::fs::write(&people, b"").expect("writes");
    std::fs::set_permissions(&people, std::fs::Permissions::from_mode(0o600)).expect("sets");
    let failed = house.closer.close_waiting(DAY, true, SOON).await;
    assert!(matches!(failed, Err(AggregateError::Store(StoreError::File { .. }))), "{failed:?}");
    assert!(!house.pseudonym_key_is_destroyed(), "a complete close destroys nothing before its table is in place");
    let failed = house.closer.close_waiting(DAY, false, SOON).await;
    assert!(matches!(failed, Err(AggregateError::Store(StoreError::File { .. }))), "{failed:?}");
    assert!(house.pseudonym_key_is_destroyed());
    assert_eq!(house.state().await, WindowState::Closing);
    std::fs::remove_file(&people).expect("removes");
    house.closer.close(DAY, false).await.expect("finishes");
    assert_eq!(house.table().await, expected);
}
