//! What only a server can do: answer slowly, not at all, or to somebody else.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use starling_schemas::rows::PERSON_ROWS;
use starling_store::table::ROW_GROUP_ROWS;
use starling_store::{ObjectFault, S3Credentials, StoreError, encrypt_batches, read_table};

use crate::places::{Place, key, open, server, settings};
use crate::tables::{begin, fill, read_all, rows};

pub(crate) async fn a_small_table_is_read_with_one_request_and_a_large_one_with_one_for_each_row_group() {
    let (files, key) = (Place::s3().files, key());
    files.put("s", encrypt_batches(&key, Arc::clone(&PERSON_ROWS), &[rows(0, 1000)]).expect("encrypts")).await.expect("puts");
    let before = files.requests();
    read_all(&files, &key, "s").await.expect("reads");
    assert_eq!(files.requests() - before, 1);

    let before = files.requests();
    let mut writer = begin(&files, &key, "t").await;
    fill(&mut writer, u32::try_from(ROW_GROUP_ROWS * 4).expect("fits")).await;
    let written = writer.finish().await.expect("finishes");
    let parts = written.bytes.div_ceil(8 << 20);
    assert_eq!(files.requests() - before, parts + 2, "its parts, a beginning and an end");

    let before = files.requests();
    read_all(&files, &key, "t").await.expect("reads");
    assert_eq!(files.requests() - before, 1 + 4, "the footer, and each row group at once");
}

pub(crate) async fn wrong_credentials_and_a_missing_bucket_are_told_as_what_they_are() {
    let good = settings(&server().expect("a server"));
    let wrong = |access_key: &str| {
        let (access_key, secret_key) = (access_key.to_owned(), "hunter2-secret".to_owned().into());
        starling_store::S3Settings { credentials: S3Credentials::Keys { access_key, secret_key }, ..good.clone() }
    };
    let S3Credentials::Keys { access_key: known, .. } = &good.credentials else { panic!("the server's keys") };
    let mut no_bucket = good.clone();
    no_bucket.address.bucket = "nobody-made-this-bucket".to_owned();
    let cases =
        [(wrong("AKIAWRONG"), ObjectFault::Refused), (wrong(known), ObjectFault::Refused), (no_bucket, ObjectFault::NoBucket)];
    for (settings, wanted) in cases {
        let (files, key) = (starling_store::Files::open_s3(&settings).expect("opens"), key());
        let told = [
            files.put("a", Bytes::new()).await.err(),
            files.put_new("a", Bytes::new()).await.err(),
            files.get("a").await.err(),
            files.list("").await.err(),
            files.delete("a").await.err(),
            files.delete_folder("a").await.err(),
            files.check().await.err(),
            read_table(&files, &key, "a").await.err(),
        ];
        for (n, error) in told.into_iter().enumerate() {
            let error = error.unwrap_or_else(|| panic!("operation {n} did not fail"));
            assert!(matches!(&error, StoreError::Object { fault, .. } if *fault == wanted), "operation {n}: {error}");
            let text = format!("{error} {error:?}");
            assert!(
                !text.contains("hunter2")
                    && !text.contains("AKIAWRONG")
                    && !text.contains(known.as_str())
                    && !text.contains("http"),
                "{text}"
            );
        }
    }
}

pub(crate) async fn two_prefixes_of_a_bucket_do_not_see_each_other() {
    let (one, other) = (Place::s3().files, Place::s3().files);
    one.put("a", Bytes::from_static(b"1")).await.expect("puts");
    assert!(other.list("").await.expect("lists").is_empty());
    assert_eq!(other.get("a").await.expect("gets"), None);
    other.delete_folder("a").await.expect("deletes");
    assert_eq!(one.list("").await.expect("lists"), ["a"]);
}

/// A server of the test's own, for stopping.
struct OwnServer {
    dir: tempfile::TempDir,
}

