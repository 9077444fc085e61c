//! The executable against a broker that insists on TLS and passwords, and what is told when they are wrong.

use std::path::Path;

use crate::support::{files_below, people, run_trace, simulate, starling, status, succeed, told, with_known_keys};
use crate::{Brokers, Stopped, events_committed, wait_for};

/// Settings for `listener` with the user's password from a file, and all of librdkafka's debugging.
fn settings(dir: &Path, name: &str, brokers: &str, user: &str, password: &Path, ca: &Path) -> std::path::PathBuf {
    let path = dir.join(name);
    let text = format!(
        "[kafka]\nbrokers = \"{brokers}\"\n[kafka.properties]\nsecurity.protocol = \"SASL_SSL\"\nsasl.mechanism = \"SCRAM-SHA-512\"\n\
         sasl.username = \"{user}\"\nssl.ca.location = \"{}\"\nbroker.address.family = \"v4\"\ndebug = \"security,broker,conf\"\n\
         [kafka.property_files]\nsasl.password = \"{}\"\n[signals]\ntransport = \"kafka\"\n[serve]\nlisten = \"127.0.0.1:0\"\n",
        ca.display(),
        password.display()
    );
    std::fs::write(&path, text).expect("settings");
    path
}

pub(crate) fn i9_i4_a_secured_broker_gives_the_same_rows_and_no_password_is_told() {
    let dir = tempfile::tempdir().expect("dir");
    let brokers = Brokers::start_with(&dir.path().join("kafka"), "sasl_ssl");
    let tls = dir.path().join("kafka/tls");
    let listener = brokers.answer("sasl_ssl");
    let password = tls.join("admin.password");
    let wrong = dir.path().join("wrong.password");
    std::fs::write(&wrong, "canary-Qx5nRt37-wrong\n").expect("password");
    #[cfg(unix)]
    std::fs::set_permissions(&wrong, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("mode");
    let good = settings(dir.path(), "good.toml", &listener, "admin", &password, &tls.join("ca.pem"));

    let (trace, truth) = simulate(dir.path(), 1_000, 1, 31, &[]);
    let undisturbed = dir.path().join("undisturbed");
    with_known_keys(&undisturbed);
    run_trace(&trace, &undisturbed);
    let data = dir.path().join("data");
    with_known_keys(&data);
    for topic in ["integrity.signals", "integrity.alerts"] {
        starling_ingest::create_topic(&brokers.bootstrap, topic, 4).expect("topic");
    }
    let at = |settings: &Path, arguments: &[&str]| {
        let mut command = starling();
        command.args(["--log", "trace"]).args(arguments).arg("--config").arg(settings).arg("--data-dir").arg(&data);
        command
    };
    let mut all_told = String::new();
    all_told.push_str(&told(&at(&good, &["replay", "--topic", "events"]).arg(&trace).output().expect("starts")));
    let log = dir.path().join("ingest.log");
    let ingest = Stopped::spawn(&mut at(&good, &["ingest"]), &log);
    if cfg!(target_os = "linux") {
        all_told.push_str(&std::fs::read_to_string(format!("/proc/{}/cmdline", ingest.0.id())).expect("its arguments"));
    }
    let total = truth["frames"].as_u64().expect("frames");
    wait_for("all events", || events_committed(&data) >= total);
    ingest.stop();
    all_told.push_str(&std::fs::read_to_string(&log).expect("log"));
    assert!(all_told.contains("Authenticated as admin"), "the log was at its most talkative");
    succeed(&mut at(&good, &["close", "--all"]));
    assert_eq!(people(&data), people(&undisturbed), "I9: person rows");
    assert_eq!(status(&data)["unbalanced"], serde_json::json!([]), "I1");

    // The doctor: all well, and then each thing that is wrong, in its own words.
    let stranger = tls.join("stranger.password");
    let (ca, other_ca) = (tls.join("ca.pem"), tls.join("other-ca.pem"));
    let by_number = listener.replace("localhost", "127.0.0.1");
    let mut faults = String::new();
    for (name, brokers, user, password, ca, good, words) in [
        ("good", &listener, "admin", &password, &ca, true, "topic `events` may be read; it has 4 partitions"),
        ("wrong password", &listener, "admin", &wrong, &ca, false, "the user or the password is refused"),
        ("unknown authority", &listener, "admin", &password, &other_ca, false, "signed by no authority that is known here"),
        ("another name", &by_number, "admin", &password, &ca, false, "was made for another host name"),
        ("no TLS there", &brokers.bootstrap, "admin", &password, &ca, false, "does not answer to `security.protocol"),
        ("no rule", &listener, "stranger", &stranger, &ca, false, "the access rules do not let this user use the topic"),
        ("no such file", &listener, "admin", &dir.path().join("none"), &ca, false, "cannot be read"),
    ] {
        let settings = settings(dir.path(), "doctor.toml", brokers, user, password, ca);
        let output = at(&settings, &["doctor"]).output().expect("starts");
        let text = told(&output);
        assert_eq!(output.status.success(), good, "{name}: {text}");
        assert!(text.contains(words), "{name}: {text}");
        for line in String::from_utf8_lossy(&output.stdout).lines().filter(|l| l.starts_with("FAIL")) {
            faults.push_str(&format!("{name}\n  {line}\n"));
        }
        all_told.push_str(&text);
    }
    // No authority in the settings: those that OpenSSL's own variable names.
    let text = std::fs::read_to_string(&good).expect("settings");
    let unnamed = dir.path().join("unnamed.toml");
    let without: String = text.lines().filter(|l| !l.starts_with("ssl.ca.location")).map(|l| format!("{l}\n")).collect();
    std::fs::write(&unnamed, without).expect("settings");
    succeed(at(&unnamed, &["doctor"]).env("SSL_CERT_FILE", &ca));
    // A job stops by itself when it is refused, and says the same.
    let refused = settings(dir.path(), "refused.toml", &listener, "admin", &wrong, &ca);
    let output = at(&refused, &["ingest"]).output().expect("starts");
    assert!(!output.status.success());
    assert!(told(&output).contains("ingest stopped: Kafka: the user or the password is refused"), "{}", told(&output));
    all_told.push_str(&told(&output));
    all_told.push_str(&told(&at(&good, &["config", "show"]).output().expect("starts")));
    eprintln!("{faults}");

    let secrets: Vec<String> =
        [&password, &stranger, &wrong].map(|file| std::fs::read_to_string(file).expect("password").trim().to_owned()).into();
    for secret in &secrets {
        assert!(!all_told.contains(secret.as_str()), "a password was told");
        for file in files_below(&data) {
            let bytes = std::fs::read(&file).unwrap_or_default();
            assert!(!bytes.windows(secret.len()).any(|w| w == secret.as_bytes()), "{} holds a password", file.display());
        }
    }
}
