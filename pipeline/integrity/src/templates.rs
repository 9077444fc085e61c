//! # Templates: what the first batch of a new one draws, within its first hours
//!
//! ```text
//!   a message, block or report that names a template ──► known ───► the day of the newest message, and nothing else
//!                                                     └► new ─────► under test: an hour of the clock each, for a day ──► known
//!                                                                        │
//!                                                                        └─ judged with its business: judge/template.rs
//! ```
//!
//! A platform watches the first some hundred messages of a new template for a quarter of an hour to an hour before the rest goes out. So it is told here within
//! that time, and not by the day's count, whether they are unwanted: Wald's sequential test of two Poisson rates (Wald 1945), of what is usual of the business
//! against [`BusinessTemplate::factor`] times as much. Of usual templates no larger share than [`BusinessTemplate::alpha`] ever gets that far, however often
//! one looks (Ville's inequality), since blocks that have not come yet only speak for the template.
//!
//! **New** is a template that the business sent nothing of since it is known, of a business that was seen on an earlier day, on a day that is not the first on
//! which any template was named. On a business's first day all of its templates are new: then `business_fresh_number` and `business_blocks` have their say.
//!
//! **Order (I9).** What is kept are counters by the hour of the clock, of hours from the first message on, whichever came first; what is judged is a
//! function of them alone. A test that is over early is over by the same function, not by an event. What a test was over by is known for two sweeps, as
//! of all that is forgotten.
//!
//! **Bounds.** Of a business 64 templates are known, as eight bytes of a hash and a day each: of more, those that were sent last. Eight at most are under test,
//! by name; another one waits until there is room, and is new then. A name that only blocks and reports say holds no place that a message's needs.

mod rule;
mod saved;
#[cfg(test)]
mod tests;

use hashbrown::HashMap;
use starling_schemas::codes::{Category, SignalKind};
use starling_schemas::ids::EpochId;

use crate::engine::Engine;

pub use rule::BusinessTemplate;

/// An hour of the clock, in milliseconds.
pub(crate) const HOUR_MS: i64 = 3_600_000;
/// Templates of a business that are known.
pub(crate) const MOST_KNOWN: usize = 64;
/// Templates of a business that are under test at once.
pub(crate) const MOST_TESTED: usize = 8;
/// Blocks and reports of so many hours before the first message are kept: an earlier one may still come.
const HOURS_BEFORE: i32 = 6;

/// What happened in an hour of the clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Hour {
    /// Hours since 1970 UTC.
    pub(crate) hour: i32,
    /// Messages by category.
    pub(crate) by_category: [u32; 5],
    pub(crate) blocks: u16,
    /// Of what had been delivered.
    pub(crate) reports: u16,
    /// Of the blocks, those of accounts of their first week.
    pub(crate) young_blocks: u16,
    /// The same of the reports.
    pub(crate) young_reports: u16,
    /// When the last of it was, in milliseconds of the hour.
    pub(crate) last_ms: u32,
}

impl Hour {
    /// When the last of it was.
    pub(crate) fn last_ms(&self) -> i64 {
        i64::from(self.hour) * HOUR_MS + i64::from(self.last_ms)
    }

    fn count(&mut self, heard: &Heard<'_>) {
        match heard.what {
            What::Sent(category) => {
                if let Some(slot) = self.by_category.get_mut(usize::from(category.code())) {
                    *slot = slot.saturating_add(1);
                }
            }
            What::Blocked { is_young } => {
                self.blocks = self.blocks.saturating_add(1);
                self.young_blocks = self.young_blocks.saturating_add(u16::from(is_young));
            }
            What::Reported { is_young } => {
                self.reports = self.reports.saturating_add(1);
                self.young_reports = self.young_reports.saturating_add(u16::from(is_young));
            }
        }
        self.last_ms = self.last_ms.max(u32::try_from(heard.time_ms.rem_euclid(HOUR_MS)).unwrap_or_default());
    }
}

/// What is said of a template.
#[derive(Debug, Clone, Copy)]
pub(crate) enum What {
    Sent(Category),
    Blocked { is_young: bool },
    Reported { is_young: bool },
}

/// A signal that names a template.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heard<'a> {
    pub(crate) template: &'a str,
    pub(crate) time_ms: i64,
    pub(crate) what: What,
}

