//! What a refused or failed statement says: a code, a reason, a hint, and never a value from the data (I4).

use std::fmt;

use arrow::error::ArrowError;
use datafusion::common::{Column, SchemaError};
use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::parser::ParserError;

/// Statement refused by the gate.
pub(crate) const NOT_PERMITTED: &str = "42501";
/// Statement that cannot be parsed.
pub(crate) const SYNTAX: &str = "42601";
/// Column that is not there.
pub(crate) const UNKNOWN_COLUMN: &str = "42703";
/// Name that fits several columns.
pub(crate) const AMBIGUOUS_COLUMN: &str = "42702";
/// Table that is not there.
pub(crate) const UNKNOWN_TABLE: &str = "42P01";
/// Function that is not there.
pub(crate) const UNKNOWN_FUNCTION: &str = "42883";
/// Types that do not fit each other.
pub(crate) const TYPE_MISMATCH: &str = "42804";
/// A statement beyond the limits of size, nesting or result.
pub(crate) const TOO_MUCH: &str = "54000";
/// A question that the budget does not hold.
pub(crate) const OVER_BUDGET: &str = "53400";
/// A statement too deep or too branched.
pub(crate) const TOO_COMPLEX: &str = "54001";
/// A value that cannot be read or does not fit its type.
pub(crate) const BAD_VALUE: &str = "22000";
/// A subquery used as one value gave several.
pub(crate) const TOO_MANY_ROWS: &str = "21000";
/// A division by zero.
pub(crate) const DIVISION_BY_ZERO: &str = "22012";
/// A number that does not fit its type.
pub(crate) const OUT_OF_RANGE: &str = "22003";
/// A column outside GROUP BY.
pub(crate) const NOT_GROUPED: &str = "42803";
/// Something SQL knows and this door does not.
pub(crate) const NOT_SUPPORTED: &str = "0A000";
/// Memory limit.
pub(crate) const OUT_OF_MEMORY: &str = "53200";
/// Time limit.
pub(crate) const TIMED_OUT: &str = "57014";
/// The metastore or a file could not be read.
pub(crate) const UNREADABLE: &str = "58030";
/// A released file is not what its record says.
pub(crate) const CORRUPTED: &str = "XX001";
/// A fault of the engine.
pub(crate) const INTERNAL: &str = "XX000";

/// Why a statement was not answered.
///
/// The texts may quote names from the statement itself and names of tables, columns and functions; they never hold a value from the
/// data, nor a literal from the statement (I4).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct QueryError {
    /// SQLSTATE, five characters.
    pub code: &'static str,
    /// What is wrong.
    pub reason: String,
    /// What to write or do instead.
    pub hint: String,
    /// Whether a question of the statement was charged, or may have been: that stands.
    pub charged: bool,
}

impl QueryError {
    /// An error of class `code`, without a full stop at the end of either text.
    pub(crate) fn new(code: &'static str, reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code, reason: reason.into(), hint: hint.into(), charged: false }
    }

    /// What kind of error it is, in PostgreSQL's word for its code, and what it came to: for protocols that have a place for details.
    #[must_use]
    pub fn detail(&self) -> String {
        let charged = if self.charged {
            "what its questions were charged stands, and they are free when asked again"
        } else {
            "nothing was charged"
        };
        format!("{}: {}; {charged}", condition(self.code), stage(self.code))
    }
}

/// What PostgreSQL calls a code of this crate (its appendix A).
fn condition(code: &str) -> &'static str {
    match code {
        NOT_PERMITTED => "insufficient_privilege",
        SYNTAX => "syntax_error",
        UNKNOWN_COLUMN => "undefined_column",
        AMBIGUOUS_COLUMN => "ambiguous_column",
        UNKNOWN_TABLE => "undefined_table",
        UNKNOWN_FUNCTION => "undefined_function",
        TYPE_MISMATCH => "datatype_mismatch",
        NOT_GROUPED => "grouping_error",
        NOT_SUPPORTED => "feature_not_supported",
        TOO_MUCH => "program_limit_exceeded",
        TOO_COMPLEX => "statement_too_complex",
        OVER_BUDGET => "configuration_limit_exceeded",
        BAD_VALUE => "data_exception",
        TOO_MANY_ROWS => "cardinality_violation",
        DIVISION_BY_ZERO => "division_by_zero",
        OUT_OF_RANGE => "numeric_value_out_of_range",
        OUT_OF_MEMORY => "out_of_memory",
        TIMED_OUT => "query_canceled",
        UNREADABLE => "io_error",
        CORRUPTED => "data_corrupted",
        _ => "internal_error",
    }
}

