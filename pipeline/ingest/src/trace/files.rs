//! Trace files: frames behind their lengths, plain or zstd.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::IngestError;
use crate::wire::put_varint;

/// Longest frame that is read into memory: 64 MiB. A longer one is passed over by its length.
pub const MAX_FRAME_BYTES: u64 = 64 << 20;
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const ZSTD_LEVEL: i32 = 3;
/// A file is read, unpacked and written this many bytes at a time.
pub const BUFFER_BYTES: usize = 256 << 10;

/// What was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameRead {
    /// A whole frame; it is in the buffer.
    Frame,
    /// The file ends within a frame. Nothing follows.
    Truncated,
    /// The file ends between two frames.
    End,
    /// A frame of this many bytes, above [`MAX_FRAME_BYTES`]: passed over if the file is that long, otherwise nothing follows.
    TooLarge(u64),
}

enum Source {
    Plain(BufReader<Counted>),
    Zstd(Box<BufReader<zstd::stream::read::Decoder<'static, BufReader<Counted>>>>),
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(reader) => reader.read(buffer),
            // Always through the buffer, also for a frame that is longer: the unpacker sees the same requests whatever the frames are, since
            // how much of a damaged file it hands out before it tells the damage depends on them.
            Self::Zstd(reader) => {
                let there = reader.fill_buf()?;
                let count = there.len().min(buffer.len());
                buffer[..count].copy_from_slice(&there[..count]);
                reader.consume(count);
                Ok(count)
            }
        }
    }
}

/// Counts what is read of the file, for progress.
struct Counted {
    file: File,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// Reads a trace from its beginning.
pub struct TraceReader {
    source: Source,
    path: PathBuf,
    bytes_read: Arc<AtomicU64>,
    bytes_total: u64,
    frame: i64,
    over: bool,
}

impl TraceReader {
    /// Opens a trace; whether it is compressed is seen from its first bytes.
    ///
    /// # Errors
    /// [`IngestError::File`].
    pub fn open(path: &Path) -> Result<Self, IngestError> {
        let error = |e: std::io::Error| IngestError::file(path, "opening a trace", &e);
        let mut file = File::open(path).map_err(error)?;
        let bytes_total = file.metadata().map_err(error)?.len();
        let mut magic = Vec::with_capacity(ZSTD_MAGIC.len());
        Read::by_ref(&mut file).take(ZSTD_MAGIC.len() as u64).read_to_end(&mut magic).map_err(error)?;
        std::io::Seek::rewind(&mut file).map_err(error)?;
        let bytes_read = Arc::new(AtomicU64::new(0));
        let reader = BufReader::with_capacity(BUFFER_BYTES, Counted { file, read: Arc::clone(&bytes_read) });
        let source = if magic == ZSTD_MAGIC {
            let decoder = zstd::stream::read::Decoder::with_buffer(reader).map_err(error)?;
            Source::Zstd(Box::new(BufReader::with_capacity(BUFFER_BYTES, decoder)))
        } else {
            Source::Plain(reader)
        };
        Ok(Self { source, path: path.to_path_buf(), bytes_read, bytes_total, frame: 0, over: false })
    }

    /// Reads the next frame into `frame`, which keeps its memory from call to call.
    ///
    /// # Errors
    /// [`IngestError::File`], or [`IngestError::TraceDamaged`] if the compression or a length is broken.
    pub fn next_frame(&mut self, frame: &mut Vec<u8>) -> Result<FrameRead, IngestError> {
        frame.clear();
        if self.over {
            return Ok(FrameRead::End);
        }
        let read = self.read_frame(frame);
        self.over = !matches!(read, Ok(FrameRead::Frame | FrameRead::TooLarge(_))) || self.over;
        self.frame += 1;
        read
    }

    fn read_frame(&mut self, frame: &mut Vec<u8>) -> Result<FrameRead, IngestError> {
        let length = match self.length()? {
            Ok(length) => length,
            Err(end) => return Ok(end),
        };
        if length > MAX_FRAME_BYTES {
            let passed = std::io::copy(&mut (&mut self.source).take(length), &mut std::io::sink());
            self.over = match passed {
                Ok(passed) => passed < length,
                Err(e) if e.kind() == ErrorKind::UnexpectedEof => true,
                Err(e) => return Err(self.failed(&e)),
            };
            return Ok(FrameRead::TooLarge(length));
        }
        // Grows with what is really there: a wrong length does not allocate.
        match (&mut self.source).take(length).read_to_end(frame) {
            Ok(got) if got as u64 == length => Ok(FrameRead::Frame),
            Ok(_) => Ok(FrameRead::Truncated),
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => Ok(FrameRead::Truncated),
            Err(e) => Err(self.failed(&e)),
        }
    }

