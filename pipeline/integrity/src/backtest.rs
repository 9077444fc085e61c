//! A rule on the windows that were kept of the last days: what it would have found.

use std::collections::{BTreeMap, BTreeSet};

use starling_schemas::ids::EpochId;

use crate::facts::{Fact, Row};
use crate::vectors::Kept;
use crate::written::WrittenRule;

/// What a rule finds on one day.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DayFound {
    /// Windows that were looked at: those in which something was counted ten times or more.
    pub judged: u64,
    /// Windows that it fires on.
    pub fired: u64,
    /// Businesses that it fires on.
    pub businesses: BTreeSet<String>,
    /// Groups that it fires on; one that fell silent and woke again is counted twice.
    pub groups: u64,
    /// How far beyond what it is held against each of them was, in order.
    pub factors: Vec<f64>,
}

impl DayFound {
    /// How many would be told of: an alert is one business or group on one day.
    #[must_use]
    pub fn subjects(&self) -> u64 {
        self.businesses.len() as u64 + self.groups
    }

    /// The factor in the middle, the lower of two; `None` where nothing fired.
    #[must_use]
    pub fn median_factor(&self) -> Option<f64> {
        self.factors.get(self.factors.len().saturating_sub(1) / 2).copied()
    }
}

/// Tries a rule on all that is kept: a day for each of which something is, of whatever fact, whether or not the rule fires on it.
#[must_use]
pub fn backtest(rule: &WrittenRule, kept: &Kept) -> BTreeMap<EpochId, DayFound> {
    let (businesses, groups) = (&kept.vectors.days, &kept.vectors.groups);
    let all = businesses.iter().map(|kept| kept.day).chain(groups.iter().map(|kept| kept.day));
    let mut days: BTreeMap<EpochId, DayFound> = all.map(|day| (EpochId(day), DayFound::default())).collect();
    match rule.on {
        Fact::BusinessDay => {
            let rows: Vec<Row> = businesses.iter().map(|kept| kept.row.clone()).collect();
            for (kept, fires) in businesses.iter().zip(fires(rule, &rows)) {
                let day = days.entry(EpochId(kept.day)).or_default();
                day.judged += 1;
                if let Some(observed) = fires {
                    day.fired += 1;
                    day.businesses.insert(kept.business.clone());
                    day.factors.push(rule.factor(&kept.row, observed));
                }
            }
        }
        Fact::GroupHour => {
            for kept in groups {
                let day = days.entry(EpochId(kept.day)).or_default();
                day.judged += kept.rows.len() as u64;
                let found = fires(rule, &kept.rows);
                let fired = kept.rows.iter().zip(found).filter_map(|(row, observed)| Some((row, observed?)));
                // As an alert is: the fullest window, the earliest of equals.
                let (mut windows, mut fullest) = (0, None);
                for (row, observed) in fired {
                    windows += 1;
                    if fullest.is_none_or(|(_, most)| most < observed) {
                        fullest = Some((row, observed));
                    }
                }
                day.fired += windows;
                if let Some((row, observed)) = fullest {
                    day.groups += 1;
                    day.factors.push(rule.factor(row, observed));
                }
            }
        }
    }
    for day in days.values_mut() {
        day.factors.sort_by(f64::total_cmp);
    }
    days
}

fn fires(rule: &WrittenRule, rows: &[Row]) -> Vec<Option<u32>> {
    let batch = rule.on.batch(rows);
    batch.map_or_else(|| vec![None; rows.len()], |batch| rule.fires(rows, &batch))
}
