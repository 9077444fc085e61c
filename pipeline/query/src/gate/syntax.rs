//! The first look: the text and its parse tree. Size and nesting before anything recurses, then the kind of statement, the tables it names and
//! the functions it calls.

use std::collections::HashMap;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Function, Ident, ObjectName, ObjectNamePart, Query, Select, SetExpr, TableFactor, Visit, Visitor,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use super::{Known, nesting, refused, refused_function};
use crate::alerts::INTEGRITY;
use crate::bills::BILLING;
use crate::businesses::BUSINESS;
use crate::catalogue::{CATALOGUE, STATS};
use crate::error::{NOT_PERMITTED, QueryError, SYNTAX, TOO_COMPLEX, TOO_MUCH, UNKNOWN_TABLE, name};
use crate::limits::Limits;
use crate::system::{functions, rewrite};

/// Brackets of lists may nest so deep: no released column is a list, and types nest without a limit of their own in the parser.
const BRACKETS: usize = 8;
/// Set operations in one statement.
const SET_OPERATIONS: usize = 50;
/// Queries in one statement: its own, subqueries, and those under WITH.
const QUERIES: usize = 64;
/// Queries inside each other.
const QUERY_DEPTH: usize = 16;

/// Splits a statement into tokens and checks its size before anything recurses over it.
///
/// # Errors
/// [`TOO_MUCH`], [`TOO_COMPLEX`], [`SYNTAX`].
pub(crate) fn tokens(sql: &str, limits: &Limits) -> Result<Vec<TokenWithSpan>, QueryError> {
    if sql.len() > limits.statement_bytes {
        return Err(QueryError::new(
            TOO_MUCH,
            format!("the statement has more than {} bytes", limits.statement_bytes),
            "shorten it; put long lists of values into several statements",
        ));
    }
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize_with_location().map_err(|error| {
        QueryError::new(
            SYNTAX,
            format!("the text breaks off or is not SQL at line {}, column {}", error.location.line, error.location.column),
            "check that every quote and comment is closed",
        )
    })?;
    let (mut count, mut brackets, mut set_operations, mut lists) = (0, 0, 0, 0);
    for token in &tokens {
        count += usize::from(!matches!(token.token, Token::Whitespace(_)));
        match &token.token {
            Token::LBracket | Token::LBrace => brackets += 1,
            Token::Word(word) => match word.keyword {
                Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT | Keyword::MINUS => set_operations += 1,
                Keyword::ARRAY | Keyword::STRUCT | Keyword::MAP | Keyword::TUPLE | Keyword::NESTED | Keyword::NULLABLE => {
                    lists += 1
                }
                _ => {}
            },
            _ => {}
        }
    }
    let too_complex = |what: String, hint: &str| Err(QueryError::new(TOO_COMPLEX, what, hint));
    if count > limits.tokens {
        return too_complex(
            format!("the statement has more than {} words and signs", limits.tokens),
            "split it into several statements",
        );
    }
    if brackets > BRACKETS || lists > BRACKETS {
        return too_complex(
            "the statement uses too many lists".to_owned(),
            "no released column is a list; write IN (…) for several values",
        );
    }
    if set_operations > SET_OPERATIONS {
        return too_complex(
            format!("more than {SET_OPERATIONS} set operations"),
            "write rows of your own with VALUES, or split the statement",
        );
    }
    nesting::check(&tokens, limits)?;
    Ok(tokens)
}

