//! P28: who tries the doors is told of, by numbers alone, and works on no alert about himself.

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::client::until;
use crate::house::{House, Served};
use crate::support::{files_below, starling, succeed};

/// What is tried, and must be nowhere.
const CANARY: &str = "c4n4ry";

/// Detects until it goes out of scope.
struct Detecting(Child);

impl Detecting {
    fn over(house: &House) -> Self {
        let mut command = starling();
        command.arg("integrity").arg("--data-dir").arg(&house.data);
        command.env("STARLING_ALERTS__LOOK_EVERY_S", "1").env("STARLING_METRICS__LISTEN", "");
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts"))
    }
}

impl Drop for Detecting {
    fn drop(&mut self) {
        // `kill` asks it to end; it ends by itself.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

/// Does something so many times, several at a time.
fn times(count: usize, what: impl Fn(usize) + Sync) {
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let what = &what;
            scope.spawn(move || (thread..count).step_by(8).for_each(what));
        }
    });
}

/// Accounts are by the hour of the wall clock: what is counted here is to be in one.
fn await_room_in_the_hour() {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let left_s = 3_600 - now.as_secs() % 3_600;
    if left_s < 240 {
        std::thread::sleep(std::time::Duration::from_secs(left_s));
    }
}

fn feed(served: &Served, token: &str) -> Vec<Value> {
    served.get("/v1/alerts", &[token]).json()["alerts"].as_array().expect("alerts").clone()
}

/// Rule and subject of the alerts about who uses the doors.
fn told(feed: &[Value]) -> BTreeSet<(String, String, String)> {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let ours = feed.iter().filter(|alert| alert["rule"].as_str().is_some_and(|rule| rule.starts_with("door_")));
    ours.map(|alert| (text(&alert["rule"]), text(&alert["subject"]["kind"]), text(&alert["subject"]["value"]))).collect()
}

