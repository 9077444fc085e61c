//! ADBC's driver, as a notebook has it.

use std::io::BufReader;

use arrow::array::RecordBatch;
use arrow::ipc::reader::StreamReader;
use arrow::util::pretty::pretty_format_batches;
use serde_json::{Value, json};

use crate::client::{Adbc, OWN_COLUMNS, charges, served, token};
use crate::house::{House, PASSWORD};
use crate::support::{sql, starling, succeed};

pub(crate) fn a_notebook_has_rows_columns_and_parameters(house: &House) {
    let served = served(house, "");
    let mut ada = Adbc::open(&served, &token(house, "ada"));
    let file = house.dir.path().join("notebook.arrows");
    for table in ["stats.people_served_daily", "stats.calls_daily", OWN_COLUMNS, "meta.metrics", "meta.releases"] {
        let statement = format!("SELECT * FROM {table} ORDER BY 1, 2, 3, 4");
        let answer = ada.step(json!({ "sql": statement, "arrow": file }));
        assert!(answer["error"].is_null(), "{answer}");
        let stream = StreamReader::try_new(BufReader::new(std::fs::File::open(&file).expect("opens")), None).expect("a stream");
        let batches: Vec<RecordBatch> = stream.collect::<Result<_, _>>().expect("batches");
        let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        let shown = format!("{}\n{rows} rows\n", pretty_format_batches(&batches).expect("text"));
        let mut command = starling();
        assert_eq!(
            shown,
            succeed(command.args(["sql", "--format", "table", "--data-dir"]).arg(&house.data).arg(&statement)),
            "{table}"
        );
    }
    let typed = "SELECT CAST(1 AS SMALLINT) a, 9007199254740993 b, 0.5 d, DATE '2026-01-05' e, 'é' g, true h, NULL i";
    assert_eq!(
        ada.step(json!({ "sql": typed }))["rows"],
        json!([[1, 9_007_199_254_740_993_i64, 0.5, "2026-01-05", "é", true, null]])
    );
    let none = ada.step(json!({ "sql": "SELECT 1 AS n WHERE false" }));
    assert_eq!((&none["columns"], &none["rows"]), (&json!(["n"]), &json!([])));
    // Values, of each kind that Python has.
    let bound = ada.step(json!({
        "sql": "SELECT $1::text a, $2::bigint b, $3::double c, $4::boolean d, $5::date e, $6::text f",
        "parameters": ["it's", 7, 0.25, true, { "day": "2026-01-05" }, null],
    }));
    assert_eq!(bound["rows"], json!([["it's", 7, 0.25, true, "2026-01-05", null]]), "{bound}");
    let days = "SELECT count(*) AS n FROM stats.people_served_daily WHERE day = $1 AND value > $2";
    let bound = ada.step(json!({ "sql": days, "parameters": ["2026-01-05", 0.5] }));
    let written = sql(&house.data, &days.replace("$1", "'2026-01-05'").replace("$2", "0.5"));
    assert!(bound["rows"][0][0] == written[0]["n"] && written[0]["n"].as_u64() > Some(0), "{bound}");
    // A private question, once and again.
    let mut joe = Adbc::open(&served, &token(house, "joe"));
    let question = "SELECT COUNT(DISTINCT person) AS people FROM private.person_day WHERE day = $1 SETTINGS epsilon = 0.021";
    let charges = || charges(house, 0.021);
    let first = joe.step(json!({ "sql": question, "parameters": ["2026-01-06"] }));
    assert!(first["rows"][0][0].is_number(), "{first}");
    assert_eq!(charges(), 1, "preparing, binding and asking is one question");
    let again = joe.step(json!({ "sql": question.replace("$1", "'2026-01-06'") }));
    assert_eq!((&again["rows"], charges()), (&first["rows"], 1));
    let priced = joe.step(json!({ "sql": format!("EXPLAIN PRIVACY {}", question.replace("$1", "'2026-01-06'")) }));
    assert!(priced["rows"].as_array().is_some_and(|rows| !rows.is_empty()), "{priced}");
    // What is refused, in the words of every door.
    let wrong = ada.step(json!({ "sql": "SELECT nothing FROM meta.budget" }));
    let message = wrong["message"].as_str().expect("a message");
    assert!(message.contains("[42703] there is no column \"nothing\". Hint: "), "{message}");
    // One that takes too long is given up, and the session goes on.
    let long = "SELECT count(*) FROM stats.messages_daily a, stats.messages_daily b, stats.messages_daily c \
                WHERE a.epsilon + b.epsilon + c.epsilon < 0";
    let mut cancelled = Value::Null;
    for _ in 0..10 {
        cancelled = ada.step(json!({ "sql": long, "cancel": true }));
        // On a busy machine its own time may be up first, which tells nothing.
        if cancelled["status"] != "TIMEOUT" {
            break;
        }
    }
    assert_eq!(cancelled["status"], "CANCELLED", "{cancelled}");
    assert_eq!(ada.step(json!({ "sql": "SELECT 40 + 2" }))["rows"], json!([[42]]));
}

