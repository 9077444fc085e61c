//! Closing a day of 1, 10 or 100 million people: time, peak memory and bytes on disk, which must not be more a person for more people.
//!
//!   cargo bench --workspace --bench people -- PEOPLE [MEMORY_MIB=512] > benches/results/DATE-people-N.txt
//!
//! Every person is in two of the day's segments, a row in each, as a person who comes over two partitions would be. Pseudonyms are made up
//! (uniform, as keyed hashes are); all else is the real thing: segments encrypted and synced, planned and committed, and a close that merges
//! them, balances the books, and destroys the key. Give each size a process of its own: memory is that process's high-water mark, taken
//! anew before the close. `TMPDIR` says where the files lie; a hundred million people take some 10 GB.

#![allow(clippy::print_stdout, reason = "what it prints is its result")]

mod day;

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, FixedSizeBinaryArray, RecordBatch, UInt8Array, UInt16Array, UInt32Array};
use day::Day;
use starling_benches::NOON_MS;
use starling_schemas::ids::EpochId;
use starling_schemas::rows::PERSON_ROWS;

/// Rows of a segment, about: what a range of a few hundred thousand events leaves.
const SEGMENT_ROWS: u64 = 200_000;

/// A uniform 128-bit number for each person (splitmix64 twice: Steele, Lea, Flood, OOPSLA 2014).
fn pseudonym(person: u64) -> u128 {
    fn mix(mut z: u64) -> u64 {
        z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    (u128::from(mix(person)) << 64) | u128::from(mix(person ^ 0x5555_5555_5555_5555))
}

/// The people of segment `index` of `segments`: once by their number's remainder, once by that of the quotient.
fn segment(people: u64, segments: u64, index: u64) -> RecordBatch {
    let whole = people / segments;
    let mut rows: Vec<(u128, u8)> = (0..whole).map(|n| (pseudonym(n * segments + index), 1)).collect();
    let mut next = index * segments;
    while next < whole * segments {
        let block = next..(next + segments).min(whole * segments);
        rows.extend(block.map(|person| (pseudonym(person), 1)));
        next += segments * segments;
    }
    rows.sort_unstable();
    rows.dedup();
    let n = rows.len();
    let person: Vec<u8> = rows.iter().flat_map(|(person, _)| person.to_be_bytes()).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(FixedSizeBinaryArray::try_new(16, person.into(), None).expect("sixteen bytes each")),
        Arc::new(UInt16Array::from_iter_values(rows.iter().map(|(person, _)| 0x4100 + (*person % 200) as u16))),
        Arc::new(UInt8Array::from_iter_values(rows.iter().map(|(person, _)| 1 + (*person >> 8) as u8 % 3))),
        Arc::new(UInt8Array::from_iter_values(rows.iter().map(|(_, activity)| *activity))),
        Arc::new(UInt16Array::from_iter_values(rows.iter().map(|(person, _)| 0x1a00 + (*person >> 24) as u16 % 8))),
        Arc::new(UInt8Array::from_iter_values(rows.iter().map(|(person, _)| 1 + (*person >> 32) as u8 % 8))),
        Arc::new(UInt8Array::from(vec![2; n])),
        Arc::new(UInt32Array::from_iter_values(rows.iter().map(|(person, _)| 1 + (*person >> 16) as u32 % 40))),
        Arc::new(UInt32Array::from(vec![0; n])),
    ];
    RecordBatch::try_new(Arc::clone(&PERSON_ROWS), columns).expect("person rows")
}

fn events(rows: &RecordBatch) -> u64 {
    let events = rows.column_by_name("events").and_then(|c| c.as_any().downcast_ref::<UInt32Array>()).expect("the column");
    events.values().iter().map(|n| u64::from(*n)).sum()
}

/// `VmRSS`, `VmHWM`: of this process, in MiB; nothing where the system does not tell.
fn memory_mib(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default() / 1024
}

fn main() {
    // `cargo bench` adds `--bench`.
    let mut arguments = std::env::args().skip(1).filter(|a| a != "--bench").map(|a| a.replace('_', "").parse::<u64>());
    let people = arguments.next().map_or(1_000_000, |n| n.expect("PEOPLE is a number"));
    let budget_mib = arguments.next().map_or(512, |n| n.expect("MEMORY_MIB is a number"));
    let segments = (2 * people / SEGMENT_ROWS).max(2);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
    runtime.block_on(async {
        let mut day = Day::open().await;
        let written = Instant::now();
        for index in 0..segments {
            let rows = segment(people, segments, index);
            day.commit(&rows, events(&rows)).await;
        }
        let written = written.elapsed();
        // The high-water mark begins anew.
        let _ = std::fs::write("/proc/self/clear_refs", "5");
        let resting = memory_mib("VmRSS:");
        let closing = Instant::now();
        let report = day.closer((budget_mib as usize) << 20).close(EpochId::of(NOON_MS), true).await.expect("closes");
        let seconds = closing.elapsed().as_secs_f64();
        assert!(report.complete, "the books must balance");
        let window = day.metastore.windows().await.expect("windows").remove(0);
        let table = window.table.expect("a closed day has a table");
        let (rows, bytes) = (table.rows, table.bytes);
        println!(
            "{{\"people\":{rows},\"segments\":{segments},\"segment_rows\":{},\"write_s\":{:.1},\"close_s\":{seconds:.1},\"rows_per_s\":{:.0},\"segment_bytes_a_row\":{:.1},\"table_bytes_a_person\":{:.1},\"memory_before_mib\":{resting},\"memory_peak_mib\":{},\"memory_budget_mib\":{budget_mib}}}",
            day.rows,
            written.as_secs_f64(),
            day.rows as f64 / seconds,
            day.segment_bytes as f64 / day.rows as f64,
            bytes as f64 / rows as f64,
            memory_mib("VmHWM:"),
        );
    });
}
