//! Closed lists. What is not on a list cannot be written as a label, a dimension or a count.
//!
//! [`Detail`] and what it may say, [`ClientVersion`] and [`AccountAge`] are in `details.rs`.

use std::fmt;

/// Every country and territory a calling code can lead to: ISO 3166-1 alpha-2, with `XK` (Kosovo), `AC` and `TA` (which have calling
/// codes of their own) and `ZZ` for unknown and for numbers of no country, such as satellite networks.
pub const COUNTRIES: &[&str] = &[
    "AC", "AD", "AE", "AF", "AG", "AI", "AL", "AM", "AO", "AQ", "AR", "AS", "AT", "AU", "AW", "AX", "AZ", "BA", "BB", "BD", "BE",
    "BF", "BG", "BH", "BI", "BJ", "BL", "BM", "BN", "BO", "BQ", "BR", "BS", "BT", "BV", "BW", "BY", "BZ", "CA", "CC", "CD", "CF",
    "CG", "CH", "CI", "CK", "CL", "CM", "CN", "CO", "CR", "CU", "CV", "CW", "CX", "CY", "CZ", "DE", "DJ", "DK", "DM", "DO", "DZ",
    "EC", "EE", "EG", "EH", "ER", "ES", "ET", "FI", "FJ", "FK", "FM", "FO", "FR", "GA", "GB", "GD", "GE", "GF", "GG", "GH", "GI",
    "GL", "GM", "GN", "GP", "GQ", "GR", "GS", "GT", "GU", "GW", "GY", "HK", "HM", "HN", "HR", "HT", "HU", "ID", "IE", "IL", "IM",
    "IN", "IO", "IQ", "IR", "IS", "IT", "JE", "JM", "JO", "JP", "KE", "KG", "KH", "KI", "KM", "KN", "KP", "KR", "KW", "KY", "KZ",
    "LA", "LB", "LC", "LI", "LK", "LR", "LS", "LT", "LU", "LV", "LY", "MA", "MC", "MD", "ME", "MF", "MG", "MH", "MK", "ML", "MM",
    "MN", "MO", "MP", "MQ", "MR", "MS", "MT", "MU", "MV", "MW", "MX", "MY", "MZ", "NA", "NC", "NE", "NF", "NG", "NI", "NL", "NO",
    "NP", "NR", "NU", "NZ", "OM", "PA", "PE", "PF", "PG", "PH", "PK", "PL", "PM", "PN", "PR", "PS", "PT", "PW", "PY", "QA", "RE",
    "RO", "RS", "RU", "RW", "SA", "SB", "SC", "SD", "SE", "SG", "SH", "SI", "SJ", "SK", "SL", "SM", "SN", "SO", "SR", "SS", "ST",
    "SV", "SX", "SY", "SZ", "TA", "TC", "TD", "TF", "TG", "TH", "TJ", "TK", "TL", "TM", "TN", "TO", "TR", "TT", "TV", "TW", "TZ",
    "UA", "UG", "UM", "US", "UY", "UZ", "VA", "VC", "VE", "VG", "VI", "VN", "VU", "WF", "WS", "XK", "YE", "YT", "ZA", "ZM", "ZW",
    "ZZ",
];

/// A country as its two ISO 3166-1 letters, packed into 16 bits, big end first: stable in files for ever.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Country(u16);

impl Country {
    /// No country: unknown, or a number that belongs to none.
    pub const UNKNOWN: Self = Self::pack(*b"ZZ");

    const fn pack(letters: [u8; 2]) -> Self {
        Self(u16::from_be_bytes(letters))
    }

    /// Takes two letters that stand in [`COUNTRIES`].
    #[must_use]
    pub fn parse(code: &str) -> Option<Self> {
        let &[a, b] = code.as_bytes() else { return None };
        COUNTRIES.binary_search(&code).ok().map(|_| Self::pack([a, b]))
    }

    /// Takes the packed form; anything not on the list is [`Country::UNKNOWN`].
    #[must_use]
    pub fn from_code(code: u16) -> Self {
        let letters = code.to_be_bytes();
        std::str::from_utf8(&letters).ok().and_then(Self::parse).unwrap_or(Self::UNKNOWN)
    }

