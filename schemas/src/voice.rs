//! Whose a block or report of a business, or a report of a group, is, as far as the row that holds it may say: not who, but out of which 256th of all registration cohorts, and
//! how often that account objects.

use crate::codes::ReporterRate;

/// How many buckets cohorts are put in.
pub const BUCKETS: usize = 256;

/// Set where the bucket is known.
const HAS_BUCKET: u16 = 1 << 8;
/// Bits below the rate.
const BELOW_RATE: u32 = 9;

/// The voice of somebody who objects, as the column `voice` of [`SIGNALS`](crate::rows::SIGNALS) has it: bits 0 to 7 are the bucket, bit 8 says that there
/// is one, bits 9 to 11 are the [`ReporterRate`].
///
/// # Privacy
/// A bucket is a keyed hash of day, business or group, and cohort: it is the same for two rows of one business and day whose accounts were registered together,
/// and for one in 256 of the others. Buckets of two days, businesses or groups cannot be joined, nor can a bucket and the cohort of a contact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Voice {
    /// Bucket of the cohort that the account was registered in, where that is known.
    pub bucket: Option<u8>,
    /// How many blocks and reports the account filed before.
    pub rate: ReporterRate,
}

impl Voice {
    /// The number in the column; `None` where nothing is known.
    #[must_use]
    pub fn code(self) -> Option<u16> {
        let bucket = self.bucket.map_or(0, |bucket| HAS_BUCKET | u16::from(bucket));
        Some(bucket | u16::from(self.rate.code()) << BELOW_RATE).filter(|code| *code > 0)
    }

    /// What a number in the column says. A rate that this version does not know is unknown.
    #[must_use]
    pub fn from_code(code: u16) -> Self {
        let [bucket, _] = code.to_le_bytes();
        let rate = u8::try_from(code >> BELOW_RATE).ok().and_then(ReporterRate::from_code).unwrap_or_default();
        Self { bucket: (code & HAS_BUCKET != 0).then_some(bucket), rate }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_voice_comes_back_and_no_two_have_one_number() {
        let mut seen = std::collections::HashSet::new();
        let buckets = (0..=u8::MAX).map(Some).chain([None]);
        for (bucket, rate) in buckets.flat_map(|bucket| ReporterRate::ALL.iter().map(move |rate| (bucket, *rate))) {
            let voice = Voice { bucket, rate };
            assert!(seen.insert(voice.code()));
            assert_eq!(Voice::from_code(voice.code().unwrap_or_default()), voice);
        }
        assert_eq!(Voice::default().code(), None, "nothing known is null");
    }

    #[test]
    fn a_rate_of_tomorrow_is_unknown() {
        let known = Voice { bucket: Some(7), rate: ReporterRate::Unknown };
        assert_eq!(Voice::from_code(7 | HAS_BUCKET | 5 << BELOW_RATE), known);
        assert_eq!(Voice::from_code(u16::MAX).rate, ReporterRate::Unknown);
    }
}
