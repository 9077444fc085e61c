//! Pseudonyms: keyed hashes under a key that lives and dies with its purpose and epoch (design 3.4).
//!
//! ```text
//!  input = u8 length + purpose name | u8 length (4) + epoch as big-endian i32 | u8 length + "phone" | u8 length + ASCII digits | zeros to 64
//!          u8 length + purpose name | u8 length (4) + epoch as big-endian i32 | u8 length + "group", or "cohort" | u32 big-endian length + bytes
//!          u8 length + purpose name | u8 length (4) + epoch as big-endian i32 | u8 length + "voice", or "told" | u32 big-endian length + bytes of the business, or group | bytes of the cohort
//!          u8 length + purpose name | u8 length (4) + epoch as big-endian i32 | u8 length + "phone" | the lower number | the higher one | zeros to 64
//!  pseudonym = first 16 bytes of BLAKE3 keyed_hash(key, input)
//! ```
//!
//! Of the voice's hash nothing but the first byte leaves: the bucket that a cohort is in, on that day and for that business or group.
//!
//! The last one is a pair's: each number as its u8 length and 16 bytes of ASCII digits with zeros behind them. Of its 16 bytes the first eight are the token
//! of the lower number writing to the higher one, the others of the higher one writing to the lower.
//!
//! Every part is length-prefixed, so no two different inputs have the same bytes. A number's input is filled up with zeros to the 64 bytes
//! of one BLAKE3 block: all inputs being of one length is what lets the processor hash up to sixteen numbers side by side (`lanes.rs`).
//! Everything before the digits is laid out once per key.
//!
//! # Privacy
//! Whoever lacks the key cannot match a pseudonym by hashing the whole numbering plan (P12), and once the key is destroyed nobody can.
//! Pseudonyms of different purposes or epochs are unrelated values (P16), and differ in type. 128 bits: with 3·10⁹ people
//! the chance of any collision is below 2⁻⁶⁴ (P21). Assumption: BLAKE3 keyed is a pseudorandom function, the key is uniform.

use std::marker::PhantomData;

use starling_schemas::ids::{Domain, EpochId, Integrity, Pair, Pseudonym, Purpose};
use zeroize::{Zeroize, Zeroizing};

use crate::lanes::Lanes;
use crate::output::Place;
use crate::pairs::directions;
use crate::phone::{PADDED_DIGITS, Phone};

const PHONE: &[u8] = b"phone";
const GROUP: &[u8] = b"group";
const COHORT: &[u8] = b"cohort";
const VOICE: &[u8] = b"voice";
const TOLD: &[u8] = b"told";

/// Longest purpose name that fits.
const MAX_PURPOSE: usize = 24;
const PREFIX_BYTES: usize = 1 + MAX_PURPOSE + 1 + 4 + 1 + PHONE.len();
/// One BLAKE3 block.
pub(crate) const PHONE_INPUT_BYTES: usize = 64;
const _: () = assert!(PREFIX_BYTES + 1 + PADDED_DIGITS <= PHONE_INPUT_BYTES);
const PAIR_PREFIX_BYTES: usize = 1 + Purpose::Pair.name().len() + 1 + 4 + 1 + PHONE.len();
const _: () = assert!(PAIR_PREFIX_BYTES + 2 * (1 + PADDED_DIGITS) <= PHONE_INPUT_BYTES);
/// A number as it stands in a block: its length, and its digits with zeros behind them.
pub(crate) type Written = [u8; 1 + PADDED_DIGITS];
/// Room for group identifiers of up to 64 bytes on the stack; longer ones are hashed piecewise.
const GROUP_INPUT_BYTES: usize = PREFIX_BYTES + 1 + 4 + 64;

/// An open key of one purpose and epoch: the permission to make pseudonyms. Overwritten when dropped; no `Debug`, no `Clone`.
///
/// Numbers wait in it until enough of them can be hashed side by side; `settle` hashes those that wait. Their digits are
/// overwritten as soon as they are hashed, and when the key is dropped.
pub struct EpochKey<D: Domain> {
    key: Zeroizing<[u8; 32]>,
    epoch: EpochId,
    prefix: usize,
    lanes: Lanes,
    domain: PhantomData<D>,
}

