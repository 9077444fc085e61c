//! `starling alerts take|note|case|confirm|dismiss|act|appeal|answer|close|silence …`: the work on alerts, at a terminal.

use starling_integrity::work::{Enforcement, Reason, Step};

use super::record_read;
use crate::cli::AlertsCommand;
use crate::columns::{Side, lay_out};
use crate::desk::{self, Entry};
use crate::home::Home;
use crate::receivers;
use crate::standing;
use crate::status::timestamp;

/// Carries out one of the commands, and says how the alert stands then.
///
/// # Errors
/// When the step is not allowed, or audit log or metastore cannot be used (I6).
pub async fn tell(home: &Home, command: &AlertsCommand) -> anyhow::Result<String> {
    // What is changed is also shown.
    record_read(home, "cli", None).await?;
    let (alert, by, step) = match command {
        AlertsCommand::Show { alert, json } => return show(home, alert, *json).await,
        AlertsCommand::Silences { json } => return silences(home, *json).await,
        AlertsCommand::Precision { json } => return precision(home, *json).await,
        AlertsCommand::Restore { rule, by, text } => {
            let versions: Vec<_> = standing::restore(home, rule, by, text).await?.iter().map(u32::to_string).collect();
            return Ok(format!("{rule} version {} tells again, from the next commit on.\n", versions.join(", ")));
        }
        AlertsCommand::Deliveries { dead, json } => return receivers::command::list(home, *dead, *json).await,
        AlertsCommand::Resend { delivery, all: _, to, by } => {
            return receivers::command::resend(home, delivery.as_deref(), to.as_deref(), by).await;
        }
        AlertsCommand::Silence { on, lasting, text } => {
            let silence = desk::silence(home, &on.alert, &on.by, lasting.0, text).await?;
            return Ok(format!(
                "{} about this {} is silent until {}, or until it has four times the evidence.\n",
                silence.rule,
                silence.subject_kind,
                timestamp(silence.until_ms)
            ));
        }
        AlertsCommand::Unsilence { on } => {
            desk::end_silence(home, &on.alert, &on.by).await?;
            return Ok("The silence has ended.\n".to_owned());
        }
        AlertsCommand::Take { on, to } => (&on.alert, &on.by, Step::Take { assignee: to.as_ref().unwrap_or(&on.by).clone() }),
        AlertsCommand::Note { on, text } => (&on.alert, &on.by, Step::Note { text: text.clone() }),
        AlertsCommand::Case { on, case } => (&on.alert, &on.by, Step::Case { case: case.clone() }),
        AlertsCommand::Confirm { on, reason } => (&on.alert, &on.by, Step::Confirm { reason: reason.0 }),
        AlertsCommand::Dismiss { on, reason } => (&on.alert, &on.by, Step::Dismiss { reason: reason.0 }),
        AlertsCommand::Act { on, enforcement } => (&on.alert, &on.by, Step::Act { enforcement: enforcement.0 }),
        AlertsCommand::Appeal { on, text } => (&on.alert, &on.by, Step::Appeal { text: text.clone() }),
        AlertsCommand::Answer { on, grant, refuse: _, text } => {
            (&on.alert, &on.by, Step::Answer { granted: *grant, text: text.clone() })
        }
        AlertsCommand::Close { on } => (&on.alert, &on.by, Step::Close),
    };
    let entry = desk::take(home, alert, &step, by).await?;
    Ok(format!("{}\n", stands(&entry)))
}

/// One line: where an alert stands.
fn stands(entry: &Entry) -> String {
    let mut line = format!("{} {}", &entry.record.fingerprint[..12.min(entry.record.fingerprint.len())], entry.state());
    if let Some(work) = &entry.work {
        let standing = &work.standing;
        let mut also = |what: &str, value: Option<String>| {
            if let Some(value) = value {
                line.push_str(&format!(", {what} {value}"));
            }
        };
        also("with", standing.assignee.clone());
        also("case", standing.case.clone());
        also("reason", standing.reason.map(|r| name(&r)));
        also("done:", standing.enforcement.map(|e| name(&e)));
        also("silent until", work.silenced_until_ms.map(timestamp));
        if standing.cleared {
            line.push_str(". The appeal was granted: what was done is to be undone");
        } else if work.wants_attention && standing.grew(entry.alert.evidence) {
            line.push_str(". Its evidence has grown fourfold since");
        }
    }
    line
}

