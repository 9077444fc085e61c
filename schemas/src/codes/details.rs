//! What rows say beyond country, platform and activity: which version of the client, which kind of the activity, how old the account. Each
//! is one small number, so that a person row stays small and coarse.

use std::fmt;

use super::{Activity, Category};

closed_list! {
    /// What kind of thing was sent or posted; numbers as in `event.proto`.
    Media {
        /// Text.
        Text = 1 "text",
        /// A picture.
        Image = 2 "image",
        /// A film.
        Video = 3 "video",
        /// A voice note or other sound.
        Audio = 4 "audio",
        /// A document.
        Document = 5 "document",
        /// A sticker.
        Sticker = 6 "sticker",
        /// A poll.
        Poll = 7 "poll",
        /// A contact's card.
        ContactCard = 8 "contact_card",
    }
}

closed_list! {
    /// How a call went, as the client says; numbers as in `event.proto`, and one for a call that nobody took.
    CallQuality {
        /// Good.
        Good = 1 "good",
        /// Fair.
        Fair = 2 "fair",
        /// Poor.
        Poor = 3 "poor",
        /// Broken off.
        Dropped = 4 "dropped",
        /// Not taken: there was nothing that could be good or poor.
        Missed = 5 "missed",
    }
}

closed_list! {
    /// A feature, or the place from which an AI feature was started; numbers as in `event.proto`.
    ///
    /// Click-to-chat (9) and payments (10) are not on the list: they have terms of their own and are joined with nothing (P20). Their use is
    /// a feature used, and which one is not said.
    Feature {
        /// Search.
        Search = 1 "search",
        /// An answer to a status.
        StatusReply = 2 "status_reply",
        /// A reaction.
        Reaction = 3 "reaction",
        /// A vote in a poll.
        PollVote = 4 "poll_vote",
        /// Sharing the screen.
        ScreenShare = 5 "screen_share",
        /// Following a channel.
        ChannelFollow = 6 "channel_follow",
        /// A backup.
        Backup = 7 "backup",
        /// Linking a device.
        LinkedDevice = 8 "linked_device",
    }
}

closed_list! {
    /// Where in the client a crash happened; numbers as in `event.proto`.
    CrashSite {
        /// While starting.
        Startup = 1 "startup",
        /// In a chat.
        Chat = 2 "chat",
        /// In a call.
        Call = 3 "call",
        /// In pictures, films and sounds.
        Media = 4 "media",
        /// In the background.
        Background = 5 "background",
    }
}

closed_list! {
    /// How many members a group was created with.
    GroupSize {
        /// A family.
        UpTo8 = 1 "up_to_8",
        /// A class.
        From9To32 = 2 "9_to_32",
        /// A club.
        From33To128 = 3 "33_to_128",
        /// A neighbourhood.
        From129To512 = 4 "129_to_512",
        /// More than that.
        Over512 = 5 "over_512",
    }
}

impl GroupSize {
    /// The bucket of a number of members; `None` where nothing is said.
    #[must_use]
    pub const fn of(members: u32) -> Option<Self> {
        Some(match members {
            0 => return None,
            1..=8 => Self::UpTo8,
            9..=32 => Self::From9To32,
            33..=128 => Self::From33To128,
            129..=512 => Self::From129To512,
            _ => Self::Over512,
        })
    }
}

closed_list! {
    /// How old an account is, and no closer than that.
    AccountAge {
        /// Not said.
        Unknown = 0 "unknown",
        /// Registered less than seven days ago.
        FirstWeek = 1 "first_week",
        /// Older.
        Older = 2 "older",
    }
}

impl AccountAge {
    /// Seconds in a week.
    const WEEK_S: u64 = 7 * 86_400;

    /// By the seconds since the account was registered.
    #[must_use]
    pub const fn of(age_s: Option<u64>) -> Self {
        match age_s {
            None => Self::Unknown,
            Some(0..Self::WEEK_S) => Self::FirstWeek,
            Some(_) => Self::Older,
        }
    }
}

/// The name of detail 0: nothing is said, or the activity has no details.
pub const NO_DETAIL: &str = "none";

/// What is said of an activity beyond its kind: a number of the closed list that the activity chooses ([`Activity::details`]), or 0. Made from
/// members of those lists only, so that nothing else can get into a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Detail(u8);

impl Detail {
    /// Nothing is said.
    pub const NONE: Self = Self(0);

    /// The number in columns.
    #[must_use]
    pub const fn code(self) -> u8 {
        self.0
    }
}

macro_rules! details_from {
    ($($list:ident),*) => { $(
        impl From<$list> for Detail {
            fn from(listed: $list) -> Self {
                Self(listed.code())
            }
        }
    )* };
}

details_from!(Media, CallQuality, Feature, CrashSite, GroupSize, Category);

impl Activity {
    /// Every detail this activity may have, as number and name; 0, [`NO_DETAIL`], may always be.
    #[must_use]
    pub const fn details(self) -> &'static [(u8, &'static str)] {
        match self {
            Self::MessagePerson | Self::MessageGroup | Self::MessageBusiness | Self::MessageChannel | Self::StatusPosted => {
                Media::NAMES
            }
            Self::CallVoice | Self::CallVideo | Self::CallGroupVoice | Self::CallGroupVideo => CallQuality::NAMES,
            Self::FeatureUsed | Self::AiInvoked => Feature::NAMES,
            Self::AppCrashed => CrashSite::NAMES,
            Self::GroupCreated => GroupSize::NAMES,
            Self::BusinessSent | Self::BusinessDelivered | Self::BusinessRead | Self::BusinessReplied => match Category::NAMES {
                // An unknown category is no detail.
                [(0, _), listed @ ..] => listed,
                listed => listed,
            },
            Self::ChannelViewed | Self::AccountRegistered => &[],
        }
    }
}

