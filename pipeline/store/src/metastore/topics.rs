//! Which log a source is read from, and what happens when an operator accepts that it is no longer the one that was read.
//!
//! Progress is offsets, and offsets mean something within one log only. So the topic's id is kept beside them, and a stop that no program
//! may get over by itself (the log was made anew, cut short, or lost what was not read yet) is got over here, by one transaction that says
//! in the audit log what is given up.

use std::collections::BTreeMap;

use serde_json::json;
use starling_schemas::ids::{Generation, Offset, PartitionId};

use super::database::Turn;
use super::sql::{Tx, column, sql};
use super::types::{AcceptedLoss, Restarted};
use super::{Metastore, audit, progress};
use crate::error::StoreError;

const TABLE: &str = "topics";

impl Metastore {
    /// The id under which the topic of `source` was first read. If none is kept, this keeps `topic_id`.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn keep_topic_id(&self, source: &str, topic_id: &str, now_ms: i64) -> Result<String, StoreError> {
        self.database
            .change("keeping a topic's id", Turn::Progress, |tx| async move {
                let insert =
                    "INSERT INTO topics (source, topic_id, since_ms) VALUES ($1, $2, $3) ON CONFLICT (source) DO NOTHING";
                tx.execute(sql(insert).bind(source).bind(topic_id).bind(now_ms)).await?;
                let row = tx.fetch_one(sql("SELECT topic_id FROM topics WHERE source = $1").bind(source)).await?;
                column(&row, "topic_id", TABLE)
            })
            .await
    }

    /// The kept ids, by source.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn topic_ids(&self) -> Result<BTreeMap<String, String>, StoreError> {
        let statement = sql("SELECT source, topic_id FROM topics ORDER BY source COLLATE \"C\"");
        let rows = self.database.fetch_all("reading topics' ids", statement).await?;
        rows.iter().map(|row| Ok((column(row, "source", TABLE)?, column(row, "topic_id", TABLE)?))).collect()
    }

    /// Notes where the partition ends, and how far its log is known to be the one that was read: the message before the checkpoint's offset was
    /// written under its leader epoch. One small durable write; see [`Self::note_position`].
    ///
    /// # Errors
    /// [`StoreError::Fenced`], also for a partition nobody took; [`StoreError::Database`].
    pub async fn note_log(
        &self,
        partition: &PartitionId,
        generation: Generation,
        end_offset: Offset,
        checkpoint: Option<(Offset, i32)>,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let Some((at, epoch)) = checkpoint else {
            return self.note_position(partition, generation, end_offset, now_ms).await;
        };
        self.database
            .change("noting a partition's log", Turn::Progress, |tx| async move {
                let update = "UPDATE partitions SET end_offset = $1, seen_ms = $2, checkpoint = $3, checkpoint_epoch = $4 \
                     WHERE source = $5 AND number = $6 AND generation = $7";
                let statement = sql(update)
                    .bind(end_offset.0)
                    .bind(now_ms)
                    .bind(at.0)
                    .bind(i64::from(epoch))
                    .bind(&partition.source)
                    .bind(i64::from(partition.partition))
                    .bind(generation.0);
                (tx.execute(statement).await? == 1).then_some(()).ok_or(StoreError::Fenced)
            })
            .await
    }

    /// The checkpoint noted last: see [`Self::note_log`].
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn log_checkpoint(&self, partition: &PartitionId) -> Result<Option<(Offset, i32)>, StoreError> {
        const TABLE: &str = "partitions";
        let statement = sql("SELECT checkpoint, checkpoint_epoch FROM partitions WHERE source = $1 AND number = \
             $2")
        .bind(&partition.source)
        .bind(i64::from(partition.partition));
        let rows = self.database.fetch_all("reading a partition's checkpoint", statement).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let at: Option<i64> = column(row, "checkpoint", TABLE)?;
        let epoch: Option<i64> = column(row, "checkpoint_epoch", TABLE)?;
        let epoch = epoch.map(|e| i32::try_from(e).map_err(|_| StoreError::UnreadableRow { table: TABLE })).transpose()?;
        Ok(at.map(Offset).zip(epoch))
    }

    /// Lets partitions of `source` begin elsewhere, because an operator accepts what is lost. Owners of them are fenced. An open plan, which can
    /// never be replayed, is given up together with its sequence number, so that no file or signal of it is mistaken for another's. What was
    /// counted stays counted. All of it is one entry of the audit log, in the same transaction.
    ///
    /// With another topic id, quarantine rows of the old topic move to the source `<source>@<old id>`: their offsets are of that log.
    ///
    /// # Errors
    /// [`StoreError::UnknownPartition`] for a partition that was never taken; [`StoreError::Database`]; [`StoreError::UnreadableRow`].
    pub async fn accept_loss(&self, source: &str, loss: &AcceptedLoss, now_ms: i64) -> Result<Vec<Restarted>, StoreError> {
        self.database.change("accepting a loss", Turn::Loss, |tx| accept(tx, source, loss, now_ms)).await
    }
}

