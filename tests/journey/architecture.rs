//! Design 2: which room may know which, and who alone may name what.

use std::collections::BTreeSet;
use std::path::Path;

use cargo_metadata::{DependencyKind, MetadataCommand};

use crate::support::workspace;

/// Arrows the design allows, besides "jobs strings rooms together".
fn allowed(from: &str, to: &str) -> bool {
    let room = ["ingest", "minimize", "aggregate", "privacy", "query", "integrity"];
    match (from, to) {
        ("schemas", _) => false,
        ("store", "schemas") => true,
        ("minimize", to) => to == "schemas",
        ("query", "privacy") => true,
        (from, "schemas" | "store") if room.contains(&from) => true,
        ("starling" | "benches", _) => true,
        ("fuzz", to) => to == "minimize" || to == "schemas",
        _ => false,
    }
}

fn short(name: &str) -> &str {
    name.strip_prefix("starling-").unwrap_or(name)
}

#[test]
fn no_arrow_between_crates_that_the_design_forbids() {
    let metadata = MetadataCommand::new().manifest_path(workspace().join("Cargo.toml")).no_deps().exec().expect("metadata");
    let ours: BTreeSet<String> = metadata.packages.iter().map(|p| p.name.to_string()).collect();
    assert_eq!(ours.len(), 11, "a new crate needs a place in the design: {ours:?}");
    let mut wrong = Vec::new();
    for package in &metadata.packages {
        for dependency in package.dependencies.iter().filter(|d| d.kind != DependencyKind::Development && ours.contains(&d.name))
        {
            if !allowed(short(&package.name), short(&dependency.name)) {
                wrong.push(format!("{} → {}", package.name, dependency.name));
            }
        }
    }
    assert!(wrong.is_empty(), "forbidden arrows: {wrong:?}");
}

#[test]
fn each_guarded_dependency_has_one_door() {
    let metadata = MetadataCommand::new().manifest_path(workspace().join("Cargo.toml")).no_deps().exec().expect("metadata");
    for (dependency, door) in [("rdkafka", "starling-ingest"), ("opendp", "starling-privacy"), ("sqlx", "starling-store")] {
        let users: Vec<_> = metadata
            .packages
            .iter()
            .filter(|p| p.dependencies.iter().any(|d| d.name == dependency))
            .map(|p| p.name.to_string())
            .collect();
        assert_eq!(users, [door], "{dependency} is for {door} alone");
    }
}

#[test]
fn every_crate_opens_with_its_essay() {
    for root in ["schemas/src/lib.rs", "jobs/src/main.rs"].into_iter().map(String::from).chain(
        ["ingest", "minimize", "aggregate", "privacy", "query", "integrity", "store"]
            .map(|room| format!("pipeline/{room}/src/lib.rs")),
    ) {
        let text = std::fs::read_to_string(workspace().join(&root)).expect("crate root");
        let essay: Vec<_> = text.lines().take_while(|l| l.starts_with("//!")).collect();
        assert!(essay.len() >= 15, "{root}: an essay of what comes in, what goes out, invariants and what can go wrong");
        let essay = essay.join("\n");
        assert!(essay.contains("```text"), "{root}: a picture in text");
        assert!(
            essay.contains("I1") || essay.contains("I4") || essay.contains("I9") || essay.contains("I6"),
            "{root}: invariants by number"
        );
    }
}

#[test]
fn unsafe_stands_in_one_room_at_most() {
    let mut files = Vec::new();
    sources(&workspace(), &mut files);
    let with: Vec<_> = files
        .iter()
        .filter(|f| {
            let text = std::fs::read_to_string(f).unwrap_or_default();
            text.lines().any(|l| {
                !l.trim_start().starts_with("//")
                    && (l.contains("unsafe {") || l.contains("unsafe impl") || l.contains("unsafe fn"))
            })
        })
        .filter(|f| !f.components().any(|c| c.as_os_str() == "tests"))
        .collect();
    assert!(with.len() <= 1, "unsafe in {with:?}");
    assert!(with.iter().all(|f| f.to_string_lossy().contains("pipeline/ingest/")), "unsafe in {with:?}");
}

#[test]
fn p10_no_content_classifier_and_no_cross_application_identifier() {
    let lock = std::fs::read_to_string(workspace().join("Cargo.lock")).expect("lock file");
    for word in ["tokenizers", "candle", "onnx", "ort\"", "tch\"", "burn\""] {
        assert!(!lock.contains(&format!("name = \"{word}")), "{word} would classify content (P10)");
    }
    let proto = std::fs::read_to_string(workspace().join("schemas/event.proto")).expect("proto");
    let fields: Vec<_> = proto.lines().filter(|l| l.contains(" = ") && l.contains("(handling)")).collect();
    assert!(fields.len() > 60);
    for word in ["device_id", "advertising", "fingerprint", "latitude", "prompt", "content"] {
        assert!(fields.iter().all(|l| !l.contains(word)), "a field named {word}");
    }
}

#[test]
fn only_the_named_things_stand_at_the_top_level() {
    let tracked = std::process::Command::new("git").args(["ls-files"]).current_dir(workspace()).output().expect("git");
    let text = String::from_utf8_lossy(&tracked.stdout).into_owned();
    let top: BTreeSet<_> = text.lines().filter_map(|l| l.split('/').next()).filter(|n| !n.starts_with('.')).collect();
    let named = [
        "Cargo.lock",
        "Cargo.toml",
        "LICENSE",
        "README.md",
        "benches",
        "clippy.toml",
        "deny.toml",
        "jobs",
        "pipeline",
        "rustfmt.toml",
        "schemas",
        "tests",
    ];
    assert!(top.iter().all(|n| named.contains(n)), "{top:?}");
}

fn sources(dir: &Path, out: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() && name != "target" && !name.to_string_lossy().starts_with('.') {
            sources(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}
