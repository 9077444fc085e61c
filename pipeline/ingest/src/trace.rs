//! Recorded traces: one file of events, each behind its length as a varint, plain or zstd. Offsets are frame numbers.
//!
//! [`run_trace`] takes a trace through the same protocol as a Kafka partition, so a demo, a test and a rerun of an incident count
//! exactly once as well. A trace is finished when it is given: a file that grows later needs another name.

mod files;

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use starling_schemas::ids::{Offset, PartitionId};
use starling_schemas::time::Clock;
use starling_store::{Metastore, Ownership};
use tokio::sync::{mpsc, watch};

pub use files::{BUFFER_BYTES, FrameRead, MAX_FRAME_BYTES, TraceReader, TraceWriter};

use crate::events::{Event, Observer, tell};
use crate::frames::{Batch, Frames, Pool};
use crate::kafka::identity::Freshness;
use crate::lane::{self, Handed, Progress, Workshop};
use crate::protocol::{Cutter, Offer, Range, Verdict};
use crate::wire::event_bytes;
use crate::{BatchLimits, IngestError, RangeProcessor};

/// How often an unclear answer of the metastore may be followed by a new start.
const MAX_STARTS: u32 = 5;
/// What a frame that cannot be read is replaced by: tag 0 does not exist, so it is counted as malformed.
const UNREADABLE: &[u8] = &[0];
/// What a frame beyond [`MAX_FRAME_BYTES`] is replaced by: too large for any event, and never a readable one.
const TOO_LARGE_BYTES: usize = 64 << 10;

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TraceProgress {
    /// Bytes of the file read.
    pub bytes_read: u64,
    /// Bytes of the file.
    pub bytes_total: u64,
    /// Frames read, those before the restart point included.
    pub frames_read: i64,
    /// Frames committed, those of earlier runs included.
    pub frames_committed: i64,
}

/// What a run did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TraceSummary {
    /// Frames committed by this run. Frames that could not be read are among them: each is one quarantined event.
    pub frames: u64,
    /// Frames that earlier runs had committed.
    pub skipped: u64,
    /// Ranges committed by this run.
    pub ranges: u64,
    /// The file ends within a frame: that frame is counted as one malformed event.
    pub truncated: bool,
    /// Frames beyond [`MAX_FRAME_BYTES`]: each is counted as one event that is too large.
    pub too_large: u64,
    /// Whether the end was reached; otherwise it was shut down, and goes on there the next time.
    pub finished: bool,
}

/// Tells how far a run is. Called now and then from a reading thread, and once at the end.
pub type OnProgress = Arc<dyn Fn(TraceProgress) + Send + Sync>;

/// How much of a file tells it from another one of the same name, in bytes.
const IDENTITY_BYTES: u64 = 256;

/// The partition under which a trace's progress is kept: source `trace:<file stem>-<hash>`, where `.zst` and one more extension are left
/// out, and the hash is 32 bits of BLAKE3 over the file's first 256 bytes. Two recordings of one name are two sources; one that was moved, or
/// has grown at its end, is the same.
///
/// # Errors
/// [`IngestError::File`].
pub fn trace_partition(path: &Path) -> Result<PartitionId, IngestError> {
    let mut head = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(IDENTITY_BYTES).read_to_end(&mut head))
        .map_err(|e| IngestError::file(path, "opening the trace", &e))?;
    let hash = blake3::hash(&head).to_hex();
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let name = name.strip_suffix(".zst").unwrap_or(&name);
    let stem = Path::new(name).file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(PartitionId { source: format!("trace:{stem}-{}", hash.get(..8).unwrap_or_default()), partition: 0 })
}

