//! A connection as messages: pgwire's encoding and decoding, and limits that it has not.
//!
//! A message is cut out of the stream by its length before it is decoded, so that no decoder reads past it, and a length beyond the limit ends
//! the connection before its bytes are waited for. What is sent is gathered into pieces, and a client that does not take one in time is let go.

use std::time::Duration;

use bytes::BytesMut;
use pgwire::messages::response::{ErrorResponse, NoticeResponse};
use pgwire::messages::{
    DecodeContext, PgWireBackendMessage as Answer, PgWireFrontendMessage as Message, ProtocolVersion, SslNegotiationMetaMessage,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::doors::Refusal;

/// Largest message of the opening, before anybody is known.
pub(super) const OPENING_BYTES: usize = 8 * 1024;
/// Largest message of a session. Statements are far smaller: see `Limits::statement_bytes`.
pub(super) const MESSAGE_BYTES: usize = 256 * 1024;
/// What is gathered before it is sent.
const PIECE_BYTES: usize = 64 * 1024;
/// How long a client may take for one piece.
const PIECE_TIME: Duration = Duration::from_secs(60);

/// Why a connection is over, without anything to tell the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Lost {
    #[error("the client has gone")]
    Gone,
    #[error("the client does not take what it asked for")]
    TooSlow,
    #[error("a message is longer than it may be")]
    TooLong,
    #[error("a message cannot be read")]
    Malformed,
}

/// A refusal or a notice in the fields of its message.
fn fields(refusal: &Refusal, severity: &str) -> Vec<(u8, String)> {
    let mut fields = vec![
        (b'S', severity.to_owned()),
        (b'V', severity.to_owned()),
        (b'C', refusal.code.to_owned()),
        (b'M', refusal.reason.clone()),
    ];
    for (letter, text) in [(b'D', &refusal.detail), (b'H', &refusal.hint)] {
        if !text.is_empty() {
            fields.push((letter, text.clone()));
        }
    }
    fields
}

/// TCP, or TLS over it.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

pub(super) struct Wire {
    stream: Box<dyn Stream>,
    inbox: BytesMut,
    outbox: BytesMut,
    opening: bool,
}

impl Wire {
    /// A connection that has said nothing yet.
    pub(super) fn new(stream: impl Stream + 'static) -> Self {
        Self { stream: Box::new(stream), inbox: BytesMut::new(), outbox: BytesMut::new(), opening: true }
    }

    /// The start-up message was read: from here on messages bear a letter.
    pub(super) fn started(&mut self) {
        self.opening = false;
    }

    /// The stream below, if nothing was read ahead: what came before TLS began must not count as said under it.
    pub(super) fn into_stream(self) -> Result<Box<dyn Stream>, Lost> {
        if self.inbox.is_empty() { Ok(self.stream) } else { Err(Lost::Malformed) }
    }

    /// The next message, of at most `limit` bytes.
    pub(super) async fn next(&mut self, limit: usize) -> Result<Message, Lost> {
        loop {
            if let Some(message) = self.take(limit)? {
                return Ok(message);
            }
            self.fill().await?;
        }
    }

    fn take(&mut self, limit: usize) -> Result<Option<Message>, Lost> {
        let letter = usize::from(!self.opening);
        let Some(length) = self.inbox.get(letter..letter + 4).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes) else {
            return Ok(None);
        };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        // The opening's messages hold a code; all others may be empty.
        if length < if self.opening { 8 } else { 4 } {
            return Err(Lost::Malformed);
        }
        if length > limit {
            return Err(Lost::TooLong);
        }
        if self.inbox.len() < letter + length {
            return Ok(None);
        }
        let (bytes, opening) = (self.inbox.split_to(letter + length), self.opening);
        // Decoders of single messages count on fields that a malformed one has not, and panic.
        std::panic::catch_unwind(|| decode(bytes, opening)).ok().flatten().map(Some).ok_or(Lost::Malformed)
    }

    async fn fill(&mut self) -> Result<(), Lost> {
        match self.stream.read_buf(&mut self.inbox).await {
            Ok(0) | Err(_) => Err(Lost::Gone),
            Ok(_) => Ok(()),
        }
    }

    /// Waits for the client to go. What it sends in the meantime is kept, up to a message's length, and read later.
    pub(super) async fn gone(&mut self) -> Lost {
        while self.inbox.len() <= MESSAGE_BYTES {
            if let Err(lost) = self.fill().await {
                return lost;
            }
        }
        std::future::pending().await
    }

    /// Puts a message behind those that wait to be sent.
    pub(super) async fn send(&mut self, message: Answer) -> Result<(), Lost> {
        message.encode(&mut self.outbox).map_err(|_| Lost::Malformed)?;
        if self.outbox.len() >= PIECE_BYTES { self.flush().await } else { Ok(()) }
    }

    /// Sends all that waits.
    pub(super) async fn flush(&mut self) -> Result<(), Lost> {
        let sending = async {
            self.stream.write_all(&self.outbox).await?;
            self.stream.flush().await
        };
        match tokio::time::timeout(PIECE_TIME, sending).await {
            Ok(Ok(())) => {
                self.outbox.clear();
                Ok(())
            }
            Ok(Err(_)) => Err(Lost::Gone),
            Err(_) => Err(Lost::TooSlow),
        }
    }

    pub(super) async fn error(&mut self, refusal: &Refusal) -> Result<(), Lost> {
        self.send(Answer::ErrorResponse(ErrorResponse::new(fields(refusal, "ERROR")))).await
    }

    /// The last thing that is said.
    pub(super) async fn fatal(&mut self, refusal: &Refusal) {
        let fatal = Answer::ErrorResponse(ErrorResponse::new(fields(refusal, "FATAL")));
        if self.send(fatal).await.is_ok() && self.flush().await.is_ok() {
            let _ = self.stream.shutdown().await;
        }
    }

    pub(super) async fn notice(&mut self, text: &str) -> Result<(), Lost> {
        let notice = Refusal::new("00000", text, "");
        self.send(Answer::NoticeResponse(NoticeResponse::new(fields(&notice, "NOTICE")))).await
    }
}

