//! The metastore: a small SQL database that decides what has happened.
//!
//! Files and messages say nothing by being there; a row committed here makes them count. Every method that changes something is one
//! serializable transaction, and nothing is decided outside it. What may be decided without the database (may this owner plan? does this
//! range balance? does this charge fit?) is decided by pure functions, which property tests drive (`protocol.rs`, `charge.rs`, `audit.rs`).
//!
//! It is kept by SQLite, for one machine, or by PostgreSQL, for many. There is one copy of each statement and of each decision: `sql.rs` runs
//! a statement on either, `database.rs` begins, repeats and ends transactions on either, `address.rs` reads where it is. The tests run on both.
//!
//! SQLite runs with a write-ahead log and `synchronous=FULL`: a commit that has returned survives a power failure. One connection writes,
//! a few read; a reader never waits for the writer. On PostgreSQL `synchronous_commit` is never off.

mod accounts;
mod address;
mod alerts;
mod answers;
mod audit;
mod businesses;
mod charge;
mod database;
mod deliveries;
mod group_lists;
mod hours;
mod kept;
mod ledger;
mod operations;
mod probe;
mod progress;
pub mod protocol;
mod releases;
mod sql;
mod topics;
mod types;
mod windows;
mod work;

use std::ops::Deref;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use sqlx::migrate::{Migrate, MigrateError};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{Acquire, ConnectOptions as _};

use crate::error::StoreError;
use crate::files::blocking;
use address::Address;
use database::{Database, Server, sqlite_pool};

pub use accounts::{BEHIND, DoorHour, PartitionHour};
pub use alerts::{Finding, KEPT_FOR_ALLOWANCE, KEPT_FOR_DEMOTION, SavedState, Telling};
pub use charge::{BlockCharge, BudgetRow, ChargeOutcome, ChargeRecord, ChargeRequest, Reason, Refusal, Spender};
pub use hours::Hours;
pub use kept::{DemotionRecord, JudgedRecord, KeptCount, KeptRecord};
pub use probe::Probe;
pub use types::{
    AcceptedLoss, AlertRecord, AnswerRecord, AuditEntry, AuditPage, Block, Checkpoint, CountRow, Delivery, DeliveryEnd,
    DeliveryRecord, NewestRelease, Ownership, PartitionStatus, Plan, QuarantineEntry, QuarantineFilter, QuarantineRecord,
    RangeOutcome, ReceiverRecord, ReleaseRecord, Restarted, SegmentRecord, SenderRecord, SilenceRecord, StepRecord, WindowRecord,
    WindowState, WorkRecord,
};

/// How long a writer waits for another process's transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections that read.
const READERS: u32 = 4;
/// Rows of one multi-row `INSERT`; SQLite takes 32,766 values in one statement, PostgreSQL 65,535.
const ROWS_PER_INSERT: usize = 1000;

/// The metastore. Cheap to clone; several processes may open the same one.
#[derive(Clone)]
pub struct Metastore {
    database: Database,
}

impl Metastore {
    /// Opens the metastore at an address, creating its tables, or bringing them up to date.
    ///
    /// `sqlite:<path>`: the file is made (mode 0600) if it is not there. A file `<path>-opening` beside it keeps processes from making the
    /// tables at the same time; it stays, empty. `sqlite::memory:` serves tests.
    ///
    /// `postgres://<user>@<host>/<database>`: the database must be there, and belong to the user. The password comes from `PGPASSWORD`, from a
    /// password file (`PGPASSFILE`, `~/.pgpass`), or stands in the address. Beyond this machine the address must say how the connection is
    /// encrypted (`sslmode=verify-full`). Connections are sessions: a pooler between must not share one among clients.
    ///
    /// # Errors
    /// [`StoreError::MetastoreAddress`], [`StoreError::MetastoreParameter`], [`StoreError::MetastoreUnencrypted`]; [`StoreError::Database`] when
    /// it is of a newer version, cannot be reached, is locked or damaged.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        match address::parse(url)? {
            Address::Sqlite => Self::open_sqlite(url).await,
            Address::Postgres(options) => {
                let server = Server::connect(*options).await?;
                let pool = server.pool();
                let migrated = migrate(&pool).await;
                if migrated.is_err() {
                    // Its lock on the schema goes with the connection.
                    pool.close().await;
                }
                migrated?;
                Ok(Self { database: Database::Postgres(server) })
            }
        }
    }

    async fn open_sqlite(url: &str) -> Result<Self, StoreError> {
        let in_memory = url.contains(":memory:") || url.contains("mode=memory");
        let options = SqliteConnectOptions::from_str(url)
            .map_err(|_| StoreError::MetastoreAddress)?
            .create_if_missing(true)
            .busy_timeout(BUSY_TIMEOUT)
            .collation("C", |a, b| a.cmp(b))
            .synchronous(SqliteSynchronous::Full)
            // Errors say what was being done; a log of statements, slow ones too, is for nobody who runs this.
            .disable_statement_logging();
        let opening = |e: sqlx::Error| StoreError::database("opening", &e);
        if in_memory {
            let only = sqlite_pool(1).connect_with(options).await.map_err(opening)?;
            migrate(&only).await?;
            return Ok(Self { database: Database::Sqlite { writer: only.clone(), readers: only } });
        }
        let options = options.journal_mode(SqliteJournalMode::Wal);
        // Two processes that create the file or its tables at once would meet half-made ones.
        let path = options.get_filename().to_owned();
        let lock = blocking(move || lock_opening(&path)).await?;
        let writer = sqlite_pool(1).connect_with(options.clone()).await.map_err(opening)?;
        migrate(&writer).await?;
        drop(lock);
        let readers = sqlite_pool(READERS).connect_lazy_with(options.read_only(true));
        Ok(Self { database: Database::Sqlite { writer, readers } })
    }

    /// Whether something can be opened at an address, without connecting: an error says what is wrong with it.
    ///
    /// # Errors
    /// [`StoreError::MetastoreAddress`], [`StoreError::MetastoreParameter`], [`StoreError::MetastoreUnencrypted`].
    pub fn check_address(url: &str) -> Result<(), StoreError> {
        address::parse(url).map(drop)
    }

    /// An address as people may see it: without a password.
    #[must_use]
    pub fn shown_address(url: &str) -> String {
        address::shown(url)
    }

    /// Closes all connections, which lets SQLite fold its write-ahead log into the file. Not needed for durability.
    pub async fn close(&self) {
        self.database.close().await;
    }
}

async fn migrate<'a, A>(database: A) -> Result<(), StoreError>
where
    A: Acquire<'a>,
    <A::Connection as Deref>::Target: Migrate,
{
    const DURING: &str = "bringing the tables up to date";
    sqlx::migrate!("./migrations").run(database).await.map_err(|e| {
        let kind = match &e {
            MigrateError::VersionMissing(_) | MigrateError::VersionTooNew(..) => {
                "the metastore was written by a newer version of starling: use that"
            }
            MigrateError::VersionMismatch(_) => "the metastore was written by another build whose tables differ",
            MigrateError::Execute(e) | MigrateError::ExecuteMigration(e, _) => return StoreError::database(DURING, e),
            _ => "the tables could not be made",
        };
        StoreError::Database { during: DURING, kind, code: None }
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
