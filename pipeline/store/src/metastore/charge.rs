//! What is asked of the ledger and what it answers, and the decision between: a pure function of observed facts.

use std::collections::BTreeSet;
use std::fmt;

use starling_schemas::cost::{Allotment, AttoDelta, BlockLimits, Cost, NanoRho};
use starling_schemas::ids::EpochId;

use super::types::Block;
use crate::error::StoreError;

/// Who pays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spender {
    /// Scheduled releases.
    Releases,
    /// A question of a team.
    Team {
        /// Its name in the dataset's text.
        name: String,
        /// What it may spend, as the text has it now.
        allotment: Allotment,
    },
}

impl Spender {
    /// The team's name. `None`: scheduled releases.
    #[must_use]
    pub fn team(&self) -> Option<&str> {
        match self {
            Self::Releases => None,
            Self::Team { name, .. } => Some(name),
        }
    }
}

/// One charge: a question over some days of a dataset, which costs the same in each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChargeRequest {
    /// The dataset.
    pub dataset: String,
    /// The days whose rows the answer is made from. At least one.
    pub epochs: BTreeSet<EpochId>,
    /// What is asked. Names mechanism and data fully, so that the same question is the same draw of noise.
    pub question: String,
    /// What it costs in each day's block.
    pub cost: Cost,
    /// The blocks' limits, as the dataset's text has them now.
    pub limits: BlockLimits,
    /// Who pays.
    pub spender: Spender,
    /// Now, in milliseconds since 1970-01-01 UTC: which refill period pays.
    pub now_ms: i64,
}

/// What became of a charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChargeOutcome {
    /// It was charged now, in every block: noise may be drawn once.
    Charged,
    /// This question was charged before for exactly these days: nothing was charged now.
    AlreadyCharged {
        /// What was charged then, which is all that the noise may spend.
        cost: Cost,
    },
    /// It would exceed a limit: nothing was charged, in no block.
    Refused(Refusal),
}

/// Why a charge was refused. `Display` says it for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The limit that stands in the way.
    pub reason: Reason,
    /// The day that has least left. `None`: the limit is not one day's.
    pub epoch: Option<EpochId>,
    /// What is left under that limit.
    pub left: Cost,
    /// When more arrives and the same charge would fit under this limit, in milliseconds since 1970-01-01 UTC. `None`: never.
    pub more_at_ms: Option<i64>,
}

/// Which limit stands in the way of a charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// ρ of a block.
    Block,
    /// δ that thresholds may spend in a block.
    Thresholds,
    /// What the questions of all teams may spend in a block.
    TeamsShare,
    /// What this team may spend in any one block.
    TeamBlock,
    /// What this team may spend in this refill period.
    TeamRefill,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rho = self.left.rho.rho();
        if let Some(epoch) = self.epoch {
            write!(f, "{epoch}: ")?;
        }
        match self.reason {
            Reason::Block => write!(f, "rho {rho} of the day's budget is left, and no more will ever come"),
            Reason::Thresholds => {
                write!(f, "delta {:e} for thresholds is left that day, and no more will ever come", self.left.delta.delta())
            }
            Reason::TeamsShare => {
                write!(
                    f,
                    "rho {rho} is left for questions that day; the rest is kept for scheduled releases, and no more will ever come"
                )
            }
            Reason::TeamBlock => write!(f, "rho {rho} of what the team may spend in one day is left"),
            Reason::TeamRefill => write!(f, "rho {rho} of the team's allotment is left"),
        }?;
        match self.more_at_ms {
            Some(ms) => write!(f, "; more arrives on {}", EpochId::of(ms)),
            None if self.reason == Reason::TeamRefill => f.write_str("; the question costs more than a whole refill"),
            None => Ok(()),
        }
    }
}

/// A block's budget as it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BlockState {
    /// The smallest limits it was ever charged under, but never less than was spent by then.
    pub(super) limits: BlockLimits,
    /// By all together.
    pub(super) spent: Cost,
    /// By teams; part of `spent`.
    pub(super) teams_spent: NanoRho,
}

/// One block as a charge finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Observed {
    pub(super) epoch: EpochId,
    /// `None`: never charged.
    pub(super) stored: Option<BlockState>,
    /// What this team has spent in it.
    pub(super) team_spent: NanoRho,
}

