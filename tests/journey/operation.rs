//! What the engineer on call has: metrics, health, `ingest status`, the quarantine, and a process that ends when told. On the embedded broker.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use starling_ingest::{EmbeddedBroker, Producer};
use starling_schemas::event::event::Body;
use starling_schemas::event::{Event, MessageSent};
use starling_schemas::ids::{EpochId, Purpose};
use starling_store::{KeyId, KeyKind};

use crate::leaks::{NUMBERS, canary_events, find, needles};
use crate::service::{Service, wait_until};
use crate::support::{NOON_MS, envelope, frame, open, runtime, starling, status, succeed, with_known_keys};

/// Ending in time is the promise itself, ten seconds; what is shown here is that it ends at all, on a machine that may be busy
/// with other tests.
const IN_TIME: Duration = Duration::from_secs(60);
const PARTITIONS: i32 = 4;

/// A broker with events, and settings that lead to it.
struct Place {
    dir: tempfile::TempDir,
    broker: EmbeddedBroker,
    data: PathBuf,
}

impl Place {
    fn new(frames: &[Vec<u8>], settings: &str) -> Self {
        let dir = tempfile::tempdir().expect("dir");
        let broker =
            EmbeddedBroker::start(&[("events", PARTITIONS), ("integrity.signals", 4), ("integrity.alerts", 1)]).expect("broker");
        let producer = Producer::new(&broker.brokers(), &BTreeMap::new()).expect("producer");
        for (n, frame) in (0..).zip(frames) {
            producer.send("events", Some(n % PARTITIONS), None, frame).expect("sent");
        }
        producer.flush(Duration::from_secs(60)).expect("all there");
        let text = format!(
            "[kafka]\nbrokers = \"{}\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n[serve]\nlisten = \"127.0.0.1:0\"\n{settings}",
            broker.brokers()
        );
        std::fs::write(dir.path().join("s.toml"), text).expect("settings");
        let data = dir.path().join("data");
        with_known_keys(&data);
        Self { dir, broker, data }
    }

    fn start(&self, arguments: &[&str], log: &str) -> Service {
        let mut command = starling();
        command.args(arguments).arg("--config").arg(self.dir.path().join("s.toml")).arg("--data-dir").arg(&self.data);
        Service::start(&mut command, &self.dir.path().join(log))
    }

    /// One answer of a command about the data directory.
    fn ask(&self, arguments: &[&str]) -> String {
        succeed(starling().args(arguments).arg("--data-dir").arg(&self.data))
    }

    fn committed(&self) -> u64 {
        committed(&self.data)
    }
}

fn committed(data: &Path) -> u64 {
    if !data.join("metastore.db").exists() {
        return 0;
    }
    let output = starling().args(["ingest", "status", "--json", "--data-dir"]).arg(data).output().expect("starts");
    let Ok(status) = serde_json::from_slice::<serde_json::Value>(&output.stdout) else { return 0 };
    status["partitions"].as_array().map_or(0, |p| p.iter().filter_map(|p| p["committed_events"].as_u64()).sum())
}

/// Messages of a thousand people, all of one day.
fn messages(count: usize) -> Vec<Vec<u8>> {
    let message = |n: usize| {
        let body =
            Body::MessageSent(MessageSent { to_person: "+4915730900000".into(), conversation: 1, ..MessageSent::default() });
        Event { body: Some(body), ..envelope(&format!("+49157309{:05}", n % 1000), NOON_MS + n as i64) }
    };
    (0..count).map(|n| frame(&message(n))).collect()
}

/// The sum of all samples of a series whose line begins like this.
fn sum(metrics: &str, prefix: &str) -> f64 {
    let value = |line: &str| line.rsplit(' ').next().and_then(|v| v.parse::<f64>().ok()).expect("a value");
    metrics.lines().filter(|l| l.starts_with(prefix)).map(value).sum()
}

