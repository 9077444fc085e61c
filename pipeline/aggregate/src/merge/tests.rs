use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::physical_plan::displayable;
use proptest::prelude::*;
use starling_schemas::ids::{EpochId, PartitionId, Sequence};
use starling_store::Keyring;

use super::*;
use crate::fold::tests::{Event, Model, clean, event, model, read};
use crate::testing::TestEntropy;
use crate::{Folder, write_segment};

const DAY: EpochId = EpochId(20_458);

struct Place {
    _root: tempfile::TempDir,
    files: Arc<Files>,
    keyring: Keyring,
    spill: std::path::PathBuf,
}

impl Place {
    fn new() -> Self {
        let root = tempfile::tempdir().expect("folder");
        let files = Arc::new(Files::open_local(&root.path().join("files")).expect("files"));
        let keyring = Keyring::open(&root.path().join("keys"), Arc::new(TestEntropy)).expect("keyring");
        Self { files, keyring, spill: root.path().join("spill"), _root: root }
    }

    fn merger(&self, memory_bytes: usize) -> Merger {
        Merger::new(Arc::new(crate::segment::data_key(&self.keyring, DAY).expect("key")), Span::Day, memory_bytes)
            .expect("merger")
    }

    /// Each part folded and written as a segment of [`DAY`].
    async fn segments(&self, parts: &[Vec<Event>]) -> Vec<SegmentRecord> {
        let partition = PartitionId { source: "events".to_owned(), partition: 0 };
        let mut out = Vec::new();
        for (sequence, part) in parts.iter().enumerate() {
            let mut folder = Folder::new();
            folder.fold(&clean(part)).expect("clean rows");
            let sequence = Sequence(i64::try_from(sequence).expect("small"));
            for (day, rows) in folder.finish().expect("rows") {
                assert_eq!(day, DAY);
                out.push(write_segment(&self.files, &self.keyring, &partition, sequence, day, &rows).await.expect("writes"));
            }
        }
        out
    }

