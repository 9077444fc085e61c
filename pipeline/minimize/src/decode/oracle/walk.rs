//! What the wire format and the schema's table say of a frame: whether it must be refused, and what of it may be touched.

use std::ops::Range;

use starling_schemas::codes::Fault;
use starling_schemas::fields::FIELDS;

use super::WALKED;
use crate::wire::Window;

/// Fields whose bytes are taken, by message and name.
const TAKEN: &[(&str, &str)] = &[
    ("Event", "actor"),
    ("Event", "cohort"),
    ("MessageSent", "to_person"),
    ("GroupCreated", "group"),
    ("MembersAdded", "group"),
    ("GroupJoinedByLink", "group"),
    ("GroupLeft", "group"),
    ("GroupProfileChanged", "group"),
    ("GroupProfileChanged", "name_hash"),
    ("GroupProfileChanged", "description_hash"),
    ("GroupProfileChanged", "photo_hash"),
    ("GroupReported", "group"),
    ("UserBlocked", "person"),
    ("ReportFiled", "person"),
];

/// The same, and they must be text.
const TAKEN_AS_TEXT: &[(&str, &str)] = &[
    ("BusinessMessage", "business"),
    ("BusinessMessage", "portfolio"),
    ("BusinessMessage", "template"),
    ("UserBlocked", "business"),
    ("UserBlocked", "template"),
    ("ReportFiled", "business"),
    ("ReportFiled", "template"),
    ("BusinessInformation", "business"),
    ("BusinessInformation", "portfolio"),
    ("BusinessInformation", "name"),
];

/// Fields of which so many bytes at the front are taken, by message and name.
const TAKEN_AT_FRONT: &[(&str, &str, usize)] = &[("Client", "version", 12)];

/// Why a frame must be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    Broken,
    Group,
    WrongWireType,
}

impl Refused {
    pub(super) fn fault(self) -> Fault {
        match self {
            Self::Broken | Self::Group => Fault::Malformed,
            Self::WrongWireType => Fault::WrongWireType,
        }
    }
}

/// A walk over the frame by the schema's table, with its own reading of the wire format.
#[derive(Default)]
pub(super) struct Walk {
    /// What the decoder may not touch, in rising order.
    pub(super) untouched: Vec<Range<usize>>,
}

impl Walk {
    pub(super) fn message(&mut self, name: &str, frame: &[u8], within: Range<usize>) -> Result<(), Refused> {
        let mut at = within.start;
        while at < within.end {
            let key = u32::try_from(varint(frame, &mut at, within.end)?).map_err(|_| Refused::Broken)?;
            let (number, wire_type) = (key >> 3, key & 7);
            match wire_type {
                _ if number == 0 => return Err(Refused::Broken),
                0 | 1 | 2 | 5 => {}
                3 | 4 => return Err(Refused::Group),
                _ => return Err(Refused::Broken),
            }
            let known = FIELDS.iter().find(|field| field.number == number && field.message == name);
            if known.is_some_and(|field| u32::from(field.wire_type) != wire_type) {
                return Err(Refused::WrongWireType);
            }
            let length = match wire_type {
                0 => {
                    varint(frame, &mut at, within.end)?;
                    continue;
                }
                1 => 8,
                5 => 4,
                _ => varint(frame, &mut at, within.end)?,
            };
            let left = within.end - at;
            let length = usize::try_from(length).ok().filter(|length| *length <= left).ok_or(Refused::Broken)?;
            let value = at..at + length;
            at = value.end;
            let inner = WALKED.iter().find(|(_, member)| name == "Event" && *member == number);
            let is_in = |list: &[(&str, &str)]| known.is_some_and(|field| list.contains(&(name, field.field)));
            let front =
                TAKEN_AT_FRONT.iter().find(|(message, field, _)| is_in(&[(message, field)])).map_or(0, |(.., bytes)| *bytes);
            match inner {
                Some((inner, _)) => self.message(inner, frame, value)?,
                None if is_in(TAKEN) => {}
                None if is_in(TAKEN_AS_TEXT) => drop(std::str::from_utf8(&frame[value]).map_err(|_| Refused::Broken)?),
                None => self.untouched.extend((value.len() > front).then_some(value.start + front..value.end)),
            }
        }
        Ok(())
    }
}

/// A varint of at most ten bytes and 64 bits that ends before `end`.
fn varint(frame: &[u8], at: &mut usize, end: usize) -> Result<u64, Refused> {
    let mut value = 0u128;
    for place in 0..10 {
        let byte = *frame[..end].get(*at).ok_or(Refused::Broken)?;
        *at += 1;
        value |= u128::from(byte & 0x7f) << (7 * place);
        if byte < 0x80 {
            return u64::try_from(value).map_err(|_| Refused::Broken);
        }
    }
    Err(Refused::Broken)
}

/// A window that panics when a byte is read that no allowlisted field holds.
#[derive(Clone, Copy)]
pub(super) struct Watched<'a> {
    whole: &'a [u8],
    start: usize,
    end: usize,
    untouched: &'a [Range<usize>],
}

impl<'a> Watched<'a> {
    pub(super) fn new(whole: &'a [u8], untouched: &'a [Range<usize>]) -> Self {
        Self { whole, start: 0, end: whole.len(), untouched }
    }

    /// Passes over `length` bytes that may be read.
    fn read(&mut self, length: usize) -> &'a [u8] {
        let read = self.start..self.start + length;
        let first = self.untouched.partition_point(|range| range.end <= read.start);
        if let Some(range) = self.untouched.get(first) {
            assert!(range.start >= read.end, "bytes {read:?} were read, and {range:?} must not be touched");
        }
        self.start = read.end;
        &self.whole[read]
    }
}

impl<'a> Window<'a> for Watched<'a> {
    fn is_empty(self) -> bool {
        self.start == self.end
    }

    fn byte(&mut self) -> Option<u8> {
        (self.start < self.end).then(|| self.read(1)[0])
    }

    fn cut(&mut self, length: usize) -> Option<Self> {
        (length <= self.end - self.start).then(|| {
            let front = Self { end: self.start + length, ..*self };
            self.start = front.end;
            front
        })
    }

    fn bytes(mut self) -> &'a [u8] {
        self.read(self.end - self.start)
    }
}
