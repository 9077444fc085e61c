//! E-values are e-values, e-BH is e-BH, and what was tested is counted.

use proptest::prelude::*;

use starling_schemas::chosen::mean_log10;

use super::*;
use crate::alert::{Baseline, SeenWindow, Subject};

/// What a p-value is worth as a bet.
fn bet(p: f64) -> f64 {
    EValue::of_p(p).map_or(0.0, |e| 10_f64.powf(e.log10()))
}

#[test]
fn the_calibrator_makes_one_of_one_and_not_more() {
    // Over p = exp(-t), where most of it lies.
    let step = 0.001;
    let sum: f64 = (0..400_000).map(|n| (f64::from(n) + 0.5) * step).map(|t: f64| bet((-t).exp()) * (-t).exp() * step).sum();
    // Rounded down to a tenth of a decade it loses a ninth.
    assert!((0.85..=1.0).contains(&sum), "{sum}");
    assert!(bet(1e-6) > 20_000.0 && bet(1e-6) < 30_000.0, "{}", bet(1e-6));
    assert_eq!(EValue::of_p(f64::NAN), None);
    assert!(EValue::of_p(0.0) >= EValue::of_p(1e-300), "no larger than a tail can be told");
}

#[test]
fn a_count_where_nothing_is_wrong_is_worth_at_most_one() {
    for (usual, shape) in [(0.01, 3.0), (1.1, 2.0), (3.0, 2.0), (20.0, 3.0), (80.0, 10.0)] {
        // P(0) = (k / (k + m))^k, and each next by its ratio; the tail is what is left.
        let x: f64 = usual / (usual + shape);
        let (mut term, mut below, mut day, mut window) = ((1.0 - x).powf(shape), 0.0, 0.0, 0.0);
        for count in 0..4_000_u32 {
            let tail = 1.0 - below;
            if tail <= 1e-12 {
                break;
            }
            day += term * bet(tail);
            window += term * EValue::of_windows(tail).map_or(0.0, |e| 10_f64.powf(e.log10()));
            below += term;
            term *= x * (f64::from(count) + shape) / (f64::from(count) + 1.0);
        }
        assert!((0.1..=1.0).contains(&day), "{usual} {shape}: {day}");
        assert!(WINDOWS * window <= WINDOWS && window < day, "{usual} {shape}: {window}");
    }
}

#[test]
fn a_sum_is_worth_what_its_levels_are() {
    let e = |score| EValue::of_sum(score, 9_200).map(EValue::log10);
    assert_eq!(e(9_199), None);
    // 0.9 exp(9.2) and 0.09 exp(18.4) more.
    assert_eq!((e(9_200), e(18_399)), (Some(3.9), Some(3.9)), "between two levels nothing is told");
    assert_eq!(e(18_400), Some(6.9));
    assert!(e(i32::MAX).is_some_and(f64::is_finite));
    assert_eq!((EValue::of_sum(5, 0), EValue::of_sum(5, -1)), (None, None));
}

/// e-BH by its definition: how many are chosen at `alpha`, and so from which e-value on.
fn by_definition(log10: &[f64], tested: u64, alpha: f64) -> Vec<bool> {
    let mut sorted = log10.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let chosen = (1..=sorted.len()).rev().find(|k| {
        let enough = (tested as f64 / (*k as f64 * alpha)).log10();
        sorted[k - 1] >= enough
    });
    let least = chosen.map_or(f64::INFINITY, |k| sorted[k - 1]);
    log10.iter().map(|e| *e >= least).collect()
}

proptest! {
    #[test]
    fn the_level_is_the_least_at_which_e_bh_chooses(
        deci in prop::collection::vec(-20_i32..90, 0..40),
        more in 0_u64..100_000,
        alpha in 0.001_f64..0.999,
    ) {
        let e: Vec<f64> = deci.iter().map(|d| f64::from(*d) / 10.0).collect();
        let tested = e.len() as u64 + more;
        let level = levels(&e, tested);
        let chosen = by_definition(&e, tested, alpha);
        for ((level, chosen), e) in level.iter().zip(chosen).zip(&e) {
            // At the very edge the two round apart.
            if (level - alpha).abs() > 1e-9 {
                prop_assert_eq!(*level <= alpha, chosen, "e 10^{} of {} at {}", e, tested, alpha);
            }
            prop_assert!((0.0..=1.0).contains(level));
        }
    }

    #[test]
    fn more_evidence_lowers_levels_and_more_that_was_tested_raises_them(
        deci in prop::collection::vec(-20_i32..90, 1..40),
        place in any::<prop::sample::Index>(),
        more in 0.0_f64..3.0,
        tested in 40_u64..10_000,
    ) {
        let e: Vec<f64> = deci.iter().map(|d| f64::from(*d) / 10.0).collect();
        let before = levels(&e, tested);
        let mut raised = e.clone();
        raised[place.index(e.len())] += more;
        for (now, before) in levels(&raised, tested).iter().zip(&before) {
            prop_assert!(*now <= before + 1e-12);
        }
        for (now, before) in levels(&e, tested + 7).iter().zip(&before) {
            prop_assert!(*now >= before - 1e-12);
        }
        let order: Vec<f64> = e.iter().rev().copied().collect();
        prop_assert_eq!(levels(&order, tested).into_iter().rev().collect::<Vec<_>>(), before);
    }

    #[test]
    fn a_mean_is_never_more_than_the_largest_nor_less_than_its_share(a in -3.0_f64..300.0, b in -3.0_f64..300.0) {
        let (both, one) = (mean_log10(&[a, b], 2.0), mean_log10(&[a], 2.0));
        prop_assert!(both <= a.max(b) + 1e-9 && both >= a.max(b) - 0.302, "{both}");
        prop_assert!((one - (a - 2_f64.log10())).abs() < 1e-9 && one <= both + 1e-9);
    }

    #[test]
    fn groups_are_counted_whatever_order_they_come_in_and_not_far_off(seed in any::<u64>(), groups in 1_u64..3_000) {
        let name = |n: u64| -> [u8; 16] { blake3::hash(&[seed, n].map(u64::to_le_bytes).concat()).as_bytes()[..16].try_into().expect("16") };
        let (mut there, mut back) = (Tested::default(), Tested::default());
        (0..groups).for_each(|n| there.group(7, &name(n)));
        (0..groups).rev().for_each(|n| (0..3).for_each(|_| back.group(7, &name(n))));
        prop_assert_eq!(&there, &back);
        let counted = there.of("group", 7).expect("counted");
        // Three standard errors above, of 3.3 % each, and five more either way.
        prop_assert!(counted + 2 + groups / 12 >= groups && counted < groups + groups / 3 + 20, "{} of {}", counted, groups);
    }
}

