//! Contacts and answers as rows.

use super::*;

/// 2026-01-05 00:00 UTC.
const MONDAY: i64 = NOON - DAY_MS / 2;
const HOUR: i64 = 3_600_000;

fn hash(parts: [u64; 3]) -> [u8; 16] {
    let bytes: Vec<u8> = parts.iter().flat_map(|p| p.to_le_bytes()).collect();
    blake3::hash(&bytes).as_bytes()[..16].try_into().expect("16 bytes")
}

fn token(from: u64, to: u64, day: i32) -> u64 {
    u64::from_le_bytes(hash([from, to, day as u64])[..8].try_into().expect("8 bytes"))
}

/// A message as `minimize` tells it: the copy, the contact, the answer.
fn told(from: u64, to: u64, time: i64) -> [Row; 3] {
    let day = EpochId::of(time).0;
    let pairs = |from, to| Some((token(from, to, day), token(from, to, day - 1)));
    let contact =
        Row { kind: SignalKind::Contact, person: Some(hash([from, 0, day as u64])), pairs: pairs(from, to), ..message(0, time) };
    let copy = Row { person: Some(hash([from, 0, day as u64 - 1])), epoch: day - 1, overlap: true, ..contact.clone() };
    let answer = Row { kind: SignalKind::Answered, person: None, age_s: None, pairs: pairs(to, from), ..contact.clone() };
    [copy, contact, answer]
}

/// Five days: forty strangers a day of whom none answers, and as many of whom most do.
fn days() -> Vec<Row> {
    let mut messages = Vec::new();
    for n in 0..200_i64 {
        let time = MONDAY + n / 40 * DAY_MS + 9 * HOUR + n % 40 * 600_000;
        let stranger = 1_000 + n as u64;
        messages.push((1, stranger, time));
        messages.push((2, 5_000 + stranger, time + 60_000));
        if n % 10 < 7 {
            messages.push((5_000 + stranger, 2, time + HOUR));
        }
    }
    messages.sort_by_key(|(.., time)| *time);
    messages.into_iter().flat_map(|(from, to, time)| told(from, to, time)).collect()
}

fn engine() -> Engine {
    let mut engine = Engine::new(Rules::detectors().expect("rules"));
    engine.expect([batch(0, 0, &[]).origin].iter());
    engine
}

/// What is found, when rows come in batches of so many, without how often it was told.
fn found(mut engine: Engine, content: &[Row], size: usize) -> Vec<Alert> {
    let mut out = std::collections::BTreeMap::new();
    for (i, part) in content.chunks(size).enumerate() {
        engine.apply(&batch(0, i as i64, part)).expect("signals");
        for alert in engine.take_alerts() {
            out.insert(alert.fingerprint.clone(), Alert { revision: 0, ..alert });
        }
    }
    out.into_values().collect()
}

#[test]
fn i9_rows_of_pairs_are_the_reply_test_however_they_are_cut() {
    let content = days();
    let expected = found(engine(), &content, content.len());
    let names: Vec<String> =
        (0..9).map(|d| hash([1, 0, EpochId::of(MONDAY).0 as u64 + d]).iter().map(|b| format!("{b:02x}")).collect()).collect();
    assert!(!expected.is_empty());
    for alert in &expected {
        assert_eq!(alert.rule, "slow_bulk");
        assert!(names.contains(&alert.subject.value), "somebody innocent: {alert:?}");
        assert!(alert.counter_evidence[0].starts_with("0 of") || alert.counter_evidence[0].starts_with("<10 of"), "{alert:?}");
    }
    for size in [1, 7, 700] {
        assert_eq!(found(engine(), &content, size), expected, "{size} rows a batch");
    }
}

