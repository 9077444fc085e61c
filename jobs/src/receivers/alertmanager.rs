//! One Alertmanager: what is open is told anew every round, with an end of its own; what is over is told as resolved.
//!
//! ```text
//!  feed, from the start ──► candidates ──silences──► open ──► firing, endsAt = now + 4 rounds     labels: alertname, rule, severity,
//!                               │                     │                                             subject_kind, fingerprint
//!                               └── settled, undone ──┴─────► resolved, endsAt = now               annotations: what was seen, …
//! ```
//!
//! Labels name an alert in Alertmanager, so an alert whose severity changes is another one there: the older form is resolved. All of them are
//! from closed lists but the fingerprint, which is a hash. Who is flagged is told by neither labels nor annotations: who needs to know
//! follows the link, through a door that knows him.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::Url;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use serde_json::{Value, json};
use starling_integrity::Alert;
use starling_integrity::work::{Silence, Standing};
use tokio::sync::watch;

use super::settings::{Alerts, address};
use super::{AFTER_FAILURE, Post, failed, is_fenced, rest};
use crate::alerts;
use crate::desk;
use crate::metrics::{Delivered, Receiver};

/// Most alerts in one request.
const AT_ONCE: usize = 256;
/// Most alerts read at once.
const PAGE: u32 = 500;
/// How often is looked for something new.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The longest pause after failures.
const LAST_PAUSE: Duration = Duration::from_secs(30);
/// After so many rounds of silence from us an alert ends by itself.
const ROUNDS_TO_LIVE: i64 = 4;

/// An Alertmanager of the settings.
pub struct Alertmanager {
    /// Where it answers.
    pub base: Url,
    /// Where it says whether it is ready.
    pub ready_url: Url,
    alerts_url: Url,
    resend: Duration,
    link: String,
}

impl Alertmanager {
    /// Reads its settings.
    ///
    /// # Errors
    /// An address that may not be sent to.
    pub fn open(url: &str, settings: &Alerts) -> anyhow::Result<Self> {
        let mut base = address(url, settings.alertmanager.allow_http)
            .map_err(|fault| anyhow::anyhow!("alerts.alertmanager.urls: {fault}"))?;
        // It may answer below a path.
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let alerts_url = base.join("api/v2/alerts")?;
        let ready_url = base.join("-/ready")?;
        let resend = Duration::from_secs(settings.alertmanager.resend_s);
        Ok(Self { base, ready_url, alerts_url, resend, link: settings.link.clone() })
    }

    /// What the metastore calls it.
    fn receiver(&self) -> String {
        format!("alertmanager/{}", self.base)
    }
}

/// Tells until `stop` says so, or another process has taken over.
pub(super) async fn run(to: Arc<Alertmanager>, post: Post, mut stop: watch::Receiver<bool>) {
    let mut told = Told::default();
    let mut pause = AFTER_FAILURE;
    let mut away = false;
    while !*stop.borrow() {
        let round = tokio::select! {
            _ = stop.changed() => return,
            round = told.round(&to, &post, away) => round,
        };
        away = round.is_err();
        match round {
            Ok(()) => {
                pause = AFTER_FAILURE;
                rest(&mut stop, LOOK_EVERY).await;
            }
            Err(error) if is_fenced(&error) => return,
            Err(error) => {
                failed(&post.home, &error.context("Alertmanager"));
                rest(&mut stop, pause).await;
                pause = LAST_PAUSE.min(pause * 2);
            }
        }
    }
}

/// What is known of an alert that somebody should look at unless a silence hides it.
struct Candidate {
    alert: Alert,
    standing: Standing,
}

/// What was read, what this Alertmanager has heard of it, and what it has yet to hear.
#[derive(Default)]
struct Told {
    read_to: i64,
    /// What stands before this in the feed and is over was told as such before this process began.
    over_before: Option<i64>,
    place: i64,
    candidates: BTreeMap<String, Candidate>,
    /// The severity under which it is firing there.
    firing: HashMap<String, String>,
    changed: BTreeSet<String>,
    over: BTreeMap<(String, String), Value>,
    last_round: Option<Instant>,
}

