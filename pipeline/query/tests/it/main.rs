//! Statements through the whole engine: what is answered, what is refused, and what an error may say.

mod alerts;
mod bills;
mod businesses;
mod fixture;
mod lasting;
mod parameters;
mod private;
mod system;
mod threads;
#[allow(dead_code, reason = "the tests beside the engine use the rest of it")]
#[path = "../../src/private/tests/house.rs"]
mod vault_house;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arrow::util::pretty::pretty_format_batches;
use fixture::{CANARY, DAY, House, patient};
use starling_query::{Engine, Limits, QueryError};
use starling_schemas::cost::{AttoDelta, Cost, NanoRho};
use starling_schemas::ids::EpochId;
use starling_schemas::metrics::Catalogue;
use starling_store::{ChargeOutcome, ChargeRequest, Spender};

/// Paragraphs of a text without their comment lines.
fn paragraphs(text: &str, comment: &str) -> Vec<String> {
    let lines = |paragraph: &str| paragraph.lines().filter(|line| !line.starts_with(comment)).collect::<Vec<_>>().join("\n");
    text.split("\n\n").map(|paragraph| lines(paragraph).trim().to_owned()).filter(|paragraph| !paragraph.is_empty()).collect()
}

fn snapshots(check: impl FnOnce()) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(check);
}

async fn shown(engine: &Engine, sql: &str) -> String {
    match engine.query(sql).await {
        Ok(answer) => {
            let batches = if answer.batches.is_empty() {
                vec![arrow::array::RecordBatch::new_empty(Arc::clone(&answer.schema))]
            } else {
                answer.batches
            };
            pretty_format_batches(&batches).expect("formats").to_string()
        }
        Err(error) => error.to_string(),
    }
}

async fn refusal(engine: &Engine, sql: &str) -> QueryError {
    match engine.query(sql).await {
        Ok(_) => panic!("this must be refused: {sql}"),
        Err(error) => error,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_give_the_rows_that_stand_beside_them() {
    let house = House::with_releases().await;
    let engine = house.engine(patient()).await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut files: Vec<_> = std::fs::read_dir(folder).expect("cases").map(|entry| entry.expect("an entry").path()).collect();
    // Those over protected tables have a house of their own.
    files.retain(|file| !file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("private_")));
    files.sort();
    assert_eq!(files.len(), 3);
    for file in files {
        let mut text = String::new();
        for sql in paragraphs(&std::fs::read_to_string(&file).expect("text"), "--") {
            writeln!(text, "{sql}\n{}\n", shown(&engine, &sql).await).expect("a string");
        }
        let name = file.file_stem().expect("a name").to_string_lossy().into_owned();
        snapshots(|| insta::assert_snapshot!(name, text));
    }
}

/// Every file below a folder, with its length and when it was written.
fn listing(folder: &Path) -> BTreeMap<String, (u64, SystemTime)> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let entry = entry.expect("an entry");
        let about = entry.metadata().expect("about it");
        if about.is_dir() {
            found.extend(listing(&entry.path()));
        } else {
            found.insert(entry.path().display().to_string(), (about.len(), about.modified().expect("a time")));
        }
    }
    found
}

