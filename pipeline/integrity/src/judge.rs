//! From what a detector saw to an alert somebody can act on and defend: pure functions over counters.

mod business;
mod counts;
mod day;
mod hour;
mod template;
mod voices;
pub(crate) mod written;

use std::collections::{BTreeMap, BTreeSet};

use starling_schemas::ids::EpochId;

use crate::alert::{Alert, Baseline, SeenWindow, Subject, fingerprint, hex, small};
use crate::evidence::EValue;
use crate::groups::Burst;
use crate::rules::{Coordinated, GroupMassAdd, Rules, SlowBulk};
use crate::senders::{MOST_TIMES, Peak};
use crate::slow::{Crossing, Crowd, crowd_threshold, increments};

pub(crate) use business::{Seen, business, business_day};
pub(crate) use day::{listed, maker};
pub(crate) use hour::{group_hours, settle};
pub use template::fingerprint_of as template_fingerprint;
#[cfg(test)]
pub(crate) use template::moment as template_moment;
pub(crate) use template::templates;

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

pub(crate) fn ratio(observed: f64, base: f64) -> f64 {
    (observed / base * 100.0).round() / 100.0
}

pub(crate) fn clock(ms: i64) -> String {
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
            withdrawn: false,
            e_value_log10: None,
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
            withdrawn: false,
            e_value_log10: None,
            subject,
        },
    );
}

/// A member of a cohort is more than a priority where chance makes at most so many in a thousand of such contacts as its own.
const OWN_CHANCE_PERMILLE: u16 = 100;
/// What is missing where a platform does not say it.
const AGE_UNSAID: &str = "where it was not said how old an account is that was written to, it was taken for an established one";

/// A sender of a cohort of which too many write to strangers who do not answer.
pub(crate) fn crowd(alerts: &mut Alerts, changed: &mut Changed, rule: &Coordinated, crowd: &Crowd) {
    let subject = keyed("person", &crowd.person, crowd.epoch);
    let usual = f64::from(crowd.usual_centi) / 100.0;
    let (contacts, answered) = (small(crowd.contacts), small(crowd.answered));
    let threshold = crowd_threshold(crowd.members, usual, rule);
    let new = Alert {
        fingerprint: fingerprint("coordinated_senders", &subject, crowd.epoch),
        rule: "coordinated_senders".to_owned(),
        rule_version: rule.version,
        // What its cohort makes likely of many is said of this one only where its own contacts say so, too.
        severity: if crowd.own_chance_permille <= OWN_CHANCE_PERMILLE { "medium" } else { "low" }.to_owned(),
        window: SeenWindow { start_ms: crowd.first_ms, end_ms: crowd.last_ms },
        observed: u64::from(crowd.evident),
        // What has fired holds as long as there are more than chance makes, though it would not fire anew.
        threshold: if crowd.stands { threshold.min(crowd.evident) } else { threshold }.into(),
        baseline: Baseline { kind: "own".to_owned(), value: Some(usual) },
        factor: ratio(f64::from(crowd.evident), usual.max(1.0)),
        evidence: u64::from(crowd.evident),
        counter_evidence: vec![
            format!("{answered} of its own contacts were answered"),
            "others who were registered with it and are answered, or write to few, are not counted".to_owned(),
        ],
        explanation: format!(
            "One of {} accounts that were registered together, wrote to {} new people or more, and were answered within the hour by nearly nobody. Were they answered as often as is usual of them or of others ({:.0} %), {usual:.0} would be so by chance. This one wrote to {contacts} from {} to {} UTC, and {answered} answered.",
            crowd.evident,
            rule.contacts,
            f64::from(crowd.rate_permille) / 10.0,
            clock(crowd.first_ms),
            clock(crowd.last_ms)
        ),
        data_gaps: vec![
            AGE_UNSAID.to_owned(),
            "that accounts were registered together does not say that they know of each other".to_owned(),
        ],
        first_ms: crowd.first_ms,
        last_ms: crowd.last_ms,
        revision: 0,
        withdrawn: false,
        e_value_log10: crowd.e_value.map(EValue::log10),
        subject,
    };
    match alerts.get_mut(&new.fingerprint) {
        // Whom nobody was told of is not taken back.
        None if !crowd.stands => {}
        Some(open) if !crowd.stands || open.withdrawn => {
            if open.withdrawn && !crowd.stands {
                return;
            }
            let (first_ms, last_ms) = (open.first_ms.min(new.first_ms), open.last_ms.max(new.last_ms));
            let now = if crowd.stands { new } else { taken_back(new, crowd, rule) };
            changed.insert(now.fingerprint.clone());
            *open = Alert { first_ms, last_ms, revision: open.revision, ..now };
        }
        _ => raise(alerts, changed, new),
    }
}

