//! What becomes of events, through the public door.

mod common;
#[path = "minimizer/objections.rs"]
mod objections;

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Date32Type, TimestampMillisecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use starling_minimize::{
    EpochKey, Limits, Minimized, Minimizer, RangeContext, Zeroizing, keyed_cohort, keyed_group, keyed_subject,
};
use starling_schemas::codes::{
    AccountAge, Activity, ClientVersion, Country, Fault, Outcome, PlatformCode, Refusal, ReporterRate, SignalKind, detail_name,
};
use starling_schemas::event::{self as proto, event::Body};
use starling_schemas::ids::{EpochId, Integrity, Offset, Purpose};
use starling_schemas::voice::Voice;

use common::{ALICE, BOB, DAY, NOON_MS, TestKeys, business, encoded, event, key, message, open_context, run, run_with};

fn person(number: &str, purpose: Purpose, epoch: EpochId) -> [u8; 16] {
    keyed_subject(number, &key(purpose, epoch), purpose, epoch).expect("a number")
}

/// What a signal row says, without what is the same in all of them.
#[derive(Debug, PartialEq)]
struct Row {
    kind: SignalKind,
    epoch: EpochId,
    overlap: bool,
    person: Option<[u8; 16]>,
    group: Option<[u8; 16]>,
    business: Option<String>,
    count: u32,
    account_age_s: Option<u64>,
}

fn signals(minimized: &Minimized) -> Vec<Row> {
    let rows = &minimized.signals;
    let column = |name: &str| rows.column_by_name(name).expect("a column");
    let keyed = |name: &str, row| {
        let column = column(name).as_fixed_size_binary();
        column.is_valid(row).then(|| column.value(row).try_into().expect("16 bytes"))
    };
    let text = |name: &str, row| {
        let column = column(name).as_string::<i32>();
        column.is_valid(row).then(|| column.value(row).to_owned())
    };
    (0..rows.num_rows())
        .map(|row| {
            let age = column("account_age_s").as_primitive::<UInt64Type>();
            Row {
                kind: SignalKind::from_code(column("kind").as_primitive::<UInt8Type>().value(row)).expect("listed"),
                epoch: EpochId(column("epoch").as_primitive::<Date32Type>().value(row)),
                overlap: column("overlap").as_boolean().value(row),
                person: keyed("person", row),
                group: keyed("group", row),
                business: text("business", row),
                count: column("count").as_primitive::<UInt32Type>().value(row),
                account_age_s: age.is_valid(row).then(|| age.value(row)),
            }
        })
        .collect()
}

/// What a message between two people gives: its sender's signal, his contact under both days' keys, and what it may be an answer to.
const PAIRED: &[SignalKind] = &[SignalKind::MessageSent, SignalKind::Contact, SignalKind::Contact, SignalKind::Answered];

fn kinds(minimized: &Minimized) -> Vec<SignalKind> {
    signals(minimized).into_iter().map(|row| row.kind).collect()
}

/// The one outcome of one frame.
fn outcome(minimized: &Minimized) -> Outcome {
    assert_eq!(minimized.events, 1);
    assert_eq!(minimized.counts.len(), 1, "exactly one outcome");
    let (day, outcome, events) = minimized.counts[0];
    assert_eq!(events, 1);
    assert_eq!(day.is_none(), matches!(outcome, Outcome::Quarantined(_)));
    assert_eq!(minimized.clean.num_rows(), usize::from(outcome == Outcome::Counted), "counted is one clean row");
    assert_eq!(minimized.quarantined.len(), usize::from(day.is_none()));
    assert_eq!(minimized.max_event_time_ms.is_some(), day.is_some());
    outcome
}

fn group() -> Vec<u8> {
    b"group-1".to_vec()
}

