//! P34: what businesses say of themselves is kept as it was said last, asks for no consent, and knows nobody.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::{ALICE, DAY, NOON_MS, encoded, event, open_context, run, run_with};
use starling_minimize::{Minimized, RangeContext};
use starling_schemas::business::BusinessAccount;
use starling_schemas::codes::{Category, Outcome, Refusal, Tier};
use starling_schemas::event::{self as proto, event::Body};
use starling_schemas::ids::EpochId;

fn says(name: &str, seconds: i64) -> proto::Event {
    let body = Body::BusinessInformation(proto::BusinessInformation {
        business: "b-1".into(),
        portfolio: "p-1".into(),
        name: name.into(),
        category: 2,
        tier: 3,
    });
    proto::Event { event_time_ms: NOON_MS + seconds * 1_000, actor: String::new(), choices: None, ..event(body) }
}

fn names(minimized: &Minimized) -> Vec<(&str, i64)> {
    let told = |account: &BusinessAccount| (account.told_ms - NOON_MS) / 1_000;
    minimized.businesses.iter().map(|account| (account.name.as_str(), told(account))).collect()
}

#[test]
fn p34_an_account_is_what_the_business_said_last() {
    let minimized = run(&[says("Bakery", 5), says("Old bakery", 2), says("", 4)]);
    let account = BusinessAccount {
        business: "b-1".to_owned(),
        portfolio: "p-1".to_owned(),
        name: "Bakery".to_owned(),
        category: Category::Utility,
        tier: Tier::T10k,
        told_ms: NOON_MS + 5_000,
    };
    assert_eq!(minimized.businesses, [account]);
    assert_eq!(names(&run(&[says("", 5), says("Bakery", 2)])), [("", 5)], "what is not said any more is not so any more");
    assert_eq!(minimized.counts, [(Some(DAY), Outcome::Refused(Refusal::NotForAnalytics), 3)], "and it is in no statistic");
    assert_eq!((minimized.clean.num_rows(), minimized.signals.num_rows(), minimized.billing.num_rows()), (0, 0, 0));
}

#[test]
fn i9_the_order_of_what_was_said_makes_no_difference() {
    let said = [says("Bakery", 5), says("Cakes", 5), says("Old bakery", 2), says("Z", 1)];
    for turn in 0..said.len() {
        let mut turned = said.clone();
        turned.rotate_left(turn);
        assert_eq!(names(&run(&turned)), [("Cakes", 5)]);
        turned.reverse();
        assert_eq!(names(&run(&turned)), [("Cakes", 5)]);
    }
}

#[test]
fn i4_who_says_it_is_not_in_it_and_a_number_in_a_name_is_none() {
    let by_somebody = proto::Event { actor: ALICE.to_owned(), ..says(&format!("Bakery {ALICE}"), 0) };
    let minimized = run(&[by_somebody]);
    assert_eq!(names(&minimized), [(format!("Bakery +{}", "#".repeat(ALICE.len() - 1)).as_str(), 0)]);
    assert!(ALICE.starts_with('+') && !format!("{:?}", minimized.businesses).contains(&ALICE[1..]));
    let by_nobody = run(&[says(&format!("Bakery {ALICE}"), 0)]);
    assert_eq!(by_nobody.businesses, minimized.businesses);
    assert!(!format!("{minimized:?}").contains("Bakery"), "what is printed of a range tells numbers of rows");
}

#[test]
fn p34_neither_consent_nor_lateness_asks_a_business_to_be_silent() {
    let late = proto::Event { event_time_ms: NOON_MS - 2 * 86_400_000, ..says("Bakery", 0) };
    let context = RangeContext { closed_through: Some(EpochId(DAY.0 - 1)), ..open_context() };
    assert_eq!(run_with(Default::default(), context, &[encoded(&late)]).businesses.len(), 1);
    // What is too far ahead is no time, and would stand for ever.
    let ahead = proto::Event { event_time_ms: context.latest_ms + 1, ..says("Bakery", 0) };
    assert_eq!(run_with(Default::default(), context, &[encoded(&ahead)]).businesses, []);
}

#[test]
fn what_names_no_business_is_kept_nowhere_and_counted_all_the_same() {
    for business in [String::new(), "b".repeat(257), "b\0".to_owned(), "b\n1".to_owned()] {
        let mut event = says("Bakery", 0);
        if let Some(Body::BusinessInformation(said)) = &mut event.body {
            said.business = business;
        }
        let minimized = run(&[event]);
        assert_eq!((minimized.businesses.len(), minimized.events), (0, 1));
        assert_eq!(minimized.counts.len(), 1);
    }
}

#[test]
fn a_range_that_is_begun_anew_has_nothing_of_the_one_before() {
    let mut minimizer = starling_minimize::Minimizer::new(std::sync::Arc::<common::TestKeys>::default(), Default::default());
    for rounds in [2, 1, 0] {
        minimizer.begin(open_context());
        for round in 0..rounds {
            minimizer.push(starling_schemas::ids::Offset(round), &encoded(&says("Bakery", round))).unwrap();
        }
        let businesses = minimizer.finish().unwrap().businesses;
        assert_eq!(businesses.len(), usize::from(rounds > 0));
    }
    minimizer.begin(open_context());
    minimizer.push(starling_schemas::ids::Offset(0), &encoded(&says("Bakery", 0))).unwrap();
    minimizer.begin(open_context());
    assert_eq!(minimizer.finish().unwrap().businesses, []);
}
