//! What a statement's questions cost, before anything is read: blocks, groups, noise, thresholds. Everything here is made of public facts, which
//! `EXPLAIN PRIVACY` shows.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Date32Array, Int64Array, RecordBatch, StringArray};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Date32Type, Field, Int64Type, Schema};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::execution::TaskContext;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_plan::collect;
use starling_privacy::epsilon;
use starling_privacy::question::{Beside, MOST_GROUPS, Plan, plan_with};
use starling_schemas::cost::AttoDelta;
use starling_schemas::ids::EpochId;
use starling_schemas::metrics::{Dataset, NanoRho};

use super::leaf::{Leaf, listed_columns, on_the_block};
use super::refusals::below;
use super::settings::{Groups, Settings};
use super::table::{DAY, HOUR, Role};
use super::vault::{Block, Vault};
use crate::error::{QueryError, TOO_MUCH, from_planning};

/// Combinations of listed values that are looked at to list a question's groups.
const COMBINATIONS: usize = 1 << 18;

/// Groups that a question lists by itself; beyond, they are discovered unless the statement says otherwise.
const LISTED_UNASKED: usize = 50_000;

/// A question with its price.
#[derive(Debug)]
pub(crate) struct Priced {
    pub(crate) leaf: Leaf,
    pub(crate) blocks: Vec<Block>,
    /// The groups' keys, a column each, where they are listed.
    pub(crate) listed: Option<Vec<ArrayRef>>,
    pub(crate) plan: Plan,
    /// The private part as it will run, optimised, over the table that cannot be read.
    pub(crate) rows: LogicalPlan,
    /// Names the question: its text in normal form, bounds, budget and blocks, hashed.
    pub(crate) id: String,
}

impl Priced {
    /// Its name in the ledger.
    pub(crate) fn question(&self) -> String {
        format!("sql:{}", self.id)
    }
}

/// Prices the leaves of a statement, which share its budget.
///
/// # Errors
/// What cannot be asked, with what to write instead.
pub(crate) async fn price(
    leaves: Vec<Leaf>,
    settings: &Settings,
    vault: &Vault,
    state: &SessionState,
    literals: &[String],
) -> Result<Vec<Priced>, QueryError> {
    let mut priced = Vec::with_capacity(leaves.len());
    let shares = i64::try_from(leaves.len()).unwrap_or(i64::MAX);
    for leaf in leaves {
        let (dataset, questions) = vault.dataset(&leaf.table.dataset)?;
        let whole = budget(settings, dataset, questions.rho())?;
        let rho = NanoRho(whole.0 / shares.max(1));
        let blocks = blocks(&leaf, vault, state, literals).await?;
        hours_apart(&leaf, &blocks)?;
        // Names that the optimiser makes up must not depend on what it did before, or a question would get another name each time.
        let mut state = state.clone();
        state.execution_props_mut().alias_generator = Arc::default();
        let state = &state;
        let before: Vec<String> = priced.iter().map(|question: &Priced| question.id.clone()).collect();
        priced.push(one(leaf, settings, dataset, rho, shares, blocks, &before, state, literals).await?);
    }
    if settings.other && !priced.iter().any(|question| question.leaf.spec.discovered) {
        return Err(below(
            "a row of groups that are left out, where none is left out, is",
            "leave other out, or add groups = 'discovered' to a statement with GROUP BY: where groups are listed each has its row",
        ));
    }
    Ok(priced)
}

