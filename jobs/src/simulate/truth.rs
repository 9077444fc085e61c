//! What really happened. Only the simulator knows it: it is for comparing, and no room may read it.
//!
//! The true values are exact and unbounded: nobody's contribution is clamped, no noise, no threshold.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use starling_schemas::codes::{AccountAge, Activity, ClientVersion, Conversation, Detail, PlatformCode, detail_name};
use starling_schemas::ids::EpochId;

/// What was planted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PlantedKind {
    /// 1,000 to 1,500 messages of one sender within 60 seconds.
    FastBulk,
    /// 100 to 140 messages within 15 seconds by an account younger than five minutes.
    NewAccountBurst,
    /// A business of tier 250 that writes to a multiple of that in one day.
    BusinessReach,
    /// A business that stays within its tier, and that a third of those it writes to block or report.
    UnwantedBusiness,
    /// 100 to 200 strangers added to a group in less than ten minutes.
    GroupMassAdd,
    /// 999 messages within 60 seconds, one short of bulk.
    NearMissBulk,
    /// 99 messages within 15 seconds by an account younger than five minutes.
    NearMissNewAccount,
    /// 80 known people added to a group within an hour.
    WeddingHost,
    /// Two dozen people joining a group by link in a morning.
    SchoolGroup,
    /// 300 messages in known threads in an evening.
    LongEvening,
    /// A business that sends passcodes to a fifth of all people every day: wanted, and never answered.
    PasscodeSender,
}

/// Something planted: an abuser that should be found, or somebody who only looks like one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Planted {
    /// What it does.
    pub(crate) kind: PlantedKind,
    /// The rule that should fire; none for who must not be alerted on.
    pub(crate) expected_rule: Option<String>,
    /// `sender`, `business` or `group`.
    pub(crate) subject_kind: String,
    /// E.164 number, business identifier, or group identifier in hex.
    pub(crate) subject: String,
    /// First event, milliseconds since 1970-01-01 UTC.
    pub(crate) start_ms: i64,
    /// Last event.
    pub(crate) end_ms: i64,
    /// Messages, people reached, blocks and reports, strangers or members added: what the kind counts.
    pub(crate) count: u64,
}

/// True people served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PeopleServed {
    /// ISO 3166-1 letters of the calling code.
    pub(crate) country: String,
    /// Platform name.
    pub(crate) platform: String,
    /// People who did something.
    pub(crate) people: u64,
}

/// True messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Messages {
    /// ISO 3166-1 letters of the calling code.
    pub(crate) country: String,
    /// Conversation kind.
    pub(crate) conversation_kind: String,
    /// Messages sent.
    pub(crate) messages: u64,
}

/// True duration of calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CallSeconds {
    /// ISO 3166-1 letters of the calling code.
    pub(crate) country: String,
    /// Seconds of calls that ended.
    pub(crate) seconds: u64,
}

/// True number of events of a kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Activities {
    /// Activity.
    pub(crate) activity: String,
    /// Its detail: media kind, quality, feature, place, category, size; or `none`.
    pub(crate) detail: String,
    /// Whether the account was in its first week.
    pub(crate) account: String,
    /// Countable events.
    pub(crate) events: u64,
}

/// True people with a version of the client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VersionPeople {
    /// Platform name.
    pub(crate) platform: String,
    /// Major and minor.
    pub(crate) version: String,
    /// People who did something with it.
    pub(crate) people: u64,
}

/// One UTC day. Groups without anything are left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DayTruth {
    /// `YYYY-MM-DD`.
    pub(crate) day: String,
    /// Readable events.
    pub(crate) events: u64,
    /// Those of them that statistics may count.
    pub(crate) countable: u64,
    /// `stats.people_served_daily`.
    pub(crate) people_served: Vec<PeopleServed>,
    /// `stats.messages_daily`.
    pub(crate) messages: Vec<Messages>,
    /// `stats.call_minutes_daily`, in seconds.
    pub(crate) call_seconds: Vec<CallSeconds>,
    /// Countable events by activity, detail and account.
    #[serde(default)]
    pub(crate) activities: Vec<Activities>,
    /// People by version. A person has one version of a platform's client for a whole day.
    #[serde(default)]
    pub(crate) versions: Vec<VersionPeople>,
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Truth {
    /// Who was simulated or replayed.
    pub(crate) people: u64,
    /// Seed, where there is one.
    pub(crate) seed: Option<u64>,
    /// Everything handed out.
    pub(crate) frames: u64,
    /// Readable events among it.
    pub(crate) events: u64,
    /// Unreadable frames by the fault they should be quarantined for.
    pub(crate) bad_frames: BTreeMap<String, u64>,
    /// Readable events by kind.
    pub(crate) events_by_kind: BTreeMap<String, u64>,
    /// Abusers that should be found.
    pub(crate) abusers: Vec<Planted>,
    /// Those who must not be alerted on.
    pub(crate) harmless: Vec<Planted>,
    /// Per day, in order.
    pub(crate) days: Vec<DayTruth>,
}

