//! What really happened. Only the simulator knows it: it is for comparing, and no room may read it.
//!
//! The true values are exact and unbounded: nobody's contribution is clamped, no noise, no threshold.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use starling_schemas::codes::{AccountAge, Activity, ClientVersion, Conversation, Detail, PlatformCode, detail_name};
use starling_schemas::ids::{EpochId, Span, WindowId};

/// What was planted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PlantedKind {
    /// 1,000 to 1,500 messages of one sender within 60 seconds.
    FastBulk,
    /// 100 to 140 messages within 15 seconds by an account younger than five minutes.
    NewAccountBurst,
    /// A business of tier 250 that writes to a multiple of that in one day: from the message on that is beyond it.
    BusinessReach,
    /// A business that stays within its tier, and that a third of those it writes to block or report.
    UnwantedBusiness,
    /// A business that does as it always does, and that 60 to 180 people whom it never wrote to report within three hours: they are who is found.
    Brigade,
    /// 100 to 200 strangers added to a group in less than ten minutes.
    GroupMassAdd,
    /// 999 messages within 60 seconds, one short of bulk.
    NearMissBulk,
    /// 99 messages within 15 seconds by an account younger than five minutes.
    NearMissNewAccount,
    /// 208 known people added to a group within an hour.
    WeddingHost,
    /// Two dozen people joining a group by link in a morning.
    SchoolGroup,
    /// 300 messages in known threads in an evening.
    LongEvening,
    /// A business that sends passcodes to a fifth of all people every day: wanted, and never answered.
    PasscodeSender,
    /// 40 strangers a day over the working day, every day, of whom one in fifty answers: under every limit. In simulations of five days and more.
    SlowBulk,
    /// As many new people a day, of whom seven in ten answer within hours: somebody who organises something.
    Organiser,
    /// One of 30 to 60 accounts that were registered together, each with ten strangers a day of whom one in fifty answers. In simulations of five days
    /// and more.
    Coordinated,
    /// 30 new people a day, of whom three in ten are accounts of its own making that answer, each less than a week old. In simulations of five days
    /// and more.
    BoughtReplies,
    /// One of up to ten for each of those, registered with them, who writes to new people as newcomers do and is answered as others are.
    Newcomer,
    /// 12 strangers a day, every day, of whom one in fifty answers. In simulations of ten days and more, as those below.
    PatientBulk,
    /// 150 to 400 people who join a group by its link within twenty minutes: the link is handed round.
    InviteHopping,
    /// 60 people written to anew in three hours, most of whom answer: somebody with a new phone.
    NewPhone,
    /// The airline on the day on which it writes to half of all people: wanted, and little answered.
    AirlineBadDay,
    /// A number that was never seen, in the portfolio of two shops, that writes to 700 to 1,000 people in half a day, within the limit it is given.
    FreshNumber,
    /// Such a number that writes to 150 to 400 people: a new branch.
    NewBranch,
    /// 60 accounts that were registered together the day before, that a business writes to, and that block or report it within three hours.
    NewcomerBrigade,
    /// An account that creates 15 to 60 groups within one to four hours; each third one was registered the day before.
    GroupCreator,
    /// A group whose photo, name, or both are on the operator's lists.
    ListedGroup,
    /// 6 to 9 groups created within an hour, for the classes of a school.
    SchoolSecretary,
    /// A group of nobody's concern that has a name which is on a list.
    CommonName,
    /// 60 to 80 older accounts that a business writes to as to others, and that block or report it within three hours: by turns out of two cohorts, and
    /// such as object all the time.
    OptedInBrigade,
    /// A shop that did as shops do for days, and begins a new template: 100 to 180 messages within 20 to 90 minutes, which 10 to 30 % of those who get them
    /// block or report within minutes to hours. In simulations of ten days and more.
    UnwantedTemplate,
    /// Such a template that 1 to 6 people in a thousand block or report.
    NewTemplate,
    /// A group of nobody's concern that 40 to 80 older accounts report within an hour and a half: by turns out of two cohorts, and such as object all the
    /// time.
    GroupBrigade,
    /// A group that 60 to 100 ordinary people report within 50 minutes.
    UnwantedGroup,
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

