//! A house with encrypted person tables of closed days, a keyring, and a dataset over a Parquet file of one's own. Used by the tests beside
//! the engine and by those of the whole room.

use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, FixedSizeBinaryArray, Int64Array, RecordBatch, StringArray, UInt8Array, UInt16Array, UInt32Array};
use datafusion::parquet::arrow::ArrowWriter;
use starling_schemas::codes::{AccountAge, Activity, ClientVersion, Country, Detail, PlatformCode};
use starling_schemas::ids::{EpochId, Purpose};
use starling_schemas::metrics::Catalogue;
use starling_schemas::rows::{PERSON_ROWS, PRESENCE_ROWS};
use starling_schemas::time::{Entropy, NoEntropy};
use starling_store::{Files, KeyId, KeyKind, Keyring, Metastore, TableWriter};

/// 2026-01-05.
pub(crate) const DAY: i32 = 20_458;
/// 2026-01-08 12:00 UTC.
pub(crate) const NOW_MS: i64 = 1_767_873_600_000;

/// A budget that no test spends, for tests that ask thousands of questions.
pub(crate) const RICH: &str = r#"
[person_day]
description = "One person's coarse activity on one UTC day."
privacy_unit = "one person for one day: adding or removing all of a person's rows of the day"
rho_limit = 1000.0
releases_share = 0.0
threshold_delta_limit = 0.9
delta = 1e-9
[person_day.questions]
groups_per_person = 3
rows_per_group = 4
rho = 0.5
threshold_delta = 1e-4
[person_day.questions.measures.events]
description = "how often it was done"
unit = "events"
row = [0, 1000]
person = [0, 60]
[person_day.questions.measures.seconds]
description = "summed call duration"
unit = "seconds"
row = [0, 86400]
person = [0, 7200]
"#;

/// A dataset over a file, with names of its own, a measure below zero, a public list and a column that has none.
const VISITS: &str = r#"
[visits]
description = "Visits of a shop."
privacy_unit = "one customer: adding or removing all of a customer's rows"
rho_limit = 1000.0
releases_share = 0.0
threshold_delta_limit = 0.9
delta = 1e-9
[visits.questions]
groups_per_person = 2
rows_per_group = 3
rho = 0.5
threshold_delta = 1e-4
[visits.questions.source]
parquet = "{path}"
person = "customer"
[visits.questions.dimensions.shop]
description = "which shop"
values = ["north", "south", "west"]
[visits.questions.dimensions.page]
description = "which page; anything"
[visits.questions.measures.gain]
description = "earned or paid back"
unit = "cents"
row = [-500, 900]
person = [-700, 1000]
"#;

/// One row of `private.person_day`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Row {
    pub(crate) day: i32,
    pub(crate) person: u128,
    pub(crate) country: &'static str,
    pub(crate) platform: PlatformCode,
    pub(crate) activity: Activity,
    pub(crate) events: u32,
    pub(crate) seconds: u32,
}

/// One row of `private.visits`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Visit {
    pub(crate) customer: i64,
    pub(crate) shop: &'static str,
    pub(crate) page: Option<String>,
    pub(crate) gain: Option<i64>,
}

struct TestEntropy;

impl Entropy for TestEntropy {
    fn fill(&self, out: &mut [u8]) -> Result<(), NoEntropy> {
        let state = RandomState::new();
        for (n, chunk) in out.chunks_mut(8).enumerate() {
            chunk.copy_from_slice(&state.hash_one(n).to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}

/// Everything a vault is made of.
pub(crate) struct House {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) metastore: Arc<Metastore>,
    pub(crate) files: Arc<Files>,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) catalogue: Arc<Catalogue>,
}

impl House {
    /// Writes other rows where `private.visits` is.
    pub(crate) fn replace_visits(&self, visits: &[Visit]) {
        write_visits(&self.folder.path().join("visits.parquet"), visits);
    }

