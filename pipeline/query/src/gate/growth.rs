//! How large a statement can become while it is optimised. The optimiser moves a condition below the query it stands over by writing each column's
//! expression in its place. In `WITH b AS (SELECT x + x AS x FROM a), c AS (SELECT x + x AS x FROM b) … WHERE x > 0` that doubles with each step, and
//! nothing can stop it on the way. So the gate works out how large each column is when all it is made of is written out.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, LogicalPlan};

use super::{STACK_LEFT, STACK_MORE};
use crate::error::{QueryError, TOO_COMPLEX};
use crate::limits::Limits;

/// Checks that no expression of the plan is larger than the limit when it is written out.
///
/// # Errors
/// [`TOO_COMPLEX`].
pub(crate) fn check(plan: &LogicalPlan, limits: &Limits) -> Result<(), QueryError> {
    columns(plan, limits).map(|_| ())
}

fn too_large() -> QueryError {
    QueryError::new(
        TOO_COMPLEX,
        "a column is made from columns that are made from columns, and becomes too large",
        "use each computed column fewer times in the next query, or aggregate in between",
    )
}

/// Size of each column of the node, written out.
fn columns(plan: &LogicalPlan, limits: &Limits) -> Result<Vec<usize>, QueryError> {
    stacker::maybe_grow(STACK_LEFT, STACK_MORE, || columns_here(plan, limits))
}

fn columns_here(plan: &LogicalPlan, limits: &Limits) -> Result<Vec<usize>, QueryError> {
    let inputs = plan.inputs();
    let below = inputs.iter().map(|input| columns(input, limits)).collect::<Result<Vec<_>, _>>()?;
    let below: Vec<(&DFSchema, &[usize])> =
        inputs.iter().zip(&below).map(|(input, sizes)| (input.schema().as_ref(), sizes.as_slice())).collect();

    let mut sizes = Vec::new();
    let mut found = Ok(());
    let walked = plan.apply_expressions(|expression| {
        match size(expression, &below, limits) {
            Ok(size) => sizes.push(size),
            Err(error) => {
                found = Err(error);
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok::<_, DataFusionError>(TreeNodeRecursion::Continue)
    });
    found?;
    if walked.is_err() || sizes.iter().any(|size| *size > limits.expression_size) {
        return Err(too_large());
    }
    let width = plan.schema().fields().len();
    let out: Vec<usize> = match plan {
        LogicalPlan::Projection(_) => sizes,
        // What an aggregate or a window makes is a value; nothing is moved through it.
        LogicalPlan::Aggregate(aggregate) => sizes.into_iter().take(aggregate.group_expr.len()).collect(),
        LogicalPlan::TableScan(_) | LogicalPlan::Values(_) | LogicalPlan::EmptyRelation(_) => Vec::new(),
        LogicalPlan::Union(_) => {
            (0..width).map(|place| below.iter().filter_map(|(_, sizes)| sizes.get(place)).copied().max().unwrap_or(1)).collect()
        }
        LogicalPlan::Join(_) => plan.schema().columns().iter().map(|column| lookup(column, &below)).collect(),
        _ => below.first().map(|(_, sizes)| sizes.to_vec()).unwrap_or_default(),
    };
    Ok(out.into_iter().chain(std::iter::repeat(1)).take(width).collect())
}

/// A column as one of the inputs has it.
fn lookup(column: &Column, below: &[(&DFSchema, &[usize])]) -> usize {
    below
        .iter()
        .find_map(|(schema, sizes)| schema.maybe_index_of_column(column).and_then(|place| sizes.get(place)).copied())
        .unwrap_or(1)
}

fn size(expression: &Expr, below: &[(&DFSchema, &[usize])], limits: &Limits) -> Result<usize, QueryError> {
    let mut total = 0_usize;
    let mut found = Ok(());
    let walked = expression.apply(|part| {
        total = total.saturating_add(match part {
            Expr::Column(column) => lookup(column, below),
            _ => 1,
        });
        let subquery = match part {
            Expr::ScalarSubquery(subquery) => Some(subquery),
            Expr::Exists(exists) => Some(&exists.subquery),
            Expr::InSubquery(within) => Some(&within.subquery),
            _ => None,
        };
        if let Some(Err(error)) = subquery.map(|subquery| columns(&subquery.subquery, limits)) {
            found = Err(error);
            return Ok::<_, DataFusionError>(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    found?;
    if walked.is_err() { Err(too_large()) } else { Ok(total) }
}
