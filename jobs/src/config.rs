//! Settings: built-in defaults → file → environment → flags. Unknown names are refused, and faults say where they stand.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

/// The settings that are built in, with a comment on each.
pub const DEFAULTS: &str = include_str!("defaults.toml");

/// All settings; `defaults.toml` explains each.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Config {
    pub data_dir: PathBuf,
    pub kafka: Kafka,
    pub ingest: Ingest,
    pub window: Window,
    pub signals: Signals,
    pub alerts: Alerts,
    pub serve: Serve,
    pub log: Log,
}

#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Kafka {
    pub brokers: String,
    pub topic: String,
    pub group: String,
    pub properties: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Ingest {
    pub max_events: usize,
    pub max_bytes: usize,
    pub linger_ms: u64,
    pub future_tolerance_s: i64,
    pub disorder_s: i64,
}

#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Window {
    pub allowed_lateness_s: i64,
    pub idle_after_s: i64,
    pub deadline_s: i64,
    pub keep_days: i64,
    pub memory_mib: usize,
    pub check_every_ms: u64,
}

/// How signals reach the integrity job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// Sealed files under the data directory.
    Local,
    /// The signals topic.
    Kafka,
}

#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Signals {
    pub transport: Transport,
    pub topic: String,
    pub partitions: u32,
    pub key_life_h: i64,
    pub commit_every_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Alerts {
    pub topic: String,
}

#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Serve {
    pub listen: String,
    pub token_file: String,
}

#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Log {
    pub level: String,
    pub format: String,
}

impl Config {
    /// Lays file, environment (`STARLING_WINDOW__KEEP_DAYS=3`) and `flags` (dotted name, value) over the defaults, and checks the sum.
    ///
    /// # Errors
    /// A file that cannot be read, an unknown name, a value of the wrong kind or out of range: each named with where it stands.
    pub fn load(file: Option<&Path>, flags: &[(&str, String)]) -> anyhow::Result<Self> {
        let mut builder = config::Config::builder().add_source(config::File::from_str(DEFAULTS, config::FileFormat::Toml));
        if let Some(path) = file {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("{}: cannot be read; --config names a TOML file", path.display()))?;
            // Parsed on its own first, for an error with line and column.
            if let Err(e) = toml::from_str::<toml::Table>(&text) {
                let line = e.span().map_or(1, |s| text[..s.start.min(text.len())].lines().count().max(1));
                bail!("{}:{line}: {}", path.display(), e.message());
            }
            builder = builder.add_source(config::File::from_str(&text, config::FileFormat::Toml));
        }
        for (name, value) in environment(std::env::vars()) {
            builder = builder.set_override(&name, value).with_context(|| format!("the variable for `{name}` cannot be used"))?;
        }
        for (name, value) in flags {
            builder = builder.set_override(*name, value.clone())?;
        }
        let place = file.map_or_else(|| "settings".to_owned(), |p| p.display().to_string());
        let config: Self = builder.build()?.try_deserialize().with_context(|| format!("{place}: a setting cannot be used"))?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> anyhow::Result<()> {
        let mut faults: Vec<String> = Vec::new();
        let mut need = |ok: bool, fault: &str| {
            if !ok {
                faults.push(fault.to_owned());
            }
        };
        need(self.ingest.max_events >= 1, "ingest.max_events: at least 1");
        need(self.ingest.max_bytes >= 65_536, "ingest.max_bytes: at least 65536");
        need(self.ingest.future_tolerance_s >= 0, "ingest.future_tolerance_s: 0 or more");
        need(self.ingest.disorder_s >= 0, "ingest.disorder_s: 0 or more");
        need(self.window.allowed_lateness_s >= 0, "window.allowed_lateness_s: 0 or more");
        need(self.window.deadline_s > self.window.allowed_lateness_s, "window.deadline_s: above window.allowed_lateness_s");
        need((0..=30).contains(&self.window.keep_days), "window.keep_days: 0 to 30, the promise is 30 at most (P42)");
        need(self.window.memory_mib >= 64, "window.memory_mib: at least 64");
        need((1..=72).contains(&self.signals.key_life_h), "signals.key_life_h: 1 to 72");
        need((1..=1024).contains(&self.signals.partitions), "signals.partitions: 1 to 1024");
        need(
            self.signals.transport == Transport::Local || !self.kafka.brokers.is_empty(),
            "signals.transport = \"kafka\" needs kafka.brokers",
        );
        need(["text", "json"].contains(&self.log.format.as_str()), "log.format: \"text\" or \"json\"");
        need(
            self.serve.listen.parse::<std::net::SocketAddr>().is_ok(),
            "serve.listen: an address and port such as 127.0.0.1:8430",
        );
        if let Ok(address) = self.serve.listen.parse::<std::net::SocketAddr>() {
            need(
                address.ip().is_loopback() || !self.serve.token_file.is_empty(),
                "serve.listen beyond loopback needs serve.token_file: alerts are for integrity staff only (P33)",
            );
        }
        if faults.is_empty() { Ok(()) } else { bail!("{}", faults.join("\n")) }
    }

