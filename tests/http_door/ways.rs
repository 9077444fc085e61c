//! Sessions and tokens: how they begin, what they are good for, and how they end.

use std::io::Write as _;
use std::process::Stdio;

use serde_json::json;

use crate::client::{send, until};
use crate::doors::{token, with_users, without_users};
use crate::house::{House, PASSWORD, Served};
use crate::support::{fail, starling};

const OWN: &str = "X-Starling: 1";

/// A server over a users file of its own.
fn with_own_users(house: &House, file: &std::path::Path) -> Served {
    let text = format!("[postgres]\nusers_file = {:?}\n", file.display().to_string());
    Served::spawn_with(Served::command_with(house, &text), false)
}

pub(crate) fn a_session_is_made_by_a_login_and_by_nothing_else(house: &House) {
    let served = with_users(house, "");
    let planted = "Cookie: starling_session=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    assert_eq!(served.get("/v1/me", &[planted]).refusal(), (401, "28000".to_owned()));
    // Whoever logs in with a planted cookie gets another, and the planted one stays nobody's.
    let answer = served.log_in_with("ada", PASSWORD, &[planted]);
    let set = answer.header("set-cookie").expect("a cookie").to_owned();
    for part in ["HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=43200"] {
        assert!(set.contains(part), "{set}");
    }
    assert!(!set.contains("Secure") && !set.contains("Domain"), "clear text, on this machine: {set}");
    let me = answer.json();
    assert_eq!((&me["name"], &me["role"], &me["way"]), (&json!("ada"), &json!("product"), &json!("cookie")));
    let first = format!("Cookie: {}", answer.cookie());
    assert!(first.len() > 60 && !first.contains("AAAAAAAA"), "{first}");
    assert_eq!(served.get("/v1/me", &[planted]).status, 401);
    assert_eq!(served.get("/v1/me", &[&first]).json()["way"], "cookie");
    // Two of them are none, in one line or in two.
    let second = served.log_in("joe");
    let both = format!("{first}; {}", second.trim_start_matches("Cookie: "));
    assert_eq!(served.get("/v1/me", &[&both]).status, 401);
    assert_eq!(served.get("/v1/me", &[&first, &second]).status, 401);
    // A login ends the session that the browser had before.
    let again = served.log_in_with("ada", PASSWORD, &[&first]);
    assert_eq!((again.status, served.get("/v1/me", &[&first]).status), (200, 401));
    // A logout ends one, and nobody else's.
    let third = format!("Cookie: {}", again.cookie());
    assert_eq!(served.post("/v1/logout", &[&third], "").status, 403, "without the header it was somebody else's page");
    let out = served.post("/v1/logout", &[&third, OWN], "");
    assert!(out.status == 204 && out.header("set-cookie").unwrap().contains("Max-Age=0"));
    assert_eq!((served.get("/v1/me", &[&third]).status, served.get("/v1/me", &[&second]).status), (401, 200));
    // Another process knows none of them.
    let other = with_users(house, "");
    assert_eq!(other.get("/v1/me", &[&second]).status, 401);
}

pub(crate) fn a_wrong_password_and_an_unknown_name_look_the_same(house: &House) {
    let served = with_users(house, "");
    let long = "x".repeat(2_000);
    let mut told = Vec::new();
    for (name, password) in [("ada", "wrong-horse-battery"), ("nobody", PASSWORD), ("", ""), ("ada", &long), (&long, PASSWORD)] {
        let answer = served.log_in_with(name, password, &[]);
        assert!(answer.header("set-cookie").is_none());
        told.push((answer.status, answer.text()));
    }
    assert!(told[0].0 == 401 && told[0].1.contains("28P01"), "{told:?}");
    assert!(told.iter().all(|one| *one == told[0]), "{told:?}");
    for body in ["", "{", "[]", r#"{"name":"ada"}"#, r#"{"name":"ada","password":"x","more":1}"#, r#"{"name":7,"password":"x"}"#]
    {
        assert_eq!(served.post("/v1/login", &[], body).refusal(), (400, "22032".to_owned()), "{body}");
    }
    let form = served.post("/v1/login", &["Content-Type: application/x-www-form-urlencoded"], "name=ada&password=x");
    assert_eq!(form.refusal(), (400, "22032".to_owned()));
    // Many at once are held back, and none gets in for that.
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let tries: Vec<_> = (0..48)
            .map(|n| {
                let served = &served;
                scope.spawn(move || served.log_in_with("ada", &format!("wrong-horse-battery-{n}"), &[]).status)
            })
            .collect();
        tries.into_iter().map(|one| one.join().expect("answers")).collect()
    });
    assert!(statuses.iter().all(|status| matches!(status, 401 | 429)), "{statuses:?}");
    until("logins are taken again", || served.log_in_with("ada", PASSWORD, &[]).status == 200);
}

