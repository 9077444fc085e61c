//! Answers that are true for as long as nothing is released: kept in memory, and given again without planning.
//!
//! **Comes in:** a statement over released statistics alone, whose functions always give the same, and its answer. **Goes out:** the same answer to the
//! same text with the same values, in the same role, until a release is recorded (`catalogue` tells by the newest). A dashboard asks
//! the same statements over and over, and planning one costs ten times what its few rows do.
//!
//! What is not kept: whatever looks at another schema, at the clock or at chance; `EXPLAIN`; errors; large answers. A statement's text is not
//! kept, only its hash. A door has written the reading into the audit log before it comes here, kept or not (I6).
//!
//! Whoever measures time may learn whether somebody of his role has asked the same since the last release. He may ask it himself, and it has no row about
//! anybody.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{RecordBatch, UInt64Array};
use arrow::compute::take_record_batch;
use arrow::error::ArrowError;
use datafusion::common::tree_node::{TreeNode as _, TreeNodeRecursion};
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility, WindowFunctionDefinition};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use starling_store::NewestRelease;

use crate::answer::Answer;
use crate::answering::sliced_bytes;
use crate::catalogue::Recorded;
use crate::parameters::Value;
use crate::released::Released;
use crate::rights::Rights;

/// Bytes of all answers together.
const BYTES: u64 = 32 * 1024 * 1024;
/// Bytes of one.
const ANSWER_BYTES: u64 = 512 * 1024;
/// What an answer takes beside its rows, and a column of it.
const OWN_BYTES: usize = 512;
/// Of how many answers places are made at first.
const ANSWERS: usize = 4096;

/// What one was asked: a hash of role, text and values.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Asked([u8; 32]);

impl Asked {
    /// The same for the same text, values and rights, and for nothing else.
    pub(crate) fn of(rights: Rights, sql: &str, values: &[Value]) -> Self {
        let mut hasher = blake3::Hasher::new();
        let mut part = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        part(match rights {
            // No role has an empty name.
            Rights::All => b"",
            Rights::Of(role) => role.name().as_bytes(),
        });
        part(sql.as_bytes());
        for value in values {
            let (tag, bytes): (u8, &[u8]) = match value {
                Value::Null(kind) => (*kind as u8, b""),
                Value::Bool(value) => (16, &[u8::from(*value)]),
                Value::Whole(value) => (17, &value.to_le_bytes()),
                Value::Float(value) => (18, &value.to_bits().to_le_bytes()),
                Value::Text(value) => (19, value.as_bytes()),
                Value::Day(value) => (20, value.as_bytes()),
                Value::Moment(value) => (21, value.as_bytes()),
            };
            part(&[tag]);
            part(bytes);
        }
        Self(hasher.finalize().into())
    }
}

/// An answer, and the releases that it is of.
type Kept = (NewestRelease, Arc<Answer>);

#[derive(Clone)]
struct Bytes;

impl Weighter<Asked, Kept> for Bytes {
    fn weight(&self, _: &Asked, (_, answer): &Kept) -> u64 {
        weight(answer)
    }
}

fn weight(answer: &Answer) -> u64 {
    let rows: usize = answer.batches.iter().flat_map(RecordBatch::columns).map(sliced_bytes).sum();
    (rows + OWN_BYTES * (1 + answer.schema.fields().len())) as u64
}

/// The same with rows of its own: a slice would keep all that it is a slice of.
fn own(answer: &Answer) -> Result<Answer, ArrowError> {
    let copied = |batch: &RecordBatch| {
        let all = UInt64Array::from_iter_values(0..batch.num_rows() as u64);
        take_record_batch(batch, &all)
    };
    let batches = answer.batches.iter().map(copied).collect::<Result<_, _>>()?;
    Ok(Answer { batches, ..answer.clone() })
}

/// Answers by what was asked. Shared by all statements.
pub(crate) struct Lasting {
    kept: Cache<Asked, Kept, Bytes>,
    given: AtomicU64,
}

