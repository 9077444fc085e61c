//! Old and new producers in one topic: what a later version adds is not read, not kept, and changes nothing.

use std::collections::BTreeMap;
use std::path::Path;

use prost::Message as _;
use starling_ingest::{FrameRead, TraceReader};
use starling_schemas::event::Event;
use starling_schemas::fields::event as numbers;

use crate::support::{
    NOON_MS, comparable_alerts, envelope, files_below, frame, people, run_trace, simulate, sql, status, with_known_keys,
    write_trace,
};

/// What a new producer sends in fields that today's schema does not know.
const CONTENT: &[u8] = b"meet me under the old bridge, +4915155555555";
/// A number that no body of today has.
const SOMETHING_NEW: u32 = 37;

fn field(number: u32, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, &mut out);
    prost::encoding::encode_varint(content.len() as u64, &mut out);
    out.extend_from_slice(content);
    out
}

fn frames(trace: &Path) -> Vec<Vec<u8>> {
    let mut reader = TraceReader::open(trace).expect("a trace");
    let (mut frames, mut frame) = (Vec::new(), Vec::new());
    while reader.next_frame(&mut frame).expect("a whole trace") == FrameRead::Frame {
        frames.push(frame.clone());
    }
    frames
}

/// The same event from a producer of a later version: a scalar, words, and a message within a message that today's schema does not know, in
/// the event and inside everything that is read of it.
fn of_a_new_producer(event: &Event) -> Vec<u8> {
    let new = [field(900, CONTENT), field(901, &field(1, CONTENT)), vec![0x90, 0x40, 0x07]].concat();
    // Later parts of the same message are merged into it: this is how its unknown fields come to stand inside.
    let body = (16..=36).find(|number| {
        let alone = field(*number, &[]);
        let there = Event::decode(&alone[..]).expect("a body").body;
        there.zip(event.body.as_ref()).is_some_and(|(one, other)| std::mem::discriminant(&one) == std::mem::discriminant(other))
    });
    let inside = [Some(numbers::CLIENT), Some(numbers::CHOICES), body];
    let added = inside.into_iter().flatten().map(|number| field(number, &new));
    [new.clone(), event.encode_to_vec()].into_iter().chain(added).collect::<Vec<_>>().concat()
}

/// The same event from a producer of an earlier version, whose schema had less to say of what is not read anyway.
fn of_an_old_producer(mut event: Event) -> Vec<u8> {
    event.ip.clear();
    event.region.clear();
    if let Some(client) = &mut event.client {
        client.os.clear();
    }
    if let Some(choices) = &mut event.choices {
        (choices.linked, choices.disappearing_timer) = (false, false);
    }
    event.encode_to_vec()
}

#[test]
fn i1_p1_old_and_new_producers_give_the_statistics_and_alerts_that_todays_give() {
    let dir = tempfile::tempdir().expect("dir");
    let (trace, _) = simulate(dir.path(), 1_500, 1, 11, &[]);
    let today = frames(&trace);
    let mixed: Vec<_> = today
        .iter()
        .enumerate()
        .map(|(place, frame)| match (place % 3, Event::decode(&frame[..])) {
            (1, Ok(event)) => of_an_old_producer(event),
            (2, Ok(event)) => of_a_new_producer(&event),
            _ => frame.clone(),
        })
        .collect();
    assert!(mixed.iter().filter(|frame| contains(frame, CONTENT)).count() > today.len() / 4, "a third is of a new producer");

    let run = |name: &str, frames: &[Vec<u8>]| {
        let (trace, data) = (dir.path().join(format!("{name}.pb")), dir.path().join(name));
        with_known_keys(&data);
        write_trace(&trace, frames);
        run_trace(&trace, &data);
        data
    };
    let (plain, evolved) = (run("plain", &today), run("evolved", &mixed));
    assert_eq!(status(&evolved)["outcomes"], status(&plain)["outcomes"]);
    assert_eq!(people(&evolved), people(&plain));
    let alerts = comparable_alerts(&plain);
    assert!(!alerts.is_empty(), "the simulated abusers are found");
    assert_eq!(comparable_alerts(&evolved), alerts);

    for file in files_below(&evolved) {
        let bytes = std::fs::read(&file).expect("a file");
        let secret = [CONTENT, b"under the old bridge", b"15155555555"].into_iter().find(|secret| contains(&bytes, secret));
        assert!(secret.is_none(), "I4: {} holds what a new producer sent", file.display());
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn p60_a_new_kind_of_event_is_quarantined_as_unknown_and_stops_nothing() {
    let dir = tempfile::tempdir().expect("dir");
    let (trace, data) = (dir.path().join("new.pb"), dir.path().join("data"));
    let person = envelope("+4915111111111", NOON_MS);
    let known = |stage: i32| {
        let body = starling_schemas::event::MessageSent { conversation: stage, ..Default::default() };
        frame(&Event { body: Some(starling_schemas::event::event::Body::MessageSent(body)), ..person.clone() })
    };
    let unknown = [frame(&person), field(SOMETHING_NEW, &field(1, CONTENT))].concat();
    // A kind of conversation that today's schema does not know is no message to a person, a group, or anybody else.
    let frames = [known(1), unknown.clone(), known(9), unknown, known(2)];
    write_trace(&trace, &frames);
    run_trace(&trace, &data);
    let outcomes: BTreeMap<String, u64> = serde_json::from_value(status(&data)["outcomes"].clone()).expect("outcomes");
    assert_eq!(outcomes, BTreeMap::from([("counted".to_owned(), 2), ("quarantined:unknown_event".to_owned(), 3)]));
    assert_eq!(status(&data)["unbalanced"], serde_json::json!([]), "I1: the books balance");
    let released = sql(&data, "SELECT count(*) AS n FROM meta.releases");
    assert!(released[0]["n"].as_u64().is_some_and(|n| n > 0), "the day is released all the same: {released:?}");
    for file in files_below(&data) {
        assert!(!contains(&std::fs::read(&file).expect("a file"), b"under the old bridge"), "{}", file.display());
    }
}
