//! Settings: built-in defaults → file → environment → flags. Unknown names are refused, and faults say where they stand.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use starling_schemas::ids::Span;
use starling_schemas::metrics::Catalogue;
use starling_store::{Metastore, S3Address, S3Credentials, S3Settings, StoreError};

use crate::doors::oidc::settings::OidcSettings;
use crate::doors::tls::{TlsSettings, Wanted};
use crate::kafka_settings::{self, Properties};
use crate::receivers::settings::Alerts;

/// The settings that are built in, with a comment on each.
pub const DEFAULTS: &str = include_str!("defaults.toml");

/// All settings; `defaults.toml` explains each.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Config {
    pub data_dir: PathBuf,
    pub metastore: MetastoreSettings,
    pub files: Files,
    pub kafka: Kafka,
    pub ingest: Ingest,
    pub window: Window,
    pub businesses: Businesses,
    pub releases: Releases,
    pub catalogue: CatalogueSettings,
    pub signals: Signals,
    pub integrity: Integrity,
    pub alerts: Alerts,
    pub serve: Serve,
    pub postgres: Postgres,
    pub flight: Flight,
    pub tls: TlsSettings,
    pub oidc: OidcSettings,
    pub metrics: Metrics,
    pub log: Log,
}

#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct CatalogueSettings {
    pub datasets: String,
}

impl CatalogueSettings {
    fn load(&self) -> anyhow::Result<Catalogue> {
        let mut catalogue = Catalogue::builtin()?;
        if !self.datasets.is_empty() {
            let text = std::fs::read_to_string(&self.datasets)
                .with_context(|| format!("{}: catalogue.datasets cannot be read", self.datasets))?;
            catalogue.add_datasets(&self.datasets, &text)?;
        }
        Ok(catalogue)
    }
}

/// Not printed as it is: the address may hold a password.
#[derive(Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct MetastoreSettings {
    pub url: String,
}

impl std::fmt::Debug for MetastoreSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MetastoreSettings").field("url", &Metastore::shown_address(&self.url)).finish()
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Files {
    pub url: String,
    pub endpoint: String,
    pub region: String,
    pub allow_http: bool,
    pub credentials_file: String,
}

