//! A folder of this machine, made durable.
//!
//! `object_store`'s local file system writes atomically but does not sync, so a file it has put may be empty after a power failure. Writing
//! therefore happens here: bytes go to a temporary name, are synced, and take their own name by a rename (or, where nothing may be
//! replaced, by a hard link, which fails if the name is taken); then the folder is synced. A folder's own name stands in its parent, so that
//! one is synced too, up to the root: when the folder is made, and once a process for a folder that is there already, since whoever made
//! it may have been killed before its sync. Reading and listing go through `object_store`, and so do engines that want its interface.
//! Temporary names end in `#` and digits: `object_store` does not list them.

use std::collections::HashSet;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt};

use super::blocking;
use crate::error::StoreError;
use crate::faultpoint::{self, Writing};
use crate::keyring::disk;

/// A folder of this machine.
#[derive(Clone)]
pub(super) struct Local {
    root: PathBuf,
    store: Arc<LocalFileSystem>,
    /// Folders whose names are known to survive a power failure.
    anchored: Arc<Mutex<HashSet<PathBuf>>>,
}

impl Local {
    pub(super) fn open(root: &Path) -> Result<Self, StoreError> {
        let failed = |e: io::Error| file_error("opening the root", "", &e);
        faultpoint::check("file_root").and_then(|()| disk::create_private_folder(root)).map_err(failed)?;
        let root = root.canonicalize().map_err(failed)?;
        disk::sync_names_above(&root).map_err(failed)?;
        let store = LocalFileSystem::new_with_prefix(&root).map_err(|e| object_error("opening the root", "", &e))?;
        Ok(Self { root, store: Arc::new(store), anchored: Arc::default() })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn object_store(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.store) as Arc<dyn ObjectStore>
    }

    pub(super) async fn put(&self, staged: Staged, bytes: Bytes) -> Result<(), StoreError> {
        blocking(move || {
            staged.write(&bytes)?;
            staged.replace()
        })
        .await
    }

    pub(super) async fn put_new(&self, staged: Staged, bytes: Bytes) -> Result<bool, StoreError> {
        blocking(move || {
            staged.write(&bytes)?;
            staged.place_new()
        })
        .await
    }

    pub(super) async fn get(&self, path: &ObjectPath) -> Result<Option<Bytes>, StoreError> {
        faultpoint::check("file_read").map_err(|e| file_error("reading", path.as_ref(), &e))?;
        let read = async { self.store.get(path).await?.bytes().await };
        match read.await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(object_error("reading", path.as_ref(), &e)),
        }
    }

    pub(super) async fn remove(
        &self,
        path: &ObjectPath,
        point: &'static str,
        remove: impl FnOnce(&Path) -> io::Result<()> + Send + 'static,
    ) -> Result<(), StoreError> {
        let target = self.local_path(path)?;
        let path = path.to_string();
        // A folder that is made again is a new name.
        self.anchored.lock().unwrap_or_else(PoisonError::into_inner).retain(|folder| !folder.starts_with(&target));
        blocking(move || {
            let failed = |e: io::Error| file_error("removing", &path, &e);
            match faultpoint::check(point).and_then(|()| remove(&target)) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                other => other.map_err(failed)?,
            }
            // Also where nothing was there: whoever removed it may have been killed before its sync.
            match target.parent().map_or(Ok(()), disk::sync_folder) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
                other => other.map_err(failed),
            }
        })
        .await
    }

    pub(super) async fn list(&self, folder: Option<&ObjectPath>) -> Result<Vec<String>, StoreError> {
        faultpoint::check("file_list").map_err(|e| file_error("listing", folder.map_or("", |f| f.as_ref()), &e))?;
        let found = self.store.list(folder).map_ok(|meta| meta.location.to_string()).try_collect().await;
        found.map_err(|e| object_error("listing", folder.map_or("", |f| f.as_ref()), &e))
    }

    pub(super) async fn count_unfinished(&self, folder: &ObjectPath) -> Result<usize, StoreError> {
        let (folder, path) = (self.local_path(folder)?, folder.to_string());
        blocking(move || {
            let mut folders = vec![folder];
            let mut found = 0;
            while let Some(folder) = folders.pop() {
                let entries = match std::fs::read_dir(&folder) {
                    Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                    other => other.map_err(|e| file_error("listing", &path, &e))?,
                };
                for entry in entries {
                    let entry = entry.map_err(|e| file_error("listing", &path, &e))?;
                    if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                        folders.push(entry.path());
                    } else if entry.file_name().to_string_lossy().contains('#') {
                        found += 1;
                    }
                }
            }
            Ok(found)
        })
        .await
    }

    /// Prepares writing `path` under a temporary name.
    pub(super) fn stage(&self, path: &ObjectPath) -> Result<Staged, StoreError> {
        let target = self.local_path(path)?;
        let folder = target.parent().map_or_else(|| self.root.clone(), Path::to_owned);
        let temporary = folder.join(format!("{}#{}", target.file_name().unwrap_or_default().to_string_lossy(), unique_number()));
        let (root, anchored) = (self.root.clone(), Arc::clone(&self.anchored));
        Ok(Staged { path: path.to_string(), root, anchored, target, folder, temporary })
    }

    fn local_path(&self, path: &ObjectPath) -> Result<PathBuf, StoreError> {
        self.store.path_to_filesystem(path).map_err(|_| StoreError::PathRefused)
    }
}

