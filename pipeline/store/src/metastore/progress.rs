//! Plan and commit: the transactions around the state machine of `protocol.rs`.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};
use starling_schemas::codes::{Fault, Outcome};
use starling_schemas::ids::{EpochId, Generation, Offset, PartitionId, Sequence};

use super::protocol::{PlannedRange, Progress};
use super::types::{CountRow, Ownership, PartitionStatus, Plan, QuarantineRecord, RangeOutcome, SegmentRecord};
use super::{Metastore, ROWS_PER_INSERT, column, count_column, failed, small_column, stored, windows};
use crate::error::StoreError;

/// `counts.epoch` of events that named no readable time; no [`EpochId`] is as small.
const NO_EPOCH: i64 = i32::MIN as i64 - 1;

const TABLE: &str = "partitions";

macro_rules! select_partitions {
    ($rest:literal) => {
        concat!(
            "SELECT source, number, generation, owner, next_offset, next_sequence, end_offset, watermark_ms, last_commit_ms, seen_ms, ",
            "events, plan_from, plan_to, plan_closed_through, planned_at_ms FROM partitions ",
            $rest
        )
    };
}

impl Metastore {
    /// Makes `owner` the owner of a partition and fences every owner before it. The first generation is 1.
    ///
    /// An open plan comes along, under the new generation: it must be processed and committed before anything else.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn take_ownership(&self, partition: &PartitionId, owner: &str, now_ms: i64) -> Result<Ownership, StoreError> {
        const DURING: &str = "taking ownership of a partition";
        let mut tx = self.begin(DURING).await?;
        let mut progress = load(&mut tx, partition, DURING).await?.unwrap_or_default();
        let ownership = progress.take(partition);
        sqlx::query(
            "INSERT INTO partitions (source, number, generation, owner, next_sequence, last_commit_ms, seen_ms, events) \
             VALUES ($1, $2, $3, $4, 0, $5, $5, 0) \
             ON CONFLICT (source, number) DO UPDATE SET generation = excluded.generation, owner = excluded.owner, seen_ms = excluded.seen_ms",
        )
        .bind(&partition.source)
        .bind(i64::from(partition.partition))
        .bind(progress.generation.0)
        .bind(owner)
        .bind(now_ms)
        .execute(&mut *tx)
        .await
        .map_err(failed(DURING))?;
        tx.commit().await.map_err(failed(DURING))?;
        Ok(ownership)
    }

    /// Promises to process the offsets from `from` up to, not including, `to`. Which days are late for it is fixed here.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] when `generation` is not the current one, [`StoreError::PlanOpen`], [`StoreError::Gap`] when the range is
    /// empty or begins elsewhere than at the next offset, [`StoreError::UnknownPartition`], [`StoreError::Database`].
    pub async fn plan(
        &self,
        partition: &PartitionId,
        generation: Generation,
        from: Offset,
        to: Offset,
        now_ms: i64,
    ) -> Result<Plan, StoreError> {
        const DURING: &str = "planning a range";
        let mut tx = self.begin(DURING).await?;
        let mut progress = load(&mut tx, partition, DURING).await?.ok_or(StoreError::UnknownPartition)?;
        let closed_through = windows::closed_through(&mut tx).await?;
        progress.plan(generation, PlannedRange { from, to, closed_through, planned_at_ms: now_ms })?;
        sqlx::query(
            "UPDATE partitions SET plan_from = $1, plan_to = $2, plan_closed_through = $3, planned_at_ms = $4, seen_ms = $4 \
             WHERE source = $5 AND number = $6",
        )
        .bind(from.0)
        .bind(to.0)
        .bind(closed_through.map(|e| i64::from(e.0)))
        .bind(now_ms)
        .bind(&partition.source)
        .bind(i64::from(partition.partition))
        .execute(&mut *tx)
        .await
        .map_err(failed(DURING))?;
        tx.commit().await.map_err(failed(DURING))?;
        progress.open_plan(partition).ok_or(StoreError::NotTheOpenPlan)
    }

    /// Makes a processed range count: offsets, watermark, counts, segments and quarantine rows, all or nothing.
    ///
    /// When it fails with [`StoreError::Database`] it may still have happened: take ownership again to see.
    ///
    /// # Errors
    /// [`StoreError::Fenced`]; [`StoreError::NotTheOpenPlan`], also for a plan that is committed already; [`StoreError::Unbalanced`]
    /// (I1); [`StoreError::WindowClosed`] when rows of the range belong to a window whose close has finished;
    /// [`StoreError::UnknownPartition`]; [`StoreError::Database`].
    pub async fn commit(&self, plan: &Plan, outcome: &RangeOutcome, now_ms: i64) -> Result<(), StoreError> {
        const DURING: &str = "committing a range";
        let mut tx = self.begin(DURING).await?;
        let mut progress = load(&mut tx, &plan.partition, DURING).await?.ok_or(StoreError::UnknownPartition)?;
        progress.commit(plan, outcome)?;
        sqlx::query(
            "UPDATE partitions SET next_offset = $1, next_sequence = $2, watermark_ms = $3, events = $4, last_commit_ms = $5, seen_ms = $5, \
             plan_from = NULL, plan_to = NULL, plan_closed_through = NULL, planned_at_ms = NULL WHERE source = $6 AND number = $7",
        )
        .bind(progress.next_offset.map(|o| o.0))
        .bind(progress.next_sequence.0)
        .bind(progress.watermark_ms)
        .bind(progress.events)
        .bind(now_ms)
        .bind(&plan.partition.source)
        .bind(i64::from(plan.partition.partition))
        .execute(&mut *tx)
        .await
        .map_err(failed(DURING))?;
        add_counts(&mut tx, &plan.partition, &outcome.counts).await?;
        let counted = outcome.counts.iter().filter(|(_, outcome, events)| *outcome == Outcome::Counted && *events > 0);
        let windows: BTreeSet<EpochId> =
            counted.filter_map(|(epoch, ..)| *epoch).chain(outcome.segments.iter().map(|s| s.epoch)).collect();
        for epoch in windows {
            windows::open(&mut tx, epoch, now_ms).await?;
        }
        add_segments(&mut tx, &outcome.segments).await?;
        add_quarantined(&mut tx, &plan.partition, &outcome.quarantined, now_ms).await?;
        tx.commit().await.map_err(failed(DURING))
    }

    /// Notes where the partition ends, as its owner sees it: for idleness and lag. It is a small durable write: call it every few
    /// seconds, not for every batch.
    ///
    /// # Errors
    /// [`StoreError::Fenced`], also for a partition nobody took; [`StoreError::Database`].
    pub async fn note_position(
        &self,
        partition: &PartitionId,
        generation: Generation,
        end_offset: Offset,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        const DURING: &str = "noting a partition's end";
        let done = sqlx::query(
            "UPDATE partitions SET end_offset = $1, seen_ms = $2 WHERE source = $3 AND number = $4 AND generation = $5",
        )
        .bind(end_offset.0)
        .bind(now_ms)
        .bind(&partition.source)
        .bind(i64::from(partition.partition))
        .bind(generation.0)
        .execute(&self.writer)
        .await
        .map_err(failed(DURING))?;
        (done.rows_affected() == 1).then_some(()).ok_or(StoreError::Fenced)
    }

    /// Where every partition stands, in order.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn partitions(&self) -> Result<Vec<PartitionStatus>, StoreError> {
        let rows = sqlx::query(select_partitions!("ORDER BY source, number"))
            .fetch_all(&self.readers)
            .await
            .map_err(failed("reading partitions"))?;
        rows.iter()
            .map(|row| {
                let progress = progress_of(row)?;
                Ok(PartitionStatus {
                    partition: partition_of(row, TABLE)?,
                    generation: progress.generation,
                    owner: column(row, "owner", TABLE)?,
                    next_offset: progress.next_offset,
                    next_sequence: progress.next_sequence,
                    end_offset: column::<Option<i64>, _>(row, "end_offset", TABLE)?.map(Offset),
                    watermark_ms: progress.watermark_ms,
                    last_commit_ms: column(row, "last_commit_ms", TABLE)?,
                    seen_ms: column(row, "seen_ms", TABLE)?,
                    events: count_column(row, "events", TABLE)?,
                    has_open_plan: progress.plan.is_some(),
                })
            })
            .collect()
    }

    /// How many events met which outcome, by partition and window, in order.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn counts(&self) -> Result<Vec<CountRow>, StoreError> {
        const TABLE: &str = "counts";
        let rows =
            sqlx::query("SELECT source, number, epoch, outcome, events FROM counts ORDER BY source, number, epoch, outcome")
                .fetch_all(&self.readers)
                .await
                .map_err(failed("reading counts"))?;
        rows.iter()
            .map(|row| {
                let label: String = column(row, "outcome", TABLE)?;
                let epoch = column::<i64, _>(row, "epoch", TABLE)?;
                Ok(CountRow {
                    partition: partition_of(row, TABLE)?,
                    epoch: if epoch == NO_EPOCH { None } else { Some(EpochId(small_column(row, "epoch", TABLE)?)) },
                    outcome: Outcome::all().find(|o| o.label() == label).ok_or(StoreError::UnreadableRow { table: TABLE })?,
                    events: count_column(row, "events", TABLE)?,
                })
            })
            .collect()
    }

    /// The latest unreadable events, newest first.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn quarantine(&self, limit: u32) -> Result<Vec<(PartitionId, QuarantineRecord)>, StoreError> {
        const TABLE: &str = "quarantine";
        let rows = sqlx::query(
            "SELECT source, number, position, fault, length FROM quarantine ORDER BY at_ms DESC, source, number, position DESC LIMIT $1",
        )
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await
        .map_err(failed("reading the quarantine"))?;
        rows.iter()
            .map(|row| {
                let fault: String = column(row, "fault", TABLE)?;
                let record = QuarantineRecord {
                    offset: Offset(column(row, "position", TABLE)?),
                    fault: Fault::parse(&fault).ok_or(StoreError::UnreadableRow { table: TABLE })?,
                    length: count_column(row, "length", TABLE)?,
                };
                Ok((partition_of(row, TABLE)?, record))
            })
            .collect()
    }

    /// Open plans that were made before `epoch` became late: rows of that day may still come from them, so its close must wait.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn open_plans_before(&self, epoch: EpochId) -> Result<Vec<Plan>, StoreError> {
        let mut connection = self.readers.acquire().await.map_err(failed("reading open plans"))?;
        open_plans_before(&mut connection, epoch).await
    }

    /// I1: partitions whose events are not the sum of their counts. Always empty, unless somebody wrote to the database by hand.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn unbalanced(&self) -> Result<Vec<PartitionId>, StoreError> {
        let rows = sqlx::query(
            "SELECT p.source AS source, p.number AS number FROM partitions p \
             LEFT JOIN (SELECT source, number, CAST(SUM(events) AS BIGINT) AS total FROM counts GROUP BY source, number) c \
             ON c.source = p.source AND c.number = p.number \
             WHERE p.events <> COALESCE(c.total, 0) ORDER BY p.source, p.number",
        )
        .fetch_all(&self.readers)
        .await
        .map_err(failed("comparing events with counts"))?;
        rows.iter().map(|row| partition_of(row, TABLE)).collect()
    }
}

