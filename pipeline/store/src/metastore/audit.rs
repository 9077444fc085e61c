//! The hash-chained log (I6).
//!
//! ```text
//!  hash(n) = BLAKE3( hash(n-1) ‖ {"at_ms":…,"detail":…,"kind":"…","sequence":n} )        hash(0) = 32 zero bytes
//! ```
//!
//! The text that is hashed is canonical JSON: no spaces, keys in order of their bytes. An entry that is changed, moved or removed breaks the
//! chain from there on; the head is kept beside it, so entries cut from the end are missed too. Whoever can write the whole database
//! can also write a whole new chain: publish a hash now and then where they cannot write.

use serde_json::Value;

use super::Metastore;
use super::database::Turn;
use super::sql::{Row, Tx, column, sql};
use super::types::{AuditEntry, AuditPage};
use crate::error::StoreError;

const TABLE: &str = "audit";
const HEAD: &str = "audit_head";
/// Entries read at once while verifying.
const PAGE: i64 = 1000;

/// JSON without spaces and with keys in order, whatever order the map keeps.
pub(super) fn canonical(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| key.as_bytes());
            let entries: Vec<_> =
                entries.into_iter().map(|(key, value)| format!("{}:{}", Value::from(key.as_str()), canonical(value))).collect();
            format!("{{{}}}", entries.join(","))
        }
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(canonical).collect();
            format!("[{}]", items.join(","))
        }
        scalar => scalar.to_string(),
    }
}

