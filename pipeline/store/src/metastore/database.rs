//! Connections and transactions of either database, and when a transaction is repeated.
//!
//! ```text
//!              SQLite                               PostgreSQL
//!   change     BEGIN IMMEDIATE, one connection:     BEGIN ISOLATION LEVEL SERIALIZABLE, and first of all the lock of its Turn;
//!              writers follow one another           a collision is repeated from the start, at most ATTEMPTS times
//!   read       four connections that cannot write   one statement, or a REPEATABLE READ READ ONLY transaction
//! ```
//!
//! **Why locks beside SERIALIZABLE.** The isolation level is what makes a decision right; locks only spare collisions. Some things are serial
//! by nature: the audit chain, a block's budget, the feed of alerts, the close of a window against all plans. Under SERIALIZABLE alone the
//! second of two such transactions always fails and starts anew. A row lock would not help: the snapshot is taken before the lock is waited
//! for, so who waited is told that the row has changed. `LOCK TABLE` takes no snapshot; who waited for it sees what the one before it did.
//! Plans and commits share their lock, so partitions do not wait for one another. `enable_seqscan` is off, as a scan of a whole small
//! table counts as having read every row of it, and would make neighbours collide.
//!
//! **A caller that goes away** in the middle, as when a statement is cancelled, leaves nothing open: what had not been committed is undone, and
//! its connection is used again. A COMMIT that was on its way may have happened.
//!
//! **A connection that dies** is noticed when it is next used. A transaction that cannot even begin, or a read, is tried on another one, until
//! a new one is made: nothing has happened yet. One that is cut off in silence is given up after
//! [`PATIENCE`], together with its siblings, and new ones are made; the server ends its side by `idle_in_transaction_session_timeout`, so that
//! a process that hangs, or a machine that is gone, holds no lock for longer than that. An error on the way back from COMMIT is an error: it
//! may have happened.

use std::future::Future;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::{SqlitePool, SqlitePoolOptions};
use sqlx::{ConnectOptions as _, Executor as _};
use sqlx::{Sqlite, Transaction};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::sql::{Open, Row, Statement, Tx, for_postgres, for_sqlite};
use crate::error::StoreError;
use crate::faultpoint;

/// How long one statement of PostgreSQL may take, waiting for locks included.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a connection may take to come.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// Connections of one process to PostgreSQL.
const CONNECTIONS: u32 = 10;
/// How often a transaction is tried that collides with others.
const ATTEMPTS: u32 = 20;
/// The pause after the first collision; it doubles up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LAST_PAUSE: Duration = Duration::from_millis(64);

/// What a change is about: those of one kind follow one another on PostgreSQL, except progress, which only closing excludes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Turn {
    Progress,
    Closing,
    Ledger,
    Releases,
    Answers,
    Alerts,
    Audit,
    /// Progress and the audit log in one.
    Loss,
    /// Alerts and the audit log in one.
    Work,
    Sending,
    /// What is to be sent and the audit log in one.
    Queue,
}

impl Turn {
    const fn begin(self) -> &'static str {
        match self {
            Self::Progress => "BEGIN ISOLATION LEVEL SERIALIZABLE; LOCK TABLE closing IN ROW SHARE MODE",
            Self::Closing => "BEGIN ISOLATION LEVEL SERIALIZABLE; LOCK TABLE closing IN EXCLUSIVE MODE",
            Self::Ledger => "BEGIN ISOLATION LEVEL SERIALIZABLE; LOCK TABLE budget_blocks IN EXCLUSIVE MODE",
            Self::Releases => "BEGIN ISOLATION LEVEL SERIALIZABLE; LOCK TABLE releases IN EXCLUSIVE MODE",
            Self::Answers => "BEGIN ISOLATION LEVEL SERIALIZABLE; LOCK TABLE answers IN EXCLUSIVE MODE",
            Self::Alerts => "BEGIN ISOLATION LEVEL SERIALIZABLE; LOCK TABLE alert_feed IN EXCLUSIVE MODE",
            Self::Audit => "BEGIN ISOLATION LEVEL SERIALIZABLE; LOCK TABLE audit_head IN EXCLUSIVE MODE",
            Self::Loss => {
                "BEGIN ISOLATION LEVEL SERIALIZABLE; LOCK TABLE closing IN EXCLUSIVE MODE; LOCK TABLE \
             audit_head IN EXCLUSIVE MODE"
            }
            Self::Sending => "BEGIN ISOLATION LEVEL SERIALIZABLE; LOCK TABLE sending IN EXCLUSIVE MODE",
            Self::Queue => {
                "BEGIN ISOLATION LEVEL SERIALIZABLE; LOCK TABLE sending IN EXCLUSIVE MODE; LOCK TABLE \
             audit_head IN EXCLUSIVE MODE"
            }
            Self::Work => {
                "BEGIN ISOLATION LEVEL SERIALIZABLE; LOCK TABLE alert_feed IN EXCLUSIVE MODE; LOCK TABLE \
             audit_head IN EXCLUSIVE MODE"
            }
        }
    }
}

