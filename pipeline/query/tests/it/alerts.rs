//! `integrity.alerts`: for who works on alerts, as the feed has them, and for nobody else (P33).

use arrow::util::pretty::pretty_format_batches;
use starling_query::{Engine, Principal, Role};
use starling_store::{AlertRecord, Finding, SavedState, StepRecord, Telling};

use super::fixture::{House, patient};

const BODY: &str = r#"{"fingerprint":"ab12","rule":"business_reach","rule_version":2,"severity":"low",
  "subject":{"kind":"business","value":"shop-9","epoch":null},"window":{"start_ms":1000,"end_ms":2000},"observed":300,"threshold":250,
  "baseline":{"kind":"segment","value":50.0},"factor":6.0,"evidence":310,"counter_evidence":["tier 250","<10 replies that day"],
  "explanation":"A business wrote to at least 300 different people.","data_gaps":[],"first_ms":1000,"last_ms":2000,"revision":3}"#;

fn record(fingerprint: &str, subject: &str, body: &str) -> AlertRecord {
    AlertRecord {
        fingerprint: fingerprint.to_owned(),
        rule: "business_reach".to_owned(),
        rule_version: 2,
        subject_kind: "business".to_owned(),
        subject: subject.to_owned(),
        severity: "low".to_owned(),
        first_ms: 1_000,
        last_ms: 2_000,
        body: body.to_owned(),
        position: 0,
    }
}

async fn with_alerts(house: &House, records: &[AlertRecord]) {
    let generation = house.metastore.take_integrity("local", "test", 1).await.expect("taken");
    let told = Telling::Told { daily: u32::MAX, demotable: true };
    let finding = |alert: &AlertRecord| Finding { key: alert.rule.clone(), alert: alert.clone(), stands: true, telling: told };
    let findings: Vec<_> = records.iter().map(finding).collect();
    house.metastore.commit_integrity("local", generation, "state", "{}", &findings, 2).await.expect("committed");
}

