//! A rule's condition: a Boolean expression of SQL over the columns of a fact, read and evaluated by DataFusion.
//!
//! ```text
//!   text ──tokens──► words, signs and numbers by list   before it is parsed: no function, no query, nothing that the parser reads twice
//!        ──kinds───► each node by list, and its kind     numbers with numbers; tiers only for equality, and only such as there are
//!        ──numbers─► every number a 64-bit float          no overflow, no division that fails
//!        ──────────► a physical expression                evaluated over all windows at once
//! ```
//!
//! What has no value is null: what a division by zero or an overflow gives, too (it would be infinite, or no number, which Arrow orders above all
//! others). A comparison with null is null, and a rule fires only where its condition is true.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array as _, AsArray as _, RecordBatch};
use arrow::datatypes::{DataType, Float64Type};
use datafusion::common::tree_node::{Transformed, TreeNode as _};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::prelude::SessionContext;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer, Whitespace};
use starling_schemas::codes::Tier;

use crate::facts::{Fact, Kind};

/// Longest text of a condition, in bytes.
const MOST_BYTES: usize = 1_000;
/// Most words, signs and numbers.
const MOST_TOKENS: usize = 200;
/// Deepest brackets.
const MOST_BRACKETS: usize = 6;
/// Most of the words that the parser may read twice where something is wrong behind them: 2^8 readings of a short text are milliseconds.
const MOST_TWICE: usize = 8;
/// Numbers are no larger than this.
const LARGEST: f64 = 1e12;

const WORDS: [&str; 14] =
    ["AND", "OR", "NOT", "IS", "NULL", "TRUE", "FALSE", "BETWEEN", "IN", "CASE", "WHEN", "THEN", "ELSE", "END"];

/// A condition, ready to be evaluated.
#[derive(Debug, Clone)]
pub(crate) struct Condition {
    expression: Arc<dyn PhysicalExpr>,
    fact: Fact,
    /// Places of the columns it names, each once, in the order of the fact's columns.
    pub(crate) columns: Vec<usize>,
}

/// A session that runs nothing: it reads expressions.
static SESSION: LazyLock<SessionState> = LazyLock::new(|| SessionContext::new().state());
static FINITE: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Arc::new(ScalarUDF::new_from_impl(Finite::default())));

impl Condition {
    /// Reads a condition over a fact.
    ///
    /// # Errors
    /// What is wrong, and what to write instead.
    pub(crate) fn parse(text: &str, fact: Fact) -> Result<Self, String> {
        check_tokens(text, fact)?;
        let schema = DFSchema::try_from(fact.schema()).map_err(|_| unreadable())?;
        // The parser's own words name what stands where; the text is a rule's, and no data.
        let expression = SESSION
            .create_logical_expr(text, &schema)
            .map_err(|error| error.strip_backtrace().lines().next().unwrap_or_default().to_owned())?;
        match kind_of(&expression, fact)? {
            Kind::Flag => {}
            _ => return Err("is not true or false: compare it with something, such as `sent >= 100`".to_owned()),
        }
        let mut columns: Vec<usize> = expression.column_refs().iter().filter_map(|column| fact.place(&column.name)).collect();
        columns.sort_unstable();
        if columns.is_empty() {
            return Err(format!("names no column, so it is the same for all; the columns are {}", fact.names()));
        }
        let expression = expression.transform_up(in_floats).map_err(|_| unreadable())?.data;
        let expression = SESSION.create_physical_expr(expression, &schema).map_err(|_| unreadable())?;
        let condition = Self { expression, fact, columns };
        match condition.evaluate(&RecordBatch::new_empty(fact.schema())) {
            Some(_) => Ok(condition),
            None => Err(unreadable()),
        }
    }

    /// For each row of a batch of the fact's schema, whether the condition is true.
    pub(crate) fn holds(&self, batch: &RecordBatch) -> Vec<bool> {
        self.evaluate(batch).unwrap_or_else(|| {
            // Cannot happen: kinds were checked, and every operation on floats has a value. Then nothing fires.
            tracing::error!(fact = self.fact.name(), "a defect: a rule's condition cannot be evaluated");
            vec![false; batch.num_rows()]
        })
    }

    fn evaluate(&self, batch: &RecordBatch) -> Option<Vec<bool>> {
        let array = self.expression.evaluate(batch).ok()?.into_array(batch.num_rows()).ok()?;
        let flags = array.as_boolean_opt()?;
        Some((0..flags.len()).map(|row| flags.is_valid(row) && flags.value(row)).collect())
    }
}

