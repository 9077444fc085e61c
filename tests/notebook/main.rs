//! # A notebook, from question to plot
//!
//! `people.ipynb` is run from its first cell to its last against a real `starling serve`, over Arrow Flight SQL, as somebody with a token would. What its cells
//! say is compared with what `starling sql` says, and its plot is looked at as a picture. It is checked in without outputs.
//!
//! Jupyter, pandas, matplotlib and ADBC come from PyPI by `tests/accounting/python.sh`, in the versions of `requirements.txt`. Where they are
//! not to be had these tests are reported as ignored, never as passed.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, dead_code)]

#[path = "../http_door/doors.rs"]
mod doors;
#[path = "../pg_door/house.rs"]
mod house;
#[path = "../journey/support.rs"]
mod support;

use std::path::PathBuf;
use std::process::{Command, ExitCode, Output};

use base64::Engine as _;
use house::{House, Served, house};
use libtest_mimic::{Arguments, Trial};
use serde_json::Value;
use support::{sql, workspace};

/// The Python that has Jupyter, or why there is none.
fn python() -> Result<PathBuf, String> {
    let script = workspace().join("tests/accounting/python.sh");
    let output = Command::new("bash").arg(script).arg(workspace().join("tests/notebook/requirements.txt")).output();
    let output = output.map_err(|_| "skipped: no bash".to_owned())?;
    let answer = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    match output.status.code() {
        Some(0) => Ok(PathBuf::from(answer)),
        Some(77) => Err(answer),
        // What is not to be had is one thing; a script that fails is a fault, which must not pass for that.
        _ => panic!("python.sh failed: {}", String::from_utf8_lossy(&output.stderr).trim()),
    }
}

fn notebook() -> PathBuf {
    workspace().join("tests/notebook/people.ipynb")
}

fn run(house: &House, served: &Served, token: &str) -> Output {
    let python = python().expect("found before");
    let mut command = Command::new(&python);
    command.arg("-B").arg(workspace().join("tests/notebook/run.py")).arg(notebook());
    command.env("STARLING_FLIGHT", format!("grpc://{}", served.flight)).env("TOKEN", token);
    // Its kernel is the one beside it, its plots need no screen, and nothing of whoever runs this is in its way.
    let jupyter = python.parent().and_then(|bin| bin.parent()).expect("an environment").join("share/jupyter");
    let own = house.dir.path().join("notebook");
    std::fs::create_dir_all(&own).expect("folder");
    command
        .env("JUPYTER_PATH", jupyter)
        .env("HOME", &own)
        .env("IPYTHONDIR", own.join("ipython"))
        .env("MPLCONFIGDIR", own.join("plots"));
    command.env("MPLBACKEND", "module://matplotlib_inline.backend_inline").env("JUPYTER_RUNTIME_DIR", own.join("runtime"));
    command.output().expect("python starts")
}

fn a_notebook_comes_from_its_question_to_its_plot(house: &House) {
    let text = format!("[postgres]\n{}\n[flight]\nlisten = \"127.0.0.1:0\"\n", doors::with_tokens(house));
    let served = Served::spawn_for(Served::command_with(house, &text), &["Console:", "Flight"]);
    let token = doors::token(house, "ada").rsplit(' ').next().expect("a token").to_owned();
    let output = run(house, &served, &token);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let cells: Vec<Vec<Value>> = serde_json::from_slice(&output.stdout).expect("outputs");
    let said = |wanted: &dyn Fn(&Value) -> Option<Value>| cells.iter().flatten().find_map(wanted).expect("a cell says it");
    // What it prints is what `starling sql` says, and there is more than one day of it.
    let printed = said(&|output| output["text"].as_str().and_then(|text| serde_json::from_str::<Value>(text.trim()).ok()));
    let printed = printed.as_array().expect("rows").clone();
    let ours = sql(
        &house.data,
        "SELECT day, SUM(value) AS people, SQRT(SUM(stddev * stddev)) AS stddev FROM stats.people_served_daily \
         WHERE platform = 'android' AND status = 'released' GROUP BY day ORDER BY day",
    );
    assert!(ours.len() >= 2 && printed.len() == ours.len(), "{printed:?}");
    let close = |a: &Value, b: f64| a.as_f64().is_some_and(|a| (a - b).abs() <= 1e-9 * b.abs().max(1.0));
    for (theirs, ours) in printed.iter().zip(&ours) {
        assert_eq!(theirs["day"], ours["day"]);
        let (people, stddev) = (ours["people"].as_f64().unwrap(), ours["stddev"].as_f64().unwrap());
        assert!(
            people > 0.0 && stddev > 0.0 && close(&theirs["people"], people) && close(&theirs["stddev"], stddev),
            "{theirs} {ours}"
        );
        assert!(
            close(&theirs["low"], people - 1.96 * stddev) && close(&theirs["high"], people + 1.96 * stddev),
            "{theirs} {ours}"
        );
    }
    // Its plot is a picture with a size, and not all of one colour.
    let picture = said(&|output| output.pointer("/data/image~1png").cloned());
    let picture: String = picture.as_str().expect("base64").split_whitespace().collect();
    let png = base64::engine::general_purpose::STANDARD.decode(picture).expect("base64");
    assert!(png.starts_with(b"\x89PNG\r\n\x1a\n") && &png[12..16] == b"IHDR", "no PNG");
    let size = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().unwrap());
    assert!(size(16) > 300 && size(20) > 200 && png.len() > 5_000, "{} × {}, {} bytes", size(16), size(20), png.len());
    let meaning =
        said(&|output| output.pointer("/data/text~1plain").filter(|text| text.to_string().contains("description")).cloned());
    assert!(meaning.to_string().contains("title"), "{meaning}");
    // With no token it ends at its first question, and says why.
    let refused = run(house, &served, "wrong");
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && told.contains("28000"), "{told}");
}

fn the_notebook_is_kept_without_outputs() {
    let text = std::fs::read_to_string(notebook()).expect("reads");
    let notebook: Value = serde_json::from_str(&text).expect("JSON");
    let cells = notebook["cells"].as_array().expect("cells");
    let code: Vec<&Value> = cells.iter().filter(|cell| cell["cell_type"] == "code").collect();
    assert!(code.len() >= 5, "{}", code.len());
    for cell in code {
        assert!(cell["outputs"].as_array().is_some_and(Vec::is_empty) && cell["execution_count"].is_null(), "{}", cell["id"]);
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let missing = python().map(|_| ());
    if let Err(why) = &missing {
        eprintln!("{why}");
    }
    let trials = vec![
        Trial::test("the_notebook_is_kept_without_outputs", || {
            the_notebook_is_kept_without_outputs();
            Ok(())
        }),
        Trial::test("a_notebook_comes_from_its_question_to_its_plot", || {
            a_notebook_comes_from_its_question_to_its_plot(house());
            Ok(())
        })
        .with_ignored_flag(missing.is_err()),
    ];
    libtest_mimic::run(&arguments, trials).exit_code()
}
