//! How things end: a statement that is cancelled or whose client goes, a server that stops, a client that sends too much, takes
//! nothing or is nobody, and no TLS.

use std::io::{ErrorKind, Read as _, Write as _};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use arrow_flight::sql::{Any, ProstMessageExt as _};
use arrow_flight::{FlightData, FlightDescriptor, FlightInfo};
use futures::{StreamExt as _, stream};
use hyper_util::rt::TokioIo;
use prost::Message as _;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};
use tonic::codegen::Service;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::client::{Flight, Rows, command, query, refusal, run, served, started, ticket, token, until};
use crate::house::{House, Served};
use crate::http_client::connect;
use crate::log::statements_of;
use crate::support::{fail, starling};

/// Three copies side by side: more than the engine does in its ten seconds.
const LONG: &str = "SELECT count(*) FROM stats.messages_daily a, stats.messages_daily b, stats.messages_daily c \
                    WHERE a.epsilon + b.epsilon + c.epsilon < 0";

/// More than windows and buffers hold.
const WIDE: &str = "SELECT a.day, b.country, lpad(a.country, 60, '-') AS wide FROM stats.people_served_daily a, \
                    stats.people_served_daily b, (VALUES (1), (2)) v(n) LIMIT 100000";

/// Asks [`LONG`], and waits until it is in the log and so on its way to the engine. Nobody else may ask as this user.
async fn in_work(served: &Served, house: &House, flight: &Flight, name: &str) -> (JoinHandle<Result<Rows, Status>>, FlightInfo) {
    let plan = flight.plan(LONG).await.expect("plans");
    let before = statements_of(served, house, name);
    let asking = tokio::spawn({
        let (flight, ticket) = (flight.clone(), ticket(&plan));
        async move { flight.get(ticket).await }
    });
    until("it is in the log", || async { statements_of(served, house, name) > before }).await;
    (asking, plan)
}

/// What came too late to tell anything is done again so often: on a busy machine [`LONG`] may end by itself before it is ended.
const ROUNDS: usize = 10;

/// All that comes back until the server closes: it may reset what it lets go, but it does let go.
fn until_closed(stream: &mut std::net::TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    if let Err(error) = stream.read_to_end(&mut said) {
        let is_open = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
        assert!(!is_open, "it is not closed: {said:?}");
    }
    said
}

/// Sends bytes, and gives what comes back until the server closes.
fn knock(address: &str, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(address);
    // It may close before it has read all of it.
    let _ = stream.write_all(bytes);
    until_closed(&mut stream)
}

/// How often the log says this.
fn says(served: &Served, line: &str) -> usize {
    served.log().matches(line).count()
}

pub(crate) fn a_statement_ends_when_it_is_cancelled_and_when_its_client_goes(house: &House) {
    const BY_TICKET: &str = "a statement over Flight SQL was cancelled by its ticket";
    const GONE: &str = "a statement over Flight SQL was cancelled: its client has gone";
    let served = served(house, "statements = 1");
    run(async {
        let token_of_lee = token(house, "lee");
        let lee = Flight::of(&served, &token_of_lee).await;
        let others = lee.with(&token(house, "ivy"));
        let is_free = || async { lee.ask("SELECT 1").await.is_ok() };
        // By its ticket: by nobody else, and not once it is over.
        let mut was_cancelled = false;
        for _ in 0..ROUNDS {
            let (asking, plan) = in_work(&served, house, &lee, "lee").await;
            let second = lee.ask("SELECT 1").await;
            assert!(others.ask("SELECT 1").await.is_ok(), "nobody else waits for her place");
            assert_eq!(refusal(others.cancel(&plan).await).0, Code::PermissionDenied);
            let cancelling = lee.cancel(&plan).await.expect("answers");
            let told = refusal(asking.await.expect("no panic"));
            until("its place is free", is_free).await;
            assert_eq!(lee.cancel(&plan).await.expect("answers"), 3, "there is nothing to cancel");
            if told.0 == Code::DeadlineExceeded {
                continue;
            }
            // It was in work all the while.
            assert_eq!(refusal(second), (Code::ResourceExhausted, "53300".to_owned()), "she has one place");
            assert_eq!((cancelling, told), (2, (Code::Cancelled, "57014".to_owned())), "hers ended it, and not the other's");
            was_cancelled = true;
            break;
        }
        assert!(was_cancelled, "it always ended by itself");
        until("the log says so", || async { says(&served, BY_TICKET) > 0 }).await;
        // By giving up the call on a connection that stays, and by going altogether.
        for goes in [false, true] {
            let before = says(&served, GONE);
            let mut was_seen = false;
            for _ in 0..ROUNDS {
                let own = if goes { Flight::of(&served, &token_of_lee).await } else { lee.clone() };
                let (asking, _) = in_work(&served, house, &own, "lee").await;
                asking.abort();
                drop(own);
                until("its place is free", is_free).await;
                was_seen = says(&served, GONE) > before;
                if was_seen {
                    break;
                }
            }
            assert!(was_seen, "the log does not say that its client has gone: {goes}");
        }
        // Of itself it ends after its time.
        let late = lee.ask(LONG).await.expect_err("too long");
        assert!(late.code() == Code::DeadlineExceeded && late.message().contains("took longer than 10000 ms"), "{late:?}");
        until("its place is free", is_free).await;
    });
}

