//! Groups that are on an operator's list, and accounts that create groups by the dozen: found by the stream as by the evaluation; lists that change
//! between a crash and its replay change nothing of the range that was planned.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use starling_schemas::event::event::Body;
use starling_schemas::event::{Event, GroupCreated, GroupProfileChanged};

use crate::support::{
    NOON_MS, alerts, envelope, files_below, frame, simulate, starling, starling_on, succeed, told, write_trace,
};

const KNOWN: [u8; 32] = *b"a photo's thirty-two bytes known";
const OTHER: [u8; 32] = *b"another photo's hash, as well 32";
const NAME: [u8; 8] = *b"name-hsh";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A folder with a trace, and settings that name lists.
struct Place {
    dir: tempfile::TempDir,
    trace: PathBuf,
}

impl Place {
    /// Thirteen groups by one account, and two groups whose photos, and one whose name, are set.
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("dir");
        let trace = dir.path().join("trace.pb");
        let maker = |n: u8| Body::GroupCreated(GroupCreated { group: vec![n; 16], size: 3 });
        let profile = |n: u8, name: &[u8], photo: &[u8]| {
            Body::GroupProfileChanged(GroupProfileChanged {
                group: vec![n; 16],
                name_hash: name.to_vec(),
                photo_hash: photo.to_vec(),
                ..GroupProfileChanged::default()
            })
        };
        let bodies = (1..=13).map(maker).chain([profile(40, b"", &KNOWN), profile(41, &NAME, b""), profile(42, b"", &OTHER)]);
        let event = |(n, body)| Event { body: Some(body), ..envelope("+4915112345678", NOON_MS + n * 1_000) };
        write_trace(&trace, &(0_i64..).zip(bodies).map(event).map(|event| frame(&event)).collect::<Vec<_>>());
        Self { dir, trace }
    }

    fn lists(&self, text: &str) {
        let lists = self.dir.path().join("lists.txt");
        std::fs::write(&lists, text).expect("lists");
        std::fs::write(self.settings(), format!("[integrity]\ngroup_hashes = {lists:?}\n")).expect("settings");
    }

    fn settings(&self) -> PathBuf {
        self.dir.path().join("starling.toml")
    }

    fn command(&self, data: &Path) -> Command {
        let mut command = starling_on(data);
        command.arg("--data-dir").arg(data).arg("--config").arg(self.settings());
        command
    }

    fn run(&self, data: &Path) -> Command {
        let mut command = self.command(data);
        command.args(["run", "--trace"]).arg(&self.trace);
        command
    }
}

/// Rules that told of something, and the sentence, in order.
fn found(data: &Path) -> Vec<(String, String, String)> {
    let text = |alert: &Value, name: &str| alert[name].as_str().expect("text").to_owned();
    let mut found: Vec<_> = alerts(data).iter().map(|a| (text(a, "rule"), text(a, "severity"), text(a, "explanation"))).collect();
    found.sort();
    found
}

fn both_lists() -> String {
    format!("# Ours.\n{} photo known-photos\n{} name scam-names\n", hex(&KNOWN), hex(&NAME))
}

#[test]
fn i9_a_range_is_held_against_the_lists_it_was_planned_with_whatever_the_file_is_when_it_is_replayed() {
    let place = Place::new();
    let data = place.dir.path().join("straight");
    place.lists(&both_lists());
    succeed(&mut place.run(&data));
    let expected = found(&data);
    let told_of: Vec<_> = expected.iter().map(|(rule, severity, _)| (rule.as_str(), severity.as_str())).collect();
    assert_eq!(told_of, [("group_creation_burst", "low"), ("group_listed", "high"), ("group_listed", "low")]);
    assert!(expected[1].2.contains("the photo is on the list known-photos"), "{expected:?}");
    assert!(expected[0].2.starts_with("One account created 13 groups on "), "{expected:?}");
    for (number, point) in ["after_plan", "after_process", "after_commit"].into_iter().enumerate() {
        let data = place.dir.path().join(format!("killed-{number}"));
        place.lists(&both_lists());
        let killed = place.run(&data).env("STARLING_KILL_AT", point).output().expect("starts");
        assert!(killed.status.code().is_none(), "{point}: {}", told(&killed));
        // Meanwhile the lists have become others; then there are none.
        place.lists(&format!("{} photo known-photos\n", hex(&OTHER)));
        let killed = place.run(&data).env("STARLING_KILL_AT", "after_process").output().expect("starts");
        assert_eq!(killed.status.code().is_none(), point != "after_commit", "{point}: {}", told(&killed));
        std::fs::write(place.settings(), "").expect("settings");
        succeed(&mut place.run(&data));
        assert_eq!(found(&data), expected, "{point}");
    }
    // What is planned from then on is held against what is in force.
    let data = place.dir.path().join("another");
    place.lists(&format!("{} photo known-photos\n", hex(&OTHER)));
    succeed(&mut place.run(&data));
    assert_eq!(found(&data).iter().map(|(rule, ..)| rule.as_str()).collect::<Vec<_>>(), ["group_creation_burst", "group_listed"]);
}

