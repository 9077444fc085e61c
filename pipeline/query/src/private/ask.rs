//! Answers priced questions: stored answer, or charge, audit entry, rows, noise, file, in this order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, new_null_array};
use arrow::compute::{cast, concat};
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use datafusion::common::tree_node::Transformed;
use datafusion::datasource::provider_as_source;
use datafusion::execution::TaskContext;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use datafusion::parquet::basic::{Compression, ZstdLevel};
use datafusion::parquet::file::metadata::KeyValue;
use datafusion::parquet::file::properties::WriterProperties;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use futures::StreamExt;
use serde_json::json;
use starling_privacy::question::{Answer, Asked, Bias, Blur, Order};
use starling_privacy::{Charge, Decision, Ledger, Noise, PrivacyError, Z};
use starling_schemas::cost::{AttoDelta, Cost};
use starling_schemas::metrics::NanoRho;
use starling_store::{AnswerRecord, ChargeRequest, Spender};

use super::leaf::{COMPANIONS, Output};
use super::price::Priced;
use super::table::{Protected, Rows, protected};
use super::vault::Vault;
use crate::catalogue::unreadable;
use crate::error::{CORRUPTED, INTERNAL, NOT_PERMITTED, OUT_OF_MEMORY, OVER_BUDGET, QueryError, from_execution, from_planning};
use crate::limits::Limits;
use crate::watching::{Progress, Watch};

/// What answering one question cost.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Paid {
    /// ρ charged to each block; zero where the answer was there.
    pub(crate) rho: NanoRho,
    pub(crate) delta: f64,
    pub(crate) blocks: usize,
    pub(crate) incomplete: usize,
    /// How much the bounds cut off, where that was asked.
    pub(crate) bias: Option<Bias>,
}

/// Who asks, of what, and when.
#[derive(Clone, Copy)]
pub(crate) struct Asking<'a> {
    pub(crate) vault: &'a Vault,
    /// The session that reads rows.
    pub(crate) state: &'a SessionState,
    /// Who pays.
    pub(crate) team: &'a str,
    pub(crate) now_ms: i64,
    /// Literals of the statement, which must not be in any error.
    pub(crate) literals: &'a [String],
    watch: Option<&'a Watch>,
    /// Is set before the ledger is asked, and taken back where it refuses.
    charged: &'a AtomicBool,
    /// Bytes of rows that wait to be bounded, at most.
    waiting_bytes: usize,
    /// Which of the statement's questions, from 1, of how many.
    number: (usize, usize),
}

impl<'a> Asking<'a> {
    pub(crate) const fn of(
        vault: &'a Vault,
        state: &'a SessionState,
        team: &'a str,
        now_ms: i64,
        literals: &'a [String],
        (watch, charged): (Option<&'a Watch>, &'a AtomicBool),
        limits: &Limits,
    ) -> Self {
        Self { vault, state, team, now_ms, literals, watch, charged, waiting_bytes: limits.waiting_bytes, number: (1, 1) }
    }

    /// The same, of this one of the statement's questions.
    pub(crate) const fn at(self, question: usize, of: usize) -> Self {
        Self { number: (question, of), ..self }
    }

    fn tell(&self, read: usize, blocks: usize) {
        if let Some(watch) = self.watch {
            watch(Progress { question: self.number.0, questions: self.number.1, read, blocks });
        }
    }
}

/// Answers a question, and puts its table in the statement's plan.
///
/// # Privacy
/// The ledger is charged for every block before a row is read, and never refunded; noise is drawn once, and the answer's file is created, never
/// replaced. The same question over the same blocks is the same file: it costs nothing, and tells nothing more.
///
/// # Errors
/// [`OVER_BUDGET`] when the budget does not hold it, with what is left; what joins make too many rows of, before it is charged.
pub(crate) async fn answer(priced: &Priced, asking: Asking<'_>) -> Result<Paid, QueryError> {
    let (rows, paid) = obtain(priced, asking, &priced.leaf.schema, |drawn| table(priced, drawn)).await?;
    priced.leaf.noisy.fill(rows);
    Ok(paid)
}

