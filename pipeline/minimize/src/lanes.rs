//! Many numbers hashed side by side.
//!
//! A pseudonym's input is one BLAKE3 block, and a processor with AVX-512 (AVX2, NEON) compresses sixteen (eight, four) blocks of one key
//! at once. Alone, a keyed hash of a number takes some 60 ns; in sixteen lanes a fraction of that (`benches/rooms.rs` measures both).
//!
//! `blake3` offers this only in its module `platform`, which it marks as unstable. So the workspace asks for one exact version of it, it is
//! used in this file alone, and tests compare every lane with `blake3::keyed_hash`. Should a later version drop it, the loop over
//! `keyed_hash` that stands in the test is a replacement with the same results.

use blake3::IncrementCounter;
use blake3::platform::{MAX_SIMD_DEGREE, Platform, words_from_le_bytes_32};
use zeroize::Zeroize;

use crate::keyed::PHONE_INPUT_BYTES;

/// Numbers that wait at most: the widest machine's lanes.
pub(crate) const LANES: usize = 16;
const _: () = assert!(MAX_SIMD_DEGREE <= LANES);

// Flags of BLAKE3's compression (specification, table 3): a keyed hash of one block is first, last and root at once.
const CHUNK_START: u8 = 1;
const CHUNK_END: u8 = 1 << 1;
const ROOT: u8 = 1 << 3;
const KEYED_HASH: u8 = 1 << 4;

const HASH_BYTES: usize = 32;

/// Blocks that wait to be hashed under one key, and where their hashes belong. Overwritten when dropped; no `Debug`.
pub(crate) struct Lanes {
    platform: Platform,
    key: [u32; 8],
    /// Each begins with what all inputs of the key begin with.
    blocks: [[u8; PHONE_INPUT_BYTES]; LANES],
    places: [usize; LANES],
    waiting: usize,
}

impl Lanes {
    /// Lanes of this key whose blocks are all like `block`.
    pub(crate) fn new(key: &[u8; 32], block: &[u8; PHONE_INPUT_BYTES]) -> Self {
        Self {
            platform: Platform::detect(),
            key: words_from_le_bytes_32(key),
            blocks: [*block; LANES],
            places: [0; LANES],
            waiting: 0,
        }
    }

    /// The next block to be filled in, for the hash that belongs to `place`. Must not be called while [`Self::is_full`].
    #[inline]
    pub(crate) fn block(&mut self, place: usize) -> &mut [u8; PHONE_INPUT_BYTES] {
        // The mask changes nothing while the caller keeps to `is_full`; it saves a branch that could panic.
        let lane = self.waiting & (LANES - 1);
        self.waiting = lane + 1;
        self.places[lane] = place;
        &mut self.blocks[lane]
    }

    /// Whether every lane is taken.
    #[inline]
    pub(crate) const fn is_full(&self) -> bool {
        self.waiting == LANES
    }

    /// Hashes what waits, hands out the place, the first half of each hash and what was hashed, and overwrites the blocks from `from` on.
    pub(crate) fn hash(&mut self, from: usize, mut take: impl FnMut(usize, [u8; 16], &[u8; PHONE_INPUT_BYTES])) {
        let waiting = std::mem::take(&mut self.waiting).min(LANES);
        let mut hashes = [0_u8; LANES * HASH_BYTES];
        let blocks = self.blocks.each_ref();
        self.platform.hash_many(
            &blocks[..waiting],
            &self.key,
            0,
            IncrementCounter::No,
            KEYED_HASH,
            CHUNK_START,
            CHUNK_END | ROOT,
            &mut hashes,
        );
        let (halves, _) = hashes.as_chunks::<16>();
        for ((place, half), block) in self.places.iter().zip(halves.iter().step_by(2)).zip(&mut self.blocks).take(waiting) {
            take(*place, *half, block);
            block[from..].fill(0);
        }
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        self.key.zeroize();
        self.blocks.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_lane_gives_the_keyed_hash_of_its_block(
            key in any::<[u8; 32]>(),
            blocks in prop::collection::vec(any::<[u8; 32]>(), 0..=LANES),
        ) {
            let mut lanes = Lanes::new(&key, &[5; PHONE_INPUT_BYTES]);
            let mut expected = Vec::new();
            for (place, block) in blocks.iter().enumerate() {
                lanes.block(place * 3)[32..].copy_from_slice(block);
                let mut input = [5; PHONE_INPUT_BYTES];
                input[32..].copy_from_slice(block);
                expected.push((place * 3, blake3::keyed_hash(&key, &input).as_bytes()[..16].to_vec()));
            }
            prop_assert_eq!(lanes.is_full(), blocks.len() == LANES);
            let mut found = Vec::new();
            lanes.hash(32, |place, half, _| found.push((place, half.to_vec())));
            prop_assert_eq!(found, expected);
            prop_assert!(lanes.blocks[..blocks.len()].iter().all(|block| block[..32] == [5; 32] && block[32..] == [0; 32]));
            lanes.hash(32, |_, _, _| unreachable!("nothing waits any more"));
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_narrower_machines_agree() {
        let key = [7; 32];
        let narrower = [Some(Platform::portable()), Platform::sse2(), Platform::sse41(), Platform::avx2()];
        for platform in narrower.into_iter().flatten() {
            let mut lanes = Lanes::new(&key, &[0; PHONE_INPUT_BYTES]);
            lanes.platform = platform;
            for n in 0..13 {
                lanes.block(n)[63] = u8::try_from(n).expect("small");
            }
            let mut seen = 0;
            lanes.hash(63, |place, half, _| {
                let mut input = [0; PHONE_INPUT_BYTES];
                input[63] = u8::try_from(place).expect("small");
                assert_eq!(half, blake3::keyed_hash(&key, &input).as_bytes()[..16]);
                seen += 1;
            });
            assert_eq!(seen, 13);
        }
    }
}
