//! Whether a day, or an hour, is over: a pure decision from what the metastore says. What is said of days holds for hours, each by itself.
//!
//! The *watermark* of a partition is the largest event time committed from it. What it means for a day depends on which partitions may
//! still hold events of that day:
//!
//! - A partition is **idle** when it has been read to its end, as far as its owner has seen, nothing is planned, and nothing was committed
//!   for [`ClosePolicy::idle_after_ms`]. There is nothing unread in it, so however old its last event is, it holds no window open.
//! - Every other partition is **live**. One that was never read and has events (or an unknown end) is live without a watermark: it may hold
//!   anything, so it holds every window open.
//!
//! The overall watermark is the *smallest* of the live partitions: each of them may still give events that are about as old as its newest
//! one. When *all* are idle there is nothing left to read anywhere, and then the wall clock is the watermark: the smallest would be the time of
//! the partition that fell silent first, for ever, and the last day of a finished stream could not close before its deadline.
//!
//! With time alone, partitions only go from live to idle, which takes the smallest away or, for the last one, turns to the wall clock: the
//! watermark only rises, so a window that may close may close later too. When an idle partition comes alive again with old events, windows that
//! were closed meanwhile stay closed, and those events are counted as late (I1). `idle_after_ms` should therefore be longer than a
//! rebalance of consumers takes; and after ingest has stood still, its partitions' ends in the metastore are old, so ingest must have noted its
//! positions before the first decision.
//!
//! # When the wall clock is wrong
//!
//! A wall clock may be set on or back, by hand, by a time server, or by waking from sleep; times that were noted under the wrong one stay.
//!
//! - **Back**: what was noted before lies in the future. A look from there is no fresh look, so nothing is idle by it. A commit from there was a
//!   moment ago, so its partition stays live and holds windows open, at most until their deadline. A window whose opening lies further in the future
//!   than the deadline is long counts from its day's end: its key must not outlive the day for as long as the clock was wrong.
//! - **On**: deadlines pass. Whether the clock is right now or was right before cannot be told from here: keys of days whose deadline has passed die
//!   (privacy wins), and the window says that it is incomplete. What can be told is that the clock *jumped*, by whoever watches a second clock that only
//!   goes on: [`Steadiness`](crate::Steadiness) holds closing back for a while, loudly.
//!
//! Clients' clocks may run ahead, so event time alone does not end a day: the wall clock must have passed its end, too.

use starling_schemas::ids::{EpochId, HOUR_MS, Offset, Span};
use starling_store::{PartitionStatus, WindowRecord, WindowState};

/// How old the last look at a partition's end may be, in milliseconds, for the partition to count as idle.
pub const FRESH_MS: i64 = 30_000;

/// How long an hour waits at most, in milliseconds, once it is over and its late events had their time: six hours. It is of use soon or not at all, and
/// one partition that lags must not let the keys of all hours live for as long as a day may wait.
pub const HOUR_PATIENCE_MS: i64 = 6 * HOUR_MS;

/// When windows close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClosePolicy {
    /// How far event time must be past a day's end, in milliseconds, for its late events.
    pub allowed_lateness_ms: i64,
    /// After how many milliseconds without a commit a partition that was read to its end counts as idle.
    pub idle_after_ms: i64,
    /// How long after its end, in milliseconds of the wall clock, a day closes whatever is missing: its pseudonym key must not live on.
    pub deadline_ms: i64,
}

impl ClosePolicy {
    /// As it is for windows of this length: an hour has a deadline of its own, [`HOUR_PATIENCE_MS`] after the allowed lateness, or the one that was
    /// asked for where that comes sooner.
    #[must_use]
    pub fn of(self, span: Span) -> Self {
        let of_hour = self.allowed_lateness_ms.saturating_add(HOUR_PATIENCE_MS);
        Self { deadline_ms: if span == Span::Hour { self.deadline_ms.min(of_hour) } else { self.deadline_ms }, ..self }
    }
}

/// A window that is to be closed now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// The day, or hour.
    pub epoch: EpochId,
    /// Whether its events are all there. `false`: the deadline has passed, and the window is to be marked incomplete.
    pub complete: bool,
    /// Whether the deadline has passed. Where a complete close is refused for what is missing, the window closes without it.
    pub overdue: bool,
}

