//! Client certificates, as curl shows them.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::authority::{Authority, Shown};
use crate::client::until;
use crate::house::{House, Served};
use crate::support::starling;

pub(crate) fn curl_is_there() -> Result<(), String> {
    let found = Command::new("curl").arg("--version").output().is_ok_and(|output| output.status.success());
    if found { Ok(()) } else { Err("skipped: curl is not here; Debian: apt-get install curl".to_owned()) }
}

/// Status and body of what curl is answered with; status 0: there was no answer, and why.
fn curl(house: &House, served: &Served, shown: Option<&Shown>, path: &str, more: &[&str]) -> (u16, String) {
    let port = served.http.rsplit_once(':').expect("a port").1;
    let mut command = Command::new("curl");
    command
        .args(["--silent", "--show-error", "--noproxy", "*", "--write-out", "\n%{http_code}", "--cacert"])
        .arg(house.certificate().0);
    if let Some(Shown { certificate, key }) = shown {
        command.arg("--cert").arg(certificate).arg("--key").arg(key);
    }
    let output = command.args(more).arg(format!("https://localhost:{port}{path}")).output().expect("curl starts");
    let (said, why) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr).into_owned());
    let (body, status) = said.rsplit_once('\n').expect("a status");
    match status.parse().expect("a number") {
        0 => (0, why),
        status => (status, body.to_owned()),
    }
}

fn code(answer: &(u16, String)) -> (u16, String) {
    let body: Value = serde_json::from_str(&answer.1).unwrap_or_else(|_| panic!("no JSON: {answer:?}"));
    (answer.0, body["code"].as_str().unwrap_or_default().to_owned())
}

fn served(house: &House, authority: &Authority, users: &Path, wanted: &str) -> Served {
    let text = format!("[postgres]\nusers_file = {users:?}\n{}", authority.settings(house, &["serve"], wanted));
    Served::spawn_with(Served::command_with(house, &text), false)
}

