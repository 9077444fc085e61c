//! The work on alerts: steps that people take, where each alert stands after them, and silences.
//!
//! A step is written together with its entry in the hash-chained log, so that none is taken unseen (I6). Who takes a step says which one it
//! is; when somebody was quicker nothing is written, and the alert is looked at again. What a step means is the integrity room's matter: here
//! it is text.

use serde_json::json;

use super::Metastore;
use super::alerts::{alert_of, select_alerts};
use super::database::Turn;
use super::sql::{Row, Tx, column, sql};
use super::types::{AlertRecord, SilenceRecord, StepRecord, WorkRecord};
use crate::error::StoreError;

const WORK: &str = "alert_work";
const STEPS: &str = "alert_steps";
const SILENCES: &str = "silences";

impl Metastore {
    /// The alerts whose fingerprint begins with `prefix` (hexadecimal digits), at most `limit`, in order of their fingerprints.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn alerts_named(&self, prefix: &str, limit: u32) -> Result<Vec<AlertRecord>, StoreError> {
        // Behind the last hexadecimal digit in both databases' orders of these texts.
        let beyond = format!("{prefix}g");
        let rows = self
            .database
            .fetch_all(
                "reading alerts by fingerprint",
                sql(select_alerts!("WHERE fingerprint >= $1 AND fingerprint < $2 ORDER BY fingerprint LIMIT $3"))
                    .bind(prefix)
                    .bind(&beyond)
                    .bind(i64::from(limit)),
            )
            .await?;
        rows.iter().map(alert_of).collect()
    }

    /// Where the work stands on each alert of the feed after one position up to another. Alerts that nobody did anything about are not there.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn work_between(&self, after: i64, up_to: i64) -> Result<Vec<WorkRecord>, StoreError> {
        let rows = self
            .database
            .fetch_all(
                "reading the work on alerts",
                sql("SELECT w.fingerprint AS fingerprint, w.step AS step, w.standing AS standing, w.updated_ms AS updated_ms \
             FROM alert_work w JOIN alerts a ON a.fingerprint = w.fingerprint WHERE a.position > $1 AND a.position <= $2")
                .bind(after)
                .bind(up_to),
            )
            .await?;
        rows.iter().map(work_of).collect()
    }

    /// Where the work stands on one alert.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn work_on(&self, fingerprint: &str) -> Result<Option<WorkRecord>, StoreError> {
        let query = "SELECT fingerprint, step, standing, updated_ms FROM alert_work WHERE fingerprint = $1";
        let rows = self.database.fetch_all("reading the work on an alert", sql(query).bind(fingerprint)).await?;
        rows.first().map(work_of).transpose()
    }

    /// Every step taken on an alert, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn steps_on(&self, fingerprint: &str) -> Result<Vec<StepRecord>, StoreError> {
        let query = "SELECT fingerprint, step, at_ms, by_whom, body FROM alert_steps WHERE fingerprint = $1 ORDER BY step";
        let rows = self.database.fetch_all("reading the steps on an alert", sql(query).bind(fingerprint)).await?;
        rows.iter().map(step_of).collect()
    }

    /// Takes a step: `step.step` must be one more than the last one taken, 1 for the first. The alert goes to the end of the feed, so that who
    /// follows it sees where it stands, and `name` of the step goes into the hash-chained log with it.
    ///
    /// # Errors
    /// [`StoreError::StepTaken`] when somebody was quicker; [`StoreError::NoAlert`]; [`StoreError::Database`].
    pub async fn take_step(&self, step: &StepRecord, name: &str, standing: &str) -> Result<(), StoreError> {
        self.database
            .change("taking a step on an alert", Turn::Work, |tx| async move {
                let alert = "SELECT rule FROM alerts WHERE fingerprint = $1";
                let alert = tx.fetch_optional(sql(alert).bind(&step.fingerprint)).await?.ok_or(StoreError::NoAlert)?;
                let rule: String = column(&alert, 0, "alerts")?;
                let last =
                    tx.fetch_optional(sql("SELECT step FROM alert_work WHERE fingerprint = $1").bind(&step.fingerprint)).await?;
                let last: i64 = last.map_or(Ok(0), |row| column(&row, 0, WORK))?;
                if step.step != last + 1 {
                    return Err(StoreError::StepTaken);
                }
                tx.execute(
                    sql("INSERT INTO alert_steps (fingerprint, step, at_ms, by_whom, body) VALUES ($1, $2, $3, $4, $5)")
                        .bind(&step.fingerprint)
                        .bind(step.step)
                        .bind(step.at_ms)
                        .bind(&step.by)
                        .bind(&step.body),
                )
                .await?;
                tx.execute(
                    sql("INSERT INTO alert_work (fingerprint, step, standing, updated_ms) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (fingerprint) DO UPDATE SET step = excluded.step, standing = excluded.standing, \
             updated_ms = excluded.updated_ms")
                    .bind(&step.fingerprint)
                    .bind(step.step)
                    .bind(standing)
                    .bind(step.at_ms),
                )
                .await?;
                to_the_end(&tx, &step.fingerprint).await?;
                let detail = json!({ "alert": step.fingerprint, "rule": rule, "step": name, "number": step.step, "by": step.by });
                super::audit::append(&tx, None, "alert_step", &detail, step.at_ms).await?;
                Ok(())
            })
            .await
    }

    /// Makes a silence, or puts another in place of the one there is; `by` and the rule go into the hash-chained log.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn silence(&self, silence: &SilenceRecord, by: &str, now_ms: i64) -> Result<(), StoreError> {
        self.database
            .change("silencing a rule", Turn::Work, |tx| async move {
                tx.execute(
                    sql("INSERT INTO silences (rule, subject_kind, subject, until_ms, body) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (rule, subject_kind, subject) DO UPDATE SET until_ms = excluded.until_ms, body = excluded.body")
                    .bind(&silence.rule)
                    .bind(&silence.subject_kind)
                    .bind(&silence.subject)
                    .bind(silence.until_ms)
                    .bind(&silence.body),
                )
                .await?;
                let detail =
                    json!({ "rule": silence.rule, "subject_kind": silence.subject_kind, "until_ms": silence.until_ms, "by": by });
                super::audit::append(&tx, None, "alert_silenced", &detail, now_ms).await?;
                Ok(())
            })
            .await
    }

    /// Ends a silence before its time. `false`: there was none.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn end_silence(&self, silence: &SilenceRecord, by: &str, now_ms: i64) -> Result<bool, StoreError> {
        self.database
            .change("ending a silence", Turn::Work, |tx| async move {
                let there = "SELECT 1 FROM silences WHERE rule = $1 AND subject_kind = $2 AND subject = $3 AND until_ms > $4";
                let there = sql(there).bind(&silence.rule).bind(&silence.subject_kind).bind(&silence.subject).bind(now_ms);
                if tx.fetch_optional(there).await?.is_none() {
                    return Ok(false);
                }
                let gone = "DELETE FROM silences WHERE rule = $1 AND subject_kind = $2 AND subject = $3";
                tx.execute(sql(gone).bind(&silence.rule).bind(&silence.subject_kind).bind(&silence.subject)).await?;
                let detail = json!({ "rule": silence.rule, "subject_kind": silence.subject_kind, "by": by });
                super::audit::append(&tx, None, "alert_silence_ended", &detail, now_ms).await?;
                Ok(true)
            })
            .await
    }

    /// The silences that have not ended, in order of rule and subject.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn silences(&self, now_ms: i64) -> Result<Vec<SilenceRecord>, StoreError> {
        let query = "SELECT rule, subject_kind, subject, until_ms, body FROM silences WHERE until_ms > $1 \
             ORDER BY rule, subject_kind, subject";
        let rows = self.database.fetch_all("reading silences", sql(query).bind(now_ms)).await?;
        rows.iter()
            .map(|row| {
                Ok(SilenceRecord {
                    rule: column(row, "rule", SILENCES)?,
                    subject_kind: column(row, "subject_kind", SILENCES)?,
                    subject: column(row, "subject", SILENCES)?,
                    until_ms: column(row, "until_ms", SILENCES)?,
                    body: column(row, "body", SILENCES)?,
                })
            })
            .collect()
    }
}

