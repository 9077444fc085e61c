//! # The PostgreSQL door, knocked at by real clients
//!
//! A simulated trace is taken to its end by the executable; `starling serve` then answers psql and psycopg, and what they get is compared with
//! what `starling sql` says. Who is no client at all comes over a bare socket.
//!
//! psql is Debian's `postgresql-client`; psycopg, asyncpg and SQLAlchemy come from PyPI by `tests/accounting/python.sh`, in the versions of
//! `requirements.txt`, pgjdbc from Maven Central by `jdbc/start.sh`. Where one of them is not to be had these tests are reported as ignored, never as passed.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, dead_code)]

#[path = "../http_door/authority.rs"]
mod authority;
mod catalogue;
mod certificates;
mod house;
mod leaving;
mod on_us;
mod parameters;
#[path = "../journey/support.rs"]
mod support;
mod words;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use catalogue::{
    a_session_may_shorten_its_time_and_mark_places_in_a_block, jdbc_is_there, jdbc_looks_around_prepares_and_binds_in_binary,
    psql_shows_what_a_role_may_read, sqlalchemy_finds_its_way_without_a_word_of_sql,
    what_dbeaver_metabase_and_grafana_ask_first_is_answered,
};
use certificates::a_certificate_opens_the_door_for_its_user_and_under_no_other_name;
use house::{House, PASSWORD, Served, house};
use leaving::{a_session_ends_with_what_it_was_opened_with, statements_of_one_user_wait_for_their_turn_and_nobody_else_for_them};
use libtest_mimic::{Arguments, Trial};
use on_us::p28_what_is_refused_is_counted_once_whichever_way_it_is_asked;
use parameters::{values_are_bound_as_drivers_bind_them, what_is_bound_is_a_literal_and_nothing_else};
use serde_json::{Value, json};
use support::{fail, sql, starling, succeed, workspace};
use words::an_error_has_a_detail_that_tells_its_kind_and_what_was_charged;

/// Metrics with and without days that are suppressed, and tables with moments, whole numbers and text.
const TABLES: [&str; 6] =
    ["stats.messages_daily", "stats.people_served_daily", "stats.calls_daily", "meta.releases", OWN_COLUMNS, "meta.metrics"];
/// Of what the operator is told, at the command line, all that a product team is told.
const OWN_COLUMNS: &str = "(SELECT * FROM meta.columns WHERE table_schema NOT IN ('billing', 'integrity')) AS c";

fn rows_are_those_of_starling_sql_as_text_and_in_binary(house: &House) {
    let served = Served::start(house, &[]);
    let mut client = served.psycopg("ada", &[]);
    let expected = house.dir.path().join("expected.json");
    let mut values = 0;
    for table in TABLES {
        let statement = format!("SELECT * FROM {table}");
        let mut command = starling();
        command.args(["sql", "--format", "json", "--data-dir"]).arg(&house.data).arg(&statement);
        std::fs::write(&expected, succeed(&mut command)).expect("writes");
        for binary in [false, true] {
            let answer = client.ask(json!({ "sql": statement, "binary": binary, "equals": expected }));
            assert!(answer["rows"].as_u64() > Some(0), "{table}: {answer}");
            assert_eq!((&answer["rows"], &answer["differ"]), (&answer["expected"], &json!([])), "{table}, binary {binary}");
        }
        values += sql(&house.data, &format!("SELECT count(*) AS n FROM {table}"))[0]["n"].as_u64().unwrap();
    }
    assert!(values > 1_000, "{values}");
    let seen = client.ask(json!({ "sql": "SELECT count(value) FROM stats.people_served_daily" }));
    assert!(seen["rows"][0][0].as_u64() > Some(0), "numbers are among them: {seen}");
    // Every type, and NULL in each.
    let typed = "SELECT CAST(1 AS SMALLINT), 2, CAST(0.5 AS REAL), 0.1, DATE '2026-01-05', TIMESTAMP '2026-01-05 10:00:00.5', 'é', true, NULL \
                 UNION ALL SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL ORDER BY 2 NULLS LAST";
    for binary in [false, true] {
        let answer = client.ask(json!({ "sql": typed, "binary": binary }));
        assert_eq!(answer["types"], json!([21, 20, 700, 701, 1082, 1114, 25, 16, 25]), "{answer}");
        let row = json!([1, 2, 0.5, 0.1, "2026-01-05", "2026-01-05T10:00:00.5", "é", true, null]);
        assert_eq!(answer["rows"], json!([row, vec![Value::Null; 9]]), "binary {binary}");
    }
    // psql, as a person has it.
    let statement = "SELECT day, status, value FROM stats.people_served_daily ORDER BY day, value";
    let shown = served.psql("ada", &["--csv", "-c", statement]).0;
    let theirs: Vec<Vec<String>> = shown.lines().skip(1).map(|line| line.split(',').map(str::to_owned).collect()).collect();
    let ours = sql(&house.data, statement);
    assert_eq!(theirs.len(), ours.len());
    for (theirs, ours) in theirs.iter().zip(&ours) {
        assert_eq!(theirs[0], ours["day"].as_str().unwrap());
        assert_eq!(theirs[2].parse::<f64>().ok(), ours["value"].as_f64(), "{theirs:?}");
    }
}

