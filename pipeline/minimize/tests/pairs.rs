//! Who wrote to whom, as tokens: which there are, which there are not, and what cannot be had from them.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Date32Type, TimestampMillisecondType, UInt8Type, UInt64Type};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use starling_minimize::{Limits, Minimized, Minimizer, keyed_cohort, keyed_pair, keyed_subject};
use starling_schemas::codes::SignalKind::{self, Answered, Contact, MessageSent};
use starling_schemas::event::{self as proto, event::Body};
use starling_schemas::ids::{EpochId, Offset, Purpose};

use common::{ALICE, BOB, DAY, NOON_MS, TestKeys, encoded, event, key, open_context, run, run_with};

const CAROL: &str = "+33612345678";
const COHORTS: [&str; 2] = ["invite-7", "batch-9"];
const MINUTE_MS: i64 = 60_000;

/// A row of a pair, with names in place of pseudonyms and tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    kind: SignalKind,
    time_ms: i64,
    /// Days before [`DAY`].
    before: i32,
    overlap: bool,
    person: Option<String>,
    /// From whom, to whom; under the day of the event and the day before.
    pair: Option<(String, String)>,
    age_s: Option<u64>,
    /// Of the sender, by its name.
    cohort: Option<String>,
    to_new_account: Option<bool>,
}

fn sent(from: &str, to: &str, time_ms: i64) -> proto::Event {
    let message = proto::MessageSent { to_person: to.to_owned(), conversation: 1, ..Default::default() };
    proto::Event { actor: from.to_owned(), event_time_ms: time_ms, ..event(Body::MessageSent(message)) }
}

/// The rows of pairs, told by who has every key.
fn rows(minimized: &Minimized) -> Vec<Row> {
    let people = [ALICE, BOB, CAROL];
    let (mut names, mut pairs, mut cohorts) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for epoch in (DAY.0 - 3..DAY.0 + 3).map(EpochId) {
        for cohort in COHORTS {
            let keyed = keyed_cohort(cohort.as_bytes(), &key(Purpose::Integrity, epoch), epoch);
            cohorts.insert((epoch, keyed.to_vec()), cohort.to_owned());
        }
        for person in people {
            let keyed = keyed_subject(person, &key(Purpose::Integrity, epoch), Purpose::Integrity, epoch).expect("a number");
            names.insert((epoch, keyed.to_vec()), person.to_owned());
            for other in people.into_iter().filter(|other| *other != person) {
                let token = keyed_pair(person, other, &key(Purpose::Pair, epoch), epoch).expect("two numbers");
                pairs.insert((epoch, token.to_vec()), (person.to_owned(), other.to_owned()));
            }
        }
    }
    let column = |name: &str| Arc::clone(minimized.signals.column_by_name(name).expect("a column"));
    let bytes = |name: &str, row| {
        let column = column(name);
        let column = column.as_fixed_size_binary();
        column.is_valid(row).then(|| column.value(row).to_vec())
    };
    let mut out = Vec::new();
    for row in 0..minimized.signals.num_rows() {
        let kind = SignalKind::from_code(column("kind").as_primitive::<UInt8Type>().value(row)).expect("listed");
        let epoch = EpochId(column("epoch").as_primitive::<Date32Type>().value(row));
        let time_ms = column("time").as_primitive::<TimestampMillisecondType>().value(row);
        let day = EpochId::of(time_ms);
        let name = bytes("person", row).map(|keyed| names.get(&(epoch, keyed)).expect("somebody known").clone());
        let pair = bytes("pair", row).map(|token| pairs.get(&(day, token)).expect("a known pair").clone());
        let before = bytes("pair_before", row).map(|t| pairs.get(&(EpochId(day.0 - 1), t)).expect("a known pair").clone());
        assert_eq!(pair, before, "both tokens are of one pair");
        assert_eq!(pair.is_some(), matches!(kind, Contact | Answered));
        let age = column("account_age_s");
        let age = age.as_primitive::<UInt64Type>();
        let new = column("to_new_account");
        let new = new.as_boolean();
        out.push(Row {
            kind,
            time_ms,
            before: DAY.0 - epoch.0,
            overlap: column("overlap").as_boolean().value(row),
            person: name,
            pair,
            age_s: age.is_valid(row).then(|| age.value(row)),
            cohort: bytes("group", row).map(|keyed| cohorts.get(&(epoch, keyed)).expect("a known cohort").clone()),
            to_new_account: new.is_valid(row).then(|| new.value(row)),
        });
    }
    out
}

