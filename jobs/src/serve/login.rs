//! Logging in and out, and who one is. How a login is looked at is in `doors::logins`.

use std::sync::Arc;
use std::time::Instant;

use axum::Extension;
use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use starling_query::{Principal, Room};
use zeroize::Zeroizing;

use super::Door;
use super::told::{Answer, Refused, json_of, no_body};
use super::way_in::{COOKIE_NAME, Caller, Way, cookie, is_own};
use crate::doors::logins::Admitted;
use crate::doors::sessions::{Key, LIFE};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Said {
    name: String,
    #[serde(deserialize_with = "erased_afterwards")]
    password: Zeroizing<String>,
}

fn erased_afterwards<'de, D: serde::Deserializer<'de>>(text: D) -> Result<Zeroizing<String>, D::Error> {
    String::deserialize(text).map(Zeroizing::new)
}

/// `POST /v1/login` with a name and a password: a cookie, and who one is.
pub(super) async fn log_in(State(door): State<Door>, headers: HeaderMap, body: Result<Json<Said>, JsonRejection>) -> Answer {
    if !is_own(&headers) {
        let refused = Refused::new("28000", "nobody logs in from another host's page", "log in from the console");
        return Err(refused.with(StatusCode::FORBIDDEN));
    }
    let Ok(Json(said)) = body else {
        return Err(no_body("login", "{\"name\":\"NAME\",\"password\":\"…\"}"));
    };
    let Some(users) = door.users_now()? else {
        return Err(Refused::new(
            "28000",
            "there are no users here",
            "`starling users add` makes one; until then nobody logs in",
        ));
    };
    let Admitted { who, mark, secret: value } = door.logins.admit(users, said.name, said.password).await?;
    // What the browser had before is over, whoever gave it that.
    if let Some(before) = cookie(&headers) {
        door.sessions.end(Key::of(before));
    }
    let who = Arc::new(who);
    let key = Key::of(&value);
    door.sessions.open(key, Arc::clone(&who), mark, Instant::now());
    let mut answer = me_of(&door, &Caller { who, way: Way::Cookie(key) })?;
    set_cookie(&mut answer, &value, LIFE.as_secs(), door.secure);
    Ok(answer)
}

fn set_cookie(answer: &mut Response, value: &str, seconds: u64, secure: bool) {
    let secure = if secure { "; Secure" } else { "" };
    let cookie = format!("{COOKIE_NAME}={value}; Max-Age={seconds}; Path=/; HttpOnly; SameSite=Strict{secure}");
    if let Ok(mut cookie) = HeaderValue::from_str(&cookie) {
        cookie.set_sensitive(true);
        answer.headers_mut().insert(header::SET_COOKIE, cookie);
    }
}

/// `POST /v1/logout`: ends the session.
pub(super) async fn log_out(State(door): State<Door>, Extension(caller): Extension<Caller>) -> Answer {
    if let Way::Cookie(key) = caller.way {
        door.sessions.end(key);
    }
    let mut answer = StatusCode::NO_CONTENT.into_response();
    set_cookie(&mut answer, "", 0, door.secure);
    Ok(answer)
}

/// `GET /v1/me`: who one is, and what one may see.
pub(super) async fn me(State(door): State<Door>, Extension(caller): Extension<Caller>) -> Answer {
    me_of(&door, &caller)
}

fn me_of(door: &Door, caller: &Caller) -> Answer {
    let Principal { name, role, team } = &*caller.who;
    let schemas: Vec<&str> = Room::SCHEMAS.into_iter().filter(|room| role.may(*room)).filter_map(Room::schema).collect();
    let mut may: serde_json::Map<String, Value> = serde_json::Map::new();
    may.insert("schemas".to_owned(), json!(schemas));
    for (word, room) in [
        ("alerts", Room::Alerts),
        ("audit", Room::Audit),
        ("budget", Room::Budget),
        ("all_budgets", Room::AllBudgets),
        ("health", Room::Health),
        ("metrics", Room::Metrics),
        ("promises", Room::Promises),
    ] {
        may.insert(word.to_owned(), role.may(room).into());
    }
    let users = door.users_now()?.is_some();
    json_of(&json!({ "name": name, "role": role.name(), "team": team, "way": caller.way.name(), "may": may, "users": users }))
}
