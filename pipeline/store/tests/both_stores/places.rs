//! Where the tests keep their files.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use starling_schemas::time::{Entropy, NoEntropy};
use starling_store::{Files, S3Address, S3Credentials, S3Settings, SecretKey};

/// The system's randomness.
pub(crate) struct OsEntropy;

impl Entropy for OsEntropy {
    fn fill(&self, out: &mut [u8]) -> Result<(), NoEntropy> {
        getrandom::fill(out).map_err(|_| NoEntropy)
    }
}

pub(crate) fn key() -> SecretKey {
    SecretKey::generate(&OsEntropy).expect("entropy")
}

/// A file store of a test's own.
pub(crate) struct Place {
    pub(crate) files: Files,
    /// Whether a request is a request.
    pub(crate) is_s3: bool,
    _dir: tempfile::TempDir,
}

impl Place {
    pub(crate) fn local() -> Self {
        let dir = tempfile::tempdir().expect("tempdir");
        Self { files: Files::open_local(&dir.path().join("files")).expect("opens"), is_s3: false, _dir: dir }
    }

    pub(crate) fn s3() -> Self {
        let server = server().expect("STARLING_TEST_S3 names a server");
        Self { files: open(&server), is_s3: true, _dir: tempfile::tempdir().expect("tempdir") }
    }
}

/// The file with a running server's address, which `tests/s3/start.sh` writes.
pub(crate) fn server() -> Option<PathBuf> {
    std::env::var_os("STARLING_TEST_S3").filter(|name| !name.is_empty()).map(PathBuf::from)
}

/// That server, with a prefix nobody has used.
pub(crate) fn settings(server: &Path) -> S3Settings {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let text = std::fs::read_to_string(server).expect("the server's file");
    let line = |name: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        found.expect("start.sh writes it").to_owned()
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("clock").as_nanos();
    let prefix = format!("test-{now}-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    S3Settings {
        address: S3Address::parse(&format!("s3://{}/{prefix}", line("bucket"))).expect("an address"),
        endpoint: line("endpoint"),
        region: String::new(),
        allow_http: false,
        credentials: S3Credentials::Keys { access_key: line("access_key"), secret_key: line("secret_key").into() },
    }
}

pub(crate) fn open(server: &Path) -> Files {
    Files::open_s3(&settings(server)).expect("opens")
}

/// Waits for what comes by itself, and fails when it does not.
pub(crate) async fn wait_until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !holds().await {
        assert!(Instant::now() < end, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
