//! From a closed window to released statistics, once per metric, for ever.
//!
//! ```text
//!  metrics ─► plan, price (metric.rs) ─► charge, each ─► audit entry ─► one pass over the rows for all (pass.rs) ─► noise, once each
//!                                                                                                                      │
//!                              record ◄─ audit entry ◄─ stats/<metric>/<day>.parquet, created, never replaced ◄────────┘ written.rs
//! ```
//!
//! # What can go wrong
//!
//! | what | what happens |
//! |---|---|
//! | killed after the charge, or after the draw | the next call finds the charge, reads again, draws under it; no second charge |
//! | killed after the file | the next call takes the file as it is, even after the rows have expired |
//! | two releasers at once | both may draw; one file; both report its bytes |
//! | budget spent | the metric is reported as refused with what is left; the others go on |
//! | a metric's definition changes | released windows keep their release; a charged window is drawn at the cost charged then |
//! | metastore restored from an old copy | files that are there are charged again and adopted, not drawn again |
//! | a foreign file at a release's path | [`ReleaseError::ForeignFile`]: nothing is recorded |
//! | a metric's query cannot be planned | [`ReleaseError::Definition`], before anything is charged; `starling metrics check` says it earlier |

mod error;
mod pass;

use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;
use starling_privacy::question::{Plan, plan_with};
use starling_privacy::{Charge, Decision, Ledger, PrivacyError, epsilon};
use starling_schemas::cost::{AttoDelta, Cost};
use starling_schemas::ids::{EpochId, WindowId};
use starling_schemas::metrics::{Catalogue, Dataset, Metric, NanoRho};
use starling_schemas::time::Clock;
use starling_store::{
    ChargeRequest, Files, KeyId, KeyKind, Keyring, KeyringError, Metastore, ReleaseRecord, SecretKey, Spender, StoreError,
    WindowState, killpoint,
};

pub use error::ReleaseError;

use crate::metric::{Measured, Planner, can_cut};
use crate::private::vault::Block;
use crate::private::{cut_shares, noisy_table};
use crate::written::{self, Facts, Summary};
use pass::Rows;

/// How far back the audit log is searched for an entry that a crashed attempt may have written.
const AUDIT_LOOK_BACK: u32 = 10_000;

/// Releases the statistics of closed windows.
#[derive(Clone)]
pub struct Releaser {
    /// Ledger, windows, releases, audit log.
    pub metastore: Arc<Metastore>,
    /// Person tables and released files.
    pub files: Arc<Files>,
    /// Holds the data keys of person tables.
    pub keyring: Arc<Keyring>,
    /// Tells when.
    pub clock: Arc<dyn Clock>,
    /// What to release.
    pub catalogue: Arc<Catalogue>,
}

/// What became of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReleaseStatus {
    /// Released by this call, which may have finished what an earlier one had begun.
    Released,
    /// It was released before. Nothing was read, charged or drawn.
    AlreadyReleased,
    /// The block's budget does not hold its cost. Nothing was read, charged or drawn.
    Refused {
        /// What is left in the block.
        left: NanoRho,
    },
}

/// A metric's release, or why there is none.
#[derive(Debug, Clone, PartialEq)]
pub struct ReleaseReport {
    /// The release as recorded. If refused: what it would have been, without file, rows or time.
    pub record: ReleaseRecord,
    /// What became of it.
    pub status: ReleaseStatus,
}

/// A closed window whose rows can be read.
struct Window {
    path: String,
    complete: bool,
    key: SecretKey,
}

/// A metric that was charged and waits for its rows.
struct Asked<'a> {
    metric: &'a Metric,
    dataset: &'a Dataset,
    charge: Charge,
    measured: Measured,
}

impl Releaser {
    /// Releases every metric of the window that is not released yet, in the catalogue's order. Call it again after any failure.
    ///
    /// # Privacy
    /// Per metric: the ledger is charged before a row is read (I2); the rows are read in one pass for all metrics, and bounded and summed for
    /// each; noise is drawn once; the file is created, never replaced (I3). A crash between charge and file leaves a charge under which the
    /// next call draws: what was drawn before reached no disk and nobody. Of two callers at once, both may draw, but the one whose file came
    /// second drops its draw and takes the other's bytes. Together the metrics of a window cost one person at most the sum of their ρ, and the
    /// ledger holds that sum below the dataset's limit.
    ///
    /// The audit log gets an entry before rows are read, and one before a release is recorded and so becomes visible (I6).
    ///
    /// # Errors
    /// [`ReleaseError::UnknownWindow`], [`ReleaseError::NotClosed`], [`ReleaseError::Expired`] (I7), [`ReleaseError::Definition`]: nothing was
    /// charged. Any other: charges stand, what was released stays released.
    pub async fn release_window(&self, window: impl Into<WindowId>) -> Result<Vec<ReleaseReport>, ReleaseError> {
        let window = window.into();
        let epoch = window.epoch;
        let recorded = self.metastore.releases().await?;
        let mut reports = Vec::new();
        let mut to_draw = Vec::new();
        for metric in self.catalogue.metrics_of(window.span) {
            if let Some(record) = recorded.iter().find(|r| r.metric == metric.name && r.epoch == epoch) {
                reports.push(ReleaseReport { record: record.clone(), status: ReleaseStatus::AlreadyReleased });
            } else if let Some(bytes) = self.files.get(&written::path(&metric.name, epoch)).await? {
                reports.push(self.adopt(metric, epoch, &bytes).await?);
            } else {
                to_draw.push(metric);
            }
        }
        if !to_draw.is_empty() {
            reports.extend(self.draw(window, &to_draw).await?);
        }
        let place = |name: &str| self.catalogue.metrics.iter().position(|m| m.name == name);
        reports.sort_by_key(|report| place(&report.record.metric));
        Ok(reports)
    }

