//! The ledger: what questions have cost (I2, design 3.6).
//!
//! A block's budget is spent question by question and never given back. A charge is one serializable transaction, committed before any noise
//! is drawn; whoever crashes between the two has paid.
//!
//! # Privacy
//! Costs are ρ of zero-concentrated differential privacy, which adds up under adaptive composition (Bun & Steinke 2016, lemma 1.7), in
//! integers, so that the sum is exact. Assumption: a question's text names its mechanism and data fully, so that "charged already" means
//! "the same noise draw". A block keeps the smallest limit it was ever charged under: raising a limit later does not apply to windows that
//! have been asked about.

use std::collections::BTreeMap;

use starling_schemas::ids::EpochId;
use starling_schemas::metrics::NanoRho;

use super::types::{Block, BudgetRow, ChargeOutcome};
use super::{Metastore, column, failed, small_column};
use crate::error::StoreError;

/// Decides one charge. `stored`: the block's limit and what is spent, if it was ever charged.
///
/// Returns the outcome, and for [`ChargeOutcome::Charged`] the block's new limit and spent budget.
pub(super) fn decide(
    stored: Option<(NanoRho, NanoRho)>,
    limit: NanoRho,
    cost: NanoRho,
) -> Result<(ChargeOutcome, NanoRho, NanoRho), StoreError> {
    if cost <= NanoRho(0) || limit < NanoRho(0) {
        return Err(StoreError::InvalidCharge);
    }
    let (limit, spent) = stored.map_or((limit, NanoRho(0)), |(kept, spent)| (kept.min(limit), spent));
    match spent.0.checked_add(cost.0) {
        Some(sum) if sum <= limit.0 => Ok((ChargeOutcome::Charged, limit, NanoRho(sum))),
        _ => Ok((ChargeOutcome::Refused { left: NanoRho(limit.0.saturating_sub(spent.0).max(0)) }, limit, spent)),
    }
}

impl Metastore {
    /// Charges a question to a block, once for ever. Call it before drawing noise, and draw only after [`ChargeOutcome::Charged`].
    ///
    /// `limit` is the block's limit as the catalogue has it now; the smallest it was ever charged under applies.
    ///
    /// # Errors
    /// [`StoreError::InvalidCharge`] for a cost of zero or less; [`StoreError::Database`]: it may have been charged.
    pub async fn charge(
        &self,
        block: &Block,
        limit: NanoRho,
        cost: NanoRho,
        question: &str,
        now_ms: i64,
    ) -> Result<ChargeOutcome, StoreError> {
        const DURING: &str = "charging a budget";
        let mut tx = self.begin(DURING).await?;
        let epoch = i64::from(block.epoch.0);
        let before = sqlx::query("SELECT 1 FROM budget_charges WHERE dataset = $1 AND epoch = $2 AND question = $3")
            .bind(&block.dataset)
            .bind(epoch)
            .bind(question)
            .fetch_optional(&mut *tx)
            .await
            .map_err(failed(DURING))?;
        if before.is_some() {
            return Ok(ChargeOutcome::AlreadyCharged);
        }
        let stored = sqlx::query("SELECT limit_nano_rho, spent_nano_rho FROM budget_blocks WHERE dataset = $1 AND epoch = $2")
            .bind(&block.dataset)
            .bind(epoch)
            .fetch_optional(&mut *tx)
            .await
            .map_err(failed(DURING))?;
        let stored = match stored {
            None => None,
            Some(row) => Some((NanoRho(column(&row, 0, "budget_blocks")?), NanoRho(column(&row, 1, "budget_blocks")?))),
        };
        let (outcome, limit, spent) = decide(stored, limit, cost)?;
        if outcome != ChargeOutcome::Charged {
            return Ok(outcome);
        }
        sqlx::query(
            "INSERT INTO budget_blocks (dataset, epoch, limit_nano_rho, spent_nano_rho) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (dataset, epoch) DO UPDATE SET limit_nano_rho = excluded.limit_nano_rho, spent_nano_rho = excluded.spent_nano_rho",
        )
        .bind(&block.dataset)
        .bind(epoch)
        .bind(limit.0)
        .bind(spent.0)
        .execute(&mut *tx)
        .await
        .map_err(failed(DURING))?;
        sqlx::query("INSERT INTO budget_charges (dataset, epoch, question, cost_nano_rho, at_ms) VALUES ($1, $2, $3, $4, $5)")
            .bind(&block.dataset)
            .bind(epoch)
            .bind(question)
            .bind(cost.0)
            .bind(now_ms)
            .execute(&mut *tx)
            .await
            .map_err(failed(DURING))?;
        tx.commit().await.map_err(failed(DURING))?;
        Ok(outcome)
    }