#[test]
fn i1_p55_p56_p58_every_kind_of_event_has_its_outcome_and_its_signals() {
    use Outcome::{Counted, Quarantined, Refused};
    use SignalKind as S;
    let sent = message;
    let choose = |analytics_consent, age_band, guardian_consent| {
        Some(proto::Choices { analytics_consent, age_band, guardian_consent, ..Default::default() })
    };
    let with = |change: &dyn Fn(&mut proto::Event)| {
        let mut event = event(sent());
        change(&mut event);
        event
    };
    let call = |kind| Body::CallEnded(proto::CallEnded { peer: BOB.into(), kind, duration_s: 61, ..Default::default() });
    let not_analytics = Refused(Refusal::NotForAnalytics);
    let cases: Vec<(&str, proto::Event, Outcome, &[SignalKind])> = vec![
        ("message", event(sent()), Counted, PAIRED),
        ("no choices", with(&|e| e.choices = None), Refused(Refusal::AgeUnknown), PAIRED),
        ("age unknown", with(&|e| e.choices = choose(true, 0, true)), Refused(Refusal::AgeUnknown), PAIRED),
        ("under 13", with(&|e| e.choices = choose(true, 1, true)), Refused(Refusal::Minor), PAIRED),
        ("under 18 alone", with(&|e| e.choices = choose(true, 2, false)), Refused(Refusal::Minor), PAIRED),
        ("under 18 with a guardian", with(&|e| e.choices = choose(true, 2, true)), Counted, PAIRED),
        ("no consent", with(&|e| e.choices = choose(false, 3, false)), Refused(Refusal::NoConsent), PAIRED),
        ("guest", with(&|e| e.actor.clear()), Refused(Refusal::NoSubject), &[]),
        ("bad number", with(&|e| e.actor = "0151 1234567".into()), Quarantined(Fault::InvalidNumber), &[]),
        ("no time", with(&|e| e.event_time_ms = 0), Quarantined(Fault::TimeOutOfRange), &[]),
        ("before 2009", with(&|e| e.event_time_ms = 1_230_767_999_999), Quarantined(Fault::TimeOutOfRange), &[]),
        ("at 2009", with(&|e| e.event_time_ms = 1_230_768_000_000 + 43_200_000), Counted, PAIRED),
        ("ahead", with(&|e| e.event_time_ms = open_context().latest_ms + 1), Quarantined(Fault::TimeOutOfRange), &[]),
        ("at the latest", with(&|e| e.event_time_ms = open_context().latest_ms), Counted, PAIRED),
        ("no body", with(&|e| e.body = None), Quarantined(Fault::UnknownEvent), &[]),
        ("message of no kind", event(Body::MessageSent(Default::default())), Quarantined(Fault::UnknownEvent), &[]),
        (
            "message to a group",
            event(Body::MessageSent(proto::MessageSent { conversation: 2, to_group: group(), ..Default::default() })),
            Counted,
            &[S::MessageSent],
        ),
        ("call", event(call(4)), Counted, &[]),
        ("call of no kind", event(call(9)), Quarantined(Fault::UnknownEvent), &[]),
        ("registered", event(Body::AccountRegistered(Default::default())), Counted, &[]),
        ("deleted", event(Body::AccountDeleted(Default::default())), not_analytics, &[]),
        ("consent changed", event(Body::ConsentChanged(Default::default())), not_analytics, &[]),
        ("status", event(Body::StatusPosted(Default::default())), Counted, &[]),
        ("channel", event(Body::ChannelViewed(Default::default())), Counted, &[]),
        ("feature", event(Body::FeatureUsed(Default::default())), Counted, &[]),
        ("ai", event(Body::AiInvoked(Default::default())), Counted, &[]),
        ("crash", event(Body::AppCrashed(Default::default())), Counted, &[]),
        (
            "group created",
            event(Body::GroupCreated(proto::GroupCreated { group: group(), size: 9 })),
            Counted,
            &[S::GroupCreated, S::GroupMade],
        ),
        (
            "members added",
            event(Body::MembersAdded(proto::MembersAdded { group: group(), count: 5, strangers: 4 })),
            not_analytics,
            &[S::MembersAdded],
        ),
        (
            "joined",
            event(Body::GroupJoinedByLink(proto::GroupJoinedByLink { group: group(), link: vec![1] })),
            not_analytics,
            &[S::GroupJoined],
        ),
        ("left", event(Body::GroupLeft(proto::GroupLeft { group: group(), after_s: 3 })), not_analytics, &[S::GroupLeft]),
        ("left no group", event(Body::GroupLeft(Default::default())), not_analytics, &[]),
        ("profile", event(Body::GroupProfileChanged(Default::default())), not_analytics, &[]),
        (
            "group reported",
            event(Body::GroupReported(proto::GroupReported { group: group(), reason: 1, rate: 0 })),
            not_analytics,
            &[S::GroupReported],
        ),
        ("business sent", event(business(1)), Counted, &[S::BusinessSent]),
        ("business delivered", event(business(2)), Counted, &[]),
        ("business read", event(business(3)), Counted, &[]),
        ("business replied", event(business(4)), Counted, &[S::BusinessReplied]),
        ("business of no stage", event(business(0)), Quarantined(Fault::UnknownEvent), &[]),
        (
            "blocked",
            event(Body::UserBlocked(proto::UserBlocked { person: BOB.into(), ..Default::default() })),
            not_analytics,
            &[S::Blocked],
        ),
        (
            "blocked no number",
            event(Body::UserBlocked(proto::UserBlocked { person: "x".into(), business: "b".into(), ..Default::default() })),
            not_analytics,
            &[],
        ),
        ("blocked nobody", event(Body::UserBlocked(Default::default())), not_analytics, &[]),
        (
            "reported",
            event(Body::ReportFiled(proto::ReportFiled { business: "b-1".into(), reason: 1, ..Default::default() })),
            not_analytics,
            &[S::Reported],
        ),
        ("business information", event(Body::BusinessInformation(Default::default())), not_analytics, &[]),
        ("address book", event(Body::ContactsUploaded(Default::default())), Refused(Refusal::ContactList), &[]),
    ];
    for (name, event, expected, expected_kinds) in cases {
        let minimized = run(&[event]);
        assert_eq!(outcome(&minimized), expected, "{name}");
        assert_eq!(kinds(&minimized), expected_kinds, "{name}");
    }
}

