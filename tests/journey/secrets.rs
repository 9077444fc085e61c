//! I4 for the operator's own secrets: passwords of Kafka from each place that they may come from, looked for in everything that is said, with logs
//! at trace level and all of librdkafka's debugging on. `tests/real_kafka/secured.rs` does the same against a broker that answers.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::leaks::{base64_alignments, hex};
use crate::support::{files_below, starling, told};

/// (where from, setting, secret)
const SECRETS: [(&str, &str, &str); 3] = [
    ("settings file", "sasl.password", "canary-Wk3pTq81-settings"),
    ("file of its own", "ssl.key.password", "canary-Zr7mLs52-ownfile"),
    ("environment", "ssl.keystore.password", "canary-Hd9vBx64-environment"),
];

fn needles() -> Vec<(String, Vec<u8>)> {
    let mut out = Vec::new();
    for (place, _, secret) in SECRETS {
        // The part that is like nothing else; the words around it stand in this file's settings too.
        let part = &secret[..15];
        out.push((format!("{place}, plain"), part.as_bytes().to_vec()));
        out.push((format!("{place}, hex"), hex(part.as_bytes()).into_bytes()));
        out.push((format!("{place}, reversed"), part.bytes().rev().collect()));
        out.push((format!("{place}, utf-16"), part.encode_utf16().flat_map(u16::to_le_bytes).collect()));
        out.extend(base64_alignments(part.as_bytes()).map(|b| (format!("{place}, base64"), b)));
    }
    out
}

fn leaks(haystack: &[u8], where_from: &str) -> Vec<String> {
    let found = needles().into_iter().filter(|(_, needle)| haystack.windows(needle.len()).any(|w| w == needle));
    found.map(|(name, _)| format!("{where_from} tells the secret from the {name}")).collect()
}

/// The executable with all three secrets, at a port where nobody listens.
fn with_secrets(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = starling();
    command.args(["--log", "trace", "--config"]).arg(dir.join("starling.toml")).arg("--data-dir").arg(dir.join("data"));
    command.args(arguments).env("STARLING_KAFKA__PROPERTIES__SSL_KEYSTORE_PASSWORD", SECRETS[2].2).env("RUST_BACKTRACE", "full");
    command
}

fn write_settings(dir: &Path, more: &str) {
    std::fs::write(dir.join("key.password"), format!("{}\n", SECRETS[1].2)).expect("secret");
    let text = format!(
        "[kafka]\nbrokers = \"127.0.0.1:1\"\n[kafka.properties]\nsecurity.protocol = \"SASL_SSL\"\nsasl.mechanism = \"SCRAM-SHA-512\"\n\
         sasl.username = \"starling\"\nsasl.password = \"{}\"\ndebug = \"all\"\n[kafka.property_files]\nssl.key.password = \"{}\"\n{more}",
        SECRETS[0].2,
        dir.join("key.password").display()
    );
    std::fs::write(dir.join("starling.toml"), text).expect("settings");
}

#[test]
fn i4_no_password_is_told_by_any_command() {
    let dir = tempfile::tempdir().expect("dir");
    write_settings(dir.path(), "");
    let mut found = Vec::new();
    let mut all = String::new();
    for arguments in [
        &["config", "show"][..],
        &["config", "check"],
        &["doctor"],
        &["status"],
        &["simulate", "--people", "1000", "--topic", "t"],
    ] {
        let text = told(&with_secrets(dir.path(), arguments).output().expect("starts"));
        found.extend(leaks(text.as_bytes(), &arguments.join(" ")));
        all.push_str(&text);
    }
    // What is said about them: that they are set, and what is wrong.
    assert!(all.contains("\"sasl.password\" = \"(set, not shown)\""), "config show names what is set");
    assert!(all.contains("no broker can be reached"), "doctor and simulate say what is wrong");
    assert!(all.contains("[redacted]"), "librdkafka's debugging was on: it prints its settings");
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn i4_no_password_is_told_by_a_job_that_runs() {
    let dir = tempfile::tempdir().expect("dir");
    write_settings(dir.path(), "");
    let log = std::fs::File::create(dir.path().join("log")).expect("log");
    let mut job = with_secrets(dir.path(), &["ingest"]).stdout(Stdio::null()).stderr(log).spawn().expect("starts");
    let said = || std::fs::read(dir.path().join("log")).unwrap_or_default();
    let until = Instant::now() + Duration::from_secs(120);
    while !String::from_utf8_lossy(&said()).contains("Connection refused") && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(100));
    }
    let mut found = Vec::new();
    if cfg!(target_os = "linux") {
        let shown = std::fs::read(format!("/proc/{}/cmdline", job.id())).expect("its arguments");
        assert!(String::from_utf8_lossy(&shown).contains("ingest"));
        found.extend(leaks(&shown, "the list of processes"));
    }
    job.kill().expect("ends");
    let _ = job.wait();
    assert!(String::from_utf8_lossy(&said()).contains("Connection refused"), "it tried to connect");
    found.extend(leaks(&said(), "ingest"));
    for file in files_below(&dir.path().join("data")) {
        found.extend(leaks(&std::fs::read(&file).unwrap_or_default(), &file.display().to_string()));
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_setting_that_is_refused_is_told_without_its_value() {
    let dir = tempfile::tempdir().expect("dir");
    // A password where the name of a mechanism belongs, one where a number belongs, and a password that is no text.
    for (more, names) in [
        ("[kafka.properties]\nsecurity.protocol = \"SECRET\"\n", "security.protocol"),
        ("[kafka.properties]\nlinger.ms = \"SECRET\"\n", "linger.ms"),
        ("[kafka.properties]\nno.such.setting = \"SECRET\"\n", "no.such.setting"),
        ("[kafka.properties]\nsasl.password = [\"SECRET\"]\n", "sasl.password"),
        ("[kafka]\nsasl_password = \"SECRET\"\n", "sasl_password"),
    ] {
        let secret = SECRETS[0].2;
        let text = more.replace("SECRET", secret);
        let text = if text.starts_with("[kafka]") { text } else { format!("[kafka]\nbrokers = \"127.0.0.1:1\"\n{text}") };
        std::fs::write(dir.path().join("starling.toml"), text).expect("settings");
        for arguments in
            [&["doctor"][..], &["ingest"], &["simulate", "--people", "1000", "--topic", "t", "--brokers", "127.0.0.1:1"]]
        {
            let output = with_secrets(dir.path(), arguments).output().expect("starts");
            assert!(!output.status.success(), "{arguments:?} takes {more}");
            let text = told(&output);
            assert!(text.contains(names), "{arguments:?}: {text}");
            assert!(leaks(text.as_bytes(), names).is_empty(), "{arguments:?}: {text}");
        }
    }
}

#[test]
fn a_planted_password_is_found() {
    for (_, _, secret) in SECRETS {
        assert!(!leaks(format!("password is {secret}!").as_bytes(), "x").is_empty());
        assert!(!leaks(format!("{:?}", hex(secret.as_bytes())).as_bytes(), "x").is_empty());
    }
}
