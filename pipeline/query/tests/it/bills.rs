//! `billing.daily`: for who writes bills, exactly and logged, and for nobody else (P35).

use std::sync::{Arc, Mutex};

use arrow::array::{Date32Array, RecordBatch, StringArray, UInt8Array, UInt16Array, UInt64Array};
use arrow::util::pretty::pretty_format_batches;
use async_trait::async_trait;
use starling_query::{Bills, Engine, Principal, Role, Vault};
use starling_schemas::codes::{Category, Country};
use starling_schemas::ids::EpochId;
use starling_schemas::metrics::Catalogue;
use starling_schemas::rows::BILLING;
use starling_schemas::time::FixedClock;
use starling_store::Metastore;

use super::fixture::patient;
use super::vault_house::{House, NOW_MS, town, visits};

/// A day, a business, its portfolio, and how many messages it sent.
type Sold = (&'static str, &'static str, Option<&'static str>, u64);
const SOLD: [Sold; 3] =
    [("2026-01-05", "shop-1", Some("p-1"), 70), ("2026-01-05", "shop-2", None, 5), ("2026-01-06", "shop-1", Some("p-1"), 30)];

/// Bills that know for what they were asked, and whether the log knew it before.
struct Kept {
    metastore: Arc<Metastore>,
    asked: Mutex<Vec<(i32, i32)>>,
    fails: bool,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Kept")
    }
}

#[async_trait]
impl Bills for Kept {
    async fn of_days(&self, from: EpochId, to: EpochId) -> Result<RecordBatch, Box<dyn std::error::Error + Send + Sync>> {
        let log = self.metastore.audit_after(0, 1_000).await?;
        let logged = log.iter().filter(|entry| entry.kind == "billing_read").count();
        let mut asked = self.asked.lock().expect("nobody panicked");
        asked.push((from.0, to.0));
        assert_eq!(logged, asked.len(), "each reading is in the log before");
        if self.fails {
            return Err("billing/c4n4ry.parquet: damaged".into());
        }
        let day = |text: &str| EpochId::parse_day(text).expect("a day").0;
        let sold: Vec<&Sold> = SOLD.iter().filter(|(d, ..)| (from.0..=to.0).contains(&day(d))).collect();
        let counts = |part: u64| Arc::new(UInt64Array::from_iter_values(sold.iter().map(|(.., sent)| sent / part)));
        let country = Country::parse("DE").expect("a country");
        Ok(RecordBatch::try_new(
            Arc::clone(&BILLING),
            vec![
                Arc::new(Date32Array::from_iter_values(sold.iter().map(|(d, ..)| day(d)))),
                Arc::new(StringArray::from_iter_values(sold.iter().map(|(_, business, ..)| business))),
                Arc::new(StringArray::from_iter(sold.iter().map(|(_, _, portfolio, _)| *portfolio))),
                Arc::new(UInt8Array::from_iter_values(sold.iter().map(|_| Category::Marketing.code()))),
                Arc::new(UInt16Array::from_iter_values(sold.iter().map(|_| country.code()))),
                counts(1),
                counts(1),
                counts(2),
                counts(10),
            ],
        )?)
    }
}

async fn engine_with(house: &House, fails: bool) -> (Engine, Arc<Kept>) {
    let (metastore, files) = (Arc::clone(&house.metastore), Arc::clone(&house.files));
    let vault = Vault::new(Arc::clone(&metastore), files, Arc::clone(&house.keyring), Arc::clone(&house.catalogue));
    let bills = Arc::new(Kept { metastore, asked: Mutex::default(), fails });
    let engine = Engine::open_with_bills(vault, Arc::clone(&bills) as _, Arc::new(FixedClock::new(NOW_MS)), patient()).await;
    (engine.expect("opens"), bills)
}

async fn ask(engine: &Engine, role: Role, sql: &str) -> Result<String, String> {
    let who = Principal { name: "somebody".to_owned(), role, team: "product".to_owned() };
    let answer = engine.query_as(&who, sql).await.map_err(|error| error.to_string())?;
    Ok(pretty_format_batches(&answer.batches).expect("formats").to_string())
}

