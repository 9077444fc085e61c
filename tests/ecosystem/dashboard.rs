//! The product dashboard: every question in it is asked at the PostgreSQL door, with what Grafana would put in for its macros and variables.

use serde_json::{Value, json};

use crate::Add;
use crate::house::{Served, house};
use crate::support::workspace;

pub(crate) fn add(add: &mut Add<'_>) {
    let psycopg = || crate::python("pg_door/requirements.txt").map(drop);
    add("every_question_of_the_product_dashboard_is_answered", &psycopg, every_question_of_the_product_dashboard_is_answered);
}

/// Grafana's name for a column of moments, without a time zone.
const TIMESTAMP: i64 = 1114;

fn every_question_of_the_product_dashboard_is_answered() {
    let text = std::fs::read_to_string(workspace().join("jobs/deploy/grafana-product.json")).expect("dashboard");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let served = Served::start(house(), &[]);
    // Whoever may read no protected row.
    let mut client = served.psycopg("eng", &[]);
    let filled = |sql: &Value| {
        let sql = sql.as_str().expect("a question");
        // 2026-01-04 and 2026-01-08, in UTC.
        let sql = sql.replace("$__unixEpochFrom()", "1767484800").replace("$__unixEpochTo()", "1767830400");
        let sql = sql.replace("$country", "IN").replace("$platform", "android");
        assert!(!sql.contains('$'), "{sql}");
        sql
    };
    let mut lists = 0;
    for variable in dashboard["templating"]["list"].as_array().expect("variables").iter().filter(|v| v["type"] == "query") {
        let answer = client.ask(json!({ "sql": filled(&variable["query"]) }));
        let chosen = json!([variable["current"]["value"]]);
        assert!(answer["rows"].as_array().expect("rows").contains(&chosen), "{variable}: {answer}");
        lists += 1;
    }
    let panels = dashboard["panels"].as_array().expect("panels");
    let (mut asked, mut bands, mut with_values) = (0, 0, 0);
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let title = panel["title"].as_str().expect("a title");
        assert!(panel["description"].as_str().is_some_and(|text| !text.is_empty()), "{title}");
        assert!(panel["fieldConfig"]["defaults"]["unit"].as_str().is_some_and(|unit| !unit.is_empty()), "{title}");
        for target in panel["targets"].as_array().expect("targets") {
            let sql = filled(&target["rawSql"]);
            assert!(!sql.contains("private."), "{title}: what is shown costs nothing");
            for binary in [false, true] {
                let answer = client.ask(json!({ "sql": sql, "binary": binary }));
                let rows = answer["rows"].as_array().unwrap_or_else(|| panic!("{title}: {sql}\n{answer}"));
                if target["format"] == "time_series" {
                    assert!(sql.starts_with("SELECT CAST(day AS TIMESTAMP) AS \"time\""), "{title}");
                    assert_eq!(answer["types"][0], TIMESTAMP, "{title}");
                }
                let overrides = panel["fieldConfig"]["overrides"].as_array().expect("overrides");
                if !overrides.is_empty() {
                    let names: Vec<&Value> = overrides.iter().map(|rule| &rule["matcher"]["options"]).collect();
                    assert_eq!(names, ["low", "high"], "{title}");
                    assert!(sql.contains(" low") && sql.contains(" high"), "{title}: {sql}");
                    for row in rows {
                        let number = |at: usize| row[at].as_f64();
                        let [value, low, high] = [number(1), number(2), number(3)];
                        assert_eq!((value.is_some(), value.is_some()), (low.is_some(), high.is_some()), "{title}: {row}");
                        assert!(low <= value && value <= high, "{title}: {row}");
                        with_values += usize::from(value.is_some());
                    }
                    bands += 1;
                }
            }
            asked += 1;
        }
    }
    assert!(lists == 2 && asked > 18 && bands > 20 && with_values > 4, "{lists} {asked} {bands} {with_values}");
}
