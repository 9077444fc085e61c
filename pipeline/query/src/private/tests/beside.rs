//! What is measured beside the groups: the row of those that are left out, and what the bounds cut off.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Float64Type, Int64Type};

use super::house::{House, town, visits};
use super::{engine, refusal};
use crate::Answer;

const BY_VERSION: &str = "SELECT version, dp_other() AS rest, COUNT(*) AS n, COUNT(DISTINCT person) AS people, SUM(seconds) AS s, MEDIAN(seconds) AS m, \
                          dp_stddev(COUNT(*)) AS off FROM private.person_day GROUP BY version SETTINGS rho = 0.5, other = true";

/// Rows of which the second column, `rest`, is true.
fn rest(answer: &Answer) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    for (number, batch) in answer.batches.iter().enumerate() {
        let flags = batch.column_by_name("rest").expect("a column").as_boolean();
        found.extend((0..batch.num_rows()).filter(|row| flags.value(*row)).map(|row| (number, row)));
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn one_row_more_pools_all_groups_that_are_left_out_and_is_stored_and_priced_with_them() {
    let house = House::rich(&town(60, 1), &visits(20, 2)).await;
    let engine = engine(&house).await;
    let answer = engine.query(BY_VERSION).await.unwrap_or_else(|error| panic!("{error}"));
    let found = rest(&answer);
    let [(batch, row)] = found.as_slice() else { panic!("one row: {found:?}") };
    let (batch, row) = (&answer.batches[*batch], *row);
    let column = |name: &str| batch.column_by_name(name).expect("a column");
    assert!(column("version").is_null(row) && column("m").is_null(row), "no key, and no quantile");
    assert!(["n", "people", "s"].iter().all(|name| column(name).is_valid(row)));
    let off = column("off").as_primitive::<Float64Type>();
    assert!(off.value(row) > 0.0, "it has noise of its own");
    assert!(answer.notes[0].contains("pooled in a row") && answer.notes[0].contains("cost"), "{:?}", answer.notes);

    let again = engine.query(BY_VERSION).await.expect("stored");
    assert!(again.notes[0].contains("free"), "{:?}", again.notes);
    assert_eq!(again.batches, answer.batches);
    let plain = engine.query(&BY_VERSION.replace(", other = true", "")).await.expect("answered");
    assert!(rest(&plain).is_empty() && plain.notes[0].contains("left out"), "{:?}", plain.notes);
    let refused =
        refusal(&engine, "SELECT country, COUNT(*) FROM private.person_day GROUP BY country SETTINGS other = true").await;
    assert!(refused.to_string().contains("none is left out"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_row_of_groups_that_are_left_out_stands_for_them_and_for_nobody_who_is_shown() {
    let house = House::rich(&town(60, 1), &visits(20, 2)).await;
    let engine = engine(&house).await;
    // Nearly no noise, and no group is large enough: then the row is all there is. And the other way round.
    let total = |delta: &str| {
        format!(
            "SELECT dp_other() AS rest, COUNT(DISTINCT person) AS people FROM private.person_day WHERE country IN ('DE', 'FR', 'IN') GROUP BY country SETTINGS rho = 900, delta = {delta}, groups = 'discovered', other = true"
        )
    };
    let answer = engine.query(&total("1e-4")).await.unwrap_or_else(|error| panic!("{error}"));
    let (mut pooled, mut shown) = (0, 0);
    for batch in &answer.batches {
        let people = batch.column_by_name("people").expect("a column").as_primitive::<Int64Type>();
        let flags = batch.column_by_name("rest").expect("a column").as_boolean();
        for row in 0..batch.num_rows() {
            if flags.value(row) { pooled += people.value(row) } else { shown += people.value(row) }
        }
    }
    assert!(shown > 30 && pooled.abs() <= 3, "{shown} {pooled}");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_rollup_each_set_of_keys_has_its_own_and_one_note_is_for_all_of_them() {
    let house = House::rich(&town(60, 1), &visits(20, 2)).await;
    let engine = engine(&house).await;
    let sql = "SELECT version, country, GROUPING(version, country) AS g, dp_other() AS rest, COUNT(*) AS n FROM private.person_day \
               GROUP BY ROLLUP (version, country) SETTINGS rho = 0.3, other = true";
    let answer = engine.query(sql).await.unwrap_or_else(|error| panic!("{error}"));
    let sets: Vec<i64> = rest(&answer)
        .into_iter()
        .map(|(batch, row)| {
            let column =
                arrow::compute::cast(answer.batches[batch].column(2), &arrow::datatypes::DataType::Int64).expect("a number");
            column.as_primitive::<Int64Type>().value(row)
        })
        .collect();
    assert_eq!(sets.len(), 2, "{sets:?}");
    assert!(sets.contains(&0) && sets.contains(&1), "{sets:?}");
    assert_eq!(answer.notes.len(), 1, "{:?}", answer.notes);
    assert!(answer.notes[0].contains("3 questions cost together rho 0.3:"), "{:?}", answer.notes);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_bounds_cut_off_is_told_with_the_answer_and_again_with_the_stored_one() {
    let house = House::rich(&town(60, 1), &visits(20, 2)).await;
    let engine = engine(&house).await;
    let sql = "SELECT country, COUNT(*), SUM(dp_clip(seconds, 0, 5)) FROM private.person_day GROUP BY country SETTINGS rho = 500, bias = true";
    let answer = engine.query(sql).await.unwrap_or_else(|error| panic!("{error}"));
    let [cost, told] = answer.notes.as_slice() else { panic!("{:?}", answer.notes) };
    assert!(cost.contains("rho 500"), "{cost}");
    assert!(
        told.contains("the bounds cut off, at least") && told.contains("within 0..5") && told.contains("of the people"),
        "{told}"
    );
    // A clip this low leaves little.
    let share: f64 =
        told.split(" % (± ").nth(1).and_then(|text| text.rsplit(' ').next()).and_then(|n| n.parse().ok()).expect("a share");
    assert!(share > 20.0, "{told}");
    let again = engine.query(sql).await.expect("stored");
    assert!(again.notes[0].contains("free") && again.notes[1] == *told, "{:?}", again.notes);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_is_told_of_blocks_and_questions_alone_the_same_whatever_is_in_them() {
    let sql = "SELECT country, platform, COUNT(*) FROM private.person_day GROUP BY ROLLUP (country, platform)";
    let mut told = Vec::new();
    for people in [3, 200] {
        let house = House::rich(&town(people, 1), &visits(20, 2)).await;
        let engine = engine(&house).await;
        let steps = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let mine = std::sync::Arc::clone(&steps);
        let watch: crate::Watch = std::sync::Arc::new(move |step| mine.lock().expect("whole").push(step));
        engine.query_watched(crate::TEAM, sql, std::sync::Arc::clone(&watch)).await.unwrap_or_else(|error| panic!("{error}"));
        let first = steps.lock().expect("whole").clone();
        // A stored answer takes no time, and nothing is told of it.
        engine.query_watched(crate::TEAM, sql, watch).await.expect("stored");
        assert_eq!(steps.lock().expect("whole").len(), first.len());
        told.push(first);
    }
    assert_eq!(told[0], told[1]);
    let seen: Vec<[usize; 4]> = told[0].iter().map(|step| [step.question, step.questions, step.read, step.blocks]).collect();
    let each = |question| [[question, 3, 0, 3], [question, 3, 1, 3], [question, 3, 2, 3], [question, 3, 3, 3]];
    assert_eq!(seen, [each(1), each(2), each(3)].concat());
}
