//! What clients look around in: `pg_catalog` and `information_schema`, through psql, SQLAlchemy, pgjdbc, and in the shape in which DBeaver, Metabase and
//! Grafana ask. DuckDB's `postgres` extension is not among them: it is fetched from a server of its own that no package registry has.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::{Value, json};

use crate::house::{House, PASSWORD, Served, python};
use crate::support::{sql, succeed, workspace};

/// What psql shows of a backslash command, which must be no error.
fn shown(served: &Served, user: &str, command: &str) -> String {
    let (out, err) = served.psql(user, &["-X", "-c", command]);
    assert!(!err.contains("ERROR"), "{user}: {command}: {err}");
    out + &err
}

pub(crate) fn psql_shows_what_a_role_may_read(house: &House) {
    let served = Served::start(house, &[]);
    let tables = sql(&house.data, "SELECT DISTINCT table_name AS t FROM meta.columns WHERE table_schema IN ('stats', 'meta')");
    for user in ["ada", "aud"] {
        let all = shown(&served, user, "\\dt stats.*") + &shown(&served, user, "\\dt meta.*");
        for table in &tables {
            assert!(all.contains(table["t"].as_str().unwrap()), "{user}: {table}");
        }
        assert!(shown(&served, user, "\\d").contains("people_served_daily"), "the search path is stats");
        let described = shown(&served, user, "\\d stats.people_served_daily");
        assert!(described.contains("Table \"stats.people_served_daily\""), "{described}");
        for column in
            ["day        | date             |           | not null", "value      | double precision |           |          |"]
        {
            assert!(described.contains(column), "{described}");
        }
        let comment = "SELECT comment FROM meta.columns WHERE table_name = 'people_served_daily' ORDER BY ordinal_position";
        let more = shown(&served, user, "\\d+ stats.people_served_daily");
        for row in sql(&house.data, comment) {
            assert!(more.contains(row["comment"].as_str().unwrap()), "{row}: {more}");
        }
        let roles = shown(&served, user, "\\du");
        assert!(roles.contains(user) && !roles.contains(if user == "ada" { "aud" } else { "ada" }), "{roles}");
        assert!(shown(&served, user, "\\l").contains("starling"));
        assert!(shown(&served, user, "\\df").contains("(0 rows)"));
        let schemas = shown(&served, user, "\\dn+");
        assert!(schemas.contains("stats") && schemas.contains("meta") && !schemas.contains("pg_catalog"), "{schemas}");
        for command in [
            "\\dv",
            "\\di",
            "\\dT",
            "\\dx",
            "\\dp",
            "\\ds",
            "\\dm",
            "\\dt+",
            "\\d pg_catalog.pg_class",
            "\\db",
            "\\dy",
            "\\sf nothing",
        ] {
            let (_, err) = served.psql(user, &["-X", "-c", command]);
            assert!(command == "\\sf nothing" || !err.contains("ERROR"), "{command}: {err}");
        }
    }
    assert!(shown(&served, "ada", "\\dn").contains("private"));
    assert!(shown(&served, "ada", "\\d+ private.person_day").contains("for COUNT(DISTINCT person) only"));
    for command in ["\\dn", "\\dt *.*", "\\d *.person_day", "\\d private.*", "\\dd *.*", "\\dp *.*"] {
        let seen = shown(&served, "aud", command);
        // psql repeats the pattern where it finds nothing.
        assert!(!seen.replace("\"*.person_day\"", "").replace("\"private.*\"", "").contains("person_day"), "{command}: {seen}");
        assert!(seen.contains("Did not find any relation") || !seen.contains("private"), "{command}: {seen}");
    }
}

pub(crate) fn sqlalchemy_finds_its_way_without_a_word_of_sql(house: &House) {
    let served = Served::start(house, &[]);
    let ask = |user: &str| -> Value {
        let (host, port) = served.address.rsplit_once(':').expect("an address");
        let mut command = Command::new(python().expect("found before"));
        command.arg("-B").arg(workspace().join("tests/pg_door/alchemy.py")).args([host, port, user]).env("PGPASSWORD", PASSWORD);
        serde_json::from_str(&succeed(&mut command)).expect("JSON")
    };
    let (ada, aud) = (ask("ada"), ask("aud"));
    assert_eq!(ada["schemas"], json!(["business", "information_schema", "meta", "private", "stats"]));
    assert_eq!(aud["schemas"], json!(["information_schema", "meta", "stats"]));
    assert_eq!((&aud["private"], &aud["has_private"]), (&json!([]), &json!(false)));
    assert_eq!((ada["private"].as_array().map(Vec::len), &ada["has_private"]), (Some(3), &json!(true)));
    for told in [&ada, &aud] {
        let tables = sql(&house.data, "SELECT count(DISTINCT table_name) AS n FROM meta.columns WHERE table_schema = 'stats'");
        assert_eq!(told["tables"].as_array().map(Vec::len), tables[0]["n"].as_u64().and_then(|n| usize::try_from(n).ok()));
        let columns = "SELECT column_name AS c, comment FROM meta.columns WHERE table_name = 'people_served_daily' ORDER BY ordinal_position";
        let ours: Vec<Value> = sql(&house.data, columns).iter().map(|row| json!([row["c"], row["comment"]])).collect();
        let theirs: Vec<Value> = told["columns"].as_array().expect("columns").iter().map(|c| json!([c[0], c[3]])).collect();
        assert_eq!(theirs, ours);
        assert_eq!(told["columns"][0], json!(["day", "DATE", false, "UTC day"]));
        assert!(told["comment"].as_str().expect("a comment").starts_with("People served per day"), "{told}");
        assert_eq!((&told["keys"], &told["views"]), (&json!([0, 0, 0, 0]), &json!([])));
        let released = "SELECT status, count(*) AS n FROM stats.people_served_daily WHERE value > 1.5 AND status = 'released' GROUP BY status";
        let ours: Vec<Value> = sql(&house.data, released).iter().map(|row| json!([row["status"], row["n"]])).collect();
        assert_eq!(told["rows"], json!(ours));
    }
}

