//! Accounts of what is done to the pipeline itself: what became of events by the hour of their partition's own clock, and what was refused to whom at
//! the doors by the hour of the wall's.
//!
//! They hold numbers alone: no offset, no statement, no name that somebody tried. What a range adds is added in the transaction that commits it, so
//! each event is in them once. Of doors, a lot of some seconds is one transaction and one entry in the hash-chained log; what a process had not
//! handed in when it was killed is missing, and the log of what was served is not (I6).

use std::collections::BTreeMap;

use serde_json::{Value, json};
use starling_schemas::codes::Outcome;
use starling_schemas::ids::{EpochId, Generation, PartitionId};

use super::database::Turn;
use super::progress::{epoch_of, partition_of};
use super::sql::{Row, Statement, Tx, column, count_column, sql, stored};
use super::{Finding, Metastore, ROWS_PER_INSERT};
use crate::error::StoreError;

/// What events are counted as that lay more than an hour behind what had been read.
pub const BEHIND: &str = "behind";

const PARTITIONS: &str = "partition_hours";
const DOORS: &str = "door_hours";
const PARTS: &str = "integrity_parts";

/// What became of events while their partition's clock stood in one hour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionHour {
    /// The hour, by the event times that had been read.
    pub hour: EpochId,
    /// The partition.
    pub partition: PartitionId,
    /// An outcome's label, or [`BEHIND`].
    pub what: String,
    /// How many events.
    pub events: u64,
}

/// What somebody, or somebody at a door, did in an hour of the wall clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoorHour {
    /// The hour.
    pub hour: EpochId,
    /// Whether `name` is a user's, or else a door's.
    pub is_principal: bool,
    /// Of a user or a door.
    pub name: String,
    /// A word of a closed list of whoever counts.
    pub what: String,
    /// How often.
    pub times: u64,
}

impl DoorHour {
    fn kind(&self) -> &'static str {
        if self.is_principal { "principal" } else { "door" }
    }
}

