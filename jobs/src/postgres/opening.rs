//! The opening of a connection: TLS, start-up message, SCRAM. What comes out is a session with a [`Principal`], or nothing.
//!
//! Whoever shows a certificate under TLS comes in as its user, without a password and under no other name; one that is nobody's does not get the chance of a
//! password, so that it is not overlooked. A token of `[oidc]` cannot be said here: SCRAM shows only that somebody knows a secret, and the other way
//! of saying one, in clear text, is not spoken.
//!
//! pgwire's own loop is not used: after an error it sets the connection to "ready for query", a refused login too, and relies on a closed
//! socket. Here whoever has not shown who it is has no session to be ready.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pgwire::messages::response::{GssEncResponse, SslResponse};
use pgwire::messages::startup::{
    Authentication, BackendKeyData, NegotiateProtocolVersion, ParameterStatus, PasswordMessageFamily, SecretKey, Startup,
};
use pgwire::messages::{
    PgWireBackendMessage as Answer, PgWireFrontendMessage as Message, SslNegotiationMetaMessage as Negotiation,
};
use serde_json::json;
use starling_query::Principal;
use tokio::net::TcpStream;

use super::wire::{Lost, OPENING_BYTES, Wire};
use super::{Calls, Door};
use crate::doors::scram::{self, SALT_BYTES};
use crate::doors::tls::Peer;
use crate::doors::users::Users;
use crate::doors::{PENANCE, Refusal, scribe};

/// How long an opening may take.
pub(super) const TIME: Duration = Duration::from_secs(10);
const MECHANISM: &str = "SCRAM-SHA-256";

/// Why there is no session.
pub(super) enum Shut {
    /// The client has gone, or is none.
    Lost(Lost),
    /// The client is told, and let go.
    Refused(Wire, Refusal),
    /// It was a request to cancel a statement of another connection.
    Cancel,
}

impl From<Lost> for Shut {
    fn from(lost: Lost) -> Self {
        Self::Lost(lost)
    }
}

/// A connection whose client has shown who it is.
pub(super) struct Opened {
    pub(super) wire: Wire,
    pub(super) who: Arc<Principal>,
    pub(super) badge: Badge,
    pub(super) calls: Calls,
}

/// By what somebody came in. A session ends with it.
#[derive(Clone)]
pub(super) enum Badge {
    /// A password, by what its user's sessions hang on.
    Password(blake3::Hash),
    Certificate(Arc<Peer>),
}

impl Badge {
    /// Whether it still lets this one in.
    pub(super) fn is_good(&self, who: &Principal, users: &Users, now_ms: i64) -> bool {
        match self {
            Self::Password(mark) => users.mark(&who.name) == Some(*mark),
            Self::Certificate(peer) => peer.who(Some(users), now_ms).is_ok_and(|own| own == *who),
        }
    }
}

