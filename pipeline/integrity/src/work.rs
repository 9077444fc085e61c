//! # The work on alerts: who looked, what they found, what was done, and how it can be contested
//!
//! ```text
//!              take            confirm                act               appeal            answer
//!   new ─────────────► triaged ───────► confirmed ─────────► actioned ─────────► appealed ─────────► closed
//!    ▲                  │    │ ▲           │ dismiss             │ close             another reviewer,
//!    │ evidence         │    └─┘ case      ▼                     ▼                   a written answer (P29)
//!    └ four times ──────┴── dismiss ──► false ──── close ──► closed
//! ```
//!
//! **Comes in:** a [`Standing`], a [`Step`], who takes it and when. **Goes out:** the next [`Standing`], or why not ([`NotAllowed`]). Nothing
//! here reads a clock or a database: `store` keeps each step, and writes it into the hash-chained log in the same transaction.
//!
//! - An appeal is answered by somebody who neither decided nor acted, in writing; if it is granted the flags are cleared (P29).
//! - A dismissed or closed alert, and a silence, do not hide what grows: at four times the evidence it asks for attention again.
//! - An alert about somebody of the staff is worked on, and silenced, by others (P28).
//! - Text that people write is kept for the alert's life, so it must not become the record this system refuses to be: a run of digits that
//!   could be a phone number is refused (I4).

use serde::{Deserialize, Serialize};
use statrs::function::beta::inv_beta_reg;

use crate::alert::Subject;

#[cfg(test)]
mod tests;

/// Evidence must grow by this factor before something that was dealt with asks for attention again.
pub const REOPENS_AT: u64 = 4;
/// Longest text of a note, reason or answer, in characters.
pub const LONGEST_TEXT: usize = 2_000;
/// Longest name of a person, team or case, in characters.
pub const LONGEST_NAME: usize = 64;
/// So many digits, with nothing but separators between them, could be a phone number.
const DIGITS_OF_A_NUMBER: usize = 7;
/// Longest silence: 30 days.
pub const LONGEST_SILENCE_MS: i64 = 30 * 86_400_000;

/// Where an alert stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nobody has looked.
    #[default]
    New,
    /// Somebody is looking.
    Triaged,
    /// It is abuse.
    Confirmed,
    /// It is not.
    False,
    /// Something was done about it.
    Actioned,
    /// The subject contests it.
    Appealed,
    /// Done.
    Closed,
}

impl State {
    /// All states.
    pub const ALL: [Self; 7] =
        [Self::New, Self::Triaged, Self::Confirmed, Self::False, Self::Actioned, Self::Appealed, Self::Closed];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Triaged => "triaged",
            Self::Confirmed => "confirmed",
            Self::False => "false",
            Self::Actioned => "actioned",
            Self::Appealed => "appealed",
            Self::Closed => "closed",
        }
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Why an alert is or is not abuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Unwanted messages to many.
    Spam,
    /// Deceives people out of money or accounts.
    Scam,
    /// Sent by a program against the terms.
    Automation,
    /// Several accounts that act as one.
    Coordination,
    /// A group made to abuse its members or others.
    AbusiveGroup,
    /// People report together what is no abuse.
    Brigade,
    /// A heavy user, a school, a wedding, a care service.
    LegitimateUse,
    /// A business that does what its customers asked for.
    ExpectedTraffic,
    /// The figures were wrong.
    DataFault,
}

impl Reason {
    /// Whether it can be given for abuse.
    #[must_use]
    pub const fn is_abuse(self) -> bool {
        matches!(self, Self::Spam | Self::Scam | Self::Automation | Self::Coordination | Self::AbusiveGroup)
    }
}

/// What was done to the subject, by whoever enforces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Enforcement {
    /// Told to stop.
    Warned,
    /// May send less.
    Limited,
    /// May not send for a while.
    Suspended,
    /// May not send any more.
    Banned,
    /// Nothing, for a reason in the note.
    None,
}