#[test]
fn i4_p7_no_hash_is_in_any_file_log_or_alert_and_a_fault_of_a_list_repeats_nothing() {
    let place = Place::new();
    let data = place.dir.path().join("data");
    place.lists(&both_lists());
    let mut all = told(&place.run(&data).args(["--log", "trace"]).output().expect("starts")).into_bytes();
    all.extend(serde_json::to_vec(&alerts(&data)).expect("JSON"));
    for arguments in [&["doctor"][..], &["integrity", "lists"], &["status"], &["audit", "tail"]] {
        all.extend(told(&place.command(&data).args(arguments).output().expect("starts")).into_bytes());
    }
    let text = String::from_utf8_lossy(&all);
    assert!(text.contains("known-photos") && text.contains("group hashes: 2 on 2 lists"), "{text}");
    let searched = files_below(&data);
    assert!(searched.iter().any(|file| file.ends_with("metastore.db")));
    let bytes = searched.iter().map(|file| (file.display().to_string(), std::fs::read(file).expect("a file")));
    for (name, bytes) in bytes.chain([("what was told".to_owned(), all.clone())]) {
        for hash in [&KNOWN[..], &OTHER, &NAME] {
            for needle in [hash.to_vec(), hex(hash).into_bytes(), hex(hash).to_uppercase().into_bytes()] {
                assert!(!bytes.windows(needle.len()).any(|window| window == needle), "{name} holds a hash");
            }
        }
    }
    // A list that cannot be used stops a job before it reads anything, and is told by line.
    place.lists(&format!("{} photo known-photos\n{} picture hunter2\n", hex(&KNOWN), hex(&NAME)));
    for command in [&mut place.run(&data), place.command(&data).args(["integrity", "lists"]), place.command(&data).arg("doctor")]
    {
        let output = command.output().expect("starts");
        let text = told(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("lists.txt:2: the second word says what is hashed"), "{text}");
        assert!(!text.contains(&hex(&NAME)) && !text.contains("hunter2"), "{text}");
    }
}

#[test]
fn lists_are_put_in_force_without_a_restart_and_are_told_of_without_a_hash() {
    let place = Place::new();
    let data = place.dir.path().join("data");
    place.lists(&both_lists());
    let lists = || succeed(place.command(&data).args(["integrity", "lists"]));
    assert_eq!(lists(), "known-photos\nscam-names\n2 hashes on 2 lists; all can be used.\n");
    std::fs::write(place.settings(), "").expect("settings");
    succeed(&mut place.run(&data));
    assert_eq!(found(&data).len(), 1, "nothing is compared");
    place.lists(&both_lists());
    let put = place.command(&data).args(["integrity", "lists", "--put"]).output().expect("starts");
    assert!(put.status.success() && told(&put).contains("In force from the next range"), "{}", told(&put));
    let again = place.command(&data).args(["integrity", "lists", "--put"]).output().expect("starts");
    assert!(again.status.success() && told(&again).contains("in force already"), "{}", told(&again));
}

#[test]
fn who_makes_groups_and_which_are_listed_is_evaluated_as_it_is_found() {
    let dir = tempfile::tempdir().expect("dir");
    let (trace, truth) = simulate(dir.path(), 1_000, 10, 5, &["--planted", "3"]);
    let hashes: Vec<&str> = truth["group_hashes"].as_array().expect("lists").iter().filter_map(Value::as_str).collect();
    let lists = dir.path().join("lists.txt");
    std::fs::write(&lists, hashes.join("\n")).expect("lists");
    let settings = dir.path().join("starling.toml");
    std::fs::write(&settings, format!("[integrity]\ngroup_hashes = {lists:?}\n")).expect("settings");
    let told = dir.path().join("truth.json");
    let text = succeed(starling().args(["evaluate", "--json", "--trace"]).arg(&trace).arg("--truth").arg(&told));
    let report: Value = serde_json::from_str(&text).expect("JSON");
    for kind in ["group_creator", "listed_group"] {
        let scenario = report["scenarios"].as_array().expect("scenarios").iter().find(|s| s["kind"] == kind).expect("planted");
        assert_eq!((&scenario["found"]["hits"], &scenario["by_expected_rule"]), (&3.into(), &3.into()), "{scenario}");
    }
    let others = report["false_alerts"].as_array().expect("alerts");
    let of = |rule: &str| others.iter().filter(|one| one["rule"] == rule).collect::<Vec<_>>();
    assert_eq!(of("group_creation_burst").len(), 0, "a secretary is not told of");
    assert!(
        matches!(of("group_listed")[..], [one] if one["who"] == "common_name" && one["severity"] == "low" && one["alerts"] == 3)
    );
    assert_eq!(report["recounted"]["hits"], report["recounted"]["of"], "{}", report["not_recounted"]);

    // The stream finds the same groups and accounts.
    let data = dir.path().join("data");
    succeed(starling_on(&data).arg("run").arg("--trace").arg(&trace).arg("--config").arg(&settings).arg("--data-dir").arg(&data));
    let stream = alerts(&data);
    let of = |rule: &str| stream.iter().filter(|alert| alert["rule"] == rule).cloned().collect::<Vec<_>>();
    assert_eq!((of("group_creation_burst").len(), of("group_listed").len()), (3, 6));
    let counts: std::collections::BTreeSet<u64> =
        of("group_creation_burst").iter().map(|alert| alert["observed"].as_u64().expect("a count")).collect();
    let planted = truth["abusers"].as_array().expect("planted").iter().filter(|a| a["kind"] == "group_creator");
    assert_eq!(counts, planted.map(|a| a["count"].as_u64().expect("a count")).collect(), "exactly as many as there were");
}
