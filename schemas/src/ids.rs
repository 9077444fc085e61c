//! Names for things that must not be mixed.

use std::fmt;
use std::marker::PhantomData;

use serde::{Deserialize, Serialize};

/// Milliseconds in a day.
pub const DAY_MS: i64 = 86_400_000;
/// Milliseconds in an hour.
pub const HOUR_MS: i64 = 3_600_000;

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

/// A UTC day, counted from 1970-01-01, or a UTC hour: what keys, blocks and releases are of.
///
/// One number says which of the two it is: hours are counted from 1970-01-01T00, too, and stand above all days there can be. So what is kept by
/// its epoch alone, a key's file, a budget's block, a release's path, says by itself how long it is, and no day is ever taken for an hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EpochId(pub i32);

/// The hour that begins with 1970-01-01.
const HOUR_ZERO: i32 = 1 << 30;
/// The smallest number of an hour, more than sixty thousand years before.
const FIRST_HOUR: i32 = 1 << 29;
const HOURS_A_DAY: i32 = 24;

impl EpochId {
    /// A day after all days there are.
    pub const LAST_DAY: Self = Self(FIRST_HOUR - 1);

    /// The day an event time falls in. `time_ms`: milliseconds since 1970-01-01 UTC.
    #[must_use]
    pub fn of(time_ms: i64) -> Self {
        let day = time_ms.div_euclid(DAY_MS).clamp(i64::from(i32::MIN), i64::from(Self::LAST_DAY.0));
        Self(i32::try_from(day).unwrap_or_default())
    }

    /// The hour an event time falls in. `time_ms`: milliseconds since 1970-01-01 UTC.
    #[must_use]
    pub fn hour_of(time_ms: i64) -> Self {
        let hour = time_ms.div_euclid(HOUR_MS).clamp(i64::from(FIRST_HOUR - HOUR_ZERO), i64::from(i32::MAX - HOUR_ZERO));
        Self(HOUR_ZERO + i32::try_from(hour).unwrap_or_default())
    }

    /// An hour of this day, 0 to 23.
    #[must_use]
    pub fn hour_at(self, hour: u8) -> Self {
        Self::hour_of(self.day().start_ms().saturating_add(i64::from(hour) * HOUR_MS))
    }

    /// Whether it is an hour.
    #[must_use]
    pub const fn is_hour(self) -> bool {
        self.0 >= FIRST_HOUR
    }

    /// Which hour of its day it is, 0 to 23; `None` for a day.
    #[must_use]
    pub fn hour(self) -> Option<u8> {
        if self.is_hour() { u8::try_from((self.0 - HOUR_ZERO).rem_euclid(HOURS_A_DAY)).ok() } else { None }
    }

    /// The day an hour is in; a day itself.
    #[must_use]
    pub const fn day(self) -> Self {
        if self.is_hour() { Self((self.0 - HOUR_ZERO).div_euclid(HOURS_A_DAY)) } else { self }
    }

    /// First millisecond.
    #[must_use]
    pub fn start_ms(self) -> i64 {
        if self.is_hour() { i64::from(self.0 - HOUR_ZERO) * HOUR_MS } else { i64::from(self.0) * DAY_MS }
    }

    /// First millisecond after it.
    #[must_use]
    pub fn end_ms(self) -> i64 {
        self.start_ms() + if self.is_hour() { HOUR_MS } else { DAY_MS }
    }

    /// The one before it, as long as it is.
    #[must_use]
    pub const fn before(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// Reads `YYYY-MM-DD` and nothing else.
    #[must_use]
    pub fn parse_day(text: &str) -> Option<Self> {
        Self::parse(text).filter(|epoch| !epoch.is_hour())
    }

    /// Reads `YYYY-MM-DD`, or `YYYY-MM-DDTHH` for an hour.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (date, hour) = text.split_once('T').map_or((text, None), |(date, hour)| (date, Some(hour)));
        let mut parts = date.splitn(3, '-');
        let (y, m, d) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let day = Self(days_from_civil(y, m, d)?);
        let epoch = match hour {
            None => day,
            Some(hour) => day.hour_at(hour.parse().ok().filter(|hour| *hour < 24)?),
        };
        (epoch.to_string() == text).then_some(epoch)
    }
}

/// Writes `YYYY-MM-DD`, and `YYYY-MM-DDTHH` for an hour.
impl fmt::Display for EpochId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (y, m, d) = civil_from_days(self.day().0);
        write!(f, "{y:04}-{m:02}-{d:02}")?;
        self.hour().map_or(Ok(()), |hour| write!(f, "T{hour:02}"))
    }
}

/// How long a window of statistics is. Each has its own purpose, keys, person rows and budget.
///
/// Weeks begin on Monday, as ISO 8601's do. A month is four of them: months compare, having as many of each weekday, and a month of 28 days with two days
/// for what comes late is over within the 30 that person rows may live (P42), which one of 31 days could not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Span {
    /// One UTC hour.
    Hour,
    /// One UTC day.
    #[default]
    Day,
    /// Seven days from a Monday.
    Week,
    /// 28 days from a Monday.
    Month,
}

