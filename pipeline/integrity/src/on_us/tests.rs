use proptest::prelude::*;
use starling_schemas::ids::HOUR_MS;
use starling_store::BEHIND;

use super::*;
use crate::{Alert, Rules};

const DAY: i32 = 20_458;
const MALFORMED: &str = "quarantined:malformed";

fn rules() -> Rules {
    Rules::builtin().expect("reviewed")
}

fn partition(number: i32) -> Account {
    Account::Partition { source: "events".to_owned(), number }
}

fn ana() -> Account {
    Account::Principal("ana".to_owned())
}

fn cell(account: &Account, day: i32, hour: u8, what: &str, times: u64) -> Cell {
    Cell { account: account.clone(), hour: EpochId(DAY + day).hour_at(hour), what: what.to_owned(), times }
}

/// Days -7 to -1 and this one, of four partitions: 20,000 events an hour by day and 4,000 by night, some behind, few that cannot be read; fewer of
/// all at the weekend.
fn week() -> Vec<Cell> {
    let mut cells = Vec::new();
    for (number, day, hour) in (0..4).flat_map(|n| (-7..=0).flat_map(move |d| (0..24).map(move |h| (n, d, h)))) {
        let by_day = if (7..22).contains(&hour) { 20_000 } else { 4_000 };
        let events = if day % 7 >= -2 && day % 7 < 0 { by_day * 3 / 2 } else { by_day } + u64::from(hour);
        let account = partition(number);
        cells.push(cell(&account, day, hour, "counted", events));
        cells.push(cell(&account, day, hour, BEHIND, events / 200));
        cells.push(cell(&account, day, hour, MALFORMED, events / 2_000));
        cells.push(cell(&account, day, hour, "refused:age_unknown", events / 20));
    }
    cells
}

fn judged(cells: &[Cell]) -> Vec<Alert> {
    judge(&rules(), cells, EpochId(DAY))
}

fn rule_of(alert: &Alert) -> (&str, &str, &str) {
    (&alert.rule, &alert.subject.kind, &alert.subject.value)
}

#[test]
fn an_ordinary_week_is_nobodys_alert_nor_is_one_of_which_little_is_known() {
    assert!(judge(&rules(), &week(), EpochId(DAY - 7)).is_empty());
    // The first three days of a partition that has nothing but bad events.
    let account = partition(9);
    let bad = |day| (0..24).map(move |hour| (day, hour));
    let cells: Vec<Cell> = (-3..0).flat_map(bad).map(|(day, hour)| cell(&account, day, hour, MALFORMED, 1_000_000)).collect();
    assert!(judge(&rules(), &cells, EpochId(DAY - 9)).is_empty());
}

#[test]
fn what_is_played_again_is_told_with_its_partition_and_its_window() {
    let mut cells = week();
    cells.push(cell(&partition(2), 0, 13, BEHIND, 9_000));
    let alerts = judged(&cells);
    let [alert] = alerts.as_slice() else { panic!("one: {alerts:?}") };
    assert_eq!(rule_of(alert), ("pipeline_replay", "pipeline", "events"));
    // The fixed number is more than 5 times what the fullest hour of a usual day has, and than 2 % of an hour; and nine of it are eight and more.
    assert_eq!((alert.baseline.value, alert.threshold, alert.observed), (Some(100.0), 1_000, 8_000));
    assert_eq!(
        (alert.window.start_ms, alert.window.end_ms),
        (EpochId(DAY).start_ms() + 13 * HOUR_MS, EpochId(DAY).start_ms() + 14 * HOUR_MS)
    );
    assert!(
        alert.explanation.starts_with("Partition 2: at least 8000 events lay more than an hour behind"),
        "{}",
        alert.explanation
    );
    // A partition more of which as much is known is no growth: the alert is the very same.
    let more = week().into_iter().filter(|cell| cell.account == partition(0)).map(|cell| Cell { account: partition(4), ..cell });
    let wider: Vec<Cell> = cells.iter().cloned().chain(more).collect();
    assert_eq!(judged(&wider), alerts);
    assert_eq!(alert.severity, "high");
    // The alert before it doubled.
    cells.pop();
    cells.push(cell(&partition(2), 0, 13, BEHIND, 1_000));
    let before = judged(&cells);
    assert_eq!((before[0].observed, before[0].revision, alert.revision), (1_000, 1, 4));
    assert_eq!(before[0].fingerprint, alert.fingerprint, "it grew");
    cells.last_mut().expect("one").times = 899;
    assert!(judged(&cells).is_empty(), "899 and the usual 100 are not enough");
}

