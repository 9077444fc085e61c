//! The way in: who it is, and whether it may enter the room behind the route.
//!
//! ```text
//!   Authorization: Bearer …  ─► the token file's, or a user's; a wrong one is refused, whatever else there is
//!                                or a token of the provider's of [oidc]: looked at anew, for the role and team that it says
//!   Cookie: starling_session ─► a session, if the request is this host's own: X-Starling on all but GET, Origin and Sec-Fetch-Site where sent
//!   a client certificate     ─► its user's, by the same rule: a browser shows it of itself, as it does a cookie
//!   none of them             ─► this machine, if there are no users, no token file and no [oidc], by a loopback name, from no other host's page
//! ```

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, COOKIE, HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use starling_query::{Principal, Role, Room};

use super::Door;
use super::told::Refused;
use crate::doors::oidc::{self, Passport};
use crate::doors::sessions::Key;
use crate::doors::tls::Peer;
use crate::doors::users::Users;
use crate::doors::{Class, HTTP};

/// The cookie's name.
pub(super) const COOKIE_NAME: &str = "starling_session";
/// The header without which a cookie does not count.
const OWN: HeaderName = HeaderName::from_static("x-starling");
/// In which a browser says, of each request that it makes, whether the page behind it is of this host. No page can write it.
const SITE: &str = "sec-fetch-site";
/// Bytes of a body, and how long it may take.
pub(super) const BODY_BYTES: usize = 64 * 1024;
const BODY_TIME: Duration = Duration::from_secs(10);

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    /// Everybody: nothing is behind it that is not public.
    Nothing,
    /// Everybody who is somebody.
    Somebody,
    /// Whoever may enter this room.
    Room(Room),
}

/// How somebody was recognised.
#[derive(Debug, Clone)]
pub(super) enum Way {
    Cookie(Key),
    /// By the hash of the token, which is looked up again where something goes on for long. The token itself is not kept.
    Token(blake3::Hash),
    /// By a token of the provider of `[oidc]`.
    Oidc(Arc<Passport>),
    Certificate(Arc<Peer>),
    Service,
    Local,
}

impl Way {
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Cookie(_) => "cookie",
            Self::Token(_) => "token",
            Self::Oidc(_) => "oidc",
            Self::Certificate(_) => "certificate",
            Self::Service => "service",
            Self::Local => "local",
        }
    }

    /// Whether it is a person's or a person's program's: then nobody else's name can stand on what is done.
    pub(super) const fn is_users(&self) -> bool {
        matches!(self, Self::Cookie(_) | Self::Token(_) | Self::Oidc(_) | Self::Certificate(_))
    }
}

/// Who asks.
#[derive(Clone)]
pub(super) struct Caller {
    pub(super) who: Arc<Principal>,
    pub(super) way: Way,
}

impl Door {
    /// The users as of now; `None`: there never were any.
    pub(super) fn users_now(&self) -> Result<Option<Arc<Users>>, Refused> {
        if !self.had_users.load(Ordering::Relaxed) && !self.users.is_there() {
            return Ok(None);
        }
        // From here on nobody is let in without them, even if the file goes.
        self.had_users.store(true, Ordering::Relaxed);
        self.users.read().map(Some).map_err(|error| {
            tracing::error!(error = format!("{error:#}"), "nobody can be recognised over HTTP");
            Refused::new("58030", "the users file cannot be used", "see the log of `starling serve`")
        })
    }

    /// Whether a caller is still who it was, for what goes on for long.
    pub(super) fn still(&self, caller: &Caller) -> bool {
        let users = self.users_now();
        match (&caller.way, users) {
            (Way::Cookie(key), Ok(Some(users))) => self.sessions.lives(*key, &users, Instant::now()),
            (Way::Token(hash), Ok(Some(users))) => {
                users.of_token_hash(*hash, self.home.clock.now_ms()).is_some_and(|who| who == *caller.who)
            }
            (Way::Oidc(passport), _) => self.oidc.as_ref().is_some_and(|oidc| oidc.still(passport, self.home.clock.now_ms())),
            (Way::Certificate(peer), Ok(Some(users))) => {
                peer.who(Some(&users), self.home.clock.now_ms()).is_ok_and(|who| who == *caller.who)
            }
            (Way::Service, _) | (Way::Local, Ok(None)) => true,
            _ => false,
        }
    }
}

