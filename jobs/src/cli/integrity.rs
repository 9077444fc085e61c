//! `starling integrity` and its help.

use std::path::PathBuf;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub enum IntegrityCommand {
    /// Every rule in force: its version, what it looks at, and where it stands
    Rules {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Read, type and test written rules, and say all that is wrong
    #[command(long_about = "Read, type and test written rules, and say all that is wrong: file, rule, field and what to do.\n\n\
A rule is a table of TOML: version, about (why it is there), on (business_day or group_hour), when (a condition of SQL over that one's columns), counts \
(the column that is told as observed), least (from where on it fires, 10 or more), severity, its standing, and tests: windows that it must and must not \
fire on. A rule in a file of one's own takes a shipped one of its name over.\n\n\
Ends with 1 when any rule cannot be used; then none is. A running detector takes changes when it is started again.")]
    Check {
        /// A file of rules, or a folder of them [default: integrity.rules]
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Read the lists of hashes that groups are held against, and say all that is wrong
    #[command(
        long_about = "Read the lists of hashes that groups are held against, and say all that is wrong: line and what to do.\n\n\
A line is a hash in hex (8 to 64 bytes), what is hashed (name, description or photo), and the label of the list. Which hash the edge computes is yours to \
know: bytes are compared with bytes.\n\n\
With --put what integrity.group_hashes names is in force for running jobs too, from the next range that is planned."
    )]
    Lists {
        /// A file of hashes [default: integrity.group_hashes]
        #[arg(value_name = "FILE", conflicts_with = "put")]
        file: Option<PathBuf>,
        /// Put what the settings name in force
        #[arg(long)]
        put: bool,
    },
    /// Try a written rule on the last days: what it would have found, beside what was told and judged
    #[command(long_about = "Try a written rule on the last days: what it would have found, beside what was told and judged.\n\n\
Facts of windows that are over are kept sealed for 14 days: of a business's day six hours after its end, of a group when it has fallen silent; only of \
windows in which something was counted ten times or more. Factors are how far beyond its baseline, or beyond `least`, each one was. Who it would have been is not told. \
Each reading is entered in the hash-chained log before it is shown.")]
    Backtest {
        /// The rule's name
        rule: String,
        /// A file of rules, or a folder of them, in place of those in force
        #[arg(long, value_name = "FILE")]
        rules: Option<PathBuf>,
        /// How many days, up to yesterday or the newest that is kept
        #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=14))]
        days: u32,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
}
