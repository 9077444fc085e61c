//! Whether this process may be given work: what `/readyz` is about. Each thing it needs is tried, not asked about, and what does not answer in
//! time counts as missing (I8). Texts name places and kinds of failure, no secret and nothing from the data.

use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::door::Duties;
use crate::home::Home;

/// How long one thing may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How old the brokers' last answer may be. They are asked every second.
const BROKERS_FRESH: Duration = Duration::from_secs(30);
const NEVER: i64 = -1;

/// What this process knows of its consumer group.
pub(super) struct Group {
    since: Instant,
    joined: AtomicBool,
    partitions: AtomicUsize,
    answered_ms: AtomicI64,
}

impl Default for Group {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            joined: AtomicBool::new(false),
            partitions: AtomicUsize::new(0),
            answered_ms: AtomicI64::new(NEVER),
        }
    }
}

impl Group {
    pub(super) fn rebalanced(&self, partitions: usize, assigned: bool) {
        self.partitions.store(partitions, Ordering::Release);
        self.joined.store(assigned || partitions > 0, Ordering::Release);
        self.answered();
    }

    pub(super) fn answered(&self) {
        let now_ms = i64::try_from(self.since.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.answered_ms.store(now_ms, Ordering::Release);
    }

    fn silent_for(&self) -> Option<Duration> {
        let answered_ms = self.answered_ms.load(Ordering::Acquire);
        let answered = Duration::from_millis(u64::try_from(answered_ms).ok()?);
        Some(self.since.elapsed().saturating_sub(answered))
    }
}

/// The brokers: heard of, and lately if there is something to ask them about. A member without partitions asks nothing.
fn brokers(silent_for: Option<Duration>, partitions: usize) -> Result<(), String> {
    match silent_for {
        None => Err("the brokers have not answered yet; are kafka.brokers and their access right?".to_owned()),
        Some(silent) if partitions > 0 && silent > BROKERS_FRESH => {
            Err(format!("the brokers have not answered for {} s", silent.as_secs()))
        }
        Some(_) => Ok(()),
    }
}

/// One thing that is needed.
#[derive(Debug, Serialize)]
pub(super) struct Check {
    name: &'static str,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl Check {
    fn of(name: &'static str, result: Result<(), String>) -> Self {
        Self { name, ok: result.is_ok(), reason: result.err() }
    }
}

/// The answer.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) ready: bool,
    pub(super) checks: Vec<Check>,
}

/// Tries everything.
pub(super) async fn report(home: &Home, duties: Duties, stopping: bool) -> Report {
    let mut checks = vec![Check::of("running", if stopping { Err("the process is stopping".to_owned()) } else { Ok(()) })];
    checks.push(Check::of("metastore", in_time(PATIENCE, home.metastore.ping()).await));
    checks.push(Check::of("files", in_time(PATIENCE, try_files(home)).await));
    checks.push(Check::of("keyring", in_time(PATIENCE, try_keyring(home)).await));
    if duties.ingest {
        let group = &home.metrics.group;
        let partitions = group.partitions.load(Ordering::Acquire);
        checks.push(Check::of("brokers", brokers(group.silent_for(), partitions)));
        let joined = group.joined.load(Ordering::Acquire);
        let missing = || "the consumer group has not dealt out partitions to this process yet".to_owned();
        checks.push(Check::of("group", joined.then_some(()).ok_or_else(missing)));
    }
    Report { ready: checks.iter().all(|c| c.ok), checks }
}

/// Writes and removes an empty file, as a segment would be.
async fn try_files(home: &Home) -> Result<(), starling_store::StoreError> {
    let path = format!("probe/{}", std::process::id());
    home.files.put(&path, Default::default()).await?;
    home.files.delete(&path).await
}

async fn try_keyring(home: &Home) -> Result<(), String> {
    let keyring = Arc::clone(&home.keyring);
    let tried = tokio::task::spawn_blocking(move || keyring.check_writable()).await;
    tried.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
}

async fn in_time<E: Display>(patience: Duration, work: impl Future<Output = Result<(), E>>) -> Result<(), String> {
    match tokio::time::timeout(patience, work).await {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(_) => Err(format!("no answer within {} s", patience.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_that_fall_silent_are_missing_only_where_there_is_something_to_ask() {
        let seconds = Duration::from_secs;
        assert!(brokers(None, 0).is_err(), "never heard of");
        assert!(brokers(Some(seconds(29)), 4).is_ok());
        assert!(brokers(Some(seconds(31)), 4).is_err());
        assert!(brokers(Some(seconds(3600)), 0).is_ok(), "a standby member");
    }

    #[test]
    fn a_member_without_partitions_is_in_the_group_and_one_that_lost_them_is_not() {
        let group = Group::default();
        assert!(!group.joined.load(Ordering::Acquire) && group.silent_for().is_none());
        group.rebalanced(0, true);
        assert!(group.joined.load(Ordering::Acquire) && group.silent_for().is_some());
        group.rebalanced(0, false);
        assert!(!group.joined.load(Ordering::Acquire));
    }

    #[tokio::test]
    async fn what_does_not_answer_in_time_is_missing() {
        let never = std::future::pending::<Result<(), String>>();
        assert!(in_time(Duration::from_millis(1), never).await.is_err());
    }
}
