//! Findings that are kept and not told, and demotions of rules.
//!
//! A kept finding has its place in the same order as the feed, so that whoever reads both after a position misses nothing. It is told when its
//! rule's standing allows that and it grows on (`alerts.rs`), and erased 14 days after it was first kept, with an entry in the hash-chained log.
//!
//! A demotion is of one version of a rule and in force until somebody lifts it; it, its lifting, and their entries in the log are each one
//! transaction. Who demotes says up to which lifting it has looked, so that verdicts somebody has just set aside demote nothing.

use std::cmp::Reverse;

use serde_json::{Value as Json, json};

use super::Metastore;
use super::alerts::alert_of;
use super::database::Turn;
use super::sql::{Row, Tx, column, count_column, small_column, sql};
use super::types::AlertRecord;
use crate::error::StoreError;

const KEPT: &str = "kept_alerts";
const DEMOTIONS: &str = "demotions";

/// A finding that is kept and not told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptRecord {
    /// The alert. Its position is of the feed's counter, though it is not in the feed.
    pub alert: AlertRecord,
    /// Why: `shadow`, `canary`, `expired`, `allowance` or `demoted`.
    pub kept_for: String,
    /// When it was first kept, milliseconds since 1970-01-01 UTC.
    pub kept_ms: i64,
}

/// How many findings of a rule are kept for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptCount {
    /// The rule.
    pub rule: String,
    /// Why.
    pub kept_for: String,
    /// How many.
    pub count: u64,
}

/// A version of a rule that verdicts put back in shadow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DemotionRecord {
    /// The rule's first name.
    pub rule: String,
    /// Its version.
    pub rule_version: u32,
    /// When, milliseconds since 1970-01-01 UTC.
    pub demoted_ms: i64,
    /// What it was decided on, as the integrity room's JSON.
    pub figures: String,
    /// When somebody lifted it, milliseconds since 1970-01-01 UTC. `None`: it is in force.
    pub restored_ms: Option<i64>,
    /// Who lifted it.
    pub restored_by: Option<String>,
    /// Why.
    pub restored_note: Option<String>,
}

/// An alert that somebody has worked on, as far as verdicts are counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JudgedRecord {
    /// The first name of the rule that told it.
    pub rule: String,
    /// The version that told it, whichever has judged its window anew since.
    pub rule_version: u32,
    /// When the alert was told for the first time, milliseconds since 1970-01-01 UTC.
    pub told_ms: i64,
    /// Where the work stands, as the integrity room's JSON.
    pub standing: String,
}

