//! All segments of a window to one table, in memory that does not depend on the number of people.
//!
//! ```text
//!  segment ─┐
//!  segment ─┼─ StreamingTableExec ── SortPreservingMergeExec ── AggregateExec(Single, Sorted) ── saturate · check order ── TableWriter
//!  run ─────┘  (a partition each,                               GROUP BY the key, SUM as u64     · unpack
//!               sorted by the key, packed)
//! ```
//!
//! Between the ends the key is two columns, the person and the other six packed into one number that sorts like them: comparing two costs less
//! than comparing seven.
//!
//! The plan is built by hand rather than from SQL, because its shape is the promise: the planner could choose a hash aggregation, which
//! would hold every person and spill them in clear text. More inputs than may be open at once are first merged into runs,
//! smallest inputs first, so that the fewest bytes are written twice (a Huffman tree of the fan-in's width).

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, RecordBatch, UInt64Array};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt64Type};
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryPool};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_expr::expressions::{CastExpr, Column};
use datafusion::physical_expr::{LexOrdering, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode, PhysicalGroupBy};
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::{ExecutionPlan, InputOrderMode};
use datafusion::prelude::SessionConfig;
use futures::{StreamExt, TryStreamExt};
use starling_schemas::ids::Span;
use starling_schemas::rows::{PERSON_ROWS, PRESENCE_ROWS, PSEUDONYM_BYTES};
use starling_store::{Files, SecretKey, SegmentRecord, StoreError, TableWriter, faultpoint, read_table};

use crate::AggregateError;
use crate::presence;
use crate::rows::{self, Key, PersonRows};
use crate::spill::Spill;

/// Columns of the packed key, in sort order.
const KEY_COLUMNS: [&str; 2] = ["person", "dimensions"];

/// Person rows within the plan.
static PACKED_ROWS: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("person", DataType::FixedSizeBinary(PSEUDONYM_BYTES), false),
        Field::new("dimensions", DataType::UInt64, false),
        Field::new("events", DataType::UInt32, false),
        Field::new("seconds", DataType::UInt32, false),
    ]))
});

/// Most inputs of one merge: as many files are open at once.
const MAX_FAN_IN: usize = 64;

/// What one open input may need: the encoded pages of a row group, a few decoded batches and their sort keys. `benches/people.rs` saw 15.7 MiB
/// with inputs of full row groups.
const BYTES_PER_INPUT: usize = 16 << 20;

/// Rows of a batch between the operators.
const BATCH_ROWS: usize = 8192;

/// How many inputs fit into this memory; two at least, without which nothing could be merged.
pub(crate) fn fan_in(memory_bytes: usize) -> usize {
    (memory_bytes / BYTES_PER_INPUT).clamp(2, MAX_FAN_IN)
}

/// How many of the smallest inputs to merge into a run first, so that every later merge is full; `None` when one merge takes them all.
fn first_group(inputs: usize, fan_in: usize) -> Option<usize> {
    (inputs > fan_in).then(|| 2 + (inputs - 2) % (fan_in - 1))
}

/// An input of a merge: a segment or a run.
#[derive(Clone)]
struct Input {
    files: Arc<Files>,
    path: String,
    key: Arc<SecretKey>,
    span: Span,
    /// Counts a segment's rows as they are read; a run's are its segments'.
    read: Option<Arc<AtomicU64>>,
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Input").field("path", &self.path).finish_non_exhaustive()
    }
}

impl PartitionStream for Input {
    fn schema(&self) -> &arrow::datatypes::SchemaRef {
        &PACKED_ROWS
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let outside = |e: StoreError| DataFusionError::External(Box::new(e));
        let Self { files, path, key, span, read } = self.clone();
        let batches = futures::stream::once(async move {
            let stream = read_table(&files, &key, &path).await.map_err(outside)?;
            Ok::<_, DataFusionError>(stream.map(move |batch| {
                let batch = batch.map_err(outside)?;
                if let Some(read) = &read {
                    read.fetch_add(u64::try_from(batch.num_rows()).unwrap_or(u64::MAX), Ordering::Relaxed);
                }
                packed(&batch, span).map_err(|e| {
                    DataFusionError::External(Box::new(match e {
                        AggregateError::WrongColumn { column } => AggregateError::OtherVersion { path: path.clone(), column },
                        other => other,
                    }))
                })
            }))
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&PACKED_ROWS), batches.try_flatten()))
    }
}

/// A batch of person rows with its dimensions in one column.
fn packed(batch: &RecordBatch, span: Span) -> Result<RecordBatch, AggregateError> {
    if span != Span::Day {
        return presence::packed(batch, &PACKED_ROWS);
    }
    rows::check_columns(batch)?;
    let dimensions = UInt64Array::from_iter_values(rows::dimensions(batch)?);
    let column = |column| batch.column_by_name(column).cloned().ok_or(AggregateError::WrongColumn { column });
    let columns: Vec<ArrayRef> = vec![column("person")?, Arc::new(dimensions), column("events")?, column("seconds")?];
    RecordBatch::try_new(Arc::clone(&PACKED_ROWS), columns).map_err(|_| AggregateError::Rows)
}