/// The name of a detail of an activity; [`NO_DETAIL`] for 0 and for what is not on the activity's list.
#[must_use]
pub fn detail_name(activity: Activity, detail: u8) -> &'static str {
    activity.details().iter().find(|(code, _)| *code == detail).map_or(NO_DETAIL, |(_, name)| name)
}

/// The number of a detail of an activity by its name; `None` for what is not on the activity's list.
#[must_use]
pub fn detail_code(activity: Activity, name: &str) -> Option<u8> {
    if name == NO_DETAIL {
        return Some(Detail::NONE.code());
    }
    activity.details().iter().find(|(_, listed)| *listed == name).map(|(code, _)| *code)
}

/// Major and minor version of a client, packed into 16 bits so that versions sort (P19: nothing finer is kept). Each stops at 255, which
/// stands for 255 and all above.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ClientVersion(u16);

impl ClientVersion {
    /// Not said, or no version.
    pub const UNKNOWN: Self = Self(0);

    /// Takes the two numbers.
    #[must_use]
    #[allow(clippy::cast_possible_truncation)]
    pub const fn new(major: u32, minor: u32) -> Self {
        const fn capped(number: u32) -> u8 {
            if number > 0xff { 0xff } else { number as u8 }
        }
        Self(u16::from_be_bytes([capped(major), capped(minor)]))
    }

    /// Takes the packed form.
    #[must_use]
    pub const fn from_code(code: u16) -> Self {
        Self(code)
    }

    /// The packed form, for a column.
    #[must_use]
    pub const fn code(self) -> u16 {
        self.0
    }

    /// The version of a name that `Display` gives, such as `26.4`.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let (major, minor) = name.split_once('.').or((name == "unknown").then_some(("0", "0")))?;
        let number = |text: &str| text.strip_suffix('+').unwrap_or(text).parse::<u8>().ok().map(u32::from);
        Some(Self::new(number(major)?, number(minor)?)).filter(|version| version.to_string() == name)
    }
}

/// `26.4`, `3.255+` where a number stands at its most, `unknown`.
impl fmt::Display for ClientVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::UNKNOWN {
            return f.pad("unknown");
        }
        let [major, minor] = self.0.to_be_bytes();
        let more = |number| if number == u8::MAX { "+" } else { "" };
        f.pad(&format!("{major}{}.{minor}{}", more(major), more(minor)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_detail_of_every_activity_has_a_name_that_leads_back() {
        for activity in Activity::ALL {
            assert_eq!(detail_name(*activity, 0), NO_DETAIL);
            assert_eq!(detail_code(*activity, NO_DETAIL), Some(0));
            for (code, name) in activity.details() {
                assert_ne!(*code, 0, "{activity}: 0 is for nothing");
                assert_ne!(*name, NO_DETAIL, "{activity}");
                assert_eq!((detail_name(*activity, *code), detail_code(*activity, name)), (*name, Some(*code)));
            }
            let past = activity.details().iter().map(|(code, _)| code + 1).max().unwrap_or(1);
            assert_eq!(detail_name(*activity, past), NO_DETAIL);
            assert_eq!(detail_code(*activity, "unheard-of"), None);
        }
        assert_eq!(detail_name(Activity::CallVideo, CallQuality::Missed.code()), "missed");
        assert_eq!(detail_name(Activity::MessageGroup, Media::Image.code()), "image");
        assert_eq!(detail_name(Activity::BusinessRead, Category::Marketing.code()), "marketing");
    }

    #[test]
    fn p20_payments_and_click_to_chat_have_no_detail() {
        let names: Vec<&str> = Activity::ALL.iter().flat_map(|a| a.details()).map(|(_, name)| *name).collect();
        assert!(!names.iter().any(|name| name.contains("payment") || name.contains("click")), "{names:?}");
    }

    #[test]
    fn sizes_and_ages_change_bucket_where_they_say() {
        let size = |members| GroupSize::of(members).map(GroupSize::name);
        assert_eq!(size(0), None);
        for (from, to, name) in
            [(1, 8, "up_to_8"), (9, 32, "9_to_32"), (33, 128, "33_to_128"), (129, 512, "129_to_512"), (513, u32::MAX, "over_512")]
        {
            assert_eq!((size(from), size(to)), (Some(name), Some(name)));
        }
        let ages = [None, Some(0), Some(604_799), Some(604_800), Some(u64::MAX)].map(|age| AccountAge::of(age).name());
        assert_eq!(ages, ["unknown", "first_week", "first_week", "older", "older"]);
    }

    #[test]
    fn p19_a_version_is_two_small_numbers_that_sort_and_lead_back() {
        let versions = [
            (ClientVersion::UNKNOWN, "unknown"),
            (ClientVersion::new(0, 9), "0.9"),
            (ClientVersion::new(2, 26), "2.26"),
            (ClientVersion::new(2, 3_000), "2.255+"),
            (ClientVersion::new(26, 0), "26.0"),
            (ClientVersion::new(u32::MAX, 1), "255+.1"),
        ];
        assert!(versions.is_sorted());
        for (version, name) in versions {
            assert_eq!(version.to_string(), name);
            assert_eq!(ClientVersion::parse(name), Some(version));
            assert_eq!(ClientVersion::from_code(version.code()), version);
        }
        for wrong in ["", "2", "2.", ".2", "2.26.1", "02.26", "2.255", "256.1", "+2.1", "2.+1", "0.0", "2.1 "] {
            assert_eq!(ClientVersion::parse(wrong), None, "{wrong}");
        }
    }
}
