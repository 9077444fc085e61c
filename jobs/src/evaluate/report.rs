//! What an evaluation came to, counted and told.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde::Serialize;
use starling_integrity::work::Verdicts;

use super::chosen::{self, Chosen};
use super::{Outcome, Planted, Raised, Truth, bytes};
use crate::columns::{Side, lay_out};
use crate::summary::grouped;

/// A share with its exact 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Share {
    hits: u64,
    of: u64,
    value: Option<f64>,
    low: f64,
    high: f64,
}

impl Share {
    pub(super) fn of(hits: u64, of: u64) -> Self {
        let exact = Verdicts { confirmed: hits, dismissed: of.saturating_sub(hits) }.precision();
        let (value, low, high) = exact.map_or((None, 0.0, 1.0), |(value, low, high)| (Some(value), low, high));
        Self { hits, of, value, low, high }
    }

    pub(super) const fn hits(self) -> u64 {
        self.hits
    }

    pub(super) const fn all(self) -> u64 {
        self.of
    }

    pub(super) fn text(self) -> String {
        let Some(value) = self.value else { return "none".to_owned() };
        format!("{:.0} % ({:.0} to {:.0})", 100.0 * value, 100.0 * self.low, 100.0 * self.high)
    }
}

/// One kind of abuser.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Scenario {
    kind: String,
    found: Share,
    /// Found by the rule that is meant to.
    by_expected_rule: u64,
    /// From its first event to the first alert, of those that were found, in milliseconds of event time.
    delay_ms_median: Option<i64>,
    /// Nine in ten of all that were planted were found within this.
    delay_ms_nine_in_ten: Option<i64>,
    delay_ms_largest: Option<i64>,
    /// Of its signals those that came before the first alert, of those that were found.
    share_before_median: Option<f64>,
    share_before_largest: Option<f64>,
    /// Rules that fired, and on how many of them.
    rules: BTreeMap<String, u64>,
}

/// Alerts on somebody who is no abuser.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct False {
    /// The harmless scenario, or `others`.
    who: String,
    rule: String,
    severity: String,
    alerts: u64,
    /// Those of them that were taken back later.
    taken_back: u64,
}

/// The report.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Report {
    scenarios: Vec<Scenario>,
    harmless: u64,
    false_alerts: Vec<False>,
    /// Of alerts, those whose subject is an abuser.
    precision: Share,
    /// The same of alerts above `low`.
    precision_above_low: Share,
    /// User-days of people who are no abusers that had an alert.
    false_by_user_days: Share,
    /// The same of alerts that were not taken back.
    false_that_stand: Share,
    /// Alerts whose numbers a second count of the signals gives again.
    recounted: Share,
    /// Those whose numbers it does not, by rule.
    not_recounted: BTreeMap<String, u64>,
    /// Alerts of which nothing but the arithmetic could be looked at.
    arithmetic_only: u64,
    /// What false-discovery levels choose, and what of it is false.
    chosen: Vec<Chosen>,
    alerts: u64,
    alerts_a_day: f64,
    days: u64,
    frames: u64,
    signals: u64,
    /// On this machine, one core, with what else ran on it.
    signals_a_second: f64,
    /// At the fullest moment.
    actors: u64,
    bytes: u64,
}

