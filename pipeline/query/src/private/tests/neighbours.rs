//! With the same randomness: all rows of one person are taken away, and the exact answers below the noise differ by no more than the planner
//! claimed, over generated statements and data.
//!
//! The exact answers are had by the real path: planner, vault, bounds, and what a draw would add noise to.

use std::collections::{BTreeMap, BTreeSet};

use arrow::util::display::array_value_to_string;
use starling_privacy::question::{Aggregate, ExactForTests, Spec};

use super::accepted::priced;
use super::engine;
use super::generate::Generator;
use super::house::{House, Random, Row, Visit, town, visits};
use crate::Engine;
use crate::private::{Priced, ask};

/// By keys, by aggregate: the exact answers; of a quantile, how many values are at which place.
type Exact = BTreeMap<Vec<String>, (Vec<i64>, Vec<BTreeMap<u32, u64>>)>;

async fn exact(engine: &Engine, question: &Priced, sql: &str) -> Exact {
    let vault = engine.inner.shelf.vault.as_ref().expect("a vault");
    let rows = vault.rows(&question.leaf.table, &question.blocks, &engine.inner.reading).await.expect("rows");
    let reading = ask::read(question, &rows, &engine.inner.reading, &[]);
    let asked = tokio::time::timeout(std::time::Duration::from_secs(120), reading).await;
    let asked = asked.unwrap_or_else(|_| panic!("it hangs: {sql}")).unwrap_or_else(|error| panic!("{error}\n{sql}"));
    let ExactForTests { keys, groups, totals, values } = asked.exact_for_tests().expect("no overflow");
    let aggregates = question.leaf.spec.aggregates.len();
    let one = |group: usize| {
        let key = keys.iter().map(|column| array_value_to_string(column, group).expect("shown")).collect();
        let totals = totals.iter().map(|by_group| by_group.get(group).copied().unwrap_or(0)).collect();
        let mut places = vec![BTreeMap::new(); aggregates];
        for (places, values) in places.iter_mut().zip(&values) {
            for (_, place) in values.iter().filter(|(of, _)| usize::try_from(*of).is_ok_and(|of| of == group)) {
                *places.entry(*place).or_insert(0) += 1;
            }
        }
        (key, (totals, places))
    };
    (0..groups).map(one).collect()
}

/// By how much the values of a quantile differ, counted one by one.
fn distance(one: &BTreeMap<u32, u64>, other: &BTreeMap<u32, u64>) -> u64 {
    let places: BTreeSet<&u32> = one.keys().chain(other.keys()).collect();
    places.into_iter().map(|place| one.get(place).unwrap_or(&0).abs_diff(*other.get(place).unwrap_or(&0))).sum()
}

/// What is wrong with two neighbours' totals, if anything.
fn fault(spec: &Spec, with: &Exact, without: &Exact) -> Option<String> {
    let groups: BTreeSet<&Vec<String>> = with.keys().chain(without.keys()).collect();
    let most = if spec.keys == 0 { 1 } else { usize::try_from(spec.groups_per_person).expect("small") };
    let nothing = (vec![0; spec.aggregates.len()], vec![BTreeMap::new(); spec.aggregates.len()]);
    for (at, aggregate) in spec.aggregates.iter().enumerate() {
        let change = |group: &&Vec<String>| {
            let ((one, places), (other, others)) =
                (with.get(*group).unwrap_or(&nothing), without.get(*group).unwrap_or(&nothing));
            one[at].abs_diff(other[at]) + distance(&places[at], &others[at])
        };
        let changes: Vec<u64> = groups.iter().map(change).filter(|change| *change > 0).collect();
        // What is 0 or 1 is bounded group by group, everything else as one vector.
        if *aggregate == Aggregate::PEOPLE || !(aggregate.is_one_vector() || matches!(aggregate, Aggregate::Quantile { .. })) {
            if changes.len() > most {
                return Some(format!("aggregate {at} changes in {} groups, {most} are claimed", changes.len()));
            }
            if let Some(change) = changes.iter().find(|change| **change > 1) {
                return Some(format!("aggregate {at} changes by {change}, 1 is claimed"));
            }
        }
        let claimed = match aggregate {
            Aggregate::Sum { .. } => most as u128 * u128::from(aggregate.step()).pow(2),
            Aggregate::Quantile { per_person, .. } => u128::from(*per_person).pow(2),
        };
        let square: u128 = changes.iter().map(|change| u128::from(*change).pow(2)).sum();
        if square > claimed {
            return Some(format!("aggregate {at} changes by the root of {square}, that of {claimed} is claimed"));
        }
    }
    // A group that only one of two neighbours shows is that person's alone: the threshold is reckoned for exactly one in it.
    if let (true, Some(people)) = (spec.discovered, spec.people()) {
        let in_it = |exact: &Exact, group: &Vec<String>| exact.get(group).map_or(0, |(totals, _)| totals[people]);
        let alone: Vec<i64> =
            groups.iter().filter(|group| in_it(without, group) == 0).map(|group| in_it(with, group)).filter(|n| *n > 0).collect();
        if alone.iter().any(|people| *people != 1) || alone.len() > most {
            return Some(format!("groups that one person is alone in hold {alone:?} people"));
        }
    }
    None
}

