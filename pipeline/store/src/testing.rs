//! What this crate's tests share.

use starling_schemas::time::{Entropy, NoEntropy};

/// The system's randomness.
pub(crate) struct OsEntropy;

impl Entropy for OsEntropy {
    fn fill(&self, out: &mut [u8]) -> Result<(), NoEntropy> {
        getrandom::fill(out).map_err(|_| NoEntropy)
    }
}

/// A source that gives nothing.
pub(crate) struct BrokenEntropy;

impl Entropy for BrokenEntropy {
    fn fill(&self, _out: &mut [u8]) -> Result<(), NoEntropy> {
        Err(NoEntropy)
    }
}

/// A metastore in a folder of its own.
pub(crate) async fn open_metastore() -> (tempfile::TempDir, crate::Metastore) {
    let dir = tempfile::tempdir().expect("tempdir");
    let metastore = crate::Metastore::open(&url(&dir)).await.expect("opens");
    (dir, metastore)
}

/// The address of that metastore, for further handles.
pub(crate) fn url(dir: &tempfile::TempDir) -> String {
    format!("sqlite:{}", dir.path().join("metastore.db").display())
}
