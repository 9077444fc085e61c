//! Rules over a group's hour, as the engine's caller sees them.

use std::collections::{BTreeMap, BTreeSet};

use starling_schemas::codes::ReporterRate;

use super::*;
use crate::codec::Writer;
use crate::groups::{MOST_PANES, PANE_MS};

const MINUTE: i64 = 60_000;

fn of_group(kind: SignalKind, group: u8, time: i64) -> Row {
    Row { kind, group: Some([group; 16]), person: None, ..message(0, time) }
}

/// `n` signals evenly from `from_min` minutes after noon, over `over_min`.
pub(super) fn spread(kind: SignalKind, group: u8, n: i64, from_min: i64, over_min: i64) -> Vec<Row> {
    (0..n).map(|i| of_group(kind, group, NOON + from_min * MINUTE + i * over_min * MINUTE / n)).collect()
}

fn told(content: &[Row]) -> Vec<(String, u64, String)> {
    alerts(content).into_iter().map(|a| (a.rule, a.observed, a.severity)).collect()
}

fn is(rule: &str, observed: u64, severity: &str) -> (String, u64, String) {
    (rule.to_owned(), observed, severity.to_owned())
}

#[test]
fn eighty_joins_by_link_within_an_hour_fire_and_seventy_nine_do_not() {
    assert_eq!(told(&spread(SignalKind::GroupJoined, 3, 79, 0, 50)), []);
    assert_eq!(told(&spread(SignalKind::GroupJoined, 3, 80, 0, 50)), [is("group_link_joins", 80, "low")]);
    assert_eq!(told(&spread(SignalKind::GroupJoined, 3, 240, 0, 50)), [is("group_link_joins", 240, "medium")]);
    // Sliding: no clock hour holds them all.
    assert_eq!(told(&spread(SignalKind::GroupJoined, 3, 80, 35, 50)).len(), 1);
    assert_eq!(told(&spread(SignalKind::GroupJoined, 3, 80, 0, 120)), []);
}

#[test]
fn a_group_that_was_just_created_may_be_joined_by_more() {
    let joins = |n: i64, created_before_min: i64| {
        let mut content = spread(SignalKind::GroupJoined, 3, n, 0, 50);
        content.push(of_group(SignalKind::GroupCreated, 3, NOON - created_before_min * MINUTE));
        told(&content)
    };
    assert_eq!(joins(249, 5), []);
    assert_eq!(joins(250, 5), [is("group_link_joins", 250, "low")]);
    assert_eq!(joins(80, 300), [is("group_link_joins", 80, "low")], "it is new no more");
}

#[test]
fn half_of_who_came_leaving_within_the_hour_fires_and_less_does_not() {
    let churn = |came: u32, left: i64, from_min: i64| {
        let mut content = vec![added(3, NOON, came, 0)];
        content.extend(spread(SignalKind::GroupLeft, 3, left, from_min, 20));
        told(&content)
    };
    assert_eq!(churn(100, 49, 15), []);
    assert_eq!(churn(100, 50, 15), [is("group_churn", 50, "medium")]);
    assert_eq!(churn(49, 49, 15), [], "too few came");
    assert_eq!(churn(50, 29, 15), [], "too few left");
    assert_eq!(churn(100, 80, 70), [], "later than an hour");
    assert_eq!(churn(100, 80, -30), [], "before they came");
    let mut by_link = spread(SignalKind::GroupJoined, 3, 60, 0, 15);
    by_link.extend(spread(SignalKind::GroupLeft, 3, 40, 20, 20));
    assert_eq!(told(&by_link), [is("group_churn", 40, "medium")]);
}

#[test]
fn reports_alone_never_raise_more_than_priority() {
    let reports = |n: i64, came: u32| {
        let mut content = if came > 0 { vec![added(3, NOON, came, 0)] } else { Vec::new() };
        content.extend(spread(SignalKind::GroupReported, 3, n, 1, 40));
        told(&content)
    };
    assert_eq!(reports(19, 0), []);
    assert_eq!(reports(20, 0), [is("group_reports", 20, "low")]);
    assert_eq!(reports(32, 200), [], "more came, so more is usual");
    assert_eq!(reports(33, 200), [is("group_reports", 33, "low")]);
    assert_eq!(reports(20_000, 0), [is("group_reports", 20_000, "low")], "a brigade");
    assert_eq!(told(&spread(SignalKind::GroupReported, 3, 60, 0, 600)), [], "six an hour");
}

