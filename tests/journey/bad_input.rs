//! I1, I8: what no producer should send is counted, explained, and stops nothing.

use std::collections::BTreeMap;

use prost::Message as _;
use starling_schemas::event::event::Body;
use starling_schemas::event::{Choices, ContactsUploaded, Event, MembersAdded, MessageSent};

use crate::support::{NOON_MS, envelope, fail, frame, run_trace, sql, starling, status, write_trace};

fn message(actor: &str, time_ms: i64) -> Event {
    Event {
        body: Some(Body::MessageSent(MessageSent {
            to_person: "+4915112345678".into(),
            conversation: 1,
            ..MessageSent::default()
        })),
        ..envelope(actor, time_ms)
    }
}

/// A field with a number and wire type, as protobuf writes it.
fn raw(number: u32, wire_type: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    prost::encoding::encode_varint(u64::from(number << 3 | wire_type), &mut out);
    if wire_type == 2 {
        prost::encoding::encode_varint(payload.len() as u64, &mut out);
    }
    out.extend_from_slice(payload);
    out
}

#[test]
fn every_bad_event_is_counted_in_its_class_and_the_good_ones_are_kept() {
    let good = message("+4915111111111", NOON_MS);
    let refused = |choices: Option<Choices>| Event { choices, ..message("+4915122222222", NOON_MS) };
    let mut cases: Vec<(&str, Vec<u8>)> = vec![
        ("counted", frame(&good)),
        ("counted", frame(&message("+49 (151) 111-111 12", NOON_MS))),
        ("quarantined:empty", Vec::new()),
        ("quarantined:malformed", frame(&good)[..20].to_vec()),
        ("quarantined:malformed", vec![0xff; 12]),
        ("quarantined:wrong_wire_type", [frame(&good), raw(2, 0, &[1])].concat()),
        ("quarantined:wrong_wire_type", [raw(1, 2, b"noon"), frame(&good)].concat()),
        ("quarantined:too_large", [frame(&good), raw(99, 2, &vec![b'x'; 20_000])].concat()),
        ("quarantined:time_out_of_range", frame(&message("+4915111111111", 0))),
        ("quarantined:time_out_of_range", frame(&message("+4915111111111", -5))),
        ("quarantined:time_out_of_range", frame(&message("+4915111111111", 86_400_000))),
        ("quarantined:time_out_of_range", frame(&message("+4915111111111", i64::MAX))),
        ("quarantined:time_out_of_range", frame(&message("+4915111111111", 32_503_680_000_000))),
        ("quarantined:invalid_number", frame(&message("call me", NOON_MS))),
        ("quarantined:invalid_number", frame(&message("+0123456789", NOON_MS))),
        ("quarantined:invalid_number", frame(&message("+491511111111122222222", NOON_MS))),
        ("quarantined:unknown_event", frame(&envelope("+4915111111111", NOON_MS))),
        (
            "quarantined:unknown_event",
            [frame(&envelope("+4915111111111", NOON_MS)), raw(77, 2, b"a later version's event")].concat(),
        ),
        ("refused:no_consent", frame(&refused(Some(Choices { age_band: 3, ..Choices::default() })))),
        ("refused:age_unknown", frame(&refused(None))),
        ("refused:minor", frame(&refused(Some(Choices { analytics_consent: true, age_band: 1, ..Choices::default() })))),
        ("refused:minor", frame(&refused(Some(Choices { analytics_consent: true, age_band: 2, ..Choices::default() })))),
        ("refused:no_subject", frame(&message("", NOON_MS))),
        (
            "refused:not_for_analytics",
            frame(&Event {
                body: Some(Body::MembersAdded(MembersAdded { group: vec![1; 16], count: 3, strangers: 0 })),
                ..envelope("+4915111111111", NOON_MS)
            }),
        ),
        (
            "refused:contact_list",
            frame(&Event { body: Some(Body::ContactsUploaded(ContactsUploaded {})), ..envelope("+4915111111111", NOON_MS) }),
        ),
        ("counted", [frame(&good), raw(1234, 2, b"a field of a later version")].concat()),
    ];
    // Old and new: a minor with a guardian's consent counts.
    let guarded = Choices { analytics_consent: true, guardian_consent: true, age_band: 2, ..Choices::default() };
    cases.push(("counted", frame(&refused(Some(guarded)))));

    let dir = tempfile::tempdir().expect("dir");
    let (trace, data) = (dir.path().join("bad.pb"), dir.path().join("data"));
    write_trace(&trace, &cases.iter().map(|(_, f)| f.clone()).collect::<Vec<_>>());
    run_trace(&trace, &data);
    let mut expected: BTreeMap<&str, u64> = BTreeMap::new();
    cases.iter().for_each(|(outcome, _)| *expected.entry(outcome).or_default() += 1);
    let outcomes: BTreeMap<String, u64> = serde_json::from_value(status(&data)["outcomes"].clone()).expect("outcomes");
    let outcomes: BTreeMap<&str, u64> = outcomes.iter().map(|(k, v)| (k.as_str(), *v)).collect();
    assert_eq!(outcomes, expected);
}