pub(crate) fn a_session_ends_with_its_user(house: &House) {
    let file = house.own_users("leaving.toml");
    let served = with_own_users(house, &file);
    let (leaver, changed, stays) = (served.log_in("joe"), served.log_in("eng"), served.log_in("pia"));
    let status = |cookie: &str| served.get("/v1/me", &[cookie]).status;
    house.users_in(&file, &["remove", "joe"]);
    assert_eq!((status(&leaver), status(&changed), status(&stays)), (401, 200, 200));
    assert_eq!(served.log_in_with("joe", PASSWORD, &[]).status, 401);
    house.users_in(&file, &["add", "eng", "--role", "product", "--team", "product", "--replace"]);
    assert_eq!((status(&changed), status(&stays)), (401, 200));
    // Who comes back under an old name is somebody else.
    house.users_in(&file, &["add", "joe", "--role", "auditor", "--team", "audit"]);
    assert_eq!(status(&leaver), 401);
    // Without the file nobody is anybody, and this machine's callers are not let in instead.
    let text = std::fs::read_to_string(&file).expect("users");
    std::fs::remove_file(&file).expect("removes");
    for headers in [vec![stays.as_str()], vec![]] {
        assert_eq!(served.get("/v1/me", &headers).refusal(), (503, "58030".to_owned()));
        assert_eq!(served.get("/v1/alerts", &headers).refusal(), (503, "58030".to_owned()));
    }
    std::fs::write(&file, text).expect("writes");
    assert_eq!(served.get("/v1/me", &[&stays]).status, 503, "others may read it");
    // Where there were none, the first one closes the door.
    let late = house.dir.path().join("late.toml");
    let served = with_own_users(house, &late);
    assert_eq!(served.get("/v1/me", &[]).json()["way"], "local");
    assert_eq!(served.log_in_with("ada", PASSWORD, &[]).refusal(), (401, "28000".to_owned()));
    house.users_in(&late, &["add", "ada", "--role", "product", "--team", "product"]);
    assert_eq!(served.get("/v1/me", &[]).status, 401);
    assert_eq!(served.get("/v1/me", &[&served.log_in("ada")]).status, 200);
}

pub(crate) fn a_token_is_good_until_it_ends_or_is_revoked(house: &House) {
    let file = house.own_users("revoked.toml");
    let served = with_own_users(house, &file);
    let bearer = |token: &str| format!("Authorization: Bearer {token}");
    let status = |token: &str| served.get("/v1/me", &[&bearer(token)]).refusal_or_ok();
    let first = house.users_in(&file, &["token", "aud"]);
    assert!(first.starts_with("starling_") && first.lines().count() == 1, "{first}");
    assert_eq!(status(&first), 200);
    let text = std::fs::read_to_string(&file).expect("users");
    assert!(!text.contains(&first) && text.contains("token_hash"), "the file keeps a hash");
    let second = house.users_in(&file, &["token", "aud", "--days", "7"]);
    assert_eq!((status(&first), status(&second)), (401, 200), "one a user");
    let listed = house.users_in(&file, &["list"]);
    assert!(listed.contains("token until") && !listed.contains(&second), "{listed}");
    house.users_in(&file, &["token", "aud", "--revoke"]);
    assert_eq!(status(&second), 401);
    // The day it ends on.
    let third = house.users_in(&file, &["token", "aud"]);
    assert_eq!(status(&third), 200);
    let text = std::fs::read_to_string(&file).expect("users");
    let ends = text.lines().find(|line| line.starts_with("token_ends")).expect("an end").to_owned();
    std::fs::write(&file, text.replace(&ends, "token_ends = \"2026-01-05T00:00:00Z\"")).expect("writes");
    assert_eq!(status(&third), 401);
    // With a new password comes no old token, and with a removed user none at all.
    let fourth = house.users_in(&file, &["token", "aud"]);
    house.users_in(&file, &["add", "aud", "--role", "auditor", "--team", "audit", "--replace"]);
    assert_eq!(status(&fourth), 401);
    let fifth = house.users_in(&file, &["token", "aud"]);
    house.users_in(&file, &["remove", "aud"]);
    assert_eq!(status(&fifth), 401);
    let none = fail(house.users_command(&["token", "aud"]).env("STARLING_POSTGRES__USERS_FILE", &file));
    assert!(none.contains("no such user"), "{none}");
    // What is no token at all, and a wrong one beside a right cookie.
    let cookie = served.log_in("ada");
    for wrong in ["Authorization: Bearer", "Authorization: Bearer wrong", "Authorization: Basic YWRhOng=", "Authorization: "] {
        assert_eq!(served.get("/v1/me", &[wrong]).status, 401, "{wrong}");
        assert_eq!(served.get("/v1/me", &[wrong, &cookie]).status, 401, "{wrong}");
    }
}

