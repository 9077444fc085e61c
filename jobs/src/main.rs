//! # starling: one executable, every job a subcommand
//!
//! The rooms know nothing of each other; all wiring is here.
//!
//! ```text
//!   events (Kafka | trace) ─ingest─► Processor { minimize → fold → segment, signals } ─commit─► metastore
//!                                                     │                        │
//!                                         SignalSink (topic | sealed files)    └─ windows_job: close → release → keys die
//!                                                     ▼
//!                                   integrity_job: detectors → alerts ─► metastore ─► topic, `alerts`, /v1/alerts/stream
//! ```
//!
//! **Comes in:** settings (defaults → file → environment → flags), signals to stop. **Goes out:** exit code 0 for done, 1 for an error that
//! is told on standard error with its causes, 2 for a command that was not understood.
//!
//! **Invariants kept here.** I6: `alerts` and `serve` write an audit entry before they show anything. I8: a job that fails stops loudly; none
//! of them is on the way of a message. I9: `Processor` is a function of the plan and its frames.
//!
//! **What can go wrong.** Two processes on one data directory are safe for ingest (generations fence) and for closing and releasing
//! (idempotent); a second integrity job takes over from the first.

#![allow(clippy::print_stdout, missing_docs, unreachable_pub)]

mod alerts;
mod cli;
mod clock;
mod config;
mod demo;
mod demo_report;
mod doctor;
mod home;
mod integrity_job;
mod measure;
mod output;
mod processor;
mod run;
mod serve;
mod signal_log;
mod simulate;
mod status;
mod summary;
mod traffic;
mod windows_job;

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use tracing_subscriber::EnvFilter;

use crate::cli::{AuditCommand, Cli, Command, ConfigCommand, Global};
use crate::config::Config;
use crate::home::Home;
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
    runtime.shutdown_timeout(std::time::Duration::from_secs(5));
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
    let level = if quiet && global.log.is_none() { "warn" } else { &config.log.level };
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    let _ = if config.log.format == "json" { builder.json().try_init() } else { builder.try_init() };
}

async fn execute(cli: Cli) -> anyhow::Result<()> {
    let Cli { global, command } = cli;
    let long_running = matches!(
        command,
        Command::Run(cli::Run { trace: None, .. })
            | Command::Ingest(_)
            | Command::Integrity
            | Command::Serve { .. }
            | Command::Close(_)
            | Command::Release(_)
    );
    let more: Vec<(&str, Option<String>)> = match &command {
        Command::Run(run) => vec![("kafka.topic", run.topic.topic.clone())],
        Command::Ingest(topic) | Command::Measure(topic) => vec![("kafka.topic", topic.topic.clone())],
        Command::Serve { listen } => vec![("serve.listen", listen.clone())],
        _ => Vec::new(),
    };
    if let Command::Config { command } = &command {
        let config = settings(&global, &more)?;
        match command {
            ConfigCommand::Check => println!("The settings are good."),
            ConfigCommand::Show => print!("{}", config.show()?),
        }
        return Ok(());
    }
    let config = settings(&global, &more)?;
    start_logging(&config, &global, !long_running);
    match command {
        Command::Config { .. } => Ok(()),
        Command::Demo(demo) => demo::run(&global, config, &demo).await,
        Command::Run(run) => match &run.trace {
            Some(path) => run::trace(config, path, run::stop_signal()).await,
            None => run::all(Home::open(config).await?, run::stop_signal()).await,
        },
        Command::Ingest(_) => run::ingest(Home::open(config).await?, run::stop_signal()).await,
        Command::Close(close) => {
            let home = Home::open_existing(config).await?;
            if close.watch.watch {
                return windows_job::watch(home, run::stop_signal()).await;
            }
            let extent = if close.all { Extent::All } else { Extent::Ready };
            let reports = windows_job::close(&home, extent).await?;
            for report in &reports {
                println!("{}  {}", report.epoch, if report.complete { "closed" } else { "closed as incomplete" });
            }
            if reports.is_empty() {
                println!("No window is ready to be closed.");
            }
            Ok(())
        }
        Command::Release(watch) => {
            let home = Home::open_existing(config).await?;
            if watch.watch {
                return windows_job::watch(home, run::stop_signal()).await;
            }
            print!("{}", summary::releases(&windows_job::release(&home).await?));
            Ok(())
        }
        Command::Integrity => {
            let home = Home::open(config).await?;
            let stop = run::stop_signal();
            let publishing = tokio::spawn(integrity_job::publish_alerts(home.clone(), stop.clone()));
            integrity_job::run(home, stop).await?;
            publishing.await??;
            Ok(())
        }
        Command::Serve { .. } => {
            let home = Home::open(config).await?;
            serve::run(home, run::stop_signal(), |address| {
                println!("Alerts: http://{address}/v1/alerts, as a stream: http://{address}/v1/alerts/stream")
            })
            .await
        }
        Command::Sql { format, statement } => {
            let home = Home::open_existing(config).await?;
            let engine = starling_query::Engine::open(
                home.metastore.clone(),
                home.files.clone(),
                home.catalogue.clone(),
                home.clock.clone(),
            )
            .await?;
            let answer = engine.query(&statement).await?;
            output::write(&answer, format, &mut std::io::stdout().lock())
        }
        Command::Alerts { follow, json, after } => {
            let home = Home::open_existing(config).await?;
            alerts::print(&home, json, follow, after, run::stop_signal()).await
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
        Command::Simulate(simulate) => traffic::simulate(&config, &simulate, run::stop_signal()),
        Command::Replay(replay) => traffic::replay(&config, &replay, run::stop_signal()),
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