/// A file on its way: written under a temporary name, removed if it is dropped before it is put in place.
pub(crate) struct Staged {
    path: String,
    root: PathBuf,
    anchored: Arc<Mutex<HashSet<PathBuf>>>,
    target: PathBuf,
    folder: PathBuf,
    temporary: PathBuf,
}

impl Staged {
    /// Creates the temporary file, and the folders above it.
    pub(super) fn create(&self) -> Result<std::fs::File, StoreError> {
        use std::os::unix::fs::OpenOptionsExt;
        faultpoint::check("file_folder").and_then(|()| self.anchor()).map_err(|e| self.failed("creating folders for", &e))?;
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        faultpoint::check("file_create").and_then(|()| options.open(&self.temporary)).map_err(|e| self.failed("creating", &e))
    }

    /// Makes the folders, and makes sure that their names up to the root survive a power failure.
    fn anchor(&self) -> io::Result<()> {
        let known = |folder: &Path| self.anchored.lock().unwrap_or_else(PoisonError::into_inner).contains(folder);
        if self.folder.is_dir() && known(&self.folder) {
            return Ok(());
        }
        disk::create_private_folder(&self.folder)?;
        for folder in self.folder.ancestors().take_while(|folder| folder.starts_with(&self.root) && *folder != self.root) {
            disk::sync_name_of(folder)?;
            self.anchored.lock().unwrap_or_else(PoisonError::into_inner).insert(folder.to_owned());
        }
        Ok(())
    }

    /// Writes and syncs the temporary file.
    fn write(&self, bytes: &[u8]) -> Result<(), StoreError> {
        use std::io::Write;
        let mut file = Writing::new("file_write", self.create()?);
        file.write_all(bytes)
            .and_then(|()| faultpoint::check("file_sync"))
            .and_then(|()| file.into_file().sync_all())
            .map_err(|e| self.failed("writing", &e))
    }

    /// Syncs a temporary file that was written elsewhere and puts it in place. Says how many bytes it has.
    pub(super) fn finish(self, file: BufWriter<Writing>) -> Result<u64, StoreError> {
        let file = file.into_inner().map_err(|e| self.failed("writing", e.error()))?.into_file();
        faultpoint::check("table_sync").and_then(|()| file.sync_all()).map_err(|e| self.failed("writing", &e))?;
        let bytes = file.metadata().map_err(|e| self.failed("writing", &e))?.len();
        self.replace()?;
        Ok(bytes)
    }

    /// Puts the (synced) temporary file in place of whatever is there.
    fn replace(self) -> Result<(), StoreError> {
        faultpoint::check("file_rename")
            .and_then(|()| std::fs::rename(&self.temporary, &self.target))
            .and_then(|()| faultpoint::check("file_folder_sync"))
            .and_then(|()| disk::sync_folder(&self.folder))
            .map_err(|e| self.failed("naming", &e))
    }

