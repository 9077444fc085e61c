use proptest::prelude::*;
use prost::Message as _;
use starling_schemas::event as proto;
use starling_schemas::fields::FIELDS;

use super::oracle::{WALKED, check};
use super::*;
use crate::wire::Poisoned;

mod wire_level;

fn read<'a>(frame: impl Window<'a>) -> Result<Event<'a>, Fault> {
    let mut read = Event::default();
    event(frame, &mut read).map(|()| read)
}

fn delimited_field(number: u32, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, &mut out);
    prost::encoding::encode_varint(content.len() as u64, &mut out);
    out.extend_from_slice(content);
    out
}

fn field_of_wire_type(number: u32, wire_type: u8) -> Vec<u8> {
    let mut out = Vec::new();
    prost::encoding::encode_varint(u64::from(number) << 3 | u64::from(wire_type), &mut out);
    out.extend_from_slice(match wire_type {
        0 => &[1],
        1 => &[0; 8],
        2 => &[0],
        _ => &[0; 4],
    });
    out
}

#[test]
fn every_known_field_is_held_to_its_wire_type() {
    for field in FIELDS {
        let wrap = |inner: Vec<u8>| match WALKED.iter().find(|(message, _)| *message == field.message) {
            Some((_, member)) => Some(delimited_field(*member, &inner)),
            None if field.message == "Event" => Some(inner),
            // Only the presence of these messages counts: their inside is not walked.
            None => None,
        };
        for wire_type in [0, 1, 2, 5] {
            let Some(frame) = wrap(field_of_wire_type(field.number, wire_type)) else { continue };
            let expected = if wire_type == field.wire_type { None } else { Some(Fault::WrongWireType) };
            assert_eq!(read(&frame[..]).err(), expected, "{}.{} as wire type {wire_type}", field.message, field.field);
        }
        for group in [3, 4, 6, 7] {
            let Some(frame) = wrap(field_of_wire_type(field.number, group)) else { continue };
            assert_eq!(read(&frame[..]).err(), Some(Fault::Malformed), "{}.{} as wire type {group}", field.message, field.field);
        }
    }
}

#[test]
fn every_member_of_body_is_known() {
    for field in FIELDS.iter().filter(|f| f.message == "Event" && f.number >= 16) {
        let frame = delimited_field(field.number, &[]);
        let Ok(event) = read(&frame[..]) else { panic!("an empty body is a body") };
        assert!(!matches!(event.body, Body::Absent), "Event.{} was added to event.proto: say what becomes of it", field.field);
    }
}

#[test]
fn p1_p2_p4_what_is_not_on_the_list_is_never_touched() {
    let content = vec![0xff; 10_000];
    let event = |body| proto::Event { event_time_ms: 1, actor: "+4915112345678".into(), body: Some(body), ..Default::default() };
    let message = proto::event::Body::MessageSent(proto::MessageSent { conversation: 1, ..Default::default() });
    let base = event(message).encode_to_vec();
    let call = event(proto::event::Body::CallEnded(proto::CallEnded { kind: 1, ..Default::default() })).encode_to_vec();
    let inside = |member, number| (base.clone(), delimited_field(member, &delimited_field(number, &content)));
    let cases = [
        // A content field that this schema does not know, in the event and in the message.
        (base.clone(), delimited_field(900, &content)),
        inside(fields::event::MESSAGE_SENT, 901),
        (base.clone(), delimited_field(fields::event::IP, &content)),
        (base.clone(), delimited_field(fields::event::REGION, &content)),
        inside(fields::event::CLIENT, fields::client::OS),
        inside(fields::event::MESSAGE_SENT, fields::message_sent::TO_GROUP),
        inside(fields::event::MESSAGE_SENT, fields::message_sent::TO_BUSINESS),
        inside(fields::event::MESSAGE_SENT, fields::message_sent::TO_CHANNEL),
        (call, delimited_field(fields::event::CALL_ENDED, &delimited_field(fields::call_ended::PEER, &content))),
        (base.clone(), delimited_field(fields::event::CONTACTS_UPLOADED, &content)),
        (base.clone(), delimited_field(fields::event::CHANNEL_VIEWED, &content)),
    ];
    // What a later version of any message may hold, in the event and in all that is walked inside.
    let later = WALKED.iter().map(|(_, member)| inside(*member, 902));
    let nested = WALKED.iter().map(|(_, member)| {
        let later = delimited_field(903, &delimited_field(1, &content));
        (base.clone(), delimited_field(*member, &later))
    });
    for (place, (before, extra)) in cases.into_iter().chain(later).chain(nested).enumerate() {
        // The content is at the end of what was added; a fresh time after it proves that the walk went on.
        let poison = before.len() + extra.len() - content.len()..before.len() + extra.len();
        let mut frame = before;
        frame.extend_from_slice(&extra);
        frame.extend_from_slice(&proto::Event { event_time_ms: 77, ..Default::default() }.encode_to_vec());
        let event = read(Poisoned::new(&frame, poison)).unwrap_or_else(|fault| panic!("case {place}: {fault}"));
        assert_eq!(event.time_ms, 77, "case {place}");
        assert_eq!(event.actor.written(), b"+4915112345678");
    }
}

