//! TLS, SCRAM, client certificates and access rules, against a broker that insists on them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use starling_ingest::{Fault, IngestError, KafkaSource, Producer, TopicReader, create_topic, examine, partitions};

use crate::acl::{self, Operation, Resource};
use crate::brokers::{self, Cluster};
use crate::common::{Scribe, Worker, assert_all, committed, message, open, produce, small, source, wait_for, wait_until};

pub(crate) type Properties = BTreeMap<String, String>;

/// Settings of `user` with SCRAM over TLS.
pub(crate) fn scram(cluster: &Cluster, user: &str, mechanism: &str) -> Properties {
    properties(&[
        ("security.protocol", "SASL_SSL"),
        ("sasl.mechanism", mechanism),
        ("sasl.username", user),
        ("sasl.password", &cluster.password(user)),
        ("ssl.ca.location", &cluster.tls("ca.pem")),
    ])
}

/// Settings of `starling` with a client certificate whose key is encrypted.
fn mutual(cluster: &Cluster) -> Properties {
    properties(&[
        ("security.protocol", "SSL"),
        ("ssl.ca.location", &cluster.tls("ca.pem")),
        ("ssl.certificate.location", &cluster.tls("client.pem")),
        ("ssl.key.location", &cluster.tls("client.key")),
        ("ssl.key.password", &cluster.password("client.key")),
    ])
}