impl Files {
    /// Where in S3 the files are; `None`: on this machine.
    ///
    /// # Errors
    /// A setting that cannot be used. The text does not repeat it: it may hold a password.
    pub fn s3(&self) -> Result<Option<S3Settings>, StoreError> {
        if self.url.is_empty() {
            return Ok(None);
        }
        let settings = S3Settings {
            address: S3Address::parse(&self.url)?,
            endpoint: self.endpoint.clone(),
            region: self.region.clone(),
            allow_http: self.allow_http,
            credentials: match self.credentials_file.as_str() {
                "" => S3Credentials::Environment,
                file => S3Credentials::File(PathBuf::from(file)),
            },
        };
        settings.check()?;
        Ok(Some(settings))
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Kafka {
    pub brokers: String,
    pub topic: String,
    pub group: String,
    pub properties: Properties,
    #[serde(deserialize_with = "kafka_settings::flat")]
    pub property_files: BTreeMap<String, String>,
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
    pub hours: bool,
}

/// What businesses say of themselves.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Businesses {
    pub keep_days: i64,
}

impl Window {
    /// The definitions there are under these settings: nobody is told of hours that are not kept.
    #[must_use]
    pub fn of_kept(&self, catalogue: Catalogue) -> Catalogue {
        if self.hours { catalogue } else { catalogue.without(Span::Hour) }
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Releases {
    pub delta: bool,
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
    pub pairs: bool,
    pub pair_partitions: u32,
    pub commit_every_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Integrity {
    pub rules: String,
    pub group_hashes: String,
    pub false_discovery: f64,
}

#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Serve {
    pub listen: String,
    pub token_file: String,
    pub tls_cert_file: String,
    pub tls_key_file: String,
    pub connections: usize,
    pub statements: usize,
}

#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Postgres {
    pub listen: String,
    pub users_file: String,
    pub tls_cert_file: String,
    pub tls_key_file: String,
    pub connections: usize,
    pub statements: usize,
}

#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Flight {
    pub listen: String,
    pub tls_cert_file: String,
    pub tls_key_file: String,
    pub connections: usize,
    pub statements: usize,
}

#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Metrics {
    pub listen: String,
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
        let mut of_kafka = Vec::new();
        for (name, value) in environment(std::env::vars()) {
            // Their names have dots themselves, which would be taken for tables.
            if let Some(name) = name.strip_prefix("kafka.").filter(|name| name.starts_with("propert") && name.contains('.')) {
                of_kafka.push((name.to_owned(), value));
                continue;
            }
            builder = builder.set_override(&name, value).with_context(|| format!("the variable for `{name}` cannot be used"))?;
        }
        for (name, value) in flags {
            builder = builder.set_override(*name, value.clone())?;
        }
        let place = file.map_or_else(|| "settings".to_owned(), |p| p.display().to_string());
        let mut config: Self =
            builder.build()?.try_deserialize().with_context(|| format!("{place}: a setting cannot be used"))?;
        config.kafka.take_variables(of_kafka.into_iter());
        config.check()?;
        Ok(config)
    }

    /// The datasets and metrics of this build that these settings ask for, and the datasets of one's own.
    ///
    /// # Errors
    /// When the file cannot be read, or a definition cannot be used: file and fault.
    pub fn definitions(&self) -> anyhow::Result<Catalogue> {
        Ok(self.window.of_kept(self.catalogue.load()?))
    }

    fn check(&self) -> anyhow::Result<()> {
        let mut faults: Vec<String> = Vec::new();
        let mut need = |ok: bool, fault: &str| {
            if !ok {
                faults.push(fault.to_owned());
            }
        };
        if let Err(fault) = Metastore::check_address(&self.metastore_address()) {
            need(false, &format!("metastore.url: {fault}"));
        }
        need(self.ingest.max_events >= 1, "ingest.max_events: at least 1");
        need(self.ingest.max_bytes >= 65_536, "ingest.max_bytes: at least 65536");
        need(self.ingest.future_tolerance_s >= 0, "ingest.future_tolerance_s: 0 or more");
        need(self.ingest.disorder_s >= 0, "ingest.disorder_s: 0 or more");
        need(self.window.allowed_lateness_s >= 0, "window.allowed_lateness_s: 0 or more");
        need(self.window.deadline_s > self.window.allowed_lateness_s, "window.deadline_s: above window.allowed_lateness_s");
        need((0..=30).contains(&self.window.keep_days), "window.keep_days: 0 to 30, the promise is 30 at most (P42)");
        need(
            (0..=1_100).contains(&self.businesses.keep_days),
            "businesses.keep_days: 0 to 1100, a business's account does not last for ever",
        );
        need(self.window.memory_mib >= 64, "window.memory_mib: at least 64");
        need((1..=72).contains(&self.signals.key_life_h), "signals.key_life_h: 1 to 72");
        need((0.001..=1.0).contains(&self.integrity.false_discovery), "integrity.false_discovery: 0.001 to 1");
        need((1..=1024).contains(&self.signals.partitions), "signals.partitions: 1 to 1024");
        need(
            (1..=self.signals.partitions).contains(&self.signals.pair_partitions),
            "signals.pair_partitions: 1 to signals.partitions",
        );
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
                address.ip().is_loopback() || !self.serve.tls_cert_file.is_empty(),
                "serve.listen beyond loopback needs serve.tls_cert_file and serve.tls_key_file: nothing is said in clear text there",
            );
        }
        need(
            self.serve.tls_cert_file.is_empty() == self.serve.tls_key_file.is_empty(),
            "serve.tls_cert_file and serve.tls_key_file: set both or neither",
        );
        need((1..=10_000).contains(&self.serve.connections), "serve.connections: 1 to 10000");
        need((1..=1_000).contains(&self.serve.statements), "serve.statements: 1 to 1000");
        let (postgres, flight) = (&self.postgres, &self.flight);
        for (name, listen, certificate, key, such) in [
            ("postgres", &postgres.listen, &postgres.tls_cert_file, &postgres.tls_key_file, "127.0.0.1:5433"),
            ("flight", &flight.listen, &flight.tls_cert_file, &flight.tls_key_file, "127.0.0.1:8431"),
        ] {
            if !listen.is_empty() {
                match listen.parse::<std::net::SocketAddr>() {
                    Ok(address) => need(
                        address.ip().is_loopback() || !certificate.is_empty(),
                        &format!(
                            "{name}.listen beyond loopback needs {name}.tls_cert_file and {name}.tls_key_file: nothing is said in clear text there"
                        ),
                    ),
                    Err(_) => {
                        need(false, &format!("{name}.listen: an address and port such as {such}, or \"\" for no such door"))
                    }
                }
            }
            need(
                certificate.is_empty() == key.is_empty(),
                &format!("{name}.tls_cert_file and {name}.tls_key_file: set both or neither"),
            );
        }
        need((1..=10_000).contains(&postgres.connections), "postgres.connections: 1 to 10000");
        need((1..=1_000).contains(&postgres.statements), "postgres.statements: 1 to 1000");
        need((1..=10_000).contains(&flight.connections), "flight.connections: 1 to 10000");
        need((1..=1_000).contains(&flight.statements), "flight.statements: 1 to 1000");
        need(
            self.metrics.listen.is_empty() || self.metrics.listen.parse::<std::net::SocketAddr>().is_ok(),
            "metrics.listen: an address and port such as 127.0.0.1:9464, or \"\" for no metrics",
        );
        need(
            !self.files.url.is_empty() || self.files.endpoint.is_empty(),
            "files.endpoint is set and files.url is not: name the bucket, such as s3://BUCKET/FOLDER",
        );
        if let Err(fault) = self.files.s3() {
            need(false, &fault.to_string());
        }
        let with_tls = [&self.serve.tls_cert_file, &postgres.tls_cert_file, &flight.tls_cert_file];
        need(
            self.tls.client_ca_file.is_empty() || with_tls.iter().any(|file| !file.is_empty()),
            "tls.client_ca_file is for doors with a certificate of their own, such as serve.tls_cert_file, and none has one",
        );
        need(
            !self.tls.client_ca_file.is_empty() || self.tls.client_certificates == Wanted::Optional,
            "tls.client_certificates = \"required\" needs tls.client_ca_file: whose certificates are taken",
        );
        for fault in self.oidc.faults() {
            need(false, &fault);
        }
        for fault in self.alerts.faults() {
            need(false, &fault);
        }
        if faults.is_empty() { Ok(()) } else { bail!("{}", faults.join("\n")) }
    }

    /// The metastore's address; it may hold a password.
    #[must_use]
    pub fn metastore_address(&self) -> String {
        if self.metastore.url.is_empty() {
            format!("sqlite:{}", self.data_dir.join("metastore.db").display())
        } else {
            self.metastore.url.clone()
        }
    }

    /// The settings as TOML, with secrets of `kafka.properties` and `metastore.url` left out.
    ///
    /// # Errors
    /// When TOML cannot hold a value.
    pub fn show(&self) -> anyhow::Result<String> {
        let mut shown = self.clone();
        shown.metastore.url = Metastore::shown_address(&self.metastore.url);
        Ok(toml::to_string(&shown)?)
    }
}