/// Reads the trace at `path` to its end, or until `shutdown` turns true, through plan → process → commit. A run goes on where the last
/// one stopped.
///
/// # Errors
/// [`IngestError::File`], [`IngestError::TraceDamaged`] and [`IngestError::TraceShorter`] for the file, [`IngestError::Fenced`] when
/// another process reads the same trace, and those of [`run_kafka`](crate::run_kafka) for processor and metastore.
pub async fn run_trace(
    path: &Path,
    limits: BatchLimits,
    metastore: Arc<Metastore>,
    processor: Arc<dyn RangeProcessor>,
    clock: Arc<dyn Clock>,
    shutdown: watch::Receiver<bool>,
    progress: OnProgress,
) -> Result<TraceSummary, IngestError> {
    let partition = trace_partition(path)?;
    let workshop = Workshop::new(metastore, processor, clock);
    let mut total = TraceSummary::default();
    let mut starts = 0;
    loop {
        let now_ms = workshop.clock.now_ms();
        let owner = format!("trace/{}", std::process::id());
        let ownership = match workshop.metastore.take_ownership(&partition, &owner, now_ms).await {
            Ok(ownership) => ownership,
            Err(source) => return Err(IngestError::Metastore { partition, source }),
        };
        let generation = ownership.generation;
        let (run, verdict, error) = one_turn(path, limits, &workshop, ownership, &shutdown, &progress).await?;
        total.skipped = if starts == 0 { run.skipped } else { total.skipped };
        total.frames += run.frames;
        total.ranges += run.ranges;
        (total.truncated, total.too_large, total.finished) = (run.truncated, run.too_large, run.finished);
        match verdict {
            Verdict::Stopped => {
                if total.finished {
                    let end = Offset(i64::try_from(total.skipped + total.frames).unwrap_or(i64::MAX));
                    let noted = workshop.metastore.note_position(&partition, generation, end, workshop.clock.now_ms()).await;
                    noted.map_err(|source| IngestError::Metastore { partition, source })?;
                    let bytes = std::fs::metadata(path).map(|m| m.len()).unwrap_or_default();
                    progress(TraceProgress {
                        bytes_read: bytes,
                        bytes_total: bytes,
                        frames_read: end.0,
                        frames_committed: end.0,
                    });
                }
                return Ok(total);
            }
            Verdict::Fenced => return Err(IngestError::Fenced { partition }),
            Verdict::Unclear if starts < MAX_STARTS => {
                starts += 1;
                tokio::time::sleep(std::time::Duration::from_millis(200 << starts)).await;
            }
            Verdict::Unclear | Verdict::Failed | Verdict::Breach => {
                return Err(error.unwrap_or(IngestError::Breach { partition, what: "the trace's turn ended without a reason" }));
            }
        }
    }
}

type Turned = (TraceSummary, Verdict, Option<IngestError>);

/// One ownership's turn: a reading thread and a lane, joined by a channel.
async fn one_turn(
    path: &Path,
    limits: BatchLimits,
    workshop: &Workshop,
    ownership: Ownership,
    shutdown: &watch::Receiver<bool>,
    progress: &OnProgress,
) -> Result<Turned, IngestError> {
    let (sender, receiver) = mpsc::channel(1);
    let lane_progress = Arc::new(Progress::default());
    let skipped = ownership.next_offset.map_or(0, |o| o.0);
    lane_progress.committed.store(skipped, Ordering::Release);
    let feeder = Feeder {
        path: path.to_path_buf(),
        partition: ownership.partition.clone(),
        cutter: Cutter::new(&ownership, limits),
        skipped,
        pool: Pool::new(limits.max_bytes.saturating_mul(3)),
        filling: Frames::new(),
        sender,
        shutdown: shutdown.clone(),
        lane: Arc::clone(&lane_progress),
        progress: Arc::clone(progress),
        observer: Arc::clone(&workshop.observer),
        reading_since: Instant::now(),
        summary: TraceSummary { skipped: u64::try_from(skipped).unwrap_or(0), ..TraceSummary::default() },
    };
    let reading = tokio::task::spawn_blocking(move || feeder.feed());
    let ended =
        lane::run(workshop.clone(), ownership, receiver, Freshness::of_a_file(), Arc::clone(&lane_progress), Arc::new(|| {}))
            .await;
    let read = reading.await.map_err(|_| IngestError::Thread("panicked while reading a trace"))?;
    let mut summary = match (&ended.verdict, read) {
        (_, Ok(summary)) => summary,
        // The lane's own failure is the cause; the feeder only met a closed channel.
        (Verdict::Stopped, Err(error)) => return Err(error),
        (_, Err(_)) => TraceSummary::default(),
    };
    let committed = lane_progress.committed.load(Ordering::Acquire);
    summary.skipped = u64::try_from(skipped).unwrap_or(0);
    summary.frames = u64::try_from(committed - skipped).unwrap_or(0);
    summary.ranges = u64::try_from(lane_progress.ranges.load(Ordering::Acquire)).unwrap_or(0);
    Ok((summary, ended.verdict, ended.error))
}

