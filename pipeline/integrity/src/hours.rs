//! Groups over an hour: who comes by being added, who comes by link, who leaves, who reports. Counters in panes of ten minutes and nothing
//! else: no member, no adder and no reporter is known here, so a rule can say how many left, never that those who left are those who came. Of reports it is
//! counted besides out of how many buckets of cohorts they come ([`crate::reports`]).
//!
//! A group's keyed form lives for a day, and a day has 144 panes, so nothing has to make room and what is counted does not depend on the
//! order in which it comes. When a group has been silent for so long that no window can reach back to it, all its panes go.
//!
//! ```text
//!   the hour before        a window of an hour
//!  ├──┬──┬──┬──┬──┬──┤├──┬──┬──┬──┬──┬──┤        looked at wherever its figures change, when alerts are taken
//!   left: what is usual    came, joined, left, reported
//! ```
//!
//! **What is not here.** An account that creates many groups within an hour cannot be seen: the signal of a created group has the group and
//! no person, for one row must not join a group with whoever made it (I5). That it was created only says that the group is new.

use crate::reports::Reports;
use crate::voices::{Crowd, WHOLE};

/// Length of a pane.
pub(crate) const PANE_MS: i64 = 600_000;
/// Panes of a day.
const DAY_PANES: i32 = 144;
/// Most panes kept of one group, those of a day: the newest.
pub(crate) const MOST_PANES: usize = DAY_PANES as usize;
/// Longest window of an hour rule.
pub(crate) const LONGEST_MS: i64 = 3_600_000;
/// A window, the hour before it, and the pane that is still open: a silent group is needed no longer than this.
pub(crate) const NEEDED_MS: i64 = 2 * LONGEST_MS + PANE_MS;

/// What happened in ten minutes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Pane {
    /// Event time divided by [`PANE_MS`].
    pub(crate) index: i32,
    pub(crate) added: u32,
    pub(crate) joined: u32,
    pub(crate) left: u32,
    /// No group has so many members that this were too small.
    pub(crate) reported: u16,
    /// Whether it was created in this pane.
    pub(crate) created: bool,
}

/// One signal of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moved {
    Added(u32),
    Joined,
    Left,
    /// Out of a bucket of cohorts, if that is known, and what it weighs in quarters.
    Reported(Option<u8>, u16),
    Created,
}

/// A group's panes, in order; those in which nothing happened are not kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Hours {
    pub(crate) panes: Vec<Pane>,
    /// Whose the reports are.
    pub(crate) reports: Reports,
}

/// What a window holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Figures {
    pub(crate) start_ms: i64,
    pub(crate) end_ms: i64,
    /// Added or joined.
    pub(crate) came: u32,
    pub(crate) joined: u32,
    pub(crate) left: u32,
    /// Most of those who left that can have come in the window: nobody leaves before he came.
    pub(crate) left_again: u32,
    pub(crate) reported: u32,
    /// How many reports that counts as.
    pub(crate) counted: u32,
    /// Of the reports, those of cohorts that more of reported than count.
    pub(crate) crowd: Crowd,
    /// Those of unknown cohorts.
    pub(crate) unknown: u32,
    /// Quarters by which all weigh less than whole ones.
    pub(crate) lighter: u32,
    /// Who left in as long a time before the window.
    pub(crate) left_before: u32,
    /// Who came in that time.
    pub(crate) came_before: u32,
    /// Whether that time lies in the same day: the day before is under another key.
    pub(crate) before_is_known: bool,
    /// Created in the window or in as long a time before it.
    pub(crate) is_new: bool,
}

impl Pane {
    fn came(&self) -> u32 {
        self.added.saturating_add(self.joined)
    }
}

fn index_of(time_ms: i64) -> i32 {
    let index = time_ms.div_euclid(PANE_MS);
    i32::try_from(index).unwrap_or(if index < 0 { i32::MIN } else { i32::MAX })
}

fn panes_of(ms: i64) -> i32 {
    i32::try_from(ms / PANE_MS).unwrap_or(i32::MAX)
}

impl Hours {
    /// Counts a signal; says whether there was room for it.
    pub(crate) fn count(&mut self, time_ms: i64, moved: Moved) -> bool {
        let index = index_of(time_ms);
        let Some(pane) = self.pane(index) else { return false };
        match moved {
            Moved::Added(members) => pane.added = pane.added.saturating_add(members),
            Moved::Joined => pane.joined = pane.joined.saturating_add(1),
            Moved::Left => pane.left = pane.left.saturating_add(1),
            Moved::Reported(bucket, quarters) => {
                pane.reported = pane.reported.saturating_add(1);
                self.reports.hear(index, bucket, quarters);
            }
            Moved::Created => pane.created = true,
        }
        true
    }

