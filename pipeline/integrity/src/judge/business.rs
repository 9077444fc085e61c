//! Businesses' days: beyond a limit, unwanted, attacked, or from a number that nobody knows.

use starling_schemas::codes::Tier;
use starling_schemas::ids::EpochId;

use super::counts::{least_improbable, tail};
use super::template::usual_of;
use super::voices::{Arranged, left_out, not_known};
use super::{Alerts, Changed, raise, ratio};
use crate::alert::{Alert, Baseline, SeenWindow, Subject, fingerprint, small};
use crate::businesses::{Business, Day, Totals};
use crate::evidence::EValue;
use crate::rules::Rules;

/// Fewer blocks and reports are never told to be usual: a factor is taken over them.
const LEAST_USUAL: f64 = 0.01;

/// A business, and those that it belongs with.
pub(crate) struct Seen<'a> {
    pub(crate) name: &'a str,
    pub(crate) business: &'a Business,
    pub(crate) totals: &'a Totals<'a>,
}

/// Judges the days of a business that something came of since `oldest_ms`. Alerts on those before have been forgotten: they would be found again.
pub(crate) fn business(alerts: &mut Alerts, changed: &mut Changed, rules: &Rules, seen: &Seen<'_>, oldest_ms: i64) {
    for day in seen.business.days.iter().filter(|day| day.last_ms >= oldest_ms) {
        business_day(alerts, changed, rules, seen, day);
    }
}

/// Judges one day of a business, which may be over.
pub(crate) fn business_day(alerts: &mut Alerts, changed: &mut Changed, rules: &Rules, seen: &Seen<'_>, day: &Day) {
    reach(alerts, changed, rules, seen.name, seen.business, day);
    blocks(alerts, changed, rules, seen.name, seen.business, day);
    brigade(alerts, changed, rules, seen.name, day);
    fresh_number(alerts, changed, rules, seen, day);
}

pub(super) fn of_business(name: &str) -> Subject {
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
    // A tier that nobody stated is no limit to who is known.
    let limit = business.tier().people_per_day().filter(|_| business.tier() != Tier::Unknown || !is_own);
    if limit.is_none() && !is_own {
        // Without a limit and without a past there is nothing it could be far beyond.
        return;
    }
    let baseline = if is_own { own.max(1.0) } else { rules.segment_baseline(business.tier()) };
    // A limit is a limit, however much a business is used to. Where there is none, only its own past says what is too much.
    let threshold = limit.map_or(rule.over_baseline * baseline, f64::from);
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
            severity: match factor {
                10.0.. => "high",
                _ if factor >= rule.over_baseline => "medium",
                // Beyond its limit, and near what it is used to: perhaps the tier is out of date.
                _ => "low",
            }
            .to_owned(),
            window: SeenWindow { start_ms: day.first_ms, end_ms: day.last_ms },
            observed: observed as u64,
            threshold: threshold as u64,
            baseline: Baseline { kind: if is_own { "own" } else { "segment" }.to_owned(), value: Some(baseline) },
            factor,
            evidence: u64::from(day.sent),
            counter_evidence: counter_evidence(business, day),
            explanation: format!(
                "A business wrote to at least {observed:.0} different people on {}, {factor} times {whose} ({baseline:.0}){}.",
                EpochId(day.day),
                limit.map_or_else(String::new, |limit| format!(" and beyond the {limit} of its tier"))
            ),
            data_gaps: if is_own { Vec::new() } else { vec![format!("its own past is known for {known} days only")] },
            first_ms: day.first_ms,
            last_ms: day.last_ms,
            revision: 0,
            withdrawn: false,
            e_value_log10: None,
            subject,
        },
    );
}

/// What is usual of a business's blocks and reports in a day.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Usual {
    /// How many.
    objections: f64,
    /// Shape of the gamma distribution around that.
    shape: f64,
    /// How much its own days say beside its category: blocks and reports that would be usual of them. 0 where there are none.
    own: f64,
    /// Messages the day before.
    sent_before: u32,
}

/// What the days of a business before one showed.
pub(super) struct OwnDays {
    /// Blocks and reports.
    seen: u32,
    /// How many its categories make usual of as many messages.
    pub(super) usual: f64,
    /// Messages of the day before, by category.
    before: [u32; 5],
}

impl OwnDays {
    /// The rate of the business in multiples of its categories'. Its own past makes no more usual than `most_own` says, so that nobody can get a rule
    /// used to complaints.
    pub(super) fn times(&self, rules: &Rules) -> f64 {
        let rule = &rules.business_blocks;
        ((rule.shape + f64::from(self.seen)) / (rule.shape + self.usual)).min(rule.most_own)
    }
}

