//! `pg_catalog` and `information_schema`: all that may be read is in them, and no trace of anything else.

use std::collections::BTreeSet;

use arrow::array::AsArray as _;
use arrow::util::pretty::pretty_format_batches;
use starling_query::{Engine, Principal, Role};
use starling_schemas::metrics::Catalogue;

use super::vault_house::{House, town, visits};

fn principal(name: &str, role: Role) -> Principal {
    Principal { name: name.to_owned(), role, team: "product".to_owned() }
}

async fn text(engine: &Engine, who: &Principal, sql: &str) -> String {
    match engine.query_as(who, sql).await {
        Ok(answer) => pretty_format_batches(&answer.batches).expect("formats").to_string(),
        Err(error) => panic!("{error}\n{sql}"),
    }
}

async fn lines(engine: &Engine, who: &Principal, sql: &str) -> BTreeSet<String> {
    let answer = engine.query_as(who, sql).await.unwrap_or_else(|error| panic!("{error}\n{sql}"));
    let mut out = BTreeSet::new();
    for batch in &answer.batches {
        let columns: Vec<_> = batch.columns().iter().map(|column| column.as_string::<i32>()).collect();
        for row in 0..batch.num_rows() {
            let cells: Vec<&str> = columns.iter().map(|column| column.iter().nth(row).flatten().unwrap_or_default()).collect();
            out.insert(cells.join("|"));
        }
    }
    out
}

