//! From what ingest tells to what is counted. The log line of an event was written where it was told, from the same value.

use std::sync::Arc;

use starling_ingest::events::Thread;
use starling_ingest::{Event, Observer};
use starling_schemas::codes::Outcome as EventOutcome;
use starling_store::{Plan, RangeOutcome};

use super::labels::{Class, Direction, Outcome, Reason, Stage, StepLabel, TopicLabel};
use super::{Loop, Metrics};

/// Hands ingest's events to the metrics of the process.
pub struct Listener(pub Arc<Metrics>);

impl Observer for Listener {
    fn observe(&self, event: &Event<'_>) {
        let metrics = &self.0;
        match event {
            Event::Rebalanced { partitions, assigned } => {
                metrics.rebalances.get_or_create(&Direction::of(*assigned)).inc();
                metrics.assigned.set(i64::try_from(*partitions).unwrap_or(i64::MAX));
                metrics.group.rebalanced(*partitions, *assigned);
            }
            Event::Taken { partition, from, .. } => {
                let topic = metrics.topic.of(&partition.source);
                metrics.generation_changes.get_or_create(&TopicLabel { topic }).inc();
                metrics.backlog.taken(partition, *from);
            }
            Event::Released { partition } => metrics.backlog.released(partition),
            Event::Fenced { partition } => {
                let topic = metrics.topic.of(&partition.source);
                metrics.fenced.get_or_create(&TopicLabel { topic }).inc();
            }
            Event::Unclear { step, .. } => {
                metrics.retries.get_or_create(&StepLabel { step: (*step).into() }).inc();
            }
            Event::EndSeen { partition, end } => {
                metrics.group.answered();
                metrics.loops.turned(Loop::KafkaEnds);
                metrics.backlog.end_seen(partition, *end);
            }
            Event::Read { took } => metrics.stage(Stage::Read, *took),
            Event::Planned { took } => metrics.stage(Stage::Plan, *took),
            Event::Committed { plan, outcome, bytes, took, whole } => {
                metrics.stage(Stage::Commit, *took);
                metrics.committed(plan, outcome, *bytes, whole.as_secs_f64());
            }
            Event::Turned(thread) => metrics.loops.turned(loop_of(*thread)),
            Event::Ended { thread, panicked } => metrics.loops.ended(loop_of(*thread), *panicked),
        }
    }
}

fn loop_of(thread: Thread) -> Loop {
    match thread {
        Thread::Reader => Loop::KafkaReader,
        Thread::Ends => Loop::KafkaEnds,
    }
}

impl Metrics {
    fn committed(&self, plan: &Plan, outcome: &RangeOutcome, bytes: usize, whole_s: f64) {
        let topic = self.topic.of(&plan.partition.source);
        for (_, outcome, events) in &outcome.counts {
            self.events.get_or_create(&Outcome::of(&topic, *outcome)).inc_by(*events);
            match outcome {
                EventOutcome::Counted | EventOutcome::Late => {}
                EventOutcome::Refused(reason) => {
                    self.refused.get_or_create(&Reason::of(&topic, *reason)).inc_by(*events);
                }
                EventOutcome::Quarantined(class) => {
                    self.quarantined.get_or_create(&Class::of(&topic, *class)).inc_by(*events);
                }
            }
        }
        let label = TopicLabel { topic };
        self.bytes.get_or_create(&label).inc_by(u64::try_from(bytes).unwrap_or(u64::MAX));
        self.range_seconds.get_or_create(&label).observe(whole_s);
        #[allow(clippy::cast_precision_loss)]
        self.range_events.get_or_create(&label).observe(outcome.events as f64);
        self.backlog.committed(plan);
    }
}
