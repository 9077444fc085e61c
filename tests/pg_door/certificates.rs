//! Client certificates, as psql shows them.

use std::path::Path;

use crate::authority::{Authority, Shown};
use crate::house::{House, Served};

/// What psql writes to its two outputs, with this certificate.
fn psql(house: &House, served: &Served, user: &str, password: &str, shown: Option<&Shown>) -> (String, String) {
    let of = match shown {
        Some(Shown { certificate, key }) => format!("sslcert={} sslkey={}", certificate.display(), key.display()),
        // libpq looks for one in the home directory otherwise.
        None => "sslcert=/nowhere/none.crt".to_owned(),
    };
    let more = format!("sslmode=verify-full sslrootcert={} {of}", house.certificate().0.display());
    served.psql_over(user, password, &more, &["-w", "-Atc", "SELECT 40 + 2"])
}

fn served(house: &House, authority: &Authority, users: &Path, wanted: &str) -> Served {
    let text = authority.settings(house, &["postgres"], wanted).replacen(
        "[postgres]",
        &format!("[postgres]\nusers_file = {users:?}"),
        1,
    );
    Served::spawn(Served::command_with(house, &text))
}

pub(crate) fn a_certificate_opens_the_door_for_its_user_and_under_no_other_name(house: &House) {
    const PASSWORD: &str = crate::house::PASSWORD;
    let authority = Authority::new(house);
    let users = house.own_users("pg-certified.toml");
    house.users_in(&users, &["certificate", "ada", "spiffe://flock.example/ada"]);
    let ada = authority.certificate("ada", "URI:spiffe://flock.example/ada", "2", "clientAuth");
    let eve = authority.certificate("ada-by-common-name", "", "2", "clientAuth");
    let optional = served(house, &authority, &users, "optional");
    let ask = |user: &str, password: &str, shown: Option<&Shown>| psql(house, &optional, user, password, shown);
    assert_eq!(ask("ada", "", Some(&ada)), ("42\n".to_owned(), String::new()), "without a password");
    let log = crate::tail(house);
    let mut logins = log.lines().filter(|line| line.contains("sql_login") && line.contains("\"ada\""));
    assert!(logins.any(|line| line.contains("certificate")), "{log}");
    // Under another name it opens nothing, whether there is such a user or not, and with its password neither.
    for user in ["joe", "nobody"] {
        for password in ["", PASSWORD] {
            let (out, err) = ask(user, password, Some(&ada));
            assert!(out.is_empty() && err.contains("FATAL:  the certificate is another user's"), "{user}: {out}{err}");
        }
    }
    // Good and nobody's is refused, and not passed over for a password.
    let (out, err) = ask("ada", PASSWORD, Some(&eve));
    assert!(out.is_empty() && err.contains("the certificate is good and nobody's"), "{out}{err}");
    assert!(err.contains("starling users certificate"), "{err}");
    // Not good: TLS ends there.
    for (shown, why) in [
        (authority.certificate("old", "URI:spiffe://flock.example/ada", "-1", "clientAuth"), "it has expired"),
        (authority.signed("stranger", "other", "URI:spiffe://flock.example/ada", "2", "clientAuth"), "it is of no authority"),
        (authority.certificate("server", "URI:spiffe://flock.example/ada", "2", "serverAuth"), "it is not for clients"),
    ] {
        let (out, err) = ask("ada", PASSWORD, Some(&shown));
        assert!(out.is_empty() && err.to_lowercase().contains("alert"), "{why}: {out}{err}");
        // The client hears of it before the log does.
        crate::until(why, || optional.log().contains(why));
    }
    // Whoever has none says a password, as before; a token of whatever kind is none.
    assert!(ask("ada", PASSWORD, None).0.contains("42"));
    assert!(ask("ada", "", None).1.contains("password"));
    let token = house.users_in(&users, &["token", "ada"]);
    assert!(ask("ada", &token, None).1.contains("do not fit"));
    house.users_in(&users, &["certificate", "ada", "--revoke"]);
    assert!(ask("ada", "", Some(&ada)).1.contains("nobody's"));
    house.users_in(&users, &["certificate", "ada", "spiffe://flock.example/ada"]);
    let required = served(house, &authority, &users, "required");
    assert!(psql(house, &required, "ada", "", Some(&ada)).0.contains("42"));
    let (out, err) = psql(house, &required, "ada", PASSWORD, None);
    assert!(out.is_empty() && err.to_lowercase().contains("alert"), "{out}{err}");
}
