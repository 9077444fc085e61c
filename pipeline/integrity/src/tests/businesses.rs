//! Businesses against their own days, and new numbers against their portfolio.

use super::*;

const NEW: &str = "new";

/// `people` of whom nobody is written to twice, on a day.
fn written(business: &'static str, day: i64, people: u32, category: Category) -> impl Iterator<Item = Row> {
    (0..people).map(move |i| sent_by(business, i, NOON + day * DAY_MS + i64::from(i) * 10, category, Tier::T10k))
}

fn objections(business: &'static str, day: i64, count: i64) -> impl Iterator<Item = Row> {
    (0..count).map(move |i| Row {
        kind: SignalKind::Blocked,
        business: Some(business),
        person: None,
        ..message(0, NOON + day * DAY_MS + 3_600_000 + i)
    })
}

/// What stands of a rule, by business: observed, threshold, severity.
fn standing(found: &[Alert], rule: &str) -> Vec<(String, u64, u64, String)> {
    let of_rule = found.iter().filter(|a| a.rule == rule && a.stands());
    of_rule.map(|a| (a.subject.value.clone(), a.observed, a.threshold, a.severity.clone())).collect()
}

/// From where on blocks fire on a day of 5,000 promotions, after `before` days of as many with so many blocks each.
fn threshold_of_blocks(before: i64, blocks_a_day: i64) -> u64 {
    let days = (0..before).flat_map(|day| {
        written("shop", day, 5_000, Category::Marketing).chain(objections("shop", day, blocks_a_day)).collect::<Vec<_>>()
    });
    let today = written("shop", before, 5_000, Category::Marketing).chain(objections("shop", before, 900));
    let found = alerts(&days.chain(today).collect::<Vec<_>>());
    let told = standing(&found, "business_blocks");
    told.iter().find(|(_, observed, ..)| *observed == 900).unwrap_or_else(|| panic!("{told:?}")).2
}

#[test]
fn blocks_are_held_against_a_business_s_own_days_and_nobody_gets_the_rule_used_to_them() {
    // Twenty are usual of its category.
    let (unknown, usual, liked) = (threshold_of_blocks(0, 0), threshold_of_blocks(12, 20), threshold_of_blocks(12, 2));
    assert!((100..=150).contains(&unknown), "some six times: {unknown}");
    assert!((85..=105).contains(&usual), "less than four times what comes of that day and the one before: {usual}");
    assert!(liked < usual / 2, "one that people like: {liked}");
    // Twice as many as usual is its usual; twenty times as many is not.
    let (rough, abusive) = (threshold_of_blocks(12, 40), threshold_of_blocks(12, 400));
    assert!(usual < rough && rough < abusive, "{usual} {rough} {abusive}");
    assert_eq!(abusive, threshold_of_blocks(12, 300), "its past counts up to three times the category's rate");
    assert!(abusive < 300, "so that it is told of again: {abusive}");
}

#[test]
fn who_was_written_to_in_the_evening_blocks_in_the_morning() {
    let after = |campaign: u32| {
        let content = written("shop", 0, campaign, Category::Marketing)
            .chain(objections("shop", 0, i64::from(campaign / 400)))
            .chain(written("shop", 1, 50, Category::Marketing))
            .chain(objections("shop", 1, 24));
        standing(&alerts(&content.collect::<Vec<_>>()), "business_blocks").len()
    };
    assert_eq!((after(9_000), after(10)), (0, 1));
}

#[test]
fn accounts_made_to_complain_are_a_brigade_and_count_for_little() {
    let young = |rows: Vec<Row>| rows.into_iter().map(|row| Row { strangers: 1, ..row }).collect::<Vec<_>>();
    let told = |old: i64, new: i64, later: i64| {
        let mut content: Vec<Row> = written("shop", 0, 200, Category::Marketing).collect();
        content.extend(young(objections("shop", 0, new).collect()));
        content.extend(objections("shop", 0, old));
        content.extend(objections("shop", 0, later).map(|row| Row { kind: SignalKind::Reported, ..row }));
        alerts(&content).iter().filter(|a| a.stands()).map(|a| (a.rule.clone(), a.observed)).collect::<Vec<_>>()
    };
    let of = |rule: &str, observed| (rule.to_owned(), observed);
    assert_eq!(told(0, 500, 0), [of("report_brigade", 500)]);
    assert_eq!(told(19, 19, 0), [of("business_blocks", 23)], "a quarter of nineteen, and too few for a brigade");
    assert_eq!(told(100, 10, 0), [of("business_blocks", 110)], "as in any crowd");
    assert_eq!(told(0, 19, 0), []);
    let both = told(40, 60, 0);
    assert!(both.contains(&of("business_blocks", 50)) && both.contains(&of("report_brigade", 60)), "{both:?}");
    // Reports of others make it no brigade, blocks of others do not.
    assert_eq!(told(0, 30, 31), [of("business_blocks", 38)]);
    let found = alerts(
        &written("shop", 0, 9, Category::Marketing)
            .chain(objections("shop", 0, 80))
            .chain(young(objections("shop", 0, 60).collect()))
            .collect::<Vec<_>>(),
    );
    let blocks = found.iter().find(|a| a.rule == "business_blocks").expect("fires");
    assert!(blocks.counter_evidence.iter().any(|said| said.starts_with("40 more by accounts of their first week")), "{blocks:?}");
}

