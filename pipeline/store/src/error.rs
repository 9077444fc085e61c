//! What can go wrong below the rooms. No text here holds a value from the data (I4).

use std::io::ErrorKind;

use sqlx::sqlite::SqliteError;

use crate::keyring::KeyringError;
use crate::s3::ObjectFault;

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
    /// Somebody took a step on an alert meanwhile.
    #[error("somebody else took a step on this alert meanwhile: look at it again, then decide")]
    StepTaken,
    /// No alert of that fingerprint.
    #[error("there is no such alert")]
    NoAlert,
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
        "this range holds rows for a window that closed at its deadline meanwhile: nothing was committed; processed again, once the day's key is destroyed, its events are late"
    )]
    WindowClosed,
    /// A window's close cannot finish before it has begun.
    #[error("this window is not closing: call begin_close first")]
    NotClosing,
    /// A window that is not closed cannot expire.
    #[error("this window has not closed, so it cannot expire yet")]
    NotClosed,
    /// A cost or limit that no budget can hold.
    #[error("a charge needs at least one day, a cost in rho above zero and limits of zero or more")]
    InvalidCharge,
    /// The question was charged before, but for other days or at another cost: it is another question, and needs another name.
    #[error(
        "this question was charged before for other days or at another cost: nothing was charged; a question's name must hold all that its \
         answer depends on"
    )]
    OtherCharge,
    /// I2: an answer to a question that nobody has paid for.
    #[error("this question was never charged (I2): its answer was not recorded; charge it before noise is drawn")]
    AnswerWithoutCharge,
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
    #[error(
        "the metastore's address must be `sqlite:<path>` with a folder that exists and can be written, or \
         `postgres://<user>@<host>:<port>/<database>`"
    )]
    MetastoreAddress,
    /// The metastore's address has a parameter that would be passed over.
    #[error("the metastore's address has a parameter that is not known; known are: {known}")]
    MetastoreParameter {
        /// Those that are known.
        known: String,
    },
    /// The metastore is on another machine, and its address does not say how the connection is encrypted.
    #[error(
        "the metastore is not on this machine, so its address must say how the connection is encrypted: add `?sslmode=verify-full` (with \
         `&sslrootcert=<file>` for a certificate of your own), or `?sslmode=require`, which does not check who answers, or \
         `?sslmode=disable` if the network between is encrypted by other means"
    )]
    MetastoreUnencrypted,
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
    #[error("file store, {during} `{path}`: {}", of_disk(*kind))]
    File {
        /// What was being done.
        during: &'static str,
        /// Path below the store's root.
        path: String,
        /// Kind of the failure.
        kind: ErrorKind,
    },
    /// A request to the object store failed.
    #[error("file store, {during} `{path}`: {fault}")]
    Object {
        /// What was being done.
        during: &'static str,
        /// Path below the store's root.
        path: String,
        /// What the answer, or its absence, means.
        fault: ObjectFault,
    },
    /// The address or the credentials of an object store cannot be used. Says what to change; never repeats the setting, which may hold a
    /// password.
    #[error("the object store cannot be used: {0}")]
    ObjectStoreSetting(&'static str),
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

/// What a failure of the disk means, and what to do. The operating system's own kinds do not name an I/O error.
#[must_use]
pub fn of_disk(kind: ErrorKind) -> String {
    match kind {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "no space is left; free some or enlarge the disk, then start again: what is committed is safe, nothing half-written counts"
                .to_owned()
        }
        ErrorKind::ReadOnlyFilesystem => "the file system is read-only; mount it for writing, or use another data directory".to_owned(),
        ErrorKind::PermissionDenied => {
            "permission denied; data directory and all in it must belong to the user who runs this".to_owned()
        }
        // Told where it matters by an error of its own; no fault of the disk.
        ErrorKind::NotFound | ErrorKind::AlreadyExists | ErrorKind::NotADirectory | ErrorKind::IsADirectory => kind.to_string(),
        _ => "input/output error; look into the system's log, the disk may be failing, then start again: what is committed is safe"
            .to_owned(),
    }
}

