//! Names questions. Two questions have one name if, and only if, they ask the same: the second gets the first's answer.
//!
//! How the engine shows a plan to people is not enough: it leaves out rows of VALUES beyond the fifth, and shows a text as it is, so that a
//! text can be made to look like the next condition. Here each literal and each column stands with its length, and its place is marked
//! in the text.

use std::fmt::Write as _;
use std::mem::discriminant;

use arrow::array::ArrayRef;
use datafusion::common::Column;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::datasource::source_as_provider;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan};
use starling_privacy::question::Plan;

use super::leaf::Leaf;
use super::table::{Noisy, PRIVATE, protected};
use super::vault::Block;
use crate::released::Released;

/// Names a question by all that its answer depends on, beside the rows of closed days, which never change. Files of one's own may be written anew:
/// then it is another question, paid for from the same block, and no old answer stands for new rows. `before`: names
/// of the questions that are answered before it, whose answers it may read. `None`: the plan cannot be named.
pub(crate) fn id(
    leaf: &Leaf,
    rows: &LogicalPlan,
    plan: &Plan,
    blocks: &[Block],
    listed: Option<&[ArrayRef]>,
    before: &[String],
) -> Option<String> {
    let mut text = format!("question 3\n{:?}\n{:?}\n{:?}\n{plan:?}\n", leaf.table.dataset, leaf.spec, leaf.outputs);
    describe(rows, before, &mut text).ok()?;
    // What a measure's numbers are made of is not in the plan.
    for (name, measure) in
        leaf.table.questions.measures.iter().filter(|(_, measure)| (&measure.column, measure.times) != (&None, None))
    {
        let _written = writeln!(text, "{name:?} is {:?} times {:?}", measure.column, measure.times);
    }
    for block in blocks {
        let _written = writeln!(text, "{} {}", block.epoch.0, block.version());
    }
    let _written = writeln!(text, "{}", listed.is_some());
    let mut hasher = blake3::Hasher::new();
    hasher.update(text.as_bytes());
    for column in listed.unwrap_or_default() {
        // Lists are part of the question: a country that is added later makes another one.
        hasher.update(&(column.len() as u64).to_le_bytes());
        let data = column.to_data();
        hasher.update(format!("{:?}", data.data_type()).as_bytes());
        for at in 0..column.len() {
            let value = arrow::util::display::array_value_to_string(column, at).ok()?;
            hasher.update(&(value.len() as u64).to_le_bytes());
            hasher.update(&[u8::from(column.is_null(at))]);
            hasher.update(value.as_bytes());
        }
    }
    Some(hasher.finalize().to_hex().chars().take(32).collect())
}

/// Writes a plan out so that no two that mean different things give one text.
fn describe(plan: &LogicalPlan, before: &[String], text: &mut String) -> Result<()> {
    let mut failed = false;
    plan.apply_with_subqueries(|node| {
        let fields: Vec<_> =
            node.schema().iter().map(|(table, field)| (table, field.name(), field.data_type(), field.is_nullable())).collect();
        let _written = writeln!(text, "{:?} {} {fields:?}", discriminant(node), node.inputs().len());
        match node {
            LogicalPlan::TableScan(scan) => {
                let _written = writeln!(text, "{:?} {:?} {:?}", scan.table_name, scan.projection, scan.fetch);
                failed |= !contents(scan, before, text);
            }
            LogicalPlan::Join(join) => {
                let _written =
                    writeln!(text, "{:?} {:?} {} {}", join.join_type, join.null_equality, join.null_aware, join.on.len());
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let _written = writeln!(text, "{:?}", alias.alias);
            }
            LogicalPlan::EmptyRelation(empty) => {
                let _written = writeln!(text, "{}", empty.produce_one_row);
            }
            LogicalPlan::Values(values) => {
                let _written = writeln!(text, "{}", values.values.len());
            }
            _ => {}
        }
        node.apply_expressions(|expression| {
            let _written = writeln!(text, "{}", written(expression)?);
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    if failed { datafusion::common::plan_err!("a table whose rows are not known") } else { Ok(()) }
}

/// What the rows of a table depend on. `false`: nobody knows.
fn contents(scan: &datafusion::logical_expr::TableScan, before: &[String], text: &mut String) -> bool {
    if protected(&scan.source).is_some() {
        return true;
    }
    let Ok(table) = source_as_provider(&scan.source) else { return false };
    if table.is::<Noisy>() && scan.table_name.schema() == Some(PRIVATE) {
        let number = scan.table_name.table().strip_prefix("answer ").and_then(|number| number.parse::<usize>().ok());
        let Some(id) = number.and_then(|number| before.get(number)) else { return false };
        let _written = writeln!(text, "answer {id}");
        return true;
    }
    // A release never changes: its metric and its days say which rows there are.
    table.downcast_ref::<Released>().is_some_and(|released| {
        let _written = writeln!(text, "days {:?}", released.days());
        true
    })
}

/// An expression with the literals and columns taken out of the text and put after it, each with its length.
fn written(expression: &Expr) -> Result<String> {
    let mut taken = Vec::new();
    let mark = |taken: &mut Vec<String>, what: String| {
        taken.push(what);
        Expr::Column(Column::new_unqualified(format!("_{}", taken.len())))
    };
    let marked = expression.clone().transform_up(|part| {
        Ok(match part {
            Expr::Literal(value, _) => {
                let what = format!("{:?} {} {value}", value.data_type(), value.is_null());
                Transformed::yes(mark(&mut taken, what))
            }
            Expr::Column(column) => Transformed::yes(mark(&mut taken, format!("{:?} {:?}", column.relation, column.name))),
            Expr::OuterReferenceColumn(_, column) => {
                Transformed::yes(mark(&mut taken, format!("outer {:?} {:?}", column.relation, column.name)))
            }
            // Names given to columns are in the schema.
            Expr::Alias(alias) => Transformed::yes(*alias.expr),
            other => Transformed::no(other),
        })
    })?;
    let mut text = marked.data.to_string();
    for what in taken {
        let _written = write!(text, " {} {what}", what.len());
    }
    Ok(text)
}
