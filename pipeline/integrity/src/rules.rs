//! The rules as reviewed text. A rule's name is kept for ever; a changed threshold is a new version.

use std::collections::BTreeMap;

use serde::Deserialize;
use starling_schemas::codes::{Category, Tier};

use crate::IntegrityError;
use crate::on_us::{DoorDifferencing, DoorGuessing, DoorLookups, DoorProbing, PipelinePoisoning, PipelineReplay};
use crate::standing::Standing;
use crate::templates::BusinessTemplate;
use crate::written::{RuleFile, Written};

mod businesses;
mod groups;
mod people;
#[cfg(test)]
mod tests;

pub use businesses::{BusinessBlocks, BusinessFreshNumber, BusinessReach, ReportBrigade};
pub(crate) use groups::SEVERITIES;
pub use groups::{
    GroupBaseline, GroupChurn, GroupCreationBurst, GroupLinkJoins, GroupListed, GroupMassAdd, GroupReportBrigade, GroupReports,
};
pub use people::{BulkPerMinute, Coordinated, NewAccountBurst, SlowBulk};

/// The detectors that this build carries, by name.
pub const BUILT_IN: [&str; 22] = [
    "bulk_per_minute",
    "new_account_burst",
    "business_reach",
    "business_blocks",
    "business_fresh_number",
    "business_template",
    "report_brigade",
    "group_mass_add",
    "group_link_joins",
    "group_churn",
    "group_reports",
    "group_report_brigade",
    "group_listed",
    "group_creation_burst",
    "slow_bulk",
    "coordinated_senders",
    "pipeline_replay",
    "pipeline_poisoning",
    "door_probing",
    "door_differencing",
    "door_lookups",
    "door_guessing",
];

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
    /// New numbers in old portfolios.
    pub business_fresh_number: BusinessFreshNumber,
    /// New templates whose first messages are not wanted.
    pub business_template: BusinessTemplate,
    /// Who is reported by arrangement.
    pub report_brigade: ReportBrigade,
    /// Groups that fill with strangers at once.
    pub group_mass_add: GroupMassAdd,
    /// Groups that far more people join by link than is usual.
    pub group_link_joins: GroupLinkJoins,
    /// Groups that people leave as soon as they came.
    pub group_churn: GroupChurn,
    /// Groups that are reported more than is usual.
    pub group_reports: GroupReports,
    /// Groups that are reported by arrangement.
    pub group_report_brigade: GroupReportBrigade,
    /// P7. Groups that are on an operator's list.
    pub group_listed: GroupListed,
    /// Accounts that create groups by the dozen.
    pub group_creation_burst: GroupCreationBurst,
    /// Slow senders whom nobody answers.
    pub slow_bulk: SlowBulk,
    /// Slow senders who were registered together.
    pub coordinated_senders: Coordinated,
    /// P28, as all that follow: events that come again, or late.
    pub pipeline_replay: PipelineReplay,
    /// Events that cannot be read.
    pub pipeline_poisoning: PipelinePoisoning,
    /// Statements that are refused.
    pub door_probing: DoorProbing,
    /// Questions that differ in a literal.
    pub door_differencing: DoorDifferencing,
    /// Alerts that are opened one by one.
    pub door_lookups: DoorLookups,
    /// Log-ins that are refused.
    pub door_guessing: DoorGuessing,
    /// Who is told of what each of them finds.
    pub standing: BTreeMap<String, Standing>,
    /// Rules that somebody wrote. From files of their own.
    #[serde(skip)]
    pub written: Written,
}

impl Rules {
    /// The rules this build carries.
    ///
    /// # Errors
    /// [`IntegrityError::Rules`], [`IntegrityError::Written`].
    pub fn builtin() -> Result<Self, IntegrityError> {
        Self::builtin_and(&[])
    }

    /// The rules this build carries, and written rules from files, in this order.
    ///
    /// # Errors
    /// [`IntegrityError::Rules`]; [`IntegrityError::Written`] with every fault there is.
    pub fn builtin_and(files: &[RuleFile]) -> Result<Self, IntegrityError> {
        let shipped = RuleFile { name: "built-in".to_owned(), text: include_str!("written.toml").to_owned() };
        let detectors = Self::detectors()?;
        let names: Vec<&str> = detectors.detectors_in_force().iter().map(|(name, _)| *name).collect();
        let written = Written::read(&shipped, files, &names).map_err(IntegrityError::Written)?;
        Ok(Self { written, ..detectors })
    }

    /// The detectors this build carries, without any written rule.
    ///
    /// # Errors
    /// [`IntegrityError::Rules`].
    pub fn detectors() -> Result<Self, IntegrityError> {
        Self::parse(include_str!("rules.toml"))
    }

