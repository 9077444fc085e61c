//! Who may enter which route: the golden table.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};

use serde_json::{Value, json};

use crate::client::{Answer, connect, request, send};
use crate::doors::{Doors, SERVICE};
use crate::house::House;
use crate::support::alerts;

/// Callers in the order of the table's columns.
const CALLERS: [&str; 9] = ["nobody", "product", "privacy", "integrity", "engineer", "auditor", "billing", "service", "local"];

const STEP: &str = r#"{"step":"note","text":"looked at"}"#;
const SILENCE: &str = r#"{"for":"1h","text":"known"}"#;
const RESTORE: &str = r#"{"text":"looked at"}"#;
const STATS: &str = r#"{"sql":"SELECT count(*) FROM stats.calls_daily"}"#;
const PRIVATE: &str = r#"{"sql":"EXPLAIN PRIVACY SELECT count(*) FROM private.person_day"}"#;

const BILLED: &str = r#"{"sql":"SELECT sum(sent) FROM billing.daily"}"#;
const NAMED: &str = r#"{"sql":"SELECT name FROM business.accounts WHERE business = 'airline'"}"#;

/// Method, path, body, and the status for each of [`CALLERS`].
#[rustfmt::skip]
const TABLE: [(&str, &str, &str, [u16; 9]); 28] = [
    //                                                 nobody, product, privacy, integrity, engineer, auditor, billing, service, local
    ("GET",    "/livez",                   "",        [200, 200, 200, 200, 200, 200, 200, 200, 200]),
    ("GET",    "/readyz",                  "",        [200, 200, 200, 200, 200, 200, 200, 200, 200]),
    ("GET",    "/",                        "",        [200, 200, 200, 200, 200, 200, 200, 200, 200]),
    ("GET",    "/console/index.html",      "",        [200, 200, 200, 200, 200, 200, 200, 200, 200]),
    ("GET",    "/v1/openapi.json",         "",        [200, 200, 200, 200, 200, 200, 200, 200, 200]),
    ("POST",   "/v1/login",                "{}",      [400, 400, 400, 400, 400, 400, 400, 400, 400]),
    ("GET",    "/v1/me",                   "",        [401, 200, 200, 200, 200, 200, 200, 200, 200]),
    ("POST",   "/v1/sql",                  STATS,     [401, 200, 200, 200, 200, 200, 200, 200, 200]),
    ("POST",   "/v1/sql",                  PRIVATE,   [401, 200, 403, 403, 403, 403, 403, 403, 403]),
    ("POST",   "/v1/sql",                  BILLED,    [401, 403, 403, 403, 403, 403, 200, 403, 200]),
    ("POST",   "/v1/sql",                  NAMED,     [401, 200, 403, 200, 403, 403, 200, 200, 200]),
    ("GET",    "/v1/metrics",              "",        [401, 200, 200, 200, 200, 200, 200, 200, 200]),
    ("GET",    "/v1/budget",               "",        [401, 200, 200, 403, 200, 200, 403, 403, 200]),
    ("GET",    "/v1/audit",                "",        [401, 403, 200, 403, 403, 200, 403, 403, 200]),
    ("GET",    "/v1/health",               "",        [401, 200, 200, 200, 200, 200, 200, 200, 200]),
    ("GET",    "/v1/promises",             "",        [401, 200, 200, 200, 200, 200, 200, 200, 200]),
    ("GET",    "/v1/alerts",               "",        [401, 403, 403, 200, 403, 403, 403, 200, 200]),
    ("GET",    "/v1/alerts/stream",        "",        [401, 403, 403, 200, 403, 403, 403, 200, 200]),
    ("GET",    "/v1/alerts/rules",         "",        [401, 403, 403, 200, 403, 403, 403, 200, 200]),
    ("GET",    "/v1/alerts?kept=true",     "",        [401, 403, 403, 200, 403, 403, 403, 200, 200]),
    // Nothing is demoted: who may is told that.
    ("POST",   "/v1/alerts/rules/{rule}/restore", RESTORE, [401, 403, 403, 404, 403, 403, 403, 404, 404]),
    ("GET",    "/v1/alerts/silences",      "",        [401, 403, 403, 200, 403, 403, 403, 200, 200]),
    ("GET",    "/v1/alerts/{alert}",       "",        [401, 403, 403, 200, 403, 403, 403, 200, 200]),
    ("POST",   "/v1/alerts/{alert}/steps", STEP,      [401, 403, 403, 200, 403, 403, 403, 200, 200]),
    ("POST",   "/v1/alerts/{alert}/silence", SILENCE, [401, 403, 403, 200, 403, 403, 403, 200, 200]),
    ("DELETE", "/v1/alerts/{alert}/silence", "",      [401, 403, 403, 200, 403, 403, 403, 200, 200]),
    // What is not there is nobody's.
    ("GET",    "/v1/nothing",              "",        [404, 404, 404, 404, 404, 404, 404, 404, 404]),
    // Last: it is a session's.
    ("POST",   "/v1/logout",               "",        [401, 204, 204, 204, 204, 204, 204, 204, 204]),
];

