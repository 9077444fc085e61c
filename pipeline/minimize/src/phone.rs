//! Phone numbers: as they stand in a frame, and in their one canonical form. Neither can be printed, copied or written out.

use starling_schemas::codes::Country;
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::country;

/// Fewest digits of a number that is taken.
const MIN_DIGITS: usize = 7;
/// Most digits of an E.164 number (ITU-T E.164, 6.2.1).
const MAX_DIGITS: usize = 15;
/// Bytes that digits are padded to.
pub(crate) const PADDED_DIGITS: usize = 16;
/// Longest written form that is looked at: 15 digits with a separator after each, and some room.
const MAX_WRITTEN_BYTES: usize = 48;

/// A number as it stands in a frame, borrowed and not yet looked at.
///
/// No `Debug`, `Display`, `Copy` or `Serialize`: the only way on is [`RawNumber::canonical`].
#[derive(Default)]
pub(crate) struct RawNumber<'a>(&'a [u8]);

impl<'a> RawNumber<'a> {
    pub(crate) const fn new(written: &'a [u8]) -> Self {
        Self(written)
    }

    /// Whether the field was absent or empty: a guest, or a business's own event (P58).
    pub(crate) const fn is_absent(&self) -> bool {
        self.0.is_empty()
    }

    /// The canonical form; `None` when it is no E.164 number.
    #[inline]
    pub(crate) fn canonical(&self) -> Option<Phone> {
        Phone::parse(self.0)
    }

    #[cfg(any(test, fuzzing))]
    pub(crate) const fn written(&self) -> &'a [u8] {
        self.0
    }
}

/// A phone number in its canonical form: 7 to 15 digits of E.164, country calling code first, no sign.
///
/// It lives on the stack, is overwritten when dropped, and has no `Debug`, `Display`, `Clone`, `Copy` or `Serialize` (I4, P31;
/// `tests/compile_fail` proves it). What can be had from it is a [`Pseudonym`](starling_schemas::ids::Pseudonym) under an
/// [`EpochKey`](crate::EpochKey), and its country.
#[derive(ZeroizeOnDrop)]
pub struct Phone {
    /// ASCII digits, the first one lowest, padded with `0`. One wide integer, so that it is moved and overwritten whole.
    digits: u128,
    length: u8,
}

/// Eight times the digit `0`.
const PADDING: u64 = 0x3030_3030_3030_3030;

/// Whether all eight bytes are ASCII digits: their high halves are 3, also after adding 6 to the low ones.
#[inline]
const fn all_digits(bytes: u64) -> bool {
    const HIGH: u64 = 0xf0f0_f0f0_f0f0_f0f0;
    bytes & HIGH == PADDING && bytes.wrapping_add(0x0606_0606_0606_0606) & HIGH == PADDING
}

impl Phone {
    /// Reads the international form: digits, with or without a leading `+`; spaces, `-`, `.`, `(` and `)` are passed over.
    ///
    /// Refused (`None`): fewer than 7 or more than 15 digits; a leading `0`, so also the dialling prefix `00`, which is not
    /// international everywhere; a trunk zero in brackets, as in `+44 (0)20`, which is no part of the number; any other byte,
    /// invalid UTF-8 included. Whether the number is in service is not asked: plans change, and a pseudonym needs no plan.
    #[must_use]
    #[inline]
    pub fn parse(written: &[u8]) -> Option<Self> {
        match Self::of_plain_digits(written.strip_prefix(b"+").unwrap_or(written)) {
            Some(phone) => phone.checked(),
            None => Self::parse_with_separators(written),
        }
    }

    /// Takes 8 to 15 bytes that are all digits, which is nearly every number, in two registers and without a copy in memory.
    #[inline]
    fn of_plain_digits(plain: &[u8]) -> Option<Self> {
        if plain.len() > MAX_DIGITS {
            return None;
        }
        let front = u64::from_le_bytes(*plain.first_chunk()?);
        let back = u64::from_le_bytes(*plain.last_chunk()?);
        // How many bytes of `back` are not in `front`, as bits.
        let fresh = 8 * u32::try_from(plain.len() - 8).ok()?;
        let back = back.checked_shr(64 - fresh).unwrap_or_default() | (PADDING << fresh);
        (all_digits(front) && all_digits(back)).then(|| Self {
            digits: u128::from(front) | (u128::from(back) << 64),
            length: plain.len().try_into().unwrap_or_default(),
        })
    }

