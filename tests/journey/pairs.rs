//! Who writes slowly to many strangers: simulate → run --trace → an alert, and what is left of who wrote to whom.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use arrow::array::{Array as _, AsArray as _};
use arrow::datatypes::{TimestampMillisecondType, UInt8Type};
use starling_ingest::{EmbeddedBroker, Producer, TopicReader};
use starling_schemas::codes::SignalKind;
use starling_schemas::event::{Event, MessageSent, event::Body};
use starling_schemas::ids::{DAY_MS, EpochId, Purpose};
use starling_schemas::signals::SignalBatch;
use starling_store::{KeyId, KeyKind, unseal};

use crate::service::{Service, wait_until};
use crate::support::{
    NOON_MS, alerts, comparable_alerts, envelope, files_below, frame, open, run_trace, runtime, simulate, starling, status,
    succeed, with_known_keys, write_trace,
};

/// The integrity key of a day, of those that [`with_known_keys`] made, while it is there.
fn integrity_keys(data: &Path) -> Vec<(EpochId, [u8; 32])> {
    let (_, _, keyring) = runtime().block_on(open(data));
    (1..16)
        .map(|day| EpochId::parse(&format!("2026-01-{day:02}")).expect("a day"))
        .map(|epoch| {
            let id = KeyId { kind: KeyKind::Pseudonym, purpose: Purpose::Integrity, epoch };
            (epoch, *keyring.get(id).expect("keyring").expect("a key").expose())
        })
        .collect()
}

#[test]
fn a_slow_bulk_sender_is_alerted_with_its_evidence_and_nobody_innocent_is_and_the_pair_keys_die() {
    let dir = tempfile::tempdir().expect("dir");
    let (trace, truth) = simulate(dir.path(), 1_000, 6, 7, &[]);
    let [data, again] = ["data", "again"].map(|name| dir.path().join(name));
    with_known_keys(&data);
    let keys = integrity_keys(&data);
    run_trace(&trace, &data);

    // Whom an alert may mean: the slow one, and those who wrote to hundreds of strangers at once, whom nobody answered either.
    let strangers = ["slow_bulk", "bought_replies", "fast_bulk", "new_account_burst", "coordinated"];
    let mut guilty = BTreeMap::new();
    for planted in truth["abusers"].as_array().expect("abusers") {
        let kind = planted["kind"].as_str().expect("a kind");
        for (epoch, key) in keys.iter().filter(|_| strangers.contains(&kind)) {
            let number = planted["subject"].as_str().expect("a number");
            let keyed = starling_minimize::keyed_subject(number, key, Purpose::Integrity, *epoch).expect("a number");
            guilty.insert((epoch.to_string(), keyed.iter().map(|b| format!("{b:02x}")).collect::<String>()), kind);
        }
    }
    let told = alerts(&data);
    let slow: Vec<_> = told.iter().filter(|alert| alert["rule"] == "slow_bulk").collect();
    let mut found = BTreeSet::new();
    for alert in &slow {
        let subject = (text(&alert["subject"]["epoch"]), text(&alert["subject"]["value"]));
        found.insert(*guilty.get(&subject).unwrap_or_else(|| panic!("an alert on somebody innocent: {alert}")));
    }
    assert!(found.contains("slow_bulk"), "the slow one was not found: {told:?}");

    // Those who were registered together are found together, and nobody else is for that.
    let together: BTreeSet<_> = told
        .iter()
        .filter(|alert| alert["rule"] == "coordinated_senders")
        .map(|alert| {
            let (observed, threshold) = (alert["observed"].as_u64(), alert["threshold"].as_u64());
            assert!(observed >= threshold && threshold >= Some(10), "{alert}");
            let subject = (text(&alert["subject"]["epoch"]), text(&alert["subject"]["value"]));
            assert_eq!(guilty.get(&subject), Some(&"coordinated"), "an alert on somebody innocent: {alert}");
            subject.1
        })
        .collect();
    assert!(together.len() >= 25, "{} of 30 and more: {told:?}", together.len());

    // The explanation is told again by the counters: unanswered × gain − answered × loss is at the threshold or above.
    for alert in slow {
        let explanation = text(&alert["explanation"]);
        let numbers: Vec<i64> = explanation.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect();
        let unanswered = alert["observed"].as_i64().expect("observed");
        assert_eq!(numbers.first(), Some(&unanswered), "{explanation}");
        let [.., gain, loss, threshold] = numbers[..] else { panic!("{explanation}") };
        assert!(unanswered * gain >= threshold && loss > gain && Some(unanswered) >= alert["threshold"].as_i64(), "{alert}");
        assert!(explanation.contains("accounts") && explanation.contains("nothing unusual"), "{explanation}");
        let window = &alert["window"];
        assert!(window["start_ms"].as_i64() < window["end_ms"].as_i64(), "{alert}");
    }

    // I9: the same again, under the same keys.
    with_known_keys(&again);
    run_trace(&trace, &again);
    assert_eq!(comparable_alerts(&again), comparable_alerts(&data));

    // I7: every pair key that made a token is gone, with a receipt.
    let status = status(&data);
    let pairs: Vec<(&str, &str)> = status["keys"]
        .as_array()
        .expect("keys")
        .iter()
        .filter_map(|k| Some((k["key"].as_str()?, k["state"].as_str()?)))
        .filter(|(key, _)| key.starts_with("pair/") && key.ends_with("/pseudonym"))
        .collect();
    assert!(pairs.len() >= 7 && pairs.iter().all(|(_, state)| state.starts_with("destroyed")), "{pairs:?}");
    let tail = succeed(starling().args(["audit", "tail", "--lines", "1000", "--data-dir"]).arg(&data));
    for (key, _) in pairs {
        assert!(tail.lines().any(|l| l.contains("key_destroyed") && l.contains(key)), "no receipt of {key}: {tail}");
    }
}