#[test]
fn p19_of_a_version_the_first_two_numbers_are_read_and_what_stands_behind_them_is_never_touched() {
    let unknown = ClientVersion::UNKNOWN;
    let cases: [(&[u8], usize, ClientVersion); 24] = [
        (b"", 0, unknown),
        (b"2.26", 4, ClientVersion::new(2, 26)),
        (b"2.26.3.9 release of somebody", 5, ClientVersion::new(2, 26)),
        (b"26.1-beta 4", 5, ClientVersion::new(26, 1)),
        (b"26.1+4915112345678", 5, ClientVersion::new(26, 1)),
        (b"26.1 (4)", 5, ClientVersion::new(26, 1)),
        (b"2.3000.1031", 7, ClientVersion::new(2, 255)),
        (b"99999.99999.", 12, ClientVersion::new(255, 255)),
        (b"0.9", 3, ClientVersion::new(0, 9)),
        (b"0.0.1", 4, unknown),
        (b"002.026", 7, ClientVersion::new(2, 26)),
        (b"2", 1, unknown),
        (b"2.", 2, unknown),
        (b"2..6", 3, unknown),
        (b".26", 1, unknown),
        (b"v2.26", 1, unknown),
        (b" 2.26", 1, unknown),
        (b"2,26", 2, unknown),
        (b"2.26b", 5, unknown),
        (b"+4915112345678", 1, unknown),
        (b"4915112345678.1", 6, unknown),
        (b"1.4915112345678", 8, unknown),
        (b"\xff2.26", 1, unknown),
        (b"2.\xe2\x82\xac", 3, unknown),
    ];
    for (written, touched, expected) in cases {
        let frame = delimited_field(fields::event::CLIENT, &delimited_field(fields::client::VERSION, written));
        let poison = frame.len() - written.len() + touched..frame.len();
        let event = read(Poisoned::new(&frame, poison)).expect("no version makes an event unreadable");
        assert_eq!(event.version, expected, "{}", written.escape_ascii());
        check(&frame);
    }
    // The last one counts, as with every field that is given twice.
    let twice = [delimited_field(fields::client::VERSION, b"2.26"), delimited_field(fields::client::VERSION, b"x")].concat();
    let frame = delimited_field(fields::event::CLIENT, &twice);
    assert!(read(&frame[..]).is_ok_and(|event| event.version == unknown));
    check(&frame);
}

#[test]
#[should_panic(expected = "were read")]
fn the_poison_works() {
    let frame = delimited_field(fields::event::ACTOR, b"4915112345678");
    let _ = read(Poisoned::new(&frame, 4..5)).is_ok();
}

#[test]
fn business_names_must_be_text_and_numbers_need_not() {
    let business =
        delimited_field(fields::event::BUSINESS_MESSAGE, &delimited_field(fields::business_message::BUSINESS, &[0xff]));
    assert_eq!(read(&business[..]).err(), Some(Fault::Malformed));
    for field in [fields::business_information::BUSINESS, fields::business_information::NAME] {
        let told = delimited_field(fields::event::BUSINESS_INFORMATION, &delimited_field(field, &[0xff]));
        assert_eq!(read(&told[..]).err(), Some(Fault::Malformed));
    }
    let actor = delimited_field(fields::event::ACTOR, &[0xff]);
    assert!(read(&actor[..]).is_ok_and(|event| event.actor.canonical().is_none()));
}