pub(crate) fn no_command_on_users_undoes_another(house: &House) {
    let file = house.own_users("changing.toml");
    let mut command = house.users_command(&["add", "newcomer", "--role", "product", "--team", "product"]);
    command.env("STARLING_POSTGRES__USERS_FILE", &file).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut adding = command.spawn().expect("starts");
    // So that it is at its password by then. If it is not, less is shown, and nothing wrong.
    std::thread::sleep(std::time::Duration::from_millis(500));
    house.users_in(&file, &["remove", "joe"]);
    writeln!(adding.stdin.take().expect("piped"), "{PASSWORD}").expect("it waits for that");
    assert!(adding.wait().expect("ends").success());
    let listed = house.users_in(&file, &["list"]);
    assert!(listed.contains("newcomer") && !listed.contains("joe"), "{listed}");
    // Whoever comes at the same time waits, and all that was done is there.
    let names = ["ada", "poor", "ivy", "pia", "eng", "aud", "amy", "lee"];
    std::thread::scope(|scope| {
        for name in names {
            let file = &file;
            scope.spawn(move || house.users_in(file, &["token", name]));
        }
    });
    let text = std::fs::read_to_string(&file).expect("users");
    assert_eq!(text.matches("token_hash").count(), names.len(), "{}", house.users_in(&file, &["list"]));
    let lock = std::fs::metadata(house.dir.path().join("changing.toml.lock")).expect("the lock");
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&lock.permissions()) & 0o077, 0);
}

pub(crate) fn a_cookie_counts_only_for_this_hosts_own_pages(house: &House) {
    let served = with_users(house, "");
    let cookie = served.log_in("ada");
    let own = format!("Origin: http://{}", served.http);
    let ask = |headers: &[&str]| served.ask(headers, "SELECT 4711").status;
    assert_eq!((ask(&[&cookie, OWN]), ask(&[&cookie, OWN, &own])), (200, 200));
    assert_eq!(ask(&[&cookie]), 403, "a form of another page cannot send the header");
    assert_eq!(ask(&[&cookie, "X-Starling: 0"]), 403);
    let evil =
        ["https://evil.example", "null", "http://127.0.0.1", "http://localhost", &format!("http://{}.evil.example", served.http)]
            .map(|origin| format!("Origin: {origin}"));
    for origin in &evil {
        assert_eq!(ask(&[&cookie, OWN, origin]), 403, "{origin}");
        assert_eq!(served.get("/v1/budget", &[&cookie, origin]).status, 403, "{origin}: not even to look");
        assert_eq!(served.log_in_with("ada", PASSWORD, &[origin]).status, 403, "{origin}: nobody is logged in from there");
    }
    // What a page has a browser fetch without asking bears no origin, and a page of another port is of the same site.
    for site in ["cross-site", "same-site"].map(|site| format!("Sec-Fetch-Site: {site}")) {
        assert_eq!(served.get("/v1/budget", &[&cookie, &site]).refusal(), (403, "28000".to_owned()), "{site}");
        assert_eq!(
            (ask(&[&cookie, OWN, &own, &site]), served.log_in_with("ada", PASSWORD, &[&site]).status),
            (403, 403),
            "{site}"
        );
    }
    for site in ["same-origin", "none"].map(|site| format!("Sec-Fetch-Site: {site}")) {
        assert_eq!(served.get("/v1/budget", &[&cookie, &site]).status, 200, "{site}");
    }
    // A token is not sent by a browser of itself.
    assert_eq!(ask(&[&token(house, "ada"), &evil[0], "Sec-Fetch-Site: cross-site"]), 200);
    // A page may not ask whether it may, either.
    let asked =
        ["Origin: https://evil.example", "Access-Control-Request-Method: POST", "Access-Control-Request-Headers: x-starling"];
    let preflight = send(&served.http, "OPTIONS", "/v1/sql", &asked, "");
    assert_eq!(preflight.status, 405);
    assert!(preflight.headers.iter().all(|(name, _)| !name.starts_with("access-control")), "{preflight:?}");
}

