//! `integrity.alerts`: the alert feed and where the work on each alert stands, as a table, for who works on alerts (P33) and for nobody else.
//! `integrity.kept_alerts`: what was found beside it and is told to nobody, with why.
//!
//! **Comes in:** the metastore's alerts and standings, as the integrity room wrote them. **Goes out:** a row an alert, as of the statement. What
//! it says is what the feed says: whom it means by business name or keyed form, what was seen, what speaks against it; never a recipient or a reporter.
//! Each reading is in the audit log before a row of it is there (I6), as `integrity_read`, whoever asks and by which door; where the log cannot be written
//! nothing is read. At which false-discovery level an alert is chosen moves with what is found beside it, so it is computed here. What people wrote as notes, reasons in words and answers to appeals is not in it: that is read one alert at a time, by who works on it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray,
};
use arrow::datatypes::DataType;
use serde_json::{Value, json};
use starling_schemas::chosen::{Found, TestedDays, chosen};
use starling_schemas::ids::EpochId;
use starling_store::AlertRecord;

use crate::catalogue::{Shelf, unreadable};
use crate::error::{CORRUPTED, INTERNAL, QueryError};
use crate::meta::{Facts, TIME, Table};
use crate::rights::Rights;

/// Schema of what is known of abuse.
pub(crate) const INTEGRITY: &str = "integrity";
/// Bytes of a text in it; what is longer is cut.
pub(crate) const NOTE: usize = 1024;
/// Alerts read at one time.
const PAGE: u32 = 10_000;
/// Alerts the table has, the newest of the feed. What is older is in `starling alerts`.
const MOST: usize = 100_000;

/// What both tables say of an alert, and what one of them says more.
macro_rules! seen_and {
    ($($more:expr,)*) => {
        &[
            ("fingerprint", DataType::Utf8, false, "the same for the same rule and subject; what `starling alerts show` takes"),
            ("rule", DataType::Utf8, false, "the rule that fired"),
            ("rule_version", DataType::Int64, false, "its version"),
            ("severity", DataType::Utf8, false, "low, medium, high or critical"),
            ("subject_kind", DataType::Utf8, false, "person, business or group; of attacks on the pipeline itself pipeline or principal"),
            (
                "subject",
                DataType::Utf8,
                false,
                "the name of a business, source, door or user; of a person or group the keyed form, which dies with its day's key",
            ),
            ("key_day", DataType::Date32, true, "day of that key; NULL where there is none"),
            ("window_start", TIME, false, "start of the fullest window, UTC"),
            ("window_end", TIME, false, "end of it, UTC"),
            ("observed", DataType::Int64, false, "what was seen in it: messages, people, members, as explanation says"),
            ("threshold", DataType::Int64, false, "from where on the rule fires"),
            ("stands", DataType::Boolean, false, "whether it still does: signals that came late can undo it"),
            (
                "baseline_kind",
                DataType::Utf8,
                false,
                "own: the subject's past; segment: others of its kind; rule: the threshold alone",
            ),
            ("baseline", DataType::Float64, true, "what is usual, in the unit of observed; NULL where there is none"),
            ("factor", DataType::Float64, false, "observed over the baseline, or over the threshold"),
            ("evidence", DataType::Int64, false, "signals behind it"),
            ("explanation", DataType::Utf8, false, "what was seen, in a sentence"),
            ("counter_evidence", DataType::Utf8, false, "what speaks for the subject, with semicolons"),
            ("data_gaps", DataType::Utf8, false, "what was missing, with semicolons"),
            ("first_seen", TIME, false, "start of the first window, UTC"),
            ("last_seen", TIME, false, "end of the last one, UTC"),
            ("revision", DataType::Int64, false, "how often it was told"),
            (
                "e_value_log10",
                DataType::Float64,
                true,
                "decimal logarithm of its e-value, of mean 1 at most where nothing is wrong; NULL where its rule states none",
            ),
            (
                "false_discovery_level",
                DataType::Float64,
                true,
                "as of now: the least level at which its e-value is chosen among all tested of its kind and day; NULL where it has none or does not stand",
            ),
            $($more,)*
        ]
    };
}