/// What one event adds to the truth.
#[derive(Debug, Clone, Copy)]
pub(super) struct Observation {
    /// The person's place in the table of who was seen today.
    pub(super) slot: u32,
    /// Index into the countries the counter was made with.
    pub(super) country: u8,
    pub(super) platform: PlatformCode,
    pub(super) version: ClientVersion,
    pub(super) account: AccountAge,
    /// Place of the event kind in [`EVENT_KINDS`].
    pub(super) kind: usize,
    /// What statistics see; `None` for what they may not count, for whatever reason.
    pub(super) countable: Option<Activity>,
    pub(super) detail: Detail,
    /// Duration of a call.
    pub(super) seconds: u32,
}

/// Names of the event kinds, in the order of their field numbers.
pub(super) const EVENT_KINDS: [&str; 21] = [
    "account_registered",
    "account_deleted",
    "consent_changed",
    "message_sent",
    "call_ended",
    "status_posted",
    "channel_viewed",
    "feature_used",
    "ai_invoked",
    "app_crashed",
    "group_created",
    "members_added",
    "group_joined_by_link",
    "group_left",
    "group_profile_changed",
    "group_reported",
    "business_message",
    "user_blocked",
    "report_filed",
    "business_information",
    "contacts_uploaded",
];

const PLATFORMS: usize = PlatformCode::ALL.len();
const CONVERSATIONS: usize = Conversation::ALL.len();

#[derive(Debug, Clone, Copy, Default)]
struct CountryDay {
    served: [u64; PLATFORMS],
    messages: [u64; CONVERSATIONS],
    seconds: u64,
}

/// Counts as events are handed out, in time order. Memory: a byte a person.
#[derive(Debug)]
pub(super) struct Counter {
    countries: Vec<&'static str>,
    day: EpochId,
    seen: Vec<u8>,
    by_country: Vec<CountryDay>,
    activities: BTreeMap<(Activity, Detail, AccountAge), u64>,
    versions: BTreeMap<(PlatformCode, ClientVersion), u64>,
    events: u64,
    countable: u64,
    kinds: [u64; EVENT_KINDS.len()],
    days: Vec<DayTruth>,
}

impl Counter {
    pub(super) fn new(countries: Vec<&'static str>, slots: usize, first: EpochId) -> Self {
        Self {
            by_country: vec![CountryDay::default(); countries.len()],
            countries,
            day: first,
            seen: vec![0; slots],
            activities: BTreeMap::new(),
            versions: BTreeMap::new(),
            events: 0,
            countable: 0,
            kinds: [0; EVENT_KINDS.len()],
            days: Vec::new(),
        }
    }

    /// Counts one readable event. Days must not go back.
    pub(super) fn observe(&mut self, time_ms: i64, o: &Observation) {
        let day = EpochId::of(time_ms);
        if day > self.day {
            self.end_day();
            self.day = day;
        }
        self.events += 1;
        if let Some(count) = self.kinds.get_mut(o.kind) {
            *count += 1;
        }
        let Some(activity) = o.countable else { return };
        self.countable += 1;
        *self.activities.entry((activity, o.detail, o.account)).or_default() += 1;
        let Some(country) = self.by_country.get_mut(usize::from(o.country)) else { return };
        if activity.is_active()
            && let Some(seen) = self.seen.get_mut(o.slot as usize)
        {
            let bit = 1u8 << o.platform.code();
            if *seen & bit == 0 {
                *seen |= bit;
                country.served[usize::from(o.platform.code())] += 1;
                *self.versions.entry((o.platform, o.version)).or_default() += 1;
            }
        }
        if let Some(conversation) = activity.conversation() {
            country.messages[usize::from(conversation.code()) - 1] += 1;
        }
        country.seconds += u64::from(o.seconds);
    }

