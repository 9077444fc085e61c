//! New templates of businesses: unwanted from their first batch on.

use starling_schemas::codes::Category;
use starling_schemas::ids::EpochId;

use super::business::{of_business, own_days};
use super::{Alerts, Changed, clock, ratio};
use crate::alert::{Alert, Baseline, SeenWindow, fingerprint_of_part, small};
use crate::businesses::Business;
use crate::rules::Rules;
use crate::templates::{Catalogue, Hour, Tested};

/// Fewer blocks and reports are never told to be usual: a factor is taken over them.
const LEAST_USUAL: f64 = 0.01;
const RULE: &str = "business_template";

/// What a template's messages drew from its first one to the end of an hour.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Moment {
    /// Messages by category.
    by_category: [u32; 5],
    /// Messages.
    pub(crate) sent: u32,
    /// Blocks, and reports of what had been delivered, as far as they count, and no more than there were messages.
    pub(crate) feedback: u32,
    /// Of accounts of their first week, those that do not count.
    uncounted: u32,
    /// Blocks alone that count.
    pub(crate) blocks: u32,
    /// How many would be usual.
    pub(crate) usual: f64,
    /// How much more likely that is of an unwanted template, as a logarithm.
    pub(crate) evidence: f64,
    /// When the last of it was.
    last_ms: i64,
}

/// What there is up to the end of an hour.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    by_category: [u32; 5],
    blocks: u32,
    reports: u32,
    young_blocks: u32,
    young_reports: u32,
    last_ms: i64,
}

impl Sum {
    fn and(&self, hour: &Hour) -> Self {
        let mut sum = *self;
        for (slot, n) in sum.by_category.iter_mut().zip(hour.by_category) {
            *slot = slot.saturating_add(n);
        }
        sum.blocks = sum.blocks.saturating_add(hour.blocks.into());
        sum.reports = sum.reports.saturating_add(hour.reports.into());
        sum.young_blocks = sum.young_blocks.saturating_add(hour.young_blocks.into());
        sum.young_reports = sum.young_reports.saturating_add(hour.young_reports.into());
        sum.last_ms = sum.last_ms.max(hour.last_ms());
        sum
    }

    fn moment(&self, rules: &Rules, times: f64) -> Moment {
        let sent = self.by_category.iter().fold(0_u32, |sum, n| sum.saturating_add(*n));
        let all = self.blocks.saturating_add(self.reports);
        let share = rules.business_blocks.young_share;
        let feedback = counted(all, self.young_blocks.saturating_add(self.young_reports), share);
        let usual = times * usual_of(rules, &self.by_category);
        let counts = feedback.min(sent);
        Moment {
            by_category: self.by_category,
            sent,
            feedback: counts,
            uncounted: all.saturating_sub(feedback),
            blocks: counted(self.blocks, self.young_blocks, share).min(sent),
            usual,
            evidence: rules.business_template.evidence(counts, usual),
            last_ms: self.last_ms,
        }
    }
}

/// Of so many, those that count where so many are of accounts of their first week.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn counted(all: u32, young: u32, young_share: f64) -> u32 {
    let others = all.saturating_sub(young);
    others.saturating_add(young.min((f64::from(others) * young_share) as u32))
}

/// Blocks and reports that are usual of so many messages of a category.
pub(super) fn usual_of(rules: &Rules, by_category: &[u32; 5]) -> f64 {
    Category::ALL.iter().zip(by_category).map(|(category, sent)| f64::from(*sent) * rules.null_rate(*category)).sum()
}

