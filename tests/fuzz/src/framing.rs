//! Schema-registry framing, against `prost`'s varints and a naive reader; and what cannot be unframed is quarantined.

use crate::wire::{event_bytes, put_varint, varint};

/// Panics unless the framing is taken off as its rules say, and varints are `prost`'s.
pub fn check(payload: &[u8]) {
    let found = event_bytes(payload);
    let unframed = match payload.first() {
        Some(0) => by_the_rules(payload),
        _ => Some(payload),
    };
    assert!(std::ptr::eq(found, unframed.unwrap_or(payload)), "another place where the event begins");
    if unframed.is_none() {
        // Tag 0, which the decoder calls malformed: the broken framing becomes one quarantined event.
        assert_eq!(found.first(), Some(&0));
    }

    let mut rest = payload;
    let theirs = prost::encoding::decode_varint(&mut rest).ok();
    assert_eq!(varint(payload), theirs.map(|value| (value, payload.len() - rest.len())), "another varint than prost's");
    if let Some(value) = theirs {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        put_varint(&mut ours, value);
        prost::encoding::encode_varint(value, &mut theirs);
        assert_eq!(ours, theirs, "another encoding than prost's");
    }
}

/// Byte 0, four bytes of schema id, how many indexes, the indexes.
fn by_the_rules(payload: &[u8]) -> Option<&[u8]> {
    let mut rest = payload.get(5..)?;
    let mut next = || {
        let raw = prost::encoding::decode_varint(&mut rest).ok()?;
        (raw % 2 == 0).then_some(raw / 2)
    };
    // No schema nests deeper than 32.
    let indexes = next().filter(|count| *count <= 32)?;
    for _ in 0..indexes {
        next()?;
    }
    Some(rest)
}
