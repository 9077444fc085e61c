//! Who was there, for hours, weeks and months: those who did something in a clean row and nobody else, under keys of their own.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::AsArray;
use proptest::prelude::*;
use starling_minimize::{Limits, Minimized, Minimizer, RangeContext, keyed_subject};
use starling_schemas::codes::Outcome;
use starling_schemas::event::{self as proto, event::Body};
use starling_schemas::ids::{DAY_MS, EpochId, HOUR_MS, Offset, Purpose, Span, WindowId};
use starling_schemas::rows::PRESENCE_ROWS;

use common::{ALICE, BOB, DAY, NOON_MS, TestKeys, business, encoded, event, key, message, open_context, run, run_with};

type People = BTreeMap<WindowId, Vec<[u8; 16]>>;

fn present(minimized: &Minimized) -> People {
    let mut people = People::new();
    for (window, rows) in &minimized.present {
        assert_eq!(rows.schema_ref(), &*PRESENCE_ROWS, "the person and nothing more");
        assert_ne!(rows.num_rows(), 0);
        let persons = rows.column(0).as_fixed_size_binary().iter();
        let persons = persons.map(|person| person.expect("never null").try_into().expect("16 bytes"));
        assert!(people.insert(*window, persons.collect()).is_none(), "{window} twice");
    }
    people
}

fn person(number: &str, window: WindowId) -> [u8; 16] {
    let purpose = window.span.purpose();
    keyed_subject(number, &key(purpose, window.epoch), purpose, window.epoch).expect("a number")
}

fn at(number: &str, day: i64) -> proto::Event {
    proto::Event { actor: number.to_owned(), event_time_ms: NOON_MS + day * DAY_MS, ..event(message()) }
}

#[test]
fn a_person_is_in_a_week_and_a_month_once_a_day_under_their_own_keys() {
    let minimized = run(&[at(ALICE, 0), at(ALICE, 0), at(BOB, 1), at(ALICE, 1), at(ALICE, 1)]);
    let (week, month) = (Span::Week.of(DAY), Span::Month.of(DAY));
    let found = present(&minimized);
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), [week, month]);
    for (window, mut people) in found {
        let mut expected = vec![person(ALICE, window), person(ALICE, window), person(BOB, window)];
        people.sort_unstable();
        expected.sort_unstable();
        assert_eq!(people, expected, "{window}");
    }
    let days = minimized.clean.column_by_name("person").expect("a column").as_fixed_size_binary();
    let days: BTreeSet<_> = days.iter().flatten().map(<[u8]>::to_vec).collect();
    let long: BTreeSet<_> = present(&minimized).into_values().flatten().map(|person| person.to_vec()).collect();
    assert_eq!((days.len(), long.len()), (3, 4));
    assert!(days.is_disjoint(&long), "nothing ties a day's pseudonym to a week's");
}

/// As [`at`], hours later.
fn hours_later(number: &str, hours: i64) -> proto::Event {
    proto::Event { event_time_ms: NOON_MS + hours * HOUR_MS, ..at(number, 0) }
}

/// Of these hours people are kept.
fn with_hours(after: EpochId) -> RangeContext {
    RangeContext { hours_after: Some(after), ..open_context() }
}

#[test]
fn a_person_is_in_an_hour_once_under_the_hours_own_key_and_two_hours_cannot_be_joined() {
    let noon = DAY.hour_at(12);
    let events = [(ALICE, 0), (BOB, 1), (ALICE, 0), (ALICE, 1), (ALICE, 1), (ALICE, 13)]
        .map(|(who, hours)| encoded(&hours_later(who, hours)));
    let keys = || Arc::new(TestKeys::default());
    let found = present(&run_with(keys(), with_hours(noon.before()), &events));
    let [first, second, next_day] = [noon, DAY.hour_at(13), EpochId(DAY.0 + 1).hour_at(1)].map(WindowId::from);
    let sorted = |mut people: Vec<[u8; 16]>| {
        people.sort_unstable();
        people
    };
    let hours: People =
        found.iter().filter(|(window, _)| window.span == Span::Hour).map(|(w, p)| (*w, sorted(p.clone()))).collect();
    let expected = [
        (first, vec![person(ALICE, first)]),
        (second, sorted(vec![person(ALICE, second), person(BOB, second)])),
        (next_day, vec![person(ALICE, next_day)]),
    ];
    assert_eq!(hours, People::from(expected));
    // Nobody is in two windows under one name, of whatever length, nor in one under its day's.
    let days = run_with(keys(), with_hours(noon.before()), &events).clean;
    let days = days.column_by_name("person").expect("a column").as_fixed_size_binary();
    let mut named: Vec<Vec<u8>> = days.iter().flatten().map(<[u8]>::to_vec).collect::<BTreeSet<_>>().into_iter().collect();
    for people in found.values() {
        named.extend(people.iter().map(|person| person.to_vec()).collect::<BTreeSet<_>>());
    }
    let distinct: BTreeSet<_> = named.iter().collect();
    assert_eq!((named.len(), distinct.len()), (3 + 4 + 2 + 2, 3 + 4 + 2 + 2));

    // Weeks and months are the same with hours and without, and without them there are no hours.
    let without = present(&run_with(keys(), open_context(), &events));
    assert!(without.keys().all(|window| window.span != Span::Hour));
    for (window, people) in without {
        assert_eq!(sorted(people), sorted(found[&window].clone()), "{window}");
    }
}