async fn ask(engine: &Engine, role: Role, sql: &str) -> Result<String, String> {
    let who = Principal { name: "somebody".to_owned(), role, team: "product".to_owned() };
    let answer = engine.query_as(&who, sql).await.map_err(|error| error.to_string())?;
    Ok(pretty_format_batches(&answer.batches).expect("formats").to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p33_alerts_are_a_table_for_who_works_on_them_and_for_others_are_not_there() {
    let house = House::with_releases().await;
    with_alerts(&house, &[record("ab12", "shop-9", BODY)]).await;
    let engine = house.engine(patient()).await;
    let sql = "SELECT rule, subject, observed, stands, baseline, counter_evidence, key_day, state, assignee, worked_at FROM integrity.alerts";
    let told = ask(&engine, Role::Integrity, sql).await.expect("may read them");
    for part in ["business_reach", "shop-9", "| 300 ", "| true ", "| 50.0 ", "tier 250; <10 replies that day", "| new "] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert_eq!(ask(&engine, Role::Local, sql).await.expect("nobody else is on this machine"), told);
    let short = "SELECT lower(rule), rule || ' ' || subject FROM integrity.alerts WHERE explanation LIKE '%300%'";
    assert!(ask(&engine, Role::Integrity, short).await.expect("not too wide").contains("business_reach shop-9"));
    assert!(engine.query("SELECT count(*) FROM integrity.alerts").await.is_ok());
    // I6: each reading is in the log, and by whom.
    let log = house.metastore.audit_after(0, 1_000).await.expect("reads");
    let read: Vec<&str> =
        log.iter().filter(|entry| entry.kind == "integrity_read").filter_map(|entry| entry.detail["role"].as_str()).collect();
    for role in ["integrity", "local", "operator"] {
        assert!(read.contains(&role), "{role}: {read:?}");
    }
    for role in [Role::Product, Role::Privacy, Role::Engineer, Role::Auditor] {
        let refused = ask(&engine, role, sql).await.expect_err("not for it");
        assert!(refused.contains("may not read alerts (integrity.*)") && refused.contains("is for role integrity"), "{refused}");
        // Whether a table is there is not told, nor does any list have it.
        assert_eq!(ask(&engine, role, "SELECT * FROM integrity.nothing").await.expect_err("nor this"), refused);
        for list in ["SELECT table_schema, table_name FROM meta.columns", "SELECT nspname FROM pg_catalog.pg_namespace"] {
            assert!(!ask(&engine, role, list).await.expect("may be read").contains("integrity"), "{role:?} {list}");
        }
    }
    for list in ["SELECT DISTINCT table_schema FROM meta.columns", "SELECT nspname FROM pg_catalog.pg_namespace"] {
        assert!(ask(&engine, Role::Integrity, list).await.expect("may be read").contains("integrity"), "{list}");
    }
    let none = ask(&engine, Role::Integrity, "SELECT * FROM integrity.signals").await.expect_err("no such table");
    assert!(none.contains("SELECT * FROM integrity.alerts"), "{none}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alert_that_was_taken_back_does_not_stand_though_its_numbers_reach_the_threshold() {
    let house = House::with_releases().await;
    let back = BODY.replace(r#""revision":3"#, r#""revision":4,"withdrawn":true"#);
    let fell = BODY.replace(r#""observed":300"#, r#""observed":249"#);
    with_alerts(&house, &[record("ab12", "shop-9", BODY), record("cd34", "shop-10", &back), record("ef56", "shop-11", &fell)])
        .await;
    let engine = house.engine(patient()).await;
    for (sql, there, not_there) in [
        ("SELECT subject FROM integrity.alerts WHERE stands", vec!["shop-9"], vec!["shop-10", "shop-11"]),
        ("SELECT subject FROM integrity.alerts WHERE NOT stands", vec!["shop-10", "shop-11"], vec!["shop-9"]),
    ] {
        let told = ask(&engine, Role::Integrity, sql).await.expect("may read them");
        assert!(there.iter().all(|subject| told.contains(subject)), "{sql}: {told}");
        assert!(!not_there.iter().any(|subject| told.contains(&format!("{subject} "))), "{sql}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_is_seen_at_once_and_an_alert_that_is_no_json_is_an_error_without_its_bytes() {
    let house = House::with_releases().await;
    let many: Vec<AlertRecord> = (0..40).map(|n| record(&format!("{n:04x}"), &format!("shop-{n}"), BODY)).collect();
    with_alerts(&house, &many).await;
    let engine = house.engine(patient()).await;
    let standing = r#"{"state":"triaged","assignee":"ivy","case":null}"#;
    let step = StepRecord { fingerprint: "0003".into(), step: 1, at_ms: 86_400_000, by: "ivy".into(), body: "{}".into() };
    house.metastore.take_step(&step, "take", standing).await.expect("taken");
    let sql = "SELECT subject, state, assignee, worked_at FROM integrity.alerts WHERE state <> 'new'";
    let told = ask(&engine, Role::Integrity, sql).await.expect("read");
    assert!(told.contains("| shop-3  | triaged | ivy      | 1970-01-02T00:00:00 |"), "{told}");
    let counted =
        ask(&engine, Role::Integrity, "SELECT state, count(*) FROM integrity.alerts GROUP BY state").await.expect("read");
    assert!(counted.contains("39") && counted.contains("| 1 "), "{counted}");
    with_alerts(&house, &[record("ffff", "shop-1", "+4915112345678 is no alert")]).await;
    let error = ask(&engine, Role::Integrity, sql).await.expect_err("damaged");
    assert!(error.contains("no JSON") && !error.contains("49151"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p33_i6_what_is_kept_is_a_table_of_its_own_for_who_works_on_alerts_and_each_reading_is_in_the_log() {
    let house = House::with_releases().await;
    with_alerts(&house, &[record("ab12", "shop-9", BODY)]).await;
    let generation = house.metastore.take_integrity("local", "test", 1).await.expect("taken");
    let kept = |number: i64, reason| Finding {
        alert: record(&format!("cd{number:02x}"), &format!("shop-{number}"), BODY),
        key: "business_reach".to_owned(),
        stands: true,
        telling: Telling::Kept(reason),
    };
    let findings = [kept(1, "shadow"), kept(2, "canary"), kept(3, "shadow")];
    let at_ms = 86_400_000;
    house.metastore.commit_integrity("local", generation, "state", "{}", &findings, at_ms).await.expect("committed");
    let engine = house.engine(patient()).await;
    let sql = "SELECT subject, kept_for, kept_at, observed, explanation FROM integrity.kept_alerts ORDER BY subject";
    let told = ask(&engine, Role::Integrity, sql).await.expect("may read them");
    for part in ["| shop-1  | shadow   | 1970-01-02T00:00:00 | 300 ", "| shop-2  | canary ", "300 different people"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(!told.contains("shop-9"), "what is told is not kept: {told}");
    let feed = ask(&engine, Role::Integrity, "SELECT subject FROM integrity.alerts").await.expect("may read them");
    assert!(feed.contains("shop-9") && !feed.contains("shop-1"), "{feed}");
    let wrong = ask(&engine, Role::Integrity, "SELECT state FROM integrity.kept_alerts").await;
    assert!(wrong.is_err(), "nobody works on what is kept");
    for role in [Role::Product, Role::Privacy, Role::Engineer, Role::Auditor] {
        let refused = ask(&engine, role, sql).await.expect_err("not for it");
        assert!(refused.contains("may not read alerts (integrity.*)"), "{refused}");
    }
    let log = house.metastore.audit_after(0, 1_000).await.expect("reads");
    let read: Vec<_> = log.iter().filter(|entry| entry.detail["table"] == "integrity.kept_alerts").collect();
    // The statement with a wrong column is there, too: its table was read before the column was looked for.
    assert_eq!(read.len(), 2, "{read:?}");
    assert!(read.iter().all(|entry| entry.kind == "integrity_read" && entry.detail["role"] == "integrity"), "{read:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_level_at_which_an_alert_is_chosen_is_of_all_that_was_found_and_tested_as_of_now() {
    let house = House::with_releases().await;
    let with = |fingerprint: &str, e: &str| {
        let body = BODY.replace("ab12", fingerprint).replace("shop-9", fingerprint).replace(r#""revision":3"#, e);
        record(fingerprint, fingerprint, &body)
    };
    let told = Telling::Told { daily: u32::MAX, demotable: true };
    let finding = |alert: AlertRecord, telling| Finding { key: alert.rule.clone(), alert, stands: true, telling };
    let findings = [
        finding(with("a", r#""revision":1,"e_value_log10":5.0"#), told),
        finding(with("b", r#""revision":1,"e_value_log10":4.0"#), Telling::Kept("shadow")),
        finding(with("c", r#""revision":1,"e_value_log10":9.0,"withdrawn":true"#), told),
        finding(with("d", r#""revision":1"#), told),
    ];
    let generation = house.metastore.take_integrity("local", "test", 1).await.expect("taken");
    let commit = async |tested: Option<&str>| {
        let state = SavedState { path: "state", tested };
        house.metastore.commit_integrity("local", generation, state, "{}", &findings, 2).await.expect("committed");
    };
    let engine = house.engine(patient()).await;
    let level = async |table: &str, fingerprint: &str| {
        let sql = format!(
            "SELECT e_value_log10, round(false_discovery_level, 6) AS level FROM integrity.{table} WHERE fingerprint = '{fingerprint}'"
        );
        ask(&engine, Role::Integrity, &sql).await.expect("reads")
    };
    commit(None).await;
    let before = level("alerts", "a").await;
    assert!(before.contains("| 5.0 ") && before.contains("| 1.0 "), "nobody says how many were tested: {before}");
    commit(Some(r#"{"first":0,"person":[],"business":[1000],"group":[]}"#)).await;
    assert!(level("alerts", "a").await.contains("| 0.01 "), "1000 / 10^5: {}", level("alerts", "a").await);
    // 1000 / (2 × 10^4): what is told counts among what is found.
    assert!(level("kept_alerts", "b").await.contains("| 0.05 "), "{}", level("kept_alerts", "b").await);
    let gone = level("alerts", "c").await;
    assert!(gone.contains("| 9.0 ") && !gone.contains("0.0000"), "what does not stand has none: {gone}");
    assert!(!level("alerts", "d").await.contains("0."), "nor has a limit");
    // What a commit says nothing of stays.
    commit(None).await;
    assert!(level("alerts", "a").await.contains("| 0.01 "));
    commit(Some(r#"{"first":0,"person":[],"business":[null],"group":[]}"#)).await;
    assert!(level("alerts", "a").await.contains("| 1.0 "), "where it is not known how many were tested, nothing is chosen");
    commit(Some("none")).await;
    let error = ask(&engine, Role::Integrity, "SELECT * FROM integrity.alerts").await.expect_err("no JSON");
    assert!(error.contains("what was tested"), "{error}");
}
