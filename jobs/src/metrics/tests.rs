//! What a scrape shows: names, types, units and help as a snapshot; labels from closed lists; nothing that is somebody's.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use starling_ingest::{Event, Observer as _};
use starling_schemas::codes::Outcome as EventOutcome;
use starling_schemas::ids::{EpochId, Generation, Offset, PartitionId, Sequence};
use starling_store::{Plan, RangeOutcome};

use super::gauges::{Slow, Snapshot};
use super::labels::{Change, KeptLabel, KeyLabel, KeyLife, OutcomeName, Retry};
use super::*;
use crate::partitions::{OpenPlan, View};

/// A number, a pseudonym and a name that stand nowhere else.
const CANARIES: [&str; 3] = ["4915730917261", "9f86d081884c7d659a2feaa0c55ad015", "zebra-lantern"];

fn partition(source: &str) -> PartitionId {
    PartitionId { source: source.to_owned(), partition: 3 }
}

/// Metrics of a process to which everything has happened, with canaries wherever a text can be put in.
fn eventful() -> std::sync::Arc<Metrics> {
    let metrics = std::sync::Arc::new(Metrics::new("events"));
    let listener = Listener(std::sync::Arc::clone(&metrics));
    let [number, pseudonym, name] = CANARIES;
    for source in ["events".to_owned(), format!("trace:{number}-{name}"), format!("{name}-{pseudonym}")] {
        let id = partition(&source);
        let generation = Generation(7);
        let plan = Plan {
            partition: id.clone(),
            generation,
            sequence: Sequence(0),
            from: Offset(10),
            to: Offset(30),
            closed_through: None,
            hours_after: None,
            group_lists: None,
            planned_at_ms: 0,
            watermark_ms: None,
        };
        let counts: Vec<_> = EventOutcome::all().map(|outcome| (Some(EpochId(20_458)), outcome, 2)).collect();
        let events = counts.iter().map(|(_, _, n)| n).sum();
        let outcome = RangeOutcome { events, counts, ..RangeOutcome::default() };
        let took = Duration::from_millis(3);
        listener.observe(&Event::Rebalanced { partitions: 4, assigned: true });
        listener.observe(&Event::Taken { partition: &id, generation, from: Some(Offset(10)), replay: false, anew: false });
        for step in [
            starling_ingest::events::Step::Take,
            starling_ingest::events::Step::Plan,
            starling_ingest::events::Step::Process,
            starling_ingest::events::Step::Commit,
        ] {
            listener.observe(&Event::Unclear { partition: &id, step, reason: &name });
        }
        listener.observe(&Event::Read { took });
        listener.observe(&Event::Planned { took });
        listener.observe(&Event::Committed { plan: &plan, outcome: &outcome, bytes: 4000, took, whole: took });
        listener.observe(&Event::EndSeen { partition: &id, end: Offset(40) });
        listener.observe(&Event::Fenced { partition: &id });
        listener.observe(&Event::Released { partition: &id });
    }
    let view = |source: &str| View {
        partition: partition(source),
        owner: format!("{name}/{number}"),
        generation: 7,
        next_offset: Some(30),
        end_offset: Some(40),
        lag: Some(10),
        watermark_ms: Some(1_000),
        plan: Some(OpenPlan { from: 30, to: 40, planned_at_ms: 60_000 }),
        last_commit_ms: Some(59_000),
        seen_ms: 61_000,
        events: 20,
    };
    let mut kept: BTreeMap<_, _> = KeptLabel::all().map(|label| (label, 0)).collect();
    // A rule that staff wrote has a name of theirs; a reason is one of the list or none.
    *kept.entry(KeptLabel::of(name, "shadow").expect("a reason")).or_default() += 3;
    assert!(KeptLabel::of("slow_bulk", name).is_none());
    let slow = Slow {
        unbalanced: 0,
        keys: KeyLabel::all().map(|label| (label, 1)).collect(),
        quarantine: vec![(Fault::Malformed, 5)],
        kept,
    };
    let snapshot = Snapshot {
        now_ms: 61_500,
        partitions: vec![view("events"), view(&format!("trace:{number}")), view(name)],
        windows: BTreeMap::from([("open", 1), ("incomplete", 2)]),
        overdue_ms: 2_500,
        slow,
    };
    metrics.gauges.set(snapshot);
    metrics
}

