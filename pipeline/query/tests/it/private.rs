//! Questions over protected tables as text: what they cost, and what is refused with what to write instead.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use arrow::array::AsArray;
use starling_query::{Engine, Vault};
use starling_schemas::metrics::Catalogue;
use starling_schemas::time::FixedClock;

use super::fixture::patient;
use super::vault_house::{House, NOW_MS, town, visits};
use super::{paragraphs, snapshots};

pub(super) async fn engine_of(house: &House) -> Engine {
    let (metastore, files) = (Arc::clone(&house.metastore), Arc::clone(&house.files));
    let vault = Vault::new(metastore, files, Arc::clone(&house.keyring), Arc::clone(&house.catalogue));
    Engine::open_private(vault, Arc::new(FixedClock::new(NOW_MS)), patient()).await.expect("opens")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prices_are_what_stands_beside_them_and_each_statement_is_answered_for_its_price() {
    let reviewed = || Catalogue::builtin().expect("reviewed");
    let house = House::new(reviewed(), &town(40, 1), &visits(20, 2)).await;
    // The same prices for the same days, whatever is in them.
    let other = House::new(reviewed(), &town(90, 7), &visits(3, 4)).await;
    let (engine, elsewhere) = (engine_of(&house).await, engine_of(&other).await);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/private_prices.sql");
    let mut text = String::new();
    for sql in paragraphs(&std::fs::read_to_string(file).expect("text"), "--") {
        let (mut here, mut there) = (String::new(), String::new());
        for (engine, said) in [(&engine, &mut here), (&elsewhere, &mut there)] {
            let price = engine.query(&sql).await.unwrap_or_else(|error| panic!("{error}\n{sql}"));
            for batch in &price.batches {
                let (what, value) = (batch.column(1).as_string::<i32>(), batch.column(2).as_string::<i32>());
                for row in 0..batch.num_rows() {
                    writeln!(said, "  {}: {}", what.value(row), value.value(row)).expect("a string");
                }
            }
        }
        assert_eq!(here, there, "{sql}");
        writeln!(text, "{sql}\n{here}").expect("a string");
    }
    assert_eq!((house.charges().await.len(), house.audited().await, house.answers().await.len()), (0, 0, 0));
    snapshots(|| insta::assert_snapshot!("private_prices", text));

    let rich = House::rich(&town(40, 1), &visits(20, 2)).await;
    let lasting = engine_of(&rich).await;
    for sql in text.lines().filter_map(|line| line.strip_prefix("EXPLAIN PRIVACY ")) {
        let answer = lasting.query(sql).await.unwrap_or_else(|error| panic!("{error}\n{sql}"));
        assert!(answer.notes.iter().all(|note| note.contains("cost") || note.contains("cut off")), "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i4_what_could_show_a_person_is_refused_unpaid_and_no_error_holds_a_literal() {
    let house = House::rich(&town(40, 1), &visits(20, 2)).await;
    let engine = engine_of(&house).await;
    let statements = paragraphs(include_str!("../private_refused.txt"), "#");
    assert!(statements.len() >= 290, "{}", statements.len());
    let (mut text, mut answered) = (String::new(), Vec::new());
    for sql in &statements {
        let Err(error) = engine.query(sql).await else {
            answered.push(sql);
            continue;
        };
        let said = format!("{error} {error:?}");
        for secret in ["424242", "secret-literal", "secret"] {
            assert!(!said.contains(secret), "{sql}\n{said}");
        }
        assert_ne!(error.code, "XX000", "{sql}\n{error}");
        writeln!(text, "{sql}\n  {error}\n").expect("a string");
    }
    assert!(answered.is_empty(), "these must be refused: {answered:#?}");
    assert_eq!((house.charges().await.len(), house.audited().await, house.answers().await.len()), (0, 0, 0), "refusals are free");
    snapshots(|| insta::assert_snapshot!("private_refused", text));
}
