//! Metrics: reviewed text to a plan with noise in it, through the same planner that questions go through.
//!
//! ```text
//!  schemas/metrics/NAME.toml ─► gate ─► plan ─► split: one leaf over one dataset ─► bars: low, high, stddev       no data
//!                                                  │                                   │
//!                                       price.rs   │ at the metric's ρ, δ and bounds   │ released.rs: the table's columns
//! ```
//!
//! A metric's query names no day: whoever releases it adds the window.

mod price;
mod table;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::DataType;
use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, CatalogProviderList, SchemaProvider, TableProvider};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::TaskContext;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, cast, lit};
use datafusion::physical_plan::collect;
use starling_privacy::question::{Aggregate, Spec};
use starling_schemas::metrics::{Catalogue, Dataset, Metric};
use starling_schemas::rows::COMMENT;

use crate::catalogue::CATALOGUE;
use crate::error::{INTERNAL, NOT_PERMITTED, QueryError, from_execution, from_planning};
use crate::gate::{self, Known};
use crate::limits::Limits;
use crate::private::settings::{Groups, Settings};
use crate::private::table::{DAY, HOUR, PRIVATE, Protected, protected};
use crate::private::vault::{Block, own};
use crate::private::{self, Leaf, Priced, Split, functions};
use crate::rights::Rights;
use crate::session::Sessions;
use crate::written::{CUT, PEOPLE_CUT};

pub use price::{MetricPrice, prices};
pub use table::{AddsUp, MetricColumn, MetricTable, tables};

/// Columns that every released table has beside the metric's own.
const RESERVED: &[&str] = &["day", "hour", "value", "low", "high", "stddev", CUT, PEOPLE_CUT, "status", "epsilon", "delta"];

/// A column that a metric is grouped by.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) name: String,
    pub(crate) comment: String,
}

/// A metric, planned.
#[derive(Debug)]
pub(crate) struct Planned {
    /// The keys as text, then value, low, high and stddev, above the noise.
    pub(crate) above: LogicalPlan,
    pub(crate) keys: Vec<Key>,
    pub(crate) leaf: Leaf,
    settings: Settings,
    pub(crate) literals: Vec<String>,
}

/// Plans metrics. Knows the datasets' columns and no row.
pub(crate) struct Planner {
    pub(crate) sessions: Sessions,
    known: Known,
    limits: Limits,
}

impl Planner {
    /// Over the datasets of a catalogue that are Starling's own.
    ///
    /// # Errors
    /// When the engine cannot be set up.
    pub(crate) fn over(catalogue: &Catalogue) -> Result<Self, QueryError> {
        let limits = Limits::default();
        let tables: BTreeMap<String, Protected> = catalogue
            .datasets
            .iter()
            .filter_map(|(name, dataset)| Some((name, dataset.window, dataset.questions.as_ref()?)))
            .filter(|(.., questions)| questions.source.is_none())
            .map(|(name, span, questions)| (name.clone(), own(name, span, questions)))
            .collect();
        let names = tables.keys().map(|name| (PRIVATE, name.clone())).collect();
        let sessions = Sessions::over(Arc::new(Datasets(Arc::new(tables))), &limits)?;
        let known = Known { tables: names, functions: sessions.functions.clone().into(), rights: Rights::All, picture: None };
        Ok(Self { sessions, known, limits })
    }

    /// Plans a metric. Its noisy table is empty until it was answered, once: whoever asks again plans again.
    ///
    /// # Errors
    /// What of its query cannot be released, and what to write instead.
    pub(crate) async fn plan(&self, metric: &Metric) -> Result<Planned, QueryError> {
        let admitted = gate::admit(&metric.query, &[], &self.known, &self.limits)?;
        let literals = admitted.literals;
        if admitted.settings.is_some() || admitted.explain || admitted.explain_privacy || admitted.suggest {
            return Err(wrong(
                "SETTINGS and EXPLAIN do not belong here",
                "write groups_per_person, rows_per_group, values_per_person and [budget] into the text",
            ));
        }
        let state = &self.sessions.state;
        let plan = state.statement_to_plan(admitted.statement).await.map_err(|error| from_planning(&error, &literals))?;
        let mut settings = settings_of(metric, is_grouped(&plan));
        let Split { plan: noisy, leaves, families } = private::split(plan, &settings)?;
        let mut leaves = leaves.into_iter();
        let (Some(leaf), None, []) = (leaves.next(), leaves.next(), families.as_slice()) else {
            return Err(wrong(
                "its query must aggregate protected rows exactly once",
                "write one SELECT over one dataset, with GROUP BY columns alone",
            ));
        };
        if *leaf.table.dataset != *metric.dataset || scans(&leaf.rows) != 1 {
            return Err(wrong(
                "its query reads another dataset than it names, or reads it twice",
                "write one SELECT over private.<dataset>",
            ));
        }
        gate::check_size(&leaf.rows, &self.limits)?;
        if names_the_day(&leaf.rows) {
            return Err(wrong("its query names the day", "leave it out: a metric is released for each window by itself"));
        }
        let keys = keys(&noisy, &leaf)?;
        let mut leaves = [leaf];
        let above = with_bars(noisy, &keys, &mut leaves)?;
        gate::check_plan(&above, &self.limits)?;
        let [leaf] = leaves;
        // Of a quantile nothing is cut off, and what it would cost makes its interval wider than it has to be.
        let has_quantile = leaf.spec.aggregates.iter().any(|part| matches!(part, Aggregate::Quantile { .. }));
        settings.bias = !has_quantile && can_cut(&leaf.spec);
        Ok(Planned { above, keys, leaf, settings, literals })
    }

