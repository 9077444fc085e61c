use starling_store::StoreError;

/// What can go wrong between rows and noisy numbers.
///
/// Texts never hold a value from the data.
#[derive(Debug, thiserror::Error)]
pub enum PrivacyError {
    /// A question cannot be asked as it is.
    #[error("{what}")]
    Question {
        /// What is wrong, and what to do.
        what: &'static str,
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
    #[error("a sum does not fit 64 bits: clip one person's part to less, as in SUM(dp_clip(seconds, 0, 600))")]
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
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
