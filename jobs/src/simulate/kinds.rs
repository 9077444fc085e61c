//! Which kind of thing happens, where there are several: drawn here for the events, and read off them for the truth.

use starling_schemas::codes::{self, Detail};
use starling_schemas::event::event::Body;
use starling_schemas::event::{CallQuality, CrashSite, Feature, MediaKind, ReportReason, SizeClass};

use super::rng::Draw;
use super::versions::Release;

/// Of a message.
pub(super) fn media(draw: &mut Draw) -> MediaKind {
    match draw.below(100) {
        0..71 => MediaKind::Text,
        71..83 => MediaKind::Image,
        83..87 => MediaKind::Video,
        87..93 => MediaKind::Audio,
        93..95 => MediaKind::Document,
        95..98 => MediaKind::Sticker,
        98 => MediaKind::Poll,
        _ => MediaKind::ContactCard,
    }
}

/// Of a status.
pub(super) fn status_media(draw: &mut Draw) -> MediaKind {
    match draw.below(100) {
        0..56 => MediaKind::Image,
        56..84 => MediaKind::Video,
        84..97 => MediaKind::Text,
        _ => MediaKind::Audio,
    }
}

pub(super) fn size(media: MediaKind, draw: &mut Draw) -> SizeClass {
    match media {
        MediaKind::Text | MediaKind::Poll | MediaKind::ContactCard => SizeClass::UpTo1Kib,
        MediaKind::Sticker => SizeClass::UpTo64Kib,
        MediaKind::Video if draw.below(3) == 0 => SizeClass::Larger,
        MediaKind::Video => SizeClass::UpTo16Mib,
        _ if draw.below(3) == 0 => SizeClass::UpTo16Mib,
        _ => SizeClass::UpTo1Mib,
    }
}

/// Of a call that was taken; `video` needs more of the network.
pub(super) fn quality(video: bool, draw: &mut Draw) -> CallQuality {
    let (good, fair, poor) = if video { (66, 85, 94) } else { (76, 91, 97) };
    match draw.below(100) {
        n if n < good => CallQuality::Good,
        n if n < fair => CallQuality::Fair,
        n if n < poor => CallQuality::Poor,
        _ => CallQuality::Dropped,
    }
}

pub(super) fn feature(draw: &mut Draw) -> Feature {
    Feature::try_from(1 + draw.below(10).min(draw.below(10)) as i32).unwrap_or(Feature::Search)
}

/// From where an AI feature is started.
pub(super) fn surface(draw: &mut Draw) -> Feature {
    match draw.below(10) {
        0..7 => Feature::Search,
        7..9 => Feature::StatusReply,
        _ => Feature::ScreenShare,
    }
}

/// Mostly where the release is weak, else anywhere.
pub(super) fn crash_site(release: &Release, draw: &mut Draw) -> CrashSite {
    match release.weak {
        Some(site) if draw.below(100) < 70 => site,
        _ => CrashSite::try_from(1 + draw.below(5) as i32).unwrap_or(CrashSite::Unspecified),
    }
}

pub(super) fn reason(draw: &mut Draw) -> ReportReason {
    match draw.below(100) {
        0..60 => ReportReason::Spam,
        60..80 => ReportReason::Scam,
        80..90 => ReportReason::Harassment,
        90..95 => ReportReason::Abuse,
        _ => ReportReason::Other,
    }
}

/// The detail statistics may see of an event.
pub(super) fn detail(body: &Body) -> Detail {
    fn listed<L: Into<Detail>>(value: i32, list: fn(u8) -> Option<L>) -> Detail {
        u8::try_from(value).ok().and_then(list).map_or(Detail::NONE, L::into)
    }
    match body {
        Body::MessageSent(message) => listed(message.media, codes::Media::from_code),
        Body::StatusPosted(status) => listed(status.media, codes::Media::from_code),
        Body::CallEnded(call) if call.missed => codes::CallQuality::Missed.into(),
        Body::CallEnded(call) => listed(call.quality, codes::CallQuality::from_code),
        Body::FeatureUsed(used) => listed(used.feature, codes::Feature::from_code),
        Body::AiInvoked(started) => listed(started.surface, codes::Feature::from_code),
        Body::AppCrashed(crash) => listed(crash.site, codes::CrashSite::from_code),
        Body::GroupCreated(created) => codes::GroupSize::of(created.size).map_or(Detail::NONE, Detail::from),
        Body::BusinessMessage(message) => listed(message.category, codes::Category::from_code),
        _ => Detail::NONE,
    }
}
