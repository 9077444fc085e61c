//! Questions from rows to answer, through the same doors as the planner's: bound, sum, noise, threshold, quantile.
//!
//! A question costs a thousand times what a draw does, so that one question is asked of many *cells*: groups with their own people, the same in
//! every cell. What happens in one cell does not depend on the others, so each is a run.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use starling_schemas::metrics::NanoRho;

use super::curves;
use super::loss::Neighbours;
use crate::PrivacyError;
use crate::mechanism::epsilon;
use crate::noise::Noise;
use crate::question::{Added, Aggregate, Asked, Beside, Blur, Grid, Input, Order, Plan, Rank, Source, Spec, plan, plan_with};

/// A row of a cell: (person, group, value), both counted within the cell.
type Row = (i64, i64, i64);

/// Groups of one cell, at most; people of one cell, at most.
const GROUPS: i64 = 2;
const PEOPLE: i64 = 1_000;
/// Cells that are asked of at once.
const CELLS: i64 = 2_000;

/// The question put to so many cells: rows in order of person, as (person, key, value?), and every key where groups are listed.
fn asked(spec: &Spec, cell: &[Row]) -> Asked {
    let mut cell = cell.to_vec();
    cell.sort_unstable();
    let rows = (0..CELLS).flat_map(|at| cell.iter().map(move |row| (at * PEOPLE + row.0, at * GROUPS + row.1, row.2)));
    let rows: Vec<Row> = rows.collect();
    let column = |of: fn(&Row) -> i64| Arc::new(rows.iter().map(of).collect::<Int64Array>()) as ArrayRef;
    let mut columns = vec![("person", column(|r| r.0)), ("key", column(|r| r.1))];
    if spec.inputs.len() == 1 {
        columns.push(("value", column(|r| r.2)));
    }
    let listed = (!spec.discovered).then(|| vec![Arc::new((0..CELLS * GROUPS).collect::<Int64Array>()) as ArrayRef]);
    let mut asked = Asked::new(spec.clone(), Order::ByPerson, listed).expect("sound");
    asked.push(&RecordBatch::try_from_iter(columns).expect("columns")).expect("fits");
    asked
}

/// What one cell is answered: by group that is shown, the values by aggregate.
type Answered = HashMap<i64, Vec<i64>>;

/// A closure that gives one cell's answer each time, and asks again when all cells have been given.
fn answers(spec: &Spec, plan: &Plan, cell: &[Row]) -> impl FnMut() -> Answered {
    let (spec, plan, cell) = (spec.clone(), plan.clone(), cell.to_vec());
    let mut given: Vec<Answered> = Vec::new();
    move || {
        if given.is_empty() {
            let answer = asked(&spec, &cell).draw(&plan).expect("draws");
            let keys = answer.keys[0].as_any().downcast_ref::<Int64Array>().expect("numbers");
            given.resize_with(usize::try_from(CELLS).expect("few"), HashMap::new);
            for (at, key) in keys.values().iter().enumerate() {
                let values = answer.values.iter().map(|values| values[at]).collect();
                given[usize::try_from(key / GROUPS).expect("few")].insert(key % GROUPS, values);
            }
        }
        given.pop().expect("cells")
    }
}

/// The noise on the aggregate at this place.
fn noise(plan: &Plan, at: usize) -> Noise {
    let Some(Blur::Noise { noise, .. }) = plan.blurs.get(at) else { panic!("noise") };
    *noise
}

