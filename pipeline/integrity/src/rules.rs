//! The rules as reviewed text. A rule's name is kept for ever; a changed threshold is a new version.

use std::collections::BTreeMap;

use serde::Deserialize;
use starling_schemas::codes::{Category, Tier};

use crate::IntegrityError;

/// Messages of one sender within a time.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BulkPerMinute {
    /// Version.
    pub version: u32,
    /// Fires at this many.
    pub messages: u32,
    /// Length of the window, in milliseconds.
    pub within_ms: i64,
}

/// Messages of one young account within a time.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewAccountBurst {
    /// Version.
    pub version: u32,
    /// Fires at this many.
    pub messages: u32,
    /// Length of the window, in milliseconds.
    pub within_ms: i64,
    /// Oldest account it looks at, in seconds since registration.
    pub account_age_s: u64,
}

/// People a business reaches in a day.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BusinessReach {
    /// Version.
    pub version: u32,
    /// Fires above this many times the baseline, and above the tier's limit.
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
    /// Fires above this many times the category's rate.
    pub over_null: f64,
    /// Blocks and reports a message by category, where nothing is wrong.
    pub null_rate: BTreeMap<String, f64>,
}

/// Members added to one group within a time.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupMassAdd {
    /// Version.
    pub version: u32,
    /// Fires at this many members.
    pub members: u32,
    /// Length of the window, in milliseconds; a multiple of 10 s.
    pub within_ms: i64,
    /// Smallest share of strangers.
    pub stranger_share: f64,
}

/// All rules.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// P22.
    pub bulk_per_minute: BulkPerMinute,
    /// 100 messages in 15 s by an account registered minutes ago.
    pub new_account_burst: NewAccountBurst,
    /// P24.
    pub business_reach: BusinessReach,
    /// P24, P25.
    pub business_blocks: BusinessBlocks,
    /// Groups that fill with strangers at once.
    pub group_mass_add: GroupMassAdd,
}

impl Rules {
    /// The rules this build carries.
    ///
    /// # Errors
    /// [`IntegrityError::Rules`].
    pub fn builtin() -> Result<Self, IntegrityError> {
        Self::parse(include_str!("rules.toml"))
    }

    /// Reads rules from TOML.
    ///
    /// # Errors
    /// [`IntegrityError::Rules`] names what is wrong.
    pub fn parse(text: &str) -> Result<Self, IntegrityError> {
        let rules: Self = toml::from_str(text).map_err(|e| IntegrityError::Rules(e.message().to_owned()))?;
        let wrong = |what: &str| Err(IntegrityError::Rules(what.to_owned()));
        if rules.bulk_per_minute.messages < 2 || rules.new_account_burst.messages < 2 || rules.group_mass_add.members < 2 {
            return wrong("messages and members must be at least 2");
        }
        let longest = crate::senders::HORIZON_MS;
        if !(1..=longest).contains(&rules.bulk_per_minute.within_ms)
            || !(1..=longest).contains(&rules.new_account_burst.within_ms)
        {
            return wrong("within_ms of a sender rule must be 1 to 60000");
        }
        if rules.bulk_per_minute.messages as usize > crate::senders::MOST_TIMES
            || rules.new_account_burst.messages as usize > crate::senders::MOST_TIMES
        {
            return wrong("messages of a sender rule must be at most 4096");
        }
        let panes = rules.group_mass_add.within_ms / crate::groups::PANE_MS;
        if rules.group_mass_add.within_ms % crate::groups::PANE_MS != 0
            || !(1..=crate::groups::MOST_PANES as i64).contains(&panes)
        {
            return wrong("group_mass_add.within_ms must be a multiple of 10000, at most 640000");
        }
        for tier in Tier::ALL {
            if !rules.business_reach.segment_baseline.contains_key(tier.name()) {
                return wrong(&format!("business_reach.segment_baseline lacks tier {tier}"));
            }
        }
        for category in Category::ALL {
            if !rules.business_blocks.null_rate.contains_key(category.name()) {
                return wrong(&format!("business_blocks.null_rate lacks category {category}"));
            }
        }
        Ok(rules)
    }

    /// People a day that a business of this tier usually reaches.
    pub(crate) fn segment_baseline(&self, tier: Tier) -> f64 {
        self.business_reach.segment_baseline.get(tier.name()).copied().unwrap_or(f64::INFINITY)
    }

    /// Blocks and reports a message of this category, where nothing is wrong.
    pub(crate) fn null_rate(&self, category: Category) -> f64 {
        self.business_blocks.null_rate.get(category.name()).copied().unwrap_or(f64::INFINITY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p22_the_builtin_rule_is_a_thousand_in_sixty_seconds() {
        let rules = Rules::builtin().expect("reviewed text");
        assert_eq!((rules.bulk_per_minute.messages, rules.bulk_per_minute.within_ms), (1000, 60_000));
    }

    #[test]
    fn an_unknown_name_or_a_missing_tier_is_refused() {
        let text = include_str!("rules.toml");
        assert!(Rules::parse(&text.replace("members = 100", "member = 100")).is_err());
        let error = Rules::parse(&text.replace("10k = 1500\n", "")).expect_err("a tier is missing");
        assert!(error.to_string().contains("10k"), "{error}");
    }
}