pub(crate) fn p32_p33_p34_p35_every_role_enters_the_rooms_its_row_of_the_table_names(house: &House) {
    let doors = Doors::open(house);
    let asked = every_cell(house, &doors, 0, &CALLERS, |caller| doors.of(caller));
    let document = doors.users.get("/v1/openapi.json", &[]).json();
    let told: BTreeSet<(String, String)> = document["paths"]
        .as_object()
        .expect("paths")
        .iter()
        .flat_map(|(path, operations)| {
            operations.as_object().expect("operations").keys().map(move |method| (method.clone(), path.clone()))
        })
        .collect();
    assert_eq!(asked, told, "every route has its line in the table");
}

/// Asks all that stands in the table as each of these callers; gives method and path of each route. `of`: where a caller asks, and the header line
/// that says who it is; `alert`: which one is worked on, so that tests beside each other have one each.
pub(crate) fn every_cell(
    house: &House,
    doors: &Doors,
    alert: usize,
    callers: &[&str],
    of: impl Fn(&str) -> (String, Option<String>),
) -> BTreeSet<(String, String)> {
    let fingerprint = alerts(&house.data)[alert]["fingerprint"].as_str().expect("fingerprint").to_owned();
    let mut asked = BTreeSet::new();
    for (method, path, body, expected) in TABLE {
        if path != "/v1/nothing" {
            let path = path.split('?').next().unwrap();
            asked.insert((method.to_lowercase(), path.replace("index.html", "{path}")));
        }
        for (caller, expected) in CALLERS.into_iter().zip(expected) {
            if !callers.contains(&caller) {
                continue;
            }
            let (address, token) = of(caller);
            let token: Vec<&str> = token.iter().map(String::as_str).collect();
            let said = with_a_name(caller, path, body);
            let path =
                with_a_name_in_the_address(caller, method, &path.replace("{alert}", &fingerprint).replace("{rule}", "slow_bulk"));
            if method == "DELETE" {
                // Each ends one of its own.
                let silence = r#"{"by":"ana","for":"1h","text":"known"}"#;
                assert_eq!(doors.local.post(path.split('?').next().unwrap(), &[], silence).status, 200);
            }
            let answer = if path.ends_with("/stream") {
                head(&address, &path, &token)
            } else {
                send(&address, method, &path, &token, &said)
            };
            assert_eq!(answer.status, expected, "{caller}: {method} {path}: {}", answer.text());
            if answer.status >= 400 {
                let told = answer.json();
                let code = if expected == 401 { "28000" } else { told["code"].as_str().unwrap() };
                assert_eq!((&told["code"], told["hint"].is_string()), (&json!(code), true), "{caller}: {method} {path}: {told}");
                assert!(!answer.text().contains(&fingerprint), "{caller}: {method} {path}");
            }
        }
    }
    asked
}

