//! Files at rest on S3, or on any server that speaks its protocol.
//!
//! ```text
//!   put, get, delete, list ─► object_store's AmazonS3 ─► retries ─► Answers ─► HTTP
//!   TableWriter ─► Upload (parts) ──────┘                             │ every answer that is no success becomes an ObjectFault
//!   delete_folder ─► unfinished uploads ──────────────────────────────┘
//! ```
//!
//! **What S3 gives.** An object appears whole or not at all, and is durable when the server has answered; whoever asks afterwards sees it.
//! So there are no temporary names, and nothing to sync.
//!
//! **What it must be asked for.** I3 needs a file that is created once. S3 does that with `If-None-Match: *`, which some servers ignore
//! without a word: the second release would replace the first. Therefore the first conditional write of a process is preceded by a probe
//! ([`crate::Files::check`]): an object of its own is created twice, and a server that lets the second through is refused.
//! An answer that does not come in time leaves open whether the object is there. A repeated attempt then finds it, and the caller reads
//! what is there, as after a crash.
//!
//! **What goes wrong, and what is said.** `object_store`'s errors may quote addresses and answers. They are reduced to [`ObjectFault`] at
//! the place where the answer comes in, so that "no such object" (an `Option`), "no such bucket" and "this is not an S3 server" (errors)
//! are never mixed up: a table that seems to be missing would otherwise be closed over.
//!
//! **How long it takes.** A request is tried again, with growing pauses, for [`RETRY_FOR`]; one try takes at most [`REQUEST_TIMEOUT`]. A
//! server that refuses connections is told after about `RETRY_FOR`, one that is silent after at most their sum. Whoever called decides
//! about trying again: ingest does so with the same range.
//!
//! **Uploads that were never finished** (a killed process) are seen by nobody, but stored and billed. [`crate::Files::delete_folder`] removes
//! those below its folder. For the rest, give the bucket a lifecycle rule `AbortIncompleteMultipartUpload` of one day. What they hold is
//! encrypted and dies with its key, like every copy.

mod answers;
mod settings;
mod unfinished;
mod upload;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3, AmazonS3Builder, S3ConditionalPut};
use object_store::client::HttpClient;
use object_store::path::Path as ObjectPath;
use object_store::prefix::PrefixStore;
use object_store::{
    BackoffConfig, ClientOptions, Error as StoreFailure, ObjectStore, ObjectStoreExt, PutMode, PutOptions, RetryConfig,
};
use tokio::sync::OnceCell;

use crate::error::StoreError;

pub use answers::ObjectFault;
pub use settings::{S3Address, S3Credentials, S3Settings};
pub(crate) use upload::Upload;

use answers::Connector;

/// How long a request is tried again.
pub const RETRY_FOR: Duration = Duration::from_secs(20);
/// How long one try of a request may take, with its body.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A bucket, or what lies in it below a prefix.
pub(crate) struct S3 {
    store: Arc<AmazonS3>,
    /// The same client for the one request that `object_store` does not know.
    http: HttpClient,
    /// Endpoint and bucket, without a slash at the end.
    bucket_url: String,
    region: String,
    prefix: ObjectPath,
    requests: Arc<AtomicU64>,
    /// Filled once the server has shown that it creates an object only once.
    creates_once: OnceCell<()>,
}

fn retries() -> RetryConfig {
    let backoff = BackoffConfig { init_backoff: Duration::from_millis(100), max_backoff: Duration::from_secs(3), base: 2.0 };
    // Time bounds them and not their number: the pauses are drawn at random and may stay short.
    RetryConfig { backoff, max_retries: 1000, retry_timeout: RETRY_FOR }
}

impl S3 {
    /// Prepares a client. Nothing is asked of the server yet.
    pub(crate) fn open(settings: &S3Settings) -> Result<Self, StoreError> {
        let place = settings.resolve()?;
        let client = ClientOptions::new()
            .with_allow_http(place.plain_http)
            .with_timeout(REQUEST_TIMEOUT)
            .with_connect_timeout(CONNECT_TIMEOUT);
        let connector = Connector::default();
        let requests = Arc::clone(&connector.requests);
        let unusable =
            |_: StoreFailure| StoreError::ObjectStoreSetting("the client could not be set up; look at `files.endpoint`");
        let http = object_store::client::HttpConnector::connect(&connector, &client).map_err(unusable)?;
        let builder = AmazonS3Builder::new()
            .with_bucket_name(&settings.address.bucket)
            .with_endpoint(&place.endpoint)
            .with_region(&place.region)
            .with_allow_http(place.plain_http)
            .with_client_options(client)
            .with_retry(retries())
            // Whatever the environment says: without it, there is no I3.
            .with_conditional_put(S3ConditionalPut::ETagMatch)
            .with_http_connector(connector);
        let store = place.credentials.into_iter().fold(builder, |b, (key, value)| b.with_config(key, value.as_str()));
        Ok(Self {
            store: Arc::new(store.build().map_err(unusable)?),
            http,
            bucket_url: format!("{}/{}", place.endpoint, settings.address.bucket),
            region: place.region,
            prefix: settings.address.prefix.clone(),
            requests,
            creates_once: OnceCell::new(),
        })
    }