    /// The packed form, for a column.
    #[must_use]
    pub const fn code(self) -> u16 {
        self.0
    }

    /// The two letters.
    #[must_use]
    pub fn name(self) -> &'static str {
        let letters = self.0.to_be_bytes();
        COUNTRIES.iter().find(|c| c.as_bytes() == letters).copied().unwrap_or("ZZ")
    }
}

impl fmt::Debug for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

macro_rules! closed_list {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $code:literal $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum $name { $($(#[$vdoc])* $variant = $code,)* }

        impl $name {
            /// The whole list, in code order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The whole list as numbers in columns and their names.
            pub const NAMES: &'static [(u8, &'static str)] = &[$(($code, $text),)*];

            /// The name in tables, labels and files.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The number in columns.
            #[must_use]
            pub const fn code(self) -> u8 {
                self as u8
            }

            /// The member with this number, if there is one.
            #[must_use]
            pub const fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)* _ => None }
            }

            /// The member with this name, if there is one.
            #[must_use]
            pub fn parse(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|v| v.name() == name)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }
    };
}

mod details;

pub use details::{
    AccountAge, CallQuality, ClientVersion, CrashSite, Detail, Feature, GroupSize, Media, NO_DETAIL, detail_code, detail_name,
};

closed_list! {
    /// The client platform; numbers as in `event.proto`.
    PlatformCode {
        /// Absent, or newer than this list.
        Unknown = 0 "unknown",
        /// Android.
        Android = 1 "android",
        /// iPhone.
        Iphone = 2 "iphone",
        /// Browser.
        Web = 3 "web",
        /// Desktop application.
        Desktop = 4 "desktop",
        /// Feature phones.
        Kaios = 5 "kaios",
        /// A business's own system.
        CloudApi = 6 "cloud_api",
    }
}

closed_list! {
    /// How many blocks and reports an account filed in the 30 days before one; numbers as in `event.proto`.
    #[derive(Default)]
    ReporterRate {
        /// Absent, or newer than this list.
        #[default]
        Unknown = 0 "unknown",
        /// None.
        Never = 1 "never",
        /// One to three.
        Few = 2 "few",
        /// Four to fifteen.
        Several = 3 "several",
        /// Sixteen or more.
        Many = 4 "many",
    }
}

closed_list! {
    /// The kind of conversation (P60); numbers as in `event.proto`.
    Conversation {
        /// One-to-one.
        Person = 1 "person",
        /// In a group.
        Group = 2 "group",
        /// With a business.
        Business = 3 "business",
        /// To a channel.
        Channel = 4 "channel",
    }
}

closed_list! {
    /// What a clean row says happened. The only activity classes analytics knows.
    Activity {
        /// A one-to-one message was sent.
        MessagePerson = 1 "message_person",
        /// A message was sent to a group.
        MessageGroup = 2 "message_group",
        /// A message was sent to a business.
        MessageBusiness = 3 "message_business",
        /// A message was sent to a channel.
        MessageChannel = 4 "message_channel",
        /// A voice call between two ended.
        CallVoice = 5 "call_voice",
        /// A video call between two ended.
        CallVideo = 6 "call_video",
        /// A voice call of a group ended.
        CallGroupVoice = 7 "call_group_voice",
        /// A video call of a group ended.
        CallGroupVideo = 8 "call_group_video",
        /// A status was posted.
        StatusPosted = 9 "status_posted",
        /// A channel was viewed.
        ChannelViewed = 10 "channel_viewed",
        /// A feature was used.
        FeatureUsed = 11 "feature_used",
        /// An AI feature was started by the person (P8).
        AiInvoked = 12 "ai_invoked",
        /// The client crashed.
        AppCrashed = 13 "app_crashed",
        /// The account was registered.
        AccountRegistered = 14 "account_registered",
        /// A group was created.
        GroupCreated = 15 "group_created",
        /// A business message was sent to the person: nothing the person did.
        BusinessSent = 16 "business_sent",
        /// A business message was delivered to the person: nothing the person did.
        BusinessDelivered = 17 "business_delivered",
        /// The person read a business message.
        BusinessRead = 18 "business_read",
        /// The person replied to a business message.
        BusinessReplied = 19 "business_replied",
    }
}

