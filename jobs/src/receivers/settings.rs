//! What of the settings is about receivers, and what is wrong with it.

use std::collections::BTreeMap;

use reqwest::Url;
use serde::{Deserialize, Serialize};
use starling_integrity::{BUILT_IN, Standing};

/// Most attempts at a delivery: with pauses of up to an hour, more than a month's would outlive it.
const MOST_TRIES: u32 = 500;
/// Longest name of a receiver.
const LONGEST_NAME: usize = 32;

#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Alerts {
    pub topic: String,
    pub link: String,
    pub look_every_s: u64,
    pub alertmanager: AlertmanagerSettings,
    pub webhooks: BTreeMap<String, WebhookSettings>,
    pub standing: BTreeMap<String, Standing>,
}

#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct AlertmanagerSettings {
    pub urls: Vec<String>,
    pub resend_s: u64,
    pub allow_http: bool,
}

#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct WebhookSettings {
    pub url: String,
    pub secret_file: String,
    #[serde(default)]
    pub allow_http: bool,
    #[serde(default = "twenty")]
    pub tries: u32,
}

fn twenty() -> u32 {
    20
}

impl Alerts {
    /// What is wrong, one line each; no value of a setting is in it but names.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut note = |ok: bool, fault: String| {
            if !ok {
                faults.push(fault);
            }
        };
        let looks = (1..=3600).contains(&self.look_every_s);
        note(looks, "alerts.look_every_s: 1 to 3600".to_owned());
        if !self.link.is_empty() {
            note(
                Url::parse(&self.link).is_ok_and(|url| matches!(url.scheme(), "http" | "https")) && self.link.contains("{alert}"),
                "alerts.link: an address with {alert} where the fingerprint goes, such as https://HOST/alerts/{alert}, or \"\""
                    .to_owned(),
            );
        }
        let manager = &self.alertmanager;
        note((5..=3600).contains(&manager.resend_s), "alerts.alertmanager.resend_s: 5 to 3600".to_owned());
        for (i, url) in manager.urls.iter().enumerate() {
            if let Err(fault) = address(url, manager.allow_http) {
                note(false, format!("alerts.alertmanager.urls, number {}: {fault}", i + 1));
            }
        }
        for (name, hook) in &self.webhooks {
            let is_name = (1..=LONGEST_NAME).contains(&name.len())
                && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_');
            if !is_name {
                note(false, format!("alerts.webhooks: a name has 1 to {LONGEST_NAME} of a-z, 0-9, - and _"));
                continue;
            }
            if let Err(fault) = address(&hook.url, hook.allow_http) {
                note(false, format!("alerts.webhooks.{name}.url: {fault}"));
            }
            note(
                !hook.secret_file.is_empty(),
                format!("alerts.webhooks.{name}.secret_file: the file of the key that bodies are signed with"),
            );
            note((1..=MOST_TRIES).contains(&hook.tries), format!("alerts.webhooks.{name}.tries: 1 to {MOST_TRIES}"));
        }
        for (rule, standing) in &self.standing {
            if !BUILT_IN.contains(&rule.as_str()) {
                note(
                    false,
                    format!("alerts.standing: a table for each rule that is to stand otherwise, of {}", BUILT_IN.join(", ")),
                );
            } else if let Err(fault) = standing.check() {
                note(false, format!("alerts.standing.{rule}.{fault}"));
            }
        }
        faults
    }
}

/// An address that may be sent to.
///
/// # Errors
/// What is wrong with it. The text does not repeat it: it may hold a password.
pub fn address(text: &str, allow_http: bool) -> Result<Url, &'static str> {
    let url = Url::parse(text).map_err(|_| "no address such as https://HOST/PATH")?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("no user or password may stand in it: the settings are shown");
    }
    let is_here = match url.host_str() {
        None | Some("") => return Err("no address such as https://HOST/PATH"),
        Some("localhost") => true,
        Some(host) => {
            let bare = host.trim_start_matches('[').trim_end_matches(']');
            bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
        }
    };
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_here || allow_http => Ok(url),
        "http" => Err("http beyond this machine shows alerts to whoever is on the way: use https, or set allow_http = true"),
        _ => Err("https, or http to this machine"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_leaves_this_machine_unless_the_settings_say_otherwise() {
        for good in
            ["https://am.example/x", "https://10.0.0.1:9093", "http://127.0.0.1:9093", "http://[::1]:1/", "http://localhost"]
        {
            assert!(address(good, false).is_ok(), "{good}");
        }
        for bad in [
            "http://am.example/",
            "http://127.0.0.1.example/",
            "http://localhost.example/",
            "http://10.0.0.1/",
            "ftp://127.0.0.1/",
            "file:///etc/passwd",
            "unix:/run/x",
            "am:9093",
            "",
        ] {
            assert!(address(bad, false).is_err(), "{bad}");
        }
        assert!(address("http://am.example/", true).is_ok());
        assert!(address("ftp://am.example/", true).is_err());
    }

    #[test]
    fn a_rule_that_is_not_there_or_a_standing_that_makes_no_sense_is_a_fault_by_name() {
        let faults = |standing: &str| {
            let text = format!(
                "topic = 't'\nlink = ''\nlook_every_s = 30\n[alertmanager]\nurls = []\nresend_s = 60\nallow_http = false\n[webhooks]\n{standing}"
            );
            toml::from_str::<Alerts>(&text).map(|alerts| alerts.faults()).map_err(|e| e.message().to_owned())
        };
        let of = |rule: &str, rest: &str| format!("[standing.{rule}]\nstage = 'shadow'\ndaily_alerts = 5\n{rest}");
        assert_eq!(faults(&of("slow_bulk", "false_discovery = 0.1")), Ok(Vec::new()));
        let unknown = faults(&of("sheep", "false_discovery = 0.1")).expect("read");
        assert!(unknown.len() == 1 && unknown[0].contains("slow_bulk") && !unknown[0].contains("sheep"), "{unknown:?}");
        let wrong = faults(&of("slow_bulk", "false_discovery = 0.9")).expect("read");
        assert!(wrong.len() == 1 && wrong[0].starts_with("alerts.standing.slow_bulk.false_discovery"), "{wrong:?}");
        let never = toml::from_str::<Alerts>(
            "topic = 't'\nlink = ''\nlook_every_s = 0\nstanding = {}\nwebhooks = {}\n[alertmanager]\nurls = []\nresend_s = 60\nallow_http = false",
        );
        assert_eq!(never.expect("reads").faults(), ["alerts.look_every_s: 1 to 3600"]);
        assert!(faults(&of("slow_bulk", "")).expect_err("promises nothing").contains("false_discovery"));
    }

    #[test]
    fn i4_a_password_in_an_address_is_refused_and_not_repeated() {
        let alerts = Alerts {
            topic: "t".into(),
            link: "https://x:hunter2@host/".into(),
            look_every_s: 30,
            alertmanager: AlertmanagerSettings { urls: vec!["https://u:hunter2@host".into()], resend_s: 60, allow_http: true },
            webhooks: BTreeMap::from([(
                "siem".to_owned(),
                WebhookSettings { url: "https://hunter2@host".into(), secret_file: String::new(), allow_http: true, tries: 0 },
            )]),
            standing: BTreeMap::new(),
        };
        let faults = alerts.faults();
        assert_eq!(faults.len(), 5, "{faults:?}");
        assert!(!faults.concat().contains("hunter2"), "{faults:?}");
    }
}