    /// The pane, or `None` if it is older than all that fit.
    fn pane(&mut self, index: i32) -> Option<&mut Pane> {
        let mut place = self.panes.partition_point(|p| p.index < index);
        if self.panes.get(place).is_none_or(|p| p.index != index) {
            if self.panes.len() >= MOST_PANES {
                if place == 0 {
                    return None;
                }
                let oldest = self.panes.remove(0);
                self.reports.forget(oldest.index);
                place -= 1;
            } else if self.panes.len() == self.panes.capacity() {
                // Most groups have one pane and few have many: room for no more than there can be.
                let more = self.panes.len().clamp(1, MOST_PANES - self.panes.len());
                self.panes.reserve_exact(more);
            }
            self.panes.insert(place, Pane { index, ..Pane::default() });
        }
        self.panes.get_mut(place)
    }

    /// Windows of `within_ms`, in order of time: one wherever its figures can change, those that hold nothing aside.
    ///
    /// Figures change where a pane comes into the window, goes from it into the time before, and goes from that; and where the time before
    /// has come into the day. So each figures there can be are found, whatever older panes are kept or forgotten.
    pub(crate) fn windows(&self, within_ms: i64) -> impl Iterator<Item = Figures> {
        let length = panes_of(within_ms);
        let mut starts: Vec<i32> = Vec::with_capacity(4 * self.panes.len());
        for pane in &self.panes {
            let next = pane.index.saturating_add(1);
            let day = pane.index.saturating_sub(pane.index.rem_euclid(DAY_PANES));
            starts.extend([next.saturating_sub(length), next, next.saturating_add(length), day.saturating_add(length)]);
        }
        starts.sort_unstable();
        starts.dedup();
        starts.into_iter().filter_map(move |start| self.figures(start, length))
    }

    /// The window of `within_ms` whose last pane ends at `end_ms`; `None` if it holds nothing.
    pub(crate) fn ending_at(&self, end_ms: i64, within_ms: i64) -> Option<Figures> {
        let length = panes_of(within_ms);
        self.figures(index_of(end_ms).saturating_sub(length), length)
    }

    fn between(&self, start: i32, end: i32) -> &[Pane] {
        let from = self.panes.partition_point(|p| p.index < start);
        let to = self.panes.partition_point(|p| p.index < end).max(from);
        self.panes.get(from..to).unwrap_or_default()
    }

    fn figures(&self, start: i32, length: i32) -> Option<Figures> {
        let inside = self.between(start, start.saturating_add(length));
        let from = start.saturating_sub(length);
        let before = self.between(from, start);
        let (first, last) = (inside.first()?.index, inside.last()?.index);
        let mut out = Figures {
            start_ms: i64::from(first) * PANE_MS,
            end_ms: (i64::from(last) + 1) * PANE_MS,
            left_before: before.iter().fold(0, |sum: u32, p| sum.saturating_add(p.left)),
            came_before: before.iter().fold(0, |sum: u32, p| sum.saturating_add(p.came())),
            before_is_known: from.div_euclid(DAY_PANES) == last.div_euclid(DAY_PANES),
            is_new: before.iter().chain(inside).any(|p| p.created),
            ..Figures::default()
        };
        for pane in inside {
            out.came = out.came.saturating_add(pane.came());
            out.joined = out.joined.saturating_add(pane.joined);
            out.left = out.left.saturating_add(pane.left);
            out.reported = out.reported.saturating_add(u32::from(pane.reported));
            out.left_again = out.left_again.saturating_add(pane.left).min(out.came);
        }
        if out.reported > 0 {
            let voices = self.reports.between(start, start.saturating_add(length));
            (out.counted, out.crowd, out.unknown) = (voices.counted(), voices.crowd(), voices.unknown);
            out.lighter = out.reported.saturating_mul(WHOLE.into()).saturating_sub(voices.quarters);
        }
        Some(out)
    }

