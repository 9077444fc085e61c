//! Files at rest: an object store over a local folder, made durable.
//!
//! `object_store`'s local file system writes atomically but does not sync, so a file it has put may be empty after a power failure. Writing
//! therefore happens here: bytes go to a temporary name, are synced, and take their own name by a rename (or, where nothing may be
//! replaced, by a hard link, which fails if the name is taken); then the folder is synced. Reading and listing go through `object_store`,
//! and so do engines that want its interface. Temporary names end in `#` and digits: `object_store` does not list them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::error::StoreError;
use crate::keyring::disk;

/// The file store of one deployment. Cheap to clone.
#[derive(Clone)]
pub struct Files {
    root: PathBuf,
    store: Arc<LocalFileSystem>,
}

impl Files {
    /// Opens or creates the folder `root`, for its owner only.
    ///
    /// # Errors
    /// [`StoreError::File`] when the folder cannot be made or read.
    pub fn open_local(root: &Path) -> Result<Self, StoreError> {
        let failed = |e: io::Error| file_error("opening the root", "", &e);
        disk::create_private_folder(root).map_err(failed)?;
        let root = root.canonicalize().map_err(failed)?;
        let store = LocalFileSystem::new_with_prefix(&root).map_err(|e| object_error("opening the root", "", &e))?;
        Ok(Self { root, store: Arc::new(store) })
    }

    /// Writes a file, replacing what was there. When it returns, the file survives a power failure; until then the old one does.
    ///
    /// # Errors
    /// [`StoreError::PathRefused`], [`StoreError::File`].
    pub async fn put(&self, path: &str, bytes: Bytes) -> Result<(), StoreError> {
        let staged = self.stage(path)?;
        blocking(move || {
            staged.write(&bytes)?;
            staged.replace()
        })
        .await
    }

    /// Writes a file that must not be there yet. `false`: it was, and is unchanged. Durable like [`Self::put`].
    ///
    /// # Errors
    /// [`StoreError::PathRefused`], [`StoreError::File`].
    pub async fn put_new(&self, path: &str, bytes: Bytes) -> Result<bool, StoreError> {
        let staged = self.stage(path)?;
        blocking(move || {
            staged.write(&bytes)?;
            staged.place_new()
        })
        .await
    }

    /// Reads a whole file. `None`: it is not there.
    ///
    /// # Errors
    /// [`StoreError::PathRefused`], [`StoreError::File`].
    pub async fn get(&self, path: &str) -> Result<Option<Bytes>, StoreError> {
        match self.store.get(&object_path(path)?).await {
            Ok(found) => found.bytes().await.map(Some).map_err(|e| object_error("reading", path, &e)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(object_error("reading", path, &e)),
        }
    }

    /// Removes a file; one that is not there is fine. Durable when it returns.
    ///
    /// # Errors
    /// [`StoreError::PathRefused`], [`StoreError::File`].
    pub async fn delete(&self, path: &str) -> Result<(), StoreError> {
        let target = self.local_path(&object_path(path)?)?;
        let path = path.to_owned();
        blocking(move || {
            let failed = |e: io::Error| file_error("removing", &path, &e);
            match std::fs::remove_file(&target) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
                other => other.map_err(failed)?,
            }
            target.parent().map_or(Ok(()), disk::sync_folder).map_err(failed)
        })
        .await
    }

