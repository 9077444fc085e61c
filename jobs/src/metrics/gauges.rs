//! Where the deployment stands, read from metastore and keyring when a scrape asks for it.
//!
//! Not more often than every [`FRESH`], however many scrapers there are, and what grows with the deployment's age (books, keys, quarantine)
//! not more often than every [`SLOW`]. A reading that fails or takes too long takes the gauges away.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use starling_schemas::codes::Fault;
use starling_schemas::ids::{EpochId, Span};
use starling_store::{KeyState, WindowState};

use super::Work;
use super::labels::{ClassLabel, KeptLabel, KeyLabel, Listed, PartitionLabel, Topic, WindowLabel};
use crate::home::Home;
use crate::partitions::{View, age_ms, views};

/// How old the numbers may be.
const FRESH: Duration = Duration::from_secs(2);
/// How old the costly ones may be.
const SLOW: Duration = Duration::from_secs(30);
/// How long the metastore may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The numbers of one reading.
#[derive(Debug, Clone, Default)]
pub(super) struct Snapshot {
    pub(super) now_ms: i64,
    pub(super) partitions: Vec<View>,
    pub(super) windows: BTreeMap<&'static str, i64>,
    pub(super) overdue_ms: i64,
    pub(super) slow: Slow,
}

/// The numbers that are read less often.
#[derive(Debug, Clone, Default)]
pub(super) struct Slow {
    pub(super) unbalanced: i64,
    pub(super) keys: BTreeMap<KeyLabel, i64>,
    pub(super) quarantine: Vec<(Fault, u64)>,
    pub(super) kept: BTreeMap<KeptLabel, i64>,
}

#[derive(Default)]
struct State {
    read: Option<Instant>,
    snapshot: Option<Snapshot>,
    slow: Option<(Instant, Slow)>,
}

/// The last reading. A clone is the same one.
#[derive(Clone)]
pub(super) struct Gauges {
    topic: Topic,
    state: Arc<Mutex<State>>,
}

impl fmt::Debug for Gauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gauges")
    }
}

impl Gauges {
    pub(super) fn new(topic: Topic) -> Self {
        Self { topic, state: Arc::default() }
    }

    /// Reads anew, unless that was done a moment ago.
    pub(super) async fn refresh(&self, home: &Home) {
        let (fresh, slow) = {
            let state = self.lock();
            let fresh = state.snapshot.is_some() && state.read.is_some_and(|at| at.elapsed() < FRESH);
            (fresh, state.slow.clone().filter(|(at, _)| at.elapsed() < SLOW))
        };
        if fresh {
            return;
        }
        let read = match tokio::time::timeout(PATIENCE, read(home, slow)).await {
            Ok(read) => read,
            Err(_) => Err(anyhow::anyhow!("no answer within {} s", PATIENCE.as_secs())),
        };
        if let Err(error) = &read {
            home.metrics.failed(Work::Scrape);
            tracing::warn!(
                error = format!("{error:#}"),
                "metrics: metastore or keyring could not be read; their gauges are left out"
            );
        }
        let mut state = self.lock();
        state.read = Some(Instant::now());
        (state.snapshot, state.slow) = match read {
            Ok((snapshot, slow)) => (Some(snapshot), Some(slow)),
            Err(_) => (None, None),
        };
    }

    /// Forgets what was read, as if it were long ago.
    #[cfg(test)]
    pub(super) fn forget(&self) {
        *self.lock() = State::default();
    }

