//! What the room tells while it works. One thing that happens is one variant: telling it writes the log line and hands the same value to
//! the [`Observer`], so that a log and a metric cannot disagree (Vector's `internal_events`).
//!
//! ```text
//!  reader, lanes ── Event ──► tell ──┬──► tracing          for what a person should read
//!                                    └──► Observer         for what is counted; `jobs` turns it into metrics
//! ```
//!
//! An event is told once a range, once a rebalance or once a turn of a thread's loop, never once a message, and holds what is bounded:
//! partitions, offsets, counts, durations. No frame and nothing read from one is in it (I4).

use std::sync::Arc;
use std::time::Duration;

use starling_schemas::ids::{Generation, Offset, PartitionId};
use starling_store::{Plan, RangeOutcome};

/// Hears what happens. It is called from the reader's thread and from lanes, so it must neither block nor panic.
pub trait Observer: Send + Sync + 'static {
    /// One thing has happened.
    fn observe(&self, event: &Event<'_>);
}

/// Hears nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unobserved;

impl Observer for Unobserved {
    fn observe(&self, _: &Event<'_>) {}
}

/// A thread of this room that goes round in a loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Thread {
    /// Polls the group and drains partitions.
    Reader,
    /// Asks for the partitions' ends.
    Ends,
}

/// A step of a range that is tried again when it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Taking ownership.
    Take,
    /// Planning.
    Plan,
    /// Processing.
    Process,
    /// Committing.
    Commit,
}

/// Something that happened.
pub enum Event<'a> {
    /// The group dealt partitions out anew.
    Rebalanced {
        /// How many this process has now.
        partitions: usize,
        /// Whether they were handed to it, or taken from it.
        assigned: bool,
    },
    /// A partition is this process's now, under a new generation.
    Taken {
        /// The partition.
        partition: &'a PartitionId,
        /// The new generation.
        generation: Generation,
        /// Where reading goes on. `None`: at the log's beginning.
        from: Option<Offset>,
        /// Whether an open plan is replayed first.
        replay: bool,
        /// Whether the process had the partition before and takes it again.
        anew: bool,
    },
    /// A partition is given up.
    Released {
        /// The partition.
        partition: &'a PartitionId,
    },
    /// Another owner has the partition; the range in work is dropped.
    Fenced {
        /// The partition.
        partition: &'a PartitionId,
    },
    /// A step failed in a way that trying again may heal.
    Unclear {
        /// The partition.
        partition: &'a PartitionId,
        /// The step.
        step: Step,
        /// Why, in words that hold nothing from the data.
        reason: &'a (dyn std::fmt::Display + Sync),
    },
    /// The brokers told where a partition ends.
    EndSeen {
        /// The partition.
        partition: &'a PartitionId,
        /// The offset the next message will get.
        end: Offset,
    },
    /// The messages of a range have been taken out of the client or the file.
    Read {
        /// Time of the reading thread.
        took: Duration,
    },
    /// The metastore holds the plan of a range.
    Planned {
        /// How long it took to answer.
        took: Duration,
    },
    /// A range counts.
    Committed {
        /// Its plan.
        plan: &'a Plan,
        /// What became of its events.
        outcome: &'a RangeOutcome,
        /// Payload bytes of the range.
        bytes: usize,
        /// How long the commit took.
        took: Duration,
        /// From the moment the range was in the lane's hands to the commit's answer.
        whole: Duration,
    },
    /// A thread has gone round once more.
    Turned(Thread),
    /// A thread has ended.
    Ended {
        /// Which.
        thread: Thread,
        /// Whether it panicked.
        panicked: bool,
    },
}

/// Writes the log line of an event, where it has one, and hands it to the observer.
pub(crate) fn tell(observer: &dyn Observer, event: &Event<'_>) {
    match event {
        Event::Taken { partition, generation, from, replay, anew } => {
            let how = if *anew { "partition taken anew" } else { "partition taken" };
            tracing::info!(%partition, generation = generation.0, from = ?from.map(|o| o.0), replay, "{how}");
        }
        Event::Released { partition } => tracing::info!(%partition, "partition released"),
        Event::Fenced { partition } => {
            tracing::info!(%partition, "fenced: another owner has this partition; the range in work is dropped");
        }
        Event::Unclear { partition, step, reason } => {
            let what = match step {
                Step::Process => "a range could not be processed",
                Step::Take | Step::Plan | Step::Commit => "the metastore gave no clear answer",
            };
            tracing::warn!(%partition, ?step, "{what}: {reason}");
        }
        Event::Rebalanced { partitions, assigned } => {
            tracing::debug!(partitions, assigned, "the group dealt partitions out anew");
        }
        Event::Committed { plan, outcome, .. } => {
            tracing::debug!(partition = %plan.partition, from = plan.from.0, to = plan.to.0, events = outcome.events, "range committed");
        }
        Event::Ended { thread, panicked: true } => tracing::error!(?thread, "a thread panicked"),
        Event::EndSeen { .. } | Event::Read { .. } | Event::Planned { .. } | Event::Turned(_) | Event::Ended { .. } => {}
    }
    observer.observe(event);
}

/// Held by a thread while it goes round; its end, by a panic too, is told when it is dropped.
pub(crate) struct Pulse {
    observer: Arc<dyn Observer>,
    thread: Thread,
}

impl Pulse {
    pub(crate) fn start(observer: &Arc<dyn Observer>, thread: Thread) -> Self {
        let pulse = Self { observer: Arc::clone(observer), thread };
        pulse.turned();
        pulse
    }

    pub(crate) fn turned(&self) {
        tell(self.observer.as_ref(), &Event::Turned(self.thread));
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        tell(self.observer.as_ref(), &Event::Ended { thread: self.thread, panicked: std::thread::panicking() });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Heard(Mutex<Vec<String>>);

    impl Observer for Heard {
        fn observe(&self, event: &Event<'_>) {
            let text = match event {
                Event::Turned(thread) => format!("{thread:?} turned"),
                Event::Ended { thread, panicked } => format!("{thread:?} ended, panicked {panicked}"),
                _ => "else".to_owned(),
            };
            self.0.lock().expect("lock").push(text);
        }
    }

    #[test]
    fn a_thread_that_panics_is_told_apart_from_one_that_ends() {
        let heard = Arc::new(Heard::default());
        let observer: Arc<dyn Observer> = heard.clone();
        let calm = Arc::clone(&observer);
        std::thread::spawn(move || drop(Pulse::start(&calm, Thread::Ends))).join().expect("ends");
        let died = std::thread::spawn(move || {
            let _pulse = Pulse::start(&observer, Thread::Reader);
            panic!("planted");
        });
        assert!(died.join().is_err());
        let heard = heard.0.lock().expect("lock");
        assert_eq!(*heard, ["Ends turned", "Ends ended, panicked false", "Reader turned", "Reader ended, panicked true"]);
    }
}
