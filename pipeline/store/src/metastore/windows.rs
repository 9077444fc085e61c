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

use sqlx::SqliteConnection;
use starling_schemas::ids::EpochId;

use super::progress::{epoch_of, open_plans_before};
use super::types::{SegmentRecord, WindowRecord, WindowState};
use super::{Metastore, column, count_column, failed, small_column, stored};
use crate::error::StoreError;
use crate::table::TableInfo;

const TABLE: &str = "windows";

impl Metastore {
    /// Every window there is or was, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn windows(&self) -> Result<Vec<WindowRecord>, StoreError> {
        let rows = sqlx::query(
            "SELECT epoch, state, table_path, table_rows, table_bytes, opened_at_ms, closed_at_ms, expired_at_ms FROM windows ORDER BY epoch",
        )
        .fetch_all(&self.readers)
        .await
        .map_err(failed("reading windows"))?;
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
        let mut tx = self.begin(DURING).await?;
        sqlx::query(
            "INSERT INTO windows (epoch, state, opened_at_ms, closing_at_ms) VALUES ($1, 'closing', $2, $2) \
             ON CONFLICT (epoch) DO UPDATE SET state = 'closing', closing_at_ms = excluded.closing_at_ms WHERE windows.state = 'open'",
        )
        .bind(i64::from(epoch.0))
        .bind(now_ms)
        .execute(&mut *tx)
        .await
        .map_err(failed(DURING))?;
        sqlx::query("UPDATE closing SET closed_through = $1 WHERE id = 1 AND (closed_through IS NULL OR closed_through < $1)")
            .bind(i64::from(epoch.0))
            .execute(&mut *tx)
            .await
            .map_err(failed(DURING))?;
        tx.commit().await.map_err(failed(DURING))
    }

    /// The segments that wait for a window's merge, by path.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn segments(&self, epoch: EpochId) -> Result<Vec<SegmentRecord>, StoreError> {
        const TABLE: &str = "segments";
        let rows = sqlx::query("SELECT path, row_count, bytes FROM segments WHERE epoch = $1 ORDER BY path")
            .bind(i64::from(epoch.0))
            .fetch_all(&self.readers)
            .await
            .map_err(failed("reading segments"))?;
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
        let mut tx = self.begin(DURING).await?;
        match state(&mut tx, epoch).await? {
            None | Some(WindowState::Open) => return Err(StoreError::NotClosing),
            Some(WindowState::Closed | WindowState::Incomplete) => return Ok(()),
            Some(WindowState::Closing) => {}
        }
        if complete && !open_plans_before(&mut tx, epoch).await?.is_empty() {
            return Err(StoreError::PlanOpen);
        }
        let state = if complete { WindowState::Closed } else { WindowState::Incomplete };
        sqlx::query(
            "UPDATE windows SET state = $1, table_path = $2, table_rows = $3, table_bytes = $4, closed_at_ms = $5 WHERE epoch = $6",
        )
        .bind(state.name())
        .bind(&table.path)
        .bind(stored(table.rows))
        .bind(stored(table.bytes))
        .bind(now_ms)
        .bind(i64::from(epoch.0))
        .execute(&mut *tx)
        .await
        .map_err(failed(DURING))?;
        sqlx::query("DELETE FROM segments WHERE epoch = $1")
            .bind(i64::from(epoch.0))
            .execute(&mut *tx)
            .await
            .map_err(failed(DURING))?;
        tx.commit().await.map_err(failed(DURING))
    }

    /// Notes that a final window's rows are gone. The first time counts.
    ///
    /// # Errors
    /// [`StoreError::NotClosed`] for a window that is not final; [`StoreError::Database`].
    pub async fn expire_window(&self, epoch: EpochId, now_ms: i64) -> Result<(), StoreError> {
        const DURING: &str = "expiring a window";
        let mut tx = self.begin(DURING).await?;
        if !state(&mut tx, epoch).await?.is_some_and(WindowState::is_final) {
            return Err(StoreError::NotClosed);
        }
        sqlx::query("UPDATE windows SET expired_at_ms = COALESCE(expired_at_ms, $1) WHERE epoch = $2")
            .bind(now_ms)
            .bind(i64::from(epoch.0))
            .execute(&mut *tx)
            .await
            .map_err(failed(DURING))?;
        tx.commit().await.map_err(failed(DURING))
    }
}

/// Makes a window that has its first rows, or refuses rows of a final one.
pub(super) async fn open(connection: &mut SqliteConnection, epoch: EpochId, now_ms: i64) -> Result<(), StoreError> {
    match state(connection, epoch).await? {
        Some(WindowState::Open | WindowState::Closing) => Ok(()),
        Some(WindowState::Closed | WindowState::Incomplete) => Err(StoreError::WindowClosed),
        None => {
            sqlx::query("INSERT INTO windows (epoch, state, opened_at_ms) VALUES ($1, 'open', $2)")
                .bind(i64::from(epoch.0))
                .bind(now_ms)
                .execute(connection)
                .await
                .map_err(failed("opening a window"))?;
            Ok(())
        }
    }
}

/// The last day whose events are late.
pub(super) async fn closed_through(connection: &mut SqliteConnection) -> Result<Option<EpochId>, StoreError> {
    let day: Option<i64> = sqlx::query_scalar("SELECT closed_through FROM closing WHERE id = 1")
        .fetch_one(connection)
        .await
        .map_err(failed("reading what is late"))?;
    epoch_of(day, "closing")
}

async fn state(connection: &mut SqliteConnection, epoch: EpochId) -> Result<Option<WindowState>, StoreError> {
    let name: Option<String> = sqlx::query_scalar("SELECT state FROM windows WHERE epoch = $1")
        .bind(i64::from(epoch.0))
        .fetch_optional(connection)
        .await
        .map_err(failed("reading a window's state"))?;
    name.map(|name| WindowState::parse(&name).ok_or(StoreError::UnreadableRow { table: TABLE })).transpose()
}
