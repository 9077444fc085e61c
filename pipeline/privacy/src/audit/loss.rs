//! A lower bound of privacy loss, from outputs alone.
//!
//! Takes two closures that produce outputs, one with a person's rows and one without, and statistics that map an output to a number. Knows
//! nothing of noise, queries or claims, and needs statrs only: another crate's tests include this file by its path to audit whole queries.
//!
//! # What is promised
//!
//! A [`Finding`] is above the true loss with probability 1 − [`SURE`] at most. For events A and closures P, Q the definition of (ε, δ)
//! says P(A) ≤ e^ε·Q(A) + δ, so every event gives a bound of ε at δ, and of δ at ε. Probabilities are bounded by Clopper & Pearson 1934, exactly,
//! not by an approximation. Looking for the worst event and measuring it on the same outputs would find loss where there is none: so the event
//! is chosen on the first quarter of the runs, and measured on the others. Two are measured, one with P and Q as they are and one with
//! them exchanged, and the four bounds share 1 − [`SURE`] between them (union bound).
//!
//! Events are "at least t" and "at most t" of a statistic. A discrete Gaussian's and a discrete Laplace's log-ratio rise with the output, so
//! that for them these are the worst events; a statistic that adds up all places that one person changes, by how much, makes the same of a
//! vector. What cannot be ordered, a group not shown, is `f64::NEG_INFINITY`.

use statrs::function::beta::inv_beta_reg;

/// How sure a finding is.
pub(crate) const SURE: f64 = 0.999;

/// One run in so many is for choosing the event: choosing needs fewer than measuring.
const CHOOSING: usize = 4;

/// Bounds of a probability of which `hits` of `of` tries are seen, exactly: each is wrong with probability `wrong` at most.
pub(crate) fn clopper_pearson(hits: usize, of: usize, wrong: f64) -> (f64, f64) {
    assert!(hits <= of && of > 0 && wrong > 0.0 && wrong < 0.5, "{hits} of {of} at {wrong}");
    let (a, n) = (hits as f64, of as f64);
    let low = if hits == 0 { 0.0 } else { inv_beta_reg(a, n - a + 1.0, wrong) };
    // By the mirror image, because 1 − `wrong` would lose digits.
    let high = if hits == of { 1.0 } else { 1.0 - inv_beta_reg(n - a, a + 1.0, wrong) };
    // The quantiles come with six digits or more: outwards by that much.
    (low * (1.0 - 1e-6), (high * (1.0 + 1e-6)).min(1.0))
}

/// What is looked at of an output.
pub(crate) type Statistic<'a, O> = dyn Fn(&O) -> f64 + 'a;

/// A set of outputs, by a statistic of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Event {
    AtLeast(f64),
    AtMost(f64),
}

/// What was found, and how, for the message of a test that fails.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Finding {
    /// ε is at least this at the δ asked, or δ at the ε asked.
    pub(crate) at_least: f64,
    /// The event that shows it; its statistic by position.
    #[allow(dead_code, reason = "told by Debug")]
    pub(crate) event: (usize, Event),
    /// How often it was seen among the measured runs: where it is likelier, where it is less likely.
    #[allow(dead_code, reason = "told by Debug")]
    pub(crate) seen: (usize, usize),
    /// Whether it is likelier with the person.
    #[allow(dead_code, reason = "told by Debug")]
    pub(crate) likelier_with: bool,
}

/// Which of the two is asked, and at what.
#[derive(Debug, Clone, Copy)]
enum Asked {
    EpsilonAt(f64),
    DeltaAt(f64),
}

impl Asked {
    /// The loss that an event shows whose probability is at least `likely` here and at most `unlikely` there.
    fn shown(self, likely: f64, unlikely: f64) -> f64 {
        match self {
            Self::EpsilonAt(delta) if likely > delta => ((likely - delta) / unlikely).ln().max(0.0),
            Self::EpsilonAt(_) => 0.0,
            Self::DeltaAt(epsilon) => (likely - epsilon.exp() * unlikely).max(0.0),
        }
    }

    /// What an event shows that was seen so often, of so many runs with and without: if it is likelier with the person, and if without.
    fn both_ways(self, hits: (usize, usize), of: (usize, usize), wrong: f64) -> [f64; 2] {
        let (with, without) = (clopper_pearson(hits.0, of.0, wrong), clopper_pearson(hits.1, of.1, wrong));
        [self.shown(with.0, without.1), self.shown(without.0, with.1)]
    }
}

/// Outputs of two neighbours.
pub(crate) struct Neighbours<O> {
    with: Vec<O>,
    without: Vec<O>,
}

