//! What stands between a protected table and its aggregate: every row goes its own way, and the person comes along and is looked at by nothing.

use datafusion::common::Column;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, JoinType, LogicalPlan, LogicalPlanBuilder};

use super::expand::{bare, expand, first_protected, nth, of_person, person};
use super::leaf::planned;
use super::refusals::below;
use super::table::{PRIVATE, protected};
use crate::error::QueryError;

/// Whether protected rows reach this plan's output. Those in subqueries of expressions do not, and are found when those are looked at.
pub(super) fn over_protected_rows(plan: &LogicalPlan) -> bool {
    let mut found = false;
    let _walked = plan.apply(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            found |= protected(&scan.source).is_some();
        }
        Ok(TreeNodeRecursion::Continue)
    });
    found
}

/// Name of the person in the parts of a union, whose other columns get names without a meaning.
const WHOSE: &str = "whose row it is";

/// The same rows with the person among their columns.
pub(super) fn with_person(plan: &LogicalPlan) -> Result<(LogicalPlan, Column), QueryError> {
    if let Some(column) = person(plan) {
        return Ok((plan.clone(), column));
    }
    let lost = || below("a subquery of this shape is", "aggregate the protected table itself");
    let rebuilt = match plan {
        LogicalPlan::Projection(projection) => {
            let (input, who) = with_person(&projection.input)?;
            let mut shown = projection.expr.clone();
            shown.push(Expr::Column(who));
            planned(LogicalPlanBuilder::from(input).project(shown).and_then(LogicalPlanBuilder::build))?
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let (input, _) = with_person(&alias.input)?;
            planned(LogicalPlanBuilder::from(input).alias(alias.alias.clone()).and_then(LogicalPlanBuilder::build))?
        }
        LogicalPlan::Filter(filter) => {
            let (input, _) = with_person(&filter.input)?;
            planned(LogicalPlanBuilder::from(input).filter(filter.predicate.clone()).and_then(LogicalPlanBuilder::build))?
        }
        // The parts may have the person at different places, or not at all: each gets it as a further, last column.
        LogicalPlan::Union(union) => {
            let columns = plan.schema().fields().len();
            let mut whole: Option<LogicalPlanBuilder> = None;
            for part in &union.inputs {
                let shown: Vec<Column> = part.schema().columns();
                let (part, who) = with_person(part)?;
                let shown = shown.into_iter().zip(0..).map(|(column, at)| Expr::Column(column).alias(format!("column {at}")));
                let shown = shown.chain([Expr::Column(who).alias(WHOSE)]);
                let part = planned(LogicalPlanBuilder::from(part).project(shown).and_then(LogicalPlanBuilder::build))?;
                whole = Some(match whole {
                    None => LogicalPlanBuilder::from(part),
                    Some(whole) => whole.union(part).map_err(|_| lost())?,
                });
            }
            let whole = planned(whole.ok_or_else(lost)?.build())?;
            // Under the names they had.
            let mut named = Vec::new();
            for at in 0..=columns {
                let column = Expr::Column(nth(&whole, at).ok_or_else(lost)?);
                named.push(if at < columns {
                    let (table, field) = plan.schema().qualified_field(at);
                    column.alias_qualified(table.cloned(), field.name())
                } else {
                    column
                });
            }
            planned(LogicalPlanBuilder::from(whole).project(named).and_then(LogicalPlanBuilder::build))?
        }
        LogicalPlan::Join(_) => {
            let mut inputs = Vec::new();
            for input in plan.inputs() {
                inputs.push(if over_protected_rows(input) { with_person(input)?.0 } else { input.clone() });
            }
            planned(plan.with_new_exprs(plan.expressions(), inputs).and_then(LogicalPlan::recompute_schema))?
        }
        _ => return Err(lost()),
    };
    let column = person(&rebuilt).ok_or_else(lost)?;
    Ok((rebuilt, column))
}

