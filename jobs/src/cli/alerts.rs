//! The commands for the work on alerts.

use clap::{Args, Subcommand};

use crate::alerts::work::{EnforcementArg, Lasting, ReasonArg};

/// Which alert, and who takes the step.
#[derive(Debug, Clone, Args)]
pub struct On {
    /// Its fingerprint, or the first six digits of it or more
    pub alert: String,
    /// Your name, as it goes into the audit log
    #[arg(long, value_name = "NAME")]
    pub by: String,
}

#[derive(Debug, Clone, Subcommand)]
pub enum AlertsCommand {
    /// One alert: what was seen, against what, and every step taken on it
    Show {
        /// Its fingerprint, or the first six digits of it or more
        alert: String,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Take an alert on, or hand it to a colleague
    Take {
        #[command(flatten)]
        on: On,
        /// The colleague
        #[arg(long, value_name = "NAME")]
        to: Option<String>,
    },
    /// Say something about an alert
    Note {
        #[command(flatten)]
        on: On,
        /// What; never a phone number
        text: String,
    },
    /// Put an alert into a case, with others of that name
    Case {
        #[command(flatten)]
        on: On,
        /// The case
        case: String,
    },
    /// Judge an alert abuse
    Confirm {
        #[command(flatten)]
        on: On,
        /// spam, scam, automation, coordination or abusive_group
        #[arg(long)]
        reason: ReasonArg,
    },
    /// Judge an alert no abuse
    Dismiss {
        #[command(flatten)]
        on: On,
        /// brigade, legitimate_use, expected_traffic or data_fault
        #[arg(long)]
        reason: ReasonArg,
    },
    /// Say what was done about a confirmed alert
    Act {
        #[command(flatten)]
        on: On,
        /// warned, limited, suspended, banned or none
        enforcement: EnforcementArg,
    },
    /// Write down that the subject contests the judgement
    Appeal {
        #[command(flatten)]
        on: On,
        /// What is said, without who says it
        text: String,
    },
    /// Answer an appeal, in writing; not by whoever decided or acted
    Answer {
        #[command(flatten)]
        on: On,
        /// It was no abuse: the flags are cleared, and what was done is to be undone
        #[arg(long, conflicts_with = "refuse", required_unless_present = "refuse")]
        grant: bool,
        /// The judgement stands
        #[arg(long)]
        refuse: bool,
        /// The answer
        text: String,
    },
    /// End the work on an alert
    Close {
        #[command(flatten)]
        on: On,
    },
    /// Hear no more of this rule about this subject for a while, unless its evidence grows fourfold
    Silence {
        #[command(flatten)]
        on: On,
        /// How long: 90m, 12h, 7d; at most 30d
        #[arg(long = "for", value_name = "TIME")]
        lasting: Lasting,
        /// Why
        text: String,
    },
    /// End a silence before its time
    Unsilence {
        #[command(flatten)]
        on: On,
    },
    /// The silences there are
    Silences {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// How often each rule was right, as you and your colleagues judged it, beside what it promises
    ///
    /// Each rule promises a share of false alerts at most. Verdicts on what it told in the present period of 28 days and the one before are held against
    /// that; a rule that breaks its promise goes back to shadow by itself: what it finds is kept, and nobody is told, until it has a new version or somebody
    /// restores it. Rules that tell because users were promised so are shown as exceeding, and tell on.
    Precision {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Let a rule tell again that verdicts put back in shadow: what it told until now is not held against it any more
    Restore {
        /// The rule, as `precision` shows it
        rule: String,
        /// Your name, as it goes into the audit log
        #[arg(long, value_name = "NAME")]
        by: String,
        /// Why
        text: String,
    },
    /// Alerts on their way to webhooks: what waits, or with --dead what was given up
    Deliveries {
        /// Those that were given up
        #[arg(long)]
        dead: bool,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Give deliveries that were given up another try
    Resend {
        /// The delivery, as `deliveries --dead` shows it
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        delivery: Option<String>,
        /// All that were given up
        #[arg(long)]
        all: bool,
        /// Only to this receiver
        #[arg(long, value_name = "NAME")]
        to: Option<String>,
        /// Who sends it again
        #[arg(long, value_name = "NAME")]
        by: String,
    },
}
