//! The end of a window: its segments become one table, and its pseudonym key dies.
//!
//! The steps of a close, each of which may be done again after a crash at any point:
//!
//! 1. `begin_close`: from here on, newly planned ranges treat events of this day as late.
//! 2. Wait for the ranges that were planned before: they may still commit segments.
//! 3. I1, in the metastore: every partition's events equal the sum of its counts.
//! 4. Merge all segments; I1, in the rows: they hold as many events as were counted. Then the table is put in place.
//! 5. `finish_close`: the table is the day's; its segment records go, in one transaction.
//! 6. The audit entry with the totals, deletion of the segment files, destruction of the pseudonym key with its receipt.
//!
//! A week or month goes the same way once its days have: nothing of it can come any more then, so its `begin_close` makes nothing late. It has no
//! counts of its own to agree with; what must agree are the rows that its segments were committed with and those that are read (I1). It is complete
//! if its days are.
//!
//! An hour goes the same way by itself, and waits for no day: its `begin_close` makes nothing late for the day, but what comes later is not in the
//! hour. Its rows agree as a week's do. It is complete if hours were kept from before it began until its close began.
//!
//! A crash before 5 leaves the window closing, and all is done again from the same segments. A crash after 5 leaves it closed, and only 6
//! is
//! done again ([`Closer::repair`]).

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use starling_schemas::codes::Outcome;
use starling_schemas::ids::{DAY_MS, Span, WindowId};
use starling_schemas::time::Clock;
use starling_store::{
    Files, KeyId, KeyKind, Keyring, Metastore, SegmentRecord, StoreError, TableInfo, TableWriter, WindowRecord, WindowState,
    destroy_with_receipt, killpoint,
};

use crate::AggregateError;
use crate::merge::{Merged, Merger};
use crate::segment::{data_key, segment_folder};
use crate::spill::Spill;

/// Person rows live no longer than this after their window has closed, whatever is asked for (P42): 30 days, in milliseconds.
pub const MAX_KEEP_MS: i64 = 30 * DAY_MS;

/// The rows of an hour live no longer than this after it has closed: two days, in milliseconds. They are there to be released, and to be asked about
/// while the hour is of interest.
pub const MAX_KEEP_HOUR_MS: i64 = 2 * DAY_MS;

/// How long [`Closer::close`] waits for ranges planned before it began.
const PLAN_PATIENCE: Duration = Duration::from_secs(30);

/// How often it looks.
const PLAN_POLL: Duration = Duration::from_millis(50);

/// Where a closed window's person rows lie.
#[must_use]
pub fn table_path(window: impl Into<WindowId>) -> String {
    format!("people/{}.parquet", window.into())
}

/// What a window closed without, past its deadline. Counts only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shortfall {
    /// Ranges planned before the close that were still not committed.
    pub open_plans: usize,
    /// Partitions whose events differ from the sum of their counts (I1).
    pub unbalanced_partitions: usize,
    /// Segments whose file was missing, did not open, or was of another version.
    pub lost_segments: usize,
    /// Events counted for the day; of other windows the rows their segments were committed with.
    pub counted: u64,
    /// Events in the merged rows, where a counter stands at its maximum a lower bound; of other windows the rows read.
    pub in_rows: u64,
    /// Days of a week or month that closed as incomplete.
    pub incomplete_days: usize,
    /// Of an hour: whether hours were not kept for a part of it.
    pub partly_kept: bool,
}

/// What a close did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseReport {
    /// The window.
    pub window: WindowId,
    /// Whether the window is closed as complete.
    pub complete: bool,
    /// Whether its table was final before this call, which then only finished what came after.
    pub already_closed: bool,
    /// The window's person rows.
    pub table: TableInfo,
    /// Segments merged by this call.
    pub segments: usize,
    /// Events of the day by outcome, over all partitions; of other windows none.
    pub outcomes: BTreeMap<&'static str, u64>,
    /// What was missing; `None` for a complete window and for one that was closed already.
    pub shortfall: Option<Shortfall>,
}

