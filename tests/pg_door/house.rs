//! A data directory with users, made once; servers over it; clients of them.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{run_trace, simulate, starling, succeed, workspace};

pub(crate) const PASSWORD: &str = "correct-horse-battery";

pub(crate) struct House {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) data: PathBuf,
    certificate: OnceLock<(PathBuf, PathBuf)>,
}

/// The one that all tests of a run share.
pub(crate) fn house() -> &'static House {
    static HOUSE: OnceLock<House> = OnceLock::new();
    HOUSE.get_or_init(|| House::new(3_000, 2))
}

impl House {
    /// One with the traffic of so many people on so many days.
    pub(crate) fn new(people: u64, days: u32) -> Self {
        let dir = tempfile::tempdir().expect("dir");
        let (trace, _) = simulate(dir.path(), people, days, 4, &[]);
        let data = dir.path().join("data");
        run_trace(&trace, &data);
        let house = House { dir, data, certificate: OnceLock::new() };
        for (name, role, team) in [
            ("ada", "product", "product"),
            ("joe", "product", "engineering"),
            ("poor", "product", "newcomers"),
            ("ivy", "integrity", "integrity"),
            ("pia", "privacy", "privacy"),
            ("eng", "engineer", "engineering"),
            ("aud", "auditor", "audit"),
            ("bil", "billing", "finance"),
            ("amy", "auditor", "audit"),
            // Each asks in one test only.
            ("lee", "product", "product"),
            ("kim", "product", "product"),
            ("sam", "product", "product"),
            ("tim", "product", "product"),
        ] {
            house.users(&["add", name, "--role", role, "--team", team]);
        }
        house
    }

    /// A users file of its own with the same people, for a test that changes it.
    pub(crate) fn own_users(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::copy(self.data.join("users.toml"), &path).expect("copies, and who may read it");
        path
    }

    /// Runs a command on such a file; gives what it says.
    pub(crate) fn users_in(&self, file: &Path, arguments: &[&str]) -> String {
        let mut command = self.users_command(arguments);
        command.env("STARLING_POSTGRES__USERS_FILE", file).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("starts");
        let _ = writeln!(child.stdin.take().expect("piped"), "{PASSWORD}");
        let output = child.wait_with_output().expect("ends");
        assert!(output.status.success(), "{arguments:?}");
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    }

    pub(crate) fn users_command(&self, arguments: &[&str]) -> Command {
        let mut command = starling();
        command.arg("users").args(arguments).arg("--data-dir").arg(&self.data);
        command
    }

    /// Runs it with the password on standard input.
    pub(crate) fn users(&self, arguments: &[&str]) {
        let mut command = self.users_command(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("starts");
        // A command that wants none may have ended.
        let _ = writeln!(child.stdin.take().expect("piped"), "{PASSWORD}");
        assert!(child.wait().expect("ends").success(), "{arguments:?}");
    }

    /// A certificate for 127.0.0.1, signed by itself, and its key. Made once: tests run side by side, and one must not replace
    /// what a server of another is about to read.
    pub(crate) fn certificate(&self) -> (PathBuf, PathBuf) {
        self.certificate.get_or_init(|| self.new_certificate()).clone()
    }

    fn new_certificate(&self) -> (PathBuf, PathBuf) {
        let (certificate, key) = (self.dir.path().join("server.crt"), self.dir.path().join("server.key"));
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]);
        command.args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]);
        command.args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"]).arg(&key).arg("-out").arg(&certificate);
        succeed(&mut command);
        (certificate, key)
    }

    pub(crate) fn other_key(&self) -> PathBuf {
        let key = self.dir.path().join("other.key");
        succeed(
            Command::new("openssl")
                .args(["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out"])
                .arg(&key),
        );
        key
    }
}

