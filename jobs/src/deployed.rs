//! What stands in `jobs/deploy`, held against the commands and settings there are.

use serde_json::Value;
use yaml_rust2::{Yaml, YamlLoader};

/// The documents of a YAML file.
pub fn yaml(text: &str) -> Vec<Value> {
    YamlLoader::load_from_str(text).expect("YAML").iter().map(as_json).collect()
}

fn as_json(yaml: &Yaml) -> Value {
    match yaml {
        Yaml::Integer(number) => Value::from(*number),
        Yaml::Real(text) => text.parse::<f64>().map_or(Value::Null, Value::from),
        Yaml::String(text) => Value::from(text.as_str()),
        Yaml::Boolean(yes) => Value::from(*yes),
        Yaml::Array(list) => list.iter().map(as_json).collect(),
        Yaml::Hash(map) => map.iter().map(|(key, value)| (key.as_str().expect("a name").to_owned(), as_json(value))).collect(),
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::net::SocketAddr;
    use std::path::{Path, PathBuf};

    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};
    use crate::config::Config;

    fn deploy() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
    }

    fn read(name: &str) -> String {
        std::fs::read_to_string(deploy().join(name)).unwrap_or_else(|_| panic!("{name}"))
    }

    /// The job that a command line starts, and its settings file.
    fn job(words: &[&str]) -> (&'static str, Option<PathBuf>) {
        let line = std::iter::once("starling").chain(words.iter().copied());
        let cli = Cli::try_parse_from(line).unwrap_or_else(|error| panic!("{words:?}: {error}"));
        let job = match &cli.command {
            Command::Run(run) if run.trace.is_none() => "run",
            Command::Ingest { command: None, .. } => "ingest",
            Command::Close(close) if close.watch.watch => "windows",
            Command::Integrity { command: None } => "integrity",
            Command::Serve { .. } => "serve",
            other => panic!("{words:?} does not stay: {other:?}"),
        };
        (job, cli.global.config)
    }

    /// Settings that are made of these variables, as a process that has them would read them.
    fn settings(variables: &[(String, String)]) -> Config {
        let flags: Vec<(String, String)> = crate::config::environment(variables.iter().cloned())
            .into_iter()
            .filter(|(name, _)| !name.starts_with("kafka.prop"))
            .collect();
        let flags: Vec<(&str, String)> = flags.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        Config::load(None, &flags).unwrap_or_else(|error| panic!("{variables:?}: {error:#}"))
    }

    fn variables(unit: &str) -> Vec<(String, String)> {
        let lines = unit.lines().filter_map(|line| line.strip_prefix("Environment="));
        lines
            .flat_map(|line| line.split(' '))
            .map(|pair| pair.split_once('=').expect("a pair"))
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect()
    }

    /// The steps in a file's comments that make a user, as the command line reads them.
    fn makes_a_user(text: &str) -> bool {
        let comments = text.lines().filter(|line| line.starts_with('#'));
        comments.filter_map(|line| line.split_once("starling users add ")).any(|(_, words)| {
            let line = ["starling", "users", "add"].into_iter().chain(words.split_whitespace());
            let cli = Cli::try_parse_from(line).unwrap_or_else(|error| panic!("{words}: {error}"));
            matches!(cli.command, Command::Users { .. })
        })
    }

    /// A door that wants somebody who may log in keeps its job from starting while there is nobody. `steps` says how settings
    /// are put to use.
    fn assert_opens_no_door_without_users(config: &Config, steps: &str) {
        let serve: SocketAddr = config.serve.listen.parse().expect("an address");
        let beyond = !serve.ip().is_loopback() && config.serve.token_file.is_empty();
        let needs_users = beyond || !config.postgres.listen.is_empty() || !config.flight.listen.is_empty();
        assert!(!needs_users || makes_a_user(steps), "postgres.listen in a shipped file requires a users step: {steps}");
    }

    #[test]
    fn units_start_jobs_that_there_are_each_with_an_address_of_its_own() {
        let mut jobs = BTreeMap::new();
        for name in ["ingest", "windows", "integrity", "serve"] {
            let unit = read(&format!("systemd/starling-{name}.service"));
            let lines: Vec<&str> = unit.lines().filter_map(|line| line.strip_prefix("ExecStart=/usr/bin/starling ")).collect();
            let [line] = lines.as_slice() else { panic!("{name}: {lines:?}") };
            let (started, config) = job(&line.split(' ').collect::<Vec<_>>());
            assert_eq!((started, config), (name, Some(PathBuf::from("/etc/starling/starling.toml"))));
            let own = settings(&variables(&unit));
            assert_opens_no_door_without_users(&own, &unit);
            jobs.insert(own.metrics.listen, name);
            assert!(read("systemd/starling.target").contains(&format!("starling-{name}.service")), "{name}");
        }
        assert_eq!(jobs.len(), 4, "{jobs:?}");
        // All of them are scraped, and nothing else: a target that nobody answers at is an alert.
        let prometheus = yaml(&read("prometheus.yaml")).remove(0);
        let scraped = &prometheus["scrape_configs"][0];
        let targets: BTreeSet<&str> = words(&scraped["static_configs"][0]["targets"]).into_iter().collect();
        assert_eq!(targets, jobs.keys().map(String::as_str).collect::<BTreeSet<_>>());
        // Alerts ask for the job by this name.
        assert_eq!(scraped["job_name"], "starling");
        assert!(read("alerts.yaml").contains("up{job=\"starling\"}"));
    }

    #[test]
    fn what_a_secret_is_handed_to_is_a_setting() {
        let text = read("systemd/secrets.conf");
        let credentials: BTreeSet<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("LoadCredential="))
            .map(|line| line.split(':').next().expect("a name"))
            .collect();
        let variables = variables(&text);
        for (name, value) in &variables {
            let credential = value.strip_prefix("%d/").unwrap_or_else(|| panic!("{name}: {value}"));
            assert!(credentials.contains(credential), "{name}: {value}");
        }
        let kafka = variables.iter().find(|(name, _)| name == "STARLING_KAFKA__PROPERTY_FILES__SASL_PASSWORD").expect("kafka");
        let mut of_kafka = settings(&[]).kafka;
        let (name, _) = crate::config::environment(std::iter::once(kafka.clone())).remove(0);
        of_kafka.take_variables(std::iter::once((name.strip_prefix("kafka.").expect("kafka").to_owned(), kafka.1.clone())));
        assert_eq!(of_kafka.property_files["sasl.password"], "%d/kafka");
        let mut with_url = variables.clone();
        with_url.push(("STARLING_ALERTS__WEBHOOKS__SIEM__URL".to_owned(), "https://siem.example/".to_owned()));
        let config = settings(&with_url);
        assert_eq!(config.alerts.webhooks["siem"].secret_file, "%d/siem");
        assert_eq!((config.serve.tls_key_file.as_str(), config.postgres.tls_cert_file.as_str()), ("%d/tls.key", "%d/tls.crt"));
    }

    #[test]
    fn settings_files_are_good_and_name_what_is_mounted() {
        for folder in ["systemd", "kubernetes"] {
            let path = deploy().join(folder).join("starling.toml");
            let config = Config::load(Some(&path), &[]).unwrap_or_else(|error| panic!("{error:#}"));
            assert!(config.kafka.brokers.contains(":9093"), "{folder}");
            let steps = if folder == "systemd" { "systemd/starling.target" } else { "kubernetes/kustomization.yaml" };
            assert_opens_no_door_without_users(&config, &read(steps));
            if folder == "systemd" {
                continue;
            }
            // The doors' files are what `kubectl create secret tls` calls them, where the pods have that secret.
            assert!(read(steps).contains("create secret tls starling-tls "));
            let doors = [
                (&config.serve.tls_cert_file, &config.serve.tls_key_file),
                (&config.postgres.tls_cert_file, &config.postgres.tls_key_file),
            ];
            for (name, template) in workloads() {
                let (spec, named) = (&template["spec"], |entry: &&Value| entry["name"] == "tls");
                let mount = spec["containers"][0]["volumeMounts"].as_array().expect("mounts").iter().find(named);
                let volume = spec["volumes"].as_array().expect("volumes").iter().find(named);
                // The doctor is run in windows.
                let expected = ["serve", "windows"].contains(&name.as_str());
                assert_eq!((mount.is_some(), volume.is_some()), (expected, expected), "{name}");
                let (Some(mount), Some(volume)) = (mount, volume) else { continue };
                assert_eq!(volume["secret"]["secretName"], "starling-tls", "{name}");
                let folder = mount["mountPath"].as_str().expect("a path");
                for (certificate, key) in doors {
                    assert_eq!((certificate, key), (&format!("{folder}/tls.crt"), &format!("{folder}/tls.key")), "{name}");
                }
            }
        }
    }

    /// The workloads: each one's name and the spec of its pods.
    fn workloads() -> Vec<(String, Value)> {
        let mut found = Vec::new();
        for file in ["ingest", "windows", "integrity", "serve"] {
            for document in yaml(&read(&format!("kubernetes/{file}.yaml"))) {
                if document["kind"] == "Deployment" {
                    found.push((file.to_owned(), document["spec"]["template"].clone()));
                }
            }
        }
        assert_eq!(found.len(), 4);
        found
    }

    fn words(list: &Value) -> Vec<&str> {
        list.as_array().expect("a list").iter().map(|word| word.as_str().expect("a word")).collect()
    }

    #[test]
    fn pods_start_jobs_that_there_are_with_the_settings_and_doors_they_are_given() {
        let config = Config::load(Some(&deploy().join("kubernetes/starling.toml")), &[]).expect("settings");
        let port = |listen: &str| listen.rsplit_once(':').expect("an address").1.parse::<u64>().expect("a port");
        for (name, template) in workloads() {
            let spec = &template["spec"];
            let container = &spec["containers"][0];
            let (started, file) = job(&words(&container["args"]));
            assert_eq!(started, name);
            let mounted: Vec<&str> = container["volumeMounts"]
                .as_array()
                .expect("mounts")
                .iter()
                .map(|mount| mount["mountPath"].as_str().expect("a path"))
                .collect();
            let is_mounted = |path: &Path| mounted.iter().any(|mount| path.starts_with(mount));
            assert!(file.is_some_and(|file| is_mounted(&file)), "{name}: settings");
            assert!(is_mounted(&config.data_dir), "{name}: data");
            // A folder on the volume, whose own rights are the driver's.
            assert!(!mounted.iter().any(|mount| config.data_dir == Path::new(mount)), "{name}");
            for file in config.kafka.property_files.values() {
                assert!(is_mounted(Path::new(file)), "{name}: {file}");
            }
            let doors = [port(&config.metrics.listen), port(&config.serve.listen), port(&config.postgres.listen)];
            let ports: BTreeMap<&str, u64> = container["ports"]
                .as_array()
                .expect("ports")
                .iter()
                .map(|p| (p["name"].as_str().expect("a name"), p["containerPort"].as_u64().expect("a port")))
                .collect();
            let expected = if name == "serve" { &doors[..] } else { &doors[..1] };
            assert_eq!(
                [ports.get("metrics"), ports.get("https"), ports.get("postgres")]
                    .into_iter()
                    .flatten()
                    .copied()
                    .collect::<Vec<_>>(),
                expected,
                "{name}"
            );
            for (probe, path) in [("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")] {
                assert_eq!(
                    (&container[probe]["httpGet"]["path"], &container[probe]["httpGet"]["port"]),
                    (&path.into(), &"metrics".into()),
                    "{name}"
                );
            }
            assert_eq!(template["metadata"]["annotations"]["prometheus.io/port"], doors[0].to_string());
            assert_eq!(container["image"], format!("registry.example/starling:{}", env!("CARGO_PKG_VERSION")));
            // What is stopped is given the time it takes.
            assert!(spec["terminationGracePeriodSeconds"].as_u64() > Some(10));
        }
        let kustomization = yaml(&read("kubernetes/kustomization.yaml")).remove(0);
        assert_eq!(kustomization["images"][0]["newTag"], env!("CARGO_PKG_VERSION"));
    }

    #[test]
    fn the_compose_file_starts_a_job_that_there_is_with_settings_that_there_are() {
        let text = read("compose.yaml");
        let compose = yaml(&text).remove(0);
        let starling = &compose["services"]["starling"];
        assert_eq!(job(&words(&starling["command"])).0, "run");
        let environment = starling["environment"].as_object().expect("variables");
        // Without a value it is passed on from whoever starts it, where it is set.
        let mut variables: Vec<(String, String)> = environment
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.clone(), value.as_str().expect("text").to_owned()))
            .collect();
        variables.push(("STARLING_KAFKA__BROKERS".to_owned(), "127.0.0.1:9092".to_owned()));
        let config = settings(&variables);
        assert_eq!(config.files.s3().expect("good").expect("S3").address.bucket, "starling");
        assert!(config.metastore.url.starts_with("postgres://"));
        // The command that is documented first must work by itself; the step that makes users comes after it.
        assert_eq!(config.postgres.listen, "", "postgres.listen keeps it from starting while there are no users");
        assert!(environment["STARLING_POSTGRES__LISTEN"].is_null() && makes_a_user(&text));
        variables.push(("STARLING_POSTGRES__LISTEN".to_owned(), "127.0.0.1:5433".to_owned()));
        let with_users = settings(&variables);
        assert!(text.contains(&format!("STARLING_POSTGRES__LISTEN={} docker compose", with_users.postgres.listen)));
        // The topics that are made are those that are read and written.
        let topics = compose["services"]["topics"]["command"][0].as_str().expect("a script").to_owned();
        for topic in [&config.kafka.topic, &config.signals.topic, &config.alerts.topic] {
            assert!(topics.contains(&format!("make {topic} --partitions")), "{topic}");
        }
        let kept = format!("make {} --partitions {}", config.signals.topic, config.signals.partitions);
        assert!(topics.contains(&kept), "{kept}");
        // Whole segments are deleted: where that is not said, an event may be kept for a week more.
        let of_a_day: Vec<&str> = topics.lines().filter(|line| line.contains("retention.ms=86400000")).collect();
        assert!(of_a_day.len() == 2 && of_a_day.iter().all(|line| line.contains("segment.ms=3600000")), "{of_a_day:?}");
    }

    #[test]
    fn the_image_is_built_from_all_members_with_the_version_of_rust_that_is_asked_for() {
        let dockerfile = read("Dockerfile");
        let workspace = std::fs::read_to_string(deploy().join("../../Cargo.toml")).expect("manifest");
        let manifest: toml::Table = workspace.parse().expect("TOML");
        let members = manifest["workspace"]["members"].as_array().expect("members");
        let copied: BTreeSet<&str> =
            dockerfile.lines().filter_map(|line| line.strip_prefix("COPY ")).flat_map(|line| line.split(' ')).collect();
        for member in members {
            let top = member.as_str().expect("text").split('/').next().expect("a folder");
            assert!(copied.contains(top), "{top}");
        }
        let rust = manifest["workspace"]["package"]["rust-version"].as_str().expect("a version");
        assert!(dockerfile.contains(&format!("FROM rust:{rust}-")), "{rust}");
        assert!(dockerfile.contains("ENTRYPOINT [\"/usr/bin/starling\"]") && dockerfile.contains("\nUSER 65532:65532\n"));
    }
}