/// Closes and expires windows.
pub struct Closer {
    /// Windows, segments, counts, audit log.
    pub metastore: Arc<Metastore>,
    /// Segments and tables.
    pub files: Arc<Files>,
    /// Data and pseudonym keys.
    pub keyring: Arc<Keyring>,
    /// Time of receipts and states.
    pub clock: Arc<dyn Clock>,
    /// Memory a merge may use, in bytes: about 8 MiB per segment that is open at once. 512 MiB is enough for the widest merge; with less,
    /// large
    /// days take more levels. 16 MiB are needed in any case.
    pub memory_bytes: usize,
    /// Folder below which a large merge keeps its (encrypted) runs. Made with mode 0700 where missing; it should belong to closing alone.
    pub spill_dir: PathBuf,
}

impl Closer {
    /// Closes a window: merges its segments to `people/<window>.parquet`, then destroys its pseudonym key.
    ///
    /// A week or month can be closed once its last day has been, and is complete only if all its days are; an hour only if hours are kept, and were
    /// since before it began.
    ///
    /// `complete`: as [`decide`](crate::decide) says. A complete close is refused while something is missing, and nothing is destroyed
    /// then. With
    /// `complete = false` the window closes with what there is, is marked incomplete, and an audit entry `window_incomplete` says what was
    /// missing: the deadline has passed, and privacy wins. Where such a close fails, because the disk is full, say, the pseudonym key is destroyed
    /// all the same, and a later call finishes the close.
    ///
    /// May be called again after any failure or crash, and for a window that is closed.
    ///
    /// # Errors
    /// [`AggregateError::WaitingForPlans`], [`AggregateError::Unbalanced`], [`AggregateError::CountsDiffer`] for a complete close that must
    /// wait or be looked into;
    /// [`AggregateError::DaysOpen`]; [`AggregateError::UnknownWindow`], [`AggregateError::Expired`], [`AggregateError::SpillInUse`]; and errors of merging, store and
    /// keyring.
    pub async fn close(&self, window: impl Into<WindowId>, complete: bool) -> Result<CloseReport, AggregateError> {
        let window = window.into();
        let closed = self.close_waiting(window, complete, PLAN_PATIENCE).await;
        if let (false, Err(AggregateError::Store(StoreError::File { .. } | StoreError::Object { .. }))) = (complete, &closed) {
            // The deadline holds for the key, whether the files can be had now or not; a later call finishes the close.
            self.destroy(KeyKind::Pseudonym, window, "deadline").await?;
        }
        closed
    }

    async fn close_waiting(
        &self,
        window: impl Into<WindowId>,
        complete: bool,
        patience: Duration,
    ) -> Result<CloseReport, AggregateError> {
        let window = window.into();
        let done = self.close_steps(window, complete, patience).await;
        if let Err(error) = &done
            && !complete
            && !matches!(
                error,
                AggregateError::UnknownWindow { .. } | AggregateError::Expired { .. } | AggregateError::DaysOpen { .. }
            )
        {
            // The deadline has passed: the key does not wait for a disk that is full or a database that is away.
            if let Err(error) = self.destroy(KeyKind::Pseudonym, window, "deadline").await {
                tracing::error!(%window, "the window's key could not be destroyed at its deadline; it is tried again: {error}");
            }
        }
        done
    }

