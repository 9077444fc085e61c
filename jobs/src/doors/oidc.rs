//! # Tokens of a company's identity provider
//!
//! Whoever comes with a JSON Web Token (RFC 7519) that the provider of `[oidc]` signed is who the token says, in the role and for the team that its
//! claims give. There is no entry of the users file behind it, nothing is opened by it and nothing kept: it is looked at anew at each call.
//!
//! ```text
//!   Authorization: Bearer eyJ… ─► at most 8 KiB ─► head: algorithm, key's name, no `crit` ─► signature ─► claims ─► Passport: who, until when
//!                                                            │ keys: the file, or what keys_url said   │ iss · aud · exp · nbf · iat · sub
//!                                                            └ not known: fetched, once a minute       └ role and team: known ones only
//! ```
//!
//! **Taken, not written:** tokens and keys are read by jsonwebtoken; ring, which TLS stands on too, looks at signatures (`crypto`). What is
//! stricter than the library asks is here: every token names its key, a key has one algorithm, `crit` is always refused since no extension is known
//! here, times are looked at by this process's clock, and a claim that is there twice counts for nothing (`claims`).
//!
//! # Who attacks, what bounds him
//!
//! - **Whoever writes a token of his own.** `none` and algorithms of a shared secret are none that there is a word for here (RFC 8725, 3.1): a public
//!   key cannot be taken for a secret. The key is found by its name *and* the algorithm, and never in the token: `jwk`, `jku` and
//!   `x5u` are not looked at. Refused, he hears that the token is nobody's; only whoever has a signature hears more.
//! - **Whoever has a token that is not for here**: of another issuer, for another audience, a logout token. `iss` and `aud` must be those of the
//!   settings, `typ` must be a token's.
//! - **Whoever has found a token.** It ends with `exp`, which is at most `longest_s` away, and with its key: at once where the key leaves `keys_file`, at the first
//!   call two hours later where it leaves `keys_url`, and within a day where that cannot be reached. A stream of alerts that it opened ends with what is known
//!   by then. It cannot be revoked before: providers give tokens of minutes for that.
//! - **Whoever sends many names of keys.** One fetch a minute and door at the most, with ten seconds and 256 KiB, which no hanging up cuts off; tokens whose keys are known wait for
//!   none of it.
//! - **Whoever stands between here and the provider.** Keys come over HTTPS, with this machine's certificates or `keys_ca_file`'s; no redirect is followed.
//!
//! **Invariants kept here.** I4: no refusal, log line or entry holds a token or a claim's text; the name in the log is the subject with its issuer,
//! or a hash of both where the log could not hold it. A subject that could be a phone number comes in under no name: there are so few numbers that
//! their hashes can be tried. I8: default deny. A provider that cannot be reached leaves in who comes with
//! keys that are known, for a day after they were last confirmed; a key that is not known is refused.
//!
//! **What can go wrong.** The provider says who may do what: whoever may change its claims may choose a role, and which team pays.

mod claims;
mod crypto;
mod keys;
pub(crate) mod settings;

use std::sync::Arc;
use std::time::Instant;

use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use starling_query::Principal;

use self::claims::Claims;
use self::keys::Keys;
use self::settings::OidcSettings;
use super::Refusal;

/// Longest token that is looked at, in bytes.
const TOKEN_BYTES: usize = 8 * 1024;
/// What `typ` says of a token that is one, in small letters.
const TYPES: [&str; 4] = ["jwt", "at+jwt", "application/jwt", "application/at+jwt"];

/// The ways of signing that are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Signed {
    Rs256,
    Es256,
    EdDsa,
}

impl Signed {
    const ALL: [Self; 3] = [Self::Rs256, Self::Es256, Self::EdDsa];

    const fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|signed| signed.name() == name)
    }

    const fn algorithm(self) -> Algorithm {
        match self {
            Self::Rs256 => Algorithm::RS256,
            Self::Es256 => Algorithm::ES256,
            Self::EdDsa => Algorithm::EdDSA,
        }
    }

    fn of(algorithm: Algorithm) -> Option<Self> {
        Self::ALL.into_iter().find(|signed| signed.algorithm() == algorithm)
    }
}

/// Somebody whose token was good, and until when it is. It is made by [`Oidc::recognise`] and nowhere else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Passport {
    pub(crate) who: Arc<Principal>,
    /// `exp`, without leeway.
    ends_ms: i64,
    kid: String,
    /// How it is signed, and by which key of that name.
    by: (Signed, blake3::Hash),
}

