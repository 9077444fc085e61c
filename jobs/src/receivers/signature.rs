//! Signatures of webhooks as Standard Webhooks 1.0 has them: `v1,` and the HMAC-SHA256 of `ID.TIMESTAMP.BODY` in base64.

use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use zeroize::Zeroizing;

/// Lengths of a key that the standard allows, in bytes.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// A new one and the one before it.
const MOST_KEYS: usize = 2;

/// Keys of one receiver: one, or while they are being changed two. Cannot be printed.
pub struct Keys(Vec<hmac::Key>);

impl Keys {
    /// Reads a file of one key a line, each `whsec_` and 24 to 64 bytes in base64. While a key is being changed the file has both, and bodies
    /// are signed with both.
    ///
    /// # Errors
    /// When the file cannot be read, or a line is no key. The text has the path and never the key.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let text = std::fs::read(path).map(Zeroizing::new).map_err(|error| error.kind());
        let text = text.map_err(|kind| anyhow::anyhow!("{shown}: the key's file cannot be read: {kind}"))?;
        let text = std::str::from_utf8(&text).ok().with_context(|| format!("{shown}: the key's file is no text"))?;
        let mut keys = Vec::new();
        for (i, line) in text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty()) {
            let key = line.strip_prefix("whsec_").and_then(|key| STANDARD.decode(key).ok()).map(Zeroizing::new);
            match key.filter(|key| KEY_BYTES.contains(&key.len())) {
                Some(key) => keys.push(hmac::Key::new(hmac::HMAC_SHA256, &key)),
                None => bail!(
                    "{shown}:{}: no key: `whsec_` and 24 to 64 random bytes in base64, such as \
                     `echo \"whsec_$(head -c 32 /dev/urandom | base64)\"` writes",
                    i + 1
                ),
            }
        }
        ensure!((1..=MOST_KEYS).contains(&keys.len()), "{shown}: one key, or two while it is being changed, each on its line");
        Ok(Self(keys))
    }

    /// The value of `webhook-signature`.
    #[must_use]
    pub fn sign(&self, id: &str, timestamp_s: i64, body: &str) -> String {
        let signed = format!("{id}.{timestamp_s}.{body}");
        let one = |key: &hmac::Key| format!("v1,{}", STANDARD.encode(hmac::sign(key, signed.as_bytes())));
        self.0.iter().map(one).collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> anyhow::Result<Keys> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), text)?;
        Keys::read(file.path())
    }

    /// The example that the standard's reference libraries are tested with.
    #[test]
    fn a_body_is_signed_as_the_standards_own_libraries_sign_it() {
        let keys = read("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").expect("a key");
        let signature = keys.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn while_a_key_is_being_changed_both_sign() {
        let keys = read("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n\nwhsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n").expect("two keys");
        let both = keys.sign("a", 1, "b");
        assert_eq!(both.split(' ').count(), 2, "{both}");
        assert!(both.split(' ').all(|one| one.starts_with("v1,")));
    }

    #[test]
    fn i4_what_is_no_key_is_refused_by_file_and_line_and_not_repeated() {
        let three = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n".repeat(3);
        for wrong in ["", "hunter2hunter2hunter2hunter2", "whsec_hunter2", "whsec_aHVudGVyMg==", "\n \nwhsec_!hunter2", &three] {
            let error = format!("{:#}", read(wrong).err().expect("refused"));
            assert!(!error.contains("hunter2") && !error.contains("MfKQ") && !error.contains("aHVu"), "{error}");
        }
        assert!(format!("{:#}", read("\n \nwhsec_!x").err().expect("refused")).contains(":3: no key"));
        let gone = format!("{:#}", Keys::read(Path::new("/nowhere/key")).err().expect("refused"));
        assert!(gone.contains("/nowhere/key"), "{gone}");
    }
}
