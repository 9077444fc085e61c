//! `starling alerts`: the feed on a terminal, or one JSON object a line.

use std::io::Write;
use std::time::Duration;

use anyhow::Context as _;
use starling_integrity::Alert;
use starling_store::AlertRecord;
use tokio::sync::watch;

use crate::home::Home;

/// Most alerts read at once.
const PAGE: u32 = 500;

/// Prints alerts after `after`; with `follow`, goes on until `stop`.
///
/// # Errors
/// When the audit log cannot be written (then nothing is shown, I6), or the metastore cannot be read.
pub async fn print(home: &Home, json: bool, follow: bool, after: i64, mut stop: watch::Receiver<bool>) -> anyhow::Result<()> {
    record_read(home, "cli").await?;
    let mut position = after;
    let mut header = false;
    loop {
        let page = home.metastore.alerts_after(position, PAGE).await?;
        for record in &page {
            position = position.max(record.position);
            let alert = alert(record)?;
            let mut out = std::io::stdout().lock();
            if json {
                writeln!(out, "{}", json_line(record, &alert)?)?;
            } else {
                if !std::mem::replace(&mut header, true) {
                    writeln!(out, "{:<8} {:<20} {:<8} {:<34} what was seen", "severity", "rule", "subject", "who")?;
                }
                writeln!(
                    out,
                    "{:<8} {:<20} {:<8} {:<34} {}",
                    record.severity, record.rule, record.subject_kind, record.subject, alert.explanation
                )?;
            }
        }
        if page.len() as u32 == PAGE {
            continue;
        }
        if !follow {
            if position == after && !json {
                println!("No alerts.");
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

/// The alert as one line of JSON, with the position from which to go on.
///
/// # Errors
/// When JSON cannot hold it.
pub fn json_line(record: &AlertRecord, alert: &Alert) -> anyhow::Result<String> {
    let mut value = serde_json::to_value(alert)?;
    if let Some(object) = value.as_object_mut() {
        object.insert("position".to_owned(), record.position.into());
    }
    Ok(value.to_string())
}

/// Every read of integrity data has an entry in the hash-chained log, written before anything is shown (I6).
///
/// # Errors
/// When the log cannot be written.
pub async fn record_read(home: &Home, door: &str) -> anyhow::Result<()> {
    home.metastore
        .append_audit("integrity_read", serde_json::json!({ "what": "alerts", "door": door }), home.clock.now_ms())
        .await
        .context("the audit log cannot be written, so nothing is shown (I6)")?;
    Ok(())
}