/// The stored answer to a question, or a new one, as a table of this schema.
pub(super) async fn obtain(
    priced: &Priced,
    asking: Asking<'_>,
    schema: &SchemaRef,
    table: impl Fn(&Answer) -> Result<RecordBatch, QueryError>,
) -> Result<(RecordBatch, Paid), QueryError> {
    let Asking { vault, state, now_ms, literals, .. } = asking;
    let path = format!("answers/{}.parquet", priced.id);
    let incomplete = priced.blocks.iter().filter(|block| !block.complete).count();
    if let Some(bytes) = vault.files.get(&path).await.map_err(|error| unreadable(&error))? {
        recorded(priced, vault, &path, &bytes, now_ms).await?;
        let (table, bias) = decode(priced, schema, bytes)?;
        return Ok((table, Paid { rho: NanoRho(0), delta: 0.0, blocks: priced.blocks.len(), incomplete, bias }));
    }
    super::fanout::check(&priced.rows, state, literals).await?;
    let charge = charge(priced, asking).await?;
    let days: Vec<String> = priced.blocks.iter().map(|block| block.epoch.to_string()).collect();
    let detail = json!({
        "question": priced.id, "dataset": priced.leaf.table.dataset.as_ref(), "blocks": days, "nano_rho": priced.plan.rho.0,
        "delta": priced.plan.delta,
    });
    vault.metastore.append_audit("private_question", detail, now_ms).await.map_err(|error| unreadable(&error))?;

    let rows = vault.rows(&priced.leaf.table, &priced.blocks, state).await?;
    let step = |read, blocks| asking.tell(read, blocks);
    let reading = Reading { waiting_bytes: asking.waiting_bytes, again: true, step: &step };
    let asked = read_watched(priced, &rows, state, literals, reading).await?;
    let plan = priced.plan.clone();
    let drawn = tokio::task::spawn_blocking(move || charge.draw(asked, &plan)).await;
    let drawn = drawn.map_err(|_| PrivacyError::NotDrawn).and_then(|answer| answer).map_err(|error| failed(&error))?;
    let table = table(&drawn)?;
    let bytes = encode(priced, &table, drawn.bias.as_ref())?;
    let first = vault.files.put_new(&path, bytes.clone()).await.map_err(|error| unreadable(&error))?;
    // Somebody may have asked the same at the same moment: one answer for both.
    let bytes =
        if first { bytes } else { vault.files.get(&path).await.map_err(|error| unreadable(&error))?.ok_or_else(internal)? };
    recorded(priced, vault, &path, &bytes, now_ms).await?;
    let (table, bias) = if first { (table, drawn.bias) } else { decode(priced, schema, bytes)? };
    Ok((table, Paid { rho: priced.plan.rho, delta: priced.plan.delta, blocks: priced.blocks.len(), incomplete, bias }))
}

/// Records the answer whose file is in place, unless it is recorded; a file that is not the one that was, or that nobody has paid for, is not
/// served.
async fn recorded(priced: &Priced, vault: &Vault, path: &str, bytes: &Bytes, now_ms: i64) -> Result<(), QueryError> {
    let question = priced.question();
    let blake3 = blake3::hash(bytes).to_hex().to_string();
    let known = vault.metastore.answer(&question).await.map_err(|error| unreadable(&error))?;
    let stands = match known {
        Some(record) => record,
        None => {
            let record = AnswerRecord { question, path: path.to_owned(), blake3: blake3.clone(), answered_ms: now_ms };
            vault.metastore.record_answer(&record).await.map_err(|error| unreadable(&error))?
        }
    };
    if stands.blake3 == blake3 { Ok(()) } else { Err(changed()) }
}

fn changed() -> QueryError {
    QueryError::new(
        CORRUPTED,
        "the stored answer to this question is not the one that was given",
        "restore it from a backup: an answer is written once, and cannot be drawn again for free",
    )
}

