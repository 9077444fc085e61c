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
mod written;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{RecordBatch, StringArray};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::temporal_conversions::timestamp_ms_to_datetime;
use datafusion::common::runtime::SpawnedTask;
use datafusion::error::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{ExecutionPlan, displayable, execute_stream};
use futures::StreamExt;
use starling_schemas::metrics::Catalogue;
use starling_schemas::rows::column;
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
use error::{INTERNAL, NOT_PERMITTED, TIMED_OUT, TOO_MUCH, from_execution, from_planning};
use gate::{Admitted, Known};
use lasting::{Asked, Lasting};
use limits::Memory;
use private::table::PRIVATE;
use rights::Rights;
use session::Sessions;
use stop::Wanted;
use system::{Picture, rewrite};

/// The team that pays where none is named.
pub const TEAM: &str = "product";

/// As whom the command line asks.
const OPERATOR: &str = "operator";

/// Answers statements. Cheap to share behind an `Arc`; any number of statements may run at one time.
pub struct Engine {
    inner: Arc<Inner>,
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
        Ok(Self { inner: Arc::new(inner), hearing: None })
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
        let answer = self
            .bounded(&course, async move { inner.answer(&asker, (&sql, &values), &wanted, &own, watch.as_ref()).await })
            .await;
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

    /// Does work on a task of its own, so that the limit of time holds even while it keeps a thread, and a fault of the engine stays there.
    async fn bounded<T: Send + 'static>(
        &self,
        course: &Course,
        work: impl Future<Output = Result<T, QueryError>> + Send + 'static,
    ) -> Result<T, QueryError> {
        let timeout = self.inner.limits.timeout;
        let task = SpawnedTask::spawn(work);
        let mut joined = std::pin::pin!(task.join());
        let mut ended = tokio::time::timeout(timeout, &mut joined).await;
        let mut timeout = timeout;
        if ended.is_err() && course.is_private.load(Ordering::Relaxed) {
            let longer = self.inner.limits.private_timeout;
            ended = tokio::time::timeout(longer.saturating_sub(timeout), joined).await;
            timeout = longer;
        }
        let answer = match ended {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => {
                Err(QueryError::new(INTERNAL, "the engine failed on this statement", "write it in another way, and report this"))
            }
            Err(_) => Err(QueryError::new(
                TIMED_OUT,
                format!("the statement took longer than {} ms", timeout.as_millis()),
                "restrict the days with WHERE, and check that every join has a condition",
            )),
        };
        answer.map_err(|error| {
            // What took too long may be charging at this moment.
            let may_be = error.code == TIMED_OUT && course.is_private.load(Ordering::Relaxed);
            QueryError { charged: may_be || course.charged.load(Ordering::Relaxed), ..error }
        })
    }
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

impl Inner {
    /// What the gate makes of a statement, and the session it is planned in.
    async fn admit(&self, asker: &Asker, sql: &str, values: &[Value]) -> Result<(Admitted, SessionState), QueryError> {
        let picture = match rewrite::may_be(sql) {
            true => Some(Arc::new(Picture::of(&self.shelf, asker.rights, &asker.name).await)),
            false => None,
        };
        let known = Known { rights: asker.rights, picture: picture.clone(), ..self.known.clone() };
        let admitted = gate::admit(sql, values, &known, &self.limits)?;
        let mut state = self.state.clone();
        let picture = picture.filter(|_| admitted.system);
        if let Some(picture) = &picture {
            session::for_system_tables(&mut state, picture)?;
        }
        state.register_catalog_list(Arc::new(Catalogues(Arc::clone(&self.shelf), asker.rights, picture)));
        state.mark_start_execution();
        state.execution_props_mut().query_execution_start_time =
            timestamp_ms_to_datetime(self.clock.now_ms()).map(|time| time.and_utc());
        Ok((admitted, state))
    }

    /// Checks the plan of a statement that asks no protected table.
    fn check(&self, plan: &LogicalPlan, system: bool) -> Result<(), QueryError> {
        if system { gate::check_system_plan(plan, &self.limits) } else { gate::check_plan(plan, &self.limits) }
    }

    /// The parameters, as the plan of the statement without their values tells of them.
    async fn parameters(&self, asker: &Asker, sql: &str) -> Result<Vec<Option<Kind>>, QueryError> {
        let (admitted, state) = self.admit(asker, sql, &[]).await?;
        let mut kinds = admitted.parameters;
        // A statement that cannot be planned without its values may be with them; what is wrong with it is told when it has them.
        if kinds.iter().any(Option::is_none)
            && let Ok(plan) = state.statement_to_plan(admitted.statement).await
        {
            parameters::inferred(&plan, &mut kinds);
        }
        Ok(kinds)
    }