pub(crate) fn without_users_only_this_machines_own_names_are_answered_to(house: &House) {
    let served = without_users(house, "");
    let port = served.http.rsplit_once(':').expect("a port").1;
    for host in ["localhost", "127.0.0.1", "127.1.2.3", "[::1]", &format!("localhost:{port}")] {
        assert_eq!(served.get("/v1/me", &[&format!("Host: {host}")]).json()["way"], "local", "{host}");
    }
    for host in
        ["rebinding.example", "127.0.0.1.rebinding.example", "127.rebinding.example", "localhost.", "0.0.0.0", "[::ffff:7f00:1]"]
    {
        let host = format!("Host: {host}:{port}");
        for path in ["/v1/me", "/v1/alerts", "/v1/audit"] {
            let answer = served.get(path, &[&host]);
            assert!(answer.status == 403 && !answer.text().contains("fingerprint"), "{host}");
        }
        assert_eq!(served.post("/v1/sql", &[&host], r#"{"sql":"SELECT 4711"}"#).status, 403, "{host}");
    }
    // By its own name, and from another's page.
    for origin in ["https://evil.example", "null", "http://127.0.0.1"] {
        assert_eq!(served.ask(&[&format!("Origin: {origin}")], "SELECT 4711").status, 403, "{origin}");
    }
    let own = format!("Origin: http://{}", served.http);
    assert_eq!(served.ask(&[&own], "SELECT 4711").status, 200);
    // An image or a script of another's page has no origin, and yet is another's.
    for site in ["cross-site", "same-site"].map(|site| format!("Sec-Fetch-Site: {site}")) {
        for path in ["/v1/me", "/v1/alerts", "/v1/audit", "/v1/alerts/stream"] {
            let answer = served.get(path, &[&site, "Sec-Fetch-Mode: no-cors"]);
            assert_eq!(answer.refusal(), (403, "28000".to_owned()), "{site}: {path}");
            assert!(!answer.text().contains("fingerprint"), "{site}: {path}");
        }
        assert_eq!(served.ask(&[&own, &site], "SELECT 4711").status, 403, "{site}");
        assert_eq!(served.get("/", &[&site]).status, 200, "a link from there leads to the console");
    }
    for site in ["same-origin", "none"].map(|site| format!("Sec-Fetch-Site: {site}")) {
        assert_eq!(served.get("/v1/me", &[&site]).json()["way"], "local", "{site}");
    }
    // A form's bodies are none.
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
        let answer = served.post("/v1/sql", &[&format!("Content-Type: {kind}")], r#"{"sql":"SELECT 4711"}"#);
        assert!(answer.status == 400 && !answer.text().contains("4711"), "{kind}");
    }
    // Nobody is local who shows a token, or where there is one to show.
    assert_eq!(served.get("/v1/me", &["Authorization: Bearer wrong"]).status, 401);
    let file = house.dir.path().join("other-token");
    std::fs::write(&file, "correct-horse-battery-staple\n").expect("writes");
    let guarded = without_users(house, &format!("token_file = {:?}", file.display().to_string()));
    assert_eq!(guarded.get("/v1/me", &[]).status, 401);
    assert_eq!(guarded.get("/v1/me", &["Authorization: Bearer correct-horse-battery-staple"]).json()["way"], "service");
}

pub(crate) fn beyond_loopback_there_is_tls_and_somebody_to_let_in_or_no_door(house: &House) {
    let (certificate, key) = house.certificate();
    let path = |path: &std::path::Path| format!("{:?}", path.display().to_string());
    let tls = format!("tls_cert_file = {}\ntls_key_file = {}", path(&certificate), path(&key));
    let served = with_users(house, &tls);
    let port = served.http.rsplit_once(':').expect("a port").1.to_owned();
    // In clear text nothing is said there.
    let said = crate::client::knock(&served.http, b"GET /v1/me HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(!String::from_utf8_lossy(&said).contains("HTTP/1.1"), "{said:?}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let own = reqwest::Certificate::from_pem(&std::fs::read(&certificate).expect("certificate")).expect("PEM");
        let client = reqwest::Client::builder().add_root_certificate(own).build().expect("a client");
        let url = format!("https://localhost:{port}");
        let said = json!({ "name": "ada", "password": PASSWORD }).to_string();
        let login = client.post(format!("{url}/v1/login")).header("Content-Type", "application/json").body(said);
        let login = login.send().await.expect("answers");
        let cookie = login.headers()["set-cookie"].to_str().expect("text").to_owned();
        assert!(login.status() == 200 && cookie.contains("; Secure"), "{cookie}");
        let cookie = cookie.split(';').next().expect("a pair");
        let asked = client.post(format!("{url}/v1/sql")).header("Cookie", cookie).header("X-Starling", "1");
        let asked = asked.header("Origin", &url).header("Content-Type", "application/json").body(r#"{"sql":"SELECT 40 + 2"}"#);
        let answer = asked.send().await.expect("answers").text().await.expect("text");
        assert!(answer.contains("[[42]]"), "{answer}");
        // Whoever does not know the certificate is told no more than that.
        let stranger = reqwest::Client::new().get(&url).send().await;
        assert!(stranger.is_err());
    });
    // What cannot be used ends the process, before anybody is let in.
    let refused = |text: &str, listen: &str| {
        let settings = house.dir.path().join("refused-http.toml");
        std::fs::write(&settings, text).expect("writes");
        let mut command = starling();
        command.args(["serve", "--listen", listen, "--config"]).arg(&settings).arg("--data-dir").arg(&house.data);
        fail(command.env("STARLING_METRICS__LISTEN", ""))
    };
    let other = house.other_key();
    let wrong_key = format!("[serve]\ntls_cert_file = {}\ntls_key_file = {}\n", path(&certificate), path(&other));
    assert!(refused(&wrong_key, "127.0.0.1:0").contains("serve.tls_key_file"));
    assert!(refused("", "0.0.0.0:0").contains("clear text"));
    let nobody = format!("[postgres]\nusers_file = \"/nowhere/users.toml\"\n[serve]\n{tls}\n");
    assert!(refused(&nobody, "0.0.0.0:0").contains("starling users add"));
    let short = house.dir.path().join("short-token");
    std::fs::write(&short, "short\n").expect("writes");
    assert!(refused(&format!("[serve]\ntoken_file = {}\n", path(&short)), "127.0.0.1:0").contains("at least 24 characters"));
    let broken = house.dir.path().join("broken-users.toml");
    std::fs::copy(&short, &broken).expect("copies");
    succeed_chmod(&broken);
    assert!(refused(&format!("[postgres]\nusers_file = {}\n", path(&broken)), "127.0.0.1:0").contains("no list of users"));
    // The help says how somebody is let in.
    let help = crate::support::succeed(starling().args(["users", "token", "--help"]));
    assert!(help.contains("--revoke"), "{help}");
}

fn succeed_chmod(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("chmod");
}

impl crate::client::Answer {
    fn refusal_or_ok(&self) -> u16 {
        assert!(self.status == 200 || self.refusal().1 == "28000", "{}", self.text());
        self.status
    }
}
