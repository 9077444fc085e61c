//! simulate → run --trace → sql, alerts.

use std::collections::{BTreeMap, BTreeSet};

use starling_schemas::codes::{AccountAge, Activity, ClientVersion, PlatformCode, detail_name};
use starling_schemas::ids::{EpochId, Purpose};

use crate::support::{alerts, days, integrity_keys, metrics, people, run_trace, simulate, sql, starling, status, succeed};

#[test]
fn a_trace_becomes_statistics_and_alerts_and_its_keys_die() {
    let dir = tempfile::tempdir().expect("dir");
    let (trace, truth) = simulate(dir.path(), 2_000, 2, 7, &[]);
    let data = dir.path().join("data");
    let keys_of_days = integrity_keys(&data, &["2026-01-04", "2026-01-05", "2026-01-06"]);
    let told = run_trace(&trace, &data);
    assert!(told.contains("they add up"), "{told}");

    // I1: events in = counted + late + refused + quarantined.
    let status = status(&data);
    let outcomes: u64 = status["outcomes"].as_object().expect("outcomes").values().map(|v| v.as_u64().expect("count")).sum();
    assert_eq!(Some(outcomes), status["partitions"][0]["events"].as_u64());
    assert_eq!(Some(outcomes), truth["frames"].as_u64(), "every simulated event is accounted for");
    assert_eq!(status["unbalanced"], serde_json::json!([]));
    let closed = days(&status);
    assert!(closed.len() == 2 && closed.iter().all(|w| w["state"] == "closed"), "{}", status["windows"]);

    // Every pseudonym key has died, with a receipt in a chain that holds. The week and the month go on.
    let keys = status["keys"].as_array().expect("keys");
    let goes_on = |key: &str| ["analytics_week/2026-01-05/", "analytics_month/2025-12-15/"].iter().any(|k| key.starts_with(k));
    let dies = |key: &str| key.ends_with("pseudonym") && !goes_on(key);
    let pseudonym: Vec<_> = keys.iter().filter(|k| k["key"].as_str().is_some_and(dies)).collect();
    assert!(pseudonym.len() >= 4, "{keys:?}");
    assert!(pseudonym.iter().all(|k| k["state"].as_str().is_some_and(|s| s.starts_with("destroyed"))), "{keys:?}");
    let audit = succeed(starling().args(["audit", "verify", "--data-dir"]).arg(&data));
    assert!(audit.contains("the chain holds"), "{audit}");
    let tail = succeed(starling().args(["audit", "tail", "--lines", "500", "--data-dir"]).arg(&data));
    assert!(tail.matches("key_destroyed").count() >= 4, "{tail}");

    // P14: people served, within a few standard deviations of the truth that only the simulator knows.
    for day in ["2026-01-05", "2026-01-06"] {
        let rows = sql(
            &data,
            &format!(
                "SELECT country, platform, value, low, high, stddev, status FROM stats.people_served_daily WHERE day = DATE '{day}'"
            ),
        );
        let released: Vec<_> = rows.iter().filter(|r| r["status"] == "released").collect();
        assert!(!released.is_empty(), "somebody was served on {day}");
        assert!(
            rows.iter().any(|r| r["status"] == "suppressed" && r["value"].is_null()),
            "small groups are told as suppressed, not as zero"
        );
        for row in released {
            let name = format!("{day} {} {}", row["country"], row["platform"]);
            let true_day = truth["days"].as_array().expect("days").iter().find(|d| d["day"] == day).expect("a day of the truth");
            let cell = true_day["people_served"]
                .as_array()
                .expect("cells")
                .iter()
                .find(|c| c["country"] == row["country"] && c["platform"] == row["platform"]);
            let exact = cell.and_then(|c| c["people"].as_f64()).unwrap_or(0.0);
            let (value, stddev) = (row["value"].as_f64().expect("value"), row["stddev"].as_f64().expect("stddev"));
            // So far off is one of these thousands of cells in one of a hundred million runs.
            assert!((value - exact).abs() < 7.0 * stddev, "{name}: {value} against {exact}, stddev {stddev}");
            assert!(row["low"].as_f64() < row["high"].as_f64());
        }
    }
    assert_eq!(sql(&data, "SELECT count(*) AS n FROM meta.budget WHERE spent_rho > limit_rho")[0]["n"], 0);

    // Each planted abuser is found once, by the rule that names it and as the subject it is, and nobody else is.
    let mut planted: Vec<_> = truth["abusers"].as_array().expect("abusers").iter().collect();
    assert!(planted.len() >= 5, "{planted:?}");
    for alert in alerts(&data) {
        let meant =
            planted.iter().position(|p| p["expected_rule"] == alert["rule"] && is_subject(p, &alert["subject"], &keys_of_days));
        let meant = meant.unwrap_or_else(|| panic!("an alert on somebody who was not planted, or a second one: {alert}"));
        planted.remove(meant);
    }
    assert!(planted.is_empty(), "not found: {planted:?}");
}

