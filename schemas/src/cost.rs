//! What privacy costs, in integers that add up exactly, and who may spend how much of it.
//!
//! # Privacy
//! A [`Cost`] is (ρ, δ) of δ-approximate zero-concentrated differential privacy (Bun & Steinke 2016, section 8): but for an event of
//! probability δ the mechanism is ρ-zCDP. Both add up under adaptive composition. ρ is the price of noise, δ that of thresholds: the chance that a
//! group is shown which only one person made. It is not the δ at which ε is told to people; that one is a choice of words and costs nothing.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::ids::{DAY_MS, EpochId};

/// A cost or limit in zero-concentrated differential privacy (Bun & Steinke 2016), in billionths of ρ, so that the ledger adds exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct NanoRho(pub i64);

impl NanoRho {
    /// Rounds a cost up.
    #[must_use]
    #[allow(clippy::cast_possible_truncation)]
    pub fn cost(rho: f64) -> Self {
        Self((rho * 1e9 - 1e-6).ceil() as i64)
    }

    /// As ρ.
    #[must_use]
    #[allow(clippy::cast_precision_loss)]
    pub fn rho(self) -> f64 {
        self.0 as f64 / 1e9
    }
}

/// A δ in parts of 10⁻¹⁸, so that the ledger adds exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct AttoDelta(pub i64);

impl AttoDelta {
    /// Rounds a computed cost up, never down: the product, too, may have been rounded.
    #[must_use]
    #[allow(clippy::cast_possible_truncation)]
    pub fn cost(delta: f64) -> Self {
        Self((delta * 1e18).next_up().ceil() as i64)
    }

    /// What a reviewed text states: the nearest number, so that 1e-9 is 1e-9.
    #[must_use]
    #[allow(clippy::cast_possible_truncation)]
    pub fn stated(delta: f64) -> Self {
        Self((delta * 1e18).round() as i64)
    }

    /// As δ.
    #[must_use]
    #[allow(clippy::cast_precision_loss)]
    pub fn delta(self) -> f64 {
        self.0 as f64 / 1e18
    }
}

/// What a question costs in each block it touches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Cost {
    /// Of noise.
    pub rho: NanoRho,
    /// Of thresholds.
    pub delta: AttoDelta,
}

impl Cost {
    /// Noise alone, without a threshold that costs.
    #[must_use]
    pub const fn noise(rho: NanoRho) -> Self {
        Self { rho, delta: AttoDelta(0) }
    }

    /// Both together. `None`: beyond all numbers.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        Some(Self {
            rho: NanoRho(self.rho.0.checked_add(other.rho.0)?),
            delta: AttoDelta(self.delta.0.checked_add(other.delta.0)?),
        })
    }

    /// What is left of this after `other`; never below zero.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self {
            rho: NanoRho(self.rho.0.saturating_sub(other.rho.0).max(0)),
            delta: AttoDelta(self.delta.0.saturating_sub(other.delta.0).max(0)),
        }
    }
}

/// What one block (a dataset, one unit window) may ever spend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockLimits {
    /// By all together.
    pub total: Cost,
    /// By the questions of all teams together; the rest is for scheduled releases, whatever teams do. At most `total.rho`.
    pub teams_rho: NanoRho,
}

/// What one team may spend of one dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Allotment {
    /// At most so much in any one block.
    pub rho_per_block: NanoRho,
    /// At most so much in each refill period, summed over blocks.
    pub rho_per_refill: NanoRho,
    /// Days of a refill period. Periods are counted from 1970-01-01.
    pub refill_days: u32,
}

impl Allotment {
    /// First millisecond of the refill period that a moment falls in, and the first one after it. Milliseconds since 1970-01-01 UTC.
    #[must_use]
    pub fn period(&self, now_ms: i64) -> (i64, i64) {
        let length = i64::from(self.refill_days.max(1));
        let first = i64::from(EpochId::of(now_ms).0).div_euclid(length) * length;
        (first * DAY_MS, (first + length) * DAY_MS)
    }
}

/// How a dataset's budget is written down.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AllotmentText {
    rho_per_block: f64,
    rho_per_refill: f64,
    refill_days: u32,
}

/// Largest ρ of a block: beyond it the numbers of the mechanisms leave their range, and no promise is left anyway.
const MOST_RHO: f64 = 1000.0;
/// An allotment that no refill ever ends.
pub(crate) const WITHOUT_END: NanoRho = NanoRho(1_000_000_000_000_000_000);
/// Longest refill period, in days.
const MOST_REFILL_DAYS: u32 = 366;
/// The name that stands in tables for who is no team.
pub const RELEASES: &str = "releases";

/// The share of a limit that only releases may spend, rounded up.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
pub(crate) fn reserved(limit: NanoRho, share: f64) -> NanoRho {
    NanoRho(((limit.0 as f64 * share - 1e-6).ceil() as i64).clamp(0, limit.0.max(0)))
}

impl AllotmentText {
    pub(crate) fn read(&self) -> Allotment {
        Allotment {
            rho_per_block: NanoRho::cost(self.rho_per_block),
            rho_per_refill: NanoRho::cost(self.rho_per_refill),
            refill_days: self.refill_days,
        }
    }
}

