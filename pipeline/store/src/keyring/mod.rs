//! A directory of keys: what lives and dies (design 3.4).
//!
//! ```text
//!  keyring/                                        0700
//!    analytics_day.2026-01-05.pseudonym.key        0600   32 random bytes
//!    analytics_day.2026-01-04.pseudonym.destroyed  0600   when, in milliseconds: a tombstone
//!    .analytics_day.2026-01-05.data.3fa9….tmp      0600   being written; never read
//! ```
//!
//! A key is fresh random, never derived from another, and belongs in no backup: the folder stands apart from metastore and files so that it
//! can be left out of both.
//!
//! **Created once.** Bytes are written to a temporary file, synced, and hard-linked under the key's name. A link fails when the name is taken, so
//! of several processes one wins and the others read the winner's key. The name is synced before the key is handed out: what is encrypted
//! under a key never outlives it by a crash.
//!
//! **Destroyed for ever.** The tombstone is made durable first, then the bytes are overwritten and unlinked. Readers look for the tombstone
//! *after* they have read the bytes: if there is none, the bytes were read before anybody began to overwrite them. A creator looks for
//! it after linking, and takes its own key back. So no key comes back after its tombstone stands, whatever happens at the same time;
//! what a crash leaves half done is finished by the next [`Keyring::open`] or [`Keyring::destroy`].

pub(crate) mod disk;
mod id;
mod secret;

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use starling_schemas::time::{Entropy, NoEntropy};

use crate::error::of_disk;
use crate::faultpoint;

pub use id::{KeyId, KeyKind};
pub use secret::{KEY_BYTES, SecretKey};

const KEY_ENDING: &str = ".key";
const TOMBSTONE_ENDING: &str = ".destroyed";
const TEMPORARY_ENDING: &str = ".tmp";
const TEMPORARY_TOMBSTONE_ENDING: &str = ".tombstone";
/// How old a temporary file must be for nobody to be writing it any more.
const ABANDONED_AFTER: Duration = Duration::from_secs(3600);

/// Whether a key can still be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    /// It can.
    Alive,
    /// It cannot, for ever.
    Destroyed {
        /// When its destruction began, milliseconds since 1970-01-01 UTC.
        at_ms: i64,
    },
}

/// Proof that a key is gone; the material of a receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destruction {
    /// The key.
    pub id: KeyId,
    /// When its destruction first began, milliseconds since 1970-01-01 UTC.
    pub at_ms: i64,
    /// Whether this call began it; `false` if the tombstone stood already.
    pub first: bool,
}

/// What can go wrong with keys. No text holds a key's byte.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// The key was destroyed. This is what expiry looks like (I7).
    #[error("expired: the key {0} was destroyed")]
    Destroyed(KeyId),
    /// There is a file under the key's name, but it holds no key.
    #[error("keyring: the file of {0} is damaged; restore nothing from a backup: destroy the key, what it protected is gone")]
    Damaged(KeyId),
    /// A key file can be read by others than its owner.
    #[error("keyring: the file of {0} can be read by others: it must have mode 0600; treat the key as known to them")]
    NotPrivate(KeyId),
    /// The day cannot be written as a date.
    #[error("keyring: the day of a key lies outside the years 0 to 9999")]
    DayOutOfRange,
    /// No randomness for a new key.
    #[error(transparent)]
    NoEntropy(#[from] NoEntropy),
    /// The folder failed.
    #[error("keyring in {path}, {during}: {}", of_disk(*kind))]
    Folder {
        /// The keyring's folder.
        path: PathBuf,
        /// What was being done.
        during: &'static str,
        /// Kind of the failure.
        kind: io::ErrorKind,
    },
}

fn folder_error(folder: &Path, during: &'static str) -> impl Fn(io::Error) -> KeyringError {
    move |e| KeyringError::Folder { path: folder.to_owned(), during, kind: e.kind() }
}

/// The keys of one deployment. Several processes may use the same folder.
pub struct Keyring {
    folder: PathBuf,
    entropy: Arc<dyn Entropy>,
}

