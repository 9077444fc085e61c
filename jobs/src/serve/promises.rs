//! `GET /v1/promises`: what of an event goes where and how long it lives, what is kept of people, and who has read what.
//!
//! The first two are the schemas' own words, from which the decoder is made. The third is counted from the hash-chained log: all of it once, and then
//! what came since.

use std::collections::BTreeMap;

use axum::extract::State;
use serde_json::{Value, json};
use starling_schemas::fields::FIELDS;
use starling_store::{AuditEntry, Metastore, StoreError};
use tokio::sync::Mutex;

use super::Door;
use super::told::{Answer, json_of, unread};

/// Entries read at once.
const PAGE: u32 = 1_000;

/// Reads counted so far, and up to which entry.
#[derive(Default)]
pub(super) struct Reads(Mutex<Counted>);

/// (What, by which role) → how often, and when last.
#[derive(Default)]
struct Counted {
    up_to: i64,
    reads: BTreeMap<(String, String), (u64, i64)>,
}

impl Counted {
    fn take(&mut self, entry: &AuditEntry) {
        self.up_to = entry.sequence;
        let detail = &entry.detail;
        let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let mut count = |what: &str, role: Option<String>, times: u64| {
            // Before there were users, and at the command line, nobody has a role.
            let read = self.reads.entry((what.to_owned(), role.unwrap_or_else(|| "operator".to_owned()))).or_default();
            *read = (read.0 + times, entry.at_ms);
        };
        match entry.kind.as_str() {
            "sql_read" => {
                for read in detail["reads"].as_array().into_iter().flatten() {
                    count("sql", text(&read["role"]), read["statements"].as_u64().unwrap_or(0));
                }
            }
            "integrity_read" => {
                let door = text(&detail["door"]).filter(|door| !matches!(door.as_str(), "http" | "cli"));
                // Alerts that went to a receiver outside.
                let role = door.or_else(|| text(&detail["receiver"])).or_else(|| text(&detail["role"]));
                count("alerts", role, 1);
            }
            "audit_read" => count("audit", text(&detail["role"]), 1),
            "billing_read" => count("billing", text(&detail["role"]), 1),
            "business_read" => count("business", text(&detail["role"]), 1),
            "private_question" => count("private", Some("a team".to_owned()), 1),
            "person_rows_read" => count("person rows", Some("releases".to_owned()), 1),
            _ => {}
        }
    }
}

impl Reads {
    async fn now(&self, metastore: &Metastore) -> Result<Vec<Value>, StoreError> {
        let mut counted = self.0.lock().await;
        loop {
            let entries = metastore.audit_after(counted.up_to, PAGE).await?;
            if entries.is_empty() {
                break;
            }
            entries.iter().for_each(|entry| counted.take(entry));
        }
        let told = |((what, role), (count, last_ms)): (&(String, String), &(u64, i64))| json!({ "schema_or_feed": what, "by_role": role, "count": count, "last_ms": last_ms });
        Ok(counted.reads.iter().map(told).collect())
    }
}

pub(super) async fn show(State(door): State<Door>) -> Answer {
    let reads = door.reads.now(&door.home.metastore).await.map_err(|error| unread(&error.into()))?;
    json_of(&json!({ "classes": classes(), "datasets": datasets(&door), "reads": reads }))
}

fn classes() -> Vec<Value> {
    let mut classes: BTreeMap<(&str, &[&str], &str), Vec<String>> = BTreeMap::new();
    for field in FIELDS {
        let class = (field.class, field.purposes, field.retention);
        classes.entry(class).or_default().push(format!("{}.{}", field.message, field.field));
    }
    let told = |((class, purposes, retention), fields): ((&str, &[&str], &str), Vec<String>)| json!({ "class": class, "fields": fields, "goes_to": goes_to(purposes), "lives": lives(retention) });
    classes.into_iter().map(told).collect()
}