    /// Finishes a release whose file is there already. The rows are not needed, so this works after they have expired, too.
    async fn adopt(&self, metric: &Metric, epoch: EpochId, bytes: &Bytes) -> Result<ReleaseReport, ReleaseError> {
        // The charge is there, unless the metastore was restored from an older copy: then the ledger has to learn of it again.
        match self.charge(metric, epoch).await? {
            Decision::Granted(_) => self.publish(metric, epoch, bytes, false).await,
            Decision::Refused(refusal) => self.refused(metric, epoch, refusal.left.rho),
        }
    }

    /// Charges, reads, draws and publishes.
    async fn draw(&self, id: WindowId, metrics: &[&Metric]) -> Result<Vec<ReleaseReport>, ReleaseError> {
        let epoch = id.epoch;
        let window = self.window(id).await?;
        let planner = Planner::over(&self.catalogue)?;
        let mut planned = Vec::with_capacity(metrics.len());
        for metric in metrics {
            let wrong = |error| ReleaseError::Definition { metric: metric.name.clone(), error };
            let dataset = self.dataset(metric)?;
            let block = Block::of(epoch, window.path.clone(), window.complete);
            let plan = planner.plan(metric).await.map_err(wrong)?;
            planned.push((*metric, dataset, planner.price(plan, metric, dataset, Some(block)).await.map_err(wrong)?));
        }
        let mut reports = Vec::new();
        let mut asked = Vec::new();
        for (metric, dataset, mut measured) in planned {
            match self.charge(metric, epoch).await? {
                Decision::Granted(charge) => {
                    killpoint::reached("after_charge");
                    if charge.cost().rho != measured.priced.plan.rho {
                        // Charged when it was defined otherwise: what the ledger knows is what may be spent.
                        let Plan { delta, .. } = measured.priced.plan;
                        let beside = measured.priced.plan.beside();
                        measured.priced.plan = plan_with(&measured.priced.leaf.spec, charge.cost().rho, delta, beside)?;
                    }
                    asked.push(Asked { metric, dataset, charge, measured });
                }
                Decision::Refused(refusal) => reports.push(self.refused(metric, epoch, refusal.left.rho)?),
            }
        }
        if asked.is_empty() {
            return Ok(reports);
        }

        let names: Vec<&str> = asked.iter().map(|asked| asked.metric.name.as_str()).collect();
        let detail = json!({ id.span.name(): epoch.to_string(), "table": &window.path, "for_metrics": names });
        self.metastore.append_audit("person_rows_read", detail, self.clock.now_ms()).await?;
        let rows = Rows { files: &self.files, key: &window.key, path: &window.path, window: id };
        let summed = pass::read(rows, asked.iter().map(|asked| &asked.measured), &planner.sessions.reading).await?;

        for (asked, summed) in asked.into_iter().zip(summed) {
            let Asked { metric, dataset, charge, measured } = asked;
            let (fresh, plan) = (charge.is_fresh(), measured.priced.plan.clone());
            let drawn = tokio::task::spawn_blocking(move || charge.draw(summed, &plan)).await;
            let drawn = drawn.map_err(|_| PrivacyError::NotDrawn)??;
            let noisy = noisy_table(&measured.priced, &drawn)?;
            let cut = match (&drawn.bias, &measured.priced.plan.bias) {
                (Some(bias), Some(planned)) => cut_shares(bias, planned),
                _ if can_cut(&measured.priced.leaf.spec) => [None; 2],
                _ => [Some(0.0); 2],
            };
            drop(drawn);
            killpoint::reached("after_noise");
            let table = measured.table(noisy, &planner.sessions).await?;
            let facts = Facts {
                metric,
                epoch,
                complete: window.complete,
                plan: &measured.priced.plan,
                cut,
                told_at: dataset.delta,
                listed: !measured.priced.leaf.spec.discovered,
            };
            let schema = written::schema(metric, &measured.keys, &measured.priced.leaf);
            let ours = written::encode(facts, &schema, &table).ok_or(ReleaseError::NotEncoded)?;
            let path = written::path(&metric.name, epoch);
            let is_first = self.files.put_new(&path, ours.clone()).await?;
            let bytes = if is_first { ours } else { self.files.get(&path).await?.ok_or(StoreError::FileMissing { path })? };
            killpoint::reached("after_release_file");
            reports.push(self.publish(metric, epoch, &bytes, fresh && is_first).await?);
        }
        Ok(reports)
    }

