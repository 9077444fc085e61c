//! Old and new producers run at once: what a change of `event.proto` may do, and what it must not do unseen (P59).
//!
//! `acknowledged.txt` is every field and enum value as it was last looked at, one a line. A change of `event.proto` fails here until its line
//! is written there, and a change that yesterday's producers cannot bear fails for good. The texts say what to do.

#![allow(missing_docs)]

// What builds the schema, for trying to get past it.
#[path = "../build/table.rs"]
mod table;

use std::collections::BTreeMap;

use prost_reflect::{DescriptorPool, Kind};

const EVENT: &str = include_str!("../event.proto");
const OPTIONS: &str = include_str!("../options.proto");
const ACKNOWLEDGED: &str = include_str!("../acknowledged.txt");

/// `event.proto`, as this text has it.
fn compiled(event: &str) -> DescriptorPool {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("event.proto"), event).expect("a file");
    std::fs::write(dir.path().join("options.proto"), OPTIONS).expect("a file");
    let mut compiler = protox::Compiler::new([dir.path()]).expect("a compiler");
    compiler.include_imports(true).open_files(["event.proto"]).unwrap_or_else(|error| panic!("{error:?}"));
    compiler.descriptor_pool()
}

/// `event.proto` with one text replaced.
fn changed(from: &str, to: &str) -> String {
    assert_eq!(EVENT.matches(from).count(), 1, "`{from}` stands once in event.proto");
    EVENT.replacen(from, to, 1)
}

/// What stands behind the name of a field or an enum value.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    number: i32,
    /// Type, and the oneof it is in; empty for an enum value.
    shape: String,
    /// Class, purposes, retention; empty for an enum value.
    handling: String,
}

/// One line of `acknowledged.txt`.
fn line(name: &str, entry: &Entry) -> String {
    [name, &format!("= {}", entry.number), &entry.shape, &entry.handling]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(" | ")
}

/// Every field and enum value of a schema by `Message.field` or `Enum.VALUE`.
fn entries(pool: &DescriptorPool) -> BTreeMap<String, Entry> {
    let mut entries = BTreeMap::new();
    let handling: BTreeMap<String, String> = table::fields(pool)
        .expect("a schema that builds")
        .lines()
        .filter(|line| line.contains("FieldSpec {"))
        .map(|line| {
            let quoted: Vec<&str> = line.split('"').skip(1).step_by(2).collect();
            let [message, field, class, purposes @ .., retention] = &quoted[..] else { panic!("another table: {line}") };
            (format!("{message}.{field}"), format!("{class}, for {}, {retention}", purposes.join(" and ")))
        })
        .collect();
    for message in pool.all_messages().filter(|m| m.parent_file().name() == "event.proto") {
        for field in message.fields() {
            let name = format!("{}.{}", message.name(), field.name());
            let kind = match field.kind() {
                Kind::Message(inner) => inner.name().to_owned(),
                Kind::Enum(inner) => inner.name().to_owned(),
                other => format!("{other:?}").to_lowercase(),
            };
            let repeated = if field.is_list() { "repeated " } else { "" };
            let oneof = match field.containing_oneof() {
                Some(oneof) if oneof.is_synthetic() => " optional".to_owned(),
                Some(oneof) => format!(" in {}", oneof.name()),
                None => String::new(),
            };
            let handling = handling.get(&name).cloned().expect("every field is in the table");
            let number = i32::try_from(field.number()).expect("29 bits");
            entries.insert(name, Entry { number, shape: format!("{repeated}{kind}{oneof}"), handling });
        }
    }
    for values in pool.all_enums().filter(|e| e.parent_file().name() == "event.proto") {
        for value in values.values() {
            let entry = Entry { number: value.number(), shape: String::new(), handling: String::new() };
            entries.insert(format!("{}.{}", values.name(), value.name()), entry);
        }
    }
    entries
}

/// Whether a message or enum keeps a number for nothing, so that nobody gives it another meaning.
fn is_reserved(pool: &DescriptorPool, owner: &str, number: i32) -> bool {
    let path = format!("starling.v1.{owner}");
    let message = pool
        .get_message_by_name(&path)
        .is_some_and(|m| m.reserved_ranges().any(|r| u32::try_from(number).is_ok_and(|n| r.contains(&n))));
    message || pool.get_enum_by_name(&path).is_some_and(|e| e.reserved_ranges().any(|r| r.contains(&number)))
}

