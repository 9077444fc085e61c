//! Whose voices a business's day of blocks and reports, or a group's hour of reports, is made of: how many out of each bucket of cohorts, and what they weigh by how often their
//! accounts object.
//!
//! ```text
//!  a block or report     its rate: a quarter, a half, or one      its bucket: all of them together at most 3, and a 24th of what counts
//!       of an account   ───────────────────────────────────────► ──────────────────────────────────────────────────────────────────────► what counts
//!   older than a week                                              bucket unknown (an old edge): no more than by its rate
//! ```
//!
//! What is heard is added up, and nothing in it depends on the order. Weights are whole quarters, so that sums are exact (I9).
//!
//! # What honest people lose
//! Where people object who know nothing of each other, each of 256 buckets has as many as any other, but for chance. Of n such voices more than
//! 3 + n/24 are in one bucket in less than one of a thousand days, however large n is: `honest_voices_lose_nothing` draws them. Who blocks and
//! reports is heard twice; and a cohort may be large. What is cut off then are single voices, and no alert comes of it.
//!
//! # What a brigade wins
//! Out of one cohort, of whatever size: three voices, and one for each 24 that others raise. The share is one of what counts and not of what came, so
//! a brigade does not make room for itself. Who has accounts of 24 cohorts is not held up by this.

use serde::Deserialize;
use starling_schemas::codes::ReporterRate;
use starling_schemas::voice::{BUCKETS, Voice};

/// What a whole voice weighs.
pub(crate) const WHOLE: u16 = 4;
/// Voices that every bucket has.
const LEAST: u32 = 3;
/// Of all that counts, a bucket may be this part more.
const PART: u32 = 24;

/// What a block or report of a business weighs by how often its account objects, in quarters of what any other weighs.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VoiceWeights {
    /// After four to fifteen others in 30 days.
    pub several: u16,
    /// After sixteen or more.
    pub many: u16,
}

impl VoiceWeights {
    /// Whether it can be kept to.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        // One that weighs nothing would not be heard of at all.
        if !(1..=self.several).contains(&self.many) || self.several > WHOLE {
            return Err("business_blocks.voices: several and many must be 1 to 4 quarters, and many at most several");
        }
        Ok(())
    }

    /// Quarters that one weighs.
    pub(crate) const fn quarters(&self, rate: ReporterRate) -> u16 {
        match rate {
            ReporterRate::Several => self.several,
            ReporterRate::Many => self.many,
            ReporterRate::Unknown | ReporterRate::Never | ReporterRate::Few => WHOLE,
        }
    }

    /// Quarters that a report of a group weighs: of an account of its first week as of one that objects all the time.
    pub(crate) const fn in_group(&self, rate: ReporterRate, is_young: bool) -> u16 {
        if is_young { self.many } else { self.quarters(rate) }
    }
}

/// What was heard out of one bucket. It counts no further than 65,535.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) bucket: u8,
    pub(crate) voices: u16,
    /// What they weigh.
    pub(crate) quarters: u16,
}

/// What was heard in a day.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Voices {
    /// By bucket, in order; those nothing was heard of are not there.
    pub(crate) heard: Vec<Heard>,
    /// Voices of unknown cohorts.
    pub(crate) unknown: u32,
    /// What they weigh.
    pub(crate) unknown_quarters: u32,
    /// What all weigh.
    pub(crate) quarters: u32,
    /// Voices of accounts that object often.
    pub(crate) several: u32,
    /// Of accounts that do nothing else.
    pub(crate) many: u32,
}

/// Buckets out of which more came than chance brings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Crowd {
    /// Voices.
    pub(crate) voices: u32,
    /// What they weigh.
    pub(crate) quarters: u32,
    /// What they count.
    pub(crate) counted: u32,
}

impl Voices {
    /// So many voices of which nothing is known.
    pub(crate) fn of_nobody_known(voices: u32) -> Self {
        let quarters = voices.saturating_mul(WHOLE.into());
        Self { unknown: voices, unknown_quarters: quarters, quarters, ..Self::default() }
    }

    /// Hears one that weighs so much.
    pub(crate) fn hear(&mut self, voice: Voice, quarters: u16) {
        match voice.rate {
            ReporterRate::Several => self.several = self.several.saturating_add(1),
            ReporterRate::Many => self.many = self.many.saturating_add(1),
            _ => {}
        }
        self.add(voice.bucket, 1, quarters);
    }

