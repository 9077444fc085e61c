//! The reply test over people who are made up; `trace.rs` has those who are not.

use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;

use super::*;
use crate::rules::Rules;

/// 2026-01-05 00:00 UTC.
pub(super) const MONDAY: i64 = 1_767_571_200_000;
pub(super) const HOUR: i64 = 3_600_000;

pub(super) fn rule() -> SlowBulk {
    Rules::detectors().expect("rules").slow_bulk
}

/// Everything it holds, as the engine saves it.
pub(super) fn saved(slow: &SlowSenders) -> Vec<u8> {
    let mut out = crate::codec::Writer::default();
    slow.save(&mut out);
    slow.save_told(&mut out);
    slow.save_tested(&mut out);
    out.0
}

pub(super) fn restored(rules: &Rules, bytes: &[u8]) -> SlowSenders {
    let mut input = crate::codec::Reader::new(bytes);
    let mut slow = SlowSenders::read(rules, &mut input, true, true).expect("what was saved");
    slow.read_told(&mut input).expect("names");
    slow.read_tested(&mut input).expect("counts");
    input.end().expect("nothing is left");
    slow
}

pub(super) fn crowds() -> Coordinated {
    Rules::detectors().expect("rules").coordinated_senders
}

pub(super) fn hash(parts: [u64; 4]) -> u64 {
    let bytes: Vec<u8> = parts.iter().flat_map(|p| p.to_le_bytes()).collect();
    u64::from_le_bytes(blake3::hash(&bytes).as_bytes()[..8].try_into().expect("8 bytes"))
}

pub(super) fn person(who: u64, day: i32) -> [u8; 16] {
    let half = hash([1, who, day as u64, 0]).to_le_bytes();
    [half, half].concat().try_into().expect("16 bytes")
}

pub(super) fn pair(from: u64, to: u64, day: i32) -> Pair {
    Pair(hash([2, from, to, day as u64]))
}

fn origin(partition: i32) -> PartitionId {
    PartitionId { source: "events".into(), partition }
}

/// A message from one to another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Message {
    pub(super) time: i64,
    pub(super) from: u64,
    pub(super) to: u64,
}

/// As the minimizer would write it: the copy, the contact, the answer.
pub(super) fn tell<F: Seen>(core: &mut Core<F>, partition: i32, m: Message) {
    let (day, origin) = (EpochId::of(m.time).0, origin(partition));
    let contact = Contact {
        time_ms: m.time,
        person: person(m.from, day - 1),
        overlap: true,
        pair: pair(m.from, m.to, day),
        pair_before: pair(m.from, m.to, day - 1),
        account_age_s: Some(40_000_000),
        cohort: None,
        to_new_account: None,
    };
    core.contact(&origin, &contact);
    core.contact(&origin, &Contact { person: person(m.from, day), overlap: false, ..contact });
    let answered = Answered { time_ms: m.time, pair: pair(m.to, m.from, day), pair_before: pair(m.to, m.from, day - 1) };
    core.answered(&origin, &answered);
}

/// Tells them in their order, with everything due judged; more than a day of silence behind them.
fn told<F: Seen>(rule: SlowBulk, messages: &[Message]) -> Core<F> {
    let mut core = Core::<F>::new(rule, crowds());
    core.sweep = 2;
    messages.iter().for_each(|m| tell(&mut core, 0, *m));
    let end = messages.iter().map(|m| m.time).max().unwrap_or(MONDAY) + 27 * HOUR;
    core.reach(&origin(0), end);
    core
}

/// Strangers a day over working hours, of whom so many per cent answer within hours.
pub(super) fn sender(who: u64, a_day: i64, days: i64, percent: u64) -> Vec<Message> {
    let mut out = Vec::new();
    for n in 0..a_day * days {
        let time = MONDAY + n / a_day * DAY_MS + 9 * HOUR + n % a_day * 10 * HOUR / a_day;
        let to = who * 1_000_000 + n as u64 + 1;
        out.push(Message { time, from: who, to });
        if hash([3, who, n as u64, 0]) % 100 < percent {
            out.push(Message { time: time + HOUR * (1 + n % 5), from: to, to: who });
        }
    }
    out.sort_by_key(|m| m.time);
    out
}

