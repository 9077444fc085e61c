//! Accounts that create groups by the dozen, and groups that are on a list: rules over a day, as the engine's caller sees them.

use std::collections::BTreeMap;

use super::*;
use crate::snapshot::{MAGIC_BEFORE_EVIDENCE, MAGIC_BEFORE_MAKERS};

const HOUR: i64 = 3_600_000;
const MORNING: i64 = NOON - NOON % DAY_MS + 6 * HOUR;

/// Groups that an account makes in the hour that begins `hour` hours after six.
fn made(person: u8, hour: i64, groups: u32, is_new: bool) -> Row {
    let time = MORNING + hour * HOUR;
    Row { kind: SignalKind::GroupMade, count: groups, strangers: u32::from(is_new), age_s: None, ..message(person, time) }
}

fn on_list(group: u8, list: &'static str, field: ProfileField, time: i64) -> Row {
    let kind = SignalKind::GroupListed;
    Row { kind, group: Some([group; 16]), person: None, age_s: None, listed: Some((list, field)), ..message(0, time) }
}

fn told(content: &[Row]) -> Vec<(String, u64, u64, String)> {
    alerts(content).into_iter().map(|a| (a.rule, a.observed, a.threshold, a.severity)).collect()
}

fn burst(observed: u64, threshold: u64, severity: &str) -> Vec<(String, u64, u64, String)> {
    vec![("group_creation_burst".to_owned(), observed, threshold, severity.to_owned())]
}

#[test]
fn ten_groups_in_an_hour_or_fifteen_in_a_day_fire_and_nine_or_fourteen_do_not() {
    let singly = |n: u32, an_hour: u32| -> Vec<Row> { (0..n).map(|i| made(1, i64::from(i / an_hour), 1, false)).collect() };
    assert_eq!(told(&singly(9, 9)), [], "a school's secretary");
    assert_eq!(told(&singly(10, 10)), burst(10, 10, "low"));
    assert_eq!(told(&singly(14, 5)), []);
    assert_eq!(told(&singly(15, 5)), burst(15, 15, "low"));
    // An hour is one of the clock: nine before it strikes and nine after it are eighteen of the day.
    assert_eq!(told(&singly(18, 9)), burst(18, 15, "low"));
    assert_eq!(told(&[made(1, 0, 9, false), made(2, 0, 9, false)]), [], "two accounts");
}

#[test]
fn how_many_and_how_young_make_it_grave() {
    for (groups, is_new, severity) in [
        (19, false, "low"),
        (20, false, "medium"),
        (39, false, "medium"),
        (40, false, "high"),
        (12, true, "medium"),
        (19, true, "medium"),
        (20, true, "high"),
        (60_000, true, "high"),
    ] {
        let found = told(&[made(1, 3, groups, is_new)]);
        assert_eq!(found[0].3, severity, "{groups} {is_new}");
    }
    // One of its first week is enough, as the week may end within the hour.
    assert_eq!(told(&[made(1, 3, 6, true), made(1, 3, 6, false)]), burst(12, 10, "medium"));
    assert_eq!(told(&[made(1, 3, 70_000, false)]), burst(65_535, 15, "high"), "a count that is full hides, and adds nothing");
}

