//! # query: SQL over released statistics, behind one gate
//!
//! Every door (command line, PostgreSQL wire, HTTP, console) hands a statement's text to [`Engine::query`] and gets an [`Answer`] or a [`QueryError`].
//!
//! ```text
//!  text ─► gate: text ─► planner ─► gate: plan ─► optimiser ─► stop: checks, yields ─► DataFusion ─► Answer
//!            │             │           │                                                 │
//!            │             │           └─ nodes, expressions, types by list; size        └─ limits: rows, bytes, memory, time; no disk
//!            │             └─ catalogue: stats.<metric>  released files, checked once, kept in memory by path
//!            │                           meta.*          definitions, budgets, charges, allotments, releases, columns
//!            │                           integrity.*     alerts, for who works on them
//!            │                           business.*      what businesses say of themselves, for who works with them
//!            └─ size, nesting, kind of statement, tables and functions by name; refused: code, reason, hint
//! ```
//!
//! **Comes in:** one SQL statement. **Goes out:** rows, or an error with a SQLSTATE, a reason and a hint.
//!
//! **What may be asked.** `SELECT` with everything that only reads: `WITH`, joins, subqueries, set operations, `VALUES`, window functions. `EXPLAIN`
//! without options, `DESCRIBE`, `SHOW TABLES`, `SHOW COLUMNS FROM`. A bare table name is looked up in `stats`. Values may stand in for literals as `$1`
//! (`parameters`). PostgreSQL's system tables are there for clients that look around in them, by themselves (`system`). Everything else does not exist:
//! files, settings, writing, functions that are volatile or grow text without a bound. The gate allows by list at each step, so what a
//! new version of the engine can do is refused until somebody puts it on a list.
//!
//! **Who asks.** A door that knows its caller asks as a [`Principal`], who sees what the table in `rights` says of its role: the gate refuses the
//! rest by name, and to the planner it does not exist. The command line asks as whoever owns the machine.
//!
//! **A release appears** for the next statement: tables are resolved when a statement names them. One statement sees one state of each table.
//!
//! **Answers are kept** in memory until something is released (`lasting`), where they are of released statistics alone: they cost no planning then.
//!
//! **Statements have threads of their own** (`workers`): whoever awaits an answer is not kept from anything else by what others ask.
//!
//! **Invariants kept here.**
//! - I3: a released file is served only if its bytes have the hash that was recorded; since paths are never written twice, it is read once.
//! - I4: no error holds a value from the data or a literal from the statement. What the engine says while it runs is replaced by its class; what it
//!   says while it plans is passed on only if it quotes no literal.
//! - P28: a door may have [`Engine::heard_by`] count what it refuses to whom: codes and hashes, no text.
//! - I8: what the gate does not know is refused; a file that does not match its record is not served.
//!
//! `now()` is the [`Clock`]'s time, so an answer can be repeated.
//!
//! **What can go wrong.**
//! - The metastore or the file store cannot be read: 58030. A released file was changed or is gone: XX001, for its metric only.
//! - A statement takes too long or too much: 57014, 53200, 54000; a budget does not hold a question: 53400. Dropping the future of [`Engine::query`] ends it too; `stop` says how work that
//!   does not wait for anything comes to an end.
//! - Whole numbers wrap around when they grow beyond their type, as the engine's do. Released values are doubles.
//! - A fault of the engine: XX000. A panic is caught with its task; its text goes to the process's panic hook, which must not log it.

mod alerts;
mod answer;
mod answering;
mod bills;
mod businesses;
mod catalogue;
pub mod delta;
mod error;
mod gate;
mod hearing;
mod lasting;
mod limits;
mod listing;
mod meta;
mod metric;
mod parameters;
mod private;
mod release;
mod released;
mod rights;
mod session;
mod stop;
mod system;
mod watching;
mod workers;
mod written;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use datafusion::execution::context::SessionState;
use starling_schemas::metrics::Catalogue;
use starling_schemas::time::Clock;
use starling_store::{Files, Metastore};

pub use answer::Answer;
pub use bills::Bills;
pub use error::QueryError;
pub use hearing::{Form, Heard, Hearing, Refused};
pub use limits::Limits;
pub use listing::{Listed, Listing};
pub use metric::{AddsUp, MetricColumn, MetricPrice, MetricTable, prices, tables};
pub use parameters::{Kind, Value};
pub use private::vault::Vault;
pub use release::{ReleaseError, ReleaseReport, ReleaseStatus, Releaser};
pub use rights::{Principal, Role, Room};
pub use watching::{Progress, Watch};

