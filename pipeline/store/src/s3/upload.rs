//! An object of any size, sent in parts while it is being made. It is there, whole, when it is finished, and never before.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use object_store::aws::AmazonS3;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path as ObjectPath;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::{S3, failed};
use crate::error::StoreError;

/// Parts on their way at one time. With the buffer, an upload holds at most this many parts and one row group more in memory.
const PARTS_IN_FLIGHT: usize = 2;

/// Bytes of the part with this index: 8 MiB, doubled every thousand parts. S3 takes ten thousand parts, none but the last below 5 MiB.
fn part_bytes(index: usize) -> usize {
    (8 << 20) << (index / 1000).min(9)
}

/// An object being written. Small ones are sent at once, at the end. Dropped before [`Self::finish`], it leaves nothing: what was sent is
/// thrown away in the background.
pub(crate) struct Upload {
    s3: Arc<S3>,
    path: ObjectPath,
    /// Not sent yet.
    gathered: Vec<u8>,
    /// Sent, or being sent.
    sent_bytes: u64,
    parts: Option<Parts>,
    runtime: Handle,
}

/// An upload in parts that the server knows of.
struct Parts {
    store: Arc<AmazonS3>,
    object: ObjectPath,
    id: String,
    next: usize,
    running: JoinSet<(usize, object_store::Result<PartId>)>,
    done: BTreeMap<usize, PartId>,
}

impl io::Write for Upload {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.gathered.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Upload {
    /// Sends nothing yet.
    pub(crate) fn begin(s3: &Arc<S3>, path: &ObjectPath) -> Self {
        let (s3, path) = (Arc::clone(s3), path.clone());
        Self { s3, path, gathered: Vec::new(), sent_bytes: 0, parts: None, runtime: Handle::current() }
    }

    fn failed(&self, error: &object_store::Error) -> StoreError {
        failed("uploading", &self.path, error)
    }

    /// Sends the parts that are full.
    pub(crate) async fn send(&mut self) -> Result<(), StoreError> {
        while self.gathered.len() >= part_bytes(self.next_part()) {
            let rest = self.gathered.split_off(part_bytes(self.next_part()));
            let part = std::mem::replace(&mut self.gathered, rest);
            self.send_part(part).await?;
        }
        Ok(())
    }

    fn next_part(&self) -> usize {
        self.parts.as_ref().map_or(0, |parts| parts.next)
    }

    async fn send_part(&mut self, part: Vec<u8>) -> Result<(), StoreError> {
        if self.parts.is_none() {
            let (store, object) = (Arc::clone(&self.s3.store), self.s3.object(&self.path));
            let id = store.create_multipart(&object).await.map_err(|e| self.failed(&e))?;
            self.parts = Some(Parts { store, object, id, next: 0, running: JoinSet::new(), done: BTreeMap::new() });
        }
        self.wait_for_parts(PARTS_IN_FLIGHT - 1).await?;
        let Some(parts) = &mut self.parts else { return Err(StoreError::TableUnwritable) };
        self.sent_bytes += part.len() as u64;
        let (store, object, id, index) = (Arc::clone(&parts.store), parts.object.clone(), parts.id.clone(), parts.next);
        parts.next += 1;
        parts.running.spawn(async move { (index, store.put_part(&object, &id, index, Bytes::from(part).into()).await) });
        Ok(())
    }

    /// Waits until no more than `left` parts are on their way.
    async fn wait_for_parts(&mut self, left: usize) -> Result<(), StoreError> {
        while let Some(parts) = &mut self.parts
            && parts.running.len() > left
        {
            let Some(joined) = parts.running.join_next().await else { break };
            let (index, part) = joined.map_err(|_| StoreError::Cancelled)?;
            let part = part.map_err(|e| failed("uploading", &self.path, &e))?;
            parts.done.insert(index, part);
        }
        Ok(())
    }

    /// Sends the rest and puts the object in place, replacing what was there. Says how many bytes it has.
    pub(crate) async fn finish(mut self) -> Result<u64, StoreError> {
        let rest = std::mem::take(&mut self.gathered);
        if self.parts.is_none() {
            let bytes = rest.len() as u64;
            self.s3.put(&self.path, rest.into()).await?;
            return Ok(bytes);
        }
        if !rest.is_empty() {
            self.send_part(rest).await?;
        }
        self.wait_for_parts(0).await?;
        let Some(parts) = &mut self.parts else { return Err(StoreError::TableUnwritable) };
        let ids = std::mem::take(&mut parts.done).into_values().collect();
        let completed = parts.store.complete_multipart(&parts.object, &parts.id, ids).await;
        completed.map_err(|e| self.failed(&e))?;
        self.parts = None;
        Ok(self.sent_bytes)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let Some(mut parts) = self.parts.take() else { return };
        // Where the runtime is going down too, the upload stays unfinished, as after a kill.
        self.runtime.spawn(async move {
            // First the parts, to their ends: one that was cut off may still come in after the upload's end, and stay.
            while parts.running.join_next().await.is_some() {}
            // If this fails, the upload is left to `delete_folder` and the bucket's lifecycle rule, as after a kill.
            drop(parts.store.abort_multipart(&parts.object, &parts.id).await);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousand_parts_hold_the_largest_object_and_none_is_too_small() {
        let total: u64 = (0..10_000).map(|index| part_bytes(index) as u64).sum();
        assert!(total > 5 << 40, "S3's objects have at most 5 TiB");
        assert!((0..10_000).all(|index| (5 << 20..=5 << 30).contains(&part_bytes(index))));
    }
}
