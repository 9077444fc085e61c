//! `starling measure`: Kafka → durable committed person rows, beside a bare drain of the same topic by the same library, in one run.

use std::sync::Arc;
use std::time::{Duration, Instant};

use starling_ingest::{DrainMode, KafkaSource, bare_drain};
use tokio::sync::watch;

use crate::config::Config;
use crate::home::Home;
use crate::run;

/// Rounds; each has a drain before and after it, so that a change of the machine's load shows.
const ROUNDS: usize = 3;

/// Prints one JSON object a line: each drain, each ingest, and the ratio of their medians.
///
/// # Errors
/// When the topic cannot be read or ingest fails.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let source = KafkaSource {
        brokers: config.kafka.brokers.clone(),
        group: format!("{}-measure", config.kafka.group),
        topic: config.kafka.topic.clone(),
        properties: config.kafka.client_properties()?,
    };
    let (mut drains, mut ingests) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        for mode in [DrainMode::Poll, DrainMode::Batch] {
            let report = bare_drain(&source, mode).await?;
            drains.push((mode, report.events_per_second()));
            println!(
                "{}",
                serde_json::json!({ "what": format!("bare drain, {mode:?}").to_lowercase(), "round": round, "events": report.events, "bytes": report.bytes,
                    "events_per_second": report.events_per_second().round(), "library": report.library })
            );
        }
        let total = drains_total(&source).await?;
        let rate = ingest(&config, round, total).await?;
        ingests.push(rate);
        println!(
            "{}",
            serde_json::json!({ "what": "kafka to committed person rows", "round": round, "events": total, "events_per_second": rate.round() })
        );
    }
    let of = |mode: DrainMode| median(drains.iter().filter(|(m, _)| *m == mode).map(|(_, r)| *r).collect());
    let ingest = median(ingests);
    println!(
        "{}",
        serde_json::json!({ "what": "share of the bare drain, medians", "of_poll": ingest / of(DrainMode::Poll), "of_batch": ingest / of(DrainMode::Batch) })
    );
    Ok(())
}

async fn drains_total(source: &KafkaSource) -> anyhow::Result<u64> {
    Ok(bare_drain(source, DrainMode::Batch).await?.events)
}

/// Takes the whole topic into a fresh data directory; events a second from the first commit's start to the last commit.
async fn ingest(config: &Config, round: usize, total: u64) -> anyhow::Result<f64> {
    let mut config = config.clone();
    config.data_dir = config.data_dir.join(format!("measure-{round}"));
    config.kafka.group = format!("{}-measure-{round}-{}", config.kafka.group, std::process::id());
    if config.data_dir.exists() {
        std::fs::remove_dir_all(&config.data_dir)?;
    }
    let home = Home::open(config.clone()).await?;
    let (sender, stop) = watch::channel(false);
    let job = tokio::spawn(run::ingest(home.clone(), stop));
    let committed = || {
        let metastore = Arc::clone(&home.metastore);
        async move { anyhow::Ok(metastore.partitions().await?.iter().map(|p| p.events).sum::<u64>()) }
    };
    // Joining the group is not what is measured: the clock starts when partitions are owned.
    while home.metastore.partitions().await?.is_empty() {
        anyhow::ensure!(!job.is_finished(), "ingest ended early");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let started = Instant::now();
    while committed().await? < total {
        anyhow::ensure!(!job.is_finished(), "ingest ended early");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let elapsed = started.elapsed();
    let _ = sender.send(true);
    job.await??;
    std::fs::remove_dir_all(&config.data_dir)?;
    Ok(total as f64 / elapsed.as_secs_f64())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
