//! What a runner commits: told or kept, over parts, crashes and changes of standing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use starling_schemas::time::{Clock, Entropy, NoEntropy};
use starling_store::{AlertRecord, Files, Keyring, Metastore};

use super::*;
use crate::{Runner, RunnerParts, Stage, Standing};

struct Noon;

impl Clock for Noon {
    fn now_ms(&self) -> i64 {
        NOON
    }
}

/// Different bytes at each call.
struct Counting(AtomicU64);

impl Entropy for Counting {
    fn fill(&self, out: &mut [u8]) -> Result<(), NoEntropy> {
        let n = self.0.fetch_add(1, Ordering::Relaxed);
        blake3::Hasher::new().update(&n.to_le_bytes()).finalize_xof().fill(out);
        Ok(())
    }
}

struct Place {
    dir: tempfile::TempDir,
    parts: RunnerParts,
}

impl Place {
    async fn new() -> Self {
        let dir = tempfile::tempdir().expect("dir");
        let entropy = Arc::new(Counting(AtomicU64::new(0)));
        let url = format!("sqlite:{}", dir.path().join("metastore.db").display());
        let parts = RunnerParts {
            metastore: Arc::new(Metastore::open(&url).await.expect("opens")),
            files: Arc::new(Files::open_local(&dir.path().join("files")).expect("opens")),
            keyring: Arc::new(Keyring::open(&dir.path().join("keys"), entropy.clone()).expect("opens")),
            clock: Arc::new(Noon),
            entropy,
        };
        Self { dir, parts }
    }

    async fn runner(&self, part: &str, rules: Rules) -> Runner {
        Runner::open(part, "test", self.parts.clone(), rules).await.expect("opens")
    }

    async fn told(&self) -> BTreeMap<String, String> {
        self.parts.metastore.alerts_after(0, 999).await.expect("reads").iter().map(found).collect()
    }

    async fn kept(&self) -> BTreeMap<String, (String, String)> {
        let kept = self.parts.metastore.kept_after(0, None, 999).await.expect("reads");
        kept.into_iter().map(|k| (k.alert.fingerprint.clone(), (k.kept_for, found(&k.alert).1))).collect()
    }
}

/// Fingerprint and body, without how often it was found.
fn found(record: &AlertRecord) -> (String, String) {
    let alert: Alert = serde_json::from_str(&record.body).expect("an alert");
    (record.fingerprint.clone(), serde_json::to_string(&Alert { revision: 0, ..alert }).expect("JSON"))
}

/// Ten messages within a minute are bulk, and told of as `standing` says.
fn rules(standing: Standing) -> Rules {
    let mut rules = Rules::builtin().expect("rules");
    rules.bulk_per_minute.messages = 10;
    rules.standing.insert("bulk_per_minute".to_owned(), standing);
    rules
}

fn standing(stage: Stage, daily_alerts: u32) -> Standing {
    let share = (stage == Stage::Canary).then_some(0.5);
    let expires = share.and_then(|_| "2026-02-01".parse().ok());
    Standing { stage, share, expires, daily_alerts, false_discovery: 0.05, demoted_by_verdicts: true }
}

