//! The private folder in which runs of a large merge lie.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;

use starling_store::faultpoint;
use tempfile::TempDir;

use crate::AggregateError;

/// Names of the folders made here begin so; a sweep removes nothing else.
const PREFIX: &str = "runs-";

/// A locked folder of one merge. Dropping it removes the folder and all that is in it.
///
/// The lock is one file of the parent folder, held for as long as this value lives and let go by the system when the process dies. Whoever
/// holds it may take every other runs folder for a dead process's, so [`Spill::open`] removes them.
pub(crate) struct Spill {
    folder: TempDir,
    _lock: File,
}

impl Spill {
    /// Locks `parent`, made with mode 0700 where missing, removes what dead processes left, and makes a folder with mode 0700.
    pub(crate) fn open(parent: &Path) -> Result<Self, AggregateError> {
        let failed = |during| move |e: io::Error| AggregateError::Spill { path: parent.to_owned(), during, kind: e.kind() };
        faultpoint::check("spill_folder").and_then(|()| private_folder(parent)).map_err(failed("created"))?;
        let lock =
            OpenOptions::new().create(true).truncate(false).write(true).open(parent.join("lock")).map_err(failed("locked"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(AggregateError::SpillInUse { path: parent.to_owned() }),
            Err(TryLockError::Error(e)) => return Err(failed("locked")(e)),
        }
        for entry in std::fs::read_dir(parent).map_err(failed("listed"))? {
            let entry = entry.map_err(failed("listed"))?;
            if entry.file_name().to_string_lossy().starts_with(PREFIX) {
                std::fs::remove_dir_all(entry.path()).map_err(failed("swept"))?;
            }
        }
        let mut builder = tempfile::Builder::new();
        builder.prefix(PREFIX);
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700));
        let folder = builder.tempdir_in(parent).map_err(failed("created"))?;
        Ok(Self { folder, _lock: lock })
    }

    /// A failure in it.
    pub(crate) fn failed(&self, during: &'static str, error: &io::Error) -> AggregateError {
        AggregateError::Spill { path: self.path().to_owned(), during, kind: error.kind() }
    }

    /// The folder of this merge.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Removes what dead processes left below `parent`, unless a close is at work there.
    pub(crate) fn sweep(parent: &Path) -> Result<(), AggregateError> {
        if !parent.is_dir() {
            return Ok(());
        }
        match Self::open(parent) {
            Ok(_) | Err(AggregateError::SpillInUse { .. }) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Runs folders below `parent`.
    #[cfg(test)]
    pub(crate) fn left_below(parent: &Path) -> Vec<std::path::PathBuf> {
        let Ok(entries) = std::fs::read_dir(parent) else { return Vec::new() };
        entries.map(|e| e.expect("entry").path()).filter(|p| p.is_dir()).collect()
    }
}

fn private_folder(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runs_folder_is_private_and_goes_with_its_merge() {
        let root = tempfile::tempdir().expect("folder");
        let parent = root.path().join("spill");
        let spill = Spill::open(&parent).expect("opens");
        #[cfg(unix)]
        for path in [parent.as_path(), spill.path()] {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(path).expect("there").permissions().mode() & 0o777, 0o700);
        }
        std::fs::write(spill.path().join("run"), b"x").expect("writes");
        drop(spill);
        assert!(Spill::left_below(&parent).is_empty());
    }

    #[test]
    fn a_dead_process_s_runs_are_swept_and_a_living_one_s_are_not() {
        let root = tempfile::tempdir().expect("folder");
        let dead = root.path().join("runs-dead");
        std::fs::create_dir(&dead).expect("creates");
        std::fs::write(dead.join("run"), b"x").expect("writes");
        let living = Spill::open(root.path()).expect("opens");
        assert!(!dead.exists());
        assert!(matches!(Spill::open(root.path()), Err(AggregateError::SpillInUse { .. })));
        Spill::sweep(root.path()).expect("leaves it alone");
        assert!(living.path().exists());
    }
}
