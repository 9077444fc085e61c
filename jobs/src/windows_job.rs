//! Closing windows, releasing their statistics, and letting keys die: what happens when a day is over.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use starling_aggregate::{COMPACT_FROM, ClosePolicy, CloseReport, Look, Steadiness, decide};
use starling_query::{ReleaseReport, ReleaseStatus, delta};
use starling_schemas::ids::{EpochId, Purpose};
use starling_store::{KeyId, KeyKind, KeyState, WindowState, destroy_with_receipt};
use tokio::sync::watch;

use crate::home::Home;
use crate::metrics::{Beat, Loop, Work};

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
    if !reports.is_empty() {
        home.billing().compact(COMPACT_FROM).await?;
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

/// Names what was released in each metric's Delta log, where the settings want one. Gives how many releases were added.
///
/// # Errors
/// When a log was changed by others, or the store fails. Releases are in place whatever happens here.
pub async fn publish_delta(home: &Home) -> anyhow::Result<usize> {
    if !home.config.releases.delta {
        return Ok(0);
    }
    Ok(delta::publish(&home.files, &home.metastore.releases().await?).await?)
}

/// Closes and releases until `stop` says so.
///
/// # Errors
/// None that waiting would heal: failures are logged and tried again.
pub async fn watch(home: Home, mut stop: watch::Receiver<bool>) -> anyhow::Result<()> {
    // Logs are looked at when something was released, and once at the start for what a crash left out.
    let mut delta_is_behind = true;
    // A spent budget stays spent: a refusal is told once, not at every look.
    let mut refused: BTreeSet<(String, EpochId)> = BTreeSet::new();
    let beat = Beat::start(&home.metrics, Loop::Windows);
    let (began, mut steadiness) = (Instant::now(), Steadiness::default());
    while !*stop.borrow() {
        beat.turned();
        let monotonic_ms = i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX);
        match steadiness.look(home.clock.now_ms(), monotonic_ms) {
            Look::Steady => match close(&home, Extent::Ready).await {
                // `aggregate` has told the close itself.
                Ok(_) => {}
                Err(error) => {
                    home.metrics.failed(Work::Close);
                    tracing::error!(error = format!("{error:#}"), "closing windows failed; it is tried again");
                }
            },
            Look::Jumped { by_ms } => tracing::error!(
                by_s = by_ms / 1000,
                "the wall clock jumped: no day is closed for ten minutes. If it is wrong now, put it right before that: afterwards days \
                 whose deadline it has passed close as incomplete, and their keys are destroyed"
            ),
            Look::Holding { .. } => {}
        }
        match release(&home).await {
            Ok(reports) => {
                delta_is_behind |= reports.iter().any(|report| report.status == ReleaseStatus::Released);
                for report in reports {
                    let is_refusal = matches!(report.status, ReleaseStatus::Refused { .. });
                    if !is_refusal || refused.insert((report.record.metric.clone(), report.record.epoch)) {
                        told_released(&report);
                    }
                }
            }
            Err(error) => {
                home.metrics.failed(Work::Release);
                tracing::error!(error = format!("{error:#}"), "releasing statistics failed; it is tried again");
            }
        }
        if delta_is_behind {
            match publish_delta(&home).await {
                Ok(added) => {
                    delta_is_behind = false;
                    if added > 0 {
                        tracing::info!(added, "releases named in their Delta logs");
                    }
                }
                Err(error) => {
                    home.metrics.failed(Work::Release);
                    tracing::error!(error = format!("{error:#}"), "a Delta log could not be written; it is tried again");
                }
            }
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