    /// The settings as TOML, with secrets of `kafka.properties` left out.
    ///
    /// # Errors
    /// When TOML cannot hold a value.
    pub fn show(&self) -> anyhow::Result<String> {
        let mut shown = self.clone();
        for (name, value) in &mut shown.kafka.properties {
            if name.contains("password")
                || name.contains("secret")
                || name.contains("key")
                || name.contains("token")
                || name.contains("jaas")
            {
                "(set, not shown)".clone_into(value);
            }
        }
        Ok(toml::to_string(&shown)?)
    }
}

/// `STARLING_A__B` is the setting `a.b`. Variables that are not settings by this rule, such as `STARLING_CONFIG`, belong to flags.
fn environment(variables: impl Iterator<Item = (String, String)>) -> Vec<(String, String)> {
    variables
        .filter_map(|(name, value)| {
            let setting = name.strip_prefix("STARLING_")?;
            (setting.contains("__") || setting == "DATA_DIR").then(|| (setting.to_ascii_lowercase().replace("__", "."), value))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> anyhow::Result<Config> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("starling.toml");
        std::fs::write(&path, text)?;
        Config::load(Some(&path), &[])
    }

    #[test]
    fn defaults_are_usable_as_they_are() {
        let config = Config::load(None, &[]).expect("defaults");
        assert_eq!(config.signals.transport, Transport::Local);
    }

    #[test]
    fn an_unknown_name_is_refused_and_named() {
        let error = format!("{:#}", load("[window]\nkeep_dayz = 3\n").expect_err("unknown"));
        assert!(error.contains("keep_dayz"), "{error}");
    }

    #[test]
    fn p42_more_than_thirty_days_is_refused() {
        let error = format!("{:#}", load("[window]\nkeep_days = 31\n").expect_err("too long"));
        assert!(error.contains("30"), "{error}");
    }

    #[test]
    fn a_fault_in_the_file_names_its_line() {
        let error = format!("{:#}", load("[window]\nkeep_days = \n").expect_err("no TOML"));
        assert!(error.contains("starling.toml:2"), "{error}");
    }

    #[test]
    fn a_listener_off_loopback_needs_a_token() {
        let error = format!("{:#}", load("[serve]\nlisten = \"0.0.0.0:8430\"\n").expect_err("open door"));
        assert!(error.contains("token_file"), "{error}");
    }

    #[test]
    fn flags_win_over_the_file() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("s.toml");
        std::fs::write(&path, "[window]\nkeep_days = 3\n").expect("written");
        let config = Config::load(Some(&path), &[("window.keep_days", "4".to_owned())]).expect("good");
        assert_eq!(config.window.keep_days, 4);
    }

    #[test]
    fn environment_variables_with_two_underscores_are_settings() {
        let variables = [("STARLING_WINDOW__KEEP_DAYS", "3"), ("STARLING_KILL_AT", "x"), ("PATH", "/bin")];
        let found = environment(variables.into_iter().map(|(a, b)| (a.to_owned(), b.to_owned())));
        assert_eq!(found, [("window.keep_days".to_owned(), "3".to_owned())]);
    }

    #[test]
    fn secrets_are_not_shown() {
        let config = load("[kafka]\nproperties = { \"sasl.password\" = \"hunter2\" }\n").expect("good");
        assert!(!config.show().expect("toml").contains("hunter2"));
    }
}
