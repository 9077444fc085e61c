//! Values for `$1`, `$2`, … of a statement, put into its parse tree as literals before the gate looks at it.
//!
//! ```text
//!  text ─► tokens ─► parse tree ─► here: each $n becomes its literal ─► gate ─► planner, as if it had been written so
//! ```
//!
//! So the gate, the planner of private questions, the ledger and the store of answers see one statement, whichever way its values came: what a
//! value changes, the literal would have changed, and the same question is free when asked again. A value is put into the tree, never into the
//! text: it can become a literal and nothing else. Values count towards the statement's size and stand among the literals that no error may hold.

use std::ops::ControlFlow;

use arrow::datatypes::DataType;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    CastKind, DataType as SqlType, ExactNumberInfo, Expr, LimitClause, Query, Statement as SqlStatement, TimezoneInfo,
    UnaryOperator, Value as Literal, VisitMut as _, VisitorMut, visit_expressions_mut,
};

use crate::error::{BAD_VALUE, QueryError, TOO_COMPLEX, TOO_MUCH};
use crate::limits::Limits;
use crate::private::settings;

/// Parameters of one statement.
pub(crate) const PARAMETERS: usize = 256;

/// What kind of value a parameter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// True or false.
    Bool,
    /// A whole number of 64 bits.
    Whole,
    /// A double.
    Float,
    /// Text.
    Text,
    /// A day.
    Day,
    /// A moment without a zone; everything here is UTC.
    Moment,
}

/// A parameter's value. It has no `Debug`: what is asked is in no log.
#[derive(Clone, PartialEq)]
pub enum Value {
    /// NULL of this kind.
    Null(Kind),
    /// True or false.
    Bool(bool),
    /// A whole number.
    Whole(i64),
    /// A double, which may be infinite or none.
    Float(f64),
    /// Text.
    Text(String),
    /// A day as ISO 8601 writes it.
    Day(String),
    /// A moment as ISO 8601 writes it, without a zone.
    Moment(String),
}

impl Value {
    /// Hashes the value with its kind.
    pub(crate) fn hash_into(&self, hasher: &mut blake3::Hasher) {
        let mut piece = |kind: &[u8], bytes: &[u8]| {
            hasher.update(kind).update(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes()).update(bytes);
        };
        match self {
            Self::Null(_) => piece(b"n", b""),
            Self::Bool(value) => piece(b"b", &[u8::from(*value)]),
            Self::Whole(value) => piece(b"w", &value.to_le_bytes()),
            Self::Float(value) => piece(b"f", &value.to_bits().to_le_bytes()),
            Self::Text(text) => piece(b"t", text.as_bytes()),
            Self::Day(text) => piece(b"d", text.as_bytes()),
            Self::Moment(text) => piece(b"m", text.as_bytes()),
        }
    }
}

impl Kind {
    /// The kind whose values a column of this type is compared with; text where there is none of its own.
    pub(crate) fn of(kind: &DataType) -> Self {
        match kind {
            DataType::Boolean => Self::Bool,
            kind if kind.is_integer() => Self::Whole,
            kind if kind.is_numeric() => Self::Float,
            DataType::Date32 | DataType::Date64 => Self::Day,
            DataType::Timestamp(..) => Self::Moment,
            _ => Self::Text,
        }
    }

    /// The kind that is meant by a type in SQL.
    fn written(kind: &SqlType) -> Self {
        let name = kind.to_string().to_lowercase();
        let name = name.trim_start_matches("pg_catalog.").split(['(', ' ']).next().unwrap_or_default();
        match name {
            "bool" | "boolean" => Self::Bool,
            "tinyint" | "smallint" | "int" | "integer" | "bigint" | "int2" | "int4" | "int8" | "oid" => Self::Whole,
            "real" | "float" | "float4" | "float8" | "double" | "numeric" | "decimal" => Self::Float,
            "date" => Self::Day,
            "timestamp" | "timestamptz" => Self::Moment,
            _ => Self::Text,
        }
    }

