//! Tokens of an identity provider: what they open, which is what a user's would, and what is none.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::client::{connect, request, send, until};
use crate::doors::{Doors, with_tokens};
use crate::house::{House, PASSWORD, Served};
use crate::log::entries;
use crate::provider::{AUDIENCE, Provider, claims, now_s, part};
use crate::rights::every_cell;
use crate::support::{starling, succeed};

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}")
}

/// A server that takes a provider's tokens, beside those of the users file.
fn served(house: &House, provider: &Provider) -> Served {
    served_with(house, &provider.settings())
}

fn served_with(house: &House, settings: &str) -> Served {
    Served::spawn_with(Served::command_with(house, &format!("[postgres]\n{}\n{settings}", with_tokens(house))), false)
}

pub(crate) fn p32_p33_a_token_of_the_provider_enters_what_its_role_enters_and_no_more(house: &House) {
    let provider = Provider::start();
    let doors = Doors::open(house);
    let served = served(house, &provider);
    every_cell(house, &doors, 2, &["product", "privacy", "integrity", "engineer", "auditor", "billing"], |role| {
        let team = if role == "auditor" { "audit" } else { role };
        (served.http.clone(), Some(bearer(&provider.token_of(&format!("{role}-person"), role, team))))
    });
    // It is told who it is, and what it may see, as a user of that role.
    let me = |token: &str| served.get("/v1/me", &[&bearer(token)]).json();
    for (kid, role) in [("rsa", "product"), ("ec", "auditor"), ("ed", "integrity")] {
        let me = me(&provider.token(kid, &claims("ada", role, "growth")));
        let seen = (&me["name"], &me["role"], &me["team"], &me["way"]);
        assert_eq!(seen, (&json!("ada@id.example.com"), &json!(role), &json!("growth"), &json!("oidc")), "{me}");
    }
    let users = served.get("/v1/me", &[&crate::doors::token(house, "ada")]).json();
    let theirs = me(&provider.token_of("ada", "product", "product"));
    assert_eq!((&users["may"], &users["way"]), (&theirs["may"], &json!("token")), "users go on beside it");
    // Refused in the same words.
    for sql in ["SELECT count(*) FROM integrity.alerts", "SELECT count(*) FROM c4n4ry", "DROP TABLE stats.calls_daily"] {
        let ours = served.ask(&[&crate::doors::token(house, "ada")], sql);
        let theirs = served.ask(&[&bearer(&provider.token_of("ada", "product", "product"))], sql);
        assert_eq!((ours.status, ours.text()), (theirs.status, theirs.text()), "{sql}");
        assert!(ours.status >= 400, "{sql}");
    }
}

pub(crate) fn what_is_no_token_of_the_provider_is_nobodys(house: &House) {
    let provider = Provider::start();
    let served = served(house, &provider);
    let good = claims("ada", "product", "growth");
    let refusal = |token: &str| {
        let answer = served.get("/v1/me", &[&bearer(token)]);
        assert!(!answer.text().contains("c4n4ry"), "{}", answer.text());
        if answer.status == 200 { (200, String::new()) } else { answer.refusal() }
    };
    assert_eq!(refusal(&provider.token("rsa", &good)).0, 200);
    let nobody = (401, "28000".to_owned());
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        provider.token("rsa", &claims)
    };
    for (what, token) in [
        ("wrong audience", with("aud", json!("c4n4ry"))),
        ("wrong issuer", with("iss", json!("https://c4n4ry.example"))),
        ("expired", with("exp", json!(now_s() - 31))),
        ("not good yet", with("nbf", json!(now_s() + 120))),
        ("good for ever", with("exp", json!(now_s() + 1_000_000))),
        ("no end", with("exp", json!(null))),
        ("nobody", with("sub", json!(null))),
        ("huge", with("more", json!("x".repeat(9_000)))),
    ] {
        assert_eq!(refusal(&token), nobody, "{what}");
    }
    // What is signed and gives no role that there is here is known and let into nothing.
    for role in [json!("root"), json!("local"), json!(["product"]), json!(1), json!(null)] {
        assert_eq!(refusal(&with("starling_role", role.clone())), (403, "42501".to_owned()), "{role}");
    }
    assert_eq!(refusal(&with("starling_team", json!("'; c4n4ry"))), (403, "42501".to_owned()));
    // Unsigned, signed with the public key as a secret, by another key, and changed afterwards.
    let body = part(good.to_string());
    let mut forged = Vec::new();
    for algorithm in ["none", "None", "HS256", "RS512", "PS256"] {
        let message = format!("{}.{body}", part(json!({ "alg": algorithm, "kid": "rsa" }).to_string()));
        forged.push(format!("{message}."));
        for name in ["n", "e"] {
            let public = provider.jwk("rsa")[name].as_str().expect("text").to_owned();
            let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, public.as_bytes());
            forged.push(format!("{message}.{}", part(ring::hmac::sign(&key, message.as_bytes()))));
        }
    }
    for head in [
        json!({ "alg": "EdDSA", "kid": "rsa" }),
        json!({ "alg": "ES256", "kid": "ed" }),
        json!({ "alg": "EdDSA", "kid": "c4n4ry" }),
        json!({ "alg": "EdDSA" }),
        json!({ "alg": "EdDSA", "kid": "ed", "crit": ["exp"] }),
        json!({ "alg": "EdDSA", "kid": "ed", "typ": "logout+jwt" }),
        json!({ "alg": "EdDSA", "kid": "own", "jwk": provider.jwk("ed") }),
    ] {
        forged.push(provider.signed(&head, &good.to_string()));
    }
    let twice = good.to_string().replacen('{', r#"{"starling_role":"auditor","#, 1);
    forged.push(provider.signed(&json!({ "alg": "EdDSA", "kid": "ed" }), &twice));
    let token = provider.token("ec", &good);
    let parts: Vec<&str> = token.split('.').collect();
    forged.push(format!("{}.{}.{}", parts[0], part(good.to_string().replace("product", "auditor")), parts[2]));
    forged.push("..".to_owned());
    forged.push(format!("{}.{}.{}", "A".repeat(10_000), "A", "A"));
    assert!(forged.len() > 20);
    for token in &forged {
        assert_eq!(refusal(token), nobody, "{token}");
    }
    // A wrong token is nobody's beside a right cookie, too; and none is a password.
    let cookie = served.log_in("ada");
    assert_eq!(served.get("/v1/me", &[&cookie, &bearer(&forged[0])]).status, 401);
    assert_eq!(served.log_in_with("ada", &provider.token("rsa", &good), &[]).refusal(), (401, "28P01".to_owned()));
}

