//! What is asked of groups, and of who makes them.

use std::collections::BTreeMap;

use serde::Deserialize;
use starling_schemas::codes::ProfileField;

use super::Rules;
use crate::IntegrityError;

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

/// Reports of one group that seem to be by arrangement.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupReportBrigade {
    /// Version.
    pub version: u32,
    /// Fewest reports by accounts that were registered together, or that hardly count each.
    pub reports: u32,
    /// Smallest share of all reports of the window.
    pub share: f64,
    /// Length of the window, in milliseconds; a multiple of 10 min.
    pub within_ms: i64,
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
    pub(super) fn check(&self) -> Result<(), String> {
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
    pub(super) fn check(&self) -> Result<(), &'static str> {
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

impl Rules {
    /// What rules over a group's hour must keep.
    pub(super) fn check_hours(&self) -> Result<(), IntegrityError> {
        let wrong = |what: &str| Err(IntegrityError::Rules(what.to_owned()));
        let (joins, churn, reports) = (&self.group_link_joins, &self.group_churn, &self.group_reports);
        let brigade = &self.group_report_brigade;
        for (name, within_ms) in [
            ("group_link_joins", joins.within_ms),
            ("group_churn", churn.within_ms),
            ("group_reports", reports.within_ms),
            ("group_report_brigade", brigade.within_ms),
        ] {
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
            ("group_report_brigade.reports", brigade.reports),
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
            ("group_report_brigade.share", brigade.share, within(0.1, 1.0), "0.1 to 1"),
        ] {
            if !fits(value) {
                return wrong(&format!("{name} must be {range}"));
            }
        }
        Ok(())
    }
}
