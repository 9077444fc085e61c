//! `business.accounts` on a whole run: what the events say, exactly and logged; shown to nobody without the log; and gone with its time.

use std::collections::BTreeMap;
use std::path::Path;

use prost::Message as _;
use serde_json::{Value, json};
use starling_schemas::event::event::Body;
use starling_schemas::event::{BusinessInformation, Event};
use starling_schemas::ids::EpochId;

use crate::support::{NOON_MS, accounts, envelope, frame, run_trace, sql, starling, succeed, told, write_trace};

/// What the businesses of an uncompressed trace say last, counted from its bytes alone.
fn said_in(trace: &Path) -> Vec<Value> {
    let bytes = std::fs::read(trace).expect("a trace");
    let (mut bytes, mut last) = (bytes.as_slice(), BTreeMap::<String, (i64, BusinessInformation)>::new());
    while !bytes.is_empty() {
        let event = Event::decode_length_delimited(&mut bytes).expect("no bad frame was asked for");
        let Some(Body::BusinessInformation(said)) = event.body else { continue };
        let known = last.entry(said.business.clone()).or_insert((i64::MIN, BusinessInformation::default()));
        if event.event_time_ms > known.0 {
            *known = (event.event_time_ms, said);
        }
    }
    let shown = |(at_ms, said): (i64, BusinessInformation)| {
        let category = ["unknown", "marketing", "utility", "authentication", "service"][said.category as usize];
        let tier = ["unknown", "250", "2k", "10k", "100k", "unlimited"][said.tier as usize];
        let told_on = EpochId::of(at_ms).to_string();
        json!({ "business": said.business, "portfolio": said.portfolio, "name": said.name, "category": category, "tier": tier, "told_on": told_on })
    };
    last.into_values().map(shown).collect()
}

#[test]
fn p34_accounts_are_what_the_events_say_logged_and_gone_when_a_business_is_silent() {
    let dir = tempfile::tempdir().expect("dir");
    let (trace, data) = (dir.path().join("trace.pb"), dir.path().join("data"));
    succeed(starling().args(["simulate", "--people", "10000", "--days", "3", "--seed", "4", "--out"]).arg(&trace));
    run_trace(&trace, &data);
    let all = accounts(&data);
    assert_eq!(all, said_in(&trace));
    let moved = all.iter().filter(|account| account["told_on"] != "2026-01-05").count();
    assert!(all.len() == 28 && moved > 2, "{moved} of {} moved", all.len());
    // Looked up by name, and beside the bill.
    let one = all[7]["business"].as_str().expect("a business");
    assert_eq!(sql(&data, &format!("SELECT * FROM business.accounts WHERE business = '{one}'")), [all[7].clone()]);
    let billed = "SELECT count(*) AS n, count(a.name) AS named FROM (SELECT DISTINCT business FROM billing.daily) AS b \
                  LEFT JOIN business.accounts AS a ON a.business = b.business";
    let billed = sql(&data, billed);
    assert!(billed[0]["named"].as_u64() >= Some(20) && billed[0]["n"].as_u64() >= billed[0]["named"].as_u64(), "{billed:?}");
    // It spends no budget, and every look is in the log, which names nobody.
    assert!(sql(&data, "SELECT * FROM meta.charges").iter().all(|row| !row.to_string().contains("business.")));
    let log = succeed(starling().args(["audit", "tail", "--lines", "1000", "--data-dir"]).arg(&data));
    assert_eq!(log.matches("business_read").count(), 3, "{log}");
    assert!(!log.contains(one), "{log}");

    // A second reading of the same events, as another source, changes nothing.
    let again = dir.path().join("again.pb");
    std::fs::copy(&trace, &again).expect("copies");
    run_trace(&again, &data);
    assert_eq!(accounts(&data), all);

    // No log, no rows.
    let mut command = starling();
    command.args(["sql", "--data-dir"]).arg(&data).arg("SELECT count(*) FROM business.accounts");
    let output = command.env("STARLING_FAIL_AT", "begin appending to the audit log:1:*=ENOSPC").output().expect("runs");
    assert!(!output.status.success() && output.stdout.is_empty(), "{}", told(&output));

    // Who has not said so anew in time is gone; as long as the settings say, and not a look longer.
    succeed(starling().args(["close", "--data-dir"]).arg(&data));
    assert_eq!(accounts(&data), all, "it has just been said");
    let settings = dir.path().join("s.toml");
    std::fs::write(&settings, "[businesses]\nkeep_days = 0\n").expect("settings");
    for _ in 0..2 {
        succeed(starling().args(["close", "--data-dir"]).arg(&data).arg("--config").arg(&settings));
        assert_eq!(accounts(&data), [] as [Value; 0]);
    }
    let log = succeed(starling().args(["audit", "tail", "--lines", "1000", "--data-dir"]).arg(&data));
    assert!(log.matches("businesses_erased").count() == 1 && log.contains("28"), "{log}");
    succeed(starling().args(["audit", "verify", "--data-dir"]).arg(&data));
}

#[test]
fn i9_what_is_said_out_of_order_and_by_several_partitions_ends_as_it_was_said_last() {
    let says = |business: &str, name: &str, at_ms: i64| {
        let said =
            BusinessInformation { business: business.into(), name: name.into(), category: 4, tier: 1, ..Default::default() };
        frame(&Event { body: Some(Body::BusinessInformation(said)), ..envelope("", NOON_MS + at_ms) })
    };
    let parts = [
        vec![says("b-1", "third", 3), says("b-2", "Only", 1), says("b-1", "second", 2)],
        vec![says("b-1", "fourth", 4), says("b-1", "first", 1), says("b\u{7}", "Nobody", 9), says("", "Nobody", 9)],
        vec![says("b-1", "zeroth", 0), says("b-1", "FOURTH", 4), says("b-3", "Closing", 1)],
        vec![frame(&Event {
            body: Some(Body::BusinessInformation(BusinessInformation { business: "b-3".into(), ..Default::default() })),
            ..envelope("", NOON_MS + 2)
        })],
    ];
    let mut seen = Vec::new();
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 2, 0]] {
        let dir = tempfile::tempdir().expect("dir");
        let data = dir.path().join("data");
        for part in order {
            let trace = dir.path().join(format!("part-{part}.pb"));
            write_trace(&trace, &parts[part]);
            run_trace(&trace, &data);
        }
        seen.push(accounts(&data));
    }
    let names = |accounts: &[Value]| accounts.iter().map(|a| (a["business"].clone(), a["name"].clone())).collect::<Vec<_>>();
    assert_eq!(names(&seen[0]), [(json!("b-1"), json!("fourth")), (json!("b-2"), json!("Only"))]);
    assert!(seen.iter().all(|accounts| *accounts == seen[0]), "{seen:#?}");
}
