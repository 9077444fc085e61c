//! # Files on S3: the journey, killed at the points where files matter, and with the server gone in the middle
//!
//! ```text
//!  trace ─► starling run ─┬─► data_dir: metastore, keys, spilled runs, local signal log
//!                         └─► s3://starling/<test>: segments, person tables, statistics, detectors' state      (tests/s3/start.sh)
//! ```
//!
//! What comes out is compared with the same trace on local files under the same pseudonym keys (I9). Where no server can be started these
//! tests are reported as ignored, never as passed.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, dead_code)]

#[path = "../journey/support.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Trial};
use starling_store::{Files, S3Address, S3Credentials, S3Settings};
use support::{
    comparable, comparable_alerts, files_below, people, people_in, run_trace, runtime, simulate, sql, starling, status, succeed,
    told, with_known_keys, workspace,
};

/// The server of those tests that leave it running.
static SHARED: OnceLock<Server> = OnceLock::new();

fn main() -> ExitCode {
    let dir = tempfile::tempdir().expect("dir");
    let missing = match Server::start(&dir.path().join("server")) {
        Ok(server) => {
            let _ = SHARED.set(server);
            false
        }
        Err(reason) => {
            eprint!("{reason}");
            true
        }
    };
    macro_rules! trials {
        ($($name:ident),* $(,)?) => {
            vec![$(Trial::test(stringify!($name), || { $name(); Ok(()) }).with_ignored_flag(missing)),*]
        };
    }
    let trials = trials!(
        i9_files_on_s3_give_the_rows_the_alerts_and_the_statistics_that_local_files_give,
        i9_killed_where_files_matter_a_run_on_s3_ends_as_if_it_had_not_been,
        i9_a_server_that_goes_away_for_a_moment_is_waited_for,
        i9_a_server_that_goes_away_for_long_ends_the_run_loudly_and_the_next_one_goes_on,
        doctor_says_what_is_wrong_and_what_is_right,
        i8_files_are_not_looked_for_in_another_place_than_they_were_written_to,
    );
    let code = libtest_mimic::run(&Arguments::from_args(), trials).exit_code();
    if let Some(server) = SHARED.get() {
        server.stop();
    }
    code
}

/// A server started by the script, stopped by its id.
struct Server {
    dir: PathBuf,
    endpoint: String,
    access_key: String,
    secret_key: String,
}

