//! `[oidc]`: whose tokens are taken, for whom they must be, and which of their claims say role and team.

use reqwest::Url;
use serde::{Deserialize, Serialize};
use starling_integrity::work::{LONGEST_NAME, check_name};

use super::Signed;
use super::claims::HASHED;
use crate::doors::users::is_name;
use crate::receivers::settings as receivers;

/// The most that clocks may differ, in seconds.
const MOST_LEEWAY_S: u32 = 300;
/// What claims of RFC 7519 are called: none of them says a role or a team.
const REGISTERED: [&str; 7] = ["iss", "sub", "aud", "exp", "nbf", "iat", "jti"];

/// Tokens of an identity provider. Empty: none are taken.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct OidcSettings {
    pub issuer: String,
    pub audience: String,
    pub keys_file: String,
    pub keys_url: String,
    pub keys_ca_file: String,
    pub name: String,
    pub role_claim: String,
    pub team_claim: String,
    pub algorithms: Vec<String>,
    pub leeway_s: u32,
    pub longest_s: u32,
}

impl OidcSettings {
    /// Whether tokens are taken at all.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.issuer.is_empty()
    }

    /// What stands behind the `@` in the name of whoever comes with a token.
    pub(super) fn label(&self) -> String {
        if !self.name.is_empty() {
            return self.name.clone();
        }
        Url::parse(&self.issuer).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default()
    }

    /// The algorithms that are taken.
    pub(super) fn signed(&self) -> Vec<Signed> {
        self.algorithms.iter().filter_map(|name| Signed::named(name)).collect()
    }

    /// What cannot be used, a line each.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut need = |ok: bool, fault: &str| {
            if !ok {
                faults.push(format!("oidc.{fault}"));
            }
        };
        if !self.is_wanted() {
            let unset = self.audience.is_empty() && self.keys_file.is_empty() && self.keys_url.is_empty();
            need(unset, "issuer: the rest of [oidc] is set and it is not; write it as the provider's tokens have it in `iss`");
            return faults;
        }
        need(
            Url::parse(&self.issuer).is_ok_and(|url| matches!(url.scheme(), "https" | "http") && url.host_str().is_some()),
            "issuer: an address such as https://id.example.com, letter for letter as the provider's tokens have it in `iss`",
        );
        need(!self.audience.is_empty(), "audience: what the provider puts into `aud` of tokens that are for here");
        need(
            !self.keys_file.is_empty() || !self.keys_url.is_empty(),
            "keys_file or oidc.keys_url: a JSON Web Key Set (the provider's jwks_uri) is needed",
        );
        need(
            self.keys_url.is_empty() || receivers::address(&self.keys_url, false).is_ok(),
            "keys_url: https, or http to this machine; no user or password may stand in it",
        );
        need(
            self.keys_ca_file.is_empty() || !self.keys_url.is_empty(),
            "keys_ca_file: it is for oidc.keys_url, which is not set",
        );
        let label = self.label();
        need(
            label.len() + 1 + HASHED <= LONGEST_NAME && check_name("a name", &label).is_ok() && !label.contains('@'),
            "name: what stands behind `@` in the log, at most 31 of a–z, 0–9, `.`, `-`, `_`, and no phone number; the issuer's host is none",
        );
        need(self.name.is_empty() || is_name(&self.name), "name: only a–z, 0–9, `.`, `-`, `_`");
        for (setting, claim) in [("role_claim", &self.role_claim), ("team_claim", &self.team_claim)] {
            need(
                !claim.is_empty() && !REGISTERED.contains(&claim.as_str()),
                &format!("{setting}: a claim's name, and none of {}", REGISTERED.join(", ")),
            );
        }
        need(self.role_claim != self.team_claim, "team_claim: another one than oidc.role_claim");
        need(
            !self.algorithms.is_empty() && self.signed().len() == self.algorithms.len(),
            "algorithms: at least one of RS256, ES256, EdDSA; others are not taken, and \"none\" and those of a shared secret never",
        );
        need(self.leeway_s <= MOST_LEEWAY_S, "leeway_s: 0 to 300");
        need((60..=31_536_000).contains(&self.longest_s), "longest_s: 60 to 31536000");
        faults
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Settings that can be used.
    pub(in super::super) fn good() -> OidcSettings {
        OidcSettings {
            issuer: "https://id.example.com/realms/flock".to_owned(),
            audience: "starling".to_owned(),
            keys_file: "keys.json".to_owned(),
            keys_url: String::new(),
            keys_ca_file: String::new(),
            name: String::new(),
            role_claim: "starling_role".to_owned(),
            team_claim: "starling_team".to_owned(),
            algorithms: ["RS256", "ES256", "EdDSA"].map(str::to_owned).to_vec(),
            leeway_s: 30,
            longest_s: 86_400,
        }
    }

    #[test]
    fn what_cannot_be_used_is_named_and_what_can_is_not() {
        assert_eq!(good().faults(), Vec::<String>::new());
        let off = OidcSettings { issuer: String::new(), audience: String::new(), keys_file: String::new(), ..good() };
        assert!(off.faults().is_empty() && !off.is_wanted());
        let with = |change: &dyn Fn(&mut OidcSettings)| {
            let mut settings = good();
            change(&mut settings);
            settings.faults().join("\n")
        };
        for (expected, fault) in [
            ("oidc.issuer", with(&|s| s.issuer = String::new())),
            ("oidc.issuer", with(&|s| s.issuer = "id.example.com".to_owned())),
            ("oidc.audience", with(&|s| s.audience = String::new())),
            ("oidc.keys_file or", with(&|s| s.keys_file = String::new())),
            ("oidc.keys_url", with(&|s| s.keys_url = "http://id.example.com/keys".to_owned())),
            ("oidc.keys_url", with(&|s| s.keys_url = "https://me:secret@id.example.com/keys".to_owned())),
            ("oidc.keys_ca_file", with(&|s| s.keys_ca_file = "ca.pem".to_owned())),
            ("oidc.name", with(&|s| s.issuer = format!("https://{}.example.com", "x".repeat(40)))),
            ("oidc.name", with(&|s| s.issuer = "https://192.168.100.200".to_owned())),
            ("oidc.name", with(&|s| s.name = "Corp ID".to_owned())),
            ("oidc.role_claim", with(&|s| s.role_claim = "sub".to_owned())),
            ("oidc.team_claim", with(&|s| s.team_claim = "starling_role".to_owned())),
            ("oidc.algorithms", with(&|s| s.algorithms = vec![])),
            ("oidc.algorithms", with(&|s| s.algorithms = vec!["none".to_owned()])),
            ("oidc.algorithms", with(&|s| s.algorithms = vec!["RS256".to_owned(), "HS256".to_owned()])),
            ("oidc.leeway_s", with(&|s| s.leeway_s = 301)),
            ("oidc.longest_s", with(&|s| s.longest_s = 0)),
        ] {
            assert!(fault.contains(expected) && !fault.contains("secret@"), "{expected}: {fault}");
        }
        for fetchable in ["https://id.example.com/keys", "http://127.0.0.1:8080/keys", "http://[::1]:1/", "http://localhost/"] {
            assert!(with(&|s| s.keys_url = fetchable.to_owned()).is_empty(), "{fetchable}");
        }
    }
}
