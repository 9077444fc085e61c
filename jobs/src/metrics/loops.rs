//! Which loops of this process have turned lately: what `/livez` is about.
//!
//! A loop that runs notes each turn. One that has not turned for longer than anything it does may take is stuck; one whose thread or task
//! panicked is dead, although the process goes on. Either is a reason to start the process anew, which is safe at any moment (I9). A loop
//! that ended in order is no trouble, nor is one that was never started here.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use super::labels::closed;

use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};

closed! {
    /// A loop that a long-running job has.
    pub Loop {
        /// Polls the group and drains partitions.
        KafkaReader "kafka-reader",
        /// Asks the brokers for the partitions' ends.
        KafkaEnds "kafka-ends",
        /// Feeds signals to the detectors.
        Integrity "integrity",
        /// Sends alerts to their topic.
        Alerts "alerts",
        /// Says that this process sends alerts to their receivers, or looks whether another does.
        Receivers "receivers",
        /// Closes windows and releases statistics.
        Windows "windows",
    }
}

impl Loop {
    /// The longest turn that may be in order.
    const fn patience(self) -> Duration {
        match self {
            // The longest waits inside a turn are 70 s for a metastore that does not answer, and 10 s for brokers.
            Self::KafkaReader | Self::KafkaEnds | Self::Integrity | Self::Alerts | Self::Receivers => Duration::from_secs(120),
            // A turn may merge a whole day. `StarlingWindowOverdue` sees a slow one much earlier.
            Self::Windows => Duration::from_secs(6 * 3600),
        }
    }
}

/// Never started, or ended in order.
const IDLE: i64 = -1;
/// Ended by a panic.
const DEAD: i64 = -2;

/// What is wrong with a loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// It has not turned for so long.
    Stuck(Duration),
    /// It panicked.
    Panicked,
}

/// The last turn of every loop.
pub struct Loops {
    since: Instant,
    last_ms: [AtomicI64; Loop::ALL.len()],
}

impl Default for Loops {
    fn default() -> Self {
        Self { since: Instant::now(), last_ms: std::array::from_fn(|_| AtomicI64::new(IDLE)) }
    }
}

impl Loops {
    /// A turn begins.
    pub fn turned(&self, which: Loop) {
        self.store(which, self.elapsed_ms());
    }

    /// It goes round no more.
    pub fn ended(&self, which: Loop, panicked: bool) {
        self.store(which, if panicked { DEAD } else { IDLE });
    }

    /// What is wrong now.
    #[must_use]
    pub fn troubles(&self) -> Vec<(Loop, Trouble)> {
        let now_ms = self.elapsed_ms();
        Loop::ALL
            .iter()
            .zip(&self.last_ms)
            .filter_map(|(l, last)| Some((*l, judge(*l, last.load(Ordering::Acquire), now_ms)?)))
            .collect()
    }

    fn store(&self, which: Loop, value: i64) {
        for (l, last) in Loop::ALL.iter().zip(&self.last_ms) {
            if *l == which {
                last.store(value, Ordering::Release);
            }
        }
    }

    /// By a clock that nobody can set: a jump of the wall clock must not look like a stuck loop.
    fn elapsed_ms(&self) -> i64 {
        i64::try_from(self.since.elapsed().as_millis()).unwrap_or(i64::MAX)
    }
}

fn judge(which: Loop, last_ms: i64, now_ms: i64) -> Option<Trouble> {
    match last_ms {
        IDLE => None,
        DEAD => Some(Trouble::Panicked),
        last_ms => {
            let silent = Duration::from_millis(u64::try_from(now_ms - last_ms).unwrap_or(0));
            (silent > which.patience()).then_some(Trouble::Stuck(silent))
        }
    }
}

/// Held by a task while it goes round; says so when it ends, by a panic too.
pub struct Beat {
    metrics: Arc<super::Metrics>,
    which: Loop,
}

impl Beat {
    /// Begins.
    #[must_use]
    pub fn start(metrics: &Arc<super::Metrics>, which: Loop) -> Self {
        metrics.loops.turned(which);
        Self { metrics: Arc::clone(metrics), which }
    }

    /// A turn begins.
    pub fn turned(&self) {
        self.metrics.loops.turned(self.which);
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        self.metrics.loops.ended(self.which, std::thread::panicking());
    }
}

#[cfg(test)]
mod tests {
    use super::super::Metrics;
    use super::*;

    #[test]
    fn a_loop_is_stuck_when_it_is_silent_for_longer_than_any_turn_may_take() {
        assert_eq!(judge(Loop::KafkaReader, IDLE, i64::MAX), None, "not started here");
        assert_eq!(judge(Loop::KafkaReader, 1000, 121_000), None);
        assert_eq!(judge(Loop::KafkaReader, 1000, 121_001), Some(Trouble::Stuck(Duration::from_millis(120_001))));
        assert_eq!(judge(Loop::Windows, 0, 3_600_000), None, "a merge takes its time");
        assert_eq!(judge(Loop::Alerts, 5000, 4000), None, "two threads, two readings of the clock");
        assert_eq!(judge(Loop::Alerts, DEAD, 0), Some(Trouble::Panicked));
    }

    #[test]
    fn a_panicked_task_is_named_and_one_that_ended_is_not() {
        let metrics = Arc::new(Metrics::new("events"));
        drop(Beat::start(&metrics, Loop::Integrity));
        assert_eq!(metrics.loops.troubles(), []);
        let in_task = Arc::clone(&metrics);
        let died = std::thread::spawn(move || {
            let _beat = Beat::start(&in_task, Loop::Windows);
            panic!("planted");
        });
        assert!(died.join().is_err());
        assert_eq!(metrics.loops.troubles(), [(Loop::Windows, Trouble::Panicked)]);
    }
}
