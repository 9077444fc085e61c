//! The metastore: a small SQL database that decides what has happened.
//!
//! Files and messages say nothing by being there; a row committed here makes them count. Every method that changes something is one
//! transaction, begun with `BEGIN IMMEDIATE`, so that all writers, in this process and others, follow one after the other. What may be
//! decided without the database (may this owner plan? does this range balance? does this charge fit?) is decided by pure functions, which
//! property tests drive (`protocol.rs`, `ledger.rs`, `audit.rs`).
//!
//! SQLite runs with a write-ahead log and `synchronous=FULL`: a commit that has returned survives a power failure. One connection writes,
//! a few read; a reader never waits for the writer. The SQL is portable.

mod alerts;
mod audit;
mod ledger;
mod progress;
mod protocol;
mod releases;
#[cfg(test)]
mod tests;
mod types;
mod windows;

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow, SqliteSynchronous};
use sqlx::{ColumnIndex, Decode, Row, Sqlite, Transaction, Type};

use crate::error::StoreError;
use crate::files::blocking;

pub use types::{
    AlertRecord, AuditEntry, Block, BudgetRow, ChargeOutcome, Checkpoint, CountRow, Ownership, PartitionStatus, Plan,
    QuarantineRecord, RangeOutcome, ReleaseRecord, SegmentRecord, WindowRecord, WindowState,
};

/// How long a writer waits for another process's transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections that read.
const READERS: u32 = 4;
/// Rows of one multi-row `INSERT`; SQLite takes 32,766 values in one statement.
const ROWS_PER_INSERT: usize = 1000;

/// The metastore. Cheap to clone; several processes may open the same file.
#[derive(Clone)]
pub struct Metastore {
    writer: SqlitePool,
    readers: SqlitePool,
}

impl Metastore {
    /// Opens `sqlite:<path>`, creating the file (mode 0600) and its tables, or bringing them up to date. `sqlite::memory:` serves tests.
    ///
    /// A file `<path>-opening` beside it keeps processes from making the tables at the same time; it stays, empty.
    ///
    /// # Errors
    /// [`StoreError::MetastoreAddress`], [`StoreError::Database`] when the file is of a newer version, locked or damaged.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        if !url.starts_with("sqlite:") {
            return Err(StoreError::MetastoreAddress);
        }
        let in_memory = url.contains(":memory:") || url.contains("mode=memory");
        let options = SqliteConnectOptions::from_str(url)
            .map_err(|_| StoreError::MetastoreAddress)?
            .create_if_missing(true)
            .busy_timeout(BUSY_TIMEOUT)
            .synchronous(SqliteSynchronous::Full);
        if in_memory {
            let only = pool(1).connect_with(options).await.map_err(|e| StoreError::database("opening", &e))?;
            migrate(&only).await?;
            return Ok(Self { writer: only.clone(), readers: only });
        }
        let options = options.journal_mode(SqliteJournalMode::Wal);
        // Two processes that create the file or its tables at once would meet half-made ones.
        let path = options.get_filename().to_owned();
        let opening = blocking(move || lock_opening(&path)).await?;
        let writer = pool(1).connect_with(options.clone()).await.map_err(|e| StoreError::database("opening", &e))?;
        migrate(&writer).await?;
        drop(opening);
        let readers = pool(READERS).connect_lazy_with(options.read_only(true));
        Ok(Self { writer, readers })
    }

    /// Closes all connections, which lets SQLite fold its write-ahead log into the file. Not needed for durability.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    /// Begins a transaction that excludes all other writers until it ends. Dropped without a commit, it leaves nothing.
    async fn begin(&self, during: &'static str) -> Result<Transaction<'static, Sqlite>, StoreError> {
        self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(|e| StoreError::database(during, &e))
    }
}

/// Connections stay open: an in-memory database lives in its connection, and statements stay prepared.
fn pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(Duration::from_secs(60))
        .test_before_acquire(false)
        .idle_timeout(None)
        .max_lifetime(None)
}

async fn migrate(pool: &SqlitePool) -> Result<(), StoreError> {
    use sqlx::migrate::MigrateError;
    sqlx::migrate!("./migrations").run(pool).await.map_err(|e| {
        let kind = match e {
            MigrateError::VersionMissing(_) | MigrateError::VersionTooNew(..) => {
                "the file was written by a newer version of starling: use that"
            }
            MigrateError::VersionMismatch(_) => "the file was written by another build whose tables differ",
            _ => "the tables could not be made",
        };
        StoreError::Database { during: "bringing the tables up to date", kind, code: None }
    })
}

/// Creates the file for its owner only, and holds a lock beside it until the result is dropped.
fn lock_opening(path: &Path) -> Result<std::fs::File, StoreError> {
    use std::os::unix::fs::OpenOptionsExt;
    let private = |path: &Path| {
        std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(|_| StoreError::MetastoreAddress)
    };
    let mut beside = path.as_os_str().to_owned();
    beside.push("-opening");
    let lock = private(Path::new(&beside))?;
    lock.lock().map_err(|_| StoreError::MetastoreAddress)?;
    private(path)?;
    Ok(lock)
}

/// Reads a column, or says which table holds what cannot be read.
fn column<'r, T, I>(row: &'r SqliteRow, index: I, table: &'static str) -> Result<T, StoreError>
where
    T: Decode<'r, Sqlite> + Type<Sqlite>,
    I: ColumnIndex<SqliteRow>,
{
    row.try_get(index).map_err(|_| StoreError::UnreadableRow { table })
}

/// Reads a column that holds a count.
fn count_column(row: &SqliteRow, name: &'static str, table: &'static str) -> Result<u64, StoreError> {
    u64::try_from(column::<i64, _>(row, name, table)?).map_err(|_| StoreError::UnreadableRow { table })
}

/// Reads a column that holds a 32-bit number, such as an epoch.
fn small_column<T: TryFrom<i64>>(row: &SqliteRow, name: &'static str, table: &'static str) -> Result<T, StoreError> {
    T::try_from(column::<i64, _>(row, name, table)?).map_err(|_| StoreError::UnreadableRow { table })
}

/// A size as the database keeps it. Sizes above 2⁶³ do not occur.
fn stored(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

/// Wraps a driver's error.
fn failed(during: &'static str) -> impl Fn(sqlx::Error) -> StoreError {
    move |e| StoreError::database(during, &e)
}