impl Metastore {
    /// Kept findings after a position, in order, at most `limit`; of one rule, or of all.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn kept_after(&self, position: i64, rule: Option<&str>, limit: u32) -> Result<Vec<KeptRecord>, StoreError> {
        let query = "SELECT fingerprint, rule, rule_version, subject_kind, subject, severity, first_ms, last_ms, body, position, \
             kept_for, kept_ms FROM kept_alerts WHERE position > $1 AND (rule = $2 OR $2 IS NULL) ORDER BY position LIMIT $3";
        let query = sql(query).bind(position).bind(rule).bind(i64::from(limit));
        let rows = self.database.fetch_all("reading kept findings", query).await?;
        let record = |row: &Row| {
            Ok(KeptRecord {
                alert: alert_of(row)?,
                kept_for: column(row, "kept_for", KEPT)?,
                kept_ms: column(row, "kept_ms", KEPT)?,
            })
        };
        rows.iter().map(record).collect()
    }

    /// How many findings were first kept at `from_ms` or later and still are, by rule and reason, in order.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn kept_counts(&self, from_ms: i64) -> Result<Vec<KeptCount>, StoreError> {
        let query = "SELECT rule, kept_for, COUNT(*) AS kept FROM kept_alerts WHERE kept_ms >= $1 \
             GROUP BY rule, kept_for ORDER BY rule, kept_for";
        let rows = self.database.fetch_all("counting kept findings", sql(query).bind(from_ms)).await?;
        let record = |row: &Row| {
            Ok(KeptCount {
                rule: column(row, "rule", KEPT)?,
                kept_for: column(row, "kept_for", KEPT)?,
                count: count_column(row, "kept", KEPT)?,
            })
        };
        rows.iter().map(record).collect()
    }

    /// Erases findings that were first kept before `before_ms`, with one entry in the hash-chained log. Gives how many.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn erase_kept(&self, before_ms: i64, now_ms: i64) -> Result<u64, StoreError> {
        // Who finds nothing due waits for nobody's turn: this is asked at every look.
        let due = sql("SELECT 1 FROM kept_alerts WHERE kept_ms < $1 LIMIT 1").bind(before_ms);
        if self.database.fetch_all("reading kept findings", due).await?.is_empty() {
            return Ok(0);
        }
        self.database
            .change("erasing kept findings", Turn::Work, |tx| async move {
                let gone = tx.execute(sql("DELETE FROM kept_alerts WHERE kept_ms < $1").bind(before_ms)).await?;
                if gone > 0 {
                    let detail =
                        json!({ "count": gone, "kept_before_ms": before_ms, "reason": "the life of kept findings is over" });
                    super::audit::append(&tx, None, "kept_findings_erased", &detail, now_ms).await?;
                }
                Ok(gone)
            })
            .await
    }

    /// Alerts told at `from_ms` or later that somebody has worked on.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn worked_on_since(&self, from_ms: i64) -> Result<Vec<JudgedRecord>, StoreError> {
        let query = "SELECT a.told_rule AS rule, a.told_version AS rule_version, a.told_ms AS told_ms, w.standing AS standing \
             FROM alert_work w JOIN alerts a ON a.fingerprint = w.fingerprint WHERE a.told_ms >= $1";
        let rows = self.database.fetch_all("reading verdicts", sql(query).bind(from_ms)).await?;
        let record = |row: &Row| {
            Ok(JudgedRecord {
                rule: column(row, "rule", "alerts")?,
                rule_version: small_column(row, "rule_version", "alerts")?,
                told_ms: column(row, "told_ms", "alerts")?,
                standing: column(row, "standing", "alert_work")?,
            })
        };
        rows.iter().map(record).collect()
    }

    /// Every demotion there ever was, by rule and version, the newest of each first.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn demotions(&self) -> Result<Vec<DemotionRecord>, StoreError> {
        let query = "SELECT rule, rule_version, demoted_ms, figures, restored_ms, restored_by, restored_note FROM demotions";
        let rows = self.database.fetch_all("reading demotions", sql(query)).await?;
        let mut found = rows.iter().map(demotion_of).collect::<Result<Vec<_>, _>>()?;
        found.sort_by(|a, b| {
            (&a.rule, a.rule_version, Reverse(a.demoted_ms)).cmp(&(&b.rule, b.rule_version, Reverse(b.demoted_ms)))
        });
        Ok(found)
    }

    /// Puts a version of a rule back in shadow, from the next commit on, with an entry in the hash-chained log that holds the figures, too.
    ///
    /// `lifted_ms`: the last lifting of an earlier demotion that was looked past, 0 for none. `false`: it is demoted already, or somebody has lifted
    /// a demotion since then; nothing was done.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn demote(
        &self,
        rule: &str,
        version: u32,
        figures: &Json,
        lifted_ms: i64,
        now_ms: i64,
    ) -> Result<bool, StoreError> {
        self.database
            .change("demoting a rule", Turn::Work, |tx| async move {
                let last = "SELECT COALESCE(MAX(restored_ms), 0) FROM demotions WHERE rule = $1 AND rule_version = $2";
                let last = tx.fetch_one(sql(last).bind(rule).bind(i64::from(version))).await?;
                if in_force(&tx, rule, version).await? || column::<i64, _>(&last, 0, DEMOTIONS)? != lifted_ms {
                    return Ok(false);
                }
                tx.execute(
                    sql("INSERT INTO demotions (rule, rule_version, demoted_ms, figures) VALUES ($1, $2, $3, $4)")
                        .bind(rule)
                        .bind(i64::from(version))
                        .bind(now_ms)
                        .bind(super::audit::canonical(figures)),
                )
                .await?;
                let detail = json!({ "rule": rule, "version": version, "figures": figures });
                super::audit::append(&tx, None, "rule_demoted", &detail, now_ms).await?;
                Ok(true)
            })
            .await
    }

    /// Lifts what demotions of a rule are in force; `by` and the rule go into the hash-chained log. Gives the versions it was lifted from.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn restore_rule(&self, rule: &str, by: &str, note: &str, now_ms: i64) -> Result<Vec<u32>, StoreError> {
        self.database
            .change("restoring a rule", Turn::Work, |tx| async move {
                let there = "SELECT rule_version FROM demotions WHERE rule = $1 AND restored_ms IS NULL ORDER BY rule_version";
                let there = tx.fetch_all(sql(there).bind(rule)).await?;
                let versions =
                    there.iter().map(|row| small_column(row, "rule_version", DEMOTIONS)).collect::<Result<Vec<u32>, _>>()?;
                if versions.is_empty() {
                    return Ok(versions);
                }
                tx.execute(
                    sql("UPDATE demotions SET restored_ms = $1, restored_by = $2, restored_note = $3 \
             WHERE rule = $4 AND restored_ms IS NULL")
                    .bind(now_ms)
                    .bind(by)
                    .bind(note)
                    .bind(rule),
                )
                .await?;
                let detail = json!({ "rule": rule, "versions": versions, "by": by });
                super::audit::append(&tx, None, "rule_restored", &detail, now_ms).await?;
                Ok(versions)
            })
            .await
    }
}