#[test]
fn who_only_looks_like_it_stays_silent() {
    // A school: an administrator adds two hundred at once, and hardly anybody leaves.
    let mut school: Vec<Row> = (0..10).map(|i| added(1, NOON + i * 2_000, 20, 3)).collect();
    school.push(of_group(SignalKind::GroupCreated, 1, NOON - MINUTE));
    school.extend(spread(SignalKind::GroupLeft, 1, 6, 3, 50));
    assert_eq!(told(&school), []);
    // A wedding host, the guests' answers, and a link in the invitation.
    let mut wedding: Vec<Row> = (0..16).map(|i| added(2, NOON + i * 3 * MINUTE, 5, u32::from(i == 9))).collect();
    wedding.push(of_group(SignalKind::GroupCreated, 2, NOON - MINUTE));
    wedding.extend(spread(SignalKind::GroupJoined, 2, 40, 5, 50));
    wedding.extend(spread(SignalKind::GroupLeft, 2, 9, 20, 40));
    assert_eq!(told(&wedding), []);
    // An open community: sixty join by link over a day, some leave, some report it.
    let mut open = spread(SignalKind::GroupJoined, 4, 60, -600, 1_300);
    open.extend(spread(SignalKind::GroupLeft, 4, 35, -590, 1_290));
    open.extend(spread(SignalKind::GroupReported, 4, 12, -500, 1_000));
    assert_eq!(told(&open), []);
    // A large one with a steady coming and going, all day.
    let mut large = spread(SignalKind::GroupJoined, 5, 60 * 24, -720, 1_440);
    large.extend(spread(SignalKind::GroupLeft, 5, 50 * 24, -720, 1_440));
    assert_eq!(told(&large), [is("group_churn", 50, "low")], "until the hour before is known, a priority at most");
    let (_, later): (Vec<_>, Vec<_>) = large.into_iter().partition(|row| row.time < NOON);
    let quiet_start = spread(SignalKind::GroupLeft, 5, 50, -60, 60);
    assert_eq!(told(&[quiet_start, later].concat()), []);
    // A group that dies: everybody leaves, nobody had come.
    assert_eq!(told(&spread(SignalKind::GroupLeft, 6, 400, 0, 50)), []);
}

#[test]
fn keys_change_at_midnight_so_a_group_is_two_and_copies_are_not_counted_twice() {
    let midnight_min = (EpochId::of(NOON).end_ms() - NOON) / MINUTE;
    let joins = spread(SignalKind::GroupJoined, 3, 120, midnight_min - 25, 50);
    let today = EpochId::of(NOON).0;
    let keyed = |row: &Row| if row.epoch == today { row.clone() } else { Row { group: Some([4; 16]), ..row.clone() } };
    let copies = |row: &Row| (row.epoch != today).then(|| Row { epoch: today, overlap: true, ..row.clone() });
    let across: Vec<Row> = joins.iter().flat_map(|row| std::iter::once(keyed(row)).chain(copies(row))).collect();
    assert!(across.iter().any(|row| row.overlap));
    assert_eq!(told(&across), [], "sixty under each key");
    let more = spread(SignalKind::GroupJoined, 3, 30, midnight_min - 20, 15);
    assert_eq!(told(&[across, more].concat()), [is("group_link_joins", 90, "low")]);
    // Just after midnight nothing is known of the hour before, so a wave of leaving is no more than a priority.
    let mut early: Vec<Row> = spread(SignalKind::GroupJoined, 5, 60, midnight_min + 5, 5);
    early.extend(spread(SignalKind::GroupLeft, 5, 45, midnight_min + 11, 20));
    assert_eq!(told(&early), [is("group_churn", 45, "low")]);
}

/// Groups of all kinds over seven hours.
fn evening() -> Vec<Row> {
    let mut content = vec![of_group(SignalKind::GroupCreated, 3, NOON - MINUTE), added(3, NOON, 120, 110)];
    content.extend(spread(SignalKind::GroupLeft, 3, 75, 4, 45));
    content.extend(spread(SignalKind::GroupReported, 3, 30, 2, 50));
    content.extend(spread(SignalKind::GroupJoined, 4, 95, 10, 40));
    content.extend(spread(SignalKind::GroupLeft, 4, 4, 20, 40));
    // Again, hours later and more.
    content.extend(spread(SignalKind::GroupJoined, 4, 140, 400, 30));
    content.push(added(5, NOON, 60, 2));
    content.extend(spread(SignalKind::GroupLeft, 5, 40, 3, 30));
    content.push(added(5, NOON + 55 * MINUTE, 60, 2));
    content.extend(spread(SignalKind::GroupReported, 6, 45, 200, 100));
    content.sort_by_key(|row| row.time);
    content
}

