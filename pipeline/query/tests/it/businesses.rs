//! `business.accounts`: for who works with businesses, logged, and for nobody else (P34).

use arrow::util::pretty::pretty_format_batches;
use starling_query::{Engine, Principal, Role};
use starling_schemas::business::BusinessAccount;
use starling_schemas::codes::{Category, Outcome, Tier};
use starling_schemas::ids::{EpochId, Offset, PartitionId};
use starling_schemas::metrics::Catalogue;
use starling_store::{Metastore, RangeOutcome};

use super::vault_house::{House, town, visits};

fn account(business: &str, portfolio: &str, name: &str) -> BusinessAccount {
    BusinessAccount {
        business: business.to_owned(),
        portfolio: portfolio.to_owned(),
        name: name.to_owned(),
        category: Category::Utility,
        tier: Tier::T2k,
        told_ms: EpochId::parse_day("2026-01-05").expect("a day").start_ms() + 3_600_000,
    }
}

/// Commits a range in which businesses said this.
async fn say(metastore: &Metastore, businesses: Vec<BusinessAccount>) {
    let partition = PartitionId { source: "events".to_owned(), partition: 0 };
    let own = metastore.take_ownership(&partition, "test", 1).await.expect("takes");
    let from = own.next_offset.unwrap_or_default();
    let plan = metastore.plan(&partition, own.generation, from, Offset(from.0 + 1), 1).await.expect("plans");
    let counts = vec![(Some(EpochId(20_458)), Outcome::Late, 1)];
    metastore
        .commit(&plan, &RangeOutcome { events: 1, counts, businesses, ..RangeOutcome::default() }, 1)
        .await
        .expect("commits");
}

async fn ask(engine: &Engine, role: Role, sql: &str) -> Result<String, String> {
    let who = Principal { name: "somebody".to_owned(), role, team: "product".to_owned() };
    let answer = engine.query_as(&who, sql).await.map_err(|error| error.to_string())?;
    Ok(pretty_format_batches(&answer.batches).expect("formats").to_string())
}

async fn house() -> House {
    House::new(Catalogue::builtin().expect("reviewed"), &town(40, 1), &visits(20, 2)).await
}