fn internal() -> QueryError {
    QueryError::new(INTERNAL, "the engine failed on this statement", "write it in another way, and report this")
}

fn failed(error: &PrivacyError) -> QueryError {
    tracing::error!(%error, "a question could not be answered");
    QueryError::new(INTERNAL, "the question could not be answered", format!("{error}"))
}

/// Charges every block, all of them or none.
async fn charge(priced: &Priced, asking: Asking<'_>) -> Result<Charge, QueryError> {
    let Asking { vault, team, now_ms, charged, .. } = asking;
    let name = &priced.leaf.table.dataset;
    let (dataset, _) = vault.dataset(name)?;
    let allotment = dataset.allotment(team).ok_or_else(|| {
        let teams: Vec<&str> = dataset.allotments().map(|(team, _)| team).collect();
        QueryError::new(
            NOT_PERMITTED,
            format!("this team has no allotment of private.{name}"),
            format!("the teams that have one are: {}", if teams.is_empty() { "none".to_owned() } else { teams.join(", ") }),
        )
    })?;
    let request = ChargeRequest {
        dataset: name.to_string(),
        epochs: priced.blocks.iter().map(|block| block.epoch).collect(),
        question: priced.question(),
        cost: Cost { rho: priced.plan.rho, delta: AttoDelta::stated(priced.plan.delta) },
        limits: dataset.limits(),
        spender: Spender::Team { name: team.to_owned(), allotment },
        now_ms,
    };
    let before = charged.swap(true, Ordering::Relaxed);
    match Ledger::new(Arc::clone(&vault.metastore)).charge(request).await.map_err(|error| failed(&error))? {
        Decision::Granted(charge) => Ok(charge),
        Decision::Refused(refusal) => {
            charged.store(before, Ordering::Relaxed);
            Err(QueryError::new(
                OVER_BUDGET,
                format!("the question costs rho {}, and private.{name} does not hold it: {refusal}", priced.plan.rho.rho()),
                "ask about other days, or for less with SETTINGS epsilon = …; what was answered before costs nothing, and meta.allotments tells what is left",
            ))
        }
    }
}

/// The same plan, over rows that can be read.
fn readable(priced: &Priced, rows: &Rows) -> Result<LogicalPlan, QueryError> {
    let replaced = priced.rows.clone().transform_up_with_subqueries(|node| match node {
        LogicalPlan::TableScan(mut scan) => {
            if let Some(table) = protected(&scan.source) {
                scan.source = provider_as_source(Arc::new(Protected { rows: Some(rows.clone()), ..table }));
                return Ok(Transformed::yes(LogicalPlan::TableScan(scan)));
            }
            Ok(Transformed::no(LogicalPlan::TableScan(scan)))
        }
        other => Ok(Transformed::no(other)),
    });
    replaced.map(|plan| plan.data).map_err(|_| internal())
}

/// Operators that hand rows on in the order they come.
const IN_ORDER: &[&str] = &["ProjectionExec", "FilterExec", "StreamingTableExec", "CooperativeExec", "CoalesceBatchesExec"];

fn keeps_order(plan: &Arc<dyn ExecutionPlan>) -> bool {
    IN_ORDER.contains(&plan.name()) && plan.children().into_iter().all(keeps_order)
}

/// Reads the rows of a question, and bounds and adds them up.
///
/// # Privacy
/// The caller has charged every block of the rows.
pub(crate) async fn read(priced: &Priced, rows: &Rows, state: &SessionState, literals: &[String]) -> Result<Asked, QueryError> {
    let once = Reading { waiting_bytes: Limits::default().waiting_bytes, again: false, step: &|_, _| () };
    read_watched(priced, rows, state, literals, once).await
}

/// How rows are read.
#[derive(Clone, Copy)]
struct Reading<'a> {
    /// Bytes of rows that wait to be bounded, at most.
    waiting_bytes: usize,
    /// Whether the rows can be read again, where they do not all fit.
    again: bool,
    /// Is told how many blocks were read, of how many.
    step: &'a (dyn Fn(usize, usize) + Sync),
}

