//! # The Flight SQL door: columns for whoever comes with ADBC, a notebook or another Arrow client
//!
//! It listens where `flight.listen` says, speaks Arrow Flight SQL over gRPC, and hands every statement to the one gate
//! (`starling_query::Engine`). What it shares with the other doors is in `doors`. It decides who somebody is and nothing of what
//! they may read.
//!
//! ```text
//!   TCP ─► connections: TLS · limits ─► connection: HTTP/2 ─► service: way_in, at each call: who is it? ─► a call
//!            100 at a time                10 s to be somebody     │ Basic, once: logins ─► sessions            │
//!                                         an hour of silence      └ Bearer: users, sessions, [oidc]; or mTLS   │
//!     GetFlightInfo, GetSchema ─► planned: columns, nothing charged or drawn ─► a sealed ticket        ◄───────┤
//!     DoGet ─► the ticket is its caller's? ─► scribe: audit entry (I6) ─► Engine ─► record batches     ◄───────┤
//!     CreatePreparedStatement, DoPut ─► a sealed handle: text, then text and values                    ◄───────┘
//! ```
//!
//! **Comes in:** bytes from whoever reaches the port. **Goes out:** Arrow record batches with the columns of `starling sql
//! --format arrow`; as `app_metadata` what a private answer cost and leaves; errors as gRPC statuses whose text is what every
//! other door says.
//!
//! **Taken, not written:** messages, their dispatch and the encoding of batches from arrow-flight, gRPC from tonic, HTTP/2 from
//! hyper, TLS from rustls. Not taken: tonic's own server, which knows no limit of connections or of silence; arrow-flight's
//! `FlightSqlService`, which would authorise in some thirty methods what is authorised here in one place before anything of a
//! message is looked at.
//!
//! # Who attacks, what he sees, what bounds him
//!
//! - **Whoever can reach the port and is nobody.** Under TLS he sees the certificate; every call is answered with
//!   UNAUTHENTICATED, before its body is read. A connection on which nobody was recognised for ten seconds is closed; a head has
//!   at most 16 KiB. Logins are those of the HTTP door: the same words and half second for names that are there and that are not,
//!   32 at a time, refused ones counted in the log. Beyond loopback nothing is said in clear text. He may hold all connections,
//!   ten seconds at a time; a firewall is to keep him out.
//! - **Whoever finds a ticket or a handle.** It holds what was asked and no right to the answer: the caller is recognised anew at
//!   each call, the statement goes through the gate, the log and the ledger as if it had been sent again. It is bound to its user
//!   by a keyed hash over the user as the users file has it, so that it is refused to everybody else, and to the same user with
//!   another role, team or password; a ticket ends after ten minutes, a handle after twelve hours, both with the process. They
//!   are kept by the client, so that they cost the server nothing.
//! - **Whoever was somebody.** A head may come long before its message. So each call is looked at twice: by its head, and when
//!   its message is there, before anything of it is planned or asked; a token that was revoked between them is nobody's.
//! - **Whoever finds a token.** As at the HTTP door: it ends on its day or when it is revoked, a login's after an hour of
//!   silence, twelve hours, or when its user is removed or changed. Memory and files hold their hashes.
//! - **Whoever comes with a token of `[oidc]`** is who its provider says, looked at anew at each call, as is a client certificate that
//!   `[tls]` takes, where nothing else is shown. A ticket of such a token's person is theirs with a new token, too, in the same role and
//!   team; a user of the users file is never the same person.
//! - **A client with a role.** It sees what the table in `query/rights` gives its role. **A plan is no statement**: the gate
//!   reads SQL, and what it admits is decided by words, so Substrait is refused by its type and never decoded. Updates,
//!   ingestion, transactions, exchanges and polling are refused in the same way, with what to do instead.
//! - **A page in somebody's browser.** It has no token to send: a browser sends none by itself, and a page cannot speak gRPC to
//!   another host without asking.
//! - **A slow, huge or silent client.** A message to this door has at most 256 KiB, parameters ten seconds; a statement 16 KiB,
//!   at the gate. `flight.statements` statements of a user are in work or on their way at one time. An answer has the gate's 64
//!   MiB and 100,000 rows; a connection that does not take a piece within a minute, or an answer within ten, is closed. The last
//!   piece of an answer is excepted: it is handed over, and may wait for its client as long as the connection lasts. 16 calls
//!   are open on a connection, with such a piece of about 64 KiB each; one that is silent for an hour is closed, and one that
//!   does not answer a ping.
//! - **Parameters made by hand.** They come as Arrow's IPC, which is lengths and offsets from a stranger. Columns are admitted by
//!   type before a batch is looked at, compressed batches and dictionaries are refused by their header (a compressed length is
//!   believed before it is checked), and what remains is read on a thread of its own, whose panic is a refusal.
//!
//! # When a question is charged
//!
//! `GetFlightInfo` plans: the columns are known without running the statement, and nothing is charged. Planning does read: tables
//! of `meta` and `integrity` are made, whole, from the metastore before their columns are known. That takes a place of the user's
//! and the gate's time as a statement does, only the columns go out, and the log has no entry of it. `DoGet` asks, once, and
//! charges as every door does. Asked again, with the same ticket or another, the same question is free and has the same
//! numbers. So a client may look at as many columns as it likes, and a ticket that is never redeemed costs nothing.
//!
//! **Invariants kept here.** I4: no status, log line or entry holds a password, token, statement or value. I6: logins, statements
//! and listings stand in the hash-chained log before anything is served; if it cannot be written, nothing is (UNAVAILABLE). I8:
//! no certificate, no users file where there is no `[oidc]`, no randomness: no door.
//!
//! **What can go wrong.** A statement that is cancelled after it was charged stays charged, and is free when asked again. A
//! closed prepared statement's handle would still be taken: it holds no right that its text would not have. Tickets are this
//! process's: behind several of them a proxy must keep a client with one. ADBC does not show `app_metadata`; `meta.charges` and
//! `meta.allotments` tell what was spent.

