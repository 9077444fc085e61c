use arrow::array::{FixedSizeBinaryArray, RecordBatch};
use futures::StreamExt;
use starling_schemas::codes::{Fault, Refusal};
use starling_schemas::ids::{EpochId, Generation, Offset, PartitionId, Purpose};
use starling_schemas::time::FixedClock;
use starling_store::{AuditEntry, KeyState, Plan, RangeOutcome, S3Address, S3Credentials, S3Settings, read_table};

use super::*;
use crate::fold::tests::{Event, Model, clean, model, read};
use crate::testing::TestEntropy;
use crate::{Folder, write_segment};

mod clocks;
mod hours;
mod spans;

const DAY: EpochId = EpochId(20_458);
const SOON: Duration = Duration::from_millis(200);

/// One deployment in a folder.
struct House {
    _root: tempfile::TempDir,
    closer: Arc<Closer>,
    clock: Arc<FixedClock>,
    generations: BTreeMap<i32, Generation>,
}

fn partition(number: i32) -> PartitionId {
    PartitionId { source: "events".to_owned(), partition: number }
}

/// `count` events of person `person` on [`DAY`].
fn events(person: u128, count: usize) -> Vec<Event> {
    vec![Event { person, day: DAY.0, country: 0x4445, platform: 1, activity: 1, seconds: 3, ..Event::default() }; count]
}

impl House {
    async fn new() -> Self {
        let root = tempfile::tempdir().expect("folder");
        let clock = Arc::new(FixedClock::new(DAY.end_ms() + DAY_MS));
        let metastore = Metastore::open(&format!("sqlite:{}", root.path().join("meta.db").display())).await.expect("metastore");
        let keyring = Keyring::open(&root.path().join("keys"), Arc::new(TestEntropy)).expect("keyring");
        let closer = Arc::new(Closer {
            metastore: Arc::new(metastore),
            files: Arc::new(Files::open_local(&root.path().join("files")).expect("files")),
            keyring: Arc::new(keyring),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            memory_bytes: 64 << 20,
            spill_dir: root.path().join("spill"),
        });
        let mut house = Self { _root: root, closer, clock, generations: BTreeMap::new() };
        for number in [0, 1] {
            let owned = house.closer.metastore.take_ownership(&partition(number), "test", house.now()).await.expect("takes");
            house.generations.insert(number, owned.generation);
        }
        // Minimize made one when it saw the day's first event.
        house.closer.keyring.get_or_create(pseudonym_key()).expect("key");
        house
    }

    fn now(&self) -> i64 {
        self.clock.now_ms()
    }

    async fn plan(&self, number: i32, from: i64, events: &[Event]) -> Plan {
        let to = Offset(from + i64::try_from(events.len()).expect("small"));
        self.closer
            .metastore
            .plan(&partition(number), self.generations[&number], Offset(from), to, self.now())
            .await
            .expect("plans")
    }

    /// What a range processor does: segments, and the outcome to commit.
    async fn process(&self, plan: &Plan, events: &[Event]) -> RangeOutcome {
        let mut folder = Folder::new();
        folder.fold(&clean(events)).expect("clean rows");
        let mut segments = Vec::new();
        for (day, rows) in folder.finish().expect("rows") {
            let closer = &self.closer;
            segments.push(
                write_segment(&closer.files, &closer.keyring, &plan.partition, plan.sequence, day, &rows).await.expect("writes"),
            );
        }
        let count = events.len() as u64;
        RangeOutcome {
            events: count,
            counts: vec![(Some(DAY), Outcome::Counted, count)],
            watermark_ms: Some(1),
            segments,
            ..RangeOutcome::default()
        }
    }

    async fn ingest(&self, number: i32, from: i64, events: &[Event]) {
        let plan = self.plan(number, from, events).await;
        let outcome = self.process(&plan, events).await;
        self.closer.metastore.commit(&plan, &outcome, self.now()).await.expect("commits");
    }

    async fn table(&self) -> Model {
        let key = data_key(&self.closer.keyring, DAY).expect("key");
        let mut batches = read_table(&self.closer.files, &key, &table_path(DAY)).await.expect("opens");
        let (mut last, mut rows) = (None, Model::new());
        while let Some(batch) = batches.next().await {
            read(DAY, &batch.expect("reads"), &mut last, &mut rows);
        }
        rows
    }

    async fn state(&self) -> WindowState {
        self.closer.window(DAY.into()).await.expect("window").state
    }

