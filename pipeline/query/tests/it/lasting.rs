//! Answers that are kept: the same as the first, until something is released, and only where nothing else can change them.

use std::sync::Arc;

use arrow::util::pretty::pretty_format_batches;
use starling_query::{Answer, Engine, Principal, Role, Value};
use starling_schemas::time::FixedClock;

use super::fixture::{DAY, House, patient};
use super::shown;

fn ada(role: Role) -> Principal {
    Principal { name: "ada".into(), role, team: "product".into() }
}

fn text(answer: &Answer) -> String {
    pretty_format_batches(&answer.batches).expect("formats").to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_over_released_statistics_are_answered_from_memory_and_no_others() {
    let house = House::with_releases().await;
    let engine = house.engine(patient()).await;
    let lasting = [
        "SELECT * FROM stats.people_served_daily",
        "SELECT country, sum(value) FROM people_served_daily WHERE day = '2026-01-05' GROUP BY country ORDER BY 2 DESC LIMIT 3",
        "WITH d AS (SELECT * FROM messages_daily) SELECT upper(country), (SELECT max(value) FROM people_served_daily) FROM d",
        "SELECT p.day, rank() OVER (ORDER BY p.value) FROM people_served_daily p JOIN messages_daily m ON p.country = m.country",
        "SELECT value FROM call_minutes_daily",
    ];
    let others = [
        "SELECT 1",
        "SELECT day FROM people_served_daily WHERE day < now()",
        "SELECT * FROM people_served_daily WHERE day < (SELECT current_date)",
        "SELECT count(*) FROM people_served_daily CROSS JOIN meta.releases",
        "SELECT * FROM people_served_daily WHERE country IN (SELECT metric FROM meta.releases)",
        "SELECT * FROM meta.metrics",
        "SELECT count(*) FROM integrity.alerts",
        "EXPLAIN SELECT * FROM people_served_daily",
        "SELECT relname FROM pg_catalog.pg_class",
        "SELECT nothing FROM people_served_daily",
    ];
    for (statements, is_kept) in [(&lasting[..], true), (&others[..], false)] {
        for sql in statements {
            let before = engine.from_memory();
            let (first, again) = (shown(&engine, sql).await, shown(&engine, sql).await);
            assert_eq!(first, again, "{sql}");
            assert_eq!(engine.from_memory() - before, u64::from(is_kept), "{sql}\n{first}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_process_releases_is_in_the_next_answer() {
    let house = House::with_releases().await;
    let engine = house.engine(patient()).await;
    let count = "SELECT count(*) AS rows FROM stats.messages_daily";
    for _ in 0..3 {
        assert!(shown(&engine, count).await.contains("| 3 "));
    }
    let path = format!("sqlite:{}", house.path().join("meta.db").display());
    let other = starling_store::Metastore::open(&path).await.expect("opens");
    let other = House {
        metastore: Arc::new(other),
        files: Arc::clone(&house.files),
        catalogue: Arc::clone(&house.catalogue),
        folder: house.folder,
    };
    // Of another metric first: what is kept is thrown away, and the answer is the same.
    other.release("call_minutes_daily", DAY, &["country"], &[(["DE"], Some(60.0))]).await;
    let before = engine.from_memory();
    assert!(shown(&engine, count).await.contains("| 3 "));
    assert_eq!(engine.from_memory(), before);
    other.release("messages_daily", DAY + 1, &["country", "conversation_kind"], &[(["DE", "person"], Some(1.0))]).await;
    assert!(shown(&engine, count).await.contains("| 4 "));
    assert!(shown(&engine, count).await.contains("| 4 "));
    assert_eq!(engine.from_memory(), before + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_is_of_a_role_a_text_and_its_values() {
    let house = House::with_releases().await;
    let engine: Engine = house.engine(patient()).await;
    let sql = "SELECT value FROM people_served_daily WHERE country = $1 AND platform = 'ios' ORDER BY day";
    let of = async |role, country: &str| {
        text(&engine.query_bound(&ada(role), sql, &[Value::Text(country.into())]).await.expect("rows"))
    };
    let (brazil, germany) = (of(Role::Product, "BR").await, of(Role::Product, "DE").await);
    assert!(brazil.contains("310.0") && germany.contains("1400.0"), "{brazil}{germany}");
    assert_eq!(engine.from_memory(), 0);
    assert_eq!((of(Role::Product, "BR").await, of(Role::Product, "DE").await), (brazil.clone(), germany));
    assert_eq!(engine.from_memory(), 2);
    assert_eq!(of(Role::Engineer, "BR").await, brazil);
    assert_eq!(engine.from_memory(), 2, "another role asks for the first time");
    let columns = engine.columns_bound(&ada(Role::Product), sql, &[Value::Text("BR".into())]).await.expect("columns");
    assert_eq!(engine.from_memory(), 3);
    let unknown = engine.columns_bound(&ada(Role::Product), sql, &[Value::Text("IN".into())]).await.expect("columns");
    assert_eq!((engine.from_memory(), unknown), (3, columns));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_looks_at_the_clock_follows_it() {
    let house = House::with_releases().await;
    let clock = Arc::new(FixedClock::new(0));
    let (metastore, files, catalogue) = (Arc::clone(&house.metastore), Arc::clone(&house.files), Arc::clone(&house.catalogue));
    let engine = Engine::open_with(metastore, files, catalogue, Arc::clone(&clock) as _, patient()).await.expect("opens");
    let sql = "SELECT count(*) AS rows FROM people_served_daily WHERE day < current_date";
    assert!(shown(&engine, sql).await.contains("| 0 "));
    clock.set(i64::from(DAY + 1) * 86_400_000);
    assert!(shown(&engine, sql).await.contains("| 6 "));
}
