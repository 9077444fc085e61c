//! Written rules, over all windows that changed at once.
//!
//! As with rules over a group's hour, an alert is what the counters say when alerts are taken. What late signals undo is told once more, as no longer
//! holding; what stands does not depend on the order of signals. Windows in which no rule's count reaches its `least` are passed over before
//! anything is evaluated: that is nearly all of them.

use arrow::array::RecordBatch;
use hashbrown::HashMap;
use starling_schemas::codes::Tier;
use starling_schemas::ids::EpochId;

use super::business::of_business;
use super::{Alerts, Changed, clock, keyed};
use crate::alert::{Alert, Baseline, SeenWindow, Subject, fingerprint};
use crate::businesses::{Business, Day};
use crate::facts::{self, Cell, Fact, Row};
use crate::groups::Group;
use crate::hours::{Figures, LONGEST_MS};
use crate::written::{LEAST, Written, WrittenRule};

/// A window with its row.
struct Seen<'a> {
    subject: &'a Subject,
    day: i32,
    row: &'a Row,
    window: SeenWindow,
}

/// Windows of businesses that are judged together.
#[derive(Default)]
pub(crate) struct Days {
    rows: Vec<Row>,
    of: Vec<(String, i32, SeenWindow)>,
}

impl Days {
    /// Takes a day in, if a rule may fire on it or something was found of it before.
    pub(crate) fn take(&mut self, written: &Written, name: &str, business: &Business, day: &Day) {
        let bounds = facts::business_bounds(day);
        if day.has_alert || written.on(Fact::BusinessDay).any(|rule| rule.may_fire(&bounds)) {
            self.rows.push(facts::business_day(business, day));
            self.of.push((name.to_owned(), day.day, SeenWindow { start_ms: day.first_ms, end_ms: day.last_ms }));
        }
    }

    /// Judges them. Gives name and day of those of which something is found.
    pub(crate) fn judge(self, alerts: &mut Alerts, changed: &mut Changed, written: &Written) -> Vec<(String, i32)> {
        let Some(batch) = Fact::BusinessDay.batch(&self.rows).filter(|batch| batch.num_rows() > 0) else { return Vec::new() };
        let mut found = vec![false; self.rows.len()];
        for rule in written.on(Fact::BusinessDay) {
            let fires = rule.fires(&self.rows, &batch);
            for ((((name, day, window), row), fires), found) in self.of.iter().zip(&self.rows).zip(fires).zip(&mut found) {
                let subject = of_business(name);
                let seen = Seen { subject: &subject, day: *day, row, window: *window };
                match fires {
                    Some(observed) => {
                        *found = true;
                        place(alerts, changed, tell(rule, &seen, observed));
                    }
                    None => withdraw(alerts, changed, rule, &seen),
                }
            }
        }
        let found_of = |((name, day, _), found): ((String, i32, SeenWindow), bool)| found.then_some((name, day));
        self.of.into_iter().zip(found).filter_map(found_of).collect()
    }
}