/// Tokens of one provider.
pub(crate) struct Oidc {
    settings: OidcSettings,
    signed: Vec<Signed>,
    keys: Arc<Keys>,
}

pub(super) fn nobody(reason: &str, hint: &str) -> Refusal {
    Refusal::new("28000", reason, hint)
}

/// What is said of a token before anything in it can be believed.
fn unknown() -> Refusal {
    nobody(
        "the token is nobody's, or has ended",
        "get a new one from the provider of [oidc], or from `starling users token NAME`",
    )
}

/// Whether it is meant to be such a token: those of `starling users` and of sessions have no dots.
pub(crate) fn is_one(token: &str) -> bool {
    token.bytes().filter(|byte| *byte == b'.').count() == 2
}

/// The head of a token, as far as it is one that is looked at further: how it is signed, and by which key.
fn head(token: &str) -> Option<(Signed, String)> {
    if token.len() > TOKEN_BYTES {
        return None;
    }
    let head = decode_header(token).ok()?;
    let plain = head.crit.is_none() && head.enc.is_none() && head.zip.is_none();
    let typed = head.typ.as_ref().is_none_or(|typ| TYPES.contains(&typ.to_ascii_lowercase().as_str()));
    Some((Signed::of(head.alg).filter(|_| plain && typed)?, head.kid.filter(|kid| !kid.is_empty())?))
}

impl Oidc {
    /// Tokens as the settings say; `None`: none are taken. A file of keys is read, an address not yet asked.
    ///
    /// # Errors
    /// A file of keys or certificates that cannot be used.
    pub(crate) fn open(settings: &OidcSettings) -> anyhow::Result<Option<Self>> {
        if !settings.is_wanted() {
            return Ok(None);
        }
        crypto::install();
        let keys = Arc::new(Keys::open(settings)?);
        Ok(Some(Self { settings: settings.clone(), signed: settings.signed(), keys }))
    }

    /// Fetches keys if this token names one that is not known and there was no fetch within a minute. To be called before
    /// [`Self::recognise`]; it decides nothing.
    pub(crate) async fn prepare(&self, token: &str) {
        if let Some((signed, kid)) = head(token).filter(|(signed, _)| self.signed.contains(signed)) {
            Keys::prepare(&self.keys, &kid, signed, Instant::now()).await;
        }
    }

    /// Whose token this is.
    ///
    /// # Errors
    /// 28000 for a token that is not good; 42501 for one that is and gives no role or team; 58030 where the file of keys cannot be used.
    pub(crate) fn recognise(&self, token: &str, now_ms: i64) -> Result<Passport, Refusal> {
        let (signed, kid) = head(token).ok_or_else(unknown)?;
        if !self.signed.contains(&signed) {
            return Err(unknown());
        }
        let key = self.keys.find(&kid, signed, Instant::now())?.ok_or_else(unknown)?;
        // Times are looked at by our own clock, the rest by both.
        let mut wanted = Validation::new(signed.algorithm());
        wanted.validate_exp = false;
        wanted.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        wanted.set_issuer(&[&self.settings.issuer]);
        wanted.validate_aud = false;
        match decode::<Claims>(token, &key.key, &wanted) {
            Ok(token) => token.claims.admit(&self.settings, (&kid, signed, key.mark), now_ms),
            // Its text may hold a claim's.
            Err(_) => Err(unknown()),
        }
    }

    /// Whose tokens are taken and where their keys are from, in words.
    pub(crate) fn told(&self) -> String {
        let OidcSettings { issuer, keys_file, keys_url, .. } = &self.settings;
        let from = match (keys_file.as_str(), keys_url.as_str()) {
            (file, "") => format!("keys of {file}"),
            ("", url) => format!("keys of {url}, which is asked when the first token comes"),
            (file, url) => format!("keys of {file}, and of {url}, which is asked when the first token comes"),
        };
        format!("tokens of {issuer} are taken, with the {from}")
    }

    /// Whether whoever came so still is who it was, for what goes on for long: until its token ends or its key goes.
    pub(crate) fn still(&self, passport: &Passport, now_ms: i64) -> bool {
        let (signed, mark) = passport.by;
        let key = self.keys.find(&passport.kid, signed, Instant::now());
        now_ms < passport.ends_ms && key.is_ok_and(|key| key.is_some_and(|key| key.mark == mark))
    }
}

#[cfg(test)]
mod tests;
