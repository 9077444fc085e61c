//! # A real Apache Kafka: the journey, and two ingest processes in one group, one of them killed midway
//!
//! Brokers are started by `tests/kafka/start.sh` from Maven Central's artefacts. Where those are not to be had these tests are
//! reported as ignored, never as passed; Rust's own harness cannot do that while it runs, hence `libtest-mimic`.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, dead_code)]

mod doctor;
mod secured;
#[path = "../journey/support.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use doctor::the_doctor_finds_what_is_wrong_with_topics;
use libtest_mimic::{Arguments, Trial};
use secured::i9_i4_a_secured_broker_gives_the_same_rows_and_no_password_is_told;
use support::{
    comparable_alerts, files_below, metrics, people, run_trace, simulate, starling, status, succeed, told, with_known_keys,
    workspace,
};

/// Long enough for a busy machine; a wait that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(600);

/// Why no Kafka can be started here, if so.
fn missing() -> Option<String> {
    if Command::new("openssl").arg("version").output().is_err() {
        return Some("skipped: openssl is not installed, so no Kafka can be secured".to_owned());
    }
    let output = Command::new("bash").arg(workspace().join("tests/kafka/start.sh")).arg("--check").output().expect("bash");
    if output.status.code() == Some(77) {
        return Some(told(&output));
    }
    assert!(output.status.success(), "{}", told(&output));
    None
}