fn accessed(file: &Path) -> SystemTime {
    std::fs::metadata(file).expect("about it").accessed().expect("a time")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i8_what_does_more_than_read_released_statistics_is_refused_and_touches_no_file() {
    let house = House::with_releases().await;
    let engine = house.engine(patient()).await;
    engine.warm().await.expect("all files are sound");
    let outside = tempfile::tempdir().expect("a folder");
    let (canary, control, out) =
        (outside.path().join("canary.csv"), outside.path().join("control.csv"), outside.path().join("out"));
    std::fs::create_dir(&out).expect("a folder");
    for file in [&canary, &control] {
        std::fs::write(file, "secret\n4242424242\n").expect("written");
    }
    let (before, accessed_before) = (listing(outside.path()), accessed(&canary));
    let released = listing(&house.path().join("files"));
    std::thread::sleep(Duration::from_millis(20));

    let mut text = String::new();
    let statements = paragraphs(include_str!("../refused.txt"), "#");
    assert!(statements.len() >= 300, "{}", statements.len());
    for template in &statements {
        let sql = template.replace("{canary}", &canary.display().to_string()).replace("{dir}", &out.display().to_string());
        let error = refusal(&engine, &sql).await;
        let said = error.to_string();
        for secret in
            ["4242424242", "secret", "4917012345678", &outside.path().display().to_string(), &house.path().display().to_string()]
        {
            // A name the user wrote may be quoted; a file's name never gets so far.
            assert!(!said.contains(secret), "{template}\n{said}");
        }
        assert!(error.code.len() == 5 && !error.reason.is_empty() && !error.hint.is_empty());
        assert!(!error.reason.ends_with('.') && !error.hint.ends_with('.'), "{said}");
        writeln!(text, "{template}\n  [{}] {}.\n  Hint: {}\n", error.code, error.reason, error.hint).expect("a string");
    }
    snapshots(|| insta::assert_snapshot!("refused", text));

    assert_eq!(listing(outside.path()), before, "nothing was written");
    assert_eq!(listing(&house.path().join("files")), released, "nothing was written");
    let control_before = accessed(&control);
    assert!(std::fs::read_to_string(&control).expect("readable").contains("4242"));
    if accessed(&control) > control_before {
        assert_eq!(accessed(&canary), accessed_before, "the file was read");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_release_appears_without_opening_again() {
    let house = House::with_releases().await;
    let engine = house.engine(patient()).await;
    let count = "SELECT count(*) AS rows, max(day) AS newest FROM stats.messages_daily";
    let first = shown(&engine, count).await;
    assert!(first.contains("2026-01-05"), "{first}");
    house.release("messages_daily", DAY + 1, &["country", "conversation_kind"], &[(["DE", "person"], Some(1.0))]).await;
    house.release("call_minutes_daily", DAY, &["country"], &[(["DE"], Some(60.0))]).await;
    let second = shown(&engine, count).await;
    assert!(second.contains("2026-01-06") && second.contains("| 4 "), "{second}");
    let minutes = shown(&engine, "SELECT value FROM stats.call_minutes_daily").await;
    assert!(minutes.contains("60.0"), "{minutes}");
    let newest = shown(&engine, "SELECT newest_day FROM meta.metrics WHERE name = 'messages_daily'").await;
    assert!(newest.contains("2026-01-06"), "{newest}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i4_an_error_never_holds_a_value_from_the_data() {
    let house = House::with_releases().await;
    let engine = house.engine(patient()).await;
    let expressions = [
        "CAST(value AS INT)",
        "CAST(value AS SMALLINT)",
        "CAST(CAST(value AS VARCHAR) AS INT)",
        "CAST(CAST(value AS VARCHAR) AS DATE)",
        "CAST(CAST(value AS VARCHAR) AS BOOLEAN)",
        "CAST(CAST(value AS VARCHAR) AS TIMESTAMP)",
        "CAST(CAST(value AS VARCHAR) AS INTERVAL)",
        "CAST(CAST(value AS VARCHAR) || 'x' AS DOUBLE)",
        "CAST(value AS DECIMAL(5, 2))",
        "CAST(value AS BIGINT) * 9223372036854775807",
        "CAST(value AS BIGINT) / 0",
        "1 % CAST(value * 0 AS BIGINT)",
        "factorial(CAST(value AS BIGINT))",
        "chr(CAST(value AS BIGINT) * 1000)",
        "make_date(CAST(value AS BIGINT), 1, 1)",
        "make_date(2026, CAST(value AS BIGINT), 1)",
        "to_timestamp(CAST(value AS VARCHAR))",
        "to_timestamp(value * 1e30)",
        "to_timestamp_seconds(CAST(value AS BIGINT) * 1000000000)",
        "to_date(CAST(value AS VARCHAR), '%Y')",
        "to_char(day, CAST(value AS VARCHAR) || '%')",
        "date_trunc(CAST(value AS VARCHAR), day)",
        "date_part(CAST(value AS VARCHAR), day)",
        "gcd(CAST(value AS BIGINT), -9223372036854775808)",
        "lcm(CAST(value AS BIGINT), 9223372036854775807)",
        "power(CAST(value AS BIGINT), 9)",
        "round(value, CAST(value AS BIGINT))",
        "country LIKE 'x' ESCAPE CAST(value AS VARCHAR)",
        "split_part(CAST(value AS VARCHAR), '.', 0)",
        "nth_value(value, CAST(value AS BIGINT)) OVER (ORDER BY value)",
        "ntile(CAST(value AS BIGINT)) OVER (ORDER BY value)",
        "lag(value, CAST(value AS BIGINT)) OVER (ORDER BY value)",
        "approx_percentile_cont(0.5, CAST(value AS BIGINT)) WITHIN GROUP (ORDER BY value)",
        "day + CAST(CAST(value AS VARCHAR) || ' days' AS INTERVAL)",
        "(SELECT value FROM stats.messages_daily)",
        "CAST(conversation_kind AS INT)",
        "overlay(country PLACING 'x' FROM CAST(value AS BIGINT) * -9)",
        "left(country, CAST(value AS BIGINT) * -9223372036)",
        "sum(CAST(value AS BIGINT) * 1000000000) OVER ()",
        "CAST(value AS VARCHAR) || CAST(CAST(value AS TINYINT) AS VARCHAR)",
    ];
    let (mut failed, mut text) = (0, String::new());
    for expression in expressions {
        let sql = format!("SELECT {expression} FROM stats.messages_daily");
        if let Err(error) = engine.query(&sql).await {
            failed += 1;
            let said = format!("{error} {error:?}");
            for secret in ["4917012345", "channel", "70000", "30000"] {
                assert!(!said.contains(secret), "{sql}\n{said}");
            }
            writeln!(text, "{expression}\n  {error}\n").expect("a string");
        }
    }
    assert!(CANARY > 4_917_012_345.0 && failed >= 15, "only {failed} statements failed: the test shows too little");
    snapshots(|| insta::assert_snapshot!("errors_of_running_statements", text));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_limit_ends_a_statement_with_its_own_error() {
    let house = House::with_releases().await;
    let nested = |times: usize| format!("SELECT {}1{}", "(".repeat(times), ")".repeat(times));
    let engine = house.engine(Limits { output_rows: 4, ..patient() }).await;
    assert_eq!(refusal(&engine, "SELECT * FROM stats.people_served_daily").await.code, "54000");
    assert_eq!(engine.query("SELECT * FROM stats.people_served_daily LIMIT 4").await.expect("four rows").rows(), 4);
    for sql in [
        nested(60),
        nested(5_000),
        format!("SELECT {}1", "- ".repeat(1_900)),
        format!("SELECT 1{}", " + 1".repeat(1_500)),
        format!("SELECT 1{}", "::INT".repeat(1_500)),
        format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(200)),
        format!("SELECT CAST(1 AS INT{})", "[]".repeat(1_500)),
        format!("SELECT CAST(1 AS {}INT{})", "ARRAY<".repeat(300), ">".repeat(300)),
        format!("SELECT 1 FROM stats.messages_daily{}", ", stats.messages_daily".repeat(40)),
        format!("SELECT {}1", "CASE WHEN true THEN ".repeat(300)),
        format!("SELECT {}1", "CASE WHEN true THEN ".repeat(30)),
        format!("SELECT {}1 1{}", "CAST(".repeat(30), " AS INT)".repeat(30)),
        format!("SELECT {}1 1{}", "POSITION(".repeat(30), " IN 'x')".repeat(30)),
        format!("SELECT {}1 1{}", "NOT (".repeat(30), ")".repeat(30)),
        format!("SELECT {},", "INTERVAL ".repeat(30)),
        format!("SELECT * FROM {}stats.messages_daily{}", "(SELECT * FROM ".repeat(40), ") x".repeat(40)),
        format!("SELECT * FROM {}stats.messages_daily{}", "(SELECT * FROM ".repeat(20), ") x".repeat(20)),
        format!(
            "WITH a0 AS (SELECT 1 AS x){} SELECT x FROM a70",
            (1..71).map(|n| format!(", a{n} AS (SELECT x FROM a{})", n - 1)).collect::<String>()
        ),
    ] {
        let error = refusal(&engine, &sql).await;
        assert_eq!(error.code, "54001", "{}\n{error}", &sql[..40]);
    }
    // What is close to the limits is answered, on the small stack of a worker thread.
    for (sql, rows) in [
        (format!("SELECT {}1{}", "(".repeat(40), ")".repeat(40)), 1),
        (format!("SELECT 1 WHERE 1 = 0{}", " OR 1 = 1".repeat(45)), 1),
        (format!("SELECT 1{}", " + 1".repeat(90)), 1),
        (format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(49)), 4),
        (format!("SELECT * FROM {}stats.people_served_daily{} LIMIT 3", "(SELECT * FROM ".repeat(14), ") x".repeat(14)), 3),
        (format!("SELECT {}", "CASE WHEN value > 1 THEN 1 ELSE 2 END AS a, ") + "1 AS b FROM stats.messages_daily", 3),
        (
            format!(
                "WITH a0 AS (SELECT 1 AS x){} SELECT x FROM a60",
                (1..61).map(|n| format!(", a{n} AS (SELECT x FROM a{})", n - 1)).collect::<String>()
            ),
            1,
        ),
    ] {
        let engine = house.engine(patient()).await;
        let answer = engine.query(&sql).await.unwrap_or_else(|error| panic!("{error}\n{sql}"));
        assert_eq!(answer.rows().min(4), rows, "{sql}");
    }

    // Here the parser takes its own limit for an end of the expression.
    assert_eq!(refusal(&engine, &format!("SELECT {}true", "NOT ".repeat(1_900))).await.code, "42601");
    assert_eq!(refusal(&engine, &format!("SELECT '{}'", "x".repeat(20_000))).await.code, "54000");

    let engine = house.engine(Limits { output_bytes: 100, ..patient() }).await;
    assert_eq!(refusal(&engine, "SELECT * FROM stats.people_served_daily").await.code, "54000");

    let many = "stats.people_served_daily a, stats.people_served_daily b, stats.people_served_daily c, stats.people_served_daily d, \
                stats.people_served_daily e, stats.people_served_daily f, stats.people_served_daily g, stats.people_served_daily h";
    // Too short for this product of everything, and long enough for `SELECT 1` on a busy machine.
    let engine = house.engine(Limits { timeout: Duration::from_secs(5), ..patient() }).await;
    let began = Instant::now();
    assert_eq!(refusal(&engine, &format!("SELECT count(a.value + h.value) FROM {many}")).await.code, "57014");
    assert!(began.elapsed() < Duration::from_secs(300), "the limit held");
    assert!(shown(&engine, "SELECT 1 AS one").await.contains("| 1 "), "the engine goes on");

    let engine = house.engine(Limits { statement_memory_bytes: 2 * 1024 * 1024, ..patient() }).await;
    let sort = "SELECT a.value + b.value + c.value + d.value + e.value AS v FROM stats.people_served_daily a, stats.people_served_daily b, \
                stats.people_served_daily c, stats.people_served_daily d, stats.people_served_daily e ORDER BY v OFFSET 240000";
    assert_eq!(refusal(&engine, sort).await.code, "53200", "nothing spills to disk");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i3_a_released_file_that_was_changed_or_is_gone_is_not_served() {
    let house = House::with_releases().await;
    let file = house.path().join("files/stats/messages_daily/2026-01-05.parquet");
    let mut bytes = std::fs::read(&file).expect("there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).expect("written");
    let engine = house.engine(patient()).await;
    let changed = refusal(&engine, "SELECT * FROM stats.messages_daily").await;
    assert_eq!(changed.code, "XX001");
    assert!(engine.query("SELECT * FROM stats.people_served_daily").await.is_ok(), "other metrics are served");
    std::fs::remove_file(&file).expect("removed");
    let gone = refusal(&engine, "SELECT * FROM stats.messages_daily").await;
    snapshots(|| insta::assert_snapshot!("changed_files", format!("{changed}\n\n{gone}")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn comments_follow_their_columns() {
    let house = House::with_releases().await;
    let engine = house.engine(patient()).await;
    let answer = engine.query("SELECT day, value AS people, 1 AS one FROM stats.people_served_daily").await.expect("rows");
    let comments = answer.comments();
    assert_eq!(comments[0], ("day", Some("UTC day")));
    assert!(comments[1].0 == "people" && comments[1].1.is_some_and(|comment| comment.contains("with noise")), "{comments:?}");
    assert_eq!(comments[2], ("one", None));
}

#[allow(clippy::print_stdout)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_future_ends_the_statement() {
    let house = House::with_releases().await;
    let engine = house.engine(patient()).await;
    let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = alive();
    let tables = ["a", "b", "c", "d", "e", "f", "g", "h"].map(|alias| format!("stats.people_served_daily {alias}"));
    let statements = [
        // A product of everything.
        format!("SELECT count(a.value + h.value) FROM {}", tables.join(", ")),
        // A condition that lets nothing through: no rows are made between which the thread could be given back.
        format!("SELECT 1 FROM ({}) x JOIN ({}) y ON x.v + y.v < 0", half("v"), half("v")),
        format!("SELECT 1 FROM ({}) x WHERE NOT EXISTS (SELECT 1 FROM ({}) y WHERE x.v + y.v < 0)", half("v"), half("v")),
        // The same key on both sides, and a condition that lets nothing through.
        format!(
            "SELECT 1 FROM (SELECT 1 AS k, v FROM ({}) p) x JOIN (SELECT 1 AS k, v FROM ({}) q) y ON x.k = y.k AND x.v + y.v < 0",
            half("v"),
            half("v")
        ),
    ];
    for sql in statements {
        let began = Instant::now();
        let gone = tokio::time::timeout(Duration::from_millis(700), engine.query(&sql)).await;
        assert!(
            gone.is_err(),
            "it was to run for longer than that: {sql}\n{:?}",
            gone.map(|answer| answer.map(|answer| answer.rows()))
        );
        while alive() > before && began.elapsed() < Duration::from_secs(600) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(alive() <= before, "the statement still runs: {sql}");
        println!("ended after {:?}: {}", began.elapsed(), &sql[..60]);
    }
}

/// 20,736 rows.
fn half(name: &str) -> String {
    let tables = ["a", "b", "c", "d"].map(|alias| format!("stats.people_served_daily {alias}")).join(", ");
    format!(
        "SELECT coalesce(a.value, 0) + coalesce(b.value, 0) + coalesce(c.value, 0) + coalesce(d.value, 0) AS {name} FROM {tables}"
    )
}

#[allow(clippy::print_stdout)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_statements_run_at_one_time_and_the_latency_is_printed() {
    let house = House::with_releases().await;
    for day in 2..60 {
        let rows: Vec<_> = ["BR", "DE", "IN", "US", "FR"]
            .iter()
            .flat_map(|c| ["android", "ios", "web"].map(|p| ([*c, p], Some(1_000.0))))
            .collect();
        house.release("people_served_daily", DAY + day, &["country", "platform"], &rows).await;
    }
    let engine = Arc::new(house.engine(patient()).await);
    engine.warm().await.expect("sound");
    let sql = "SELECT day, sum(value) AS people FROM stats.people_served_daily WHERE day >= DATE '2026-02-01' AND country = 'DE' GROUP BY day ORDER BY day";
    let one = Instant::now();
    engine.query(sql).await.expect("rows");
    let one = one.elapsed();
    let clients = (0..20).map(|_| {
        let engine = Arc::clone(&engine);
        tokio::spawn(async move {
            let began = Instant::now();
            engine.query(sql).await.map(|answer| (answer.rows(), began.elapsed()))
        })
    });
    let mut times = Vec::new();
    for client in clients.collect::<Vec<_>>() {
        let (rows, time) = client.await.expect("no panic").expect("rows");
        assert_eq!(rows, 33);
        times.push(time);
    }
    times.sort();
    println!("one statement {one:?}; 20 at one time: median {:?}, slowest {:?} (unoptimised build)", times[10], times[19]);
}

/// A dataset that teams may ask, and what they have asked.
const SHARED: &str = r#"
[person_day]
description = "One person's day."
privacy_unit = "one person for one day"
rho_limit = 0.01
delta = 1e-9
threshold_delta_limit = 1e-10
releases_share = 0.6
[person_day.teams.growth]
rho_per_block = 0.002
rho_per_refill = 0.01
refill_days = 7
[person_day.teams.calls]
rho_per_block = 0.001
rho_per_refill = 0.004
refill_days = 1
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i2_meta_tells_what_releases_and_teams_spent_what_is_left_and_when_more_arrives() {
    let mut house = House::new().await;
    house.catalogue = Arc::new(Catalogue::parse(SHARED, &[]).expect("good"));
    let dataset = &house.catalogue.datasets["person_day"];
    let ask = |question: &str, days: std::ops::Range<i32>, cost, spender| ChargeRequest {
        dataset: "person_day".to_owned(),
        epochs: days.map(EpochId).collect(),
        question: question.to_owned(),
        cost,
        limits: dataset.limits(),
        spender,
        now_ms: fixture::NOW_MS,
    };
    let growth = Spender::Team { name: "growth".to_owned(), allotment: dataset.allotment("growth").expect("one") };
    let noise = |rho| Cost::noise(NanoRho(rho));
    let threshold = Cost { delta: AttoDelta(20_000_000), ..noise(1_500_000) };
    for request in [
        ask("metric:people_served_daily", DAY..DAY + 1, noise(4_000_000), Spender::Releases),
        ask("q1", DAY..DAY + 3, threshold, growth.clone()),
        ask("q2", DAY + 2..DAY + 3, noise(250_000), growth),
    ] {
        assert_eq!(house.metastore.charge(&request).await.expect("answers"), ChargeOutcome::Charged);
    }
    let engine = house.engine(patient()).await;
    let mut text = String::new();
    for sql in [
        "SELECT * EXCLUDE (limit_epsilon, spent_epsilon, left_epsilon) FROM meta.budget ORDER BY day",
        "SELECT day, round(limit_epsilon, 2) AS of_limit, round(spent_epsilon, 2) AS spent, round(left_epsilon, 2) AS unspent FROM meta.budget ORDER BY day",
        "SELECT * EXCLUDE (epsilon) FROM meta.charges ORDER BY day, question",
        "SELECT who, sum(rho) AS rho, max(threshold_delta) AS threshold FROM meta.charges GROUP BY who ORDER BY who",
        "SELECT * FROM meta.allotments ORDER BY team",
    ] {
        writeln!(text, "{sql}\n{}\n", shown(&engine, sql).await).expect("a string");
    }
    snapshots(|| insta::assert_snapshot!("ledger", text));
}