    async fn table(&self, path: &str) -> Model {
        let key = crate::segment::data_key(&self.keyring, DAY).expect("key");
        let mut batches = read_table(&self.files, &key, path).await.expect("opens");
        let (mut last, mut rows) = (None, Model::new());
        while let Some(batch) = batches.next().await {
            read(DAY, &batch.expect("reads"), &mut last, &mut rows);
        }
        rows
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime")
}

#[test]
fn every_merge_but_the_first_is_full_and_the_last_takes_all() {
    for fan_in in 2..=MAX_FAN_IN {
        for inputs in 0..400 {
            let mut left = inputs;
            let mut first = true;
            while let Some(size) = first_group(left, fan_in) {
                assert!(size >= 2 && size <= fan_in && (first || size == fan_in), "{inputs} inputs, {fan_in} at a time");
                left = left - size + 1;
                first = false;
            }
            assert!(left <= fan_in && (first || left == fan_in));
        }
    }
}

#[test]
fn fan_in_follows_memory_within_bounds() {
    assert_eq!(fan_in(0), 2);
    assert_eq!(fan_in(512 << 20), 32);
    assert_eq!(fan_in(usize::MAX), MAX_FAN_IN);
}

#[test]
fn the_plan_streams_sorted_segments_and_sorts_and_hashes_nothing() {
    let place = Place::new();
    let key = Arc::new(crate::segment::data_key(&place.keyring, DAY).expect("key"));
    let input = |n: u8| Input {
        files: Arc::clone(&place.files),
        path: format!("s{n}"),
        key: Arc::clone(&key),
        span: Span::Day,
        read: None,
    };
    let plan = plan(vec![input(0), input(1)]).expect("plans");
    let text = displayable(plan.as_ref()).indent(false).to_string();
    let operators: Vec<_> = text.lines().map(|l| l.trim_start().split(':').next().unwrap_or_default()).collect();
    assert_eq!(operators, ["AggregateExec", "SortPreservingMergeExec", "StreamingTableExec"], "{text}");
    assert!(text.contains("ordering_mode=Sorted"), "{text}");
}

#[test]
fn disk_spilling_of_datafusion_is_off_because_it_would_be_in_clear_text() {
    assert!(!Place::new().merger(16 << 20).environment.disk_manager.tmp_files_enabled());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn i9_any_split_into_segments_merges_to_the_rows_of_the_naive_model(
        events in prop::collection::vec((event(), 0..9_usize), 0..120),
        memory_bytes in prop_oneof![Just(16_usize << 20), Just(32 << 20), Just(512 << 20)],
    ) {
        let events: Vec<(Event, usize)> = events.into_iter().map(|(e, part)| (Event { day: DAY.0, ..e }, part)).collect();
        let mut parts = vec![Vec::new(); 9];
        for (event, part) in &events {
            parts[*part].push(*event);
        }
        let expected = model(&events.iter().map(|(e, _)| *e).collect::<Vec<_>>());
        runtime().block_on(async {
            let place = Place::new();
            let segments = place.segments(&parts).await;
            let spill = Spill::open(&place.spill).expect("opens");
            let (writer, merged) = place.merger(memory_bytes).merge(&place.files, &segments, &spill, "people/t.parquet").await.expect("merges");
            let table = writer.finish().await.expect("finishes");
            let read = segments.iter().map(|s| s.rows).sum();
            assert_eq!(merged, Merged { events: events.len() as u64, read, saturated: false });
            assert_eq!(table.rows, expected.len() as u64);
            assert_eq!(place.table("people/t.parquet").await, expected);
        });
    }
}

/// `segments` parts of an event each of `people` people, half of whom are in the next part, too.
fn parts(segments: u64, people: u64) -> Vec<Vec<Event>> {
    // Odd multiplier: different numbers stay different, and look like pseudonyms.
    let person = |n: u64| u128::from(n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    let event = |n| Event { person: person(n), day: DAY.0, country: 1, platform: 1, activity: 1, seconds: 2, ..Event::default() };
    (0..segments).map(|part| (0..people).map(|n| event(part * people / 2 + n)).collect()).collect()
}

/// More rows than the memory could hold, through several levels of runs.
#[test]
fn a_merge_larger_than_its_memory_goes_through_encrypted_runs_that_do_not_outlive_it() {
    const SEGMENTS: u64 = 10;
    const PEOPLE_EACH: u64 = 16_000;
    let parts = parts(SEGMENTS, PEOPLE_EACH);
    let expected = model(&parts.concat());
    runtime().block_on(async {
        let place = Place::new();
        let segments = place.segments(&parts).await;
        let spill = Spill::open(&place.spill).expect("opens");
        let too_small = place.merger(128 << 10).merge(&place.files, &segments, &spill, "people/t.parquet").await;
        assert!(matches!(too_small, Err(AggregateError::MemoryExhausted { .. })), "the bound is a bound");
        // Room for a few batches, not for the rows: 3 MiB against 10 × 16,000 × 28 bytes.
        let merger = place.merger(3 << 20);
        assert_eq!(fan_in(merger.memory_bytes), 2);
        let (writer, merged) = merger.merge(&place.files, &segments, &spill, "people/t.parquet").await.expect("merges");
        assert_eq!(merged.events, SEGMENTS * PEOPLE_EACH);

        let runs: Vec<_> = std::fs::read_dir(spill.path()).expect("lists").map(|e| e.expect("entry").path()).collect();
        assert_eq!(runs.len(), 2, "only the last level's runs are left: {runs:?}");
        let people: BTreeSet<[u8; 16]> = expected.keys().map(|(_, person, ..)| person.to_be_bytes()).collect();
        for run in &runs {
            let bytes = std::fs::read(run).expect("reads");
            assert!(!bytes.windows(16).any(|w| people.contains(w)), "a pseudonym is in clear text in a run");
        }
        drop(spill);
        assert!(Spill::left_below(&place.spill).is_empty());

        writer.finish().await.expect("finishes");
        assert_eq!(place.table("people/t.parquet").await, expected);
        assert_eq!(merger.environment.memory_pool.reserved(), 0);
    });
}

#[test]
fn counters_saturate_instead_of_wrapping() {
    let event = Event { person: 1, day: DAY.0, country: 1, platform: 1, activity: 1, seconds: u32::MAX - 1, ..Event::default() };
    runtime().block_on(async {
        let place = Place::new();
        let segments = place.segments(&[vec![event], vec![event], vec![event]]).await;
        let spill = Spill::open(&place.spill).expect("opens");
        let (writer, _) =
            place.merger(16 << 20).merge(&place.files, &segments, &spill, "people/t.parquet").await.expect("merges");
        writer.finish().await.expect("finishes");
        assert_eq!(place.table("people/t.parquet").await.into_values().collect::<Vec<_>>(), [(3, u32::MAX)]);
    });
}

#[test]
fn unsorted_rows_are_refused_when_written_and_noticed_when_merged() {
    let mut columns = PersonRows::with_capacity(2);
    columns.push((2, 0), 1, 0);
    columns.push((1, 0), 1, 0);
    let rows = columns.finish().expect("rows");
    runtime().block_on(async {
        let place = Place::new();
        let partition = PartitionId { source: "events".to_owned(), partition: 0 };
        let refused = write_segment(&place.files, &place.keyring, &partition, Sequence(0), DAY, &rows).await;
        assert!(matches!(refused, Err(AggregateError::NotSorted { .. })));

        let key = crate::segment::data_key(&place.keyring, DAY).expect("key");
        let bytes = starling_store::encrypt_batches(&key, Arc::clone(&PERSON_ROWS), &[rows]).expect("encrypts");
        place.files.put("segments/bad", bytes).await.expect("puts");
        let segment = SegmentRecord { window: DAY.into(), path: "segments/bad".to_owned(), rows: 2, bytes: 1 };
        let spill = Spill::open(&place.spill).expect("opens");
        let merged = place.merger(16 << 20).merge(&place.files, &[segment], &spill, "people/t.parquet").await;
        assert!(matches!(merged, Err(AggregateError::NotSorted { .. })));
        assert!(place.files.list("people/").await.expect("lists").is_empty(), "nothing was put in place");
    });
}

/// Remembers the most that was reserved.
#[derive(Debug)]
struct PeakPool {
    inner: GreedyMemoryPool,
    peak: AtomicUsize,
}

impl fmt::Display for PeakPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PeakPool")
    }
}

