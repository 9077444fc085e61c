//! # Releases as Delta tables, for Spark, Trino, DuckDB and whoever reads that format
//!
//! ```text
//!  stats/<metric>/2026-01-05.parquet        the release: created once, never replaced (I3)
//!  stats/<metric>/_delta_log/0…0.json       this module: which releases there are, so that the folder is a Delta table as it stands
//! ```
//!
//! **Comes in:** the releases that the metastore has recorded, and their files. **Goes out:** one commit for all of a metric that the log does
//! not name yet. No statistic is written a second time: the log names the very files that `stats.*` reads, and what was never recorded as
//! released is never named.
//!
//! **Why not a library.** `deltalake` is made to write and change tables; beside the one thing that is needed here, a file of a few lines of
//! JSON, it brings a second HTTP client and a Parquet writer of its own, under which a release would no longer be the bytes that were drawn once.
//! What is written is [protocol](https://github.com/delta-io/delta/blob/master/PROTOCOL.md) version 1 for readers and 2 for writers, append
//! only, without partitions; `tests/delta` reads it with that library.
//!
//! An answer to a question can be kept as a table of its own ([`keep`]): a file and a commit in a new folder.
//!
//! # What can go wrong
//!
//! | what | what happens |
//! |---|---|
//! | killed between release and commit | the next call commits it: what is missing is found by comparing, not remembered |
//! | two writers at once | a commit is created, never replaced: the second reads the log again and finds nothing to do |
//! | a metric gets another column | the commit says so; older releases have NULL in it |
//! | somebody else changed the log | [`ReleaseError::DeltaLog`] names the file; releases go on without |

mod kept;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema};
use bytes::Bytes;
use datafusion::parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use serde_json::{Value, json};
use starling_schemas::rows::COMMENT;
use starling_store::{Files, ReleaseRecord, StoreError};

use crate::ReleaseError;

pub use kept::{COMMIT, ROWS, keep};

/// How often a commit is tried that others were quicker with.
const ATTEMPTS: usize = 32;
/// Of the protocol: appends, and no feature beyond.
const WRITER_VERSION: u64 = 2;
/// Digits of a version in a commit's name.
const VERSION_DIGITS: usize = 20;

/// Names in each metric's Delta log what was released and is not named yet. Gives how many releases were added.
///
/// # Errors
/// [`ReleaseError::DeltaLog`] for a log that others have changed; [`ReleaseError::Store`]. What was added stays added.
pub async fn publish(files: &Files, releases: &[ReleaseRecord]) -> Result<usize, ReleaseError> {
    let mut by_metric: BTreeMap<&str, Vec<&ReleaseRecord>> = BTreeMap::new();
    for release in releases {
        by_metric.entry(&release.metric).or_default().push(release);
    }
    let mut added = 0;
    for (metric, mut releases) in by_metric {
        releases.sort_by_key(|release| release.epoch);
        added += of_metric(files, metric, &releases).await?;
    }
    Ok(added)
}

async fn of_metric(files: &Files, metric: &str, releases: &[&ReleaseRecord]) -> Result<usize, ReleaseError> {
    let folder = format!("stats/{metric}/_delta_log");
    let mut added = 0;
    for _ in 0..ATTEMPTS {
        let log = Log::read(files, &folder).await?;
        let missing: Vec<_> = releases.iter().filter(|release| !log.names.contains(name(release))).collect();
        // One commit has one schema: releases from before a change of the metric and after it come in two.
        let (mut schema, mut adds) = (None, Vec::new());
        for release in missing {
            let path = &release.path;
            let bytes = files.get(path).await?.ok_or_else(|| StoreError::FileMissing { path: path.clone() })?;
            let theirs = delta_schema(&bytes).ok_or_else(|| ReleaseError::ForeignFile { path: path.clone() })?;
            if *schema.get_or_insert_with(|| theirs.clone()) != theirs {
                break;
            }
            adds.push(add(release, bytes.len()));
        }
        let Some(schema) = schema else { return Ok(added) };
        let count = adds.len();
        if files
            .put_new(&format!("{folder}/{:0VERSION_DIGITS$}.json", log.next), commit(metric, &log, &schema, adds, releases))
            .await?
        {
            added += count;
        }
    }
    Err(ReleaseError::DeltaLog { path: folder, what: "others keep writing to it" })
}

/// A release's file below its table.
fn name(release: &ReleaseRecord) -> &str {
    release.path.rsplit_once('/').map_or(release.path.as_str(), |(_, name)| name)
}

/// What a log says.
#[derive(Debug, Default)]
struct Log {
    /// Version of the next commit.
    next: u64,
    /// Files that are in the table.
    names: BTreeSet<String>,
    /// The schema, as the text it was written as.
    schema: Option<String>,
}

