//! Cohorts: who is found together, who is not, and that it does not depend on how rows come.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::cohorts::{Usual, chance, fires, is_improbable, threshold};
use super::tests::{HOUR, MONDAY, Message, crowds, hash, pair, person, restored, rule, saved};
use super::*;

const MINUTE: i64 = 60_000;

/// The name a cohort has on a day.
fn cohort(which: u64, day: i32) -> [u8; 16] {
    person(1_000_000_000 + which, day)
}

/// Tells a message of a member of a cohort, or of nobody's.
fn tell(core: &mut Core<PairFilter>, partition: i32, m: Message, of: Option<u64>) {
    let (day, origin) = (EpochId::of(m.time).0, PartitionId { source: "events".into(), partition });
    let now = Contact {
        time_ms: m.time,
        person: person(m.from, day),
        overlap: false,
        pair: pair(m.from, m.to, day),
        pair_before: pair(m.from, m.to, day - 1),
        account_age_s: Some(86_400),
        cohort: of.map(|which| cohort(which, day)),
        to_new_account: Some(false),
    };
    let copy = Contact { person: person(m.from, day - 1), overlap: true, cohort: of.map(|which| cohort(which, day - 1)), ..now };
    core.contact(&origin, &copy);
    core.contact(&origin, &now);
    let answered = Answered { time_ms: m.time, pair: pair(m.to, m.from, day), pair_before: pair(m.to, m.from, day - 1) };
    core.answered(&origin, &answered);
}

/// Messages and the cohort of their senders, in time order.
type Told = Vec<(Message, Option<u64>)>;

/// So many of a cohort, each with `a_day` strangers over ten hours from `begin`, of whom so many in a hundred answer within minutes.
fn members(which: u64, ids: std::ops::Range<u64>, begin: i64, a_day: i64, percent: u64) -> Told {
    let mut out = Told::new();
    for who in ids {
        for n in 0..a_day {
            let time = begin + n * 10 * HOUR / a_day + (hash([9, who, n as u64, 0]) % 1_200_000) as i64;
            let to = who * 1_000_000 + n as u64 + 1;
            out.push((Message { time, from: who, to }, Some(which)));
            if hash([3, who, n as u64, 7]) % 100 < percent {
                out.push((Message { time: time + 10 * MINUTE, from: to, to: who }, None));
            }
        }
    }
    out
}

/// When each was told first: the watermark's time.
fn run(core: &mut Core<PairFilter>, mut told: Told, partitions: i32) -> BTreeMap<[u8; 16], i64> {
    told.sort_by_key(|(m, _)| (m.time, m.from));
    let mut first = BTreeMap::new();
    for (m, of) in told {
        tell(core, (m.from % partitions as u64) as i32, m, of);
        for found in core.cohorts.found.drain(..).filter(|found| found.stands) {
            first.entry(found.person).or_insert(m.time);
        }
    }
    first
}

fn core() -> Core<PairFilter> {
    let mut core = Core::<PairFilter>::new(rule(), crowds());
    core.sweep = 2;
    core
}

/// Who somebody is under the key of any day.
fn names(who: u64) -> BTreeSet<[u8; 16]> {
    let monday = EpochId::of(MONDAY).0;
    (monday - 1..monday + 9).map(|day| person(who, day)).collect()
}

fn is_told(first: &BTreeMap<[u8; 16], i64>, who: u64) -> Option<i64> {
    names(who).iter().filter_map(|name| first.get(name)).min().copied()
}

/// A clock that goes on after the last message.
fn ticking(until: i64) -> Told {
    (0..(until - MONDAY) / (10 * MINUTE)).map(|n| (Message { time: MONDAY + n * 10 * MINUTE, from: 1, to: 2 }, None)).collect()
}

#[test]
fn fifty_with_ten_strangers_a_day_are_found_within_hours_however_diluted() {
    // The more of those who are registered with them write to many, too, the later.
    for (innocents, within_h, at_least) in [(0, 8, 45), (250, 8, 45), (500, 12, 45)] {
        let begin = MONDAY + 7 * HOUR;
        let mut told = members(1, 1_000..1_050, begin, 10, 0);
        // Every tenth writes to as many new people, and all are answered as often as others.
        told.extend(members(1, 2_000..2_000 + innocents / 10, begin, 10, 40));
        told.extend(members(1, 3_000..3_000 + innocents - innocents / 10, begin, 2, 40));
        told.extend(ticking(begin + 14 * HOUR));
        let first = run(&mut core(), told, 1);
        let soon = (1_000..1_050).filter(|who| is_told(&first, *who).is_some_and(|at| at <= begin + within_h * HOUR)).count();
        assert!(soon >= at_least, "{innocents} innocents: {soon}");
        let told_of = |ids: std::ops::Range<u64>| ids.filter(|who| is_told(&first, *who).is_some()).count();
        assert_eq!(told_of(3_000..3_500), 0, "two strangers a day are no evidence");
        assert!(told_of(2_000..2_050) as u64 <= innocents / 50, "{innocents}: {}", told_of(2_000..2_050));
    }
}

