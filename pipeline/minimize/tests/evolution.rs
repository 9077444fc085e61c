//! An old and a new producer at once: each writes by its own `event.proto`, made here of today's text, and both are read by today's allowlist.
//!
//! That the bytes of what is new are not touched is shown by `decode/tests.rs`; here, that nothing comes of them.

mod common;

use arrow::array::{AsArray as _, RecordBatch};
use arrow::datatypes::UInt8Type;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, Kind, MapKey, ReflectMessage as _, Value};
use starling_minimize::Minimized;
use starling_schemas::codes::{Fault, Outcome, Refusal, SignalKind};
use starling_schemas::event::{self as proto, event::Body};

use common::{ALICE, BOB, NOON_MS, business, event, message, open_context, run_with};

const TODAY: &str = include_str!("../../../schemas/event.proto");
const OPTIONS: &str = include_str!("../../../schemas/options.proto");

/// What a new producer puts into every place that today's schema does not know.
const CONTENT: &str = "see you at eight by the bridge, +4915155555555";
/// A number that no enum has today.
const NEW_VALUE: i32 = 99;
/// Fields that every message has in the new producer's schema.
const NEW_FIELDS: &str = "
  uint64 new_number = 500;
  string new_words = 501;
  NewMessage new_message = 502;
  repeated int32 new_list = 503;
  fixed64 new_wide = 504;
  sfixed32 new_narrow = 505;
  map<string, string> new_map = 506;
  repeated string new_texts = 507;
";
/// Fields that the old producer's schema lacks.
const NOT_YET: &[&str] = &[
    "account_age_s",
    "region",
    "guardian_consent",
    "os",
    "thread_is_new",
    "is_reply",
    "duration_s",
    "strangers",
    "portfolio",
    "tier",
    "reason",
    "version",
    "media",
    "quality",
    "missed",
    "feature",
    "surface",
    "site",
    "category",
    "cohort",
    "to_new_account",
    "rate",
];

fn compiled(event: &str) -> DescriptorPool {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("event.proto"), event).expect("a file");
    std::fs::write(dir.path().join("options.proto"), OPTIONS).expect("a file");
    let mut compiler = protox::Compiler::new([dir.path()]).expect("a compiler");
    compiler.include_imports(true).open_files(["event.proto"]).unwrap_or_else(|error| panic!("{error:?}"));
    compiler.descriptor_pool()
}

/// Tomorrow's schema: new fields in every message, and a new kind of event.
fn new_schema() -> DescriptorPool {
    let mut text = String::new();
    for line in TODAY.lines() {
        text.push_str(line);
        text.push('\n');
        if line.starts_with("message ") {
            text.push_str(NEW_FIELDS);
        }
        if line.trim() == "oneof body {" {
            text.push_str("    NewMessage something_new = 37;\n");
        }
    }
    text.push_str("message NewMessage { string words = 1; bytes more = 2; NewMessage deeper = 3; }\n");
    compiled(&text)
}

/// Yesterday's schema.
fn old_schema() -> DescriptorPool {
    let is_there = |line: &&str| !NOT_YET.iter().any(|field| line.contains(&format!(" {field} = ")));
    let text: Vec<_> = TODAY.lines().filter(is_there).collect();
    assert!(text.len() + NOT_YET.len() <= TODAY.lines().count(), "a field of NOT_YET is none today");
    compiled(&text.join("\n"))
}

/// The same event as a producer with another schema holds it.
fn held_by(schema: &DescriptorPool, event: &proto::Event) -> DynamicMessage {
    let descriptor = schema.get_message_by_name("starling.v1.Event").expect("Event");
    DynamicMessage::decode(descriptor, &event.encode_to_vec()[..]).expect("an event")
}

