//! The engine with its keeping: takes over a part, restores its state, and commits state, position and alerts together.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use starling_schemas::ids::{EpochId, Generation, PartitionId, Purpose};
use starling_schemas::signals::SignalBatch;
use starling_schemas::time::{Clock, Entropy};
use starling_store::{
    AlertRecord, Files, Finding, KeyId, KeyKind, Keyring, KeyringError, Metastore, SavedState, SecretKey, Telling, killpoint,
    seal, unseal,
};

use crate::engine::{Applied, Engine};
use crate::facts::Fact;
use crate::rules::Rules;
use crate::vectors::{self, FileId};
use crate::{Alert, IntegrityError, Kept};

/// How often who has been silent is forgotten.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// What a runner works with.
#[derive(Clone)]
pub struct RunnerParts {
    /// Checkpoints and alerts.
    pub metastore: Arc<Metastore>,
    /// Sealed state.
    pub files: Arc<Files>,
    /// Keys of the sealed state.
    pub keyring: Arc<Keyring>,
    /// Time of sweeps and key epochs.
    pub clock: Arc<dyn Clock>,
    /// Nonces.
    pub entropy: Arc<dyn Entropy>,
}

/// Detects on one part of the signals: a partition of their topic, or the local log.
///
/// State is sealed under the integrity data key of the day it is written on, and written anew at each commit, so that a state is readable
/// as long as that key lives: 14 days (see `starling`'s retirement of keys). If nobody detects for longer, detection begins anew.
pub struct Runner {
    part: String,
    parts: RunnerParts,
    engine: Engine,
    generation: Generation,
    positions: String,
    state_path: String,
    commits: u64,
    fed: bool,
    swept_ms: i64,
    /// Day on which facts were last removed whose key is gone.
    tidied: Option<EpochId>,
}

impl Runner {
    /// Takes over `part`: whoever held it before cannot commit any more.
    ///
    /// # Errors
    /// [`IntegrityError::Snapshot`] for damaged state; errors of metastore, files and keyring.
    pub async fn open(part: &str, owner: &str, parts: RunnerParts, rules: Rules) -> Result<Self, IntegrityError> {
        let now_ms = parts.clock.now_ms();
        let generation = parts.metastore.take_integrity(part, owner, now_ms).await?;
        let checkpoint = parts.metastore.integrity_checkpoint(part).await?;
        let (mut positions, mut state_path) = (String::new(), String::new());
        let mut engine = None;
        if let Some(checkpoint) = checkpoint.filter(|c| !c.state_path.is_empty()) {
            positions = checkpoint.positions;
            state_path = checkpoint.state_path;
            engine = load(&parts, &state_path, rules.clone()).await?;
            if engine.is_none() {
                tracing::warn!(
                    part,
                    "the detectors' saved state has expired with its key; detection begins anew at the saved position"
                );
            }
        }
        let engine = engine.unwrap_or_else(|| Engine::new(rules));
        Ok(Self {
            part: part.to_owned(),
            parts,
            engine,
            generation,
            positions,
            state_path,
            commits: 0,
            fed: false,
            swept_ms: now_ms,
            tidied: None,
        })
    }

    /// What the caller committed last; empty if nothing ever was.
    #[must_use]
    pub fn positions(&self) -> &str {
        &self.positions
    }

    /// Looks at a batch.
    ///
    /// # Errors
    /// [`IntegrityError::Columns`].
    pub fn feed(&mut self, batch: &SignalBatch) -> Result<Applied, IntegrityError> {
        self.fed = true;
        self.engine.apply(batch)
    }

