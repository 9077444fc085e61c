//! # A real Prometheus: the rules under promtool, and a scrape of a running ingest job
//!
//! Prometheus is found or unpacked by `tests/prometheus/start.sh`. Where there is none these tests are reported as ignored, never as passed.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, dead_code)]

#[path = "../journey/service.rs"]
mod service;
#[path = "../journey/support.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use libtest_mimic::{Arguments, Trial};
use serde_json::Value;
use service::{Service, get, wait_until};
use starling_ingest::{EmbeddedBroker, Producer};
use starling_schemas::event::event::Body;
use starling_schemas::event::{Event, StatusPosted};
use support::{NOON_MS, envelope, frame, starling, told, workspace};

fn script(name: &str) -> Command {
    let mut command = Command::new("bash");
    command.arg(workspace().join("tests/prometheus").join(name));
    command
}

/// The folder of prometheus and promtool.
fn tools() -> Option<PathBuf> {
    let output = script("start.sh").arg("--tools").output().ok()?;
    let answer = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if !output.status.success() {
        eprintln!("{answer}");
    }
    output.status.success().then(|| PathBuf::from(answer))
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let missing = tools().is_none();
    macro_rules! trials {
        ($($name:ident),* $(,)?) => {
            vec![$(Trial::test(stringify!($name), || { $name(); Ok(()) }).with_ignored_flag(missing)),*]
        };
    }
    let trials = trials!(
        the_rules_are_good_and_each_fires_when_it_should_and_not_on_a_calm_day,
        a_real_prometheus_finds_every_metric_that_dashboard_and_rules_name,
    );
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn deploy() -> PathBuf {
    workspace().join("jobs/deploy")
}

fn promtool(arguments: &[&str]) {
    let promtool = tools().expect("found before").join("promtool");
    let output = Command::new(promtool).args(arguments).current_dir(deploy()).output().expect("promtool");
    assert!(output.status.success(), "promtool {arguments:?}\n{}", told(&output));
}

fn the_rules_are_good_and_each_fires_when_it_should_and_not_on_a_calm_day() {
    promtool(&["check", "rules", "alerts.yaml"]);
    promtool(&["check", "config", "prometheus.yaml"]);
    promtool(&["test", "rules", "alerts.test.yaml"]);
    // Every rule is in the tests, also one that is added later.
    let rules = std::fs::read_to_string(deploy().join("alerts.yaml")).expect("rules");
    let tests = std::fs::read_to_string(deploy().join("alerts.test.yaml")).expect("tests");
    let names: Vec<_> = rules.lines().filter_map(|l| l.trim().strip_prefix("- alert: ")).collect();
    assert!(names.len() >= 16, "{names:?}");
    for name in names {
        assert!(tests.contains(&format!("alertname: {name}, exp_alerts: []")), "{name} is not tested on a calm day");
        assert!(
            tests.contains(&format!("alertname: {name}\n")) || tests.contains(&format!("alertname=\"{name}\"")),
            "{name} is not tested to fire"
        );
    }
}

/// A Prometheus started by the script; stopped by id when it goes out of scope.
struct Prometheus {
    dir: PathBuf,
    url: String,
}

impl Prometheus {
    fn start(dir: &Path, target: &str) -> Self {
        let output = script("start.sh").arg(dir).arg(target).output().expect("bash");
        assert!(output.status.success(), "{}", told(&output));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let url = text.lines().find_map(|l| l.strip_prefix("url=")).expect("url line").to_owned();
        Self { dir: dir.to_owned(), url }
    }

    fn ask(&self, path: &str) -> Value {
        let (status, text) = get(&self.url, path);
        assert_eq!(status, 200, "{path}: {text}");
        let body = text.split_once("\r\n\r\n").expect("a body").1;
        // A long answer comes in chunks, each behind its length; JSON begins at the first brace and ends at the last.
        let json: String =
            if text.to_ascii_lowercase().contains("transfer-encoding: chunked") { unchunked(body) } else { body.to_owned() };
        let value: Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(value["status"], "success", "{path}: {value}");
        value["data"].clone()
    }

    /// The values of an instant query, by a label.
    fn query(&self, expression: &str) -> Vec<f64> {
        let encoded: String = expression.bytes().map(|b| format!("%{b:02X}")).collect();
        let data = self.ask(&format!("/api/v1/query?query={encoded}"));
        let value = |sample: &Value| sample["value"][1].as_str().and_then(|v| v.parse().ok()).expect("a value");
        data["result"].as_array().expect("samples").iter().map(value).collect()
    }
}

fn unchunked(mut body: &str) -> String {
    let mut out = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let Some(chunk) = usize::from_str_radix(length, 16).ok().filter(|n| *n > 0).and_then(|n| rest.get(..n)) else { break };
        out.push_str(chunk);
        body = rest.get(chunk.len() + 2..).unwrap_or_default();
    }
    out
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = script("stop.sh").arg(&self.dir).output();
    }
}

