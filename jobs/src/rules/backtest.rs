//! `starling integrity backtest`: what a rule would have found in the last days, beside what was told and judged then.
//!
//! ```text
//!   facts of windows that are over (14 days, sealed) ──► the rule as its text is now ──► by day: windows, businesses, how far beyond
//!   alerts that were told, and the verdicts on them ─────────────────────────────────► of those: told already, confirmed, dismissed
//! ```
//!
//! A business's day is found among the alerts by its name and day. Of groups the facts have no name, so all alerts on groups of a day are
//! counted beside them. Each reading has an entry in the hash-chained log before anything is shown (I6). No business is named: who is meant is
//! told by alerts alone.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;
use serde_json::json;
use starling_integrity::{DayFound, Fact, KeptVectors, Rules, WrittenRule, backtest};
use starling_schemas::ids::EpochId;

use crate::desk;
use crate::home::Home;
use crate::metrics::Work;
use crate::standing::stage;

/// Most alerts read at once.
const PAGE: u32 = 500;
/// Days that facts can be kept.
const MOST_DAYS: i32 = 14;

/// What is asked.
pub struct Asked<'a> {
    /// The rule.
    pub rule: &'a str,
    /// Where its text is; else it is one of those in force.
    pub file: Option<&'a Path>,
    /// How many days.
    pub days: u32,
    /// One JSON object.
    pub json: bool,
}

/// Alerts that were told, and what people said of them.
#[derive(Debug, Clone, Copy, Default)]
struct Told {
    alerts: u64,
    confirmed: u64,
    dismissed: u64,
}

impl Told {
    fn and(&mut self, abuse: Option<bool>) {
        self.alerts += 1;
        self.confirmed += u64::from(abuse == Some(true));
        self.dismissed += u64::from(abuse == Some(false));
    }
}

/// Alerts of the feed by day: of each business, and of all groups.
#[derive(Default)]
struct Feed {
    businesses: HashMap<(EpochId, String), Told>,
    groups: BTreeMap<EpochId, Told>,
}

/// A day of the answer.
#[derive(Debug, Serialize)]
struct Line {
    day: String,
    /// Windows that were looked at.
    judged: u64,
    /// Windows that the rule fires on.
    fired: u64,
    /// Businesses or groups that it fires on.
    subjects: u64,
    median_factor: Option<f64>,
    largest_factor: Option<f64>,
    /// Of businesses, those that are told of already, by whatever rule; of groups, all alerts of the day.
    told: u64,
    confirmed: u64,
    dismissed: u64,
    /// What would be beyond the day's allowance.
    over_allowance: u64,
}

/// Tries a rule, and says what it would have found.
///
/// # Errors
/// A rule that is not there or cannot be used; an audit log that cannot be written (then nothing is shown, I6); facts that cannot be read.
pub async fn tell(home: &Home, asked: &Asked<'_>) -> anyhow::Result<String> {
    let rules = asked.file.map_or_else(|| super::load(&home.config), super::with)?;
    let rule = rules.written.named(asked.rule).with_context(|| unknown(asked.rule, &rules))?;
    let detail = json!({ "what": "backtest", "door": "cli", "rule": rule.name, "version": rule.version, "days": asked.days });
    let written = home.metastore.append_audit("integrity_read", detail, home.clock.now_ms()).await;
    if written.is_err() {
        home.metrics.failed(Work::Audit);
    }
    written.context("the audit log cannot be written, so nothing is shown (I6)")?;
    let kept = KeptVectors::read(&home.files, &home.keyring).await?;
    let found = backtest(rule, &kept);
    let feed = feed(home).await?;
    let range = range(found.keys().copied(), EpochId::of(home.clock.now_ms()), asked.days);
    let Some((from, to)) = range else {
        return Ok(format!(
            "Nothing is kept yet that {} could be tried on: a business's day is kept six hours after its end, a group some two hours after it \
             fell silent.\n{}",
            rule.name,
            left_out(kept.left_out)
        ));
    };
    let days = (from.0..=to.0).map(EpochId);
    let missing: Vec<String> = days.filter(|day| !found.contains_key(day)).map(|day| day.to_string()).collect();
    let lines: Vec<Line> = found.range(from..=to).map(|(day, found)| line(rule, *day, found, &feed)).collect();
    if asked.json {
        let value = json!({
            "rule": rule.name,
            "version": rule.version,
            "on": rule.on.name(),
            "stage": stage(rule.standing.stage),
            "from": from.to_string(),
            "to": to.to_string(),
            "days": lines,
            "missing": missing,
            "files_left_out": kept.left_out,
        });
        return Ok(format!("{value}\n"));
    }
    Ok(text(rule, (from, to), &lines, &missing) + &left_out(kept.left_out))
}

fn unknown(name: &str, rules: &Rules) -> String {
    if rules.detectors_in_force().iter().any(|(detector, _)| *detector == name) {
        return format!(
            "`{name}` is a built-in detector: it looks at more than is kept, so it cannot be tried; `starling evaluate` judges it"
        );
    }
    let names: Vec<&str> = rules.written.rules().iter().map(|rule| rule.name.as_str()).collect();
    format!("there is no written rule `{name}`; there are {}. --rules names a file with another", names.join(", "))
}

/// First and last day of the last `days`: up to the newest that is kept, or yesterday if that is not long after it.
fn range(kept: impl Iterator<Item = EpochId>, today: EpochId, days: u32) -> Option<(EpochId, EpochId)> {
    let newest = kept.max()?.0;
    let yesterday = today.0.saturating_sub(1);
    let to = if (newest..=newest.saturating_add(MOST_DAYS)).contains(&yesterday) { yesterday } else { newest };
    let days = i32::try_from(days).unwrap_or(MOST_DAYS);
    Some((EpochId(to.saturating_sub(days.saturating_sub(1))), EpochId(to)))
}

