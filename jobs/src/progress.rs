//! Progress for a person at a terminal: long work shows how far it is, on standard error, and never into a file or a log.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use starling_ingest::TraceProgress;
use starling_query::{Answer, Engine, Progress, QueryError, Watch};
use starling_schemas::ids::{Offset, PartitionId};
use starling_store::Plan;
use tokio::sync::watch;

use crate::metrics::Metrics;
use crate::summary::grouped;

/// A backlog is shown from this many events on …
const SHOW_FROM: u64 = 20_000;
/// … until it is as small as this. The gap keeps a bar from flickering at the edge.
const HIDE_BELOW: u64 = 2_000;
/// How often the bar of a backlog is looked after.
const LOOK_EVERY: Duration = Duration::from_millis(250);

static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);
static ALLOWED: AtomicBool = AtomicBool::new(true);

/// Says, once at the start, whether bars may be shown at all: not with `--quiet`, and not beside a log that a machine reads.
pub fn allow(allowed: bool) {
    ALLOWED.store(allowed, Ordering::Relaxed);
}

/// A bar on a terminal, and none elsewhere.
#[must_use]
pub fn bar(length: Option<u64>, template: &str) -> ProgressBar {
    if !ALLOWED.load(Ordering::Relaxed) || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = BARS.add(length.map_or_else(ProgressBar::no_length, ProgressBar::new));
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

/// Standard error for log lines: a bar steps aside for each.
#[derive(Debug, Clone, Copy, Default)]
pub struct BesideBars;

impl Write for BesideBars {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        BARS.suspend(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// The bar of a trace file: bytes tell its end, events are what counts.
#[must_use]
pub fn trace_bar(bytes: u64) -> (ProgressBar, Arc<dyn Fn(TraceProgress) + Send + Sync>) {
    let bar = bar(Some(bytes), "{wide_bar} {percent}% {msg} {elapsed}, {eta} left");
    let shown = bar.clone();
    let began = AtomicI64::new(-1);
    let progress = Arc::new(move |p: TraceProgress| {
        // What an earlier run had committed says nothing of this one's rate.
        let _ = began.compare_exchange(-1, p.frames_committed, Ordering::Relaxed, Ordering::Relaxed);
        let committed = u64::try_from(p.frames_committed).unwrap_or(0);
        let now = u64::try_from(p.frames_committed - began.load(Ordering::Relaxed)).unwrap_or(0);
        let rate = now * 1000 / u64::try_from(shown.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        shown.set_position(p.bytes_read);
        shown.set_message(format!("{} events, {}/s", grouped(committed), grouped(rate)));
    });
    (bar, progress)
}

/// A statement is shown from here on.
const SHOW_AFTER: Duration = Duration::from_secs(1);

/// Answers a statement; a private question that takes long shows how many of its blocks were read.
///
/// # Errors
/// Those of the engine.
pub async fn asking(engine: &Engine, team: &str, statement: &str) -> Result<Answer, QueryError> {
    let step = Arc::new(Mutex::new(None::<Progress>));
    let told = Arc::clone(&step);
    let watch: Watch = Arc::new(move |progress| *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(progress));
    let mut answer = std::pin::pin!(engine.query_watched(team, statement, watch));
    if let Ok(early) = tokio::time::timeout(SHOW_AFTER, &mut answer).await {
        return early;
    }
    let bar = bar(None, "{spinner} {msg} {elapsed}");
    let answer = loop {
        let now = *step.lock().unwrap_or_else(PoisonError::into_inner);
        bar.set_message(waiting(now));
        bar.tick();
        if let Ok(answer) = tokio::time::timeout(LOOK_EVERY, &mut answer).await {
            break answer;
        }
    };
    bar.finish_and_clear();
    answer
}

/// What is shown of a statement in work.
fn waiting(step: Option<Progress>) -> String {
    let Some(Progress { question, questions, read, blocks }) = step else { return "answering".to_owned() };
    let which = if questions == 1 { String::new() } else { format!("question {question} of {questions}: ") };
    if read >= blocks { format!("{which}adding up") } else { format!("{which}{read} of {blocks} blocks read") }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lane {
    /// Where this process began.
    began: i64,
    committed: i64,
    end: i64,
}

/// How far this process's partitions are behind, as ingest tells it.
#[derive(Debug, Default)]
pub struct Backlog(Mutex<BTreeMap<PartitionId, Lane>>);

/// Events done since this process took its partitions, and events there are since then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Extent {
    /// Done.
    pub done: u64,
    /// Known.
    pub known: u64,
}

impl Backlog {
    /// A partition begins. Where the log begins is known with the first commit only.
    pub fn taken(&self, partition: &PartitionId, from: Option<Offset>) {
        if let Some(Offset(from)) = from {
            self.lanes().insert(partition.clone(), Lane { began: from, committed: from, end: from });
        }
    }

    /// A partition is gone, with what is done of it.
    pub fn released(&self, partition: &PartitionId) {
        self.lanes().remove(partition);
    }

    /// A range counts.
    pub fn committed(&self, plan: &Plan) {
        let began = Lane { began: plan.from.0, committed: plan.from.0, end: plan.to.0 };
        let mut lanes = self.lanes();
        let lane = lanes.entry(plan.partition.clone()).or_insert(began);
        lane.committed = lane.committed.max(plan.to.0);
        lane.end = lane.end.max(lane.committed);
    }

    /// The brokers told a partition's end.
    pub fn end_seen(&self, partition: &PartitionId, Offset(end): Offset) {
        if let Some(lane) = self.lanes().get_mut(partition) {
            lane.end = lane.end.max(end);
        }
    }

    /// All partitions together.
    #[must_use]
    pub fn extent(&self) -> Extent {
        let size = |from: i64, to: i64| u64::try_from(to - from).unwrap_or(0);
        self.lanes().values().fold(Extent::default(), |sum, lane| Extent {
            done: sum.done + size(lane.began, lane.committed),
            known: sum.known + size(lane.began, lane.end),
        })
    }

    fn lanes(&self) -> std::sync::MutexGuard<'_, BTreeMap<PartitionId, Lane>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a backlog of this extent is to be shown.
fn is_shown(shown: bool, extent: Extent) -> bool {
    let left = extent.known.saturating_sub(extent.done);
    if shown { left >= HIDE_BELOW } else { left >= SHOW_FROM }
}

/// Shows a bar while a backlog is caught up, until `stop`.
pub async fn show_backlog(metrics: Arc<Metrics>, mut stop: watch::Receiver<bool>) {
    let mut bar: Option<ProgressBar> = None;
    while !*stop.borrow() {
        let extent = metrics.backlog.extent();
        match (&bar, is_shown(bar.is_some(), extent)) {
            (None, true) => {
                let fresh = self::bar(Some(extent.known), "{wide_bar} {human_pos}/{human_len} events, {per_sec}, {eta} left");
                // What was done before it is shown says nothing of the rate.
                fresh.set_position(extent.done);
                fresh.reset_eta();
                bar = Some(fresh);
            }
            (Some(shown), true) => {
                shown.set_length(extent.known);
                shown.set_position(extent.done);
            }
            (Some(shown), false) => {
                shown.finish_and_clear();
                tracing::info!("the backlog is caught up");
                bar = None;
            }
            (None, false) => {}
        }
        tokio::select! {
            _ = stop.changed() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use starling_schemas::ids::{Generation, Sequence};

    use super::*;

    fn partition(number: i32) -> PartitionId {
        PartitionId { source: "events".into(), partition: number }
    }

    #[test]
    fn a_question_in_work_tells_how_many_of_its_blocks_were_read() {
        let step = |question, questions, read| waiting(Some(Progress { question, questions, read, blocks: 30 }));
        assert_eq!(waiting(None), "answering");
        assert_eq!(step(1, 1, 12), "12 of 30 blocks read");
        assert_eq!(step(2, 3, 0), "question 2 of 3: 0 of 30 blocks read");
        assert_eq!(step(2, 3, 30), "question 2 of 3: adding up");
    }

    fn plan(number: i32, from: i64, to: i64) -> Plan {
        Plan {
            partition: partition(number),
            generation: Generation(1),
            sequence: Sequence(0),
            from: Offset(from),
            to: Offset(to),
            closed_through: None,
            hours_after: None,
            group_lists: None,
            planned_at_ms: 0,
            watermark_ms: None,
        }
    }

    #[test]
    fn a_backlog_is_counted_from_where_this_process_began() {
        let backlog = Backlog::default();
        backlog.taken(&partition(0), Some(Offset(1_000)));
        backlog.end_seen(&partition(0), Offset(5_000));
        // Never read: its log may begin anywhere, so its end alone says nothing.
        backlog.taken(&partition(1), None);
        backlog.end_seen(&partition(1), Offset(1_000_000));
        assert_eq!(backlog.extent(), Extent { done: 0, known: 4_000 });
        backlog.committed(&plan(0, 1_000, 2_000));
        backlog.committed(&plan(1, 999_000, 999_400));
        backlog.end_seen(&partition(1), Offset(1_000_000));
        assert_eq!(backlog.extent(), Extent { done: 1_400, known: 5_000 });
        backlog.released(&partition(0));
        assert_eq!(backlog.extent(), Extent { done: 400, known: 1_000 });
    }

    #[test]
    fn a_commit_past_the_last_known_end_is_no_negative_backlog() {
        let backlog = Backlog::default();
        backlog.taken(&partition(0), Some(Offset(0)));
        backlog.committed(&plan(0, 0, 10));
        backlog.end_seen(&partition(0), Offset(7));
        assert_eq!(backlog.extent(), Extent { done: 10, known: 10 });
    }

    #[test]
    fn a_bar_appears_for_a_backlog_and_does_not_flicker() {
        let left = |left| Extent { done: 7, known: 7 + left };
        assert!(!is_shown(false, left(SHOW_FROM - 1)));
        assert!(is_shown(false, left(SHOW_FROM)));
        assert!(is_shown(true, left(SHOW_FROM / 2)), "shown until it is nearly gone");
        assert!(!is_shown(false, left(SHOW_FROM / 2)), "and not again before it is large");
        assert!(!is_shown(true, left(HIDE_BELOW - 1)));
    }
}
