//! # A real Alertmanager: what is open appears in it, what is over resolves, and being away loses nothing
//!
//! Alertmanager is found or unpacked by `tests/alertmanager/start.sh`. Where there is none these tests are reported as ignored, never as passed.

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
use service::{Service, wait_until};
use support::{alerts, run_trace, runtime, simulate, starling, succeed, told, workspace};

fn script(name: &str) -> Command {
    let mut command = Command::new("bash");
    command.arg(workspace().join("tests/alertmanager").join(name));
    command
}

fn is_missing() -> bool {
    let output = script("start.sh").arg("--tool").output();
    let found = output.as_ref().is_ok_and(|o| o.status.success());
    if let (false, Ok(output)) = (found, output) {
        eprintln!("{}", String::from_utf8_lossy(&output.stdout).trim());
    }
    !found
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let missing = is_missing();
    macro_rules! trials {
        ($($name:ident),* $(,)?) => {
            vec![$(Trial::test(stringify!($name), || { $name(); Ok(()) }).with_ignored_flag(missing)),*]
        };
    }
    let no_openssl = Command::new("openssl").arg("version").output().is_err();
    let mut trials = trials!(
        what_is_open_appears_without_its_subject_and_what_is_dismissed_resolves,
        an_alertmanager_that_is_away_and_a_sender_that_is_killed_lose_nothing,
        what_is_open_ends_by_itself_only_when_nobody_sends_any_more,
        i6_nothing_is_told_when_the_log_cannot_be_written,
    );
    let secured = "one_whose_certificate_is_not_trusted_is_told_nothing_and_one_that_is_trusted_everything";
    let trial = Trial::test(secured, || {
        one_whose_certificate_is_not_trusted_is_told_nothing_and_one_that_is_trusted_everything();
        Ok(())
    });
    trials.push(trial.with_ignored_flag(missing || no_openssl));
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// An Alertmanager started by the script; stopped by id when it goes out of scope.
struct Alertmanager {
    dir: PathBuf,
    url: String,
}

impl Alertmanager {
    fn start(dir: &Path, port: Option<&str>) -> Self {
        let output = script("start.sh").arg(dir).args(port).output().expect("bash");
        assert!(output.status.success(), "{}", told(&output));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let url = text.lines().find_map(|l| l.strip_prefix("url=")).expect("url line").to_owned();
        Self { dir: dir.to_owned(), url }
    }

    fn port(&self) -> String {
        self.url.rsplit(':').next().expect("a port").to_owned()
    }

    /// What it holds that is not resolved, by fingerprint and severity.
    fn active(&self) -> BTreeMap<(String, String), Value> {
        let certificate = std::fs::read(self.dir.join("server.crt")).ok();
        let scheme = if certificate.is_some() { "https" } else { "http" };
        let mut client = reqwest::Client::builder().no_proxy();
        if let Some(pem) = certificate {
            client = client.add_root_certificate(reqwest::Certificate::from_pem(&pem).expect("a certificate"));
        }
        let client = client.build().expect("a client");
        let text = runtime().block_on(async {
            let answer = client.get(format!("{scheme}://{}/api/v2/alerts", self.url)).send().await.expect("answers");
            answer.text().await.expect("text")
        });
        let found: Vec<Value> = serde_json::from_str(&text).expect("JSON");
        let key = |alert: &Value| {
            let label = |name: &str| alert["labels"][name].as_str().expect("a label").to_owned();
            (label("fingerprint"), label("severity"))
        };
        found.into_iter().map(|alert| (key(&alert), alert)).collect()
    }

    fn names(&self) -> BTreeSet<(String, String)> {
        self.active().into_keys().collect()
    }
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        let _ = script("stop.sh").arg(&self.dir).output();
    }
}

/// A data directory with alerts.
struct Bench {
    dir: tempfile::TempDir,
    data: PathBuf,
    settings: PathBuf,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("dir");
        let (trace, _) = simulate(dir.path(), 1_000, 1, 4, &[]);
        let (data, settings) = (dir.path().join("data"), dir.path().join("starling.toml"));
        run_trace(&trace, &data);
        Self { dir, data, settings }
    }

    fn settings(&self, url: &str, resend_s: u32) {
        let text = format!(
            "[alerts]\nlink = \"https://desk.example/{{alert}}\"\n[alerts.alertmanager]\nurls = [\"{url}\"]\nresend_s = {resend_s}\n"
        );
        std::fs::write(&self.settings, text).expect("settings");
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = starling();
        command.args(arguments).arg("--config").arg(&self.settings).arg("--data-dir").arg(&self.data);
        command
    }

    fn integrity(&self, log: &str) -> Service {
        let mut command = self.command(&["integrity"]);
        command.env("STARLING_METRICS__LISTEN", "127.0.0.1:0");
        Service::start(&mut command, &self.dir.path().join(log))
    }

    /// What somebody should look at, as the feed has it, by fingerprint and severity.
    fn open(&self) -> BTreeSet<(String, String)> {
        let text = succeed(&mut self.command(&["alerts", "--open", "--json"]));
        let alerts = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let name = |alert: Value| {
            (alert["fingerprint"].as_str().expect("text").to_owned(), alert["severity"].as_str().expect("text").to_owned())
        };
        alerts.map(name).collect()
    }

    fn dismiss(&self, fingerprint: &str) {
        succeed(&mut self.command(&["alerts", "take", fingerprint, "--by", "ana"]));
        succeed(&mut self.command(&["alerts", "dismiss", fingerprint, "--by", "ana", "--reason", "legitimate_use"]));
    }

    /// How often the log says that alerts were read for Alertmanager.
    fn entries(&self) -> usize {
        let log = succeed(&mut self.command(&["audit", "tail", "--lines", "10000"]));
        log.lines().filter(|line| line.contains("integrity_read") && line.contains("alertmanager")).count()
    }
}