/// Where nobody has logged in the body says whose step it is.
fn with_a_name(caller: &str, path: &str, body: &str) -> String {
    let by = matches!(caller, "service" | "local") && (path.contains("{alert}") || path.contains("{rule}"));
    if by { body.replacen('{', r#"{"by":"ana","#, 1) } else { body.to_owned() }
}

fn with_a_name_in_the_address(caller: &str, method: &str, path: &str) -> String {
    let by = matches!(caller, "service" | "local") && method == "DELETE";
    if by { format!("{path}?by=ana") } else { path.to_owned() }
}

/// Only the head of an answer that does not end.
fn head(address: &str, path: &str, headers: &[&str]) -> Answer {
    let mut stream = connect(address);
    stream.write_all(request(address, "GET", path, headers, "").as_bytes()).expect("asks");
    let (mut bytes, mut byte) = (Vec::new(), [0]);
    while !bytes.ends_with(b"\r\n\r\n") && stream.read(&mut byte).expect("reads") == 1 {
        bytes.push(byte[0]);
    }
    let answer = Answer::read(&bytes);
    if answer.status == 200 {
        return answer;
    }
    let _ = stream.read_to_end(&mut bytes);
    Answer::read(&bytes)
}

pub(crate) fn everybody_is_told_who_it_is_and_what_it_may_see(house: &House) {
    let doors = Doors::open(house);
    let me = |caller: &str| {
        let (address, token) = doors.of(caller);
        send(&address, "GET", "/v1/me", &token.iter().map(String::as_str).collect::<Vec<_>>(), "").json()
    };
    for (caller, way, team, schemas, alerts, audit, budget) in [
        ("product", "token", "product", json!(["stats", "meta", "private", "business"]), false, false, true),
        ("integrity", "token", "integrity", json!(["stats", "meta", "integrity", "business"]), true, false, false),
        ("auditor", "token", "audit", json!(["stats", "meta"]), false, true, true),
        ("billing", "token", "finance", json!(["stats", "meta", "billing", "business"]), false, false, false),
        ("service", "service", "service", json!(["stats", "meta", "integrity", "business"]), true, false, false),
        ("local", "local", "local", json!(["stats", "meta", "integrity", "billing", "business"]), true, true, true),
    ] {
        let me = me(caller);
        let may = &me["may"];
        let seen = (&me["way"], &me["team"], &may["schemas"], &may["alerts"], &may["audit"], &may["budget"]);
        assert_eq!(seen, (&json!(way), &json!(team), &schemas, &json!(alerts), &json!(audit), &json!(budget)), "{caller}: {me}");
        assert_eq!(me["users"], json!(caller != "local"));
        let role = if caller == "service" { "integrity" } else { caller };
        assert_eq!(me["role"], role);
    }
    // Of budgets a product team sees its own and what releases spent, others all.
    let teams = |caller: &str, part: &str, name: &str| -> BTreeSet<String> {
        let (address, token) = doors.of(caller);
        let budget = send(&address, "GET", "/v1/budget", &token.iter().map(String::as_str).collect::<Vec<_>>(), "").json();
        budget[part].as_array().expect("rows").iter().map(|row| row[name].as_str().unwrap().to_owned()).collect()
    };
    let set = |names: &[&str]| -> BTreeSet<String> { names.iter().map(|name| (*name).to_owned()).collect() };
    assert_eq!(teams("product", "allotments", "team"), set(&["product"]));
    assert_eq!(teams("engineer", "allotments", "team"), set(&["engineering", "product"]));
    assert!(teams("product", "charges", "who").is_subset(&set(&["releases", "product"])));
    assert!(teams("product", "charges", "who").contains("releases"));
}

pub(crate) fn a_step_is_taken_under_ones_own_name(house: &House) {
    let doors = Doors::open(house);
    let alert = alerts(&house.data)[1]["fingerprint"].as_str().expect("fingerprint").to_owned();
    let (path, token) = (format!("/v1/alerts/{alert}/steps"), doors.token("ivy"));
    let step = |headers: &[&str], body: &str| doors.users.post(&path, headers, body);
    let other = step(&[&token], r#"{"by":"ana","step":"take","assignee":"ivy"}"#);
    assert_eq!(other.refusal(), (403, "42501".to_owned()), "{}", other.text());
    for body in [r#"{"step":"take","assignee":"ivy"}"#, r#"{"by":"ivy","step":"note","text":"mine"}"#] {
        assert_eq!(step(&[&token], body).status, 200, "{body}");
    }
    let service = format!("Authorization: Bearer {SERVICE}");
    assert_eq!(step(&[&service], r#"{"step":"note","text":"whose"}"#).refusal(), (400, "22032".to_owned()));
    assert_eq!(step(&[&service], r#"{"by":"siem","step":"note","text":"from there"}"#).status, 200);
    let shown = doors.users.get(&format!("/v1/alerts/{alert}"), &[&token]).json();
    let by: Vec<&Value> = shown["steps"].as_array().expect("steps").iter().map(|step| &step["by"]).collect();
    assert_eq!(by, ["ivy", "ivy", "siem"]);
    // A silence, and its end, by the same rule.
    let path = format!("/v1/alerts/{alert}/silence");
    let other = doors.users.post(&path, &[&token], r#"{"by":"ana","for":"7d","text":"a campaign we know"}"#);
    assert_eq!(other.refusal(), (403, "42501".to_owned()));
    let silenced = doors.users.post(&path, &[&token], r#"{"for":"7d","text":"a campaign we know"}"#);
    assert!(silenced.json()["work"]["silenced_until_ms"].is_i64(), "{}", silenced.text());
    let list = doors.users.get("/v1/alerts/silences", &[&token]).json();
    let ours = list["silences"].as_array().expect("silences").iter().find(|silence| silence["text"] == "a campaign we know");
    assert_eq!(ours.expect("ours")["owner"], "ivy");
    for (lasts, status) in [("forever", 400), ("-1d", 400), ("31d", 422)] {
        let answer = doors.users.post(&path, &[&token], &json!({ "for": lasts, "text": "too long" }).to_string());
        assert_eq!(answer.status, status, "{lasts}: {}", answer.text());
    }
    assert_eq!(send(&doors.users.http, "DELETE", &format!("{path}?by=ana"), &[&token], "").status, 403);
    let ended = send(&doors.users.http, "DELETE", &path, &[&token], "");
    assert!(ended.status == 200 && ended.json()["work"]["silenced_until_ms"].is_null(), "{}", ended.text());
    assert_eq!(send(&doors.users.http, "DELETE", &path, &[&token], "").status, 404);
}
