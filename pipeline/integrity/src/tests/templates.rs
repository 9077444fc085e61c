//! New templates of businesses that are known.

use std::collections::BTreeMap;

use super::*;
use crate::snapshot::{MAGIC_BEFORE_EVIDENCE, MAGIC_BEFORE_TEMPLATES};

const HOUR: i64 = 3_600_000;
const MINUTE: i64 = 60_000;
/// The day on which new templates begin.
const TODAY: i64 = 5;
/// A quarter past nine on that day.
const BEGIN: i64 = NOON + TODAY * DAY_MS - 3 * HOUR + 15 * MINUTE;
const RULE: &str = "business_template";

/// `n` messages of a template within half an hour.
fn sent(business: &'static str, template: &'static str, from: i64, n: u32) -> Vec<Row> {
    let row = |i| Row {
        template: Some(template),
        ..sent_by(business, i, from + i64::from(i) * 30 * MINUTE / i64::from(n), Category::Marketing, Tier::T10k)
    };
    (0..n).map(row).collect()
}

/// As many who object, a second between them.
fn objections(kind: SignalKind, template: Option<&'static str>, from: i64, n: i64) -> Vec<Row> {
    let row = |i| Row { kind, business: Some("shop"), person: None, template, ..message(0, from + i * 1_000) };
    (0..n).map(row).collect()
}

fn blocks(template: &'static str, from: i64, n: i64) -> Vec<Row> {
    objections(SignalKind::Blocked, Some(template), from, n)
}

fn young(rows: Vec<Row>) -> Vec<Row> {
    rows.into_iter().map(|row| Row { strangers: 1, ..row }).collect()
}

/// Five days on which the shop sends 200 messages of its usual template, and one person blocks it.
fn days() -> Vec<Row> {
    let day = |day| [sent("shop", "usual", NOON + day * DAY_MS, 200), blocks("usual", NOON + day * DAY_MS + HOUR, 1)].concat();
    (0..TODAY).flat_map(day).collect()
}

/// What is told of templates after those days.
fn told_after(before: &[Row], today: &[Row]) -> Vec<Alert> {
    let mut found = alerts(&[before, today].concat());
    found.retain(|alert| alert.rule == RULE);
    found
}

fn told(today: &[Row]) -> Vec<Alert> {
    told_after(&days(), today)
}

#[test]
fn a_new_template_that_people_block_is_told_of_within_the_hour_and_a_usual_one_is_not() {
    let batch = |n| [sent("shop", "offer", BEGIN, 200), blocks("offer", BEGIN + 20 * MINUTE, n)].concat();
    assert_eq!(told(&batch(7)), []);
    let found = told(&batch(8));
    assert_eq!(found.len(), 1, "{found:?}");
    let alert = &found[0];
    assert_eq!((alert.observed, alert.threshold, alert.evidence, alert.severity.as_str()), (8, 8, 200, "medium"));
    assert!(alert.explanation.contains("\"offer\"") && alert.explanation.contains("and <10 blocks and reports"), "{alert:?}");
    assert!(
        alert.explanation.contains("within 30 minutes of the first one") && alert.explanation.contains("10^4 times"),
        "{alert:?}"
    );
    assert!(alert.window.end_ms - alert.first_ms < HOUR);
    // Nine are told as eight are: nobody is to count them.
    let nine = told(&batch(9));
    assert_eq!((nine[0].observed, &nine[0].explanation), (8, &alert.explanation));
    let many = &told(&batch(40))[0];
    assert_eq!((many.observed, many.severity.as_str()), (40, "high"));
    assert!(many.explanation.contains("and 40 blocks and reports") && many.threshold < 12, "{many:?}");
    // The same of the template that it always sends, or of none, is a matter of the day's count.
    let of = |template: &'static str| [sent("shop", template, BEGIN, 200), blocks(template, BEGIN + 20 * MINUTE, 40)].concat();
    assert_eq!(told(&of("usual")), []);
    assert_eq!(told(&of("")), []);
    let unsaid = objections(SignalKind::Blocked, None, BEGIN + 20 * MINUTE, 40);
    assert_eq!(told(&[sent("shop", "offer", BEGIN, 200), unsaid].concat()), []);
}