/// Reads the file, cuts ranges and hands them to the lane.
struct Feeder {
    path: PathBuf,
    partition: PartitionId,
    cutter: Cutter,
    skipped: i64,
    pool: Arc<Pool>,
    filling: Frames,
    sender: mpsc::Sender<Handed>,
    shutdown: watch::Receiver<bool>,
    lane: Arc<Progress>,
    progress: OnProgress,
    observer: Arc<dyn Observer>,
    reading_since: Instant,
    summary: TraceSummary,
}

impl Feeder {
    fn feed(mut self) -> Result<TraceSummary, IngestError> {
        let mut reader = TraceReader::open(&self.path)?;
        let from = self.cutter.position().map_or(0, |o| o.0);
        let mut frame = Vec::new();
        let mut index = 0i64;
        loop {
            if index & 0x3ff == 0 && (*self.shutdown.borrow() || self.sender.is_closed()) {
                self.tell(&reader, index);
                return Ok(self.summary);
            }
            // Frames before the restart point are read over too: only reading finds where a frame begins.
            let read = reader.next_frame(&mut frame)?;
            match read {
                FrameRead::End => break,
                FrameRead::Frame => {}
                FrameRead::Truncated => {
                    self.summary.truncated = true;
                    frame.clear();
                    frame.extend_from_slice(UNREADABLE);
                }
                FrameRead::TooLarge(_) => {
                    self.summary.too_large += 1;
                    frame.clear();
                    frame.resize(TOO_LARGE_BYTES, 0);
                }
            }
            if index >= from && !self.take(index, &frame) {
                self.tell(&reader, index);
                return Ok(self.summary);
            }
            if index & 0x1fff == 0 {
                self.tell(&reader, index);
            }
            index += 1;
        }
        if index < self.skipped.max(from) {
            let path = self.path.display().to_string();
            return Err(IngestError::TraceShorter { path, wanted: self.skipped.max(from), found: index });
        }
        // Never read and empty: nothing to say.
        let last = match self.cutter.at_end(Offset(index)) {
            None if self.cutter.is_empty() => None,
            None if self.cutter.replaying() => {
                let path = self.path.display().to_string();
                return Err(IngestError::TraceShorter { path, wanted: index.saturating_add(1), found: index });
            }
            None => self.cutter.cut(),
            range => range,
        };
        let delivered = last.is_none_or(|range| self.hand_over(range));
        self.summary.finished = delivered;
        self.tell(&reader, index);
        tracing::debug!(partition = %self.partition, frames = index, "trace read to its end");
        Ok(self.summary)
    }

    /// Adds a frame. `false`: the lane has ended or the job is shutting down.
    fn take(&mut self, index: i64, frame: &[u8]) -> bool {
        let frame = event_bytes(frame);
        match self.cutter.offer(Offset(index), frame.len()) {
            Offer::Behind => return true,
            Offer::Take => {}
            Offer::TakeAfter(range) => {
                if !self.hand_over(range) {
                    return false;
                }
            }
        }
        self.filling.push(Offset(index), frame);
        true
    }

    fn hand_over(&mut self, range: Range) -> bool {
        let frames = std::mem::replace(&mut self.filling, self.pool.lend());
        let batch = Batch::new(range.from, range.to, frames, &self.pool);
        tell(self.observer.as_ref(), &Event::Read { took: self.reading_since.elapsed() });
        let delivered = !*self.shutdown.borrow() && self.sender.blocking_send((batch, Instant::now())).is_ok();
        self.reading_since = Instant::now();
        delivered
    }

    fn tell(&self, reader: &TraceReader, frames_read: i64) {
        (self.progress)(TraceProgress {
            bytes_read: reader.bytes_read(),
            bytes_total: reader.bytes_total(),
            frames_read,
            frames_committed: self.lane.committed.load(Ordering::Acquire),
        });
    }
}
