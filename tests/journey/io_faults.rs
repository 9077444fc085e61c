//! I9, I1, I2, I3: each write, sync, rename, link, read and transaction fails, once or until the process ends, and afterwards nothing is
//! different.
//!
//! A disk that is full stays full until somebody frees space, so `ENOSPC` lasts; an `EIO` may come once and never again. Either the run goes on, or
//! it stops with exit code 1 and says where and what to do, and the next run ends as one that was never disturbed.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Mutex;

use starling_store::faultpoint::{FILES, STEPS, TRANSACTIONS};

use crate::support::{
    Person, accounts, comparable_alerts, files_below, metrics, open, people, runtime, simulate, starling, status, succeed, told,
    with_known_keys,
};

/// Many small ranges, so that points are passed often and a day's merge is too wide to be done without runs.
const SETTINGS: &str = "[ingest]\nmax_events = 1500\n[window]\nmemory_mib = 64\n[signals]\ncommit_every_ms = 20\n";

/// Not passed by a run over a trace: neither days nor businesses expire in it (see below), without Kafka there is no topic and no alert is
/// published, no question is asked, and the doctor neither (`pipeline/ingest/tests/journeys.rs` has the topic's).
const NOT_HERE: [&str; 21] = [
    "expiring a window",
    "erasing businesses that are silent",
    "marking an alert published",
    // The desk's: `desk.rs`.
    "taking a step on an alert",
    "silencing a rule",
    "ending a silence",
    // Verdicts demote, and what was kept dies after 14 days: `standing.rs`, and the store's own.
    "demoting a rule",
    "restoring a rule",
    "erasing kept findings",
    // Nobody attacks the pipeline itself, and no door is open: `on_us.rs`, here and of the HTTP door.
    "committing findings",
    "adding accounts of doors",
    // Nobody is sent anything: `receivers.rs`.
    "taking the sending of alerts",
    "keeping the sending of alerts",
    "queueing deliveries",
    "noting a delivery",
    "sending deliveries again",
    "keeping a topic's id",
    "noting a partition's log",
    "accepting a loss",
    "recording an answer",
    "trying to write",
];

/// Runs at once: most of a failing run is waiting between two tries.
const AT_ONCE: usize = 4;

/// What two runs are compared by.
#[derive(Debug, PartialEq)]
struct Outcome {
    people: std::collections::BTreeMap<String, Vec<Person>>,
    alerts: Vec<String>,
    counts: serde_json::Value,
    /// Metric and day of each release, and question and day of each charge.
    releases: Vec<(String, String)>,
    charges: Vec<(String, String)>,
    /// Files of ranges, runs and half-written ones.
    leftovers: Vec<PathBuf>,
}

impl Outcome {
    /// What differs, without the rows themselves: they are many.
    fn differences(&self, expected: &Self) -> String {
        let mut text = String::new();
        for (what, same) in [
            ("person rows differ", self.people == expected.people),
            ("alerts differ", self.alerts == expected.alerts),
            ("I1: counts differ", self.counts == expected.counts),
            ("I3: releases differ", self.releases == expected.releases),
            ("I2: charges differ", self.charges == expected.charges),
        ] {
            if !same {
                text += what;
                text.push('\n');
            }
        }
        if self.leftovers != expected.leftovers {
            text += &format!("left over: {:?}\n", self.leftovers);
        }
        text
    }
}

fn outcome(data: &Path) -> Outcome {
    let (releases, charges) = runtime().block_on(async {
        let (metastore, ..) = open(data).await;
        let releases = metastore.releases().await.expect("releases");
        let budget = metastore.budget().await.expect("budget");
        let charged =
            budget.iter().flat_map(|b| b.charges.iter().map(|charge| (charge.question.clone(), b.block.epoch.to_string())));
        (releases.into_iter().map(|r| (r.metric, r.epoch.to_string())).collect(), charged.collect())
    });
    let mut outcome = Outcome {
        people: people(data),
        alerts: comparable_alerts(data),
        counts: status(data)["outcomes"].clone(),
        releases,
        charges,
        leftovers: leftovers(data),
    };
    outcome.charges.sort();
    outcome
}

