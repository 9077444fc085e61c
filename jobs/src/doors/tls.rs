//! TLS of a door: a certificate chain and its own key, or no door at all (I8); and who a client's own certificate says that it is.
//!
//! **Client certificates** are asked for where `[tls] client_ca_file` names whose are taken. One that is shown must be good, whether or not somebody comes with a
//! password or a token as well: signed by one of those authorities, for clients, within its days; otherwise TLS itself ends the connection. It is
//! known by the URIs and DNS names of its `subjectAltName`, never by its common name (RFC 9525), and `starling users certificate` says whose
//! such a name is. There are no lists of revoked certificates: whose name is taken out of the users file, or who is removed, is let in no more.
//!
//! A connection may outlive its certificate, so over HTTP and Flight it is looked at anew at each call, and no TLS session is resumed where certificates are
//! asked for. At PostgreSQL's door it is looked at anew before each statement.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use serde::{Deserialize, Serialize};
use starling_query::Principal;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::{CertificateError, Error, RootCertStore, ServerConfig, crypto::ring};
use tokio_rustls::server::TlsStream;

use super::Refusal;
use super::users::Users;

/// Client certificates, at every door that speaks TLS.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct TlsSettings {
    pub client_ca_file: String,
    pub client_certificates: Wanted,
}

/// Whether a client has to have one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// It may come with a password or a token instead.
    Optional,
    /// Nobody is spoken to without one.
    Required,
}

/// TLS of a door. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Tls {
    acceptor: TlsAcceptor,
    clients: Option<Arc<dyn ClientCertVerifier>>,
    refused: Arc<Refused>,
}

/// Certificates that were refused, by why: when the last line on them was written, and how many are not in the log yet. Whoever shows bad ones all day does
/// not fill it.
#[derive(Default)]
struct Refused(Mutex<HashMap<&'static str, (Instant, u64)>>);

/// Between two lines that say the same why, at least.
const BETWEEN_LINES: Duration = Duration::from_secs(1);

impl Refused {
    /// Takes one in. How many have come since the last line, this one included, if there may be a line now.
    fn count(&self, why: &'static str, now: Instant) -> Option<u64> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((last, waiting)) = held.get_mut(why) else {
            held.insert(why, (now, 0));
            return Some(1);
        };
        *waiting += 1;
        if now.saturating_duration_since(*last) < BETWEEN_LINES {
            return None;
        }
        *last = now;
        Some(std::mem::take(waiting))
    }
}

/// A client that has shown a certificate which was good then.
pub(crate) struct Peer {
    chain: Vec<CertificateDer<'static>>,
    /// Its URIs and DNS names.
    names: Vec<String>,
    clients: Arc<dyn ClientCertVerifier>,
}

/// TLS from a certificate chain and its key, both PEM; `None` where neither is named. `door` is the settings' table, `protocol` what is spoken under
/// TLS where clients ask for one by name.
///
/// # Errors
/// When one of them cannot be used, or they do not belong together, or there are no authorities where some are named. Whatever is wrong, nobody is
/// spoken to in clear text instead.
pub(crate) fn acceptor(
    door: &str,
    certificate: &str,
    key: &str,
    protocol: Option<&[u8]>,
    settings: &TlsSettings,
) -> anyhow::Result<Option<Tls>> {
    let hint = "PEM files of one certificate chain and its own unencrypted key are needed";
    if certificate.is_empty() && key.is_empty() {
        return Ok(None);
    }
    let chain = certificates(&format!("{door}.tls_cert_file"), certificate, hint)?;
    let key_der = PrivateKeyDer::from_pem_file(Path::new(key))
        .map_err(|_| anyhow::anyhow!("{door}.tls_key_file {key}: cannot be read as a key; {hint}"))?;
    let clients = verifier(settings)?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider())).with_safe_default_protocol_versions()?;
    let config = match &clients {
        Some(clients) => config.with_client_cert_verifier(Arc::clone(clients)),
        None => config.with_no_client_auth(),
    };
    let mut config = config
        .with_single_cert(chain, key_der)
        .map_err(|_| anyhow::anyhow!("{door}.tls_key_file {key}: is not the key of {door}.tls_cert_file; {hint}"))?;
    config.alpn_protocols = protocol.map(<[u8]>::to_vec).into_iter().collect();
    if clients.is_some() {
        // A session that is resumed brings its certificate with it, unlooked at.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok(Some(Tls { acceptor: TlsAcceptor::from(Arc::new(config)), clients, refused: Arc::default() }))
}

