//! Businesses: people reached in a day, against the tier and against the business's own days; blocks and reports against its own days, shrunk to what
//! is usual of the category; a number that is new, against the portfolio it belongs to.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashMap;
use starling_schemas::codes::{Category, Tier};

use crate::sketch::{REGISTERS, Reach};
use crate::voices::Voices;

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
    /// Of the objections, those of accounts of their first week.
    pub(crate) young: u32,
    /// Of them, reports.
    pub(crate) young_reported: u32,
    /// Whose the others are.
    pub(crate) voices: Voices,
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

/// What is remembered of a day that is over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Past {
    pub(crate) day: i32,
    /// People written to, about.
    pub(crate) people: u32,
    /// Blocks, and reports of what had been delivered, by accounts older than a week, as they count.
    pub(crate) objections: u32,
    /// Messages by category.
    pub(crate) by_category: [u32; 5],
}

/// What is kept of a business: of one number that messages come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Business {
    /// Newest last.
    pub(crate) days: Vec<Day>,
    /// Days that are over, oldest first.
    pub(crate) history: Vec<Past>,
    /// First day of which anything was counted.
    pub(crate) first_day: Option<i32>,
    /// The portfolio that its newest message named, and when.
    pub(crate) portfolio: Option<(i64, Box<str>)>,
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
            if self.history.last().is_some_and(|newest| newest.day >= day) {
                return None;
            }
            self.days.reserve_exact(LIVE_DAYS - self.days.len());
            self.first_day = Some(self.first_day.map_or(day, |first| first.min(day)));
            self.days.insert(place, Day { day, first_ms: time_ms, last_ms: time_ms, ..Day::default() });
        }
        self.days.get_mut(place).map(|d| d.seen(time_ms))
    }

    fn remember(&mut self, over: &Day) {
        if self.history.len() >= HISTORY_DAYS {
            self.history.remove(0);
        }
        self.history.push(over.past());
    }

    /// The days before `day`, oldest first, about.
    pub(crate) fn before(&self, day: i32) -> impl Iterator<Item = Past> + '_ {
        // A live day's people are counted from its sketch, so only of those that are asked for.
        let live = self.days.iter().filter(move |live| live.day < day).map(Day::past);
        self.history.iter().copied().filter(move |past| past.day < day).chain(live)
    }

    /// Median people a day before `day`, and of how many days.
    pub(crate) fn own_baseline(&self, day: i32) -> (f64, usize) {
        let days: Vec<u64> = self.before(day).map(|past| past.people.into()).collect();
        let known = days.len();
        (median(days), known)
    }

    /// Notes the portfolio that a message names. Whatever the order of messages, the newest one's counts. Says whether it is another one now.
    pub(crate) fn belongs(&mut self, portfolio: &str, time_ms: i64) -> bool {
        match &mut self.portfolio {
            Some((newest_ms, known)) if **known == *portfolio => {
                *newest_ms = time_ms.max(*newest_ms);
                false
            }
            Some((newest_ms, known)) if (time_ms, portfolio) < (*newest_ms, &**known) => false,
            of => {
                *of = Some((time_ms, portfolio.into()));
                true
            }
        }
    }

    /// Whether a day is one of its first `days`.
    pub(crate) fn is_fresh(&self, day: i32, days: i32) -> bool {
        self.first_day.is_some_and(|first| day.saturating_sub(first) < days)
    }

    pub(crate) fn tier(&self) -> Tier {
        Tier::from_code(self.tier).unwrap_or(Tier::Unknown)
    }

    /// Bytes this business takes, map entry aside.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.days.capacity() * size_of::<Day>()
            + self.days.len() * REGISTERS
            + self.days.iter().map(|day| day.voices.bytes()).sum::<usize>()
            + self.history.capacity() * size_of::<Past>()
            + self.portfolio.as_ref().map_or(0, |(_, name)| name.len())
    }
}

impl Day {
    fn seen(&mut self, time_ms: i64) -> &mut Self {
        self.first_ms = self.first_ms.min(time_ms);
        self.last_ms = self.last_ms.max(time_ms);
        self
    }

    /// Objections that count against it: those of new accounts together at most so many as are that share of the others', so that who makes accounts
    /// to complain with wins nothing; of the others what their voices count.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub(crate) fn counted_objections(&self, young_share: f64) -> u32 {
        let others = self.voices.counted();
        others.saturating_add(self.young.min((f64::from(others) * young_share) as u32))
    }

    /// What will be remembered of it.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn past(&self) -> Past {
        let people = self.reach.estimate().round() as u32;
        // Without those of new accounts, and what others count: nobody is to make complaints usual with accounts of his own.
        Past { day: self.day, people, objections: self.voices.counted(), by_category: self.by_category }
    }

    /// The category most of its messages had.
    pub(crate) fn category(&self) -> Category {
        let most = (0_u8..).zip(self.by_category).max_by_key(|(code, n)| (*n, std::cmp::Reverse(*code)));
        most.and_then(|(code, _)| Category::from_code(code)).unwrap_or(Category::Unknown)
    }
}

