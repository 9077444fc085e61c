//! The key itself: a value that can be used but not shown, copied or written by accident.

use starling_schemas::time::{Entropy, NoEntropy};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;

/// A 256-bit key. Its memory is wiped when it is dropped.
///
/// It cannot be printed, cloned, compared or serialised (I4):
///
/// ```compile_fail
/// fn print(key: &starling_store::SecretKey) -> String { format!("{key:?}") }
/// ```
/// ```compile_fail
/// fn print(key: &starling_store::SecretKey) -> String { format!("{key}") }
/// ```
/// ```compile_fail
/// fn copy(key: &starling_store::SecretKey) -> starling_store::SecretKey { key.clone() }
/// ```
/// ```compile_fail
/// fn write(key: &starling_store::SecretKey) -> serde_json::Value { serde_json::to_value(key).unwrap() }
/// ```
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct SecretKey([u8; KEY_BYTES]);

impl SecretKey {
    /// Draws a fresh key. Keys are never derived from one another: what is destroyed cannot be computed again.
    ///
    /// # Errors
    /// [`NoEntropy`] when the source gives nothing.
    pub fn generate(entropy: &dyn Entropy) -> Result<Self, NoEntropy> {
        let mut key = Self([0; KEY_BYTES]);
        entropy.fill(&mut key.0)?;
        Ok(key)
    }

    /// An all-zero key to read a file's bytes into.
    pub(super) const fn blank() -> Self {
        Self([0; KEY_BYTES])
    }

    /// The bytes, to be filled from a file.
    pub(super) const fn fill_from_file(&mut self) -> &mut [u8; KEY_BYTES] {
        &mut self.0
    }

    /// The bytes, for a cipher or a keyed hash. Copy them into nothing that outlives the use.
    #[must_use]
    pub const fn expose(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}