/// Whether a statement begins with EXPLAIN PRIVACY; the two words are taken away.
pub(crate) fn take_explain_privacy(tokens: &mut Vec<TokenWithSpan>) -> bool {
    let words: Vec<usize> = (0..tokens.len()).filter(|at| !matches!(tokens[*at].token, Token::Whitespace(_))).take(2).collect();
    let is = |at: usize, wanted: &str| matches!(&tokens[at].token, Token::Word(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(wanted));
    let [first, second] = words.as_slice() else { return false };
    let found = is(*first, "EXPLAIN") && is(*second, "PRIVACY");
    if found {
        tokens.drain(*first..=*second);
    }
    found
}

/// Whether a statement begins with SUGGEST; the word is taken away.
pub(crate) fn take_suggest(tokens: &mut Vec<TokenWithSpan>) -> bool {
    let first = tokens.iter().position(|token| !matches!(token.token, Token::Whitespace(_)));
    let is_it = |at: &usize| matches!(tokens.get(*at).map(|token| &token.token), Some(Token::Word(word)) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case("SUGGEST"));
    first.filter(is_it).map(|at| tokens.remove(at)).is_some()
}

/// The words a statement may begin with; everything else is refused by its first word, before it is parsed.
///
/// # Errors
/// [`NOT_PERMITTED`] with what to write instead, or [`SYNTAX`].
pub(crate) fn check_first_word(tokens: &[TokenWithSpan]) -> Result<(), QueryError> {
    let mut words = tokens.iter().filter(|token| !matches!(token.token, Token::Whitespace(_) | Token::SemiColon | Token::LParen));
    let Some(first) = words.next() else {
        return Err(QueryError::new(SYNTAX, "there is no statement", "write a SELECT, such as SELECT * FROM meta.metrics"));
    };
    let Token::Word(word) = &first.token else {
        return Err(QueryError::new(
            SYNTAX,
            "a statement begins with a word",
            "write a SELECT, such as SELECT * FROM meta.metrics",
        ));
    };
    let hint = match word.keyword {
        Keyword::SELECT
        | Keyword::WITH
        | Keyword::VALUES
        | Keyword::FROM
        | Keyword::EXPLAIN
        | Keyword::DESCRIBE
        | Keyword::DESC
        | Keyword::SHOW => return Ok(()),
        Keyword::NoKeyword => {
            return Err(QueryError::new(
                SYNTAX,
                "this is not a SQL statement",
                "write a SELECT, such as SELECT * FROM meta.metrics",
            ));
        }
        Keyword::COPY | Keyword::UNLOAD | Keyword::EXPORT => "write the SELECT alone and let your client save the answer",
        Keyword::SET | Keyword::RESET | Keyword::USE | Keyword::PRAGMA => {
            "settings are fixed; write the schema before the table, as in stats.messages_daily"
        }
        Keyword::PREPARE | Keyword::EXECUTE | Keyword::EXEC | Keyword::DEALLOCATE => {
            "send the SELECT itself with its values in it"
        }
        Keyword::BEGIN
        | Keyword::START
        | Keyword::COMMIT
        | Keyword::ROLLBACK
        | Keyword::SAVEPOINT
        | Keyword::END
        | Keyword::RELEASE => "send the SELECT alone: released statistics never change, so there is nothing to bracket",
        Keyword::CREATE => "name a query with WITH name AS (SELECT …) in the same statement; nothing can be stored here",
        Keyword::INSERT
        | Keyword::UPDATE
        | Keyword::DELETE
        | Keyword::MERGE
        | Keyword::TRUNCATE
        | Keyword::REPLACE
        | Keyword::DROP
        | Keyword::ALTER => "released statistics are written once and never changed; write a SELECT",
        Keyword::ANALYZE => "write EXPLAIN before the SELECT to see its plan",
        Keyword::TABLE => "write SELECT * FROM and the table",
        _ => "write a SELECT over stats.* or meta.*",
    };
    Err(refused(&format!("{} is", word.value.to_ascii_uppercase()), hint))
}

/// Literals of a statement, which must not be in any error.
pub(crate) fn literals(tokens: &[TokenWithSpan]) -> Vec<String> {
    let literal = |token: &Token| match token {
        Token::Number(text, _)
        | Token::SingleQuotedString(text)
        | Token::TripleSingleQuotedString(text)
        | Token::TripleDoubleQuotedString(text)
        | Token::SingleQuotedByteStringLiteral(text)
        | Token::DoubleQuotedByteStringLiteral(text)
        | Token::SingleQuotedRawStringLiteral(text)
        | Token::DoubleQuotedRawStringLiteral(text)
        | Token::NationalStringLiteral(text)
        | Token::EscapedStringLiteral(text)
        | Token::UnicodeStringLiteral(text)
        | Token::HexStringLiteral(text) => Some(text.clone()),
        Token::DollarQuotedString(quoted) => Some(quoted.value.clone()),
        _ => None,
    };
    tokens.iter().filter_map(|token| literal(&token.token)).filter(|text| !text.is_empty()).collect()
}

/// Looks a table name up. One part: in `stats`. Two: schema and table. Three: with the catalogue before them.
///
/// # Errors
/// [`NOT_PERMITTED`] for schemas that whoever asks may not read, or are kept behind other doors, or do not exist on purpose, [`UNKNOWN_TABLE`] with the tables there are.
pub(crate) fn table(object: &ObjectName, known: &Known) -> Result<(&'static str, String), QueryError> {
    let mut parts = Vec::new();
    for part in &object.0 {
        match part {
            ObjectNamePart::Identifier(ident) if ident.quote_style == Some('\'') => return Err(file()),
            ObjectNamePart::Identifier(ident) => parts.push(normal(ident)),
            ObjectNamePart::Function(_) => return Err(refused("a function in a table's name is", "write the table's name")),
        }
    }
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let (schema, table) = match parts.as_slice() {
        [table] => (STATS, *table),
        [schema, table] | [CATALOGUE, schema, table] => (*schema, *table),
        [schema, ..] => (*schema, ""),
        [] => (STATS, ""),
    };
    known.rights.check(schema)?;
    if let Some((schema, table)) = known.tables.iter().find(|(s, t)| *s == schema && t == table) {
        return Ok((*schema, table.clone()));
    }
    let refuse = |reason: &str, hint: &str| Err(QueryError::new(NOT_PERMITTED, reason, hint));
    match schema {
        "private" => refuse(
            "there is no such protected table at this door",
            "SELECT DISTINCT table_name FROM meta.columns WHERE table_schema = 'private' lists those that may be asked; released statistics are in stats.*",
        ),
        INTEGRITY => refuse("integrity data is not served as such a table", "SELECT * FROM integrity.alerts is the alert feed"),
        BILLING => {
            refuse("billing is not served as such a table", "SELECT * FROM billing.daily is what businesses are billed for")
        }
        BUSINESS => refuse(
            "business information is not served as such a table",
            "SELECT * FROM business.accounts is what businesses say of themselves",
        ),
        "information_schema" | "pg_catalog" => {
            refuse("system tables are read with SELECT only", "SELECT * FROM meta.columns lists all tables and columns")
        }
        _ if ["/", "\\", "://"].iter().any(|sign| table.contains(sign) || schema.contains(sign)) => Err(file()),
        _ => Err(QueryError::new(UNKNOWN_TABLE, format!("there is no table {}", quoted(&parts)), known.list())),
    }
}

/// A table of a statement over system tables.
///
/// # Errors
/// As [`table`] for what may not be read; [`NOT_PERMITTED`] for what may be, since the two are not read together; [`UNKNOWN_TABLE`].
fn system_table(object: &ObjectName, known: &Known) -> Result<(), QueryError> {
    if rewrite::table(object).is_some() {
        return Ok(());
    }
    if rewrite::is_system_name(object) {
        let hint = "SELECT schemaname, tablename FROM pg_catalog.pg_tables lists all tables that may be read";
        return Err(QueryError::new(UNKNOWN_TABLE, "there is no such system table", hint));
    }
    table(object, known)?;
    let hint =
        "read pg_catalog and information_schema in a statement of their own; meta.columns can be joined with them in your client";
    Err(refused("a statement over system tables and others, or with their functions over others, is", hint))
}

fn file() -> QueryError {
    QueryError::new(
        NOT_PERMITTED,
        "files and addresses cannot be read",
        "read stats.* or meta.*; SELECT * FROM meta.metrics lists what there is",
    )
}

fn quoted(parts: &[&str]) -> String {
    parts.iter().map(|part| name(part)).collect::<Vec<_>>().join(".")
}

fn normal(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

/// Walks a query's parse tree.
///
/// # Errors
/// The first thing that is not permitted, or not there, or too much.
pub(crate) fn check(query: &Query, system: bool, known: &Known, limits: &Limits) -> Result<(), QueryError> {
    let mut look = Look { known, system, limits, frames: vec![Frame::default()], depth: 0, queries: 0, grouping_sets: 1 };
    match query.visit(&mut look) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

#[derive(Default)]
struct Frame {
    /// Relations read by this query and what stands in it.
    relations: usize,
    /// What reading a `WITH` query once costs, by name.
    costs: HashMap<String, usize>,
    /// Names of this query's `WITH` queries, by where they stand.
    names: HashMap<*const Query, String>,
}

struct Look<'a> {
    known: &'a Known,
    /// Whether the statement is about system tables: then it reads no others.
    system: bool,
    limits: &'a Limits,
    frames: Vec<Frame>,
    depth: usize,
    queries: usize,
    grouping_sets: usize,
}

type Flow = ControlFlow<QueryError>;

fn flow(result: Result<(), QueryError>) -> Flow {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(error),
    }
}

impl Look<'_> {
    fn read(&mut self, relations: usize) -> Result<(), QueryError> {
        let Some(frame) = self.frames.last_mut() else { return Ok(()) };
        frame.relations = frame.relations.saturating_add(relations);
        if frame.relations > self.limits.relations {
            return Err(QueryError::new(
                TOO_COMPLEX,
                format!(
                    "the statement reads more than {} tables, each use of a WITH query counted with all it reads",
                    self.limits.relations
                ),
                "split it into several statements",
            ));
        }
        Ok(())
    }

    fn enter(&mut self, query: &Query) -> Result<(), QueryError> {
        self.deeper()?;
        self.queries += 1;
        // The outermost frame is no query.
        if self.queries > QUERIES || self.frames.len() > QUERY_DEPTH {
            return Err(QueryError::new(
                TOO_COMPLEX,
                format!("the statement has more than {QUERIES} queries, or more than {QUERY_DEPTH} inside each other"),
                "split it into several statements",
            ));
        }
        let mut frame = Frame::default();
        if let Some(with) = &query.with {
            if with.recursive {
                return Err(refused("WITH RECURSIVE is", "write each step as a query of its own under WITH"));
            }
            for cte in &with.cte_tables {
                frame.names.insert(std::ptr::from_ref(cte.query.as_ref()), normal(&cte.alias.name));
            }
        }
        self.frames.push(frame);
        if !query.locks.is_empty() {
            return Err(refused("FOR UPDATE and FOR SHARE are", "leave the clause out: released statistics never change"));
        }
        if query.for_clause.is_some() || query.format_clause.is_some() || !query.pipe_operators.is_empty() {
            return Err(refused("FOR, FORMAT and |> are", "write a plain SELECT; your client chooses the format"));
        }
        if query.settings.is_some() {
            return Err(refused(
                "SETTINGS inside a statement are",
                "write them once, at its end: they are the whole statement's",
            ));
        }
        check_body(&query.body)
    }

    fn leave(&mut self, query: &Query) -> Result<(), QueryError> {
        self.depth = self.depth.saturating_sub(1);
        let Some(frame) = self.frames.pop() else { return Ok(()) };
        let Some(around) = self.frames.last_mut() else { return Ok(()) };
        match around.names.get(&std::ptr::from_ref(query)) {
            Some(cte) => {
                let cte = cte.clone();
                around.costs.insert(cte, frame.relations.max(1));
                Ok(())
            }
            None => self.read(frame.relations),
        }
    }

    fn deeper(&mut self) -> Result<(), QueryError> {
        self.depth += 1;
        if self.depth > self.limits.depth {
            return Err(QueryError::new(
                TOO_COMPLEX,
                format!("the statement nests deeper than {}", self.limits.depth),
                "write IN (…) for many values, and name inner queries under WITH",
            ));
        }
        Ok(())
    }

    fn relation(&mut self, object: &ObjectName) -> Result<(), QueryError> {
        if let [ObjectNamePart::Identifier(ident)] = object.0.as_slice()
            && ident.quote_style != Some('\'')
        {
            let wanted = normal(ident);
            let cost = self.frames.iter().rev().find_map(|frame| frame.costs.get(&wanted).copied());
            if let Some(cost) = cost {
                return self.read(cost);
            }
        }
        if self.system {
            system_table(object, self.known)?
        } else {
            table(object, self.known).map(|_| ())?
        }
        self.read(1)
    }

    fn factor(&self, factor: &TableFactor) -> Result<(), QueryError> {
        match factor {
            TableFactor::Table {
                args: None,
                with_hints,
                version: None,
                with_ordinality: false,
                partitions,
                json_path: None,
                sample: None,
                ..
            } if with_hints.is_empty() && partitions.is_empty() => Ok(()),
            TableFactor::Table { args: Some(_), .. } | TableFactor::TableFunction { .. } | TableFactor::Function { .. } => {
                Err(refused("a function in place of a table is", "read stats.* or meta.*; write rows of your own with VALUES"))
            }
            TableFactor::Table { .. } => Err(refused("a table with SAMPLE, a version or hints is", "name the table alone")),
            TableFactor::Derived { sample: None, .. } | TableFactor::NestedJoin { .. } => Ok(()),
            TableFactor::UNNEST { .. } => {
                Err(refused("UNNEST is", "no released column is a list; use VALUES for rows of your own"))
            }
            _ => Err(refused("a table of this kind is", "read stats.* or meta.*, with plain joins and subqueries")),
        }
    }

    fn expression(&mut self, expression: &Expr) -> Result<(), QueryError> {
        self.deeper()?;
        match expression {
            Expr::Function(call) => self.call(call),
            Expr::Cube(sets) | Expr::Rollup(sets) | Expr::GroupingSets(sets) => {
                let given = match expression {
                    Expr::Cube(sets) => 1_usize.checked_shl(u32::try_from(sets.len()).unwrap_or(u32::MAX)).unwrap_or(usize::MAX),
                    _ => sets.len().saturating_add(1),
                };
                self.grouping_sets = self.grouping_sets.saturating_mul(given);
                if self.grouping_sets > self.limits.grouping_sets {
                    return Err(QueryError::new(
                        TOO_COMPLEX,
                        format!("CUBE, ROLLUP and GROUPING SETS give more than {} sets of columns", self.limits.grouping_sets),
                        "name fewer columns in them, or split the statement",
                    ));
                }
                Ok(())
            }
            Expr::Array(_) | Expr::Dictionary(_) | Expr::Struct { .. } | Expr::Map(_) | Expr::Named { .. } | Expr::Lambda(_) => {
                Err(refused("a list, a map or a struct is", "no released column is one; write IN (…) for several values"))
            }
            Expr::Identifier(ident) if ident.value.starts_with('@') => Err(refused("a variable is", "write the value itself")),
            Expr::CompoundIdentifier(idents) if idents.iter().any(|ident| ident.value.starts_with('@')) => {
                Err(refused("a variable is", "write the value itself"))
            }
            _ => Ok(()),
        }
    }

    fn call(&self, call: &Function) -> Result<(), QueryError> {
        match call.name.0.as_slice() {
            [ObjectNamePart::Identifier(ident)] => {
                let wanted = normal(ident);
                let is_systems = self.system && (functions::may_stand(&wanted) || wanted == "string_agg");
                if is_systems || self.known.functions.binary_search(&wanted).is_ok() {
                    Ok(())
                } else {
                    Err(refused_function(&wanted))
                }
            }
            _ => Err(refused("a function of a schema is", "write the function's name alone")),
        }
    }
}

