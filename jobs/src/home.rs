//! One opened data directory: metastore, files, keys, and the doors between rooms that only `jobs` may hang.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use starling_aggregate::{Billing, Closer};
use starling_ingest::BatchLimits;
use starling_minimize::{KeySource, KeySourceError};
use starling_query::{Engine, Limits, Releaser, Vault};
use starling_schemas::ids::{EpochId, Purpose};
use starling_schemas::metrics::Catalogue;
use starling_schemas::time::{Clock, Entropy};
use starling_store::{Files, KeyId, KeyKind, KeyState, Keyring, KeyringError, Metastore};
use zeroize::Zeroizing;

use crate::clock::{SystemClock, SystemEntropy};
use crate::config::Config;
use crate::doors::heard::Heard;
use crate::metrics::Metrics;

/// What businesses are billed for, as the query room asks for it.
struct Bills(Billing);

impl std::fmt::Debug for Bills {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bills")
    }
}

#[async_trait::async_trait]
impl starling_query::Bills for Bills {
    async fn of_days(
        &self,
        from: EpochId,
        to: EpochId,
    ) -> Result<arrow::array::RecordBatch, Box<dyn std::error::Error + Send + Sync>> {
        Ok(self.0.rows(from, to).await?)
    }
}

/// Everything a job needs, opened once.
#[derive(Clone)]
pub struct Home {
    /// Settings in force.
    pub config: Arc<Config>,
    /// Progress, windows, ledger, alerts, audit log.
    pub metastore: Arc<Metastore>,
    /// Segments, person tables, released statistics, the detectors' state.
    pub files: Arc<Files>,
    /// Files that stay on this machine wherever the others are: the local signal log, which is looked at many times a second.
    pub local_files: Arc<Files>,
    /// Keys, in a folder of their own.
    pub keyring: Arc<Keyring>,
    /// Datasets and metrics.
    pub catalogue: Arc<Catalogue>,
    /// The real clock.
    pub clock: Arc<dyn Clock>,
    /// The real entropy source.
    pub entropy: Arc<dyn Entropy>,
    /// What this process counts.
    pub metrics: Arc<Metrics>,
    /// What was refused to whom at this process's doors.
    pub(crate) heard: Arc<Heard>,
}

impl Home {
    /// Opens, and where needed makes, the data directory, for a job that writes: an object store is tried out first.
    ///
    /// # Errors
    /// When a folder cannot be made, the metastore cannot be opened, or the object store is not to be trusted with I3.
    pub async fn open(config: Config) -> anyhow::Result<Self> {
        let home = Self::assemble(config).await?;
        if !home.config.files.url.is_empty() {
            home.files.check().await.with_context(|| format!("{}: the object store cannot be used", home.config.files.url))?;
        }
        Ok(home)
    }

    async fn assemble(config: Config) -> anyhow::Result<Self> {
        let dir = config.data_dir.clone();
        let catalogue = config.definitions()?;
        make_private(&dir)
            .with_context(|| format!("{}: the data directory cannot be made; choose another with --data-dir", dir.display()))?;
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
        let keyring = Keyring::open(&dir.join("keys"), Arc::clone(&entropy))?;
        let local_files = Arc::new(Files::open_local(&dir.join("files"))?);
        let files = match config.files.s3()? {
            None => Arc::clone(&local_files),
            Some(settings) => Arc::new(Files::open_s3(&settings)?),
        };
        same_place(&dir, &config.files.url)?;
        // An empty one would count everything again and forget what budgets are spent (I2, I8).
        anyhow::ensure!(
            !has_been_used(&keyring)? || Metastore::is_there(&config.metastore_address()).await?,
            "{}: the metastore is gone, but keys show that it has been in use. Put it back, from a copy if need be; or use another data directory",
            Metastore::shown_address(&config.metastore_address())
        );
        let metastore = Metastore::open(&config.metastore_address()).await?;
        Ok(Self {
            metrics: Arc::new(Metrics::new(&config.kafka.topic)),
            config: Arc::new(config),
            metastore: Arc::new(metastore),
            files,
            local_files,
            keyring: Arc::new(keyring),
            catalogue: Arc::new(catalogue),
            clock: Arc::new(SystemClock),
            entropy,
            heard: Arc::default(),
        })
    }

