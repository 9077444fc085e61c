//! I1, I2, I8, I9: a metastore that is held by another process, overwritten or gone: told, nothing committed wrongly, and all as it was once it
//! is put right.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::{comparable_alerts, people, simulate, starling, status, told, with_known_keys};

const SETTINGS: &str = "[ingest]\nmax_events = 1500\n";

struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    /// A trace, and a data directory in which a run over it was killed halfway.
    fn new(kill_at: Option<&str>) -> Self {
        let bench = Self { dir: tempfile::tempdir().expect("dir") };
        simulate(bench.dir.path(), 1_000, 1, 11, &["--bad", "0.01"]);
        std::fs::write(bench.dir.path().join("starling.toml"), SETTINGS).expect("settings");
        for data in ["undisturbed", "data"] {
            with_known_keys(&bench.dir.path().join(data));
        }
        let undisturbed = bench.command("undisturbed").output().expect("starts");
        assert!(undisturbed.status.success(), "{}", told(&undisturbed));
        if let Some(point) = kill_at {
            let killed = bench.command("data").env("STARLING_KILL_AT", point).output().expect("starts");
            assert_eq!(killed.status.code(), None, "{}", told(&killed));
        }
        bench
    }

    fn command(&self, data: &str) -> Command {
        let mut command = starling();
        let path = |name: &str| self.dir.path().join(name);
        command.args(["run", "--trace"]).arg(path("trace.pb.zst")).arg("--data-dir").arg(path(data));
        command.arg("--config").arg(path("starling.toml"));
        command
    }

    /// Runs, expecting an error that holds all of these.
    fn fails_with(&self, words: &[&str]) {
        let output = self.command("data").output().expect("starts");
        assert_eq!(output.status.code(), Some(1), "{}", told(&output));
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let last = text.lines().rfind(|line| line.starts_with("starling: ")).unwrap_or_else(|| panic!("nothing is told: {text}"));
        let data = self.dir.path().join("data").display().to_string();
        assert!(last.contains(&data), "no path in `{last}`");
        assert!(words.iter().all(|word| last.contains(word)), "not all of {words:?} in `{last}`");
    }

    fn ends_as_undisturbed(&self) {
        let output: Output = self.command("data").output().expect("starts");
        assert!(output.status.success(), "{}", told(&output));
        let (data, undisturbed) = (self.dir.path().join("data"), self.dir.path().join("undisturbed"));
        assert!(people(&data) == people(&undisturbed), "person rows differ");
        assert_eq!(comparable_alerts(&data), comparable_alerts(&undisturbed));
        assert_eq!(status(&data)["outcomes"], status(&undisturbed)["outcomes"], "I1");
    }
}

/// Ended when it goes out of scope.
struct Hanging(Child);

impl Drop for Hanging {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_database_that_another_process_holds_is_told_and_free_again_once_that_is_ended() {
    let bench = Bench::new(None);
    let log = bench.dir.path().join("hanging.log");
    let mut command = bench.command("data");
    // In the middle of a transaction, with all written and nothing committed.
    command.env("STARLING_FAIL_AT", "commit committing a range:3=HANG").stdout(Stdio::null());
    let hanging = Hanging(command.stderr(std::fs::File::create(&log).expect("log")).spawn().expect("starts"));
    let until = Instant::now() + Duration::from_secs(120);
    while !std::fs::read_to_string(&log).expect("log").contains("fault point reached") {
        assert!(Instant::now() < until, "the transaction was never reached");
        std::thread::sleep(Duration::from_millis(50));
    }
    bench.fails_with(&["another process has held the database", "start again"]);
    drop(hanging);
    bench.ends_as_undisturbed();
}

#[test]
fn i8_a_database_that_was_overwritten_is_told_and_nothing_goes_on_without_it() {
    let bench = Bench::new(Some("after_commit:5"));
    let data = bench.dir.path().join("data");
    let names = ["metastore.db", "metastore.db-wal", "metastore.db-shm"];
    let kept: Vec<Vec<u8>> = names.iter().map(|name| std::fs::read(data.join(name)).expect("there")).collect();
    let put_back = || names.iter().zip(&kept).for_each(|(name, bytes)| std::fs::write(data.join(name), bytes).expect("writes"));
    let remove = |data: &Path| names.iter().for_each(|name| std::fs::remove_file(data.join(name)).unwrap_or_default());

    remove(&data);
    std::fs::write(data.join("metastore.db"), vec![0x5a; 8192]).expect("writes");
    bench.fails_with(&["no database", "put the right one back"]);
    remove(&data);
    bench.fails_with(&["metastore.db: the metastore is gone", "Put it back"]);
    assert!(!data.join("metastore.db").exists(), "no empty one was made in its place");
    put_back();
    bench.ends_as_undisturbed();
}
