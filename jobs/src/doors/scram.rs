//! SCRAM-SHA-256 (RFC 5802, RFC 7677), the server's side, over verifiers from which nobody can log in.
//!
//! pgwire's own needs the salted password, which is as good as the password to whoever reads it. Here, as in PostgreSQL, only `StoredKey` and
//! `ServerKey` are kept; with them the server can check a proof and show that it knows the user, and cannot make a proof.
//!
//! ```text
//!   client-first   n,,n=,r=C                      proof = ClientKey xor HMAC(StoredKey, all three texts)
//!   server-first   r=CS,s=salt,i=iterations       right, if SHA-256(proof xor HMAC(StoredKey, texts)) = StoredKey
//!   client-final   c=biws,r=CS,p=proof
//!   server-final   v=HMAC(ServerKey, texts)
//! ```
//!
//! Iterations are the client's work and an attacker's who has stolen a verifier; they cost the server nothing. Channel binding is not offered:
//! a client that must not be deceived checks the certificate (`sslmode=verify-full`).

use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac, pbkdf2};
use zeroize::Zeroizing;

/// Rounds of PBKDF2 of every verifier. One number for all, so that it does not tell a user that is there from one that is not.
pub(crate) const ITERATIONS: u32 = 100_000;
/// Bytes of a salt, and of the server's part of the nonce.
pub(crate) const SALT_BYTES: usize = 16;
/// The longest nonce a client may send.
const NONCE_BYTES: usize = 256;
const NAME: &str = "SCRAM-SHA-256";

/// Why an exchange ended. None of its texts holds a part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ScramError {
    /// A message is not what the protocol says, or asks for channel binding.
    #[error("a message of the SCRAM exchange cannot be used")]
    Malformed,
    /// The proof is wrong.
    #[error("the proof is wrong")]
    Wrong,
}

/// What is kept of a password. No `Debug`: it goes to the users file and nowhere else.
#[derive(Clone)]
pub(crate) struct Verifier {
    salt: [u8; SALT_BYTES],
    stored_key: [u8; 32],
    server_key: [u8; 32],
}

impl Verifier {
    /// Of a password, normalised as PostgreSQL does it.
    pub(crate) fn of(password: &str, salt: [u8; SALT_BYTES]) -> Self {
        let normal = stringprep::saslprep(password).map_or_else(|_| password.to_owned(), std::borrow::Cow::into_owned);
        let normal = Zeroizing::new(normal);
        let mut salted = Zeroizing::new([0; 32]);
        let iterations = NonZeroU32::new(ITERATIONS).unwrap_or(NonZeroU32::MIN);
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, &salt, normal.as_bytes(), &mut *salted);
        let client_key = Zeroizing::new(sign(&*salted, b"Client Key"));
        Self { salt, stored_key: sha256(&*client_key), server_key: sign(&*salted, b"Server Key") }
    }

    /// Whether this is the password, for a door to which it is said under TLS or from this machine. The work is the same whatever is kept: a
    /// [`Self::decoy`] takes as long as a user's own.
    pub(crate) fn fits(&self, password: &str) -> bool {
        let made = Self::of(password, self.salt);
        // Compared as hashes are, in a time that says nothing of how much was right.
        blake3::Hash::from_bytes(made.stored_key) == blake3::Hash::from_bytes(self.stored_key)
    }

    /// One that fits no password, for a name that is not there. The same name has the same salt each time.
    pub(crate) fn decoy(secret: &[u8; 32], name: &str) -> Self {
        let mut bytes = [0; SALT_BYTES + 64];
        blake3::Hasher::new_keyed(secret).update(name.as_bytes()).finalize_xof().fill(&mut bytes);
        let mut decoy = Self { salt: [0; SALT_BYTES], stored_key: [0; 32], server_key: [0; 32] };
        decoy.salt.copy_from_slice(&bytes[..SALT_BYTES]);
        decoy.stored_key.copy_from_slice(&bytes[SALT_BYTES..SALT_BYTES + 32]);
        decoy.server_key.copy_from_slice(&bytes[SALT_BYTES + 32..]);
        decoy
    }

    /// As PostgreSQL writes it: `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`.
    pub(crate) fn text(&self) -> String {
        let of = |bytes: &[u8]| STANDARD.encode(bytes);
        format!("{NAME}${ITERATIONS}:{}${}:{}", of(&self.salt), of(&self.stored_key), of(&self.server_key))
    }

    /// Reads what [`Self::text`] wrote; `None` for anything else, other iterations too.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix(NAME)?.strip_prefix(&format!("${ITERATIONS}:"))?;
        let (salt, keys) = rest.split_once('$')?;
        let (stored_key, server_key) = keys.split_once(':')?;
        Some(Self { salt: bytes(salt)?, stored_key: bytes(stored_key)?, server_key: bytes(server_key)? })
    }
}

fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

fn sign(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message).as_ref());
    out
}

fn sha256(message: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, message).as_ref());
    out
}

/// An exchange in which the server has spoken and waits for the proof.
pub(crate) struct Waiting {
    verifier: Verifier,
    header: String,
    first: String,
    server_first: String,
    nonce: String,
}

/// Answers a client's first message. `own` is the server's part of the nonce, fresh for each exchange.
///
/// # Errors
/// [`ScramError::Malformed`].
pub(crate) fn first(message: &[u8], verifier: Verifier, own: [u8; SALT_BYTES]) -> Result<(String, Waiting), ScramError> {
    let text = std::str::from_utf8(message).map_err(|_| ScramError::Malformed)?;
    // Without channel binding (n), or with a client that could have it and sees that we do not (y); never in another's name.
    let header = ["n,,", "y,,"].into_iter().find(|header| text.starts_with(header)).ok_or(ScramError::Malformed)?;
    let bare = &text[header.len()..];
    let mut parts = bare.split(',');
    // The name is in the start-up message; what stands here is not looked at, as in PostgreSQL.
    let named = parts.next().is_some_and(|part| part.starts_with("n="));
    let nonce = parts.next().and_then(|part| part.strip_prefix("r=")).unwrap_or_default();
    let printable = nonce.bytes().all(|byte| byte.is_ascii_graphic());
    if !named || nonce.is_empty() || nonce.len() > NONCE_BYTES || !printable {
        return Err(ScramError::Malformed);
    }
    let nonce = format!("{nonce}{}", STANDARD.encode(own));
    let server_first = format!("r={nonce},s={},i={ITERATIONS}", STANDARD.encode(verifier.salt));
    let waiting =
        Waiting { verifier, header: header.to_owned(), first: bare.to_owned(), server_first: server_first.clone(), nonce };
    Ok((server_first, waiting))
}

