//! I6, I9: alerts on their way to signed webhooks: receivers that fail, hang, lie or are gone, and a sender that is killed or whose disk fails.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::service::{Service, wait_until};
use crate::support::{alerts, fail, run_trace, simulate, starling, succeed};

const KEY: [u8; 32] = *b"a key of thirty-two bytes, no le";
/// An answer that never comes.
const HANGS: u16 = 0;

/// One request as it arrived.
#[derive(Debug, Clone)]
struct Heard {
    at_s: u64,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Heard {
    fn id(&self) -> &str {
        &self.headers["webhook-id"]
    }

    /// Fails unless the body was signed under [`KEY`] with this id, shortly before it arrived.
    fn verify(&self) {
        let timestamp = &self.headers["webhook-timestamp"];
        let sent_s: u64 = timestamp.parse().expect("seconds");
        assert!(self.at_s.abs_diff(sent_s) < 300, "{timestamp}");
        let signature = self.headers["webhook-signature"].strip_prefix("v1,").expect("version 1");
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &KEY);
        let signed = format!("{}.{timestamp}.{}", self.id(), self.body);
        ring::hmac::verify(&key, signed.as_bytes(), &STANDARD.decode(signature).expect("base64")).expect("signed by us");
    }
}

/// A receiver that writes down what it hears, and answers every request with the status it is told.
struct Receiver {
    address: String,
    heard: Arc<Mutex<Vec<Heard>>>,
    answer: Arc<AtomicU16>,
}

impl Receiver {
    /// `elsewhere` is where a redirect leads.
    fn start(answer: u16, elsewhere: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = listener.local_addr().expect("bound").to_string();
        let receiver = Self { address, heard: Arc::default(), answer: Arc::new(AtomicU16::new(answer)) };
        let (heard, answer, elsewhere) = (Arc::clone(&receiver.heard), Arc::clone(&receiver.answer), elsewhere.to_owned());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (heard, answer, elsewhere) = (Arc::clone(&heard), Arc::clone(&answer), elsewhere.clone());
                std::thread::spawn(move || serve(stream, &heard, answer.load(Ordering::SeqCst), &elsewhere));
            }
        });
        receiver
    }

    fn heard(&self) -> Vec<Heard> {
        self.heard.lock().expect("heard").clone()
    }

    fn ids(&self) -> BTreeSet<String> {
        self.heard().iter().map(|h| h.id().to_owned()).collect()
    }
}

fn serve(stream: TcpStream, heard: &Mutex<Vec<Heard>>, answer: u16, elsewhere: &str) {
    let mut reader = BufReader::new(&stream);
    let mut headers = BTreeMap::new();
    let mut line = String::new();
    let _ = reader.read_line(&mut line);
    let is_post = line.starts_with("POST ");
    loop {
        line.clear();
        if reader.read_line(&mut line).unwrap_or(0) <= 2 {
            break;
        }
        let (name, value) = line.split_once(':').expect("a header");
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let mut body = vec![0; headers.get("content-length").and_then(|n| n.parse().ok()).unwrap_or(0)];
    reader.read_exact(&mut body).expect("a body");
    if is_post {
        let at_s = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        heard.lock().expect("heard").push(Heard { at_s, headers, body: String::from_utf8(body).expect("text") });
    }
    if answer == HANGS {
        std::thread::sleep(Duration::from_secs(600));
    }
    let _ =
        write!(&stream, "HTTP/1.1 {answer} x\r\nLocation: http://{elsewhere}/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
}

/// A data directory with alerts, and settings that name receivers.
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
        assert!(alerts(&data).len() >= 3);
        std::fs::write(dir.path().join("key"), format!("whsec_{}\n", STANDARD.encode(KEY))).expect("key");
        Self { dir, data, settings }
    }

    /// Settings with these receivers: name, address, tries.
    fn receivers(&self, receivers: &[(&str, &str, u32)]) {
        let key = self.dir.path().join("key");
        let one = |(name, address, tries): &(&str, &str, u32)| {
            format!(
                "[alerts.webhooks.{name}]\nurl = \"http://{address}/in\"\nsecret_file = \"{}\"\ntries = {tries}\n",
                key.display()
            )
        };
        std::fs::write(&self.settings, receivers.iter().map(one).collect::<String>()).expect("settings");
    }

    fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = starling();
        command.args(arguments).arg("--config").arg(&self.settings).arg("--data-dir").arg(&self.data);
        command
    }

    fn integrity(&self, log: &str, fault: Option<&str>) -> Service {
        let mut command = self.command(&["integrity"]);
        command.env("STARLING_METRICS__LISTEN", "127.0.0.1:0");
        if let Some(fault) = fault {
            command.env("STARLING_FAIL_AT", fault);
        }
        Service::start(&mut command, &self.dir.path().join(log))
    }

    /// The ids under which the feed as it is now goes out.
    fn expected(&self) -> BTreeSet<String> {
        let id = |alert: &Value| format!("{}-{}", alert["fingerprint"].as_str().expect("text"), alert["position"]);
        alerts(&self.data).iter().map(id).collect()
    }

    fn listed(&self, more: &[&str]) -> Vec<Value> {
        let text = succeed(self.command(&["alerts", "deliveries", "--json"]).args(more));
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    fn log(&self) -> String {
        succeed(starling().args(["audit", "verify", "--data-dir"]).arg(&self.data));
        succeed(starling().args(["audit", "tail", "--lines", "1000", "--data-dir"]).arg(&self.data))
    }
}

