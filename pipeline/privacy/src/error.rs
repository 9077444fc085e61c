use starling_schemas::ids::EpochId;
use starling_store::{KeyringError, StoreError};

/// What can go wrong between a closed window and its released statistics.
///
/// Texts name metrics, windows and paths, never a value from the data.
#[derive(Debug, thiserror::Error)]
pub enum PrivacyError {
    /// A metric cannot be released as it is defined.
    #[error("metric {metric}: {what}")]
    Definition {
        /// Name of the metric.
        metric: String,
        /// What is wrong, and what to write instead.
        what: String,
    },
    /// Nothing was ever counted for this window.
    #[error("window {epoch} is not known: no event of that day was counted")]
    UnknownWindow {
        /// The window.
        epoch: EpochId,
    },
    /// The window still takes events.
    #[error("window {epoch} is {state}: statistics are released when it has closed")]
    NotClosed {
        /// The window.
        epoch: EpochId,
        /// Its state's name.
        state: &'static str,
    },
    /// The person rows cannot be read any more (I7).
    #[error("window {epoch} has expired: its person rows are gone, and what was not released cannot be released any more")]
    Expired {
        /// The window.
        epoch: EpochId,
    },
    /// A person table whose rows do not stand in order of person. A person could have been bounded twice, so nothing is summed.
    #[error("the person table is not sorted by person: merge the window again")]
    Unsorted,
    /// A person table with other columns than `PERSON_ROWS`.
    #[error(
        "the person table's column `{column}` is missing, has another type or holds nulls: was it written by another version?"
    )]
    WrongColumn {
        /// The column.
        column: &'static str,
    },
    /// A sum does not fit 64 bits.
    #[error("a sum does not fit 64 bits: lower the metric's value_per_group")]
    Overflow,
    /// No noise is wide enough, or fine enough, for the cost and the bounds.
    #[error("no noise can be calibrated: {what}")]
    Calibration {
        /// What is wrong.
        what: &'static str,
    },
    /// The measurement's own privacy map says that it costs more than was charged. Nothing was drawn (I2, I8).
    #[error("the measurement would cost more than was charged: nothing was drawn")]
    CostsMoreThanCharged,
    /// OpenDP refused.
    #[error("OpenDP's {constructor} failed: {kind}")]
    Mechanism {
        /// Constructor or step.
        constructor: &'static str,
        /// OpenDP's name for the failure.
        kind: String,
    },
    /// The noise could not be drawn, which is how a missing entropy source shows. The charge stands.
    #[error("the noise could not be drawn: check the system's random device; the charge stands and is used at the next attempt")]
    NotDrawn,
    /// A charge that the ledger says is there, and does not list.
    #[error("the ledger refuses a second charge for `{question}`, but lists none: check the metastore")]
    ChargeMissing {
        /// The question.
        question: String,
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
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The keyring failed.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
}