/// One thing somebody does about an alert.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case", deny_unknown_fields)]
pub enum Step {
    /// Takes it on, or hands it to somebody.
    Take {
        /// Who works on it from now on.
        assignee: String,
    },
    /// Says something about it.
    Note {
        /// What.
        text: String,
    },
    /// Puts it into a case, with others of that name.
    Case {
        /// The case's name.
        case: String,
    },
    /// Judges it abuse.
    Confirm {
        /// Why.
        reason: Reason,
    },
    /// Judges it no abuse.
    Dismiss {
        /// Why.
        reason: Reason,
    },
    /// Says what was done about it.
    Act {
        /// What.
        enforcement: Enforcement,
    },
    /// The subject contests it.
    Appeal {
        /// What is said, without who says it.
        text: String,
    },
    /// Answers an appeal.
    Answer {
        /// Whether the appeal is granted: then it was no abuse, and the flags are cleared.
        granted: bool,
        /// The written answer (P29).
        text: String,
    },
    /// Ends the work.
    Close,
}

impl Step {
    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Take { .. } => "take",
            Self::Note { .. } => "note",
            Self::Case { .. } => "case",
            Self::Confirm { .. } => "confirm",
            Self::Dismiss { .. } => "dismiss",
            Self::Act { .. } => "act",
            Self::Appeal { .. } => "appeal",
            Self::Answer { .. } => "answer",
            Self::Close => "close",
        }
    }
}

/// What is known of the work on one alert.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Standing {
    /// Where it stands.
    pub state: State,
    /// Who works on it.
    pub assignee: Option<String>,
    /// The case it is in.
    pub case: Option<String>,
    /// Abuse or not, as judged last; an appeal that is granted turns it.
    pub abuse: Option<bool>,
    /// Why.
    pub reason: Option<Reason>,
    /// Who judged it.
    pub decided_by: Option<String>,
    /// Signals behind it when it was judged or closed last.
    pub decided_evidence: Option<u64>,
    /// What was done.
    pub enforcement: Option<Enforcement>,
    /// Who said so.
    pub acted_by: Option<String>,
    /// Whether an appeal was granted: what was done is to be undone.
    pub cleared: bool,
}

/// Why a step cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAllowed {
    /// Not from here.
    #[error("an alert that is {from} cannot take the step `{step}`: {hint}")]
    From {
        /// Where it stands.
        from: State,
        /// The step.
        step: &'static str,
        /// What can be done instead.
        hint: &'static str,
    },
    /// A reason of the other kind.
    #[error(
        "that reason does not fit: confirm with spam, scam, automation, coordination or abusive_group; dismiss with the others"
    )]
    Reason,
    /// The same person twice.
    #[error("an appeal is answered by somebody who neither decided nor acted on the alert (P29)")]
    SameReviewer,
    /// No text, or too much.
    #[error("{what} must have 1 to {most} characters")]
    Length {
        /// Of what.
        what: &'static str,
        /// Most characters.
        most: usize,
    },
    /// A name that is none.
    #[error("{what} is a name of letters, digits and . _ - @ only, at most {LONGEST_NAME} characters, and no phone number")]
    Name {
        /// Of what.
        what: &'static str,
    },
    /// Text that could hold a phone number.
    #[error("the text has a run of {DIGITS_OF_A_NUMBER} digits or more, which could be a phone number: say it without (I4)")]
    Number,
    /// An alert on whoever takes the step.
    #[error("an alert about oneself is worked on by others (P28)")]
    Own,
    /// A silence too long or none.
    #[error("a silence lasts from one minute to 30 days")]
    Silence,
}

/// Whether `text` could hold a phone number: seven digits of any script with nothing but separators between them.
fn could_hold_a_number(text: &str) -> bool {
    let mut digits = 0;
    for c in text.chars() {
        if c.is_numeric() {
            digits += 1;
            if digits >= DIGITS_OF_A_NUMBER {
                return true;
            }
        } else if !(c.is_whitespace()
            || matches!(c, '-' | '.' | '/' | '(' | ')' | '+' | '_' | '\u{2010}'..='\u{2015}' | '\u{a0}'))
        {
            digits = 0;
        }
    }
    false
}

