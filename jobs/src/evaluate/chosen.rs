//! What is chosen under a stated false-discovery level, held against the truth: how many were promised to be false at most, and how many are.
//!
//! The level is of the whole trace: each alert as it stood at the end, among all that was tested of its kind on its day
//! ([`evidence`](starling_integrity::evidence)). Of days more than 40 before the last it is not known any more how many were tested, so nothing of them is chosen.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde::Serialize;

use super::report::Share;
use super::{Outcome, Planted, Raised};
use crate::summary::grouped;

/// Levels that are reported.
const LEVELS: [f64; 3] = [0.01, 0.05, 0.1];

/// What one level chooses.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Chosen {
    /// Share of false ones among the chosen that is promised at most, on average.
    promised: f64,
    /// The share that is: those of the chosen whose subject is no abuser. Its interval takes alerts for independent, which those of one habit or one day are not.
    realised: Share,
    /// Alerts with an e-value that stand.
    found: u64,
    /// Those on abusers that are not chosen, of those on abusers.
    left_out: Share,
    /// Abusers who were found, of whom nothing is chosen and no limit told, by scenario.
    lost: BTreeMap<String, u64>,
    /// Chosen and found, by rule.
    rules: BTreeMap<String, (u64, u64)>,
}

/// Holds each level against the truth.
pub(super) fn of(outcome: &Outcome, abusers: &[Planted]) -> Vec<Chosen> {
    LEVELS.iter().map(|level| at(outcome, abusers, *level)).collect()
}

fn at(outcome: &Outcome, abusers: &[Planted], promised: f64) -> Chosen {
    let abuser = |raised: &Raised| raised.place.filter(|place| *place < abusers.len());
    let (mut chosen, mut wrong, mut found, mut right, mut left_out) = (0, 0, 0, 0, 0);
    let (mut rules, mut before, mut after) = (BTreeMap::<String, (u64, u64)>::new(), BTreeSet::new(), BTreeSet::new());
    for raised in &outcome.raised {
        let place = abuser(raised);
        before.extend(place);
        let Some(level) = outcome.levels.get(&raised.alert.fingerprint) else {
            // What has an e-value and was taken back is not found by it.
            after.extend(place.filter(|_| raised.alert.e_value_log10.is_none()));
            continue;
        };
        let is_chosen = *level <= promised;
        let by_rule = rules.entry(raised.alert.rule.clone()).or_default();
        *by_rule = (by_rule.0 + u64::from(is_chosen), by_rule.1 + 1);
        (found, right) = (found + 1, right + u64::from(place.is_some()));
        if is_chosen {
            (chosen, wrong) = (chosen + 1, wrong + u64::from(place.is_none()));
            after.extend(place);
        } else {
            left_out += u64::from(place.is_some());
        }
    }
    let mut lost = BTreeMap::new();
    for planted in before.difference(&after).filter_map(|place| abusers.get(*place)) {
        *lost.entry(planted.kind.clone()).or_default() += 1;
    }
    Chosen { promised, realised: Share::of(wrong, chosen), found, left_out: Share::of(left_out, right), lost, rules }
}

/// For a terminal.
pub(super) fn text(chosen: &[Chosen]) -> String {
    let mut out = String::new();
    for one in chosen {
        let _ = writeln!(
            out,
            "Chosen at {:<10} {} of {} alerts with an e-value; promised false at most {:.0} %, realised {}; of those on abusers {} left out, and with them {} abusers",
            format!("{:.0} %", 100.0 * one.promised),
            grouped(one.realised.all()),
            grouped(one.found),
            100.0 * one.promised,
            one.realised.text(),
            grouped(one.left_out.hits()),
            grouped(one.lost.values().sum())
        );
    }
    out
}