#[test]
fn unreadable_frames_are_quarantined_with_offset_and_length_only() {
    let mut wrong = encoded(&event(message()));
    wrong.extend_from_slice(&[0x10, 0x05]);
    let frames = [vec![], vec![0xff], wrong.clone(), vec![0; 16 * 1024 + 1], encoded(&event(message()))];
    let minimized = run_with(Arc::default(), open_context(), &frames);
    assert_eq!(
        minimized.quarantined,
        [
            (Offset(0), Fault::Empty, 0),
            (Offset(1), Fault::Malformed, 1),
            (Offset(2), Fault::WrongWireType, wrong.len() as u64),
            (Offset(3), Fault::TooLarge, 16 * 1024 + 1),
        ]
    );
    assert_eq!(minimized.events, 5);
    assert_eq!(minimized.counts.last(), Some(&(Some(DAY), Outcome::Counted, 1)));
}

#[test]
fn a_clean_row_holds_the_coarse_facts_and_the_days_pseudonym() {
    let mut call = event(Body::CallEnded(proto::CallEnded { peer: BOB.into(), kind: 2, duration_s: 61, ..Default::default() }));
    call.client = Some(proto::Client { platform: 99, ..Default::default() });
    let minimized = run(&[event(message()), call]);
    let rows = &minimized.clean;
    assert_eq!(rows.schema(), *starling_schemas::rows::CLEAN_ROWS);
    let byte = |name: &str, row| rows.column_by_name(name).expect("a column").as_primitive::<UInt8Type>().value(row);
    let alice = person(ALICE, Purpose::AnalyticsDay, DAY);
    for row in 0..2 {
        assert_eq!(rows["person"].as_fixed_size_binary().value(row), alice);
        assert_eq!(rows["day"].as_primitive::<Date32Type>().value(row), DAY.0);
        assert_eq!(byte("hour", row), 12);
        assert_eq!(Country::from_code(rows["country"].as_primitive::<UInt16Type>().value(row)).name(), "DE");
    }
    assert_eq!((byte("platform", 0), byte("activity", 0)), (PlatformCode::Android.code(), Activity::MessagePerson.code()));
    assert_eq!((byte("platform", 1), byte("activity", 1)), (PlatformCode::Unknown.code(), Activity::CallVideo.code()));
    assert_eq!(rows["seconds"].as_primitive::<UInt32Type>().values(), &[0, 61]);
    assert_eq!(minimized.max_event_time_ms, Some(NOON_MS));
}

/// The activity, its detail and the account's age in each clean row, by name.
fn details(minimized: &Minimized) -> Vec<(Activity, &'static str, &'static str)> {
    let bytes = |name: &str| minimized.clean[name].as_primitive::<UInt8Type>().values();
    let rows = bytes("activity").iter().zip(bytes("detail")).zip(bytes("account"));
    rows.map(|((activity, detail), account)| {
        let activity = Activity::from_code(*activity).expect("listed");
        (activity, detail_name(activity, *detail), AccountAge::from_code(*account).expect("listed").name())
    })
    .collect()
}

