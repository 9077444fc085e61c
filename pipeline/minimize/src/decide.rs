//! What becomes of an event: pure decisions over what was read, without keys, clocks or output.
//!
//! The order is fixed, so that an event has exactly one outcome (I1):
//!
//! 1. [`read`] (quarantine): empty; too large; undecodable; time missing or out of range; no body, or a kind of it, that this version
//!    knows; an actor that is no number.
//! 2. [`gate`] (refusal): an address book; a kind that serves safety or billing only; nobody to count; age unknown, or a minor; no
//!    consent.
//! 3. By the minimizer, with keys: late; else counted.
//!
//! [`signal`], [`bill`] and [`account`] stand beside 2 and 3: neither safety nor billing asks for analytics consent (P23, P35), so refused and late
//! events still give a signal, and are billed. What a business says of itself is about no person, whoever said it (P34).

use std::borrow::Cow;

use starling_schemas::codes::{
    AccountAge, Activity, CallQuality, Category, Conversation, Country, CrashSite, Detail, Fault, Feature, GroupSize, Media,
    ProfileField, Refusal, ReporterRate, SignalKind, Tier,
};
use starling_schemas::ids::EpochId;

use crate::account::{Told, one_line};
use crate::bill::Bill;
use crate::decode::{self, Accused, Body, CallEnded, Choices, Event, Profile, RawGroup};
use crate::listed::GroupLists;
use crate::phone::Phone;

/// `AgeBand` of `event.proto`.
const AGE_UNDER_13: i32 = 1;
const AGE_FROM_13_TO_17: i32 = 2;
const AGE_ADULT: i32 = 3;

/// `BusinessStage` of `event.proto`.
const STAGE_SENT: i32 = 1;
const STAGE_DELIVERED: i32 = 2;
const STAGE_READ: i32 = 3;
const STAGE_REPLIED: i32 = 4;

/// Bounds a frame must keep.
pub(crate) struct Bounds {
    pub(crate) max_event_bytes: usize,
    pub(crate) earliest_ms: i64,
    pub(crate) latest_ms: i64,
}

/// What statistics may do with a kind of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// Count it as this.
    Count(Happened),
    /// Safety or billing only (P6).
    NotForAnalytics,
    /// Nothing at all (P5).
    ContactList,
}

/// What statistics are told of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Happened {
    pub(crate) activity: Activity,
    /// Of the activity's own closed list.
    pub(crate) detail: Detail,
    /// Duration of a call, else 0.
    pub(crate) seconds: u32,
}

/// The subject and use of a readable event.
pub(crate) struct Readable {
    /// The person it is about; `None` for guests and for businesses' own events.
    pub(crate) actor: Option<Phone>,
    pub(crate) purpose: Use,
}

/// Reads a frame into an empty event, or says why it cannot be read.
#[inline]
pub(crate) fn read<'a>(frame: &'a [u8], bounds: &Bounds, event: &mut Event<'a>) -> Result<Readable, Fault> {
    if frame.is_empty() {
        return Err(Fault::Empty);
    }
    if frame.len() > bounds.max_event_bytes {
        return Err(Fault::TooLarge);
    }
    decode::event(frame, event)?;
    // An absent time is 0 in protobuf, so 0 is no time, whatever the bounds say.
    if event.time_ms == 0 || event.time_ms < bounds.earliest_ms || event.time_ms > bounds.latest_ms {
        return Err(Fault::TimeOutOfRange);
    }
    let purpose = purpose(&event.body).ok_or(Fault::UnknownEvent)?;
    let actor = match event.actor.canonical() {
        Some(actor) => Some(actor),
        // What a business says of itself is nobody's: whatever stands there is not looked at further.
        None if event.actor.is_absent() || matches!(event.body, Body::BusinessInformation(_)) => None,
        None => return Err(Fault::InvalidNumber),
    };
    Ok(Readable { actor, purpose })
}

