//! The protobuf wire format, over a borrowed window of bytes. Nothing is copied and what is skipped is not read.
//!
//! Source: protobuf.dev, "Encoding". Groups (wire types 3 and 4) are deprecated and would need a walk through their content, so
//! they fail closed as [`Fault::Malformed`].

use starling_schemas::codes::Fault;

/// A borrowed run of bytes that can be walked from its front.
///
/// Production code walks `&[u8]`. Tests walk a window with a poisoned range in it, which proves which bytes are never touched (P1).
pub(crate) trait Window<'a>: Copy {
    /// Whether no byte is left.
    fn is_empty(self) -> bool;
    /// Reads one byte off the front.
    fn byte(&mut self) -> Option<u8>;
    /// Cuts `length` bytes off the front without reading them; `None` if fewer are left.
    fn cut(&mut self, length: usize) -> Option<Self>;
    /// The bytes themselves. Whoever calls this may read them.
    fn bytes(self) -> &'a [u8];
}

impl<'a> Window<'a> for &'a [u8] {
    #[inline]
    fn is_empty(self) -> bool {
        <[u8]>::is_empty(self)
    }

    #[inline]
    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.split_first()?;
        *self = rest;
        Some(first)
    }

    #[inline]
    fn cut(&mut self, length: usize) -> Option<Self> {
        let (front, rest) = self.split_at_checked(length)?;
        *self = rest;
        Some(front)
    }

    #[inline]
    fn bytes(self) -> &'a [u8] {
        self
    }
}

/// How a field's value is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WireType {
    /// Wire type 0.
    Varint,
    /// Wire type 1.
    Fixed64,
    /// Wire type 2.
    Delimited,
    /// Wire type 5.
    Fixed32,
}

/// Reads a varint of at most ten bytes and 64 bits.
#[inline]
pub(crate) fn varint<'a, W: Window<'a>>(window: &mut W) -> Result<u64, Fault> {
    let first = window.byte().ok_or(Fault::Malformed)?;
    if first < 0x80 {
        return Ok(u64::from(first));
    }
    // Keys of `body` take two bytes.
    let second = window.byte().ok_or(Fault::Malformed)?;
    let value = u64::from(first & 0x7f) | (u64::from(second & 0x7f) << 7);
    if second < 0x80 {
        return Ok(value);
    }
    longer_varint(window, value)
}

fn longer_varint<'a, W: Window<'a>>(window: &mut W, mut value: u64) -> Result<u64, Fault> {
    let mut shift = 14;
    while shift < 63 {
        let byte = window.byte().ok_or(Fault::Malformed)?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
        shift += 7;
    }
    // The tenth byte has room for one bit.
    match window.byte() {
        Some(byte @ 0..=1) => Ok(value | (u64::from(byte) << 63)),
        _ => Err(Fault::Malformed),
    }
}

/// Reads a field's number and wire type.
#[inline]
pub(crate) fn key<'a, W: Window<'a>>(window: &mut W) -> Result<(u32, WireType), Fault> {
    let key = u32::try_from(varint(window)?).map_err(|_| Fault::Malformed)?;
    let wire_type = match key & 7 {
        0 => WireType::Varint,
        1 => WireType::Fixed64,
        2 => WireType::Delimited,
        5 => WireType::Fixed32,
        _ => return Err(Fault::Malformed),
    };
    match key >> 3 {
        0 => Err(Fault::Malformed),
        number => Ok((number, wire_type)),
    }
}

/// Reads the value of a known varint field.
#[inline]
pub(crate) fn number<'a, W: Window<'a>>(window: &mut W, found: WireType) -> Result<u64, Fault> {
    match found {
        WireType::Varint => varint(window),
        _ => Err(Fault::WrongWireType),
    }
}

/// Cuts out the value of a known length-delimited field, unread.
#[inline]
pub(crate) fn delimited<'a, W: Window<'a>>(window: &mut W, found: WireType) -> Result<W, Fault> {
    match found {
        WireType::Delimited => cut_delimited(window),
        _ => Err(Fault::WrongWireType),
    }
}

