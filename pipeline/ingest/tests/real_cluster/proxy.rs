//! A network that can be cut: forwards a port to another one, and does to the connections what networks do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What the network does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weather {
    /// It passes everything.
    Fair,
    /// Connections stand and are accepted, and nothing goes through.
    Stalled,
    /// Connections end, and new ones end at once.
    Cut,
}

/// What all connections look at.
struct Sky {
    weather: watch::Sender<Weather>,
    /// Bytes that still go to the client before a connection is reset; negative: no end.
    allowance: AtomicI64,
    resets: AtomicU64,
    accepted: AtomicU64,
}

pub(crate) struct Proxy {
    pub(crate) port: u16,
    sky: Arc<Sky>,
}

impl Proxy {
    /// Forwards `listener` to `to` on a thread of its own, until the process ends.
    pub(crate) fn start(listener: std::net::TcpListener, to: SocketAddr) -> Self {
        let port = listener.local_addr().expect("port").port();
        listener.set_nonblocking(true).expect("nonblocking");
        let (weather, _) = watch::channel(Weather::Fair);
        let sky = Arc::new(Sky { weather, allowance: (-1).into(), resets: 0.into(), accepted: 0.into() });
        let above = Arc::clone(&sky);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).expect("listener");
                loop {
                    let Ok((client, _)) = listener.accept().await else {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                        continue;
                    };
                    above.accepted.fetch_add(1, Ordering::SeqCst);
                    tokio::spawn(forward(client, to, Arc::clone(&above)));
                }
            });
        });
        Self { port, sky }
    }

    pub(crate) fn set(&self, weather: Weather) {
        self.sky.weather.send_replace(weather);
    }

    /// Lets so many bytes more go to the client; the connection that brings the next one is reset there, in the middle of what it says.
    pub(crate) fn reset_after(&self, bytes: i64) {
        self.sky.allowance.store(bytes, Ordering::SeqCst);
    }

    /// How many connections were reset.
    pub(crate) fn resets(&self) -> u64 {
        self.sky.resets.load(Ordering::SeqCst)
    }

    /// How many connections there were.
    pub(crate) fn accepted(&self) -> u64 {
        self.sky.accepted.load(Ordering::SeqCst)
    }
}

async fn forward(client: TcpStream, to: SocketAddr, sky: Arc<Sky>) {
    let mut weather = sky.weather.subscribe();
    if *weather.borrow() == Weather::Cut {
        return;
    }
    let Ok(broker) = TcpStream::connect(to).await else { return };
    // Whatever ends a connection here resets it, as a network that has forgotten it does: linger 0 discards what is unsent.
    let (from_client, to_client) = client.into_split();
    let (from_broker, to_broker) = broker.into_split();
    let both = async {
        tokio::join!(pump(from_client, to_broker, &sky, false), pump(from_broker, to_client, &sky, true));
    };
    tokio::select! {
        () = both => {}
        _ = weather.wait_for(|weather| *weather == Weather::Cut) => {}
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, sky: &Sky, to_client: bool) {
    let mut weather = sky.weather.subscribe();
    let mut buffer = vec![0; 4096];
    while let Ok(count) = from.read(&mut buffer).await {
        // What arrives in a stall waits for its end.
        if count == 0 || weather.wait_for(|weather| *weather == Weather::Fair).await.is_err() {
            break;
        }
        let mut pass = count;
        if to_client && sky.allowance.load(Ordering::SeqCst) >= 0 {
            let left = sky.allowance.fetch_sub(count as i64, Ordering::SeqCst);
            if left < count as i64 {
                pass = usize::try_from(left.max(0)).unwrap_or(0);
            }
        }
        if to.write_all(&buffer[..pass]).await.is_err() {
            break;
        }
        if pass < count {
            sky.allowance.store(-1, Ordering::SeqCst);
            sky.resets.fetch_add(1, Ordering::SeqCst);
            let _ = to.as_ref().set_zero_linger();
            return;
        }
    }
}