#[test]
fn reports_alone_are_a_priority_and_those_without_a_delivery_or_of_new_accounts_count_little() {
    let of = |feedback: Vec<Row>| told(&[sent("shop", "offer", BEGIN, 200), feedback].concat());
    let at = BEGIN + 20 * MINUTE;
    let reports = |n| objections(SignalKind::Reported, Some("offer"), at, n);
    let found = of(reports(60));
    assert_eq!(found.iter().map(|a| (a.observed, a.severity.as_str())).collect::<Vec<_>>(), [(60, "low")]);
    assert!(found[0].counter_evidence.iter().any(|said| said.contains("by arrangement")));
    assert_eq!(of(reports(60).into_iter().map(|row| Row { count: 0, ..row }).collect()), []);
    let severity = |found: Vec<Alert>| found.first().map(|alert| (alert.observed, alert.severity.clone()));
    assert_eq!(severity(of([reports(30), blocks("offer", at, 7)].concat())), Some((37, "low".to_owned())));
    assert_eq!(severity(of([reports(30), blocks("offer", at, 8)].concat())), Some((38, "high".to_owned())));
    // Of accounts of their first week as many as a quarter of the others.
    assert_eq!(of(young(blocks("offer", at, 100))), []);
    assert_eq!(of([blocks("offer", at, 6), young(blocks("offer", at, 3))].concat()), [], "six and one");
    let crowd = of([blocks("offer", at, 16), young(blocks("offer", at, 100))].concat());
    assert_eq!(severity(crowd.clone()), Some((20, "high".to_owned())));
    assert!(crowd[0].counter_evidence.iter().any(|said| said.starts_with("96 more by accounts")), "{crowd:?}");
    // Nobody objects to what few got.
    assert_eq!(told(&[sent("shop", "offer", BEGIN, 7), blocks("offer", at, 90)].concat()), []);
}

#[test]
fn what_is_new_to_us_alone_is_not_judged() {
    let bad = |from| [sent("shop", "offer", from, 200), blocks("offer", from + 20 * MINUTE, 60)].concat();
    assert_eq!(told_after(&[], &bad(BEGIN)), [], "the first day of all");
    let others: Vec<Row> = sent("other", "usual", NOON, 50);
    assert_eq!(told_after(&others, &bad(BEGIN)), [], "the first day of the business");
    let unnamed: Vec<Row> = days().into_iter().map(|row| Row { template: None, ..row }).collect();
    assert_eq!(told_after(&unnamed, &bad(BEGIN)), [], "the first day on which templates are named");
    assert_eq!(told_after(&[unnamed, others].concat(), &bad(BEGIN)).len(), 1);
    // On the days after it has become known.
    let used = [sent("shop", "offer", BEGIN, 200), sent("shop", "offer", BEGIN + 30 * HOUR, 200)].concat();
    let late = blocks("offer", BEGIN + 31 * HOUR, 60);
    assert_eq!(told(&[used, late].concat()), []);
}

#[test]
fn two_templates_of_a_day_are_two_alerts() {
    let of = |template| [sent("shop", template, BEGIN, 200), blocks(template, BEGIN + 20 * MINUTE, 30)].concat();
    let found = told(&[of("offer"), of("offer 2"), sent("shop", "fine", BEGIN, 200)].concat());
    let prints: std::collections::BTreeSet<_> = found.iter().map(|alert| &alert.fingerprint).collect();
    assert_eq!((found.len(), prints.len()), (2, 2), "{found:?}");
    let expected = crate::template_fingerprint("shop", "offer", EpochId::of(BEGIN).0);
    assert!(prints.contains(&expected));
    assert_ne!(expected, crate::template_fingerprint("shopoffer", "", EpochId::of(BEGIN).0));
}

#[test]
fn an_alert_is_taken_back_when_more_was_written_than_was_known_and_not_by_what_is_written_later() {
    let mut engine = Engine::new(Rules::detectors().expect("rules"));
    let mut sequence = 0;
    let mut take = |engine: &mut Engine, rows: &[Row]| {
        engine.apply(&batch(0, sequence, rows)).expect("signals");
        sequence += 1;
        let mut found = engine.take_alerts();
        found.retain(|alert| alert.rule == RULE);
        found
    };
    take(&mut engine, &days());
    let found = take(&mut engine, &[sent("shop", "offer", BEGIN, 200), blocks("offer", BEGIN + 20 * MINUTE, 20)].concat());
    assert_eq!(found.iter().map(|a| (a.stands(), a.revision)).collect::<Vec<_>>(), [(true, 1)]);
    // The rest goes out hours later: the first batch stays what it was.
    assert_eq!(take(&mut engine, &sent("shop", "offer", BEGIN + 5 * HOUR, 5_000)), []);
    // Within the same hour, but it becomes known late.
    let late = take(&mut engine, &sent("shop", "offer", BEGIN, 2_000));
    assert_eq!(late.iter().map(|a| (a.stands(), a.withdrawn, a.severity.as_str())).collect::<Vec<_>>(), [(false, true, "low")]);
    assert!(late[0].explanation.starts_with("No longer holds: more was written"), "{late:?}");
    assert_eq!(take(&mut engine, &sent("shop", "offer", BEGIN, 10)), [], "it is said once");
    let again = take(&mut engine, &blocks("offer", BEGIN + 21 * MINUTE, 300));
    assert_eq!(again.iter().map(|a| (a.stands(), a.revision, a.observed)).collect::<Vec<_>>(), [(true, 3, 320)]);
}

