//! Facts of windows that are over, and findings that are told or not: a runner with its metastore, files and keys.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, AtomicU8, Ordering};

use starling_schemas::time::{Clock, Entropy, NoEntropy};
use starling_store::{Files, Keyring, Metastore};

use super::written::{TEXT, campaign, evening, rules_of, vectors};
use super::*;
use crate::vectors::{FileId, Kept};
use crate::{Runner, RunnerParts};

/// A clock that is set, and entropy that counts.
struct Set(AtomicI64);
struct Counting(AtomicU8);

impl Clock for Set {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

impl Entropy for Counting {
    fn fill(&self, out: &mut [u8]) -> Result<(), NoEntropy> {
        out.fill(self.0.fetch_add(1, Ordering::SeqCst));
        Ok(())
    }
}

struct House {
    _dir: tempfile::TempDir,
    parts: RunnerParts,
    clock: Arc<Set>,
}

impl House {
    async fn new() -> Self {
        let dir = tempfile::tempdir().expect("dir");
        let entropy: Arc<dyn Entropy> = Arc::new(Counting(1.into()));
        let clock = Arc::new(Set((NOON + 3 * DAY_MS).into()));
        let url = format!("sqlite:{}", dir.path().join("metastore.db").display());
        let parts = RunnerParts {
            metastore: Arc::new(Metastore::open(&url).await.expect("metastore")),
            files: Arc::new(Files::open_local(&dir.path().join("files")).expect("files")),
            keyring: Arc::new(Keyring::open(&dir.path().join("keys"), Arc::clone(&entropy)).expect("keyring")),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            entropy,
        };
        Self { _dir: dir, parts, clock }
    }

    async fn runner(&self, text: &str) -> Runner {
        Runner::open("local", "test", self.parts.clone(), rules_of(text)).await.expect("opens")
    }

    async fn kept(&self) -> Kept {
        Kept::read(&self.parts.files, &self.parts.keyring).await.expect("reads")
    }

