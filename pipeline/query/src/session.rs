//! The two sessions of an engine: one for whatever stands above the noise, one for rows below it. Nothing can be registered in either.

use std::sync::Arc;

use datafusion::catalog::CatalogProviderList;
use datafusion::execution::context::SessionState;
use datafusion::execution::{FunctionRegistry as _, SessionStateBuilder, SessionStateDefaults};
use datafusion::prelude::SessionConfig;

use crate::catalogue::{CATALOGUE, STATS};
use crate::error::{QueryError, from_execution};
use crate::gate::Functions;
use crate::limits::{self, BATCH_ROWS, Limits, Memory};
use crate::system::{PG_CATALOG, Picture, functions};

/// Rows of a batch below the noise.
const READING_ROWS: usize = 8192;

/// Both sessions, and the names of all functions.
pub(crate) struct Sessions {
    /// Plans statements and runs what is above the noise.
    pub(crate) state: SessionState,
    /// Runs what is below: with larger batches, and from files of one's own where a dataset says so. No statement reaches this state's tables.
    pub(crate) reading: SessionState,
    pub(crate) functions: Vec<String>,
}

impl Sessions {
    /// Sessions in which statements may name these tables.
    ///
    /// # Errors
    /// When the engine cannot be set up.
    pub(crate) fn over(tables: Arc<dyn CatalogProviderList>, limits: &Limits) -> Result<Self, QueryError> {
        let functions = Functions::listed();
        let mut config = SessionConfig::new()
            .with_default_catalog_and_schema(CATALOGUE, STATS)
            .with_create_default_catalog_and_schema(false)
            .with_information_schema(false)
            .with_target_partitions(1)
            .with_batch_size(BATCH_ROWS);
        config.options_mut().sql_parser.map_string_types_to_utf8view = false;
        let state = SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(limits::runtime(limits, &Memory::whole(0)).map_err(|error| from_execution(&error))?)
            .with_catalog_list(tables)
            .with_expr_planners(SessionStateDefaults::default_expr_planners())
            .with_scalar_functions(functions.scalar)
            .with_aggregate_functions(functions.aggregate)
            .with_window_functions(functions.window)
            .build();
        let mut reading = state.config().clone().with_batch_size(READING_ROWS);
        reading.options_mut().sql_parser.map_string_types_to_utf8view = false;
        let reading =
            SessionStateBuilder::new_from_existing(state.clone()).with_config(reading).with_runtime_env(Arc::default()).build();
        Ok(Self { state, reading, functions: functions.names })
    }
}

/// Makes a session one for a statement over system tables: their functions are there, and a bare name is one of PostgreSQL's own.
///
/// # Errors
/// When a function cannot be registered.
pub(crate) fn for_system_tables(state: &mut SessionState, picture: &Arc<Picture>) -> Result<(), QueryError> {
    state.config_mut().options_mut().catalog.default_schema = PG_CATALOG.to_owned();
    for function in functions::over(picture) {
        state.register_udf(function).map_err(|error| from_execution(&error))?;
    }
    let mut aggregates = SessionStateDefaults::default_aggregate_functions();
    aggregates.retain(|function| function.name() == "string_agg");
    for function in aggregates {
        state.register_udaf(function).map_err(|error| from_execution(&error))?;
    }
    Ok(())
}