/// Opens a connection.
///
/// # Errors
/// [`Shut`].
pub(super) async fn open(stream: TcpStream, door: &Arc<Door>) -> Result<Opened, Shut> {
    let (mut wire, startup, peer) = begin(stream, door).await?;
    wire.started();
    macro_rules! refuse {
        ($code:expr, $reason:expr, $hint:expr) => {
            return Err(Shut::Refused(wire, Refusal::new($code, $reason, $hint)))
        };
    }
    if startup.protocol_number_major != 3 {
        refuse!("0A000", "only version 3 of the protocol is spoken here", "use a newer client");
    }
    let extensions: Vec<String> = startup.parameters.keys().filter(|name| name.starts_with("_pq_.")).cloned().collect();
    let minor = startup.protocol_number_minor;
    // Before 3.2 the key of a cancel request has four bytes.
    let (long_key, spoken) = if minor >= 2 { (true, 2) } else { (false, 0) };
    if minor != spoken || !extensions.is_empty() {
        // Major and minor in one number, as in the start-up message.
        let version = (3 << 16) | i32::from(spoken);
        wire.send(Answer::NegotiateProtocolVersion(NegotiateProtocolVersion::new(version, extensions))).await?;
    }
    let Some(name) = startup.parameters.get("user").filter(|name| !name.is_empty()) else {
        refuse!("28000", "no user is named", "name one with -U, or user=");
    };
    if startup.parameters.get("replication").is_some_and(|value| !matches!(value.as_str(), "false" | "off" | "no" | "0")) {
        refuse!("0A000", "there is nothing to replicate here", "connect without replication");
    }
    if startup.parameters.get("client_encoding").is_some_and(|name| !is_utf8(name)) {
        refuse!("22023", "only UTF8 is spoken here", "set client_encoding to UTF8");
    }

    let users = match door.users.read() {
        Ok(users) => users,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "nobody can log in over PostgreSQL");
            refuse!("58030", "the users file cannot be used", "see the log of `starling serve`");
        }
    };
    let (verifier, who) = users.find(name);
    let is_user = who.is_some();
    let mut nonce = [0; SALT_BYTES];
    let mut key = vec![0; if long_key { 32 } else { 4 }];
    if door.home.entropy.fill(&mut nonce).and_then(|()| door.home.entropy.fill(&mut key)).is_err() {
        refuse!("58000", "there is no randomness", "see the log of `starling serve`");
    }
    let proved = match peer {
        Some(peer) => match peer.who(Some(&users), door.home.clock.now_ms()) {
            Ok(own) if own.name == *name => Some((None, own, Badge::Certificate(peer))),
            Ok(_) => {
                // Whose it is, whoever has it knows; whether there is such a name as it said, it does not hear.
                tokio::time::sleep(PENANCE).await;
                refuse!("28000", "the certificate is another user's", "name the user whose it is with -U, or user=");
            }
            Err(refusal) => {
                tokio::time::sleep(PENANCE).await;
                return Err(Shut::Refused(wire, refusal));
            }
        },
        None => {
            wire.send(Answer::Authentication(Authentication::SASL(vec![MECHANISM.to_owned()]))).await?;
            wire.flush().await?;
            let proof = prove(&mut wire, verifier, nonce).await?.ok();
            let mark = users.mark(name).map(Badge::Password);
            proof.zip(who).zip(mark).map(|((proof, who), badge)| (Some(proof), who, badge))
        }
    };
    let Some((proof, who, badge)) = proved else {
        // One word for a wrong password and an unknown name. Neither is logged: a name may be anything.
        tracing::warn!("a login over PostgreSQL was refused");
        door.home.heard.login("postgres", name, is_user, door.home.clock.now_ms());
        tokio::time::sleep(PENANCE).await;
        refuse!("28P01", "name and password do not fit", "ask whoever runs `starling users`");
    };

    let way = if proof.is_some() { "password" } else { "certificate" };
    let detail = json!({ "door": "postgres", "user": who.name, "role": who.role.name(), "team": who.team, "way": way });
    if door.home.metastore.append_audit("sql_login", detail, door.home.clock.now_ms()).await.is_err() {
        door.home.metrics.failed(crate::metrics::Work::Audit);
        return Err(Shut::Refused(wire, scribe::unwritten()));
    }
    if let Some(proof) = proof {
        wire.send(Answer::Authentication(Authentication::SASLFinal(Bytes::from(proof)))).await?;
    }
    wire.send(Answer::Authentication(Authentication::Ok)).await?;
    let application = startup.parameters.get("application_name").map_or("", String::as_str);
    for (name, value) in [
        ("application_name", application),
        ("client_encoding", "UTF8"),
        ("DateStyle", "ISO, MDY"),
        ("default_transaction_read_only", "on"),
        ("in_hot_standby", "off"),
        ("integer_datetimes", "on"),
        ("IntervalStyle", "postgres"),
        ("is_superuser", "off"),
        ("server_encoding", "UTF8"),
        ("server_version", super::VERSION),
        ("session_authorization", &who.name),
        ("standard_conforming_strings", "on"),
        ("TimeZone", "UTC"),
    ] {
        wire.send(Answer::ParameterStatus(ParameterStatus::new(name.to_owned(), value.to_owned()))).await?;
    }
    let key = Bytes::from(key);
    let calls = door.callers.enter(key.clone());
    let secret = match <[u8; 4]>::try_from(key.as_ref()) {
        Ok(short) => SecretKey::I32(i32::from_be_bytes(short)),
        Err(_) => SecretKey::Bytes(key),
    };
    wire.send(Answer::BackendKeyData(BackendKeyData::new(calls.id, secret))).await?;
    Ok(Opened { wire, who: Arc::new(who), badge, calls })
}