/// Who crossed, on which day after Monday it was first told.
fn found(messages: &[Message], who: u64) -> Option<i64> {
    let core = told::<PairFilter>(rule(), messages);
    let day = |c: &Crossing| (c.last_ms + DAY_MS + HOUR - MONDAY).div_euclid(DAY_MS);
    core.found.iter().filter(|c| (0..30).any(|d| c.person == person(who, EpochId::of(MONDAY).0 + d))).map(day).min()
}

#[test]
fn forty_strangers_a_day_and_twelve_are_found_and_four_are_not() {
    let forty = found(&sender(7, 40, 8, 2), 7).expect("40 a day");
    assert!(forty <= 3, "{forty}");
    let twelve = found(&sender(7, 12, 13, 2), 7).expect("12 a day");
    assert!((4..=8).contains(&twelve), "{twelve}");
    assert_eq!(found(&sender(7, 4, 13, 2), 7), None, "below the screen");
}

#[test]
fn who_is_answered_as_others_are_is_silent() {
    assert_eq!(found(&sender(7, 60, 10, 70), 7), None, "a care bot");
    assert_eq!(found(&sender(7, 200, 1, 65), 7), None, "a wedding host's invitations");
    assert_eq!(found(&sender(7, 30, 10, 34), 7), None, "an ordinary one among many");
    // A new phone: everybody is written to once, and many knew it already.
    assert_eq!(found(&sender(7, 80, 1, 40), 7), None);
    // Two hundred at once of whom nobody answers is no wedding.
    assert!(found(&sender(7, 200, 1, 0), 7).is_some());
}

#[test]
fn old_friends_are_no_strangers_however_silent() {
    let mut messages = Vec::new();
    for day in 0..10 {
        for friend in 0..40 {
            let time = MONDAY + day * DAY_MS + 9 * HOUR + friend * 600_000;
            // They wrote to him on Monday morning; he writes to them every day and they stay silent.
            if day == 0 {
                messages.push(Message { time: time - 8 * HOUR, from: 100 + friend as u64, to: 7 });
            }
            messages.push(Message { time, from: 7, to: 100 + friend as u64 });
        }
    }
    messages.sort_by_key(|m| m.time);
    assert_eq!(found(&messages, 7), None);
}

#[test]
fn evidence_is_told_again_by_the_counters() {
    let core = told::<PairFilter>(rule(), &sender(7, 40, 5, 4));
    let last = core.found.last().expect("found");
    let (gain, loss) = increments(last.expected_permille);
    assert_eq!(last.score, last.unanswered as i32 * gain - last.answered as i32 * loss);
    assert!(last.score >= rule().threshold_millinats && last.answered > 0, "{last:?}");
    assert_eq!(core.found.first().map(|c| c.score >= rule().threshold_millinats), Some(true));
}

#[test]
fn a_records_evidence_goes_on_under_the_next_days_pseudonym_only_if_a_copy_ties_them() {
    let messages = sender(7, 12, 13, 0);
    assert!(found(&messages, 7).is_some());
    let mut untied = Core::<PairFilter>::new(rule(), crowds());
    untied.sweep = 2;
    for m in &messages {
        let day = EpochId::of(m.time).0;
        let contact = Contact {
            time_ms: m.time,
            person: person(7, day),
            overlap: false,
            pair: pair(7, m.to, day),
            pair_before: pair(7, m.to, day - 1),
            account_age_s: None,
            cohort: None,
            to_new_account: None,
        };
        untied.contact(&origin(0), &contact);
    }
    assert_eq!(untied.found, [], "twelve are no evidence in one day");
}

#[test]
fn at_zero_a_record_is_erased_and_after_silence_nothing_is_left() {
    let mut messages = sender(7, 40, 2, 100);
    messages.extend(sender(8, 40, 2, 0));
    messages.sort_by_key(|m| m.time);
    let mut core = told::<PairFilter>(rule(), &messages);
    assert!(core.places.len() == 1 && core.suspects.iter().flatten().all(|s| s.answered == 0), "only the unanswered one");
    core.reach(&origin(0), MONDAY + 9 * DAY_MS);
    assert!(core.places.is_empty() && core.waiting.is_empty() && core.filters.is_empty() && core.copies.is_empty());
    assert_eq!(core.free.len(), core.suspects.len(), "every place is free");
}

