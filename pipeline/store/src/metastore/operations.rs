//! What the engineer on call reads: open plans, the quarantine, and whether the metastore answers. Nothing here decides anything.

use starling_schemas::codes::Fault;
use starling_schemas::ids::Offset;

use super::Metastore;
use super::progress::{open_plan_of, partition_of, select_partitions};
use super::sql::{column, count_column, sql};
use super::types::{Plan, QuarantineEntry, QuarantineFilter, QuarantineRecord};
use crate::error::StoreError;

const TABLE: &str = "quarantine";

impl Metastore {
    /// Asks for one row. It says that the database answers readers, and nothing else.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn ping(&self) -> Result<(), StoreError> {
        let statement = sql("SELECT id FROM closing WHERE id = 1");
        self.database.fetch_all("asking whether it answers", statement).await.map(|_| ())
    }

    /// Every range that is planned and not committed, in order of partitions.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn open_plans(&self) -> Result<Vec<Plan>, StoreError> {
        let statement = sql(select_partitions!("WHERE plan_from IS NOT NULL ORDER BY source COLLATE \"C\", number"));
        self.database.fetch_all("reading open plans", statement).await?.iter().map(open_plan_of).collect()
    }

    /// Unreadable events, newest first: where each was, why it could not be read, its length and when it was committed. The bytes are kept
    /// nowhere.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn quarantine_list(&self, filter: &QuarantineFilter) -> Result<Vec<QuarantineEntry>, StoreError> {
        let statement = sql("SELECT source, number, position, fault, length, at_ms FROM quarantine WHERE at_ms \
             >= $1 AND ($2 = '' OR fault = $2) ORDER BY at_ms DESC, source COLLATE \"C\", number, \
             position DESC LIMIT $3")
        .bind(filter.since_ms.unwrap_or(i64::MIN))
        .bind(filter.fault.map_or("", Fault::name))
        .bind(i64::from(filter.limit));
        let rows = self.database.fetch_all("reading the quarantine", statement).await?;
        rows.iter()
            .map(|row| {
                let fault: String = column(row, "fault", TABLE)?;
                let record = QuarantineRecord {
                    offset: Offset(column(row, "position", TABLE)?),
                    fault: Fault::parse(&fault).ok_or(StoreError::UnreadableRow { table: TABLE })?,
                    length: count_column(row, "length", TABLE)?,
                };
                Ok(QuarantineEntry { partition: partition_of(row, TABLE)?, record, at_ms: column(row, "at_ms", TABLE)? })
            })
            .collect()
    }

    /// How many unreadable events there are of each class that has some, in order of class names.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn quarantine_counts(&self, since_ms: Option<i64>) -> Result<Vec<(Fault, u64)>, StoreError> {
        let statement = sql("SELECT fault, COUNT(*) AS events FROM quarantine WHERE at_ms >= $1 GROUP BY fault \
             ORDER BY fault COLLATE \"C\"")
        .bind(since_ms.unwrap_or(i64::MIN));
        let rows = self.database.fetch_all("counting the quarantine", statement).await?;
        rows.iter()
            .map(|row| {
                let fault: String = column(row, "fault", TABLE)?;
                let fault = Fault::parse(&fault).ok_or(StoreError::UnreadableRow { table: TABLE })?;
                Ok((fault, count_column(row, "events", TABLE)?))
            })
            .collect()
    }
}