/// Counts.
#[allow(clippy::cast_precision_loss)]
pub(super) fn of(truth: &Truth, outcome: &Outcome) -> Report {
    let mut found: BTreeMap<usize, Vec<&Raised>> = BTreeMap::new();
    for raised in &outcome.raised {
        if let Some(place) = raised.place {
            found.entry(place).or_default().push(raised);
        }
    }
    let right = |raised: &Raised| raised.place.is_some_and(|place| place < truth.abusers.len());
    let above_low = |raised: &Raised| raised.alert.severity != "low";
    let count = |test: &dyn Fn(&Raised) -> bool| outcome.raised.iter().filter(|raised| test(raised)).count() as u64;
    // A pseudonym is of one day.
    let of_people = |test: &dyn Fn(&Raised) -> bool| {
        let wronged =
            outcome.raised.iter().filter(|raised| raised.alert.subject.kind == "person" && !right(raised) && test(raised));
        let people = wronged.map(|raised| raised.alert.subject.value.as_str()).collect::<BTreeSet<_>>().len() as u64;
        Share::of(people, outcome.user_days)
    };
    let alerts = outcome.raised.len() as u64;
    let days = outcome.days.len() as u64;
    let largest = &outcome.largest;
    let by_rule = &outcome.recounted.by_rule;
    Report {
        scenarios: scenarios(truth, outcome, &found),
        harmless: truth.harmless.len() as u64,
        false_alerts: false_alerts(truth, outcome),
        precision: Share::of(count(&right), alerts),
        precision_above_low: Share::of(count(&|raised| above_low(raised) && right(raised)), count(&above_low)),
        false_by_user_days: of_people(&|_| true),
        false_that_stand: of_people(&|raised| raised.alert.stands()),
        recounted: Share::of(by_rule.values().map(|(right, _)| right).sum(), by_rule.values().map(|(_, all)| all).sum()),
        not_recounted: by_rule.iter().map(|(rule, (right, all))| (rule.clone(), all - right)).filter(|(_, n)| *n > 0).collect(),
        arithmetic_only: outcome.recounted.arithmetic_only,
        chosen: chosen::of(outcome, &truth.abusers),
        alerts,
        alerts_a_day: alerts as f64 / days.max(1) as f64,
        days,
        frames: outcome.frames,
        signals: outcome.signals,
        signals_a_second: outcome.signals as f64 / outcome.busy.as_secs_f64().max(1e-9),
        actors: (largest.senders + largest.businesses + largest.groups) as u64,
        bytes: bytes(largest) as u64,
    }
}

#[allow(clippy::cast_precision_loss)]
fn scenarios(truth: &Truth, outcome: &Outcome, found: &BTreeMap<usize, Vec<&Raised>>) -> Vec<Scenario> {
    let mut kinds: BTreeMap<&str, Vec<(usize, &Planted)>> = BTreeMap::new();
    for (place, planted) in truth.abusers.iter().enumerate() {
        kinds.entry(&planted.kind).or_default().push((place, planted));
    }
    let of_kind = |(kind, planted): (&str, Vec<(usize, &Planted)>)| {
        let (mut delays, mut shares, mut rules) = (Vec::new(), Vec::new(), BTreeMap::<String, u64>::new());
        let mut expected = 0;
        for (place, planted) in &planted {
            let Some(alerts) = found.get(place) else { continue };
            let Some(first) = alerts.iter().min_by_key(|raised| raised.at_ms) else { continue };
            delays.push((first.at_ms - planted.start_ms).max(0));
            let all = outcome.sent.get(*place).copied().unwrap_or(0);
            shares.push(first.sent_before as f64 / all.max(1) as f64);
            let mut fired: Vec<&str> = alerts.iter().map(|raised| raised.alert.rule.as_str()).collect();
            fired.sort_unstable();
            fired.dedup();
            expected += u64::from(planted.expected_rule.as_deref().is_some_and(|rule| fired.contains(&rule)));
            for rule in fired {
                *rules.entry(rule.to_owned()).or_default() += 1;
            }
        }
        delays.sort_unstable();
        shares.sort_by(f64::total_cmp);
        Scenario {
            kind: kind.to_owned(),
            found: Share::of(delays.len() as u64, planted.len() as u64),
            by_expected_rule: expected,
            delay_ms_median: middle(&delays),
            delay_ms_nine_in_ten: delays.get((planted.len() * 9).div_ceil(10).saturating_sub(1)).copied(),
            delay_ms_largest: delays.last().copied(),
            share_before_median: middle(&shares),
            share_before_largest: shares.last().copied(),
            rules,
        }
    };
    kinds.into_iter().map(of_kind).collect()
}

/// The upper median of sorted values.
fn middle<T: Copy>(sorted: &[T]) -> Option<T> {
    sorted.get(sorted.len() / 2).copied()
}

fn false_alerts(truth: &Truth, outcome: &Outcome) -> Vec<False> {
    let mut counted: BTreeMap<(String, String, String), (u64, u64)> = BTreeMap::new();
    for raised in &outcome.raised {
        let who = match raised.place.map(|place| place.checked_sub(truth.abusers.len())) {
            Some(None) => continue,
            Some(Some(harmless)) => truth.harmless.get(harmless).map_or("others", |planted| planted.kind.as_str()),
            None => "others",
        };
        let alert = &raised.alert;
        let (alerts, taken_back) = counted.entry((who.to_owned(), alert.rule.clone(), alert.severity.clone())).or_default();
        (*alerts, *taken_back) = (*alerts + 1, *taken_back + u64::from(!alert.stands()));
    }
    let told = |((who, rule, severity), (alerts, taken_back))| False { who, rule, severity, alerts, taken_back };
    counted.into_iter().map(told).collect()
}