/// Prices one leaf over blocks that are known.
///
/// # Errors
/// What cannot be asked, with what to write instead.
#[allow(clippy::too_many_arguments)]
pub(crate) async fn one(
    mut leaf: Leaf,
    settings: &Settings,
    dataset: &Dataset,
    rho: NanoRho,
    shares: i64,
    blocks: Vec<Block>,
    before: &[String],
    state: &SessionState,
    literals: &[String],
) -> Result<Priced, QueryError> {
    let listed = match (settings.groups, leaf.keys.is_empty()) {
        (_, true) | (Some(Groups::Discovered), false) => None,
        (asked, false) => {
            let groups = listing(&leaf, &blocks, state, literals).await?;
            match (groups, asked) {
                (Some(groups), Some(Groups::Listed)) => Some(groups),
                (Some(groups), _) if groups.first().is_none_or(|column| column.len() <= LISTED_UNASKED) => Some(groups),
                (None, Some(Groups::Listed)) => {
                    return Err(below(
                        "listing these groups is",
                        "group by columns whose values are public (meta.columns says which), or leave groups = 'listed' out",
                    ));
                }
                _ => None,
            }
        }
    };
    if let Some(groups) = &listed {
        leaf.spec.groups_per_person = leaf.spec.groups_per_person.min(most_of_one_block(&leaf, groups));
    }
    leaf.spec.discovered = !leaf.keys.is_empty() && listed.is_none();
    if leaf.spec.discovered && leaf.spec.people().is_none() {
        leaf.spec.aggregates.push(starling_privacy::question::Aggregate::PEOPLE);
    }
    let delta = if leaf.spec.discovered { threshold_delta(settings, dataset)? } else { 0.0 };
    // In the ledger's own parts, so that what is charged is what is spent.
    let delta = AttoDelta(AttoDelta::stated(delta).0 / shares.max(1)).delta();
    // A set of keys of a ROLLUP that has no keys, or listed ones, leaves nothing out.
    let beside = Beside { other: settings.other && leaf.spec.discovered, bias: settings.bias };
    let plan = plan_with(&leaf.spec, rho, delta, beside).map_err(|error| below("this question is", &error.to_string()))?;
    let rows = state.optimize(&leaf.rows).map_err(|error| from_planning(&error, literals))?;
    super::intact::check(&rows)?;
    super::total::check(&rows)?;
    let id = super::identity::id(&leaf, &rows, &plan, &blocks, listed.as_deref(), before).ok_or_else(|| {
        below(
            "a table whose rows change by themselves, such as meta.*, is",
            "join stats.*, VALUES, or the answer to another question",
        )
    })?;
    Ok(Priced { leaf, blocks, listed, plan, rows, id })
}

/// Refuses to add hours together: somebody who is awake in 24 of them would move such a number 24 times as far as its noise is made for, and so lose
/// 24² times what an hour is charged. What is drawn for each hour may be added up afterwards.
fn hours_apart(leaf: &Leaf, blocks: &[Block]) -> Result<(), QueryError> {
    let hours: Vec<EpochId> = blocks.iter().map(|block| block.epoch).filter(|epoch| epoch.is_hour()).collect();
    let differ = |of: &dyn Fn(EpochId) -> i32| hours.windows(2).any(|two| of(two[0]) != of(two[1]));
    let is_key = |name: &str| {
        let is_it = |key: &Option<Expr>| matches!(key, Some(Expr::Column(column)) if column.name == name);
        leaf.table.is_of_the_block(name) && leaf.keys.iter().any(is_it)
    };
    let (days, times) = (differ(&|hour| hour.day().0), differ(&|hour| hour.hour().map_or(0, i32::from)));
    if (days && !is_key(DAY)) || (times && !is_key(HOUR)) {
        return Err(below(
            "adding hours together is",
            "GROUP BY day, hour and add the numbers up in a query around it, or ask about one hour: WHERE day = DATE '…' AND hour = …",
        ));
    }
    Ok(())
}

/// How many of the listed groups one person's rows can be in: those of one block, where its day or hour is among the keys.
fn most_of_one_block(leaf: &Leaf, groups: &[ArrayRef]) -> u32 {
    let all = groups.first().map_or(0, |column| column.len());
    let key = |name: &str| {
        let at = leaf.keys.iter().position(|key| matches!(key, Some(Expr::Column(column)) if column.name == name))?;
        groups.get(at).filter(|_| leaf.table.is_of_the_block(name))
    };
    let days = key(DAY).and_then(|days| days.as_primitive_opt::<Date32Type>());
    let hours = key(HOUR).and_then(|hours| hours.as_primitive_opt::<Int64Type>());
    let most = if days.is_none() && hours.is_none() {
        all
    } else {
        let of = |row: usize| (days.map(|days| days.value(row)), hours.map(|hours| hours.value(row)));
        let mut sorted: Vec<_> = (0..all).map(of).collect();
        sorted.sort_unstable();
        sorted.chunk_by(|a, b| a == b).map(<[_]>::len).max().unwrap_or(0)
    };
    u32::try_from(most).unwrap_or(u32::MAX).max(1)
}