fn only_a_password_opens_the_door(house: &House) {
    let served = Served::start(house, &[]);
    assert!(served.psql("ada", &["-Atc", "SELECT 1"]).0.contains('1'));
    let wrong = served.psql_as("ada", "wrong-horse-battery", &["-c", "SELECT 1"]);
    let unknown = served.psql_as("nobody", PASSWORD, &["-c", "SELECT 1"]);
    assert!(wrong.1.contains("FATAL:  name and password do not fit"), "{wrong:?}");
    assert_eq!(wrong, unknown, "a name that is there and one that is not look the same");
    let none = served.psql_as("ada", "", &["-w", "-c", "SELECT 1"]);
    assert!(none.0.is_empty() && none.1.contains("password"), "{none:?}");
    // Removed, nobody gets in any more, and at once.
    house.users(&["add", "leaver", "--role", "engineer", "--team", "engineering"]);
    assert!(served.psql("leaver", &["-Atc", "SELECT 1"]).0.contains('1'));
    house.users(&["remove", "leaver"]);
    assert!(served.psql("leaver", &["-c", "SELECT 1"]).1.contains("do not fit"));
    let again =
        fail(house.users_command(&["add", "ada", "--role", "product", "--team", "product"]).stdin(std::process::Stdio::null()));
    assert!(again.contains("--replace"), "{again}");
    let listed = succeed(&mut house.users_command(&["list"]));
    assert!(listed.contains("ada") && !listed.contains("SCRAM"), "{listed}");
}

/// What the doctor says of these lines under `[postgres]`.
fn doctor(house: &House, lines: &[&str], good: bool) -> String {
    let settings = house.dir.path().join("doctor.toml");
    let text = format!(
        "[serve]\nlisten = \"127.0.0.1:0\"\n[metrics]\nlisten = \"\"\n[postgres]\nlisten = \"127.0.0.1:0\"\n{}\n",
        lines.join("\n")
    );
    std::fs::write(&settings, text).expect("writes");
    let mut command = starling();
    let output = command.args(["doctor", "--config"]).arg(&settings).arg("--data-dir").arg(&house.data).output().expect("starts");
    let told = support::told(&output);
    assert_eq!(output.status.success(), good, "{told}");
    told
}

