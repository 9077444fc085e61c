//! dbt and MetricFlow over the PostgreSQL door, with what `starling metrics export` writes and nothing beside it but a profile.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::house::{PASSWORD, Served, house};
use crate::support::{sql, starling, succeed, told};
use crate::{Add, python};

const REQUIREMENTS: &str = "ecosystem/dbt.txt";

pub(crate) fn add(add: &mut Add<'_>) {
    add(
        "metricflow_and_dbt_answer_what_sql_answers",
        &|| python(REQUIREMENTS).map(drop),
        metricflow_and_dbt_answer_what_sql_answers,
    );
}

struct Project {
    dir: tempfile::TempDir,
    programs: PathBuf,
}

impl Project {
    fn new(address: &str) -> Self {
        let dir = tempfile::tempdir().expect("dir");
        let programs = python(REQUIREMENTS).expect("found before").parent().expect("a folder").to_owned();
        let (host, port) = address.rsplit_once(':').expect("an address");
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).expect("writes");
        write("dbt_project.yml", "name: flock\nversion: '1.0'\nprofile: door\nflags: {send_anonymous_usage_stats: false}\n");
        let door =
            format!("type: postgres, host: '{host}', port: {port}, user: ada, dbname: starling, schema: stats, threads: 2");
        let password = "\"{{ env_var('DBT_ENV_SECRET_DOOR') }}\"";
        write("profiles.yml", &format!("door:\n  target: door\n  outputs:\n    door: {{{door}, password: {password}}}\n"));
        let models = dir.path().join("models/starling");
        succeed(starling().args(["metrics", "export", "--format", "metricflow", "--out"]).arg(&models));
        Self { dir, programs }
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.args(arguments).current_dir(self.dir.path()).env("DBT_PROFILES_DIR", self.dir.path());
        // Its settings and its caches are in the home folder otherwise. A test tells nobody that it ran.
        command.env("DBT_ENV_SECRET_DOOR", PASSWORD).env("HOME", self.dir.path()).env("NO_COLOR", "1").env("DO_NOT_TRACK", "1");
        command
    }

    fn dbt(&self, arguments: &[&str]) -> String {
        succeed(self.command("dbt", &["--no-use-colors", "--no-version-check", "--no-populate-cache"]).args(arguments))
    }

    /// Rows of a question to MetricFlow, by column.
    fn ask(&self, metrics: &str, by: &str, more: &[&str]) -> Vec<Vec<String>> {
        let file = self.dir.path().join("answer.csv");
        let mut command = self.command("mf", &["query", "--metrics", metrics, "--group-by", by, "--csv"]);
        succeed(command.arg(&file).args(more));
        let text = std::fs::read_to_string(file).expect("an answer");
        let mut rows: Vec<Vec<String>> = text.lines().skip(1).map(|line| line.split(',').map(str::to_owned).collect()).collect();
        rows.sort();
        rows
    }
}

/// The same rows as `starling sql` has them.
fn expected(data: &Path, statement: &str, columns: &[&str]) -> Vec<Vec<Value>> {
    let rows = sql(data, statement);
    let mut rows: Vec<Vec<Value>> = rows.iter().map(|row| columns.iter().map(|column| row[*column].clone()).collect()).collect();
    rows.sort_by_key(|row| row.first().map(Value::to_string));
    rows
}

/// Compares a cell with a value: dates by their first characters, numbers as numbers.
fn same(cell: &str, value: &Value) -> bool {
    match value {
        Value::Null => cell.is_empty(),
        Value::Number(number) => {
            let (a, b) = (cell.parse::<f64>().unwrap_or(f64::NAN), number.as_f64().unwrap());
            (a - b).abs() <= 1e-9 * b.abs().max(1.0)
        }
        value => cell.starts_with(value.as_str().unwrap()),
    }
}

fn assert_same(ours: &[Vec<Value>], theirs: &[Vec<String>]) {
    assert_eq!(theirs.len(), ours.len(), "{theirs:?}");
    assert!(!ours.is_empty() && ours.iter().any(|row| row.iter().skip(1).any(|value| value.as_f64() > Some(0.0))), "{ours:?}");
    for (theirs, ours) in theirs.iter().zip(ours) {
        assert!(theirs.len() == ours.len() && theirs.iter().zip(ours).all(|(a, b)| same(a, b)), "{theirs:?} is not {ours:?}");
    }
}

fn metricflow_and_dbt_answer_what_sql_answers() {
    let house = house();
    let served = Served::start(house, &[]);
    let project = Project::new(&served.address);
    // The semantic manifest's own rules are part of parsing.
    let parsed = project.dbt(&["parse", "--show-all-deprecations"]);
    assert!(!parsed.to_lowercase().contains("warning") && !parsed.to_lowercase().contains("deprecat"), "{parsed}");
    // With its queries to the warehouse: every dimension, measure and metric is asked for once.
    let valid = succeed(&mut project.command("mf", &["validate-configs"]));
    assert!(valid.contains("Successfully validated") && !valid.contains("ERRORS: 1"), "{valid}");

    // Events add up over groups and days, and so do the variances of their noise.
    let theirs = project.ask("media_kinds_daily,media_kinds_daily_stddev,media_kinds_daily_suppressed", "metric_time__day", &[]);
    let statement = "SELECT day, SUM(value) AS value, SQRT(SUM(CASE WHEN status = 'released' THEN stddev * stddev END)) AS stddev, \
                     SUM(CASE WHEN status = 'suppressed' THEN 1 ELSE 0 END) AS suppressed FROM stats.media_kinds_daily GROUP BY day";
    // MetricFlow puts the derived one last.
    assert_same(&expected(&house.data, statement, &["day", "value", "suppressed", "stddev"]), &theirs);
    let theirs = project.ask("media_kinds_daily", "metric_time__month", &[]);
    let all = "SELECT '2026-01-01' AS month, SUM(value) AS value FROM stats.media_kinds_daily";
    assert_same(&expected(&house.data, all, &["month", "value"]), &theirs);

    // People add up over the groups they are in one of, and of a month the last day counts.
    let theirs = project.ask("senders_daily", "metric_time__month", &[]);
    let last = "SELECT '2026-01-01' AS month, SUM(value) AS value FROM stats.senders_daily \
                WHERE day = (SELECT MAX(day) FROM stats.senders_daily)";
    assert_same(&expected(&house.data, last, &["month", "value"]), &theirs);

    // What does not add up is itself where all its groups are asked for.
    let one = ["--where", "{{ Entity('country') }} = 'IN' AND {{ Entity('platform') }} = 'android'"];
    let theirs = project.ask("max_people_served_daily", "metric_time__day", &one);
    let largest = "SELECT day, value FROM stats.people_served_daily WHERE country = 'IN' AND platform = 'android'";
    assert_same(&expected(&house.data, largest, &["day", "value"]), &theirs);

    // dbt's tests of the sources pass over the door.
    let tested = project.dbt(&["test", "--select", "source:stats.messages_daily", "source:stats.people_served_weekly"]);
    assert!(tested.contains("ERROR=0") && tested.contains("WARN=0") && !tested.contains("PASS=0"), "{tested}");
    // Nothing can be made there: it is the door that says no, and not dbt that fails before it asks.
    let output = project.command("dbt", &["--no-use-colors", "--no-populate-cache", "run", "--select", "senders_daily"]).output();
    let output = output.expect("dbt starts");
    assert!(!output.status.success(), "the door takes no views");
    assert!(told(&output).contains("CREATE is not permitted"), "{}", told(&output));
}
