//! Servers that speak S3 badly. None can be had that does each of these at the right moment, so this one does what it is told to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use starling_store::{Files, ObjectFault, S3Address, S3Credentials, S3Settings, StoreError};
use tokio::io::AsyncReadExt as _;

/// What it does wrong.
#[derive(Default)]
struct Manners {
    /// Does not look at `If-None-Match`.
    ignores_conditions: bool,
    /// Answers a conditional write so, this often, before it does anything.
    refuses_conditions: Option<(u16, &'static str, usize)>,
    /// Does the next creation of an object with this end of name, and answers with a fault all the same.
    forgets_to_answer: Option<&'static str>,
    /// Answers everything so.
    answers_all: Option<(u16, String)>,
}

struct Server {
    manners: Mutex<Manners>,
    objects: Mutex<BTreeMap<String, Bytes>>,
}

impl Server {
    async fn start(manners: Manners) -> (Arc<Self>, Files) {
        Self::start_after(0, manners).await
    }

    /// The first so many connections are cut off as soon as a request has come.
    async fn start_after(cut_off: usize, manners: Manners) -> (Arc<Self>, Files) {
        let server = Arc::new(Self { manners: Mutex::new(manners), objects: Mutex::default() });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let router = Router::new().fallback(answer).with_state(Arc::clone(&server));
        tokio::spawn(async move {
            for _ in 0..cut_off {
                let (mut connection, _) = listener.accept().await.expect("a connection");
                let _ = connection.read(&mut [0; 100]).await;
                // With bytes unread, this is a reset.
                drop(connection);
            }
            axum::serve(listener, router).await
        });
        let settings = S3Settings {
            address: S3Address::parse("s3://flock").expect("an address"),
            endpoint: format!("http://{address}"),
            region: String::new(),
            allow_http: false,
            credentials: S3Credentials::Keys { access_key: "AKTEST".to_owned(), secret_key: "secret".to_owned().into() },
        };
        (server, Files::open_s3(&settings).expect("opens"))
    }

