//! Who this process is in its consumer group, so that the same process after a crash is no stranger.
//!
//! Kafka waits for a member that vanished until its session runs out, and everybody's partitions may stand still meanwhile. A member with a
//! name of its own (`group.instance.id`, KIP-345) that comes back within that time simply gets its partitions again. So each process of a
//! data directory takes the first free place of a few numbered ones, by a lock on the place's file; the system gives the lock back however
//! the process ends, and whoever is started next takes the same place, and the same name. The name is random and lies in the file: it tells
//! nothing of the machine, and two data directories never share one.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;

use anyhow::{Context as _, bail};
use starling_schemas::time::Entropy;

/// Processes of one data directory that read Kafka at once, at most.
const PLACES: u32 = 1024;
/// Random bytes of a name.
const NAME_BYTES: usize = 8;

/// A place in the group, held until it is dropped or the process ends.
pub struct Place {
    name: String,
    _locked: File,
}

impl Place {
    /// Takes the first free place below `folder`, which is made if it is not there.
    ///
    /// # Errors
    /// When the folder cannot be written, when there is no randomness for a new name, or when every place is taken.
    pub fn take(folder: &Path, entropy: &dyn Entropy) -> anyhow::Result<Self> {
        let cannot = || format!("{}: the place of this process in the consumer group cannot be kept here", folder.display());
        std::fs::create_dir_all(folder).with_context(cannot)?;
        for place in 0..PLACES {
            let path = folder.join(format!("instance-{place}"));
            let mut file =
                OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).with_context(cannot)?;
            match file.try_lock() {
                Ok(()) => {
                    let name = name(&mut file, entropy).with_context(cannot)?;
                    return Ok(Self { name, _locked: file });
                }
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(error).with_context(cannot),
            }
        }
        bail!("{}: {PLACES} processes read Kafka with this data directory already", folder.display())
    }

    /// What the group knows this process by.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// The name in the file, or a new one where it holds none, or only half of one.
fn name(file: &mut File, entropy: &dyn Entropy) -> anyhow::Result<String> {
    let mut text = String::new();
    // What is no text is no name.
    let _ = file.read_to_string(&mut text);
    let whole = |hex: &str| hex.len() == 2 * NAME_BYTES && hex.bytes().all(|b| b.is_ascii_hexdigit());
    if text.strip_prefix("starling-").is_some_and(whole) {
        return Ok(text);
    }
    let mut bytes = [0_u8; NAME_BYTES];
    entropy.fill(&mut bytes).context("there is no randomness")?;
    let name = format!("starling-{:016x}", u64::from_be_bytes(bytes));
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(name.as_bytes())?;
    file.sync_all()?;
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemEntropy;

    #[test]
    fn a_place_and_its_name_come_back_to_the_next_process() {
        let dir = tempfile::tempdir().expect("dir");
        let folder = dir.path().join("group");
        let take = || Place::take(&folder, &SystemEntropy).expect("a place");
        let (first, second) = (take(), take());
        let names = (first.name().to_owned(), second.name().to_owned());
        assert_ne!(names.0, names.1);
        drop(first);
        assert_eq!(take().name(), names.0, "the first free place");
        drop(second);
        let (_first, second) = (take(), take());
        assert_eq!(second.name(), names.1);
    }

    #[test]
    fn half_a_name_is_no_name() {
        let dir = tempfile::tempdir().expect("dir");
        for text in [&b"starling-0123"[..], b"starling-0123456789abcdeg", b"\xff\xfe", b"starling-0123456789abcdef0"] {
            std::fs::write(dir.path().join("instance-0"), text).expect("written");
            let place = Place::take(dir.path(), &SystemEntropy).expect("a place");
            assert_eq!(place.name().len(), "starling-".len() + 2 * NAME_BYTES);
            assert_ne!(place.name().as_bytes(), text);
            assert_eq!(std::fs::read(dir.path().join("instance-0")).expect("read"), place.name().as_bytes());
        }
    }
}
