//! The statement's aggregates: what each asks of a group, and within which bounds.

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{Case, Expr, LogicalPlan, lit, when};
use starling_privacy::question::{self, Grid, Input, Rank, Source};
use starling_schemas::questions::MeasureBounds;

use super::expand::{bare, expand};
use super::functions::{CLIP, OTHER};
use super::leaf::Output;
use super::refusals::below;
use super::row_wise::{PERSON_HINT, PERSON_USED, has_private_subquery, no_person};
use super::settings::Settings;
use super::table::{PERSON, Protected, Role};
use crate::error::QueryError;

/// What is asked of each group, as it is gathered from the statement's aggregates.
pub(super) struct Asked<'a> {
    pub(super) table: &'a Protected,
    pub(super) input: &'a LogicalPlan,
    pub(super) settings: &'a Settings,
    pub(super) inputs: Vec<Input>,
    pub(super) columns: Vec<Expr>,
    pub(super) aggregates: Vec<question::Aggregate>,
}

/// Bounds of a value: of a row, and of one person in a group.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    row: (i64, i64),
    person: (i64, i64),
}

impl Asked<'_> {
    fn rows_per_group(&self) -> u32 {
        let own = self.table.questions.rows_per_group;
        self.settings.rows_per_group.map_or(own, |lowered| lowered.min(own))
    }

    fn values_per_person(&self) -> u32 {
        let own = self.table.questions.values_per_person();
        self.settings.values_per_person.map_or(own, |lowered| lowered.min(own))
    }

    /// Adds an aggregate, or finds it where it is asked already.
    fn ask(&mut self, aggregate: question::Aggregate) -> usize {
        let known = self.aggregates.iter().position(|known| *known == aggregate);
        known.unwrap_or_else(|| {
            self.aggregates.push(aggregate);
            self.aggregates.len() - 1
        })
    }

    fn column(&mut self, column: Expr, row: (i64, i64)) -> usize {
        let input = Input { low: row.0, high: row.1 };
        let known = self.columns.iter().zip(&self.inputs).position(|(c, i)| *c == column && *i == input);
        known.unwrap_or_else(|| {
            self.columns.push(column);
            self.inputs.push(input);
            self.columns.len() - 1
        })
    }

    pub(super) fn output(&mut self, call: &AggregateFunction) -> Result<Output, QueryError> {
        let name = call.func.name();
        let filter = call.params.filter.as_deref();
        if name == OTHER {
            if filter.is_some() || call.params.distinct {
                return Err(below(
                    "DISTINCT or FILTER with dp_other is",
                    "write dp_other() alone: it tells which row pools the groups that are left out",
                ));
            }
            return Ok(Output::IsOther);
        }
        if let Some(filter) = filter {
            no_person(filter, self.input, PERSON_USED, PERSON_HINT)?;
            if has_private_subquery(filter) {
                return Err(below(
                    "a condition that asks a protected table itself is",
                    "ask that first, and write the number it gave",
                ));
            }
        }
        let first = call.params.args.first().map(bare);
        let is_person = first.as_ref().is_some_and(|argument| self.is_person(argument));
        if (name == "count" && call.params.distinct) || name == "approx_distinct" {
            if !is_person || call.params.args.len() != 1 {
                return Err(below(
                    "COUNT(DISTINCT …) of anything but person is",
                    "GROUP BY the column, and count the groups above; or write COUNT(DISTINCT person)",
                ));
            }
            return Ok(Output::One(self.count(filter, None, 1)?));
        }
        if call.params.distinct {
            return Err(below("DISTINCT in an aggregate is", "write COUNT(DISTINCT person), or the aggregate without DISTINCT"));
        }
        if is_person && name != "count" {
            return Err(below(PERSON_USED, PERSON_HINT));
        }
        let argument = first.unwrap_or_else(|| lit(1_i64));
        match name {
            "count" => {
                if call.params.args.len() > 1 {
                    return Err(below("COUNT of several columns is", "count one column, or COUNT(*)"));
                }
                let constant = is_person || matches!(&argument, Expr::Literal(value, _) if !value.is_null());
                let rows = self.rows_per_group();
                Ok(Output::One(self.count(filter, if constant { None } else { Some(&argument) }, rows)?))
            }
            "sum" => Ok(Output::One(self.sum(&argument, filter)?.0)),
            "avg" => {
                let (sum, _) = self.sum(&argument, filter)?;
                let count = self.count_of(&argument, filter)?;
                Ok(Output::Mean { sum, count })
            }
            "var" | "var_samp" | "var_pop" | "stddev" | "stddev_samp" | "stddev_pop" => {
                let (sum, bounds) = self.sum(&argument, filter)?;
                let squares = self.squares(&argument, filter, bounds)?;
                let count = self.count_of(&argument, filter)?;
                Ok(Output::Spread { sum, squares, count, sample: !name.ends_with("_pop"), root: name.starts_with("stddev") })
            }
            "median" | "approx_median" => self.quantile(&argument, filter, 0.5),
            "percentile_cont" | "approx_percentile_cont" => {
                let share = call.params.args.iter().rev().find_map(|argument| match bare(argument) {
                    Expr::Literal(ScalarValue::Float64(Some(share)), _) => Some(share),
                    _ => None,
                });
                let value = call.params.order_by.first().map_or(argument, |by| bare(&by.expr));
                if call.params.order_by.first().is_some_and(|by| !by.asc) {
                    return Err(below("a percentile in descending order is", "write 1 minus the share"));
                }
                self.quantile(&value, filter, share.unwrap_or(f64::NAN))
            }
            "min" | "max" | "first_value" | "last_value" | "nth_value" | "any_value" => Err(below(
                "MIN, MAX and single values are",
                "they are one row's value; ask for a quantile, such as PERCENTILE_CONT(0.99) WITHIN GROUP (ORDER BY seconds)",
            )),
            _ => Err(below(
                "this aggregate is",
                "use COUNT, COUNT(DISTINCT person), SUM, AVG, VAR, STDDEV, MEDIAN or PERCENTILE_CONT",
            )),
        }
    }

    fn is_person(&self, expression: &Expr) -> bool {
        matches!(expand(expression, self.input), Some(Expr::Column(column)) if column.name == PERSON)
    }

    /// Rows that meet a filter and have a value, each person's clipped to `most`.
    fn count(&mut self, filter: Option<&Expr>, value: Option<&Expr>, most: u32) -> Result<usize, QueryError> {
        let high = i64::from(most);
        let condition = match (filter, value) {
            (None, None) => return Ok(self.ask(question::Aggregate::Sum { of: Source::Rows, low: 0, high })),
            (Some(filter), None) => filter.clone(),
            (None, Some(value)) => value.clone().is_not_null(),
            (Some(filter), Some(value)) => filter.clone().and(value.clone().is_not_null()),
        };
        let one = when(condition, lit(1_i64))
            .otherwise(lit(0_i64))
            .map_err(|_| below("this condition is", "write it in another way"))?;
        let of = Source::Column(self.column(one, (0, 1)));
        Ok(self.ask(question::Aggregate::Sum { of, low: 0, high }))
    }

    /// Rows that have a value of this expression.
    fn count_of(&mut self, value: &Expr, filter: Option<&Expr>) -> Result<usize, QueryError> {
        let rows = self.rows_per_group();
        let never_null = expand(value, self.input).is_some_and(|value| match unclipped(&value) {
            Expr::Column(column) => self.table.schema.field_with_name(&column.name).is_ok_and(|field| !field.is_nullable()),
            _ => false,
        });
        let value = unclipped(value);
        self.count(filter, if never_null { None } else { Some(&value) }, rows)
    }

    fn sum(&mut self, value: &Expr, filter: Option<&Expr>) -> Result<(usize, Bounds), QueryError> {
        let bounds = self.bounds(value)?;
        let of = Source::Column(self.column(filtered(unclipped(value), filter)?, bounds.row));
        let (low, high) = bounds.person;
        Ok((self.ask(question::Aggregate::Sum { of, low, high }), bounds))
    }

    /// The sum of squares, which is at most the largest value times the sum.
    fn squares(&mut self, value: &Expr, filter: Option<&Expr>, bounds: Bounds) -> Result<usize, QueryError> {
        let largest = bounds.row.0.unsigned_abs().max(bounds.row.1.unsigned_abs());
        let person = bounds.person.0.unsigned_abs().max(bounds.person.1.unsigned_abs());
        let (row, high) = (largest.checked_mul(largest), largest.checked_mul(person));
        let fits = |n: Option<u64>| n.and_then(|n| i64::try_from(n).ok()).filter(|n| *n <= i64::from(u32::MAX));
        let (Some(row), Some(high)) = (row.and_then(|n| i64::try_from(n).ok()), fits(high)) else {
            return Err(below(
                "a variance of values this large is",
                "ask in a larger unit, such as STDDEV(seconds / 60), or clip: STDDEV(dp_clip(seconds, 0, 600))",
            ));
        };
        let clamped = clamped(unclipped(value), bounds.row)?;
        let of = Source::Column(self.column(filtered(clamped.clone() * clamped, filter)?, (0, row)));
        Ok(self.ask(question::Aggregate::Sum { of, low: 0, high }))
    }

    fn quantile(&mut self, value: &Expr, filter: Option<&Expr>, share: f64) -> Result<Output, QueryError> {
        let bounds = self.bounds(value)?;
        let wrong = |error: starling_privacy::PrivacyError| below("this quantile is", &error.to_string());
        let rank = Rank::of(share).map_err(wrong)?;
        let grid = Grid::over(bounds.row.0, bounds.row.1).map_err(wrong)?;
        let per_person = self.values_per_person();
        let of = self.column(filtered(unclipped(value), filter)?, bounds.row);
        // Whether its error bars are asked for is seen above the aggregate.
        Ok(Output::One(self.ask(question::Aggregate::Quantile { of, rank, per_person, grid, interval: false })))
    }

    /// Bounds of a value, from the measure it is, or from what the statement says.
    fn bounds(&self, value: &Expr) -> Result<Bounds, QueryError> {
        if let Expr::ScalarFunction(call) = bare(value)
            && call.name() == CLIP
        {
            let ends = (call.args.get(1).and_then(whole), call.args.get(2).and_then(whole));
            let (Some(low), Some(high)) = ends else { return Err(clip_wrong()) };
            if low > 0 || high < 0 || low == high || low == i64::MIN {
                return Err(clip_wrong());
            }
            let inside = call.args.first().and_then(|inside| self.measured(inside));
            // A bound of the dataset holds all the same.
            let row = inside.map_or((low, high), |inside| (inside.row.0.max(low), inside.row.1.min(high)));
            let person = inside.map_or((low, high), |inside| (inside.person.0.max(low), inside.person.1.min(high)));
            if row.0 > row.1 || person == (0, 0) {
                return Err(clip_wrong());
            }
            return Ok(Bounds { row, person });
        }
        self.measured(value).ok_or_else(|| {
            let measures: Vec<&str> = self.table.questions.measures.keys().map(String::as_str).collect();
            below(
                "summing an expression without bounds is",
                &format!(
                    "sum a measure ({}), with CASE if need be, or say what one person may add to a group: SUM({CLIP}(seconds * 2, 0, 600))",
                    measures.join(", ")
                ),
            )
        })
    }

    fn measured(&self, value: &Expr) -> Option<Bounds> {
        let rows = i64::from(self.rows_per_group());
        shape(&expand(value, self.input)?, &|name| match self.table.role(name) {
            Some(Role::Measure(measure)) => Some(measure.clone()),
            _ => None,
        })
        .map(|shape| match shape {
            Shape::Measure(measure) => {
                Bounds { row: (measure.row[0], measure.row[1]), person: (measure.person[0], measure.person[1]) }
            }
            Shape::Small(low, high) => {
                Bounds { row: (low, high), person: (low.min(0).saturating_mul(rows), high.max(0).saturating_mul(rows)) }
            }
        })
        .filter(|bounds| bounds.person != (0, 0))
    }
}