/// Whether a version of a rule is demoted.
pub(super) async fn in_force(tx: &Tx, rule: &str, version: u32) -> Result<bool, StoreError> {
    let there = "SELECT 1 FROM demotions WHERE rule = $1 AND rule_version = $2 AND restored_ms IS NULL";
    Ok(tx.fetch_optional(sql(there).bind(rule).bind(i64::from(version))).await?.is_some())
}

/// Why a finding is kept; `None`: it is not.
pub(super) async fn kept_for(tx: &Tx, fingerprint: &str) -> Result<Option<String>, StoreError> {
    let row = tx.fetch_optional(sql("SELECT kept_for FROM kept_alerts WHERE fingerprint = $1").bind(fingerprint)).await?;
    row.map(|row| column(&row, 0, KEPT)).transpose()
}

/// Keeps a finding, unless it is kept already as it is. Returns whether `position` was used.
pub(super) async fn keep(tx: &Tx, alert: &AlertRecord, reason: &str, position: i64, now_ms: i64) -> Result<bool, StoreError> {
    let done = tx
        .execute(
            sql("INSERT INTO kept_alerts (fingerprint, rule, rule_version, subject_kind, subject, severity, first_ms, last_ms, body, \
             position, kept_for, kept_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) \
             ON CONFLICT (fingerprint) DO UPDATE SET rule = excluded.rule, rule_version = excluded.rule_version, \
             subject_kind = excluded.subject_kind, subject = excluded.subject, severity = excluded.severity, \
             first_ms = excluded.first_ms, last_ms = excluded.last_ms, body = excluded.body, position = excluded.position, \
             kept_for = excluded.kept_for \
             WHERE kept_alerts.body <> excluded.body OR kept_alerts.kept_for <> excluded.kept_for")
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
            .bind(reason)
            .bind(now_ms),
        )
        .await?;
    Ok(done == 1)
}

fn demotion_of(row: &Row) -> Result<DemotionRecord, StoreError> {
    Ok(DemotionRecord {
        rule: column(row, "rule", DEMOTIONS)?,
        rule_version: small_column(row, "rule_version", DEMOTIONS)?,
        demoted_ms: column(row, "demoted_ms", DEMOTIONS)?,
        figures: column(row, "figures", DEMOTIONS)?,
        restored_ms: column(row, "restored_ms", DEMOTIONS)?,
        restored_by: column(row, "restored_by", DEMOTIONS)?,
        restored_note: column(row, "restored_note", DEMOTIONS)?,
    })
}
