//! Whatever is written: a statement that is answered has no protected row left in its plan, its private parts are row-wise, and each was charged
//! and written into the audit log before a row of it was read.

use std::sync::Arc;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::LogicalPlan;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use datafusion::parquet::file::properties::WriterProperties;
use starling_schemas::metrics::Catalogue;

use super::engine;
use super::generate::Generator;
use super::house::{DAY, House, Random, town, visits};
use crate::error::QueryError;
use crate::gate;
use crate::private::{Priced, Split, intact, is_private, price, split};
use crate::{Engine, Inner};

/// How many statements: enough for continuous integration, or many more where nobody waits.
fn statements(usual: usize) -> usize {
    std::env::var("STARLING_STATEMENTS").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// Takes a statement as far as its price, as [`Engine::query`] does.
pub(super) async fn priced(engine: &Engine, sql: &str) -> Result<(LogicalPlan, Vec<Priced>), QueryError> {
    let inner: &Inner = &engine.inner;
    let admitted = gate::admit(sql, &[], &inner.known, &inner.limits)?;
    let state = &inner.state;
    let plan = state
        .statement_to_plan(admitted.statement)
        .await
        .map_err(|error| crate::error::from_planning(&error, &admitted.literals))?;
    assert!(is_private(&plan), "{sql}");
    let settings = admitted.settings.unwrap_or_default();
    let Split { plan, leaves, .. } = split(plan, &settings)?;
    let vault = inner.shelf.vault.as_ref().expect("a vault");
    let questions = price(leaves, &settings, vault, &inner.reading, &admitted.literals).await?;
    Ok((plan, questions))
}

fn protected_scans(plan: &LogicalPlan) -> usize {
    let mut found = 0;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            found += usize::from(crate::private::table::protected(&scan.source).is_some());
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .expect("a walk");
    found
}

/// What became of statements.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    accepted: usize,
    refused: usize,
    leaves: usize,
}

