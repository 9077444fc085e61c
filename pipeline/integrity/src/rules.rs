//! The rules as reviewed text. A rule's name is kept for ever; a changed threshold is a new version.

use std::collections::BTreeMap;

use serde::Deserialize;
use starling_schemas::codes::{Category, ProfileField, Tier};

use crate::IntegrityError;
use crate::on_us::{DoorDifferencing, DoorGuessing, DoorLookups, DoorProbing, PipelinePoisoning, PipelineReplay};
use crate::standing::Standing;
use crate::templates::BusinessTemplate;
use crate::voices::VoiceWeights;
use crate::written::{RuleFile, Written};

#[cfg(test)]
mod tests;

/// The detectors that this build carries, by name.
pub const BUILT_IN: [&str; 21] = [
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

/// Members who join one group by link within a time.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupLinkJoins {
    /// Version.
    pub version: u32,
    /// Fewest joins.
    pub joins: u32,
    /// Length of the window, in milliseconds; a multiple of 10 min.
    pub within_ms: i64,
    /// Fires at this many times what groups of its kind see.
    pub over_baseline: f64,
    /// Joins in such a window by the group's kind.
    pub segment_baseline: GroupBaseline,
}

/// What groups of a kind see in a window.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupBaseline {
    /// Created in the window, or in as long a time before it.
    pub new: f64,
    /// Any other.
    pub known: f64,
}

/// Members who leave one group soon after many came.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupChurn {
    /// Version.
    pub version: u32,
    /// Fewest members who came, added or by link.
    pub came: u32,
    /// Fewest who left again.
    pub left: u32,
    /// Smallest share of those who came.
    pub share: f64,
    /// Length of the window, in milliseconds; a multiple of 10 min.
    pub within_ms: i64,
}

/// Reports of one group.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupReports {
    /// Version.
    pub version: u32,
    /// Fewest reports.
    pub reports: u32,
    /// Length of the window, in milliseconds; a multiple of 10 min.
    pub within_ms: i64,
    /// Reports in such a window where nobody comes and nothing is wrong.
    pub null_base: f64,
    /// Reports for each member who came, where nothing is wrong.
    pub null_rate: f64,
    /// How alike groups are: a group's own rate is gamma-distributed around the null with this shape, so reports are negative binomial.
    pub shape: f64,
    /// Fires where so many reports, or more, have at most this probability.
    pub tail: f64,
}

/// Groups whose name, description or photo is on one of the operator's lists.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupListed {
    /// Version.
    pub version: u32,
    /// How grave a hit is, by what was on the list: `low`, `medium`, `high` or `critical`.
    pub severity: BTreeMap<String, String>,
    /// Groups held at most.
    pub most_groups: u32,
}

impl GroupListed {
    fn check(&self) -> Result<(), String> {
        let fields = ProfileField::ALL.iter().map(|field| field.name());
        if let Some(missing) = fields.clone().find(|field| !self.severity.contains_key(*field)) {
            return Err(format!("group_listed.severity lacks {missing}"));
        }
        if self
            .severity
            .iter()
            .any(|(field, how)| !fields.clone().any(|known| known == field) || !SEVERITIES.contains(&how.as_str()))
        {
            return Err("group_listed.severity has name, description and photo, each low, medium, high or critical".to_owned());
        }
        if !(1..=10_000_000).contains(&self.most_groups) {
            return Err("group_listed.most_groups must be 1 to 10000000".to_owned());
        }
        Ok(())
    }

    /// How grave a hit is.
    pub(crate) fn severity(&self, field: ProfileField) -> &str {
        self.severity.get(field.name()).map_or("low", String::as_str)
    }
}

/// How grave an alert may be, from the least.
pub(crate) const SEVERITIES: [&str; 4] = ["low", "medium", "high", "critical"];

/// Groups that one account creates.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupCreationBurst {
    /// Version.
    pub version: u32,
    /// Fires at this many groups in an hour of the clock.
    pub hour_groups: u32,
    /// Fires at this many groups in a day.
    pub day_groups: u32,
    /// More than a priority from this many times as many on.
    pub over: f64,
    /// Accounts held at most.
    pub most_accounts: u32,
}

impl GroupCreationBurst {
    fn check(&self) -> Result<(), &'static str> {
        // Fewer are not told, so no rule may fire on them; more than an hour's count holds would never fire.
        if !(10..=1000).contains(&self.hour_groups) || !(self.hour_groups..=1000).contains(&self.day_groups) {
            return Err("group_creation_burst.hour_groups must be 10 to 1000, and day_groups at least as many, up to 1000");
        }
        if !(1.0..=100.0).contains(&self.over) || !(1..=100_000_000).contains(&self.most_accounts) {
            return Err("group_creation_burst.over must be 1 to 100, and most_accounts 1 to 100000000");
        }
        Ok(())
    }
}

/// First contacts of one sender that nobody answers, added up over days.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlowBulk {
    /// Version.
    pub version: u32,
    /// New contacts a day from which on a sender is looked at.
    pub new_a_day: u32,
    /// Fires at this much evidence, in thousandths of a nat.
    pub threshold_millinats: i32,
    /// Share of first contacts that are answered within a day, before any are counted.
    pub prior_rate: f64,
    /// Share of the segment's rate that still is nothing wrong.
    pub null_share: f64,
    /// Least share that is nothing wrong.
    pub least_null: f64,
    /// Largest share that is asked of anybody.
    pub most_null: f64,
    /// Suspects held at most.
    pub most_suspects: u32,
    /// Contacts that wait for an answer at most.
    pub most_waiting: u32,
}

