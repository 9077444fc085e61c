//! # starling: one executable, every job a subcommand
//!
//! The rooms know nothing of each other; all wiring is here.
//!
//! ```text
//!   events (Kafka | trace) ─ingest─► Processor { minimize → fold → segment, signals } ─commit─► metastore
//!                                                     │                        │
//!                                         SignalSink (topic | sealed files)    └─ windows_job: close → release → keys die
//!                                                     ▼
//!                                   integrity_job: detectors → alerts ─► metastore ─► topic, receivers, `alerts`, /v1/alerts/stream
//!                                        standing: who is told, and whether rules keep what they promise
//! ```
//!
//! Beside a job that stays stands `metrics`: what it does and whether it is well, for Prometheus and for whoever is on call; `stop` ends it.
//!
//! **Comes in:** settings (defaults → file → environment → flags), signals to stop. **Goes out:** exit code 0 for done, 1 for an error that
//! is told on standard error with its causes, 2 for a command that was not understood.
//!
//! **Invariants kept here.** I5: tokens of who wrote to whom are covered before signals are written down (`pair_cover`). I6: `alerts` and
//! `serve` write an audit entry before they show anything. I8: a job that fails stops loudly; none of them is on the way of a message. I9:
//! `Processor` is a function of the plan and its frames.
//!
//! **What can go wrong.** Two processes on one data directory are safe for ingest (generations fence) and for closing and releasing
//! (idempotent); a second integrity job takes over from the first.

#![allow(clippy::print_stdout, missing_docs, unreachable_pub)]

mod accept_loss;
mod alerts;
mod billing;
mod budget;
mod chosen;
mod cli;
mod clock;
mod columns;
mod config;
mod demo;
mod demo_report;
#[cfg(test)]
mod deployed;
mod desk;
mod doctor;
mod doors;
mod evaluate;
mod export;
mod flight;
mod group_lists;
mod home;
mod ingest_status;
mod instance;
mod integrity_job;
mod kafka_settings;
mod keyed;
mod manual;
mod measure;
mod metrics;
mod on_us;
mod output;
mod pair_cover;
mod partitions;
mod postgres;
mod pricing;
mod processor;
mod progress;
mod quarantine;
mod receivers;
mod rules;
mod run;
mod serve;
mod signal_log;
mod simulate;
mod standing;
mod status;
mod stop;
mod summary;
mod traffic;
mod windows_job;

use std::future::Future;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use starling_aggregate::AggregateError;
use starling_ingest::IngestError;
use starling_integrity::IntegrityError;
use starling_query::ReleaseError;
use starling_store::{KeyringError, StoreError};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

use crate::cli::{AuditCommand, Cli, Command, ConfigCommand, Global, IngestCommand, IntegrityCommand, MetricsCommand};
use crate::config::Config;
use crate::home::Home;
use crate::metrics::Duties;
use crate::progress::BesideBars;
use crate::windows_job::Extent;

fn main() -> ExitCode {
    // A panic's text may hold a value from the data (I4): where it happened is told, what it said is not.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or_else(|| "an unknown place".to_owned(), |l| format!("{}:{}", l.file(), l.line()));
        tracing::error!(place, "a defect: something that cannot happen did; its text is withheld, as it may hold data");
    }));
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "starling: no threads can be started: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(execute(cli));
    // A blocked reader thread must not hold the process after its job has ended.
    runtime.shutdown_timeout(stop::THREADS_GRACE);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "starling: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `starling sql … | head` is no failure.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|e| e.downcast_ref::<std::io::Error>()).any(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

fn settings(global: &Global, more: &[(&str, Option<String>)]) -> anyhow::Result<Config> {
    let mut flags = Vec::new();
    if let Some(dir) = &global.data_dir {
        flags.push(("data_dir", dir.display().to_string()));
    }
    if let Some(brokers) = &global.brokers {
        flags.push(("kafka.brokers", brokers.clone()));
    }
    if let Some(level) = &global.log {
        flags.push(("log.level", level.clone()));
    }
    flags.extend(more.iter().filter_map(|(name, value)| value.clone().map(|v| (*name, v))));
    Config::load(global.config.as_deref(), &flags)
}

/// Logs go to standard error; what was asked for goes to standard output. `quiet` is for commands whose output is the point.
fn start_logging(config: &Config, global: &Global, quiet: bool) {
    let level = if (quiet || global.quiet) && global.log.is_none() { "warn" } else { &config.log.level };
    let mut filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    // Their own lines quote statements, which may hold anything (I4), at every level below this one.
    for quiet in ["sqlparser=warn", "datafusion=warn"] {
        filter = quiet.parse().map_or(filter.clone(), |directive| filter.clone().add_directive(directive));
    }
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| BesideBars)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    progress::allow(!global.quiet && config.log.format != "json");
    let _ = if config.log.format == "json" { builder.json().try_init() } else { builder.try_init() };
}

