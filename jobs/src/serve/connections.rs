//! HTTP/1.1 over one connection: how long a head may be, and how long it may take.
//!
//! When a client goes, hyper drops the handler's future with the connection; that is how a statement ends.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper::{Request, body::Incoming};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use crate::doors::connections::{HEAD_TIME, Speak};
use crate::doors::tls::Peer;
use crate::doors::{STOPPING, stopped};

/// Bytes and fields of a head. It may take [`HEAD_TIME`], from the end of the one before it.
const HEAD_BYTES: usize = 32 * 1024;
const HEAD_FIELDS: usize = 64;

/// The routes, spoken to over HTTP/1.1.
#[derive(Clone)]
pub(super) struct Http1(pub(super) Router);

impl Speak for Http1 {
    async fn speak<S>(self, stream: S, peer: Option<Arc<Peer>>, mut stop: watch::Receiver<bool>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_headers(HEAD_FIELDS).max_header_size(HEAD_BYTES);
        let routes = TowerToHyperService::new(self.0);
        let service = service_fn(move |mut request: Request<Incoming>| {
            if let Some(peer) = &peer {
                request.extensions_mut().insert(Arc::clone(peer));
            }
            routes.call(request)
        });
        let connection = http.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stopped(&mut stop) => {
                connection.as_mut().graceful_shutdown();
                // Statements end by themselves a little earlier.
                match tokio::time::timeout(STOPPING + Duration::from_secs(1), connection).await {
                    Ok(ended) => ended,
                    Err(_) => return,
                }
            }
        };
        if let Err(error) = ended {
            // Of which kind, and never what was sent.
            tracing::debug!(timed_out = error.is_timeout(), malformed = error.is_parse(), "a connection ended early");
        }
    }
}