impl MemoryPool for PeakPool {
    fn name(&self) -> &str {
        "peak"
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.inner.grow(reservation, additional);
        self.peak.fetch_max(self.inner.reserved(), Ordering::SeqCst);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.inner.shrink(reservation, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> DataFusionResult<()> {
        self.inner.try_grow(reservation, additional)?;
        self.peak.fetch_max(self.inner.reserved(), Ordering::SeqCst);
        Ok(())
    }

    fn reserved(&self) -> usize {
        self.inner.reserved()
    }
}

#[test]
fn memory_depends_on_the_inputs_open_at_once_and_not_on_the_number_of_people() {
    let peak = |segments, people| {
        let parts = parts(segments, people);
        runtime().block_on(async {
            let place = Place::new();
            let segments = place.segments(&parts).await;
            let spill = Spill::open(&place.spill).expect("opens");
            let pool = Arc::new(PeakPool { inner: GreedyMemoryPool::new(1 << 30), peak: AtomicUsize::new(0) });
            let key = Arc::new(crate::segment::data_key(&place.keyring, DAY).expect("key"));
            let merger = Merger::with_pool(key, Span::Day, 1 << 30, Arc::clone(&pool) as Arc<dyn MemoryPool>).expect("merger");
            merger.merge(&place.files, &segments, &spill, "people/t.parquet").await.expect("merges");
            pool.peak.load(Ordering::SeqCst)
        })
    };
    let (few, many) = (peak(2, 24_000), peak(2, 72_000));
    assert!(many <= few + few / 4, "three times the people: {few} bytes, then {many}");
    assert!(many <= 2 * BYTES_PER_INPUT / 4, "what DataFusion counts is a part of what an input is given: {many}");
}
