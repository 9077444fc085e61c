//! The HTTP door, first part: alerts as a list and as a stream of server-sent events, the work on them, and liveness.
//!
//! It listens on loopback unless a token file is set, answers requests for a loopback host name only when it has no token (so that a page
//! in a browser cannot reach it under another name), and writes an audit entry before it shows anything (I6).

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::stream::{self, Stream, StreamExt as _};
use serde::Deserialize;
use starling_integrity::work::{NotAllowed, Step};
use starling_store::StoreError;
use tokio::sync::watch;

use crate::alerts;
use crate::desk;
use crate::home::Home;

/// Most alerts in one answer.
const PAGE: u32 = 500;
/// How often the stream looks for new alerts.
const LOOK_EVERY: Duration = Duration::from_millis(200);

#[derive(Clone)]
struct Door {
    home: Home,
    token: Option<Arc<str>>,
    stop: watch::Receiver<bool>,
}

/// Serves until `stop` says so; `ready` hears the address.
///
/// # Errors
/// When the token file cannot be read or the address cannot be bound.
pub async fn run(home: Home, mut stop: watch::Receiver<bool>, ready: impl FnOnce(SocketAddr)) -> anyhow::Result<()> {
    let settings = &home.config.serve;
    let token = if settings.token_file.is_empty() {
        None
    } else {
        let text = std::fs::read_to_string(&settings.token_file)
            .with_context(|| format!("serve.token_file {}: cannot be read", settings.token_file))?;
        let token = text.trim();
        anyhow::ensure!(
            token.len() >= 24,
            "serve.token_file {}: a token of at least 24 characters is needed",
            settings.token_file
        );
        Some(Arc::from(token))
    };
    let listener = tokio::net::TcpListener::bind(&settings.listen)
        .await
        .with_context(|| format!("serve.listen {}: cannot be bound; is another `starling serve` running?", settings.listen))?;
    ready(listener.local_addr()?);
    let door = Door { home, token, stop: stop.clone() };
    let guarded = Router::new()
        .route("/v1/alerts", get(list))
        .route("/v1/alerts/stream", get(stream_alerts))
        .route("/v1/alerts/{alert}", get(show))
        .route("/v1/alerts/{alert}/steps", post(step))
        .layer(from_fn_with_state(door.clone(), guard));
    let app =
        Router::new().route("/livez", get(|| async { "ok\n" })).route("/readyz", get(readyz)).merge(guarded).with_state(door);
    axum::serve(listener, app)
        .with_graceful_shutdown(async move {
            let _ = stop.wait_for(|stopped| *stopped).await;
        })
        .await?;
    Ok(())
}

/// One JSON error shape for every refusal.
fn refusal(status: StatusCode, code: &str, reason: &str, hint: &str) -> Response {
    let body = serde_json::json!({ "code": code, "reason": reason, "hint": hint });
    (status, [(header::CONTENT_TYPE, "application/json")], format!("{body}\n")).into_response()
}

async fn guard(State(door): State<Door>, request: Request, next: Next) -> Response {
    match &door.token {
        Some(token) => {
            let shown = request
                .headers()
                .get(header::AUTHORIZATION)
                .and_then(|v| v.to_str().ok())
                .and_then(|v| v.strip_prefix("Bearer "));
            // Hashes are compared, so that the time says nothing of how much was right.
            if shown.map(|s| blake3::hash(s.as_bytes())) != Some(blake3::hash(token.as_bytes())) {
                return refusal(
                    StatusCode::UNAUTHORIZED,
                    "28000",
                    "a bearer token is needed",
                    "send `Authorization: Bearer` with the token of serve.token_file",
                );
            }
        }
        None => {
            let host = request.headers().get(header::HOST).and_then(|v| v.to_str().ok()).unwrap_or("localhost");
            let name = host
                .rsplit_once(':')
                .map_or(host, |(name, port)| if port.bytes().all(|b| b.is_ascii_digit()) { name } else { host });
            if !matches!(name, "localhost" | "[::1]") && !name.starts_with("127.") {
                return refusal(
                    StatusCode::FORBIDDEN,
                    "28000",
                    "this door answers on loopback names only",
                    "use 127.0.0.1, or set serve.token_file",
                );
            }
        }
    }
    next.run(request).await
}

async fn readyz(State(door): State<Door>) -> Response {
    match door.home.metastore.releases().await {
        Ok(_) => "ok\n".into_response(),
        Err(_) => {
            refusal(StatusCode::SERVICE_UNAVAILABLE, "57P03", "the metastore does not answer", "see the log of `starling serve`")
        }
    }
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    after: i64,
}

