//! The checked-in inputs: seeds that this module makes, and what the fuzzer found beyond them.

use std::path::{Path, PathBuf};

use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};
use starling_schemas::event::event::Body;
use starling_schemas::event::{self as proto};

use crate::range::DAY;

/// The folder of a target's inputs.
#[must_use]
pub fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

/// A target's inputs, by file name.
///
/// # Panics
/// When there is none: a replay of nothing proves nothing.
#[must_use]
pub fn inputs(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = folder(target);
    let mut inputs: Vec<_> = std::fs::read_dir(&folder)
        .expect("corpus/ is checked in")
        .map(|entry| entry.expect("a folder that can be read").path())
        .map(|path| (path.file_name().unwrap_or_default().to_string_lossy().into_owned(), std::fs::read(path).expect("a file")))
        .collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "{} is empty", folder.display());
    inputs
}

/// One input made here: target, file name, bytes.
pub type Seed = (&'static str, String, Vec<u8>);

/// Every seed there is. File names begin with `seed-`.
#[must_use]
pub fn seeds() -> Vec<Seed> {
    let events = events();
    let mut seeds: Vec<Seed> = Vec::new();
    for (name, frame) in &events {
        seeds.push(("decoder", format!("seed-{name}"), frame.clone()));
    }
    let all: Vec<&[u8]> = events.iter().map(|(_, frame)| &frame[..]).collect();
    for (part, frames) in all.chunks(12).enumerate() {
        seeds.push(("range", format!("seed-events-{part}"), trace(frames)));
    }
    let packed = |content: &[u8]| zstd::stream::encode_all(content, 3).expect("memory");
    let small = trace(&all[..3]);
    let zipped = packed(&small);
    let huge = [&trace(&all[..1])[..], &varint(u64::MAX >> 1), b"little"].concat();
    for (name, file) in [
        ("plain", small.clone()),
        ("plain-cut", small[..small.len() - 3].to_vec()),
        ("empty-frames", trace(&[b"", b"", b"x", b""])),
        ("huge-length", huge.clone()),
        ("huge-length-zst", packed(&huge)),
        ("large-length", [&varint(60 << 20)[..], b"little"].concat()),
        ("endless-length", vec![0xff; 12]),
        ("zst", zipped.clone()),
        ("zst-cut", zipped[..zipped.len() - 5].to_vec()),
        ("zst-twice", [&zipped[..], &zipped].concat()),
        ("zst-and-rubbish", [&zipped[..], b"rubbish"].concat()),
        ("zst-bomb", packed(&vec![0; 3 << 20])),
    ] {
        seeds.push(("trace", format!("seed-{name}"), file));
    }
    for (name, path) in
        [("first", &[0_u64][..]), ("second", &[1, 1]), ("nested", &[2, 2, 0]), ("deep", &[3, 300, 5, 1]), ("none", &[0, 0])]
    {
        // The common path [0] is one byte 0; every other one is its length and its indexes, all zigzag.
        let path: Vec<u8> = path.iter().flat_map(|index| varint(index << 1)).collect();
        seeds.push(("framing", format!("seed-{name}"), [&[0, 0, 0, 0, 42][..], &path, all[0]].concat()));
    }
    seeds.push(("framing", "seed-plain".to_owned(), all[0].to_vec()));
    let beyond = [0x81, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x02];
    seeds.push(("framing", "seed-varint-beyond-64-bits".to_owned(), beyond.to_vec()));
    for (name, rest) in
        [("negative-count", &[3, 8][..]), ("too-many", &[0xfe, 0x7f, 8]), ("cut", &[4, 2]), ("endless", &[0xff; 11])]
    {
        seeds.push(("framing", format!("seed-{name}"), [&[0, 0, 0, 0, 1][..], rest].concat()));
    }
    for (place, written) in [
        "+4915112345678",
        " +49 (151) 1234-5678",
        "4915112345678",
        "+12025550143",
        "+1 (202) 555-0143",
        "+44 20 7946 0018",
        "+44 (0)20 7946 0018",
        "+44 020 7946 0018",
        "+39 06 698 1",
        "+390669812345",
        "+5491123456789",
        "+5215512345678",
        "+2901234",
        "123456789012345",
        "1234567890123456",
        "0049151123456",
        "+81-90-1234-5678",
        "+91 98765 43210",
        "+5511912345678",
        "+86 131 2345 6789",
        "+27.82.123.4567",
        "+7 912 345-67-89",
        "+37491123456",
        "+882161234567",
        "+49151x123456",
        "+",
    ]
    .iter()
    .enumerate()
    {
        for target in ["canonical", "plans"] {
            seeds.push((target, format!("seed-{place:02}"), written.as_bytes().to_vec()));
        }
    }
    seeds
}

/// Frames behind their lengths.
fn trace(frames: &[&[u8]]) -> Vec<u8> {
    frames.iter().flat_map(|frame| [&varint(frame.len() as u64)[..], frame].concat()).collect()
}

fn varint(value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    encode_varint(value, &mut out);
    out
}

fn field(number: u32, wire_type: WireType, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_key(number, wire_type, &mut out);
    if wire_type == WireType::LengthDelimited {
        encode_varint(value.len() as u64, &mut out);
    }
    out.extend_from_slice(value);
    out
}

/// One event of every kind with every field set, and what producers of other versions, or broken ones, make of them.
fn events() -> Vec<(String, Vec<u8>)> {
    let mut events: Vec<(String, Vec<u8>)> = Vec::new();
    for (name, body) in bodies() {
        events.push((name.to_owned(), event(body).encode_to_vec()));
    }
    let message = event(bodies().swap_remove(3).1);
    let good = message.encode_to_vec();
    let with = |change: fn(&mut proto::Event)| {
        let mut changed = message.clone();
        change(&mut changed);
        changed.encode_to_vec()
    };
    let body = |content: &[u8]| [&good[..], content].concat();
    let inside = |content: &[u8]| body(&field(19, WireType::LengthDelimited, content));
    let more: Vec<(&str, Vec<u8>)> = vec![
        ("empty", Vec::new()),
        ("guest", with(|e| e.actor.clear())),
        ("no-number", with(|e| "call me".clone_into(&mut e.actor))),
        ("minor", with(|e| e.choices.get_or_insert_default().age_band = 1)),
        ("no-choices", with(|e| e.choices = None)),
        ("no-consent", with(|e| e.choices.get_or_insert_default().analytics_consent = false)),
        ("yesterday", with(|e| e.event_time_ms -= 86_400_000)),
        ("after-midnight", with(|e| e.event_time_ms = DAY.start_ms() + 1)),
        ("long-ago", with(|e| e.event_time_ms -= 5 * 86_400_000)),
        ("no-time", with(|e| e.event_time_ms = 0)),
        (
            "negative-enums",
            with(|e| {
                e.client = Some(proto::Client { platform: -1, ..Default::default() });
                e.choices = Some(proto::Choices { age_band: i32::MIN, ..Default::default() });
            }),
        ),
        ("version-without-patch", with(|e| "26.4".clone_into(&mut e.client.get_or_insert_default().version))),
        ("version-capped", with(|e| "2.3000.1031-beta".clone_into(&mut e.client.get_or_insert_default().version))),
        ("version-is-a-number", with(|e| "4915112345678.2".clone_into(&mut e.client.get_or_insert_default().version))),
        ("version-is-words", with(|e| "26.words".clone_into(&mut e.client.get_or_insert_default().version))),
        ("unlisted-medium", inside(&[0x30, 0x81, 0x02])),
        ("old-account", with(|e| e.account_age_s = Some(604_800))),
        ("merged", [&good[..], &good].concat()),
        ("body-replaced", body(&event(bodies().swap_remove(4).1).encode_to_vec())),
        ("body-merged", inside(&[0x28, 0x02])),
        ("unknown-scalar", body(&field(900, WireType::Varint, &[1]))),
        ("unknown-content", body(&field(901, WireType::LengthDelimited, b"words that are nobody's business"))),
        ("unknown-inside", inside(&field(902, WireType::LengthDelimited, b"more of them"))),
        (
            "unknown-fixed",
            body(&[field(903, WireType::ThirtyTwoBit, &[7; 4]), field(904, WireType::SixtyFourBit, &[7; 8])].concat()),
        ),
        ("unknown-largest-number", body(&field((1 << 29) - 1, WireType::Varint, &[0]))),
        ("unknown-body", [&with(|e| e.body = None)[..], &field(37, WireType::LengthDelimited, b"\x0a\x01x")].concat()),
        ("group", body(&[&field(905, WireType::StartGroup, b"")[..], &field(905, WireType::EndGroup, b"")].concat())),
        ("packed", inside(&field(5, WireType::LengthDelimited, &[1, 2]))),
        ("wrong-wire-type", body(&[0x10, 0x2a])),
        ("overlong", inside(&[0x28, 0x81, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00])),
        ("beyond-64-bits", inside(&[0x28, 0x81, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x02])),
        ("cut", good[..good.len() - 1].to_vec()),
        ("length-beyond", body(&[0x12, 0x7f, b'4'])),
    ];
    events.extend(more.into_iter().map(|(name, frame)| (name.to_owned(), frame)));
    events
}

/// A willing adult's event at noon.
fn event(body: Body) -> proto::Event {
    proto::Event {
        event_time_ms: DAY.start_ms() + 43_200_000,
        actor: "+4915112345678".to_owned(),
        ip: vec![192, 0, 2, 77],
        client: Some(proto::Client { platform: 1, version: "2.26.1".to_owned(), os: "android 16".to_owned() }),
        region: "EU".to_owned(),
        choices: Some(proto::Choices {
            analytics_consent: true,
            age_band: 3,
            guardian_consent: true,
            linked: true,
            disappearing_timer: true,
        }),
        account_age_s: Some(86_400),
        cohort: b"0123456789abcdef".to_vec(),
        body: Some(body),
    }
}

/// Every kind, every field set.
fn bodies() -> Vec<(&'static str, Body)> {
    let id = || b"0123456789abcdef".to_vec();
    let other = || "+12025550143".to_owned();
    let business = || "b-1".to_owned();
    vec![
        ("account-registered", Body::AccountRegistered(proto::AccountRegistered { cohort: id() })),
        ("account-deleted", Body::AccountDeleted(proto::AccountDeleted {})),
        ("consent-changed", Body::ConsentChanged(proto::ConsentChanged { analytics_consent: true })),
        (
            "message-sent",
            Body::MessageSent(proto::MessageSent {
                to_person: other(),
                to_group: id(),
                to_business: business(),
                to_channel: id(),
                conversation: 1,
                media: 2,
                size: 1,
                thread_is_new: true,
                is_reply: true,
                to_new_account: Some(true),
            }),
        ),
        ("call-ended", Body::CallEnded(proto::CallEnded { peer: other(), kind: 2, duration_s: 61, quality: 1, missed: true })),
        ("status-posted", Body::StatusPosted(proto::StatusPosted { media: 2 })),
        ("channel-viewed", Body::ChannelViewed(proto::ChannelViewed { channel: id() })),
        ("feature-used", Body::FeatureUsed(proto::FeatureUsed { feature: 3 })),
        ("ai-invoked", Body::AiInvoked(proto::AiInvoked { surface: 1 })),
        ("app-crashed", Body::AppCrashed(proto::AppCrashed { site: 2 })),
        ("group-created", Body::GroupCreated(proto::GroupCreated { group: id(), size: 9 })),
        ("members-added", Body::MembersAdded(proto::MembersAdded { group: id(), count: 5, strangers: 4 })),
        ("group-joined", Body::GroupJoinedByLink(proto::GroupJoinedByLink { group: id(), link: id() })),
        ("group-left", Body::GroupLeft(proto::GroupLeft { group: id(), after_s: 300 })),
        (
            "group-profile",
            Body::GroupProfileChanged(proto::GroupProfileChanged {
                group: id(),
                name_hash: id(),
                description_hash: id(),
                photo_hash: id(),
            }),
        ),
        ("group-reported", Body::GroupReported(proto::GroupReported { group: id(), reason: 1, rate: 3 })),
        (
            "business-message",
            Body::BusinessMessage(proto::BusinessMessage {
                stage: 1,
                business: business(),
                portfolio: "p-1".to_owned(),
                template: "t".to_owned(),
                category: 1,
                tier: 3,
            }),
        ),
        (
            "user-blocked",
            Body::UserBlocked(proto::UserBlocked { person: other(), business: business(), rate: 2, template: "t".to_owned() }),
        ),
        (
            "report-filed",
            Body::ReportFiled(proto::ReportFiled {
                person: other(),
                business: business(),
                reason: 1,
                after_delivery: Some(true),
                rate: 4,
                template: "t".to_owned(),
            }),
        ),
        (
            "business-information",
            Body::BusinessInformation(proto::BusinessInformation {
                business: business(),
                portfolio: "p-1".to_owned(),
                name: "a name".to_owned(),
                category: 1,
                tier: 3,
            }),
        ),
        (
            "business-information-of-another-name",
            Body::BusinessInformation(proto::BusinessInformation {
                business: business(),
                name: "two\r\nlines\0, \u{202e}+49 (1512) 345-67 89 \u{661}\u{200b}".to_owned(),
                ..Default::default()
            }),
        ),
        ("contacts-uploaded", Body::ContactsUploaded(proto::ContactsUploaded {})),
    ]
}