fn ends(mut service: Service) {
    service.signal("TERM");
    assert!(service.ended(Duration::from_secs(60)).success(), "{}", service.log());
}

/// Waits until so many attempts at webhooks are told to have ended so. One is counted a moment after it is noted.
fn counted(service: &mut Service, outcome: &str, count: usize) {
    let line = format!("alert_deliveries_total{{receiver=\"webhook\",outcome=\"{outcome}\"}} {count}");
    wait_until(&line, || service.get("/metrics").1.contains(&line));
}

/// How often a log says that something went wrong with a receiver: so often may an alert be heard and sent again, rightly.
fn troubles(log: &str, receiver: &str) -> usize {
    log.lines().filter(|line| line.contains(receiver)).count()
}

#[test]
fn i6_alerts_reach_a_webhook_signed_and_as_the_feed_shows_them_and_each_change_follows() {
    let bench = Bench::new();
    let receiver = Receiver::start(204, "");
    bench.receivers(&[("siem", &receiver.address, 20)]);
    let doctor = bench.command(&["doctor"]).output().expect("runs");
    assert!(String::from_utf8_lossy(&doctor.stdout).contains("ok    receivers: webhook `siem` answers"), "{doctor:?}");
    assert!(receiver.heard().is_empty(), "the doctor tells no alert");
    let mut service = bench.integrity("log", None);
    let expected = bench.expected();
    wait_until("every alert", || receiver.ids() == expected);
    let feed = alerts(&bench.data);
    for heard in receiver.heard() {
        heard.verify();
        assert_eq!(heard.headers["content-type"], "application/cloudevents+json");
        let event: Value = serde_json::from_str(&heard.body).expect("JSON");
        assert_eq!((&event["specversion"], &event["type"]), (&"1.0".into(), &"starling.integrity.alert.v1".into()));
        assert_eq!(event["id"], heard.id());
        assert!(feed.contains(&event["data"]), "not as the feed shows it: {event}");
    }
    let first = feed[0]["fingerprint"].as_str().expect("text").to_owned();
    succeed(bench.command(&["alerts", "take", &first, "--by", "ana"]).arg("--quiet"));
    succeed(bench.command(&["alerts", "dismiss", &first, "--by", "ana", "--reason", "legitimate_use"]).arg("--quiet"));
    let is_dismissed = |heard: &Heard| {
        let event: Value = serde_json::from_str(&heard.body).expect("JSON");
        event["data"]["fingerprint"] == *first && event["data"]["work"]["state"] == "false"
    };
    wait_until("what was done about it", || receiver.heard().iter().any(is_dismissed));
    wait_until("nothing waits", || bench.listed(&[]).is_empty());
    counted(&mut service, "delivered", receiver.ids().len());
    let log = service.log();
    ends(service);
    assert!(!log.contains(&STANDARD.encode(KEY)) && !log.contains(&first), "{log}");
    assert!(bench.log().contains("webhook/siem"), "{}", bench.log());
}