/// Whether a window's deadline has passed; see the module's text. `policy`: [that of its length](ClosePolicy::of).
#[must_use]
pub fn is_overdue(window: &WindowRecord, policy: &ClosePolicy, now_ms: i64) -> bool {
    let end_ms = window.id().end_ms();
    let is_from_the_future = window.opened_at_ms > now_ms.saturating_add(policy.deadline_ms);
    let counted_from_ms = if is_from_the_future { end_ms } else { end_ms.max(window.opened_at_ms) };
    now_ms >= counted_from_ms.saturating_add(policy.deadline_ms)
}

/// Whether a partition is idle; see the module's text.
#[must_use]
pub fn is_idle(partition: &PartitionStatus, policy: &ClosePolicy, now_ms: i64) -> bool {
    // A partition that was never read has nothing unread only if it is empty.
    let next = partition.next_offset.unwrap_or(Offset(0));
    partition.end_offset.is_some_and(|end| next >= end)
        && now_ms.saturating_sub(partition.seen_ms).saturating_abs() <= FRESH_MS
        && !partition.has_open_plan
        && now_ms.saturating_sub(partition.last_commit_ms) >= policy.idle_after_ms
}

/// The event time up to which everything is believed to be there, in milliseconds since 1970; `None`: nothing can be said.
#[must_use]
pub fn watermark_ms(partitions: &[PartitionStatus], policy: &ClosePolicy, now_ms: i64) -> Option<i64> {
    let mut live = partitions.iter().filter(|p| !is_idle(p, policy, now_ms)).peekable();
    if live.peek().is_none() {
        return (!partitions.is_empty()).then_some(now_ms);
    }
    // `None` is smaller than every time: one live partition without a watermark holds everything.
    live.map(|p| p.watermark_ms).min().flatten()
}

