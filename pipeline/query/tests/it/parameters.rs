//! Values for `$1`, `$2`, …: whatever is bound is a literal and nothing else, and what is asked is the statement with its values in it.

use std::sync::OnceLock;

use arrow::array::AsArray as _;
use arrow::datatypes::{Float64Type, Int64Type};
use proptest::prelude::*;
use starling_query::{Engine, Kind, Principal, Role, Value};
use starling_schemas::metrics::Catalogue;

use super::fixture::{House, patient};
use super::vault_house::{House as VaultHouse, town, visits};

fn ada() -> Principal {
    Principal { name: "ada".to_owned(), role: Role::Product, team: "product".to_owned() }
}

/// One engine, its house and what runs it, for all cases of a property.
struct Run {
    runtime: tokio::runtime::Runtime,
    _house: House,
    engine: Engine,
}

fn run() -> &'static Run {
    static RUN: OnceLock<Run> = OnceLock::new();
    RUN.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("starts");
        let (house, engine) = runtime.block_on(async {
            let house = House::with_releases().await;
            let engine = house.engine(patient()).await;
            (house, engine)
        });
        Run { runtime, _house: house, engine }
    })
}

impl Run {
    fn rows(&self, sql: &str, values: &[Value]) -> String {
        let asked = self.runtime.block_on(self.engine.query_bound(&ada(), sql, values));
        match asked {
            Ok(answer) => format!("{:?}", answer.batches.iter().map(|batch| batch.columns().to_vec()).collect::<Vec<_>>()),
            Err(error) => error.to_string(),
        }
    }
}

/// Text that tries to end the literal it stands in, and text of any other kind.
fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("'; DROP TABLE stats.messages_daily; --".to_owned()),
        Just("' OR '1' = '1".to_owned()),
        Just("1) OR private.person_day IS NOT NULL --".to_owned()),
        Just("$1 $2 $$ ' $$".to_owned()),
        Just("\\' E'\\x27' \u{2019} /* ".to_owned()),
        "[ -~é'\"\\\\$;]{0,40}",
        "\\PC{0,20}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn text_that_is_bound_gives_the_rows_of_the_literal_quoted_by_hand(text in texts(), other in texts()) {
        let run = run();
        let sql = "SELECT count(*) AS n, min($1) AS one, min(concat($2, country)) AS two, $1 = $2 AS same \
                   FROM stats.people_served_daily WHERE country <> $1 AND (status = 'released' OR status IN ($2, $1)) AND country NOT LIKE $2";
        let by_hand = |text: &str| format!("'{}'", text.replace('\'', "''"));
        let written = sql.replace("$1", "\u{1}").replace("$2", &by_hand(&other)).replace('\u{1}', &by_hand(&text));
        let bound = run.rows(sql, &[Value::Text(text.clone()), Value::Text(other)]);
        prop_assert!(bound.starts_with("[["), "{}", bound);
        prop_assert_eq!(&bound, &run.rows(&written, &[]));
        // Back out as it came in.
        let answer = run.runtime.block_on(run.engine.query_bound(&ada(), "SELECT $1 AS v", &[Value::Text(text.clone())])).expect("a row");
        prop_assert_eq!(answer.batches[0].column(0).as_string::<i32>().value(0), text);
    }

    #[test]
    fn numbers_that_are_bound_are_those_written_by_hand(whole: i64, float in prop::num::f64::ANY, few in 0_i64..4) {
        let run = run();
        let answer = run.runtime.block_on(
            run.engine.query_bound(&ada(), "SELECT $1 AS a, $2 AS b, 7 -$1 AS c", &[Value::Whole(whole), Value::Float(float)]),
        ).expect("a row");
        let row = &answer.batches[0];
        prop_assert_eq!(row.column(0).as_primitive::<Int64Type>().value(0), whole);
        let back = row.column(1).as_primitive::<Float64Type>().value(0);
        prop_assert!(back == float || (back.is_nan() && float.is_nan()));
        prop_assert_eq!(row.column(2).as_primitive::<Int64Type>().value(0), 7_i64.wrapping_sub(whole));
        let sql = "SELECT day, country, value FROM stats.people_served_daily WHERE value > $1 ORDER BY 1, 2, 3 LIMIT $2";
        let written = sql.replace("$1", &whole.to_string()).replace("$2", &few.to_string());
        prop_assert_eq!(run.rows(sql, &[Value::Whole(whole), Value::Whole(few)]), run.rows(&written, &[]));
    }
}