#[test]
fn i4_i1_metrics_health_status_and_quarantine_tell_how_it_is_and_nothing_of_anybody() {
    let mut frames = canary_events();
    frames.extend(messages(500));
    let place = Place::new(&frames, "");
    let mut ingest = place.start(&["ingest"], "ingest.log");
    let total = frames.len() as u64;
    wait_until("all events", || place.committed() >= total);
    let live = ingest.get("/livez");
    assert_eq!(live.0, 200, "{live:?}");
    // A check that took too long says nothing but that; the next one does.
    let mut ready = (0, String::new());
    wait_until("it to be ready", || {
        ready = ingest.get("/readyz");
        ready.0 == 200
    });
    for check in ["metastore", "files", "keyring", "brokers", "group"] {
        assert!(ready.1.contains(&format!("{{\"name\":\"{check}\",\"ok\":true}}")), "{}", ready.1);
    }
    // The end is asked for once a second, so lag is known a moment later.
    let mut metrics = String::new();
    wait_until("the ends of all partitions", || {
        metrics = ingest.get("/metrics").1;
        metrics.matches("starling_ingest_lag_events{").count() == PARTITIONS as usize
    });
    assert!(metrics.contains("application/openmetrics-text"), "{metrics}");

    let status = status(&place.data);
    let books = |prefix: &str| -> f64 {
        let outcomes = status["outcomes"].as_object().expect("outcomes");
        outcomes.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(_, n)| n.as_f64().expect("a count")).sum()
    };
    for outcome in ["counted", "late", "refused", "quarantined"] {
        let told = sum(&metrics, &format!("starling_ingest_events_total{{topic=\"events\",outcome=\"{outcome}\"}}"));
        assert_eq!(told, books(outcome), "{outcome}");
    }
    assert!(books("quarantined") > 10.0 && books("refused") > 10.0, "{status}");
    assert_eq!(sum(&metrics, "starling_ingest_events_total{"), total as f64, "I1");
    assert_eq!(sum(&metrics, "starling_ingest_committed_events{"), total as f64);
    assert_eq!(sum(&metrics, "starling_quarantine_events{"), books("quarantined"));
    assert_eq!(sum(&metrics, "starling_ingest_payload_bytes_total{"), frames.iter().map(Vec::len).sum::<usize>() as f64);
    assert_eq!(sum(&metrics, "starling_ingest_lag_events{"), 0.0);
    assert_eq!(sum(&metrics, "starling_books_unbalanced_partitions "), 0.0);
    for stage in ["read", "plan", "minimize", "fold", "encode", "write", "signals", "commit"] {
        assert!(
            sum(&metrics, &format!("starling_ingest_stage_seconds_sum{{stage=\"{stage}\"}}")) > 0.0,
            "{stage} costs nothing?"
        );
    }

    let listed = place.ask(&["quarantine", "list", "--limit", "1000", "--json"]);
    assert_eq!(listed.lines().count() as f64, books("quarantined"));
    let counts: serde_json::Value = serde_json::from_str(&place.ask(&["quarantine", "count", "--json"])).expect("JSON");
    for (class, n) in counts["events"].as_object().expect("classes") {
        assert_eq!(n.as_f64().expect("a count"), books(&format!("quarantined:{class}")), "{class}");
        let of_class = place.ask(&["quarantine", "list", "--limit", "1000", "--json", "--class", class, "--since", "1h"]);
        assert_eq!(of_class.lines().count() as u64, n.as_u64().expect("a count"), "{class}");
    }

    let mut told = vec![metrics, live.1, ready.1, listed];
    for command in [&["ingest", "status"][..], &["ingest", "status", "--json"], &["quarantine", "list"], &["quarantine", "count"]]
    {
        told.push(place.ask(command));
    }
    ingest.signal("TERM");
    assert!(ingest.ended(IN_TIME).success(), "{}", ingest.log());
    told.push(ingest.log());
    let mut needles = needles();
    needles.extend(pseudonyms(&place.data));
    for text in &told {
        assert_eq!(find(text.as_bytes(), &needles), [""; 0], "{text}");
    }
    assert!(!find(format!("{} {}", NUMBERS[0].1, told[0]).as_bytes(), &needles).is_empty(), "the search would find nothing");
}