#[test]
fn what_comes_too_late_for_its_hour_is_counted_for_the_day_and_missed_in_the_hour() {
    let noon = DAY.hour_at(12);
    let passive = proto::Event { event_time_ms: NOON_MS, ..event(business(2)) };
    let events = [hours_later(ALICE, -1), hours_later(ALICE, 0), hours_later(BOB, 0), passive, hours_later(ALICE, 1)];
    let minimized = run_with(Arc::default(), with_hours(noon), &events.map(|event| encoded(&event)));
    assert_eq!(minimized.counts, [(Some(DAY), Outcome::Counted, 5)]);
    assert_eq!(minimized.missed_hours, [(noon.before(), 1), (noon, 2)], "what was done to somebody is missed nowhere");
    let hours: Vec<_> = present(&minimized).into_iter().filter(|(window, _)| window.span == Span::Hour).collect();
    let next = WindowId::from(DAY.hour_at(13));
    assert_eq!(hours, [(next, vec![person(ALICE, next)])]);
    let week = Span::Week.of(DAY);
    assert_eq!(present(&minimized)[&week].len(), 2, "the week has them");
}

#[test]
fn who_is_not_counted_was_not_there() {
    let mut without_consent = at(ALICE, 0);
    without_consent.choices = Some(proto::Choices { analytics_consent: false, age_band: 3, ..Default::default() });
    let mut minor = at(ALICE, 0);
    minor.choices = Some(proto::Choices { analytics_consent: true, age_band: 1, ..Default::default() });
    let mut unread = at(ALICE, 0);
    unread.body = Some(Body::GroupLeft(Default::default()));
    let bad_number = at("not a number", 0);
    // What a business did to somebody who does nothing is no presence; their own answer is.
    let written_to = [1, 2].map(|stage| proto::Event { event_time_ms: NOON_MS, ..event(business(stage)) });
    for event in [without_consent, minor, unread, bad_number].iter().chain(&written_to) {
        assert!(run(std::slice::from_ref(event)).present.is_empty());
    }
    let [sent, delivered] = written_to;
    for answer in [3, 4] {
        assert_eq!(run(&[sent.clone(), delivered.clone(), event(business(answer)), sent.clone()]).present.len(), 2);
    }
    let late = RangeContext { closed_through: Some(DAY), ..open_context() };
    let minimized = run_with(Arc::default(), late, &[encoded(&at(ALICE, 0)), encoded(&at(BOB, 1))]);
    assert_eq!(minimized.counts.iter().map(|(_, outcome, _)| *outcome).collect::<Vec<_>>(), [Outcome::Late, Outcome::Counted]);
    let week = Span::Week.of(DAY);
    assert_eq!(present(&minimized).remove(&week), Some(vec![person(BOB, week)]), "a closed day's people do not come later");
}

#[test]
fn a_window_whose_key_is_destroyed_has_nobody_and_the_others_go_on() {
    let keys = Arc::new(TestKeys::default());
    let (week, month) = (Span::Week.of(DAY), Span::Month.of(DAY));
    keys.destroy(Purpose::AnalyticsWeek, week.epoch);
    let minimized = run_with(keys, open_context(), &[encoded(&at(ALICE, 0))]);
    assert_eq!(minimized.clean.num_rows(), 1);
    assert_eq!(present(&minimized), People::from([(month, vec![person(ALICE, month)])]));
}