impl Told {
    async fn round(&mut self, to: &Alertmanager, post: &Post, away: bool) -> anyhow::Result<()> {
        let (home, receiver) = (&post.home, to.receiver());
        let over_before = match self.over_before {
            Some(position) => position,
            None => {
                let Some(known) = home.metastore.receiver(&receiver).await? else {
                    return Ok(home.metastore.queue_deliveries(post.generation, &receiver, 0, &[], home.clock.now_ms()).await?);
                };
                self.place = known.position;
                *self.over_before.insert(known.position.max(known.began_at))
            }
        };
        loop {
            let page = desk::page(home, self.read_to, PAGE).await?;
            let Some(last) = page.last() else { break };
            let read_to = last.record.position;
            for entry in page {
                let standing = entry.work.map(|work| work.standing).unwrap_or_default();
                self.read(entry.alert, standing, entry.record.position > over_before, to, home.clock.now_ms());
            }
            self.read_to = read_to;
        }
        let silences = desk::silences(home).await?;
        let now_ms = home.clock.now_ms();
        let open = self.open(&silences, to, now_ms);
        let due = self.last_round.is_none_or(|last| last.elapsed() >= to.resend);
        let ends_ms = now_ms.saturating_add(ROUNDS_TO_LIVE * i64::try_from(to.resend.as_millis()).unwrap_or(i64::MAX / 8));
        let mut tell: Vec<Value> = open
            .iter()
            .filter(|fingerprint| due || self.changed.contains(*fingerprint))
            .filter_map(|fingerprint| self.candidates.get(fingerprint))
            .map(|candidate| shown(&candidate.alert, &candidate.alert.severity, &to.link, now_ms, ends_ms))
            .collect();
        tell.extend(self.over.values().cloned());
        if !tell.is_empty() {
            if away {
                // An entry in the log for every try would fill it while nobody hears anything.
                post.wire.ask(&to.ready_url).await?;
            }
            alerts::record_read(home, "alertmanager", None).await?;
            for part in tell.chunks(AT_ONCE) {
                let sent = post.wire.post(&to.alerts_url, headers(), Value::from(part).to_string()).await;
                let counted = if sent.is_ok() { Delivered::Arrived } else { Delivered::Failed };
                home.metrics.delivery(Receiver::Alertmanager, counted);
                sent?;
            }
        }
        for fingerprint in &open {
            if let Some(candidate) = self.candidates.get(fingerprint) {
                self.firing.insert(fingerprint.clone(), candidate.alert.severity.clone());
            }
        }
        self.changed.clear();
        self.over.clear();
        if due {
            self.last_round = Some(Instant::now());
        }
        if self.place < self.read_to {
            home.metastore.queue_deliveries(post.generation, &receiver, self.read_to, &[], now_ms).await?;
            self.place = self.read_to;
        }
        Ok(())
    }

    /// Takes in an alert of the feed. `news`: that it is over may not have been told.
    fn read(&mut self, alert: Alert, standing: Standing, news: bool, to: &Alertmanager, now_ms: i64) {
        let fingerprint = alert.fingerprint.clone();
        if alert.stands() && standing.wants_attention(alert.evidence, None, now_ms) {
            self.changed.insert(fingerprint.clone());
            self.candidates.insert(fingerprint, Candidate { alert, standing });
            return;
        }
        self.candidates.remove(&fingerprint);
        if self.firing.contains_key(&fingerprint) {
            self.end(&alert, to, now_ms);
        } else if news {
            let key = (fingerprint, alert.severity.clone());
            self.over.insert(key, shown(&alert, &alert.severity, &to.link, now_ms, now_ms));
        }
    }

