use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use proptest::prelude::*;

use super::*;
use crate::question::keys::Keys;
use crate::question::spec::{Grid, Input, Rank, Source};

/// A row as plainly as it can be said.
#[derive(Debug, Clone)]
struct Row {
    person: u64,
    country: &'static str,
    version: i64,
    value: Option<i64>,
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let country = prop::sample::select(vec!["DE", "FR", "IN"]);
    let value = prop::option::weighted(0.9, prop_oneof![-50..300_i64, Just(i64::MAX), Just(i64::MIN)]);
    let row = (0..6_u64, country, 0..3_i64, value).prop_map(|(person, country, version, value)| Row {
        person,
        country,
        version,
        value,
    });
    prop::collection::vec(row, 0..80)
}

fn spec() -> impl Strategy<Value = Spec> {
    (1..5_u32, -40..=0_i64, 1..200_i64, 1..6_u32, 0..3_usize).prop_map(|(groups_per_person, low, high, per_person, without)| {
        let mut aggregates = vec![
            Aggregate::PEOPLE,
            Aggregate::Sum { of: Source::Rows, low: 0, high },
            Aggregate::Sum { of: Source::Column(0), low, high },
            Aggregate::Quantile {
                of: 0,
                rank: Rank::of(0.9).expect("a share"),
                per_person,
                grid: Grid::over(-50, 100).expect("a range"),
                interval: true,
            },
        ];
        // Some questions do not ask for people, or for rows.
        if without < 2 {
            aggregates.remove(without);
        }
        Spec { keys: 2, inputs: vec![Input { low: -50, high: 100 }], groups_per_person, discovered: false, aggregates }
    })
}

fn columns(rows: &[Row]) -> Vec<ArrayRef> {
    vec![
        Arc::new(rows.iter().map(|row| Some(row.country)).collect::<StringArray>()),
        Arc::new(rows.iter().map(|row| row.version).collect::<Int64Array>()),
    ]
}

/// By key: totals by aggregate, and values by aggregate.
type Found = BTreeMap<(String, i64), (Vec<i64>, Vec<Vec<usize>>)>;

/// Everything through the real code, in batches of `at_once`.
fn found(spec: &Spec, rows: &[Row], order: Order, long: bool, at_once: usize) -> Found {
    found_in_passes(spec, rows, order, long, at_once, |_| 0).0
}

/// The same in passes; `narrow` says how often to narrow after this batch, counted over all passes. Gives how many passes there were.
fn found_in_passes(
    spec: &Spec,
    rows: &[Row],
    order: Order,
    long: bool,
    at_once: usize,
    narrow: impl Fn(usize) -> usize,
) -> (Found, usize) {
    let mut rows = rows.to_vec();
    if order == Order::ByPerson {
        rows.sort_by_key(|row| row.person);
    }
    let mut keys = Keys::new(&columns(&rows)).expect("keys");
    let mut contributions = Contributions::new(spec.clone(), order);
    let (mut batches, mut passes) = (0, 0);
    loop {
        passes += 1;
        for part in rows.chunks(at_once) {
            let groups = keys.intern(&columns(part)).expect("groups").to_vec();
            let inputs: Vec<i64> = part.iter().map(|row| row.value.map_or(ABSENT, |v| v.max(ABSENT + 1))).collect();
            let short: Vec<u64> = part.iter().map(|row| row.person).collect();
            let wide: Vec<u128> = part.iter().map(|row| u128::from(row.person) << 70).collect();
            let people = if long { People::Long(&wide) } else { People::Short(&short) };
            contributions.push(people, &groups, &[&inputs], keys.lots()).expect("fits");
            for _ in 0..narrow(batches) {
                let before = contributions.bytes();
                if contributions.narrow() {
                    assert!(contributions.bytes() <= before);
                }
            }
            batches += 1;
        }
        if !contributions.next_pass(keys.lots()).expect("fits") {
            break;
        }
        assert_eq!(contributions.bytes(), 0, "rows of the last pass are gone");
    }
    let Exact { totals, values, .. } = contributions.finish(keys.lots()).expect("fits");
    let mut out = Found::new();
    for group in 0..keys.len() {
        let key = keys.columns(&[u32::try_from(group).expect("small")]).expect("keys");
        let country = key[0].as_any().downcast_ref::<StringArray>().expect("text").value(0).to_owned();
        let version = key[1].as_any().downcast_ref::<Int64Array>().expect("a number").value(0);
        let totals = totals.iter().map(|t| t.get(group).copied().unwrap_or(0)).collect();
        let of = |values: &Vec<u64>| {
            values.iter().filter(|v| (**v >> 32) == group as u64).map(|v| (*v & 0xffff_ffff) as usize).collect()
        };
        out.insert((country, version), (totals, values.iter().map(of).collect()));
    }
    out.retain(|_, (totals, values)| totals.iter().any(|t| *t != 0) || values.iter().any(|v| !v.is_empty()));
    (out, passes)
}

