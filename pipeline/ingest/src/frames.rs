//! The events of one range: one arena and an index, no allocation per event.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use starling_schemas::ids::Offset;

/// The payloads of one range in offset order, back to back in one buffer.
///
/// It has no `Debug` and no `Clone`: the bytes are users' events.
#[derive(Default)]
pub struct Frames {
    arena: Vec<u8>,
    ends: Vec<usize>,
    offsets: Vec<i64>,
}

impl Frames {
    /// No frames.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a copy of `payload`. Offsets must rise from call to call.
    pub fn push(&mut self, offset: Offset, payload: &[u8]) {
        self.arena.extend_from_slice(payload);
        self.ends.push(self.arena.len());
        self.offsets.push(offset.0);
    }

    /// All frames in offset order.
    pub fn iter(&self) -> impl Iterator<Item = (Offset, &[u8])> {
        let mut start = 0;
        self.offsets.iter().zip(&self.ends).map(move |(offset, end)| {
            let frame = self.arena.get(start..*end).unwrap_or_default();
            start = *end;
            (Offset(*offset), frame)
        })
    }

    /// Number of frames.
    #[must_use]
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// Payload bytes of all frames together.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.arena.len()
    }

    /// Takes all frames out and keeps the memory.
    pub fn clear(&mut self) {
        self.arena.clear();
        self.ends.clear();
        self.offsets.clear();
    }

    /// Bytes of memory held, used or not.
    fn held(&self) -> usize {
        self.arena.capacity() + (self.ends.capacity() + self.offsets.capacity()) * 8
    }
}

/// Lends empty arenas and counts the bytes that are between reading and commit.
pub(crate) struct Pool {
    idle: Mutex<Vec<Frames>>,
    idle_limit: usize,
    in_flight: AtomicUsize,
}

impl Pool {
    /// Keeps at most `idle_limit` bytes of unused arenas.
    pub(crate) fn new(idle_limit: usize) -> Arc<Self> {
        Arc::new(Self { idle: Mutex::default(), idle_limit, in_flight: AtomicUsize::new(0) })
    }

    pub(crate) fn lend(&self) -> Frames {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    pub(crate) fn give_back(&self, mut frames: Frames) {
        frames.clear();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.iter().map(Frames::held).sum::<usize>() + frames.held() <= self.idle_limit {
            idle.push(frames);
        }
    }

    /// Bytes of batches that were cut and are not done.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }
}

/// A cut range on its way through a lane. Dropping it gives its bytes back to the budget.
pub(crate) struct Batch {
    pub(crate) from: Offset,
    pub(crate) to: Offset,
    frames: Option<Arc<Frames>>,
    bytes: usize,
    pool: Arc<Pool>,
}

impl Batch {
    pub(crate) fn new(from: Offset, to: Offset, frames: Frames, pool: &Arc<Pool>) -> Self {
        let bytes = frames.bytes();
        pool.in_flight.fetch_add(bytes, Ordering::Relaxed);
        Self { from, to, frames: Some(Arc::new(frames)), bytes, pool: Arc::clone(pool) }
    }

    /// Payload bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn frames(&self) -> Arc<Frames> {
        self.frames.clone().unwrap_or_default()
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.pool.in_flight.fetch_sub(self.bytes, Ordering::Relaxed);
        if let Some(frames) = self.frames.take().and_then(|shared| Arc::try_unwrap(shared).ok()) {
            self.pool.give_back(frames);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_as_they_went_in_with_empty_ones_among_them() {
        let mut frames = Frames::new();
        let parts: [(i64, &[u8]); 4] = [(3, b"abc"), (4, b""), (9, b"\0\x01"), (10, b"")];
        for (offset, payload) in parts {
            frames.push(Offset(offset), payload);
        }
        let read: Vec<_> = frames.iter().map(|(o, p)| (o.0, p)).collect();
        assert_eq!(read, parts);
        assert_eq!((frames.len(), frames.bytes()), (4, 5));
        frames.clear();
        assert!(frames.is_empty() && frames.iter().next().is_none());
    }

    #[test]
    fn a_dropped_batch_gives_its_bytes_and_its_memory_back() {
        let pool = Pool::new(1 << 20);
        let mut frames = pool.lend();
        frames.push(Offset(0), &[7; 1000]);
        let batch = Batch::new(Offset(0), Offset(1), frames, &pool);
        assert_eq!(pool.in_flight(), 1000);
        drop(batch);
        assert_eq!(pool.in_flight(), 0);
        assert!(pool.lend().held() >= 1000);
    }
}
