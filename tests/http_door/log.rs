//! The hash-chained log: an entry before each answer, no answer without one, and no secret in it or in any other log.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};

use serde_json::{Value, json};

use crate::client::{Answer, connect, request, send, until};
use crate::doors::{token, with_tokens, with_users};
use crate::house::{House, PASSWORD, Served};
use crate::support::{alerts, starling, succeed};

/// All entries of a kind, newest first, as the door shows them.
pub(crate) fn entries(served: &Served, token: &str, kind: &str) -> Vec<Value> {
    let (mut found, mut before) = (Vec::new(), None);
    loop {
        let path = before.map_or("/v1/audit?limit=1000".to_owned(), |before| format!("/v1/audit?limit=1000&before={before}"));
        let page = served.get(&path, &[token]).json();
        assert_eq!(page["verified"], true, "{}", page["next"]);
        found.extend(page["entries"].as_array().expect("entries").iter().filter(|entry| entry["kind"] == kind).cloned());
        match page["next"].as_i64() {
            Some(next) => before = Some(next),
            None => return found,
        }
    }
}

pub(crate) fn p40_i6_logins_statements_and_reads_are_in_the_log_before_anything_is_served(house: &House) {
    let served = with_users(house, "");
    let (amy, ivy, aud) = (token(house, "amy"), token(house, "ivy"), token(house, "aud"));
    // Only this test is amy.
    let statements = |entries: &[Value]| -> u64 {
        let of_amy = |entry: &Value| -> u64 {
            let reads = entry["detail"]["reads"].as_array().cloned().unwrap_or_default();
            reads.iter().filter(|read| read["user"] == "amy").map(|read| read["statements"].as_u64().unwrap()).sum()
        };
        entries.iter().map(of_amy).sum()
    };
    let before = statements(&entries(&served, &aud, "sql_read"));
    for sql in [
        "SELECT count(*) FROM stats.calls_daily WHERE status = 'c4n4ry'",
        "SELECT count(*) FROM private.person_day",
        "SELECT FROM c4n4ry",
    ] {
        served.ask(&[&amy], sql);
    }
    let after = entries(&served, &aud, "sql_read");
    assert_eq!(statements(&after), before + 3, "what is refused was read too");
    assert!(
        after
            .iter()
            .any(|entry| entry["who"].as_str().is_some_and(|who| who.contains("amy")) && entry["detail"]["door"] == "http")
    );
    // Logins, by name; refused ones, by number.
    let refused = |entries: &[Value]| -> u64 { entries.iter().map(|entry| entry["detail"]["logins"].as_u64().unwrap()).sum() };
    let (logins, not) = (entries(&served, &aud, "http_login").len(), refused(&entries(&served, &aud, "http_login_refused")));
    served.log_in("amy");
    assert!(
        entries(&served, &aud, "http_login").iter().any(|entry| entry["who"] == "amy" && entry["detail"]["role"] == "auditor")
    );
    assert!(entries(&served, &aud, "http_login").len() > logins);
    served.log_in_with("c4n4ry", "wrong-horse-battery", &[]);
    let found = entries(&served, &aud, "http_login_refused");
    assert!(refused(&found) > not && found.iter().all(|entry| !entry.to_string().contains("c4n4ry")));
    // Alerts and the log itself.
    let reads = |who: &str, kind: &str| entries(&served, &aud, kind).iter().filter(|entry| entry["who"] == who).count();
    let (of_alerts, of_log) = (reads("ivy", "integrity_read"), reads("amy", "audit_read"));
    for path in ["/v1/alerts", "/v1/alerts?kept=true", "/v1/alerts/rules", "/v1/alerts/silences"] {
        assert_eq!(served.get(path, &[&ivy]).status, 200);
    }
    // Its own read is in what it shows. Others' entries may stand above it: tests run beside this one.
    let newest = served.get("/v1/audit?limit=100", &[&amy]).json();
    let own = |entry: &Value| entry["kind"] == "audit_read" && entry["who"] == "amy";
    assert!(of_log == 0 && newest["entries"].as_array().expect("entries").iter().any(own), "{newest}");
    assert_eq!(served.get("/v1/audit?limit=1", &[&amy]).json()["entries"].as_array().map(Vec::len), Some(1));
    assert!(reads("ivy", "integrity_read") >= of_alerts + 4 && reads("amy", "audit_read") > of_log);
    // Page by page it is all of it, each once, and it verifies.
    let all: Vec<i64> = {
        let (mut all, mut path) = (Vec::new(), "/v1/audit?limit=7".to_owned());
        loop {
            let page = served.get(&path, &[&aud]).json();
            all.extend(page["entries"].as_array().expect("entries").iter().map(|entry| entry["seq"].as_i64().unwrap()));
            let Some(next) = page["next"].as_i64() else { break all };
            path = format!("/v1/audit?limit=7&before={next}");
        }
    };
    assert!(all.last() == Some(&1) && all.windows(2).all(|two| two[0] == two[1] + 1), "{all:?}");
    succeed(starling().args(["audit", "verify", "--data-dir"]).arg(&house.data));
    assert_eq!(served.get("/v1/audit", &[&token(house, "ada")]).status, 403);
}