fn check_body(body: &SetExpr) -> Result<(), QueryError> {
    match body {
        SetExpr::Select(_) | SetExpr::Query(_) => Ok(()),
        // DataFusion plans one and then cannot run it, which a private question would have paid for.
        SetExpr::Values(values) if values.visit(&mut AnyQuery).is_break() => {
            Err(refused("a subquery inside VALUES is", "write SELECT (SELECT …), or UNION ALL of several"))
        }
        SetExpr::Values(_) => Ok(()),
        SetExpr::SetOperation { left, right, .. } => {
            check_body(left)?;
            check_body(right)
        }
        SetExpr::Table(_) => Err(refused("TABLE is", "write SELECT * FROM and the table")),
        SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => {
            Err(refused("a query that changes rows is", "released statistics are written once and never changed; write a SELECT"))
        }
    }
}

/// Stops at the first query.
struct AnyQuery;

impl Visitor for AnyQuery {
    type Break = ();

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        ControlFlow::Break(())
    }
}

impl Visitor for Look<'_> {
    type Break = QueryError;

    fn pre_visit_query(&mut self, query: &Query) -> Flow {
        flow(self.enter(query))
    }

    fn post_visit_query(&mut self, query: &Query) -> Flow {
        flow(self.leave(query))
    }

    fn pre_visit_select(&mut self, select: &Select) -> Flow {
        if select.into.is_some() {
            return ControlFlow::Break(refused(
                "SELECT INTO is",
                "name a query with WITH name AS (SELECT …); nothing can be stored here",
            ));
        }
        if !select.lateral_views.is_empty() || !select.connect_by.is_empty() || select.prewhere.is_some() {
            return ControlFlow::Break(refused("LATERAL VIEW, CONNECT BY and PREWHERE are", "write plain joins and WHERE"));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> Flow {
        flow(self.relation(relation))
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> Flow {
        flow(self.factor(factor))
    }

    fn pre_visit_expr(&mut self, expression: &Expr) -> Flow {
        flow(self.expression(expression))
    }

    fn post_visit_expr(&mut self, _expression: &Expr) -> Flow {
        self.depth = self.depth.saturating_sub(1);
        ControlFlow::Continue(())
    }
}
