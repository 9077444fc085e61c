//! What can go wrong between a closed window and its released statistics.

use starling_privacy::PrivacyError;
use starling_schemas::ids::WindowId;
use starling_store::{KeyringError, StoreError};

use crate::error::QueryError;

/// What can go wrong between a closed window and its released statistics.
///
/// Texts name metrics, windows and paths, never a value from the data.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// A metric cannot be released as it is defined.
    #[error("metric {metric}: {error}")]
    Definition {
        /// Name of the metric.
        metric: String,
        /// What is wrong, and what to write instead.
        error: QueryError,
    },
    /// A metric names a dataset that is not there.
    #[error("metric {metric}: dataset `{dataset}` is not defined")]
    NoDataset {
        /// Name of the metric.
        metric: String,
        /// Name of the dataset.
        dataset: String,
    },
    /// Nothing was ever counted for this window.
    #[error("window {window} is not known: no event of it was counted")]
    UnknownWindow {
        /// The window.
        window: WindowId,
    },
    /// The window still takes events.
    #[error("window {window} is {state}: statistics are released when it has closed")]
    NotClosed {
        /// The window.
        window: WindowId,
        /// Its state's name.
        state: &'static str,
    },
    /// The person rows cannot be read any more (I7).
    #[error("window {window} has expired: its person rows are gone, and what was not released cannot be released any more")]
    Expired {
        /// The window.
        window: WindowId,
    },
    /// A file could not be written as Parquet.
    #[error("the released file could not be encoded")]
    NotEncoded,
    /// A file stands where a release belongs, and is none.
    #[error("`{path}` is not a release of this metric and window: move it away and look at where it came from")]
    ForeignFile {
        /// Path below the store.
        path: String,
    },
    /// A metric's Delta log cannot be gone on with. The release itself is in place.
    #[error(
        "`{path}`: {what}. Releases go on, but are not named there: move the metric's `_delta_log` away to have it written anew"
    )]
    DeltaLog {
        /// Path below the store.
        path: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Bounding, charging or drawing failed.
    #[error(transparent)]
    Privacy(#[from] PrivacyError),
    /// A plan failed.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The keyring failed.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
}