#[test]
fn each_kind_of_bad_event_is_held_against_its_own_past() {
    for (what, fires) in [(MALFORMED, 500), ("quarantined:time_out_of_range", 500), ("refused:age_unknown", 5_005)] {
        let mut cells = week();
        cells.retain(|cell| (cell.what != what) || cell.hour.day() != EpochId(DAY));
        cells.push(cell(&partition(1), 0, 3, what, fires - 1));
        assert!(judged(&cells).is_empty(), "{what}");
        cells.last_mut().expect("one").times += 1;
        let alerts = judged(&cells);
        let [alert] = alerts.as_slice() else { panic!("{what}: {alerts:?}") };
        assert_eq!((rule_of(alert), alert.threshold), (("pipeline_poisoning", "pipeline", "events"), fires), "{what}");
    }
    // Whoever does not agree, or is a guest, is no bad event.
    for what in ["refused:no_consent", "refused:no_subject", "refused:minor", "late", "counted"] {
        let mut cells = week();
        cells.push(cell(&partition(1), 0, 3, what, 10_000_000));
        assert!(judged(&cells).is_empty(), "{what}");
    }
}

#[test]
fn a_large_partition_takes_a_share_to_be_told() {
    let mut cells = week();
    cells.iter_mut().for_each(|cell| cell.times *= if cell.what == "counted" { 1_000 } else { 1 });
    cells.push(cell(&partition(1), 0, 3, "quarantined:empty", 50_000));
    assert!(judged(&cells).is_empty(), "one in two hundred of some fourteen million is more");
    cells.last_mut().expect("one").times = 80_000;
    let alerts = judged(&cells);
    assert_eq!(alerts.len(), 1);
    assert!((60_000..80_000).contains(&alerts[0].threshold), "{}", alerts[0].threshold);
}

#[test]
fn where_all_partitions_show_it_the_alert_is_one_and_says_so() {
    let mut cells = week();
    (0..4).for_each(|number| cells.push(cell(&partition(number), 0, 9, MALFORMED, 2_000)));
    let alerts = judged(&cells);
    assert_eq!(alerts.len(), 1, "{alerts:?}");
    assert!(
        alerts[0].explanation.ends_with("That day it fired in 1 of its hours, in partitions 0, 1, 2, 3."),
        "{}",
        alerts[0].explanation
    );
    // On the next day it is another alert.
    cells.push(cell(&partition(0), 1, 9, MALFORMED, 2_000));
    assert_eq!(judged(&cells).len(), 2);
}

#[test]
fn what_was_done_twice_is_not_usual_and_what_is_always_so_is() {
    let mut cells = week();
    (-3..=0).for_each(|day| cells.push(cell(&partition(2), day, 13, BEHIND, 9_000)));
    assert_eq!(judged(&cells).len(), 1, "three days of seven");
    cells.push(cell(&partition(2), -4, 13, BEHIND, 9_000));
    assert!(judged(&cells).is_empty(), "four of seven");
}

#[test]
fn whoever_tries_doors_is_told_from_the_first_hour() {
    let http = Account::Door("http".to_owned());
    for (account, what, fires, rule, subject) in [
        (ana(), deeds::FORBIDDEN, 50, "door_probing", ("principal", "ana")),
        (ana(), deeds::UNKNOWN, 200, "door_probing", ("principal", "ana")),
        (ana(), deeds::BUDGET, 50, "door_probing", ("principal", "ana")),
        (ana(), deeds::LIMITS, 100, "door_probing", ("principal", "ana")),
        (ana(), deeds::UNFIT, 200, "door_probing", ("principal", "ana")),
        (ana(), deeds::VARIANT, 60, "door_differencing", ("principal", "ana")),
        (ana(), deeds::LOOKUP, 300, "door_lookups", ("principal", "ana")),
        (ana(), deeds::MISSING, 30, "door_lookups", ("principal", "ana")),
        (ana(), deeds::LOGIN, 30, "door_guessing", ("principal", "ana")),
        (http.clone(), deeds::LOGIN, 200, "door_guessing", ("pipeline", "http")),
        (http.clone(), deeds::NAME, 30, "door_guessing", ("pipeline", "http")),
        (http.clone(), deeds::TOKEN, 200, "door_guessing", ("pipeline", "http")),
    ] {
        assert!(judged(&[cell(&account, 0, 9, what, fires - 1)]).is_empty(), "{what}");
        let alerts = judged(&[cell(&account, 0, 9, what, fires)]);
        let [alert] = alerts.as_slice() else { panic!("{what}: {alerts:?}") };
        assert_eq!((rule_of(alert), alert.threshold), ((rule, subject.0, subject.1), fires));
        assert_eq!((alert.baseline.kind.as_str(), alert.stands()), ("rule", true));
    }
    assert_eq!(deeds::ALL.len(), 11);
}

#[test]
fn only_as_many_days_are_judged_as_are_asked_for() {
    let cells: Vec<Cell> =
        (-20..=0).map(|day| cell(&ana(), day, 9, deeds::FORBIDDEN, if day % 7 == 0 { 400 } else { 1 })).collect();
    let days = |judged_days| {
        let alerts = judge_last(&rules(), &cells, EpochId(i32::MIN), judged_days);
        let mut days: Vec<i32> = alerts.iter().map(|alert| EpochId::of(alert.first_ms).0 - DAY).collect();
        days.sort_unstable();
        days
    };
    assert_eq!((days(30), days(15), days(14)), (vec![-14, -7, 0], vec![-14, -7, 0], vec![-7, 0]));
}

