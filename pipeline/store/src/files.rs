//! Files at rest: in a local folder, made durable, or on S3.
//!
//! ```text
//!                     Files: put · put_new · get · delete · delete_folder · list · check
//!                       │                                       │
//!                     Local (its essay in `local`)             S3 (its essay in `s3`)
//!       temporary name → sync → own name → sync folder    a request each; the server makes it durable
//! ```
//!
//! Runs of a merge and whatever else spills stay in local folders, wherever the files are.

mod local;

use std::io::{self, BufWriter};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use object_store::ObjectStore;
use object_store::path::Path as ObjectPath;

use crate::error::StoreError;
use crate::faultpoint::Writing;
use crate::s3::{ObjectFault, S3, S3Settings, Upload};

pub(crate) use local::file_error;
use local::{Local, Staged, io_kind, unique_number};

/// The file store of one deployment. Cheap to clone.
#[derive(Clone)]
pub struct Files {
    place: Place,
}

/// Where the files are.
#[derive(Clone)]
enum Place {
    Local(Local),
    S3(Arc<S3>),
}

/// Folder of [`Files::check`]'s files.
const PROBE_FOLDER: &str = "probe";

impl Files {
    /// Opens or creates the folder `root`, for its owner only.
    ///
    /// # Errors
    /// [`StoreError::File`] when the folder cannot be made or read.
    pub fn open_local(root: &Path) -> Result<Self, StoreError> {
        Ok(Self { place: Place::Local(Local::open(root)?) })
    }

    /// A bucket of S3 or of a server like it. Nothing is asked of it yet: [`Self::check`] does that.
    /// Its connections are made and looked at on the runtime this is called on, whoever reads or writes by them; where it is called on none, on that of
    /// whoever does.
    ///
    /// # Errors
    /// [`StoreError::ObjectStoreSetting`].
    pub fn open_s3(settings: &S3Settings) -> Result<Self, StoreError> {
        Ok(Self { place: Place::S3(Arc::new(S3::open(settings)?)) })
    }

    /// Writes a file, replacing what was there. When it returns, the file survives a power failure; until then the old one does.
    ///
    /// # Errors
    /// [`StoreError::PathRefused`], [`StoreError::File`], [`StoreError::Object`].
    pub async fn put(&self, path: &str, bytes: Bytes) -> Result<(), StoreError> {
        let object = object_path(path)?;
        match &self.place {
            Place::Local(local) => local.put(local.stage(&object)?, bytes).await,
            Place::S3(s3) => s3.put(&object, bytes).await,
        }
    }

    /// Writes a file that must not be there yet. `false`: it was, and is unchanged. Durable like [`Self::put`].
    ///
    /// After an error the file may be there: the next call says `false`, and what is there is what counts.
    ///
    /// # Errors
    /// [`StoreError::PathRefused`], [`StoreError::File`]; [`StoreError::Object`], also for a server that would replace the file (I3).
    pub async fn put_new(&self, path: &str, bytes: Bytes) -> Result<bool, StoreError> {
        let object = object_path(path)?;
        if let Place::S3(s3) = &self.place {
            s3.creates_once(self.check()).await?;
        }
        self.create(&object, bytes).await
    }

    async fn create(&self, object: &ObjectPath, bytes: Bytes) -> Result<bool, StoreError> {
        match &self.place {
            Place::Local(local) => local.put_new(local.stage(object)?, bytes).await,
            Place::S3(s3) => s3.create(object, bytes).await,
        }
    }

    /// Reads a whole file. `None`: it is not there.
    ///
    /// # Errors
    /// [`StoreError::PathRefused`], [`StoreError::File`], [`StoreError::Object`].
    pub async fn get(&self, path: &str) -> Result<Option<Bytes>, StoreError> {
        let object = object_path(path)?;
        match &self.place {
            Place::Local(local) => local.get(&object).await,
            Place::S3(s3) => s3.get(&object).await,
        }
    }