pub(crate) fn i6_without_a_log_nothing_is_served(house: &House) {
    let mut command = Served::command_with(house, &format!("[postgres]\n{}\n", with_tokens(house)));
    command.env("STARLING_FAIL_AT", "begin appending to the audit log:1:*=ENOSPC");
    let served = Served::spawn_with(command, false);
    let fingerprint = alerts(&house.data)[0]["fingerprint"].as_str().expect("fingerprint").to_owned();
    let (ada, ivy, aud) = (token(house, "ada"), token(house, "ivy"), token(house, "aud"));
    let alert = format!("/v1/alerts/{fingerprint}");
    let (steps, silence) = (format!("{alert}/steps"), format!("{alert}/silence"));
    for (method, path, token, body) in [
        ("POST", "/v1/sql", &ada, r#"{"sql":"SELECT 4711"}"#),
        ("POST", "/v1/sql", &ada, r#"{"sql":"SELECT count(*) FROM private.person_day"}"#),
        ("GET", "/v1/audit", &aud, ""),
        ("GET", "/v1/alerts", &ivy, ""),
        ("GET", "/v1/alerts/stream", &ivy, ""),
        ("GET", "/v1/alerts/rules", &ivy, ""),
        ("GET", "/v1/alerts/silences", &ivy, ""),
        ("GET", alert.as_str(), &ivy, ""),
        ("POST", steps.as_str(), &ivy, r#"{"step":"note","text":"x"}"#),
        ("POST", silence.as_str(), &ivy, r#"{"for":"1h","text":"x"}"#),
        ("DELETE", silence.as_str(), &ivy, ""),
    ] {
        let answer = send(&served.http, method, path, &[token], body);
        assert_eq!(answer.refusal(), (503, "58030".to_owned()), "{method} {path}: {}", answer.text());
        assert!(!answer.text().contains("4711") && !answer.text().contains(&fingerprint), "{method} {path}");
    }
    for password in [PASSWORD, "wrong-horse-battery"] {
        let login = served.log_in_with("ada", password, &[]);
        assert!(login.refusal() == (503, "58030".to_owned()) && login.header("set-cookie").is_none(), "{}", login.text());
    }
    // What tells of nobody is told.
    for path in ["/v1/me", "/v1/metrics", "/v1/health", "/v1/promises"] {
        assert_eq!(served.get(path, &[&ada]).status, 200, "{path}");
    }
}

pub(crate) fn i6_a_stream_ends_where_the_log_cannot_be_written(house: &House) {
    let mut command = Served::command_with(house, &format!("[postgres]\n{}\n", with_tokens(house)));
    // The first entry is the opening's, and there is none after it.
    command.env("STARLING_FAIL_AT", "begin appending to the audit log:2:*=ENOSPC");
    let (served, other) = (Served::spawn_with(command, false), with_users(house, ""));
    let ivy = token(house, "ivy");
    let mut stream = connect(&served.http);
    stream.write_all(request(&served.http, "GET", "/v1/alerts/stream", &[&ivy], "").as_bytes()).expect("follows");
    let (mut said, mut buffer) = (Vec::<u8>::new(), [0; 65_536]);
    while !String::from_utf8_lossy(&said).contains("event: alert") {
        let some = stream.read(&mut buffer).expect("it is told what there is");
        assert_ne!(some, 0, "it goes on: {}", String::from_utf8_lossy(&said));
        said.extend_from_slice(&buffer[..some]);
    }
    // What comes later is another read.
    let fingerprint = alerts(&house.data)[1]["fingerprint"].as_str().expect("fingerprint").to_owned();
    let steps = format!("/v1/alerts/{fingerprint}/steps");
    let note = r#"{"step":"note","text":"n0t recorded"}"#;
    until("a step is taken", || other.post(&steps, &[&ivy], note).status == 200);
    stream.set_read_timeout(Some(std::time::Duration::from_millis(50))).expect("timeout");
    until("the stream ends", || match stream.read(&mut buffer) {
        Ok(0) => true,
        Ok(some) => {
            said.extend_from_slice(&buffer[..some]);
            false
        }
        Err(_) => false,
    });
    assert!(!Answer::read(&said).text().contains("n0t recorded"));
    assert!(served.log().contains("a stream of alerts ends"), "{}", served.log());
    assert_eq!(served.get("/v1/alerts", &[&ivy]).refusal(), (503, "58030".to_owned()));
}

pub(crate) fn i4_no_log_holds_a_password_a_token_a_cookie_or_what_was_asked(house: &House) {
    let mut command = Served::command_with(house, &format!("[postgres]\n{}\n", with_tokens(house)));
    command.args(["--log", "trace"]);
    let served = Served::spawn_with(command, false);
    let token = token(house, "aud");
    let cookie = served.log_in("ada");
    served.ask(&[&cookie, "X-Starling: 1"], "SELECT count(*) FROM stats.calls_daily WHERE status = 'c4n4ry'");
    served.ask(&[&token], "SELECT CAST('c4n4ry' AS INT)");
    served.log_in_with("ada", "wrong-horse-c4n4ry", &[]);
    served.log_in_with("eve-c4n4ry", "wrong-horse-c4n4ry", &[]);
    served.get("/v1/me", &["Authorization: Bearer wrong-c4n4ry"]);
    served.get("/v1/me", &["Cookie: starling_session=wrong-c4n4ry"]);
    served.post("/v1/login", &[], r#"{"name":"ada","password":"c4n4ry""#);
    served.get("/console/c4n4ry", &[]);
    let audit = succeed(starling().args(["audit", "tail", "--lines", "100000", "--data-dir"]).arg(&house.data));
    let log = served.log();
    assert!(log.contains("logins over HTTP were refused") && log.contains("DEBUG"), "it says a lot, and this: {log}");
    let value = |line: &str| line.rsplit([' ', '=']).next().unwrap().to_owned();
    let secrets: BTreeSet<String> = [value(&token), value(&cookie), PASSWORD.to_owned(), "c4n4ry".to_owned()].into();
    assert!(secrets.iter().all(|secret| secret.len() > 5), "{secrets:?}");
    let users = std::fs::read_to_string(house.dir.path().join("tokens.toml")).expect("users");
    let kept: Vec<&str> = users
        .lines()
        .filter_map(|line| ["verifier = \"", "decoy = \"", "token_hash = \""].iter().find_map(|name| line.strip_prefix(name)))
        .flat_map(|line| line.trim_end_matches('"').split(['$', ':']))
        .filter(|part| part.len() > 20)
        .collect();
    assert!(kept.len() > 20, "{}", kept.len());
    for text in [&log, &audit] {
        for secret in secrets.iter().map(String::as_str).chain(kept.iter().copied()) {
            let line = text.lines().find(|line| line.contains(secret));
            assert!(line.is_none(), "{secret}: {}", line.unwrap_or_default());
        }
    }
    assert!(!users.contains(&value(&token)) && !users.contains(PASSWORD));
    // Nor does the settings' own text.
    let shown = json!(succeed(starling().args(["config", "show"])));
    assert!(shown.as_str().unwrap().contains("tls_key_file"));
}
