//! Plan and commit: the transactions around the state machine of `protocol.rs`.

use std::collections::{BTreeMap, BTreeSet};

use starling_schemas::codes::Outcome;
use starling_schemas::ids::{EpochId, Generation, Offset, PartitionId, Sequence, WindowId};

use super::database::Turn;
use super::protocol::{PlannedRange, Progress};
use super::sql::{Row, Statement, Tx, column, count_column, small_column, sql, stored};
use super::types::{CountRow, Ownership, PartitionStatus, Plan, QuarantineRecord, RangeOutcome, SegmentRecord};
use super::{Metastore, ROWS_PER_INSERT, accounts, businesses, group_lists, hours, windows};
use crate::error::StoreError;

/// `counts.epoch` of events that named no readable time; no [`EpochId`] is as small.
const NO_EPOCH: i64 = i32::MIN as i64 - 1;

const TABLE: &str = "partitions";

macro_rules! select_partitions {
    ($rest:literal) => {
        concat!(
            "SELECT source, number, generation, owner, next_offset, next_sequence, end_offset, \
             watermark_ms, last_commit_ms, seen_ms, ",
            "events, plan_from, plan_to, plan_closed_through, plan_hours_after, plan_group_lists, planned_at_ms FROM \
             partitions ",
            $rest
        )
    };
}
pub(super) use select_partitions;