    /// The object of a path below the store's root.
    fn object(&self, path: &ObjectPath) -> ObjectPath {
        self.prefix.parts().chain(path.parts()).collect()
    }

    pub(crate) async fn put(&self, path: &ObjectPath, bytes: Bytes) -> Result<(), StoreError> {
        self.store.put(&self.object(path), bytes.into()).await.map_err(|e| failed("writing", path, &e))?;
        Ok(())
    }

    /// Creates an object that must not be there. Only for servers that [`Self::creates_once`] has vouched for.
    pub(crate) async fn create(&self, path: &ObjectPath, bytes: Bytes) -> Result<bool, StoreError> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.store.put_opts(&self.object(path), bytes.into(), options).await {
            Ok(_) => Ok(true),
            Err(StoreFailure::AlreadyExists { .. }) => Ok(false),
            Err(e) => Err(failed("creating", path, &e)),
        }
    }

    /// Runs `probe` unless one has gone well before.
    pub(crate) async fn creates_once(&self, probe: impl Future<Output = Result<(), StoreError>>) -> Result<(), StoreError> {
        self.creates_once.get_or_try_init(|| probe).await?;
        Ok(())
    }

    pub(crate) async fn get(&self, path: &ObjectPath) -> Result<Option<Bytes>, StoreError> {
        let read = async { self.store.get(&self.object(path)).await?.bytes().await };
        match read.await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(StoreFailure::NotFound { .. }) => Ok(None),
            Err(e) => Err(failed("reading", path, &e)),
        }
    }

    pub(crate) async fn delete(&self, path: &ObjectPath) -> Result<(), StoreError> {
        match self.store.delete(&self.object(path)).await {
            Ok(()) | Err(StoreFailure::NotFound { .. }) => Ok(()),
            Err(e) => Err(failed("removing", path, &e)),
        }
    }

    /// Removes all objects below a folder, a thousand a request, and the uploads to it that were not finished.
    pub(crate) async fn delete_folder(&self, path: &ObjectPath) -> Result<(), StoreError> {
        let folder = self.object(path);
        let found = self.store.list(Some(&folder)).map_ok(|meta| meta.location).boxed();
        let removed = self.store.delete_stream(found).try_for_each(|_| futures::future::ready(Ok(())));
        removed.await.map_err(|e| failed("removing", path, &e))?;
        self.abort_unfinished(path).await
    }

    /// The paths below a folder, relative to the store's root.
    pub(crate) async fn list(&self, path: Option<&ObjectPath>) -> Result<Vec<String>, StoreError> {
        let folder = path.map_or_else(|| self.prefix.clone(), |path| self.object(path));
        let found = self.store.list((!folder.as_ref().is_empty()).then_some(&folder));
        let relative = found.map_ok(|meta| self.relative(&meta.location)).try_collect::<Vec<_>>();
        let paths = relative.await.map_err(|e| failed("listing", path.unwrap_or(&ObjectPath::default()), &e))?;
        Ok(paths.into_iter().flatten().collect())
    }

    fn relative(&self, object: &ObjectPath) -> Option<String> {
        Some(object.prefix_match(&self.prefix)?.collect::<ObjectPath>().to_string())
    }

    /// The same objects for engines that read through `object_store`.
    pub(crate) fn object_store(&self) -> Arc<dyn ObjectStore> {
        Arc::new(PrefixStore::new(Arc::clone(&self.store), self.prefix.clone()))
    }

    /// Requests sent since the store was opened, each try counted.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

/// What a failure of `object_store` means. Says nothing of what it holds.
pub(crate) fn failed(during: &'static str, path: &ObjectPath, error: &StoreFailure) -> StoreError {
    StoreError::Object { during, path: path.to_string(), fault: ObjectFault::of(error) }
}
