//! Windows: from open to closed, and what is late.
//!
//! ```text
//!            commit                begin_close              finish_close             expire_window
//!   (none) ─────────► open ────────────────────► closing ─────────────────► closed ────────────────► expired
//!      └─────────────────────── begin_close ───────▲                  └───► incomplete ──┘
//! ```
//!
//! `begin_close` raises `closed_through`, which every later plan carries. So once the plans made before it are committed, no further row of
//! the window can come: `finish_close` checks just that in its own transaction, and `commit` refuses rows of a window that is final.

use starling_schemas::ids::EpochId;

use super::Metastore;
use super::database::Turn;
use super::progress::{epoch_of, open_plans_before};
use super::sql::{Tx, column, count_column, small_column, sql, stored};
use super::types::{SegmentRecord, WindowRecord, WindowState};
use crate::error::StoreError;
use crate::table::TableInfo;

const TABLE: &str = "windows";

impl Metastore {
    /// Every window there is or was, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn windows(&self) -> Result<Vec<WindowRecord>, StoreError> {
        let rows = self
            .database
            .fetch_all(
                "reading windows",
                sql("SELECT epoch, state, table_path, table_rows, table_bytes, opened_at_ms, \
             closed_at_ms, expired_at_ms FROM windows ORDER BY epoch"),
            )
            .await?;
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
                    epoch: EpochId(small_column(row, "epoch", TABLE)?),
                    state: WindowState::parse(&state).ok_or(StoreError::UnreadableRow { table: TABLE })?,
                    table,
                    opened_at_ms: column(row, "opened_at_ms", TABLE)?,
                    closed_at_ms: column(row, "closed_at_ms", TABLE)?,
                    expired_at_ms: column(row, "expired_at_ms", TABLE)?,
                })
            })
            .collect()
    }

    /// Sets a window to closing, and makes later plans treat events of this day and all days before it as late. May be called again.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn begin_close(&self, epoch: EpochId, now_ms: i64) -> Result<(), StoreError> {
        const DURING: &str = "beginning to close a window";
        self.database
            .change(DURING, Turn::Closing, |tx| async move {
                tx.execute(
                    sql("INSERT INTO windows (epoch, state, opened_at_ms, closing_at_ms) VALUES ($1, \
             'closing', $2, $2) ON CONFLICT (epoch) DO UPDATE SET state = 'closing', \
             closing_at_ms = excluded.closing_at_ms WHERE windows.state = 'open'")
                    .bind(i64::from(epoch.0))
                    .bind(now_ms),
                )
                .await?;
                tx.execute(
                    sql("UPDATE closing SET closed_through = $1 WHERE id = 1 AND (closed_through IS NULL OR \
             closed_through < $1)")
                    .bind(i64::from(epoch.0)),
                )
                .await?;
                Ok(())
            })
            .await
    }

    /// The segments that wait for a window's merge, by path.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn segments(&self, epoch: EpochId) -> Result<Vec<SegmentRecord>, StoreError> {
        const TABLE: &str = "segments";
        let rows = self
            .database
            .fetch_all(
                "reading segments",
                sql("SELECT path, row_count, bytes FROM segments WHERE epoch = $1 ORDER BY path COLLATE \
             \"C\"")
                .bind(i64::from(epoch.0)),
            )
            .await?;
        rows.iter()
            .map(|row| {
                Ok(SegmentRecord {
                    epoch,
                    path: column(row, "path", TABLE)?,
                    rows: count_column(row, "row_count", TABLE)?,
                    bytes: count_column(row, "bytes", TABLE)?,
                })
            })
            .collect()
    }

    /// Makes a window final with its merged table, and forgets its segments. A window that is final already stays as it is.
    ///
    /// # Errors
    /// [`StoreError::NotClosing`] before [`Self::begin_close`]; [`StoreError::PlanOpen`] for a complete close while a plan made
    /// before it is open (an incomplete one does not wait: its deadline has passed, and `commit` refuses what comes later);
    /// [`StoreError::Database`].
    pub async fn finish_close(&self, epoch: EpochId, table: &TableInfo, complete: bool, now_ms: i64) -> Result<(), StoreError> {
        const DURING: &str = "finishing the close of a window";
        self.database
            .change(DURING, Turn::Closing, |tx| async move {
                match state(&tx, epoch).await? {
                    None | Some(WindowState::Open) => return Err(StoreError::NotClosing),
                    Some(WindowState::Closed | WindowState::Incomplete) => return Ok(()),
                    Some(WindowState::Closing) => {}
                }
                if complete && !open_plans_before(&tx, epoch).await?.is_empty() {
                    return Err(StoreError::PlanOpen);
                }
                let state = if complete { WindowState::Closed } else { WindowState::Incomplete };
                tx.execute(
                    sql("UPDATE windows SET state = $1, table_path = $2, table_rows = $3, table_bytes = $4, \
             closed_at_ms = $5 WHERE epoch = $6")
                    .bind(state.name())
                    .bind(&table.path)
                    .bind(stored(table.rows))
                    .bind(stored(table.bytes))
                    .bind(now_ms)
                    .bind(i64::from(epoch.0)),
                )
                .await?;
                tx.execute(sql("DELETE FROM segments WHERE epoch = $1").bind(i64::from(epoch.0))).await?;
                Ok(())
            })
            .await
    }

    /// Notes that a final window's rows are gone. The first time counts.
    ///
    /// # Errors
    /// [`StoreError::NotClosed`] for a window that is not final; [`StoreError::Database`].
    pub async fn expire_window(&self, epoch: EpochId, now_ms: i64) -> Result<(), StoreError> {
        const DURING: &str = "expiring a window";
        self.database
            .change(DURING, Turn::Closing, |tx| async move {
                if !state(&tx, epoch).await?.is_some_and(WindowState::is_final) {
                    return Err(StoreError::NotClosed);
                }
                tx.execute(
                    sql("UPDATE windows SET expired_at_ms = COALESCE(expired_at_ms, $1) WHERE epoch = $2")
                        .bind(now_ms)
                        .bind(i64::from(epoch.0)),
                )
                .await?;
                Ok(())
            })
            .await
    }
}

/// Makes a window that has its first rows, or refuses rows of a final one.
pub(super) async fn open(tx: &Tx, epoch: EpochId, now_ms: i64) -> Result<(), StoreError> {
    match state(tx, epoch).await? {
        Some(WindowState::Open | WindowState::Closing) => Ok(()),
        Some(WindowState::Closed | WindowState::Incomplete) => Err(StoreError::WindowClosed),
        None => {
            tx.execute(
                sql("INSERT INTO windows (epoch, state, opened_at_ms) VALUES ($1, 'open', $2)")
                    .bind(i64::from(epoch.0))
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

async fn state(tx: &Tx, epoch: EpochId) -> Result<Option<WindowState>, StoreError> {
    let row = tx.fetch_optional(sql("SELECT state FROM windows WHERE epoch = $1").bind(i64::from(epoch.0))).await?;
    row.map(|row| WindowState::parse(&column::<String, _>(&row, 0, TABLE)?).ok_or(StoreError::UnreadableRow { table: TABLE }))
        .transpose()
}
