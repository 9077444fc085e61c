//! What an account or a group did in one day: groups created by the dozen, and hits on the operator's lists. Both are functions of what is counted, so
//! they do not depend on the order in which signals come.

use std::collections::BTreeMap;

use starling_schemas::codes::ProfileField;

use super::{Alerts, Changed, clock, keyed, raise, ratio};
use crate::alert::{Alert, Baseline, SeenWindow, fingerprint};
use crate::listed::Listed;
use crate::makers::Maker;
use crate::rules::{GroupCreationBurst, GroupListed, SEVERITIES};

/// An account that created groups by the dozen, if it did. Once the day's number is reached the day is told, and else the fullest hour.
pub(crate) fn maker(alerts: &mut Alerts, changed: &mut Changed, rule: &GroupCreationBurst, person: &[u8; 16], maker: &Maker) {
    let found = maker.found();
    let of_day = found.in_day >= rule.day_groups;
    if !of_day && found.in_hour < rule.hour_groups {
        return;
    }
    let hour_end_ms = found.hour_ms + starling_schemas::ids::HOUR_MS;
    let (observed, threshold, start_ms, end_ms) = if of_day {
        (found.in_day, rule.day_groups, found.first_ms, found.last_ms)
    } else {
        (found.in_hour, rule.hour_groups, found.hour_ms, hour_end_ms)
    };
    let times = |groups: u32, threshold: u32| f64::from(groups) / f64::from(threshold.max(1));
    let most = times(found.in_hour, rule.hour_groups).max(times(found.in_day, rule.day_groups));
    let steps = usize::from(most >= rule.over) + usize::from(most >= 2.0 * rule.over).max(usize::from(maker.is_new));
    let subject = keyed("person", person, maker.epoch);
    let young = if maker.is_new { " The account was of its first week." } else { "" };
    raise(
        alerts,
        changed,
        Alert {
            fingerprint: fingerprint("group_creation_burst", &subject, maker.epoch),
            rule: "group_creation_burst".to_owned(),
            rule_version: rule.version,
            severity: SEVERITIES.get(steps.min(2)).copied().unwrap_or("low").to_owned(),
            window: SeenWindow { start_ms, end_ms },
            observed: observed.into(),
            threshold: threshold.into(),
            baseline: Baseline { kind: "rule".to_owned(), value: None },
            factor: ratio(f64::from(observed), f64::from(threshold)),
            evidence: observed.into(),
            counter_evidence: vec![
                "who sets up a school's classes or a large community creates as many".to_owned(),
                "what became of the groups is not known here".to_owned(),
            ],
            explanation: format!(
                "One account created {} groups on {}, {} of them in the hour from {} UTC; the rule fires at {} in an hour and at {} in a day.{young}",
                found.in_day,
                starling_schemas::ids::EpochId(maker.epoch),
                found.in_hour,
                clock(found.hour_ms),
                rule.hour_groups,
                rule.day_groups
            ),
            data_gaps: vec!["times are known to the hour, and which groups they are is not".to_owned()],
            first_ms: found.first_ms,
            last_ms: found.last_ms,
            revision: 0,
            withdrawn: false,
            e_value_log10: None,
            subject,
        },
    );
}

/// A group of which something is on a list.
pub(crate) fn listed(alerts: &mut Alerts, changed: &mut Changed, rule: &GroupListed, group: &[u8; 16], listed: &Listed) {
    let subject = keyed("group", group, listed.epoch);
    let observed = u32::try_from(listed.hits.len()).unwrap_or(u32::MAX);
    let often = listed.hits.values().fold(0_u32, |sum, often| sum.saturating_add(*often));
    let place = |field: ProfileField| SEVERITIES.iter().position(|known| *known == rule.severity(field)).unwrap_or_default();
    let grave = listed.hits.keys().map(|(field, _)| place(*field)).max().unwrap_or_default();
    let mut by_field: BTreeMap<ProfileField, Vec<&str>> = BTreeMap::new();
    for (field, label) in listed.hits.keys() {
        by_field.entry(*field).or_default().push(label);
    }
    let only_a_name = by_field.keys().all(|field| *field == ProfileField::Name);
    let parts: Vec<String> = by_field
        .iter()
        .map(|(field, labels)| {
            let lists = if labels.len() == 1 { "the list" } else { "the lists" };
            format!("the {field} is on {lists} {}", labels.join(", "))
        })
        .collect();
    raise(
        alerts,
        changed,
        Alert {
            fingerprint: fingerprint("group_listed", &subject, listed.epoch),
            rule: "group_listed".to_owned(),
            rule_version: rule.version,
            severity: SEVERITIES.get(grave).copied().unwrap_or("low").to_owned(),
            window: SeenWindow { start_ms: listed.first_ms, end_ms: listed.last_ms },
            observed: observed.into(),
            threshold: 1,
            baseline: Baseline { kind: "rule".to_owned(), value: None },
            factor: f64::from(observed),
            evidence: often.into(),
            counter_evidence: if only_a_name {
                vec!["groups that have nothing to do with each other have the same name".to_owned()]
            } else {
                Vec::new()
            },
            explanation: format!(
                "Of one group {}, as it was set from {} UTC on; one hit fires. Hashes were compared, and are not kept.",
                parts.join(", and "),
                clock(listed.first_ms)
            ),
            data_gaps: vec!["what is on the list, and whether it is there rightly, is known to who made it".to_owned()],
            first_ms: listed.first_ms,
            last_ms: listed.last_ms,
            revision: 0,
            withdrawn: false,
            e_value_log10: None,
            subject,
        },
    );
}
