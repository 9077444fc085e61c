//! What the decoder is held to by property tests, the checked-in corpus and the fuzzer: `prost`, and a reading of the schema's own table.
//!
//! ```text
//!                    ┌─► decode::event ────────────────────► fault, or what was read ─┐
//!                    ├─► decode::event over `Watched` ─────► the same, nothing unlisted touched
//!  frame (any bytes) ┼─► Walk, over schemas' FIELDS ───────► the fault it must be     ├─► equal, or a panic
//!                    ├─► prost, allowlisted fields only ───► what must be read        │
//!                    └─► prost, the whole event.proto ─────► the same where it takes the frame
//! ```
//!
//! The decoder refuses what `prost` refuses in everything it reads. It differs on purpose in three ways, all of them checked:
//!
//! - *stricter*: groups (wire types 3 and 4) are malformed where `prost` would skip them;
//! - *stricter*: a known field that is not read, with another wire type than the schema's, is refused all the same;
//! - *laxer*: what is skipped is not looked at, so its UTF-8 or inner structure may be broken; and a number or version need not be UTF-8,
//!   because the canonical form, or two small numbers, are asked of it.

use prost::Message as _;
use starling_schemas::event as proto;
use starling_schemas::fields;

use super::{Accused, Body, Event, Members, event};

mod walk;

use walk::{Refused, Walk, Watched};

/// Messages whose inside is walked, with the field of `Event` that holds them.
pub(crate) const WALKED: &[(&str, u32)] = &[
    ("Client", fields::event::CLIENT),
    ("Choices", fields::event::CHOICES),
    ("MessageSent", fields::event::MESSAGE_SENT),
    ("CallEnded", fields::event::CALL_ENDED),
    ("StatusPosted", fields::event::STATUS_POSTED),
    ("FeatureUsed", fields::event::FEATURE_USED),
    ("AiInvoked", fields::event::AI_INVOKED),
    ("AppCrashed", fields::event::APP_CRASHED),
    ("GroupCreated", fields::event::GROUP_CREATED),
    ("MembersAdded", fields::event::MEMBERS_ADDED),
    ("GroupJoinedByLink", fields::event::GROUP_JOINED_BY_LINK),
    ("GroupLeft", fields::event::GROUP_LEFT),
    ("GroupProfileChanged", fields::event::GROUP_PROFILE_CHANGED),
    ("GroupReported", fields::event::GROUP_REPORTED),
    ("BusinessMessage", fields::event::BUSINESS_MESSAGE),
    ("UserBlocked", fields::event::USER_BLOCKED),
    ("ReportFiled", fields::event::REPORT_FILED),
    ("BusinessInformation", fields::event::BUSINESS_INFORMATION),
];

/// Panics where the decoder does not do with `frame` what the module's head says.
pub(crate) fn check(frame: &[u8]) {
    let mut walk = Walk::default();
    let expected = walk.message("Event", frame, 0..frame.len());
    let fault = expected.map_err(Refused::fault);

    let mut ours = Event::default();
    assert_eq!(event(frame, &mut ours), fault, "another outcome than the wire format and the schema's table give");
    let mut watched = Event::default();
    assert_eq!(event(Watched::new(frame, &walk.untouched), &mut watched), fault, "the watched walk goes another way");

    let (allowlisted, whole) = (Seen::decode(frame), proto::Event::decode(frame));
    match expected {
        Ok(()) => {
            let seen = Seen::of_ours(&ours);
            assert_eq!(seen, Seen::of_ours(&watched));
            let allowlisted = allowlisted.unwrap_or_else(|error| panic!("prost refuses what was read: {error}"));
            assert_eq!(seen, allowlisted.plain(), "prost reads something else");
            if let Ok(whole) = whole {
                assert_eq!(seen, Seen::of_prost(whole), "prost reads something else over the whole schema");
            }
        }
        Err(Refused::Group) => {}
        Err(Refused::WrongWireType) => assert!(whole.is_err(), "prost takes another wire type"),
        Err(Refused::Broken) => assert!(whole.is_err() && allowlisted.is_err(), "prost takes what we call malformed"),
    }
}