/// What a merge wrote.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Merged {
    /// Sum of the `events` counters; 0 of all windows but a day.
    pub(crate) events: u64,
    /// Rows of the segments.
    pub(crate) read: u64,
    /// Whether a counter stands at its maximum, so that `events` is a lower bound.
    pub(crate) saturated: bool,
}

/// Merges tables of person rows within bounds of memory.
pub(crate) struct Merger {
    key: Arc<SecretKey>,
    span: Span,
    environment: Arc<RuntimeEnv>,
    memory_bytes: usize,
}

impl Merger {
    /// `key` opens all inputs and encrypts runs and result; `span` says what rows they hold.
    pub(crate) fn new(key: Arc<SecretKey>, span: Span, memory_bytes: usize) -> Result<Self, AggregateError> {
        Self::with_pool(key, span, memory_bytes, Arc::new(GreedyMemoryPool::new(memory_bytes)))
    }

    fn with_pool(
        key: Arc<SecretKey>,
        span: Span,
        memory_bytes: usize,
        pool: Arc<dyn MemoryPool>,
    ) -> Result<Self, AggregateError> {
        let environment = RuntimeEnvBuilder::new()
            .with_memory_pool(pool)
            // DataFusion's own spill files would be in clear text.
            .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
            .build_arc()
            .map_err(|e| AggregateError::from_datafusion(e, memory_bytes))?;
        Ok(Self { key, span, environment, memory_bytes })
    }

    /// Merges `segments` into a table at `path` of `files`. The table is complete in the writer, but not in place: that is
    /// [`TableWriter::finish`], once the caller has judged the sums.
    pub(crate) async fn merge(
        &self,
        files: &Arc<Files>,
        segments: &[SegmentRecord],
        spill: &Spill,
        path: &str,
    ) -> Result<(TableWriter, Merged), AggregateError> {
        let fan_in = fan_in(self.memory_bytes);
        let (schema, read) = (self.schema(), Arc::new(AtomicU64::new(0)));
        let mut inputs: Vec<Option<Input>> = Vec::with_capacity(segments.len());
        let mut by_size = BinaryHeap::with_capacity(segments.len());
        for segment in segments {
            by_size.push(Reverse((segment.bytes, inputs.len())));
            inputs.push(Some(self.input(files, segment.path.clone(), Some(&read))));
        }
        // Opened only where needed: most days are one merge.
        let mut runs: Option<Arc<Files>> = None;
        while let Some(size) = first_group(by_size.len(), fan_in) {
            let runs = match &runs {
                Some(runs) => Arc::clone(runs),
                None => Arc::clone(runs.insert(Arc::new(Files::open_local(spill.path())?))),
            };
            let run = format!("run-{}.parquet", inputs.len());
            faultpoint::check("spill_run").map_err(|e| spill.failed("written to", &e))?;
            let mut writer = TableWriter::new(&runs, &self.key, &run, Arc::clone(schema)).await?;
            let group = take(&mut by_size, &mut inputs, size);
            self.merge_once(group.clone(), &mut writer).await?;
            let written = writer.finish().await?;
            for input in group.iter().filter(|input| Arc::ptr_eq(&input.files, &runs)) {
                runs.delete(&input.path).await?;
            }
            by_size.push(Reverse((written.bytes, inputs.len())));
            inputs.push(Some(self.input(&runs, run, None)));
        }
        let mut writer = TableWriter::new(files, &self.key, path, Arc::clone(schema)).await?;
        let rest = by_size.len();
        let merged = self.merge_once(take(&mut by_size, &mut inputs, rest), &mut writer).await?;
        Ok((writer, Merged { read: read.load(Ordering::Relaxed), ..merged }))
    }