/// Where a statement ended.
fn stage(code: &str) -> &'static str {
    match code {
        OVER_BUDGET => "the ledger refused it",
        TOO_MUCH | OUT_OF_MEMORY | TIMED_OUT => "it met a limit of the server",
        BAD_VALUE | TOO_MANY_ROWS | DIVISION_BY_ZERO | OUT_OF_RANGE => "a value stopped it while it ran",
        UNREADABLE | CORRUPTED => "what it reads is not as it should be",
        INTERNAL => "the server failed",
        _ => "it was refused as it is written",
    }
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {}. Hint: {}", self.code, self.reason, self.hint)
    }
}

/// A name as it may stand in an error: without control characters, and not long.
pub(crate) fn name(name: &str) -> String {
    let mut shown: String = name.chars().map(|c| if c.is_control() { ' ' } else { c }).take(64).collect();
    if name.chars().count() > 64 {
        shown.push('…');
    }
    format!("\"{shown}\"")
}

/// A parser's error. Its text quotes what it found, so it is used only where that is no literal.
pub(crate) fn from_parser(error: &DataFusionError, literals: &[String]) -> QueryError {
    let text = match error {
        DataFusionError::Diagnostic(_, inner) | DataFusionError::Context(_, inner) => return from_parser(inner, literals),
        DataFusionError::SQL(inner, _) => match inner.as_ref() {
            ParserError::RecursionLimitExceeded => {
                return QueryError::new(TOO_COMPLEX, "the statement nests too deep", "name inner queries under WITH");
            }
            ParserError::ParserError(text) | ParserError::TokenizerError(text) => text.as_str(),
        },
        _ => "",
    };
    let hint = "check the place named, or the words before it";
    let reason = match safe(text, literals) {
        Some(text) => format!("syntax: {text}"),
        None => place(text).map_or_else(|| "syntax error".to_owned(), |place| format!("syntax error{place}")),
    };
    QueryError::new(SYNTAX, reason, hint)
}

/// " at Line: 1, Column: 8", the only thing kept of a parser's text that quotes a literal.
fn place(text: &str) -> Option<String> {
    let (_, place) = text.rsplit_once(" at Line: ")?;
    let (line, column) = place.split_once(", Column: ")?;
    let (line, column): (u64, u64) = (line.parse().ok()?, column.trim().parse().ok()?);
    Some(format!(" at line {line}, column {column}"))
}

/// A text of the planner's, if it quotes no literal of the statement.
fn safe(text: &str, literals: &[String]) -> Option<String> {
    let text = text.lines().next().unwrap_or_default().trim().trim_end_matches('.');
    // The place is the parser's own and not a literal.
    let before = text.rsplit_once(" at Line: ").map_or(text, |(before, _)| before);
    let quotes = literals.iter().any(|literal| before.contains(literal.as_str()));
    // Advice for whoever builds the engine is none for whoever asks it.
    let inner = ["Internal error", "DataFusion", "bug"].iter().any(|word| text.contains(word));
    if text.is_empty() || quotes || inner || text.chars().count() > 200 { None } else { Some(text.to_owned()) }
}

/// An error before anything was read: its texts hold only the statement's own words.
pub(crate) fn from_planning(error: &DataFusionError, literals: &[String]) -> QueryError {
    if let Some(error) = ours(error) {
        return error;
    }
    let hint = "SELECT * FROM meta.columns shows tables, columns and types";
    match root(error) {
        DataFusionError::SchemaError(inner, _) => match inner.as_ref() {
            SchemaError::FieldNotFound { field, valid_fields } => unknown_column(field, valid_fields),
            SchemaError::AmbiguousReference { field } => QueryError::new(
                AMBIGUOUS_COLUMN,
                format!("column {} is in more than one table", name(&field.name)),
                "write the table or its alias before the column",
            ),
            SchemaError::DuplicateQualifiedField { name: column, .. }
            | SchemaError::DuplicateUnqualifiedField { name: column } => QueryError::new(
                AMBIGUOUS_COLUMN,
                format!("two columns are called {}", name(column)),
                "give one of them another name with AS",
            ),
        },
        DataFusionError::SQL(..) => from_parser(root(error), literals),
        DataFusionError::NotImplemented(text) => {
            let reason = safe(text, literals).map_or_else(|| NOT_DONE.to_owned(), |text| format!("{NOT_DONE}: {text}"));
            QueryError::new(
                NOT_SUPPORTED,
                reason,
                "write it in another way; plain functions of numbers, text and dates are there",
            )
        }
        DataFusionError::Plan(text) => planned(text, literals, hint),
        _ => from_execution(error),
    }
}

