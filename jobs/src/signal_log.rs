//! How integrity signals get from `minimize` to the integrity job: through the `integrity.signals` topic, or, on one machine, through
//! sealed files that the integrity job deletes once it has committed past them.
//!
//! Both are written before the range is committed, and both carry (origin, sequence, chunk), by which the reader drops repeats. In both, tokens of pairs
//! are covered (`pair_cover.rs`).

use std::sync::Arc;

use anyhow::Context as _;
use arrow::array::RecordBatch;
use async_trait::async_trait;
use starling_ingest::Producer;
use starling_schemas::ids::{EpochId, PartitionId, Purpose, Sequence};
use starling_schemas::signals::{SignalBatch, route};
use starling_store::{Files, KeyId, KeyKind, Keyring, Plan, seal, unseal};

use crate::config::Transport;
use crate::home::Home;
use crate::pair_cover;

/// Most rows of one message: keeps messages far below a broker's usual limit of 1 MiB.
const ROWS_PER_MESSAGE: usize = 8192;
/// Folder of the local log.
const FOLDER: &str = "signals";

/// Takes the signals of a range and returns when they are durable.
#[async_trait]
pub trait SignalSink: Send + Sync + 'static {
    /// Writes `rows` of the planned range. Writing the same range again is harmless.
    ///
    /// # Errors
    /// When they are not durable; the range is then tried again.
    async fn publish(&self, plan: &Plan, rows: RecordBatch) -> anyhow::Result<()>;
}

/// The sink the settings ask for.
///
/// # Errors
/// When the producer cannot be made.
pub fn sink(home: &Home) -> anyhow::Result<Arc<dyn SignalSink>> {
    Ok(match home.config.signals.transport {
        Transport::Local => Arc::new(LocalLog { home: home.clone() }),
        Transport::Kafka => Arc::new(KafkaLog {
            producer: Arc::new(Producer::new(&home.config.kafka.brokers, &home.config.kafka.client_properties()?)?),
            topic: home.config.signals.topic.clone(),
            partitions: home.config.signals.partitions,
            pair_partitions: home.config.signals.pair_partitions,
            home: home.clone(),
        }),
    })
}

struct KafkaLog {
    producer: Arc<Producer>,
    topic: String,
    partitions: u32,
    pair_partitions: u32,
    home: Home,
}

#[async_trait]
impl SignalSink for KafkaLog {
    async fn publish(&self, plan: &Plan, rows: RecordBatch) -> anyhow::Result<()> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        tokio::task::block_in_place(|| {
            for (partition, part) in route(&rows, self.partitions, self.pair_partitions)?.into_iter().enumerate() {
                let Some(part) = part else { continue };
                for (chunk, from) in (0..part.num_rows()).step_by(ROWS_PER_MESSAGE).enumerate() {
                    let rows = part.slice(from, ROWS_PER_MESSAGE.min(part.num_rows() - from));
                    let mut batch = SignalBatch {
                        origin: plan.partition.clone(),
                        sequence: plan.sequence,
                        chunk: u32::try_from(chunk)?,
                        rows,
                        cover: None,
                    };
                    let day = EpochId::of(plan.planned_at_ms);
                    pair_cover::cover(&self.home.keyring, self.home.entropy.as_ref(), day, &mut batch)?;
                    self.producer.send(&self.topic, Some(i32::try_from(partition)?), None, &batch.encode()?)?;
                }
            }
            self.producer.flush(std::time::Duration::from_secs(30))?;
            anyhow::Ok(())
        })
        .context("signals did not reach their topic")
    }
}

struct LocalLog {
    home: Home,
}

#[async_trait]
impl SignalSink for LocalLog {
    async fn publish(&self, plan: &Plan, rows: RecordBatch) -> anyhow::Result<()> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let epoch = EpochId::of(plan.planned_at_ms);
        let mut batch = SignalBatch { origin: plan.partition.clone(), sequence: plan.sequence, chunk: 0, rows, cover: None };
        pair_cover::cover(&self.home.keyring, self.home.entropy.as_ref(), epoch, &mut batch)?;
        let path = path(&plan.partition, plan.sequence, epoch);
        let key = self.home.keyring.get_or_create(data_key(epoch))?;
        let sealed = seal(&key, self.home.entropy.as_ref(), &path, &batch.encode()?)?;
        self.home.local_files.put(&path, sealed.into()).await?;
        Ok(())
    }
}

fn data_key(epoch: EpochId) -> KeyId {
    KeyId { kind: KeyKind::Data, purpose: Purpose::Integrity, epoch }
}

/// `signals/<sequence>-<source>-p<partition>-<day sealed>.sealed`: sorts by sequence, so that partitions are read side by side.
fn path(partition: &PartitionId, sequence: Sequence, epoch: EpochId) -> String {
    let source: String =
        partition.source.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' }).collect();
    format!("{FOLDER}/{:012}-{source}-p{}-{epoch}.sealed", sequence.0, partition.partition)
}

/// The files of the local log, oldest sequences first.
///
/// # Errors
/// When the folder cannot be listed.
pub async fn list(files: &Files) -> anyhow::Result<Vec<String>> {
    Ok(files.list(FOLDER).await?)
}

/// Reads one file of the local log, with its tokens uncovered; `None` when it has gone.
///
/// # Errors
/// When its key is gone, or its bytes are not what was sealed.
pub async fn read(files: &Files, keyring: &Keyring, path: &str) -> anyhow::Result<Option<SignalBatch>> {
    let Some(sealed) = files.get(path).await? else { return Ok(None) };
    let day = path.strip_suffix(".sealed").and_then(|p| p.get(p.len().checked_sub(10)?..)).and_then(EpochId::parse_day);
    let epoch = day.with_context(|| format!("{path}: not a file of the signal log; move it away"))?;
    let key = keyring.get(data_key(epoch))?.with_context(|| format!("{path}: the key of {epoch} is not in the keyring"))?;
    let mut batch = SignalBatch::decode(&unseal(&key, path, &sealed)?)?;
    pair_cover::uncover(keyring, &mut batch)?;
    Ok(Some(batch))
}