fn unreadable() -> String {
    "cannot be evaluated: write it with AND, OR, NOT, comparisons, + - * /, BETWEEN, IN, IS NULL and CASE".to_owned()
}

/// Lets only listed words and signs on to the parser, and only so many of them.
fn check_tokens(text: &str, fact: Fact) -> Result<(), String> {
    if text.len() > MOST_BYTES {
        return Err(format!("is longer than {MOST_BYTES} bytes: write two rules"));
    }
    let tokens = Tokenizer::new(&GenericDialect {}, text).tokenize().map_err(|error| error.to_string())?;
    let blank = |token: &&Token| matches!(token, Token::Whitespace(Whitespace::Space | Whitespace::Newline | Whitespace::Tab));
    let tokens: Vec<&Token> = tokens.iter().filter(|token| !blank(token)).collect();
    if tokens.len() > MOST_TOKENS {
        return Err(format!("has more than {MOST_TOKENS} words, signs and numbers: write two rules"));
    }
    let (mut depth, mut twice) = (0_usize, 0_usize);
    let mut after_column = false;
    for token in tokens {
        let mut is_column = false;
        match token {
            Token::Word(word) if word.quote_style.is_none() => {
                let upper = word.value.to_ascii_uppercase();
                if WORDS.contains(&upper.as_str()) {
                    twice += usize::from(upper == "CASE" || upper == "NOT");
                } else if fact.place(&word.value.to_ascii_lowercase()).is_some() {
                    is_column = true;
                } else {
                    return Err(format!(
                        "`{}` is no column of {}, and there are no functions; the columns are {}",
                        word.value,
                        fact.name(),
                        fact.names()
                    ));
                }
            }
            Token::LParen if after_column => {
                return Err("has a bracket behind a column's name: there are no functions".to_owned());
            }
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            Token::Number(_, false)
            | Token::SingleQuotedString(_)
            | Token::Comma
            | Token::Eq
            | Token::Neq
            | Token::Lt
            | Token::Gt
            | Token::LtEq
            | Token::GtEq
            | Token::Plus
            | Token::Minus
            | Token::Mul
            | Token::Div => {}
            other => return Err(format!("has `{other}` in it, which no condition needs")),
        }
        if depth > MOST_BRACKETS {
            return Err(format!("has brackets deeper than {MOST_BRACKETS}: write two rules"));
        }
        if twice > MOST_TWICE {
            return Err(format!("has NOT and CASE more than {MOST_TWICE} times: write two rules"));
        }
        after_column = is_column;
    }
    Ok(())
}

/// The kind of an expression, of which every node must be on this list.
fn kind_of(expression: &Expr, fact: Fact) -> Result<Kind, String> {
    let kind = |expression: &Expr| kind_of(expression, fact);
    let all = |expressions: &mut dyn Iterator<Item = &Expr>, wanted: Kind| -> Result<(), String> {
        for expression in expressions {
            must_be(kind(expression)?, wanted)?;
        }
        Ok(())
    };
    match expression {
        Expr::Column(column) => {
            let columns = fact.columns();
            columns.iter().find(|c| c.name == column.name).map(|c| c.kind).ok_or_else(unreadable)
        }
        Expr::Literal(value, _) => literal(value),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let sides = [left.as_ref(), right.as_ref()];
            match op {
                Operator::And | Operator::Or => all(&mut sides.into_iter(), Kind::Flag)?,
                Operator::Eq | Operator::NotEq => must_be(kind(right)?, kind(left)?)?,
                Operator::Lt
                | Operator::LtEq
                | Operator::Gt
                | Operator::GtEq
                | Operator::Plus
                | Operator::Minus
                | Operator::Multiply
                | Operator::Divide => all(&mut sides.into_iter(), Kind::Number)?,
                _ => return Err(unreadable()),
            }
            Ok(if is_arithmetic(*op) { Kind::Number } else { Kind::Flag })
        }
        Expr::Not(inner) | Expr::IsTrue(inner) | Expr::IsFalse(inner) | Expr::IsNotTrue(inner) | Expr::IsNotFalse(inner) => {
            must_be(kind(inner)?, Kind::Flag).map(|()| Kind::Flag)
        }
        Expr::IsNull(inner) | Expr::IsNotNull(inner) => kind(inner).map(|_| Kind::Flag),
        Expr::Negative(inner) => must_be(kind(inner)?, Kind::Number).map(|()| Kind::Number),
        Expr::Between(between) => {
            let parts = [&between.expr, &between.low, &between.high];
            all(&mut parts.into_iter().map(AsRef::as_ref), Kind::Number).map(|()| Kind::Flag)
        }
        Expr::InList(list) => {
            let wanted = kind(&list.expr)?;
            all(&mut list.list.iter(), wanted).map(|()| Kind::Flag)
        }
        Expr::Case(case) => {
            let wanted = case.expr.as_ref().map_or(Ok(Kind::Flag), |expression| kind(expression))?;
            all(&mut case.when_then_expr.iter().map(|(when, _)| when.as_ref()), wanted)?;
            let mut ends = case.when_then_expr.iter().map(|(_, then)| then).chain(&case.else_expr).map(AsRef::as_ref);
            let first = ends.next().ok_or_else(unreadable).and_then(kind)?;
            all(&mut ends, first).map(|()| first)
        }
        _ => Err(unreadable()),
    }
}