impl OwnServer {
    fn run(script: &str, dir: &Path) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/s3").join(script);
        let done = Command::new(script).arg(dir).stdin(Stdio::null()).stdout(Stdio::null()).status();
        assert!(done.expect("the script starts").success());
    }

    fn start() -> Self {
        let dir = tempfile::tempdir().expect("dir");
        Self::run("start.sh", dir.path());
        Self { dir }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("server")
    }

    fn stop(&self) {
        Self::run("stop.sh", self.dir.path());
    }

    fn start_again(&self) {
        Self::run("start.sh", self.dir.path());
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        self.stop();
    }
}

pub(crate) async fn a_server_that_stops_is_told_in_bounded_time_and_all_goes_on_when_it_is_back() {
    let server = OwnServer::start();
    let (files, key) = (open(&server.file()), key());
    let groups = u32::try_from(ROW_GROUP_ROWS).expect("fits");
    let mut writer = begin(&files, &key, "t").await;
    fill(&mut writer, groups * 2).await;
    writer.finish().await.expect("finishes");
    assert!(files.put_new("once", Bytes::from_static(b"first")).await.expect("puts"));
    let mut half_read = read_table(&files, &key, "t").await.expect("opens");
    half_read.next().await.expect("a batch").expect("reads");
    let mut half_written = begin(&files, &key, "u").await;
    fill(&mut half_written, groups * 3).await;

    server.stop();
    // None of these may hang, and none may look like a file that is gone or damaged.
    let bounded = async {
        let reading = async {
            while let Some(batch) = half_read.next().await {
                batch?;
            }
            Ok(())
        };
        let writing = async {
            fill_on(&mut half_written, groups).await?;
            half_written.finish().await.map(drop)
        };
        let all = futures::join!(
            async { files.put("a", Bytes::new()).await },
            async { files.put_new("b", Bytes::new()).await.map(drop) },
            async { files.get("t").await.map(drop) },
            async { files.list("").await.map(drop) },
            async { files.delete("t").await },
            async { files.delete_folder("t").await },
            async { read_table(&files, &key, "t").await.map(drop) },
            async { files.check().await },
            reading,
            writing,
        );
        let (a, b, c, d, e, f, g, h, i, j) = all;
        [a, b, c, d, e, f, g, h, i, j]
    };
    let told = tokio::time::timeout(Duration::from_secs(600), bounded).await.expect("an outage is told, not waited out");
    for (n, told) in told.into_iter().enumerate() {
        let error = told.err().unwrap_or_else(|| panic!("operation {n} did not fail"));
        assert!(matches!(error, StoreError::Object { fault: ObjectFault::Unreachable, .. }), "operation {n}: {error} {error:?}");
    }

    // What is asked while it is down succeeds if it is back soon enough. Where the machine is so busy that the start alone takes
    // nearly as long as is waited for, it is tried another time.
    for round in 1.. {
        let begun = Instant::now();
        let waiting = {
            let files = files.clone();
            tokio::spawn(async move { files.put("patient", Bytes::from_static(b"x")).await })
        };
        tokio::time::sleep(Duration::from_secs(2)).await;
        tokio::task::block_in_place(|| server.start_again());
        let was_soon = begun.elapsed() < Duration::from_secs(15);
        let told = waiting.await.expect("joins");
        if was_soon || told.is_ok() || round == 20 {
            told.expect("the put waited for the server");
            break;
        }
        tokio::task::block_in_place(|| server.stop());
    }
    assert_eq!(files.get("patient").await.expect("gets").as_deref(), Some(b"x".as_slice()));
    assert!(!files.put_new("once", Bytes::from_static(b"second")).await.expect("is there"));
    assert_eq!(files.get("once").await.expect("gets").as_deref(), Some(b"first".as_slice()));
    assert_eq!(read_all(&files, &key, "t").await.expect("reads").len(), ROW_GROUP_ROWS * 2);
    assert_eq!(files.get("u").await.expect("gets"), None, "the table whose writer failed is not there");
}

async fn fill_on(writer: &mut starling_store::TableWriter, count: u32) -> Result<(), StoreError> {
    for from in (0..count * 4).step_by(50_000) {
        writer.write(&crate::tables::real_rows(from, 50_000)).await?;
    }
    Ok(())
}
