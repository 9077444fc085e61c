//! What comes in and goes out, and what is held of whom.

use starling_schemas::ids::{DAY_MS, EpochId};

/// Longest time evidence is added up.
const MOST_DAYS: i64 = 14;

/// Its answer came in time.
pub(super) const ANSWERED: u32 = 1 << 31;
/// Taken for a pair that was in touch before.
pub(super) const KNOWN: u32 = 1 << 30;
/// Two bits of segment stand from here on.
pub(super) const SEGMENT_SHIFT: u32 = 28;
/// Its answer came within the hour.
pub(super) const SOON: u32 = 1 << 27;
/// Its first hour has been looked at.
pub(super) const LOOKED_AT: u32 = 1 << 26;
/// The bits of the owner's place; all of them set for none.
pub(super) const OWNER: u32 = (1 << 26) - 1;

/// A token of (a→b). No `Debug` of the value: tokens are not logged.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pair(pub u64);

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pair(..)")
    }
}

/// A one-to-one message of a person, as its sender's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contact {
    /// Event time, in milliseconds since 1970-01-01 UTC.
    pub time_ms: i64,
    /// The sender under the integrity key of the event's day; in a copy, of the day before.
    pub person: [u8; 16],
    /// Whether this is the copy under the day before's pseudonym. It comes before the contact itself and counts for nothing else.
    pub overlap: bool,
    /// (a→b) under the pair key of the event's day.
    pub pair: Pair,
    /// (a→b) under the pair key of the day before.
    pub pair_before: Pair,
    /// Seconds since the sender's account was registered, if known.
    pub account_age_s: Option<u64>,
    /// The cohort the sender's account was registered in, if known, under the key that the sender is under.
    pub cohort: Option<[u8; 16]>,
    /// Whether the account written to is of its first week, if known.
    pub to_new_account: Option<bool>,
}

/// The same message, as a possible answer: nobody is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answered {
    /// Event time, in milliseconds since 1970-01-01 UTC.
    pub time_ms: i64,
    /// The reverse direction under the pair key of the event's day: of b's message to a, (a→b).
    pub pair: Pair,
    /// The same under the pair key of the day before.
    pub pair_before: Pair,
}

/// An answer to a contact of a member of a cohort, after the hour and within the day; kept until the contact's day is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LateAnswer {
    /// The first of them, in seconds since 1970.
    pub(super) at_s: u32,
    /// Whether it has been taken in.
    pub(super) is_counted: bool,
}

/// A sender over the threshold, as the counters of its record say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crossing {
    /// Its newest pseudonym.
    pub person: [u8; 16],
    /// Day of the key the pseudonym is under.
    pub epoch: i32,
    /// Contacts that were not answered within a day, since the sum was zero.
    pub unanswered: u32,
    /// Contacts that were.
    pub answered: u32,
    /// p₀ of the record, in thousandths.
    pub expected_permille: u16,
    /// How old the sender's account was at the last of these contacts.
    pub segment: Segment,
    /// `unanswered × gain − answered × loss`, in thousandths of a nat.
    pub score: i32,
    /// First of these contacts, in milliseconds since 1970-01-01 UTC.
    pub first_ms: i64,
    /// Last of them.
    pub last_ms: i64,
}

/// Senders that p₀ is measured of together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segment {
    /// Nobody said when the account was registered.
    Unknown = 0,
    /// Registered within the last week.
    FirstWeek = 1,
    /// Registered within the last 90 days.
    FirstMonths = 2,
    /// Older.
    Old = 3,
}

impl Segment {
    /// The one of an account of this age.
    pub(super) fn of(account_age_s: Option<u64>) -> Self {
        match account_age_s.map(|s| s / 86_400) {
            None => Self::Unknown,
            Some(0..=6) => Self::FirstWeek,
            Some(7..=89) => Self::FirstMonths,
            Some(_) => Self::Old,
        }
    }

    /// The one of this number; the last two bits decide.
    pub(super) const fn from_bits(bits: u32) -> Self {
        match bits & 3 {
            0 => Self::Unknown,
            1 => Self::FirstWeek,
            2 => Self::FirstMonths,
            _ => Self::Old,
        }
    }

    /// As an explanation says it.
    #[must_use]
    pub const fn accounts(self) -> &'static str {
        match self {
            Self::Unknown => "accounts of unknown age",
            Self::FirstWeek => "accounts in their first week",
            Self::FirstMonths => "accounts of 7 to 89 days",
            Self::Old => "accounts of 90 days and more",
        }
    }
}

/// What was left out, and what is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SlowFigures {
    /// Suspects held.
    pub suspects: usize,
    /// Contacts that wait for their answer.
    pub waiting: usize,
    /// Bytes of both, of the screen and of the filters.
    pub bytes: usize,
    /// Records dropped because there were too many.
    pub dropped: u64,
    /// Rows whose pair key was over already.
    pub late: u64,
}