prop_compose! {
    fn body()(
        member in 0..22_u32, a in any::<i32>(), b in 0..7_i32, n in any::<u32>(), m in any::<u32>(), flag in any::<bool>(),
        text in "[a-z0-9]{0,12}", number in "\\+?[0-9 ]{0,14}", bytes in proptest::collection::vec(any::<u8>(), 0..20),
    ) -> Option<proto::event::Body> {
        use proto::event::Body as P;
        let group = bytes;
        Some(match member {
            0 => return None,
            1 => P::AccountRegistered(proto::AccountRegistered { cohort: group }),
            2 => P::AccountDeleted(proto::AccountDeleted {}),
            3 => P::ConsentChanged(proto::ConsentChanged { analytics_consent: flag }),
            4 => P::MessageSent(proto::MessageSent {
                to_person: number, to_group: group, to_business: text, to_channel: vec![], conversation: b, media: a, size: a,
                thread_is_new: flag, is_reply: !flag, to_new_account: (a % 3 != 0).then_some(flag),
            }),
            5 => P::CallEnded(proto::CallEnded { peer: number, kind: b, duration_s: n, quality: a, missed: flag }),
            6 => P::StatusPosted(proto::StatusPosted { media: a }),
            7 => P::ChannelViewed(proto::ChannelViewed { channel: group }),
            8 => P::FeatureUsed(proto::FeatureUsed { feature: a }),
            9 => P::AiInvoked(proto::AiInvoked { surface: a }),
            10 => P::AppCrashed(proto::AppCrashed { site: a }),
            11 => P::GroupCreated(proto::GroupCreated { group, size: n }),
            12 => P::MembersAdded(proto::MembersAdded { group, count: n, strangers: m }),
            13 => P::GroupJoinedByLink(proto::GroupJoinedByLink { group, link: vec![1] }),
            14 => P::GroupLeft(proto::GroupLeft { group, after_s: u64::from(n) }),
            15 => P::GroupProfileChanged(proto::GroupProfileChanged {
                name_hash: group.iter().rev().copied().collect(), description_hash: text.into_bytes(), photo_hash: number.into_bytes(), group,
            }),
            16 => P::GroupReported(proto::GroupReported { group, reason: a, rate: b }),
            17 => P::BusinessMessage(proto::BusinessMessage {
                stage: b, business: text.clone(), portfolio: text, template: number, category: a, tier: b,
            }),
            18 => P::UserBlocked(proto::UserBlocked { person: number, business: text.clone(), rate: a, template: text }),
            19 => P::ReportFiled(proto::ReportFiled {
                person: number, business: text.clone(), reason: a, after_delivery: (a % 3 != 0).then_some(flag), rate: b, template: text,
            }),
            20 => P::BusinessInformation(proto::BusinessInformation {
                business: text.clone(), portfolio: number, name: text, category: a, tier: b,
            }),
            _ => P::ContactsUploaded(proto::ContactsUploaded {}),
        })
    }
}

prop_compose! {
    fn an_event()(
        time in any::<i64>(), actor in "\\+?[0-9 ]{0,16}", ip in proptest::collection::vec(any::<u8>(), 0..17),
        client in proptest::option::of((any::<i32>(), "([0-9]{1,3}\\.[0-9]{1,6}[-.+ x]?[0-9.]{0,6}|[0-9.]{0,6}|.{0,14})")),
        choices in proptest::option::of((any::<bool>(), 0..5_i32, any::<bool>(), any::<bool>())),
        age in proptest::option::of(any::<u64>()), cohort in proptest::collection::vec(any::<u8>(), 0..20), body in body(),
    ) -> proto::Event {
        proto::Event {
            event_time_ms: time, actor, ip, region: "EU".into(), account_age_s: age, cohort, body,
            client: client.map(|(platform, version)| proto::Client { platform, version, os: "x".into() }),
            choices: choices.map(|(analytics_consent, age_band, guardian_consent, linked)| proto::Choices {
                analytics_consent, age_band, guardian_consent, linked, disappearing_timer: linked,
            }),
        }
    }
}

/// The checked-in inputs of the fuzzer's `decoder` target, whatever toolchain there is.
#[test]
fn the_fuzzers_corpus_is_read_as_prost_reads_it() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fuzz/corpus/decoder");
    let mut inputs = 0;
    for entry in std::fs::read_dir(folder).expect("the corpus is checked in") {
        let path = entry.expect("a folder that can be read").path();
        let frame = std::fs::read(&path).expect("a file");
        assert!(std::panic::catch_unwind(|| check(&frame)).is_ok(), "{} fails", path.display());
        inputs += 1;
    }
    assert!(inputs > 40, "only {inputs} inputs: where is the corpus?");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn it_agrees_with_prost_on_whole_events_and_on_merged_ones(events in proptest::collection::vec(an_event(), 1..4)) {
        // Encodings one after the other are, by protobuf's rules, one message merged of them.
        let frame: Vec<u8> = events.iter().flat_map(prost::Message::encode_to_vec).collect();
        prop_assert!(read(&frame[..]).is_ok());
        check(&frame);
    }

    #[test]
    fn it_agrees_with_prost_on_damaged_events(
        event in an_event(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..5),
    ) {
        let mut frame = event.encode_to_vec();
        for (place, byte, how) in damage {
            if frame.is_empty() { break }
            let at = place.index(frame.len());
            match how {
                0 => frame[at] = byte,
                1 => frame.insert(at, byte),
                _ => { frame.remove(at); }
            }
            check(&frame);
        }
        check(&frame[..frame.len() / 2]);
    }

    #[test]
    fn it_agrees_with_prost_on_any_bytes(frame in proptest::collection::vec(any::<u8>(), 0..60)) {
        check(&frame);
    }

    #[test]
    fn it_agrees_with_prost_on_whatever_the_wire_format_can_say(frame in wire_level::a_frame()) {
        check(&frame.encoded());
    }
}