    /// The next length, or how the file ends.
    fn length(&mut self) -> Result<Result<u64, FrameRead>, IngestError> {
        let mut value = 0u64;
        for i in 0..10u32 {
            let mut byte = [0u8];
            match self.source.read_exact(&mut byte) {
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::UnexpectedEof => {
                    // A compressed file that was cut off may end anywhere: whether it ended well is for the decoder to say.
                    return Ok(Err(if i == 0 && self.ended_well() { FrameRead::End } else { FrameRead::Truncated }));
                }
                Err(e) => return Err(self.failed(&e)),
            }
            let part = u64::from(byte[0] & 0x7f);
            if i == 9 && part > 1 {
                break;
            }
            value |= part << (7 * i);
            if byte[0] & 0x80 == 0 {
                return Ok(Ok(value));
            }
        }
        Err(self.damaged())
    }

    /// At the end of what could be read: `true` unless the compression breaks off.
    fn ended_well(&mut self) -> bool {
        let mut byte = [0u8];
        matches!(self.source.read(&mut byte), Ok(0))
    }

    fn failed(&self, error: &std::io::Error) -> IngestError {
        match (&self.source, error.kind()) {
            (Source::Zstd(_), ErrorKind::Other | ErrorKind::InvalidData) => self.damaged(),
            _ => IngestError::file(&self.path, "reading a trace", error),
        }
    }

    fn damaged(&self) -> IngestError {
        IngestError::TraceDamaged { path: self.path.display().to_string(), frame: self.frame }
    }

    /// Bytes of the file read so far.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }

    /// Bytes of the file.
    #[must_use]
    pub fn bytes_total(&self) -> u64 {
        self.bytes_total
    }
}

enum Sink {
    Plain(BufWriter<File>),
    Zstd(Box<zstd::stream::write::Encoder<'static, BufWriter<File>>>),
}

/// Writes a trace.
pub struct TraceWriter {
    sink: Sink,
    path: PathBuf,
    length: Vec<u8>,
    at_start: bool,
}

impl TraceWriter {
    /// Makes or replaces the file at `path`; compressed if its name ends in `.zst`.
    ///
    /// # Errors
    /// [`IngestError::File`].
    pub fn create(path: &Path) -> Result<Self, IngestError> {
        let error = |e: std::io::Error| IngestError::file(path, "making a trace", &e);
        let file = BufWriter::with_capacity(BUFFER_BYTES, File::create(path).map_err(error)?);
        let sink = if path.extension().is_some_and(|e| e == "zst") {
            Sink::Zstd(Box::new(zstd::stream::write::Encoder::new(file, ZSTD_LEVEL).map_err(error)?))
        } else {
            Sink::Plain(file)
        };
        Ok(Self { sink, path: path.to_path_buf(), length: Vec::with_capacity(10), at_start: true })
    }

    /// Appends a frame.
    ///
    /// # Errors
    /// [`IngestError::File`].
    pub fn write(&mut self, frame: &[u8]) -> Result<(), IngestError> {
        self.length.clear();
        put_varint(&mut self.length, frame.len() as u64);
        let plain = matches!(self.sink, Sink::Plain(_));
        if std::mem::take(&mut self.at_start) && plain && self.length == ZSTD_MAGIC[..1] && frame.starts_with(&ZSTD_MAGIC[1..]) {
            // A plain file must not begin like a compressed one: the same length in two bytes instead of one.
            self.length = vec![ZSTD_MAGIC[0] | 0x80, 0];
        }
        let sink: &mut dyn Write = match &mut self.sink {
            Sink::Plain(sink) => sink,
            Sink::Zstd(sink) => sink,
        };
        sink.write_all(&self.length)
            .and_then(|()| sink.write_all(frame))
            .map_err(|e| IngestError::file(&self.path, "writing a trace", &e))
    }