impl<D: Domain> EpochKey<D> {
    /// Opens `key`, which must be the one of this domain's purpose and `epoch`.
    #[must_use]
    pub fn open(key: Zeroizing<[u8; 32]>, epoch: EpochId) -> Self {
        let mut block = [0; PHONE_INPUT_BYTES];
        let prefix = write_prefix(&mut block, D::PURPOSE, epoch, PHONE);
        let lanes = Lanes::new(&key, &block);
        Self { key, epoch, prefix, lanes, domain: PhantomData }
    }

    /// The epoch the key belongs to.
    #[must_use]
    pub const fn epoch(&self) -> EpochId {
        self.epoch
    }

    /// The person's pseudonym. The working copy of the digits is overwritten before this returns.
    #[must_use]
    pub fn person(&self, phone: &Phone) -> Pseudonym<D> {
        let mut input = Zeroizing::new([0; PHONE_INPUT_BYTES]);
        let prefix = write_prefix(&mut *input, D::PURPOSE, self.epoch, PHONE);
        write_phone(&mut input, prefix, phone);
        Pseudonym::from_keyed_hash(first_half(&blake3::keyed_hash(&self.key, &*input)))
    }

    /// Appends the person to a column: the value is in its place when `column` has been [settled](Self::settle).
    #[inline]
    pub(crate) fn push_person(&mut self, phone: &Phone, column: &mut impl Place<D>) {
        let place = column.reserve();
        write_phone(self.lanes.block(place), self.prefix, phone);
        if self.lanes.is_full() {
            self.settle(column);
        }
    }

    /// The same for a number that stood in another key's block.
    #[inline]
    pub(crate) fn push_written(&mut self, written: &Written, column: &mut impl Place<D>) {
        let place = column.reserve();
        write(self.lanes.block(place), self.prefix, written);
        if self.lanes.is_full() {
            self.settle(column);
        }
    }

    /// Hashes every number that waits into its place in `column`, and overwrites its digits.
    pub(crate) fn settle(&mut self, column: &mut impl Place<D>) {
        let (prefix, epoch) = (self.prefix, self.epoch);
        self.lanes.hash(prefix, |place, half, block| {
            // A prefix ends where a number fits (`PREFIX_BYTES`).
            if let Some(written) = block.get(prefix..).and_then(<[u8]>::first_chunk) {
                column.fill(place, Pseudonym::from_keyed_hash(half), epoch, written);
            }
        });
    }
}

impl EpochKey<Pair> {
    /// Appends the tokens of two numbers, the lower one first, to a column: the value is in its place when `column` has been settled.
    #[inline]
    pub(crate) fn push_pair(&mut self, low: &Phone, high: &Phone, column: &mut impl Place<Pair>) {
        let place = column.reserve();
        let block = self.lanes.block(place);
        write_phone(block, self.prefix, low);
        write_phone(block, self.prefix + 1 + PADDED_DIGITS, high);
        if self.lanes.is_full() {
            self.settle(column);
        }
    }
}

impl EpochKey<Integrity> {
    /// The keyed form of a group's or channel's identifier. Analytics has no group key (P6), so other domains lack this.
    #[must_use]
    pub fn group(&self, group: &[u8]) -> Pseudonym<Integrity> {
        Pseudonym::from_keyed_hash(hash_opaque(&self.key, self.epoch, GROUP, &[group]))
    }

    /// The keyed form of a registration cohort's identifier: another one than a group's, even where a link that people join by is what they were
    /// registered by.
    #[must_use]
    pub fn cohort(&self, cohort: &[u8]) -> Pseudonym<Integrity> {
        Pseudonym::from_keyed_hash(hash_opaque(&self.key, self.epoch, COHORT, &[cohort]))
    }

    /// Which of 256 buckets a registration cohort is in where somebody of it blocks or reports a business: another one for each business and day, and
    /// none that a cohort's keyed form tells.
    #[must_use]
    pub fn voice(&self, business: &[u8], cohort: &[u8]) -> u8 {
        let [bucket, ..] = hash_opaque(&self.key, self.epoch, VOICE, &[business, cohort]);
        bucket
    }