fn text(value: &serde_json::Value) -> String {
    value.as_str().expect("text").to_owned()
}

fn number(person: usize) -> String {
    format!("49151{person:08}")
}

/// People who write to each other: (from, to, time).
type Messages = Vec<(usize, usize, i64)>;

/// Ten pairs who answer each other within the hour, one message a minute over two days, and one person who is only written to.
fn conversations() -> Messages {
    let mut out: Messages = (0..400)
        .map(|n| {
            let pair = (n * 7) % 10;
            let (a, b) = (2 * pair, 2 * pair + 1);
            let (from, to) = if n % 3 == 0 { (a, b) } else { (b, a) };
            (from, to, NOON_MS + n as i64 * 300_000)
        })
        .collect();
    out.extend((0..20).map(|n| (n, 99, NOON_MS + n as i64 * 1_000 + 1)));
    out.sort_by_key(|(.., time_ms)| *time_ms);
    out
}

fn event((from, to, time_ms): &(usize, usize, i64)) -> Event {
    let message = MessageSent { to_person: number(*to), conversation: 1, ..Default::default() };
    Event { body: Some(Body::MessageSent(message)), ..envelope(&number(*from), *time_ms) }
}

fn recorded(path: &Path, messages: &Messages) {
    write_trace(path, &messages.iter().map(|m| frame(&event(m))).collect::<Vec<_>>());
}

/// The signals that lie in the local log, as the topic would have them: opened with the key of the log's files, with nothing uncovered.
fn at_rest(data: &Path) -> Vec<SignalBatch> {
    runtime().block_on(async {
        let (_, files, keyring) = open(data).await;
        let mut out = Vec::new();
        for path in files.list("signals").await.expect("files") {
            let day = EpochId::parse(&path[path.len() - 17..path.len() - 7]).expect("a day in the name");
            let id = KeyId { kind: KeyKind::Data, purpose: Purpose::Integrity, epoch: day };
            let key = keyring.get(id).expect("keyring").expect("alive");
            let sealed = files.get(&path).await.expect("file").expect("there");
            out.push(SignalBatch::decode(&unseal(&key, &path, &sealed).expect("opens")).expect("signals"));
        }
        out
    })
}

/// What a row says: kind, time, person, token.
type Row = (SignalKind, i64, Option<Vec<u8>>, Option<Vec<u8>>);

fn rows(batch: &SignalBatch) -> Vec<Row> {
    let rows = &batch.rows;
    let bytes = |name: &str, row| {
        let column = rows[name].as_fixed_size_binary();
        column.is_valid(row).then(|| column.value(row).to_vec())
    };
    (0..rows.num_rows())
        .map(|row| {
            let kind = SignalKind::from_code(rows["kind"].as_primitive::<UInt8Type>().value(row)).expect("listed");
            let time_ms = rows["time"].as_primitive::<TimestampMillisecondType>().value(row);
            (kind, time_ms, bytes("person", row), bytes("pair", row))
        })
        .collect()
}

