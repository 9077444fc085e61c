//! Rules over a group's hour, judged from its counters as they are now.
//!
//! A share or a rate falls when what it is taken of comes late, so these rules cannot only grow: an alert is what the counters say when
//! alerts are taken, whatever they said before. What late signals undo is told once more, with numbers that no longer reach the threshold.
//! When a group is forgotten, what stands of it is settled: it stays, and only grows by what comes later.

use super::counts::{least_improbable, tail};
use super::voices::{ArrangedInGroup, not_known, together};
use super::{Alerts, Changed, clock, keyed, ratio};
use crate::alert::{Alert, Baseline, SeenWindow, Subject, fingerprint, small};
use crate::evidence::EValue;
use crate::groups::Group;
use crate::hours::{Figures, Hours};
use crate::rules::Rules;

/// What a rule counts in a window, and from where on it fires. More of what is counted never undoes it; more of what else there is can only
/// raise the threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Judged {
    observed: u32,
    threshold: u32,
}

impl Judged {
    fn holds(self) -> bool {
        self.observed >= self.threshold
    }
}

#[derive(Debug, Clone, Copy)]
enum HourRule {
    LinkJoins,
    Churn,
    Reports,
    Brigade,
}

/// Judges a group by all rules over an hour. `settled` are alerts on what was forgotten of groups.
pub(crate) fn group_hours(
    alerts: &mut Alerts,
    changed: &mut Changed,
    settled: &Alerts,
    rules: &Rules,
    group: &[u8; 16],
    kept: &mut Group,
) {
    for rule in HourRule::ALL {
        let subject = keyed("group", group, kept.epoch);
        let print = fingerprint(rule.name(), &subject, kept.epoch);
        let open = alerts.get(&print);
        let now = match (settled.get(&print).cloned(), rule.fullest(rules, &kept.hours, &subject, kept.epoch)) {
            (Some(before), Some(after)) => Some(joined(before, after)),
            (before, after) => before.or(after),
        };
        let now = now.or_else(|| rule.undone(rules, &kept.hours, &subject, kept.epoch, open?));
        let Some(mut now) = now else { continue };
        kept.has_alert = true;
        now.revision = open.map_or(0, |a| a.revision);
        if open != Some(&now) {
            alerts.insert(print.clone(), now);
            changed.insert(print);
        }
    }
}

/// Keeps what stands of a group that is about to be forgotten.
pub(crate) fn settle(alerts: &Alerts, settled: &mut Alerts, group: &[u8; 16], epoch: i32) {
    let subject = keyed("group", group, epoch);
    for rule in HourRule::ALL {
        let print = fingerprint(rule.name(), &subject, epoch);
        if let Some(open) = alerts.get(&print).filter(|a| a.stands()) {
            settled.insert(print, open.clone());
        }
    }
}

/// One alert of two on times that do not meet: the fuller, the earlier of equals.
pub(super) fn joined(before: Alert, after: Alert) -> Alert {
    let (first_ms, last_ms) = (before.first_ms.min(after.first_ms), before.last_ms.max(after.last_ms));
    let fuller = if after.observed > before.observed { after } else { before };
    Alert { first_ms, last_ms, ..fuller }
}

impl HourRule {
    const ALL: [Self; 4] = [Self::LinkJoins, Self::Churn, Self::Reports, Self::Brigade];

