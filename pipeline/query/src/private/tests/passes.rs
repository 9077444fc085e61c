//! Rows in no order that do not fit the memory they may use.

use std::sync::Arc;

use arrow::compute::concat_batches;
use starling_schemas::time::FixedClock;

use super::house::{House, NOW_MS, town, visits};
use super::vault;
use crate::{Engine, Limits};

/// Answers without visible noise, two of them through a join, and bytes that are fewer than their rows and more than their groups.
const STATEMENTS: &[(&str, usize)] = &[
    (
        "SELECT shop, COUNT(DISTINCT person) AS people, COUNT(*) AS visits FROM private.visits GROUP BY shop ORDER BY shop SETTINGS rho = 900",
        8 << 10,
    ),
    (
        "SELECT n, COUNT(DISTINCT person) AS people FROM private.visits JOIN (VALUES ('north', 1), ('south', 2)) t(s, n) ON shop = s \
     GROUP BY n ORDER BY n SETTINGS rho = 300",
        4 << 10,
    ),
    (
        "SELECT country, COUNT(DISTINCT person) AS people FROM private.person_day JOIN (VALUES ('a'), ('b')) t(x) ON 1 = 1 \
     GROUP BY country ORDER BY country SETTINGS rho = 300",
        64 << 10,
    ),
];

async fn engine(house: &House, waiting_bytes: usize) -> Engine {
    let limits = Limits { waiting_bytes, ..Limits::default() };
    Engine::open_private(vault(house), Arc::new(FixedClock::new(NOW_MS)), limits).await.expect("opens")
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_do_not_fit_are_read_in_passes_and_the_answer_is_the_same() {
    let (rows, seen) = (town(900, 5), visits(400, 6));
    for (sql, few) in STATEMENTS {
        let mut found = Vec::new();
        for waiting_bytes in [1 << 30, *few] {
            let house = House::rich(&rows, &seen).await;
            let answer = engine(&house, waiting_bytes).await.query(sql).await;
            let answer = answer.unwrap_or_else(|error| panic!("{error}\n{sql}"));
            found.push(concat_batches(&answer.schema, &answer.batches).expect("a table"));
            assert!(
                !house.charges().await.is_empty() && house.audited().await == 1,
                "charged and told once, however often it is read"
            );
        }
        assert!(found[0].num_rows() > 1 && found[0] == found[1], "{sql}: {found:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_few_people_that_do_not_fit_end_the_question() {
    let house = House::rich(&[], &visits(400, 6)).await;
    let error = engine(&house, 64).await.query(STATEMENTS[0].0).await.expect_err("too little");
    assert_eq!(error.code, "53200", "{error}");
}
