//! `starling quarantine list` and `count`: where unreadable events were, why they could not be read, and how many there are. What they held is
//! kept nowhere, so it cannot be shown (I4); whoever must see it reads the offset from Kafka, under that topic's own access rules.

use anyhow::Context as _;
use serde::Serialize;
use starling_schemas::codes::Fault;
use starling_schemas::ids::EpochId;
use starling_store::{QuarantineEntry, QuarantineFilter};

use crate::cli::{QuarantineCommand, Since};
use crate::columns::{Side, lay_out};
use crate::home::Home;
use crate::status::timestamp;
use crate::summary::grouped;

#[derive(Debug, Serialize)]
struct Row<'a> {
    partition: String,
    offset: i64,
    class: &'a str,
    length_bytes: u64,
    committed_ms: i64,
}

/// Answers one of the two.
///
/// # Errors
/// When `--since` is no time, or the metastore cannot be read.
pub async fn tell(home: &Home, command: &QuarantineCommand) -> anyhow::Result<String> {
    let now_ms = home.clock.now_ms();
    match command {
        QuarantineCommand::List { since, class, limit, json } => {
            let fault = class.as_deref().and_then(Fault::parse);
            let filter = QuarantineFilter { since_ms: since_ms(since, now_ms)?, fault, limit: *limit };
            let found = home.metastore.quarantine_list(&filter).await?;
            if *json { as_json_lines(&found) } else { Ok(list(&found, *limit)) }
        }
        QuarantineCommand::Count { since, json } => {
            let counts = home.metastore.quarantine_counts(since_ms(since, now_ms)?).await?;
            let of = |class: Fault| counts.iter().find(|(f, _)| *f == class).map_or(0, |(_, n)| *n);
            let total = counts.iter().map(|(_, n)| n).sum();
            if *json {
                let by_class: serde_json::Map<_, _> = Fault::ALL.iter().map(|f| (f.name().to_owned(), of(*f).into())).collect();
                return Ok(format!("{}\n", serde_json::json!({ "events": by_class, "total": total })));
            }
            Ok(count(Fault::ALL.iter().map(|f| (*f, of(*f))), total))
        }
    }
}

fn as_json_lines(found: &[QuarantineEntry]) -> anyhow::Result<String> {
    let mut out = String::new();
    for entry in found {
        let row = Row {
            partition: entry.partition.to_string(),
            offset: entry.record.offset.0,
            class: entry.record.fault.name(),
            length_bytes: entry.record.length,
            committed_ms: entry.at_ms,
        };
        out.push_str(&serde_json::to_string(&row)?);
        out.push('\n');
    }
    Ok(out)
}

fn list(found: &[QuarantineEntry], limit: u32) -> String {
    if found.is_empty() {
        return "Nothing is in quarantine.\n".to_owned();
    }
    let rows: Vec<Vec<String>> = found
        .iter()
        .map(|e| {
            let (record, partition) = (&e.record, e.partition.to_string());
            vec![timestamp(e.at_ms), partition, record.offset.to_string(), record.fault.name().to_owned(), grouped(record.length)]
        })
        .collect();
    let header = [
        ("committed (UTC)", Side::Left),
        ("partition", Side::Left),
        ("offset", Side::Right),
        ("class", Side::Left),
        ("bytes", Side::Right),
    ];
    let mut out = lay_out(&header, &rows);
    if u32::try_from(found.len()).is_ok_and(|n| n == limit) {
        out.push_str(&format!("The newest {limit}; there may be more: --limit, --since and --class choose others.\n"));
    }
    out
}

fn count(classes: impl Iterator<Item = (Fault, u64)>, total: u64) -> String {
    let mut rows: Vec<Vec<String>> = classes.map(|(class, n)| vec![class.name().to_owned(), grouped(n)]).collect();
    rows.push(vec!["all".to_owned(), grouped(total)]);
    lay_out(&[("class", Side::Left), ("events", Side::Right)], &rows)
}

/// `2h`, `7d`, `2026-01-05` or `2026-01-05T10:30:00Z` as a moment.
fn since_ms(since: &Since, now_ms: i64) -> anyhow::Result<Option<i64>> {
    let Some(text) = &since.since else { return Ok(None) };
    let moment = EpochId::parse_day(text)
        .map(EpochId::start_ms)
        .or_else(|| text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond))
        .or_else(|| {
            let span: jiff::Span = text.parse().ok()?;
            let length = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).ok()?;
            now_ms.checked_sub(i64::try_from(length.as_millis()).ok().filter(|ms| *ms >= 0)?)
        });
    moment
        .map(Some)
        .context("--since: say how long ago, such as 2h or 7d, or a moment, such as 2026-01-05 or 2026-01-05T10:30:00Z")
}

#[cfg(test)]
mod tests {
    use starling_schemas::ids::{Offset, PartitionId};
    use starling_store::QuarantineRecord;

    use super::*;

    const NOW_MS: i64 = 1_767_614_400_000;

    #[test]
    fn since_takes_an_age_a_day_and_a_moment() {
        let at = |text: &str| since_ms(&Since { since: Some(text.to_owned()) }, NOW_MS).ok().flatten();
        assert_eq!(at("2h"), Some(NOW_MS - 7_200_000));
        assert_eq!(at("7d"), Some(NOW_MS - 604_800_000));
        assert_eq!(at("2026-01-05"), Some(NOW_MS - 43_200_000));
        assert_eq!(at("2026-01-05T11:00:00Z"), Some(NOW_MS - 3_600_000));
        for wrong in ["yesterday", "-2h", "1month", "2026-13-01"] {
            assert_eq!(at(wrong), None, "{wrong}");
        }
        assert_eq!(since_ms(&Since { since: None }, NOW_MS).expect("no limit"), None);
    }

    #[test]
    fn the_lists_show_where_and_why() {
        let entry = |partition, offset, fault, length| QuarantineEntry {
            partition: PartitionId { source: "events".into(), partition },
            record: QuarantineRecord { offset: Offset(offset), fault, length },
            at_ms: NOW_MS,
        };
        let found = [entry(0, 1_234_567, Fault::Malformed, 88), entry(11, 3, Fault::TooLarge, 70_000)];
        let counts = Fault::ALL.iter().map(|f| (*f, u64::from(f.code()) * 1000));
        let text = format!("{}\n{}\n{}\n{}", list(&found, 2), list(&found, 50), list(&[], 50), count(counts, 28_000));
        crate::snapshots().bind(|| insta::assert_snapshot!("quarantine", text));
        assert_eq!(as_json_lines(&found).expect("JSON").lines().count(), 2);
    }
}
