//! Values of parameters as drivers send them: as text or in binary, of a type that the driver names or that the statement tells.
//!
//! | type there | value here |
//! |---|---|
//! | `bool` | true or false |
//! | `int2`, `int4`, `int8`, `oid` | a whole number |
//! | `float4`, `float8`, `numeric` | a double |
//! | `text`, `varchar`, `bpchar`, `char`, `name`, `uuid` | text |
//! | `date`; `timestamp`, `timestamptz` | a day; a moment in UTC |
//!
//! Where the driver names no type it is that of what the parameter is compared with, and else text. What cannot be read is refused with the
//! parameter's number and never with its value.

use bytes::Bytes;
use jiff::civil::{Date, DateTime, date};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use starling_query::{Kind, Value};

use crate::doors::Refusal;

/// One parameter: PostgreSQL's name for its type, 0 where there is none, and its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) oid: u32,
    pub(super) kind: Kind,
}

/// The kind of a type that a driver names.
fn kind_of(oid: u32) -> Option<Kind> {
    Some(match oid {
        16 => Kind::Bool,
        20 | 21 | 23 | 26 => Kind::Whole,
        700 | 701 | 1700 => Kind::Float,
        18 | 19 | 25 | 705 | 1042 | 1043 | 2950 => Kind::Text,
        1082 => Kind::Day,
        1114 | 1184 => Kind::Moment,
        _ => return None,
    })
}

/// The type that a kind is told as.
const fn oid_of(kind: Kind) -> u32 {
    match kind {
        Kind::Bool => 16,
        Kind::Whole => 20,
        Kind::Float => 701,
        Kind::Text => 25,
        Kind::Day => 1082,
        Kind::Moment => 1114,
    }
}

/// The parameters of a statement, from what the statement tells and what the driver names.
///
/// # Errors
/// A type that is not taken, or types for more parameters than there are.
pub(super) fn slots(told: &[Option<Kind>], named: &[u32]) -> Result<Vec<Slot>, Refusal> {
    if named.len() > told.len() {
        let reason = format!("types are given for {} parameters, and the statement has {}", named.len(), told.len());
        return Err(Refusal::new("08P01", reason, "number the parameters $1, $2, … without a gap"));
    }
    let slot = |(at, told): (usize, &Option<Kind>)| match named.get(at).copied().unwrap_or(0) {
        0 => {
            let kind = told.unwrap_or(Kind::Text);
            Ok(Slot { oid: oid_of(kind), kind })
        }
        oid => {
            let kind = kind_of(oid).ok_or_else(|| {
                Refusal::new(
                    "0A000",
                    format!("parameter {} has a type that is not taken here", at + 1),
                    "numbers, text, booleans, days and moments are; give a list as one parameter for each value, as in IN ($1, $2)",
                )
            })?;
            Ok(Slot { oid, kind })
        }
    };
    told.iter().enumerate().map(slot).collect()
}

/// Reads the values of a Bind.
///
/// # Errors
/// Another number of values, formats that are none, and values that are not of their type.
pub(super) fn read(slots: &[Slot], formats: &[i16], values: &[Option<Bytes>]) -> Result<Vec<Value>, Refusal> {
    if values.len() != slots.len() {
        let reason = format!("{} values are bound to a statement with {} parameters", values.len(), slots.len());
        return Err(Refusal::new("08P01", reason, "bind one value to each parameter"));
    }
    if (formats.len() > 1 && formats.len() != values.len()) || formats.iter().any(|code| !(0..=1).contains(code)) {
        return Err(Refusal::new(
            "08P01",
            "formats of parameters do not fit their number",
            "this is a fault of the client's driver",
        ));
    }
    let each = slots.iter().zip(values).enumerate();
    each.map(|(at, (slot, value))| {
        let is_binary = formats.get(at).or(formats.first().filter(|_| formats.len() == 1)) == Some(&1);
        let Some(bytes) = value else { return Ok(Value::Null(slot.kind)) };
        let read = if is_binary { binary(slot.oid, bytes) } else { text(slot.kind, bytes) };
        read.ok_or_else(|| {
            let what = match slot.kind {
                Kind::Bool => "a boolean",
                Kind::Whole => "a whole number of 64 bits",
                Kind::Float => "a number",
                Kind::Text => "text in UTF-8",
                Kind::Day => "a day",
                Kind::Moment => "a moment",
            };
            let hint = "bind a value of this type, or CAST the parameter where it stands, as in $1::text";
            Refusal::new("22P02", format!("parameter {} is not {what}", at + 1), hint)
        })
    })
    .collect()
}