    /// Every block that was ever charged, with its charges, in order.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn budget(&self) -> Result<Vec<BudgetRow>, StoreError> {
        const TABLE: &str = "budget_blocks";
        // One statement, so that a charge at the same time is wholly in or wholly out.
        let rows = sqlx::query(
            "SELECT b.dataset AS dataset, b.epoch AS epoch, b.limit_nano_rho AS limit_nano_rho, b.spent_nano_rho AS spent_nano_rho, \
             c.question AS question, c.cost_nano_rho AS cost_nano_rho, c.at_ms AS at_ms FROM budget_blocks b \
             JOIN budget_charges c ON c.dataset = b.dataset AND c.epoch = b.epoch ORDER BY c.at_ms, c.question",
        )
        .fetch_all(&self.readers)
        .await
        .map_err(failed("reading the budget"))?;
        let mut blocks: BTreeMap<Block, BudgetRow> = BTreeMap::new();
        for row in &rows {
            let block = Block { dataset: column(row, "dataset", TABLE)?, epoch: EpochId(small_column(row, "epoch", TABLE)?) };
            let limit = NanoRho(column(row, "limit_nano_rho", TABLE)?);
            let spent = NanoRho(column(row, "spent_nano_rho", TABLE)?);
            let charge = (
                column(row, "question", "budget_charges")?,
                NanoRho(column(row, "cost_nano_rho", "budget_charges")?),
                column(row, "at_ms", "budget_charges")?,
            );
            blocks.entry(block.clone()).or_insert(BudgetRow { block, limit, spent, charges: Vec::new() }).charges.push(charge);
        }
        Ok(blocks.into_values().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn i2_whatever_is_asked_under_whatever_limits_spent_never_falls_and_never_exceeds_the_smallest_limit(
            charges in prop::collection::vec((0..200_i64, 1..60_i64), 1..60)
        ) {
            let mut stored: Option<(NanoRho, NanoRho)> = None;
            for (limit, cost) in charges {
                let before = stored.map_or(0, |(_, spent)| spent.0);
                let (outcome, kept, spent) = decide(stored, NanoRho(limit), NanoRho(cost)).expect("valid");
                match outcome {
                    ChargeOutcome::Charged => {
                        prop_assert_eq!(spent.0, before + cost);
                        prop_assert!(spent <= kept && kept.0 <= limit);
                        prop_assert!(stored.is_none_or(|(earlier, _)| kept <= earlier));
                        stored = Some((kept, spent));
                    }
                    ChargeOutcome::Refused { left } => prop_assert!(left.0 >= 0 && left.0 < cost),
                    ChargeOutcome::AlreadyCharged => prop_assert!(false),
                }
            }
        }
    }

    #[test]
    fn a_cost_of_nothing_or_less_and_a_sum_beyond_all_numbers_are_refused() {
        for cost in [0, -1, i64::MIN] {
            assert!(matches!(decide(None, NanoRho(10), NanoRho(cost)), Err(StoreError::InvalidCharge)));
        }
        let huge = decide(Some((NanoRho(i64::MAX), NanoRho(i64::MAX - 1))), NanoRho(i64::MAX), NanoRho(i64::MAX)).expect("valid");
        assert_eq!(huge.0, ChargeOutcome::Refused { left: NanoRho(1) });
    }
}
