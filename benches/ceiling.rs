//! What each stage costs an event on its way from a frame to a committed person row: the ceiling of one core, in one table.
//!
//!   cargo bench --workspace --bench ceiling > benches/results/DATE-ceiling.txt
//!
//! A figure is the least of many repetitions, in nanoseconds an event at 100,000 events a range: the least is what the stage costs when
//! nobody else has the core. Reading from Kafka is measured by `journey.sh`, in one run with the whole.

mod day;

use std::hint::black_box;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use day::{Day, Random};
use parquet::arrow::ArrowWriter;
use prost::Message as _;
use starling_aggregate::Folder;
use starling_benches::{frames, keys};
use starling_minimize::{Limits, Minimizer, RangeContext};
use starling_schemas::event::Event;
use starling_schemas::ids::{EpochId, Offset, PartitionId, Sequence};
use starling_schemas::rows::PERSON_ROWS;
use starling_schemas::signals::SignalBatch;
use starling_store::{KeyId, KeyKind, encrypt_batches, seal};

const EVENTS: usize = 100_000;
const PEOPLE: u64 = 20_000;
const TIMES: usize = 40;
const CONTEXT: RangeContext = RangeContext { closed_through: None, hours_after: None, latest_ms: i64::MAX, read_to_ms: None };

/// Nanoseconds an event, the least of `times` repetitions.
fn least<T>(times: usize, mut work: impl FnMut() -> T) -> f64 {
    let mut least = f64::INFINITY;
    for _ in 0..times {
        let started = Instant::now();
        black_box(work());
        least = least.min(started.elapsed().as_nanos() as f64 / EVENTS as f64);
    }
    least
}

fn minimized(minimizer: &mut Minimizer, frames: &[Vec<u8>]) -> (RecordBatch, RecordBatch) {
    minimizer.begin(CONTEXT);
    for (offset, frame) in frames.iter().enumerate() {
        minimizer.push(Offset(offset as i64), frame).expect("keys are there");
    }
    let minimized = minimizer.finish().expect("rows");
    (minimized.clean, minimized.signals)
}

/// The same events, read and then refused: as calls of people who did not consent they give neither a row nor a signal.
fn refused(frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let call = Event::decode(frames[7].as_slice()).expect("an event").body;
    let refuse = |frame: &Vec<u8>| {
        let mut event = Event::decode(frame.as_slice()).expect("an event");
        event.choices.as_mut().expect("choices").analytics_consent = false;
        event.body = call.clone();
        event.encode_to_vec()
    };
    frames.iter().map(refuse).collect()
}

fn main() {
    let frames = frames(EVENTS, PEOPLE);
    let bytes: usize = frames.iter().map(Vec::len).sum();
    let mut minimizer = Minimizer::new(keys(), Limits::default());
    let (clean, signals) = minimized(&mut minimizer, &frames);
    let folded = || {
        let mut folder = Folder::new();
        folder.fold(&clean).expect("clean rows");
        folder.finish().expect("person rows").remove(0).1
    };
    let person_rows = folded();
    let mut rows: Vec<(&str, f64)> = Vec::new();

    let input = [7_u8; 64];
    rows.push((
        "two keyed BLAKE3 hashes, one after the other (the yardstick)",
        least(TIMES, || {
            for _ in 0..EVENTS {
                black_box((blake3::keyed_hash(&[1; 32], black_box(&input)), blake3::keyed_hash(&[2; 32], black_box(&input))));
            }
        }),
    ));
    rows.push((
        "copy the payload into the range's arena",
        least(TIMES, || {
            let mut arena = Vec::with_capacity(bytes);
            frames.iter().for_each(|frame| arena.extend_from_slice(frame));
            arena.len()
        }),
    ));
    let unwilling = refused(&frames);
    let decode = least(TIMES, || minimized(&mut minimizer, &unwilling).0.num_rows());
    rows.push(("decode, canonical number, consent (events that are then refused)", decode));
    let minimize = least(TIMES, || minimized(&mut minimizer, &frames).0.num_rows());
    rows.push(("minimize whole: that, two keyed hashes, a clean row and a signal row", minimize));
    rows.push(("fold, sort by person", least(TIMES, folded)));

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
    let mut day = runtime.block_on(Day::open());
    let epoch = EpochId::of(starling_benches::NOON_MS);
    let id = KeyId { kind: KeyKind::Data, purpose: starling_schemas::ids::Purpose::AnalyticsDay, epoch };
    let key = day.keyring.get_or_create(id).expect("a key");
    let plain = least(TIMES, || {
        let mut writer =
            ArrowWriter::try_new(Vec::new(), Arc::clone(&PERSON_ROWS), Some(starling_store::table::plain_properties().build()))
                .expect("a writer");
        writer.write(&person_rows).expect("person rows");
        writer.into_inner().expect("a file")
    });
    rows.push(("encode person rows as Parquet, without encryption", plain));
    let encrypted =
        least(TIMES, || encrypt_batches(&key, Arc::clone(&PERSON_ROWS), std::slice::from_ref(&person_rows)).expect("a file"));
    rows.push(("  the same, encrypted", encrypted));
    let file = encrypt_batches(&key, Arc::clone(&PERSON_ROWS), std::slice::from_ref(&person_rows)).expect("a file");
    rows.push((
        "write the segment: file, fsync, rename, fsync of the folder",
        least(TIMES, || runtime.block_on(day.files.put("ceiling/segment", file.clone())).expect("writes")),
    ));
    let batch = SignalBatch {
        cover: None,
        origin: PartitionId { source: "events".into(), partition: 0 },
        sequence: Sequence(0),
        chunk: 0,
        rows: signals,
    };
    rows.push(("encode signals", least(TIMES, || batch.encode().expect("signals"))));
    let encoded = batch.encode().expect("signals");
    rows.push(("seal signals", least(TIMES, || seal(&key, &Random, "ceiling", &encoded).expect("seals"))));
    let sealed: bytes::Bytes = seal(&key, &Random, "ceiling", &encoded).expect("seals").into();
    rows.push((
        "write the signals: file, fsync, rename, fsync of the folder",
        least(TIMES, || runtime.block_on(day.files.put("ceiling/signals", sealed.clone())).expect("writes")),
    ));
    rows.push((
        "plan and commit in the metastore, with a segment of the least size",
        least(10, || {
            runtime.block_on(day.commit(&person_rows.slice(0, 1), EVENTS as u64));
        }),
    ));

    let mut out = std::io::stdout().lock();
    let _ = writeln!(
        out,
        "# {EVENTS} events of {PEOPLE} people a range, {} bytes an event, {} person rows, {:.1} bytes a person row, {:.1} bytes of signals an event",
        bytes / EVENTS,
        person_rows.num_rows(),
        file.len() as f64 / person_rows.num_rows() as f64,
        sealed.len() as f64 / EVENTS as f64
    );
    let _ = writeln!(out, "# minimize whole is {:.2} times the yardstick of this run (bar: 2.5)", minimize / rows[0].1);
    for (stage, nanoseconds) in rows {
        let _ = writeln!(out, "{nanoseconds:8.1} ns  {stage}");
    }
}