async fn feed(home: &Home) -> anyhow::Result<Feed> {
    let (mut feed, mut after) = (Feed::default(), 0);
    loop {
        let entries = desk::page(home, after, PAGE).await?;
        let Some(last) = entries.last() else { return Ok(feed) };
        after = last.record.position;
        for entry in &entries {
            let day = EpochId::of(entry.alert.window.start_ms);
            let abuse = entry.work.as_ref().and_then(|work| work.standing.abuse);
            match entry.record.subject_kind.as_str() {
                "business" => feed.businesses.entry((day, entry.record.subject.clone())).or_default().and(abuse),
                "group" => feed.groups.entry(day).or_default().and(abuse),
                _ => {}
            }
        }
    }
}

fn line(rule: &WrittenRule, day: EpochId, found: &DayFound, feed: &Feed) -> Line {
    let Told { alerts, confirmed, dismissed } = match rule.on {
        Fact::BusinessDay => of_businesses(day, &found.businesses, feed),
        Fact::GroupHour => feed.groups.get(&day).copied().unwrap_or_default(),
    };
    Line {
        day: day.to_string(),
        judged: found.judged,
        fired: found.fired,
        subjects: found.subjects(),
        median_factor: found.median_factor(),
        largest_factor: found.factors.last().copied(),
        told: alerts,
        confirmed,
        dismissed,
        over_allowance: found.subjects().saturating_sub(u64::from(rule.standing.daily_alerts)),
    }
}

/// Each business once, however many alerts there are on it: one that was confirmed by any is confirmed.
fn of_businesses(day: EpochId, businesses: &BTreeSet<String>, feed: &Feed) -> Told {
    let mut sum = Told::default();
    for told in businesses.iter().filter_map(|business| feed.businesses.get(&(day, business.clone()))) {
        sum.alerts += 1;
        sum.confirmed += u64::from(told.confirmed > 0);
        sum.dismissed += u64::from(told.confirmed == 0 && told.dismissed > 0);
    }
    sum
}

fn text(rule: &WrittenRule, (from, to): (EpochId, EpochId), lines: &[Line], missing: &[String]) -> String {
    let (who, told) = match rule.on {
        Fact::BusinessDay => ("businesses", "of them told"),
        Fact::GroupHour => ("groups", "all told"),
    };
    let mut out = format!(
        "{}, version {}, on {}, {}: {from} to {to}\n{:<10} {:>9} {:>8} {:>10} {:>7} {:>8} {:>12} {:>9} {:>9} {:>14}\n",
        rule.name,
        rule.version,
        rule.on.name(),
        stage(rule.standing.stage),
        "day",
        "windows",
        "fired",
        who,
        "median",
        "largest",
        told,
        "confirmed",
        "dismissed",
        "over allowance"
    );
    let factor = |factor: Option<f64>| factor.map_or_else(|| "-".to_owned(), |factor| format!("{factor:.1}x"));
    for line in lines {
        let _ = writeln!(
            out,
            "{:<10} {:>9} {:>8} {:>10} {:>7} {:>8} {:>12} {:>9} {:>9} {:>14}",
            line.day,
            line.judged,
            line.fired,
            line.subjects,
            factor(line.median_factor),
            factor(line.largest_factor),
            line.told,
            line.confirmed,
            line.dismissed,
            line.over_allowance
        );
    }
    if !missing.is_empty() {
        let _ = writeln!(out, "Nothing is kept of {}.", missing.join(", "));
    }
    if rule.on == Fact::GroupHour {
        out.push_str("Facts have no name of a group: told, confirmed and dismissed are of all alerts on groups that day.\n");
    }
    out
}

fn left_out(files: usize) -> String {
    match files {
        0 => String::new(),
        n => format!("{n} files are left out: their key is gone, or they are of another version.\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_days_end_with_yesterday_unless_nothing_was_kept_for_long() {
        let of = |newest: &[i32], today, days| {
            range(newest.iter().copied().map(EpochId), EpochId(today), days).map(|(a, b)| (a.0, b.0))
        };
        assert_eq!(of(&[], 100, 7), None);
        assert_eq!(of(&[95, 99], 100, 7), Some((93, 99)));
        assert_eq!(of(&[95], 100, 7), Some((93, 99)), "what is missing is said to be");
        assert_eq!(of(&[95], 110, 1), Some((109, 109)));
        assert_eq!(of(&[95], 111, 7), Some((89, 95)), "a recording of long ago");
        assert_eq!(of(&[95], 20, 7), Some((89, 95)), "a clock that is behind");
    }

    #[test]
    fn a_business_with_several_alerts_counts_once_and_one_confirmation_is_enough() {
        let mut feed = Feed::default();
        let mut add = |day: i32, business: &str, abuse: Option<bool>| {
            feed.businesses.entry((EpochId(day), business.to_owned())).or_default().and(abuse);
        };
        add(1, "a", Some(false));
        add(1, "a", Some(true));
        add(1, "b", Some(false));
        add(1, "c", None);
        add(2, "d", Some(true));
        let businesses = ["a", "b", "c", "d", "e"].map(str::to_owned).into();
        let told = of_businesses(EpochId(1), &businesses, &feed);
        assert_eq!((told.alerts, told.confirmed, told.dismissed), (3, 1, 1));
    }
}
