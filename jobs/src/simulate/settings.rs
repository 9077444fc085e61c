//! What to simulate.

use starling_schemas::ids::{DAY_MS, EpochId};

/// Length of a slice of time, in milliseconds. A slice is made as a whole, in memory: at 10 million people some 2 million events of
/// 16 bytes at the busiest time of day. It divides a day.
pub(crate) const SLICE_MS: i64 = 300_000;

/// Slices in a day.
pub(crate) const SLICES_PER_DAY: u32 = (DAY_MS / SLICE_MS) as u32;

/// Fewest and most people.
pub(crate) const PEOPLE: std::ops::RangeInclusive<u64> = 1_000..=10_000_000;

/// What to simulate. Equal settings give equal bytes (logarithms and exponentials are the platform's own).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Settings {
    /// People who have an account, 1,000 to 10,000,000; planted senders come on top.
    pub(crate) people: u64,
    /// UTC days, 1 to 366.
    pub(crate) days: u32,
    /// Decides everything else.
    pub(crate) seed: u64,
    /// First day.
    pub(crate) start: EpochId,
    /// Frames that cannot be read, as a share of the readable ones, 0 to 0.5. They come on top and change nothing else.
    pub(crate) bad_share: f64,
    /// Abusers and lookalikes of each kind, 1 to 1,000; `None`: as many as there would be among so many people.
    pub(crate) planted: Option<u32>,
}

impl Settings {
    /// No bad frames.
    pub(crate) const fn new(people: u64, days: u32, seed: u64, start: EpochId) -> Self {
        Self { people, days, seed, start, bad_share: 0.0, planted: None }
    }

    /// Refuses what cannot be simulated.
    pub(super) fn check(&self) -> Result<(), SimulateError> {
        if !PEOPLE.contains(&self.people) {
            return Err(SimulateError::People);
        }
        if !(1..=366).contains(&self.days) {
            return Err(SimulateError::Days);
        }
        // 2010-01-01 and 2100-01-01: events before 2009 are refused by the pipeline.
        if !(14_610..=47_482).contains(&self.start.0) {
            return Err(SimulateError::Start);
        }
        if !(0.0..=0.5).contains(&self.bad_share) {
            return Err(SimulateError::BadShare);
        }
        if self.planted.is_some_and(|n| !(1..=1_000).contains(&n)) {
            return Err(SimulateError::Planted);
        }
        Ok(())
    }
}

/// Why nothing can be simulated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SimulateError {
    /// Too few or too many people.
    #[error("people: give a number from 1,000 to 10,000,000")]
    People,
    /// Too few or too many days.
    #[error("days: give a number from 1 to 366")]
    Days,
    /// The first day is out of range.
    #[error("start: give a day from 2010-01-01 to 2100-01-01")]
    Start,
    /// Too many bad frames.
    #[error("bad_share: give a share from 0 to 0.5")]
    BadShare,
    /// Too few or too many of a kind.
    #[error("planted: give a number from 1 to 1,000")]
    Planted,
    /// Too few or too many copies of a log.
    #[error("copies: give a number from 1 to 1,000")]
    Copies,
    /// A log has more people than the simulation has accounts for.
    #[error(
        "people: so many copies of the log need {needed} accounts that are there all the time, which takes about a tenth more people"
    )]
    FewAccounts {
        /// How many.
        needed: usize,
    },
    /// The table of countries that was compiled in is wrong.
    #[error("countries.tsv, line {line}: {what}")]
    Countries {
        /// Line from 1.
        line: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// A country's block of numbers is too small for its people.
    #[error("countries.tsv: the numbers of {country} do not reach for so many people")]
    TooFewNumbers {
        /// ISO 3166-1 letters.
        country: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_out_of_range_are_refused_with_the_range() {
        let good = Settings::new(1_000, 1, 0, EpochId(20_458));
        assert_eq!(good.check(), Ok(()));
        assert_eq!(Settings { people: 999, ..good }.check(), Err(SimulateError::People));
        assert_eq!(Settings { people: 10_000_001, ..good }.check(), Err(SimulateError::People));
        assert_eq!(Settings { days: 0, ..good }.check(), Err(SimulateError::Days));
        assert_eq!(Settings { start: EpochId(0), ..good }.check(), Err(SimulateError::Start));
        assert_eq!(Settings { bad_share: f64::NAN, ..good }.check(), Err(SimulateError::BadShare));
        assert_eq!(Settings { planted: Some(0), ..good }.check(), Err(SimulateError::Planted));
    }
}
