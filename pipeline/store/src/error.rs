//! What can go wrong below the rooms. No text here holds a value from the data (I4).

use crate::keyring::KeyringError;

/// Everything that can go wrong in the store.
///
/// Texts name a place (a table, a path, an operation) and what to do. Errors of the database, the file formats and the object store are
/// reduced to their kind, because their own texts may quote values.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another owner has taken the partition (or the integrity part): this one must drop its range and take ownership again.
    #[error(
        "fenced: another owner has taken this partition; drop the range, and take ownership again if the partition is still assigned"
    )]
    Fenced,
    /// The partition has a planned range that is not committed yet.
    #[error("this partition has an open plan: process and commit it before planning the next range")]
    PlanOpen,
    /// The range is empty, or does not begin where the last committed one ended.
    #[error(
        "the range does not begin at the partition's next offset, or is empty: something between was lost, or would be read twice"
    )]
    Gap,
    /// The range handed in for commit is not the open plan, for instance because it is committed already.
    #[error(
        "the range is not the partition's open plan: it was committed already, or never planned; take ownership again to see where to go on"
    )]
    NotTheOpenPlan,
    /// I1 would break: the outcomes do not add up to the events.
    #[error("the counts of this range do not add up to its events (I1): nothing was committed")]
    Unbalanced,
    /// A partition nobody has taken ownership of.
    #[error("this partition has no owner yet: take ownership first")]
    UnknownPartition,
    /// Rows for a window whose close has finished.
    #[error(
        "this range holds rows for a window that has closed: nothing was committed; the range must be processed under its plan's `closed_through`"
    )]
    WindowClosed,
    /// A window's close cannot finish before it has begun.
    #[error("this window is not closing: call begin_close first")]
    NotClosing,
    /// A window that is not closed cannot expire.
    #[error("this window has not closed, so it cannot expire yet")]
    NotClosed,
    /// A cost or limit that no budget can hold.
    #[error("a charge needs a cost above zero and a limit of zero or more")]
    InvalidCharge,
    /// The audit log does not verify.
    #[error(
        "the audit log's hash chain breaks at entry {sequence}: an entry was changed or removed; keep the file and compare it with a copy"
    )]
    BrokenChain {
        /// First entry that does not verify.
        sequence: i64,
    },
    /// The database refused or could not be reached.
    #[error("metastore, {during}: {kind}{}", code.as_ref().map(|c| format!(" (code {c})")).unwrap_or_default())]
    Database {
        /// What was being done.
        during: &'static str,
        /// Which kind of error, without its text.
        kind: &'static str,
        /// The database's own error code, where it gave one.
        code: Option<String>,
    },
    /// The metastore's address cannot be used.
    #[error("the metastore's address must be `sqlite:<path>` with a folder that exists and can be written")]
    MetastoreAddress,
    /// The metastore holds something this version cannot read.
    #[error("metastore, table {table}: a row holds what this version cannot read; was it written by a newer version?")]
    UnreadableRow {
        /// The table.
        table: &'static str,
    },
    /// A path that may not be used below the file store.
    #[error("not a path below the file store: use relative segments of plain characters")]
    PathRefused,
    /// A file operation failed.
    #[error("file store, {during} `{path}`: {kind}")]
    File {
        /// What was being done.
        during: &'static str,
        /// Path below the store's root.
        path: String,
        /// Kind of the failure.
        kind: std::io::ErrorKind,
    },
    /// A table file that should be there is not.
    #[error("file store: `{path}` is not there; has its time run out?")]
    FileMissing {
        /// Path below the store's root.
        path: String,
    },
    /// A table could not be read: wrong key, or changed bytes.
    #[error("table `{path}` does not open: its key is another one, or its bytes were changed")]
    TableUnreadable {
        /// Path below the store's root.
        path: String,
    },
    /// A table could not be written.
    #[error("a table could not be written: the batches are not of its schema, or the encoder failed")]
    TableUnwritable,
    /// A sealed file does not open: wrong key, wrong context, or changed bytes.
    #[error("a sealed file does not open: its key or its context is another one, or its bytes were changed")]
    SealBroken,
    /// A sealed file could not be made.
    #[error("a file could not be sealed: {0}")]
    SealFailed(&'static str),
    /// The keyring.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// A blocking task was cancelled: the process is going down.
    #[error("the process is shutting down")]
    Cancelled,
}

impl StoreError {
    /// Wraps an error of the database: its kind and code, never its text, which may quote values.
    pub(crate) fn database(during: &'static str, error: &sqlx::Error) -> Self {
        let (kind, code) = match error {
            sqlx::Error::Database(e) => {
                let kind = if e.is_unique_violation() {
                    "a row is there already"
                } else if e.is_check_violation() {
                    "a check of the schema refused a row"
                } else {
                    "the database refused"
                };
                (kind, e.code().map(std::borrow::Cow::into_owned))
            }
            sqlx::Error::Io(_) => ("the file could not be read or written", None),
            sqlx::Error::PoolTimedOut => ("no connection came free in time", None),
            sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => ("the connection is closed", None),
            sqlx::Error::RowNotFound => ("a row is missing", None),
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::ColumnNotFound(_) => {
                ("a column is not of the expected type", None)
            }
            sqlx::Error::Configuration(_) => ("the address or its options are wrong", None),
            sqlx::Error::Migrate(_) => ("the schema could not be brought up to date", None),
            _ => ("the driver failed", None),
        };
        Self::Database { during, kind, code }
    }
}
