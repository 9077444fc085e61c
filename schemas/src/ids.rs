//! Names for things that must not be mixed.

use std::fmt;
use std::marker::PhantomData;

use serde::{Deserialize, Serialize};

/// Milliseconds in a day.
pub const DAY_MS: i64 = 86_400_000;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// Position in a partition: of a Kafka message, or of a frame in a trace file.
    Offset(i64)
);
number!(
    /// How often a partition has changed its owner. An owner with an older generation is fenced.
    Generation(i64)
);
number!(
    /// Number of a committed range of a partition, from 0, without gaps. Names files and signals.
    Sequence(i64)
);

/// One partition of one source: a Kafka topic, or a trace file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PartitionId {
    /// Topic name, or `trace:<file stem>`.
    pub source: String,
    /// Partition number, from 0.
    pub partition: i32,
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.source, self.partition)
    }
}

/// A UTC day, counted from 1970-01-01: the epoch of the day-long purposes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EpochId(pub i32);

impl EpochId {
    /// The day an event time falls in. `time_ms`: milliseconds since 1970-01-01 UTC.
    #[must_use]
    pub fn of(time_ms: i64) -> Self {
        let day = time_ms.div_euclid(DAY_MS).clamp(i64::from(i32::MIN), i64::from(i32::MAX));
        Self(i32::try_from(day).unwrap_or_default())
    }

    /// First millisecond of the day.
    #[must_use]
    pub fn start_ms(self) -> i64 {
        i64::from(self.0) * DAY_MS
    }

    /// First millisecond after the day.
    #[must_use]
    pub fn end_ms(self) -> i64 {
        self.start_ms() + DAY_MS
    }

    /// Reads `YYYY-MM-DD`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '-');
        let (y, m, d) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let epoch = Self(days_from_civil(y, m, d)?);
        (epoch.to_string() == text).then_some(epoch)
    }
}

/// Writes `YYYY-MM-DD`.
impl fmt::Display for EpochId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (y, m, d) = civil_from_days(self.0);
        write!(f, "{y:04}-{m:02}-{d:02}")
    }
}

// Gregorian calendar arithmetic over eras of 400 years (H. Hinnant, "chrono-compatible low-level date algorithms").
fn days_from_civil(y: i64, m: i64, d: i64) -> Option<i32> {
    if !(1..=12).contains(&m) || !(1..=31).contains(&d) || !(0..=9999).contains(&y) {
        return None;
    }
    let y = if m <= 2 { y - 1 } else { y };
    let era = y.div_euclid(400);
    let year_of_era = y - era * 400;
    let day_of_year = (153 * (if m > 2 { m - 3 } else { m + 9 }) + 2) / 5 + d - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    i32::try_from(era * 146_097 + day_of_era - 719_468).ok()
}

fn civil_from_days(days: i32) -> (i64, i64, i64) {
    let z = i64::from(days) + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z - era * 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let mp = (5 * day_of_year + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day_of_year - (153 * mp + 2) / 5 + 1)
}

/// What a key is for. Values under different purposes are never comparable (design 3.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// Statistics over one day. The pseudonym key dies when the day has closed.
    AnalyticsDay,
    /// Abuse detection. The pseudonym key dies 72 hours after its day at the latest.
    Integrity,
    /// Billing of businesses. It has a data key and no pseudonym key: nobody is in it.
    Billing,
}

impl Purpose {
    /// The name in paths, receipts and hash inputs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AnalyticsDay => "analytics_day",
            Self::Integrity => "integrity",
            Self::Billing => "billing",
        }
    }

    /// All purposes that hold keys.
    pub const ALL: [Self; 3] = [Self::AnalyticsDay, Self::Integrity, Self::Billing];
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Marks pseudonyms of one purpose, so that the compiler keeps them apart.
pub trait Domain: Copy + Eq + Ord + std::hash::Hash + 'static {
    /// The purpose whose key made the value.
    const PURPOSE: Purpose;
}

/// Marker of [`Purpose::AnalyticsDay`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AnalyticsDay;
/// Marker of [`Purpose::Integrity`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Integrity;

impl Domain for AnalyticsDay {
    const PURPOSE: Purpose = Purpose::AnalyticsDay;
}
impl Domain for Integrity {
    const PURPOSE: Purpose = Purpose::Integrity;
}

/// A person or group under one purpose's key for one epoch: the first 128 bits of a keyed BLAKE3 hash.
///
/// It has no `Display` and its `Debug` hides the value: pseudonyms are never logged (I4).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pseudonym<D: Domain> {
    bytes: [u8; 16],
    domain: PhantomData<D>,
}

impl<D: Domain> Pseudonym<D> {
    /// Takes the bytes of a keyed hash made under this domain's key.
    #[must_use]
    pub const fn from_keyed_hash(bytes: [u8; 16]) -> Self {
        Self { bytes, domain: PhantomData }
    }

    /// The bytes, for a column or a map key.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.bytes
    }
}

impl<D: Domain> fmt::Debug for Pseudonym<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pseudonym<{}>(..)", D::PURPOSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_dates_agree_both_ways() {
        for (day, text) in [(0, "1970-01-01"), (20_458, "2026-01-05"), (-1, "1969-12-31"), (11_016, "2000-02-29")] {
            assert_eq!(EpochId(day).to_string(), text);
            assert_eq!(EpochId::parse(text), Some(EpochId(day)));
        }
        assert_eq!(EpochId::parse("2026-02-30"), None);
        for day in -200_000..200_000 {
            assert_eq!(EpochId::parse(&EpochId(day).to_string()), Some(EpochId(day)));
        }
    }

    #[test]
    fn a_pseudonym_does_not_print_itself() {
        let p = Pseudonym::<Integrity>::from_keyed_hash([0xab; 16]);
        assert_eq!(format!("{p:?}"), "Pseudonym<integrity>(..)");
    }
}
