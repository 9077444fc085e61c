//! Functions of private questions: clipping below the noise, error bars above it, and which row is the one of groups that are left out.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::exec_err;
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};

/// `dp_clip(x, low, high)`: one person's part of SUM(x) in a group is clipped to this range.
pub(crate) const CLIP: &str = "dp_clip";
/// `dp_low(x)`: lower end of the 95 % interval.
pub(crate) const LOW: &str = "dp_low";
/// `dp_high(x)`: upper end.
pub(crate) const HIGH: &str = "dp_high";
/// `dp_stddev(x)`: standard deviation of the noise.
pub(crate) const STDDEV: &str = "dp_stddev";
/// `dp_other()`: whether the row is the one that pools all groups that are left out. An aggregate: it is of a group.
pub(crate) const OTHER: &str = "dp_other";

/// Those that are aggregates.
pub(crate) fn aggregates() -> Vec<Arc<AggregateUDF>> {
    vec![Arc::new(AggregateUDF::new_from_impl(OtherRow { signature: Signature::nullary(Volatility::Immutable) }))]
}

/// All others.
pub(crate) fn all() -> Vec<Arc<ScalarUDF>> {
    let marker = |name, clips| Arc::new(ScalarUDF::new_from_impl(Marker::new(name, clips)));
    vec![marker(CLIP, true), marker(LOW, false), marker(HIGH, false), marker(STDDEV, false)]
}

/// Marks the row of groups that are left out; the planner replaces it, and it is never called.
#[derive(Debug, PartialEq, Eq, Hash)]
struct OtherRow {
    signature: Signature,
}

impl AggregateUDFImpl for OtherRow {
    fn name(&self) -> &str {
        OTHER
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn accumulator(&self, _arguments: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        exec_err!("dp_other is there for private answers only")
    }
}

/// A call of one of them.
pub(crate) fn call(name: &'static str, argument: Expr) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(ScalarUDF::new_from_impl(Marker::new(name, false))), vec![argument]))
}

/// A function that the planner understands and replaces; it is never called, but for `dp_clip`, which gives its first argument.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Marker {
    name: &'static str,
    clips: bool,
    signature: Signature,
}

impl Marker {
    fn new(name: &'static str, clips: bool) -> Self {
        Self { name, clips, signature: Signature::any(if clips { 3 } else { 1 }, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Marker {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(match arguments.first() {
            Some(kind) if self.clips => kind.clone(),
            _ => DataType::Float64,
        })
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match arguments.args.into_iter().next() {
            Some(value) if self.clips => Ok(value),
            _ => exec_err!("error bars are there for private answers only"),
        }
    }
}
