//! Errors as PostgreSQL's clients show them: message, detail and hint, and no value in any of them.

use serde_json::json;

use crate::house::{House, Served};

pub(crate) fn an_error_has_a_detail_that_tells_its_kind_and_what_was_charged(house: &House) {
    let served = Served::start(house, &[]);
    // As a person has it.
    let private = "SELECT count(*) FROM private.person_day WHERE country = 'c4n4ry'";
    let (out, err) = served.psql("aud", &["-v", "VERBOSITY=verbose", "-c", private]);
    let lines: Vec<&str> = err.lines().map(str::trim_end).collect();
    assert!(out.is_empty() && lines.len() >= 3, "{out}{err}");
    assert_eq!(lines[0], "ERROR:  42501: role auditor may not read private.*");
    assert_eq!(lines[1], "DETAIL:  insufficient_privilege: it was refused as it is written; nothing was charged");
    assert_eq!(lines[2], "HINT:  it reads stats.*, meta.*; private.* is for role product");
    let (_, err) = served.psql("aud", &["-v", "VERBOSITY=terse", "-c", private]);
    assert_eq!(err.trim_end(), "ERROR:  role auditor may not read private.*");
    // As a driver has it, in both protocols.
    let mut client = served.psycopg("kim", &[]);
    for (sql, code, word) in [
        ("SELECT (1 + 'c4n4ry'", "42601", "syntax_error"),
        ("SELECT c4n4r FROM stats.calls_daily", "42703", "undefined_column"),
        ("SELECT * FROM stats.nothing", "42P01", "undefined_table"),
        ("SELECT nothing('c4n4ry')", "42883", "undefined_function"),
        ("SELECT day, count(*) FROM stats.calls_daily", "42803", "grouping_error"),
        ("SELECT 1 / 0", "22012", "division_by_zero"),
        ("SELECT CAST('c4n4ry' AS INT)", "22000", "data_exception"),
        ("COPY stats.calls_daily TO 'c4n4ry'", "42501", "insufficient_privilege"),
        ("SELECT * FROM private.person_day", "42501", "insufficient_privilege"),
    ] {
        for binary in [false, true] {
            let answer = client.ask(json!({ "sql": sql, "binary": binary }));
            assert_eq!(answer["code"], code, "{sql}: {answer}");
            let detail = answer["detail"].as_str().unwrap_or_else(|| panic!("no detail: {answer}"));
            assert!(detail.starts_with(&format!("{word}: ")) && detail.ends_with("; nothing was charged"), "{sql}: {detail}");
            assert!(!answer["hint"].as_str().unwrap_or_default().is_empty(), "{sql}: {answer}");
            assert!(!answer.to_string().contains("c4n4ry"), "{sql}: {answer}");
        }
    }
    // What no budget could hold is not charged; what fails after it was charged is, and says so.
    let day = crate::support::sql(&house.data, "SELECT max(day) AS day FROM meta.budget WHERE dataset = 'person_day'")[0]["day"]
        .clone();
    let day = day.as_str().expect("a day");
    let asked = format!(
        "SELECT 1 / (count(*) - count(*)) AS n FROM private.person_day WHERE day = DATE '{day}' SETTINGS epsilon = 0.0127"
    );
    let failed = client.ask(json!({ "sql": asked }));
    assert_eq!(failed["code"], "22012", "{failed}");
    let charged = "division_by_zero: a value stopped it while it ran; what its questions were charged stands, and they are free when asked again";
    assert_eq!(failed["detail"], charged, "{failed}");
    let dear = format!("SELECT count(*) FROM private.person_day WHERE day = DATE '{day}' SETTINGS epsilon = 7.0");
    let refused = client.ask(json!({ "sql": dear }));
    assert_eq!(refused["code"], "54000", "{refused}");
    let detail = refused["detail"].as_str().unwrap_or_default();
    assert!(detail.ends_with("; nothing was charged"), "{refused}");
    // What the door says by itself of who is not in has no detail: there is no statement.
    let (_, err) = served.psql_as("ada", "wrong-horse-battery", &["-c", "SELECT 1"]);
    assert!(err.contains("do not fit") && !err.contains("DETAIL"), "{err}");
}