/// Gain and loss of a contact, in thousandths of a nat, where `p0` thousandths are answered.
#[must_use]
#[allow(clippy::cast_possible_truncation)]
pub fn increments(p0_permille: u16) -> (i32, i32) {
    let p0 = f64::from(p0_permille.clamp(1, 999)) / 1000.0;
    let p1 = p0 / 5.0;
    // Rounded against an alert.
    let gain = ((1.0 - p1) / (1.0 - p0)).ln() * 1000.0;
    let loss = (p0 / p1).ln() * 1000.0;
    (gain.floor() as i32, loss.ceil() as i32)
}

/// One suspect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Suspect {
    pub(super) person: [u8; 16],
    /// The pseudonym of the day before, if the record was its.
    pub(super) before: [u8; 16],
    pub(super) epoch: i32,
    pub(super) score: i32,
    pub(super) unanswered: u32,
    pub(super) answered: u32,
    /// New contacts of it that wait.
    pub(super) fresh: u32,
    /// The first contact since the sum was zero, in seconds since 1970.
    pub(super) first_s: u32,
    /// Minute of the epoch at which the newest pseudonym took over from the one before; [`NEVER`] if none was there before.
    pub(super) since_minute: u16,
    /// p₀ since the sum was zero; 0 while it is.
    pub(super) p0_permille: u16,
}
const _: () = assert!(size_of::<Option<Suspect>>() <= 64);

/// No pseudonym before the newest one.
pub(super) const NEVER: u16 = u16::MAX;

impl Suspect {
    pub(super) const fn new(person: [u8; 16], epoch: i32) -> Self {
        Self {
            person,
            before: [0; 16],
            epoch,
            score: 0,
            unanswered: 0,
            answered: 0,
            fresh: 0,
            first_s: 0,
            since_minute: NEVER,
            p0_permille: 0,
        }
    }

    /// Whether there is, or may soon be, evidence. A record without is erased within the hour, and until then as good as none.
    pub(super) const fn is_live(&self) -> bool {
        self.fresh > 0 || self.p0_permille != 0
    }

    /// Goes on under the next day's pseudonym.
    pub(super) fn renamed(self, person: [u8; 16], epoch: i32, time_ms: i64) -> Self {
        let minute = (time_ms - EpochId(epoch).start_ms()).div_euclid(60_000);
        Self { person, epoch, before: self.person, since_minute: u16::try_from(minute).unwrap_or(NEVER), ..self }
    }

    /// The pseudonym that was the newest at this time, and its epoch: an alert's name must not depend on how late it is judged.
    pub(super) fn named(&self, at_ms: i64) -> ([u8; 16], i32) {
        let since_ms = EpochId(self.epoch).start_ms() + i64::from(self.since_minute) * 60_000;
        if self.since_minute != NEVER && at_ms < since_ms { (self.before, self.epoch - 1) } else { (self.person, self.epoch) }
    }

    /// Forgets all evidence.
    pub(super) fn erase(&mut self) {
        (self.score, self.unanswered, self.answered, self.first_s, self.p0_permille) = (0, 0, 0, 0, 0);
    }

    /// Takes in one contact whose day is over. Whether it found the sum at zero.
    pub(super) fn judge(&mut self, at_s: u32, was_answered: bool, p0_permille: u16) -> bool {
        let too_long = i64::from(at_s) - i64::from(self.first_s) > MOST_DAYS * DAY_MS / 1000;
        if self.p0_permille != 0 && too_long {
            self.erase();
        }
        let begins = self.p0_permille == 0;
        if begins {
            if was_answered {
                return begins;
            }
            (self.p0_permille, self.first_s) = (p0_permille, at_s);
        }
        let (gain, loss) = increments(self.p0_permille);
        if was_answered {
            self.answered += 1;
            self.score = self.score.saturating_sub(loss);
        } else {
            self.unanswered += 1;
            self.score = self.score.saturating_add(gain);
        }
        if self.score <= 0 {
            self.erase();
        }
        begins
    }
}

/// A contact that waits for its answer; its pair is the key it is kept under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) at_s: u32,
    /// Place of its suspect, segment, and two flags.
    pub(super) packed: u32,
}
const _: () = assert!(size_of::<(Pair, Waiting)>() == 16);

impl Waiting {
    pub(super) const fn has(self, flag: u32) -> bool {
        self.packed & flag != 0
    }
    /// Its suspect's place; of a contact that is in the pool only, none.
    pub(super) fn owner(self) -> Option<usize> {
        let place = self.packed & OWNER;
        if place == OWNER { None } else { usize::try_from(place).ok() }
    }
    pub(super) const fn segment(self) -> Segment {
        Segment::from_bits(self.packed >> SEGMENT_SHIFT)
    }
}

/// New contacts of one pseudonym; another's takes the place when this one's count has been used up by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Screened {
    pub(super) tag: u64,
    pub(super) epoch: i32,
    pub(super) count: u32,
}

/// Answered first contacts of one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Pool {
    pub(super) contacts: u32,
    pub(super) answered: u32,
    /// Answered within the hour.
    pub(super) soon: u32,
    /// p₀ in use, in thousandths: renewed when a day begins.
    pub(super) p0_permille: u16,
}

/// Where a partition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reached {
    pub(super) newest_ms: i64,
    pub(super) touched: u32,
}