async fn reads(house: &House) -> Vec<String> {
    let log = house.metastore.audit_after(0, 1_000).await.expect("reads");
    log.iter().filter(|entry| entry.kind == "business_read").map(|entry| entry.detail.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p34_what_businesses_say_of_themselves_is_a_table_for_who_works_with_them_and_for_others_is_not_there() {
    let house = house().await;
    let engine = super::private::engine_of(&house).await;
    let sql = "SELECT * FROM business.accounts ORDER BY business";
    assert!(!ask(&engine, Role::Product, sql).await.expect("none yet").contains("shop"));
    say(&house.metastore, vec![account("shop-1", "p-1", "Bakery"), account("shop-2", "", ""), account("it's", "p-1", "<b>")])
        .await;
    let told = ask(&engine, Role::Product, sql).await.expect("may read it");
    for line in [
        "| it's     | p-1       | <b>    | utility  | 2k   | 2026-01-05 |",
        "| shop-1   | p-1       | Bakery | utility  | 2k   | 2026-01-05 |",
        "| shop-2   |           |        | utility  | 2k   | 2026-01-05 |",
    ] {
        assert!(told.contains(line), "{told}");
    }
    // What is said next is there for the next statement.
    let later = account("shop-1", "p-1", "Cakes");
    say(&house.metastore, vec![BusinessAccount { told_ms: later.told_ms + 1, ..later }]).await;
    let told = ask(&engine, Role::Product, sql).await.expect("may read it");
    assert!(told.contains("Cakes") && !told.contains("Bakery"), "{told}");
    for role in [Role::Integrity, Role::Billing, Role::Local] {
        assert_eq!(ask(&engine, role, sql).await.expect("may read it"), told, "{role:?}");
        for list in ["SELECT DISTINCT table_schema FROM meta.columns", "SELECT nspname FROM pg_catalog.pg_namespace"] {
            assert!(ask(&engine, role, list).await.expect("may be read").contains("business"), "{list}");
        }
    }
    let before = reads(&house).await.len();
    for role in [Role::Privacy, Role::Engineer, Role::Auditor] {
        let refused = ask(&engine, role, sql).await.expect_err("not for it");
        assert!(
            refused.contains("may not read business.*") && refused.contains("is for role product, integrity, billing"),
            "{refused}"
        );
        for attack in [
            "SELECT * FROM business.nothing",
            "SELECT count(*) FROM starling.business.accounts",
            "SELECT 1 WHERE EXISTS (SELECT name FROM business.accounts WHERE business = 'shop-1')",
            "SELECT m.name FROM meta.metrics AS m JOIN business.accounts AS a ON a.business = m.name",
            "WITH a AS (SELECT * FROM business.accounts) SELECT count(*) FROM a",
            "SELECT title FROM meta.metrics UNION ALL SELECT name FROM business.accounts",
            "EXPLAIN SELECT * FROM business.accounts",
        ] {
            let refused = ask(&engine, role, attack).await.expect_err("nor this");
            assert!(refused.contains("may not read business.*"), "{attack}: {refused}");
        }
        for list in ["SELECT table_schema, table_name FROM meta.columns", "SELECT nspname FROM pg_catalog.pg_namespace"] {
            let list = ask(&engine, role, list).await.expect("may be read");
            assert!(!list.contains("business ") && !list.contains("| accounts"), "{role:?} {list}");
        }
    }
    assert_eq!(reads(&house).await.len(), before, "nothing is read for who may not");
    let nothing = ask(&engine, Role::Product, "SELECT * FROM business.names").await.expect_err("no such table");
    assert!(nothing.contains("SELECT * FROM business.accounts"), "{nothing}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i6_a_reading_is_in_the_log_by_whom_and_of_how_many_and_names_nobody() {
    let house = house().await;
    let engine = super::private::engine_of(&house).await;
    say(&house.metastore, vec![account("shop-1", "p-1", "Bakery"), account("shop-2", "p-1", "Books")]).await;
    for (sql, named, found) in [
        ("SELECT name FROM business.accounts WHERE business = 'shop-1'", Some(1), 1),
        ("SELECT name FROM business.accounts WHERE business IN ('shop-1', 'shop-2', 'shop-9') AND name LIKE 'B%'", Some(3), 2),
        ("SELECT name FROM business.accounts WHERE business = 'shop-1' OR 'shop-2' = business", Some(2), 2),
        ("SELECT name FROM business.accounts WHERE business = 'shop-1' AND business = 'shop-2'", Some(0), 0),
        ("SELECT name FROM business.accounts WHERE name = 'Books'", None, 1),
        ("SELECT name FROM business.accounts WHERE lower(business) = 'shop-1'", None, 1),
        ("SELECT name FROM business.accounts LIMIT 1", None, 1),
        ("SELECT tier FROM business.accounts WHERE business = ''", Some(1), 0),
    ] {
        let before = reads(&house).await.len();
        let told = ask(&engine, Role::Billing, sql).await.expect("may read it");
        let rows = told.lines().filter(|line| line.starts_with("| B")).count();
        assert_eq!(rows, found, "{sql}\n{told}");
        let log = reads(&house).await;
        let named = named.map_or("null".to_owned(), |named: usize| named.to_string());
        if log.len() == before {
            // What can never be fulfilled is not even asked.
            assert!(sql.contains("AND business = 'shop-2'"), "{sql}");
            continue;
        }
        assert_eq!(log.len(), before + 1, "{sql}");
        assert_eq!(log[before], format!(r#"{{"named":{named},"role":"billing","table":"business.accounts"}}"#), "{sql}");
    }
    engine.query("SELECT count(*) FROM business.accounts").await.expect("whoever runs it");
    assert!(reads(&house).await.iter().all(|entry| !entry.contains("shop") && !entry.contains("Books")));
    assert!(reads(&house).await.last().is_some_and(|entry| entry.contains("operator")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_accounts_than_a_page_are_all_there_once_and_who_reads_them_knows_the_limit() {
    let house = house().await;
    let engine = super::private::engine_of(&house).await;
    for part in 0..3 {
        let range = (0..7_000).map(|n| account(&format!("shop-{:06}", part * 7_000 + n), &format!("p-{}", n % 10), "Bakery"));
        say(&house.metastore, range.collect()).await;
    }
    let counted =
        "SELECT count(*) AS n, count(DISTINCT business) AS d, min(business) AS a, max(business) AS z FROM business.accounts";
    let told = ask(&engine, Role::Product, counted).await.expect("may read it");
    assert!(told.contains("| 21000 | 21000 | shop-000000 | shop-020999 |"), "{told}");
    let by_portfolio = "SELECT portfolio, count(*) AS n FROM business.accounts WHERE business >= 'shop-010000' GROUP BY portfolio ORDER BY 1 LIMIT 2";
    let told = ask(&engine, Role::Product, by_portfolio).await.expect("may read it");
    assert!(told.contains("| p-0       | 1100 |"), "{told}");
    let some = ask(&engine, Role::Product, "SELECT business FROM business.accounts LIMIT 3").await.expect("may read it");
    assert_eq!(some.lines().filter(|line| line.contains("shop")).count(), 3, "{some}");
    let plan = ask(&engine, Role::Product, "EXPLAIN SELECT business FROM business.accounts LIMIT 3").await.expect("may read it");
    assert!(plan.contains("StreamingTableExec") && plan.contains("fetch=3"), "{plan}");
    // More named than are looked up one by one: the same answer.
    let names: Vec<String> = (0..300).map(|n| format!("'shop-{:06}'", n * 70)).collect();
    let many = format!("SELECT count(*) AS n FROM business.accounts WHERE business IN ({})", names.join(", "));
    assert!(ask(&engine, Role::Product, &many).await.expect("may read it").contains("| 300 |"));
    assert!(reads(&house).await.last().is_some_and(|entry| entry.contains(r#""named":null"#)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accounts_are_read_beside_what_is_released_and_never_inside_a_question() {
    let house = house().await;
    let engine = super::private::engine_of(&house).await;
    say(&house.metastore, vec![account("messages_daily", "p-1", "Bakery")]).await;
    let joined = "SELECT a.name FROM business.accounts AS a JOIN meta.metrics AS m ON a.business = m.name";
    assert!(ask(&engine, Role::Product, joined).await.expect("may read both").contains("Bakery"));
    for sql in [
        "SELECT count(*) FROM private.person_day AS p JOIN business.accounts AS a ON p.country = a.name",
        "SELECT count(*) FROM private.person_day WHERE country IN (SELECT name FROM business.accounts)",
        "SELECT p.country, a.name FROM private.person_day AS p, business.accounts AS a",
    ] {
        let refused = ask(&engine, Role::Product, sql).await.expect_err("a person's rows and a list of businesses");
        assert!(!refused.contains("Bakery"), "{refused}");
    }
    let charges = ask(&engine, Role::Product, "SELECT count(*) AS n FROM meta.charges").await.expect("may be read");
    assert!(charges.contains("| 0 |"), "{charges}");
}
