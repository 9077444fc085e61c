//! Closing windows, releasing their statistics, and letting keys die: what happens when a day, or an hour, is over.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use starling_aggregate::{
    AggregateError, COMPACT_FROM, ClosePolicy, CloseReport, Closer, Decision, Look, Steadiness, decide, is_overdue,
};
use starling_query::{ReleaseReport, ReleaseStatus, delta};
use starling_schemas::ids::{EpochId, Purpose, Span, WindowId};
use starling_schemas::metrics::Metric;
use starling_store::{KeyId, KeyKind, StoreError, destroy_with_receipt};
use tokio::sync::watch;

use crate::home::Home;
use crate::metrics::{Beat, Loop, Work};
use crate::standing;

/// How long pair keys, and what covers the tokens made with them, live from the beginning of their day.
const PAIR_LIFE_MS: i64 = 72 * 3_600_000;

/// Sealed integrity state is readable this long after it was last written.
const STATE_LIFE_MS: i64 = 14 * 86_400_000;

/// A key whose file says that it was made further ahead of the clock than this was made under a wrong clock. One that is made while keys are looked at
/// is a moment ahead, and a file server's clock may be a little.
const AHEAD_MS: i64 = 600_000;

/// Which windows to close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Those the watermark has passed.
    Ready,
    /// All that are open: their source has come to its end.
    All,
}

/// What went wrong in one look: all of it is logged, and the first is handed on when everything else had its turn.
#[derive(Default)]
struct Failures(Option<anyhow::Error>);

impl Failures {
    /// What came of it, if it went well.
    fn take<T>(&mut self, what: &str, done: Result<T, impl Into<anyhow::Error>>) -> Option<T> {
        match done {
            Ok(done) => Some(done),
            Err(error) => {
                let error: anyhow::Error = error.into();
                tracing::error!(error = format!("{error:#}"), "{what} failed; what else is due goes on");
                self.0.get_or_insert(error.context(format!("{what} failed")));
                None
            }
        }
    }
}

/// Closes windows, oldest first; then lets rows and keys die whose time has run out.
///
/// A window that cannot close stops nothing else: the others close, and what is to die dies.
///
/// # Errors
/// The first of what went wrong, after all had its turn: when a merge fails or the books do not balance, say. The window stays open and is tried again.
pub async fn close(home: &Home, extent: Extent) -> anyhow::Result<Vec<CloseReport>> {
    let closer = home.closer();
    let (mut reports, mut failures) = (Vec::new(), Failures::default());
    failures.take("finishing what was closed before", closer.repair().await);
    // Hours first: each is over before its day is.
    for span in [Span::Hour, Span::Day] {
        let decided = decisions(home, span, extent).await;
        let mut all_wait = false;
        for Decision { epoch, complete, overdue } in failures.take("deciding what is to be closed", decided).unwrap_or_default() {
            // For what all wait for, one waits until its deadline.
            if all_wait && !overdue {
                continue;
            }
            let id = WindowId { span, epoch };
            let closed = close_window(&closer, id, complete, overdue).await;
            all_wait |= closed.as_ref().is_err_and(concerns_all);
            reports.extend(failures.take(&format!("closing {id}"), closed));
        }
    }
    failures.take("gathering segments", closer.gather().await);
    let over = closer.over().await;
    for window in failures.take("looking for weeks and months that are over", over).unwrap_or_default() {
        let overdue = is_overdue(&window, &policy(home, window.span), home.clock.now_ms());
        let closed = close_window(&closer, window.id(), true, overdue).await;
        reports.extend(failures.take(&format!("closing {}", window.id()), closed));
    }
    if !reports.is_empty() {
        failures.take("compacting what is billed", home.billing().compact(COMPACT_FROM).await);
    }
    // What has just been closed stays until the next look: a month may come to its end and to the end of its rows' time at once, and is released between.
    let spared = reports.iter().map(|report| report.window).collect();
    let expired = closer.expire(home.config.window.keep_days * 86_400_000, &spared).await;
    failures.take("ending person rows", expired);
    let retired = retire_keys(home, extent, &mut failures).await;
    failures.take("ending keys of integrity and pairs", retired);
    failures.take("erasing kept findings", standing::expire_kept(home).await);
    failures.take("erasing businesses that are silent", expire_businesses(home).await);
    failures.0.map_or(Ok(reports), Err)
}