use catalogue::{Catalogues, Shelf};
use error::{INTERNAL, TIMED_OUT};
use gate::Known;
use lasting::{Asked, Lasting};
use limits::Memory;
use private::table::PRIVATE;
use rights::Rights;
use session::Sessions;
use stop::Wanted;
use system::Picture;
use workers::Workers;

/// The team that pays where none is named.
pub const TEAM: &str = "product";

/// As whom the command line asks.
const OPERATOR: &str = "operator";

/// Answers statements. Cheap to share behind an `Arc`; any number of statements may run at one time.
pub struct Engine {
    inner: Arc<Inner>,
    workers: Workers,
    hearing: Option<Hearing>,
}

struct Inner {
    shelf: Arc<Shelf>,
    state: SessionState,
    reading: SessionState,
    known: Known,
    clock: Arc<dyn Clock>,
    limits: Limits,
    memory: Arc<Memory>,
    lasting: Lasting,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("limits", &self.inner.limits).finish_non_exhaustive()
    }
}

impl Engine {
    /// Opens an engine with [`Limits::default`] over the releases recorded in `metastore` and kept in `files`.
    ///
    /// # Errors
    /// When the list of releases cannot be read.
    pub async fn open(
        metastore: Arc<Metastore>,
        files: Arc<Files>,
        catalogue: Arc<Catalogue>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, QueryError> {
        Self::open_with(metastore, files, catalogue, clock, Limits::default()).await
    }

    /// Opens an engine with limits of its own.
    ///
    /// # Errors
    /// When the list of releases cannot be read.
    pub async fn open_with(
        metastore: Arc<Metastore>,
        files: Arc<Files>,
        catalogue: Arc<Catalogue>,
        clock: Arc<dyn Clock>,
        limits: Limits,
    ) -> Result<Self, QueryError> {
        let shelf = Shelf::new(metastore, files, catalogue, None, Arc::clone(&clock)).await?;
        Self::assemble(shelf, clock, limits).await
    }

    /// Opens an engine that also answers questions over the protected rows of a vault.
    ///
    /// # Errors
    /// When the list of releases cannot be read.
    pub async fn open_private(vault: Vault, clock: Arc<dyn Clock>, limits: Limits) -> Result<Self, QueryError> {
        let (metastore, files, catalogue) =
            (Arc::clone(&vault.metastore), Arc::clone(&vault.files), Arc::clone(&vault.catalogue));
        let shelf = Shelf::new(metastore, files, catalogue, Some(Arc::new(vault)), Arc::clone(&clock)).await?;
        Self::assemble(shelf, clock, limits).await
    }

    /// The same, with what businesses are billed for as `billing.daily`.
    ///
    /// # Errors
    /// When the list of releases cannot be read.
    pub async fn open_with_bills(
        vault: Vault,
        bills: Arc<dyn Bills>,
        clock: Arc<dyn Clock>,
        limits: Limits,
    ) -> Result<Self, QueryError> {
        let (metastore, files, catalogue) =
            (Arc::clone(&vault.metastore), Arc::clone(&vault.files), Arc::clone(&vault.catalogue));
        let mut shelf = Shelf::new(metastore, files, catalogue, Some(Arc::new(vault)), Arc::clone(&clock)).await?;
        shelf.bills = Some(bills);
        Self::assemble(shelf, clock, limits).await
    }

    async fn assemble(shelf: Shelf, clock: Arc<dyn Clock>, limits: Limits) -> Result<Self, QueryError> {
        let shelf = Arc::new(shelf);
        shelf.releases().await?;
        let Sessions { state, reading, functions } =
            Sessions::over(Arc::new(Catalogues(Arc::clone(&shelf), Rights::All, None)), &limits)?;
        let known = Known { tables: shelf.table_names().into(), functions: functions.into(), rights: Rights::All, picture: None };
        let memory = Memory::whole(limits.engine_memory_bytes);
        let inner = Inner { shelf, state, reading, known, clock, limits, memory, lasting: Lasting::default() };
        Ok(Self { inner: Arc::new(inner), workers: Workers::start()?, hearing: None })
    }

    /// Tells `hearing` what comes of each principal's statement.
    #[must_use]
    pub fn heard_by(self, hearing: Hearing) -> Self {
        Self { hearing: Some(hearing), ..self }
    }

    /// Reads and checks all released files now, so that the first statements do not wait for them. Without it each file is read when a statement
    /// first needs it.
    ///
    /// # Errors
    /// The first file or metastore error; statements over other metrics are answered all the same.
    pub async fn warm(&self) -> Result<(), QueryError> {
        for metric in &self.inner.shelf.catalogue.metrics {
            self.inner.shelf.released(metric).await?;
        }
        Ok(())
    }

    /// Answers one statement. Dropping the future ends it.
    ///
    /// # Errors
    /// A refusal, a fault in the statement, a limit, or a fault of the stores: see [`QueryError::code`].
    pub async fn query(&self, sql: &str) -> Result<Answer, QueryError> {
        self.query_for(TEAM, sql).await
    }

    /// As [`Self::query_for`], telling somebody who waits how far it is.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub async fn query_watched(&self, team: &str, sql: &str, watch: Watch) -> Result<Answer, QueryError> {
        self.run_for(Asker::operator(team), sql, &[], Some(watch)).await
    }