/// Sets every field that only the new schema has, in the message and in all inside it.
fn with_all_that_is_new(message: &mut DynamicMessage) {
    for (_, value) in message.fields_mut() {
        if let Value::Message(inner) = value {
            with_all_that_is_new(inner);
        }
    }
    let words = || Value::String(CONTENT.to_owned());
    let new = message.descriptor().get_field_by_name("new_message").expect("a new field");
    let Kind::Message(new) = new.kind() else { panic!("another kind") };
    let mut inner = DynamicMessage::new(new.clone());
    inner.set_field_by_name("words", words());
    let mut outer = DynamicMessage::new(new);
    outer.set_field_by_name("words", words());
    outer.set_field_by_name("more", Value::Bytes(vec![0xff; 40].into()));
    outer.set_field_by_name("deeper", Value::Message(inner));
    message.set_field_by_name("new_number", Value::U64(4_915_155_555_555));
    message.set_field_by_name("new_words", words());
    message.set_field_by_name("new_message", Value::Message(outer));
    message.set_field_by_name("new_list", Value::List(vec![Value::I32(-1), Value::I32(7)]));
    message.set_field_by_name("new_wide", Value::U64(u64::MAX));
    message.set_field_by_name("new_narrow", Value::I32(-5));
    message.set_field_by_name("new_map", Value::Map([(MapKey::String("to".to_owned()), words())].into()));
    message.set_field_by_name("new_texts", Value::List(vec![words(), words()]));
}

/// Drops what the old schema has no field for.
fn without_what_is_unknown(message: &mut DynamicMessage) {
    message.take_unknown_fields().for_each(drop);
    for (_, value) in message.fields_mut() {
        if let Value::Message(inner) = value {
            without_what_is_unknown(inner);
        }
    }
}

/// An event of every kind.
fn events() -> Vec<proto::Event> {
    let group = || b"group-1".to_vec();
    let bodies = [
        Body::AccountRegistered(proto::AccountRegistered { cohort: group() }),
        Body::AccountDeleted(proto::AccountDeleted {}),
        Body::ConsentChanged(proto::ConsentChanged { analytics_consent: true }),
        message(),
        Body::MessageSent(proto::MessageSent {
            conversation: 2,
            to_group: group(),
            is_reply: true,
            media: 2,
            ..Default::default()
        }),
        Body::CallEnded(proto::CallEnded { peer: BOB.into(), kind: 2, duration_s: 61, quality: 1, missed: false }),
        Body::StatusPosted(proto::StatusPosted { media: 1 }),
        Body::ChannelViewed(proto::ChannelViewed { channel: group() }),
        Body::FeatureUsed(proto::FeatureUsed { feature: 1 }),
        Body::AiInvoked(proto::AiInvoked { surface: 1 }),
        Body::AppCrashed(proto::AppCrashed { site: 1 }),
        Body::GroupCreated(proto::GroupCreated { group: group(), size: 9 }),
        Body::MembersAdded(proto::MembersAdded { group: group(), count: 5, strangers: 4 }),
        Body::GroupJoinedByLink(proto::GroupJoinedByLink { group: group(), link: vec![1] }),
        Body::GroupLeft(proto::GroupLeft { group: group(), after_s: 3 }),
        Body::GroupProfileChanged(proto::GroupProfileChanged { group: group(), name_hash: vec![1], ..Default::default() }),
        Body::GroupReported(proto::GroupReported { group: group(), reason: 1, rate: 3 }),
        business(1),
        business(4),
        Body::UserBlocked(proto::UserBlocked { person: BOB.into(), business: "b-1".into(), rate: 2, template: "t".into() }),
        Body::ReportFiled(proto::ReportFiled {
            person: BOB.into(),
            business: "b-1".into(),
            reason: 1,
            after_delivery: Some(true),
            rate: 2,
            template: "t".into(),
        }),
        Body::ReportFiled(proto::ReportFiled { business: "b-1".into(), rate: 4, ..Default::default() }),
        Body::BusinessInformation(proto::BusinessInformation {
            business: "b-1".into(),
            portfolio: "p-1".into(),
            name: "Bakery".into(),
            category: 1,
            tier: 2,
        }),
        Body::ContactsUploaded(proto::ContactsUploaded {}),
    ];
    let kinds: std::collections::HashSet<_> = bodies.iter().map(std::mem::discriminant).collect();
    assert_eq!(kinds.len(), starling_schemas::fields::FIELDS.iter().filter(|f| f.message == "Event" && f.number >= 16).count());
    let client = || Some(proto::Client { platform: 1, version: "26.4.1".into(), os: "android 16".into() });
    bodies.map(|body| proto::Event { ip: vec![192, 0, 2, 7], region: "EU".into(), client: client(), ..event(body) }).to_vec()
}