fn ends(mut service: Service) {
    service.signal("TERM");
    assert!(service.ended(Duration::from_secs(60)).success(), "{}", service.log());
}

fn what_is_open_appears_without_its_subject_and_what_is_dismissed_resolves() {
    let bench = Bench::new();
    let manager = Alertmanager::start(&bench.dir.path().join("am"), None);
    // A round is longer than this test waits: what changes is told at once, or not in time.
    bench.settings(&format!("http://{}", manager.url), 300);
    let doctor = bench.command(&["doctor"]).output().expect("runs");
    assert!(String::from_utf8_lossy(&doctor.stdout).contains("ok    receivers: Alertmanager http://127.0.0.1"), "{doctor:?}");
    let open = bench.open();
    assert!(open.len() >= 3);
    let service = bench.integrity("log");
    wait_until("all that is open", || manager.names() == open);
    let feed = alerts(&bench.data);
    let expected: BTreeSet<_> = ["alertname", "rule", "severity", "subject_kind", "fingerprint"].into();
    for ((fingerprint, _), alert) in manager.active() {
        let labels: BTreeSet<_> = alert["labels"].as_object().expect("labels").keys().map(String::as_str).collect();
        assert_eq!(labels, expected);
        let shown = feed.iter().find(|a| a["fingerprint"] == *fingerprint).expect("of the feed");
        assert_eq!(alert["annotations"]["summary"], shown["explanation"]);
        assert_eq!(alert["generatorURL"], format!("https://desk.example/{fingerprint}"));
        let subject = shown["subject"]["value"].as_str().expect("text");
        assert!(!alert.to_string().contains(subject), "the subject is told: {alert}");
        let ends: jiff::Timestamp = alert["endsAt"].as_str().expect("text").parse().expect("a time");
        let left = ends.as_second() - jiff::Timestamp::now().as_second();
        assert!((900..=1_200).contains(&left), "{left}");
    }
    // A round that was not heard to its end is done again, and has an entry of its own.
    let entries = bench.entries();
    let rounds = 1 + service.log().matches("alerts could not be sent").count();
    assert!((1..=rounds).contains(&entries), "one entry for one round (I6): {entries} for {rounds}");

    let (first, rest) = (open.first().expect("one").clone(), open.iter().skip(1).cloned().collect::<BTreeSet<_>>());
    bench.dismiss(&first.0);
    wait_until("the dismissed one to resolve", || manager.names() == rest);
    // A silence hides what it is about, and no longer than it lasts. Others of the same rule and subject go with it.
    let second = rest.first().expect("one").0.clone();
    succeed(&mut bench.command(&["alerts", "silence", &second, "--by", "ana", "--for", "7d", "known"]));
    let hidden = bench.open();
    assert!(hidden.len() < rest.len());
    wait_until("the silenced one to resolve", || manager.names() == hidden);
    succeed(&mut bench.command(&["alerts", "unsilence", &second, "--by", "ana"]));
    wait_until("it to come back", || manager.names() == rest);
    ends(service);
    succeed(&mut bench.command(&["audit", "verify"]));
}