impl SlowBulk {
    fn check(&self) -> Result<(), &'static str> {
        if self.new_a_day < 1 || self.threshold_millinats < 1000 {
            return Err("slow_bulk.new_a_day must be at least 1, and threshold_millinats at least 1000");
        }
        let shares = [self.prior_rate, self.null_share, self.least_null, self.most_null];
        if !shares.iter().all(|s| (0.01..=0.99).contains(s)) || self.least_null > self.most_null {
            return Err("slow_bulk's rates and shares must be 0.01 to 0.99, and least_null at most most_null");
        }
        // A suspect's place has 26 bits.
        if !(1..=60_000_000).contains(&self.most_suspects) || !(1..=400_000_000).contains(&self.most_waiting) {
            return Err("slow_bulk.most_suspects must be 1 to 60000000, and most_waiting 1 to 400000000");
        }
        Ok(())
    }
}

/// Members of one registration cohort who write to strangers and are not answered.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Coordinated {
    /// Version.
    pub version: u32,
    /// New people from which on a member is looked at.
    pub contacts: u32,
    /// New people below which a member is taken back that wrote to nobody new for a day.
    pub lasting: u32,
    /// Fewest members whom nearly nobody answers.
    pub members: u32,
    /// Fires where so many of them, or more, have at most this probability.
    pub tail: f64,
    /// How alike members are: a member's own share of answers is beta-distributed around the cohort's, with parameters that add up to this.
    pub spread: f64,
    /// More members than this say no more than as many do.
    pub alike: u32,
    /// Share of first contacts that are answered within the hour, before any are counted.
    pub prior_rate: f64,
    /// Members held at most.
    pub most_members: u32,
}

impl Coordinated {
    fn check(&self) -> Result<(), &'static str> {
        if !(2..=20).contains(&self.contacts) || self.members < 10 || self.alike < self.members {
            return Err("coordinated_senders.contacts must be 2 to 20, members at least 10, and alike at least as many");
        }
        if !(self.contacts..=1_000).contains(&self.lasting) {
            return Err("coordinated_senders.lasting must be coordinated_senders.contacts to 1000");
        }
        if !(0.01..=0.99).contains(&self.prior_rate) || !(0.5..=1000.0).contains(&self.spread) {
            return Err("coordinated_senders.prior_rate must be 0.01 to 0.99, and spread 0.5 to 1000");
        }
        if !(1e-12..=0.1).contains(&self.tail) || !(1..=100_000_000).contains(&self.most_members) {
            return Err("coordinated_senders.tail must be 1e-12 to 0.1, and most_members 1 to 100000000");
        }
        Ok(())
    }
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
    pub fn detectors_in_force(&self) -> [(&'static str, u32); 21] {
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

    /// What rules over a business's day must keep.
    fn check_businesses(&self) -> Result<(), IntegrityError> {
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

    /// What rules over a group's hour must keep.
    fn check_hours(&self) -> Result<(), IntegrityError> {
        let wrong = |what: &str| Err(IntegrityError::Rules(what.to_owned()));
        let (joins, churn, reports) = (&self.group_link_joins, &self.group_churn, &self.group_reports);
        for (name, within_ms) in
            [("group_link_joins", joins.within_ms), ("group_churn", churn.within_ms), ("group_reports", reports.within_ms)]
        {
            if within_ms % crate::hours::PANE_MS != 0 || !(crate::hours::PANE_MS..=crate::hours::LONGEST_MS).contains(&within_ms)
            {
                return wrong(&format!("{name}.within_ms must be a multiple of 600000, at most 3600000"));
            }
        }
        for (name, least) in [
            ("group_link_joins.joins", joins.joins),
            ("group_churn.came", churn.came),
            ("group_churn.left", churn.left),
            ("group_reports.reports", reports.reports),
        ] {
            // Fewer are not told, so no rule may fire on them.
            if least < 10 {
                return wrong(&format!("{name} must be at least 10"));
            }
        }
        if churn.left > churn.came {
            return wrong("group_churn.left must be at most group_churn.came");
        }
        let within = |from: f64, to: f64| move |n: f64| n >= from && n <= to;
        for (name, value, fits, range) in [
            ("group_link_joins.over_baseline", joins.over_baseline, within(1.0, 1e6), "1 to 1000000"),
            ("group_link_joins.segment_baseline.new", joins.segment_baseline.new, within(0.1, 1e6), "0.1 to 1000000"),
            ("group_link_joins.segment_baseline.known", joins.segment_baseline.known, within(0.1, 1e6), "0.1 to 1000000"),
            ("group_churn.share", churn.share, within(0.01, 1.0), "0.01 to 1"),
            ("group_reports.null_base", reports.null_base, within(0.01, 1e4), "0.01 to 10000"),
            ("group_reports.null_rate", reports.null_rate, within(0.0, 1.0), "0 to 1"),
            ("group_reports.shape", reports.shape, within(0.1, 100.0), "0.1 to 100"),
            ("group_reports.tail", reports.tail, within(1e-12, 0.1), "1e-12 to 0.1"),
        ] {
            if !fits(value) {
                return wrong(&format!("{name} must be {range}"));
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