async fn read_watched(
    priced: &Priced,
    rows: &Rows,
    state: &SessionState,
    literals: &[String],
    Reading { waiting_bytes, again, step }: Reading<'_>,
) -> Result<Asked, QueryError> {
    let plan = readable(priced, rows)?;
    let mut asked: Option<Asked> = None;
    loop {
        // An operator may keep what it has read, so that a plan is run once.
        let physical =
            state.query_planner().create_physical_plan(&plan, state).await.map_err(|error| from_planning(&error, literals))?;
        let in_order = priced.leaf.table.questions.source.is_none() && keeps_order(&physical);
        let asked = match &mut asked {
            Some(asked) => asked,
            None => {
                let order = if in_order { Order::ByPerson } else { Order::Any };
                let new = Asked::new(priced.leaf.spec.clone(), order, priced.listed.clone()).map_err(|error| failed(&error))?;
                asked.insert(new.beside(priced.plan.beside()).probing(&priced.plan))
            }
        };
        // Parts of a join may wait for each other: only rows in order are read one part after the other.
        let physical =
            if in_order { physical } else { Arc::new(CoalescePartitionsExec::new(physical)) as Arc<dyn ExecutionPlan> };
        let context = Arc::new(TaskContext::from(state));
        let partitions = physical.properties().output_partitioning().partition_count();
        for partition in 0..partitions {
            step(priced.blocks.len() * partition / partitions.max(1), priced.blocks.len());
            let mut stream = physical.execute(partition, Arc::clone(&context)).map_err(|error| from_execution(&error))?;
            asked.next_block().map_err(|error| failed(&error))?;
            while let Some(batch) = stream.next().await {
                let batch = batch.map_err(|error| from_execution(&error))?;
                asked.push(&batch).map_err(|error| failed(&error))?;
                while asked.bytes() > waiting_bytes {
                    if !(again && asked.narrow()) {
                        return Err(QueryError::new(
                            OUT_OF_MEMORY,
                            "the rows of this question do not fit the memory it may use",
                            "ask about fewer rows, or sort the file by person",
                        ));
                    }
                }
            }
        }
        if !asked.next_pass().map_err(|error| failed(&error))? {
            break;
        }
    }
    step(priced.blocks.len(), priced.blocks.len());
    asked.ok_or_else(internal)
}

/// The noisy table as the statement's plan has it.
pub(crate) fn table(priced: &Priced, answer: &Answer) -> Result<RecordBatch, QueryError> {
    let schema = &priced.leaf.schema;
    let mut columns: Vec<ArrayRef> = Vec::new();
    let keys = priced.leaf.spec.keys;
    for at in 0..keys {
        let field = schema.field(at);
        let column = match answer.keys.get(at) {
            Some(column) => cast(column, field.data_type()).map_err(|_| internal())?,
            None => arrow::array::new_empty_array(field.data_type()),
        };
        columns.push(if answer.other.is_some() { with_null(&column)? } else { column });
    }
    let mut bars: Vec<ArrayRef> = Vec::new();
    for (at, output) in priced.leaf.outputs.iter().enumerate() {
        let mut made = make(*output, answer, |at| match priced.plan.blurs.get(at) {
            Some(Blur::Noise { noise, .. }) => Some(*noise),
            _ => None,
        });
        if let Some(other) = &answer.other {
            made.append(make(*output, &of_one(other), |at| priced.plan.other.as_ref()?.get(at)?.map(|added| added.noise)));
        }
        let kind = schema.field(keys + at).data_type();
        let whole: ArrayRef = match &made.whole {
            Some(_) if *output == Output::IsOther => {
                Arc::new((0..made.values.len()).map(|row| Some(row >= answer.groups)).collect::<BooleanArray>())
            }
            Some(values) => Arc::new(values.iter().copied().collect::<Int64Array>()),
            None => Arc::new(made.values.iter().copied().collect::<Float64Array>()),
        };
        columns.push(cast(&whole, kind).map_err(|_| internal())?);
        for bar in [made.stddev, made.low, made.high] {
            bars.push(Arc::new(bar.into_iter().collect::<Float64Array>()));
        }
    }
    debug_assert_eq!(bars.len(), COMPANIONS.len() * priced.leaf.outputs.len());
    columns.extend(bars);
    let options =
        arrow::array::RecordBatchOptions::new().with_row_count(Some(answer.groups + usize::from(answer.other.is_some())));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options).map_err(|_| internal())
}