#[test]
fn i2_a_question_shows_a_lonely_person_as_rarely_as_its_delta_says_and_one_lower_is_caught() {
    let (aggregates, runs) = (vec![Aggregate::PEOPLE], 80_000);
    let spec = Spec { keys: 1, inputs: Vec::new(), groups_per_person: 1, discovered: true, aggregates };
    // A δ that leaves no room, so that one lower is above by the whole step: the exact tail from 12 on, of σ = 5.
    let rho = NanoRho(20_000_000);
    let delta = curves::tail(noise(&plan(&spec, rho, 0.01).expect("a plan"), 0), 12) * 1.000_01;
    let right = plan(&spec, rho, delta).expect("a plan");
    assert_eq!(right.threshold, Some(13));
    // Five people in one group, who are there in both; the person alone in another.
    let others: Vec<Row> = (1..=5).map(|person| (person, 0, 0)).collect();
    let all: Vec<Row> = others.iter().copied().chain([(100, 1, 0)]).collect();
    let statistic = |answer: &Answered| if answer.contains_key(&1) { 1.0 } else { 0.0 };
    let found = Neighbours::run(runs, answers(&spec, &right, &all), answers(&spec, &right, &others)).delta(0.0, &[&statistic]);
    // A finding is above δ once in some thousand runs, by a tenth once in a billion; one lower is above by half and more.
    assert!((0.65..=1.1).contains(&(found.at_least / delta)), "{found:?}, δ {delta}");

    let low = Plan { threshold: Some(12), ..right };
    let found = Neighbours::run(runs, answers(&spec, &low, &all), answers(&spec, &low, &others)).delta(0.0, &[&statistic]);
    assert!(found.at_least > delta, "not caught: {found:?}, δ {delta}");
}

#[test]
fn i2_a_whole_questions_loss_is_within_its_budget_and_near_its_own_curve() {
    // People, rows and a sum, of a person who fills both of their groups.
    let aggregates = vec![
        Aggregate::PEOPLE,
        Aggregate::Sum { of: Source::Rows, low: 0, high: 10 },
        Aggregate::Sum { of: Source::Column(0), low: 0, high: 1_000 },
    ];
    let inputs = vec![Input { low: 0, high: 1_000 }];
    let spec = Spec { keys: 1, inputs, groups_per_person: 2, discovered: false, aggregates };
    let (rho, delta, runs) = (NanoRho(1_000_000_000), 0.2, 60_000);
    let right = plan(&spec, rho, 0.0).expect("a plan");
    let others: Vec<Row> = (1..=3).flat_map(|person| [(person, 0, 7), (person, 1, 7)]).collect();
    let heavy = (0..40).map(|i| (100, i % 2, 900));
    let all: Vec<Row> = others.iter().copied().chain(heavy).collect();
    // Each aggregate's groups added up, and weighed by how little noise is on them: the best that can be done with all of them.
    let weights: Vec<f64> = (0..3).map(|at| spec.aggregates[at].step() as f64 / noise(&right, at).variance()).collect();
    let statistic = |answer: &Answered| -> f64 {
        answer.values().flat_map(|values| values.iter().zip(&weights)).map(|(value, weight)| *value as f64 * weight).sum()
    };
    let found =
        Neighbours::run(runs, answers(&spec, &right, &all), answers(&spec, &right, &others)).epsilon(delta, &[&statistic]);
    let told = epsilon(rho, delta);
    // All of it together is one Gaussian of that ρ.
    let exact = curves::epsilon(super::gaussian(1_000.0 / (2.0 * rho.rho()).sqrt()), 1_000, delta);
    assert!((0.8..=1.03).contains(&(found.at_least / exact)) && exact < told, "{found:?}, exact {exact}, told {told}");

    // A plan made for a person in one group, with a tenth of the value: refused, because each mechanism is asked once more before it draws.
    let mut narrow = spec.clone();
    narrow.groups_per_person = 1;
    narrow.aggregates[2] = Aggregate::Sum { of: Source::Column(0), low: 0, high: 100 };
    let planted = plan(&narrow, rho, 0.0).expect("a plan");
    assert!(matches!(asked(&spec, &all).draw(&planted), Err(PrivacyError::CostsMoreThanCharged)));
}

/// Probability ∝ exp(−γ·score) of each place.
fn places(scores: [u32; 3], gamma: f64) -> [f64; 3] {
    let weights = scores.map(|score| (-gamma * f64::from(score)).exp());
    weights.map(|weight| weight / weights.iter().sum::<f64>())
}

