//! Closing windows, releasing their statistics, and letting keys die: what happens when a day is over.

use std::collections::BTreeSet;
use std::time::Duration;

use starling_aggregate::{ClosePolicy, CloseReport, decide};
use starling_privacy::{ReleaseReport, ReleaseStatus};
use starling_schemas::ids::{EpochId, Purpose};
use starling_store::{KeyId, KeyKind, KeyState, WindowState, destroy_with_receipt};
use tokio::sync::watch;

use crate::home::Home;

/// Sealed integrity state is readable this long after it was last written.
const STATE_LIFE_MS: i64 = 14 * 86_400_000;

/// Which windows to close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Those the watermark has passed.
    Ready,
    /// All that are open: their source has come to its end.
    All,
}

/// Closes windows, oldest first.
///
/// # Errors
/// When the merge fails or the books do not balance; the window stays open and is tried again.
pub async fn close(home: &Home, extent: Extent) -> anyhow::Result<Vec<CloseReport>> {
    let closer = home.closer();
    closer.repair().await?;
    let windows = home.metastore.windows().await?;
    let decisions: Vec<(EpochId, bool)> = match extent {
        Extent::All => windows
            .iter()
            .filter(|w| matches!(w.state, WindowState::Open | WindowState::Closing))
            .map(|w| (w.epoch, true))
            .collect(),
        Extent::Ready => {
            let policy = ClosePolicy {
                allowed_lateness_ms: home.config.window.allowed_lateness_s * 1000,
                idle_after_ms: home.config.window.idle_after_s * 1000,
                deadline_ms: home.config.window.deadline_s * 1000,
            };
            let partitions = home.metastore.partitions().await?;
            decide(&partitions, &windows, &policy, home.clock.now_ms()).into_iter().map(|d| (d.epoch, d.complete)).collect()
        }
    };
    let mut reports = Vec::new();
    for (epoch, complete) in decisions {
        reports.push(closer.close(epoch, complete).await?);
    }
    closer.expire(home.config.window.keep_days * 86_400_000).await?;
    retire_integrity_keys(home, extent).await?;
    Ok(reports)
}

/// Releases every closed window that has something unreleased.
///
/// # Errors
/// When the ledger or the store fails. A refused metric is no error: its report says what is left.
pub async fn release(home: &Home) -> anyhow::Result<Vec<ReleaseReport>> {
    let releaser = home.releaser();
    let done = home.metastore.releases().await?;
    let mut reports = Vec::new();
    for window in home.metastore.windows().await? {
        let closed = matches!(window.state, WindowState::Closed | WindowState::Incomplete) && window.expired_at_ms.is_none();
        let missing = home.catalogue.metrics.iter().any(|m| !done.iter().any(|r| r.metric == m.name && r.epoch == window.epoch));
        if closed && missing {
            reports.extend(releaser.release_window(window.epoch).await?);
        }
    }
    Ok(reports)
}

/// Closes and releases until `stop` says so.
///
/// # Errors
/// None that waiting would heal: failures are logged and tried again.
pub async fn watch(home: Home, mut stop: watch::Receiver<bool>) -> anyhow::Result<()> {
    // A spent budget stays spent: a refusal is told once, not at every look.
    let mut refused: BTreeSet<(String, EpochId)> = BTreeSet::new();
    while !*stop.borrow() {
        match close(&home, Extent::Ready).await {
            // `aggregate` has told the close itself.
            Ok(_) => {}
            Err(error) => tracing::error!(error = format!("{error:#}"), "closing windows failed; it is tried again"),
        }
        match release(&home).await {
            Ok(reports) => {
                for report in reports {
                    let is_refusal = matches!(report.status, ReleaseStatus::Refused { .. });
                    if !is_refusal || refused.insert((report.record.metric.clone(), report.record.epoch)) {
                        told_released(&report);
                    }
                }
            }
            Err(error) => tracing::error!(error = format!("{error:#}"), "releasing statistics failed; it is tried again"),
        }
        tokio::select! {
            _ = stop.changed() => {}
            () = tokio::time::sleep(Duration::from_millis(home.config.window.check_every_ms)) => {}
        }
    }
    Ok(())
}

fn told_released(report: &ReleaseReport) {
    match report.status {
        ReleaseStatus::Refused { left } => {
            tracing::warn!(metric = report.record.metric, day = %report.record.epoch, left_rho = left.rho(), "release refused: the budget is spent");
        }
        // `privacy` has told the release itself.
        ReleaseStatus::Released | ReleaseStatus::AlreadyReleased => {}
    }
}

/// Destroys integrity keys that are due.
///
/// A day's pseudonym key dies `signals.key_life_h` after the day, by event time once every partition has passed that point, and by the
/// wall clock counted from the later of the day's end and the key's making, whatever is still to be read: privacy wins over completeness.
/// A source that has ended takes its days' keys with it.
async fn retire_integrity_keys(home: &Home, extent: Extent) -> anyhow::Result<()> {
    let now = home.clock.now_ms();
    let life_ms = home.config.signals.key_life_h * 3_600_000;
    let passed = home.metastore.partitions().await?.iter().map(|p| p.watermark_ms.unwrap_or(i64::MIN)).min().unwrap_or(i64::MIN);
    for (id, state) in home.keyring.list()? {
        if state != KeyState::Alive || id.purpose != Purpose::Integrity {
            continue;
        }
        let end = id.epoch.end_ms();
        let made = home.keyring.created_ms(id)?.unwrap_or(end);
        let due = match id.kind {
            KeyKind::Pseudonym => {
                passed >= end.saturating_add(life_ms)
                    || now >= end.max(made).saturating_add(life_ms)
                    || (extent == Extent::All && now >= end.saturating_add(life_ms))
            }
            KeyKind::Data => now >= end.saturating_add(STATE_LIFE_MS),
        };
        if due {
            let reason = if id.kind == KeyKind::Pseudonym {
                "the life of the integrity key is over"
            } else {
                "integrity state has expired"
            };
            destroy_with_receipt(&home.keyring, &home.metastore, KeyId { ..id }, reason, now).await?;
        }
    }
    Ok(())
}
