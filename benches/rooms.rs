//! Each room by itself.

mod day;

use std::hint::black_box;

use arrow::array::RecordBatch;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use day::Day;
use starling_aggregate::Folder;
use starling_benches::{NOON_MS, frames, keys};
use starling_minimize::{Limits, Minimizer, RangeContext};
use starling_schemas::ids::{EpochId, Offset};
use starling_schemas::metrics::Catalogue;

const EVENTS: usize = 100_000;
const PEOPLE: u64 = 20_000;
const CONTEXT: RangeContext = RangeContext { closed_through: None, hours_after: None, latest_ms: i64::MAX, read_to_ms: None };

fn minimize(criterion: &mut Criterion) {
    let frames = frames(EVENTS, PEOPLE);
    let mut group = criterion.benchmark_group("minimize");
    group.throughput(Throughput::Elements(EVENTS as u64)).sample_size(20);
    let mut minimizer = Minimizer::new(keys(), Limits::default());
    group.bench_function("event", |bencher| {
        bencher.iter(|| {
            minimizer.begin(CONTEXT);
            for (offset, frame) in frames.iter().enumerate() {
                minimizer.push(Offset(offset as i64), frame).expect("keys are there");
            }
            minimizer.finish().expect("rows").events
        });
    });
    // What cannot be saved: one keyed hash for each of the two purposes, over an input of the same length.
    let numbers: Vec<[u8; 48]> = (0..EVENTS as u64).map(|i| std::array::from_fn(|b| (i >> (b % 8)) as u8)).collect();
    group.bench_function("its two keyed hashes alone", |bencher| {
        bencher.iter(|| {
            for number in &numbers {
                black_box(blake3::keyed_hash(&[1; 32], number));
                black_box(blake3::keyed_hash(&[2; 32], number));
            }
        });
    });
    group.finish();
}

fn clean(events: usize, people: u64) -> RecordBatch {
    let mut minimizer = Minimizer::new(keys(), Limits::default());
    minimizer.begin(CONTEXT);
    for (offset, frame) in frames(events, people).iter().enumerate() {
        minimizer.push(Offset(offset as i64), frame).expect("keys are there");
    }
    minimizer.finish().expect("rows").clean
}

fn fold(criterion: &mut Criterion) {
    let rows = clean(EVENTS, PEOPLE);
    let mut group = criterion.benchmark_group("aggregate");
    group.throughput(Throughput::Elements(EVENTS as u64)).sample_size(20);
    group.bench_function("fold a clean row", |bencher| {
        bencher.iter(|| {
            let mut folder = Folder::new();
            folder.fold(&rows).expect("clean rows");
            folder.finish().expect("person rows")
        });
    });
    group.finish();
}

/// A day whose segments hold the same people again and again.
async fn full_day(segments: i64) -> Day {
    let mut folder = Folder::new();
    folder.fold(&clean(EVENTS, PEOPLE)).expect("clean rows");
    let person_rows = folder.finish().expect("person rows").remove(0).1;
    let mut day = Day::open().await;
    for _ in 0..segments {
        day.commit(&person_rows, EVENTS as u64).await;
    }
    day
}

fn merge_and_release(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
    let epoch = EpochId::of(NOON_MS);
    let rows = runtime.block_on(full_day(8)).rows;
    let mut group = criterion.benchmark_group("window");
    group.sample_size(10);
    group.throughput(Throughput::Elements(rows));
    group.bench_function("merge a segment row (8 segments, with commit and fsync)", |bencher| {
        bencher.to_async(&runtime).iter_batched(
            || tokio::task::block_in_place(|| futures::executor::block_on(full_day(8))),
            |day| async move {
                day.closer(512 << 20).close(epoch, true).await.expect("closes");
                day
            },
            BatchSize::PerIteration,
        );
    });
    let cells = Catalogue::builtin().expect("definitions").metrics.len() as u64;
    group.throughput(Throughput::Elements(cells));
    let closed = || {
        tokio::task::block_in_place(|| {
            futures::executor::block_on(async {
                let day = full_day(1).await;
                day.closer(512 << 20).close(epoch, true).await.expect("closes");
                day
            })
        })
    };
    group.bench_function("release a metric (one pass for all, all its groups, charge, noise, fsync)", |bencher| {
        bencher.to_async(&runtime).iter_batched(
            closed,
            |day| async move {
                day.releaser().release_window(epoch).await.expect("releases");
                day
            },
            BatchSize::PerIteration,
        );
    });
    group.bench_function("the same, each metric in a pass of its own", |bencher| {
        bencher.to_async(&runtime).iter_batched(
            closed,
            |day| async move {
                for at in 0..usize::try_from(cells).expect("few") {
                    day.releaser_of(at).release_window(epoch).await.expect("releases");
                }
                day
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn sql(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
    let (day, engine) = runtime.block_on(async {
        let day = full_day(1).await;
        day.closer(512 << 20).close(EpochId::of(NOON_MS), true).await.expect("closes");
        let releaser = day.releaser();
        releaser.release_window(EpochId::of(NOON_MS)).await.expect("releases");
        let engine = starling_query::Engine::open(
            releaser.metastore.clone(),
            releaser.files.clone(),
            releaser.catalogue.clone(),
            releaser.clock.clone(),
        )
        .await
        .expect("engine");
        (day, engine)
    });
    let mut group = criterion.benchmark_group("sql");
    group.sample_size(50);
    let question = "SELECT country, sum(value) AS messages FROM stats.messages_daily WHERE status = 'released' GROUP BY country ORDER BY messages DESC LIMIT 10";
    group.bench_function("top ten of a released table", |bencher| {
        bencher.to_async(&runtime).iter(|| async { engine.query(question).await.expect("answers") });
    });
    group.finish();
    drop(day);
}

criterion_group!(rooms, minimize, fold, merge_and_release, sql);
criterion_main!(rooms);
