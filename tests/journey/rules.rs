//! Written rules: checked, in force beside the detectors, told or not by their standing, and tried on the days that were kept.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::{alerts, fail, run_trace, simulate, starling, succeed};

/// A rule that finds whoever sends, live, and one in shadow.
const RULES: &str = r#"
[busy_business]
version = 1
about = "Businesses that write to many people on a day."
on = "business_day"
when = "reached >= 20 AND sent_authentication < sent"
counts = "reached"
least = 20
severity = "low"
[busy_business.standing]
stage = "live"
daily_alerts = 500
false_discovery = 0.3
[[busy_business.tests]]
says = "many are reached"
given = { sent = 90, reached = 80 }
fires = true
[[busy_business.tests]]
says = "passcodes"
given = { sent = 90, sent_authentication = 90, reached = 80 }
fires = false

[busy_in_shadow]
version = 3
about = "The same, of which nobody is told yet."
on = "business_day"
when = "reached >= 20"
counts = "reached"
least = 20
severity = "low"
[busy_in_shadow.standing]
stage = "shadow"
daily_alerts = 20
false_discovery = 0.3
[[busy_in_shadow.tests]]
says = "many are reached"
given = { reached = 80 }
fires = true
[[busy_in_shadow.tests]]
says = "few are"
given = { reached = 8 }
fires = false

[filling_group]
version = 1
about = "Groups to which many come within an hour."
on = "group_hour"
when = "came > 2 * left"
counts = "came"
least = 30
severity = "low"
[filling_group.standing]
stage = "live"
daily_alerts = 20
false_discovery = 0.3
[[filling_group.tests]]
says = "many come"
given = { came = 40 }
fires = true
[[filling_group.tests]]
says = "as many leave"
given = { came = 40, left = 40 }
fires = false
"#;

fn backtest(data: &Path, settings: &Path, rule: &str, more: &[&str]) -> Value {
    let text = succeed(
        starling()
            .args(["integrity", "backtest", rule, "--json", "--data-dir"])
            .arg(data)
            .arg("--config")
            .arg(settings)
            .args(more),
    );
    serde_json::from_str(&text).expect("JSON")
}

fn settings(dir: &Path, rules: &str) -> (PathBuf, PathBuf) {
    let (file, settings) = (dir.join("rules.toml"), dir.join("starling.toml"));
    std::fs::write(&file, rules).expect("rules");
    std::fs::write(&settings, format!("[integrity]\nrules = \"{}\"\n", file.display())).expect("settings");
    (file, settings)
}

