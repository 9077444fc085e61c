//! Each room by itself.

use std::hint::black_box;
use std::sync::Arc;

use arrow::array::RecordBatch;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use starling_aggregate::{Closer, Folder, write_segment};
use starling_benches::{NOON_MS, frames, keys};
use starling_minimize::{Limits, Minimizer, RangeContext};
use starling_privacy::Releaser;
use starling_schemas::codes::Outcome;
use starling_schemas::ids::{EpochId, Offset, PartitionId};
use starling_schemas::metrics::Catalogue;
use starling_schemas::time::{Entropy, FixedClock, NoEntropy};
use starling_store::{Files, Keyring, Metastore, RangeOutcome};

const EVENTS: usize = 100_000;
const PEOPLE: u64 = 20_000;
const CONTEXT: RangeContext = RangeContext { closed_through: None, latest_ms: i64::MAX };

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

struct Random;

impl Entropy for Random {
    fn fill(&self, out: &mut [u8]) -> Result<(), NoEntropy> {
        getrandom::fill(out).map_err(|_| NoEntropy)
    }
}

/// A data directory with `segments` committed segments of one day.
struct Day {
    _dir: tempfile::TempDir,
    metastore: Arc<Metastore>,
    files: Arc<Files>,
    keyring: Arc<Keyring>,
    spill: std::path::PathBuf,
    rows: u64,
}

impl Day {
    async fn with_segments(segments: i64) -> Self {
        let dir = tempfile::tempdir().expect("folder");
        let metastore =
            Arc::new(Metastore::open(&format!("sqlite:{}", dir.path().join("m.db").display())).await.expect("metastore"));
        let files = Arc::new(Files::open_local(&dir.path().join("files")).expect("files"));
        let keyring = Arc::new(Keyring::open(&dir.path().join("keys"), Arc::new(Random)).expect("keyring"));
        let partition = PartitionId { source: "events".into(), partition: 0 };
        let owner = metastore.take_ownership(&partition, "bench", NOON_MS).await.expect("owner");
        let epoch = EpochId::of(NOON_MS);
        let mut folder = Folder::new();
        folder.fold(&clean(EVENTS, PEOPLE)).expect("clean rows");
        let person_rows = folder.finish().expect("person rows").remove(0).1;
        for i in 0..segments {
            let (from, to) = (Offset(i * EVENTS as i64), Offset((i + 1) * EVENTS as i64));
            let plan = metastore.plan(&partition, owner.generation, from, to, NOON_MS).await.expect("plan");
            let segment = write_segment(&files, &keyring, &partition, plan.sequence, epoch, &person_rows).await.expect("segment");
            let outcome = RangeOutcome {
                events: EVENTS as u64,
                counts: vec![(Some(epoch), Outcome::Counted, EVENTS as u64)],
                watermark_ms: Some(NOON_MS),
                segments: vec![segment],
                quarantined: Vec::new(),
            };
            metastore.commit(&plan, &outcome, NOON_MS).await.expect("commit");
        }
        let spill = dir.path().join("spill");
        Self { _dir: dir, metastore, files, keyring, spill, rows: person_rows.num_rows() as u64 * segments as u64 }
    }

    fn closer(&self) -> Closer {
        Closer {
            metastore: Arc::clone(&self.metastore),
            files: Arc::clone(&self.files),
            keyring: Arc::clone(&self.keyring),
            clock: Arc::new(FixedClock::new(NOON_MS + 86_400_000)),
            memory_bytes: 512 << 20,
            spill_dir: self.spill.clone(),
        }
    }

    fn releaser(&self) -> Releaser {
        Releaser {
            metastore: Arc::clone(&self.metastore),
            files: Arc::clone(&self.files),
            keyring: Arc::clone(&self.keyring),
            clock: Arc::new(FixedClock::new(NOON_MS + 86_400_000)),
            catalogue: Arc::new(Catalogue::builtin().expect("definitions")),
        }
    }
}

fn merge_and_release(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
    let epoch = EpochId::of(NOON_MS);
    let rows = runtime.block_on(Day::with_segments(8)).rows;
    let mut group = criterion.benchmark_group("window");
    group.sample_size(10);
    group.throughput(Throughput::Elements(rows));
    group.bench_function("merge a segment row (8 segments, with commit and fsync)", |bencher| {
        bencher.to_async(&runtime).iter_batched(
            || tokio::task::block_in_place(|| futures::executor::block_on(Day::with_segments(8))),
            |day| async move {
                day.closer().close(epoch, true).await.expect("closes");
                day
            },
            BatchSize::PerIteration,
        );
    });
    let cells = Catalogue::builtin().expect("definitions").metrics.len() as u64;
    group.throughput(Throughput::Elements(cells));
    group.bench_function("release a metric (all its public groups, charge, noise, fsync)", |bencher| {
        bencher.to_async(&runtime).iter_batched(
            || {
                tokio::task::block_in_place(|| {
                    futures::executor::block_on(async {
                        let day = Day::with_segments(1).await;
                        day.closer().close(epoch, true).await.expect("closes");
                        day
                    })
                })
            },
            |day| async move {
                day.releaser().release_window(epoch).await.expect("releases");
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
        let day = Day::with_segments(1).await;
        day.closer().close(EpochId::of(NOON_MS), true).await.expect("closes");
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