#[test]
fn a_class_of_newcomers_who_are_answered_is_silent_however_many() {
    for size in [30, 60, 120] {
        let mut told = members(1, 1_000..1_000 + size, MONDAY + 7 * HOUR, 10, 40);
        told.extend(ticking(MONDAY + 2 * DAY_MS));
        assert!(run(&mut core(), told, 1).is_empty(), "{size}");
    }
    // Who writes to many is answered less than who writes to a friend or two, of whom there are more.
    let mut unequal = members(1, 1_000..1_060, MONDAY + 7 * HOUR, 10, 25);
    unequal.extend(members(1, 5_000..5_300, MONDAY + 7 * HOUR, 2, 60));
    unequal.extend(ticking(MONDAY + 2 * DAY_MS));
    assert!(run(&mut core(), unequal, 1).is_empty());
    // Half of the answers come after the hour, and more of the class turn up every few hours.
    let mut late = Told::new();
    for (wave, hour) in [7, 10, 13, 16].into_iter().enumerate() {
        let first = 1_000 + 100 * wave as u64;
        let of_wave = members(1, first..first + 25, MONDAY + hour * HOUR, 8, 25);
        let answers: Vec<_> = of_wave.iter().filter(|(m, of)| of.is_some() && hash([8, m.from, m.to, 0]) % 100 < 25).collect();
        late.extend(answers.iter().map(|(m, _)| (Message { time: m.time + 3 * HOUR, from: m.to, to: m.from }, None)));
        late.extend(of_wave);
    }
    late.extend(ticking(MONDAY + 2 * DAY_MS));
    assert!(run(&mut core(), late, 1).is_empty());
}

#[test]
fn nine_are_too_few_and_those_of_no_cohort_are_looked_at_as_ever() {
    let mut nine = members(1, 1_000..1_009, MONDAY + 7 * HOUR, 10, 0);
    nine.extend(ticking(MONDAY + DAY_MS));
    assert!(run(&mut core(), nine, 1).is_empty());
    let strangers: Told = members(1, 1_000..1_050, MONDAY + 7 * HOUR, 10, 0).into_iter().map(|(m, _)| (m, None)).collect();
    let mut core = core();
    assert!(run(&mut core, strangers.into_iter().chain(ticking(MONDAY + DAY_MS)).collect(), 1).is_empty());
    assert_eq!((core.cohorts.members.len(), core.cohorts.all.len()), (0, 0));
}

#[test]
fn a_cohort_goes_on_over_midnight_and_is_forgotten_after_two_days_of_silence() {
    let begin = MONDAY + 19 * HOUR;
    let mut told = members(1, 1_000..1_040, begin, 10, 0);
    told.extend(ticking(MONDAY + 8 * DAY_MS));
    let mut core = core();
    let first = run(&mut core, told, 1);
    let soon = (1_000..1_040).filter(|who| is_told(&first, *who).is_some_and(|at| at <= begin + 9 * HOUR)).count();
    assert!(soon >= 36, "{soon}: evidence of the evening counts after midnight");
    assert!(core.cohorts.members.is_empty() && core.cohorts.all.is_empty() && core.cohorts.names.is_empty());
    assert!(core.cohorts.joined.is_empty());
}

#[test]
fn who_joins_in_after_midnight_is_of_the_same_cohort_as_who_began_before() {
    let halves = |with_second: bool| {
        let mut told = members(1, 1_000..1_009, MONDAY + 19 * HOUR, 12, 0);
        if with_second {
            told.extend(members(1, 2_000..2_009, MONDAY + DAY_MS + HOUR / 2, 12, 0));
        }
        told.extend(ticking(MONDAY + 2 * DAY_MS));
        run(&mut core(), told, 1)
    };
    assert!(halves(false).is_empty(), "nine are too few");
    let first = halves(true);
    let told = (1_000..1_009).chain(2_000..2_009).filter(|who| is_told(&first, *who).is_some()).count();
    assert!(told >= 17, "{told} of 18");
}

