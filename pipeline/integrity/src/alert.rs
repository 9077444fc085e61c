//! Alerts: what was seen, over which window, against what, by which rule. Never a recipient, never a reporter.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Who is flagged.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Subject {
    /// `person`, `business` or `group`; of what is done to the pipeline itself `pipeline` or `principal`.
    pub kind: String,
    /// A business's identifier; for a person or group its keyed form in hex, which dies with the day's integrity key; the name of a source, a door or
    /// a user of the staff.
    pub value: String,
    /// Day of the key the keyed form is under, `YYYY-MM-DD`; null for all others.
    pub epoch: Option<String>,
}

/// When it was seen, in event time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenWindow {
    /// Milliseconds since 1970-01-01 UTC.
    pub start_ms: i64,
    /// Milliseconds since 1970-01-01 UTC.
    pub end_ms: i64,
}

/// What it is held against.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// `own`: the subject's own past. `segment`: what others of its kind do. `rule`: the rule's fixed threshold alone.
    pub kind: String,
    /// In the unit of `observed`; null where there is none.
    pub value: Option<f64>,
}

/// One alert: one rule on one subject. It grows while the behaviour goes on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// The same for the same rule and subject, whatever order signals came in.
    pub fingerprint: String,
    /// The rule that fired.
    pub rule: String,
    /// Its version.
    pub rule_version: u32,
    /// `low`, `medium`, `high` or `critical`.
    pub severity: String,
    /// Who is flagged.
    pub subject: Subject,
    /// The fullest window.
    pub window: SeenWindow,
    /// What was seen in it: messages, people, blocks and reports, or members. Of people a lower bound.
    pub observed: u64,
    /// From where on the rule fires.
    pub threshold: u64,
    /// What it is held against.
    pub baseline: Baseline,
    /// `observed` over the baseline, or over the threshold where there is none.
    pub factor: f64,
    /// Signals behind it.
    pub evidence: u64,
    /// What speaks for the subject, or limits what is known.
    pub counter_evidence: Vec<String>,
    /// A sentence for whoever is woken by it.
    pub explanation: String,
    /// What was missing when it was judged.
    pub data_gaps: Vec<String>,
    /// Start of the first window in which the rule held.
    pub first_ms: i64,
    /// End of the last one.
    pub last_ms: i64,
    /// How often it has been told, from 1.
    pub revision: u32,
    /// Whether it is told once more because it does not hold any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub withdrawn: bool,
    /// Decimal logarithm of the e-value of what was seen, in tenths: what speaks against the subject, by a rule that states a model of where nothing is
    /// wrong (`evidence`). None where the rule states none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub e_value_log10: Option<f64>,
}

impl Alert {
    /// Whether the rule still holds. Signals that come late can undo what a share or a rate was judged on, and so can another version of a
    /// written rule; then the alert is told once more, with its numbers as they are now.
    #[must_use]
    pub fn stands(&self) -> bool {
        !self.withdrawn && self.observed >= self.threshold
    }
}

/// Counts of people or events under ten are not told.
pub(crate) fn small(n: u32) -> String {
    if n < 10 { "<10".to_owned() } else { n.to_string() }
}

/// The fingerprint of a rule on a subject. A keyed subject belongs to one day already; a business's is told apart by `day`.
pub(crate) fn fingerprint(rule: &str, subject: &Subject, day: i32) -> String {
    of_parts(&[rule, &subject.kind, &subject.value], day)
}

/// The same where a subject has parts that are told apart.
pub(crate) fn fingerprint_of_part(rule: &str, subject: &Subject, part: &str, day: i32) -> String {
    of_parts(&[rule, &subject.kind, &subject.value, part], day)
}

fn of_parts(parts: &[&str], day: i32) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.update(&day.to_le_bytes());
    hex(&hasher.finalize().as_bytes()[..16])
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|b| [DIGITS[usize::from(b >> 4)] as char, DIGITS[usize::from(b & 15)] as char]).collect()
}

/// The alert as a CloudEvents 1.0 JSON event. `id` is fingerprint and revision: a reader drops what it has seen by it.
#[must_use]
pub fn cloud_event(alert: &Alert) -> Value {
    let time =
        jiff::Timestamp::from_millisecond(alert.last_ms).map_or_else(|_| "1970-01-01T00:00:00Z".to_owned(), |t| t.to_string());
    json!({
        "specversion": "1.0",
        "id": format!("{}-{}", alert.fingerprint, alert.revision),
        "source": "/starling/integrity",
        "type": "starling.integrity.alert.v1",
        "subject": format!("{}/{}", alert.subject.kind, alert.subject.value),
        "time": time,
        "datacontenttype": "application/json",
        "data": alert,
    })
}

/// The same event in Kafka's binary content mode: these headers, beside a value that is the alert alone.
#[must_use]
pub fn cloud_event_headers(alert: &Alert) -> Vec<(String, String)> {
    let event = cloud_event(alert);
    let attributes = event.as_object().into_iter().flatten().filter(|(name, _)| *name != "data");
    let header = |(name, value): (&String, &Value)| {
        let name = if name == "datacontenttype" { "content-type".to_owned() } else { format!("ce_{name}") };
        (name, value.as_str().unwrap_or_default().to_owned())
    };
    attributes.map(header).collect()
}