fn clip_wrong() -> QueryError {
    below(
        "this clip is",
        "write dp_clip(value, low, high) with whole numbers around 0 and within the measure's bounds: one person's part of SUM in a group, and each row, \
         is brought into low..high",
    )
}

/// What an expression is, as far as bounds go.
#[derive(Debug, Clone)]
enum Shape {
    /// A measure, or in some rows a constant that the measure could have.
    Measure(MeasureBounds),
    /// Constants.
    Small(i64, i64),
}

fn shape(value: &Expr, measure: &impl Fn(&str) -> Option<MeasureBounds>) -> Option<Shape> {
    match bare(value) {
        Expr::Column(column) => measure(&column.name).map(Shape::Measure),
        Expr::Literal(value, _) if value.is_null() => Some(Shape::Small(0, 0)),
        Expr::Literal(..) => whole(value).map(|n| Shape::Small(n, n)),
        Expr::Cast(cast) if cast.field.data_type().is_integer() => shape(&cast.expr, measure),
        Expr::Case(Case { when_then_expr, else_expr, .. }) => {
            let branches = when_then_expr.iter().map(|(_, then)| then).chain(else_expr.iter());
            branches.map(|branch| shape(branch, measure)).reduce(|a, b| join(a?, b?))?
        }
        Expr::ScalarFunction(call) if ["coalesce", "nvl", "least", "greatest"].contains(&call.name()) => {
            call.args.iter().map(|argument| shape(argument, measure)).reduce(|a, b| join(a?, b?))?
        }
        Expr::ScalarFunction(call) if call.name() == "nullif" => shape(call.args.first()?, measure),
        _ => None,
    }
}

