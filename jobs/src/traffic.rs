//! `starling simulate` and `starling replay`: events made or repeated, to a trace file or to Kafka.

use std::fs::File;
use std::io::{BufReader, empty};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use starling_ingest::{FrameRead, IngestError, Producer, TraceReader, TraceWriter, partitions};
use starling_schemas::ids::EpochId;
use tokio::sync::watch;

use crate::cli::{Destination, NewTopic, Replay, Simulate};
use crate::config::Config;
use crate::progress;
use crate::simulate::{Settings, Truth, World, replay as logs};
use crate::summary::grouped;

/// Where events go.
enum Outlet {
    File(TraceWriter),
    Topic { producer: Producer, topic: String },
}

impl Outlet {
    fn open(config: &Config, to: &Destination, new: &NewTopic) -> anyhow::Result<Self> {
        match (&to.out, &to.topic) {
            (Some(path), None) => {
                Ok(Self::File(TraceWriter::create(path).with_context(|| format!("{}: cannot be written", path.display()))?))
            }
            (None, Some(topic)) => {
                let (brokers, properties) = (&config.kafka.brokers, &config.kafka.client_properties()?);
                if brokers.is_empty() {
                    bail!("--topic needs --brokers host:port");
                }
                match partitions(brokers, topic, properties) {
                    Ok(_) => {}
                    Err(IngestError::NoTopic { .. }) => {
                        starling_ingest::admin::create_topic_with(brokers, topic, new.partitions, -1, &[], properties)
                            .with_context(|| format!("topic `{topic}` cannot be made"))?;
                    }
                    Err(error) => return Err(error.into()),
                }
                Ok(Self::Topic { producer: Producer::new(brokers, properties)?, topic: topic.clone() })
            }
            _ => bail!("say where to: --out FILE, or --brokers BROKERS --topic TOPIC"),
        }
    }

    fn send(&mut self, key: Option<&[u8]>, event: &[u8]) -> anyhow::Result<()> {
        match self {
            Self::File(writer) => writer.write(event)?,
            Self::Topic { producer, topic } => producer.send(topic, None, key, event)?,
        }
        Ok(())
    }

    fn finish(self) -> anyhow::Result<()> {
        match self {
            Self::File(writer) => {
                writer.finish()?;
            }
            Self::Topic { producer, .. } => producer.flush(Duration::from_secs(120))?,
        }
        Ok(())
    }
}

fn day(text: &str) -> anyhow::Result<EpochId> {
    EpochId::parse_day(text).context("--start: no day of the calendar; write it as 2026-01-05")
}

/// Logs of messages and calls; one that is not named is empty.
fn read_logs(sms: &Option<PathBuf>, calls: &Option<PathBuf>, start: &str) -> anyhow::Result<logs::Replay> {
    let open = |path: &Option<PathBuf>| -> anyhow::Result<Box<dyn std::io::BufRead>> {
        Ok(match path {
            Some(path) => {
                Box::new(BufReader::new(File::open(path).with_context(|| format!("{}: cannot be read", path.display()))?))
            }
            None => Box::new(empty()),
        })
    };
    let names: Vec<_> = [sms, calls].into_iter().flatten().map(|p| p.display().to_string()).collect();
    logs::Replay::read(open(sms)?, open(calls)?, day(start)?.start_ms()).with_context(|| names.join(", "))
}

/// Makes traffic.
///
/// # Errors
/// Settings out of range, or a destination that cannot be written.
pub fn simulate(config: &Config, arguments: &Simulate, stop: watch::Receiver<bool>) -> anyhow::Result<()> {
    let settings = Settings {
        bad_share: arguments.bad,
        planted: arguments.planted,
        ..Settings::new(arguments.people, arguments.days, arguments.seed, day(&arguments.start)?)
    };
    let mut world = World::new(settings)?;
    if arguments.sms.is_some() {
        world = world.on(&read_logs(&arguments.sms, &arguments.calls, &arguments.start)?, arguments.copies)?;
    }
    let mut outlet = Outlet::open(config, &arguments.to, &arguments.new)?;
    let bar = progress::bar(Some(u64::from(world.slices())), "{wide_bar} {percent}% {msg} {eta}");
    let truth = tokio::task::block_in_place(|| {
        let truth = world.for_each_event(
            &mut |event| {
                if *stop.borrow() {
                    bail!("stopped before the end; the file or topic holds the beginning only");
                }
                outlet.send(Some(&event.key), event.encoded)
            },
            &mut |progress| {
                bar.set_position(u64::from(progress.slices_done));
                bar.set_message(format!("{} events", grouped(progress.frames)));
            },
        )?;
        outlet.finish()?;
        anyhow::Ok(truth)
    })?;
    bar.finish_and_clear();
    told(&truth, arguments.truth.as_deref())
}

/// Repeats a trace file, or turns logs into events.
///
/// # Errors
/// Input that cannot be read, with the line or frame it stands at, or a destination that cannot be written.
pub fn replay(config: &Config, arguments: &Replay, stop: watch::Receiver<bool>) -> anyhow::Result<()> {
    let mut outlet = Outlet::open(config, &arguments.to, &arguments.new)?;
    let Some(trace) = &arguments.trace else {
        let log = read_logs(&arguments.sms, &arguments.calls, &arguments.start)?;
        let truth = tokio::task::block_in_place(|| {
            let truth = log.for_each_event(&mut |event| outlet.send(Some(&event.key), event.encoded))?;
            outlet.finish()?;
            anyhow::Ok(truth)
        })?;
        return told(&truth, None);
    };
    let mut reader = TraceReader::open(trace).with_context(|| format!("{}: cannot be read", trace.display()))?;
    let mut frame = Vec::new();
    let mut sent = 0_u64;
    let complaint = tokio::task::block_in_place(|| {
        loop {
            if *stop.borrow() {
                bail!("stopped after {} events; the topic holds those", grouped(sent));
            }
            match reader.next_frame(&mut frame)? {
                FrameRead::Frame => {
                    // A person's events must not overtake each other: the key is the event's own actor, which only its producer knows.
                    // A trace has no keys, so events are dealt out in turn; ingest does not need them together (design 3.2).
                    outlet.send(None, &frame)?;
                    sent += 1;
                }
                FrameRead::End => break Ok(None),
                FrameRead::Truncated => break Ok(Some("the file ends inside an event, which was not sent")),
                FrameRead::TooLarge(_) => break Ok(Some("a frame is larger than any event; nothing after it can be read")),
            }
        }
    })?;
    outlet.finish()?;
    println!("{} events sent.", grouped(sent));
    if let Some(complaint) = complaint {
        bail!("{}: after {} events {complaint}", trace.display(), grouped(sent));
    }
    Ok(())
}

fn told(truth: &Truth, file: Option<&Path>) -> anyhow::Result<()> {
    if let Some(path) = file {
        std::fs::write(path, serde_json::to_vec_pretty(truth)?)
            .with_context(|| format!("{}: cannot be written", path.display()))?;
    }
    println!(
        "{} events of {} people; {} planted abusers, {} heavy but harmless.",
        grouped(truth.frames),
        grouped(truth.people),
        truth.abusers.len(),
        truth.harmless.len()
    );
    Ok(())
}