#[test]
fn a_truncated_trace_file_is_told_and_what_is_whole_is_kept() {
    let dir = tempfile::tempdir().expect("dir");
    let (trace, data) = (dir.path().join("cut.pb"), dir.path().join("data"));
    let frames: Vec<_> = (0..50).map(|i| frame(&message("+4915111111111", NOON_MS + i))).collect();
    write_trace(&trace, &frames);
    let bytes = std::fs::read(&trace).expect("trace");
    std::fs::write(&trace, &bytes[..bytes.len() - 7]).expect("cut");
    let told = run_trace(&trace, &data);
    assert!(told.contains("ends inside an event"), "{told}");
    let outcomes = status(&data)["outcomes"].clone();
    assert_eq!(outcomes, serde_json::json!({ "counted": 49, "quarantined:malformed": 1 }));
}

#[test]
fn a_gigantic_length_is_no_allocation_and_no_crash() {
    let dir = tempfile::tempdir().expect("dir");
    let (trace, data) = (dir.path().join("huge.pb"), dir.path().join("data"));
    let good = frame(&message("+4915111111111", NOON_MS));
    let mut bytes = Vec::new();
    prost::encoding::encode_varint(good.len() as u64, &mut bytes);
    bytes.extend_from_slice(&good);
    prost::encoding::encode_varint(u64::MAX >> 1, &mut bytes);
    bytes.extend_from_slice(b"and then little");
    std::fs::write(&trace, bytes).expect("trace");
    run_trace(&trace, &data);
    let outcomes: BTreeMap<String, u64> = serde_json::from_value(status(&data)["outcomes"].clone()).expect("outcomes");
    assert_eq!(outcomes.get("counted"), Some(&1), "{outcomes:?}");
    assert_eq!(outcomes.values().sum::<u64>(), 2, "the broken end is one quarantined event: {outcomes:?}");
}

#[test]
fn a_file_that_is_no_trace_and_one_that_is_missing_say_so() {
    let dir = tempfile::tempdir().expect("dir");
    let missing =
        fail(starling().args(["run", "--trace"]).arg(dir.path().join("none.pb")).arg("--data-dir").arg(dir.path().join("a")));
    assert!(missing.contains("none.pb"), "{missing}");
    let text = dir.path().join("text.pb");
    std::fs::write(&text, "timestamp,sender,recipient\n18,370,512\n").expect("text");
    let data = dir.path().join("b");
    run_trace(&text, &data);
    let outcomes: BTreeMap<String, u64> = serde_json::from_value(status(&data)["outcomes"].clone()).expect("outcomes");
    assert!(outcomes.keys().all(|k| k.starts_with("quarantined:")), "{outcomes:?}");
    assert_eq!(sql(&data, "SELECT * FROM stats.people_served_daily"), Vec::<serde_json::Value>::new());
}

#[test]
fn an_event_with_every_field_unknown_is_read_past() {
    let dir = tempfile::tempdir().expect("dir");
    let (trace, data) = (dir.path().join("new.pb"), dir.path().join("data"));
    let mut event = Vec::new();
    for number in 200..400 {
        event.extend(raw(number, number % 3 % 2 * 2, if number % 3 % 2 == 1 { b"text" } else { &[7] }));
    }
    event.extend(message("+4915111111111", NOON_MS).encode_to_vec());
    write_trace(&trace, &[event]);
    run_trace(&trace, &data);
    assert_eq!(status(&data)["outcomes"], serde_json::json!({ "counted": 1 }));
}
