//! `starling alerts`: the feed on a terminal, or one JSON object a line.

use std::io::Write;
use std::time::Duration;

use anyhow::Context as _;
use starling_integrity::Alert;
use starling_query::Principal;
use starling_store::AlertRecord;
use tokio::sync::watch;

use crate::desk::{self, Entry, KeptEntry};
use crate::home::Home;
use crate::metrics::Work;
use crate::standing;

pub mod work;

/// Most alerts read at once.
const PAGE: u32 = 500;

/// What of the feed is printed.
#[derive(Debug, Clone)]
pub struct Asked {
    /// One JSON object a line.
    pub json: bool,
    /// Wait for more.
    pub follow: bool,
    /// Only those after this position.
    pub after: i64,
    /// Only those that somebody should look at.
    pub open: bool,
    /// Only those of this rule.
    pub rule: Option<String>,
    /// What is kept and not told, instead.
    pub kept: bool,
}

/// A line of the table.
struct Line<'a> {
    record: &'a AlertRecord,
    /// Where the work on it stands, or why it is kept.
    state: &'a str,
    alert: &'a Alert,
}

impl Line<'_> {
    fn header(out: &mut impl Write, state: &str) -> std::io::Result<()> {
        let what = "what was seen";
        writeln!(out, "{:<12} {state:<9} {:<8} {:<20} {:<8} {:<34} {what}", "alert", "severity", "rule", "subject", "who")
    }

    fn write(&self, out: &mut impl Write) -> std::io::Result<()> {
        let Self { record, state, alert } = self;
        let (short, said) = (record.fingerprint.get(..12).unwrap_or(&record.fingerprint), &alert.explanation);
        let (severity, rule, kind) = (&record.severity, &record.rule, &record.subject_kind);
        writeln!(out, "{short:<12} {state:<9} {severity:<8} {rule:<20} {kind:<8} {:<34} {said}", record.subject)
    }
}

/// Prints alerts, or what is kept; when they are followed, goes on until `stop`.
///
/// # Errors
/// When the audit log cannot be written (then nothing is shown, I6), or the metastore cannot be read.
pub async fn print(home: &Home, asked: Asked, mut stop: watch::Receiver<bool>) -> anyhow::Result<()> {
    if asked.kept {
        record_kept_read(home, "cli", None).await?;
    } else {
        record_read(home, "cli", None).await?;
    }
    let mut shown = Shown { position: asked.after, header: false };
    loop {
        let found = if asked.kept { shown.kept(home, &asked).await? } else { shown.told(home, &asked).await? };
        if found == PAGE as usize {
            continue;
        }
        if !asked.follow {
            if !shown.header && !asked.json {
                println!("{}", nothing(&asked, shown.position > asked.after));
            }
            if !asked.json && !asked.kept {
                print_kept_today(home, &asked).await?;
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

fn nothing(asked: &Asked, any: bool) -> &'static str {
    match (asked.kept, asked.open && any) {
        (true, _) => "Nothing is kept.",
        (false, true) => "No alert wants attention.",
        (false, false) => "No alerts.",
    }
}

/// What is missing in the feed today, below it.
async fn print_kept_today(home: &Home, asked: &Asked) -> anyhow::Result<()> {
    let kept = standing::kept_today(home).await?;
    let mut kept = kept.iter().filter(|kept| asked.rule.as_ref().is_none_or(|rule| *rule == kept.rule)).peekable();
    if kept.peek().is_some() {
        println!();
        kept.for_each(|kept| println!("{}", kept.says));
        println!("See `starling alerts --kept`.");
    }
    Ok(())
}

/// How far the feed was printed.
struct Shown {
    position: i64,
    header: bool,
}

impl Shown {
    /// Prints a page of the feed, and gives how many alerts there were.
    async fn told(&mut self, home: &Home, asked: &Asked) -> anyhow::Result<usize> {
        let page = desk::page(home, self.position, PAGE).await?;
        for entry in &page {
            self.position = self.position.max(entry.record.position);
            let is_other = asked.rule.as_ref().is_some_and(|rule| *rule != entry.record.rule);
            if is_other || asked.open && !entry.wants_attention() {
                continue;
            }
            let line = Line { record: &entry.record, state: entry.state().name(), alert: &entry.alert };
            self.line(asked, "state", &line, || json_value(entry))?;
        }
        Ok(page.len())
    }

    /// The same of what is kept.
    async fn kept(&mut self, home: &Home, asked: &Asked) -> anyhow::Result<usize> {
        let page = desk::kept_page(home, self.position, asked.rule.as_deref(), PAGE).await?;
        for entry in &page {
            self.position = self.position.max(entry.record.alert.position);
            let line = Line { record: &entry.record.alert, state: &entry.record.kept_for, alert: &entry.alert };
            self.line(asked, "kept for", &line, || kept_json(entry))?;
        }
        Ok(page.len())
    }

    fn line(
        &mut self,
        asked: &Asked,
        state: &str,
        line: &Line<'_>,
        json: impl Fn() -> anyhow::Result<serde_json::Value>,
    ) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        if asked.json {
            writeln!(out, "{}", json()?)?;
            return Ok(());
        }
        if !std::mem::replace(&mut self.header, true) {
            Line::header(&mut out, state)?;
        }
        Ok(line.write(&mut out)?)
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
    Ok(json_value(entry)?.to_string())
}

/// The same, not yet as text.
///
/// # Errors
/// When JSON cannot hold it.
pub fn json_value(entry: &Entry) -> anyhow::Result<serde_json::Value> {
    let mut value = serde_json::to_value(&entry.alert)?;
    if let Some(object) = value.as_object_mut() {
        object.insert("position".to_owned(), entry.record.position.into());
        if let Some(work) = &entry.work {
            object.insert("work".to_owned(), serde_json::to_value(work)?);
        }
    }
    Ok(value)
}

/// A kept finding as JSON: the alert, why it is kept and since when, and the position from which to go on.
///
/// # Errors
/// When JSON cannot hold it.
pub fn kept_json(entry: &KeptEntry) -> anyhow::Result<serde_json::Value> {
    let mut value = serde_json::to_value(&entry.alert)?;
    if let Some(object) = value.as_object_mut() {
        object.insert("position".to_owned(), entry.record.alert.position.into());
        object.insert("kept_for".to_owned(), entry.record.kept_for.as_str().into());
        object.insert("kept_ms".to_owned(), entry.record.kept_ms.into());
    }
    Ok(value)
}

/// Every read of integrity data has an entry in the hash-chained log, written before anything is shown (I6). `who`: whom the door has recognised.
///
/// # Errors
/// When the log cannot be written.
pub async fn record_read(home: &Home, door: &str, who: Option<&Principal>) -> anyhow::Result<()> {
    record_read_of(home, "alerts", door, who).await
}

/// The same of a read of what is kept.
///
/// # Errors
/// When the log cannot be written.
pub async fn record_kept_read(home: &Home, door: &str, who: Option<&Principal>) -> anyhow::Result<()> {
    record_read_of(home, "kept_alerts", door, who).await
}

async fn record_read_of(home: &Home, what: &str, door: &str, who: Option<&Principal>) -> anyhow::Result<()> {
    let mut detail = serde_json::json!({ "what": what, "door": door });
    if let Some(who) = who {
        (detail["user"], detail["role"]) = (who.name.as_str().into(), who.role.name().into());
    }
    let written = home.metastore.append_audit("integrity_read", detail, home.clock.now_ms()).await;
    if written.is_err() {
        home.metrics.failed(Work::Audit);
    }
    written.context("the audit log cannot be written, so nothing is shown (I6)")?;
    Ok(())
}
