use starling_schemas::ids::PartitionId;

use super::*;

fn limits(max_events: usize, max_bytes: usize) -> BatchLimits {
    BatchLimits { max_events, max_bytes, linger_ms: 0 }
}

fn partition() -> PartitionId {
    PartitionId { source: "events".into(), partition: 0 }
}

fn plan(from: i64, to: i64, sequence: i64) -> Plan {
    Plan {
        partition: partition(),
        generation: Generation(1),
        sequence: Sequence(sequence),
        from: Offset(from),
        to: Offset(to),
        closed_through: None,
        hours_after: None,
        group_lists: None,
        planned_at_ms: 0,
        watermark_ms: None,
    }
}

fn owned(next: Option<i64>, open: Option<Plan>) -> Ownership {
    Ownership {
        partition: partition(),
        generation: Generation(1),
        next_offset: next.map(Offset),
        next_sequence: Sequence(0),
        watermark_ms: None,
        open_plan: open,
    }
}

fn range(from: i64, to: i64) -> Range {
    Range { from: Offset(from), to: Offset(to) }
}

#[test]
fn a_range_ends_at_the_event_limit_and_holes_belong_to_the_range_that_follows() {
    let mut cutter = Cutter::new(&owned(Some(10), None), limits(2, 1000));
    assert_eq!(cutter.offer(Offset(12), 1), Offer::Take);
    assert_eq!(cutter.offer(Offset(13), 1), Offer::Take);
    assert!(cutter.full());
    assert_eq!(cutter.offer(Offset(20), 1), Offer::TakeAfter(range(10, 14)));
    assert_eq!(cutter.offer(Offset(13), 1), Offer::Behind);
    assert_eq!(cutter.cut(), Some(range(14, 21)));
    assert_eq!(cutter.cut(), None);
}

#[test]
fn a_range_ends_before_it_grows_over_its_bytes_and_a_giant_stands_alone() {
    let mut cutter = Cutter::new(&owned(Some(0), None), limits(100, 10));
    assert_eq!(cutter.offer(Offset(0), 6), Offer::Take);
    assert_eq!(cutter.offer(Offset(1), 6), Offer::TakeAfter(range(0, 1)));
    assert_eq!(cutter.offer(Offset(2), 5000), Offer::TakeAfter(range(1, 2)));
    assert!(cutter.full());
    assert_eq!(cutter.offer(Offset(3), 1), Offer::TakeAfter(range(2, 3)));
}

#[test]
fn a_never_read_partition_begins_at_its_first_offset_and_an_empty_one_has_no_range() {
    let mut cutter = Cutter::new(&owned(None, None), BatchLimits::default());
    assert_eq!(cutter.at_end(Offset(0)), None);
    assert!(!cutter.only_markers_left());
    assert_eq!(cutter.cut(), None);
    assert_eq!(cutter.offer(Offset(500), 1), Offer::Take);
    assert_eq!(cutter.cut(), Some(range(500, 501)));
}

#[test]
fn markers_at_the_end_of_the_log_are_passed_with_an_empty_range() {
    let mut cutter = Cutter::new(&owned(Some(5), None), BatchLimits::default());
    assert_eq!(cutter.at_end(Offset(5)), None);
    assert!(!cutter.only_markers_left());
    cutter.at_end(Offset(6));
    assert!(cutter.only_markers_left());
    assert_eq!(cutter.cut(), Some(range(5, 6)));
    assert_eq!(cutter.position(), Some(Offset(6)));
    assert_eq!(cutter.cut(), None);
}

#[test]
fn i9_an_open_plan_is_filled_exactly_whatever_the_limits_say() {
    let mut cutter = Cutter::new(&owned(Some(10), Some(plan(10, 20, 0))), limits(2, 10));
    assert_eq!(cutter.position(), Some(Offset(10)));
    for offset in [10, 11, 12, 15, 17] {
        assert_eq!(cutter.offer(Offset(offset), 100), Offer::Take);
    }
    assert_eq!(cutter.at_end(Offset(18)), None, "the log is shorter than the plan: wait");
    assert_eq!(cutter.cut(), None);
    let mut at_end = cutter.clone();
    assert_eq!(at_end.at_end(Offset(20)), Some(range(10, 20)));
    assert_eq!(cutter.offer(Offset(23), 1), Offer::TakeAfter(range(10, 20)));
    assert_eq!(cutter.cut(), Some(range(20, 24)));
}