/// Who reads all rows and has no key: he puts each answer together with the contact that stands before it, which is of the same message, and looks for
/// contacts that bear the answer's token. Gives the pairs of pseudonyms that he finds.
fn edges(batches: &[SignalBatch]) -> BTreeSet<(Vec<u8>, Vec<u8>)> {
    let (mut contacts, mut answers) = (BTreeMap::<Vec<u8>, BTreeSet<Vec<u8>>>::new(), Vec::new());
    for batch in batches {
        let all = rows(batch);
        for (kind, time_ms, person, pair) in &all {
            match (kind, person, pair) {
                (SignalKind::Contact, Some(person), Some(pair)) => {
                    contacts.entry(pair.clone()).or_default().insert(person.clone());
                }
                (SignalKind::Answered, _, Some(pair)) => {
                    let same_message = |(k, t, who, _): &Row| *k == SignalKind::MessageSent && t == time_ms && who.is_some();
                    answers.extend(all.iter().filter(|r| same_message(r)).filter_map(|r| Some((r.2.clone()?, pair.clone()))));
                }
                _ => {}
            }
        }
    }
    let mut out = BTreeSet::new();
    for (who, pair) in answers {
        for other in contacts.get(&pair).into_iter().flatten().filter(|other| **other != who) {
            out.insert((who.clone(), other.clone()));
        }
    }
    out
}

/// Who looks at which rows there are, and at no token: of a message without a contact he knows that it went to the same recipient as its sender's last
/// one. If only some of these had an answer, that would be those whose recipient wrote to the sender in between, and few others did. So all must have it.
fn times(batches: &[SignalBatch], kind: SignalKind) -> BTreeSet<i64> {
    batches.iter().flat_map(rows).filter(|row| row.0 == kind).map(|row| row.1).collect()
}

#[test]
fn i5_p2_no_row_holds_sender_and_recipient_and_no_rows_at_rest_join_them() {
    let dir = tempfile::tempdir().expect("dir");
    let (trace, data) = (dir.path().join("trace.pb"), dir.path().join("data"));
    with_known_keys(&data);
    let messages = conversations();
    recorded(&trace, &messages);
    let keys = integrity_keys(&data);
    let mut command = starling();
    command.args(["run", "--trace"]).arg(&trace).arg("--data-dir").arg(&data).env("STARLING_KILL_AT", "after_process");
    assert!(command.output().expect("starling starts").status.code().is_none(), "killed with signals on disk");

    let batches = at_rest(&data);
    let pseudonyms = |person: usize| -> BTreeSet<Vec<u8>> {
        let keyed = |(epoch, key): &(EpochId, [u8; 32])| {
            starling_minimize::keyed_subject(&number(person), key, Purpose::Integrity, *epoch).map(|p| p.to_vec())
        };
        keys.iter().filter_map(keyed).collect()
    };
    let people: BTreeMap<usize, BTreeSet<Vec<u8>>> = (0..20).map(|person| (person, pseudonyms(person))).collect();
    let sent: BTreeMap<i64, usize> = messages.iter().map(|(from, _, time_ms)| (*time_ms, *from)).collect();
    let mut counts = BTreeMap::<SignalKind, usize>::new();
    for (kind, time_ms, person, pair) in batches.iter().flat_map(rows) {
        *counts.entry(kind).or_insert(0) += 1;
        let sender = &people[&sent[&time_ms]];
        match kind {
            SignalKind::Answered => assert_eq!(person, None, "an answer has nobody"),
            _ => assert!(person.as_ref().is_some_and(|p| sender.contains(p)), "{kind}: somebody who did not send it"),
        }
        assert_eq!(pair.is_some(), kind != SignalKind::MessageSent);
    }
    assert!(counts[&SignalKind::Contact] > 20 && counts[&SignalKind::Answered] > 20, "{counts:?}");
    assert!(batches.iter().all(|b| b.cover.is_some()), "every batch with tokens is covered");
    assert_eq!(times(&batches, SignalKind::Answered), times(&batches, SignalKind::MessageSent), "lone answers join people");
    let without_contact = counts[&SignalKind::Answered] - times(&batches, SignalKind::Contact).len();
    assert!(without_contact > 20, "many messages repeat their sender's last contact: {counts:?}");

    // Without the key that covers tokens nobody is joined. With it, he finds them all: the attack works where it can.
    assert!(edges(&batches).is_empty(), "{} edges at rest", edges(&batches).len());
    let uncovered: Vec<SignalBatch> = batches.iter().map(|batch| uncover(&data, batch)).collect();
    let found = edges(&uncovered);
    assert!(found.len() > 15, "{} edges", found.len());
    for (one, other) in found {
        let who = |keyed: &Vec<u8>| people.iter().find(|(_, all)| all.contains(keyed)).map(|(person, _)| *person).expect("known");
        assert_eq!(who(&one) / 2, who(&other) / 2, "a pair");
    }

    // I7: with the key gone the tokens are gone, for detectors too; and at the end nothing of them is left.
    run_trace(&trace, &data);
    assert_eq!(at_rest(&data).len(), 0, "the log is empty when all is read");
    let tokens: BTreeSet<Vec<u8>> = uncovered.iter().flat_map(rows).filter_map(|(.., pair)| pair).collect();
    for file in files_below(&data) {
        let bytes = std::fs::read(&file).unwrap_or_default();
        assert!(!bytes.windows(8).any(|w| tokens.contains(w)), "{} holds a token", file.display());
    }
}