    /// As far as [`Self::answer`] goes before anything is priced.
    async fn columns(&self, asker: &Asker, sql: &str, values: &[Value]) -> Result<SchemaRef, QueryError> {
        if let Some(kept) = self.kept(&Asked::of(asker.rights, sql, values)).await? {
            return Ok(Arc::clone(&kept.schema));
        }
        let (admitted, state) = self.admit(asker, sql, values).await?;
        let plan =
            state.statement_to_plan(admitted.statement).await.map_err(|error| from_planning(&error, &admitted.literals))?;
        let is_private = self.shelf.vault.is_some() && private::is_private(&plan);
        let plan = match is_private {
            true if admitted.explain => return Err(no_plan_of_a_question()),
            true if admitted.suggest => return Ok(private::suggested()),
            true if admitted.explain_privacy => return Ok(private::explained()),
            true => {
                let private::Split { plan, mut leaves, families } = private::split(plan, &admitted.settings.unwrap_or_default())?;
                private::replace_bars(plan, &mut leaves, &families)?
            }
            false if admitted.explain_privacy || admitted.suggest || admitted.settings.is_some() => {
                return Err(no_question());
            }
            false => plan,
        };
        self.check(&plan, admitted.system)?;
        Ok(if admitted.explain { explained_columns() } else { Answer::columns(plan.schema().as_arrow()) })
    }

    async fn answer(
        &self,
        asker: &Asker,
        (sql, values): (&str, &[Value]),
        wanted: &Wanted,
        course: &Course,
        watch: Option<&Watch>,
    ) -> Result<Answer, QueryError> {
        let asked = Asked::of(asker.rights, sql, values);
        if let Some(kept) = self.kept(&asked).await? {
            return Ok(Answer::clone(&kept));
        }
        let team = asker.team.as_str();
        let (admitted, state) = self.admit(asker, sql, values).await?;
        if values.is_empty() && !admitted.parameters.is_empty() {
            // Not only where the plan would show it: a setting without its value would be none, and the question another one.
            return Err(gate::unbound());
        }
        let literals = admitted.literals;
        let plan = state.statement_to_plan(admitted.statement).await.map_err(|error| from_planning(&error, &literals))?;
        let (mut notes, mut questions, mut releases) = (Vec::new(), Vec::new(), None);
        let plan = match &self.shelf.vault {
            Some(vault) if private::is_private(&plan) => {
                course.is_private.store(true, Ordering::Relaxed);
                if admitted.explain {
                    return Err(no_plan_of_a_question());
                }
                let mut reading = self.reading.clone();
                reading.mark_start_execution();
                reading.execution_props_mut().query_execution_start_time = state.execution_props().query_execution_start_time;
                let settings = admitted.settings.unwrap_or_default();
                let private::Split { plan, mut leaves, families } = private::split(plan, &settings)?;
                let plan = private::replace_bars(plan, &mut leaves, &families)?;
                gate::check_plan(&plan, &self.limits)?;
                for leaf in &leaves {
                    gate::check_size(&leaf.rows, &self.limits)?;
                }
                let priced = private::price(leaves, &settings, vault, &reading, &literals).await?;
                if admitted.suggest {
                    let asking = private::Asking::of(
                        vault,
                        &reading,
                        team,
                        self.clock.now_ms(),
                        &literals,
                        (watch, &course.charged),
                        &self.limits,
                    );
                    return private::suggest(priced, settings.group_size, asking, admitted.explain_privacy).await;
                }
                if settings.group_size.is_some() {
                    return Err(QueryError::new(
                        NOT_PERMITTED,
                        "setting \"group_size\" is for SUGGEST",
                        "leave it out, or write SUGGEST before the SELECT, which finds bounds that fit groups of this size",
                    ));
                }
                if admitted.explain_privacy {
                    return private::explain(&priced, vault).await;
                }
                let mut paid = Vec::with_capacity(priced.len());
                let asking = private::Asking::of(
                    vault,
                    &reading,
                    team,
                    self.clock.now_ms(),
                    &literals,
                    (watch, &course.charged),
                    &self.limits,
                );
                for (at, question) in priced.iter().enumerate() {
                    paid.push(private::answer(question, asking.at(at + 1, priced.len())).await?);
                }
                notes = private::notes(&priced, &paid, vault)?;
                questions = priced.iter().map(|question| question.id.clone()).collect();
                for family in &families {
                    private::assemble(family, &priced)?;
                }
                plan
            }
            _ if admitted.explain_privacy || admitted.suggest || admitted.settings.is_some() => {
                return Err(no_question());
            }
            _ => {
                self.check(&plan, admitted.system)?;
                if !admitted.explain {
                    releases = lasting::releases(&plan);
                }
                plan
            }
        };
        let mut optimised = state.optimize(&plan).map_err(|error| from_planning(&error, &literals))?;
        if !admitted.explain {
            optimised = stop::with_checks(optimised, wanted).map_err(|error| from_execution(&error))?;
        }
        let physical = state
            .query_planner()
            .create_physical_plan(&optimised, &state)
            .await
            .map_err(|error| from_planning(&error, &literals))?;
        if admitted.explain {
            let logical = optimised.display_indent().to_string();
            return explained(&logical, &displayable(physical.as_ref()).indent(false).to_string());
        }
        let schema = Arc::new(plan.schema().as_arrow().clone());
        let physical = stop::with_yields(physical).map_err(|error| from_execution(&error))?;
        let batches = self.run(&state, physical).await?;
        let answer = Answer::of(&schema, batches).map_err(|error| from_execution(&DataFusionError::from(error)))?;
        if let Some(releases) = releases {
            self.lasting.keep(asked, releases, &answer);
        }
        Ok(Answer { notes, questions, ..answer })
    }