/// Refuses text that is empty, too long, or could hold a phone number.
///
/// # Errors
/// [`NotAllowed::Length`], [`NotAllowed::Number`].
pub fn check_text(what: &'static str, text: &str) -> Result<(), NotAllowed> {
    let length = text.trim().chars().count();
    if length == 0 || length > LONGEST_TEXT {
        return Err(NotAllowed::Length { what, most: LONGEST_TEXT });
    }
    if could_hold_a_number(text) { Err(NotAllowed::Number) } else { Ok(()) }
}

/// Refuses what is no name of a colleague, team or case.
///
/// # Errors
/// [`NotAllowed::Name`].
pub fn check_name(what: &'static str, name: &str) -> Result<(), NotAllowed> {
    let fits = (1..=LONGEST_NAME).contains(&name.len())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@'))
        && !could_hold_a_number(name);
    if fits { Ok(()) } else { Err(NotAllowed::Name { what }) }
}

/// Refuses a step by whom the alert is about.
///
/// # Errors
/// [`NotAllowed::Own`].
pub fn check_not_own(subject: &Subject, by: &str) -> Result<(), NotAllowed> {
    let is_own = subject.kind == crate::on_us::PRINCIPAL && subject.value == by;
    if is_own { Err(NotAllowed::Own) } else { Ok(()) }
}

impl Standing {
    /// The standing after `by` takes `step`, when `evidence` signals are behind the alert.
    ///
    /// # Errors
    /// [`NotAllowed`] says what can be done instead.
    pub fn after(&self, step: &Step, by: &str, evidence: u64) -> Result<Self, NotAllowed> {
        check_name("who takes the step", by)?;
        let mut next = self.clone();
        let not = |hint| Err(NotAllowed::From { from: self.state, step: step.name(), hint });
        match step {
            Step::Take { assignee } => {
                check_name("the assignee", assignee)?;
                next.assignee = Some(assignee.clone());
                if self.state == State::New || self.is_settled() && self.grew(evidence) {
                    next.state = State::Triaged;
                }
            }
            Step::Note { text } => check_text("a note", text)?,
            Step::Case { case } => {
                check_name("the case", case)?;
                if self.state == State::New {
                    return not("take it first");
                }
                next.case = Some(case.clone());
            }
            Step::Confirm { reason } | Step::Dismiss { reason } => {
                let abuse = matches!(step, Step::Confirm { .. });
                if abuse != reason.is_abuse() {
                    return Err(NotAllowed::Reason);
                }
                match self.state {
                    State::New => return not("take it first"),
                    State::Actioned => return not("something was done about it already: the subject may appeal"),
                    State::Appealed => return not("answer the appeal"),
                    State::Closed => return not("it is closed; `take` opens it again once its evidence has grown fourfold"),
                    State::Triaged | State::Confirmed | State::False => {}
                }
                next.state = if abuse { State::Confirmed } else { State::False };
                (next.abuse, next.reason) = (Some(abuse), Some(*reason));
                (next.decided_by, next.decided_evidence) = (Some(by.to_owned()), Some(evidence));
            }
            Step::Act { enforcement } => {
                if !matches!(self.state, State::Confirmed | State::Actioned) {
                    return not("only what is confirmed is acted on");
                }
                next.state = State::Actioned;
                (next.enforcement, next.acted_by) = (Some(*enforcement), Some(by.to_owned()));
            }
            Step::Appeal { text } => {
                check_text("an appeal", text)?;
                if self.abuse != Some(true) || self.state == State::Appealed {
                    return not("only what was judged abuse can be appealed, once at a time");
                }
                next.state = State::Appealed;
            }
            Step::Answer { granted, text } => {
                check_text("an answer", text)?;
                if self.state != State::Appealed {
                    return not("there is no appeal to answer");
                }
                if [&self.decided_by, &self.acted_by].into_iter().any(|who| who.as_deref() == Some(by)) {
                    return Err(NotAllowed::SameReviewer);
                }
                next.state = State::Closed;
                next.decided_evidence = Some(evidence);
                if *granted {
                    next.abuse = Some(false);
                    next.cleared = self.enforcement.is_some_and(|done| done != Enforcement::None);
                    next.decided_by = Some(by.to_owned());
                }
            }
            Step::Close => {
                if !matches!(self.state, State::Confirmed | State::False | State::Actioned) {
                    return not("confirm or dismiss it first; an appeal is answered first");
                }
                (next.state, next.decided_evidence) = (State::Closed, Some(evidence));
            }
        }
        Ok(next)
    }

