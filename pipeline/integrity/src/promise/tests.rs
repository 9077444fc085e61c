use super::*;

const DAY_MS: i64 = 86_400_000;
/// In the middle of a period.
const NOW: i64 = (28 * 700 + 14) * DAY_MS;

fn verdicts(dismissed: u64, confirmed: u64) -> Verdicts {
    Verdicts { confirmed, dismissed }
}

#[test]
fn the_evidence_is_the_integral_that_the_text_says() {
    // By Simpson's rule, in logarithms so that nothing overflows.
    let by_hand = |s: f64, f: f64, q: f64| -> f64 {
        let steps = 200_000;
        let ratio = |theta: f64| -> f64 {
            let of = |n: f64, up: f64, down: f64| if n == 0.0 { 0.0 } else { n * (up / down).ln() };
            (of(s, theta, q) + of(f, 1.0 - theta, 1.0 - q)).exp()
        };
        let width = (1.0 - q) / f64::from(steps);
        let weight = |i: i32| {
            if i == 0 || i == steps {
                1.0
            } else if i % 2 == 1 {
                4.0
            } else {
                2.0
            }
        };
        let sum: f64 = (0..=steps).map(|i| weight(i) * ratio(q + f64::from(i) * width)).sum();
        sum * width / 3.0 / (1.0 - q)
    };
    for (s, f, q) in
        [(0, 0, 0.05), (1, 0, 0.05), (0, 1, 0.05), (3, 7, 0.05), (7, 3, 0.2), (40, 400, 0.05), (90, 400, 0.2), (30, 5_000, 0.01)]
    {
        let (told, expected) = (verdicts(s, f).against(q), by_hand(s as f64, f as f64, q));
        assert!((told / expected - 1.0).abs() < 1e-6, "{s} {f} {q}: {told} and {expected}");
    }
    assert!((verdicts(0, 0).against(0.3) - 1.0).abs() < 1e-12, "nothing is known at first");
    assert!(verdicts(500, 0).against(0.001) <= MOST_EVIDENCE);
    assert!(verdicts(0, 100_000).against(0.05) < 1e-3 && verdicts(50_000, 50_000).against(0.05) >= BROKEN_AT);
}

/// The probability that a rule of which each alert is false with probability `share` is ever put back within `most` verdicts when it is looked at after
/// each: every order of verdicts is added up, so this is no estimate.
fn ever_broken(share: f64, promised: f64, most: u64) -> f64 {
    let mut alive = vec![1.0_f64];
    let mut broken = 0.0;
    for n in 1..=most {
        let mut next = vec![0.0; alive.len() + 1];
        for (s, p) in alive.iter().enumerate() {
            next[s] += p * (1.0 - share);
            next[s + 1] += p * share;
        }
        for (s, p) in (0_u64..).zip(&mut next) {
            let worst = verdicts(s, n - s);
            let observed = Observed { verdicts: worst, worst, evidence: worst.against(promised) };
            if *p > 0.0 && observed.is_broken() {
                broken += std::mem::take(p);
            }
        }
        while next.last() == Some(&0.0) {
            next.pop();
        }
        alive = next;
    }
    broken
}

#[test]
fn a_rule_that_keeps_its_promise_is_put_back_at_most_once_in_a_hundred_however_often_it_is_looked_at() {
    for promised in [0.02, 0.05, 0.1, 0.2, 0.5] {
        let at_the_edge = ever_broken(promised, promised, 600);
        assert!(at_the_edge <= 0.01 && at_the_edge > 1e-4, "{promised}: {at_the_edge}");
        let better = ever_broken(promised / 2.0, promised, 600);
        assert!(better < at_the_edge / 5.0, "{promised}: {better}");
    }
}

#[test]
fn a_rule_that_breaks_its_promise_is_put_back_soon() {
    for (promised, share, within, at_least) in [
        (0.05, 0.5, 25, 0.98),
        (0.05, 0.2, 100, 0.93),
        (0.05, 0.12, 400, 0.9),
        (0.1, 0.3, 100, 0.9),
        (0.2, 0.5, 60, 0.9),
        (0.02, 0.1, 150, 0.86),
    ] {
        let found = ever_broken(share, promised, within);
        assert!(found >= at_least, "{share} where {promised} is promised, within {within} verdicts: {found}");
    }
}

fn told(days_ago: i64, abuse: bool) -> Verdict {
    Verdict { told_ms: NOW - days_ago * DAY_MS, abuse }
}

#[test]
fn each_period_is_a_test_of_its_own_and_what_is_older_or_was_answered_for_is_not_counted() {
    let bad = |days_ago: i64| (0..20).map(move |n| told(days_ago, n % 2 == 0));
    let broken = |verdicts: Vec<Verdict>, lifted_ms: i64| observe(verdicts, 0.05, lifted_ms, NOW);
    // The present period began 14 days ago, the one before it 42 days ago.
    for (days_ago, expected) in [(0, true), (14, true), (15, true), (42, true), (43, false), (100, false)] {
        assert_eq!(broken(bad(days_ago).collect(), 0).is_broken(), expected, "{days_ago}");
    }
    // A good month before does not pay for a bad one.
    let good = (0..2_000).map(|_| told(30, true));
    let both = broken(good.chain(bad(1)).collect(), 0);
    assert!(both.is_broken());
    assert_eq!((both.worst, both.verdicts), (verdicts(10, 10), verdicts(10, 2_010)));
    // Somebody has answered for what was told until then.
    assert!(!broken(bad(1).collect(), NOW - DAY_MS).is_broken());
    assert!(broken(bad(1).collect(), NOW - DAY_MS - 1).is_broken());
    // Nine are too few, and hide no ten.
    let few: Vec<_> = (0..9).map(|_| told(0, false)).collect();
    assert!(!broken(few.clone(), 0).is_broken());
    assert!(broken(few.into_iter().chain(bad(20)).collect(), 0).is_broken());
    let none = broken(Vec::new(), 0);
    assert!(!none.is_broken() && none.evidence <= 1.0);
}

#[test]
fn looking_before_an_appeal_is_decided_never_weighs_more_than_looking_after_it() {
    for promised in [0.02, 0.2] {
        for n in 1..60 {
            for s in 0..n {
                let (before, after) = (verdicts(s, n - s).against(promised), verdicts(s + 1, n - s - 1).against(promised));
                assert!(before < after || before == MOST_EVIDENCE, "{s} of {n}: {before} and {after}");
            }
        }
    }
}

#[test]
fn the_false_share_is_what_precision_leaves() {
    let (share, low, high) = verdicts(3, 22).false_share().expect("verdicts");
    // R: binom.test(3, 25)$conf.int
    assert!(
        (share - 0.12).abs() < 1e-12 && (low - 0.025_465_4).abs() < 1e-6 && (high - 0.312_190_5).abs() < 1e-6,
        "{low} {high}"
    );
    assert_eq!(verdicts(0, 0).false_share(), None);
}
