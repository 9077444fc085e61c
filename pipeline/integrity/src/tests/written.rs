//! Written rules, as the engine's caller sees them.

use std::collections::{BTreeMap, BTreeSet};

use super::groups::spread;
use super::*;
use crate::vectors::Kept;
use crate::{Fact, RuleFile, Vectors, backtest};

const MINUTE: i64 = 60_000;

/// Three rules: what answers undo, what a business's own past undoes, and what more members undo.
pub(super) const TEXT: &str = r#"
[unanswered]
version = 1
about = "Many are written to and nearly nobody answers."
on = "business_day"
when = "replied < 0.1 * sent"
counts = "sent"
least = 40
severity = "medium"
standing = { stage = "live", daily_alerts = 100, false_discovery = 0.1 }
[[unanswered.tests]]
says = "nobody answers"
given = { sent = 100 }
fires = true
[[unanswered.tests]]
says = "some do"
given = { sent = 100, replied = 10 }
fires = false

[beyond_itself]
version = 1
about = "Far more people are reached than on other days"
on = "business_day"
when = "reached > 2 * usual_reached OR (usual_reached IS NULL AND tier = '2k' AND objections >= 5)"
counts = "reached"
least = 30
severity = "low"
standing = { stage = "live", daily_alerts = 100, false_discovery = 0.1 }
[[beyond_itself.tests]]
says = "twice as many"
given = { reached = 101, usual_reached = 50 }
fires = true
[[beyond_itself.tests]]
says = "as many"
given = { reached = 100, usual_reached = 50 }
fires = false

[leavers]
version = 1
about = "Half of those who come to a group leave it again."
on = "group_hour"
when = "2 * left_again >= came AND NOT is_new"
counts = "left_again"
least = 10
severity = "medium"
standing = { stage = "live", daily_alerts = 100, false_discovery = 0.1 }
[[leavers.tests]]
says = "half leave"
given = { came = 20, left = 10, left_again = 10 }
fires = true
[[leavers.tests]]
says = "it was created just now"
given = { came = 20, left = 10, left_again = 10, is_new = true }
fires = false
"#;

pub(super) fn rules_of(text: &str) -> Rules {
    let file = RuleFile { name: "rules.toml".to_owned(), text: text.to_owned() };
    let written = crate::Written::read(&RuleFile { name: "none".to_owned(), text: String::new() }, &[file], &[]);
    Rules { written: written.unwrap_or_else(|faults| panic!("{faults:?}")), ..Rules::detectors().expect("rules") }
}

fn of_business(kind: SignalKind, business: &'static str, time: i64) -> Row {
    Row { kind, business: Some(business), person: None, ..message(0, time) }
}

/// `sent` messages to as many people, and answers, on a day after the first.
pub(super) fn campaign(business: &'static str, day: i64, sent: u32, replied: u32) -> Vec<Row> {
    let at = |n: u32| NOON + day * DAY_MS + i64::from(n) * 1_000;
    let messages = (0..sent).map(|n| sent_by(business, n + 1_000 * day as u32, at(n), Category::Marketing, Tier::T2k));
    messages.chain((0..replied).map(|n| of_business(SignalKind::BusinessReplied, business, at(n) + 500))).collect()
}

fn engine_after(text: &str, content: &[Row]) -> Engine {
    let mut engine = Engine::new(rules_of(text));
    engine.apply(&batch(0, 0, content)).expect("signals");
    engine
}

/// What is told by written rules.
fn told(engine: &mut Engine) -> Vec<Alert> {
    let names: Vec<String> = engine.rules().written.rules().iter().map(|rule| rule.name.clone()).collect();
    engine.take_alerts().into_iter().filter(|alert| names.contains(&alert.rule)).collect()
}

#[test]
fn a_rule_fires_from_its_least_on_and_says_why_without_small_counts() {
    let mut engine = engine_after(TEXT, &campaign("shop", 0, 39, 0));
    assert_eq!(told(&mut engine), []);
    let mut engine = engine_after(TEXT, &campaign("shop", 0, 40, 3));
    let found = told(&mut engine);
    assert_eq!(found.len(), 1, "{found:?}");
    let alert = &found[0];
    assert_eq!((alert.rule.as_str(), alert.observed, alert.threshold, alert.severity.as_str()), ("unanswered", 40, 40, "medium"));
    assert_eq!(
        alert.explanation,
        "Many are written to and nearly nobody answers. On 2026-01-05: sent 40, replied <10. The rule fires where replied < 0.1 * sent and sent is at least 40."
    );
    assert_eq!(alert.counter_evidence, ["tier 2k has a limit of 2000 people a day", "<10 replies that day"]);
    assert!(
        alert.stands() && alert.baseline.kind == "rule" && !serde_json::to_string(alert).expect("JSON").contains("withdrawn")
    );
    // Nothing new is nothing to tell.
    assert_eq!(told(&mut engine), []);
}