#[test]
fn tokens_live_for_72_hours_of_the_newest_event_even_if_a_partition_holds_judgement_up() {
    let mut core = Core::<PairFilter>::new(rule(), crowds());
    core.sweep = 2;
    core.reach(&origin(1), MONDAY);
    sender(7, 40, 1, 0).iter().for_each(|m| tell(&mut core, 0, *m));
    core.reach(&origin(0), MONDAY + 3 * DAY_MS - 1);
    assert!(core.waiting.len() > 30 && core.filters.contains_key(&EpochId::of(MONDAY).0), "partition 1 is behind");
    core.reach(&origin(0), MONDAY + 3 * DAY_MS);
    assert!(core.waiting.is_empty() && core.filters.is_empty() && core.found.is_empty());
    // And a row under a dead key is left out, and counted.
    tell(&mut core, 1, Message { time: MONDAY, from: 9, to: 10 });
    assert_eq!((core.late, core.filters.len()), (2, 0));
}

#[test]
fn nobody_is_judged_while_a_live_partition_may_still_bring_the_answers() {
    let mut core = Core::<PairFilter>::new(rule(), crowds());
    core.sweep = 2;
    core.reach(&origin(1), MONDAY);
    sender(7, 90, 2, 0).iter().for_each(|m| tell(&mut core, 0, *m));
    assert_eq!(core.found, []);
    // The other partition catches up with everybody's answers.
    for m in sender(7, 90, 2, 0) {
        tell(&mut core, 1, Message { time: m.time + HOUR, from: m.to, to: 7 });
    }
    for partition in 0..2 {
        core.reach(&origin(partition), MONDAY + 4 * DAY_MS);
    }
    assert_eq!(core.found, []);
    // A partition that is silent for two sweeps holds nobody up.
    let mut core = Core::<PairFilter>::new(rule(), crowds());
    core.sweep = 2;
    core.reach(&origin(1), MONDAY);
    core.sweep = 4;
    sender(7, 90, 3, 0).iter().for_each(|m| tell(&mut core, 0, *m));
    assert!(!core.found.is_empty());
}

#[test]
fn overload_drops_the_least_suspicious_and_counts_them() {
    let crowded = SlowBulk { most_suspects: 20, ..rule() };
    let mut messages = sender(7, 60, 3, 0);
    for who in 100..160 {
        messages.extend(sender(who, 12, 3, 80).into_iter().map(|m| Message { time: m.time + 60_000, ..m }));
    }
    messages.sort_by_key(|m| m.time);
    let core = told::<PairFilter>(crowded, &messages);
    assert!(core.dropped > 20, "{}", core.dropped);
    assert!(core.places.len() <= 20);
    let who: HashSet<[u8; 16]> = core.found.iter().map(|c| c.person).collect();
    assert!(!who.is_empty() && who.iter().all(|p| (0..9).any(|d| *p == person(7, EpochId::of(MONDAY).0 + d))));
    // Every waiting contact has a living owner, and every owner counts its new ones.
    let mut counted = BTreeMap::<usize, u32>::new();
    for waiting in core.waiting.values() {
        let Some(owner) = waiting.owner() else { continue };
        assert!(core.suspects[owner].is_some());
        *counted.entry(owner).or_default() += u32::from(!waiting.has(KNOWN));
    }
    for (place, suspect) in core.suspects.iter().enumerate() {
        assert_eq!(suspect.map_or(0, |s| s.fresh), counted.get(&place).copied().unwrap_or_default());
    }
    let few = SlowBulk { most_waiting: 50, ..rule() };
    assert!(told::<PairFilter>(few, &messages).waiting.len() <= 50);
}

#[test]
fn a_pool_that_an_attacker_fills_moves_the_null_to_its_floor_and_no_further() {
    let p0 = |percent| {
        let messages: Vec<_> = (0..60).flat_map(|who| sender(1000 + who, 60, 4, percent)).collect();
        let mut messages = messages;
        messages.sort_by_key(|m| m.time);
        told::<PairFilter>(SlowBulk { prior_rate: 0.34, ..rule() }, &messages).pools[3].p0_permille
    };
    let (silent, lively) = (p0(0), p0(95));
    assert!((100..204).contains(&silent) && (205..=500).contains(&lively), "{silent} {lively}");
}

/// Exact sets, for comparison.
#[derive(Default)]
struct Exact(HashSet<Pair>);

impl Seen for Exact {
    const ERRS: bool = false;

    fn add(&mut self, pair: Pair) -> bool {
        !self.0.insert(pair)
    }
}

