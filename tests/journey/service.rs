//! A long-running `starling` as an operator has it: its log, its door for metrics and health, and signals.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Long enough for a busy machine; a wait that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until `done`.
pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < until, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A running process; killed by id when it goes out of scope.
pub(crate) struct Service {
    child: Child,
    log: PathBuf,
}

impl Service {
    /// Starts it with its log in `log`.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Self {
        let file = std::fs::File::create(log).expect("log");
        let child = command.stdout(Stdio::null()).stderr(file).spawn().expect("starts");
        Self { child, log: log.to_owned() }
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Where it answers /metrics, once it does. Settings in tests name port 0, so the log alone knows.
    pub(crate) fn address(&mut self) -> String {
        let mut address = None;
        wait_until("the address of metrics", || {
            assert!(self.child.try_wait().expect("waits").is_none(), "ended early: {}", self.log());
            let log = self.log();
            let line = log.lines().find(|l| l.contains("metrics at /metrics"));
            address = line.and_then(|l| l.split("address=").nth(1)).map(|a| a.trim().to_owned());
            address.is_some()
        });
        address.expect("found")
    }

    /// Status and body of a path of that door.
    pub(crate) fn get(&mut self, path: &str) -> (u16, String) {
        let address = self.address();
        get(&address, path)
    }

    /// Sends a signal such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([format!("-{name}"), self.child.id().to_string()]).status().expect("kill");
        assert!(sent.success());
    }

    /// Waits for its end.
    pub(crate) fn ended(&mut self, within: Duration) -> ExitStatus {
        let until = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait().expect("waits") {
                return status;
            }
            assert!(Instant::now() < until, "it goes on after {within:?}: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Status and body of one request.
pub(crate) fn get(address: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").expect("asks");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("answers");
    let status = text.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
    (status, text)
}