    fn name(self) -> &'static str {
        match self {
            Self::LinkJoins => "group_link_joins",
            Self::Churn => "group_churn",
            Self::Reports => "group_reports",
            Self::Brigade => "group_report_brigade",
        }
    }

    fn version(self, rules: &Rules) -> u32 {
        match self {
            Self::LinkJoins => rules.group_link_joins.version,
            Self::Churn => rules.group_churn.version,
            Self::Reports => rules.group_reports.version,
            Self::Brigade => rules.group_report_brigade.version,
        }
    }

    fn within_ms(self, rules: &Rules) -> i64 {
        match self {
            Self::LinkJoins => rules.group_link_joins.within_ms,
            Self::Churn => rules.group_churn.within_ms,
            Self::Reports => rules.group_reports.within_ms,
            Self::Brigade => rules.group_report_brigade.within_ms,
        }
    }

    fn judge(self, rules: &Rules, seen: &Figures) -> Judged {
        match self {
            Self::LinkJoins => {
                let rule = &rules.group_link_joins;
                let usual = whole(rule.over_baseline * joins_baseline(rules, seen));
                Judged { observed: seen.joined, threshold: rule.joins.max(usual) }
            }
            Self::Churn => {
                let rule = &rules.group_churn;
                let share = whole(rule.share * f64::from(seen.came));
                let enough = if seen.came < rule.came { u32::MAX } else { rule.left.max(share) };
                Judged { observed: seen.left_again, threshold: enough.saturating_add(usually_left(seen)) }
            }
            Self::Reports => {
                let rule = &rules.group_reports;
                // Below the floor the distribution is not asked.
                let threshold = if seen.counted < rule.reports { rule.reports } else { report_threshold(rules, seen) };
                Judged { observed: seen.counted, threshold }
            }
            Self::Brigade => {
                let found = ArrangedInGroup::of(rules, seen);
                Judged { observed: found.told(), threshold: found.threshold(rules) }
            }
        }
    }

    /// The alert on the fullest window that holds, the earliest of equals.
    fn fullest(self, rules: &Rules, hours: &Hours, subject: &Subject, epoch: i32) -> Option<Alert> {
        let mut best: Option<(Judged, Figures)> = None;
        let (mut first_ms, mut last_ms) = (i64::MAX, i64::MIN);
        for seen in hours.windows(self.within_ms(rules)) {
            let judged = self.judge(rules, &seen);
            if !judged.holds() {
                continue;
            }
            (first_ms, last_ms) = (first_ms.min(seen.start_ms), last_ms.max(seen.end_ms));
            if best.is_none_or(|(fullest, _)| fullest.observed < judged.observed) {
                best = Some((judged, seen));
            }
        }
        let (judged, seen) = best?;
        Some(Alert { first_ms, last_ms, ..self.tell(subject, epoch, rules, judged, &seen) })
    }

    /// What is to be said of an alert that does not hold any more: what its window shows now.
    fn undone(self, rules: &Rules, hours: &Hours, subject: &Subject, epoch: i32, open: &Alert) -> Option<Alert> {
        let seen = hours.ending_at(open.window.end_ms, self.within_ms(rules))?;
        if open.rule_version != self.version(rules) {
            return None;
        }
        let now = self.tell(subject, epoch, rules, self.judge(rules, &seen), &seen);
        Some(Alert {
            severity: "low".to_owned(),
            withdrawn: true,
            explanation: format!("No longer holds, by signals that came late. {}", now.explanation),
            ..now
        })
    }

    fn tell(self, subject: &Subject, epoch: i32, rules: &Rules, judged: Judged, seen: &Figures) -> Alert {
        let Judged { observed, threshold } = judged;
        let over = ratio(f64::from(observed), f64::from(threshold));
        let minutes = self.within_ms(rules) / 60_000;
        let from = clock(seen.start_ms);
        let (mut counter_evidence, mut data_gaps) = (Vec::new(), Vec::new());
        let (severity, baseline, explanation);
        let (mut evidence, mut e_value_log10) = (u64::from(observed), None);
        match self {
            Self::LinkJoins => {
                severity = if over >= 3.0 { "medium" } else { "low" };
                let kind = if seen.is_new { "a new group" } else { "a group" };
                let usual = joins_baseline(rules, seen);
                let factor = ratio(f64::from(observed), usual);
                explanation = format!(
                    "{observed} people joined one group by link within {minutes} minutes from {from} UTC, {factor} times what {kind} usually sees ({usual}); the rule fires at {threshold}."
                );
                baseline = Some(usual);
                counter_evidence.push(format!("{} left in that time", small(seen.left)));
                if seen.is_new {
                    counter_evidence.push("the group was created in that time or in as long a time before".to_owned());
                }
            }
            Self::Churn => {
                severity = match seen.before_is_known {
                    false => "low",
                    true if over >= 3.0 => "high",
                    true => "medium",
                };
                baseline = None;
                evidence = u64::from(seen.came) + u64::from(seen.left);
                let share = f64::from(observed) / f64::from(seen.came.max(1)) * 100.0;
                explanation = format!(
                    "{} members came to one group within {minutes} minutes from {from} UTC, added or by link, and up to {} of them left again in that time, {share:.0} %; the rule fires at {threshold}.",
                    small(seen.came),
                    small(observed)
                );
                counter_evidence.push(format!("{} left in as long a time before", small(seen.left_before)));
                data_gaps.push("no member is known, so who left may be others than who came".to_owned());
                if !seen.before_is_known {
                    data_gaps
                        .push("of the time before only what is of the same day is known: keys change at midnight".to_owned());
                }
            }
            Self::Reports => {
                // Reports alone never raise more than priority: a brigade can make them.
                severity = "low";
                let usual = usual_reports(rules, seen);
                let p = tail(observed, usual, rules.group_reports.shape);
                e_value_log10 = EValue::of_windows(p).map(EValue::log10);
                // Rounded, for it is saved as text and must come back the same.
                baseline = Some(ratio(usual, 1.0));
                explanation = format!(
                    "Reports of one group that came within {minutes} minutes from {from} UTC count as {observed}; {} members came to it in that time and in as long a time before, for whom {usual:.1} are usual, and the rule fires at {threshold}.",
                    small(exposed(seen))
                );
                counter_evidence.push("reports can be made by arrangement, and nothing else was judged".to_owned());
                counter_evidence.extend(together(seen.crowd));
                data_gaps.extend(not_known(seen.unknown));
            }
            Self::Brigade => {
                // It is the group that is attacked.
                severity = "low";
                baseline = None;
                let found = ArrangedInGroup::of(rules, seen);
                explanation = format!(
                    "{} of the reports of one group within {minutes} minutes from {from} UTC {}",
                    small(observed),
                    found.explanation()
                );
                counter_evidence = found.counter_evidence();
                data_gaps
                    .push("who reports is not known, nor whether they ever were in the group or know of each other".to_owned());
                data_gaps.extend(not_known(seen.unknown));
            }
        }
        Alert {
            fingerprint: fingerprint(self.name(), subject, epoch),
            rule: self.name().to_owned(),
            rule_version: self.version(rules),
            severity: severity.to_owned(),
            window: SeenWindow { start_ms: seen.start_ms, end_ms: seen.end_ms },
            observed: u64::from(observed),
            threshold: u64::from(threshold),
            baseline: Baseline { kind: if baseline.is_some() { "segment" } else { "rule" }.to_owned(), value: baseline },
            factor: baseline.map_or(over, |b| ratio(f64::from(observed), b)),
            evidence,
            counter_evidence,
            explanation,
            data_gaps,
            first_ms: seen.start_ms,
            last_ms: seen.end_ms,
            revision: 0,
            withdrawn: false,
            e_value_log10,
            subject: subject.clone(),
        }
    }
}