#[test]
fn answers_that_come_after_the_hour_take_evidence_back() {
    let begin = MONDAY + 7 * HOUR;
    let mut told = members(1, 1_000..1_050, begin, 10, 0);
    let late: Told = told.iter().map(|(m, _)| (Message { time: m.time + 3 * HOUR, from: m.to, to: m.from }, None)).collect();
    told.extend(late);
    told.extend(ticking(begin + 36 * HOUR));
    let mut core = core();
    run(&mut core, told, 1);
    assert!(
        core.cohorts.members.values().all(|m| (m.contacts, m.soon, m.answered) == (10, 0, 10)),
        "all were answered within the day"
    );
    let counted: Vec<_> = core.cohorts.all.values().map(|c| (c.contacts, c.soon, c.evident, c.members[9])).collect();
    assert_eq!(counted, [(500, 0, 0, 50)]);
}

#[test]
fn who_is_answered_after_the_hour_is_taken_back_when_it_is_and_those_beside_it_are_not() {
    let begin = MONDAY + 7 * HOUR;
    let mut told = members(1, 1_000..1_040, begin, 10, 0);
    // Ten more are answered, all of them three hours later.
    let slowly = members(1, 2_000..2_010, begin, 10, 0);
    told.extend(slowly.iter().map(|(m, _)| (Message { time: m.time + 3 * HOUR, from: m.to, to: m.from }, None)));
    told.extend(slowly);
    told.extend(ticking(begin + 20 * HOUR));
    told.sort_by_key(|(m, _)| (m.time, m.from));
    let mut core = core();
    let (mut now, mut back) = (BTreeMap::new(), BTreeMap::new());
    for (m, of) in told {
        tell(&mut core, 0, m, of);
        for found in core.cohorts.found.drain(..) {
            if now.insert(found.person, found.stands) == Some(true) && !found.stands {
                back.insert(found.person, m.time);
            }
        }
    }
    let stand = |ids: std::ops::Range<u64>| ids.filter(|who| names(*who).iter().any(|n| now.get(n) == Some(&true))).count();
    assert!(stand(1_000..1_040) >= 38, "{}", stand(1_000..1_040));
    assert_eq!(stand(2_000..2_010), 0, "whoever was told of is taken back");
    // At the answer, not a day after the contact; who is found at the fifth contact is answered three hours after the first.
    assert!(back.values().all(|at| *at < begin + 15 * HOUR), "{:?}", back.values());
    assert!(core.late_answers.values().all(|late| late.is_counted) && core.late_answers.len() == 100);
}

#[test]
fn what_has_fired_stands_for_as_long_as_there_are_more_than_chance_makes_and_no_longer() {
    let rule = crate::Rules::detectors().expect("reviewed").coordinated_senders;
    let crowd = |evident: u32, members: u32, usual_centi: u32, stands: bool| Crowd {
        person: [7; 16],
        epoch: 20_458,
        contacts: 5,
        answered: 0,
        members,
        evident,
        rate_permille: 300,
        usual_centi,
        own_chance_permille: 300,
        first_ms: MONDAY,
        last_ms: MONDAY + HOUR,
        stands,
        is_silent: false,
        e_value: None,
    };
    let (mut alerts, mut changed) = (BTreeMap::new(), BTreeSet::new());
    let mut told = |crowd: Crowd| {
        crate::judge::crowd(&mut alerts, &mut changed, &rule, &crowd);
        alerts.values().next().expect("one").clone()
    };
    assert!(told(crowd(28, 40, 1_200, true)).stands());
    // Twenty innocents beside them: it would not fire anew, and holds.
    assert!(threshold(60, 18.0, &rule) > 28 && told(crowd(28, 60, 1_800, true)).stands());
    let back = told(crowd(9, 60, 1_800, false));
    assert!(!back.stands() && back.explanation.starts_with("No longer holds: no more of those"), "{}", back.explanation);
    assert!(told(crowd(30, 60, 1_800, true)).stands(), "and may come again");
    // All but one of thirty are answered in the night: the last alone is no crowd, though nobody writes any more.
    let begin = MONDAY + 7 * HOUR;
    let thirty = members(1, 1_000..1_030, begin, 10, 0);
    let mut told: Told = thirty
        .iter()
        .filter(|(m, _)| m.from < 1_029)
        .map(|(m, _)| (Message { time: m.time + 14 * HOUR, from: m.to, to: m.from }, None))
        .collect();
    told.extend(thirty);
    told.extend(ticking(begin + 40 * HOUR));
    told.sort_by_key(|(m, _)| (m.time, m.from));
    let (mut core, mut now, mut ever) = (core(), BTreeMap::new(), 0);
    for (m, of) in told {
        tell(&mut core, 0, m, of);
        for found in core.cohorts.found.drain(..) {
            ever += usize::from(found.stands);
            now.insert(found.person, found.stands);
        }
    }
    assert!(ever >= 30 && now.len() >= 30, "{ever}");
    assert!(now.values().all(|stands| !stands), "{:?}", now.values());
}