    /// Removes a file; one that is not there is fine. Durable when it returns.
    ///
    /// # Errors
    /// [`StoreError::PathRefused`], [`StoreError::File`], [`StoreError::Object`].
    pub async fn delete(&self, path: &str) -> Result<(), StoreError> {
        let object = object_path(path)?;
        match &self.place {
            Place::Local(local) => local.remove(&object, "file_remove", |target| std::fs::remove_file(target)).await,
            Place::S3(s3) => s3.delete(&object).await,
        }
    }

    /// Removes a folder with all that is in it, also what a killed process left half written there, which no list shows. One that is not
    /// there is fine. Durable when it returns.
    ///
    /// # Errors
    /// [`StoreError::PathRefused`], [`StoreError::File`], [`StoreError::Object`].
    pub async fn delete_folder(&self, path: &str) -> Result<(), StoreError> {
        let object = object_path(path.trim_end_matches('/'))?;
        match &self.place {
            Place::Local(local) => local.remove(&object, "file_remove_folder", |target| std::fs::remove_dir_all(target)).await,
            Place::S3(s3) => s3.delete_folder(&object).await,
        }
    }

    /// The paths below the folder `prefix` (`""`: all), sorted.
    ///
    /// # Errors
    /// [`StoreError::PathRefused`], [`StoreError::File`], [`StoreError::Object`].
    pub async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let prefix = prefix.trim_end_matches('/');
        let folder = if prefix.is_empty() { None } else { Some(object_path(prefix)?) };
        let mut paths = match &self.place {
            Place::Local(local) => local.list(folder.as_ref()).await?,
            Place::S3(s3) => s3.list(folder.as_ref()).await?,
        };
        paths.sort_unstable();
        Ok(paths)
    }

    /// Tries what Starling asks of a file store, with a small file of its own: to create it once and only once, and to read, list and
    /// remove it.
    ///
    /// # Errors
    /// [`StoreError::File`], [`StoreError::Object`]: what is wrong, and what to do.
    pub async fn check(&self) -> Result<(), StoreError> {
        let path = format!("{PROBE_FOLDER}/{}", unique_number());
        let object = object_path(&path)?;
        let found = self.probe(&object).await;
        // A server that does not answer is not asked again.
        if let Err(StoreError::Object { fault: ObjectFault::NotOnce | ObjectFault::Inconsistent, .. }) = &found {
            drop(self.delete(&path).await);
        }
        found?;
        self.delete(&path).await?;
        self.expect(self.get(&path).await?.is_none(), &object, ObjectFault::Inconsistent)
    }

    async fn probe(&self, object: &ObjectPath) -> Result<(), StoreError> {
        let (first, second) = (Bytes::from_static(b"first"), Bytes::from_static(b"second"));
        // A server that knows conditional writes to be unknown to it says so; one that does not know shows it by the second.
        let once = |error| match error {
            StoreError::Object { during, path, fault: ObjectFault::Unsupported } => {
                StoreError::Object { during, path, fault: ObjectFault::NotOnce }
            }
            other => other,
        };
        self.expect(self.create(object, first.clone()).await.map_err(once)?, object, ObjectFault::Inconsistent)?;
        self.expect(!self.create(object, second).await.map_err(once)?, object, ObjectFault::NotOnce)?;
        let read = self.get(object.as_ref()).await?;
        self.expect(read.as_ref() == Some(&first), object, ObjectFault::NotOnce)?;
        let listed = self.list(PROBE_FOLDER).await?;
        self.expect(listed.iter().any(|path| path == object.as_ref()), object, ObjectFault::Inconsistent)
    }

    fn expect(&self, good: bool, object: &ObjectPath, fault: ObjectFault) -> Result<(), StoreError> {
        let bad = || StoreError::Object { during: "checking", path: object.to_string(), fault };
        if good { Ok(()) } else { Err(bad()) }
    }

    /// The same files for engines that read through `object_store`. What is written through it is not synced.
    #[must_use]
    pub fn object_store(&self) -> Arc<dyn ObjectStore> {
        match &self.place {
            Place::Local(local) => local.object_store(),
            Place::S3(s3) => s3.object_store(),
        }
    }

    /// The folder, absolute, where the files are on this machine. For tests and for people; rooms do not ask where files are.
    #[must_use]
    pub fn local_root(&self) -> Option<&Path> {
        match &self.place {
            Place::Local(local) => Some(local.root()),
            Place::S3(_) => None,
        }
    }

    /// Requests sent to the object store since it was opened, each attempt counted. None on this machine.
    #[must_use]
    pub fn requests(&self) -> u64 {
        match &self.place {
            Place::Local(_) => 0,
            Place::S3(s3) => s3.requests(),
        }
    }

    /// How many files below a folder somebody began to write and has not finished: one at work now, or one that was killed.
    ///
    /// # Errors
    /// [`StoreError::PathRefused`], [`StoreError::File`], [`StoreError::Object`].
    pub async fn count_unfinished(&self, folder: &str) -> Result<usize, StoreError> {
        let object = object_path(folder.trim_end_matches('/'))?;
        match &self.place {
            Place::Local(local) => local.count_unfinished(&object).await,
            Place::S3(s3) => s3.count_unfinished(&object).await,
        }
    }

    /// Begins a file that is written piece by piece.
    pub(crate) async fn draft(&self, path: &str) -> Result<Draft, StoreError> {
        let object = object_path(path)?;
        match &self.place {
            Place::Local(local) => {
                let staged = local.stage(&object)?;
                blocking(move || {
                    let file = Writing::new("table_write", staged.create()?);
                    Ok(Draft::Local(BufWriter::with_capacity(1 << 20, file), staged))
                })
                .await
            }
            Place::S3(s3) => Ok(Draft::S3(Upload::begin(s3, &object))),
        }
    }

    /// What a failure of reading a table through [`Self::object_store`] means. A file that ends too early is a damaged table.
    pub(crate) fn failed(&self, during: &'static str, path: &str, error: &object_store::Error) -> StoreError {
        let path = path.to_owned();
        if matches!(error, object_store::Error::NotFound { .. }) {
            return StoreError::FileMissing { path };
        }
        match &self.place {
            Place::Local(_) => match io_kind(error) {
                None | Some(io::ErrorKind::UnexpectedEof) => StoreError::TableUnreadable { path },
                Some(kind) => StoreError::File { during, path, kind },
            },
            Place::S3(_) => match ObjectFault::of(error) {
                ObjectFault::NoSuchRange => StoreError::TableUnreadable { path },
                fault => StoreError::Object { during, path, fault },
            },
        }
    }
}