/// Whether pgjdbc is to be had; else why not.
pub(crate) fn jdbc_is_there() -> Result<(), String> {
    let script = workspace().join("tests/pg_door/jdbc/start.sh");
    let output = Command::new("bash").arg(script).output().map_err(|_| "skipped: no bash".to_owned())?;
    match output.status.code() {
        Some(0) => Ok(()),
        _ => Err(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
            .trim()
            .to_owned()),
    }
}

pub(crate) fn jdbc_looks_around_prepares_and_binds_in_binary(house: &House) {
    let served = Served::start(house, &[]);
    let ask = |user: &str| -> BTreeMap<String, String> {
        let mut command = Command::new("bash");
        command
            .arg(workspace().join("tests/pg_door/jdbc/start.sh"))
            .args([served.address.as_str(), user])
            .env("PGPASSWORD", PASSWORD);
        let lines = succeed(&mut command);
        assert!(!lines.contains("\tERROR"), "{lines}");
        lines.lines().filter_map(|line| line.split_once('\t')).map(|(name, told)| (name.to_owned(), told.to_owned())).collect()
    };
    let (ada, aud) = (ask("ada"), ask("aud"));
    assert_eq!(ada["schemas"], "[business, information_schema, meta, pg_catalog, private, stats]");
    assert_eq!(aud["schemas"], "[information_schema, meta, pg_catalog, stats]");
    assert!(ada["tables"].contains("private|person_day|") && ada["private"].contains("person"), "{ada:?}");
    assert!(!format!("{aud:?}").contains("person_day") && aud["private"] == "[]", "{aud:?}");
    for told in [&ada, &aud] {
        assert_eq!(told["product"], "PostgreSQL 16");
        assert!(told["tables"].contains("stats|people_served_daily|People served per day"), "{told:?}");
        assert!(told["columns"].starts_with("[day|date|91|0|UTC day, country|text|12|0|"), "{told:?}");
        assert_eq!((told["keys"].as_str(), told["imported"].as_str(), told["indexes"].as_str()), ("[]", "[]", "[]"));
        assert_eq!(
            (told["types"].as_str(), told["described"].as_str(), told["injected"].as_str()),
            ("true", "float8 int4", "[0]")
        );
        // In the client's text form first and in binary from the second time on: the same numbers.
        let numbers = |name: &str| told[name].replace(".0|", "|");
        assert!(numbers("prepared0").starts_with("[2026-01-05|"), "{told:?}");
        assert!((1..6).all(|time| numbers(&format!("prepared{time}")) == numbers("prepared0")), "{told:?}");
    }
}

pub(crate) fn what_dbeaver_metabase_and_grafana_ask_first_is_answered(house: &House) {
    let served = Served::start(house, &[]);
    let text = std::fs::read_to_string(workspace().join("tests/pg_door/tools.sql")).expect("statements");
    let plain: String = text.lines().filter(|line| !line.starts_with("--")).map(|line| format!("{line}\n")).collect();
    let statements: Vec<&str> = plain.split(";\n").map(str::trim).filter(|sql| !sql.is_empty()).collect();
    assert!(statements.len() > 20, "{}", statements.len());
    for (user, private) in [("ada", true), ("aud", false)] {
        let mut client = served.psycopg(user, &[]);
        let mut seen = String::new();
        for binary in [false, true] {
            for sql in &statements {
                let answer = client.ask(json!({ "sql": sql, "binary": binary }));
                assert!(answer["rows"].is_array(), "{user}: {sql}\n{answer}");
                seen += &answer["rows"].to_string();
            }
        }
        assert!(seen.contains("people_served_daily") && seen.contains("ISO 3166-1 alpha-2"), "{user}");
        assert_eq!((seen.contains("person_day"), seen.contains("\"private\"")), (private, private), "{user}");
        let rows = |client: &mut crate::house::Client, find: &str| {
            let sql = statements.iter().find(|sql| sql.contains(find)).expect(find);
            client.ask(json!({ "sql": sql }))["rows"].clone()
        };
        assert_eq!(rows(&mut client, "nspname AS \"schema\" FROM pg_namespace").to_string().contains("private"), private);
        let grafana = rows(&mut client, "string_to_array").to_string();
        assert!(grafana.contains("[\"calls_daily\"]") && grafana.contains("[\"meta.budget\"]"), "{grafana}");
    }
}

pub(crate) fn a_session_may_shorten_its_time_and_mark_places_in_a_block(house: &House) {
    let served = Served::start(house, &[]);
    let mut client = served.psycopg_in_transactions("ada");
    for (sql, code) in [
        ("SELECT 1", None),
        ("SAVEPOINT a", None),
        ("SELECT nothing", Some("42703")),
        ("SELECT 1", Some("25P02")),
        ("ROLLBACK TO SAVEPOINT a", None),
        ("SELECT 1", None),
        ("RELEASE SAVEPOINT a", None),
        ("COMMIT", None),
        ("SET statement_timeout = '3s'", None),
        (crate::LONG, Some("57014")),
        ("ROLLBACK", None),
        // First: three seconds may be too few for another statement while the engine still drops what was cut off.
        ("DISCARD ALL", None),
        ("SELECT 1", None),
    ] {
        assert_eq!(client.ask(json!({ "sql": sql }))["code"].as_str(), code, "{sql}");
    }
    assert_eq!(client.ask(json!({ "sql": "SHOW statement_timeout" }))["rows"], json!([["0"]]));
}