/// What is to be said of the difference between a schema and what was acknowledged of it.
fn verdicts(acknowledged: &str, pool: &DescriptorPool) -> Vec<String> {
    let now = entries(pool);
    let mut then = BTreeMap::new();
    let mut verdicts = Vec::new();
    for text in acknowledged.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let (text, was_removed) = text.strip_prefix("removed ").map_or((text, false), |text| (text, true));
        let mut parts = text.split(" | ");
        let name = parts.next().unwrap_or_default();
        let number = parts
            .next()
            .and_then(|n| n.strip_prefix("= "))
            .and_then(|n| n.parse().ok())
            .unwrap_or_else(|| panic!("no line of acknowledged.txt: {text}"));
        let mut part = || parts.next().unwrap_or_default().to_owned();
        let old = Entry { number, shape: part(), handling: part() };
        let owner = name.split('.').next().unwrap_or_default();
        match (now.get(name), was_removed) {
            (None, true) if is_reserved(pool, owner, number) => {}
            (None, true) => verdicts.push(format!(
                "{name} was taken out, and old producers still send it: keep `reserved {number};` in {owner}, so that nobody gives its number another meaning"
            )),
            (Some(_), true) => verdicts.push(format!(
                "{name} was taken out once and is back: what is recorded under its number has the old meaning. Give it a new name and number"
            )),
            (None, false) => verdicts.push(format!(
                "{name} is gone, and old producers still send it. If that is meant: write `reserved {number};` into {owner}, and `removed ` before its line in acknowledged.txt"
            )),
            (Some(new), false) => verdicts.extend(verdict(name, &old, new)),
        }
        then.insert(name.to_owned(), old);
    }
    verdicts.extend(now.iter().filter(|(name, _)| !then.contains_key(*name)).map(|(name, new)| {
        format!(
            "{name} is new. It is skipped unread until pipeline/minimize/src/decode.rs names it, and a body or enum value that it does not know \
             is quarantined or unknown. If class, purposes and retention are as you mean them, acknowledge it (P59: what is material is announced): \
             write into acknowledged.txt\n  {}",
            line(name, new)
        )
    }));
    verdicts
}

/// The same for one name that is there before and after.
fn verdict(name: &str, old: &Entry, new: &Entry) -> Option<String> {
    if old.number != new.number {
        return Some(format!(
            "{name} has number {} instead of {}: what producers of yesterday send would be read as something else. Give the old number back; a \
             new meaning takes a new field with a new number",
            new.number, old.number
        ));
    }
    if old.shape != new.shape {
        return Some(format!(
            "{name} is `{}` instead of `{}`: what producers of yesterday send could not be read, or would mean something else. Give the old type \
             back, and add a field with a new number beside it",
            new.shape, old.shape
        ));
    }
    (old.handling != new.handling).then(|| {
        format!(
            "{name} is handled as `{}` instead of `{}`. That is a material change of what is done with a datum (P59): if it is meant, have it \
             announced, and write into acknowledged.txt\n  {}",
            new.handling,
            old.handling,
            line(name, new)
        )
    })
}

#[test]
fn p59_event_proto_is_what_was_acknowledged() {
    let verdicts = verdicts(ACKNOWLEDGED, &compiled(EVENT));
    assert!(verdicts.is_empty(), "event.proto was changed:\n- {}", verdicts.join("\n- "));
}

#[test]
fn a_change_that_old_producers_cannot_bear_is_told_with_what_to_do() {
    let region = "  string region = 5 [(handling) = {class: ACCOUNT_FACT purposes: [GATE] retention: NOT_KEPT}];\n";
    let duration = "uint32 duration_s = 3";
    let cases = [
        (region, String::new(), "Event.region is gone, and old producers still send it"),
        (region, "  reserved 5;\n".to_owned(), "Event.region is gone"),
        (region, region.replace("= 5", "= 9"), "Event.region has number 9 instead of 5"),
        (region, region.replace("string", "bytes"), "Event.region is `bytes` instead of `string`"),
        (region, region.replace("string", "repeated string"), "Event.region is `repeated string` instead of `string`"),
        (region, region.replace("GATE", "GATE, INTEGRITY"), "a material change"),
        (region, region.replace("NOT_KEPT", "THIRTY_DAYS"), "a material change"),
        (region, region.replace("ACCOUNT_FACT", "ACTIVITY"), "a material change"),
        (region, region.replace("region = 5", "residence = 5"), "Event.region is gone"),
        (duration, "uint64 duration_s = 3".to_owned(), "CallEnded.duration_s is `uint64` instead of `uint32`"),
        (duration, "optional uint32 duration_s = 3".to_owned(), "CallEnded.duration_s is `uint32 optional` instead of `uint32`"),
        ("  CALL_KIND_VIDEO = 2;\n", String::new(), "CallKind.CALL_KIND_VIDEO is gone"),
        ("  AGE_BAND_ADULT = 3;\n", "  AGE_BAND_ADULT = 4;\n".to_owned(), "AgeBand.AGE_BAND_ADULT has number 4 instead of 3"),
        (
            "  PLATFORM_CLOUD_API = 6;\n",
            "  PLATFORM_CLOUD_API = 6;\n  PLATFORM_GLASSES = 7;\n".to_owned(),
            "Platform.PLATFORM_GLASSES is new",
        ),
        (
            region,
            format!("{region}  string plan = 9 [(handling) = {{class: ACCOUNT_FACT purposes: [GATE] retention: NOT_KEPT}}];\n"),
            "Event.plan is new",
        ),
    ];
    for (from, to, expected) in cases {
        let verdicts = verdicts(ACKNOWLEDGED, &compiled(&changed(from, &to)));
        assert!(verdicts.iter().any(|verdict| verdict.contains(expected)), "{to:?} gave {verdicts:?}, not `{expected}`");
    }
}

