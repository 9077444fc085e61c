//! A data directory with committed segments of one day, for the benches that close and release it.

#![allow(dead_code, reason = "not every bench needs all of it")]

use std::sync::Arc;

use arrow::array::RecordBatch;
use starling_aggregate::{Closer, write_segment};
use starling_benches::NOON_MS;
use starling_query::Releaser;
use starling_schemas::codes::Outcome;
use starling_schemas::ids::{EpochId, Offset, PartitionId};
use starling_schemas::metrics::Catalogue;
use starling_schemas::time::{Entropy, FixedClock, NoEntropy};
use starling_store::{Files, Keyring, Metastore, Ownership, RangeOutcome};

/// The system's entropy.
pub(crate) struct Random;

impl Entropy for Random {
    fn fill(&self, out: &mut [u8]) -> Result<(), NoEntropy> {
        getrandom::fill(out).map_err(|_| NoEntropy)
    }
}

/// One partition's data directory; gone when dropped.
pub(crate) struct Day {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) metastore: Arc<Metastore>,
    pub(crate) files: Arc<Files>,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) owner: Ownership,
    /// Events committed.
    pub(crate) events: u64,
    /// Segment rows committed.
    pub(crate) rows: u64,
    /// Bytes of the segments.
    pub(crate) segment_bytes: u64,
}

impl Day {
    pub(crate) async fn open() -> Self {
        let dir = tempfile::tempdir().expect("folder");
        let metastore =
            Arc::new(Metastore::open(&format!("sqlite:{}", dir.path().join("m.db").display())).await.expect("metastore"));
        let files = Arc::new(Files::open_local(&dir.path().join("files")).expect("files"));
        let keyring = Arc::new(Keyring::open(&dir.path().join("keys"), Arc::new(Random)).expect("keyring"));
        let partition = PartitionId { source: "events".into(), partition: 0 };
        let owner = metastore.take_ownership(&partition, "bench", NOON_MS).await.expect("owner");
        Self { dir, metastore, files, keyring, owner, events: 0, rows: 0, segment_bytes: 0 }
    }

    /// Plans a range of so many events, writes its person rows as a segment and commits it.
    pub(crate) async fn commit(&mut self, person_rows: &RecordBatch, events: u64) {
        let epoch = EpochId::of(NOON_MS);
        let partition = &self.owner.partition;
        let (from, to) = (Offset(self.events as i64), Offset((self.events + events) as i64));
        let plan = self.metastore.plan(partition, self.owner.generation, from, to, NOON_MS).await.expect("plan");
        let segment =
            write_segment(&self.files, &self.keyring, partition, plan.sequence, epoch, person_rows).await.expect("segment");
        self.events += events;
        self.rows += segment.rows;
        self.segment_bytes += segment.bytes;
        let outcome = RangeOutcome {
            events,
            counts: vec![(Some(epoch), Outcome::Counted, events)],
            watermark_ms: Some(NOON_MS),
            segments: vec![segment],
            ..RangeOutcome::default()
        };
        self.metastore.commit(&plan, &outcome, NOON_MS).await.expect("commit");
    }

    pub(crate) fn closer(&self, memory_bytes: usize) -> Closer {
        Closer {
            metastore: Arc::clone(&self.metastore),
            files: Arc::clone(&self.files),
            keyring: Arc::clone(&self.keyring),
            clock: Arc::new(FixedClock::new(NOON_MS + 86_400_000)),
            memory_bytes,
            spill_dir: self.dir.path().join("spill"),
        }
    }

    pub(crate) fn releaser(&self) -> Releaser {
        Releaser {
            metastore: Arc::clone(&self.metastore),
            files: Arc::clone(&self.files),
            keyring: Arc::clone(&self.keyring),
            clock: Arc::new(FixedClock::new(NOON_MS + 86_400_000)),
            catalogue: Arc::new(Catalogue::builtin().expect("definitions")),
        }
    }

    /// A releaser of the metric at this place alone.
    pub(crate) fn releaser_of(&self, at: usize) -> Releaser {
        let mut releaser = self.releaser();
        let mut one = Catalogue::builtin().expect("definitions");
        one.metrics = one.metrics.into_iter().skip(at).take(1).collect();
        releaser.catalogue = Arc::new(one);
        releaser
    }
}
