//! The work on alerts, for the command line and the HTTP door: who looked, what they found, what was done (`starling_integrity::work`).
//!
//! A step is decided on what was read, and written only if nobody was quicker; it and its entry in the hash-chained log are one transaction.

use std::collections::HashMap;

use anyhow::Context as _;
use serde::Serialize;
use starling_integrity::Alert;
use starling_integrity::work::{Silence, Standing, State, Step, Verdicts};
use starling_store::{AlertRecord, SilenceRecord, StepRecord, WorkRecord};

use crate::alerts;
use crate::home::Home;

/// Fewest digits of a fingerprint that name an alert.
const FEWEST_DIGITS: usize = 6;
/// Most alerts read at once.
const PAGE: u32 = 500;

/// Where an alert stands, as it is shown beside it.
#[derive(Debug, Clone, Serialize)]
pub struct Shown {
    /// What was done.
    #[serde(flatten)]
    pub standing: Standing,
    /// Whether somebody should look at it.
    pub wants_attention: bool,
    /// Until when a silence hides it, milliseconds since 1970-01-01 UTC.
    pub silenced_until_ms: Option<i64>,
}

/// An alert with the work on it. `work` is `None` when nobody has done anything about it.
pub struct Entry {
    /// As it is kept.
    pub record: AlertRecord,
    /// What it says.
    pub alert: Alert,
    /// Where it stands.
    pub work: Option<Shown>,
}

impl Entry {
    /// Whether somebody should look at it.
    #[must_use]
    pub fn wants_attention(&self) -> bool {
        self.work.as_ref().is_none_or(|work| work.wants_attention)
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> State {
        self.work.as_ref().map_or(State::New, |work| work.standing.state)
    }
}

/// What silences and work there are, to be put beside alerts.
struct Desk {
    now_ms: i64,
    work: HashMap<String, WorkRecord>,
    silences: HashMap<(String, String, String), Silence>,
}

impl Desk {
    async fn between(home: &Home, after: i64, up_to: i64) -> anyhow::Result<Self> {
        let now_ms = home.clock.now_ms();
        let work = home.metastore.work_between(after, up_to).await?;
        Ok(Self {
            now_ms,
            work: work.into_iter().map(|record| (record.fingerprint.clone(), record)).collect(),
            silences: silences(home)
                .await?
                .into_iter()
                .map(|s| ((s.rule.clone(), s.subject_kind.clone(), s.subject.clone()), s))
                .collect(),
        })
    }

