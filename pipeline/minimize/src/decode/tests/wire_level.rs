//! Frames made of fields instead of events: what the wire format can say and no encoder writes.

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use super::*;

/// A frame before it is bytes.
#[derive(Debug)]
pub(super) struct Frame {
    fields: Vec<Field>,
    /// Bytes cut off its end.
    cut: usize,
}

#[derive(Debug, Clone)]
struct Field {
    number: u32,
    value: Value,
}

#[derive(Debug, Clone)]
enum Value {
    /// A number, with so many bytes more than it takes.
    Varint(u64, usize),
    /// A number of ten bytes whose last one has more than the one bit that is left.
    BeyondSixtyFourBits(u8),
    Fixed64([u8; 8]),
    Fixed32([u8; 4]),
    /// With this much added to its length.
    Bytes(Vec<u8>, u64),
    /// Numbers one after the other, as a repeated field may be written.
    Packed(Vec<u64>),
    Message(Vec<Field>),
    Group(Vec<Field>),
    /// A wire type alone: an end of no group, or one that does not exist.
    Bare(u8),
}

impl Frame {
    pub(super) fn encoded(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.fields.iter().for_each(|field| field.encode(&mut out));
        out.truncate(out.len().saturating_sub(self.cut));
        out
    }
}

impl Field {
    fn encode(&self, out: &mut Vec<u8>) {
        let key = |wire_type: u8, out: &mut Vec<u8>| varint(u64::from(self.number) << 3 | u64::from(wire_type), 0, out);
        let delimited = |content: &[u8], added: u64, out: &mut Vec<u8>| {
            key(2, out);
            varint((content.len() as u64).wrapping_add(added), 0, out);
            out.extend_from_slice(content);
        };
        let nested = |fields: &[Self]| {
            let mut content = Vec::new();
            fields.iter().for_each(|field| field.encode(&mut content));
            content
        };
        match &self.value {
            Value::Varint(value, padding) => {
                key(0, out);
                varint(*value, *padding, out);
            }
            Value::BeyondSixtyFourBits(last) => {
                key(0, out);
                out.extend_from_slice(&[0x81, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, *last]);
            }
            Value::Fixed64(bytes) => {
                key(1, out);
                out.extend_from_slice(bytes);
            }
            Value::Fixed32(bytes) => {
                key(5, out);
                out.extend_from_slice(bytes);
            }
            Value::Bytes(content, added) => delimited(content, *added, out),
            Value::Packed(numbers) => {
                let mut content = Vec::new();
                numbers.iter().for_each(|number| varint(*number, 0, &mut content));
                delimited(&content, 0, out);
            }
            Value::Message(fields) => delimited(&nested(fields), 0, out),
            Value::Group(fields) => {
                key(3, out);
                out.extend_from_slice(&nested(fields));
                key(4, out);
            }
            Value::Bare(wire_type) => key(*wire_type, out),
        }
    }
}

fn varint(value: u64, padding: usize, out: &mut Vec<u8>) {
    prost::encoding::encode_varint(value, out);
    if padding > 0 {
        *out.last_mut().expect("a varint has a byte") |= 0x80;
        out.extend(std::iter::repeat_n(0x80, padding - 1));
        out.push(0);
    }
}

fn a_number() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0..8_u64,
        // A negative enum, as every encoder writes it: sign-extended to ten bytes.
        2 => (i32::MIN..0).prop_map(|value| i64::from(value).cast_unsigned()),
        1 => prop::sample::select(vec![u64::MAX, 1 << 63, 1 << 32, (1 << 32) + 3, u64::from(u32::MAX), 1_767_614_400_000]),
        1 => any::<u64>(),
    ]
}