pub(crate) fn who_asks_hears_that_the_server_stops(house: &House) {
    let mut served = served(house, "");
    run(async {
        let kim = Flight::of(&served, &token(house, "kim")).await;
        let (asking, _) = in_work(&served, house, &kim, "kim").await;
        assert!(tokio::task::block_in_place(|| served.terminated()).success(), "{}", served.log());
        let told = asking.await.expect("no panic").expect_err("it did not end by itself");
        // Its own time may be up first, on a machine that is slow to stop.
        let stopped = told.code() == Code::Unavailable && told.message().starts_with("[57P01]");
        assert!(stopped || told.code() == Code::DeadlineExceeded, "{told:?}");
    });
}

pub(crate) fn what_is_too_long_or_too_much_is_refused_and_others_are_served(house: &House) {
    let served = served(house, "");
    run(async {
        let ada = Flight::of(&served, &token(house, "ada")).await;
        let is_served = || async { assert!(ada.ask("SELECT 40 + 2").await.expect("rows").table().contains("42")) };
        let long = format!("SELECT '{}'", "x".repeat(17 * 1024));
        assert_eq!(refusal(ada.plan(&long).await), (Code::InvalidArgument, "54000".to_owned()), "a statement, at the gate");
        let huge = format!("SELECT '{}'", "x".repeat(300 * 1024));
        let told = ada.plan(&huge).await.expect_err("a message");
        assert_eq!(told.code(), Code::OutOfRange, "{told:?}");
        is_served().await;
        // A head.
        let mut request = ada.request(FlightDescriptor::new_cmd(query("SELECT 1").as_any().encode_to_vec()));
        request.metadata_mut().insert("x-long", "x".repeat(40 * 1024).parse().expect("a value"));
        assert!(ada.client.clone().get_flight_info(request).await.is_err());
        is_served().await;
        // An upload without an end, and one that never comes: neither is waited for.
        let handle = {
            let asked = arrow_flight::sql::ActionCreatePreparedStatementRequest {
                query: "SELECT $1::text".to_owned(),
                transaction_id: None,
            };
            let bodies = ada.act("CreatePreparedStatement", asked.as_any().encode_to_vec()).await.expect("prepares");
            let told: arrow_flight::sql::ActionCreatePreparedStatementResult =
                Any::decode(bodies[0].clone()).expect("packed").unpack().expect("a result").expect("of this type");
            told.prepared_statement_handle
        };
        let bind = arrow_flight::sql::CommandPreparedStatementQuery { prepared_statement_handle: handle };
        let first = FlightData::new().with_descriptor(FlightDescriptor::new_cmd(bind.as_any().encode_to_vec()));
        for more in [
            FlightData::new().with_data_body(vec![7; 100_000]),
            // What is kept of a message counts, whether it is looked at or not.
            FlightData::new().with_app_metadata(vec![7; 100_000]),
        ] {
            let endless = stream::iter([first.clone()]).chain(stream::repeat(more));
            let told = refusal(ada.client.clone().do_put(ada.request(endless)).await);
            assert_eq!(told, (Code::InvalidArgument, "54000".to_owned()));
        }
        let silent = stream::iter([first]).chain(stream::pending());
        assert_eq!(refusal(ada.client.clone().do_put(ada.request(silent)).await), (Code::DeadlineExceeded, "57014".to_owned()));
        is_served().await;
    });
    // What is not HTTP/2 at all, and half of it.
    for bytes in [
        &b"GET /v1/me HTTP/1.1\r\nHost: localhost\r\n\r\n"[..],
        &[0; 4096],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        let said = knock(&served.flight, bytes);
        assert!(!String::from_utf8_lossy(&said).contains("HTTP/1.1 200"), "{said:?}");
    }
    run(async {
        let ivy = Flight::of(&served, &token(house, "ivy")).await;
        assert!(ivy.ask("SELECT 1").await.is_ok());
    });
}