#[test]
fn trouble_with_a_weeks_key_stops_the_range_and_the_next_try_is_whole() {
    struct NoWeeks(TestKeys, std::sync::atomic::AtomicBool);
    impl starling_minimize::KeySource for NoWeeks {
        fn pseudonym_key(
            &self,
            purpose: Purpose,
            epoch: EpochId,
        ) -> Result<Option<starling_minimize::Zeroizing<[u8; 32]>>, starling_minimize::KeySourceError> {
            if purpose == Purpose::AnalyticsWeek && self.1.load(std::sync::atomic::Ordering::Relaxed) {
                return Err(starling_minimize::KeySourceError("no room".to_owned()));
            }
            self.0.pseudonym_key(purpose, epoch)
        }
    }
    let keys = Arc::new(NoWeeks(TestKeys::default(), true.into()));
    let mut minimizer = Minimizer::new(Arc::clone(&keys) as Arc<_>, Limits::default());
    minimizer.begin(open_context());
    let refused = minimizer.push(Offset(0), &encoded(&at(ALICE, 0))).expect_err("no key, no row");
    assert!(refused.to_string().contains("week"), "{refused}");
    keys.1.store(false, std::sync::atomic::Ordering::Relaxed);
    minimizer.begin(open_context());
    minimizer.push(Offset(0), &encoded(&at(ALICE, 0))).expect("pushes");
    let minimized = minimizer.finish().expect("columns");
    assert_eq!((minimized.events, minimized.clean.num_rows(), present(&minimized).len()), (1, 1, 2));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    /// Against the clean rows' own events, in any order, over the ends of weeks and months, with days closed and keys gone.
    #[test]
    fn i1_i9_those_present_are_those_counted_whatever_the_order(
        events in prop::collection::vec((0..6_u8, -9..9_i64, prop::bool::weighted(0.9), prop::bool::weighted(0.8), 0..24_u8), 0..80),
        closed in prop::option::of(-9..9_i32),
        no_week in prop::option::of(-9..9_i32),
        after in prop::option::of((-9..9_i32, 0..24_u8)),
        no_hour in prop::option::of((-9..9_i32, 0..24_u8)),
    ) {
        // The month begins after the third of its weeks' days: both ends are crossed.
        let first = Span::Month.of(DAY).epoch.0;
        let day = |n: i64| i64::from(first) + n;
        let keys = || {
            let keys = TestKeys::default();
            if let Some(n) = no_week {
                keys.destroy(Purpose::AnalyticsWeek, Span::Week.of(EpochId(first + n)).epoch);
            }
            if let Some((n, hour)) = no_hour {
                keys.destroy(Purpose::AnalyticsHour, EpochId(first + n).hour_at(hour));
            }
            Arc::new(keys)
        };
        let context = RangeContext {
            closed_through: closed.map(|n| EpochId(first + n)),
            hours_after: after.map(|(n, hour)| EpochId(first + n).hour_at(hour)),
            latest_ms: NOON_MS + 400 * DAY_MS,
            read_to_ms: None,
        };
        let frames: Vec<Vec<u8>> = events.iter().map(|(n, at_day, consent, active, hour)| {
            let mut event = event(if *active { message() } else { business(2) });
            event.actor = format!("+4915112345{n:03}");
            event.event_time_ms = day(*at_day) * DAY_MS + i64::from(*hour) * HOUR_MS + 1_000;
            if !consent {
                event.choices = Some(proto::Choices { analytics_consent: false, age_band: 3, ..Default::default() });
            }
            encoded(&event)
        }).collect();

        // One entry a person and day of it; of an hour one a person.
        let mut expected = BTreeMap::<WindowId, BTreeSet<(i64, u8)>>::new();
        let mut missed = BTreeMap::<EpochId, u64>::new();
        for (n, at_day, consent, active, hour) in &events {
            let epoch = EpochId(i32::try_from(day(*at_day)).expect("small"));
            if *consent && *active && context.closed_through.is_none_or(|through| epoch > through) {
                for span in Span::LONG {
                    let window = span.of(epoch);
                    if span == Span::Week && no_week.is_some_and(|n| Span::Week.of(EpochId(first + n)) == window) {
                        continue;
                    }
                    expected.entry(window).or_default().insert((*at_day, *n));
                }
                let hour = epoch.hour_at(*hour);
                match context.hours_after {
                    Some(after) if hour <= after => *missed.entry(hour).or_default() += 1,
                    Some(_) if no_hour.is_none_or(|(n, gone)| EpochId(first + n).hour_at(gone) != hour) => {
                        expected.entry(hour.into()).or_default().insert((0, *n));
                    }
                    _ => {}
                }
            }
        }
        let expected: People = expected.into_iter().map(|(window, people)| {
            let mut people: Vec<_> = people.into_iter().map(|(_, n)| person(&format!("+4915112345{n:03}"), window)).collect();
            people.sort_unstable();
            (window, people)
        }).collect();
        let sorted = |minimized: &Minimized| {
            let mut people = present(minimized);
            people.values_mut().for_each(|people| people.sort_unstable());
            people
        };
        let minimized = run_with(keys(), context, &frames);
        prop_assert_eq!(sorted(&minimized), expected.clone());
        prop_assert_eq!(&minimized.missed_hours, &missed.into_iter().collect::<Vec<_>>());
        let reversed: Vec<_> = frames.iter().rev().cloned().collect();
        prop_assert_eq!(sorted(&run_with(keys(), context, &reversed)), expected);
    }
}