    fn objects(&self) -> BTreeMap<String, Bytes> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn refusal(status: u16, code: &str) -> Response {
    let body = format!("<Error><Code>{code}</Code><Message>CANARY message</Message></Error>");
    (StatusCode::from_u16(status).expect("a status"), body).into_response()
}

async fn answer(State(server): State<Arc<Server>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.expect("a body");
    let mut manners = server.manners.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((status, body)) = &manners.answers_all {
        return (StatusCode::from_u16(*status).expect("a status"), body.clone()).into_response();
    }
    let mut objects = server.objects.lock().unwrap_or_else(PoisonError::into_inner);
    let key = parts.uri.path().trim_start_matches("/flock").trim_start_matches('/').to_owned();
    match parts.method {
        Method::PUT => put(&mut manners, &mut objects, key, body, &parts.headers),
        Method::POST => {
            let text = String::from_utf8_lossy(&body).into_owned();
            objects.retain(|key, _| !text.contains(&format!("<Key>{key}</Key>")));
            "<DeleteResult><Deleted><Key>all</Key></Deleted></DeleteResult>".into_response()
        }
        Method::GET if key.is_empty() => {
            let found = objects.keys().map(|key| {
                format!("<Contents><Key>{key}</Key><Size>1</Size><LastModified>2026-01-05T00:00:00Z</LastModified></Contents>")
            });
            format!("<ListBucketResult>{}</ListBucketResult>", found.collect::<String>()).into_response()
        }
        Method::GET => match objects.get(&key) {
            Some(found) => {
                ([("last-modified", "Mon, 05 Jan 2026 00:00:00 GMT"), ("etag", "\"e\"")], found.clone()).into_response()
            }
            None => refusal(404, "NoSuchKey"),
        },
        _ => refusal(405, "MethodNotAllowed"),
    }
}

fn put(manners: &mut Manners, objects: &mut BTreeMap<String, Bytes>, key: String, body: Bytes, headers: &HeaderMap) -> Response {
    if headers.contains_key("if-none-match") {
        if let Some((status, code, times)) = &mut manners.refuses_conditions
            && *times > 0
        {
            *times -= 1;
            return refusal(*status, code);
        }
        if !manners.ignores_conditions && objects.contains_key(&key) {
            return refusal(412, "PreconditionFailed");
        }
    }
    let forgets = manners.forgets_to_answer.take_if(|name| key.ends_with(*name)).is_some();
    objects.insert(key, body);
    if forgets { refusal(500, "InternalError") } else { [("etag", "\"e\"")].into_response() }
}

fn fault(result: Result<impl Sized, StoreError>) -> ObjectFault {
    match result.err() {
        Some(StoreError::Object { fault, .. }) => fault,
        other => panic!("no fault: {other:?}"),
    }
}

pub(crate) async fn i3_a_server_that_replaces_what_was_to_be_created_once_is_refused_before_anything_is_lost() {
    let (server, files) = Server::start(Manners { ignores_conditions: true, ..Manners::default() }).await;
    files.put("stats/one", Bytes::from_static(b"drawn")).await.expect("puts");
    for _ in 0..2 {
        assert_eq!(fault(files.put_new("stats/one", Bytes::from_static(b"drawn again")).await), ObjectFault::NotOnce);
        assert_eq!(fault(files.check().await), ObjectFault::NotOnce);
    }
    let objects = server.objects();
    assert_eq!(objects.into_iter().collect::<Vec<_>>(), [("stats/one".to_owned(), Bytes::from_static(b"drawn"))]);
}

pub(crate) async fn i3_a_server_that_says_it_knows_no_conditions_is_refused() {
    let manners = Manners { refuses_conditions: Some((501, "NotImplemented", usize::MAX)), ..Manners::default() };
    let (server, files) = Server::start(manners).await;
    let told = files.put_new("stats/one", Bytes::from_static(b"drawn")).await;
    assert!(told.as_ref().is_err_and(|e| e.to_string().contains("If-None-Match")), "{told:?}");
    assert!(server.objects().is_empty());
}

pub(crate) async fn a_conflict_is_tried_again_and_is_not_taken_for_a_file_that_is_there() {
    let (server, files) = Server::start(Manners::default()).await;
    files.check().await.expect("a good server");
    server.manners.lock().expect("no panic").refuses_conditions = Some((409, "ConditionalRequestConflict", 2));
    assert!(files.put_new("stats/one", Bytes::from_static(b"drawn")).await.expect("puts"));
    assert_eq!(server.objects()["stats/one"], Bytes::from_static(b"drawn"));
}

pub(crate) async fn i3_a_creation_whose_answer_got_lost_says_that_the_file_is_there() {
    let (server, files) = Server::start(Manners { forgets_to_answer: Some("stats/one"), ..Manners::default() }).await;
    assert!(!files.put_new("stats/one", Bytes::from_static(b"drawn")).await.expect("an answer"), "so the caller reads it");
    assert_eq!(files.get("stats/one").await.expect("gets").as_deref(), Some(b"drawn".as_slice()));
    assert_eq!(server.objects().len(), 1);
}

pub(crate) async fn a_connection_that_is_cut_off_is_tried_again_also_for_removals() {
    for operation in 0..4 {
        let (_server, files) = Server::start_after(2, Manners::default()).await;
        match operation {
            0 => files.put("a", Bytes::from_static(b"1")).await.expect("puts"),
            1 => files.delete("a").await.expect("deletes"),
            2 => drop(files.list("").await.expect("lists")),
            _ => drop(files.get("a").await.expect("gets")),
        }
        assert_eq!(files.requests(), 3, "operation {operation}");
    }
}

pub(crate) async fn a_busy_server_is_waited_for_and_then_told() {
    let busy = || Some((503, "<Error><Code>SlowDown</Code></Error>".to_owned()));
    let (server, files) = Server::start(Manners { answers_all: busy(), ..Manners::default() }).await;
    let free = {
        let server = Arc::clone(&server);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(500)).await;
            server.manners.lock().expect("no panic").answers_all = None;
        })
    };
    files.put("a", Bytes::from_static(b"1")).await.expect("waits, and puts");
    free.await.expect("joins");
    server.manners.lock().expect("no panic").answers_all = busy();
    let told = tokio::time::timeout(Duration::from_secs(120), files.put("b", Bytes::new())).await.expect("an end");
    assert_eq!(fault(told), ObjectFault::Throttled);
}

pub(crate) async fn i4_what_a_strange_server_answers_is_in_no_error() {
    for (status, body, wanted) in [
        (404, "<html>CANARY</html>", ObjectFault::Foreign),
        (403, "<Error><Code>AccessDenied</Code><Message>CANARY</Message></Error>", ObjectFault::Refused),
        (301, "<Error><Code>PermanentRedirect</Code><Endpoint>CANARY</Endpoint></Error>", ObjectFault::Elsewhere),
        (418, "CANARY", ObjectFault::Other(418)),
    ] {
        let answers_all = Some((status, body.to_owned()));
        let (_server, files) = Server::start(Manners { answers_all, ..Manners::default() }).await;
        for told in [files.get("a").await.map(drop), files.put("a", Bytes::new()).await, files.list("").await.map(drop)] {
            let text = format!("{told:?} {}", told.as_ref().expect_err("fails"));
            assert!(!text.contains("CANARY") && !text.contains("127.0.0.1"), "{text}");
            assert_eq!(fault(told), wanted);
        }
    }
    let (_server, files) = Server::start(Manners { answers_all: Some((200, "<CANARY>".to_owned())), ..Manners::default() }).await;
    let told = files.list("").await.map(drop);
    assert!(!format!("{told:?}").contains("CANARY"));
    assert_eq!(fault(told), ObjectFault::Foreign);
}