/// Lets a request on to its handler, or not.
pub(super) async fn guard(State((door, needs)): State<(Door, Needs)>, request: Request, next: Next) -> Response {
    match admit(&door, needs, request).await {
        Ok(request) => next.run(request).await,
        Err(refused) => refused.into_response(),
    }
}

async fn admit(door: &Door, needs: Needs, request: Request) -> Result<Request, Refused> {
    let (mut parts, body) = request.into_parts();
    if needs != Needs::Nothing {
        if let (Some(oidc), Some(token)) = (&door.oidc, bearer(&parts.headers).filter(|token| oidc::is_one(token))) {
            oidc.prepare(token).await;
        }
        let (heard, now_ms) = (&door.home.heard, door.home.clock.now_ms());
        let caller = recognise(door, &parts.method, &parts.headers, parts.extensions.get()).inspect_err(|refused| {
            if parts.headers.contains_key(AUTHORIZATION) && refused.refusal.class() == Class::Nobody {
                heard.token(HTTP.word, now_ms);
            }
        })?;
        if let Needs::Room(room) = needs {
            caller.who.role.check(room).inspect_err(|_| heard.forbidden(&caller.who.name, now_ms))?;
        }
        parts.extensions.insert(caller);
    }
    // After that, so that whoever is nobody keeps nothing here but a login's few bytes.
    let body = whole(&parts.headers, body).await?;
    Ok(Request::from_parts(parts, Body::from(body)))
}

async fn whole(headers: &HeaderMap, body: Body) -> Result<Bytes, Refused> {
    let too_long = || {
        Refused::new("54000", format!("the body has more than {BODY_BYTES} bytes"), "send less")
            .with(StatusCode::PAYLOAD_TOO_LARGE)
    };
    let told = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if told.is_some_and(|length| length > BODY_BYTES) {
        return Err(too_long());
    }
    match tokio::time::timeout(BODY_TIME, to_bytes(body, BODY_BYTES)).await {
        Ok(Ok(body)) => Ok(body),
        // Longer than it said, or the client has gone and hears nothing.
        Ok(Err(_)) => Err(too_long()),
        Err(_) => {
            Err(Refused::new("57014", "the body did not come in time", "send it at once").with(StatusCode::REQUEST_TIMEOUT))
        }
    }
}

fn nobody(reason: &str, hint: &str) -> Refused {
    Refused::new("28000", reason, hint)
}

/// The token of a request that shows one.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ").map(str::trim)
}

fn recognise(door: &Door, method: &Method, headers: &HeaderMap, peer: Option<&Arc<Peer>>) -> Result<Caller, Refused> {
    let users = door.users_now()?;
    if headers.contains_key(AUTHORIZATION) {
        return by_token(door, users.as_deref(), bearer(headers).unwrap_or_default());
    }
    let own = is_own(headers);
    // What a browser sends of itself counts only where the page is ours.
    let asked_by_us = |what: &str| {
        if !own {
            let reason = format!("{what} counts only for this host's own pages");
            return Err(nobody(&reason, "ask from the console, or with a token").with(StatusCode::FORBIDDEN));
        }
        if !method.is_safe() && headers.get(&OWN).is_none_or(|value| value != "1") {
            let hint = "send the header X-Starling: 1, as the console does, or a token";
            return Err(nobody(&format!("{what} alone changes nothing"), hint).with(StatusCode::FORBIDDEN));
        }
        Ok(())
    };
    if let (None, Some(peer)) = (cookie(headers), peer) {
        asked_by_us("a certificate")?;
        let who = peer.who(users.as_deref(), door.home.clock.now_ms())?;
        return Ok(Caller { who: Arc::new(who), way: Way::Certificate(Arc::clone(peer)) });
    }
    match (cookie(headers), &users) {
        (Some(cookie), Some(users)) => {
            asked_by_us("a cookie")?;
            let key = Key::of(cookie);
            let who = door.sessions.find(key, users, Instant::now());
            let ended = || nobody("the session has ended", "log in again at POST /v1/login");
            Ok(Caller { who: who.ok_or_else(ended)?, way: Way::Cookie(key) })
        }
        (None, Some(_)) => Err(nobody("somebody has to log in", "POST /v1/login, or send `Authorization: Bearer` with a token")),
        (_, None) if door.service.is_some() || door.oidc.is_some() || !door.loopback => {
            let hint = "send `Authorization: Bearer` with the token of serve.token_file, or of the provider of [oidc]";
            Err(nobody("a bearer token is needed", hint))
        }
        (_, None) => local(headers, own),
    }
}

