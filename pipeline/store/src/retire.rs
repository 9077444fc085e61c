//! Ending a key, with a receipt.

use serde_json::json;

use crate::error::StoreError;
use crate::keyring::{KeyId, Keyring};
use crate::killpoint;
use crate::metastore::Metastore;

/// Destroys a key and appends one `key_destroyed` entry to the audit log, once per key, however often it is called.
///
/// A crash between the two leaves a destroyed key without a receipt; calling again appends it, with the time of the destruction itself.
///
/// # Errors
/// [`StoreError::Keyring`], [`StoreError::Database`]; in both cases call again.
pub async fn destroy_with_receipt(
    keyring: &Keyring,
    metastore: &Metastore,
    id: KeyId,
    reason: &str,
    now_ms: i64,
) -> Result<(), StoreError> {
    let destruction = keyring.destroy(id, now_ms)?;
    killpoint::reached("before_receipt");
    let detail = json!({ "key": id.to_string(), "destroyed_at_ms": destruction.at_ms, "reason": reason });
    metastore.append_audit_once(&format!("key_destroyed:{id}"), "key_destroyed", detail, now_ms).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use starling_schemas::ids::{EpochId, Purpose};

    use super::*;
    use crate::keyring::{KeyKind, KeyringError};
    use crate::testing::{OsEntropy, open_metastore};

    #[tokio::test]
    async fn a_key_has_one_receipt_however_often_it_is_destroyed_and_a_crash_before_the_receipt_is_repaired() {
        let (dir, metastore) = open_metastore().await;
        let keyring = Keyring::open(&dir.path().join("keyring"), Arc::new(OsEntropy)).expect("opens");
        let id = KeyId { kind: KeyKind::Pseudonym, purpose: Purpose::AnalyticsDay, epoch: EpochId(20_458) };
        keyring.get_or_create(id).expect("makes");
        keyring.destroy(id, 70).expect("destroys, and the process dies here");
        for now_ms in [80, 90] {
            destroy_with_receipt(&keyring, &metastore, id, "window closed", now_ms).await.expect("retires");
        }
        let receipts = metastore.audit_tail(10).await.expect("reads");
        assert_eq!(receipts.len(), 1);
        assert_eq!((receipts[0].kind.as_str(), receipts[0].at_ms), ("key_destroyed", 80));
        assert_eq!(
            receipts[0].detail,
            json!({"key": "analytics_day/2026-01-05/pseudonym", "destroyed_at_ms": 70, "reason": "window closed"})
        );
        assert_eq!(metastore.verify_audit().await.expect("verifies"), 1);
        assert!(matches!(keyring.get(id), Err(KeyringError::Destroyed(_))));
    }
}