fn leftovers(data: &Path) -> Vec<PathBuf> {
    // Of the week and the month, which go on, one segment each.
    let is_left = |path: &PathBuf| {
        let text = path.strip_prefix(data).unwrap_or(path).display().to_string();
        text.contains('#')
            || text.contains("runs-")
            || (text.contains("segments/") && !text.contains("/gathered-2026-01-10-"))
            || [".tmp", ".tombstone"].iter().any(|e| text.ends_with(e))
    };
    files_below(data).into_iter().filter(is_left).collect()
}

struct Bench {
    dir: tempfile::TempDir,
    trace: PathBuf,
    settings: PathBuf,
    expected: Outcome,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("dir");
        // A Saturday: its week and its month go on.
        let (trace, _) = simulate(dir.path(), 1_000, 1, 11, &["--bad", "0.01", "--start", "2026-01-10"]);
        // A run whose settings name no lists puts none in force.
        let (settings, lists) = (dir.path().join("starling.toml"), dir.path().join("lists.txt"));
        std::fs::write(&lists, format!("{} name scam-names\n", "0".repeat(64))).expect("lists");
        std::fs::write(&settings, format!("[integrity]\ngroup_hashes = {lists:?}\n{SETTINGS}")).expect("settings");
        let data = dir.path().join("undisturbed");
        with_known_keys(&data);
        let output = run(&trace, &data, &settings, None);
        assert!(output.status.success(), "{}", told(&output));
        let expected = outcome(&data);
        assert!(!expected.alerts.is_empty() && expected.people.len() == 1 && expected.releases.len() == metrics());
        assert!(expected.leftovers.is_empty(), "{:?}", expected.leftovers);
        Self { dir, trace, settings, expected }
    }

    /// Runs with a fault, and again without if it stopped. `false`: the point was not passed so often. An error says what was wrong.
    fn disturb(&self, fault: &str) -> Result<bool, String> {
        let data = self.dir.path().join(fault.replace([' ', ':', '=', '*', '\''], "_"));
        with_known_keys(&data);
        let output = run(&self.trace, &data, &self.settings, Some(fault));
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let reached = text.contains("fault point reached");
        let wrong = |what: &str| Err(format!("{fault}: {what}\n{text}"));
        if !output.status.success() {
            if !reached || output.status.code() != Some(1) {
                return wrong("it ended otherwise than with an error that is told");
            }
            let last = text.lines().rfind(|line| line.starts_with("starling: ")).unwrap_or_default();
            let cause = if fault.ends_with("ENOSPC") { "no space is left" } else { "disk may be failing" };
            for needed in [&data.display().to_string(), "start again", cause] {
                if !last.contains(needed) {
                    return wrong(&format!("`{needed}` is not told"));
                }
            }
            let again = run(&self.trace, &data, &self.settings, None);
            if !again.status.success() {
                return wrong(&format!("the next run failed, too: {}", told(&again)));
            }
        }
        if reached {
            let found = outcome(&data);
            let differences = found.differences(&self.expected);
            if !differences.is_empty() {
                return wrong(&differences);
            }
        }
        std::fs::remove_dir_all(&data).expect("removes");
        Ok(reached)
    }
}

fn run(trace: &Path, data: &Path, settings: &Path, fault: Option<&str>) -> Output {
    let mut command = starling();
    command.args(["run", "--trace"]).arg(trace).arg("--data-dir").arg(data).arg("--config").arg(settings);
    command.envs(fault.map(|fault| ("STARLING_FAIL_AT", fault))).output().expect("starling starts")
}