/// What a body may be used for; `None` where this version cannot say what happened: no body, or a message, call or stage of a
/// kind it does not know (P60: nothing is guessed).
#[inline]
pub(crate) fn purpose(body: &Body<'_>) -> Option<Use> {
    let (activity, detail, seconds) = match body {
        Body::Absent => return None,
        Body::AccountRegistered => (Activity::AccountRegistered, Detail::NONE, 0),
        Body::MessageSent(message) => {
            let activity = match Conversation::from_code(u8::try_from(message.conversation).ok()?)? {
                Conversation::Person => Activity::MessagePerson,
                Conversation::Group => Activity::MessageGroup,
                Conversation::Business => Activity::MessageBusiness,
                Conversation::Channel => Activity::MessageChannel,
            };
            (activity, listed(message.media, Media::from_code), 0)
        }
        Body::CallEnded(call) => {
            let activity = match call.kind {
                1 => Activity::CallVoice,
                2 => Activity::CallVideo,
                3 => Activity::CallGroupVoice,
                4 => Activity::CallGroupVideo,
                _ => return None,
            };
            (activity, quality(call), call.duration_s)
        }
        Body::StatusPosted(said) => (Activity::StatusPosted, listed(said.0, Media::from_code), 0),
        Body::ChannelViewed => (Activity::ChannelViewed, Detail::NONE, 0),
        Body::FeatureUsed(said) => (Activity::FeatureUsed, listed(said.0, Feature::from_code), 0),
        Body::AiInvoked(said) => (Activity::AiInvoked, listed(said.0, Feature::from_code), 0),
        Body::AppCrashed(said) => (Activity::AppCrashed, listed(said.0, CrashSite::from_code), 0),
        Body::GroupCreated(members) => {
            (Activity::GroupCreated, GroupSize::of(members.count).map_or(Detail::NONE, Detail::from), 0)
        }
        Body::BusinessMessage(message) => {
            let activity = match message.stage {
                STAGE_SENT => Activity::BusinessSent,
                STAGE_DELIVERED => Activity::BusinessDelivered,
                STAGE_READ => Activity::BusinessRead,
                STAGE_REPLIED => Activity::BusinessReplied,
                _ => return None,
            };
            (activity, listed(message.category, Category::from_code), 0)
        }
        Body::AccountDeleted
        | Body::ConsentChanged
        | Body::MembersAdded(_)
        | Body::GroupJoinedByLink(_)
        | Body::GroupLeft(_)
        | Body::GroupProfileChanged(_)
        | Body::GroupReported(_)
        | Body::UserBlocked(_)
        | Body::ReportFiled(_)
        | Body::BusinessInformation(_) => return Some(Use::NotForAnalytics),
        Body::ContactsUploaded => return Some(Use::ContactList),
    };
    Some(Use::Count(Happened { activity, detail, seconds }))
}

/// A value of `event.proto` as a detail, if it is on the list: nothing else gets into a row.
#[inline]
fn listed<L: Into<Detail>>(value: i32, list: fn(u8) -> Option<L>) -> Detail {
    u8::try_from(value).ok().and_then(list).map_or(Detail::NONE, L::into)
}

/// How a call went. A missed one is missed, whatever else is said of it, and only that flag says so.
#[inline]
fn quality(call: &CallEnded) -> Detail {
    match listed(call.quality, CallQuality::from_code) {
        _ if call.missed => CallQuality::Missed.into(),
        said if said == CallQuality::Missed.into() => Detail::NONE,
        said => said,
    }
}

/// Whether statistics may count this event of this person, and as what.
#[inline]
pub(crate) fn gate(purpose: Use, has_subject: bool, choices: Choices) -> Result<Happened, Refusal> {
    let counted = match purpose {
        Use::ContactList => return Err(Refusal::ContactList),
        Use::NotForAnalytics => return Err(Refusal::NotForAnalytics),
        Use::Count(happened) => happened,
    };
    if !has_subject {
        return Err(Refusal::NoSubject);
    }
    match choices.age_band {
        AGE_ADULT => {}
        AGE_FROM_13_TO_17 if choices.guardian_consent => {}
        AGE_UNDER_13 | AGE_FROM_13_TO_17 => return Err(Refusal::Minor),
        _ => return Err(Refusal::AgeUnknown),
    }
    if !choices.analytics_consent {
        return Err(Refusal::NoConsent);
    }
    Ok(counted)
}

/// Who the person of a signal is.
pub(crate) enum Suspect<'s> {
    /// Nobody.
    None,
    /// The actor, by the number that was read already.
    Actor(&'s Phone),
    /// The one who was blocked or reported.
    Accused(Phone),
}

/// Whose a block or report of a business, or a report of a group, is, before it is keyed: the cohort, empty for none, of which a bucket is left, and how often he objects.
#[derive(Clone, Copy, Default)]
pub(crate) struct Voiced<'a> {
    pub(crate) cohort: RawGroup<'a>,
    pub(crate) rate: ReporterRate,
}

