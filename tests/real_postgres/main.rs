//! # A real PostgreSQL: the journey, and the crashes, with the metastore on a server
//!
//! What runs on it is compared with a run on SQLite under the same keys: the same people, the same alerts, the same counts. The server is
//! started by `tests/postgres/start.sh`; where none is installed these tests are reported as ignored, never as passed.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, dead_code)]

#[path = "../journey/crash.rs"]
mod crash;
#[path = "../postgres/server.rs"]
mod server;
#[path = "../journey/support.rs"]
mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Trial};
use server::Server;
use support::{
    comparable_alerts, fail, people, run_trace, simulate, sql, starling, starling_on, status, succeed, with_known_keys,
};

fn main() -> ExitCode {
    let missing = server::missing();
    if let Some(why) = &missing {
        eprintln!("{why}");
    }
    macro_rules! trials {
        ($($name:ident),* $(,)?) => {
            vec![$(Trial::test(stringify!($name), || { $name(); Ok(()) }).with_ignored_flag(missing.is_some())),*]
        };
    }
    let trials = trials!(
        i9_a_run_killed_at_any_named_point_ends_on_postgresql_as_an_undisturbed_one_on_sqlite,
        i9_a_run_whose_server_crashes_in_the_middle_ends_as_if_it_had_not,
        doctor_and_settings_tell_of_the_server_and_never_its_password,
    );
    let done = libtest_mimic::run(&Arguments::from_args(), trials);
    server::stop_shared();
    done.exit_code()
}

/// Puts the metastore of a data directory on the server.
fn place(data: &Path, url: &str) {
    std::fs::write(data.with_extension("metastore"), url).expect("address");
}

fn i9_a_run_killed_at_any_named_point_ends_on_postgresql_as_an_undisturbed_one_on_sqlite() {
    crash::killed_at_every_named_point(|data| place(data, &server::shared_database()));
}

fn i9_a_run_whose_server_crashes_in_the_middle_ends_as_if_it_had_not() {
    let dir = tempfile::tempdir().expect("dir");
    let (trace, truth) = simulate(dir.path(), 2_000, 2, 12, &["--bad", "0.01"]);
    let undisturbed = dir.path().join("undisturbed");
    with_known_keys(&undisturbed);
    run_trace(&trace, &undisturbed);
    let settings = dir.path().join("starling.toml");
    std::fs::write(&settings, "[ingest]\nmax_events = 100\n[signals]\ncommit_every_ms = 20\n").expect("settings");
    let server = Server::start();
    let data = dir.path().join("data");
    with_known_keys(&data);
    place(&data, &server.database(""));
    let mut disturbed = 0;
    for _ in 0..20 {
        let log = std::fs::File::create(dir.path().join("run.log")).expect("log");
        let mut run = starling_on(&data)
            .args(["run", "--trace"])
            .arg(&trace)
            .arg("--data-dir")
            .arg(&data)
            .arg("--config")
            .arg(&settings)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("starts");
        // Until something new is committed, or the run is over.
        let before = committed(&data);
        let until = Instant::now() + Duration::from_secs(600);
        while committed(&data) <= before && run.try_wait().expect("child").is_none() {
            assert!(Instant::now() < until, "nothing is committed");
        }
        if disturbed < 3 && run.try_wait().expect("child").is_none() {
            server.stop("immediate");
            server.start_again();
            disturbed += 1;
        }
        // It may wait the outage out, or stop with an error and be started again.
        if run.wait().expect("child").success() {
            break;
        }
        let log = std::fs::read_to_string(dir.path().join("run.log")).expect("log");
        assert!(log.contains("metastore"), "it says what went wrong: {log}");
    }
    assert!(disturbed > 0, "the run was over too soon: make the trace longer");
    assert_eq!(committed(&data), truth["frames"].as_u64().expect("frames"), "I1");
    assert_eq!(status(&data)["outcomes"], status(&undisturbed)["outcomes"], "I1");
    assert_eq!(people(&data), people(&undisturbed), "I9: person rows");
    assert_eq!(comparable_alerts(&data), comparable_alerts(&undisturbed), "I9: alerts");
    let charges = sql(&data, "SELECT charges FROM meta.budget");
    assert!(
        charges.len() == 2 && charges.iter().all(|b| b["charges"] == support::metrics()),
        "I2: each metric is charged once: {charges:?}"
    );
    succeed(starling_on(&data).args(["audit", "verify", "--data-dir"]).arg(&data));
}