    async fn facts(&self) -> Vec<String> {
        let all = self.parts.files.list("integrity").await.expect("lists");
        all.into_iter().filter(|path| FileId::parse(path).is_some()).collect()
    }
}

#[tokio::test]
async fn i9_facts_are_kept_once_though_a_commit_is_lost_and_an_owner_is_fenced() {
    let house = House::new().await;
    let (first, second): (Vec<Row>, Vec<Row>) =
        evening().into_iter().chain(campaign("a", 2, 60, 60)).partition(|row| row.time < NOON + DAY_MS);
    let mut runner = house.runner(TEXT).await;
    runner.feed(&batch(0, 0, &first)).expect("signals");
    runner.commit("0").await.expect("commits");
    assert_eq!(house.facts().await, [] as [&str; 0], "nothing is over");
    let tested = runner.engine().tested_days().expect("JSON");
    assert!(tested.contains(r#""business":["#), "{tested}");
    assert_eq!(
        house.parts.metastore.integrity_tested().await.expect("reads"),
        [tested],
        "what was tested is committed beside it"
    );
    // This one writes facts, and another has taken the part over before it commits.
    runner.feed(&batch(0, 1, &second)).expect("signals");
    runner.source_is_over();
    let mut next = house.runner(TEXT).await;
    assert!(runner.commit("1").await.is_err(), "fenced");
    assert_eq!(house.facts().await.len(), 2, "what it left behind");
    // The next one reads the same again, cut in another way.
    let half = second.len() / 2;
    next.feed(&batch(0, 1, &second[..half])).expect("signals");
    next.commit("half").await.expect("commits");
    next.feed(&batch(0, 2, &second[half..])).expect("signals");
    next.source_is_over();
    next.commit("1").await.expect("commits");
    let mut straight = Engine::new(rules_of(TEXT));
    straight.apply(&batch(0, 0, &first)).expect("signals");
    straight.apply(&batch(0, 1, &second)).expect("signals");
    let expected = vectors(&mut straight);
    let kept = house.kept().await;
    assert_eq!((kept.left_out, kept.vectors.groups.len()), (0, expected.groups.len()), "each group once");
    assert_eq!(kept.vectors.days, expected.days);
    // What the fenced owner writes once more under its number counts for nothing.
    let (path, stale) = (house.facts().await, b"stale".as_slice());
    let old = path.iter().find(|path| path.contains("-1-")).expect("of the first generation");
    house.parts.files.put(old, stale.into()).await.expect("writes");
    assert_eq!(house.kept().await.vectors.days, expected.days);
    // Nor does what it wrote of groups where the newest one, of that number, found nothing of groups.
    let groups = house.facts().await.into_iter().find(|path| path.contains(".groups.")).expect("of groups");
    let (part, file) = FileId::parse(&groups).expect("facts");
    let (older, newer) = (FileId { number: 9, generation: 1, ..file }, FileId { number: 9, generation: 2, ..file });
    let bytes = house.parts.files.get(&groups).await.expect("reads").expect("there");
    house.parts.files.put(&older.path(part), bytes).await.expect("writes");
    let before = house.kept().await.left_out;
    let newer = FileId { fact: crate::facts::Fact::BusinessDay, ..newer };
    house.parts.files.put(&newer.path(part), b"stale".as_slice().into()).await.expect("writes");
    let after = house.kept().await;
    assert_eq!(
        (after.vectors.groups.len(), after.left_out),
        (expected.groups.len(), before),
        "one of them counts, and cannot be read"
    );
}

#[tokio::test]
async fn i7_facts_die_with_their_key_and_their_files_are_removed() {
    let house = House::new().await;
    let mut runner = house.runner(TEXT).await;
    runner.feed(&batch(0, 0, &evening())).expect("signals");
    runner.source_is_over();
    runner.commit("0").await.expect("commits");
    let files = house.facts().await;
    assert_eq!(files.len(), 2);
    let (_, file) = FileId::parse(&files[0]).expect("facts");
    assert_eq!(file.epoch, EpochId::of(NOON + 3 * DAY_MS), "the key of the day on which they are written");
    let sealed = house.parts.files.get(&files[0]).await.expect("reads").expect("there");
    assert!(!sealed.windows(4).any(|part| part == b"sent"), "sealed");
    let key = starling_store::KeyId {
        kind: starling_store::KeyKind::Data,
        purpose: starling_schemas::ids::Purpose::Integrity,
        epoch: file.epoch,
    };
    // A day later there is another key: the state is under that one, the facts are not.
    house.clock.0.fetch_add(DAY_MS, Ordering::SeqCst);
    runner.feed(&batch(0, 1, &[message(1, NOON)])).expect("signals");
    runner.commit("1").await.expect("commits");
    house.parts.keyring.destroy(key, NOON + 17 * DAY_MS).expect("destroys");
    let kept = house.kept().await;
    assert!(kept.vectors.is_empty() && kept.left_out == 2);
    for (days, left) in [(14, 2), (1, 0)] {
        house.clock.0.fetch_add(days * DAY_MS, Ordering::SeqCst);
        runner.feed(&batch(0, 10 + days, &[message(1, NOON)])).expect("signals");
        runner.commit("later").await.expect("commits");
        assert_eq!(house.facts().await.len(), left, "{days} days later");
    }
}

#[tokio::test]
async fn nobody_is_told_of_what_a_rule_in_shadow_finds() {
    let house = House::new().await;
    let shadow = TEXT.replacen("stage = \"live\"", "stage = \"shadow\"", 1);
    let mut runner = house.runner(&shadow).await;
    runner.feed(&batch(0, 0, &evening())).expect("signals");
    runner.commit("0").await.expect("commits");
    let told = house.parts.metastore.alerts_after(0, 100).await.expect("reads");
    let rules: BTreeSet<_> = told.iter().map(|record| record.rule.as_str()).collect();
    assert!(rules.contains("leavers") && rules.contains("beyond_itself") && !rules.contains("unanswered"), "{rules:?}");
}