#[test]
fn what_late_answers_undo_is_told_once_more_and_stands_no_more() {
    let mut engine = engine_after(TEXT, &campaign("shop", 0, 50, 4));
    assert!(told(&mut engine)[0].stands());
    engine.apply(&batch(0, 1, &campaign("shop", 0, 0, 1))).expect("signals");
    let undone = told(&mut engine);
    assert_eq!(undone.len(), 1);
    assert!(!undone[0].stands() && undone[0].withdrawn && undone[0].revision == 2, "{undone:?}");
    assert_eq!(undone[0].severity, "low");
    assert!(undone[0].explanation.starts_with("No longer holds, by signals that came late."), "{}", undone[0].explanation);
    assert!(serde_json::to_string(&undone[0]).expect("JSON").contains("\"withdrawn\":true"));
    // Once is enough, until it holds again.
    engine.apply(&batch(0, 2, &campaign("shop", 0, 5, 5))).expect("signals");
    assert_eq!(told(&mut engine), []);
    engine.apply(&batch(0, 3, &campaign("shop", 0, 60, 0))).expect("signals");
    assert!(told(&mut engine).iter().any(|alert| alert.stands() && alert.observed == 115 && alert.revision == 3));
}

#[test]
fn a_rule_is_held_against_a_business_s_own_days_and_against_nothing_that_is_unknown() {
    let mut content: Vec<Row> = (0..4).flat_map(|day| campaign("shop", day, 60, 60)).collect();
    assert_eq!(told(&mut engine_after(TEXT, &content)), [], "as on any other day; and on the first nothing is known");
    content.extend(campaign("shop", 4, 300, 300));
    let found = told(&mut engine_after(TEXT, &content));
    let said: Vec<_> = found.iter().map(|a| (a.rule.as_str(), a.baseline.kind.as_str(), a.window.start_ms)).collect();
    assert_eq!(said, [("beyond_itself", "own", NOON + 4 * DAY_MS)]);
    assert!((3.0..=5.0).contains(&found[0].factor), "{}", found[0].factor);
}

#[test]
fn a_day_that_is_pushed_out_between_two_looks_is_judged_all_the_same() {
    // Three days of one business before anybody looks: of the first nothing is counted any more.
    let content: Vec<Row> =
        [(0, 50, 0), (1, 50, 50), (2, 50, 50)].into_iter().flat_map(|(d, s, r)| campaign("shop", d, s, r)).collect();
    let mut engine = engine_after(TEXT, &content);
    let found: Vec<_> = told(&mut engine).into_iter().map(|a| (a.rule, a.window.start_ms)).collect();
    assert_eq!(found, [("unanswered".to_owned(), NOON)]);
    // A limit of the built-in rules is no other.
    let beyond: Vec<Row> = [(0, 1_500), (1, 20), (2, 20)]
        .into_iter()
        .flat_map(|(day, sent)| campaign("shop", day, sent, sent).into_iter().map(|row| Row { tier: Tier::T250, ..row }))
        .collect();
    assert_eq!(alerts(&beyond).iter().map(|a| a.rule.as_str()).collect::<Vec<_>>(), ["business_reach"]);
}

#[test]
fn what_was_told_long_ago_is_not_told_again_when_a_business_wakes() {
    let mut engine = engine_after(TEXT, &campaign("shop", 0, 50, 0));
    assert_eq!(told(&mut engine).len(), 1);
    engine.apply(&batch(0, 1, &[message(9, NOON + 9 * DAY_MS)])).expect("signals");
    engine.sweep();
    engine.apply(&batch(0, 2, &campaign("shop", 9, 12, 12))).expect("signals");
    assert_eq!(told(&mut engine), []);
}