impl Metastore {
    /// Accounts of partitions from an hour on, in order of partition, hour and what it is.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn partition_hours(&self, from: EpochId) -> Result<Vec<PartitionHour>, StoreError> {
        let query = "SELECT hour, source, number, what, events FROM partition_hours WHERE hour >= $1 \
             ORDER BY source COLLATE \"C\", number, hour, what COLLATE \"C\"";
        let rows = self.database.fetch_all("reading accounts of partitions", sql(query).bind(i64::from(from.0))).await?;
        let read = |row: &Row| {
            Ok(PartitionHour {
                hour: hour_of(row, PARTITIONS)?,
                partition: partition_of(row, PARTITIONS)?,
                what: column(row, "what", PARTITIONS)?,
                events: count_column(row, "events", PARTITIONS)?,
            })
        };
        rows.iter().map(read).collect()
    }

    /// Accounts of doors from an hour on, in order.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn door_hours(&self, from: EpochId) -> Result<Vec<DoorHour>, StoreError> {
        let query = "SELECT hour, kind, name, what, times FROM door_hours WHERE hour >= $1 \
             ORDER BY kind COLLATE \"C\", name COLLATE \"C\", hour, what COLLATE \"C\"";
        let rows = self.database.fetch_all("reading accounts of doors", sql(query).bind(i64::from(from.0))).await?;
        let read = |row: &Row| {
            Ok(DoorHour {
                hour: hour_of(row, DOORS)?,
                is_principal: column::<String, _>(row, "kind", DOORS)? == "principal",
                name: column(row, "name", DOORS)?,
                what: column(row, "what", DOORS)?,
                times: count_column(row, "times", DOORS)?,
            })
        };
        rows.iter().map(read).collect()
    }

    /// Adds what was counted at the doors, with one entry in the hash-chained log that says the same. A lot that was added under this name already is
    /// not added again: where the answer was lost, it is handed in once more.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn add_door_hours(&self, lot: &str, counted: &[DoorHour], now_ms: i64) -> Result<(), StoreError> {
        if counted.is_empty() {
            return Ok(());
        }
        // One row a key: PostgreSQL refuses an upsert that meets the same row twice.
        let mut sums: BTreeMap<(i64, &'static str, &str, &str), u64> = BTreeMap::new();
        for row in counted {
            let sum = sums.entry((i64::from(row.hour.0), row.kind(), &row.name, &row.what)).or_default();
            *sum = sum.saturating_add(row.times);
        }
        let told: Vec<Value> = sums
            .iter()
            .map(|((_, kind, name, what), times)| {
                let whose = if *kind == "principal" { "user" } else { "door" };
                json!({ whose: name, "what": what, "times": times })
            })
            .collect();
        let detail = &json!({ "counted": told });
        let sums = &sums.into_iter().collect::<Vec<_>>();
        self.database
            .change("adding accounts of doors", Turn::Audit, |tx| async move {
                let once = &format!("door_accounts:{lot}");
                if tx.fetch_optional(sql("SELECT 1 FROM audit WHERE once_key = $1").bind(once)).await?.is_some() {
                    return Ok(());
                }
                for chunk in sums.chunks(ROWS_PER_INSERT) {
                    let rows = chunk.iter().map(|((hour, kind, name, what), times)| {
                        [(*hour).into(), (*kind).into(), (*name).into(), (*what).into(), stored(*times).into()]
                    });
                    let tail = " ON CONFLICT (hour, kind, name, what) DO UPDATE SET times = door_hours.times + excluded.times";
                    tx.execute(Statement::rows("INSERT INTO door_hours (hour, kind, name, what, times) ", rows, tail)).await?;
                }
                super::audit::append(&tx, Some(once), "door_accounts", detail, now_ms).await?;
                Ok(())
            })
            .await
    }

    /// Forgets accounts of partitions that are so many hours before their own last one, and those of doors of before an hour.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn erase_accounts(&self, partition_hours: i32, doors: EpochId) -> Result<(), StoreError> {
        self.database
            .change("erasing accounts", Turn::Alerts, |tx| async move {
                tx.execute(
                    sql("DELETE FROM partition_hours WHERE hour < $1 + (SELECT MAX(newest.hour) FROM partition_hours newest \
             WHERE newest.source = partition_hours.source AND newest.number = partition_hours.number)")
                    .bind(-i64::from(partition_hours)),
                )
                .await?;
                tx.execute(sql("DELETE FROM door_hours WHERE hour < $1").bind(i64::from(doors.0))).await?;
                Ok(())
            })
            .await
    }

    /// Holds a part of integrity that is looked at by one process of all: who holds it goes on, and another takes it over once the holder has not
    /// been seen for `stale_ms`. `None`: another holds it.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn hold_integrity(
        &self,
        part: &str,
        (owner, held): (&str, Option<Generation>),
        stale_ms: i64,
        now_ms: i64,
    ) -> Result<Option<Generation>, StoreError> {
        self.database
            .change("holding an integrity part", Turn::Alerts, |tx| async move {
                let query = "SELECT generation, seen_ms FROM integrity_parts WHERE part = $1";
                let row = tx.fetch_optional(sql(query).bind(part)).await?;
                let generation = match row {
                    None => 1,
                    Some(row) => {
                        let (generation, seen_ms): (i64, i64) = (column(&row, 0, PARTS)?, column(&row, 1, PARTS)?);
                        let is_mine = held == Some(Generation(generation));
                        // A clock that went back holds nothing up.
                        let is_stale = now_ms.saturating_sub(seen_ms) >= stale_ms || seen_ms > now_ms.saturating_add(stale_ms);
                        match (is_mine, is_stale) {
                            (true, _) => generation,
                            (false, true) => generation + 1,
                            (false, false) => return Ok(None),
                        }
                    }
                };
                tx.execute(
                    sql("INSERT INTO integrity_parts (part, generation, owner, seen_ms) VALUES ($1, $2, $3, $4) ON CONFLICT (part) \
             DO UPDATE SET generation = excluded.generation, owner = excluded.owner, seen_ms = excluded.seen_ms")
                    .bind(part)
                    .bind(generation)
                    .bind(owner)
                    .bind(now_ms),
                )
                .await?;
                Ok(Some(Generation(generation)))
            })
            .await
    }

    /// Commits what was found by whoever holds a part without state. Findings are told or kept as those of `commit_integrity`.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] when another holds it; [`StoreError::UnknownPartition`] before [`Self::hold_integrity`]; [`StoreError::Database`].
    pub async fn commit_findings(
        &self,
        part: &str,
        generation: Generation,
        findings: &[Finding],
        now_ms: i64,
    ) -> Result<(), StoreError> {
        self.database
            .change("committing findings", Turn::Alerts, |tx| async move {
                if super::alerts::generation(&tx, part).await?.ok_or(StoreError::UnknownPartition)? != generation {
                    return Err(StoreError::Fenced);
                }
                super::alerts::take_all(&tx, findings, now_ms).await
            })
            .await
    }
}

fn hour_of(row: &Row, table: &'static str) -> Result<EpochId, StoreError> {
    epoch_of(Some(column(row, "hour", table)?), table)?.ok_or(StoreError::UnreadableRow { table })
}

/// Adds what a committed range counts by the hour of its partition's clock.
pub(super) async fn add(
    tx: &Tx,
    partition: &PartitionId,
    outcomes: &[(EpochId, Outcome, u64)],
    behind: &[(EpochId, u64)],
) -> Result<(), StoreError> {
    let mut sums: BTreeMap<(i64, &'static str), u64> = BTreeMap::new();
    let outcomes = outcomes.iter().map(|(hour, outcome, events)| (hour, outcome.label(), events));
    for (hour, what, events) in outcomes.chain(behind.iter().map(|(hour, events)| (hour, BEHIND, events))) {
        let sum = sums.entry((i64::from(hour.0), what)).or_default();
        *sum = sum.saturating_add(*events);
    }
    let sums: Vec<_> = sums.into_iter().filter(|(_, events)| *events > 0).collect();
    for chunk in sums.chunks(ROWS_PER_INSERT) {
        let rows = chunk.iter().map(|((hour, what), events)| {
            [
                (*hour).into(),
                (&partition.source).into(),
                i64::from(partition.partition).into(),
                (*what).into(),
                stored(*events).into(),
            ]
        });
        let tail = " ON CONFLICT (hour, source, number, what) DO UPDATE SET events = partition_hours.events + excluded.events";
        tx.execute(Statement::rows("INSERT INTO partition_hours (hour, source, number, what, events) ", rows, tail)).await?;
    }
    Ok(())
}