impl Keyring {
    /// Opens or creates the folder, takes rights of group and others away from it, and finishes destructions that a crash interrupted.
    ///
    /// # Errors
    /// [`KeyringError::Folder`].
    pub fn open(dir: &Path, entropy: Arc<dyn Entropy>) -> Result<Self, KeyringError> {
        faultpoint::check("key_folder")
            .and_then(|()| disk::create_private_folder(dir))
            .map_err(folder_error(dir, "creating the folder"))?;
        disk::make_private(dir, 0o700).map_err(folder_error(dir, "setting the folder's mode"))?;
        let keyring = Self { folder: dir.to_owned(), entropy };
        let names = keyring.names()?;
        keyring.remove_abandoned(&names)?;
        let bytes_left: std::collections::BTreeSet<KeyId> =
            names.iter().filter_map(|name| key_whose_bytes_are_in(name)).collect();
        for id in bytes_left {
            if keyring.tombstone(id)?.is_some() {
                keyring.finish_destruction(id)?;
            }
        }
        Ok(keyring)
    }

    /// Removes temporary files that a crash or a failing disk left. One that is another name of a key or tombstone has served; one with bytes of
    /// its own was never named, and nobody waits for it after an hour.
    fn remove_abandoned(&self, names: &[String]) -> Result<(), KeyringError> {
        for name in names {
            let is_key = name.ends_with(TEMPORARY_ENDING);
            if !name.starts_with('.') || !(is_key || name.ends_with(TEMPORARY_TOMBSTONE_ENDING)) {
                continue;
            }
            let path = self.folder.join(name);
            let Ok(metadata) = std::fs::metadata(&path) else { continue };
            let has_served = metadata.nlink() > 1;
            let is_old = metadata.modified().is_ok_and(|at| at.elapsed().is_ok_and(|age| age >= ABANDONED_AFTER));
            let removed = match (has_served, is_old) {
                (true, _) => {
                    self.sync("making a key durable")?;
                    disk::remove_if_there(&path)
                }
                (false, true) => disk::shred(&path),
                (false, false) => Ok(()),
            };
            removed.map_err(self.failed("removing a temporary file"))?;
        }
        Ok(())
    }

    /// The key, made now if it never was.
    ///
    /// # Errors
    /// [`KeyringError::Destroyed`] if it was destroyed; the other variants when it cannot be read or made.
    pub fn get_or_create(&self, id: KeyId) -> Result<SecretKey, KeyringError> {
        if let Some(key) = self.get(id)? {
            return Ok(key);
        }
        let fresh = SecretKey::generate(self.entropy.as_ref())?;
        let temporary = self.write_temporary(id, TEMPORARY_ENDING, fresh.expose())?;
        let linked = faultpoint::check("key_link").and_then(|()| std::fs::hard_link(&temporary, self.key_path(id)));
        match linked {
            Ok(()) => {
                self.sync("making a key durable")?;
                faultpoint::check("key_unlink")
                    .and_then(|()| disk::remove_if_there(&temporary))
                    .map_err(self.failed("removing a temporary file"))?;
                if self.tombstone(id)?.is_some() {
                    self.finish_destruction(id)?;
                    return Err(KeyringError::Destroyed(id));
                }
                Ok(fresh)
            }
            // Somebody else made it first; or it was destroyed meanwhile, and the temporary file with it.
            Err(e) if matches!(e.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound) => {
                disk::shred(&temporary).map_err(self.failed("removing a temporary file"))?;
                self.get(id)?.ok_or(KeyringError::Destroyed(id))
            }
            Err(e) => {
                disk::shred(&temporary).map_err(self.failed("removing a temporary file"))?;
                Err(self.failed("naming a key")(e))
            }
        }
    }

    /// The key, if it was ever made.
    ///
    /// # Errors
    /// [`KeyringError::Destroyed`] if it was destroyed; the other variants when it cannot be read.
    pub fn get(&self, id: KeyId) -> Result<Option<SecretKey>, KeyringError> {
        let key = self.read(id);
        // After reading, not before: see the module's text.
        match self.tombstone(id)? {
            Some(_) => Err(KeyringError::Destroyed(id)),
            None => key,
        }
    }