impl<'a> Heard<'a> {
    /// Of a signal about a business; `None` where nothing is to be counted. Reports count that have a delivery behind them.
    pub(crate) fn of(
        kind: SignalKind,
        template: &'a str,
        time_ms: i64,
        category: Option<Category>,
        is_young: bool,
    ) -> Option<Self> {
        let what = match kind {
            SignalKind::BusinessSent => What::Sent(category.unwrap_or(Category::Unknown)),
            SignalKind::Blocked => What::Blocked { is_young },
            SignalKind::Reported => What::Reported { is_young },
            _ => return None,
        };
        (!template.is_empty()).then_some(Self { template, time_ms, what })
    }

    fn is_sent(&self) -> bool {
        matches!(self.what, What::Sent(_))
    }
}

/// A template that is under test.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tested {
    pub(crate) name: Box<str>,
    /// First message; `None` while only blocks and reports named it.
    pub(crate) first_ms: Option<i64>,
    /// Day of the newest message, also of one that is not counted any more.
    pub(crate) last_day: i32,
    /// Sweep in which something of it was counted last.
    pub(crate) touched: u32,
    /// Rising, none empty.
    pub(crate) hours: Vec<Hour>,
}

impl Tested {
    /// Hours in which it is watched, of which something is known, in their order.
    pub(crate) fn watched(&self) -> impl Iterator<Item = &Hour> {
        let first = self.first_ms.map_or(i32::MAX, hour_of);
        self.hours.iter().filter(move |hour| hour.hour >= first)
    }

    fn count(&mut self, heard: &Heard<'_>, watch_hours: i32, sweep: u32) {
        if heard.is_sent() {
            self.first_ms = Some(self.first_ms.map_or(heard.time_ms, |first| first.min(heard.time_ms)));
            self.last_day = self.last_day.max(EpochId::of(heard.time_ms).0);
        }
        let hour = hour_of(heard.time_ms);
        let place = self.hours.partition_point(|kept| kept.hour < hour);
        if self.hours.get(place).is_none_or(|kept| kept.hour != hour) {
            self.hours.insert(place, Hour { hour, ..Hour::default() });
        }
        if let Some(kept) = self.hours.get_mut(place) {
            kept.count(heard);
        }
        let (from, to) = match (self.first_ms.map(hour_of), self.hours.last()) {
            (Some(first), _) => (first.saturating_sub(HOURS_BEFORE), first.saturating_add(watch_hours)),
            (None, Some(newest)) => (newest.hour.saturating_sub(watch_hours - 1), i32::MAX),
            (None, None) => return,
        };
        self.hours.retain(|kept| kept.hour >= from && kept.hour < to);
        if hour >= from && hour < to {
            self.touched = sweep;
        }
    }

    /// Whether nothing more is counted of it once the newest signal is of this hour.
    fn is_over(&self, newest: i32, watch_hours: i32) -> bool {
        match (self.first_ms, self.hours.last()) {
            (Some(first), _) => newest >= hour_of(first).saturating_add(watch_hours),
            (None, Some(last)) => newest >= last.hour.saturating_add(HOURS_BEFORE),
            (None, None) => true,
        }
    }
}

/// A template that is not new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) id: [u8; 8],
    /// Day of its newest message.
    pub(crate) day: i32,
}

/// The templates of one business.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Templates {
    /// In the order of their hashes.
    pub(crate) known: Vec<Known>,
    /// In the order of their names.
    pub(crate) tested: Vec<Tested>,
}

impl Templates {
    fn count(&mut self, heard: &Heard<'_>, is_first_day: bool, watch_hours: i32, sweep: u32) {
        let place = match self.tested.binary_search_by(|tested| (*tested.name).cmp(heard.template)) {
            Ok(place) => place,
            Err(_) => {
                let (id, day) = (id(heard.template), EpochId::of(heard.time_ms).0);
                if let Some(known) = self.known.iter_mut().find(|known| known.id == id) {
                    known.day = if heard.is_sent() { known.day.max(day) } else { known.day };
                    return;
                }
                if self.tested.len() >= MOST_TESTED && !(heard.is_sent() && self.make_room()) {
                    // What a business has on its first day is new to us alone.
                    if heard.is_sent() && is_first_day {
                        self.know(id, day);
                    }
                    return;
                }
                let place = self.tested.partition_point(|tested| *tested.name < *heard.template);
                self.tested.insert(place, Tested { name: heard.template.into(), last_day: day, ..Tested::default() });
                place
            }
        };
        if let Some(tested) = self.tested.get_mut(place) {
            tested.count(heard, watch_hours, sweep);
        }
    }

