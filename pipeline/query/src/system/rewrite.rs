//! PostgreSQL's own constructs, made into plain ones before the gate looks at a system statement.
//!
//! | written | becomes |
//! |---|---|
//! | `pg_catalog.f(…)` | `f(…)` |
//! | `a OPERATOR(pg_catalog.~) b`, `x COLLATE …` | `a ~ b`, `x` |
//! | `'stats.calls_daily'::regclass`, `'int4'::regtype` | its number |
//! | `oid::regclass`, `::regtype`, `::regnamespace` | a function that gives its name |
//! | `::oid`, `::name`, `::"char"`, `::text[]` and the like | a whole number, text |
//! | `x = ANY (list)`, `list[1]`, `ARRAY[…]`, `ARRAY(SELECT …)`, `array_agg(…)` | functions over the list's text |
//! | a subquery in an expression over a table that is always empty | NULL, or false under EXISTS and IN |
//! | `(SELECT x FROM … WHERE …)` in an expression | `(SELECT max(x) …)`, which has one row |
//!
//! A subquery in an expression reads one row in PostgreSQL too, or fails; so `max` changes nothing. Columns without a name get the one that
//! PostgreSQL would give them, and one that is there twice beside a star is left out.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    AccessExpr, BinaryOperator, CastKind, DataType as SqlType, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArgumentList, FunctionArguments, Ident, ObjectName, ObjectNamePart, Query, Select, SelectItem, SetExpr, Subscript,
    TableFactor, UnaryOperator, Value, Visit as _, VisitMut as _, Visitor, VisitorMut,
};

use super::empty::{AGGREGATES, Rows, projects, rows_of, say_never};
use super::functions::{self, IS_ANY, ITEM, REGCLASS, REGNAMESPACE};
use super::shape::{name_columns, rows_of_function};
use super::{INFORMATION_SCHEMA, PG_CATALOG, Picture, SETTINGS, oid, tables, type_named};
use crate::catalogue::CATALOGUE;
use crate::error::{QueryError, UNKNOWN_TABLE};
use crate::gate::refused_function;

/// Whether a text may be a system statement: whether it is worth making a picture for it.
pub(crate) fn may_be(sql: &str) -> bool {
    let text = sql.to_lowercase();
    let words = [
        "pg_",
        "information_schema",
        "current_",
        "session_user",
        "version",
        "privilege",
        "_description",
        "reg",
        "quote_ident",
        "user",
    ];
    words.iter().any(|word| text.contains(word))
}

pub(super) fn normal(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

pub(super) fn parts(object: &ObjectName) -> Vec<String> {
    object.0.iter().filter_map(ObjectNamePart::as_ident).map(normal).collect()
}

/// The system table that a name means.
pub(crate) fn table(object: &ObjectName) -> Option<&'static tables::Spec> {
    let parts = parts(object);
    match parts.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [table] => tables::find(None, table),
        [schema, table] | [CATALOGUE, schema, table] => tables::find(Some(schema), table),
        _ => None,
    }
}

/// Whether a name is in one of the system's schemas, there or not.
pub(crate) fn is_system_name(object: &ObjectName) -> bool {
    let parts = parts(object);
    let schema = match parts.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [schema, _] | [CATALOGUE, schema, _] => (*schema).to_owned(),
        [table] if tables::find(None, table).is_some() => return true,
        _ => return false,
    };
    schema == PG_CATALOG || schema == INFORMATION_SCHEMA
}

/// The name a function is called by, if it is one of the system's.
fn system_function(call: &Function) -> Option<String> {
    let parts = parts(&call.name);
    match parts.as_slice() {
        [schema, name] if schema == PG_CATALOG || schema == INFORMATION_SCHEMA => Some(name.clone()),
        [name] if functions::is_one(name) || name == "current_setting" => Some(name.clone()),
        _ => None,
    }
}

/// The name of a type without its schema and quotes, in small letters.
fn type_name(kind: &SqlType) -> String {
    kind.to_string().to_lowercase().trim_start_matches("pg_catalog.").replace('"', "")
}