    /// Destroys a key for ever, also one that was never made. May be called again.
    ///
    /// # Errors
    /// [`KeyringError::Folder`]; once the tombstone stands, the key is refused even if overwriting failed.
    pub fn destroy(&self, id: KeyId, now_ms: i64) -> Result<Destruction, KeyringError> {
        check_day(id)?;
        let mut first = false;
        if self.tombstone(id)?.is_none() {
            let temporary = self.write_temporary(id, TEMPORARY_TOMBSTONE_ENDING, now_ms.to_string().as_bytes())?;
            match faultpoint::check("tombstone_link").and_then(|()| std::fs::hard_link(&temporary, self.tombstone_path(id))) {
                Ok(()) => first = true,
                Err(e) if matches!(e.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound) => {}
                Err(e) => {
                    disk::remove_if_there(&temporary).map_err(self.failed("removing a temporary file"))?;
                    return Err(self.failed("writing a tombstone")(e));
                }
            }
            disk::remove_if_there(&temporary).map_err(self.failed("removing a temporary file"))?;
        }
        self.sync("making a tombstone durable")?;
        let at_ms = self.tombstone(id)?.ok_or(KeyringError::Damaged(id))?;
        self.finish_destruction(id)?;
        Ok(Destruction { id, at_ms, first })
    }

    /// Every key there is or was, in order.
    ///
    /// # Errors
    /// [`KeyringError::Folder`].
    pub fn list(&self) -> Result<Vec<(KeyId, KeyState)>, KeyringError> {
        let mut keys = std::collections::BTreeMap::new();
        for name in self.names()? {
            if let Some(id) = name.strip_suffix(TOMBSTONE_ENDING).and_then(KeyId::from_stem) {
                let at_ms = self.tombstone(id)?.unwrap_or_default();
                keys.insert(id, KeyState::Destroyed { at_ms });
            } else if let Some(id) = name.strip_suffix(KEY_ENDING).and_then(KeyId::from_stem) {
                keys.entry(id).or_insert(KeyState::Alive);
            }
        }
        Ok(keys.into_iter().collect())
    }

    /// Every key that is alive, in order. Opens no file: of hours there are many that are not.
    ///
    /// # Errors
    /// [`KeyringError::Folder`].
    pub fn alive(&self) -> Result<Vec<KeyId>, KeyringError> {
        let (mut alive, mut destroyed) = (std::collections::BTreeSet::new(), Vec::new());
        for name in self.names()? {
            if let Some(id) = name.strip_suffix(TOMBSTONE_ENDING).and_then(KeyId::from_stem) {
                destroyed.push(id);
            } else if let Some(id) = name.strip_suffix(KEY_ENDING).and_then(KeyId::from_stem) {
                alive.insert(id);
            }
        }
        destroyed.iter().for_each(|id| {
            alive.remove(id);
        });
        Ok(alive.into_iter().collect())
    }

    /// When a key that is alive was made, in milliseconds since 1970-01-01 UTC by the file's own time; `None` if it is not there.
    ///
    /// # Errors
    /// [`KeyringError::Folder`].
    pub fn created_ms(&self, id: KeyId) -> Result<Option<i64>, KeyringError> {
        let made = match std::fs::metadata(self.key_path(id)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.and_then(|m| m.modified()).map_err(self.failed("looking at a key"))?,
        };
        let since = made.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Ok(Some(i64::try_from(since.as_millis()).unwrap_or(i64::MAX)))
    }

    /// Writes and removes an empty file, as making a key would: whether the folder can be written, and randomness be had.
    ///
    /// # Errors
    /// [`KeyringError::NoEntropy`], [`KeyringError::Folder`].
    pub fn check_writable(&self) -> Result<(), KeyringError> {
        let mut unique = [0_u8; 16];
        self.entropy.fill(&mut unique)?;
        // No key's name begins like this, so nobody takes a leftover for one.
        let path = self.folder.join(format!(".probe.{:032x}{TEMPORARY_ENDING}", u128::from_le_bytes(unique)));
        disk::write_new(&path, &[]).map_err(folder_error(&self.folder, "writing a temporary file"))?;
        disk::remove_if_there(&path).map_err(folder_error(&self.folder, "removing a temporary file"))
    }