#[test]
fn who_writes_to_new_accounts_is_not_held_responsible_for_their_silence() {
    let messages = super::tests::sender(7, 40, 5, 0);
    for (to_new_account, is_found) in [(Some(true), false), (Some(false), true), (None, true)] {
        let mut core = core();
        for m in &messages {
            let (day, origin) = (EpochId::of(m.time).0, PartitionId { source: "events".into(), partition: 0 });
            let now = Contact {
                time_ms: m.time,
                person: person(7, day),
                overlap: false,
                pair: pair(7, m.to, day),
                pair_before: pair(7, m.to, day - 1),
                account_age_s: None,
                cohort: None,
                to_new_account,
            };
            core.contact(&origin, &Contact { person: person(7, day - 1), overlap: true, ..now });
            core.contact(&origin, &now);
        }
        assert_eq!(!core.found.is_empty(), is_found, "{to_new_account:?}");
    }
}

#[test]
fn the_chance_is_the_beta_binomials_and_the_threshold_the_least_that_is_improbable() {
    // By integrating over the member's own share, in place of the recurrence.
    let ln_beta = |a: f64, b: f64| statrs::function::beta::ln_beta(a, b);
    let choose = |n: u32, k: u32| (0..k).map(|i| f64::from(n - i) / f64::from(k - i)).product::<f64>();
    for (contacts, at_most, rate, spread) in [(5, 0, 0.2, 4.0), (10, 1, 0.4, 4.0), (24, 2, 0.12, 8.0), (19, 1, 0.7, 2.5)] {
        let (a, b) = (rate * spread, (1.0 - rate) * spread);
        let term = |k: u32| {
            let (k_, rest) = (f64::from(k), f64::from(contacts - k));
            choose(contacts, k) * (ln_beta(a + k_, b + rest) - ln_beta(a, b)).exp()
        };
        let expected: f64 = (0..=at_most).map(term).sum();
        assert!((chance(contacts, at_most, rate, spread) - expected).abs() < 1e-12, "{contacts} {at_most}");
        assert!(chance(contacts, contacts, rate, spread) > 1.0 - 1e-9);
    }
    let exactly = |k: u32, n: u32, p: f64| -> f64 {
        (k..=n).map(|j| choose(n, j) * p.powf(f64::from(j)) * (1.0 - p).powf(f64::from(n - j))).sum()
    };
    let rule = crowds();
    // More than are alike say no more: ten times as many of ten times as many are as improbable.
    for evident in 20..60 {
        let of = |times: u32| is_improbable(evident * times, 100 * times, 20.0 * f64::from(times), &rule);
        assert_eq!(of(1), of(10), "{evident}");
    }
    assert!(is_improbable(60, 100, 20.0, &rule) && !is_improbable(30, 100, 20.0, &rule));
    for members in [12, 50, 80] {
        for usual in [0.3, 2.0, 6.5] {
            let least = threshold(members, usual, &rule);
            let p = usual / f64::from(members);
            let expected = (rule.members..=members).find(|k| exactly(*k, members, p) <= rule.tail);
            assert_eq!(least, expected.unwrap_or(members), "{members} {usual}");
            assert!(!is_improbable(0, members, usual, &rule));
        }
    }
}