/// Whether a query asks the system tables or calls one of their functions.
pub(crate) fn is_asked(query: &Query) -> bool {
    struct Search;
    impl Visitor for Search {
        type Break = ();
        fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
            if is_system_name(relation) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
        fn pre_visit_expr(&mut self, expression: &Expr) -> ControlFlow<()> {
            let found = match expression {
                Expr::Function(call) => system_function(call).is_some(),
                Expr::Cast { data_type, .. } => type_name(data_type).starts_with("reg"),
                _ => false,
            };
            if found { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
    }
    query.visit(&mut Search).is_break()
}

/// Makes a system query plain.
///
/// # Errors
/// A name under `::regclass` that is not there; a setting that is not told.
pub(crate) fn plain(query: &mut Query, picture: &Picture) -> Result<(), QueryError> {
    match query.visit(&mut Plain { picture }) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

pub(super) fn literal(value: Value) -> Expr {
    Expr::Value(value.with_empty_span())
}

fn text(value: &str) -> Expr {
    literal(Value::SingleQuotedString(value.to_owned()))
}

fn whole(value: i64) -> Expr {
    literal(Value::Number(value.to_string(), false))
}

fn cast(expr: Expr, data_type: SqlType) -> Expr {
    Expr::Cast { kind: CastKind::Cast, expr: Box::new(expr), data_type, array: false, format: None }
}

fn null() -> Expr {
    cast(literal(Value::Null), SqlType::Varchar(None))
}

pub(super) fn take(expression: &mut Expr) -> Expr {
    std::mem::replace(expression, literal(Value::Null))
}

pub(super) fn call(function: &str, arguments: Vec<Expr>) -> Expr {
    let args = arguments.into_iter().map(|argument| FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))).collect();
    Expr::Function(Function {
        name: Ident::with_quote('"', function).into(),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: Vec::new() }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

/// `{` and `}` around the text of a list's items.
fn braced(items: Expr) -> Expr {
    let with = |left: Expr, right: Expr| Expr::BinaryOp {
        left: Box::new(left),
        op: BinaryOperator::StringConcat,
        right: Box::new(right),
    };
    with(with(text("{"), items), text("}"))
}

fn string_of(expression: &Expr) -> Option<&str> {
    match expression {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => Some(text),
            _ => None,
        },
        Expr::Nested(inner) | Expr::Cast { expr: inner, .. } => string_of(inner),
        _ => None,
    }
}

/// A parameter without a value.
fn is_open(expression: &Expr) -> bool {
    match expression {
        Expr::Value(value) => matches!(value.value, Value::Placeholder(_)),
        Expr::Nested(inner) | Expr::Cast { expr: inner, .. } => is_open(inner),
        _ => false,
    }
}

/// The one expression that a plain select gives.
fn only_expression(query: &mut Query) -> Option<&mut Expr> {
    let SetExpr::Select(select) = query.body.as_mut() else { return None };
    match select.projection.as_mut_slice() {
        [SelectItem::UnnamedExpr(expression) | SelectItem::ExprWithAlias { expr: expression, .. }] => Some(expression),
        _ => None,
    }
}

struct Plain<'a> {
    picture: &'a Picture,
}

type Flow = ControlFlow<QueryError>;

impl Plain<'_> {
    /// A cast to one of PostgreSQL's own types.
    fn cast(&self, expr: &mut Expr, kind: &SqlType) -> Result<Option<Expr>, QueryError> {
        let kind = type_name(kind);
        if kind.ends_with("[]") {
            return Ok(Some(cast(take(expr), SqlType::Varchar(None))));
        }
        let written = string_of(expr).map(str::to_owned);
        let number = written.as_deref().and_then(|text| text.parse().ok()).map(whole);
        let found = match (kind.as_str(), written.as_deref()) {
            // What stands in for a parameter whose value is not known yet.
            ("regclass", Some("")) => Some(null()),
            ("regclass", Some(wanted)) => match self.picture.named(wanted) {
                _ if number.is_some() => number,
                Some(relation) => Some(whole(relation.oid)),
                None => {
                    let hint = "SELECT * FROM meta.columns shows the tables there are";
                    return Err(QueryError::new(UNKNOWN_TABLE, "there is no table of that name", hint));
                }
            },
            ("regtype", Some(wanted)) => Some(number.or(type_named(wanted).map(whole)).unwrap_or_else(null)),
            ("regnamespace", Some(wanted)) => Some(number.unwrap_or_else(|| whole(oid("schema", wanted)))),
            ("regclass", None) => Some(call(REGCLASS, vec![take(expr)])),
            ("regtype", None) => Some(call("format_type", vec![take(expr), null()])),
            ("regnamespace", None) => Some(call(REGNAMESPACE, vec![take(expr)])),
            ("regrole", _) => Some(call("pg_get_userbyid", vec![take(expr)])),
            ("regproc" | "regprocedure" | "regoper" | "regoperator", _) => Some(cast(take(expr), SqlType::Varchar(None))),
            ("oid", None) if matches!(&*expr, Expr::Function(function) if parts(&function.name) == [REGCLASS]) => {
                let Expr::Function(mut function) = take(expr) else { return Ok(None) };
                function.name = Ident::with_quote('"', "to_regclass").into();
                Some(Expr::Function(function))
            }
            ("oid" | "xid" | "cid", _) => Some(cast(take(expr), SqlType::BigInt(None))),
            (
                "name" | "char" | "bpchar" | "text" | "aclitem" | "pg_node_tree" | "int2vector" | "oidvector" | "json"
                | "anyarray" | "citext",
                _,
            ) => Some(cast(take(expr), SqlType::Varchar(None))),
            ("int2", _) => Some(cast(take(expr), SqlType::SmallInt(None))),
            ("int4", _) => Some(cast(take(expr), SqlType::Int(None))),
            ("int8", _) => Some(cast(take(expr), SqlType::BigInt(None))),
            ("bool", _) => Some(cast(take(expr), SqlType::Boolean)),
            _ => None,
        };
        Ok(found)
    }

    fn function(&self, function: &mut Function) -> Result<Option<Expr>, QueryError> {
        if let [schema, name] = parts(&function.name).as_slice()
            && (schema == PG_CATALOG || schema == INFORMATION_SCHEMA)
        {
            function.name = Ident::with_quote('"', name.clone()).into();
        }
        let [called] = <[String; 1]>::try_from(parts(&function.name)).unwrap_or_default();
        let FunctionArguments::List(list) = &mut function.args else { return Ok(None) };
        match called.as_str() {
            "current_setting" => {
                let asked = list.args.first().and_then(|argument| match argument {
                    FunctionArg::Unnamed(FunctionArgExpr::Expr(expression)) => Some(expression),
                    _ => None,
                });
                let wanted = asked.and_then(string_of);
                // A parameter whose value is not known yet, or what stands in for it.
                if wanted == Some("") || asked.is_some_and(is_open) {
                    return Ok(Some(null()));
                }
                let found = wanted.and_then(|wanted| SETTINGS.iter().find(|(known, _)| known.eq_ignore_ascii_case(wanted)));
                found.map(|(_, value)| Some(text(value))).ok_or_else(|| refused_function("current_setting"))
            }
            "array_agg" => {
                function.name = Ident::new("string_agg").into();
                if let [FunctionArg::Unnamed(FunctionArgExpr::Expr(item))] = list.args.as_mut_slice() {
                    *item = cast(take(item), SqlType::Varchar(None));
                    list.args.push(FunctionArg::Unnamed(FunctionArgExpr::Expr(text(","))));
                }
                Ok(Some(braced(Expr::Function(function.clone()))))
            }
            _ => Ok(None),
        }
    }

    /// `left = ANY (right)`, and `left <> ALL (right)` as its opposite.
    fn any(left: &mut Expr, right: &mut Expr, negated: bool) -> Expr {
        let mut list = take(right);
        while let Expr::Nested(inner) = list {
            list = *inner;
        }
        let left = Box::new(take(left));
        if let Some(items) = string_of(&list).and_then(|text| text.strip_prefix('{')).and_then(|text| text.strip_suffix('}')) {
            let list = items.split(',').map(|item| text(item.trim_matches('"'))).collect();
            return Expr::InList { expr: left, list, negated };
        }
        match list {
            Expr::Subquery(subquery) => Expr::InSubquery { expr: left, subquery, negated },
            Expr::Array(array) => Expr::InList { expr: left, list: array.elem, negated },
            Expr::Cast { expr, .. } if matches!(expr.as_ref(), Expr::Array(_)) => match *expr {
                Expr::Array(array) => Expr::InList { expr: left, list: array.elem, negated },
                other => other,
            },
            list => {
                let found = call(IS_ANY, vec![cast(*left, SqlType::Varchar(None)), list]);
                if negated { Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(found) } } else { found }
            }
        }
    }

    fn before(expression: &mut Expr) {
        match expression {
            Expr::Subquery(query) if matches!(rows_of(query), Rows::Never | Rows::Nulls) => *expression = null(),
            Expr::Exists { subquery, negated } if matches!(rows_of(subquery), Rows::Never) => {
                *expression = literal(Value::Boolean(*negated))
            }
            Expr::InSubquery { subquery, negated, .. } if matches!(rows_of(subquery), Rows::Never) => {
                *expression = literal(Value::Boolean(*negated));
            }
            Expr::AnyOp { left, compare_op: BinaryOperator::Eq, right, .. } => *expression = Self::any(left, right, false),
            Expr::AllOp { left, compare_op: BinaryOperator::NotEq, right } => *expression = Self::any(left, right, true),
            Expr::InSubquery { expr, subquery, negated } if matches!(rows_of(subquery), Rows::OfFunction) => {
                *expression = Self::in_list(expr, subquery, *negated);
            }
            Expr::Function(function) if parts(&function.name) == ["array"] => {
                if let FunctionArguments::Subquery(query) = &mut function.args {
                    *expression = Self::list_of(query);
                }
            }
            _ => {}
        }
    }

    /// `x IN (SELECT …)` over a function's rows, as whether the list of them has it.
    fn in_list(wanted: &mut Expr, subquery: &mut Query, negated: bool) -> Expr {
        let found = call(IS_ANY, vec![cast(take(wanted), SqlType::Varchar(None)), Self::list_of(subquery)]);
        if negated { Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(found) } } else { found }
    }

    /// `ARRAY(SELECT …)`.
    fn list_of(query: &mut Query) -> Expr {
        if matches!(rows_of(query), Rows::Never | Rows::Nulls) {
            return null();
        }
        query.order_by = None;
        if let Some(item) = only_expression(query) {
            *item = braced(call("string_agg", vec![cast(take(item), SqlType::Varchar(None)), text(",")]));
        }
        Expr::Subquery(Box::new(query.clone()))
    }

    fn after(&self, expression: &mut Expr) -> Result<(), QueryError> {
        let plain = match expression {
            Expr::Collate { expr, .. } => Some(take(expr)),
            Expr::BinaryOp { op, .. } => {
                if let BinaryOperator::PGCustomBinaryOperator(parts) = op {
                    *op = operator(parts.last().map_or("", String::as_str)).unwrap_or_else(|| op.clone());
                }
                None
            }
            Expr::Cast { expr, data_type, .. } => self.cast(expr, data_type)?,
            // The engine knows one sign that escapes.
            Expr::Like { pattern, escape_char, .. } | Expr::ILike { pattern, escape_char, .. } => {
                if let Some(sign) = escape_char.take().and_then(|sign| sign.value.into_string()).filter(|sign| sign != "\\") {
                    **pattern = call("replace", vec![take(pattern), text(&sign), text("\\")]);
                }
                None
            }
            Expr::Array(array) => {
                let items = std::mem::take(&mut array.elem);
                Some(braced(call("concat_ws", std::iter::once(text(",")).chain(items).collect())))
            }
            Expr::CompoundFieldAccess { root, access_chain } => match access_chain.as_mut_slice() {
                [AccessExpr::Subscript(Subscript::Index { index })] => Some(call(ITEM, vec![take(root), take(index)])),
                _ => None,
            },
            Expr::Function(function) => self.function(function)?,
            Expr::Subquery(query) => {
                one_row(query);
                None
            }
            _ => None,
        };
        if let Some(plain) = plain {
            *expression = plain;
        }
        Ok(())
    }
}

