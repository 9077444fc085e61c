//! # The PostgreSQL door: SQL for whoever comes with psql, a driver or a notebook
//!
//! It listens where `postgres.listen` says, speaks version 3 of PostgreSQL's protocol, and hands every statement to the one gate
//! (`starling_query::Engine`). What it shares with the HTTP door is in `doors`. It decides who somebody is and nothing of what they may read.
//!
//! ```text
//!   TCP ─► opening: TLS · start-up · SCRAM-SHA-256, or a client certificate ─► Principal ─► session: a statement ─► small: answered from a short list
//!            │  10 s, 8 KiB a message, 32 at a time                   │                └─► scribe: audit entry (I6) ─► Engine ─► rows
//!            └─ users: name → role, team, verifier (`doors`)          └─ cancel, client's going, stop: the future is dropped
//! ```
//!
//! **Comes in:** bytes from whoever reaches the port. **Goes out:** rows as text or binary, NOTICE with what a private answer cost and leaves,
//! errors with SQLSTATE, reason and hint, the same as at every door, and a detail: what kind of error it is, and whether anything was charged.
//!
//! **Taken, not written:** messages and their encoding from pgwire; TLS from rustls. Not taken: `datafusion-postgres`' server (design 3.9), and
//! pgwire's own loop and SCRAM (`opening` and `doors::scram` say why).
//!
//! # Who attacks, what he sees, what bounds him
//!
//! - **Whoever can reach the port and is nobody.** He sees that a server is there, and under TLS its certificate. A name that is there and one
//!   that is not look the same: same salt each time, same iterations, same words, same half second. He may hold 32 openings for ten
//!   seconds each and so keep others from logging in, not from working; a firewall is to keep him out. He finds a password at two guesses a second
//!   and opening: passwords have twelve characters or more. Beyond loopback nothing is said in clear text; a certificate or key
//!   that cannot be used ends the process.
//! - **Whoever has a client certificate**, where `[tls]` names whose are taken: he comes in as its user and under no other name, without a password. One that is good
//!   and nobody's is refused and not passed over; one that is not good ends TLS. A token of `[oidc]` cannot be said here (`opening` says why).
//! - **Whoever reads the wire**, without TLS, on loopback: statements and answers, and no password (SCRAM).
//! - **Whoever reads the users file**: verifiers, with which nobody can log in (`doors::scram`), and which cost 100,000 hashes a guess.
//! - **A client with a role.** It sees what the table in `query/rights` gives its role, refused by name, not even planned. What it sends beside
//!   questions is answered from `small` and changes nothing. Values of parameters become literals of the statement's parse tree before the gate
//!   looks at it (`query/parameters`), so they are part of what is asked, priced and free when asked again, and can become nothing but
//!   literals. Its private questions are charged to its team and stand in the audit log.
//!   It may guess at the key of another's cancel request (32 bits with older clients), one connection a guess.
//! - **A slow, huge or silent client.** A message has at most 256 KiB and is refused by its length alone; a statement 16 KiB, at the gate. An answer
//!   has at most 64 MiB, is sent as it is read, and is let go when a piece is not taken within a minute or all of it within ten. A session has
//!   four portals, 1 MiB of prepared statements, one statement at a time, an hour of silence. There are `postgres.connections` of them; more are refused with
//!   53300. Of one user's statements `postgres.statements` are in work at one time; more wait for their turn (`turns`).
//!
//! **Invariants kept here.** I4: no error, log line or entry holds a password, verifier, statement, address or a name that did not log in. I6: a login
//! and each statement stand in the hash-chained log before anything is served; if it cannot be written, nothing is. I8: no certificate, no users file, no
//! randomness: no door.
//!
//! # What clients find
//!
//! - **Where they look around**: `pg_catalog` and `information_schema`, which hold what the principal may read and nothing else (`query/system`). Each
//!   statement over them stands in the audit log as any other does. A tool that opens sends hundreds, but the scribe writes one entry for all that come while one is
//!   being written, so they cost the log little; and a log with an exception is one whose reader has to know it.
//! - **Parameters**, described before they are bound: their types are the driver's own, else those of what they are compared with, else text. A value that cannot be
//!   read is refused by its number. What a statement was described as is what it answers; if values change a column's type, it is refused.
//! - **Settings**: `statement_timeout` is kept for the session and can only shorten what the gate allows. All others change nothing. Savepoints are marked and
//!   gone back to, so that a driver that brackets its own questions goes on after an error.
//! - **Not there**: cursors in SQL, `COPY`, lists as parameters, error positions. A bare table name is looked up in `stats`, whatever `search_path` is set to.
//!
//! **What can go wrong.** A statement that is cancelled after it was charged stays charged, and is free when asked again. A session whose user is removed
//! or changed, or whose certificate ends, ends with its next statement; one that is in work goes on. Times out of PostgreSQL's range are sent as its infinities in binary.

mod opening;
mod parameters;
mod rows;
mod session;
mod small;
mod turns;
mod wire;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use bytes::Bytes;
use starling_query::Engine;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::futures::OwnedNotified;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;

use self::opening::Shut;
use self::turns::Turns;
use crate::config::Config;
use crate::doors::scribe::Scribe;
use crate::doors::tls::Tls;
use crate::doors::users::UsersFile;
use crate::doors::{ACCEPT_PAUSE, Refusal, stopped, tls, users};
use crate::home::Home;

