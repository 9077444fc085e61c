//! # query: SQL over released statistics, behind one gate
//!
//! Every door (command line, PostgreSQL wire, HTTP, console) hands a statement's text to [`Engine::query`] and gets an [`Answer`] or a [`QueryError`].
//!
//! ```text
//!  text ─► gate: text ─► planner ─► gate: plan ─► optimiser ─► stop: checks, yields ─► DataFusion ─► Answer
//!            │             │           │                                                 │
//!            │             │           └─ nodes, expressions, types by list; size        └─ limits: rows, bytes, memory, time; no disk
//!            │             └─ catalogue: stats.<metric>  released files, checked once, kept in memory by path
//!            │                           meta.*          definitions, budgets, charges, releases, columns
//!            └─ size, nesting, kind of statement, tables and functions by name; refused: code, reason, hint
//! ```
//!
//! **Comes in:** one SQL statement. **Goes out:** rows, or an error with a SQLSTATE, a reason and a hint.
//!
//! **What may be asked.** `SELECT` with everything that only reads: `WITH`, joins, subqueries, set operations, `VALUES`, window functions. `EXPLAIN`
//! without options, `DESCRIBE`, `SHOW TABLES`, `SHOW COLUMNS FROM`. A bare table name is looked up in `stats`. Everything else does not exist: files,
//! settings, writing, system tables, functions that are volatile or grow text without a bound. The gate allows by list at each step, so what a
//! new version of the engine can do is refused until somebody puts it on a list.
//!
//! **A release appears** for the next statement: tables are resolved when a statement names them. One statement sees one state of each table.
//!
//! **Invariants kept here.**
//! - I3: a released file is served only if its bytes have the hash that was recorded; since paths are never written twice, it is read once.
//! - I4: no error holds a value from the data or a literal from the statement. What the engine says while it runs is replaced by its class; what it
//!   says while it plans is passed on only if it quotes no literal.
//! - I8: what the gate does not know is refused; a file that does not match its record is not served.
//!
//! `now()` is the [`Clock`]'s time, so an answer can be repeated.
//!
//! **What can go wrong.**
//! - The metastore or the file store cannot be read: 58030. A released file was changed or is gone: XX001, for its metric only.
//! - A statement takes too long or too much: 57014, 53200, 54000. Dropping the future of [`Engine::query`] ends it too; `stop` says how work that
//!   does not wait for anything comes to an end.
//! - Whole numbers wrap around when they grow beyond their type, as the engine's do. Released values are doubles.
//! - A fault of the engine: XX000. A panic is caught with its task; its text goes to the process's panic hook, which must not log it.

mod answer;
mod catalogue;
mod error;
mod gate;
mod limits;
mod meta;
mod released;
mod stop;

use std::sync::Arc;

use arrow::array::{RecordBatch, StringArray};
use arrow::datatypes::{DataType, Schema};
use arrow::temporal_conversions::timestamp_ms_to_datetime;
use datafusion::common::runtime::SpawnedTask;
use datafusion::error::DataFusionError;
use datafusion::execution::context::SessionState;
use datafusion::execution::{SessionStateBuilder, SessionStateDefaults, TaskContext};
use datafusion::physical_plan::{ExecutionPlan, displayable, execute_stream};
use datafusion::prelude::SessionConfig;
use futures::StreamExt;
use starling_schemas::metrics::Catalogue;
use starling_schemas::rows::column;
use starling_schemas::time::Clock;
use starling_store::{Files, Metastore};

pub use answer::Answer;
pub use error::QueryError;
pub use limits::Limits;

use catalogue::{CATALOGUE, Catalogues, STATS, Shelf};
use error::{INTERNAL, TIMED_OUT, TOO_MUCH, from_execution, from_planning};
use gate::{Functions, Known};
use limits::{BATCH_ROWS, Memory};
use stop::Wanted;

/// Answers statements. Cheap to share behind an `Arc`; any number of statements may run at one time.
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    shelf: Arc<Shelf>,
    state: SessionState,
    known: Known,
    clock: Arc<dyn Clock>,
    limits: Limits,
    memory: Arc<Memory>,
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
        let shelf = Arc::new(Shelf::new(metastore, files, catalogue));
        shelf.releases().await?;
        let functions = Functions::listed();
        let known = Known { tables: shelf.table_names(), functions: functions.names };
        let mut config = SessionConfig::new()
            .with_default_catalog_and_schema(CATALOGUE, STATS)
            .with_create_default_catalog_and_schema(false)
            .with_information_schema(false)
            .with_target_partitions(1)
            .with_batch_size(BATCH_ROWS);
        config.options_mut().sql_parser.map_string_types_to_utf8view = false;
        let state = SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(limits::runtime(&limits, &Memory::whole(0)).map_err(|error| from_execution(&error))?)
            .with_catalog_list(Arc::new(Catalogues(Arc::clone(&shelf))))
            .with_expr_planners(SessionStateDefaults::default_expr_planners())
            .with_scalar_functions(functions.scalar)
            .with_aggregate_functions(functions.aggregate)
            .with_window_functions(functions.window)
            .build();
        let memory = Memory::whole(limits.engine_memory_bytes);
        Ok(Self { inner: Arc::new(Inner { shelf, state, known, clock, limits, memory }) })
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
        let (inner, sql) = (Arc::clone(&self.inner), sql.to_owned());
        let timeout = self.inner.limits.timeout;
        // On a task of its own, so that the limit holds even while the statement keeps a thread, and a fault of the engine stays there.
        let wanted = Wanted::default();
        let _guard = wanted.until_dropped();
        let task = SpawnedTask::spawn(async move { inner.answer(&sql, &wanted).await });
        match tokio::time::timeout(timeout, task.join()).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => {
                Err(QueryError::new(INTERNAL, "the engine failed on this statement", "write it in another way, and report this"))
            }
            Err(_) => Err(QueryError::new(
                TIMED_OUT,
                format!("the statement took longer than {} ms", timeout.as_millis()),
                "restrict the days with WHERE, and check that every join has a condition",
            )),
        }
    }
}

impl Inner {
    async fn answer(&self, sql: &str, wanted: &Wanted) -> Result<Answer, QueryError> {
        let admitted = gate::admit(sql, &self.known, &self.limits)?;
        let literals = admitted.literals;
        let mut state = self.state.clone();
        state.mark_start_execution();
        state.execution_props_mut().query_execution_start_time =
            timestamp_ms_to_datetime(self.clock.now_ms()).map(|time| time.and_utc());
        let plan = state.statement_to_plan(admitted.statement).await.map_err(|error| from_planning(&error, &literals))?;
        gate::check_plan(&plan, &self.limits)?;
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
        Answer::of(&schema, batches).map_err(|error| from_execution(&DataFusionError::from(error)))
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

fn explained(logical: &str, physical: &str) -> Result<Answer, QueryError> {
    let schema = Arc::new(Schema::new(vec![
        column("plan_type", DataType::Utf8, false, "logical_plan or physical_plan"),
        column("plan", DataType::Utf8, false, "the plan, one operator a line"),
    ]));
    let columns = [vec!["logical_plan", "physical_plan"], vec![logical, physical]];
    let columns = columns.into_iter().map(|values| Arc::new(StringArray::from(values)) as _).collect();
    let rows =
        RecordBatch::try_new(Arc::clone(&schema), columns).map_err(|error| from_execution(&DataFusionError::from(error)))?;
    Ok(Answer { schema, batches: vec![rows] })
}