    fn schema(&self) -> &'static SchemaRef {
        match self.span {
            Span::Day => &PERSON_ROWS,
            Span::Hour | Span::Week | Span::Month => &PRESENCE_ROWS,
        }
    }

    fn input(&self, files: &Arc<Files>, path: String, read: Option<&Arc<AtomicU64>>) -> Input {
        Input { files: Arc::clone(files), path, key: Arc::clone(&self.key), span: self.span, read: read.cloned() }
    }

    /// Reads a segment to its end, by itself, and says whether that went well. A store that fails says nothing about the segment.
    pub(crate) async fn is_readable(&self, files: &Files, path: &str) -> Result<bool, StoreError> {
        let read = async { read_table(files, &self.key, path).await?.try_for_each(|_| futures::future::ready(Ok(()))).await };
        match read.await {
            Ok(()) => Ok(true),
            Err(StoreError::FileMissing { .. } | StoreError::TableUnreadable { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// One merge of at most [`fan_in`] inputs.
    async fn merge_once(&self, inputs: Vec<Input>, writer: &mut TableWriter) -> Result<Merged, AggregateError> {
        let mut merged = Merged::default();
        if inputs.is_empty() {
            return Ok(merged);
        }
        let failed = |e| AggregateError::from_datafusion(e, self.memory_bytes);
        let plan = plan(inputs).map_err(failed)?;
        let config = SessionConfig::new().with_batch_size(BATCH_ROWS).with_target_partitions(1);
        let context = TaskContext::default().with_session_config(config).with_runtime(Arc::clone(&self.environment));
        let mut batches = plan.execute(0, Arc::new(context)).map_err(failed)?;
        let mut last = None;
        while let Some(batch) = batches.next().await {
            let batch = batch.map_err(failed)?;
            let rows = match self.span {
                Span::Day => person_rows(&batch, &mut last, &mut merged)?,
                Span::Hour | Span::Week | Span::Month => presence::merged(&batch, &mut last)?,
            };
            writer.write(&rows).await?;
        }
        Ok(merged)
    }
}

/// Takes the `size` smallest inputs.
fn take(by_size: &mut BinaryHeap<Reverse<(u64, usize)>>, inputs: &mut [Option<Input>], size: usize) -> Vec<Input> {
    let mut group = Vec::with_capacity(size);
    while group.len() < size {
        let Some(Reverse((_, index))) = by_size.pop() else { break };
        group.extend(inputs.get_mut(index).and_then(Option::take));
    }
    group
}

/// The streaming plan over these inputs, which are each sorted by the key.
fn plan(inputs: Vec<Input>) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
    let column =
        |name: &str| -> DataFusionResult<Arc<dyn PhysicalExpr>> { Ok(Arc::new(Column::new_with_schema(name, &PACKED_ROWS)?)) };
    let key = KEY_COLUMNS.iter().map(|name| Ok((column(name)?, (*name).to_owned()))).collect::<DataFusionResult<Vec<_>>>()?;
    let ascending = SortOptions { descending: false, nulls_first: false };
    let ordering = LexOrdering::new(key.iter().map(|(expression, _)| PhysicalSortExpr::new(Arc::clone(expression), ascending)))
        .ok_or_else(|| DataFusionError::Internal("the key has no column".to_owned()))?;
    let partitions = inputs.into_iter().map(|input| Arc::new(input) as Arc<dyn PartitionStream>).collect();
    let source = StreamingTableExec::try_new(Arc::clone(&PACKED_ROWS), partitions, None, [ordering.clone()], false, None)?;
    let sorted: Arc<dyn ExecutionPlan> = Arc::new(SortPreservingMergeExec::new(ordering, Arc::new(source)));
    let sums = ["events", "seconds"]
        .iter()
        .map(|name| {
            let wide = Arc::new(CastExpr::new(column(name)?, DataType::UInt64, None));
            Ok(Arc::new(AggregateExprBuilder::new(sum_udaf(), vec![wide]).schema(Arc::clone(&PACKED_ROWS)).alias(*name).build()?))
        })
        .collect::<DataFusionResult<Vec<_>>>()?;
    let filters = vec![None; sums.len()];
    let plan = AggregateExec::try_new(
        AggregateMode::Single,
        PhysicalGroupBy::new_single(key),
        sums,
        filters,
        sorted,
        Arc::clone(&PACKED_ROWS),
    )?;
    // Anything else would hold all people at once.
    if *plan.input_order_mode() != InputOrderMode::Sorted {
        return Err(DataFusionError::Internal("the aggregation does not stream".to_owned()));
    }
    Ok(Arc::new(plan))
}

/// Sums back to saturating counters, checked to be strictly ascending over all batches: unsorted input fails here, and not in a statistic.
fn person_rows(batch: &RecordBatch, last: &mut Option<Key>, merged: &mut Merged) -> Result<RecordBatch, AggregateError> {
    let people = rows::people(batch)?.iter();
    let dimensions = rows::primitive::<UInt64Type>(batch, "dimensions")?.iter();
    let events = rows::primitive::<UInt64Type>(batch, "events")?.iter();
    let seconds = rows::primitive::<UInt64Type>(batch, "seconds")?.iter();
    let mut out = PersonRows::with_capacity(batch.num_rows());
    for (((person, dimensions), events), seconds) in people.zip(dimensions).zip(events).zip(seconds) {
        let key = (u128::from_be_bytes(*person), *dimensions);
        rows::check_above(key, last, "the merge of a window")?;
        let events = u32::try_from(*events).unwrap_or(u32::MAX);
        merged.events = merged.events.saturating_add(u64::from(events));
        merged.saturated |= events == u32::MAX;
        out.push(key, events, u32::try_from(*seconds).unwrap_or(u32::MAX));
    }
    out.finish()
}

#[cfg(test)]
mod tests;