/// What stands in `OPERATOR(pg_catalog.…)`.
fn operator(sign: &str) -> Option<BinaryOperator> {
    Some(match sign {
        "~" => BinaryOperator::PGRegexMatch,
        "~*" => BinaryOperator::PGRegexIMatch,
        "!~" => BinaryOperator::PGRegexNotMatch,
        "!~*" => BinaryOperator::PGRegexNotIMatch,
        "~~" => BinaryOperator::PGLikeMatch,
        "!~~" => BinaryOperator::PGNotLikeMatch,
        "=" => BinaryOperator::Eq,
        "<>" => BinaryOperator::NotEq,
        "||" => BinaryOperator::StringConcat,
        _ => return None,
    })
}

/// A subquery in an expression has one row at the most, so its greatest is itself.
fn one_row(query: &mut Query) {
    let SetExpr::Select(select) = query.body.as_ref() else { return };
    if select.from.is_empty() || projects(select, &AGGREGATES) || query.limit_clause.is_some() {
        return;
    }
    if let Some(expression) = only_expression(query) {
        *expression = call("max", vec![take(expression)]);
    }
}

impl VisitorMut for Plain<'_> {
    type Break = QueryError;

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> Flow {
        if let TableFactor::Table { name, args, .. } = factor
            && args.as_ref().is_some_and(|args| args.args.is_empty())
            && table(name).is_some_and(|table| table.name == "pg_get_keywords")
        {
            *args = None;
        }
        if let Some(rows) = rows_of_function(factor) {
            *factor = rows;
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &mut Query) -> Flow {
        if let SetExpr::Select(select) = query.body.as_mut()
            && query.with.is_none()
            && say_never(select)
        {
            query.order_by = None;
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> Flow {
        say_never(select);
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expression: &mut Expr) -> Flow {
        Self::before(expression);
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expression: &mut Expr) -> Flow {
        match self.after(expression) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }

    fn post_visit_select(&mut self, select: &mut Select) -> Flow {
        name_columns(&mut select.projection);
        ControlFlow::Continue(())
    }
}