impl Span {
    /// All of them, shortest first.
    pub const ALL: [Self; 4] = [Self::Hour, Self::Day, Self::Week, Self::Month];
    /// Those of several days. Of them, as of hours, only who was there is kept.
    pub const LONG: [Self; 2] = [Self::Week, Self::Month];
    /// A Monday, from which weeks and months are counted: 1969-12-29.
    const MONDAY: i32 = -3;

    /// How many epochs it has: days, and of an hour the hour itself.
    #[must_use]
    pub const fn epochs(self) -> i32 {
        match self {
            Self::Hour | Self::Day => 1,
            Self::Week => 7,
            Self::Month => 28,
        }
    }

    /// Its name in paths, tables and text.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }

    /// The span of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|span| span.name() == name)
    }

    /// Whose keys its person rows have.
    #[must_use]
    pub const fn purpose(self) -> Purpose {
        match self {
            Self::Hour => Purpose::AnalyticsHour,
            Self::Day => Purpose::AnalyticsDay,
            Self::Week => Purpose::AnalyticsWeek,
            Self::Month => Purpose::AnalyticsMonth,
        }
    }

    /// The window of this length that a day or hour is in. A day is in no hour: its first one is given.
    #[must_use]
    pub const fn of(self, epoch: EpochId) -> WindowId {
        let (days, day) = (self.epochs(), epoch.day());
        // Days before the first window an `i32` can name belong to that one; event times are far from it.
        let start = match self {
            Self::Hour if epoch.is_hour() => epoch.0,
            Self::Hour => HOUR_ZERO.saturating_add(day.0.saturating_mul(HOURS_A_DAY)),
            Self::Day => day.0,
            Self::Week | Self::Month => day.0.saturating_sub(day.0.saturating_sub(Self::MONDAY).rem_euclid(days)),
        };
        WindowId { span: self, epoch: EpochId(start) }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A window of statistics, by its first day, or by the hour it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WindowId {
    /// How long it is.
    pub span: Span,
    /// Its first day, or the hour it is.
    pub epoch: EpochId,
}

impl WindowId {
    /// Its last day, or the hour it is.
    #[must_use]
    pub const fn last(self) -> EpochId {
        EpochId(self.epoch.0.saturating_add(self.span.epochs() - 1))
    }

    /// First millisecond after it.
    #[must_use]
    pub fn end_ms(self) -> i64 {
        self.last().end_ms()
    }

    /// Whether a day or hour is in it as a whole.
    #[must_use]
    pub fn has(self, epoch: EpochId) -> bool {
        self.epoch.start_ms() <= epoch.start_ms() && epoch.end_ms() <= self.end_ms()
    }
}

/// A day or an hour is the window of itself.
impl From<EpochId> for WindowId {
    fn from(epoch: EpochId) -> Self {
        Self { span: if epoch.is_hour() { Span::Hour } else { Span::Day }, epoch }
    }
}

/// Writes `2026-01-05` for a day, `hour-2026-01-05T13`, `week-2026-01-05` and `month-2026-01-05` for others.
impl fmt::Display for WindowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.span {
            Span::Day => self.epoch.fmt(f),
            span => write!(f, "{span}-{}", self.epoch),
        }
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
    /// Who was there in an hour. The pseudonym key dies when the hour has closed.
    AnalyticsHour,
    /// Statistics over one day. The pseudonym key dies when the day has closed.
    AnalyticsDay,
    /// Who was there in a week (P14). The pseudonym key dies when the week has closed.
    AnalyticsWeek,
    /// Who was there in a month. The pseudonym key dies when the month has closed.
    AnalyticsMonth,
    /// Abuse detection. The pseudonym key dies 72 hours after its day at the latest.
    Integrity,
    /// Billing of businesses. It has a data key and no pseudonym key: nobody is in it.
    Billing,
    /// Tokens of who wrote to whom, for the reply test alone. The key that makes them, and the one that covers them in rows, die 72 hours after
    /// their day began.
    Pair,
}

impl Purpose {
    /// The name in paths, receipts and hash inputs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AnalyticsHour => "analytics_hour",
            Self::AnalyticsDay => "analytics_day",
            Self::AnalyticsWeek => "analytics_week",
            Self::AnalyticsMonth => "analytics_month",
            Self::Integrity => "integrity",
            Self::Billing => "billing",
            Self::Pair => "pair",
        }
    }

    /// All purposes that hold keys.
    pub const ALL: [Self; 7] = [
        Self::AnalyticsHour,
        Self::AnalyticsDay,
        Self::AnalyticsWeek,
        Self::AnalyticsMonth,
        Self::Integrity,
        Self::Billing,
        Self::Pair,
    ];
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

/// Marker of [`Purpose::AnalyticsHour`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AnalyticsHour;
/// Marker of [`Purpose::AnalyticsDay`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AnalyticsDay;
/// Marker of [`Purpose::AnalyticsWeek`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AnalyticsWeek;
/// Marker of [`Purpose::AnalyticsMonth`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AnalyticsMonth;
/// Marker of [`Purpose::Integrity`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Integrity;
/// Marker of [`Purpose::Pair`]. Its values are no people: a pair's two tokens, eight bytes for each direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pair;

