//! Windows: from open to closed, and what is late.
//!
//! ```text
//!            commit                begin_close              finish_close             expire_window
//!   (none) ─────────► open ────────────────────► closing ─────────────────► closed ────────────────► expired
//!      └─────────────────────── begin_close ───────▲                  └───► incomplete ──┘
//! ```
//!
//! Weeks and months go the same way, when their days have: from their last day's close on, no row of them can come either. Hours go by themselves:
//! what `begin_close` raises for them stands beside what it raises for days (`hours.rs`).
//!
//! `begin_close` raises `closed_through`, which every later plan carries. So once the plans made before it are committed, no further row of
//! the window can come: `finish_close` checks just that in its own transaction, and `commit` refuses rows of a window that is final.

use std::collections::BTreeSet;

use starling_schemas::ids::{EpochId, Span, WindowId};

use super::Metastore;
use super::database::Turn;
use super::progress::{add_segments, epoch_of, open_plans_before};
use super::sql::{Statement, Tx, column, count_column, small_column, sql, stored};
use super::types::{SegmentRecord, WindowRecord, WindowState};
use crate::error::StoreError;
use crate::table::TableInfo;

const TABLE: &str = "windows";

macro_rules! select_windows {
    ($rest:literal) => {
        concat!(
            "SELECT epoch, state, table_path, table_rows, table_bytes, opened_at_ms, closed_at_ms, expired_at_ms, ",
            "gathered_through, swept_through, missed_events FROM windows ",
            $rest
        )
    };
}