fn certificates(setting: &str, file: &str, hint: &str) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let chain: Vec<_> = CertificateDer::pem_file_iter(Path::new(file))
        .and_then(Iterator::collect)
        .map_err(|_| anyhow::anyhow!("{setting} {file}: cannot be read as a certificate; {hint}"))?;
    anyhow::ensure!(!chain.is_empty(), "{setting} {file}: there is no certificate in it; {hint}");
    Ok(chain)
}

fn verifier(settings: &TlsSettings) -> anyhow::Result<Option<Arc<dyn ClientCertVerifier>>> {
    let file = &settings.client_ca_file;
    if file.is_empty() {
        return Ok(None);
    }
    let hint = "a PEM file of the certificates of authorities is needed, whose clients' are taken";
    let mut roots = RootCertStore::empty();
    for root in certificates("tls.client_ca_file", file, hint)? {
        roots.add(root).map_err(|_| anyhow::anyhow!("tls.client_ca_file {file}: one of them cannot be used; {hint}"))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(ring::default_provider()));
    let builder = match settings.client_certificates {
        Wanted::Optional => builder.allow_unauthenticated(),
        Wanted::Required => builder,
    };
    let built = builder.build().map_err(|_| anyhow::anyhow!("tls.client_ca_file {file}: cannot be used; {hint}"))?;
    Ok(Some(built))
}

impl Tls {
    /// Comes to TLS with a client, and hears who its certificate says that it is. What is wrong with one stands in the log; the client hears it as an
    /// alert of TLS.
    ///
    /// # Errors
    /// When the client does not speak TLS, or its certificate is not good.
    pub(crate) async fn accept<S>(&self, stream: S) -> io::Result<(TlsStream<S>, Option<Arc<Peer>>)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let stream = self.acceptor.accept(stream).await.inspect_err(|error| {
            if let Some(why) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()).and_then(why)
                && let Some(certificates) = self.refused.count(why, Instant::now())
            {
                tracing::warn!(why, certificates, "client certificates were refused");
            }
        })?;
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default().to_vec();
        let peer = match (&self.clients, chain.first()) {
            (Some(clients), Some(own)) => {
                let names = names(own);
                Some(Arc::new(Peer { names, clients: Arc::clone(clients), chain }))
            }
            _ => None,
        };
        Ok((stream, peer))
    }
}

/// What is wrong with a client's certificate, if it is that.
fn why(error: &Error) -> Option<&'static str> {
    Some(match error {
        Error::NoCertificatesPresented => "none was shown, and tls.client_certificates is \"required\"",
        Error::InvalidCertificate(fault) => match fault {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired",
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "it is not good yet",
            CertificateError::UnknownIssuer => "it is of no authority in tls.client_ca_file",
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => "it is not for clients",
            CertificateError::BadSignature => "its signature is wrong",
            _ => "it cannot be used",
        },
        _ => return None,
    })
}

/// URIs and DNS names of a certificate.
fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok(read) = webpki::EndEntityCert::try_from(certificate) else { return Vec::new() };
    let hosts = read.valid_dns_names().map(str::to_ascii_lowercase);
    // A URI has a scheme: one without could stand for a host that its authority has not looked at.
    let uris = read.valid_uri_names().filter(|uri| uri.contains(':'));
    uris.map(str::to_owned).chain(hosts).collect()
}

impl Peer {
    /// Whose certificate it is now.
    ///
    /// # Errors
    /// 28000: it is not good any more, is nobody's, or is several users'.
    pub(crate) fn who(&self, users: Option<&Users>, now_ms: i64) -> Result<Principal, Refusal> {
        let since_1970 = Duration::from_millis(u64::try_from(now_ms).unwrap_or_default());
        let good = self.chain.split_first().is_some_and(|(own, others)| {
            self.clients.verify_client_cert(own, others, UnixTime::since_unix_epoch(since_1970)).is_ok()
        });
        if !good {
            return Err(Refusal::new("28000", "the certificate has expired", "come with a new one"));
        }
        users.and_then(|users| users.of_certificate(&self.names)).ok_or_else(|| {
            let hint = "`starling users certificate NAME SUBJECT` says whose it is: SUBJECT is one URI or DNS name of its subjectAltName; or come \
                        without it, with a password or a token";
            Refusal::new("28000", "the certificate is good and nobody's, or several users'", hint)
        })
    }
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Peer")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_certificates_are_counted_and_told_once_a_second() {
        let (refused, start) = (Refused::default(), Instant::now());
        let at = |ms| refused.count("it has expired", start + Duration::from_millis(ms));
        assert_eq!((at(0), at(1), at(999)), (Some(1), None, None));
        assert_eq!(refused.count("it is not for clients", start), Some(1));
        assert_eq!((at(1_000), at(1_500), at(5_000)), (Some(3), None, Some(2)));
    }
}