/// Takes the statement of `seed` as far as its price, and checks all that must hold of it.
async fn checked(engine: &Engine, limit: i64, seed: usize, tally: &mut Tally) {
    let mut random = Random(seed as u64 * 77 + 5);
    let sql = Generator { random: &mut random, hostile: seed.is_multiple_of(2) }.statement();
    let (above, questions) = match priced(engine, &sql).await {
        Ok(priced) => priced,
        Err(error) => {
            tally.refused += 1;
            assert_ne!(error.code, "XX000", "{error}\n{sql}");
            return;
        }
    };
    tally.accepted += 1;
    tally.leaves += questions.len();
    assert_eq!(protected_scans(&above), 0, "{sql}\n{}", above.display_indent());
    assert!(!questions.is_empty(), "{sql}");
    let whole: i64 = questions.iter().map(|question| question.plan.rho.0).sum();
    assert!(whole <= limit, "{sql}");
    for question in &questions {
        assert!(question.plan.rho.0 > 0 && !question.blocks.is_empty(), "{sql}");
        assert!(intact::check(&question.rows).is_ok(), "{sql}\n{}", question.rows.display_indent());
        let blurred: i64 = question.plan.blurs.iter().map(|blur| blur.rho().0).sum();
        assert_eq!(blurred, question.plan.rho.0, "{sql}");
        // Without keys nothing is discovered; what is discovered has a threshold above one person and a price for it.
        if question.leaf.spec.discovered {
            assert!(question.plan.threshold.is_some_and(|at| at > 1) && question.plan.delta > 0.0, "{sql}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_statement_has_no_protected_row_left_and_its_private_parts_are_row_wise_and_priced() {
    let house = House::rich(&town(3, 1), &visits(3, 2)).await;
    let engine = Arc::new(engine(&house).await);
    let limit = house.catalogue.datasets["person_day"].questions.as_ref().expect("questions").rho().0;
    let all = statements(20_000);
    let hands = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let work: Vec<_> = (0..hands)
        .map(|hand| {
            let engine = Arc::clone(&engine);
            tokio::spawn(async move {
                let mut tally = Tally::default();
                for seed in (hand..all).step_by(hands) {
                    checked(&engine, limit, seed, &mut tally).await;
                }
                tally
            })
        })
        .collect();
    let mut sum = Tally::default();
    for hand in work {
        let Tally { accepted, refused, leaves } = hand.await.expect("every statement is as it must be");
        (sum.accepted, sum.refused, sum.leaves) = (sum.accepted + accepted, sum.refused + refused, sum.leaves + leaves);
    }
    assert_eq!(sum.accepted + sum.refused, all);
    assert!(sum.accepted * 3 > all && sum.refused * 8 > all && sum.leaves > sum.accepted, "{sum:?} of {all}");
    assert_eq!((house.charges().await.len(), house.audited().await), (0, 0), "a price reads and spends nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_without_a_charge_and_an_audit_entry_for_every_question_in_it() {
    let house = House::rich(&town(40, 3), &visits(40, 4)).await;
    let engine = engine(&house).await;
    let (mut answered, mut charged) = (0_usize, 0_usize);
    let all = statements(200);
    for seed in 0..all {
        let mut random = Random(seed as u64 * 1013 + 11);
        let sql = Generator { random: &mut random, hostile: seed % 3 == 0 }.statement();
        let before = (house.charges().await, house.answers().await);
        let known: Vec<String> = match priced(&engine, &sql).await {
            Ok((_, questions)) => questions.iter().map(|question| question.id.clone()).collect(),
            Err(_) => Vec::new(),
        };
        let outcome = engine.query(&sql).await;
        let after = (house.charges().await, house.answers().await);
        if known.is_empty() {
            assert!(outcome.is_err(), "{sql}");
            assert_eq!(before, after, "a refused statement spends nothing: {sql}");
            continue;
        }
        answered += usize::from(outcome.is_ok());
        if let Err(error) = &outcome {
            // What stands above the noise may fail; what is below may not.
            assert!(!["XX000", "22000", "22012", "22003"].contains(&error.code), "{error}\n{sql}");
        }
        for id in &known {
            assert!(after.0.contains(&format!("sql:{id}")), "an answer without a charge: {sql}");
            assert!(after.1.contains(&format!("answers/{id}.parquet")), "an answer that is not kept: {outcome:?} {sql}");
        }
        charged = after.0.len();
        let own: std::collections::BTreeSet<&String> = after.0.iter().collect();
        assert_eq!(own.len(), house.audited().await, "each question once in the log: {sql}");
        assert_eq!(own.len(), after.1.len(), "each answer once in the store: {sql}");
    }
    assert!(answered * 3 > all, "{answered} of {all}");
    assert!(charged > answered);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_read_only_after_the_charge_and_the_audit_entry() {
    let house = House::rich(&town(40, 5), &visits(4, 6)).await;
    // Whoever reads this table now fails: a damaged file shows that it was opened, and what stood in the ledger by then.
    std::fs::write(house.table(DAY), b"no table any more").expect("written");
    let engine = engine(&house).await;
    let sql = "SELECT country, COUNT(*) FROM private.person_day WHERE day = DATE '2026-01-05' GROUP BY country";
    assert!(engine.query(&format!("EXPLAIN PRIVACY {sql}")).await.is_ok(), "a price opens no table");
    assert_eq!((house.charges().await.len(), house.audited().await), (0, 0));
    assert!(engine.query(sql).await.is_err());
    assert_eq!(
        (house.charges().await.len(), house.audited().await),
        (1, 1),
        "charged and written down before the table was opened"
    );
    assert!(house.answers().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_fails_is_never_paid_back_and_without_budget_no_table_is_opened() {
    let house = House::new(Catalogue::builtin().expect("reviewed"), &town(40, 5), &[]).await;
    std::fs::write(house.table(DAY), b"no table any more").expect("written");
    let engine = engine(&house).await;
    let ask = |events: u32, rho: &str| {
        format!(
            "SELECT COUNT(*) FROM private.person_day WHERE day = DATE '2026-01-05' AND events > {events} SETTINGS rho = {rho}"
        )
    };
    let damaged = engine.query(&ask(1, "0.002")).await.expect_err("the table is damaged");
    assert_ne!(damaged.code, "53400", "{damaged}");
    let refused = engine.query(&ask(2, "0.001")).await.expect_err("nothing is left");
    assert_eq!(refused.code, "53400", "the ledger says so, not the table: {refused}");
    assert!(damaged.charged && !refused.charged, "each says what became of the budget");
    assert_eq!((house.charges().await.len(), house.audited().await), (1, 1));
    // The same question again is charged already: it comes as far as the table.
    let again = engine.query(&ask(1, "0.002")).await.expect_err("the table is damaged");
    assert_eq!((again.code, house.charges().await.len()), (damaged.code, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_has_one_name_whatever_was_asked_before_and_beside_it() {
    let house = House::rich(&town(3, 1), &visits(3, 2)).await;
    let engine = engine(&house).await;
    for seed in 0..40 {
        let mut random = Random(seed * 31 + 7);
        let one = Generator { random: &mut random, hostile: false }.aggregate();
        let Ok((_, alone)) = priced(&engine, &one).await else { continue };
        let (_, again) = priced(&engine, &one).await.expect("as before");
        assert_eq!(alone[0].id, again[0].id, "{one}");
        // Beside another the budget is shared: the same share, given to it alone, makes it the same question.
        let Ok((_, beside)) = priced(&engine, &format!("SELECT COUNT(*) FROM ({one}) a, ({one}) b SETTINGS rho = 0.5")).await
        else {
            continue;
        };
        let (_, share) = priced(&engine, &format!("{one} SETTINGS rho = 0.25")).await.expect("as before");
        if !share[0].leaf.spec.discovered {
            assert!(beside.iter().all(|question| question.id == share[0].id), "{one}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i3_files_that_were_written_anew_are_another_question_paid_for_from_the_same_block() {
    let house = House::rich(&town(3, 1), &visits(40, 4)).await;
    let engine = engine(&house).await;
    let sql = "SELECT shop, COUNT(*) AS n FROM private.visits GROUP BY shop";
    let first = engine.query(sql).await.expect("answered");
    assert_eq!(engine.query(sql).await.expect("stored").batches, first.batches);
    assert_eq!(house.charges().await.len(), 1);
    house.replace_visits(&visits(41, 4));
    let other = engine.query(sql).await.expect("answered anew");
    assert_eq!(house.charges().await.len(), 2, "both are charged: each says something about whoever is in both");
    assert_eq!(engine.query(sql).await.expect("stored").batches, other.batches);
    assert_eq!(house.charges().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn i3_a_stored_answer_that_is_not_the_one_that_was_given_or_that_nobody_paid_for_is_not_served() {
    let house = House::new(Catalogue::builtin().expect("reviewed"), &town(40, 5), &[]).await;
    let engine = engine(&house).await;
    let sql = "SELECT platform, COUNT(DISTINCT person) FROM private.person_day GROUP BY platform";
    engine.query(sql).await.expect("answers");
    let paths = house.answers().await;
    let [path] = paths.as_slice() else { panic!("one answer") };
    let first = house.files.get(path).await.expect("reads").expect("there");
    // The same rows and the same facts, in other bytes: only the hash tells.
    let reader = ParquetRecordBatchReaderBuilder::try_new(first.clone()).expect("Parquet");
    let facts = reader.metadata().file_metadata().key_value_metadata().cloned();
    let schema = reader.schema().clone();
    let properties = WriterProperties::builder().set_key_value_metadata(facts).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), schema, Some(properties)).expect("Parquet");
    for batch in reader.build().expect("reads") {
        writer.write(&batch.expect("reads")).expect("writes");
    }
    let other = writer.into_inner().expect("writes");
    house.files.put(path, other.into()).await.expect("writes");
    assert_eq!(engine.query(sql).await.expect_err("another file").code, "XX001");
    house.files.put(path, first).await.expect("writes");
    engine.query(sql).await.expect("answers again");

    // A file at the place of a question that was never charged.
    let unpaid = "SELECT platform, COUNT(DISTINCT person) FROM private.person_day WHERE events > 1 GROUP BY platform";
    let (_, questions) = priced(&engine, unpaid).await.expect("a price");
    let place = format!("answers/{}.parquet", questions[0].id);
    house.files.put(&place, house.files.get(path).await.expect("reads").expect("there")).await.expect("writes");
    assert!(engine.query(unpaid).await.is_err(), "nobody has paid for it");
    assert_eq!(house.charges().await.len(), 3, "the first question, on three days");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_grouped_by_twice_is_one_column() {
    let house = House::rich(&town(40, 3), &visits(40, 4)).await;
    let engine = engine(&house).await;
    for (sql, columns) in [
        ("SELECT shop AS a, shop AS b, COUNT(*) AS n FROM private.visits GROUP BY 1, 2", 3),
        ("SELECT shop, COUNT(*) AS n FROM private.visits GROUP BY shop, shop", 2),
        (
            "SELECT t.c AS a, t.c AS b, t.p, COUNT(*) AS n FROM (SELECT shop || 'x' AS c, page AS p FROM private.visits) t GROUP BY 1, 3, 2",
            4,
        ),
    ] {
        let answer = engine.query(sql).await.unwrap_or_else(|error| panic!("{error}\n{sql}"));
        assert_eq!(answer.schema.fields().len(), columns, "{sql}");
        assert!(columns < 3 || answer.batches.iter().all(|batch| batch.column(0) == batch.column(1)), "{sql}");
    }
}