#[test]
fn a_range_is_planned_processed_and_committed_in_this_order() {
    let mut turn = Turn::new(&owned(Some(0), None));
    assert_eq!(turn.observe(Fact::Cut(range(0, 5))), Action::Plan(range(0, 5)));
    assert_eq!(turn.observe(Fact::Planned(plan(0, 5, 0))), Action::Process { plan: plan(0, 5, 0), attempt: 1 });
    assert_eq!(turn.observe(Fact::Processed), Action::Commit { plan: plan(0, 5, 0), attempt: 1 });
    assert_eq!(turn.observe(Fact::Committed), Action::Wait);
    assert_eq!(turn.next_offset(), Some(Offset(5)));
    assert_eq!(turn.observe(Fact::Cut(range(5, 6))), Action::Plan(range(5, 6)));
}

#[test]
fn a_fenced_owner_discards_its_batch() {
    let mut turn = Turn::new(&owned(Some(0), None));
    turn.observe(Fact::Cut(range(0, 5)));
    turn.observe(Fact::Planned(plan(0, 5, 0)));
    turn.observe(Fact::Processed);
    assert_eq!(turn.observe(Fact::CommitRefused(Refusal::Fenced)), Action::End(Verdict::Fenced));
    assert_eq!(turn.observe(Fact::Committed), Action::End(Verdict::Fenced), "a late answer changes nothing");
}

#[test]
fn a_lost_answer_to_a_commit_is_asked_again_and_its_refusal_is_understood() {
    let mut turn = Turn::new(&owned(Some(0), None));
    turn.observe(Fact::Cut(range(0, 5)));
    turn.observe(Fact::Planned(plan(0, 5, 0)));
    turn.observe(Fact::Processed);
    assert_eq!(turn.observe(Fact::CommitRefused(Refusal::Unclear)), Action::Commit { plan: plan(0, 5, 0), attempt: 2 });
    assert_eq!(turn.observe(Fact::CommitRefused(Refusal::NotTheOpenPlan)), Action::Wait);
    assert_eq!(turn.next_offset(), Some(Offset(5)));
}

#[test]
fn a_lost_answer_to_a_plan_ends_the_turn() {
    let mut turn = Turn::new(&owned(Some(0), None));
    turn.observe(Fact::Cut(range(0, 5)));
    assert_eq!(turn.observe(Fact::PlanRefused(Refusal::Unclear)), Action::End(Verdict::Unclear));
}

#[test]
fn a_range_that_cannot_be_processed_ends_the_turn_after_five_times() {
    let mut turn = Turn::new(&owned(Some(0), Some(plan(0, 5, 0))));
    turn.observe(Fact::Cut(range(0, 5)));
    for attempt in 2..=MAX_TRIES {
        assert_eq!(turn.observe(Fact::ProcessFailed), Action::Process { plan: plan(0, 5, 0), attempt });
    }
    assert_eq!(turn.observe(Fact::ProcessFailed), Action::End(Verdict::Failed));
}

#[test]
fn i1_a_range_whose_day_closed_at_its_deadline_is_processed_again_a_few_times() {
    let mut turn = Turn::new(&owned(Some(0), Some(plan(0, 5, 0))));
    turn.observe(Fact::Cut(range(0, 5)));
    for attempt in 2..=MAX_TRIES {
        turn.observe(Fact::Processed);
        let again = turn.observe(Fact::CommitRefused(Refusal::WindowClosed));
        assert_eq!(again, Action::Process { plan: plan(0, 5, 0), attempt });
    }
    turn.observe(Fact::Processed);
    assert_eq!(turn.observe(Fact::CommitRefused(Refusal::WindowClosed)), Action::End(Verdict::Failed));
}

#[test]
fn a_gap_an_overlap_or_another_replay_is_a_breach() {
    for wrong in [range(4, 9), range(6, 9), range(5, 5)] {
        assert_eq!(Turn::new(&owned(Some(5), None)).observe(Fact::Cut(wrong)), Action::End(Verdict::Breach));
    }
    let open = owned(Some(5), Some(plan(5, 9, 0)));
    assert_eq!(Turn::new(&open).observe(Fact::Cut(range(5, 8))), Action::End(Verdict::Breach));
    assert_eq!(Turn::new(&open).observe(Fact::Processed), Action::End(Verdict::Breach));
}
