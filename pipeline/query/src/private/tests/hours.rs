//! Hours: a block each, which its day and its hour name, and which a question chooses by either.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Date32Type, Int64Type};
use starling_schemas::ids::EpochId;
use starling_schemas::metrics::Catalogue;

use super::house::{DAY, House, RICH, visits};
use super::{engine, number, refusal};
use crate::Engine;

/// A budget that these tests do not spend, with little noise.
const HOURS: &str = r#"
[person_hour]
description = "Who did something in one UTC hour."
window = "hour"
privacy_unit = "one person for one hour"
rho_limit = 1000.0
releases_share = 0.0
delta = 1e-9
[person_hour.questions]
groups_per_person = 1
rows_per_group = 1
rho = 0.5
"#;

fn hour(day: i32, hour: u8) -> EpochId {
    EpochId(DAY + day).hour_at(hour)
}

/// 100 people at nine and 200 at ten of one day, 400 at nine of the next.
async fn mornings() -> (House, Engine) {
    let catalogue = Catalogue::parse(&format!("{RICH}{HOURS}"), &[]).expect("definitions");
    let house = House::new(catalogue, &[], &visits(3, 1)).await;
    for (epoch, people) in [(hour(0, 9), 100), (hour(0, 10), 200), (hour(1, 9), 400)] {
        house.close_hour(epoch, people).await;
    }
    let engine = engine(&house).await;
    (house, engine)
}

async fn rows(engine: &Engine, sql: &str) -> RecordBatch {
    let answer = engine.query(sql).await.unwrap_or_else(|error| panic!("{error}\n{sql}"));
    arrow::compute::concat_batches(&answer.schema, &answer.batches).expect("one schema")
}

/// The blocks that were charged, each with how often.
async fn charged(house: &House) -> Vec<(String, usize)> {
    let rows = house.metastore.budget().await.expect("the ledger");
    let rows = rows.iter().filter(|row| row.block.dataset == "person_hour");
    rows.map(|row| (row.block.epoch.to_string(), row.charges.len())).collect()
}

fn is_near(found: i64, truth: i64) -> bool {
    // Noise of one person.
    (found - truth).abs() < 15
}

#[tokio::test]
async fn groups_by_day_and_hour_are_the_hours_there_are_and_no_combinations_of_them() {
    let (_house, engine) = mornings().await;
    let sql = "SELECT day, hour, COUNT(DISTINCT person) AS people FROM private.person_hour GROUP BY day, hour ORDER BY day, hour";
    let found = rows(&engine, sql).await;
    let days = found.column(0).as_primitive::<Date32Type>().values().to_vec();
    let hours = found.column(1).as_primitive::<Int64Type>().values().to_vec();
    assert_eq!((days, hours), (vec![DAY, DAY, DAY + 1], vec![9, 10, 9]));
    let people = found.column(2).as_primitive::<Int64Type>();
    assert!(people.values().iter().zip([100, 200, 400]).all(|(found, truth)| is_near(*found, truth)), "{people:?}");

    // Added up above the noise.
    let by_hour = format!("SELECT hour, SUM(people) AS people FROM ({sql}) GROUP BY hour ORDER BY hour")
        .replace(" ORDER BY day, hour)", ")");
    let by_hour = rows(&engine, &by_hour).await;
    assert_eq!(by_hour.column(0).as_primitive::<Int64Type>().values().to_vec(), [9, 10]);
    let people = by_hour.column(1).as_primitive::<Int64Type>();
    assert!(
        is_near(people.value(0), 500) && is_near(people.value(1), 200),
        "whoever is there on two days counts twice: {people:?}"
    );
}