/// The middle one, the higher of two; nought of none.
#[allow(clippy::cast_precision_loss)]
fn median(mut numbers: Vec<u64>) -> f64 {
    numbers.sort_unstable();
    numbers.get(numbers.len() / 2).map_or(0.0, |n| *n as f64)
}

/// Numbers by portfolio: what a business's messages name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Portfolios(HashMap<Box<str>, Numbers>);

/// The numbers of one portfolio.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Numbers {
    all: BTreeSet<Box<str>>,
    /// Of them, those that may be new: to be judged whenever another one changes.
    fresh: BTreeSet<Box<str>>,
}

impl Portfolios {
    /// Puts a number where it belongs.
    pub(crate) fn put(&mut self, portfolio: &str, name: &str, is_fresh: bool) {
        let numbers = self.0.entry_ref(portfolio).or_default();
        numbers.all.insert(name.into());
        if is_fresh {
            numbers.fresh.insert(name.into());
        }
    }

    /// Takes a number away that belongs elsewhere, or is forgotten.
    pub(crate) fn take(&mut self, portfolio: &str, name: &str) {
        let Some(numbers) = self.0.get_mut(portfolio) else { return };
        numbers.all.remove(name);
        numbers.fresh.remove(name);
        if numbers.all.is_empty() {
            self.0.remove(portfolio);
        }
    }

    /// Says that numbers are new no longer.
    pub(crate) fn settle(&mut self, is_fresh: impl Fn(&str) -> bool) {
        self.0.values_mut().for_each(|numbers| numbers.fresh.retain(|name| is_fresh(name)));
    }

    /// Whether a number is one of a portfolio.
    fn has(&self, portfolio: &str, name: &str) -> bool {
        self.0.get(portfolio).is_some_and(|numbers| numbers.all.contains(name))
    }

    /// New numbers of a portfolio.
    pub(crate) fn fresh(&self, portfolio: &str) -> impl Iterator<Item = &str> {
        self.0.get(portfolio).into_iter().flat_map(|numbers| numbers.fresh.iter().map(|name| &**name))
    }

    /// Bytes that they take, about.
    pub(crate) fn bytes(&self) -> usize {
        let names = |names: &BTreeSet<Box<str>>| names.iter().map(|name| name.len() + size_of::<Box<str>>()).sum::<usize>();
        self.0.iter().map(|(p, n)| p.len() + size_of::<(Box<str>, Numbers)>() + names(&n.all) + names(&n.fresh)).sum()
    }
}

/// What portfolios reached together by day, added up once for all of their numbers that are judged.
pub(crate) struct Totals<'a> {
    portfolios: &'a Portfolios,
    businesses: &'a HashMap<String, Business>,
    by_day: RefCell<HashMap<Box<str>, BTreeMap<i32, u64>>>,
}

impl<'a> Totals<'a> {
    /// Of these, as they are now. Nothing is added up yet.
    pub(crate) fn of(portfolios: &'a Portfolios, businesses: &'a HashMap<String, Business>) -> Self {
        Self { portfolios, businesses, by_day: RefCell::default() }
    }

    /// Median people a day that the other numbers of a portfolio reached together on days before `day`, and of how many days on which they
    /// reached anybody.
    pub(crate) fn usual(&self, portfolio: &str, name: &str, day: i32) -> (f64, usize) {
        let mut by_day = self.by_day.borrow_mut();
        let all = by_day.entry_ref(portfolio).or_insert_with(|| self.added_up(portfolio));
        let oldest = day.saturating_sub(i32::try_from(HISTORY_DAYS).unwrap_or(i32::MAX));
        let own = self.businesses.get(name).filter(|_| self.portfolios.has(portfolio, name));
        let mut days: BTreeMap<i32, u64> = all.range(oldest..day).map(|(day, people)| (*day, *people)).collect();
        for past in own.into_iter().flat_map(|own| own.before(day)) {
            days.entry(past.day).and_modify(|people| *people = people.saturating_sub(past.people.into()));
        }
        let people: Vec<u64> = days.into_values().filter(|people| *people > 0).collect();
        let known = people.len();
        (median(people), known)
    }

