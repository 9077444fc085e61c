//! Connections: how many, under TLS or not, and how long a client may take for a piece of its answer. What is spoken over one is
//! its door's.
//!
//! The loops of axum and tonic have no limits but those of the machine, so they are not used: hyper speaks, they find the
//! handler.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Sleep;

use super::tls::{Peer, Tls};
use super::{ACCEPT_PAUSE, stopped};

/// How long a client may take for TLS's first words, and for the first of its own.
pub(crate) const HEAD_TIME: Duration = Duration::from_secs(10);
/// How long a client may take for a piece of an answer.
pub(crate) const PIECE_TIME: Duration = Duration::from_secs(60);
/// How long a client may take for an answer.
pub(crate) const ANSWER_TIME: Duration = Duration::from_secs(600);

/// What speaks a door's protocol over one connection.
pub(crate) trait Speak: Clone + Send + Sync + 'static {
    /// Speaks until the client goes, it is let go, or `stop` says so. `peer`: who its certificate says that it is.
    fn speak<S>(self, stream: S, peer: Option<Arc<Peer>>, stop: watch::Receiver<bool>) -> impl Future<Output = ()> + Send
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static;
}

/// Serves connections until `stop`, `most` at a time. Whoever comes beyond that waits.
///
/// # Errors
/// None that is not the machine's end.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<Tls>,
    speaker: impl Speak,
    most: usize,
    stop: &mut watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let places = Arc::new(Semaphore::new(most));
    let mut clients = JoinSet::new();
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await.map_err(io::Error::other)?;
            Ok((listener.accept().await?.0, place))
        };
        let accepted: io::Result<_> = tokio::select! {
            () = stopped(stop) => break,
            accepted = accepted => accepted,
        };
        while clients.try_join_next().is_some() {}
        match accepted {
            Ok((stream, place)) => {
                let (tls, speaker, stop) = (tls.clone(), speaker.clone(), stop.clone());
                clients.spawn(async move {
                    connection(stream, tls, speaker, stop).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    // Each hears of it itself; a job that takes too long is ended by whoever started it.
    while clients.join_next().await.is_some() {}
    Ok(())
}

async fn connection(stream: TcpStream, tls: Option<Tls>, speaker: impl Speak, mut stop: watch::Receiver<bool>) {
    let _ = stream.set_nodelay(true);
    let stream = Patient::new(stream, PIECE_TIME);
    let Some(tls) = tls else { return speaker.speak(stream, None, stop).await };
    let opened = tokio::select! {
        () = stopped(&mut stop) => return,
        opened = tokio::time::timeout(HEAD_TIME, tls.accept(stream)) => opened,
    };
    match opened {
        Ok(Ok((stream, peer))) => speaker.speak(stream, peer, stop).await,
        // Its text may name what the client asked for.
        Ok(Err(_)) => tracing::debug!("a connection did not come to TLS"),
        Err(_) => tracing::debug!("a connection did not come to TLS in time"),
    }
}

/// A stream whose reader may take so long for what it is sent next.
struct Patient<S> {
    stream: S,
    patience: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<S: Unpin> Patient<S> {
    const fn new(stream: S, patience: Duration) -> Self {
        Self { stream, patience, waiting: None }
    }

    fn wait<T>(
        &mut self,
        context: &mut Context<'_>,
        step: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let polled = step(Pin::new(&mut self.stream), context);
        if polled.is_ready() {
            self.waiting = None;
            return polled;
        }
        let patience = self.patience;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        waiting.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.wait(context, |stream, context| stream.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.wait(context, |stream, context| stream.poll_write_vectored(context, parts))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wait(context, |stream, context| stream.poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wait(context, |stream, context| stream.poll_shutdown(context))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_let_go_and_one_that_takes_its_pieces_is_not() {
        let (mut client, server) = tokio::io::duplex(10);
        let mut server = Patient::new(server, Duration::from_secs(120));
        let writing = tokio::spawn(async move { server.write_all(&[7; 30]).await.map_err(|error| error.kind()) });
        for _ in 0..3 {
            client.read_exact(&mut [0; 10]).await.expect("a piece");
        }
        assert_eq!(writing.await.expect("no panic"), Ok(()));
        let (_client, server) = tokio::io::duplex(10);
        let mut server = Patient::new(server, Duration::from_millis(20));
        assert_eq!(server.write_all(&[7; 30]).await.map_err(|error| error.kind()), Err(io::ErrorKind::TimedOut));
    }
}