/// A town and a shop, with one busy person, and the same without them.
struct Neighbours {
    rows: [Vec<Row>; 2],
    visits: [Vec<Visit>; 2],
}

impl Neighbours {
    fn new(seed: u64) -> Self {
        let mut rows = town(6, seed);
        // The person who goes has a day full of rows: more than any bound.
        let busy = rows.iter().map(|row| (row.day, row.person)).nth(3).expect("somebody");
        let theirs: Vec<Row> = town(30, seed + 1).into_iter().filter(|row| row.day == busy.0).collect();
        rows.extend(theirs.into_iter().map(|row| Row { person: busy.1, events: row.events * 9, ..row }));
        let mut seen = visits(8, seed);
        let customer = 4;
        seen.retain(|visit| visit.customer != customer);
        let theirs = visits(12, seed + 2).into_iter().map(|visit| Visit { customer, ..visit });
        let without_visits = seen.clone();
        seen.extend(theirs);
        let without = rows.iter().filter(|row| (row.day, row.person) != busy).cloned().collect();
        Self { rows: [rows, without], visits: [seen, without_visits] }
    }
}

/// Asks generated statements of both; gives how many questions were compared, and the first fault.
async fn compare(seed: u64, statements: u64, spoil: impl Fn(&mut Priced)) -> (usize, Option<String>) {
    let neighbours = Neighbours::new(seed);
    let with = House::rich(&neighbours.rows[0], &neighbours.visits[0]).await;
    let without = House::rich(&neighbours.rows[1], &neighbours.visits[1]).await;
    let (with, without) = (engine(&with).await, engine(&without).await);
    let mut compared = 0;
    for n in 0..statements {
        let mut random = Random(seed * 1_000_003 + n);
        let mut sql = Generator { random: &mut random, hostile: false }.aggregate();
        match n % 4 {
            0 => sql.push_str(" SETTINGS groups = 'discovered'"),
            1 => sql.push_str(" SETTINGS groups_per_person = 1, rows_per_group = 2"),
            _ => {}
        }
        let (Ok((_, mut one)), Ok((_, mut other))) = (priced(&with, &sql).await, priced(&without, &sql).await) else { continue };
        assert_eq!(one.len(), other.len());
        for (one, other) in one.iter_mut().zip(&mut other) {
            assert_eq!(one.plan, other.plan, "the price depends on data: {sql}");
            let claimed = one.leaf.spec.clone();
            spoil(one);
            spoil(other);
            let (a, b) = (exact(&with, one, &sql).await, exact(&without, other, &sql).await);
            compared += 1;
            if let Some(fault) = fault(&claimed, &a, &b) {
                return (compared, Some(format!("{fault}\n{sql}")));
            }
        }
    }
    (compared, None)
}

/// Breaks a bound.
type Spoil = fn(&mut Priced);

fn towns(usual: u64) -> u64 {
    std::env::var("STARLING_TOWNS").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_person_changes_no_exact_answer_by_more_than_the_planner_claims() {
    for seed in 0..towns(2) {
        let (compared, fault) = compare(seed + 1, 90, |_| {}).await;
        assert_eq!(fault, None);
        assert!(compared > 40, "only {compared} questions were compared: the test shows too little");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bound_that_is_not_kept_shows_between_neighbours() {
    // More groups than were claimed; a part of a person that is not clipped; more values of a row's input than it may have.
    let planted: [(&str, Spoil); 3] = [
        ("groups", |question| question.leaf.spec.groups_per_person += 1),
        ("clip", |question| {
            for aggregate in &mut question.leaf.spec.aggregates {
                if let Aggregate::Sum { high, .. } = aggregate
                    && *high > 1
                {
                    *high += 1;
                }
            }
        }),
        ("people", |question| {
            for aggregate in &mut question.leaf.spec.aggregates {
                if *aggregate == Aggregate::PEOPLE
                    && let Aggregate::Sum { high, .. } = aggregate
                {
                    *high = 2;
                }
            }
            // Where people decide which groups are shown they must be there.
            if question.leaf.spec.discovered {
                question.leaf.spec.aggregates.push(Aggregate::PEOPLE);
            }
        }),
    ];
    for (what, spoil) in planted {
        let (_, fault) = compare(1, 90, spoil).await;
        assert!(fault.is_some(), "{what}: not noticed");
    }
}