/// Erases what businesses said of themselves and have not said anew for as long as it is believed. Gives of how many.
async fn expire_businesses(home: &Home) -> anyhow::Result<u64> {
    let (keep_days, now_ms) = (home.config.businesses.keep_days, home.clock.now_ms());
    Ok(home.metastore.erase_businesses(now_ms.saturating_sub(keep_days * 86_400_000), now_ms).await?)
}

/// Which days, or hours, are to be closed, and how; oldest first.
async fn decisions(home: &Home, span: Span, extent: Extent) -> anyhow::Result<Vec<Decision>> {
    let windows = home.metastore.living_windows(span).await?;
    let (policy, now_ms) = (policy(home, span), home.clock.now_ms());
    if extent == Extent::All {
        let open = windows.iter().filter(|w| !w.state.is_final());
        let all = open.map(|w| Decision { epoch: w.epoch, complete: true, overdue: is_overdue(w, &policy, now_ms) });
        return Ok(all.collect());
    }
    Ok(decide(&home.metastore.partitions().await?, &windows, &policy, now_ms))
}

/// When windows of this length close.
fn policy(home: &Home, span: Span) -> ClosePolicy {
    let window = &home.config.window;
    let policy = ClosePolicy {
        allowed_lateness_ms: window.allowed_lateness_s * 1000,
        idle_after_ms: window.idle_after_s * 1000,
        deadline_ms: window.deadline_s * 1000,
    };
    policy.of(span)
}

/// Closes a window: as complete if it is, and `complete` says that it may be; past its deadline with what there is.
async fn close_window(closer: &Closer, id: WindowId, complete: bool, overdue: bool) -> Result<CloseReport, AggregateError> {
    match closer.close(id, complete).await {
        Err(error) if complete && overdue && lacks_data(&error) => {
            tracing::error!(window = %id, "past its deadline the window closes with what there is: {error}");
            closer.close(id, false).await
        }
        closed => closed,
    }
}

/// Whether a close was refused for want of the window's own data: lost, damaged, of another version, not committed, or not what was counted. Where the
/// store is out of reach, nothing says that anything is missing.
fn lacks_data(error: &AggregateError) -> bool {
    matches!(
        error,
        AggregateError::WaitingForPlans { .. }
            | AggregateError::Unbalanced { .. }
            | AggregateError::CountsDiffer { .. }
            | AggregateError::OtherVersion { .. }
            | AggregateError::Store(StoreError::FileMissing { .. } | StoreError::TableUnreadable { .. })
    )
}

/// Whether newer windows of the same length would fail at the same, after as long a wait.
fn concerns_all(error: &AggregateError) -> bool {
    match error {
        // Ranges that were planned before a window's close were planned before that of each newer one.
        AggregateError::WaitingForPlans { .. } | AggregateError::SpillInUse { .. } => true,
        AggregateError::Store(error) => error.is_outage() || matches!(error, StoreError::Database { .. }),
        _ => false,
    }
}