/// All tables of `integrity`.
pub(crate) static TABLES: [Table; 2] = [
    Table {
        name: "alerts",
        columns: seen_and![
            ("state", DataType::Utf8, false, "new, triaged, confirmed, false, actioned, appealed or closed"),
            ("assignee", DataType::Utf8, true, "who has it"),
            ("case_name", DataType::Utf8, true, "the case it belongs to"),
            ("reason", DataType::Utf8, true, "why it is or is not abuse, by code"),
            ("enforcement", DataType::Utf8, true, "what was done about it, by code"),
            ("worked_at", TIME, true, "when the last step was taken, UTC; NULL where nobody took one"),
        ],
    },
    Table {
        name: KEPT_ALERTS,
        columns: seen_and![
            ("kept_for", DataType::Utf8, false, "why it is told to nobody: shadow, canary, expired, allowance or demoted"),
            ("kept_at", TIME, false, "when it was first kept, UTC; 14 days later it is gone"),
        ],
    },
];

/// Name of the table of what is told to nobody.
const KEPT_ALERTS: &str = "kept_alerts";

/// What a table of `integrity` holds.
pub(crate) fn about(table: &str) -> &'static str {
    if table == KEPT_ALERTS {
        "what was found and is told to nobody, with why: 14 days of it"
    } else {
        "every alert of the feed, what speaks for and against it, and where the work on it stands"
    }
}

/// One alert and the work on it, as the integrity room wrote them.
struct Row {
    record: AlertRecord,
    alert: Value,
    standing: Value,
    worked_ms: Option<i64>,
    /// Why it is kept, and since when; of an alert of the feed nothing.
    kept: Option<(String, i64)>,
}

impl Row {
    fn text(&self, path: &str) -> String {
        cut(self.alert.pointer(path).and_then(Value::as_str).unwrap_or_default())
    }

    fn whole(&self, path: &str) -> i64 {
        self.alert.pointer(path).and_then(Value::as_i64).unwrap_or_default()
    }

    /// As `Alert::stands` of the integrity room has it.
    fn stands(&self) -> bool {
        let is_withdrawn = self.alert.pointer("/withdrawn").and_then(Value::as_bool).unwrap_or_default();
        !is_withdrawn && self.whole("/observed") >= self.whole("/threshold")
    }

    fn list(&self, path: &str) -> String {
        let parts = self.alert.pointer(path).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        cut(&parts.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("; "))
    }

    /// As `found` of the integrity room has it.
    fn found(&self) -> Option<Found<'_>> {
        let day = match self.alert.pointer("/subject/epoch").and_then(Value::as_str) {
            Some(epoch) => EpochId::parse(epoch)?,
            None => EpochId::of(self.whole("/window/start_ms")),
        };
        let log10 = self.e_value().filter(|_| self.stands())?;
        let (fingerprint, kind) = (&self.record.fingerprint, &self.record.subject_kind);
        Some(Found { fingerprint, kind, subject: &self.record.subject, day: day.0, log10 })
    }

    fn e_value(&self) -> Option<f64> {
        self.alert.pointer("/e_value_log10").and_then(Value::as_f64)
    }

    fn work(&self, name: &str) -> Option<String> {
        self.standing.get(name).and_then(Value::as_str).map(cut)
    }
}

/// At most as many bytes as a text may have.
fn cut(text: &str) -> String {
    if text.len() <= NOTE {
        return text.to_owned();
    }
    let end = (0..=NOTE - '…'.len_utf8()).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
    format!("{}…", &text[..end])
}