/// Between the protected table and the aggregate every row must go its own way.
pub(super) fn check_row_wise(plan: &LogicalPlan) -> Result<(), QueryError> {
    match plan {
        LogicalPlan::TableScan(scan) => match (&scan.fetch, protected(&scan.source)) {
            (None, Some(_)) => Ok(()),
            _ => Err(below("LIMIT below an aggregate is", "put LIMIT above the aggregate")),
        },
        LogicalPlan::Projection(projection) => {
            for expression in &projection.expr {
                if !matches!(bare(expression), Expr::Column(_)) {
                    no_person(expression, &projection.input, PERSON_USED, PERSON_HINT)?;
                }
            }
            check_row_wise(&projection.input)
        }
        LogicalPlan::Filter(filter) => {
            no_person(&filter.predicate, &filter.input, PERSON_USED, PERSON_HINT)?;
            if has_private_subquery(&filter.predicate) {
                return Err(below(
                    "a condition that asks a protected table itself is",
                    "ask that first, and write the number it gave",
                ));
            }
            check_row_wise(&filter.input)
        }
        LogicalPlan::SubqueryAlias(alias) => check_row_wise(&alias.input),
        LogicalPlan::Union(union) => {
            let datasets: Vec<_> = union.inputs.iter().map(|input| first_protected(input).map(|table| table.dataset)).collect();
            if datasets.windows(2).any(|pair| pair[0] != pair[1]) || datasets.iter().any(Option::is_none) {
                return Err(below(
                    "a union of different tables below an aggregate is",
                    "aggregate each, and join the answers by UNION ALL",
                ));
            }
            union.inputs.iter().try_for_each(|input| check_row_wise(input))
        }
        LogicalPlan::Join(join) => {
            let (left, right) = (over_protected_rows(&join.left), over_protected_rows(&join.right));
            if left && right {
                return Err(below("a join of protected tables with each other is", "aggregate each, and join the answers"));
            }
            let protected_side = if left { &join.left } else { &join.right };
            let fits = matches!(
                (left, right, join.join_type),
                (true, false, JoinType::Inner | JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti)
                    | (false, true, JoinType::Inner | JoinType::Right | JoinType::RightSemi | JoinType::RightAnti)
            );
            if !fits {
                return Err(below(
                    "an outer join that keeps rows without a person is",
                    "put the protected table on the side that is kept: FROM private.… LEFT JOIN public table",
                ));
            }
            for (a, b) in &join.on {
                for (side, key) in [(&join.left, a), (&join.right, b)] {
                    no_person(key, side, PERSON_USED, PERSON_HINT)?;
                }
            }
            if let Some(filter) = &join.filter {
                no_person(filter, plan, PERSON_USED, PERSON_HINT)?;
            }
            check_row_wise(protected_side)
        }
        LogicalPlan::Distinct(_) => {
            Err(below("DISTINCT below an aggregate is", "write COUNT(DISTINCT person), or GROUP BY the columns"))
        }
        LogicalPlan::Limit(_) | LogicalPlan::Sort(_) => {
            Err(below("ORDER BY or LIMIT below an aggregate is", "put them above the aggregate"))
        }
        LogicalPlan::Window(_) => {
            Err(below("a window function below an aggregate is", "aggregate first; window functions go above the noise"))
        }
        _ => Err(below("this step below an aggregate is", "use WHERE, CASE, joins with public tables, and subqueries of those")),
    }
}

pub(super) const PERSON_USED: &str = "using the person column for anything but COUNT(DISTINCT person) is";
pub(super) const PERSON_HINT: &str = "one person cannot be asked about; ask about groups of people";

/// Refuses a subquery over protected rows wherever in the private part it stands: as a condition, a key, a branch of CASE, or beside a join.
pub(super) fn no_private_subquery(rows: &LogicalPlan) -> Result<(), QueryError> {
    let mut found = false;
    let _walked = rows.apply(|node| {
        node.apply_expressions(|expression| {
            found |= has_private_subquery(expression);
            Ok(TreeNodeRecursion::Continue)
        })
    });
    if found {
        return Err(below("a condition that asks a protected table itself is", "ask that first, and write the number it gave"));
    }
    Ok(())
}

pub(super) fn has_private_subquery(expression: &Expr) -> bool {
    let mut found = false;
    let _walked = expression.apply(|part| {
        let plan = match part {
            Expr::InSubquery(inside) => Some(&inside.subquery.subquery),
            Expr::Exists(inside) => Some(&inside.subquery.subquery),
            Expr::ScalarSubquery(inside) => Some(&inside.subquery),
            Expr::SetComparison(inside) => Some(&inside.subquery.subquery),
            _ => None,
        };
        if let Some(plan) = plan {
            let _inner = plan.apply_with_subqueries(|node| {
                if let LogicalPlan::TableScan(scan) = node {
                    found |= protected(&scan.source).is_some() || scan.table_name.schema() == Some(PRIVATE);
                }
                Ok(TreeNodeRecursion::Continue)
            });
        }
        Ok(TreeNodeRecursion::Continue)
    });
    found
}

/// Refuses an expression that uses the person.
pub(super) fn no_person(expression: &Expr, plan: &LogicalPlan, what: &str, hint: &str) -> Result<(), QueryError> {
    if of_person(expression, plan) { Err(below(what, hint)) } else { Ok(()) }
}

/// Conditions that every row meets, over the table's own columns.
pub(super) fn gather_conditions(plan: &LogicalPlan, into: &mut Vec<Expr>) {
    match plan {
        LogicalPlan::Filter(filter) => {
            let parts = datafusion::logical_expr::utils::split_conjunction(&filter.predicate);
            into.extend(parts.into_iter().filter_map(|part| expand(part, &filter.input)));
            gather_conditions(&filter.input, into);
        }
        LogicalPlan::Projection(projection) => gather_conditions(&projection.input, into),
        LogicalPlan::SubqueryAlias(alias) => gather_conditions(&alias.input, into),
        LogicalPlan::Join(join) => {
            for side in [&join.left, &join.right] {
                if over_protected_rows(side) {
                    gather_conditions(side, into);
                }
            }
        }
        _ => {}
    }
}
