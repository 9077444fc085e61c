//! `starling alerts deliveries` and `resend`: what waits, what was given up, and giving it another try.

use anyhow::ensure;

use crate::columns::{Side, lay_out};
use crate::home::Home;
use crate::status::timestamp;

/// Most deliveries listed.
const MOST: u32 = 1_000;

/// What waits to be delivered, or was given up. Bodies are not shown: the feed shows alerts.
///
/// # Errors
/// When the metastore cannot be read.
pub async fn list(home: &Home, dead: bool, json: bool) -> anyhow::Result<String> {
    let found = home.metastore.deliveries(dead, MOST).await?;
    if json {
        let line = |d: &starling_store::DeliveryRecord| {
            serde_json::json!({
                "id": d.id, "receiver": d.receiver, "dead": d.dead, "tries": d.attempts, "queued_ms": d.made_ms,
                "next_ms": (!d.dead).then_some(d.next_ms), "fault": d.fault,
            })
        };
        return Ok(found.iter().map(|d| format!("{}\n", line(d))).collect());
    }
    if found.is_empty() {
        return Ok(if dead { "No delivery was given up.\n" } else { "No delivery waits.\n" }.to_owned());
    }
    let rows: Vec<_> = found
        .iter()
        .map(|d| {
            vec![
                d.id.clone(),
                d.receiver.clone(),
                timestamp(d.made_ms),
                d.attempts.to_string(),
                if d.dead { "never".to_owned() } else { timestamp(d.next_ms) },
                d.fault.clone().unwrap_or_default(),
            ]
        })
        .collect();
    let header = [
        ("delivery", Side::Left),
        ("receiver", Side::Left),
        ("queued (UTC)", Side::Left),
        ("tries", Side::Right),
        ("next try (UTC)", Side::Left),
        ("why it failed", Side::Left),
    ];
    let mut text = lay_out(&header, &rows);
    if rows.len() as u64 == u64::from(MOST) {
        text.push_str(&format!("These are the {MOST} that were queued first.\n"));
    }
    Ok(text)
}

/// Gives what was given up another try: one delivery, or all; to one receiver, or to all.
///
/// # Errors
/// When there is none such, or log or metastore cannot be written.
pub async fn resend(home: &Home, id: Option<&str>, receiver: Option<&str>, by: &str) -> anyhow::Result<String> {
    starling_integrity::work::check_name("who sends it again", by)?;
    // As the settings call it, or as the list shows it.
    let receiver = receiver.map(|name| format!("webhook/{}", name.strip_prefix("webhook/").unwrap_or(name)));
    let count = home.metastore.resend_deliveries(id, receiver.as_deref(), by, home.clock.now_ms()).await?;
    ensure!(count > 0, "nothing such was given up: see `starling alerts deliveries --dead`");
    Ok(format!(
        "{count} {} sent again by the job that sends alerts.\n",
        if count == 1 { "delivery is" } else { "deliveries are" }
    ))
}