/// Judges the hours of these groups. `settled` are alerts on what was forgotten of groups.
pub(crate) fn groups(
    alerts: &mut Alerts,
    changed: &mut Changed,
    settled: &Alerts,
    written: &Written,
    groups: &[[u8; 16]],
    kept: &mut HashMap<[u8; 16], Group>,
) {
    let rules: Vec<&WrittenRule> = written.on(Fact::GroupHour).collect();
    if rules.is_empty() {
        return;
    }
    // The windows of each group lie one behind the other.
    let (mut windows, mut rows): (Vec<(usize, Figures)>, Vec<Row>) = (Vec::new(), Vec::new());
    for (place, group) in groups.iter().enumerate() {
        for seen in kept.get(group).into_iter().flat_map(|group| group.hours.windows(LONGEST_MS)) {
            let bounds = facts::group_bounds(&seen);
            if rules.iter().any(|rule| rule.may_fire(&bounds)) {
                rows.push(facts::group_hour(&seen));
                windows.push((place, seen));
            }
        }
    }
    let batch = Fact::GroupHour.batch(&rows).unwrap_or_else(|| RecordBatch::new_empty(Fact::GroupHour.schema()));
    for rule in rules {
        let fires = if rows.is_empty() { Vec::new() } else { rule.fires(&rows, &batch) };
        let mut best: Vec<Option<Fullest>> = vec![None; groups.len()];
        for (row, ((place, seen), observed)) in windows.iter().zip(fires).enumerate() {
            if let (Some(best), Some(observed)) = (best.get_mut(*place), observed) {
                *best = Some(Fullest::with(*best, row, seen, observed));
            }
        }
        for (group, best) in groups.iter().zip(best) {
            let Some(kept) = kept.get_mut(group) else { continue };
            if best.is_none() && !kept.has_alert {
                continue;
            }
            let subject = keyed("group", group, kept.epoch);
            let Some(Fullest { row, observed, first_ms, last_ms, window }) = best else {
                undo(alerts, changed, settled, rule, &subject, kept);
                continue;
            };
            let Some(row) = rows.get(row) else { continue };
            let seen = Seen { subject: &subject, day: kept.epoch, row, window };
            let now = Alert { first_ms, last_ms, ..tell(rule, &seen, observed) };
            kept.has_alert = true;
            let before = settled.get(&now.fingerprint).cloned();
            place(alerts, changed, before.map_or_else(|| now.clone(), |before| super::hour::joined(before, now.clone())));
        }
    }
}

/// The fullest window of a group that a rule fires on, the earliest of equals.
#[derive(Clone, Copy)]
struct Fullest {
    row: usize,
    observed: u32,
    first_ms: i64,
    last_ms: i64,
    window: SeenWindow,
}

impl Fullest {
    fn with(before: Option<Self>, row: usize, seen: &Figures, observed: u32) -> Self {
        let window = SeenWindow { start_ms: seen.start_ms, end_ms: seen.end_ms };
        let new = Self { row, observed, first_ms: seen.start_ms, last_ms: seen.end_ms, window };
        let Some(before) = before else { return new };
        let (first_ms, last_ms) = (before.first_ms.min(new.first_ms), before.last_ms.max(new.last_ms));
        Self { first_ms, last_ms, ..if new.observed > before.observed { new } else { before } }
    }
}

/// What is found of a group no more, unless it was settled.
fn undo(alerts: &mut Alerts, changed: &mut Changed, settled: &Alerts, rule: &WrittenRule, subject: &Subject, kept: &Group) {
    let print = fingerprint(rule.first_name(), subject, kept.epoch);
    let Some(open) = alerts.get(&print).filter(|_| !settled.contains_key(&print)) else { return };
    if let Some(seen) = kept.hours.ending_at(open.window.end_ms, LONGEST_MS) {
        let window = SeenWindow { start_ms: seen.start_ms, end_ms: seen.end_ms };
        withdraw(alerts, changed, rule, &Seen { subject, day: kept.epoch, row: &facts::group_hour(&seen), window });
    }
}

/// Keeps what stands of a group that is about to be forgotten.
pub(crate) fn settle(alerts: &Alerts, settled: &mut Alerts, written: &Written, group: &[u8; 16], epoch: i32) {
    let subject = keyed("group", group, epoch);
    for rule in written.on(Fact::GroupHour) {
        let print = fingerprint(rule.first_name(), &subject, epoch);
        if let Some(open) = alerts.get(&print).filter(|a| a.stands()) {
            settled.insert(print, open.clone());
        }
    }
}

/// Puts an alert in place of what was told before.
fn place(alerts: &mut Alerts, changed: &mut Changed, mut now: Alert) {
    let print = now.fingerprint.clone();
    let open = alerts.get(&print);
    now.revision = open.map_or(0, |open| open.revision);
    if open != Some(&now) {
        alerts.insert(print.clone(), now);
        changed.insert(print);
    }
}