impl Metastore {
    /// Every day there is or was, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn windows(&self) -> Result<Vec<WindowRecord>, StoreError> {
        self.windows_of(Span::Day).await
    }

    /// Every window of this length there is or was, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn windows_of(&self, span: Span) -> Result<Vec<WindowRecord>, StoreError> {
        self.read_windows(span, sql(select_windows!("WHERE span = $1 ORDER BY epoch"))).await
    }

    /// Every window of this length whose rows have not expired, oldest first. Of hours there are 24 more every day.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn living_windows(&self, span: Span) -> Result<Vec<WindowRecord>, StoreError> {
        self.read_windows(span, sql(select_windows!("WHERE span = $1 AND expired_at_ms IS NULL ORDER BY epoch"))).await
    }

    async fn read_windows(&self, span: Span, statement: Statement) -> Result<Vec<WindowRecord>, StoreError> {
        let rows = self.database.fetch_all("reading windows", statement.bind(span.name())).await?;
        rows.iter()
            .map(|row| {
                let state: String = column(row, "state", TABLE)?;
                let table = match column::<Option<String>, _>(row, "table_path", TABLE)? {
                    None => None,
                    Some(path) => Some(TableInfo {
                        path,
                        rows: count_column(row, "table_rows", TABLE)?,
                        bytes: count_column(row, "table_bytes", TABLE)?,
                    }),
                };
                Ok(WindowRecord {
                    span,
                    epoch: EpochId(small_column(row, "epoch", TABLE)?),
                    state: WindowState::parse(&state).ok_or(StoreError::UnreadableRow { table: TABLE })?,
                    table,
                    opened_at_ms: column(row, "opened_at_ms", TABLE)?,
                    closed_at_ms: column(row, "closed_at_ms", TABLE)?,
                    expired_at_ms: column(row, "expired_at_ms", TABLE)?,
                    gathered_through: epoch_of(column(row, "gathered_through", TABLE)?, TABLE)?,
                    swept_through: epoch_of(column(row, "swept_through", TABLE)?, TABLE)?,
                    missed_events: count_column(row, "missed_events", TABLE)?,
                })
            })
            .collect()
    }

    /// Sets a window to closing, and makes later plans treat events of its days and all days before as late; of an hour, keep nobody in it and in the
    /// hours before. May be called again.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn begin_close(&self, window: impl Into<WindowId>, now_ms: i64) -> Result<(), StoreError> {
        const DURING: &str = "beginning to close a window";
        let window = window.into();
        self.database
            .change(DURING, Turn::Closing, |tx| async move {
                tx.execute(
                    sql("INSERT INTO windows (span, epoch, state, opened_at_ms, closing_at_ms) VALUES ($1, $2, \
             'closing', $3, $3) ON CONFLICT (span, epoch) DO UPDATE SET state = 'closing', \
             closing_at_ms = excluded.closing_at_ms WHERE windows.state = 'open'")
                    .bind(window.span.name())
                    .bind(i64::from(window.epoch.0))
                    .bind(now_ms),
                )
                .await?;
                let raise = if window.span == Span::Hour {
                    "UPDATE closing SET hours_after = $1 WHERE id = 1 AND (hours_after IS NULL OR hours_after < $1)"
                } else {
                    "UPDATE closing SET closed_through = $1 WHERE id = 1 AND (closed_through IS NULL OR closed_through < $1)"
                };
                tx.execute(sql(raise).bind(i64::from(window.last().0))).await?;
                Ok(())
            })
            .await
    }

    /// The segments that wait for a window's merge, by path.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn segments(&self, window: impl Into<WindowId>) -> Result<Vec<SegmentRecord>, StoreError> {
        const TABLE: &str = "segments";
        let window = window.into();
        let rows = self.database.fetch_all("reading segments", segments_of(window)).await?;
        rows.iter()
            .map(|row| {
                Ok(SegmentRecord {
                    window,
                    path: column(row, "path", TABLE)?,
                    rows: count_column(row, "row_count", TABLE)?,
                    bytes: count_column(row, "bytes", TABLE)?,
                })
            })
            .collect()
    }

    /// Puts one segment into the place of all those in `gathered`, which is what `segments` said, as of the close of the day `through`.
    ///
    /// `false`, and nothing has changed: the window is being closed, one of them is not there any more, or somebody else was faster.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn gather_segments(
        &self,
        gathered: &[SegmentRecord],
        into: &SegmentRecord,
        through: EpochId,
    ) -> Result<bool, StoreError> {
        const DURING: &str = "gathering segments";
        let window = into.window;
        self.database
            .change(DURING, Turn::Closing, |tx| async move {
                let row = tx
                    .fetch_optional(
                        sql("SELECT gathered_through, swept_through FROM windows WHERE span = $1 AND epoch = $2 AND state = \
             'open'")
                        .bind(window.span.name())
                        .bind(i64::from(window.epoch.0)),
                    )
                    .await?;
                let Some(row) = row else { return Ok(false) };
                let before: Option<i64> = column(&row, 0, TABLE)?;
                if before.is_some_and(|before| before >= i64::from(through.0)) {
                    return Ok(false);
                }
                let mut there = BTreeSet::new();
                for row in tx.fetch_all(segments_of(window)).await? {
                    there.insert(column::<String, _>(&row, "path", "segments")?);
                }
                if gathered.iter().any(|segment| !there.contains(&segment.path)) {
                    return Ok(false);
                }
                for segment in gathered {
                    tx.execute(sql("DELETE FROM segments WHERE path = $1").bind(&segment.path)).await?;
                }
                add_segments(&tx, std::slice::from_ref(into)).await?;
                tx.execute(
                    sql("UPDATE windows SET gathered_through = $1 WHERE span = $2 AND epoch = $3")
                        .bind(i64::from(through.0))
                        .bind(window.span.name())
                        .bind(i64::from(window.epoch.0)),
                )
                .await?;
                Ok(true)
            })
            .await
    }

    /// Notes that the files of what was gathered as of `through` are gone.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn note_swept(&self, window: WindowId, through: EpochId) -> Result<(), StoreError> {
        self.database
            .change("noting swept segments", Turn::Closing, |tx| async move {
                tx.execute(
                    sql("UPDATE windows SET swept_through = $1 WHERE span = $2 AND epoch = $3")
                        .bind(i64::from(through.0))
                        .bind(window.span.name())
                        .bind(i64::from(window.epoch.0)),
                )
                .await?;
                Ok(())
            })
            .await
    }

    /// Makes a window final with its merged table, and forgets its segments. A window that is final already stays as it is.
    ///
    /// # Errors
    /// [`StoreError::NotClosing`] before [`Self::begin_close`]; [`StoreError::PlanOpen`] for a complete close while a plan made
    /// before it is open (an incomplete one does not wait: its deadline has passed, and `commit` refuses what comes later);
    /// [`StoreError::Database`].
    pub async fn finish_close(
        &self,
        window: impl Into<WindowId>,
        table: &TableInfo,
        complete: bool,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        const DURING: &str = "finishing the close of a window";
        let window = window.into();
        self.database
            .change(DURING, Turn::Closing, |tx| async move {
                match state(&tx, window).await? {
                    None | Some(WindowState::Open) => return Err(StoreError::NotClosing),
                    Some(WindowState::Closed | WindowState::Incomplete) => return Ok(()),
                    Some(WindowState::Closing) => {}
                }
                if complete && !open_plans_before(&tx, window.last()).await?.is_empty() {
                    return Err(StoreError::PlanOpen);
                }
                let state = if complete { WindowState::Closed } else { WindowState::Incomplete };
                tx.execute(
                    sql("UPDATE windows SET state = $1, table_path = $2, table_rows = $3, table_bytes = $4, \
             closed_at_ms = $5 WHERE span = $6 AND epoch = $7")
                    .bind(state.name())
                    .bind(&table.path)
                    .bind(stored(table.rows))
                    .bind(stored(table.bytes))
                    .bind(now_ms)
                    .bind(window.span.name())
                    .bind(i64::from(window.epoch.0)),
                )
                .await?;
                forget_segments(&tx, window).await?;
                Ok(())
            })
            .await
    }

    /// Notes that a window's rows are gone. The first time counts. All but a day may expire before they were closed: their time runs from their beginning.
    ///
    /// # Errors
    /// [`StoreError::NotClosed`] for a day that is not final, and for a window that there is none of; [`StoreError::Database`].
    pub async fn expire_window(&self, window: impl Into<WindowId>, now_ms: i64) -> Result<(), StoreError> {
        const DURING: &str = "expiring a window";
        let window = window.into();
        self.database
            .change(DURING, Turn::Closing, |tx| async move {
                let state = state(&tx, window).await?.ok_or(StoreError::NotClosed)?;
                if window.span == Span::Day && !state.is_final() {
                    return Err(StoreError::NotClosed);
                }
                // What was never closed is final now: no row may come to it.
                tx.execute(
                    sql("UPDATE windows SET expired_at_ms = COALESCE(expired_at_ms, $1), \
             closed_at_ms = COALESCE(closed_at_ms, $1), \
             state = CASE state WHEN 'closed' THEN 'closed' ELSE 'incomplete' END WHERE span = $2 AND epoch = $3")
                    .bind(now_ms)
                    .bind(window.span.name())
                    .bind(i64::from(window.epoch.0)),
                )
                .await?;
                forget_segments(&tx, window).await
            })
            .await
    }
}