#[test]
fn what_an_officer_reads_of_groups() {
    let mut found = alerts(&evening());
    found.sort_by(|a, b| (&a.rule, &a.subject.value).cmp(&(&b.rule, &b.subject.value)));
    let text = serde_json::to_string_pretty(&found).expect("JSON");
    assert!(text.contains("<10 left"), "small counts are not told");
    insta::assert_snapshot!("group_alerts", text);
}

#[test]
fn p23_i5_nobody_who_reports_joins_or_leaves_is_kept_or_told() {
    let somebody = [0xEE; 16];
    let mut engine = Engine::new(Rules::detectors().expect("rules"));
    let content: Vec<Row> = evening().into_iter().map(|row| Row { person: Some(somebody), ..row }).collect();
    engine.apply(&batch(0, 0, &content)).expect("signals");
    assert_eq!(engine.footprint().senders, 0);
    let found = engine.take_alerts();
    assert!(found.len() >= 4);
    let saved = engine.snapshot().expect("snapshot");
    assert!(!saved.windows(16).any(|bytes| bytes == somebody), "not in the saved state");
    assert!(!serde_json::to_string(&found).expect("JSON").contains(&"ee".repeat(16)), "not in an alert");
}

#[test]
fn a_group_is_forgotten_when_no_window_can_reach_back_to_it() {
    let mut engine = Engine::new(Rules::detectors().expect("rules"));
    let sweep_at = |engine: &mut Engine, sequence: i64, minute: i64| {
        engine.apply(&batch(0, sequence, &[of_group(SignalKind::GroupLeft, 9, NOON + minute * MINUTE)])).expect("signals");
        engine.take_alerts();
        (0..3).for_each(|_| engine.sweep());
        engine.footprint()
    };
    engine.apply(&batch(0, 0, &[added(3, NOON, 5, 5), of_group(SignalKind::GroupCreated, 4, NOON)])).expect("signals");
    let all = sweep_at(&mut engine, 1, 10);
    assert_eq!(all.groups, 3);
    let hours_only = sweep_at(&mut engine, 2, 30);
    assert_eq!(hours_only.groups, 3);
    assert!(hours_only.group_bytes < all.group_bytes + 40, "panes of ten seconds go after twenty minutes");
    assert_eq!(sweep_at(&mut engine, 3, 129).groups, 3);
    assert_eq!(sweep_at(&mut engine, 4, 131).groups, 1, "two windows and a pane later");
}

#[test]
fn state_saved_before_groups_had_hours_is_read() {
    let mut old = Writer(b"STARINT\x01".to_vec());
    old.i64(NOON);
    old.u32(7);
    old.count(0);
    old.count(0);
    old.count(1);
    old.0.extend_from_slice(&[3; 16]);
    old.i32(EpochId::of(NOON).0);
    old.u32(7);
    old.count(1);
    old.i64(NOON / 10_000);
    old.u32(90);
    old.u32(90);
    (0..4).for_each(|_| old.count(0));
    let mut engine = Engine::restore(Rules::detectors().expect("rules"), &old.0).expect("the version before");
    engine.apply(&batch(0, 0, &[added(3, NOON + MINUTE, 10, 10)])).expect("signals");
    assert_eq!(engine.take_alerts().iter().map(|a| (a.rule.as_str(), a.observed)).collect::<Vec<_>>(), [("group_mass_add", 100)]);
    old.0[7] = 3;
    let error = Engine::restore(Rules::detectors().expect("rules"), &old.0).expect_err("a version to come");
    assert!(error.to_string().contains("version"), "{error}");
}

#[test]
fn a_damaged_group_is_refused_wherever_the_state_is_cut_or_out_of_order() {
    let mut engine = Engine::new(Rules::detectors().expect("rules"));
    engine.apply(&batch(0, 0, &evening())).expect("signals");
    let saved = engine.snapshot().expect("snapshot");
    let rules = || Rules::detectors().expect("rules");
    assert!(Engine::restore(rules(), &saved).is_ok());
    for cut in 0..saved.len() {
        assert!(Engine::restore(rules(), &saved[..cut]).is_err(), "cut at {cut}");
    }
    let mut twice = Engine::new(rules());
    twice
        .apply(&batch(0, 0, &[of_group(SignalKind::GroupLeft, 9, NOON), of_group(SignalKind::GroupLeft, 9, NOON + DAY_MS / 4)]))
        .expect("signals");
    twice.groups.values_mut().for_each(|g| g.hours.panes.reverse());
    assert!(Engine::restore(rules(), &twice.snapshot().expect("snapshot")).is_err(), "panes out of order");
}

