//! The watch over the pipeline itself (P28): reads accounts, and commits what `starling_integrity::on_us` makes of them.
//!
//! It is part of the integrity job's loop. Of all processes that detect, one holds the watch; another takes it over when that has not been seen for
//! four looks. Who holds it changes nothing of what is found.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use starling_integrity::on_us::{Account, Cell, HISTORY_DAYS, JUDGED_DAYS, judge, judge_last, may_fire};
use starling_integrity::{Alert, Rules, findings};
use starling_schemas::ids::{EpochId, Generation, PartitionId};
use starling_store::{DoorHour, PartitionHour, StoreError};

use crate::home::Home;
use crate::integrity_job::owner;
use crate::metrics::Work;
use crate::standing;

/// The part of integrity that this is.
const PART: &str = "on us";
/// Looks after which a holder that was not seen has gone.
const LOOKS_TO_LIVE: i64 = 4;
/// Kept findings live so long (`standing`). Who begins to look judges no more: what was erased would be kept again.
const KEPT_DAYS: i32 = 14;
/// Accounts of a partition live so long by its own clock: as far as is looked back, and what is usual before that.
const PARTITION_LIFE_DAYS: i32 = 45;
/// Accounts of doors, which name staff, live so long.
const DOOR_LIFE_DAYS: i32 = 30;
/// How often what has expired is erased.
const ERASE_EVERY: Duration = Duration::from_secs(3600);

/// How far a partition was when it was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    events: u64,
    watermark_ms: Option<i64>,
}

/// What a process remembers between looks; what is found does not depend on it.
pub struct Watch {
    /// As they were when the job started.
    rules: Arc<Rules>,
    /// How much is judged of what was not looked at before.
    first_days: i32,
    last: Option<Instant>,
    erased: Option<Instant>,
    held: Option<Generation>,
    seen: BTreeMap<PartitionId, Seen>,
}

impl Watch {
    /// Holds accounts against these rules, whatever becomes of their files.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        let rules = Arc::new(rules);
        Self { rules, first_days: KEPT_DAYS, last: None, erased: None, held: None, seen: BTreeMap::new() }
    }

    /// Looks if it is time. Detection waits for the look, and not for one that failed: that is tried again at the next.
    pub async fn due(&mut self, home: &Home) {
        let every = Duration::from_secs(home.config.alerts.look_every_s);
        if self.last.is_some_and(|last| last.elapsed() < every) {
            return;
        }
        self.last = Some(Instant::now());
        let stale_ms = i64::try_from(every.as_millis()).unwrap_or(i64::MAX / 8).saturating_mul(LOOKS_TO_LIVE);
        if let Err(error) = self.look(home, stale_ms).await {
            home.metrics.failed(Work::OnUs);
            // What was seen and not committed is looked at again.
            self.seen.clear();
            tracing::warn!(
                error = format!("{error:#}"),
                "what is done to the pipeline itself could not be looked at; it is tried again"
            );
        }
    }

    async fn look(&mut self, home: &Home, stale_ms: i64) -> anyhow::Result<()> {
        let now_ms = home.clock.now_ms();
        let Some(generation) = home.metastore.hold_integrity(PART, (&owner(), self.held), stale_ms, now_ms).await? else {
            (self.held, self.seen) = (None, BTreeMap::new());
            return Ok(());
        };
        self.held = Some(generation);
        let rules = Arc::clone(&self.rules);
        let mut alerts = self.partitions(home, &rules).await?;
        alerts.extend(doors(home, &rules, now_ms).await?);
        if !alerts.is_empty() {
            let findings = findings(&rules, &alerts, EpochId::of(now_ms))?;
            match home.metastore.commit_findings(PART, generation, &findings, now_ms).await {
                Err(StoreError::Fenced) => self.held = None,
                done => done?,
            }
        }
        if self.erased.is_none_or(|last| last.elapsed() >= ERASE_EVERY) {
            let doors = EpochId(EpochId::of(now_ms).0.saturating_sub(DOOR_LIFE_DAYS)).hour_at(0);
            home.metastore.erase_accounts(PARTITION_LIFE_DAYS * 24, doors).await?;
            self.erased = Some(Instant::now());
        }
        Ok(())
    }

    /// What the accounts of partitions show that have grown since the last look. Only the hour in which a partition's clock stands grows.
    async fn partitions(&mut self, home: &Home, rules: &Rules) -> anyhow::Result<Vec<Alert>> {
        let now: BTreeMap<PartitionId, Seen> = home
            .metastore
            .partitions()
            .await?
            .into_iter()
            .map(|status| (status.partition, Seen { events: status.events, watermark_ms: status.watermark_ms }))
            .collect();
        let grown = now.iter().filter(|(partition, seen)| self.seen.get(partition) != Some(seen));
        let from = |(partition, _): (&PartitionId, &Seen)| {
            let before = self.seen.get(partition).and_then(|seen| seen.watermark_ms);
            before.map_or(EpochId(i32::MIN), EpochId::of)
        };
        let Some(from) = grown.map(from).min() else { return Ok(Vec::new()) };
        let recent: Vec<Cell> = home.metastore.partition_hours(from.hour_at(0)).await?.into_iter().map(of_partition).collect();
        let alerts = if recent.iter().any(|cell| may_fire(rules, cell)) {
            let before = EpochId(from.0.saturating_sub(HISTORY_DAYS)).hour_at(0);
            let cells: Vec<Cell> = home.metastore.partition_hours(before).await?.into_iter().map(of_partition).collect();
            // Before all days: of a partition that grew nothing was seen before.
            let days = if from == EpochId(i32::MIN) { self.first_days } else { JUDGED_DAYS };
            judge_last(rules, &cells, from, days)
        } else {
            Vec::new()
        };
        self.seen = now;
        Ok(alerts)
    }
}

/// What the accounts of doors show of yesterday and today.
async fn doors(home: &Home, rules: &Rules, now_ms: i64) -> anyhow::Result<Vec<Alert>> {
    let from = EpochId::of(now_ms).before();
    let before = EpochId(from.0.saturating_sub(HISTORY_DAYS)).hour_at(0);
    let cells: Vec<Cell> = home.metastore.door_hours(before).await?.into_iter().map(of_door).collect();
    Ok(judge(rules, &cells, from))
}

fn of_partition(row: PartitionHour) -> Cell {
    let account = Account::Partition { source: row.partition.source, number: row.partition.partition };
    Cell { account, hour: row.hour, what: row.what, times: row.events }
}

fn of_door(row: DoorHour) -> Cell {
    let account = if row.is_principal { Account::Principal(row.name) } else { Account::Door(row.name) };
    Cell { account, hour: row.hour, what: row.what, times: row.times }
}

/// Looks once at all there is, whoever holds the watch: for a recording that has come to its end.
///
/// # Errors
/// When rules or accounts cannot be read, or findings cannot be committed.
pub async fn look(home: &Home) -> anyhow::Result<()> {
    let rules = standing::rules(&home.config)?;
    Watch { first_days: JUDGED_DAYS, ..Watch::new(rules) }.look(home, 0).await
}