/// The least whole number that is not below `n`.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(n: f64) -> u32 {
    n.ceil() as u32
}

fn joins_baseline(rules: &Rules, seen: &Figures) -> f64 {
    let baseline = &rules.group_link_joins.segment_baseline;
    if seen.is_new { baseline.new } else { baseline.known }
}

/// Who leaves anyway. Fewer than ten are not told, so they do not move a threshold that is.
fn usually_left(seen: &Figures) -> u32 {
    if seen.left_before < 10 { 0 } else { seen.left_before }
}

/// Who may have found a reason to report: those who came in the window or in as long a time before.
fn exposed(seen: &Figures) -> u32 {
    seen.came.saturating_add(seen.came_before)
}

/// Reports where nothing is wrong. Fewer than ten who came count as ten, so that they cannot be told from the number.
fn usual_reports(rules: &Rules, seen: &Figures) -> f64 {
    let rule = &rules.group_reports;
    rule.null_base + rule.null_rate * f64::from(exposed(seen).max(10))
}

/// Fewest reports, from the floor on, that as many or more of are improbable enough.
fn report_threshold(rules: &Rules, seen: &Figures) -> u32 {
    let rule = &rules.group_reports;
    least_improbable(rule.reports, usual_reports(rules, seen), rule.shape, rule.tail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hours::Moved;

    fn rules() -> Rules {
        Rules::detectors().expect("reviewed text")
    }

    #[test]
    fn the_threshold_of_reports_is_the_least_that_is_improbable_and_grows_with_who_came() {
        let rules = rules();
        let mut before = 0;
        for came in [0, 9, 10, 100, 200, 1_000, 20_000, u32::MAX] {
            let seen = Figures { came, reported: u32::MAX, ..Figures::default() };
            let threshold = report_threshold(&rules, &seen);
            let (usual, rule) = (usual_reports(&rules, &seen), &rules.group_reports);
            assert!(threshold >= rule.reports && threshold >= before, "{came}: {threshold}");
            if threshold < u32::MAX {
                assert!(tail(threshold, usual, rule.shape) <= rule.tail, "{came}: {threshold}");
            }
            assert!(threshold == rule.reports || tail(threshold - 1, usual, rule.shape) > rule.tail, "{came}: {threshold}");
            before = threshold;
        }
        let at = |came| report_threshold(&rules, &Figures { came, ..Figures::default() });
        assert_eq!((at(0), at(9)), (at(10), at(10)), "who came is not told under ten, nor is it by the threshold");
        assert_eq!((at(0), at(200)), (20, 33));
    }

    #[test]
    fn an_alert_saved_as_json_comes_back_the_same() {
        let (rules, subject) = (rules(), keyed("group", &[7; 16], 20_458));
        for came in 0..2_000 {
            let seen = Figures { came, joined: came, left_again: came / 2, reported: came, counted: came, ..Figures::default() };
            for rule in HourRule::ALL {
                let alert = rule.tell(&subject, 20_458, &rules, rule.judge(&rules, &seen), &seen);
                let back: Alert = serde_json::from_str(&serde_json::to_string(&alert).expect("JSON")).expect("an alert");
                assert_eq!(back, alert);
            }
        }
    }

    #[test]
    fn what_speaks_for_a_group_only_raises_the_threshold() {
        let rules = rules();
        let churn = |seen: Figures| HourRule::Churn.judge(&rules, &seen);
        let seen = Figures { came: 100, left_again: 50, ..Figures::default() };
        assert!(churn(seen).holds());
        assert!(!churn(Figures { left_again: 49, ..seen }).holds());
        assert!(!churn(Figures { came: 101, ..seen }).holds());
        assert!(churn(Figures { left_before: 9, ..seen }).holds(), "under ten are not told, so they do not count");
        assert_eq!(churn(Figures { left_before: 10, ..seen }).threshold, 60);
        assert!(!churn(Figures { came: 49, left_again: 49, ..seen }).holds(), "too few came");
        assert!(!churn(Figures { came: 50, left_again: 29, ..seen }).holds(), "too few left");
        let joins = |joined, is_new| HourRule::LinkJoins.judge(&rules, &Figures { joined, is_new, ..Figures::default() }).holds();
        assert!(joins(80, false) && !joins(79, false));
        assert!(joins(250, true) && !joins(249, true));
    }

    #[test]
    fn an_alert_is_what_the_counters_say_and_says_when_they_say_so_no_more() {
        let rules = rules();
        let (mut alerts, mut changed) = (Alerts::new(), Changed::new());
        let mut group = Group { epoch: 20_458, ..Group::default() };
        let mut judge = |group: &mut Group, settled: &Alerts| {
            group_hours(&mut alerts, &mut changed, settled, &rules, &[7; 16], group);
            changed.clear();
            alerts.values().next().cloned()
        };
        let noon = 20_458 * 86_400_000 + 12 * 3_600_000;
        group.hours.count(noon, Moved::Added(60));
        (0..40).for_each(|_| assert!(group.hours.count(noon + 900_000, Moved::Left)));
        let told = judge(&mut group, &Alerts::new()).expect("two thirds left");
        assert!(told.stands() && told.observed == 40 && told.severity == "medium", "{told:?}");
        // Forty more who came, late: forty of a hundred are not half.
        group.hours.count(noon + 1, Moved::Added(40));
        let undone = judge(&mut group, &Alerts::new()).expect("told once more");
        assert!(!undone.stands() && undone.explanation.starts_with("No longer holds"), "{undone:?}");
        assert_eq!((undone.observed, undone.threshold, undone.severity.as_str()), (40, 50, "low"));
        // Ten more who left, late: half again.
        (0..10).for_each(|_| assert!(group.hours.count(noon + 900_001, Moved::Left)));
        let again = judge(&mut group, &Alerts::new()).expect("told");
        assert!(again.stands() && again.observed == 50);
        // What was settled before it was forgotten is not undone by what comes later.
        let settled = Alerts::from([(again.fingerprint.clone(), again.clone())]);
        let mut reborn = Group { epoch: 20_458, ..Group::default() };
        reborn.hours.count(noon + 5 * 3_600_000, Moved::Added(200));
        assert_eq!(judge(&mut reborn, &settled), Some(again));
    }
}