/// What is wrong with a dataset's budget, and what to write instead.
pub(crate) fn fault(
    rho_limit: f64,
    delta: f64,
    threshold_delta_limit: f64,
    releases_share: f64,
    teams: &BTreeMap<String, AllotmentText>,
) -> Option<String> {
    if !(rho_limit > 0.0 && rho_limit <= MOST_RHO) {
        return Some(format!("rho_limit: write a number above 0 and at most {MOST_RHO}"));
    }
    if !(delta > 0.0 && delta < 1.0) {
        return Some("delta: write a number above 0 and below 1, such as 1e-9; epsilon is told to people at it".to_owned());
    }
    if !(0.0..1.0).contains(&threshold_delta_limit)
        || (threshold_delta_limit > 0.0 && AttoDelta::stated(threshold_delta_limit).0 == 0)
    {
        return Some(
            "threshold_delta_limit: write 0 for no groups discovered from data, or a number from 1e-18 to below 1, such as 1e-9"
                .to_owned(),
        );
    }
    if !(0.0..=1.0).contains(&releases_share) {
        return Some(
            "releases_share: write a number from 0 to 1; 1 keeps all of rho_limit for scheduled releases, 0.7 leaves 0.3 of it for questions"
                .to_owned(),
        );
    }
    let limit = NanoRho::cost(rho_limit);
    let for_teams = NanoRho(limit.0 - reserved(limit, releases_share).0);
    teams.iter().find_map(|(name, text)| {
        let wrong = |what: String| Some(format!("team `{name}`: {what}"));
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
        if name.is_empty() || !name.bytes().all(plain) || name == RELEASES {
            return wrong(format!("use a-z, 0-9, _ and - for the name, and not `{RELEASES}`"));
        }
        if !(1..=MOST_REFILL_DAYS).contains(&text.refill_days) {
            return wrong(format!("refill_days: write 1 to {MOST_REFILL_DAYS}"));
        }
        if !(text.rho_per_block > 0.0 && text.rho_per_refill >= text.rho_per_block && text.rho_per_refill.is_finite()) {
            return wrong("write rho_per_block above 0 and rho_per_refill at least as large".to_owned());
        }
        if text.rho_per_refill > 1e9 {
            return wrong("rho_per_refill: write at most 1e9".to_owned());
        }
        if for_teams.0 == 0 {
            return wrong("releases_share leaves nothing for questions: lower it, or take the team out".to_owned());
        }
        (NanoRho::cost(text.rho_per_block) > for_teams).then(|| {
            format!(
                "team `{name}`: rho_per_block is more than the {} of a block that releases_share leaves for questions: lower one of the two",
                for_teams.rho()
            )
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_round_up_and_statements_to_the_nearest() {
        assert_eq!(NanoRho::cost(0.004), NanoRho(4_000_000));
        assert_eq!(NanoRho::cost(0.000_000_000_1), NanoRho(1));
        assert_eq!(AttoDelta::cost(1e-19), AttoDelta(1));
        for exponent in 1..=17_i32 {
            let stated = AttoDelta::stated(10_f64.powi(-exponent));
            assert_eq!(stated.0, 10_i64.pow(18 - exponent.unsigned_abs()));
            // As near as a float comes.
            assert!((AttoDelta::cost(stated.delta()).0 - stated.0).abs() <= 128, "{exponent}");
        }
        for share in [0.0, 0.1, 0.5, 0.7, 0.999_999, 1.0] {
            let kept = reserved(NanoRho(11_500_000), share);
            #[allow(clippy::cast_precision_loss)]
            let exact = 11_500_000.0 * share;
            assert!(kept.0 as f64 >= exact - 1e-3 && (kept.0 as f64) < exact + 1.0, "{share}: {kept:?}");
        }
    }

    #[test]
    fn what_is_left_is_never_below_zero_and_sums_never_wrap() {
        let cost = |rho, delta| Cost { rho: NanoRho(rho), delta: AttoDelta(delta) };
        assert_eq!(cost(5, 1).without(cost(7, 0)), cost(0, 1));
        assert_eq!(cost(i64::MIN, 0).without(cost(i64::MAX, 0)), cost(0, 0));
        assert_eq!(cost(1, 2).checked_add(cost(3, 4)), Some(cost(4, 6)));
        assert_eq!(cost(i64::MAX, 0).checked_add(cost(1, 0)), None);
        assert_eq!(cost(0, i64::MAX).checked_add(cost(0, 1)), None);
    }

    #[test]
    fn refill_periods_tile_time_from_the_first_day_on_and_before() {
        let weekly = Allotment { rho_per_block: NanoRho(1), rho_per_refill: NanoRho(1), refill_days: 7 };
        assert_eq!(weekly.period(0), (0, 7 * DAY_MS));
        assert_eq!(weekly.period(7 * DAY_MS - 1), (0, 7 * DAY_MS));
        assert_eq!(weekly.period(7 * DAY_MS), (7 * DAY_MS, 14 * DAY_MS));
        assert_eq!(weekly.period(-1), (-7 * DAY_MS, 0));
    }
}
