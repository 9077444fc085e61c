//! `starling metrics` and its help.

use std::path::PathBuf;

use clap::Subcommand;

use crate::export::Tool;

#[derive(Debug, Subcommand)]
pub enum MetricsCommand {
    /// Each metric's name, unit, groups and cost
    List {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Price every metric against its block before it runs, and say how good it will be
    #[command(
        long_about = "Price every metric against its block before it runs, and say how good it will be. Reads no person row and spends nothing.\n\n\
A block is one day of a dataset; it may ever spend the dataset's rho_limit. Metrics are charged in their order, so those at the end are refused when \
it runs out. The error is one standard deviation of the noise as a share of the value, in a group of so many people of whom each brings a tenth of \
what may count of one. Values below four standard deviations are suppressed, so from 25 % on a group is not shown.\n\n\
Ends with 1 when a metric does not fit, or its text is wrong."
    )]
    Check {
        /// Metrics that are not part of this build yet, behind those that are
        #[arg(value_name = "FILE")]
        files: Vec<PathBuf>,
        /// What this day's block has left, in place of a whole one
        #[arg(long, value_name = "YYYY-MM-DD")]
        day: Option<String>,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Write what other tools need to know of the statistics
    #[command(
        long_about = "Write what other tools need to know of the statistics, made from the reviewed text: every table and column of schema stats as the \
PostgreSQL door shows them, with what a number means, how it is bounded and how its noise is told.\n\n\
dbt: a file of sources, with tests. metricflow: semantic models and metrics; what adds up over groups and days is a sum with its standard deviation, \
numbers of people are never added up over days, and what does not add up at all is the largest one. With --out the dbt models it stands on and a time \
spine come with it, so that the folder is one of a dbt project's."
    )]
    Export {
        /// For which tool
        #[arg(long, value_enum)]
        format: Tool,
        /// Write files into this folder in place of showing one; what is there under the same names is replaced
        #[arg(long, value_name = "FOLDER")]
        out: Option<PathBuf>,
    },
}