    /// Records the release whose file is in place. `first_attempt`: no other attempt can have come this far.
    async fn publish(
        &self,
        metric: &Metric,
        epoch: EpochId,
        bytes: &Bytes,
        first_attempt: bool,
    ) -> Result<ReleaseReport, ReleaseError> {
        let path = written::path(&metric.name, epoch);
        let Some(summary) = written::summary(bytes, metric, epoch) else { return Err(ReleaseError::ForeignFile { path }) };
        let Summary { rows, suppressed, rho, epsilon, delta } = summary;
        let now_ms = self.clock.now_ms();
        let blake3 = blake3::hash(bytes).to_hex().to_string();
        let record = ReleaseRecord {
            metric: metric.name.clone(),
            epoch,
            path,
            blake3,
            rows,
            suppressed,
            rho,
            epsilon,
            delta,
            released_at_ms: now_ms,
        };

        if first_attempt || !self.is_in_the_log(&record).await? {
            let kind = if epoch.is_hour() { "hour" } else { "day" };
            let detail = json!({
                "metric": record.metric, kind: epoch.to_string(), "file": record.path, "blake3": record.blake3, "rows": rows,
                "suppressed": suppressed, "nano_rho": rho.0, "epsilon": epsilon, "delta": delta,
            });
            self.metastore.append_audit("released", detail, now_ms).await?;
        }
        if self.metastore.record_release(&record).await? {
            tracing::info!(metric = record.metric, day = %epoch, rows, suppressed, nano_rho = rho.0, "released");
            return Ok(ReleaseReport { record, status: ReleaseStatus::Released });
        }
        let recorded = self.metastore.releases().await?.into_iter().find(|r| r.metric == record.metric && r.epoch == epoch);
        Ok(ReleaseReport { record: recorded.unwrap_or(record), status: ReleaseStatus::AlreadyReleased })
    }

    /// Whether an earlier attempt came as far as the log's entry and not as far as the record.
    async fn is_in_the_log(&self, record: &ReleaseRecord) -> Result<bool, ReleaseError> {
        let entries = self.metastore.audit_tail(AUDIT_LOOK_BACK).await?;
        let (metric, blake3) = (json!(record.metric), json!(record.blake3));
        Ok(entries
            .iter()
            .any(|e| e.kind == "released" && e.detail.get("metric") == Some(&metric) && e.detail.get("blake3") == Some(&blake3)))
    }

    async fn charge(&self, metric: &Metric, epoch: EpochId) -> Result<Decision, ReleaseError> {
        let request = ChargeRequest {
            dataset: metric.dataset.clone(),
            epochs: [epoch].into(),
            question: metric.question(),
            cost: Cost { rho: metric.rho, delta: AttoDelta::stated(metric.threshold_delta) },
            limits: self.dataset(metric)?.limits(),
            spender: Spender::Releases,
            now_ms: self.clock.now_ms(),
        };
        Ok(Ledger::new(Arc::clone(&self.metastore)).charge(request).await?)
    }

    fn refused(&self, metric: &Metric, epoch: EpochId, left: NanoRho) -> Result<ReleaseReport, ReleaseError> {
        let delta = self.dataset(metric)?.delta;
        let record = ReleaseRecord {
            metric: metric.name.clone(),
            epoch,
            path: written::path(&metric.name, epoch),
            blake3: String::new(),
            rows: 0,
            suppressed: 0,
            rho: metric.rho,
            epsilon: epsilon(metric.rho, delta),
            delta,
            released_at_ms: 0,
        };
        Ok(ReleaseReport { record, status: ReleaseStatus::Refused { left } })
    }

    fn dataset(&self, metric: &Metric) -> Result<&Dataset, ReleaseError> {
        let missing = || ReleaseError::NoDataset { metric: metric.name.clone(), dataset: metric.dataset.clone() };
        self.catalogue.datasets.get(&metric.dataset).ok_or_else(missing)
    }

    /// The window, if it has closed and its rows can be read.
    async fn window(&self, id: WindowId) -> Result<Window, ReleaseError> {
        let windows = self.metastore.windows_of(id.span).await?;
        let window = windows.into_iter().find(|w| w.epoch == id.epoch).ok_or(ReleaseError::UnknownWindow { window: id })?;
        if !window.state.is_final() {
            return Err(ReleaseError::NotClosed { window: id, state: window.state.name() });
        }
        let expired = || ReleaseError::Expired { window: id };
        let table = window.table.filter(|_| window.expired_at_ms.is_none()).ok_or_else(expired)?;
        let key = match self.keyring.get(KeyId { kind: KeyKind::Data, purpose: id.span.purpose(), epoch: id.epoch }) {
            Ok(key) => key.ok_or_else(expired)?,
            Err(KeyringError::Destroyed(_)) => return Err(expired()),
            Err(error) => return Err(error.into()),
        };
        Ok(Window { path: table.path, complete: window.state == WindowState::Closed, key })
    }
}

#[cfg(test)]
mod tests;