    /// A value of this kind to plan with while the real one is not known: only its type is looked at.
    #[must_use]
    pub fn stand_in(self) -> Value {
        match self {
            Self::Bool => Value::Bool(true),
            Self::Whole => Value::Whole(1),
            Self::Float => Value::Float(1.0),
            Self::Text => Value::Text(String::new()),
            Self::Day => Value::Day("2000-01-01".to_owned()),
            Self::Moment => Value::Moment("2000-01-01T00:00:00".to_owned()),
        }
    }

    fn sql(self) -> SqlType {
        match self {
            Self::Bool => SqlType::Boolean,
            Self::Whole => SqlType::BigInt(None),
            Self::Float => SqlType::Double(ExactNumberInfo::None),
            Self::Text => SqlType::Varchar(None),
            Self::Day => SqlType::Date,
            Self::Moment => SqlType::Timestamp(None, TimezoneInfo::None),
        }
    }
}

fn literal(value: Literal) -> Expr {
    Expr::Value(value.with_empty_span())
}

fn cast(value: Literal, kind: Kind) -> Expr {
    let expr = Box::new(literal(value));
    Expr::Cast { kind: CastKind::Cast, expr, data_type: kind.sql(), array: false, format: None }
}

/// A number as it is written, its sign before it.
fn number(text: &str) -> Expr {
    match text.strip_prefix('-') {
        Some(digits) => {
            Expr::UnaryOp { op: UnaryOperator::Minus, expr: Box::new(literal(Literal::Number(digits.to_owned(), false))) }
        }
        None => literal(Literal::Number(text.to_owned(), false)),
    }
}

impl Value {
    /// The text that must be in no error; empty where there is nothing to tell.
    fn text(&self) -> String {
        match self {
            Self::Null(_) | Self::Bool(_) => String::new(),
            Self::Whole(value) => value.unsigned_abs().to_string(),
            Self::Float(value) => format!("{:?}", value.abs()),
            Self::Text(text) | Self::Day(text) | Self::Moment(text) => text.clone(),
        }
    }

    /// What somebody who writes the value by hand would have written.
    fn expression(&self) -> Expr {
        match self {
            Self::Null(kind) => cast(Literal::Null, *kind),
            Self::Bool(value) => literal(Literal::Boolean(*value)),
            Self::Whole(value) => number(&value.to_string()),
            Self::Float(value) if value.is_finite() => number(&format!("{value:?}")),
            Self::Float(value) => cast(Literal::SingleQuotedString(value.to_string()), Kind::Float),
            Self::Text(text) => literal(Literal::SingleQuotedString(text.clone())),
            Self::Day(text) => cast(Literal::SingleQuotedString(text.clone()), Kind::Day),
            Self::Moment(text) => cast(Literal::SingleQuotedString(text.clone()), Kind::Moment),
        }
    }
}

/// The number of a parameter, from 1, if the expression is one.
fn number_of(expression: &Expr) -> Option<usize> {
    let Expr::Value(value) = expression else { return None };
    let Literal::Placeholder(name) = &value.value else { return None };
    let digits = name.strip_prefix('$').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse().ok().filter(|number| *number > 0)
}

/// The statement itself, or the one that is explained.
pub(crate) fn inner(statement: &mut Statement) -> Option<&mut SqlStatement> {
    match statement {
        Statement::Statement(inner) => Some(inner),
        Statement::Explain(explain) => match explain.statement.as_mut() {
            Statement::Statement(inner) => Some(inner),
            _ => None,
        },
        _ => None,
    }
}

/// What the text alone tells of parameters.
struct Wanted {
    kinds: Vec<Option<Kind>>,
    most: usize,
}

impl Wanted {
    fn note(&mut self, expression: &Expr, kind: Kind) {
        if let Some(known) = number_of(expression).and_then(|number| self.kinds.get_mut(number - 1)) {
            *known = known.or(Some(kind));
        }
    }
}