#[test]
fn i2_a_quantiles_loss_is_within_its_epsilon_and_near_its_exact_distribution_and_a_forgotten_bound_is_caught() {
    let grid = Grid::over(0, 2).expect("a range");
    let median = |per_person| {
        let rank = Rank::of(0.5).expect("a share");
        let aggregates = vec![Aggregate::Quantile { of: 0, rank, per_person, grid: grid.clone(), interval: false }];
        Spec { keys: 1, inputs: vec![Input { low: 0, high: 2 }], groups_per_person: 1, discovered: false, aggregates }
    };
    // The middle place is the median by far, and four values more at one end take it nearer to that end and farther from the other.
    let others: Vec<Row> = (1..=6).map(|person| (person, 0, 1)).collect();
    let all: Vec<Row> = others.iter().copied().chain((0..4).map(|_| (100, 0, 2))).collect();
    let (spec, rho, runs) = (median(4), NanoRho(720_000_000), 80_000);
    let right = plan(&spec, rho, 0.0).expect("a plan");
    let Some(Blur::Quantile { per_score, .. }) = right.blurs.first() else { panic!("a quantile") };
    // Six values at 1: both ends miss by six, in halves. Four more at 2: one end misses by ten, the other by two.
    let (without, with) = (places([6, 0, 6], *per_score), places([10, 0, 2], *per_score));
    let exact = (0..3).map(|place| (with[place] / without[place]).ln().abs()).fold(0.0, f64::max);
    // ρ = ε²/8.
    let claimed = (8.0 * rho.rho()).sqrt();
    assert!(exact < claimed && exact > 0.5 * claimed, "{exact} {claimed}");

    let place = |answer: &Answered| answer[&0][0] as f64;
    let found = Neighbours::run(runs, answers(&spec, &right, &all), answers(&spec, &right, &others)).epsilon(0.0, &[&place]);
    assert!((0.8..=1.03).contains(&(found.at_least / exact)), "{found:?}, exact {exact}");

    // The rate for one value a person, where four are taken.
    let planted = plan(&median(1), rho, 0.0).expect("a plan");
    let found = Neighbours::run(runs, answers(&spec, &planted, &all), answers(&spec, &planted, &others)).epsilon(0.0, &[&place]);
    assert!(found.at_least > claimed, "not caught: {found:?}, claimed {claimed}");
}

#[test]
fn i2_an_ends_loss_is_within_its_share_and_near_its_exact_distribution_and_a_forgotten_bound_is_caught() {
    let grid = Grid::over(0, 2).expect("a range");
    let median = |per_person| {
        let rank = Rank::of(0.5).expect("a share");
        let aggregates = vec![Aggregate::Quantile { of: 0, rank, per_person, grid: grid.clone(), interval: true }];
        Spec { keys: 1, inputs: vec![Input { low: 0, high: 2 }], groups_per_person: 1, discovered: false, aggregates }
    };
    // Twenty values in the middle, which is the median by far, and eight or twelve at the lower end: the low end is there, or in the middle.
    let others: Vec<Row> = (1..=20).map(|person| (person, 0, 1)).chain((21..=28).map(|person| (person, 0, 0))).collect();
    let all: Vec<Row> = others.iter().copied().chain((0..4).map(|_| (100, 0, 0))).collect();
    let (spec, rho, runs) = (median(4), NanoRho(2_880_000_000), 60_000);
    let right = plan(&spec, rho, 0.0).expect("a plan");
    let Some(Blur::Quantile { per_score, interval: Some(interval), .. }) = right.blurs.first() else { panic!("an interval") };
    let rate = interval.ends.gamma.per_score();
    assert!((per_score / rate - 2.0_f64.sqrt()).abs() < 1e-6);
    // The chance of the middle: by how much the two miss of n values' half, less the reach; that the value is not the middle is rare.
    let middle = |lowest: f64| {
        let target = lowest + 20.0 - interval.ends.reach as f64;
        let missed = [(target - 2.0 * lowest).max(0.0), (2.0 * lowest - target).max(0.0)];
        1.0 / (1.0 + (rate * (missed[1] - missed[0])).exp())
    };
    let exact = (middle(8.0) / middle(12.0)).ln();
    let claimed = (8.0 * rho.rho() / 4.0).sqrt();
    assert!(exact < claimed && exact > 0.3 * claimed, "{exact} {claimed}");

    // As places of the answer: the low end alone.
    let low = |spec: &Spec, plan: &Plan, cell: &[Row]| {
        let (spec, plan, cell) = (spec.clone(), plan.clone(), cell.to_vec());
        let mut given: Vec<f64> = Vec::new();
        move || {
            if given.is_empty() {
                let answer = asked(&spec, &cell).draw(&plan).expect("draws");
                given.extend(answer.intervals[0].iter().step_by(usize::try_from(GROUPS).expect("few")).map(|ends| ends.0 as f64));
            }
            given.pop().expect("cells")
        }
    };
    let place = |low: &f64| *low;
    let found = Neighbours::run(runs, low(&spec, &right, &all), low(&spec, &right, &others)).epsilon(0.0, &[&place]);
    assert!((0.75..=1.05).contains(&(found.at_least / exact)), "{found:?}, exact {exact}");

    // The rate for one value a person, where four are taken.
    let planted = plan(&median(1), rho, 0.0).expect("a plan");
    let found = Neighbours::run(runs, low(&spec, &planted, &all), low(&spec, &planted, &others)).epsilon(0.0, &[&place]);
    assert!(found.at_least > claimed, "not caught: {found:?}, claimed {claimed}");
}

