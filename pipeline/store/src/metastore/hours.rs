//! Whether who was there is kept by the hour, since when, and what came too late for it.
//!
//! A setting asks for hours, and each plan says whether they are kept and from where on, so a range that is replayed by a process with another setting
//! leaves the same rows. When hours are turned on, events of hours that have begun may have been read without: everybody is in the hours after
//! the latest event that was read, or may be in the work that is planned, and in none before. The one hour that this event is in is kept, and is
//! incomplete; so is every hour that was open while hours were off. Nothing is kept of earlier ones.

use starling_schemas::ids::EpochId;

use super::Metastore;
use super::database::Turn;
use super::progress::epoch_of;
use super::sql::{Tx, column, sql, stored};
use crate::error::StoreError;

const TABLE: &str = "closing";

/// From which hours on people are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hours {
    /// Whether plans keep who was there in hours.
    pub on: bool,
    /// The last hour that nobody is kept in any more. `None`: there was none yet.
    pub after: Option<EpochId>,
    /// The first hour that has everybody. `None`: all of them have.
    pub whole_from: Option<EpochId>,
}

impl Hours {
    /// What a plan that is made now is told: the hour after which people are kept.
    pub(super) fn planned(self) -> Option<EpochId> {
        self.on.then(|| self.after.unwrap_or_else(|| EpochId::hour_of(i64::MIN)))
    }

    /// Whether everybody who was counted in an hour is in its rows, as far as the setting goes.
    #[must_use]
    pub fn is_whole(self, hour: EpochId) -> bool {
        self.on && self.whole_from.is_none_or(|from| hour >= from)
    }

    /// Turned on or off, when events up to `latest_ms` were read; `None`: none was.
    #[must_use]
    pub fn turned(self, on: bool, latest_ms: Option<i64>) -> Self {
        if on == self.on {
            return self;
        }
        let Some(hour) = latest_ms.map(EpochId::hour_of).filter(|_| on) else { return Self { on, ..self } };
        let next = EpochId(hour.0.saturating_add(1));
        Self { on, after: self.after.max(Some(hour.before())), whole_from: self.whole_from.max(Some(next)) }
    }
}

impl Metastore {
    /// Turns the keeping of hours on or off for the plans made from now on, if it is not so already. Says whether it was not.
    ///
    /// `disorder_ms`: how far watermarks stay behind the latest event that was read; `tolerance_ms`: how far events of a planned range may be ahead of
    /// its plan. Both only make the first hour that is complete a later one.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn turn_hours(&self, on: bool, disorder_ms: i64, tolerance_ms: i64) -> Result<bool, StoreError> {
        self.database
            .change("turning hours on or off", Turn::Closing, |tx| async move {
                let before = load(&tx).await?;
                let latest = "SELECT MAX(watermark_ms) AS read_ms, MAX(planned_at_ms) AS planned_ms FROM partitions";
                let row = tx.fetch_one(sql(latest)).await?;
                let read: Option<i64> = column(&row, "read_ms", "partitions")?;
                let planned: Option<i64> = column(&row, "planned_ms", "partitions")?;
                let latest = read.map(|ms| ms.saturating_add(disorder_ms)).max(planned.map(|ms| ms.saturating_add(tolerance_ms)));
                let after = before.turned(on, latest);
                if after == before {
                    return Ok(false);
                }
                tx.execute(
                    sql("UPDATE closing SET hours_on = $1, hours_after = $2, hours_whole_from = $3 WHERE id = 1")
                        .bind(i64::from(after.on))
                        .bind(after.after.map(|e| i64::from(e.0)))
                        .bind(after.whole_from.map(|e| i64::from(e.0))),
                )
                .await?;
                Ok(true)
            })
            .await
    }

    /// From which hours on people are kept.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn hours(&self) -> Result<Hours, StoreError> {
        let tx = self.database.snapshot("reading what hours are kept").await?;
        let hours = load(&tx).await?;
        tx.rollback().await;
        Ok(hours)
    }
}

pub(super) async fn load(tx: &Tx) -> Result<Hours, StoreError> {
    let row = tx.fetch_one(sql("SELECT hours_on, hours_after, hours_whole_from FROM closing WHERE id = 1")).await?;
    Ok(Hours {
        on: column::<i64, _>(&row, "hours_on", TABLE)? != 0,
        after: epoch_of(column(&row, "hours_after", TABLE)?, TABLE)?,
        whole_from: epoch_of(column(&row, "hours_whole_from", TABLE)?, TABLE)?,
    })
}

/// Counts what came too late for hours. Those that nobody was kept in have nothing to count at.
pub(super) async fn add_missed(tx: &Tx, missed: &[(EpochId, u64)]) -> Result<(), StoreError> {
    for (hour, events) in missed {
        tx.execute(
            sql("UPDATE windows SET missed_events = missed_events + $1 WHERE span = 'hour' AND epoch = $2")
                .bind(stored(*events))
                .bind(i64::from(hour.0)),
        )
        .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use starling_schemas::ids::HOUR_MS;

    use super::*;

    fn hour(n: i64) -> EpochId {
        EpochId::hour_of(n * HOUR_MS)
    }

    #[test]
    fn the_first_hour_that_is_whole_began_after_everything_that_was_read_without() {
        let never = Hours::default();
        assert_eq!((never.planned(), never.is_whole(hour(7))), (None, false));
        // Nothing was read: everything will be.
        let fresh = never.turned(true, None);
        assert!(fresh.is_whole(hour(-9_999)) && fresh.planned().is_some_and(|after| after < hour(-9_999)));
        let late = never.turned(true, Some(7 * HOUR_MS));
        assert_eq!((late.planned(), late.is_whole(hour(7)), late.is_whole(hour(8))), (Some(hour(6)), false, true));
        assert_eq!(late.turned(true, Some(99 * HOUR_MS)), late, "it was on");
        let off = late.turned(false, Some(9 * HOUR_MS));
        assert_eq!((off.planned(), off.is_whole(hour(9))), (None, false), "what is open while it is off is not whole");
        let again = off.turned(true, Some(11 * HOUR_MS));
        assert_eq!((again.planned(), again.is_whole(hour(11)), again.is_whole(hour(12))), (Some(hour(10)), false, true));
        // Clocks and files may have gone back: what was over stays over.
        let back = Hours { after: Some(hour(20)), ..off }.turned(true, Some(3 * HOUR_MS));
        assert_eq!((back.planned(), back.is_whole(hour(8))), (Some(hour(20)), true));
    }
}
