//! `/metrics`, `/livez` and `/readyz` of a long-running job.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, watch};

use super::loops::Trouble;
use super::ready::{self, Report};
use crate::home::Home;

/// How long an answer about readiness is given again: trying writes files.
const READY_FRESH: Duration = Duration::from_secs(2);

/// What a process does, as far as its readiness depends on it.
#[derive(Debug, Clone, Copy)]
pub struct Duties {
    /// Whether it is a member of the consumer group of `events`.
    pub ingest: bool,
}

#[derive(Clone)]
struct Visited {
    home: Home,
    duties: Duties,
    stop: watch::Receiver<bool>,
    last: Arc<Mutex<Option<(Instant, StatusCode, String)>>>,
}

/// A bound door.
pub struct Door {
    listener: TcpListener,
    visited: Visited,
}

impl Door {
    /// Binds the address of the settings, or a free port of loopback where another process has it. `None`: the settings want no door.
    ///
    /// # Errors
    /// When the address cannot be bound for another reason.
    pub async fn open(home: &Home, duties: Duties, stop: watch::Receiver<bool>) -> anyhow::Result<Option<Self>> {
        let wanted = &home.config.metrics.listen;
        if wanted.is_empty() {
            return Ok(None);
        }
        let listener = match TcpListener::bind(wanted).await {
            Ok(listener) => listener,
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                // Never more open than asked for: whatever the address was, the way out is loopback.
                let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
                tracing::warn!(
                    wanted,
                    address = %listener.local_addr()?,
                    "metrics: another process has the address, so this one answers at another; give each its own metrics.listen"
                );
                listener
            }
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("metrics.listen {wanted}: cannot be bound; is it an address of this machine?"));
            }
        };
        tracing::info!(address = %listener.local_addr()?, "metrics at /metrics, health at /livez and /readyz");
        let visited = Visited { home: home.clone(), duties, stop, last: Arc::default() };
        Ok(Some(Self { listener, visited }))
    }

    /// Answers until it is dropped: a process that is stopping says so.
    ///
    /// # Errors
    /// When the socket fails.
    pub async fn serve(self) -> anyhow::Result<()> {
        let app = Router::new()
            .route("/metrics", get(metrics))
            .route("/livez", get(livez))
            .route("/readyz", get(readyz))
            .with_state(self.visited);
        Ok(axum::serve(self.listener, app).await?)
    }
}

async fn metrics(State(visited): State<Visited>) -> Response {
    let metrics = &visited.home.metrics;
    metrics.gauges.refresh(&visited.home).await;
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], metrics.text()).into_response()
}

/// 200 while every loop turns; 503 with the names of those that do not.
async fn livez(State(visited): State<Visited>) -> Response {
    let troubles = visited.home.metrics.loops.troubles();
    let status = if troubles.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let told: Vec<_> = troubles
        .iter()
        .map(|(which, trouble)| match trouble {
            Trouble::Stuck(silent) => serde_json::json!({ "loop": which.name(), "stuck_s": silent.as_secs() }),
            Trouble::Panicked => serde_json::json!({ "loop": which.name(), "panicked": true }),
        })
        .collect();
    json(status, &serde_json::json!({ "live": troubles.is_empty(), "troubles": told }).to_string())
}

async fn readyz(State(visited): State<Visited>) -> Response {
    let stopping = *visited.stop.borrow();
    let mut last = visited.last.lock().await;
    let (status, text) = match &*last {
        Some((at, status, text)) if !stopping && at.elapsed() < READY_FRESH => (*status, text.clone()),
        _ => {
            let report: Report = ready::report(&visited.home, visited.duties, stopping).await;
            let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            let text = serde_json::to_string(&report).unwrap_or_else(|_| r#"{"ready":false}"#.to_owned());
            *last = Some((Instant::now(), status, text.clone()));
            (status, text)
        }
    };
    drop(last);
    json(status, &text)
}

fn json(status: StatusCode, body: &str) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], format!("{body}\n")).into_response()
}

#[cfg(test)]
mod tests {
    use super::super::Loop;
    use super::*;
    use crate::config::Config;

    async fn home(dir: &tempfile::TempDir, listen: &str) -> Home {
        let flags = [("data_dir", dir.path().join("data").display().to_string()), ("metrics.listen", listen.to_owned())];
        Home::open(Config::load(None, &flags).expect("settings")).await.expect("opens")
    }

    /// Status and body of a path.
    async fn get(address: SocketAddr, path: &str) -> (u16, String) {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = tokio::net::TcpStream::connect(address).await.expect("connects");
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("asks");
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("answers");
        let status = text.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
        (status, text.split_once("\r\n\r\n").expect("a body").1.to_owned())
    }

