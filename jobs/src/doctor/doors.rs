//! Addresses, certificates, and who may come in.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;

use super::readable;
use crate::config::Config;
use crate::doors::oidc::Oidc;
use crate::doors::tls::{self, Wanted};
use crate::doors::users;
use crate::serve;

/// How long the system may take to give an address.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) async fn look(config: &Config, say: &mut impl FnMut(bool, String)) {
    addresses(config, say).await;
    certificates(config, say);
    let tokens = provider(config, say);
    who_may_come_in(config, tokens, say);
}

/// Binds each. One that is taken is no fault by itself, since this is run beside running jobs; two of these settings that want
/// the same are, whether they are taken or not.
async fn addresses(config: &Config, say: &mut impl FnMut(bool, String)) {
    let wanted = [
        ("serve", &config.serve.listen),
        ("postgres", &config.postgres.listen),
        ("flight", &config.flight.listen),
        ("metrics", &config.metrics.listen),
    ];
    let wanted: Vec<(&str, &String)> = wanted.into_iter().filter(|(_, listen)| !listen.is_empty()).collect();
    for (at, (door, listen)) in wanted.iter().enumerate() {
        if let Some((other, there)) = wanted[..at].iter().find(|(_, there)| is_one(there, listen)) {
            let same = if there == listen { String::new() } else { format!(", which is {there},") };
            say(false, format!("{door}: {listen} is {other}.listen{same} as well; give each an address of its own"));
            continue;
        }
        let bound = tokio::time::timeout(PATIENCE, TcpListener::bind(listen)).await;
        let bound = bound.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()));
        match bound.map_err(|error| error.kind()) {
            Ok(_) => say(true, format!("{door}: {listen} is free")),
            // A job answers elsewhere then, and says so.
            Err(ErrorKind::AddrInUse) if *door == "metrics" => say(
                true,
                format!("metrics: {listen} is taken, by a job of these settings or by another: each process needs its own"),
            ),
            Err(ErrorKind::AddrInUse) => {
                say(true, format!("{door}: {listen} is taken, by a running `starling serve` or by another program"));
            }
            Err(kind) => say(false, format!("{door}: {listen} cannot be bound ({kind}); {}", what_to_do(kind))),
        }
    }
}

/// Whether whoever holds one of these holds the other: an unspecified address is all of this machine's.
fn is_one(one: &str, other: &str) -> bool {
    let (Ok(one), Ok(other)) = (one.parse::<SocketAddr>(), other.parse::<SocketAddr>()) else { return false };
    // Port 0 is another one each time.
    let is_same_port = one.port() == other.port() && one.port() != 0;
    is_same_port && (one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified())
}

fn what_to_do(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::AddrNotAvailable => "is it an address of this machine?",
        ErrorKind::PermissionDenied => {
            "this user may not have that port: below 1024 it takes a right of its own; choose a higher one"
        }
        _ => "choose another address",
    }
}

fn certificates(config: &Config, say: &mut impl FnMut(bool, String)) {
    let doors = [
        ("serve", &config.serve.tls_cert_file, &config.serve.tls_key_file, None),
        ("postgres", &config.postgres.tls_cert_file, &config.postgres.tls_key_file, None),
        ("flight", &config.flight.tls_cert_file, &config.flight.tls_key_file, Some(&b"h2"[..])),
    ];
    for (door, certificate, key, protocol) in doors {
        match tls::acceptor(door, certificate, key, protocol, &config.tls) {
            Ok(None) => {}
            Ok(Some(_)) => {
                let clients = match (config.tls.client_ca_file.as_str(), config.tls.client_certificates) {
                    ("", _) => "",
                    (_, Wanted::Optional) => ", and clients may come with certificates of their own",
                    (_, Wanted::Required) => ", and clients must come with certificates of their own",
                };
                say(true, format!("{door}: certificate and key belong together{clients}"));
                readable(door, key, say);
            }
            Err(error) => say(false, format!("{error:#}")),
        }
    }
}

/// Whether tokens of a provider let somebody in.
fn provider(config: &Config, say: &mut impl FnMut(bool, String)) -> bool {
    match Oidc::open(&config.oidc) {
        Ok(None) => false,
        Ok(Some(oidc)) => {
            say(true, format!("oidc: {}", oidc.told()));
            true
        }
        Err(error) => {
            say(false, format!("{error:#}"));
            false
        }
    }
}