    /// Takes a place from a name that only blocks and reports say: the one of which least was heard lately.
    fn make_room(&mut self) -> bool {
        let unsent = (0..).zip(&self.tested).filter(|(_, tested)| tested.first_ms.is_none());
        let oldest = unsent.min_by_key(|(_, tested)| tested.hours.last().map(Hour::last_ms)).map(|(place, _)| place);
        oldest.map(|place: usize| self.tested.remove(place)).is_some()
    }

    fn know(&mut self, id: [u8; 8], day: i32) {
        let place = self.known.partition_point(|known| known.id < id);
        match self.known.get_mut(place).filter(|known| known.id == id) {
            Some(known) => known.day = known.day.max(day),
            None => self.known.insert(place, Known { id, day }),
        }
        if self.known.len() > MOST_KNOWN {
            let oldest = (0..).zip(&self.known).min_by_key(|(_, known)| (known.day, known.id)).map(|(place, _)| place);
            oldest.map(|place: usize| self.known.remove(place));
        }
    }

    /// Takes what was under test and is over to what is known, if something of it was sent.
    fn settle(&mut self, newest: i32, watch_hours: i32, sweep: u32) {
        let is_done = |tested: &mut Tested| sweep.saturating_sub(tested.touched) >= 2 && tested.is_over(newest, watch_hours);
        let done: Vec<Tested> = self.tested.extract_if(.., is_done).collect();
        for tested in done.iter().filter(|tested| tested.first_ms.is_some()) {
            self.know(id(&tested.name), tested.last_day);
        }
    }

    /// Bytes they take, map entry aside.
    pub(crate) fn bytes(&self) -> usize {
        let tested = |tested: &Tested| tested.name.len() + tested.hours.capacity() * size_of::<Hour>();
        size_of::<Self>()
            + self.known.capacity() * size_of::<Known>()
            + self.tested.capacity() * size_of::<Tested>()
            + self.tested.iter().map(tested).sum::<usize>()
    }
}

/// The templates of all businesses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Catalogue {
    /// First day on which a message named its template: what is there then is new to us alone.
    pub(crate) since: Option<i32>,
    pub(crate) of: HashMap<String, Templates>,
}

impl Catalogue {
    /// Whether what begins on this day is no first thing of all, of a business of which so much is known.
    pub(crate) fn is_judged(&self, business_first_day: Option<i32>, day: i32) -> bool {
        let before = |first: Option<i32>| first.is_some_and(|first| first < day);
        before(self.since) && before(business_first_day)
    }

    /// Bytes that they take, about.
    pub(crate) fn bytes(&self) -> usize {
        self.of.iter().map(|(name, templates)| templates.bytes() + name.len() + size_of::<String>() + 1).sum()
    }
}

impl Engine {
    /// Counts what a signal about a business says of its template.
    pub(crate) fn heard(&mut self, business: &str, heard: &Heard<'_>) {
        let day = EpochId::of(heard.time_ms).0;
        if heard.is_sent() {
            self.templates.since = Some(self.templates.since.map_or(day, |since| since.min(day)));
        }
        let first_day = self.businesses.get(business).and_then(|business| business.first_day);
        let is_first_day = !self.templates.is_judged(first_day, day);
        let watch_hours = self.rules.business_template.watch_hours;
        let templates = self.templates.of.entry_ref(business).or_default();
        templates.count(heard, is_first_day, watch_hours, self.sweep);
    }

    /// Takes tests that are over, and have been judged, to what is known; forgets the templates of businesses that are forgotten.
    pub(crate) fn sweep_templates(&mut self) {
        let (sweep, newest, watch_hours) = (self.sweep, hour_of(self.newest_ms), self.rules.business_template.watch_hours);
        let (businesses, to_judge) = (&self.businesses, &self.to_judge);
        self.templates.of.retain(|name, templates| {
            if !to_judge.contains(name) {
                templates.settle(newest, watch_hours, sweep);
            }
            businesses.contains_key(name)
        });
    }
}

/// Hours since 1970 UTC.
pub(crate) fn hour_of(time_ms: i64) -> i32 {
    let hour = time_ms.div_euclid(HOUR_MS);
    i32::try_from(hour).unwrap_or(if hour < 0 { i32::MIN } else { i32::MAX })
}

/// What a known template is known by. A template is nobody's name.
fn id(template: &str) -> [u8; 8] {
    let hash = blake3::hash(template.as_bytes());
    hash.as_bytes().first_chunk().copied().unwrap_or_default()
}
