//! # Released statistics as Delta tables, read by DuckDB
//!
//! `[releases] delta = true` keeps a Delta log beside each metric's releases. Here a trace is taken to its end by the executable, and what
//! `starling sql` shows is compared with what DuckDB and delta-rs read from the same folder: every row, every column, and the days that the
//! log's own figures let a reader skip.
//!
//! Python and the packages come from `tests/accounting/python.sh`, in the versions of `requirements.txt`. Where they are not to be had these tests
//! are reported as ignored, never as passed. DuckDB's own `delta_scan` needs an extension from a server of DuckDB's, which is no
//! package registry; with `STARLING_TEST_DELTA_EXTENSION=1` it is fetched and asked too.

#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};

use libtest_mimic::{Arguments, Trial};
use serde_json::Value;

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/delta")
}

/// The Python to ask, or why there is none.
fn python() -> Result<PathBuf, String> {
    let script = here().join("../accounting/python.sh");
    let output = Command::new("bash").arg(script).arg(here().join("requirements.txt")).output();
    let output = output.map_err(|_| "skipped: no bash".to_owned())?;
    let answer = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    match output.status.code() {
        Some(0) => Ok(PathBuf::from(answer)),
        Some(77) => Err(answer),
        _ => Err(format!("skipped: python.sh failed: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

fn starling(arguments: &[&str], paths: &[&Path], delta: bool) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_starling"));
    command.args(arguments).args(paths).env("STARLING_RELEASES__DELTA", delta.to_string());
    succeeded(command.output().expect("starling starts"))
}

fn succeeded(output: Output) -> String {
    assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// A table, as delta-rs and DuckDB read it.
fn read(python: &Path, table: &Path) -> Value {
    let output = Command::new(python).arg("-B").arg(here().join("read.py")).arg(table).output().expect("python starts");
    serde_json::from_str(&succeeded(output)).expect("JSON")
}

/// The same rows from `starling sql`, in the shape of `read.py`.
fn shown(data: &Path, metric: &str) -> Vec<Vec<Value>> {
    let statement = format!("SELECT day, status, value, low, high, stddev, epsilon, delta FROM stats.{metric}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_starling"));
    command.args(["sql", "--format", "json", "--data-dir"]).arg(data).arg(&statement);
    let text = succeeded(command.output().expect("starling starts"));
    let of = |line: &str| {
        let row: Value = serde_json::from_str(line).expect("JSON");
        ["day", "status", "value", "low", "high", "stddev", "epsilon", "delta"].iter().map(|c| row[*c].clone()).collect()
    };
    text.lines().map(of).collect()
}

/// Rows as text, in an order of their own: the two sides sort NULL and floats in different ways.
fn sorted(rows: Vec<Vec<Value>>) -> Vec<String> {
    let number = |v: &Value| v.as_f64().map_or_else(|| v.to_string(), |f| format!("{f:?}"));
    let mut rows: Vec<String> = rows.iter().map(|row| row.iter().map(number).collect::<Vec<_>>().join(" | ")).collect();
    rows.sort();
    rows
}

fn duckdb_reads_what_sql_shows(python: &Path) {
    let dir = tempfile::tempdir().expect("dir");
    let (trace, data) = (dir.path().join("t.pb.zst"), dir.path().join("data"));
    starling(&["simulate", "--people", "1000", "--days", "2", "--seed", "4", "--out"], &[&trace], true);
    starling(&["run", "--trace"], &[&trace, Path::new("--data-dir"), &data], true);
    let stats = data.join("files/stats");
    let mut suppressed = 0;
    for metric in ["messages_daily", "calls_daily", "people_served_daily"] {
        let table = read(python, &stats.join(metric));
        let theirs: Vec<Vec<Value>> = serde_json::from_value(table["answers"]["rows"].clone()).expect("rows");
        suppressed += theirs.iter().filter(|row| row[1] == "suppressed" && row[2].is_null()).count();
        let (count, days) = (theirs.len(), table["answers"]["days"].as_array().expect("days").len());
        assert_eq!(sorted(theirs), sorted(shown(&data, metric)), "{metric}");
        assert_eq!(
            (&table["name"], &table["append_only"], &table["version"]),
            (&metric.into(), &"true".into(), &0.into()),
            "{metric}"
        );
        assert_eq!((days, table["files"].as_u64(), table["told"].as_u64()), (2, Some(2), Some(count as u64)), "{metric}");
        assert_eq!((&table["columns"]["day"], &table["columns"]["value"]), (&"date".into(), &"double".into()));
        assert_eq!(table["comments"].as_u64(), table["columns"].as_object().map(|c| c.len() as u64), "every column is explained");
        let one_day = table["answers"]["one_day"][0][0].as_u64().expect("a count");
        assert!(one_day > 0 && one_day < count as u64, "{metric}: {one_day} of {count}");
        println!("{metric}: {count} rows, read by {}", table["by"]);
    }
    assert!(suppressed > 0, "what is suppressed is NULL there too, and not zero");
}

fn what_was_released_before_is_named_by_the_next_release_and_bytes_stay_as_they_are(python: &Path) {
    let dir = tempfile::tempdir().expect("dir");
    let (trace, data) = (dir.path().join("t.pb.zst"), dir.path().join("data"));
    starling(&["simulate", "--people", "1000", "--days", "2", "--seed", "5", "--out"], &[&trace], false);
    starling(&["run", "--trace"], &[&trace, Path::new("--data-dir"), &data], false);
    let table = data.join("files/stats/messages_daily");
    assert!(!table.join("_delta_log").exists(), "nobody asked for it");
    let files = || -> Vec<Vec<u8>> {
        ["2026-01-05", "2026-01-06"]
            .iter()
            .map(|day| std::fs::read(table.join(format!("{day}.parquet"))).expect("released"))
            .collect()
    };
    let before = files();
    let told = starling(&["release", "--data-dir"], &[&data], true);
    assert!(told.contains("named in their Delta logs"), "{told}");
    assert_eq!(files(), before, "I3");
    let again = starling(&["release", "--data-dir"], &[&data], true);
    assert!(!again.contains("named in their Delta logs"), "{again}");
    let read = read(python, &table);
    assert_eq!((read["version"].as_u64(), read["files"].as_u64()), (Some(0), Some(2)));
}

fn an_answer_that_is_kept_is_a_table_and_nothing_is_written_over(python: &Path) {
    let dir = tempfile::tempdir().expect("dir");
    let (trace, data) = (dir.path().join("t.pb.zst"), dir.path().join("data"));
    starling(&["simulate", "--people", "1000", "--days", "1", "--seed", "6", "--out"], &[&trace], false);
    starling(&["run", "--trace"], &[&trace, Path::new("--data-dir"), &data], false);
    let sql = |rest: &[&str], statement: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_starling"));
        command.args(["sql", "--data-dir"]).arg(&data).args(rest).arg(statement);
        command.output().expect("starling starts")
    };
    // Every type, a NULL, and a private answer, which is the same one again.
    let released = "SELECT day, status, value > 0 AS \"is_more\", CAST(value AS BIGINT) AS whole, value, epsilon, CAST(day AS TIMESTAMP) AS at, NULL AS none
                    FROM stats.messages_daily ORDER BY country, conversation_kind";
    let private = "SELECT platform, COUNT(DISTINCT person) AS people FROM private.person_day GROUP BY platform ORDER BY platform";
    for (name, statement) in [
        ("released", released),
        ("private", private),
        ("nothing", "SELECT day FROM stats.messages_daily WHERE day > '2040-01-01'"),
    ] {
        let folder = dir.path().join(name);
        let told = succeeded(sql(&["--delta", folder.to_str().expect("text")], statement));
        let read = Command::new(python).arg("-B").arg(here().join("kept.py")).arg(&folder).output().expect("python starts");
        let read: Value = serde_json::from_str(&succeeded(read)).expect("JSON");
        let shown: Vec<Value> = succeeded(sql(&["--format", "json"], statement))
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        assert_eq!(read["rows"], Value::from(shown.clone()), "{name}");
        assert!(told.contains(&format!("{} rows", shown.len())) && (shown.is_empty() == (name == "nothing")), "{told}");
        assert_eq!((read["description"].as_str(), read["told"].as_u64()), (Some(statement), Some(shown.len() as u64)));
    }
    let told = |output: Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let released = dir.path().join("released");
    let again = sql(&["--delta", released.to_str().expect("text")], private);
    assert!(!again.status.success() && told(again).contains("name a new one"));
    let unnamed = dir.path().join("unnamed");
    let again = sql(&["--delta", unnamed.to_str().expect("text")], "SELECT 1, 2 AS \"two words\"");
    assert!(!again.status.success() && !unnamed.exists(), "nothing is left behind");
    assert!(told(again).contains("with AS"));
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let python = python();
    if let Err(why) = &python {
        eprintln!("{why}");
    }
    let missing = python.is_err();
    let trial = |name: &'static str, test: fn(&Path)| {
        let python = python.clone().unwrap_or_default();
        Trial::test(name, move || {
            test(&python);
            Ok(())
        })
        .with_ignored_flag(missing)
    };
    let trials = vec![
        trial("duckdb_reads_what_sql_shows", duckdb_reads_what_sql_shows),
        trial(
            "an_answer_that_is_kept_is_a_table_and_nothing_is_written_over",
            an_answer_that_is_kept_is_a_table_and_nothing_is_written_over,
        ),
        trial(
            "what_was_released_before_is_named_by_the_next_release_and_bytes_stay_as_they_are",
            what_was_released_before_is_named_by_the_next_release_and_bytes_stay_as_they_are,
        ),
    ];
    libtest_mimic::run(&arguments, trials).exit_code()
}
