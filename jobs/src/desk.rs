//! The work on alerts, for the command line and the HTTP door: who looked, what they found, what was done (`starling_integrity::work`).
//!
//! A step is decided on what was read, and written only if nobody was quicker; it and its entry in the hash-chained log are one transaction.

use std::collections::{BTreeMap, HashMap};

use anyhow::Context as _;
use serde::Serialize;
use starling_integrity::Alert;
use starling_integrity::work::{self, Silence, Standing, State, Step, Verdicts};
use starling_store::{AlertRecord, KeptRecord, SilenceRecord, StepRecord, WorkRecord};

use crate::alerts;
use crate::chosen::{Choosing, Chosen};
use crate::home::Home;
use crate::standing::{self, Promise, Promises};

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
    /// Whether somebody should look at it. What was taken back before anybody had begun with it wants nobody's.
    #[must_use]
    pub fn wants_attention(&self) -> bool {
        self.work.as_ref().map_or_else(|| self.alert.stands(), |work| work.wants_attention)
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
            let is_there = alert.stands() || standing.state != State::New;
            let wants_attention = is_there && standing.wants_attention(alert.evidence, silence, self.now_ms);
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

/// A finding that is kept and not told.
pub struct KeptEntry {
    /// As it is kept.
    pub record: KeptRecord,
    /// What it says.
    pub alert: Alert,
}

/// Kept findings after a position, in order: at most `limit`; of one rule, or of all.
///
/// # Errors
/// When the metastore cannot be read.
pub async fn kept_page(home: &Home, after: i64, rule: Option<&str>, limit: u32) -> anyhow::Result<Vec<KeptEntry>> {
    let records = home.metastore.kept_after(after, rule, limit).await?;
    let entry = |record: KeptRecord| Ok(KeptEntry { alert: alerts::alert(&record.alert)?, record });
    records.into_iter().map(entry).collect()
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
    work::check_not_own(&entry.alert.subject, by)?;
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
    if matches!(step, Step::Confirm { .. } | Step::Dismiss { .. } | Step::Answer { .. }) {
        // The step is taken whatever comes of this; the integrity job looks again.
        if let Err(error) = standing::look(home).await {
            tracing::warn!(error = format!("{error:#}"), "promises of rules could not be held against verdicts");
        }
    }
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
    work::check_not_own(&alert.subject, by)?;
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
    work::check_name("who takes the step", by)?;
    let Entry { record, alert, .. } = find(home, alert).await?;
    work::check_not_own(&alert.subject, by)?;
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

/// How often a version of a rule was right, and what it promises.
pub struct Precision {
    /// The rule.
    pub rule: String,
    /// Its version.
    pub version: u32,
    /// All verdicts there ever were.
    pub verdicts: Verdicts,
    /// Alerts that are not judged yet.
    pub waiting: u64,
    /// What it promises beside what was seen lately.
    pub promise: Promise,
    /// What the stated false-discovery level chooses of it; of a rule without e-values nothing.
    pub chosen: Option<Chosen>,
}

/// How often each rule was right, in order of rule and version.
///
/// # Errors
/// When the metastore cannot be read.
pub async fn precision(home: &Home) -> anyhow::Result<Vec<Precision>> {
    let promises = Promises::read(home).await?;
    let mut rules: BTreeMap<(String, u32), (Verdicts, u64)> = BTreeMap::new();
    let mut choosing = Choosing::default();
    let mut after = 0;
    loop {
        let entries = page(home, after, PAGE).await?;
        let Some(last) = entries.last() else { break };
        after = last.record.position;
        for entry in &entries {
            let abuse = entry.work.as_ref().and_then(|work| work.standing.abuse);
            choosing.told(promises.name_now(&entry.record.rule), entry.record.rule_version, &entry.alert, abuse);
            // What was taken back waits for nobody.
            if abuse.is_none() && entry.alert.stands() {
                let name = promises.name_now(&entry.record.rule).to_owned();
                rules.entry((name, entry.record.rule_version)).or_default().1 += 1;
            }
        }
    }
    // Of the version that told, whichever has judged the window anew since.
    for judged in home.metastore.worked_on_since(0).await? {
        if let Some(abuse) = standing::of_work(&judged.standing)?.abuse {
            let name = promises.name_now(&judged.rule).to_owned();
            rules.entry((name, judged.rule_version)).or_default().0.add(abuse);
        }
    }
    let mut chosen = choosing.choose(home).await?;
    let told = |((rule, version), (verdicts, waiting)): ((String, u32), (Verdicts, u64))| {
        let promise = promises.on(&rule, version);
        let chosen = chosen.remove(&(rule.clone(), version));
        Precision { rule, version, verdicts, waiting, promise, chosen }
    };
    Ok(rules.into_iter().map(told).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(change: &dyn Fn(&mut serde_json::Value), work: Option<&str>, silenced: bool) -> Entry {
        let mut body = serde_json::json!({
            "fingerprint": "ab12", "rule": "r", "rule_version": 1, "severity": "low",
            "subject": { "kind": "business", "value": "b", "epoch": null }, "window": { "start_ms": 0, "end_ms": 1 },
            "observed": 20, "threshold": 10, "baseline": { "kind": "rule", "value": null }, "factor": 2.0, "evidence": 20,
            "counter_evidence": [], "explanation": "", "data_gaps": [], "first_ms": 0, "last_ms": 1, "revision": 1
        });
        change(&mut body);
        let record = AlertRecord {
            fingerprint: "ab12".to_owned(),
            rule: "r".to_owned(),
            rule_version: 1,
            subject_kind: "business".to_owned(),
            subject: "b".to_owned(),
            severity: "low".to_owned(),
            first_ms: 0,
            last_ms: 1,
            body: body.to_string(),
            position: 1,
        };
        let of = |state: &str| {
            let standing = Standing { state: serde_json::from_value(state.into()).expect("a state"), ..Standing::default() };
            let standing = serde_json::to_string(&standing).expect("writes");
            ("ab12".to_owned(), WorkRecord { fingerprint: "ab12".to_owned(), step: 1, standing, updated_ms: 1 })
        };
        let silence = silenced.then(|| Silence {
            rule: "r".to_owned(),
            subject_kind: "business".to_owned(),
            subject: "b".to_owned(),
            owner: "ana".to_owned(),
            text: "known".to_owned(),
            evidence: 5,
            until_ms: 0,
        });
        let key = ("r".to_owned(), "business".to_owned(), "b".to_owned());
        let desk = Desk {
            now_ms: 10,
            work: work.map(of).into_iter().collect(),
            silences: silence.map(|silence| (key, silence)).into_iter().collect(),
        };
        desk.entry(record).expect("an entry")
    }

    #[test]
    fn what_was_taken_back_wants_nobody_who_has_not_begun_with_it() {
        let stands: &dyn Fn(&mut serde_json::Value) = &|_| {};
        let withdrawn: &dyn Fn(&mut serde_json::Value) = &|body| body["withdrawn"] = true.into();
        let fell: &dyn Fn(&mut serde_json::Value) = &|body| body["observed"] = 9.into();
        for (change, new, triaged) in [(stands, true, true), (withdrawn, false, true), (fell, false, true)] {
            assert_eq!(entry(change, None, false).wants_attention(), new);
            // A silence that is over is no work.
            assert_eq!(entry(change, None, true).wants_attention(), new);
            assert_eq!(entry(change, Some("triaged"), false).wants_attention(), triaged);
        }
    }
}