fn tls_is_all_or_nothing(house: &House) {
    let (certificate, key) = house.certificate();
    let path = |path: &std::path::Path| format!("{:?}", path.display().to_string());
    let tls = [format!("tls_cert_file = {}", path(&certificate)), format!("tls_key_file = {}", path(&key))];
    let tls: Vec<&str> = tls.iter().map(String::as_str).collect();
    let served = Served::start(house, &tls);
    let verified = format!("sslmode=verify-full sslrootcert={}", certificate.display());
    let (out, err) = served.psql_with("ada", &verified, &["-Atc", "SELECT 40 + 2", "-c", "\\conninfo"]);
    assert!(out.contains("42") && out.contains("TLS"), "{out}{err}");
    let (out, err) = served.psql_with("ada", "sslmode=disable", &["-c", "SELECT 40 + 2"]);
    assert!(out.is_empty() && err.contains("under TLS only"), "{out}{err}");
    // A cancel request, in clear text or not, says nothing but its key.
    let mut client = served.psycopg("ada", &["sslmode=require"]);
    assert_eq!(client.ask(json!({ "sql": "SELECT 1" }))["rows"], json!([[1]]));

    // What cannot be used ends the process, before anybody is let in.
    let bad = house.dir.path().join("bad.pem");
    std::fs::write(&bad, "-----BEGIN PRIVATE KEY-----\nbm9uZQ==\n-----END PRIVATE KEY-----\n").expect("writes");
    let other = house.other_key();
    let nowhere = house.dir.path().join("nowhere.pem");
    for (certificate, key, expected) in [
        (&certificate, &bad, "tls_key_file"),
        (&certificate, &other, "is not the key of"),
        (&certificate, &nowhere, "cannot be read as a key"),
        (&nowhere, &key, "cannot be read as a certificate"),
        (&key, &key, "there is no certificate"),
    ] {
        let lines = [format!("tls_cert_file = {}", path(certificate)), format!("tls_key_file = {}", path(key))];
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let told = fail(&mut Served::command(house, &lines));
        assert!(told.contains(expected), "{expected}: {told}");
        let told = doctor(house, &lines, false);
        assert!(told.lines().any(|line| line.starts_with("FAIL") && line.contains(expected)), "{expected}: {told}");
    }
    let told = doctor(house, &tls, true);
    assert!(told.contains("postgres: certificate and key belong together") && told.contains("may log in"), "{told}");
    let mut open = Served::command(house, &[]);
    let told = fail(open.env("STARLING_POSTGRES__LISTEN", "0.0.0.0:0"));
    assert!(told.contains("clear text"), "{told}");
    let mut nobody = Served::command(house, &["users_file = \"/nowhere/users.toml\""]);
    let told = fail(&mut nobody);
    assert!(told.contains("starling users add"), "{told}");
}

fn p32_a_role_reads_what_its_row_of_the_table_says(house: &House) {
    let served = Served::start(house, &[]);
    for (user, private) in [("ada", true), ("ivy", false), ("pia", false), ("eng", false), ("aud", false)] {
        let mut client = served.psycopg(user, &[]);
        for schema in ["SELECT count(*) FROM stats.calls_daily", "SELECT count(*) FROM meta.budget"] {
            assert!(client.ask(json!({ "sql": schema }))["rows"].is_array(), "{user}: {schema}");
        }
        let schemas = client.ask(json!({ "sql": "SELECT DISTINCT table_schema FROM meta.columns ORDER BY 1" }))["rows"].clone();
        let expected = match user {
            "ada" => json!([["business"], ["meta"], ["private"], ["stats"]]),
            "ivy" => json!([["business"], ["integrity"], ["meta"], ["stats"]]),
            _ => json!([["meta"], ["stats"]]),
        };
        assert_eq!(schemas, expected, "{user}");
        let alerts = client.ask(json!({ "sql": "SELECT rule, severity, state FROM integrity.alerts" }));
        assert_eq!(alerts["rows"].is_array(), user == "ivy", "{user}: {alerts}");
        assert!(user == "ivy" || alerts["code"] == "42501", "{user}: {alerts}");
        let named = client.ask(json!({ "sql": "SELECT name FROM business.accounts WHERE business = 'airline'" }));
        let may_name = ["ada", "ivy"].contains(&user);
        assert_eq!(named["rows"] == json!([["Starling Air"]]), may_name, "P34: {user}: {named}");
        assert!(may_name || named["code"] == "42501", "{user}: {named}");
        for binary in [false, true] {
            for sql in [
                "EXPLAIN PRIVACY SELECT count(*) FROM private.person_day",
                "SELECT * FROM (SELECT count(*) FROM starling.private.person_day) AS t",
                "DESCRIBE private.person_day",
            ] {
                let answer = client.ask(json!({ "sql": sql, "binary": binary }));
                if private {
                    assert!(answer["rows"].is_array(), "{user}: {sql}: {answer}");
                } else {
                    assert_eq!(answer["code"], "42501", "{user}: {sql}: {answer}");
                    assert!(answer["message"].as_str().unwrap().contains("may not read private"), "{answer}");
                    assert!(answer["hint"].as_str().unwrap().contains("product"), "{answer}");
                }
            }
        }
    }
}