fn text(kind: Kind, bytes: &[u8]) -> Option<Value> {
    // PostgreSQL has no text with a zero in it either.
    let text = std::str::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))?;
    let plain = text.trim();
    match kind {
        Kind::Text => Some(Value::Text(text.to_owned())),
        Kind::Bool => match plain.to_ascii_lowercase().as_str() {
            "t" | "true" | "on" | "yes" | "y" | "1" => Some(Value::Bool(true)),
            "f" | "false" | "off" | "no" | "n" | "0" => Some(Value::Bool(false)),
            _ => None,
        },
        Kind::Whole => plain.parse().ok().map(Value::Whole),
        Kind::Float => plain.parse().ok().map(Value::Float),
        Kind::Day => {
            // JDBC adds the client's zone to a day: "2026-01-05 +00".
            let (day, rest) = plain.split_at_checked(10)?;
            let is_zone = rest.bytes().all(|byte| byte.is_ascii_digit() || b" +-:.TZ".contains(&byte));
            let day: Date = day.parse().ok().filter(|_| is_zone)?;
            Some(Value::Day(day.to_string()))
        }
        Kind::Moment => {
            let moment = plain.parse::<Timestamp>().map(|moment| moment.to_zoned(TimeZone::UTC).datetime());
            moment.or_else(|_| plain.parse::<DateTime>()).ok().map(|moment| Value::Moment(moment.to_string()))
        }
    }
}