#[tokio::test]
async fn i2_hours_are_not_added_together_below_the_noise() {
    let (house, engine) = mornings().await;
    for sql in [
        "SELECT COUNT(DISTINCT person) FROM private.person_hour",
        "SELECT hour, COUNT(DISTINCT person) FROM private.person_hour GROUP BY hour",
        "SELECT day, COUNT(DISTINCT person) FROM private.person_hour GROUP BY day",
        "SELECT hour / 6, COUNT(DISTINCT person) FROM private.person_hour GROUP BY hour / 6",
        "SELECT day, hour / 6, COUNT(DISTINCT person) FROM private.person_hour GROUP BY day, hour / 6",
        "SELECT COUNT(DISTINCT person) FROM private.person_hour WHERE day = DATE '2026-01-05'",
        "SELECT COUNT(DISTINCT person) FROM private.person_hour WHERE hour = 9",
        "SELECT day, hour, COUNT(DISTINCT person) FROM private.person_hour GROUP BY ROLLUP (day, hour)",
    ] {
        let refused = refusal(&engine, sql).await;
        assert!(refused.to_string().contains("adding hours together"), "{sql}: {refused}");
    }
    assert_eq!(charged(&house).await, []);
    for sql in [
        "SELECT hour, COUNT(DISTINCT person) FROM private.person_hour WHERE day = DATE '2026-01-05' GROUP BY hour",
        "SELECT day, COUNT(DISTINCT person) FROM private.person_hour WHERE hour = 9 GROUP BY day",
        "SELECT COUNT(DISTINCT person) FROM private.person_hour WHERE hour = 10",
    ] {
        rows(&engine, sql).await;
    }
}

#[tokio::test]
async fn i2_a_condition_on_the_hour_reads_and_charges_those_hours_alone() {
    let (house, engine) = mornings().await;
    let ask = async |condition: &str| {
        number(&engine, &format!("SELECT COUNT(DISTINCT person) AS people FROM private.person_hour WHERE {condition}")).await
    };
    let [nine, ten, next] = [hour(0, 9), hour(0, 10), hour(1, 9)].map(|epoch| epoch.to_string());
    assert!(is_near(ask("hour = 10").await, 200));
    assert_eq!(charged(&house).await, [(ten.clone(), 1)]);
    assert!(is_near(ask("day = DATE '2026-01-05' AND hour < 10").await, 100));
    assert_eq!(charged(&house).await, [(nine.clone(), 1), (ten.clone(), 1)]);
    assert!(is_near(ask("day = DATE '2026-01-06'").await, 400));
    let either = "(day = DATE '2026-01-05' AND hour = 10) OR (day = DATE '2026-01-06' AND hour = 9)";
    let sql = format!("SELECT day, hour, COUNT(DISTINCT person) FROM private.person_hour WHERE {either} GROUP BY day, hour");
    assert_eq!(rows(&engine, &sql).await.num_rows(), 2);
    assert_eq!(charged(&house).await, [(nine.clone(), 1), (ten.clone(), 2), (next.clone(), 2)]);
    let refused = refusal(&engine, "SELECT COUNT(DISTINCT person) FROM private.person_hour WHERE hour = 23").await;
    assert!(refused.to_string().contains("meets the conditions"), "{refused}");
    // The same question again is the same answer, for nothing.
    let again = ask("hour = 10").await;
    assert_eq!((again, charged(&house).await), (ask("hour = 10").await, vec![(nine, 1), (ten, 2), (next, 2)]));
}

#[tokio::test]
async fn a_price_says_how_many_hours_pay_it_and_nothing_else_of_a_person_can_be_asked() {
    let (house, engine) = mornings().await;
    let price =
        rows(&engine, "EXPLAIN PRIVACY SELECT day, hour, COUNT(DISTINCT person) FROM private.person_hour GROUP BY day, hour")
            .await;
    let told = price.column(2).as_string::<i32>().iter().flatten().collect::<Vec<_>>().join("\n");
    assert!(told.contains("3 hours, 2026-01-05T09 to 2026-01-06T09, each charged the whole cost"), "{told}");
    assert!(told.contains("3 listed"), "{told}");
    for sql in [
        "SELECT country, COUNT(DISTINCT person) FROM private.person_hour GROUP BY country",
        "SELECT person, hour FROM private.person_hour",
        "SELECT SUM(hour) FROM private.person_hour",
        "SUGGEST SELECT COUNT(DISTINCT person) FROM private.person_hour",
        "SELECT COUNT(DISTINCT a.person) FROM private.person_hour a JOIN private.person_day b ON a.person = b.person",
    ] {
        let refused = refusal(&engine, sql).await;
        assert_ne!(refused.code, "XX000", "{sql}: {refused}");
    }
    assert_eq!(charged(&house).await, []);
}
