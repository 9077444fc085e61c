//! Counts of a range, by day and outcome (I1), and by the hour of the partition's clock.

use std::collections::BTreeMap;

use starling_schemas::codes::{Fault, Outcome, Refusal};
use starling_schemas::ids::{EpochId, HOUR_MS};

/// Places for `Counted`, `Late` and every refusal by its code.
const PLACES: usize = 2 + 7;
/// Places for every fault by its code.
const FAULTS: usize = 8;

/// Counts of one day.
type Day = [u64; PLACES];

/// How many events came to which outcome. Quarantined ones have no day: their time is not to be trusted.
pub(crate) struct Tally {
    events: u64,
    days: BTreeMap<EpochId, Day>,
    /// The day counted last, kept outside of the map: mostly the next event is of the same one.
    today: Option<(EpochId, Day)>,
    faults: [u64; FAULTS],
}

impl Tally {
    pub(crate) const fn new() -> Self {
        Self { events: 0, days: BTreeMap::new(), today: None, faults: [0; FAULTS] }
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::new();
    }

    /// Events counted so far.
    pub(crate) const fn events(&self) -> u64 {
        self.events
    }

    pub(crate) fn quarantined(&mut self, fault: Fault) {
        self.events += 1;
        if let Some(count) = self.faults.get_mut(usize::from(fault.code())) {
            *count += 1;
        }
    }

    pub(crate) fn counted(&mut self, day: EpochId) {
        self.add(day, 0);
    }

    pub(crate) fn late(&mut self, day: EpochId) {
        self.add(day, 1);
    }

    pub(crate) fn refused(&mut self, day: EpochId, refusal: Refusal) {
        self.add(day, 1 + usize::from(refusal.code()));
    }

    fn add(&mut self, day: EpochId, place: usize) {
        self.events += 1;
        if self.today.as_ref().is_none_or(|(today, _)| *today != day) {
            self.put_today_away();
            self.today = Some((day, [0; PLACES]));
        }
        if let Some(count) = self.today.as_mut().and_then(|(_, counts)| counts.get_mut(place)) {
            *count += 1;
        }
    }

    fn put_today_away(&mut self) {
        if let Some((day, counts)) = self.today.take() {
            for (sum, count) in self.days.entry(day).or_insert([0; PLACES]).iter_mut().zip(counts) {
                *sum += count;
            }
        }
    }

    /// All counts above zero, by day, then outcome; quarantined ones first, without a day.
    pub(crate) fn counts(&mut self) -> Vec<(Option<EpochId>, Outcome, u64)> {
        self.put_today_away();
        let at = |counts: &[u64], place: usize| counts.get(place).copied().unwrap_or_default();
        let faults = Fault::ALL.iter().map(|f| (None, Outcome::Quarantined(*f), at(&self.faults, usize::from(f.code()))));
        let days = self.days.iter().flat_map(|(day, counts)| {
            let refused = Refusal::ALL.iter().map(|r| (Outcome::Refused(*r), 1 + usize::from(r.code())));
            [(Outcome::Counted, 0), (Outcome::Late, 1)]
                .into_iter()
                .chain(refused)
                .map(|(outcome, place)| (Some(*day), outcome, at(counts, place)))
        });
        faults.chain(days).filter(|(_, _, events)| *events > 0).collect()
    }
}

/// Events that lie further behind than this are out of any order that phones bring about.
const BEHIND_MS: i64 = HOUR_MS;
/// Places for every outcome: those of a day, then faults.
const OUTCOMES: usize = PLACES + FAULTS;

/// Events of an hour that came to one outcome.
type Counted = (EpochId, Outcome, u64);

/// Counts of one hour: outcomes, and how many of them lay behind.
#[derive(Clone, Copy)]
struct Hour {
    outcomes: [u64; OUTCOMES],
    behind: u64,
}

impl Hour {
    const NONE: Self = Self { outcomes: [0; OUTCOMES], behind: 0 };
}

