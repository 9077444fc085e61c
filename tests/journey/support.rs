//! What the journeys share: running the executable, and reading what it left in a form that two runs can be compared by.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use arrow::array::AsArray as _;
use arrow::datatypes::{UInt8Type, UInt16Type, UInt32Type};
use futures::TryStreamExt as _;
use prost::Message as _;
use starling_schemas::event::{Choices, Event};
use starling_schemas::ids::{EpochId, Purpose, Span};
use starling_schemas::time::{Entropy, NoEntropy};
use starling_store::{Files, KeyId, KeyKind, Keyring, Metastore, read_table};

/// The workspace's folder.
pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("jobs stands in the workspace").to_owned()
}

/// The executable, with logs at `info` and no settings from outside.
pub(crate) fn starling() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_starling"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("STARLING_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

/// Where the metastore of a data directory is: named by the file `<data_dir>.metastore`, or SQLite in the directory.
pub(crate) fn metastore_of(data_dir: &Path) -> Option<String> {
    std::fs::read_to_string(data_dir.with_extension("metastore")).ok()
}

/// The executable, with the metastore of this data directory.
pub(crate) fn starling_on(data_dir: &Path) -> Command {
    let mut command = starling();
    if let Some(url) = metastore_of(data_dir) {
        command.env("STARLING_METASTORE__URL", url);
    }
    command
}

/// Runs to the end; panics with its output when it fails.
pub(crate) fn succeed(command: &mut Command) -> String {
    let output = command.output().expect("starling starts");
    assert!(output.status.success(), "{command:?}\n{}", told(&output));
    String::from_utf8(output.stdout).expect("output is text")
}

/// Runs to the end; panics when it does not fail.
pub(crate) fn fail(command: &mut Command) -> String {
    let output = command.output().expect("starling starts");
    assert!(!output.status.success(), "{command:?} should have failed\n{}", told(&output));
    String::from_utf8(output.stderr).expect("errors are text")
}