fn properties(list: &[(&str, &str)]) -> Properties {
    // The name `localhost` stands for two addresses, and the brokers listen on one.
    let list = list.iter().chain(&[("broker.address.family", "v4")]);
    list.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn with(properties: &Properties, changes: &[(&str, &str)]) -> Properties {
    let mut properties = properties.clone();
    for (key, value) in changes {
        if value.is_empty() {
            properties.remove(*key);
        } else {
            properties.insert((*key).to_owned(), (*value).to_owned());
        }
    }
    properties
}

/// A source with further settings.
pub(crate) fn secured(brokers: &str, topic: &str, properties: &Properties) -> KafkaSource {
    let mut source = source(brokers, topic, topic);
    source.properties.extend(properties.clone());
    source
}

/// The rules that a job needs and no more: `starling` reads and writes topics `open-…` in groups `open-…`. `stranger` has one half of what it
/// would need: groups `open-…` without their topics, and topics `half-…` without a group.
pub(crate) async fn rules(cluster: &Cluster) {
    use Operation::{RD_KAFKA_ACL_OPERATION_READ as READ, RD_KAFKA_ACL_OPERATION_WRITE as WRITE};
    use Resource::{RD_KAFKA_RESOURCE_GROUP as GROUP, RD_KAFKA_RESOURCE_TOPIC as TOPIC};
    tokio::task::block_in_place(|| {
        acl::allow(cluster.bootstrap(), "starling", READ, TOPIC, "open-");
        acl::allow(cluster.bootstrap(), "starling", WRITE, TOPIC, "open-");
        acl::allow(cluster.bootstrap(), "starling", READ, GROUP, "open-");
        acl::allow(cluster.bootstrap(), "stranger", READ, GROUP, "open-");
        acl::allow(cluster.bootstrap(), "stranger", READ, TOPIC, "half-");
        for topic in ["open-rules", "half-rules"] {
            create_topic(cluster.bootstrap(), topic, 1).expect("topic");
        }
    });
    // The rules are in force a moment after they are made.
    for (user, topic, group) in [("starling", "open-rules", Some("open-rules")), ("stranger", "half-rules", None)] {
        let properties = scram(cluster, user, "SCRAM-SHA-512");
        wait_until("rules to be in force", async || {
            tokio::task::block_in_place(|| examine(cluster.listener("sasl_ssl"), topic, group, &properties)).is_ok()
        })
        .await;
    }
}

async fn takes_a_whole_topic(name: &str, listener: &str, reading: &Properties, writing: &Properties) {
    let cluster = brokers::one();
    rules(&cluster).await;
    let topic = format!("open-{name}");
    let brokers = cluster.listener(listener);
    tokio::task::block_in_place(|| {
        create_topic(cluster.bootstrap(), &topic, 3).expect("topic");
        assert_eq!(partitions(brokers, &topic, reading).expect("partitions"), [0, 1, 2]);
        let producer = Producer::new(brokers, writing).expect("producer");
        for n in 0..2000 {
            (0..3).for_each(|p| producer.send(&topic, Some(p), None, message(p, n).as_bytes()).expect("send"));
        }
        producer.flush(Duration::from_secs(60)).expect("flush");
    });
    let dir = tempfile::tempdir().expect("dir");
    let metastore = open(dir.path()).await;
    let files = dir.path().join("out");
    let worker = Worker::start(secured(brokers, &topic, reading), small(), &metastore, Arc::new(Scribe::new(&files)));
    wait_for(&metastore, &topic, 6000).await;
    worker.stop().await.expect("a clean stop");
    assert_all(&committed(&files, &metastore, &topic).await, 3, 2000);
}

pub(crate) async fn i9_a_topic_is_taken_over_tls_with_scram() {
    let cluster = brokers::one();
    let [long, short] = ["SCRAM-SHA-512", "SCRAM-SHA-256"].map(|mechanism| scram(&cluster, "starling", mechanism));
    takes_a_whole_topic("scram", "sasl_ssl", &long, &short).await;
}

pub(crate) async fn i9_a_topic_is_taken_over_tls_with_a_client_certificate() {
    let properties = mutual(&brokers::one());
    takes_a_whole_topic("mutual", "ssl", &properties, &properties).await;
}

/// What ends a job that is refused. It must end by itself.
async fn refused(brokers: &str, topic: &str, properties: &Properties) -> IngestError {
    let dir = tempfile::tempdir().expect("dir");
    let metastore = open(dir.path()).await;
    let scribe = Arc::new(Scribe::new(&dir.path().join("out")));
    Worker::start(secured(brokers, topic, properties), small(), &metastore, scribe).fails().await
}

/// What whoever looks is told. Brokers have fifteen seconds to answer, and two for what makes an answer plainer; on a busy
/// machine they may need more. So what is told after two seconds and is not what is `wanted` may be no answer of theirs, and
/// they are asked again.
fn looked(
    brokers: &str,
    topic: &str,
    group: Option<&str>,
    properties: &Properties,
    wanted: impl Fn(&Fault) -> bool,
) -> IngestError {
    let mut tries = 0;
    loop {
        let begun = Instant::now();
        let error = tokio::task::block_in_place(|| examine(brokers, topic, group, properties)).expect_err("refused");
        tries += 1;
        let in_time = begun.elapsed() < Duration::from_secs(2);
        if in_time || tries == 4 || matches!(&error, IngestError::Refused(fault) if wanted(fault)) {
            return error;
        }
    }
}

pub(crate) async fn i8_whoever_is_refused_stops_and_is_told_why() {
    let cluster = brokers::one();
    rules(&cluster).await;
    let (scram_port, mutual_port) = (cluster.listener("sasl_ssl"), cluster.listener("ssl"));
    let good = scram(&cluster, "starling", "SCRAM-SHA-512");
    let other_ca = cluster.tls("other-ca.pem");
    let unnamed =
        with(&mutual(&cluster), &[("ssl.certificate.location", ""), ("ssl.key.location", ""), ("ssl.key.password", "")]);
    let other_name = scram_port.replace("localhost", "127.0.0.1");
    let offered = || Fault::Mechanism { offered: String::new() };
    let cases: Vec<(&str, &str, Properties, Fault, Fault)> = vec![
        ("open-rules", scram_port, with(&good, &[("sasl.password", "not-this-one")]), Fault::Credentials, Fault::Credentials),
        ("open-rules", scram_port, with(&good, &[("sasl.username", "nobody")]), Fault::Credentials, Fault::Credentials),
        ("open-rules", scram_port, with(&good, &[("sasl.mechanism", "PLAIN")]), offered(), offered()),
        ("open-rules", scram_port, with(&good, &[("ssl.ca.location", &other_ca)]), Fault::Certificate, Fault::Authority),
        // No authority named: those of this system, none of which signed a test's certificate.
        ("open-rules", scram_port, with(&good, &[("ssl.ca.location", "")]), Fault::Certificate, Fault::Authority),
        ("open-rules", &other_name, good.clone(), Fault::Certificate, Fault::HostName),
        ("open-rules", mutual_port, unnamed.clone(), Fault::ClientCertificate, Fault::ClientCertificate),
        (
            "open-rules",
            mutual_port,
            with(
                &unnamed,
                &[
                    ("ssl.certificate.location", &cluster.tls("other-client.pem")),
                    ("ssl.key.location", &cluster.tls("other-client.key")),
                ],
            ),
            Fault::ClientCertificate,
            Fault::ClientCertificate,
        ),
        ("open-rules", scram_port, scram(&cluster, "stranger", "SCRAM-SHA-256"), Fault::Topic, Fault::Topic),
        ("half-rules", scram_port, scram(&cluster, "stranger", "SCRAM-SHA-256"), Fault::Group, Fault::Group),
    ];
    for (topic, brokers, properties, running, looking) in cases {
        let same = |found: &Fault, wanted: &Fault| match (found, wanted) {
            (Fault::Mechanism { offered }, Fault::Mechanism { .. }) => offered.contains("SCRAM-SHA-512"),
            (found, wanted) => found == wanted,
        };
        let error = refused(brokers, topic, &properties).await;
        assert!(matches!(&error, IngestError::Refused(fault) if same(fault, &running)), "{topic}, {running:?}: {error}");
        let error = looked(brokers, topic, Some(topic), &properties, |fault| same(fault, &looking));
        assert!(matches!(&error, IngestError::Refused(fault) if same(fault, &looking)), "{topic}, {looking:?}: {error}");
        assert!(!error.to_string().contains("not-this-one"), "a password in an error");
    }
    // Found out before anything is sent.
    for (changes, setting) in [
        (vec![("ssl.key.password", "not-this-one")], "ssl.key.location"),
        (vec![("ssl.ca.location", "/no/such/file")], "ssl.ca.location"),
        (vec![("ssl.certificate.location", "/no/such/file")], "ssl.certificate.location"),
    ] {
        let error = refused(mutual_port, "open-rules", &with(&mutual(&cluster), &changes)).await;
        assert!(matches!(&error, IngestError::Setting { key, .. } if key == setting), "{setting}: {error}");
        assert!(!error.to_string().contains("not-this-one"), "a password in an error");
    }
}

/// Nobody answers in these cases, so a job would wait; who asks is told what is likeliest.
pub(crate) async fn i8_what_does_not_answer_is_told_from_what_is_not_there() {
    let cluster = brokers::one();
    let good = scram(&cluster, "starling", "SCRAM-SHA-512");
    let plain = properties(&[]);
    let cases = [
        (cluster.bootstrap(), &good, Fault::Protocol { spoken: "SASL_SSL".into() }),
        (cluster.listener("sasl_ssl"), &plain, Fault::Protocol { spoken: "PLAINTEXT".into() }),
        // Nobody listens there.
        ("127.0.0.1:1", &good, Fault::Unreachable),
        ("no-such-host.invalid:9092", &plain, Fault::Unreachable),
    ];
    for (brokers, properties, wanted) in cases {
        let error = looked(brokers, "open-rules", None, properties, |fault| *fault == wanted);
        assert!(matches!(&error, IngestError::Refused(fault) if *fault == wanted), "{wanted:?}: {error}");
    }
}

pub(crate) async fn a_reader_without_a_group_needs_no_rule_for_one() {
    let cluster = brokers::one();
    rules(&cluster).await;
    tokio::task::block_in_place(|| create_topic(cluster.bootstrap(), "half-reader", 1).expect("topic"));
    produce(cluster.bootstrap(), "half-reader", 1, 0, 3);
    let properties = scram(&cluster, "stranger", "SCRAM-SHA-256");
    let brokers = cluster.listener("sasl_ssl");
    tokio::task::block_in_place(|| {
        let mut reader = TopicReader::open(brokers, "half-reader", BTreeMap::from([(0, 0)]), &properties).expect("reader");
        let begun = Instant::now();
        let mut read = 0;
        // Longer than the messages take: the group's coordinator is asked for in the meantime, and denied.
        while read < 3 || begun.elapsed() < Duration::from_secs(5) {
            read += usize::from(reader.poll(Duration::from_millis(100)).expect("read").is_some());
            assert!(begun.elapsed() < Duration::from_secs(60), "{read} of 3 messages");
        }
    });
}

pub(crate) async fn a_producer_that_is_refused_is_told_why() {
    let cluster = brokers::one();
    rules(&cluster).await;
    let brokers = cluster.listener("sasl_ssl");
    let good = scram(&cluster, "starling", "SCRAM-SHA-512");
    tokio::task::block_in_place(|| create_topic(cluster.bootstrap(), "closed-to-all", 1).expect("topic"));
    produce(cluster.bootstrap(), "closed-to-all", 1, 0, 1);
    for (properties, wanted) in [
        (with(&good, &[("sasl.password", "not-this-one")]), Fault::Credentials),
        (with(&good, &[("ssl.ca.location", &cluster.tls("other-ca.pem"))]), Fault::Certificate),
        (good, Fault::Topic),
    ] {
        let error = tokio::task::block_in_place(|| {
            let producer = Producer::new(brokers, &properties).expect("producer");
            producer.send("closed-to-all", Some(0), None, b"never seen").and_then(|()| producer.flush(Duration::from_secs(120)))
        })
        .expect_err("refused");
        assert!(matches!(&error, IngestError::Refused(fault) if *fault == wanted), "{wanted:?}: {error}");
    }
}
