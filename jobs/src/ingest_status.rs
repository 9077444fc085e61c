//! `starling ingest status`: each partition's owner, generation, offsets, lag, watermark and open plan, from the metastore alone, so that it
//! also answers when no ingest job does.

use serde::Serialize;

use crate::columns::{Side, duration, lay_out};
use crate::home::Home;
use crate::partitions::{View, age_ms, views};
use crate::status::timestamp;
use crate::summary::grouped;

/// An owner that was not heard of for this long is told as silent. One that lives notes its position every second.
const SILENT_AFTER_MS: i64 = 30_000;

/// A partition as `--json` tells it.
#[derive(Debug, Serialize)]
struct Row {
    partition: String,
    owner: String,
    generation: i64,
    next_offset: Option<i64>,
    end_offset: Option<i64>,
    lag_events: Option<i64>,
    committed_events: u64,
    watermark_ms: Option<i64>,
    watermark_delay_ms: Option<i64>,
    open_plan: Option<Plan>,
    last_commit_age_ms: Option<i64>,
    owner_age_ms: i64,
}

#[derive(Debug, Serialize)]
struct Plan {
    from: i64,
    to: i64,
    age_ms: i64,
}

/// Tells where every partition stands, for people or as one JSON object.
///
/// # Errors
/// When the metastore cannot be read.
pub async fn tell(home: &Home, json: bool) -> anyhow::Result<String> {
    let (views, now_ms) = (views(&home.metastore).await?, home.clock.now_ms());
    Ok(if json { as_json(&views, now_ms)? } else { text(&views, now_ms) })
}

fn as_json(views: &[View], now_ms: i64) -> anyhow::Result<String> {
    let age = |then: i64| age_ms(now_ms, then);
    let rows: Vec<Row> = views
        .iter()
        .map(|v| Row {
            partition: v.partition.to_string(),
            owner: v.owner.clone(),
            generation: v.generation,
            next_offset: v.next_offset,
            end_offset: v.end_offset,
            lag_events: v.lag,
            committed_events: v.events,
            watermark_ms: v.watermark_ms,
            watermark_delay_ms: v.watermark_ms.map(age),
            open_plan: v.plan.map(|p| Plan { from: p.from, to: p.to, age_ms: age(p.planned_at_ms) }),
            last_commit_age_ms: v.last_commit_ms.map(age),
            owner_age_ms: age(v.seen_ms),
        })
        .collect();
    Ok(format!("{}\n", serde_json::json!({ "now_ms": now_ms, "partitions": rows })))
}

fn text(views: &[View], now_ms: i64) -> String {
    if views.is_empty() {
        return "No partition was ever taken: start `starling ingest` or `starling run`.\n".to_owned();
    }
    let number = |n: Option<i64>| n.and_then(|n| u64::try_from(n).ok()).map_or("-".to_owned(), grouped);
    let ago = |then: Option<i64>| then.map_or("-".to_owned(), |then| format!("{} ago", duration(age_ms(now_ms, then))));
    let rows: Vec<Vec<String>> = views
        .iter()
        .map(|v| {
            let silent = age_ms(now_ms, v.seen_ms);
            vec![
                v.partition.to_string(),
                if silent > SILENT_AFTER_MS { format!("{}, silent", v.owner) } else { v.owner.clone() },
                v.generation.to_string(),
                number(v.next_offset),
                number(v.end_offset),
                number(v.lag),
                v.watermark_ms.map_or("-".to_owned(), timestamp),
                v.watermark_ms.map_or("-".to_owned(), |w| duration(age_ms(now_ms, w))),
                v.plan.map_or("-".to_owned(), |p| {
                    format!("{} events for {}", number(Some(p.to - p.from)), duration(age_ms(now_ms, p.planned_at_ms)))
                }),
                ago(v.last_commit_ms),
                ago(Some(v.seen_ms)),
            ]
        })
        .collect();
    let (left, right) = (Side::Left, Side::Right);
    let header = [
        ("partition", left),
        ("owner", left),
        ("generation", right),
        ("next offset", right),
        ("end", right),
        ("lag", right),
        ("watermark (UTC)", left),
        ("delay", right),
        ("open plan", left),
        ("last commit", right),
        ("owner seen", right),
    ];
    let lag: i64 = views.iter().filter_map(|v| v.lag).sum();
    let silent = views.iter().filter(|v| age_ms(now_ms, v.seen_ms) > SILENT_AFTER_MS).count();
    let mut out = lay_out(&header, &rows);
    out.push_str(&format!("{} partitions, {} events behind", views.len(), number(Some(lag))));
    if silent > 0 {
        out.push_str(&format!("; {silent} whose owner is silent: does an ingest job run?"));
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use starling_schemas::ids::PartitionId;

    use super::*;
    use crate::partitions::OpenPlan;

    const NOW_MS: i64 = 1_767_614_400_000;

    fn views() -> Vec<View> {
        let busy = View {
            partition: PartitionId { source: "events".into(), partition: 0 },
            owner: "starling/4711".into(),
            generation: 3,
            next_offset: Some(1_234_567),
            end_offset: Some(1_300_000),
            lag: Some(65_433),
            watermark_ms: Some(NOW_MS - 3_725_000),
            plan: Some(OpenPlan { from: 1_234_567, to: 1_244_567, planned_at_ms: NOW_MS - 2_400 }),
            last_commit_ms: Some(NOW_MS - 2_500),
            seen_ms: NOW_MS - 400,
            events: 1_234_567,
        };
        let fresh = View {
            partition: PartitionId { source: "events".into(), partition: 1 },
            owner: "starling/4712".into(),
            generation: 1,
            next_offset: None,
            end_offset: Some(7),
            lag: None,
            watermark_ms: None,
            plan: None,
            last_commit_ms: None,
            seen_ms: NOW_MS - 95_000,
            events: 0,
        };
        vec![busy, fresh]
    }

    #[test]
    fn the_table_says_who_has_what_and_how_far_it_is() {
        crate::snapshots().bind(|| {
            insta::assert_snapshot!("ingest_status", format!("{}\n{}", text(&views(), NOW_MS), text(&[], NOW_MS)));
        });
    }

    #[test]
    fn the_json_has_units_in_its_names() {
        let value: serde_json::Value = serde_json::from_str(&as_json(&views(), NOW_MS).expect("JSON")).expect("JSON");
        assert_eq!(value["partitions"][0]["watermark_delay_ms"], 3_725_000);
        assert_eq!(value["partitions"][0]["open_plan"]["age_ms"], 2_400);
        assert_eq!(value["partitions"][1]["lag_events"], serde_json::Value::Null);
    }
}