fn by_token(door: &Door, users: Option<&Users>, token: &str) -> Result<Caller, Refused> {
    // Hashes are compared, so that the time says nothing of how much was right.
    let hash = blake3::hash(token.as_bytes());
    if door.service.is_some_and(|service| service == hash) {
        let who = Principal { name: "service".to_owned(), role: Role::Integrity, team: "service".to_owned() };
        return Ok(Caller { who: Arc::new(who), way: Way::Service });
    }
    if let Some(oidc) = door.oidc.as_ref().filter(|_| oidc::is_one(token)) {
        let passport = Arc::new(oidc.recognise(token, door.home.clock.now_ms())?);
        return Ok(Caller { who: Arc::clone(&passport.who), way: Way::Oidc(passport) });
    }
    match users.and_then(|users| users.of_token(token, door.home.clock.now_ms())) {
        Some(who) => Ok(Caller { who: Arc::new(who), way: Way::Token(hash) }),
        None => Err(nobody("the token is nobody's, or has ended", "`starling users token NAME` makes a new one")),
    }
}

/// Whoever is on this machine, by a name that only this machine has.
fn local(headers: &HeaderMap, own: bool) -> Result<Caller, Refused> {
    if !hosts_are(headers, is_loopback) {
        let hint = "use 127.0.0.1, or let somebody log in: `starling users add`";
        return Err(nobody("this door answers on loopback names only", hint).with(StatusCode::FORBIDDEN));
    }
    if !own {
        return Err(nobody("this door is not for pages of others", "ask from the console").with(StatusCode::FORBIDDEN));
    }
    let who = Principal { name: "local".to_owned(), role: Role::Local, team: "local".to_owned() };
    Ok(Caller { who: Arc::new(who), way: Way::Local })
}

fn hosts_are(headers: &HeaderMap, good: impl Fn(&str) -> bool) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        // Only what is no browser leaves it out.
        (None, _) => true,
        (Some(host), None) => host.to_str().is_ok_and(good),
        (Some(_), Some(_)) => false,
    }
}

fn is_loopback(host: &str) -> bool {
    let name = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit())).map_or(host, |(name, _)| name);
    let in_brackets = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
        || in_brackets.and_then(|name| name.parse::<Ipv6Addr>().ok()).is_some_and(|address| address.is_loopback())
}

/// Whether the page that asks, where a browser says which, is of this host. Of what a page has a browser fetch without asking (an image, a script) only
/// [`SITE`] says it: there is no `Origin` then.
pub(super) fn is_own(headers: &HeaderMap) -> bool {
    // `none` is somebody at the keyboard.
    if headers.get_all(SITE).iter().any(|site| !matches!(site.as_bytes(), b"same-origin" | b"none")) {
        return false;
    }
    let mut origins = headers.get_all(ORIGIN).iter();
    match (origins.next(), origins.next()) {
        (None, _) => true,
        (Some(origin), None) => {
            let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
            // Which port a scheme stands for is left out by browsers in both places, by others in one of them.
            let plain = |scheme: &str, authority: &str| {
                let port = if scheme == "https" { ":443" } else { ":80" };
                authority.strip_suffix(port).unwrap_or(authority).to_ascii_lowercase()
            };
            origin.is_some_and(|(scheme, authority)| {
                let is_web = matches!(scheme, "http" | "https");
                let said =
                    headers.contains_key(HOST) && hosts_are(headers, |host| plain(scheme, host) == plain(scheme, authority));
                is_web && said
            })
        }
        (Some(_), Some(_)) => false,
    }
}

