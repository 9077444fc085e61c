//! Bounded totals of rows, for tests that look at them before the noise.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};

use crate::question::testing::{Contributions, Keys, Order, People};
use crate::question::{Aggregate, Input, Source, Spec};

/// What (person, group, amount) come to by group, in order, where groups are 0 to `groups` and rows stand by person: each person in at most
/// `groups_per_person` of them, with at most `value` in each.
pub(crate) fn totals(rows: &[(u128, i64, i64)], groups: i64, groups_per_person: u32, value: i64) -> Vec<i64> {
    let spec = Spec {
        keys: 1,
        inputs: vec![Input { low: 0, high: i64::MAX }],
        groups_per_person,
        discovered: false,
        aggregates: vec![Aggregate::Sum { of: Source::Column(0), low: 0, high: value }],
    };
    let list: ArrayRef = Arc::new(Int64Array::from_iter_values(0..groups));
    let mut keys = Keys::listed(&[list]).expect("a list");
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.1)));
    let numbers = keys.intern(&[column]).expect("whole numbers").to_vec();
    let people: Vec<u128> = rows.iter().map(|row| row.0).collect();
    let amounts: Vec<i64> = rows.iter().map(|row| row.2).collect();
    let mut contributions = Contributions::new(spec, Order::ByPerson);
    contributions.push(People::Long(&people), &numbers, &[&amounts], keys.lots()).expect("sorted");
    let exact = contributions.finish(keys.lots()).expect("fits");
    let mut totals = exact.totals.into_iter().next().expect("one aggregate");
    totals.resize(keys.len(), 0);
    totals
}
