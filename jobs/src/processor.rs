//! One planned range on its way through the rooms: frames → minimize → person rows → segments, and signals beside them.
//!
//! What comes out depends on the plan and the frames alone, so a range that is processed twice leaves the same rows and signals (I9).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use starling_aggregate::{Folder, encode_segment};
use starling_ingest::{Frames, Observer, ProcessError, RangeProcessor};
use starling_minimize::{GroupLists, Limits, Minimized, Minimizer, RangeContext};
use starling_schemas::ids::{EpochId, WindowId};
use starling_store::{Plan, QuarantineRecord, RangeOutcome};

use crate::group_lists::Held;
use crate::home::Home;
use crate::metrics::{Listener, Stage};
use crate::signal_log::SignalSink;

/// The processor of every ingest job.
pub struct Processor {
    home: Home,
    sink: Arc<dyn SignalSink>,
    /// How far ahead of the plan's time an event may be.
    future_tolerance_ms: i64,
    disorder_ms: i64,
    lists: Held,
    /// Minimizers that wait for work; each keeps its buffers.
    idle: Mutex<Vec<Minimizer>>,
}

/// What one range became, before anything is written.
struct Folded {
    minimized: Minimized,
    days: Vec<(EpochId, arrow::array::RecordBatch)>,
}

impl Processor {
    /// A processor that hands signals to `sink`.
    #[must_use]
    pub fn new(home: Home, sink: Arc<dyn SignalSink>) -> Self {
        let future_tolerance_ms = home.config.ingest.future_tolerance_s * 1000;
        let disorder_ms = home.config.ingest.disorder_s * 1000;
        Self { home, sink, future_tolerance_ms, disorder_ms, lists: Held::default(), idle: Mutex::new(Vec::new()) }
    }

    fn fold(&self, plan: &Plan, lists: Option<Arc<GroupLists>>, frames: &Frames) -> Result<Folded, ProcessError> {
        let metrics = &self.home.metrics;
        let begun = Instant::now();
        let limits = Limits { pairs: self.home.config.signals.pairs, ..Limits::default() };
        let waiting = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut minimizer = waiting.unwrap_or_else(|| Minimizer::new(self.home.key_source(), limits));
        minimizer.begin(RangeContext {
            closed_through: plan.closed_through,
            hours_after: plan.hours_after,
            latest_ms: plan.planned_at_ms.saturating_add(self.future_tolerance_ms),
            read_to_ms: plan.watermark_ms.map(|watermark_ms| watermark_ms.saturating_add(self.disorder_ms)),
        });
        if let Some(lists) = lists {
            minimizer.hold_against(lists);
        }
        for (offset, frame) in frames.iter() {
            minimizer.push(offset, frame).map_err(|e| ProcessError(e.to_string()))?;
        }
        let minimized = minimizer.finish().map_err(|e| ProcessError(e.to_string()))?;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(minimizer);
        metrics.stage(Stage::Minimize, begun.elapsed());
        let begun = Instant::now();
        let mut folder = Folder::new();
        folder.fold(&minimized.clean).map_err(|e| ProcessError(e.to_string()))?;
        let days = folder.finish().map_err(|e| ProcessError(e.to_string()))?;
        metrics.stage(Stage::Fold, begun.elapsed());
        Ok(Folded { minimized, days })
    }
}

#[async_trait]
impl RangeProcessor for Processor {
    async fn process(&self, plan: &Plan, frames: Arc<Frames>) -> Result<RangeOutcome, ProcessError> {
        let lists = self.lists.of(&self.home.metastore, plan).await.map_err(|e| ProcessError(format!("{e:#}")))?;
        // The range keeps this thread busy; block_in_place hands the runtime's other work to another one.
        let folded = tokio::task::block_in_place(|| self.fold(plan, lists, &frames))?;
        drop(frames);
        let Folded { minimized, days } = folded;
        let kept = self.home.billing().keep(&plan.partition, plan.sequence, &minimized.billing).await;
        kept.map_err(|e| ProcessError(e.to_string()))?;
        let mut segments = Vec::with_capacity(days.len() + minimized.present.len());
        let days = days.iter().map(|(epoch, rows)| (WindowId::from(*epoch), rows));
        for (window, rows) in days.chain(minimized.present.iter().map(|(window, rows)| (*window, rows))) {
            let begun = Instant::now();
            let encoded = encode_segment(&self.home.keyring, &plan.partition, plan.sequence, window, rows);
            let encoded = encoded.map_err(|e| ProcessError(e.to_string()))?;
            self.home.metrics.stage(Stage::Encode, begun.elapsed());
            let begun = Instant::now();
            segments.push(encoded.write(&self.home.files).await.map_err(|e| ProcessError(e.to_string()))?);
            self.home.metrics.stage(Stage::Write, begun.elapsed());
        }
        let begun = Instant::now();
        self.sink.publish(plan, minimized.signals).await.map_err(|e| ProcessError(format!("{e:#}")))?;
        self.home.metrics.stage(Stage::Signals, begun.elapsed());
        Ok(RangeOutcome {
            events: minimized.events,
            counts: minimized.counts,
            watermark_ms: minimized.max_event_time_ms.map(|t| t.saturating_sub(self.disorder_ms)),
            segments,
            missed_hours: minimized.missed_hours,
            businesses: minimized.businesses,
            quarantined: minimized
                .quarantined
                .into_iter()
                .map(|(offset, fault, length)| QuarantineRecord { offset, fault, length })
                .collect(),
            by_clock: minimized.by_clock,
            behind: minimized.behind,
        })
    }

    fn observer(&self) -> Arc<dyn Observer> {
        Arc::new(Listener(Arc::clone(&self.home.metrics)))
    }
}

#[cfg(test)]
mod tests;