#[test]
fn i9_how_many_were_tested_and_what_is_chosen_does_not_depend_on_how_rows_are_cut() {
    let content = days();
    let run = |size: usize| {
        let mut engine = engine();
        for (i, part) in content.chunks(size).enumerate() {
            engine.apply(&batch(0, i as i64, part)).expect("signals");
            if i % 3 == 0 {
                engine.take_alerts();
                engine =
                    Engine::restore(Rules::detectors().expect("rules"), &engine.snapshot().expect("saves")).expect("restores");
            }
        }
        engine.take_alerts();
        (engine.tested_days().expect("JSON"), engine.levels())
    };
    let (tested, levels) = run(content.len());
    // Whom nobody answers is chosen.
    assert!(levels.values().any(|level| *level < 0.1), "{levels:?}");
    for size in [7, 100, 700] {
        assert_eq!(run(size), (tested.clone(), levels.clone()), "{size} rows a batch");
    }
}

#[test]
fn rows_whose_tokens_are_gone_are_passed_over() {
    let gone: Vec<Row> = days().into_iter().map(|row| Row { pairs: None, ..row }).collect();
    assert_eq!(found(engine(), &gone, 700), []);
    // Nobody is an answer without its token either: nothing else says whose it is.
    let half: Vec<Row> =
        days().into_iter().map(|row| if row.kind == SignalKind::Answered { row } else { Row { pairs: None, ..row } }).collect();
    assert_eq!(found(engine(), &half, 700), []);
}

#[test]
fn a_message_that_is_only_a_contact_counts_for_no_other_rule() {
    let at_once: Vec<Row> = (0..2_000).flat_map(|n| told(1, 10 + n, NOON + n as i64 * 20)).collect();
    assert_eq!(found(engine(), &at_once, 700), [], "contacts are no messages: those are told by themselves");
}

#[test]
fn i9_repeats_of_batches_of_pairs_are_dropped_and_a_restored_engine_goes_on() {
    let content = days();
    let mut straight = engine();
    let mut restored = engine();
    for (i, part) in content.chunks(100).enumerate() {
        let batch = batch(0, i as i64, part);
        straight.apply(&batch).expect("signals");
        restored.apply(&batch).expect("signals");
        assert_eq!(restored.apply(&batch).expect("signals"), Applied::Duplicate);
        if i % 5 == 0 {
            restored =
                Engine::restore(Rules::detectors().expect("rules"), &restored.snapshot().expect("snapshot")).expect("restores");
        }
    }
    assert_eq!(straight.snapshot().expect("snapshot"), restored.snapshot().expect("snapshot"));
    assert_eq!(straight.take_alerts(), restored.take_alerts());
}

#[test]
fn a_recording_that_is_over_holds_up_nothing_that_is_read_after_it() {
    for (ends, expected) in [(false, false), (true, true)] {
        let mut engine = engine();
        engine.apply(&batch(0, 0, &told(8, 9, MONDAY))).expect("signals");
        if ends {
            engine.source_is_over();
        }
        engine = Engine::restore(Rules::detectors().expect("rules"), &engine.snapshot().expect("snapshot")).expect("restores");
        engine.expect([batch(1, 0, &[]).origin].iter());
        engine.apply(&batch(1, 0, &days())).expect("signals");
        assert_eq!(!engine.take_alerts().is_empty(), expected);
    }
}

#[test]
fn nobody_is_judged_before_every_partition_that_there_is_was_heard() {
    let content = days();
    let other = PartitionId { source: "events".into(), partition: 1 };
    let mut engine = engine();
    engine.expect([other].iter());
    for (i, part) in content.chunks(100).enumerate() {
        engine.apply(&batch(0, i as i64, part)).expect("signals");
    }
    assert_eq!(engine.take_alerts(), [], "partition 1 may bring the answers");
    // It is silent for two sweeps.
    engine.sweep();
    engine.sweep();
    engine.apply(&batch(0, 9_999, &told(1, 2_000, MONDAY + 6 * DAY_MS))).expect("signals");
    assert!(!engine.take_alerts().is_empty());
    // Where nobody says which there are, two sweeps are waited for.
    assert_eq!(found(Engine::new(Rules::detectors().expect("rules")), &content, 100), []);
}
