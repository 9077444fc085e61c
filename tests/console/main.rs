//! # The console in a real browser
//!
//! A simulated trace is taken to its end by the executable; `starling serve` then serves the console over it, and Debian's Chromium, driven by
//! Playwright, does what people do. What it sees is compared with what the door says over SQL. `console.mjs` has a scenario a test, each of which
//! also fails on a script error, on what the content policy forbade, and on a request to another host.
//!
//! Where Node.js, npm's packages or Chromium are not to be had these tests are reported as ignored, never as passed.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, dead_code)]

#[path = "../pg_door/house.rs"]
mod house;
#[path = "../journey/support.rs"]
mod support;

use std::io::{BufRead as _, BufReader};
use std::process::{Command, ExitCode, Stdio};
use std::sync::OnceLock;

use house::{House, PASSWORD, Served, house};
use libtest_mimic::{Arguments, Trial};
use serde_json::{Value, json};
use support::{starling, succeed, workspace};

/// The packages' folder and Chromium, or why there is none.
fn browser() -> &'static Result<(String, String), String> {
    static BROWSER: OnceLock<Result<(String, String), String>> = OnceLock::new();
    BROWSER.get_or_init(|| {
        let output = Command::new("bash").arg(workspace().join("tests/console/browser.sh")).output();
        let output = output.map_err(|_| "skipped: no bash".to_owned())?;
        let answer = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        match output.status.code() {
            Some(0) => {
                let (packages, chromium) = answer.split_once('\n').expect("two lines");
                Ok((packages.to_owned(), chromium.to_owned()))
            }
            Some(77) => Err(answer),
            _ => Err(format!("skipped: browser.sh failed: {}", String::from_utf8_lossy(&output.stderr).trim())),
        }
    })
}

/// Has the browser act a scenario out; a line it writes is handed to `heard`.
fn act(served: &Served, scenario: &str, given: &Value, heard: impl Fn(&str)) {
    let (packages, chromium) = browser().as_ref().expect("found before");
    let mut command = Command::new("node");
    command
        .arg(workspace().join("tests/console/console.mjs"))
        .args([packages, chromium, &format!("http://{}", served.http), scenario])
        .arg(given.to_string());
    let errors = tempfile::NamedTempFile::new().expect("file");
    let mut child = command.stdout(Stdio::piped()).stderr(errors.reopen().expect("opens")).spawn().expect("node starts");
    for line in BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok) {
        heard(&line);
    }
    let status = child.wait().expect("ends");
    assert!(status.success(), "{scenario}: {}", std::fs::read_to_string(errors.path()).unwrap_or_default());
}

fn served(house: &House) -> Served {
    Served::start(house, &[])
}

fn only_who_has_a_password_comes_in(house: &House) {
    act(&served(house), "only_who_has_a_password_comes_in", &json!({ "password": PASSWORD }), |_| {});
}

fn statistics_are_those_of_sql_with_their_error(house: &House) {
    let given = json!({ "password": PASSWORD, "metric": "people_served_daily" });
    act(&served(house), "statistics_are_those_of_sql_with_their_error", &given, |_| {});
}

fn a_private_question_tells_its_price_is_paid_once_and_stands_in_the_budget(house: &House) {
    let question = "SELECT platform, COUNT(DISTINCT person) AS value FROM private.person_day WHERE day = '2026-01-06' \
                    GROUP BY platform ORDER BY platform SETTINGS epsilon = 0.05";
    let given = json!({ "password": PASSWORD, "question": question });
    act(&served(house), "a_private_question_tells_its_price_is_paid_once_and_stands_in_the_budget", &given, |_| {});
}

fn sql_is_completed_told_wrong_where_it_is_and_can_be_cancelled(house: &House) {
    let given = json!({ "password": PASSWORD, "slow": SLOW });
    act(&served(house), "sql_is_completed_told_wrong_where_it_is_and_can_be_cancelled", &given, |_| {});
}

fn alerts_are_live_and_worked_on_by_keyboard(house: &House) {
    let take = |line: &str| {
        let alert = line.strip_prefix("take ").expect("an alert to take");
        succeed(starling().args(["alerts", "take", alert, "--by", "ana", "--data-dir"]).arg(&house.data));
    };
    act(&served(house), "alerts_are_live_and_worked_on_by_keyboard", &json!({ "password": PASSWORD }), take);
}

fn p32_each_role_finds_its_pages_and_no_others(house: &House) {
    let roles = json!({
        "ada": ["statistics", "sql", "budget", "health", "promises"],
        "ivy": ["statistics", "sql", "alerts", "health", "promises"],
        "pia": ["statistics", "sql", "budget", "health", "promises"],
        "eng": ["statistics", "sql", "budget", "health", "promises"],
        "aud": ["statistics", "sql", "budget", "health", "promises"],
        "bil": ["statistics", "sql", "health", "promises"],
    });
    let given = json!({ "password": PASSWORD, "roles": roles });
    act(&served(house), "each_role_finds_its_pages_and_no_others", &given, |_| {});
}

fn every_page_passes_axe_in_light_dark_and_narrow(house: &House) {
    act(&served(house), "every_page_passes_axe_in_light_dark_and_narrow", &json!({ "password": PASSWORD }), |_| {});
}

fn who_looks_after_it_sees_health_and_promises(house: &House) {
    let given = json!({ "password": PASSWORD, "days": 2 });
    act(&served(house), "who_looks_after_it_sees_health_and_promises", &given, |_| {});
}

/// Longer than a person waits, and within the gate's limits until it is cancelled.
const SLOW: &str = "SELECT count(*) FROM stats.people_served_daily a, stats.people_served_daily b, stats.people_served_daily c \
                    WHERE a.value + b.value < c.value";

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    if let Err(why) = browser() {
        eprintln!("{why}");
    }
    macro_rules! trials {
        ($($name:ident),* $(,)?) => {
            vec![$(Trial::test(stringify!($name), || { $name(house()); Ok(()) }).with_ignored_flag(browser().is_err())),*]
        };
    }
    let trials = trials!(
        only_who_has_a_password_comes_in,
        statistics_are_those_of_sql_with_their_error,
        a_private_question_tells_its_price_is_paid_once_and_stands_in_the_budget,
        sql_is_completed_told_wrong_where_it_is_and_can_be_cancelled,
        alerts_are_live_and_worked_on_by_keyboard,
        p32_each_role_finds_its_pages_and_no_others,
        every_page_passes_axe_in_light_dark_and_narrow,
        who_looks_after_it_sees_health_and_promises,
    );
    libtest_mimic::run(&arguments, trials).exit_code()
}
