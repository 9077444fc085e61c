//! Businesses: people reached in a day, against the tier and against the business's own days; blocks and reports against the category.

use starling_schemas::codes::{Category, Tier};

use crate::sketch::{REGISTERS, Reach};

/// Days whose people are still counted: today and yesterday.
pub(crate) const LIVE_DAYS: usize = 2;
/// Days remembered as one number each.
pub(crate) const HISTORY_DAYS: usize = 28;

/// One day of a business.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Day {
    pub(crate) day: i32,
    /// People written to, without one-time codes and notices the person asked for.
    pub(crate) reach: Reach,
    pub(crate) sent: u32,
    pub(crate) replied: u32,
    /// Blocks, and reports of what had been delivered.
    pub(crate) objections: u32,
    /// Of them, reports.
    pub(crate) reported: u32,
    /// Reports by people to whom nothing had been delivered.
    pub(crate) unfounded: u32,
    /// Messages by category, for the rate that is usual.
    pub(crate) by_category: [u32; 5],
    pub(crate) first_ms: i64,
    pub(crate) last_ms: i64,
    /// Whether what written rules judge changed since they did.
    pub(crate) to_judge: bool,
    /// Whether it changed since its facts were kept.
    pub(crate) to_keep: bool,
    /// Whether a written rule found something of it.
    pub(crate) has_alert: bool,
}

/// What is kept of a business.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Business {
    /// Newest last.
    pub(crate) days: Vec<Day>,
    /// (day, people reached) of days that are over, oldest first.
    pub(crate) history: Vec<(i32, u32)>,
    pub(crate) tier: u8,
    /// Whether something came since it was judged last.
    pub(crate) to_judge: bool,
}

impl Business {
    /// Takes out the day that is over when `day` begins, if one is. To be called before [`Self::day`].
    pub(crate) fn make_room(&mut self, day: i32) -> Option<Day> {
        let place = self.days.partition_point(|d| d.day < day);
        if self.days.len() < LIVE_DAYS || place == 0 || self.days.get(place).is_some_and(|d| d.day == day) {
            return None;
        }
        let over = self.days.remove(0);
        self.remember(&over);
        Some(over)
    }

    /// Says that what is judged of a day, and of those after it, changed: their baseline has it in it. Days that nothing came of since `oldest_ms` are
    /// left: alerts on them have been forgotten, so that they would be found a second time.
    pub(crate) fn touch(&mut self, day: i32, oldest_ms: i64) {
        for later in self.days.iter_mut().filter(|d| d.day >= day && d.last_ms >= oldest_ms) {
            (later.to_judge, later.to_keep) = (true, true);
        }
    }

    /// The day's record; `None` if it is over.
    pub(crate) fn day(&mut self, day: i32, time_ms: i64) -> Option<&mut Day> {
        let place = self.days.partition_point(|d| d.day < day);
        if self.days.get(place).is_none_or(|d| d.day != day) {
            if self.days.len() >= LIVE_DAYS {
                return None;
            }
            if self.history.last().is_some_and(|(newest, _)| *newest >= day) {
                return None;
            }
            self.days.insert(place, Day { day, first_ms: time_ms, last_ms: time_ms, ..Day::default() });
        }
        self.days.get_mut(place).map(|d| d.seen(time_ms))
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn remember(&mut self, over: &Day) {
        if self.history.len() >= HISTORY_DAYS {
            self.history.remove(0);
        }
        self.history.push((over.day, over.reach.estimate().round() as u32));
    }

    /// Median people a day before `day`, and of how many days.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub(crate) fn own_baseline(&self, day: i32) -> (f64, usize) {
        let live = self.days.iter().filter(|d| d.day < day).map(|d| d.reach.estimate().round() as u32);
        let mut days: Vec<u32> = self.history.iter().filter(|(d, _)| *d < day).map(|(_, n)| *n).chain(live).collect();
        days.sort_unstable();
        (days.get(days.len() / 2).copied().map_or(0.0, f64::from), days.len())
    }

    pub(crate) fn tier(&self) -> Tier {
        Tier::from_code(self.tier).unwrap_or(Tier::Unknown)
    }

    /// Bytes this business takes, map entry aside.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.days.capacity() * size_of::<Day>()
            + self.days.len() * REGISTERS
            + self.history.capacity() * size_of::<(i32, u32)>()
    }
}

impl Day {
    fn seen(&mut self, time_ms: i64) -> &mut Self {
        self.first_ms = self.first_ms.min(time_ms);
        self.last_ms = self.last_ms.max(time_ms);
        self
    }

    /// The category most of its messages had.
    pub(crate) fn category(&self) -> Category {
        let most = (0_u8..).zip(self.by_category).max_by_key(|(code, n)| (*n, std::cmp::Reverse(*code)));
        most.and_then(|(code, _)| Category::from_code(code)).unwrap_or(Category::Unknown)
    }
}

/// Whether fan-out says anything about messages of this category: people asked for one-time codes and notices themselves.
pub(crate) fn judged_on_reach(category: Option<Category>) -> bool {
    !matches!(category, Some(Category::Authentication | Category::Utility))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_business_with_a_full_history_takes_less_than_four_kibibytes() {
        let mut business = Business::default();
        for day in 0..100 {
            business.make_room(day);
            let record = business.day(day, i64::from(day) * 86_400_000).expect("a new day");
            record.reach.add(&[u8::try_from(day).unwrap_or(0); 16]);
        }
        assert_eq!(business.history.len(), HISTORY_DAYS);
        assert!(business.bytes() <= 4096, "{}", business.bytes());
    }

    #[test]
    fn a_day_that_is_over_stays_over() {
        let mut business = Business::default();
        for day in [5, 6, 7] {
            let over = business.make_room(day).map(|over| over.day);
            assert_eq!(over, (day == 7).then_some(5));
            assert!(business.day(day, 0).is_some());
        }
        assert_eq!((business.make_room(5), business.make_room(6), business.make_room(7)), (None, None, None));
        assert!(business.day(5, 0).is_none());
        assert!(business.day(6, 0).is_some(), "yesterday still counts");
        assert_eq!(business.history, [(5, 0)]);
    }

    #[test]
    fn the_baseline_is_the_median_of_days_before() {
        let business = Business { history: vec![(1, 10), (2, 1000), (3, 20)], ..Business::default() };
        assert_eq!(business.own_baseline(4), (20.0, 3));
        assert_eq!(business.own_baseline(2), (10.0, 1));
    }
}