impl Waiting {
    /// Checks the proof, and gives the server's own.
    ///
    /// # Errors
    /// [`ScramError::Malformed`], [`ScramError::Wrong`].
    pub(crate) fn last(self, message: &[u8]) -> Result<String, ScramError> {
        let text = std::str::from_utf8(message).map_err(|_| ScramError::Malformed)?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(ScramError::Malformed)?;
        let expected = format!("c={},r={}", STANDARD.encode(&self.header), self.nonce);
        let mut proof: [u8; 32] = bytes(proof).ok_or(ScramError::Malformed)?;
        if without_proof != expected {
            return Err(ScramError::Malformed);
        }
        let texts = format!("{},{},{without_proof}", self.first, self.server_first);
        let signature = sign(&self.verifier.stored_key, texts.as_bytes());
        proof.iter_mut().zip(signature).for_each(|(byte, mask)| *byte ^= mask);
        // Compared as hashes are, in a time that says nothing of how much was right.
        if blake3::Hash::from_bytes(sha256(&proof)) != blake3::Hash::from_bytes(self.verifier.stored_key) {
            return Err(ScramError::Wrong);
        }
        Ok(format!("v={}", STANDARD.encode(sign(&self.verifier.server_key, texts.as_bytes()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client of its own: what the RFC says of the other side.
    fn proof(password: &str, first: &str, server_first: &str) -> String {
        let salt = server_first.split(",s=").nth(1).and_then(|t| t.split(',').next()).expect("salt");
        let nonce = server_first.split(',').next().expect("nonce");
        let mut salted = [0; 32];
        let iterations = NonZeroU32::new(ITERATIONS).expect("above zero");
        let salt = STANDARD.decode(salt).expect("base64");
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, &salt, password.as_bytes(), &mut salted);
        let key = sign(&salted, b"Client Key");
        let without = format!("c=biws,{nonce}");
        let signature = sign(&sha256(&key), format!("{first},{server_first},{without}").as_bytes());
        let proof: Vec<u8> = key.iter().zip(signature).map(|(a, b)| a ^ b).collect();
        format!("{without},p={}", STANDARD.encode(proof))
    }

    #[test]
    fn the_right_password_is_let_in_and_another_is_not() {
        let verifier = Verifier::of("correct horse", [7; 16]);
        for (password, expected) in [("correct horse", true), ("correct horsf", false), ("", false)] {
            let (server_first, waiting) = first(b"n,,n=,r=abc", verifier.clone(), [1; 16]).expect("good");
            let answer = waiting.last(proof(password, "n=,r=abc", &server_first).as_bytes());
            assert_eq!(answer.is_ok(), expected, "{password}");
            if !expected {
                assert_eq!(answer, Err(ScramError::Wrong));
            }
        }
    }

    #[test]
    fn a_password_that_is_said_fits_its_verifier_only() {
        let verifier = Verifier::of("correct horse", [7; 16]);
        assert!(verifier.fits("correct horse"));
        // As SCRAM's clients do it, before they hash.
        assert!(Verifier::of("a\u{a0}b", [7; 16]).fits("a b"));
        for wrong in ["", "correct horsf", "Correct horse"] {
            assert!(!verifier.fits(wrong), "{wrong}");
            assert!(!Verifier::decoy(&[1; 32], "ada").fits(wrong));
        }
    }

    #[test]
    fn a_proof_is_good_for_one_exchange_only() {
        let verifier = Verifier::of("correct horse", [7; 16]);
        let (server_first, _) = first(b"n,,n=,r=abc", verifier.clone(), [1; 16]).expect("good");
        let overheard = proof("correct horse", "n=,r=abc", &server_first);
        let (_, later) = first(b"n,,n=,r=abc", verifier, [2; 16]).expect("good");
        assert_eq!(later.last(overheard.as_bytes()), Err(ScramError::Malformed));
    }

    #[test]
    fn nobody_logs_in_with_what_the_users_file_holds() {
        // With the stored key in the client key's place, and the other way round.
        let verifier = Verifier::of("correct horse", [7; 16]);
        for key in [verifier.stored_key, verifier.server_key] {
            let (server_first, waiting) = first(b"n,,n=,r=abc", verifier.clone(), [1; 16]).expect("good");
            let without = format!("c=biws,{}", server_first.split(',').next().expect("nonce"));
            let signature = sign(&verifier.stored_key, format!("n=,r=abc,{server_first},{without}").as_bytes());
            let proof: Vec<u8> = key.iter().zip(signature).map(|(a, b)| a ^ b).collect();
            let last = format!("{without},p={}", STANDARD.encode(proof));
            assert_eq!(waiting.last(last.as_bytes()), Err(ScramError::Wrong));
        }
    }

    #[test]
    fn malformed_messages_end_the_exchange() {
        let verifier = Verifier::of("x", [7; 16]);
        for message in ["", "n,,", "p=tls-server-end-point,,n=,r=a", "n,a=other,n=,r=a", "n,,r=a", "n,,n=,r=", "n,,m=x,n=,r=a"] {
            assert!(first(message.as_bytes(), verifier.clone(), [1; 16]).is_err(), "{message}");
        }
        assert!(first(format!("n,,n=,r={}", "a".repeat(257)).as_bytes(), verifier.clone(), [1; 16]).is_err());
        for message in ["", "c=biws", "c=biws,r=abc,p=", "c=eSws,r=abcAQEBAQEBAQEBAQEBAQEBAQ==,p=AAAA"] {
            let (_, waiting) = first(b"n,,n=,r=abc", verifier.clone(), [1; 16]).expect("good");
            assert_eq!(waiting.last(message.as_bytes()), Err(ScramError::Malformed), "{message}");
        }
    }

    #[test]
    fn a_verifier_is_read_as_it_was_written_and_a_decoy_is_the_same_each_time() {
        let verifier = Verifier::of("x", [7; 16]);
        assert_eq!(Verifier::parse(&verifier.text()).map(|v| v.text()), Some(verifier.text()));
        assert!(Verifier::parse(&verifier.text().replace("100000", "4096")).is_none());
        assert!(Verifier::parse("SCRAM-SHA-256$100000:a$b:c").is_none());
        let decoy = |name| Verifier::decoy(&[1; 32], name).text();
        assert_eq!(decoy("ada"), decoy("ada"));
        assert_ne!(decoy("ada"), decoy("bob"));
    }
}