#[test]
fn a_group_that_turns_out_to_be_new_is_judged_again() {
    let mut engine = Engine::new(Rules::detectors().expect("rules"));
    engine.apply(&batch(0, 0, &spread(SignalKind::GroupJoined, 3, 120, 0, 50))).expect("signals");
    assert!(engine.take_alerts().iter().all(Alert::stands));
    engine.apply(&batch(1, 0, &[of_group(SignalKind::GroupCreated, 3, NOON - MINUTE)])).expect("signals");
    let undone = engine.take_alerts();
    assert_eq!(undone.iter().map(|a| (a.observed, a.threshold, a.stands())).collect::<Vec<_>>(), [(120, 250, false)]);
    assert_eq!(engine.take_alerts(), [], "told once");
}

/// Thresholds so low that a few dozen signals cross them both ways.
fn nervous() -> Rules {
    let text = include_str!("../rules.toml");
    let (others, hours) = text.split_once("[group_link_joins]").expect("a section");
    let hours = hours
        .replace("joins = 50", "joins = 10")
        .replace("new = 25", "new = 1.6")
        .replace("known = 8", "known = 1.1")
        .replace("came = 50", "came = 12")
        .replace("left = 30", "left = 10")
        .replace("reports = 20", "reports = 10")
        .replace("tail = 1e-6", "tail = 0.001");
    Rules::parse(&format!("{others}[group_link_joins]{hours}")).expect("rules")
}

/// Whether all panes are kept in which members were added. Of more the newest are, and which these were when a burst was looked for
/// depends on the order.
fn fits(content: &[Row]) -> bool {
    let mut panes: BTreeMap<Option<[u8; 16]>, BTreeSet<i64>> = BTreeMap::new();
    for row in content.iter().filter(|row| row.kind == SignalKind::MembersAdded) {
        panes.entry(row.group).or_default().insert(row.time.div_euclid(PANE_MS));
    }
    panes.values().all(|panes| panes.len() <= MOST_PANES)
}

/// A report out of one of more buckets than are kept of a pane, most of them out of one, or out of none that is known.
fn voiced(row: Row) -> Row {
    let of = u8::try_from(row.time / 7_000 % 40).unwrap_or_default();
    let bucket = match of {
        0..30 => Some(of * 8),
        30..38 => Some(1),
        _ => None,
    };
    let rate = if of % 5 == 0 { ReporterRate::Several } else { ReporterRate::Never };
    Row { voice: Voice { bucket, rate }, ..row }
}

/// Random signals of two groups over half a day, in time order.
fn any_evening() -> impl Strategy<Value = Vec<Row>> {
    // Most of it within two hours, so that rules cross; some of it long after, so that groups are forgotten in between.
    let from_min = prop_oneof![3 => 0_i64..110, 1 => 0_i64..620];
    let burst = (0_u8..2, 0_u8..5, 1_i64..45, from_min, 1_i64..60);
    let evening = prop::collection::vec(burst, 3..14).prop_map(|bursts| {
        let mut content = Vec::new();
        for (group, kind, n, from_min, over_min) in bursts {
            match kind {
                0 => content.extend((0..n).map(|i| added(group, NOON + (from_min + i * over_min / n) * MINUTE, 2, 1))),
                1 => content.push(of_group(SignalKind::GroupCreated, group, NOON + from_min * MINUTE)),
                2 => content.extend(spread(SignalKind::GroupJoined, group, n, from_min, over_min)),
                3 => content.extend(spread(SignalKind::GroupLeft, group, n, from_min, over_min)),
                _ => content.extend(spread(SignalKind::GroupReported, group, n, from_min, over_min).into_iter().map(voiced)),
            }
        }
        content.sort_by_key(|row| row.time);
        content
    });
    evening.prop_filter("more panes than are kept", |content| fits(content))
}

/// What stands at the end, the newest revision of each.
#[derive(Default)]
struct Feed(BTreeMap<String, Alert>);

impl Feed {
    fn take(&mut self, engine: &mut Engine) {
        for alert in engine.take_alerts() {
            let before = self.0.insert(alert.fingerprint.clone(), alert.clone());
            assert_eq!(before.map_or(0, |b| b.revision) + 1, alert.revision);
        }
    }

