//! The canonical form of a phone number, against a naive reading of its rules and against the `phonenumber` crate.

use std::sync::LazyLock;

use phonenumber::Mode;
use starling_minimize::{EpochKey, Phone, Zeroizing};
use starling_schemas::ids::{EpochId, Integrity, Purpose};

const KEY: [u8; 32] = [7; 32];
const EPOCH: EpochId = EpochId(20_458);

/// Panics unless any written form gives the digits that the rules of [`Phone::parse`] give, or nothing where they give nothing.
///
/// `Phone` does not show its digits, so two numbers are compared by what can be had of them: their pseudonym under one key, which is a
/// function of the digits without collisions to be met, and which is made here a second time by its documented layout.
pub fn check(written: &[u8]) {
    let expected = by_the_rules(written);
    assert_eq!(canonical(written), expected.as_deref().map(keyed), "other digits than the rules give");
    let Some(digits) = expected else { return };
    for same in [&digits, &format!("+{digits}")] {
        assert_eq!(canonical(same.as_bytes()), Some(keyed(&digits)), "the canonical form is not its own canonical form");
    }
}

/// Panics unless what Google's metadata calls a valid number is a number here, and every way in which the library writes it is the same one.
pub fn check_with_plans(written: &[u8]) {
    let Some(digits) = by_the_rules(written) else { return };
    let plus = &format!("+{digits}");
    let Ok(number) = phonenumber::parse(None, plus) else { return };
    if !number.is_valid() {
        return;
    }
    let written = |mode| number.format().mode(mode).to_string();
    let e164 = written(Mode::E164);
    let canonical_e164 = canonical(e164.as_bytes());
    assert!(canonical_e164.is_some(), "a valid number is none here");
    // The library's digits may be others than ours: it takes off a national prefix written after the country code (+44 020…), and it puts the
    // area code before a local number where the country has but one (+1 670 5810 is read as +1 670 670 5810). Both take the country's plan,
    // which is not known here: such a form is another number, and E.164, which the schema asks for, is the form that is not ambiguous.
    assert_eq!(canonical(written(Mode::International).as_bytes()), canonical_e164, "another number with separators");
}

/// The pseudonym of the number as written, by the crate.
fn canonical(written: &[u8]) -> Option<[u8; 16]> {
    Phone::parse(written).map(|phone| *EpochKey::<Integrity>::open(Zeroizing::new(KEY), EPOCH).person(&phone).as_bytes())
}

/// The pseudonym of these digits, by the layout that `keyed.rs` documents.
fn keyed(digits: &str) -> [u8; 16] {
    static PREFIX: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let mut prefix = Vec::new();
        for part in [Purpose::Integrity.to_string().as_bytes(), &EPOCH.0.to_be_bytes(), b"phone"] {
            prefix.push(u8::try_from(part.len()).expect("short"));
            prefix.extend_from_slice(part);
        }
        prefix
    });
    let mut input = PREFIX.clone();
    input.push(u8::try_from(digits.len()).expect("short"));
    input.extend_from_slice(digits.as_bytes());
    input.resize(64, 0);
    blake3::keyed_hash(&KEY, &input).as_bytes()[..16].try_into().expect("16 bytes")
}

/// The rules, one after the other, over text.
fn by_the_rules(written: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(written).ok()?;
    // Plain digits may not be longer than 15 anyway; what is longer than this is no number with separators.
    if text.len() > 48 {
        return None;
    }
    let text = text.trim_start_matches(|c: char| c.is_ascii_whitespace());
    let text = text.strip_prefix('+').unwrap_or(text);
    if !text.chars().all(|c| c.is_ascii_digit() || " -.()".contains(c)) {
        return None;
    }
    // No trunk zero in brackets: the first digit after one opens.
    let digits_of = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
    if text.split('(').skip(1).any(|behind| digits_of(behind).starts_with('0')) {
        return None;
    }
    let digits = digits_of(text);
    (7..=15).contains(&digits.len()).then_some(digits).filter(|digits| !digits.starts_with('0'))
}