pub(crate) fn p28_who_tries_the_doors_is_told_of_and_works_on_no_alert_about_himself(_: &House) {
    let house = House::new(1_000, 1);
    let file = house.data.join("users.toml");
    let token = |name: &str| format!("Authorization: Bearer {}", house.users_in(&file, &["token", name]));
    let (ada, joe, ivy, aud) = (token("ada"), token("joe"), token("ivy"), token("aud"));
    let mut command = Served::command_with(&house, "[alerts]\nlook_every_s = 1\n");
    // The answer to the second lot is lost: it is handed in again, and counts once.
    command.env("STARLING_FAIL_AT", "committed adding accounts of doors:2=EIO");
    await_room_in_the_hour();
    let began = std::time::Instant::now();
    let served = Served::spawn_with(command, false);
    let detecting = [Detecting::over(&house), Detecting::over(&house)];

    // What anybody does on a day: a mistake or ten, a few questions, a wrong password.
    times(10, |n| assert_eq!(served.ask(&[&joe], &format!("SELECT {CANARY}{n} FROM stats.calls_daily")).status, 400));
    times(12, |n| {
        let sql = format!(
            "SELECT COUNT(*) FROM private.person_day WHERE day = '2026-01-05' AND country <> '{CANARY}{n}' SETTINGS epsilon = 0.01"
        );
        let answer = served.ask(&[&joe], &sql);
        assert_eq!(answer.status, 200, "{}", answer.text());
    });
    times(3, |_| assert_eq!(served.log_in_with("joe", CANARY, &[]).status, 401));

    // Attacks: what the role may not read, questions that differ in a literal, passwords of one and names of many, alerts that may be there.
    times(60, |n| assert_eq!(served.ask(&[&ada], &format!("SELECT '{CANARY}{n}' FROM integrity.alerts")).status, 403));
    times(70, |n| {
        let sql = format!(
            "SELECT COUNT(*) FROM private.person_day WHERE day = '2026-01-05' AND platform <> '{CANARY}{n}' SETTINGS epsilon = 0.01"
        );
        assert!(matches!(served.ask(&[&ada], &sql).status, 200 | 429));
    });
    times(32, |n| assert_eq!(served.log_in_with("eng", &format!("{CANARY}{n}"), &[]).status, 401));
    times(40, |n| assert_eq!(served.log_in_with(&format!("{CANARY}{n}"), "battery", &[]).status, 401));
    // Whatever is asked of an alert says whether it is there.
    times(33, |n| {
        let path = format!("/v1/alerts/{:012x}", 0xdead_0000_0000_u64 + n as u64);
        let answer = match n % 3 {
            0 => served.get(&path, &[&ivy]),
            1 => served.post(&format!("{path}/steps"), &[&ivy], r#"{"step":"take","assignee":"ivy"}"#),
            _ => served.post(&format!("{path}/silence"), &[&ivy], r#"{"for":"7d","text":"known"}"#),
        };
        assert_eq!(answer.status, 404, "{}", answer.text());
    });

    let expected: BTreeSet<_> = [
        ("door_probing", "principal", "ada"),
        ("door_differencing", "principal", "ada"),
        ("door_guessing", "principal", "eng"),
        ("door_guessing", "pipeline", "http"),
        ("door_lookups", "principal", "ivy"),
    ]
    .map(|(rule, kind, name)| (rule.to_owned(), kind.to_owned(), name.to_owned()))
    .into();
    until("all are told of", || told(&feed(&served, &ivy)) == expected);

    // Nobody works on an alert about himself; others do.
    let of = |rule: &str, name: &str| {
        let alerts = feed(&served, &ivy);
        let one = alerts.iter().find(|alert| alert["rule"] == rule && alert["subject"]["value"] == name).expect("told");
        format!("/v1/alerts/{}", one["fingerprint"].as_str().expect("a name"))
    };
    let (own, others) = (of("door_lookups", "ivy"), of("door_probing", "ada"));
    for (path, body) in [
        (format!("{own}/steps"), json!({ "step": "take", "assignee": "ivy" })),
        (format!("{own}/silence"), json!({ "for": "7d", "text": "known" })),
    ] {
        let refused = served.post(&path, &[&ivy], &body.to_string());
        assert!(refused.status == 422 && refused.text().contains("about oneself"), "{} {}", refused.status, refused.text());
    }
    assert_eq!(served.post(&format!("{others}/steps"), &[&ivy], r#"{"step":"take","assignee":"ivy"}"#).status, 200);
    assert_eq!(served.get(&others, &[&ada]).status, 403, "whom it is about sees no alert");

    // Looked at again and again, by one of two processes and after both are gone: the same alerts, told as often.
    let revisions = |feed: Vec<Value>| -> BTreeSet<(String, u64)> {
        feed.iter().map(|a| (a["fingerprint"].as_str().unwrap().to_owned(), a["revision"].as_u64().unwrap())).collect()
    };
    let before = revisions(feed(&served, &ivy));
    drop(detecting);
    let again = Detecting::over(&house);
    // It looks at once, and every second from when the other has been gone for four.
    std::thread::sleep(std::time::Duration::from_secs(7));
    assert_eq!(revisions(feed(&served, &ivy)), before);
    drop(again);

    // A second of it is one entry in the log at most, which verifies.
    let entries = crate::log::entries(&served, &aud, "door_accounts");
    let most = began.elapsed().as_secs() + 5;
    assert!(!entries.is_empty() && entries.len() as u64 <= most, "{} of {most}", entries.len());
    assert!(entries.iter().any(|entry| entry["who"].as_str().is_some_and(|who| who.contains("ada"))));
    drop(served);
    succeed(starling().args(["audit", "verify", "--data-dir"]).arg(&house.data));
    // I4: of all that was tried nothing is left, neither name nor password nor statement.
    let files = files_below(&house.data);
    assert!(files.len() > 5);
    for path in files {
        let bytes = std::fs::read(&path).expect("reads");
        assert!(!bytes.windows(CANARY.len()).any(|window| window == CANARY.as_bytes()), "{}", path.display());
    }
}
