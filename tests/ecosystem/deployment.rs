//! Units, manifests and the compose file, handed to what checks them. Whether their commands and settings are those there are is held against the
//! command line itself, in `jobs/src/deployed.rs`.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::{succeed, told, workspace};
use crate::{Add, found_by, installed, python};

const SCHEMAS: &str = "ecosystem/kubernetes.txt";
/// The oldest and the newest version of Kubernetes that the manifests are meant for.
const VERSIONS: [&str; 2] = ["1.31", "1.37"];

pub(crate) fn add(add: &mut Add<'_>) {
    add("systemd_takes_the_units_and_finds_them_hardened", &systemd, systemd_takes_the_units_and_finds_them_hardened);
    add("manifests_fit_the_schemas_of_kubernetes", &|| python(SCHEMAS).map(drop), manifests_fit_the_schemas_of_kubernetes);
    let kubernetes = || installed("kubectl").and_then(|()| linter("kube-score").map(drop));
    add("kube_score_finds_nothing_in_what_kustomize_makes", &kubernetes, kube_score_finds_nothing_in_what_kustomize_makes);
    add("compose_reads_the_compose_file", &|| linter("compose").map(drop), compose_reads_the_compose_file);
}

/// Whether there is a systemd that looks at units without running them: `--offline` came with 250.
fn systemd() -> Result<(), String> {
    installed("systemd-analyze")?;
    let output = Command::new("systemd-analyze").arg("--version").output().map_err(|error| format!("skipped: {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    // `systemd 252 (252.38-1~deb12u1)`, or `systemd 256~rc3`, and what it was built with below.
    let number = said.split_whitespace().nth(1).unwrap_or_default();
    let number: String = number.chars().take_while(char::is_ascii_digit).collect();
    match number.parse::<u32>() {
        Ok(version) if version >= 250 => Ok(()),
        _ => Err(format!("skipped: systemd must be 250 or newer: {}", said.lines().next().unwrap_or_default())),
    }
}

fn linter(name: &str) -> Result<PathBuf, String> {
    found_by("ecosystem/linters.sh", &[name]).map(PathBuf::from)
}

fn deploy() -> PathBuf {
    workspace().join("jobs/deploy")
}

/// Files of a folder whose names end so.
fn files(folder: &Path, end: &str) -> Vec<PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir(folder)
        .unwrap_or_else(|_| panic!("{}", folder.display()))
        .map(|entry| entry.expect("entry").path())
        .filter(|path| path.to_string_lossy().ends_with(end))
        .collect();
    found.sort();
    found
}

/// The units, with this build's executable in the place of an installed one.
fn units(dir: &Path, secrets: bool) -> Vec<PathBuf> {
    let source = deploy().join("systemd");
    let copy = |from: &Path, to: &Path| {
        let text = std::fs::read_to_string(from).expect("unit").replace("/usr/bin/starling", env!("CARGO_BIN_EXE_starling"));
        std::fs::create_dir_all(to.parent().expect("a folder")).expect("folder");
        std::fs::write(to, text).expect("writes");
    };
    let mut units = Vec::new();
    for end in [".service", ".target", ".d/10-hardening.conf"] {
        let found =
            if end.contains('/') { vec![source.join("starling-.service.d/10-hardening.conf")] } else { files(&source, end) };
        for file in found {
            let to = dir.join(file.strip_prefix(&source).expect("below"));
            copy(&file, &to);
            if to.extension().is_some_and(|end| end == "service") {
                if secrets {
                    copy(&source.join("secrets.conf"), &to.with_extension("service.d").join("secrets.conf"));
                }
                units.push(to);
            }
        }
    }
    units
}

fn systemd_takes_the_units_and_finds_them_hardened() {
    for secrets in [false, true] {
        let dir = tempfile::tempdir().expect("dir");
        let units = units(dir.path(), secrets);
        assert_eq!(units.len(), 4, "{units:?}");
        let target = dir.path().join("starling.target");
        let output =
            Command::new("systemd-analyze").args(["verify", "--man=no"]).args(&units).arg(&target).output().expect("starts");
        let said = told(&output);
        assert!(output.status.success(), "{said}");
        // It goes on after what it does not know.
        assert!(!said.contains("Unknown") && !said.contains("ignoring"), "{said}");
        for unit in &units {
            let mut command = Command::new("systemd-analyze");
            command.args(["security", "--offline=true", "--no-pager", "--threshold=15"]).arg(unit);
            let output = command.output().expect("starts");
            // 1.5 of 10; a unit without the hardening beside it has 9.6.
            assert!(output.status.success(), "{}", told(&output));
        }
    }
    let bare = tempfile::tempdir().expect("dir");
    let unit = units(bare.path(), false).remove(0);
    std::fs::remove_dir_all(bare.path().join("starling-.service.d")).expect("removes");
    let mut command = Command::new("systemd-analyze");
    command.args(["security", "--offline=true", "--no-pager", "--threshold=15"]).arg(unit);
    assert!(!command.output().expect("starts").status.success(), "what is not hardened is found");
}

fn manifests_fit_the_schemas_of_kubernetes() {
    let validate = python(SCHEMAS).expect("found before").with_file_name("kubernetes-validate");
    let manifests: Vec<PathBuf> = files(&deploy().join("kubernetes"), ".yaml");
    let manifests: Vec<&PathBuf> = manifests.iter().filter(|path| !path.ends_with("kustomization.yaml")).collect();
    assert!(manifests.len() >= 7, "{manifests:?}");
    let check = |version: &str, files: &[&PathBuf]| {
        let mut command = Command::new(&validate);
        command.args(["--strict", "--kubernetes-version", version]).args(files).output().expect("starts")
    };
    for version in VERSIONS {
        let output = check(version, &manifests);
        assert!(output.status.success(), "{}", told(&output));
    }
    // A field that there is not, and a value of the wrong kind, are found.
    let dir = tempfile::tempdir().expect("dir");
    let wrong = dir.path().join("wrong.yaml");
    let good = std::fs::read_to_string(deploy().join("kubernetes/ingest.yaml")).expect("manifest");
    for (old, new) in [("replicas: 2", "replicas: two"), ("livenessProbe:", "liveProbe:")] {
        assert!(good.contains(old), "{old}");
        std::fs::write(&wrong, good.replacen(old, new, 1)).expect("writes");
        assert!(!check(VERSIONS[1], &[&wrong]).status.success(), "{new}");
    }
}

fn kube_score_finds_nothing_in_what_kustomize_makes() {
    let made = succeed(Command::new("kubectl").arg("kustomize").arg(deploy().join("kubernetes")));
    // The settings got a name of their own, which changes with them: that is what starts pods anew.
    assert!(made.contains("name: starling-settings-") && !made.contains("name: starling-settings\n"), "{made}");
    let dir = tempfile::tempdir().expect("dir");
    let score = |text: &str| -> Vec<String> {
        let file = dir.path().join("made.yaml");
        std::fs::write(&file, text).expect("writes");
        let mut command = Command::new(linter("kube-score").expect("found before"));
        command.args(["score", "--output-format", "json", "--kubernetes-version", "v1.31"]).arg(&file);
        let output = command.output().expect("starts");
        let found: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", told(&output)));
        let found = found.as_array().expect("objects");
        assert!(found.len() >= 11, "{}", found.len());
        let checks = found.iter().flat_map(|object| {
            let name = object["object_name"].as_str().unwrap_or_default();
            object["checks"].as_array().into_iter().flatten().map(move |check| (name, check))
        });
        // 10 is good; what was skipped has no grade.
        let bad = checks.filter(|(_, check)| check["skipped"] != true && check["grade"].as_i64() < Some(10));
        bad.map(|(name, check)| format!("{name}: {}: {}", check["check"]["id"], check["comments"])).collect()
    };
    assert_eq!(score(&made), Vec::<String>::new());
    for (old, new) in [
        ("readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false"),
        ("path: /readyz", "path: /livez"),
        (":0.1.0", ":latest"),
    ] {
        assert!(made.contains(old), "{old}");
        assert!(!score(&made.replace(old, new)).is_empty(), "{new} is found");
    }
}

fn compose_reads_the_compose_file() {
    let compose = linter("compose").expect("found before");
    let read = |file: &Path| {
        Command::new(&compose).args(["-format", "json"]).arg(file).env("COMPOSE_PROFILES", "*").output().expect("starts")
    };
    let file = deploy().join("compose.yaml");
    let output = read(&file);
    assert!(output.status.success(), "{}", told(&output));
    let project: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    for service in ["kafka", "topics", "postgres", "s3", "starling"] {
        assert!(project["services"][service].is_object(), "{service}: {project}");
    }
    // This reader holds a file against the schema; whether what is named is there is looked at here.
    let (services, volumes) = (&project["services"], &project["volumes"]);
    for (name, service) in services.as_object().expect("services") {
        for needed in service["depends_on"].as_object().into_iter().flat_map(|needed| needed.keys()) {
            assert!(services[needed].is_object(), "{name} depends on {needed}");
        }
        for volume in service["volumes"].as_array().into_iter().flatten().filter(|volume| volume["type"] == "volume") {
            let source = volume["source"].as_str().expect("a name");
            assert!(volumes.get(source).is_some(), "{name}: {source}");
        }
    }
    // What is published is published to this machine only, and no image is whatever is newest.
    for (name, service) in services.as_object().expect("services") {
        for port in service["ports"].as_array().into_iter().flatten() {
            assert_eq!(port["host_ip"], "127.0.0.1", "{name}");
        }
        if let Some(image) = service["image"].as_str() {
            let tag = image.rsplit_once(':').map_or("", |(_, tag)| tag);
            assert!(!["", "latest"].contains(&tag), "{name}: {image}");
        }
    }
    let dir = tempfile::tempdir().expect("dir");
    let wrong = dir.path().join("compose.yaml");
    let good = std::fs::read_to_string(&file).expect("compose file");
    for (old, new) in [("healthcheck:", "health_check:"), ("condition: service_healthy", "condition: healthy")] {
        assert!(good.contains(old), "{old}");
        std::fs::write(&wrong, good.replacen(old, new, 1)).expect("writes");
        assert!(!read(&wrong).status.success(), "{new} is found");
    }
}