/// A key column with one value more: NULL, of the row of groups that are left out.
fn with_null(column: &ArrayRef) -> Result<ArrayRef, QueryError> {
    let null = new_null_array(column.data_type(), 1);
    concat(&[column.as_ref(), null.as_ref()]).map_err(|_| internal())
}

/// The totals of groups that are left out, as an answer of one group.
fn of_one(other: &[Option<i64>]) -> Answer {
    let values = other.iter().map(|total| total.iter().copied().collect()).collect();
    Answer { keys: Vec::new(), groups: 1, values, intervals: Vec::new(), other: None, bias: None }
}

/// One aggregate of the statement, by group.
struct Made {
    /// Whole numbers, where it is one total.
    whole: Option<Vec<Option<i64>>>,
    values: Vec<Option<f64>>,
    stddev: Vec<Option<f64>>,
    low: Vec<Option<f64>>,
    high: Vec<Option<f64>>,
}

impl Made {
    /// Puts other groups' after these.
    fn append(&mut self, more: Self) {
        if let (Some(whole), Some(more)) = (&mut self.whole, more.whole) {
            whole.extend(more);
        }
        self.values.extend(more.values);
        self.stddev.extend(more.stddev);
        self.low.extend(more.low);
        self.high.extend(more.high);
    }
}

/// `noise`: of the aggregate at this place, where it is a sum.
#[allow(clippy::cast_precision_loss)]
fn make(output: Output, answer: &Answer, noise: impl Fn(usize) -> Option<Noise>) -> Made {
    let n = answer.groups;
    let total = |at: usize| answer.values.get(at).map_or(&[][..], Vec::as_slice);
    let variance = |at: usize| noise(at).map(Noise::variance);
    let around = |values: Vec<Option<f64>>, stddev: Vec<Option<f64>>| {
        let end = |sign: f64| -> Vec<Option<f64>> {
            values.iter().zip(&stddev).map(|(value, stddev)| Some((*value)? + sign * Z * (*stddev)?)).collect()
        };
        Made { whole: None, low: end(-1.0), high: end(1.0), values, stddev }
    };
    match output {
        Output::One(at) => {
            // Groups that are left out have no quantile together.
            let whole: Vec<Option<i64>> = (0..n).map(|group| total(at).get(group).copied()).collect();
            let values: Vec<Option<f64>> = whole.iter().map(|v| v.map(|v| v as f64)).collect();
            let half = noise(at).map(Noise::half_width);
            let end = |sign: f64| values.iter().map(|value| Some((*value)? + sign * half?)).collect();
            let (low, high) = match answer.intervals.get(at).map_or(&[][..], Vec::as_slice) {
                [] => (end(-1.0), end(1.0)),
                drawn => drawn.iter().map(|(low, high)| (Some(*low as f64), Some(*high as f64))).unzip(),
            };
            Made { whole: Some(whole), low, high, stddev: vec![variance(at).map(f64::sqrt); n], values }
        }
        Output::Mean { sum, count } => {
            let rows = total(sum).iter().zip(total(count));
            let values: Vec<Option<f64>> = rows.clone().map(|(s, c)| (*c > 0).then(|| *s as f64 / *c as f64)).collect();
            let stddev = rows.zip(&values).map(|((_, c), mean)| {
                let (mean, c) = ((*mean)?, *c as f64);
                Some((variance(sum)? + mean * mean * variance(count)?).sqrt() / c)
            });
            let stddev = stddev.collect();
            around(values, stddev)
        }
        Output::Spread { sum, squares, count, sample, root } => {
            let (mut values, mut stddev) = (Vec::with_capacity(n), Vec::with_capacity(n));
            for ((s, q), c) in total(sum).iter().zip(total(squares)).zip(total(count)) {
                let (s, q, c) = (*s as f64, *q as f64, *c as f64);
                let factor = if sample { c / (c - 1.0) } else { 1.0 };
                let spread = (q / c - (s / c).powi(2)) * factor;
                if c <= 1.0 || spread <= 0.0 {
                    values.push(None);
                    stddev.push(None);
                    continue;
                }
                let by = [1.0 / c, -2.0 * s / (c * c), -q / (c * c) + 2.0 * s * s / (c * c * c)];
                let noise = [variance(squares), variance(sum), variance(count)];
                let all: Option<f64> = by.iter().zip(noise).map(|(by, noise)| noise.map(|noise| by * by * noise)).sum();
                let deviation = all.map(|all| all.sqrt() * factor);
                values.push(Some(if root { spread.sqrt() } else { spread }));
                stddev.push(deviation.map(|d| if root { d / (2.0 * spread.sqrt()) } else { d }));
            }
            around(values, stddev)
        }
        Output::IsOther => Made {
            whole: Some(vec![None; n]),
            values: vec![None; n],
            stddev: vec![None; n],
            low: vec![None; n],
            high: vec![None; n],
        },
    }
}

