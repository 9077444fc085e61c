//! One pass over a person table for all metrics of a window: a batch is read, decrypted and named once, and handed to every metric's own plan.

use std::sync::{Arc, Mutex};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::error::DataFusionError;
use datafusion::execution::context::SessionState;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::StreamExt;
use starling_privacy::PrivacyError;
use starling_privacy::question::Asked;
use starling_schemas::ids::WindowId;
use starling_store::{Files, SecretKey, StoreError, read_table};
use tokio::sync::mpsc;

use super::ReleaseError;
use crate::metric::Measured;
use crate::private;
use crate::private::table::Rows as Readable;
use crate::private::vault::{Names, named};

/// Batches that wait for the slowest metric.
const WAITING: usize = 4;

/// The person table of one window.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) files: &'a Files,
    pub(super) key: &'a SecretKey,
    pub(super) path: &'a str,
    pub(super) window: WindowId,
}

/// Reads the table once, and bounds and adds up for each metric, in their order.
///
/// # Privacy
/// The caller has charged every metric.
///
/// # Errors
/// [`ReleaseError::Expired`] when the table is gone, [`PrivacyError::Unsorted`] and others when it is not as it should be: nothing is given then.
pub(super) async fn read<'a>(
    rows: Rows<'_>,
    metrics: impl Iterator<Item = &'a Measured>,
    state: &SessionState,
) -> Result<Vec<Asked>, ReleaseError> {
    let mut takers = Vec::new();
    let mut feeds: Vec<(SchemaRef, mpsc::Sender<RecordBatch>)> = Vec::new();
    for measured in metrics {
        let (sender, receiver) = mpsc::channel(WAITING);
        let schema = Arc::clone(&measured.priced.leaf.table.schema);
        let fed = Fed { schema: Arc::clone(&schema), receiver: Mutex::new(Some(receiver)) };
        let table = StreamingTable::try_new(Arc::clone(&schema), vec![Arc::new(fed)])
            .map_err(|_| PrivacyError::WrongColumn { column: "person" })?;
        let readable = Readable { table: Arc::new(table), blocks: Arc::new(vec![rows.window.epoch]) };
        feeds.push((schema, sender));
        takers.push(async move { private::read(&measured.priced, &readable, state, &measured.literals).await });
    }
    let taken = futures::future::join_all(takers);
    let (fed, taken) = futures::join!(feed(rows, feeds), taken);
    // A table that broke off gives no sums, however good the sums of its beginning look.
    fed?;
    taken.into_iter().map(|asked| asked.map_err(ReleaseError::from)).collect()
}

async fn feed(rows: Rows<'_>, feeds: Vec<(SchemaRef, mpsc::Sender<RecordBatch>)>) -> Result<(), ReleaseError> {
    let gone = |error: StoreError| match error {
        // A table that is gone went because its time was over.
        StoreError::FileMissing { .. } => ReleaseError::Expired { window: rows.window },
        error => error.into(),
    };
    let names = Names::listed();
    let mut table = read_table(rows.files, rows.key, rows.path).await.map_err(gone)?;
    while let Some(batch) = table.next().await {
        let batch = batch.map_err(gone)?;
        let mut last: Option<(&SchemaRef, RecordBatch)> = None;
        for (schema, feed) in &feeds {
            let shown = match &last {
                Some((same, shown)) if Arc::ptr_eq(same, schema) || *same == schema => shown.clone(),
                _ => {
                    let shown =
                        named(&batch, rows.window, schema, &names).map_err(|error| crate::error::from_execution(&error))?;
                    last = Some((schema, shown.clone()));
                    shown
                }
            };
            // Whoever failed takes no more; that is told by itself.
            let _gone = feed.send(shown).await;
        }
    }
    Ok(())
}

/// Rows as they are handed in.
struct Fed {
    schema: SchemaRef,
    receiver: Mutex<Option<mpsc::Receiver<RecordBatch>>>,
}

impl std::fmt::Debug for Fed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fed")
    }
}

impl PartitionStream for Fed {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let receiver = self.receiver.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        let batches = match receiver {
            Some(receiver) => futures::stream::unfold(receiver, |mut receiver| async {
                let batch = receiver.recv().await?;
                Some((Ok(batch), receiver))
            })
            .left_stream(),
            // A second reading would see an empty table, and be believed.
            None => {
                futures::stream::once(async { Err(DataFusionError::Execution("a pass is read once".to_owned())) }).right_stream()
            }
        };
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches))
    }
}