/// A charge of the same question in the same dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Earlier {
    /// [`days`] of its blocks.
    pub(super) days: String,
    pub(super) cost: Cost,
    pub(super) team: Option<String>,
}

/// Everything a decision rests on, read in one transaction.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Facts {
    pub(super) earlier: Vec<Earlier>,
    /// One for each day of the request.
    pub(super) blocks: Vec<Observed>,
    /// What this team has spent in this refill period, summed over blocks.
    pub(super) team_period_spent: NanoRho,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Write these blocks and the charge.
    Charge(Vec<(EpochId, BlockState)>),
    /// Write nothing and answer this.
    Answer(ChargeOutcome),
}

/// Days in canonical form: the same text for the same days, such as `20458-20464,20470`.
pub(super) fn days(epochs: &BTreeSet<EpochId>) -> String {
    let mut runs: Vec<(i32, i32)> = Vec::new();
    for day in epochs {
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(day.0) => *last = day.0,
            _ => runs.push((day.0, day.0)),
        }
    }
    let texts = runs.iter().map(|(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") });
    texts.collect::<Vec<_>>().join(",")
}

/// Decides one charge.
///
/// # Privacy
/// A question that was charged is free only for exactly the days that were charged, at the cost of then. The same name for something else is an
/// error: an answer must never be had at another's price. For a scheduled release the question is the metric's name, asked anew for each
/// window and charged anew; if its text has become dearer or cheaper between charge and draw, the cost of then is what may be drawn with.
///
/// A block keeps the smallest limits it was ever charged under: raising one later does not apply to days that have been asked about.
/// Allotments of teams divide what may be spent and do not add to it, so they apply as the text has them now.
pub(super) fn decide(request: &ChargeRequest, facts: &Facts) -> Result<Verdict, StoreError> {
    let (cost, limits) = (request.cost, request.limits);
    let sound = limits.total.rho.0 >= 0 && limits.total.delta.0 >= 0 && limits.teams_rho.0 >= 0;
    if cost.rho.0 <= 0 || cost.delta.0 < 0 || !sound || request.epochs.is_empty() {
        return Err(StoreError::InvalidCharge);
    }
    let (wanted, team) = (days(&request.epochs), request.spender.team());
    if let Some(earlier) = facts.earlier.iter().find(|earlier| earlier.days == wanted) {
        if earlier.cost != cost && (team.is_some() || earlier.team.is_some()) {
            return Err(StoreError::OtherCharge);
        }
        return Ok(Verdict::Answer(ChargeOutcome::AlreadyCharged { cost: earlier.cost }));
    }
    if !facts.earlier.is_empty() && (team.is_some() || facts.earlier.iter().any(|earlier| earlier.team.is_some())) {
        return Err(StoreError::OtherCharge);
    }

    let mut after = Vec::with_capacity(facts.blocks.len());
    let mut refusals = Vec::new();
    for block in &facts.blocks {
        match charge_block(request, block) {
            Ok(state) => after.push((block.epoch, state)),
            Err(refusal) => refusals.push(refusal),
        }
    }
    // What can never be helped is told first, and of days the one with least left.
    if let Some(refusal) = refusals.into_iter().min_by_key(|r| (r.reason as u8, r.left.rho, r.left.delta, r.epoch)) {
        return Ok(Verdict::Answer(ChargeOutcome::Refused(refusal)));
    }
    if let Spender::Team { allotment, .. } = &request.spender {
        let blocks = i64::try_from(facts.blocks.len()).unwrap_or(i64::MAX);
        let whole = cost.rho.0.checked_mul(blocks);
        let sum = whole.and_then(|whole| whole.checked_add(facts.team_period_spent.0));
        if sum.is_none_or(|sum| sum > allotment.rho_per_refill.0) {
            let fits_later = whole.is_some_and(|whole| whole <= allotment.rho_per_refill.0);
            return Ok(Verdict::Answer(ChargeOutcome::Refused(Refusal {
                reason: Reason::TeamRefill,
                epoch: None,
                left: Cost::noise(left(allotment.rho_per_refill, facts.team_period_spent)),
                more_at_ms: fits_later.then(|| allotment.period(request.now_ms).1),
            })));
        }
    }
    Ok(Verdict::Charge(after))
}

/// The block after the charge, or the first limit in the way.
fn charge_block(request: &ChargeRequest, block: &Observed) -> Result<BlockState, Refusal> {
    let cost = request.cost;
    let unspent = BlockState { limits: request.limits, spent: Cost::default(), teams_spent: NanoRho(0) };
    let before = block.stored.unwrap_or(unspent);
    let limits = smaller(before.limits, request.limits);
    let refused = |reason, left| Refusal { reason, epoch: Some(block.epoch), left, more_at_ms: None };
    let all_left = limits.total.without(before.spent);
    let spent = before.spent.checked_add(cost).filter(|sum| sum.rho <= limits.total.rho);
    let spent = spent.ok_or(refused(Reason::Block, all_left))?;
    if cost.delta.0 > 0 && spent.delta > limits.total.delta {
        return Err(refused(Reason::Thresholds, all_left));
    }
    let mut teams_spent = before.teams_spent;
    if let Spender::Team { allotment, .. } = &request.spender {
        let of = |rho| Cost { rho, delta: all_left.delta };
        let within = |spent: NanoRho, limit: NanoRho| spent.0.checked_add(cost.rho.0).filter(|sum| *sum <= limit.0).map(NanoRho);
        teams_spent = within(before.teams_spent, limits.teams_rho)
            .ok_or(refused(Reason::TeamsShare, of(left(limits.teams_rho, before.teams_spent))))?;
        within(block.team_spent, allotment.rho_per_block)
            .ok_or(refused(Reason::TeamBlock, of(left(allotment.rho_per_block, block.team_spent))))?;
    }
    // A limit that was lowered below what had been spent by then stands at that: nothing more, and nothing owed.
    let total = Cost { delta: limits.total.delta.max(spent.delta), ..limits.total };
    let limits = BlockLimits { total, teams_rho: limits.teams_rho.max(teams_spent) };
    Ok(BlockState { limits, spent, teams_spent })
}

fn left(limit: NanoRho, spent: NanoRho) -> NanoRho {
    NanoRho(limit.0.saturating_sub(spent.0).max(0))
}

fn smaller(a: BlockLimits, b: BlockLimits) -> BlockLimits {
    let (rho, delta): (NanoRho, AttoDelta) = (a.total.rho.min(b.total.rho), a.total.delta.min(b.total.delta));
    BlockLimits { total: Cost { rho, delta }, teams_rho: a.teams_rho.min(b.teams_rho) }
}

/// What was charged, over which days, by whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChargeRecord {
    /// The dataset.
    pub dataset: String,
    /// The question.
    pub question: String,
    /// The days.
    pub epochs: BTreeSet<EpochId>,
    /// What it cost in each of them.
    pub cost: Cost,
    /// The team that asked. `None`: scheduled releases.
    pub team: Option<String>,
    /// When, milliseconds since 1970-01-01 UTC.
    pub at_ms: i64,
}

/// A charge as one block sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockCharge {
    /// The question.
    pub question: String,
    /// What it cost in this block.
    pub cost: Cost,
    /// The team that asked. `None`: scheduled releases.
    pub team: Option<String>,
    /// When, milliseconds since 1970-01-01 UTC.
    pub at_ms: i64,
}

/// A block's budget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetRow {
    /// The block.
    pub block: Block,
    /// Its limits: the smallest it was ever charged under, but never less than was spent by then.
    pub limits: BlockLimits,
    /// What has been spent. Never falls (I2).
    pub spent: Cost,
    /// What teams have spent of that.
    pub teams_spent: NanoRho,
    /// In order of time.
    pub charges: Vec<BlockCharge>,
}

impl BudgetRow {
    /// What is left, for scheduled releases at least.
    #[must_use]
    pub fn left(&self) -> Cost {
        self.limits.total.without(self.spent)
    }

    /// What is left for questions, all teams together.
    #[must_use]
    pub fn left_for_teams(&self) -> NanoRho {
        left(self.limits.teams_rho, self.teams_spent).min(self.left().rho)
    }
}

#[cfg(test)]
mod tests;
