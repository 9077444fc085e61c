//! Who is told of what rules find: shadow, allowance, and rules whose verdicts show more false alerts than they promise (P22, I6, I9).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::http::Served;
use crate::support::{comparable, fail, simulate, starling, succeed, with_known_keys};

/// Planted abusers of each kind in a trace.
const PLANTED: &str = "12";

struct Place {
    dir: tempfile::TempDir,
    settings: PathBuf,
}

impl Place {
    fn new(settings: &str) -> Self {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("starling.toml");
        std::fs::write(&path, settings).expect("settings");
        Self { settings: path, dir }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// One more day of traffic.
    fn trace(&self, day: &str, seed: u64) -> PathBuf {
        let folder = self.dir.path().join(day);
        std::fs::create_dir(&folder).expect("folder");
        simulate(&folder, 1_000, 1, seed, &["--planted", PLANTED, "--start", day]).0
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = starling();
        command.args(arguments).arg("--config").arg(&self.settings).arg("--data-dir").arg(self.data());
        command
    }

    fn run(&self, trace: &Path) {
        succeed(&mut self.command(&["run", "--trace", trace.to_str().expect("text")]));
    }

    fn say(&self, arguments: &[&str]) -> String {
        succeed(&mut self.command(arguments))
    }

    fn lines(&self, arguments: &[&str]) -> Vec<Value> {
        self.say(arguments).lines().map(|line| serde_json::from_str(line).expect("JSON lines")).collect()
    }

    /// Entries of a kind in the log, which holds.
    fn logged(&self, kind: &str) -> usize {
        self.say(&["audit", "verify"]);
        self.say(&["audit", "tail", "--lines", "10000"]).matches(kind).count()
    }
}

fn by_rule(alerts: &[Value]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for alert in alerts {
        *counts.entry(alert["rule"].as_str().expect("a rule").to_owned()).or_default() += 1;
    }
    counts
}

/// Without why and since when it is kept.
fn as_alerts(kept: Vec<Value>) -> Vec<Value> {
    let strip = |mut alert: Value| {
        let object = alert.as_object_mut().expect("an object");
        object.remove("kept_for");
        object.remove("kept_ms");
        alert
    };
    kept.into_iter().map(strip).collect()
}

const SHADOW: &str = "[alerts.standing.new_account_burst]\nstage = \"shadow\"\ndaily_alerts = 100\nfalse_discovery = 0.05\n\
     [alerts.standing.group_mass_add]\nstage = \"live\"\ndaily_alerts = 5\nfalse_discovery = 0.05\n";

/// A day's allowance, and what is said of today, begin anew at midnight: a test over which the day changes says nothing, and is done again.
fn within_a_day(test: fn()) {
    let today = || jiff::Timestamp::now().as_second().div_euclid(86_400);
    loop {
        let day = today();
        let done = std::panic::catch_unwind(test);
        if today() == day {
            done.unwrap_or_else(|fault| std::panic::resume_unwind(fault));
            return;
        }
    }
}

#[test]
fn i6_i9_a_rule_in_shadow_tells_nobody_and_what_it_finds_can_be_looked_at() {
    within_a_day(shadow);
}

fn shadow() {
    let place = Place::new(SHADOW);
    let trace = place.trace("2026-01-10", 4);
    let live = Place::new("");
    for place in [&place, &live] {
        with_known_keys(&place.data());
        place.run(&trace);
    }
    let (feed, mut kept) = (place.lines(&["alerts", "--json"]), place.lines(&["alerts", "--kept", "--json"]));
    let (told, found) = (by_rule(&feed), by_rule(&live.lines(&["alerts", "--json"])));
    // Rules that are shipped in shadow keep what they find in both.
    kept.retain(|kept| found.contains_key(kept["rule"].as_str().expect("a rule")));
    let planted: usize = PLANTED.parse().expect("a number");
    assert!(found["new_account_burst"] >= planted && found["group_mass_add"] >= planted, "{found:?}");
    assert_eq!((told.get("new_account_burst"), told["group_mass_add"]), (None, 5), "{told:?}");
    assert_eq!(told["bulk_per_minute"], found["bulk_per_minute"]);
    let reasons: BTreeMap<&str, usize> = kept.iter().fold(BTreeMap::new(), |mut counts, kept| {
        *counts.entry(kept["kept_for"].as_str().expect("a reason")).or_default() += 1;
        counts
    });
    let expected = BTreeMap::from([("allowance", found["group_mass_add"] - 5), ("shadow", found["new_account_burst"])]);
    assert_eq!(reasons, expected);
    // I9: what is found is what it would be, whoever is told.
    let all: Vec<Value> = feed.iter().cloned().chain(as_alerts(kept.clone())).collect();
    assert_eq!(comparable(all), comparable(live.lines(&["alerts", "--json"])));

    // The feed says what of it is missing, and not what somebody wanted to be.
    let shown = place.say(&["alerts"]);
    let missing = format!("{} of group_mass_add kept today: allowance of 5 reached", found["group_mass_add"] - 5);
    assert!(shown.contains(&missing) && !shown.contains("new_account_burst"), "{shown}");
    assert!(!live.say(&["alerts"]).contains("kept today"));
    assert!(place.say(&["alerts", "--rule", "slow_bulk"]).trim() == "No alerts.");
    let of_rule = place.say(&["alerts", "--kept", "--rule", "new_account_burst"]);
    assert_eq!(of_rule.lines().filter(|line| line.contains("shadow")).count(), found["new_account_burst"]);
    assert!(!of_rule.contains("group_mass_add"));
    assert_eq!(place.say(&["alerts", "--kept", "--rule", "slow_bulk"]).trim(), "Nothing is kept.");

    // Nobody can work on it, and no other door has it.
    let fingerprint = kept.iter().find(|kept| kept["kept_for"] == "shadow").expect("one")["fingerprint"].as_str().expect("text");
    let refused = fail(&mut place.command(&["alerts", "take", fingerprint, "--by", "ana"]));
    assert!(refused.contains("there is no alert of that fingerprint"), "{refused}");
    let served = Served::start(&place.data(), Some(&place.settings));
    let body = |path: &str| {
        let answer = served.whole(path, "");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 200"), "{path}: {head}");
        body.to_owned()
    };
    assert!(!body("/v1/alerts").contains("new_account_burst"));
    let of_kept = body("/v1/alerts?kept=true&rule=new_account_burst");
    assert_eq!(of_kept.matches("\"kept_for\":\"shadow\"").count(), found["new_account_burst"]);
    assert!(body("/v1/alerts/rules").contains(&missing));
    drop(served);
    let sql = |statement: &str| place.lines(&["sql", "--format", "json", statement]);
    assert!(sql("SELECT rule FROM integrity.alerts WHERE rule = 'new_account_burst'").is_empty());
    let counted = sql(
        "SELECT kept_for, count(*) AS n FROM integrity.kept_alerts WHERE rule IN ('new_account_burst', 'group_mass_add') GROUP BY kept_for ORDER BY kept_for",
    );
    let counted: Vec<_> = counted.iter().map(|row| (row["kept_for"].as_str().expect("text"), row["n"].as_u64())).collect();
    let expected: Vec<_> = reasons.iter().map(|(reason, n)| (*reason, Some(*n as u64))).collect();
    assert_eq!(counted, expected);

    // I6: each reading is in the log, and none is served without.
    let reads = place.logged("kept_alerts");
    place.say(&["alerts", "--kept"]);
    assert_eq!(place.logged("kept_alerts"), reads + 1);
    let mut blind = place.command(&["alerts", "--kept"]);
    let output = blind.env("STARLING_FAIL_AT", "begin appending to the audit log:1:*=ENOSPC").output().expect("starts");
    assert!(output.status.code() == Some(1) && output.stdout.is_empty(), "{}", crate::support::told(&output));
}

/// Judges alerts of a rule no abuse, and gives how many lines of `precision` say that it is demoted after each.
fn dismiss(place: &Place, rule: &str, alerts: &[Value]) -> Vec<usize> {
    let mut demoted = Vec::new();
    for alert in alerts.iter().filter(|alert| alert["rule"] == rule) {
        let fingerprint = alert["fingerprint"].as_str().expect("text");
        place.say(&["alerts", "take", fingerprint, "--by", "ana"]);
        place.say(&["alerts", "dismiss", fingerprint, "--by", "ana", "--reason", "legitimate_use"]);
        demoted.push(place.say(&["alerts", "precision"]).matches("demoted since").count());
    }
    demoted
}

#[test]
fn p22_i6_verdicts_put_a_rule_back_in_shadow_until_somebody_restores_it_and_promises_to_users_tell_on() {
    within_a_day(demotion);
}

fn demotion() {
    let place = Place::new("");
    place.run(&place.trace("2026-01-10", 4));
    let first = place.lines(&["alerts", "--json"]);
    let planted = by_rule(&first);
    // The tenth verdict is the first on which it is decided.
    let demoted = dismiss(&place, "new_account_burst", &first);
    assert_eq!(demoted, (1..=demoted.len()).map(|n| usize::from(n >= 10)).collect::<Vec<_>>());
    assert_eq!(place.logged("rule_demoted"), 1, "once, however often it is looked at");
    let after = dismiss(&place, "bulk_per_minute", &first);
    assert!(after.len() >= 10 && after.iter().all(|n| *n == 1), "P22: that it tells was promised");
    let precision = place.say(&["alerts", "precision"]);
    let line =
        |rule: &str| precision.lines().find(|line| line.starts_with(rule)).unwrap_or_else(|| panic!("{precision}")).to_owned();
    assert!(line("new_account_burst").contains("promised ≤ 2 % false, observed 100 % ("), "{precision}");
    assert!(line("bulk_per_minute").contains("exceeded, and told all the same"), "{precision}");
    assert!(!line("group_mass_add").contains("exceeded"), "{precision}");

    place.run(&place.trace("2026-01-11", 5));
    let second = place.lines(&["alerts", "--json"]);
    let told = by_rule(&second);
    assert_eq!(told["new_account_burst"], planted["new_account_burst"], "what was told stays told");
    assert!(told["bulk_per_minute"] > planted["bulk_per_minute"], "{told:?}");
    let kept = || {
        // Rules that are shipped in shadow keep what they find.
        let mut kept = place.lines(&["alerts", "--kept", "--json"]);
        kept.retain(|kept| kept["kept_for"] != "shadow");
        kept
    };
    let demoted = kept();
    let count = demoted.len();
    assert!(count >= 12 && demoted.iter().all(|k| k["kept_for"] == "demoted" && k["rule"] == "new_account_burst"), "{demoted:?}");
    let shown = place.say(&["alerts"]);
    assert!(shown.contains(&format!("{count} of new_account_burst kept today: demoted since ")), "{shown}");

    // By a person, in writing, under a name.
    let number = ["alerts", "restore", "new_account_burst", "--by", "ben", "they call from +49 170 1234567"];
    assert!(fail(&mut place.command(&number)).contains("could be a phone number"));
    let other = ["alerts", "restore", "bulk_per_minute", "--by", "ben", "why not"];
    assert!(fail(&mut place.command(&other)).contains("no rule of that name is demoted"));
    let served = Served::start(&place.data(), None);
    let path = "/v1/alerts/rules/new_account_burst/restore";
    let lifted = served.post(path, "Content-Type: application/json\r\n", r#"{"by":"ben","text":"one school moved"}"#);
    assert!(lifted.starts_with("HTTP/1.1 200") && lifted.contains(r#""versions":[1]"#), "{lifted}");
    drop(served);
    assert_eq!((place.logged("rule_restored"), place.logged("one school")), (1, 0), "what people write is not in the log");
    assert!(!place.say(&["alerts", "precision"]).contains("demoted since"));
    // What was told before is answered for: one verdict more does not count it again.
    place.run(&place.trace("2026-01-12", 6));
    let third = place.lines(&["alerts", "--json"]);
    assert!(by_rule(&third)["new_account_burst"] >= planted["new_account_burst"] + 12, "it tells again");
    assert_eq!(kept().len(), count, "what was kept and does not grow stays so");
    let known: Vec<_> = first.iter().chain(&second).map(|alert| &alert["fingerprint"]).collect();
    let new: Vec<_> = third.iter().filter(|alert| !known.contains(&&alert["fingerprint"])).cloned().collect();
    let again = dismiss(&place, "new_account_burst", &new[..]);
    assert_eq!(again.iter().position(|n| *n == 1), Some(9), "and is held to its promise anew: {again:?}");
    assert_eq!(place.logged("rule_demoted"), 2);
}