/// Every metric that a file names.
fn named(file: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(deploy().join(file)).expect("file");
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    text.match_indices("starling_").map(|(at, _)| text[at..].chars().take_while(|c| is_part(*c)).collect()).collect()
}

fn a_real_prometheus_finds_every_metric_that_dashboard_and_rules_name() {
    let dir = tempfile::tempdir().expect("dir");
    let broker = EmbeddedBroker::start(&[("events", 2)]).expect("broker");
    let producer = Producer::new(&broker.brokers(), &BTreeMap::new()).expect("producer");
    let total = 3_000;
    let send = |n: i32| {
        let body = Some(Body::StatusPosted(StatusPosted { media: 1 }));
        let event = frame(&Event { body, ..envelope(&format!("+49157309{:05}", n % 500), NOON_MS + i64::from(n)) });
        producer.send("events", Some(n % 2), None, if n % 100 == 7 { b"no event" } else { &event }).expect("sent");
    };
    (0..total).for_each(send);
    producer.flush(Duration::from_secs(60)).expect("all there");
    let mut command = starling();
    command.args(["ingest", "--brokers", &broker.brokers(), "--data-dir"]).arg(dir.path().join("data"));
    command.env("STARLING_METRICS__LISTEN", "127.0.0.1:0").env("STARLING_INGEST__MAX_EVENTS", "200");
    let mut ingest = Service::start(&mut command, &dir.path().join("ingest.log"));
    let target = ingest.address();
    let prometheus = Prometheus::start(&dir.path().join("prometheus"), &target);

    let first = |values: Vec<f64>| values.first().copied();
    wait_until("all events to be scraped", || {
        first(prometheus.query("sum(starling_ingest_events_total)")) == Some(f64::from(total))
    });
    // One scrape may come too late for its second, and takes all series away until the next.
    wait_until("it to be up", || first(prometheus.query("up{job=\"starling\"}")) == Some(1.0));
    wait_until("lag of both partitions", || prometheus.query("starling_ingest_lag_events == 0").len() == 2);
    // The quarantine itself is counted anew every half minute only.
    for question in [
        "sum(starling_ingest_quarantined_events_total)",
        "sum(starling_quarantine_events)",
        "sum(starling_ingest_events_total{outcome=\"quarantined\"})",
    ] {
        wait_until(question, || prometheus.query(question) == [f64::from(total / 100)]);
    }

    let names = prometheus.ask("/api/v1/label/__name__/values");
    let exist: BTreeSet<String> = names.as_array().expect("names").iter().filter_map(|n| n.as_str().map(str::to_owned)).collect();
    for file in ["grafana.json", "alerts.yaml"] {
        let named = named(file);
        let missing: Vec<_> = named.difference(&exist).collect();
        assert!(named.len() > 8 && missing.is_empty(), "{file} names what Prometheus does not find: {missing:?}");
    }
    // Types and units arrived as well: this is OpenMetrics, not merely text.
    let metadata = prometheus.ask("/api/v1/metadata?metric=starling_ingest_stage_seconds");
    let stage = &metadata["starling_ingest_stage_seconds"][0];
    assert_eq!((stage["type"].as_str(), stage["unit"].as_str()), (Some("histogram"), Some("seconds")), "{metadata}");

    // The panels' questions are ones that Prometheus understands.
    let text = std::fs::read_to_string(deploy().join("grafana.json")).expect("dashboard");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let mut asked = 0;
    for target in dashboard["panels"].as_array().expect("panels").iter().filter_map(|p| p["targets"].as_array()).flatten() {
        let expression = target["expr"].as_str().expect("a question");
        prometheus.query(&expression.replace("$__rate_interval", "1m").replace("$topic", "events"));
        asked += 1;
    }
    assert!(asked > 30, "{asked}");
    // The rules are evaluated on these very series without an error.
    wait_until("all rules to be evaluated", || {
        let groups = prometheus.ask("/api/v1/rules");
        let rules = groups["groups"][0]["rules"].as_array().cloned().unwrap_or_default();
        for rule in &rules {
            assert_ne!(rule["health"], "err", "{rule}");
        }
        rules.len() >= 16 && rules.iter().all(|r| r["health"] == "ok")
    });

    ingest.signal("TERM");
    assert!(ingest.ended(Duration::from_secs(60)).success(), "{}", ingest.log());
    wait_until("Prometheus to see that it is down", || first(prometheus.query("up{job=\"starling\"}")) == Some(0.0));
}