/// Exact sets that now and then take a new pair for seen: far oftener than a filter does.
#[derive(Default)]
struct Errs(Exact);

impl Seen for Errs {
    fn add(&mut self, pair: Pair) -> bool {
        self.0.add(pair) || hash([9, pair.0, 0, 0]) % 100 < 15
    }
}

fn anybody() -> impl Strategy<Value = Vec<Message>> {
    let one = (0_i64..8 * 24 * 60, 0_u64..4, 0_u64..90, 0_u32..10);
    prop::collection::vec(one, 200..900).prop_map(|drawn| {
        let mut out = Vec::new();
        for (minute, from, to, answer) in drawn {
            let time = MONDAY + minute * 60_000;
            let (from, to) = (from + 1, 100 + to);
            out.push(Message { time, from, to });
            if answer < 2 {
                out.push(Message { time: time + 60_000 * 7, from: to, to: from });
            }
        }
        out.sort_by_key(|m| m.time);
        out
    })
}

/// The sum of each person's record at every judgement.
fn scores<F: Seen>(messages: &[Message]) -> Vec<BTreeMap<[u8; 16], i32>> {
    // The null is fixed, so that only the sets differ.
    let fixed = SlowBulk { least_null: 0.2, most_null: 0.2, threshold_millinats: 1_000_000, ..rule() };
    let mut core = Core::<F>::new(fixed, crowds());
    core.sweep = 2;
    let end = MONDAY + 11 * DAY_MS;
    let mut out = Vec::new();
    for m in messages {
        tell(&mut core, 0, *m);
        out.push(core.suspects.iter().flatten().map(|s| (s.person, s.score)).collect());
    }
    core.reach(&origin(0), end);
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_filters_error_never_adds_evidence(messages in anybody()) {
        let (exact, errs) = (scores::<Exact>(&messages), scores::<Errs>(&messages));
        prop_assert!(exact.iter().any(|s| s.values().any(|v| *v > 0)), "there is evidence at all");
        for (exact, errs) in exact.iter().zip(&errs) {
            for (person, score) in errs {
                let most = exact.get(person).copied().unwrap_or_default();
                prop_assert!(*score <= most, "{score} where exact sets give {most}");
            }
        }
    }

    #[test]
    fn i9_neither_interleaving_nor_lateness_changes_what_is_found(seed: u64) {
        let mut senders: Vec<Vec<Message>> =
            [(7, 40, 5, 2), (8, 12, 6, 40), (9, 30, 5, 30)].map(|(who, n, days, p)| sender(who, n, days, p)).into();
        let mut in_order: Vec<Message> = senders.concat();
        in_order.sort_by_key(|m| (m.time, m.from));
        let expected = told::<PairFilter>(rule(), &in_order).found;
        prop_assert!(!expected.is_empty());
        // Any interleaving of people in which nobody is more than 50 minutes ahead of the slowest.
        let mut core = Core::<PairFilter>::new(rule(), crowds());
        core.sweep = 2;
        let mut state = seed | 1;
        senders.iter_mut().for_each(|s| s.reverse());
        while senders.iter().any(|s| !s.is_empty()) {
            let slowest = senders.iter().filter_map(|s| s.last()).map(|m| m.time).min().unwrap_or_default();
            let ready: Vec<usize> = senders
                .iter()
                .enumerate()
                .filter(|(_, s)| s.last().is_some_and(|m| m.time <= slowest + 50 * 60_000))
                .map(|(i, _)| i)
                .collect();
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let chosen = ready[(state >> 33) as usize % ready.len()];
            let message = senders[chosen].pop().expect("one");
            tell(&mut core, chosen as i32, message);
        }
        for partition in 0..3 {
            core.reach(&origin(partition), in_order.last().expect("some").time + 27 * HOUR);
        }
        let sorted = |mut found: Vec<Crossing>| { found.sort_by_key(|c| (c.person, c.last_ms, c.unanswered)); found };
        prop_assert_eq!(sorted(core.found), sorted(expected));
    }

    #[test]
    fn i9_a_detector_restored_anywhere_goes_on_as_if_nothing_had_happened(cut in 0_usize..500) {
        let mut messages = sender(7, 40, 5, 2);
        messages.extend(sender(8, 20, 5, 50));
        // Every other day begins later, and another partition holds judgement up until then: alerts are under the earlier pseudonym.
        for m in &mut messages {
            m.time += (m.time - MONDAY) / DAY_MS % 2 * 3 * HOUR;
        }
        messages.sort_by_key(|m| m.time);
        let tell = |core: &mut Core<PairFilter>, m: Message| {
            tell(core, 0, m);
            core.reach(&origin(1), m.time - 5 * HOUR);
        };
        let mut straight = SlowSenders::new(rule(), crowds());
        straight.sweep();
        straight.sweep();
        let cut = cut.min(messages.len());
        messages[..cut].iter().for_each(|m| tell(&mut straight.core, *m));
        let bytes = saved(&straight);
        let mut restored = restored(&Rules::detectors().expect("rules"), &bytes);
        prop_assert_eq!(saved(&restored), bytes);
        for slow in [&mut straight, &mut restored] {
            messages[cut..].iter().for_each(|m| tell(&mut slow.core, *m));
            slow.core.reach(&origin(0), MONDAY + 9 * DAY_MS);
        }
        prop_assert_eq!(saved(&straight), saved(&restored));
        prop_assert_eq!(straight.take_crossings(), restored.take_crossings());
    }
}