    /// Adds so many out of a bucket that weigh so much together.
    pub(crate) fn add(&mut self, bucket: Option<u8>, voices: u16, quarters: u16) {
        self.quarters = self.quarters.saturating_add(quarters.into());
        let Some(bucket) = bucket else {
            self.unknown = self.unknown.saturating_add(voices.into());
            self.unknown_quarters = self.unknown_quarters.saturating_add(quarters.into());
            return;
        };
        let place = self.heard.partition_point(|heard| heard.bucket < bucket);
        if self.heard.get(place).is_none_or(|heard| heard.bucket != bucket) {
            if self.heard.len() == self.heard.capacity() {
                // Most days have few, and none has more than there are.
                self.heard.reserve_exact(self.heard.len().max(4).min(BUCKETS - self.heard.len()));
            }
            self.heard.insert(place, Heard { bucket, voices: 0, quarters: 0 });
        }
        if let Some(heard) = self.heard.get_mut(place) {
            heard.voices = heard.voices.saturating_add(voices);
            heard.quarters = heard.quarters.saturating_add(quarters);
        }
    }

    /// The most that a bucket counts, in quarters, where all that have one count so much.
    const fn most(counted: u32) -> u32 {
        LEAST * WHOLE as u32 + counted / PART
    }

    /// What the voices of known cohorts count, in quarters: the most of which each bucket has no more than its part.
    fn counted_known(&self) -> u32 {
        let weighed = self.heard.iter().map(|heard| u32::from(heard.quarters));
        let mut counted = weighed.clone().sum();
        // It only falls, by a part at least, until it fits.
        loop {
            let fits = weighed.clone().map(|quarters| quarters.min(Self::most(counted))).sum();
            if fits >= counted {
                return counted;
            }
            counted = fits;
        }
    }

    /// How many voices all of them count, weighted and capped. It only grows with what is heard.
    pub(crate) fn counted(&self) -> u32 {
        self.counted_known().saturating_add(self.unknown_quarters) / u32::from(WHOLE)
    }

    /// Those out of buckets that hold more than counts of one.
    pub(crate) fn crowd(&self) -> Crowd {
        let most = Self::most(self.counted_known());
        let mut crowd = Crowd::default();
        for heard in self.heard.iter().filter(|heard| u32::from(heard.quarters) > most) {
            crowd.voices += u32::from(heard.voices);
            crowd.quarters += u32::from(heard.quarters);
            crowd.counted += most;
        }
        crowd
    }