#[test]
fn how_often_a_class_is_told_that_is_answered_less_than_others() {
    let usual = Usual { p0_permille: 180, q_permille: 300 };
    let draw = |parts: [u64; 4]| (hash(parts) >> 11) as f64 / (1_u64 << 53) as f64;
    let told = |rate: f64, lights: usize| {
        (0..200_u64)
            .filter(|class| {
                let many = (0..60_u64)
                    .map(|who| {
                        let u = draw([21, *class, who, 0]).clamp(1e-9, 1.0 - 1e-9);
                        let own = statrs::function::beta::inv_beta_reg(rate * 4.0, (1.0 - rate) * 4.0, u);
                        (10, (0..10).filter(|n| draw([22, *class, who, *n]) < own).count() as u16)
                    })
                    // Who writes to four friends, and is answered by three.
                    .chain(std::iter::repeat_n((4, 3), lights));
                let members: Vec<(u16, u16)> = many.collect();
                fires(&members, usual, &crowds())
            })
            .count()
    };
    let [as_usual, half, third] = [0.3, 0.15, 0.1].map(|rate| told(rate, 0));
    eprintln!("of 200 classes each: {as_usual} at 30 %, {half} at 15 %, {third} at 10 %");
    assert_eq!((as_usual, half), (0, 0), "half of what is usual is told of nobody");
    assert!(third <= 20, "{third} of 200 at a third of what is usual");
    let beside = told(0.2, 600);
    assert!(beside <= 20, "{beside} of 200: who writes to few and is answered raises nothing beyond what is usual");
    // And whom it is for, at the same look.
    assert!(fires(&[(10, 0); 45], usual, &crowds()));
}

#[test]
fn no_more_members_are_held_than_the_rule_allows() {
    let mut told = members(1, 1_000..1_100, MONDAY + 7 * HOUR, 10, 0);
    told.extend(ticking(MONDAY + DAY_MS));
    let mut core = Core::<PairFilter>::new(rule(), Coordinated { most_members: 20, ..crowds() });
    core.sweep = 2;
    run(&mut core, told, 1);
    assert_eq!(core.cohorts.members.len(), 20);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Partitions that are read one ahead of the other, an hour at most, and a save and a restore in between, change nothing of who is told as what.
    #[test]
    fn i9_who_is_found_does_not_depend_on_how_partitions_interleave_or_on_a_restart(
        ahead in proptest::collection::vec(0..50_i64, 4), begin in 0..24_i64, cut in 0..4_000_usize, percent in 0..4_u64,
    ) {
        let mut told = members(1, 1_000..1_030, MONDAY + begin * HOUR, 10, percent);
        told.extend(members(2, 2_000..2_030, MONDAY + begin * HOUR, 8, percent));
        for partition in 0..4 {
            // Each partition has a clock of its own; numbers of four bits less are nobody's.
            let tick = |n: i64| Message { time: MONDAY + n * 10 * MINUTE, from: 4 + partition, to: 2 };
            told.extend((0..(3 * DAY_MS) / (10 * MINUTE)).map(|n| (tick(n), None)));
        }
        told.sort_by_key(|(m, _)| (m.time, m.from));
        let all = |order: &Told, cut: usize| {
            let mut slow = SlowSenders { core: core() };
            slow.expect((0..4).map(|p| PartitionId { source: "events".into(), partition: p }).collect::<Vec<_>>().iter());
            let mut found = BTreeSet::new();
            for (place, (m, of)) in order.iter().enumerate() {
                if place == cut {
                    let bytes = saved(&slow);
                    slow = restored(&crate::rules::Rules::detectors().expect("rules"), &bytes);
                    assert_eq!(saved(&slow), bytes);
                }
                // A conversation stays in one partition, so that an answer comes behind its contact.
                let of_pair = if m.from > 1_000_000 { m.to } else { m.from };
                tell(&mut slow.core, (of_pair % 4) as i32, *m, *of);
                found.extend(slow.take_crowds().iter().map(|c| format!("{c:?}")));
            }
            found
        };
        let straight = all(&told, usize::MAX);
        let mut shifted = told.clone();
        let of_pair = |m: &Message| if m.from > 1_000_000 { m.to } else { m.from };
        shifted.sort_by_key(|(m, _)| (m.time - ahead[(of_pair(m) % 4) as usize] * MINUTE, of_pair(m) % 4, m.time));
        prop_assert_eq!(&all(&shifted, cut % told.len()), &straight);
        prop_assert!(!straight.is_empty());
    }
}

/// Forty attackers and, of their cohort, five newcomers with six strangers who never answer, all from Monday on; attackers go on for so many days.
fn attack_with_newcomers(days: i64, newcomers: &[(i64, i64)]) -> Told {
    let begin = MONDAY + 7 * HOUR;
    let mut told: Told =
        (0..days).flat_map(|day| with_days_strangers(members(1, 1_000..1_040, begin + day * DAY_MS, 10, 0), day)).collect();
    for (day, a_day) in newcomers {
        told.extend(with_days_strangers(members(1, 2_000..2_005, begin + day * DAY_MS, *a_day, 0), *day));
    }
    told.extend(ticking(begin + 7 * DAY_MS));
    told.sort_by_key(|(m, _)| (m.time, m.from));
    told
}

