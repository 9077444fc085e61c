//! `starling doctor` looks at topics of a real broker: whether they are there, how long they are kept, and whether they have the partitions they need.

use std::collections::BTreeMap;

use starling_ingest::admin::create_topic_with;

use crate::Brokers;
use crate::support::{starling, told};

pub(crate) fn the_doctor_finds_what_is_wrong_with_topics() {
    let dir = tempfile::tempdir().expect("dir");
    let brokers = Brokers::start(&dir.path().join("kafka"));
    let make = |topic: &str, partitions: i32, settings: &[(&str, &str)]| {
        create_topic_with(&brokers.bootstrap, topic, partitions, -1, settings, &BTreeMap::new()).expect("topic");
    };
    make("good", 2, &[("retention.ms", "86400000"), ("segment.ms", "3600000")]);
    // A week of `segment.ms`, which is what brokers have by default, comes on top.
    make("quiet", 1, &[("retention.ms", "2505600000"), ("segment.ms", "604800000")]);
    make("short", 1, &[("retention.ms", "60000")]);
    make("for-ever", 1, &[("retention.ms", "-1")]);
    make("compacted", 1, &[("retention.ms", "86400000"), ("cleanup.policy", "compact")]);
    make("integrity.signals", 2, &[]);
    make("integrity.alerts", 1, &[]);
    for (topic, signals, good, words) in [
        ("good", 2, true, "topic `good` is kept 24h, and where little is written up to 25h (`segment.ms`); numbers are gone"),
        ("quiet", 2, false, "topic `quiet` is kept up to 864h (`retention.ms` and `segment.ms`"),
        ("good", 3, false, "topic `integrity.signals` has 2 partitions and signals.partitions is 3"),
        ("short", 2, false, "topic `short` is kept 1m (`retention.ms`), and late events count for 1h"),
        ("for-ever", 2, false, "topic `for-ever` is kept for ever"),
        ("compacted", 2, false, "topic `compacted` is compacted"),
        ("misspelt", 2, false, "topic `misspelt`"),
    ] {
        let text = format!(
            "[kafka]\nbrokers = \"{}\"\ntopic = \"{topic}\"\n[signals]\ntransport = \"kafka\"\npartitions = {signals}\n\
             [serve]\nlisten = \"127.0.0.1:0\"\n[metrics]\nlisten = \"\"\n",
            brokers.bootstrap
        );
        let settings = dir.path().join("starling.toml");
        std::fs::write(&settings, text).expect("settings");
        let mut doctor = starling();
        doctor.args(["doctor", "--config"]).arg(&settings).arg("--data-dir").arg(dir.path().join("data"));
        let output = doctor.output().expect("starts");
        let said = told(&output);
        assert_eq!(output.status.success(), good, "{topic}: {said}");
        let line = said.lines().find(|line| line.contains(words)).unwrap_or_else(|| panic!("{topic}: {said}"));
        assert_eq!(line.starts_with("ok"), good, "{topic}: {said}");
        // Nothing else is wrong with it.
        assert_eq!(said.lines().filter(|line| line.starts_with("FAIL")).count(), usize::from(!good), "{topic}: {said}");
    }
}
