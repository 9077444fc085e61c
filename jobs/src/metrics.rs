//! Metrics for the engineer on call, and the door they are read through.
//!
//! ```text
//!  ingest ── Event (one thing that happened) ──► events.rs ──► counters, histograms   what this process did
//!  Processor, jobs ──────────────────────────────────────────►     │
//!  metastore, keyring ── at a scrape ──► gauges.rs ──► gauges      │                  where the whole deployment stands
//!                                                       └──────────┴──► door.rs: /metrics  /livez  /readyz
//!                                              loops.rs: which loops have turned  ─────────────┘      │
//!                                              ready.rs: may this process be given work  ─────────────┘
//! ```
//!
//! **Two kinds of numbers.** Counters and histograms (`starling_ingest_…_total`, `…_seconds`) are this process's: add them up over processes.
//! Gauges of partitions, windows, keys and quarantine come from the metastore, so each process tells those of the whole deployment, also of a
//! partition whose owner is dead: take their maximum over processes. When the metastore does not answer they are absent and
//! `starling_metastore_up` is 0; an old number is never shown as a new one.
//!
//! **Labels are closed by their types** (I4). A label value is a topic of the settings, a partition's number, or a member of a list in
//! `labels.rs`; none can be made from an event, an owner's name or a key. So nothing about a person can be in a metric, and the number of
//! series is bounded: a fixed one, and nine more for each partition of the topic.
//!
//! **Why no token is asked for.** What is behind this door are counts of events by outcome, durations and offsets over all people together, none of
//! it about a person, and Prometheus must be able to read it without a secret lying around on every scraper. Still it tells how much traffic
//! there is, so it listens on loopback unless the settings say otherwise. Alerts, which do concern somebody, are behind another door
//! (`serve.rs`), with a token.
//!
//! **A taken port stops nobody.** Two processes on one machine with the same `metrics.listen` are common (two ingest jobs). Ingest that does
//! not start because of a metrics port would be the worse failure, so the second one says so in its log and answers on a free port of
//! loopback, whose address it logs. That is for a person who looks; a scraper wants an address of its own for each process. An address that
//! is not this machine's is a fault of the settings and stops the job at its start.

mod door;
mod events;
mod gauges;
mod labels;
mod loops;
mod ready;
#[cfg(test)]
mod tests;

use prometheus_client::encoding::text::encode_registry;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use starling_schemas::codes::{Fault, Refusal};

pub use self::door::{Door, Duties};
pub use self::events::Listener;
pub use self::labels::{Delivered, Receiver, Stage, Work};
pub use self::loops::{Beat, Loop};

use self::gauges::Gauges;
use self::labels::{
    Class, DeliveryLabel, Direction, Outcome, Reason, Retry, StageLabel, StepLabel, Topic, TopicLabel, WorkLabel,
};
use self::loops::Loops;
use self::ready::Group;
use crate::progress::Backlog;

type Histograms<S> = Family<S, Histogram, fn() -> Histogram>;

/// Everything this process counts. One a process, made with [`Home`](crate::home::Home).
pub struct Metrics {
    registry: Registry,
    topic: Topic,
    events: Family<Outcome, Counter>,
    refused: Family<Reason, Counter>,
    quarantined: Family<Class, Counter>,
    bytes: Family<TopicLabel, Counter>,
    range_seconds: Histograms<TopicLabel>,
    range_events: Histograms<TopicLabel>,
    stage_seconds: Histograms<StageLabel>,
    rebalances: Family<Direction, Counter>,
    generation_changes: Family<TopicLabel, Counter>,
    fenced: Family<TopicLabel, Counter>,
    retries: Family<StepLabel, Counter>,
    assigned: Gauge,
    failures: Family<WorkLabel, Counter>,
    deliveries: Family<DeliveryLabel, Counter>,
    gauges: Gauges,
    /// Which loops of this process have turned lately.
    pub loops: Loops,
    group: Group,
    /// How far behind this process is, for the progress bar.
    pub backlog: Backlog,
}

fn range_seconds() -> Histogram {
    Histogram::new([0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0])
}

fn range_events() -> Histogram {
    Histogram::new([1.0, 10.0, 100.0, 1_000.0, 10_000.0, 50_000.0, 100_000.0, 500_000.0, 1_000_000.0])
}

fn stage_seconds() -> Histogram {
    Histogram::new([0.000_1, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0])
}