/// Uncovers tokens as the integrity job does, by the words of `jobs/src/pair_cover.rs` and not by its code.
fn uncover(data: &Path, batch: &SignalBatch) -> SignalBatch {
    let (_, _, keyring) = runtime().block_on(open(data));
    let cover = batch.cover.clone().expect("covered");
    let (day, hex) = cover.split_once(' ').expect("a day and hex");
    let epoch = EpochId::parse(day).expect("a day");
    let key = keyring.get(KeyId { kind: KeyKind::Data, purpose: Purpose::Pair, epoch }).expect("keyring").expect("alive");
    let around: Vec<u8> = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect();
    let sealed = [&around[..17], &batch.tokens().expect("tokens"), &around[17..]].concat();
    let context = format!("pairs of {} {} {}", batch.origin, batch.sequence, batch.chunk);
    let mut out = batch.clone();
    out.cover(Some(&unseal(&key, &context, &sealed).expect("opens")), None).expect("as many");
    out
}

/// Forty strangers a day of whom one in forty answers, for five days, beside people who answer each other.
fn slow_and_others() -> Messages {
    let mut messages: Messages = Vec::new();
    for n in 0..200_usize {
        let time_ms = NOON_MS + (n / 40) as i64 * DAY_MS + (n % 40) as i64 * 600_000;
        messages.push((500, 1_000 + n, time_ms));
        if n % 40 == 7 {
            messages.push((1_000 + n, 500, time_ms + 3_600_000));
        }
    }
    for n in 0..300_usize {
        let time_ms = NOON_MS + n as i64 * 1_500_000;
        messages.push((n % 30, 30 + n % 17, time_ms));
        messages.push((30 + n % 17, n % 30, time_ms + 60_000));
    }
    messages.sort_by_key(|(.., time_ms)| *time_ms);
    messages
}

#[test]
fn i9_a_detector_that_is_killed_anywhere_finds_the_same_slow_senders() {
    let dir = tempfile::tempdir().expect("dir");
    let trace = dir.path().join("trace.pb");
    recorded(&trace, &slow_and_others());
    let settings = dir.path().join("starling.toml");
    std::fs::write(&settings, "[ingest]\nmax_events = 60\n[signals]\ncommit_every_ms = 20\n").expect("settings");
    let run = |data: &Path, kill: Option<&str>| {
        let mut command = starling();
        command.args(["run", "--trace"]).arg(&trace).arg("--data-dir").arg(data).arg("--config").arg(&settings);
        if let Some(point) = kill {
            command.env("STARLING_KILL_AT", point);
        }
        command.output().expect("starling starts").status
    };
    let straight = dir.path().join("straight");
    with_known_keys(&straight);
    assert!(run(&straight, None).success());
    let expected = comparable_alerts(&straight);
    assert!(expected.iter().any(|alert| alert.contains("slow_bulk")), "{expected:?}");
    for point in ["after_process", "after_state_written", "after_integrity_commit"] {
        let data = dir.path().join(point);
        with_known_keys(&data);
        assert!(run(&data, Some(point)).code().is_none(), "killed {point}");
        assert!(run(&data, None).success());
        assert_eq!(comparable_alerts(&data), expected, "{point}");
    }
    // However the ranges are cut.
    let data = dir.path().join("whole");
    with_known_keys(&data);
    std::fs::write(&settings, "[ingest]\nmax_events = 100000\n").expect("settings");
    assert!(run(&data, None).success());
    assert_eq!(comparable_alerts(&data), expected, "in one range");
    // And without pairs nobody is found.
    let data = dir.path().join("without");
    with_known_keys(&data);
    std::fs::write(&settings, "[signals]\npairs = false\n").expect("settings");
    assert!(run(&data, None).success());
    assert!(alerts(&data).iter().all(|alert| alert["rule"] != "slow_bulk"));
}