    /// Prices a metric over one window. Touches no data.
    ///
    /// # Errors
    /// What cannot be priced: bounds, budget, groups.
    pub(crate) async fn price(
        &self,
        planned: Planned,
        metric: &Metric,
        dataset: &Dataset,
        block: Option<Block>,
    ) -> Result<Measured, QueryError> {
        let Planned { above, keys, leaf, settings, literals } = planned;
        let blocks = block.into_iter().collect();
        let priced =
            private::price_one(leaf, &settings, dataset, metric.rho, 1, blocks, &[], &self.sessions.reading, &literals).await?;
        Ok(Measured { above, keys, priced, literals })
    }
}

/// A metric with its price, ready to be answered.
#[derive(Debug)]
pub(crate) struct Measured {
    above: LogicalPlan,
    pub(crate) keys: Vec<Key>,
    pub(crate) priced: Priced,
    pub(crate) literals: Vec<String>,
}

impl Measured {
    /// Puts the noisy table in and computes what stands above it: keys, value, low, high, stddev.
    ///
    /// # Errors
    /// When an expression above the noise fails on these numbers.
    pub(crate) async fn table(&self, noisy: RecordBatch, sessions: &Sessions) -> Result<RecordBatch, QueryError> {
        self.priced.leaf.noisy.fill(noisy);
        run(&self.above, &sessions.reading, &self.literals).await
    }
}

async fn run(plan: &LogicalPlan, state: &SessionState, literals: &[String]) -> Result<RecordBatch, QueryError> {
    let failed = |error| from_planning(&error, literals);
    let optimised = state.optimize(plan).map_err(failed)?;
    let physical = state.query_planner().create_physical_plan(&optimised, state).await.map_err(failed)?;
    let schema = physical.schema();
    let batches = collect(physical, Arc::new(TaskContext::from(state))).await.map_err(|error| from_execution(&error))?;
    concat_batches(&schema, &batches).map_err(|error| from_execution(&error.into()))
}

fn wrong(reason: &str, hint: &str) -> QueryError {
    QueryError::new(NOT_PERMITTED, reason, hint)
}

/// Whether there is anything that a bound could cut off: not where people are counted once each, in a single group.
pub(crate) fn can_cut(spec: &Spec) -> bool {
    spec.keys > 0 || spec.aggregates.iter().any(|aggregate| *aggregate != Aggregate::PEOPLE)
}

fn settings_of(metric: &Metric, is_grouped: bool) -> Settings {
    let found = metric.threshold_delta > 0.0;
    Settings {
        rho: Some(metric.rho.rho()),
        delta: found.then_some(metric.threshold_delta),
        groups: is_grouped.then_some(if found { Groups::Discovered } else { Groups::Listed }),
        groups_per_person: metric.groups_per_person,
        rows_per_group: metric.rows_per_group,
        values_per_person: metric.values_per_person,
        ..Settings::default()
    }
}

fn is_grouped(plan: &LogicalPlan) -> bool {
    let mut found = false;
    let _walked = plan.apply_with_subqueries(|node| {
        found |= matches!(node, LogicalPlan::Aggregate(aggregate) if !aggregate.group_expr.is_empty());
        Ok(TreeNodeRecursion::Continue)
    });
    found
}

fn scans(plan: &LogicalPlan) -> usize {
    let mut scans = 0;
    let _walked = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            scans += usize::from(protected(&scan.source).is_some());
        }
        Ok(TreeNodeRecursion::Continue)
    });
    scans
}

fn names_the_day(plan: &LogicalPlan) -> bool {
    let mut found = false;
    let _walked = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expression| {
            found |= expression.column_refs().iter().any(|column| [DAY, HOUR].contains(&column.name.as_str()));
            Ok(TreeNodeRecursion::Continue)
        })
    });
    found
}