fn of_pairs(minimized: &Minimized) -> Vec<Row> {
    rows(minimized).into_iter().filter(|row| row.kind != MessageSent).collect()
}

fn row(kind: SignalKind, person: Option<&str>, (from, to): (&str, &str), time_ms: i64) -> Row {
    Row {
        kind,
        time_ms,
        before: DAY.0 - EpochId::of(time_ms).0,
        overlap: false,
        person: person.map(str::to_owned),
        pair: Some((from.to_owned(), to.to_owned())),
        age_s: (kind == Contact).then_some(1_000),
        cohort: None,
        to_new_account: None,
    }
}

fn copy(row: Row) -> Row {
    Row { before: row.before + 1, overlap: true, ..row }
}

#[test]
fn i5_a_message_is_a_contact_of_its_sender_and_an_answer_of_nobody() {
    let contact = row(Contact, Some(ALICE), (ALICE, BOB), NOON_MS);
    let answered = row(Answered, None, (BOB, ALICE), NOON_MS);
    assert_eq!(of_pairs(&run(&[sent(ALICE, BOB, NOON_MS)])), [copy(contact.clone()), contact, answered]);
}

#[test]
fn i5_a_contact_has_its_senders_cohort_and_whether_the_account_written_to_is_new_and_an_answer_has_neither() {
    let with = |cohort: &str, is_new: Option<bool>, time_ms: i64| {
        let mut event = proto::Event { cohort: cohort.as_bytes().to_vec(), ..sent(ALICE, BOB, time_ms) };
        if let Some(Body::MessageSent(message)) = &mut event.body {
            message.to_new_account = is_new;
        }
        event
    };
    for (cohort, is_new) in [("invite-7", Some(true)), ("batch-9", Some(false)), ("", None), ("invite-7", None), ("", Some(true))]
    {
        let named = (!cohort.is_empty()).then(|| cohort.to_owned());
        let contact = Row { cohort: named, to_new_account: is_new, ..row(Contact, Some(ALICE), (ALICE, BOB), NOON_MS) };
        let answered = row(Answered, None, (BOB, ALICE), NOON_MS);
        // The copy has the cohort under the day before's key, as it has the sender: `rows` finds each by its row's epoch.
        assert_eq!(of_pairs(&run(&[with(cohort, is_new, NOON_MS)])), [copy(contact.clone()), contact, answered]);
    }
    // Who is older, or of unknown age, is of no cohort, whatever is said.
    for account_age_s in [Some(30 * 86_400), None] {
        let older = proto::Event { account_age_s, ..with("invite-7", None, NOON_MS) };
        assert!(of_pairs(&run(&[older])).iter().all(|r| r.cohort.is_none()));
    }
    // Of a conversation's other side nothing is taken over, nor of a message that says nothing.
    let messages = [with("invite-7", Some(true), NOON_MS), sent(BOB, ALICE, NOON_MS + 1), sent(ALICE, CAROL, NOON_MS + 2)];
    let told: Vec<_> = of_pairs(&run(&messages)).into_iter().filter(|r| r.kind == Contact && !r.overlap).collect();
    let said: Vec<_> = told.iter().map(|r| (r.person.as_deref(), r.cohort.as_deref(), r.to_new_account)).collect();
    assert_eq!(said, [(Some(ALICE), Some("invite-7"), Some(true)), (Some(BOB), None, None), (Some(ALICE), None, None)]);
    assert!(rows(&run(&messages)).iter().all(|r| r.kind != MessageSent || (r.cohort.is_none() && r.to_new_account.is_none())));
}

