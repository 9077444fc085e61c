use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};

use super::*;
use crate::question::{Asked, Input, Order, plan};

fn spec() -> Spec {
    Spec {
        keys: 1,
        inputs: vec![Input { low: 0, high: 1_000_000 }],
        groups_per_person: 8,
        discovered: true,
        aggregates: vec![
            Aggregate::PEOPLE,
            Aggregate::Sum { of: Source::Rows, low: 0, high: 50 },
            Aggregate::Sum { of: Source::Column(0), low: 0, high: 20_000 },
        ],
    }
}

/// 3,000 people in one group each with one row, of whom the n-th has a value of n; and a hundred in three groups with two rows in each.
fn asked(spec: &Spec, plan: &Plan) -> Asked {
    let mut rows: Vec<(i64, i64, i64)> = (1..=3_000).map(|person| (person, person % 5, person)).collect();
    rows.extend((0..100).flat_map(|person| (0..6).map(move |row| (10_000 + person, row % 3, 1))));
    let column = |of: fn(&(i64, i64, i64)) -> i64| Arc::new(rows.iter().map(of).collect::<Int64Array>()) as ArrayRef;
    let batch = RecordBatch::try_from_iter([("person", column(|r| r.0)), ("key", column(|r| r.1)), ("value", column(|r| r.2))]);
    let mut asked = Asked::new(spec.clone(), Order::Any, None).expect("sound").probing(plan);
    asked.push(&batch.expect("columns")).expect("fits");
    asked
}

#[test]
fn the_best_rank_is_where_a_little_more_noise_is_as_much_as_a_little_less_is_cut() {
    // σ = 20 for a bound of 1: of 1,000 people 20 may be beyond it.
    assert!((best_rank(20.0, 1, 1_000) - 0.98).abs() < 1e-9);
    assert!((best_rank(20_000.0, 1_000, 1_000) - 0.98).abs() < 1e-9);
    // Few people: half of them. Many: one in a thousand is left outside.
    assert!((best_rank(20.0, 1, 10) - 0.5).abs() < 1e-9);
    assert!((best_rank(20.0, 1, 10_000_000) - 0.999).abs() < 1e-9);
    // Numerically: noise c·s plus Σ max(0, x − c) of n people with x even in 0..100 is least at that rank.
    let (n, s) = (1_000.0, 20.0);
    let error = |c: f64| c * s + n * (100.0 - c).powi(2) / 200.0;
    let least =
        (0..=1_000_u32).map(|tenth| f64::from(tenth) / 10.0).min_by(|a, b| error(*a).total_cmp(&error(*b))).expect("some");
    assert!((least / 100.0 - best_rank(s, 1, 1_000)).abs() < 0.002, "{least}");
}

#[test]
fn i2_bounds_are_found_near_their_ranks_for_the_whole_budget_and_no_more() {
    let spec = spec();
    let rho = NanoRho(900_000_001);
    let answered = plan(&spec, NanoRho(9_000_000_017), 1e-6).expect("a plan");
    let probing = suggest(&spec, &answered, 100).expect("a plan");
    assert_eq!((probing.spent(), probing.rho, probing.delta), (i128::from(rho.0), rho, 0.0));
    let answer = asked(&spec, &probing).draw(&probing).expect("draws");
    let [groups, rows, sum] = answer.values.as_slice() else { panic!("three bounds") };
    // One in 31 is in three groups, with two rows in each.
    assert_eq!((groups[0], rows[0]), (3, 2));
    let share = f64::from(probing.probes[2].rank.numerator()) / f64::from(probing.probes[2].rank.denominator());
    let wanted = 3_100.0 * share - 100.0;
    assert!((sum[0] as f64 - wanted).abs() < 200.0, "{} {wanted}", sum[0]);

    // A draw that tells more than it pays for, and one that nobody has paid for.
    let mut planted = probing.clone();
    planted.probes[0].gamma = QuantileGamma(Gamma::within(rho, 1).expect("a rate"));
    assert!(matches!(asked(&spec, &planted).draw(&planted), Err(PrivacyError::CostsMoreThanCharged)));
    let planted = Plan { rho: NanoRho(1_000), ..probing.clone() };
    assert!(matches!(asked(&spec, &planted).draw(&planted), Err(PrivacyError::CostsMoreThanCharged)));
    // Rows that were gathered for an answer hold no values for bounds.
    let free = Asked::new(spec, Order::Any, None).expect("sound");
    assert!(free.draw(&probing).is_err());
}

#[test]
fn one_person_changes_one_place_of_each_grid_by_one() {
    let spec = spec();
    let answered = plan(&spec, NanoRho(900_000_000), 1e-6).expect("a plan");
    let probes = suggest(&spec, &answered, 1_000).expect("a plan").probes;
    let mut histograms = Histograms::new(&probes);
    histograms.person(&probes, u64::MAX, &[u128::MAX; 3]);
    assert!(histograms.0.iter().all(|places| places.iter().sum::<u64>() == 1 && places.last() == Some(&1)));
    histograms.person(&probes, 2, &[0, 0, 0]);
    assert_eq!(histograms.0.iter().map(|places| places.iter().sum::<u64>()).collect::<Vec<_>>(), [2, 1, 1]);
}