impl Log {
    async fn read(files: &Files, folder: &str) -> Result<Self, ReleaseError> {
        let mut log = Self::default();
        for path in files.list(folder).await? {
            let changed = |what| ReleaseError::DeltaLog { path: path.clone(), what };
            let Some(version) = path.strip_suffix(".json").and_then(|p| p.rsplit_once('/')).map(|(_, name)| name) else {
                // A checkpoint, or what else readers leave behind: all it can say is in the commits.
                continue;
            };
            if version.len() != VERSION_DIGITS || version.parse() != Ok(log.next) {
                return Err(changed("commits before it are missing, or it is none"));
            }
            let bytes = files.get(&path).await?.ok_or_else(|| StoreError::FileMissing { path: path.clone() })?;
            for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                let action: Value = serde_json::from_slice(line).map_err(|_| changed("a line is no JSON"))?;
                if let Some(name) = action.pointer("/add/path").and_then(Value::as_str) {
                    log.names.insert(name.to_owned());
                }
                if let Some(schema) = action.pointer("/metaData/schemaString").and_then(Value::as_str) {
                    log.schema = Some(schema.to_owned());
                }
                if action
                    .pointer("/protocol/minWriterVersion")
                    .and_then(Value::as_u64)
                    .is_some_and(|version| version > WRITER_VERSION)
                {
                    return Err(changed("it asks for writers of a later version"));
                }
                if action.get("remove").is_some() {
                    return Err(changed("something was removed from a table that only grows"));
                }
            }
            log.next += 1;
        }
        Ok(log)
    }
}

fn commit(metric: &str, log: &Log, schema: &str, adds: Vec<Value>, releases: &[&ReleaseRecord]) -> Bytes {
    let since_ms = releases.first().map_or(0, |release| release.released_at_ms);
    let newest_ms = adds.iter().filter_map(|add| add.pointer("/add/modificationTime")?.as_i64()).max().unwrap_or(since_ms);
    let table = (log.schema.as_deref() != Some(schema)).then(|| {
        json!({
            "id": table_id(metric),
            "name": metric,
            "description": format!("stats.{metric}: released once, with noise"),
            "format": { "provider": "parquet", "options": {} },
            "schemaString": schema,
            "partitionColumns": [],
            "createdTime": since_ms,
            "configuration": { "delta.appendOnly": "true" },
        })
    });
    actions(log, newest_ms, table, adds)
}

/// A commit's text. `table`: what the table is, where it is new or changed.
fn actions(log: &Log, now_ms: i64, table: Option<Value>, adds: Vec<Value>) -> Bytes {
    let mut actions = vec![json!({ "commitInfo": {
        "timestamp": now_ms,
        "operation": "WRITE",
        "operationParameters": { "mode": "Append" },
        "engineInfo": concat!("starling/", env!("CARGO_PKG_VERSION")),
    }})];
    if log.next == 0 {
        actions.push(json!({ "protocol": { "minReaderVersion": 1, "minWriterVersion": WRITER_VERSION } }));
    }
    actions.extend(table.map(|table| json!({ "metaData": table })));
    actions.extend(adds);
    let lines: Vec<String> = actions.iter().map(Value::to_string).collect();
    Bytes::from(lines.join("\n") + "\n")
}

fn add(release: &ReleaseRecord, size: usize) -> Value {
    let day = release.epoch.day().to_string();
    let stats = match release.epoch.hour() {
        None => {
            json!({ "numRecords": release.rows, "minValues": { "day": day }, "maxValues": { "day": day }, "nullCount": { "day": 0 } })
        }
        Some(hour) => {
            let of = json!({ "day": day, "hour": hour });
            json!({ "numRecords": release.rows, "minValues": of, "maxValues": of, "nullCount": { "day": 0, "hour": 0 } })
        }
    };
    json!({ "add": {
        "path": name(release),
        "partitionValues": {},
        "size": size,
        "modificationTime": release.released_at_ms,
        "dataChange": true,
        "stats": stats.to_string(),
    }})
}

/// The same for the same metric: whoever makes the first commit makes the same table.
fn table_id(metric: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"starling.delta.").update(metric.as_bytes());
    let hex = hasher.finalize().to_hex();
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default().to_owned();
    format!("{}-{}-4{}-8{}-{}", part(0, 8), part(8, 12), part(13, 16), part(17, 20), part(20, 32))
}

/// The schema of a release's file in Delta's words; `None` if it has a column that a release does not have.
fn delta_schema(bytes: &Bytes) -> Option<String> {
    let metadata = ArrowReaderMetadata::load(bytes, ArrowReaderOptions::new()).ok()?;
    fields(metadata.schema())
}

fn fields(schema: &Arc<Schema>) -> Option<String> {
    let fields = schema.fields().iter().map(|field| {
        let kind = match field.data_type() {
            DataType::Date32 => "date",
            DataType::Utf8 => "string",
            DataType::Float64 => "double",
            DataType::Int64 => "long",
            DataType::Timestamp(..) => "timestamp",
            DataType::Boolean => "boolean",
            _ => return None,
        };
        let comment = field.metadata().get(COMMENT).map_or(json!({}), |comment| json!({ "comment": comment }));
        // Nullable, all of them: a release from before a column was there has NULL in it.
        Some(json!({ "name": field.name(), "type": kind, "nullable": true, "metadata": comment }))
    });
    let fields: Vec<Value> = fields.collect::<Option<_>>()?;
    Some(json!({ "type": "struct", "fields": fields }).to_string())
}

#[cfg(test)]
mod tests;