#[test]
fn an_alert_on_blocks_is_taken_back_when_more_was_written_than_was_known() {
    let first: Vec<Row> = written("shop", 0, 200, Category::Marketing).chain(objections("shop", 0, 25)).collect();
    let rest: Vec<Row> = written("shop", 0, 9_000, Category::Marketing).collect();
    let mut engine = Engine::new(Rules::detectors().expect("rules"));
    engine.apply(&batch(0, 0, &first)).expect("signals");
    let told = engine.take_alerts();
    assert_eq!(told.iter().map(|a| (a.rule.as_str(), a.stands())).collect::<Vec<_>>(), [("business_blocks", true)]);
    assert_eq!(told[0].baseline.kind, "segment");
    engine.apply(&batch(0, 1, &rest)).expect("signals");
    let now = engine.take_alerts();
    assert_eq!(now.iter().map(|a| (a.stands(), a.withdrawn, a.revision)).collect::<Vec<_>>(), [(false, true, 2)]);
    assert!(now[0].explanation.starts_with("No longer holds: more was written to people since. A business drew 25 "), "{now:?}");
    assert!(now[0].observed < now[0].threshold);
    // It is said once; and when it holds again it is told again.
    engine.apply(&batch(0, 2, &objections("shop", 0, 1).collect::<Vec<_>>())).expect("signals");
    assert_eq!(engine.take_alerts(), []);
    engine.apply(&batch(0, 3, &objections("shop", 0, 400).collect::<Vec<_>>())).expect("signals");
    assert_eq!(engine.take_alerts().iter().map(|a| (a.stands(), a.observed)).collect::<Vec<_>>(), [(true, 426)]);
    // Whoever had all at once told of none.
    assert_eq!(standing(&alerts(&first.into_iter().chain(rest).collect::<Vec<_>>()), "business_blocks"), []);
}

fn of(portfolio: &'static str, rows: impl Iterator<Item = Row>) -> impl Iterator<Item = Row> {
    rows.map(move |row| Row { portfolio: (row.kind == SignalKind::BusinessSent).then_some(portfolio), ..row })
}

/// Two numbers of a portfolio that write to so many people together, from day 0 on.
fn known(days: i64, people: u32) -> Vec<Row> {
    let both = |day| ["one", "two"].into_iter().flat_map(move |name| written(name, day, people / 2, Category::Marketing));
    of("p", (0..days).flat_map(both)).collect()
}

#[test]
fn a_new_number_that_takes_an_old_portfolio_over_is_told_of() {
    let rule = "business_fresh_number";
    let told = |before: Vec<Row>, new: Vec<Row>| standing(&alerts(&before.into_iter().chain(new).collect::<Vec<_>>()), rule);
    let new = |day, people, category| of("p", written(NEW, day, people, category)).collect::<Vec<_>>();
    let found = told(known(8, 200), new(8, 700, Category::Marketing));
    assert_eq!(found.len(), 1, "{found:?}");
    let (subject, observed, threshold, severity) = found[0].clone();
    assert_eq!((subject.as_str(), threshold, severity.as_str()), (NEW, 500, "medium"));
    assert!((600..=700).contains(&observed), "{observed}");
    // As many as all others: a priority.
    let moved = told(known(8, 800), new(8, 800, Category::Marketing));
    assert_eq!(moved.iter().map(|(.., severity)| severity.as_str()).collect::<Vec<_>>(), ["low"]);
    for (why, before, new) in [
        ("a branch", known(8, 200), new(8, 450, Category::Marketing)),
        ("less than half of the others", known(8, 1_600), new(8, 700, Category::Marketing)),
        ("a portfolio that is young itself", known(6, 200), new(6, 700, Category::Marketing)),
        ("asked for", known(8, 200), new(8, 700, Category::Authentication)),
        ("another portfolio", known(8, 200), of("q", written(NEW, 8, 700, Category::Marketing)).collect()),
        ("none is said", known(8, 200), written(NEW, 8, 700, Category::Marketing).collect()),
        (
            "known for days",
            known(8, 200),
            (5..9).flat_map(|day| new(day, if day < 8 { 20 } else { 700 }, Category::Marketing)).collect(),
        ),
    ] {
        assert_eq!(told(before, new), [], "{why}");
    }
    // On its second day it still is new.
    let second = (8..10).flat_map(|day| new(day, if day < 9 { 20 } else { 700 }, Category::Marketing)).collect();
    assert_eq!(told(known(8, 200), second).len(), 1);
}