fn an_alertmanager_that_is_away_and_a_sender_that_is_killed_lose_nothing() {
    let bench = Bench::new();
    let dir = bench.dir.path().join("am");
    let manager = Alertmanager::start(&dir, None);
    let (url, port) = (manager.url.clone(), manager.port());
    drop(manager);
    bench.settings(&format!("http://{url}"), 300);
    let doctor = bench.command(&["doctor"]).output().expect("runs");
    let told = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(told.contains("FAIL  receivers: Alertmanager") && told.contains("cannot be reached"), "{told}");

    // Away when the job starts.
    let service = bench.integrity("log");
    wait_until("two tries", || service.log().matches("alerts could not be sent").count() >= 2);
    assert!(bench.entries() <= 1, "tries that reach nobody do not fill the log");
    let manager = Alertmanager::start(&dir, Some(&port));
    let open = bench.open();
    wait_until("all that is open", || manager.names() == open);

    // Away while something is dismissed; it has forgotten everything when it comes back.
    drop(manager);
    let first = open.first().expect("one").clone();
    bench.dismiss(&first.0);
    wait_until("that it is away to be noticed", || service.log().matches("alerts could not be sent").count() >= 3);
    let manager = Alertmanager::start(&dir, Some(&port));
    ends(service);
    let mut service = bench.integrity("again.log");
    let rest: BTreeSet<_> = open.iter().skip(1).cloned().collect();
    wait_until("the rest", || manager.names() == rest);

    // The sender is killed, and something is dismissed before the next one starts: that still resolves, long before it would by itself.
    service.signal("KILL");
    assert!(!service.ended(Duration::from_secs(60)).success());
    let second = rest.first().expect("one").clone();
    bench.dismiss(&second.0);
    assert!(manager.names().contains(&second), "nobody has told it yet");
    let service = bench.integrity("third.log");
    let rest: BTreeSet<_> = rest.into_iter().skip(1).collect();
    wait_until("what was dismissed meanwhile to resolve", || manager.names() == rest);
    ends(service);
}

fn what_is_open_ends_by_itself_only_when_nobody_sends_any_more() {
    let bench = Bench::new();
    let manager = Alertmanager::start(&bench.dir.path().join("am"), None);
    // What is told once lives for four rounds, a minute; what stays for longer than that was told again. A round may come up to
    // three rounds too late.
    bench.settings(&format!("http://{}", manager.url), 15);
    let open = bench.open();
    let mut service = bench.integrity("log");
    wait_until("all that is open", || manager.names() == open);
    let ends = |manager: &Alertmanager| manager.active().values().map(|a| a["endsAt"].to_string()).max();
    let before = ends(&manager);
    let until = std::time::Instant::now() + Duration::from_secs(65);
    while std::time::Instant::now() < until {
        assert_eq!(manager.names(), open, "it ended although it is told again");
        std::thread::sleep(Duration::from_millis(500));
    }
    assert!(ends(&manager) > before, "it is told again in time");
    service.signal("KILL");
    assert!(!service.ended(Duration::from_secs(60)).success());
    wait_until("all to end", || manager.names().is_empty());
}

fn i6_nothing_is_told_when_the_log_cannot_be_written() {
    let bench = Bench::new();
    let manager = Alertmanager::start(&bench.dir.path().join("am"), None);
    bench.settings(&format!("http://{}", manager.url), 5);
    let mut command = bench.command(&["integrity"]);
    command.env("STARLING_METRICS__LISTEN", "127.0.0.1:0");
    command.env("STARLING_FAIL_AT", "commit appending to the audit log:1:*=EIO");
    let service = Service::start(&mut command, &bench.dir.path().join("log"));
    wait_until("three tries", || service.log().matches("fault point reached").count() >= 3);
    assert!(manager.names().is_empty(), "alerts were told without an entry in the log");
    ends(service);
}

fn one_whose_certificate_is_not_trusted_is_told_nothing_and_one_that_is_trusted_everything() {
    let bench = Bench::new();
    let manager = Alertmanager::start(&bench.dir.path().join("am"), Some("tls"));
    let url = format!("https://{}", manager.url);
    bench.settings(&url, 300);
    let open = bench.open();
    let doctor = bench.command(&["doctor"]).output().expect("runs");
    let told = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(told.contains("FAIL  receivers: Alertmanager") && told.contains("certificate is not trusted"), "{told}");
    let service = bench.integrity("log");
    wait_until("two tries", || service.log().matches("certificate is not trusted").count() >= 2);
    assert!(manager.names().is_empty());
    ends(service);

    let certificate = manager.dir.join("server.crt");
    let mut doctor = bench.command(&["doctor"]);
    let doctor = doctor.env("SSL_CERT_FILE", &certificate).output().expect("runs");
    assert!(String::from_utf8_lossy(&doctor.stdout).contains("ok    receivers: Alertmanager https://127.0.0.1"), "{doctor:?}");
    let mut command = bench.command(&["integrity"]);
    command.env("STARLING_METRICS__LISTEN", "127.0.0.1:0").env("SSL_CERT_FILE", &certificate);
    let service = Service::start(&mut command, &bench.dir.path().join("again.log"));
    wait_until("all that is open", || manager.names() == open);
    // Plain text is not what it falls back to.
    bench.settings(&format!("http://{}", manager.url.replace("127.0.0.1", "alertmanager.example")), 300);
    let checked = bench.command(&["config", "check"]).output().expect("runs");
    assert!(
        !checked.status.success() && String::from_utf8_lossy(&checked.stderr).contains("http beyond this machine"),
        "{checked:?}"
    );
    ends(service);
}