/// Both streams of a finished process.
pub(crate) fn told(output: &Output) -> String {
    format!("{}\n{}\n{}", output.status, String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A simulated trace with its truth.
pub(crate) fn simulate(dir: &Path, people: u64, days: u32, seed: u64, more: &[&str]) -> (PathBuf, serde_json::Value) {
    let (trace, truth) = (dir.join("trace.pb.zst"), dir.join("truth.json"));
    succeed(
        starling()
            .args(["simulate", "--people", &people.to_string(), "--days", &days.to_string(), "--seed", &seed.to_string()])
            .args(["--out".as_ref(), trace.as_os_str(), "--truth".as_ref(), truth.as_os_str()])
            .args(more),
    );
    (trace, serde_json::from_slice(&std::fs::read(truth).expect("truth")).expect("truth is JSON"))
}

/// Takes a trace to its end.
pub(crate) fn run_trace(trace: &Path, data_dir: &Path) -> String {
    succeed(starling_on(data_dir).arg("run").arg("--trace").arg(trace).arg("--data-dir").arg(data_dir))
}

/// How many metrics this build releases of a day.
pub(crate) fn metrics() -> usize {
    starling_schemas::metrics::Catalogue::builtin().expect("reviewed").metrics_of(Span::Day).count()
}

/// The days among the windows that `status` tells.
pub(crate) fn days(status: &serde_json::Value) -> Vec<serde_json::Value> {
    let is_day = |w: &serde_json::Value| w["window"].as_str().and_then(EpochId::parse_day).is_some();
    status["windows"].as_array().expect("windows").iter().filter(|w| is_day(w)).cloned().collect()
}

/// Rows of one answer, as JSON.
pub(crate) fn sql(data_dir: &Path, statement: &str) -> Vec<serde_json::Value> {
    let text = succeed(starling_on(data_dir).arg("sql").arg("--data-dir").arg(data_dir).args(["--format", "json", statement]));
    text.lines().map(|l| serde_json::from_str(l).expect("JSON lines")).collect()
}

/// What businesses are billed for, as the executable shows it.
pub(crate) fn bill(data_dir: &Path, more: &[&str]) -> Vec<serde_json::Value> {
    let text = succeed(starling_on(data_dir).args(["billing", "--format", "json", "--data-dir"]).arg(data_dir).args(more));
    text.lines().map(|line| serde_json::from_str(line).expect("JSON lines")).collect()
}

/// What businesses say of themselves, as the executable shows it.
pub(crate) fn accounts(data_dir: &Path) -> Vec<serde_json::Value> {
    sql(data_dir, "SELECT * FROM business.accounts ORDER BY business")
}

/// Alerts, as the executable shows them.
pub(crate) fn alerts(data_dir: &Path) -> Vec<serde_json::Value> {
    let text = succeed(starling_on(data_dir).arg("alerts").arg("--json").arg("--data-dir").arg(data_dir));
    text.lines().map(|l| serde_json::from_str(l).expect("JSON lines")).collect()
}

/// Alerts without how often each was told, which depends on when commits fell. Comparable between runs under the same keys.
pub(crate) fn comparable_alerts(data_dir: &Path) -> Vec<String> {
    comparable(alerts(data_dir))
}

/// The same of alerts that were asked for in another way.
pub(crate) fn comparable(alerts: Vec<serde_json::Value>) -> Vec<String> {
    let mut out: Vec<String> = alerts
        .into_iter()
        .map(|mut alert| {
            let object = alert.as_object_mut().expect("an object");
            object.remove("position");
            object.remove("revision");
            alert.to_string()
        })
        .collect();
    out.sort();
    out
}

/// The same bytes for everybody who asks in the same order: for tests that compare two runs, pseudonym by pseudonym.
struct Counting(std::sync::atomic::AtomicU8);

impl Entropy for Counting {
    fn fill(&self, out: &mut [u8]) -> Result<(), NoEntropy> {
        out.fill(self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst));
        Ok(())
    }
}

/// Makes the integrity keys of these days before anything runs, so that a test can still say whom an alert means when they are gone.
pub(crate) fn integrity_keys(data_dir: &Path, days: &[&str]) -> Vec<(EpochId, [u8; 32])> {
    let keyring = Keyring::open(&data_dir.join("keys"), Arc::new(Counting(1.into()))).expect("keyring");
    let key = |day: &&str| {
        let epoch = EpochId::parse(day).expect("a day");
        let id = KeyId { kind: KeyKind::Pseudonym, purpose: Purpose::Integrity, epoch };
        (epoch, *keyring.get_or_create(id).expect("key").expose())
    };
    days.iter().map(key).collect()
}

/// Makes a data directory whose pseudonym keys for the first half of January 2026 are the same as in every other one made here.
pub(crate) fn with_known_keys(data_dir: &Path) {
    let keyring = Keyring::open(&data_dir.join("keys"), Arc::new(Counting(1.into()))).expect("keyring");
    for day in 1..16 {
        for purpose in Purpose::ALL.into_iter().filter(|purpose| *purpose != Purpose::AnalyticsHour) {
            let epoch = EpochId::parse(&format!("2026-01-{day:02}")).expect("a day");
            keyring.get_or_create(KeyId { kind: KeyKind::Pseudonym, purpose, epoch }).expect("key");
        }
    }
}

/// The state of a data directory, as `starling status --json` tells it.
pub(crate) fn status(data_dir: &Path) -> serde_json::Value {
    serde_json::from_str(&succeed(starling_on(data_dir).args(["status", "--json", "--data-dir"]).arg(data_dir))).expect("JSON")
}

struct NoRandom;

impl Entropy for NoRandom {
    fn fill(&self, _: &mut [u8]) -> Result<(), NoEntropy> {
        Err(NoEntropy)
    }
}

/// The parts of a data directory, for reading.
pub(crate) async fn open(data_dir: &Path) -> (Metastore, Files, Keyring) {
    let url = metastore_of(data_dir).unwrap_or_else(|| format!("sqlite:{}", data_dir.join("metastore.db").display()));
    let metastore = Metastore::open(&url).await.expect("metastore");
    let files = Files::open_local(&data_dir.join("files")).expect("files");
    let keyring = Keyring::open(&data_dir.join("keys"), Arc::new(NoRandom)).expect("keyring");
    (metastore, files, keyring)
}

/// One person's rows of a day: (country, platform, activity, version, detail, account, events, seconds), sorted.
pub(crate) type Person = Vec<(u16, u8, u8, u16, u8, u8, u32, u32)>;

/// The person tables of all closed windows, without pseudonyms: which people there were, as a sorted list of what each did; of weeks and months
/// nothing is known of that. Two runs over the same events under different keys give the same.
pub(crate) fn people(data_dir: &Path) -> BTreeMap<String, Vec<Person>> {
    people_in(data_dir, None)
}

/// The same, where the tables are elsewhere than the rest.
pub(crate) fn people_in(data_dir: &Path, elsewhere: Option<&Files>) -> BTreeMap<String, Vec<Person>> {
    runtime().block_on(async {
        let (metastore, files, keyring) = open(data_dir).await;
        let files = elsewhere.cloned().unwrap_or(files);
        let mut days = BTreeMap::new();
        let mut windows = Vec::new();
        for span in Span::ALL {
            windows.extend(metastore.windows_of(span).await.expect("windows"));
        }
        for window in windows {
            let id = window.id();
            let Some(table) = window.table else { continue };
            let key = keyring
                .get(KeyId { kind: KeyKind::Data, purpose: id.span.purpose(), epoch: id.epoch })
                .expect("keyring")
                .expect("a data key");
            let batches: Vec<_> = read_table(&files, &key, &table.path).await.expect("table").try_collect().await.expect("rows");
            let mut people: BTreeMap<Vec<u8>, Person> = BTreeMap::new();
            for batch in batches {
                let person = batch.column_by_name("person").expect("person").as_fixed_size_binary();
                if id.span != Span::Day {
                    assert_eq!(batch.num_columns(), 1, "who was there, and nothing else");
                    for person in person.iter().flatten() {
                        assert!(people.insert(person.to_vec(), Person::new()).is_none(), "one row a person");
                    }
                    continue;
                }
                let byte = |name, row| batch.column_by_name(name).expect(name).as_primitive::<UInt8Type>().value(row);
                let wide = |name, row| batch.column_by_name(name).expect(name).as_primitive::<UInt16Type>().value(row);
                let counter = |name, row| batch.column_by_name(name).expect(name).as_primitive::<UInt32Type>().value(row);
                for row in 0..batch.num_rows() {
                    people.entry(person.value(row).to_vec()).or_default().push((
                        wide("country", row),
                        byte("platform", row),
                        byte("activity", row),
                        wide("version", row),
                        byte("detail", row),
                        byte("account", row),
                        counter("events", row),
                        counter("seconds", row),
                    ));
                }
            }
            let mut rows: Vec<Person> = people.into_values().collect();
            rows.iter_mut().for_each(|p| p.sort_unstable());
            rows.sort();
            days.insert(id.to_string(), rows);
        }
        days
    })
}

/// A runtime for tests that read the store.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime")
}

/// All files below a folder.
pub(crate) fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            out.extend(files_below(&path));
        } else {
            out.push(path);
        }
    }
    out.sort();
    out
}

/// 2026-01-05 12:00 UTC.
pub(crate) const NOON_MS: i64 = 1_767_614_400_000;

/// An envelope of an adult who agreed to analytics.
pub(crate) fn envelope(actor: &str, time_ms: i64) -> Event {
    Event {
        event_time_ms: time_ms,
        actor: actor.to_owned(),
        ip: vec![203, 0, 113, 9],
        choices: Some(Choices { analytics_consent: true, age_band: 3, ..Choices::default() }),
        account_age_s: Some(86_400 * 400),
        cohort: Vec::new(),
        ..Event::default()
    }
}

/// Writes frames as a trace file: each with its length before it.
pub(crate) fn write_trace(path: &Path, frames: &[Vec<u8>]) {
    let mut bytes = Vec::new();
    for frame in frames {
        prost::encoding::encode_varint(frame.len() as u64, &mut bytes);
        bytes.extend_from_slice(frame);
    }
    std::fs::write(path, bytes).expect("trace written");
}

/// An event as a frame.
pub(crate) fn frame(event: &Event) -> Vec<u8> {
    event.encode_to_vec()
}