    /// Removes a folder with all that is in it, also what a killed process left half written there, which no list shows. One that is not
    /// there is fine. Durable when it returns.
    ///
    /// # Errors
    /// [`StoreError::PathRefused`], [`StoreError::File`].
    pub async fn delete_folder(&self, path: &str) -> Result<(), StoreError> {
        let target = self.local_path(&object_path(path.trim_end_matches('/'))?)?;
        let path = path.to_owned();
        blocking(move || {
            let failed = |e: io::Error| file_error("removing", &path, &e);
            match std::fs::remove_dir_all(&target) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
                other => other.map_err(failed)?,
            }
            target.parent().map_or(Ok(()), disk::sync_folder).map_err(failed)
        })
        .await
    }

    /// The paths below the folder `prefix` (`""`: all), sorted.
    ///
    /// # Errors
    /// [`StoreError::PathRefused`], [`StoreError::File`].
    pub async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let prefix = prefix.trim_end_matches('/');
        let folder = if prefix.is_empty() { None } else { Some(object_path(prefix)?) };
        let mut paths: Vec<String> = self
            .store
            .list(folder.as_ref())
            .map_ok(|meta| meta.location.to_string())
            .try_collect()
            .await
            .map_err(|e| object_error("listing", prefix, &e))?;
        paths.sort_unstable();
        Ok(paths)
    }

    /// The same files for engines that read through `object_store`. What is written through it is not synced.
    #[must_use]
    pub fn object_store(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.store) as Arc<dyn ObjectStore>
    }

    /// The folder, absolute.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Prepares writing `path` under a temporary name.
    pub(crate) fn stage(&self, path: &str) -> Result<Staged, StoreError> {
        let target = self.local_path(&object_path(path)?)?;
        let folder = target.parent().map_or_else(|| self.root.clone(), Path::to_owned);
        let temporary = folder.join(format!("{}#{}", target.file_name().unwrap_or_default().to_string_lossy(), unique_number()));
        Ok(Staged { path: path.to_owned(), target, folder, temporary })
    }

    fn local_path(&self, path: &ObjectPath) -> Result<PathBuf, StoreError> {
        self.store.path_to_filesystem(path).map_err(|_| StoreError::PathRefused)
    }
}

/// A file on its way: written under a temporary name, removed if it is dropped before it is put in place.
pub(crate) struct Staged {
    path: String,
    target: PathBuf,
    folder: PathBuf,
    temporary: PathBuf,
}

impl Staged {
    /// Path below the store's root.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Creates the temporary file, and the folders above it.
    pub(crate) fn create(&self) -> Result<std::fs::File, StoreError> {
        use std::os::unix::fs::OpenOptionsExt;
        disk::create_private_folder(&self.folder).map_err(|e| self.failed("creating folders for", &e))?;
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        options.open(&self.temporary).map_err(|e| self.failed("creating", &e))
    }

    /// Writes and syncs the temporary file.
    fn write(&self, bytes: &[u8]) -> Result<(), StoreError> {
        use std::io::Write;
        let mut file = self.create()?;
        file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|e| self.failed("writing", &e))
    }

    /// Puts the (synced) temporary file in place of whatever is there.
    pub(crate) fn replace(self) -> Result<(), StoreError> {
        std::fs::rename(&self.temporary, &self.target)
            .and_then(|()| disk::sync_folder(&self.folder))
            .map_err(|e| self.failed("naming", &e))
    }

    /// Puts the (synced) temporary file in place if nothing is there.
    fn place_new(self) -> Result<bool, StoreError> {
        let placed = match std::fs::hard_link(&self.temporary, &self.target) {
            Ok(()) => true,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => false,
            Err(e) => return Err(self.failed("naming", &e)),
        };
        // Also where somebody else was first: what is told to be there must stay there.
        disk::remove_if_there(&self.temporary)
            .and_then(|()| disk::sync_folder(&self.folder))
            .map_err(|e| self.failed("naming", &e))?;
        Ok(placed)
    }

    pub(crate) fn failed(&self, during: &'static str, error: &io::Error) -> StoreError {
        file_error(during, &self.path, error)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // After `replace` and `place_new` there is nothing left to remove.
        drop(disk::remove_if_there(&self.temporary));
    }
}

/// Runs file work where it may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| StoreError::Cancelled)?
}

/// Differs between processes, threads and restarts. A collision is no harm: creating the file fails.
fn unique_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let nanoseconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.subsec_nanos());
    let process = u64::from(std::process::id()).wrapping_mul(1_000_003);
    (process ^ u64::from(nanoseconds)).wrapping_shl(20) | (NEXT.fetch_add(1, Ordering::Relaxed) & 0xf_ffff)
}

pub(crate) fn object_path(path: &str) -> Result<ObjectPath, StoreError> {
    let parsed = ObjectPath::parse(path).map_err(|_| StoreError::PathRefused)?;
    // A `#` could hide a file from listings; a path that is written in another way than it parses could name one file twice.
    (!path.is_empty() && parsed.as_ref() == path && !path.contains('#')).then_some(parsed).ok_or(StoreError::PathRefused)
}

fn file_error(during: &'static str, path: &str, error: &io::Error) -> StoreError {
    StoreError::File { during, path: path.to_owned(), kind: error.kind() }
}