/// Where the test of a template stands: a function of its counters, whatever came first.
///
/// It is looked at when each hour of the clock ends, and now. It is over without a finding at the end of an hour where what was sent before that hour,
/// and so has had an hour to be objected to, is a whole batch, or makes the template a usual one: what came later is not looked at. Found is the
/// moment of the most evidence at which it fires; where there is none, the latest one is given, and `false`.
pub(crate) fn moment(rules: &Rules, tested: &Tested, times: f64) -> Option<(Moment, bool)> {
    let rule = &rules.business_template;
    let (mut found, mut latest): (Option<Moment>, Option<Moment>) = (None, None);
    let (mut sum, mut before, mut hour_before) = (Sum::default(), Sum::default(), None);
    for hour in tested.watched() {
        if let (None, Some(last)) = (&found, hour_before) {
            // Since the end of the hour before this one nothing was sent: what is in it is an hour old only then.
            let old = if hour.hour - last >= 2 { sum } else { before };
            let (now, old) = (sum.moment(rules, times), old.moment(rules, times));
            if old.sent >= rule.batch || rule.evidence(now.feedback, old.usual) <= rule.accept.ln() {
                break;
            }
        }
        (before, sum, hour_before) = (sum, sum.and(hour), Some(hour.hour));
        let now = sum.moment(rules, times);
        if now.feedback >= rule.needed(now.usual) && found.is_none_or(|best| now.evidence > best.evidence) {
            found = Some(now);
        }
        latest = Some(now);
    }
    found.map(|found| (found, true)).or(latest.map(|latest| (latest, false)))
}

/// Judges the templates of a business that are under test.
pub(crate) fn templates(
    alerts: &mut Alerts,
    changed: &mut Changed,
    rules: &Rules,
    catalogue: &Catalogue,
    (name, business): (&str, &Business),
    oldest_ms: i64,
) {
    for tested in catalogue.of.get(name).into_iter().flat_map(|templates| &templates.tested) {
        let Some(first_ms) = tested.first_ms else { continue };
        let day = EpochId::of(first_ms).0;
        // Of fewer nothing was told: the most there ever were is what there is now.
        let most: u32 = tested.watched().map(|hour| u32::from(hour.blocks) + u32::from(hour.reports)).sum();
        let told = [day, day + 1].map(|day| fingerprint_of(name, &tested.name, day));
        if most < rules.business_template.feedback && !told.iter().any(|told| alerts.contains_key(told)) {
            continue;
        }
        let own = own_days(rules, business, day);
        let Some((moment, fires)) = moment(rules, tested, own.times(rules)) else { continue };
        if moment.last_ms < oldest_ms {
            continue;
        }
        let fires = fires && catalogue.is_judged(business.first_day, day);
        let new = alert(rules, (name, business), tested, first_ms, own.usual > 0.0, &moment, fires);
        // An earlier message of the day before became known: it was told of as another day's.
        let [_, after] = told;
        if alerts.contains_key(&after) {
            let new = Alert { fingerprint: after, threshold: new.observed + 1, ..new.clone() };
            say(alerts, changed, new, "its first message was sent the day before");
        }
        say(alerts, changed, new, "more was written to people, or less counts than was known");
    }
}

/// The fingerprint of a template's alert: one for a template and the day of its first message.
#[must_use]
pub fn fingerprint_of(business: &str, template: &str, day: i32) -> String {
    fingerprint_of_part(RULE, &of_business(business), template, day)
}

/// Tells what is so now, whatever was told before, and takes back what was told and holds no longer.
fn say(alerts: &mut Alerts, changed: &mut Changed, new: Alert, why: &str) {
    let open = alerts.get(&new.fingerprint);
    let new = match open {
        _ if new.stands() => new,
        Some(open) if open.stands() && open.rule_version == new.rule_version => Alert {
            severity: "low".to_owned(),
            withdrawn: true,
            explanation: format!("No longer holds: {why}. {}", new.explanation),
            ..new
        },
        _ => return,
    };
    let revision = open.map_or(0, |open| open.revision);
    let new = Alert { revision, ..new };
    if open != Some(&new) {
        changed.insert(new.fingerprint.clone());
        alerts.insert(new.fingerprint.clone(), new);
    }
}