    #[cfg(test)]
    pub(super) fn set(&self, snapshot: Snapshot) {
        self.lock().snapshot = Some(snapshot);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn read(home: &Home, slow: Option<(Instant, Slow)>) -> anyhow::Result<(Snapshot, (Instant, Slow))> {
    let slow = match slow {
        Some(slow) => slow,
        None => (Instant::now(), read_slow(home).await?),
    };
    let now_ms = home.clock.now_ms();
    let records = home.metastore.windows().await?;
    let mut windows: BTreeMap<&'static str, i64> = WindowState::ALL.iter().map(|s| (s.name(), 0)).collect();
    for record in &records {
        *windows.entry(record.state.name()).or_default() += 1;
    }
    let deadline_ms = home.config.window.deadline_s.saturating_mul(1000);
    let hours = home.metastore.living_windows(Span::Hour).await?;
    let open = records.iter().chain(&hours).filter(|w| !w.state.is_final());
    let overdue_ms = open.map(|w| age_ms(now_ms, w.epoch.end_ms().saturating_add(deadline_ms))).max().unwrap_or(0);
    let partitions = views(&home.metastore).await?;
    Ok((Snapshot { now_ms, partitions, windows, overdue_ms, slow: slow.1.clone() }, slow))
}

async fn read_slow(home: &Home) -> anyhow::Result<Slow> {
    let unbalanced = i64::try_from(home.metastore.unbalanced().await?.len())?;
    let quarantine = home.metastore.quarantine_counts(None).await?;
    let mut kept: BTreeMap<KeptLabel, i64> = KeptLabel::all().map(|label| (label, 0)).collect();
    for count in home.metastore.kept_counts(EpochId::of(home.clock.now_ms()).start_ms()).await? {
        if let Some(label) = KeptLabel::of(&count.rule, &count.kept_for) {
            *kept.entry(label).or_default() += i64::try_from(count.count).unwrap_or(i64::MAX);
        }
    }
    let keyring = Arc::clone(&home.keyring);
    let mut keys: BTreeMap<KeyLabel, i64> = KeyLabel::all().map(|label| (label, 0)).collect();
    for (id, state) in tokio::task::spawn_blocking(move || keyring.list()).await?? {
        *keys.entry(KeyLabel::of(id.purpose, id.kind, state == KeyState::Alive)).or_default() += 1;
    }
    Ok(Slow { unbalanced, keys, quarantine, kept })
}

/// Milliseconds as the seconds that Prometheus counts in.
#[allow(clippy::cast_precision_loss)]
fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

/// Writes one gauge with its samples; without samples it is not written.
fn gauge<V: EncodeGaugeValue>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help, unit): (&str, &str, Option<Unit>),
    samples: impl IntoIterator<Item = (impl EncodeLabelSet, V)>,
) -> Result<(), fmt::Error> {
    let mut samples = samples.into_iter().peekable();
    if samples.peek().is_none() {
        return Ok(());
    }
    let mut encoder = encoder.encode_descriptor(name, &format!("{help}."), unit.as_ref(), MetricType::Gauge)?;
    for (labels, value) in samples {
        ConstGauge::new(value).encode(encoder.encode_family(&labels)?)?;
    }
    Ok(())
}