/// ρ of the whole statement.
fn budget(settings: &Settings, dataset: &Dataset, unasked: NanoRho) -> Result<NanoRho, QueryError> {
    let rho = match (settings.rho, settings.epsilon) {
        (Some(rho), _) => NanoRho::cost(rho),
        (None, Some(asked)) => rho_within(asked, dataset.delta),
        (None, None) => unasked,
    };
    if rho.0 < 1000 {
        return Err(QueryError::new(TOO_MUCH, "this budget is too small for any answer", "ask for epsilon = 0.001 or more"));
    }
    if rho > dataset.limit() {
        return Err(QueryError::new(
            TOO_MUCH,
            format!(
                "the statement would cost rho {} and a block of this dataset may spend {} in all",
                rho.rho(),
                dataset.limit().rho()
            ),
            "ask for less, with SETTINGS epsilon = …; meta.budget shows what is left",
        ));
    }
    Ok(rho)
}

/// The largest ρ whose ε at `delta` is not above `most`.
pub(crate) fn rho_within(most: f64, delta: f64) -> NanoRho {
    let (mut inside, mut outside) = (0_i64, 1_i64);
    while outside < 1_000_000_000_000 && epsilon(NanoRho(outside), delta) <= most {
        inside = outside;
        outside *= 2;
    }
    while inside + 1 < outside {
        let middle = inside.midpoint(outside);
        if epsilon(NanoRho(middle), delta) <= most { inside = middle } else { outside = middle }
    }
    NanoRho(inside)
}

fn threshold_delta(settings: &Settings, dataset: &Dataset) -> Result<f64, QueryError> {
    let own = dataset.questions.as_ref().map_or(0.0, |questions| questions.threshold_delta);
    if own <= 0.0 {
        return Err(below(
            "discovering groups is",
            "this dataset allows no delta for it; group by columns whose values are public (meta.columns says which)",
        ));
    }
    match settings.delta {
        Some(asked) if asked > own => Err(QueryError::new(
            TOO_MUCH,
            format!("a question of this dataset may spend a delta of {own:e} at most"),
            "leave delta out, or ask for less",
        )),
        Some(asked) => Ok(asked),
        None => Ok(own),
    }
}

/// What the columns of the blocks hold that are named so, a row for each block.
fn of_blocks(blocks: &[Block], name: &str) -> ArrayRef {
    let epochs = blocks.iter().map(|block| block.epoch);
    match name {
        HOUR => Arc::new(epochs.map(|epoch| epoch.hour().map(i64::from)).collect::<Int64Array>()),
        _ => Arc::new(Date32Array::from_iter_values(epochs.map(|epoch| epoch.day().0))),
    }
}

/// The blocks whose day, and hour, the statement's conditions let through.
async fn blocks(leaf: &Leaf, vault: &Vault, state: &SessionState, literals: &[String]) -> Result<Vec<Block>, QueryError> {
    let all = vault.blocks(&leaf.table.dataset).await?;
    let conditions = on_the_block(leaf);
    let kept = if conditions.is_empty() {
        all
    } else {
        let names: Vec<&str> = [DAY, HOUR].into_iter().filter(|name| leaf.table.is_of_the_block(name)).collect();
        let batch = RecordBatch::try_from_iter(names.iter().map(|name| (*name, of_blocks(&all, name))))
            .map_err(|_| below("this condition is", "compare day with dates"))?;
        let keys = names.iter().map(|name| datafusion::logical_expr::col(*name)).collect();
        let kept = universe(batch, conditions, keys, state, literals).await?;
        let days = kept.first().and_then(|days| days.as_primitive_opt::<Date32Type>());
        let hours = kept.get(1).and_then(|hours| hours.as_primitive_opt::<Int64Type>());
        let of = |(row, day): (usize, i32)| (day, hours.map(|hours| hours.value(row)));
        let kept: BTreeSet<_> = days.into_iter().flat_map(|days| days.values().iter().copied().enumerate().map(of)).collect();
        let is_kept = |block: &Block| kept.contains(&(block.epoch.day().0, block.epoch.hour().map(i64::from)));
        all.into_iter().filter(is_kept).collect()
    };
    if kept.is_empty() {
        return Err(QueryError::new(
            crate::error::UNREADABLE,
            "no closed day that can still be read meets the conditions",
            "`starling status` shows the days; a day is asked about when it has closed, and until its rows expire",
        ));
    }
    Ok(kept)
}

