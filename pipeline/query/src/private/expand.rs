//! What an expression above some row-wise operators means in the columns of the protected table.

use datafusion::common::Column;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, JoinType, LogicalPlan};

use super::table::{Protected, protected};

/// The expression over the protected table's own columns (without qualifiers); `None` if any of it comes from elsewhere.
pub(crate) fn expand(expression: &Expr, plan: &LogicalPlan) -> Option<Expr> {
    let mut foreign = false;
    let expanded = expression
        .clone()
        .transform_down(|part| match &part {
            Expr::Column(column) => match resolve(column, plan) {
                Some(meaning) => Ok(Transformed::new(meaning, true, TreeNodeRecursion::Jump)),
                None => {
                    foreign = true;
                    Ok(Transformed::no(part))
                }
            },
            Expr::OuterReferenceColumn(..) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::ScalarSubquery(_) => {
                foreign = true;
                Ok(Transformed::no(part))
            }
            _ => Ok(Transformed::no(part)),
        })
        .ok()?;
    (!foreign).then_some(expanded.data)
}

fn resolve(column: &Column, plan: &LogicalPlan) -> Option<Expr> {
    let at = plan.schema().maybe_index_of_column(column)?;
    match plan {
        LogicalPlan::Projection(projection) => expand(&bare(projection.expr.get(at)?), &projection.input),
        LogicalPlan::SubqueryAlias(alias) => resolve(&nth(&alias.input, at)?, &alias.input),
        LogicalPlan::Filter(filter) => resolve(column, &filter.input),
        LogicalPlan::Join(_) => {
            let (side, at) = side(plan, at)?;
            resolve(&nth(side, at)?, side)
        }
        // A column of a union means something where it means the same in all parts.
        LogicalPlan::Union(union) => {
            let mut parts = union.inputs.iter().map(|input| resolve(&nth(input, at)?, input));
            let first = parts.next()??;
            parts.all(|part| part.as_ref() == Some(&first)).then_some(first)
        }
        LogicalPlan::TableScan(scan) => {
            protected(&scan.source)?;
            Some(Expr::Column(Column::new_unqualified(plan.schema().field(at).name())))
        }
        _ => None,
    }
}

/// The side of a join that a column of its rows is from, and the column's place there; `None` for a mark, which is from neither.
fn side(plan: &LogicalPlan, at: usize) -> Option<(&LogicalPlan, usize)> {
    let LogicalPlan::Join(join) = plan else { return None };
    let (left, right) = (join.left.schema().fields().len(), join.right.schema().fields().len());
    match join.join_type {
        JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => (at < right).then_some((&*join.right, at)),
        JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => (at < left).then_some((&*join.left, at)),
        _ if at < left => Some((&*join.left, at)),
        _ => Some((&*join.right, at - left)),
    }
}

/// Whether the person is in an expression, by whatever name and through whatever steps it came there, or in a subquery that looks at it from
/// within.
pub(crate) fn of_person(expression: &Expr, plan: &LogicalPlan) -> bool {
    let mut found = false;
    let _walked = expression.apply(|part| {
        let subquery = match part {
            Expr::Column(column) | Expr::OuterReferenceColumn(_, column) => {
                found |= is_of_person(column, plan);
                None
            }
            Expr::InSubquery(inside) => Some(&inside.subquery),
            Expr::Exists(inside) => Some(&inside.subquery),
            Expr::ScalarSubquery(inside) => Some(inside),
            Expr::SetComparison(inside) => Some(&inside.subquery),
            _ => None,
        };
        found |= subquery.is_some_and(|subquery| subquery.outer_ref_columns.iter().any(|outer| of_person(outer, plan)));
        Ok(TreeNodeRecursion::Continue)
    });
    found
}

fn is_of_person(column: &Column, plan: &LogicalPlan) -> bool {
    let Some(at) = plan.schema().maybe_index_of_column(column) else { return false };
    let comes_from = |input: &LogicalPlan, at: usize| nth(input, at).is_some_and(|column| is_of_person(&column, input));
    match plan {
        LogicalPlan::TableScan(scan) => {
            protected(&scan.source).is_some() && plan.schema().field(at).name() == super::table::PERSON
        }
        LogicalPlan::Projection(projection) => {
            projection.expr.get(at).is_some_and(|meaning| of_person(meaning, &projection.input))
        }
        LogicalPlan::Join(_) => side(plan, at).is_some_and(|(side, at)| comes_from(side, at)),
        // One part is enough.
        LogicalPlan::Union(union) => union.inputs.iter().any(|input| comes_from(input, at)),
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.get(at).is_some_and(|key| of_person(key, &aggregate.input)),
        // The same columns as below.
        other => other.inputs().into_iter().any(|input| comes_from(input, at)),
    }
}

/// The column at a place of a plan's rows.
pub(crate) fn nth(plan: &LogicalPlan, at: usize) -> Option<Column> {
    (at < plan.schema().fields().len()).then(|| Column::from(plan.schema().qualified_field(at)))
}

/// An expression without the names given to it.
pub(crate) fn bare(expression: &Expr) -> Expr {
    match expression {
        Expr::Alias(alias) => bare(&alias.expr),
        other => other.clone(),
    }
}

/// The person column of row-wise operators over a protected table, as they hand it up; `None` where it was projected away.
///
/// A subquery such as `(SELECT country FROM private.d)` drops it; `with_person` puts it back.
pub(crate) fn person(plan: &LogicalPlan) -> Option<Column> {
    let fields = plan.schema().fields().len();
    (0..fields)
        .filter_map(|at| nth(plan, at))
        .find(|column| matches!(resolve(column, plan), Some(Expr::Column(found)) if found.name == super::table::PERSON))
}

/// The protected table of a plan's first protected scan.
pub(crate) fn first_protected(plan: &LogicalPlan) -> Option<Protected> {
    let mut found = None;
    let _walked = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Some(table) = protected(&scan.source)
        {
            found = Some(table);
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    found
}