async fn execute(cli: Cli) -> anyhow::Result<()> {
    let Cli { global, command } = cli;
    // Of the commands alone: no setting changes them.
    match &command {
        Command::Completions { shell } => return manual::completions(*shell),
        Command::Man { out } => return manual::man(out.as_deref()),
        _ => {}
    }
    let long_running = matches!(
        command,
        Command::Run(cli::Run { trace: None, .. })
            | Command::Ingest { command: None, .. }
            | Command::Integrity { command: None }
            | Command::Serve { .. }
            | Command::Close(_)
            | Command::Release(_)
    );
    let more: Vec<(&str, Option<String>)> = match &command {
        Command::Run(run) => vec![("kafka.topic", run.topic.topic.clone())],
        Command::Ingest { topic, .. } | Command::Measure(topic) => vec![("kafka.topic", topic.topic.clone())],
        Command::AcceptLoss(asked) => vec![("kafka.topic", asked.topic.topic.clone())],
        Command::Serve { listen } => vec![("serve.listen", listen.clone())],
        _ => Vec::new(),
    };
    if let Command::Config { command } = &command {
        let config = settings(&global, &more)?;
        match command {
            ConfigCommand::Check => {
                config.kafka.client_properties()?;
                receivers::Receivers::open(&config)?;
                rules::load(&config)?;
                println!("The settings are good.");
            }
            ConfigCommand::Show => print!("{}", config.show()?),
        }
        return Ok(());
    }
    let config = settings(&global, &more)?;
    start_logging(&config, &global, !long_running);
    let data_dir = config.data_dir.display().to_string();
    dispatch(global, command, config).await.map_err(|error| {
        // Rooms name paths below the data directory, which they do not know.
        if is_told_by_a_room(&error) { error.context(format!("data directory {data_dir}")) } else { error }
    })
}

/// Whether something went wrong with what is kept.
fn is_told_by_a_room(error: &anyhow::Error) -> bool {
    error.chain().any(|e| {
        e.is::<StoreError>()
            || e.is::<KeyringError>()
            || e.is::<IngestError>()
            || e.is::<AggregateError>()
            || e.is::<ReleaseError>()
            || e.is::<IntegrityError>()
    })
}