/// So many, where it may be told; else the least at which it could fire, or nought.
fn at_least(rules: &Rules, n: u32) -> u32 {
    match n {
        10.. => n,
        _ if n >= rules.business_template.feedback => rules.business_template.feedback,
        _ => 0,
    }
}

fn severity(rules: &Rules, moment: &Moment) -> &'static str {
    let rule = &rules.business_template;
    match moment.blocks >= rule.needed(moment.usual) {
        true if moment.evidence >= 2.0 * rule.limit() => "high",
        true => "medium",
        // Reports can be made by arrangement.
        false => "low",
    }
}

#[allow(clippy::cast_precision_loss)]
fn alert(
    rules: &Rules,
    (name, business): (&str, &Business),
    tested: &Tested,
    first_ms: i64,
    is_own: bool,
    moment: &Moment,
    fires: bool,
) -> Alert {
    let (rule, subject) = (&rules.business_template, of_business(name));
    let observed = u64::from(at_least(rules, moment.feedback));
    let needed = u64::from(at_least(rules, rule.needed(moment.usual)));
    // Rounded, for it is saved as text and must come back the same.
    let baseline = ratio(moment.usual, 1.0).max(LEAST_USUAL);
    let whose = if is_own { "its own days before and its category" } else { "its category" };
    // With the exact one, fewer than ten could be told from the messages.
    let evidence = if moment.feedback < 10 { rule.limit() } else { moment.evidence };
    let likelier = if fires {
        format!("at least 10^{:.0}", (evidence / std::f64::consts::LN_10 + 1e-9).floor())
    } else {
        "not enough".to_owned()
    };
    let limit = business.tier().people_per_day().map_or("no limit".to_owned(), |n| format!("a limit of {n} people a day"));
    let mut counter_evidence = vec![format!("tier {} has {limit}", business.tier())];
    if moment.blocks < rule.needed(moment.usual) {
        counter_evidence.push("it fires by blocks and reports together: reports can be made by arrangement".to_owned());
    }
    if moment.uncounted >= 10 {
        counter_evidence.push(format!("{} more by accounts of their first week were not counted", moment.uncounted));
    }
    Alert {
        fingerprint: fingerprint_of(name, &tested.name, EpochId::of(first_ms).0),
        rule: RULE.to_owned(),
        rule_version: rule.version,
        severity: severity(rules, moment).to_owned(),
        window: SeenWindow { start_ms: first_ms, end_ms: moment.last_ms },
        observed,
        threshold: if fires { needed.min(observed) } else { needed.max(observed + 1) },
        baseline: Baseline { kind: if is_own { "own" } else { "segment" }.to_owned(), value: Some(baseline) },
        factor: ratio(observed as f64, baseline),
        evidence: u64::from(moment.sent),
        e_value_log10: None,
        counter_evidence,
        explanation: format!(
            "A business sent {} messages of a template that is new, \"{}\", from {} UTC on, and {} blocks and reports came of it within {} minutes of the first one; by {whose} ({}) {baseline} would be usual. That is {likelier} times as likely of a template that draws {} times what is usual; the rule fires at {:.0} times.",
            moment.sent,
            tested.name,
            clock(first_ms),
            small(moment.feedback),
            (moment.last_ms - first_ms).max(0) / 60_000 + 1,
            category(&moment.by_category),
            rule.factor,
            1.0 / rule.alpha
        ),
        data_gaps: vec![
            "a template counts as new of which nothing was seen since detection of templates began, or as sixty-four others were seen since"
                .to_owned(),
            "blocks and reports count of which it was said which template they follow".to_owned(),
        ],
        first_ms,
        last_ms: moment.last_ms,
        revision: 0,
        withdrawn: false,
        subject,
    }
}

/// The category most of the messages had.
fn category(by_category: &[u32; 5]) -> Category {
    let most = (0_u8..).zip(by_category).max_by_key(|(code, n)| (**n, std::cmp::Reverse(*code)));
    most.and_then(|(code, _)| Category::from_code(code)).unwrap_or(Category::Unknown)
}
