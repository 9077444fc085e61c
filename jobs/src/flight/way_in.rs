//! The way in: who it is, at each call anew: before anything of its body is read, and again when its message is there.
//!
//! ```text
//!   Handshake, Authorization: Basic …   ─► logins: a name and a password ─► a session, found by 32 random bytes
//!   any call,  Authorization: Bearer …  ─► a user's token, such a session, or a token of [oidc]; a wrong one is nobody, whatever else there is
//!   any call,  a client certificate     ─► its user, where nothing else is shown
//! ```

use std::sync::Arc;
use std::time::Instant;

use arrow_flight::HandshakeResponse;
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use futures::stream::{self, BoxStream};
use hyper::header::AUTHORIZATION;
use hyper::{HeaderMap, Request};
use starling_query::Principal;
use tokio::time;
use tonic::metadata::MetadataValue;
use tonic::{Response, Status};
use zeroize::Zeroizing;

use super::Door;
use super::connection::Life;
use super::status::unmade;
use crate::doors::oidc;
use crate::doors::sessions::Key;
use crate::doors::tls::Peer;
use crate::doors::users::Users;
use crate::doors::{Class, FLIGHT, Refusal};

/// The one call that is not of somebody: it is how one becomes that.
const HANDSHAKE: &str = "/arrow.flight.protocol.FlightService/Handshake";

/// As Basic is written: RFC 7617 wants it padded, Go's Flight client does not do that.
const BASIC: GeneralPurpose =
    GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));

/// Somebody who was recognised for this call. It is made in [`Door::recognise`] and nowhere else.
pub(super) struct Caller {
    pub(super) who: Arc<Principal>,
    /// The user as the users file has it; see [`Users::mark`].
    pub(super) mark: blake3::Hash,
}

/// Lets a call on to its handler by its head, or not. Who it is from is asked again there, with [`Door::caller`].
///
/// # Errors
/// As [`Door::recognise`].
pub(super) fn admit<'a, B>(
    door: &'a Door,
    life: &'a Life,
    request: &'a Request<B>,
) -> impl Future<Output = Result<(), Refusal>> + Send + 'a {
    // A body may not be looked at by several at one time, so it is left out of what is kept while keys are waited for.
    let (path, headers, extensions) = (request.uri().path(), request.headers(), request.extensions());
    async move {
        if path == HANDSHAKE {
            return Ok(());
        }
        if let (Some(oidc), Some(token)) = (&door.oidc, shown(headers, "Bearer").filter(|token| oidc::is_one(token))) {
            oidc.prepare(token).await;
        }
        door.recognise(headers, extensions.get()).inspect_err(|refused| {
            if headers.contains_key(AUTHORIZATION) && refused.class() == Class::Nobody {
                door.home.heard.token(FLIGHT.word, door.home.clock.now_ms());
            }
        })?;
        life.called(time::Instant::now());
        Ok(())
    }
}

fn nobody(reason: &str) -> Refusal {
    Refusal::new(
        "28000",
        reason,
        "send `Authorization: Bearer` with a token of `starling users token`, or log in with name and password",
    )
}

/// What stands behind this scheme, if it is the only thing that is shown.
fn shown<'a>(headers: &'a HeaderMap, scheme: &str) -> Option<&'a str> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (all.next(), all.next()) else { return None };
    let (named, rest) = value.to_str().ok()?.split_once(' ')?;
    named.eq_ignore_ascii_case(scheme).then(|| rest.trim())
}

/// The name and the password of a Basic login.
fn said(headers: &HeaderMap) -> Option<(String, Zeroizing<String>)> {
    let bytes = Zeroizing::new(BASIC.decode(shown(headers, "Basic")?).ok()?);
    let (name, password) = std::str::from_utf8(&bytes).ok()?.split_once(':')?;
    Some((name.to_owned(), Zeroizing::new(password.to_owned())))
}

/// What tickets of somebody hang on who came with a token of `[oidc]` and stands in no users file.
fn mark(who: &Principal) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for part in ["oidc", &who.name, who.role.name(), &who.team] {
        // No part holds a zero byte.
        hasher.update(part.as_bytes()).update(&[0]);
    }
    hasher.finalize()
}

impl Door {
    /// The users as of now: the file is read for each call.
    fn users_now(&self) -> Result<Arc<Users>, Refusal> {
        self.users.read().map_err(|error| {
            // Where all come with tokens of [oidc] there need be no users: whoever comes with something else is nobody's.
            if self.oidc.is_some() && !self.users.is_there() {
                return nobody("the token is nobody's, or has ended");
            }
            tracing::error!(error = format!("{error:#}"), "nobody can be recognised over Flight SQL");
            Refusal::new("58030", "the users file cannot be used", "see the log of `starling serve`")
        })
    }