#[test]
fn i9_a_receiver_that_fails_gets_the_same_again_and_holds_up_nobody() {
    let bench = Bench::new();
    let (failing, hanging, good) = (Receiver::start(503, ""), Receiver::start(HANGS, ""), Receiver::start(200, ""));
    bench.receivers(&[
        ("failing", &failing.address, 20),
        // A port that no test is given, so that nobody answers at it.
        ("gone", "127.0.0.1:1", 20),
        ("good", &good.address, 20),
        ("hanging", &hanging.address, 20),
    ]);
    let expected = bench.expected();
    let service = bench.integrity("log", None);
    wait_until("the good one hears all", || good.ids() == expected);
    wait_until("the failing one is tried again", || failing.heard().len() > expected.len() + 1);
    assert!(bench.listed(&[]).iter().any(|d| d["fault"] == "HTTP 503" && d["receiver"] == "webhook/failing"));
    failing.answer.store(200, Ordering::SeqCst);
    wait_until("the failing one has all", || bench.listed(&[]).iter().all(|d| d["receiver"] != "webhook/failing"));
    let mut bodies = BTreeMap::new();
    for heard in failing.heard() {
        heard.verify();
        let body = bodies.entry(heard.id().to_owned()).or_insert_with(|| heard.body.clone());
        assert_eq!(*body, heard.body, "the same id, another body");
    }
    assert_eq!(bodies.into_keys().collect::<BTreeSet<_>>(), expected);
    assert!(bench.listed(&[]).iter().any(|d| d["receiver"] == "webhook/gone" && d["fault"] == "cannot be reached"));
    assert!(bench.listed(&["--dead"]).is_empty());
    let (heard, log) = (good.heard().len(), service.log());
    assert!(heard <= expected.len() + troubles(&log, "webhook/good"), "each once where nothing fails: {log}");
    // It ends in time although a receiver hangs.
    ends(service);
}

#[test]
fn what_was_given_up_is_listed_and_sent_again_and_no_redirect_is_followed() {
    let bench = Bench::new();
    let elsewhere = Receiver::start(200, "");
    let (lying, over) = (Receiver::start(307, &elsewhere.address), Receiver::start(410, ""));
    bench.receivers(&[("lying", &lying.address, 2), ("over", &over.address, 20)]);
    let expected = bench.expected();
    let mut service = bench.integrity("log", None);
    wait_until("all are given up", || bench.listed(&["--dead"]).len() == 2 * expected.len());
    assert!(elsewhere.heard().is_empty(), "a redirect was followed");
    assert_eq!((lying.heard().len(), over.heard().len()), (2 * expected.len(), expected.len()));
    let dead = succeed(&mut bench.command(&["alerts", "deliveries", "--dead"]));
    assert!(
        dead.contains("it answered with a redirect (HTTP 307), which is not followed") && dead.contains("HTTP 410"),
        "{dead}"
    );
    assert!(bench.listed(&[]).is_empty());
    let count = 2 * expected.len();
    counted(&mut service, "dead", count);

    let doctor = bench.command(&["doctor"]).output().expect("runs");
    let told = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(told.contains(&format!("FAIL  receivers: {count} deliveries of alerts were given up")), "{told}");

    // At each point of its transaction the disk fails: sent again and in the log, or neither.
    lying.answer.store(200, Ordering::SeqCst);
    let one = expected.first().expect("one").clone();
    for (point, done) in [("begin", false), ("commit", false), ("committed", true)] {
        let mut resend = bench.command(&["alerts", "resend", &one, "--to", "lying", "--by", "ana"]);
        fail(resend.env("STARLING_FAIL_AT", format!("{point} sending deliveries again=EIO")));
        assert_eq!(bench.log().matches("alerts_sent_again").count(), usize::from(done), "{point}");
    }
    wait_until("it arrives", || bench.listed(&["--dead"]).len() == count - 1);
    succeed(&mut bench.command(&["alerts", "resend", "--all", "--to", "lying", "--by", "ana"]));
    wait_until("the others arrive", || bench.listed(&["--dead"]).len() == expected.len() && bench.listed(&[]).is_empty());
    assert_eq!(lying.ids(), expected, "under their first ids");
    let none = fail(&mut bench.command(&["alerts", "resend", &one, "--to", "lying", "--by", "ana"]));
    assert!(none.contains("nothing such was given up"), "{none}");
    ends(service);
}

#[test]
fn i9_a_sender_that_is_killed_leaves_nothing_out() {
    let bench = Bench::new();
    let receiver = Receiver::start(HANGS, "");
    bench.receivers(&[("siem", &receiver.address, 20)]);
    let expected = bench.expected();
    let mut service = bench.integrity("log", None);
    wait_until("the first is on its way", || !receiver.heard().is_empty());
    service.signal("KILL");
    assert!(!service.ended(Duration::from_secs(60)).success());
    let killed = service.log();
    receiver.answer.store(200, Ordering::SeqCst);
    let service = bench.integrity("again.log", None);
    wait_until("every alert", || receiver.ids() == expected && bench.listed(&[]).is_empty());
    let ids: Vec<_> = receiver.heard().iter().map(|h| h.id().to_owned()).collect();
    let first = ids.iter().filter(|id| **id == ids[0]).count();
    assert!(first >= 2, "what was on its way came again: {ids:?}");
    let most = expected.len() + 1 + troubles(&killed, "webhook/siem") + troubles(&service.log(), "webhook/siem");
    assert!(ids.len() <= most, "only what was on its way came twice: {ids:?}");
    ends(service);
}

