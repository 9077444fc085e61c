//! Integrity: checkpoints, alerts, and the outbox they are published from.
//!
//! A part's state, what it has read and what follows from it are committed together, so a crash neither loses an alert nor
//! raises one twice. Positions come from one counter inside the same transaction: whoever reads "after position p" misses nothing.
//!
//! **Told or kept.** Each finding comes with what its rule's standing says of it. In the same transaction it is decided where it goes:
//!
//! ```text
//!   in the feed already ────────────────────────────────────────────► the feed: what was told stays told, and grows
//!   does not stand any more, and was never told ────────────────────► stays as it is kept, or is nothing
//!   kept by its standing · its rule demoted · the day's allowance told ─► kept_alerts, with the reason
//!   otherwise ──────────────────────────────────────────────────────► the feed, as told now, and out of kept_alerts
//! ```
//!
//! What a day has told is counted over the feed itself, under the lock that all commits take: it holds over parts and processes, and a commit that is
//! repeated because its answer was lost finds its alerts told and counts none of them twice. Fingerprints and bodies are the same after a replay
//! (I9); *which* findings the allowance cuts off depends on the order in which parts commit and on the day on which they do.

use std::collections::HashMap;

use starling_schemas::ids::Generation;

use super::Metastore;
use super::database::Turn;
use super::sql::{Row, Tx, column, small_column, sql};
use super::types::{AlertRecord, Checkpoint};
use crate::error::StoreError;

const DAY_MS: i64 = 86_400_000;
/// Why a finding is kept whose rule has told as much as a day allows.
pub const KEPT_FOR_ALLOWANCE: &str = "allowance";
/// Why a finding is kept whose rule verdicts put back in shadow.
pub const KEPT_FOR_DEMOTION: &str = "demoted";

const PARTS: &str = "integrity_parts";
const ALERTS: &str = "alerts";

/// What a rule found, and what the rule's standing says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The alert.
    pub alert: AlertRecord,
    /// The first name its rule had: allowance, verdicts and demotions go by it, so that another name changes none of them.
    pub key: String,
    /// Whether it holds. What does not is told to those only who were told that it did.
    pub stands: bool,
    /// Whether it is told.
    pub telling: Telling,
}

/// Whether a finding is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Telling {
    /// It is, unless its rule has told as much as a day allows, or is demoted.
    Told {
        /// Alerts of the rule that are told for the first time on one day, UTC, at most.
        daily: u32,
        /// Whether a demotion of the rule's version keeps it.
        demotable: bool,
    },
    /// It is kept, for this reason.
    Kept(&'static str),
}

/// A part's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SavedState<'a> {
    /// A durable file.
    pub path: &'a str,
    /// How many subjects it tested: the integrity room's JSON. `None`: what is kept of it stays.
    pub tested: Option<&'a str>,
}

impl<'a> From<&'a str> for SavedState<'a> {
    fn from(path: &'a str) -> Self {
        Self { path, tested: None }
    }
}

macro_rules! select_alerts {
    ($rest:literal) => {
        concat!(
            "SELECT fingerprint, rule, rule_version, subject_kind, subject, severity, first_ms, last_ms, \
             body, position FROM alerts ",
            $rest
        )
    };
}
pub(super) use select_alerts;

