//! Releases: one per metric and window, for ever (I3).

use starling_schemas::ids::EpochId;
use starling_schemas::metrics::NanoRho;

use super::Metastore;
use super::database::Turn;
use super::sql::{column, count_column, small_column, sql, stored};
use super::types::ReleaseRecord;
use crate::error::StoreError;

impl Metastore {
    /// Records a release whose file is durable. `false`: the metric's window has one already, which stays as it is.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn record_release(&self, release: &ReleaseRecord) -> Result<bool, StoreError> {
        self.database
            .change("recording a release", Turn::Releases, |tx| async move {
                let done = tx
                    .execute(
                        sql("INSERT INTO releases (metric, epoch, path, blake3, row_count, suppressed, nano_rho, \
             epsilon, delta, released_at_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON \
             CONFLICT (metric, epoch) DO NOTHING")
                        .bind(&release.metric)
                        .bind(i64::from(release.epoch.0))
                        .bind(&release.path)
                        .bind(&release.blake3)
                        .bind(stored(release.rows))
                        .bind(stored(release.suppressed))
                        .bind(release.rho.0)
                        .bind(release.epsilon)
                        .bind(release.delta)
                        .bind(release.released_at_ms),
                    )
                    .await?;
                Ok(done == 1)
            })
            .await
    }

    /// All releases, by metric and window.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn releases(&self) -> Result<Vec<ReleaseRecord>, StoreError> {
        const TABLE: &str = "releases";
        let rows = self
            .database
            .fetch_all(
                "reading releases",
                sql("SELECT metric, epoch, path, blake3, row_count, suppressed, nano_rho, epsilon, \
             delta, released_at_ms FROM releases ORDER BY metric COLLATE \"C\", epoch"),
            )
            .await?;
        rows.iter()
            .map(|row| {
                Ok(ReleaseRecord {
                    metric: column(row, "metric", TABLE)?,
                    epoch: EpochId(small_column(row, "epoch", TABLE)?),
                    path: column(row, "path", TABLE)?,
                    blake3: column(row, "blake3", TABLE)?,
                    rows: count_column(row, "row_count", TABLE)?,
                    suppressed: count_column(row, "suppressed", TABLE)?,
                    rho: NanoRho(column(row, "nano_rho", TABLE)?),
                    epsilon: column(row, "epsilon", TABLE)?,
                    delta: column(row, "delta", TABLE)?,
                    released_at_ms: column(row, "released_at_ms", TABLE)?,
                })
            })
            .collect()
    }
}
