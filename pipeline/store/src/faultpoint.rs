//! Places where a test lets a write, a read or a transaction fail, as a full or failing disk would.
//!
//! A debug build that finds `STARLING_FAIL_AT=<name>=<errno>` in its environment fails at that point the first time;
//! `<name>:<n>=<errno>` the n-th time (from 1), `<name>:<n>:<count>=<errno>` that time and those that follow, `count` in all, or `*` for
//! ever. `<errno>` is `ENOSPC`, `EIO`, `EROFS` or `EACCES`, or `HANG`: then it stops there for ever, with all it holds. Each failure is told on standard error, so that a test knows that its point
//! was reached. A release build has no fault points.
//!
//! ```text
//!  file_write:3=EIO                       the third write of a file fails once, with half of its bytes written
//!  commit planning a range:1:*=ENOSPC     no range can be planned any more
//!  committed planning a range=EIO         the first range is planned, but its owner is told that this failed
//! ```
//!
//! Two families: [`FILES`], a point before each operation on files and keys; and, for each of [`TRANSACTIONS`], the points `begin`
//! (before anything), `commit` (everything asked for, nothing kept) and `committed` (kept, and the answer lost).

use std::fs::File;
use std::io::{self, Write};

/// Points on files and keys, in the order in which an event meets them.
pub const FILES: &[&str] = &[
    // The file store's folder, its files, and what they hold.
    "file_root",
    "file_folder",
    "file_create",
    "file_write",
    "file_sync",
    "file_rename",
    "file_link",
    "file_unlink",
    "file_folder_sync",
    "file_list",
    "file_read",
    "file_remove",
    "file_remove_folder",
    // Tables: person rows, and the runs of a merge that is too wide to be done at once.
    "table_write",
    "table_sync",
    "table_read",
    "spill_folder",
    "spill_run",
    // Keys.
    "key_folder",
    "key_list",
    "key_create",
    "key_write",
    "key_sync",
    "key_link",
    "key_folder_sync",
    "key_unlink",
    "key_read",
    "tombstone_read",
    "tombstone_link",
    "key_overwrite",
];

/// What the metastore's transactions are for. Each has the points `begin`, `commit` and `committed`.
pub const TRANSACTIONS: &[&str] = &[
    "taking ownership of a partition",
    "taking an integrity part",
    "planning a range",
    "committing a range",
    "committing an integrity part",
    "noting a partition's end",
    "turning hours on or off",
    "putting lists of groups in force",
    "beginning to close a window",
    "finishing the close of a window",
    "gathering segments",
    "noting swept segments",
    "appending to the audit log",
    "charging a budget",
    "recording a release",
    "recording an answer",
    "expiring a window",
    "marking an alert published",
    "taking a step on an alert",
    "silencing a rule",
    "ending a silence",
    "demoting a rule",
    "restoring a rule",
    "erasing kept findings",
    "erasing businesses that are silent",
    "holding an integrity part",
    "committing findings",
    "adding accounts of doors",
    "erasing accounts",
    "taking the sending of alerts",
    "keeping the sending of alerts",
    "queueing deliveries",
    "noting a delivery",
    "sending deliveries again",
    "keeping a topic's id",
    "noting a partition's log",
    "accepting a loss",
    // The doctor's.
    "trying to write",
];

/// The points of a transaction.
pub const STEPS: &[&str] = &["begin", "commit", "committed"];

/// Fails if a test asked for it; see the module's text.
///
/// # Errors
/// The error that was asked for.
#[inline]
pub fn check(name: &'static str) -> io::Result<()> {
    #[cfg(debug_assertions)]
    return asked::check("", name);
    #[cfg(not(debug_assertions))]
    {
        let _ = name;
        Ok(())
    }
}

/// The same for a step of a transaction.
///
/// # Errors
/// The error that was asked for.
#[inline]
pub(crate) fn check_step(step: &'static str, during: &'static str) -> io::Result<()> {
    #[cfg(debug_assertions)]
    return {
        debug_assert!(TRANSACTIONS.contains(&during), "name it in TRANSACTIONS, or no test fails it: {during}");
        asked::check(step, during)
    };
    #[cfg(not(debug_assertions))]
    {
        let _ = (step, during);
        Ok(())
    }
}

/// A file each of whose writes may be made to fail, half done.
pub struct Writing {
    name: &'static str,
    file: File,
}

