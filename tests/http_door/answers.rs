//! Answers: the same rows as everywhere, in three shapes; the same words of refusal; and what a private question costs.

use std::io::Cursor;

use arrow::util::pretty::pretty_format_batches;
use serde_json::{Value, json};

use crate::client::Answer;
use crate::doors::{token, with_tokens, with_users};
use crate::house::{House, Served, refused_statements};
use crate::support::{sql, starling, succeed};

const CSV: &str = "Accept: text/csv";
const ARROW: &str = "Accept: application/vnd.apache.arrow.stream";

pub(crate) fn rows_are_those_of_starling_sql_in_every_shape(house: &House) {
    let served = with_users(house, "");
    let token = token(house, "ada");
    for table in ["stats.people_served_daily", "stats.calls_daily", "meta.columns", "meta.metrics", "meta.releases"] {
        // The command line is the operator's, who is told of alerts, too.
        let of_ada = if table == "meta.columns" { " WHERE table_schema NOT IN ('billing', 'integrity')" } else { "" };
        let statement = format!("SELECT * FROM {table}{of_ada} ORDER BY 1, 2, 3, 4");
        let shown =
            |format: &str| succeed(starling().args(["sql", "--format", format, "--data-dir"]).arg(&house.data).arg(&statement));
        let csv = served.ask(&[&token, CSV], &statement);
        assert_eq!(csv.header("content-type"), Some("text/csv; charset=utf-8"));
        assert_eq!(csv.text(), shown("csv"), "{table}");
        let arrow = served.ask(&[&token, ARROW], &statement);
        let batches = arrow::ipc::reader::StreamReader::try_new(Cursor::new(arrow.body), None).expect("a stream");
        let batches: Vec<_> = batches.collect::<Result<_, _>>().expect("batches");
        let rows: usize = batches.iter().map(|batch| batch.num_rows()).sum();
        let table_text = format!("{}\n{rows} rows\n", pretty_format_batches(&batches).expect("text"));
        assert_eq!(table_text, shown("table"), "{table}");
        let json = served.ask(&[&token], &statement).json();
        assert_eq!((&json["truncated"], &json["question"], json["elapsed_ms"].is_u64()), (&json!(false), &Value::Null, true));
        let names: Vec<&str> = json["columns"].as_array().expect("columns").iter().map(|c| c["name"].as_str().unwrap()).collect();
        let theirs: Vec<Value> = shown("json").lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let ours = json["rows"].as_array().expect("rows");
        assert_eq!((ours.len(), theirs.len()), (rows, rows));
        for (ours, theirs) in ours.iter().zip(&theirs) {
            for (name, value) in names.iter().zip(ours.as_array().expect("a row")) {
                assert_eq!(plain(value), plain(&theirs[name]), "{table}.{name}");
            }
        }
    }
    // Every type, and NULL in each.
    let typed = "SELECT CAST(1 AS SMALLINT) a, 9007199254740993 b, CAST(0.5 AS REAL) c, 0.1 d, DATE '2026-01-05' e, \
                 TIMESTAMP '2026-01-05 10:00:00.5' f, 'é' g, true h, NULL i \
                 UNION ALL SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL ORDER BY 2 NULLS LAST";
    let answer = served.ask(&[&token], typed).json();
    let types: Vec<&str> = answer["columns"].as_array().expect("columns").iter().map(|c| c["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["integer", "integer", "real", "real", "date", "timestamp", "text", "boolean", "text"]);
    let row = json!([1, "9007199254740993", 0.5, 0.1, "2026-01-05", "2026-01-05T10:00:00.500Z", "é", true, null]);
    let first: Vec<Value> = answer["rows"][0].as_array().expect("a row").iter().map(plain).collect();
    assert_eq!(
        (json!(first), &answer["rows"][1]),
        (json!(row.as_array().unwrap().iter().map(plain).collect::<Vec<_>>()), &json!(vec![Value::Null; 9]))
    );
    // None, an unknown shape, and one too many.
    assert_eq!(served.ask(&[&token], "SELECT 1 AS n WHERE false").json()["rows"], json!([]));
    assert_eq!(served.ask(&[&token, CSV], "SELECT 1 AS n WHERE false").text(), "n\n");
    assert_eq!(served.ask(&[&token, "Accept: text/html"], "SELECT 1").status, 406);
    let many = "SELECT a.day, a.country, b.country AS other, a.platform || '-' || b.platform AS both FROM stats.people_served_daily a, \
                stats.people_served_daily b, (VALUES (1), (2)) v(n) LIMIT 100000";
    // Of literals alone it is worked out once and not in each of the rows, all of which have to come within ten seconds.
    let text = served.ask(&[&token], &many.replace("AS both", "AS both, lpad('-', 200, '-') AS wide")).json();
    let rows = text["rows"].as_array().expect("rows").len();
    assert!(text["truncated"] == true && rows > 10_000 && rows < 100_000, "{rows}");
    assert!(text["notices"].to_string().contains("of 100000 rows"), "{}", text["notices"]);
}

/// A value as both write it: moments with as many digits as there are.
fn plain(value: &Value) -> Value {
    match value.as_str() {
        Some(text) if text.len() > 18 && text.as_bytes()[10] == b'T' => {
            let text = text.trim_end_matches('Z');
            json!(if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text })
        }
        _ => value.as_f64().map_or_else(|| value.clone(), |number| json!(number)),
    }
}

pub(crate) fn a_private_question_is_charged_to_the_team_told_and_free_when_asked_again(house: &House) {
    let served = with_users(house, "");
    let (joe, poor, ivy) = (token(house, "joe"), token(house, "poor"), token(house, "ivy"));
    let question = "SELECT platform, COUNT(DISTINCT person) AS people FROM private.person_day WHERE day = '2026-01-05' GROUP BY platform \
                    ORDER BY platform SETTINGS epsilon = 0.05";
    let first = served.ask(&[&joe], question);
    let told = first.json();
    let notices = told["notices"].to_string();
    assert!(notices.contains("private.person_day: cost rho") && notices.contains("team engineering has rho"), "{notices}");
    let header: Value = serde_json::from_str(first.header("x-starling-notices").expect("notices")).expect("JSON");
    assert_eq!(header, told["notices"], "the same in the header");
    let id = told["question"].as_str().expect("a question");
    let charges = sql(&house.data, &format!("SELECT who FROM meta.charges WHERE question LIKE '%{id}%'"));
    assert_eq!(charges, [json!({ "who": "engineering" })], "its team pays, once");
    for accept in [CSV, ARROW, "Accept: application/json"] {
        let again = served.ask(&[&joe, accept], question);
        assert!(again.header("x-starling-notices").expect("notices").contains("free"), "{accept}");
    }
    assert_eq!(served.ask(&[&joe], question).json()["rows"], told["rows"], "the same numbers");
    assert_eq!(sql(&house.data, &format!("SELECT who FROM meta.charges WHERE question LIKE '%{id}%'")).len(), 1);
    // A role that may ask, of a team that has nothing; one that may not; and more than there is.
    let other = "SELECT COUNT(*) FROM private.person_day WHERE day = '2026-01-06'";
    let none = served.ask(&[&poor], other);
    assert!(none.refusal() == (403, "42501".to_owned()) && none.text().contains("no allotment"), "{}", none.text());
    let role = served.ask(&[&ivy], other);
    assert!(role.refusal() == (403, "42501".to_owned()) && role.text().contains("for role product"), "{}", role.text());
    let dear = served.ask(&[&joe], "SELECT COUNT(*) FROM private.person_day WHERE day = '2026-01-06' SETTINGS epsilon = 0.9");
    assert_eq!(dear.refusal(), (429, "53400".to_owned()), "{}", dear.text());
    assert!(dear.json()["hint"].as_str().unwrap().contains("meta.allotments"), "{}", dear.text());
    // EXPLAIN PRIVACY spends nothing and says what it would cost.
    let priced = served.ask(&[&poor], &format!("EXPLAIN PRIVACY {other}"));
    assert!(priced.status == 200 && priced.json()["question"].is_null(), "{}", priced.text());
}

/// What clients send of these is answered by the PostgreSQL door's own short list.
fn is_of_sessions(statement: &str) -> bool {
    let first = statement.split([' ', ';']).next().unwrap_or_default().to_ascii_uppercase();
    matches!(
        first.as_str(),
        "" | "SET"
            | "RESET"
            | "BEGIN"
            | "START"
            | "COMMIT"
            | "ROLLBACK"
            | "SAVEPOINT"
            | "RELEASE"
            | "DEALLOCATE"
            | "SHOW"
            | "DISCARD"
    ) || statement.contains("version()")
}

pub(crate) fn both_doors_give_the_same_code_reason_and_hint(house: &House) {
    let text = format!("[postgres]\nlisten = \"127.0.0.1:0\"\n{}\n", with_tokens(house));
    let served = Served::spawn(Served::command_with(house, &text));
    let canary = house.dir.path().join("canary-http.csv");
    std::fs::write(&canary, "a\n4917012345678\n").expect("writes");
    let folder = house.dir.path().join("out-http");
    std::fs::create_dir_all(&folder).expect("folder");
    let mut statements: Vec<String> = ["refused", "private_refused"]
        .iter()
        .flat_map(|list| refused_statements(list))
        .filter(|statement| !is_of_sessions(statement) && !statement.contains('$') && !statement.contains('%'))
        .map(|statement| {
            statement.replace("{canary}", &canary.display().to_string()).replace("{dir}", &folder.display().to_string())
        })
        .collect();
    statements.extend(
        [
            "SELECT * FROM stats.calls_daily LIMIT 1",
            "SELECT 1 / 0",
            "SELECT CAST('4917012345678x' AS INT)",
            "SELECT nothing FROM meta.budget",
        ]
        .map(str::to_owned),
    );
    let mut checked = 0;
    for user in ["ada", "ivy"] {
        let token = token(house, user);
        let mut client = served.psycopg(user, &[]);
        for statement in &statements {
            let theirs = client.ask(json!({ "sql": statement }));
            let ours = served.ask(&[&token], statement);
            assert!(!ours.text().contains("4917012345678"), "{statement}");
            if ours.status == 200 {
                assert!(theirs["code"].is_null(), "{user}: {statement}: {theirs}");
                continue;
            }
            let told = ours.json();
            let (reason, hint) = (&told["reason"], &told["hint"]);
            assert_eq!(
                (&told["code"], reason, hint),
                (&theirs["code"], &theirs["message"], &theirs["hint"]),
                "{user}: {statement}"
            );
            checked += 1;
        }
    }
    assert!(checked >= 400, "{checked}");
    assert_eq!(std::fs::read_dir(&folder).expect("folder").count(), 0, "nothing was written");
}

pub(crate) fn sql_errors_say_where_and_never_what(house: &House) {
    let served = with_users(house, "");
    let token = token(house, "ada");
    let ask = |sql: &str| served.ask(&[&token], sql);
    let placed = ask("SELECT day,\n  FROM FROM stats.calls_daily");
    assert!(placed.json()["position"]["line"] == 2, "{}", placed.text());
    for sql in [
        "SELECT CAST('c4n4ry' AS INT)",
        "SELECT CAST(country || 'c4n4ry' AS INT) FROM stats.people_served_daily",
        "SELECT DATE 'c4n4ry'",
        "SELECT 'c4n4ry' + 1",
        "SELECT 'c4n4ry",
        "SELECT 'c4n4ry' FROM",
        "SELECT abs('c4n4ry')",
        "COPY (SELECT 'c4n4ry') TO '/tmp/c4n4ry'",
        "SELECT * FROM read_csv('c4n4ry')",
        "INSERT INTO stats.calls_daily VALUES ('c4n4ry')",
    ] {
        let answer = ask(sql);
        assert!((400..500).contains(&answer.status) && !answer.text().contains("c4n4ry"), "{sql}: {}", answer.text());
    }
    for body in ["", "{}", "[]", "c4n4ry", r#"{"sql":7}"#, r#"{"sql":"SELECT 1","c4n4ry":1}"#, r#"{"sql":"c4n4ry"#] {
        let answer: Answer = served.post("/v1/sql", &[&token], body);
        assert_eq!(answer.refusal(), (400, "22032".to_owned()), "{body}");
        assert!(!answer.text().contains("c4n4ry"), "{body}: {}", answer.text());
    }
    for path in
        ["/v1/alerts?after=c4n4ry", "/v1/audit?before=c4n4ry", "/v1/audit?limit=0", "/v1/audit?limit=1001", "/v1/audit?c4n4ry=1"]
    {
        let who = if path.contains("alerts") { self::token(house, "ivy") } else { self::token(house, "aud") };
        let answer = served.get(path, &[&who]);
        assert!(answer.refusal() == (400, "22023".to_owned()) && !answer.text().contains("c4n4ry"), "{path}: {}", answer.text());
    }
}

pub(crate) fn what_the_house_tells_of_itself_is_what_its_commands_tell(house: &House) {
    let served = with_users(house, "");
    let (pia, eng) = (token(house, "pia"), token(house, "eng"));
    // Health.
    let health = served.get("/v1/health", &[&eng]).json();
    let status: Value =
        serde_json::from_str(&succeed(starling().args(["status", "--json", "--data-dir"]).arg(&house.data))).expect("JSON");
    for part in ["partitions", "outcomes", "windows", "keys", "alerts", "unbalanced", "stopped"] {
        assert_eq!(health[part], status[part], "{part}");
    }
    let destroyed =
        status["keys"].as_array().expect("keys").iter().filter(|key| key["state"].as_str().unwrap().starts_with("destroyed"));
    assert!(health["receipts"].as_array().expect("receipts").len() == destroyed.count() && health["now_ms"].is_i64());
    // Budget, but for what others charge meanwhile.
    let budget = served.get("/v1/budget", &[&eng]).json();
    let told: Value =
        serde_json::from_str(&succeed(starling().args(["budget", "--json", "--data-dir"]).arg(&house.data))).expect("JSON");
    let limits = |budget: &Value| -> Vec<(Value, Value, Value)> {
        budget["blocks"]
            .as_array()
            .expect("blocks")
            .iter()
            .map(|b| (b["dataset"].clone(), b["day"].clone(), b["limit_rho"].clone()))
            .collect()
    };
    assert_eq!(limits(&budget), limits(&told));
    // Metrics.
    let metrics = served.get("/v1/metrics", &[&pia]).json();
    let listed = succeed(starling().args(["metrics", "list", "--json"]));
    let listed: Vec<Value> = listed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let metrics = metrics["metrics"].as_array().expect("metrics");
    assert_eq!(metrics.len(), listed.len());
    for (ours, theirs) in metrics.iter().zip(&listed) {
        for (our, their) in [
            ("name", "name"),
            ("title", "title"),
            ("dataset", "dataset"),
            ("unit", "unit"),
            ("sql", "query"),
            ("rho", "rho"),
            ("groups_per_person", "groups_per_person"),
        ] {
            assert_eq!(ours[our], theirs[their], "{}: {our}", ours["name"]);
        }
        let values: Vec<&str> =
            ours["values"].as_array().expect("values").iter().map(|v| v["column"].as_str().unwrap()).collect();
        assert!(values.starts_with(&["value"]) && values.contains(&"low"), "{values:?}");
        let span = ours["name"].as_str().unwrap().rsplit('_').next().unwrap();
        let expected = match span {
            "weekly" => "week",
            "monthly" => "month",
            _ => "day",
        };
        assert_eq!(ours["span"], expected, "{}", ours["name"]);
    }
    let served_daily = metrics.iter().find(|metric| metric["name"] == "people_served_daily").expect("there");
    assert_eq!(
        (&served_daily["dimensions"], &served_daily["newest_day"]),
        (&json!(["country", "platform"]), &json!("2026-01-06"))
    );
    // Promises: what was read is counted.
    let reads = || -> u64 {
        let promises = served.get("/v1/promises", &[&pia]).json();
        let reads = promises["reads"].as_array().expect("reads").clone();
        let of = reads.iter().find(|read| read["schema_or_feed"] == "sql" && read["by_role"] == "privacy");
        of.map_or(0, |read| read["count"].as_u64().unwrap())
    };
    let before = reads();
    for _ in 0..3 {
        assert_eq!(served.ask(&[&pia], "SELECT count(*) FROM meta.budget").status, 200);
    }
    assert!(reads() >= before + 3);
    let promises = served.get("/v1/promises", &[&pia]).json();
    let numbers =
        promises["classes"].as_array().expect("classes").iter().find(|class| class["class"] == "phone_number").expect("there");
    assert!(
        numbers["lives"].as_str().unwrap().contains("keyed hash") && numbers["fields"].to_string().contains("Event.actor"),
        "{numbers}"
    );
    assert!(promises["datasets"].to_string().contains("7 days after its day has closed"), "{}", promises["datasets"]);
    // Rules: every alert of the feed is in one of the counts.
    let rules = served.get("/v1/alerts/rules", &[&token(house, "ivy")]).json();
    let alerts: u64 = rules["rules"]
        .as_array()
        .expect("rules")
        .iter()
        .map(|rule| ["open", "confirmed", "false"].iter().map(|k| rule[k].as_u64().unwrap()).sum::<u64>())
        .sum();
    assert_eq!(json!(alerts), health["alerts"]);
}
