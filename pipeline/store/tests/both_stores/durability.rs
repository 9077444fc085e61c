//! Power loss, as far as it can be tried without cutting the power: the system calls of a process that writes, and what would be left if
//! only what was synced were.
//!
//! The model: a file's bytes survive from its `fsync` on; a name (of a file, folder, link, or its absence) survives from the `fsync` of the
//! folder it stands in. When the process says that it is done, nothing below the root, and no folder above it that the process made, may
//! wait for a sync.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use starling_schemas::rows::PERSON_ROWS;
use starling_store::{Files, TableWriter};

/// The variable that makes this executable the process that writes.
pub(crate) const CHILD: &str = "STARLING_TEST_DURABILITY_CHILD";

/// Whether system calls can be watched here.
pub(crate) fn can_trace() -> bool {
    let tried = Command::new("strace").args(["-o", "/dev/null", "true"]).stderr(Stdio::null()).status();
    tried.is_ok_and(|status| status.success())
}

/// Each way of writing and removing, once.
pub(crate) fn child(folder: &Path) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
    runtime.block_on(async {
        // Two folders above the root that are not there yet.
        let files = Files::open_local(&folder.join("data/deep/files")).expect("opens");
        files.put("segments/2026-01-05/a", Bytes::from_static(b"1")).await.expect("puts");
        files.put("segments/2026-01-05/a", Bytes::from_static(b"2")).await.expect("puts");
        assert!(files.put_new("stats/m/a", Bytes::from_static(b"1")).await.expect("puts"));
        assert!(!files.put_new("stats/m/a", Bytes::from_static(b"2")).await.expect("puts not"));
        let key = crate::places::key();
        let mut writer = TableWriter::new(&files, &key, "people/t", Arc::clone(&PERSON_ROWS)).await.expect("begins");
        writer.write(&crate::tables::rows(0, 10)).await.expect("writes");
        writer.finish().await.expect("finishes");
        files.delete("segments/2026-01-05/a").await.expect("deletes");
        files.delete_folder("segments/2026-01-05").await.expect("deletes");
        files.put("segments/2026-01-05/b", Bytes::from_static(b"1")).await.expect("puts");
        // A process was killed after it had made this folder, before it synced: nobody else will.
        files.put("left/by/somebody", Bytes::from_static(b"1")).await.expect("puts");
    });
    ExitCode::SUCCESS
}

/// What waits for a sync.
#[derive(Debug, Default)]
struct Disk {
    /// Files with bytes that are not synced.
    bytes: BTreeSet<PathBuf>,
    /// Names whose folder is not synced.
    names: BTreeSet<PathBuf>,
    /// Bytes that were given their name before they were synced.
    too_early: Vec<PathBuf>,
}

impl Disk {
    fn named(&mut self, from: &Path, to: &Path) {
        if self.bytes.contains(from) {
            self.too_early.push(to.to_owned());
        }
        self.names.insert(to.to_owned());
    }

    /// One line of `strace -f -y`: `123 fsync(7</path>) = 0`.
    fn see(&mut self, line: &str) {
        let Some((call, arguments)) = line.split_once(' ').and_then(|(_, rest)| rest.trim_start().split_once('(')) else {
            return;
        };
        if line.contains(") = -1 ") {
            return;
        }
        let quoted: Vec<PathBuf> = arguments.split('"').skip(1).step_by(2).map(PathBuf::from).collect();
        let open_file =
            || arguments.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map(|(path, _)| PathBuf::from(path));
        match (call, quoted.as_slice()) {
            ("mkdir" | "mkdirat", [path, ..]) => drop(self.names.insert(path.clone())),
            ("open" | "openat", [path, ..]) if arguments.contains("O_CREAT") => {
                self.bytes.insert(path.clone());
                self.names.insert(path.clone());
            }
            ("rename" | "renameat" | "renameat2", [from, to, ..]) => {
                self.named(from, to);
                self.names.insert(from.clone());
            }
            ("link" | "linkat", [from, to, ..]) => self.named(from, to),
            ("unlink" | "unlinkat" | "rmdir", [path, ..]) => {
                // Relative to an open folder, where `remove_dir_all` is at work: its own name goes in the end.
                self.bytes.remove(path);
                if path.is_absolute() {
                    self.names.insert(path.clone());
                }
            }
            ("fsync" | "fdatasync", _) => {
                let Some(path) = open_file() else { return };
                self.bytes.remove(&path);
                self.names.retain(|name| name.parent() != Some(&path));
            }
            _ => {}
        }
    }
}

pub(crate) async fn what_was_put_is_synced_with_every_name_on_its_way() {
    let dir = tempfile::tempdir().expect("dir");
    let folder = dir.path().canonicalize().expect("a folder");
    let log = folder.join("calls");
    let work = folder.join("work");
    std::fs::create_dir_all(work.join("data/deep/files/left/by")).expect("creates");
    // Only the folder left behind is to be found: the rest is made anew.
    let calls = "mkdir,mkdirat,open,openat,rename,renameat,renameat2,link,linkat,unlink,unlinkat,rmdir,fsync,fdatasync";
    let done = Command::new("strace")
        .args(["-f", "-y", "-s", "4096", "-e", &format!("trace={calls}"), "-o"])
        .arg(&log)
        .arg(std::env::current_exe().expect("this executable"))
        .env(CHILD, &work)
        .stdin(Stdio::null())
        .status();
    assert!(done.expect("strace starts").success());

    let mut disk = Disk::default();
    for name in ["data", "data/deep", "data/deep/files/left", "data/deep/files/left/by"] {
        disk.names.insert(work.join(name));
    }
    disk.names.insert(work.join("data/deep/files"));
    let text = std::fs::read_to_string(&log).expect("a log");
    // A call that another thread interrupts is written in two lines.
    let mut begun: std::collections::BTreeMap<&str, String> = std::collections::BTreeMap::new();
    for line in text.lines() {
        let process = line.split(' ').next().unwrap_or_default();
        if let Some(start) = line.strip_suffix(" <unfinished ...>") {
            begun.insert(process, start.to_owned());
        } else if let Some((_, end)) = line.split_once(" resumed>") {
            disk.see(&format!("{}{end}", begun.remove(process).unwrap_or_default()));
        } else {
            disk.see(line);
        }
    }
    let ours = |paths: &BTreeSet<PathBuf>| paths.iter().filter(|p| p.starts_with(&work)).cloned().collect::<Vec<_>>();
    assert_eq!(disk.too_early, Vec::<PathBuf>::new(), "named before they were synced");
    assert_eq!(ours(&disk.bytes), Vec::<PathBuf>::new(), "bytes that a power failure takes");
    let waiting = ours(&disk.names);
    assert_eq!(waiting, Vec::<PathBuf>::new(), "names that a power failure takes or brings back");
    assert!(text.matches("fsync").count() > 20, "something was seen");
}
