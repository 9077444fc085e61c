//! HTTP/2 over one connection, and how long it may go on: until nobody is recognised on it, nothing is asked, or an answer is not
//! taken.
//!
//! When a client gives up a call or goes, hyper drops the call's future; that is how a statement ends. A client that lets an
//! answer stand keeps HTTP/2's window closed and the answer in memory, and hyper asks for no more of it; so it is the connection
//! that is ended here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow_flight::flight_service_server::FlightServiceServer;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Status;
use tonic::codegen::Service as _;

use super::service::Service;
use super::{Door, way_in};
use crate::doors::connections::{ANSWER_TIME, HEAD_TIME, PIECE_TIME, Speak};
use crate::doors::tls::Peer;
use crate::doors::{STOPPING, stopped};

/// Bytes of a message to this door.
pub(super) const MESSAGE_BYTES: usize = 256 * 1024;
/// Bytes of a call's head.
const HEAD_BYTES: u32 = 16 * 1024;
/// Calls open on a connection.
const CALLS: u32 = 16;
/// Bytes of an answer that may wait to be sent, beside those that its client has asked for.
const SEND_BYTES: usize = 256 * 1024;
/// How long a connection may be silent on which somebody was recognised.
const IDLE: Duration = Duration::from_secs(3600);
/// A client is asked whether it is there so often, and may take so long to say so.
const PING: Duration = Duration::from_secs(30);
const PONG: Duration = Duration::from_secs(60);
/// How long a connection may take, once its statements have ended with the server, to say so; with [`STOPPING`] below
/// `stop::GRACE`.
const LAST_WORDS: Duration = Duration::from_secs(3);
/// How often it is looked whether a connection may go on.
const LOOK: Duration = Duration::from_secs(1);

/// The service, spoken to over HTTP/2.
#[derive(Clone)]
pub(super) struct Http2(pub(super) Door);

impl Speak for Http2 {
    async fn speak<S>(self, stream: S, peer: Option<Arc<Peer>>, mut stop: watch::Receiver<bool>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let life = Arc::new(Life::new(Instant::now()));
        let service = FlightServiceServer::new(Service { door: self.0.clone(), life: Arc::clone(&life) });
        let service = service.max_decoding_message_size(MESSAGE_BYTES);
        let guarded = {
            let (door, life) = (self.0, Arc::clone(&life));
            service_fn(move |mut request: Request<Incoming>| {
                let (door, life, mut service) = (door.clone(), Arc::clone(&life), service.clone());
                if let Some(peer) = &peer {
                    request.extensions_mut().insert(Arc::clone(peer));
                }
                async move {
                    match way_in::admit(&door, &life, &request).await {
                        Ok(()) => service.call(request).await,
                        Err(refusal) => Ok(Status::from(refusal).into_http()),
                    }
                }
            })
        };
        let mut http = http2::Builder::new(TokioExecutor::new());
        http.timer(TokioTimer::new())
            .max_concurrent_streams(CALLS)
            .max_header_list_size(HEAD_BYTES)
            .max_send_buf_size(SEND_BYTES)
            .keep_alive_interval(PING)
            .keep_alive_timeout(PONG);
        let connection = http.serve_connection(TokioIo::new(stream), guarded);
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = life.over() => {
                return tracing::debug!("a connection was let go: nobody was recognised, nothing asked, or an answer not taken");
            }
            () = stopped(&mut stop) => {
                connection.as_mut().graceful_shutdown();
                // Statements end by themselves a little earlier.
                match tokio::time::timeout(STOPPING + LAST_WORDS, connection).await {
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

/// What a connection lives by.
pub(super) struct Life {
    made: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The last call of somebody who was recognised.
    called: Option<Instant>,
    /// Answers on their way: when each began, and when its last piece was taken.
    answers: BTreeMap<u64, (Instant, Instant)>,
    next: u64,
}

/// An answer on its way.
pub(super) struct OnItsWay {
    number: u64,
    life: Arc<Life>,
}

impl Life {
    fn new(made: Instant) -> Self {
        Self { made, state: Mutex::default() }
    }

    /// Somebody was recognised.
    pub(super) fn called(&self, now: Instant) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).called = Some(now);
    }

    /// An answer begins.
    pub(super) fn answer(self: &Arc<Self>, now: Instant) -> OnItsWay {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let number = state.next;
        state.next += 1;
        state.answers.insert(number, (now, now));
        OnItsWay { number, life: Arc::clone(self) }
    }

    fn ends_at(&self) -> Instant {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let silent = state.called.map_or(self.made + HEAD_TIME, |called| called + IDLE);
        let late = state.answers.values().map(|(began, taken)| (*began + ANSWER_TIME).min(*taken + PIECE_TIME));
        late.fold(silent, Instant::min)
    }

    /// Waits until it is over.
    async fn over(&self) {
        loop {
            let now = Instant::now();
            let ends_at = self.ends_at();
            if now >= ends_at {
                return;
            }
            tokio::time::sleep_until(ends_at.min(now + LOOK)).await;
        }
    }
}

impl OnItsWay {
    /// A piece of it was taken.
    pub(super) fn taken(&self, now: Instant) {
        let mut state = self.life.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, taken)) = state.answers.get_mut(&self.number) {
            *taken = now;
        }
    }
}

impl Drop for OnItsWay {
    fn drop(&mut self) {
        self.life.state.lock().unwrap_or_else(PoisonError::into_inner).answers.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_lives_by_who_is_recognised_on_it_and_by_what_is_taken() {
        let made = Instant::now();
        let life = Arc::new(Life::new(made));
        assert_eq!(life.ends_at(), made + HEAD_TIME, "nobody came");
        let called = made + HEAD_TIME / 2;
        life.called(called);
        assert_eq!(life.ends_at(), called + IDLE, "somebody came and asks nothing more");
        let (taken, left) = (life.answer(called), life.answer(called));
        let mut now = called;
        for _ in 0..3 {
            now += PIECE_TIME / 2;
            taken.taken(now);
        }
        assert_eq!(life.ends_at(), called + PIECE_TIME, "one of them is let stand");
        drop(left);
        assert_eq!(life.ends_at(), now + PIECE_TIME, "the other is not");
        while now < called + ANSWER_TIME {
            now += PIECE_TIME / 2;
            taken.taken(now);
        }
        assert_eq!(life.ends_at(), called + ANSWER_TIME, "all of it has its time, too");
        drop(taken);
        assert_eq!(life.ends_at(), called + IDLE);
    }

    #[tokio::test]
    async fn it_is_over_when_its_time_is_up() {
        let long_ago = Instant::now().checked_sub(HEAD_TIME).expect("a machine that is up for longer");
        Life::new(long_ago).over().await;
    }
}
