//! Statements that once got through the planner and were answered wrongly, or told of one person.

use super::house::{DAY, House, Row, pseudonym, town, visits};
use super::{engine, number, refusal};
use starling_schemas::codes::{Activity, PlatformCode};

/// One person with 500 rows of 500 different numbers of events.
fn busy() -> Vec<Row> {
    let row = |n| Row {
        day: DAY,
        person: pseudonym(1, DAY),
        country: "DE",
        platform: PlatformCode::ALL[usize::try_from(n % 3).expect("small")],
        activity: Activity::ALL[0],
        events: n,
        seconds: n * 7,
    };
    (0..500).map(row).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_union_is_bounded_by_person_wherever_the_person_stands_in_its_parts() {
    let house = House::rich(&busy(), &[]).await;
    let engine = engine(&house).await;
    let day = "private.person_day";
    for parts in [
        format!("SELECT person, country, events FROM {day} UNION ALL SELECT person, country, events FROM {day}"),
        format!("SELECT events, person, country FROM {day} UNION ALL SELECT events, person, country FROM {day}"),
        format!("SELECT country, events FROM {day} UNION ALL SELECT country, seconds FROM {day}"),
        format!("SELECT country, events, person AS p FROM {day} UNION ALL SELECT country, seconds, person FROM {day}"),
        format!(
            "SELECT * FROM (SELECT events FROM {day} UNION ALL SELECT seconds FROM {day}) UNION ALL SELECT events FROM {day}"
        ),
    ] {
        // The person's 1,000 rows count as 4, give or take the noise of standard deviation 4.
        let rows = number(&engine, &format!("SELECT COUNT(*) FROM ({parts}) x")).await;
        assert!(rows.abs_diff(4) <= 40, "{rows}: {parts}");
    }
    let people = format!("SELECT COUNT(DISTINCT person) FROM (SELECT person FROM {day} UNION ALL SELECT person FROM {day}) x");
    assert!(number(&engine, &people).await.abs_diff(1) <= 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_protected_row_decides_over_another() {
    let house = House::rich(&town(50, 1), &visits(50, 2)).await;
    let engine = engine(&house).await;
    let inner = "(SELECT country FROM private.person_day WHERE events = 37)";
    for sql in [
        format!("SELECT COUNT(*) FROM (SELECT country IN {inner} AS hit FROM private.person_day) x WHERE hit"),
        format!("SELECT COUNT(*) FROM private.person_day p JOIN (VALUES ('DE')) v(c) ON p.country = v.c AND p.country IN {inner}"),
        format!("SELECT COUNT(*) FROM (VALUES ('DE')) v(c) JOIN private.person_day p ON p.country = v.c AND p.country NOT IN {inner}"),
        format!("SELECT country IN {inner}, COUNT(*) FROM private.person_day GROUP BY 1"),
        format!("SELECT CASE WHEN country IN {inner} THEN 1 ELSE 2 END, COUNT(*) FROM private.person_day GROUP BY 1"),
        format!("SELECT SUM(dp_clip(CASE WHEN country IN {inner} THEN 1 ELSE 0 END, 0, 5)) FROM private.person_day"),
        format!("SELECT COUNT(*) FILTER (WHERE country IN {inner}) FROM private.person_day"),
        format!("SELECT COUNT(CASE WHEN country IN {inner} THEN 1 END) FROM private.person_day"),
        format!("SELECT COUNT(*) FROM private.person_day p WHERE EXISTS {inner}"),
        format!("SELECT COUNT(*) FROM (VALUES (1)) v(x) WHERE EXISTS {inner}"),
        format!("SELECT COUNT(*) FROM private.person_day p JOIN (SELECT c FROM (VALUES ('DE')) v(c) WHERE c IN {inner}) w ON p.country = w.c"),
        "SELECT COUNT(*) FROM (SELECT events, (SELECT events FROM private.person_day LIMIT 1) AS one FROM private.person_day) x WHERE events > one"
            .to_owned(),
        "SELECT COUNT(*) FROM private.visits v WHERE EXISTS (SELECT 1 FROM private.person_day)".to_owned(),
        "SELECT COUNT(*) FROM private.visits v, private.person_day d".to_owned(),
        "SELECT COUNT(*) FROM private.visits v, LATERAL (SELECT 1 FROM private.person_day LIMIT 1) d".to_owned(),
    ] {
        refusal(&engine, &sql).await;
    }
    assert_eq!((house.charges().await.len(), house.audited().await), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn whether_a_statement_fails_does_not_depend_on_a_row() {
    // With the busy person there are rows that each of these once failed on; without, none.
    let with = House::rich(&busy(), &[]).await;
    let without = House::rich(&busy()[..2], &[]).await;
    let (with, without) = (engine(&with).await, engine(&without).await);
    for sql in [
        "SELECT COUNT(*) FROM private.person_day WHERE CAST(TRY_CAST(events * 10000000 AS DATE) AS VARCHAR) = 'x'",
        "SELECT COUNT(*) FROM private.person_day WHERE TRY_CAST(TRY_CAST(events * 10000000 AS DATE) AS VARCHAR) = 'x'",
        "SELECT COUNT(*) FROM private.person_day WHERE concat('x', TRY_CAST(events * 10000000 AS DATE)) = 'x'",
        "SELECT COUNT(*) FROM private.person_day WHERE platform = CAST(events AS VARCHAR)",
        "SELECT COUNT(*) FROM private.person_day WHERE platform IN (CAST(events AS VARCHAR), country)",
        "SELECT COUNT(*) FROM private.person_day WHERE nullif(platform, CAST(events AS VARCHAR)) = 'ios'",
        "SELECT COUNT(*) FROM private.person_day WHERE coalesce(activity, CAST(events AS VARCHAR)) = platform",
        "SELECT COUNT(*) FROM private.person_day WHERE CASE WHEN events > 1 THEN platform ELSE CAST(events AS VARCHAR) END = activity",
        "SELECT date_trunc('week', day) = DATE '2026-01-05' AS w, date_trunc('month', day) = DATE '2026-01-01' AS m, COUNT(*) FROM (SELECT \
         TRY_CAST(events * 10000000 AS DATE) AS day FROM private.person_day) x GROUP BY 1, 2",
        "SELECT COUNT(*) FROM private.person_day WHERE TRY_CAST(events AS DECIMAL(38, 37)) > 1",
        "SELECT COUNT(*) FROM private.person_day WHERE CAST(events AS TINYINT) * 3 > seconds",
        "SELECT COUNT(*) FROM private.person_day WHERE events * 9223372036854775807 + seconds > -events",
        "SELECT COUNT(*) FROM private.person_day WHERE seconds / (events - 300) > 1",
        "SELECT COUNT(*) FROM private.person_day WHERE seconds / 60 > 1 AND seconds % 7 > 1",
        "SELECT COUNT(*) FROM private.person_day WHERE factorial(events) > 1",
        "SELECT COUNT(*) FROM private.person_day WHERE TRY_CAST(CAST(events AS VARCHAR) AS BOOLEAN)",
        "SELECT COUNT(*) FROM private.person_day WHERE day + events > DATE '2026-01-01'",
        "SELECT COUNT(*) FROM private.person_day p JOIN (VALUES (0, '1'), (400, 'x')) v(e, t) ON v.e = p.events WHERE CAST(v.t AS INT) > 0",
    ] {
        let outcomes = (with.query(sql).await.map(|_| ()), without.query(sql).await.map(|_| ()));
        let told = |outcome: &Result<(), crate::QueryError>| outcome.as_ref().map_err(|error| error.to_string()).err();
        assert_eq!(told(&outcomes.0), told(&outcomes.1), "{sql}");
        // A refusal comes before anything is read.
        assert!(outcomes.0.is_ok() || told(&outcomes.0).is_some_and(|text| text.contains("42501")), "{sql}: {outcomes:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_questions_never_share_an_answer() {
    let house = House::rich(&town(40, 3), &visits(40, 4)).await;
    let engine = engine(&house).await;
    let from = "SELECT COUNT(*) FROM private.person_day";
    let values = |last: &str| format!("{from} JOIN (VALUES ('a'), ('b'), ('c'), ('d'), ('e'), ('{last}')) v(x) ON v.x = country");
    let read = |least: u32| {
        format!(
            "{from} p JOIN (SELECT country, COUNT(*) AS n FROM private.person_day WHERE events > {least} GROUP BY country) x ON \
             x.country = p.country WHERE x.n > 5"
        )
    };
    let statements = [
        values("f"),
        values("DE"),
        read(1),
        read(80),
        format!("{from} WHERE country = 'DE' OR country = 'FR'"),
        format!("{from} WHERE country = 'DE\") OR private.person_day.country = Utf8(\"FR'"),
        format!("{from} WHERE country IN ('DE', 'FR', 'US', 'BR', 'IN')"),
        format!("{from} WHERE country IN ('DE', 'FR', 'US', 'BR', 'ZZ')"),
        format!("{from} WHERE events > 5"),
        format!("{from} WHERE events >= 5"),
        format!("{from} WHERE events > 5 SETTINGS epsilon = 1"),
        format!("{from} WHERE events > 5 SETTINGS rows_per_group = 1"),
        format!("{from} WHERE events > 5 AND day = DATE '2026-01-05'"),
        format!("{from} p JOIN (VALUES (1, 2)) v(a, b) ON p.events = v.a AND p.seconds = v.b"),
        format!("{from} p JOIN (VALUES (1, 2)) v(b, a) ON p.events = v.a AND p.seconds = v.b"),
        format!("{from} p JOIN (VALUES (1, NULL), (2, 3)) v(a, b) ON p.events IS NOT DISTINCT FROM v.b"),
        format!("{from} p JOIN (VALUES (1, NULL), (2, 3)) v(a, b) ON p.events = v.b"),
        format!("{from} p WHERE events IN (SELECT a FROM (VALUES (1), (2)) v(a))"),
        format!("{from} p WHERE events NOT IN (SELECT a FROM (VALUES (1), (2)) v(a))"),
    ];
    for (at, sql) in statements.iter().enumerate() {
        let answer = engine.query(sql).await.unwrap_or_else(|error| panic!("{error}\n{sql}"));
        let last = answer.notes.last().expect("a note");
        assert!(last.contains("cost"), "{sql} got another question's answer: {last}");
        // And each its own again.
        let again = engine.query(sql).await.expect("stored");
        assert!(again.notes.iter().all(|note| note.contains("answered before")), "{sql}");
        assert_eq!(again.batches, answer.batches, "{at}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_cannot_be_doubled_below_the_noise() {
    let house = House::rich(&busy()[..1], &[]).await;
    let engine = engine(&house).await;
    let doubled = (1..12).map(|n| format!(", c{n} AS (SELECT x || x || x AS x FROM c{})", n - 1)).collect::<String>();
    let sql =
        format!("WITH c0 AS (SELECT country AS x FROM private.person_day){doubled} SELECT COUNT(*) FROM c11 WHERE x LIKE '%DD%'");
    let code = refusal(&engine, &sql).await.code;
    assert!(code.starts_with("54"), "{code}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_row_is_made_so_many_of_that_a_limit_tells_whether_it_is_there() {
    let everybody = House::rich(&busy(), &[]).await;
    // Nobody whom the conditions below fit.
    let nobody = House::rich(&[Row { country: "FR", events: 999, ..busy().remove(0) }], &[]).await;
    let (with, without) = (engine(&everybody).await, engine(&nobody).await);
    let list = |name: &str, rows: usize, cell: &dyn Fn(usize) -> usize| {
        let cells: Vec<String> = (0..rows).map(|at| format!("({})", cell(at))).collect();
        format!("(VALUES {}) {name}({name})", cells.join(", "))
    };
    let each = |name: &str, rows: usize| list(name, rows, &|at| at);
    let day = "private.person_day";
    let crossed = |last: usize| {
        let from = format!("{day} CROSS JOIN {} CROSS JOIN {} CROSS JOIN {}", each("a", 10), each("b", 10), each("c", last));
        format!("SELECT a, b, c, COUNT(*) FROM {from} WHERE events = 7 AND country = 'DE' GROUP BY a, b, c")
    };
    let same = |rows: usize| {
        let public = format!("SELECT x FROM {} CROSS JOIN {}", list("x", rows, &|_| 7), each("y", 32));
        format!("SELECT COUNT(*) FROM {day} JOIN ({public}) v ON v.x = events")
    };
    let united = |rows: usize| {
        let part = format!("SELECT x FROM {day} CROSS JOIN {} CROSS JOIN {}", each("x", rows), each("y", 32));
        format!("SELECT x, COUNT(*) FROM ({part} UNION ALL {part}) t GROUP BY x")
    };
    // Each value is found once, however many there are.
    let looked_up = format!(
        "SELECT COUNT(*) FROM {day} JOIN {} ON x = events JOIN {} ON y = seconds AND y = events",
        each("x", 300),
        each("y", 300)
    );
    let semi = format!(
        "SELECT COUNT(*) FROM {day} WHERE events IN (SELECT x FROM {} CROSS JOIN {})",
        list("x", 40, &|_| 7),
        each("y", 40)
    );
    let answered = format!(
        "SELECT t.c, COUNT(*) FROM {day} p CROSS JOIN \
         (SELECT country AS c, platform, COUNT(*) AS n FROM {day} GROUP BY country, platform) t GROUP BY t.c"
    );
    for sql in [crossed(10), same(32), united(16), looked_up, semi] {
        for engine in [&with, &without] {
            assert!(engine.query(&sql).await.is_ok(), "{sql}");
        }
    }
    for (sql, inner) in [(crossed(11), 0), (same(33), 0), (united(17), 0), (answered, 1)] {
        let before = everybody.charges().await.len();
        let found = [refusal(&with, &sql).await.to_string(), refusal(&without, &sql).await.to_string()];
        assert!(found[0] == found[1] && found[0].contains("1024 rows of one"), "{found:?} {sql}");
        assert_eq!(everybody.charges().await.len() - before, inner, "only what was answered is paid for: {sql}");
    }
}