/// The pseudonyms of every canary under the day's keys, as bytes and in hex.
fn pseudonyms(data: &Path) -> Vec<(String, Vec<u8>)> {
    let epoch = EpochId::of(NOON_MS);
    let (_, _, keyring) = runtime().block_on(open(data));
    let mut out = Vec::new();
    // Hours are off, and have no key of a day.
    for purpose in Purpose::ALL.into_iter().filter(|purpose| *purpose != Purpose::AnalyticsHour) {
        let key = keyring.get(KeyId { kind: KeyKind::Pseudonym, purpose, epoch }).expect("keyring").expect("a key");
        for (slot, number) in NUMBERS {
            let Some(value) = starling_minimize::keyed_subject(number, key.expose(), purpose, epoch) else { continue };
            out.push((format!("{slot}'s pseudonym"), value.to_vec()));
            let hex: String = value.iter().map(|b| format!("{b:02x}")).collect();
            out.push((format!("{slot}'s pseudonym in hex"), hex.into_bytes()));
        }
    }
    assert!(out.len() >= 4);
    out
}

#[test]
fn i9_sigterm_in_the_middle_of_a_backlog_ends_in_time_with_nothing_lost() {
    let frames = messages(40_000);
    let total = frames.len() as u64;
    // Many small ranges, so that a quick machine is not done before the signal comes.
    let place = Place::new(&frames, "[ingest]\nmax_events = 15\n");
    let mut first = place.start(&["ingest"], "first.log");
    wait_until("the first ranges", || place.committed() > 0);
    first.signal("TERM");
    let status_of_end = first.ended(IN_TIME);
    assert!(status_of_end.success(), "{status_of_end}: {}", first.log());
    assert!(first.log().contains("stopping:"), "{}", first.log());
    assert!(!first.log().contains(" left"), "a progress bar in a file: {}", first.log());
    let at_end = place.committed();
    assert!(at_end < total, "stopped after everything was done proves nothing: send more events");

    // The rest is in no need of them.
    let settings = place.dir.path().join("s.toml");
    let text = std::fs::read_to_string(&settings).expect("settings").replace("max_events = 15", "max_events = 10000");
    std::fs::write(&settings, text).expect("settings");
    let mut second = place.start(&["ingest"], "second.log");
    wait_until("the rest", || place.committed() >= total);
    second.signal("TERM");
    assert!(second.ended(IN_TIME).success(), "{}", second.log());
    let books = status(&place.data);
    assert_eq!(books["outcomes"], serde_json::json!({ "counted": total }), "I1: nothing lost, nothing twice");
    assert_eq!(books["unbalanced"], serde_json::json!([]));
}

/// Ingest whose ranges cannot be finished: the brokers take none of its signals.
fn stuck() -> (Place, Service) {
    let place = Place::new(&messages(8_000), "[ingest]\nmax_events = 100\n[signals]\ntransport = \"kafka\"\n");
    // More refusals than a producer can ask for here. Brokers that go away at a moment of our choosing would race with a quick machine's commits.
    place.broker.refuse_messages(1_000_000).expect("broker");
    let mut ingest = place.start(&["ingest"], "stuck.log");
    let _up = ingest.address();
    // A commit takes milliseconds; ranges that are still open after seconds wait for the brokers.
    wait_until("a range that hangs", || {
        let text = place.ask(&["ingest", "status", "--json"]);
        let status: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let partitions = status["partitions"].as_array().expect("partitions");
        partitions.iter().any(|p| p["open_plan"]["age_ms"].as_i64().is_some_and(|age| age > 3_000))
    });
    (place, ingest)
}

#[test]
fn work_that_hangs_does_not_keep_a_process_from_ending_in_time() {
    let (_place, mut ingest) = stuck();
    ingest.signal("TERM");
    let status = ingest.ended(IN_TIME);
    assert!(status.success(), "{status}: {}", ingest.log());
}

#[test]
fn asked_twice_a_process_ends_at_once() {
    let (_place, mut ingest) = stuck();
    ingest.signal("TERM");
    wait_until("the first signal to be heard", || ingest.log().contains("stopping:"));
    ingest.signal("TERM");
    assert_eq!(ingest.ended(IN_TIME).code(), Some(143), "{}", ingest.log());
}

