//! Deliveries: alerts on their way to receivers outside, and which process sends them.
//!
//! **One sends at a time.** [`Metastore::take_sending`] gives the next generation; every other write here names its generation and is
//! refused with [`StoreError::Fenced`] when a later one was given. What a fenced process had already put on the wire may arrive twice, under
//! the same id.
//!
//! **Nothing leaves unlogged (I6).** Deliveries are queued in one transaction with their entry in the hash-chained log and with the receiver's
//! place in the feed, and only what is queued is sent. So a crash neither skips an alert nor sends one that no entry tells of.

use serde_json::json;
use starling_schemas::ids::Generation;

use super::Metastore;
use super::database::Turn;
use super::sql::{Row, Statement, Tx, Value, column, sql};
use super::types::{Delivery, DeliveryEnd, DeliveryRecord, ReceiverRecord, SenderRecord};
use crate::error::StoreError;

const SENDING: &str = "sending";
const DELIVERIES: &str = "deliveries";
/// How long a delivery is kept that could not be made (P42).
const KEPT_MS: i64 = 30 * 86_400_000;

impl Metastore {
    /// Makes `owner` the process that sends, and fences the one before it. The first generation is 1.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn take_sending(&self, owner: &str, now_ms: i64) -> Result<Generation, StoreError> {
        self.database
            .change("taking the sending of alerts", Turn::Sending, |tx| async move {
                let next = Generation(generation(&tx).await?.0 + 1);
                let take = "UPDATE sending SET generation = $1, owner = $2, seen_ms = $3 WHERE id = 1";
                tx.execute(sql(take).bind(next.0).bind(owner).bind(now_ms)).await?;
                Ok(next)
            })
            .await
    }

    /// Says that the sender of this generation is alive, and forgets deliveries of more than 30 days ago (P42).
    ///
    /// # Errors
    /// [`StoreError::Fenced`], [`StoreError::Database`].
    pub async fn keep_sending(&self, own: Generation, now_ms: i64) -> Result<(), StoreError> {
        self.database
            .change("keeping the sending of alerts", Turn::Sending, |tx| async move {
                fence(&tx, own).await?;
                tx.execute(sql("UPDATE sending SET seen_ms = $1 WHERE id = 1").bind(now_ms)).await?;
                tx.execute(sql("DELETE FROM deliveries WHERE made_ms < $1").bind(now_ms.saturating_sub(KEPT_MS))).await?;
                Ok(())
            })
            .await
    }

    /// Who sends, and when it was last heard of.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn sender(&self) -> Result<SenderRecord, StoreError> {
        let query = "SELECT generation, owner, seen_ms FROM sending WHERE id = 1";
        let rows = self.database.fetch_all("reading who sends alerts", sql(query)).await?;
        let row = rows.first().ok_or(StoreError::UnreadableRow { table: SENDING })?;
        Ok(SenderRecord {
            generation: Generation(column(row, "generation", SENDING)?),
            owner: column(row, "owner", SENDING)?,
            seen_ms: column(row, "seen_ms", SENDING)?,
        })
    }

    /// How far a receiver has come in the feed. `None`: it has never been met.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn receiver(&self, name: &str) -> Result<Option<ReceiverRecord>, StoreError> {
        let query = "SELECT position, began_at FROM receivers WHERE name = $1";
        let rows = self.database.fetch_all("reading a receiver", sql(query).bind(name)).await?;
        let record = |row: &Row| {
            Ok(ReceiverRecord {
                position: column(row, "position", "receivers")?,
                began_at: column(row, "began_at", "receivers")?,
            })
        };
        rows.first().map(record).transpose()
    }

    /// Moves a receiver's place in the feed to `position`, queues `deliveries`, and writes how many there are into the hash-chained log: all or
    /// nothing. A receiver that was never met is made known, with the feed's present end. A delivery that is queued already stays as it is.
    ///
    /// # Errors
    /// [`StoreError::Fenced`], [`StoreError::Database`].
    pub async fn queue_deliveries(
        &self,
        own: Generation,
        receiver: &str,
        position: i64,
        deliveries: &[Delivery],
        now_ms: i64,
    ) -> Result<(), StoreError> {
        self.database
            .change("queueing deliveries", Turn::Queue, |tx| async move {
                fence(&tx, own).await?;
                let feed = tx.fetch_one(sql("SELECT last_position FROM alert_feed WHERE id = 1")).await?;
                let end: i64 = column(&feed, 0, "alert_feed")?;
                tx.execute(
                    sql("INSERT INTO receivers (name, position, began_at) VALUES ($1, $2, $3) ON CONFLICT (name) DO UPDATE SET \
             position = excluded.position")
                    .bind(receiver)
                    .bind(position)
                    .bind(end),
                )
                .await?;
                if deliveries.is_empty() {
                    return Ok(());
                }
                let row = |d: &Delivery| -> [Value; 8] {
                    let (id, body): (Value, Value) = (d.id.as_str().into(), d.body.as_str().into());
                    [receiver.into(), id, body, now_ms.into(), 0_i64.into(), now_ms.into(), 0_i64.into(), None::<&str>.into()]
                };
                tx.execute(Statement::rows(
                    "INSERT INTO deliveries (receiver, id, body, made_ms, attempts, next_ms, dead, fault) ",
                    deliveries.iter().map(row),
                    " ON CONFLICT (receiver, id) DO NOTHING",
                ))
                .await?;
                let detail = json!({ "what": "alerts", "door": receiver, "count": deliveries.len() });
                super::audit::append(&tx, None, "integrity_read", &detail, now_ms).await?;
                Ok(())
            })
            .await
    }

    /// The deliveries to a receiver whose time has come, the longest due first, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn due_deliveries(&self, receiver: &str, now_ms: i64, limit: u32) -> Result<Vec<DeliveryRecord>, StoreError> {
        let query = "SELECT receiver, id, body, made_ms, attempts, next_ms, dead, fault FROM deliveries \
             WHERE receiver = $1 AND dead = 0 AND next_ms <= $2 ORDER BY next_ms, made_ms, id LIMIT $3";
        let query = sql(query).bind(receiver).bind(now_ms).bind(i64::from(limit));
        let rows = self.database.fetch_all("reading what is to be delivered", query).await?;
        rows.iter().map(delivery_of).collect()
    }

    /// Notes how an attempt ended. A delivery that is no longer there, or was given up meanwhile, stays so.
    ///
    /// # Errors
    /// [`StoreError::Fenced`], [`StoreError::Database`].
    pub async fn note_delivery(&self, own: Generation, receiver: &str, id: &str, end: &DeliveryEnd) -> Result<(), StoreError> {
        self.database
            .change("noting a delivery", Turn::Sending, |tx| async move {
                fence(&tx, own).await?;
                let change = match end {
                    DeliveryEnd::Done => sql("DELETE FROM deliveries WHERE receiver = $1 AND id = $2").bind(receiver).bind(id),
                    DeliveryEnd::Again { next_ms, fault } => {
                        let again = "UPDATE deliveries SET attempts = attempts + 1, next_ms = $3, fault = $4 \
             WHERE receiver = $1 AND id = $2 AND dead = 0";
                        sql(again).bind(receiver).bind(id).bind(*next_ms).bind(fault)
                    }
                    DeliveryEnd::Dead { fault } => {
                        let dead = "UPDATE deliveries SET attempts = attempts + 1, dead = 1, fault = $3 \
             WHERE receiver = $1 AND id = $2";
                        sql(dead).bind(receiver).bind(id).bind(fault)
                    }
                };
                tx.execute(change).await?;
                Ok(())
            })
            .await
    }

    /// What is waiting to be delivered or, when `dead`, what was given up: oldest first, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn deliveries(&self, dead: bool, limit: u32) -> Result<Vec<DeliveryRecord>, StoreError> {
        let query = "SELECT receiver, id, body, made_ms, attempts, next_ms, dead, fault FROM deliveries \
             WHERE dead = $1 ORDER BY made_ms, receiver, id LIMIT $2";
        let query = sql(query).bind(i64::from(dead)).bind(i64::from(limit));
        let rows = self.database.fetch_all("reading deliveries", query).await?;
        rows.iter().map(delivery_of).collect()
    }

    /// How many deliveries wait, and how many were given up.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn delivery_counts(&self) -> Result<(u64, u64), StoreError> {
        let query = "SELECT dead, COUNT(*) FROM deliveries GROUP BY dead";
        let (mut waiting, mut given_up) = (0, 0);
        for row in &self.database.fetch_all("counting deliveries", sql(query)).await? {
            let (dead, count): (i64, i64) = (column(row, 0, DELIVERIES)?, column(row, 1, DELIVERIES)?);
            *(if dead == 0 { &mut waiting } else { &mut given_up }) = u64::try_from(count).unwrap_or(0);
        }
        Ok((waiting, given_up))
    }

    /// Brings what was given up back into the queue, with all its tries and under the same id: the delivery `id`, or all there are; to `receiver`,
    /// or to all. `by` goes into the hash-chained log. Gives how many.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn resend_deliveries(
        &self,
        id: Option<&str>,
        receiver: Option<&str>,
        by: &str,
        now_ms: i64,
    ) -> Result<u64, StoreError> {
        self.database
            .change("sending deliveries again", Turn::Queue, |tx| async move {
                let again = "UPDATE deliveries SET attempts = 0, next_ms = $1, dead = 0, fault = NULL WHERE dead = 1 \
             AND (id = $2 OR $2 IS NULL) AND (receiver = $3 OR $3 IS NULL)";
                let done = tx.execute(sql(again).bind(now_ms).bind(id).bind(receiver)).await?;
                if done > 0 {
                    let detail = json!({ "what": "alerts", "count": done, "receiver": receiver, "by": by });
                    super::audit::append(&tx, None, "alerts_sent_again", &detail, now_ms).await?;
                }
                Ok(done)
            })
            .await
    }
}

async fn generation(tx: &Tx) -> Result<Generation, StoreError> {
    let row = tx.fetch_one(sql("SELECT generation FROM sending WHERE id = 1")).await?;
    column(&row, 0, SENDING).map(Generation)
}

async fn fence(tx: &Tx, own: Generation) -> Result<(), StoreError> {
    if generation(tx).await? == own { Ok(()) } else { Err(StoreError::Fenced) }
}

fn delivery_of(row: &Row) -> Result<DeliveryRecord, StoreError> {
    Ok(DeliveryRecord {
        receiver: column(row, "receiver", DELIVERIES)?,
        id: column(row, "id", DELIVERIES)?,
        body: column(row, "body", DELIVERIES)?,
        made_ms: column(row, "made_ms", DELIVERIES)?,
        attempts: column(row, "attempts", DELIVERIES)?,
        next_ms: column(row, "next_ms", DELIVERIES)?,
        dead: column::<i64, _>(row, "dead", DELIVERIES)? != 0,
        fault: column(row, "fault", DELIVERIES)?,
    })
}