    async fn close_steps(&self, id: WindowId, complete: bool, patience: Duration) -> Result<CloseReport, AggregateError> {
        let window = self.window(id).await?;
        if window.state.is_final() {
            return self.close_again(&window).await;
        }
        let (incomplete_days, partly_kept) = (self.incomplete_days(id).await?, self.is_partly_kept(id).await?);
        let mut shortfall = Shortfall { incomplete_days, partly_kept, ..Shortfall::default() };
        let complete = complete && incomplete_days == 0 && !partly_kept;
        self.metastore.begin_close(id, self.clock.now_ms()).await?;
        killpoint::reached("after_begin_close");

        shortfall.open_plans = self.wait_for_plans(id, patience).await?;
        if complete && shortfall.open_plans > 0 {
            return Err(AggregateError::WaitingForPlans { window: id, plans: shortfall.open_plans });
        }
        shortfall.unbalanced_partitions = self.metastore.unbalanced().await?.len();
        if complete && shortfall.unbalanced_partitions > 0 {
            return Err(AggregateError::Unbalanced { window: id, partitions: shortfall.unbalanced_partitions });
        }

        let spill = Spill::open(&self.spill_dir)?;
        let committed = self.metastore.segments(id).await?;
        // Read after the segments: had another process finished this close in between, the list would be empty or its files gone.
        let window = self.window(id).await?;
        if window.state.is_final() {
            return self.close_again(&window).await;
        }
        let mut segments = committed.clone();
        let (writer, merged) = self.merge(id, complete, &mut segments, &mut shortfall, &spill).await?;
        drop(spill);
        let what;
        (what, shortfall.counted, shortfall.in_rows) = match id.span {
            Span::Day => {
                let counted = self.outcomes(id).await?.get(Outcome::Counted.label()).copied().unwrap_or(0);
                ("events", counted, merged.events)
            }
            Span::Hour | Span::Week | Span::Month => {
                ("rows", committed.iter().fold(0, |rows, segment| segment.rows.saturating_add(rows)), merged.read)
            }
        };
        let agree = shortfall.in_rows == shortfall.counted || (merged.saturated && shortfall.in_rows < shortfall.counted);
        if complete && !agree {
            let Shortfall { counted, in_rows, .. } = shortfall;
            return Err(AggregateError::CountsDiffer { window: id, what, counted, in_rows });
        }
        if shortfall.open_plans > 0 && self.metastore.segments(id).await? != committed {
            // One of those ranges has just been committed: its rows would be dropped unmerged.
            return Err(AggregateError::WaitingForPlans { window: id, plans: shortfall.open_plans });
        }
        let table = writer.finish().await?;
        killpoint::reached("after_merge");

        if !complete {
            self.audit_once("window_incomplete", id, shortfall_detail(id, &shortfall)).await?;
            tracing::warn!(window = %id, ?shortfall, "window closes as incomplete");
        }
        match self.metastore.finish_close(id, &table, complete, self.clock.now_ms()).await {
            Err(StoreError::PlanOpen) => {
                return Err(AggregateError::WaitingForPlans { window: id, plans: shortfall.open_plans.max(1) });
            }
            other => other?,
        }
        killpoint::reached("after_finish_close");
        let outcomes = self.settle(id, complete).await?;
        tracing::info!(window = %id, complete, segments = segments.len(), bytes = table.bytes, "window closed");
        Ok(CloseReport {
            window: id,
            complete,
            already_closed: false,
            table,
            segments: segments.len(),
            outcomes,
            shortfall: (!complete).then_some(shortfall),
        })
    }

    /// Of a week or month: how many of its days closed as incomplete.
    ///
    /// Fails while a day of it may still be counted in.
    async fn incomplete_days(&self, window: WindowId) -> Result<usize, AggregateError> {
        if !Span::LONG.contains(&window.span) {
            return Ok(0);
        }
        let days = self.metastore.windows().await?;
        let closed_through = days.iter().filter(|day| day.state.is_final()).map(|day| day.epoch).max();
        let within = days.iter().filter(|day| window.has(day.epoch));
        let (closed, open): (Vec<_>, Vec<_>) = within.partition(|day| day.state.is_final());
        if !open.is_empty() || closed_through.is_none_or(|through| through < window.last()) {
            return Err(AggregateError::DaysOpen { window });
        }
        Ok(closed.iter().filter(|day| day.state == WindowState::Incomplete).count())
    }

    /// Of an hour: whether it began before hours were kept, or may have gone on after that.
    async fn is_partly_kept(&self, window: WindowId) -> Result<bool, AggregateError> {
        Ok(window.span == Span::Hour && !self.metastore.hours().await?.is_whole(window.epoch))
    }