/// The name under which serde writes it.
fn name<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_value(value).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

/// An alert and every step taken on it, as one line of JSON.
///
/// # Errors
/// When there is no such alert, or the metastore cannot be read.
pub async fn show_json(home: &Home, alert: &str) -> anyhow::Result<String> {
    let entry = desk::find(home, alert).await?;
    let history = desk::history(home, &entry.record.fingerprint).await?;
    let mut value: serde_json::Value = serde_json::from_str(&super::json_line(&entry)?)?;
    let steps: Vec<_> = history
        .iter()
        .map(|(record, step)| serde_json::json!({ "number": record.step, "at_ms": record.at_ms, "by": record.by, "what": step }))
        .collect();
    value["steps"] = steps.into();
    Ok(value.to_string())
}

async fn show(home: &Home, alert: &str, json: bool) -> anyhow::Result<String> {
    if json {
        return Ok(format!("{}\n", show_json(home, alert).await?));
    }
    let entry = desk::find(home, alert).await?;
    let history = desk::history(home, &entry.record.fingerprint).await?;
    let alert = &entry.alert;
    let mut out = format!("{}\n\n{}\n", stands(&entry), alert.explanation);
    out.push_str(&format!(
        "\n  fingerprint  {}\n  rule         {} version {}, severity {}\n  subject      {} {}\n  window       {} to {}\n  seen         {} (fires at {}), {} signals behind it\n",
        alert.fingerprint,
        alert.rule,
        alert.rule_version,
        alert.severity,
        alert.subject.kind,
        alert.subject.value,
        timestamp(alert.window.start_ms),
        timestamp(alert.window.end_ms),
        alert.observed,
        alert.threshold,
        alert.evidence
    ));
    if let Some(value) = alert.baseline.value {
        out.push_str(&format!("  baseline     {value} ({}), {} times\n", alert.baseline.kind, alert.factor));
    }
    if let Some(log10) = alert.e_value_log10 {
        out.push_str(&format!("  e-value      10^{log10}, at most 1 on average where nothing is wrong\n"));
    }
    for (what, lines) in [("speaks for it", &alert.counter_evidence), ("not known", &alert.data_gaps)] {
        for line in lines {
            out.push_str(&format!("  {what:<13}{line}\n"));
        }
    }
    if !history.is_empty() {
        out.push('\n');
        let rows: Vec<_> = history
            .iter()
            .map(|(record, step)| vec![record.step.to_string(), timestamp(record.at_ms), record.by.clone(), said(step)])
            .collect();
        out.push_str(&lay_out(
            &[("step", Side::Right), ("when (UTC)", Side::Left), ("by", Side::Left), ("what", Side::Left)],
            &rows,
        ));
    }
    Ok(out)
}

fn said(step: &Step) -> String {
    match step {
        Step::Take { assignee } => format!("taken by {assignee}"),
        Step::Note { text } => format!("note: {text}"),
        Step::Case { case } => format!("put into case {case}"),
        Step::Confirm { reason } => format!("confirmed: {}", name(reason)),
        Step::Dismiss { reason } => format!("dismissed: {}", name(reason)),
        Step::Act { enforcement } => format!("done: {}", name(enforcement)),
        Step::Appeal { text } => format!("appeal: {text}"),
        Step::Answer { granted, text } => format!("appeal {}: {text}", if *granted { "granted" } else { "refused" }),
        Step::Close => "closed".to_owned(),
    }
}