fn binary(oid: u32, bytes: &[u8]) -> Option<Value> {
    match oid {
        16 => match bytes {
            [0] => Some(Value::Bool(false)),
            [1] => Some(Value::Bool(true)),
            _ => None,
        },
        20 => Some(Value::Whole(i64::from_be_bytes(bytes.try_into().ok()?))),
        21 => Some(Value::Whole(i16::from_be_bytes(bytes.try_into().ok()?).into())),
        23 => Some(Value::Whole(i32::from_be_bytes(bytes.try_into().ok()?).into())),
        26 => Some(Value::Whole(u32::from_be_bytes(bytes.try_into().ok()?).into())),
        // By way of its shortest text: 0.1 is 0.1.
        700 => f32::from_be_bytes(bytes.try_into().ok()?).to_string().parse().ok().map(Value::Float),
        701 => Some(Value::Float(f64::from_be_bytes(bytes.try_into().ok()?))),
        1700 => numeric(bytes).map(Value::Float),
        1082 => {
            let days = i32::from_be_bytes(bytes.try_into().ok()?);
            let day = date(2000, 1, 1).checked_add(Span::new().try_days(days).ok()?).ok()?;
            Some(Value::Day(day.to_string()))
        }
        1114 | 1184 => {
            let micros = i64::from_be_bytes(bytes.try_into().ok()?);
            let epoch = date(2000, 1, 1).at(0, 0, 0, 0).to_zoned(TimeZone::UTC).ok()?.timestamp();
            let moment = Timestamp::from_microsecond(epoch.as_microsecond().checked_add(micros)?).ok()?;
            Some(Value::Moment(moment.to_zoned(TimeZone::UTC).datetime().to_string()))
        }
        2950 => {
            let hex = format!("{:032x}", u128::from_be_bytes(bytes.try_into().ok()?));
            Some(Value::Text([&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")))
        }
        _ => text(Kind::Text, bytes),
    }
}

/// PostgreSQL's decimal: four counts, then digits of base 10,000.
fn numeric(bytes: &[u8]) -> Option<f64> {
    let mut words = bytes.chunks_exact(2).map(|word| i16::from_be_bytes([word[0], word[1]]));
    let (count, weight, sign) = (words.next()?, words.next()?, words.next()?);
    let _digits_shown = words.next()?;
    let digits: Vec<i16> = words.collect();
    if !bytes.len().is_multiple_of(2)
        || usize::try_from(count) != Ok(digits.len())
        || digits.iter().any(|digit| !(0..10_000).contains(digit))
    {
        return None;
    }
    let minus = match sign {
        0 => "",
        0x4000 => "-",
        -0x4000 => return Some(f64::NAN),
        -0x3000 => return Some(f64::INFINITY),
        -0x1000 => return Some(f64::NEG_INFINITY),
        _ => return None,
    };
    let shown: String = digits.iter().map(|digit| format!("{digit:04}")).collect();
    // As text, so that it is rounded once.
    format!("{minus}0{shown}e{}", (i32::from(weight) + 1 - i32::from(count)) * 4).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(kind: Kind, text: &str) -> Result<Value, Refusal> {
        let slot = Slot { oid: oid_of(kind), kind };
        read(&[slot], &[], &[Some(Bytes::copy_from_slice(text.as_bytes()))]).map(|mut values| values.remove(0))
    }

    fn in_binary(oid: u32, bytes: &[u8]) -> Option<Value> {
        let slot = Slot { oid, kind: kind_of(oid)? };
        read(&[slot], &[1], &[Some(Bytes::copy_from_slice(bytes))]).ok().map(|mut values| values.remove(0))
    }

    #[test]
    fn text_and_binary_give_the_same_value() {
        let day = (20_458_i32 - 10_957).to_be_bytes();
        let moment = (1_767_607_200_500_i64 - 946_684_800_000) * 1000;
        for (kind, written, oid, bytes) in [
            (Kind::Bool, "t", 16, &[1][..]),
            (Kind::Whole, "-3", 21, &(-3_i16).to_be_bytes()),
            (Kind::Whole, "-9223372036854775808", 20, &i64::MIN.to_be_bytes()),
            (Kind::Whole, "4294967295", 26, &u32::MAX.to_be_bytes()),
            (Kind::Float, "0.1", 701, &0.1_f64.to_be_bytes()),
            (Kind::Float, "0.1", 700, &0.1_f32.to_be_bytes()),
            (Kind::Float, "Infinity", 701, &f64::INFINITY.to_be_bytes()),
            // 12345.678 and -0.0001, as PostgreSQL's numeric_send writes them.
            (Kind::Float, "12345.678", 1700, &[0, 3, 0, 1, 0, 0, 0, 3, 0, 1, 9, 41, 26, 124]),
            (Kind::Float, "-0.0001", 1700, &[0, 1, 255, 255, 64, 0, 0, 4, 0, 1]),
            (Kind::Day, "2026-01-05", 1082, &day),
            (Kind::Day, "2026-01-05 +00", 1082, &day),
            (Kind::Moment, "2026-01-05 10:00:00.5", 1114, &moment.to_be_bytes()),
            (Kind::Moment, "2026-01-05 11:00:00.5+01", 1184, &moment.to_be_bytes()),
            (Kind::Moment, "2026-01-05T10:00:00.5Z", 1184, &moment.to_be_bytes()),
            (Kind::Text, "'; DROP TABLE x --", 25, b"'; DROP TABLE x --"),
            (
                Kind::Text,
                "00112233-4455-6677-8899-aabbccddeeff",
                2950,
                &[0, 17, 34, 51, 68, 85, 102, 119, 136, 153, 170, 187, 204, 221, 238, 255],
            ),
        ] {
            let read = one(kind, written);
            assert!(read.is_ok() && read.ok() == in_binary(oid, bytes), "{written}");
        }
    }

    #[test]
    fn i4_what_is_not_of_its_type_is_refused_by_number_and_never_shown() {
        for (kind, text) in [
            (Kind::Bool, "4917012345678"),
            (Kind::Whole, "4917012345678x"),
            (Kind::Whole, "1 OR 1"),
            (Kind::Whole, "99999999999999999999"),
            (Kind::Float, "1e4917012345678x"),
            (Kind::Day, "2026-01-05' OR '"),
            (Kind::Day, "2026-02-30"),
            (Kind::Moment, "4917012345678"),
            (Kind::Text, "4917012345678\0"),
        ] {
            let Err(error) = one(kind, text) else { panic!("{text} is taken") };
            assert_eq!(error.code, "22P02");
            assert!(
                error.reason.starts_with("parameter 1 is not ") && !format!("{error:?}").contains("4917012345678"),
                "{error:?}"
            );
        }
        for (oid, bytes) in
            [(16, &[2][..]), (20, &[0; 4]), (23, &[0; 8]), (25, b"\xff"), (1700, &[0, 1, 0, 0, 0, 0, 0, 0]), (2950, &[0; 3])]
        {
            assert!(in_binary(oid, bytes).is_none(), "{oid}");
        }
        let far = in_binary(1082, &i32::MAX.to_be_bytes()).is_none() && in_binary(1114, &i64::MAX.to_be_bytes()).is_none();
        assert!(far, "infinity is no day");
    }

    #[test]
    fn counts_formats_and_types_that_do_not_fit_are_refused() {
        let slot = Slot { oid: 25, kind: Kind::Text };
        let value = || Some(Bytes::from_static(b"x"));
        let code = |result: Result<Vec<Value>, Refusal>| result.err().map(|error| error.code);
        assert_eq!(code(read(&[slot], &[], &[])), Some("08P01"));
        assert_eq!(code(read(&[slot], &[0, 0, 0], &[value()])), Some("08P01"));
        assert_eq!(code(read(&[slot], &[7], &[value()])), Some("08P01"));
        assert!(read(&[slot, slot], &[1], &[value(), None]).is_ok_and(|values| values[1] == Value::Null(Kind::Text)));
        assert_eq!(slots(&[None], &[25, 25]).expect_err("two for one").code, "08P01");
        assert_eq!(slots(&[None], &[1007]).expect_err("a list").code, "0A000");
        let mixed = slots(&[Some(Kind::Day), None, Some(Kind::Whole)], &[0, 0, 701]).expect("fits");
        assert_eq!(mixed.iter().map(|slot| slot.oid).collect::<Vec<_>>(), [1082, 25, 701]);
    }
}