/// Releases every closed window that has something unreleased.
///
/// # Errors
/// When the ledger or the store fails. A refused metric is no error: its report says what is left.
pub async fn release(home: &Home) -> anyhow::Result<Vec<ReleaseReport>> {
    let releaser = home.releaser();
    let done = home.metastore.releases().await?;
    let mut reports = Vec::new();
    for span in Span::ALL {
        for window in home.metastore.living_windows(span).await? {
            let closed = window.state.is_final();
            let is_released = |m: &Metric| done.iter().any(|r| r.metric == m.name && r.epoch == window.epoch);
            if closed && home.catalogue.metrics_of(span).any(|m| !is_released(m)) {
                reports.extend(releaser.release_window(window.id()).await?);
            }
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
                "the wall clock jumped: no window is closed for ten minutes. If it is wrong now, put it right before that: afterwards days \
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

/// Destroys keys of integrity and of pairs that are due. A key that cannot be destroyed stops no other; without the metastore, which takes the receipts,
/// none is.
async fn retire_keys(home: &Home, extent: Extent, failures: &mut Failures) -> anyhow::Result<()> {
    let partitions = home.metastore.partitions().await?;
    let reached = Reached {
        passed_ms: partitions.iter().map(|p| p.watermark_ms.unwrap_or(i64::MIN)).min().unwrap_or(i64::MIN),
        now_ms: home.clock.now_ms(),
        is_over: extent == Extent::All,
    };
    let life_ms = home.config.signals.key_life_h * 3_600_000;
    for id in home.keyring.alive()? {
        let Some(made_ms) = failures.take(&format!("looking at the key {id}"), home.keyring.created_ms(id)) else { continue };
        let Some(reason) = reached.due(id, made_ms, life_ms) else { continue };
        match destroy_with_receipt(&home.keyring, &home.metastore, id, reason, reached.now_ms).await {
            Err(error @ StoreError::Keyring { .. }) => {
                failures.take(&format!("destroying the key {id}"), Err::<(), _>(error));
            }
            done => done?,
        }
    }
    Ok(())
}

/// How far time is.
#[derive(Debug, Clone, Copy)]
struct Reached {
    /// Every partition has passed this in event time.
    passed_ms: i64,
    /// Wall clock.
    now_ms: i64,
    /// Whether the source has ended.
    is_over: bool,
}

impl Reached {
    /// Why a key is due, if it is. `made_ms`: when it was made, if that is known; `life_ms`: of an integrity pseudonym key.
    ///
    /// A day's integrity pseudonym key dies `signals.key_life_h` after the day, its pair key 72 hours after the day began: by event time once every
    /// partition has passed that point, and by the wall clock counted from the later of that and the key's making, whatever is still to be read:
    /// privacy wins over completeness. A key that was made in the future was made under a wrong clock, and counts from its day. A source that has ended has
    /// passed whatever the wall clock has: the keys of a recording whose days are older than their keys' lives die with its end, whenever they were made;
    /// those of younger days live until their time has come, and die at the first look after that. What covers tokens goes by the wall clock alone, as it
    /// is made for the day on which they are written.
    fn due(&self, id: KeyId, made_ms: Option<i64>, life_ms: i64) -> Option<&'static str> {
        let (start, end) = (id.epoch.start_ms(), id.epoch.end_ms());
        let made_ms = made_ms.filter(|made| *made <= self.now_ms.saturating_add(AHEAD_MS));
        let over = |from: i64, life: i64| {
            let by_clock = self.now_ms >= from.max(made_ms.unwrap_or(from)).saturating_add(life);
            by_clock || self.passed_ms.max(if self.is_over { self.now_ms } else { i64::MIN }) >= from.saturating_add(life)
        };
        match (id.purpose, id.kind) {
            (Purpose::Integrity, KeyKind::Pseudonym) => over(end, life_ms).then_some("the life of the integrity key is over"),
            (Purpose::Integrity, KeyKind::Data) => {
                (self.now_ms >= end.saturating_add(STATE_LIFE_MS)).then_some("integrity state has expired")
            }
            (Purpose::Pair, KeyKind::Pseudonym) => over(start, PAIR_LIFE_MS).then_some("the life of the pair key is over"),
            (Purpose::Pair, KeyKind::Data) => {
                (self.now_ms >= start.saturating_add(PAIR_LIFE_MS)).then_some("the life of covered pair tokens is over")
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: EpochId = EpochId(20_458);
    const HOUR_MS: i64 = 3_600_000;

    fn due(purpose: Purpose, kind: KeyKind, made_h: i64, reached: Reached) -> bool {
        let id = KeyId { kind, purpose, epoch: DAY };
        reached.due(id, Some(DAY.start_ms() + made_h * HOUR_MS), 72 * HOUR_MS).is_some()
    }

    /// Hours after the day began, on the clock and in events.
    fn at(now_h: i64, passed_h: i64) -> Reached {
        Reached { now_ms: DAY.start_ms() + now_h * HOUR_MS, passed_ms: DAY.start_ms() + passed_h * HOUR_MS, is_over: false }
    }

    #[test]
    fn i7_pair_keys_die_72_hours_after_their_day_began_and_integrity_keys_after_it_ended() {
        use KeyKind::{Data, Pseudonym};
        use Purpose::{Integrity, Pair};
        for (purpose, first) in [(Pair, 72), (Integrity, 96)] {
            assert!(!due(purpose, Pseudonym, 0, at(first - 1, 0)) && due(purpose, Pseudonym, 0, at(first, 0)), "by the clock");
            assert!(!due(purpose, Pseudonym, 1_000, at(1_000, first - 1)), "read late: it lives as long from then on");
            assert!(due(purpose, Pseudonym, 1_000, at(1_000, first)), "unless every partition has passed it");
            assert!(due(purpose, Pseudonym, 1_000, at(1_000 + 72, 0)), "{purpose}: and no longer");
            assert!(due(purpose, Pseudonym, 1_000, Reached { is_over: true, ..at(1_000, 0) }), "a source that has ended");
        }
        assert!(!due(Pair, Data, 0, at(71, 1_000)) && due(Pair, Data, 0, at(72, 0)));
        assert!(!due(Integrity, Data, 0, at(359, 1_000)) && due(Integrity, Data, 0, at(360, 0)));
        assert!(!due(Purpose::AnalyticsDay, Pseudonym, 0, at(9_999, 9_999)), "others die with their windows");
        // A source that has ended takes no key along whose time has not come.
        assert!(!due(Pair, Pseudonym, 71, Reached { is_over: true, ..at(71, 0) }));
        assert!(due(Pair, Pseudonym, 71, Reached { is_over: true, ..at(72, 0) }));
    }

    #[test]
    fn i7_a_key_made_while_the_clock_was_ahead_lives_no_longer_for_that() {
        use KeyKind::Pseudonym;
        for (purpose, first) in [(Purpose::Pair, 72), (Purpose::Integrity, 96)] {
            assert!(!due(purpose, Pseudonym, 720, at(first - 1, 0)));
            assert!(due(purpose, Pseudonym, 720, at(first, 0)), "made thirty days ahead: it counts from its day");
            let id = KeyId { kind: Pseudonym, purpose, epoch: DAY };
            let now = at(1_000, 0);
            let made = |ahead_ms| now.due(id, Some(now.now_ms + ahead_ms), 72 * HOUR_MS).is_some();
            assert!(!made(0) && !made(AHEAD_MS), "made while keys were looked at: not destroyed under its maker's hands");
            assert!(made(AHEAD_MS + 1));
        }
    }

    #[test]
    fn at_the_deadline_a_window_does_without_what_is_missing_and_not_without_a_store_that_is_away() {
        let (window, path) = (DAY.into(), || "segments/x".to_owned());
        let missing = [
            AggregateError::WaitingForPlans { window, plans: 1 },
            AggregateError::Unbalanced { window, partitions: 1 },
            AggregateError::CountsDiffer { window, what: "events", counted: 2, in_rows: 1 },
            AggregateError::OtherVersion { path: path(), column: "version" },
            AggregateError::Store(StoreError::FileMissing { path: path() }),
            AggregateError::Store(StoreError::TableUnreadable { path: path() }),
        ];
        assert!(missing.iter().all(lacks_data));
        assert_eq!(missing.iter().filter(|error| concerns_all(error)).count(), 1, "those that wait for ranges, newer ones too");
        let database = StoreError::Database { during: "reading windows", kind: "the database refused", code: None };
        let file = StoreError::File { during: "writing", path: path(), kind: std::io::ErrorKind::StorageFull };
        let away = [AggregateError::Store(database), AggregateError::Store(file), AggregateError::Expired { window }];
        assert!(!away.iter().any(lacks_data));
    }

    #[test]
    fn what_fails_first_is_told_and_what_goes_well_after_it_is_done() {
        let mut failures = Failures::default();
        assert_eq!(failures.take("closing a", Ok::<_, anyhow::Error>(1)), Some(1));
        assert_eq!(failures.take("closing b", Err::<i32, _>(anyhow::anyhow!("lost"))), None);
        assert_eq!(failures.take("closing c", Err::<i32, _>(anyhow::anyhow!("lost, too"))), None);
        assert_eq!(failures.take("closing d", Ok::<_, anyhow::Error>(4)), Some(4));
        assert_eq!(format!("{:#}", failures.0.expect("one")), "closing b failed: lost");
    }
}
