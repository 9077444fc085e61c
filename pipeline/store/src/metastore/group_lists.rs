//! Which lists of hashes groups are held against: the version in force, and those that open plans name.
//!
//! A setting names a file, and each plan names the version that was in force when it was made. So a range that is replayed, by whatever process and with
//! whatever file, gives the same signals (I9). What the versions hold is `minimize`'s; here they are text.

use super::Metastore;
use super::database::Turn;
use super::sql::{Tx, column, sql};
use crate::error::StoreError;

const TABLE: &str = "group_lists";

impl Metastore {
    /// Puts lists in force for the plans made from now on, in place of those that are, and forgets versions that no open plan names. `None`: none. Says
    /// whether they are others than before.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn put_group_lists(&self, content: Option<&str>, now_ms: i64) -> Result<bool, StoreError> {
        self.database
            .change("putting lists of groups in force", Turn::Closing, |tx| async move {
                let current = current(&tx).await?;
                let before = match current {
                    Some(version) => Some(load(&tx, version).await?),
                    None => None,
                };
                let is_another = before.as_deref() != content;
                if is_another {
                    put(&tx, content, now_ms).await?;
                }
                tx.execute(sql("DELETE FROM group_lists WHERE version NOT IN (SELECT group_lists FROM closing WHERE group_lists IS NOT NULL) \
                     AND version NOT IN (SELECT plan_group_lists FROM partitions WHERE plan_group_lists IS NOT NULL)"))
                    .await?;
                Ok(is_another)
            })
            .await
    }

    /// The content of a version: one that is in force, or that an open plan names.
    ///
    /// # Errors
    /// [`StoreError::Database`]; [`StoreError::UnreadableRow`], also for a version that is not there.
    pub async fn group_lists(&self, version: i64) -> Result<String, StoreError> {
        let tx = self.database.snapshot("reading lists of groups").await?;
        let content = load(&tx, version).await?;
        tx.rollback().await;
        Ok(content)
    }
}

/// The version in force.
pub(super) async fn current(tx: &Tx) -> Result<Option<i64>, StoreError> {
    let row = tx.fetch_one(sql("SELECT group_lists FROM closing WHERE id = 1")).await?;
    column(&row, "group_lists", "closing")
}

async fn load(tx: &Tx, version: i64) -> Result<String, StoreError> {
    let row = tx.fetch_optional(sql("SELECT content FROM group_lists WHERE version = $1").bind(version)).await?;
    column(&row.ok_or(StoreError::UnreadableRow { table: TABLE })?, "content", TABLE)
}

async fn put(tx: &Tx, content: Option<&str>, now_ms: i64) -> Result<(), StoreError> {
    let Some(content) = content else {
        tx.execute(sql("UPDATE closing SET group_lists = NULL WHERE id = 1")).await?;
        return Ok(());
    };
    tx.execute(sql(
        "UPDATE closing SET group_lists_made = group_lists_made + 1, group_lists = group_lists_made + 1 WHERE id = 1",
    ))
    .await?;
    let version = current(tx).await?.ok_or(StoreError::UnreadableRow { table: "closing" })?;
    let insert = "INSERT INTO group_lists (version, content, since_ms) VALUES ($1, $2, $3)";
    tx.execute(sql(insert).bind(version).bind(content).bind(now_ms)).await?;
    Ok(())
}
