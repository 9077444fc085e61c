//! Whose voices they are: brigades of older accounts that a business had written to, and people who are angry.

use starling_schemas::codes::ReporterRate;

use super::*;
use crate::snapshot::{MAGIC_BEFORE_EVIDENCE, MAGIC_BEFORE_TOLD, MAGIC_BEFORE_VOICES};

const SHOP: &str = "shop";

/// A day's campaign to so many people, with the days before it.
fn campaign(people: u32) -> Vec<Row> {
    let day = |day: i64, people: u32| {
        (0..people).map(move |i| sent_by(SHOP, i, NOON + day * DAY_MS + i64::from(i), Category::Marketing, Tier::T100k))
    };
    (0..3).flat_map(|n| day(n, people)).chain(day(3, people)).collect()
}

fn objection(nth: i64, voice: Voice) -> Row {
    let kind = if nth % 3 == 0 { SignalKind::Reported } else { SignalKind::Blocked };
    Row { kind, business: Some(SHOP), person: None, voice, ..message(0, NOON + 3 * DAY_MS + 3_600_000 + nth) }
}

fn of(bucket: Option<u8>, rate: ReporterRate, count: i64) -> Vec<Row> {
    (0..count).map(|nth| objection(nth, Voice { bucket, rate })).collect()
}

/// People who know nothing of each other, as often as people object.
fn honest(count: i64, mut seed: u64) -> Vec<Row> {
    let mut draw = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed >> 33
    };
    (0..count)
        .map(|nth| {
            let bucket = u8::try_from(draw() % 256).ok();
            let rate = match draw() % 100 {
                0..78 => ReporterRate::Never,
                78..96 => ReporterRate::Few,
                96..99 => ReporterRate::Several,
                _ => ReporterRate::Many,
            };
            objection(nth, Voice { bucket, rate })
        })
        .collect()
}

fn told(parts: &[Vec<Row>]) -> Vec<Alert> {
    let mut found = alerts(&parts.concat());
    found.retain(|alert| alert.stands() && ["business_blocks", "report_brigade"].contains(&alert.rule.as_str()));
    found
}

fn numbers(found: &[Alert]) -> Vec<(&str, u64)> {
    found.iter().map(|a| (a.rule.as_str(), a.observed)).collect()
}

#[test]
fn a_brigade_out_of_few_cohorts_counts_for_little_and_is_told_of() {
    let out_of = |bucket, count| of(Some(bucket), ReporterRate::Few, count);
    for count in [20, 60, 900] {
        let one = told(&[campaign(200), out_of(7, count)]);
        assert_eq!(numbers(&one), [("report_brigade", count as u64)]);
        assert!(one[0].explanation.contains("came from accounts that were registered together, nearly all"), "{one:?}");
        assert!(one[0].counter_evidence[0].starts_with("<10 blocks and reports"), "{one:?}");
        assert_eq!(one[0].severity, "low");
        let five: Vec<Row> = (0..5_u8).flat_map(|n| out_of(n * 40, count)).collect();
        let five = told(&[campaign(200), five]);
        assert_eq!(numbers(&five), [("report_brigade", 5 * count as u64)], "each of five counts three");
    }
    assert_eq!(told(&[campaign(200), out_of(7, 19)]), [], "too few for either");
    // Beside people who are angry: those are what counts, and the others are told.
    let both = told(&[campaign(200), out_of(7, 60), honest(40, 5)]);
    assert_eq!(numbers(&both).iter().map(|(rule, _)| *rule).collect::<Vec<_>>(), ["business_blocks", "report_brigade"]);
    assert!((38..=44).contains(&both[0].observed), "{both:?}");
    assert!(
        both[0]
            .counter_evidence
            .iter()
            .any(|said| said == "60 were by accounts that were registered together, and counted as <10"),
        "{both:?}"
    );
    assert!(both[0].explanation.contains("drew blocks and reports that count as "), "{both:?}");
    // Where others object as much it is no brigade; what it counts stays small.
    let anger = told(&[campaign(200), out_of(7, 60), honest(90, 5)]);
    assert_eq!(anger.iter().map(|a| a.rule.as_str()).collect::<Vec<_>>(), ["business_blocks"]);
    assert!(anger[0].observed <= 90 + 3 + 4, "{anger:?}");
}