#[test]
fn a_photo_is_grave_a_description_less_and_a_name_never_more_than_a_priority() {
    use ProfileField::{Description, Name, Photo};
    let of = |hits: &[(&'static str, ProfileField)]| {
        let rows: Vec<Row> = hits.iter().map(|(list, field)| on_list(5, list, *field, NOON)).collect();
        told(&rows).into_iter().map(|(_, observed, _, severity)| (observed, severity)).collect::<Vec<_>>()
    };
    let is = |observed, severity: &str| vec![(observed, severity.to_owned())];
    assert_eq!(of(&[("scams", Name)]), is(1, "low"));
    assert_eq!(of(&[("scams", Name), ("scams", Name), ("more", Name)]), is(2, "low"), "however often");
    assert_eq!(of(&[("scams", Description)]), is(1, "medium"));
    assert_eq!(of(&[("scams", Name), ("known-abuse", Photo)]), is(2, "high"));
    let alert = &alerts(&[on_list(5, "scams", Name, NOON), on_list(5, "known-abuse", Photo, NOON + HOUR)])[0];
    assert!(alert.explanation.contains("the name is on the list scams, and the photo is on the list known-abuse"), "{alert:?}");
    assert_eq!((alert.subject.kind.as_str(), alert.evidence, alert.counter_evidence.len()), ("group", 2, 0));
    // Labels too long to be of a list, and rows that say nothing, are not taken.
    let long = "a-label-that-is-longer-than-any-label-of-a-list";
    assert_eq!(told(&[on_list(5, long, Photo, NOON), Row { listed: None, ..on_list(5, "x", Photo, NOON) }]), []);
}

#[test]
fn what_an_officer_reads_of_makers_and_listed_groups() {
    let content = [
        made(1, 3, 12, false),
        made(2, 3, 9, true),
        made(2, 5, 30, true),
        on_list(5, "scams", ProfileField::Name, NOON),
        on_list(5, "known-names", ProfileField::Name, NOON + 60_000),
        on_list(6, "scams", ProfileField::Description, NOON),
        on_list(6, "known-abuse", ProfileField::Photo, NOON + 5),
    ];
    let mut found = alerts(&content);
    found.sort_by(|a, b| (&a.rule, &a.subject.value).cmp(&(&b.rule, &b.subject.value)));
    insta::assert_snapshot!("day_alerts", serde_json::to_string_pretty(&found).expect("JSON"));
}

#[test]
fn limits_hide_and_never_add() {
    let text = include_str!("../rules.toml");
    let few = text.replace("most_accounts = 1000000", "most_accounts = 2").replace("most_groups = 100000", "most_groups = 1");
    let mut engine = Engine::new(Rules::parse(&few).expect("rules"));
    let makers = [1, 2, 3, 1].map(|person| made(person, 1, 9, false));
    let groups = [4, 5, 4].map(|group| on_list(group, "scams", ProfileField::Photo, NOON));
    engine.apply(&batch(0, 0, &[&makers[..], &groups[..]].concat())).expect("signals");
    let found: Vec<_> = engine.take_alerts().into_iter().map(|a| (a.rule, a.subject.value, a.evidence)).collect();
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.contains(&("group_creation_burst".to_owned(), "01".repeat(16), 18)));
    assert!(found.contains(&("group_listed".to_owned(), "04".repeat(16), 2)));
    assert_eq!(engine.footprint().maker_bytes, 2 * (size_of::<crate::makers::Maker>() + 17));
    assert!(size_of::<crate::makers::Maker>() + 17 <= 80, "as the table of bounds has it");
}

#[test]
fn a_day_is_forgotten_when_it_is_over_and_late_signals_have_come() {
    let mut engine = Engine::new(Rules::detectors().expect("rules"));
    engine.apply(&batch(0, 0, &[made(1, 17, 9, false), on_list(4, "l", ProfileField::Name, NOON)])).expect("signals");
    let midnight = EpochId::of(NOON).end_ms();
    let held_at = |engine: &mut Engine, sequence: i64, hours: i64| {
        engine.apply(&batch(0, sequence, &[message(9, midnight + hours * HOUR)])).expect("signals");
        (0..3).for_each(|_| engine.sweep());
        (engine.makers.len(), engine.listed.len())
    };
    assert_eq!(held_at(&mut engine, 1, 5), (1, 1));
    // What is late all the same is counted with the rest of its day.
    engine.apply(&batch(0, 2, &[made(1, 17, 1, false)])).expect("signals");
    assert_eq!(engine.take_alerts().iter().filter(|a| a.rule == "group_creation_burst").count(), 1);
    assert_eq!(held_at(&mut engine, 3, 7), (0, 0));
}