    fn entry(&self, record: AlertRecord) -> anyhow::Result<Entry> {
        let alert = alerts::alert(&record)?;
        let standing = self.work.get(&record.fingerprint).map(standing_of).transpose()?;
        let key = (record.rule.clone(), record.subject_kind.clone(), record.subject.clone());
        let silence = self.silences.get(&key);
        let work = (standing.is_some() || silence.is_some()).then(|| {
            let standing = standing.unwrap_or_default();
            let wants_attention = standing.wants_attention(alert.evidence, silence, self.now_ms);
            let hidden = silence.filter(|s| s.hides(alert.evidence, self.now_ms));
            Shown { standing, wants_attention, silenced_until_ms: hidden.map(|s| s.until_ms) }
        });
        Ok(Entry { record, alert, work })
    }
}

fn standing_of(record: &WorkRecord) -> anyhow::Result<Standing> {
    serde_json::from_str(&record.standing)
        .with_context(|| format!("the work on alert {} cannot be read by this version", record.fingerprint))
}

/// The alerts of the feed after a position, in order, with the work on them: at most `limit`.
///
/// # Errors
/// When the metastore cannot be read.
pub async fn page(home: &Home, after: i64, limit: u32) -> anyhow::Result<Vec<Entry>> {
    let records = home.metastore.alerts_after(after, limit).await?;
    let Some(last) = records.last() else { return Ok(Vec::new()) };
    let desk = Desk::between(home, after, last.position).await?;
    records.into_iter().map(|record| desk.entry(record)).collect()
}

/// The one alert whose fingerprint begins so.
///
/// # Errors
/// When there is none or more than one, or the metastore cannot be read.
pub async fn find(home: &Home, prefix: &str) -> anyhow::Result<Entry> {
    let prefix = prefix.to_ascii_lowercase();
    anyhow::ensure!(
        prefix.len() >= FEWEST_DIGITS && prefix.bytes().all(|b| b.is_ascii_hexdigit()),
        "an alert is named by its fingerprint, or its first {FEWEST_DIGITS} hexadecimal digits or more: see `starling alerts`"
    );
    let mut found = home.metastore.alerts_named(&prefix, 2).await?;
    let record = found.pop().context("there is no alert of that fingerprint: see `starling alerts`")?;
    anyhow::ensure!(found.is_empty(), "more than one alert begins so: give more digits of its fingerprint");
    Desk::between(home, record.position - 1, record.position).await?.entry(record)
}

/// Every step taken on an alert, oldest first.
///
/// # Errors
/// When the metastore cannot be read, or a step is of another version.
pub async fn history(home: &Home, fingerprint: &str) -> anyhow::Result<Vec<(StepRecord, Step)>> {
    let steps = home.metastore.steps_on(fingerprint).await?;
    steps
        .into_iter()
        .map(|record| {
            let step = serde_json::from_str(&record.body).context("a step on this alert cannot be read by this version")?;
            Ok((record, step))
        })
        .collect()
}

/// Takes a step on an alert, and gives how it stands then.
///
/// # Errors
/// `starling_integrity::work::NotAllowed` when the step cannot be taken; `StoreError::StepTaken` when somebody was quicker.
pub async fn take(home: &Home, alert: &str, step: &Step, by: &str) -> anyhow::Result<Entry> {
    let entry = find(home, alert).await?;
    let before = home.metastore.work_on(&entry.record.fingerprint).await?;
    let standing = before.as_ref().map(standing_of).transpose()?.unwrap_or_default();
    let next = standing.after(step, by, entry.alert.evidence)?;
    let record = StepRecord {
        fingerprint: entry.record.fingerprint.clone(),
        step: before.map_or(0, |b| b.step) + 1,
        at_ms: home.clock.now_ms(),
        by: by.to_owned(),
        body: serde_json::to_string(step)?,
    };
    home.metastore.take_step(&record, step.name(), &serde_json::to_string(&next)?).await?;
    find(home, &record.fingerprint).await
}

/// The silences that have not ended.
///
/// # Errors
/// When the metastore cannot be read.
pub async fn silences(home: &Home) -> anyhow::Result<Vec<Silence>> {
    let records = home.metastore.silences(home.clock.now_ms()).await?;
    records.iter().map(|record| serde_json::from_str(&record.body).context("a silence cannot be read by this version")).collect()
}

/// Silences an alert's rule about its subject for a while.
///
/// # Errors
/// `starling_integrity::work::NotAllowed`.
pub async fn silence(home: &Home, alert: &str, by: &str, lasts_ms: i64, text: &str) -> anyhow::Result<Silence> {
    let Entry { record, alert, .. } = find(home, alert).await?;
    let now_ms = home.clock.now_ms();
    let silence = Silence {
        rule: record.rule,
        subject_kind: record.subject_kind,
        subject: record.subject,
        owner: by.to_owned(),
        text: text.to_owned(),
        evidence: alert.evidence,
        until_ms: now_ms.saturating_add(lasts_ms),
    };
    silence.check(now_ms)?;
    home.metastore.silence(&kept(&silence)?, by, now_ms).await?;
    Ok(silence)
}

/// Ends the silence of an alert's rule about its subject.
///
/// # Errors
/// When there is none.
pub async fn end_silence(home: &Home, alert: &str, by: &str) -> anyhow::Result<()> {
    starling_integrity::work::check_name("who takes the step", by)?;
    let Entry { record, .. } = find(home, alert).await?;
    let silence = SilenceRecord {
        rule: record.rule,
        subject_kind: record.subject_kind,
        subject: record.subject,
        until_ms: 0,
        body: String::new(),
    };
    anyhow::ensure!(
        home.metastore.end_silence(&silence, by, home.clock.now_ms()).await?,
        "no silence hides this alert: see `starling alerts silences`"
    );
    Ok(())
}

fn kept(silence: &Silence) -> anyhow::Result<SilenceRecord> {
    Ok(SilenceRecord {
        rule: silence.rule.clone(),
        subject_kind: silence.subject_kind.clone(),
        subject: silence.subject.clone(),
        until_ms: silence.until_ms,
        body: serde_json::to_string(silence)?,
    })
}

/// How often each rule was right, and how many of its alerts are not judged yet: (rule, version, verdicts, waiting), in order.
///
/// # Errors
/// When the metastore cannot be read.
pub async fn precision(home: &Home) -> anyhow::Result<Vec<(String, u32, Verdicts, u64)>> {
    let mut rules: std::collections::BTreeMap<(String, u32), (Verdicts, u64)> = std::collections::BTreeMap::new();
    let mut after = 0;
    loop {
        let entries = page(home, after, PAGE).await?;
        let Some(last) = entries.last() else { break };
        after = last.record.position;
        for entry in &entries {
            let (verdicts, waiting) = rules.entry((entry.record.rule.clone(), entry.record.rule_version)).or_default();
            match entry.work.as_ref().and_then(|work| work.standing.abuse) {
                Some(true) => verdicts.confirmed += 1,
                Some(false) => verdicts.dismissed += 1,
                None => *waiting += 1,
            }
        }
    }
    Ok(rules.into_iter().map(|((rule, version), (verdicts, waiting))| (rule, version, verdicts, waiting)).collect())
}
