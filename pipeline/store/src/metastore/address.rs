//! Where the metastore is: `sqlite:<path>` or `postgres://<user>@<host>/<database>`, and what of it may be shown.
//!
//! An address may hold a password, so it is never part of an error, and [`shown`] leaves out whatever could be one. Better places are
//! `PGPASSWORD`, or a password file that only its owner may read (`PGPASSFILE`, `~/.pgpass`), which the driver reads as every client of
//! PostgreSQL does.
//!
//! Beyond this machine the connection's encryption must be chosen in the address. The driver's own default, `prefer`, falls back to plain
//! text without a word when a server, or somebody on the way who speaks for it, says that it has no TLS; and whoever can change what passes
//! can un-fence a zombie or give spent budget back. So there is no silent default: `verify-full` (or `require`, which does not ask who
//! answers), or `disable`, spelled out by somebody who knows that the network between is encrypted by other means.

use std::net::IpAddr;
use std::str::FromStr;

use sqlx::postgres::{PgConnectOptions, PgSslMode};

use crate::error::StoreError;

/// What an address names.
#[derive(Debug)]
pub(super) enum Address {
    Sqlite,
    Postgres(Box<PgConnectOptions>),
}

/// Parameters of an address that are passed to the driver. It would log others, with their values.
const PARAMETERS: &[&str] = &[
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
    "options[search_path]",
    "statement-cache-capacity",
];

/// Reads an address, without connecting.
pub(super) fn parse(url: &str) -> Result<Address, StoreError> {
    if url.starts_with("sqlite:") {
        return Ok(Address::Sqlite);
    }
    if !(url.starts_with("postgres://") || url.starts_with("postgresql://")) {
        return Err(StoreError::MetastoreAddress);
    }
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let mut names =
        query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').map_or(pair, |(name, _)| name));
    if !names.all(|name| PARAMETERS.contains(&name)) {
        return Err(StoreError::MetastoreParameter { known: PARAMETERS.join(", ") });
    }
    let options = PgConnectOptions::from_str(url).map_err(|_| StoreError::MetastoreAddress)?;
    let encryption_is_chosen = !matches!(options.get_ssl_mode(), PgSslMode::Prefer | PgSslMode::Allow);
    if !encryption_is_chosen && !is_this_machine(&options) {
        return Err(StoreError::MetastoreUnencrypted);
    }
    Ok(Address::Postgres(Box::new(options)))
}

fn is_this_machine(options: &PgConnectOptions) -> bool {
    let host = options.get_host();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    options.get_socket().is_some() || host.starts_with('/') || host == "localhost" || address.is_ok_and(|a| a.is_loopback())
}

/// An address for people to read: without a password, and without anything that might be a part of one.
pub(super) fn shown(url: &str) -> String {
    const HIDDEN: &str = "(not shown)";
    let Some((scheme, rest)) = url.split_once("://") else {
        // No authority, no password: `sqlite:<path>`.
        return if url.starts_with("sqlite:") || url.is_empty() { url.to_owned() } else { HIDDEN.to_owned() };
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if path.contains('@') {
        // A password with a slash in it would look like a path.
        return format!("{scheme}://{HIDDEN}");
    }
    let authority = match authority.rsplit_once('@') {
        None => authority.to_owned(),
        Some((user, host)) => match user.split_once(':') {
            None => format!("{user}@{host}"),
            Some((user, _)) => format!("{user}:{HIDDEN}@{host}"),
        },
    };
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let pairs = query.map(|query| {
        let pair = |pair: &str| match pair.split_once('=') {
            Some((name, _)) if !PARAMETERS.contains(&name) || ["password", "sslkey"].contains(&name) => {
                format!("{name}={HIDDEN}")
            }
            _ => pair.to_owned(),
        };
        format!("?{}", query.split('&').map(pair).collect::<Vec<_>>().join("&"))
    });
    format!("{scheme}://{authority}{path}{}", pairs.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_shown_in_no_form() {
        for (url, expected) in [
            ("", ""),
            ("sqlite:/var/lib/starling/metastore.db", "sqlite:/var/lib/starling/metastore.db"),
            ("postgres://db/starling", "postgres://db/starling"),
            ("postgres://me@db:1/starling?sslmode=require", "postgres://me@db:1/starling?sslmode=require"),
            ("postgres://me:hunter2@db/starling", "postgres://me:(not shown)@db/starling"),
            ("postgres://me:hun@ter2@db/starling", "postgres://me:(not shown)@db/starling"),
            ("postgres://me:hunter2/x@db/starling", "postgres://(not shown)"),
            ("postgres://me:hunter2?x@db/starling", "postgres://(not shown)"),
            ("postgres://db/x?password=hunter2&user=me", "postgres://db/x?password=(not shown)&user=me"),
            ("postgres://db/x?pasword=hunter2", "postgres://db/x?pasword=(not shown)"),
            ("hunter2", "(not shown)"),
        ] {
            assert_eq!(shown(url), expected);
            assert!(!shown(url).contains("hunter"), "{url}");
        }
    }

    #[test]
    fn i8_beyond_this_machine_encryption_must_be_chosen() {
        for url in ["postgres://db.example/x", "postgres://10.0.0.1/x?sslmode=prefer", "postgres://db.example/x?sslmode=allow"] {
            assert!(matches!(parse(url), Err(StoreError::MetastoreUnencrypted)), "{url}");
        }
        for url in [
            "postgres://db.example/x?sslmode=verify-full",
            "postgres://db.example/x?sslmode=require",
            "postgres://db.example/x?sslmode=disable",
            "postgresql://127.0.0.1/x",
            "postgres://[::1]:5432/x",
            "postgres://localhost/x",
            "postgres:///x?host=/var/run/postgresql",
        ] {
            assert!(matches!(parse(url), Ok(Address::Postgres(_))), "{url}");
        }
        assert!(matches!(parse("postgres://localhost/x?host=db.example"), Err(StoreError::MetastoreUnencrypted)));
    }

    #[test]
    fn what_is_no_address_or_has_an_unknown_parameter_is_refused_without_being_quoted() {
        for url in ["metastore.db", "mysql://h/x", "postgres:/x", "postgres://h:hunter2/x"] {
            assert!(matches!(parse(url), Err(StoreError::MetastoreAddress)), "{url}");
        }
        let error = parse("postgres://localhost/x?pasword=hunter2").expect_err("unknown");
        assert!(matches!(error, StoreError::MetastoreParameter { .. }));
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
}