    /// What `/readyz` says once it `holds`. A check that took too long says nothing of what it is about: it is tried again.
    async fn ready_once(address: SocketAddr, holds: impl Fn(u16, &str) -> bool) -> (u16, String) {
        let asking = async {
            loop {
                let (status, body) = get(address, "/readyz").await;
                if holds(status, &body) {
                    return (status, body);
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(120), asking).await.expect("it comes to hold")
    }

    /// How many scrapes failed, by what `/metrics` says.
    fn failed_scrapes(metrics: &str) -> u64 {
        let line = metrics.lines().find_map(|line| line.strip_prefix("starling_job_failures_total{work=\"scrape\"} "));
        line.map_or(0, |count| count.parse().expect("a count"))
    }

    /// An open door that answers, and what it needs to go on doing so.
    async fn open(home: &Home, duties: Duties) -> (SocketAddr, watch::Sender<bool>) {
        let (sender, stop) = watch::channel(false);
        let door = Door::open(home, duties, stop).await.expect("opens").expect("is wanted");
        let address = door.listener.local_addr().expect("an address");
        tokio::spawn(door.serve());
        (address, sender)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_dead_loop_makes_the_process_not_live_and_is_named() {
        let dir = tempfile::tempdir().expect("dir");
        let home = home(&dir, "127.0.0.1:0").await;
        let (address, _stop) = open(&home, Duties { ingest: false }).await;
        home.metrics.loops.turned(Loop::Windows);
        assert_eq!(get(address, "/livez").await, (200, "{\"live\":true,\"troubles\":[]}\n".to_owned()));
        home.metrics.loops.ended(Loop::Windows, true);
        let (status, body) = get(address, "/livez").await;
        assert_eq!((status, body.contains("\"loop\":\"windows\"")), (503, true), "{body}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn i8_what_is_missing_is_named_and_the_process_is_not_ready() {
        let dir = tempfile::tempdir().expect("dir");
        let home = home(&dir, "127.0.0.1:0").await;
        let (address, stop) = open(&home, Duties { ingest: false }).await;
        ready_once(address, |status, _| status == 200).await;
        let (ingesting, _stop) = open(&home, Duties { ingest: true }).await;
        let (status, body) = get(ingesting, "/readyz").await;
        assert_eq!(status, 503, "no broker was heard of: {body}");
        assert!(body.contains("\"brokers\",\"ok\":false") && body.contains("\"group\",\"ok\":false"), "{body}");

        std::fs::remove_dir_all(dir.path().join("data/keys")).expect("removed");
        let named = ["\"keyring\",\"ok\":false", "\"metastore\",\"ok\":true", "\"files\",\"ok\":true"];
        let (status, body) = ready_once(address, |_, body| named.iter().all(|check| body.contains(check))).await;
        assert_eq!(status, 503, "{body}");
        stop.send(true).expect("heard");
        let (status, body) = get(address, "/readyz").await;
        assert_eq!((status, body.contains("stopping")), (503, true), "{body}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_unreadable_keyring_takes_the_gauges_away_and_is_told() {
        let dir = tempfile::tempdir().expect("dir");
        let home = home(&dir, "127.0.0.1:0").await;
        let (address, _stop) = open(&home, Duties { ingest: false }).await;
        // A reading that took too long fails too, and the next one does not.
        let mut body = String::new();
        for _ in 0..20 {
            body = get(address, "/metrics").await.1;
            if body.contains("starling_metastore_up 1\n") {
                break;
            }
        }
        assert!(body.contains("starling_metastore_up 1\n") && body.contains("starling_windows{"), "{body}");
        assert!(body.ends_with("# EOF\n"), "{body}");
        let before = failed_scrapes(&body);
        std::fs::remove_dir_all(dir.path().join("data/keys")).expect("removed");
        home.metrics.gauges.forget();
        let (_, body) = get(address, "/metrics").await;
        assert!(body.contains("starling_metastore_up 0\n") && !body.contains("starling_windows{"), "{body}");
        assert_eq!(failed_scrapes(&body), before + 1, "{body}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_taken_port_stops_nobody_and_an_address_of_another_machine_does() {
        let dir = tempfile::tempdir().expect("dir");
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
        let home = home(&dir, &taken.local_addr().expect("address").to_string()).await;
        let (address, _stop) = open(&home, Duties { ingest: false }).await;
        assert!(address.ip().is_loopback() && address != taken.local_addr().expect("address"));
        assert_eq!(get(address, "/livez").await.0, 200);

        let mut config = (*home.config).clone();
        // Of the block that is for documentation only.
        config.metrics.listen = "192.0.2.1:9464".to_owned();
        let elsewhere = Home { config: Arc::new(config), ..home.clone() };
        let refused = Door::open(&elsewhere, Duties { ingest: false }, watch::channel(false).1).await;
        let error = format!("{:#}", refused.err().expect("not ours"));
        assert!(error.contains("metrics.listen 192.0.2.1:9464"), "{error}");
        let mut config = (*home.config).clone();
        config.metrics.listen = String::new();
        let off = Home { config: Arc::new(config), ..home };
        assert!(Door::open(&off, Duties { ingest: false }, watch::channel(false).1).await.expect("fine").is_none());
    }
}