fn read(frames: &[Vec<u8>]) -> Minimized {
    run_with(std::sync::Arc::default(), open_context(), frames)
}

fn encoded(events: &[proto::Event]) -> Vec<Vec<u8>> {
    events.iter().map(proto::Event::encode_to_vec).collect()
}

/// Bit for bit: rows, signals, counts, quarantine, watermark.
fn assert_same(one: &Minimized, other: &Minimized) {
    for (one, other) in [(&one.clean, &other.clean), (&one.signals, &other.signals)] {
        assert_eq!(one, other);
        for (one, other) in one.columns().iter().zip(other.columns()) {
            let (one, other) = (one.to_data(), other.to_data());
            assert!(one.buffers().iter().zip(other.buffers()).all(|(one, other)| one.as_slice() == other.as_slice()));
        }
    }
    assert_eq!(one.businesses, other.businesses);
    assert_eq!(one.counts, other.counts);
    assert_eq!((one.events, one.max_event_time_ms), (other.events, other.max_event_time_ms));
    assert_eq!(one.quarantined, other.quarantined);
}

#[test]
fn p1_a_field_that_the_allowlist_does_not_name_changes_nothing() {
    let (today, schema) = (events(), new_schema());
    let tomorrow: Vec<_> = today
        .iter()
        .map(|event| {
            let mut held = held_by(&schema, event);
            with_all_that_is_new(&mut held);
            held.encode_to_vec()
        })
        .collect();
    let says = |frame: &[u8]| frame.windows(CONTENT.len()).filter(|window| *window == CONTENT.as_bytes()).count();
    assert!(tomorrow.iter().all(|frame| says(frame) >= 18), "new words in the event, the client, the choices and the body");
    let (plain, new) = (read(&encoded(&today)), read(&tomorrow));
    assert!(plain.clean.num_rows() > 10 && plain.signals.num_rows() > 10);
    assert_same(&new, &plain);
    let shown = format!("{new:?} {:?} {:?}", new.clean, new.signals);
    assert!(!shown.contains("eight by the bridge") && !shown.contains("15155555555"));
}

#[test]
fn an_old_producers_event_counts_as_one_that_does_not_say_what_it_cannot_say() {
    let schema = old_schema();
    let (mut old, mut as_today) = (Vec::new(), Vec::new());
    for event in events() {
        let mut held = held_by(&schema, &event);
        without_what_is_unknown(&mut held);
        old.push(held.encode_to_vec());
        let mut silent = proto::Event { account_age_s: None, region: String::new(), ..event };
        if let Some(choices) = &mut silent.choices {
            choices.guardian_consent = false;
        }
        if let Some(client) = &mut silent.client {
            client.version.clear();
        }
        match &mut silent.body {
            Some(Body::MessageSent(body)) => (body.thread_is_new, body.is_reply, body.media) = (false, false, 0),
            Some(Body::CallEnded(body)) => (body.duration_s, body.quality, body.missed) = (0, 0, false),
            Some(Body::StatusPosted(body)) => body.media = 0,
            Some(Body::FeatureUsed(body)) => body.feature = 0,
            Some(Body::AiInvoked(body)) => body.surface = 0,
            Some(Body::AppCrashed(body)) => body.site = 0,
            Some(Body::MembersAdded(body)) => body.strangers = 0,
            Some(Body::BusinessMessage(body)) => {
                body.portfolio.clear();
                (body.tier, body.category) = (0, 0);
            }
            Some(Body::BusinessInformation(body)) => {
                body.portfolio.clear();
                (body.tier, body.category) = (0, 0);
            }
            Some(Body::UserBlocked(body)) => body.rate = 0,
            Some(Body::GroupReported(body)) => body.rate = 0,
            Some(Body::ReportFiled(body)) => (body.reason, body.rate) = (0, 0),
            _ => {}
        }
        as_today.push(silent);
    }
    let (old, as_today) = (read(&old), read(&encoded(&as_today)));
    assert_same(&old, &as_today);
    assert_eq!(old.businesses.len(), 1);
    assert_eq!(old.clean.num_rows(), read(&encoded(&events())).clean.num_rows(), "an old producer's people are counted as ever");
    assert!(old.quarantined.is_empty());

    // I8: what an old producer cannot say is not assumed to be yes.
    let mut minor = event(message());
    minor.choices = Some(proto::Choices { analytics_consent: true, age_band: 2, guardian_consent: true, ..Default::default() });
    let mut held = held_by(&schema, &minor);
    without_what_is_unknown(&mut held);
    assert_eq!(outcomes(&read(&[held.encode_to_vec()])), [(Outcome::Refused(Refusal::Minor), 1)]);
}