fn object_error(during: &'static str, path: &str, error: &object_store::Error) -> StoreError {
    let mut kind = io::ErrorKind::Other;
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(e) = cause {
        if let Some(io) = e.downcast_ref::<io::Error>() {
            kind = io.kind();
        }
        cause = e.source();
    }
    StoreError::File { during, path: path.to_owned(), kind }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn open() -> (tempfile::TempDir, Files) {
        let dir = tempfile::tempdir().expect("tempdir");
        let files = Files::open_local(&dir.path().join("files")).expect("opens");
        (dir, files)
    }

    #[tokio::test]
    async fn a_file_is_replaced_read_listed_and_removed() {
        let (_dir, files) = open();
        files.put("b/c/2.bin", Bytes::from_static(b"one")).await.expect("puts");
        files.put("b/c/2.bin", Bytes::from_static(b"two")).await.expect("puts");
        files.put("a.bin", Bytes::new()).await.expect("puts");
        assert_eq!(files.get("b/c/2.bin").await.expect("gets").as_deref(), Some(b"two".as_slice()));
        assert_eq!(files.list("").await.expect("lists"), ["a.bin", "b/c/2.bin"]);
        assert_eq!(files.list("b/").await.expect("lists"), ["b/c/2.bin"]);
        assert!(files.list("nothing").await.expect("lists").is_empty());
        files.delete("b/c/2.bin").await.expect("deletes");
        files.delete("b/c/2.bin").await.expect("deletes again");
        files.delete("never/there").await.expect("deletes nothing");
        assert_eq!(files.get("b/c/2.bin").await.expect("gets"), None);
    }

    #[tokio::test]
    async fn a_folder_goes_with_what_a_killed_process_left_in_it() {
        let (_dir, files) = open();
        files.put("day/one", Bytes::from_static(b"1")).await.expect("puts");
        files.put("daylight", Bytes::from_static(b"2")).await.expect("puts");
        std::fs::write(files.root().join("day").join("two#17"), b"half").expect("writes");
        for _ in 0..2 {
            files.delete_folder("day").await.expect("deletes, also what is gone");
        }
        assert!(!files.root().join("day").exists());
        assert_eq!(files.list("").await.expect("lists"), ["daylight"]);
    }

    #[tokio::test]
    async fn put_new_keeps_the_first_bytes() {
        let (_dir, files) = open();
        let puts = (0..8_u8).map(|i| {
            let files = files.clone();
            tokio::spawn(async move { files.put_new("one", Bytes::from(vec![i])).await.expect("puts") })
        });
        let placed: Vec<bool> = futures::future::join_all(puts).await.into_iter().map(|r| r.expect("joins")).collect();
        assert_eq!(placed.iter().filter(|p| **p).count(), 1);
        let winner = placed.iter().position(|p| *p).expect("one");
        assert_eq!(files.get("one").await.expect("gets").expect("there").as_ref(), [u8::try_from(winner).expect("small")]);
        assert_eq!(std::fs::read_dir(files.root()).expect("lists").count(), 1, "no temporary file is left");
    }

    #[tokio::test]
    async fn folders_are_0700_and_files_0600() {
        let (_dir, files) = open();
        files.put("deep/er/file", Bytes::from_static(b"x")).await.expect("puts");
        let mode = |path: &str| std::fs::metadata(files.root().join(path)).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(""), mode("deep"), mode("deep/er"), mode("deep/er/file")), (0o700, 0o700, 0o700, 0o600));
    }

    #[tokio::test]
    async fn a_path_that_leads_elsewhere_is_refused() {
        let (_dir, files) = open();
        for path in ["", "../x", "a/../../x", "/etc/passwd", "a//b", "a/", "x#12", "."] {
            assert!(matches!(files.put(path, Bytes::new()).await, Err(StoreError::PathRefused)), "{path}");
            assert!(matches!(files.get(path).await, Err(StoreError::PathRefused)), "{path}");
        }
    }

    #[tokio::test]
    async fn a_file_that_was_not_finished_leaves_nothing() {
        let (_dir, files) = open();
        let staged = files.stage("half").expect("stages");
        drop(staged.create().expect("creates"));
        assert!(files.list("").await.expect("lists").is_empty());
        drop(staged);
        assert_eq!(std::fs::read_dir(files.root()).expect("lists").count(), 0);
    }
}
