//! Permission to draw noise is a value, and only the ledger makes it.

use std::collections::BTreeSet;
use std::sync::Arc;

use starling_schemas::cost::{AttoDelta, Cost};
use starling_schemas::ids::EpochId;
use starling_store::{Block, ChargeOutcome, ChargeRequest, Metastore, Refusal};

use crate::PrivacyError;
use crate::question::{Answer, Asked, Plan};

/// Permission to draw noise once for one question over its blocks, at the cost that stands in the ledger.
///
/// It cannot be copied, and drawing consumes it. It can only be had from [`Ledger::charge`]:
///
/// ```compile_fail,E0451
/// # fn forge(dataset: String) -> starling_privacy::Charge {
/// # let (epochs, question) = (std::collections::BTreeSet::new(), String::new());
/// # let cost = starling_schemas::cost::Cost::noise(starling_schemas::cost::NanoRho(1));
/// starling_privacy::Charge { dataset, epochs, question, cost, fresh: true }
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
/// # use starling_privacy::question::{Asked, Plan};
/// # fn twice(charge: starling_privacy::Charge, one: Asked, two: Asked, plan: &Plan) {
/// let _ = charge.draw(one, plan);
/// let _ = charge.draw(two, plan);
/// # }
/// ```
///
/// # Privacy
/// I2: while a `Charge` exists, its cost is durably part of the spent budget of each of its blocks. It is never given back.
#[derive(Debug)]
#[must_use = "the budget is spent whether or not noise is drawn"]
pub struct Charge {
    dataset: String,
    epochs: BTreeSet<EpochId>,
    question: String,
    cost: Cost,
    fresh: bool,
}

impl Charge {
    /// What was charged in each block, and so what may be spent. For a question charged before, the cost of then.
    #[must_use]
    pub const fn cost(&self) -> Cost {
        self.cost
    }

    /// The dataset it was charged to.
    #[must_use]
    pub fn dataset(&self) -> &str {
        &self.dataset
    }

    /// The days it was charged to: no other rows may be read under it.
    #[must_use]
    pub const fn epochs(&self) -> &BTreeSet<EpochId> {
        &self.epochs
    }

    /// The same as blocks.
    pub fn blocks(&self) -> impl Iterator<Item = Block> {
        self.epochs.iter().map(|epoch| Block { dataset: self.dataset.clone(), epoch: *epoch })
    }

    /// What it was charged for.
    #[must_use]
    pub fn question(&self) -> &str {
        &self.question
    }

    /// Draws under this charge, which it uses up. Blocks a thread: call it where that is allowed.
    ///
    /// # Privacy
    /// As `Asked::draw`, and nothing is drawn that costs more ρ than stands in the ledger.
    ///
    /// # Errors
    /// [`PrivacyError::CostsMoreThanCharged`], and those of `Asked::draw`.
    pub fn draw(self, asked: Asked, plan: &Plan) -> Result<Answer, PrivacyError> {
        if plan.rho > self.cost.rho || AttoDelta::stated(plan.delta) > self.cost.delta {
            return Err(PrivacyError::CostsMoreThanCharged);
        }
        asked.draw(plan)
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
    /// It would exceed a limit. Nothing was charged, in no block.
    Refused(Refusal),
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

    /// Charges a question to all its blocks, once. What was charged before is granted at the cost recorded then, so that no draw spends more
    /// than the ledger knows; a question of a team must ask for the same at the same cost, or it is another question.
    ///
    /// # Errors
    /// [`PrivacyError::Store`]: nothing is granted. If the metastore failed the charge may stand, and is found when it is asked for again.
    pub async fn charge(&self, request: ChargeRequest) -> Result<Decision, PrivacyError> {
        let (cost, fresh) = match self.metastore.charge(&request).await? {
            ChargeOutcome::Charged => (request.cost, true),
            ChargeOutcome::AlreadyCharged { cost } => (cost, false),
            ChargeOutcome::Refused(refusal) => return Ok(Decision::Refused(refusal)),
        };
        let ChargeRequest { dataset, epochs, question, .. } = request;
        Ok(Decision::Granted(Charge { dataset, epochs, question, cost, fresh }))
    }
}

#[cfg(test)]
mod tests {
    use starling_schemas::cost::{Allotment, AttoDelta, BlockLimits, NanoRho};
    use starling_store::{Reason, Spender, StoreError};

    use super::*;