async fn dispatch(global: Global, command: Command, config: Config) -> anyhow::Result<()> {
    match command {
        // Done before.
        Command::Config { .. } | Command::Completions { .. } | Command::Man { .. } => Ok(()),
        Command::Demo(demo) => demo::run(&global, config, &demo).await,
        Command::Run(run) => match &run.trace {
            Some(path) => run::trace(config, path, stop::signal()).await,
            None => {
                let (home, stop) = (Home::open(config).await?, stop::signal());
                run::service(&home, Duties { ingest: true }, stop.clone(), run::all(home.clone(), stop)).await
            }
        },
        Command::Ingest { command: Some(IngestCommand::Status { json }), .. } => {
            print!("{}", ingest_status::tell(&Home::open_existing(config).await?, json).await?);
            Ok(())
        }
        Command::Ingest { command: None, .. } => {
            let (home, stop) = (Home::open(config).await?, stop::signal());
            alone("ingest", &home, Duties { ingest: true }, stop.clone(), run::ingest(home.clone(), stop)).await
        }
        Command::AcceptLoss(asked) => accept_loss::run(&Home::open_existing(config).await?, &asked).await,
        Command::Close(close) => {
            let home = Home::open_existing(config).await?;
            if close.watch.watch {
                return watch_windows(home).await;
            }
            let extent = if close.all { Extent::All } else { Extent::Ready };
            let reports = windows_job::close(&home, extent).await?;
            for report in &reports {
                println!("{}  {}", report.window, if report.complete { "closed" } else { "closed as incomplete" });
            }
            if reports.is_empty() {
                println!("No window is ready to be closed.");
            }
            Ok(())
        }
        Command::Release(watch) => {
            let home = Home::open_existing(config).await?;
            if watch.watch {
                return watch_windows(home).await;
            }
            print!("{}", summary::releases(&windows_job::release(&home).await?));
            let added = windows_job::publish_delta(&home).await?;
            if added > 0 {
                println!("{added} named in their Delta logs");
            }
            Ok(())
        }
        Command::Integrity { command: Some(command) } => integrity(config, command).await,
        Command::Integrity { command: None } => {
            let (home, stop) = (Home::open(config).await?, stop::signal());
            let job = integrity_job::with_sending(home.clone(), receivers::Receivers::open(&home.config)?, stop.clone());
            alone("integrity", &home, Duties { ingest: false }, stop, job).await
        }
        Command::Serve { .. } => {
            let (home, stop) = (Home::open(config).await?, stop::signal());
            let job = run::serve(home.clone(), stop.clone());
            alone("serve", &home, Duties { ingest: false }, stop, job).await
        }
        Command::Sql { format, delta, team, statement } => {
            // Before anything is asked, and paid for.
            delta.iter().try_for_each(|folder| output::is_new(folder))?;
            // Datasets of one's own can be asked before any event has come.
            let own = !config.catalogue.datasets.is_empty();
            let home = if own { Home::open(config).await? } else { Home::open_existing(config).await? };
            let answer = progress::asking(&home.engine().await?, &team, &statement).await?;
            for note in &answer.notes {
                eprintln!("{note}");
            }
            match delta {
                Some(folder) => {
                    output::keep(&answer, &statement, home.clock.now_ms(), &folder)?;
                    println!("{} rows are in the Delta table {}", answer.rows(), folder.display());
                    Ok(())
                }
                None => output::write(&answer, format, &mut std::io::stdout().lock()),
            }
        }
        Command::Users { command } => {
            print!("{}", doors::tell_users(&config, &command, &clock::SystemClock, &clock::SystemEntropy)?);
            Ok(())
        }
        Command::Metrics { command } => match command {
            MetricsCommand::List { json } => {
                print!("{}", pricing::list(&config, json).await?);
                Ok(())
            }
            MetricsCommand::Export { format, out } => export::run(&config, format, out.as_deref()).await,
            MetricsCommand::Check { files, day, json } => pricing::check(config, &files, day.as_deref(), json).await,
        },
        Command::Alerts { command, follow, json, after, open, rule, kept } => {
            let home = Home::open_existing(config).await?;
            if let Some(command) = command {
                print!("{}", alerts::work::tell(&home, &command).await?);
                return Ok(());
            }
            alerts::print(&home, alerts::Asked { json, follow, after, open, rule, kept }, stop::signal()).await
        }
        Command::Status { json } => {
            let status = status::collect(&Home::open_existing(config).await?).await?;
            if json {
                println!("{}", serde_json::to_string(&status)?);
            } else {
                print!("{}", status::text(&status));
            }
            Ok(())
        }
        Command::Budget(asked) => {
            print!("{}", budget::tell(&Home::open_existing(config).await?, &asked).await?);
            Ok(())
        }
        Command::Billing(asked) => {
            let answer = billing::answer(&Home::open_existing(config).await?, &asked).await?;
            for note in &answer.notes {
                eprintln!("{note}");
            }
            output::write(&answer, asked.format, &mut std::io::stdout().lock())
        }
        Command::Quarantine { command } => {
            print!("{}", quarantine::tell(&Home::open_existing(config).await?, &command).await?);
            Ok(())
        }
        Command::Simulate(simulate) => traffic::simulate(&config, &simulate, stop::signal()),
        Command::Replay(replay) => traffic::replay(&config, &replay, stop::signal()),
        Command::Evaluate(asked) => tokio::task::block_in_place(|| evaluate::run(&config, &asked)),
        Command::Measure(_) => measure::run(config).await,
        Command::Doctor => doctor::run(&config, global.config.as_deref()).await,
        Command::Audit { command } => {
            let home = Home::open_existing(config).await?;
            match command {
                AuditCommand::Verify => println!("{} entries; the chain holds.", home.metastore.verify_audit().await?),
                AuditCommand::Tail { lines } => {
                    for entry in home.metastore.audit_tail(lines).await? {
                        println!("{}", status::audit_line(&entry));
                    }
                }
            }
            Ok(())
        }
    }
}

/// The rules of the integrity job.
async fn integrity(config: Config, command: IntegrityCommand) -> anyhow::Result<()> {
    match command {
        IntegrityCommand::Rules { json } => print!("{}", rules::list(&config, json)?),
        IntegrityCommand::Check { file } => print!("{}", rules::check(&config, file.as_deref())?),
        IntegrityCommand::Lists { file, put } => {
            print!("{}", group_lists::check(&config, file.as_deref())?);
            if put {
                let is_another = group_lists::put(&Home::open_existing(config).await?).await?;
                println!(
                    "{}",
                    if is_another { "In force from the next range that is planned." } else { "They were in force already." }
                );
            }
        }
        IntegrityCommand::Backtest { rule, rules, days, json } => {
            let asked = rules::backtest::Asked { rule: &rule, file: rules.as_deref(), days, json };
            print!("{}", rules::backtest::tell(&Home::open_existing(config).await?, &asked).await?);
        }
    }
    Ok(())
}

/// A job that has a process of its own.
async fn alone(
    name: &'static str,
    home: &Home,
    duties: Duties,
    stop: watch::Receiver<bool>,
    job: impl Future<Output = anyhow::Result<()>> + Send + 'static,
) -> anyhow::Result<()> {
    let job = stop::within_grace(name, stop.clone(), job);
    run::service(home, duties, stop, async { job.await.map(Option::unwrap_or_default) }).await
}

/// `close --watch` and `release --watch` are the same job.
async fn watch_windows(home: Home) -> anyhow::Result<()> {
    let stop = stop::signal();
    let job = windows_job::watch(home.clone(), stop.clone());
    alone("windows", &home, Duties { ingest: false }, stop, job).await
}

/// Where this crate's snapshots of texts lie.
#[cfg(test)]
fn snapshots() -> insta::Settings {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(concat!(env!("CARGO_MANIFEST_DIR"), "/src/snapshots"));
    settings.set_prepend_module_to_snapshot(false);
    settings
}
