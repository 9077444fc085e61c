//! The commands and their help.

mod alerts;
mod integrity;
mod metrics;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use starling_schemas::codes::Fault;

use crate::output::Format;

pub use self::alerts::AlertsCommand;
pub use self::integrity::IntegrityCommand;
pub use self::metrics::MetricsCommand;

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
    /// No progress bars, and no log lines below a warning unless --log asks for them
    #[arg(long, short, global = true)]
    pub quiet: bool,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// A simulated day through all rooms, with planted abusers; nothing to install
    Demo(Demo),
    /// All rooms in one process: from Kafka, or from a trace file to its end
    Run(Run),
    /// Read events from Kafka, strip identifiers, write person rows and signals
    #[command(args_conflicts_with_subcommands = true)]
    Ingest {
        #[command(flatten)]
        topic: Topic,
        #[command(subcommand)]
        command: Option<IngestCommand>,
    },
    /// Go on after ingest stopped because events are gone: says what is lost, and records it
    AcceptLoss(AcceptLoss),
    /// Close windows that are over: merge, reconcile, destroy the day's pseudonym key
    Close(Close),
    /// Release the statistics of closed windows, each once, charged to the ledger
    Release(Watch),
    /// Detect bulk, spam and abusive groups in the signals; rules of one's own
    #[command(args_conflicts_with_subcommands = true)]
    Integrity {
        #[command(subcommand)]
        command: Option<IntegrityCommand>,
    },
    /// Serve SQL, statistics, budget, health and alerts over HTTP; and SQL to clients of PostgreSQL and Arrow Flight, if postgres.listen or flight.listen is set
    Serve {
        /// Address to listen on
        #[arg(long, value_name = "ADDRESS")]
        listen: Option<String>,
    },
    /// Ask SQL over stats.* and meta.*, and with noise over private.*
    #[command(
        long_about = "Ask SQL over released statistics (stats.*), what is known of them (meta.*), and protected rows (private.*).\n\n\
A statement over private.* aggregates people: COUNT(DISTINCT person), COUNT(*), SUM, AVG, STDDEV, MEDIAN, PERCENTILE_CONT. It is answered with noise, \
once, and charged to the days it reads; asked again it costs nothing. EXPLAIN PRIVACY before it says what it would cost and how good the answer \
would be, and spends nothing. SETTINGS epsilon = 0.1, groups = 'discovered' at its end sets its budget and how groups are found; other = true adds a row for the groups that \
are left out, bias = true says how much the bounds cut off. SUGGEST before a SELECT finds bounds that fit it, for a tenth of its cost."
    )]
    Sql {
        /// Shape of the answer
        #[arg(long, value_enum, default_value = "table")]
        format: Format,
        /// Keep the answer as a Delta table in this new folder, in place of showing it
        #[arg(long, value_name = "FOLDER", conflicts_with = "format")]
        delta: Option<PathBuf>,
        /// Team whose allotment pays for a question over private.*
        #[arg(long, default_value = starling_query::TEAM, value_name = "TEAM")]
        team: String,
        /// The statement, such as "SELECT * FROM meta.metrics"
        statement: String,
    },
    /// Who may log in, over HTTP and with a SQL client
    Users {
        #[command(subcommand)]
        command: UsersCommand,
    },
    /// The statistics that are released: what they are, and what they cost
    #[command(
        long_about = "The statistics that are released of every closed day, as reviewed text in schemas/metrics: a few words, a query over \
private.<dataset>, bounds and a budget.\n\n\
A metric's query is one SELECT that aggregates people, with `value` as its last column and no day in it; what one person may add is clipped with \
dp_clip. Each day is released once, as stats.<metric>."
    )]
    Metrics {
        #[command(subcommand)]
        command: MetricsCommand,
    },
    /// Show alerts
    #[command(args_conflicts_with_subcommands = true)]
    Alerts {
        #[command(subcommand)]
        command: Option<AlertsCommand>,
        /// Wait for more
        #[arg(long)]
        follow: bool,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        /// Only those after this position
        #[arg(long, default_value_t = 0, value_name = "POSITION")]
        after: i64,
        /// Only those that somebody should look at: not judged yet, appealed, or grown fourfold since they were dealt with
        #[arg(long)]
        open: bool,
        /// Only those of this rule
        #[arg(long, value_name = "RULE")]
        rule: Option<String>,
        /// What was found and is told to nobody instead, with why: its rule is in shadow or demoted, the subject is not in a canary's share, or the
        /// day's allowance was reached. Kept for 14 days
        #[arg(long, conflicts_with = "open")]
        kept: bool,
    },
    /// What is in the data directory: partitions, windows, counts, keys, budget
    Status {
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Privacy budget: spent, left, by whom and for what, and what one person can have lost
    ///
    /// Every statistic costs the people in it a little privacy. The price is counted in rho (zero-concentrated differential privacy), because rho
    /// adds up exactly; each dataset and day has a limit that no charge can exceed, and nothing is ever given back. Epsilon at delta is the
    /// same in the words of most papers: epsilons do not add up, rho does.
    ///
    /// Scheduled releases have a share of each day that questions cannot touch. A team's questions pay from its allotment, which is refilled;
    /// the same question over the same days is paid for once and then free. The last lines add up what was really spent and say what one person
    /// who was there every day can have lost in a day, a week and 30 days.
    ///
    /// The same is in SQL: meta.budget, meta.charges, meta.allotments. Limits and allotments are text: schemas/metrics/datasets.toml.
    Budget(Budget),
    /// What businesses are billed for, exactly: messages by day, business, portfolio, category and country
    ///
    /// Nobody is in these figures: of the person at the other end only the country of the calling code is counted. They are kept under a key of
    /// their own and stay when person rows expire. A message that comes late is added to the day it belongs to.
    Billing(BillingArgs),
    /// Unreadable events: where they were and why, never what they held
    Quarantine {
        #[command(subcommand)]
        command: QuarantineCommand,
    },
    /// Make traffic with planted abusers, to a trace file or to Kafka
    Simulate(Simulate),
    /// Send a trace file to Kafka, or turn SMS and call logs into events
    Replay(Replay),
    /// How good the rules are on a trace whose truth is known
    ///
    /// Per scenario how many abusers were found, how soon, and after how much of what they sent; alerts on others; precision; each share with its
    /// exact 95 % interval. Any trace will do that somebody has a truth for: a JSON file with the lists `abusers` and `harmless`, each entry with
    /// kind, subject_kind (sender, business or group), subject, start_ms and end_ms. `starling simulate --truth FILE` writes one.
    Evaluate(Evaluate),
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
    /// Print what lets a shell complete these commands
    ///
    /// bash: `starling completions bash > ~/.local/share/bash-completion/completions/starling`. zsh: the same into `_starling`, in a folder of
    /// $fpath. fish: into ~/.config/fish/completions/starling.fish.
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Print the manual page, or write one for each command
    ///
    /// `starling man | man -l -` reads it here; `starling man --out /usr/local/share/man/man1` lets `man starling-sql` find all of them.
    Man {
        /// Write starling.1, starling-sql.1 and so on into this folder
        #[arg(long, value_name = "FOLDER")]
        out: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub enum UsersCommand {
    /// Let somebody in; the password comes from a prompt, or is the first line of standard input
    Add {
        /// Name to log in with, as it goes into the audit log
        name: String,
        /// product (private, business), integrity (integrity, business), billing (billing, business), privacy, engineer or auditor;
        /// all read stats and meta
        #[arg(long, value_name = "ROLE")]
        role: String,
        /// Team whose allotment pays for questions over private.*
        #[arg(long, value_name = "TEAM")]
        team: String,
        /// Give somebody who is there already a new password, role and team
        #[arg(long)]
        replace: bool,
    },
    /// Name, role, team, end of the token and certificate of each
    List,
    /// Make a token for somebody's programs (HTTP and Flight SQL, `Authorization: Bearer`), in place of the one before; it is shown once
    Token {
        /// Whose
        name: String,
        /// How long it is good for
        #[arg(long, value_name = "N", default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=3650))]
        days: u32,
        /// Make none, and end the one that is there
        #[arg(long, conflicts_with = "days")]
        revoke: bool,
    },
    /// Say by which client certificate somebody is known, in place of the one before
    Certificate {
        /// Whose
        name: String,
        /// A URI or a DNS name of its subjectAltName, such as spiffe://example.com/ada
        #[arg(required_unless_present = "revoke")]
        subject: Option<String>,
        /// By none any more
        #[arg(long, conflicts_with = "subject")]
        revoke: bool,
    },
    /// Let somebody in no more
    Remove {
        /// Whom
        name: String,
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

#[derive(Debug, Clone, Default, Args)]
pub struct Budget {
    /// Only this dataset
    #[arg(long, value_name = "DATASET")]
    pub dataset: Option<String>,
    /// Only what this team spent and may spend; `releases` for scheduled releases. Days and the worst case stay everybody's
    #[arg(long, value_name = "TEAM")]
    pub team: Option<String>,
    /// One JSON object, with every day and charge
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Clone, Args)]
pub struct Topic {
    /// Topic of events [default: events]
    #[arg(long, value_name = "TOPIC")]
    pub topic: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum IngestCommand {
    /// Each partition's owner, generation, offsets, lag, watermark and open plan
    Status {
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Clone, Args)]
pub struct Since {
    /// Only those committed since: how long ago (2h, 7d), or a moment (2026-01-05, 2026-01-05T10:30:00Z)
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum QuarantineCommand {
    /// Partition, offset, class, length and time of the newest ones
    List {
        #[command(flatten)]
        since: Since,
        /// Only those of this class
        #[arg(long, value_name = "CLASS", value_parser = clap::builder::PossibleValuesParser::new(Fault::ALL.iter().map(|f| f.name())))]
        class: Option<String>,
        /// At most so many
        #[arg(long, default_value_t = 50, value_name = "N")]
        limit: u32,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// How many there are of each class
    Count {
        #[command(flatten)]
        since: Since,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Clone, Args)]
pub struct BillingArgs {
    /// First day, such as 2026-01-05 [default: all]
    #[arg(long, value_name = "DAY")]
    pub from: Option<String>,
    /// Last day [default: all]
    #[arg(long, value_name = "DAY")]
    pub to: Option<String>,
    /// Only this business
    #[arg(long, value_name = "ID")]
    pub business: Option<String>,
    /// Shape of the answer
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
}

#[derive(Debug, Clone, Args)]
pub struct AcceptLoss {
    #[command(flatten)]
    pub topic: Topic,
    /// Also this partition, though its offsets look sound: its log was cut and has grown again
    #[arg(long, value_name = "N")]
    pub partition: Option<i32>,
    /// Where that partition begins [default: at the log's beginning]
    #[arg(long, value_name = "OFFSET", requires = "partition")]
    pub from: Option<i64>,
    /// Do it; without this nothing is changed
    #[arg(long)]
    pub yes: bool,
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
    /// Abusers and lookalikes of each kind, 1 to 1,000, instead of as many as there would be among so many people
    #[arg(long, value_name = "N")]
    pub planted: Option<u32>,
    /// Text message log, timestamp,sender,recipient: in place of what ordinary people write to each other
    #[arg(long, value_name = "CSV")]
    pub sms: Option<PathBuf>,
    /// Call log, timestamp,sender,recipient,duration_s: in place of their calls
    #[arg(long, value_name = "CSV", requires = "sms")]
    pub calls: Option<PathBuf>,
    /// How many people of the simulation each one of the log becomes, 1 to 1,000, each some days apart
    #[arg(long, default_value_t = 1, value_name = "N", requires = "sms")]
    pub copies: u32,
    #[command(flatten)]
    pub to: Destination,
    #[command(flatten)]
    pub new: NewTopic,
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
    /// Topic to send to, with --brokers; made if it is not there
    #[arg(long, value_name = "TOPIC")]
    pub topic: Option<String>,
}

/// Apart from the destination, of which one must be named.
#[derive(Debug, Clone, Args)]
pub struct NewTopic {
    /// Partitions of a topic that is made
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=1024))]
    pub partitions: i32,
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
    #[command(flatten)]
    pub new: NewTopic,
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

/// Arguments of `evaluate`.
#[derive(Debug, Args)]
pub struct Evaluate {
    /// Trace file
    #[arg(long, value_name = "FILE")]
    pub trace: PathBuf,
    /// Who in it is an abuser, and who only looks like one
    #[arg(long, value_name = "FILE")]
    pub truth: PathBuf,
    /// One JSON object
    #[arg(long)]
    pub json: bool,
}