#[test]
fn i9_of_two_processes_one_sends_and_the_other_goes_on_when_that_is_gone() {
    let bench = Bench::new();
    let receiver = Receiver::start(200, "");
    bench.receivers(&[("siem", &receiver.address, 20)]);
    let first = bench.integrity("first.log", None);
    // Heard is not yet noted: what is heard and not noted may be sent again by the next one, rightly.
    wait_until("every alert", || receiver.ids() == bench.expected() && bench.listed(&[]).is_empty());
    let mut second = bench.integrity("second.log", None);
    wait_until("the first to stand by", || first.log().contains("this one stands by"));
    let fingerprint = alerts(&bench.data)[0]["fingerprint"].as_str().expect("text").to_owned();
    let before = receiver.ids().len();
    succeed(&mut bench.command(&["alerts", "take", &fingerprint, "--by", "ana"]));
    wait_until("the second to send", || receiver.ids().len() == before + 1 && bench.listed(&[]).is_empty());
    second.signal("KILL");
    assert!(!second.ended(Duration::from_secs(60)).success());
    succeed(&mut bench.command(&["alerts", "note", &fingerprint, "--by", "ana", "a campaign"]));
    wait_until("the first to go on", || receiver.ids().len() == before + 2);
    let ids: Vec<_> = receiver.heard().iter().map(|h| h.id().to_owned()).collect();
    let most = before + 2 + troubles(&first.log(), "webhook/siem") + troubles(&second.log(), "webhook/siem");
    assert!(ids.len() <= most, "each once where nothing fails: {ids:?}");
    ends(first);
}

#[test]
fn i9_a_transaction_of_the_sender_that_fails_changes_nothing_that_arrives() {
    let bench = Bench::new();
    let kept = bench.dir.path().join("kept");
    copy(&bench.data, &kept);
    for during in ["taking the sending of alerts", "keeping the sending of alerts", "queueing deliveries", "noting a delivery"] {
        for point in starling_store::faultpoint::STEPS {
            std::fs::remove_dir_all(&bench.data).expect("removes");
            copy(&kept, &bench.data);
            let receiver = Receiver::start(200, "");
            bench.receivers(&[("siem", &receiver.address, 20)]);
            let expected = bench.expected();
            let service = bench.integrity("log", Some(&format!("{point} {during}=EIO")));
            wait_until("every alert", || receiver.ids() == expected && bench.listed(&[]).is_empty());
            wait_until("the point", || service.log().contains("fault point reached"));
            ends(service);
            bench.log();
        }
    }
}

#[test]
fn i6_nothing_is_sent_when_the_log_cannot_be_written() {
    let bench = Bench::new();
    let receiver = Receiver::start(200, "");
    bench.receivers(&[("siem", &receiver.address, 20)]);
    // The first queueing only makes the receiver known.
    let service = bench.integrity("log", Some("commit queueing deliveries:2:*=EIO"));
    wait_until("three tries", || service.log().matches("fault point reached").count() >= 3);
    assert!(receiver.heard().is_empty(), "an alert was sent without an entry in the log");
    assert!(bench.listed(&[]).is_empty());
    ends(service);
}

#[test]
fn i4_keys_and_addresses_are_checked_before_a_job_starts_and_no_key_is_shown() {
    let bench = Bench::new();
    bench.receivers(&[("siem", "127.0.0.1:9", 20)]);
    let shown = succeed(&mut bench.command(&["config", "show"]));
    assert!(shown.contains(&bench.dir.path().join("key").display().to_string()) && !shown.contains(&STANDARD.encode(KEY)));
    succeed(&mut bench.command(&["config", "check"]));
    let doctor = bench.command(&["doctor"]).output().expect("runs");
    let told = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(!doctor.status.success() && told.contains("FAIL  receivers: webhook `siem`: cannot be reached"), "{told}");

    std::fs::write(bench.dir.path().join("key"), "whsec_aHVudGVyMg==\n").expect("key");
    for arguments in [&["config", "check"][..], &["integrity"]] {
        let text = fail(&mut bench.command(arguments));
        assert!(text.contains("alerts.webhooks.siem.secret_file") && text.contains(":1: no key"), "{text}");
        assert!(!text.contains("aHVu"), "{text}");
    }
    let plain = std::fs::read_to_string(&bench.settings).expect("settings").replace("127.0.0.1:9", "siem.example");
    std::fs::write(&bench.settings, plain).expect("settings");
    let text = fail(&mut bench.command(&["config", "check"]));
    assert!(text.contains("alerts.webhooks.siem.url: http beyond this machine") && text.contains("allow_http"), "{text}");
}

fn copy(from: &Path, to: &Path) {
    let done = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp");
    assert!(done.success());
}