pub(crate) fn a_notebook_looks_around_and_hears_what_is_not_done_here(house: &House) {
    let served = served(house, "");
    let mut ada = Adbc::open(&served, &token(house, "ada"));
    let seen = |session: &mut Adbc| -> Vec<(String, Vec<Value>)> {
        let told = session.step(json!({ "objects": true }));
        let tables = told["tables"].as_object().unwrap_or_else(|| panic!("{told}")).clone();
        tables.into_iter().map(|(name, columns)| (name, columns.as_array().expect("columns").clone())).collect()
    };
    let (hers, theirs) = (seen(&mut ada), seen(&mut Adbc::open(&served, &token(house, "ivy"))));
    let private =
        |tables: &[(String, Vec<Value>)]| tables.iter().filter(|(name, _)| name.starts_with("starling.private.")).count();
    assert!(private(&hers) > 0 && private(&theirs) == 0 && theirs.len() > 10, "{theirs:?}");
    let (_, columns) = hers.iter().find(|(name, _)| name == "starling.stats.calls_daily").expect("a table");
    assert!(columns.contains(&json!("day")) && columns.contains(&json!("value")), "{columns:?}");
    let info = ada.step(json!({ "info": true }));
    assert_eq!(info["vendor_name"], "Starling", "{info}");
    for (step, status) in [
        (json!({ "autocommit": false }), "NOT_IMPLEMENTED"),
        (json!({ "ingest": "c4n4ry" }), "NOT_IMPLEMENTED"),
        (json!({ "update": "DELETE FROM stats.calls_daily" }), "NOT_IMPLEMENTED"),
        (json!({ "substrait": "c4n4ry" }), "NOT_IMPLEMENTED"),
        (json!({ "sql": "DELETE FROM stats.calls_daily" }), "UNAUTHORIZED"),
        (json!({ "sql": "SELECT FROM FROM" }), "INVALID_ARGUMENT"),
    ] {
        let told = ada.step(step.clone());
        assert!(!told["error"].is_null() && told["status"] == status, "{step}: {told}");
        assert!(!told["message"].as_str().unwrap().contains("c4n4ry"), "{step}: {told}");
    }
    assert_eq!(ada.step(json!({ "sql": "SELECT 40 + 2" }))["rows"], json!([[42]]));
}

pub(crate) fn a_notebook_logs_in_by_password_token_and_under_tls(house: &House) {
    let (certificate, key) = house.certificate();
    let tls = format!("tls_cert_file = {:?}\ntls_key_file = {:?}", certificate.display().to_string(), key.display().to_string());
    let (clear, secure) = (served(house, ""), served(house, &tls));
    let roots = certificate.display().to_string();
    let port = secure.flight.rsplit_once(':').expect("a port").1;
    let (clear, secure) = (format!("grpc://{}", clear.flight), format!("grpc+tls://localhost:{port}"));
    let good = token(house, "ada");
    let login = [("NAME", "ada"), ("PASSWORD", PASSWORD)];
    let open = |uri: &str, environment: &[(&str, &str)]| {
        let (mut session, opened) = Adbc::start(uri, environment);
        assert_eq!(opened, json!({ "open": true }), "{uri}");
        session.step(json!({ "sql": "SELECT 40 + 2" }))
    };
    let answer = json!([[42]]);
    assert_eq!(open(&clear, &login)["rows"], answer);
    assert_eq!(open(&secure, &[login[0], login[1], ("ROOTS", &roots)])["rows"], answer);
    assert_eq!(open(&secure, &[("TOKEN", &good), ("ROOTS", &roots)])["rows"], answer);
    // Neither is said without the certificate, and nobody is in with anything else.
    for (uri, environment) in [
        (&secure, vec![("TOKEN", good.as_str())]),
        (&clear, vec![("TOKEN", "wrong")]),
        (&clear, vec![("NAME", "ada"), ("PASSWORD", "wrong-horse-battery")]),
        (&clear, vec![("NAME", "nobody"), ("PASSWORD", PASSWORD)]),
    ] {
        let (mut session, opened) = Adbc::start(uri, &environment);
        let told = if opened["open"] == true { session.step(json!({ "sql": "SELECT 40 + 2" })) } else { opened };
        assert!(!told["error"].is_null() && told["rows"].is_null(), "{environment:?}: {told}");
    }
}
