//! A client that sends what it is told to, byte by byte if need be, and shows what came back.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use crate::house::{PASSWORD, Served};

/// How long anything may take before a test gives up: it measures nothing.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn read(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or_else(|| {
            panic!("no whole head: {:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(300)]));
        });
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok()).expect("a status");
        let header = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
        let headers: Vec<(String, String)> = lines.filter_map(header).collect();
        let mut body = bytes[end + 4..].to_vec();
        if headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked") {
            body = joined(&body);
        }
        Self { status, headers, body }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {} {}", self.status, self.text()))
    }

    /// The status and the SQLSTATE of a refusal.
    pub(crate) fn refusal(&self) -> (u16, String) {
        (self.status, self.json()["code"].as_str().unwrap_or_default().to_owned())
    }

    /// What the cookie of a login holds.
    pub(crate) fn cookie(&self) -> String {
        let set = self.header("set-cookie").expect("a cookie");
        set.split(';').next().expect("a pair").to_owned()
    }
}

/// The pieces of a chunked body; what is cut off is left out.
fn joined(mut rest: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = rest.windows(2).position(|two| two == b"\r\n") {
        let size = usize::from_str_radix(&String::from_utf8_lossy(&rest[..end]), 16).expect("a size");
        let Some(piece) = rest.get(end + 2..end + 2 + size).filter(|_| size > 0) else { break };
        whole.extend_from_slice(piece);
        rest = rest.get(end + 2 + size + 2..).unwrap_or_default();
    }
    whole
}

/// A connection that may be let wait.
pub(crate) fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).expect("connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    stream
}

/// Sends bytes, and gives all that comes back until the server closes.
pub(crate) fn knock(address: &str, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(address);
    // It may close before it has read all of it.
    let _ = stream.write_all(bytes);
    let mut out = Vec::new();
    let _ = stream.read_to_end(&mut out);
    out
}

/// A request's text; `headers` are whole lines.
pub(crate) fn request(address: &str, method: &str, path: &str, headers: &[&str], body: &str) -> String {
    let mut text = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    if !headers.iter().any(|line| line.starts_with("Host:")) {
        text.push_str(&format!("Host: {address}\r\n"));
    }
    if !body.is_empty() || method == "POST" {
        text.push_str(&format!("Content-Length: {}\r\n", body.len()));
        if !headers.iter().any(|line| line.starts_with("Content-Type:")) {
            text.push_str("Content-Type: application/json\r\n");
        }
    }
    headers.iter().for_each(|line| text.push_str(&format!("{line}\r\n")));
    format!("{text}\r\n{body}")
}

pub(crate) fn send(address: &str, method: &str, path: &str, headers: &[&str], body: &str) -> Answer {
    Answer::read(&knock(address, request(address, method, path, headers, body).as_bytes()))
}

impl Served {
    pub(crate) fn get(&self, path: &str, headers: &[&str]) -> Answer {
        send(&self.http, "GET", path, headers, "")
    }

    pub(crate) fn post(&self, path: &str, headers: &[&str], body: &str) -> Answer {
        send(&self.http, "POST", path, headers, body)
    }

    /// A statement, with these header lines.
    pub(crate) fn ask(&self, headers: &[&str], sql: &str) -> Answer {
        self.post("/v1/sql", headers, &serde_json::json!({ "sql": sql }).to_string())
    }

    pub(crate) fn log_in_with(&self, name: &str, password: &str, headers: &[&str]) -> Answer {
        self.post("/v1/login", headers, &serde_json::json!({ "name": name, "password": password }).to_string())
    }

    /// The header line of a new session's cookie.
    pub(crate) fn log_in(&self, name: &str) -> String {
        let answer = self.log_in_with(name, PASSWORD, &[]);
        assert_eq!(answer.status, 200, "{}", answer.text());
        format!("Cookie: {}", answer.cookie())
    }
}

/// Waits until something holds.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = std::time::Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
