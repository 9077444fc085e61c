//! A network that can be cut: between a client and the server, with a switch.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Everything passes.
pub(crate) const PASS: u8 = 0;
/// Nothing passes, and nobody is told: what is open stays open, and new connections are taken and left waiting.
pub(crate) const SILENT: u8 = 1;
/// The answer to a COMMIT is lost, and its connection with it.
pub(crate) const LOSE_COMMIT_ANSWERS: u8 = 2;

/// A COMMIT does not arrive, and its connection says nothing any more.
pub(crate) const HOLD_COMMITS: u8 = 3;

pub(crate) struct Proxy {
    pub(crate) port: u16,
    mode: Arc<AtomicU8>,
}

impl Proxy {
    pub(crate) async fn before(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let port = listener.local_addr().expect("address").port();
        let mode = Arc::new(AtomicU8::new(PASS));
        let shared = Arc::clone(&mode);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if shared.load(Ordering::SeqCst) == SILENT {
                    tokio::spawn(async move {
                        let _open = client;
                        std::future::pending::<()>().await;
                    });
                    continue;
                }
                tokio::spawn(pass(client, server, Arc::clone(&shared)));
            }
        });
        Self { port, mode }
    }

    pub(crate) fn set(&self, mode: u8) {
        self.mode.store(mode, Ordering::SeqCst);
    }
}

async fn pass(mut client: TcpStream, server: u16, mode: Arc<AtomicU8>) {
    let mut server = TcpStream::connect(("127.0.0.1", server)).await.expect("the server is there");
    let (mut up, mut down) = (vec![0; 65_536], vec![0; 65_536]);
    let mut committing = false;
    loop {
        let (from_client, read) = tokio::select! {
            read = client.read(&mut up) => (true, read.unwrap_or(0)),
            read = server.read(&mut down) => (false, read.unwrap_or(0)),
        };
        let mode = mode.load(Ordering::SeqCst);
        if mode == SILENT {
            std::future::pending::<()>().await;
        }
        if read == 0 || (!from_client && committing && mode == LOSE_COMMIT_ANSWERS) {
            return;
        }
        let sent = if from_client {
            committing = up[..read].windows(6).any(|bytes| bytes == b"COMMIT");
            if committing && mode == HOLD_COMMITS {
                std::future::pending::<()>().await;
            }
            server.write_all(&up[..read]).await
        } else {
            client.write_all(&down[..read]).await
        };
        if sent.is_err() {
            return;
        }
    }
}