/// The labels of a sample: `name{a="b",c="d"} 1`. None of the values has a quote in it, or this fails.
fn labels(sample: &str) -> Vec<(String, String)> {
    let Some((_, rest)) = sample.split_once('{') else { return Vec::new() };
    let (inside, _) = rest.split_once('}').expect("closed");
    inside
        .split(',')
        .map(|pair| {
            let (name, value) = pair.split_once('=').expect("a pair");
            (name.to_owned(), value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).expect("quoted").to_owned())
        })
        .collect()
}

fn samples(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|l| !l.starts_with('#'))
}

#[test]
fn names_types_units_and_help_texts_are_as_somebody_looked_at_them() {
    let text = eventful().text();
    let mut described: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in text.lines().filter_map(|l| l.strip_prefix("# ")).filter(|l| *l != "EOF") {
        let (what, rest) = line.split_once(' ').expect("a kind");
        let (name, value) = rest.split_once(' ').expect("a name");
        assert!(name.starts_with("starling_"), "{name}");
        described.entry(name).or_default().push(if what == "HELP" { value } else { Box::leak(format!("{what} {value}").into()) });
    }
    let table: String = described.iter().map(|(name, lines)| format!("{name}\n  {}\n", lines.join("\n  "))).collect();
    crate::snapshots().bind(|| insta::assert_snapshot!("metrics", table));
}

#[test]
fn i4_every_label_value_is_from_a_closed_list() {
    let text = eventful().text();
    let list = |names: Vec<&'static str>| names.into_iter().map(str::to_owned).collect::<BTreeSet<_>>();
    let closed = BTreeMap::from([
        ("topic", list(vec!["events", "trace", "other"])),
        ("partition", list(vec!["3"])),
        ("outcome", list(OutcomeName::ALL.iter().map(|o| o.name()).chain(Delivered::ALL.iter().map(|d| d.name())).collect())),
        ("receiver", list(Receiver::ALL.iter().map(|r| r.name()).collect())),
        ("rule", list(starling_integrity::BUILT_IN.into_iter().chain(["written"]).collect())),
        (
            "reason",
            list(
                Refusal::ALL
                    .iter()
                    .map(|r| r.name())
                    .chain(starling_integrity::Kept::ALL.iter().map(|kept| kept.name()))
                    .collect(),
            ),
        ),
        ("class", list(Fault::ALL.iter().map(|f| f.name()).collect())),
        ("stage", list(Stage::ALL.iter().map(|s| s.name()).collect())),
        ("step", list(Retry::ALL.iter().map(|s| s.name()).collect())),
        ("work", list(Work::ALL.iter().map(|w| w.name()).collect())),
        ("change", list(Change::ALL.iter().map(|c| c.name()).collect())),
        ("purpose", list(starling_schemas::ids::Purpose::ALL.iter().map(|p| p.name()).collect())),
        ("kind", list(starling_store::KeyKind::ALL.iter().map(|k| k.name()).collect())),
        (
            "state",
            list(
                starling_store::WindowState::ALL.iter().map(|s| s.name()).chain(KeyLife::ALL.iter().map(|l| l.name())).collect(),
            ),
        ),
        ("version", list(vec![env!("CARGO_PKG_VERSION")])),
    ]);
    let mut seen = BTreeSet::new();
    for sample in samples(&text) {
        for (name, value) in labels(sample) {
            if name == "le" {
                assert!(value == "+Inf" || value.parse::<f64>().is_ok(), "{sample}");
                continue;
            }
            assert!(closed.get(&*name).is_some_and(|list| list.contains(&value)), "{sample}");
            seen.insert(name);
        }
    }
    assert_eq!(seen.len(), closed.len(), "a list that nothing uses, or a label that nothing sets: {seen:?}");
}