impl<'a> Voiced<'a> {
    fn of(event: &Event<'a>, rate: i32) -> Self {
        Self { cohort: event.cohort, rate: u8::try_from(rate).ok().and_then(ReporterRate::from_code).unwrap_or_default() }
    }
}

/// An integrity signal, before anything in it is keyed. At most one person (I5).
pub(crate) struct Signal<'s, 'a> {
    pub(crate) kind: SignalKind,
    pub(crate) suspect: Suspect<'s>,
    pub(crate) group: Option<RawGroup<'a>>,
    /// Empty for none.
    pub(crate) business: &'a str,
    /// Empty for none.
    pub(crate) portfolio: &'a str,
    pub(crate) category: Category,
    pub(crate) tier: Tier,
    /// [`Conversation`], or 0.
    pub(crate) conversation: u8,
    pub(crate) thread_is_new: bool,
    pub(crate) count: u32,
    pub(crate) strangers: u32,
    pub(crate) account_age_s: Option<u64>,
    /// Label of the operator's list that a group's hash is on, and of what it is.
    pub(crate) listed: Option<(&'a str, ProfileField)>,
    pub(crate) voice: Option<Voiced<'a>>,
    /// Of a message that a business sent, its template; of a block or report of a business, that of the message received last. One line without a phone
    /// number, empty for none.
    pub(crate) template: Cow<'a, str>,
}

impl<'s, 'a> Signal<'s, 'a> {
    const fn about(kind: SignalKind, suspect: Suspect<'s>) -> Self {
        Self {
            kind,
            suspect,
            group: None,
            business: "",
            portfolio: "",
            category: Category::Unknown,
            tier: Tier::Unknown,
            conversation: 0,
            thread_is_new: false,
            count: 1,
            strangers: 0,
            account_age_s: None,
            listed: None,
            voice: None,
            template: Cow::Borrowed(""),
        }
    }

    /// Whether it is about a sender: only those span midnight.
    pub(crate) fn is_senders(&self) -> bool {
        self.kind == SignalKind::MessageSent
    }

    /// A group's signal: who acted is not in it. `None` without a group.
    fn of_group(kind: SignalKind, group: RawGroup<'a>) -> Option<Self> {
        (!group.written().is_empty()).then(|| Self { group: Some(group), ..Self::about(kind, Suspect::None) })
    }