    fn added_up(&self, portfolio: &str) -> BTreeMap<i32, u64> {
        let mut days = BTreeMap::new();
        let numbers = self.portfolios.0.get(portfolio).into_iter().flat_map(|numbers| &numbers.all);
        for past in numbers.filter_map(|name| self.businesses.get(&**name)).flat_map(|number| number.before(i32::MAX)) {
            let people: &mut u64 = days.entry(past.day).or_default();
            *people = people.saturating_add(past.people.into());
        }
        days
    }
}

/// Whether fan-out says anything about messages of this category: people asked for one-time codes and notices themselves.
pub(crate) fn judged_on_reach(category: Option<Category>) -> bool {
    !matches!(category, Some(Category::Authentication | Category::Utility))
}

#[cfg(test)]
mod tests {
    use starling_schemas::voice::Voice;

    use super::*;
    use crate::voices::WHOLE;

    #[test]
    fn a_business_with_a_full_history_takes_less_than_four_kibibytes() {
        let mut business = Business::default();
        business.belongs("a-portfolio-of-some-name", 0);
        for day in 0..100 {
            business.make_room(day);
            let record = business.day(day, i64::from(day) * 86_400_000).expect("a new day");
            record.reach.add(&[u8::try_from(day).unwrap_or(0); 16]);
        }
        assert_eq!(business.history.len(), HISTORY_DAYS);
        assert!(business.bytes() <= 4096, "{}", business.bytes());
        // Where every cohort there is objects on both days.
        for day in &mut business.days {
            (0..=u8::MAX).for_each(|bucket| day.voices.hear(Voice { bucket: Some(bucket), ..Voice::default() }, WHOLE));
        }
        assert!(business.bytes() <= 4096 + 2 * 1536, "{}", business.bytes());
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
        assert_eq!(business.history, [Past { day: 5, ..Past::default() }]);
        assert_eq!(business.first_day, Some(5));
    }

    #[test]
    fn the_baseline_is_the_median_of_days_before() {
        let history = [(1, 10), (2, 1000), (3, 20)].map(|(day, people)| Past { day, people, ..Past::default() }).to_vec();
        let business = Business { history, ..Business::default() };
        assert_eq!(business.own_baseline(4), (20.0, 3));
        assert_eq!(business.own_baseline(2), (10.0, 1));
    }

    #[test]
    fn the_newest_message_says_the_portfolio_whatever_came_first() {
        let said = [(3, "c"), (9, "b"), (9, "a"), (1, "d"), (8, "b")];
        for turn in 0..said.len() {
            let mut business = Business::default();
            for (time_ms, portfolio) in said.iter().cycle().skip(turn).take(said.len()) {
                business.belongs(portfolio, *time_ms);
            }
            assert_eq!(business.portfolio, Some((9, "b".into())), "from {turn}");
        }
    }

    #[test]
    fn a_portfolio_is_what_its_other_numbers_reached_together() {
        let of = |days: &[(i32, u32)]| Business {
            history: days.iter().map(|(day, people)| Past { day: *day, people: *people, ..Past::default() }).collect(),
            ..Business::default()
        };
        let businesses = HashMap::from([
            ("a".to_owned(), of(&[(1, 10), (2, 20), (40, 30)])),
            ("b".to_owned(), of(&[(2, 5), (3, 0), (40, 7)])),
            ("new".to_owned(), of(&[(40, 1000)])),
            ("elsewhere".to_owned(), of(&[(40, 9)])),
        ]);
        let mut portfolios = Portfolios::default();
        for name in ["a", "b", "new"] {
            portfolios.put("p", name, name == "new");
        }
        portfolios.put("q", "elsewhere", false);
        let totals = Totals::of(&portfolios, &businesses);
        assert_eq!(totals.usual("p", "new", 4), (25.0, 2), "a day without anybody is none");
        assert_eq!(totals.usual("p", "new", 41), (37.0, 1), "days of long ago are left");
        assert_eq!(totals.usual("p", "a", 41), (1007.0, 1));
        assert_eq!(totals.usual("p", "elsewhere", 41), (1037.0, 1), "who is none of it takes nothing away");
        assert_eq!(totals.usual("none", "a", 41), (0.0, 0));
        assert_eq!(portfolios.fresh("p").collect::<Vec<_>>(), ["new"]);
        portfolios.settle(|name| name != "new");
        assert_eq!(portfolios.fresh("p").count(), 0);
        let before = portfolios.bytes();
        portfolios.take("q", "elsewhere");
        assert!(portfolios.bytes() < before && portfolios.0.len() == 1, "an empty one is forgotten");
    }
}