/// `STARLING_A__B` is the setting `a.b`. Variables that are not settings by this rule, such as `STARLING_CONFIG`, belong to flags.
pub(crate) fn environment(variables: impl Iterator<Item = (String, String)>) -> Vec<(String, String)> {
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
    fn hours_are_off_and_nothing_tells_of_them_unless_they_are_asked_for() {
        let of_hours = |text: &str| {
            let catalogue = load(text).expect("good").definitions().expect("reviewed");
            let metrics = catalogue.metrics_of(Span::Hour).map(|metric| metric.name.clone()).collect::<Vec<_>>();
            (catalogue.datasets.contains_key("person_hour"), metrics)
        };
        assert_eq!(of_hours(""), (false, vec![]));
        assert_eq!(of_hours("[window]\nhours = true\n"), (true, vec!["people_served_hourly".to_owned()]));
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
    fn a_listener_off_loopback_needs_a_certificate_and_its_key() {
        for (text, expected) in [
            ("listen = \"0.0.0.0:8430\"", "clear text"),
            ("listen = \"[::]:8430\"\ntoken_file = \"token\"", "clear text"),
            ("tls_key_file = \"a.pem\"", "both or neither"),
            ("connections = 0", "serve.connections"),
            ("statements = 0", "serve.statements"),
        ] {
            let error = format!("{:#}", load(&format!("[serve]\n{text}\n")).expect_err("open door"));
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn sql_off_loopback_needs_a_certificate_and_its_key() {
        for (text, expected) in [
            ("listen = \"0.0.0.0:5433\"", "clear text"),
            ("listen = \"[::]:5433\"", "clear text"),
            ("listen = \"5433\"", "127.0.0.1:5433"),
            ("listen = \"0.0.0.0:5433\"\ntls_cert_file = \"a.pem\"", "both or neither"),
            ("connections = 0", "postgres.connections"),
            ("statements = 0", "postgres.statements"),
        ] {
            let error = format!("{:#}", load(&format!("[postgres]\n{text}\n")).expect_err("open door"));
            assert!(error.contains(expected), "{error}");
        }
        assert!(Config::load(None, &[]).expect("defaults").postgres.listen.is_empty(), "off by default");
    }

    #[test]
    fn flight_sql_off_loopback_needs_a_certificate_and_its_key() {
        for (text, expected) in [
            ("listen = \"0.0.0.0:8431\"", "flight.listen beyond loopback"),
            ("listen = \"[::]:8431\"", "clear text"),
            ("listen = \"8431\"", "127.0.0.1:8431"),
            ("tls_cert_file = \"a.pem\"", "flight.tls_cert_file and flight.tls_key_file: set both or neither"),
            ("connections = 0", "flight.connections"),
            ("statements = 0", "flight.statements"),
        ] {
            let error = format!("{:#}", load(&format!("[flight]\n{text}\n")).expect_err("open door"));
            assert!(error.contains(expected), "{error}");
        }
        assert!(Config::load(None, &[]).expect("defaults").flight.listen.is_empty(), "off by default");
    }

    #[test]
    fn certificates_of_clients_and_tokens_of_a_provider_are_set_whole_or_not_at_all() {
        for (text, expected) in [
            ("[tls]\nclient_ca_file = \"ca.pem\"", "tls.client_ca_file is for doors with a certificate"),
            ("[tls]\nclient_certificates = \"required\"", "needs tls.client_ca_file"),
            ("[tls]\nclient_certificates = \"sometimes\"", "a setting cannot be used"),
            ("[oidc]\nissuer = \"https://id.example.com\"", "oidc.audience"),
            ("[oidc]\naudience = \"starling\"", "oidc.issuer"),
        ] {
            let error = format!("{:#}", load(text).expect_err("half of it"));
            assert!(error.contains(expected), "{error}");
        }
        let whole = "[tls]\nclient_ca_file = \"ca.pem\"\n[flight]\ntls_cert_file = \"a\"\ntls_key_file = \"b\"\n\
                     [oidc]\nissuer = \"https://id.example.com\"\naudience = \"starling\"\nkeys_file = \"keys.json\"\n";
        assert!(load(whole).is_ok());
    }

    #[test]
    fn metrics_may_be_off_but_not_at_an_address_that_is_none() {
        assert_eq!(load("[metrics]\nlisten = \"\"\n").expect("off").metrics.listen, "");
        let error = format!("{:#}", load("[metrics]\nlisten = \"9464\"\n").expect_err("no address"));
        assert!(error.contains("metrics.listen") && error.contains("127.0.0.1:9464"), "{error}");
    }

    #[test]
    fn i4_a_password_in_an_address_is_refused_and_not_repeated() {
        for text in [
            "[files]\nurl = \"s3://AKIA:hunter2@flock\"\n",
            "[files]\nurl = \"s3://flock\"\nendpoint = \"https://AKIA:hunter2@host\"\n",
        ] {
            let error = format!("{:#}", load(text).expect_err("refused"));
            assert!(error.contains("files.") && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn files_are_on_this_machine_unless_a_bucket_is_named() {
        assert!(Config::load(None, &[]).expect("defaults").files.s3().expect("good").is_none());
        let config = load("[files]\nurl = \"s3://flock/prod\"\nendpoint = \"https://store.example:9000\"\n").expect("good");
        assert_eq!(config.files.s3().expect("good").expect("S3").address.bucket, "flock");
        assert!(config.show().expect("toml").contains("s3://flock/prod"));
        let error = format!("{:#}", load("[files]\nendpoint = \"https://host\"\n").expect_err("no bucket"));
        assert!(error.contains("files.url"), "{error}");
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
    fn the_metastore_s_password_is_not_shown_and_its_address_is_checked() {
        let config = load("[metastore]\nurl = \"postgres://me:hunter2@localhost/starling\"\n").expect("good");
        let shown = config.show().expect("toml");
        assert!(shown.contains("postgres://me:(not shown)@localhost/starling"), "{shown}");
        assert!(!format!("{config:?}").contains("hunter2"));
        for (url, expected) in [
            ("hunter2", "metastore.url: the metastore's address must be"),
            ("postgres://me:hunter2@db.example/starling", "sslmode=verify-full"),
            ("postgres://localhost/x?pasword=hunter2", "parameter that is not known"),
        ] {
            let error = format!("{:#}", load(&format!("[metastore]\nurl = \"{url}\"\n")).expect_err("refused"));
            assert!(error.contains(expected) && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let config = load("[kafka]\nproperties = { \"sasl.password\" = \"hunter2\" }\n").expect("good");
        let shown = config.show().expect("toml");
        assert!(shown.contains("sasl.password") && !shown.contains("hunter2"), "{shown}");
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn a_secret_in_the_wrong_place_is_refused_without_being_quoted() {
        for text in [
            "[kafka]\npassword = \"hunter2\"\n",
            "[kafka]\nproperties = \"hunter2\"\n",
            "[kafka.properties]\nsasl.password = [\"hunter2\"]\n",
            "[kafka.properties]\nsasl.password = hunter2\n",
            "[kafka.properties]\nsasl.password = \"hunter2\n",
            "[kafka.property_files]\nsasl.password = [\"hunter2\"]\n",
        ] {
            let error = format!("{:#}", load(text).expect_err("refused"));
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
