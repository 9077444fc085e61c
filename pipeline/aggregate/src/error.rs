//! What can go wrong here. No text holds a value from the data (I4).

use std::path::PathBuf;

use datafusion::arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use starling_schemas::ids::WindowId;
use starling_store::{KeyringError, StoreError};

/// Everything that can go wrong between clean rows and person rows.
#[derive(Debug, thiserror::Error)]
pub enum AggregateError {
    /// A batch is not of the schema it should have.
    #[error("a batch has no column `{column}` of the expected type without nulls: was it made by another version?")]
    WrongColumn {
        /// The column.
        column: &'static str,
    },
    /// A segment's rows were written by another version. They are not converted: person rows live for 30 days at most (P42).
    #[error(
        "{path}: its person rows have no column `{column}` as this version writes it: another version wrote them, and they are not converted. Close the day with the version that began it; at its deadline the day closes as incomplete without this segment"
    )]
    OtherVersion {
        /// The segment.
        path: String,
        /// The first column that differs.
        column: &'static str,
    },
    /// Person rows are not strictly ascending by their key columns: they would be merged wrongly.
    #[error("{place}: person rows are not sorted by their key columns, or a key is there twice: fold them with `Folder` first")]
    NotSorted {
        /// Where it was noticed.
        place: &'static str,
    },
    /// Arrow refused to build a batch.
    #[error("person rows could not be built: the columns do not fit the schema")]
    Rows,
    /// DataFusion could not merge.
    #[error("the merge of person rows stopped: {kind}")]
    Merge {
        /// Kind of DataFusion's error, without its text, which may quote values.
        kind: &'static str,
    },
    /// The memory given is too small for two inputs.
    #[error("{memory_bytes} bytes are too few to merge two segments: raise the memory of closing")]
    MemoryExhausted {
        /// What was given.
        memory_bytes: usize,
    },
    /// The folder for runs cannot be used.
    #[error("the spill folder {path} cannot be {during}: {}", starling_store::error::of_disk(*kind))]
    Spill {
        /// The folder.
        path: PathBuf,
        /// What was being done.
        during: &'static str,
        /// Kind of the failure.
        kind: std::io::ErrorKind,
    },
    /// Another close is at work.
    #[error("another close is using the spill folder {path}: wait for it, or give this one a folder of its own")]
    SpillInUse {
        /// The folder.
        path: PathBuf,
    },
    /// No event of this window was ever committed.
    #[error("there is no window {window}: no event of it was committed")]
    UnknownWindow {
        /// The window.
        window: WindowId,
    },
    /// The window's person rows have expired: its data key is destroyed.
    #[error("window {window} is expired: its data key is destroyed")]
    Expired {
        /// The window.
        window: WindowId,
    },
    /// Ranges planned before the close are not committed.
    #[error("window {window} cannot close yet: {plans} range(s) planned before are not committed; is their ingest running?")]
    WaitingForPlans {
        /// The window.
        window: WindowId,
        /// How many open plans.
        plans: usize,
    },
    /// I1 does not hold for some partitions.
    #[error(
        "window {window} cannot close as complete: events read and events counted differ in {partitions} partition(s) (I1); see `status`, and keep the metastore for inspection"
    )]
    Unbalanced {
        /// The window.
        window: WindowId,
        /// How many partitions.
        partitions: usize,
    },
    /// I1 does not hold between the counts and the merged rows.
    #[error(
        "window {window} cannot close as complete: {counted} {what} were counted, and {in_rows} are in its segments (I1): a segment is missing, or there twice"
    )]
    CountsDiffer {
        /// The window.
        window: WindowId,
        /// What was counted: a day's events, or the rows of another window's segments.
        what: &'static str,
        /// How many, over all partitions.
        counted: u64,
        /// How many are there.
        in_rows: u64,
    },
    /// A week or month was to be closed before its days.
    #[error("window {window} cannot close yet: its last day has not closed")]
    DaysOpen {
        /// The window.
        window: WindowId,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The keyring.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
}

impl AggregateError {
    /// What this crate or the store put into an error of DataFusion, as it was.
    fn from_outside(error: Box<dyn std::error::Error + Send + Sync>) -> Self {
        match error.downcast::<StoreError>().map(|e| Self::Store(*e)).or_else(|e| e.downcast::<Self>().map(|e| *e)) {
            Ok(error) => error,
            Err(_) => Self::Merge { kind: "an outside error" },
        }
    }

    /// Reduces an error of DataFusion to its kind; an error of the store or of this crate that came up through it is handed on as it was.
    pub(crate) fn from_datafusion(error: DataFusionError, memory_bytes: usize) -> Self {
        match error {
            DataFusionError::External(e) => Self::from_outside(e),
            DataFusionError::ArrowError(e, _) => match *e {
                ArrowError::ExternalError(e) => Self::from_outside(e),
                _ => Self::Merge { kind: "an error in Arrow" },
            },
            DataFusionError::Context(_, e) | DataFusionError::Diagnostic(_, e) => Self::from_datafusion(*e, memory_bytes),
            DataFusionError::Shared(e) => match std::sync::Arc::try_unwrap(e) {
                Ok(e) => Self::from_datafusion(e, memory_bytes),
                Err(_) => Self::Merge { kind: "a shared error" },
            },
            DataFusionError::ResourcesExhausted(_) => Self::MemoryExhausted { memory_bytes },
            DataFusionError::Internal(_) => Self::Merge { kind: "an internal error of DataFusion" },
            DataFusionError::Plan(_) | DataFusionError::NotImplemented(_) => Self::Merge { kind: "the plan was refused" },
            DataFusionError::ExecutionJoin(_) => Self::Merge { kind: "a task was cancelled or panicked" },
            _ => Self::Merge { kind: "an execution error" },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_error_comes_through_datafusion_unchanged() {
        let inner = || DataFusionError::External(Box::new(StoreError::Fenced));
        for error in [
            inner(),
            DataFusionError::Context("merging".to_owned(), Box::new(inner())),
            DataFusionError::ArrowError(Box::new(ArrowError::ExternalError(Box::new(StoreError::Fenced))), None),
        ] {
            assert!(matches!(AggregateError::from_datafusion(error, 0), AggregateError::Store(StoreError::Fenced)));
        }
    }

    #[test]
    fn i4_the_text_of_a_datafusion_error_is_not_repeated() {
        let error = DataFusionError::Execution("value +491701234567".to_owned());
        let text = AggregateError::from_datafusion(error, 0).to_string();
        assert!(!text.contains("49170"), "{text}");
    }
}