/// What the days of a business before this one showed.
pub(super) fn own_days(rules: &Rules, business: &Business, day: i32) -> OwnDays {
    let mut own = OwnDays { seen: 0, usual: 0.0, before: [0; 5] };
    for past in business.before(day) {
        own.seen = own.seen.saturating_add(past.objections);
        if past.day == day - 1 {
            own.before = past.by_category;
            // The others come today.
            own.usual += (1.0 - rules.business_blocks.late_share) * usual_of(rules, &own.before);
        } else {
            own.usual += usual_of(rules, &past.by_category);
        }
    }
    own
}

/// What its categories make usual of a day, by the business's own days before. The rate of a business, in multiples of its categories', is
/// gamma-distributed around one; what its days before showed is added to that, message by message. No day is taken to be more like the others than
/// `day_shape` says.
fn usual_objections(rules: &Rules, business: &Business, day: &Day) -> Usual {
    let rule = &rules.business_blocks;
    let own = own_days(rules, business, day.day);
    Usual {
        // Who was written to in the evening objects the day after.
        objections: own.times(rules) * (usual_of(rules, &day.by_category) + rule.late_share * usual_of(rules, &own.before)),
        shape: (rule.shape + f64::from(own.seen)).min(rule.day_shape),
        own: own.usual,
        sent_before: own.before.iter().fold(0, |sum, sent| sum.saturating_add(*sent)),
    }
}

fn blocks(alerts: &mut Alerts, changed: &mut Changed, rules: &Rules, name: &str, business: &Business, day: &Day) {
    let rule = &rules.business_blocks;
    // It only grows: where it is below the floor nothing was told.
    let counted = day.counted_objections(rule.young_share);
    if counted < rule.blocks {
        return;
    }
    let usual = usual_objections(rules, business, day);
    let most = usual.objections.max(LEAST_USUAL);
    let threshold = least_improbable(rule.blocks, most, usual.shape, rule.tail);
    // Rounded, for it is saved as text and must come back the same.
    let baseline = ratio(usual.objections, 1.0).max(LEAST_USUAL);
    let (observed, subject) = (f64::from(counted), of_business(name));
    let whose = if usual.own > 0.0 { "its own days before and its category" } else { "its category" };
    let before = match usual.sent_before {
        0 => String::new(),
        sent => format!(", after {sent} the day before"),
    };
    let drew = if counted == day.objections {
        format!("{counted} blocks and reports")
    } else {
        format!("blocks and reports that count as {counted}")
    };
    let new = Alert {
        fingerprint: fingerprint("business_blocks", &subject, day.day),
        rule: "business_blocks".to_owned(),
        rule_version: rule.version,
        // Objections alone never raise more than priority: a brigade can make them.
        severity: "low".to_owned(),
        window: SeenWindow { start_ms: day.first_ms, end_ms: day.last_ms },
        observed: u64::from(counted),
        threshold: u64::from(threshold),
        baseline: Baseline { kind: if usual.own > 0.0 { "own" } else { "segment" }.to_owned(), value: Some(baseline) },
        factor: ratio(observed, baseline),
        evidence: u64::from(counted),
        counter_evidence: counter_evidence(business, day)
            .into_iter()
            .chain(by_arrangement(business, day))
            .chain(left_out(day, counted))
            .collect(),
        explanation: format!(
            "A business drew {drew} on {} messages on {}{before}; by {whose} ({}) {baseline} would be usual, and the rule fires at {threshold}.",
            day.sent,
            EpochId(day.day),
            day.category()
        ),
        data_gaps: not_known(day.voices.unknown).into_iter().collect(),
        first_ms: day.first_ms,
        last_ms: day.last_ms,
        revision: 0,
        withdrawn: false,
        e_value_log10: EValue::of_p(tail(counted, most, usual.shape)).map(EValue::log10),
        subject,
    };
    told_or_undone(alerts, changed, new, "more was written to people since");
}

/// Raises what holds, and takes back what was told and holds no longer.
fn told_or_undone(alerts: &mut Alerts, changed: &mut Changed, new: Alert, why: &str) {
    if new.stands() {
        raise(alerts, changed, new);
        return;
    }
    let Some(open) = alerts.get_mut(&new.fingerprint).filter(|open| open.stands() && open.rule_version == new.rule_version)
    else {
        return;
    };
    changed.insert(new.fingerprint.clone());
    *open = Alert {
        severity: "low".to_owned(),
        withdrawn: true,
        explanation: format!("No longer holds: {why}. {}", new.explanation),
        first_ms: open.first_ms.min(new.first_ms),
        last_ms: open.last_ms.max(new.last_ms),
        revision: open.revision,
        ..new
    };
}