    /// Opens a data directory that must be there already: reading jobs make nothing.
    ///
    /// # Errors
    /// As [`Self::open`], and when there is no metastore yet.
    pub async fn open_existing(config: Config) -> anyhow::Result<Self> {
        anyhow::ensure!(
            Metastore::is_there(&config.metastore_address()).await?,
            "{}: no Starling data here yet. Run `starling demo`, or `starling run`, or name another folder with --data-dir.",
            config.data_dir.display()
        );
        Self::assemble(config).await
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

    /// What businesses are billed for.
    #[must_use]
    pub fn billing(&self) -> Billing {
        Billing { metastore: Arc::clone(&self.metastore), files: Arc::clone(&self.files), keyring: Arc::clone(&self.keyring) }
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

    /// SQL over released statistics and, with noise, over protected rows.
    ///
    /// # Errors
    /// When the list of releases cannot be read.
    pub async fn engine(&self) -> anyhow::Result<Engine> {
        let vault = Vault::new(
            Arc::clone(&self.metastore),
            Arc::clone(&self.files),
            Arc::clone(&self.keyring),
            Arc::clone(&self.catalogue),
        );
        let bills = Arc::new(Bills(self.billing()));
        let engine = Engine::open_with_bills(vault, bills, Arc::clone(&self.clock), Limits::default()).await?;
        let (heard, clock) = (Arc::clone(&self.heard), Arc::clone(&self.clock));
        Ok(engine.heard_by(Arc::new(move |told| heard.statement(&told, clock.now_ms()))))
    }

    /// Turns the keeping of hours on or off, as the settings have it: for a job that reads events, before it does.
    ///
    /// # Errors
    /// When the metastore cannot be written.
    pub async fn turn_hours(&self) -> anyhow::Result<()> {
        let (on, ingest) = (self.config.window.hours, &self.config.ingest);
        if self.metastore.turn_hours(on, ingest.disorder_s * 1000, ingest.future_tolerance_s * 1000).await? {
            tracing::info!(on, "hours are kept from now on, or no more (window.hours)");
        }
        Ok(())
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

/// Refuses another place for the files than the metastore's records were written with: tables would seem to be missing, and a window whose
/// deadline passes would be closed without them.
fn same_place(dir: &Path, url: &str) -> anyhow::Result<()> {
    let note = dir.join("files-url");
    let known = std::fs::read_to_string(&note).unwrap_or_default();
    let known = match known.trim() {
        // From before there was a choice.
        "" if dir.join("metastore.db").exists() => Some("local"),
        "" => None,
        known => Some(known),
    };
    let wanted = if url.is_empty() { "local" } else { url };
    anyhow::ensure!(
        known.is_none_or(|known| known == wanted),
        "{}: its files are at `{}`, and files.url names another place. Set files.url back; or stop all jobs, copy the files over, and write \
         the new address (or `local`) into {}",
        dir.display(),
        known.unwrap_or_default(),
        note.display()
    );
    if !note.exists() {
        write_durably(&note, wanted).with_context(|| format!("{}: cannot be written", note.display()))?;
    }
    Ok(())
}

/// Whether rows were written or keys destroyed under this keyring: neither happens before there is a metastore.
fn has_been_used(keyring: &Keyring) -> anyhow::Result<bool> {
    Ok(keyring.list()?.iter().any(|(id, state)| id.kind == KeyKind::Data || *state != KeyState::Alive))
}

/// Writes a small file that survives a power failure, or is not there.
fn write_durably(path: &Path, text: &str) -> std::io::Result<()> {
    let temporary = path.with_extension(format!("{}.new", std::process::id()));
    let mut file = std::fs::File::create(&temporary)?;
    std::io::Write::write_all(&mut file, text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    path.parent().map_or(Ok(()), |folder| std::fs::File::open(folder)?.sync_all())
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

#[cfg(test)]
mod tests {
    use super::same_place;

    #[test]
    fn i8_files_are_not_looked_for_in_another_place_than_they_were_written_to() {
        let dir = tempfile::tempdir().expect("dir");
        same_place(dir.path(), "s3://flock/a").expect("the first time");
        same_place(dir.path(), "s3://flock/a").expect("the same");
        for other in ["", "s3://flock/b"] {
            let error = same_place(dir.path(), other).expect_err("another place").to_string();
            assert!(error.contains("s3://flock/a") && error.contains("files-url"), "{error}");
        }
        let old = tempfile::tempdir().expect("dir");
        std::fs::write(old.path().join("metastore.db"), "").expect("writes");
        assert!(
            same_place(old.path(), "s3://flock/a").is_err(),
            "a folder from before there was a choice has its files beside it"
        );
        same_place(old.path(), "").expect("as it was");
    }
}
