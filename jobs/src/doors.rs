//! # What the doors share
//!
//! Behind the PostgreSQL door (`postgres`), the HTTP door (`serve`) and the Flight SQL door (`flight`) is one gate, and before them are the same people.
//! So what says who somebody is, what is written down before they are served, and in which words they are refused, is here once.
//!
//! ```text
//!   users    the users file: name → role, team, verifier, token         scram        verifiers, and the exchange over them
//!   logins   a name and a password, said once; penance                  sessions     what a login leaves: a secret's hash, for a while
//!   scribe   audit entries, many statements to one (I6)                 tls          certificate and key, or no door (I8); clients' own
//!   places   statements of one user at one time                         connections  how many, and how slow they may be
//!   heard    what was refused to whom, as numbers of an hour (P28)
//!   Refusal  a code, a reason and a hint, the same at every door        left         what a private answer leaves the team
//!   oidc     tokens of a company's identity provider, at each call anew
//! ```
//!
//! Who may read what is not here: it is the table in `starling_query`'s `rights`.

pub(crate) mod connections;
pub(crate) mod heard;
pub(crate) mod logins;
pub(crate) mod oidc;
pub(crate) mod places;
pub(crate) mod scram;
pub(crate) mod scribe;
pub(crate) mod sessions;
pub(crate) mod tls;
pub(crate) mod users;
mod users_command;

use std::time::Duration;

use arrow::array::AsArray as _;
use starling_query::{Engine, Principal};
use tokio::sync::watch;

pub use users_command::tell as tell_users;

/// How long whoever did not get in waits for the word.
pub(crate) const PENANCE: Duration = Duration::from_millis(500);
/// How long a statement may go on after the process was asked to stop; below `stop::GRACE`.
pub(crate) const STOPPING: Duration = Duration::from_secs(4);
/// Pause after an error of accepting, such as too many open files.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// A door by its name: in the log's entries, and in words.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Named {
    pub(crate) word: &'static str,
    pub(crate) over: &'static str,
}

/// The HTTP door.
pub(crate) const HTTP: Named = Named { word: "http", over: "HTTP" };
/// The Flight SQL door.
pub(crate) const FLIGHT: Named = Named { word: "flight", over: "Flight SQL" };

/// What kind of refusal it is; each protocol has a word of its own for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Whoever asks is nobody.
    Nobody,
    /// It may not.
    Forbidden,
    /// There is no such thing.
    Missing,
    /// Somebody else was first.
    Conflict,
    /// It was ended before it was done.
    Ended,
    /// There is no room, or no budget, left for it.
    Full,
    /// SQL or the protocol knows it, and it is not done here.
    Unsupported,
    /// It may be done later.
    Unavailable,
    /// A defect of ours.
    Fault,
    /// What was asked cannot be answered as it was asked.
    Wrong,
}

/// A refusal or a fault as the client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// SQLSTATE, five characters.
    pub(crate) code: &'static str,
    /// What is wrong; no value from the data, nothing of what was asked but names.
    pub(crate) reason: String,
    /// What to do instead.
    pub(crate) hint: String,
    /// What kind of error of a statement it is, and what it came to; empty where there is no more to say.
    pub(crate) detail: String,
}

impl Refusal {
    pub(crate) fn new(code: &'static str, reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code, reason: reason.into(), hint: hint.into(), detail: String::new() }
    }

    /// Of which kind it is, by its code.
    pub(crate) fn class(&self) -> Class {
        match self.code {
            "28000" | "28P01" => Class::Nobody,
            "42501" => Class::Forbidden,
            "02000" => Class::Missing,
            "40001" => Class::Conflict,
            "57014" => Class::Ended,
            "53300" | "53400" => Class::Full,
            "0A000" => Class::Unsupported,
            "57P01" | "57P03" | "58000" | "58030" | "XX001" => Class::Unavailable,
            "XX000" => Class::Fault,
            _ => Class::Wrong,
        }
    }

    /// The server ends before the statement did.
    pub(crate) fn stopping() -> Self {
        Self::new("57P01", "the server is stopping", "a charge that was made stands: asked again it is paid for")
    }
}

impl From<starling_query::QueryError> for Refusal {
    fn from(error: starling_query::QueryError) -> Self {
        let detail = error.detail();
        Self { code: error.code, reason: error.reason, hint: error.hint, detail }
    }
}

/// Waits until the process is asked to stop.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stopped| *stopped).await;
}

/// What a private answer leaves the team, of each dataset that the answer's notes speak of. Where it cannot be told it is left out: the answer
/// is paid for, and is not withheld for that.
pub(crate) async fn left(engine: &Engine, who: &Principal, notes: &[String]) -> Vec<String> {
    // A team's name is plain: `users` sees to it.
    let sql = format!(
        "SELECT dataset, 'team ' || team || ' has rho ' || CAST(left_rho AS VARCHAR) || ' left until ' || CAST(more_at AS VARCHAR) \
         FROM meta.allotments WHERE team = '{}'",
        who.team
    );
    let Ok(answer) = engine.query_as(who, &sql).await else { return Vec::new() };
    let mut told = Vec::new();
    for batch in &answer.batches {
        let (datasets, texts) = (batch.column(0).as_string::<i32>(), batch.column(1).as_string::<i32>());
        for (dataset, text) in datasets.iter().zip(texts).filter_map(|(dataset, text)| dataset.zip(text)) {
            let name = format!("private.{dataset}: ");
            if notes.iter().any(|note| note.starts_with(&name)) {
                told.push(format!("{name}{text} (UTC)"));
            }
        }
    }
    told
}