#[test]
fn a_conversation_of_a_range_leaves_two_contacts_however_long_it_is_and_an_answer_of_each_message() {
    let at = |minute: i64| NOON_MS + minute * MINUTE_MS;
    let messages: Vec<_> = (0..50).map(|n| if n % 3 == 0 { sent(ALICE, BOB, at(n)) } else { sent(BOB, ALICE, at(n)) }).collect();
    let (there, back) = ((ALICE, BOB), (BOB, ALICE));
    let (alices, bobs) = (row(Contact, Some(ALICE), there, at(0)), row(Contact, Some(BOB), back, at(1)));
    let (contacts, answers): (Vec<_>, Vec<_>) = of_pairs(&run(&messages)).into_iter().partition(|r| r.kind == Contact);
    assert_eq!(contacts, [copy(alices.clone()), alices, copy(bobs.clone()), bobs]);
    let of_each = (0..50).map(|n| row(Answered, None, if n % 3 == 0 { back } else { there }, at(n)));
    assert_eq!(answers, of_each.collect::<Vec<_>>());
}

#[test]
fn another_contact_in_between_is_told_again_and_every_answer_is() {
    let messages = [sent(ALICE, BOB, NOON_MS), sent(ALICE, CAROL, NOON_MS + 1), sent(ALICE, BOB, NOON_MS + 2)];
    let contacts: Vec<_> = of_pairs(&run(&messages)).into_iter().filter(|r| r.kind == Contact && !r.overlap).collect();
    let to = |whom, ms| row(Contact, Some(ALICE), (ALICE, whom), NOON_MS + ms);
    assert_eq!(contacts, [to(BOB, 0), to(CAROL, 1), to(BOB, 2)]);
    let copies = of_pairs(&run(&messages)).iter().filter(|r| r.overlap).count();
    assert_eq!(copies, 1, "one copy ties a sender's days");
    // Out of order, too: an earlier one may be in time where a later one is not.
    let messages = [sent(ALICE, BOB, NOON_MS + 5), sent(ALICE, BOB, NOON_MS + 6), sent(ALICE, BOB, NOON_MS)];
    let times: Vec<_> =
        of_pairs(&run(&messages)).into_iter().filter(|r| r.kind == Answered).map(|r| r.time_ms - NOON_MS).collect();
    assert_eq!(times, [5, 6, 0]);
}

#[test]
fn what_is_not_between_two_people_has_no_pair() {
    let with = |message: proto::MessageSent| event(Body::MessageSent(message));
    let to = |conversation, to_person: &str| proto::MessageSent {
        conversation,
        to_person: to_person.to_owned(),
        ..Default::default()
    };
    let nobodys = proto::Event { actor: String::new(), ..sent(ALICE, BOB, NOON_MS) };
    let call = Body::CallEnded(proto::CallEnded { peer: BOB.into(), kind: 1, duration_s: 61, ..Default::default() });
    let cases = [
        with(to(2, BOB)),
        with(to(3, BOB)),
        with(to(4, BOB)),
        with(to(1, "")),
        with(to(1, "0151 1234567")),
        with(to(1, "+49 (151) 1234.5678")),
        with(proto::MessageSent { to_group: b"g".to_vec(), to_business: "b".into(), ..to(1, "") }),
        nobodys,
        event(call),
    ];
    for (place, event) in cases.into_iter().enumerate() {
        assert_eq!(of_pairs(&run(&[event])), [], "case {place}");
    }
    let unknown_age = proto::Event { account_age_s: None, ..sent(ALICE, BOB, NOON_MS) };
    let ages: Vec<_> = of_pairs(&run(&[unknown_age])).into_iter().map(|r| (r.kind, r.age_s)).collect();
    assert_eq!(ages, [(Contact, None), (Contact, None), (Answered, None)], "who is of unknown age is looked at, too");
    let off = Limits { pairs: false, ..Limits::default() };
    let mut minimizer = Minimizer::new(Arc::new(TestKeys::default()), off);
    minimizer.begin(open_context());
    minimizer.push(Offset(0), &encoded(&sent(ALICE, BOB, NOON_MS))).expect("keys are in order");
    assert_eq!(of_pairs(&minimizer.finish().expect("columns fit")), []);
}

