//! Who sends too much, too slowly, or what is no request; and who looks where nothing is.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::{Answer, PATIENCE, connect, knock, request, send, until};
use crate::doors::{token, with_users};
use crate::house::{House, PASSWORD, Served};

pub(crate) fn what_is_too_long_is_refused_and_others_are_served(house: &House) {
    let served = with_users(house, "");
    let token = token(house, "ada");
    // By its length alone, and by its pieces.
    let long = format!(r#"{{"sql":"SELECT '{}'"}}"#, "4711".repeat(20_000));
    assert_eq!(served.post("/v1/sql", &[&token], &long).refusal(), (413, "54000".to_owned()));
    let announced = format!(
        "POST /v1/login HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: 9999999\r\n\r\n",
        served.http
    );
    assert_eq!(Answer::read(&knock(&served.http, announced.as_bytes())).status, 413, "before its bytes come");
    let mut chunked = format!(
        "POST /v1/sql HTTP/1.1\r\nHost: {}\r\n{token}\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
        served.http
    );
    for _ in 0..20 {
        chunked.push_str(&format!("1000\r\n{}\r\n", "x".repeat(0x1000)));
    }
    chunked.push_str("0\r\n\r\n");
    assert_eq!(Answer::read(&knock(&served.http, chunked.as_bytes())).status, 413);
    // 16 KiB are the gate's own limit of a statement.
    let statement = format!("SELECT '{}'", "x".repeat(20_000));
    assert_eq!(served.ask(&[&token], &statement).refusal(), (400, "54000".to_owned()));
    // Heads.
    let many: Vec<String> = (0..200).map(|n| format!("X-{n}: y")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(send(&served.http, "GET", "/livez", &many, "").status, 431);
    let wide = format!("X-Wide: {}", "y".repeat(60_000));
    assert_eq!(send(&served.http, "GET", "/livez", &[&wide], "").status, 431);
    let path = format!("/v1/alerts/{}", "a".repeat(60_000));
    assert!(matches!(served.get(&path, &[&token]).status, 414 | 431));
    // What is no request.
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00"[..],
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\0\0\0\x08\x04\xd2\x16\x2f",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let said = String::from_utf8_lossy(&knock(&served.http, bytes)).into_owned();
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 4") || said.starts_with("HTTP/1.1 5"), "{said}");
    }
    // Two lengths: one of them is for somebody behind a proxy.
    let smuggled =
        format!("POST /v1/sql HTTP/1.1\r\nHost: {}\r\n{token}\r\nContent-Length: 4\r\nContent-Length: 60\r\n\r\n", served.http);
    assert_eq!(Answer::read(&knock(&served.http, smuggled.as_bytes())).status, 400);
    assert_eq!(served.get("/v1/me", &[&token]).status, 200);
    assert!(!served.log().contains("a defect"), "{}", served.log());
}

pub(crate) fn who_is_slow_or_silent_is_let_go_and_holds_nobody(house: &House) {
    let served = with_users(house, "");
    let token = token(house, "ada");
    // Long answers that nobody takes. One after the other, since each must be ready within the gate's ten seconds.
    let mut untaken = Vec::new();
    let rows =
        "SELECT a.day, a.country, b.country AS other FROM stats.people_served_daily a, stats.people_served_daily b LIMIT 90000";
    let body = json!({ "sql": rows }).to_string();
    for _ in 0..3 {
        let mut stream = connect(&served.http);
        stream
            .write_all(
                request(&served.http, "POST", "/v1/sql", &[&self::token(house, "joe"), "Accept: text/csv"], &body).as_bytes(),
            )
            .expect("asks");
        stream.peek(&mut [0]).expect("its first byte");
        untaken.push(stream);
    }
    // Halves of heads and bodies, and silence: all are closed by the server.
    let half = format!(
        "POST /v1/sql HTTP/1.1\r\nHost: {}\r\n{token}\r\nContent-Type: application/json\r\nContent-Length: 30\r\n\r\n{{\"sql\"",
        served.http
    );
    let slow: Vec<_> = ["", "GET /v1/me HTTP/1.1\r\nHost: lo", &half]
        .iter()
        .flat_map(|text| {
            (0..5)
                .map(|_| {
                    let mut stream = connect(&served.http);
                    stream.write_all(text.as_bytes()).expect("sends");
                    stream
                })
                .collect::<Vec<_>>()
        })
        .collect();
    for _ in 0..5 {
        assert_eq!(served.ask(&[&token], "SELECT count(*) FROM stats.calls_daily").status, 200);
    }
    // Who takes its answer after all has it whole, as long as the server's patience lasts.
    let mut said = Vec::new();
    untaken.pop().expect("three").read_to_end(&mut said).expect("reads");
    let answer = Answer::read(&said);
    assert_eq!((answer.status, answer.text().lines().count()), (200, 90_001));
    for mut stream in slow {
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 408"), "{said}");
    }
}

/// Three copies side by side: more than the engine does in its ten seconds.
const LONG: &str = "SELECT count(*) FROM stats.messages_daily a, stats.messages_daily b, stats.messages_daily c \
                    WHERE a.epsilon + b.epsilon + c.epsilon < 0";

/// As long as this after it was asked [`LONG`] is certainly in work.
const IN_WORK: Duration = Duration::from_secs(5);
/// What came too late to tell anything is done again so often.
const ROUNDS: usize = 10;

/// Asks [`LONG`] twice where there is one place: who is refused says that the other has it. Gives the connection of the one in
/// work, and a moment before it was asked.
fn in_work(served: &Served, token: &str) -> (TcpStream, Instant) {
    for _ in 0..ROUNDS {
        let asked = Instant::now();
        let (told, going, said) = both_asked(served, token);
        if asked.elapsed() < IN_WORK {
            assert_eq!(told.refusal_code(), (429, "53300".to_owned()), "{}", told.text());
            assert!(said.is_empty(), "{}", String::from_utf8_lossy(&said));
            going.set_read_timeout(Some(PATIENCE)).expect("timeout");
            return (going, asked);
        }
        // Its own time may have been up before the other one came.
        drop(going);
        until("the place is free", || served.ask(&[token], "SELECT 1").status == 200);
    }
    panic!("two statements never came within {IN_WORK:?}");
}

/// What one of two askers was told, the other's connection, and what that one was told so far.
fn both_asked(served: &Served, token: &str) -> (Answer, TcpStream, Vec<u8>) {
    let asking = request(&served.http, "POST", "/v1/sql", &[token], &json!({ "sql": LONG }).to_string());
    let mut both = [(); 2].map(|()| {
        let mut stream = connect(&served.http);
        stream.write_all(asking.as_bytes()).expect("asks");
        stream.set_read_timeout(Some(Duration::from_millis(20))).expect("timeout");
        (stream, Vec::<u8>::new())
    });
    let (mut refused, mut buffer) = (None, [0; 4_096]);
    until("one of two is refused", || {
        for (at, (stream, said)) in both.iter_mut().enumerate() {
            match stream.read(&mut buffer) {
                Ok(0) => refused = refused.or(Some(at)),
                Ok(some) => said.extend_from_slice(&buffer[..some]),
                Err(_) => {}
            }
        }
        refused.is_some()
    });
    let [first, second] = both;
    let ((_, told), (going, said)) = if refused == Some(0) { (first, second) } else { (second, first) };
    (Answer::read(&told), going, said)
}

pub(crate) fn a_statement_ends_when_its_client_goes_and_when_its_time_is_up(house: &House) {
    let served = with_users(house, "statements = 1");
    let (lee, ivy) = (token(house, "lee"), token(house, "ivy"));
    let gone = || served.log().matches("a statement over HTTP was cancelled: its client has gone").count();
    let in_time = (0..ROUNDS).any(|_| {
        let (stream, asked) = in_work(&served, &lee);
        let before = gone();
        let (hers, anothers) = (served.ask(&[&lee], "SELECT 1"), served.ask(&[&ivy], "SELECT 1"));
        drop(stream);
        let in_time = asked.elapsed() < IN_WORK;
        if in_time {
            // There is no place for another of hers, and nobody else waits for it.
            assert_eq!(hers.refusal_code(), (429, "53300".to_owned()));
            assert_eq!(anothers.status, 200);
        }
        until("its place is free", || served.ask(&[&lee], "SELECT 1").status == 200);
        if in_time {
            until("it was cancelled", || gone() > before);
        }
        in_time
    });
    assert!(in_time, "the client never went while its statement was certainly in work");
    let before = gone();
    // Of itself it ends after its time.
    let late = served.ask(&[&lee], LONG);
    assert!(late.refusal() == (408, "57014".to_owned()) && late.text().contains("took longer than 10000 ms"), "{}", late.text());
    assert_eq!(gone(), before, "that one's was there");
    assert_eq!(served.ask(&[&lee], "SELECT 1").status, 200);
}

pub(crate) fn who_asks_or_follows_hears_that_the_server_stops(house: &House) {
    let mut served = with_users(house, "statements = 1");
    let (kim, ivy) = (token(house, "kim"), token(house, "ivy"));
    let mut following = connect(&served.http);
    following.write_all(request(&served.http, "GET", "/v1/alerts/stream", &[&ivy], "").as_bytes()).expect("follows");
    let (mut followed, mut buffer) = (Vec::<u8>::new(), [0; 65_536]);
    while !String::from_utf8_lossy(&followed).contains("event: alert") {
        let some = following.read(&mut buffer).expect("it is told something");
        assert_ne!(some, 0, "it goes on: {}", String::from_utf8_lossy(&followed));
        followed.extend_from_slice(&buffer[..some]);
    }
    let (mut asking, _) = in_work(&served, &kim);
    assert!(served.terminated().success(), "{}", served.log());
    let mut asked = Vec::new();
    asking.read_to_end(&mut asked).expect("the server closes");
    let told = Answer::read(&asked);
    // Its own time may be up first, on a machine that is slow to stop.
    assert!(matches!(told.refusal_code(), (503, code) if code == "57P01") || told.status == 408, "{}", told.text());
    following.read_to_end(&mut followed).expect("the server closes");
    assert!(Answer::read(&followed).text().contains("event: alert"));
}

pub(crate) fn a_stream_ends_with_the_session_it_was_opened_with(house: &House) {
    let served = with_users(house, "");
    let cookie = served.log_in("ivy");
    let follow = |headers: &[&str]| {
        let mut stream = connect(&served.http);
        stream.write_all(request(&served.http, "GET", "/v1/alerts/stream", headers, "").as_bytes()).expect("follows");
        stream
    };
    let (mut ending, mut staying) = (follow(&[&cookie]), follow(&[&token(house, "ivy")]));
    let mut first = [0; 64];
    ending.read_exact(&mut first).expect("begins");
    staying.read_exact(&mut first).expect("begins");
    assert_eq!(served.post("/v1/logout", &[&cookie, "X-Starling: 1"], "").status, 204);
    // It says "still here" as long as it goes on.
    ending.set_read_timeout(Some(std::time::Duration::from_millis(50))).expect("timeout");
    let (mut rest, mut buffer) = (first.to_vec(), [0; 65_536]);
    until("its stream ends", || match ending.read(&mut buffer) {
        Ok(0) => true,
        Ok(some) => {
            rest.extend_from_slice(&buffer[..some]);
            false
        }
        Err(_) => false,
    });
    assert!(Answer::read(&rest).text().contains("event: alert"));
    staying.set_read_timeout(Some(std::time::Duration::from_millis(50))).expect("timeout");
    let open = loop {
        match staying.read(&mut buffer) {
            Ok(0) => break false,
            Ok(_) => {}
            Err(_) => break true,
        }
    };
    assert!(open, "another's goes on");
}

pub(crate) fn the_console_is_its_files_and_nothing_else(house: &House) {
    let served = with_users(house, "");
    for path in [
        "/console/",
        "/console/../Cargo.toml",
        "/console/../../../../etc/passwd",
        "/console/%2e%2e/serve.rs",
        "/console/..%2f..%2fCargo.toml",
        "/console/%2Fetc%2Fpasswd",
        "/console/index.html%00.js",
        "/console/index.html/",
        "/console//index.html",
        "/console/INDEX.html",
        "/console/%ff",
        "/users.toml",
        "/.git/config",
        "//etc/passwd",
    ] {
        let answer = served.get(path, &[]);
        assert!(answer.status == 404 && answer.json()["code"] == "02000", "{path}: {} {}", answer.status, answer.text());
    }
    let page = served.get("/", &[]);
    assert!(page.text().contains("Starling") && page.header("content-type") == Some("text/html; charset=utf-8"));
    assert_eq!(page.body, served.get("/console/index.html", &[]).body);
    let mark = page.header("etag").expect("a mark").to_owned();
    let same = served.get("/", &[&format!("If-None-Match: {mark}")]);
    assert!(same.status == 304 && same.body.is_empty() && same.header("etag") == Some(&mark));
    assert_eq!(served.get("/", &["If-None-Match: \"other\""]).status, 200);
    // Every answer, whatever it says, tells browsers the same.
    for (method, path, headers) in [
        ("GET", "/", vec![]),
        ("GET", "/v1/me", vec![]),
        ("GET", "/v1/openapi.json", vec![]),
        ("GET", "/nowhere", vec![]),
        ("PUT", "/v1/sql", vec![]),
        ("POST", "/v1/login", vec!["Content-Type: text/plain"]),
    ] {
        let answer = send(&served.http, method, path, &headers, "");
        let header = |name: &str| answer.header(name).unwrap_or_else(|| panic!("{path}: {name}"));
        let policy = header("content-security-policy");
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"));
        assert_eq!((header("x-content-type-options"), header("referrer-policy")), ("nosniff", "no-referrer"));
        assert_eq!(header("cross-origin-resource-policy"), "same-origin", "{path}");
        assert!(matches!(header("cache-control"), "no-store" | "no-cache"), "{path}");
    }
}

pub(crate) fn a_login_that_waits_keeps_no_statement_waiting(house: &House) {
    let served = with_users(house, "");
    let token = token(house, "ada");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_ne!(served.log_in_with("ada", "wrong-horse-battery", &[]).status, 200));
        }
        for _ in 0..8 {
            assert_eq!(served.ask(&[&token], "SELECT 1").status, 200);
        }
    });
    assert_eq!(served.log_in_with("ada", PASSWORD, &[]).status, 200);
}

impl Answer {
    /// As [`Answer::refusal`], of an answer that may be none.
    fn refusal_code(&self) -> (u16, String) {
        if self.status < 400 { (self.status, String::new()) } else { self.refusal() }
    }
}