/// What the one cookie of this door's holds. Of several none counts: one of them was planted.
pub(super) fn cookie(headers: &HeaderMap) -> Option<&str> {
    let pairs = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(';'));
    let mut own = pairs.filter_map(|pair| pair.trim().split_once('=')).filter(|(name, _)| *name == COOKIE_NAME);
    match (own.next(), own.next()) {
        (Some((_, value)), None) => Some(value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let line = |(name, value): &(&str, &str)| {
            (name.parse::<HeaderName>().expect("a name"), HeaderValue::from_str(value).expect("a value"))
        };
        lines.iter().map(line).collect()
    }

    #[test]
    fn only_names_that_no_page_can_take_are_loopbacks() {
        for good in ["localhost", "LOCALHOST:8430", "127.0.0.1", "127.0.0.1:8430", "127.8.8.8:1", "[::1]", "[::1]:8430"] {
            assert!(is_loopback(good), "{good}");
        }
        for bad in [
            "rebinding.example",
            "127.0.0.1.rebinding.example",
            "127.rebinding.example:8430",
            "localhost.rebinding.example",
            "0.0.0.0",
            "[::]",
            "::1",
            "[::1",
            "",
            ":8430",
            "10.0.0.1",
        ] {
            assert!(!is_loopback(bad), "{bad}");
        }
    }

    #[test]
    fn a_page_is_ours_if_its_origin_is_the_host_that_was_asked() {
        let host = ("host", "flock.example:8430");
        for (origin, own) in [
            ("https://flock.example:8430", true),
            ("http://FLOCK.example:8430", true),
            ("https://flock.example", false),
            ("https://flock.example:8431", false),
            ("https://evil.example", false),
            ("https://flock.example:8430.evil.example", false),
            ("null", false),
            ("", false),
            ("file://flock.example:8430", false),
        ] {
            assert_eq!(is_own(&headers(&[host, ("origin", origin)])), own, "{origin}");
        }
        assert!(is_own(&headers(&[host])), "curl sends none");
        assert!(is_own(&headers(&[("host", "flock.example"), ("origin", "https://flock.example:443")])));
        assert!(!is_own(&headers(&[("origin", "https://flock.example")])), "without a host nothing is its own");
        let two = [host, ("origin", "https://flock.example:8430"), ("origin", "https://evil.example")];
        assert!(!is_own(&headers(&two)));
    }

    #[test]
    fn what_another_page_fetches_without_asking_is_not_ours() {
        let host = ("host", "127.0.0.1:8430");
        for (site, own) in [
            ("same-origin", true),
            ("none", true),
            // Another port of this machine is of the same site.
            ("same-site", false),
            ("cross-site", false),
            ("", false),
        ] {
            assert_eq!(is_own(&headers(&[host, ("sec-fetch-site", site)])), own, "{site}");
            assert!(!is_own(&headers(&[host, ("sec-fetch-site", site), ("origin", "https://evil.example")])), "{site}");
        }
        let mut two = headers(&[host, ("sec-fetch-site", "same-origin")]);
        two.append("sec-fetch-site", HeaderValue::from_static("cross-site"));
        assert!(!is_own(&two));
    }

    #[test]
    fn a_cookie_beside_another_of_its_name_is_none() {
        assert_eq!(cookie(&headers(&[("cookie", "a=b; starling_session=x; c=d")])), Some("x"));
        assert_eq!(cookie(&headers(&[("cookie", "starling_session=x; starling_session=y")])), None);
        assert_eq!(cookie(&headers(&[("cookie", "starling_session=x"), ("cookie", "starling_session=x")])), None);
        assert_eq!(cookie(&headers(&[("cookie", "xstarling_session=x")])), None);
    }
}