impl Metrics {
    /// Metrics of a process that reads this topic. Every series that can be named beforehand is there from the start, at zero: a rate
    /// over something that appears only when it first happens misses just that.
    #[must_use]
    pub fn new(topic: &str) -> Self {
        let topic = Topic::configured(topic);
        let gauges = Gauges::new(topic.clone());
        let mut metrics = Self {
            registry: Registry::with_prefix("starling"),
            topic,
            events: Family::default(),
            refused: Family::default(),
            quarantined: Family::default(),
            bytes: Family::default(),
            range_seconds: Family::new_with_constructor(range_seconds),
            range_events: Family::new_with_constructor(range_events),
            stage_seconds: Family::new_with_constructor(stage_seconds),
            rebalances: Family::default(),
            generation_changes: Family::default(),
            fenced: Family::default(),
            retries: Family::default(),
            assigned: Gauge::default(),
            failures: Family::default(),
            deliveries: Family::default(),
            gauges,
            loops: Loops::default(),
            group: Group::default(),
            backlog: Backlog::default(),
        };
        metrics.register();
        metrics.begin_at_zero();
        metrics
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("build", "Version of this executable", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        r.register("ingest_events", "Events committed by this process, by what became of them (I1)", self.events.clone());
        r.register(
            "ingest_refused_events",
            "Events committed that were readable but not for statistics, by reason",
            self.refused.clone(),
        );
        r.register(
            "ingest_quarantined_events",
            "Events committed that could not be read, by class; no bytes of them are kept",
            self.quarantined.clone(),
        );
        r.register_with_unit("ingest_payload", "Payload of committed ranges", Unit::Bytes, self.bytes.clone());
        r.register_with_unit(
            "ingest_range",
            "From a range being handed to its lane to its commit",
            Unit::Seconds,
            self.range_seconds.clone(),
        );
        r.register_with_unit(
            "ingest_range",
            "Events in committed ranges",
            Unit::Other("events".to_owned()),
            self.range_events.clone(),
        );
        r.register_with_unit(
            "ingest_stage",
            "What each stage of a range costs; write and commit wait for the disk",
            Unit::Seconds,
            self.stage_seconds.clone(),
        );
        r.register("ingest_rebalances", "Partitions dealt out or taken away by the consumer group", self.rebalances.clone());
        r.register(
            "ingest_generation_changes",
            "Times this process took ownership of a partition, each under a new generation",
            self.generation_changes.clone(),
        );
        r.register("ingest_fenced", "Ranges dropped because another owner had taken the partition", self.fenced.clone());
        r.register(
            "ingest_retries",
            "Steps of a range that failed and were tried again; take, plan and commit are the metastore's",
            self.retries.clone(),
        );
        r.register("ingest_assigned_partitions", "Partitions this process has now", self.assigned.clone());
        r.register("job_failures", "Work that failed and is tried again, by kind of work", self.failures.clone());
        r.register(
            "alert_deliveries",
            "Attempts to deliver alerts to their receivers, by kind of receiver and by how they ended",
            self.deliveries.clone(),
        );
        r.register_collector(Box::new(self.gauges.clone()));
    }

    fn begin_at_zero(&self) {
        let topic = &self.topic;
        for outcome in Outcome::all(topic) {
            drop(self.events.get_or_create(&outcome));
        }
        for reason in Refusal::ALL {
            drop(self.refused.get_or_create(&Reason::of(topic, *reason)));
        }
        for class in Fault::ALL {
            drop(self.quarantined.get_or_create(&Class::of(topic, *class)));
        }
        let label = TopicLabel { topic: topic.clone() };
        drop(self.bytes.get_or_create(&label));
        drop(self.range_seconds.get_or_create(&label));
        drop(self.range_events.get_or_create(&label));
        drop(self.generation_changes.get_or_create(&label));
        drop(self.fenced.get_or_create(&label));
        for stage in Stage::ALL {
            drop(self.stage_seconds.get_or_create(&StageLabel { stage: *stage }));
        }
        for step in Retry::ALL {
            drop(self.retries.get_or_create(&StepLabel { step: *step }));
        }
        for direction in Direction::all() {
            drop(self.rebalances.get_or_create(&direction));
        }
        for work in Work::ALL {
            drop(self.failures.get_or_create(&WorkLabel { work: *work }));
        }
        for receiver in Receiver::ALL {
            for outcome in Delivered::ALL {
                drop(self.deliveries.get_or_create(&DeliveryLabel { receiver: *receiver, outcome: *outcome }));
            }
        }
    }

    /// Notes what a stage of one range cost.
    pub fn stage(&self, stage: Stage, took: std::time::Duration) {
        self.stage_seconds.get_or_create(&StageLabel { stage }).observe(took.as_secs_f64());
    }

    /// Notes that some work failed and will be tried again. The caller's log says why.
    pub fn failed(&self, work: Work) {
        self.failures.get_or_create(&WorkLabel { work }).inc();
    }

    /// Notes how an attempt to deliver alerts ended.
    pub fn delivery(&self, receiver: Receiver, outcome: Delivered) {
        self.deliveries.get_or_create(&DeliveryLabel { receiver, outcome }).inc();
    }

    /// All metrics in the OpenMetrics text format.
    fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode_registry(&mut text, &self.registry);
        text.push_str("# EOF\n");
        text
    }
}