fn is_utf8(name: &str) -> bool {
    matches!(name.trim_matches(['\'', '"']).to_ascii_lowercase().as_str(), "utf8" | "utf-8" | "unicode")
}

/// As far as the start-up message, under TLS where a certificate is set.
async fn begin(stream: TcpStream, door: &Door) -> Result<(Wire, Startup, Option<Arc<Peer>>), Shut> {
    let _ = stream.set_nodelay(true);
    let mut wire = Wire::new(stream);
    let (mut secure, mut peer) = (false, None);
    // Each is asked for once; then comes the start-up message.
    for _ in 0..3 {
        match wire.next(OPENING_BYTES).await? {
            Message::SslNegotiation(Negotiation::PostgresSsl(_)) if !secure => match &door.tls {
                Some(tls) => {
                    wire.send(Answer::SslResponse(SslResponse::Accept)).await?;
                    wire.flush().await?;
                    let (stream, shown) = tls.accept(wire.into_stream()?).await.map_err(|_| Lost::Gone)?;
                    peer = shown;
                    wire = Wire::new(stream);
                    secure = true;
                }
                None => {
                    wire.send(Answer::SslResponse(SslResponse::Refuse)).await?;
                    wire.flush().await?;
                }
            },
            Message::SslNegotiation(Negotiation::PostgresGss(_)) => {
                wire.send(Answer::GssEncResponse(GssEncResponse::Refuse)).await?;
                wire.flush().await?;
            }
            Message::CancelRequest(request) => {
                door.callers.call(request.pid, &request.secret_key.to_bytes());
                return Err(Shut::Cancel);
            }
            Message::Startup(startup) if door.tls.is_some() && !secure => {
                drop(startup);
                let refusal =
                    Refusal::new("28000", "this server is spoken to under TLS only", "connect with sslmode=verify-full");
                return Err(Shut::Refused(wire, refusal));
            }
            Message::Startup(startup) => return Ok((wire, startup, peer)),
            _ => return Err(Shut::Lost(Lost::Malformed)),
        }
    }
    Err(Shut::Lost(Lost::Malformed))
}

/// The SCRAM exchange up to the server's last word, which is not sent yet.
async fn prove(
    wire: &mut Wire,
    verifier: scram::Verifier,
    nonce: [u8; SALT_BYTES],
) -> Result<Result<String, scram::ScramError>, Lost> {
    let initial = password(wire).await?;
    let Some(client_first) = initial_response(&initial) else { return Ok(Err(scram::ScramError::Malformed)) };
    let (server_first, waiting) = match scram::first(client_first, verifier, nonce) {
        Ok(first) => first,
        Err(error) => return Ok(Err(error)),
    };
    wire.send(Answer::Authentication(Authentication::SASLContinue(Bytes::from(server_first)))).await?;
    wire.flush().await?;
    Ok(waiting.last(&password(wire).await?))
}

/// The body of a message of the exchange. pgwire's own reading of it panics where something is lacking, which here anybody could send.
async fn password(wire: &mut Wire) -> Result<BytesMut, Lost> {
    match wire.next(OPENING_BYTES).await? {
        Message::PasswordMessageFamily(PasswordMessageFamily::Raw(body)) => Ok(body),
        _ => Err(Lost::Malformed),
    }
}

/// The text of an initial response that chooses the one mechanism: its name, a zero, a length, so many bytes.
fn initial_response(body: &[u8]) -> Option<&[u8]> {
    let rest = body.strip_prefix(MECHANISM.as_bytes())?.strip_prefix(&[0])?;
    let (length, text) = rest.split_first_chunk::<4>()?;
    (usize::try_from(u32::from_be_bytes(*length)).ok()? == text.len()).then_some(text)
}