async fn house() -> House {
    House::new(Catalogue::builtin().expect("reviewed"), &town(40, 1), &visits(20, 2)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p35_what_is_billed_is_a_table_for_who_writes_bills_and_for_others_is_not_there() {
    let house = house().await;
    let (engine, bills) = engine_with(&house, false).await;
    let sql = "SELECT * FROM billing.daily ORDER BY day, business";
    let told = ask(&engine, Role::Billing, sql).await.expect("may read it");
    for line in [
        "| 2026-01-05 | shop-1   | p-1       | marketing | DE      | 70   | 70        | 35   | 7       |",
        "| 2026-01-05 | shop-2   |           | marketing | DE      | 5    | 5         | 2    | 0       |",
        "| 2026-01-06 | shop-1   | p-1       | marketing | DE      | 30   | 30        | 15   | 3       |",
    ] {
        assert!(told.contains(line), "{told}");
    }
    assert_eq!(ask(&engine, Role::Local, sql).await.expect("nobody else is on this machine"), told);
    let by_business =
        "SELECT business, sum(sent) AS sent, min(lower(country)) FROM billing.daily WHERE day >= '2026-01-06' GROUP BY business";
    let summed = ask(&engine, Role::Billing, by_business).await.expect("may read it");
    assert!(summed.contains("| shop-1   | 30   | de") && !summed.contains("shop-2"), "{summed}");
    let day = |text: &str| EpochId::parse_day(text).expect("a day").0;
    assert_eq!(
        bills.asked.lock().expect("whole")[2],
        (day("2026-01-06"), EpochId::LAST_DAY.0),
        "what is left out is not asked for"
    );
    // With what is released, too.
    let joined = "SELECT count(*) FROM billing.daily AS b JOIN meta.metrics AS m ON b.business = m.name";
    ask(&engine, Role::Billing, joined).await.expect("may read both");
    for list in ["SELECT DISTINCT table_schema FROM meta.columns", "SELECT nspname FROM pg_catalog.pg_namespace"] {
        assert!(ask(&engine, Role::Billing, list).await.expect("may be read").contains("billing"), "{list}");
    }
    let before = bills.asked.lock().expect("whole").len();
    for role in [Role::Product, Role::Privacy, Role::Integrity, Role::Engineer, Role::Auditor] {
        let refused = ask(&engine, role, sql).await.expect_err("not for it");
        assert!(refused.contains("may not read billing.*") && refused.contains("is for role billing"), "{refused}");
        assert_eq!(ask(&engine, role, "SELECT * FROM billing.nothing").await.expect_err("nor this"), refused);
        for list in ["SELECT table_schema, table_name FROM meta.columns", "SELECT nspname FROM pg_catalog.pg_namespace"] {
            assert!(!ask(&engine, role, list).await.expect("may be read").contains("billing"), "{role:?} {list}");
        }
    }
    assert_eq!(bills.asked.lock().expect("whole").len(), before, "nothing is read for who may not");
    let nothing = ask(&engine, Role::Billing, "SELECT * FROM billing.monthly").await.expect_err("no such table");
    assert!(nothing.contains("SELECT * FROM billing.daily"), "{nothing}");
    for other in ["SELECT count(*) FROM integrity.alerts", "SELECT count(*) FROM private.person_day"] {
        assert!(ask(&engine, Role::Billing, other).await.expect_err("not its").contains("42501"), "{other}");
    }
    // I6: by whom, for which days, and no name of a business.
    let log = house.metastore.audit_after(0, 1_000).await.expect("reads");
    let read: Vec<String> = log.iter().filter(|e| e.kind == "billing_read").map(|e| e.detail.to_string()).collect();
    assert_eq!(read.len(), before);
    assert!(read[0].contains(r#""role":"billing""#) && read[0].contains(r#""from":null"#), "{}", read[0]);
    assert!(read[1].contains(r#""role":"local""#) && read[2].contains(r#""from":"2026-01-06""#), "{read:?}");
    assert!(read.iter().all(|entry| !entry.contains("shop")), "{read:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i4_a_bill_that_cannot_be_read_is_told_without_its_path() {
    let house = house().await;
    let (engine, _) = engine_with(&house, true).await;
    let told = ask(&engine, Role::Billing, "SELECT sum(sent) FROM billing.daily").await.expect_err("it is damaged");
    assert!(told.contains("58030") && told.contains("billing could not be read") && !told.contains("c4n4ry"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nobody_keeps_bills_there_is_no_such_table() {
    let house = house().await;
    let engine = super::private::engine_of(&house).await;
    for role in [Role::Billing, Role::Local] {
        let told = ask(&engine, role, "SELECT * FROM billing.daily").await.expect_err("there is none");
        assert!(told.contains("42501"), "{told}");
        let schemas = ask(&engine, role, "SELECT nspname FROM pg_catalog.pg_namespace").await.expect("may be read");
        assert!(!schemas.contains("billing"), "{schemas}");
    }
}
