//! `GET /v1/audit[?before=N][&limit=N]`: the hash-chained log, newest first. Reading it is an entry itself.

use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::Deserialize;
use serde_json::{Value, json};
use starling_store::AuditEntry;

use super::Door;
use super::told::{Answer, json_of, no_parameters, unlogged, unread};
use super::way_in::Caller;
use crate::metrics::Work;

/// Entries of an answer where none are asked for, and at the most.
const PAGE: u32 = 100;
const MOST: u32 = 1_000;
const SUCH: &str = "/v1/audit?before=1200&limit=100, with a limit of 1 to 1000";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    before: Option<i64>,
    limit: Option<u32>,
}

pub(super) async fn page(
    State(door): State<Door>,
    Extension(caller): Extension<Caller>,
    page: Result<Query<Page>, QueryRejection>,
) -> Answer {
    let Query(page) = page.map_err(|_| no_parameters(SUCH))?;
    let limit = page.limit.unwrap_or(PAGE);
    if !(1..=MOST).contains(&limit) || page.before.is_some_and(|before| before < 0) {
        return Err(no_parameters(SUCH));
    }
    let detail = json!({ "door": "http", "user": caller.who.name, "role": caller.who.role.name() });
    if door.home.metastore.append_audit("audit_read", detail, door.home.clock.now_ms()).await.is_err() {
        door.home.metrics.failed(Work::Audit);
        return Err(unlogged());
    }
    let found = door.home.metastore.audit_page(page.before, limit).await.map_err(|error| unread(&error.into()))?;
    let full = found.entries.len() == usize::try_from(limit).unwrap_or(usize::MAX);
    let next = found.entries.last().filter(|last| full && last.sequence > 1).map(|last| last.sequence);
    let entries: Vec<Value> = found.entries.iter().map(told).collect();
    json_of(&json!({ "entries": entries, "next": next, "verified": found.verified }))
}

fn told(entry: &AuditEntry) -> Value {
    let mut told = json!({
        "seq": entry.sequence, "at_ms": entry.at_ms, "kind": entry.kind, "detail": entry.detail, "hash": entry.hash,
    });
    if let Some(who) = who(&entry.detail) {
        told["who"] = who.into();
    }
    told
}

/// Who it was, as far as the entry says: a user, whoever took a step, or all who read, or were refused, together.
fn who(detail: &Value) -> Option<String> {
    let one = |name: &str| detail[name].as_str().filter(|name| !name.is_empty()).map(str::to_owned);
    one("user").or_else(|| one("by")).or_else(|| {
        let several = detail["reads"].as_array().or_else(|| detail["counted"].as_array())?;
        let mut names: Vec<&str> = several.iter().filter_map(|one| one["user"].as_str()).collect();
        names.dedup();
        (!names.is_empty()).then(|| names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_it_was_is_told_as_far_as_it_is_known() {
        for (detail, expected) in [
            (json!({ "user": "ada", "role": "product" }), Some("ada")),
            (json!({ "by": "ivy" }), Some("ivy")),
            (json!({ "reads": [{ "user": "ada" }, { "user": "ada" }, { "user": "bob" }] }), Some("ada, bob")),
            (json!({ "counted": [{ "door": "http" }, { "user": "ada" }] }), Some("ada")),
            (json!({ "key": "k" }), None),
            (json!({ "reads": [] }), None),
        ] {
            assert_eq!(who(&detail).as_deref(), expected, "{detail}");
        }
    }
}
