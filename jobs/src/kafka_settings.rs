//! Settings of the Kafka clients, and the secrets among them: from the settings file, from files of their own, or from the environment. They
//! are printed nowhere.
//!
//! ```toml
//! [kafka.properties]                                # librdkafka's names
//! security.protocol = "SASL_SSL"
//! sasl.mechanism = "SCRAM-SHA-512"
//! sasl.username = "starling"
//!
//! [kafka.property_files]                            # name → file that holds the value
//! sasl.password = "/run/secrets/kafka-password"
//! ```
//!
//! `STARLING_KAFKA__PROPERTIES__SASL_PASSWORD` sets the same; a name's dots are underscores there. No flag takes a secret: whoever may list
//! processes sees flags. Files are read when a client is made, not before, so that `starling sql` needs no right to read them.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use starling_ingest::is_secret;

use crate::config::Kafka;

/// What stands for a secret where settings are shown.
const NOT_SHOWN: &str = "(set, not shown)";

/// librdkafka's settings by name. `Debug` and `Serialize` leave secrets out.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Properties(BTreeMap<String, String>);

impl Properties {
    fn shown(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), if is_secret(name) { NOT_SHOWN } else { value.as_str() }))
    }

    /// Whether a secret stands here.
    #[must_use]
    pub fn hold_a_secret(&self) -> bool {
        self.0.keys().any(|name| is_secret(name))
    }
}

impl Deref for Properties {
    type Target = BTreeMap<String, String>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl std::fmt::Debug for Properties {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.shown()).finish()
    }
}

impl Serialize for Properties {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.shown())
    }
}

impl<'de> Deserialize<'de> for Properties {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        flat(deserializer).map(Self)
    }
}

/// A value, or a table of them: TOML reads `sasl.password = "…"` as a table `sasl`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Node {
    Table(BTreeMap<String, Node>),
    Text(String),
    Switch(bool),
    Whole(i64),
    Number(f64),
    /// Read so that it can be refused without being quoted.
    Other(serde::de::IgnoredAny),
}

/// Names with dots, however they were written.
///
/// # Errors
/// A value that is no text, number or switch. The error names the setting and does not quote the value.
pub fn flat<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    fn add<E: serde::de::Error>(name: String, node: Node, out: &mut BTreeMap<String, String>) -> Result<(), E> {
        let value = match node {
            Node::Table(nodes) => {
                for (part, node) in nodes {
                    add(if name.is_empty() { part } else { format!("{name}.{part}") }, node, out)?;
                }
                return Ok(());
            }
            Node::Text(text) => text,
            Node::Switch(switch) => switch.to_string(),
            Node::Whole(number) => number.to_string(),
            Node::Number(number) => number.to_string(),
            Node::Other(_) => return Err(E::custom(format!("`{name}` is no text, number or true or false"))),
        };
        if name.is_empty() {
            return Err(E::custom("a table of names and values is wanted here"));
        }
        out.insert(name, value);
        Ok(())
    }
    let mut out = BTreeMap::new();
    add(String::new(), Node::deserialize(deserializer)?, &mut out)?;
    Ok(out)
}

impl Kafka {
    /// Takes over settings from variables: `properties.sasl_password`, `property_files.sasl_password`.
    pub(crate) fn take_variables(&mut self, variables: impl Iterator<Item = (String, String)>) {
        for (name, value) in variables {
            if let Some(name) = name.strip_prefix("properties.") {
                let name = name.replace('_', ".");
                self.property_files.remove(&name);
                self.properties.0.insert(name, value);
            } else if let Some(name) = name.strip_prefix("property_files.") {
                let name = name.replace('_', ".");
                self.properties.0.remove(&name);
                self.property_files.insert(name, value);
            }
        }
    }

    /// Everything that a client is to be given, secrets included.
    ///
    /// # Errors
    /// A file that cannot be read or is empty, and a setting that is given twice.
    pub fn client_properties(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let mut all = self.properties.0.clone();
        for (name, file) in &self.property_files {
            let text = std::fs::read_to_string(file)
                .map_err(|error| error.kind())
                .map_err(|kind| anyhow::anyhow!("{kind}"))
                .with_context(|| format!("kafka.property_files, `{name}`: {file} cannot be read"))?;
            // The line's end that editors and `echo` add is not part of a password.
            let value = text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
            ensure!(!value.is_empty(), "kafka.property_files, `{name}`: {file} is empty");
            if all.insert(name.clone(), value.to_owned()).is_some() {
                bail!("kafka: `{name}` is set in properties and in property_files; leave one of them out");
            }
        }
        Ok(all)
    }

