//! Measures noise and privacy loss from outputs. The same checks are run on planted faults, which they must catch.
//!
//! Probabilities and distribution functions are bounded by Chernoff and Dvoretzky–Kiefer–Wolfowitz inequalities at one in a billion each; means
//! and variances get 6.2 standard errors. So a right mechanism practically never fails here. That a planted fault is caught is a matter of
//! enough draws: the numbers of draws leave four standard errors or more.

use starling_schemas::codes::{Activity, Country, PlatformCode};
use starling_schemas::metrics::{Bounds, Catalogue, Measure, NanoRho};

use crate::bound::{Bounder, Sensitivity};
use crate::mechanism::{add_noise, calibrate, epsilon};
use crate::noise::{COVERAGE, Noise};
use crate::testing::{Row, batch};

/// Natural logarithm of a billion.
const LN_BILLION: f64 = 20.723_265_836_946_41;

/// Draws through the real mechanism, with the check of costs out of the way so that faults can be planted.
fn draws(noise: Noise, sums: Vec<i64>) -> Vec<i64> {
    add_noise(noise, Sensitivity::planted(1, 1), NanoRho(1_000_000_000_000), sums).expect("draws")
}

fn gaussian(scale: f64) -> Noise {
    Noise::DiscreteGaussian { scale }
}

fn laplace(scale: f64) -> Noise {
    Noise::DiscreteLaplace { scale }
}

/// P(X ≤ x) for all x in −reach..=reach, by summing the definition.
fn distribution(noise: Noise, reach: i64) -> Vec<f64> {
    let weight = |x: f64| match noise {
        Noise::DiscreteGaussian { scale } => (-x * x / (2.0 * scale * scale)).exp(),
        Noise::DiscreteLaplace { scale } => (-x.abs() / scale).exp(),
    };
    let mut running = 0.0;
    let sums: Vec<f64> = (-reach..=reach)
        .map(|x| {
            running += weight(x as f64);
            running
        })
        .collect();
    sums.into_iter().map(|s| s / running).collect()
}

/// Whether draws around 0 look like `claimed`: distribution function, mean and variance.
fn check_shape(claimed: Noise, drawn: &[i64]) -> Result<(), String> {
    let n = drawn.len() as f64;
    let reach = (60.0 * claimed.scale()).ceil() as i64 + 10;
    let expected = distribution(claimed, reach);
    let mut counts = vec![0.0; expected.len()];
    for x in drawn {
        let at = usize::try_from((x + reach).clamp(0, 2 * reach)).expect("inside");
        counts[at] += 1.0;
    }
    let (mut seen, mut gap) = (0.0, 0.0_f64);
    for (count, expected) in counts.iter().zip(&expected) {
        seen += count;
        gap = gap.max((seen / n - expected).abs());
    }
    let allowed = ((LN_BILLION + 2_f64.ln()) / (2.0 * n)).sqrt();
    if gap > allowed {
        return Err(format!("distribution function off by {gap}, allowed {allowed}"));
    }
    let mean = drawn.iter().map(|x| *x as f64).sum::<f64>() / n;
    if mean.abs() > 6.2 * claimed.stddev() / n.sqrt() {
        return Err(format!("mean {mean}"));
    }
    let squares: Vec<f64> = drawn.iter().map(|x| (*x as f64).powi(2)).collect();
    let variance = squares.iter().sum::<f64>() / n;
    // The fourth moment of the claimed distribution, for the spread of the variance.
    let probability = |at: usize| expected[at] - if at == 0 { 0.0 } else { expected[at - 1] };
    let fourth: f64 = (0..expected.len()).map(|at| (at as f64 - reach as f64).powi(4) * probability(at)).sum();
    let spread = ((fourth - claimed.variance().powi(2)) / n).sqrt();
    if (variance - claimed.variance()).abs() > 6.2 * spread {
        return Err(format!("variance {variance}, claimed {}", claimed.variance()));
    }
    Ok(())
}

/// Kullback–Leibler divergence of coins.
fn kl(a: f64, b: f64) -> f64 {
    let part = |a: f64, b: f64| if a == 0.0 { 0.0 } else { a * (a / b).ln() };
    part(a, b) + part(1.0 - a, 1.0 - b)
}

/// Bounds of a probability of which `hits` of `n` tries are seen; each is wrong once in a billion (Chernoff).
fn bounds_of(hits: usize, n: usize) -> (f64, f64) {
    let (seen, n) = (hits as f64 / n as f64, n as f64);
    let search = |mut inside: f64, mut outside: f64| {
        for _ in 0..60 {
            let middle = (inside + outside) / 2.0;
            if n * kl(seen, middle) <= LN_BILLION { inside = middle } else { outside = middle }
        }
        outside
    };
    (search(seen, 0.0), search(seen, 1.0))
}