#[test]
fn i7_with_one_of_its_pair_keys_gone_a_message_has_no_tokens_at_all() {
    for epoch in [DAY, EpochId(DAY.0 - 1)] {
        let keys = Arc::new(TestKeys::default());
        keys.destroy(Purpose::Pair, epoch);
        let later = NOON_MS + 2 * 86_400_000;
        let frames = [sent(ALICE, BOB, NOON_MS), sent(ALICE, BOB, later)].map(|e| encoded(&e));
        let found = of_pairs(&run_with(keys, open_context(), &frames));
        assert!(found.len() == 3 && found.iter().all(|r| r.time_ms == later), "{epoch}: {found:?}");
    }
    let keys = Arc::new(TestKeys::default());
    keys.destroy(Purpose::Integrity, DAY);
    assert_eq!(rows(&run_with(keys, open_context(), &[encoded(&sent(ALICE, BOB, NOON_MS))])), [], "nor without a sender");
}

#[test]
fn p2_nobody_who_is_only_written_to_has_a_pseudonym_in_any_row() {
    let quiet: Vec<String> = (0..40).map(|n| format!("4917012345{n:02}")).collect();
    let events: Vec<_> = (0_i64..).zip(&quiet).map(|(n, to)| sent(ALICE, to, NOON_MS + n * MINUTE_MS)).collect();
    let minimized = run(&events);
    let mut held = BTreeSet::new();
    for column in minimized.signals.columns().iter().chain(minimized.clean.columns()) {
        for buffer in column.to_data().buffers() {
            held.extend(buffer.as_slice().windows(8).map(<[u8]>::to_vec));
        }
    }
    for epoch in [DAY.0 - 1, DAY.0].map(EpochId) {
        for purpose in Purpose::ALL {
            for number in &quiet {
                let keyed = keyed_subject(number, &key(purpose, epoch), purpose, epoch).expect("a number");
                assert!(!held.contains(&keyed[..8]) && !held.contains(&keyed[8..]), "{purpose} of a recipient");
            }
        }
        let own = keyed_subject(ALICE, &key(Purpose::Integrity, epoch), Purpose::Integrity, epoch).expect("a number");
        assert!(held.contains(&own[..8]), "the sender is there, so others would have been found");
    }
}

#[test]
fn p16_tokens_of_days_directions_and_keys_share_no_value() {
    let mut seen = BTreeSet::new();
    for epoch in [DAY, EpochId(DAY.0 + 1)] {
        for key in [[7; 32], [8; 32]] {
            for (from, to) in [(ALICE, BOB), (BOB, ALICE), (ALICE, CAROL), (CAROL, ALICE)] {
                assert!(seen.insert(keyed_pair(from, to, &key, epoch)));
            }
        }
    }
    assert_eq!(keyed_pair(ALICE, "+49 151 12345678", &[7; 32], DAY), None, "the same number");
}

#[test]
fn p2_a_repeated_message_does_not_tell_whether_its_recipient_wrote_in_between() {
    let shape = |from: &str, to: &str| {
        let messages = [sent(ALICE, BOB, NOON_MS), sent(from, to, NOON_MS + 1), sent(ALICE, BOB, NOON_MS + 2)];
        without_tokens(&run(&messages), |r| r.time_ms != NOON_MS + 1)
    };
    let kinds: Vec<_> = shape(BOB, ALICE).iter().map(|r| (r.kind, r.time_ms - NOON_MS)).collect();
    assert_eq!(kinds, [(MessageSent, 0), (MessageSent, 2), (Contact, 0), (Contact, 0), (Answered, 0), (Answered, 2)]);
    for (from, to) in [(BOB, CAROL), (CAROL, ALICE), (CAROL, BOB)] {
        assert_eq!(shape(from, to), shape(BOB, ALICE), "{from} to {to}");
    }
}

