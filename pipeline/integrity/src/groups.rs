//! Groups that fill with strangers at once: members added, in panes of ten seconds. No member is known here, only how many. What a group
//! does over an hour is beside it in [`crate::hours`].
//!
//! Of a group whose members were added in more than [`MOST_PANES`] panes the newest are kept. What comes late and is older than
//! all of them is left out, though it would have been counted in time: of such a group an alert can depend on the order of signals.

use crate::hours::Hours;

/// Length of a pane.
pub(crate) const PANE_MS: i64 = 10_000;
/// Most panes kept of one group: the newest.
pub(crate) const MOST_PANES: usize = 64;

/// Members added in one pane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pane {
    /// Event time divided by [`PANE_MS`].
    pub(crate) index: i64,
    pub(crate) added: u32,
    pub(crate) strangers: u32,
}

/// A group's recent panes, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) panes: Vec<Pane>,
    pub(crate) hours: Hours,
    pub(crate) epoch: i32,
    pub(crate) touched: u32,
    /// Whether something came since its hours were judged last.
    pub(crate) to_judge: bool,
    /// Whether its hours gave an alert: one that is to stay when they are forgotten.
    pub(crate) has_alert: bool,
    /// Whether something came since its facts were kept.
    pub(crate) to_keep: bool,
}

/// The fullest window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Burst {
    pub(crate) added: u32,
    pub(crate) strangers: u32,
    pub(crate) start_ms: i64,
    pub(crate) end_ms: i64,
    /// Start of the first window that held, among those looked at.
    pub(crate) first_ms: i64,
    /// End of the last one.
    pub(crate) last_ms: i64,
}

impl Group {
    /// Adds members; returns the pane's place, or `None` if it is older than all that fit.
    pub(crate) fn add(&mut self, time_ms: i64, added: u32, strangers: u32) -> Option<usize> {
        let index = time_ms.div_euclid(PANE_MS);
        let strangers = strangers.min(added);
        let mut place = self.panes.partition_point(|p| p.index < index);
        if let Some(pane) = self.panes.get_mut(place).filter(|p| p.index == index) {
            pane.added = pane.added.saturating_add(added);
            pane.strangers = pane.strangers.saturating_add(strangers);
            return Some(place);
        }
        if self.panes.len() >= MOST_PANES {
            if place == 0 {
                return None;
            }
            self.panes.remove(0);
            place -= 1;
        }
        self.panes.insert(place, Pane { index, added, strangers });
        Some(place)
    }

    /// The fullest window of `within_ms` among those that hold the pane at `place`, at least `members` and enough strangers; the earliest of equals.
    pub(crate) fn burst(&self, place: usize, within_ms: i64, members: u32, stranger_share: f64) -> Option<Burst> {
        let length = within_ms / PANE_MS;
        let at = self.panes.get(place)?.index;
        let mut best: Option<Burst> = None;
        for end in self.panes.iter().skip(place).take_while(|p| p.index < at + length) {
            let inside = self.panes.iter().filter(|p| p.index > end.index - length && p.index <= end.index);
            let (mut added, mut strangers, mut first) = (0_u32, 0_u32, i64::MAX);
            for pane in inside {
                added = added.saturating_add(pane.added);
                strangers = strangers.saturating_add(pane.strangers);
                first = first.min(pane.index);
            }
            let enough = added >= members && f64::from(strangers) >= stranger_share * f64::from(added);
            if !enough {
                continue;
            }
            let (start_ms, end_ms) = (first * PANE_MS, (end.index + 1) * PANE_MS);
            best = match best {
                Some(b) if b.added >= added => Some(Burst { last_ms: end_ms, ..b }),
                _ => Some(Burst {
                    added,
                    strangers,
                    start_ms,
                    end_ms,
                    first_ms: best.map_or(start_ms, |b| b.first_ms),
                    last_ms: end_ms,
                }),
            };
        }
        best
    }

    pub(crate) fn newest_ms(&self) -> i64 {
        self.panes.last().map_or(i64::MIN, |p| p.index * PANE_MS)
    }

    /// Bytes this group takes, map entry aside.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>() + self.panes.capacity() * size_of::<Pane>() + self.hours.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bursts(adds: &[(i64, u32, u32)]) -> Option<Burst> {
        let mut group = Group::default();
        adds.iter()
            .filter_map(|(t, added, strangers)| group.add(*t, *added, *strangers).and_then(|p| group.burst(p, 600_000, 100, 0.5)))
            .max_by_key(|b| b.added)
    }

    #[test]
    fn a_hundred_strangers_within_ten_minutes_are_a_burst_and_ninety_nine_are_not() {
        let adds = |last: u32| (0..9).map(|i| (i * 60_000, 10, 9)).chain([(590_000, last, last)]).collect::<Vec<_>>();
        assert_eq!(bursts(&adds(10)).map(|b| b.added), Some(100));
        assert_eq!(bursts(&adds(9)), None);
    }

    #[test]
    fn known_people_over_an_hour_are_a_wedding() {
        let adds: Vec<_> = (0..60).map(|i| (i * 60_000, 4, 0)).collect();
        assert_eq!(bursts(&adds), None);
        let strangers: Vec<_> = (0..60).map(|i| (i * 60_000, 4, 4)).collect();
        assert_eq!(bursts(&strangers), None, "40 in any ten minutes");
    }

    #[test]
    fn a_group_takes_about_two_hundred_bytes_and_never_four_kibibytes() {
        let mut group = Group::default();
        group.hours.count(0, crate::hours::Moved::Left);
        assert!(group.bytes() <= 128, "{}", group.bytes());
        group.add(0, 1, 1);
        assert!(group.bytes() <= 256, "{}", group.bytes());
        for second in 0..86_400_i64 {
            group.add(second * 1000, 1, 1);
            group.hours.count(second * 1000, crate::hours::Moved::Added(1));
        }
        assert_eq!((group.panes.len(), group.hours.panes.len()), (MOST_PANES, crate::hours::MOST_PANES));
        assert!(group.bytes() <= 4_096, "{}", group.bytes());
    }

    #[test]
    fn i9_the_order_of_arrival_does_not_matter() {
        let adds: Vec<_> = (0..12).map(|i| (i * 31_000, 15, 12)).collect();
        let mut backwards = adds.clone();
        backwards.reverse();
        assert_eq!(bursts(&adds).map(|b| (b.added, b.start_ms)), bursts(&backwards).map(|b| (b.added, b.start_ms)));
    }
}