impl VisitorMut for Wanted {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let (limit, offset) = match &query.limit_clause {
            Some(LimitClause::LimitOffset { limit, offset, .. }) => (limit.as_ref(), offset.as_ref().map(|offset| &offset.value)),
            Some(LimitClause::OffsetCommaLimit { offset, limit }) => (Some(limit), Some(offset)),
            None => (None, None),
        };
        let fetch = query.fetch.as_ref().and_then(|fetch| fetch.quantity.as_ref());
        limit.into_iter().chain(offset).chain(fetch).for_each(|rows| self.note(rows, Kind::Whole));
        for setting in query.settings.iter().flatten() {
            self.note(&setting.value, settings::kind(&setting.key.value));
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expression: &mut Expr) -> ControlFlow<()> {
        self.most = self.most.max(number_of(expression).unwrap_or(0));
        if let Expr::Cast { expr, data_type, .. } = expression {
            self.note(expr, Kind::written(data_type));
        }
        ControlFlow::Continue(())
    }
}

/// How many parameters a statement has, and the kinds of those whose place alone tells it: under a cast, in LIMIT and OFFSET, in SETTINGS.
///
/// # Errors
/// [`TOO_COMPLEX`].
pub(crate) fn wanted(statement: &mut Statement) -> Result<Vec<Option<Kind>>, QueryError> {
    let mut wanted = Wanted { kinds: vec![None; PARAMETERS], most: 0 };
    if let Some(inner) = inner(statement) {
        let _never = inner.visit(&mut wanted);
    }
    let Wanted { mut kinds, most } = wanted;
    if most > PARAMETERS {
        return Err(QueryError::new(
            TOO_COMPLEX,
            format!("the statement has more than {PARAMETERS} parameters"),
            "put fewer values into one statement",
        ));
    }
    kinds.truncate(most);
    Ok(kinds)
}

/// Kinds of parameters as the columns beside them tell.
pub(crate) fn inferred(plan: &LogicalPlan, kinds: &mut [Option<Kind>]) {
    let Ok(found) = plan.get_parameter_types() else { return };
    for (number, kind) in (1..).zip(kinds.iter_mut()) {
        let beside = found.get(&format!("${number}")).and_then(Option::as_ref);
        *kind = kind.or_else(|| beside.filter(|kind| !kind.is_null()).map(Kind::of));
    }
}

/// Puts values in the places of parameters, and their texts among the literals.
///
/// # Errors
/// Another number of values than of parameters, or more text than a statement may have.
pub(crate) fn put(
    statement: &mut Statement,
    values: &[Value],
    literals: &mut Vec<String>,
    limits: &Limits,
    written: usize,
) -> Result<(), QueryError> {
    if values.is_empty() {
        return Ok(());
    }
    let wanted = wanted(statement)?.len();
    if wanted != values.len() {
        return Err(QueryError::new(
            BAD_VALUE,
            format!("the statement has {wanted} parameters, and {} values were given", values.len()),
            "give a value for each of $1, $2, …",
        ));
    }
    let texts: Vec<String> = values.iter().map(Value::text).collect();
    if texts.iter().map(String::len).fold(written, usize::saturating_add) > limits.statement_bytes {
        return Err(QueryError::new(
            TOO_MUCH,
            format!("the statement and its values have more than {} bytes", limits.statement_bytes),
            "shorten it; put long lists of values into several statements",
        ));
    }
    literals.extend(texts.into_iter().filter(|text| !text.is_empty()));
    let mut room = limits.statement_bytes;
    let mut fits = true;
    let Some(inner) = inner(statement) else { return Ok(()) };
    let _never = visit_expressions_mut(inner, |expression| {
        if let Some(value) = number_of(expression).and_then(|number| values.get(number - 1)) {
            // A value that stands in many places is written out in each.
            let bytes = value.text().len();
            fits &= bytes <= room;
            room = room.saturating_sub(bytes);
            if fits {
                *expression = value.expression();
            }
        }
        ControlFlow::<()>::Continue(())
    });
    if fits {
        Ok(())
    } else {
        Err(QueryError::new(
            TOO_MUCH,
            format!("the values, written out in each of their places, have more than {} bytes", limits.statement_bytes),
            "name a long value once under WITH",
        ))
    }
}