#[test]
fn a_clean_row_says_the_detail_its_activity_has_and_no_other() {
    let call = |quality, missed| Body::CallEnded(proto::CallEnded { kind: 3, quality, missed, ..Default::default() });
    let sent = |conversation, media| Body::MessageSent(proto::MessageSent { conversation, media, ..Default::default() });
    let cases = [
        (sent(1, 1), Activity::MessagePerson, "text"),
        (sent(2, 8), Activity::MessageGroup, "contact_card"),
        (sent(3, 0), Activity::MessageBusiness, "none"),
        (sent(4, 99), Activity::MessageChannel, "none"),
        (call(1, false), Activity::CallGroupVoice, "good"),
        (call(4, false), Activity::CallGroupVoice, "dropped"),
        (call(0, true), Activity::CallGroupVoice, "missed"),
        (call(1, true), Activity::CallGroupVoice, "missed"),
        (Body::StatusPosted(proto::StatusPosted { media: 3 }), Activity::StatusPosted, "video"),
        (Body::ChannelViewed(Default::default()), Activity::ChannelViewed, "none"),
        (Body::FeatureUsed(proto::FeatureUsed { feature: 3 }), Activity::FeatureUsed, "reaction"),
        // P20: that a payment was made is said nowhere.
        (Body::FeatureUsed(proto::FeatureUsed { feature: 10 }), Activity::FeatureUsed, "none"),
        (Body::FeatureUsed(proto::FeatureUsed { feature: 9 }), Activity::FeatureUsed, "none"),
        (Body::AiInvoked(proto::AiInvoked { surface: 1 }), Activity::AiInvoked, "search"),
        (Body::AppCrashed(proto::AppCrashed { site: 5 }), Activity::AppCrashed, "background"),
        (Body::GroupCreated(proto::GroupCreated { group: group(), size: 33 }), Activity::GroupCreated, "33_to_128"),
        (Body::GroupCreated(proto::GroupCreated { group: group(), size: 0 }), Activity::GroupCreated, "none"),
        (Body::AccountRegistered(Default::default()), Activity::AccountRegistered, "none"),
        (business(3), Activity::BusinessRead, "marketing"),
    ];
    let events: Vec<_> = cases.iter().map(|(body, ..)| event(body.clone())).collect();
    let expected: Vec<_> = cases.iter().map(|(_, activity, detail)| (*activity, *detail, "first_week")).collect();
    assert_eq!(details(&run(&events)), expected);

    let ages = [None, Some(0), Some(604_799), Some(604_800), Some(u64::MAX)];
    let events = ages.map(|account_age_s| proto::Event { account_age_s, ..event(message()) });
    let accounts: Vec<_> = details(&run(&events)).into_iter().map(|(.., account)| account).collect();
    assert_eq!(accounts, ["unknown", "first_week", "first_week", "older", "older"]);
}

#[test]
fn p19_of_a_clients_version_two_small_numbers_come_out() {
    let with = |version: &str| proto::Event {
        client: Some(proto::Client { platform: 1, version: version.to_owned(), os: "android 16".to_owned() }),
        ..event(message())
    };
    let written =
        ["2.26.3.9", "26.4", "2.3000.1031", "", "4915112345678", "+4915112345678", "4915112345678.2", "see you at eight"];
    let minimized = run(&written.map(with));
    let versions: Vec<String> = minimized.clean["version"]
        .as_primitive::<UInt16Type>()
        .values()
        .iter()
        .map(|code| ClientVersion::from_code(*code).to_string())
        .collect();
    let unknown = "unknown";
    assert_eq!(versions, ["2.26", "26.4", "2.255+", unknown, unknown, unknown, unknown, unknown]);
}

#[test]
fn p22_messages_around_midnight_are_whole_under_the_day_befores_key() {
    let midnight = DAY.start_ms();
    let yesterday = EpochId(DAY.0 - 1);
    let at = |event_time_ms, body| proto::Event { event_time_ms, ..event(body) };
    let overlap_ms = Limits::default().overlap_ms;
    let events: Vec<_> = (0..60)
        .map(|second| at(midnight - 30_000 + second * 1_000, message()))
        .chain([at(midnight + overlap_ms - 1, message()), at(midnight + overlap_ms, message()), at(midnight, business(1))])
        .collect();
    let rows = signals(&run(&events));
    let under = |epoch, overlap| {
        rows.iter().filter(|r| r.kind == SignalKind::MessageSent && r.epoch == epoch && r.overlap == overlap).count()
    };
    let of_sender = |r: &&Row| r.epoch == yesterday && r.kind != SignalKind::Answered;
    let whole: Vec<_> = rows.iter().filter(of_sender).map(|r| r.person).collect();
    assert_eq!(
        (under(yesterday, false), under(yesterday, true)),
        (30, 31),
        "60 of the window, and the last one within the overlap"
    );
    assert_eq!((under(DAY, false), under(DAY, true)), (32, 0));
    assert!(whole.iter().all(|p| *p == Some(person(ALICE, Purpose::Integrity, yesterday))));
    assert_eq!(rows.iter().filter(|r| r.kind == SignalKind::BusinessSent).count(), 1, "only senders' rules span midnight");

    let keys = Arc::new(TestKeys::default());
    keys.destroy(Purpose::Integrity, yesterday);
    let minimized = run_with(keys, open_context(), &[encoded(&at(midnight, message()))]);
    assert_eq!(
        kinds(&minimized),
        [SignalKind::MessageSent, SignalKind::Contact, SignalKind::Answered],
        "a destroyed key gives no copy"
    );
    assert!(signals(&minimized).iter().all(|row| row.epoch == DAY && !row.overlap));
}

