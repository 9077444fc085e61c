use starling_schemas::codes::Outcome;
use starling_schemas::ids::Offset;
use starling_store::{KeyState, RangeOutcome};

use super::*;
use crate::testing::TestEntropy;

const DAY: i32 = 20_458;

struct Books {
    _root: tempfile::TempDir,
    billing: Billing,
}

fn partition() -> PartitionId {
    PartitionId { source: "events".to_owned(), partition: 0 }
}

fn rows(day: i32, business: &str, delivered: u64) -> RecordBatch {
    batch(&BTreeMap::from([((day, business.to_owned(), None, 1, 0x4445), [delivered + 1, delivered, 0, 0])])).expect("rows")
}

impl Books {
    async fn new() -> Self {
        let root = tempfile::tempdir().expect("folder");
        let url = format!("sqlite:{}", root.path().join("meta.db").display());
        let billing = Billing {
            metastore: Arc::new(Metastore::open(&url).await.expect("opens")),
            files: Arc::new(Files::open_local(&root.path().join("files")).expect("opens")),
            keyring: Arc::new(Keyring::open(&root.path().join("keys"), Arc::new(TestEntropy)).expect("opens")),
        };
        Self { _root: root, billing }
    }

    /// A new owner, who goes on with the plan that is open or plans the next range: one event, at the offset of the range's number.
    async fn range(&self, number: i64, rows: &RecordBatch, commits: bool) {
        let (from, to) = (Offset(number), Offset(number + 1));
        let owned = self.billing.metastore.take_ownership(&partition(), "test", 1).await.expect("takes");
        let plan = match owned.open_plan {
            Some(plan) => plan,
            None => self.billing.metastore.plan(&partition(), owned.generation, from, to, 1).await.expect("plans"),
        };
        assert_eq!(plan.sequence, Sequence(number));
        self.billing.keep(&partition(), plan.sequence, rows).await.expect("keeps");
        if commits {
            let outcome = RangeOutcome {
                events: 1,
                counts: vec![(Some(EpochId(DAY)), Outcome::Counted, 1)],
                watermark_ms: Some(1),
                segments: vec![],
                ..RangeOutcome::default()
            };
            self.billing.metastore.commit(&plan, &outcome, 1).await.expect("commits");
        }
    }

    async fn delivered(&self) -> Vec<(i32, String, u64)> {
        let rows = self.billing.rows(EpochId(DAY - 9), EpochId(DAY + 9)).await.expect("reads");
        let mut sums = BTreeMap::new();
        add(&rows, &mut sums).expect("rows");
        sums.into_iter().map(|((day, business, ..), [_, delivered, ..])| (day - DAY, business, delivered)).collect()
    }

    async fn files(&self) -> Vec<String> {
        self.billing.files.list(FOLDER).await.expect("lists")
    }
}

#[tokio::test]
async fn p35_i9_a_range_is_billed_when_it_is_committed_and_a_replay_bills_nothing_twice() {
    let books = Books::new().await;
    books.range(0, &rows(DAY, "acme", 5), true).await;
    books.range(1, &rows(DAY, "acme", 2), false).await;
    assert_eq!(books.delivered().await, [(0, "acme".to_owned(), 5)], "planned and written, and not committed");
    books.range(1, &rows(DAY, "acme", 2), true).await;
    books.range(2, &rows(DAY - 1, "zeta", 1), true).await;
    let all = [(-1, "zeta".to_owned(), 1), (0, "acme".to_owned(), 7)];
    assert_eq!(books.delivered().await, all, "what comes late is billed to its own day");
    let one_day = books.billing.rows(EpochId(DAY), EpochId(DAY)).await.expect("reads");
    assert_eq!(one_day.num_rows(), 1);
}

#[tokio::test]
async fn i9_compacting_changes_no_bill_wherever_it_is_cut_off() {
    let books = Books::new().await;
    for number in 0..5 {
        books.range(number, &rows(DAY + i32::from(number == 3), "acme", 1 << number), true).await;
    }
    books.range(5, &rows(DAY, "acme", 1000), false).await;
    let all = [(0, "acme".to_owned(), 0b10111), (1, "acme".to_owned(), 0b01000)];
    assert_eq!(books.delivered().await, all);
    let before = books.files().await;
    let kept: Vec<_> = futures::future::join_all(before.iter().map(|path| books.billing.files.get(path))).await;
    assert_eq!(books.billing.compact(5).await.expect("nothing to do"), 0);
    assert_eq!(books.billing.compact(4).await.expect("compacts"), 4);
    assert_eq!(books.files().await.len(), 2, "one, and the range that is not committed");
    assert_eq!(books.delivered().await, all);
    // Cut off before the deletes, or after some of them: what was there before comes back.
    for (path, bytes) in before.iter().zip(kept) {
        books.billing.files.put(path, bytes.expect("reads").expect("was there")).await.expect("writes");
        assert_eq!(books.delivered().await, all, "{path}");
    }
    books.range(5, &rows(DAY, "acme", 1000), true).await;
    books.billing.compact(0).await.expect("compacts what is left, too");
    assert_eq!(books.files().await.len(), 1);
    assert_eq!(books.delivered().await[0].2, 0b10111 + 1000);
}

#[tokio::test]
async fn a_bill_is_never_made_smaller_by_a_file_that_is_damaged() {
    let books = Books::new().await;
    books.range(0, &rows(DAY, "acme", 5), true).await;
    let path = books.files().await.remove(0);
    let mut bytes = books.billing.files.get(&path).await.expect("reads").expect("there").to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    books.billing.files.put(&path, bytes.into()).await.expect("writes");
    let error = books.billing.rows(EpochId(DAY), EpochId(DAY)).await.expect_err("refused");
    assert!(error.to_string().contains(&path), "{error}");
    books.range(1, &rows(DAY, "acme", 5), true).await;
    assert!(books.billing.compact(0).await.is_err());
    assert_eq!(books.files().await.len(), 2, "nothing is deleted");
}

#[tokio::test]
async fn a_range_that_is_given_up_is_billed_nowhere() {
    let books = Books::new().await;
    books.range(0, &rows(DAY, "acme", 5), false).await;
    books.billing.give_up(&partition(), Sequence(0)).await.expect("deletes");
    books.billing.give_up(&partition(), Sequence(0)).await.expect("again");
    assert!(books.files().await.is_empty());
}

#[tokio::test]
async fn p49_files_are_encrypted_under_a_key_of_their_own_and_no_rows_leave_no_file() {
    let books = Books::new().await;
    books.range(0, &rows(DAY, "acme-of-berlin", 5), true).await;
    books.range(1, &batch(&BTreeMap::new()).expect("none"), true).await;
    let files = books.files().await;
    assert_eq!(files, ["billing/events-p0-s000000000000.parquet"]);
    let bytes = books.billing.files.get(&files[0]).await.expect("reads").expect("there");
    assert!(!bytes.windows(14).any(|w| w == b"acme-of-berlin"));
    let keys = books.billing.keyring.list().expect("lists");
    assert!(keys.iter().all(|(id, state)| id.purpose == Purpose::Billing && *state == KeyState::Alive) && keys.len() == 1);
}