#[test]
fn an_answer_counts_within_24_hours() {
    for (after, counts) in [(DAY_MS, true), (DAY_MS + 1000, false)] {
        let mut core = Core::<PairFilter>::new(SlowBulk { new_a_day: 1, ..rule() }, crowds());
        tell(&mut core, 0, Message { time: MONDAY, from: 7, to: 8 });
        tell(&mut core, 0, Message { time: MONDAY + after, from: 8, to: 7 });
        let waiting = core.waiting.get(&pair(7, 8, EpochId::of(MONDAY).0)).expect("waits");
        assert_eq!(waiting.has(ANSWERED), counts, "{after}");
    }
}

#[test]
fn what_a_token_is_stays_out_of_text() {
    let shown = format!("{:?}", Pair(0xdead_beef));
    assert_eq!(shown, "Pair(..)");
}

#[test]
fn an_alert_names_the_sender_and_says_what_its_counters_say() {
    let mut engine = crate::Engine::new(Rules::detectors().expect("rules"));
    engine.sweep();
    engine.sweep();
    for m in sender(7, 40, 4, 4) {
        tell(&mut engine.slow.core, 0, m);
    }
    let alerts = engine.take_alerts();
    let text = serde_json::to_string_pretty(&alerts).expect("JSON");
    assert!(!alerts.is_empty() && alerts.iter().all(|a| a.rule == "slow_bulk"), "{text}");
    assert!(text.contains("<10 of these contacts were answered"), "{text}");
    let days: HashSet<_> = alerts.iter().map(|a| a.subject.epoch.clone()).collect();
    assert_eq!(days.len(), alerts.len(), "one a day, whatever number of contacts");
    insta::assert_snapshot!("slow_alert", serde_json::to_string_pretty(&alerts[0]).expect("JSON"));
    let saved = engine.snapshot().expect("snapshot");
    let restored = crate::Engine::restore(Rules::detectors().expect("rules"), &saved).expect("restores");
    assert_eq!(restored.snapshot().expect("snapshot"), saved);
    // No token of a pair is in an alert, in any form.
    for m in sender(7, 40, 4, 4) {
        let token = pair(m.from, m.to, EpochId::of(m.time).0).0;
        assert!(!text.contains(&format!("{token:016x}")) && !text.contains(&token.to_string()));
    }
}

#[test]
fn a_state_from_before_slow_senders_goes_on() {
    let engine = crate::Engine::new(Rules::detectors().expect("rules"));
    // As it was: nothing of origins, senders, groups, businesses, alerts and what is to be told or judged.
    let mut old = crate::codec::Writer(b"STARINT\x01".to_vec());
    old.i64(engine.newest_ms);
    old.u32(0);
    (0..7).for_each(|_| old.count(0));
    let mut old = old.0;
    let restored = crate::Engine::restore(Rules::detectors().expect("rules"), &old).expect("the older form");
    assert_eq!(restored.snapshot().expect("snapshot"), engine.snapshot().expect("snapshot"));
    old[7] = 3;
    let error = crate::Engine::restore(Rules::detectors().expect("rules"), &old).expect_err("a later form");
    assert!(error.to_string().contains("version"), "{error}");
}
