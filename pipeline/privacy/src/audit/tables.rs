//! Whole tables, through the real bounder and through bounders with a fault.
//!
//! The neighbours are as far apart as bounds allow: a person who is in every group with a million events. What is added up for the statistic are
//! the groups that person is in, which is the best that somebody can do who knows where the person would be.

use starling_schemas::metrics::NanoRho;

use super::loss::{Finding, Neighbours};
use super::{around_all, curves, gaussian};
use crate::bound::Sensitivity;
use crate::mechanism::{calibrate_gaussian, epsilon};
use crate::noise::Noise;
use crate::testing::totals;

/// Groups of the tables here.
const GROUPS: i64 = 7;

/// What may be wrong with a bounder.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// Rows of calls come by another path, and are not bounded there.
    BoundSkippedForCalls,
    /// Every group's total is clamped, to what so many people could have, instead of each person's share.
    ClampAfterSum,
    /// People are counted in all their groups; the bound of groups comes afterwards, and finds nothing to do.
    CountedBeforeTheBound,
}

/// (person, group, events, whether they are calls).
type Row = (u128, i64, i64, bool);

/// Groups per person, and the most of one person in each; 1 counts people.
#[derive(Debug, Clone, Copy)]
struct Bounds(u32, i64);

impl Bounds {
    fn sensitivity(self) -> Sensitivity {
        Sensitivity::of(self.0, u32::try_from(self.1).expect("small"))
    }
}

/// A bounder as a page of text: each person's rows by group, as one vector that is scaled down, or in at most so many groups where people are
/// counted. With [`Fault::None`] it bounds as the real one does (a test says so); which groups of a person stay is another choice.
fn sums(Bounds(groups, value): Bounds, rows: &[Row], fault: Fault) -> Vec<i64> {
    let mut sums = vec![0; usize::try_from(GROUPS).expect("few")];
    let mut people: Vec<u128> = rows.iter().map(|row| row.0).collect();
    people.sort_unstable();
    people.dedup();
    for person in &people {
        let (mut theirs, mut free) = (vec![0_i64; sums.len()], vec![0_i64; sums.len()]);
        for (_, group, events, call) in rows.iter().filter(|row| row.0 == *person) {
            let into = if *call && fault == Fault::BoundSkippedForCalls { &mut free } else { &mut theirs };
            into[usize::try_from(*group).expect("few")] += events;
        }
        if value == 1 {
            let mut left = groups;
            for part in &mut theirs {
                *part = (*part).min(1);
                if *part > 0 && fault != Fault::CountedBeforeTheBound {
                    *part = i64::from(left > 0);
                    left = left.saturating_sub(1);
                }
            }
        } else if fault != Fault::ClampAfterSum {
            let most = f64::from(groups).sqrt() * value as f64;
            let length = theirs.iter().map(|part| (*part as f64).powi(2)).sum::<f64>().sqrt();
            if length > most {
                theirs.iter_mut().for_each(|part| *part = (*part as f64 * most / length + 1e-9).floor() as i64);
            }
        }
        for (sum, part) in sums.iter_mut().zip(theirs.iter().zip(&free).map(|(a, b)| a + b)) {
            *sum += part;
        }
    }
    if fault == Fault::ClampAfterSum {
        let most = value * i64::try_from(people.len()).expect("few");
        sums.iter_mut().for_each(|x| *x = (*x).min(most));
    }
    sums
}

/// Fifty people with a single event everywhere, and perhaps one with a million, messages or calls.
fn people(heavy: Option<bool>) -> Vec<Row> {
    let others = (1..=50).flat_map(|person| (0..GROUPS).map(move |group| (person, group, 1, false)));
    let heavy = heavy.into_iter().flat_map(|call| (0..GROUPS).map(move |group| (1_000, group, 1_000_000, call)));
    others.chain(heavy).collect()
}

const MESSAGES: bool = false;
const CALLS: bool = true;

fn really_bounded(Bounds(groups, value): Bounds, rows: &[Row]) -> Vec<i64> {
    let rows: Vec<(u128, i64, i64)> = rows.iter().map(|row| (row.0, row.1, row.2)).collect();
    totals(&rows, GROUPS, groups, value)
}

/// The loss a whole table shows to somebody who adds up the groups that the person would be in.
fn table_loss(noise: Noise, with: &[i64], without: &[i64], runs: usize, delta: f64) -> Finding {
    let theirs: Vec<usize> = (0..with.len()).filter(|at| with[*at] != without[*at]).collect();
    let pick = |sums: &[i64]| theirs.iter().map(|at| sums[*at]).collect::<Vec<_>>();
    let weights: Vec<f64> = theirs.iter().map(|at| (with[*at] - without[*at]) as f64).collect();
    let neighbours = Neighbours::run(runs, around_all(noise, &pick(with), runs), around_all(noise, &pick(without), runs));
    neighbours.epsilon(delta, &[&|x: &Vec<i64>| x.iter().zip(&weights).map(|(x, w)| *x as f64 * w).sum()])
}

