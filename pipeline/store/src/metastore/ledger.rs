//! The ledger: what questions have cost (I2, design 3.6).
//!
//! A block's budget is spent question by question and never given back. A charge touches one block or several: all of them, or none. It is one
//! serializable transaction, committed before any noise is drawn; whoever crashes between the two has paid. What is observed in the
//! transaction goes to a pure function (`charge.rs`), and what that says is written in the same transaction.
//!
//! ```text
//!   ChargeRequest ─► read: charges of the same question · the blocks · what the team has spent ─► decide ─► write: blocks, charge, its days
//!                   └───────────────────────────── one transaction ─────────────────────────────────────────────────────┘
//! ```
//!
//! # Privacy
//! Costs are (ρ, δ) of δ-approximate zero-concentrated differential privacy, which add up under adaptive composition (Bun & Steinke 2016, lemma
//! 8.2), in integers, so that the sum is exact. Assumption: a question's text names its mechanism and data fully, so that "charged
//! already" means "the same noise draw". A block keeps the smallest limits it was ever charged under: raising one later does not apply to
//! days that have been asked about. The tables' own checks hold the same limits, should this code be wrong one day.

use std::collections::BTreeMap;

use starling_schemas::cost::{AttoDelta, BlockLimits, Cost, NanoRho};
use starling_schemas::ids::EpochId;

use super::charge::{
    BlockCharge, BlockState, BudgetRow, ChargeOutcome, ChargeRecord, ChargeRequest, Earlier, Facts, Observed, Spender, Verdict,
    days, decide,
};
use super::database::Turn;
use super::sql::{Row, Statement, Tx, column, small_column, sql};
use super::types::Block;
use super::{Metastore, ROWS_PER_INSERT};
use crate::error::StoreError;

const CHARGES: &str = "charges";
const BLOCKS: &str = "budget_blocks";

impl Metastore {
    /// Charges a question to all its blocks, once for ever, or to none. Call it before drawing noise, and draw only after
    /// [`ChargeOutcome::Charged`], or, if no answer was kept, after [`ChargeOutcome::AlreadyCharged`] with the cost of then.
    ///
    /// The limits are the dataset's as its text has them now; the smallest a block was ever charged under apply.
    ///
    /// # Errors
    /// [`StoreError::InvalidCharge`] for no days, or a cost without ρ; [`StoreError::OtherCharge`] if the question was charged for something
    /// else; [`StoreError::Database`]: it may have been charged.
    pub async fn charge(&self, request: &ChargeRequest) -> Result<ChargeOutcome, StoreError> {
        self.database
            .change("charging a budget", Turn::Ledger, |tx| async move {
                let facts = observe(&tx, request).await?;
                match decide(request, &facts)? {
                    Verdict::Answer(outcome) => Ok(outcome),
                    Verdict::Charge(blocks) => {
                        write(&tx, request, &blocks).await?;
                        Ok(ChargeOutcome::Charged)
                    }
                }
            })
            .await
    }

