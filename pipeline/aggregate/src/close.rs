//! The end of a day: its segments become one table, and its pseudonym key dies.
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
//! A crash before 5 leaves the window closing, and all is done again from the same segments. A crash after 5 leaves it closed, and only 6
//! is
//! done again ([`Closer::repair`]).

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use starling_schemas::codes::Outcome;
use starling_schemas::ids::{DAY_MS, EpochId, Purpose};
use starling_schemas::time::Clock;
use starling_store::{
    Files, KeyId, KeyKind, KeyState, Keyring, Metastore, SegmentRecord, StoreError, TableInfo, TableWriter, WindowRecord,
    WindowState, destroy_with_receipt, killpoint,
};

use crate::AggregateError;
use crate::merge::{Merged, Merger};
use crate::segment::{data_key, segment_folder};
use crate::spill::Spill;

/// Person rows live no longer than this after their window has closed, whatever is asked for (P42): 30 days, in milliseconds.
pub const MAX_KEEP_MS: i64 = 30 * DAY_MS;

/// How long [`Closer::close`] waits for ranges planned before it began.
const PLAN_PATIENCE: Duration = Duration::from_secs(30);

/// How often it looks.
const PLAN_POLL: Duration = Duration::from_millis(50);

/// Where a closed day's person rows lie.
#[must_use]
pub fn table_path(epoch: EpochId) -> String {
    format!("people/{epoch}.parquet")
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
    /// Events counted for the day.
    pub counted: u64,
    /// Events in the merged rows. Where a counter stands at its maximum, a lower bound.
    pub in_rows: u64,
}