async fn list(State(door): State<Door>, Query(page): Query<Page>) -> Response {
    if alerts::record_read(&door.home, "http").await.is_err() {
        return unlogged();
    }
    match lines(&door.home, page.after).await {
        Ok(found) => {
            let next = found.last().map_or(page.after, |(position, _)| *position);
            let alerts: Vec<_> = found.into_iter().map(|(_, line)| line).collect();
            let body = format!("{{\"alerts\":[{}],\"next\":{next}}}\n", alerts.join(","));
            ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], body).into_response()
        }
        Err(_) => refusal(StatusCode::SERVICE_UNAVAILABLE, "57P03", "the metastore does not answer", "try again"),
    }
}

async fn lines(home: &Home, after: i64) -> anyhow::Result<Vec<(i64, String)>> {
    desk::page(home, after, PAGE).await?.iter().map(|entry| Ok((entry.record.position, alerts::json_line(entry)?))).collect()
}

fn unlogged() -> Response {
    refusal(
        StatusCode::SERVICE_UNAVAILABLE,
        "58030",
        "the audit log cannot be written, so nothing is shown",
        "see the log of `starling serve`",
    )
}

/// An answer of the desk, or why there is none.
fn told(answer: anyhow::Result<String>) -> Response {
    let error = match answer {
        Ok(line) => {
            let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
            return (headers, format!("{line}\n")).into_response();
        }
        Err(error) => error,
    };
    if let Some(refused) = error.downcast_ref::<NotAllowed>() {
        return refusal(
            StatusCode::UNPROCESSABLE_ENTITY,
            "22023",
            &refused.to_string(),
            "see GET /v1/alerts/ALERT for where it stands",
        );
    }
    match error.downcast_ref::<StoreError>() {
        Some(StoreError::StepTaken) => {
            refusal(StatusCode::CONFLICT, "40001", &StoreError::StepTaken.to_string(), "GET the alert again")
        }
        Some(_) => refusal(StatusCode::SERVICE_UNAVAILABLE, "57P03", "the metastore does not answer", "try again"),
        None => refusal(StatusCode::NOT_FOUND, "02000", &error.to_string(), "see GET /v1/alerts"),
    }
}

/// `GET /v1/alerts/ALERT`: one alert, by its fingerprint or its first six digits or more, with every step taken on it.
async fn show(State(door): State<Door>, Path(alert): Path<String>) -> Response {
    if alerts::record_read(&door.home, "http").await.is_err() {
        return unlogged();
    }
    told(alerts::work::show_json(&door.home, &alert).await)
}

/// A step, and who takes it.
#[derive(Deserialize)]
struct Taken {
    by: String,
    #[serde(flatten)]
    step: Step,
}

/// `POST /v1/alerts/ALERT/steps` with `{"by":"NAME","step":"confirm","reason":"spam"}`: takes a step, and gives the alert as it stands then.
async fn step(State(door): State<Door>, Path(alert): Path<String>, body: Result<Json<Taken>, JsonRejection>) -> Response {
    let Ok(Json(taken)) = body else {
        return refusal(
            StatusCode::BAD_REQUEST,
            "22032",
            "the body is no step",
            "send application/json such as {\"by\":\"NAME\",\"step\":\"take\",\"assignee\":\"NAME\"}; steps are take, note, case, confirm, dismiss, act, appeal, answer and close",
        );
    };
    if alerts::record_read(&door.home, "http").await.is_err() {
        return unlogged();
    }
    let entry = desk::take(&door.home, &alert, &taken.step, &taken.by).await;
    told(entry.and_then(|entry| alerts::json_line(&entry)))
}

/// `GET /v1/alerts/stream[?after=N]`: each alert, and each change of one, as an event `alert` whose id is its position. A reader that comes
/// back with `Last-Event-ID` goes on where it was.
async fn stream_alerts(State(door): State<Door>, Query(page): Query<Page>, headers: HeaderMap) -> Response {
    if alerts::record_read(&door.home, "http").await.is_err() {
        return unlogged();
    }
    let last = headers.get("last-event-id").and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
    let events = follow(door, last.unwrap_or(page.after));
    Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(15)).text("still here")).into_response()
}

fn follow(door: Door, after: i64) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold((door, after), |(mut door, position)| async move {
        loop {
            if *door.stop.borrow() {
                return None;
            }
            match lines(&door.home, position).await {
                Ok(found) if !found.is_empty() => {
                    let next = found.last().map_or(position, |(p, _)| *p);
                    let events: Vec<_> = found
                        .into_iter()
                        .map(|(p, line)| Ok(Event::default().event("alert").id(p.to_string()).data(line)))
                        .collect();
                    return Some((stream::iter(events), (door, next)));
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(error = format!("{error:#}"), "the alert stream could not read; it tries again"),
            }
            tokio::select! {
                _ = door.stop.changed() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    })
    .flatten()
}
