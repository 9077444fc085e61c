//! `starling accept-loss`: goes past a stop that ingest may not get over by itself, by an operator's word, and records it.
//!
//! It compares the metastore with the brokers, says which partitions cannot be read on and what going on would give up, and does it only with
//! `--yes`. The restart and its entry in the audit log are one transaction.

use std::collections::BTreeMap;

use anyhow::Context as _;
use starling_ingest::loss::{Loss, Standing, losses};
use starling_schemas::ids::{EpochId, Offset};
use starling_store::AcceptedLoss;

use crate::cli;
use crate::home::Home;

/// Says what is lost, and with `--yes` accepts it.
///
/// # Errors
/// When the brokers or the metastore cannot be asked, or a named partition was never read.
pub async fn run(home: &Home, asked: &cli::AcceptLoss) -> anyhow::Result<()> {
    let kafka = &home.config.kafka;
    anyhow::ensure!(!kafka.brokers.is_empty(), "kafka.brokers is not set: name them with --brokers, or in the settings file");
    let (found, ends) = tokio::task::spawn_blocking({
        let (brokers, topic, properties) = (kafka.brokers.clone(), kafka.topic.clone(), kafka.client_properties()?);
        move || -> Result<_, starling_ingest::IngestError> {
            let id = starling_ingest::topic_id(&brokers, &topic, &properties)?;
            Ok((id, starling_ingest::log_ends(&brokers, &topic, &properties)?))
        }
    })
    .await??;
    let kept = home.metastore.topic_ids().await?.remove(&kafka.topic);
    let recreated = matches!((&kept, &found), (Some(kept), Some(found)) if kept != found);
    let known = standings(home, &kafka.topic).await?;
    let mut lost = losses(recreated, &known, &ends);
    if let Some(partition) = asked.partition {
        let standing = known.get(&partition).with_context(|| format!("{}/{partition} was never read", kafka.topic))?;
        let begins = asked.from.map(Offset);
        if let (Some(from), Some((low, high))) = (asked.from, ends.get(&partition)) {
            anyhow::ensure!(
                (*low..=*high).contains(&from),
                "{}/{partition} has {low} to {high} (exclusive): --from lies outside",
                kafka.topic
            );
        }
        lost.insert(partition, Loss { standing: *standing, begins, why: "by your word" });
    }
    if recreated {
        println!(
            "{}: was read as the topic with id {}, and now has id {}.",
            kafka.topic,
            kept.as_deref().unwrap_or_default(),
            found.as_deref().unwrap_or_default()
        );
    }
    if lost.is_empty() && !recreated {
        println!("{}: every partition can be read on; there is nothing to accept.", kafka.topic);
        return Ok(());
    }
    for (partition, loss) in &lost {
        println!("{}", line(&kafka.topic, *partition, loss, ends.get(partition)));
    }
    if !asked.yes {
        println!("Nothing was changed. With --yes this is done, and recorded in the audit log.");
        return Ok(());
    }
    let accepted = AcceptedLoss {
        topic_id: found.filter(|_| recreated),
        starts: lost.iter().map(|(partition, loss)| (*partition, loss.begins)).collect(),
    };
    let numbers = home.metastore.partitions().await?;
    let restarted = home.metastore.accept_loss(&kafka.topic, &accepted, home.clock.now_ms()).await?;
    for given_up in restarted.iter().filter(|partition| partition.given_up.is_some()) {
        // Its billing rows may have been written; it will never be committed.
        if let Some(before) = numbers.iter().find(|status| status.partition == given_up.partition) {
            home.billing().give_up(&before.partition, before.next_sequence).await?;
        }
    }
    println!("Accepted and recorded. Start ingest again.");
    Ok(())
}

async fn standings(home: &Home, topic: &str) -> anyhow::Result<BTreeMap<i32, Standing>> {
    let plans = home.metastore.open_plans_before(EpochId::LAST_DAY).await?;
    let partitions = home.metastore.partitions().await?;
    Ok(partitions
        .into_iter()
        .filter(|p| p.partition.source == topic)
        .map(|p| {
            let plan = plans.iter().find(|plan| plan.partition == p.partition).map(|plan| (plan.from, plan.to));
            (p.partition.partition, Standing { next: p.next_offset, plan })
        })
        .collect())
}

fn line(topic: &str, partition: i32, loss: &Loss, ends: Option<&(i64, i64)>) -> String {
    let has = ends.map_or("nothing".to_owned(), |(low, high)| format!("{low} to {high}"));
    let next = loss.standing.next.map_or("the beginning".to_owned(), |o| o.to_string());
    let begins = loss.begins.map_or("the beginning".to_owned(), |o| o.to_string());
    let plan = loss.standing.plan.map_or(String::new(), |(from, to)| format!("; the planned range {from} to {to} is given up"));
    format!("  {topic}/{partition}: {}. Would go on at {next}, the broker has {has}; begins at {begins}{plan}", loss.why)
}