fn a_private_question_is_charged_to_the_team_told_and_free_when_asked_again(house: &House) {
    let served = Served::start(house, &[]);
    let question = "SELECT platform, COUNT(DISTINCT person) AS people FROM private.person_day WHERE day = '2026-01-05' GROUP BY platform \
                    SETTINGS epsilon = 0.05";
    // Other tests have others pay for other questions meanwhile. Only this one has a team of engineering pay.
    let paid = |condition: &str| -> BTreeMap<String, String> {
        let rows = sql(&house.data, &format!("SELECT question, who FROM meta.charges WHERE {condition}"));
        rows.iter().map(|row| (row["question"].as_str().unwrap().to_owned(), row["who"].as_str().unwrap().to_owned())).collect()
    };
    assert!(paid("who = 'engineering'").is_empty());
    let mut client = served.psycopg("joe", &[]);
    let first = client.ask(json!({ "sql": question }));
    let notices = first["notices"].to_string();
    assert!(notices.contains("NOTICE private.person_day: cost rho"), "{first}");
    assert!(notices.contains("team engineering has rho") && notices.contains("left"), "{first}");
    let ours = paid("who = 'engineering'");
    assert_eq!(ours.len(), 1, "its own team pays");
    let charged = format!("question = '{}'", ours.keys().next().unwrap());
    let charges = || sql(&house.data, &format!("SELECT count(*) AS n FROM meta.charges WHERE {charged}"))[0]["n"].as_u64();
    assert_eq!((paid(&charged), charges()), (ours.clone(), Some(1)), "nobody else does");
    for binary in [false, true] {
        let again = client.ask(json!({ "sql": question, "binary": binary }));
        assert_eq!(again["rows"], first["rows"], "the same numbers");
        assert!(again["notices"].to_string().contains("free"), "{again}");
    }
    // By another team, at another door: the same answer, and free.
    let output =
        starling().args(["sql", "--format", "json", "--data-dir"]).arg(&house.data).arg(question).output().expect("starts");
    let rows: Vec<Value> = String::from_utf8(output.stdout).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let theirs: Vec<Value> = rows.iter().map(|row| json!([row["platform"], row["people"]])).collect();
    assert_eq!(json!(theirs), first["rows"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("free"));
    assert_eq!((paid("who = 'engineering'"), paid(&charged), charges()), (ours.clone(), ours, Some(1)));
    // A role that may ask, of a team that has nothing to pay with.
    let mut poor = served.psycopg("poor", &[]);
    let refused = poor.ask(json!({ "sql": "SELECT COUNT(*) FROM private.person_day WHERE day = '2026-01-06'" }));
    assert!(refused["code"] == "42501" && refused["message"].as_str().unwrap().contains("no allotment"), "{refused}");
}

fn tail(house: &House) -> String {
    succeed(starling().args(["audit", "tail", "--lines", "10000", "--data-dir"]).arg(&house.data))
}

/// How many entries of a kind name this user.
fn entries(house: &House, kind: &str, user: &str) -> usize {
    tail(house).lines().filter(|line| line.contains(kind) && line.contains(&format!("\"{user}\""))).count()
}

/// Begins [`LONG`] and waits until it is in the log, which is written just before it is worked on. Nobody else may ask as this
/// user meanwhile.
fn begin_long(house: &House, client: &mut house::Client, user: &str) {
    let before = entries(house, "sql_read", user);
    client.begin(json!({ "sql": LONG }));
    until("its statement is in the log", || entries(house, "sql_read", user) > before);
}

/// How long anything may take before a test gives up: it measures nothing.
const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until something holds.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn p40_i6_logins_and_statements_are_in_the_log_before_anything_is_served(house: &House) {
    let served = Served::start(house, &[]);
    let entries = |kind: &str, user: &str| entries(house, kind, user);
    let before = (entries("sql_login", "amy"), entries("sql_read", "amy"));
    let mut client = served.psycopg("amy", &[]);
    for binary in [false, true] {
        client.ask(json!({ "sql": "SELECT count(*) FROM stats.calls_daily WHERE status = 'c4n4ry'", "binary": binary }));
    }
    client.ask(json!({ "sql": "SELECT count(*) FROM private.person_day" }));
    assert_eq!((entries("sql_login", "amy"), entries("sql_read", "amy")), (before.0 + 1, before.1 + 3));
    assert!(!tail(house).contains("c4n4ry"), "what was asked is not in the log");
    succeed(starling().args(["audit", "verify", "--data-dir"]).arg(&house.data));

    let unlogged = |from: u32| {
        let fault = format!("begin appending to the audit log:{from}:*=ENOSPC");
        let mut command = Served::command(house, &[]);
        command.env("STARLING_FAIL_AT", fault);
        Served::spawn(command)
    };
    // The login is the first entry, the statement the second.
    let out = unlogged(1).psql("ada", &["-Atc", "SELECT 4711"]);
    assert!(!out.0.contains("4711") && out.1.contains("audit log cannot be written"), "{out:?}");
    let out = unlogged(2)
        .psql("ada", &["-Atc", "SHOW server_version", "-c", "SELECT 4711", "-c", "SELECT count(*) FROM stats.calls_daily"]);
    assert!(out.0.trim() == "16.0" && out.1.matches("audit log cannot be written").count() == 2, "{out:?}");
}

/// Three copies side by side: more than the engine does in its ten seconds.
const LONG: &str = "SELECT count(*) FROM stats.messages_daily a, stats.messages_daily b, stats.messages_daily c \
                    WHERE a.epsilon + b.epsilon + c.epsilon < 0";

fn a_statement_ends_when_it_is_cancelled_when_its_client_goes_and_when_its_time_is_up(house: &House) {
    let served = Served::start(house, &[]);
    let mut client = served.psycopg("ada", &[]);
    for binary in [false, true] {
        let answer = client.ask(json!({ "sql": LONG, "binary": binary, "cancel": 0.7 }));
        assert!(answer["code"] == "57014" && answer["message"].as_str().unwrap().contains("cancelled"), "{answer}");
        assert_eq!(client.ask(json!({ "sql": "SELECT 1" }))["rows"], json!([[1]]), "the session goes on");
    }
    let answer = client.ask(json!({ "sql": LONG }));
    assert!(answer["code"] == "57014" && answer["message"].as_str().unwrap().contains("took longer than 10000 ms"), "{answer}");
    // A machine that is very busy may be late with everything, and then a round tells nothing.
    assert!((0..8).any(|_| its_place_is_free_before_its_time_is_up(house)), "it goes on for nobody");
}

/// Whether the place of a client that has gone is free again while a statement that was begun before its own is still in work.
fn its_place_is_free_before_its_time_is_up(house: &House) -> bool {
    let served = Served::start(house, &["connections = 2"]);
    let (mut staying, mut gone) = (served.psycopg("lee", &[]), served.psycopg("lee", &[]));
    let full = served.psql("ivy", &["-Atc", "SELECT 1"]);
    assert!(full.1.contains("too many connections"), "{full:?}");
    // Both at once, since the first one's ten seconds run; each is in the log just before it is worked on.
    let before = entries(house, "sql_read", "lee");
    staying.begin(json!({ "sql": LONG }));
    gone.begin(json!({ "sql": LONG }));
    // Where they wait for the log until their time is up they are never in it.
    let (began, logged) = (Instant::now(), || entries(house, "sql_read", "lee") >= before + 2);
    while !logged() {
        if began.elapsed() > Duration::from_secs(30) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let in_work = std::thread::spawn(move || staying.answer());
    drop(gone);
    until("its place is free", || served.psql("ivy", &["-Atc", "SELECT 1"]).0.contains('1'));
    let is_early = !in_work.is_finished();
    // It ends with its server.
    drop(served);
    let told = in_work.join().expect("an answer");
    assert!(told["rows"].is_null(), "{told}");
    is_early
}

/// What clients send of these is answered from the door's own short list, and changes nothing.
const HARMLESS: [&str; 10] = [
    ";",
    "SET TIME ZONE 'UTC'",
    "SET search_path TO private",
    "SET LOCAL row_security = off",
    "DEALLOCATE p",
    "BEGIN",
    "START TRANSACTION",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT s",
];

fn what_the_gate_refuses_is_refused_here_in_the_same_words(house: &House) {
    let served = Served::start(house, &[]);
    let out = house.dir.path().join("out");
    std::fs::create_dir_all(&out).expect("folder");
    let canary = house.dir.path().join("canary.csv");
    std::fs::write(&canary, "a\n4917012345678\n").expect("writes");
    let query = workspace().join("pipeline/query/tests");
    let mut checked = 0;
    for list in ["refused", "private_refused"] {
        let snapshot = std::fs::read_to_string(query.join(format!("snapshots/{list}.snap"))).expect("snapshot");
        let statements = house::refused_statements(list);
        let mut client = served.psycopg("ada", &[]);
        for template in &statements {
            // What is said of protected tables depends on those there are: the command line knows.
            let sql = template.replace("{canary}", &canary.display().to_string()).replace("{dir}", &out.display().to_string());
            let said = if list == "refused" && !template.to_lowercase().contains("private") {
                snapshot.split(&format!("\n{template}\n  [")).nth(1).map(str::to_owned)
            } else {
                let output = starling().args(["sql", "--data-dir"]).arg(&house.data).arg(&sql).output().expect("starts");
                (!output.status.success())
                    .then(|| String::from_utf8(output.stderr).unwrap().strip_prefix("starling: [").expect("a refusal").to_owned())
            };
            let Some((code, reason)) = said.as_deref().and_then(|said| said.split_once("] ")) else { continue };
            for binary in [false, true] {
                let answer = client.ask(json!({ "sql": sql, "binary": binary }));
                if HARMLESS.contains(&template.as_str()) {
                    assert!(answer["code"].is_null(), "{template}: {answer}");
                    client.ask(json!({ "sql": "ROLLBACK" }));
                    continue;
                }
                checked += 1;
                if template.contains("billing.") {
                    // Who may not read a schema is told that, and not whether the table is there.
                    assert_eq!(
                        (&answer["code"], &answer["message"]),
                        (&json!("42501"), &json!("role product may not read billing.*"))
                    );
                    continue;
                }
                assert_eq!(answer["code"], code, "{template}: {answer}");
                let message = answer["message"].as_str().expect("words");
                assert!(reason.starts_with(message), "{template}\n{message}\n{}", reason.lines().next().unwrap());
                assert!(!answer.to_string().contains("4917012345678"), "{template}");
            }
        }
    }
    assert!(checked >= 300, "{checked}");
    assert_eq!(std::fs::read_dir(&out).expect("folder").count(), 0, "nothing was written");
    // Beside the gate's own: what only this protocol can ask.
    let mut client = served.psycopg("ada", &[]);
    let two = client.ask(json!({ "sql": "BEGIN; SELECT 1" }));
    assert_eq!(two["code"], "42501", "{two}");
}

/// What `parts.py` asks with parameters.
const BOUND: &str = "SELECT count(*) AS n FROM (SELECT day FROM stats.messages_daily WHERE status = 'released' AND day >= '2026-01-05' \
                     AND epsilon > 0.0 LIMIT 7) AS t";

fn clients_that_open_transactions_find_what_they_expect(house: &House) {
    let served = Served::start(house, &[]);
    let mut client = served.psycopg_in_transactions("ada");
    let status = |client: &mut house::Client, expected: &str| {
        assert_eq!(client.ask(json!({ "status": true }))["status"], expected);
    };
    status(&mut client, "IDLE");
    assert_eq!(client.ask(json!({ "sql": "SELECT 1" }))["rows"], json!([[1]]));
    status(&mut client, "INTRANS");
    assert_eq!(client.ask(json!({ "sql": "SELECT 1 / 0" }))["code"], "22012");
    status(&mut client, "INERROR");
    for binary in [false, true] {
        assert_eq!(client.ask(json!({ "sql": "SELECT 1", "binary": binary }))["code"], "25P02");
    }
    assert!(client.ask(json!({ "sql": "ROLLBACK" }))["code"].is_null());
    status(&mut client, "IDLE");
    // Asked often enough psycopg prepares a statement by itself.
    for _ in 0..12 {
        assert_eq!(client.ask(json!({ "sql": "SELECT count(*) > 0 FROM stats.calls_daily" }))["rows"], json!([[true]]));
    }
    for sql in ["DEALLOCATE ALL", "DISCARD ALL", "SET extra_float_digits = 3", "COMMIT"] {
        assert!(client.ask(json!({ "sql": sql }))["code"].is_null(), "{sql}");
    }
    // asyncpg reads a long answer in parts, each an Execute of its own, in binary.
    let whole = sql(&house.data, "SELECT count(*) AS n FROM stats.messages_daily")[0]["n"].as_u64().unwrap();
    let parts = served.asyncpg("ada", "SELECT day, status, epsilon FROM stats.messages_daily", 100);
    let expected: Vec<u64> = (0..whole).step_by(100).map(|start| (whole - start).min(100)).collect();
    assert_eq!(parts["parts"], json!(expected));
    assert_eq!(parts["bound"], json!(sql(&house.data, BOUND)[0]["n"]), "values as parameters, in binary: {parts}");
}

/// A start-up message of `user`.
fn startup(user: &str) -> Vec<u8> {
    let mut body = 196_608_u32.to_be_bytes().to_vec();
    body.extend(format!("user\0{user}\0\0").as_bytes());
    framed(None, &body)
}

fn framed(letter: Option<u8>, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [letter.into_iter().collect::<Vec<u8>>(), length.to_be_bytes().to_vec(), body.to_vec()].concat()
}

/// All that comes until the server closes. Where it closes without having read all that was sent, the connection is reset.
fn until_closed(stream: &mut TcpStream) -> Vec<u8> {
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    let mut out = Vec::new();
    if let Err(error) = stream.read_to_end(&mut out) {
        let is_closed = matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe);
        assert!(is_closed, "the server does not close: {error}");
    }
    out
}

/// Sends bytes, and gives all that comes back until the server closes.
fn knock(address: &str, parts: &[&[u8]]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).expect("connects");
    for part in parts {
        let _ = stream.write_all(part);
        std::thread::sleep(Duration::from_millis(150));
    }
    until_closed(&mut stream)
}