/// How far a partition has been read, by the times that its events say: and what came while it stood in which hour. It never goes back.
pub(crate) struct PartitionClock {
    /// Latest event time so far.
    latest_ms: Option<i64>,
    /// First moment that is not in the present hour.
    until_ms: i64,
    now: Hour,
    hours: BTreeMap<EpochId, Hour>,
}

const fn place(outcome: Outcome) -> usize {
    match outcome {
        Outcome::Counted => 0,
        Outcome::Late => 1,
        Outcome::Refused(refusal) => 1 + refusal.code() as usize,
        Outcome::Quarantined(fault) => PLACES + fault.code() as usize,
    }
}

impl PartitionClock {
    pub(crate) const fn new() -> Self {
        Self { latest_ms: None, until_ms: i64::MIN, now: Hour::NONE, hours: BTreeMap::new() }
    }

    /// Begins anew where the partition was read to.
    pub(crate) fn begin(&mut self, read_to_ms: Option<i64>) {
        *self = Self::new();
        if let Some(read_to_ms) = read_to_ms {
            self.moves_to(read_to_ms);
        }
    }

    fn moves_to(&mut self, time_ms: i64) {
        if time_ms >= self.until_ms {
            self.put_away();
            self.until_ms = EpochId::hour_of(time_ms).end_ms();
        }
        self.latest_ms = Some(time_ms);
    }

    /// Takes one event; `time_ms`: where it says one that can be believed.
    #[inline]
    pub(crate) fn count(&mut self, time_ms: Option<i64>, outcome: Outcome) {
        match (time_ms, self.latest_ms) {
            (Some(time_ms), Some(latest_ms)) if time_ms <= latest_ms => {
                self.now.behind += u64::from(latest_ms - time_ms > BEHIND_MS);
            }
            (Some(time_ms), _) => self.moves_to(time_ms),
            (None, _) => {}
        }
        if let Some(count) = self.now.outcomes.get_mut(place(outcome)) {
            *count += 1;
        }
    }

    fn put_away(&mut self) {
        let now = std::mem::replace(&mut self.now, Hour::NONE);
        // What came before there was any time is of no hour.
        if let Some(latest_ms) = self.latest_ms {
            self.hours.insert(EpochId::hour_of(latest_ms), now);
        }
    }