impl Metastore {
    /// Where a part stands. `None`: it has committed nothing yet.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn integrity_checkpoint(&self, part: &str) -> Result<Option<Checkpoint>, StoreError> {
        let row = self
            .database
            .fetch_all(
                "reading an integrity checkpoint",
                sql("SELECT generation, state_path, positions FROM integrity_parts WHERE part = $1 AND \
             state_path IS NOT NULL")
                .bind(part),
            )
            .await?
            .into_iter()
            .next();
        row.map(|row| {
            Ok(Checkpoint {
                generation: Generation(column(&row, "generation", PARTS)?),
                state_path: column(&row, "state_path", PARTS)?,
                positions: column(&row, "positions", PARTS)?,
            })
        })
        .transpose()
    }

    /// Makes `owner` the owner of a part and fences every owner before it. The first generation is 1.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn take_integrity(&self, part: &str, owner: &str, now_ms: i64) -> Result<Generation, StoreError> {
        const DURING: &str = "taking an integrity part";
        self.database
            .change(DURING, Turn::Alerts, |tx| async move {
                let generation = Generation(generation(&tx, part).await?.map_or(1, |g| g.0 + 1));
                tx.execute(
                    sql("INSERT INTO integrity_parts (part, generation, owner, seen_ms) VALUES ($1, $2, $3, \
             $4) ON CONFLICT (part) DO UPDATE SET generation = excluded.generation, owner = \
             excluded.owner, seen_ms = excluded.seen_ms")
                    .bind(part)
                    .bind(generation.0)
                    .bind(owner)
                    .bind(now_ms),
                )
                .await?;
                Ok(generation)
            })
            .await
    }

    /// Commits a part's state, what it has read, and its findings, all or nothing.
    ///
    /// Findings are told or kept as this module's text says, by fingerprint. One whose body is as it was keeps its position; a new or changed one
    /// goes to the end.
    ///
    /// # Errors
    /// [`StoreError::Fenced`]; [`StoreError::UnknownPartition`] before [`Self::take_integrity`]; [`StoreError::Database`].
    pub async fn commit_integrity<'a>(
        &self,
        part: &str,
        generation: Generation,
        state: impl Into<SavedState<'a>>,
        positions: &str,
        findings: &[Finding],
        now_ms: i64,
    ) -> Result<(), StoreError> {
        const DURING: &str = "committing an integrity part";
        let SavedState { path, tested } = state.into();
        self.database
            .change(DURING, Turn::Alerts, |tx| async move {
                if self::generation(&tx, part).await?.ok_or(StoreError::UnknownPartition)? != generation {
                    return Err(StoreError::Fenced);
                }
                tx.execute(
                    sql("UPDATE integrity_parts SET state_path = $1, positions = $2, seen_ms = $3, \
             committed_at_ms = $3, tested = COALESCE($5, tested) WHERE part = $4")
                    .bind(path)
                    .bind(positions)
                    .bind(now_ms)
                    .bind(part)
                    .bind(tested),
                )
                .await?;
                take_all(&tx, findings, now_ms).await
            })
            .await
    }

    /// How many subjects each part tested, as it committed it.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn integrity_tested(&self) -> Result<Vec<String>, StoreError> {
        let rows = self
            .database
            .fetch_all(
                "reading what was tested",
                sql("SELECT tested FROM integrity_parts WHERE tested IS NOT NULL ORDER BY part"),
            )
            .await?;
        rows.iter().map(|row| column(row, "tested", PARTS)).collect()
    }

    /// The alerts of the feed after a position, in order.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn alerts_after(&self, position: i64, limit: u32) -> Result<Vec<AlertRecord>, StoreError> {
        let rows = self
            .database
            .fetch_all(
                "reading alerts",
                sql(select_alerts!("WHERE position > $1 ORDER BY position LIMIT $2")).bind(position).bind(i64::from(limit)),
            )
            .await?;
        rows.iter().map(alert_of).collect()
    }

    /// Alerts whose present form has not been published, in order of position.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn unpublished_alerts(&self, limit: u32) -> Result<Vec<AlertRecord>, StoreError> {
        let rows = self
            .database
            .fetch_all(
                "reading alerts to publish",
                sql(select_alerts!("WHERE published_position < position ORDER BY position LIMIT $1")).bind(i64::from(limit)),
            )
            .await?;
        rows.iter().map(alert_of).collect()
    }

    /// Notes that the form an alert had at `position` is published. One that changed meanwhile stays in the outbox.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn mark_published(&self, fingerprint: &str, position: i64) -> Result<(), StoreError> {
        self.database
            .change("marking an alert published", Turn::Alerts, |tx| async move {
                tx.execute(
                    sql("UPDATE alerts SET published_position = $1 WHERE fingerprint = $2 AND \
             published_position < $1")
                    .bind(position)
                    .bind(fingerprint),
                )
                .await?;
                Ok(())
            })
            .await
    }
}

/// What is known, within one transaction, of the day on which it commits.
struct Day {
    now_ms: i64,
    /// Alerts told for the first time today, by rule.
    told: HashMap<String, i64>,
    /// Whether a version of a rule is demoted.
    demoted: HashMap<(String, u32), bool>,
}

impl Day {
    fn of(now_ms: i64) -> Self {
        Self { now_ms, told: HashMap::new(), demoted: HashMap::new() }
    }

    /// Why a finding that was not told yet is kept. `None`: it is told, and counted.
    async fn keeps(&mut self, tx: &Tx, finding: &Finding) -> Result<Option<&'static str>, StoreError> {
        let (daily, demotable) = match finding.telling {
            Telling::Kept(reason) => return Ok(Some(reason)),
            Telling::Told { daily, demotable } => (daily, demotable),
        };
        let rule = &finding.key;
        if demotable && self.is_demoted(tx, rule, finding.alert.rule_version).await? {
            return Ok(Some(KEPT_FOR_DEMOTION));
        }
        let told = match self.told.get(rule) {
            Some(told) => *told,
            None => self.count(tx, rule).await?,
        };
        let fits = told < i64::from(daily);
        self.told.insert(rule.clone(), told + i64::from(fits));
        Ok((!fits).then_some(KEPT_FOR_ALLOWANCE))
    }

    async fn is_demoted(&mut self, tx: &Tx, rule: &str, version: u32) -> Result<bool, StoreError> {
        let key = (rule.to_owned(), version);
        if let Some(known) = self.demoted.get(&key) {
            return Ok(*known);
        }
        let is_demoted = super::kept::in_force(tx, rule, version).await?;
        self.demoted.insert(key, is_demoted);
        Ok(is_demoted)
    }

    async fn count(&self, tx: &Tx, rule: &str) -> Result<i64, StoreError> {
        let from = self.now_ms.div_euclid(DAY_MS) * DAY_MS;
        let count = "SELECT COUNT(*) FROM alerts WHERE told_rule = $1 AND told_ms >= $2 AND told_ms < $3";
        column(&tx.fetch_one(sql(count).bind(rule).bind(from).bind(from + DAY_MS)).await?, 0, ALERTS)
    }
}