/// What was told of a member of a crowd, once it is none.
fn taken_back(told: Alert, crowd: &Crowd, rule: &Coordinated) -> Alert {
    let silent = format!("it wrote to fewer than {} new people, and then to nobody new for a day", rule.lasting);
    let why = if crowd.is_silent {
        &silent
    } else if crowd.evident >= rule.members && f64::from(crowd.evident) * 100.0 > f64::from(crowd.usual_centi) {
        "it has been answered since"
    } else {
        "no more of those who were registered with it are as seldom answered than chance makes"
    };
    Alert {
        severity: "low".to_owned(),
        withdrawn: true,
        explanation: format!("No longer holds: {why}. {}", told.explanation),
        ..told
    }
}

/// A sender whose strangers do not answer. Which counters it has says the crossing; who they were, nobody knows here.
pub(crate) fn slow(alerts: &mut Alerts, changed: &mut Changed, rule: &SlowBulk, crossing: &Crossing) {
    let subject = keyed("person", &crossing.person, crossing.epoch);
    let expected = f64::from(crossing.expected_permille) / 10.0;
    let (gain, loss) = increments(crossing.expected_permille);
    let threshold = rule.threshold_millinats.div_euclid(gain.max(1)) + 1;
    let factor = ratio(f64::from(crossing.unanswered), f64::from(threshold));
    let answered = small(crossing.answered);
    let e_value = EValue::of_sum(crossing.score, rule.threshold_millinats).map(EValue::log10);
    let print = fingerprint("slow_bulk", &subject, crossing.epoch);
    // What the sum has reached it has reached.
    let reached = alerts.get(&print).and_then(|open| open.e_value_log10);
    let new = Alert {
        fingerprint: print,
        rule: "slow_bulk".to_owned(),
        rule_version: rule.version,
        severity: if crossing.score >= rule.threshold_millinats.saturating_mul(2) { "high" } else { "medium" }.to_owned(),
        window: SeenWindow { start_ms: crossing.first_ms, end_ms: crossing.last_ms },
        observed: u64::from(crossing.unanswered),
        threshold: u64::try_from(threshold).unwrap_or_default(),
        baseline: Baseline { kind: "segment".to_owned(), value: None },
        factor,
        // Not with those who answered: the sum would tell how many they are.
        evidence: u64::from(crossing.unanswered),
        counter_evidence: vec![format!("{answered} of these contacts were answered")],
        explanation: format!(
            "One sender wrote to {} new people from {} to {} UTC who did not answer within a day, and to {answered} who did; of {}, answers from {:.0} % would be nothing unusual. Evidence: {gain} for each without and -{loss} for each with an answer; the rule fires at {}.",
            crossing.unanswered,
            clock(crossing.first_ms),
            clock(crossing.last_ms),
            crossing.segment.accounts(),
            expected,
            rule.threshold_millinats
        ),
        data_gaps: vec![AGE_UNSAID.to_owned()],
        first_ms: crossing.first_ms,
        last_ms: crossing.last_ms,
        revision: 0,
        withdrawn: false,
        e_value_log10: [e_value, reached].into_iter().flatten().reduce(f64::max),
        subject,
    };
    raise(alerts, changed, new);
}