    /// Bytes beside the struct itself.
    pub(crate) fn bytes(&self) -> usize {
        self.heard.capacity() * size_of::<Heard>()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn voice(bucket: u8) -> Voice {
        Voice { bucket: Some(bucket), rate: ReporterRate::Never }
    }

    /// So many whole voices out of each of these buckets.
    fn heard(of: &[(u8, u32)]) -> Voices {
        let mut voices = Voices::default();
        for (bucket, n) in of {
            (0..*n).for_each(|_| voices.hear(voice(*bucket), WHOLE));
        }
        voices
    }

    struct Draws(u64);

    impl Draws {
        fn bucket(&mut self) -> u8 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 56) as u8
        }
    }

    #[test]
    fn a_bucket_counts_three_and_a_part_of_what_counts() {
        assert_eq!(heard(&[(7, 3)]).counted(), 3);
        assert_eq!(heard(&[(7, 3)]).crowd(), Crowd::default());
        assert_eq!(heard(&[(7, 4)]).counted(), 3);
        assert_eq!(heard(&[(7, 4)]).crowd(), Crowd { voices: 4, quarters: 16, counted: 12 });
        for size in [5, 60, 3_000, 60_000] {
            assert_eq!(heard(&[(7, size)]).counted(), 3, "a brigade makes no room for itself");
            assert_eq!(heard(&[(7, size), (200, size)]).counted(), 6);
        }
        let mut crowded: Vec<(u8, u32)> = (0..=255).map(|bucket| (bucket, 9)).collect();
        crowded[7].1 = 500;
        // 2,295 of others: a 24th of those and its own, and three.
        assert_eq!(heard(&crowded).counted(), 2_295 + 102);
        assert_eq!(heard(&crowded).crowd().voices, 500);
        // Out of 24 buckets and more everything counts.
        let many: Vec<(u8, u32)> = (0..24).map(|bucket| (bucket, 100)).collect();
        assert_eq!((heard(&many).counted(), heard(&many[..23]).crowd().voices), (2_400, 2_300));
        assert_eq!(heard(&many[..23]).counted(), 1_656);
    }

    #[test]
    fn who_is_not_known_is_not_capped_and_makes_no_room() {
        let mut voices = heard(&[(7, 60)]);
        for _ in 0..1_000 {
            voices.hear(Voice::default(), WHOLE);
        }
        assert_eq!((voices.counted(), voices.unknown), (1_003, 1_000));
        assert_eq!(Voices::of_nobody_known(17).counted(), 17);
        assert_eq!(Voices::of_nobody_known(u32::MAX).counted(), u32::MAX / 4, "no overflow");
    }

    #[test]
    fn what_is_beyond_a_count_is_kept_as_the_most() {
        let mut voices = Voices::default();
        for _ in 0..70_000 {
            voices.hear(Voice { bucket: Some(1), rate: ReporterRate::Many }, 1);
        }
        assert_eq!(
            (voices.heard[0].voices, voices.heard[0].quarters, voices.many, voices.quarters),
            (65_535, 65_535, 70_000, 70_000)
        );
    }

    /// Days of `n` honest voices of which any bucket is cut, and of which half is a crowd of twenty, of so many.
    fn honest_days(n: u32, days: u32, each: u32) -> (u32, u32) {
        let mut draws = Draws(u64::from(n) << 8 | u64::from(each));
        let (mut cut, mut told) = (0, 0);
        for _ in 0..days {
            let mut voices = Voices::default();
            for _ in 0..n / each {
                let bucket = draws.bucket();
                (0..each).for_each(|_| voices.hear(voice(bucket), WHOLE));
            }
            let crowd = voices.crowd();
            cut += u32::from(crowd.voices > 0);
            told += u32::from(crowd.voices >= 20 && 2 * crowd.voices >= n / each * each);
        }
        (cut, told)
    }

    #[test]
    fn honest_voices_lose_nothing() {
        for n in [5, 10, 15, 20, 23, 24, 30, 40, 47, 48, 71, 96, 150, 300, 1_000, 5_000] {
            let days = (2_000_000 / n).clamp(1_000, 40_000);
            let (cut, told) = honest_days(n, days, 1);
            // One of a thousand, and what chance may add to that.
            let most = f64::from(days) * 1e-3;
            assert!(f64::from(cut) <= most + 3.0 * most.sqrt(), "{cut} of {days} days of {n}");
            assert_eq!(told, 0, "{n}");
        }
    }

    #[test]
    fn honest_people_who_block_and_report_are_no_crowd() {
        for n in [20, 24, 28, 30, 40, 60, 100, 400] {
            let days = 20_000;
            let told = honest_days(n, days, 2).1;
            assert!(told <= 2, "{told} of {days} days of {n}");
        }
    }

    proptest! {
        #[test]
        fn i9_what_counts_depends_on_no_order_and_only_grows(said in proptest::collection::vec((0_u8..9, 0_u8..5, 0_u16..3), 1..400), seed: u64) {
            let of = |said: &[(u8, u8, u16)]| {
                let mut voices = Voices::default();
                let mut before = 0;
                for (bucket, rate, weight) in said {
                    let rate = ReporterRate::from_code(*rate).unwrap_or_default();
                    voices.hear(Voice { bucket: (*bucket < 8).then_some(bucket * 31), rate }, 1 << weight);
                    assert!(voices.counted() >= before, "it only grows");
                    before = voices.counted();
                }
                voices
            };
            let straight = of(&said);
            let mut shuffled = said.clone();
            let mut draws = Draws(seed);
            for i in (1..shuffled.len()).rev() {
                let with = (usize::from(draws.bucket()) << 8 | usize::from(draws.bucket())) % (i + 1);
                shuffled.swap(i, with);
            }
            prop_assert_eq!(of(&shuffled), straight.clone());
            prop_assert!(straight.counted() <= straight.quarters / 4);
            // The most of which each bucket has no more than its part: one more would not fit.
            let fits = |counted: u32| straight.heard.iter().map(|h| u32::from(h.quarters).min(12 + counted / 24)).sum::<u32>();
            let known = straight.quarters - straight.unknown_quarters;
            let by_trial = (0..=known).rev().find(|counted| fits(*counted) >= *counted).unwrap_or_default();
            prop_assert_eq!(straight.counted_known(), by_trial);
        }
    }
}
