//! What the false-discovery level of the settings chooses of the alerts there are, and what verdicts say of it: stated and observed, apart.
//!
//! **Comes in:** alerts as they stand, told and kept, what was tested, and verdicts. **Goes out:** for each version of a rule with e-values, of the alerts that
//! are chosen how many were judged false. The level is of the moment ([`evidence`](starling_integrity::evidence)); it decides of no alert whether it is told.

use std::collections::BTreeMap;

use starling_integrity::Alert;
use starling_integrity::evidence::{self, TestedDays};
use starling_integrity::work::Verdicts;
use starling_schemas::chosen::Found;

use crate::desk;
use crate::home::Home;

/// Kept findings read at one time.
const PAGE: u32 = 1_000;

/// What is chosen of a version of a rule.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Chosen {
    /// The stated level.
    pub stated: f64,
    /// Verdicts on what is chosen at it.
    pub verdicts: Verdicts,
    /// What is chosen and not judged yet.
    pub waiting: u64,
    /// Alerts that have an e-value, stand, and are not chosen.
    pub others: u64,
}

impl Chosen {
    /// In words.
    #[must_use]
    pub fn says(&self) -> String {
        let Self { stated, verdicts, waiting, others } = self;
        let observed = verdicts.false_share().map_or_else(
            || "none judged yet".to_owned(),
            |(share, low, high)| {
                let (judged, wrong) = (verdicts.all(), verdicts.dismissed);
                format!("{wrong} of {judged} judged false, {:.1} % ({:.1} to {:.1})", 100.0 * share, 100.0 * low, 100.0 * high)
            },
        );
        format!("at {:.1} %: {observed}; {waiting} not judged, {others} not chosen", 100.0 * stated)
    }
}

/// Alerts with e-values, as they are read.
#[derive(Debug, Default)]
pub struct Choosing {
    alerts: Vec<(Alert, Option<Told>)>,
}

/// A version of a rule that told, and the verdict.
#[derive(Debug)]
struct Told {
    rule: String,
    version: u32,
    abuse: Option<bool>,
}

impl Choosing {
    /// Takes in an alert that a version of a rule, by its name of now, told, and what it was judged to be.
    pub fn told(&mut self, rule: &str, version: u32, alert: &Alert, abuse: Option<bool>) {
        if evidence::found(alert).is_some() {
            self.alerts.push((alert.clone(), Some(Told { rule: rule.to_owned(), version, abuse })));
        }
    }

    /// Chooses among them, those that are kept and all that was tested.
    ///
    /// # Errors
    /// When the metastore cannot be read.
    pub async fn choose(mut self, home: &Home) -> anyhow::Result<BTreeMap<(String, u32), Chosen>> {
        let mut after = 0;
        loop {
            let kept = desk::kept_page(home, after, None, PAGE).await?;
            let Some(last) = kept.last() else { break };
            after = last.record.alert.position;
            self.alerts.extend(kept.into_iter().map(|entry| (entry.alert, None)));
        }
        let tested = TestedDays::read(&home.metastore.integrity_tested().await?);
        let tested =
            tested.ok_or_else(|| anyhow::anyhow!("what was tested is no JSON in the metastore: restore it from a backup"))?;
        Ok(self.among(home.config.integrity.false_discovery, |kind, day| tested.of(kind, day)))
    }

    fn among(&self, stated: f64, tested: impl Fn(&str, i32) -> Option<u64>) -> BTreeMap<(String, u32), Chosen> {
        // What was told while it was read is among what is kept, too.
        let found: BTreeMap<&str, Found<'_>> =
            self.alerts.iter().filter_map(|(alert, _)| evidence::found(alert)).map(|one| (one.fingerprint, one)).collect();
        let levels = evidence::chosen(found.into_values(), tested);
        let mut rules = BTreeMap::new();
        for (alert, told) in &self.alerts {
            let Some(told) = told else { continue };
            let nothing = Chosen { stated, verdicts: Verdicts::default(), waiting: 0, others: 0 };
            let chosen = rules.entry((told.rule.clone(), told.version)).or_insert(nothing);
            match told.abuse {
                _ if levels.get(&alert.fingerprint).is_none_or(|level| *level > stated) => chosen.others += 1,
                Some(abuse) => chosen.verdicts.add(abuse),
                None => chosen.waiting += 1,
            }
        }
        rules
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(fingerprint: &str, e_value_log10: f64) -> Alert {
        let text = serde_json::json!({
            "fingerprint": fingerprint, "rule": "slow_bulk", "rule_version": 1, "severity": "medium",
            "subject": { "kind": "person", "value": fingerprint, "epoch": "2026-01-05" }, "window": { "start_ms": 0, "end_ms": 1 },
            "observed": 50, "threshold": 50, "baseline": { "kind": "segment", "value": null }, "factor": 1.0, "evidence": 50,
            "counter_evidence": [], "explanation": "", "data_gaps": [], "first_ms": 0, "last_ms": 1, "revision": 1,
            "e_value_log10": e_value_log10,
        });
        serde_json::from_value(text).expect("an alert")
    }

    #[test]
    fn verdicts_on_what_is_chosen_are_told_apart_from_those_on_what_is_not() {
        let mut choosing = Choosing::default();
        for (n, (e, abuse)) in [(6.0, Some(true)), (6.0, Some(false)), (6.0, None), (2.0, Some(false))].into_iter().enumerate() {
            choosing.told("slow_bulk", 1, &alert(&n.to_string(), e), abuse);
        }
        // One that is kept makes it easier for all.
        choosing.alerts.push((alert("kept", 6.0), None));
        let key = ("slow_bulk".to_owned(), 1);
        let at = |stated: f64, tested: u64| choosing.among(stated, |_, _| Some(tested))[&key];
        // 100,000 / (4 × 10^6 / 2) is a twentieth.
        let (chosen, none) = (at(0.05, 99_000), at(0.05, 101_000));
        assert_eq!((chosen.verdicts, chosen.waiting, chosen.others), (Verdicts { confirmed: 1, dismissed: 1 }, 1, 1));
        assert_eq!((none.verdicts.all(), none.waiting, none.others), (0, 0, 4));
        assert_eq!(chosen.says(), "at 5.0 %: 1 of 2 judged false, 50.0 % (1.3 to 98.7); 1 not judged, 1 not chosen");
        assert_eq!(none.says(), "at 5.0 %: none judged yet; 0 not judged, 4 not chosen");
        let mut limit = Choosing::default();
        limit.told("bulk_per_minute", 1, &Alert { e_value_log10: None, ..alert("a", 1.0) }, Some(true));
        assert!(limit.among(0.05, |_, _| Some(1)).is_empty(), "a limit is chosen by nothing");
    }
}