    const fn is_settled(&self) -> bool {
        matches!(self.state, State::False | State::Closed)
    }

    /// Whether the evidence has grown fourfold since it was judged or closed.
    #[must_use]
    pub fn grew(&self, evidence: u64) -> bool {
        self.decided_evidence.is_some_and(|then| evidence >= then.max(1).saturating_mul(REOPENS_AT))
    }

    /// Whether somebody should look at it: it is not settled, or was and has grown fourfold since; and no silence hides it.
    #[must_use]
    pub fn wants_attention(&self, evidence: u64, silence: Option<&Silence>, now_ms: i64) -> bool {
        let settled = self.is_settled() && !self.grew(evidence);
        let hidden = silence.is_some_and(|silence| silence.hides(evidence, now_ms));
        // An appeal is a person who waits: no silence hides it.
        self.state == State::Appealed || !(settled || hidden)
    }
}

/// A rule is not to be heard about one subject for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Silence {
    /// The rule.
    pub rule: String,
    /// Kind of the subject.
    pub subject_kind: String,
    /// The subject.
    pub subject: String,
    /// Who answers for it.
    pub owner: String,
    /// Why.
    pub text: String,
    /// Signals behind the alert when it was silenced.
    pub evidence: u64,
    /// When it ends by itself, milliseconds since 1970-01-01 UTC.
    pub until_ms: i64,
}

impl Silence {
    /// Whether the silence can be made at `now_ms`.
    ///
    /// # Errors
    /// [`NotAllowed`].
    pub fn check(&self, now_ms: i64) -> Result<(), NotAllowed> {
        check_name("the owner", &self.owner)?;
        check_text("a reason", &self.text)?;
        let lasts = self.until_ms.saturating_sub(now_ms);
        if (60_000..=LONGEST_SILENCE_MS).contains(&lasts) { Ok(()) } else { Err(NotAllowed::Silence) }
    }

    /// Whether an alert of its rule on its subject stays hidden.
    #[must_use]
    pub fn hides(&self, evidence: u64, now_ms: i64) -> bool {
        now_ms < self.until_ms && evidence < self.evidence.max(1).saturating_mul(REOPENS_AT)
    }
}

/// How often a rule was right, as analysts judged it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Verdicts {
    /// Alerts judged abuse.
    pub confirmed: u64,
    /// Alerts judged no abuse, by an analyst or after an appeal.
    pub dismissed: u64,
}

impl Verdicts {
    /// The share that was right, with the exact 95 % interval of Clopper and Pearson (1934). `None` before the first verdict.
    #[must_use]
    pub fn precision(self) -> Option<(f64, f64, f64)> {
        let (right, all) = (self.confirmed, self.confirmed + self.dismissed);
        #[allow(clippy::cast_precision_loss)]
        let (k, n) = (right as f64, all as f64);
        if all == 0 {
            return None;
        }
        let low = if right == 0 { 0.0 } else { inv_beta_reg(k, n - k + 1.0, 0.025) };
        let high = if right == all { 1.0 } else { 1.0 - inv_beta_reg(n - k, k + 1.0, 0.025) };
        Some((k / n, low, high))
    }
}