pub(crate) fn keys_are_turned_over_without_a_restart_and_a_provider_that_is_down_keeps_nobody_out(house: &House) {
    let provider = Provider::start();
    provider.publish(&["rsa"]);
    let served = served(house, &provider);
    let status = |kid: &str| served.get("/v1/me", &[&bearer(&provider.token(kid, &claims("ada", "product", "growth")))]).status;
    assert_eq!(provider.asked(), 0, "it is asked when the first token comes");
    assert_eq!((status("rsa"), provider.asked()), (200, 1));
    // Names of keys as anybody can make them up do not become requests.
    for n in 0..20 {
        let head = json!({ "alg": "EdDSA", "kid": format!("made-up-{n}") });
        let token = provider.signed(&head, &claims("ada", "product", "growth").to_string());
        assert_eq!(served.get("/v1/me", &[&bearer(&token)]).status, 401);
    }
    assert_eq!((status("ed"), provider.asked()), (401, 1));
    provider.publish(&["rsa", "ed"]);
    // Once a minute: it takes that long.
    until("the new key is known", || status("ed") == 200);
    assert_eq!((status("rsa"), status("ed"), provider.asked()), (200, 200, 2));
    provider.set_down(true);
    until("it is asked for a key that is not known", || status("ec") == 401 && provider.asked() == 3);
    assert_eq!((status("rsa"), status("ed"), status("ec")), (200, 200, 401), "known keys go on, others are refused");
    // Who hangs up while it is asked takes the answer from nobody else.
    let slow = Provider::start();
    slow.set_slow(true);
    let waiting = served_with(house, &slow.settings());
    let mut hasty = connect(&waiting.http);
    let token = bearer(&slow.token_of("ada", "product", "growth"));
    hasty.write_all(request(&waiting.http, "GET", "/v1/me", &[&token], "").as_bytes()).expect("asks");
    until("it is asked", || slow.asked() == 1);
    drop(hasty);
    assert_eq!((waiting.get("/v1/me", &[&token]).status, slow.asked()), (200, 1));
    // One that was down from the start lets nobody in, and says so in the log.
    let other = Provider::start();
    other.set_down(true);
    let dark = served_with(house, &other.settings());
    let token = bearer(&other.token_of("ada", "product", "growth"));
    assert_eq!(dark.get("/v1/me", &[&token]).refusal(), (401, "28000".to_owned()));
    assert!(dark.log().contains("cannot be fetched") && dark.log().contains("HTTP 503"), "{}", dark.log());
    assert_eq!(dark.get("/v1/me", &[&crate::doors::token(house, "ada")]).status, 200, "users go on");
}

/// A server of files over TLS; ended by id when it goes out of scope.
struct Secure(Child, u16);