fn outcomes(minimized: &Minimized) -> Vec<(Outcome, u64)> {
    minimized.counts.iter().map(|(_, outcome, events)| (*outcome, *events)).collect()
}

#[test]
fn p60_a_new_kind_of_event_is_quarantined_as_unknown_and_never_guessed() {
    let schema = new_schema();
    let mut held = held_by(&schema, &event(message()));
    let new = held.descriptor().get_field_by_name("something_new").expect("a new kind");
    let Kind::Message(descriptor) = new.kind() else { panic!("another kind") };
    let mut body = DynamicMessage::new(descriptor);
    body.set_field_by_name("words", Value::String(CONTENT.to_owned()));
    // The message that was there before is replaced: one event is of one kind.
    held.set_field(&new, Value::Message(body));
    let frame = held.encode_to_vec();
    let minimized = read(std::slice::from_ref(&frame));
    assert_eq!(outcomes(&minimized), [(Outcome::Quarantined(Fault::UnknownEvent), 1)]);
    assert_eq!(minimized.quarantined, [(starling_schemas::ids::Offset(0), Fault::UnknownEvent, frame.len() as u64)]);
    assert_eq!((minimized.clean.num_rows(), minimized.signals.num_rows(), minimized.max_event_time_ms), (0, 0, None));
}

#[test]
fn a_new_value_of_every_enum_is_unknown_or_quarantined_and_never_another_value() {
    use Outcome::{Counted, Quarantined, Refused};
    let unknown_event = Quarantined(Fault::UnknownEvent);
    // What becomes of an event in which this field holds a value of tomorrow.
    let expected = [
        ("Client.platform", Counted),
        ("Choices.age_band", Refused(Refusal::AgeUnknown)),
        ("MessageSent.conversation", unknown_event),
        ("MessageSent.media", Counted),
        ("MessageSent.size", Counted),
        ("CallEnded.kind", unknown_event),
        ("CallEnded.quality", Counted),
        ("StatusPosted.media", Counted),
        ("FeatureUsed.feature", Counted),
        ("AiInvoked.surface", Counted),
        ("AppCrashed.site", Counted),
        ("GroupReported.reason", Refused(Refusal::NotForAnalytics)),
        ("GroupReported.rate", Refused(Refusal::NotForAnalytics)),
        ("BusinessMessage.stage", unknown_event),
        ("BusinessMessage.category", Counted),
        ("BusinessMessage.tier", Counted),
        ("UserBlocked.rate", Refused(Refusal::NotForAnalytics)),
        ("ReportFiled.reason", Refused(Refusal::NotForAnalytics)),
        ("ReportFiled.rate", Refused(Refusal::NotForAnalytics)),
        ("BusinessInformation.category", Refused(Refusal::NotForAnalytics)),
        ("BusinessInformation.tier", Refused(Refusal::NotForAnalytics)),
    ];
    let schema = compiled(TODAY);
    let is_enum = |kind: Kind| matches!(kind, Kind::Enum(_));
    let mut seen = 0;
    for message in schema.all_messages().filter(|m| m.parent_file().name() == "event.proto") {
        for field in message.fields().filter(|field| is_enum(field.kind())) {
            let name = format!("{}.{}", message.name(), field.name());
            let (_, expected) = expected.iter().find(|(known, _)| *known == name).unwrap_or_else(|| {
                panic!("{name} was added to event.proto: say here what becomes of a value that today's schema does not know")
            });
            let with = |value: i32| {
                let sets = |held: &mut DynamicMessage| held.set_field(&field, Value::EnumNumber(value));
                events().iter().find_map(|event| {
                    let mut held = held_by(&schema, event);
                    let inner = held.fields_mut().find_map(|(_, inner)| match inner {
                        Value::Message(inner) if inner.descriptor() == message => Some(inner),
                        _ => None,
                    });
                    inner.map(sets).map(|()| held.encode_to_vec())
                })
            };
            // Beyond 8, 16 and 31 bits too: none of them may be taken for a value of today.
            for value in [NEW_VALUE, 256 + 1, 65_536 + 1, i32::MAX, -1, i32::MIN] {
                let minimized = read(&[with(value).expect("an event with this message")]);
                assert_eq!(outcomes(&minimized), [(*expected, 1)], "{name} = {value}");
                let unstated = read(&[with(0).expect("an event with this message")]);
                assert_eq!(
                    (minimized.clean, minimized.signals, minimized.businesses),
                    (unstated.clean, unstated.signals, unstated.businesses),
                    "{name} = {value} is as if it were not said"
                );
            }
            seen += 1;
        }
    }
    assert_eq!(seen, expected.len(), "a field of this list is no enum any more");
}