    /// Says which partitions of the source there are, also those from which nothing came yet: nobody is judged by the reply test before each of them
    /// has been heard, or been silent for two sweeps. To be called before the batches are fed that come after it.
    pub fn expect<'a>(&mut self, origins: impl Iterator<Item = &'a PartitionId>) {
        self.engine.expect(origins);
    }

    /// Says that the source has come to its end, as a recording does: what is fed later is of another one. The next commit keeps that.
    ///
    /// `false`: not all that is to be kept of it found room; say it once more after the commit.
    pub fn source_is_over(&mut self) -> bool {
        self.fed = true;
        self.engine.source_is_over()
    }

    /// The detectors, for figures about them.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Makes state, `positions` and findings durable in one step, each told or kept as its rule's standing says. Gives the number of findings that are
    /// new or have grown. Does nothing when nothing was fed since the last commit.
    ///
    /// # Errors
    /// [`IntegrityError::Store`], also when another process has taken the part over: then this runner is to be dropped.
    pub async fn commit(&mut self, positions: &str) -> Result<usize, IntegrityError> {
        if !self.fed {
            return Ok(0);
        }
        let now_ms = self.parts.clock.now_ms();
        if now_ms.saturating_sub(self.swept_ms) >= i64::try_from(SWEEP_EVERY.as_millis()).unwrap_or(i64::MAX) {
            self.engine.sweep();
            self.swept_ms = now_ms;
        }
        let alerts = self.engine.take_alerts();
        let epoch = EpochId::of(now_ms);
        let findings = findings(self.engine.rules(), &alerts, epoch)?;
        let key = self.parts.keyring.get_or_create(data_key(epoch))?;
        self.keep_vectors(&key, epoch).await?;
        let path = format!("integrity/{}/state-{}-{:012}-{epoch}.sealed", safe(&self.part), self.generation, self.commits);
        let sealed = seal(&key, self.parts.entropy.as_ref(), &path, &self.engine.snapshot()?)?;
        self.parts.files.put(&path, Bytes::from(sealed)).await?;
        killpoint::reached("after_state_written");
        let tested = self.engine.tested_days()?;
        let state = SavedState { path: &path, tested: Some(tested.as_str()).filter(|tested| !tested.is_empty()) };
        self.parts.metastore.commit_integrity(&self.part, self.generation, state, positions, &findings, now_ms).await?;
        killpoint::reached("after_integrity_commit");
        self.fed = false;
        self.commits += 1;
        positions.clone_into(&mut self.positions);
        let old = std::mem::replace(&mut self.state_path, path);
        if !old.is_empty() && old != self.state_path {
            self.parts.files.delete(&old).await?;
        }
        Ok(findings.len())
    }

    /// Keeps facts of windows that are over: see [`vectors`]. What is written here counts once the state that follows is committed; until then it is
    /// written again under the same number.
    async fn keep_vectors(&mut self, key: &SecretKey, epoch: EpochId) -> Result<(), IntegrityError> {
        let part = safe(&self.part);
        if self.tidied != Some(epoch) {
            vectors::remove_expired(&self.parts.files, &part, epoch).await?;
            self.tidied = Some(epoch);
        }
        let Some((number, mut vectors)) = self.engine.take_vectors() else { return Ok(()) };
        for fact in Fact::ALL {
            let bytes = vectors.encode(fact)?;
            if !bytes.is_empty() {
                let path = FileId::new(number, self.generation, epoch, fact).path(&part);
                let sealed = seal(key, self.parts.entropy.as_ref(), &path, &bytes)?;
                self.parts.files.put(&path, Bytes::from(sealed)).await?;
            }
        }
        killpoint::reached("after_facts_written");
        Ok(())
    }
}

async fn load(parts: &RunnerParts, path: &str, rules: Rules) -> Result<Option<Engine>, IntegrityError> {
    let day = path.strip_suffix(".sealed").and_then(|p| p.get(p.len().checked_sub(10)?..)).and_then(EpochId::parse);
    let day = day.ok_or(IntegrityError::Snapshot("name"))?;
    let key = match parts.keyring.get(data_key(day)) {
        Ok(Some(key)) => key,
        Ok(None) | Err(KeyringError::Destroyed { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let Some(sealed) = parts.files.get(path).await? else { return Err(IntegrityError::Snapshot("file, which is missing")) };
    Engine::restore(rules, &unseal(&key, path, &sealed)?).map(Some)
}

/// Alerts as the metastore takes them, each told or kept on `today` as its rule's standing says.
///
/// # Errors
/// [`IntegrityError::Json`].
pub fn findings(rules: &Rules, alerts: &[Alert], today: EpochId) -> Result<Vec<Finding>, IntegrityError> {
    let finding = |alert: &Alert| {
        let key = rules.first_name(&alert.rule).to_owned();
        Ok(Finding { alert: record(alert)?, key, stands: alert.stands(), telling: telling(rules, alert, today) })
    };
    alerts.iter().map(finding).collect()
}

/// What an alert's rule says of telling it on `today`. A rule that is not there any more tells nobody (I8).
fn telling(rules: &Rules, alert: &Alert, today: EpochId) -> Telling {
    let standing = rules.standing(&alert.rule);
    standing.map_or(Telling::Kept(Kept::Shadow.name()), |standing| standing.telling(&alert.rule, &alert.subject, today))
}

fn record(alert: &Alert) -> Result<AlertRecord, IntegrityError> {
    let body = serde_json::to_string(alert).map_err(|_| IntegrityError::Json { rule: alert.rule.clone() })?;
    Ok(AlertRecord {
        fingerprint: alert.fingerprint.clone(),
        rule: alert.rule.clone(),
        rule_version: alert.rule_version,
        subject_kind: alert.subject.kind.clone(),
        subject: alert.subject.value.clone(),
        severity: alert.severity.clone(),
        first_ms: alert.first_ms,
        last_ms: alert.last_ms,
        body,
        position: 0,
    })
}

fn data_key(epoch: EpochId) -> KeyId {
    KeyId { kind: KeyKind::Data, purpose: Purpose::Integrity, epoch }
}

fn safe(part: &str) -> String {
    part.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' }).collect()
}
