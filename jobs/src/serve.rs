//! # The HTTP door: SQL, statistics, budget, health and alerts, for programs, for the console, and for curl
//!
//! It listens where `serve.listen` says, speaks HTTP/1.1, and hands every statement to the one gate (`starling_query::Engine`). What it has in
//! common with the PostgreSQL door is in `doors`. It decides who somebody is; who may see what is the table in `starling_query`'s `rights`.
//!
//! ```text
//!   TCP ─► connections: TLS · limits ─► way_in: who is it? may it enter this room? ─► a handler ─► told: one shape of answers and errors
//!             512 at a time, heads 10 s,    │  cookie: sessions ◄─ login · certificate    ├─ sql ─► scribe: audit entry (I6) ─► Engine ─► rows
//!             a piece a minute              │  token: users, token file, [oidc]           ├─ alerts ─► audit entry ─► desk
//!                                           │  nobody: this machine, while there          ├─ audit, budget, health, catalogue, promises
//!                                           └─ are no users                               └─ console, openapi: for everybody
//! ```
//!
//! **Comes in:** bytes from whoever reaches the port, and from web pages that somebody's browser has open. **Goes out:** JSON, CSV or an Arrow
//! stream; server-sent events; the console's files; errors with SQLSTATE and hint, the same as at every door.
//!
//! **Taken, not written:** HTTP from hyper, routes from axum, TLS from rustls. `routes` is the one list of what there is: a route cannot be
//! without saying who may use it, and `openapi.json` is held against it by a test.
//!
//! # Who attacks, what he sees, what bounds him
//!
//! - **Whoever can reach the port and is nobody.** He sees the console's files, the list of routes, and under TLS the certificate. A name that
//!   is there and one that is not are refused in the same words after the same work and the same half second, which nobody shortens by hanging
//!   up; 32 logins are under way at most, so a password is guessed at 64 times a second by all of them together, and has twelve characters or
//!   more. Refused logins stand in the log, two entries a second at most, without names: a name may be a mistyped password. A connection that
//!   does not send a request's head within ten seconds is closed, one with a head
//!   beyond 32 KiB or 64 fields is refused, a body beyond 64 KiB or ten seconds too. There are `serve.connections`; he may hold all of them and keep others
//!   out, so a firewall is to keep him out. Beyond loopback nothing is said in clear text.
//! - **A page in somebody's browser.** Its requests bear no cookie (`SameSite=Strict`); if one did, it would count only together with the header
//!   `X-Starling`, which a page of another origin cannot send without being allowed to, and nobody is. `Origin`, where a browser sends it, must be this
//!   host, and `Sec-Fetch-Site` must name no other: of an image or a script that a page asks for it is all that is sent. Bodies are JSON by
//!   their content type, which a form cannot send. Where nobody logs in, only loopback's own names are answered to, so that no page reaches
//!   this door under a name of its own (rebinding). Answers forbid frames, foreign scripts, guesses of content types, and other
//!   hosts' pages taking them in.
//! - **Whoever steals a cookie or a token.** A cookie is out of scripts' reach, ends after an hour of silence, twelve hours, a logout, a restart, or
//!   when its user is removed or gets another role, team or password. A session is made at each login and never before: who plants a cookie plants
//!   nothing. A token ends on its day, or with `starling users token NAME --revoke`. Memory and files hold their hashes.
//! - **Whoever comes with a token of `[oidc]`** is who its provider says, for as long as the token is good (`doors::oidc`); no session is opened by it.
//! - **Whoever has a client certificate** that `[tls]` takes is its user (`doors::tls`). A browser shows it of itself, so it counts by the rules of a cookie: this host's own
//!   pages, `X-Starling` on all but GET. What is shown beside it, a token or a cookie, says who somebody is.
//! - **A user with a role.** It sees what the table in `rights` gives its role, refused by name. Its questions are charged to its team. Steps on
//!   alerts bear its own name. `serve.statements` of its statements are in work or on their way at one time; more are refused with 429, so that a
//!   client that takes its answers slowly or asks for too much holds up nobody but itself.
//! - **A slow, huge or silent client.** It may take a minute for a piece of an answer and ten for all of it. An answer has at most 16 MiB as
//!   JSON, 64 MiB as CSV or Arrow, and 64 MiB in memory. A statement ends when its client has gone: the future is dropped. Streams of alerts
//!   end with the session or token they were opened with.
//! - **Whoever is on this machine**, as long as there are no users, no token file and no `[oidc]`: all but `private.*`. Once a users file was seen, its
//!   absence does not open the door again.
//!
//! **Invariants kept here.** I4: no error, log line or audit entry holds a password, token, cookie, statement or address. I6: logins, statements and reads of
//! alerts and of the log stand in the hash-chained log before anything is served; if it cannot be written, nothing is (503). A stream of
//! alerts has its entry at its opening and before each later lot, and ends where that cannot be written. I8: no usable certificate, users file,
//! token file or randomness: no door, or no session.
//!
//! **What can go wrong.** A statement that is cancelled after it was charged stays charged, and is free when asked again. A proxy in front that ends TLS
//! talks to loopback: it must pass on `Host`, and there must be users, as otherwise everybody behind it is on this machine. Sessions are this
//! process's: behind several of them a proxy must keep a browser with one.