const NOT_DONE: &str = "the statement uses something this engine does not do";

/// What a planner's text means, where it is known; else the text, if it may be shown.
fn planned(text: &str, literals: &[String], hint: &str) -> QueryError {
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if has(&["GROUP BY"]) {
        let reason = "a column is selected that is neither in GROUP BY nor inside an aggregate";
        return QueryError::new(NOT_GROUPED, reason, "add it to GROUP BY, or put it into an aggregate such as SUM or MAX");
    }
    if has(&[
        "failed to match any signature",
        "Candidate functions",
        "No function matches",
        "Failed to coerce arguments",
        "requires",
    ]) {
        let function = text.split('\'').nth(1).filter(|word| word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'));
        let reason = match function {
            Some(function) => format!("function {} cannot take what it is given", name(function)),
            None => "a function cannot take what it is given".to_owned(),
        };
        return QueryError::new(TYPE_MISMATCH, reason, format!("check number and types of its arguments, or CAST them; {hint}"));
    }
    if has(&["non-boolean"]) {
        return QueryError::new(TYPE_MISMATCH, "a condition is not true or false", "compare something, as in country = 'DE'");
    }
    let types = has(&["type", "coerc", "cast"]);
    let (code, otherwise) = if types {
        (TYPE_MISMATCH, "the types in the statement do not fit each other")
    } else {
        (SYNTAX, "the statement could not be planned")
    };
    QueryError::new(code, safe(text, literals).unwrap_or_else(|| otherwise.to_owned()), hint)
}

fn unknown_column(field: &Column, valid: &[Column]) -> QueryError {
    let mut columns: Vec<&str> = valid.iter().map(|column| column.name.as_str()).collect();
    columns.sort_unstable();
    columns.dedup();
    columns.truncate(40);
    let text = "text is written in 'single quotes'";
    let hint = if columns.is_empty() {
        format!("SELECT * FROM meta.columns lists all columns; {text}")
    } else {
        format!("the columns here are {}; {text}", columns.into_iter().map(short).collect::<Vec<_>>().join(", "))
    };
    QueryError::new(UNKNOWN_COLUMN, format!("there is no column {}", name(&field.name)), hint)
}

/// An alias of the statement may be anything; a name of a column that is one of ours is a plain word.
fn short(column: &str) -> String {
    let plain = column.len() <= 64 && column.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if plain { column.to_owned() } else { "…".to_owned() }
}

/// An error while the statement ran: told by its class, since its text may quote a value.
pub(crate) fn from_execution(error: &DataFusionError) -> QueryError {
    if let Some(error) = ours(error) {
        return error;
    }
    let values = "find the rows with WHERE, or use TRY_CAST and NULLIF so that they give NULL";
    match root(error) {
        DataFusionError::ArrowError(inner, _) => match inner.as_ref() {
            ArrowError::DivideByZero => QueryError::new(
                DIVISION_BY_ZERO,
                "a whole number was divided by zero",
                "divide by NULLIF(x, 0), which gives NULL",
            ),
            ArrowError::ArithmeticOverflow(_) | ArrowError::OffsetOverflowError(_) => {
                QueryError::new(OUT_OF_RANGE, "a number does not fit its type", "CAST to DOUBLE before the arithmetic")
            }
            ArrowError::MemoryError(_) => out_of_memory(),
            _ => QueryError::new(BAD_VALUE, "a value could not be turned into the type asked for", values),
        },
        DataFusionError::ResourcesExhausted(_) => out_of_memory(),
        DataFusionError::NotImplemented(_) => QueryError::new(NOT_SUPPORTED, NOT_DONE, "write it in another way"),
        DataFusionError::Execution(text) if text.contains("more than one row") => QueryError::new(
            TOO_MANY_ROWS,
            "a subquery used as one value gave more than one row",
            "add LIMIT 1, or an aggregate such as MAX",
        ),
        DataFusionError::Execution(_) | DataFusionError::Plan(_) | DataFusionError::SchemaError(..) => {
            QueryError::new(BAD_VALUE, "a function or a conversion could not take a value it was given", values)
        }
        _ => QueryError::new(INTERNAL, "the statement could not be answered", "write it in another way, and report this"),
    }
}

fn out_of_memory() -> QueryError {
    QueryError::new(
        OUT_OF_MEMORY,
        "the statement needs more memory than it may have",
        "restrict the days with WHERE, group by fewer columns, or sort fewer rows",
    )
}

/// An error of this crate that came through the engine.
fn ours(error: &DataFusionError) -> Option<QueryError> {
    match root(error) {
        DataFusionError::External(inner) => inner.downcast_ref::<QueryError>().cloned(),
        _ => None,
    }
}

fn root(error: &DataFusionError) -> &DataFusionError {
    let mut error = error;
    loop {
        error = match error {
            DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => inner,
            DataFusionError::Shared(inner) => inner,
            DataFusionError::Collection(all) => match all.first() {
                Some(first) => first,
                None => return error,
            },
            DataFusionError::ArrowError(inner, _) => match inner.as_ref() {
                ArrowError::ExternalError(inner) => match inner.downcast_ref::<DataFusionError>() {
                    Some(inner) => inner,
                    None => return error,
                },
                _ => return error,
            },
            DataFusionError::External(inner) => match inner.downcast_ref::<DataFusionError>() {
                Some(inner) => inner,
                None => return error,
            },
            _ => return error,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i4_a_text_of_the_engine_that_holds_a_value_is_replaced_by_its_class() {
        let canary = "4917012345678";
        let errors = [
            DataFusionError::ArrowError(Box::new(ArrowError::CastError(format!("Cannot cast string '{canary}'"))), None),
            DataFusionError::ArrowError(Box::new(ArrowError::ArithmeticOverflow(canary.to_owned())), None),
            DataFusionError::Execution(canary.to_owned()),
            DataFusionError::Internal(canary.to_owned()),
            DataFusionError::ResourcesExhausted(canary.to_owned()),
            DataFusionError::External(canary.into()),
            DataFusionError::Context(canary.to_owned(), Box::new(DataFusionError::Execution(canary.to_owned()))),
        ];
        for error in &errors {
            assert!(!from_execution(error).to_string().contains(canary));
            assert!(!from_planning(error, &[canary.to_owned()]).to_string().contains(canary));
        }
        let planned = DataFusionError::Plan(format!("cannot coerce Utf8(\"{canary}\")"));
        assert!(!from_planning(&planned, &[canary.to_owned()]).to_string().contains(canary));
    }

    #[test]
    fn every_code_has_its_own_word_and_says_whether_anything_was_charged() {
        let codes = [
            NOT_PERMITTED,
            SYNTAX,
            UNKNOWN_COLUMN,
            AMBIGUOUS_COLUMN,
            UNKNOWN_TABLE,
            UNKNOWN_FUNCTION,
            TYPE_MISMATCH,
            TOO_MUCH,
            OVER_BUDGET,
            TOO_COMPLEX,
            BAD_VALUE,
            TOO_MANY_ROWS,
            DIVISION_BY_ZERO,
            OUT_OF_RANGE,
            NOT_GROUPED,
            NOT_SUPPORTED,
            OUT_OF_MEMORY,
            TIMED_OUT,
            UNREADABLE,
            CORRUPTED,
            INTERNAL,
        ];
        let words: std::collections::BTreeSet<&str> = codes.into_iter().map(condition).collect();
        assert_eq!(words.len(), codes.len(), "{words:?}");
        let error = QueryError::new(NOT_PERMITTED, "reason", "hint");
        assert_eq!(error.detail(), "insufficient_privilege: it was refused as it is written; nothing was charged");
        let error = QueryError { charged: true, ..QueryError::new(TIMED_OUT, "reason", "hint") };
        assert_eq!(
            error.detail(),
            "query_canceled: it met a limit of the server; what its questions were charged stands, and they are free when asked again"
        );
    }

    #[test]
    fn a_long_or_strange_name_is_cut_and_cleaned() {
        assert_eq!(name("a\nb"), "\"a b\"");
        assert_eq!(name(&"x".repeat(70)).chars().count(), 67);
    }
}