/// Disturbs runs at all these points, some at once; panics with everything that was wrong, and where a point was never passed.
fn disturb_all(points: &[String]) {
    let bench = Bench::new();
    let (next, wrong) = (Mutex::new(points.iter()), Mutex::new(Vec::new()));
    let disturb = |point: &str| -> Result<bool, String> {
        let early = bench.disturb(&format!("{point}=EIO"))?;
        let late = early && bench.disturb(&format!("{point}:4=EIO"))?;
        let lasting =
            (late && bench.disturb(&format!("{point}:3:*=ENOSPC"))?) || bench.disturb(&format!("{point}:1:*=ENOSPC"))?;
        Ok(early && lasting)
    };
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(point) = { next.lock().expect("lock").next() } {
                    match disturb(point) {
                        Ok(true) => {}
                        Ok(false) => wrong.lock().expect("lock").push(format!("{point} was never passed, which proves nothing")),
                        Err(what) => wrong.lock().expect("lock").push(what),
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().expect("lock");
    assert!(wrong.is_empty(), "{} of {} points:\n\n{}", wrong.len(), points.len(), wrong.join("\n\n"));
}

#[test]
fn i9_a_file_or_key_that_cannot_be_written_or_read_changes_nothing_but_the_time_it_takes() {
    let points: Vec<String> = FILES.iter().map(|name| (*name).to_owned()).collect();
    disturb_all(&points);
}

#[test]
fn i9_a_transaction_that_fails_before_or_after_it_acted_changes_nothing_but_the_time_it_takes() {
    let here = TRANSACTIONS.iter().filter(|during| !NOT_HERE.contains(during));
    let points: Vec<String> = here
        .flat_map(|during| STEPS.iter().map(move |step| (*step, *during)))
        .map(|(step, during)| format!("{step} {during}"))
        .collect();
    disturb_all(&points);
}

#[test]
fn i7_a_day_or_a_business_whose_expiry_failed_at_any_step_expires_the_next_time() {
    let bench = Bench::new();
    let settings = bench.dir.path().join("expiring.toml");
    std::fs::write(&settings, SETTINGS.replace("[window]", "[businesses]\nkeep_days = 0\n[window]\nkeep_days = 0"))
        .expect("settings");
    let points = [
        "begin expiring a window",
        "commit expiring a window",
        "committed expiring a window",
        "file_remove",
        "tombstone_link",
        "begin erasing businesses that are silent",
        "commit erasing businesses that are silent",
        "committed erasing businesses that are silent",
    ];
    for (number, point) in points.iter().enumerate() {
        let data = bench.dir.path().join(format!("expiry-{number}"));
        with_known_keys(&data);
        assert!(run(&bench.trace, &data, &bench.settings, None).status.success());
        let key = data.join("keys").join("analytics_day.2026-01-10.data.key");
        assert!(key.exists() && !accounts(&data).is_empty());
        let close = |fault: Option<&str>| {
            let mut command = starling();
            command.arg("close").arg("--data-dir").arg(&data).arg("--config").arg(&settings);
            command.envs(fault.map(|fault| ("STARLING_FAIL_AT", fault))).output().expect("starling starts")
        };
        let failed = close(Some(&format!("{point}=EIO")));
        assert_eq!(failed.status.code(), Some(1), "{point}: {}", told(&failed));
        assert!(told(&failed).contains("fault point reached"), "{point}: {}", told(&failed));
        let again = close(None);
        assert!(again.status.success(), "after {point}: {}", told(&again));
        let tables = files_below(&data.join("files").join("people"));
        assert!(tables.is_empty(), "after {point}: {tables:?}");
        assert!(!key.exists(), "after {point}");
        assert_eq!(accounts(&data), [] as [serde_json::Value; 0], "after {point}");
        runtime().block_on(async {
            let windows = open(&data).await.0.windows().await.expect("windows");
            assert!(windows.iter().all(|w| w.expired_at_ms.is_some()), "after {point}: {windows:?}");
        });
    }
}

#[test]
fn i6_alerts_are_not_shown_when_the_audit_log_cannot_be_written() {
    let dir = tempfile::tempdir().expect("dir");
    let (trace, _) = simulate(dir.path(), 1_000, 1, 11, &[]);
    let data = dir.path().join("data");
    succeed(starling().args(["run", "--trace"]).arg(&trace).arg("--data-dir").arg(&data));
    assert!(!comparable_alerts(&data).is_empty());
    for step in STEPS {
        let fault = format!("{step} appending to the audit log:1:*=ENOSPC");
        let output = starling().args(["alerts", "--json", "--data-dir"]).arg(&data).env("STARLING_FAIL_AT", fault).output();
        let output = output.expect("starling starts");
        assert_eq!(output.status.code(), Some(1), "{}", told(&output));
        assert!(output.stdout.is_empty(), "{}", told(&output));
    }
}