#[test]
fn i1_old_new_and_todays_events_in_one_range_do_not_change_each_other() {
    let (old_schema, new_schema) = (old_schema(), new_schema());
    let mut frames = Vec::new();
    for (hour, event) in (0..).zip(events()) {
        let event = proto::Event { event_time_ms: NOON_MS + hour * 1_000, actor: ALICE.to_owned(), ..event };
        let mut old = held_by(&old_schema, &event);
        without_what_is_unknown(&mut old);
        let mut new = held_by(&new_schema, &event);
        with_all_that_is_new(&mut new);
        frames.extend([old.encode_to_vec(), event.encode_to_vec(), new.encode_to_vec()]);
    }
    let mixed = read(&frames);
    assert_eq!(mixed.events, frames.len() as u64);
    assert_eq!(mixed.counts.iter().map(|(_, _, events)| events).sum::<u64>(), mixed.events);
    let (mut clean, mut signals) = (0, 0);
    // Rows of makers of groups stand behind the others, and those of pairs behind these; a contact that its sender repeats is said once, an answer each time.
    let before = |signals: &RecordBatch, of: &[SignalKind]| {
        let kinds = signals["kind"].as_primitive::<UInt8Type>().values();
        kinds.iter().position(|kind| of.iter().any(|other| other.code() == *kind)).unwrap_or(kinds.len())
    };
    let paired = |signals: &RecordBatch| before(signals, &[SignalKind::Contact, SignalKind::Answered]);
    let others = |signals: &RecordBatch| before(signals, &[SignalKind::GroupMade, SignalKind::Contact, SignalKind::Answered]);
    let makers = |signals: &RecordBatch| -> Vec<RecordBatch> {
        (others(signals)..paired(signals)).map(|row| signals.slice(row, 1)).collect()
    };
    let mut made = makers(&mixed.signals);
    assert_eq!(made.len(), 3, "a group is made by each producer");
    let mut of_pairs = mixed.signals.slice(paired(&mixed.signals), mixed.signals.num_rows() - paired(&mixed.signals));
    assert!(of_pairs.num_rows() >= 3, "a contact, its copy, an answer");
    for frame in &frames {
        let alone = read(std::slice::from_ref(frame));
        assert_eq!(mixed.clean.slice(clean, alone.clean.num_rows()), alone.clean);
        let count = others(&alone.signals);
        assert_eq!(mixed.signals.slice(signals, count), alone.signals.slice(0, count));
        for maker in makers(&alone.signals) {
            let place = made.iter().position(|other| *other == maker).expect("in the order of nothing");
            made.remove(place);
        }
        for row in paired(&alone.signals)..alone.signals.num_rows() {
            if of_pairs.num_rows() > 0 && of_pairs.slice(0, 1) == alone.signals.slice(row, 1) {
                of_pairs = of_pairs.slice(1, of_pairs.num_rows() - 1);
            } else {
                let kind = alone.signals["kind"].as_primitive::<UInt8Type>().value(row);
                assert_eq!(kind, SignalKind::Contact.code(), "only a contact is left out");
            }
        }
        clean += alone.clean.num_rows();
        signals += count;
    }
    assert_eq!((clean, signals), (mixed.clean.num_rows(), others(&mixed.signals)));
    assert!(made.is_empty());
    assert_eq!(of_pairs.num_rows(), 0, "no row of a pair that no frame gives by itself");
}

