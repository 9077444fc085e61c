//! The hash-chained log: an entry before each answer, no answer without one, and no secret in it or in any other log.

use std::collections::BTreeSet;

use arrow_flight::sql::{CommandGetDbSchemas, CommandGetTables};
use serde_json::Value;
use tonic::Code;

use crate::client::{Flight, charges, command, query, refusal, run, served, started, ticket, token};
use crate::house::{House, PASSWORD, Served};
use crate::support::{starling, succeed};

/// All entries of a kind that are of this door, newest first, as the HTTP door shows them.
fn entries(served: &Served, house: &House, kind: &str) -> Vec<Value> {
    let auditor = crate::doors::token(house, "aud");
    let (mut found, mut before) = (Vec::new(), None);
    loop {
        let path = before.map_or("/v1/audit?limit=1000".to_owned(), |before| format!("/v1/audit?limit=1000&before={before}"));
        let page = served.get(&path, &[&auditor]).json();
        assert_eq!(page["verified"], true, "{}", page["next"]);
        let own = |entry: &&Value| entry["kind"] == kind && entry["detail"]["door"] == "flight";
        found.extend(page["entries"].as_array().expect("entries").iter().filter(own).cloned());
        match page["next"].as_i64() {
            Some(next) => before = Some(next),
            None => return found,
        }
    }
}

/// Statements of this user over this door.
pub(crate) fn statements_of(served: &Served, house: &House, name: &str) -> u64 {
    let of = |entry: Value| -> u64 {
        let reads = entry["detail"]["reads"].as_array().cloned().unwrap_or_default();
        reads.iter().filter(|read| read["user"] == name).map(|read| read["statements"].as_u64().unwrap()).sum()
    };
    entries(served, house, "sql_read").into_iter().map(of).sum()
}

pub(crate) fn p40_i6_calls_are_in_the_log_before_anything_is_served(house: &House) {
    let served = served(house, "");
    run(async {
        // Only this test is amy.
        let amy = Flight::of(&served, &token(house, "amy")).await;
        let count = || statements_of(&served, house, "amy");
        let before = count();
        let plan = amy.plan("SELECT count(*) FROM stats.calls_daily WHERE status = 'c4n4ry'").await.expect("plans");
        assert_eq!(count(), before, "what is planned is not read");
        // The call is answered when its rows begin; the entry is there by then.
        let mut rows = amy.client.clone().do_get(amy.request(ticket(&plan))).await.expect("begins").into_inner();
        assert_eq!(count(), before + 1);
        while rows.message().await.expect("a message").is_some() {}
        assert_eq!(refusal(amy.plan("SELECT count(*) FROM private.person_day").await).0, Code::PermissionDenied);
        let late = amy.plan("SELECT CAST(day || 'c4n4ry' AS INT) FROM stats.calls_daily").await.expect("plans");
        assert!(amy.get(ticket(&late)).await.is_err());
        assert_eq!(count(), before + 2, "what is refused when it is asked was read too");
        amy.list(&CommandGetTables::default()).await.expect("rows");
        amy.list(&CommandGetDbSchemas::default()).await.expect("rows");
        assert_eq!(count(), before + 4, "looking around is reading");
        // Logins, by name; refused ones, by number.
        let refused = || -> u64 {
            entries(&served, house, "flight_login_refused").iter().map(|entry| entry["detail"]["logins"].as_u64().unwrap()).sum()
        };
        let (logins, not) = (entries(&served, house, "flight_login").len(), refused());
        amy.log_in("amy", PASSWORD).await.expect("logs in");
        let found = entries(&served, house, "flight_login");
        assert!(found.len() > logins && found.iter().any(|entry| entry["who"] == "amy" && entry["detail"]["role"] == "auditor"));
        assert!(amy.log_in("c4n4ry", "wrong-horse-battery").await.is_err());
        assert!(refused() > not);
        for kind in ["flight_login_refused", "flight_login", "sql_read"] {
            assert!(entries(&served, house, kind).iter().all(|entry| !entry.to_string().contains("c4n4ry")), "{kind}");
        }
    });
    succeed(starling().args(["audit", "verify", "--data-dir"]).arg(&house.data));
}

pub(crate) fn i6_without_a_log_nothing_is_served(house: &House) {
    let mut command = command(house, "");
    command.env("STARLING_FAIL_AT", "begin appending to the audit log:1:*=ENOSPC");
    let served = started(command);
    let unlogged = (Code::Unavailable, "58030".to_owned());
    run(async {
        let ada = Flight::of(&served, &token(house, "ada")).await;
        for sql in ["SELECT 4711", "SELECT count(*) FROM private.person_day WHERE day = '2026-01-05' SETTINGS epsilon = 0.017"] {
            let status = ada.ask(sql).await.expect_err("refused");
            assert!(!status.message().contains("4711"));
            assert_eq!(refusal::<()>(Err(status)), unlogged, "{sql}");
        }
        assert_eq!(charges(house, 0.017), 0, "nor is anything charged");
        assert_eq!(refusal(ada.list(&CommandGetTables::default()).await), unlogged);
        for password in [PASSWORD, "wrong-horse-battery"] {
            assert_eq!(refusal(ada.log_in("ada", password).await), unlogged);
        }
        // What tells of nobody is told.
        assert!(ada.plan("SELECT 4711").await.is_ok());
    });
}

pub(crate) fn i4_no_log_holds_a_password_a_token_or_what_was_asked(house: &House) {
    let mut command = command(house, "");
    command.args(["--log", "trace"]);
    let served = started(command);
    let token = token(house, "aud");
    let session = run(async {
        let nobody = Flight::nobody(&served).await;
        let session = nobody.log_in("ada", PASSWORD).await.expect("logs in");
        let (ada, aud) = (nobody.with(&session), nobody.with(&token));
        ada.ask("SELECT count(*) FROM stats.calls_daily WHERE status = 'c4n4ry'").await.expect("rows");
        assert!(aud.ask("SELECT CAST('c4n4ry' AS INT)").await.is_err());
        assert!(aud.act("c4n4ry", "c4n4ry").await.is_err());
        for (name, password) in [("ada", "wrong-horse-c4n4ry"), ("eve-c4n4ry", "wrong-horse-c4n4ry")] {
            assert!(nobody.log_in(name, password).await.is_err());
        }
        assert!(nobody.with("wrong-c4n4ry").info(&query("SELECT 'c4n4ry'")).await.is_err());
        let mut changed = ticket(&ada.plan("SELECT 'c4n4ry'").await.expect("plans")).ticket.to_vec();
        changed[0] ^= 1;
        assert!(ada.get(arrow_flight::Ticket::new(changed)).await.is_err());
        session
    });
    let audit = succeed(starling().args(["audit", "tail", "--lines", "100000", "--data-dir"]).arg(&house.data));
    let log = served.log();
    assert!(log.contains("logins over Flight SQL were refused") && log.contains("DEBUG"), "it says a lot, and this: {log}");
    let said = {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(format!("ada:{PASSWORD}"))
    };
    let secrets: BTreeSet<String> = [token, session, said, PASSWORD.to_owned(), "c4n4ry".to_owned()].into();
    for (what, text) in [("log", &log), ("audit", &audit)] {
        for secret in &secrets {
            let line = text.lines().find(|line| line.contains(secret.as_str()));
            assert!(line.is_none(), "{what}: {}", line.unwrap_or_default());
        }
    }
}
