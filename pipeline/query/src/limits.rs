//! How much one statement may take: length, nesting, rows, memory and time.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use datafusion::common::resources_datafusion_err;
use datafusion::error::Result;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};

/// Limits of one statement, and of all statements together where a field says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the statement's text.
    pub statement_bytes: usize,
    /// Words, numbers and signs of the statement.
    pub tokens: usize,
    /// How deep parentheses and expressions may nest. A chain such as `a + b + c` nests once per sign.
    pub depth: usize,
    /// Tables read, each time it is named, and again for each use of a `WITH` query that names it.
    pub relations: usize,
    /// Sets of grouping columns that `CUBE`, `ROLLUP` and `GROUPING SETS` may give together.
    pub grouping_sets: usize,
    /// Columns, literals and signs of one expression when every column computed below it is written out in its place.
    pub expression_size: usize,
    /// Bytes one computed text may have.
    pub text_bytes: usize,
    /// Bytes one row may have anywhere in the plan.
    pub row_bytes: usize,
    /// Rows of the answer.
    pub output_rows: usize,
    /// Bytes of the answer in memory.
    pub output_bytes: usize,
    /// Memory of one statement, bytes. Nothing spills to disk.
    pub statement_memory_bytes: usize,
    /// Memory of all statements at one time, bytes.
    pub engine_memory_bytes: usize,
    /// Bytes of protected rows in no order that wait to be bounded. More are read in several passes, each with the rows of some of the people.
    pub waiting_bytes: usize,
    /// Time from the call to the answer.
    pub timeout: Duration,
    /// The same for a statement that asks a protected table.
    pub private_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            statement_bytes: 16 * 1024,
            tokens: 4_000,
            depth: 100,
            relations: 32,
            grouping_sets: 64,
            expression_size: 4_000,
            text_bytes: 4 * 1024,
            row_bytes: 64 * 1024,
            output_rows: 100_000,
            output_bytes: 64 * 1024 * 1024,
            statement_memory_bytes: 128 * 1024 * 1024,
            engine_memory_bytes: 512 * 1024 * 1024,
            waiting_bytes: 4 << 30,
            timeout: Duration::from_secs(10),
            private_timeout: Duration::from_secs(600),
        }
    }
}

/// Rows of a batch while a statement runs. Small, since the width of a row is bounded and its number in a batch bounds the memory of operators
/// that hold one batch.
pub(crate) const BATCH_ROWS: usize = 1024;

/// An environment for one statement: its share of the engine's memory, no disk to spill to, and no store that files could be read from.
pub(crate) fn runtime(limits: &Limits, engine: &Arc<Memory>) -> Result<Arc<RuntimeEnv>> {
    let runtime = RuntimeEnvBuilder::new()
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
        .with_memory_pool(Arc::new(Memory::share(limits.statement_memory_bytes, engine)))
        .build_arc()?;
    runtime.deregister_object_store(ObjectStoreUrl::local_filesystem().as_ref())?;
    Ok(runtime)
}

/// A memory pool with a limit, inside another one.
#[derive(Debug)]
pub(crate) struct Memory {
    limit: usize,
    used: AtomicUsize,
    outer: Option<Arc<Memory>>,
}

impl Memory {
    /// The engine's pool.
    pub(crate) fn whole(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicUsize::new(0), outer: None })
    }

    fn share(limit: usize, outer: &Arc<Self>) -> Self {
        Self { limit, used: AtomicUsize::new(0), outer: Some(Arc::clone(outer)) }
    }

    /// Takes `bytes` here and outside, or nowhere.
    fn take(&self, bytes: usize) -> bool {
        let fits = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= self.limit);
        if self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_err() {
            return false;
        }
        let outside = self.outer.as_ref().is_none_or(|outer| outer.take(bytes));
        if !outside {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
        }
        outside
    }

    fn force(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
        if let Some(outer) = &self.outer {
            outer.force(bytes);
        }
    }

    fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(outer) = &self.outer {
            outer.give_back(bytes);
        }
    }
}

/// What a dropped statement did not give back is given back here.
impl Drop for Memory {
    fn drop(&mut self) {
        if let Some(outer) = &self.outer {
            outer.give_back(self.used.load(Ordering::Relaxed));
        }
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "memory of {} bytes", self.limit)
    }
}

impl MemoryPool for Memory {
    fn name(&self) -> &str {
        "starling"
    }

    fn register(&self, _consumer: &MemoryConsumer) {}

    fn grow(&self, _reservation: &MemoryReservation, additional: usize) {
        self.force(additional);
    }

    fn shrink(&self, _reservation: &MemoryReservation, shrink: usize) {
        self.give_back(shrink);
    }

    fn try_grow(&self, _reservation: &MemoryReservation, additional: usize) -> Result<()> {
        if self.take(additional) { Ok(()) } else { Err(resources_datafusion_err!("statement memory")) }
    }

    fn reserved(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_has_no_disk_and_no_files() {
        let runtime = runtime(&Limits::default(), &Memory::whole(100)).expect("builds");
        assert!(!runtime.disk_manager.tmp_files_enabled());
        assert!(runtime.object_store(ObjectStoreUrl::local_filesystem()).is_err());
    }

    #[test]
    fn a_statement_takes_no_more_than_its_share_and_all_together_no_more_than_the_whole() {
        let whole = Memory::whole(100);
        let (a, b) = (Memory::share(70, &whole), Memory::share(70, &whole));
        assert!(!a.take(71) && a.take(70));
        assert!(!b.take(31) && b.take(30), "the whole has 30 left");
        a.give_back(40);
        assert!(b.take(40) && !b.take(1), "b is at its own limit");
        assert_eq!((a.reserved(), b.reserved(), whole.reserved()), (30, 70, 100));
        drop(b);
        assert_eq!(whole.reserved(), 30, "a dropped statement leaves nothing behind");
    }
}