/// Whether an alert's subject is the planted one, under the key of the day the alert names.
fn is_subject(planted: &serde_json::Value, subject: &serde_json::Value, keys: &[(EpochId, [u8; 32])]) -> bool {
    let name = planted["subject"].as_str().expect("a subject");
    let Some(day) = subject["epoch"].as_str() else { return planted["subject_kind"] == "business" && subject["value"] == name };
    let Some((epoch, key)) = keys.iter().find(|(epoch, _)| epoch.to_string() == day) else { return false };
    let keyed = if planted["subject_kind"] == "group" {
        let group: Vec<u8> = (0..name.len()).step_by(2).map(|i| u8::from_str_radix(&name[i..i + 2], 16).expect("hex")).collect();
        starling_minimize::keyed_group(&group, key, *epoch)
    } else {
        starling_minimize::keyed_subject(name, key, Purpose::Integrity, *epoch).expect("a number")
    };
    let hex: String = keyed.iter().map(|b| format!("{b:02x}")).collect();
    subject["value"] == hex.as_str()
}

/// Before any noise: what the person tables say is what the simulator handed out.
#[test]
fn person_rows_hold_every_detail_version_and_account_age_that_was_sent() {
    let dir = tempfile::tempdir().expect("dir");
    let (trace, truth) = simulate(dir.path(), 1_500, 2, 5, &[]);
    let data = dir.path().join("data");
    run_trace(&trace, &data);
    let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
    let days = people(&data);
    assert_eq!(days.len(), 2);
    for (day, people) in days {
        let mut activities: BTreeMap<_, u64> = BTreeMap::new();
        let mut versions: BTreeMap<_, u64> = BTreeMap::new();
        for person in people {
            let mut theirs = BTreeSet::new();
            for (_, platform, activity, version, detail, account, events, _) in person {
                let activity = Activity::from_code(activity).expect("listed");
                let account = AccountAge::from_code(account).expect("listed");
                let kind = (activity.name().to_owned(), detail_name(activity, detail).to_owned(), account.name().to_owned());
                *activities.entry(kind).or_default() += u64::from(events);
                let platform = PlatformCode::from_code(platform).expect("listed").name().to_owned();
                theirs.extend(activity.is_active().then(|| (platform, ClientVersion::from_code(version).to_string())));
            }
            theirs.into_iter().for_each(|version| *versions.entry(version).or_default() += 1);
        }
        let told = truth["days"].as_array().expect("days").iter().find(|told| told["day"] == *day).expect("a day of the truth");
        let rows = |name: &str| told[name].as_array().expect("rows").clone();
        let count = |row: &serde_json::Value, name: &str| row[name].as_u64().expect("a count");
        let expected: BTreeMap<_, u64> = rows("activities")
            .iter()
            .map(|r| ((text(&r["activity"]), text(&r["detail"]), text(&r["account"])), count(r, "events")))
            .collect();
        assert_eq!(activities, expected, "{day}");
        let expected: BTreeMap<_, u64> =
            rows("versions").iter().map(|r| ((text(&r["platform"]), text(&r["version"])), count(r, "people"))).collect();
        assert_eq!(versions, expected, "{day}");
        assert!(activities.len() > 60 && versions.len() > 12, "{} {}", activities.len(), versions.len());
    }
}

#[test]
fn i3_the_same_trace_taken_twice_changes_nothing() {
    let dir = tempfile::tempdir().expect("dir");
    let (trace, _) = simulate(dir.path(), 1_000, 1, 3, &[]);
    let data = dir.path().join("data");
    run_trace(&trace, &data);
    let question = "SELECT * FROM stats.people_served_daily ORDER BY country, platform";
    let (first, rows, spent) = (sql(&data, question), people(&data), sql(&data, "SELECT * FROM meta.budget"));
    run_trace(&trace, &data);
    assert_eq!(sql(&data, question), first, "one draw for ever");
    assert_eq!(people(&data), rows);
    assert_eq!(sql(&data, "SELECT * FROM meta.budget"), spent, "nothing is charged twice");
}

#[test]
fn simulated_traffic_is_the_same_for_the_same_seed() {
    let (one, two, other) =
        (tempfile::tempdir().expect("dir"), tempfile::tempdir().expect("dir"), tempfile::tempdir().expect("dir"));
    let bytes = |dir: &std::path::Path, seed| std::fs::read(simulate(dir, 1_000, 1, seed, &[]).0).expect("trace");
    let first = bytes(one.path(), 5);
    assert_eq!(first, bytes(two.path(), 5));
    assert_ne!(first, bytes(other.path(), 6));
}

#[test]
fn two_recordings_of_one_name_are_both_taken_in() {
    let (one, two) = (tempfile::tempdir().expect("dir"), tempfile::tempdir().expect("dir"));
    let data = one.path().join("data");
    let (first, first_truth) = simulate(one.path(), 1_000, 1, 3, &[]);
    let (second, second_truth) = simulate(two.path(), 1_000, 1, 4, &["--start", "2026-01-06"]);
    assert_eq!(first.file_name(), second.file_name());
    run_trace(&first, &data);
    run_trace(&second, &data);
    let outcomes = status(&data)["outcomes"].clone();
    let sum: u64 = outcomes.as_object().expect("outcomes").values().filter_map(serde_json::Value::as_u64).sum();
    assert_eq!(Some(sum), Some(first_truth["frames"].as_u64().expect("n") + second_truth["frames"].as_u64().expect("n")));
    assert_eq!(outcomes.get("late"), None, "{outcomes}");
    assert_eq!(sql(&data, "SELECT count(*) AS n FROM meta.releases")[0]["n"], 2 * metrics());
}