#[test]
fn a_field_taken_out_for_good_keeps_its_number_from_any_other_meaning() {
    let region = "  string region = 5 [(handling) = {class: ACCOUNT_FACT purposes: [GATE] retention: NOT_KEPT}];\n";
    let acknowledged = ACKNOWLEDGED.replace("\nEvent.region | ", "\nremoved Event.region | ");
    assert_ne!(acknowledged, ACKNOWLEDGED);
    assert_eq!(verdicts(&acknowledged, &compiled(&changed(region, "  reserved 5;\n"))), Vec::<String>::new());
    let unguarded = verdicts(&acknowledged, &compiled(&changed(region, "")));
    assert!(unguarded.iter().any(|v| v.contains("keep `reserved 5;` in Event")), "{unguarded:?}");
    let back = verdicts(&acknowledged, &compiled(EVENT));
    assert!(back.iter().any(|v| v.contains("taken out once and is back")), "{back:?}");
}

#[test]
fn a_field_that_does_not_say_how_it_is_to_be_handled_does_not_build() {
    let region = "string region = 5 [(handling) = {class: ACCOUNT_FACT purposes: [GATE] retention: NOT_KEPT}];";
    let cases = [
        ("string region = 5;", "Event.region has no (handling)"),
        ("string region = 5 [(handling) = {purposes: [GATE] retention: NOT_KEPT}];", "Event.region has no class"),
        ("string region = 5 [(handling) = {class: ACCOUNT_FACT retention: NOT_KEPT}];", "Event.region has no purpose"),
        (
            "string region = 5 [(handling) = {class: ACCOUNT_FACT purposes: [PURPOSE_UNSPECIFIED] retention: NOT_KEPT}];",
            "Event.region has no purpose",
        ),
        ("string region = 5 [(handling) = {class: ACCOUNT_FACT purposes: [GATE]}];", "Event.region has no retention"),
        (
            "map<string, string> region = 5 [(handling) = {class: ACCOUNT_FACT purposes: [GATE] retention: NOT_KEPT}];",
            "has no (handling)",
        ),
        (
            "google.protobuf.FieldOptions region = 5 [(handling) = {class: ACCOUNT_FACT purposes: [GATE] retention: NOT_KEPT}];",
            "Event.region is a message of google/protobuf/descriptor.proto",
        ),
        (
            "string message_content = 5 [(handling) = {class: ACCOUNT_FACT purposes: [GATE] retention: NOT_KEPT}];",
            "Event.message_content holds `content`, which must never be here",
        ),
        (
            "Place place = 5 [(handling) = {class: STRUCTURE purposes: [GATE] retention: NOT_KEPT}]; message Place { bytes raw = 1; }",
            "Place.raw has no (handling)",
        ),
    ];
    for (to, expected) in cases {
        let import = if to.contains("google.") {
            "import \"options.proto\";\nimport \"google/protobuf/descriptor.proto\";"
        } else {
            "import \"options.proto\";"
        };
        let event = changed(region, to).replace("import \"options.proto\";", import);
        let error = table::fields(&compiled(&event)).expect_err(to);
        assert!(error.contains(expected), "{to} gave `{error}`, not `{expected}`");
    }
    assert!(table::fields(&compiled(EVENT)).is_ok());
}
