//! Releases: one per metric and window, for ever (I3).

use starling_schemas::ids::EpochId;
use starling_schemas::metrics::NanoRho;

use super::Metastore;
use super::database::Turn;
use super::sql::{Row, column, count_column, small_column, sql, stored};
use super::types::{NewestRelease, ReleaseRecord};
use crate::error::StoreError;

const TABLE: &str = "releases";

/// A SELECT of releases as [`record`] reads them.
macro_rules! select {
    ($more:literal, $rest:literal) => {
        concat!(
            "SELECT ",
            $more,
            "metric, epoch, path, blake3, row_count, suppressed, nano_rho, epsilon, delta, released_at_ms FROM releases ",
            $rest
        )
    };
}

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
             epsilon, delta, released_at_ms, number) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, \
             (SELECT COALESCE(MAX(number), 0) + 1 FROM releases)) ON CONFLICT (metric, epoch) DO NOTHING")
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
        let text = select!("", "ORDER BY metric COLLATE \"C\", epoch");
        let rows = self.database.fetch_all("reading releases", sql(text)).await?;
        rows.iter().map(record).collect()
    }

    /// The newest release: as long as it is the same, so are all, for nothing of them is changed or taken away. `None` before the first.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn newest_release(&self) -> Result<Option<NewestRelease>, StoreError> {
        let text = "SELECT number, blake3 FROM releases ORDER BY number DESC LIMIT 1";
        let rows = self.database.fetch_all("reading releases", sql(text)).await?;
        rows.first().map(newest).transpose()
    }

    /// What was recorded after a release that is known, in that order, and the newest of it; `None` when that release is not there, as in another
    /// database.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn releases_since(&self, known: &NewestRelease) -> Result<Option<Vec<(NewestRelease, ReleaseRecord)>>, StoreError> {
        let text = select!("number, ", "WHERE number >= $1 ORDER BY number");
        let rows = self.database.fetch_all("reading releases", sql(text).bind(known.number)).await?;
        let Some((first, later)) = rows.split_first() else { return Ok(None) };
        if newest(first)? != *known {
            return Ok(None);
        }
        later.iter().map(|row| Ok((newest(row)?, record(row)?))).collect::<Result<_, _>>().map(Some)
    }
}

fn newest(row: &Row) -> Result<NewestRelease, StoreError> {
    Ok(NewestRelease { number: column(row, "number", TABLE)?, blake3: column(row, "blake3", TABLE)? })
}

fn record(row: &Row) -> Result<ReleaseRecord, StoreError> {
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
}