pub(crate) fn a_certificate_lets_in_whose_it_is_and_nobody_else(house: &House) {
    let authority = Authority::new(house);
    let users = house.own_users("certified.toml");
    house.users_in(&users, &["certificate", "ada", "spiffe://flock.example/ada"]);
    house.users_in(&users, &["certificate", "aud", "aud.flock.example"]);
    assert!(house.users_in(&users, &["list"]).contains("spiffe://flock.example/ada"));
    let served = served(house, &authority, &users, "optional");
    let ask = |shown: &Shown, path: &str, more: &[&str]| curl(house, &served, Some(shown), path, more);
    let me = |shown: &Shown| ask(shown, "/v1/me", &[]);
    let ada = authority.certificate("ada", "URI:spiffe://flock.example/ada", "2", "clientAuth");
    let aud = authority.certificate("aud", "DNS:AUD.flock.example,DNS:other.example", "2", "clientAuth");
    for (shown, name, role) in [(&ada, "ada", "product"), (&aud, "aud", "auditor")] {
        let (status, body) = me(shown);
        let body: Value = serde_json::from_str(&body).unwrap_or_else(|_| panic!("{status} {body}"));
        assert_eq!((&body["name"], &body["role"], &body["way"]), (&name.into(), &role.into(), &"certificate".into()), "{body}");
    }
    // It sees what its role sees.
    assert_eq!((ask(&aud, "/v1/audit", &[]).0, code(&ask(&ada, "/v1/audit", &[]))), (200, (403, "42501".to_owned())));
    // A browser shows it of itself, so it is worth what a cookie is: nothing for another host's page, and nothing alone where something is done.
    let json = ["-H", "Content-Type: application/json", "-d", r#"{"sql":"SELECT 40 + 2"}"#];
    let own = ["-H", "X-Starling: 1"];
    assert_eq!(code(&ask(&ada, "/v1/sql", &json)), (403, "28000".to_owned()));
    assert!(ask(&ada, "/v1/sql", &[&json[..], &own].concat()).1.contains("[[42]]"));
    for foreign in ["Origin: https://evil.example", "Sec-Fetch-Site: cross-site"] {
        assert_eq!(code(&ask(&ada, "/v1/me", &["-H", foreign])), (403, "28000".to_owned()), "{foreign}");
        assert_eq!(ask(&ada, "/v1/sql", &[&json[..], &own, &["-H", foreign]].concat()).0, 403, "{foreign}");
    }
    // Good, and nobody's: of a name that nobody has, of a common name, of a wildcard that would fit, of two users.
    for (name, names) in [
        ("eve", "URI:spiffe://flock.example/eve"),
        ("case", "URI:spiffe://flock.example/ADA"),
        ("longer", "URI:spiffe://flock.example/ada/more"),
        ("aud.flock.example", ""),
        ("wild", "DNS:*.flock.example"),
        ("both", "URI:spiffe://flock.example/ada,DNS:aud.flock.example"),
    ] {
        let shown = authority.certificate(name, names, "2", "clientAuth");
        let answer = me(&shown);
        assert_eq!(code(&answer), (401, "28000".to_owned()), "{name}: {answer:?}");
        assert!(answer.1.contains("starling users certificate") && !answer.1.contains("flock"), "{answer:?}");
    }
    // Not good: TLS itself ends there, and the log says why without saying whose.
    for (shown, why) in [
        (authority.certificate("old", "URI:spiffe://flock.example/ada", "-1", "clientAuth"), "it has expired"),
        (authority.certificate("server", "URI:spiffe://flock.example/ada", "2", "serverAuth"), "it is not for clients"),
        (authority.signed("stranger", "other", "URI:spiffe://flock.example/ada", "2", "clientAuth"), "it is of no authority"),
    ] {
        let (status, told) = me(&shown);
        assert_eq!(status, 0, "{why}: {told}");
        // The client hears of it before the log does.
        until(why, || served.log().contains(why));
        let log = served.log();
        let line = log.lines().find(|line| line.contains(why)).unwrap_or_else(|| panic!("{why}: {log}"));
        assert!(line.contains("client certificates were refused") && !line.contains("flock"), "{line}");
        // Nor does a token help it.
        assert_eq!(curl(house, &served, Some(&shown), "/v1/me", &["-H", "Authorization: Bearer wrong"]).0, 0);
    }
    // Nobody has to have one, here; and a wrong token beside a right one is nobody's.
    assert_eq!(code(&curl(house, &served, None, "/v1/me", &[])), (401, "28000".to_owned()));
    assert_eq!(code(&ask(&ada, "/v1/me", &["-H", "Authorization: Bearer wrong"])), (401, "28000".to_owned()));
    let token = house.users_in(&users, &["token", "pia"]);
    let as_pia = ask(&ada, "/v1/me", &["-H", &format!("Authorization: Bearer {token}")]);
    assert!(as_pia.1.contains(r#""name":"pia""#), "who says who it is, is that: {as_pia:?}");
    // Its user's to the last: taken from it, given to another, or gone with it.
    house.users_in(&users, &["certificate", "ada", "--revoke"]);
    assert_eq!(me(&ada).0, 401);
    house.users_in(&users, &["certificate", "joe", "spiffe://flock.example/ada"]);
    assert!(me(&ada).1.contains(r#""name":"joe""#));
    house.users_in(&users, &["remove", "joe"]);
    assert_eq!(me(&ada).0, 401);
}

pub(crate) fn where_a_certificate_is_required_nothing_is_said_without_one(house: &House) {
    let authority = Authority::new(house);
    let users = house.own_users("required.toml");
    house.users_in(&users, &["certificate", "ada", "spiffe://flock.example/ada"]);
    let served = served(house, &authority, &users, "required");
    let ada = authority.certificate("ada", "URI:spiffe://flock.example/ada", "2", "clientAuth");
    assert_eq!(curl(house, &served, Some(&ada), "/v1/me", &[]).0, 200);
    for path in ["/livez", "/v1/me", "/"] {
        let (status, told) = curl(house, &served, None, path, &[]);
        assert_eq!(status, 0, "{path}: {told}");
    }
    until("the log says why", || served.log().contains("none was shown"));
    // What cannot be used ends the process; and one name is one user's.
    let refused = |file: &Path| {
        let (certificate, key) = house.certificate();
        let text =
            format!("[serve]\ntls_cert_file = {certificate:?}\ntls_key_file = {key:?}\n[tls]\nclient_ca_file = {file:?}\n");
        crate::support::fail(&mut Served::command_with(house, &text))
    };
    assert!(refused(Path::new("/nowhere/ca.pem")).contains("tls.client_ca_file /nowhere/ca.pem: cannot be read"));
    assert!(refused(&ada.key).contains("there is no certificate in it"));
    let command = |arguments: &[&str]| {
        let mut command = house.users_command(arguments);
        crate::support::fail(command.env("STARLING_POSTGRES__USERS_FILE", &users))
    };
    assert!(command(&["certificate", "joe", "spiffe://flock.example/ada"]).contains("somebody else has this certificate"));
    for bad in ["*.flock.example", "Ada", "", "a b", "ada\"x"] {
        assert!(command(&["certificate", "joe", bad]).contains("SUBJECT must be a URI"), "{bad}");
    }
    assert!(command(&["certificate", "joe", "--revoke"]).contains("joe has no certificate"));
    let twice = std::fs::read_to_string(&users)
        .expect("users")
        .replace("name = \"joe\"", "name = \"joe\"\ncertificate = \"spiffe://flock.example/ada\"");
    std::fs::write(&users, twice).expect("writes");
    assert!(command(&["list"]).contains("another one has the same certificate"));
    // The doctor says what is asked of clients.
    let settings = house.dir.path().join("doctor-clients.toml");
    let text = format!("{}[metrics]\nlisten = \"\"\n", authority.settings(house, &["serve"], "required"));
    std::fs::write(&settings, text).expect("writes");
    let mut doctor = starling();
    doctor.args(["doctor", "--config"]).arg(&settings).arg("--data-dir").arg(&house.data);
    doctor.env("STARLING_SERVE__LISTEN", "127.0.0.1:0");
    let told = crate::support::told(&doctor.output().expect("starts"));
    assert!(told.contains("clients must come with certificates of their own"), "{told}");
}
