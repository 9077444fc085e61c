//! Small durable file operations. Every one that changes a folder syncs it before it returns.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::faultpoint::{self, Writing};

/// Makes folder changes durable: links, renames and removals in it.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Creates a folder and what is missing above it, for its owner only. A folder that is there keeps its mode.
pub(crate) fn create_private_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent().filter(|p| !p.as_os_str().is_empty()) {
        create_private_folder(parent)?;
    }
    match std::fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
        other => other?,
    }
    match folder.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_folder(parent),
        _ => sync_folder(Path::new(".")),
    }
}

/// Makes the name of a folder or file durable: it stands in its parent. Parents that may not be opened are somebody else's, and were there
/// long before.
pub(crate) fn sync_name_of(path: &Path) -> io::Result<()> {
    match path.parent().map_or(Ok(()), sync_folder) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        other => other,
    }
}

/// Makes the names of a folder and of all folders above it durable: one of them may have been made by a process that was killed before
/// it synced. Those far above are often not ours, on file systems that know no sync, and are not insisted on.
pub(crate) fn sync_names_above(folder: &Path) -> io::Result<()> {
    for above in folder.ancestors().skip(1) {
        drop(sync_name_of(above));
    }
    sync_name_of(folder)
}

/// Takes away every right of group and others.
pub(crate) fn make_private(path: &Path, mode: u32) -> io::Result<()> {
    if std::fs::metadata(path)?.permissions().mode() & 0o077 != 0 {
        std::fs::set_permissions(path, Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// Writes a new file, mode 0600, and syncs its bytes (not its folder). Fails if it is there.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    faultpoint::check("key_create")?;
    let mut file = Writing::new("key_write", OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?);
    file.write_all(bytes)?;
    faultpoint::check("key_sync")?;
    file.into_file().sync_all()
}

/// Removes a file; one that is not there is fine.
pub(crate) fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Overwrites a file's bytes in place with zeros, syncs and removes it. One that is not there is fine.
///
/// On file systems and disks that write elsewhere (copy on write, flash) old blocks may survive until they are reused: a deployment that
/// must exclude this keeps its keys in a KMS.
pub(crate) fn shred(path: &Path) -> io::Result<()> {
    let mut file = match OpenOptions::new().write(true).open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let bytes = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX).min(4096);
    file.write_all(&vec![0; bytes])?;
    file.sync_all()?;
    remove_if_there(path)
}