#[test]
fn who_objects_all_the_time_counts_a_quarter_and_many_of_them_are_a_brigade() {
    let spread = |rate, count: i64| (0..count).flat_map(|n| of(u8::try_from(n % 251).ok(), rate, 1)).collect::<Vec<_>>();
    let many = told(&[campaign(200), spread(ReporterRate::Many, 60)]);
    assert_eq!(numbers(&many), [("report_brigade", 60)], "fifteen voices are no alert");
    assert!(many[0].explanation.contains("came from accounts that object all the time, nearly all"), "{many:?}");
    let several = told(&[campaign(200), spread(ReporterRate::Several, 60)]);
    assert_eq!(numbers(&several), [("business_blocks", 30)]);
    assert!(
        several[0].counter_evidence.iter().any(|said| said == "60 were by accounts that object often, and weighed as 30"),
        "{several:?}"
    );
    assert_eq!(numbers(&told(&[campaign(200), spread(ReporterRate::Few, 60)])), [("business_blocks", 60)]);
    // 80 of them weigh twenty.
    let loud = told(&[campaign(200), spread(ReporterRate::Many, 80)]);
    assert_eq!(numbers(&loud), [("business_blocks", 20), ("report_brigade", 80)]);
    assert!(loud.iter().all(|alert| alert.severity == "low"));
}

#[test]
fn of_an_old_edge_everything_counts_and_the_alert_says_what_is_not_known() {
    let found = told(&[campaign(200), of(None, ReporterRate::Unknown, 60)]);
    assert_eq!(numbers(&found), [("business_blocks", 60)]);
    assert_eq!(found[0].data_gaps, ["of 60 it is not known with whom their accounts were registered: they are not capped"]);
    let known = told(&[campaign(200), honest(60, 1)]);
    assert_eq!(known[0].data_gaps, [] as [String; 0]);
    let few = told(&[campaign(200), honest(60, 1), of(None, ReporterRate::Unknown, 3)]);
    assert!(few[0].data_gaps[0].starts_with("of <10 it"), "{few:?}");
}

/// A report of group 3.
fn report(minute: i64, bucket: Option<u8>, rate: ReporterRate) -> Row {
    Row {
        kind: SignalKind::GroupReported,
        group: Some([3; 16]),
        person: None,
        voice: Voice { bucket, rate },
        ..message(0, NOON + minute * 60_000)
    }
}

/// So many within 50 minutes, out of all buckets.
fn reports(count: i64, rate: ReporterRate) -> Vec<Row> {
    (0..count).map(|n| report(n % 50, Some((n * 37 % 251) as u8), rate)).collect()
}

/// The same out of one.
fn reports_out_of(bucket: u8, count: i64) -> Vec<Row> {
    (0..count).map(|n| report(n % 50, Some(bucket), ReporterRate::Few)).collect()
}

fn by_newcomers(rows: Vec<Row>) -> Vec<Row> {
    rows.into_iter().map(|row| Row { strangers: 1, ..row }).collect()
}

#[test]
fn reports_of_a_group_count_as_those_of_a_business_do() {
    let told = |reports: Vec<Row>| -> Vec<(u64, Vec<String>)> {
        let found = alerts(&reports);
        assert!(found.iter().all(|a| a.stands() && a.severity == "low"), "{found:?}");
        found.into_iter().filter(|a| a.rule == "group_reports").map(|a| (a.observed, a.counter_evidence)).collect()
    };
    assert_eq!(told(reports(30, ReporterRate::Few)).iter().map(|(n, _)| *n).collect::<Vec<_>>(), [30]);
    assert_eq!(told(reports_out_of(7, 300)), [], "one cohort counts three");
    assert_eq!(told(reports(60, ReporterRate::Many)), [], "fifteen");
    let both = told([reports(30, ReporterRate::Few), reports_out_of(7, 60)].concat());
    let (observed, beside) = &both[0];
    assert!((32..=35).contains(observed), "{both:?}");
    assert!(beside.iter().any(|said| said.ends_with("registered together, and counted as <10")), "{both:?}");
    assert_eq!(told(by_newcomers(reports(79, ReporterRate::Never))), [], "accounts made for it weigh a quarter");
    assert_eq!(told(by_newcomers(reports(80, ReporterRate::Never))).len(), 1);
    // The hour counts, and not the day: two honest quarters of an hour lie four hours apart.
    let later = reports(15, ReporterRate::Few).into_iter().map(|r| Row { time: r.time + 14_400_000, ..r }).collect();
    assert_eq!(told([reports(15, ReporterRate::Few), later].concat()), []);
}

