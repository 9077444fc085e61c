//! Alerts as a list and as a stream of server-sent events, and the work on them. Every read has its audit entry first (I6): of a stream that is its
//! opening, with what is there by then, and each lot of alerts that comes later. A stream whose entry cannot be written ends.
//!
//! Whoever has logged in works under its own name. Where nobody logs in, and for another system's token, the body says who it is for.

use std::convert::Infallible;
use std::time::Duration;

use axum::Extension;
use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::IntoResponse as _;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::stream::{self, Stream, StreamExt as _};
use serde::Deserialize;
use serde_json::json;
use starling_integrity::work::Step;
use starling_store::StoreError;

use super::Door;
use super::told::{Answer, Refused, json_of, json_text, no_body, no_parameters, undone, unlogged, unread};
use super::way_in::Caller;
use crate::alerts;
use crate::alerts::work::Lasting;
use crate::desk::{self, Entry, KeptEntry, Precision};
use crate::home::Home;
use crate::standing::{self, KeptToday};

/// Most alerts in one answer.
const PAGE: u32 = 500;
/// How often the stream looks for new alerts, and after how many looks whether its reader is still who it was.
const LOOK_EVERY: Duration = Duration::from_millis(200);
const LOOKS: u32 = 5;

#[derive(Deserialize)]
pub(super) struct Page {
    #[serde(default)]
    after: i64,
}

/// What of the feed, or of what is kept instead, is asked for.
#[derive(Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    after: i64,
    #[serde(default)]
    kept: bool,
    rule: Option<String>,
}

fn after(page: Result<Query<Page>, QueryRejection>) -> Result<i64, Refused> {
    let after = page.ok().map(|Query(page)| page.after).filter(|after| *after >= 0);
    after.ok_or_else(|| no_parameters("/v1/alerts?after=12"))
}

type Named = Result<Path<String>, PathRejection>;

fn named(alert: &Named) -> Result<&str, Refused> {
    alert
        .as_ref()
        .map(|Path(alert)| alert.as_str())
        .map_err(|_| Refused::new("02000", "there is no such alert", "see GET /v1/alerts"))
}

async fn record(door: &Door, caller: &Caller) -> Result<(), Refused> {
    alerts::record_read(&door.home, "http", Some(&caller.who)).await.map_err(|_| unlogged())
}

