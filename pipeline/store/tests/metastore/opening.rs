//! Opening: by many at once, by an older build, under a wrong address.

use serde_json::json;
use starling_store::{Metastore, StoreError};

use crate::support::{Kind, Place};

pub(crate) async fn a_new_one_may_be_opened_by_many_at_once_and_keeps_what_was_committed(place: Place) {
    use std::os::unix::fs::PermissionsExt;
    let tasks = (0..8).map(|_| {
        let url = place.url.clone();
        tokio::spawn(async move {
            let metastore = Metastore::open(&url).await.expect("opens");
            metastore.append_audit("read", json!({}), 1).await.expect("appends");
        })
    });
    for done in futures::future::join_all(tasks).await {
        done.expect("joins");
    }
    assert_eq!(place.open().await.verify_audit().await.expect("verifies"), 8);
    // For PostgreSQL there is no file, and the folder is empty.
    for entry in std::fs::read_dir(place.folder.path()).expect("lists") {
        let mode = entry.expect("entry").metadata().expect("there").permissions().mode();
        assert_eq!(mode & 0o077, 0, "only the owner may read");
    }
}

pub(crate) async fn one_of_a_newer_version_is_refused(place: Place) {
    drop(place.open().await);
    let checksum = if place.kind == Kind::Sqlite { "x'00'" } else { "'\\x00'" };
    place
        .execute(&format!(
            "INSERT INTO _sqlx_migrations (version, description, installed_on, success, checksum, execution_time) \
             VALUES (9999, 'later', '2030-01-01', TRUE, {checksum}, 0)"
        ))
        .await;
    let error = Metastore::open(&place.url).await.err().expect("refused");
    assert!(error.to_string().contains("newer version"), "{error}");
}

pub(crate) async fn looking_whether_one_is_there_makes_nothing(place: Place) {
    for _ in 0..2 {
        assert!(!Metastore::is_there(&place.url).await.expect("answers"));
    }
    let metastore = place.open().await;
    assert!(Metastore::is_there(&place.url).await.expect("answers"));
    let probe = metastore.probe().await.expect("answers");
    assert!(probe.engine.starts_with(if place.kind == Kind::Sqlite { "SQLite 3." } else { "PostgreSQL 1" }), "{probe:?}");
    assert_eq!(probe.encrypted.is_some(), place.kind == Kind::Postgres);
}

/// Not of one kind: no database is needed.
pub(crate) async fn an_address_of_another_kind_is_refused() {
    for address in ["mysql://localhost/x", "metastore.db", "sqlite:/no/such/folder/x.db"] {
        assert!(matches!(Metastore::open(address).await, Err(StoreError::MetastoreAddress)), "{address}");
    }
}