#[test]
fn reports_of_a_group_by_arrangement_are_an_alert_of_their_own() {
    let told = |reports: Vec<Row>| -> Vec<Alert> {
        alerts(&reports).into_iter().filter(|alert| alert.rule == "group_report_brigade").collect()
    };
    let cohort = told(reports_out_of(7, 60));
    assert_eq!((numbers(&cohort), cohort[0].threshold, &*cohort[0].severity), (vec![("group_report_brigade", 60)], 20, "low"));
    assert!(cohort[0].explanation.contains("from accounts that were registered together, nearly all of all"), "{cohort:?}");
    assert_eq!(cohort[0].counter_evidence[0], "<10 reports came from others");
    assert_eq!(told(reports_out_of(7, 19)), []);
    // By their weight: sixty that weigh a quarter, or a half.
    let newcomers = told(by_newcomers(reports(60, ReporterRate::Never)));
    assert_eq!(numbers(&newcomers), [("group_report_brigade", 60)]);
    assert!(newcomers[0].explanation.contains("from accounts of their first week or such as object often"), "{newcomers:?}");
    assert_eq!(numbers(&told(reports(60, ReporterRate::Many))), [("group_report_brigade", 60)]);
    assert_eq!(
        numbers(&told(reports(60, ReporterRate::Several))),
        [("group_report_brigade", 40)],
        "two thirds of what they weigh off"
    );
    // Beside others who report as well it is one as long as it is half.
    let beside = |others| told([reports_out_of(7, 60), reports(others, ReporterRate::Few)].concat());
    assert!(beside(50)[0].explanation.contains("55 % of all"), "{:?}", beside(50));
    assert_eq!(beside(150), []);
    for count in [20, 60, 300] {
        assert_eq!(told(reports(count, ReporterRate::Few)), [], "honest anger");
    }
    assert_eq!(told((0..60).map(|n| report(n % 50, None, ReporterRate::Unknown)).collect()), [], "nothing is known of them");
}

#[test]
fn a_brigade_that_others_join_late_is_taken_back() {
    let mut engine = Engine::new(Rules::detectors().expect("rules"));
    let mut nth = 0;
    let mut told = |rows: &[Row]| {
        engine.apply(&batch(0, nth, rows)).expect("signals");
        nth += 1;
        engine.take_alerts().into_iter().filter(|a| a.rule == "group_report_brigade").collect::<Vec<_>>()
    };
    assert_eq!(told(&reports_out_of(7, 22)).iter().map(|a| (a.stands(), a.observed)).collect::<Vec<_>>(), [(true, 22)]);
    let later = told(&reports(600, ReporterRate::Never));
    // With the two of these that are out of the same bucket.
    assert_eq!(later.iter().map(|a| (a.stands(), a.withdrawn, a.observed)).collect::<Vec<_>>(), [(false, true, 24)]);
    assert!(later[0].explanation.starts_with("No longer holds") && later[0].explanation.contains("6 % of all"), "{later:?}");
}

