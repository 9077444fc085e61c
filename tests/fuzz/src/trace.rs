//! The reader of trace files, against a naive reader of the unpacked bytes; and what was written is read.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;

use crate::IngestError;
use crate::files::{BUFFER_BYTES, FrameRead, MAX_FRAME_BYTES, TraceReader, TraceWriter};

/// Beyond this many unpacked bytes only panics and memory are looked at: a few compressed bytes can be gigabytes.
const UNPACKED_LIMIT: u64 = 4 << 20;
/// The same, in frames: each costs a call.
const FRAMES_LIMIT: usize = 50_000;
/// Largest content that is written and read again.
const ROUND_TRIP_LIMIT: usize = 4 << 10;

/// Panics unless the file is read as what it is: frame by frame, its end told as what it is, with memory for what is there and no more.
pub fn check(file: &[u8]) {
    let read = read_as("input", file);
    let (content, whole) = unpacked(file);
    if content.len() as u64 >= UNPACKED_LIMIT || read.frames.len() >= FRAMES_LIMIT {
        return;
    }
    let expected = by_the_rules(&content);
    if whole {
        assert_eq!(read, expected, "another reading of the same bytes");
    } else {
        // How much an unpacker hands out before it meets the damage is its own matter.
        // A giant frame that the file breaks off in is told as too large, and nothing follows it.
        let within_a_giant = matches!(read.frames.last(), Some(Err(_)));
        assert!(read.end != End::Between || within_a_giant, "a broken compression is told as a good end");
        let both = read.frames.len().min(expected.frames.len());
        assert_eq!(read.frames[..both], expected.frames[..both], "another reading of the same bytes");
    }
    // Making compressors costs more than all the rest.
    if whole && content.len() <= ROUND_TRIP_LIMIT && content.len() % 4 == 0 {
        what_was_written_is_read(&expected.frames, file.len());
    }
}

/// What a trace was read as.
#[derive(Debug, PartialEq, Eq)]
struct Trace {
    /// `Err`: too large, of this many bytes, passed over.
    frames: Vec<Result<Vec<u8>, u64>>,
    end: End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Between,
    Within,
    Damaged,
}

fn read(path: &Path) -> Trace {
    let mut reader = TraceReader::open(path).expect("the file is there");
    let mut frames = Vec::new();
    let end = loop {
        let mut frame = Vec::new();
        let read = reader.next_frame(&mut frame);
        assert!(frame.capacity() <= 2 * frame.len() + 8192, "{} bytes of memory for {}", frame.capacity(), frame.len());
        match read {
            Ok(FrameRead::Frame) => frames.push(Ok(frame)),
            Ok(FrameRead::TooLarge(length)) => {
                assert!(length > MAX_FRAME_BYTES && frame.is_empty());
                frames.push(Err(length));
            }
            Ok(FrameRead::End) => break End::Between,
            Ok(FrameRead::Truncated) => break End::Within,
            Err(IngestError::TraceDamaged { frame, .. }) => {
                assert_eq!(usize::try_from(frame), Ok(frames.len()), "the damage is told at another frame");
                break End::Damaged;
            }
            Err(error) => panic!("the file system is in order: {error:?}"),
        }
        if frames.len() >= FRAMES_LIMIT {
            break End::Between;
        }
    };
    if end != End::Between {
        assert!(matches!(reader.next_frame(&mut Vec::new()), Ok(FrameRead::End)), "something behind the end");
    }
    Trace { frames, end }
}

fn read_as(name: &str, file: &[u8]) -> Trace {
    scratch(|dir| {
        let path = dir.join(name);
        std::fs::write(&path, file).expect("scratch space");
        read(&path)
    })
}

/// The bytes behind the compression, if there is one, and whether all of them came out.
fn unpacked(file: &[u8]) -> (Vec<u8>, bool) {
    if !file.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        return (file.to_vec(), true);
    }
    // In requests of the reader's size: what the library makes of a damaged file depends on them, down to whether it is damaged at all.
    let decoder = zstd::stream::read::Decoder::new(file).expect("a decoder").take(UNPACKED_LIMIT);
    let mut decoder = BufReader::with_capacity(BUFFER_BYTES, decoder);
    let mut content = Vec::new();
    let whole = loop {
        match decoder.fill_buf() {
            Ok([]) => break true,
            Ok(there) => {
                content.extend_from_slice(there);
                let count = there.len();
                decoder.consume(count);
            }
            Err(_) => break false,
        }
    };
    (content, whole)
}

/// Length, frame, length, frame.
fn by_the_rules(mut content: &[u8]) -> Trace {
    let mut frames = Vec::new();
    let end = loop {
        if content.is_empty() {
            break End::Between;
        }
        let before = content;
        let Ok(length) = prost::encoding::decode_varint(&mut content) else {
            // Ten bytes and no end of it, or more than 64 bits: no length. Fewer, and the file ended.
            let is_cut_off = before.len() < 10 && before.iter().all(|byte| *byte >= 0x80);
            break if is_cut_off { End::Within } else { End::Damaged };
        };
        let there = usize::try_from(length).ok().filter(|length| *length <= content.len());
        match there {
            Some(length) => {
                let (frame, rest) = content.split_at(length);
                frames.push(Ok(frame.to_vec()));
                content = rest;
            }
            None if length > MAX_FRAME_BYTES => {
                frames.push(Err(length));
                break End::Between;
            }
            None => break End::Within,
        }
    };
    Trace { frames, end }
}

fn what_was_written_is_read(frames: &[Result<Vec<u8>, u64>], cut: usize) {
    let frames: Vec<_> = frames.iter().flatten().cloned().collect();
    let expected = Trace { frames: frames.iter().cloned().map(Ok).collect(), end: End::Between };
    for name in ["written", "written.zst"] {
        let written = scratch(|dir| {
            let path = dir.join(name);
            let mut writer = TraceWriter::create(&path).expect("scratch space");
            frames.iter().for_each(|frame| writer.write(frame).expect("scratch space"));
            writer.finish().expect("scratch space");
            assert_eq!(read(&path), expected, "{name}: something else than what was written");
            std::fs::read(&path).expect("the file is there")
        });
        // Below four bytes it is no compressed file any more.
        if name.ends_with(".zst") && written.len() > 4 {
            let cut = read_as("cut", &written[..4 + cut % (written.len() - 4)]);
            assert_eq!(cut.end, End::Within, "a compressed file cut off is told as something else");
            assert!(expected.frames.starts_with(&cut.frames), "a cut made other frames");
        }
    }
}

/// A folder of this thread's own. `run.sh` points it to memory.
fn scratch<T>(use_it: impl FnOnce(&Path) -> T) -> T {
    thread_local! {
        static DIR: tempfile::TempDir = tempfile::tempdir().expect("a temporary folder");
    }
    DIR.with(|dir| use_it(dir.path()))
}