impl StoreError {
    /// Whether the object store was out of reach for a while: nothing was wrong with what was asked, and asking again may help.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        use ObjectFault::{Conflict, Throttled, Unavailable, Unreachable};
        matches!(self, Self::Object { fault: Conflict | Throttled | Unavailable | Unreachable, .. })
    }

    /// Wraps an error of the database: its kind and code, never its text, which may quote values.
    pub(crate) fn database(during: &'static str, error: &sqlx::Error) -> Self {
        let (kind, code) = match error {
            sqlx::Error::Database(e) => {
                let code = e.code().map(std::borrow::Cow::into_owned);
                let of_sqlite = code.as_deref().filter(|_| e.try_downcast_ref::<SqliteError>().is_some()).and_then(of_sqlite);
                let kind = if let Some(kind) = of_sqlite {
                    kind
                } else if e.is_unique_violation() {
                    "a row is there already"
                } else if e.is_check_violation() {
                    "a check of the schema refused a row"
                } else {
                    code.as_deref().map_or("the database refused", refusal)
                };
                (kind, code)
            }
            // What rustls says of a certificate comes as invalid data.
            sqlx::Error::Tls(_) => (NOT_ENCRYPTED, None),
            sqlx::Error::Io(e) if e.kind() == ErrorKind::InvalidData => (NOT_ENCRYPTED, None),
            sqlx::Error::Io(e) if e.kind() == ErrorKind::StorageFull => (DISK_FULL, None),
            sqlx::Error::Io(_) => (IO_FAILED, None),
            sqlx::Error::PoolTimedOut => (
                "no connection came in time: is the database running and not overloaded, or is the disk or another process slow? Start again",
                None,
            ),
            sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => ("the connection is closed", None),
            sqlx::Error::Protocol(_) => ("the connection broke: it may have happened", None),
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

    /// Whether a transaction failed only because of others at the same time. It left nothing, and may be tried again.
    pub(crate) fn is_collision(&self) -> bool {
        // serialization_failure, deadlock_detected
        matches!(self, Self::Database { code: Some(code), .. } if code == "40001" || code == "40P01")
    }
}

const NOT_ENCRYPTED: &str =
    "no encrypted connection: does the server offer TLS, and does `sslrootcert` name who signed its certificate?";

/// What PostgreSQL's code says, and what to do. Codes of SQLite are plain numbers.
fn refusal(code: &str) -> &'static str {
    match code {
        "28P01" | "28000" => "the server refused the user or password: see PGPASSWORD, or the password file",
        "3D000" => "there is no such database: make it, owned by this user",
        "42501" => "this user may not do that: it must own the database's tables",
        "25006" => "the server takes no writes: it is a standby, or set to read only",
        "53100" => "the server's disk is full",
        "53300" => "the server has too many connections",
        "55P03" => "another transaction held its lock for too long: try again",
        "40001" | "40P01" => "another transaction changed the same at once: try again",
        "25P03" => "the transaction waited too long for its client and was undone",
        "57P01" | "57P02" | "57P03" => "the server is stopping or starting: try again",
        _ => "the database refused",
    }
}

const DISK_FULL: &str =
    "no space is left on its disk; free some or enlarge the disk, then start again: what is committed is safe";
const IO_FAILED: &str = "the connection broke, or the files could not be read or written: it may have happened; look whether the server runs, \
     and into the system's log, the disk may be failing; then start again";
const DISK_FAILED: &str =
    "its files could not be read or written; look into the system's log, the disk may be failing, then start again";

/// What SQLite's primary result codes mean where somebody can do something about them (https://sqlite.org/rescode.html).
fn of_sqlite(code: &str) -> Option<&'static str> {
    let code = code.parse::<i32>().ok()?;
    // SQLITE_IOERR_SHMSIZE: the index of the write-ahead log could not grow, for which a full disk is the reason.
    if code == 4874 {
        return Some(DISK_FULL);
    }
    // The low byte of an extended code is the primary one.
    Some(match code & 0xff {
        5 | 6 => {
            "another process has held the database for longer than this one waits; end it, or let it finish, then start again"
        }
        8 => {
            "the database cannot be written: its file system is read-only, or file and folder belong to somebody else, or the file was replaced while it was open"
        }
        10 => DISK_FAILED,
        11 => {
            "the database file is damaged; stop all jobs, keep the file, and restore a copy that is newer than the newest data key"
        }
        13 => DISK_FULL,
        14 => "the database file cannot be opened; its folder must be there and belong to the user who runs this",
        26 => "the file is no database: it was replaced or overwritten; put the right one back",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_of_the_disk_says_what_to_do() {
        for (errno, word) in
            [(28, "no space"), (5, "input/output error"), (30, "read-only"), (13, "permission denied"), (122, "no space")]
        {
            let kind = std::io::Error::from_raw_os_error(errno).kind();
            let text = StoreError::File { during: "writing", path: "people/x.parquet".to_owned(), kind }.to_string();
            assert!(text.contains(word) && text.contains("`people/x.parquet`") && text.contains(';'), "{errno}: {text}");
        }
    }

    #[test]
    fn a_full_disk_is_told_as_one_whichever_of_its_files_sqlite_could_not_make_longer() {
        assert_eq!([of_sqlite("13"), of_sqlite("4874")], [Some(DISK_FULL); 2]);
        // Reading (266) and syncing (1034) do not fail for want of room.
        assert_eq!([of_sqlite("266"), of_sqlite("1034"), of_sqlite("10")], [Some(DISK_FAILED); 3]);
    }
}