impl Activity {
    /// The conversation kind of a message activity; `None` for everything else.
    #[must_use]
    pub const fn conversation(self) -> Option<Conversation> {
        match self {
            Self::MessagePerson => Some(Conversation::Person),
            Self::MessageGroup => Some(Conversation::Group),
            Self::MessageBusiness => Some(Conversation::Business),
            Self::MessageChannel => Some(Conversation::Channel),
            _ => None,
        }
    }

    /// Whether the person did it, or it was done to them.
    #[must_use]
    pub const fn is_active(self) -> bool {
        !matches!(self, Self::BusinessSent | Self::BusinessDelivered)
    }
}

closed_list! {
    /// Why an event that could be read was not counted for statistics. It may still give an integrity signal.
    Refusal {
        /// The person did not consent to analytics (P55).
        NoConsent = 1 "no_consent",
        /// Under 13, or under 18 without a guardian's consent (P56).
        Minor = 2 "minor",
        /// The age band is not stated: nothing may be assumed (I8).
        AgeUnknown = 3 "age_unknown",
        /// A guest, or a business's own event: there is no person to count, and none is invented (P58).
        NoSubject = 4 "no_subject",
        /// This kind of event may serve safety or billing only (P6).
        NotForAnalytics = 5 "not_for_analytics",
        /// An address book (P5).
        ContactList = 6 "contact_list",
    }
}

closed_list! {
    /// Why a frame could not be read. The frame's bytes are kept nowhere.
    Fault {
        /// Zero bytes.
        Empty = 1 "empty",
        /// Truncated, an overlong varint, or a length beyond the frame.
        Malformed = 2 "malformed",
        /// A known field with another wire type than the schema says.
        WrongWireType = 3 "wrong_wire_type",
        /// Larger than a metadata event can be.
        TooLarge = 4 "too_large",
        /// No event time, or one before 2009 or too far ahead of the clock.
        TimeOutOfRange = 5 "time_out_of_range",
        /// The actor's number is no E.164 number.
        InvalidNumber = 6 "invalid_number",
        /// No body this version knows.
        UnknownEvent = 7 "unknown_event",
    }
}

/// What became of one event (I1): it is exactly one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// In a person row.
    Counted,
    /// Its window had closed before it came.
    Late,
    /// Readable, but not for statistics.
    Refused(Refusal),
    /// Unreadable.
    Quarantined(Fault),
}

impl Outcome {
    /// The name under which it is counted, such as `refused:no_consent`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Counted => "counted",
            Self::Late => "late",
            Self::Refused(Refusal::NoConsent) => "refused:no_consent",
            Self::Refused(Refusal::Minor) => "refused:minor",
            Self::Refused(Refusal::AgeUnknown) => "refused:age_unknown",
            Self::Refused(Refusal::NoSubject) => "refused:no_subject",
            Self::Refused(Refusal::NotForAnalytics) => "refused:not_for_analytics",
            Self::Refused(Refusal::ContactList) => "refused:contact_list",
            Self::Quarantined(Fault::Empty) => "quarantined:empty",
            Self::Quarantined(Fault::Malformed) => "quarantined:malformed",
            Self::Quarantined(Fault::WrongWireType) => "quarantined:wrong_wire_type",
            Self::Quarantined(Fault::TooLarge) => "quarantined:too_large",
            Self::Quarantined(Fault::TimeOutOfRange) => "quarantined:time_out_of_range",
            Self::Quarantined(Fault::InvalidNumber) => "quarantined:invalid_number",
            Self::Quarantined(Fault::UnknownEvent) => "quarantined:unknown_event",
        }
    }

    /// All outcomes there are.
    pub fn all() -> impl Iterator<Item = Self> {
        [Self::Counted, Self::Late]
            .into_iter()
            .chain(Refusal::ALL.iter().copied().map(Self::Refused))
            .chain(Fault::ALL.iter().copied().map(Self::Quarantined))
    }
}

