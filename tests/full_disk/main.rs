//! # A disk that is really full, and one that is read-only (I1, I9)
//!
//! The data directory lies on a small `tmpfs`: ingest runs into its end, says so, gets a little more room, and runs into that one, until there is
//! enough. Mounting takes a user namespace of its own (`unshare -Urm`); where the system refuses that, these tests are reported as ignored, never
//! as passed.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, dead_code)]

#[path = "../journey/support.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Trial};
use support::{comparable_alerts, files_below, people, simulate, starling, status, told, with_known_keys};

fn main() -> ExitCode {
    let mounts = "mount -t tmpfs -o size=64k none /tmp && mount -o remount,size=128k /tmp && mount -o remount,ro /tmp";
    let can = Command::new("unshare").args(["-Urm", "sh", "-c", mounts]).output().is_ok_and(|o| o.status.success());
    if !can {
        eprintln!("skipped: `unshare -Urm` may not mount a tmpfs here, so no disk can be filled");
    }
    let trials = vec![
        Trial::test("i9_a_disk_that_fills_again_and_again_changes_nothing_but_the_time_it_takes", || {
            i9_a_disk_that_fills_again_and_again_changes_nothing_but_the_time_it_takes();
            Ok(())
        })
        .with_ignored_flag(!can),
        Trial::test("i9_a_read_only_disk_is_told_and_nothing_is_lost", || {
            i9_a_read_only_disk_is_told_and_nothing_is_lost();
            Ok(())
        })
        .with_ignored_flag(!can),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// A trace, and what an undisturbed run makes of it.
struct Bench {
    dir: tempfile::TempDir,
    trace: PathBuf,
    settings: PathBuf,
    undisturbed: PathBuf,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("dir");
        let (trace, _) = simulate(dir.path(), 1_000, 1, 11, &["--bad", "0.01"]);
        let settings = dir.path().join("starling.toml");
        std::fs::write(&settings, "[ingest]\nmax_events = 1500\n[window]\nmemory_mib = 64\n[signals]\ncommit_every_ms = 20\n")
            .expect("settings");
        let undisturbed = dir.path().join("undisturbed");
        with_known_keys(&undisturbed);
        let output = starling()
            .args(["run", "--trace"])
            .arg(&trace)
            .arg("--data-dir")
            .arg(&undisturbed)
            .arg("--config")
            .arg(&settings)
            .output()
            .expect("starts");
        assert!(output.status.success(), "{}", told(&output));
        Self { dir, trace, settings, undisturbed }
    }

    /// Runs a shell script in a namespace of its own, with `run LOG`, `status LOG` and the mount point `$disk`; what is in `$disk` at its end is copied
    /// out and handed back.
    fn in_namespace(&self, script: &str) -> (String, PathBuf) {
        let (disk, out) = (self.dir.path().join("disk"), self.dir.path().join("out"));
        std::fs::create_dir(&disk).expect("mount point");
        let keys = self.dir.path().join("known");
        with_known_keys(&keys);
        let prelude = r#"set -eu
run() { code=0; "$starling" run --trace "$trace" --data-dir "$disk" --config "$settings" >"$log.out" 2>"$1" || code=$?; }
mount -t tmpfs -o "size=$size" none "$disk"
cp -a "$keys/keys" "$disk/keys"
"#;
        let exe = starling().get_program().to_owned();
        let mut command = Command::new("unshare");
        command.args(["-Urm", "sh", "-c", &format!("{prelude}{script}\ncp -a \"$disk\" \"$out\"")]);
        command.env("starling", exe).env("trace", &self.trace).env("settings", &self.settings).env("size", "480k");
        command.env("disk", &disk).env("out", &out).env("keys", &keys).env("log", self.dir.path().join("log"));
        let output = command.output().expect("unshare");
        assert!(output.status.success(), "{}", told(&output));
        (String::from_utf8(output.stdout).expect("text"), out)
    }

    fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(format!("log.{name}"))).expect("a log")
    }

    fn check(&self, data: &Path) {
        assert_eq!(people(data), people(&self.undisturbed), "person rows");
        assert_eq!(comparable_alerts(data), comparable_alerts(&self.undisturbed), "alerts");
        assert_eq!(status(data)["outcomes"], status(&self.undisturbed)["outcomes"], "I1");
        assert_eq!(status(data)["unbalanced"], serde_json::json!([]));
        let half_written = |path: &PathBuf| path.display().to_string().contains('#');
        assert_eq!(files_below(data).into_iter().find(half_written), None, "a half-written file is left");
    }
}

fn i9_a_disk_that_fills_again_and_again_changes_nothing_but_the_time_it_takes() {
    let bench = Bench::new();
    // From room for hardly more than the empty metastore, a little more each time.
    let (told, data) = bench.in_namespace(
        r#"kib=480
while :; do
  run "$log.$kib"
  echo "$kib $code"
  [ "$code" = 0 ] && break
  [ "$kib" -gt 65536 ] && exit 1
  kib=$((kib + kib / 4))
  mount -o "remount,size=${kib}k" "$disk"
done"#,
    );
    let runs: Vec<(&str, &str)> = told.lines().filter_map(|line| line.split_once(' ')).collect();
    let full: Vec<&str> = runs.iter().filter(|(_, code)| *code != "0").map(|(kib, _)| *kib).collect();
    println!("full at {full:?} KiB");
    assert!(full.len() >= 3, "the disk was hardly ever full: {told}");
    for (kib, code) in &runs {
        let log = bench.log(kib);
        if *code != "0" {
            assert_eq!(*code, "1", "{log}");
            let last =
                log.lines().rfind(|line| line.starts_with("starling: ")).unwrap_or_else(|| panic!("nothing is told: {log}"));
            assert!(
                last.contains("/disk") && last.contains("no space is left") && last.contains("start again"),
                "{kib} KiB: {last}"
            );
        }
    }
    bench.check(&data);
}

fn i9_a_read_only_disk_is_told_and_nothing_is_lost() {
    let bench = Bench::new();
    let (told, data) = bench.in_namespace(
        r#"mount -o remount,ro "$disk"; run "$log.empty"; echo "$code"
mount -o remount,rw,size=1000k "$disk"; run "$log.small"; echo "$code"
mount -o remount,ro "$disk"; run "$log.begun"; echo "$code"
mount -o remount,rw,size=65536k "$disk"; run "$log.whole"; echo "$code""#,
    );
    assert_eq!(told.lines().collect::<Vec<_>>(), ["1", "1", "1", "0"], "{}", bench.log("begun"));
    for name in ["empty", "begun"] {
        let log = bench.log(name);
        let last = log.lines().rfind(|line| line.starts_with("starling: ")).unwrap_or_else(|| panic!("nothing is told: {log}"));
        assert!(last.contains("/disk") && last.to_lowercase().contains("read-only"), "{name}: {last}");
    }
    bench.check(&data);
}
