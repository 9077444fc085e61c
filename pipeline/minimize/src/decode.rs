//! The allowlist decoder: the few fields that minimising needs, out of a borrowed frame.
//!
//! It is written over the field numbers that `schemas` generates from `event.proto`. What is not named here is skipped by its
//! length, unread: unknown fields (P1), the IP address (P4), the peer of a call and the group, business or channel of a message (P2), the operating system,
//! what stands in a client's version behind its first two numbers (P19), and the bodies of which only the presence counts.
//!
//! It agrees with `prost` on every field it reads, for every input that `prost` takes (a property test): scalars given twice take the
//! last value, messages given twice are merged, a different member of `body` replaces the one before. Known fields with
//! another wire type are [`Fault::WrongWireType`]; whatever breaks the wire format, and deprecated groups, is [`Fault::Malformed`].

use starling_schemas::codes::{ClientVersion, Fault};
use starling_schemas::fields;

use crate::phone::RawNumber;
use crate::wire::{Window, WireType, delimited, key, number, skip};

/// A group's or channel's identifier as it stands in a frame. No `Debug`: it is keyed before it leaves.
#[derive(Clone, Copy, Default)]
pub(crate) struct RawGroup<'a>(&'a [u8]);

impl<'a> RawGroup<'a> {
    /// The bytes, for the keyed hash.
    pub(crate) const fn written(self) -> &'a [u8] {
        self.0
    }
}

/// What was read of one event. No `Debug`: it borrows a number.
#[derive(Default)]
pub(crate) struct Event<'a> {
    pub(crate) time_ms: i64,
    pub(crate) actor: RawNumber<'a>,
    pub(crate) platform: i32,
    pub(crate) version: ClientVersion,
    pub(crate) choices: Choices,
    pub(crate) account_age_s: Option<u64>,
    pub(crate) cohort: RawGroup<'a>,
    pub(crate) body: Body<'a>,
}

/// Seconds of the month in which an account's cohort is of use.
const FIRST_MONTH_S: u64 = 30 * 86_400;

impl<'a> Event<'a> {
    /// The registration cohort of an account that says it is in its first month; of any other none, whatever is said.
    pub(crate) fn cohort_of_young(&self) -> RawGroup<'a> {
        if self.account_age_s.is_some_and(|age| age < FIRST_MONTH_S) { self.cohort } else { RawGroup::default() }
    }
}

/// What the person chose. Absent means no consent and an unknown age (I8).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Choices {
    pub(crate) analytics_consent: bool,
    pub(crate) age_band: i32,
    pub(crate) guardian_consent: bool,
}