fn who_may_come_in(config: &Config, tokens: bool, say: &mut impl FnMut(bool, String)) {
    let token = match serve::service_token(&config.serve.token_file) {
        Ok(token) => {
            readable("serve", &config.serve.token_file, say);
            token.is_some()
        }
        Err(error) => {
            say(false, format!("{error:#}"));
            false
        }
    };
    let path = users::path(config);
    let beyond = config.serve.listen.parse::<SocketAddr>().is_ok_and(|address| !address.ip().is_loopback());
    let needed =
        !config.postgres.listen.is_empty() || (!config.flight.listen.is_empty() && !tokens) || (beyond && !token && !tokens);
    if !needed && !path.exists() {
        return;
    }
    match users::Users::read(&path) {
        Ok(users) if users.count() == 0 => say(
            !needed,
            format!(
                "users: there is nobody in {}; `starling users add NAME --role product --team TEAM` lets somebody in",
                path.display()
            ),
        ),
        Ok(users) => say(true, format!("users: {} may log in", users.count())),
        Err(error) => say(false, format!("{error:#}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn told(flags: &[(&str, String)]) -> Vec<(bool, String)> {
        let dir = tempfile::tempdir().expect("dir");
        let mut all = vec![("data_dir", dir.path().join("data").display().to_string())];
        all.extend(flags.iter().cloned());
        let config = Config::load(None, &all).expect("settings");
        let mut told = Vec::new();
        look(&config, &mut |good, what| told.push((good, what))).await;
        told
    }

    fn failed(told: &[(bool, String)]) -> Vec<&str> {
        told.iter().filter(|(good, _)| !good).map(|(_, what)| what.as_str()).collect()
    }

    fn only(serve: &str) -> Vec<(&'static str, String)> {
        vec![("serve.listen", serve.to_owned()), ("metrics.listen", String::new())]
    }

    #[tokio::test]
    async fn an_address_that_is_taken_stands_twice_or_is_another_machine_s_is_found() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = taken.local_addr().expect("address").to_string();
        let all = told(&only(&address)).await;
        let line = format!("serve: {address} is taken, by a running `starling serve` or by another program");
        assert!(failed(&all).is_empty() && all.contains(&(true, line)), "{all:?}");
        let all = told(&[("serve.listen", "127.0.0.1:0".to_owned()), ("metrics.listen", address.clone())]).await;
        assert!(failed(&all).is_empty() && all.iter().any(|(_, what)| what.contains("each process needs its own")), "{all:?}");
        // That is seen whether it is taken or not.
        let twice = address;
        let all = told(&[("serve.listen", twice.clone()), ("metrics.listen", twice.clone())]).await;
        assert_eq!(failed(&all), [format!("metrics: {twice} is serve.listen as well; give each an address of its own")]);
        let port = twice.rsplit_once(':').expect("a port").1;
        let all_of_it = format!("0.0.0.0:{port}");
        for (door, setting, other) in [("metrics", "metrics.listen", all_of_it), ("flight", "flight.listen", twice.clone())] {
            let mut flags = only(&twice);
            flags.retain(|(name, _)| *name != setting);
            flags.push((setting, other.clone()));
            let all = told(&flags).await;
            assert!(failed(&all).iter().any(|what| what.starts_with(&format!("{door}: {other} is serve.listen"))), "{all:?}");
        }
        // TEST-NET-1, which nobody has.
        let all = told(&[("serve.listen", "127.0.0.1:0".to_owned()), ("metrics.listen", "192.0.2.1:9464".to_owned())]).await;
        assert!(failed(&all)[0].contains("is it an address of this machine?"), "{all:?}");
    }

    #[tokio::test]
    async fn a_door_that_nobody_can_come_through_is_found() {
        assert!(failed(&told(&only("127.0.0.1:0")).await).is_empty(), "on loopback nobody has to log in");
        for door in ["postgres.listen", "flight.listen"] {
            let mut flags = only("127.0.0.1:0");
            flags.push((door, "127.0.0.1:0".to_owned()));
            let all = told(&flags).await;
            assert!(failed(&all)[0].contains("starling users add"), "{all:?}");
        }
    }

    #[tokio::test]
    async fn a_certificate_that_is_not_there_is_found_at_each_door() {
        for (certificate, key) in [
            ("serve.tls_cert_file", "serve.tls_key_file"),
            ("postgres.tls_cert_file", "postgres.tls_key_file"),
            ("flight.tls_cert_file", "flight.tls_key_file"),
        ] {
            let mut flags = only("127.0.0.1:0");
            flags.extend([(certificate, "/nowhere/server.crt".to_owned()), (key, "/nowhere/server.key".to_owned())]);
            let all = told(&flags).await;
            assert!(failed(&all).iter().any(|what| what.contains(certificate)), "{all:?}");
        }
    }

    #[test]
    fn an_unspecified_address_is_all_of_this_machine_s_and_a_port_of_its_own_is_nobody_else_s() {
        for (one, other, same) in [
            ("127.0.0.1:8430", "127.0.0.1:8430", true),
            ("127.0.0.1:8430", "0.0.0.0:8430", true),
            ("[::]:8430", "127.0.0.1:8430", true),
            ("127.0.0.1:8430", "127.0.0.2:8430", false),
            ("127.0.0.1:8430", "0.0.0.0:8431", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
        ] {
            assert_eq!(is_one(one, other), same, "{one} {other}");
        }
        assert_ne!(what_to_do(ErrorKind::PermissionDenied), what_to_do(ErrorKind::AddrNotAvailable));
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn users_and_tokens_that_others_may_read_are_found() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().expect("dir");
        let file = |name: &str, text: &str, mode: u32| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).expect("writes");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("mode");
            path.display().to_string()
        };
        let decoy = format!("decoy = \"{}\"\n", "0".repeat(64));
        let with = |name, value| {
            let mut flags = only("127.0.0.1:0");
            flags.extend([("postgres.listen", "127.0.0.1:0".to_owned()), (name, value)]);
            flags
        };
        let open = told(&with("postgres.users_file", file("open.toml", &decoy, 0o644))).await;
        assert!(failed(&open)[0].contains("chmod 600"), "{open:?}");
        let nobody = told(&with("postgres.users_file", file("nobody.toml", &decoy, 0o600))).await;
        assert!(failed(&nobody)[0].contains("there is nobody in"), "{nobody:?}");
        let token = "t".repeat(64);
        let told_token = told(&with("serve.token_file", file("token", &token, 0o644))).await;
        assert!(failed(&told_token).iter().any(|what| what.contains("token holds a secret")), "{told_token:?}");
        assert!(!format!("{told_token:?}").contains(&token));
        let gone = told(&with("serve.token_file", dir.path().join("gone").display().to_string())).await;
        assert!(failed(&gone).iter().any(|what| what.contains("serve.token_file")), "{gone:?}");
    }
}
