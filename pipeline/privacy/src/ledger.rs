//! Permission to draw noise is a value, and only the ledger makes it.

use std::sync::Arc;

use starling_schemas::metrics::NanoRho;
use starling_store::{Block, ChargeOutcome, Metastore};

use crate::PrivacyError;

/// Permission to draw noise once for one question over one block, at the cost that stands in the ledger.
///
/// It cannot be copied, and drawing consumes it. It can only be had from [`Ledger::charge`]:
///
/// ```compile_fail,E0451
/// # fn forge(block: starling_store::Block) -> starling_privacy::Charge {
/// starling_privacy::Charge { block, question: String::new(), cost: starling_schemas::metrics::NanoRho(1), fresh: true }
/// # }
/// ```
///
/// ```compile_fail,E0599
/// # fn double(charge: starling_privacy::Charge) -> (starling_privacy::Charge, starling_privacy::Charge) {
/// (charge.clone(), charge)
/// # }
/// ```
///
/// ```compile_fail,E0382
/// # async fn twice(charge: starling_privacy::Charge, one: starling_privacy::BoundedSums, two: starling_privacy::BoundedSums) {
/// let _ = starling_privacy::draw(charge, one).await;
/// let _ = starling_privacy::draw(charge, two).await;
/// # }
/// ```
///
/// # Privacy
/// I2: while a `Charge` exists, its cost is durably part of its block's spent budget. It is never given back.
#[derive(Debug)]
#[must_use = "the budget is spent whether or not noise is drawn"]
pub struct Charge {
    block: Block,
    question: String,
    cost: NanoRho,
    fresh: bool,
}

impl Charge {
    /// What was charged, and so what may be spent. For a question charged before, the cost of then.
    #[must_use]
    pub const fn cost(&self) -> NanoRho {
        self.cost
    }

    /// What it was charged to.
    #[must_use]
    pub const fn block(&self) -> &Block {
        &self.block
    }

    /// What it was charged for.
    #[must_use]
    pub fn question(&self) -> &str {
        &self.question
    }

    /// Whether it was charged just now. `false`: an earlier attempt charged and may have drawn, but nobody can have seen it without a file.
    #[must_use]
    pub const fn is_fresh(&self) -> bool {
        self.fresh
    }
}

/// The ledger's answer.
#[derive(Debug)]
pub enum Decision {
    /// Noise may be drawn.
    Granted(Charge),
    /// It would exceed the block's limit. Nothing was charged.
    Refused {
        /// What is left in the block.
        left: NanoRho,
    },
}

/// Spends budget, per block, in the metastore's serializable transactions.
#[derive(Clone)]
pub struct Ledger {
    metastore: Arc<Metastore>,
}

impl Ledger {
    /// A ledger over `metastore`.
    #[must_use]
    pub const fn new(metastore: Arc<Metastore>) -> Self {
        Self { metastore }
    }

    /// Charges `cost` to `block`, once per question: a question that was charged before is granted at the cost recorded then, whatever it
    /// would cost today, so that no draw spends more than the ledger knows.
    ///
    /// `now_ms`: milliseconds since 1970-01-01 UTC.
    ///
    /// # Errors
    /// [`PrivacyError::Store`] if the metastore fails: nothing is granted then, though the charge may stand.
    /// [`PrivacyError::ChargeMissing`] if the metastore contradicts itself.
    pub async fn charge(
        &self,
        block: Block,
        limit: NanoRho,
        cost: NanoRho,
        question: &str,
        now_ms: i64,
    ) -> Result<Decision, PrivacyError> {
        let (cost, fresh) = match self.metastore.charge(&block, limit, cost, question, now_ms).await? {
            ChargeOutcome::Charged => (cost, true),
            ChargeOutcome::AlreadyCharged => (self.recorded(&block, question).await?, false),
            ChargeOutcome::Refused { left } => return Ok(Decision::Refused { left }),
        };
        Ok(Decision::Granted(Charge { block, question: question.to_owned(), cost, fresh }))
    }

    async fn recorded(&self, block: &Block, question: &str) -> Result<NanoRho, PrivacyError> {
        let rows = self.metastore.budget().await?;
        let charges = rows.into_iter().filter(|row| row.block == *block).flat_map(|row| row.charges);
        let cost = charges.into_iter().find_map(|(asked, cost, _)| (asked == question).then_some(cost));
        cost.ok_or_else(|| PrivacyError::ChargeMissing { question: question.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use starling_schemas::ids::EpochId;

    use super::*;

    async fn ledger() -> (Ledger, tempfile::TempDir) {
        let folder = tempfile::tempdir().expect("a folder");
        let url = format!("sqlite:{}", folder.path().join("meta.sqlite").display());
        (Ledger::new(Arc::new(Metastore::open(&url).await.expect("opens"))), folder)
    }

    fn block() -> Block {
        Block { dataset: "person_day".to_owned(), epoch: EpochId(20_458) }
    }

    #[tokio::test]
    async fn i2_a_question_is_charged_once_and_keeps_the_cost_of_then() {
        let (ledger, _folder) = ledger().await;
        let limit = NanoRho(100);
        let Decision::Granted(first) = ledger.charge(block(), limit, NanoRho(60), "metric:a", 1).await.expect("asked") else {
            panic!("refused")
        };
        assert!(first.is_fresh() && first.cost() == NanoRho(60));
        // The definition has become dearer since: the old charge does not grow, so the noise must not shrink.
        let Decision::Granted(second) = ledger.charge(block(), limit, NanoRho(90), "metric:a", 2).await.expect("asked") else {
            panic!("refused")
        };
        assert!(!second.is_fresh() && second.cost() == NanoRho(60));
        let Decision::Refused { left } = ledger.charge(block(), limit, NanoRho(41), "metric:b", 3).await.expect("asked") else {
            panic!("granted")
        };
        assert_eq!(left, NanoRho(40));
    }

    #[tokio::test]
    async fn i2_racing_questions_never_spend_more_than_the_limit() {
        let (ledger, _folder) = ledger().await;
        let asks = (0..12).map(|i| {
            let ledger = ledger.clone();
            tokio::spawn(async move {
                ledger.charge(block(), NanoRho(100), NanoRho(30), &format!("metric:{i}"), 1).await.expect("asked")
            })
        });
        let answers = futures::future::join_all(asks).await;
        let granted = answers.into_iter().filter(|a| matches!(a, Ok(Decision::Granted(_)))).count();
        assert_eq!(granted, 3);
    }
}