#[test]
fn late_events_are_not_counted_but_still_serve_safety() {
    let closed = RangeContext { closed_through: Some(DAY), ..open_context() };
    let minimized = run_with(Arc::default(), closed, &[encoded(&event(message()))]);
    assert_eq!(outcome(&minimized), Outcome::Late);
    assert_eq!(kinds(&minimized), PAIRED);

    let keys = Arc::new(TestKeys::default());
    keys.destroy(Purpose::AnalyticsDay, DAY);
    let minimized = run_with(Arc::clone(&keys), open_context(), &[encoded(&event(message()))]);
    assert_eq!(outcome(&minimized), Outcome::Late);
    assert_eq!(kinds(&minimized), PAIRED);

    keys.destroy(Purpose::Integrity, DAY);
    let minimized = run_with(keys, open_context(), &[encoded(&event(message()))]);
    assert_eq!(outcome(&minimized), Outcome::Late);
    assert_eq!(kinds(&minimized), []);
}

#[test]
fn a_key_destroyed_between_ranges_is_not_used_again() {
    let keys = Arc::new(TestKeys::default());
    let mut minimizer = Minimizer::new(Arc::clone(&keys) as _, Limits::default());
    let frame = encoded(&event(message()));
    for expected in [Outcome::Counted, Outcome::Late] {
        minimizer.begin(open_context());
        minimizer.push(Offset(0), &frame).expect("keys are in order");
        assert_eq!(outcome(&minimizer.finish().expect("columns fit")), expected);
        keys.destroy(Purpose::AnalyticsDay, DAY);
    }
}

#[test]
fn trouble_with_keys_stops_the_range_and_the_next_try_is_whole() {
    let keys = Arc::new(TestKeys::default());
    let mut minimizer = Minimizer::new(Arc::clone(&keys) as _, Limits::default());
    let frame = encoded(&event(message()));
    *keys.broken.lock().expect("no panic") = true;
    minimizer.begin(open_context());
    let error = minimizer.push(Offset(0), &frame).expect_err("broken");
    assert!(error.to_string().contains("the key folder cannot be read"));
    *keys.broken.lock().expect("no panic") = false;
    minimizer.begin(open_context());
    minimizer.push(Offset(0), &frame).expect("in order again");
    let minimized = minimizer.finish().expect("columns fit");
    assert_eq!((outcome(&minimized), minimized.signals.num_rows()), (Outcome::Counted, PAIRED.len()));
}

#[test]
fn i8_outside_of_a_range_nothing_is_counted() {
    let mut minimizer = Minimizer::new(Arc::new(TestKeys::default()), Limits::default());
    minimizer.push(Offset(0), &encoded(&event(message()))).expect("no key is asked for");
    assert_eq!(outcome(&minimizer.finish().expect("columns fit")), Outcome::Quarantined(Fault::TimeOutOfRange));
    assert_eq!(minimizer.finish().expect("an empty range").events, 0);
}

