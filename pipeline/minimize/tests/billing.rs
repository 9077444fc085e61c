//! P35: what businesses are billed for is exact, asks for no consent to analytics, and knows nobody.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;

use arrow::array::{Array as _, AsArray as _};
use arrow::datatypes::{Date32Type, UInt8Type, UInt16Type, UInt64Type};
use common::{ALICE, BOB, DAY, NOON_MS, business, encoded, event, open_context, run, run_with};
use proptest::prelude::*;
use starling_minimize::{Minimized, RangeContext};
use starling_schemas::codes::{Category, Country, Outcome};
use starling_schemas::event::{self as proto, event::Body};
use starling_schemas::ids::EpochId;

type Bill = BTreeMap<(i32, String, String, u8, &'static str), [u64; 4]>;

fn billed(minimized: &Minimized) -> Bill {
    let rows = &minimized.billing;
    let text = |name: &str, row: usize| {
        let column = rows.column_by_name(name).unwrap().as_string::<i32>();
        if column.is_valid(row) { column.value(row).to_owned() } else { String::new() }
    };
    let counts = |row: usize| {
        ["sent", "delivered", "read", "replied"]
            .map(|name| rows.column_by_name(name).unwrap().as_primitive::<UInt64Type>().value(row))
    };
    (0..rows.num_rows())
        .map(|row| {
            let day = rows.column_by_name("day").unwrap().as_primitive::<Date32Type>().value(row);
            let category = rows.column_by_name("category").unwrap().as_primitive::<UInt8Type>().value(row);
            let country = rows.column_by_name("country").unwrap().as_primitive::<UInt16Type>().value(row);
            ((day, text("business", row), text("portfolio", row), category, Country::from_code(country).name()), counts(row))
        })
        .collect()
}

fn from(actor: &str, stage: i32) -> proto::Event {
    proto::Event { actor: actor.to_owned(), ..event(business(stage)) }
}

#[test]
fn p35_messages_are_counted_by_stage_and_by_the_country_they_went_to() {
    let mut events: Vec<_> = [1, 1, 2, 3, 4].map(|stage| from(ALICE, stage)).into();
    events.push(from(BOB, 2));
    events.push(from("", 1));
    let marketing = Category::Marketing.code();
    let place = |country| (DAY.0, "b-1".to_owned(), "p-1".to_owned(), marketing, country);
    let expected = BTreeMap::from([(place("DE"), [2, 1, 1, 1]), (place("US"), [0, 1, 0, 0]), (place("ZZ"), [1, 0, 0, 0])]);
    assert_eq!(billed(&run(&events)), expected);
}

#[test]
fn p35_neither_consent_nor_age_nor_lateness_changes_a_bill() {
    let unwilling = proto::Event { choices: None, ..from(ALICE, 2) };
    let minor = proto::Event { choices: Some(proto::Choices { age_band: 1, ..Default::default() }), ..from(ALICE, 2) };
    let late = proto::Event { event_time_ms: NOON_MS - 2 * 86_400_000, ..from(ALICE, 2) };
    let frames: Vec<_> = [unwilling, minor, late].iter().map(encoded).collect();
    let context = RangeContext { closed_through: Some(EpochId(DAY.0 - 1)), ..open_context() };
    let minimized = run_with(Default::default(), context, &frames);
    assert!(minimized.counts.iter().all(|(_, outcome, _)| *outcome != Outcome::Counted), "none is counted for statistics");
    assert_eq!(minimized.clean.num_rows(), 0);
    let delivered: Vec<_> = billed(&minimized).into_iter().map(|((day, ..), counts)| (day - DAY.0, counts[1])).collect();
    assert_eq!(delivered, [(-2, 1), (0, 2)], "each to its own day");
}

#[test]
fn what_names_no_business_or_no_stage_is_billed_to_nobody() {
    let mut nameless = from(ALICE, 2);
    if let Some(Body::BusinessMessage(message)) = &mut nameless.body {
        message.business.clear();
    }
    let minimized = run(&[nameless, from(ALICE, 0), event(common::message())]);
    assert_eq!(minimized.billing.num_rows(), 0);
}

proptest! {
    /// Conserved, in any order, and a replay is the same bytes.
    #[test]
    fn i1_i9_every_stage_of_every_business_message_is_billed_once(
        messages in prop::collection::vec((1..5_i32, 0..3_u8, prop::sample::select(vec![ALICE, BOB, ""])), 0..60),
    ) {
        let events: Vec<_> = messages
            .iter()
            .map(|(stage, number, actor)| {
                let mut event = from(actor, *stage);
                if let Some(Body::BusinessMessage(message)) = &mut event.body {
                    message.business = format!("b-{number}");
                    message.category = i32::from(*number);
                }
                event
            })
            .collect();
        let minimized = run(&events);
        let sums = billed(&minimized).values().fold([0; 4], |sums, counts| std::array::from_fn(|at| sums[at] + counts[at]));
        let expected: [u64; 4] = std::array::from_fn(|at| messages.iter().filter(|(stage, ..)| *stage as usize == at + 1).count() as u64);
        prop_assert_eq!(sums, expected);
        let mut backwards = events.clone();
        backwards.reverse();
        prop_assert_eq!(&run(&backwards).billing, &minimized.billing);
    }
}