fn encode(priced: &Priced, table: &RecordBatch, bias: Option<&Bias>) -> Result<Bytes, QueryError> {
    let facts = [
        ("question", priced.id.clone()),
        ("dataset", priced.leaf.table.dataset.to_string()),
        ("nano_rho", priced.plan.rho.0.to_string()),
        ("delta", priced.plan.delta.to_string()),
        ("threshold", priced.plan.threshold.map_or(String::new(), |t| t.to_string())),
        ("bias", bias.map_or(String::new(), |bias| json!([bias.parts, bias.people]).to_string())),
    ];
    let facts = facts.into_iter().map(|(key, value)| KeyValue::new(format!("starling.{key}"), value)).collect();
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_created_by("starling".to_owned())
        .set_key_value_metadata(Some(facts))
        .build();
    let written = ArrowWriter::try_new(Vec::new(), table.schema(), Some(properties)).and_then(|mut writer| {
        writer.write(table)?;
        writer.into_inner()
    });
    written.map(Bytes::from).map_err(|_| internal())
}

/// Reads a stored answer back; it must be this question's.
fn decode(priced: &Priced, schema: &SchemaRef, bytes: Bytes) -> Result<(RecordBatch, Option<Bias>), QueryError> {
    let wrong = changed;
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|_| wrong())?;
    let facts = reader.metadata().file_metadata().key_value_metadata();
    let fact = |key: &str| facts?.iter().find(|fact| fact.key == key)?.value.as_deref();
    if fact("starling.question") != Some(&priced.id) {
        return Err(wrong());
    }
    let bias = match (&priced.plan.bias, fact("starling.bias")) {
        (Some(_), Some(text)) => {
            let (parts, people) = serde_json::from_str(text).map_err(|_| wrong())?;
            Some(Bias { parts, people })
        }
        (Some(_), None) => return Err(wrong()),
        (None, _) => None,
    };
    let reader = reader.with_batch_size(1 << 20).build().map_err(|_| wrong())?;
    let batches: Vec<RecordBatch> = reader.collect::<Result<_, _>>().map_err(|_| wrong())?;
    let batches: Result<Vec<RecordBatch>, _> = batches
        .iter()
        .map(|batch| {
            let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| cast(column, field.data_type()));
            let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
            RecordBatch::try_new_with_options(Arc::clone(schema), columns.collect::<Result<_, _>>()?, &options)
        })
        .collect();
    let table = arrow::compute::concat_batches(schema, &batches.map_err(|_| wrong())?).map_err(|_| wrong())?;
    Ok((table, bias))
}
