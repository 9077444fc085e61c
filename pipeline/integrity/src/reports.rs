//! Whose the reports of a group are, by panes of ten minutes: how many out of each bucket of cohorts, and what they weigh.
//!
//! Of a pane the sixteen lowest buckets are kept; of which a report is that is out of another one counts as not known, and is not capped. Which are lowest
//! depends on no order, and not on other panes, whatever of them is kept or forgotten (I9); and nobody chooses his bucket, which is a keyed hash.

use starling_schemas::voice::BUCKETS;

use crate::voices::Voices;

/// Buckets kept of one pane.
const MOST_BUCKETS: usize = 16;
/// The bucket of what is not known, behind all others.
#[allow(clippy::cast_possible_truncation)]
const UNKNOWN: u16 = BUCKETS as u16;

/// What was told out of one bucket in one pane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Told {
    /// Index of the pane.
    pub(crate) pane: i32,
    /// Or [`UNKNOWN`].
    pub(crate) bucket: u16,
    pub(crate) voices: u16,
    /// What they weigh.
    pub(crate) quarters: u16,
}

/// A group's reports, in order of pane and bucket.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Reports(pub(crate) Vec<Told>);

impl Reports {
    /// Hears a report.
    pub(crate) fn hear(&mut self, pane: i32, bucket: Option<u8>, quarters: u16) {
        self.add(Told { pane, bucket: bucket.map_or(UNKNOWN, u16::from), voices: 1, quarters });
        let from = self.0.partition_point(|told| told.pane < pane);
        let of_pane = self.0.iter().skip(from).take_while(|told| told.pane == pane && told.bucket != UNKNOWN);
        if of_pane.count() > MOST_BUCKETS {
            let highest = self.0.remove(from + MOST_BUCKETS);
            self.add(Told { bucket: UNKNOWN, ..highest });
        }
    }

    fn add(&mut self, new: Told) {
        let place = self.0.partition_point(|told| (told.pane, told.bucket) < (new.pane, new.bucket));
        match self.0.get_mut(place).filter(|told| (told.pane, told.bucket) == (new.pane, new.bucket)) {
            Some(told) => {
                told.voices = told.voices.saturating_add(new.voices);
                told.quarters = told.quarters.saturating_add(new.quarters);
            }
            None => {
                if self.0.len() == self.0.capacity() {
                    // Hardly any group is reported, and few by many.
                    self.0.reserve_exact(self.0.len().clamp(1, 64));
                }
                self.0.insert(place, new);
            }
        }
    }

    /// Those of panes from `start` on and before `end`.
    pub(crate) fn between(&self, start: i32, end: i32) -> Voices {
        let mut voices = Voices::default();
        let from = self.0.partition_point(|told| told.pane < start);
        for told in self.0.iter().skip(from).take_while(|told| told.pane < end) {
            voices.add(u8::try_from(told.bucket).ok(), told.voices, told.quarters);
        }
        voices
    }

    /// Forgets a pane.
    pub(crate) fn forget(&mut self, pane: i32) {
        self.0.retain(|told| told.pane != pane);
    }

    pub(crate) fn is_in_order(&self) -> bool {
        self.0.is_sorted_by(|a, b| (a.pane, a.bucket) < (b.pane, b.bucket)) && self.0.iter().all(|told| told.bucket <= UNKNOWN)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.0.capacity() * size_of::<Told>()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_pane_keeps_sixteen_buckets_and_the_others_count_as_not_known() {
        let mut reports = Reports::default();
        for bucket in (0..40).rev() {
            (0..5).for_each(|_| reports.hear(3, Some(bucket), 4));
        }
        reports.hear(4, Some(200), 4);
        let voices = reports.between(3, 4);
        assert_eq!(
            voices.heard.iter().map(|h| (h.bucket, h.voices)).collect::<Vec<_>>(),
            (0..16).map(|n| (n, 5)).collect::<Vec<_>>()
        );
        assert_eq!((voices.unknown, voices.unknown_quarters), (24 * 5, 24 * 20));
        assert_eq!(reports.between(4, 5).heard.len(), 1);
        assert_eq!(reports.between(3, 5).heard.len(), 17);
        reports.forget(3);
        assert_eq!((reports.between(3, 5).heard.len(), reports.between(3, 5).unknown), (1, 0));
    }

    #[test]
    fn a_group_that_everybody_reports_all_day_takes_less_than_thirty_kibibytes() {
        let mut reports = Reports::default();
        for pane in 0..144 {
            (0..=u8::MAX).for_each(|bucket| reports.hear(pane, Some(bucket), 4));
        }
        assert_eq!(reports.0.len(), 144 * 17);
        assert!(reports.bytes() <= 30 * 1024, "{}", reports.bytes());
    }

    proptest! {
        #[test]
        fn i9_what_is_kept_depends_on_no_order(said in proptest::collection::vec((0_i32..3, 0_u8..60, 1_u16..5), 1..300), turn in 0_usize..300) {
            let of = |said: &mut dyn Iterator<Item = &(i32, u8, u16)>| {
                let mut reports = Reports::default();
                said.for_each(|(pane, bucket, quarters)| reports.hear(*pane, (*bucket < 50).then_some(*bucket), *quarters));
                reports
            };
            let straight = of(&mut said.iter());
            prop_assert_eq!(&of(&mut said.iter().rev()), &straight);
            prop_assert_eq!(&of(&mut said.iter().cycle().skip(turn).take(said.len())), &straight);
            prop_assert!(straight.is_in_order());
            let (voices, all) = (straight.between(0, 3), said.len());
            let heard: usize = voices.heard.iter().map(|h| usize::from(h.voices)).sum();
            prop_assert_eq!(heard + voices.unknown as usize, all, "nobody is lost");
        }
    }
}