    /// Every block that was ever charged, with its charges, in order.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn budget(&self) -> Result<Vec<BudgetRow>, StoreError> {
        // One statement, so that a charge at the same time is wholly in or wholly out.
        let rows = self
            .database
            .fetch_all(
                "reading the budget",
                sql("SELECT b.dataset AS dataset, b.epoch AS epoch, b.limit_nano_rho, b.limit_atto_delta, \
             b.teams_limit_nano_rho, b.spent_nano_rho, b.spent_atto_delta, b.teams_spent_nano_rho, c.question, \
             c.cost_nano_rho, c.cost_atto_delta, c.team, c.at_ms FROM budget_blocks b JOIN charged_days d ON \
             d.dataset = b.dataset AND d.epoch = b.epoch JOIN charges c ON c.dataset = d.dataset AND c.question = \
             d.question AND c.days = d.days ORDER BY c.at_ms, c.question COLLATE \"C\", c.days COLLATE \"C\""),
            )
            .await?;
        let mut blocks: BTreeMap<Block, BudgetRow> = BTreeMap::new();
        for row in &rows {
            let block = Block { dataset: column(row, "dataset", BLOCKS)?, epoch: EpochId(small_column(row, "epoch", BLOCKS)?) };
            let BlockState { limits, spent, teams_spent } = block_state(row)?;
            let charge = BlockCharge {
                question: column(row, "question", CHARGES)?,
                cost: cost_of(row)?,
                team: column(row, "team", CHARGES)?,
                at_ms: column(row, "at_ms", CHARGES)?,
            };
            let budget = BudgetRow { block: block.clone(), limits, spent, teams_spent, charges: Vec::new() };
            blocks.entry(block).or_insert(budget).charges.push(charge);
        }
        Ok(blocks.into_values().collect())
    }

    /// Every charge with all its days, in order of time.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn charges(&self) -> Result<Vec<ChargeRecord>, StoreError> {
        let rows = self
            .database
            .fetch_all(
                "reading charges",
                sql("SELECT c.dataset, c.question, c.days, c.cost_nano_rho, c.cost_atto_delta, c.team, c.at_ms, \
             d.epoch FROM charges c JOIN charged_days d ON d.dataset = c.dataset AND d.question = c.question AND \
             d.days = c.days ORDER BY c.at_ms, c.dataset COLLATE \"C\", c.question COLLATE \"C\", c.days COLLATE \"C\""),
            )
            .await?;
        let mut charges: Vec<(String, ChargeRecord)> = Vec::new();
        for row in &rows {
            let (dataset, question): (String, String) = (column(row, "dataset", CHARGES)?, column(row, "question", CHARGES)?);
            let (days, epoch) = (column(row, "days", CHARGES)?, EpochId(small_column(row, "epoch", "charged_days")?));
            match charges.last_mut() {
                Some((last, charge)) if *last == days && charge.dataset == dataset && charge.question == question => {
                    charge.epochs.insert(epoch);
                }
                _ => {
                    let (cost, team, at_ms) = (cost_of(row)?, column(row, "team", CHARGES)?, column(row, "at_ms", CHARGES)?);
                    charges.push((days, ChargeRecord { dataset, question, epochs: [epoch].into(), cost, team, at_ms }));
                }
            }
        }
        Ok(charges.into_iter().map(|(_, charge)| charge).collect())
    }

    /// What a team's questions over a dataset have cost between two moments (the second excluded), summed over blocks: of a refill period,
    /// what is spent of it. Milliseconds since 1970-01-01 UTC.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn team_spent(&self, dataset: &str, team: &str, from_ms: i64, to_ms: i64) -> Result<NanoRho, StoreError> {
        let rows = self.database.fetch_all("reading an allotment", period_statement(dataset, team, (from_ms, to_ms))).await?;
        rows.first().map_or(Ok(NanoRho(0)), |row| Ok(NanoRho(column(row, "spent", CHARGES)?)))
    }
}

/// Everything the decision rests on.
async fn observe(tx: &Tx, request: &ChargeRequest) -> Result<Facts, StoreError> {
    let (Some(first), Some(last)) = (request.epochs.first(), request.epochs.last()) else { return Ok(Facts::default()) };
    let between = |statement: Statement| statement.bind(i64::from(first.0)).bind(i64::from(last.0));
    let epoch_of = |row: &Row| Ok::<_, StoreError>(EpochId(small_column(row, "epoch", BLOCKS)?));

    let earlier = sql("SELECT days, cost_nano_rho, cost_atto_delta, team FROM charges WHERE dataset = $1 AND question = $2");
    let earlier = tx.fetch_all(earlier.bind(&request.dataset).bind(&request.question)).await?;
    let earlier = earlier
        .iter()
        .map(|row| Ok(Earlier { days: column(row, "days", CHARGES)?, cost: cost_of(row)?, team: column(row, "team", CHARGES)? }))
        .collect::<Result<_, StoreError>>()?;

    let stored = sql("SELECT epoch, limit_nano_rho, limit_atto_delta, teams_limit_nano_rho, spent_nano_rho, spent_atto_delta, \
         teams_spent_nano_rho FROM budget_blocks WHERE dataset = $1 AND epoch >= $2 AND epoch <= $3");
    let mut states = BTreeMap::new();
    for row in tx.fetch_all(between(stored.bind(&request.dataset))).await? {
        states.insert(epoch_of(&row)?, block_state(&row)?);
    }

    let (mut by_team, mut team_period_spent) = (BTreeMap::new(), NanoRho(0));
    if let Spender::Team { name, allotment } = &request.spender {
        let spent = sql("SELECT d.epoch AS epoch, CAST(SUM(c.cost_nano_rho) AS BIGINT) AS spent FROM charged_days d JOIN \
             charges c ON c.dataset = d.dataset AND c.question = d.question AND c.days = d.days WHERE d.dataset = $1 AND \
             d.epoch >= $2 AND d.epoch <= $3 AND c.team = $4 GROUP BY d.epoch");
        for row in tx.fetch_all(between(spent.bind(&request.dataset)).bind(name)).await? {
            by_team.insert(epoch_of(&row)?, NanoRho(column(&row, "spent", CHARGES)?));
        }
        let row = tx.fetch_one(period_statement(&request.dataset, name, allotment.period(request.now_ms))).await?;
        team_period_spent = NanoRho(column(&row, "spent", CHARGES)?);
    }
    let blocks = request.epochs.iter().map(|epoch| Observed {
        epoch: *epoch,
        stored: states.get(epoch).copied(),
        team_spent: by_team.get(epoch).copied().unwrap_or_default(),
    });
    Ok(Facts { earlier, blocks: blocks.collect(), team_period_spent })
}