/// `GET /v1/alerts[?after=N][&rule=RULE][&kept=true]`: the feed, or what is kept and told to nobody.
pub(super) async fn list(
    State(door): State<Door>,
    Extension(caller): Extension<Caller>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Answer {
    let asked = asked.ok().map(|Query(asked)| asked).filter(|asked| asked.after >= 0);
    let asked = asked.ok_or_else(|| no_parameters("/v1/alerts?after=12&rule=slow_bulk&kept=true"))?;
    let read = if asked.kept {
        alerts::record_kept_read(&door.home, "http", Some(&caller.who)).await.map_err(|_| unlogged())?;
        kept(&door.home, &asked).await
    } else {
        record(&door, &caller).await?;
        told(&door.home, &asked).await
    };
    let (alerts, next) = read.map_err(|error| unread(&error))?;
    Ok(json_text(&format!("{{\"alerts\":[{}],\"next\":{next}}}", alerts.join(","))))
}

/// A page of the feed, and the position after it.
async fn told(home: &Home, asked: &Asked) -> anyhow::Result<(Vec<String>, i64)> {
    let page = desk::page(home, asked.after, PAGE).await?;
    let next = page.last().map_or(asked.after, |entry| entry.record.position);
    let fits = |entry: &&Entry| asked.rule.as_ref().is_none_or(|rule| *rule == entry.record.rule);
    Ok((page.iter().filter(fits).map(alerts::json_line).collect::<Result<_, _>>()?, next))
}

/// The same of what is kept.
async fn kept(home: &Home, asked: &Asked) -> anyhow::Result<(Vec<String>, i64)> {
    let page = desk::kept_page(home, asked.after, asked.rule.as_deref(), PAGE).await?;
    let next = page.last().map_or(asked.after, |entry| entry.record.alert.position);
    let line = |entry: &KeptEntry| Ok(alerts::kept_json(entry)?.to_string());
    Ok((page.iter().map(line).collect::<anyhow::Result<_>>()?, next))
}

async fn lines(home: &Home, after: i64) -> anyhow::Result<Vec<(i64, String)>> {
    desk::page(home, after, PAGE).await?.iter().map(|entry| Ok((entry.record.position, alerts::json_line(entry)?))).collect()
}

/// Counts that somebody asked for an alert, whatever for (P28); says so if there is none. By its fingerprint: however it is named, it counts once.
async fn look_up(door: &Door, caller: &Caller, alert: &str) -> Result<(), Refused> {
    let found = desk::find(&door.home, alert).await;
    let counted = match &found {
        Ok(entry) => Some((entry.record.fingerprint.as_str(), true)),
        // Whether there is one was not told.
        Err(error) if error.downcast_ref::<StoreError>().is_some() => None,
        Err(_) => Some((alert, false)),
    };
    if let Some((name, is_there)) = counted {
        door.home.heard.alert(&caller.who.name, name, is_there, door.home.clock.now_ms());
    }
    found.map(|_| ()).map_err(|error| undone(&error))
}

/// `GET /v1/alerts/ALERT`: one alert, by its fingerprint or its first six digits or more, with every step taken on it.
pub(super) async fn show(State(door): State<Door>, Extension(caller): Extension<Caller>, alert: Named) -> Answer {
    let alert = named(&alert)?;
    record(&door, &caller).await?;
    look_up(&door, &caller, alert).await?;
    let shown = alerts::work::show_json(&door.home, alert).await;
    shown.map(|line| json_text(&line)).map_err(|error| undone(&error))
}

/// `GET /v1/alerts/rules`: how often each rule was right beside what it promises, how many of its alerts are not judged yet, and what was kept today.
pub(super) async fn rules(State(door): State<Door>, Extension(caller): Extension<Caller>) -> Answer {
    record(&door, &caller).await?;
    let read = async { anyhow::Ok((desk::precision(&door.home).await?, standing::kept_today(&door.home).await?)) };
    let (found, kept) = read.await.map_err(|error| unread(&error))?;
    let rule = |one: Precision| {
        let (precision, promise) = (one.verdicts.precision(), &one.promise);
        let observed = promise.false_share();
        json!({
            "rule": one.rule, "version": one.version, "open": one.waiting, "confirmed": one.verdicts.confirmed,
            "false": one.verdicts.dismissed, "precision": precision.map(|(share, ..)| share),
            "low": precision.map(|(_, low, _)| low), "high": precision.map(|(.., high)| high),
            "stage": promise.standing.as_ref().map(|s| standing::stage(s.stage)),
            "promised_false": promise.standing.as_ref().map(|s| s.false_discovery),
            "observed_false": observed.map(|(share, ..)| share), "observed_low": observed.map(|(_, low, _)| low),
            "observed_high": observed.map(|(.., high)| high), "exceeds": promise.is_broken(),
            "demoted_since_ms": promise.demoted_ms, "says": promise.says(),
            "stated_level": one.chosen.map(|c| c.stated), "chosen_confirmed": one.chosen.map(|c| c.verdicts.confirmed),
            "chosen_false": one.chosen.map(|c| c.verdicts.dismissed), "chosen_says": one.chosen.map(|c| c.says()),
        })
    };
    let kept: Vec<_> = kept.iter().map(KeptToday::json).collect();
    json_of(&json!({ "rules": found.into_iter().map(rule).collect::<Vec<_>>(), "kept_today": kept }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Restored {
    by: Option<String>,
    text: String,
}

/// `POST /v1/alerts/rules/RULE/restore` with `{"text":"WHY"}`: lets a rule tell again that verdicts put back in shadow.
pub(super) async fn restore(
    State(door): State<Door>,
    Extension(caller): Extension<Caller>,
    rule: Named,
    body: Result<Json<Restored>, JsonRejection>,
) -> Answer {
    let Ok(Json(said)) = body else { return Err(no_body("restoring", "{\"by\":\"NAME\",\"text\":\"WHY\"}")) };
    let (rule, by) = (named(&rule)?, by(&caller, said.by)?);
    record(&door, &caller).await?;
    let versions = standing::restore(&door.home, rule, &by, &said.text).await.map_err(|error| undone(&error))?;
    json_of(&json!({ "rule": rule, "versions": versions }))
}

/// `GET /v1/alerts/silences`: those that have not ended.
pub(super) async fn silences(State(door): State<Door>, Extension(caller): Extension<Caller>) -> Answer {
    record(&door, &caller).await?;
    json_of(&json!({ "silences": desk::silences(&door.home).await.map_err(|error| unread(&error))? }))
}

/// Under whose name it is done: whoever has logged in under its own and no other.
fn by(caller: &Caller, said: Option<String>) -> Result<String, Refused> {
    match said {
        Some(said) if caller.way.is_users() && said != caller.who.name => Err(Refused::new(
            "42501",
            "a step is taken under one's own name",
            format!("leave `by` out, or write \"{}\"", caller.who.name),
        )),
        Some(said) => Ok(said),
        None if caller.way.is_users() => Ok(caller.who.name.clone()),
        None => Err(no_body("step", "{\"by\":\"NAME\",\"step\":\"close\"}: where nobody has logged in it says whose it is")),
    }
}

/// A step, and who takes it.
#[derive(Deserialize)]
pub(super) struct Taken {
    by: Option<String>,
    #[serde(flatten)]
    step: Step,
}

/// `POST /v1/alerts/ALERT/steps` with `{"step":"confirm","reason":"spam"}`: takes a step, and gives the alert as it stands then.
pub(super) async fn step(
    State(door): State<Door>,
    Extension(caller): Extension<Caller>,
    alert: Named,
    body: Result<Json<Taken>, JsonRejection>,
) -> Answer {
    let Ok(Json(taken)) = body else {
        let such = "{\"by\":\"NAME\",\"step\":\"take\",\"assignee\":\"NAME\"}; steps are take, note, case, confirm, dismiss, act, appeal, answer and close";
        return Err(no_body("step", such));
    };
    let (alert, by) = (named(&alert)?, by(&caller, taken.by)?);
    record(&door, &caller).await?;
    look_up(&door, &caller, alert).await?;
    let entry = desk::take(&door.home, alert, &taken.step, &by).await;
    let line = entry.and_then(|entry| alerts::json_line(&entry));
    line.map(|line| json_text(&line)).map_err(|error| undone(&error))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Silenced {
    by: Option<String>,
    r#for: String,
    text: String,
}

/// `POST /v1/alerts/ALERT/silence` with `{"for":"7d","text":"why"}`: no more of this rule about this subject for a while.
pub(super) async fn silence(
    State(door): State<Door>,
    Extension(caller): Extension<Caller>,
    alert: Named,
    body: Result<Json<Silenced>, JsonRejection>,
) -> Answer {
    const SUCH: &str = "{\"for\":\"7d\",\"text\":\"why\"}, for 90m, 12h or 7d";
    let Ok(Json(said)) = body else { return Err(no_body("silence", SUCH)) };
    let Ok(Lasting(lasts_ms)) = said.r#for.parse() else { return Err(no_body("silence", SUCH)) };
    let (alert, by) = (named(&alert)?, by(&caller, said.by)?);
    record(&door, &caller).await?;
    look_up(&door, &caller, alert).await?;
    desk::silence(&door.home, alert, &by, lasts_ms, &said.text).await.map_err(|error| undone(&error))?;
    stands(&door.home, alert).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ended {
    by: Option<String>,
}

/// `DELETE /v1/alerts/ALERT/silence`: ends it. Where nobody has logged in, `?by=NAME` says whose it is.
pub(super) async fn end_silence(
    State(door): State<Door>,
    Extension(caller): Extension<Caller>,
    alert: Named,
    said: Result<Query<Ended>, QueryRejection>,
) -> Answer {
    let Query(said) = said.map_err(|_| no_parameters("/v1/alerts/ALERT/silence?by=NAME"))?;
    let alert = named(&alert)?;
    let no_name = |refused: Refused| {
        if refused.refusal.code == "22032" { no_parameters("/v1/alerts/ALERT/silence?by=NAME") } else { refused }
    };
    let by = by(&caller, said.by).map_err(no_name)?;
    record(&door, &caller).await?;
    look_up(&door, &caller, alert).await?;
    desk::end_silence(&door.home, alert, &by).await.map_err(|error| undone(&error))?;
    stands(&door.home, alert).await
}

async fn stands(home: &Home, alert: &str) -> Answer {
    let line = desk::find(home, alert).await.and_then(|entry| alerts::json_line(&entry));
    line.map(|line| json_text(&line)).map_err(|error| undone(&error))
}

/// `GET /v1/alerts/stream[?after=N]`: each alert, and each change of one, as an event `alert` whose id is its position. A reader that comes
/// back with `Last-Event-ID` goes on where it was.
pub(super) async fn stream_alerts(
    State(door): State<Door>,
    Extension(caller): Extension<Caller>,
    page: Result<Query<Page>, QueryRejection>,
    headers: HeaderMap,
) -> Answer {
    let after = after(page)?;
    record(&door, &caller).await?;
    let last = headers.get("last-event-id").and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
    let events = follow(door, caller, last.unwrap_or(after));
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(15)).text("still here")).into_response())
}

/// What there is after a position, and what comes. The caller has just recorded the read: that entry is the first look's.
fn follow(door: Door, caller: Caller, after: i64) -> impl Stream<Item = Result<Event, Infallible>> {
    let stop = door.stop.clone();
    stream::unfold((door, caller, stop, after, true), |(door, caller, mut stop, position, mut recorded)| async move {
        for look in 0_u32.. {
            let over = *stop.borrow() || (look.is_multiple_of(LOOKS) && !door.still(&caller));
            if over {
                return None;
            }
            match lines(&door.home, position).await {
                Ok(found) if !found.is_empty() => {
                    if !recorded && record(&door, &caller).await.is_err() {
                        tracing::error!("the audit log cannot be written: a stream of alerts ends");
                        return None;
                    }
                    let next = found.last().map_or(position, |(p, _)| *p);
                    let events: Vec<_> = found
                        .into_iter()
                        .map(|(p, line)| Ok(Event::default().event("alert").id(p.to_string()).data(line)))
                        .collect();
                    return Some((stream::iter(events), (door, caller, stop, next, false)));
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(error = format!("{error:#}"), "the alert stream could not read; it tries again"),
            }
            recorded = false;
            tokio::select! {
                _ = stop.changed() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
        None
    })
    .flatten()
}
