//! A column with fractions as whole numbers of a part: what stands below the noise is added up in whole numbers only, so that how rows are ordered
//! does not change a sum, and noise is exact.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Schema};
use datafusion::error::Result;
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;

/// How many parts of which `times` are one, to the nearest, halves away from zero: of the value as a double. NULL for what is no number; what is too
/// large is the largest there is. No value fails.
#[allow(clippy::cast_possible_truncation, reason = "it is within the type's range")]
fn parts(value: f64, times: u32) -> Option<i64> {
    let parts = (value * f64::from(times)).round();
    // A float that is cast goes to the nearest end. The smallest number of all stands for NULL elsewhere.
    (!parts.is_nan()).then(|| (parts as i64).max(-i64::MAX))
}

/// [`parts`] of a column of a floating or decimal type.
#[derive(Debug, Eq)]
pub(crate) struct InParts {
    column: Arc<dyn PhysicalExpr>,
    times: u32,
}

impl InParts {
    pub(crate) fn of(column: Arc<dyn PhysicalExpr>, times: u32) -> Self {
        Self { column, times }
    }
}

impl PartialEq for InParts {
    fn eq(&self, other: &Self) -> bool {
        self.column.eq(&other.column) && self.times == other.times
    }
}

impl Hash for InParts {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.column.hash(state);
        self.times.hash(state);
    }
}

impl fmt::Display for InParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "round({} * {})", self.column, self.times)
    }
}

impl PhysicalExpr for InParts {
    fn data_type(&self, _schema: &Schema) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn nullable(&self, _schema: &Schema) -> Result<bool> {
        Ok(true)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let column = self.column.evaluate(batch)?.into_array(batch.num_rows())?;
        let numbers = cast(&column, &DataType::Float64)?;
        let numbers = numbers.as_primitive::<Float64Type>();
        let whole: Int64Array = numbers.iter().map(|number| parts(number?, self.times)).collect();
        debug_assert_eq!(whole.len(), column.len());
        Ok(ColumnarValue::Array(Arc::new(whole) as ArrayRef))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.column]
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        match children.into_iter().next() {
            Some(column) => Ok(Arc::new(Self { column, times: self.times })),
            None => Ok(self),
        }
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::parts;

    #[test]
    fn every_float_is_a_whole_number_of_parts_or_none() {
        assert_eq!(parts(12.34, 100), Some(1234));
        assert_eq!((parts(0.125, 100), parts(-0.125, 100)), (Some(13), Some(-13)), "halves go away from zero");
        assert_eq!((parts(-0.001, 100), parts(f64::MIN_POSITIVE, u32::MAX)), (Some(0), Some(0)));
        assert_eq!((parts(f64::NAN, 1), parts(f64::INFINITY, 0)), (None, None));
        assert_eq!((parts(f64::INFINITY, 1), parts(f64::NEG_INFINITY, 1)), (Some(i64::MAX), Some(-i64::MAX)));
        assert_eq!((parts(f64::MAX, 9), parts(f64::MIN, 9)), (Some(i64::MAX), Some(-i64::MAX)));
    }
}