/// What an honest producer puts into a field of this wire type, or nearly.
fn a_value(wire_type: u8) -> BoxedStrategy<Value> {
    match wire_type {
        0 => (a_number(), prop_oneof![6 => Just(0_usize), 1 => 1..4_usize])
            .prop_map(|(value, padding)| Value::Varint(value, padding))
            .boxed(),
        1 => any::<[u8; 8]>().prop_map(Value::Fixed64).boxed(),
        5 => any::<[u8; 4]>().prop_map(Value::Fixed32).boxed(),
        _ => prop_oneof![
            12 => "[ -~]{0,12}".prop_map(|text| Value::Bytes(text.into_bytes(), 0)),
            1 => proptest::collection::vec(any::<u8>(), 0..8).prop_map(|bytes| Value::Bytes(bytes, 0)),
        ]
        .boxed(),
    }
}

/// What breaks the format or the schema.
fn a_wrong_value() -> BoxedStrategy<Value> {
    prop_oneof![
        (a_number(), 7..12_usize).prop_map(|(value, padding)| Value::Varint(value, padding)),
        (2..0x80_u8).prop_map(Value::BeyondSixtyFourBits),
        prop::sample::select(vec![0_u8, 1, 2, 5]).prop_flat_map(a_value),
        proptest::collection::vec(a_number(), 0..4).prop_map(Value::Packed),
        (proptest::collection::vec(any::<u8>(), 0..8), prop::sample::select(vec![1, u64::MAX, 1 << 32, 1 << 63]))
            .prop_map(|(bytes, added)| Value::Bytes(bytes, added)),
        proptest::collection::vec(0..8_u64, 0..3).prop_map(|values| Value::Group(
            values.into_iter().map(|v| Field { number: 1, value: Value::Varint(v, 0) }).collect()
        )),
        prop::sample::select(vec![3_u8, 4, 6, 7]).prop_map(Value::Bare),
    ]
    .boxed()
}

/// A field of this message, known or not.
fn a_field(message: &'static str) -> BoxedStrategy<Field> {
    let known: Vec<_> = FIELDS.iter().filter(|field| field.message == message).collect();
    let honest = prop::sample::select(known.clone()).prop_flat_map(|field| {
        let walked = WALKED.iter().find(|(_, member)| field.message == "Event" && *member == field.number);
        let value = match walked {
            Some((inner, _)) => proptest::collection::vec(a_field(inner), 0..4).prop_map(Value::Message).boxed(),
            None => a_value(field.wire_type),
        };
        value.prop_map(|value| Field { number: field.number, value })
    });
    let unknown = (
        prop::sample::select(vec![8_u32, 12, 37, 127, 2_048, (1 << 28) + 1, (1 << 29) - 1]),
        prop::sample::select(vec![0_u8, 1, 2, 5]),
    )
        .prop_flat_map(|(number, wire_type)| a_value(wire_type).prop_map(move |value| Field { number, value }));
    let numbers: Vec<u32> = known.iter().map(|field| field.number).chain([0, 37, (1 << 29) - 1]).collect();
    let wrong = (prop::sample::select(numbers), a_wrong_value()).prop_map(|(number, value)| Field { number, value });
    prop_oneof![16 => honest, 4 => unknown, 1 => wrong].boxed()
}

pub(super) fn a_frame() -> impl Strategy<Value = Frame> {
    let fields = proptest::collection::vec(a_field("Event"), 0..8);
    // A body field three times out of four, and often one body after another: what a oneof and a merge make of it.
    let bodies: Vec<_> = WALKED.iter().filter(|(_, member)| *member >= 16).collect();
    let body = prop::sample::select(bodies).prop_flat_map(|(inner, member)| {
        proptest::collection::vec(proptest::collection::vec(a_field(inner), 0..4), 0..3).prop_map(|bodies| {
            bodies.into_iter().map(|fields| Field { number: *member, value: Value::Message(fields) }).collect::<Vec<_>>()
        })
    });
    (fields, body, prop_oneof![9 => Just(0_usize), 1 => 1..6_usize]).prop_map(|(mut fields, body, cut)| {
        fields.extend(body);
        Frame { fields, cut }
    })
}