#[test]
fn a_group_of_before_there_were_voices_goes_on_with_what_it_had_counted() {
    let rules = || Rules::detectors().expect("rules");
    let mut engine = Engine::new(rules());
    engine.apply(&batch(0, 0, &vec![report(0, None, ReporterRate::Unknown); 18])).expect("signals");
    assert_eq!(engine.take_alerts(), []);
    let old = engine.snapshot_as(MAGIC_BEFORE_VOICES).expect("saves");
    let mut restored = Engine::restore(rules(), &old).expect("the version before is read");
    let without = |engine: &Engine| engine.snapshot_as(MAGIC_BEFORE_EVIDENCE).expect("saves");
    assert_eq!(without(&restored), without(&engine));
    restored.apply(&batch(0, 1, &vec![report(0, Some(9), ReporterRate::Unknown); 9])).expect("signals");
    assert_eq!(numbers(&restored.take_alerts()), [("group_reports", 21)]);
    let saved = restored.snapshot().expect("saves");
    assert_eq!(Engine::restore(rules(), &saved).expect("restores").snapshot().expect("saves"), saved);
    for cut in saved.len() - 52..saved.len() {
        assert!(Engine::restore(rules(), &saved[..cut]).is_err(), "cut at {cut}");
    }
    restored.groups.values_mut().for_each(|group| group.hours.reports.0.reverse());
    assert!(Engine::restore(rules(), &restored.snapshot().expect("saves")).is_err(), "out of order");
}

#[test]
fn honest_anger_is_found_and_never_told_as_a_brigade() {
    for seed in 0..150 {
        for count in [24, 60, 300] {
            let found = told(&[campaign(200), honest(count, seed * 977 + 1)]);
            assert_eq!(found.iter().map(|a| a.rule.as_str()).collect::<Vec<_>>(), ["business_blocks"], "{seed} {count}");
            // Some object often; hardly anybody is one too many of his cohort.
            assert!(found[0].observed * 100 >= count as u64 * 85, "{seed} {count}: {}", found[0].observed);
        }
    }
}

#[test]
fn strangers_newcomers_and_old_accounts_are_one_brigade_together() {
    let unfounded = (0..15).map(|nth| Row { kind: SignalKind::Reported, count: 0, ..objection(nth, Voice::default()) }).collect();
    let young = (0..9).map(|nth| Row { strangers: 1, ..objection(nth, Voice::default()) }).collect();
    let found = told(&[campaign(200), unfounded, of(Some(1), ReporterRate::Never, 15)]);
    assert_eq!(numbers(&found), [("report_brigade", 30)]);
    assert!(
        found[0].explanation.contains("to whom it had delivered nothing or from accounts that were registered together"),
        "{found:?}"
    );
    let found = told(&[campaign(200), young, of(Some(1), ReporterRate::Never, 19)]);
    assert_eq!(numbers(&found), [("report_brigade", 28)]);
    // Which nine were newcomers is not told.
    assert!(!found[0].explanation.contains("first week") && !found[0].explanation.contains('9'), "{found:?}");
}

#[test]
fn what_was_together_may_be_no_more_than_its_part_of_what_comes_later() {
    let mut engine = Engine::new(Rules::detectors().expect("rules"));
    let mut nth = 0;
    let mut told = |rows: &[Row]| {
        engine.apply(&batch(0, nth, rows)).expect("signals");
        nth += 1;
        engine.take_alerts().into_iter().filter(|a| a.rule == "report_brigade").collect::<Vec<_>>()
    };
    let first = told(&[campaign(200), of(Some(7), ReporterRate::Never, 22)].concat());
    assert_eq!(first.iter().map(|a| (a.stands(), a.observed)).collect::<Vec<_>>(), [(true, 22)]);
    // Six hundred more object out of all cohorts: 22 are within what chance brings.
    let later = told(&honest(600, 3));
    assert_eq!(later.iter().map(|a| (a.stands(), a.withdrawn)).collect::<Vec<_>>(), [(false, true)]);
    assert!(later[0].explanation.starts_with("No longer holds: others objected, too. <10 blocks"), "{later:?}");
    assert_eq!((later[0].observed, later[0].evidence), (0, 0), "less than ten are not told");
}