/// One or the other.
fn join(a: Shape, b: Shape) -> Option<Shape> {
    match (a, b) {
        (Shape::Small(a, b), Shape::Small(c, d)) => Some(Shape::Small(a.min(c), b.max(d))),
        (Shape::Measure(a), Shape::Measure(b)) => (a == b).then_some(Shape::Measure(a)),
        // `LEAST(seconds, 100000)` is the measure still: rows are clamped to its bounds.
        (Shape::Measure(measure), Shape::Small(..)) | (Shape::Small(..), Shape::Measure(measure)) => {
            Some(Shape::Measure(measure))
        }
    }
}

fn whole(value: &Expr) -> Option<i64> {
    match bare(value) {
        Expr::Literal(ScalarValue::Int64(Some(n)), _) => Some(n),
        Expr::Literal(ScalarValue::Int32(Some(n)), _) => Some(n.into()),
        Expr::Literal(ScalarValue::UInt64(Some(n)), _) => i64::try_from(n).ok(),
        Expr::Negative(inside) => whole(&inside).and_then(i64::checked_neg),
        _ => None,
    }
}

fn unclipped(value: &Expr) -> Expr {
    match bare(value) {
        Expr::ScalarFunction(call) if call.name() == CLIP => call.args.first().map_or_else(|| value.clone(), bare),
        other => other,
    }
}

/// The value where the filter holds, else NULL.
fn filtered(value: Expr, filter: Option<&Expr>) -> Result<Expr, QueryError> {
    match filter {
        None => Ok(value),
        Some(filter) => when(filter.clone(), value).end().map_err(|_| below("this condition is", "write it in another way")),
    }
}

/// The value within bounds, NULL staying NULL.
fn clamped(value: Expr, (low, high): (i64, i64)) -> Result<Expr, QueryError> {
    let wrong = |_| below("this expression is", "write it in another way");
    let cast = datafusion::logical_expr::cast(value, DataType::Int64);
    when(cast.clone().lt(lit(low)), lit(low)).when(cast.clone().gt(lit(high)), lit(high)).otherwise(cast).map_err(wrong)
}