    /// The fingerprints of what is firing now. What is firing there and not here, or under another severity, is to be told as over.
    fn open(&mut self, silences: &[Silence], to: &Alertmanager, now_ms: i64) -> Vec<String> {
        let silences: HashMap<_, _> =
            silences.iter().map(|s| ((s.rule.as_str(), s.subject_kind.as_str(), s.subject.as_str()), s)).collect();
        let mut open = Vec::new();
        let mut ended = Vec::new();
        for (fingerprint, candidate) in &self.candidates {
            let Candidate { alert, standing } = candidate;
            let silence = silences.get(&(alert.rule.as_str(), alert.subject.kind.as_str(), alert.subject.value.as_str()));
            let fires = standing.wants_attention(alert.evidence, silence.copied(), now_ms);
            let there = self.firing.get(fingerprint);
            if fires {
                open.push(fingerprint.clone());
                self.over.remove(&(fingerprint.clone(), alert.severity.clone()));
            }
            if fires && there.is_none() {
                self.changed.insert(fingerprint.clone());
            }
            if there.is_some_and(|severity| !fires || *severity != alert.severity) {
                ended.push(alert.clone());
            }
        }
        for alert in ended {
            self.end(&alert, to, now_ms);
        }
        open
    }

    /// What is firing there of an alert is over.
    fn end(&mut self, alert: &Alert, to: &Alertmanager, now_ms: i64) {
        if let Some(severity) = self.firing.remove(&alert.fingerprint) {
            let value = shown(alert, &severity, &to.link, now_ms, now_ms);
            self.over.insert((alert.fingerprint.clone(), severity), value);
            self.changed.insert(alert.fingerprint.clone());
        }
    }
}

fn headers() -> HeaderMap {
    HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))])
}

/// Counts of people or signals under ten are not told.
fn count(number: u64) -> String {
    if number < 10 { "<10".to_owned() } else { number.to_string() }
}

fn time(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| "1970-01-01T00:00:00Z".to_owned(), |time| time.to_string())
}