    async fn audit(&self, kind: &str) -> Vec<AuditEntry> {
        self.closer.metastore.verify_audit().await.expect("the chain holds");
        let mut entries = self.closer.metastore.audit_tail(1000).await.expect("reads");
        entries.retain(|e| e.kind == kind);
        entries
    }

    fn pseudonym_key_is_destroyed(&self) -> bool {
        matches!(self.closer.keyring.get(pseudonym_key()), Err(starling_store::KeyringError::Destroyed(..)))
    }

    /// Everything that must be true after a close, however it came about.
    async fn assert_closed(&self, expected: &Model) {
        assert_eq!(&self.table().await, expected);
        assert_eq!(self.state().await, WindowState::Closed);
        assert!(self.pseudonym_key_is_destroyed());
        assert!(self.closer.files.list("segments/").await.expect("lists").is_empty());
        assert!(self.closer.metastore.segments(DAY).await.expect("reads").is_empty());
        assert_eq!(self.audit("window_closed").await.len(), 1);
        assert_eq!(self.audit("key_destroyed").await.len(), 1);
        assert!(crate::spill::Spill::left_below(&self.closer.spill_dir).is_empty());
    }
}

fn pseudonym_key() -> KeyId {
    KeyId { kind: KeyKind::Pseudonym, purpose: Purpose::AnalyticsDay, epoch: DAY }
}