impl Secure {
    fn start(house: &House, folder: &std::path::Path) -> Self {
        let (certificate, key) = house.certificate();
        let mut command = Command::new("openssl");
        command.args(["s_server", "-WWW", "-accept", "127.0.0.1:0", "-cert"]).arg(&certificate);
        command.arg("-key").arg(&key).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("openssl starts");
        // It says where it listens: "ACCEPT 127.0.0.1:40113".
        let mut said = BufReader::new(child.stdout.take().expect("piped")).lines();
        let port =
            said.by_ref().map_while(Result::ok).find_map(|line| line.strip_prefix("ACCEPT ")?.rsplit_once(':')?.1.parse().ok());
        // What it goes on to say is read, so that it never waits for a reader.
        std::thread::spawn(move || said.for_each(drop));
        Self(child, port.expect("openssl listens"))
    }
}

impl Drop for Secure {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn keys_come_from_a_file_or_over_https_from_who_can_be_trusted(house: &House) {
    let provider = Provider::start();
    let folder = tempfile::tempdir_in(house.dir.path()).expect("dir");
    let keys = folder.path().join("keys.json");
    let write = |kids: &[&str]| {
        let set: Vec<Value> = kids.iter().map(|kid| provider.jwk(kid)).collect();
        std::fs::write(&keys, json!({ "keys": set }).to_string()).expect("writes");
    };
    write(&["rsa"]);
    let token = bearer(&provider.token_of("ada", "product", "growth"));
    let start = |lines: &str| {
        let issuer = provider.settings().lines().filter(|line| !line.starts_with("keys_url")).collect::<Vec<_>>().join("\n");
        served_with(house, &format!("{issuer}\n{lines}\n"))
    };
    let from_file = start(&format!("keys_file = {:?}", keys.display().to_string()));
    let status = |served: &Served| served.get("/v1/me", &[&token]).status;
    assert_eq!(status(&from_file), 200);
    write(&["ed"]);
    assert_eq!(status(&from_file), 401, "a key that is taken out is good for nothing at once");
    std::fs::write(&keys, "nonsense").expect("writes");
    assert_eq!(from_file.get("/v1/me", &[&token]).refusal(), (503, "58030".to_owned()));
    write(&["rsa"]);
    let secure = Secure::start(house, folder.path());
    let address = format!("keys_url = \"https://localhost:{}/keys.json\"", secure.1);
    let trusted = start(&format!("{address}\nkeys_ca_file = {:?}", house.certificate().0.display().to_string()));
    assert_eq!(status(&trusted), 200, "{}", trusted.log());
    let stranger = start(&address);
    assert_eq!(status(&stranger), 401, "this machine does not know that certificate");
    assert!(stranger.log().contains("cannot be fetched: "), "{}", stranger.log());
    assert_eq!(provider.asked(), 0);
}

pub(crate) fn a_stream_ends_with_the_token_that_opened_it(house: &House) {
    let provider = Provider::start();
    let served = served(house, &provider);
    let mut short = claims("ivy", "integrity", "integrity");
    short["exp"] = json!(now_s() + 5);
    let follow = |token: &str| {
        let mut stream = connect(&served.http);
        let asked = request(&served.http, "GET", "/v1/alerts/stream", &[&bearer(token)], "");
        stream.write_all(asked.as_bytes()).expect("follows");
        let mut first = [0; 64];
        stream.read_exact(&mut first).expect("begins");
        assert!(String::from_utf8_lossy(&first).starts_with("HTTP/1.1 200"), "{}", String::from_utf8_lossy(&first));
        stream.set_read_timeout(Some(std::time::Duration::from_millis(50))).expect("timeout");
        stream
    };
    let (mut ending, mut staying) =
        (follow(&provider.token("ed", &short)), follow(&provider.token_of("ivy", "integrity", "integrity")));
    let mut buffer = [0; 65_536];
    until("its stream ends", || matches!(ending.read(&mut buffer), Ok(0)));
    assert!(now_s() >= short["exp"].as_u64().expect("an end"), "not before it");
    let open = loop {
        match staying.read(&mut buffer) {
            Ok(0) => break false,
            Ok(_) => {}
            Err(error) => break matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
        }
    };
    assert!(open, "another's goes on");
}

pub(crate) fn p40_who_comes_with_a_token_stands_in_the_log_and_nothing_else_of_the_token_does(house: &House) {
    let provider = Provider::start();
    let text = format!("[postgres]\n{}\n{}", with_tokens(house), provider.settings());
    let mut command = Served::command_with(house, &text);
    command.args(["--log", "trace"]);
    let served = Served::spawn_with(command, false);
    let mut own = claims("sue", "product", "growth");
    own["email"] = json!("c4n4ry@example.com");
    own["phone_number"] = json!("+49151c4n4ry");
    let token = provider.token("rsa", &own);
    let numbered = provider.token_of("4915112345678", "integrity", "integrity");
    assert_eq!(served.ask(&[&bearer(&token)], "SELECT count(*) FROM stats.calls_daily").status, 200);
    let opaque = provider.token_of("auth0|5f7c8ec7c33c6c004bbafe82", "integrity", "integrity");
    assert_eq!(served.get("/v1/alerts", &[&bearer(&opaque)]).status, 200);
    assert_eq!(served.get("/v1/alerts", &[&bearer(&numbered)]).refusal(), (403, "42501".to_owned()), "its hash could be tried");
    served.get("/v1/me", &[&bearer(&token[..token.len() - 9])]);
    let aud = crate::doors::token(house, "aud");
    let reads = entries(&served, &aud, "sql_read");
    let of_sue = |entry: &Value| {
        let reads = entry["detail"]["reads"].as_array().cloned().unwrap_or_default();
        reads.iter().any(|read| read["user"] == "sue@id.example.com" && read["role"] == "product" && read["team"] == "growth")
    };
    assert!(reads.iter().any(of_sue), "{reads:?}");
    let name = served.get("/v1/me", &[&bearer(&opaque)]).json()["name"].as_str().expect("a name").to_owned();
    assert!(name.ends_with("@id.example.com") && !name.contains("5f7c8ec7c33c6c004bbafe82"), "{name}");
    assert!(entries(&served, &aud, "integrity_read").iter().any(|entry| entry["who"] == json!(name)));
    let audit = succeed(starling().args(["audit", "tail", "--lines", "100000", "--data-dir"]).arg(&house.data));
    let log = served.log();
    assert!(log.contains("were fetched") && log.contains("DEBUG"), "it says a lot: {log}");
    let signature = |token: &str| token.rsplit('.').next().expect("a part").to_owned();
    for secret in [
        "c4n4ry".to_owned(),
        "4915112345678".to_owned(),
        "5f7c8ec7c33c6c004bbafe82".to_owned(),
        signature(&token),
        signature(&numbered),
        part(own.to_string()),
    ] {
        for text in [&log, &audit] {
            let line = text.lines().find(|line| line.contains(&secret));
            assert!(line.is_none(), "{secret}: {}", line.unwrap_or_default());
        }
    }
}

pub(crate) fn with_a_provider_and_no_users_nobody_is_local(house: &House) {
    let provider = Provider::start();
    let nowhere = house.dir.path().join("no-users.toml");
    let text = format!("[postgres]\nusers_file = {:?}\n{}", nowhere.display().to_string(), provider.settings());
    let served = Served::spawn_with(Served::command_with(house, &text), false);
    for path in ["/v1/me", "/v1/alerts", "/v1/audit"] {
        assert_eq!(served.get(path, &[]).refusal(), (401, "28000".to_owned()), "{path}");
    }
    let token = bearer(&provider.token_of("ada", "product", "growth"));
    assert_eq!(served.get("/v1/me", &[&token]).json()["way"], "oidc");
    assert_eq!(served.log_in_with("ada", PASSWORD, &[]).status, 401);
    assert_eq!(
        send(&served.http, "GET", "/v1/me", &[&token, "Sec-Fetch-Site: cross-site"], "").status,
        200,
        "no browser sends it of itself"
    );
    // The doctor tells of it, and what cannot be used ends the process before anybody is let in.
    let settings = house.dir.path().join("oidc.toml");
    let doctor = |text: &str| {
        std::fs::write(&settings, format!("[serve]\nlisten = \"127.0.0.1:0\"\n[metrics]\nlisten = \"\"\n{text}"))
            .expect("writes");
        let output = starling().args(["doctor", "--config"]).arg(&settings).arg("--data-dir").arg(&house.data).output();
        crate::support::told(&output.expect("starts"))
    };
    let told = doctor(&provider.settings());
    assert!(told.contains("tokens of https://id.example.com/realms/flock are taken"), "{told}");
    let broken =
        format!("[oidc]\nissuer = \"https://id.example.com\"\naudience = {AUDIENCE:?}\nkeys_file = \"/nowhere/keys.json\"\n");
    let told = doctor(&broken);
    assert!(told.lines().any(|line| line.starts_with("FAIL") && line.contains("oidc.keys_file /nowhere/keys.json")), "{told}");
    let failed = crate::support::fail(&mut Served::command_with(house, &broken));
    assert!(failed.contains("oidc.keys_file"), "{failed}");
}