    fn standing(self) -> Vec<Alert> {
        self.0.into_values().filter(Alert::stands).map(|a| Alert { revision: 1, ..a }).collect()
    }
}

pub(super) fn shuffled(mut content: Vec<Row>, seed: u64) -> Vec<Row> {
    let mut state = seed | 1;
    for i in (1..content.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        content.swap(i, (state >> 33) as usize % (i + 1));
    }
    content
}

fn at_once(content: &[Row]) -> Vec<Alert> {
    let mut engine = Engine::new(nervous());
    engine.apply(&batch(0, 0, content)).expect("signals");
    let mut feed = Feed::default();
    feed.take(&mut engine);
    feed.standing()
}

#[test]
fn an_evening_that_the_order_tests_use_has_alerts_that_late_signals_undo() {
    // Group 5: of sixty who came forty left; then it turns out that sixty more came.
    let (early, late): (Vec<_>, Vec<_>) = evening().into_iter().partition(|row| row.time < NOON + 50 * MINUTE);
    let mut engine = Engine::new(Rules::detectors().expect("rules"));
    engine.apply(&batch(0, 0, &early)).expect("signals");
    let of_five = |alerts: Vec<Alert>| -> Vec<(String, bool, u32)> {
        let five = "05".repeat(16);
        alerts.into_iter().filter(|a| a.subject.value == five).map(|a| (a.rule.clone(), a.stands(), a.revision)).collect()
    };
    assert_eq!(of_five(engine.take_alerts()), [("group_churn".to_owned(), true, 1)]);
    engine.apply(&batch(0, 1, &late)).expect("signals");
    assert_eq!(of_five(engine.take_alerts()), [], "who came after the others had left undoes nothing");
    // Had they come before, it would.
    engine.apply(&batch(0, 2, &[added(5, NOON + MINUTE, 60, 2)])).expect("signals");
    assert_eq!(of_five(engine.take_alerts()), [("group_churn".to_owned(), false, 2)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn i9_order_cuts_and_repeats_do_not_change_what_stands(content in any_evening(), seed: u64, size in 1_usize..40) {
        let expected = at_once(&content);
        let mut engine = Engine::new(nervous());
        let mut feed = Feed::default();
        let mut before: Option<SignalBatch> = None;
        for (i, part) in shuffled(content, seed).chunks(size).enumerate() {
            let now = batch((i % 3) as i32, i as i64, part);
            engine.apply(&now).expect("signals");
            if let Some(again) = before.filter(|_| i % 2 == 0) {
                prop_assert_eq!(engine.apply(&again).expect("signals"), Applied::Duplicate);
            }
            before = Some(now);
            feed.take(&mut engine);
        }
        prop_assert_eq!(feed.standing(), expected);
    }

    #[test]
    fn i9_forgetting_who_is_silent_does_not_change_what_stands(content in any_evening(), sweeps in prop::collection::vec(any::<bool>(), 400)) {
        let expected = at_once(&content);
        let mut engine = Engine::new(nervous());
        let mut feed = Feed::default();
        for (i, part) in content.chunks(3).enumerate() {
            engine.apply(&batch(0, i as i64, part)).expect("signals");
            feed.take(&mut engine);
            if sweeps.get(i).is_some_and(|s| *s) {
                (0..3).for_each(|_| engine.sweep());
                engine = Engine::restore(nervous(), &engine.snapshot().expect("snapshot")).expect("restores");
            }
        }
        prop_assert_eq!(feed.standing(), expected);
    }

    #[test]
    fn i9_groups_restored_anywhere_go_on_as_if_nothing_had_happened(content in any_evening(), at: prop::sample::Index, take: bool) {
        let cut = at.index(content.len() + 1);
        let mut straight = Engine::new(nervous());
        straight.apply(&batch(0, 0, &content[..cut])).expect("signals");
        if take {
            straight.take_alerts();
        }
        let saved = straight.snapshot().expect("snapshot");
        let mut restored = Engine::restore(nervous(), &saved).expect("restores");
        prop_assert_eq!(restored.snapshot().expect("snapshot"), saved);
        for engine in [&mut straight, &mut restored] {
            engine.apply(&batch(0, 1, &content[cut..])).expect("signals");
            engine.sweep();
        }
        prop_assert_eq!(straight.take_alerts(), restored.take_alerts());
        prop_assert_eq!(straight.snapshot().expect("snapshot"), restored.snapshot().expect("snapshot"));
    }
}