fn whoever_does_not_log_in_gets_nothing_and_is_let_go(house: &House) {
    let served = Served::start(house, &[]);
    let select = framed(Some(b'Q'), b"SELECT 4711\0");
    let sasl = |data: &[u8]| {
        let mut body = b"SCRAM-SHA-256\0".to_vec();
        body.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
        body.extend(data);
        framed(Some(b'p'), &body)
    };
    let proof = framed(Some(b'p'), b"c=biws,r=x,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    let starts = startup("ada");
    for parts in [
        vec![&starts[..], &select],
        // A refused login, and then as if nothing had happened.
        vec![&starts, &sasl(b"n,,n=,r=x"), &proof, &select, &select],
        vec![&starts, &sasl(b"p=tls-server-end-point,,n=,r=x"), &select],
        vec![&starts, &framed(Some(b'p'), b"OAUTHBEARER\0\0\0\0\0"), &select],
        vec![&starts, &framed(Some(b'p'), b"correct-horse-battery\0"), &select],
        vec![&starts, &framed(Some(b'p'), b""), &select],
        vec![&select],
        vec![b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"],
        vec![&0x7fff_ffff_u32.to_be_bytes(), &[0; 4096]],
        vec![&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]],
    ] {
        let said = knock(&served.address, &parts);
        let text = String::from_utf8_lossy(&said).into_owned();
        assert!(!text.contains("4711"), "{text}");
        // AuthenticationOk is R, 8, 0; no answer to a statement begins without it.
        assert!(!said.windows(9).any(|bytes| bytes == [b'R', 0, 0, 0, 8, 0, 0, 0, 0]), "{text}");
    }
    // Silence is let go as well.
    let began = Instant::now();
    let mut silent: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(&served.address).expect("connects")).collect();
    silent[1].write_all(&starts).expect("sends");
    for stream in &mut silent {
        until_closed(stream);
    }
    assert!(began.elapsed().as_secs() >= 8, "{:?}", began.elapsed());
    assert!(served.psql("ada", &["-Atc", "SELECT 1"]).0.contains('1'), "others are served");
    let log = served.log();
    assert!(!log.contains("a defect"), "{log}");
}

