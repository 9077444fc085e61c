//! Values for parameters, from psycopg and over the bare protocol.

use serde_json::{Value, json};

use crate::house::{House, Served};
use crate::support::sql;

/// A statement with parameters, its values, and the same written by hand.
fn pairs() -> Vec<(&'static str, Value, &'static str)> {
    vec![
        (
            "SELECT day, value FROM stats.people_served_daily WHERE day = %s AND value > %s ORDER BY value LIMIT %s",
            json!(["2026-01-05", 3, 5]),
            "SELECT day, value FROM stats.people_served_daily WHERE day = '2026-01-05' AND value > 3 ORDER BY value LIMIT 5",
        ),
        (
            "SELECT count(*) AS n FROM stats.people_served_daily WHERE status IN (%s, %s) OR value IS NULL AND %s",
            json!(["released", "it's", true]),
            "SELECT count(*) AS n FROM stats.people_served_daily WHERE status IN ('released', 'it''s') OR value IS NULL AND true",
        ),
        (
            "SELECT metric, rho * %s AS rho FROM meta.releases WHERE released_at > %s ORDER BY metric, day",
            json!([2.5, "2020-01-01 00:00:00+01"]),
            "SELECT metric, rho * 2.5 AS rho FROM meta.releases WHERE released_at > TIMESTAMP '2019-12-31 23:00:00' ORDER BY metric, day",
        ),
        ("SELECT %s AS a, %s::text AS b, %s::bigint AS c", json!([-7, null, "12"]), "SELECT -7 AS a, NULL AS b, 12 AS c"),
    ]
}

pub(crate) fn values_are_bound_as_drivers_bind_them(house: &House) {
    let served = Served::start(house, &[]);
    let mut client = served.psycopg("ada", &[]);
    for (bound, values, by_hand) in pairs() {
        for binary in [false, true] {
            let expected = client.ask(json!({ "sql": by_hand, "binary": binary }));
            assert!(!expected["rows"].as_array().expect("rows").is_empty(), "{by_hand}: {expected}");
            // Often enough that psycopg prepares it.
            for _ in 0..7 {
                let answer = client.ask(json!({ "sql": bound, "parameters": values, "binary": binary }));
                assert_eq!(answer["rows"], expected["rows"], "{bound}: {answer}");
            }
        }
    }
    // A question over protected rows is paid once, whichever way its values come.
    let question = "SELECT platform, COUNT(DISTINCT person) AS people FROM private.person_day WHERE day = %s AND platform <> %s \
                    GROUP BY platform SETTINGS epsilon = %s";
    let by_hand = question.replacen("%s", "'2026-01-06'", 1).replacen("%s", "'web'", 1).replacen("%s", "0.04", 1);
    let first = client.ask(json!({ "sql": by_hand }));
    assert!(first["notices"].to_string().contains("cost rho"), "{first}");
    // Others pay for other questions meanwhile, and none of them this much.
    let notices = first["notices"].to_string();
    let cost = notices.split("cost rho ").nth(1).and_then(|rest| rest.split(':').next()).expect("a cost");
    let cost: f64 = cost.parse().expect("a number");
    let charges = || {
        let rows = sql(&house.data, "SELECT rho FROM meta.charges WHERE who = 'product'");
        rows.iter().filter(|row| (row["rho"].as_f64().expect("a number") - cost).abs() < 1e-12).count()
    };
    assert_eq!(charges(), 1, "{first}");
    for binary in [false, true] {
        let again = client.ask(json!({ "sql": question, "parameters": ["2026-01-06", "web", 0.04], "binary": binary }));
        assert_eq!(again["rows"], first["rows"], "{again}");
        assert!(again["notices"].to_string().contains("free"), "{again}");
    }
    assert_eq!(charges(), 1);
}

pub(crate) fn what_is_bound_is_a_literal_and_nothing_else(house: &House) {
    let served = Served::start(house, &[]);
    let mut client = served.psycopg("aud", &[]);
    let all = client.ask(json!({ "sql": "SELECT count(*) FROM stats.calls_daily" }))["rows"].clone();
    assert_ne!(all, json!([[0]]));
    for text in
        ["'; DROP TABLE stats.calls_daily; --", "' OR '1' = '1", "1) OR private.person_day IS NULL --", "$1", "\\' OR 1=1 --"]
    {
        for binary in [false, true] {
            let found = "SELECT count(*) FROM stats.calls_daily WHERE status = %s";
            let answer = client.ask(json!({ "sql": found, "parameters": [text], "binary": binary }));
            assert_eq!(answer["rows"], json!([[0]]), "{text}: {answer}");
            let back = client.ask(json!({ "sql": "SELECT %s::text", "parameters": [text], "binary": binary }));
            assert_eq!(back["rows"], json!([[text]]), "{back}");
        }
    }
    // What cannot be read is refused by number, and never shown.
    for (statement, values) in [
        ("SELECT count(*) FROM stats.calls_daily WHERE status = %s AND day = %s", json!(["x", "c4n4ry"])),
        ("SELECT %s LIMIT %s", json!([1, "c4n4ry"])),
    ] {
        let answer = client.ask(json!({ "sql": statement, "parameters": values }));
        assert_eq!(answer["code"], "22P02", "{answer}");
        assert!(answer["message"].as_str().expect("words").starts_with("parameter 2 is not "), "{answer}");
        assert!(!answer.to_string().contains("c4n4ry"), "{answer}");
    }
    // Too long, and of a type that is not taken.
    let long = client.ask(json!({ "sql": "SELECT %s::text", "parameters": ["x".repeat(20_000)] }));
    assert_eq!(long["code"], "54000", "{long}");
    let list = client.ask(json!({ "sql": "SELECT count(*) FROM stats.calls_daily WHERE status = %s", "parameters": [[1, 2]] }));
    assert!(list["code"] == "0A000" && list["message"].as_str().expect("words").contains("parameter 1"), "{list}");
    // A role that may not ask hears it before its values are looked at.
    let denied = client.ask(json!({ "sql": "SELECT count(*) FROM private.person_day WHERE day = %s", "parameters": ["c4n4ry"] }));
    assert!(denied["code"] == "42501" && !denied.to_string().contains("c4n4ry"), "{denied}");
}