    /// The same where somebody of it reports a group.
    #[must_use]
    pub fn voice_in_group(&self, group: &[u8], cohort: &[u8]) -> u8 {
        let [bucket, ..] = hash_opaque(&self.key, self.epoch, TOLD, &[group, cohort]);
        bucket
    }
}

/// The pseudonym of a number as bytes, for comparisons with a known truth and for rights requests: the same as what a range gives.
///
/// `e164` in any form that [`Phone::parse`] takes; `None` when it is no number. `key` must be the one of `purpose` and `epoch`.
#[must_use]
pub fn keyed_subject(e164: &str, key: &[u8; 32], purpose: Purpose, epoch: EpochId) -> Option<[u8; 16]> {
    let phone = Phone::parse(e164.as_bytes())?;
    let mut input = Zeroizing::new([0; PHONE_INPUT_BYTES]);
    let prefix = write_prefix(&mut *input, purpose, epoch, PHONE);
    write_phone(&mut input, prefix, &phone);
    Some(first_half(&blake3::keyed_hash(key, &*input)))
}

/// The token of one number writing to another under the pair key of `epoch`, for comparisons with a known truth. `None` when one of them is no
/// number, or both are the same.
#[must_use]
pub fn keyed_pair(from: &str, to: &str, key: &[u8; 32], epoch: EpochId) -> Option<[u8; 8]> {
    let (from, to) = (Phone::parse(from.as_bytes())?, Phone::parse(to.as_bytes())?);
    let is_upward = from.is_below(&to);
    if !is_upward && !to.is_below(&from) {
        return None;
    }
    let (low, high) = if is_upward { (&from, &to) } else { (&to, &from) };
    let mut input = Zeroizing::new([0; PHONE_INPUT_BYTES]);
    let prefix = write_prefix(&mut *input, Purpose::Pair, epoch, PHONE);
    write_phone(&mut input, prefix, low);
    write_phone(&mut input, prefix + 1 + PADDED_DIGITS, high);
    Some(directions(&first_half(&blake3::keyed_hash(key, &*input)), is_upward).0)
}

/// The keyed form of a group's identifier under the integrity key of `epoch`.
#[must_use]
pub fn keyed_group(group: &[u8], key: &[u8; 32], epoch: EpochId) -> [u8; 16] {
    hash_opaque(key, epoch, GROUP, &[group])
}

/// The keyed form of a registration cohort's identifier under the integrity key of `epoch`.
#[must_use]
pub fn keyed_cohort(cohort: &[u8], key: &[u8; 32], epoch: EpochId) -> [u8; 16] {
    hash_opaque(key, epoch, COHORT, &[cohort])
}

/// Hashes one part or two, the first behind its length: where it ends the second begins, which ends with the input.
fn hash_opaque(key: &[u8; 32], epoch: EpochId, label: &[u8], parts: &[&[u8]]) -> [u8; 16] {
    let mut input = [0; GROUP_INPUT_BYTES];
    let prefix = write_prefix(&mut input, Purpose::Integrity, epoch, label);
    // A frame is far below 4 GiB; a longer identifier would still hash to something of its own by its bytes.
    let length = parts.first().map_or(0, |first| u32::try_from(first.len()).unwrap_or(u32::MAX)).to_be_bytes();
    let end = prefix + length.len() + parts.iter().map(|part| part.len()).sum::<usize>();
    let hash = if end <= input.len() {
        write(&mut input, prefix, &length);
        let mut at = prefix + length.len();
        for part in parts {
            write(&mut input, at, part);
            at += part.len();
        }
        blake3::keyed_hash(key, input.get(..end).unwrap_or_default())
    } else {
        let mut hasher = blake3::Hasher::new_keyed(key);
        hasher.update(input.get(..prefix).unwrap_or_default()).update(&length);
        for part in parts {
            hasher.update(part);
        }
        hasher.finalize()
    };
    input.zeroize();
    first_half(&hash)
}