    pub(crate) fn newest_ms(&self) -> i64 {
        self.panes.last().map_or(i64::MIN, |p| i64::from(p.index) * PANE_MS)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.panes.capacity() * size_of::<Pane>() + self.reports.bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const MINUTE: i64 = 60_000;

    fn hours(moved: &[(i64, Moved)]) -> Hours {
        let mut hours = Hours::default();
        for (minute, moved) in moved {
            assert!(hours.count(minute * MINUTE, *moved));
        }
        hours
    }

    #[test]
    fn nobody_leaves_before_he_came() {
        let figures = |moved: &[(i64, Moved)]| hours(moved).windows(LONGEST_MS).map(|f| f.left_again).max();
        assert_eq!(figures(&[(0, Moved::Left), (1, Moved::Left), (20, Moved::Added(9))]), Some(0));
        assert_eq!(figures(&[(0, Moved::Added(9)), (20, Moved::Left), (21, Moved::Left)]), Some(2));
        assert_eq!(figures(&[(0, Moved::Joined), (20, Moved::Left), (21, Moved::Left)]), Some(1), "one came");
        assert_eq!(figures(&[(0, Moved::Added(9)), (60, Moved::Left)]), Some(0), "an hour later");
        assert_eq!(figures(&[(0, Moved::Added(9)), (59, Moved::Left)]), Some(1));
    }

    #[test]
    fn a_wave_that_a_window_has_just_left_behind_is_not_in_it() {
        // 500 stay; of the 60 after them 50 leave. Both in one window are a tenth, the second alone is most of it.
        let mut moved = vec![(0, Moved::Added(500)), (50, Moved::Added(60))];
        moved.extend((0..50).map(|_| (55, Moved::Left)));
        let windows: Vec<_> = hours(&moved).windows(LONGEST_MS).map(|f| (f.came, f.left_again)).collect();
        assert!(windows.contains(&(560, 50)) && windows.contains(&(60, 50)), "{windows:?}");
    }

    #[test]
    fn the_hour_before_is_known_unless_it_lies_in_another_day() {
        let at = |minute: i64| {
            let group = hours(&[(minute, Moved::Joined)]);
            group.ending_at(minute * MINUTE + PANE_MS, LONGEST_MS).expect("one joined").before_is_known
        };
        assert!(!at(0) && !at(100));
        assert!(at(110) && at(1_430));
        assert!(!at(1_440));
    }

    #[test]
    fn a_group_is_new_for_as_long_as_a_window_and_the_time_before_it_reach_back() {
        let is_new = |minute: i64| {
            let group = hours(&[(600, Moved::Created), (minute, Moved::Joined)]);
            group.ending_at(minute * MINUTE + PANE_MS, LONGEST_MS).expect("one joined").is_new
        };
        assert!(is_new(600) && is_new(710));
        assert!(!is_new(720) && !is_new(590), "too late, too early");
    }

    #[test]
    fn a_pane_older_than_all_that_fit_is_dropped_and_bytes_are_bounded() {
        let mut group = Hours::default();
        assert_eq!(group.bytes(), 0);
        assert!(group.count(PANE_MS, Moved::Left));
        assert_eq!(group.bytes(), size_of::<Pane>(), "most groups have one pane");
        for index in 2..=MOST_PANES as i64 {
            assert!(group.count(index * PANE_MS, Moved::Joined));
        }
        assert!(!group.count(0, Moved::Left), "late");
        assert!(group.count(PANE_MS, Moved::Left), "still there");
        assert!(group.count((MOST_PANES as i64 + 1) * PANE_MS, Moved::Left));
        assert_eq!((group.panes.len(), group.bytes()), (MOST_PANES, 2_880));
        assert_eq!(group.panes.first().map(|p| p.index), Some(2), "the oldest made room");
    }

    #[test]
    fn counts_and_times_beyond_all_bounds_do_no_harm() {
        let mut group = Hours::default();
        for time in [i64::MIN, 0, i64::MAX] {
            assert!(group.count(time, Moved::Added(u32::MAX)) && group.count(time, Moved::Added(u32::MAX)));
            assert!(group.count(time, Moved::Left) && group.count(time, Moved::Created));
        }
        assert!(group.windows(LONGEST_MS).all(|f| f.came == u32::MAX && f.left_again == 1));
    }

    proptest! {
        /// The windows that are looked at are all there are.
        #[test]
        fn no_position_of_the_window_is_missed(moved in prop::collection::vec((1_000_i64..1_700, 0_u8..4), 1..40)) {
            let kinds = [Moved::Joined, Moved::Left, Moved::Reported(Some(7), 4), Moved::Created];
            let moved: Vec<_> = moved.into_iter().map(|(m, k)| (m, kinds[usize::from(k)])).collect();
            let group = hours(&moved);
            let looked: BTreeSet<_> = group.windows(LONGEST_MS).collect();
            let all: BTreeSet<_> = (0..200).filter_map(|start| group.figures(start, 6)).collect();
            prop_assert_eq!(looked, all);
        }
    }
}