/// The table as of now.
///
/// # Errors
/// When the metastore cannot be read; [`CORRUPTED`] for an alert that is no JSON.
pub(crate) async fn table(table: &Table, shelf: &Shelf, rights: Rights) -> Result<Facts, QueryError> {
    let role = match rights {
        Rights::All => "operator",
        Rights::Of(role) => role.name(),
    };
    let detail = json!({ "what": "alerts", "table": format!("{INTEGRITY}.{}", table.name), "role": role });
    shelf.metastore.append_audit("integrity_read", detail, shelf.clock.now_ms()).await.map_err(|error| unreadable(&error))?;
    let is_kept = table.name == KEPT_ALERTS;
    let (rows, others) =
        if is_kept { (kept_rows(shelf).await?, rows(shelf).await?) } else { (rows(shelf).await?, kept_rows(shelf).await?) };
    let levels = levels(shelf, rows.iter().chain(&others)).await?;
    let texts = |of: &dyn Fn(&Row) -> String| -> ArrayRef { Arc::new(StringArray::from_iter_values(rows.iter().map(of))) };
    let wholes = |of: &dyn Fn(&Row) -> i64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(rows.iter().map(of))) };
    let times =
        |of: &dyn Fn(&Row) -> i64| -> ArrayRef { Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(of))) };
    let days = rows.iter().map(|row| EpochId::parse(row.alert.pointer("/subject/epoch")?.as_str()?).map(|day| day.0));
    let factors = rows.iter().map(|row| row.alert.pointer("/factor").and_then(Value::as_f64).unwrap_or_default());
    let mut columns: Vec<ArrayRef> = vec![
        texts(&|row| row.record.fingerprint.clone()),
        texts(&|row| cut(&row.record.rule)),
        wholes(&|row| row.record.rule_version.into()),
        texts(&|row| cut(&row.record.severity)),
        texts(&|row| cut(&row.record.subject_kind)),
        texts(&|row| cut(&row.record.subject)),
        Arc::new(days.collect::<Date32Array>()),
        times(&|row| row.whole("/window/start_ms")),
        times(&|row| row.whole("/window/end_ms")),
        wholes(&|row| row.whole("/observed")),
        wholes(&|row| row.whole("/threshold")),
        Arc::new(rows.iter().map(|row| Some(row.stands())).collect::<BooleanArray>()),
        texts(&|row| row.text("/baseline/kind")),
        Arc::new(rows.iter().map(|row| row.alert.pointer("/baseline/value").and_then(Value::as_f64)).collect::<Float64Array>()),
        Arc::new(Float64Array::from_iter_values(factors)),
        wholes(&|row| row.whole("/evidence")),
        texts(&|row| row.text("/explanation")),
        texts(&|row| row.list("/counter_evidence")),
        texts(&|row| row.list("/data_gaps")),
        times(&|row| row.record.first_ms),
        times(&|row| row.record.last_ms),
        wholes(&|row| row.whole("/revision")),
        Arc::new(rows.iter().map(Row::e_value).collect::<Float64Array>()),
        Arc::new(rows.iter().map(|row| levels.get(&row.record.fingerprint).copied()).collect::<Float64Array>()),
    ];
    columns.extend(if is_kept { kept_columns(&rows) } else { work_columns(&rows) });
    let schema = table.schema();
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns).map_err(|_| {
        QueryError::new(
            INTERNAL,
            format!("integrity.{} could not be built", table.name),
            "report this: it is a fault of the server",
        )
    })?;
    Ok(Facts::of(schema, batch))
}

/// The least false-discovery level at which each alert is chosen, told or kept, among all that was tested.
async fn levels(shelf: &Shelf, rows: impl Iterator<Item = &Row>) -> Result<BTreeMap<String, f64>, QueryError> {
    let tested = shelf.metastore.integrity_tested().await.map_err(|error| unreadable(&error))?;
    let tested = TestedDays::read(&tested).ok_or_else(|| {
        QueryError::new(CORRUPTED, "what was tested is no JSON in the metastore", "restore the metastore from a backup")
    })?;
    // What was told while rows were read is among those that are kept, too.
    let found: BTreeMap<&str, Found<'_>> = rows.filter_map(Row::found).map(|found| (found.fingerprint, found)).collect();
    Ok(chosen(found.into_values(), |kind, day| tested.of(kind, day)))
}

/// Where the work on alerts of the feed stands.
fn work_columns(rows: &[Row]) -> Vec<ArrayRef> {
    let work = |name: &'static str| -> ArrayRef { Arc::new(rows.iter().map(|row| row.work(name)).collect::<StringArray>()) };
    let state = |row: &Row| row.work("state").unwrap_or_else(|| "new".to_owned());
    vec![
        Arc::new(StringArray::from_iter_values(rows.iter().map(state))),
        work("assignee"),
        work("case"),
        work("reason"),
        work("enforcement"),
        Arc::new(rows.iter().map(|row| row.worked_ms).collect::<TimestampMillisecondArray>()),
    ]
}