/// The same messages, to others on each day.
fn with_days_strangers(told: Told, day: i64) -> Told {
    told.into_iter().map(|(m, of)| (Message { to: m.to + 1_000 * day.unsigned_abs(), ..m }, of)).collect()
}

/// What is told of each name at last, and which days' names of somebody were ever told.
fn at_last(core: &mut Core<PairFilter>, told: Told) -> (BTreeMap<[u8; 16], Crowd>, BTreeSet<[u8; 16]>) {
    let (mut now, mut ever) = (BTreeMap::new(), BTreeSet::new());
    for (m, of) in told {
        tell(core, 0, m, of);
        for found in core.cohorts.found.drain(..) {
            if found.stands {
                ever.insert(found.person);
            }
            now.insert(found.person, found);
        }
    }
    (now, ever)
}

fn told_names(who: std::ops::Range<u64>, ever: &BTreeSet<[u8; 16]>) -> Vec<[u8; 16]> {
    who.flat_map(names).filter(|name| ever.contains(name)).collect()
}

#[test]
fn who_wrote_to_few_and_then_to_nobody_new_is_taken_back_and_who_goes_on_is_not() {
    // Six strangers on Monday; or four and four, on two days, under two names.
    for (newcomers, days) in [(vec![(0, 6)], 1), (vec![(0, 6), (1, 2)], 2)] {
        let (now, ever) = at_last(&mut core(), attack_with_newcomers(4, &newcomers));
        let theirs = told_names(2_000..2_005, &ever);
        assert_eq!(theirs.len(), 5 * days, "told under the name of each of {days} days");
        for name in &theirs {
            let last = now.get(name).expect("told");
            assert!(!last.stands && last.is_silent && last.contacts < 10, "{last:?}");
        }
        let attackers = told_names(1_000..1_040, &ever);
        assert!(attackers.len() >= 150 && attackers.iter().all(|name| now.get(name).is_some_and(|last| last.stands)));
    }
    // With ten or more it stands, however silent.
    let (now, ever) = at_last(&mut core(), attack_with_newcomers(1, &[(0, 10)]));
    let theirs = told_names(2_000..2_005, &ever);
    assert!(theirs.len() == 5 && theirs.iter().all(|name| now.get(name).is_some_and(|last| last.stands)));
}

#[test]
fn what_clears_somebody_clears_every_day_it_was_told_of() {
    let mut told = attack_with_newcomers(3, &[(0, 6), (1, 6)]);
    // All whom they wrote to on the second day answer in the night, ten hours later.
    let answers: Told = told
        .iter()
        .filter(|(m, of)| of.is_some() && (2_000..2_005).contains(&m.from) && m.time > MONDAY + DAY_MS)
        .map(|(m, _)| (Message { time: m.time + 10 * HOUR, from: m.to, to: m.from }, None))
        .collect();
    told.extend(answers);
    told.sort_by_key(|(m, _)| (m.time, m.from));
    let (now, ever) = at_last(&mut core(), told);
    let theirs = told_names(2_000..2_005, &ever);
    assert_eq!(theirs.len(), 10, "told on both days");
    assert!(theirs.iter().all(|name| now.get(name).is_some_and(|last| !last.stands && !last.is_silent)), "{now:?}");
}

#[test]
fn names_that_were_told_survive_a_restart() {
    let told = attack_with_newcomers(4, &[(0, 6), (1, 2)]);
    let (straight, _) = at_last(&mut core(), told.clone());
    for cut in [told.len() / 7, told.len() / 3, told.len() / 2] {
        let (first, rest) = told.split_at(cut);
        let mut before = core();
        let (mut now, _) = at_last(&mut before, first.to_vec());
        let rules = crate::Rules::detectors().expect("reviewed");
        let rules = crate::Rules { slow_bulk: rule(), coordinated_senders: crowds(), ..rules };
        let mut after = restored(&rules, &saved(&SlowSenders { core: before }));
        now.extend(at_last(&mut after.core, rest.to_vec()).0);
        assert_eq!(now, straight, "cut at {cut}");
    }
}