#[test]
fn i4_no_text_from_outside_comes_into_a_scrape() {
    let text = eventful().text();
    for canary in CANARIES {
        assert!(!text.contains(canary), "{canary}");
    }
    let partitions: Vec<_> = samples(&text).filter(|s| s.contains("partition=")).collect();
    assert!(
        !partitions.is_empty() && partitions.iter().all(|s| s.contains("topic=\"events\"")),
        "only the topic of the settings"
    );
}

#[test]
fn what_has_not_happened_yet_is_there_as_zero() {
    let text = Metrics::new("events").text();
    for series in [
        "starling_ingest_events_total{topic=\"events\",outcome=\"counted\"} 0",
        "starling_ingest_quarantined_events_total{topic=\"events\",class=\"too_large\"} 0",
        "starling_ingest_retries_total{step=\"commit\"} 0",
        "starling_job_failures_total{work=\"audit\"} 0",
        "starling_metastore_up 0",
    ] {
        assert!(text.lines().any(|l| l == series), "{series}\n{text}");
    }
    assert!(!text.contains("starling_windows"), "an unread metastore has no windows, not zero of them");
}

#[test]
fn i1_events_by_outcome_add_up_to_refused_and_quarantined_by_reason() {
    let text = eventful().text();
    let sum = |prefix: &str| -> u64 {
        samples(&text)
            .filter(|s| s.starts_with(prefix))
            .map(|s| s.rsplit(' ').next().expect("value").parse::<u64>().expect("count"))
            .sum()
    };
    let ranges = 3;
    assert_eq!(sum("starling_ingest_events_total{"), ranges * 2 * EventOutcome::all().count() as u64);
    assert_eq!(sum("starling_ingest_refused_events_total{"), ranges * 2 * Refusal::ALL.len() as u64);
    assert_eq!(sum("starling_ingest_quarantined_events_total{"), ranges * 2 * Fault::ALL.len() as u64);
}

/// Every metric that a text names.
fn named(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let mut out = BTreeSet::new();
    for (at, _) in text.match_indices("starling_") {
        let before = text[..at].chars().next_back();
        if before.is_none_or(|c| !is_part(c) && c != '/') {
            out.insert(text[at..].chars().take_while(|c| is_part(*c)).collect::<String>());
        }
    }
    out
}

#[test]
fn every_metric_that_dashboard_and_rules_name_exists() {
    let text = eventful().text();
    let exist: BTreeSet<String> = samples(&text).map(|s| s.split(['{', ' ']).next().expect("a name").to_owned()).collect();
    let deploy = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    for file in ["alerts.yaml", "alerts.test.yaml", "grafana.json"] {
        let named = named(&std::fs::read_to_string(deploy.join(file)).expect(file));
        assert!(named.len() > 8, "{file}: {named:?}");
        let missing: Vec<_> = named.difference(&exist).collect();
        assert!(missing.is_empty(), "{file} names what no scrape has: {missing:?}");
    }
}

#[test]
fn the_dashboard_is_json_and_shows_what_the_issue_asks_for() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/grafana.json");
    let dashboard: serde_json::Value = serde_json::from_slice(&std::fs::read(path).expect("file")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let ids: BTreeSet<_> = panels.iter().map(|p| p["id"].as_i64().expect("an id")).collect();
    assert_eq!(ids.len(), panels.len(), "ids are unique");
    for panel in panels.iter().filter(|p| p["type"] != "row") {
        let unit = panel["fieldConfig"]["defaults"]["unit"].as_str().unwrap_or_default();
        assert!(!unit.is_empty() && panel["description"].as_str().is_some_and(|d| !d.is_empty()), "{}", panel["title"]);
    }
}