/// A file that is written piece by piece, and there only when it is finished: on this machine under a temporary name, on S3 as an upload.
pub(crate) enum Draft {
    Local(BufWriter<Writing>, Staged),
    S3(Upload),
}

impl io::Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Local(file, _) => file.write(bytes),
            Self::S3(upload) => upload.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Local(file, _) => file.flush(),
            Self::S3(upload) => upload.flush(),
        }
    }
}

impl Draft {
    /// Sends what has been written, where writing alone does not do that.
    pub(crate) async fn send(&mut self) -> Result<(), StoreError> {
        match self {
            Self::Local(..) => Ok(()),
            Self::S3(upload) => upload.send().await,
        }
    }

    /// Puts the file in place, durable, replacing what was there. Says how many bytes it has.
    pub(crate) async fn finish(self) -> Result<u64, StoreError> {
        match self {
            Self::Local(file, staged) => blocking(move || staged.finish(file)).await,
            Self::S3(upload) => upload.finish().await,
        }
    }
}

/// Runs file work where it may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| StoreError::Cancelled)?
}

pub(crate) fn object_path(path: &str) -> Result<ObjectPath, StoreError> {
    let parsed = ObjectPath::parse(path).map_err(|_| StoreError::PathRefused)?;
    // A `#` could hide a file from listings; a path that is written in another way than it parses could name one file twice.
    (!path.is_empty() && parsed.as_ref() == path && !path.contains('#')).then_some(parsed).ok_or(StoreError::PathRefused)
}