/// What a frame has in it that the decoder could get wrong.
fn reached(frame: &Frame) -> Vec<&'static str> {
    fn look(message: &'static str, fields: &[Field], out: &mut Vec<&'static str>) {
        for (place, field) in fields.iter().enumerate() {
            let known = FIELDS.iter().find(|known| known.message == message && known.number == field.number);
            let again = fields[..place].iter().any(|before| before.number == field.number);
            match &field.value {
                Value::Varint(value, padding) => {
                    out.extend(again.then_some("scalar given twice"));
                    out.extend((*padding > 0).then_some("overlong varint"));
                    out.extend((*padding >= 10).then_some("endless varint"));
                    out.extend(
                        (known.is_some() && i32::try_from(value.cast_signed()).is_ok_and(i32::is_negative))
                            .then_some("negative enum"),
                    );
                    out.extend((known.is_some() && *value > u64::from(u32::MAX)).then_some("more than 32 bits"));
                }
                Value::Bytes(_, added) => {
                    out.extend((again && known.is_some()).then_some("text given twice"));
                    out.extend((*added > 0).then_some("wrong length"));
                }
                Value::Packed(_) => out.extend(known.is_some_and(|known| known.wire_type == 0).then_some("packed scalar")),
                Value::Group(_) => out.push("group"),
                Value::BeyondSixtyFourBits(_) => out.push("beyond 64 bits"),
                Value::Bare(_) => out.push("bare key"),
                Value::Fixed64(_) | Value::Fixed32(_) => out.push("fixed"),
                Value::Message(inner) => {
                    if let Some((name, _)) = WALKED.iter().find(|(_, member)| *member == field.number) {
                        let is_body = |field: &Field| field.number >= 16 && known.is_some();
                        let last_body = fields[..place].iter().rev().find(|before| is_body(before) && before.number < 37);
                        if is_body(field) {
                            out.extend(
                                last_body.map(|last| if last.number == field.number { "body merged" } else { "body replaced" }),
                            );
                        } else {
                            out.extend(again.then_some("message merged"));
                        }
                        look(name, inner, out);
                    }
                }
            }
            out.extend((field.number == (1 << 29) - 1).then_some("largest field number"));
            out.extend((field.number == 0).then_some("field number 0"));
            out.extend(known.is_none().then_some("unknown field"));
        }
    }
    let mut out = Vec::new();
    look("Event", &frame.fields, &mut out);
    out.extend((frame.cut > 0).then_some("cut off"));
    out
}

/// A generator that does not reach what it was written for proves nothing.
#[test]
fn the_frames_reach_what_a_decoder_gets_wrong() {
    const WANTED_IN_READABLE_FRAMES: &[&str] = &[
        "scalar given twice",
        "text given twice",
        "overlong varint",
        "negative enum",
        "more than 32 bits",
        "fixed",
        "body merged",
        "body replaced",
        "message merged",
        "largest field number",
        "unknown field",
    ];
    const WANTED_IN_REFUSED_FRAMES: &[&str] =
        &["endless varint", "beyond 64 bits", "wrong length", "packed scalar", "group", "bare key", "field number 0", "cut off"];
    let mut runner = TestRunner::deterministic();
    let frames = a_frame();
    let (mut readable, mut refused) = (Vec::new(), Vec::new());
    for _ in 0..4_000 {
        let frame = frames.new_tree(&mut runner).expect("a frame").current();
        let into = if read(&frame.encoded()[..]).is_ok() { &mut readable } else { &mut refused };
        into.push(reached(&frame));
    }
    assert!(readable.len() > 1_500 && refused.len() > 500, "{} readable, {} refused", readable.len(), refused.len());
    for (wanted, frames) in [(WANTED_IN_READABLE_FRAMES, &readable), (WANTED_IN_REFUSED_FRAMES, &refused)] {
        for what in wanted {
            let times = frames.iter().filter(|frame| frame.contains(what)).count();
            assert!(times >= 10, "{what}: only {times} of {} frames", frames.len());
        }
    }
}
