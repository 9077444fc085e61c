//! What this crate's tests share.

use std::hash::{BuildHasher, RandomState};

use starling_schemas::time::{Entropy, NoEntropy};

/// Random enough for tests: every call gives other bytes.
pub(crate) struct TestEntropy;

impl Entropy for TestEntropy {
    fn fill(&self, out: &mut [u8]) -> Result<(), NoEntropy> {
        let state = RandomState::new();
        for (n, chunk) in out.chunks_mut(8).enumerate() {
            chunk.copy_from_slice(&state.hash_one(n).to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}
