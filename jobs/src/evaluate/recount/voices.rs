//! Whose voices a business's day is made of, counted once more and in another way: every number is tried, from the largest down, until one fits.

use std::collections::BTreeMap;

use starling_integrity::VoiceWeights;
use starling_schemas::codes::ReporterRate;
use starling_schemas::voice::Voice;

/// Blocks and founded reports of one business and day by older accounts.
#[derive(Debug, Default)]
pub(super) struct Together {
    /// Voices and what they weigh, by bucket.
    buckets: BTreeMap<Option<u8>, (u64, u64)>,
    many: u64,
}

impl Together {
    pub(super) fn take(&mut self, voice: Voice, weights: &VoiceWeights) {
        let quarters = match voice.rate {
            ReporterRate::Several => weights.several,
            ReporterRate::Many => weights.many,
            _ => 4,
        };
        let (voices, weighed) = self.buckets.entry(voice.bucket).or_default();
        (*voices, *weighed) = (*voices + 1, *weighed + u64::from(quarters));
        self.many += u64::from(voice.rate == ReporterRate::Many);
    }

    fn known(&self) -> impl Iterator<Item = (u64, u64)> + Clone {
        self.buckets.iter().filter_map(|(bucket, heard)| bucket.map(|_| *heard))
    }

    /// Quarters that count of known cohorts: the most of which none has more than three voices and a 24th.
    fn counted_known(&self) -> u64 {
        let all = self.known().map(|(_, weighed)| weighed).sum::<u64>();
        let fits = |counted: &u64| self.known().map(|(_, weighed)| weighed.min(12 + counted / 24)).sum::<u64>() >= *counted;
        (0..=all).rev().find(fits).unwrap_or_default()
    }

    /// Voices that count.
    pub(super) fn counted(&self) -> u64 {
        (self.counted_known() + self.buckets.get(&None).map_or(0, |(_, weighed)| *weighed)) / 4
    }

    /// Voices that are together.
    fn crowd(&self) -> u64 {
        let most = 12 + self.counted_known() / 24;
        self.known().filter(|(_, weighed)| *weighed > most).map(|(voices, _)| voices).sum()
    }

    /// Voices by arrangement, as it seems.
    pub(super) fn arranged(&self) -> u64 {
        self.crowd().max(self.many)
    }

    /// The same of a group, where the lightest weigh so many quarters.
    pub(super) fn arranged_in_group(&self, lightest: u64) -> u64 {
        let off: u64 = self.buckets.values().map(|(voices, weighed)| 4 * voices - weighed).sum();
        self.crowd().max(off.checked_div(4 - lightest).unwrap_or(0))
    }

    /// Whether there are more buckets than a group's ten minutes keep.
    pub(super) fn is_of_many_buckets(&self) -> bool {
        self.known().count() > 16
    }
}
