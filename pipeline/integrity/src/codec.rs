//! A small binary form for saved state: fixed-width numbers, little end first, and byte strings with their length before them.

use crate::IntegrityError;

/// Writes.
#[derive(Debug, Default)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    pub(crate) fn u8(&mut self, v: u8) {
        self.0.push(v);
    }
    pub(crate) fn u32(&mut self, v: u32) {
        self.0.extend_from_slice(&v.to_le_bytes());
    }
    pub(crate) fn i32(&mut self, v: i32) {
        self.0.extend_from_slice(&v.to_le_bytes());
    }
    pub(crate) fn i64(&mut self, v: i64) {
        self.0.extend_from_slice(&v.to_le_bytes());
    }
    /// A number of things that follow.
    pub(crate) fn count(&mut self, n: usize) {
        self.u32(u32::try_from(n).unwrap_or(u32::MAX));
    }
    pub(crate) fn bytes(&mut self, v: &[u8]) {
        self.count(v.len());
        self.0.extend_from_slice(v);
    }
}

/// Reads, and says at what it failed.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    part: &'static str,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, part: "beginning" }
    }

    /// Names what is read from here on, for an error.
    pub(crate) fn part(&mut self, part: &'static str) {
        self.part = part;
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], IntegrityError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(IntegrityError::Snapshot(self.part))?;
        self.rest = rest;
        Ok(*head)
    }
    pub(crate) fn u8(&mut self) -> Result<u8, IntegrityError> {
        Ok(self.array::<1>()?[0])
    }
    pub(crate) fn u32(&mut self) -> Result<u32, IntegrityError> {
        Ok(u32::from_le_bytes(self.array()?))
    }
    pub(crate) fn i32(&mut self) -> Result<i32, IntegrityError> {
        Ok(i32::from_le_bytes(self.array()?))
    }
    pub(crate) fn i64(&mut self) -> Result<i64, IntegrityError> {
        Ok(i64::from_le_bytes(self.array()?))
    }
    /// A number of things that follow, each of at least `bytes` bytes: a damaged number is found before memory is asked for.
    pub(crate) fn count(&mut self, bytes: usize) -> Result<usize, IntegrityError> {
        let n = self.u32()? as usize;
        if n.saturating_mul(bytes.max(1)) > self.rest.len() { Err(IntegrityError::Snapshot(self.part)) } else { Ok(n) }
    }
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], IntegrityError> {
        let n = self.count(1)?;
        let (head, rest) = self.rest.split_at_checked(n).ok_or(IntegrityError::Snapshot(self.part))?;
        self.rest = rest;
        Ok(head)
    }
    pub(crate) fn text(&mut self) -> Result<String, IntegrityError> {
        let part = self.part;
        std::str::from_utf8(self.bytes()?).map(str::to_owned).map_err(|_| IntegrityError::Snapshot(part))
    }
    pub(crate) fn end(&self) -> Result<(), IntegrityError> {
        if self.rest.is_empty() { Ok(()) } else { Err(IntegrityError::Snapshot("end")) }
    }
}
