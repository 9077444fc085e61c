//! Bounds that are found in the data: the same gate, ledger, audit and store as any question.

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;

use super::house::{House, town, visits};
use super::{engine, refusal};
use crate::Answer;

const SQL: &str = "SUGGEST SELECT country, COUNT(*), SUM(seconds), COUNT(DISTINCT person) FROM private.person_day GROUP BY country SETTINGS rho = 5, group_size = 50";

fn column(answer: &Answer, name: &str) -> Vec<Option<i64>> {
    answer
        .batches
        .iter()
        .flat_map(|batch| batch.column_by_name(name).expect("a column").as_primitive::<Int64Type>().iter().collect::<Vec<_>>())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn bounds_are_found_for_a_tenth_of_the_questions_cost_charged_once_and_stored() {
    let house = House::rich(&town(300, 1), &visits(20, 2)).await;
    let engine = engine(&house).await;
    let price = engine.query(&format!("EXPLAIN PRIVACY {SQL}")).await.unwrap_or_else(|error| panic!("{error}"));
    assert!(price.notes[0].contains("would cost rho 0.5:"), "{:?}", price.notes);
    assert_eq!(column(&price, "suggested"), [None; 3]);
    assert_eq!((house.charges().await.len(), house.audited().await, house.answers().await.len()), (0, 0, 0));

    let answer = engine.query(SQL).await.unwrap_or_else(|error| panic!("{error}"));
    assert!(answer.notes[0].contains("cost rho 0.5:"), "{:?}", answer.notes);
    let (now, suggested) = (column(&answer, "now"), column(&answer, "suggested"));
    assert_eq!(now, [Some(3), Some(4), Some(7200)]);
    assert!(
        suggested.iter().zip(&now).all(|(value, now)| value.is_some_and(|value| value >= 1 && value <= now.unwrap_or(0) * 16)),
        "{suggested:?}"
    );
    let written = answer.batches[0].column_by_name("write").expect("a column").as_string::<i32>();
    assert!((0..3).all(|row| written.is_valid(row)), "{written:?}");
    let charges = house.charges().await.len();
    assert!(charges > 0 && house.audited().await == 1 && house.answers().await.len() == 1);

    let again = engine.query(SQL).await.expect("stored");
    assert!(again.notes[0].contains("free") && again.batches == answer.batches, "{:?}", again.notes);
    assert_eq!((house.charges().await.len(), house.audited().await), (charges, 1));
    // The question itself is another one.
    let asked = engine.query(&SQL.replace("SUGGEST ", "").replace(", group_size = 50", "")).await.expect("answered");
    assert!(asked.notes[0].contains("cost rho 5:"), "{:?}", asked.notes);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_bound_to_find_is_refused_unpaid() {
    let house = House::rich(&town(6, 1), &visits(20, 2)).await;
    let engine = engine(&house).await;
    for sql in [
        "SUGGEST SELECT COUNT(DISTINCT person) FROM private.person_day",
        "SUGGEST SELECT * FROM private.person_day",
        "SUGGEST SELECT * FROM meta.metrics",
        "SUGGEST EXPLAIN SELECT COUNT(*) FROM private.person_day",
        "SUGGEST SUGGEST SELECT COUNT(*) FROM private.person_day",
        "SUGGEST",
        "SELECT COUNT(*) FROM private.person_day SETTINGS group_size = 5",
    ] {
        let error = refusal(&engine, sql).await;
        assert_ne!(error.code, "XX000", "{error}\n{sql}");
    }
    assert_eq!((house.charges().await.len(), house.audited().await), (0, 0));
}
