//! One opened data directory: metastore, files, keys, and the doors between rooms that only `jobs` may hang.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use starling_aggregate::Closer;
use starling_ingest::BatchLimits;
use starling_minimize::{KeySource, KeySourceError};
use starling_privacy::Releaser;
use starling_schemas::ids::{EpochId, Purpose};
use starling_schemas::metrics::Catalogue;
use starling_schemas::time::{Clock, Entropy};
use starling_store::{Files, KeyId, KeyKind, Keyring, KeyringError, Metastore};
use zeroize::Zeroizing;

use crate::clock::{SystemClock, SystemEntropy};
use crate::config::Config;

/// Everything a job needs, opened once.
#[derive(Clone)]
pub struct Home {
    /// Settings in force.
    pub config: Arc<Config>,
    /// Progress, windows, ledger, alerts, audit log.
    pub metastore: Arc<Metastore>,
    /// Segments, person tables, released statistics.
    pub files: Arc<Files>,
    /// Keys, in a folder of their own.
    pub keyring: Arc<Keyring>,
    /// Datasets and metrics.
    pub catalogue: Arc<Catalogue>,
    /// The real clock.
    pub clock: Arc<dyn Clock>,
    /// The real entropy source.
    pub entropy: Arc<dyn Entropy>,
}

impl Home {
    /// Opens, and where needed makes, the data directory.
    ///
    /// # Errors
    /// When a folder cannot be made or the metastore cannot be opened.
    pub async fn open(config: Config) -> anyhow::Result<Self> {
        let dir = config.data_dir.clone();
        make_private(&dir)
            .with_context(|| format!("{}: the data directory cannot be made; choose another with --data-dir", dir.display()))?;
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
        let keyring = Keyring::open(&dir.join("keys"), Arc::clone(&entropy))?;
        let files = Files::open_local(&dir.join("files"))?;
        let metastore = Metastore::open(&format!("sqlite:{}", dir.join("metastore.db").display())).await?;
        Ok(Self {
            config: Arc::new(config),
            metastore: Arc::new(metastore),
            files: Arc::new(files),
            keyring: Arc::new(keyring),
            catalogue: Arc::new(Catalogue::builtin()?),
            clock: Arc::new(SystemClock),
            entropy,
        })
    }

    /// Opens a data directory that must be there already: reading jobs make nothing.
    ///
    /// # Errors
    /// As [`Self::open`], and when there is no metastore yet.
    pub async fn open_existing(config: Config) -> anyhow::Result<Self> {
        let database = config.data_dir.join("metastore.db");
        anyhow::ensure!(
            database.exists(),
            "{}: no Starling data here yet. Run `starling demo`, or `starling run`, or name another folder with --data-dir.",
            config.data_dir.display()
        );
        Self::open(config).await
    }

    /// The way to close windows.
    #[must_use]
    pub fn closer(&self) -> Closer {
        Closer {
            metastore: Arc::clone(&self.metastore),
            files: Arc::clone(&self.files),
            keyring: Arc::clone(&self.keyring),
            clock: Arc::clone(&self.clock),
            memory_bytes: self.config.window.memory_mib << 20,
            spill_dir: self.spill_dir(),
        }
    }

    /// The way to release statistics.
    #[must_use]
    pub fn releaser(&self) -> Releaser {
        Releaser {
            metastore: Arc::clone(&self.metastore),
            files: Arc::clone(&self.files),
            keyring: Arc::clone(&self.keyring),
            clock: Arc::clone(&self.clock),
            catalogue: Arc::clone(&self.catalogue),
        }
    }

    /// Limits of one range.
    #[must_use]
    pub fn batch_limits(&self) -> BatchLimits {
        let ingest = &self.config.ingest;
        BatchLimits { max_events: ingest.max_events, max_bytes: ingest.max_bytes, linger_ms: ingest.linger_ms }
    }

    /// Keys for `minimize`.
    #[must_use]
    pub fn key_source(&self) -> Arc<dyn KeySource> {
        Arc::new(Keys(Arc::clone(&self.keyring)))
    }

    fn spill_dir(&self) -> PathBuf {
        self.config.data_dir.join("spill")
    }
}

/// Makes a folder only its owner may enter.
fn make_private(dir: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Hands pseudonym keys from the keyring to `minimize`, which knows nothing of where they lie.
struct Keys(Arc<Keyring>);

impl KeySource for Keys {
    fn pseudonym_key(&self, purpose: Purpose, epoch: EpochId) -> Result<Option<Zeroizing<[u8; 32]>>, KeySourceError> {
        match self.0.get_or_create(KeyId { kind: KeyKind::Pseudonym, purpose, epoch }) {
            Ok(key) => Ok(Some(Zeroizing::new(*key.expose()))),
            Err(KeyringError::Destroyed { .. }) => Ok(None),
            Err(error) => Err(KeySourceError(error.to_string())),
        }
    }
}
