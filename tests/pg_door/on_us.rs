//! P28: what this door refuses is counted, each statement and each log-in once, whichever way it is asked.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::json;
use starling_schemas::ids::EpochId;

use crate::house::{House, Served};
use crate::support::{open, runtime};

/// What accounts hold, by name and what it is.
fn counted(house: &House) -> BTreeMap<(String, String), u64> {
    let rows = runtime().block_on(async {
        let (metastore, ..) = open(&house.data).await;
        metastore.door_hours(EpochId::hour_of(0)).await.expect("reads")
    });
    let mut sums = BTreeMap::new();
    rows.into_iter().for_each(|row| *sums.entry((row.name, row.what)).or_insert(0) += row.times);
    sums
}

/// Accounts are by the hour of the wall clock: what is counted here is to be in one.
fn await_room_in_the_hour() {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let left_s = 3_600 - now.as_secs() % 3_600;
    if left_s < 240 {
        std::thread::sleep(std::time::Duration::from_secs(left_s));
    }
}

pub(crate) fn p28_what_is_refused_is_counted_once_whichever_way_it_is_asked(_: &House) {
    let house = House::new(1_000, 1);
    let text = "[postgres]\nlisten = \"127.0.0.1:0\"\n[alerts]\nlook_every_s = 1\n";
    await_room_in_the_hour();
    let served = Served::spawn(Served::command_with(&house, text));
    let forbidden = "SELECT count(*) FROM integrity.alerts";
    let (_, told) = served.psql("ada", &["-c", forbidden, "-c", forbidden, "-c", "SELECT c4n4ry FROM stats.calls_daily"]);
    assert_eq!(told.matches("ERROR").count(), 3, "{told}");
    // As drivers ask: parsed, described, bound, executed; and with values.
    let mut client = served.psycopg("ada", &[]);
    for binary in [false, true] {
        let answer = client.ask(json!({ "sql": forbidden, "binary": binary }));
        assert!(answer["rows"].is_null(), "{answer}");
    }
    for country in ["DE", "FR", "FR", "IT"] {
        let sql = "SELECT count(*) FROM private.person_day WHERE day = '2026-01-05' AND country = %s SETTINGS epsilon = 0.01";
        let answer = client.ask(json!({ "sql": sql, "parameters": [country] }));
        assert!(!answer["rows"].is_null(), "{answer}");
    }
    for _ in 0..3 {
        let (_, told) = served.psql_as("eng", "wrong-horse-battery", &["-c", "SELECT 1"]);
        assert!(told.contains("do not fit"), "{told}");
    }
    served.psql_as("c4n4ry", "wrong-horse-battery", &["-c", "SELECT 1"]);
    let expected: BTreeMap<_, u64> = [
        (("ada", "refused:forbidden"), 4),
        (("ada", "refused:unknown"), 1),
        (("ada", "variants"), 2),
        (("eng", "logins_refused"), 3),
        (("postgres", "logins_refused"), 4),
        (("postgres", "names_tried"), 2),
    ]
    .map(|((name, what), times)| ((name.to_owned(), what.to_owned()), times))
    .into();
    let began = Instant::now();
    while counted(&house) != expected {
        assert!(began.elapsed() < Duration::from_secs(60), "{:?}", counted(&house));
        std::thread::sleep(Duration::from_millis(100));
    }
}