impl Server {
    /// An error says why it cannot be started here.
    fn start(dir: &Path) -> Result<Self, String> {
        let output = Self::script("start.sh", dir);
        if output.status.code() == Some(77) {
            return Err(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        assert!(output.status.success(), "{}", told(&output));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = |name: &str| {
            let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            found.expect("start.sh prints it").to_owned()
        };
        Ok(Self {
            dir: dir.to_owned(),
            endpoint: line("endpoint"),
            access_key: line("access_key"),
            secret_key: line("secret_key"),
        })
    }

    fn script(name: &str, dir: &Path) -> Output {
        Command::new("bash").arg(workspace().join("tests/s3").join(name)).arg(dir).output().expect("bash")
    }

    fn stop(&self) {
        assert!(Self::script("stop.sh", &self.dir).status.success());
    }

    fn start_again(&self) {
        assert!(Self::script("start.sh", &self.dir).status.success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = Self::script("stop.sh", &self.dir);
    }
}

/// A data directory whose files are in a folder of the bucket.
struct Deployment<'a> {
    server: &'a Server,
    data: PathBuf,
    settings: PathBuf,
    url: String,
}

impl<'a> Deployment<'a> {
    fn new(server: &'a Server, dir: &Path, name: &str) -> Self {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let url = format!("s3://starling/{}-{number}-{name}", std::process::id());
        let (data, settings) = (dir.join(name), dir.join(format!("{name}.toml")));
        let text = format!(
            "[files]\nurl = \"{url}\"\nendpoint = \"{}\"\n[ingest]\nmax_events = 2000\n[signals]\ncommit_every_ms = 50\n",
            server.endpoint
        );
        std::fs::write(&settings, text).expect("settings");
        with_known_keys(&data);
        Self { server, data, settings, url }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = starling();
        command.args(arguments).arg("--data-dir").arg(&self.data).arg("--config").arg(&self.settings);
        command.env("AWS_ACCESS_KEY_ID", &self.server.access_key).env("AWS_SECRET_ACCESS_KEY", &self.server.secret_key);
        command
    }

    fn run(&self, trace: &Path) -> Command {
        self.command(&["run", "--trace", trace.to_str().expect("a plain path")])
    }

    fn lines(&self, arguments: &[&str]) -> Vec<serde_json::Value> {
        let text = succeed(&mut self.command(arguments));
        text.lines().map(|line| serde_json::from_str(line).expect("JSON lines")).collect()
    }

    fn sql(&self, statement: &str) -> Vec<serde_json::Value> {
        self.lines(&["sql", "--format", "json", statement])
    }

    fn files(&self) -> Files {
        let settings = S3Settings {
            address: S3Address::parse(&self.url).expect("an address"),
            endpoint: self.server.endpoint.clone(),
            region: String::new(),
            allow_http: false,
            credentials: S3Credentials::Keys {
                access_key: self.server.access_key.clone(),
                secret_key: self.server.secret_key.clone().into(),
            },
        };
        Files::open_s3(&settings).expect("opens")
    }

    fn objects(&self, folder: &str) -> Vec<String> {
        runtime().block_on(async { self.files().list(folder).await.expect("lists") })
    }

    fn unfinished(&self, folder: &str) -> usize {
        runtime().block_on(async { self.files().count_unfinished(folder).await.expect("counts") })
    }

    fn outcomes(&self) -> serde_json::Value {
        self.lines(&["status", "--json"])[0]["outcomes"].clone()
    }

    fn events(&self) -> u64 {
        let output = self.command(&["status", "--json"]).output().expect("starts");
        let Ok(status) = serde_json::from_slice::<serde_json::Value>(&output.stdout) else { return 0 };
        status["partitions"].as_array().map_or(0, |p| p.iter().filter_map(|p| p["events"].as_u64()).sum())
    }

    /// What must be the same, wherever the files are and whatever happened.
    fn assert_like(&self, expected: &Expected, when: &str) {
        assert_eq!(people_in(&self.data, Some(&self.files())), expected.people, "person rows {when}");
        assert_eq!(comparable(self.lines(&["alerts", "--json"])), expected.alerts, "alerts {when}");
        assert_eq!(self.outcomes(), expected.outcomes, "I1 {when}");
        assert_eq!(self.sql(RELEASES), expected.releases, "I3 {when}");
        assert!(self.sql(CHARGES).iter().all(|b| b["charges"] == support::metrics()), "I2 {when}: each metric is charged once");
        // Of the week and the month, which go on, one segment each.
        let (goes_on, left): (Vec<_>, Vec<_>) =
            self.objects("segments").into_iter().partition(|path| path.contains("/gathered-2026-01-06-"));
        assert_eq!((goes_on.len(), left), (2, Vec::<String>::new()), "{when}");
        assert_eq!(self.unfinished("segments"), 0, "{when}");
        for folder in ["segments", "people", "stats"] {
            assert!(files_below(&self.data.join("files").join(folder)).is_empty(), "{folder} {when}: nothing beside the bucket");
        }
    }
}

const RELEASES: &str = "SELECT metric, day FROM meta.releases ORDER BY metric, day";
const CHARGES: &str = "SELECT day, charges FROM meta.budget";

struct Expected {
    people: std::collections::BTreeMap<String, Vec<support::Person>>,
    alerts: Vec<String>,
    outcomes: serde_json::Value,
    releases: Vec<serde_json::Value>,
}

/// A trace, and what local files give.
fn trace_and_expected(dir: &Path, people_count: u64, seed: u64) -> (PathBuf, Expected) {
    let (trace, _) = simulate(dir, people_count, 2, seed, &["--bad", "0.01"]);
    let local = dir.join("local");
    with_known_keys(&local);
    run_trace(&trace, &local);
    let expected = Expected {
        people: people(&local),
        alerts: comparable_alerts(&local),
        outcomes: status(&local)["outcomes"].clone(),
        releases: sql(&local, RELEASES),
    };
    assert!(expected.people.len() == 2 && !expected.alerts.is_empty() && expected.releases.len() == 2 * support::metrics());
    (trace, expected)
}

fn shared() -> &'static Server {
    SHARED.get().expect("the server is running")
}

fn i9_files_on_s3_give_the_rows_the_alerts_and_the_statistics_that_local_files_give() {
    let dir = tempfile::tempdir().expect("dir");
    let (trace, expected) = trace_and_expected(dir.path(), 1_000, 31);
    let there = Deployment::new(shared(), dir.path(), "there");
    // Everything is logged that could be: the secret must be in none of it.
    let output = there.run(&trace).args(["--log", "trace"]).output().expect("starts");
    assert!(output.status.success(), "{}", told(&output));
    there.assert_like(&expected, "on S3");
    let secret = there.server.secret_key.as_bytes();
    let has_secret = |bytes: &[u8]| bytes.windows(secret.len()).any(|w| w == secret);
    assert!(output.stderr.len() > 1000 && !has_secret(&output.stderr) && !has_secret(&output.stdout), "I4: the log");
    for path in files_below(&there.data) {
        assert!(!has_secret(&std::fs::read(&path).expect("a file")), "I4: {}", path.display());
    }

    // The statistics are read from the bucket, checked against their hashes, and stay what they are.
    let released = "SELECT * FROM stats.messages_daily ORDER BY day, country, conversation_kind";
    let first = there.sql(released);
    assert!(!first.is_empty());
    assert!(there.run(&trace).output().expect("starts").status.success());
    assert_eq!(there.sql(released), first, "I3: no second draw");
    let stats = there.objects("stats");
    assert_eq!(stats.len(), 2 * support::metrics());
    let minutes = stats.iter().find(|path| path.contains("call_minutes_daily")).expect("released");
    runtime().block_on(there.files().delete(minutes)).expect("deletes");
    let gone = there.command(&["sql", "SELECT count(value) FROM stats.call_minutes_daily"]).output().expect("starts");
    assert!(!gone.status.success(), "a file that is gone is told: {}", told(&gone));
}

fn i9_killed_where_files_matter_a_run_on_s3_ends_as_if_it_had_not_been() {
    let dir = tempfile::tempdir().expect("dir");
    let (trace, expected) = trace_and_expected(dir.path(), 1_000, 32);
    for at in [
        "after_segment_written:3",
        "after_process:2",
        "after_commit:3",
        "after_begin_close",
        "after_merge",
        "after_finish_close",
        "after_charge",
        "after_noise",
        "after_release_file",
        "after_state_written:2",
        "after_integrity_commit:2",
    ] {
        let killed_one = Deployment::new(shared(), dir.path(), &at.replace([':', '_'], "-"));
        let killed = killed_one.run(&trace).env("STARLING_KILL_AT", at).output().expect("starts");
        assert!(killed.status.code().is_none(), "{at} was not reached: {}", told(&killed));
        let again = killed_one.run(&trace).output().expect("starts");
        assert!(again.status.success(), "after a kill at {at}: {}", told(&again));
        killed_one.assert_like(&expected, &format!("after a kill at {at}"));
    }
}

/// Starts a run, and waits until it has committed something but far from all.
fn started(there: &Deployment<'_>, trace: &Path, log: &Path) -> std::process::Child {
    let log = std::fs::File::create(log).expect("log");
    let child = there.run(trace).args(["--log", "info"]).stdout(Stdio::null()).stderr(log).spawn().expect("starts");
    let end = Instant::now() + Duration::from_secs(120);
    while there.events() < 4_000 {
        assert!(Instant::now() < end, "waited in vain for the first ranges");
    }
    child
}

fn i9_a_server_that_goes_away_for_a_moment_is_waited_for() {
    let dir = tempfile::tempdir().expect("dir");
    let server = Server::start(&dir.path().join("server")).expect("starts, as the shared one did");
    let (trace, expected) = trace_and_expected(dir.path(), 4_000, 33);
    let there = Deployment::new(&server, dir.path(), "there");
    let log = dir.path().join("log");
    let mut child = started(&there, &trace, &log);
    server.stop();
    // Starting the server again takes its time as well, and all of it must be within the patience of the run.
    std::thread::sleep(Duration::from_secs(1));
    assert!(child.try_wait().expect("a child").is_none(), "it is still at it: {}", std::fs::read_to_string(&log).expect("log"));
    server.start_again();
    let status = child.wait().expect("ends");
    assert!(status.success(), "{}", std::fs::read_to_string(&log).expect("log"));
    there.assert_like(&expected, "after a short outage");
}

fn i9_a_server_that_goes_away_for_long_ends_the_run_loudly_and_the_next_one_goes_on() {
    let dir = tempfile::tempdir().expect("dir");
    let server = Server::start(&dir.path().join("server")).expect("starts, as the shared one did");
    let (trace, expected) = trace_and_expected(dir.path(), 4_000, 34);
    let there = Deployment::new(&server, dir.path(), "there");
    let log = dir.path().join("log");
    let mut child = started(&there, &trace, &log);
    server.stop();
    let end = Instant::now() + Duration::from_secs(300);
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child") {
            break status;
        }
        if Instant::now() >= end {
            let _ = child.kill();
            panic!("the run waits for ever: {}", std::fs::read_to_string(&log).expect("log"));
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    let text = std::fs::read_to_string(&log).expect("log");
    assert!(!status.success() && text.contains("the server does not answer") && text.contains("files.endpoint"), "{text}");
    assert!(!text.contains(&server.secret_key), "{text}");
    let down = there.run(&trace).output().expect("starts");
    assert!(!down.status.success() && told(&down).contains("the object store cannot be used"), "{}", told(&down));
    server.start_again();
    let again = there.run(&trace).output().expect("starts");
    assert!(again.status.success(), "{}", told(&again));
    there.assert_like(&expected, "after a long outage");
}

fn doctor_says_what_is_wrong_and_what_is_right() {
    let dir = tempfile::tempdir().expect("dir");
    let there = Deployment::new(shared(), dir.path(), "there");
    let doctor = |command: &mut Command| told(&command.args(["--log", "debug"]).output().expect("starts"));
    let good = doctor(&mut there.command(&["doctor"]));
    assert!(good.contains(&format!("ok    files: {} creates a file once", there.url)), "{good}");
    assert_eq!(there.objects(""), Vec::<String>::new());

    let wrong = doctor(there.command(&["doctor"]).env("AWS_SECRET_ACCESS_KEY", "hunter2-hunter2"));
    assert!(wrong.contains("FAIL  files:") && wrong.contains("refused the credentials"), "{wrong}");
    assert!(!wrong.contains("hunter2") && !wrong.contains(&there.server.access_key), "{wrong}");
    let none = doctor(there.command(&["doctor"]).env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY"));
    assert!(none.contains("FAIL  files:") && none.contains("AWS_ACCESS_KEY_ID"), "{none}");

    let file = dir.path().join("credentials");
    let text = format!(
        "[default]\naws_access_key_id = {}\naws_secret_access_key = {}\n",
        there.server.access_key, there.server.secret_key
    );
    std::fs::write(&file, text).expect("writes");
    let with_file = |command: &mut Command| {
        doctor(
            command
                .env("STARLING_FILES__CREDENTIALS_FILE", &file)
                .env_remove("AWS_ACCESS_KEY_ID")
                .env_remove("AWS_SECRET_ACCESS_KEY"),
        )
    };
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).expect("chmod");
    let open = with_file(&mut there.command(&["doctor"]));
    assert!(open.contains("chmod 600"), "{open}");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("chmod");
    let private = with_file(&mut there.command(&["doctor"]));
    assert!(private.contains("ok    files:") && !private.contains(&there.server.secret_key), "{private}");
    let shown = succeed(&mut there.command(&["config", "show"]));
    assert!(shown.contains(&there.url) && !shown.contains(&there.server.secret_key), "{shown}");
}

fn i8_files_are_not_looked_for_in_another_place_than_they_were_written_to() {
    let dir = tempfile::tempdir().expect("dir");
    let (trace, _) = simulate(dir.path(), 1_000, 1, 35, &[]);
    let there = Deployment::new(shared(), dir.path(), "there");
    assert!(there.run(&trace).output().expect("starts").status.success());
    let local = starling().args(["run", "--trace"]).arg(&trace).arg("--data-dir").arg(&there.data).output().expect("starts");
    assert!(!local.status.success() && told(&local).contains(&there.url), "{}", told(&local));
    let other = there.run(&trace).env("STARLING_FILES__URL", "s3://starling/elsewhere").output().expect("starts");
    assert!(!other.status.success() && told(&other).contains(&there.url), "{}", told(&other));
}