    /// A house whose days are closed with these rows. `catalogue`: what may be asked.
    pub(crate) async fn new(catalogue: Catalogue, rows: &[Row], visits: &[Visit]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let metastore =
            Metastore::open(&format!("sqlite:{}", folder.path().join("meta.db").display())).await.expect("a metastore");
        let files = Files::open_local(&folder.path().join("files")).expect("a file store");
        let keyring = Keyring::open(&folder.path().join("keys"), Arc::new(TestEntropy)).expect("a keyring");
        let visited = folder.path().join("visits.parquet");
        write_visits(&visited, visits);
        let mut catalogue = catalogue;
        catalogue
            .add_datasets("visits.toml", &VISITS.replace("{path}", &visited.display().to_string()))
            .expect("a dataset of one's own");
        let house = Self {
            folder,
            metastore: Arc::new(metastore),
            files: Arc::new(files),
            keyring: Arc::new(keyring),
            catalogue: Arc::new(catalogue),
        };
        let mut rows = rows.to_vec();
        rows.sort();
        for of_day in rows.chunk_by(|a, b| a.day == b.day) {
            house.close(of_day).await;
        }
        house
    }

    /// The same with a budget that lasts.
    pub(crate) async fn rich(rows: &[Row], visits: &[Visit]) -> Self {
        Self::new(Catalogue::parse(RICH, &[]).expect("definitions"), rows, visits).await
    }

    /// Writes a day's table as `aggregate` does, and closes the day with it.
    async fn close(&self, rows: &[Row]) {
        let day = EpochId(rows[0].day);
        let id = KeyId { kind: KeyKind::Data, purpose: Purpose::AnalyticsDay, epoch: day };
        let key = self.keyring.get_or_create(id).expect("a key");
        let path = format!("people/{day}.parquet");
        let mut writer = TableWriter::new(&self.files, &key, &path, Arc::clone(&PERSON_ROWS)).await.expect("a table");
        writer.write(&batch(rows)).await.expect("written");
        let table = writer.finish().await.expect("in place");
        self.metastore.begin_close(day, NOW_MS).await.expect("closing");
        self.metastore.finish_close(day, &table, true, NOW_MS).await.expect("closed");
    }

    /// Closes an hour in which so many people were there.
    pub(crate) async fn close_hour(&self, hour: EpochId, people: u128) {
        let key = self
            .keyring
            .get_or_create(KeyId { kind: KeyKind::Data, purpose: Purpose::AnalyticsHour, epoch: hour })
            .expect("a key");
        let path = format!("people/hour-{hour}.parquet");
        let mut writer = TableWriter::new(&self.files, &key, &path, Arc::clone(&PRESENCE_ROWS)).await.expect("a table");
        let mut named: Vec<[u8; 16]> = (0..people).map(|person| pseudonym(person, hour.0).to_be_bytes()).collect();
        named.sort_unstable();
        let named = FixedSizeBinaryArray::try_new(16, named.concat().into(), None).expect("16 bytes each");
        let rows = RecordBatch::try_new(Arc::clone(&PRESENCE_ROWS), vec![Arc::new(named)]).expect("the schema");
        writer.write(&rows).await.expect("written");
        let table = writer.finish().await.expect("in place");
        self.metastore.begin_close(hour, NOW_MS).await.expect("closing");
        self.metastore.finish_close(hour, &table, true, NOW_MS).await.expect("closed");
    }

    /// How many charges stand in the ledger, by question.
    pub(crate) async fn charges(&self) -> Vec<String> {
        let rows = self.metastore.budget().await.expect("the ledger");
        let mut charges: Vec<String> =
            rows.into_iter().flat_map(|row| row.charges.into_iter().map(|charge| charge.question)).collect();
        charges.sort();
        charges
    }

    /// Questions that stand in the audit log.
    pub(crate) async fn audited(&self) -> usize {
        self.metastore.verify_audit().await.expect("the chain holds");
        let entries = self.metastore.audit_tail(1_000_000).await.expect("the log");
        entries.iter().filter(|entry| entry.kind == "private_question").count()
    }

    /// The files of answers.
    pub(crate) async fn answers(&self) -> Vec<String> {
        self.files.list("answers").await.expect("a list")
    }