fn main() -> ExitCode {
    let missing = missing();
    if let Some(why) = &missing {
        eprintln!("{why}");
    }
    macro_rules! trials {
        ($($name:ident),* $(,)?) => {
            vec![$(Trial::test(stringify!($name), || { $name(); Ok(()) }).with_ignored_flag(missing.is_some())),*]
        };
    }
    let trials = trials!(
        i9_two_ingest_processes_one_killed_leave_what_an_undisturbed_run_leaves,
        one_process_with_all_rooms_runs_on_a_real_broker_and_stops_when_told,
        i9_i4_a_secured_broker_gives_the_same_rows_and_no_password_is_told,
        the_doctor_finds_what_is_wrong_with_topics,
    );
    // One after the other: each has a broker of its own, and both measure patience on a small machine.
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(1);
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Brokers started by the script; stopped by id when they go out of scope.
struct Brokers {
    dir: PathBuf,
    bootstrap: String,
    answers: String,
}

impl Brokers {
    fn start(dir: &Path) -> Self {
        Self::start_with(dir, "plain")
    }

    fn start_with(dir: &Path, security: &str) -> Self {
        let script = workspace().join("tests/kafka/start.sh");
        let output = Command::new("bash").arg(script).arg("1").arg(dir).env("SECURITY", security).output().expect("bash");
        assert!(output.status.success(), "{}", told(&output));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let bootstrap = text.lines().find_map(|l| l.strip_prefix("bootstrap=")).expect("bootstrap line").to_owned();
        Self { dir: dir.to_owned(), bootstrap, answers: text }
    }

    /// What the script said about this.
    fn answer(&self, name: &str) -> String {
        let line = self.answers.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.expect("the script's answer").to_owned()
    }
}

impl Drop for Brokers {
    fn drop(&mut self) {
        let _ = Command::new("bash").arg(workspace().join("tests/kafka/stop.sh")).arg(&self.dir).output();
    }
}

struct Stopped(Child);

impl Stopped {
    fn spawn(command: &mut Command, log: &Path) -> Self {
        let log = std::fs::File::create(log).expect("log");
        Self(command.stdout(Stdio::null()).stderr(log).spawn().expect("starts"))
    }

    /// SIGTERM: what is in work is finished.
    fn stop(mut self) {
        let _ = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status();
        let until = Instant::now() + Duration::from_secs(60);
        while Instant::now() < until {
            if let Ok(Some(status)) = self.0.try_wait() {
                assert!(status.success(), "{status}");
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("did not stop within a minute");
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < until, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The partitions as `starling status` tells them; none while it cannot be asked.
fn partitions(data: &Path) -> Vec<serde_json::Value> {
    if !data.join("metastore.db").exists() {
        return Vec::new();
    }
    let output = starling().args(["status", "--json", "--data-dir"]).arg(data).output().expect("starts");
    let Ok(status) = serde_json::from_slice::<serde_json::Value>(&output.stdout) else { return Vec::new() };
    status["partitions"].as_array().cloned().unwrap_or_default()
}

fn events_committed(data: &Path) -> u64 {
    partitions(data).iter().filter_map(|p| p["events"].as_u64()).sum()
}

fn i9_two_ingest_processes_one_killed_leave_what_an_undisturbed_run_leaves() {
    let dir = tempfile::tempdir().expect("dir");
    let kafka = dir.path().join("kafka");
    let brokers = Brokers::start(&kafka);
    let (trace, truth) = simulate(dir.path(), 2_000, 2, 21, &["--bad", "0.01"]);
    let undisturbed = dir.path().join("undisturbed");
    with_known_keys(&undisturbed);
    run_trace(&trace, &undisturbed);

    let data = dir.path().join("data");
    with_known_keys(&data);
    let settings = dir.path().join("starling.toml");
    std::fs::write(
        &settings,
        format!(
            "[kafka]\nbrokers = \"{}\"\n[kafka.properties]\n\"session.timeout.ms\" = \"6000\"\n\
             \"heartbeat.interval.ms\" = \"1000\"\n[ingest]\nmax_events = 300\n[signals]\ntransport = \"kafka\"\ncommit_every_ms = 200\n",
            brokers.bootstrap
        ),
    )
    .expect("settings");
    let job = |arguments: &[&str], log: &str| {
        Stopped::spawn(
            starling().args(arguments).arg("--config").arg(&settings).arg("--data-dir").arg(&data),
            &dir.path().join(log),
        )
    };
    succeed(starling().arg("replay").arg(&trace).args(["--brokers", &brokers.bootstrap, "--topic", "events"]));
    succeed(starling().args(["config", "check", "--config"]).arg(&settings));
    for topic in ["integrity.signals", "integrity.alerts"] {
        starling_ingest::create_topic(&brokers.bootstrap, topic, 4).expect("topic");
    }
    let total = truth["frames"].as_u64().expect("frames");
    let mut first = job(&["ingest"], "first.log");
    let second = job(&["ingest"], "second.log");
    let integrity = job(&["integrity"], "integrity.log");
    wait_for("a tenth of the events", || events_committed(&data) > total / 10);
    // Only one that has partitions leaves some to the other.
    let owner = format!("/{}", first.0.id());
    wait_for("the first to have partitions", || {
        partitions(&data).iter().any(|p| p["owner"].as_str().is_some_and(|name| name.ends_with(&owner)))
    });
    let at_kill = events_committed(&data);
    first.0.kill().expect("SIGKILL");
    let _ = first.0.wait();
    assert!(at_kill < total, "killed after everything was done proves nothing: make the trace longer");
    wait_for("all events", || events_committed(&data) >= total);
    std::thread::sleep(Duration::from_secs(1));
    second.stop();
    // Signals of all ranges are in their topic now. That no further alert comes is seen at the end.
    let expected_alerts = comparable_alerts(&undisturbed);
    wait_for("alerts", || comparable_alerts(&data) == expected_alerts);
    let subjects = on_their_topic(&brokers.bootstrap, expected_alerts.len());
    integrity.stop();
    let settings_flag = ["--config", settings.to_str().expect("text")];
    succeed(starling().args(["close", "--all", "--data-dir"]).arg(&data).args(settings_flag));
    succeed(starling().args(["release", "--data-dir"]).arg(&data).args(settings_flag));

    let (expected, found) = (status(&undisturbed), status(&data));
    assert_eq!(found["outcomes"], expected["outcomes"], "I1");
    assert_eq!(found["unbalanced"], serde_json::json!([]), "I1");
    assert_eq!(people(&data), people(&undisturbed), "I9: person rows");
    assert_eq!(comparable_alerts(&data), expected_alerts, "I9: alerts");
    assert_eq!(subjects, expected_alerts.len(), "every alert is on the topic");
    let generations: i64 =
        found["partitions"].as_array().expect("partitions").iter().map(|p| p["generation"].as_i64().expect("generation")).sum();
    assert!(generations > 4, "partitions changed their owner: {}", found["partitions"]);

    // That alerts were read for their topic is in the log (I6).
    let log = succeed(starling().args(["audit", "tail", "--lines", "10000", "--data-dir"]).arg(&data).args(settings_flag));
    assert!(log.lines().any(|line| line.contains("integrity_read") && line.contains("kafka")), "{log}");

    // I4 at the broker: planted senders' numbers stand in `events` and in no other topic's log.
    let numbers: Vec<String> = truth["abusers"]
        .as_array()
        .expect("abusers")
        .iter()
        .filter(|a| a["subject_kind"] == "sender")
        .map(|a| a["subject"].as_str().expect("number").trim_start_matches('+').to_owned())
        .collect();
    assert!(!numbers.is_empty());
    let (mut in_events, mut elsewhere) = (0, Vec::new());
    for file in files_below(&kafka) {
        let bytes = std::fs::read(&file).unwrap_or_default();
        if numbers.iter().any(|n| bytes.windows(n.len()).any(|w| w == n.as_bytes())) {
            if file.to_string_lossy().contains("/events-") {
                in_events += 1;
            } else {
                elsewhere.push(file);
            }
        }
    }
    assert!(in_events > 0, "the search would find nothing");
    assert!(elsewhere.is_empty(), "I4: numbers in {elsewhere:?}");
}

/// How many alerts are on their topic, as CloudEvents in binary mode; waits until there are so many.
fn on_their_topic(bootstrap: &str, expected: usize) -> usize {
    let mut reader = starling_ingest::TopicReader::open(
        bootstrap,
        "integrity.alerts",
        (0..4).map(|p| (p, 0)).collect(),
        &std::collections::BTreeMap::new(),
    )
    .expect("reader");
    let until = Instant::now() + PATIENCE;
    let mut subjects = std::collections::BTreeSet::new();
    while subjects.len() < expected && Instant::now() < until {
        if let Some(message) = reader.poll(Duration::from_millis(200)).expect("read") {
            let alert: serde_json::Value = serde_json::from_slice(&message.payload).expect("JSON");
            let headers: std::collections::BTreeMap<_, _> =
                message.headers.iter().map(|(name, value)| (name.as_str(), std::str::from_utf8(value).expect("text"))).collect();
            let names: Vec<_> = headers.keys().copied().collect();
            assert_eq!(names, ["ce_id", "ce_source", "ce_specversion", "ce_subject", "ce_time", "ce_type", "content-type"]);
            assert_eq!((headers["ce_specversion"], headers["content-type"]), ("1.0", "application/json"));
            assert_eq!((headers["ce_type"], headers["ce_source"]), ("starling.integrity.alert.v1", "/starling/integrity"));
            let fingerprint = alert["fingerprint"].as_str().expect("an alert alone").to_owned();
            assert_eq!(headers["ce_id"], format!("{fingerprint}-{}", alert["revision"]));
            let time: jiff::Timestamp = headers["ce_time"].parse().expect("a time");
            assert_eq!(alert["last_ms"], time.as_millisecond());
            subjects.insert(fingerprint);
        }
    }
    subjects.len()
}

fn one_process_with_all_rooms_runs_on_a_real_broker_and_stops_when_told() {
    let dir = tempfile::tempdir().expect("dir");
    let brokers = Brokers::start(&dir.path().join("kafka"));
    let data = dir.path().join("data");
    succeed(starling().args([
        "simulate",
        "--people",
        "1000",
        "--seed",
        "9",
        "--topic",
        "events",
        "--brokers",
        &brokers.bootstrap,
    ]));
    starling_ingest::create_topic(&brokers.bootstrap, "integrity.alerts", 1).expect("topic");
    let settings = dir.path().join("s.toml");
    std::fs::write(&settings, "[window]\nidle_after_s = 2\nallowed_lateness_s = 60\n[serve]\nlisten = \"127.0.0.1:0\"\n")
        .expect("settings");
    let run = Stopped::spawn(
        starling().args(["run", "--brokers", &brokers.bootstrap, "--data-dir"]).arg(&data).arg("--config").arg(&settings),
        &dir.path().join("run.log"),
    );
    let metrics = metrics().to_string();
    // Idle partitions do not hold the day open: it closes by itself and is released.
    wait_for("the window to close and be released", || {
        data.join("metastore.db").exists()
            && starling()
                .args(["sql", "--format", "csv", "SELECT count(*) FROM meta.releases", "--data-dir"])
                .arg(&data)
                .output()
                .is_ok_and(|o| String::from_utf8_lossy(&o.stdout).lines().nth(1) == Some(metrics.as_str()))
    });
    run.stop();
    let log = std::fs::read_to_string(dir.path().join("run.log")).expect("log");
    // What librdkafka says bears its facility: a broker that is slow for a moment is an error to it, and none of this process.
    let faults: Vec<_> = log.lines().filter(|line| line.contains("ERROR") && !line.contains("facility=")).collect();
    assert!(faults.is_empty(), "{faults:?}\n{log}");
    assert_eq!(status(&data)["unbalanced"], serde_json::json!([]));
}
