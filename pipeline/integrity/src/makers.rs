//! Accounts that create groups: how many in each hour of a day, exact. Which groups they were, nothing here knows (I5).
//!
//! A pseudonym is of one day, so an account is kept until its day is over and nothing of it comes any more: see [`is_over`]. Of more accounts
//! than the rule holds, those that come later are not counted.

use starling_schemas::ids::{EpochId, HOUR_MS};

/// Hours of a day.
pub(crate) const HOURS: usize = 24;
/// A day's accounts, and its listed groups, are kept this long after its end: what comes later is counted anew.
pub(crate) const KEEP_DAY_MS: i64 = 6 * HOUR_MS;

/// Groups that one account created in one day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Maker {
    /// Day whose key the subject is under.
    pub(crate) epoch: i32,
    /// Sweep during which it was touched last.
    pub(crate) touched: u32,
    /// Whether the account was of its first week when it created one of them.
    pub(crate) is_new: bool,
    /// Groups by hour.
    pub(crate) hours: [u16; HOURS],
}

/// What was found of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    /// Groups in the fullest hour.
    pub(crate) in_hour: u32,
    /// Its start: the earliest of equals.
    pub(crate) hour_ms: i64,
    /// Groups in the day.
    pub(crate) in_day: u32,
    /// Start of the first hour in which there was one.
    pub(crate) first_ms: i64,
    /// End of the last.
    pub(crate) last_ms: i64,
}

impl Maker {
    /// Counts groups created in the hour that begins at `hour_ms`. `false`: it is no hour of the day.
    pub(crate) fn count(&mut self, hour_ms: i64, groups: u32, is_new: bool) -> bool {
        let hour = (hour_ms - EpochId(self.epoch).start_ms()).div_euclid(HOUR_MS);
        let Some(kept) = usize::try_from(hour).ok().and_then(|hour| self.hours.get_mut(hour)) else { return false };
        *kept = kept.saturating_add(u16::try_from(groups).unwrap_or(u16::MAX));
        self.is_new |= is_new;
        true
    }

    /// What it came to.
    pub(crate) fn found(&self) -> Found {
        let start_ms = EpochId(self.epoch).start_ms();
        let at = |hour: usize| start_ms + i64::try_from(hour).unwrap_or_default() * HOUR_MS;
        let mut fullest = (0, 0);
        for (hour, groups) in self.hours.iter().enumerate() {
            if u32::from(*groups) > fullest.1 {
                fullest = (hour, u32::from(*groups));
            }
        }
        let first = self.hours.iter().position(|groups| *groups > 0).unwrap_or_default();
        let last = self.hours.iter().rposition(|groups| *groups > 0).unwrap_or_default();
        Found {
            in_hour: fullest.1,
            hour_ms: at(fullest.0),
            in_day: self.hours.iter().map(|groups| u32::from(*groups)).sum(),
            first_ms: at(first),
            last_ms: at(last + 1),
        }
    }
}

/// Whether a day is over so long that nothing of it is kept any more.
pub(crate) fn is_over(epoch: i32, newest_ms: i64) -> bool {
    newest_ms >= EpochId(epoch).end_ms().saturating_add(KEEP_DAY_MS)
}