pub(super) async fn open_plans_before(connection: &mut SqliteConnection, epoch: EpochId) -> Result<Vec<Plan>, StoreError> {
    let rows = sqlx::query(select_partitions!(
        "WHERE plan_from IS NOT NULL AND (plan_closed_through IS NULL OR plan_closed_through < $1) ORDER BY source, number"
    ))
    .bind(i64::from(epoch.0))
    .fetch_all(connection)
    .await
    .map_err(failed("reading open plans"))?;
    rows.iter()
        .map(|row| {
            let partition = partition_of(row, TABLE)?;
            progress_of(row)?.open_plan(&partition).ok_or(StoreError::UnreadableRow { table: TABLE })
        })
        .collect()
}

async fn load(
    connection: &mut SqliteConnection,
    partition: &PartitionId,
    during: &'static str,
) -> Result<Option<Progress>, StoreError> {
    let row = sqlx::query(select_partitions!("WHERE source = $1 AND number = $2"))
        .bind(&partition.source)
        .bind(i64::from(partition.partition))
        .fetch_optional(connection)
        .await
        .map_err(failed(during))?;
    row.as_ref().map(progress_of).transpose()
}

fn progress_of(row: &SqliteRow) -> Result<Progress, StoreError> {
    let number = |name| column::<Option<i64>, &str>(row, name, TABLE);
    let unreadable = || StoreError::UnreadableRow { table: TABLE };
    let plan = match number("plan_from")? {
        None => None,
        Some(from) => Some(PlannedRange {
            from: Offset(from),
            to: Offset(number("plan_to")?.ok_or_else(unreadable)?),
            closed_through: epoch_of(number("plan_closed_through")?, TABLE)?,
            planned_at_ms: number("planned_at_ms")?.ok_or_else(unreadable)?,
        }),
    };
    Ok(Progress {
        generation: Generation(column(row, "generation", TABLE)?),
        next_offset: number("next_offset")?.map(Offset),
        next_sequence: Sequence(column(row, "next_sequence", TABLE)?),
        watermark_ms: number("watermark_ms")?,
        events: column(row, "events", TABLE)?,
        plan,
    })
}