    /// The answer that is kept, where it is true of what is released by now.
    async fn kept(&self, asked: &Asked) -> Result<Option<Arc<Answer>>, QueryError> {
        if !self.lasting.may_have(asked) {
            return Ok(None);
        }
        let releases = self.shelf.releases().await?;
        Ok(self.lasting.answer(asked, &releases))
    }

    async fn run(&self, state: &SessionState, physical: Arc<dyn ExecutionPlan>) -> Result<Vec<RecordBatch>, QueryError> {
        let runtime = limits::runtime(&self.limits, &self.memory).map_err(|error| from_execution(&error))?;
        let context = Arc::new(TaskContext::default().with_session_config(state.config().clone()).with_runtime(runtime));
        let mut stream = execute_stream(physical, context).map_err(|error| from_execution(&error))?;
        let (mut batches, mut rows, mut bytes) = (Vec::new(), 0_usize, 0_usize);
        while let Some(batch) = stream.next().await {
            let batch = batch.map_err(|error| from_execution(&error))?;
            rows = rows.saturating_add(batch.num_rows());
            bytes = bytes.saturating_add(batch.columns().iter().map(sliced_bytes).sum());
            if rows > self.limits.output_rows {
                return Err(QueryError::new(
                    TOO_MUCH,
                    format!("the answer has more than {} rows", self.limits.output_rows),
                    "aggregate, restrict the days with WHERE, or add a LIMIT",
                ));
            }
            if bytes > self.limits.output_bytes {
                return Err(QueryError::new(
                    TOO_MUCH,
                    format!("the answer has more than {} bytes", self.limits.output_bytes),
                    "select fewer columns, aggregate, or add a LIMIT",
                ));
            }
            batches.push(batch);
        }
        Ok(batches)
    }
}

/// Bytes of the rows a column really shows, which may be a slice of something larger.
fn sliced_bytes(column: &arrow::array::ArrayRef) -> usize {
    column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size())
}

fn no_plan_of_a_question() -> QueryError {
    QueryError::new(
        NOT_PERMITTED,
        "EXPLAIN of a statement over protected tables is not possible: part of it is no plan but a question",
        "write EXPLAIN PRIVACY and the SELECT, which tells what the question costs and touches no data",
    )
}

fn no_question() -> QueryError {
    QueryError::new(
        NOT_PERMITTED,
        "EXPLAIN PRIVACY, SUGGEST and SETTINGS are for statements over protected tables",
        "leave them out: released statistics cost nothing",
    )
}

fn explained_columns() -> SchemaRef {
    Arc::new(Schema::new(vec![
        column("plan_type", DataType::Utf8, false, "logical_plan or physical_plan"),
        column("plan", DataType::Utf8, false, "the plan, one operator a line"),
    ]))
}

fn explained(logical: &str, physical: &str) -> Result<Answer, QueryError> {
    let schema = explained_columns();
    let columns = [vec!["logical_plan", "physical_plan"], vec![logical, physical]];
    let columns = columns.into_iter().map(|values| Arc::new(StringArray::from(values)) as _).collect();
    let rows =
        RecordBatch::try_new(Arc::clone(&schema), columns).map_err(|error| from_execution(&DataFusionError::from(error)))?;
    Ok(Answer { schema, batches: vec![rows], notes: Vec::new(), questions: Vec::new() })
}