/// The windows to close now, oldest first, of `windows`, which are all days or all hours. `policy`: [that of their length](ClosePolicy::of).
///
/// A window closes as complete when the overall watermark has reached its end plus the allowed lateness and the wall clock has passed its
/// end; as incomplete when the wall clock has passed its end by the deadline. A close that has begun is always to be finished: from its
/// beginning
/// on, events of its day and of all days before are late, so that waiting gains nothing. As a deadline that has not passed had not
/// passed when the close began either, such a close was begun as a complete one.
///
/// An older window is never left open below a newer one that closes.
#[must_use]
pub fn decide(partitions: &[PartitionStatus], windows: &[WindowRecord], policy: &ClosePolicy, now_ms: i64) -> Vec<Decision> {
    let watermark = watermark_ms(partitions, policy, now_ms);
    let begun_through = windows.iter().filter(|w| w.state == WindowState::Closing).map(|w| w.epoch).max();
    let mut open: Vec<&WindowRecord> = windows.iter().filter(|w| !w.state.is_final()).collect();
    open.sort_unstable_by_key(|w| (w.epoch, w.opened_at_ms));
    open.dedup_by_key(|w| w.epoch);
    open.into_iter()
        .map_while(|window| {
            let (epoch, end_ms) = (window.epoch, window.epoch.end_ms());
            let passed = now_ms >= end_ms && watermark.is_some_and(|w| w >= end_ms.saturating_add(policy.allowed_lateness_ms));
            let overdue = is_overdue(window, policy, now_ms);
            let begun = begun_through.is_some_and(|through| epoch <= through);
            (passed || overdue || begun).then_some(Decision { epoch, complete: passed || !overdue, overdue })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use starling_schemas::ids::{DAY_MS, Generation, PartitionId, Sequence};

    use super::*;

    const POLICY: ClosePolicy = ClosePolicy { allowed_lateness_ms: 1_000, idle_after_ms: 60_000, deadline_ms: 2 * DAY_MS };
    const DAY: EpochId = EpochId(10);
    /// Stands for whenever now is.
    const NOW: i64 = i64::MAX;

    fn seen_at(seen_ms: i64, partition: PartitionStatus) -> PartitionStatus {
        PartitionStatus { seen_ms, ..partition }
    }

    /// [`decide`] with partitions whose ends were looked at a moment ago.
    fn decide(partitions: &[PartitionStatus], windows: &[WindowRecord], policy: &ClosePolicy, now_ms: i64) -> Vec<Decision> {
        let fresh: Vec<_> =
            partitions.iter().map(|p| if p.seen_ms == NOW { seen_at(now_ms, p.clone()) } else { p.clone() }).collect();
        super::decide(&fresh, windows, policy, now_ms)
    }

    /// Read to offset 5, with its newest event at `watermark_ms` and its last commit at `last_commit_ms`.
    fn partition(watermark_ms: Option<i64>, end: Option<i64>, last_commit_ms: i64) -> PartitionStatus {
        PartitionStatus {
            partition: PartitionId { source: "events".to_owned(), partition: 0 },
            generation: Generation(1),
            owner: "test".to_owned(),
            next_offset: Some(Offset(5)),
            next_sequence: Sequence(1),
            end_offset: end.map(Offset),
            watermark_ms,
            last_commit_ms,
            seen_ms: NOW,
            events: 5,
            has_open_plan: false,
        }
    }

    fn window(epoch: EpochId, state: WindowState) -> WindowRecord {
        WindowRecord {
            span: Span::Day,
            epoch,
            state,
            table: None,
            opened_at_ms: 0,
            closed_at_ms: None,
            expired_at_ms: None,
            gathered_through: None,
            swept_through: None,
            missed_events: 0,
        }
    }

    fn open(days: &[i32]) -> Vec<WindowRecord> {
        days.iter().map(|d| window(EpochId(*d), WindowState::Open)).collect()
    }

    fn closes(decisions: &[Decision]) -> Vec<(i32, bool)> {
        decisions.iter().map(|d| (d.epoch.0, d.complete)).collect()
    }

    #[test]
    fn a_window_closes_when_every_live_partition_is_past_its_end_and_the_lateness() {
        let now = DAY.end_ms() + 5_000;
        let ahead = partition(Some(DAY.end_ms() + 4_000), Some(9), now);
        let at = |ms| decide(&[ahead.clone(), partition(Some(ms), Some(9), now)], &open(&[10, 11]), &POLICY, now);
        assert_eq!(closes(&at(DAY.end_ms() + 999)), []);
        assert_eq!(closes(&at(DAY.end_ms() + 1_000)), [(10, true)]);
    }

    #[test]
    fn an_hour_closes_when_the_watermark_has_passed_it_and_waits_for_no_day() {
        let hours: Vec<_> =
            [9, 10].map(|n| WindowRecord { span: Span::Hour, ..window(DAY.hour_at(n), WindowState::Open) }).into();
        let end_ms = DAY.hour_at(9).end_ms();
        let at = |watermark_ms, now| {
            let decisions = decide(&[partition(Some(watermark_ms), Some(9), now)], &hours, &POLICY, now);
            decisions.iter().map(|d| (d.epoch.to_string(), d.complete)).collect::<Vec<_>>()
        };
        let nine = ("1970-01-11T09".to_owned(), true);
        assert_eq!(at(end_ms + POLICY.allowed_lateness_ms - 1, end_ms + 5_000), []);
        assert_eq!(at(end_ms + POLICY.allowed_lateness_ms, end_ms + 5_000), std::slice::from_ref(&nine));
        assert_eq!(at(DAY.end_ms() + DAY_MS, end_ms - 1), [], "a client's clock alone does not end it");
        assert_eq!(at(end_ms - 1, end_ms + POLICY.deadline_ms), [(nine.0, false)]);
    }

    #[test]
    fn i7_an_hour_waits_six_hours_beyond_its_late_events_and_never_longer_than_a_day_may() {
        let of_hours = POLICY.of(Span::Hour);
        assert_eq!((POLICY.of(Span::Day), POLICY.of(Span::Week), POLICY.of(Span::Month)), (POLICY, POLICY, POLICY));
        assert_eq!(of_hours, ClosePolicy { deadline_ms: POLICY.allowed_lateness_ms + 6 * HOUR_MS, ..POLICY });
        let short = ClosePolicy { deadline_ms: 2_000, ..POLICY };
        assert_eq!(short.of(Span::Hour), short);

        let hours = [WindowRecord { span: Span::Hour, ..window(DAY.hour_at(9), WindowState::Open) }];
        let lagging = partition(None, None, 0);
        let due_ms = DAY.hour_at(9).end_ms() + of_hours.deadline_ms;
        let at = |now| closes(&decide(std::slice::from_ref(&lagging), &hours, &of_hours, now));
        assert_eq!((at(due_ms - 1), at(due_ms)), (vec![], vec![(DAY.hour_at(9).0, false)]));
    }

    #[test]
    fn a_window_that_is_closed_past_its_deadline_is_known_as_overdue_complete_or_not() {
        let at = |watermark_ms, now| {
            let decisions = decide(&[partition(watermark_ms, Some(9), now)], &open(&[10]), &POLICY, now);
            decisions.iter().map(|d| (d.complete, d.overdue)).collect::<Vec<_>>()
        };
        let (read, due_ms) = (Some(DAY.end_ms() + POLICY.allowed_lateness_ms), DAY.end_ms() + POLICY.deadline_ms);
        assert_eq!(at(read, due_ms - 1), [(true, false)]);
        assert_eq!(at(read, due_ms), [(true, true)], "all is read: whether it can be merged is to be seen");
        assert_eq!(at(None, due_ms), [(false, true)]);
        let week = WindowRecord { span: Span::Week, ..window(DAY, WindowState::Open) };
        assert!(!is_overdue(&week, &POLICY, week.id().end_ms() + POLICY.deadline_ms - 1), "a week counts from its own end");
        assert!(is_overdue(&week, &POLICY, week.id().end_ms() + POLICY.deadline_ms));
    }

    #[test]
    fn an_idle_partition_does_not_hold_a_window_open_and_an_unread_one_does() {
        let now = DAY.end_ms() + 100_000;
        let ahead = partition(Some(DAY.end_ms() + 1_000), Some(9), now);
        let with = |other| closes(&decide(&[ahead.clone(), other], &open(&[10]), &POLICY, now));
        let old = Some(DAY.start_ms());
        let long_ago = now - POLICY.idle_after_ms;
        assert_eq!(with(partition(old, Some(5), long_ago)), [(10, true)], "idle");
        assert_eq!(with(partition(old, Some(5), long_ago + 1)), [], "committed a moment ago");
        assert_eq!(with(partition(old, Some(6), long_ago)), [], "one event unread");
        assert_eq!(with(partition(old, None, long_ago)), [], "end unknown");
        assert_eq!(with(PartitionStatus { has_open_plan: true, ..partition(old, Some(5), long_ago) }), [], "at work");
        let never_read = |end| PartitionStatus { next_offset: None, ..partition(None, end, 0) };
        assert_eq!(with(never_read(None)), [], "never read, end unknown");
        assert_eq!(with(never_read(Some(3))), [], "never read, and not empty");
        assert_eq!(with(never_read(Some(0))), [(10, true)], "empty");
    }

    #[test]
    fn when_all_are_idle_the_wall_clock_decides() {
        let silent = partition(Some(DAY.start_ms()), Some(5), 0);
        let at = |partitions: &[PartitionStatus], now| closes(&decide(partitions, &open(&[10, 11]), &POLICY, now));
        assert_eq!(at(std::slice::from_ref(&silent), DAY.end_ms() + 999), []);
        assert_eq!(at(std::slice::from_ref(&silent), DAY.end_ms() + 1_000), [(10, true)]);
        assert_eq!(at(&[], DAY.end_ms() + 1_000), [], "nothing is known");
    }

    #[test]
    fn nothing_is_idle_while_ingest_stands_still() {
        let now = DAY.end_ms() + 200_000;
        let seen =
            |seen_ms| closes(&decide(&[PartitionStatus { seen_ms, ..partition(None, Some(5), 0) }], &open(&[10]), &POLICY, now));
        assert_eq!(seen(now - FRESH_MS), [(10, true)]);
        assert_eq!(seen(now - FRESH_MS - 1), [], "the end that is known is old: there may be unread events");
    }

    #[test]
    fn a_backlog_is_not_overdue_before_it_is_read() {
        let live = partition(None, None, 0);
        let opened_at_ms = DAY.end_ms() + 300 * DAY_MS;
        let windows = [WindowRecord { opened_at_ms, ..window(DAY, WindowState::Open) }];
        let at = |now| closes(&decide(std::slice::from_ref(&live), &windows, &POLICY, now));
        assert_eq!(at(opened_at_ms + POLICY.deadline_ms - 1), []);
        assert_eq!(at(opened_at_ms + POLICY.deadline_ms), [(10, false)]);
    }

    #[test]
    fn the_deadline_closes_as_incomplete_whatever_is_missing() {
        let live = partition(None, None, 0);
        let at = |now| closes(&decide(std::slice::from_ref(&live), &open(&[10, 11]), &POLICY, now));
        assert_eq!(at(DAY.end_ms() + POLICY.deadline_ms - 1), []);
        assert_eq!(at(DAY.end_ms() + POLICY.deadline_ms), [(10, false)]);
        assert_eq!(at(DAY.end_ms() + POLICY.deadline_ms + DAY_MS), [(10, false), (11, false)]);
    }

    #[test]
    fn a_client_s_clock_alone_does_not_end_a_day() {
        let ahead = partition(Some(DAY.end_ms() + 900_000), Some(9), 0);
        assert_eq!(closes(&decide(std::slice::from_ref(&ahead), &open(&[10]), &POLICY, DAY.end_ms() - 1)), []);
        assert_eq!(closes(&decide(&[ahead], &open(&[10]), &POLICY, DAY.end_ms())), [(10, true)]);
    }

    #[test]
    fn a_close_that_has_begun_is_finished_and_takes_older_windows_along() {
        let live = partition(None, None, 0);
        let windows = [
            window(EpochId(12), WindowState::Open),
            window(EpochId(11), WindowState::Closing),
            window(EpochId(10), WindowState::Open),
            window(EpochId(9), WindowState::Closed),
            window(EpochId(8), WindowState::Incomplete),
        ];
        let at = |now| closes(&decide(std::slice::from_ref(&live), &windows, &POLICY, now));
        assert_eq!(at(EpochId(11).end_ms()), [(10, true), (11, true)]);
        assert_eq!(at(EpochId(11).end_ms() + POLICY.deadline_ms), [(10, false), (11, false)]);
    }

    prop_compose! {
        fn any_partition()(
            next in prop::option::of(0..4_i64),
            end in prop::option::of(0..4_i64),
            watermark_ms in prop::option::of(9 * DAY_MS..14 * DAY_MS),
            last_commit_ms in 12 * DAY_MS - 200_000..12 * DAY_MS,
            has_open_plan in any::<bool>(),
        ) -> PartitionStatus {
            PartitionStatus { next_offset: next.map(Offset), has_open_plan, ..partition(watermark_ms, end, last_commit_ms) }
        }
    }

    /// A time noted under a right clock, or under one a day or thirty ahead or behind, or nonsense.
    fn any_time() -> impl Strategy<Value = i64> {
        let near = 9 * DAY_MS..14 * DAY_MS;
        prop_oneof![
            4 => near.clone(),
            2 => (near, prop::sample::select(vec![-30 * DAY_MS, -DAY_MS, DAY_MS, 30 * DAY_MS])).prop_map(|(time, jump)| time + jump),
            1 => prop::sample::select(vec![i64::MIN, 0, i64::MAX]),
        ]
    }

    prop_compose! {
        fn any_clocked_partition()(
            partition in any_partition(),
            seen_ms in any_time(),
            last_commit_ms in any_time(),
        ) -> PartitionStatus {
            PartitionStatus { seen_ms, last_commit_ms, ..partition }
        }
    }

    proptest! {
        #[test]
        fn no_window_closes_as_complete_while_a_live_partition_is_inside_it(
            partitions in prop::collection::vec(any_partition(), 0..5),
            now in 9 * DAY_MS..14 * DAY_MS,
        ) {
            for decision in decide(&partitions, &open(&[9, 10, 11, 12]), &POLICY, now) {
                if decision.complete {
                    let needed = decision.epoch.end_ms() + POLICY.allowed_lateness_ms;
                    prop_assert!(now >= decision.epoch.end_ms());
                    for live in partitions.iter().filter(|p| !is_idle(&seen_at(now, (*p).clone()), &POLICY, now)) {
                        prop_assert!(live.watermark_ms.is_some_and(|w| w >= needed));
                    }
                    prop_assert!(now >= needed || partitions.iter().any(|p| p.watermark_ms.is_some_and(|w| w >= needed)));
                } else {
                    prop_assert!(now >= decision.epoch.end_ms() + POLICY.deadline_ms);
                }
            }
        }

        #[test]
        fn what_may_close_may_close_later_and_further_on(
            partitions in prop::collection::vec(any_partition(), 0..5),
            now in 9 * DAY_MS..14 * DAY_MS,
            later_ms in 0..DAY_MS,
            further_ms in 0..DAY_MS,
        ) {
            let windows = open(&[12, 9, 11, 10]);
            let before = decide(&partitions, &windows, &POLICY, now);
            prop_assert!(before.is_sorted_by_key(|d| d.epoch));
            let moved: Vec<_> = partitions
                .iter()
                .map(|p| PartitionStatus { watermark_ms: p.watermark_ms.map(|w| w + further_ms), ..p.clone() })
                .collect();
            let after = decide(&moved, &windows, &POLICY, now + later_ms);
            for decision in &before {
                let again = after.iter().find(|d| d.epoch == decision.epoch);
                prop_assert!(again.is_some_and(|d| d.complete || !decision.complete));
            }
        }

        #[test]
        fn i1_under_any_clock_no_window_closes_as_complete_over_unread_events_or_an_old_look(
            partitions in prop::collection::vec(any_clocked_partition(), 0..5),
            opened in prop::collection::vec(any_time(), 4),
            now in any_time(),
        ) {
            let windows: Vec<_> = (9..13)
                .zip(&opened)
                .map(|(day, opened)| WindowRecord { opened_at_ms: *opened, ..window(EpochId(day), WindowState::Open) })
                .collect();
            let decisions = super::decide(&partitions, &windows, &POLICY, now);
            prop_assert!(decisions.iter().zip(9..).all(|(decision, day)| decision.epoch == EpochId(day)), "none is left open below");
            for decision in decisions {
                let end_ms = decision.epoch.end_ms();
                prop_assert!(now >= end_ms, "a day closed before the wall clock said it was over");
                if decision.complete {
                    for p in &partitions {
                        let is_read = p.next_offset.unwrap_or(Offset(0)).0 >= p.end_offset.map_or(i64::MAX, |end| end.0) && !p.has_open_plan;
                        let is_fresh = (now.saturating_sub(FRESH_MS)..=now.saturating_add(FRESH_MS)).contains(&p.seen_ms);
                        let is_past = p.watermark_ms.is_some_and(|w| w >= end_ms + POLICY.allowed_lateness_ms);
                        prop_assert!(is_past || (is_read && is_fresh), "unread events, or nobody has looked lately");
                    }
                }
            }
        }

        #[test]
        fn i7_whatever_the_clock_said_a_window_closes_three_deadlines_after_its_day_and_the_clock_s_repair(
            partitions in prop::collection::vec(any_clocked_partition(), 0..5),
            opened_at_ms in any_time(),
            repaired_ms in 9 * DAY_MS..14 * DAY_MS,
        ) {
            let windows = [WindowRecord { opened_at_ms, ..window(DAY, WindowState::Open) }];
            let from_ms = repaired_ms.max(DAY.end_ms());
            let closes = |deadlines: i64| !super::decide(&partitions, &windows, &POLICY, from_ms + deadlines * POLICY.deadline_ms).is_empty();
            prop_assert!((0..=3).any(closes));
        }
    }

    #[test]
    fn a_look_from_before_the_clock_was_set_back_is_no_fresh_one() {
        let now = DAY.end_ms() + 200_000;
        let look = |seen_ms| closes(&super::decide(&[seen_at(seen_ms, partition(None, Some(5), 0))], &open(&[10]), &POLICY, now));
        assert_eq!(look(now + FRESH_MS), [(10, true)], "another machine's clock may be a little ahead");
        assert_eq!(look(now + DAY_MS), [], "noted while the clock was a day ahead: unread events may have come since");
    }

    #[test]
    fn a_window_opened_while_the_clock_was_thirty_days_ahead_still_meets_its_deadline() {
        let live = partition(None, None, 0);
        let windows = [WindowRecord { opened_at_ms: DAY.end_ms() + 30 * DAY_MS, ..window(DAY, WindowState::Open) }];
        let at = |now| closes(&decide(std::slice::from_ref(&live), &windows, &POLICY, now));
        assert_eq!(at(DAY.end_ms() + POLICY.deadline_ms - 1), []);
        assert_eq!(at(DAY.end_ms() + POLICY.deadline_ms), [(10, false)]);
    }
}