    /// The file of a day's person table.
    pub(crate) fn table(&self, day: i32) -> std::path::PathBuf {
        self.folder.path().join(format!("files/people/{}.parquet", EpochId(day)))
    }
}

/// Rows as `PERSON_ROWS` has them.
fn batch(rows: &[Row]) -> RecordBatch {
    let people: Vec<[u8; 16]> = rows.iter().map(|row| row.person.to_be_bytes()).collect();
    let people = FixedSizeBinaryArray::try_new(16, people.concat().into(), None).expect("16 bytes each");
    let country = |row: &Row| Country::parse(row.country).expect("a country").code();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(people),
        Arc::new(rows.iter().map(country).collect::<UInt16Array>()),
        Arc::new(rows.iter().map(|row| row.platform.code()).collect::<UInt8Array>()),
        Arc::new(rows.iter().map(|row| row.activity.code()).collect::<UInt8Array>()),
        Arc::new(rows.iter().map(|_| ClientVersion::new(26, 4).code()).collect::<UInt16Array>()),
        Arc::new(rows.iter().map(|_| Detail::NONE.code()).collect::<UInt8Array>()),
        Arc::new(rows.iter().map(|_| AccountAge::Older.code()).collect::<UInt8Array>()),
        Arc::new(rows.iter().map(|row| row.events).collect::<UInt32Array>()),
        Arc::new(rows.iter().map(|row| row.seconds).collect::<UInt32Array>()),
    ];
    RecordBatch::try_new(Arc::clone(&PERSON_ROWS), columns).expect("the schema")
}

fn write_visits(path: &Path, visits: &[Visit]) {
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("gain", Arc::new(visits.iter().map(|visit| visit.gain).collect::<Int64Array>())),
        ("customer", Arc::new(visits.iter().map(|visit| visit.customer).collect::<Int64Array>())),
        ("shop", Arc::new(visits.iter().map(|visit| Some(visit.shop)).collect::<StringArray>())),
        ("page", Arc::new(visits.iter().map(|visit| visit.page.clone()).collect::<StringArray>())),
    ];
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)));
    let batch = batch.expect("columns");
    let mut writer = ArrowWriter::try_new(std::fs::File::create(path).expect("a file"), batch.schema(), None).expect("opens");
    writer.write(&batch).expect("writes");
    writer.close().expect("closes");
}

/// A small town: `people` people on each of three days, of whom each has some rows in some groups. The same for the same seed.
pub(crate) fn town(people: u128, seed: u64) -> Vec<Row> {
    let mut random = Random(seed);
    let mut rows = Vec::new();
    for day in 0..3 {
        for person in 0..people {
            for _ in 0..random.below(5) {
                rows.push(Row {
                    day: DAY + day,
                    person: pseudonym(person, day),
                    country: random.one_of(&["BR", "DE", "FR", "IN", "US", "ZZ"]),
                    platform: random.one_of(PlatformCode::ALL),
                    activity: random.one_of(Activity::ALL),
                    events: u32::try_from(random.below(90)).expect("small"),
                    seconds: u32::try_from(random.below(9000)).expect("small"),
                });
            }
        }
    }
    rows
}

/// Visits of a few customers.
pub(crate) fn visits(customers: i64, seed: u64) -> Vec<Visit> {
    let mut random = Random(seed);
    let mut visits = Vec::new();
    for customer in 0..customers {
        for _ in 0..random.below(7) {
            visits.push(Visit {
                customer: customer * 7 - 3,
                shop: random.one_of(&["north", "south", "west", "unlisted"]),
                page: (random.below(5) > 0).then(|| format!("p{}", random.below(9))),
                gain: (random.below(6) > 0).then(|| i64::try_from(random.below(2600)).expect("small") - 1300),
            });
        }
    }
    visits
}

/// The pseudonym of a person on a day: another each day.
pub(crate) fn pseudonym(person: u128, day: i32) -> u128 {
    let day = u128::from(day.unsigned_abs());
    (person + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).rotate_left(17 + u32::try_from(day).unwrap_or(0))
        ^ (day << 96)
}

/// A small generator whose numbers are the same everywhere (splitmix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(crate) fn one_of<T: Clone>(&mut self, values: &[T]) -> T {
        let at = usize::try_from(self.below(values.len() as u64)).expect("an index");
        values[at].clone()
    }
}