    fn end_day(&mut self) {
        let mut day = DayTruth {
            day: self.day.to_string(),
            events: self.events,
            countable: self.countable,
            people_served: Vec::new(),
            messages: Vec::new(),
            call_seconds: Vec::new(),
            activities: Vec::new(),
            versions: Vec::new(),
        };
        for ((activity, detail, account), events) in std::mem::take(&mut self.activities) {
            let detail = detail_name(activity, detail.code()).to_owned();
            let (activity, account) = (activity.name().to_owned(), account.name().to_owned());
            day.activities.push(Activities { activity, detail, account, events });
        }
        for ((platform, version), people) in std::mem::take(&mut self.versions) {
            day.versions.push(VersionPeople { platform: platform.name().to_owned(), version: version.to_string(), people });
        }
        for (name, counts) in self.countries.iter().zip(&self.by_country) {
            let country = (*name).to_owned();
            for (platform, people) in PlatformCode::ALL.iter().zip(counts.served).filter(|(_, n)| *n > 0) {
                day.people_served.push(PeopleServed { country: country.clone(), platform: platform.name().to_owned(), people });
            }
            for (kind, messages) in Conversation::ALL.iter().zip(counts.messages).filter(|(_, n)| *n > 0) {
                day.messages.push(Messages { country: country.clone(), conversation_kind: kind.name().to_owned(), messages });
            }
            if counts.seconds > 0 {
                day.call_seconds.push(CallSeconds { country, seconds: counts.seconds });
            }
        }
        self.days.push(day);
        self.events = 0;
        self.countable = 0;
        self.seen.fill(0);
        self.by_country.fill(CountryDay::default());
    }

    /// Ends the last day and adds everything to `truth`.
    pub(super) fn finish(mut self, truth: &mut Truth) {
        self.end_day();
        truth.events = self.kinds.iter().sum();
        truth.frames = truth.events + truth.bad_frames.values().sum::<u64>();
        truth.events_by_kind =
            EVENT_KINDS.iter().zip(self.kinds).filter(|(_, n)| *n > 0).map(|(kind, n)| ((*kind).to_owned(), n)).collect();
        truth.days = self.days;
    }
}

#[cfg(test)]
mod tests {
    use starling_schemas::codes::Media;

    use super::*;

    #[test]
    fn a_person_counts_once_a_day_and_platform() {
        let mut counter = Counter::new(vec!["DE", "IN"], 3, EpochId(10));
        let mut event = Observation {
            slot: 1,
            country: 1,
            platform: PlatformCode::Web,
            version: ClientVersion::new(2, 44),
            account: AccountAge::Older,
            kind: 3,
            countable: Some(Activity::MessageGroup),
            detail: Media::Sticker.into(),
            seconds: 0,
        };
        for time in [0, 5, 86_400_000] {
            counter.observe(EpochId(10).start_ms() + time, &event);
        }
        event.countable = None;
        counter.observe(EpochId(11).start_ms() + 9, &event);
        event.countable = Some(Activity::BusinessSent);
        event.slot = 2;
        counter.observe(EpochId(11).start_ms() + 9, &event);
        let mut truth = Truth::default();
        counter.finish(&mut truth);
        assert_eq!(truth.days.len(), 2);
        for day in &truth.days {
            assert_eq!(day.people_served, [PeopleServed { country: "IN".into(), platform: "web".into(), people: 1 }]);
        }
        let [versions] = &truth.days[0].versions[..] else { panic!("one version") };
        assert_eq!((&*versions.platform, &*versions.version, versions.people), ("web", "2.44", 1));
        let [stickers] = &truth.days[0].activities[..] else { panic!("one kind") };
        assert_eq!((&*stickers.activity, &*stickers.detail, &*stickers.account), ("message_group", "sticker", "older"));
        assert_eq!(stickers.events, 2);
        assert_eq!(truth.days[0].messages[0].messages, 2);
        assert_eq!((truth.days[1].events, truth.days[1].countable), (3, 2));
        assert_eq!(truth.events, 5);
    }
}