/// A portfolio whose middle day is small unless what comes late on day 6 is known: then it is large.
fn with_late() -> (Vec<Row>, Vec<Row>, Vec<Row>) {
    let day = |day: i64| written("one", day, if day % 2 == 0 { 100 } else { 2_000 }, Category::Marketing);
    let before = of("p", (0..7).flat_map(day)).collect();
    let new = of("p", written(NEW, 7, 800, Category::Marketing)).collect();
    let late = (100..2_000).map(|i| sent_by("one", i, NOON + 6 * DAY_MS + 7, Category::Marketing, Tier::T10k));
    (before, new, of("p", late).collect())
}

#[test]
fn what_other_numbers_did_can_become_known_late() {
    let (before, new, late) = with_late();
    let mut engine = Engine::new(Rules::detectors().expect("rules"));
    for (nth, rows) in [before, new, late].iter().enumerate() {
        engine.apply(&batch(0, nth as i64, rows)).expect("signals");
        let found: Vec<_> = engine.take_alerts().into_iter().filter(|a| a.rule == "business_fresh_number").collect();
        let told: Vec<_> = found.iter().map(|a| (a.stands(), a.subject.value.as_str())).collect();
        match nth {
            0 => assert_eq!(told, []),
            1 => assert_eq!(told, [(true, NEW)]),
            _ => {
                assert_eq!(told, [(false, NEW)], "though nothing came of it itself");
                assert!(found[0].explanation.starts_with("No longer holds: other numbers"), "{found:?}");
            }
        }
    }
}

#[test]
fn a_number_that_leaves_a_portfolio_takes_its_past_along() {
    let mut engine = Engine::new(Rules::detectors().expect("rules"));
    let leave = |name| sent_by(name, 1, NOON + 8 * DAY_MS, Category::Marketing, Tier::T10k);
    let parts = [
        known(8, 200),
        of("p", written(NEW, 8, 700, Category::Marketing)).collect(),
        of("q", ["one", "two"].into_iter().map(leave)).collect(),
    ];
    let mut told = Vec::new();
    for (nth, rows) in parts.iter().enumerate() {
        engine.apply(&batch(0, nth as i64, rows)).expect("signals");
        let found = engine.take_alerts();
        told.extend(found.iter().filter(|a| a.rule == "business_fresh_number").map(Alert::stands));
    }
    assert_eq!(told, [true, false], "taken back, though nothing came of it itself");
    assert_eq!(standing(&alerts(&parts.concat()), "business_fresh_number"), []);
}

#[test]
fn a_new_number_s_day_is_judged_once_more_when_it_is_over() {
    let (before, new, late) = with_late();
    let mut engine = Engine::new(Rules::detectors().expect("rules"));
    engine.apply(&batch(0, 0, &[before, new].concat())).expect("signals");
    assert_eq!(standing(&engine.take_alerts(), "business_fresh_number").len(), 1);
    // The day goes in the very batch in which what others did becomes known.
    let later = (8..10).flat_map(|day| of("p", written(NEW, day, 1, Category::Marketing)));
    engine.apply(&batch(0, 1, &late.into_iter().chain(later).collect::<Vec<_>>())).expect("signals");
    let now: Vec<_> = engine.take_alerts().into_iter().filter(|a| a.rule == "business_fresh_number").collect();
    assert_eq!(now.iter().map(|a| (a.stands(), a.withdrawn)).collect::<Vec<_>>(), [(false, true)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn i9_what_stands_of_numbers_and_blocks_depends_on_no_order_and_no_restart(seed: u64, size in 150_usize..2_500, late in 0_usize..1_900) {
        let (before, new, late_rows) = with_late();
        let mut content: Vec<Row> = new.into_iter().chain(late_rows.into_iter().take(late)).collect();
        content.extend(objections("one", 6, 60).chain(objections(NEW, 7, 40)));
        content.extend(objections("one", 6, 30).map(|row| Row { strangers: 1, ..row }));
        content.extend(objections("one", 6, late as i64 / 40).map(|row| Row { kind: SignalKind::Reported, ..row }));
        let expected = standing_after(&before, &content, usize::MAX, false);
        prop_assert_eq!(standing_after(&before, &groups::shuffled(content, seed), size, true), expected);
    }
}