#[test]
fn i4_neither_debug_nor_errors_nor_rows_hold_a_number() {
    let keys = Arc::new(TestKeys::default());
    let mut minimizer = Minimizer::new(Arc::clone(&keys) as _, Limits::default());
    minimizer.begin(open_context());
    let mut bodies = vec![message(), business(1)];
    bodies.push(Body::ReportFiled(proto::ReportFiled { person: BOB.into(), ..Default::default() }));
    bodies.push(Body::CallEnded(proto::CallEnded { peer: BOB.into(), kind: 1, ..Default::default() }));
    for body in bodies {
        let client = Some(proto::Client { platform: 1, version: "15112345678.49151".to_owned(), os: "15112345678".to_owned() });
        minimizer
            .push(Offset(0), &encoded(&proto::Event { ip: vec![192, 0, 2, 77], client, ..event(body) }))
            .expect("keys are in order");
    }
    minimizer.push(Offset(9), &encoded(&proto::Event { actor: "49151".into(), ..event(message()) })).expect("quarantined");
    let minimized = minimizer.finish().expect("columns fit");
    *keys.broken.lock().expect("no panic") = true;
    minimizer.begin(open_context());
    let error = minimizer.push(Offset(0), &encoded(&event(message()))).expect_err("broken");
    let shown = format!("{minimized:?} {:?} {error} {error:?}", minimized.quarantined);
    let mut bytes = shown.into_bytes();
    for batch in [&minimized.clean, &minimized.signals] {
        for column in batch.columns() {
            column.to_data().buffers().iter().for_each(|buffer| bytes.extend_from_slice(buffer.as_slice()));
        }
    }
    for secret in [&b"15112345678"[..], b"2025550143", b"49151", &[192, 0, 2, 77]] {
        assert!(!bytes.windows(secret.len()).any(|window| window == secret));
    }
}

/// Frames that are mostly whole events over a few days, and some damage.
fn frames() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let one =
        (0..13_i32, -30..30_i64, 0..5_i32, any::<bool>(), "[0-9]{0,10}", proptest::collection::vec(any::<u8>(), 0..6), 0..4_u8);
    let frame = one.prop_map(|(kind, hours, age_band, analytics_consent, number, junk, how)| {
        let body = match kind {
            0..=3 => {
                let to_person = number.chars().rev().collect();
                Body::MessageSent(proto::MessageSent { conversation: kind, to_person, ..Default::default() })
            }
            4..=8 => business(kind - 4),
            9 => Body::UserBlocked(proto::UserBlocked {
                person: number.clone(),
                business: "b".into(),
                rate: 4,
                ..Default::default()
            }),
            10 => Body::GroupLeft(proto::GroupLeft { group: junk.clone(), after_s: 1 }),
            11 => Body::GroupCreated(proto::GroupCreated { group: junk.clone(), size: 3 }),
            _ => Body::ContactsUploaded(Default::default()),
        };
        let choices = Some(proto::Choices { analytics_consent, age_band, ..Default::default() });
        let mut bytes =
            encoded(&proto::Event { event_time_ms: NOON_MS + hours * 3_600_000, actor: number, choices, ..event(body) });
        match how {
            0 => junk,
            1 => {
                bytes.truncate(bytes.len() / 2);
                bytes
            }
            _ => bytes,
        }
    });
    proptest::collection::vec(frame, 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn i1_i9_every_frame_is_counted_once_and_a_replay_is_equal(frames in frames(), closed in proptest::option::of(-2..2_i32)) {
        let context = RangeContext { closed_through: closed.map(|d| EpochId(DAY.0 + d)), hours_after: None, latest_ms: NOON_MS + 20 * 3_600_000, read_to_ms: None };
        let first = run_with(Arc::default(), context, &frames);
        prop_assert_eq!(first.events, frames.len() as u64);
        prop_assert_eq!(first.counts.iter().map(|(_, _, n)| n).sum::<u64>(), first.events);
        let counted: u64 = first.counts.iter().filter(|(_, o, _)| *o == Outcome::Counted).map(|(_, _, n)| n).sum();
        prop_assert_eq!(counted, first.clean.num_rows() as u64);
        let quarantined: u64 = first.counts.iter().filter(|(day, _, _)| day.is_none()).map(|(_, _, n)| n).sum();
        prop_assert_eq!(quarantined, first.quarantined.len() as u64);

        // A replay by a minimizer that did something else before.
        let mut used = Minimizer::new(Arc::new(TestKeys::default()), Limits::default());
        used.begin(open_context());
        used.push(Offset(5), &encoded(&event(business(1)))).expect("keys are in order");
        used.begin(context);
        for (offset, frame) in frames.iter().enumerate() {
            used.push(Offset(offset as i64), frame).expect("keys are in order");
        }
        let second = used.finish().expect("columns fit");
        prop_assert_eq!(&first.clean, &second.clean);
        prop_assert_eq!(&first.signals, &second.signals);
        prop_assert_eq!(&first.counts, &second.counts);
        prop_assert_eq!(&first.quarantined, &second.quarantined);
        prop_assert_eq!(first.max_event_time_ms, second.max_event_time_ms);
    }
}