async fn silences(home: &Home, json: bool) -> anyhow::Result<String> {
    let found = desk::silences(home).await?;
    if json {
        return found.iter().map(|s| Ok(format!("{}\n", serde_json::to_string(s)?))).collect();
    }
    if found.is_empty() {
        return Ok("No silences.\n".to_owned());
    }
    let rows: Vec<_> = found
        .iter()
        .map(|s| {
            vec![
                timestamp(s.until_ms),
                s.rule.clone(),
                format!("{} {}", s.subject_kind, s.subject),
                s.owner.clone(),
                s.text.clone(),
            ]
        })
        .collect();
    let header =
        [("until (UTC)", Side::Left), ("rule", Side::Left), ("about", Side::Left), ("owner", Side::Left), ("why", Side::Left)];
    Ok(lay_out(&header, &rows))
}

async fn precision(home: &Home, json: bool) -> anyhow::Result<String> {
    let mut out = String::new();
    let mut rows = Vec::new();
    for one in desk::precision(home).await? {
        let interval = one.verdicts.precision();
        if json {
            let of = |(share, low, high): (f64, f64, f64)| serde_json::json!({ "share": share, "low": low, "high": high });
            let promise = &one.promise;
            let line = serde_json::json!({
                "rule": one.rule, "version": one.version, "confirmed": one.verdicts.confirmed, "dismissed": one.verdicts.dismissed,
                "waiting": one.waiting, "precision": interval.map(of),
                "stage": promise.standing.as_ref().map(|s| standing::stage(s.stage)),
                "promised_false": promise.standing.as_ref().map(|s| s.false_discovery), "observed_false": promise.false_share().map(of),
                "exceeds": promise.is_broken(), "demoted_since_ms": promise.demoted_ms,
                "stated_level": one.chosen.map(|c| c.stated), "chosen_confirmed": one.chosen.map(|c| c.verdicts.confirmed),
                "chosen_dismissed": one.chosen.map(|c| c.verdicts.dismissed), "chosen_waiting": one.chosen.map(|c| c.waiting),
                "not_chosen": one.chosen.map(|c| c.others), "chosen_false": one.chosen.and_then(|c| c.verdicts.false_share()).map(of),
            });
            out.push_str(&format!("{line}\n"));
            continue;
        }
        let told = interval.map_or("not judged yet".to_owned(), |(share, low, high)| {
            format!("{:.1} % ({:.1} to {:.1})", 100.0 * share, 100.0 * low, 100.0 * high)
        });
        rows.push(vec![
            one.rule,
            one.version.to_string(),
            one.verdicts.confirmed.to_string(),
            one.verdicts.dismissed.to_string(),
            one.waiting.to_string(),
            told,
            one.promise.says(),
            one.chosen.map_or_else(|| "-".to_owned(), |chosen| chosen.says()),
        ]);
    }
    if json {
        return Ok(out);
    }
    if rows.is_empty() {
        return Ok("No alerts.\n".to_owned());
    }
    let header = [
        ("rule", Side::Left),
        ("version", Side::Right),
        ("confirmed", Side::Right),
        ("dismissed", Side::Right),
        ("not judged", Side::Right),
        ("right, with the exact 95 % interval", Side::Left),
        ("stands, and what it told lately", Side::Left),
        ("chosen by its e-values", Side::Left),
    ];
    Ok(lay_out(&header, &rows))
}

/// A reason on the command line.
#[derive(Debug, Clone, Copy)]
pub struct ReasonArg(pub Reason);

/// An enforcement on the command line.
#[derive(Debug, Clone, Copy)]
pub struct EnforcementArg(pub Enforcement);

fn named<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_value(text.into()).map_err(|error| error.to_string())
}

impl std::str::FromStr for ReasonArg {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        named(text).map(Self)
    }
}

impl std::str::FromStr for EnforcementArg {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        named(text).map(Self)
    }
}

/// How long a silence lasts: `90m`, `12h`, `7d`.
#[derive(Debug, Clone, Copy)]
pub struct Lasting(pub i64);

impl std::str::FromStr for Lasting {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "a whole number of minutes, hours or days: 90m, 12h, 7d".to_owned();
        let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
        let unit_ms = match unit {
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        let number: i64 = number.parse().map_err(|_| wrong())?;
        number.checked_mul(unit_ms).filter(|ms| *ms > 0).map(Self).ok_or_else(wrong)
    }
}