    /// Ends the file and makes it durable. A writer dropped without this leaves a truncated trace.
    ///
    /// # Errors
    /// [`IngestError::File`].
    pub fn finish(self) -> Result<(), IngestError> {
        let done = match self.sink {
            Sink::Plain(sink) => sink.into_inner().map_err(std::io::IntoInnerError::into_error),
            Sink::Zstd(sink) => sink.finish().and_then(|w| w.into_inner().map_err(std::io::IntoInnerError::into_error)),
        };
        done.and_then(|file| file.sync_all()).map_err(|e| IngestError::file(&self.path, "finishing a trace", &e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, frames: &[&[u8]]) {
        let mut writer = TraceWriter::create(path).expect("create");
        for frame in frames {
            writer.write(frame).expect("write");
        }
        writer.finish().expect("finish");
    }

    fn read(path: &Path) -> (Vec<Vec<u8>>, FrameRead) {
        let mut reader = TraceReader::open(path).expect("open");
        let (mut frames, mut frame) = (Vec::new(), Vec::new());
        loop {
            match reader.next_frame(&mut frame).expect("read") {
                FrameRead::Frame => frames.push(frame.clone()),
                other => return (frames, other),
            }
        }
    }

    #[test]
    fn frames_come_back_plain_and_compressed_empty_ones_too() {
        let dir = tempfile::tempdir().expect("dir");
        let long = vec![7u8; 100_000];
        let frames: [&[u8]; 4] = [b"one", b"", &long, b"\0"];
        for name in ["a.trace", "a.trace.zst"] {
            let path = dir.path().join(name);
            write(&path, &frames);
            let (got, end) = read(&path);
            assert_eq!(got, frames, "{name}");
            assert_eq!(end, FrameRead::End);
        }
        let zipped = std::fs::read(dir.path().join("a.trace.zst")).expect("file");
        assert_eq!(zipped[..4], ZSTD_MAGIC);
    }

    #[test]
    fn a_plain_file_does_not_begin_like_a_compressed_one() {
        let dir = tempfile::tempdir().expect("dir");
        let mut first = vec![0u8; usize::from(ZSTD_MAGIC[0])];
        first[..3].copy_from_slice(&ZSTD_MAGIC[1..]);
        let path = dir.path().join("t");
        write(&path, &[&first, &first]);
        assert_eq!(read(&path), (vec![first.clone(), first], FrameRead::End));
    }

    #[test]
    fn an_empty_file_is_an_empty_trace() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("empty");
        std::fs::write(&path, b"").expect("file");
        assert_eq!(read(&path), (Vec::new(), FrameRead::End));
    }

    #[test]
    fn a_file_cut_off_anywhere_says_so_or_ends_between_frames() {
        let dir = tempfile::tempdir().expect("dir");
        let plain = dir.path().join("t");
        write(&plain, &[b"abcdef", b"ghi"]);
        let bytes = std::fs::read(&plain).expect("file");
        for cut in 0..bytes.len() {
            std::fs::write(&plain, &bytes[..cut]).expect("file");
            let expected = if cut == 0 || cut == 7 { FrameRead::End } else { FrameRead::Truncated };
            assert_eq!(read(&plain).1, expected, "cut at {cut}");
        }
        let zipped = dir.path().join("t.zst");
        write(&zipped, &[b"abcdef", b"ghi"]);
        let bytes = std::fs::read(&zipped).expect("file");
        for cut in 4..bytes.len() {
            std::fs::write(&zipped, &bytes[..cut]).expect("file");
            assert_eq!(read(&zipped).1, FrameRead::Truncated, "cut at {cut}");
        }
    }

    #[test]
    fn a_gigantic_length_is_seen_before_memory_is_taken() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("t");
        let mut bytes = Vec::new();
        put_varint(&mut bytes, u64::MAX);
        bytes.extend_from_slice(b"rest");
        std::fs::write(&path, &bytes).expect("file");
        let mut reader = TraceReader::open(&path).expect("open");
        let mut frame = Vec::new();
        assert_eq!(reader.next_frame(&mut frame).expect("read"), FrameRead::TooLarge(u64::MAX));
        assert_eq!(reader.next_frame(&mut frame).expect("read"), FrameRead::End);
        assert!(frame.capacity() < 1024);
    }

    #[test]
    fn a_frame_beyond_the_limit_is_passed_over_by_its_length() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("t.zst");
        let giant = vec![0u8; usize::try_from(MAX_FRAME_BYTES).expect("fits") + 1];
        write(&path, &[b"a", &giant, b"b"]);
        let mut reader = TraceReader::open(&path).expect("open");
        let mut frame = Vec::new();
        assert_eq!(reader.next_frame(&mut frame).expect("read"), FrameRead::Frame);
        assert_eq!(reader.next_frame(&mut frame).expect("read"), FrameRead::TooLarge(MAX_FRAME_BYTES + 1));
        assert_eq!(reader.next_frame(&mut frame).expect("read"), FrameRead::Frame);
        assert_eq!(frame, b"b");
        assert_eq!(reader.next_frame(&mut frame).expect("read"), FrameRead::End);
    }

    #[test]
    fn an_endless_length_is_damage() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("t");
        std::fs::write(&path, [0xff; 20]).expect("file");
        let mut reader = TraceReader::open(&path).expect("open");
        assert!(matches!(reader.next_frame(&mut Vec::new()), Err(IngestError::TraceDamaged { frame: 0, .. })));
    }
}