mod alerts;
mod audit;
mod budget;
mod catalogue;
mod connections;
mod console;
mod health;
mod login;
mod openapi;
mod promises;
mod routes;
mod rows;
mod sql;
mod told;
mod way_in;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context as _;
use starling_query::Engine;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::doors::logins::Logins;
use crate::doors::oidc::Oidc;
use crate::doors::places::Places;
use crate::doors::scribe::Scribe;
use crate::doors::sessions::Sessions;
use crate::doors::users::{self, UsersFile};
use crate::doors::{HTTP, connections as accepted, tls};
use crate::home::Home;

/// The fewest characters of a token file's token.
const TOKEN_CHARACTERS: usize = 24;

/// What all requests share. Cheap to clone.
#[derive(Clone)]
struct Door(Arc<Inner>);

struct Inner {
    home: Home,
    engine: Arc<Engine>,
    users: UsersFile,
    /// Whether a users file was ever seen: then there is no way in without one.
    had_users: AtomicBool,
    /// Hash of the token file's token.
    service: Option<blake3::Hash>,
    /// Whether this machine's own callers are let in where nobody else can be.
    loopback: bool,
    /// Whether TLS is spoken here.
    secure: bool,
    oidc: Option<Oidc>,
    sessions: Sessions,
    logins: Logins,
    scribe: Scribe,
    places: Arc<Places>,
    reads: promises::Reads,
    stop: watch::Receiver<bool>,
}

impl std::ops::Deref for Door {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

/// Serves until `stop` says so; `ready` hears the address and whether TLS is spoken.
///
/// # Errors
/// When certificate, key, token file, users file or the keys of `[oidc]` cannot be used, or the address cannot be bound: before anybody is let in.
pub async fn run(
    home: Home,
    engine: Arc<Engine>,
    mut stop: watch::Receiver<bool>,
    ready: impl FnOnce(SocketAddr, bool),
) -> anyhow::Result<()> {
    let settings = &home.config.serve;
    let service = service_token(&settings.token_file)?;
    let users = UsersFile::new(users::path(&home.config));
    let has_users = users.is_there();
    if has_users {
        users.read().context("the HTTP door has users")?;
    }
    let tls = tls::acceptor("serve", &settings.tls_cert_file, &settings.tls_key_file, Some(b"http/1.1"), &home.config.tls)?;
    let oidc = Oidc::open(&home.config.oidc)?;
    let listener = tokio::net::TcpListener::bind(&settings.listen)
        .await
        .with_context(|| format!("serve.listen {}: cannot be bound; is another `starling serve` running?", settings.listen))?;
    let address = listener.local_addr()?;
    let loopback = address.ip().is_loopback();
    anyhow::ensure!(
        loopback || has_users || service.is_some() || oidc.is_some(),
        "serve.listen {}: beyond loopback somebody must be let in and others not: `starling users add`, [oidc] or serve.token_file (P33)",
        settings.listen
    );
    let (scribe, scribing) = Scribe::new(home.clone(), HTTP.word);
    let (logins, noting) = Logins::new(home.clone(), HTTP);
    let (connections, secure) = (settings.connections, tls.is_some());
    let door = Door(Arc::new(Inner {
        engine,
        users,
        had_users: AtomicBool::new(has_users),
        service,
        loopback,
        secure,
        oidc,
        sessions: Sessions::default(),
        logins,
        scribe,
        places: Places::new(HTTP, settings.statements),
        reads: promises::Reads::default(),
        stop: stop.clone(),
        home: home.clone(),
    }));
    ready(address, secure);
    // What was spawned ends with this job.
    let mut tasks = JoinSet::new();
    tasks.spawn(scribing);
    tasks.spawn(noting);
    accepted::serve(listener, tls, connections::Http1(routes::app(door)), connections, &mut stop).await
}

/// The hash of the token in the token file; `None`: there is no such file.
pub(crate) fn service_token(file: &str) -> anyhow::Result<Option<blake3::Hash>> {
    if file.is_empty() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(file).with_context(|| format!("serve.token_file {file}: cannot be read"))?;
    let text = zeroize::Zeroizing::new(text);
    let token = text.trim();
    anyhow::ensure!(
        token.len() >= TOKEN_CHARACTERS,
        "serve.token_file {file}: a token of at least {TOKEN_CHARACTERS} characters is needed"
    );
    Ok(Some(blake3::hash(token.as_bytes())))
}
