//! I9: what a range becomes is decided by its plan, whatever the clock says when it is replayed.

use prost::Message as _;
use starling_schemas::codes::{Fault, Outcome};
use starling_schemas::event::{Choices, Event, MessageSent, event::Body};
use starling_schemas::ids::{DAY_MS, Offset, PartitionId};
use starling_schemas::metrics::Catalogue;
use starling_schemas::time::{Clock, Entropy, FixedClock};
use starling_store::{Files, Keyring, Metastore};

use super::*;
use crate::clock::SystemEntropy;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::signal_log;

/// 2026-01-05.
const DAY: EpochId = EpochId(20_458);

async fn home(dir: &std::path::Path, clock: Arc<FixedClock>) -> Home {
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
    let address = format!("sqlite:{}", dir.join("metastore.db").display());
    let config = Config::load(None, &[]).expect("settings");
    let files = Arc::new(Files::open_local(&dir.join("files")).expect("files"));
    Home {
        metrics: Arc::new(Metrics::new(&config.kafka.topic)),
        config: Arc::new(config),
        metastore: Arc::new(Metastore::open(&address).await.expect("metastore")),
        local_files: Arc::clone(&files),
        files,
        keyring: Arc::new(Keyring::open(&dir.join("keys"), Arc::clone(&entropy)).expect("keyring")),
        catalogue: Arc::new(Catalogue::builtin().expect("catalogue")),
        clock,
        entropy,
        heard: Arc::default(),
    }
}

fn at(time_ms: i64) -> Vec<u8> {
    let event = Event {
        event_time_ms: time_ms,
        actor: "+4915112345678".to_owned(),
        choices: Some(Choices { analytics_consent: true, age_band: 3, ..Choices::default() }),
        body: Some(Body::MessageSent(MessageSent { conversation: 1, ..MessageSent::default() })),
        ..Event::default()
    };
    event.encode_to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i9_late_and_future_events_meet_the_same_outcome_in_a_replay_a_month_later() {
    let dir = tempfile::tempdir().expect("dir");
    let planned_at_ms = DAY.start_ms() + DAY_MS / 2;
    let clock = Arc::new(FixedClock::new(planned_at_ms));
    let home = home(dir.path(), Arc::clone(&clock)).await;
    let tolerance_ms = home.config.ingest.future_tolerance_s * 1000;
    let partition = PartitionId { source: "events".to_owned(), partition: 0 };
    home.metastore.begin_close(EpochId(DAY.0 - 1), clock.now_ms()).await.expect("yesterday closes");
    let owned = home.metastore.take_ownership(&partition, "test", clock.now_ms()).await.expect("takes");

    let latest_ms = planned_at_ms + tolerance_ms;
    let times = [DAY.start_ms() - 1, DAY.start_ms(), latest_ms - 1, latest_ms, latest_ms + 1, DAY.end_ms()];
    let mut frames = Frames::new();
    for (offset, time_ms) in (0..).zip(times) {
        frames.push(Offset(offset), &at(time_ms));
    }
    let (frames, to) = (Arc::new(frames), Offset(6));
    let plan = home.metastore.plan(&partition, owned.generation, Offset(0), to, clock.now_ms()).await.expect("plans");
    let processor = Processor::new(home.clone(), signal_log::sink(&home).expect("sink"));
    let first = processor.process(&plan, Arc::clone(&frames)).await.expect("processes");
    let expected = [
        (None, Outcome::Quarantined(Fault::TimeOutOfRange), 2),
        (Some(EpochId(DAY.0 - 1)), Outcome::Late, 1),
        (Some(DAY), Outcome::Counted, 3),
    ];
    let mut counts = first.counts.clone();
    counts.sort();
    let mut sorted = expected.to_vec();
    sorted.sort();
    assert_eq!(counts, sorted);

    // The process dies. A month later, or a month back, another one takes the partition; meanwhile today has begun to close as well.
    for jump_ms in [30 * DAY_MS, -30 * DAY_MS] {
        clock.set(planned_at_ms + jump_ms);
        home.metastore.begin_close(DAY, clock.now_ms()).await.expect("today closes");
        let taken = home.metastore.take_ownership(&partition, "another", clock.now_ms()).await.expect("takes");
        let again = taken.open_plan.expect("the plan is open");
        assert_eq!((again.planned_at_ms, again.closed_through), (plan.planned_at_ms, plan.closed_through));
        let replayed = processor.process(&again, Arc::clone(&frames)).await.expect("processes");
        assert_eq!(replayed, first, "after a jump by {jump_ms} ms");
    }
}
