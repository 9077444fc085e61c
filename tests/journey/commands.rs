//! What a person reads: help, refusals, errors. Kept as snapshots, so that a change of words is a change somebody looked at.

use starling_schemas::ids::Span;
use starling_schemas::metrics::Catalogue;

use crate::support::{alerts, fail, run_trace, simulate, sql, starling, succeed};

fn settings() -> insta::Settings {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(crate::support::workspace().join("tests/journey/snapshots"));
    settings.set_prepend_module_to_snapshot(false);
    settings
}

#[test]
fn help_teaches_each_command() {
    let mut text = String::new();
    for command in [
        "",
        "demo",
        "run",
        "ingest",
        "ingest status",
        "accept-loss",
        "close",
        "release",
        "integrity",
        "integrity rules",
        "integrity check",
        "integrity backtest",
        "serve",
        "sql",
        "users",
        "users add",
        "users token",
        "metrics",
        "metrics list",
        "metrics check",
        "metrics export",
        "alerts",
        "alerts show",
        "alerts take",
        "alerts answer",
        "alerts silence",
        "alerts precision",
        "alerts restore",
        "status",
        "budget",
        "billing",
        "quarantine",
        "quarantine list",
        "quarantine count",
        "simulate",
        "replay",
        "doctor",
        "config",
        "audit",
        "completions",
        "man",
    ] {
        let mut call = starling();
        call.args(command.split_whitespace());
        text.push_str(&format!("$ starling {command} --help\n{}\n", succeed(call.arg("--help").env("COLUMNS", "120"))));
    }
    settings().bind(|| insta::assert_snapshot!("help", text));
}

#[test]
fn faults_say_what_to_do() {
    let dir = tempfile::tempdir().expect("dir");
    let empty = dir.path().join("empty");
    let bad = dir.path().join("bad.toml");
    std::fs::write(&bad, "[window]\nkeep_days = 40\n").expect("settings");
    let unknown = dir.path().join("unknown.toml");
    std::fs::write(&unknown, "[windows]\nkeep = 1\n").expect("settings");
    let deaf = dir.path().join("deaf.toml");
    std::fs::write(&deaf, "[metrics]\nlisten = \"localhost\"\n").expect("settings");
    let mut text = String::new();
    for (name, arguments) in [
        ("sql without data", vec!["sql", "--data-dir", empty.to_str().expect("text"), "SELECT 1"]),
        ("alerts without data", vec!["alerts", "--data-dir", empty.to_str().expect("text")]),
        ("too long", vec!["config", "check", "--config", bad.to_str().expect("text")]),
        ("unknown setting", vec!["config", "check", "--config", unknown.to_str().expect("text")]),
        ("metrics at no address", vec!["config", "check", "--config", deaf.to_str().expect("text")]),
        ("status without data", vec!["ingest", "status", "--data-dir", empty.to_str().expect("text")]),
        ("budget without data", vec!["budget", "--data-dir", empty.to_str().expect("text")]),
        ("quarantine of no class", vec!["quarantine", "list", "--class", "payload"]),
        ("ingest without brokers", vec!["ingest", "--data-dir", empty.to_str().expect("text")]),
        ("metrics of no day", vec!["metrics", "check", "--day", "2026-02-30"]),
        ("a metric that is not there", vec!["metrics", "check", "/nowhere/metric.toml"]),
        ("too few people", vec!["simulate", "--people", "10", "--out", "/dev/null"]),
        ("no such day", vec!["simulate", "--people", "1000", "--start", "2026-02-30", "--out", "/dev/null"]),
    ] {
        text.push_str(&format!("{name}: {}", fail(starling().args(&arguments))));
    }
    let text = text.replace(dir.path().to_str().expect("text"), "DIR");
    settings().bind(|| insta::assert_snapshot!("faults", text));
}