/// An alert as Alertmanager takes it.
fn shown(alert: &Alert, severity: &str, link: &str, now_ms: i64, ends_ms: i64) -> Value {
    let mut annotations = BTreeMap::from([
        ("summary", alert.explanation.clone()),
        (
            "seen",
            format!(
                "{}, where the rule fires at {}; {} signals behind it",
                count(alert.observed),
                alert.threshold,
                count(alert.evidence)
            ),
        ),
        ("window", format!("{} to {}", time(alert.window.start_ms), time(alert.window.end_ms))),
        ("rule_version", alert.rule_version.to_string()),
    ]);
    if let Some(value) = alert.baseline.value {
        annotations.insert("baseline", format!("{value} ({}), {} times", alert.baseline.kind, alert.factor));
    }
    for (name, lines) in [("speaks_for_it", &alert.counter_evidence), ("not_known", &alert.data_gaps)] {
        if !lines.is_empty() {
            annotations.insert(name, lines.join("; "));
        }
    }
    // It must not begin after it ends, whatever the clock of the events said.
    let mut value = json!({
        "labels": {
            "alertname": alert.rule,
            "rule": alert.rule,
            "severity": severity,
            "subject_kind": alert.subject.kind,
            "fingerprint": alert.fingerprint,
        },
        "startsAt": time(alert.first_ms.min(now_ms)),
        "endsAt": time(ends_ms),
    });
    if !link.is_empty() {
        let link = link.replace("{alert}", &alert.fingerprint);
        value["generatorURL"] = link.as_str().into();
        annotations.insert("link", link);
    }
    value["annotations"] = json!(annotations);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(severity: &str, observed: u64, evidence: u64) -> Alert {
        serde_json::from_value(json!({
            "fingerprint": "00112233445566778899aabbccddeeff", "rule": "business_blocks", "rule_version": 2, "severity": severity,
            "subject": { "kind": "business", "value": "zebra-lantern", "epoch": null },
            "window": { "start_ms": 0, "end_ms": 3_600_000 }, "observed": observed, "threshold": 20,
            "baseline": { "kind": "own", "value": 2.5 }, "factor": 16.0, "evidence": evidence,
            "counter_evidence": ["<10 answered"], "explanation": "40 blocks in an hour", "data_gaps": ["one partition is late"],
            "first_ms": 1_000, "last_ms": 3_600_000, "revision": 3,
        }))
        .expect("an alert")
    }

    fn manager() -> Alertmanager {
        let settings = Alerts {
            topic: String::new(),
            link: "https://desk.example/alerts/{alert}".into(),
            look_every_s: 30,
            alertmanager: super::super::settings::AlertmanagerSettings { urls: Vec::new(), resend_s: 60, allow_http: false },
            webhooks: BTreeMap::new(),
            standing: BTreeMap::new(),
        };
        Alertmanager::open("https://am.example/below", &settings).expect("good")
    }

    /// What is heard there after a round that succeeded.
    fn heard(told: &mut Told, open: &[String]) {
        for fingerprint in open {
            let severity = told.candidates[fingerprint].alert.severity.clone();
            told.firing.insert(fingerprint.clone(), severity);
        }
        told.changed.clear();
        told.over.clear();
    }

    #[test]
    fn i4_p25_an_alert_is_shown_without_its_subject_and_small_counts_are_not_told() {
        let to = manager();
        assert_eq!(to.alerts_url.as_str(), "https://am.example/below/api/v2/alerts");
        let value = shown(&alert("high", 40, 7), "high", &to.link, 5_000_000, 9_000_000);
        assert!(!value.to_string().contains("zebra-lantern"), "{value}");
        insta::with_settings!({ snapshot_path => "../snapshots", prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!("alertmanager_alert", serde_json::to_string_pretty(&value).expect("JSON"));
        });
        let early = shown(&alert("high", 40, 7), "high", "", 500, 500);
        assert_eq!(early["startsAt"], early["endsAt"], "it does not begin after it ends");
    }

    #[test]
    fn what_is_closed_undone_silenced_or_of_another_severity_is_told_as_over_once_it_was_firing() {
        let to = manager();
        let dismissed =
            Standing { state: starling_integrity::work::State::False, decided_evidence: Some(40), ..Standing::default() };
        let mut told = Told::default();
        told.read(alert("high", 40, 40), dismissed.clone(), false, &to, 1);
        assert!(told.open(&[], &to, 1).is_empty() && told.over.is_empty(), "it was over before this process began");
        told.read(alert("high", 40, 40), dismissed.clone(), true, &to, 1);
        assert_eq!(told.over.len(), 1, "that it is over may not have been heard");
        told.read(alert("high", 40, 40), Standing::default(), true, &to, 1);
        let open = told.open(&[], &to, 1);
        assert!(open.len() == 1 && told.over.is_empty() && told.changed.len() == 1, "it is open again");
        heard(&mut told, &open);

        told.read(alert("critical", 90, 90), Standing::default(), true, &to, 2);
        let open = told.open(&[], &to, 2);
        assert_eq!(told.over.keys().map(|(_, severity)| severity.as_str()).collect::<Vec<_>>(), ["high"], "the older form");
        assert!(open.len() == 1 && told.changed.len() == 1);
        heard(&mut told, &open);

        let silence = Silence {
            rule: "business_blocks".into(),
            subject_kind: "business".into(),
            subject: "zebra-lantern".into(),
            owner: "ana".into(),
            text: "known".into(),
            evidence: 90,
            until_ms: 100,
        };
        assert!(told.open(std::slice::from_ref(&silence), &to, 3).is_empty());
        assert_eq!(told.over.len(), 1, "silenced");
        heard(&mut told, &[]);
        let open = told.open(&[silence], &to, 100);
        assert!(open.len() == 1 && told.changed.len() == 1, "the silence has ended by itself");
        heard(&mut told, &open);

        told.read(alert("critical", 19, 95), Standing::default(), true, &to, 101);
        assert!(told.open(&[], &to, 101).is_empty());
        assert_eq!(told.over.len(), 1, "late signals have undone it");
        assert_eq!(told.over.values().next().expect("one")["endsAt"], "1970-01-01T00:00:00.101Z");
    }
}
