//! A statement that keeps its thread keeps nobody else waiting.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use starling_query::{Bills, Engine, Vault};
use starling_schemas::ids::EpochId;
use starling_schemas::metrics::Catalogue;
use starling_schemas::rows::BILLING;
use starling_schemas::time::FixedClock;

use super::fixture::patient;
use super::shown;
use super::vault_house::{House, NOW_MS, town, visits};

/// Bills that keep the thread they are asked on until somebody lets go of it.
#[derive(Debug)]
struct Keeping {
    begun: Mutex<Sender<()>>,
    let_go: Mutex<Receiver<()>>,
}

#[async_trait]
impl Bills for Keeping {
    async fn of_days(&self, _: EpochId, _: EpochId) -> Result<RecordBatch, Box<dyn std::error::Error + Send + Sync>> {
        self.begun.lock().expect("whole").send(())?;
        self.let_go.lock().expect("whole").recv_timeout(Duration::from_secs(60)).map_err(|_| "nobody let go")?;
        Ok(RecordBatch::new_empty(Arc::clone(&BILLING)))
    }
}

// One thread for whoever asks: were statements worked on by it, nobody would let go.
#[tokio::test(flavor = "current_thread")]
async fn whoever_asks_is_not_kept_by_a_statement_in_work() {
    let house = House::new(Catalogue::builtin().expect("reviewed"), &town(40, 1), &visits(20, 2)).await;
    let vault = Vault::new(
        Arc::clone(&house.metastore),
        Arc::clone(&house.files),
        Arc::clone(&house.keyring),
        Arc::clone(&house.catalogue),
    );
    let ((began, begun), (lets_go, let_go)) = (channel(), channel());
    let bills = Arc::new(Keeping { begun: Mutex::new(began), let_go: Mutex::new(let_go) });
    let engine =
        Arc::new(Engine::open_with_bills(vault, bills, Arc::new(FixedClock::new(NOW_MS)), patient()).await.expect("opens"));
    let keeping = Arc::clone(&engine);
    let long = tokio::spawn(async move { keeping.query("SELECT count(*) AS days FROM billing.daily").await.map(|_| ()) });
    while begun.try_recv().is_err() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for sql in
        ["SELECT 1 AS rows", "SELECT count(*) AS rows FROM stats.messages_daily", "SELECT count(*) AS rows FROM meta.releases"]
    {
        assert!(shown(&engine, sql).await.contains("rows"), "{sql}");
    }
    assert!(!long.is_finished());
    lets_go.send(()).expect("somebody waits for it");
    assert_eq!(long.await.expect("no panic"), Ok(()));
}