/// A lower bound of the ε that two neighbours' outputs show at `delta`, over events "at least t" and "at most t".
fn epsilon_at_least(one: &[i64], other: &[i64], delta: f64) -> f64 {
    let (least, most) = one.iter().chain(other).fold((i64::MAX, i64::MIN), |(a, b), x| (a.min(*x), b.max(*x)));
    let step = ((most - least) / 100).max(1);
    let mut best = 0.0_f64;
    let mut t = least;
    while t <= most {
        for upper in [true, false] {
            let hits = |drawn: &[i64]| drawn.iter().filter(|x| if upper { **x >= t } else { **x <= t }).count();
            let (a, b) = (bounds_of(hits(one), one.len()), bounds_of(hits(other), other.len()));
            for (likely, unlikely) in [(a, b), (b, a)] {
                if likely.0 > delta {
                    best = best.max(((likely.0 - delta) / unlikely.1).ln());
                }
            }
        }
        t += step;
    }
    best
}

/// A lower bound of the total variation distance of two neighbours' outputs, by the event "at least t".
fn distance_at_least(one: &[i64], other: &[i64], t: i64) -> f64 {
    let hits = |drawn: &[i64]| drawn.iter().filter(|x| **x >= t).count();
    bounds_of(hits(one), one.len()).0 - bounds_of(hits(other), other.len()).1
}

#[test]
fn noise_has_the_distribution_it_claims() {
    for scale in [0.4, 1.0, 15.8, 1342.0] {
        for noise in [gaussian(scale), laplace(scale)] {
            assert_eq!(check_shape(noise, &draws(noise, vec![0; 20_000])), Ok(()), "{noise:?}");
        }
    }
}

#[test]
fn a_planted_wrong_distribution_is_caught() {
    let claimed = gaussian(5.0);
    let right = draws(claimed, vec![0; 20_000]);
    let planted: [(&str, Vec<i64>); 6] = [
        ("scale a tenth too large", draws(gaussian(5.5), vec![0; 20_000])),
        ("scale a tenth too small", draws(gaussian(4.5), vec![0; 20_000])),
        ("half the scale", draws(gaussian(2.5), vec![0; 20_000])),
        ("the other distribution with the same variance", draws(laplace(5.0 / 2_f64.sqrt()), vec![0; 20_000])),
        ("noise that is never negative", right.iter().map(|x| x.abs()).collect()),
        ("noise off by one", right.iter().map(|x| x + 1).collect()),
    ];
    for (name, drawn) in planted {
        assert!(check_shape(claimed, &drawn).is_err(), "{name}");
    }
}

#[test]
fn intervals_hold_the_exact_sum_as_often_as_they_say() {
    let covered = |told: Noise, drawn: &[i64]| {
        drawn.iter().filter(|x| x.abs() as f64 <= told.half_width()).count() as f64 / drawn.len() as f64
    };
    for noise in [gaussian(15.8), gaussian(1342.0), laplace(15.8)] {
        let share = covered(noise, &draws(noise, vec![0; 20_000]));
        // Half widths are integers, so that narrow noise covers a little more than it says.
        assert!((COVERAGE - 0.01..COVERAGE + 0.02).contains(&share), "{noise:?}: {share}");
    }
    let share = covered(gaussian(15.8), &draws(gaussian(20.0), vec![0; 20_000]));
    assert!(share < COVERAGE - 0.01, "a planted wrong scale is caught: {share}");
}

/// Runs one count with and without a person, `n` times each.
fn count_with_and_without(noise: Noise, n: usize) -> (Vec<i64>, Vec<i64>) {
    (draws(noise, vec![1001; n]), draws(noise, vec![1000; n]))
}

#[test]
fn i2_a_counts_loss_measured_from_outputs_is_within_its_charge_and_a_scale_halved_is_not() {
    let (cost, delta) = (NanoRho(500_000_000), 1e-3);
    let told = epsilon(cost, delta);
    let right = calibrate(Sensitivity::planted(1, 1), cost).expect("calibrates");
    let (with, without) = count_with_and_without(right, 30_000);
    let measured = epsilon_at_least(&with, &without, delta);
    assert!(measured > 1.0 && measured <= told, "measured {measured}, told {told}");

    let (with, without) = count_with_and_without(gaussian(right.scale() / 2.0), 30_000);
    let measured = epsilon_at_least(&with, &without, delta);
    assert!(measured > told, "the planted fault is not caught: measured {measured}, told {told}");
}