fn is_arithmetic(op: Operator) -> bool {
    matches!(op, Operator::Plus | Operator::Minus | Operator::Multiply | Operator::Divide)
}

fn literal(value: &ScalarValue) -> Result<Kind, String> {
    match value {
        ScalarValue::Boolean(Some(_)) => Ok(Kind::Flag),
        ScalarValue::Utf8(Some(text)) => match Tier::parse(text) {
            Some(_) => Ok(Kind::Tier),
            None => Err(format!(
                "'{text}' is no tier; the tiers are {}",
                Tier::ALL.iter().map(|tier| tier.name()).collect::<Vec<_>>().join(", ")
            )),
        },
        ScalarValue::Null => Err("compares with NULL, which is never true: write IS NULL or IS NOT NULL".to_owned()),
        value => match float(value) {
            Some(n) if n.abs() <= LARGEST => Ok(Kind::Number),
            _ => Err(format!("has a number beyond {LARGEST:e}")),
        },
    }
}

#[allow(clippy::cast_precision_loss)]
fn float(value: &ScalarValue) -> Option<f64> {
    match value {
        ScalarValue::Int64(n) => n.map(|n| n as f64),
        ScalarValue::UInt64(n) => n.map(|n| n as f64),
        ScalarValue::Float64(n) => n.filter(|n| n.is_finite()),
        _ => None,
    }
}

fn must_be(found: Kind, wanted: Kind) -> Result<(), String> {
    if found == wanted {
        return Ok(());
    }
    let word = |kind| match kind {
        Kind::Number => "a number",
        Kind::Flag => "true or false",
        Kind::Tier => "a tier",
    };
    Err(format!("has {} where {} is needed", word(found), word(wanted)))
}

/// Numbers as floats, and what has no value as null.
fn in_floats(expression: Expr) -> DataFusionResult<Transformed<Expr>> {
    Ok(match expression {
        Expr::Literal(value, metadata) => match float(&value) {
            Some(n) => Transformed::yes(Expr::Literal(ScalarValue::Float64(Some(n)), metadata)),
            None => Transformed::no(Expr::Literal(value, metadata)),
        },
        Expr::BinaryExpr(binary) if is_arithmetic(binary.op) => Transformed::yes(FINITE.call(vec![Expr::BinaryExpr(binary)])),
        other => Transformed::no(other),
    })
}

/// A number, or null where it is infinite or none.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Finite {
    signature: Signature,
}

