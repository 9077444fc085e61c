//! One statement's way through the engine: gate, plan, price, optimiser, rows. What bounds it in time is in [`Engine`](crate::Engine).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::{RecordBatch, StringArray};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::temporal_conversions::timestamp_ms_to_datetime;
use datafusion::error::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{ExecutionPlan, displayable, execute_stream};
use futures::StreamExt;
use starling_schemas::rows::column;

use crate::answer::Answer;
use crate::catalogue::Catalogues;
use crate::error::{NOT_PERMITTED, QueryError, TOO_MUCH, from_execution, from_planning};
use crate::gate::{self, Admitted, Known};
use crate::lasting::{self, Asked};
use crate::parameters::{self, Kind, Value};
use crate::stop::{self, Wanted};
use crate::system::{Picture, rewrite};
use crate::watching::Watch;
use crate::{Asker, Course, Inner, limits, private, session};

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
    pub(crate) async fn parameters(&self, asker: &Asker, sql: &str) -> Result<Vec<Option<Kind>>, QueryError> {
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
    pub(crate) async fn columns(&self, asker: &Asker, sql: &str, values: &[Value]) -> Result<SchemaRef, QueryError> {
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

    pub(crate) async fn answer(
        &self,
        asker: &Asker,
        (sql, values): (&str, &[Value]),
        wanted: &Wanted,
        course: &Course,
        watch: Option<&Watch>,
    ) -> Result<Answer, QueryError> {
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
            self.lasting.keep(Asked::of(asker.rights, sql, values), releases, &answer);
        }
        Ok(Answer { notes, questions, ..answer })
    }

    /// The answer that is kept, where it is true of what is released by now.
    pub(crate) async fn kept(&self, asked: &Asked) -> Result<Option<Arc<Answer>>, QueryError> {
        if !self.lasting.may_have(asked) {
            return Ok(None);
        }
        let releases = self.shelf.releases().await?;
        Ok(self.lasting.answer(asked, &releases))
    }

    async fn run(&self, state: &SessionState, physical: Arc<dyn ExecutionPlan>) -> Result<Vec<RecordBatch>, QueryError> {
        let runtime = limits::runtime(&self.limits, &self.memory).map_err(|error| from_execution(&error))?;
        let context = Arc::new(TaskContext::default().with_session_config(state.config().clone()).with_runtime(runtime));
        // Whoever waited for what this statement has read until here has been given this thread's next turn, which no other thread can take.
        tokio::task::yield_now().await;
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
pub(crate) fn sliced_bytes(column: &arrow::array::ArrayRef) -> usize {
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