#[test]
fn state_saved_before_makers_were_counted_is_read_and_damage_is_refused() {
    let rules = || Rules::detectors().expect("rules");
    let mut engine = Engine::new(rules());
    engine.apply(&batch(0, 0, &[message(1, NOON)])).expect("signals");
    let before = engine.snapshot_as(MAGIC_BEFORE_MAKERS).expect("snapshot");
    let restored = Engine::restore(rules(), &before).expect("the version before");
    let without = |engine: &Engine| engine.snapshot_as(MAGIC_BEFORE_EVIDENCE).expect("snapshot");
    assert_eq!(without(&restored), without(&engine));
    let engine_before =
        Engine::restore(rules(), &without(&engine)).expect("the version before it was counted how many were tested");
    assert_eq!(engine_before.snapshot().expect("snapshot"), restored.snapshot().expect("snapshot"));
    // What was not counted from its beginning is not told; what is counted from now on is, once all that it is made of is.
    let today = EpochId::of(NOON).0;
    for (kind, days) in [("person", 16), ("business", 1), ("group", 1)] {
        assert_eq!((engine.tested(kind, today), engine_before.tested(kind, today)), (Some(0), None), "{kind}");
        let told = |day: i32| engine_before.tested(kind, today + day).is_some();
        assert!(!told(days - 1) && told(days), "{kind}");
    }
    engine.apply(&batch(0, 1, &[made(1, 2, 12, true), on_list(4, "scams", ProfileField::Name, NOON)])).expect("signals");
    let saved = engine.snapshot().expect("snapshot");
    let mut again = Engine::restore(rules(), &saved).expect("restores");
    assert_eq!(again.snapshot().expect("snapshot"), saved);
    for cut in 0..saved.len() {
        assert!(Engine::restore(rules(), &saved[..cut]).is_err(), "cut at {cut}");
    }
    let of_both = |engine: &mut Engine| -> BTreeMap<String, u64> {
        engine.apply(&batch(0, 2, &[made(1, 4, 3, false), on_list(4, "more", ProfileField::Photo, NOON)])).expect("signals");
        engine.take_alerts().into_iter().map(|a| (a.rule, a.observed)).collect()
    };
    let expected = BTreeMap::from([("group_creation_burst".to_owned(), 15), ("group_listed".to_owned(), 2)]);
    assert_eq!((of_both(&mut engine), of_both(&mut again)), (expected.clone(), expected));
}

/// Random makers and listed groups of a day.
fn any_day() -> impl Strategy<Value = Vec<Row>> {
    let one = (0_u8..3, 0_i64..18, 1_u32..6, any::<bool>(), 0_usize..4, 0_usize..3, 0_i64..18 * HOUR);
    let row = one.prop_map(|(who, hour, groups, is_new, list, field, time)| match list {
        0 | 1 => made(who, hour / 4, groups, is_new && who == 2),
        _ => on_list(who, ["scams", "names"][list - 2], ProfileField::ALL[field], MORNING + time),
    });
    prop::collection::vec(row, 1..60)
}

/// What stands at the end.
fn standing(mut feed: BTreeMap<String, Alert>, engine: &mut Engine) -> BTreeMap<String, Alert> {
    for alert in engine.take_alerts() {
        let before = feed.insert(alert.fingerprint.clone(), alert.clone());
        assert_eq!(before.map_or(0, |b| b.revision) + 1, alert.revision);
    }
    feed
}

fn unnumbered(feed: BTreeMap<String, Alert>) -> Vec<Alert> {
    feed.into_values().map(|a| Alert { revision: 0, ..a }).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn i9_order_cuts_repeats_sweeps_and_restarts_do_not_change_what_stands(
        content in any_day(), seed: u64, size in 1_usize..9, sweeps in prop::collection::vec(any::<bool>(), 60),
    ) {
        let mut whole = Engine::new(Rules::detectors().expect("rules"));
        whole.apply(&batch(0, 0, &content)).expect("signals");
        let expected = unnumbered(standing(BTreeMap::new(), &mut whole));
        // Counted once more, by nothing but additions.
        let mut hours = BTreeMap::<(Option<[u8; 16]>, i64), u32>::new();
        for row in content.iter().filter(|row| row.kind == SignalKind::GroupMade) {
            *hours.entry((row.person, row.time)).or_default() += row.count;
        }
        for alert in expected.iter().filter(|a| a.rule == "group_creation_burst") {
            let within = hours.iter().filter(|((person, time), _)| {
                let who = person.map(|p| crate::alert::hex(&p));
                who.as_deref() == Some(&alert.subject.value) && (alert.window.start_ms..alert.window.end_ms).contains(time)
            });
            prop_assert_eq!(within.map(|(_, groups)| u64::from(*groups)).sum::<u64>(), alert.observed);
        }
        let mut engine = Engine::new(Rules::detectors().expect("rules"));
        let mut feed = BTreeMap::new();
        for (i, part) in groups::shuffled(content, seed).chunks(size).enumerate() {
            let now = batch((i % 3) as i32, i as i64, part);
            engine.apply(&now).expect("signals");
            prop_assert_eq!(engine.apply(&now).expect("signals"), Applied::Duplicate);
            feed = standing(feed, &mut engine);
            if sweeps.get(i).is_some_and(|s| *s) {
                (0..3).for_each(|_| engine.sweep());
                let saved = engine.snapshot().expect("snapshot");
                engine = Engine::restore(Rules::detectors().expect("rules"), &saved).expect("restores");
            }
        }
        prop_assert_eq!(unnumbered(feed), expected);
    }
}