    async fn ledger() -> (Ledger, tempfile::TempDir) {
        let folder = tempfile::tempdir().expect("a folder");
        let url = format!("sqlite:{}", folder.path().join("meta.sqlite").display());
        (Ledger::new(Arc::new(Metastore::open(&url).await.expect("opens"))), folder)
    }

    fn metric(name: &str, rho: i64) -> ChargeRequest {
        let total = Cost { rho: NanoRho(100), delta: AttoDelta(9) };
        ChargeRequest {
            dataset: "person_day".to_owned(),
            epochs: [EpochId(20_458)].into(),
            question: format!("metric:{name}"),
            cost: Cost::noise(NanoRho(rho)),
            limits: BlockLimits { total, teams_rho: NanoRho(50) },
            spender: Spender::Releases,
            now_ms: 1,
        }
    }

    async fn granted(ledger: &Ledger, request: ChargeRequest) -> Charge {
        match ledger.charge(request).await.expect("asked") {
            Decision::Granted(charge) => charge,
            Decision::Refused(refusal) => panic!("{refusal}"),
        }
    }

    async fn refused(ledger: &Ledger, request: ChargeRequest) -> Refusal {
        match ledger.charge(request).await.expect("asked") {
            Decision::Granted(charge) => panic!("{charge:?}"),
            Decision::Refused(refusal) => refusal,
        }
    }

    #[tokio::test]
    async fn i2_a_metric_is_charged_once_a_window_and_keeps_the_cost_of_then() {
        let (ledger, _folder) = ledger().await;
        let first = granted(&ledger, metric("a", 60)).await;
        assert!(first.is_fresh() && first.cost() == Cost::noise(NanoRho(60)));
        // The definition has become dearer since: the old charge does not grow, so the noise must not shrink.
        let second = granted(&ledger, metric("a", 90)).await;
        assert!(!second.is_fresh() && second.cost() == Cost::noise(NanoRho(60)));
        assert_eq!(refused(&ledger, metric("b", 41)).await.left.rho, NanoRho(40));
        let next = granted(&ledger, ChargeRequest { epochs: [EpochId(20_459)].into(), ..metric("a", 90) }).await;
        assert!(next.is_fresh() && next.cost() == Cost::noise(NanoRho(90)));
    }

    #[tokio::test]
    async fn i2_a_question_over_several_days_is_one_charge_and_never_a_discount_for_other_days() {
        let (ledger, _folder) = ledger().await;
        let allotment = Allotment { rho_per_block: NanoRho(40), rho_per_refill: NanoRho(80), refill_days: 7 };
        let week: BTreeSet<EpochId> = (20_458..20_462).map(EpochId).collect();
        let cost = Cost { rho: NanoRho(15), delta: AttoDelta(2) };
        let asked = ChargeRequest {
            epochs: week.clone(),
            question: "q".to_owned(),
            cost,
            spender: Spender::Team { name: "growth".to_owned(), allotment },
            ..metric("", 1)
        };
        let charge = granted(&ledger, asked.clone()).await;
        assert_eq!((charge.dataset(), charge.question(), charge.cost()), ("person_day", "q", cost));
        assert_eq!((charge.epochs(), charge.blocks().count(), charge.is_fresh()), (&week, 4, true));
        let again = granted(&ledger, asked.clone()).await;
        assert_eq!((again.epochs(), again.cost(), again.is_fresh()), (&week, cost, false));
        let fewer = ChargeRequest { epochs: [EpochId(20_458)].into(), ..asked.clone() };
        let error = ledger.charge(fewer).await.expect_err("another question under the same name");
        assert!(matches!(error, PrivacyError::Store(StoreError::OtherCharge)), "{error}");
        let another = ChargeRequest { question: "p".to_owned(), epochs: (20_450..20_452).map(EpochId).collect(), ..asked };
        let refusal = refused(&ledger, another).await;
        assert_eq!((refusal.reason, refusal.left.rho), (Reason::TeamRefill, NanoRho(20)));
        insta::assert_snapshot!(refusal, @"rho 0.00000002 of the team's allotment is left; more arrives on 1970-01-08");
    }

    #[tokio::test]
    async fn i2_racing_questions_never_spend_more_than_the_limit() {
        let (ledger, _folder) = ledger().await;
        let asks = (0..12).map(|i| {
            let ledger = ledger.clone();
            tokio::spawn(async move { ledger.charge(metric(&i.to_string(), 30)).await.expect("asked") })
        });
        let answers = futures::future::join_all(asks).await;
        let granted = answers.into_iter().filter(|a| matches!(a, Ok(Decision::Granted(_)))).count();
        assert_eq!(granted, 3);
    }
}