/// What is seen of rows by who cannot uncover tokens: which there are, in which order, whose and when.
fn without_tokens(minimized: &Minimized, which: impl Fn(&Row) -> bool) -> Vec<Row> {
    rows(minimized).into_iter().filter(which).map(|row| Row { pair: None, ..row }).collect()
}

/// The same message to the other one of the three.
fn to_another(message: &proto::Event) -> proto::Event {
    let Some(Body::MessageSent(to)) = &message.body else { panic!("a message") };
    let others = [ALICE, BOB, CAROL].into_iter().find(|person| *person != message.actor && *person != to.to_person);
    sent(&message.actor, others.expect("a third one"), message.event_time_ms)
}

/// Messages between a few people over two days, nearly in order.
fn messages() -> impl Strategy<Value = Vec<proto::Event>> {
    let people = [ALICE, BOB, CAROL];
    let one = (0..3_usize, 1..3_usize, 0..40_i64, 0..3_i64);
    proptest::collection::vec(one, 0..60).prop_map(move |drawn| {
        let mut at = NOON_MS + 11 * 3_600_000;
        drawn
            .into_iter()
            .map(|(from, further, later, earlier)| {
                at += later * MINUTE_MS;
                sent(people[from], people[(from + further) % 3], at - earlier * MINUTE_MS)
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn what_is_left_out_was_said_before_and_nothing_was_said_in_between(events in messages()) {
        // As if nothing were left out: each message in a range of its own.
        let all: Vec<Row> = events.iter().flat_map(|e| of_pairs(&run(std::slice::from_ref(e)))).collect();
        let told = of_pairs(&run(&events));
        let (mut left, mut said) = (told.iter().peekable(), Vec::<&Row>::new());
        for row in &all {
            if left.next_if_eq(&row).is_some() {
                said.push(row);
                continue;
            }
            let same = |r: &&Row| r.kind == row.kind && r.overlap == row.overlap && r.before == row.before;
            let is_idle = match row.kind {
                _ if row.overlap => said.iter().any(|r| same(r) && r.person == row.person),
                Contact => said.iter().rev().find(|r| same(r) && r.person == row.person).is_some_and(|r| r.pair == row.pair),
                // An answer is never left out.
                _ => false,
            };
            prop_assert!(is_idle, "{row:?} was left out after {said:?}");
        }
        prop_assert_eq!(left.next(), None, "nothing is told that did not happen, and all in order");
    }

    /// Any messages of any senders may go to somebody else, but for those of one who is spared (or of none): nothing changes but which contacts of the
    /// others are there. So rows without their tokens join nobody.
    #[test]
    fn p2_which_rows_there_are_depends_on_no_other_senders_recipients(
        events in messages(),
        is_other in proptest::collection::vec(any::<bool>(), 60),
        spared in 0..4_usize,
    ) {
        let spared = [ALICE, BOB, CAROL].get(spared).copied();
        let mut changed = BTreeSet::new();
        let otherwise: Vec<_> = events.iter().zip(is_other).map(|(event, is_other)| {
            if !is_other || Some(event.actor.as_str()) == spared {
                return event.clone();
            }
            changed.insert(event.actor.clone());
            to_another(event)
        }).collect();
        let is_steady = |r: &Row| r.kind != Contact || r.overlap || r.person.as_ref().is_some_and(|p| !changed.contains(p));
        prop_assert_eq!(without_tokens(&run(&events), is_steady), without_tokens(&run(&otherwise), is_steady));
    }

    #[test]
    fn p2_every_message_has_one_answer_at_its_time(events in messages()) {
        let answers: Vec<_> = of_pairs(&run(&events)).into_iter().filter(|r| r.kind == Answered).map(|r| r.time_ms).collect();
        prop_assert_eq!(answers, events.iter().map(|e| e.event_time_ms).collect::<Vec<_>>());
    }
}