    /// The same for a team, whose allotment pays for questions over protected tables.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub async fn query_for(&self, team: &str, sql: &str) -> Result<Answer, QueryError> {
        self.run_for(Asker::operator(team), sql, &[], None).await
    }

    /// The same for a principal, who reads what its role may read and whose team pays.
    ///
    /// # Errors
    /// As [`Self::query`]; a schema that its role may not read is refused.
    pub async fn query_as(&self, who: &Principal, sql: &str) -> Result<Answer, QueryError> {
        self.run_for(Asker::principal(who), sql, &[], None).await
    }

    /// The same with values for `$1`, `$2`, …: the statement that is asked, priced and remembered is the one with the values written into it.
    ///
    /// # Errors
    /// As [`Self::query_as`]; another number of values than of parameters.
    pub async fn query_bound(&self, who: &Principal, sql: &str, values: &[Value]) -> Result<Answer, QueryError> {
        self.run_for(Asker::principal(who), sql, values, None).await
    }

    /// The parameters of a principal's statement, each with its kind where the statement tells it. Nothing is read, charged or drawn.
    ///
    /// # Errors
    /// What the gate refuses.
    pub async fn parameters_as(&self, who: &Principal, sql: &str) -> Result<Vec<Option<Kind>>, QueryError> {
        let (inner, asker, sql) = (Arc::clone(&self.inner), Asker::principal(who), sql.to_owned());
        let kinds = self.bounded(&Course::default(), async move { inner.parameters(&asker, &sql).await }).await;
        self.hear_refused(who, kinds)
    }

    /// As [`Self::columns_as`], with values for the parameters, or what stands in for them.
    ///
    /// # Errors
    /// As [`Self::columns_as`].
    pub async fn columns_bound(&self, who: &Principal, sql: &str, values: &[Value]) -> Result<SchemaRef, QueryError> {
        let (inner, asker, sql, values) = (Arc::clone(&self.inner), Asker::principal(who), sql.to_owned(), values.to_vec());
        let columns = self.bounded(&Course::default(), async move { inner.columns(&asker, &sql, &values).await }).await;
        self.hear_refused(who, columns)
    }

    /// The columns that a principal's statement would be answered with, names and types. Nothing is charged or drawn, and no row is given out.
    ///
    /// # Errors
    /// As [`Self::query_as`], but for what comes to light only when the statement runs.
    pub async fn columns_as(&self, who: &Principal, sql: &str) -> Result<SchemaRef, QueryError> {
        self.columns_bound(who, sql, &[]).await
    }

    /// What a principal may read: schemas, tables and their columns. Nothing is read, charged or drawn.
    ///
    /// # Errors
    /// When it takes too long.
    pub async fn listing_as(&self, who: &Principal) -> Result<Listing, QueryError> {
        let (inner, asker) = (Arc::clone(&self.inner), Asker::principal(who));
        self.bounded(
            &Course::default(),
            async move { Ok(Listing::of(&Picture::of(&inner.shelf, asker.rights, &asker.name).await)) },
        )
        .await
    }

    /// How many statements, or questions for their columns, were answered from memory.
    #[must_use]
    pub fn from_memory(&self) -> u64 {
        self.inner.lasting.given()
    }

    async fn run_for(&self, asker: Asker, sql: &str, values: &[Value], watch: Option<Watch>) -> Result<Answer, QueryError> {
        let (inner, sql, values) = (Arc::clone(&self.inner), sql.to_owned(), values.to_vec());
        let wanted = Wanted::default();
        let _guard = wanted.until_dropped();
        let course = Arc::new(Course::default());
        let own = Arc::clone(&course);
        let said = self.said(&asker, &sql, &values);
        let answer = match self.kept(&Asked::of(asker.rights, &sql, &values)).await {
            Ok(Some(kept)) => Ok(kept),
            Ok(None) => {
                self.bounded(&course, async move { inner.answer(&asker, (&sql, &values), &wanted, &own, watch.as_ref()).await })
                    .await
            }
            Err(error) => Err(error),
        };
        if let (Some(hearing), Some((name, form))) = (&self.hearing, said) {
            let refused = answer.as_ref().err().and_then(|error| Refused::of(error.code));
            let was_asked = match &answer {
                Ok(answer) => !answer.questions.is_empty(),
                Err(error) => error.charged || refused == Some(Refused::Budget),
            };
            hearing(Heard { name, refused, question: form.filter(|_| was_asked) });
        }
        answer
    }

    /// The answer that is kept of a statement: nothing is worked on, so it waits for no statement in work.
    async fn kept(&self, asked: &Asked) -> Result<Option<Answer>, QueryError> {
        let timeout = self.inner.limits.timeout;
        let kept = tokio::time::timeout(timeout, self.inner.kept(asked)).await.unwrap_or_else(|_| Err(took_longer(timeout)))?;
        Ok(kept.map(|kept| Answer::clone(&kept)))
    }

    /// Tells that a statement was refused before it was run: whoever asks does not go on with it.
    fn hear_refused<T>(&self, who: &Principal, came: Result<T, QueryError>) -> Result<T, QueryError> {
        if let (Some(hearing), Err(error)) = (&self.hearing, &came) {
            hearing(Heard { name: who.name.clone(), refused: Refused::of(error.code), question: None });
        }
        came
    }

    /// Who asks, if it is a principal of whom somebody wants to hear, and the form of what may be a question.
    fn said(&self, asker: &Asker, sql: &str, values: &[Value]) -> Option<(String, Option<Form>)> {
        let is_heard = self.hearing.is_some() && matches!(asker.rights, Rights::Of(_));
        // What is longer is refused before it is read.
        let may_be_one = self.inner.shelf.vault.is_some()
            && sql.len() <= self.inner.limits.statement_bytes
            && sql.as_bytes().windows(PRIVATE.len()).any(|word| word.eq_ignore_ascii_case(PRIVATE.as_bytes()));
        is_heard.then(|| (asker.name.clone(), may_be_one.then(|| Form::of(sql, values)).flatten()))
    }

    /// Does work on a thread of the engine's own, so that the limit of time holds even while it is kept, and a fault of the engine stays there.
    async fn bounded<T: Send + 'static>(
        &self,
        course: &Course,
        work: impl Future<Output = Result<T, QueryError>> + Send + 'static,
    ) -> Result<T, QueryError> {
        let timeout = self.inner.limits.timeout;
        let mut task = self.workers.run(work);
        let mut joined = std::pin::pin!(task.join_next());
        let mut ended = tokio::time::timeout(timeout, &mut joined).await;
        let mut timeout = timeout;
        if ended.is_err() && course.is_private.load(Ordering::Relaxed) {
            let longer = self.inner.limits.private_timeout;
            ended = tokio::time::timeout(longer.saturating_sub(timeout), joined).await;
            timeout = longer;
        }
        let answer = match ended {
            Ok(Some(Ok(answer))) => answer,
            Ok(Some(Err(_)) | None) => {
                Err(QueryError::new(INTERNAL, "the engine failed on this statement", "write it in another way, and report this"))
            }
            Err(_) => Err(took_longer(timeout)),
        };
        answer.map_err(|error| {
            // What took too long may be charging at this moment.
            let may_be = error.code == TIMED_OUT && course.is_private.load(Ordering::Relaxed);
            QueryError { charged: may_be || course.charged.load(Ordering::Relaxed), ..error }
        })
    }
}

fn took_longer(timeout: Duration) -> QueryError {
    QueryError::new(
        TIMED_OUT,
        format!("the statement took longer than {} ms", timeout.as_millis()),
        "restrict the days with WHERE, and check that every join has a condition",
    )
}

/// How far a statement has come, for whoever waits for it.
#[derive(Default)]
struct Course {
    /// It is a question over protected rows.
    is_private: AtomicBool,
    /// One of its questions was charged, or the ledger did not say that it was not.
    charged: AtomicBool,
}

/// Who pays for a statement, and what it may read.
struct Asker {
    name: String,
    team: String,
    rights: Rights,
}

impl Asker {
    fn operator(team: &str) -> Self {
        Self { name: OPERATOR.to_owned(), team: team.to_owned(), rights: Rights::All }
    }

    fn principal(who: &Principal) -> Self {
        Self { name: who.name.clone(), team: who.team.clone(), rights: Rights::Of(who.role) }
    }
}
