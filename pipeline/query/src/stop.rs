//! Ending a statement that runs. Dropping its task ends it at the next point where the task gives its thread back; this file makes sure that there
//! are such points, and that work between them ends too.
//!
//! Joins are where a statement can work for long from little: they give back their thread after every few batches of rows they make
//! ([`with_yields`]), and while they look for rows that none of their conditions lets through, each look asks whether it is still wanted
//! ([`with_checks`]). Everything else works on what it reads, which is bounded by memory.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, Expr, Join, JoinType, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;

/// Whether a statement is still wanted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted(Arc<AtomicBool>);

impl Wanted {
    /// Not wanted any more once the returned value is dropped.
    pub(crate) fn until_dropped(&self) -> Guard {
        Guard(Arc::clone(&self.0))
    }

    fn ended(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Held by whoever waits for the answer.
#[must_use]
pub(crate) struct Guard(Arc<AtomicBool>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Adds a check to the condition of every join that could look for long without finding. Comes after the optimiser, which would move it.
///
/// # Errors
/// None of its own.
pub(crate) fn with_checks(plan: LogicalPlan, wanted: &Wanted) -> Result<LogicalPlan> {
    let function = Arc::new(ScalarUDF::new_from_impl(StillWanted::new(wanted.clone())));
    let checked = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Join(join) => Ok(check_join(join, &function)),
        other => Ok(Transformed::no(other)),
    })?;
    Ok(checked.data)
}

fn check_join(mut join: Join, function: &Arc<ScalarUDF>) -> Transformed<LogicalPlan> {
    // Without any condition an inner join is a product, which makes rows with every look.
    let product = join.on.is_empty() && join.filter.is_none() && join.join_type == JoinType::Inner;
    let side = |plan: &LogicalPlan| plan.schema().columns().into_iter().next().map(Expr::Column);
    let columns: Vec<Expr> = side(&join.left).into_iter().chain(side(&join.right)).collect();
    if product || columns.is_empty() || (join.filter.is_none() && !join.on.is_empty()) {
        return Transformed::no(LogicalPlan::Join(join));
    }
    let check = function.call(columns);
    join.filter = Some(match join.filter.take() {
        // First, since AND does not look further where its left side lets nothing through.
        Some(filter) => check.and(filter),
        None => check,
    });
    Transformed::yes(LogicalPlan::Join(join))
}

/// Makes every join give back its thread after some batches of rows.
///
/// # Errors
/// None of its own.
pub(crate) fn with_yields(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let plan = plan.transform_up(|node| {
        if node.name().contains("Join") {
            Ok(Transformed::yes(Arc::new(CooperativeExec::new(node)) as _))
        } else {
            Ok(Transformed::no(node))
        }
    })?;
    Ok(plan.data)
}

/// True while the statement is wanted, else an error that nobody sees.
#[derive(Debug)]
struct StillWanted {
    wanted: Wanted,
    signature: Signature,
}

impl StillWanted {
    fn new(wanted: Wanted) -> Self {
        Self { wanted, signature: Signature::variadic_any(Volatility::Volatile) }
    }
}

impl PartialEq for StillWanted {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.wanted.0, &other.wanted.0)
    }
}

impl Eq for StillWanted {}

impl Hash for StillWanted {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.wanted.0).hash(state);
    }
}

impl ScalarUDFImpl for StillWanted {
    fn name(&self) -> &str {
        "still_wanted"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, _arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if self.wanted.ended() {
            return Err(DataFusionError::Execution("ended".to_owned()));
        }
        Ok(ColumnarValue::Scalar(ScalarValue::Boolean(Some(true))))
    }
}
