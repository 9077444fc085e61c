//! The commands and their help.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::output::Format;

/// Private statistics and content-blind abuse detection for a messaging platform.
#[derive(Debug, Parser)]
#[command(
    name = "starling",
    version,
    about = "Statistics of the flock, never of the bird.",
    long_about = "Starling reads a messaging platform's metadata events, strips identifiers at the door, releases differentially \
private statistics, and raises explained alerts on abuse without reading content.\n\n\
Start with `starling demo`: a simulated day, everything embedded, nothing to install."
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Folder that holds everything Starling keeps [default: starling-data]
    #[arg(long, global = true, env = "STARLING_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Settings file (TOML); `starling config show` prints all settings
    #[arg(long, global = true, env = "STARLING_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Kafka bootstrap servers, host:port[,host:port]
    #[arg(long, global = true, value_name = "BROKERS")]
    pub brokers: Option<String>,
    /// What to log: error, warn, info, debug, trace, or directives
    #[arg(long, global = true, value_name = "LEVEL")]
    pub log: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// A simulated day through all rooms, with planted abusers; nothing to install
    Demo(Demo),
    /// All rooms in one process: from Kafka, or from a trace file to its end
    Run(Run),
    /// Read events from Kafka, strip identifiers, write person rows and signals
    Ingest(Topic),
    /// Close windows that are over: merge, reconcile, destroy the day's pseudonym key
    Close(Close),
    /// Release the statistics of closed windows, each once, charged to the ledger
    Release(Watch),
    /// Detect bulk, spam and abusive groups in the signals
    Integrity,
    /// Serve alerts over HTTP: /v1/alerts and /v1/alerts/stream
    Serve {
        /// Address to listen on
        #[arg(long, value_name = "ADDRESS")]
        listen: Option<String>,
    },
    /// Ask SQL over stats.* and meta.*
    Sql {
        /// Shape of the answer
        #[arg(long, value_enum, default_value = "table")]
        format: Format,
        /// The statement, such as "SELECT * FROM meta.metrics"
        statement: String,
    },
    /// Show alerts
    Alerts {
        /// Wait for more
        #[arg(long)]
        follow: bool,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        /// Only those after this position
        #[arg(long, default_value_t = 0, value_name = "POSITION")]
        after: i64,
    },
    /// What is in the data directory: partitions, windows, counts, keys, budget
    Status {
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Make traffic with planted abusers, to a trace file or to Kafka
    Simulate(Simulate),
    /// Send a trace file to Kafka, or turn SMS and call logs into events
    Replay(Replay),
    /// Measure ingest beside a bare drain of the same topic (benches/journey.sh)
    #[command(hide = true)]
    Measure(Topic),
    /// Find the likeliest things that are wrong with this machine and these settings
    Doctor,
    /// Check or show the settings
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// The hash-chained log of reads, releases and destroyed keys
    Audit {
        #[command(subcommand)]
        command: AuditCommand,
    },
}

#[derive(Debug, Clone, Args)]
pub struct Demo {
    /// People in the simulated day
    #[arg(long, default_value_t = 100_000, value_name = "N")]
    pub people: u64,
    /// Seed: the same seed makes the same day
    #[arg(long, default_value_t = 1, value_name = "S")]
    pub seed: u64,
}

#[derive(Debug, Clone, Args)]
pub struct Topic {
    /// Topic of events [default: events]
    #[arg(long, value_name = "TOPIC")]
    pub topic: Option<String>,
}

#[derive(Debug, Clone, Args)]
pub struct Run {
    /// Take this trace file to its end, close every window, and exit
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    #[command(flatten)]
    pub topic: Topic,
}

#[derive(Debug, Clone, Args)]
pub struct Close {
    /// Close all open windows, not only those the watermark has passed
    #[arg(long, conflicts_with = "watch")]
    pub all: bool,
    #[command(flatten)]
    pub watch: Watch,
}

#[derive(Debug, Clone, Args)]
pub struct Watch {
    /// Go on until stopped
    #[arg(long)]
    pub watch: bool,
}

#[derive(Debug, Clone, Args)]
pub struct Simulate {
    /// People, 1,000 to 10,000,000
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    pub people: u64,
    /// Days
    #[arg(long, default_value_t = 1, value_name = "D")]
    pub days: u32,
    /// Seed: the same seed makes the same traffic
    #[arg(long, default_value_t = 1, value_name = "S")]
    pub seed: u64,
    /// First day
    #[arg(long, default_value = "2026-01-05", value_name = "YYYY-MM-DD")]
    pub start: String,
    /// Unreadable frames on top, as a share of the readable ones, 0 to 0.5
    #[arg(long, default_value_t = 0.0, value_name = "SHARE")]
    pub bad: f64,
    #[command(flatten)]
    pub to: Destination,
    /// Write what is true of the traffic here, as JSON
    #[arg(long, value_name = "FILE")]
    pub truth: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
#[group(id = "destination", required = true, multiple = true)]
pub struct Destination {
    /// Trace file; `.zst` at the end compresses it
    #[arg(long, value_name = "FILE", conflicts_with = "topic")]
    pub out: Option<PathBuf>,
    /// Topic to send to, with --brokers; made with 4 partitions if it is not there
    #[arg(long, value_name = "TOPIC")]
    pub topic: Option<String>,
}

#[derive(Debug, Clone, Args)]
pub struct Replay {
    /// Trace file to send
    #[arg(conflicts_with_all = ["sms", "calls"], required_unless_present_any = ["sms", "calls"])]
    pub trace: Option<PathBuf>,
    /// Text message log: timestamp,sender,recipient
    #[arg(long, value_name = "CSV")]
    pub sms: Option<PathBuf>,
    /// Call log: timestamp,sender,recipient,duration_s
    #[arg(long, value_name = "CSV")]
    pub calls: Option<PathBuf>,
    /// Day that second 0 of the logs falls on
    #[arg(long, default_value = "2026-01-05", value_name = "YYYY-MM-DD")]
    pub start: String,
    #[command(flatten)]
    pub to: Destination,
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Say what is wrong where, or that all is well
    Check,
    /// Print the settings in force; secrets are left out
    Show,
}

#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Recompute the chain and say whether it holds
    Verify,
    /// Print the newest entries
    Tail {
        /// How many
        #[arg(long, default_value_t = 20, value_name = "N")]
        lines: u32,
    },
}