impl Default for Lasting {
    fn default() -> Self {
        Self { kept: Cache::with_weighter(ANSWERS, BYTES, Bytes), given: AtomicU64::new(0) }
    }
}

impl Lasting {
    /// Whether there may be an answer.
    pub(crate) fn may_have(&self, asked: &Asked) -> bool {
        self.kept.peek(asked).is_some()
    }

    /// The answer, if it still is true of these releases.
    pub(crate) fn answer(&self, asked: &Asked, releases: &Recorded) -> Option<Arc<Answer>> {
        let (of, answer) = self.kept.get(asked)?;
        if releases.newest.as_ref() != Some(&of) {
            return None;
        }
        self.given.fetch_add(1, Ordering::Relaxed);
        Some(answer)
    }

    /// How often one was given again.
    pub(crate) fn given(&self) -> u64 {
        self.given.load(Ordering::Relaxed)
    }

    /// Keeps an answer that is of these releases.
    pub(crate) fn keep(&self, asked: Asked, releases: NewestRelease, answer: &Answer) {
        if weight(answer) <= ANSWER_BYTES
            && let Ok(own) = own(answer)
        {
            self.kept.insert(asked, (releases, Arc::new(own)));
        }
    }
}

/// The releases that a plan's answer is of; `None` where it does not last as long as they do.
pub(crate) fn releases(plan: &LogicalPlan) -> Option<NewestRelease> {
    let (mut of, mut lasts) = (None, true);
    let walked = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            let table = source_as_provider(&scan.source).ok();
            let newest = table.as_ref().and_then(|table| table.downcast_ref::<Released>()).and_then(Released::releases);
            lasts &= newest.is_some() && (of.is_none() || of.as_ref() == newest);
            of = newest.cloned();
        }
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                lasts &= is_immutable(expr);
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    if walked.is_ok() && lasts { of } else { None }
}

/// Whether an expression, but for what is in it, always gives the same.
fn is_immutable(expr: &Expr) -> bool {
    let volatility = match expr {
        Expr::ScalarFunction(call) => call.func.signature().volatility,
        Expr::AggregateFunction(call) => call.func.signature().volatility,
        Expr::WindowFunction(call) => match &call.fun {
            WindowFunctionDefinition::AggregateUDF(function) => function.signature().volatility,
            WindowFunctionDefinition::WindowUDF(function) => function.signature().volatility,
        },
        Expr::HigherOrderFunction(_) | Expr::ScalarVariable(..) => return false,
        _ => return true,
    };
    volatility == Volatility::Immutable
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::Kind;
    use crate::rights::Role;

    #[test]
    fn what_differs_in_role_text_kind_or_value_is_asked_apart() {
        let product = Rights::Of(Role::Product);
        let text = |text: &str| Value::Text(text.to_owned());
        let all = [
            Asked::of(Rights::All, "a", &[]),
            Asked::of(product, "a", &[]),
            Asked::of(Rights::Of(Role::Privacy), "a", &[]),
            Asked::of(product, "b", &[]),
            Asked::of(product, "a", &[text("")]),
            Asked::of(product, "a", &[text("x"), text("y")]),
            Asked::of(product, "a", &[text("xy"), text("")]),
            Asked::of(product, "a", &[Value::Day("x".to_owned())]),
            Asked::of(product, "a", &[Value::Moment("x".to_owned())]),
            Asked::of(product, "a", &[Value::Null(Kind::Bool)]),
            Asked::of(product, "a", &[Value::Null(Kind::Text)]),
            Asked::of(product, "a", &[Value::Bool(false)]),
            Asked::of(product, "a", &[Value::Whole(0)]),
            Asked::of(product, "a", &[Value::Float(0.0)]),
            Asked::of(product, "a", &[Value::Float(-0.0)]),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(all.iter().skip(at + 1).all(|other| one != other), "{at}");
        }
        assert!(Asked::of(product, "a", &[text("x")]) == Asked::of(product, "a", &[text("x")]));
    }
}