fn a_session_hears_that_the_server_stops(house: &House) {
    let mut served = Served::start(house, &[]);
    let mut idle = served.psycopg("ada", &[]);
    assert_eq!(idle.ask(json!({ "sql": "SELECT 1" }))["rows"], json!([[1]]));
    let mut busy = served.psycopg("kim", &[]);
    begin_long(house, &mut busy, "kim");
    let told = std::thread::scope(|scope| {
        let busy = scope.spawn(move || busy.answer());
        assert!(served.terminated().success(), "{}", served.log());
        busy.join().expect("answers")
    });
    // Its own time may be up first, on a machine that is slow to stop.
    let is_late = told["message"].as_str().is_some_and(|message| message.contains("took longer"));
    assert!(told["code"] == "57P01" || (told["code"] == "57014" && is_late), "{told}");
    assert!(idle.ask(json!({ "sql": "SELECT 1" }))["message"].as_str().unwrap().contains("stopping"));
}

fn i4_no_log_holds_a_password_a_verifier_or_what_was_asked(house: &House) {
    let mut command = Served::command(house, &[]);
    command.args(["--log", "trace"]);
    let served = Served::spawn(command);
    assert!(served.psql("ada", &["-Atc", "SELECT count(*) FROM stats.calls_daily WHERE status = 'c4n4ry'"]).0.contains('0'));
    served.psql_as("ada", "wrong-horse-c4n4ry", &["-c", "SELECT 1"]);
    served.psql_as("eve-c4n4ry", "wrong-horse-c4n4ry", &["-c", "SELECT 1"]);
    let log = served.log();
    assert!(log.contains("a login over PostgreSQL was refused"), "{log}");
    let users = std::fs::read_to_string(house.data.join("users.toml")).expect("users");
    let secrets = users.lines().filter_map(|line| line.strip_prefix("verifier = \"").or_else(|| line.strip_prefix("decoy = \"")));
    let parts: Vec<&str> =
        secrets.flat_map(|line| line.trim_end_matches('"').split(['$', ':'])).filter(|part| part.len() > 20).collect();
    assert!(parts.len() > 6, "{parts:?}");
    let audit = succeed(starling().args(["audit", "tail", "--lines", "10000", "--data-dir"]).arg(&house.data));
    for text in [&log, &audit] {
        for part in parts.iter().copied().chain([PASSWORD, "c4n4ry"]) {
            assert!(!text.contains(part), "{part}: {}", text.lines().find(|line| line.contains(part)).unwrap_or_default());
        }
    }
    assert!(!users.contains(PASSWORD));
}

