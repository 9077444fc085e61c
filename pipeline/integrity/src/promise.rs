//! # Promised and observed: whether verdicts show more false alerts than a rule promises
//!
//! **Comes in:** verdicts on what a rule told, in their last state, and the share of false ones that it promises at most. **Goes out:** whether the
//! promise is broken. Nothing here reads a clock or a database.
//!
//! ## The test
//!
//! Analysts judge one alert after the other, and after each somebody may look. An interval that is right 99 times of 100 at *one* look is wrong
//! sooner or later if it is looked at for long enough, so it must not decide. What decides is an *e-process*: a bet against the promise, whose gain may
//! be looked at as often as one likes. Of `s` alerts judged false and `f` judged right, promised at most `q`, it is the likelihood ratio against `q`,
//! averaged over all larger shares alike:
//!
//! ```text
//!                   1      ⌠ 1  θˢ (1−θ)ᶠ          B(s+1, f+1) · P(Beta(s+1, f+1) > q)
//!   E(s, f)  =  ───────  · ⎮   ─────────── dθ  =  ─────────────────────────────────────
//!                1 − q     ⌡ q  qˢ (1−q)ᶠ                  (1−q) · qˢ (1−q)ᶠ
//! ```
//!
//! Where each alert is false with a probability of at most `q`, whatever was judged before, each factor under the integral has an expectation of at most 1
//! (it is linear in that probability, rises with it as θ > q, and is 1 at `q`), so `E` is a supermartingale that begins at 1, and it *ever* reaches 100
//! with a probability of at most 1 in 100 (Ville 1939; mixtures of likelihood ratios: Robbins 1970, Lai 1976; e-processes: Ramdas, Grünwald, Vovk and
//! Shafer 2023). A test computes that probability, and how soon a rule that breaks its promise is found, by adding up all orders of verdicts.
//!
//! ## What is counted
//!
//! - Alerts by when they were told first, in periods of 28 days, each with a test of its own: a year of good days does not pay for a bad month, and a
//!   rule that keeps its promise is put back by chance in at most one period of a hundred. Verdicts come late, so the period before the present one
//!   is looked at, too.
//! - Each verdict in its last state: an alert whose appeal was granted counts as false. Granting turns a verdict in one direction only and `E` rises with it, so
//!   looking before an appeal is decided demotes no rule that would not be demoted after it.
//! - Nothing that was told before somebody lifted a demotion: that person has answered for it.
//! - At least ten verdicts: of two, chance alone may make both wrong.
//!
//! ## What can go wrong
//!
//! A test is as good as what is judged. Where analysts judge only what looks wrong, the share among verdicts is not the share among alerts; where one innocent
//! habit makes many alerts at once, their verdicts are not one chance each. Both demote too soon rather than too late: a person looks, and lifts it.

use std::collections::BTreeMap;

use starling_schemas::ids::EpochId;
use statrs::function::beta::{beta_reg, ln_beta};

use crate::work::Verdicts;

#[cfg(test)]
mod tests;

/// A promise is broken where the evidence against it reaches this: 1 / 0.01.
pub const BROKEN_AT: f64 = 100.0;
/// Fewest verdicts on which it is decided.
pub const FEWEST_VERDICTS: u64 = 10;
/// Days of a period.
pub const PERIOD_DAYS: i32 = 28;
/// What is larger says no more.
const MOST_EVIDENCE: f64 = 1e12;

/// The period in which an alert was told.
fn period(told_ms: i64) -> i32 {
    EpochId::of(told_ms).0.div_euclid(PERIOD_DAYS)
}

/// From when on alerts are counted at `now_ms`: the beginning of the period before the present one, milliseconds since 1970-01-01 UTC.
#[must_use]
pub fn counted_from(now_ms: i64) -> i64 {
    EpochId((period(now_ms) - 1) * PERIOD_DAYS).start_ms()
}

/// A verdict on one alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// When the alert was told first, milliseconds since 1970-01-01 UTC.
    pub told_ms: i64,
    /// Whether it was abuse, as judged last.
    pub abuse: bool,
}

/// What verdicts say of a promise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observed {
    /// All that were counted.
    pub verdicts: Verdicts,
    /// Those of the period that speaks most against it.
    pub worst: Verdicts,
    /// What they weigh: see this module's text. 1 is nothing.
    pub evidence: f64,
}

impl Observed {
    /// Whether the promise is broken.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.evidence >= BROKEN_AT && self.worst.all() >= FEWEST_VERDICTS
    }
}

/// Holds verdicts against a promise: those on alerts told at [`counted_from`] or later, and after `lifted_ms`, when somebody last lifted a demotion.
#[must_use]
pub fn observe(verdicts: impl IntoIterator<Item = Verdict>, promised: f64, lifted_ms: i64, now_ms: i64) -> Observed {
    let from_ms = counted_from(now_ms);
    let mut periods: BTreeMap<i32, Verdicts> = BTreeMap::new();
    for verdict in verdicts {
        if verdict.told_ms >= from_ms && verdict.told_ms > lifted_ms {
            periods.entry(period(verdict.told_ms)).or_default().add(verdict.abuse);
        }
    }
    let mut observed = Observed { verdicts: Verdicts::default(), worst: Verdicts::default(), evidence: 1.0 };
    for verdicts in periods.into_values() {
        observed.verdicts.confirmed += verdicts.confirmed;
        observed.verdicts.dismissed += verdicts.dismissed;
        let evidence = verdicts.against(promised);
        // What is too little to be decided on hides no period that is not.
        let decides = |v: &Verdicts| v.all() >= FEWEST_VERDICTS;
        if (decides(&verdicts), evidence) > (decides(&observed.worst), observed.evidence) {
            (observed.worst, observed.evidence) = (verdicts, evidence);
        }
    }
    observed
}

impl Verdicts {
    /// One more.
    pub fn add(&mut self, abuse: bool) {
        *(if abuse { &mut self.confirmed } else { &mut self.dismissed }) += 1;
    }

    /// How many there are.
    #[must_use]
    pub const fn all(self) -> u64 {
        self.confirmed + self.dismissed
    }

    /// The share that was false, with the exact 95 % interval of Clopper and Pearson (1934). `None` before the first verdict.
    #[must_use]
    pub fn false_share(self) -> Option<(f64, f64, f64)> {
        self.precision().map(|(right, low, high)| (1.0 - right, 1.0 - high, 1.0 - low))
    }

    /// What they weigh against the promise that at most the share `promised`, above 0 and below 1, is false: `E` of this module's text.
    #[must_use]
    pub fn against(self, promised: f64) -> f64 {
        #[allow(clippy::cast_precision_loss)]
        let (s, f) = (self.dismissed as f64, self.confirmed as f64);
        let above = beta_reg(f + 1.0, s + 1.0, 1.0 - promised);
        let right = (1.0 - promised).ln();
        (ln_beta(s + 1.0, f + 1.0) + above.ln() - right - s * promised.ln() - f * right).exp().min(MOST_EVIDENCE)
    }
}