/// The same as plainly as it can be done, but for which groups stay: any choice of the right number is right.
fn check_against_the_plain_model(spec: &Spec, rows: &[Row], found: &Found) -> Result<(), TestCaseError> {
    let mut by_person: BTreeMap<u64, BTreeMap<(String, i64), Vec<&Row>>> = BTreeMap::new();
    for row in rows {
        by_person.entry(row.person).or_default().entry((row.country.to_owned(), row.version)).or_default().push(row);
    }
    let mut most: BTreeMap<(String, i64), Vec<(i64, i64)>> = BTreeMap::new();
    for groups in by_person.values() {
        let few = groups.len() <= spec.groups_per_person as usize;
        for (key, rows) in groups {
            for (at, aggregate) in spec.aggregates.iter().enumerate() {
                let Aggregate::Sum { of, low, high } = aggregate else { continue };
                let sum: i128 = match of {
                    Source::Rows => rows.len() as i128,
                    Source::Column(_) => rows.iter().filter_map(|r| r.value).map(|v| i128::from(v.clamp(-50, 100))).sum(),
                };
                let wide = if aggregate.is_one_vector() { i128::from(spec.groups_per_person).isqrt() + 1 } else { 1 };
                let part = i64::try_from(sum.clamp(wide * i128::from(*low), wide * i128::from(*high))).expect("clipped");
                // A vector may be scaled down to nothing.
                let few = few && !aggregate.is_one_vector();
                let bounds = most.entry(key.clone()).or_insert_with(|| vec![(0, 0); spec.aggregates.len()]);
                // Whoever is in few groups is in all of them; others may be in or out.
                bounds[at].0 += if few { part } else { part.min(0) };
                bounds[at].1 += if few { part } else { part.max(0) };
            }
        }
    }
    for (key, (totals, _)) in found {
        for (total, (low, high)) in totals.iter().zip(&most[key]) {
            prop_assert!(low <= total && total <= high, "{key:?}: {total} in {low}..={high}");
        }
    }
    Ok(())
}