impl Metastore {
    /// Makes `owner` the owner of a partition and fences every owner before it. The first generation is 1.
    ///
    /// An open plan comes along, under the new generation: it must be processed and committed before anything else.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn take_ownership(&self, partition: &PartitionId, owner: &str, now_ms: i64) -> Result<Ownership, StoreError> {
        const DURING: &str = "taking ownership of a partition";
        self.database
            .change(DURING, Turn::Progress, |tx| async move {
                let mut progress = load(&tx, partition).await?.unwrap_or_default();
                let ownership = progress.take(partition);
                tx.execute(
                    sql("INSERT INTO partitions (source, number, generation, owner, next_sequence, \
             last_commit_ms, seen_ms, events) VALUES ($1, $2, $3, $4, 0, $5, $5, 0) ON CONFLICT \
             (source, number) DO UPDATE SET generation = excluded.generation, owner = \
             excluded.owner, seen_ms = excluded.seen_ms")
                    .bind(&partition.source)
                    .bind(i64::from(partition.partition))
                    .bind(progress.generation.0)
                    .bind(owner)
                    .bind(now_ms),
                )
                .await?;
                Ok(ownership)
            })
            .await
    }

    /// Promises to process the offsets from `from` up to, not including, `to`. Which days are late for it, of which hours it keeps who was there, and which
    /// lists it holds groups against, is fixed here.
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
        self.database
            .change(DURING, Turn::Progress, |tx| async move {
                let mut progress = load(&tx, partition).await?.ok_or(StoreError::UnknownPartition)?;
                let (closed_through, hours_after) = (windows::closed_through(&tx).await?, hours::load(&tx).await?.planned());
                let group_lists = group_lists::current(&tx).await?;
                let range = PlannedRange { from, to, closed_through, hours_after, group_lists, planned_at_ms: now_ms };
                progress.plan(generation, range)?;
                tx.execute(
                    sql("UPDATE partitions SET plan_from = $1, plan_to = $2, plan_closed_through = $3, \
             planned_at_ms = $4, seen_ms = $4, plan_hours_after = $5, plan_group_lists = $6 WHERE source = $7 AND number = $8")
                    .bind(from.0)
                    .bind(to.0)
                    .bind(closed_through.map(|e| i64::from(e.0)))
                    .bind(now_ms)
                    .bind(hours_after.map(|e| i64::from(e.0)))
                    .bind(group_lists)
                    .bind(&partition.source)
                    .bind(i64::from(partition.partition)),
                )
                .await?;
                progress.open_plan(partition).ok_or(StoreError::NotTheOpenPlan)
            })
            .await
    }

    /// Makes a processed range count: offsets, watermark, counts, segments, quarantine rows and what businesses said, all or nothing.
    ///
    /// When it fails with [`StoreError::Database`] it may still have happened: take ownership again to see.
    ///
    /// # Errors
    /// [`StoreError::Fenced`]; [`StoreError::NotTheOpenPlan`], also for a plan that is committed already; [`StoreError::Unbalanced`]
    /// (I1); [`StoreError::WindowClosed`] when rows of the range belong to a window whose close has finished;
    /// [`StoreError::UnknownPartition`]; [`StoreError::Database`].
    pub async fn commit(&self, plan: &Plan, outcome: &RangeOutcome, now_ms: i64) -> Result<(), StoreError> {
        const DURING: &str = "committing a range";
        self.database
            .change(DURING, Turn::Progress, |tx| async move {
                let mut progress = load(&tx, &plan.partition).await?.ok_or(StoreError::UnknownPartition)?;
                progress.commit(plan, outcome)?;
                tx.execute(
                    sql("UPDATE partitions SET next_offset = $1, next_sequence = $2, watermark_ms = $3, \
             events = $4, last_commit_ms = $5, seen_ms = $5, plan_from = NULL, plan_to = NULL, \
             plan_closed_through = NULL, plan_hours_after = NULL, plan_group_lists = NULL, planned_at_ms = NULL \
             WHERE source = $6 AND number = $7")
                    .bind(progress.next_offset.map(|o| o.0))
                    .bind(progress.next_sequence.0)
                    .bind(progress.watermark_ms)
                    .bind(progress.events)
                    .bind(now_ms)
                    .bind(&plan.partition.source)
                    .bind(i64::from(plan.partition.partition)),
                )
                .await?;
                add_counts(&tx, &plan.partition, &outcome.counts).await?;
                accounts::add(&tx, &plan.partition, &outcome.by_clock, &outcome.behind).await?;
                let counted = outcome.counts.iter().filter(|(_, outcome, events)| *outcome == Outcome::Counted && *events > 0);
                let days = counted.filter_map(|(epoch, ..)| epoch.map(WindowId::from));
                let windows: BTreeSet<WindowId> = days.chain(outcome.segments.iter().map(|s| s.window)).collect();
                for window in windows {
                    windows::open(&tx, window, now_ms).await?;
                }
                add_segments(&tx, &outcome.segments).await?;
                hours::add_missed(&tx, &outcome.missed_hours).await?;
                add_quarantined(&tx, &plan.partition, &outcome.quarantined, now_ms).await?;
                businesses::add(&tx, &outcome.businesses, now_ms).await?;
                Ok(())
            })
            .await
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
        self.database
            .change(DURING, Turn::Progress, |tx| async move {
                let done = tx
                    .execute(
                        sql("UPDATE partitions SET end_offset = $1, seen_ms = $2 WHERE source = $3 AND number = \
             $4 AND generation = $5")
                        .bind(end_offset.0)
                        .bind(now_ms)
                        .bind(&partition.source)
                        .bind(i64::from(partition.partition))
                        .bind(generation.0),
                    )
                    .await?;
                (done == 1).then_some(()).ok_or(StoreError::Fenced)
            })
            .await
    }

    /// Where every partition stands, in order.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn partitions(&self) -> Result<Vec<PartitionStatus>, StoreError> {
        let rows = self
            .database
            .fetch_all("reading partitions", sql(select_partitions!("ORDER BY source COLLATE \"C\", number")))
            .await?;
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
        let rows = self
            .database
            .fetch_all(
                "reading counts",
                sql("SELECT source, number, epoch, outcome, events FROM counts ORDER BY source COLLATE \
             \"C\", number, epoch, outcome COLLATE \"C\""),
            )
            .await?;
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

    /// Open plans that were made before `epoch` became late: rows of that day, or hour, may still come from them, so its close must wait.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn open_plans_before(&self, epoch: EpochId) -> Result<Vec<Plan>, StoreError> {
        let tx = self.database.snapshot("reading open plans").await?;
        let plans = open_plans_before(&tx, epoch).await?;
        tx.rollback().await;
        Ok(plans)
    }

    /// I1: partitions whose events are not the sum of their counts. Always empty, unless somebody wrote to the database by hand.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn unbalanced(&self) -> Result<Vec<PartitionId>, StoreError> {
        let rows = self
            .database
            .fetch_all(
                "comparing events with counts",
                sql("SELECT p.source AS source, p.number AS number FROM partitions p LEFT JOIN (SELECT \
             source, number, CAST(SUM(events) AS BIGINT) AS total FROM counts GROUP BY source, \
             number) c ON c.source = p.source AND c.number = p.number WHERE p.events <> \
             COALESCE(c.total, 0) ORDER BY p.source COLLATE \"C\", p.number"),
            )
            .await?;
        rows.iter().map(|row| partition_of(row, TABLE)).collect()
    }
}

