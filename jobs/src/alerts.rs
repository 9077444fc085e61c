//! `starling alerts`: the feed on a terminal, or one JSON object a line.

use std::io::Write;
use std::time::Duration;

use anyhow::Context as _;
use starling_integrity::Alert;
use starling_store::AlertRecord;
use tokio::sync::watch;

use crate::desk::{self, Entry};
use crate::home::Home;
use crate::metrics::Work;

pub mod work;

/// Most alerts read at once.
const PAGE: u32 = 500;

/// What of the feed is printed.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// One JSON object a line.
    pub json: bool,
    /// Wait for more.
    pub follow: bool,
    /// Only those after this position.
    pub after: i64,
    /// Only those that somebody should look at.
    pub open: bool,
}

/// Prints alerts; when they are followed, goes on until `stop`.
///
/// # Errors
/// When the audit log cannot be written (then nothing is shown, I6), or the metastore cannot be read.
pub async fn print(home: &Home, asked: Asked, mut stop: watch::Receiver<bool>) -> anyhow::Result<()> {
    let Asked { json, follow, after, open } = asked;
    record_read(home, "cli").await?;
    let mut position = after;
    let mut header = false;
    loop {
        let page = desk::page(home, position, PAGE).await?;
        for entry in &page {
            position = position.max(entry.record.position);
            if open && !entry.wants_attention() {
                continue;
            }
            let mut out = std::io::stdout().lock();
            if json {
                writeln!(out, "{}", json_line(entry)?)?;
            } else {
                if !std::mem::replace(&mut header, true) {
                    writeln!(
                        out,
                        "{:<12} {:<9} {:<8} {:<20} {:<8} {:<34} what was seen",
                        "alert", "state", "severity", "rule", "subject", "who"
                    )?;
                }
                let record = &entry.record;
                writeln!(
                    out,
                    "{:<12} {:<9} {:<8} {:<20} {:<8} {:<34} {}",
                    record.fingerprint.get(..12).unwrap_or(&record.fingerprint),
                    entry.state().name(),
                    record.severity,
                    record.rule,
                    record.subject_kind,
                    record.subject,
                    entry.alert.explanation
                )?;
            }
        }
        if page.len() as u32 == PAGE {
            continue;
        }
        if !follow {
            if !header && !json {
                println!("{}", if open && position > after { "No alert wants attention." } else { "No alerts." });
            }
            return Ok(());
        }
        tokio::select! {
            _ = stop.changed() => return Ok(()),
            () = tokio::time::sleep(Duration::from_millis(200)) => {}
        }
        if *stop.borrow() {
            return Ok(());
        }
    }
}

/// The alert inside a record.
///
/// # Errors
/// When it was written by another version and cannot be read.
pub fn alert(record: &AlertRecord) -> anyhow::Result<Alert> {
    serde_json::from_str(&record.body).with_context(|| format!("alert {} cannot be read by this version", record.fingerprint))
}

/// The alert as one line of JSON, with the position from which to go on, and the work on it where somebody has done something.
///
/// # Errors
/// When JSON cannot hold it.
pub fn json_line(entry: &Entry) -> anyhow::Result<String> {
    let mut value = serde_json::to_value(&entry.alert)?;
    if let Some(object) = value.as_object_mut() {
        object.insert("position".to_owned(), entry.record.position.into());
        if let Some(work) = &entry.work {
            object.insert("work".to_owned(), serde_json::to_value(work)?);
        }
    }
    Ok(value.to_string())
}

/// Every read of integrity data has an entry in the hash-chained log, written before anything is shown (I6).
///
/// # Errors
/// When the log cannot be written.
pub async fn record_read(home: &Home, door: &str) -> anyhow::Result<()> {
    let detail = serde_json::json!({ "what": "alerts", "door": door });
    let written = home.metastore.append_audit("integrity_read", detail, home.clock.now_ms()).await;
    if written.is_err() {
        home.metrics.failed(Work::Audit);
    }
    written.context("the audit log cannot be written, so nothing is shown (I6)")?;
    Ok(())
}
