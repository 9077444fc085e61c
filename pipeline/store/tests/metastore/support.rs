//! What the tests share: places for a metastore, and ranges to commit.

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, SqliteConnection};
use starling_schemas::codes::Outcome;
use starling_schemas::cost::{BlockLimits, Cost, NanoRho};
use starling_schemas::ids::{EpochId, Offset, PartitionId};
use starling_store::{
    AlertRecord, ChargeRequest, Finding, Metastore, Plan, RangeOutcome, SegmentRecord, Spender, StoreError, Telling,
};

use crate::server;

/// Which database keeps the metastores of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Sqlite,
    Postgres,
}

/// A place for one metastore, of its own for each test.
pub(crate) struct Place {
    pub(crate) kind: Kind,
    pub(crate) url: String,
    /// The folder of the file, for SQLite.
    pub(crate) folder: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new(kind: Kind) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let url = match kind {
            Kind::Sqlite => format!("sqlite:{}", folder.path().join("metastore.db").display()),
            Kind::Postgres => server::shared_database(),
        };
        Self { kind, url, folder }
    }

    /// Another place beside it, still empty.
    pub(crate) fn another(&self) -> Self {
        Self::new(self.kind)
    }

    /// A handle, as a process of its own has it.
    pub(crate) async fn open(&self) -> Metastore {
        Metastore::open(&self.url).await.expect("opens")
    }

    /// Changes the database by hand.
    pub(crate) async fn execute(&self, statement: &str) {
        let statement = AssertSqlSafe(statement.to_owned());
        match self.kind {
            Kind::Sqlite => {
                let mut by_hand = SqliteConnection::connect(&self.url).await.expect("connects");
                by_hand.execute(statement).await.expect("changes");
                by_hand.close().await.expect("closes");
            }
            Kind::Postgres => {
                let mut by_hand = PgConnection::connect(&self.url).await.expect("connects");
                by_hand.execute(statement).await.expect("changes");
                by_hand.close().await.expect("closes");
            }
        }
    }
}

pub(crate) const DAY: EpochId = EpochId(20_458);

/// A scheduled release that asks one day for ρ alone.
pub(crate) fn release(question: &str, epoch: EpochId, limit: i64, cost: i64) -> ChargeRequest {
    ChargeRequest {
        dataset: "people_day".into(),
        epochs: [epoch].into(),
        question: question.into(),
        cost: Cost::noise(NanoRho(cost)),
        limits: BlockLimits { total: Cost::noise(NanoRho(limit)), teams_rho: NanoRho(0) },
        spender: Spender::Releases,
        now_ms: 1,
    }
}

/// Findings of a rule that is live and has no end of allowance.
pub(crate) fn told(alerts: impl IntoIterator<Item = AlertRecord>) -> Vec<Finding> {
    let telling = Telling::Told { daily: u32::MAX, demotable: true };
    alerts.into_iter().map(|alert| Finding { key: alert.rule.clone(), alert, stands: true, telling }).collect()
}

pub(crate) fn partition(number: i32) -> PartitionId {
    PartitionId { source: "events".into(), partition: number }
}

pub(crate) fn segment(plan: &Plan, epoch: EpochId) -> SegmentRecord {
    SegmentRecord {
        window: epoch.into(),
        path: format!("segments/{epoch}/{}-{}", plan.partition, plan.sequence),
        rows: 3,
        bytes: 99,
    }
}

pub(crate) fn outcome(plan: &Plan) -> RangeOutcome {
    let events = (plan.to.0 - plan.from.0).unsigned_abs();
    RangeOutcome {
        events,
        counts: vec![(Some(DAY), Outcome::Counted, events)],
        watermark_ms: Some(plan.to.0 * 1000),
        segments: vec![segment(plan, DAY)],
        quarantined: Vec::new(),
        ..RangeOutcome::default()
    }
}

/// Takes, plans and commits one range of ten offsets.
pub(crate) async fn commit_range(
    metastore: &Metastore,
    partition: &PartitionId,
    outcome: impl Fn(&Plan) -> RangeOutcome,
) -> Result<Plan, StoreError> {
    let own = metastore.take_ownership(partition, "test", 1).await?;
    let from = own.next_offset.unwrap_or_default();
    let plan = match own.open_plan {
        Some(plan) => plan,
        None => metastore.plan(partition, own.generation, from, Offset(from.0 + 10), 2).await?,
    };
    metastore.commit(&plan, &outcome(&plan), 3).await?;
    Ok(plan)
}