/// What HTTP/2 begins with: the client's preface and its empty settings.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";

pub(crate) fn who_takes_nothing_is_let_go_and_holds_nobody(house: &House) {
    let served = served(house, "statements = 1");
    run(async {
        // A client that opens a narrow window and lets its answer stand, but answers every ping.
        let endpoint = Endpoint::from_shared(format!("http://{}", served.flight)).expect("an address");
        let narrow = endpoint.initial_stream_window_size(65_535).initial_connection_window_size(65_535);
        let slow = Flight::over(narrow.connect().await.expect("connects")).with(&token(house, "poor"));
        let plan = slow.plan(WIDE).await.expect("plans");
        let mut standing = slow.client.clone().do_get(slow.request(ticket(&plan))).await.expect("begins").into_inner();
        assert!(standing.message().await.expect("a message").is_some(), "its columns");
        let others = Flight::of(&served, &token(house, "poor")).await;
        assert_eq!(
            refusal(others.ask("SELECT 1").await),
            (Code::ResourceExhausted, "53300".to_owned()),
            "it holds its own place"
        );
        assert!(others.with(&token(house, "ivy")).ask("SELECT 1").await.is_ok(), "and nobody else's");
        until("it is let go", || async { others.ask("SELECT 1").await.is_ok() }).await;
        let rest = async {
            while let Some(message) = standing.message().await? {
                drop(message);
            }
            Ok::<(), Status>(())
        };
        assert!(rest.await.is_err(), "half an answer does not pass for a whole one");
        // Who takes its pieces, if slowly, has all of them.
        let plan = others.plan(WIDE).await.expect("plans");
        let mut taken = others.client.clone().do_get(others.request(ticket(&plan))).await.expect("begins").into_inner();
        let mut bytes = 0;
        while let Some(message) = taken.message().await.expect("a message") {
            bytes += message.data_body.len();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(bytes > 5_000_000, "{bytes}");
    });
}

pub(crate) fn who_is_nobody_is_let_go(house: &House) {
    // Two connections, both held by nobody, who answers every ping: who comes next waits for the first of them to be let go.
    let served = served(house, "connections = 2");
    run(async {
        // Kept, so that their connections are.
        let mut nobodies = Vec::new();
        for holding in [Flight::nobody(&served).await, Flight::nobody(&served).await] {
            assert_eq!(refusal(holding.ask("SELECT 1").await).0, Code::Unauthenticated);
            nobodies.push(holding);
        }
        let counting = Counting { address: served.flight.clone(), times: Arc::default() };
        let times = Arc::clone(&counting.times);
        let channel = Endpoint::from_static("http://localhost").connect_with_connector(counting).await.expect("connects");
        let ada = Flight::over(channel).with(&token(house, "ada"));
        assert!(ada.ask("SELECT 1").await.is_ok(), "a place was free in time");
        // It is not let go itself while it asks, and asks after longer than nobody may stay.
        tokio::time::sleep(Duration::from_secs(12)).await;
        assert!(ada.ask("SELECT 1").await.is_ok());
        assert_eq!(times.load(Ordering::SeqCst), 1, "it is the same connection");
        drop(nobodies);
    });
    // Who does not even begin.
    let mut silent = connect(&served.flight);
    let said = until_closed(&mut silent);
    assert!(said.len() < 1_000, "{said:?}");
}

/// Connects in clear text, and counts how often: a channel that was let go connects again, and nobody hears of it.
#[derive(Clone)]
struct Counting {
    address: String,
    times: Arc<AtomicUsize>,
}

impl Service<Uri> for Counting {
    type Response = TokioIo<TcpStream>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { address, times } = self.clone();
        times.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move { Ok(TokioIo::new(TcpStream::connect(address).await?)) })
    }
}