impl Default for Finite {
    fn default() -> Self {
        Self { signature: Signature::exact(vec![DataType::Float64], Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Finite {
    fn name(&self) -> &str {
        "finite"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Float64)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        let numbers = arrays.first().and_then(|array| array.as_primitive_opt::<Float64Type>());
        let Some(numbers) = numbers else { return datafusion::common::exec_err!("finite is of one column of numbers") };
        let finite: arrow::array::Float64Array = numbers.iter().map(|n| n.filter(|n| n.is_finite())).collect();
        Ok(ColumnarValue::Array(Arc::new(finite)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{Cell, Row};

    fn business(given: &[(&str, f64)]) -> Row {
        let fact = Fact::BusinessDay;
        let mut row: Row = fact.columns().iter().map(crate::facts::Column::nothing).collect();
        for (name, n) in given {
            row[fact.place(name).expect(name)] = Cell::Number(Some(*n));
        }
        row
    }

    fn holds(text: &str, rows: &[Row]) -> Vec<bool> {
        let condition = Condition::parse(text, Fact::BusinessDay).unwrap_or_else(|error| panic!("{text}: {error}"));
        condition.holds(&Fact::BusinessDay.batch(rows).expect("rows"))
    }

    #[test]
    fn conditions_mean_what_sql_means_by_them() {
        let rows = [business(&[("sent", 100.0), ("replied", 3.0)]), business(&[("sent", 7.0), ("usual_reached", 2.0)])];
        for (text, expected) in [
            ("sent >= 100", [true, false]),
            ("SENT >= 100 AND replied < 0.05 * sent", [true, false]),
            ("sent / 2 = 3.5", [false, true]),
            ("7 / 2 = 3.5 AND sent > 0", [true, true]),
            ("NOT sent BETWEEN 5 AND 10", [true, false]),
            ("sent IN (7, 8) OR replied = 3", [true, true]),
            ("usual_reached IS NULL", [true, false]),
            ("usual_reached < 5", [false, true]),
            ("NOT usual_reached < 5", [false, false]),
            ("tier = 'unknown' AND tier NOT IN ('250', '2k')", [true, true]),
            ("CASE WHEN sent > 50 THEN replied ELSE 9 END = 3", [true, false]),
            ("-sent < -50", [true, false]),
            ("(sent - 100 = 0) = TRUE", [true, false]),
        ] {
            assert_eq!(holds(text, &rows), expected, "{text}");
        }
        let condition = Condition::parse("replied < sent AND sent > 1", Fact::BusinessDay).expect("reads");
        assert_eq!(condition.columns, [0, 7]);
        let of_group = Condition::parse("is_new AND NOT before_is_known", Fact::GroupHour).expect("reads");
        assert_eq!(of_group.columns, [8, 9]);
    }

    #[test]
    fn what_has_no_value_makes_nothing_fire() {
        let rows = [business(&[("sent", 1e9)])];
        for nothing in [
            "sent / replied > 5",
            "replied / replied > 5",
            "replied / replied >= 0",
            "NOT sent / replied < 5",
            "sent / (replied * 0) <> 3",
            "sent * sent * sent * sent * sent * sent * sent * sent * sent * sent * sent * sent * sent * sent * sent * sent * sent * sent \
             * sent * sent * sent * sent * sent * sent * sent * sent * sent * sent * sent * sent * sent * sent * sent * sent * sent > 1",
            "0 / replied IN (1, 2)",
            "-(sent / replied) < 0",
            "tier_limit / replied BETWEEN 0 AND 1000000000000",
            "5 / 0 > sent",
            "0 / 0 > sent",
        ] {
            assert_eq!(holds(nothing, &rows), [false], "{nothing}");
        }
        assert_eq!(holds("sent / replied IS NULL", &rows), [true]);
    }

    #[test]
    fn what_is_no_condition_is_refused_with_what_to_do() {
        let deep = format!("{}sent{} > 1", "(".repeat(7), ")".repeat(7));
        let long = format!("sent > 1{}", " OR sent > 1".repeat(100));
        let many = format!("sent IN (1{})", ",1".repeat(120));
        let nots = format!("{} is_new", "NOT ".repeat(9));
        for (text, expected) in [
            ("sent", "true or false"),
            ("1 = 1", "names no column"),
            ("person = 1", "the columns are sent, "),
            ("business = 'x'", "`business` is no column"),
            ("random() > 0.5", "no functions"),
            ("sent(1) > 0.5", "no functions"),
            ("sent > (SELECT 1)", "`SELECT` is no column"),
            ("EXISTS (sent)", "no column"),
            ("CAST(sent AS INT) > 1", "no column"),
            ("sent > INTERVAL '1 day'", "no column"),
            ("\"sent\" > 1", "which no condition needs"),
            ("sent::int > 1", "which no condition needs"),
            ("sent > 1; sent", "which no condition needs"),
            ("sent > $1", "which no condition needs"),
            ("sent > 1 -- and more", "which no condition needs"),
            ("sent % 2 = 0", "which no condition needs"),
            ("sent || 'a' = 'b'", "which no condition needs"),
            ("sent = NULL", "IS NULL"),
            ("sent > '250'", "a number is needed"),
            ("tier > '250'", "a number is needed"),
            ("tier = '25o'", "is no tier"),
            ("tier + 1 > 2", "a number is needed"),
            ("sent AND replied", "true or false is needed"),
            ("sent = TRUE", "a number is needed"),
            ("sent > 1e13", "beyond"),
            ("sent > 99999999999999999999999999", "beyond"),
            ("sent >", "ParserError"),
            ("sent > 1)", "ParserError"),
            ("", "ParserError"),
            (deep.as_str(), "brackets deeper"),
            (long.as_str(), "longer than"),
            (many.as_str(), "more than 200"),
        ] {
            let error = Condition::parse(text, Fact::BusinessDay).expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert!(Condition::parse(&nots, Fact::GroupHour).expect_err("too many").contains("NOT and CASE"));
        assert!(
            Condition::parse("reached > 1", Fact::GroupHour).expect_err("of another fact").contains("no column of group_hour")
        );
    }
}
