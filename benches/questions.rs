//! A private question over many days of many people each: time, CPU and peak memory. Everything is the real thing: encrypted tables, ledger, audit log.
//!
//!   cargo bench --workspace --bench questions -- [DAYS=30] [PEOPLE=1000000] > benches/results/DATE-questions.txt
//!
//! Every person of a day has three rows (activities). `TMPDIR` says where the tables lie; thirty days of a million people take some 1 GB.

#![allow(clippy::print_stdout, reason = "what it prints is its result")]
#![allow(clippy::cast_possible_truncation, reason = "made-up people")]

mod day;

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, FixedSizeBinaryArray, RecordBatch, UInt8Array, UInt16Array, UInt32Array};
use day::Day;
use starling_benches::NOON_MS;
use starling_query::{Engine, Limits, Vault};
use starling_schemas::codes::{COUNTRIES, Country};
use starling_schemas::ids::{EpochId, Purpose};
use starling_schemas::metrics::Catalogue;
use starling_schemas::rows::PERSON_ROWS;
use starling_schemas::time::FixedClock;
use starling_store::{KeyId, KeyKind, TableWriter};

/// Rows of one person in a day.
const ROWS: u128 = 3;
/// People of a batch.
const BATCH: u128 = 64 * 1024;

/// People `from..to` of a day: pseudonyms ascend, spread over all 128 bits.
fn rows(from: u128, to: u128, people: u128) -> RecordBatch {
    let step = u128::MAX / people;
    let all: Vec<(u128, u128)> = (from..to).flat_map(|n| (0..ROWS).map(move |row| (n, row))).collect();
    let spread = |n: u128| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 7) as u32;
    let person: Vec<u8> = all.iter().flat_map(|(n, _)| (n * step + u128::from(spread(*n))).to_be_bytes()).collect();
    // Few countries have most people.
    let country = |n: u128| {
        let at = COUNTRIES.len() as f64 * (f64::from(spread(n) % 10_000) / 10_000.0).powi(3);
        Country::parse(COUNTRIES[at as usize % COUNTRIES.len()]).unwrap_or(Country::UNKNOWN).code()
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(FixedSizeBinaryArray::try_new(16, person.into(), None).expect("sixteen bytes each")),
        Arc::new(UInt16Array::from_iter_values(all.iter().map(|(n, _)| country(*n)))),
        Arc::new(UInt8Array::from_iter_values(all.iter().map(|(n, _)| 1 + (spread(*n) % 5) as u8))),
        Arc::new(UInt8Array::from_iter_values(all.iter().map(|(_, row)| [1, 2, 5][*row as usize % 3]))),
        Arc::new(UInt16Array::from_iter_values(all.iter().map(|(n, _)| 0x1a00 + (spread(*n) % 8) as u16))),
        Arc::new(UInt8Array::from(vec![1; all.len()])),
        Arc::new(UInt8Array::from(vec![2; all.len()])),
        Arc::new(UInt32Array::from_iter_values(all.iter().map(|(n, row)| 1 + (spread(*n) + *row as u32) % 40))),
        Arc::new(UInt32Array::from_iter_values(all.iter().map(|(n, row)| if *row == 2 { spread(*n) % 3600 } else { 0 }))),
    ];
    RecordBatch::try_new(Arc::clone(&PERSON_ROWS), columns).expect("person rows")
}

/// `VmHWM` of this process in MiB; nothing where the system does not tell.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default() / 1024
}

/// CPU seconds of this process so far, by the system's ticks of a hundredth.
fn cpu_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
    let ticks: Vec<u64> = after.split_whitespace().skip(11).take(2).filter_map(|n| n.parse().ok()).collect();
    ticks.iter().sum::<u64>() as f64 / 100.0
}

fn main() {
    // `cargo bench` adds `--bench`.
    let mut arguments = std::env::args().skip(1).filter(|a| a != "--bench").map(|a| a.replace('_', "").parse::<u128>());
    let days = arguments.next().map_or(30, |n| n.expect("DAYS is a number")) as i32;
    let people = arguments.next().map_or(1_000_000, |n| n.expect("PEOPLE is a number"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
    runtime.block_on(async {
        let home = Day::open().await;
        let last = EpochId::of(NOON_MS);
        for epoch in (last.0 - days + 1..=last.0).map(EpochId) {
            let id = KeyId { kind: KeyKind::Data, purpose: Purpose::AnalyticsDay, epoch };
            let key = home.keyring.get_or_create(id).expect("a key");
            let path = format!("people/{epoch}.parquet");
            let mut writer = TableWriter::new(&home.files, &key, &path, Arc::clone(&PERSON_ROWS)).await.expect("a table");
            let mut from = 0;
            while from < people {
                let to = (from + BATCH).min(people);
                writer.write(&rows(from, to, people)).await.expect("written");
                from = to;
            }
            let table = writer.finish().await.expect("in place");
            home.metastore.begin_close(epoch, NOON_MS).await.expect("closing");
            home.metastore.finish_close(epoch, &table, true, NOON_MS).await.expect("closed");
        }
        let catalogue = Arc::new(Catalogue::builtin().expect("definitions"));
        let vault = Vault::new(Arc::clone(&home.metastore), Arc::clone(&home.files), Arc::clone(&home.keyring), catalogue);
        let clock = Arc::new(FixedClock::new(NOON_MS + 86_400_000));
        let engine = Engine::open_private(vault, clock, Limits::default()).await.expect("opens");
        // The high-water mark begins anew.
        let _ = std::fs::write("/proc/self/clear_refs", "5");
        for (what, sql) in [
            ("people, events by country and platform", "SELECT country, platform, COUNT(DISTINCT person), SUM(events) FROM private.person_day GROUP BY country, platform"),
            ("people by day", "SELECT day, COUNT(DISTINCT person) FROM private.person_day GROUP BY day"),
            ("median and 90th percentile of call seconds by platform", "SELECT platform, MEDIAN(seconds), PERCENTILE_CONT(0.9) WITHIN GROUP (ORDER BY seconds) FROM private.person_day WHERE activity = 'call_voice' GROUP BY platform"),
            ("the first again, which is stored", "SELECT country, platform, COUNT(DISTINCT person), SUM(events) FROM private.person_day GROUP BY country, platform"),
        ] {
            let (began, cpu) = (Instant::now(), cpu_s());
            let answer = engine.query(sql).await.expect("answers");
            println!(
                "{days} days of {people} people, {ROWS} rows each: {what}: {:.1} s, {:.1} CPU s, peak {} MiB, {} rows answered",
                began.elapsed().as_secs_f64(),
                cpu_s() - cpu,
                peak_mib(),
                answer.rows()
            );
        }
    });
}