closed_list! {
    /// What an integrity signal says happened.
    SignalKind {
        /// A person sent a message (any conversation kind).
        MessageSent = 1 "message_sent",
        /// A business message came to stage "sent"; `person` is the one it went to.
        BusinessSent = 2 "business_sent",
        /// A person replied to a business.
        BusinessReplied = 3 "business_replied",
        /// A person or business was blocked; the blocker is not here.
        Blocked = 4 "blocked",
        /// A person or business was reported; the reporter is not here (P23).
        Reported = 5 "reported",
        /// Members were added to a group; who and by whom is not here.
        MembersAdded = 6 "members_added",
        /// Somebody joined a group by link.
        GroupJoined = 7 "group_joined",
        /// Somebody left a group.
        GroupLeft = 8 "group_left",
        /// A group was reported.
        GroupReported = 9 "group_reported",
        /// A group was created.
        GroupCreated = 10 "group_created",
        /// A person wrote to one other person: `person` is the sender, `pair` a token of the direction. To whom is not here.
        Contact = 11 "contact",
        /// The same message as a possible answer: `pair` is the token of the other direction, and nobody is here.
        Answered = 12 "answered",
        /// A person created a group, within the hour that begins at the row's time: `person` is the creator. Which group is not here.
        GroupMade = 13 "group_made",
        /// A group's name, description or photo is on one of the operator's lists. The hash is not here, nor who changed it.
        GroupListed = 14 "group_listed",
    }
}

closed_list! {
    /// What of a group is on one of the operator's lists.
    ProfileField {
        /// Its name.
        Name = 1 "name",
        /// Its description.
        Description = 2 "description",
        /// Its photo.
        Photo = 3 "photo",
    }
}

closed_list! {
    /// Messaging limit of a business: unique people in 24 hours; numbers as in `event.proto`.
    Tier {
        /// Not stated.
        Unknown = 0 "unknown",
        /// 250.
        T250 = 1 "250",
        /// 2,000.
        T2k = 2 "2k",
        /// 10,000.
        T10k = 3 "10k",
        /// 100,000.
        T100k = 4 "100k",
        /// No limit.
        Unlimited = 5 "unlimited",
    }
}

impl Tier {
    /// Unique people in 24 hours; `None` where there is no limit.
    #[must_use]
    pub const fn people_per_day(self) -> Option<u32> {
        match self {
            Self::Unknown | Self::T250 => Some(250),
            Self::T2k => Some(2_000),
            Self::T10k => Some(10_000),
            Self::T100k => Some(100_000),
            Self::Unlimited => None,
        }
    }
}

closed_list! {
    /// Template category of a business message; numbers as in `event.proto`.
    Category {
        /// Not stated.
        Unknown = 0 "unknown",
        /// Promotions.
        Marketing = 1 "marketing",
        /// Orders, deliveries, flights.
        Utility = 2 "utility",
        /// One-time passcodes.
        Authentication = 3 "authentication",
        /// Answers to the person.
        Service = 4 "service",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn countries_are_sorted_and_survive_packing() {
        assert!(COUNTRIES.is_sorted());
        for code in COUNTRIES {
            let country = Country::parse(code).expect("listed");
            assert_eq!(country.name(), *code);
            assert_eq!(Country::from_code(country.code()), country);
        }
        assert_eq!(Country::parse("xx"), None);
        assert_eq!(Country::from_code(0), Country::UNKNOWN);
    }

    #[test]
    fn every_outcome_has_its_own_label() {
        let labels: std::collections::HashSet<_> = Outcome::all().map(Outcome::label).collect();
        assert_eq!(labels.len(), Outcome::all().count());
    }

    #[test]
    fn codes_and_names_lead_back() {
        for activity in Activity::ALL {
            assert_eq!(Activity::from_code(activity.code()), Some(*activity));
            assert_eq!(Activity::parse(activity.name()), Some(*activity));
        }
    }
}