    /// A block or report: who blocked or reported is not in it (P23), but for this where it is about a business and nobody else: whether that account
    /// is of its first week, as strangers 1, how often it objects, and a bucket of its cohort. A report's count is 0 where nothing had been delivered before,
    /// else 1. `None` when it names nobody, or what is no number.
    fn of_accused(kind: SignalKind, accused: &Accused<'a>, event: &Event<'a>) -> Option<Self> {
        let suspect = match accused.person.is_absent() {
            true if accused.business.is_empty() => return None,
            true => Suspect::None,
            false => Suspect::Accused(accused.person.canonical()?),
        };
        let is_of_business = accused.person.is_absent();
        let is_new = is_of_business && AccountAge::of(event.account_age_s) == AccountAge::FirstWeek;
        let voice = is_of_business.then(|| Voiced::of(event, accused.rate));
        let template = if is_of_business { one_line(accused.template) } else { Cow::Borrowed("") };
        Some(Self { business: accused.business, strangers: u32::from(is_new), voice, template, ..Self::about(kind, suspect) })
    }
}

/// The integrity signal an event gives, whatever analytics may do with it; `None` for kinds that give none.
///
/// A message's signal holds its sender and neither recipient nor group; a group's holds the group and no person; a block or report holds
/// whom it is about; a business's holds the business and the person at the other end.
#[inline]
pub(crate) fn signal<'s, 'a>(event: &Event<'a>, actor: Option<&'s Phone>) -> Option<Signal<'s, 'a>> {
    match &event.body {
        // Without a sender there is nothing a sender's rule could be about.
        Body::MessageSent(message) => Some(Signal {
            conversation: u8::try_from(message.conversation).unwrap_or_default(),
            thread_is_new: message.thread_is_new,
            account_age_s: event.account_age_s,
            ..Signal::about(SignalKind::MessageSent, Suspect::Actor(actor?))
        }),
        Body::BusinessMessage(message) => {
            let kind = match message.stage {
                STAGE_SENT => SignalKind::BusinessSent,
                STAGE_REPLIED => SignalKind::BusinessReplied,
                _ => return None,
            };
            (!message.business.is_empty()).then(|| Signal {
                business: message.business,
                portfolio: message.portfolio,
                category: u8::try_from(message.category).ok().and_then(Category::from_code).unwrap_or(Category::Unknown),
                tier: u8::try_from(message.tier).ok().and_then(Tier::from_code).unwrap_or(Tier::Unknown),
                template: if kind == SignalKind::BusinessSent { one_line(message.template) } else { Cow::Borrowed("") },
                ..Signal::about(kind, actor.map_or(Suspect::None, Suspect::Actor))
            })
        }
        Body::UserBlocked(accused) => Signal::of_accused(SignalKind::Blocked, accused, event),
        Body::ReportFiled(accused) => {
            Some(Signal {
                // What is not said is no reproach to who reports.
                count: u32::from(accused.after_delivery != Some(false)),
                ..Signal::of_accused(SignalKind::Reported, accused, event)?
            })
        }
        Body::MembersAdded(members) => {
            let mut signal = Signal::of_group(SignalKind::MembersAdded, members.group)?;
            signal.count = members.count;
            signal.strangers = members.strangers;
            Some(signal)
        }
        Body::GroupJoinedByLink(members) => Signal::of_group(SignalKind::GroupJoined, members.group),
        Body::GroupLeft(members) => Signal::of_group(SignalKind::GroupLeft, members.group),
        Body::GroupReported(members) => Some(Signal {
            strangers: u32::from(AccountAge::of(event.account_age_s) == AccountAge::FirstWeek),
            voice: Some(Voiced::of(event, members.rate)),
            ..Signal::of_group(SignalKind::GroupReported, members.group)?
        }),
        Body::GroupCreated(members) => Signal::of_group(SignalKind::GroupCreated, members.group),
        _ => None,
    }
}

/// The signals that a group's new profile gives: one for each list that one of its hashes is on. None without a group.
#[inline]
pub(crate) fn on_lists<'a>(event: &Event<'a>, lists: &'a GroupLists) -> impl Iterator<Item = Signal<'static, 'a>> {
    let (group, profile) = match &event.body {
        Body::GroupProfileChanged(profile) if !profile.group.written().is_empty() => (Some(profile.group), *profile),
        _ => (None, Profile::default()),
    };
    let fields = [
        (ProfileField::Name, profile.name),
        (ProfileField::Description, profile.description),
        (ProfileField::Photo, profile.photo),
    ];
    let found = fields.into_iter().flat_map(|(field, hash)| lists.find(field, hash).map(move |list| (list, field)));
    found.filter_map(move |listed| {
        let signal = Signal::about(SignalKind::GroupListed, Suspect::None);
        group.map(|group| Signal { group: Some(group), listed: Some(listed), ..signal })
    })
}

/// Who created a group, and whether that account is of its first week, if anybody did: for a row of its own, in which the group is not.
#[inline]
pub(crate) fn maker<'s>(event: &Event<'_>, actor: Option<&'s Phone>) -> Option<(&'s Phone, bool)> {
    let Body::GroupCreated(_) = &event.body else { return None };
    Some((actor?, AccountAge::of(event.account_age_s) == AccountAge::FirstWeek))
}

/// Whom a message between two people went to, for the pair's token alone; and whether his account is of its first week, if that is known. `None` for every
/// other event, for a recipient that is no number, and for the sender's own.
#[inline]
pub(crate) fn recipient(event: &Event<'_>, actor: &Phone) -> Option<(Phone, Option<bool>)> {
    let Body::MessageSent(message) = &event.body else { return None };
    if message.conversation != i32::from(Conversation::Person.code()) {
        return None;
    }
    let recipient = message.to_person.canonical()?;
    (recipient.is_below(actor) || actor.is_below(&recipient)).then_some((recipient, message.to_new_account))
}

/// What of an event a business is billed for, if anything.
#[inline]
pub(crate) fn bill<'a>(event: &Event<'a>, actor: Option<&Phone>) -> Option<Bill<'a>> {
    let Body::BusinessMessage(message) = &event.body else { return None };
    let stage = match message.stage {
        STAGE_SENT => 0,
        STAGE_DELIVERED => 1,
        STAGE_READ => 2,
        STAGE_REPLIED => 3,
        _ => return None,
    };
    (!message.business.is_empty()).then(|| Bill {
        day: EpochId::of(event.time_ms).0,
        business: message.business,
        portfolio: message.portfolio,
        category: u8::try_from(message.category).ok().and_then(Category::from_code).unwrap_or(Category::Unknown).code(),
        country: actor.map_or(Country::UNKNOWN, Phone::country).code(),
        stage,
    })
}