/// What a close did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseReport {
    /// The day.
    pub epoch: EpochId,
    /// Whether the window is closed as complete.
    pub complete: bool,
    /// Whether its table was final before this call, which then only finished what came after.
    pub already_closed: bool,
    /// The day's person rows.
    pub table: TableInfo,
    /// Segments merged by this call.
    pub segments: usize,
    /// Events of the day by outcome, over all partitions.
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
    /// Closes a window: merges its segments to `people/<day>.parquet`, then destroys the day's pseudonym key.
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
    /// [`AggregateError::UnknownWindow`], [`AggregateError::Expired`], [`AggregateError::SpillInUse`]; and errors of merging, store and
    /// keyring.
    pub async fn close(&self, epoch: EpochId, complete: bool) -> Result<CloseReport, AggregateError> {
        let closed = self.close_waiting(epoch, complete, PLAN_PATIENCE).await;
        if let (false, Err(AggregateError::Store(StoreError::File { .. } | StoreError::Object { .. }))) = (complete, &closed) {
            // The deadline holds for the key, whether the files can be had now or not; a later call finishes the close.
            self.destroy(KeyKind::Pseudonym, epoch, "deadline").await?;
        }
        closed
    }

    async fn close_waiting(&self, epoch: EpochId, complete: bool, patience: Duration) -> Result<CloseReport, AggregateError> {
        let done = self.close_steps(epoch, complete, patience).await;
        if let Err(error) = &done
            && !complete
            && !matches!(error, AggregateError::UnknownWindow { .. } | AggregateError::Expired { .. })
        {
            // The deadline has passed: the key does not wait for a disk that is full or a database that is away.
            if let Err(error) = self.destroy(KeyKind::Pseudonym, epoch, "deadline").await {
                tracing::error!(day = %epoch, "the day's key could not be destroyed at its deadline; it is tried again: {error}");
            }
        }
        done
    }

    async fn close_steps(&self, epoch: EpochId, complete: bool, patience: Duration) -> Result<CloseReport, AggregateError> {
        let window = self.window(epoch).await?;
        if window.state.is_final() {
            return self.close_again(&window).await;
        }
        self.metastore.begin_close(epoch, self.clock.now_ms()).await?;
        killpoint::reached("after_begin_close");

        let mut shortfall = Shortfall { open_plans: self.wait_for_plans(epoch, patience).await?, ..Shortfall::default() };
        if complete && shortfall.open_plans > 0 {
            return Err(AggregateError::WaitingForPlans { epoch, plans: shortfall.open_plans });
        }
        shortfall.unbalanced_partitions = self.metastore.unbalanced().await?.len();
        if complete && shortfall.unbalanced_partitions > 0 {
            return Err(AggregateError::Unbalanced { epoch, partitions: shortfall.unbalanced_partitions });
        }

        let spill = Spill::open(&self.spill_dir)?;
        let committed = self.metastore.segments(epoch).await?;
        // Read after the segments: had another process finished this close in between, the list would be empty or its files gone.
        let window = self.window(epoch).await?;
        if window.state.is_final() {
            return self.close_again(&window).await;
        }
        let mut segments = committed.clone();
        let (writer, merged) = self.merge(epoch, complete, &mut segments, &mut shortfall, &spill).await?;
        drop(spill);
        shortfall.counted = self.outcomes(epoch).await?.get(Outcome::Counted.label()).copied().unwrap_or(0);
        shortfall.in_rows = merged.events;
        let agree = merged.events == shortfall.counted || (merged.saturated && merged.events < shortfall.counted);
        if complete && !agree {
            return Err(AggregateError::CountsDiffer { epoch, counted: shortfall.counted, in_rows: merged.events });
        }
        if shortfall.open_plans > 0 && self.metastore.segments(epoch).await? != committed {
            // One of those ranges has just been committed: its rows would be dropped unmerged.
            return Err(AggregateError::WaitingForPlans { epoch, plans: shortfall.open_plans });
        }
        let table = writer.finish().await?;
        killpoint::reached("after_merge");

        if !complete {
            self.audit_once("window_incomplete", epoch, shortfall_detail(epoch, &shortfall)).await?;
            tracing::warn!(day = %epoch, ?shortfall, "window closes as incomplete at its deadline");
        }
        match self.metastore.finish_close(epoch, &table, complete, self.clock.now_ms()).await {
            Err(StoreError::PlanOpen) => {
                return Err(AggregateError::WaitingForPlans { epoch, plans: shortfall.open_plans.max(1) });
            }
            other => other?,
        }
        killpoint::reached("after_finish_close");
        let outcomes = self.settle(epoch, complete).await?;
        tracing::info!(day = %epoch, complete, segments = segments.len(), bytes = table.bytes, "window closed");
        Ok(CloseReport {
            epoch,
            complete,
            already_closed: false,
            table,
            segments: segments.len(),
            outcomes,
            shortfall: (!complete).then_some(shortfall),
        })
    }

    /// Finishes what a crash left: keys, segments and log entries of closed windows, and the runs of a merge that died.
    ///
    /// Windows whose close has not come to its table are not touched; [`decide`](crate::decide) names them again. Keys of days that are
    /// closed without ever
    /// having had a window are destroyed: somebody made them, and no event was counted.
    ///
    /// # Errors
    /// Errors of store, keyring and spill folder.
    pub async fn repair(&self) -> Result<(), AggregateError> {
        Spill::sweep(&self.spill_dir)?;
        for window in self.metastore.windows().await? {
            if window.state.is_final() && window.expired_at_ms.is_none() {
                self.settle(window.epoch, window.state == WindowState::Closed).await?;
            }
        }
        self.retire_unused_keys().await
    }

    /// Ends the life of person rows whose window closed at least `keep_ms` ago, and at most [`MAX_KEEP_MS`]: destroys the day's data key
    /// with a
    /// receipt, deletes the table, and marks the window expired. Says which days, oldest first.
    ///
    /// From the key's destruction on, the rows are unreadable in every copy and backup (I7).
    ///
    /// # Errors
    /// Errors of store and keyring; what was not done is done by the next call.
    pub async fn expire(&self, keep_ms: i64) -> Result<Vec<EpochId>, AggregateError> {
        let keep_ms = keep_ms.clamp(0, MAX_KEEP_MS);
        let now_ms = self.clock.now_ms();
        let mut due: Vec<WindowRecord> = self.metastore.windows().await?;
        due.retain(|w| {
            w.expired_at_ms.is_none() && w.closed_at_ms.is_some_and(|closed| now_ms.saturating_sub(closed) >= keep_ms)
        });
        due.sort_unstable_by_key(|w| w.epoch);
        let mut expired = Vec::with_capacity(due.len());
        for window in due {
            let epoch = window.epoch;
            // A pseudonym key that a crash let live must not outlive the rows.
            self.destroy(KeyKind::Pseudonym, epoch, "window expired").await?;
            self.destroy(KeyKind::Data, epoch, "window expired").await?;
            self.files.delete(&window.table.map_or_else(|| table_path(epoch), |t| t.path)).await?;
            self.delete_segments(epoch).await?;
            self.metastore.expire_window(epoch, self.clock.now_ms()).await?;
            tracing::info!(day = %epoch, "person rows expired");
            expired.push(epoch);
        }
        Ok(expired)
    }

    /// Days up to the newest closed one are late for every range planned since. If none planned before is open, nobody will ask for their
    /// keys again.
    async fn retire_unused_keys(&self) -> Result<(), AggregateError> {
        let closed = self.metastore.windows().await?.into_iter().filter(|w| w.state.is_final()).map(|w| w.epoch).max();
        let Some(closed_through) = closed else { return Ok(()) };
        if !self.metastore.open_plans_before(closed_through).await?.is_empty() {
            return Ok(());
        }
        // Read after the plans: what they committed has a window now.
        let windows: BTreeSet<EpochId> = self.metastore.windows().await?.into_iter().map(|w| w.epoch).collect();
        for (id, state) in self.keyring.list()? {
            let over = id.purpose == Purpose::AnalyticsDay && id.epoch <= closed_through && !windows.contains(&id.epoch);
            if over && state == KeyState::Alive {
                self.destroy(id.kind, id.epoch, "day without counted events").await?;
                self.delete_segments(id.epoch).await?;
            }
        }
        Ok(())
    }

    async fn window(&self, epoch: EpochId) -> Result<WindowRecord, AggregateError> {
        let windows = self.metastore.windows().await?;
        windows.into_iter().find(|w| w.epoch == epoch).ok_or(AggregateError::UnknownWindow { epoch })
    }

    /// A close of a window whose table is final.
    async fn close_again(&self, window: &WindowRecord) -> Result<CloseReport, AggregateError> {
        let epoch = window.epoch;
        let (Some(table), None) = (&window.table, window.expired_at_ms) else {
            return Err(AggregateError::Expired { epoch });
        };
        let complete = window.state == WindowState::Closed;
        let outcomes = self.settle(epoch, complete).await?;
        Ok(CloseReport { epoch, complete, already_closed: true, table: table.clone(), segments: 0, outcomes, shortfall: None })
    }

    /// Waits until no range planned before the close is open; says how many are left when patience ends.
    async fn wait_for_plans(&self, epoch: EpochId, patience: Duration) -> Result<usize, AggregateError> {
        let end = tokio::time::Instant::now() + patience;
        loop {
            let plans = self.metastore.open_plans_before(epoch).await?.len();
            if plans == 0 || tokio::time::Instant::now() >= end {
                return Ok(plans);
            }
            tokio::time::sleep(PLAN_POLL).await;
        }
    }

    /// Merges; an incomplete close leaves out segments that are lost.
    async fn merge(
        &self,
        epoch: EpochId,
        complete: bool,
        segments: &mut Vec<SegmentRecord>,
        shortfall: &mut Shortfall,
        spill: &Spill,
    ) -> Result<(TableWriter, Merged), AggregateError> {
        let merger = Merger::new(Arc::new(data_key(&self.keyring, epoch)?), self.memory_bytes)?;
        loop {
            let (path, error) = match merger.merge(&self.files, segments, spill, &table_path(epoch)).await {
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
                    tracing::error!(day = %epoch, path, column, "segment is of another version: the window closes without it");
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
            tracing::error!(day = %epoch, path, "segment is lost: the window closes without it");
            segments.retain(|s| s.path != path);
            shortfall.lost_segments += 1;
        }
    }

    /// Events of a day by outcome.
    async fn outcomes(&self, epoch: EpochId) -> Result<BTreeMap<&'static str, u64>, AggregateError> {
        let mut outcomes = BTreeMap::new();
        for row in self.metastore.counts().await?.into_iter().filter(|row| row.epoch == Some(epoch)) {
            let sum: &mut u64 = outcomes.entry(row.outcome.label()).or_default();
            *sum = sum.saturating_add(row.events);
        }
        Ok(outcomes)
    }

    /// What follows on `finish_close`: log entry, segment files, pseudonym key. Does nothing that is done already.
    async fn settle(&self, epoch: EpochId, complete: bool) -> Result<BTreeMap<&'static str, u64>, AggregateError> {
        let outcomes = self.outcomes(epoch).await?;
        let detail = json!({ "day": epoch.to_string(), "complete": complete, "outcomes": outcomes });
        self.audit_once("window_closed", epoch, detail).await?;
        self.delete_segments(epoch).await?;
        self.destroy(KeyKind::Pseudonym, epoch, "window closed").await?;
        killpoint::reached("after_key_destroyed");
        Ok(outcomes)
    }

    /// Deletes by folder, not by record: this takes along files of ranges that were never committed.
    async fn delete_segments(&self, epoch: EpochId) -> Result<(), AggregateError> {
        // The folder, not the files one by one: a process killed while it wrote a segment left a temporary file that no list shows.
        Ok(self.files.delete_folder(&segment_folder(epoch)).await?)
    }

    async fn destroy(&self, kind: KeyKind, epoch: EpochId, reason: &str) -> Result<(), AggregateError> {
        let id = KeyId { kind, purpose: Purpose::AnalyticsDay, epoch };
        Ok(destroy_with_receipt(&self.keyring, &self.metastore, id, reason, self.clock.now_ms()).await?)
    }

    /// Appends an entry about a day, once for ever.
    async fn audit_once(&self, kind: &str, epoch: EpochId, detail: serde_json::Value) -> Result<(), AggregateError> {
        self.metastore.append_audit_once(&format!("{kind}:{epoch}"), kind, detail, self.clock.now_ms()).await?;
        Ok(())
    }
}

fn shortfall_detail(epoch: EpochId, shortfall: &Shortfall) -> serde_json::Value {
    json!({
        "day": epoch.to_string(),
        "reason": "deadline",
        "open_plans": shortfall.open_plans,
        "unbalanced_partitions": shortfall.unbalanced_partitions,
        "lost_segments": shortfall.lost_segments,
        "events_counted": shortfall.counted,
        "events_in_rows": shortfall.in_rows,
    })
}

#[cfg(test)]
mod tests;
