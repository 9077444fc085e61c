//! Schema-registry framing, taken off while a payload is copied.
//!
//! A payload written through a schema registry begins with byte 0, a four-byte schema id, and for protobuf the path to the message type:
//! a zigzag varint with the number of indexes and then as many zigzag varints, where the common path `[0]` is written as a single byte 0.
//! A plain protobuf message never begins with byte 0, because field number 0 does not exist, so the two cannot be confused.

/// Most message indexes that are believed: no schema nests deeper.
const MAX_INDEXES: u64 = 32;

/// The protobuf message in `payload`.
///
/// Without framing that is `payload` itself. With framing it is what follows. When the framing is broken it is `payload` unchanged: it
/// begins with tag 0, so the decoder counts it as malformed, and it is quarantined with its length like any other unreadable event.
#[must_use]
pub fn event_bytes(payload: &[u8]) -> &[u8] {
    match payload.first() {
        Some(0) => body(payload).unwrap_or(payload),
        _ => payload,
    }
}

/// What follows a complete framing.
fn body(payload: &[u8]) -> Option<&[u8]> {
    let (count, mut rest) = zigzag(payload.get(5..)?)?;
    if count > MAX_INDEXES {
        return None;
    }
    for _ in 0..count {
        rest = zigzag(rest)?.1;
    }
    Some(rest)
}

/// Reads a zigzag varint that may not be negative.
fn zigzag(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (raw, used) = varint(bytes)?;
    (raw & 1 == 0).then_some(())?;
    Some((raw >> 1, bytes.get(used..)?))
}

/// Reads a varint of at most ten bytes: its value and its length. `None` when it is cut off or too long.
#[must_use]
pub fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0u64;
    for (i, byte) in bytes.iter().take(10).enumerate() {
        let part = u64::from(byte & 0x7f);
        if i == 9 && part > 1 {
            return None;
        }
        value |= part << (7 * i);
        if byte & 0x80 == 0 {
            return Some((value, i + 1));
        }
    }
    None
}

/// Appends `value` as a varint.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn framed(indexes: &[u64], body: &[u8]) -> Vec<u8> {
        let mut out = vec![0, 0, 0, 0, 42];
        if indexes == [0] {
            out.push(0);
        } else {
            put_varint(&mut out, (indexes.len() as u64) << 1);
            for i in indexes {
                put_varint(&mut out, i << 1);
            }
        }
        out.extend_from_slice(body);
        out
    }

    #[test]
    fn a_plain_message_and_an_empty_one_stay_as_they_are() {
        assert_eq!(event_bytes(b"\x08\x01"), b"\x08\x01");
        assert_eq!(event_bytes(b""), b"");
    }

    #[test]
    fn framing_is_taken_off_whatever_the_path_to_the_message_type() {
        for indexes in [&[0][..], &[1], &[2, 0], &[300, 5, 1]] {
            assert_eq!(event_bytes(&framed(indexes, b"\x08\x01")), b"\x08\x01");
            assert_eq!(event_bytes(&framed(indexes, b"")), b"");
        }
    }

    #[test]
    fn broken_framing_is_handed_on_and_still_begins_with_tag_zero() {
        let endless = [0, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        let negative_count = [0, 0, 0, 0, 1, 0x03, 0x08];
        let too_many = [0, 0, 0, 0, 1, 0xfe, 0x7f, 0x08];
        let cut_off = [0, 0, 0, 0, 1, 0x04, 0x02];
        for broken in [&[0][..], &[0, 0, 0, 1], &[0, 0, 0, 0, 1], &endless, &negative_count, &too_many, &cut_off] {
            assert_eq!(event_bytes(broken), broken);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_what_comes_out_is_the_end_of_what_went_in(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            prop_assert!(bytes.ends_with(event_bytes(&bytes)));
        }

        #[test]
        fn varints_come_back(value: u64) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            prop_assert_eq!(varint(&out), Some((value, out.len())));
        }
    }
}
