//! A small house: a metastore, a file store, and released files as `privacy` writes them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Date32Array, Float64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::parquet::arrow::ArrowWriter;
use starling_query::{Engine, Limits};
use starling_schemas::cost::Cost;
use starling_schemas::ids::EpochId;
use starling_schemas::metrics::{Catalogue, NanoRho};
use starling_schemas::time::FixedClock;
use starling_store::{ChargeRequest, Files, Metastore, ReleaseRecord, Spender};

/// 2026-01-08 12:00 UTC.
pub(crate) const NOW_MS: i64 = 1_767_873_600_000;
/// 2026-01-05.
pub(crate) const DAY: i32 = 20_458;
/// A number in the data that no error may show.
pub(crate) const CANARY: f64 = 4_917_012_345.5;

/// The limits of an engine, with time for every statement: what a test shows is not to depend on how busy the machine is.
pub(crate) fn patient() -> Limits {
    Limits { timeout: Duration::from_secs(600), ..Limits::default() }
}

pub(crate) struct House {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) metastore: Arc<Metastore>,
    pub(crate) files: Arc<Files>,
    pub(crate) catalogue: Arc<Catalogue>,
}

impl House {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let metastore =
            Metastore::open(&format!("sqlite:{}", folder.path().join("meta.db").display())).await.expect("a metastore");
        let files = Files::open_local(&folder.path().join("files")).expect("a file store");
        let catalogue = Catalogue::builtin().expect("reviewed");
        Self { folder, metastore: Arc::new(metastore), files: Arc::new(files), catalogue: Arc::new(catalogue) }
    }

    pub(crate) async fn engine(&self, limits: Limits) -> Engine {
        let clock = Arc::new(FixedClock::new(NOW_MS));
        Engine::open_with(Arc::clone(&self.metastore), Arc::clone(&self.files), Arc::clone(&self.catalogue), clock, limits)
            .await
            .expect("opens")
    }

    /// Two days of people, one of messages (with the canary), none of call minutes.
    pub(crate) async fn with_releases() -> Self {
        let house = Self::new().await;
        for (day, more) in [(DAY, 0.0), (DAY + 1, 100.5)] {
            let rows = [
                (["BR", "android"], Some(5_200.25 + more)),
                (["BR", "ios"], Some(310.0 + more)),
                (["DE", "android"], Some(2_100.5 + more)),
                (["DE", "ios"], Some(1_400.0 + more)),
                (["IN", "android"], Some(9_000.0 + more)),
                (["IN", "ios"], None),
            ];
            house.release("people_served_daily", day, &["country", "platform"], &rows).await;
        }
        let rows = [(["BR", "person"], Some(70_000.0)), (["DE", "group"], Some(30_000.0)), (["ZZ", "channel"], Some(CANARY))];
        house.release("messages_daily", DAY, &["country", "conversation_kind"], &rows).await;
        house
    }

    /// Charges, writes and records a release as `privacy` does.
    pub(crate) async fn release<const N: usize>(
        &self,
        metric: &str,
        day: i32,
        dimensions: &[&str; N],
        rows: &[([&str; N], Option<f64>)],
    ) {
        let metric = self.catalogue.metrics.iter().find(|m| m.name == metric).expect("listed");
        let (epoch, dataset) = (EpochId(day), &self.catalogue.datasets[&metric.dataset]);
        let request = ChargeRequest {
            dataset: metric.dataset.clone(),
            epochs: [epoch].into(),
            question: format!("release of {}", metric.name),
            cost: Cost::noise(metric.rho),
            limits: dataset.limits(),
            spender: Spender::Releases,
            now_ms: NOW_MS,
        };
        self.metastore.charge(&request).await.expect("charged");
        let path = format!("stats/{}/{epoch}.parquet", metric.name);
        let bytes = parquet(day, dimensions, rows);
        let blake3 = blake3::hash(&bytes).to_hex().to_string();
        assert!(self.files.put_new(&path, bytes.into()).await.expect("written"));
        let record = ReleaseRecord {
            metric: metric.name.clone(),
            epoch,
            path,
            blake3,
            rows: rows.len() as u64,
            suppressed: rows.iter().filter(|row| row.1.is_none()).count() as u64,
            rho: metric.rho,
            epsilon: 0.5,
            delta: dataset.delta,
            released_at_ms: NOW_MS,
        };
        assert!(self.metastore.record_release(&record).await.expect("recorded"));
        assert!(record.rho > NanoRho(0));
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }
}

fn parquet<const N: usize>(day: i32, dimensions: &[&str; N], rows: &[([&str; N], Option<f64>)]) -> Vec<u8> {
    let number = |name: &str, null| Field::new(name, DataType::Float64, null);
    let mut fields = vec![Field::new("day", DataType::Date32, false)];
    fields.extend(dimensions.iter().map(|name| Field::new(*name, DataType::Utf8, false)));
    fields.extend([number("value", true), number("low", true), number("high", true), number("stddev", false)]);
    fields.extend([Field::new("status", DataType::Utf8, false), number("epsilon", false), number("delta", false)]);
    let schema = Arc::new(Schema::new(fields));
    let values = |of: &dyn Fn(f64) -> f64| Arc::new(rows.iter().map(|row| row.1.map(of)).collect::<Float64Array>()) as ArrayRef;
    let same = |value: f64| Arc::new(Float64Array::from(vec![value; rows.len()])) as ArrayRef;
    let mut columns: Vec<ArrayRef> = vec![Arc::new(Date32Array::from(vec![day; rows.len()]))];
    for index in 0..N {
        columns.push(Arc::new(rows.iter().map(|row| Some(row.0[index])).collect::<StringArray>()));
    }
    columns.extend([values(&|v| v), values(&|v| v - 49.0), values(&|v| v + 49.0), same(25.0)]);
    columns.push(Arc::new(
        rows.iter().map(|row| Some(if row.1.is_some() { "released" } else { "suppressed" })).collect::<StringArray>(),
    ));
    columns.extend([same(0.5), same(1e-9)]);
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns).expect("fits");
    let mut writer = ArrowWriter::try_new(Vec::new(), schema, None).expect("opens");
    writer.write(&batch).expect("writes");
    writer.into_inner().expect("closes")
}
