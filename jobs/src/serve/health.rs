//! Liveness and readiness for whoever starts this process, and `GET /v1/health` for whoever looks after the house: what `starling status --json` tells,
//! and what lies in quarantine, waits to be delivered, and was destroyed.

use axum::extract::State;
use serde_json::{Value, json};

use super::Door;
use super::told::{Answer, Refused, json_of, unread};
use crate::status;

/// Receipts of destroyed keys that are told.
const RECEIPTS: u32 = 100;

/// `GET /livez`.
pub(super) async fn live() -> &'static str {
    "ok\n"
}

/// `GET /readyz`. Nobody need be anybody for it, so it costs one row whatever there is.
pub(super) async fn ready(State(door): State<Door>) -> Result<&'static str, Refused> {
    match door.home.metastore.ping().await {
        Ok(()) => Ok("ok\n"),
        Err(error) => Err(unread(&error.into())),
    }
}

/// `GET /v1/health`.
pub(super) async fn show(State(door): State<Door>) -> Answer {
    json_of(&told(&door).await.map_err(|error| unread(&error))?)
}

async fn told(door: &Door) -> anyhow::Result<Value> {
    let home = &door.home;
    let mut told = serde_json::to_value(status::collect(home).await?)?;
    let quarantine = home.metastore.quarantine_counts(None).await?;
    let quarantine: Vec<Value> =
        quarantine.iter().map(|(class, count)| json!({ "class": class.name(), "count": count })).collect();
    let (waiting, dead) = home.metastore.delivery_counts().await?;
    let receipts = home.metastore.audit_of_kind("key_destroyed", RECEIPTS).await?;
    let receipts: Vec<Value> = receipts
        .iter()
        .map(
            |entry| json!({ "key": entry.detail["key"], "destroyed_ms": entry.detail["destroyed_at_ms"], "seq": entry.sequence }),
        )
        .collect();
    told["now_ms"] = home.clock.now_ms().into();
    told["quarantine"] = quarantine.into();
    told["deliveries"] = json!({ "waiting": waiting, "dead": dead });
    told["receipts"] = receipts.into();
    Ok(told)
}