    fn parse_with_separators(written: &[u8]) -> Option<Self> {
        if written.len() > MAX_WRITTEN_BYTES {
            return None;
        }
        let written = written.trim_ascii_start();
        let mut digits = Zeroizing::new([b'0'; PADDED_DIGITS]);
        let mut length = 0;
        let mut in_bracket_start = false;
        for &byte in written.strip_prefix(b"+").unwrap_or(written) {
            match byte {
                b'0' if in_bracket_start => return None,
                b'0'..=b'9' if length < MAX_DIGITS => {
                    in_bracket_start = false;
                    *digits.get_mut(length)? = byte;
                    length += 1;
                }
                b'(' => in_bracket_start = true,
                b' ' | b'-' | b'.' | b')' => {}
                _ => return None,
            }
        }
        Self { digits: u128::from_le_bytes(*digits), length: u8::try_from(length).ok()? }.checked()
    }

    /// What E.164 asks beyond being digits.
    #[inline]
    fn checked(self) -> Option<Self> {
        (usize::from(self.length) >= MIN_DIGITS && self.digits & 0xff != u128::from(b'0')).then_some(self)
    }

    /// The country or territory whose numbering plan the number belongs to, as far as its leading digits tell (P4).
    #[must_use]
    #[inline]
    pub fn country(&self) -> Country {
        country::of_digits(&self.padded())
    }

    /// Whether it stands before another one: an order of all numbers, in which equal ones are neither before nor behind each other.
    #[inline]
    pub(crate) const fn is_below(&self, other: &Self) -> bool {
        self.length < other.length || (self.length == other.length && self.digits < other.digits)
    }

    /// How many digits there are.
    #[inline]
    pub(crate) const fn length(&self) -> u8 {
        self.length
    }

    /// ASCII digits, and zero bytes behind them. Stays inside this crate.
    #[inline]
    pub(crate) const fn zero_padded(&self) -> [u8; PADDED_DIGITS] {
        // 15 digits at most, so the shift is below 128.
        let digits = (1_u128 << (8 * self.length as u32)) - 1;
        (self.digits & digits).to_le_bytes()
    }

    /// ASCII digits, padded with `0` behind [`length`](Self::length). Stays inside this crate.
    #[inline]
    pub(crate) const fn padded(&self) -> [u8; PADDED_DIGITS] {
        self.digits.to_le_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn digits(phone: &Phone) -> Vec<u8> {
        phone.padded()[..usize::from(phone.length())].to_vec()
    }

    fn canonical(written: &str) -> Option<String> {
        Phone::parse(written.as_bytes()).map(|p| String::from_utf8(digits(&p)).expect("digits"))
    }

    #[test]
    fn one_number_has_one_canonical_form() {
        for written in ["4915112345678", "+4915112345678", " +49 151 1234-5678", "+49 (151) 1234.5678", "+49-151-12345678 "] {
            assert_eq!(canonical(written).as_deref(), Some("4915112345678"), "{written}");
        }
    }

    #[test]
    fn what_is_no_e164_number_is_refused() {
        let refused = [
            "",
            "+",
            "123456",
            "+123456",
            "1234567890123456",
            "0049151123456",
            "+0491511234",
            "0151123456",
            "+44 (0)20 7946 0018",
            "+44 ( 0)20 7946 0018",
            "++4915112345678",
            "49+15112345678",
            "4915112345678x1",
            "٤٩١٥١١٢٣٤٥٦٧٨",
            "49151/1234567",
            "+4 9 1 5 1 1 2 3 4 5 6 7 8                                  ",
        ];
        for written in refused {
            assert_eq!(canonical(written), None, "{written}");
        }
        assert!(Phone::parse(&[b'4', b'9', 0xff, b'1', b'5', b'1', b'1', b'2', b'3', b'4', b'5']).is_none());
    }

    #[test]
    fn the_shortest_and_the_longest_are_taken() {
        assert_eq!(canonical("+2901234").as_deref(), Some("2901234"));
        assert_eq!(canonical("123456789012345").as_deref(), Some("123456789012345"));
    }

    proptest! {
        #[test]
        fn the_quick_way_and_the_careful_way_agree(written in "\\+?[0-9]{0,17}[ x0-9]?") {
            let careful = Phone::parse_with_separators(written.as_bytes()).map(|p| digits(&p));
            prop_assert_eq!(Phone::parse(written.as_bytes()).map(|p| digits(&p)), careful);
        }

        #[test]
        fn any_bytes_give_digits_or_nothing(written in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(phone) = Phone::parse(&written) {
                let found = digits(&phone);
                prop_assert!((MIN_DIGITS..=MAX_DIGITS).contains(&found.len()));
                prop_assert!(found.iter().all(u8::is_ascii_digit));
                prop_assert!(Phone::parse(&found).is_some_and(|again| digits(&again) == found));
            }
        }
    }
}