mod connection;
mod listings;
mod parameters;
mod running;
mod service;
mod statements;
mod status;
mod ticket;
mod way_in;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use starling_query::Engine;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::running::Running;
use self::ticket::Seal;
use crate::config::Config;
use crate::doors::logins::Logins;
use crate::doors::oidc::Oidc;
use crate::doors::places::Places;
use crate::doors::scribe::Scribe;
use crate::doors::sessions::Sessions;
use crate::doors::users::{self, UsersFile};
use crate::doors::{FLIGHT, connections, tls};
use crate::home::Home;

/// What all calls share. Cheap to clone.
#[derive(Clone)]
struct Door(Arc<Inner>);

struct Inner {
    home: Home,
    engine: Arc<Engine>,
    users: UsersFile,
    oidc: Option<Oidc>,
    sessions: Sessions,
    logins: Logins,
    scribe: Scribe,
    places: Arc<Places>,
    seal: Seal,
    running: Arc<Running>,
    stop: watch::Receiver<bool>,
}

impl std::ops::Deref for Door {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

/// Whether this door is to be opened at all.
#[must_use]
pub fn is_wanted(config: &Config) -> bool {
    !config.flight.listen.is_empty()
}

/// Serves until `stop` says so; `ready` hears the address and whether TLS is spoken.
///
/// # Errors
/// When certificate, key or users file cannot be used, there is no randomness, or the address cannot be bound: before anybody is
/// let in.
pub async fn run(
    home: Home,
    engine: Arc<Engine>,
    mut stop: watch::Receiver<bool>,
    ready: impl FnOnce(SocketAddr, bool),
) -> anyhow::Result<()> {
    let settings = &home.config.flight;
    let users = UsersFile::new(users::path(&home.config));
    let oidc = Oidc::open(&home.config.oidc)?;
    if oidc.is_none() || users.is_there() {
        users.read().context("flight.listen is set")?;
    }
    let tls = tls::acceptor("flight", &settings.tls_cert_file, &settings.tls_key_file, Some(b"h2"), &home.config.tls)?;
    let seal = Seal::new(home.entropy.as_ref()).context("the Flight SQL door needs randomness for its tickets")?;
    let listener = TcpListener::bind(&settings.listen)
        .await
        .with_context(|| format!("flight.listen {}: cannot be bound; is another `starling serve` running?", settings.listen))?;
    let (address, secure) = (listener.local_addr()?, tls.is_some());
    let (scribe, scribing) = Scribe::new(home.clone(), FLIGHT.word);
    let (logins, noting) = Logins::new(home.clone(), FLIGHT);
    let (most, statements) = (settings.connections, settings.statements);
    let door = Door(Arc::new(Inner {
        home,
        engine,
        users,
        oidc,
        sessions: Sessions::default(),
        logins,
        scribe,
        places: Places::new(FLIGHT, statements),
        seal,
        running: Arc::default(),
        stop: stop.clone(),
    }));
    ready(address, secure);
    // What was spawned ends with this job.
    let mut tasks = JoinSet::new();
    tasks.spawn(scribing);
    tasks.spawn(noting);
    connections::serve(listener, tls, connection::Http2(door), most, &mut stop).await
}