/// What speaks for reports by arrangement among those who were written to: the business did nothing it does not always do.
fn by_arrangement(business: &Business, day: &Day) -> Option<String> {
    let (own, known) = business.own_baseline(day.day);
    let reached = day.reach.estimate();
    (known >= 3 && own >= 1.0 && reached <= 1.5 * own).then(|| {
        format!(
            "it wrote to about {reached:.0} people that day, and to {own:.0} on the median of {known} days before: people may object by arrangement"
        )
    })
}

/// People report a business to whom it wrote nothing, or accounts object that were made for it, belong together or do nothing else: somebody calls on
/// them to.
fn brigade(alerts: &mut Alerts, changed: &mut Changed, rules: &Rules, name: &str, day: &Day) {
    let rule = &rules.report_brigade;
    let found = Arranged::of(rule, day);
    let subject = of_business(name);
    // What was together may be no more than its part of what came since.
    if found.suspicious < rule.reports && !alerts.contains_key(&fingerprint("report_brigade", &subject, day.day)) {
        return;
    }
    let (observed, threshold) = (found.told(), found.threshold(rule));
    let unknown = (found.voices > 0).then(|| not_known(day.voices.unknown)).flatten();
    told_or_undone(
        alerts,
        changed,
        Alert {
            fingerprint: fingerprint("report_brigade", &subject, day.day),
            rule: "report_brigade".to_owned(),
            rule_version: rule.version,
            // It is the business that is attacked.
            severity: "low".to_owned(),
            window: SeenWindow { start_ms: day.first_ms, end_ms: day.last_ms },
            observed: u64::from(observed),
            threshold: u64::from(threshold),
            baseline: Baseline { kind: "rule".to_owned(), value: None },
            factor: ratio(f64::from(observed), f64::from(threshold)),
            evidence: u64::from(observed),
            counter_evidence: found.counter_evidence(),
            explanation: found.explanation(day),
            data_gaps: std::iter::once("who reports is not known, nor whether they know of each other".to_owned())
                .chain(unknown)
                .collect(),
            first_ms: day.first_ms,
            last_ms: day.last_ms,
            revision: 0,
            withdrawn: false,
            e_value_log10: None,
            subject,
        },
        "others objected, too",
    );
}

/// A number that is new, in a portfolio that is not, and that writes to as many as all others of it did.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
fn fresh_number(alerts: &mut Alerts, changed: &mut Changed, rules: &Rules, seen: &Seen<'_>, day: &Day) {
    let rule = &rules.business_fresh_number;
    let (Some((_, portfolio)), Some(first_day)) = (&seen.business.portfolio, seen.business.first_day) else { return };
    let observed = day.reach.at_least().floor();
    let subject = of_business(seen.name);
    let is_open = alerts.contains_key(&fingerprint("business_fresh_number", &subject, day.day));
    if (observed < f64::from(rule.people) || !seen.business.is_fresh(day.day, rule.fresh_days)) && !is_open {
        return;
    }
    let (usual, known) = seen.totals.usual(portfolio, seen.name, first_day);
    let holds = seen.business.is_fresh(day.day, rule.fresh_days) && known >= rule.known_days;
    let enough = (rule.share * usual).ceil().max(f64::from(rule.people));
    // What is not new, or in no old portfolio, is told of at no number.
    let threshold = if holds { enough as u64 } else { observed as u64 + 1 };
    let baseline = usual.max(1.0);
    let factor = ratio(observed, baseline);
    let new = Alert {
        fingerprint: fingerprint("business_fresh_number", &subject, day.day),
        rule: "business_fresh_number".to_owned(),
        rule_version: rule.version,
        // As many as before, from another number: that is what a move looks like, too.
        severity: if factor >= rule.over_portfolio { "medium" } else { "low" }.to_owned(),
        window: SeenWindow { start_ms: day.first_ms, end_ms: day.last_ms },
        observed: observed as u64,
        threshold,
        baseline: Baseline { kind: "segment".to_owned(), value: Some(baseline) },
        factor,
        evidence: u64::from(day.sent),
        counter_evidence: counter_evidence(seen.business, day)
            .into_iter()
            .chain(["a business that moves to another number, or opens a branch, looks the same".to_owned()])
            .collect(),
        explanation: format!(
            "A number that was first seen on {} wrote to at least {observed:.0} different people on {}. All other numbers of its portfolio together reach {baseline:.0} on the median of {known} days before, so that is {factor} times as many; the rule fires at {enough:.0}.",
            EpochId(first_day),
            EpochId(day.day)
        ),
        data_gaps: vec![
            "a number counts as new that was silent for five weeks, or since detection began if that is later".to_owned(),
        ],
        first_ms: day.first_ms,
        last_ms: day.last_ms,
        revision: 0,
        withdrawn: false,
        e_value_log10: None,
        subject,
    };
    told_or_undone(alerts, changed, new, "other numbers of its portfolio, or it itself, were seen before");
}