fn segments_of(window: WindowId) -> Statement {
    sql("SELECT path, row_count, bytes FROM segments WHERE span = $1 AND epoch = $2 ORDER BY path COLLATE \"C\"")
        .bind(window.span.name())
        .bind(i64::from(window.epoch.0))
}

async fn forget_segments(tx: &Tx, window: WindowId) -> Result<(), StoreError> {
    let forget = sql("DELETE FROM segments WHERE span = $1 AND epoch = $2");
    tx.execute(forget.bind(window.span.name()).bind(i64::from(window.epoch.0))).await?;
    Ok(())
}

/// Makes a window that has its first rows, or refuses rows of a final one.
pub(super) async fn open(tx: &Tx, window: WindowId, now_ms: i64) -> Result<(), StoreError> {
    match state(tx, window).await? {
        Some(WindowState::Open | WindowState::Closing) => Ok(()),
        Some(WindowState::Closed | WindowState::Incomplete) => Err(StoreError::WindowClosed),
        None => {
            tx.execute(
                sql("INSERT INTO windows (span, epoch, state, opened_at_ms) VALUES ($1, $2, 'open', $3)")
                    .bind(window.span.name())
                    .bind(i64::from(window.epoch.0))
                    .bind(now_ms),
            )
            .await?;
            Ok(())
        }
    }
}

/// The last day whose events are late.
pub(super) async fn closed_through(tx: &Tx) -> Result<Option<EpochId>, StoreError> {
    let row = tx.fetch_one(sql("SELECT closed_through FROM closing WHERE id = 1")).await?;
    epoch_of(column(&row, 0, "closing")?, "closing")
}

async fn state(tx: &Tx, window: WindowId) -> Result<Option<WindowState>, StoreError> {
    let state = sql("SELECT state FROM windows WHERE span = $1 AND epoch = $2");
    let row = tx.fetch_optional(state.bind(window.span.name()).bind(i64::from(window.epoch.0))).await?;
    row.map(|row| WindowState::parse(&column::<String, _>(&row, 0, TABLE)?).ok_or(StoreError::UnreadableRow { table: TABLE }))
        .transpose()
}
