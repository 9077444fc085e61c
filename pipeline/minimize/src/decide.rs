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
//! [`signal`] stands beside 2 and 3: safety does not ask for analytics consent (P23), so refused and late events still give a signal.

use starling_schemas::codes::{Activity, Category, Conversation, Fault, Refusal, SignalKind, Tier};

use crate::decode::{self, Accused, Body, Choices, Event, RawGroup};
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
    /// Count it as this, with these seconds.
    Count(Activity, u32),
    /// Safety or billing only (P6).
    NotForAnalytics,
    /// Nothing at all (P5).
    ContactList,
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
    let actor = match event.actor.is_absent() {
        true => None,
        false => Some(event.actor.canonical().ok_or(Fault::InvalidNumber)?),
    };
    Ok(Readable { actor, purpose })
}

/// What a body may be used for; `None` where this version cannot say what happened: no body, or a message, call or stage of a
/// kind it does not know (P60: nothing is guessed).
#[inline]
pub(crate) fn purpose(body: &Body<'_>) -> Option<Use> {
    Some(match body {
        Body::Absent => return None,
        Body::AccountRegistered => Use::Count(Activity::AccountRegistered, 0),
        Body::MessageSent(message) => Use::Count(
            match Conversation::from_code(u8::try_from(message.conversation).ok()?)? {
                Conversation::Person => Activity::MessagePerson,
                Conversation::Group => Activity::MessageGroup,
                Conversation::Business => Activity::MessageBusiness,
                Conversation::Channel => Activity::MessageChannel,
            },
            0,
        ),
        Body::CallEnded(call) => Use::Count(
            match call.kind {
                1 => Activity::CallVoice,
                2 => Activity::CallVideo,
                3 => Activity::CallGroupVoice,
                4 => Activity::CallGroupVideo,
                _ => return None,
            },
            call.duration_s,
        ),
        Body::StatusPosted => Use::Count(Activity::StatusPosted, 0),
        Body::ChannelViewed => Use::Count(Activity::ChannelViewed, 0),
        Body::FeatureUsed => Use::Count(Activity::FeatureUsed, 0),
        Body::AiInvoked => Use::Count(Activity::AiInvoked, 0),
        Body::AppCrashed => Use::Count(Activity::AppCrashed, 0),
        Body::GroupCreated(_) => Use::Count(Activity::GroupCreated, 0),
        Body::BusinessMessage(message) => Use::Count(
            match message.stage {
                STAGE_SENT => Activity::BusinessSent,
                STAGE_DELIVERED => Activity::BusinessDelivered,
                STAGE_READ => Activity::BusinessRead,
                STAGE_REPLIED => Activity::BusinessReplied,
                _ => return None,
            },
            0,
        ),
        Body::AccountDeleted
        | Body::ConsentChanged
        | Body::MembersAdded(_)
        | Body::GroupJoinedByLink(_)
        | Body::GroupLeft(_)
        | Body::GroupProfileChanged
        | Body::GroupReported(_)
        | Body::UserBlocked(_)
        | Body::ReportFiled(_)
        | Body::BusinessInformation => Use::NotForAnalytics,
        Body::ContactsUploaded => Use::ContactList,
    })
}

/// Whether statistics may count this event of this person, and as what.
#[inline]
pub(crate) fn gate(purpose: Use, has_subject: bool, choices: Choices) -> Result<(Activity, u32), Refusal> {
    let counted = match purpose {
        Use::ContactList => return Err(Refusal::ContactList),
        Use::NotForAnalytics => return Err(Refusal::NotForAnalytics),
        Use::Count(activity, seconds) => (activity, seconds),
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

    /// A block or report: who blocked or reported is not in it (P23). `None` when it names nobody, or what is no number.
    fn of_accused(kind: SignalKind, accused: &Accused<'a>) -> Option<Self> {
        let suspect = match accused.person.is_absent() {
            true if accused.business.is_empty() => return None,
            true => Suspect::None,
            false => Suspect::Accused(accused.person.canonical()?),
        };
        Some(Self { business: accused.business, ..Self::about(kind, suspect) })
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
                ..Signal::about(kind, actor.map_or(Suspect::None, Suspect::Actor))
            })
        }
        Body::UserBlocked(accused) => Signal::of_accused(SignalKind::Blocked, accused),
        Body::ReportFiled(accused) => Signal::of_accused(SignalKind::Reported, accused),
        Body::MembersAdded(members) => {
            let mut signal = Signal::of_group(SignalKind::MembersAdded, members.group)?;
            signal.count = members.count;
            signal.strangers = members.strangers;
            Some(signal)
        }
        Body::GroupJoinedByLink(members) => Signal::of_group(SignalKind::GroupJoined, members.group),
        Body::GroupLeft(members) => Signal::of_group(SignalKind::GroupLeft, members.group),
        Body::GroupReported(members) => Signal::of_group(SignalKind::GroupReported, members.group),
        Body::GroupCreated(members) => Signal::of_group(SignalKind::GroupCreated, members.group),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WILLING: Choices = Choices { analytics_consent: true, age_band: AGE_ADULT, guardian_consent: false };

    #[test]
    fn p55_p56_the_gate_asks_in_a_fixed_order() {
        let message = Use::Count(Activity::MessagePerson, 0);
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
            (message, true, with(2, true, true), Ok((Activity::MessagePerson, 0))),
            (message, true, with(3, false, false), Err(Refusal::NoConsent)),
            (message, true, WILLING, Ok((Activity::MessagePerson, 0))),
        ];
        for (purpose, has_subject, choices, expected) in cases {
            assert_eq!(gate(purpose, has_subject, choices), expected, "{purpose:?} {has_subject} {choices:?}");
        }
    }
}