/// The totals over groups that are left out, of three people alone in a group each, and of one more with all they may have in two groups, or not.
fn left_out(spec: &Spec, plan: &Plan, busy: bool) -> impl FnMut() -> Vec<f64> {
    let mut rows: Vec<Row> = (1..=3).map(|person| (person, person, 7)).collect();
    if busy {
        rows.extend((0..40).map(|i| (100, 10 + i % 2, 900)));
    }
    let column = |of: fn(&Row) -> i64| Arc::new(rows.iter().map(of).collect::<Int64Array>()) as ArrayRef;
    let columns = [("person", column(|r| r.0)), ("key", column(|r| r.1)), ("value", column(|r| r.2))];
    let batch = RecordBatch::try_from_iter(columns).expect("columns");
    let (spec, plan) = (spec.clone(), plan.clone());
    move || {
        let mut asked = Asked::new(spec.clone(), Order::ByPerson, None).expect("sound").beside(plan.beside());
        asked.push(&batch).expect("fits");
        let answer = asked.draw(&plan).expect("draws");
        assert_eq!(answer.groups, 0, "nobody is shown alone");
        answer.other.expect("a row").into_iter().flatten().map(|total| total as f64).collect()
    }
}

#[test]
fn i2_the_loss_by_the_row_of_groups_that_are_left_out_is_within_its_share_and_near_its_curve_and_half_the_noise_is_caught() {
    let aggregates = vec![Aggregate::PEOPLE, Aggregate::Sum { of: Source::Column(0), low: 0, high: 1_000 }];
    let spec = Spec { keys: 1, inputs: vec![Input { low: 0, high: 1_000 }], groups_per_person: 2, discovered: true, aggregates };
    let beside = Beside { other: true, bias: false };
    let right = plan_with(&spec, NanoRho(16_000_000_000), 1e-9, beside).expect("a plan");
    let added: Vec<Added> = right.other.iter().flatten().flatten().copied().collect();
    let share = NanoRho(added.iter().map(|added| added.rho.0).sum());
    assert_eq!(share, NanoRho(1_000_000_000));
    // One person once, and twice 1,000: each weighed by how little noise is on it.
    let weights: Vec<f64> = added.iter().zip([1.0, 2_000.0]).map(|(added, most)| most / added.noise.variance()).collect();
    let statistic = |totals: &Vec<f64>| totals.iter().zip(&weights).map(|(total, weight)| total * weight).sum::<f64>();
    let (delta, runs) = (0.2, 20_000);
    let seen = |plan: &Plan| {
        Neighbours::run(runs, left_out(&spec, plan, true), left_out(&spec, plan, false)).epsilon(delta, &[&statistic]).at_least
    };
    let exact = curves::epsilon(super::gaussian(1_000.0 / (2.0 * share.rho()).sqrt()), 1_000, delta);
    let found = seen(&right);
    assert!(found > 0.7 * exact && found <= 1.03 * exact, "{found}, exact {exact}");

    // Half the noise, and the mechanism is told of four times what was charged, or it would refuse.
    let mut planted = right;
    planted.rho = NanoRho(4 * planted.rho.0);
    for added in planted.other.iter_mut().flatten().flatten() {
        *added = Added { noise: Noise::DiscreteGaussian { scale: added.noise.scale() / 2.0 }, rho: NanoRho(4 * added.rho.0 + 1) };
    }
    let found = seen(&planted);
    assert!(found > exact && found > epsilon(share, delta), "not caught: {found}, exact {exact}");
}
