//! Weeks and months: from nine days of events to people served in one, and what is left of them then.

use crate::support::{days, files_below, people, run_trace, simulate, sql, starling, status, succeed};

#[test]
fn p14_people_served_in_a_week_or_month_are_those_the_truth_knows_and_nothing_else_of_them_is_kept() {
    let dir = tempfile::tempdir().expect("dir");
    let (trace, truth) = simulate(dir.path(), 1_500, 9, 5, &[]);
    let data = dir.path().join("data");
    run_trace(&trace, &data);
    let truth_of = |window: &str| {
        let long = truth["long"].as_array().expect("weeks and months");
        long.iter().find(|w| w["window"] == window).and_then(|w| w["people"].as_u64()).expect("a true number")
    };
    let served = |day: &serde_json::Value| {
        day["people_served"].as_array().expect("cells").iter().filter_map(|cell| cell["people"].as_u64()).sum::<u64>()
    };
    let by_day: u64 = truth["days"].as_array().expect("days").iter().take(7).map(served).sum();
    let true_week = truth_of("week-2026-01-05");
    assert!(by_day > 3 * true_week, "most people are there on most days: {by_day} and {true_week}");

    // Nine days from 2026-01-05: a week and the last one of a month are over, and others began on the Monday after.
    let told = status(&data);
    assert_eq!(days(&told).len(), 9);
    let state = |name: &str| {
        let windows = told["windows"].as_array().expect("windows").iter();
        windows.filter(|w| w["window"] == name).map(|w| w["state"].clone()).collect::<Vec<_>>()
    };
    let key = |name: &str| {
        let keys = told["keys"].as_array().expect("keys").iter();
        keys.filter(|k| k["key"] == name).map(|k| k["state"].as_str().expect("text").to_owned()).collect::<Vec<_>>()
    };
    for (over, goes_on, purpose, metric, dataset) in [
        ("week-2026-01-05", "week-2026-01-12", "analytics_week", "people_served_weekly", "person_week"),
        ("month-2025-12-15", "month-2026-01-12", "analytics_month", "people_served_monthly", "person_month"),
    ] {
        // The rows hold each of them once, and the pseudonyms' key is gone.
        let (exact, first) = (truth_of(over), &over[over.len() - 10..]);
        assert_eq!(people(&data)[over].len() as u64, exact, "{over}");
        assert_eq!((state(over), state(goes_on)), (vec!["closed".into()], vec!["open".into()]));
        assert!(key(&format!("{purpose}/{first}/pseudonym"))[0].starts_with("destroyed"), "{}", told["keys"]);
        assert_eq!(key(&format!("{purpose}/2026-01-12/pseudonym")), ["alive"]);
        // Of the one that goes on nothing says on which of the days somebody was there.
        let left = files_below(&data.join("files").join("segments").join(goes_on));
        assert!(left.len() == 1 && left[0].display().to_string().contains("/gathered-"), "{left:?}");

        // What is released of it, and what is asked.
        let released = sql(&data, &format!("SELECT day, value, low, high, status FROM stats.{metric}"));
        let [row] = &released[..] else { panic!("one is over: {released:?}") };
        assert_eq!((row["day"].as_str(), row["status"].as_str()), (Some(first), Some("released")));
        let exact = f64::from(u32::try_from(exact).expect("small"));
        let sigma = (1.0_f64 / (2.0 * 0.0003)).sqrt();
        let value = row["value"].as_f64().expect("a value");
        assert!((value - exact).abs() < 6.0 * sigma, "{value} of {exact}");
        assert!(row["low"].as_f64() < Some(value) && Some(value) < row["high"].as_f64());
        let question = format!("SELECT COUNT(DISTINCT person) AS people FROM private.{dataset} WHERE day = DATE '{first}'");
        let asked = sql(&data, &question);
        let sigma = (1.0_f64 / (2.0 * 0.00005)).sqrt();
        assert!((asked[0]["people"].as_f64().expect("a number") - exact).abs() < 6.0 * sigma, "{asked:?} of {exact}");
    }

    // There is nothing else of them that could be asked.
    let dimension = "SELECT country, COUNT(DISTINCT person) AS people FROM private.person_week WHERE day = DATE '2026-01-05' GROUP BY country";
    let refused = starling().args(["sql", "--data-dir"]).arg(&data).arg(dimension).output().expect("runs");
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && text.contains("country"), "{text}");
    let budget = sql(&data, "SELECT dataset, day, charges FROM meta.budget WHERE dataset <> 'person_day' ORDER BY dataset, day");
    let charged: Vec<_> = budget.iter().map(|b| (b["dataset"].as_str(), b["day"].as_str(), b["charges"].as_u64())).collect();
    assert_eq!(
        charged,
        [(Some("person_month"), Some("2025-12-15"), Some(2)), (Some("person_week"), Some("2026-01-05"), Some(2))]
    );
    let told = succeed(starling().args(["budget", "--data-dir"]).arg(&data));
    assert!(told.contains("person_week") && told.contains("person_month"), "{told}");
}