/// Connects as a client does that has only this certificate to go by.
#[derive(Clone)]
pub(crate) struct Trusting {
    address: String,
    tls: TlsConnector,
}

impl Trusting {
    fn new(address: &str, certificate: &Path) -> Self {
        Self::with(address, certificate, None)
    }

    /// The same, with a certificate of its own and its key.
    pub(crate) fn with(address: &str, certificate: &Path, shown: Option<(&Path, &Path)>) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(certificate).expect("PEM")).expect("a certificate");
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let mut config = match shown {
            Some((own, key)) => {
                let own = CertificateDer::from_pem_file(own).expect("PEM");
                config.with_client_auth_cert(vec![own], PrivateKeyDer::from_pem_file(key).expect("PEM")).expect("its key")
            }
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Self { address: address.to_owned(), tls: TlsConnector::from(Arc::new(config)) }
    }

    pub(crate) async fn channel(self) -> Result<Channel, tonic::transport::Error> {
        Endpoint::from_static("http://localhost").connect_with_connector(self).await
    }
}

impl Service<Uri> for Trusting {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { address, tls } = self.clone();
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            let name = ServerName::try_from("localhost").map_err(std::io::Error::other)?;
            Ok(TokioIo::new(tls.connect(name, stream).await?))
        })
    }
}

pub(crate) fn beyond_loopback_there_is_tls_or_no_door(house: &House) {
    let (certificate, key) = house.certificate();
    let path = |path: &Path| format!("{:?}", path.display().to_string());
    let tls = |certificate: &Path, key: &Path| format!("tls_cert_file = {}\ntls_key_file = {}", path(certificate), path(key));
    let served = served(house, &tls(&certificate, &key));
    run(async {
        let channel = Trusting::new(&served.flight, &certificate).channel().await.expect("connects");
        let ada = Flight::over(channel).with(&token(house, "ada"));
        assert!(ada.ask("SELECT 40 + 2").await.expect("rows").table().contains("42"));
        // Whoever does not know the certificate is told no more than that.
        let (other, other_key) = (house.dir.path().join("stranger.crt"), house.dir.path().join("stranger.key"));
        let mut openssl = std::process::Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]);
        openssl.args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout"]).arg(&other_key);
        crate::support::succeed(openssl.arg("-out").arg(&other));
        assert!(Trusting::new(&served.flight, &other).channel().await.is_err());
    });
    // In clear text nothing is said there.
    let said = knock(&served.flight, PREFACE);
    assert!(said.is_empty() || said[0] == 0x15, "an alert of TLS's, or nothing: {said:?}");
    // What cannot be used ends the process, before anybody is let in.
    let other = house.other_key();
    let nowhere = house.dir.path().join("nowhere.pem");
    for (more, expected) in [
        (tls(&certificate, &other), "flight.tls_key_file"),
        (tls(&certificate, &nowhere), "cannot be read as a key"),
        (tls(&nowhere, &key), "cannot be read as a certificate"),
        (tls(&key, &key), "there is no certificate"),
        (format!("tls_cert_file = {}", path(&certificate)), "both or neither"),
    ] {
        let told = fail(&mut command(house, &more));
        assert!(told.contains(expected) && !told.contains("Flight SQL: grpc"), "{expected}: {told}");
    }
    let told = fail(command(house, "").env("STARLING_FLIGHT__LISTEN", "0.0.0.0:0"));
    assert!(told.contains("flight.listen beyond loopback") && told.contains("clear text"), "{told}");
    let told = fail(&mut crate::client::command_with(house, "users_file = \"/nowhere/users.toml\"", ""));
    assert!(told.contains("flight.listen is set") && told.contains("starling users add"), "{told}");
    let checked = fail(starling().args(["config", "check"]).env("STARLING_FLIGHT__LISTEN", "0.0.0.0:8431"));
    assert!(checked.contains("clear text"), "{checked}");
    // Beyond loopback with a certificate it is open, and the metrics of whoever asks are the same.
    let open = started({
        let mut open = command(house, &tls(&certificate, &key));
        open.env("STARLING_FLIGHT__LISTEN", "0.0.0.0:0");
        open
    });
    assert!(open.flight.starts_with("0.0.0.0:"), "{}", open.flight);
}