/// `people` who write `n` messages each.
fn bulk(people: std::ops::Range<u8>, n: i64, from: i64) -> Vec<Row> {
    people.flat_map(|person| (0..n).map(move |i| message(person, from + i * 100))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i9_what_is_told_and_what_is_kept_is_the_same_whatever_the_order_and_whoever_crashed() {
    let canary = || rules(standing(Stage::Canary, 1_000));
    let straight = Place::new().await;
    let mut runner = straight.runner("local", canary()).await;
    runner.feed(&batch(0, 0, &bulk(0..40, 12, NOON))).expect("fed");
    runner.commit("1").await.expect("commits");
    let (told, kept) = (straight.told().await, straight.kept().await);
    assert_eq!(told.len() + kept.len(), 40);
    assert!(told.len() >= 10 && kept.len() >= 10, "{} told", told.len());
    assert!(kept.values().all(|(reason, _)| reason == "canary"));

    let disturbed = Place::new().await;
    let mut content = bulk(0..40, 12, NOON);
    content.reverse();
    for cut in 1..=4_usize {
        // Whoever died had fed more than it committed.
        let mut dead = disturbed.runner("local", canary()).await;
        let committed: usize = dead.positions().parse().unwrap_or(0);
        let chunk = |n: usize| batch(0, i64::try_from(n).expect("small"), &content[n * 120..(n + 1) * 120]);
        for n in committed..4 {
            dead.feed(&chunk(n)).expect("fed");
        }
        let mut runner = disturbed.runner("local", canary()).await;
        for n in committed..cut {
            runner.feed(&chunk(n)).expect("fed");
        }
        runner.commit(&cut.to_string()).await.expect("commits");
        assert!(dead.commit("9").await.is_err(), "it was taken over from");
    }
    assert_eq!(disturbed.told().await, told);
    assert_eq!(disturbed.kept().await, kept);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i9_two_runners_at_once_share_a_days_allowance() {
    const ALLOWANCE: usize = 13;
    let place = Place::new().await;
    let url = format!("sqlite:{}", place.dir.path().join("metastore.db").display());
    let mut runs = Vec::new();
    for part in 0..2_u8 {
        // A process has its own handle.
        let metastore = Arc::new(Metastore::open(&url).await.expect("opens"));
        let parts = RunnerParts { metastore, ..place.parts.clone() };
        runs.push(tokio::spawn(async move {
            let rules = rules(standing(Stage::Live, u32::try_from(ALLOWANCE).expect("small")));
            let mut runner = Runner::open(&format!("signals/{part}"), "test", parts, rules).await.expect("opens");
            for n in 0..10_u8 {
                let person = 100 * part + 2 * n;
                runner.feed(&batch(part.into(), n.into(), &bulk(person..person + 2, 12, NOON))).expect("fed");
                runner.commit(&n.to_string()).await.expect("commits");
            }
        }));
    }
    for run in runs {
        run.await.expect("no error");
    }
    let kept = place.kept().await;
    assert_eq!((place.told().await.len(), kept.len()), (ALLOWANCE, 40 - ALLOWANCE));
    assert!(kept.values().all(|(reason, _)| reason == "allowance"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_found_in_shadow_is_told_when_the_rule_is_live_and_it_grows_on() {
    let place = Place::new().await;
    let mut shadow = place.runner("local", rules(standing(Stage::Shadow, 9))).await;
    shadow.feed(&batch(0, 0, &bulk(0..2, 12, NOON))).expect("fed");
    shadow.commit("1").await.expect("commits");
    assert_eq!((place.told().await.len(), place.kept().await.len()), (0, 2));
    let mut live = place.runner("local", rules(standing(Stage::Live, 9))).await;
    live.feed(&batch(0, 1, &bulk(1..2, 12, NOON + 2_000))).expect("fed");
    live.commit("2").await.expect("commits");
    let (told, kept) = (place.told().await, place.kept().await);
    assert_eq!((told.len(), kept.len()), (1, 1));
    assert!(told.values().all(|body| body.contains(&"01".repeat(16))), "{told:?}");
    assert!(kept.values().all(|(reason, body)| reason == "shadow" && body.contains(&"00".repeat(16))), "{kept:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i8_a_rule_whose_standing_is_gone_tells_nobody() {
    let place = Place::new().await;
    let mut without = rules(standing(Stage::Live, 9));
    without.standing.remove("bulk_per_minute");
    let mut runner = place.runner("local", without).await;
    runner.feed(&batch(0, 0, &bulk(0..1, 12, NOON))).expect("fed");
    runner.commit("1").await.expect("commits");
    assert_eq!((place.told().await.len(), place.kept().await.len()), (0, 1));
}
