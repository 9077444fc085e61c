//! Which pairs have been in touch: Bloom filters that grow (Almeida et al. 2007), so that few pairs take little room.

use super::Pair;

/// Bits of the first slice; each further one has four times as many.
const FIRST_BITS: usize = 1 << 16;
/// Slices at most: 2²⁶ bits in the last, 11 MiB together.
const MOST_SLICES: usize = 6;
/// Bits a pair, and bits set for one: one mistake in 120 while a slice is not full.
const BITS_A_PAIR: usize = 10;
const PROBES: u64 = 7;

/// What tells whether a pair was seen. A filter may say yes wrongly, never no.
pub(super) trait Seen: Default {
    /// Whether it may say yes wrongly. Of a pair that it takes for seen, an answer then speaks for the sender all the same.
    const ERRS: bool = true;

    /// Adds the pair; whether it was there before.
    fn add(&mut self, pair: Pair) -> bool;
}

/// One slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slice {
    pub(super) words: Vec<u64>,
    pub(super) pairs: u32,
}

/// Pairs of one epoch. A full filter takes more pairs still; then it errs more often, and hides more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PairFilter {
    pub(super) slices: Vec<Slice>,
}

/// Words of the slice at this place; `None` beyond the last.
pub(super) fn words(place: usize) -> Option<usize> {
    (place < MOST_SLICES).then(|| (FIRST_BITS << (2 * place)) / 64)
}

/// Where a pair stands in a slice of so many words: tokens are uniform already, so their halves are the two hashes of double hashing.
fn bits(pair: Pair, words: usize) -> impl Iterator<Item = (usize, u64)> {
    let (low, high) = (pair.0 & 0xffff_ffff, pair.0 >> 32 | 1);
    let mask = (words as u64 * 64).wrapping_sub(1);
    (0..PROBES).map(move |i| {
        let bit = low.wrapping_add(i.wrapping_mul(high)) & mask;
        (usize::try_from(bit / 64).unwrap_or_default(), 1 << (bit % 64))
    })
}

impl PairFilter {
    /// Bytes of its slices.
    pub(super) fn bytes(&self) -> usize {
        self.slices.iter().map(|s| size_of::<Slice>() + s.words.capacity() * 8).sum()
    }
}

impl Seen for PairFilter {
    fn add(&mut self, pair: Pair) -> bool {
        let has = |s: &Slice| bits(pair, s.words.len()).all(|(word, bit)| s.words.get(word).is_some_and(|w| w & bit != 0));
        if self.slices.iter().any(has) {
            return true;
        }
        let full = self.slices.last().is_none_or(|s| s.pairs as usize * BITS_A_PAIR >= s.words.len() * 64);
        if full && let Some(words) = words(self.slices.len()) {
            self.slices.push(Slice { words: vec![0; words], pairs: 0 });
        }
        if let Some(slice) = self.slices.last_mut() {
            slice.pairs = slice.pairs.saturating_add(1);
            for (word, bit) in bits(pair, slice.words.len()) {
                if let Some(word) = slice.words.get_mut(word) {
                    *word |= bit;
                }
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(n: u64) -> Pair {
        Pair(u64::from_le_bytes(blake3::hash(&n.to_le_bytes()).as_bytes()[..8].try_into().expect("8 bytes")))
    }

    #[test]
    fn a_pair_is_never_forgotten_and_few_are_made_up() {
        let mut filter = PairFilter::default();
        let wrong = (0..100_000).filter(|n| filter.add(token(*n))).count();
        assert!((0..100_000).all(|n| filter.add(token(n))), "all are there");
        assert!(wrong < 2_500, "{wrong} of 100,000 were taken for seen");
        let fresh = (1_000_000..1_020_000).filter(|n| filter.clone_has(token(*n))).count();
        assert!((1..800).contains(&fresh), "{fresh} of 20,000 are taken for seen: a filter errs, a little");
        assert!(filter.bytes() < 100_000 * 4, "{}", filter.bytes());
    }

    #[test]
    fn a_full_filter_is_bounded() {
        assert_eq!((words(0), words(5), words(6)), (Some(1024), Some(1 << 20), None));
        assert!((0..MOST_SLICES).filter_map(words).sum::<usize>() * 8 < 12 << 20);
    }

    impl PairFilter {
        fn clone_has(&self, pair: Pair) -> bool {
            self.slices
                .iter()
                .any(|s| bits(pair, s.words.len()).all(|(word, bit)| s.words.get(word).is_some_and(|w| w & bit != 0)))
        }
    }
}
