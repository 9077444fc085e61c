//! From what a detector saw to an alert somebody can act on and defend: pure functions over counters.

use std::collections::{BTreeMap, BTreeSet};

use starling_schemas::ids::EpochId;

use crate::alert::{Alert, Baseline, SeenWindow, Subject, fingerprint, hex, small};
use crate::businesses::{Business, Day};
use crate::groups::Burst;
use crate::rules::{GroupMassAdd, Rules};
use crate::senders::{MOST_TIMES, Peak};

type Alerts = BTreeMap<String, Alert>;
type Changed = BTreeSet<String>;

/// A rule on one sender's messages.
pub(crate) struct SenderRule {
    name: &'static str,
    version: u32,
    messages: u32,
    within_ms: i64,
    young_s: Option<u64>,
}

impl SenderRule {
    pub(crate) fn bulk(rules: &Rules) -> Self {
        let rule = &rules.bulk_per_minute;
        Self { name: "bulk_per_minute", version: rule.version, messages: rule.messages, within_ms: rule.within_ms, young_s: None }
    }

    pub(crate) fn new_account(rules: &Rules) -> Self {
        let rule = &rules.new_account_burst;
        Self {
            name: "new_account_burst",
            version: rule.version,
            messages: rule.messages,
            within_ms: rule.within_ms,
            young_s: Some(rule.account_age_s),
        }
    }
}

/// Puts an alert in place, or lets the one that is open grow. The result does not depend on the order in which windows are found.
fn raise(alerts: &mut Alerts, changed: &mut Changed, new: Alert) {
    let key = new.fingerprint.clone();
    match alerts.get_mut(&key) {
        None => {
            alerts.insert(key.clone(), new);
            changed.insert(key);
        }
        Some(open) => {
            let first_ms = open.first_ms.min(new.first_ms);
            let last_ms = open.last_ms.max(new.last_ms);
            // Of equals the newest: counters beside it, such as replies, may have grown.
            let fuller = (new.observed, std::cmp::Reverse(new.window.start_ms))
                >= (open.observed, std::cmp::Reverse(open.window.start_ms));
            let revision = open.revision;
            let before = open.clone();
            if fuller {
                *open = new;
            }
            (open.first_ms, open.last_ms, open.revision) = (first_ms, last_ms, revision);
            if *open != before {
                changed.insert(key);
            }
        }
    }
}

fn keyed(kind: &str, subject: &[u8; 16], epoch: i32) -> Subject {
    Subject { kind: kind.to_owned(), value: hex(subject), epoch: Some(EpochId(epoch).to_string()) }
}

fn ratio(observed: f64, base: f64) -> f64 {
    (observed / base * 100.0).round() / 100.0
}

