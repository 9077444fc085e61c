//! Small files at rest: AES-256-GCM under a data key.
//!
//! ```text
//!  "SEAL1" · nonce (12 bytes, random) · ciphertext · tag (16 bytes)
//! ```
//!
//! The file's own key is derived from the data key with BLAKE3, so that a data key may serve tables and sealed files without the two
//! sharing nonces; it lives and dies with the data key. The context (a path, say) is authenticated: a sealed file moved elsewhere does
//! not open.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use starling_schemas::time::Entropy;
use zeroize::Zeroizing;

use crate::error::StoreError;
use crate::keyring::SecretKey;

const MAGIC: &[u8; 5] = b"SEAL1";
const DERIVATION: &str = "starling 2026 sealed file v1";

fn cipher(key: &SecretKey) -> Result<LessSafeKey, StoreError> {
    let derived = Zeroizing::new(blake3::derive_key(DERIVATION, key.expose()));
    let unbound =
        UnboundKey::new(&AES_256_GCM, derived.as_slice()).map_err(|_| StoreError::SealFailed("the key was not accepted"))?;
    Ok(LessSafeKey::new(unbound))
}

/// Encrypts and authenticates `plain` under `key`, bound to `context`.
///
/// Nonces are random: a key may seal some 2³² files before a collision becomes likely enough to matter, far above one day's.
///
/// # Errors
/// [`StoreError::SealFailed`] when there is no entropy, or when the text is longer than AES-GCM can take (64 GiB).
pub fn seal(key: &SecretKey, entropy: &dyn Entropy, context: &str, plain: &[u8]) -> Result<Vec<u8>, StoreError> {
    let mut nonce = [0_u8; NONCE_LEN];
    entropy.fill(&mut nonce).map_err(|_| StoreError::SealFailed("the entropy source gave nothing"))?;
    let start = MAGIC.len() + NONCE_LEN;
    let mut sealed = Vec::with_capacity(start + plain.len() + AES_256_GCM.tag_len());
    sealed.extend_from_slice(MAGIC);
    sealed.extend_from_slice(&nonce);
    sealed.extend_from_slice(plain);
    let (_, body) = sealed.split_at_mut(start);
    let tag = cipher(key)?
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(context.as_bytes()), body)
        .map_err(|_| StoreError::SealFailed("it is too long"))?;
    sealed.extend_from_slice(tag.as_ref());
    Ok(sealed)
}

/// Opens what [`seal`] made.
///
/// # Errors
/// [`StoreError::SealBroken`] on another key, another context, or changed or missing bytes: which of them is not told.
pub fn unseal(key: &SecretKey, context: &str, sealed: &[u8]) -> Result<Vec<u8>, StoreError> {
    let rest = sealed.strip_prefix(MAGIC.as_slice()).ok_or(StoreError::SealBroken)?;
    let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>().ok_or(StoreError::SealBroken)?;
    let mut body = body.to_vec();
    let plain_bytes = cipher(key)?
        .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(context.as_bytes()), &mut body)
        .map_err(|_| StoreError::SealBroken)?
        .len();
    body.truncate(plain_bytes);
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{BrokenEntropy, OsEntropy};

    fn key() -> SecretKey {
        SecretKey::generate(&OsEntropy).expect("entropy")
    }

    #[test]
    fn what_was_sealed_opens_with_its_key_and_context_only() {
        let key_of_file = key();
        let sealed = seal(&key_of_file, &OsEntropy, "state-1", b"CANARY text").expect("seals");
        assert!(!sealed.windows(6).any(|w| w == b"CANARY"));
        assert_eq!(unseal(&key_of_file, "state-1", &sealed).expect("opens"), b"CANARY text");
        assert!(matches!(unseal(&key(), "state-1", &sealed), Err(StoreError::SealBroken)));
        assert!(matches!(unseal(&key_of_file, "state-2", &sealed), Err(StoreError::SealBroken)));
    }

    #[test]
    fn a_changed_or_missing_byte_anywhere_is_noticed() {
        let key = key();
        let sealed = seal(&key, &OsEntropy, "c", b"text").expect("seals");
        for position in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[position] ^= 0x40;
            assert!(matches!(unseal(&key, "c", &changed), Err(StoreError::SealBroken)), "byte {position}");
            assert!(matches!(unseal(&key, "c", &sealed[..position]), Err(StoreError::SealBroken)), "cut at {position}");
        }
    }

    #[test]
    fn the_same_text_never_seals_to_the_same_bytes() {
        let key = key();
        let seal = || seal(&key, &OsEntropy, "c", b"").expect("seals");
        assert_ne!(seal(), seal());
        assert_eq!(unseal(&key, "c", &seal()).expect("opens"), b"");
    }

    #[test]
    fn without_entropy_nothing_is_sealed() {
        assert!(matches!(seal(&key(), &BrokenEntropy, "c", b"text"), Err(StoreError::SealFailed(_))));
    }
}