/// One statistic's values, sorted: with and without the person.
struct Sorted {
    with: Vec<f64>,
    without: Vec<f64>,
}

impl<O> Neighbours<O> {
    /// Runs both closures `runs` times each, a quarter of them to choose the event and the others to measure it.
    pub(crate) fn run(runs: usize, mut with: impl FnMut() -> O, mut without: impl FnMut() -> O) -> Self {
        assert!(runs >= 100, "too few runs to find anything");
        let with = (0..runs).map(|_| with()).collect();
        let without = (0..runs).map(|_| without()).collect();
        Self { with, without }
    }

    /// A lower bound of ε at `delta`. Of several statistics the one that shows most is chosen, on the first quarter too.
    pub(crate) fn epsilon(&self, delta: f64, statistics: &[&Statistic<'_, O>]) -> Finding {
        self.find(Asked::EpsilonAt(delta), statistics)
    }

    /// A lower bound of δ at `epsilon`.
    pub(crate) fn delta(&self, epsilon: f64, statistics: &[&Statistic<'_, O>]) -> Finding {
        self.find(Asked::DeltaAt(epsilon), statistics)
    }

    fn find(&self, asked: Asked, statistics: &[&Statistic<'_, O>]) -> Finding {
        let wrong = (1.0 - SURE) / 4.0;
        let first = self.with.len() / CHOOSING;
        let sorted = |outputs: &[O], statistic: &Statistic<'_, O>| {
            let mut values: Vec<f64> = outputs.iter().map(statistic).collect();
            assert!(values.iter().all(|v| !v.is_nan()), "a statistic gave no number");
            values.sort_unstable_by(f64::total_cmp);
            values
        };
        // By direction: what shows most on the first quarter.
        let mut chosen = [(f64::MIN, 0, Event::AtLeast(0.0)); 2];
        for (at, statistic) in statistics.iter().enumerate() {
            let looked_at =
                Sorted { with: sorted(&self.with[..first], statistic), without: sorted(&self.without[..first], statistic) };
            for event in events(&looked_at) {
                for (shown, best) in asked.both_ways(looked_at.hits(event), (first, first), wrong).into_iter().zip(&mut chosen) {
                    if shown > best.0 {
                        *best = (shown, at, event);
                    }
                }
            }
        }
        let [one, other] = [true, false].map(|likelier_with| {
            let (_, at, event) = chosen[usize::from(!likelier_with)];
            let (with, without) = (&self.with[first..], &self.without[first..]);
            let measured = Sorted { with: sorted(with, statistics[at]), without: sorted(without, statistics[at]) };
            let hits = measured.hits(event);
            let at_least = asked.both_ways(hits, (with.len(), without.len()), wrong)[usize::from(!likelier_with)];
            let seen = if likelier_with { hits } else { (hits.1, hits.0) };
            Finding { at_least, event: (at, event), seen, likelier_with }
        });
        if one.at_least >= other.at_least { one } else { other }
    }
}

impl Sorted {
    /// How many outputs are in `event`, with and without.
    fn hits(&self, event: Event) -> (usize, usize) {
        let count = |values: &[f64]| match event {
            Event::AtLeast(t) => values.len() - values.partition_point(|v| *v < t),
            Event::AtMost(t) => values.partition_point(|v| *v <= t),
        };
        (count(&self.with), count(&self.without))
    }
}

/// Events worth a look: thresholds at even ranks, and closer together towards both ends, where rare events are.
fn events(first: &Sorted) -> Vec<Event> {
    let mut thresholds = Vec::new();
    for values in [&first.with, &first.without] {
        let last = values.len() - 1;
        let even = (0..=100).map(|i| i * last / 100);
        let ends = std::iter::successors(Some(1_usize), |rank| Some(rank + rank / 4 + 1)).take_while(|rank| *rank <= last);
        let ranks = even.chain(ends.flat_map(|rank| [rank, last - rank]));
        thresholds.extend(ranks.map(|rank| values[rank]));
    }
    thresholds.sort_unstable_by(f64::total_cmp);
    thresholds.dedup();
    thresholds.into_iter().flat_map(|t| [Event::AtLeast(t), Event::AtMost(t)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers evenly from 0 to 1, the same in every run of the tests.
    fn even_numbers(seed: u64) -> impl FnMut() -> f64 {
        let mut state = seed;
        move || {
            // SplitMix64.
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
        }
    }

    #[test]
    fn clopper_and_pearsons_bounds_are_those_that_are_known() {
        // SciPy 1.17, `beta.ppf` and `beta.isf`.
        let known = [
            (0, 100_000, 0.000_25, 0.0, 8.293_705_693_313_97e-5),
            (1, 100_000, 0.000_25, 2.500_312_548_967_319e-9, 0.000_107_581_128_047_999_77),
            (37, 100_000, 0.000_25, 0.000_194_342_539_874_003_62, 0.000_632_188_866_870_081_9),
            (50_000, 100_000, 0.000_25, 0.494_491_621_763_563_76, 0.505_508_378_236_436_3),
            (73_106, 100_000, 0.000_5, 0.726_423_728_056_098_1, 0.735_661_321_123_030_7),
            (99_999, 100_000, 0.000_5, 0.999_900_017_723_642_9, 0.999_999_994_998_749_6),
            (100_000, 100_000, 0.000_5, 0.999_923_993_864_017_3, 1.0),
            (3, 10, 0.005, 0.037_007_221_096_232_09, 0.735_113_985_287_130_7),
            (7, 400_000, 0.000_5, 3.370_929_569_513_901e-6, 5.163_421_086_846_760_6e-5),
        ];
        for (hits, of, wrong, low, high) in known {
            let told = clopper_pearson(hits, of, wrong);
            assert!(told.0 <= low && told.0 >= low * (1.0 - 3e-6), "{hits} of {of}: {told:?}, not {low}");
            assert!(told.1 >= high && told.1 <= high * (1.0 + 3e-6), "{hits} of {of}: {told:?}, not {high}");
        }
    }

    #[test]
    fn clopper_and_pearsons_bounds_are_wrong_no_more_often_than_they_say_whatever_the_probability() {
        let (n, wrong) = (40, 0.01);
        let bounds: Vec<(f64, f64)> = (0..=n).map(|hits| clopper_pearson(hits, n, wrong)).collect();
        for step in 1..200 {
            let p = f64::from(step) / 200.0;
            // The chance of each number of hits, by the ratio to the one before.
            let mut chance = (1.0 - p).powi(40);
            let (mut too_high, mut too_low) = (0.0, 0.0);
            for (hits, (low, high)) in bounds.iter().enumerate() {
                too_high += if *low > p { chance } else { 0.0 };
                too_low += if *high < p { chance } else { 0.0 };
                chance *= (n - hits) as f64 / (hits + 1) as f64 * p / (1.0 - p);
            }
            assert!(too_high <= wrong && too_low <= wrong, "{p}: {too_high} {too_low}");
        }
    }

    #[test]
    fn of_a_coin_that_lies_with_known_odds_nearly_all_is_found_and_never_more() {
        // Randomised response: says the truth with probability e/(1+e), so ε = 1 exactly.
        let honest = 1.0_f64.exp() / (1.0 + 1.0_f64.exp());
        for seed in 0..20 {
            let (mut a, mut b) = (even_numbers(seed), even_numbers(1_000 + seed));
            let runs = Neighbours::run(40_000, || f64::from(a() < honest), || f64::from(b() >= honest));
            let found = runs.epsilon(0.0, &[&|x| *x]);
            assert!(found.at_least > 0.9 && found.at_least <= 1.0, "{found:?}");
            let found = runs.delta(0.5, &[&|x| *x]);
            let delta = honest - 0.5_f64.exp() * (1.0 - honest);
            assert!(found.at_least > 0.85 * delta && found.at_least <= delta, "{found:?} {delta}");
        }
    }

    #[test]
    fn where_there_is_no_loss_none_is_found_though_many_events_and_statistics_are_tried() {
        let rotations: Vec<Box<Statistic<'_, f64>>> =
            (0..20).map(|i| Box::new(move |x: &f64| (x + f64::from(i) / 20.0).fract()) as Box<_>).collect();
        let statistics: Vec<&Statistic<'_, f64>> = rotations.iter().map(|f| &**f).collect();
        for seed in 0..10 {
            let found = Neighbours::run(2_000, even_numbers(seed), even_numbers(1_000 + seed)).epsilon(0.0, &statistics);
            assert_eq!(found.at_least, 0.0, "{found:?}");
        }
    }

    #[test]
    fn what_is_only_ever_seen_without_the_person_is_found_too_and_so_is_what_is_not_shown() {
        let mut next = even_numbers(3);
        let shown = |p: f64, x: f64| if x < p { 1.0 } else { f64::NEG_INFINITY };
        let runs = Neighbours::run(20_000, || f64::NEG_INFINITY, || shown(0.2, next()));
        let found = runs.delta(1.0, &[&|x| *x]);
        assert!(found.at_least > 0.18 && found.at_least <= 0.2 && !found.likelier_with, "{found:?}");
        // ln(0.2 / one in …): as much as 10,000 runs can show.
        assert!(runs.epsilon(0.0, &[&|x| *x]).at_least > 5.0);
    }
}
