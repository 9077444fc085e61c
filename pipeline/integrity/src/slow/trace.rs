//! The reply test on a real log with attackers put into it.
//!
//! The log is the Copenhagen Networks Study's (568 students, 24,333 text messages in 28 days; `tests/data/cns`). Printed figures are kept under
//! `benches/results`.

use std::collections::{BTreeMap, BTreeSet};

use super::tests::{HOUR, MONDAY, Message, crowds, hash, person, rule, tell};
use super::*;

/// Somebody who is put in.
struct Put {
    kind: &'static str,
    is_attacker: bool,
    a_day: i64,
    days: i64,
    /// Of how many in a hundred an answer comes.
    percent: u64,
}

const PUT: [Put; 8] = [
    Put { kind: "40 a day", is_attacker: true, a_day: 40, days: 14, percent: 2 },
    Put { kind: "12 a day", is_attacker: true, a_day: 12, days: 14, percent: 2 },
    Put { kind: "30 a day, 30 % bought replies", is_attacker: true, a_day: 30, days: 14, percent: 30 },
    Put { kind: "30 a day, 15 % bought replies", is_attacker: true, a_day: 30, days: 14, percent: 15 },
    Put { kind: "a care bot, 60 a day, 80 % answer", is_attacker: false, a_day: 60, days: 14, percent: 80 },
    Put { kind: "a wedding host, 200 at once, 65 % answer", is_attacker: false, a_day: 200, days: 1, percent: 65 },
    Put { kind: "a new phone, 80 at once, 45 % answer", is_attacker: false, a_day: 80, days: 1, percent: 45 },
    Put { kind: "a seller, 25 a day, 35 % answer", is_attacker: false, a_day: 25, days: 14, percent: 35 },
];
const OF_EACH: u64 = 20;

fn put(messages: &mut Vec<Message>, begins: &mut BTreeMap<u64, i64>) {
    for (kind, put) in (0_u64..).zip(&PUT) {
        for one in 0..OF_EACH {
            let who = 1_000_000 * (1 + kind * OF_EACH + one);
            let start = MONDAY + (one as i64 % 12) * DAY_MS + 9 * HOUR;
            begins.insert(who, start);
            for n in 0..put.a_day * put.days {
                let jitter = (hash([4, who, n as u64, 0]) % 600_000) as i64;
                let time = start + n / put.a_day * DAY_MS + n % put.a_day * 10 * HOUR / put.a_day + jitter;
                let to = who + n as u64 + 1;
                messages.push(Message { time, from: who, to });
                if hash([5, who, n as u64, 0]) % 100 < put.percent {
                    let after = 60_000 + (hash([6, who, n as u64, 0]) % 36_000_000) as i64;
                    messages.push(Message { time: time + after, from: to, to: who });
                }
            }
        }
    }
}

/// When each was told first, and by which share of its contacts' answers p₀ stood.
fn run(rule: SlowBulk, messages: &[Message]) -> (BTreeMap<[u8; 16], i64>, SlowSenders) {
    let mut slow = SlowSenders::new(rule, crowds());
    slow.sweep();
    slow.sweep();
    let mut first = BTreeMap::new();
    for m in messages {
        tell(&mut slow.core, 0, *m);
        for crossing in slow.take_crossings() {
            first.entry(crossing.person).or_insert(m.time);
        }
    }
    (first, slow)
}

#[test]
fn attackers_in_a_real_log_are_found_and_nobody_else() {
    let log = include_str!("../../../../tests/data/cns/cns_sms.csv");
    let mut real = Vec::new();
    for line in log.lines().skip(1) {
        let numbers: Vec<i64> = line.split(',').map(|n| n.parse().expect("a number")).collect();
        real.push(Message { time: MONDAY + numbers[0] * 1000, from: 1 + numbers[1] as u64, to: 1 + numbers[2] as u64 });
    }
    let people: BTreeSet<u64> = real.iter().flat_map(|m| [m.from, m.to]).collect();
    let days = (0..32).map(|d| EpochId::of(MONDAY).0 + d);
    let names: BTreeMap<[u8; 16], u64> = people.iter().flat_map(|who| days.clone().map(|d| (person(*who, d), *who))).collect();

    let mut begins = BTreeMap::new();
    let mut messages = real.clone();
    put(&mut messages, &mut begins);
    messages.sort_by_key(|m| m.time);
    let put_in: BTreeMap<[u8; 16], u64> = begins.keys().flat_map(|who| days.clone().map(|d| (person(*who, d), *who))).collect();

    for (title, rule) in [
        ("the rule as it stands", rule()),
        ("q as it is in this community (77 % answer): prior_rate 0.77", SlowBulk { prior_rate: 0.77, ..rule() }),
        ("everybody looked at: no screen", SlowBulk { new_a_day: 1, ..rule() }),
        ("a quarter of the evidence needed, no screen", SlowBulk { new_a_day: 1, threshold_millinats: 2300, ..rule() }),
    ] {
        let (first, slow) = run(rule, &messages);
        let alerted: BTreeSet<u64> = first.keys().filter_map(|p| names.get(p)).copied().collect();
        let figures = slow.figures();
        eprintln!("## {title}");
        eprintln!(
            "real people ever alerted: {} of {}; p0 {} of 1000; held at the end: {figures:?}",
            alerted.len(),
            people.len(),
            slow.core.pools[3].p0_permille
        );
        for (kind, put) in (0_u64..).zip(&PUT) {
            let mut hours: Vec<i64> = (0..OF_EACH)
                .filter_map(|one| {
                    let who = 1_000_000 * (1 + kind * OF_EACH + one);
                    first.iter().filter(|(p, _)| put_in.get(*p) == Some(&who)).map(|(_, t)| (t - begins[&who]) / HOUR).min()
                })
                .collect();
            hours.sort_unstable();
            let median = hours.get(hours.len() / 2).map_or("-".to_owned(), |h| format!("{h} h"));
            eprintln!("{:<44} alerted {:>2} of {OF_EACH}, median {median}", put.kind, hours.len());
            if title == "the rule as it stands" {
                match put.kind {
                    "40 a day" | "12 a day" => assert_eq!(hours.len() as u64, OF_EACH, "{}", put.kind),
                    _ if !put.is_attacker => assert_eq!(hours, Vec::<i64>::new(), "{}", put.kind),
                    _ => {}
                }
            }
        }
        if title == "the rule as it stands" {
            assert_eq!(alerted, BTreeSet::new(), "real people");
        }
    }
    // The real people alone, with the null as they themselves make it.
    let (first, slow) = run(SlowBulk { new_a_day: 1, ..rule() }, &real);
    eprintln!("## nobody put in, no screen\nreal people ever alerted: {}; p0 {}", first.len(), slow.core.pools[3].p0_permille);
}