fn clock(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms)
        .map_or_else(|_| "unknown time".to_owned(), |t| t.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

pub(crate) fn sender(alerts: &mut Alerts, changed: &mut Changed, rule: SenderRule, person: &[u8; 16], epoch: i32, peak: Peak) {
    let subject = keyed("person", person, epoch);
    let factor = ratio(f64::from(peak.count), f64::from(rule.messages));
    let seconds = rule.within_ms / 1000;
    let capped = peak.count as usize >= MOST_TIMES;
    let at_least = if capped { "at least " } else { "" };
    let whose = rule.young_s.map_or(String::new(), |s| format!(" while its account was at most {} minutes old", s / 60));
    raise(
        alerts,
        changed,
        Alert {
            fingerprint: fingerprint(rule.name, &subject, epoch),
            rule: rule.name.to_owned(),
            rule_version: rule.version,
            severity: if factor >= 5.0 { "critical" } else { "high" }.to_owned(),
            window: SeenWindow { start_ms: peak.start_ms, end_ms: peak.end_ms },
            observed: u64::from(peak.count),
            threshold: u64::from(rule.messages),
            baseline: Baseline { kind: "rule".to_owned(), value: None },
            factor,
            evidence: u64::from(peak.count),
            counter_evidence: Vec::new(),
            explanation: format!(
                "One sender sent {at_least}{} messages within {seconds} s from {} UTC{whose}; the rule fires at {}.",
                peak.count,
                clock(peak.start_ms),
                rule.messages
            ),
            data_gaps: if capped {
                vec![format!("only the newest {MOST_TIMES} messages of a sender are kept")]
            } else {
                Vec::new()
            },
            first_ms: peak.first_ms,
            last_ms: peak.last_ms,
            revision: 0,
            subject,
        },
    );
}

pub(crate) fn group(alerts: &mut Alerts, changed: &mut Changed, rule: &GroupMassAdd, group: &[u8; 16], epoch: i32, burst: Burst) {
    let subject = keyed("group", group, epoch);
    let factor = ratio(f64::from(burst.added), f64::from(rule.members));
    let share = f64::from(burst.strangers) / f64::from(burst.added.max(1)) * 100.0;
    raise(
        alerts,
        changed,
        Alert {
            fingerprint: fingerprint("group_mass_add", &subject, epoch),
            rule: "group_mass_add".to_owned(),
            rule_version: rule.version,
            severity: if factor >= 3.0 { "high" } else { "medium" }.to_owned(),
            window: SeenWindow { start_ms: burst.start_ms, end_ms: burst.end_ms },
            observed: u64::from(burst.added),
            threshold: u64::from(rule.members),
            baseline: Baseline { kind: "rule".to_owned(), value: None },
            factor,
            evidence: u64::from(burst.added),
            counter_evidence: Vec::new(),
            explanation: format!(
                "{} members were added to one group within {} minutes from {} UTC, {share:.0} % of them strangers to whoever added them; the rule fires at {} with {:.0} % strangers.",
                burst.added,
                rule.within_ms / 60_000,
                clock(burst.start_ms),
                rule.members,
                rule.stranger_share * 100.0
            ),
            data_gaps: Vec::new(),
            first_ms: burst.first_ms,
            last_ms: burst.last_ms,
            revision: 0,
            subject,
        },
    );
}

pub(crate) fn business(alerts: &mut Alerts, changed: &mut Changed, rules: &Rules, name: &str, business: &Business) {
    for day in &business.days {
        reach(alerts, changed, rules, name, business, day);
        blocks(alerts, changed, rules, name, business, day);
    }
}

fn of_business(name: &str) -> Subject {
    Subject { kind: "business".to_owned(), value: name.to_owned(), epoch: None }
}

fn counter_evidence(business: &Business, day: &Day) -> Vec<String> {
    let limit = business.tier().people_per_day().map_or("no limit".to_owned(), |n| format!("a limit of {n} people a day"));
    vec![format!("tier {} has {limit}", business.tier()), format!("{} replies that day", small(day.replied))]
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
fn reach(alerts: &mut Alerts, changed: &mut Changed, rules: &Rules, name: &str, business: &Business, day: &Day) {
    let rule = &rules.business_reach;
    let (own, known) = business.own_baseline(day.day);
    let is_own = known >= rule.own_days;
    let limit = business.tier().people_per_day();
    if limit.is_none() && !is_own {
        // Without a limit and without a past there is nothing it could be far beyond.
        return;
    }
    let baseline = if is_own { own.max(1.0) } else { rules.segment_baseline(business.tier()) };
    let threshold = f64::from(limit.unwrap_or(0)).max(rule.over_baseline * baseline);
    let observed = day.reach.at_least().floor();
    if observed <= threshold {
        return;
    }
    let subject = of_business(name);
    let factor = ratio(observed, baseline);
    let whose = if is_own { format!("its own median of {known} days") } else { "what its tier usually reaches".to_owned() };
    raise(
        alerts,
        changed,
        Alert {
            fingerprint: fingerprint("business_reach", &subject, day.day),
            rule: "business_reach".to_owned(),
            rule_version: rule.version,
            severity: if factor >= 10.0 { "high" } else { "medium" }.to_owned(),
            window: SeenWindow { start_ms: day.first_ms, end_ms: day.last_ms },
            observed: observed as u64,
            threshold: threshold as u64,
            baseline: Baseline { kind: if is_own { "own" } else { "segment" }.to_owned(), value: Some(baseline) },
            factor,
            evidence: u64::from(day.sent),
            counter_evidence: counter_evidence(business, day),
            explanation: format!(
                "A business wrote to at least {observed:.0} different people on {}, {factor} times {whose} ({baseline:.0}) and beyond its tier.",
                EpochId(day.day)
            ),
            data_gaps: if is_own { Vec::new() } else { vec![format!("its own past is known for {known} days only")] },
            first_ms: day.first_ms,
            last_ms: day.last_ms,
            revision: 0,
            subject,
        },
    );
}

fn blocks(alerts: &mut Alerts, changed: &mut Changed, rules: &Rules, name: &str, business: &Business, day: &Day) {
    let rule = &rules.business_blocks;
    let category = day.category();
    let null = rules.null_rate(category);
    // Never more objections than messages: reports without a delivery behind them must not raise the rate without bound.
    let rate = f64::from(day.objections) / f64::from(day.sent.max(day.objections).max(1));
    if day.objections < rule.blocks || rate <= rule.over_null * null {
        return;
    }
    let subject = of_business(name);
    let factor = ratio(rate, null);
    raise(
        alerts,
        changed,
        Alert {
            fingerprint: fingerprint("business_blocks", &subject, day.day),
            rule: "business_blocks".to_owned(),
            rule_version: rule.version,
            // Objections alone never raise more than priority: a brigade can make them.
            severity: "low".to_owned(),
            window: SeenWindow { start_ms: day.first_ms, end_ms: day.last_ms },
            observed: u64::from(day.objections),
            threshold: u64::from(rule.blocks),
            baseline: Baseline { kind: "segment".to_owned(), value: Some(null) },
            factor,
            evidence: u64::from(day.objections),
            counter_evidence: counter_evidence(business, day),
            explanation: format!(
                "A business drew {} blocks and reports on {} messages on {}, {factor} times the usual rate of category {category}.",
                day.objections,
                day.sent,
                EpochId(day.day)
            ),
            data_gaps: Vec::new(),
            first_ms: day.first_ms,
            last_ms: day.last_ms,
            revision: 0,
            subject,
        },
    );
}