    /// Outcomes, and what lay behind, by hour; none zero. It begins anew.
    pub(crate) fn counts(&mut self) -> (Vec<Counted>, Vec<(EpochId, u64)>) {
        self.put_away();
        let (mut outcomes, mut behind) = (Vec::new(), Vec::new());
        for (hour, counts) in std::mem::take(&mut self.hours) {
            let at = |outcome: Outcome| counts.outcomes.get(place(outcome)).copied().unwrap_or_default();
            outcomes.extend(Outcome::all().map(|outcome| (hour, outcome, at(outcome))).filter(|(.., events)| *events > 0));
            behind.extend((counts.behind > 0).then_some((hour, counts.behind)));
        }
        self.begin(None);
        (outcomes, behind)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const T: i64 = 1_767_600_000_000 / HOUR_MS * HOUR_MS;

    #[test]
    fn every_outcome_has_an_hour_and_a_place_of_its_own() {
        let mut clock = PartitionClock::new();
        clock.begin(Some(T));
        let mut expected = Vec::new();
        for (nth, outcome) in (1..).zip(Outcome::all()) {
            (0..nth).for_each(|_| clock.count(None, outcome));
            expected.push((EpochId::hour_of(T), outcome, nth));
        }
        assert_eq!(clock.counts(), (expected, Vec::new()));
        assert_eq!(clock.counts(), (Vec::new(), Vec::new()), "it began anew");
    }

    #[test]
    fn behind_is_what_lies_more_than_an_hour_before_the_latest_time_and_the_clock_does_not_go_back() {
        let mut clock = PartitionClock::new();
        for (time_ms, behind, hour) in [
            (T + 10, 0, 0),
            (T + 10 - HOUR_MS, 0, 0),
            (T + 9 - HOUR_MS, 1, 0),
            (T + 2 * HOUR_MS, 1, 2),
            (T + HOUR_MS, 1, 2),
            (T + HOUR_MS - 1, 2, 2),
            (T - 400 * HOUR_MS, 3, 2),
        ] {
            clock.count(Some(time_ms), Outcome::Counted);
            let so_far = clock.now.behind + clock.hours.values().map(|hour| hour.behind).sum::<u64>();
            assert_eq!((so_far, clock.until_ms), (behind, T + (hour + 1) * HOUR_MS), "{time_ms}");
        }
        let counted = |hours: i64, events| (EpochId::hour_of(T + hours * HOUR_MS), Outcome::Counted, events);
        let (outcomes, behind) = clock.counts();
        assert_eq!(outcomes, [counted(0, 3), counted(2, 4)]);
        assert_eq!(behind, [(EpochId::hour_of(T), 1), (EpochId::hour_of(T + 2 * HOUR_MS), 2)]);
    }

    proptest! {
        #[test]
        fn i9_how_a_partition_is_cut_into_ranges_changes_nothing(
            events in prop::collection::vec((prop::option::weighted(0.9, -50 * HOUR_MS..50 * HOUR_MS), 0..17_usize), 1..60),
            cuts in prop::collection::btree_set(0..60_usize, 0..8),
        ) {
            let outcomes: Vec<Outcome> = Outcome::all().collect();
            let outcome = |at: usize| outcomes[at % outcomes.len()];
            let mut whole = PartitionClock::new();
            whole.begin(Some(T));
            let (mut sums, mut behinds) = (BTreeMap::new(), BTreeMap::new());
            let (mut part, mut latest) = (PartitionClock::new(), T);
            part.begin(Some(latest));
            let mut cut = |part: &mut PartitionClock| {
                let (outcomes, behind) = part.counts();
                outcomes.into_iter().for_each(|(hour, outcome, n)| *sums.entry((hour, outcome)).or_insert(0) += n);
                behind.into_iter().for_each(|(hour, n)| *behinds.entry(hour).or_insert(0) += n);
            };
            for (at, (time, which)) in events.iter().enumerate() {
                if cuts.contains(&at) {
                    cut(&mut part);
                    part.begin(Some(latest));
                }
                let time = time.map(|time| T + time);
                latest = latest.max(time.unwrap_or(latest));
                whole.count(time, outcome(*which));
                part.count(time, outcome(*which));
            }
            cut(&mut part);
            let (outcomes, behind) = whole.counts();
            prop_assert_eq!(outcomes, sums.into_iter().map(|((hour, outcome), n)| (hour, outcome, n)).collect::<Vec<_>>());
            prop_assert_eq!(behind, behinds.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn i1_every_outcome_has_a_place_of_its_own() {
        let mut tally = Tally::new();
        let mut expected = Vec::new();
        let mut times = 0;
        let mut all: Vec<Outcome> = Outcome::all().collect();
        all.sort_by_key(|outcome| !matches!(outcome, Outcome::Quarantined(_)));
        for outcome in all {
            times += 1;
            for day in [EpochId(2), EpochId(1)] {
                for _ in 0..times {
                    match outcome {
                        Outcome::Counted => tally.counted(day),
                        Outcome::Late => tally.late(day),
                        Outcome::Refused(refusal) => tally.refused(day, refusal),
                        Outcome::Quarantined(fault) => tally.quarantined(fault),
                    }
                }
            }
            match outcome {
                Outcome::Quarantined(_) => expected.push((None, outcome, 2 * times)),
                _ => expected.extend([(Some(EpochId(1)), outcome, times), (Some(EpochId(2)), outcome, times)]),
            }
        }
        expected.sort_by_key(|(day, outcome, _)| (*day, *outcome));
        let counts = tally.counts();
        assert_eq!(counts, expected);
        assert_eq!(counts.iter().map(|(_, _, n)| n).sum::<u64>(), tally.events());
    }
}
