//! Brokers of the tests: started when the first test wants them, stopped at the end.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use tempfile::TempDir;

use crate::proxy::Proxy;

static ONE: Mutex<Option<Arc<Cluster>>> = Mutex::new(None);
static TO_BREAK: Mutex<Option<Arc<Cluster>>> = Mutex::new(None);
static THREE: Mutex<Option<Arc<Cluster>>> = Mutex::new(None);

/// One broker with TLS, SCRAM, client certificates, access rules, and a proxy before one of its listeners.
pub(crate) fn one() -> Arc<Cluster> {
    started(&ONE, 1)
}

/// Another one like it, for tests that stop and kill it and cut its connections.
pub(crate) fn one_to_break() -> Arc<Cluster> {
    started(&TO_BREAK, 1)
}

/// Three plain brokers, each holding a copy of everything.
pub(crate) fn three() -> Arc<Cluster> {
    // Together they would take more memory than a small machine has.
    stop(&TO_BREAK);
    started(&THREE, 3)
}

fn started(which: &Mutex<Option<Arc<Cluster>>>, brokers: u8) -> Arc<Cluster> {
    Arc::clone(which.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| Arc::new(Cluster::start(brokers))))
}

pub(crate) fn stop_all() {
    for which in [&ONE, &TO_BREAK, &THREE] {
        stop(which);
    }
}

fn stop(which: &Mutex<Option<Arc<Cluster>>>) {
    drop(which.lock().unwrap_or_else(PoisonError::into_inner).take());
}

pub(crate) struct Cluster {
    dir: TempDir,
    answers: BTreeMap<String, String>,
    pub(crate) proxy: Option<Proxy>,
}

impl Cluster {
    fn start(brokers: u8) -> Self {
        let dir = tempfile::tempdir().expect("dir");
        let mut command = script("start.sh");
        let listener = (brokers == 1).then(|| std::net::TcpListener::bind("127.0.0.1:0").expect("a port"));
        if let Some(listener) = &listener {
            let port = listener.local_addr().expect("port").port();
            command.env("SECURITY", "sasl_ssl").env("PROXY_PORTS", port.to_string());
        }
        let output = command.arg(brokers.to_string()).arg(dir.path()).output().expect("bash");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        let answers: BTreeMap<String, String> =
            text.lines().filter_map(|l| l.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        let proxy = listener.map(|listener| Proxy::start(listener, answers["proxied"].parse().expect("an address")));
        Self { dir, answers, proxy }
    }

    /// The open listener, by which tests make topics and rules, and send.
    pub(crate) fn bootstrap(&self) -> &str {
        &self.answers["bootstrap"]
    }

    /// The listener of this name: `sasl_ssl`, `ssl`.
    pub(crate) fn listener(&self, name: &str) -> &str {
        &self.answers[name]
    }

    /// A file with a certificate or key.
    pub(crate) fn tls(&self, file: &str) -> String {
        Path::new(&self.answers["tls"]).join(file).display().to_string()
    }

    /// What is in a file with a password.
    pub(crate) fn password(&self, file: &str) -> String {
        std::fs::read_to_string(self.tls(&format!("{file}.password"))).expect("password")
    }

    /// A broker's data.
    pub(crate) fn data(&self, id: u8) -> PathBuf {
        self.dir.path().join(format!("data-{id}"))
    }

    /// Sends a signal to a broker and waits until it is gone. SIGTERM lets it hand its partitions over, SIGKILL does not.
    pub(crate) fn end(&self, id: u8, signal: &str) {
        let pid = std::fs::read_to_string(self.dir.path().join(format!("broker-{id}.pid"))).expect("a pid");
        let signalled = Command::new("kill").args([signal, pid.trim()]).status().expect("kill");
        assert!(signalled.success());
        let gone = || !Command::new("kill").args(["-0", pid.trim()]).output().expect("kill").status.success();
        for _ in 0..3_000 {
            if gone() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        panic!("broker {id} did not end on {signal}");
    }

    /// Starts a broker that has ended, on its old data, and waits until it is ready.
    pub(crate) fn start_again(&self, id: u8) {
        for what in ["start", "await"] {
            let output = script("broker.sh")
                .args([what.as_ref(), self.dir.path().as_os_str()])
                .arg(id.to_string())
                .output()
                .expect("bash");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = script("stop.sh").arg(self.dir.path()).output();
    }
}

fn script(name: &str) -> Command {
    let mut command = Command::new("bash");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/kafka").join(name));
    command
}