/// Why what is kept is kept, and since when.
fn kept_columns(rows: &[Row]) -> Vec<ArrayRef> {
    vec![
        Arc::new(rows.iter().map(|row| row.kept.as_ref().map(|kept| cut(&kept.0))).collect::<StringArray>()),
        Arc::new(rows.iter().map(|row| row.kept.as_ref().map(|kept| kept.1)).collect::<TimestampMillisecondArray>()),
    ]
}

/// What the integrity room wrote as JSON.
fn json_of(text: &str, what: &str) -> Result<Value, QueryError> {
    serde_json::from_str(text).map_err(|_| {
        let hint = "see `starling alerts --json`, and restore the metastore from a backup";
        QueryError::new(CORRUPTED, format!("{what} in the metastore is no JSON"), hint)
    })
}

async fn kept_rows(shelf: &Shelf) -> Result<Vec<Row>, QueryError> {
    let mut rows: Vec<Row> = Vec::new();
    loop {
        let after = rows.last().map_or(0, |row| row.record.position);
        let page = shelf.metastore.kept_after(after, None, PAGE).await.map_err(|error| unreadable(&error))?;
        let is_last = page.len() < PAGE as usize;
        for kept in page {
            let (alert, reason) = (json_of(&kept.alert.body, "a kept alert")?, Some((kept.kept_for, kept.kept_ms)));
            rows.push(Row { record: kept.alert, alert, standing: Value::Null, worked_ms: None, kept: reason });
        }
        rows.drain(..rows.len().saturating_sub(MOST));
        if is_last {
            break;
        }
    }
    // What grew while pages were read came twice: the later one is how it is.
    let newest: HashMap<String, i64> = rows.iter().map(|row| (row.record.fingerprint.clone(), row.record.position)).collect();
    rows.retain(|row| newest.get(&row.record.fingerprint) == Some(&row.record.position));
    Ok(rows)
}

async fn rows(shelf: &Shelf) -> Result<Vec<Row>, QueryError> {
    let mut records = Vec::new();
    loop {
        let after = records.last().map_or(0, |record: &AlertRecord| record.position);
        let page = shelf.metastore.alerts_after(after, PAGE).await.map_err(|error| unreadable(&error))?;
        let is_last = page.len() < PAGE as usize;
        records.extend(page);
        records.drain(..records.len().saturating_sub(MOST));
        if is_last {
            break;
        }
    }
    // A step moves its alert to the end of the feed: what moved while pages were read may have come twice.
    let newest: HashMap<String, i64> = records.iter().map(|record| (record.fingerprint.clone(), record.position)).collect();
    records.retain(|record| newest.get(&record.fingerprint) == Some(&record.position));
    let work = shelf.metastore.work_between(0, i64::MAX).await.map_err(|error| unreadable(&error))?;
    let mut work: HashMap<String, (String, i64)> =
        work.into_iter().map(|record| (record.fingerprint, (record.standing, record.updated_ms))).collect();
    records
        .into_iter()
        .map(|record| {
            let (alert, worked) = (json_of(&record.body, "an alert")?, work.remove(&record.fingerprint));
            let standing =
                worked.as_ref().map_or(Ok(Value::Null), |(standing, _)| json_of(standing, "the standing of an alert"))?;
            Ok(Row { record, alert, standing, worked_ms: worked.map(|(_, at_ms)| at_ms), kept: None })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters_and_says_so() {
        assert_eq!(cut("short"), "short");
        for text in ["a".repeat(NOTE + 1), "ä".repeat(NOTE), format!("a{}", "€".repeat(NOTE))] {
            let short = cut(&text);
            assert!(short.len() <= NOTE && short.len() > NOTE - 8 && short.ends_with('…'), "{}", short.len());
            assert!(text.starts_with(short.trim_end_matches('…')));
        }
    }
}