/// True people served in an hour, a week or a month, or in as much of it as was simulated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LongTruth {
    /// `hour-YYYY-MM-DDTHH`, or `week-YYYY-MM-DD` or `month-YYYY-MM-DD` by its first day.
    pub(crate) window: String,
    /// People who did something.
    pub(crate) people: u64,
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
    /// Lines of the lists that some groups' hashes are on: what `integrity.group_hashes` is to hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) group_hashes: Vec<String>,
    /// Per day, in order.
    pub(crate) days: Vec<DayTruth>,
    /// `stats.people_served_weekly` and `stats.people_served_monthly`, in the order in which they ended.
    #[serde(default)]
    pub(crate) long: Vec<LongTruth>,
    /// `stats.people_served_hourly`, where hours are kept, in order; hours that nothing happened in may be left out.
    #[serde(default)]
    pub(crate) hours: Vec<LongTruth>,
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

/// Windows of which only who was seen is known.
const OF_PRESENCE: [Span; 3] = [Span::Hour, Span::Week, Span::Month];

/// Who was seen in the present hour, week or month.
#[derive(Debug)]
struct Long {
    window: WindowId,
    seen: Vec<bool>,
    people: u64,
}

impl Long {
    fn new(window: WindowId, slots: usize) -> Self {
        Self { window, seen: vec![false; slots], people: 0 }
    }

    fn see(&mut self, slot: u32) {
        if let Some(seen) = self.seen.get_mut(slot as usize) {
            self.people += u64::from(!std::mem::replace(seen, true));
        }
    }
}

/// Counts as events are handed out, in time order. Memory: four bytes a person.
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
    hour: EpochId,
    current: [Long; OF_PRESENCE.len()],
    long: Vec<LongTruth>,
    hours: Vec<LongTruth>,
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
            hour: Span::Hour.of(first).epoch,
            current: OF_PRESENCE.map(|span| Long::new(span.of(first), slots)),
            long: Vec::new(),
            hours: Vec::new(),
        }
    }

    /// Counts one readable event. Days must not go back.
    pub(super) fn observe(&mut self, time_ms: i64, o: &Observation) {
        let day = EpochId::of(time_ms);
        if day > self.day {
            self.end_day();
            self.day = day;
        }
        let hour = EpochId::hour_of(time_ms);
        if hour > self.hour {
            self.hour = hour;
            for number in 0..self.current.len() {
                self.end_long(number, Some(hour));
            }
        }
        self.events += 1;
        if let Some(count) = self.kinds.get_mut(o.kind) {
            *count += 1;
        }
        let Some(activity) = o.countable else { return };
        self.countable += 1;
        *self.activities.entry((activity, o.detail, o.account)).or_default() += 1;
        let Some(country) = self.by_country.get_mut(usize::from(o.country)) else { return };
        if activity.is_active() {
            self.current.iter_mut().for_each(|long| long.see(o.slot));
        }
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

    /// Ends an hour, week or month that the hour `next` is not in, or which nothing follows.
    fn end_long(&mut self, number: usize, next: Option<EpochId>) {
        let Some(long) = self.current.get_mut(number) else { return };
        if next.is_none_or(|next| !long.window.has(next)) {
            let ended = if long.window.span == Span::Hour { &mut self.hours } else { &mut self.long };
            ended.push(LongTruth { window: long.window.to_string(), people: long.people });
            let window = long.window.span.of(next.unwrap_or(long.window.epoch));
            *long = Long::new(window, long.seen.len());
        }
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
        for number in 0..self.current.len() {
            self.end_long(number, None);
        }
        (truth.long, truth.hours) = (self.long, self.hours);
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
        // 1970-01-11, a Sunday, and the day after: each week has one person, and the month, too.
        let long: Vec<_> = truth.long.iter().map(|long| (&*long.window, long.people)).collect();
        let hours: Vec<_> = truth.hours.iter().map(|hour| (&*hour.window, hour.people)).collect();
        assert_eq!(hours, [("hour-1970-01-11T00", 1), ("hour-1970-01-12T00", 1)]);
        assert_eq!(long, [("week-1970-01-05", 1), ("week-1970-01-12", 1), ("month-1969-12-29", 1)]);
    }
}