impl Report {
    /// For a terminal.
    #[allow(clippy::cast_precision_loss)]
    pub(super) fn text(&self) -> String {
        let mut out = String::from("Abusers found\n");
        let (l, r) = (Side::Left, Side::Right);
        let header = [
            ("scenario", l),
            ("found", r),
            ("of", r),
            ("recall, 95 % interval", l),
            ("delay", r),
            ("nine in ten", r),
            ("longest", r),
            ("sent before", r),
            ("most", r),
            ("rules", l),
        ];
        let mut rows = Vec::new();
        for scenario in &self.scenarios {
            let share = |share: Option<f64>| share.map_or("-".to_owned(), |share| format!("{:.0} %", 100.0 * share));
            let rules: Vec<String> = scenario.rules.iter().map(|(rule, n)| format!("{rule} {n}")).collect();
            rows.push(vec![
                scenario.kind.clone(),
                scenario.found.hits.to_string(),
                scenario.found.of.to_string(),
                scenario.found.text(),
                scenario.delay_ms_median.map_or("-".to_owned(), lasting),
                scenario.delay_ms_nine_in_ten.map_or("-".to_owned(), lasting),
                scenario.delay_ms_largest.map_or("-".to_owned(), lasting),
                share(scenario.share_before_median),
                share(scenario.share_before_largest),
                rules.join(", "),
            ]);
        }
        out.push_str(&lay_out(&header, &rows));
        let _ = writeln!(out, "\nAlerts on others");
        if self.false_alerts.is_empty() {
            let _ = writeln!(out, "  none");
        } else {
            let row = |one: &False| {
                let numbers = [one.alerts, one.taken_back].map(|n| n.to_string());
                [one.who.clone(), one.rule.clone(), one.severity.clone()].into_iter().chain(numbers).collect()
            };
            let rows: Vec<_> = self.false_alerts.iter().map(row).collect();
            let header = [("who", l), ("rule", l), ("severity", l), ("alerts", r), ("taken back", r)];
            out.push_str(&lay_out(&header, &rows));
        }
        let (rate, stand) = (self.false_by_user_days, self.false_that_stand);
        let million = 1e6;
        let _ = writeln!(
            out,
            "\nPrecision            {} of {} alerts; above low: {} of {}",
            self.precision.text(),
            grouped(self.alerts),
            self.precision_above_low.text(),
            grouped(self.precision_above_low.of)
        );
        let _ = writeln!(
            out,
            "False alerts         {:.1} ({:.1} to {:.1}) on people per million user-days, of {} user-days, and {:.1} ({:.1} to {:.1}) that were not taken back; {} heavy but harmless were among them",
            million * rate.value.unwrap_or(0.0),
            million * rate.low,
            million * rate.high,
            grouped(rate.of),
            million * stand.value.unwrap_or(0.0),
            million * stand.low,
            million * stand.high,
            grouped(self.harmless)
        );
        out.push_str(&chosen::text(&self.chosen));
        let wrong: Vec<String> = self.not_recounted.iter().map(|(rule, n)| format!("{n} of {rule}")).collect();
        let _ = writeln!(
            out,
            "Explanations         {} of {} alerts say what a second count of the signals gives{}; of {} only the arithmetic could be looked at",
            grouped(self.recounted.hits),
            grouped(self.recounted.of),
            if wrong.is_empty() { String::new() } else { format!(", but for {}", wrong.join(", ")) },
            grouped(self.arithmetic_only)
        );
        let _ = writeln!(out, "Work                 {:.1} alerts a day over {} days", self.alerts_a_day, self.days);
        let _ = writeln!(
            out,
            "State                {} bytes at the fullest moment, filters that all share among them; {} actors had state of their own",
            grouped(self.bytes),
            grouped(self.actors)
        );
        let _ = writeln!(
            out,
            "Speed                {} signals of {} events, {} a second in batches on one core",
            grouped(self.signals),
            grouped(self.frames),
            grouped(self.signals_a_second as u64)
        );
        out
    }
}

/// A time for people.
fn lasting(ms: i64) -> String {
    match ms {
        ..10_000 => format!("{:.1} s", ms as f64 / 1000.0),
        10_000..120_000 => format!("{} s", ms / 1000),
        120_000..7_200_000 => format!("{} min", ms / 60_000),
        _ => format!("{:.1} h", ms as f64 / 3_600_000.0),
    }
}
