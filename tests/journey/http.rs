//! The alert stream, as curl sees it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::support::{alerts, run_trace, simulate, starling, succeed};

/// A served data directory; stopped by id when it goes out of scope.
pub(crate) struct Served {
    child: Child,
    address: String,
}

impl Served {
    pub(crate) fn start(data: &std::path::Path, settings: Option<&std::path::Path>) -> Self {
        let mut command = starling();
        command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(data);
        if let Some(path) = settings {
            command.arg("--config").arg(path);
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("starts");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("piped")).read_line(&mut line).expect("its first line");
        let address = line.split("http://").nth(1).and_then(|t| t.split('/').next()).expect("an address").to_owned();
        Self { child, address }
    }

    fn get(&self, path: &str, headers: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).expect("connects");
        stream.set_read_timeout(Some(Duration::from_secs(120))).expect("timeout");
        let host = if headers.contains("Host:") { String::new() } else { format!("Host: {}\r\n", self.address) };
        write!(stream, "GET {path} HTTP/1.1\r\n{host}Connection: close\r\n{headers}\r\n").expect("asks");
        stream
    }

    pub(crate) fn post(&self, path: &str, headers: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).expect("connects");
        stream.set_read_timeout(Some(Duration::from_secs(120))).expect("timeout");
        let (host, length) = (&self.address, body.len());
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
        )
        .expect("asks");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("answers");
        text
    }

    pub(crate) fn whole(&self, path: &str, headers: &str) -> String {
        let mut text = String::new();
        self.get(path, headers).read_to_string(&mut text).expect("answers");
        text
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn i6_alerts_are_streamed_listed_and_every_read_is_in_the_log() {
    let dir = tempfile::tempdir().expect("dir");
    let (trace, _) = simulate(dir.path(), 1_000, 1, 4, &[]);
    let data = dir.path().join("data");
    run_trace(&trace, &data);
    let expected = alerts(&data);
    assert!(expected.len() >= 3);
    let entries = || {
        let text = succeed(starling().args(["audit", "tail", "--lines", "1000", "--data-dir"]).arg(&data));
        text.matches("integrity_read").count()
    };
    let before = entries();
    let served = Served::start(&data, None);

    let listed = served.whole("/v1/alerts", "");
    assert!(listed.starts_with("HTTP/1.1 200"), "{listed}");
    for alert in &expected {
        assert!(listed.contains(alert["fingerprint"].as_str().expect("fingerprint")));
    }
    let mut lines = BufReader::new(served.get("/v1/alerts/stream", "")).lines().map(|l| l.expect("line"));
    assert!(lines.next().expect("status").contains("200"));
    let mut data_lines = lines.filter_map(|l| l.strip_prefix("data: ").map(str::to_owned));
    for alert in &expected {
        let event: serde_json::Value = serde_json::from_str(&data_lines.next().expect("an event")).expect("JSON");
        assert_eq!(&event, alert);
    }
    // A reader that comes back goes on where it was.
    let second = expected[1]["position"].to_string();
    let again = BufReader::new(served.get("/v1/alerts/stream", &format!("Last-Event-ID: {}\r\n", expected[0]["position"])));
    let first_id = again.lines().map(|l| l.expect("line")).find_map(|l| l.strip_prefix("id: ").map(str::to_owned));
    assert_eq!(first_id, Some(second));
    assert_eq!(entries(), before + 3);
    assert!(served.whole("/livez", "").contains("ok"));
    assert!(served.whole("/readyz", "").contains("ok"));
}

#[test]
fn the_door_refuses_foreign_host_names_and_wrong_tokens() {
    let dir = tempfile::tempdir().expect("dir");
    let (trace, _) = simulate(dir.path(), 1_000, 1, 4, &[]);
    let data = dir.path().join("data");
    run_trace(&trace, &data);
    let open = Served::start(&data, None);
    let foreign = open.whole("/v1/alerts", "Host: rebinding.example\r\n");
    assert!(foreign.starts_with("HTTP/1.1 403"), "{foreign}");
    assert!(!foreign.contains("fingerprint"));

    let token = dir.path().join("token");
    std::fs::write(&token, "correct-horse-battery-staple\n").expect("token");
    let settings = dir.path().join("s.toml");
    std::fs::write(&settings, format!("[serve]\ntoken_file = {:?}\n", token.display().to_string())).expect("settings");
    let guarded = Served::start(&data, Some(&settings));
    for headers in ["", "Authorization: Bearer wrong\r\n", "Authorization: Basic correct-horse-battery-staple\r\n"] {
        let refused = guarded.whole("/v1/alerts", headers);
        assert!(refused.starts_with("HTTP/1.1 401") && !refused.contains("fingerprint"), "{refused}");
    }
    let right = guarded.whole("/v1/alerts", "Authorization: Bearer correct-horse-battery-staple\r\n");
    assert!(right.starts_with("HTTP/1.1 200") && right.contains("fingerprint"), "{right}");
}