/// An alert on a person of the day 100.
fn alert(rule: &str, value: &str, e_value_log10: Option<f64>) -> Alert {
    let day = EpochId(100);
    Alert {
        fingerprint: format!("{rule} {value}"),
        rule: rule.to_owned(),
        rule_version: 1,
        severity: "low".to_owned(),
        subject: Subject { kind: "person".to_owned(), value: value.to_owned(), epoch: Some(day.to_string()) },
        window: SeenWindow { start_ms: day.start_ms(), end_ms: day.start_ms() },
        observed: 2,
        threshold: 1,
        baseline: Baseline { kind: "rule".to_owned(), value: None },
        factor: 2.0,
        evidence: 2,
        counter_evidence: Vec::new(),
        explanation: String::new(),
        data_gaps: Vec::new(),
        first_ms: 0,
        last_ms: 0,
        revision: 1,
        withdrawn: false,
        e_value_log10,
    }
}

#[test]
fn a_person_on_whom_two_channels_speak_has_one_level_by_their_mean() {
    let alerts = [
        alert("slow_bulk", "a", Some(4.0)),
        alert("coordinated_senders", "a", Some(6.0)),
        alert("slow_bulk", "b", Some(4.0)),
        alert("bulk_per_minute", "c", None),
        Alert { withdrawn: true, ..alert("coordinated_senders", "d", Some(9.0)) },
    ];
    let levels = chosen(alerts.iter().filter_map(found), |kind, day| {
        assert_eq!((kind, day), ("person", 100));
        Some(1_000)
    });
    assert_eq!(levels.len(), 3, "a limit has no level, nor has what does not hold: {levels:?}");
    assert_eq!(levels["slow_bulk a"], levels["coordinated_senders a"]);
    // (10^4 + 10^6) / 2 and 10^4 / 2, of a thousand.
    assert!((levels["slow_bulk a"] - 1_000.0 / 505_000.0).abs() < 1e-6, "{levels:?}");
    assert!((levels["slow_bulk b"] - 1_000.0 / (2.0 * 5_000.0)).abs() < 1e-6, "{levels:?}");
    // Where it is not known how many were tested, nothing is chosen.
    assert!(chosen(alerts.iter().filter_map(found), |_, _| None).values().all(|level| *level >= 1.0));
}

#[test]
fn what_was_counted_in_part_is_not_told() {
    let mut counts = Counts::default();
    (0..30).for_each(|n| (0..=n).for_each(|_| counts.add(n)));
    assert_eq!(counts.through(29, 0), Some(30));
    assert_eq!(counts.through(29, TRIAL_DAYS), Some((15..=30).sum()));
    assert_eq!(counts.through(3, TRIAL_DAYS), Some(1 + 2 + 3 + 4), "there was nothing before the beginning");
    counts.begin(10);
    assert_eq!(
        (counts.through(9, 0), counts.through(24, TRIAL_DAYS), counts.through(25, TRIAL_DAYS).is_some()),
        (None, None, true)
    );
    let mut old = Counts::default();
    (0..100).for_each(|n| old.add(n));
    assert_eq!((old.through(59, 0), old.through(60, 0)), (None, Some(1)), "as many days as are kept");
    // Groups: days that are over are told as they were.
    let mut tested = Tested::default();
    (0..9_u8).for_each(|n| (0..=n).for_each(|m| tested.group(n.into(), &[m.wrapping_mul(29); 16])));
    let eighth = tested.of("group", 8);
    assert!(eighth >= Some(9) && tested.groups.len() == 3, "{eighth:?}");
    let first = tested.of("group", 1);
    tested.group(1, &[200; 16]);
    assert!(first >= Some(2) && tested.of("group", 1).is_none(), "what is over is over, and not all of it was counted");
    assert_eq!(tested.of("group", 8), eighth);
    assert_eq!(tested.of("person", 1), None);
}

#[test]
fn what_was_tested_is_saved_and_read() {
    let mut tested = Tested::default();
    for day in 0..6 {
        tested.businesses.add(day);
        tested.group(day, &[day as u8; 16]);
    }
    tested.begin(2);
    let mut out = Writer(Vec::new());
    tested.save(&mut out);
    let mut input = Reader::new(&out.0);
    assert_eq!(Tested::read(&mut input).expect("reads"), tested);
    input.end().expect("all");
    for cut in 0..out.0.len() {
        assert!(Tested::read(&mut Reader::new(&out.0[..cut])).is_err(), "{cut}");
    }
}