/// The allowlisted fields as a message of their own, for `prost` to read: every other field is unknown to it. Bodies of which only the
/// presence counts are bytes, so their inside is not looked at, and numbers are bytes, so they need not be text.
#[derive(Clone, PartialEq, prost::Message)]
struct Seen {
    #[prost(int64, tag = "1")]
    event_time_ms: i64,
    #[prost(bytes = "vec", tag = "2")]
    actor: Vec<u8>,
    #[prost(message, optional, tag = "4")]
    client: Option<SeenClient>,
    #[prost(message, optional, tag = "6")]
    choices: Option<SeenChoices>,
    #[prost(uint64, optional, tag = "7")]
    account_age_s: Option<u64>,
    #[prost(bytes = "vec", tag = "8")]
    cohort: Vec<u8>,
    #[prost(oneof = "SeenBody", tags = "16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32,33,34,35,36")]
    body: Option<SeenBody>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SeenClient {
    #[prost(int32, tag = "1")]
    platform: i32,
    /// In the compared form the two numbers, as [`named`] writes them.
    #[prost(bytes = "vec", tag = "2")]
    version: Vec<u8>,
}

/// A version as its two numbers, read and written in the plainest way; empty for what is none.
fn named(written: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(written);
    let parts: Vec<&str> = text.splitn(2, '.').collect();
    let &[major, rest] = &parts[..] else { return Vec::new() };
    let digits = rest.chars().take_while(char::is_ascii_digit).count();
    let (minor, rest) = rest.split_at(digits);
    let ends = rest.is_empty() || ['.', '-', '+', ' '].iter().any(|end| rest.starts_with(*end));
    let is_number = |part: &str| (1..=5).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
    if !ends || !is_number(major) || !is_number(minor) {
        return Vec::new();
    }
    let number = |part: &str| part.parse::<u32>().expect("five digits").min(255);
    pair(number(major), number(minor))
}

/// Two numbers as `26.4`; empty for `0.0`, which stands for none.
fn pair(major: u32, minor: u32) -> Vec<u8> {
    if (major, minor) == (0, 0) { Vec::new() } else { format!("{major}.{minor}").into_bytes() }
}

#[derive(Clone, PartialEq, prost::Message)]
struct SeenChoices {
    #[prost(bool, tag = "1")]
    analytics_consent: bool,
    #[prost(int32, tag = "2")]
    age_band: i32,
    #[prost(bool, tag = "3")]
    guardian_consent: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SeenMessage {
    #[prost(bytes = "vec", tag = "1")]
    to_person: Vec<u8>,
    #[prost(int32, tag = "5")]
    conversation: i32,
    #[prost(int32, tag = "6")]
    media: i32,
    #[prost(bool, tag = "8")]
    thread_is_new: bool,
    #[prost(bool, optional, tag = "10")]
    to_new_account: Option<bool>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SeenCall {
    #[prost(int32, tag = "2")]
    kind: i32,
    #[prost(uint32, tag = "3")]
    duration_s: u32,
    #[prost(int32, tag = "4")]
    quality: i32,
    #[prost(bool, tag = "5")]
    missed: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SeenSaid {
    #[prost(int32, tag = "1")]
    said: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SeenCreated {
    #[prost(bytes = "vec", tag = "1")]
    group: Vec<u8>,
    #[prost(uint32, tag = "2")]
    size: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SeenGroup {
    #[prost(bytes = "vec", tag = "1")]
    group: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SeenProfile {
    #[prost(bytes = "vec", tag = "1")]
    group: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    name_hash: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    description_hash: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    photo_hash: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SeenGroupReport {
    #[prost(bytes = "vec", tag = "1")]
    group: Vec<u8>,
    #[prost(int32, tag = "3")]
    rate: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SeenMembers {
    #[prost(bytes = "vec", tag = "1")]
    group: Vec<u8>,
    #[prost(uint32, tag = "2")]
    count: u32,
    #[prost(uint32, tag = "3")]
    strangers: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SeenBusiness {
    #[prost(int32, tag = "1")]
    stage: i32,
    #[prost(string, tag = "2")]
    business: String,
    #[prost(string, tag = "3")]
    portfolio: String,
    #[prost(string, tag = "4")]
    template: String,
    #[prost(int32, tag = "5")]
    category: i32,
    #[prost(int32, tag = "6")]
    tier: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SeenAccused {
    #[prost(bytes = "vec", tag = "1")]
    person: Vec<u8>,
    #[prost(string, tag = "2")]
    business: String,
    #[prost(int32, tag = "3")]
    rate: i32,
    #[prost(string, tag = "4")]
    template: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SeenReport {
    #[prost(bytes = "vec", tag = "1")]
    person: Vec<u8>,
    #[prost(string, tag = "2")]
    business: String,
    #[prost(bool, optional, tag = "4")]
    after_delivery: Option<bool>,
    #[prost(int32, tag = "5")]
    rate: i32,
    #[prost(string, tag = "6")]
    template: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SeenInformation {
    #[prost(string, tag = "1")]
    business: String,
    #[prost(string, tag = "2")]
    portfolio: String,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(int32, tag = "4")]
    category: i32,
    #[prost(int32, tag = "5")]
    tier: i32,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum SeenBody {
    #[prost(bytes, tag = "16")]
    AccountRegistered(Vec<u8>),
    #[prost(bytes, tag = "17")]
    AccountDeleted(Vec<u8>),
    #[prost(bytes, tag = "18")]
    ConsentChanged(Vec<u8>),
    #[prost(message, tag = "19")]
    MessageSent(SeenMessage),
    #[prost(message, tag = "20")]
    CallEnded(SeenCall),
    #[prost(message, tag = "21")]
    StatusPosted(SeenSaid),
    #[prost(bytes, tag = "22")]
    ChannelViewed(Vec<u8>),
    #[prost(message, tag = "23")]
    FeatureUsed(SeenSaid),
    #[prost(message, tag = "24")]
    AiInvoked(SeenSaid),
    #[prost(message, tag = "25")]
    AppCrashed(SeenSaid),
    #[prost(message, tag = "26")]
    GroupCreated(SeenCreated),
    #[prost(message, tag = "27")]
    MembersAdded(SeenMembers),
    #[prost(message, tag = "28")]
    GroupJoinedByLink(SeenGroup),
    #[prost(message, tag = "29")]
    GroupLeft(SeenGroup),
    #[prost(message, tag = "30")]
    GroupProfileChanged(SeenProfile),
    #[prost(message, tag = "31")]
    GroupReported(SeenGroupReport),
    #[prost(message, tag = "32")]
    BusinessMessage(SeenBusiness),
    #[prost(message, tag = "33")]
    UserBlocked(SeenAccused),
    #[prost(message, tag = "34")]
    ReportFiled(SeenReport),
    #[prost(message, tag = "35")]
    BusinessInformation(SeenInformation),
    #[prost(bytes, tag = "36")]
    ContactsUploaded(Vec<u8>),
}

impl Seen {
    /// The form in which two readings are compared: an absent message is one of defaults, and of some bodies only the presence counts.
    fn plain(mut self) -> Self {
        use SeenBody as S;
        let client = self.client.get_or_insert_default();
        client.version = named(&client.version);
        self.choices.get_or_insert_default();
        if let Some(
            S::AccountRegistered(inside)
            | S::AccountDeleted(inside)
            | S::ConsentChanged(inside)
            | S::ChannelViewed(inside)
            | S::ContactsUploaded(inside),
        ) = &mut self.body
        {
            inside.clear();
        }
        self
    }

    fn of_ours(event: &Event<'_>) -> Self {
        use SeenBody as S;
        let group = |members: &Members<'_>| SeenGroup { group: members.group.written().to_vec() };
        let accused = |accused: &Accused<'_>| SeenAccused {
            person: accused.person.written().to_vec(),
            business: accused.business.to_owned(),
            rate: accused.rate,
            template: accused.template.to_owned(),
        };
        let body = match &event.body {
            Body::Absent => None,
            Body::AccountRegistered => Some(S::AccountRegistered(Vec::new())),
            Body::AccountDeleted => Some(S::AccountDeleted(Vec::new())),
            Body::ConsentChanged => Some(S::ConsentChanged(Vec::new())),
            Body::MessageSent(message) => Some(S::MessageSent(SeenMessage {
                to_person: message.to_person.written().to_vec(),
                conversation: message.conversation,
                media: message.media,
                thread_is_new: message.thread_is_new,
                to_new_account: message.to_new_account,
            })),
            Body::CallEnded(call) => Some(S::CallEnded(SeenCall {
                kind: call.kind,
                duration_s: call.duration_s,
                quality: call.quality,
                missed: call.missed,
            })),
            Body::StatusPosted(said) => Some(S::StatusPosted(SeenSaid { said: said.0 })),
            Body::ChannelViewed => Some(S::ChannelViewed(Vec::new())),
            Body::FeatureUsed(said) => Some(S::FeatureUsed(SeenSaid { said: said.0 })),
            Body::AiInvoked(said) => Some(S::AiInvoked(SeenSaid { said: said.0 })),
            Body::AppCrashed(said) => Some(S::AppCrashed(SeenSaid { said: said.0 })),
            Body::GroupCreated(members) => {
                Some(S::GroupCreated(SeenCreated { group: members.group.written().to_vec(), size: members.count }))
            }
            Body::MembersAdded(members) => Some(S::MembersAdded(SeenMembers {
                group: members.group.written().to_vec(),
                count: members.count,
                strangers: members.strangers,
            })),
            Body::GroupJoinedByLink(members) => Some(S::GroupJoinedByLink(group(members))),
            Body::GroupLeft(members) => Some(S::GroupLeft(group(members))),
            Body::GroupProfileChanged(profile) => Some(S::GroupProfileChanged(SeenProfile {
                group: profile.group.written().to_vec(),
                name_hash: profile.name.to_vec(),
                description_hash: profile.description.to_vec(),
                photo_hash: profile.photo.to_vec(),
            })),
            Body::GroupReported(members) => {
                Some(S::GroupReported(SeenGroupReport { group: members.group.written().to_vec(), rate: members.rate }))
            }
            Body::BusinessMessage(message) => Some(S::BusinessMessage(SeenBusiness {
                stage: message.stage,
                business: message.business.to_owned(),
                portfolio: message.portfolio.to_owned(),
                template: message.template.to_owned(),
                category: message.category,
                tier: message.tier,
            })),
            Body::UserBlocked(whom) => Some(S::UserBlocked(accused(whom))),
            Body::ReportFiled(whom) => Some(S::ReportFiled(SeenReport {
                person: whom.person.written().to_vec(),
                business: whom.business.to_owned(),
                after_delivery: whom.after_delivery,
                rate: whom.rate,
                template: whom.template.to_owned(),
            })),
            Body::BusinessInformation(told) => Some(S::BusinessInformation(SeenInformation {
                business: told.business.to_owned(),
                portfolio: told.portfolio.to_owned(),
                name: told.name.to_owned(),
                category: told.category,
                tier: told.tier,
            })),
            Body::ContactsUploaded => Some(S::ContactsUploaded(Vec::new())),
        };
        let choices = event.choices;
        let [major, minor] = event.version.code().to_be_bytes();
        let version = pair(major.into(), minor.into());
        Self {
            event_time_ms: event.time_ms,
            actor: event.actor.written().to_vec(),
            client: Some(SeenClient { platform: event.platform, version }),
            choices: Some(SeenChoices {
                analytics_consent: choices.analytics_consent,
                age_band: choices.age_band,
                guardian_consent: choices.guardian_consent,
            }),
            account_age_s: event.account_age_s,
            cohort: event.cohort.written().to_vec(),
            body,
        }
    }

    fn of_prost(event: proto::Event) -> Self {
        use SeenBody as S;
        use proto::event::Body as P;
        let body = event.body.map(|body| match body {
            P::AccountRegistered(_) => S::AccountRegistered(Vec::new()),
            P::AccountDeleted(_) => S::AccountDeleted(Vec::new()),
            P::ConsentChanged(_) => S::ConsentChanged(Vec::new()),
            P::MessageSent(m) => S::MessageSent(SeenMessage {
                to_person: m.to_person.into_bytes(),
                conversation: m.conversation,
                media: m.media,
                thread_is_new: m.thread_is_new,
                to_new_account: m.to_new_account,
            }),
            P::CallEnded(m) => {
                S::CallEnded(SeenCall { kind: m.kind, duration_s: m.duration_s, quality: m.quality, missed: m.missed })
            }
            P::StatusPosted(m) => S::StatusPosted(SeenSaid { said: m.media }),
            P::ChannelViewed(_) => S::ChannelViewed(Vec::new()),
            P::FeatureUsed(m) => S::FeatureUsed(SeenSaid { said: m.feature }),
            P::AiInvoked(m) => S::AiInvoked(SeenSaid { said: m.surface }),
            P::AppCrashed(m) => S::AppCrashed(SeenSaid { said: m.site }),
            P::GroupCreated(m) => S::GroupCreated(SeenCreated { group: m.group, size: m.size }),
            P::MembersAdded(m) => S::MembersAdded(SeenMembers { group: m.group, count: m.count, strangers: m.strangers }),
            P::GroupJoinedByLink(m) => S::GroupJoinedByLink(SeenGroup { group: m.group }),
            P::GroupLeft(m) => S::GroupLeft(SeenGroup { group: m.group }),
            P::GroupProfileChanged(m) => S::GroupProfileChanged(SeenProfile {
                group: m.group,
                name_hash: m.name_hash,
                description_hash: m.description_hash,
                photo_hash: m.photo_hash,
            }),
            P::GroupReported(m) => S::GroupReported(SeenGroupReport { group: m.group, rate: m.rate }),
            P::BusinessMessage(m) => S::BusinessMessage(SeenBusiness {
                stage: m.stage,
                business: m.business,
                portfolio: m.portfolio,
                template: m.template,
                category: m.category,
                tier: m.tier,
            }),
            P::UserBlocked(m) => S::UserBlocked(SeenAccused {
                person: m.person.into_bytes(),
                business: m.business,
                rate: m.rate,
                template: m.template,
            }),
            P::ReportFiled(m) => S::ReportFiled(SeenReport {
                person: m.person.into_bytes(),
                business: m.business,
                after_delivery: m.after_delivery,
                rate: m.rate,
                template: m.template,
            }),
            P::BusinessInformation(m) => S::BusinessInformation(SeenInformation {
                business: m.business,
                portfolio: m.portfolio,
                name: m.name,
                category: m.category,
                tier: m.tier,
            }),
            P::ContactsUploaded(_) => S::ContactsUploaded(Vec::new()),
        });
        let (client, choices) = (event.client.unwrap_or_default(), event.choices.unwrap_or_default());
        Self {
            event_time_ms: event.event_time_ms,
            actor: event.actor.into_bytes(),
            client: Some(SeenClient { platform: client.platform, version: named(client.version.as_bytes()) }),
            choices: Some(SeenChoices {
                analytics_consent: choices.analytics_consent,
                age_band: choices.age_band,
                guardian_consent: choices.guardian_consent,
            }),
            account_age_s: event.account_age_s,
            cohort: event.cohort,
            body,
        }
    }
}
