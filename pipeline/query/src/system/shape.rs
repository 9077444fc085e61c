//! The shape of what a system statement reads and gives: functions in place of tables, and names of columns.

use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, Ident, SelectItem, SelectItemQualifiedWildcardKind, SetExpr, Statement as SqlStatement,
    TableAlias, TableFactor, Value,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;

use super::rewrite::{call, normal, parts, take};

/// Numbers that `generate_series` over the places of a list may give: no list here is longer.
const PLACES: i64 = 15;

/// `generate_series` over a list's places, and `string_to_array`, as the rows they give. Any other function in place of a table stays, and is refused.
pub(super) fn rows_of_function(factor: &TableFactor) -> Option<TableFactor> {
    let TableFactor::Table { name, args: Some(arguments), alias: Some(alias), .. } = factor else { return None };
    let arguments: Vec<&Expr> = arguments
        .args
        .iter()
        .filter_map(|argument| match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expression)) => Some(expression),
            _ => None,
        })
        .collect();
    let column = alias.columns.first().map_or(&alias.name, |column| &column.name);
    let names = parts(name);
    let (sql, from) = match (names.last()?.as_str(), arguments.as_slice()) {
        ("generate_series", [low, high]) if is_place(low) && is_place(high) => {
            let places: Vec<String> = (0..=PLACES).map(|place| format!("({place})")).collect();
            (format!("SELECT n AS x FROM (VALUES {}) AS v (n) WHERE n BETWEEN 0 AND 0", places.join(", ")), Some((*low, *high)))
        }
        ("string_to_array", [_, _]) => ("SELECT 0 AS x".to_owned(), None),
        _ => return None,
    };
    let mut statements = Parser::parse_sql(&GenericDialect {}, &sql).ok()?;
    let Some(SqlStatement::Query(mut subquery)) = statements.pop() else { return None };
    let SetExpr::Select(select) = subquery.body.as_mut() else { return None };
    if let Some(Expr::Between { low, high, .. }) = select.selection.as_mut() {
        (**low, **high) = (from?.0.clone(), from?.1.clone());
    } else if let Some(SelectItem::ExprWithAlias { expr, .. }) = select.projection.first_mut() {
        *expr = call("string_to_array", arguments.into_iter().cloned().collect());
    }
    if let Some(SelectItem::ExprWithAlias { alias, .. }) = select.projection.first_mut() {
        *alias = column.clone();
    }
    let alias = TableAlias { columns: Vec::new(), ..alias.clone() };
    Some(TableFactor::Derived { lateral: false, subquery, alias: Some(alias), sample: None })
}

/// Whether an expression is a place in a list: a small number, or where a list begins or ends.
fn is_place(expression: &Expr) -> bool {
    match expression {
        Expr::Value(value) => {
            matches!(&value.value, Value::Number(text, _) if text.parse().is_ok_and(|place: i64| (0..=PLACES).contains(&place)))
        }
        Expr::Function(call) => {
            parts(&call.name).last().is_some_and(|name| ["array_lower", "array_upper", "array_length"].contains(&name.as_str()))
        }
        _ => false,
    }
}

/// The name PostgreSQL gives a column without one.
pub(super) fn column_name(expression: &Expr) -> String {
    match expression {
        Expr::Identifier(ident) => ident.value.clone(),
        Expr::CompoundIdentifier(idents) => idents.last().map_or_else(String::new, |ident| ident.value.clone()),
        Expr::Function(call) => match parts(&call.name).last() {
            Some(name) if !name.contains(' ') => name.clone(),
            _ => "?column?".to_owned(),
        },
        Expr::Cast { expr, .. } | Expr::Nested(expr) => column_name(expr),
        Expr::Case { .. } => "case".to_owned(),
        Expr::Exists { .. } => "exists".to_owned(),
        _ => "?column?".to_owned(),
    }
}

pub(super) fn name_columns(projection: &mut Vec<SelectItem>) {
    let starred: Vec<Option<String>> = projection
        .iter()
        .filter_map(|item| match item {
            SelectItem::Wildcard(_) => Some(None),
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(table), _) => Some(parts(table).pop()),
            _ => None,
        })
        .collect();
    let is_starred = |item: &SelectItem| match item {
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(idents)) => match idents.as_slice() {
            [.., table, _] => starred.contains(&Some(normal(table))) || starred.contains(&None),
            _ => false,
        },
        SelectItem::UnnamedExpr(Expr::Identifier(_)) => starred.contains(&None),
        _ => false,
    };
    projection.retain(|item| !is_starred(item));
    let mut used: Vec<String> = Vec::new();
    for item in projection {
        let SelectItem::UnnamedExpr(expression) = item else {
            if let SelectItem::ExprWithAlias { alias, .. } = item {
                used.push(normal(alias));
            }
            continue;
        };
        let given = column_name(expression);
        let mut unique = given.clone();
        let mut again = 0;
        while used.contains(&unique) {
            again += 1;
            unique = format!("{given}_{again}");
        }
        let plain = matches!(expression, Expr::Identifier(_) | Expr::CompoundIdentifier(_)) && again == 0;
        used.push(unique.clone());
        if !plain {
            *item = SelectItem::ExprWithAlias { expr: take(expression), alias: Ident::with_quote('"', unique) };
        }
    }
}