pub(super) fn epoch_of(number: Option<i64>, table: &'static str) -> Result<Option<EpochId>, StoreError> {
    number.map(|n| i32::try_from(n).map(EpochId).map_err(|_| StoreError::UnreadableRow { table })).transpose()
}

fn partition_of(row: &SqliteRow, table: &'static str) -> Result<PartitionId, StoreError> {
    Ok(PartitionId { source: column(row, "source", table)?, partition: small_column(row, "number", table)? })
}

async fn add_counts(
    connection: &mut SqliteConnection,
    partition: &PartitionId,
    counts: &[(Option<EpochId>, Outcome, u64)],
) -> Result<(), StoreError> {
    // One row a key: PostgreSQL refuses an upsert that meets the same row twice.
    let mut sums: BTreeMap<(i64, &'static str), u64> = BTreeMap::new();
    for (epoch, outcome, events) in counts.iter().filter(|(.., events)| *events > 0) {
        let sum = sums.entry((epoch.map_or(NO_EPOCH, |e| i64::from(e.0)), outcome.label())).or_default();
        *sum = sum.saturating_add(*events);
    }
    let sums: Vec<_> = sums.into_iter().collect();
    for chunk in sums.chunks(ROWS_PER_INSERT) {
        let mut insert = QueryBuilder::<Sqlite>::new("INSERT INTO counts (source, number, epoch, outcome, events) ");
        insert.push_values(chunk, |mut row, ((epoch, outcome), events)| {
            row.push_bind(&partition.source).push_bind(i64::from(partition.partition));
            row.push_bind(*epoch).push_bind(*outcome).push_bind(stored(*events));
        });
        insert.push(" ON CONFLICT (source, number, epoch, outcome) DO UPDATE SET events = counts.events + excluded.events");
        insert.build().execute(&mut *connection).await.map_err(failed("adding counts"))?;
    }
    Ok(())
}

async fn add_segments(connection: &mut SqliteConnection, segments: &[SegmentRecord]) -> Result<(), StoreError> {
    for chunk in segments.chunks(ROWS_PER_INSERT) {
        let mut insert = QueryBuilder::<Sqlite>::new("INSERT INTO segments (path, epoch, row_count, bytes) ");
        insert.push_values(chunk, |mut row, segment| {
            row.push_bind(&segment.path).push_bind(i64::from(segment.epoch.0));
            row.push_bind(stored(segment.rows)).push_bind(stored(segment.bytes));
        });
        insert.build().execute(&mut *connection).await.map_err(failed("adding segments"))?;
    }
    Ok(())
}

async fn add_quarantined(
    connection: &mut SqliteConnection,
    partition: &PartitionId,
    quarantined: &[QuarantineRecord],
    now_ms: i64,
) -> Result<(), StoreError> {
    for chunk in quarantined.chunks(ROWS_PER_INSERT) {
        let mut insert = QueryBuilder::<Sqlite>::new("INSERT INTO quarantine (source, number, position, fault, length, at_ms) ");
        insert.push_values(chunk, |mut row, record| {
            row.push_bind(&partition.source).push_bind(i64::from(partition.partition)).push_bind(record.offset.0);
            row.push_bind(record.fault.name()).push_bind(stored(record.length)).push_bind(now_ms);
        });
        insert.push(" ON CONFLICT (source, number, position) DO NOTHING");
        insert.build().persistent(false).execute(&mut *connection).await.map_err(failed("adding quarantine rows"))?;
    }
    Ok(())
}