/// Every field of every message, said otherwise than it is: where the clean row is another one then, the schema must say so.
#[test]
fn p36_p59_what_changes_a_clean_row_is_for_analytics_in_the_schema() {
    let schema = compiled(TODAY);
    let mut changing = std::collections::BTreeSet::new();
    for event in events() {
        let before = read(&[event.encode_to_vec()]).clean;
        let held = held_by(&schema, &event);
        let inner: Vec<_> = held.fields().filter(|(_, value)| matches!(value, Value::Message(_))).map(|(f, _)| f).collect();
        let owners = std::iter::once(None).chain(inner.into_iter().map(Some));
        for owner in owners {
            let descriptor = owner.as_ref().map_or(held.descriptor(), |owner| match owner.kind() {
                Kind::Message(message) => message,
                _ => unreachable!("kept above"),
            });
            for field in descriptor.fields() {
                let values: &[Value] = match field.kind() {
                    Kind::Enum(_) => &[Value::EnumNumber(0), Value::EnumNumber(1), Value::EnumNumber(2), Value::EnumNumber(3)],
                    Kind::Bool => &[Value::Bool(false), Value::Bool(true)],
                    Kind::String => {
                        &[Value::String(String::new()), Value::String(BOB.to_owned()), Value::String("2.9".to_owned())]
                    }
                    Kind::Uint32 => &[Value::U32(0), Value::U32(7), Value::U32(700)],
                    Kind::Uint64 => &[Value::U64(0), Value::U64(1 << 40)],
                    Kind::Int64 => &[Value::I64(NOON_MS - 7_200_000)],
                    Kind::Bytes => &[Value::Bytes(vec![1; 16].into())],
                    Kind::Message(_) => continue,
                    other => panic!("{}: say here how a {other:?} is said otherwise", field.full_name()),
                };
                for value in values {
                    let mut changed = held.clone();
                    let message = match &owner {
                        None => &mut changed,
                        Some(owner) => match changed.get_field_mut(owner) {
                            Value::Message(message) => message,
                            _ => unreachable!("kept above"),
                        },
                    };
                    message.set_field(&field, value.clone());
                    let after = read(&[changed.encode_to_vec()]).clean;
                    // A refused or unreadable event has no row: that is what gates are for.
                    if before.num_rows() == 1 && after.num_rows() == 1 && before != after {
                        changing.insert((descriptor.name().to_owned(), field.name().to_owned()));
                    }
                }
            }
        }
    }
    let fields = starling_schemas::fields::FIELDS;
    for (message, name) in &changing {
        let field = fields.iter().find(|f| f.message == message && f.field == name).expect("in the table");
        assert!(
            field.purposes.contains(&"analytics"),
            "{message}.{name} comes into clean rows, and event.proto does not say that it is for analytics: say so there, with the reason"
        );
    }
    let not_counted: Vec<_> = fields
        .iter()
        .filter(|f| f.purposes.contains(&"analytics") && !changing.contains(&(f.message.to_owned(), f.field.to_owned())))
        .map(|f| format!("{}.{}", f.message, f.field))
        .collect();
    assert_eq!(not_counted, ["Client.os", "MessageSent.size"], "for analytics in the schema, and counted by nothing");
}