impl Domain for AnalyticsHour {
    const PURPOSE: Purpose = Purpose::AnalyticsHour;
}
impl Domain for AnalyticsDay {
    const PURPOSE: Purpose = Purpose::AnalyticsDay;
}
impl Domain for AnalyticsWeek {
    const PURPOSE: Purpose = Purpose::AnalyticsWeek;
}
impl Domain for AnalyticsMonth {
    const PURPOSE: Purpose = Purpose::AnalyticsMonth;
}
impl Domain for Integrity {
    const PURPOSE: Purpose = Purpose::Integrity;
}
impl Domain for Pair {
    const PURPOSE: Purpose = Purpose::Pair;
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
            assert_eq!((EpochId::parse(text), EpochId::parse_day(text)), (Some(EpochId(day)), Some(EpochId(day))));
        }
        assert_eq!(EpochId::parse_day("2026-01-05T13"), None);
        assert_eq!(EpochId::parse("2026-02-30"), None);
        for day in -200_000..200_000 {
            assert_eq!(EpochId::parse(&EpochId(day).to_string()), Some(EpochId(day)));
        }
    }

    #[test]
    fn hours_and_their_names_agree_both_ways_and_no_hour_is_a_day() {
        // 2026-01-05T13.
        let hour = EpochId(20_458).hour_at(13);
        assert_eq!((hour.to_string(), hour.hour(), hour.day()), ("2026-01-05T13".to_owned(), Some(13), EpochId(20_458)));
        assert_eq!((hour.start_ms(), hour.end_ms() - hour.start_ms()), (EpochId(20_458).start_ms() + 13 * HOUR_MS, HOUR_MS));
        assert_eq!((hour.is_hour(), EpochId(20_458).is_hour(), EpochId(20_458).hour()), (true, false, None));
        for text in ["2026-01-05T24", "2026-01-05T7", "2026-01-05T+7", "2026-01-05T", "T13", "2026-01-05t13", "2026-01-05T13:00"]
        {
            assert_eq!(EpochId::parse(text), None, "{text}");
        }
        for ms in (-200_000..200_000).map(|n| n * HOUR_MS) {
            for time in [ms, ms + HOUR_MS - 1] {
                let hour = EpochId::hour_of(time);
                assert_eq!((hour.start_ms(), hour.day()), (ms, EpochId::of(time)));
                assert_eq!(EpochId::parse(&hour.to_string()), Some(hour));
                assert_eq!(hour.day().hour_at(hour.hour().expect("an hour")), hour);
                assert_eq!(EpochId::hour_of(ms - 1), hour.before());
            }
        }
        assert!(!EpochId::of(i64::MAX).is_hour() && !EpochId::of(i64::MIN).is_hour());
        assert!(EpochId::hour_of(i64::MAX).is_hour() && EpochId::hour_of(i64::MIN).is_hour());
        assert_eq!(WindowId::from(hour).to_string(), "hour-2026-01-05T13");
        for (span, has) in [(Span::Hour, true), (Span::Day, true), (Span::Week, true), (Span::Month, true)] {
            assert_eq!((span.of(hour).has(hour), span.of(hour).has(hour.before().before())), (has, span != Span::Hour));
        }
        assert!(!Span::Hour.of(EpochId(20_458)).has(EpochId(20_458)), "a day is in no hour");
    }

    #[test]
    fn every_day_is_in_one_week_and_one_month_and_they_begin_on_mondays() {
        for day in (-3_000..40_000).map(EpochId) {
            for span in [Span::Day, Span::Week, Span::Month] {
                let window = span.of(day);
                assert!(window.has(day) && window.last().0 - window.epoch.0 + 1 == span.epochs());
                assert_eq!((span.of(window.epoch), span.of(window.last())), (window, window));
                assert_eq!(span.of(EpochId(window.last().0 + 1)).epoch.0, window.last().0 + 1, "the next begins where it ends");
            }
            assert_eq!(Span::Month.of(day), Span::Month.of(Span::Week.of(day).epoch), "a month is whole weeks");
        }
        // 2026-01-05 was a Monday.
        assert_eq!(Span::Week.of(EpochId(20_464)).to_string(), "week-2026-01-05");
        assert_eq!(Span::Week.of(EpochId(20_465)).to_string(), "week-2026-01-12");
        assert!(Span::Month.of(EpochId(i32::MIN)).has(EpochId(i32::MIN)));
        let latest = EpochId::of(i64::MAX);
        assert!(Span::Week.of(latest).has(latest));
        assert!(Span::ALL.iter().all(|span| Span::parse(span.name()) == Some(*span)));
    }

    #[test]
    fn a_pseudonym_does_not_print_itself() {
        let p = Pseudonym::<Integrity>::from_keyed_hash([0xab; 16]);
        assert_eq!(format!("{p:?}"), "Pseudonym<integrity>(..)");
    }
}
