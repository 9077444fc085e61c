//! I9, I2, I3: killed at every named point, started again, and nothing is different.

use std::path::{Path, PathBuf};

use crate::support::{
    accounts, bill, comparable_alerts, metrics, people, run_trace, simulate, sql, starling_on, status, succeed, told,
    with_known_keys,
};

/// A settings file that makes many small ranges, so that each point is passed often.
const SMALL_RANGES: &str = "[ingest]\nmax_events = 2000\n[signals]\ncommit_every_ms = 20\n";

/// What is closed after it.
const WINDOWS: [&str; 4] = ["2026-01-11", "2026-01-12", "month-2025-12-15", "week-2026-01-05"];

#[test]
fn i9_a_run_killed_at_any_named_point_ends_as_if_it_had_not_been() {
    killed_at_every_named_point(|_| ());
}

/// `place` may give each data directory a metastore of another kind. The undisturbed run is always on SQLite.
pub(crate) fn killed_at_every_named_point(place: impl Fn(&Path)) {
    let dir = tempfile::tempdir().expect("dir");
    // A Sunday and a Monday: a week and a month end, and others begin.
    let (trace, _) = simulate(dir.path(), 1_000, 2, 11, &["--bad", "0.01", "--start", "2026-01-11"]);
    let settings = dir.path().join("starling.toml");
    std::fs::write(&settings, SMALL_RANGES).expect("settings");
    let undisturbed = dir.path().join("undisturbed");
    with_known_keys(&undisturbed);
    run_trace(&trace, &undisturbed);
    let (expected_people, expected_alerts) = (people(&undisturbed), comparable_alerts(&undisturbed));
    assert!(!expected_alerts.is_empty() && expected_people.keys().eq(WINDOWS));
    let expected_bill = bill(&undisturbed, &[]);
    let expected_accounts = accounts(&undisturbed);
    assert!(expected_accounts.iter().any(|account| account["told_on"] == "2026-01-12"), "one moves: {expected_accounts:?}");
    // Facts of businesses' days, of which the number of windows is told.
    let kept = |data: &Path| {
        succeed(starling_on(data).args(["integrity", "backtest", "climbing_unanswered", "--json", "--data-dir"]).arg(data))
    };
    let expected_kept = kept(&undisturbed);
    assert!(expected_kept.contains("2026-01-12"), "{expected_kept}");
    let expected_outcomes = status(&undisturbed)["outcomes"].clone();

    let mut never_reached = Vec::new();
    for point in starling_store::killpoint::NAMES {
        // The third time of those that are passed often, the first of the others.
        let often = ["after_plan", "after_process", "after_commit", "after_segment_written"].contains(point);
        let at = if often { format!("{point}:3") } else { (*point).to_owned() };
        let data = dir.path().join(point);
        with_known_keys(&data);
        place(&data);
        let killed = starling_on(&data)
            .args(["run", "--trace"])
            .arg(&trace)
            .arg("--data-dir")
            .arg(&data)
            .arg("--config")
            .arg(&settings)
            .env("STARLING_KILL_AT", &at)
            .output()
            .expect("starling starts");
        if killed.status.code().is_some() {
            never_reached.push(*point);
            continue;
        }
        let spent = spent(&data);
        let again = starling_on(&data)
            .args(["run", "--trace"])
            .arg(&trace)
            .arg("--data-dir")
            .arg(&data)
            .arg("--config")
            .arg(&settings)
            .output()
            .expect("starts");
        assert!(again.status.success(), "after a kill at {point}: {}", told(&again));
        assert_eq!(people(&data), expected_people, "person rows after a kill at {point}");
        assert_eq!(comparable_alerts(&data), expected_alerts, "alerts after a kill at {point}");
        assert_eq!(status(&data)["outcomes"], expected_outcomes, "I1 after a kill at {point}");
        assert_eq!(kept(&data), expected_kept, "facts after a kill at {point}");
        assert_eq!(bill(&data, &[]), expected_bill, "P35 after a kill at {point}");
        assert_eq!(accounts(&data), expected_accounts, "P34 after a kill at {point}");
        let after = sql(&data, "SELECT dataset, day, spent_rho, charges FROM meta.budget");
        for before in &spent {
            let same = |b: &&serde_json::Value| (&b["dataset"], &b["day"]) == (&before["dataset"], &before["day"]);
            let after = after.iter().find(same).and_then(|b| b["spent_rho"].as_f64());
            assert!(after >= before["spent_rho"].as_f64(), "I2: spent budget never falls");
        }
        let charges = |b: &serde_json::Value| if b["dataset"] == "person_day" { metrics() } else { 1 };
        assert!(
            after.len() == WINDOWS.len() && after.iter().all(|b| b["charges"] == charges(b)),
            "each metric is charged once: {after:?}"
        );
        let once = sql(&data, "SELECT count(*) AS n, count(DISTINCT metric || CAST(day AS VARCHAR)) AS d FROM meta.releases");
        let released = 2 * metrics() + 2;
        assert_eq!((&once[0]["n"], &once[0]["d"]), (&released.into(), &released.into()), "I3 after a kill at {point}");
        assert_eq!(leftover_segments(&data), [] as [PathBuf; 0], "segments after a kill at {point}");
    }
    assert!(never_reached.is_empty(), "points that were never passed prove nothing: {never_reached:?}");
}

fn spent(data: &Path) -> Vec<serde_json::Value> {
    let question = "SELECT dataset, day, spent_rho FROM meta.budget";
    let output = starling_on(data).args(["sql", "--data-dir"]).arg(data).args(["--format", "json", question]).output();
    let output = output.expect("starts");
    if !output.status.success() {
        // Killed before there was a metastore.
        assert!(told(&output).contains("no Starling data here yet"), "{}", told(&output));
        return Vec::new();
    }
    String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("JSON lines")).collect()
}

/// Segments beside the one of the week and the one of the month that go on.
fn leftover_segments(data: &Path) -> Vec<PathBuf> {
    let mut left = crate::support::files_below(&data.join("files").join("segments"));
    let goes_on = |path: &PathBuf| path.display().to_string().contains("-2026-01-12/gathered-2026-01-12-");
    assert_eq!(left.iter().filter(|path| goes_on(path)).count(), 2, "{left:?}");
    left.retain(|path| !goes_on(path));
    left
}
