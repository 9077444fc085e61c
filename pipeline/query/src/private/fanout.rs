//! How many rows joins make of one protected row.
//!
//! A question over too many groups ends by an error, and an error has no noise. Where `CROSS JOIN`s made five million groups of one row, a question
//! about the one row that fits some conditions would end by it if that row is there, and by an answer if not: an exact fact about one person, at any
//! price. So no row becomes more than [`MOST_FROM_ONE_ROW`] before the noise, and the limits of groups, memory and time are reached by many rows or
//! not at all (`mod.rs` says by how many).
//!
//! What a row finds in a public table is one set of join keys at most, so the most frequent set is counted; without keys, all rows. Public tables are
//! counted as they are, after the questions whose answers they are and before the charge: what is found, and refused, depends on no protected row.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use datafusion::common::{Column, Result};
use datafusion::execution::TaskContext;
use datafusion::execution::context::SessionState;
use datafusion::functions_aggregate::expr_fn::{count, max};
use datafusion::logical_expr::{Expr, JoinType, LogicalPlan, LogicalPlanBuilder, lit};
use datafusion::physical_plan::collect;

use super::refusals::below;
use super::row_wise::over_protected_rows;
use crate::error::{QueryError, from_execution, from_planning};

/// Rows that may be made of one protected row.
pub(crate) const MOST_FROM_ONE_ROW: usize = 1 << 10;

const OF_ONE: &str = "rows of one set of keys";

/// Checks a private part as it will run.
///
/// # Privacy
/// Reads public tables alone: those joined with protected rows, never these.
///
/// # Errors
/// For a part that may make more than [`MOST_FROM_ONE_ROW`] rows of one.
pub(crate) async fn check(rows: &LogicalPlan, state: &SessionState, literals: &[String]) -> Result<(), QueryError> {
    let mut most = 0_usize;
    for joined in ways(rows) {
        let mut of_one = 1_usize;
        for join in joined {
            let found = matches(join).map_err(|error| from_planning(&error, literals))?;
            if let Some(counting) = found {
                of_one = of_one.saturating_mul(counted(&counting, state, literals).await?.max(1));
            }
            if of_one > MOST_FROM_ONE_ROW {
                return Err(too_many());
            }
        }
        most = most.saturating_add(of_one);
    }
    if most > MOST_FROM_ONE_ROW { Err(too_many()) } else { Ok(()) }
}

fn too_many() -> QueryError {
    below(
        &format!("making more than {MOST_FROM_ONE_ROW} rows of one by joins and unions is"),
        "join on columns that tell the rows of the public table apart, or aggregate the public table first",
    )
}

/// The joins a row passes on each way from its table to the aggregate; a union has a way for each of its parts.
fn ways(plan: &LogicalPlan) -> Vec<Vec<&LogicalPlan>> {
    let mut out: Vec<Vec<&LogicalPlan>> =
        plan.inputs().into_iter().filter(|input| over_protected_rows(input)).flat_map(ways).collect();
    if out.is_empty() {
        out.push(Vec::new());
    }
    if matches!(plan, LogicalPlan::Join(_)) {
        out.iter_mut().for_each(|way| way.push(plan));
    }
    out
}

/// Counts the rows that one row of a join's protected side may find on the other; `None` where it comes out once at most.
fn matches(join: &LogicalPlan) -> Result<Option<LogicalPlan>> {
    let LogicalPlan::Join(join) = join else { return Ok(None) };
    if !matches!(join.join_type, JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full) {
        return Ok(None);
    }
    let is_left = over_protected_rows(&join.left);
    let public = if is_left { &join.right } else { &join.left };
    let keys: Vec<Expr> = join.on.iter().map(|(left, right)| if is_left { right.clone() } else { left.clone() }).collect();
    let keys = keys.into_iter().fold(Vec::new(), |mut known: Vec<Expr>, key| {
        if !known.contains(&key) {
            known.push(key);
        }
        known
    });
    let public = LogicalPlanBuilder::from(public.as_ref().clone());
    let counting = if keys.is_empty() {
        let few = public.limit(0, Some(MOST_FROM_ONE_ROW + 1))?;
        few.aggregate(Vec::<Expr>::new(), [count(lit(1)).alias("found")])?
    } else {
        let of_one = Expr::Column(Column::new_unqualified(OF_ONE));
        let by_keys = public.aggregate(keys, [count(lit(1)).alias(OF_ONE)])?.project([of_one.clone()])?;
        by_keys.aggregate(Vec::<Expr>::new(), [max(of_one).alias("found")])?
    };
    counting.build().map(Some)
}

async fn counted(counting: &LogicalPlan, state: &SessionState, literals: &[String]) -> Result<usize, QueryError> {
    let planned = |error: datafusion::error::DataFusionError| from_planning(&error, literals);
    let optimised = state.optimize(counting).map_err(planned)?;
    let physical = state.query_planner().create_physical_plan(&optimised, state).await.map_err(planned)?;
    let context = Arc::new(TaskContext::from(state));
    let batches = collect(physical, context).await.map_err(|error| from_execution(&error))?;
    // Of no rows, the most is NULL.
    let found = batches.iter().filter(|batch| batch.num_rows() > 0).find_map(|batch| {
        let column = batch.columns().first()?.as_primitive_opt::<Int64Type>()?;
        Some(column.iter().next().flatten().unwrap_or(0))
    });
    found.and_then(|found| usize::try_from(found).ok()).ok_or_else(too_many)
}