/// Whether two answers are as near each other as the planner claims.
fn check_neighbours(spec: &Spec, all: &Found, without: &Found) -> Result<(), TestCaseError> {
    let none = (vec![0; spec.aggregates.len()], vec![Vec::new(); spec.aggregates.len()]);
    let keys: BTreeSet<_> = all.keys().chain(without.keys()).collect();
    let k = spec.groups_per_person;
    for (at, aggregate) in spec.aggregates.iter().enumerate() {
        let (mut touched, mut square) = (0, 0_u128);
        for key in &keys {
            let (a, b) = (all.get(*key).unwrap_or(&none), without.get(*key).unwrap_or(&none));
            touched += u32::from(a.0[at] != b.0[at] || a.1[at] != b.1[at]);
            square += u128::from(a.0[at].abs_diff(b.0[at])).pow(2);
            if let Aggregate::Quantile { .. } = aggregate {
                let (mut more, mut fewer) = (a.1[at].clone(), b.1[at].clone());
                for value in &b.1[at] {
                    if let Some(place) = more.iter().position(|v| v == value) {
                        more.remove(place);
                        fewer.remove(fewer.iter().position(|v| v == value).expect("there"));
                    }
                }
                prop_assert!(fewer.is_empty(), "a person's absence brings values of others");
                square += (more.len() as u128).pow(2);
            } else if *aggregate == Aggregate::PEOPLE {
                prop_assert!(a.0[at].abs_diff(b.0[at]) <= 1);
            }
        }
        let longest = match aggregate {
            Aggregate::Quantile { per_person, .. } => u128::from(*per_person).pow(2),
            Aggregate::Sum { .. } => u128::from(k) * u128::from(aggregate.step()).pow(2),
        };
        prop_assert!(square <= longest, "{square} of {longest}");
        prop_assert!(*aggregate != Aggregate::PEOPLE || touched <= k, "{touched} groups changed");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn i2_one_person_more_or_less_stays_within_what_the_planner_claims(spec in spec(), rows in rows(), long: bool, at_once in 1..90_usize) {
        for order in [Order::Any, Order::ByPerson] {
            let all = found(&spec, &rows, order, long, at_once);
            check_against_the_plain_model(&spec, &rows, &all)?;
            for person in 0..6 {
                let others: Vec<Row> = rows.iter().filter(|row| row.person != person).cloned().collect();
                check_neighbours(&spec, &all, &found(&spec, &others, order, long, at_once))?;
            }
        }
    }

    #[test]
    fn neither_order_nor_batches_change_the_answer(spec in spec(), rows in rows(), cut in 1..90_usize) {
        let one = found(&spec, &rows, Order::Any, false, 1000);
        let mut turned = rows.clone();
        turned.reverse();
        prop_assert_eq!(&one, &found(&spec, &turned, Order::Any, false, cut));
        let ordered = found(&spec, &rows, Order::ByPerson, false, cut);
        // In order, a short person is widened, which mixes otherwise: the same groups may not stay.
        let few = rows.iter().map(|r| (r.person, r.country, r.version)).collect::<BTreeSet<_>>();
        let crowded = (0..6).any(|p| few.iter().filter(|(q, ..)| *q == p).count() > spec.groups_per_person as usize);
        if !crowded {
            prop_assert_eq!(one, ordered);
        }
    }
}

#[test]
fn an_answer_in_many_passes_is_the_answer_in_one() {
    let rows: Vec<Row> = (0..3_000)
        .map(|n| Row {
            person: n * 7 % 700,
            country: ["DE", "FR", "IN"][n as usize % 3],
            version: (n % 5) as i64,
            value: Some((n % 90) as i64),
        })
        .collect();
    let spec = Spec {
        keys: 2,
        inputs: vec![Input { low: -50, high: 60 }],
        groups_per_person: 2,
        discovered: false,
        aggregates: vec![
            Aggregate::PEOPLE,
            Aggregate::Sum { of: Source::Rows, low: 0, high: 3 },
            Aggregate::Sum { of: Source::Column(0), low: 0, high: 100 },
        ],
    };
    let one = found(&spec, &rows, Order::Any, false, 100);
    for (long, wanted) in [(false, &one), (true, &found(&spec, &rows, Order::Any, true, 100))] {
        // Once at first, three times in the middle of the second pass, and whenever a batch has come: down to a pile a pass.
        let (some, passes) = found_in_passes(&spec, &rows, Order::Any, long, 100, |batch| {
            [1, 3][usize::from(batch == 45)] * usize::from([0, 45].contains(&batch))
        });
        assert_eq!((&some, passes), (wanted, 3));
        let (all, passes) = found_in_passes(&spec, &rows, Order::Any, long, 1_000, |_| 8);
        assert_eq!((&all, passes), (wanted, 256));
    }
    // Rows in order need no memory, and are not read again.
    assert_eq!(found_in_passes(&spec, &rows, Order::ByPerson, true, 100, |_| 1).1, 1);

    // What is not complete is no answer.
    let mut keys = Keys::new(&columns(&rows)).expect("keys");
    let mut half = Contributions::new(spec, Order::Any);
    let groups = keys.intern(&columns(&rows)).expect("groups").to_vec();
    let people: Vec<u64> = rows.iter().map(|row| row.person).collect();
    half.push(People::Short(&people), &groups, &[&vec![1; rows.len()]], keys.lots()).expect("fits");
    assert!(half.narrow());
    assert!(half.finish(keys.lots()).is_err());
}

#[test]
fn people_do_not_all_keep_the_same_groups() {
    let rows: Vec<Row> =
        (0..200).flat_map(|person| (0..6).map(move |version| Row { person, country: "DE", version, value: Some(1) })).collect();
    let spec = Spec {
        keys: 2,
        inputs: vec![Input { low: 0, high: 1 }],
        groups_per_person: 2,
        discovered: false,
        aggregates: vec![Aggregate::PEOPLE],
    };
    for long in [false, true] {
        let all = found(&spec, &rows, Order::Any, long, 1000);
        let people: Vec<i64> = all.values().map(|(totals, _)| totals[0]).collect();
        assert_eq!(people.iter().sum::<i64>(), 400, "two groups each");
        assert!(people.len() == 6 && people.iter().all(|n| (40..100).contains(n)), "{people:?}");
    }
}

#[test]
fn a_person_in_one_group_counts_as_much_as_one_in_many_and_nobody_counts_more() {
    let spec = |high| Spec {
        keys: 2,
        inputs: vec![Input { low: 0, high: 1_000 }],
        groups_per_person: 4,
        discovered: false,
        aggregates: vec![Aggregate::Sum { of: Source::Column(0), low: 0, high }],
    };
    let row = |person, version, value| Row { person, country: "DE", version, value: Some(value) };
    let totals =
        |high, rows: &[Row]| -> Vec<i64> { found(&spec(high), rows, Order::Any, false, 9).values().map(|(t, _)| t[0]).collect() };
    // √4 · 10 in one group; 10 in each of four; all of six groups stay, shorter.
    assert_eq!(totals(10, &[row(1, 0, 500)]), [20]);
    assert_eq!(totals(10, &[row(1, 0, 50), row(1, 1, 50), row(1, 2, 50), row(1, 3, 50)]), [10, 10, 10, 10]);
    let six = totals(10, &(0..6).map(|v| row(1, v, 50)).collect::<Vec<_>>());
    assert!(six.iter().all(|part| (8..=9).contains(part)), "{six:?}");
    // A little in many groups: as many stay as are no longer than 2, by lot.
    let many: Vec<Row> = ["DE", "FR", "IN"]
        .iter()
        .flat_map(|c| (0..7).map(|version| Row { person: 1, country: c, version, value: Some(1) }))
        .collect();
    assert_eq!(found(&spec(2), &many, Order::Any, false, 9).values().map(|(t, _)| t[0]).sum::<i64>(), 16);
    assert_eq!(totals(10, &[row(1, 0, 12), row(1, 1, 16)]), [12, 16], "no longer than 20, and left alone");
    assert_eq!(totals(10, &[row(1, 0, 19), row(1, 1, 1), row(2, 0, 19)]), [38, 1]);
}

#[test]
fn a_person_who_comes_back_is_an_error_where_order_is_promised() {
    let spec = Spec { keys: 0, inputs: Vec::new(), groups_per_person: 1, discovered: false, aggregates: vec![Aggregate::PEOPLE] };
    let mut contributions = Contributions::new(spec, Order::ByPerson);
    contributions.push(People::Long(&[1, 2]), &[], &[], &[0]).expect("in order");
    assert!(matches!(contributions.push(People::Long(&[1]), &[], &[], &[0]), Err(PrivacyError::Unsorted)));
}