#[test]
fn i2_at_the_cost_of_a_real_metric_a_scale_halved_is_caught_too() {
    // At small ρ one person moves the output hardly at all, and the loss shows best as distance: at most √(ρ/2), by Pinsker's inequality.
    let cost = NanoRho(4_000_000);
    let most = (cost.rho() / 2.0).sqrt();
    let right = calibrate(Sensitivity::planted(1, 1), cost).expect("calibrates");
    let (with, without) = count_with_and_without(right, 120_000);
    assert!(distance_at_least(&with, &without, 1001) <= most);
    let (with, without) = count_with_and_without(gaussian(right.scale() / 2.0), 120_000);
    let measured = distance_at_least(&with, &without, 1001);
    assert!(measured > most, "the planted fault is not caught: {measured} {most}");
}

#[test]
fn a_laplace_counts_loss_is_within_its_scale_and_a_scale_halved_is_not() {
    let (with, without) = count_with_and_without(laplace(1.0), 30_000);
    let measured = epsilon_at_least(&with, &without, 0.0);
    assert!(measured > 0.8 && measured <= 1.0, "{measured}");
    let (with, without) = count_with_and_without(laplace(0.5), 30_000);
    assert!(epsilon_at_least(&with, &without, 0.0) > 1.0);
}

/// Sums with and without a person who is everywhere, with the sensitivity the bounder states; and where the person is.
fn bounded_with_and_without(groups_per_person: u32) -> (Vec<i64>, Vec<i64>, Sensitivity) {
    let mut metric = Catalogue::builtin().expect("reviewed").metrics.into_iter().next().expect("listed");
    metric.measure = Measure::Events;
    metric.bounds = Bounds { groups_per_person, value_per_group: 3 };
    let country = Country::parse("DE").expect("listed").code();
    let activity = Activity::MessagePerson.code();
    let rows = |person: u128| {
        let row = move |platform: &PlatformCode| Row {
            person,
            country,
            platform: platform.code(),
            activity,
            events: 1_000_000,
            seconds: 0,
        };
        PlatformCode::ALL.iter().map(row).collect::<Vec<_>>()
    };
    let sums = |people: &[u128]| {
        let mut bounder = Bounder::new(&metric).expect("sound");
        for person in people {
            bounder.push(&batch(&rows(*person))).expect("sorted");
        }
        let (_, sums, sensitivity) = bounder.finish().expect("fits").into_parts();
        (sums, sensitivity)
    };
    let (with, sensitivity) = sums(&[1, 2, 3]);
    let (without, _) = sums(&[1, 3]);
    (with, without, sensitivity)
}

/// The loss a whole table shows to somebody who knows where the person would be, and adds up those groups.
fn table_loss(noise: Noise, with: &[i64], without: &[i64], n: usize, delta: f64) -> f64 {
    let theirs: Vec<usize> = (0..with.len()).filter(|at| with[*at] != without[*at]).collect();
    let runs = |sums: &[i64]| -> Vec<i64> {
        let few: Vec<i64> = theirs.iter().map(|at| sums[*at]).collect();
        let drawn = draws(noise, few.repeat(n));
        drawn.chunks(few.len()).map(|run| run.iter().sum()).collect()
    };
    epsilon_at_least(&runs(with), &runs(without), delta)
}

#[test]
fn i2_a_whole_tables_loss_is_within_its_charge_and_a_forgotten_bound_is_not() {
    let (cost, delta) = (NanoRho(500_000_000), 1e-3);
    let told = epsilon(cost, delta);
    let (with, without, stated) = bounded_with_and_without(7);
    assert_eq!(stated, Sensitivity::planted(7, 3));

    let right = calibrate(stated, cost).expect("calibrates");
    let measured = table_loss(right, &with, &without, 10_000, delta);
    assert!(measured > 1.0 && measured <= told, "measured {measured}, told {told}");

    let forgot_the_groups = calibrate(Sensitivity::planted(1, 3), cost).expect("calibrates");
    let measured = table_loss(forgot_the_groups, &with, &without, 10_000, delta);
    assert!(measured > told, "groups per person forgotten, and not caught: measured {measured}, told {told}");

    let forgot_the_value = calibrate(Sensitivity::planted(7, 1), cost).expect("calibrates");
    let measured = table_loss(forgot_the_value, &with, &without, 4_000, delta);
    assert!(measured > told, "value per group forgotten, and not caught: measured {measured}, told {told}");
}