    /// Who a call is from whose message is there. Between a head and its message a client may let any time pass, in which its
    /// token may be revoked or its user changed: so what its head was worth then counts for nothing now.
    ///
    /// # Errors
    /// As [`Door::recognise`].
    pub(super) fn caller<T>(&self, request: &tonic::Request<T>) -> Result<Caller, Refusal> {
        self.recognise(request.metadata().as_ref(), request.extensions().get())
    }

    /// Who this head is from.
    ///
    /// # Errors
    /// 28000: nobody; 58030 where the users file cannot be used.
    pub(super) fn recognise(&self, headers: &HeaderMap, peer: Option<&Arc<Peer>>) -> Result<Caller, Refusal> {
        let now_ms = self.home.clock.now_ms();
        let Some(token) = shown(headers, "Bearer") else {
            let Some(peer) = peer.filter(|_| !headers.contains_key(AUTHORIZATION)) else {
                return Err(nobody("somebody has to log in"));
            };
            let users = self.users_now()?;
            let who = Arc::new(peer.who(Some(&users), now_ms)?);
            let mark = users.mark(&who.name).ok_or_else(|| nobody("the certificate is nobody's"))?;
            return Ok(Caller { who, mark });
        };
        if let Some(oidc) = self.oidc.as_ref().filter(|_| oidc::is_one(token)) {
            let who = oidc.recognise(token, now_ms)?.who;
            return Ok(Caller { mark: mark(&who), who });
        }
        let users = self.users_now()?;
        let who = match users.of_token(token, now_ms) {
            Some(who) => Arc::new(who),
            None => self
                .sessions
                .find(Key::of(token), &users, Instant::now())
                .ok_or_else(|| nobody("the token is nobody's, or has ended"))?,
        };
        let mark = users.mark(&who.name).ok_or_else(|| nobody("the token is nobody's, or has ended"))?;
        Ok(Caller { who, mark })
    }

    /// Logs somebody in; gives the token of the new session, in the answer's head and in its one message.
    ///
    /// # Errors
    /// As `Logins::admit`; 28000 where no name and password are said.
    pub(super) async fn log_in(
        &self,
        headers: &HeaderMap,
    ) -> Result<Response<BoxStream<'static, Result<HandshakeResponse, Status>>>, Refusal> {
        let Some((name, password)) = said(headers) else {
            return Err(nobody("a login is `Authorization: Basic` with a name and a password"));
        };
        let admitted = self.logins.admit(self.users_now()?, name, password).await?;
        let secret = admitted.secret;
        let mut bearer = MetadataValue::try_from(format!("Bearer {}", secret.as_str())).map_err(|_| unmade())?;
        bearer.set_sensitive(true);
        self.sessions.open(Key::of(&secret), Arc::new(admitted.who), admitted.mark, Instant::now());
        let told = HandshakeResponse { protocol_version: 0, payload: secret.as_bytes().to_vec().into() };
        let once: BoxStream<'static, _> = Box::pin(stream::iter([Ok(told)]));
        let mut response = Response::new(once);
        response.metadata_mut().insert(AUTHORIZATION.as_str(), bearer);
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn with(values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| (AUTHORIZATION, HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn what_is_shown_counts_alone_and_under_its_own_scheme() {
        for (values, token) in [
            (vec!["Bearer abc"], Some("abc")),
            (vec!["bearer  abc "], Some("abc")),
            (vec!["Bearer"], None),
            (vec!["Basic abc"], None),
            (vec!["abc"], None),
            (vec!["Bearer abc", "Bearer def"], None),
            (vec![], None),
        ] {
            assert_eq!(shown(&with(&values), "Bearer"), token, "{values:?}");
        }
        for padded in ["Basic YWRhOmNvcnJlY3Q6aG9yc2U=", "Basic YWRhOmNvcnJlY3Q6aG9yc2U"] {
            let login = said(&with(&[padded])).map(|(name, password)| (name, password.to_string()));
            assert_eq!(login, Some(("ada".to_owned(), "correct:horse".to_owned())));
        }
        for none in ["Basic YWRh", "Basic !!", "Basic gICA", "Bearer YWRhOng="] {
            assert!(said(&with(&[none])).is_none(), "{none}");
        }
    }
}
