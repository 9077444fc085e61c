//! What the reply test and cohorts say where nothing is wrong, as bets: on average at most one.

use super::cohorts::{Cohorts, Usual};
use super::parts::Suspect;
use super::tests::{HOUR, MONDAY, Message, crowds, hash, person, rule, sender, tell};
use super::*;
use crate::evidence::EValue;

/// From 0 to 1, the same for the same.
fn chance(parts: [u64; 4]) -> f64 {
    (hash(parts) >> 11) as f64 / (1_u64 << 53) as f64
}

fn worth(e: Option<EValue>) -> f64 {
    e.map_or(0.0, |e| 10_f64.powf(e.log10()))
}

/// The mean, and how far it may be off: four standard errors.
fn mean(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean, 4.0 * (variance / n).sqrt())
}

/// What trials of senders are worth who are answered with a probability of so many thousandths, contact by contact, where the rule alerts at `threshold`.
fn trials(answered_permille: u64, p0_permille: u16, threshold: i32) -> Vec<f64> {
    let mut worths = Vec::new();
    for who in 0..4_000_u64 {
        let mut suspect = Suspect::new([0; 16], 0);
        let mut highest = 0;
        for n in 0..200_u32 {
            let was_answered = hash([31, who, n.into(), answered_permille]) % 1_000 < answered_permille;
            let begins = suspect.judge(1_000 + n, was_answered, p0_permille);
            if begins && n > 0 {
                worths.push(worth(EValue::of_sum(highest, threshold)));
                highest = 0;
            }
            highest = highest.max(suspect.score);
        }
        worths.push(worth(EValue::of_sum(highest, threshold)));
    }
    worths
}

#[test]
fn a_trial_of_who_is_answered_as_often_as_is_usual_is_worth_at_most_one() {
    for p0_permille in [100, 200, 460] {
        for threshold in [1_500, 2_500] {
            let (at_null, error) = mean(&trials(p0_permille.into(), p0_permille, threshold));
            assert!(at_null <= 1.0 + error && error < 0.3, "{p0_permille} {threshold}: {at_null} ± {error}");
            assert!(at_null > 0.2, "{p0_permille} {threshold}: {at_null} would find nobody");
            let (better, error) = mean(&trials((p0_permille + 100).into(), p0_permille, threshold));
            assert!(better <= 1.0 + error && better < at_null, "{p0_permille} {threshold}: {better}");
            let (worse, _) = mean(&trials(u64::from(p0_permille) / 5, p0_permille, threshold));
            assert!(worse > 1.5 * at_null, "{p0_permille} {threshold}: {worse}, of one whom a fifth of that answers");
        }
    }
}

#[test]
fn each_new_contact_at_zero_is_a_trial_and_no_other() {
    let of = |messages: &[Message]| {
        let mut core = Core::<super::PairFilter>::new(rule(), crowds());
        core.sweep = 2;
        messages.iter().for_each(|m| tell(&mut core, 0, *m));
        core.reach(
            &PartitionId { source: "events".into(), partition: 0 },
            messages.iter().map(|m| m.time).max().unwrap_or(0) + 27 * HOUR,
        );
        let monday = EpochId::of(MONDAY).0;
        (0..3).map(|day| crate::evidence::people_tested(&core.trials, &core.cohorts.tested, monday + day).expect("counted")).max()
    };
    // The screen lets the fifth through.
    assert_eq!(of(&sender(7, 40, 1, 0)), Some(1), "nobody answers: one that goes on");
    assert_eq!(of(&sender(7, 40, 1, 100)), Some(36), "everybody does: each ends at once");
    assert_eq!(of(&sender(7, 4, 1, 0)), Some(0), "below the screen");
    // Who answers is asked nothing; and each goes by its own contacts.
    let two: Vec<Message> = {
        let mut all = [sender(7, 40, 1, 100), sender(8, 40, 1, 0)].concat();
        all.sort_by_key(|m| m.time);
        all
    };
    assert_eq!(of(&two), Some(37));
}

/// The most that any member is told at of a class of so many, each with ten contacts in turn, of whom each member's own share answers: beta-distributed around
/// three in ten, by Pólya's urn.
fn class(which: u64, members: u64) -> (f64, u64) {
    let rule = crate::rules::Coordinated { members: 3, tail: 1.0, ..crowds() };
    let (spread, usual) = (rule.spread, Usual { p0_permille: 300, q_permille: 300 });
    let mut cohorts = Cohorts::new(rule);
    let day = EpochId::of(MONDAY).0;
    cohorts.begin(day, usual);
    let (mut answered, mut most, mut tested) = (vec![0.0; members as usize], 0.0_f64, 0);
    for turn in 0..10_u32 {
        for (who, answered) in (0..members).zip(&mut answered) {
            let name = person(which * 1_000 + who, day);
            cohorts.note(name, person(which, day - 1), day);
            let share = (0.3 * spread + *answered) / (spread + f64::from(turn));
            let was = chance([41, which, who, turn.into()]) < share;
            *answered += f64::from(u8::from(was));
            cohorts.first_hour(&name, super::seconds(MONDAY) + turn * 600 + who as u32, was, usual);
            for crowd in cohorts.found.drain(..) {
                assert_eq!(crowd.e_value.is_some(), crowd.stands);
                most = most.max(worth(crowd.e_value));
            }
        }
        tested = crate::evidence::people_tested(&Counts::default(), &cohorts.tested, day).expect("counted");
    }
    (most, tested)
}

#[test]
fn a_class_that_is_answered_as_the_model_says_is_worth_at_most_one_whenever_it_is_looked_at() {
    let worths: Vec<f64> = (0..400)
        .map(|which| class(which, 20))
        .map(|(most, tested)| {
            assert_eq!(tested, 20, "each once a day");
            most
        })
        .collect();
    let (mean, error) = mean(&worths);
    assert!(mean <= 1.0 + error, "{mean} ± {error}");
    // Looked at whenever one likes, it is a p-value that is calibrated: see `of_looks`. The mean is made by what is too rare to be drawn here.
    for p in [0.05, 0.2] {
        let least = worth(EValue::of_p(p));
        let share = worths.iter().filter(|e| **e >= least).count() as f64 / worths.len() as f64;
        // Rounded down to a tenth of a decade, which is a factor of 1.3 in p; four standard errors.
        assert!(share <= 1.3 * p + 4.0 * (p / worths.len() as f64).sqrt(), "{p}: {share}");
    }
    assert!(worths.iter().filter(|e| **e > 0.0).count() > 100, "{mean}: nobody was looked at");
}

#[test]
fn answers_are_not_told_by_what_a_sum_is_worth() {
    // Of one number of unanswered contacts, any number of answers between two levels has one value.
    let (gain, loss) = increments(200);
    let of = |answered: i32| EValue::of_sum(200 * gain - answered * loss, 9_200);
    let values: std::collections::BTreeSet<_> = (0..18).map(of).collect();
    assert!(values.len() <= 4, "{values:?}");
}