impl Writing {
    /// Writes to `file` pass the point `name`.
    #[must_use]
    pub fn new(name: &'static str, file: File) -> Self {
        Self { name, file }
    }

    /// The file.
    #[must_use]
    pub fn into_file(self) -> File {
        self.file
    }
}

impl Write for Writing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Err(error) = check(self.name) {
            let _ = self.file.write_all(bytes.get(..bytes.len() / 2).unwrap_or_default());
            return Err(error);
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(debug_assertions)]
mod asked {
    use std::io;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// No error's number.
    const HANG: i32 = -1;

    /// What a test asked for.
    #[derive(Debug, PartialEq, Eq)]
    pub(super) struct Fault {
        /// A point's name, after its step where it is a transaction's.
        point: String,
        first: u64,
        count: u64,
        errno: i32,
    }

    impl Fault {
        /// `None` for what is not of the form that the module's text gives.
        pub(super) fn parse(text: &str) -> Option<Self> {
            let (place, errno) = text.rsplit_once('=')?;
            // The numbers are those of Linux, macOS and the BSDs alike.
            let errno = match errno {
                "HANG" => HANG,
                "EIO" => 5,
                "EACCES" => 13,
                "ENOSPC" => 28,
                "EROFS" => 30,
                _ => return None,
            };
            let mut parts = place.split(':');
            let point = parts.next().filter(|p| !p.is_empty())?.to_owned();
            let first = parts.next().map_or(Some(1), |n| n.parse().ok().filter(|n| *n > 0))?;
            let count = parts.next().map_or(Some(1), |n| if n == "*" { Some(u64::MAX) } else { n.parse().ok() })?;
            parts.next().is_none().then_some(Self { point, first, count, errno })
        }

        fn is_at(&self, step: &str, name: &str) -> bool {
            match step {
                "" => self.point == name,
                step => self.point.strip_prefix(step).and_then(|rest| rest.strip_prefix(' ')) == Some(name),
            }
        }

        /// Whether the `time`-th passing fails.
        pub(super) fn is_due(&self, time: u64) -> bool {
            time >= self.first && time - self.first < self.count
        }
    }

    pub(super) fn check(step: &str, name: &str) -> io::Result<()> {
        static ASKED: OnceLock<Option<Fault>> = OnceLock::new();
        static SEEN: AtomicU64 = AtomicU64::new(0);
        let asked = ASKED.get_or_init(|| std::env::var("STARLING_FAIL_AT").ok().and_then(|text| Fault::parse(&text)));
        let Some(fault) = asked.as_ref().filter(|fault| fault.is_at(step, name)) else { return Ok(()) };
        if !fault.is_due(SEEN.fetch_add(1, Ordering::SeqCst) + 1) {
            return Ok(());
        }
        eprintln!("fault point reached: {}", fault.point);
        if fault.errno == HANG {
            loop {
                std::thread::sleep(std::time::Duration::from_secs(1));
            }
        }
        Err(io::Error::from_raw_os_error(fault.errno))
    }
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::asked::Fault;
    use super::*;

    #[test]
    fn a_fault_is_asked_for_by_point_time_count_and_error() {
        let due = |text: &str, times: std::ops::Range<u64>| -> Vec<u64> {
            let fault = Fault::parse(text).expect("understood");
            times.filter(|time| fault.is_due(*time)).collect()
        };
        assert_eq!(due("file_write=EIO", 1..9), [1]);
        assert_eq!(due("file_write:3=ENOSPC", 1..9), [3]);
        assert_eq!(due("file_write:3:2=ENOSPC", 1..9), [3, 4]);
        assert_eq!(due("commit planning a range:7:*=EROFS", 1..9), [7, 8]);
        for wrong in
            ["", "file_write", "file_write=", "file_write=E", "=EIO", "file_write:0=EIO", "file_write:x=EIO", "a:1:2:3=EIO"]
        {
            assert_eq!(Fault::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn names_are_unique() {
        let unique: std::collections::HashSet<_> = FILES.iter().chain(TRANSACTIONS).collect();
        assert_eq!(unique.len(), FILES.len() + TRANSACTIONS.len());
    }

    #[test]
    fn without_the_variable_nothing_fails() {
        check("file_write").expect("nothing was asked for");
        check_step("begin", "planning a range").expect("nothing was asked for");
    }

    #[test]
    #[should_panic(expected = "name it in TRANSACTIONS")]
    fn a_transaction_that_no_test_would_fail_is_found() {
        let _ = check_step("begin", "counting sheep");
    }
}
