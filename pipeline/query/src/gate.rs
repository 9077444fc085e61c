//! The gate: every door's SQL comes through here, and only what is on its lists gets on.
//!
//! ```text
//!  text ──syntax──► size and nesting · first word · one statement · tables and functions by name      before anything is planned
//!       ──plan────► nodes, expressions, operators, types and functions by list; tables by their type  before anything is optimised
//!       ──growth──► no expression becomes too large when it is written out                        before anything is optimised
//!       ──width───► no text and no row can grow beyond the limits                                     before anything runs
//! ```

mod functions;
mod growth;
mod nesting;
mod plan;
mod syntax;
mod width;

use std::sync::Arc;

use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast::{ObjectName, ShowStatementIn, Statement as SqlStatement};

pub(crate) use functions::Functions;

use crate::catalogue::META;
use crate::error::{NOT_PERMITTED, QueryError, SYNTAX, UNKNOWN_FUNCTION, from_parser, name};
use crate::limits::Limits;
use crate::parameters::{self, Kind, Value};
use crate::private::settings::{self, Settings};
use crate::rights::Rights;
use crate::system::{Picture, rewrite};

/// What names a statement may use. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    /// (schema, table).
    pub(crate) tables: Arc<[(&'static str, String)]>,
    /// Functions and their aliases, sorted.
    pub(crate) functions: Arc<[String]>,
    /// Which of the schemas whoever asks may read.
    pub(crate) rights: Rights,
    /// What system tables tell, where a statement may be about them.
    pub(crate) picture: Option<Arc<Picture>>,
}

impl Known {
    /// The tables there are, for a hint.
    fn list(&self) -> String {
        let readable = self.tables.iter().filter(|(schema, _)| self.rights.allow(schema));
        let names: Vec<String> = readable.map(|(schema, table)| format!("{schema}.{table}")).collect();
        format!("the tables are {}", names.join(", "))
    }
}

/// A statement that may be planned. It is still to be checked as a plan.
#[derive(Debug)]
pub(crate) struct Admitted {
    /// A query.
    pub(crate) statement: Statement,
    /// Whether its plan was asked for, in place of its rows.
    pub(crate) explain: bool,
    /// Whether its price was asked for, in place of its rows.
    pub(crate) explain_privacy: bool,
    /// Whether bounds that would fit it were asked for, in place of its rows.
    pub(crate) suggest: bool,
    /// Its own settings; `None` where it has no such clause.
    pub(crate) settings: Option<Settings>,
    /// Literals of the text, which must not be in any error.
    pub(crate) literals: Vec<String>,
    /// Its parameters, with the kinds of those that are cast where they stand.
    pub(crate) parameters: Vec<Option<Kind>>,
    /// Whether it is about system tables, and nothing else.
    pub(crate) system: bool,
}

/// Reads the text of a statement.
///
/// # Errors
/// Refusals, syntax errors, unknown tables and functions, limits.
pub(crate) fn admit(sql: &str, values: &[Value], known: &Known, limits: &Limits) -> Result<Admitted, QueryError> {
    // The parser and the walk over its tree recurse as deep as the statement nests, which is bounded, with large frames.
    stacker::grow(STACK_BYTES, || read(sql, values, known, limits))
}

/// Stack that must be left for one more step over a plan, and what is taken when it is not: plans are walked as deep as they nest.
const STACK_LEFT: usize = 256 * 1024;
const STACK_MORE: usize = 2 * 1024 * 1024;

/// Stack for reading a statement.
const STACK_BYTES: usize = 32 * 1024 * 1024;

fn read(sql: &str, values: &[Value], known: &Known, limits: &Limits) -> Result<Admitted, QueryError> {
    let mut tokens = syntax::tokens(sql, limits)?;
    let explain_privacy = syntax::take_explain_privacy(&mut tokens);
    let suggest = syntax::take_suggest(&mut tokens);
    syntax::check_first_word(&tokens)?;
    let mut literals = syntax::literals(&tokens);
    let mut statements = DFParserBuilder::new(tokens)
        .build()
        .and_then(|mut parser| parser.parse_statements())
        .map_err(|error| from_parser(&error, &literals))?;
    let (Some(mut statement), true) = (statements.pop_front(), statements.is_empty()) else {
        return Err(QueryError::new(SYNTAX, "there is more than one statement", "send one statement at a time"));
    };
    let parameters = parameters::wanted(&mut statement)?;
    parameters::put(&mut statement, values, &mut literals, limits, sql.len())?;
    let settings = settings_of(&mut statement, values.is_empty() && !parameters.is_empty())?;
    let system = system_of(&mut statement, known)?;
    let (statement, explain) = query_of(statement, system, known, limits)?;
    if (explain_privacy || suggest) && explain {
        return Err(explain_refused());
    }
    Ok(Admitted { statement, explain, explain_privacy, suggest, settings, literals, parameters, system })
}

/// Whether a statement asks the system tables; if so, it is made plain.
fn system_of(statement: &mut Statement, known: &Known) -> Result<bool, QueryError> {
    let (Some(picture), Some(SqlStatement::Query(query))) = (&known.picture, parameters::inner(statement)) else {
        return Ok(false);
    };
    let is_system = rewrite::is_asked(query);
    if is_system {
        rewrite::plain(query, picture)?;
    }
    Ok(is_system)
}

/// Takes the settings off a statement: the planner does not know them. While parameters have no values yet, a setting may be one of them.
fn settings_of(statement: &mut Statement, open: bool) -> Result<Option<Settings>, QueryError> {
    let inner = match statement {
        Statement::Statement(inner) => inner,
        Statement::Explain(explain) => match explain.statement.as_mut() {
            Statement::Statement(inner) => inner,
            _ => return Ok(None),
        },
        _ => return Ok(None),
    };
    let SqlStatement::Query(query) = inner.as_mut() else { return Ok(None) };
    let read = query.settings.take().map(|settings| settings::read(&settings)).transpose();
    if open { Ok(read.unwrap_or_default()) } else { read }
}

/// Checks a logical plan before it is optimised.
///
/// # Errors
/// What is not on the lists, or too wide.
pub(crate) fn check_plan(plan: &LogicalPlan, limits: &Limits) -> Result<(), QueryError> {
    plan::check(plan, false)?;
    growth::check(plan, limits)?;
    width::check(plan, limits)
}

/// The same for a statement over system tables, with their tables and functions and no others. Their rows are wide and few, and tools glue names and
/// comments together, so a text may be four times as long and a row twice.
///
/// # Errors
/// What is not on the lists, or too wide.
pub(crate) fn check_system_plan(plan: &LogicalPlan, limits: &Limits) -> Result<(), QueryError> {
    plan::check(plan, true)?;
    growth::check(plan, limits)?;
    let wider = Limits { text_bytes: limits.text_bytes * 4, row_bytes: limits.row_bytes * 2, ..*limits };
    width::check(plan, &wider)
}

/// What is said of a parameter that has no value when its statement is to be answered.
pub(crate) fn unbound() -> QueryError {
    refused("a placeholder without a value is", "write the value itself in place of $1 or ?")
}

/// Checks the private part of a statement, whose steps and functions the planner of private questions has checked already: that nothing in it
/// grows too large.
///
/// # Errors
/// What is too wide.
pub(crate) fn check_size(plan: &LogicalPlan, limits: &Limits) -> Result<(), QueryError> {
    growth::check(plan, limits)?;
    width::check(plan, limits)
}

fn query_of(statement: Statement, system: bool, known: &Known, limits: &Limits) -> Result<(Statement, bool), QueryError> {
    match statement {
        Statement::Statement(inner) => match *inner {
            SqlStatement::Query(query) => {
                syntax::check(&query, system, known, limits)?;
                Ok((Statement::Statement(Box::new(SqlStatement::Query(query))), false))
            }
            SqlStatement::ExplainTable { table_name, .. } => describe(&table_name, known),
            SqlStatement::ShowTables { show_options, .. }
                if show_options.show_in.is_none() && show_options.filter_position.is_none() && show_options.limit.is_none() =>
            {
                let sql = format!(
                    "SELECT DISTINCT table_schema, table_name FROM {META}.columns ORDER BY table_schema = '{META}', table_schema, table_name"
                );
                ours(&sql)
            }
            SqlStatement::ShowTables { .. } => Err(refused(
                "SHOW TABLES with more words is",
                "write SHOW TABLES, or SELECT DISTINCT table_schema, table_name FROM meta.columns with a WHERE",
            )),
            SqlStatement::ShowColumns { show_options, .. } => match &show_options.show_in {
                Some(ShowStatementIn { parent_name: Some(table), .. })
                    if show_options.filter_position.is_none() && show_options.limit.is_none() =>
                {
                    describe(table, known)
                }
                _ => Err(refused(
                    "SHOW COLUMNS with more words is",
                    "write SHOW COLUMNS FROM stats.messages_daily, or SELECT from meta.columns with a WHERE",
                )),
            },
            SqlStatement::Explain { .. } => Err(explain_refused()),
            _ => Err(refused("this statement is", "write a SELECT over stats.* or meta.*; SHOW TABLES lists the tables")),
        },
        Statement::Explain(explain) => {
            let options = &explain.options;
            let plain = !options.analyze
                && !options.verbose
                && options.format.is_none()
                && options.analyze_level.is_none()
                && options.analyze_categories.is_none()
                && options.show_statistics.is_none();
            match (*explain.statement, plain) {
                (Statement::Statement(inner), true) if matches!(*inner, SqlStatement::Query(_)) => {
                    query_of(Statement::Statement(inner), system, known, limits).map(|(statement, _)| (statement, true))
                }
                _ => Err(explain_refused()),
            }
        }
        Statement::CreateExternalTable(_) | Statement::CopyTo(_) | Statement::Reset(_) => {
            Err(refused("this statement is", "write a SELECT over stats.* or meta.*"))
        }
    }
}

fn describe(table: &ObjectName, known: &Known) -> Result<(Statement, bool), QueryError> {
    let (schema, table) = syntax::table(table, known)?;
    // Both names are the catalogue's own.
    ours(&format!(
        "SELECT column_name, data_type, comment FROM {META}.columns WHERE table_schema = '{schema}' AND table_name = '{table}' ORDER BY ordinal_position"
    ))
}

/// A statement this file wrote.
fn ours(sql: &str) -> Result<(Statement, bool), QueryError> {
    let statement = DFParserBuilder::new(sql).build().and_then(|mut parser| parser.parse_statement());
    statement.map(|statement| (statement, false)).map_err(|error| from_parser(&error, &[]))
}

fn explain_refused() -> QueryError {
    refused("EXPLAIN with ANALYZE, VERBOSE or FORMAT, or of anything but a query, is", "write EXPLAIN and the SELECT")
}

/// `what` ends in its verb: "COPY is".
fn refused(what: &str, hint: &str) -> QueryError {
    QueryError::new(NOT_PERMITTED, format!("{what} not permitted"), hint)
}

pub(crate) fn refused_function(function: &str) -> QueryError {
    let hint = match function {
        "random" | "rand" | "uuid" | "gen_random_uuid" => "an answer must be the same each time; leave it out",
        "array_agg" | "string_agg" | "group_concat" | "listagg" | "make_array" | "repeat" | "space" => {
            "lists and text without a bound are not made here; answer with one row per value"
        }
        "regexp_like" | "regexp_match" | "regexp_replace" | "regexp_count" | "regexp_instr" => {
            "use LIKE, starts_with, contains, replace or split_part"
        }
        "dp_clip" => {
            "it bounds what is summed over a protected table, and goes right inside the aggregate: SUM(dp_clip(seconds, 0, 600))"
        }
        "dp_other" => {
            "it tells the row of groups that are left out in a query that aggregates a protected table; in one above, use the column it gave"
        }
        "generate_series" | "range" | "unnest" => "write rows of your own with VALUES",
        _ => "use COUNT, SUM, AVG, MIN, MAX, MEDIAN, window functions, and plain functions of numbers, text and dates",
    };
    QueryError::new(UNKNOWN_FUNCTION, format!("there is no function {} here", name(function)), hint)
}