#[test]
fn nor_by_a_detector_nor_are_its_facts_kept_again() {
    let beyond: Vec<Row> = (0..1_500).map(|n| sent_by("shop", n, NOON + i64::from(n), Category::Marketing, Tier::T250)).collect();
    let mut engine = engine_after(TEXT, &beyond);
    assert!(engine.take_alerts().iter().any(|alert| alert.rule == "business_reach"));
    engine.apply(&batch(0, 1, &[message(9, NOON + 7 * DAY_MS)])).expect("signals");
    engine.sweep();
    assert!(engine.take_vectors().is_some());
    // A week later it sends again, and then has another tier.
    for (sequence, tier) in [(2, Tier::T250), (3, Tier::T2k)] {
        let again = sent_by("shop", 1, NOON + 7 * DAY_MS, Category::Marketing, tier);
        engine.apply(&batch(0, sequence, &[again])).expect("signals");
        assert_eq!(engine.take_alerts(), [], "{tier}");
        engine.sweep();
        assert!(engine.take_vectors().is_none(), "{tier}");
    }
}

#[test]
fn a_group_s_fullest_hour_is_told_and_what_more_members_undo_is_told_once_more() {
    let mut content = spread(SignalKind::GroupJoined, 3, 24, 0, 10);
    content.extend(spread(SignalKind::GroupLeft, 3, 14, 15, 30));
    let mut engine = engine_after(TEXT, &content);
    let found = told(&mut engine);
    assert_eq!(found.iter().map(|a| (a.rule.as_str(), a.observed)).collect::<Vec<_>>(), [("leavers", 14)]);
    assert!(found[0].explanation.contains("left_again 14, came 24, is_new no"), "{}", found[0].explanation);
    assert_eq!(found[0].window.start_ms, NOON, "the earliest of equals");
    assert_eq!(found[0].data_gaps, ["no member is known, so who left may be others than who came"]);
    engine.apply(&batch(0, 1, &spread(SignalKind::GroupJoined, 3, 10, 1, 5))).expect("signals");
    let undone = told(&mut engine);
    assert!(undone.len() == 1 && undone[0].withdrawn && undone[0].fingerprint == found[0].fingerprint, "{undone:?}");
    // It is forgotten when it stands, and what comes later does not undo that.
    let mut engine = engine_after(TEXT, &content);
    assert_eq!(told(&mut engine).len(), 1);
    engine.apply(&batch(0, 1, &[message(9, NOON + 300 * MINUTE)])).expect("signals");
    (0..3).for_each(|_| engine.sweep());
    assert_eq!(engine.footprint().groups, 0);
    assert_eq!(engine.take_vectors().map(|(_, vectors)| vectors.groups.len()), Some(1), "kept as it is forgotten");
    let mut later = spread(SignalKind::GroupJoined, 3, 30, 301, 10);
    later.extend(spread(SignalKind::GroupLeft, 3, 12, 312, 10));
    engine.apply(&batch(0, 2, &later)).expect("signals");
    assert_eq!(told(&mut engine), []);
    engine.apply(&batch(0, 3, &spread(SignalKind::GroupLeft, 3, 13, 330, 10))).expect("signals");
    let grown = told(&mut engine);
    assert_eq!(grown.iter().map(|a| (a.observed, a.first_ms)).collect::<Vec<_>>(), [(25, found[0].first_ms)]);
}

#[test]
fn another_version_judges_anew_a_renamed_rule_is_the_same_and_one_that_is_gone_leaves_what_it_found() {
    let mut engine = engine_after(TEXT, &campaign("shop", 0, 50, 4));
    let first = told(&mut engine).remove(0);
    let saved = engine.snapshot().expect("snapshot");
    let restored = |text: &str| {
        let mut engine = Engine::restore(rules_of(text), &saved).expect("restores");
        (engine.take_alerts(), engine)
    };
    assert_eq!(restored(TEXT).0, [], "the same rules have judged already");
    let renamed = TEXT.replace("[unanswered", "[nobody_answers").replace("[[unanswered", "[[nobody_answers").replacen(
        "about = \"Many",
        "before = [\"unanswered\"]\nabout = \"Many",
        1,
    );
    assert_eq!(restored(&renamed).0, [], "nothing that it judges has changed");
    let (found, _) = restored(&renamed.replacen("version = 1", "version = 2", 1));
    let said: Vec<_> = found.iter().map(|a| (a.rule.as_str(), a.rule_version, a.fingerprint.as_str(), a.revision)).collect();
    assert_eq!(said, [("nobody_answers", 2, first.fingerprint.as_str(), 2)]);
    let stricter =
        TEXT.replacen("version = 1", "version = 2", 1).replacen("0.1 *", "0.01 *", 1).replace("sent = 100 }", "sent = 900 }");
    let (found, _) = restored(&stricter);
    assert!(found.len() == 1 && found[0].withdrawn && found[0].explanation.contains("by version 2 of the rule"), "{found:?}");
    // Below its `least` it is looked at all the same, and no other rule asks for it.
    let alone = TEXT.split_once("[beyond_itself]").expect("two rules").0;
    let larger = alone.replacen("version = 1", "version = 2", 1).replacen("least = 40", "least = 90", 1);
    let (found, _) = restored(&larger);
    assert!(found.len() == 1 && found[0].withdrawn && found[0].threshold == 90, "{found:?}");
    let (before, after) = TEXT.split_once("[beyond_itself]").expect("two rules");
    assert!(before.contains("[unanswered]"));
    let (found, engine) = restored(&format!("[beyond_itself]{after}"));
    assert_eq!(found, []);
    assert!(
        engine.snapshot().expect("snapshot").windows(first.fingerprint.len()).any(|part| part == first.fingerprint.as_bytes())
    );
    // A rule that is new finds what is still counted.
    let (found, _) = restored(&format!("{TEXT}{}", before.replace("unanswered", "unanswered_too")));
    assert_eq!(found.iter().map(|a| a.rule.as_str()).collect::<Vec<_>>(), ["unanswered_too"]);
}