/// The Python that has psycopg, or why there is none.
pub(crate) fn python() -> Result<PathBuf, String> {
    let script = workspace().join("tests/accounting/python.sh");
    let output = Command::new("bash").arg(script).arg(workspace().join("tests/pg_door/requirements.txt")).output();
    let output = output.map_err(|_| "skipped: no bash".to_owned())?;
    let answer = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    match output.status.code() {
        Some(0) => Ok(PathBuf::from(answer)),
        Some(77) => Err(answer),
        _ => Err(format!("skipped: python.sh failed: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

/// A running `starling serve`; stopped by id when it goes out of scope.
pub(crate) struct Served {
    child: Child,
    /// Of the PostgreSQL door; empty where there is none.
    pub(crate) address: String,
    /// Of the HTTP door.
    pub(crate) http: String,
    /// Of the Flight SQL door; empty where there is none.
    pub(crate) flight: String,
    log: tempfile::NamedTempFile,
}

impl Served {
    /// The command, with these lines under `[postgres]`.
    pub(crate) fn command(house: &House, lines: &[&str]) -> Command {
        Self::command_with(house, &format!("[postgres]\nlisten = \"127.0.0.1:0\"\n{}\n", lines.join("\n")))
    }

    /// The command with these settings, and the HTTP door at a port of its own.
    pub(crate) fn command_with(house: &House, text: &str) -> Command {
        let settings = tempfile::NamedTempFile::new_in(house.dir.path()).expect("file");
        std::fs::write(settings.path(), text).expect("writes");
        let (_, path) = settings.keep().expect("kept until the house goes");
        let mut command = starling();
        command.args(["serve", "--listen", "127.0.0.1:0", "--config"]).arg(path).arg("--data-dir").arg(&house.data);
        command.env("STARLING_METRICS__LISTEN", "");
        command
    }

    pub(crate) fn start(house: &House, lines: &[&str]) -> Self {
        Self::spawn(Self::command(house, lines))
    }

    pub(crate) fn spawn(command: Command) -> Self {
        Self::spawn_with(command, true)
    }

    /// The same; `sql` says whether there is a PostgreSQL door to wait for.
    pub(crate) fn spawn_with(command: Command, sql: bool) -> Self {
        Self::spawn_for(command, if sql { &["Console:", "SQL:"] } else { &["Console:"] })
    }

    /// The same, waiting for the doors that say these words.
    pub(crate) fn spawn_for(mut command: Command, doors: &[&str]) -> Self {
        let log = tempfile::NamedTempFile::new().expect("file");
        let file = log.reopen().expect("opens");
        let mut child = command.stdout(Stdio::piped()).stderr(file).spawn().expect("starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
        // `Console: http://127.0.0.1:40122/  Routes: …`, `SQL: psql -h 127.0.0.1 -p 40123 -U NAME`,
        // `Flight SQL: grpc://127.0.0.1:40124`
        let mut served = Self { child, address: String::new(), http: String::new(), flight: String::new(), log };
        let mut missing = doors.to_vec();
        while !missing.is_empty() {
            let Some(line) = lines.next() else { panic!("it ended: {}", served.log()) };
            let words: Vec<&str> = line.split(' ').collect();
            match words[0] {
                "SQL:" => served.address = format!("{}:{}", words[3], words[5]),
                "Console:" => served.http = words[1].split('/').nth(2).expect("an address").to_owned(),
                "Flight" => served.flight = words[2].rsplit('/').next().expect("an address").to_owned(),
                _ => continue,
            }
            missing.retain(|door| *door != words[0]);
        }
        served
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log.path()).expect("log")
    }

    fn target(&self, user: &str) -> String {
        let (host, port) = self.address.rsplit_once(':').expect("an address");
        format!("host={host} port={port} user={user} dbname=starling")
    }

    /// What psql writes to its two outputs.
    pub(crate) fn psql(&self, user: &str, arguments: &[&str]) -> (String, String) {
        self.psql_as(user, PASSWORD, arguments)
    }

    pub(crate) fn psql_as(&self, user: &str, password: &str, arguments: &[&str]) -> (String, String) {
        run_psql(&self.target(user), password, arguments)
    }

    pub(crate) fn psql_with(&self, user: &str, more: &str, arguments: &[&str]) -> (String, String) {
        run_psql(&format!("{} {more}", self.target(user)), PASSWORD, arguments)
    }

    pub(crate) fn psql_over(&self, user: &str, password: &str, more: &str, arguments: &[&str]) -> (String, String) {
        run_psql(&format!("{} {more}", self.target(user)), password, arguments)
    }

    pub(crate) fn psycopg(&self, user: &str, more: &[&str]) -> Client {
        Client::start(&format!("{} {}", self.target(user), more.join(" ")), &[])
    }

    pub(crate) fn psycopg_in_transactions(&self, user: &str) -> Client {
        Client::start(&self.target(user), &["transactions"])
    }

    /// Reads a statement's rows in parts of so many, through asyncpg.
    pub(crate) fn asyncpg(&self, user: &str, statement: &str, part: u32) -> Value {
        let script = workspace().join("tests/pg_door/parts.py");
        let (host, port) = self.address.rsplit_once(':').expect("an address");
        let mut command = Command::new(python().expect("found before"));
        command.arg("-B").arg(script).args([host, port, user, statement, &part.to_string()]).env("PGPASSWORD", PASSWORD);
        serde_json::from_str(&succeed(&mut command)).expect("JSON")
    }

    /// Asks it to stop, and waits for its end.
    pub(crate) fn terminated(&mut self) -> ExitStatus {
        let sent = Command::new("kill").args(["-TERM".to_owned(), self.child.id().to_string()]).status().expect("kill");
        assert!(sent.success());
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(status) = self.child.try_wait().expect("waits") {
                return status;
            }
            assert!(Instant::now() < until, "it goes on: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run_psql(target: &str, password: &str, arguments: &[&str]) -> (String, String) {
    let mut command = Command::new("psql");
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PG")) {
        command.env_remove(name);
    }
    command.env("PGPASSWORD", password).env("PGPASSFILE", "/nowhere/pgpass").env("PSQLRC", "/dev/null").stdin(Stdio::null());
    let output = command.arg(target).args(arguments).output().expect("psql starts");
    (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// A session of psycopg's; ended by id when it goes out of scope.
pub(crate) struct Client {
    child: Child,
    steps: ChildStdin,
    answers: std::io::Lines<BufReader<ChildStdout>>,
}

impl Client {
    fn start(target: &str, more: &[&str]) -> Self {
        let script = workspace().join("tests/pg_door/client.py");
        let mut command = Command::new(python().expect("found before"));
        command.arg("-B").arg(script).arg(target).args(more).env("PGPASSWORD", PASSWORD);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python starts");
        let (steps, out) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let mut client = Self { child, steps, answers: BufReader::new(out).lines() };
        assert_eq!(client.answer()["version"], 160_000);
        client
    }

    /// Takes a step without waiting for its end.
    pub(crate) fn begin(&mut self, step: Value) {
        writeln!(self.steps, "{step}").expect("takes a step");
    }

    pub(crate) fn answer(&mut self) -> Value {
        serde_json::from_str(&self.answers.next().expect("an answer").expect("text")).expect("JSON")
    }

    pub(crate) fn ask(&mut self, step: Value) -> Value {
        self.begin(step);
        self.answer()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Statements that every door refuses, from a list beside the engine's tests; what stands in braces is for the caller to fill in.
pub(crate) fn refused_statements(list: &str) -> Vec<String> {
    let text = std::fs::read_to_string(workspace().join(format!("pipeline/query/tests/{list}.txt"))).expect("statements");
    let statement =
        |part: &str| part.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n").trim().to_owned();
    text.split("\n\n").map(statement).filter(|statement| !statement.is_empty()).collect()
}
