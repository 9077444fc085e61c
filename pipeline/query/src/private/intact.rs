//! The last look at a private part, as it will run: the optimiser has moved filters, turned subqueries into joins and dropped what is not needed,
//! and every protected row must still go its own way. What the first look (`leaf`) was meant to refuse is refused here, too.

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::{JoinType, LogicalPlan};

use super::refusals::below;
use super::table::protected;
use crate::error::QueryError;

/// Checks that whether and how often a row of a person comes out depends on that row and on public tables alone.
///
/// # Errors
/// The first step of which that is not so.
pub(crate) fn check(plan: &LogicalPlan) -> Result<(), QueryError> {
    let inputs = plan.inputs();
    // Subqueries of expressions that are left now would be run beside the plan.
    let within: usize = inputs.iter().map(|input| scans(input)).sum();
    let own = usize::from(is_protected(plan));
    if scans(plan) != within + own {
        return Err(broken());
    }
    if within + own == 0 {
        return Ok(());
    }
    match plan {
        LogicalPlan::TableScan(scan) if scan.fetch.is_none() => Ok(()),
        LogicalPlan::Projection(_) | LogicalPlan::Filter(_) | LogicalPlan::SubqueryAlias(_) | LogicalPlan::Union(_) => {
            inputs.into_iter().try_for_each(check)
        }
        LogicalPlan::Join(join) => {
            let (left, right) = (scans(&join.left) > 0, scans(&join.right) > 0);
            match (left, right, join.join_type) {
                (
                    true,
                    false,
                    JoinType::Inner | JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark,
                ) => check(&join.left),
                (
                    false,
                    true,
                    JoinType::Inner | JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark,
                ) => check(&join.right),
                _ => Err(broken()),
            }
        }
        _ => Err(broken()),
    }
}

fn broken() -> QueryError {
    below(
        "a step that looks at several protected rows at once is",
        "use WHERE, CASE and joins with public tables below the aggregate, and everything else above it",
    )
}

fn is_protected(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::TableScan(scan) if protected(&scan.source).is_some())
}

/// Scans of protected tables at or below this step, those in subqueries too.
pub(crate) fn scans(plan: &LogicalPlan) -> usize {
    let mut found = 0;
    let _walked = plan.apply_with_subqueries(|node| {
        found += usize::from(is_protected(node));
        Ok(TreeNodeRecursion::Continue)
    });
    found
}