/// One whole message; `None` if it is not what its letter says.
fn decode(mut bytes: BytesMut, opening: bool) -> Option<Message> {
    let mut context = DecodeContext::new(ProtocolVersion::PROTOCOL3_2);
    context.awaiting_frontend_ssl = opening;
    context.awaiting_frontend_startup = opening;
    let mut message = Message::decode(&mut bytes, &context).ok()??;
    if matches!(message, Message::SslNegotiation(SslNegotiationMetaMessage::None)) {
        context.awaiting_frontend_ssl = false;
        message = Message::decode(&mut bytes, &context).ok()??;
    }
    bytes.is_empty().then_some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8], opening: bool, limit: usize) -> Result<Message, Lost> {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        client.write_all(bytes).await.expect("room");
        let mut wire = Wire::new(server);
        wire.opening = opening;
        // The client stays: what is not refused by its length alone would be waited for.
        match tokio::time::timeout(Duration::from_millis(200), wire.next(limit)).await {
            Ok(read) => read,
            Err(_) => Err(Lost::TooSlow),
        }
    }

    #[tokio::test]
    async fn a_length_beyond_the_limit_is_refused_before_its_bytes_come() {
        for length in [OPENING_BYTES as u32 + 1, u32::MAX, 0x4000_0000] {
            let read = read(&length.to_be_bytes(), true, OPENING_BYTES).await;
            assert_eq!(read.err(), Some(Lost::TooLong), "{length}");
        }
        let query = [b"Q".as_slice(), &(MESSAGE_BYTES as u32 + 1).to_be_bytes()].concat();
        assert_eq!(read(&query, false, MESSAGE_BYTES).await.err(), Some(Lost::TooLong));
        let query = [b"Q".as_slice(), &13_u32.to_be_bytes(), b"SELECT 1\0"].concat();
        assert!(matches!(read(&query, false, MESSAGE_BYTES).await, Ok(Message::Query(q)) if q.query == "SELECT 1"));
    }

    #[tokio::test]
    async fn what_is_no_message_is_refused() {
        for (bytes, opening) in [
            (&b"Q\0\0\0\x03"[..], false),
            (b"\0\0\0\x04", true),
            (b"?\0\0\0\x04", false),
            // Lacks what its letter promises.
            (b"E\0\0\0\x05\0", false),
            (b"B\0\0\0\x06\0\0", false),
            (b"GET / HTTP/1.1\r\n\r\n", true),
        ] {
            let lost = read(bytes, opening, OPENING_BYTES).await.err();
            assert!(matches!(lost, Some(Lost::Malformed | Lost::TooLong)), "{lost:?}");
        }
    }

    #[tokio::test]
    async fn what_was_said_before_tls_does_not_count_under_it() {
        let (mut client, server) = tokio::io::duplex(1 << 16);
        let request = [8_u32.to_be_bytes(), 80_877_103_u32.to_be_bytes()].concat();
        client.write_all(&[request, b"smuggled".to_vec()].concat()).await.expect("room");
        let mut wire = Wire::new(server);
        let message = wire.next(OPENING_BYTES).await.expect("a request");
        assert!(matches!(message, Message::SslNegotiation(SslNegotiationMetaMessage::PostgresSsl(_))));
        assert_eq!(wire.into_stream().err(), Some(Lost::Malformed));
    }
}