/// Events committed so far; 0 while the metastore cannot be read.
fn committed(data: &Path) -> u64 {
    let output = starling_on(data).args(["status", "--json", "--data-dir"]).arg(data).output().expect("starts");
    let Ok(status) = serde_json::from_slice::<serde_json::Value>(&output.stdout) else { return 0 };
    status["partitions"].as_array().map_or(0, |p| p.iter().filter_map(|p| p["events"].as_u64()).sum())
}

fn doctor_and_settings_tell_of_the_server_and_never_its_password() {
    let dir = tempfile::tempdir().expect("dir");
    let server = Server::start();
    let (password, with_password) = (server.password(), server.database(""));
    let data = dir.path().join("data");
    let (trace, _) = simulate(dir.path(), 1_000, 1, 3, &[]);
    // As the README says: the password in a file, the rest in the settings.
    let url = with_password.replace(&format!(":{password}@"), "@");
    let file = dir.path().join("passwords");
    std::fs::write(&file, format!("127.0.0.1:{}:*:starling:{password}\n", server.port())).expect("password file");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("mode");
    let settings = dir.path().join("starling.toml");
    std::fs::write(&settings, format!("[metastore]\nurl = \"{url}\"\n[serve]\nlisten = \"127.0.0.1:0\"\n")).expect("settings");
    let call = |arguments: &[&str]| {
        let mut command = starling();
        command.args(arguments).arg("--config").arg(&settings).arg("--data-dir").arg(&data).env("PGPASSFILE", &file);
        command
    };
    let told = succeed(&mut call(&["doctor"]));
    assert!(told.contains("it answers and has no tables yet"), "{told}");
    let told = fail(&mut call(&["status"]));
    assert!(told.contains("no Starling data here yet"), "{told}");
    succeed(&mut call(&["run", "--trace", trace.to_str().expect("text")]));
    assert!(!data.join("metastore.db").exists(), "nothing is kept in SQLite");
    let told = succeed(&mut call(&["doctor"]));
    assert!(told.contains("metastore: PostgreSQL 1") && told.contains("over an encrypted connection"), "{told}");
    assert!(told.contains("the chain holds") && told.contains("clock: it agrees with the database's"), "{told}");
    // `prefer` takes TLS where the server has it; `disable` is told.
    let plain = succeed(call(&["doctor"]).env("STARLING_METASTORE__URL", format!("{url}?sslmode=disable")));
    assert!(plain.contains("plain text"), "{plain}");

    let shown = succeed(call(&["config", "show"]).env("STARLING_METASTORE__URL", &with_password));
    assert!(shown.contains("starling:(not shown)@127.0.0.1") && !shown.contains(&password), "{shown}");
    // A wrong password, everywhere it could be repeated, at the loudest level.
    let wrong = with_password.replace(&password, "hunter2");
    for command in [["doctor"].as_slice(), &["status"], &["config", "check"]] {
        let output = call(command).args(["--log", "trace"]).env("STARLING_METASTORE__URL", &wrong).output().expect("starts");
        let told = support::told(&output);
        assert!(!told.contains("hunter2") && !told.contains(&password), "{told}");
        assert!(command[0] == "config" || told.contains("the server refused the user or password"), "{told}");
    }
    let told = fail(call(&["config", "check"]).env("STARLING_METASTORE__URL", "postgres://me:hunter2@db.example/starling"));
    assert!(told.contains("sslmode=verify-full") && !told.contains("hunter2"), "{told}");
}
