//! What a finished job tells the person who started it.

use std::fmt::Write as _;
use std::path::Path;

use starling_ingest::TraceSummary;
use starling_query::{ReleaseReport, ReleaseStatus};

use crate::home::Home;
use crate::status;

/// After `starling run --trace`.
///
/// # Errors
/// When metastore or keyring cannot be read.
pub async fn trace(home: &Home, path: &Path, summary: &TraceSummary) -> anyhow::Result<String> {
    let mut out = String::new();
    let _ = writeln!(out, "{}: {} events", path.display(), grouped(summary.skipped + summary.frames));
    if summary.truncated {
        let _ =
            writeln!(out, "The file ends inside an event; that one is counted as quarantined:malformed. Was it copied whole?");
    }
    out.push_str(&books(&status::collect(home).await?));
    let releases = home.metastore.releases().await?;
    let _ = writeln!(out, "Released");
    for release in &releases {
        let _ = writeln!(
            out,
            "  stats.{:<22} {}  {} groups, {} of them suppressed, epsilon {:.2} at delta {:e}",
            release.metric, release.epoch, release.rows, release.suppressed, release.epsilon, release.delta
        );
    }
    let alerts = home.metastore.alerts_after(0, u32::MAX).await?.len();
    let _ = writeln!(out, "Alerts  {alerts}");
    let dir = home.config.data_dir.display();
    let _ = write!(
        out,
        "Next:\n  starling sql --data-dir {dir} \"SELECT * FROM meta.metrics\"\n  starling alerts --data-dir {dir}\n  starling status --data-dir {dir}"
    );
    Ok(out)
}

/// Events by what became of them, and whether they add up.
#[must_use]
pub fn books(status: &status::Status) -> String {
    let mut out = String::new();
    let total: u64 = status.partitions.iter().map(|p| p.events).sum();
    let _ = writeln!(out, "  {:<32} {:>12}", "events in", grouped(total));
    for (label, events) in &status.outcomes {
        let _ = writeln!(out, "  {label:<32} {:>12}", grouped(*events));
    }
    let _ = writeln!(
        out,
        "  {}",
        if status.unbalanced.is_empty() {
            "they add up, in every partition (I1)"
        } else {
            "THEY DO NOT ADD UP (I1): see `starling status`"
        }
    );
    out
}

/// After `starling release`.
#[must_use]
pub fn releases(reports: &[ReleaseReport]) -> String {
    let mut out = String::new();
    for report in reports {
        let record = &report.record;
        let what = match report.status {
            ReleaseStatus::Released => "released".to_owned(),
            ReleaseStatus::AlreadyReleased => "was released before".to_owned(),
            ReleaseStatus::Refused { left } => {
                format!("refused: its budget has rho {:.6} left, it needs {:.6}", left.rho(), record.rho.rho())
            }
        };
        let _ = writeln!(out, "{}  stats.{:<24} {what}", record.epoch, record.metric);
    }
    if reports.is_empty() {
        out.push_str("Nothing to release: no closed window lacks a statistic.\n");
    }
    out
}

/// 1234567 as 1,234,567.
#[must_use]
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(super::grouped(0), "0");
        assert_eq!(super::grouped(999), "999");
        assert_eq!(super::grouped(1_234_567), "1,234,567");
    }
}