    fn read(&self, id: KeyId) -> Result<Option<SecretKey>, KeyringError> {
        check_day(id)?;
        let mut file = match faultpoint::check("key_read").and_then(|()| File::open(self.key_path(id))) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(self.failed("opening a key"))?,
        };
        let metadata = file.metadata().map_err(self.failed("opening a key"))?;
        if metadata.permissions().mode() & 0o077 != 0 {
            return Err(KeyringError::NotPrivate(id));
        }
        if metadata.len() != KEY_BYTES as u64 {
            return Err(KeyringError::Damaged(id));
        }
        let mut key = SecretKey::blank();
        file.read_exact(key.fill_from_file()).map_err(self.failed("reading a key"))?;
        if metadata.nlink() > 1 {
            // Its creator has not yet removed the second name, so perhaps not yet synced the first.
            self.sync("making a key durable")?;
        }
        Ok(Some(key))
    }

    /// When the key's destruction began, if it did.
    fn tombstone(&self, id: KeyId) -> Result<Option<i64>, KeyringError> {
        match faultpoint::check("tombstone_read").and_then(|()| std::fs::read_to_string(self.tombstone_path(id))) {
            // A tombstone that says no time is one all the same.
            Ok(text) => Ok(Some(text.trim().parse().unwrap_or_default())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) if e.kind() == io::ErrorKind::InvalidData => Ok(Some(0)),
            Err(e) => Err(self.failed("looking for a tombstone")(e)),
        }
    }

    /// Overwrites and removes everything under a tombstone: the key, and copies that a crash left in temporary files.
    fn finish_destruction(&self, id: KeyId) -> Result<(), KeyringError> {
        faultpoint::check("key_overwrite")
            .and_then(|()| disk::shred(&self.key_path(id)))
            .map_err(self.failed("overwriting a key"))?;
        let prefix = temporary_prefix(id);
        for name in self.names()? {
            if !name.starts_with(&prefix) {
                continue;
            }
            if name.ends_with(TEMPORARY_ENDING) {
                disk::shred(&self.folder.join(name)).map_err(self.failed("overwriting a key"))?;
            } else if name.ends_with(TEMPORARY_TOMBSTONE_ENDING) {
                // Perhaps a second name of the tombstone itself: it is not overwritten.
                disk::remove_if_there(&self.folder.join(name)).map_err(self.failed("removing a temporary file"))?;
            }
        }
        self.sync("making a destruction durable")
    }

    fn write_temporary(&self, id: KeyId, ending: &str, bytes: &[u8]) -> Result<PathBuf, KeyringError> {
        let mut unique = [0_u8; 16];
        self.entropy.fill(&mut unique)?;
        let path = self.folder.join(format!("{}{:032x}{ending}", temporary_prefix(id), u128::from_le_bytes(unique)));
        if let Err(error) = disk::write_new(&path, bytes) {
            // Half a key is one too many.
            let _ = disk::shred(&path);
            return Err(self.failed("writing a temporary file")(error));
        }
        Ok(path)
    }

    fn names(&self) -> Result<Vec<String>, KeyringError> {
        let failed = self.failed("listing keys");
        let mut names = Vec::new();
        for entry in faultpoint::check("key_list").and_then(|()| std::fs::read_dir(&self.folder)).map_err(&failed)? {
            if let Ok(name) = entry.map_err(&failed)?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn failed(&self, during: &'static str) -> impl Fn(io::Error) -> KeyringError {
        folder_error(&self.folder, during)
    }

    fn sync(&self, during: &'static str) -> Result<(), KeyringError> {
        faultpoint::check("key_folder_sync").and_then(|()| disk::sync_folder(&self.folder)).map_err(self.failed(during))
    }

    fn key_path(&self, id: KeyId) -> PathBuf {
        self.folder.join(id.stem() + KEY_ENDING)
    }

    fn tombstone_path(&self, id: KeyId) -> PathBuf {
        self.folder.join(id.stem() + TOMBSTONE_ENDING)
    }
}

fn temporary_prefix(id: KeyId) -> String {
    format!(".{}.", id.stem())
}

/// The key whose bytes a file of this name holds: the key's own file, or a temporary one.
fn key_whose_bytes_are_in(name: &str) -> Option<KeyId> {
    match name.strip_suffix(KEY_ENDING) {
        Some(stem) => KeyId::from_stem(stem),
        None => KeyId::from_stem(name.strip_prefix('.')?.strip_suffix(TEMPORARY_ENDING)?.rsplit_once('.')?.0),
    }
}

/// A day whose name does not lead back to it would hide its key from [`Keyring::list`].
fn check_day(id: KeyId) -> Result<(), KeyringError> {
    (KeyId::from_stem(&id.stem()) == Some(id)).then_some(()).ok_or(KeyringError::DayOutOfRange)
}

#[cfg(test)]
mod tests;