/// The open database.
#[derive(Clone)]
pub(super) enum Database {
    Sqlite { writer: SqlitePool, readers: SqlitePool },
    Postgres(Arc<Server>),
}

impl Database {
    /// Runs `body` in a transaction, and commits it when `body` has decided so. An error of `body` undoes it.
    ///
    /// `body` may run more than once: all it knows of the database it must have read in this transaction.
    pub(super) async fn change<T, F>(&self, during: &'static str, turn: Turn, body: impl Fn(Tx) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        fault("begin", during)?;
        let server = match self {
            Self::Sqlite { writer, .. } => {
                let open = begin_on(writer).await.map_err(|e| StoreError::database(during, &e))?;
                return end(Tx::new(during, Open::Sqlite(open)), body).await;
            }
            Self::Postgres(server) => server,
        };
        let mut pause = FIRST_PAUSE;
        for _ in 0..ATTEMPTS {
            let done = match server.begin(during, turn.begin()).await {
                Ok(tx) => end(tx, &body).await,
                Err(error) => Err(error),
            };
            match done {
                Err(error) if error.is_collision() => tokio::time::sleep(pause).await,
                done => return done,
            }
            pause = LAST_PAUSE.min(pause * 2);
        }
        Err(StoreError::Database { during, kind: "too many others changed the same at once: try again", code: None })
    }

    /// The rows of one statement.
    pub(super) async fn fetch_all(&self, during: &'static str, statement: Statement) -> Result<Vec<Row>, StoreError> {
        match self {
            Self::Sqlite { readers, .. } => {
                let rows = for_sqlite(statement).fetch_all(readers).await.map_err(|e| StoreError::database(during, &e))?;
                Ok(rows.into_iter().map(Row::Sqlite).collect())
            }
            Self::Postgres(server) => {
                let work = |pool: PgPool| {
                    let (statement, home) = (statement.clone(), server.home.clone());
                    async move {
                        let mut reading = JoinSet::new();
                        reading.spawn_on(async move { for_postgres(statement).fetch_all(&pool).await }, &home);
                        reading.join_next().await.and_then(Result::ok).unwrap_or(Err(sqlx::Error::WorkerCrashed))
                    }
                };
                let rows = server.alive(during, work).await?;
                Ok(rows.into_iter().map(Row::Postgres).collect())
            }
        }
    }

    /// A transaction whose statements all read the same moment. It cannot change anything.
    pub(super) async fn snapshot(&self, during: &'static str) -> Result<Tx, StoreError> {
        match self {
            Self::Sqlite { readers, .. } => {
                let open = readers.begin().await.map_err(|e| StoreError::database(during, &e))?;
                Ok(Tx::new(during, Open::Sqlite(open)))
            }
            Self::Postgres(server) => server.begin(during, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await,
        }
    }

    /// Closes all connections.
    pub(super) async fn close(&self) {
        match self {
            Self::Sqlite { writer, readers } => {
                readers.close().await;
                writer.close().await;
            }
            Self::Postgres(server) => server.pool().close().await,
        }
    }
}

async fn begin_on(writer: &SqlitePool) -> Result<Transaction<'static, Sqlite>, sqlx::Error> {
    const BEGIN: &str = "BEGIN IMMEDIATE";
    match writer.begin_with(BEGIN).await {
        // SQLite ends a transaction by itself when the disk is full or fails; the driver then still counts it as begun. Only another connection
        // begins anew.
        Err(sqlx::Error::InvalidSavePointStatement | sqlx::Error::BeginFailed) => {
            // Whether it could say goodbye does not matter.
            let _ = writer.acquire().await?.close().await;
            writer.begin_with(BEGIN).await
        }
        begun => begun,
    }
}

async fn end<T, F>(tx: Tx, body: impl Fn(Tx) -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    match body(tx.clone()).await {
        Ok(value) => {
            let during = tx.during();
            fault("commit", during)?;
            tx.commit().await?;
            fault("committed", during)?;
            Ok(value)
        }
        Err(error) => {
            tx.rollback().await;
            Err(error)
        }
    }
}

