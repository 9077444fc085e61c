//! Counts of a range, by day and outcome (I1).

use std::collections::BTreeMap;

use starling_schemas::codes::{Fault, Outcome, Refusal};
use starling_schemas::ids::EpochId;

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

#[cfg(test)]
mod tests {
    use super::*;

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
