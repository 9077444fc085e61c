//! What is asked of businesses.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Rules;
use crate::IntegrityError;
use crate::voices::VoiceWeights;

/// People a business reaches in a day.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BusinessReach {
    /// Version.
    pub version: u32,
    /// Where the tier has no limit, fires above this many times the business's own baseline. Where it has one it fires above that, and is a priority
    /// only up to this many times the baseline.
    pub over_baseline: f64,
    /// Days that make a baseline the business's own.
    pub own_days: usize,
    /// People a day by tier, where there is no own baseline.
    pub segment_baseline: BTreeMap<String, f64>,
}

/// Blocks and reports a business draws in a day.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BusinessBlocks {
    /// Version.
    pub version: u32,
    /// Fewest blocks and reports.
    pub blocks: u32,
    /// How alike businesses are: the rate of one, in multiples of its category's, is gamma-distributed around one with this shape.
    pub shape: f64,
    /// How alike the days of one business are: no more is known of a day than this shape says, however much is known of the business.
    pub day_shape: f64,
    /// Fires where so many, or more, have at most this probability.
    pub tail: f64,
    /// Its own past makes at most this many times the category's rate usual.
    pub most_own: f64,
    /// Share of a day's blocks and reports that come on the day after.
    pub late_share: f64,
    /// Blocks and reports by accounts of their first week count up to this share of those by others.
    pub young_share: f64,
    /// What one weighs.
    pub voices: VoiceWeights,
    /// Blocks and reports a message by category, where nothing is wrong.
    pub null_rate: BTreeMap<String, f64>,
}

/// People that a new number of an old portfolio reaches in a day.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BusinessFreshNumber {
    /// Version.
    pub version: u32,
    /// Fewest people.
    pub people: u32,
    /// Days of a number that are its first.
    pub fresh_days: i32,
    /// Days before on which the portfolio's other numbers wrote to people, so that it is an old one.
    pub known_days: usize,
    /// Fires at this share of what the portfolio's other numbers reach together on the median of those days.
    pub share: f64,
    /// More than a priority from this many times as many on.
    pub over_portfolio: f64,
}

/// A business that is reported by arrangement: by people to whom it delivered nothing, by accounts of their first week, by accounts that were registered
/// together, or by accounts that do nothing else.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportBrigade {
    /// Version.
    pub version: u32,
    /// Fewest such blocks and reports in a day.
    pub reports: u32,
    /// Smallest share of all blocks and reports that day.
    pub share: f64,
}

impl Rules {
    /// What rules over a business's day must keep.
    pub(super) fn check_businesses(&self) -> Result<(), IntegrityError> {
        let wrong = |what: String| Err(IntegrityError::Rules(what));
        let (blocks, fresh) = (&self.business_blocks, &self.business_fresh_number);
        // Fewer are not told, so no rule may fire on them.
        for (name, least) in [("business_blocks.blocks", blocks.blocks), ("business_fresh_number.people", fresh.people)] {
            if least < 10 {
                return wrong(format!("{name} must be at least 10"));
            }
        }
        let longest = i32::try_from(crate::businesses::LIVE_DAYS).unwrap_or(i32::MAX);
        if !(1..=longest).contains(&fresh.fresh_days) {
            return wrong(format!(
                "business_fresh_number.fresh_days must be 1 to {longest}: older days are not counted any more"
            ));
        }
        if !(1..=crate::businesses::HISTORY_DAYS).contains(&fresh.known_days) {
            return wrong(format!("business_fresh_number.known_days must be 1 to {}", crate::businesses::HISTORY_DAYS));
        }
        let in_range = [
            ("business_blocks.shape", blocks.shape, 0.1, 100.0),
            ("business_blocks.day_shape", blocks.day_shape, 0.1, 1000.0),
            ("business_blocks.tail", blocks.tail, 1e-12, 0.1),
            ("business_blocks.most_own", blocks.most_own, 1.0, 100.0),
            ("business_blocks.late_share", blocks.late_share, 0.0, 1.0),
            ("business_blocks.young_share", blocks.young_share, 0.0, 1e6),
            ("business_fresh_number.share", fresh.share, 0.01, 1e6),
            ("business_fresh_number.over_portfolio", fresh.over_portfolio, 0.01, 1e6),
        ];
        for (name, value, from, to) in in_range {
            if !(from..=to).contains(&value) {
                return wrong(format!("{name} must be {from} to {to}"));
            }
        }
        for (category, rate) in &blocks.null_rate {
            if !(1e-6..=0.5).contains(rate) {
                return wrong(format!("business_blocks.null_rate.{category} must be 0.000001 to 0.5"));
            }
        }
        Ok(())
    }
}
