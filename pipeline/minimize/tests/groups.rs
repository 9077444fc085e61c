//! Who makes groups, and which groups are on an operator's list: rows in which nothing joins the two, and from which no hash comes out.

#![allow(missing_docs)]

mod common;

use std::sync::Arc;

use arrow::array::{Array as _, AsArray as _, RecordBatch};
use arrow::datatypes::{TimestampMillisecondType, UInt8Type, UInt32Type};
use arrow::ipc::writer::StreamWriter;
use common::{ALICE, BOB, DAY, NOON_MS, TestKeys, encoded, event, key, message, open_context};
use starling_minimize::{GroupLists, Limits, Minimized, Minimizer, keyed_group, keyed_subject};
use starling_schemas::codes::{Outcome, ProfileField, SignalKind};
use starling_schemas::event::{self as proto, event::Body};
use starling_schemas::ids::{Offset, Purpose};

const SECOND: i64 = 1_000;
const HOUR: i64 = 3_600_000;

fn created(actor: &str, group: u8, time_ms: i64, account_age_s: Option<u64>) -> proto::Event {
    let body = Body::GroupCreated(proto::GroupCreated { group: vec![group; 9], size: 3 });
    proto::Event { actor: actor.to_owned(), event_time_ms: time_ms, account_age_s, ..event(body) }
}

fn profile(name: &[u8], description: &[u8], photo: &[u8]) -> proto::Event {
    event(Body::GroupProfileChanged(proto::GroupProfileChanged {
        group: b"group-1".to_vec(),
        name_hash: name.to_vec(),
        description_hash: description.to_vec(),
        photo_hash: photo.to_vec(),
    }))
}

/// One range, held against these lists.
fn run(lists: &str, events: &[proto::Event]) -> Minimized {
    let mut minimizer = Minimizer::new(Arc::new(TestKeys::default()), Limits::default());
    minimizer.begin(open_context());
    minimizer.hold_against(Arc::new(GroupLists::parse("lists", lists).expect("lists")));
    for (offset, event) in (0..).zip(events) {
        minimizer.push(Offset(offset), &encoded(event)).expect("keys are in order");
    }
    minimizer.finish().expect("columns fit")
}

fn kinds(rows: &RecordBatch) -> Vec<SignalKind> {
    let kinds = rows["kind"].as_primitive::<UInt8Type>();
    kinds.values().iter().map(|kind| SignalKind::from_code(*kind).expect("listed")).collect()
}

/// What makers' rows say: who, when, whether of their first week.
fn makers(rows: &RecordBatch) -> Vec<(Vec<u8>, i64, u32)> {
    let made = (0..rows.num_rows()).filter(|row| kinds(rows)[*row] == SignalKind::GroupMade);
    let of = |row| {
        assert!(rows["group"].is_null(row) && rows["account_age_s"].is_null(row) && rows["business"].is_null(row));
        assert_eq!(rows["count"].as_primitive::<UInt32Type>().value(row), 1);
        let person = rows["person"].as_fixed_size_binary().value(row).to_vec();
        let time = rows["time"].as_primitive::<TimestampMillisecondType>().value(row);
        (person, time, rows["strangers"].as_primitive::<UInt32Type>().value(row))
    };
    made.map(of).collect()
}

#[test]
fn i5_p6_who_makes_a_group_and_the_group_are_in_rows_that_nothing_joins() {
    let age = Some(90_000_000);
    let first = [
        created(ALICE, 1, NOON_MS + 100 * SECOND, age),
        created(BOB, 2, NOON_MS + 200 * SECOND, Some(3 * 86_400)),
        event(message()),
        created(ALICE, 3, NOON_MS + 300 * SECOND, age),
        created(BOB, 4, NOON_MS + HOUR, Some(3 * 86_400)),
    ];
    let rows = run("", &first).signals;
    let (others, behind) = (&kinds(&rows)[..5], &kinds(&rows)[5..]);
    assert_eq!(others.iter().filter(|kind| **kind == SignalKind::GroupCreated).count(), 4);
    assert_eq!(behind[..4], [SignalKind::GroupMade; 4], "behind all events, before what is of pairs");
    for row in 0..5 {
        assert!(rows["group"].is_null(row) || rows["person"].is_null(row), "a row joins a person and a group");
    }
    let made = makers(&rows);
    assert!(made.is_sorted(), "in the order of pseudonyms");
    let person =
        |number| keyed_subject(number, &key(Purpose::Integrity, DAY), Purpose::Integrity, DAY).expect("a number").to_vec();
    let mut expected = vec![
        (person(ALICE), NOON_MS, 0),
        (person(ALICE), NOON_MS, 0),
        (person(BOB), NOON_MS, 1),
        (person(BOB), NOON_MS + HOUR, 1),
    ];
    expected.sort();
    assert_eq!(made, expected, "the hour, and one bit of the account's age");
    // Who made which is in no row: had they made each other's, the makers' rows were the same to the byte.
    let [a, b, said, c, d] = &first;
    let swap = |event: &proto::Event, other: &proto::Event| {
        let (actor, account_age_s) = (other.actor.clone(), other.account_age_s);
        proto::Event { actor, account_age_s, ..event.clone() }
    };
    let other = run("", &[swap(a, b), swap(b, a), said.clone(), c.clone(), d.clone()]).signals;
    assert_eq!(other.slice(0, 2), rows.slice(0, 2), "the groups'");
    assert_eq!(other.slice(5, 4), rows.slice(5, 4), "the makers'");
}