#[test]
fn a_dashboard_with_a_broken_statement_is_usual_after_a_while() {
    let dashboard = |day| (0..24).map(move |hour| cell(&ana(), day, hour, deeds::UNFIT, 360));
    let cells: Vec<Cell> = (-7..=0).flat_map(dashboard).collect();
    assert_eq!(judge(&rules(), &cells, EpochId(DAY - 7)).len(), 3, "until three days are known");
    assert!(judged(&cells).is_empty());
    let mut more = cells.clone();
    more.push(cell(&ana(), 0, 9, deeds::UNFIT, 1_800));
    let alerts = judged(&more);
    assert_eq!((alerts.len(), alerts[0].threshold, alerts[0].baseline.value), (1, 1_800, Some(360.0)));
}

#[test]
fn an_alert_as_people_read_it() {
    let mut cells = week();
    cells.push(cell(&partition(2), 0, 13, BEHIND, 9_000));
    cells.push(cell(&ana(), 0, 9, deeds::FORBIDDEN, 400));
    insta::assert_json_snapshot!("alerts", judged(&cells));
}

#[test]
fn thresholds_that_make_no_sense_are_refused_by_name() {
    let text = include_str!("../rules.toml");
    for (rule, line, instead) in [
        ("pipeline_replay", "events = 1000", "events = 9"),
        ("pipeline_replay", "share = 0.02", "share = 1.5"),
        ("pipeline_replay", "over_baseline = 5.0", "over_baseline = 0.5"),
        ("pipeline_replay", "known_days = 3", "known_days = 15"),
        ("pipeline_poisoning", "share = 0.005", "share = nan"),
        ("pipeline_poisoning", "known_days = 3", "known_days = 0"),
        ("door_probing", "budget = 50", "budget = 4"),
        ("door_differencing", "over_baseline = 5.0", "over_baseline = inf"),
        ("door_lookups", "missing = 30", "missing = 0"),
        ("door_guessing", "names = 30", "names = 1"),
    ] {
        let (before, section) = text.split_once(&format!("[{rule}]\n")).expect("a section");
        let changed = format!("{before}[{rule}]\n{}", section.replacen(line, instead, 1));
        let error = Rules::parse(&changed).expect_err(instead).to_string();
        let name = format!("{rule}.{}", line.split_once(' ').expect("a name").0);
        assert!(error.contains(&name), "{name}: {error}");
    }
}

proptest! {
    /// Whatever the accounts are and in whatever order they are read: once more, from an earlier day, and after more was counted, what was told is
    /// told.
    #[test]
    fn i9_what_was_found_is_found_again_and_only_grows(
        seed in prop::collection::vec((0..3_usize, -10..2_i32, 0..24_u8, 0..5_usize, 0..50_000_u64), 1..200),
        more in prop::collection::vec((0..3_usize, 0..5_usize, 0..50_000_u64), 0..20),
    ) {
        let account = |n: usize| if n == 2 { ana() } else { partition(i32::try_from(n).expect("small")) };
        let what = |n: usize| [BEHIND, MALFORMED, "counted", deeds::FORBIDDEN, deeds::VARIANT][n];
        let mut cells: Vec<Cell> = Vec::new();
        for (n, day, hour, kind, times) in seed {
            let new = cell(&account(n), day, hour, what(kind), times);
            match cells.iter_mut().find(|old| (&old.account, old.hour, &old.what) == (&new.account, new.hour, &new.what)) {
                Some(old) => old.times += times,
                None => cells.push(new),
            }
        }
        let first = judge(&rules(), &cells, EpochId(DAY - 10));
        let mut shuffled = cells.clone();
        shuffled.reverse();
        prop_assert_eq!(&judge(&rules(), &shuffled, EpochId(DAY - 10)), &first);
        let fingerprints: std::collections::BTreeSet<&str> = first.iter().map(|alert| alert.fingerprint.as_str()).collect();
        prop_assert_eq!(fingerprints.len(), first.len());
        let of = |alerts: &[Alert]| -> Vec<Alert> {
            alerts.iter().filter(|alert| alert.first_ms >= EpochId(DAY).start_ms()).cloned().collect()
        };
        prop_assert_eq!(&judge(&rules(), &cells, EpochId(DAY)), &of(&first));
        // The last hour grows.
        for (n, kind, times) in more {
            cells.push(cell(&account(n), 1, 23, what(kind), times));
        }
        let later = judge(&rules(), &cells, EpochId(DAY - 10));
        for alert in first {
            let grown = later.iter().find(|later| later.fingerprint == alert.fingerprint);
            let grown = grown.ok_or_else(|| TestCaseError::fail("taken back"))?;
            prop_assert!(grown.stands() && grown.revision >= alert.revision && grown.evidence >= alert.evidence);
            prop_assert!(*grown == alert || grown.revision > alert.revision);
        }
    }
}
