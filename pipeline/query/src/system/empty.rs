//! Which selects never have rows, whoever asks: those over tables that are always empty. What they compute of their rows does not matter, and need
//! not be possible here.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Ident, JoinOperator, Query, Select, SelectItem,
    SetExpr, TableFactor, TableWithJoins, Value, Visit as _, Visitor,
};

use super::rewrite::{literal, parts, table};
use super::rows;
use super::shape::{column_name, name_columns};

pub(super) const AGGREGATES: [&str; 10] =
    ["count", "max", "min", "sum", "avg", "bool_and", "bool_or", "array_agg", "string_agg", "json_agg"];

/// What is known of a subquery without planning it.
pub(super) enum Rows {
    /// It has none, ever.
    Never,
    /// It has one, of aggregates over nothing.
    Nulls,
    /// It reads a function's rows, which are not to be had here.
    OfFunction,
    Maybe,
}

pub(super) fn rows_of(query: &Query) -> Rows {
    match query.body.as_ref() {
        SetExpr::Select(select) if query.with.is_none() => rows_of_select(select),
        _ => Rows::Maybe,
    }
}

/// A column, also under a cast. A column of a list is NULL in every table here.
fn is_column(expression: &Expr) -> bool {
    match expression {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => true,
        Expr::Cast { expr, .. } | Expr::Nested(expr) => is_column(expr),
        _ => false,
    }
}

/// A list's column, or where one ends.
fn is_list_column(argument: &FunctionArg) -> bool {
    let FunctionArg::Unnamed(FunctionArgExpr::Expr(expression)) = argument else { return false };
    match expression {
        Expr::Function(call) => match &call.args {
            FunctionArguments::List(list) if parts(&call.name).last().is_some_and(|name| name.starts_with("array_")) => {
                list.args.first().is_some_and(is_list_column)
            }
            _ => false,
        },
        expression => is_column(expression),
    }
}

pub(super) fn rows_of_select(select: &Select) -> Rows {
    let is_empty = |factor: &TableFactor| match factor {
        TableFactor::Table { name, args: None, .. } => table(name).is_some_and(rows::is_empty),
        TableFactor::Derived { subquery, .. } => matches!(rows_of(subquery), Rows::Never),
        TableFactor::Table { name, args: Some(arguments), .. } => {
            let function = parts(name).pop().unwrap_or_default();
            ["unnest", "generate_series"].contains(&function.as_str()) && arguments.args.iter().any(is_list_column)
        }
        TableFactor::UNNEST { array_exprs, .. } => array_exprs.iter().any(is_column),
        _ => false,
    };
    let inner = |join: &JoinOperator| matches!(join, JoinOperator::Join(_) | JoinOperator::Inner(_) | JoinOperator::CrossJoin(_));
    let kept = |join: &JoinOperator| inner(join) || matches!(join, JoinOperator::Left(_) | JoinOperator::LeftOuter(_));
    let never = |from: &TableWithJoins| {
        from.joins.iter().all(|join| kept(&join.join_operator))
            && (is_empty(&from.relation) || from.joins.iter().any(|join| inner(&join.join_operator) && is_empty(&join.relation)))
    };
    let factors = || {
        select.from.iter().flat_map(|from| std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation)))
    };
    let is_function = |factor: &TableFactor| {
        matches!(
            factor,
            TableFactor::Table { args: Some(_), .. }
                | TableFactor::UNNEST { .. }
                | TableFactor::Function { .. }
                | TableFactor::TableFunction { .. }
        )
    };
    let grouped = !matches!(&select.group_by, GroupByExpr::Expressions(by, _) if by.is_empty());
    match (select.from.iter().any(never), projects(select, &AGGREGATES) && !grouped) {
        (true, false) => Rows::Never,
        (true, true) if !projects(select, &["count"]) => Rows::Nulls,
        (false, _) if factors().any(is_function) => Rows::OfFunction,
        _ => Rows::Maybe,
    }
}

/// Makes a select that never has rows one that says so, whatever it computes of them; its columns keep their names.
pub(super) fn say_never(select: &mut Select) -> bool {
    let is_named = |item: &SelectItem| matches!(item, SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. });
    if !matches!(rows_of_select(select), Rows::Never) || !select.projection.iter().all(is_named) {
        return false;
    }
    name_columns(&mut select.projection);
    for item in &mut select.projection {
        if let SelectItem::UnnamedExpr(expression) = item {
            let alias = Ident::with_quote('"', column_name(expression));
            *item = SelectItem::ExprWithAlias { expr: literal(Value::Null), alias };
        } else if let SelectItem::ExprWithAlias { expr, .. } = item {
            *expr = literal(Value::Null);
        }
    }
    select.from = Vec::new();
    select.distinct = None;
    select.group_by = GroupByExpr::Expressions(Vec::new(), Vec::new());
    select.having = None;
    select.selection = Some(literal(Value::Boolean(false)));
    true
}

/// Whether one of these functions is called in what a select gives.
pub(super) fn projects(select: &Select, wanted: &[&str]) -> bool {
    struct Calls<'a> {
        wanted: &'a [&'a str],
        /// How many queries inside; what is called there is theirs.
        depth: usize,
    }
    impl Visitor for Calls<'_> {
        type Break = ();
        fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            self.depth += 1;
            ControlFlow::Continue(())
        }
        fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            self.depth -= 1;
            ControlFlow::Continue(())
        }
        fn pre_visit_expr(&mut self, expression: &Expr) -> ControlFlow<()> {
            let is_one = |call: &Function| parts(&call.name).last().is_some_and(|name| self.wanted.contains(&name.as_str()));
            let found = self.depth == 0 && matches!(expression, Expr::Function(call) if is_one(call));
            if found { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
    }
    select.projection.visit(&mut Calls { wanted, depth: 0 }).is_break()
}