/// Tells once more what does not hold any more.
fn withdraw(alerts: &mut Alerts, changed: &mut Changed, rule: &WrittenRule, seen: &Seen<'_>) {
    let print = fingerprint(rule.first_name(), seen.subject, seen.day);
    let Some(open) = alerts.get(&print).filter(|open| !open.withdrawn) else { return };
    let why = if open.rule_version == rule.version {
        "by signals that came late".to_owned()
    } else {
        format!("by version {} of the rule", rule.version)
    };
    // Another version may count something else: what is under ten is not told.
    let observed = rule.observed(seen.row).filter(|n| *n >= LEAST).unwrap_or(0);
    let now = tell(rule, seen, observed);
    let explanation = format!("No longer holds, {why}. {}", now.explanation);
    place(alerts, changed, Alert { severity: "low".to_owned(), withdrawn: true, explanation, ..now });
}

fn tell(rule: &WrittenRule, seen: &Seen<'_>, observed: u32) -> Alert {
    let baseline = rule.baseline(seen.row);
    let when = match rule.on {
        Fact::BusinessDay => format!("On {}", EpochId(seen.day)),
        Fact::GroupHour => format!("Within an hour from {} UTC", clock(seen.window.start_ms)),
    };
    let about = if rule.about.ends_with('.') { rule.about.clone() } else { format!("{}.", rule.about) };
    Alert {
        fingerprint: fingerprint(rule.first_name(), seen.subject, seen.day),
        rule: rule.name.clone(),
        rule_version: rule.version,
        severity: rule.severity.to_owned(),
        subject: seen.subject.clone(),
        window: seen.window,
        observed: u64::from(observed),
        threshold: u64::from(rule.least),
        baseline: Baseline { kind: if baseline.is_some() { "own" } else { "rule" }.to_owned(), value: baseline },
        factor: rule.factor(seen.row, observed),
        evidence: u64::from(observed),
        counter_evidence: counter_evidence(rule, seen.row),
        explanation: format!(
            "{about} {when}: {}. The rule fires where {} and {} is at least {}.",
            rule.told(seen.row),
            rule.when,
            rule.counts,
            rule.least
        ),
        data_gaps: data_gaps(rule),
        first_ms: seen.window.start_ms,
        last_ms: seen.window.end_ms,
        revision: 0,
        withdrawn: false,
        e_value_log10: None,
    }
}

/// What speaks for the subject.
fn counter_evidence(rule: &WrittenRule, row: &Row) -> Vec<String> {
    let cell = |name: &str| rule.on.place(name).and_then(|place| Some((rule.on.columns().get(place)?, *row.get(place)?)));
    let told = |name: &str| cell(name).map_or_else(String::new, |(column, cell)| column.told(cell));
    let mut out = Vec::new();
    match rule.on {
        Fact::BusinessDay => {
            let tier = cell("tier").and_then(|(_, cell)| cell.tier()).unwrap_or(Tier::Unknown);
            let limit = tier.people_per_day().map_or("no limit".to_owned(), |n| format!("a limit of {n} people a day"));
            out.extend([format!("tier {tier} has {limit}"), format!("{} replies that day", told("replied"))]);
        }
        Fact::GroupHour => {
            out.push(format!("{} left in the hour before", told("left_before")));
            if cell("is_new").is_some_and(|(_, cell)| cell == Cell::Flag(true)) {
                out.push("the group was created in that time or in as long a time before".to_owned());
            }
        }
    }
    if rule.names(&["objections", "blocked", "reported", "unfounded"]) {
        out.push("blocks and reports can be made by arrangement".to_owned());
    }
    out
}

fn data_gaps(rule: &WrittenRule) -> Vec<String> {
    let gap = "no member is known, so who left may be others than who came";
    if rule.names(&["left_again"]) { vec![gap.to_owned()] } else { Vec::new() }
}