    /// Puts the (synced) temporary file in place if nothing is there.
    fn place_new(self) -> Result<bool, StoreError> {
        let placed = match faultpoint::check("file_link").and_then(|()| std::fs::hard_link(&self.temporary, &self.target)) {
            Ok(()) => true,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => false,
            Err(e) => return Err(self.failed("naming", &e)),
        };
        // Also where somebody else was first: what is told to be there must stay there.
        faultpoint::check("file_unlink")
            .and_then(|()| disk::remove_if_there(&self.temporary))
            .and_then(|()| disk::sync_folder(&self.folder))
            .map_err(|e| self.failed("naming", &e))?;
        Ok(placed)
    }

    fn failed(&self, during: &'static str, error: &io::Error) -> StoreError {
        file_error(during, &self.path, error)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // After `replace` and `place_new` there is nothing left to remove.
        drop(disk::remove_if_there(&self.temporary));
    }
}

/// Differs between processes, threads and restarts. A collision is no harm: creating the file fails.
pub(super) fn unique_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let nanoseconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.subsec_nanos());
    let process = u64::from(std::process::id()).wrapping_mul(1_000_003);
    (process ^ u64::from(nanoseconds)).wrapping_shl(20) | (NEXT.fetch_add(1, Ordering::Relaxed) & 0xf_ffff)
}

pub(crate) fn file_error(during: &'static str, path: &str, error: &io::Error) -> StoreError {
    StoreError::File { during, path: path.to_owned(), kind: error.kind() }
}

fn object_error(during: &'static str, path: &str, error: &object_store::Error) -> StoreError {
    StoreError::File { during, path: path.to_owned(), kind: io_kind(error).unwrap_or(io::ErrorKind::Other) }
}

pub(super) fn io_kind(error: &object_store::Error) -> Option<io::ErrorKind> {
    let mut kind = None;
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(e) = cause {
        kind = e.downcast_ref::<io::Error>().map(io::Error::kind).or(kind);
        cause = e.source();
    }
    kind
}

#[cfg(test)]
mod tests {
    //! What is particular to this machine. What holds wherever files are stands in `tests/both_stores`.

    use super::*;
    use crate::Files;
    use std::os::unix::fs::PermissionsExt;

    fn open() -> (tempfile::TempDir, Files, PathBuf) {
        let dir = tempfile::tempdir().expect("tempdir");
        let files = Files::open_local(&dir.path().join("files")).expect("opens");
        let root = files.local_root().expect("local").to_owned();
        (dir, files, root)
    }

    #[tokio::test]
    async fn a_folder_goes_with_what_a_killed_process_left_in_it() {
        let (_dir, files, root) = open();
        files.put("day/one", Bytes::from_static(b"1")).await.expect("puts");
        std::fs::write(root.join("day").join("two#17"), b"half").expect("writes");
        assert_eq!(files.count_unfinished("day").await.expect("counts"), 1);
        files.delete_folder("day").await.expect("deletes");
        assert!(!root.join("day").exists());
        files.put("day/one", Bytes::from_static(b"1")).await.expect("the folder is made again");
        assert_eq!(files.list("").await.expect("lists"), ["day/one"]);
    }

    #[tokio::test]
    async fn put_new_leaves_no_temporary_file() {
        let (_dir, files, root) = open();
        assert!(files.put_new("one", Bytes::from_static(b"1")).await.expect("puts"));
        assert!(!files.put_new("one", Bytes::from_static(b"2")).await.expect("puts not"));
        assert_eq!(std::fs::read_dir(root).expect("lists").count(), 1);
    }

    #[tokio::test]
    async fn folders_are_0700_and_files_0600() {
        let (_dir, files, root) = open();
        files.put("deep/er/file", Bytes::from_static(b"x")).await.expect("puts");
        let mode = |path: &str| std::fs::metadata(root.join(path)).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(""), mode("deep"), mode("deep/er"), mode("deep/er/file")), (0o700, 0o700, 0o700, 0o600));
    }

    #[tokio::test]
    async fn a_file_that_was_not_finished_leaves_nothing() {
        let (_dir, files, root) = open();
        let draft = files.draft("half").await.expect("begins");
        assert!(files.list("").await.expect("lists").is_empty());
        assert_eq!(std::fs::read_dir(&root).expect("lists").count(), 1, "there is a temporary file");
        drop(draft);
        assert_eq!(std::fs::read_dir(&root).expect("lists").count(), 0);
    }
}