fn psql_is_there() -> Result<(), String> {
    let found = Command::new("psql").arg("--version").output().is_ok_and(|output| output.status.success());
    if found { Ok(()) } else { Err("skipped: psql is not here; Debian: apt-get install postgresql-client".to_owned()) }
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let missing = psql_is_there().and_then(|()| house::python().map(|_| ()));
    if let Err(why) = &missing {
        eprintln!("{why}");
    }
    macro_rules! trials {
        ($($name:ident),* $(,)?) => {
            vec![$(Trial::test(stringify!($name), || { $name(house()); Ok(()) }).with_ignored_flag(missing.is_err())),*]
        };
    }
    let mut trials = trials!(
        rows_are_those_of_starling_sql_as_text_and_in_binary,
        only_a_password_opens_the_door,
        tls_is_all_or_nothing,
        a_certificate_opens_the_door_for_its_user_and_under_no_other_name,
        an_error_has_a_detail_that_tells_its_kind_and_what_was_charged,
        p32_a_role_reads_what_its_row_of_the_table_says,
        a_private_question_is_charged_to_the_team_told_and_free_when_asked_again,
        p40_i6_logins_and_statements_are_in_the_log_before_anything_is_served,
        a_statement_ends_when_it_is_cancelled_when_its_client_goes_and_when_its_time_is_up,
        what_the_gate_refuses_is_refused_here_in_the_same_words,
        clients_that_open_transactions_find_what_they_expect,
        values_are_bound_as_drivers_bind_them,
        what_is_bound_is_a_literal_and_nothing_else,
        psql_shows_what_a_role_may_read,
        sqlalchemy_finds_its_way_without_a_word_of_sql,
        what_dbeaver_metabase_and_grafana_ask_first_is_answered,
        a_session_may_shorten_its_time_and_mark_places_in_a_block,
        whoever_does_not_log_in_gets_nothing_and_is_let_go,
        a_session_hears_that_the_server_stops,
        a_session_ends_with_what_it_was_opened_with,
        statements_of_one_user_wait_for_their_turn_and_nobody_else_for_them,
        i4_no_log_holds_a_password_a_verifier_or_what_was_asked,
        p28_what_is_refused_is_counted_once_whichever_way_it_is_asked,
    );
    let no_jdbc = missing.and_then(|()| jdbc_is_there());
    if let Err(why) = &no_jdbc {
        eprintln!("{why}");
    }
    let jdbc = Trial::test("jdbc_looks_around_prepares_and_binds_in_binary", || {
        jdbc_looks_around_prepares_and_binds_in_binary(house());
        Ok(())
    });
    trials.push(jdbc.with_ignored_flag(no_jdbc.is_err()));
    libtest_mimic::run(&arguments, trials).exit_code()
}