#[test]
fn two_processes_with_one_address_for_metrics_both_run_and_the_second_says_where() {
    let place = Place::new(&messages(50), "");
    let mut first = place.start(&["integrity"], "integrity.log");
    let address = first.address();
    let mut command = starling();
    command.args(["close", "--watch", "--data-dir"]).arg(&place.data).env("STARLING_METRICS__LISTEN", &address);
    let mut second = Service::start(&mut command, &place.dir.path().join("close.log"));
    let other = second.address();
    assert_ne!(other, address);
    assert!(second.log().contains("another process has the address"), "{}", second.log());
    assert_eq!((first.get("/livez").0, second.get("/livez").0), (200, 200));
    for mut service in [first, second] {
        service.signal("TERM");
        assert!(service.ended(IN_TIME).success(), "{}", service.log());
    }
}

#[test]
fn all_rooms_in_one_process_are_ready_and_end_when_told() {
    let place = Place::new(&messages(3_000), "[window]\ndeadline_s = 3153600000\n");
    let mut run = place.start(&["run"], "run.log");
    wait_until("all events", || place.committed() >= 3_000);
    assert_eq!(run.get("/livez").0, 200);
    wait_until("all rooms to be ready", || run.get("/readyz").0 == 200);
    run.signal("INT");
    assert!(run.ended(IN_TIME).success(), "{}", run.log());
    // What librdkafka says bears its facility: a broker that is slow for a moment is an error to it, and none of this process.
    let log = run.log();
    let faults: Vec<_> = log.lines().filter(|line| line.contains("ERROR") && !line.contains("facility=")).collect();
    assert!(faults.is_empty(), "{faults:?}\n{log}");
}

/// What ingest writes to a terminal until it has caught up and said `end`, with further arguments. `script` (of Debian's
/// essential bsdutils) makes the terminal.
#[cfg(target_os = "linux")]
fn at_a_terminal(place: &Place, name: &str, arguments: &str, end: &str) -> String {
    let data = place.dir.path().join(name);
    let (pid, typescript) = (place.dir.path().join(format!("{name}.pid")), place.dir.path().join(format!("{name}.typescript")));
    let line = format!(
        "stty cols 100; echo $$ >{}; exec {} ingest --config {} --data-dir {} {arguments}",
        pid.display(),
        env!("CARGO_BIN_EXE_starling"),
        place.dir.path().join("s.toml").display(),
        data.display()
    );
    let mut terminal = std::process::Command::new("script");
    terminal.args(["-qefc", &line]).arg(&typescript).env("SHELL", "/bin/sh");
    terminal.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
    let mut terminal = terminal.spawn().expect("`script` of bsdutils");
    let total = u64::from(BACKLOG);
    wait_until("the backlog to be caught up", || committed(&data) >= total);
    let written = || String::from_utf8_lossy(&std::fs::read(&typescript).unwrap_or_default()).into_owned();
    // It is looked after every quarter of a second, so what is said of its end comes a moment later.
    wait_until("its end to be told", || written().contains(end));
    let id = std::fs::read_to_string(pid).expect("pid");
    let told = std::process::Command::new("kill").args(["-TERM", id.trim()]).status().expect("kill");
    assert!(told.success());
    assert!(terminal.wait().expect("ends").success());
    written()
}

/// More events than a backlog needs to be shown.
#[cfg(target_os = "linux")]
const BACKLOG: u32 = 80_000;

#[test]
#[cfg(target_os = "linux")]
fn a_backlog_shows_its_progress_at_a_terminal_and_nowhere_else() {
    let place = Place::new(&messages(BACKLOG as usize), "[ingest]\nmax_events = 100\n");
    let shown = at_a_terminal(&place, "shown", "", "the backlog is caught up");
    // How far, of how many, how fast, and how long still.
    let bar = shown.split('\r').rfind(|part| part.contains(" left")).unwrap_or_default();
    assert!(bar.contains("/80,000 events, ") && bar.contains("/s, "), "{bar:?}\n{shown}");
    for silent in ["--quiet", "--log info"] {
        if silent == "--log info" {
            std::fs::write(
                place.dir.path().join("s.toml"),
                std::fs::read_to_string(place.dir.path().join("s.toml")).expect("settings") + "[log]\nformat = \"json\"\n",
            )
            .expect("settings");
        }
        let told = at_a_terminal(&place, &format!("silent-{}", silent.len()), silent, "");
        assert!(!told.contains(" left"), "{silent}: {told}");
    }
}
