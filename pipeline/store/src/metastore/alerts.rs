//! Integrity: checkpoints, alerts, and the outbox they are published from.
//!
//! A part's state, what it has read and the alerts that follow from it are committed together, so a crash neither loses an alert nor
//! raises one twice. Positions come from one counter inside the same transaction: whoever reads "after position p" misses nothing.

use starling_schemas::ids::Generation;

use super::Metastore;
use super::database::Turn;
use super::sql::{Row, Tx, column, small_column, sql};
use super::types::{AlertRecord, Checkpoint};
use crate::error::StoreError;

const PARTS: &str = "integrity_parts";
const ALERTS: &str = "alerts";

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

    /// Commits a part's state (a durable file), what it has read, and its alerts, all or nothing.
    ///
    /// Alerts are kept by fingerprint. One whose body is as it was keeps its position; a new or changed one goes to the end of the feed.
    ///
    /// # Errors
    /// [`StoreError::Fenced`]; [`StoreError::UnknownPartition`] before [`Self::take_integrity`]; [`StoreError::Database`].
    pub async fn commit_integrity(
        &self,
        part: &str,
        generation: Generation,
        state_path: &str,
        positions: &str,
        alerts: &[AlertRecord],
        now_ms: i64,
    ) -> Result<(), StoreError> {
        const DURING: &str = "committing an integrity part";
        self.database
            .change(DURING, Turn::Alerts, |tx| async move {
                if self::generation(&tx, part).await?.ok_or(StoreError::UnknownPartition)? != generation {
                    return Err(StoreError::Fenced);
                }
                tx.execute(
                    sql("UPDATE integrity_parts SET state_path = $1, positions = $2, seen_ms = $3, \
             committed_at_ms = $3 WHERE part = $4")
                    .bind(state_path)
                    .bind(positions)
                    .bind(now_ms)
                    .bind(part),
                )
                .await?;
                if !alerts.is_empty() {
                    let feed = tx.fetch_one(sql("SELECT last_position FROM alert_feed WHERE id = 1")).await?;
                    let first: i64 = column(&feed, 0, "alert_feed")?;
                    let mut last = first;
                    for alert in alerts {
                        if upsert(&tx, alert, last + 1).await? {
                            last += 1;
                        }
                    }
                    tx.execute(sql("UPDATE alert_feed SET last_position = $1 WHERE id = 1").bind(last)).await?;
                }
                Ok(())
            })
            .await
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

/// Writes an alert unless its body is as it was. Returns whether `position` was used.
async fn upsert(tx: &Tx, alert: &AlertRecord, position: i64) -> Result<bool, StoreError> {
    let done = tx
        .execute(
            sql("INSERT INTO alerts (fingerprint, rule, rule_version, subject_kind, subject, \
             severity, first_ms, last_ms, body, position, published_position) VALUES ($1, $2, $3, \
             $4, $5, $6, $7, $8, $9, $10, 0) ON CONFLICT (fingerprint) DO UPDATE SET rule = \
             excluded.rule, rule_version = excluded.rule_version, subject_kind = \
             excluded.subject_kind, subject = excluded.subject, severity = excluded.severity, \
             first_ms = excluded.first_ms, last_ms = excluded.last_ms, body = excluded.body, \
             position = excluded.position WHERE alerts.body <> excluded.body")
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

async fn generation(tx: &Tx, part: &str) -> Result<Option<Generation>, StoreError> {
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