#[test]
fn sql_answers_in_four_shapes_and_refuses_the_rest() {
    let dir = tempfile::tempdir().expect("dir");
    let (trace, _) = simulate(dir.path(), 1_000, 1, 2, &[]);
    let data = dir.path().join("data");
    run_trace(&trace, &data);
    let ask = |format: &str, statement: &str| {
        starling().args(["sql", "--format", format, statement, "--data-dir"]).arg(&data).output().expect("starts")
    };
    let question = "SELECT name, unit FROM meta.metrics ORDER BY name";
    let metrics = Catalogue::builtin().expect("reviewed").without(Span::Hour).metrics.len();
    assert!(String::from_utf8_lossy(&ask("table", question).stdout).contains(&format!("{metrics} rows")));
    assert!(String::from_utf8_lossy(&ask("csv", question).stdout).starts_with("name,unit\n"));
    assert_eq!(sql(&data, question).len(), metrics);
    let stream = ask("arrow", question).stdout;
    let reader = arrow::ipc::reader::StreamReader::try_new(stream.as_slice(), None).expect("an Arrow stream");
    assert_eq!(reader.map(|b| b.expect("batch").num_rows()).sum::<usize>(), metrics);
    let comments = sql(
        &data,
        "SELECT column_name, comment FROM meta.columns WHERE table_schema = 'stats' AND table_name = 'people_served_daily'",
    );
    assert!(comments.len() >= 8 && comments.iter().all(|c| c["comment"].as_str().is_some_and(|t| !t.is_empty())), "{comments:?}");

    // The feed as a table says what the feed says.
    let feed = alerts(&data);
    let told = sql(
        &data,
        "SELECT fingerprint, rule, severity, subject, observed, threshold, explanation, state, assignee FROM integrity.alerts",
    );
    assert!(feed.len() >= 5 && told.len() == feed.len(), "{} of {}", told.len(), feed.len());
    for alert in &feed {
        let row = told.iter().find(|row| row["fingerprint"] == alert["fingerprint"]).expect("a row for each");
        for name in ["rule", "severity", "observed", "threshold", "explanation"] {
            assert_eq!(row[name], alert[name], "{name}");
        }
        assert_eq!(
            (&row["subject"], &row["state"], &row["assignee"]),
            (&alert["subject"]["value"], &"new".into(), &serde_json::Value::Null)
        );
    }

    let mut text = String::new();
    for statement in [
        "SELECT * FROM private.person_day",
        "SELECT * FROM integrity.alert_steps",
        "COPY stats.messages_daily TO '/tmp/out.csv'",
        "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '/'",
        "SELECT * FROM '/etc/passwd'",
        "EXPLAIN ANALYZE SELECT 1",
        "SET datafusion.execution.batch_size = 1",
        "SELECT nothing FROM stats.messages_daily",
        "SELECT * FROM stats.message_daily",
        "SELECT 1; SELECT 2",
        "SELEC 1",
        "SELECT CAST(country AS INT) FROM stats.people_served_daily",
    ] {
        let output = ask("table", statement);
        assert!(!output.status.success(), "{statement}");
        text.push_str(&format!("{statement}\n  {}", String::from_utf8_lossy(&output.stderr)));
    }
    settings().bind(|| insta::assert_snapshot!("refusals", text));
}

#[test]
fn the_recorded_logs_of_students_become_events_with_nobodys_number() {
    let logs = crate::support::workspace().join("tests/data/cns");
    let (sms, calls) = (logs.join("cns_sms.csv"), logs.join("cns_calls.csv"));
    let dir = tempfile::tempdir().expect("dir");
    let lines = |path: &std::path::Path| std::fs::read_to_string(path).expect("log").lines().count() as u64 - 1;
    let expected = lines(&sms) + lines(&calls);
    let trace = dir.path().join("cns.pb.zst");
    succeed(starling().arg("replay").arg("--sms").arg(&sms).arg("--calls").arg(&calls).arg("--out").arg(&trace));
    let data = dir.path().join("data");
    run_trace(&trace, &data);
    let status = crate::support::status(&data);
    assert_eq!(status["outcomes"], serde_json::json!({ "counted": expected }));
    let danish = sql(&data, "SELECT count(*) AS n FROM stats.messages_daily WHERE country = 'DK'");
    assert!(danish[0]["n"].as_i64() > Some(0), "{danish:?}");
}

#[test]
fn a_wrong_line_in_a_log_is_named_by_its_number_and_not_quoted() {
    let dir = tempfile::tempdir().expect("dir");
    let sms = dir.path().join("sms.csv");
    std::fs::write(&sms, "timestamp,sender,recipient\n18,370,512\n37,secret-name,370\n").expect("sms");
    let told = fail(starling().arg("replay").arg("--sms").arg(&sms).arg("--out").arg(dir.path().join("x.pb")));
    assert!(told.contains("sms.csv") && told.contains('3') && !told.contains("secret-name"), "{told}");
}