fn period_statement(dataset: &str, team: &str, (from_ms, to_ms): (i64, i64)) -> Statement {
    sql("SELECT CAST(COALESCE(SUM(cost_nano_rho * day_count), 0) AS BIGINT) AS spent FROM charges WHERE dataset = $1 AND team = \
         $2 AND at_ms >= $3 AND at_ms < $4")
    .bind(dataset)
    .bind(team)
    .bind(from_ms)
    .bind(to_ms)
}

async fn write(tx: &Tx, request: &ChargeRequest, blocks: &[(EpochId, BlockState)]) -> Result<(), StoreError> {
    let (dataset, question, days) = (&request.dataset, &request.question, days(&request.epochs));
    let day_count = i64::try_from(request.epochs.len()).unwrap_or(i64::MAX);
    tx.execute(
        sql("INSERT INTO charges (dataset, question, days, day_count, cost_nano_rho, cost_atto_delta, team, at_ms) VALUES \
             ($1, $2, $3, $4, $5, $6, $7, $8)")
        .bind(dataset)
        .bind(question)
        .bind(&days)
        .bind(day_count)
        .bind(request.cost.rho.0)
        .bind(request.cost.delta.0)
        .bind(request.spender.team())
        .bind(request.now_ms),
    )
    .await?;
    for part in blocks.chunks(ROWS_PER_INSERT) {
        let rows = part.iter().map(|(epoch, state)| {
            [
                dataset.into(),
                i64::from(epoch.0).into(),
                state.limits.total.rho.0.into(),
                state.spent.rho.0.into(),
                state.limits.total.delta.0.into(),
                state.spent.delta.0.into(),
                state.limits.teams_rho.0.into(),
                state.teams_spent.0.into(),
            ]
        });
        tx.execute(Statement::rows(
            "INSERT INTO budget_blocks (dataset, epoch, limit_nano_rho, spent_nano_rho, limit_atto_delta, spent_atto_delta, \
             teams_limit_nano_rho, teams_spent_nano_rho) ",
            rows,
            " ON CONFLICT (dataset, epoch) DO UPDATE SET limit_nano_rho = excluded.limit_nano_rho, spent_nano_rho = \
             excluded.spent_nano_rho, limit_atto_delta = excluded.limit_atto_delta, spent_atto_delta = \
             excluded.spent_atto_delta, teams_limit_nano_rho = excluded.teams_limit_nano_rho, teams_spent_nano_rho = \
             excluded.teams_spent_nano_rho",
        ))
        .await?;
        let rows =
            part.iter().map(|(epoch, _)| [dataset.into(), i64::from(epoch.0).into(), question.into(), days.as_str().into()]);
        tx.execute(Statement::rows("INSERT INTO charged_days (dataset, epoch, question, days) ", rows, "")).await?;
    }
    Ok(())
}

fn cost_of(row: &Row) -> Result<Cost, StoreError> {
    let (rho, delta) = (column(row, "cost_nano_rho", CHARGES)?, column(row, "cost_atto_delta", CHARGES)?);
    Ok(Cost { rho: NanoRho(rho), delta: AttoDelta(delta) })
}

fn block_state(row: &Row) -> Result<BlockState, StoreError> {
    let number = |name: &'static str| column::<i64, _>(row, name, BLOCKS);
    let pair = |rho, delta| Ok::<_, StoreError>(Cost { rho: NanoRho(number(rho)?), delta: AttoDelta(number(delta)?) });
    Ok(BlockState {
        limits: BlockLimits {
            total: pair("limit_nano_rho", "limit_atto_delta")?,
            teams_rho: NanoRho(number("teams_limit_nano_rho")?),
        },
        spent: pair("spent_nano_rho", "spent_atto_delta")?,
        teams_spent: NanoRho(number("teams_spent_nano_rho")?),
    })
}