/// What of an event a business says of itself, if it is such an event and names the business. Of a category or tier that this version does not know
/// it is unknown; the actor is not looked at.
#[inline]
pub(crate) fn account<'a>(event: &Event<'a>) -> Option<Told<'a>> {
    let Body::BusinessInformation(said) = &event.body else { return None };
    Told {
        business: said.business,
        portfolio: said.portfolio,
        name: said.name,
        category: u8::try_from(said.category).ok().and_then(Category::from_code).unwrap_or(Category::Unknown),
        tier: u8::try_from(said.tier).ok().and_then(Tier::from_code).unwrap_or(Tier::Unknown),
        told_ms: event.time_ms,
    }
    .of_somebody()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::{BusinessMessage, Members, MessageSent, Said};

    const WILLING: Choices = Choices { analytics_consent: true, age_band: AGE_ADULT, guardian_consent: false };

    #[test]
    fn p55_p56_the_gate_asks_in_a_fixed_order() {
        let sent = Happened { activity: Activity::MessagePerson, detail: Media::Image.into(), seconds: 0 };
        let message = Use::Count(sent);
        let with = |age_band, guardian_consent, analytics_consent| Choices { analytics_consent, age_band, guardian_consent };
        let cases = [
            (Use::ContactList, false, Choices::default(), Err(Refusal::ContactList)),
            (Use::NotForAnalytics, false, Choices::default(), Err(Refusal::NotForAnalytics)),
            (Use::NotForAnalytics, true, WILLING, Err(Refusal::NotForAnalytics)),
            (message, false, WILLING, Err(Refusal::NoSubject)),
            (message, true, Choices::default(), Err(Refusal::AgeUnknown)),
            (message, true, with(0, true, true), Err(Refusal::AgeUnknown)),
            (message, true, with(4, true, true), Err(Refusal::AgeUnknown)),
            (message, true, with(-1, true, true), Err(Refusal::AgeUnknown)),
            (message, true, with(1, true, true), Err(Refusal::Minor)),
            (message, true, with(2, false, true), Err(Refusal::Minor)),
            (message, true, with(2, true, false), Err(Refusal::NoConsent)),
            (message, true, with(2, true, true), Ok(sent)),
            (message, true, with(3, false, false), Err(Refusal::NoConsent)),
            (message, true, WILLING, Ok(sent)),
        ];
        for (purpose, has_subject, choices, expected) in cases {
            assert_eq!(gate(purpose, has_subject, choices), expected, "{purpose:?} {has_subject} {choices:?}");
        }
    }

    #[test]
    fn a_detail_is_of_the_activitys_list_whatever_is_said() {
        let said = [i32::MIN, -1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 255, 256, 257, 65_536 + 1, i32::MAX];
        for value in said {
            let call = |missed| Body::CallEnded(CallEnded { kind: 2, quality: value, missed, ..Default::default() });
            let message = |conversation| Body::MessageSent(MessageSent { conversation, media: value, ..Default::default() });
            let business = |stage| Body::BusinessMessage(BusinessMessage { stage, category: value, ..Default::default() });
            let bodies = [
                Body::AccountRegistered,
                message(1),
                message(4),
                call(false),
                call(true),
                Body::StatusPosted(Said(value)),
                Body::ChannelViewed,
                Body::FeatureUsed(Said(value)),
                Body::AiInvoked(Said(value)),
                Body::AppCrashed(Said(value)),
                Body::GroupCreated(Members { count: value.cast_unsigned(), ..Default::default() }),
                business(1),
                business(4),
            ];
            for body in bodies {
                let Some(Use::Count(Happened { activity, detail, .. })) = purpose(&body) else { panic!("counted") };
                let code = detail.code();
                assert!(code == 0 || activity.details().iter().any(|(listed, _)| *listed == code), "{activity} {value}");
                let is_listed = u8::try_from(value).is_ok_and(|v| activity.details().iter().any(|(listed, _)| *listed == v));
                match body {
                    Body::GroupCreated(_) | Body::AccountRegistered | Body::ChannelViewed => {}
                    Body::CallEnded(call) if call.missed => assert_eq!(code, CallQuality::Missed.code()),
                    // That a call was missed is not said by its quality.
                    Body::CallEnded(_) if value == 5 => assert_eq!(code, 0),
                    _ if is_listed => assert_eq!(i32::from(code), value, "{activity}"),
                    _ => assert_eq!(code, 0, "{activity} {value}"),
                }
            }
        }
    }
}
