//! # What other tools make of Starling
//!
//! Each part is handed to the tool it is meant for: completions to a shell, manual pages to groff, dbt and MetricFlow to themselves, over the
//! PostgreSQL door; units to systemd, manifests to what lints them, the product dashboard's questions to the door.
//!
//! The shells, groff, systemd and kubectl are those of the system; dbt and MetricFlow come from PyPI by
//! `tests/accounting/python.sh`, the linters from the Go module proxy by `linters.sh`, where `STARLING_TEST_LINTERS=1` asks for
//! them: building them takes minutes. Where one of them is not to be had its tests are reported as ignored, never as passed.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, dead_code)]

mod dashboard;
mod dbt;
mod deployment;
#[path = "../pg_door/house.rs"]
mod house;
mod shells;
#[path = "../journey/support.rs"]
mod support;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Trial};

use support::workspace;

/// What a script prints that makes a tool available, or why there is none.
pub(crate) fn found_by(script: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("bash").arg(workspace().join("tests").join(script)).args(arguments).output();
    let output = output.map_err(|_| "skipped: no bash".to_owned())?;
    let answer = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    match output.status.code() {
        Some(0) => Ok(answer),
        Some(77) => Err(answer),
        // Not what was not to be had: a fault in the script, or in what it got, which nobody would see as a test that is ignored.
        _ => panic!("{script} {arguments:?} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim()),
    }
}

/// The Python with these packages.
pub(crate) fn python(requirements: &str) -> Result<PathBuf, String> {
    let requirements = workspace().join("tests").join(requirements);
    found_by("accounting/python.sh", &[requirements.to_str().expect("text")]).map(PathBuf::from)
}

/// Whether a program of the system can be started.
pub(crate) fn installed(program: &str) -> Result<(), String> {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
    match found {
        Ok(output) if output.status.success() => Ok(()),
        _ => Err(format!("skipped: {program} is not installed")),
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let mut trials = Vec::new();
    // What is needed is looked for where a test is to run: it may be a download.
    let runs = |name: &str| {
        let wanted =
            arguments.filter.as_ref().is_none_or(|f| if arguments.exact { name == f } else { name.contains(f.as_str()) });
        wanted && !arguments.list && !arguments.skip.iter().any(|skip| name.contains(skip.as_str()))
    };
    let mut add = |name: &str, needs: &dyn Fn() -> Result<(), String>, test: fn()| {
        let missing = if runs(name) { needs().err() } else { None };
        if let Some(reason) = &missing {
            println!("{name}: {reason}");
        }
        let run = move || {
            test();
            Ok(())
        };
        trials.push(Trial::test(name, run).with_ignored_flag(missing.is_some()));
    };
    shells::add(&mut add);
    dbt::add(&mut add);
    deployment::add(&mut add);
    dashboard::add(&mut add);
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Takes a test: its name, what it needs, and itself.
pub(crate) type Add<'a> = dyn FnMut(&str, &dyn Fn() -> Result<(), String>, fn()) + 'a;
