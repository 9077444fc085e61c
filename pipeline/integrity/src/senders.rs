//! Fast bulk: messages of one sender within a sliding window, exact to the millisecond.
//!
//! While a sender is active, the times of its recent messages are kept in order, with a bit for "the account was young". Each new message
//! is counted with those of the window that ends at it. A message that comes out of order makes the windows ending after it be counted
//! again, so what is found does not depend on the order of arrival. When a sender has been silent, its times go: an ordinary person
//! leaves nothing behind after a few minutes.

/// Longest window of a sender rule.
pub(crate) const HORIZON_MS: i64 = 60_000;
/// Most times kept of one sender: the newest. Above this the peak is told as at least so many; a limit can hide messages, never add any.
pub(crate) const MOST_TIMES: usize = 4096;

/// The largest window seen of one rule, and where the rule held at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peak {
    pub(crate) count: u32,
    pub(crate) start_ms: i64,
    pub(crate) end_ms: i64,
    /// Start of the first window that held, among those looked at.
    pub(crate) first_ms: i64,
    /// End of the last one.
    pub(crate) last_ms: i64,
}

/// One sender's recent messages: time in milliseconds, shifted left by one, with the young bit below.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sender {
    pub(crate) times: Vec<i64>,
    /// Day whose key the subject is under.
    pub(crate) epoch: i32,
    /// Sweep during which it was touched last.
    pub(crate) touched: u32,
}

/// What a rule asks of a sender.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) within_ms: i64,
    pub(crate) messages: u32,
    pub(crate) young_only: bool,
    /// Windows must start before this: later ones are whole under the next day's key, and are judged there.
    pub(crate) start_before_ms: i64,
}

impl Sender {
    /// Adds a message; returns where it stands among the kept ones, or `None` if it is older than all that fit.
    pub(crate) fn add(&mut self, time_ms: i64, young: bool) -> Option<usize> {
        let packed = time_ms << 1 | i64::from(young);
        let mut place = match self.times.last() {
            Some(last) if *last > packed => self.times.partition_point(|t| *t <= packed),
            _ => self.times.len(),
        };
        if self.times.len() >= MOST_TIMES {
            if place == 0 {
                return None;
            }
            self.times.remove(0);
            place -= 1;
        }
        self.times.insert(place, packed);
        Some(place)
    }

    /// The fullest window among those that the message at `place` is in and that hold at least `messages`, the earliest of equals.
    pub(crate) fn peak(&self, place: usize, window: Window) -> Option<Peak> {
        let time = |i: usize| self.times.get(i).map_or(i64::MAX, |t| t >> 1);
        let added = time(place);
        // Cheap first: windows that end at or after the new message lie within twice the length around it.
        let first = self.times.partition_point(|t| t >> 1 <= added.saturating_sub(window.within_ms));
        let beyond = self.times.partition_point(|t| t >> 1 < added.saturating_add(window.within_ms));
        if ((beyond - first) as u64) < u64::from(window.messages) {
            return None;
        }
        let counts = |i: usize| -> u32 { u32::from(!window.young_only || self.times.get(i).is_some_and(|t| t & 1 == 1)) };
        let mut low = first;
        let mut count: u32 = (first..place).map(counts).sum();
        let mut best: Option<Peak> = None;
        for end in place..beyond {
            count += counts(end);
            while time(low) <= time(end) - window.within_ms {
                count -= counts(low);
                low += 1;
            }
            // The window begins at its first message that counts.
            let start = (low..=end).find(|i| counts(*i) == 1).map_or(time(end), time);
            if count < window.messages || start >= window.start_before_ms {
                continue;
            }
            let (first_ms, last_ms) = (best.map_or(start, |b| b.first_ms), time(end));
            best = match best {
                Some(b) if b.count >= count => Some(Peak { last_ms, ..b }),
                _ => Some(Peak { count, start_ms: start, end_ms: time(end), first_ms, last_ms }),
            };
        }
        best
    }

    /// The newest message.
    pub(crate) fn newest_ms(&self) -> i64 {
        self.times.last().map_or(i64::MIN, |t| t >> 1)
    }

    /// Bytes this sender takes, map entry aside.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>() + self.times.capacity() * size_of::<i64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MINUTE: Window = Window { within_ms: 60_000, messages: 5, young_only: false, start_before_ms: i64::MAX };

    fn peaks(times: &[i64], window: Window) -> Option<Peak> {
        let mut sender = Sender::default();
        let mut best: Option<Peak> = None;
        for t in times {
            let place = sender.add(*t, t % 2 == 0).expect("fits");
            if let Some(p) = sender.peak(place, window)
                && best.is_none_or(|b| p.count > b.count || (p.count == b.count && p.start_ms < b.start_ms))
            {
                best = Some(p);
            }
        }
        best
    }

    /// Every window that starts at a message, counted one by one.
    fn naive(times: &[i64], window: Window) -> Option<Peak> {
        let mut sorted: Vec<i64> = times.iter().copied().filter(|t| !window.young_only || t % 2 == 0).collect();
        sorted.sort_unstable();
        let windows = sorted.iter().map(|s| {
            let inside: Vec<_> = sorted.iter().filter(|t| **t >= *s && **t < s + window.within_ms).collect();
            Peak { count: inside.len() as u32, start_ms: *s, end_ms: inside.last().map_or(*s, |t| **t), first_ms: 0, last_ms: 0 }
        });
        let held = windows.filter(|p| p.count >= window.messages && p.start_ms < window.start_before_ms);
        held.max_by_key(|p| (p.count, std::cmp::Reverse(p.start_ms)))
    }

    proptest! {
        #[test]
        fn i9_any_order_finds_the_same_peak_as_counting_each_window(
            times in prop::collection::vec(0_i64..200_000, 1..120), young_only: bool, before in 0_i64..250_000,
        ) {
            let window = Window { young_only, start_before_ms: before, ..MINUTE };
            let (found, expected) = (peaks(&times, window), naive(&times, window));
            prop_assert_eq!(found.map(|p| (p.count, p.start_ms)), expected.map(|p| (p.count, p.start_ms)));
            let mut reversed = times.clone();
            reversed.reverse();
            prop_assert_eq!(peaks(&reversed, window).map(|p| (p.count, p.start_ms, p.end_ms)), found.map(|p| (p.count, p.start_ms, p.end_ms)));
        }
    }

    #[test]
    fn p22_a_window_is_half_open() {
        let thousand = Window { messages: 1000, ..MINUTE };
        let spread = |last: i64| (0..999).map(|i| i * 60).chain([last]).collect::<Vec<_>>();
        assert_eq!(peaks(&spread(59_999), thousand).map(|p| p.count), Some(1000));
        assert_eq!(peaks(&spread(60_000), thousand), None, "the first and the last are a whole minute apart");
        assert_eq!(peaks(&spread(59_999)[1..], thousand), None, "999 do not fire");
    }

    #[test]
    fn a_flood_is_told_as_at_least_what_is_kept() {
        let flood: Vec<i64> = (0..10_000).map(|i| i * 2).collect();
        let peak = peaks(&flood, Window { messages: 1000, ..MINUTE }).expect("fires");
        assert_eq!(peak.count as usize, MOST_TIMES);
    }
}