pub(super) async fn open_plans_before(tx: &Tx, epoch: EpochId) -> Result<Vec<Plan>, StoreError> {
    // A plan without hours brings no row of any.
    let statement = if epoch.is_hour() {
        sql(select_partitions!("WHERE plan_from IS NOT NULL AND plan_hours_after < $1 ORDER BY source COLLATE \"C\", number"))
    } else {
        sql(select_partitions!(
            "WHERE plan_from IS NOT NULL AND (plan_closed_through IS NULL OR plan_closed_through < $1) \
             ORDER BY source COLLATE \"C\", number"
        ))
    };
    tx.fetch_all(statement.bind(i64::from(epoch.0))).await?.iter().map(open_plan_of).collect()
}

/// The open plan of a row that has one.
pub(super) fn open_plan_of(row: &Row) -> Result<Plan, StoreError> {
    let partition = partition_of(row, TABLE)?;
    progress_of(row)?.open_plan(&partition).ok_or(StoreError::UnreadableRow { table: TABLE })
}

pub(super) async fn load(tx: &Tx, partition: &PartitionId) -> Result<Option<Progress>, StoreError> {
    let row = tx
        .fetch_optional(
            sql(select_partitions!("WHERE source = $1 AND number = $2"))
                .bind(&partition.source)
                .bind(i64::from(partition.partition)),
        )
        .await?;
    row.as_ref().map(progress_of).transpose()
}

fn progress_of(row: &Row) -> Result<Progress, StoreError> {
    let number = |name| column::<Option<i64>, &str>(row, name, TABLE);
    let unreadable = || StoreError::UnreadableRow { table: TABLE };
    let plan = match number("plan_from")? {
        None => None,
        Some(from) => Some(PlannedRange {
            from: Offset(from),
            to: Offset(number("plan_to")?.ok_or_else(unreadable)?),
            closed_through: epoch_of(number("plan_closed_through")?, TABLE)?,
            hours_after: epoch_of(number("plan_hours_after")?, TABLE)?,
            group_lists: number("plan_group_lists")?,
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

pub(super) fn partition_of(row: &Row, table: &'static str) -> Result<PartitionId, StoreError> {
    Ok(PartitionId { source: column(row, "source", table)?, partition: small_column(row, "number", table)? })
}

async fn add_counts(tx: &Tx, partition: &PartitionId, counts: &[(Option<EpochId>, Outcome, u64)]) -> Result<(), StoreError> {
    // One row a key: PostgreSQL refuses an upsert that meets the same row twice.
    let mut sums: BTreeMap<(i64, &'static str), u64> = BTreeMap::new();
    for (epoch, outcome, events) in counts.iter().filter(|(.., events)| *events > 0) {
        let sum = sums.entry((epoch.map_or(NO_EPOCH, |e| i64::from(e.0)), outcome.label())).or_default();
        *sum = sum.saturating_add(*events);
    }
    let sums: Vec<_> = sums.into_iter().collect();
    for chunk in sums.chunks(ROWS_PER_INSERT) {
        let rows = chunk.iter().map(|((epoch, outcome), events)| {
            [
                (&partition.source).into(),
                i64::from(partition.partition).into(),
                (*epoch).into(),
                (*outcome).into(),
                stored(*events).into(),
            ]
        });
        let tail = " ON CONFLICT (source, number, epoch, outcome) DO UPDATE SET events = counts.events + excluded.events";
        tx.execute(Statement::rows("INSERT INTO counts (source, number, epoch, outcome, events) ", rows, tail)).await?;
    }
    Ok(())
}

pub(super) async fn add_segments(tx: &Tx, segments: &[SegmentRecord]) -> Result<(), StoreError> {
    for chunk in segments.chunks(ROWS_PER_INSERT) {
        let rows = chunk.iter().map(|segment| {
            let window = segment.window;
            [
                (&segment.path).into(),
                window.span.name().into(),
                i64::from(window.epoch.0).into(),
                stored(segment.rows).into(),
                stored(segment.bytes).into(),
            ]
        });
        tx.execute(Statement::rows("INSERT INTO segments (path, span, epoch, row_count, bytes) ", rows, "")).await?;
    }
    Ok(())
}

async fn add_quarantined(
    tx: &Tx,
    partition: &PartitionId,
    quarantined: &[QuarantineRecord],
    now_ms: i64,
) -> Result<(), StoreError> {
    for chunk in quarantined.chunks(ROWS_PER_INSERT) {
        let rows = chunk.iter().map(|record| {
            [
                (&partition.source).into(),
                i64::from(partition.partition).into(),
                record.offset.0.into(),
                record.fault.name().into(),
                stored(record.length).into(),
                now_ms.into(),
            ]
        });
        let tail = " ON CONFLICT (source, number, position) DO NOTHING";
        tx.execute(Statement::rows("INSERT INTO quarantine (source, number, position, fault, length, at_ms) ", rows, tail))
            .await?;
    }
    Ok(())
}