/// All combinations of the keys that the columns' public lists can give under the statement's conditions; `None` where they are not public.
async fn listing(
    leaf: &Leaf,
    blocks: &[Block],
    state: &SessionState,
    literals: &[String],
) -> Result<Option<Vec<ArrayRef>>, QueryError> {
    let Some(names) = listed_columns(leaf) else { return Ok(None) };
    // What goes through its values together: the columns of the blocks do, since not every hour is of every day.
    let mut lists: Vec<Vec<(String, ArrayRef)>> = vec![Vec::new()];
    for name in names {
        match leaf.table.role(&name) {
            Some(Role::Day | Role::Hour) => {
                let values = of_blocks(blocks, &name);
                lists.iter_mut().take(1).for_each(|list| list.push((name.clone(), Arc::clone(&values))));
            }
            Some(Role::Dimension(Some(values))) => {
                lists.push(vec![(name, Arc::new(StringArray::from_iter_values(values.iter())))]);
            }
            _ => return Ok(None),
        }
    }
    lists.retain(|list| !list.is_empty());
    let length = |list: &[(String, ArrayRef)]| list.first().map_or(0, |(_, values)| values.len());
    let combinations = lists.iter().try_fold(1_usize, |n, list| n.checked_mul(length(list)));
    let Some(combinations) = combinations.filter(|n| *n <= COMBINATIONS) else { return Ok(None) };
    let mut fields = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    let mut stride = 1;
    let too_many = || below("listing these groups is", "group by fewer columns");
    for list in &lists {
        let length = length(list);
        let at = (0..combinations).map(|row| u32::try_from(row / stride % length).unwrap_or(0));
        let at = arrow::array::UInt32Array::from_iter_values(at);
        for (name, values) in list {
            let column = arrow::compute::take(values, &at, None).map_err(|_| too_many())?;
            // The same type as in the table, so that the same expressions mean the same.
            let kind = leaf.table.schema.field_with_name(name).map_or(DataType::Utf8, |field| field.data_type().clone());
            columns.push(cast(&column, &kind).map_err(|_| too_many())?);
            fields.push(Field::new(name, kind, false));
        }
        stride *= length;
    }
    let batch = RecordBatch::try_new_with_options(
        Arc::new(Schema::new(fields)),
        columns,
        &arrow::array::RecordBatchOptions::new().with_row_count(Some(combinations)),
    );
    let batch = batch.map_err(|_| too_many())?;
    let known = |condition: &&Expr| {
        condition.column_refs().iter().all(|column| lists.iter().flatten().any(|(name, _)| *name == column.name))
    };
    let conditions: Vec<Expr> = leaf.conditions.iter().filter(known).cloned().collect();
    let keys: Option<Vec<Expr>> = leaf.keys.iter().cloned().collect();
    let Some(keys) = keys else { return Ok(None) };
    let found = universe(batch, conditions, keys, state, literals).await?;
    if found.first().is_some_and(|column| column.len() > MOST_GROUPS) {
        return Ok(None);
    }
    Ok(Some(found))
}

/// The distinct keys of some rows that are public, under conditions.
async fn universe(
    rows: RecordBatch,
    conditions: Vec<Expr>,
    keys: Vec<Expr>,
    state: &SessionState,
    literals: &[String],
) -> Result<Vec<ArrayRef>, QueryError> {
    let failed = |error: datafusion::error::DataFusionError| from_planning(&error, literals);
    let table = MemTable::try_new(rows.schema(), vec![vec![rows]]).map_err(failed)?;
    let mut builder = LogicalPlanBuilder::scan("lists", provider_as_source(Arc::new(table)), None).map_err(failed)?;
    for condition in conditions {
        builder = builder.filter(condition).map_err(failed)?;
    }
    let names: Vec<Expr> = keys.into_iter().enumerate().map(|(at, key)| key.alias(format!("k{at}"))).collect();
    let sorted: Vec<_> = (0..names.len()).map(|at| datafusion::logical_expr::col(format!("k{at}")).sort(true, false)).collect();
    let plan = builder
        .project(names)
        .and_then(LogicalPlanBuilder::distinct)
        .and_then(|b| b.sort(sorted))
        .and_then(LogicalPlanBuilder::build);
    let optimised = state.optimize(&plan.map_err(failed)?).map_err(failed)?;
    super::total::check(&optimised)?;
    let physical = state.query_planner().create_physical_plan(&optimised, state).await.map_err(failed)?;
    let schema = physical.schema();
    let context = Arc::new(TaskContext::from(state));
    let batches = collect(physical, context).await.map_err(|error| crate::error::from_execution(&error))?;
    let all = concat_batches(&schema, &batches).map_err(|error| crate::error::from_execution(&error.into()))?;
    Ok(all.columns().to_vec())
}