/// The columns before `value`.
fn keys(plan: &LogicalPlan, leaf: &Leaf) -> Result<Vec<Key>, QueryError> {
    // The noisy table's error bars come along behind the query's own columns where nothing stands above the aggregate.
    let fields: Vec<_> = plan.schema().fields().iter().filter(|field| !field.name().starts_with("dp ")).collect();
    let Some((value, keys)) = fields.split_last() else { return Err(no_value()) };
    if value.name() != "value" || !value.data_type().is_numeric() {
        return Err(no_value());
    }
    let mut out: Vec<Key> = Vec::new();
    for field in keys {
        let name = field.name();
        let kind = match field.data_type() {
            DataType::Dictionary(_, value) => value.as_ref(),
            kind => kind,
        };
        if !matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View) {
            return Err(wrong(
                "a column before value is no text",
                "CAST it AS VARCHAR above the aggregate, or group by its name",
            ));
        }
        let good = !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if !good || RESERVED.contains(&name.as_str()) || out.iter().any(|key| key.name == *name) {
            return Err(wrong(
                "a column before value has a name that it may not have",
                "give each a name of its own with AS, of a-z, 0-9 and _, other than the columns that every released table has",
            ));
        }
        let own = leaf.table.schema.field_with_name(name).ok();
        let comment = own.and_then(|field| field.metadata().get(COMMENT).cloned());
        out.push(Key {
            name: name.clone(),
            comment: comment.unwrap_or_else(|| format!("{}; see its query in meta.metrics", name.replace('_', " "))),
        });
    }
    Ok(out)
}

fn no_value() -> QueryError {
    wrong("the last column of its query is not value", "end the SELECT with the number that is released, AS value")
}

/// Keys as text, the value and its error bars. A quantile has ends and no standard deviation; NULL stands for what there is not.
fn with_bars(plan: LogicalPlan, keys: &[Key], leaves: &mut [Leaf]) -> Result<LogicalPlan, QueryError> {
    let column = |name: &str| {
        let at = plan.schema().fields().iter().position(|field| field.name() == name).unwrap_or_default();
        let (relation, field) = plan.schema().qualified_field(at);
        Expr::Column(datafusion::common::Column::new(relation.cloned(), field.name()))
    };
    let shown = |bars: [Expr; 3]| -> Result<LogicalPlan, QueryError> {
        let [low, high, stddev] = bars;
        let mut shown: Vec<Expr> = keys.iter().map(|key| cast(column(&key.name), DataType::Utf8).alias(&key.name)).collect();
        shown.push(cast(column("value"), DataType::Float64).alias("value"));
        shown.extend([low.alias("low"), high.alias("high"), stddev.alias("stddev")]);
        let plan = LogicalPlanBuilder::from(plan.clone()).project(shown).and_then(LogicalPlanBuilder::build);
        plan.map_err(|_| QueryError::new(INTERNAL, "the engine failed on this metric", "write its query in another way"))
    };
    let bar = |name| functions::call(name, column("value"));
    let none = || cast(lit(datafusion::common::ScalarValue::Null), DataType::Float64);
    let all = [bar(functions::LOW), bar(functions::HIGH), bar(functions::STDDEV)];
    let with = private::replace_bars(shown(all)?, leaves, &[]);
    let has_quantile =
        leaves.iter().flat_map(|leaf| &leaf.spec.aggregates).any(|part| matches!(part, Aggregate::Quantile { .. }));
    match with {
        Err(_) if has_quantile => {
            let ends = shown([bar(functions::LOW), bar(functions::HIGH), none()])?;
            private::replace_bars(ends, leaves, &[]).or_else(|_| shown([none(), none(), none()]))
        }
        other => other,
    }
}

/// The protected tables of one catalogue, and nothing else.
#[derive(Debug, Clone)]
struct Datasets(Arc<BTreeMap<String, Protected>>);

impl CatalogProviderList for Datasets {
    fn register_catalog(&self, _name: String, _catalog: Arc<dyn CatalogProvider>) -> Option<Arc<dyn CatalogProvider>> {
        None
    }

    fn catalog_names(&self) -> Vec<String> {
        vec![CATALOGUE.to_owned()]
    }

    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        (name == CATALOGUE).then(|| Arc::new(self.clone()) as _)
    }
}

impl CatalogProvider for Datasets {
    fn schema_names(&self) -> Vec<String> {
        vec![PRIVATE.to_owned()]
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        (name == PRIVATE).then(|| Arc::new(self.clone()) as _)
    }
}

#[async_trait]
impl SchemaProvider for Datasets {
    fn table_names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    async fn table(&self, name: &str) -> DataFusionResult<Option<Arc<dyn TableProvider>>> {
        Ok(self.0.get(name).map(|table| Arc::new(table.clone()) as _))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

#[cfg(test)]
mod tests;