#[test]
fn a_first_message_of_the_day_before_that_comes_late_takes_the_alert_along() {
    let midnight = EpochId::of(BEGIN).start_ms();
    let mut engine = Engine::new(Rules::detectors().expect("rules"));
    let today = [sent("shop", "offer", midnight + MINUTE, 200), blocks("offer", midnight + 20 * MINUTE, 30)].concat();
    let mut feed = BTreeMap::new();
    for (nth, rows) in [days(), today.clone(), sent("shop", "offer", midnight - 30 * MINUTE, 20)].iter().enumerate() {
        engine.apply(&batch(0, nth as i64, rows)).expect("signals");
        feed.extend(engine.take_alerts().into_iter().filter(|a| a.rule == RULE).map(|a| (a.fingerprint.clone(), a)));
    }
    let standing: Vec<_> = feed.values().map(|alert| (alert.stands(), alert.first_ms < midnight)).collect();
    assert_eq!(standing.iter().filter(|(stands, _)| *stands).collect::<Vec<_>>(), [&(true, true)], "{feed:?}");
    assert_eq!(feed.len(), 2);
}

#[test]
fn state_saved_before_templates_were_known_is_read_and_damage_is_refused() {
    let rules = || Rules::detectors().expect("rules");
    let mut engine = Engine::new(rules());
    engine.apply(&batch(0, 0, &[message(1, NOON)])).expect("signals");
    let before = engine.snapshot_as(MAGIC_BEFORE_TEMPLATES).expect("snapshot");
    let without = |engine: &Engine| engine.snapshot_as(MAGIC_BEFORE_EVIDENCE).expect("snapshot");
    assert_eq!(without(&Engine::restore(rules(), &before).expect("the version before")), without(&engine));
    engine.apply(&batch(0, 1, &[days(), sent("shop", "offer", BEGIN, 9), blocks("offer", BEGIN, 9)].concat())).expect("signals");
    engine.take_alerts();
    let saved = engine.snapshot().expect("snapshot");
    let mut again = Engine::restore(rules(), &saved).expect("restores");
    assert_eq!(again.snapshot().expect("snapshot"), saved);
    for cut in saved.len() - 400..saved.len() {
        assert!(Engine::restore(rules(), &saved[..cut]).is_err(), "cut at {cut}");
    }
    let more = [sent("shop", "offer", BEGIN + MINUTE, 100), blocks("offer", BEGIN + MINUTE, 30)].concat();
    for engine in [&mut engine, &mut again] {
        engine.apply(&batch(0, 2, &more)).expect("signals");
    }
    assert_eq!(engine.take_alerts(), again.take_alerts());
    assert_eq!(engine.snapshot().expect("snapshot"), again.snapshot().expect("snapshot"));
}

#[test]
fn what_is_under_test_is_known_when_its_day_is_over_and_is_forgotten_with_its_business() {
    let mut engine = Engine::new(Rules::detectors().expect("rules"));
    engine.apply(&batch(0, 0, &[days(), sent("shop", "offer", BEGIN, 20)].concat())).expect("signals");
    let pass = |engine: &mut Engine, sequence: i64, time: i64| {
        engine.apply(&batch(0, sequence, &[message(9, time)])).expect("signals");
        engine.take_alerts();
        (0..3).for_each(|_| engine.sweep());
        engine.templates.of.get("shop").map(|templates| (templates.known.len(), templates.tested.len()))
    };
    let ends = BEGIN - 15 * MINUTE + 24 * HOUR;
    assert_eq!(pass(&mut engine, 1, ends - 1), Some((1, 1)));
    assert_eq!(pass(&mut engine, 2, ends), Some((2, 0)));
    assert!(engine.footprint().business_bytes > 0);
    assert_eq!(pass(&mut engine, 3, ends + 40 * DAY_MS), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn i9_what_stands_of_templates_depends_on_no_order_and_no_restart(
        seed: u64, size in 40_usize..900, first in 0_i64..40, many in 0_i64..60, hours in 1_i64..5, reach in 20_u32..700,
    ) {
        let mut content = sent("shop", "offer", BEGIN, 150);
        content.extend(sent("shop", "offer", BEGIN + hours * HOUR, reach));
        content.extend(blocks("offer", BEGIN + 10 * MINUTE, first));
        content.extend(blocks("offer", BEGIN + hours * HOUR + 30 * MINUTE, many));
        content.extend(young(blocks("offer", BEGIN + hours * HOUR, many / 2)));
        content.extend(objections(SignalKind::Reported, Some("offer"), BEGIN + (hours - 1) * HOUR, first / 2));
        content.extend(sent("shop", "second", BEGIN + HOUR, reach));
        content.extend(blocks("second", BEGIN - 30 * MINUTE + HOUR, many / 3));
        let of_templates = |content: &[Row], size: usize, restarts: bool| -> Vec<Alert> {
            standing_after(&days(), content, size, restarts).into_iter().filter(|alert| alert.rule == RULE).collect()
        };
        let expected = of_templates(&content, usize::MAX, false);
        prop_assert_eq!(of_templates(&groups::shuffled(content, seed), size, true), expected);
    }
}