fn goes_to(purposes: &[&str]) -> String {
    let word = |purpose: &&str| match *purpose {
        "gate" => "the decision whether the event counts, inside minimize",
        "analytics" => "statistics with noise",
        "integrity" => "detection of abuse",
        "billing" => "billing of businesses",
        "directory" => "what businesses say of themselves, for who works with businesses",
        _ => "nowhere that has a name",
    };
    purposes.iter().map(word).collect::<Vec<_>>().join("; ")
}

fn lives(retention: &str) -> &'static str {
    match retention {
        "not_kept" => "not kept: it is read or skipped, and never written",
        "keyed_epoch" => "as a keyed hash, until its day's key is destroyed",
        "thirty_days" => "as a coarse value, 30 days at most",
        "business_account" => {
            "while the business has an account; what it says of itself, until it has not said so anew for businesses.keep_days"
        }
        _ => "unknown: ask before it is used",
    }
}

fn datasets(door: &Door) -> Vec<Value> {
    let keep_days = door.home.config.window.keep_days;
    let of = |(name, dataset): (&String, &starling_schemas::metrics::Dataset)| {
        let questions = dataset.questions.as_ref();
        let own = questions.is_some_and(|questions| questions.source.is_some());
        let mut keeps: Vec<String> = vec![dataset.description.clone()];
        for (measure, bounds) in questions.iter().flat_map(|questions| &questions.measures) {
            keeps.push(format!("{measure}: {}, in {}", bounds.description, bounds.unit));
        }
        for (dimension, text) in questions.iter().flat_map(|questions| &questions.dimensions) {
            keeps.push(format!("{dimension}: {}", text.description));
        }
        let lives = if own {
            "as long as its owner keeps the file".to_owned()
        } else {
            format!("{keep_days} days after its {} has closed; then its key is destroyed", dataset.window.name())
        };
        json!({ "name": name, "unit": dataset.privacy_unit, "keeps": keeps, "lives": lives })
    };
    door.home.catalogue.datasets.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_and_purpose_of_the_schemas_has_words() {
        let text = json!(classes()).to_string();
        assert!(!text.contains("unknown:") && !text.contains("nowhere that has a name"), "{text}");
        assert!(text.contains("MessageSent.to_person") && text.contains("phone_number"));
        let fields: usize = classes().iter().map(|class| class["fields"].as_array().map_or(0, Vec::len)).sum();
        assert_eq!(fields, FIELDS.len());
    }

    #[test]
    fn reads_are_counted_by_what_and_by_whom() {
        let mut counted = Counted::default();
        for (sequence, (kind, detail)) in (1..).zip([
            ("sql_read", json!({ "door": "http", "reads": [{ "user": "ada", "role": "product", "statements": 3 }] })),
            ("sql_read", json!({ "door": "postgres", "reads": [{ "user": "joe", "role": "product", "statements": 1 }] })),
            ("integrity_read", json!({ "what": "alerts", "door": "http", "user": "ivy", "role": "integrity" })),
            ("integrity_read", json!({ "what": "alerts", "door": "cli" })),
            ("integrity_read", json!({ "what": "alerts", "door": "kafka" })),
            ("business_read", json!({ "table": "business.accounts", "role": "product" })),
            ("key_destroyed", json!({ "key": "k" })),
        ]) {
            let entry = AuditEntry { sequence, at_ms: sequence * 10, kind: kind.to_owned(), detail, hash: String::new() };
            counted.take(&entry);
        }
        assert_eq!(counted.up_to, 7);
        let told: Vec<_> = counted.reads.iter().map(|((what, role), read)| (what.as_str(), role.as_str(), *read)).collect();
        assert_eq!(
            told,
            [
                ("alerts", "integrity", (1, 30)),
                ("alerts", "kafka", (1, 50)),
                ("alerts", "operator", (1, 40)),
                ("business", "product", (1, 60)),
                ("sql", "product", (4, 20))
            ]
        );
    }
}