/// Two days of two businesses and an hour of two groups: each rule fires, and each is undone on something.
pub(super) fn evening() -> Vec<Row> {
    let mut content = campaign("a", 0, 50, 4);
    content.extend(campaign("a", 1, 150, 20));
    content.extend(campaign("b", 0, 60, 6));
    content.extend(campaign("b", 1, 90, 3));
    content.extend((0..6).map(|n| of_business(SignalKind::Blocked, "b", NOON + n * 7_000)));
    content.extend((0..12).map(|n| of_business(SignalKind::Reported, "a", NOON + DAY_MS + n * 7_000)));
    for (group, joined, left) in [(3, 24, 14), (4, 40, 18), (5, 9, 9), (6, 60, 40)] {
        content.extend(spread(SignalKind::GroupJoined, group, joined, 0, 25));
        content.extend(spread(SignalKind::GroupLeft, group, left, 20, 30));
    }
    content
}

fn shuffled(mut content: Vec<Row>, seed: u64) -> Vec<Row> {
    let mut state = seed | 1;
    for i in (1..content.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        content.swap(i, (state >> 33) as usize % (i + 1));
    }
    content
}

/// What stands at last, however often it was told.
fn standing(latest: BTreeMap<String, Alert>) -> Vec<Alert> {
    latest.into_values().filter(Alert::stands).map(|alert| Alert { revision: 1, ..alert }).collect()
}

fn latest(engine: &mut Engine, into: &mut BTreeMap<String, Alert>) {
    into.extend(told(engine).into_iter().map(|alert| (alert.fingerprint.clone(), alert)));
}

pub(super) fn vectors(engine: &mut Engine) -> Vectors {
    engine.source_is_over();
    let mut vectors = engine.take_vectors().expect("something was counted").1;
    // Written and read, for their order.
    let mut back = Vectors::default();
    for fact in Fact::ALL {
        back.decode(fact, &vectors.encode(fact).expect("writes")).expect("reads");
    }
    back
}

#[test]
fn the_evening_that_the_order_tests_use_has_what_stands_and_what_is_undone() {
    let mut engine = Engine::new(rules_of(TEXT));
    let mut found = BTreeMap::new();
    for (i, part) in shuffled(evening(), 5).chunks(20).enumerate() {
        engine.apply(&batch(0, i as i64, part)).expect("signals");
        latest(&mut engine, &mut found);
    }
    let undone = found.values().filter(|alert| alert.withdrawn).count();
    let rules: BTreeSet<_> = standing(found).into_iter().map(|alert| alert.rule).collect();
    assert!(undone > 0, "late signals undo something");
    assert_eq!(rules.iter().map(String::as_str).collect::<Vec<_>>(), ["beyond_itself", "leavers", "unanswered"]);
}

#[test]
fn a_backtest_finds_what_the_detector_found() {
    let mut engine = engine_after(TEXT, &evening());
    let mut found = BTreeMap::new();
    latest(&mut engine, &mut found);
    let stands = standing(found);
    let kept = Kept { vectors: vectors(&mut engine), left_out: 0 };
    for rule in rules_of(TEXT).written.rules() {
        let mut expected: BTreeMap<EpochId, Vec<f64>> = BTreeMap::new();
        let mut businesses = BTreeSet::new();
        for alert in stands.iter().filter(|alert| alert.rule == rule.name) {
            expected.entry(EpochId::of(alert.window.start_ms)).or_default().push(alert.factor);
            if rule.on == Fact::BusinessDay {
                businesses.insert(alert.subject.value.clone());
            }
        }
        expected.values_mut().for_each(|factors| factors.sort_by(f64::total_cmp));
        let days = backtest(rule, &kept);
        let fired: BTreeMap<_, _> =
            days.iter().filter(|(_, day)| day.fired > 0).map(|(day, found)| (*day, found.factors.clone())).collect();
        assert!(!expected.is_empty());
        assert_eq!(fired, expected, "{}", rule.name);
        assert_eq!(days.values().flat_map(|day| day.businesses.clone()).collect::<BTreeSet<_>>(), businesses, "{}", rule.name);
        assert_eq!(days.len(), 2, "a day without a window is there, too");
        for (day, found) in &days {
            assert_eq!(found.subjects(), expected.get(day).map_or(0, |factors| factors.len() as u64));
        }
    }
}