/// The version of PostgreSQL whose protocol and words are spoken.
const VERSION: &str = "16.0";
const VERSION_TEXT: &str = concat!("PostgreSQL 16.0 compatible; Starling ", env!("CARGO_PKG_VERSION"));

/// Openings at one time.
const OPENINGS: usize = 32;

/// What all connections share.
struct Door {
    home: Home,
    engine: Arc<Engine>,
    users: UsersFile,
    tls: Option<Tls>,
    scribe: Scribe,
    callers: Arc<Callers>,
    turns: Turns,
}

/// Sessions by number, each with its secret key, so that a cancel request finds its own.
#[derive(Default)]
struct Callers {
    next: AtomicI32,
    open: Mutex<HashMap<i32, (Bytes, Arc<Notify>)>>,
}

/// A session's place among the callers; given back when it is dropped.
struct Calls {
    id: i32,
    bell: Arc<Notify>,
    callers: Arc<Callers>,
}

impl Callers {
    fn enter(self: &Arc<Self>, key: Bytes) -> Calls {
        let bell = Arc::new(Notify::new());
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let id = loop {
            let id = self.next.fetch_add(1, Ordering::Relaxed) & i32::MAX;
            if id != 0 && !open.contains_key(&id) {
                break id;
            }
        };
        open.insert(id, (key, Arc::clone(&bell)));
        Calls { id, bell, callers: Arc::clone(self) }
    }

    /// Ends the statement that runs in this session, if the key is its own.
    fn call(&self, id: i32, key: &Bytes) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        // Hashes are compared, so that the time says nothing of how much was right.
        if let Some((own, bell)) = open.get(&id)
            && blake3::hash(own) == blake3::hash(key)
        {
            bell.notify_waiters();
        }
    }
}

impl Calls {
    /// Ready when somebody calls, from now on.
    fn called(&self) -> OwnedNotified {
        Arc::clone(&self.bell).notified_owned()
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        self.callers.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

/// Whether this door is to be opened at all.
#[must_use]
pub fn is_wanted(config: &Config) -> bool {
    !config.postgres.listen.is_empty()
}

/// Serves until `stop` says so; `ready` hears the address.
///
/// # Errors
/// When certificate, key or users file cannot be used, or the address cannot be bound: before anybody is let in.
pub async fn run(
    home: Home,
    engine: Arc<Engine>,
    mut stop: watch::Receiver<bool>,
    ready: impl FnOnce(SocketAddr),
) -> anyhow::Result<()> {
    let settings = &home.config.postgres;
    let users = UsersFile::new(users::path(&home.config));
    users.read().context("postgres.listen is set")?;
    let tls = tls::acceptor("postgres", &settings.tls_cert_file, &settings.tls_key_file, None, &home.config.tls)?;
    let listener = TcpListener::bind(&settings.listen)
        .await
        .with_context(|| format!("postgres.listen {}: cannot be bound; is another `starling serve` running?", settings.listen))?;
    let (scribe, scribing) = Scribe::new(home.clone(), "postgres");
    let sessions = Arc::new(Semaphore::new(settings.connections));
    let openings = Arc::new(Semaphore::new(OPENINGS));
    let door = Arc::new(Door {
        engine,
        users,
        tls,
        scribe,
        callers: Arc::default(),
        turns: Turns::new(settings.statements),
        home: home.clone(),
    });
    ready(listener.local_addr()?);

    // All that was spawned ends with this job.
    let mut tasks = JoinSet::new();
    tasks.spawn(scribing);
    let mut clients = JoinSet::new();
    loop {
        let opening = Arc::clone(&openings).acquire_owned().await.context("the door is closed")?;
        let accepted = tokio::select! {
            () = stopped(&mut stop) => break,
            accepted = listener.accept() => accepted,
        };
        while clients.try_join_next().is_some() {}
        match accepted {
            Ok((stream, _)) => {
                let (door, sessions, stop) = (Arc::clone(&door), Arc::clone(&sessions), stop.clone());
                clients.spawn(async move { connection(stream, door, (opening, sessions), stop).await });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    // Sessions hear of it themselves; a job that takes too long is ended by whoever started it.
    while clients.join_next().await.is_some() {}
    Ok(())
}

async fn connection(
    stream: TcpStream,
    door: Arc<Door>,
    (opening, sessions): (tokio::sync::OwnedSemaphorePermit, Arc<Semaphore>),
    mut stop: watch::Receiver<bool>,
) {
    let opened = tokio::select! {
        () = stopped(&mut stop) => return,
        opened = tokio::time::timeout(opening::TIME, opening::open(stream, &door)) => opened,
    };
    let mut opened = match opened {
        Ok(Ok(opened)) => opened,
        Ok(Err(Shut::Refused(mut wire, refusal))) => return wire.fatal(&refusal).await,
        Ok(Err(Shut::Lost(lost))) => return tracing::debug!(%lost, "a connection was not opened"),
        Ok(Err(Shut::Cancel)) => return,
        Err(_) => return tracing::debug!("a connection was not opened in time"),
    };
    let Ok(_place) = sessions.try_acquire_owned() else {
        let refusal = Refusal::new("53300", "there are too many connections", "close one, or raise postgres.connections");
        return opened.wire.fatal(&refusal).await;
    };
    drop(opening);
    if let Err(lost) = session::serve(opened, door, stop).await {
        tracing::debug!(%lost, "a session ended");
    }
}