/// Puts findings where they belong, each that is new or has changed at the end of the feed.
pub(super) async fn take_all(tx: &Tx, findings: &[Finding], now_ms: i64) -> Result<(), StoreError> {
    if findings.is_empty() {
        return Ok(());
    }
    let feed = tx.fetch_one(sql("SELECT last_position FROM alert_feed WHERE id = 1")).await?;
    let mut last: i64 = column(&feed, 0, "alert_feed")?;
    let mut day = Day::of(now_ms);
    for finding in findings {
        if take(tx, finding, last + 1, &mut day).await? {
            last += 1;
        }
    }
    tx.execute(sql("UPDATE alert_feed SET last_position = $1 WHERE id = 1").bind(last)).await?;
    Ok(())
}

/// Puts a finding where it belongs. Returns whether `position` was used.
async fn take(tx: &Tx, finding: &Finding, position: i64, day: &mut Day) -> Result<bool, StoreError> {
    let fingerprint = &finding.alert.fingerprint;
    if tx.fetch_optional(sql("SELECT 1 FROM alerts WHERE fingerprint = $1").bind(fingerprint)).await?.is_some() {
        return grow(tx, &finding.alert, position).await;
    }
    if !finding.stands {
        return match super::kept::kept_for(tx, fingerprint).await? {
            Some(reason) => super::kept::keep(tx, &finding.alert, &reason, position, day.now_ms).await,
            None => Ok(false),
        };
    }
    if let Some(reason) = day.keeps(tx, finding).await? {
        return super::kept::keep(tx, &finding.alert, reason, position, day.now_ms).await;
    }
    tx.execute(sql("DELETE FROM kept_alerts WHERE fingerprint = $1").bind(fingerprint)).await?;
    tell(tx, finding, position, day.now_ms).await?;
    Ok(true)
}

/// Writes an alert that was never told.
async fn tell(tx: &Tx, finding: &Finding, position: i64, now_ms: i64) -> Result<(), StoreError> {
    let alert = &finding.alert;
    tx.execute(
        sql("INSERT INTO alerts (fingerprint, rule, rule_version, subject_kind, subject, severity, first_ms, last_ms, body, \
             position, published_position, told_ms, told_rule, told_version) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 0, $11, $12, $3)")
        .bind(&alert.fingerprint)
        .bind(&alert.rule)
        .bind(i64::from(alert.rule_version))
        .bind(&alert.subject_kind)
        .bind(&alert.subject)
        .bind(&alert.severity)
        .bind(alert.first_ms)
        .bind(alert.last_ms)
        .bind(&alert.body)
        .bind(position)
        .bind(now_ms)
        .bind(&finding.key),
    )
    .await?;
    Ok(())
}

/// Writes an alert that was told, unless its body is as it was. Returns whether `position` was used.
async fn grow(tx: &Tx, alert: &AlertRecord, position: i64) -> Result<bool, StoreError> {
    let done = tx
        .execute(
            sql(
                "UPDATE alerts SET rule = $2, rule_version = $3, subject_kind = $4, subject = $5, severity = $6, first_ms = $7, \
             last_ms = $8, body = $9, position = $10 WHERE fingerprint = $1 AND body <> $9",
            )
            .bind(&alert.fingerprint)
            .bind(&alert.rule)
            .bind(i64::from(alert.rule_version))
            .bind(&alert.subject_kind)
            .bind(&alert.subject)
            .bind(&alert.severity)
            .bind(alert.first_ms)
            .bind(alert.last_ms)
            .bind(&alert.body)
            .bind(position),
        )
        .await?;
    Ok(done == 1)
}

pub(super) async fn generation(tx: &Tx, part: &str) -> Result<Option<Generation>, StoreError> {
    let row = tx.fetch_optional(sql("SELECT generation FROM integrity_parts WHERE part = $1").bind(part)).await?;
    row.map(|row| column(&row, 0, PARTS).map(Generation)).transpose()
}

pub(super) fn alert_of(row: &Row) -> Result<AlertRecord, StoreError> {
    Ok(AlertRecord {
        fingerprint: column(row, "fingerprint", ALERTS)?,
        rule: column(row, "rule", ALERTS)?,
        rule_version: small_column(row, "rule_version", ALERTS)?,
        subject_kind: column(row, "subject_kind", ALERTS)?,
        subject: column(row, "subject", ALERTS)?,
        severity: column(row, "severity", ALERTS)?,
        first_ms: column(row, "first_ms", ALERTS)?,
        last_ms: column(row, "last_ms", ALERTS)?,
        body: column(row, "body", ALERTS)?,
        position: column(row, "position", ALERTS)?,
    })
}