/// Every system table there is, by its name with its schema.
async fn tables(engine: &Engine, who: &Principal) -> BTreeSet<String> {
    let sql = "SELECT n.nspname || '.' || c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
               WHERE n.nspname IN ('pg_catalog', 'information_schema')";
    lines(engine, who, sql).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p32_a_listing_is_what_information_schema_tells_and_no_more() {
    let house = House::new(Catalogue::builtin().expect("reviewed"), &town(40, 1), &visits(20, 2)).await;
    let engine = super::private::engine_of(&house).await;
    for (role, schemas) in [
        (Role::Product, vec!["stats", "meta", "private", "business"]),
        (Role::Integrity, vec!["stats", "meta", "integrity", "business"]),
        (Role::Auditor, vec!["stats", "meta"]),
        (Role::Local, vec!["stats", "meta", "integrity", "business"]),
    ] {
        let who = principal("ada", role);
        let listing = engine.listing_as(&who).await.expect("in time");
        assert_eq!((listing.catalogue, listing.schemas), ("starling", schemas));
        let ours: BTreeSet<String> = listing.tables.iter().map(|table| format!("{}.{}", table.schema, table.name)).collect();
        let told = "SELECT table_schema || '.' || table_name FROM information_schema.tables \
                    WHERE table_schema NOT IN ('pg_catalog', 'information_schema')";
        assert_eq!(ours, lines(&engine, &who, told).await);
        for table in listing.tables.iter().filter(|table| table.schema != "private") {
            let sql = format!("SELECT * FROM {}.{}", table.schema, table.name);
            assert_eq!(engine.columns_as(&who, &sql).await.expect("columns"), table.columns, "{sql}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p32_system_tables_hold_what_a_role_may_read_and_no_trace_of_the_rest() {
    let house = House::new(Catalogue::builtin().expect("reviewed"), &town(40, 1), &visits(20, 2)).await;
    let engine = super::private::engine_of(&house).await;
    let ada = principal("ada", Role::Product);
    let all = tables(&engine, &ada).await;
    assert!(all.len() > 70, "{}", all.len());
    let mut seen = String::new();
    for table in &all {
        seen += &text(&engine, &ada, &format!("SELECT * FROM {table}")).await;
    }
    assert!(seen.contains("person_day") && seen.contains("| private"), "whoever may ask sees what");
    // The product role's column comments of a protected table, each of which must be unknown to the others.
    let comments = "SELECT comment FROM meta.columns WHERE table_schema = 'private'";
    let others = "SELECT comment FROM meta.columns WHERE table_schema <> 'private'";
    let secret: Vec<String> =
        lines(&engine, &ada, comments).await.difference(&lines(&engine, &ada, others).await).cloned().collect();
    assert!(secret.len() > 5, "{secret:?}");
    let oid = "SELECT CAST(oid AS VARCHAR) FROM pg_catalog.pg_class WHERE relname = ";
    let hidden = lines(&engine, &ada, &format!("{oid}'person_day'")).await.pop_first().expect("one");
    for role in [Role::Privacy, Role::Integrity, Role::Engineer, Role::Auditor, Role::Local] {
        let who = principal("max", role);
        assert_eq!(tables(&engine, &who).await, all, "the tables themselves are there for everybody");
        for table in &all {
            let rows = text(&engine, &who, &format!("SELECT * FROM {table}")).await;
            for word in ["private", "person_day", "person_week", "ada", hidden.as_str()]
                .into_iter()
                .chain(secret.iter().map(String::as_str))
            {
                assert!(!rows.contains(word), "{role:?} {table}: {word}");
            }
        }
        // A table that may not be read and one that is not there look the same.
        for call in [
            "to_regclass('private.$')",
            "to_regnamespace('$')",
            "obj_description($)",
            "col_description($, 2)",
            "has_table_privilege('private.$', 'SELECT')",
            "has_table_privilege('other', 'private.$', 'SELECT')",
            "has_schema_privilege('$', 'USAGE')",
            "pg_table_is_visible($)",
            "quote_ident(CAST($::regclass AS VARCHAR)) = '$'",
        ] {
            let ask = async |name: &str| {
                let sql = format!("SELECT {} AS told", call.replace('$', name));
                text(&engine, &who, &sql).await
            };
            let (there, not) = if call.contains("'private.") { ("person_day", "nothing_at") } else { ("private", "nowhere") };
            let (there, not) = if call.contains("_description($") || call.contains("visible($") || call.contains("$::") {
                (hidden.as_str(), "2000000123")
            } else {
                (there, not)
            };
            assert_eq!(ask(there).await, ask(not).await, "{role:?} {call}");
        }
        let refused = |sql: &'static str| async { engine.query_as(&who, sql).await.map(|_| ()).expect_err(sql).to_string() };
        let (there, not) =
            (refused("SELECT 'private.person_day'::regclass").await, refused("SELECT 'private.nothing_at'::regclass").await);
        assert_eq!(there.replace("person_day", "nothing_at"), not);
    }
    assert!(house.charges().await.is_empty(), "nothing was asked of anybody's rows");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn system_tables_say_what_meta_columns_says_and_numbers_stay_the_same() {
    let house = House::new(Catalogue::builtin().expect("reviewed"), &town(40, 1), &visits(20, 2)).await;
    let engine = super::private::engine_of(&house).await;
    for role in Role::ALL {
        let who = principal("max", role);
        let meta = lines(&engine, &who, "SELECT table_schema, table_name, column_name, comment FROM meta.columns").await;
        let pg = "SELECT n.nspname, c.relname, a.attname, col_description(c.oid, a.attnum) AS told FROM pg_attribute a \
                  JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
                  WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND a.attnum > 0";
        assert_eq!(lines(&engine, &who, pg).await, meta, "{role:?}");
        let described = "SELECT n.nspname, c.relname, a.attname, d.description FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid \
                         JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_description d ON d.objoid = c.oid AND d.objsubid = a.attnum \
                         AND d.classoid = 'pg_class'::regclass";
        assert_eq!(lines(&engine, &who, described).await, meta, "{role:?}");
        let standard = "SELECT table_schema, table_name, column_name FROM information_schema.columns \
                        WHERE table_schema NOT IN ('pg_catalog', 'information_schema')";
        let short = "SELECT table_schema, table_name, column_name FROM meta.columns";
        assert_eq!(lines(&engine, &who, standard).await, lines(&engine, &who, short).await, "{role:?}");
    }
    // No two objects have one number, and a number is the same in another engine and for another role.
    let ada = principal("ada", Role::Product);
    let numbers = "SELECT CAST(oid AS VARCHAR) || ' ' || relname FROM pg_class";
    let ours = lines(&engine, &ada, numbers).await;
    let distinct: BTreeSet<&str> = ours.iter().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(distinct.len(), ours.len());
    let again = super::private::engine_of(&house).await;
    assert_eq!(lines(&again, &ada, numbers).await, ours);
    assert!(lines(&again, &principal("aud", Role::Auditor), numbers).await.is_subset(&ours));
    assert!(ours.contains("1259 pg_class"), "where clients know a number");
}