#[test]
fn i4_a_value_is_in_no_error_and_counts_towards_the_size() {
    let run = run();
    let refused = |sql: &str, values: &[Value]| {
        let error = run.runtime.block_on(run.engine.query_bound(&ada(), sql, values)).map(|_| ()).expect_err(sql);
        let said = format!("{error} {error:?}");
        assert!(!said.contains("c4n4ry") && !said.contains("424242"), "{sql}: {said}");
        error.code
    };
    let canary = || Value::Text("c4n4ry".to_owned());
    for sql in [
        "SELECT CAST($1 AS BIGINT)",
        "SELECT * FROM stats.messages_daily WHERE day = $1",
        "SELECT nothing_of($1)",
        "SELECT * FROM stats.messages_daily WHERE nothing = $1",
        "SELECT date_trunc($1, day) FROM stats.messages_daily",
        "SELECT * FROM stats.messages_daily LIMIT $1",
        "SELECT 1 + sum($1)",
        // Where no expression may stand there is no parameter either.
        "SELECT * FROM $1",
        "SELECT 1 AS $1",
        "SELECT * FROM stats.messages_daily AS $1",
        "SELECT $1.day FROM stats.messages_daily",
        "COPY $1 TO $1",
        "SET x = $1",
    ] {
        refused(sql, &[canary()]);
    }
    assert_eq!(refused("SELECT * FROM stats.messages_daily LIMIT $1", &[Value::Whole(-424_242)]).len(), 5);
    let long = || Value::Text("x".repeat(9_000));
    assert_eq!(refused("SELECT $1, $2", &[long(), long()]), "54000");
    assert_eq!(refused("SELECT $1, $1", &[long()]), "54000");
    for (sql, values) in
        [("SELECT $1", vec![]), ("SELECT $2", vec![canary()]), ("SELECT 1", vec![canary()]), ("SELECT ?", vec![canary()])]
    {
        refused(sql, &values);
    }
    assert_eq!(refused("SELECT $257", &[]), "54001");
    let kinds = |sql: &str| run.runtime.block_on(run.engine.parameters_as(&ada(), sql)).expect(sql);
    assert_eq!(
        kinds(
            "SELECT $6, $7::date FROM stats.messages_daily WHERE day BETWEEN $1 AND $2 AND value > $3 AND country IN ($4, 'DE') LIMIT $5"
        ),
        [Some(Kind::Day), Some(Kind::Day), Some(Kind::Float), Some(Kind::Text), Some(Kind::Whole), None, Some(Kind::Day)]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i2_the_same_question_with_parameters_and_with_literals_is_asked_and_paid_once() {
    let house = VaultHouse::new(Catalogue::builtin().expect("reviewed"), &town(40, 1), &visits(20, 2)).await;
    let engine = super::private::engine_of(&house).await;
    let sql = "SELECT platform, COUNT(DISTINCT person) AS people FROM private.person_day WHERE day = $1 AND platform <> $2 GROUP BY platform \
               SETTINGS epsilon = $3";
    let day = "2026-01-05";
    let shown = |answer: starling_query::Answer| format!("{:?}", answer.batches);
    let written = sql.replace("$1", "DATE '2026-01-05'").replace("$2", "'web'").replace("$3", "0.05");
    let first = engine.query_as(&ada(), &written).await.expect("answered");
    assert!(first.notes.iter().any(|note| note.contains("cost rho")), "{:?}", first.notes);
    let (first, paid) = (shown(first), house.charges().await.len());
    assert!(paid > 0);
    for days in [Value::Day(day.to_owned()), Value::Text(day.to_owned())] {
        let values = [days, Value::Text("web".to_owned()), Value::Float(0.05)];
        let again = engine.query_bound(&ada(), sql, &values).await.expect("answered");
        assert!(again.notes.iter().any(|note| note.contains("free")), "{:?}", again.notes);
        assert_eq!((shown(again), house.charges().await.len()), (first.clone(), paid));
    }
    // Another value is another question, and another budget is another price.
    for (platform, epsilon) in [("ios", 0.05), ("web", 0.06)] {
        let before = house.charges().await.len();
        let values = [Value::Day(day.to_owned()), Value::Text(platform.to_owned()), Value::Float(epsilon)];
        engine.query_bound(&ada(), sql, &values).await.expect("answered");
        assert!(house.charges().await.len() > before, "{platform} {epsilon}");
    }
    // Told without asking.
    let kinds = engine.parameters_as(&ada(), sql).await.expect("told");
    assert_eq!(kinds, [Some(Kind::Day), Some(Kind::Text), Some(Kind::Float)]);
    let values: Vec<Value> = kinds.iter().flatten().map(|kind| kind.stand_in()).collect();
    let before = house.charges().await.len();
    assert_eq!(engine.columns_bound(&ada(), sql, &values).await.expect("told").fields().len(), 2);
    let auditor = Principal { role: Role::Auditor, ..ada() };
    for told in [
        engine.parameters_as(&auditor, sql).await.map(|_| ()),
        engine.columns_bound(&auditor, sql, &values).await.map(|_| ()),
        engine.query_bound(&auditor, sql, &values).await.map(|_| ()),
    ] {
        assert_eq!(told.expect_err("denied").code, "42501");
    }
    assert_eq!(house.charges().await.len(), before);
}