/// Lays out purpose, epoch and label, each behind its length. Returns how many bytes that took.
fn write_prefix(into: &mut [u8], purpose: Purpose, epoch: EpochId, label: &[u8]) -> usize {
    let mut at = 0;
    for part in [purpose.name().as_bytes(), &epoch.0.to_be_bytes(), label] {
        write(into, at, &[u8::try_from(part.len()).unwrap_or_default()]);
        write(into, at + 1, part);
        at += 1 + part.len();
    }
    at
}

/// Lays out the digits behind their length; the padding behind them becomes zeros, whatever stood there.
#[inline]
fn write_phone(into: &mut [u8; PHONE_INPUT_BYTES], at: usize, phone: &Phone) {
    write(into, at, &[phone.length()]);
    write(into, at + 1, &phone.zero_padded());
}

/// Copies `bytes` to `at`. The buffers are sized so that everything fits (a test goes through all purposes).
#[inline]
fn write(into: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(room) = into.get_mut(at..at + bytes.len()) {
        room.copy_from_slice(bytes);
    }
}

#[inline]
fn first_half(hash: &blake3::Hash) -> [u8; 16] {
    let mut half = [0; 16];
    for (to, from) in half.iter_mut().zip(hash.as_bytes()) {
        *to = *from;
    }
    half
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Person;
    use starling_schemas::ids::AnalyticsDay;

    const KEY: [u8; 32] = [7; 32];
    const DAY: EpochId = EpochId(20_458);

    fn phone(written: &str) -> Phone {
        Phone::parse(written.as_bytes()).expect("a number")
    }

    fn open<D: Domain>(epoch: EpochId) -> EpochKey<D> {
        EpochKey::open(Zeroizing::new(KEY), epoch)
    }

    #[test]
    fn the_input_is_what_the_essay_says() {
        let mut input = vec![13];
        input.extend_from_slice(b"analytics_day");
        input.extend_from_slice(&[4, 0, 0, 0x4f, 0xea, 5]);
        input.extend_from_slice(b"phone");
        input.push(13);
        input.extend_from_slice(b"4915112345678");
        input.resize(64, 0);
        let hash = blake3::keyed_hash(&KEY, &input);
        let expected = &hash.as_bytes()[..16];
        assert_eq!(open::<AnalyticsDay>(DAY).person(&phone("+49 151 12345678")).as_bytes(), expected);
        assert_eq!(keyed_subject("+4915112345678", &KEY, Purpose::AnalyticsDay, DAY).as_ref().map(|b| &b[..]), Some(expected));
    }

    #[test]
    fn every_purpose_fits_the_buffers() {
        assert!(Purpose::ALL.iter().all(|p| p.name().len() <= MAX_PURPOSE));
        for purpose in Purpose::ALL {
            let a = keyed_subject("123456789012345", &KEY, purpose, DAY);
            let b = keyed_subject("123456789012346", &KEY, purpose, DAY);
            assert!(a.is_some() && a != b);
        }
    }

    #[test]
    fn p16_purposes_epochs_keys_and_labels_share_no_value() {
        let mut seen = std::collections::HashSet::new();
        for purpose in Purpose::ALL {
            for epoch in [DAY, EpochId(DAY.0 + 1), EpochId(-1)] {
                for key in [KEY, [8; 32]] {
                    for number in ["4915112345678", "49151123456780"] {
                        assert!(seen.insert(keyed_subject(number, &key, purpose, epoch)));
                    }
                    if purpose == Purpose::Integrity {
                        assert!(seen.insert(Some(keyed_group(b"4915112345678", &key, epoch))));
                    }
                }
            }
        }
    }

    #[test]
    fn numbers_hashed_side_by_side_are_those_hashed_alone_and_no_digit_stays() {
        let mut key = open::<Integrity>(DAY);
        let numbers: Vec<Phone> =
            (0..101_u64).map(|n| phone(&(1_234_567_u64 * 10_u64.pow((n % 9) as u32) + n).to_string())).collect();
        let mut column = Person::default();
        for number in &numbers {
            key.push_person(number, &mut column);
        }
        key.settle(&mut column);
        let expected: Vec<[u8; 16]> = numbers.iter().map(|n| *key.person(n).as_bytes()).collect();
        assert_eq!(column.values(), expected);
        assert!((0..16).all(|place| key.lanes.block(place)[key.prefix..].iter().all(|b| *b == 0)), "no digit stays");
    }

    #[test]
    fn long_and_short_group_identifiers_are_hashed_alike() {
        for length in [0, 1, 16, 63, 64, 65, 74, 75, 200, 5_000] {
            let group: Vec<u8> = (0..length).map(|i| u8::try_from(i % 251).expect("small")).collect();
            let mut input = vec![9];
            input.extend_from_slice(b"integrity");
            input.push(4);
            input.extend_from_slice(&DAY.0.to_be_bytes());
            input.push(5);
            input.extend_from_slice(b"group");
            input.extend_from_slice(&u32::try_from(length).expect("small").to_be_bytes());
            input.extend_from_slice(&group);
            assert_eq!(keyed_group(&group, &KEY, DAY), blake3::keyed_hash(&KEY, &input).as_bytes()[..16], "{length}");
            assert_eq!(open::<Integrity>(DAY).group(&group).as_bytes(), &keyed_group(&group, &KEY, DAY));
        }
    }

    #[test]
    fn a_voice_is_of_its_day_its_business_and_its_cohort_and_is_spread_over_all_buckets() {
        let key = open::<Integrity>(DAY);
        let mut input = vec![9];
        input.extend_from_slice(b"integrity");
        input.push(4);
        input.extend_from_slice(&DAY.0.to_be_bytes());
        input.push(5);
        input.extend_from_slice(b"voice");
        input.extend_from_slice(&[0, 0, 0, 6]);
        input.extend_from_slice(b"shop-1batch-7");
        assert_eq!(key.voice(b"shop-1", b"batch-7"), blake3::keyed_hash(&KEY, &input).as_bytes()[0]);
        let buckets = |key: &EpochKey<Integrity>, business: &[u8]| -> Vec<u8> {
            (0..4_096_u32).map(|cohort| key.voice(business, &cohort.to_be_bytes())).collect()
        };
        let of_shop = buckets(&key, b"shop-1");
        let mut sizes = [0_u32; 256];
        of_shop.iter().for_each(|bucket| sizes[usize::from(*bucket)] += 1);
        assert!(sizes.iter().all(|size| (1..=40).contains(size)), "{sizes:?}");
        // Who has the buckets of another business, or of another day, or the cohorts' keyed forms, has one in 256 right by chance.
        let others = [
            buckets(&key, b"shop-2"),
            buckets(&open(EpochId(DAY.0 + 1)), b"shop-1"),
            (0..4_096_u32).map(|cohort| key.cohort(&cohort.to_be_bytes()).as_bytes()[0]).collect(),
            (0..4_096_u32).map(|cohort| key.voice_in_group(b"shop-1", &cohort.to_be_bytes())).collect(),
        ];
        for other in others {
            let same = of_shop.iter().zip(&other).filter(|(a, b)| a == b).count();
            assert!(same < 45, "{same}");
        }
        assert_ne!(
            (0..8_u8).map(|n| key.voice(b"shop", &[b'-', n])).collect::<Vec<_>>(),
            (0..8_u8).map(|n| key.voice(b"shop-", &[n])).collect::<Vec<_>>(),
            "where a name ends is part of it"
        );
        let long = vec![7; 5_000];
        assert_eq!(key.voice(&long, b"a"), key.voice(&long, b"a"));
        assert_ne!(
            (0..8_u8).map(|n| key.voice(&long, &[n])).collect::<Vec<_>>(),
            (8..16_u8).map(|n| key.voice(&long, &[n])).collect::<Vec<_>>()
        );
    }

    #[test]
    fn what_is_no_number_has_no_pseudonym() {
        assert_eq!(keyed_subject("call me", &KEY, Purpose::Integrity, DAY), None);
    }
}