/// The next hash. `detail` is the canonical text as it is stored, so that verifying never depends on reading numbers back.
pub(super) fn link(before: &blake3::Hash, sequence: i64, at_ms: i64, kind: &str, detail: &str) -> blake3::Hash {
    let kind = Value::from(kind);
    let text = format!(r#"{{"at_ms":{at_ms},"detail":{detail},"kind":{kind},"sequence":{sequence}}}"#);
    blake3::Hasher::new().update(before.as_bytes()).update(text.as_bytes()).finalize()
}

impl Metastore {
    /// Appends an entry. `detail` must hold no identifier of a subject (P44).
    ///
    /// # Errors
    /// [`StoreError::Database`]: then what was to be logged must not be served (I6). [`StoreError::BrokenChain`] when the head is no hash.
    pub async fn append_audit(&self, kind: &str, detail: Value, now_ms: i64) -> Result<AuditEntry, StoreError> {
        const DURING: &str = "appending to the audit log";
        let detail = &detail;
        self.database.change(DURING, Turn::Audit, |tx| async move { append(&tx, None, kind, detail, now_ms).await }).await
    }

    /// Appends an entry unless one was appended under `once` before. `None`: there was one.
    ///
    /// # Errors
    /// As [`Self::append_audit`].
    pub async fn append_audit_once(
        &self,
        once: &str,
        kind: &str,
        detail: Value,
        now_ms: i64,
    ) -> Result<Option<AuditEntry>, StoreError> {
        const DURING: &str = "appending to the audit log";
        // Entries stay: who finds one need not wait for its turn. Windows that closed ask at every look, and of hours there are many.
        let there = sql("SELECT 1 FROM audit WHERE once_key = $1").bind(once);
        if !self.database.fetch_all("reading the audit log", there).await?.is_empty() {
            return Ok(None);
        }
        let detail = &detail;
        self.database
            .change(DURING, Turn::Audit, |tx| async move {
                let before = tx.fetch_optional(sql("SELECT 1 FROM audit WHERE once_key = $1").bind(once)).await?;
                if before.is_some() {
                    return Ok(None);
                }
                append(&tx, Some(once), kind, detail, now_ms).await.map(Some)
            })
            .await
    }

    /// Computes the whole chain again, and returns how many entries it has. Memory is flat.
    ///
    /// # Errors
    /// [`StoreError::BrokenChain`] with the first entry that does not verify; [`StoreError::Database`].
    pub async fn verify_audit(&self) -> Result<u64, StoreError> {
        const DURING: &str = "verifying the audit log";
        // One transaction: head and entries are of the same moment.
        let tx = self.database.snapshot(DURING).await?;
        let head = tx.fetch_one(sql("SELECT sequence, hash FROM audit_head WHERE id = 1")).await?;
        let (head_sequence, head_hash): (i64, String) = (column(&head, 0, HEAD)?, column(&head, 1, HEAD)?);
        let mut sequence = 0;
        let mut hash = blake3::Hash::from_bytes([0; 32]);
        let mut after = i64::MIN;
        loop {
            let page = "SELECT sequence, at_ms, kind, detail, hash FROM audit WHERE sequence > $1 ORDER BY sequence LIMIT $2";
            let rows = tx.fetch_all(sql(page).bind(after).bind(PAGE)).await?;
            for row in &rows {
                let expected = sequence + 1;
                let broken = |_: StoreError| StoreError::BrokenChain { sequence: expected };
                let found: i64 = column(row, "sequence", TABLE).map_err(broken)?;
                let at_ms: i64 = column(row, "at_ms", TABLE).map_err(broken)?;
                let kind: String = column(row, "kind", TABLE).map_err(broken)?;
                let detail: String = column(row, "detail", TABLE).map_err(broken)?;
                let kept: String = column(row, "hash", TABLE).map_err(broken)?;
                hash = link(&hash, expected, at_ms, &kind, &detail);
                if found != expected || kept != hash.to_hex().as_str() {
                    return Err(StoreError::BrokenChain { sequence: expected });
                }
                sequence = expected;
            }
            if rows.is_empty() {
                break;
            }
            after = sequence;
        }
        tx.rollback().await;
        if head_sequence != sequence || head_hash != hash.to_hex().as_str() {
            return Err(StoreError::BrokenChain { sequence: sequence + 1 });
        }
        u64::try_from(sequence).map_err(|_| StoreError::UnreadableRow { table: TABLE })
    }

    /// The last entries, oldest of them first.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn audit_tail(&self, limit: u32) -> Result<Vec<AuditEntry>, StoreError> {
        let rows = self
            .database
            .fetch_all(
                "reading the audit log",
                sql("SELECT sequence, at_ms, kind, detail, hash FROM audit ORDER BY sequence DESC LIMIT \
             $1")
                .bind(i64::from(limit)),
            )
            .await?;
        rows.iter().rev().map(entry_of).collect()
    }

    /// Entries with the newest first, before `before` or from the end, at most `limit`; and whether they, and what leads to them, are of one chain. That
    /// they are the chain's whole truth only [`Self::verify_audit`] says.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn audit_page(&self, before: Option<i64>, limit: u32) -> Result<AuditPage, StoreError> {
        // One transaction: head and entries are of the same moment.
        let tx = self.database.snapshot("reading the audit log").await?;
        let head = tx.fetch_one(sql("SELECT sequence, hash FROM audit_head WHERE id = 1")).await?;
        let head: (i64, String) = (column(&head, 0, HEAD)?, column(&head, 1, HEAD)?);
        let page = "SELECT sequence, at_ms, kind, detail, hash FROM audit WHERE sequence < $1 ORDER BY sequence DESC LIMIT $2";
        // One more than is shown: what the last one shown is linked to.
        let wanted = i64::from(limit).saturating_add(1);
        let rows = tx.fetch_all(sql(page).bind(before.unwrap_or(i64::MAX)).bind(wanted)).await?;
        tx.rollback().await;
        let shown = rows.len().min(usize::try_from(limit).unwrap_or(usize::MAX));
        let entries = rows.iter().take(shown).map(entry_of).collect::<Result<Vec<_>, _>>()?;
        let mut verified = match (before, entries.first()) {
            // Entries that were cut from the end are missed.
            (None, newest) => newest.map_or(head.0 == 0, |newest| (newest.sequence, &newest.hash) == (head.0, &head.1)),
            (Some(_), _) => true,
        };
        for (at, row) in rows.iter().take(shown).enumerate() {
            let (kind, detail): (String, String) = (column(row, "kind", TABLE)?, column(row, "detail", TABLE)?);
            let (sequence, at_ms): (i64, i64) = (column(row, "sequence", TABLE)?, column(row, "at_ms", TABLE)?);
            let (led_to, hash): (i64, String) = match rows.get(at + 1) {
                Some(row) => (column(row, "sequence", TABLE)?, column(row, "hash", TABLE)?),
                None => (0, blake3::Hash::from_bytes([0; 32]).to_hex().to_string()),
            };
            let linked = blake3::Hash::from_hex(&hash).map(|hash| link(&hash, sequence, at_ms, &kind, &detail));
            verified &= led_to + 1 == sequence && linked.is_ok_and(|linked| linked.to_hex().as_str() == entries[at].hash);
        }
        Ok(AuditPage { entries, verified })
    }

    /// Entries after one, oldest first, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn audit_after(&self, after: i64, limit: u32) -> Result<Vec<AuditEntry>, StoreError> {
        let page = "SELECT sequence, at_ms, kind, detail, hash FROM audit WHERE sequence > $1 ORDER BY sequence LIMIT $2";
        let statement = sql(page).bind(after).bind(i64::from(limit));
        self.database.fetch_all("reading the audit log", statement).await?.iter().map(entry_of).collect()
    }

    /// The newest entries of a kind, newest first, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn audit_of_kind(&self, kind: &str, limit: u32) -> Result<Vec<AuditEntry>, StoreError> {
        let page = "SELECT sequence, at_ms, kind, detail, hash FROM audit WHERE kind = $1 ORDER BY sequence DESC LIMIT $2";
        let statement = sql(page).bind(kind).bind(i64::from(limit));
        self.database.fetch_all("reading the audit log", statement).await?.iter().map(entry_of).collect()
    }

    /// The newest entry of a kind.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn last_audit(&self, kind: &str) -> Result<Option<AuditEntry>, StoreError> {
        Ok(self.audit_of_kind(kind, 1).await?.pop())
    }
}

