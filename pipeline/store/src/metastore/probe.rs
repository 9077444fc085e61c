//! What an engineer asks of a metastore before trusting it: `starling doctor`, and jobs that make nothing.

use std::str::FromStr;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Executor as _, Row as _};

use super::Metastore;
use super::address::{self, Address};
use super::database::{Database, Server, Turn};
use super::sql::{column, sql};
use crate::error::StoreError;

/// A metastore that answers and takes writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Such as `SQLite 3.50.2` or `PostgreSQL 15.18`.
    pub engine: String,
    /// Whether the connection is encrypted. `None`: there is none, the database is a file.
    pub encrypted: Option<bool>,
    /// Whether the server writes its log through to the disk (`fsync`, `full_page_writes`). Without, a power failure may damage it.
    pub durable: bool,
    /// What its clock says. `None`: the database is a file and has none of its own.
    pub now_ms: Option<i64>,
}

impl Metastore {
    /// Whether there is a metastore at an address. Makes nothing.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn is_there(url: &str) -> Result<bool, StoreError> {
        const DURING: &str = "looking for the tables";
        match address::parse(url)? {
            Address::Sqlite => {
                let options = SqliteConnectOptions::from_str(url).map_err(|_| StoreError::MetastoreAddress)?;
                Ok(options.get_filename().exists())
            }
            Address::Postgres(options) => {
                let server = Server::connect(*options).await?;
                let pool = server.pool();
                let found = server.answer(DURING, pool.fetch_one("SELECT to_regclass('audit_head') IS NOT NULL")).await;
                pool.close().await;
                found?.try_get(0).map_err(|e| StoreError::database(DURING, &e))
            }
        }
    }

    /// Asks the database what it is, and writes to it without changing anything.
    ///
    /// # Errors
    /// [`StoreError::Database`]: it does not answer, or takes no writes.
    pub async fn probe(&self) -> Result<Probe, StoreError> {
        const DURING: &str = "trying to write";
        const TABLE: &str = "closing";
        let sqlite = matches!(self.database, Database::Sqlite { .. });
        self.database
            .change(DURING, Turn::Closing, |tx| async move {
                tx.execute(sql("UPDATE closing SET closed_through = closed_through WHERE id = 1")).await?;
                if sqlite {
                    let version: String = column(&tx.fetch_one(sql("SELECT sqlite_version()")).await?, 0, TABLE)?;
                    return Ok(Probe { engine: format!("SQLite {version}"), encrypted: None, durable: true, now_ms: None });
                }
                let row = tx
                    .fetch_one(sql("SELECT split_part(current_setting('server_version'), ' ', 1), (SELECT CAST(CASE \
             WHEN ssl THEN 1 ELSE 0 END AS BIGINT) FROM pg_stat_ssl WHERE pid = \
             pg_backend_pid()), CAST(CASE WHEN current_setting('fsync') = 'on' AND \
             current_setting('full_page_writes') = 'on' THEN 1 ELSE 0 END AS BIGINT), \
             CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)"))
                    .await?;
                let version: String = column(&row, 0, TABLE)?;
                let encrypted = column::<Option<i64>, _>(&row, 1, TABLE)?;
                Ok(Probe {
                    engine: format!("PostgreSQL {version}"),
                    encrypted: Some(encrypted == Some(1)),
                    durable: column::<i64, _>(&row, 2, TABLE)? == 1,
                    now_ms: Some(column::<i64, _>(&row, 3, TABLE)?),
                })
            })
            .await
    }
}