/// Moves an alert to the end of the feed. What was published stays published: the alert itself has not changed.
async fn to_the_end(tx: &Tx, fingerprint: &str) -> Result<(), StoreError> {
    let feed = tx.fetch_one(sql("SELECT last_position FROM alert_feed WHERE id = 1")).await?;
    let position: i64 = column::<i64, _>(&feed, 0, "alert_feed")? + 1;
    tx.execute(
        sql(
            "UPDATE alerts SET published_position = CASE WHEN published_position = position THEN $1 ELSE published_position END, \
             position = $1 WHERE fingerprint = $2",
        )
        .bind(position)
        .bind(fingerprint),
    )
    .await?;
    tx.execute(sql("UPDATE alert_feed SET last_position = $1 WHERE id = 1").bind(position)).await?;
    Ok(())
}

fn work_of(row: &Row) -> Result<WorkRecord, StoreError> {
    Ok(WorkRecord {
        fingerprint: column(row, "fingerprint", WORK)?,
        step: column(row, "step", WORK)?,
        standing: column(row, "standing", WORK)?,
        updated_ms: column(row, "updated_ms", WORK)?,
    })
}

fn step_of(row: &Row) -> Result<StepRecord, StoreError> {
    Ok(StepRecord {
        fingerprint: column(row, "fingerprint", STEPS)?,
        step: column(row, "step", STEPS)?,
        at_ms: column(row, "at_ms", STEPS)?,
        by: column(row, "by_whom", STEPS)?,
        body: column(row, "body", STEPS)?,
    })
}
