//! `SETTINGS epsilon = 0.1, groups_per_person = 1` at the end of a statement: what it may cost, and bounds lower than the dataset's.

use datafusion::sql::sqlparser::ast::{Expr, Setting, UnaryOperator, Value};

use crate::error::{BAD_VALUE, QueryError, SYNTAX, name};
use crate::parameters::Kind;

/// How a statement's groups are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Groups {
    /// From public lists; groups that nobody is in have a row, too.
    Listed,
    /// In the data; shown from a noisy number of people on.
    Discovered,
}

/// A statement's own settings.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Settings {
    /// ε at the dataset's δ, of the whole statement.
    pub(crate) epsilon: Option<f64>,
    /// ρ of the whole statement.
    pub(crate) rho: Option<f64>,
    /// δ of thresholds, of the whole statement.
    pub(crate) delta: Option<f64>,
    pub(crate) groups: Option<Groups>,
    pub(crate) groups_per_person: Option<u32>,
    pub(crate) rows_per_group: Option<u32>,
    pub(crate) values_per_person: Option<u32>,
    /// One row more, for all groups that are left out.
    pub(crate) other: bool,
    /// People in the groups that bounds are suggested for.
    pub(crate) group_size: Option<u32>,
    /// Whether it is told how much the bounds cut off.
    pub(crate) bias: bool,
}

const HINT: &str = "the settings are epsilon or rho, delta, groups_per_person, rows_per_group, values_per_person (numbers), group_size (with SUGGEST), groups ('listed' or 'discovered'), other and \
                    bias (true or false), as in \
                    SELECT … SETTINGS epsilon = 0.1, groups = 'discovered'";

/// Reads the settings of a statement.
///
/// # Errors
/// Unknown or repeated names, values of another kind or range.
pub(crate) fn read(settings: &[Setting]) -> Result<Settings, QueryError> {
    let mut out = Settings::default();
    let mut seen: Vec<String> = Vec::new();
    for setting in settings {
        let key = setting.key.value.to_lowercase();
        if seen.contains(&key) {
            return Err(QueryError::new(SYNTAX, format!("setting {} is there twice", name(&key)), HINT));
        }
        match key.as_str() {
            "epsilon" => out.epsilon = Some(positive(&key, &setting.value)?),
            "rho" => out.rho = Some(positive(&key, &setting.value)?),
            "delta" => out.delta = Some(positive(&key, &setting.value)?),
            "groups_per_person" => out.groups_per_person = Some(count(&key, &setting.value)?),
            "rows_per_group" => out.rows_per_group = Some(count(&key, &setting.value)?),
            "values_per_person" => out.values_per_person = Some(count(&key, &setting.value)?),
            "group_size" => out.group_size = Some(count(&key, &setting.value)?),
            "other" => out.other = truth(&key, &setting.value)?,
            "bias" => out.bias = truth(&key, &setting.value)?,
            "groups" => {
                out.groups = Some(match word(&setting.value).as_deref() {
                    Some("listed") => Groups::Listed,
                    Some("discovered") => Groups::Discovered,
                    _ => return Err(QueryError::new(BAD_VALUE, "setting \"groups\" must be 'listed' or 'discovered'", HINT)),
                });
            }
            _ => return Err(QueryError::new(SYNTAX, format!("there is no setting {}", name(&key)), HINT)),
        }
        seen.push(key);
    }
    if out.epsilon.is_some() && out.rho.is_some() {
        return Err(QueryError::new(SYNTAX, "a statement's cost is set by epsilon or by rho, not by both", HINT));
    }
    Ok(out)
}

/// The kind of value a setting has.
pub(crate) fn kind(key: &str) -> Kind {
    match key.to_lowercase().as_str() {
        "epsilon" | "rho" | "delta" => Kind::Float,
        "other" | "bias" => Kind::Bool,
        "groups" => Kind::Text,
        _ => Kind::Whole,
    }
}

fn value(expression: &Expr) -> Option<&Value> {
    match expression {
        Expr::Value(value) => Some(&value.value),
        Expr::UnaryOp { op: UnaryOperator::Plus, expr } => value(expr),
        _ => None,
    }
}

fn word(expression: &Expr) -> Option<String> {
    match (expression, value(expression)) {
        (_, Some(Value::SingleQuotedString(text))) => Some(text.to_lowercase()),
        (Expr::Identifier(ident), _) => Some(ident.value.to_lowercase()),
        _ => None,
    }
}

fn truth(key: &str, expression: &Expr) -> Result<bool, QueryError> {
    match value(expression) {
        Some(Value::Boolean(truth)) => Ok(*truth),
        _ => Err(QueryError::new(BAD_VALUE, format!("setting {} must be true or false", name(key)), HINT)),
    }
}

fn positive(key: &str, expression: &Expr) -> Result<f64, QueryError> {
    let wrong = || QueryError::new(BAD_VALUE, format!("setting {} must be a number above 0", name(key)), HINT);
    let Some(Value::Number(text, _)) = value(expression) else { return Err(wrong()) };
    let number: f64 = text.parse().map_err(|_| wrong())?;
    if number > 0.0 && number.is_finite() { Ok(number) } else { Err(wrong()) }
}

fn count(key: &str, expression: &Expr) -> Result<u32, QueryError> {
    let wrong = || QueryError::new(BAD_VALUE, format!("setting {} must be a whole number of at least 1", name(key)), HINT);
    let Some(Value::Number(text, _)) = value(expression) else { return Err(wrong()) };
    let number: u32 = text.parse().map_err(|_| wrong())?;
    if number > 0 { Ok(number) } else { Err(wrong()) }
}