#[inline]
fn cut_delimited<'a, W: Window<'a>>(window: &mut W) -> Result<W, Fault> {
    let length = usize::try_from(varint(window)?).map_err(|_| Fault::Malformed)?;
    window.cut(length).ok_or(Fault::Malformed)
}

/// Skips the value of an unknown field by its length.
#[inline]
pub(crate) fn skip<'a, W: Window<'a>>(window: &mut W, found: WireType) -> Result<(), Fault> {
    match found {
        WireType::Varint => varint(window).map(|_| ()),
        WireType::Fixed64 => window.cut(8).map(|_| ()).ok_or(Fault::Malformed),
        WireType::Delimited => cut_delimited(window).map(|_| ()),
        WireType::Fixed32 => window.cut(4).map(|_| ()).ok_or(Fault::Malformed),
    }
}

/// A window that panics when a byte of its poisoned range is read: stands for an unreadable memory page.
#[cfg(test)]
#[derive(Clone, Copy)]
pub(crate) struct Poisoned<'a> {
    whole: &'a [u8],
    start: usize,
    end: usize,
    poison: (usize, usize),
}

#[cfg(test)]
impl<'a> Poisoned<'a> {
    pub(crate) fn new(whole: &'a [u8], poison: std::ops::Range<usize>) -> Self {
        Self { whole, start: 0, end: whole.len(), poison: (poison.start, poison.end) }
    }
}

#[cfg(test)]
impl<'a> Window<'a> for Poisoned<'a> {
    fn is_empty(self) -> bool {
        self.start == self.end
    }

    fn byte(&mut self) -> Option<u8> {
        if self.start == self.end {
            return None;
        }
        assert!(!(self.poison.0..self.poison.1).contains(&self.start), "byte {} was read", self.start);
        self.start += 1;
        Some(self.whole[self.start - 1])
    }

    fn cut(&mut self, length: usize) -> Option<Self> {
        if length > self.end - self.start {
            return None;
        }
        let front = Self { end: self.start + length, ..*self };
        self.start += length;
        Some(front)
    }

    fn bytes(self) -> &'a [u8] {
        assert!(self.end <= self.poison.0 || self.start >= self.poison.1, "bytes {}..{} were read", self.start, self.end);
        &self.whole[self.start..self.end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_end_within_ten_bytes_and_sixty_four_bits() {
        let read = |mut bytes: &[u8]| varint(&mut bytes);
        assert_eq!(read(&[0x00]), Ok(0));
        assert_eq!(read(&[0xac, 0x02]), Ok(300));
        assert_eq!(read(&[0x80, 0x00]), Ok(0), "an overlong zero is still a varint");
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]), Ok(u64::MAX));
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]), Err(Fault::Malformed));
        assert_eq!(read(&[0x80; 11]), Err(Fault::Malformed));
        assert_eq!(read(&[0x80]), Err(Fault::Malformed));
        assert_eq!(read(&[]), Err(Fault::Malformed));
    }

    #[test]
    fn keys_with_groups_or_without_a_number_are_malformed() {
        let read = |mut bytes: &[u8]| key(&mut bytes);
        assert_eq!(read(&[0x0a]), Ok((1, WireType::Delimited)));
        for wrong in [&[0x0b][..], &[0x0c], &[0x0e], &[0x0f], &[0x02], &[0x80, 0x80, 0x80, 0x80, 0x10]] {
            assert_eq!(read(wrong), Err(Fault::Malformed), "{wrong:?}");
        }
    }

    #[test]
    fn a_length_beyond_the_window_is_malformed() {
        let mut bytes: &[u8] = &[0x05, 1, 2, 3, 4];
        assert_eq!(skip(&mut bytes, WireType::Delimited), Err(Fault::Malformed));
        let mut bytes: &[u8] = &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0];
        assert_eq!(skip(&mut bytes, WireType::Delimited), Err(Fault::Malformed));
    }
}