/// Fails where a test asked for it: before a transaction, before its commit, and after it.
fn fault(step: &'static str, during: &'static str) -> Result<(), StoreError> {
    faultpoint::check_step(step, during).map_err(|e| StoreError::database(during, &e.into()))
}

/// A PostgreSQL server, and the connections to it.
pub(super) struct Server {
    options: PgConnectOptions,
    pool: RwLock<PgPool>,
    /// Where connections are opened, and so where their sockets are looked at, whoever asks: a runtime that computes would keep all others waiting.
    home: Handle,
}

impl Server {
    /// Connects.
    pub(super) async fn connect(options: PgConnectOptions) -> Result<Arc<Self>, StoreError> {
        let name = options.get_application_name().unwrap_or("starling").to_owned();
        let options = options.application_name(&name).options([
            ("enable_seqscan", "off"),
            ("lock_timeout", "10s"),
            ("idle_in_transaction_session_timeout", "30s"),
        ]);
        let options = options.disable_statement_logging();
        let pool = pool().connect_lazy_with(options.clone());
        drop(pool.acquire().await.map_err(|e| StoreError::database("connecting", &e))?);
        Ok(Arc::new(Self { options, pool: RwLock::new(pool), home: Handle::current() }))
    }

    /// The connections in use now.
    pub(super) fn pool(&self) -> PgPool {
        self.pool.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn begin(self: &Arc<Self>, during: &'static str, statement: &'static str) -> Result<Tx, StoreError> {
        // On a task of its own: were the driver's BEGIN dropped half-way, its connection would go back to the others with the transaction open
        // and its locks held. The task ends it, and drops a transaction that nobody waits for any more, which undoes it.
        let begin = |pool: PgPool| async move {
            let begun = self.home.spawn(async move { pool.begin_with(statement).await }).await;
            begun.unwrap_or(Err(sqlx::Error::WorkerCrashed))
        };
        let open = self.alive(during, begin).await?;
        Ok(Tx::new(during, Open::Postgres(open, Arc::clone(self))))
    }

    /// Does what may be done again, until it meets a connection that lives. All pooled ones may be dead, as after the server's restart.
    async fn alive<T, F>(&self, during: &'static str, work: impl Fn(PgPool) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, sqlx::Error>>,
    {
        for _ in 0..CONNECTIONS {
            match self.patiently(during, work(self.pool())).await? {
                Err(error) if is_dead(&error) => {}
                done => return done.map_err(|e| StoreError::database(during, &e)),
            }
        }
        self.answer(during, work(self.pool())).await
    }

    /// Waits for the server, but not for ever.
    pub(super) async fn answer<T>(
        &self,
        during: &'static str,
        work: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, StoreError> {
        self.patiently(during, work).await?.map_err(|e| StoreError::database(during, &e))
    }

    /// Nothing tells a client that the network between was cut: connections that do not answer in time are left behind, all of them.
    async fn patiently<T>(&self, during: &'static str, work: impl Future<Output = T>) -> Result<T, StoreError> {
        match tokio::time::timeout(PATIENCE, work).await {
            Ok(done) => Ok(done),
            Err(_) => {
                *self.pool.write().unwrap_or_else(PoisonError::into_inner) = pool().connect_lazy_with(self.options.clone());
                Err(StoreError::Database { during, kind: "the server did not answer in time; it may have happened", code: None })
            }
        }
    }
}

/// Whether an error says that its connection has ended, and not what became of the work.
fn is_dead(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) => true,
        // admin_shutdown, crash_shutdown, idle_session_timeout: said by the server when it ended the connection
        sqlx::Error::Database(e) => matches!(e.code().as_deref(), Some("57P01" | "57P02" | "57P05")),
        _ => false,
    }
}

fn pool() -> PgPoolOptions {
    PgPoolOptions::new().max_connections(CONNECTIONS).acquire_timeout(CONNECT_PATIENCE).test_before_acquire(false).after_connect(
        |connection, _| {
            Box::pin(async move {
                // A commit that has returned must survive a crash of the server, whatever this database or role is set to.
                let durable =
                    "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'";
                connection.execute(durable).await.map(|_| ())
            })
        },
    )
}

/// Connections to SQLite stay open: an in-memory database lives in its connection, and statements stay prepared.
pub(super) fn sqlite_pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(Duration::from_secs(60))
        .test_before_acquire(false)
        .idle_timeout(None)
        .max_lifetime(None)
}
