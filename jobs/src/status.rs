//! `starling status`: what the data directory holds, in numbers an engineer may see.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;
use starling_schemas::ids::{EpochId, Span};
use starling_store::{AuditEntry, KeyState};

use crate::home::Home;

/// The state of a data directory.
#[derive(Debug, Serialize)]
pub struct Status {
    pub partitions: Vec<Partition>,
    /// Events by what became of them, over all partitions and windows.
    pub outcomes: BTreeMap<String, u64>,
    pub windows: Vec<Window>,
    pub keys: Vec<Key>,
    pub alerts: usize,
    /// Partitions whose events do not add up (I1): must be empty.
    pub unbalanced: Vec<String>,
    /// Why ingest stopped, if it did and has committed nothing since.
    pub stopped: Option<Stopped>,
}

#[derive(Debug, Serialize)]
pub struct Stopped {
    pub at: String,
    pub topic: String,
    pub reason: String,
}

#[derive(Debug, Serialize)]
pub struct Partition {
    pub partition: String,
    pub owner: String,
    pub generation: i64,
    pub next_offset: i64,
    /// Events between our offset and the partition's end, where known.
    pub lag: Option<i64>,
    pub watermark: Option<String>,
    pub events: u64,
    pub open_plan: bool,
}

#[derive(Debug, Serialize)]
pub struct Window {
    /// A day as `2026-01-05`, an hour as `hour-2026-01-05T13`, or `week-2026-01-05` or `month-2026-01-05` by its first day.
    pub window: String,
    pub state: String,
    /// Events by outcome, all partitions together.
    pub outcomes: BTreeMap<String, u64>,
    pub expired: bool,
    /// Of an hour: events that were counted for their day and came too late for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missed: Option<u64>,
}

#[derive(Debug, Serialize)]
pub struct Key {
    pub key: String,
    pub state: String,
}

/// Reads it.
///
/// # Errors
/// When metastore or keyring cannot be read.
pub async fn collect(home: &Home) -> anyhow::Result<Status> {
    let counts = home.metastore.counts().await?;
    let mut outcomes: BTreeMap<String, u64> = BTreeMap::new();
    for row in &counts {
        *outcomes.entry(row.outcome.label().to_owned()).or_default() += row.events;
    }
    let partitions = home.metastore.partitions().await?;
    let stopped = home.metastore.last_audit(starling_ingest::STOPPED).await?.and_then(|entry| {
        let text = |key: &str| entry.detail[key].as_str().unwrap_or_default().to_owned();
        let topic = text("topic");
        let since = partitions.iter().filter(|p| p.partition.source == topic).map(|p| p.last_commit_ms).max();
        let over = since.is_some_and(|commit| commit > entry.at_ms);
        (!over).then(|| Stopped { at: timestamp(entry.at_ms), topic, reason: text("reason") })
    });
    let partitions = partitions
        .into_iter()
        .map(|p| Partition {
            partition: p.partition.to_string(),
            owner: p.owner,
            generation: p.generation.0,
            next_offset: p.next_offset.map_or(0, |o| o.0),
            lag: p.end_offset.map(|end| (end.0 - p.next_offset.map_or(0, |o| o.0)).max(0)),
            watermark: p.watermark_ms.map(timestamp),
            events: p.events,
            open_plan: p.has_open_plan,
        })
        .collect();
    let mut records = Vec::new();
    for span in Span::ALL {
        records.extend(home.metastore.windows_of(span).await?);
    }
    let windows = records
        .into_iter()
        .map(|w| {
            let mut outcomes = BTreeMap::new();
            for row in counts.iter().filter(|row| w.span == Span::Day && row.epoch == Some(w.epoch)) {
                *outcomes.entry(row.outcome.label().to_owned()).or_default() += row.events;
            }
            let missed = (w.span == Span::Hour).then_some(w.missed_events);
            let expired = w.expired_at_ms.is_some();
            Window { window: w.id().to_string(), state: w.state.name().to_owned(), outcomes, expired, missed }
        })
        .collect();
    let keys = home
        .keyring
        .list()?
        .into_iter()
        .map(|(id, state)| Key {
            key: id.to_string(),
            state: match state {
                KeyState::Alive => "alive".to_owned(),
                KeyState::Destroyed { at_ms } => format!("destroyed {}", timestamp(at_ms)),
            },
        })
        .collect();
    let unbalanced = home.metastore.unbalanced().await?.iter().map(ToString::to_string).collect();
    let alerts = home.metastore.alerts_after(0, u32::MAX).await?.len();
    Ok(Status { partitions, outcomes, windows, keys, alerts, unbalanced, stopped })
}

/// For people.
#[must_use]
pub fn text(status: &Status) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "Partitions");
    for p in &status.partitions {
        let lag = p.lag.map_or("?".to_owned(), |l| l.to_string());
        let _ = writeln!(
            out,
            "  {:<24} offset {:>10}  lag {:>8}  events {:>10}  generation {}  watermark {}{}",
            p.partition,
            p.next_offset,
            lag,
            p.events,
            p.generation,
            p.watermark.as_deref().unwrap_or("-"),
            if p.open_plan { "  (a range is planned)" } else { "" }
        );
    }
    if let Some(stopped) = &status.stopped {
        let _ = writeln!(out, "INGEST STOPPED {} on topic {}: {}", stopped.at, stopped.topic, stopped.reason);
    }
    let _ = writeln!(out, "Events");
    for (label, events) in &status.outcomes {
        let _ = writeln!(out, "  {label:<32} {events:>12}");
    }
    let _ = writeln!(out, "Windows");
    for w in &status.windows {
        let counted = w.outcomes.get("counted").copied().unwrap_or(0);
        let late = w.outcomes.get("late").copied().unwrap_or(0);
        let is_day = EpochId::parse_day(&w.window).is_some();
        let counts = match w.missed {
            _ if is_day => format!(" counted {counted:>10}  late {late:>8}"),
            Some(missed) if missed > 0 => format!(" came too late {missed:>8}"),
            _ => String::new(),
        };
        let expired = if w.expired { "  expired" } else { "" };
        let _ = writeln!(out, "{}", format!("  {}  {:<10}{counts}{expired}", w.window, w.state).trim_end());
    }
    let _ = writeln!(out, "Keys");
    for k in &status.keys {
        let _ = writeln!(out, "  {:<40} {}", k.key, k.state);
    }
    let _ = writeln!(out, "Alerts  {}", status.alerts);
    if status.unbalanced.is_empty() {
        let _ = writeln!(out, "Balance (I1): events in = counted + late + refused + quarantined, in every partition");
    } else {
        let _ = writeln!(out, "OUT OF BALANCE (I1): {}", status.unbalanced.join(", "));
    }
    out
}

/// UTC, to the second.
#[must_use]
pub fn timestamp(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms)
        .map_or_else(|_| "out of range".to_owned(), |t| t.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

/// One line of the audit log.
#[must_use]
pub fn audit_line(entry: &AuditEntry) -> String {
    format!("{:>6}  {}  {:<16} {}", entry.sequence, timestamp(entry.at_ms), entry.kind, entry.detail)
}