#[test]
fn rules_of_one_s_own_tell_or_keep_and_a_backtest_finds_what_they_found() {
    let dir = tempfile::tempdir().expect("dir");
    let (trace, truth) = simulate(dir.path(), 2_000, 2, 9, &[]);
    let (plain, data) = (dir.path().join("plain"), dir.path().join("data"));
    run_trace(&trace, &plain);
    let (file, settings) = settings(dir.path(), RULES);
    let checked = succeed(starling().args(["integrity", "check"]).arg(&file));
    assert!(checked.contains("busy_in_shadow version 3: 2 tests hold"), "{checked}");
    let listed = succeed(starling().args(["integrity", "rules", "--config"]).arg(&settings));
    for expected in ["bulk_per_minute", "busy_business", "shadow", "<= 30.0 %"] {
        assert!(listed.contains(expected), "{expected}: {listed}");
    }
    succeed(starling().args(["run", "--trace"]).arg(&trace).arg("--data-dir").arg(&data).arg("--config").arg(&settings));

    // Beside what is always found there is what the live rules find, and nothing of the one in shadow.
    let of = |alerts: &[Value], rule: &str| -> Vec<(String, i64)> {
        let mut found: Vec<_> = alerts
            .iter()
            .filter(|alert| alert["rule"] == rule)
            .map(|a| {
                (
                    a["subject"]["value"].as_str().expect("text").to_owned(),
                    a["window"]["start_ms"].as_i64().expect("a time") / 86_400_000,
                )
            })
            .collect();
        found.sort();
        found
    };
    let told = alerts(&data);
    let (busy, filling) = (of(&told, "busy_business"), of(&told, "filling_group"));
    assert!(busy.len() >= 2 && !filling.is_empty(), "{busy:?} {filling:?}");
    assert_eq!(of(&told, "busy_in_shadow"), []);
    assert_eq!(told.len() - busy.len() - filling.len(), alerts(&plain).len());
    let alert = told.iter().find(|alert| alert["rule"] == "busy_business").expect("told");
    let explanation = alert["explanation"].as_str().expect("text");
    assert!(explanation.contains("The rule fires where reached >= 20 AND sent_authentication < sent"), "{explanation}");

    // Of what was kept, the backtest finds the same: by day, and whether it is live or not.
    let live = backtest(&data, &settings, "busy_business", &[]);
    let days = live["days"].as_array().expect("days");
    for day in days {
        let epoch = starling_schemas::ids::EpochId::parse(day["day"].as_str().expect("text")).expect("a day");
        let expected = busy.iter().filter(|(_, found)| *found == i64::from(epoch.0)).count() as u64;
        assert_eq!(
            (day["fired"].as_u64(), day["subjects"].as_u64(), day["told"].as_u64()),
            (Some(expected), Some(expected), Some(expected)),
            "{day}"
        );
        assert_eq!(day["over_allowance"].as_u64(), Some(expected.saturating_sub(500)), "{day}");
        assert!(day["judged"].as_u64() >= Some(expected) && day["median_factor"].as_f64() <= day["largest_factor"].as_f64());
    }
    let fired = |value: &Value| {
        value["days"].as_array().expect("days").iter().map(|day| day["subjects"].as_u64().expect("a count")).sum::<u64>()
    };
    assert_eq!(fired(&live), busy.len() as u64);
    assert!(fired(&backtest(&data, &settings, "busy_in_shadow", &[])) >= fired(&live));
    assert_eq!(fired(&backtest(&data, &settings, "filling_group", &[])), filling.len() as u64);
    // A draft beside the rules in force; a day more is said to be missing.
    let draft = dir.path().join("draft.toml");
    std::fs::write(
        &draft,
        RULES
            .replace("reached >= 20 AND", "reached >= 2000000 AND")
            .replace("reached = 80 }\nfires = true\n[[busy_business", "reached = 6000000 }\nfires = true\n[[busy_business"),
    )
    .expect("draft");
    let drafted = backtest(&data, &settings, "busy_business", &["--rules", draft.to_str().expect("text"), "--days", "14"]);
    assert_eq!(fired(&drafted), 0);
    assert_eq!(drafted["missing"].as_array().map(Vec::len), Some(14 - days.len()), "{drafted}");

    // A verdict is counted beside it.
    let fingerprint = alert["fingerprint"].as_str().expect("text");
    for step in [vec!["take"], vec!["confirm", "--reason", "spam"]] {
        let (name, more) = step.split_first().expect("a name");
        succeed(starling().args(["alerts", name, fingerprint, "--by", "ana"]).args(more).arg("--data-dir").arg(&data));
    }
    let judged = backtest(&data, &settings, "busy_in_shadow", &[]);
    let confirmed: u64 =
        judged["days"].as_array().expect("days").iter().map(|day| day["confirmed"].as_u64().expect("a count")).sum();
    assert_eq!(confirmed, 1);

    // I6, and nobody in it: each reading is in the log before it is shown, and no business is named.
    let log = succeed(starling().args(["audit", "tail", "--lines", "1000", "--data-dir"]).arg(&data));
    assert_eq!(log.matches("backtest").count(), 5, "{log}");
    let text = succeed(
        starling().args(["integrity", "backtest", "busy_business", "--data-dir"]).arg(&data).arg("--config").arg(&settings),
    );
    assert!(text.contains("busy_business, version 1, on business_day, live") && text.contains("Nothing is kept of"), "{text}");
    for (business, _) in &busy {
        assert!(!text.contains(business.as_str()) && !live.to_string().contains(business.as_str()));
    }
    assert!(truth["abusers"].as_array().is_some_and(|abusers| !abusers.is_empty()));
}

#[test]
fn rules_that_cannot_be_used_are_refused_together_wherever_they_are_asked_for() {
    let dir = tempfile::tempdir().expect("dir");
    let wrong = RULES.replace("least = 30", "least = 2").replace("came > 2 * left", "came > 2 * members");
    let (file, settings) = settings(dir.path(), &wrong);
    let told = fail(starling().args(["integrity", "check"]).arg(&file));
    for expected in ["rules.toml: rule `filling_group`: least: at least 10", "when: `members` is no column of group_hour"] {
        assert!(told.contains(expected), "{expected}: {told}");
    }
    for command in [vec!["config", "check"], vec!["integrity", "rules"], vec!["integrity", "check"], vec!["doctor"]] {
        let output = starling()
            .args(&command)
            .arg("--config")
            .arg(&settings)
            .arg("--data-dir")
            .arg(dir.path().join("none"))
            .output()
            .expect("runs");
        let told = crate::support::told(&output);
        assert!(!output.status.success() && told.contains("filling_group"), "{command:?}: {told}");
    }
    // A job does not start, and makes nothing.
    let (trace, _) = simulate(dir.path(), 1_000, 1, 9, &[]);
    let data = dir.path().join("data");
    let told = fail(starling().args(["run", "--trace"]).arg(&trace).arg("--data-dir").arg(&data).arg("--config").arg(&settings));
    assert!(told.contains("integrity.rules") && told.contains("filling_group"), "{told}");
    assert!(fail(starling().args(["integrity", "backtest", "bulk_per_minute", "--data-dir"]).arg(&data)).contains("starling"));
}