async fn accept(tx: Tx, source: &str, loss: &AcceptedLoss, now_ms: i64) -> Result<Vec<Restarted>, StoreError> {
    let mut restarted = Vec::with_capacity(loss.starts.len());
    for (number, start) in &loss.starts {
        let partition = PartitionId { source: source.to_owned(), partition: *number };
        let mut progress = progress::load(&tx, &partition).await?.ok_or(StoreError::UnknownPartition)?;
        let before = progress.restart(*start);
        let update = "UPDATE partitions SET generation = $1, owner = '', next_offset = $2, next_sequence = $3, end_offset = NULL, \
             checkpoint = NULL, checkpoint_epoch = NULL, seen_ms = $4, plan_from = NULL, plan_to = NULL, plan_closed_through = NULL, \
             plan_hours_after = NULL, plan_group_lists = NULL, planned_at_ms = NULL WHERE source = $5 AND number = $6";
        let statement = sql(update)
            .bind(progress.generation.0)
            .bind(progress.next_offset.map(|o| o.0))
            .bind(progress.next_sequence.0)
            .bind(now_ms)
            .bind(source)
            .bind(i64::from(*number));
        tx.execute(statement).await?;
        restarted.push(Restarted {
            partition,
            was_next: before.next_offset,
            given_up: before.plan.map(|plan| (plan.from, plan.to)),
            begins: *start,
        });
    }
    let row = tx.fetch_optional(sql("SELECT topic_id FROM topics WHERE source = $1").bind(source)).await?;
    let old_id: Option<String> = row.map(|row| column(&row, "topic_id", TABLE)).transpose()?;
    let new_id = loss.topic_id.as_ref().filter(|new| Some(*new) != old_id.as_ref());
    if let Some(new_id) = new_id {
        let upsert = "INSERT INTO topics (source, topic_id, since_ms) VALUES ($1, $2, $3) \
             ON CONFLICT (source) DO UPDATE SET topic_id = excluded.topic_id, since_ms = excluded.since_ms";
        tx.execute(sql(upsert).bind(source).bind(new_id).bind(now_ms)).await?;
        if let Some(old_id) = &old_id {
            let update = sql("UPDATE quarantine SET source = $1 WHERE source = $2");
            tx.execute(update.bind(format!("{source}@{old_id}")).bind(source)).await?;
        }
    }
    let offset = |offset: Option<Offset>| offset.map_or(json!("beginning"), |o| json!(o.0));
    let partitions: Vec<_> = restarted
        .iter()
        .map(|r| {
            json!({
                "partition": r.partition.partition,
                "was_next": offset(r.was_next),
                "planned_and_given_up": r.given_up.map(|(from, to)| json!([from.0, to.0])),
                "begins": offset(r.begins),
            })
        })
        .collect();
    let detail = json!({ "source": source, "partitions": partitions, "old_topic": new_id.and(old_id), "new_topic": new_id });
    audit::append(&tx, None, "loss_accepted", &detail, now_ms).await?;
    Ok(restarted)
}