    /// Name and version of each detector, in the order of their text.
    #[must_use]
    pub fn detectors_in_force(&self) -> [(&'static str, u32); 22] {
        [
            ("bulk_per_minute", self.bulk_per_minute.version),
            ("new_account_burst", self.new_account_burst.version),
            ("business_reach", self.business_reach.version),
            ("business_blocks", self.business_blocks.version),
            ("business_fresh_number", self.business_fresh_number.version),
            ("business_template", self.business_template.version),
            ("report_brigade", self.report_brigade.version),
            ("group_mass_add", self.group_mass_add.version),
            ("group_link_joins", self.group_link_joins.version),
            ("group_churn", self.group_churn.version),
            ("group_reports", self.group_reports.version),
            ("group_report_brigade", self.group_report_brigade.version),
            ("group_listed", self.group_listed.version),
            ("group_creation_burst", self.group_creation_burst.version),
            ("slow_bulk", self.slow_bulk.version),
            ("coordinated_senders", self.coordinated_senders.version),
            ("pipeline_replay", self.pipeline_replay.version),
            ("pipeline_poisoning", self.pipeline_poisoning.version),
            ("door_probing", self.door_probing.version),
            ("door_differencing", self.door_differencing.version),
            ("door_lookups", self.door_lookups.version),
            ("door_guessing", self.door_guessing.version),
        ]
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
        if rules.report_brigade.reports < 10 || !(0.1..=1.0).contains(&rules.report_brigade.share) {
            return wrong("report_brigade.reports must be at least 10, and share 0.1 to 1");
        }
        rules.check_businesses()?;
        if let Err(what) = rules.business_blocks.voices.check() {
            return wrong(what);
        }
        if let Err(what) = rules.group_listed.check() {
            return wrong(&what);
        }
        if let Err(what) = rules.business_template.check() {
            return wrong(what);
        }
        if let Err(what) = rules.group_creation_burst.check() {
            return wrong(what);
        }
        if let Err(what) = rules.slow_bulk.check().and_then(|()| rules.coordinated_senders.check()) {
            return wrong(what);
        }
        let panes = rules.group_mass_add.within_ms / crate::groups::PANE_MS;
        if rules.group_mass_add.within_ms % crate::groups::PANE_MS != 0
            || !(1..=crate::groups::MOST_PANES as i64).contains(&panes)
        {
            return wrong("group_mass_add.within_ms must be a multiple of 10000, at most 640000");
        }
        rules.check_hours()?;
        rules.check_on_us().map_err(IntegrityError::Rules)?;
        rules.check_standings()?;
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

    /// Who is told of what a rule finds. `None`: there is no such rule.
    #[must_use]
    pub fn standing(&self, rule: &str) -> Option<&Standing> {
        self.standing.get(rule).or_else(|| self.written.named(rule).map(|rule| &rule.standing))
    }

    /// The first name that a rule had: what it found, its allowance, verdicts and demotions go by it. Of a rule that is not there its own.
    #[must_use]
    pub fn first_name<'a>(&'a self, rule: &'a str) -> &'a str {
        let named = self.written.named(rule).or_else(|| self.written.once_named(rule));
        named.map_or(rule, crate::WrittenRule::first_name)
    }

    /// The name by which a rule of this first name goes now.
    #[must_use]
    pub fn name_now<'a>(&'a self, first: &'a str) -> &'a str {
        self.written.rules().iter().find(|rule| rule.first_name() == first).map_or(first, |rule| &rule.name)
    }

    /// Name and version of every rule in force.
    pub fn in_force(&self) -> impl Iterator<Item = (&str, u32)> {
        self.detectors_in_force().into_iter().chain(self.written.rules().iter().map(|rule| (rule.name.as_str(), rule.version)))
    }

    /// Lets detectors stand as the settings have it. Where users were promised that a rule tells, no setting has it demoted.
    pub fn stand(&mut self, settings: impl IntoIterator<Item = (String, Standing)>) {
        for (rule, mut standing) in settings {
            standing.demoted_by_verdicts &= self.standing.get(&rule).is_none_or(|own| own.demoted_by_verdicts);
            self.standing.insert(rule, standing);
        }
    }

    /// Each rule has a standing, and no other has.
    fn check_standings(&self) -> Result<(), IntegrityError> {
        let wrong = |what: String| Err(IntegrityError::Rules(what));
        if let Some(rule) = BUILT_IN.iter().find(|rule| !self.standing.contains_key(**rule)) {
            return wrong(format!("standing.{rule} is missing: say who is told of what the rule finds"));
        }
        for (rule, standing) in &self.standing {
            if !BUILT_IN.contains(&rule.as_str()) {
                return wrong(format!("standing.{rule}: there is no such rule"));
            }
            if let Err(what) = standing.check() {
                return wrong(format!("standing.{rule}.{what}"));
            }
        }
        Ok(())
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
