//! A PostgreSQL for the tests of one executable, started when the first of them asks. Shared by including this file.
#![allow(dead_code, unreachable_pub)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;

/// A server of its own, with its data in a folder of its own.
pub struct Server {
    dir: tempfile::TempDir,
}

static SHARED: Mutex<Option<Server>> = Mutex::new(None);

/// Why no server can be started here, if so.
pub fn missing() -> Option<String> {
    let output = script("start.sh").arg("--check").output().expect("bash");
    match output.status.code() {
        Some(0) => None,
        Some(77) => Some(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        _ => panic!("{}", told(&output)),
    }
}

/// A new, empty database in the server that this executable's tests share.
pub fn shared_database() -> String {
    let mut shared = SHARED.lock().expect("no test panics while it starts the server");
    shared.get_or_insert_with(Server::start).database("")
}

/// Stops the shared server. To be called when all tests are done.
pub fn stop_shared() {
    *SHARED.lock().expect("no test panics while it starts the server") = None;
}

impl Server {
    /// Starts one.
    pub fn start() -> Self {
        let server = Self { dir: tempfile::tempdir().expect("a folder") };
        server.start_again();
        server
    }

    /// Starts it again after [`Self::stop`], with the same data on the same port.
    pub fn start_again(&self) {
        let output = script("start.sh").arg(self.dir()).output().expect("bash");
        assert!(output.status.success(), "{}", told(&output));
    }

    /// Stops it: `fast`, or `immediate`, which is a crash.
    pub fn stop(&self, how: &str) {
        let output = script("stop.sh").arg(self.dir()).arg(how).output().expect("bash");
        assert!(output.status.success(), "{}", told(&output));
    }

    /// The address of a new, empty database.
    pub fn database(&self, options: &str) -> String {
        let output = script("database.sh").arg(self.dir()).arg(options).output().expect("bash");
        assert!(output.status.success(), "{}", told(&output));
        let text = String::from_utf8(output.stdout).expect("text");
        text.lines().find_map(|line| line.strip_prefix("url=")).expect("an address").to_owned()
    }

    /// Its folder: data, certificate (`server.crt`), password.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        std::fs::read_to_string(self.dir().join("port")).expect("port").trim().parse().expect("a number")
    }

    /// The password of its user `starling`.
    pub fn password(&self) -> String {
        std::fs::read_to_string(self.dir().join("password")).expect("password").trim().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing of it is needed any more.
        let _ = script("stop.sh").arg(self.dir()).arg("immediate").output();
    }
}

fn script(name: &str) -> Command {
    let mut folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    while !folder.join("tests/postgres").exists() {
        assert!(folder.pop(), "the workspace has tests/postgres");
    }
    let mut command = Command::new("bash");
    command.arg(folder.join("tests/postgres").join(name)).stdin(std::process::Stdio::null());
    command
}

fn told(output: &Output) -> String {
    format!("{}\n{}\n{}", output.status, String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
