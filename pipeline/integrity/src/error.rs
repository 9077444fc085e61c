//! What can go wrong here.

use starling_schemas::signals::SignalError;
use starling_store::{KeyringError, StoreError};

/// Why detection cannot go on. No text holds a subject, a pseudonym or a key.
#[derive(Debug, thiserror::Error)]
pub enum IntegrityError {
    /// The rules' text cannot be used.
    #[error("rules.toml: {0}")]
    Rules(String),
    /// Written rules that cannot be used: every fault there is, a line each.
    #[error("the written rules cannot be used, and none of them is:\n  {}", .0.join("\n  "))]
    Written(Vec<String>),
    /// Facts of windows that are over could not be written, or are of another version.
    #[error("facts that were kept for backtests are damaged or of another version")]
    Vectors,
    /// A batch is not of the signals schema.
    #[error("a signal batch has columns of another version: update the older of ingest and integrity")]
    Columns,
    /// Bytes that are no signal batch.
    #[error(transparent)]
    Signals(#[from] SignalError),
    /// A snapshot that cannot be read.
    #[error(
        "the detectors' saved state is damaged or of another version at its {0}: move `integrity` in the data directory away to begin anew; signals still in their log are read again"
    )]
    Snapshot(&'static str),
    /// An alert could not be written as JSON.
    #[error("an alert of rule {rule} could not be written as JSON")]
    Json {
        /// Its rule.
        rule: String,
    },
    /// Metastore, files or sealing failed; also when another process has taken over.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The keyring failed.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
}