#[test]
fn a_day_is_kept_when_it_is_over_and_once_more_when_something_still_comes() {
    let rows = |engine: &mut Engine| -> Vec<(String, i32, Option<f64>)> {
        let taken = engine.take_vectors().map(|(_, vectors)| vectors.days).unwrap_or_default();
        taken.into_iter().map(|kept| (kept.business, kept.day, kept.row[0].number())).collect()
    };
    let mut engine = engine_after(TEXT, &campaign("shop", 0, 50, 4));
    let today = EpochId::of(NOON).0;
    let clock = |engine: &mut Engine, sequence: i64, hours: i64| {
        engine.apply(&batch(0, sequence, &[message(9, NOON + hours * 60 * MINUTE)])).expect("signals");
        engine.take_alerts();
        engine.sweep();
    };
    clock(&mut engine, 1, 17);
    assert_eq!(rows(&mut engine), [], "five hours after its end");
    clock(&mut engine, 2, 18);
    assert_eq!(rows(&mut engine), [("shop".to_owned(), today, Some(50.0))]);
    clock(&mut engine, 3, 19);
    assert_eq!(rows(&mut engine), [], "once");
    engine.apply(&batch(0, 4, &campaign("shop", 0, 7, 0))).expect("signals");
    clock(&mut engine, 5, 20);
    assert_eq!(rows(&mut engine), [("shop".to_owned(), today, Some(57.0))]);
    // The third day pushes it out: nothing new is nothing to keep. The second is kept with it when the source is over.
    let more: Vec<Row> = [1, 2].into_iter().flat_map(|day| campaign("shop", day, 11, 0)).collect();
    engine.apply(&batch(0, 6, &more)).expect("signals");
    assert_eq!(rows(&mut engine), []);
    engine.source_is_over();
    let kept = rows(&mut engine);
    assert_eq!(kept, [("shop".to_owned(), today + 1, Some(11.0)), ("shop".to_owned(), today + 2, Some(11.0))]);
    engine.source_is_over();
    assert_eq!(rows(&mut engine), []);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn i9_order_and_cuts_change_neither_what_stands_nor_what_is_kept(seed: u64, size in 3_usize..400) {
        let mut straight = engine_after(TEXT, &evening());
        let mut expected = BTreeMap::new();
        latest(&mut straight, &mut expected);
        let mut engine = Engine::new(rules_of(TEXT));
        let mut found = BTreeMap::new();
        for (i, part) in shuffled(evening(), seed).chunks(size).enumerate() {
            engine.apply(&batch((i % 3) as i32, i as i64, part)).expect("signals");
            latest(&mut engine, &mut found);
        }
        prop_assert_eq!(standing(found), standing(expected));
        prop_assert_eq!(vectors(&mut engine), vectors(&mut straight));
    }

    #[test]
    fn i9_with_written_rules_an_engine_restored_anywhere_goes_on_as_if_nothing_had_happened(cut in 1_usize..500, look: bool) {
        let content = evening();
        let cut = cut.min(content.len() - 1);
        let mut straight = engine_after(TEXT, &content[..cut]);
        if look {
            straight.take_alerts();
            straight.source_is_over();
        }
        let saved = straight.snapshot().expect("snapshot");
        let mut restored = Engine::restore(rules_of(TEXT), &saved).expect("restores");
        prop_assert_eq!(restored.snapshot().expect("snapshot"), saved);
        for engine in [&mut straight, &mut restored] {
            engine.apply(&batch(0, 1, &content[cut..])).expect("signals");
        }
        prop_assert_eq!(straight.take_alerts(), restored.take_alerts());
        prop_assert_eq!(straight.snapshot().expect("snapshot"), restored.snapshot().expect("snapshot"));
        prop_assert_eq!(vectors(&mut straight), vectors(&mut restored));
    }
}