#[test]
fn a_maker_is_counted_without_consent_and_nobody_is_made_up() {
    let without = |change: &dyn Fn(&mut proto::Event)| {
        let mut event = created(ALICE, 1, NOON_MS, None);
        change(&mut event);
        makers(&run("", &[event]).signals).len()
    };
    assert_eq!(without(&|event| event.choices = None), 1, "safety does not ask");
    assert_eq!(without(&|event| event.actor = String::new()), 0, "nobody");
    let keys = TestKeys::default();
    keys.destroy(Purpose::Integrity, DAY);
    let minimized = common::run_with(Arc::new(keys), open_context(), &[encoded(&created(ALICE, 1, NOON_MS, None))]);
    assert_eq!(minimized.signals.num_rows(), 0, "a destroyed key gives no signal");
}

/// Hash `n`, as bytes and in hex.
fn hash(n: u8) -> (Vec<u8>, String) {
    let bytes: Vec<u8> = (0..32).map(|i| n.wrapping_mul(41).wrapping_add(i * 7)).collect();
    let hex = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    (bytes, hex)
}

#[test]
fn p7_i4_a_hash_that_is_listed_leaves_as_label_and_field_and_any_other_leaves_no_trace() {
    let (name, name_hex) = hash(1);
    let (photo, photo_hex) = hash(2);
    let (other, _) = hash(3);
    let lists = format!("{name_hex} name scam-names\n{photo_hex} photo known-abuse\n{photo_hex} photo more\n");
    let events =
        [profile(&other, &name, &other), profile(&name, &other, &photo), profile(&other, &[], &[]), profile(&photo, &[], &name)];
    let minimized = run(&lists, &events);
    let rows = &minimized.signals;
    assert_eq!(minimized.counts.iter().map(|(_, _, n)| n).sum::<u64>(), 4, "I1");
    assert!(minimized.counts.iter().all(|(_, outcome, _)| matches!(outcome, Outcome::Refused(_))), "and statistics count none");
    assert_eq!(kinds(rows), [SignalKind::GroupListed; 3]);
    let (list, field) = (rows["list"].as_string::<i32>(), rows["listed"].as_primitive::<UInt8Type>());
    let told: Vec<_> = (0..3).map(|row| (list.value(row), ProfileField::from_code(field.value(row)).expect("listed"))).collect();
    let expected = [("scam-names", ProfileField::Name), ("known-abuse", ProfileField::Photo), ("more", ProfileField::Photo)];
    assert_eq!(told, expected);
    let keyed = keyed_group(b"group-1", &key(Purpose::Integrity, DAY), DAY);
    for row in 0..3 {
        assert!(rows["person"].is_null(row) && rows["group"].as_fixed_size_binary().value(row) == keyed);
        assert_eq!(rows["time"].as_primitive::<TimestampMillisecondType>().value(row), NOON_MS);
    }
    let mut written = StreamWriter::try_new(Vec::new(), &rows.schema()).expect("a writer");
    written.write(rows).expect("written");
    let written = written.into_inner().expect("bytes");
    for (bytes, hex) in [hash(1), hash(2), hash(3)] {
        for part in [&bytes[..8], &bytes[24..], &hex.as_bytes()[..16]] {
            assert!(!written.windows(part.len()).any(|window| window == part), "a hash comes out");
        }
    }
    // Without a list, or a group, nothing is said.
    assert_eq!(run("", &events).signals.num_rows(), 0);
    let mut nameless = profile(&name, &[], &photo);
    if let Some(Body::GroupProfileChanged(changed)) = &mut nameless.body {
        changed.group.clear();
    }
    assert_eq!(run(&lists, &[nameless]).signals.num_rows(), 0);
}

#[test]
fn i9_a_range_is_held_against_the_lists_it_was_begun_with_and_the_next_one_against_none() {
    let (name, hex) = hash(1);
    let lists = Arc::new(GroupLists::parse("lists", &format!("{hex} name scam-names\n")).expect("lists"));
    let mut minimizer = Minimizer::new(Arc::new(TestKeys::default()), Limits::default());
    let mut range = |lists: Option<&Arc<GroupLists>>| {
        minimizer.begin(open_context());
        if let Some(lists) = lists {
            minimizer.hold_against(Arc::clone(lists));
        }
        for event in [event(message()), profile(&name, &[], &[]), event(message())] {
            minimizer.push(Offset(0), &encoded(&event)).expect("keys are in order");
        }
        minimizer.finish().expect("columns fit").signals
    };
    let (with, without, again) = (range(Some(&lists)), range(None), range(Some(&lists)));
    assert_eq!(with, again);
    assert_eq!(kinds(&with).iter().filter(|kind| **kind == SignalKind::GroupListed).count(), 1);
    assert_eq!(with["list"].null_count(), with.num_rows() - 1);
    assert!(kinds(&without).iter().all(|kind| *kind != SignalKind::GroupListed));
}