#[test]
fn i2_a_whole_tables_loss_is_within_its_charge_and_near_its_curve_and_a_forgotten_bound_is_caught() {
    let (cost, delta) = (NanoRho(1_000_000_000), 0.2);
    let told = epsilon(cost, delta);
    let bounds = Bounds(3, 50);
    let with = really_bounded(bounds, &people(Some(MESSAGES)));
    let without = really_bounded(bounds, &people(None));

    // One vector of length √3·50 at σ, whose curve is that of a shift of 1,000 at 1,000/√(2ρ).
    let right = calibrate_gaussian(bounds.sensitivity(), cost).expect("calibrates");
    let exact = curves::epsilon(gaussian(1_000.0 / (2.0 * cost.rho()).sqrt()), 1_000, delta);
    let found = table_loss(right, &with, &without, 200_000, delta);
    assert!(found.at_least <= told, "{found:?}, told {told}");
    assert!((0.9..=1.03).contains(&(found.at_least / exact)), "{found:?}, exact {exact}");

    for (forgotten, sensitivity) in
        [("groups per person", Sensitivity::planted(1, 50)), ("value per group", Sensitivity::planted(3, 10))]
    {
        let narrow = calibrate_gaussian(sensitivity, cost).expect("calibrates");
        let found = table_loss(narrow, &with, &without, 20_000, delta);
        assert!(found.at_least > told, "{forgotten} forgotten, and not caught: {found:?}, told {told}");
    }
}

/// Whether the neighbours of a bounder differ by more than is stated, and what their outputs show.
fn audit(bounds: Bounds, heavy: bool, fault: Fault) -> (bool, Finding, f64) {
    let (cost, delta) = (NanoRho(500_000_000), 1e-2);
    let stated = bounds.sensitivity();
    let (with, without) = (sums(bounds, &people(Some(heavy)), fault), sums(bounds, &people(None), fault));
    let moved: i128 = with.iter().zip(&without).map(|(a, b)| i128::from(a - b).pow(2)).sum();
    let noise = calibrate_gaussian(stated, cost).expect("calibrates");
    let found = table_loss(noise, &with, &without, 20_000, delta);
    (moved.unsigned_abs() > stated.l2_squared(), found, epsilon(cost, delta))
}

#[test]
fn the_bounder_that_faults_are_planted_in_bounds_as_the_real_one_does() {
    for (value, heavy) in [(3, MESSAGES), (1, CALLS)] {
        // A person in all groups, who may be in all of them: nothing is left to chance or rounding.
        let every = Bounds(7, value);
        for rows in [people(Some(heavy)), people(None)] {
            assert_eq!(really_bounded(every, &rows), sums(every, &rows, Fault::None));
        }
        let (too_far, found, told) = audit(Bounds(2, value), heavy, Fault::None);
        assert!(!too_far && found.at_least > 0.0 && found.at_least <= told, "{found:?}, told {told}");
    }
    // In all: which two groups of a person stay is each bounder's own choice.
    let (real, planted) = (really_bounded(Bounds(2, 1), &people(None)), sums(Bounds(2, 1), &people(None), Fault::None));
    assert_eq!(real.iter().sum::<i64>(), planted.iter().sum::<i64>());
}

fn is_caught(bounds: Bounds, heavy: bool, fault: Fault) {
    let (too_far, found, told) = audit(bounds, heavy, fault);
    assert!(found.at_least > told, "{fault:?} is not caught: {found:?}, told {told}");
    assert!(too_far, "{fault:?}: the exact sums show it too");
}

#[test]
fn a_bound_skipped_for_one_path_is_caught() {
    is_caught(Bounds(2, 3), CALLS, Fault::BoundSkippedForCalls);
    // And only on that path: an audit that never walks it is blind.
    let (too_far, found, told) = audit(Bounds(2, 3), MESSAGES, Fault::BoundSkippedForCalls);
    assert!(!too_far && found.at_least <= told, "{found:?}");
}

#[test]
fn a_clamp_after_the_sum_is_caught() {
    is_caught(Bounds(2, 3), MESSAGES, Fault::ClampAfterSum);
}

#[test]
fn people_counted_before_the_bound_are_caught() {
    is_caught(Bounds(1, 1), MESSAGES, Fault::CountedBeforeTheBound);
}