/// Which body is present, and what is read of it.
#[derive(Default)]
pub(crate) enum Body<'a> {
    #[default]
    Absent,
    AccountRegistered,
    AccountDeleted,
    ConsentChanged,
    MessageSent(MessageSent<'a>),
    CallEnded(CallEnded),
    StatusPosted(Said),
    ChannelViewed,
    FeatureUsed(Said),
    AiInvoked(Said),
    AppCrashed(Said),
    GroupCreated(Members<'a>),
    MembersAdded(Members<'a>),
    GroupJoinedByLink(Members<'a>),
    GroupLeft(Members<'a>),
    GroupProfileChanged(Profile<'a>),
    GroupReported(Members<'a>),
    BusinessMessage(BusinessMessage<'a>),
    UserBlocked(Accused<'a>),
    ReportFiled(Accused<'a>),
    BusinessInformation(BusinessInformation<'a>),
    ContactsUploaded,
}

/// Of an event that says one thing: which medium, feature or place.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Said(pub(crate) i32);

/// Of a message: its kind of conversation and what kind of thing it is. To whom is hashed together with the sender, or dropped.
#[derive(Default)]
pub(crate) struct MessageSent<'a> {
    pub(crate) to_person: RawNumber<'a>,
    pub(crate) conversation: i32,
    pub(crate) media: i32,
    pub(crate) thread_is_new: bool,
    pub(crate) to_new_account: Option<bool>,
}

/// Of a call: its kind, length and quality, never with whom.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct CallEnded {
    pub(crate) kind: i32,
    pub(crate) duration_s: u32,
    pub(crate) quality: i32,
    pub(crate) missed: bool,
}

/// Of a group event: which group, and how many were added to it or are in it.
#[derive(Default)]
pub(crate) struct Members<'a> {
    pub(crate) group: RawGroup<'a>,
    pub(crate) count: u32,
    pub(crate) strangers: u32,
    /// `ReporterRate` of who reports it.
    pub(crate) rate: i32,
}

/// Of a group whose profile changed: which, and the hashes of what did. No `Debug`: they are compared, and go no further.
#[derive(Clone, Copy, Default)]
pub(crate) struct Profile<'a> {
    pub(crate) group: RawGroup<'a>,
    /// Empty for what did not change, as the others.
    pub(crate) name: &'a [u8],
    pub(crate) description: &'a [u8],
    pub(crate) photo: &'a [u8],
}

/// Of a business message.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct BusinessMessage<'a> {
    pub(crate) stage: i32,
    pub(crate) business: &'a str,
    pub(crate) portfolio: &'a str,
    /// As it was written.
    pub(crate) template: &'a str,
    pub(crate) category: i32,
    pub(crate) tier: i32,
}

/// Who was blocked or reported.
#[derive(Default)]
pub(crate) struct Accused<'a> {
    pub(crate) person: RawNumber<'a>,
    pub(crate) business: &'a str,
    /// Of a report: whether a message had been delivered before, where the edge knows.
    pub(crate) after_delivery: Option<bool>,
    /// `ReporterRate` of who blocks or reports.
    pub(crate) rate: i32,
    /// Of the message that was received last, as it was written; empty where the edge does not know.
    pub(crate) template: &'a str,
}

/// Of what a business says of itself. Its own number, if the event has one, is the actor's and not in it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct BusinessInformation<'a> {
    pub(crate) business: &'a str,
    pub(crate) portfolio: &'a str,
    pub(crate) name: &'a str,
    pub(crate) category: i32,
    pub(crate) tier: i32,
}

/// Reads a member of `body`: over the one that is there if it is the same, else over a fresh one.
macro_rules! merge {
    ($body:expr, $variant:ident, $read:expr, $window:expr) => {{
        let window = $window;
        if !matches!($body, Body::$variant(_)) {
            $body = Body::$variant(Default::default());
        }
        if let Body::$variant(inner) = &mut $body {
            $read(window, inner)?;
        }
    }};
}

/// Reads one frame into an empty event.
#[inline]
pub(crate) fn event<'a, W: Window<'a>>(mut frame: W, event: &mut Event<'a>) -> Result<(), Fault> {
    use fields::event as f;
    while !frame.is_empty() {
        let (field, found) = key(&mut frame)?;
        match field {
            f::EVENT_TIME_MS => event.time_ms = number(&mut frame, found)?.cast_signed(),
            f::ACTOR => event.actor = RawNumber::new(delimited(&mut frame, found)?.bytes()),
            f::CLIENT => client(delimited(&mut frame, found)?, &mut event.platform, &mut event.version)?,
            f::CHOICES => choices(delimited(&mut frame, found)?, &mut event.choices)?,
            f::ACCOUNT_AGE_S => event.account_age_s = Some(number(&mut frame, found)?),
            f::COHORT => event.cohort = group(&mut frame, found)?,
            f::IP | f::REGION => unread(&mut frame, found)?,
            f::MESSAGE_SENT => merge!(event.body, MessageSent, message_sent, delimited(&mut frame, found)?),
            f::CALL_ENDED => merge!(event.body, CallEnded, call_ended, delimited(&mut frame, found)?),
            f::STATUS_POSTED => {
                merge!(event.body, StatusPosted, said::<{ fields::status_posted::MEDIA }, _>, delimited(&mut frame, found)?);
            }
            f::FEATURE_USED => {
                merge!(event.body, FeatureUsed, said::<{ fields::feature_used::FEATURE }, _>, delimited(&mut frame, found)?);
            }
            f::AI_INVOKED => {
                merge!(event.body, AiInvoked, said::<{ fields::ai_invoked::SURFACE }, _>, delimited(&mut frame, found)?);
            }
            f::APP_CRASHED => {
                merge!(event.body, AppCrashed, said::<{ fields::app_crashed::SITE }, _>, delimited(&mut frame, found)?);
            }
            f::GROUP_CREATED => merge!(event.body, GroupCreated, group_created, delimited(&mut frame, found)?),
            f::MEMBERS_ADDED => merge!(event.body, MembersAdded, members_added, delimited(&mut frame, found)?),
            f::GROUP_JOINED_BY_LINK => merge!(event.body, GroupJoinedByLink, group_joined_by_link, delimited(&mut frame, found)?),
            f::GROUP_LEFT => merge!(event.body, GroupLeft, group_left, delimited(&mut frame, found)?),
            f::GROUP_PROFILE_CHANGED => {
                merge!(event.body, GroupProfileChanged, group_profile_changed, delimited(&mut frame, found)?);
            }
            f::GROUP_REPORTED => merge!(event.body, GroupReported, group_reported, delimited(&mut frame, found)?),
            f::BUSINESS_MESSAGE => merge!(event.body, BusinessMessage, business_message, delimited(&mut frame, found)?),
            f::USER_BLOCKED => merge!(event.body, UserBlocked, user_blocked, delimited(&mut frame, found)?),
            f::REPORT_FILED => merge!(event.body, ReportFiled, report_filed, delimited(&mut frame, found)?),
            f::BUSINESS_INFORMATION => {
                merge!(event.body, BusinessInformation, business_information, delimited(&mut frame, found)?);
            }
            _ => match presence_only(field) {
                Some(present) => {
                    unread(&mut frame, found)?;
                    event.body = present;
                }
                None => skip(&mut frame, found)?,
            },
        }
    }
    Ok(())
}

/// Bodies of which nothing but their presence counts: they are skipped unread.
fn presence_only<'a>(field: u32) -> Option<Body<'a>> {
    use fields::event as f;
    Some(match field {
        f::ACCOUNT_REGISTERED => Body::AccountRegistered,
        f::ACCOUNT_DELETED => Body::AccountDeleted,
        f::CONSENT_CHANGED => Body::ConsentChanged,
        f::CHANNEL_VIEWED => Body::ChannelViewed,
        f::CONTACTS_UPLOADED => Body::ContactsUploaded,
        _ => return None,
    })
}

/// Passes over a known length-delimited field.
#[inline]
fn unread<'a, W: Window<'a>>(window: &mut W, found: WireType) -> Result<(), Fault> {
    delimited(window, found).map(|_| ())
}

/// Passes over a known varint field.
#[inline]
fn unread_number<'a, W: Window<'a>>(window: &mut W, found: WireType) -> Result<(), Fault> {
    number(window, found).map(|_| ())
}

#[inline]
fn flag<'a, W: Window<'a>>(window: &mut W, found: WireType) -> Result<bool, Fault> {
    number(window, found).map(|value| value != 0)
}

/// The low 32 bits, as protobuf reads enums.
#[inline]
#[allow(clippy::cast_possible_truncation)]
fn enumeration<'a, W: Window<'a>>(window: &mut W, found: WireType) -> Result<i32, Fault> {
    number(window, found).map(|value| (value as u32).cast_signed())
}

/// The low 32 bits, as protobuf reads `uint32`.
#[inline]
#[allow(clippy::cast_possible_truncation)]
fn count<'a, W: Window<'a>>(window: &mut W, found: WireType) -> Result<u32, Fault> {
    number(window, found).map(|value| value as u32)
}

/// Text that goes into a column, so it must be UTF-8.
#[inline]
fn text<'a, W: Window<'a>>(window: &mut W, found: WireType) -> Result<&'a str, Fault> {
    std::str::from_utf8(delimited(window, found)?.bytes()).map_err(|_| Fault::Malformed)
}

#[inline]
fn group<'a, W: Window<'a>>(window: &mut W, found: WireType) -> Result<RawGroup<'a>, Fault> {
    Ok(RawGroup(delimited(window, found)?.bytes()))
}

#[inline]
fn client<'a, W: Window<'a>>(mut window: W, platform: &mut i32, version: &mut ClientVersion) -> Result<(), Fault> {
    use fields::client as f;
    while !window.is_empty() {
        let (field, found) = key(&mut window)?;
        match field {
            f::PLATFORM => *platform = enumeration(&mut window, found)?,
            f::VERSION => *version = major_minor(delimited(&mut window, found)?).unwrap_or(ClientVersion::UNKNOWN),
            f::OS => unread(&mut window, found)?,
            _ => skip(&mut window, found)?,
        }
    }
    Ok(())
}

/// Most digits of a number in a version: what has more is something else, a phone number say, and not even capped.
const VERSION_DIGITS: usize = 5;

/// The first two numbers of a version, read byte by byte: at most two times five digits and what ends them. They are alone, or the rest
/// stands behind one of `.`, `-`, `+` and space. No text comes out, so it need not be UTF-8.
#[inline]
fn major_minor<'a, W: Window<'a>>(mut window: W) -> Option<ClientVersion> {
    let (major, end) = version_number(&mut window)?;
    if end != Some(b'.') {
        return None;
    }
    let (minor, end) = version_number(&mut window)?;
    matches!(end, None | Some(b'.' | b'-' | b'+' | b' ')).then(|| ClientVersion::new(major, minor))
}

/// A number of one to five digits, and the byte that ended it.
#[inline]
fn version_number<'a, W: Window<'a>>(window: &mut W) -> Option<(u32, Option<u8>)> {
    let mut value = 0;
    for digits in 0..=VERSION_DIGITS {
        match window.byte() {
            Some(byte @ b'0'..=b'9') => value = value * 10 + u32::from(byte - b'0'),
            end => return (digits > 0).then_some((value, end)),
        }
    }
    None
}

/// A message of which one enum is read.
#[inline]
fn said<'a, const FIELD: u32, W: Window<'a>>(mut window: W, said: &mut Said) -> Result<(), Fault> {
    while !window.is_empty() {
        let (field, found) = key(&mut window)?;
        if field == FIELD {
            said.0 = enumeration(&mut window, found)?;
        } else {
            skip(&mut window, found)?;
        }
    }
    Ok(())
}

#[inline]
fn choices<'a, W: Window<'a>>(mut window: W, choices: &mut Choices) -> Result<(), Fault> {
    use fields::choices as f;
    while !window.is_empty() {
        let (field, found) = key(&mut window)?;
        match field {
            f::ANALYTICS_CONSENT => choices.analytics_consent = flag(&mut window, found)?,
            f::AGE_BAND => choices.age_band = enumeration(&mut window, found)?,
            f::GUARDIAN_CONSENT => choices.guardian_consent = flag(&mut window, found)?,
            f::LINKED | f::DISAPPEARING_TIMER => unread_number(&mut window, found)?,
            _ => skip(&mut window, found)?,
        }
    }
    Ok(())
}

#[inline]
fn message_sent<'a, W: Window<'a>>(mut window: W, message: &mut MessageSent<'a>) -> Result<(), Fault> {
    use fields::message_sent as f;
    while !window.is_empty() {
        let (field, found) = key(&mut window)?;
        match field {
            f::CONVERSATION => message.conversation = enumeration(&mut window, found)?,
            f::THREAD_IS_NEW => message.thread_is_new = flag(&mut window, found)?,
            f::TO_PERSON => message.to_person = RawNumber::new(delimited(&mut window, found)?.bytes()),
            f::TO_GROUP | f::TO_BUSINESS | f::TO_CHANNEL => unread(&mut window, found)?,
            f::MEDIA => message.media = enumeration(&mut window, found)?,
            f::TO_NEW_ACCOUNT => message.to_new_account = Some(flag(&mut window, found)?),
            f::SIZE | f::IS_REPLY => unread_number(&mut window, found)?,
            _ => skip(&mut window, found)?,
        }
    }
    Ok(())
}

fn call_ended<'a, W: Window<'a>>(mut window: W, call: &mut CallEnded) -> Result<(), Fault> {
    use fields::call_ended as f;
    while !window.is_empty() {
        let (field, found) = key(&mut window)?;
        match field {
            f::KIND => call.kind = enumeration(&mut window, found)?,
            f::DURATION_S => call.duration_s = count(&mut window, found)?,
            f::QUALITY => call.quality = enumeration(&mut window, found)?,
            f::MISSED => call.missed = flag(&mut window, found)?,
            f::PEER => unread(&mut window, found)?,
            _ => skip(&mut window, found)?,
        }
    }
    Ok(())
}

fn group_created<'a, W: Window<'a>>(mut window: W, members: &mut Members<'a>) -> Result<(), Fault> {
    use fields::group_created as f;
    while !window.is_empty() {
        let (field, found) = key(&mut window)?;
        match field {
            f::GROUP => members.group = group(&mut window, found)?,
            f::SIZE => members.count = count(&mut window, found)?,
            _ => skip(&mut window, found)?,
        }
    }
    Ok(())
}

fn members_added<'a, W: Window<'a>>(mut window: W, members: &mut Members<'a>) -> Result<(), Fault> {
    use fields::members_added as f;
    while !window.is_empty() {
        let (field, found) = key(&mut window)?;
        match field {
            f::GROUP => members.group = group(&mut window, found)?,
            f::COUNT => members.count = count(&mut window, found)?,
            f::STRANGERS => members.strangers = count(&mut window, found)?,
            _ => skip(&mut window, found)?,
        }
    }
    Ok(())
}

fn group_joined_by_link<'a, W: Window<'a>>(mut window: W, members: &mut Members<'a>) -> Result<(), Fault> {
    use fields::group_joined_by_link as f;
    while !window.is_empty() {
        let (field, found) = key(&mut window)?;
        match field {
            f::GROUP => members.group = group(&mut window, found)?,
            f::LINK => unread(&mut window, found)?,
            _ => skip(&mut window, found)?,
        }
    }
    Ok(())
}

fn group_left<'a, W: Window<'a>>(mut window: W, members: &mut Members<'a>) -> Result<(), Fault> {
    use fields::group_left as f;
    while !window.is_empty() {
        let (field, found) = key(&mut window)?;
        match field {
            f::GROUP => members.group = group(&mut window, found)?,
            f::AFTER_S => unread_number(&mut window, found)?,
            _ => skip(&mut window, found)?,
        }
    }
    Ok(())
}

fn group_profile_changed<'a, W: Window<'a>>(mut window: W, profile: &mut Profile<'a>) -> Result<(), Fault> {
    use fields::group_profile_changed as f;
    while !window.is_empty() {
        let (field, found) = key(&mut window)?;
        match field {
            f::GROUP => profile.group = group(&mut window, found)?,
            f::NAME_HASH => profile.name = delimited(&mut window, found)?.bytes(),
            f::DESCRIPTION_HASH => profile.description = delimited(&mut window, found)?.bytes(),
            f::PHOTO_HASH => profile.photo = delimited(&mut window, found)?.bytes(),
            _ => skip(&mut window, found)?,
        }
    }
    Ok(())
}

fn group_reported<'a, W: Window<'a>>(mut window: W, members: &mut Members<'a>) -> Result<(), Fault> {
    use fields::group_reported as f;
    while !window.is_empty() {
        let (field, found) = key(&mut window)?;
        match field {
            f::GROUP => members.group = group(&mut window, found)?,
            f::REASON => unread_number(&mut window, found)?,
            f::RATE => members.rate = enumeration(&mut window, found)?,
            _ => skip(&mut window, found)?,
        }
    }
    Ok(())
}

fn business_message<'a, W: Window<'a>>(mut window: W, message: &mut BusinessMessage<'a>) -> Result<(), Fault> {
    use fields::business_message as f;
    while !window.is_empty() {
        let (field, found) = key(&mut window)?;
        match field {
            f::STAGE => message.stage = enumeration(&mut window, found)?,
            f::BUSINESS => message.business = text(&mut window, found)?,
            f::PORTFOLIO => message.portfolio = text(&mut window, found)?,
            f::CATEGORY => message.category = enumeration(&mut window, found)?,
            f::TIER => message.tier = enumeration(&mut window, found)?,
            f::TEMPLATE => message.template = text(&mut window, found)?,
            _ => skip(&mut window, found)?,
        }
    }
    Ok(())
}

fn user_blocked<'a, W: Window<'a>>(mut window: W, accused: &mut Accused<'a>) -> Result<(), Fault> {
    use fields::user_blocked as f;
    while !window.is_empty() {
        let (field, found) = key(&mut window)?;
        match field {
            f::PERSON => accused.person = RawNumber::new(delimited(&mut window, found)?.bytes()),
            f::BUSINESS => accused.business = text(&mut window, found)?,
            f::RATE => accused.rate = enumeration(&mut window, found)?,
            f::TEMPLATE => accused.template = text(&mut window, found)?,
            _ => skip(&mut window, found)?,
        }
    }
    Ok(())
}

fn report_filed<'a, W: Window<'a>>(mut window: W, accused: &mut Accused<'a>) -> Result<(), Fault> {
    use fields::report_filed as f;
    while !window.is_empty() {
        let (field, found) = key(&mut window)?;
        match field {
            f::PERSON => accused.person = RawNumber::new(delimited(&mut window, found)?.bytes()),
            f::BUSINESS => accused.business = text(&mut window, found)?,
            f::AFTER_DELIVERY => accused.after_delivery = Some(flag(&mut window, found)?),
            f::RATE => accused.rate = enumeration(&mut window, found)?,
            f::TEMPLATE => accused.template = text(&mut window, found)?,
            f::REASON => unread_number(&mut window, found)?,
            _ => skip(&mut window, found)?,
        }
    }
    Ok(())
}

fn business_information<'a, W: Window<'a>>(mut window: W, told: &mut BusinessInformation<'a>) -> Result<(), Fault> {
    use fields::business_information as f;
    while !window.is_empty() {
        let (field, found) = key(&mut window)?;
        match field {
            f::BUSINESS => told.business = text(&mut window, found)?,
            f::PORTFOLIO => told.portfolio = text(&mut window, found)?,
            f::NAME => told.name = text(&mut window, found)?,
            f::CATEGORY => told.category = enumeration(&mut window, found)?,
            f::TIER => told.tier = enumeration(&mut window, found)?,
            _ => skip(&mut window, found)?,
        }
    }
    Ok(())
}

#[cfg(any(test, fuzzing))]
pub(crate) mod oracle;
#[cfg(test)]
mod tests;