pub(super) async fn append(
    tx: &Tx,
    once: Option<&str>,
    kind: &str,
    detail: &Value,
    now_ms: i64,
) -> Result<AuditEntry, StoreError> {
    let head = tx.fetch_one(sql("SELECT sequence, hash FROM audit_head WHERE id = 1")).await?;
    let (last, before): (i64, String) = (column(&head, 0, HEAD)?, column(&head, 1, HEAD)?);
    let sequence = last + 1;
    let before = blake3::Hash::from_hex(&before).map_err(|_| StoreError::BrokenChain { sequence })?;
    let text = canonical(detail);
    let hash = link(&before, sequence, now_ms, kind, &text).to_hex().to_string();
    tx.execute(
        sql("INSERT INTO audit (sequence, at_ms, kind, detail, hash, once_key) VALUES ($1, $2, \
             $3, $4, $5, $6)")
        .bind(sequence)
        .bind(now_ms)
        .bind(kind)
        .bind(text)
        .bind(&hash)
        .bind(once),
    )
    .await?;
    tx.execute(sql("UPDATE audit_head SET sequence = $1, hash = $2 WHERE id = 1").bind(sequence).bind(&hash)).await?;
    Ok(AuditEntry { sequence, at_ms: now_ms, kind: kind.to_owned(), detail: detail.clone(), hash })
}

fn entry_of(row: &Row) -> Result<AuditEntry, StoreError> {
    let detail: String = column(row, "detail", TABLE)?;
    Ok(AuditEntry {
        sequence: column(row, "sequence", TABLE)?,
        at_ms: column(row, "at_ms", TABLE)?,
        kind: column(row, "kind", TABLE)?,
        detail: serde_json::from_str(&detail).map_err(|_| StoreError::UnreadableRow { table: TABLE })?,
        hash: column(row, "hash", TABLE)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn canonical_json_has_sorted_keys_at_every_depth_and_no_spaces() {
        let value = json!({"b": [1, {"z": null, "a": "ü\n\""}], "a": {"d": 1.5, "c": true}});
        assert_eq!(canonical(&value), r#"{"a":{"c":true,"d":1.5},"b":[1,{"a":"ü\n\"","z":null}]}"#);
    }

    #[test]
    fn the_hash_depends_on_every_part() {
        let zero = blake3::Hash::from_bytes([0; 32]);
        let base = link(&zero, 1, 2, "k", "{}");
        assert_ne!(base, link(&base, 1, 2, "k", "{}"));
        assert_ne!(base, link(&zero, 2, 2, "k", "{}"));
        assert_ne!(base, link(&zero, 1, 3, "k", "{}"));
        assert_ne!(base, link(&zero, 1, 2, "l", "{}"));
        assert_ne!(base, link(&zero, 1, 2, "k", "[]"));
    }
}
