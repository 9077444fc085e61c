//! `starling integrity rules`, `check` and `backtest`: the rules in force, and a rule before it is.
//!
//! Built-in rules come with this build; `integrity.rules` names a file of one's own, or a folder of them (`*.toml`, in order of their names). They are read
//! when a job starts, all or none: a fault in one refuses them together, and a detector that runs goes on with those it has.

pub mod backtest;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::json;
use starling_integrity::{RuleFile, Rules, Standing};

use crate::config::Config;
use crate::standing::{self, stage};

/// The rules that these settings ask for.
///
/// # Errors
/// A file that cannot be read; rules that cannot be used, with every fault there is.
pub fn load(config: &Config) -> anyhow::Result<Rules> {
    match config.integrity.rules.as_str() {
        "" => Ok(Rules::builtin()?),
        path => with(Path::new(path)).with_context(|| "integrity.rules"),
    }
}

/// Built-in rules, and those of a file or folder.
fn with(path: &Path) -> anyhow::Result<Rules> {
    Ok(Rules::builtin_and(&files(path)?)?)
}

/// Rules of a file, or of the files of a folder.
fn files(path: &Path) -> anyhow::Result<Vec<RuleFile>> {
    let unreadable = |path: &Path| format!("{}: rules cannot be read", path.display());
    let paths: Vec<PathBuf> = if path.is_dir() {
        let entries = std::fs::read_dir(path).with_context(|| unreadable(path))?;
        let mut paths =
            entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>().with_context(|| unreadable(path))?;
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
        paths.sort_unstable();
        anyhow::ensure!(!paths.is_empty(), "{}: no rules are in this folder; their files end in .toml", path.display());
        paths
    } else {
        vec![path.to_owned()]
    };
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).with_context(|| unreadable(&path))?;
        Ok(RuleFile { name: path.display().to_string(), text })
    };
    paths.into_iter().map(read).collect()
}

/// `starling integrity check`: reads, types and tests the rules of a file or folder, or those that the settings name.
///
/// # Errors
/// When they cannot be used, with every fault there is.
pub fn check(config: &Config, path: Option<&Path>) -> anyhow::Result<String> {
    let rules = path.map_or_else(|| load(config), with)?;
    let mut out = String::new();
    let written = rules.written.rules();
    for rule in written {
        let _ = writeln!(out, "{} version {}: {} tests hold ({})", rule.name, rule.version, rule.tests, rule.file);
    }
    let _ = writeln!(out, "{} written rules; all can be used.", written.len());
    Ok(out)
}

/// A rule as a line of the table.
struct Line<'a> {
    name: &'a str,
    version: u32,
    on: &'a str,
    standing: Option<&'a Standing>,
    from: &'a str,
}

impl Line<'_> {
    fn stage(&self) -> &'static str {
        // What nothing is said of is told to nobody (I8).
        self.standing.map_or("shadow", |standing| stage(standing.stage))
    }
}

/// `starling integrity rules`: every rule in force, and where it stands.
///
/// # Errors
/// As [`load`].
pub fn list(config: &Config, as_json: bool) -> anyhow::Result<String> {
    let rules = standing::rules(config)?;
    let detectors = rules.detectors_in_force();
    let built_in = detectors.iter().map(|(name, version)| Line {
        name,
        version: *version,
        on: "detector",
        standing: rules.standing(name),
        from: "built-in",
    });
    let written = rules.written.rules().iter().map(|rule| Line {
        name: &rule.name,
        version: rule.version,
        on: rule.on.name(),
        standing: Some(&rule.standing),
        from: &rule.file,
    });
    let mut out = String::new();
    if !as_json {
        let _ = writeln!(
            out,
            "{:<24} {:>7}  {:<12} {:<6} {:>6}  {:<10} {:>8} {:>9}  from",
            "rule", "version", "on", "stage", "share", "last day", "a day", "false"
        );
    }
    for line in built_in.chain(written) {
        let standing = line.standing;
        let share = standing.and_then(|standing| standing.share);
        let expires = standing.and_then(|standing| standing.expires).map(|day| day.to_string());
        if as_json {
            let value = json!({
                "rule": line.name,
                "version": line.version,
                "on": line.on,
                "stage": line.stage(),
                "share": share,
                "expires": expires,
                "daily_alerts": standing.map(|standing| standing.daily_alerts),
                "false_discovery": standing.map(|standing| standing.false_discovery),
                "from": line.from,
            });
            let _ = writeln!(out, "{value}");
            continue;
        }
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let _ = writeln!(
            out,
            "{:<24} {:>7}  {:<12} {:<6} {:>6}  {:<10} {:>8} {:>9}  {}",
            line.name,
            line.version,
            line.on,
            line.stage(),
            or_none(share.map(|share| format!("{:.0} %", share * 100.0))),
            or_none(expires),
            or_none(standing.map(|standing| standing.daily_alerts.to_string())),
            or_none(standing.map(|standing| format!("<= {:.1} %", standing.false_discovery * 100.0))),
            line.from
        );
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = include_str!("rules/example.toml");

    #[test]
    fn rules_of_one_s_own_are_read_from_a_file_or_a_folder_and_none_is_half_read() {
        let dir = tempfile::tempdir().expect("dir");
        let file = dir.path().join("a.toml");
        std::fs::write(&file, OWN).expect("writes");
        std::fs::write(dir.path().join("notes.md"), "no rules").expect("writes");
        for path in [file.as_path(), dir.path()] {
            let rules = with(path).expect("good");
            assert!(rules.written.named("midnight_campaign").is_some());
            assert_eq!(rules.written.rules().len(), Rules::builtin().expect("reviewed").written.rules().len() + 1);
        }
        // A fault in one file refuses them all, and all faults are told.
        let second = OWN
            .replace("midnight_campaign", "second")
            .replace("least = 100", "least = 1")
            .replace("severity = \"low\"", "severity = \"loud\"");
        std::fs::write(dir.path().join("b.toml"), second).expect("writes");
        let error = format!("{:#}", with(dir.path()).expect_err("a fault"));
        assert!(
            error.contains("b.toml: rule `second`: least: ") && error.contains("b.toml: rule `second`: severity: "),
            "{error}"
        );
        let empty = tempfile::tempdir().expect("dir");
        assert!(format!("{:#}", with(empty.path()).expect_err("none")).contains(".toml"));
        assert!(format!("{:#}", with(Path::new("/nowhere/rules.toml")).expect_err("none")).contains("/nowhere/rules.toml"));
    }

    #[test]
    fn a_rule_of_one_s_own_takes_a_shipped_one_over() {
        let dir = tempfile::tempdir().expect("dir");
        let file = dir.path().join("a.toml");
        std::fs::write(&file, OWN.replace("midnight_campaign", "climbing_unanswered")).expect("writes");
        let rules = with(&file).expect("good");
        let taken = rules.written.named("climbing_unanswered").expect("there");
        assert_eq!((taken.file.as_str(), taken.least), (file.to_str().expect("text"), 100));
    }
}