/// Three ranges in two partitions, with a person in all of them.
async fn house_with_events() -> (House, Model) {
    let house = House::new().await;
    let (a, b, c) = (events(1, 3), [events(1, 2), events(2, 1)].concat(), events(1, 4));
    house.ingest(0, 0, &a).await;
    house.ingest(1, 0, &b).await;
    house.ingest(0, 3, &c).await;
    (house, model(&[a, b, c].concat()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_closes_to_the_model_s_rows_and_its_pseudonym_key_dies() {
    let (house, expected) = house_with_events().await;
    let report = house.closer.close(DAY, true).await.expect("closes");
    assert!(report.complete && !report.already_closed && report.shortfall.is_none());
    assert_eq!((report.segments, report.table.rows), (3, 2));
    assert_eq!(report.outcomes, BTreeMap::from([("counted", 10)]));
    house.assert_closed(&expected).await;
    let entry = &house.audit("window_closed").await[0];
    assert_eq!(entry.detail, json!({ "day": "2026-01-05", "complete": true, "outcomes": { "counted": 10 } }));

    let again = house.closer.close(DAY, true).await.expect("again");
    assert!(again.already_closed);
    assert_eq!(again.table, report.table);
    house.assert_closed(&expected).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i9_a_close_that_died_anywhere_is_finished_by_the_next_one() {
    for point in [
        "before",
        "after_begin_close",
        "after_merge",
        "after_finish_close",
        "after_log_entry",
        "after_segments",
        "after_key_destroyed",
    ] {
        for repair_first in [false, true] {
            let (house, expected) = house_with_events().await;
            let closer = &house.closer;
            let reached = |p| {
                let order = [
                    "after_begin_close",
                    "after_merge",
                    "after_finish_close",
                    "after_log_entry",
                    "after_segments",
                    "after_key_destroyed",
                ];
                let at = |name| order.iter().position(|o| *o == name);
                at(point) >= at(p)
            };
            if reached("after_begin_close") {
                closer.metastore.begin_close(DAY, house.now()).await.expect("begins");
            }
            if reached("after_merge") {
                let mut segments = closer.metastore.segments(DAY).await.expect("reads");
                let spill = Spill::open(&closer.spill_dir).expect("opens");
                let (writer, _) =
                    closer.merge(DAY.into(), true, &mut segments, &mut Shortfall::default(), &spill).await.expect("merges");
                let table = writer.finish().await.expect("finishes");
                if reached("after_finish_close") {
                    closer.metastore.finish_close(DAY, &table, true, house.now()).await.expect("finishes");
                }
                // A killed process removes nothing.
                drop(spill);
                std::fs::create_dir_all(closer.spill_dir.join("runs-killed")).expect("creates");
            }
            if reached("after_log_entry") {
                let detail = json!({ "day": DAY.to_string(), "complete": true, "outcomes": { "counted": 10 } });
                closer.audit_once("window_closed", DAY.into(), detail).await.expect("appends");
            }
            if reached("after_segments") {
                closer.delete_segments(DAY).await.expect("deletes");
            }
            if reached("after_key_destroyed") {
                // Between the key's destruction and its receipt.
                closer.keyring.destroy(pseudonym_key(), house.now()).expect("destroys");
            }
            if repair_first {
                closer.repair().await.expect("repairs");
                if reached("after_finish_close") {
                    house.assert_closed(&expected).await;
                }
            }
            let report = closer.close(DAY, true).await.expect("closes");
            assert_eq!(report.already_closed, reached("after_finish_close"), "{point}");
            closer.repair().await.expect("nothing is left to repair");
            house.assert_closed(&expected).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_planned_before_the_close_is_waited_for_and_its_events_are_in() {
    let (house, _) = house_with_events().await;
    let late = events(7, 5);
    let plan = house.plan(1, 3, &late).await;
    let closing = tokio::spawn({
        let closer = Arc::clone(&house.closer);
        async move { closer.close(DAY, true).await }
    });
    while house.state().await != WindowState::Closing {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let outcome = house.process(&plan, &late).await;
    tokio::time::sleep(2 * PLAN_POLL).await;
    assert!(!closing.is_finished());
    house.closer.metastore.commit(&plan, &outcome, house.now()).await.expect("commits");
    let report = closing.await.expect("runs").expect("closes");
    assert_eq!(report.outcomes, BTreeMap::from([("counted", 15)]));
    assert_eq!(house.table().await.keys().filter(|(_, person, ..)| *person == 7).count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_plan_from_before_refuses_a_complete_close_and_one_from_after_does_not() {
    let (house, expected) = house_with_events().await;
    let late = events(7, 5);
    let plan = house.plan(1, 3, &late).await;
    let error = house.closer.close_waiting(DAY, true, SOON).await.expect_err("must wait");
    assert!(matches!(error, AggregateError::WaitingForPlans { plans: 1, .. }), "{error}");
    assert_eq!(house.state().await, WindowState::Closing);
    assert!(!house.pseudonym_key_is_destroyed());

    // Its events turn out to be late ones of the day before: nothing of this day is missing.
    let outcome = RangeOutcome {
        events: 5,
        counts: vec![(None, Outcome::Quarantined(Fault::Malformed), 3), (Some(DAY), Outcome::Refused(Refusal::NoConsent), 2)],
        watermark_ms: None,
        segments: vec![],
        ..RangeOutcome::default()
    };
    house.closer.metastore.commit(&plan, &outcome, house.now()).await.expect("commits");
    house.plan(1, 8, &late).await;
    let report = house.closer.close_waiting(DAY, true, SOON).await.expect("closes beside a newer plan");
    assert_eq!(report.outcomes, BTreeMap::from([("counted", 10), ("refused:no_consent", 2)]));
    house.assert_closed(&expected).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn past_the_deadline_a_window_closes_without_what_is_missing_and_the_log_says_so() {
    let (house, _) = house_with_events().await;
    let lost = house.closer.metastore.segments(DAY).await.expect("reads");
    house.closer.files.delete(&lost[0].path).await.expect("deletes");
    let mut bytes = house.closer.files.get(&lost[1].path).await.expect("reads").expect("there").to_vec();
    let middle = bytes.len() / 2;
    bytes.truncate(middle);
    house.closer.files.put(&lost[1].path, bytes.into()).await.expect("puts");

    let report = house.closer.close_waiting(DAY, false, SOON).await.expect("closes");
    assert!(!report.complete);
    let shortfall = report.shortfall.expect("something was missing");
    assert_eq!((shortfall.open_plans, shortfall.lost_segments, shortfall.unbalanced_partitions), (0, 2, 0));
    assert_eq!(shortfall.counted, 10);
    assert!(shortfall.in_rows < 10);
    assert_eq!(house.state().await, WindowState::Incomplete);
    assert!(house.pseudonym_key_is_destroyed());
    let entries = house.audit("window_incomplete").await;
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].detail["lost_segments"], 2);
    assert_eq!(house.audit("window_closed").await[0].detail["complete"], false);
    house.closer.repair().await.expect("repairs");
    assert_eq!(house.audit("window_closed").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pseudonym_key_dies_at_the_deadline_even_while_a_range_from_before_is_open() {
    let (house, expected) = house_with_events().await;
    let plan = house.plan(1, 3, &events(7, 5)).await;
    let first = house.closer.close_waiting(DAY, false, SOON).await;
    assert!(matches!(first, Ok(_) | Err(AggregateError::WaitingForPlans { plans: 1, .. })), "{first:?}");
    assert!(house.pseudonym_key_is_destroyed());
    assert_eq!(house.audit("window_incomplete").await[0].detail["open_plans"], 1);

    // Its owner comes back, finds no key, and counts the events as late.
    let counts = vec![(Some(DAY), Outcome::Late, 5)];
    let outcome = RangeOutcome { events: 5, counts, watermark_ms: Some(1), segments: vec![], ..RangeOutcome::default() };
    house.closer.metastore.commit(&plan, &outcome, house.now()).await.expect("commits");
    let report = house.closer.close_waiting(DAY, false, SOON).await.expect("closes");
    assert_eq!(report.outcomes, BTreeMap::from([("counted", 10), ("late", 5)]));
    assert_eq!(house.state().await, WindowState::Incomplete);
    assert_eq!(house.table().await, expected);
    assert_eq!(house.audit("window_incomplete").await.len(), 1);
    assert_eq!(house.audit("key_destroyed").await.len(), 1);
}

/// A server that does not answer: at a port where nobody listens.
fn files_out_of_reach() -> Files {
    let settings = S3Settings {
        address: S3Address::parse("s3://flock").expect("an address"),
        endpoint: "http://127.0.0.1:1".to_owned(),
        region: String::new(),
        allow_http: false,
        credentials: S3Credentials::Keys { access_key: "key".to_owned(), secret_key: "secret".to_owned().into() },
    };
    Files::open_s3(&settings).expect("opens")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_deadline_an_object_store_out_of_reach_costs_the_key_its_life_and_no_segment_its_rows() {
    let (house, expected) = house_with_events().await;
    let closer = &house.closer;
    let cut_off = Closer {
        metastore: Arc::clone(&closer.metastore),
        files: Arc::new(files_out_of_reach()),
        keyring: Arc::clone(&closer.keyring),
        clock: Arc::clone(&closer.clock),
        memory_bytes: closer.memory_bytes,
        spill_dir: closer.spill_dir.clone(),
    };
    let error = cut_off.close(DAY, false).await.expect_err("no segment can be read");
    assert!(matches!(&error, AggregateError::Store(e) if e.is_outage()), "{error}");
    assert_eq!(house.state().await, WindowState::Closing);
    assert!(house.pseudonym_key_is_destroyed(), "privacy does not wait for the network");
    assert!(house.audit("window_incomplete").await.is_empty());

    let report = closer.close(DAY, false).await.expect("closes when the files are back");
    assert_eq!(report.shortfall.map(|s| (s.lost_segments, s.counted, s.in_rows)), Some((0, 10, 10)));
    assert_eq!(house.table().await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i1_counts_that_the_rows_do_not_bear_out_refuse_a_complete_close() {
    let (house, _) = house_with_events().await;
    let (planned, processed) = (events(7, 5), events(7, 4));
    let plan = house.plan(1, 3, &planned).await;
    let mut outcome = house.process(&plan, &processed).await;
    outcome.events = 5;
    outcome.counts = vec![(Some(DAY), Outcome::Counted, 5)];
    house.closer.metastore.commit(&plan, &outcome, house.now()).await.expect("commits");
    let error = house.closer.close(DAY, true).await.expect_err("one event is nowhere");
    assert!(matches!(error, AggregateError::CountsDiffer { counted: 15, in_rows: 14, .. }), "{error}");
    assert!(!house.pseudonym_key_is_destroyed());
    assert!(house.closer.files.list("people/").await.expect("lists").is_empty());
    let report = house.closer.close(DAY, false).await.expect("the deadline overrides");
    assert_eq!(report.shortfall.map(|s| (s.counted, s.in_rows)), Some((15, 14)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_segment_refuses_a_complete_close() {
    let (house, _) = house_with_events().await;
    let segments = house.closer.metastore.segments(DAY).await.expect("reads");
    house.closer.files.delete(&segments[0].path).await.expect("deletes");
    let error = house.closer.close(DAY, true).await.expect_err("a segment is missing");
    assert!(matches!(error, AggregateError::Store(StoreError::FileMissing { .. })), "{error}");
    assert!(!house.pseudonym_key_is_destroyed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_of_another_version_is_refused_with_its_path_and_left_out_at_the_deadline() {
    let (house, _) = house_with_events().await;
    let key = data_key(&house.closer.keyring, DAY).expect("key");
    let path = house.closer.metastore.segments(DAY).await.expect("reads")[0].path.clone();
    let rows = read_table(&house.closer.files, &key, &path).await.expect("opens").next().await.expect("a batch").expect("reads");
    // As it was before rows had version, detail and account.
    let before = rows.project(&[0, 1, 2, 3, 7, 8]).expect("columns");
    let bytes = starling_store::encrypt_batches(&key, before.schema(), std::slice::from_ref(&before)).expect("encrypts");
    house.closer.files.put(&path, bytes).await.expect("puts");

    let error = house.closer.close(DAY, true).await.expect_err("not converted");
    assert!(matches!(&error, AggregateError::OtherVersion { column: "version", .. }), "{error}");
    assert!(error.to_string().starts_with(&path), "{error}");
    assert!(!house.pseudonym_key_is_destroyed());
    assert!(house.closer.files.list("people/").await.expect("lists").is_empty(), "nothing was put in place");

    let report = house.closer.close_waiting(DAY, false, SOON).await.expect("the deadline overrides");
    assert_eq!((report.segments, report.shortfall.map(|s| (s.lost_segments, s.counted))), (2, Some((1, 10))));
    assert_eq!(house.state().await, WindowState::Incomplete);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_that_lost_everything_closes_to_an_empty_table_at_its_deadline() {
    let (house, _) = house_with_events().await;
    house.closer.delete_segments(DAY).await.expect("deletes");
    let report = house.closer.close(DAY, false).await.expect("closes");
    assert_eq!((report.table.rows, report.segments), (0, 0));
    assert_eq!(report.shortfall.map(|s| (s.lost_segments, s.counted, s.in_rows)), Some((3, 10, 0)));
    assert_eq!(house.table().await, Model::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_days_without_counted_events_die_once_a_later_day_has_closed() {
    let (house, _) = house_with_events().await;
    let closer = &house.closer;
    let key = |kind, day| KeyId { kind, purpose: Purpose::AnalyticsDay, epoch: EpochId(DAY.0 + day) };
    let kept =
        [key(KeyKind::Data, 0), key(KeyKind::Pseudonym, 1), KeyId { purpose: Purpose::Integrity, ..key(KeyKind::Pseudonym, -1) }];
    let unused = [key(KeyKind::Pseudonym, -1), key(KeyKind::Data, -1)];
    for id in kept.iter().chain(&unused) {
        closer.keyring.get_or_create(*id).expect("key");
    }
    let alive = || -> BTreeSet<KeyId> {
        let keys = closer.keyring.list().expect("lists");
        keys.into_iter().filter(|(_, state)| *state == KeyState::Alive).map(|(id, _)| id).collect()
    };
    let before = alive();
    closer.repair().await.expect("nothing has closed");
    assert_eq!(alive(), before);
    closer.close(DAY, true).await.expect("closes");
    closer.repair().await.expect("repairs");
    assert_eq!(alive(), BTreeSet::from(kept));
    assert_eq!(house.audit("key_destroyed").await.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i7_rows_expire_with_their_data_key() {
    let (house, _) = house_with_events().await;
    let closer = &house.closer;
    closer.close(DAY, true).await.expect("closes");
    let copy = closer.files.get(&table_path(DAY)).await.expect("reads").expect("there");
    let keep_ms = 7 * DAY_MS;
    house.clock.set(house.now() + keep_ms - 1);
    assert_eq!(closer.expire(keep_ms, &BTreeSet::new()).await.expect("nothing is due"), []);
    house.clock.set(house.now() + 1);
    assert_eq!(closer.expire(keep_ms, &BTreeSet::new()).await.expect("expires"), [DAY.into()]);
    assert_eq!(closer.expire(keep_ms, &BTreeSet::new()).await.expect("once"), []);

    assert!(closer.files.get(&table_path(DAY)).await.expect("reads").is_none());
    // A backup brings back the file and not the key.
    closer.files.put(&table_path(DAY), copy).await.expect("puts");
    assert!(matches!(data_key(&closer.keyring, DAY), Err(AggregateError::Expired { window }) if window == DAY.into()));
    assert!(matches!(closer.close(DAY, true).await, Err(AggregateError::Expired { window }) if window == DAY.into()));
    assert_eq!(house.audit("key_destroyed").await.len(), 2);
    closer.repair().await.expect("leaves it alone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p42_nothing_is_kept_longer_than_thirty_days_whatever_is_asked_for() {
    let (house, _) = house_with_events().await;
    house.closer.close(DAY, true).await.expect("closes");
    house.clock.set(house.now() + MAX_KEEP_MS);
    assert_eq!(house.closer.expire(i64::MAX, &BTreeSet::new()).await.expect("expires"), [DAY.into()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_nobody_saw_and_a_folder_in_use_are_refused() {
    let (house, _) = house_with_events().await;
    assert!(
        matches!(house.closer.close(EpochId(1), true).await, Err(AggregateError::UnknownWindow { window }) if window == EpochId(1).into())
    );
    let other = Spill::open(&house.closer.spill_dir).expect("opens");
    assert!(matches!(house.closer.close(DAY, true).await, Err(AggregateError::SpillInUse { .. })));
    drop(other);
    house.closer.close(DAY, true).await.expect("closes");
}