/// Writes one gauge that has no labels.
fn plain<V: EncodeGaugeValue>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help, unit): (&str, &str, Option<Unit>),
    value: V,
) -> Result<(), fmt::Error> {
    ConstGauge::new(value).encode(encoder.encode_descriptor(name, &format!("{help}."), unit.as_ref(), MetricType::Gauge)?)
}

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let snapshot = self.lock().snapshot.clone();
        let up = ("metastore_up", "Whether metastore and keyring could be read for this scrape", None);
        plain(&mut encoder, up, i64::from(snapshot.is_some()))?;
        let Some(snapshot) = snapshot else { return Ok(()) };
        self.partitions(&mut encoder, &snapshot)?;
        let windows = ("windows", "Windows (days) by state", None);
        let states = WindowState::ALL.iter().map(|state| {
            (WindowLabel { state: Listed::window(*state) }, snapshot.windows.get(state.name()).copied().unwrap_or(0))
        });
        gauge(&mut encoder, windows, states)?;
        let overdue = ("window_overdue", "How far the most overdue open window is past its deadline", Some(Unit::Seconds));
        plain(&mut encoder, overdue, seconds(snapshot.overdue_ms))?;
        let unbalanced = ("books_unbalanced_partitions", "Partitions whose events are not the sum of their outcomes (I1)", None);
        plain(&mut encoder, unbalanced, snapshot.slow.unbalanced)?;
        gauge(&mut encoder, ("keys", "Keys that are alive, and receipts of destroyed ones", None), snapshot.slow.keys.clone())?;
        let kept = ("kept_findings", "Findings first kept today, UTC, and told to nobody, by rule and by why", None);
        gauge(&mut encoder, kept, snapshot.slow.kept.clone())?;
        let quarantine = ("quarantine_events", "Unreadable events that the quarantine lists, by class", None);
        let found = |class: &Fault| snapshot.slow.quarantine.iter().find(|(f, _)| f == class).map_or(0, |(_, n)| *n);
        let classes = Fault::ALL
            .iter()
            .map(|class| (ClassLabel { class: Listed::fault(*class) }, i64::try_from(found(class)).unwrap_or(i64::MAX)));
        gauge(&mut encoder, quarantine, classes)
    }
}

impl Gauges {
    /// Partitions of the topic in the settings: what an earlier topic or a recording left behind has no rate and no owner.
    fn partitions(&self, encoder: &mut DescriptorEncoder<'_>, snapshot: &Snapshot) -> Result<(), fmt::Error> {
        let views: Vec<(PartitionLabel, &View)> = snapshot
            .partitions
            .iter()
            .filter(|v| self.topic.is(&v.partition.source))
            .map(|v| (PartitionLabel { topic: self.topic.clone(), partition: v.partition.partition }, v))
            .collect();
        let now = snapshot.now_ms;
        let each = |value: fn(&View) -> Option<i64>| -> Vec<(PartitionLabel, i64)> {
            views.iter().filter_map(|(label, v)| Some((label.clone(), value(v)?))).collect()
        };
        let ages = |value: fn(&View) -> Option<i64>| -> Vec<(PartitionLabel, f64)> {
            views.iter().filter_map(|(label, v)| Some((label.clone(), seconds(age_ms(now, value(v)?))))).collect()
        };
        gauge(encoder, ("ingest_lag_events", "Events between the next offset and the partition's end", None), each(|v| v.lag))?;
        gauge(encoder, ("ingest_next_offset", "Offset after the last committed event", None), each(|v| v.next_offset))?;
        gauge(encoder, ("ingest_end_offset", "The partition's end, as its owner last saw it", None), each(|v| v.end_offset))?;
        let committed = ("ingest_committed_events", "Events of the partition that are committed, by whomever", None);
        gauge(encoder, committed, each(|v| i64::try_from(v.events).ok()))?;
        gauge(encoder, ("ingest_generation", "Generation of the partition's owner", None), each(|v| Some(v.generation)))?;
        let delay = (
            "ingest_watermark_delay",
            "How far event time lags behind the clock; a partition without traffic falls behind too",
            Some(Unit::Seconds),
        );
        gauge(encoder, delay, ages(|v| v.watermark_ms))?;
        let plan = ("ingest_plan_age", "How long the range in work has been planned; 0 when none is", Some(Unit::Seconds));
        let plans = views.iter().map(|(label, v)| (label.clone(), v.plan.map_or(0.0, |p| seconds(age_ms(now, p.planned_at_ms)))));
        gauge(encoder, plan, plans.collect::<Vec<_>>())?;
        let commit = ("ingest_commit_age", "Time since a range of the partition was last committed", Some(Unit::Seconds));
        gauge(encoder, commit, ages(|v| v.last_commit_ms))?;
        let owner = ("ingest_owner_age", "Time since the partition's owner was last heard of", Some(Unit::Seconds));
        gauge(encoder, owner, ages(|v| Some(v.seen_ms)))
    }
}