/// The same over Kafka: signals are routed over four parts of a topic, where no token is bare.
#[test]
fn over_kafka_a_slow_sender_is_found_and_the_topic_holds_no_bare_token() {
    let dir = tempfile::tempdir().expect("dir");
    let data = dir.path().join("data");
    with_known_keys(&data);
    let keys = integrity_keys(&data);
    let topics = [("events", 1), ("integrity.signals", 4), ("integrity.alerts", 1)];
    let broker = EmbeddedBroker::start(&topics).expect("broker");
    let producer = Producer::new(&broker.brokers(), &BTreeMap::new()).expect("producer");
    let messages = slow_and_others();
    for message in &messages {
        producer.send("events", Some(0), None, &frame(&event(message))).expect("sent");
    }
    producer.flush(Duration::from_secs(60)).expect("all there");
    let settings = format!(
        "[kafka]\nbrokers = \"{}\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n[serve]\nlisten = \"127.0.0.1:0\"\n[signals]\ntransport = \"kafka\"\n[window]\ndeadline_s = 3153600000\n",
        broker.brokers()
    );
    std::fs::write(dir.path().join("s.toml"), settings).expect("settings");
    let mut command = starling();
    command.arg("run").arg("--config").arg(dir.path().join("s.toml")).arg("--data-dir").arg(&data);
    let mut run = Service::start(&mut command, &dir.path().join("run.log"));
    let is_there = || data.join("metastore.db").exists();
    let of_slow = || -> Vec<serde_json::Value> {
        let told = if is_there() { alerts(&data) } else { Vec::new() };
        told.into_iter().filter(|alert| alert["rule"] == "slow_bulk").collect()
    };
    wait_until("an alert on the slow sender", || !of_slow().is_empty());
    run.signal("TERM");
    assert!(run.ended(Duration::from_secs(60)).success(), "{}", run.log());
    let own: BTreeSet<String> = keys
        .iter()
        .filter_map(|(epoch, key)| starling_minimize::keyed_subject(&number(500), key, Purpose::Integrity, *epoch))
        .map(|keyed| keyed.iter().map(|b| format!("{b:02x}")).collect())
        .collect();
    for alert in of_slow() {
        assert!(own.contains(&text(&alert["subject"]["value"])), "an alert on somebody innocent: {alert}");
    }

    // What the topic holds: pairs in its first part alone, all covered, and nobody to be joined.
    let start = (0..4).map(|partition| (partition, 0)).collect();
    let mut reader = TopicReader::open(&broker.brokers(), "integrity.signals", start, &BTreeMap::new()).expect("reader");
    let ends: i64 = reader.ends().expect("ends").values().sum();
    let mut batches = Vec::new();
    wait_until("the end of the topic", || {
        let message = reader.poll(Duration::from_millis(100)).expect("reads");
        batches.extend(message.map(|m| (m.partition, SignalBatch::decode(&m.payload).expect("signals"))));
        batches.len() as i64 == ends
    });
    let of_pairs: Vec<&(i32, SignalBatch)> = batches.iter().filter(|(_, batch)| batch.cover.is_some()).collect();
    assert!(!of_pairs.is_empty() && of_pairs.iter().all(|(partition, _)| *partition == 0));
    assert!(batches.iter().any(|(partition, _)| *partition > 0), "other signals are spread");
    let bare = |(_, batch): &(i32, SignalBatch)| batch.cover.is_none() && !batch.tokens().expect("signals").is_empty();
    assert!(!batches.iter().any(bare), "tokens without a cover");
    let batches: Vec<SignalBatch> = batches.into_iter().map(|(_, batch)| batch).collect();
    assert!(edges(&batches).is_empty(), "edges in the topic");
}