#[test]
fn a_brigade_makes_nothing_usual() {
    let by_day = |day: i64, rows: Vec<Row>| -> Vec<Row> {
        rows.into_iter()
            .map(|row| Row { time: row.time + (day - 3) * DAY_MS, epoch: row.epoch + (day - 3) as i32, ..row })
            .collect()
    };
    let threshold = |before: &[Row]| {
        let today = by_day(3, honest(80, 9));
        let found = told(&[campaign(200), before.to_vec(), today]);
        found.iter().find(|a| a.rule == "business_blocks" && a.first_ms > NOON + 2 * DAY_MS + DAY_MS / 2).expect("told").threshold
    };
    let brigade: Vec<Row> = (0..3).flat_map(|day| by_day(day, of(Some(7), ReporterRate::Never, 400))).collect();
    let anger: Vec<Row> = (0..3).flat_map(|day| by_day(day, honest(400, day as u64 + 1))).collect();
    assert!(threshold(&brigade) <= threshold(&[]) + 8, "{} {}", threshold(&brigade), threshold(&[]));
    assert!(threshold(&anger) >= threshold(&[]), "{}", threshold(&anger));
}

#[test]
fn an_engine_of_before_there_were_voices_goes_on_with_what_it_had_counted() {
    let rules = || Rules::detectors().expect("rules");
    let mut engine = Engine::new(rules());
    let young = of(None, ReporterRate::Unknown, 8).into_iter().map(|row| Row { strangers: 1, ..row }).collect();
    engine.apply(&batch(0, 0, &[campaign(200), of(None, ReporterRate::Unknown, 15), young].concat())).expect("signals");
    engine.take_alerts();
    let old = engine.snapshot_as(MAGIC_BEFORE_VOICES).expect("saves");
    let mut restored = Engine::restore(rules(), &old).expect("the version before is read");
    let without = |engine: &Engine| engine.snapshot_as(MAGIC_BEFORE_EVIDENCE).expect("saves");
    assert_eq!(without(&restored), without(&engine));
    for engine in [&mut engine, &mut restored] {
        engine.apply(&batch(0, 1, &of(Some(1), ReporterRate::Never, 3))).expect("signals");
    }
    assert_eq!(numbers(&restored.take_alerts()), [("business_blocks", 22)], "eighteen, and a quarter of that of newcomers");
    engine.take_alerts();
    assert_eq!(without(&restored), without(&engine));
}

#[test]
fn damaged_voices_are_refused_wherever_they_are_cut_or_out_of_order() {
    let rules = || Rules::detectors().expect("rules");
    let mut engine = Engine::new(rules());
    engine.apply(&batch(0, 0, &honest(60, 2))).expect("signals");
    // What came after voices is not looked at here.
    let saved = engine.snapshot_as(MAGIC_BEFORE_TOLD).expect("saves");
    let again = Engine::restore(rules(), &saved).expect("restores");
    assert_eq!(again.snapshot_as(MAGIC_BEFORE_TOLD).expect("saves"), saved);
    let part = 5 * engine.businesses[SHOP].days[0].voices.heard.len() + 44;
    for cut in saved.len() - part..saved.len() {
        assert!(Engine::restore(rules(), &saved[..cut]).is_err(), "cut at {cut}");
    }
    for business in engine.businesses.values_mut() {
        business.days.iter_mut().for_each(|day| day.voices.heard.reverse());
    }
    assert!(Engine::restore(rules(), &engine.snapshot().expect("saves")).is_err(), "buckets out of order");
    // Voices of a day that is not there.
    let mut elsewhere = saved.clone();
    let place = elsewhere.len() - (5 * again.businesses[SHOP].days[0].voices.heard.len() + 4 + 5 * 4 + 4 + 4);
    elsewhere[place] ^= 1;
    assert!(Engine::restore(rules(), &elsewhere).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn i9_what_stands_of_voices_depends_on_no_order_no_cut_and_no_restart(seed: u64, size in 5_usize..300, of_one in 0_i64..60, angry in 0_i64..120, loud in 0_i64..60) {
        let young: Vec<Row> = of(Some(3), ReporterRate::Never, 12).into_iter().map(|row| Row { strangers: 1, ..row }).collect();
        let content = [honest(angry, seed), of(Some(9), ReporterRate::Few, of_one), of(None, ReporterRate::Many, loud), young].concat();
        let before = campaign(200);
        let expected = standing_after(&before, &content, usize::MAX, false);
        prop_assert_eq!(standing_after(&before, &groups::shuffled(content, seed), size, true), expected);
    }
}