    /// Files that hold secrets, `settings` among them if it does, and that everybody on this machine may read.
    #[cfg(unix)]
    #[must_use]
    pub fn readable_by_all(&self, settings: Option<&Path>) -> Vec<String> {
        use std::os::unix::fs::PermissionsExt as _;
        let files = self.property_files.iter().filter(|(name, _)| is_secret(name)).map(|(_, file)| Path::new(file));
        files
            .chain(settings.filter(|_| self.properties.hold_a_secret()))
            .filter(|file| std::fs::metadata(file).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0))
            .map(|file| file.display().to_string())
            .collect()
    }

    /// Other systems keep rights elsewhere.
    #[cfg(not(unix))]
    #[must_use]
    pub fn readable_by_all(&self, _: Option<&Path>) -> Vec<String> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize, Serialize)]
    struct Sample {
        properties: Properties,
    }

    #[test]
    fn names_may_be_quoted_or_not_and_values_be_numbers() {
        let text = "[properties]\nsasl.username = \"me\"\n\"sasl.password\" = \"hunter2\"\nssl.key.location = \"k\"\nlinger.ms = 5\n\
                    enable.idempotence = true\n";
        let sample: Sample = toml::from_str(text).expect("good");
        let found: Vec<_> = sample.properties.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let expected = [
            ("enable.idempotence", "true"),
            ("linger.ms", "5"),
            ("sasl.password", "hunter2"),
            ("sasl.username", "me"),
            ("ssl.key.location", "k"),
        ];
        assert_eq!(found, expected);
        for shown in [format!("{sample:?}"), toml::to_string(&sample).expect("TOML")] {
            assert!(shown.contains("sasl.password") && shown.contains("me") && !shown.contains("hunter2"), "{shown}");
        }
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_refused_without_being_quoted() {
        for text in ["properties = \"hunter2\"", "[properties]\nsasl.password = [\"hunter2\"]", "properties = [\"hunter2\"]"] {
            let error = toml::from_str::<Sample>(text).expect_err("refused");
            assert!(!error.message().contains("hunter2"), "{}", error.message());
        }
    }

    fn kafka(property_files: &[(&str, &str)]) -> Kafka {
        let property_files = property_files.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Kafka {
            brokers: String::new(),
            topic: String::new(),
            group: String::new(),
            properties: Properties::default(),
            property_files,
        }
    }

    #[test]
    fn a_secret_comes_from_a_file_without_its_line_end() {
        let dir = tempfile::tempdir().expect("dir");
        let file = dir.path().join("password");
        let path = file.to_str().expect("text");
        for (text, value) in [("hunter2", "hunter2"), ("hunter2\n", "hunter2"), ("hunter2\r\n", "hunter2"), (" a b \n", " a b ")]
        {
            std::fs::write(&file, text).expect("written");
            let kafka = kafka(&[("sasl.password", path)]);
            assert_eq!(kafka.client_properties().expect("read")["sasl.password"], value);
        }
        std::fs::write(&file, "\n").expect("written");
        let error = format!("{:#}", kafka(&[("sasl.password", path)]).client_properties().expect_err("empty"));
        assert!(error.contains("sasl.password") && error.contains("is empty"), "{error}");
        let error = format!("{:#}", kafka(&[("sasl.password", "/no/such/file")]).client_properties().expect_err("missing"));
        assert!(error.contains("sasl.password") && error.contains("/no/such/file"), "{error}");
    }

    #[test]
    fn variables_win_over_both() {
        let mut kafka = kafka(&[("sasl.password", "/no/such/file")]);
        kafka.properties.0.insert("ssl.key.password".into(), "old".into());
        let variables = [("properties.sasl_password", "hunter2"), ("property_files.ssl_key_password", "/file")];
        kafka.take_variables(variables.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())));
        assert_eq!(kafka.properties["sasl.password"], "hunter2");
        assert!(!kafka.property_files.contains_key("sasl.password") && !kafka.properties.contains_key("ssl.key.password"));
        assert_eq!(kafka.property_files["ssl.key.password"], "/file");
    }

    #[test]
    fn a_secret_given_twice_is_refused() {
        let dir = tempfile::tempdir().expect("dir");
        let file = dir.path().join("password");
        std::fs::write(&file, "hunter2").expect("written");
        let mut kafka = kafka(&[("sasl.password", file.to_str().expect("text"))]);
        kafka.properties.0.insert("sasl.password".into(), "hunter3".into());
        let error = format!("{:#}", kafka.client_properties().expect_err("twice"));
        assert!(error.contains("sasl.password") && !error.contains("hunter"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn a_secret_that_everybody_may_read_is_found() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().expect("dir");
        let file = dir.path().join("password");
        std::fs::write(&file, "hunter2").expect("written");
        let kafka = kafka(&[("sasl.password", file.to_str().expect("text"))]);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("mode");
        assert_eq!(kafka.readable_by_all(None).len(), 1);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).expect("mode");
        assert!(kafka.readable_by_all(None).is_empty());
    }
}