    /// The weeks and months that may be closed now, each with all its days closed; shortest and oldest first.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn over(&self) -> Result<Vec<WindowRecord>, AggregateError> {
        let mut over = Vec::new();
        for span in Span::LONG {
            for window in self.metastore.windows_of(span).await? {
                if window.state.is_final() {
                    continue;
                }
                match self.incomplete_days(window.id()).await {
                    Ok(_) => over.push(window),
                    Err(AggregateError::DaysOpen { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(over)
    }

    /// Finishes what a crash left: keys, segments and log entries of closed windows, and the runs of a merge that died.
    ///
    /// Windows whose close has not come to its table are not touched; [`decide`](crate::decide) names them again. Keys of days that are
    /// closed without ever
    /// having had a window are destroyed: somebody made them, and no event was counted.
    ///
    /// # Errors
    /// Errors of store, keyring and spill folder: the first of a window, after all others had their turn.
    pub async fn repair(&self) -> Result<(), AggregateError> {
        Spill::sweep(&self.spill_dir)?;
        let mut first_failure = None;
        for span in Span::ALL {
            for window in self.metastore.living_windows(span).await? {
                if !window.state.is_final() {
                    continue;
                }
                if let Err(error) = self.settle(window.id(), window.state == WindowState::Closed).await {
                    tracing::error!(window = %window.id(), "what follows on its close could not be done; it is tried again: {error}");
                    first_failure.get_or_insert(error);
                }
            }
        }
        let unused = self.retire_unused_keys().await;
        first_failure.map_or(unused, Err)
    }

    /// Ends the life of person rows: of windows that closed at least `keep_ms` ago, and at most [`MAX_KEEP_MS`], or [`MAX_KEEP_HOUR_MS`] for an hour; of
    /// all but days, closed or not, when [`MAX_KEEP_MS`] have gone since their beginning, or since their first row where that came later (P42). Destroys the
    /// window's data key with a receipt, deletes the table, and marks the window expired. Says which windows.
    ///
    /// `spared`: windows that stay this time, because they have just been closed and nothing was released of them yet.
    ///
    /// From the key's destruction on, the rows are unreadable in every copy and backup (I7).
    ///
    /// # Errors
    /// Errors of store and keyring: the first of a window, after all others had their turn. What was not done is done by the next call.
    pub async fn expire(&self, keep_ms: i64, spared: &BTreeSet<WindowId>) -> Result<Vec<WindowId>, AggregateError> {
        let now_ms = self.clock.now_ms();
        let (mut expired, mut first_failure) = (Vec::new(), None);
        for span in Span::ALL {
            let keep_ms = keep_ms.clamp(0, if span == Span::Hour { MAX_KEEP_HOUR_MS } else { MAX_KEEP_MS });
            for window in self.metastore.living_windows(span).await? {
                let closed_long_ago = window.closed_at_ms.is_some_and(|closed| now_ms.saturating_sub(closed) >= keep_ms);
                let began = window.epoch.start_ms().max(window.opened_at_ms.min(now_ms));
                let too_old = span != Span::Day && now_ms.saturating_sub(began) >= MAX_KEEP_MS;
                if !(closed_long_ago || too_old) || spared.contains(&window.id()) {
                    continue;
                }
                match self.end_rows(&window).await {
                    Ok(()) => expired.push(window.id()),
                    // The others' time has run out as well.
                    Err(error) => {
                        tracing::error!(window = %window.id(), "its person rows could not be ended; it is tried again: {error}");
                        first_failure.get_or_insert(error);
                    }
                }
            }
        }
        first_failure.map_or(Ok(expired), Err)
    }

    async fn end_rows(&self, window: &WindowRecord) -> Result<(), AggregateError> {
        let id = window.id();
        if !window.state.is_final() {
            tracing::error!(window = %id, "window expires before it was closed: nothing is released of it");
        }
        // A pseudonym key that a crash let live must not outlive the rows.
        self.destroy(KeyKind::Pseudonym, id, "window expired").await?;
        self.destroy(KeyKind::Data, id, "window expired").await?;
        self.files.delete(&window.table.as_ref().map_or_else(|| table_path(id), |t| t.path.clone())).await?;
        self.delete_segments(id).await?;
        self.metastore.expire_window(id, self.clock.now_ms()).await?;
        tracing::info!(window = %id, "person rows expired");
        Ok(())
    }

    /// Days up to the newest closed one are late for every range planned since. If none planned before is open, nobody will ask for their
    /// keys again, nor for those of weeks and months that end with them, and of hours in them. The same holds for hours up to the newest closed one.
    async fn retire_unused_keys(&self) -> Result<(), AggregateError> {
        let day = self.over_for_good(Span::Day).await?;
        let hour = self.over_for_good(Span::Hour).await?;
        if day.is_none() && hour.is_none() {
            return Ok(());
        }
        // Read after the plans: what they committed has a window now.
        let mut windows = BTreeSet::new();
        for span in Span::ALL {
            windows.extend(self.known(span).await?.iter().map(WindowRecord::id));
        }
        for id in self.keyring.alive()? {
            let Some(span) = Span::ALL.into_iter().find(|span| span.purpose() == id.purpose) else { continue };
            let window = WindowId { span, epoch: id.epoch };
            let over_ms = if span == Span::Hour { day.max(hour) } else { day };
            if over_ms.is_some_and(|over_ms| window.end_ms() <= over_ms) && !windows.contains(&window) {
                self.destroy(id.kind, window, "window without counted events").await?;
                self.delete_segments(window).await?;
            }
        }
        Ok(())
    }

    /// Where the newest closed window of this length ends, in milliseconds since 1970-01-01 UTC. `None`: there is none, or a range that was planned
    /// before it closed may still bring something.
    async fn over_for_good(&self, span: Span) -> Result<Option<i64>, AggregateError> {
        let windows = self.known(span).await?;
        let Some(newest) = windows.into_iter().filter(|w| w.state.is_final()).map(|w| w.epoch).max() else { return Ok(None) };
        Ok(self.metastore.open_plans_before(newest).await?.is_empty().then(|| newest.end_ms()))
    }

    /// Every window of this length; of hours, of which there are many, those whose rows live.
    async fn known(&self, span: Span) -> Result<Vec<WindowRecord>, AggregateError> {
        let metastore = &self.metastore;
        Ok(if span == Span::Hour { metastore.living_windows(span).await? } else { metastore.windows_of(span).await? })
    }

    async fn window(&self, id: WindowId) -> Result<WindowRecord, AggregateError> {
        let windows = self.metastore.windows_of(id.span).await?;
        windows.into_iter().find(|w| w.epoch == id.epoch).ok_or(AggregateError::UnknownWindow { window: id })
    }

    /// A close of a window whose table is final.
    async fn close_again(&self, window: &WindowRecord) -> Result<CloseReport, AggregateError> {
        let id = window.id();
        let (Some(table), None) = (&window.table, window.expired_at_ms) else {
            return Err(AggregateError::Expired { window: id });
        };
        let complete = window.state == WindowState::Closed;
        let outcomes = self.settle(id, complete).await?;
        Ok(CloseReport {
            window: id,
            complete,
            already_closed: true,
            table: table.clone(),
            segments: 0,
            outcomes,
            shortfall: None,
        })
    }

    /// Waits until no range planned before the close is open; says how many are left when patience ends.
    async fn wait_for_plans(&self, window: WindowId, patience: Duration) -> Result<usize, AggregateError> {
        let end = tokio::time::Instant::now() + patience;
        loop {
            let plans = self.metastore.open_plans_before(window.last()).await?.len();
            if plans == 0 || tokio::time::Instant::now() >= end {
                return Ok(plans);
            }
            tokio::time::sleep(PLAN_POLL).await;
        }
    }

    /// Merges; an incomplete close leaves out segments that are lost.
    async fn merge(
        &self,
        window: WindowId,
        complete: bool,
        segments: &mut Vec<SegmentRecord>,
        shortfall: &mut Shortfall,
        spill: &Spill,
    ) -> Result<(TableWriter, Merged), AggregateError> {
        let merger = Merger::new(Arc::new(data_key(&self.keyring, window)?), window.span, self.memory_bytes)?;
        loop {
            let (path, error) = match merger.merge(&self.files, segments, spill, &table_path(window)).await {
                Err(AggregateError::Store(e @ (StoreError::FileMissing { .. } | StoreError::TableUnreadable { .. })))
                    if !complete =>
                {
                    match e {
                        StoreError::FileMissing { ref path } | StoreError::TableUnreadable { ref path } => (path.clone(), e),
                        other => return Err(other.into()),
                    }
                }
                Err(AggregateError::OtherVersion { path, column }) if !complete && segments.iter().any(|s| s.path == path) => {
                    // No later look would find other columns in it.
                    tracing::error!(%window, path, column, "segment is of another version: the window closes without it");
                    segments.retain(|s| s.path != path);
                    shortfall.lost_segments += 1;
                    continue;
                }
                other => return other,
            };
            // A second look, alone: what failed for another reason must be tried again later, not left out.
            if !segments.iter().any(|s| s.path == path) || merger.is_readable(&self.files, &path).await? {
                return Err(error.into());
            }
            tracing::error!(%window, path, "segment is lost: the window closes without it");
            segments.retain(|s| s.path != path);
            shortfall.lost_segments += 1;
        }
    }

    /// Events of a day by outcome; of other windows none.
    async fn outcomes(&self, window: WindowId) -> Result<BTreeMap<&'static str, u64>, AggregateError> {
        let mut outcomes = BTreeMap::new();
        if window.span != Span::Day {
            return Ok(outcomes);
        }
        for row in self.metastore.counts().await?.into_iter().filter(|row| row.epoch == Some(window.epoch)) {
            let sum: &mut u64 = outcomes.entry(row.outcome.label()).or_default();
            *sum = sum.saturating_add(row.events);
        }
        Ok(outcomes)
    }

    /// What follows on `finish_close`: log entry, segment files, pseudonym key. Does nothing that is done already.
    async fn settle(&self, window: WindowId, complete: bool) -> Result<BTreeMap<&'static str, u64>, AggregateError> {
        let outcomes = self.outcomes(window).await?;
        let detail = match window.span {
            Span::Day => json!({ "day": window.epoch.to_string(), "complete": complete, "outcomes": outcomes }),
            span => json!({ span.name(): window.epoch.to_string(), "complete": complete }),
        };
        self.audit_once("window_closed", window, detail).await?;
        self.delete_segments(window).await?;
        self.destroy(KeyKind::Pseudonym, window, "window closed").await?;
        killpoint::reached("after_key_destroyed");
        Ok(outcomes)
    }

    /// Deletes by folder, not by record: this takes along files of ranges that were never committed.
    async fn delete_segments(&self, window: impl Into<WindowId>) -> Result<(), AggregateError> {
        // The folder, not the files one by one: a process killed while it wrote a segment left a temporary file that no list shows.
        Ok(self.files.delete_folder(&segment_folder(window.into())).await?)
    }

    async fn destroy(&self, kind: KeyKind, window: WindowId, reason: &str) -> Result<(), AggregateError> {
        let id = KeyId { kind, purpose: window.span.purpose(), epoch: window.epoch };
        Ok(destroy_with_receipt(&self.keyring, &self.metastore, id, reason, self.clock.now_ms()).await?)
    }

    /// Appends an entry about a window, once for ever.
    async fn audit_once(&self, kind: &str, window: WindowId, detail: serde_json::Value) -> Result<(), AggregateError> {
        self.metastore.append_audit_once(&format!("{kind}:{window}"), kind, detail, self.clock.now_ms()).await?;
        Ok(())
    }
}

fn shortfall_detail(window: WindowId, shortfall: &Shortfall) -> serde_json::Value {
    let Shortfall { open_plans, unbalanced_partitions, lost_segments, counted, in_rows, incomplete_days, partly_kept } =
        *shortfall;
    let day = window.epoch.to_string();
    match window.span {
        Span::Day => json!({
            "day": day, "reason": "deadline", "open_plans": open_plans, "unbalanced_partitions": unbalanced_partitions,
            "lost_segments": lost_segments, "events_counted": counted, "events_in_rows": in_rows,
        }),
        Span::Hour => json!({
            "hour": day, "partly_kept": partly_kept, "open_plans": open_plans, "unbalanced_partitions": unbalanced_partitions,
            "lost_segments": lost_segments, "rows_committed": counted, "rows_read": in_rows,
        }),
        span => json!({
            span.name(): day, "incomplete_days": incomplete_days, "open_plans": open_plans,
            "unbalanced_partitions": unbalanced_partitions, "lost_segments": lost_segments, "rows_committed": counted, "rows_read": in_rows,
        }),
    }
}

#[cfg(test)]
mod tests;
