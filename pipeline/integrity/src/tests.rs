//! The engine as its caller sees it.

mod businesses;
mod days;
mod groups;
mod kept;
mod pairs;
mod runner;
mod templates;
mod tested;
mod voices;
mod written;

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, FixedSizeBinaryArray, RecordBatch, StringArray, TimestampMillisecondArray, UInt8Array,
    UInt16Array, UInt32Array, UInt64Array,
};
use proptest::prelude::*;
use starling_schemas::codes::{Category, ProfileField, SignalKind, Tier};
use starling_schemas::ids::{DAY_MS, EpochId, PartitionId, Sequence};
use starling_schemas::rows::SIGNALS;
use starling_schemas::signals::SignalBatch;
use starling_schemas::voice::Voice;

use crate::{Alert, Applied, Engine, Rules, cloud_event, cloud_event_headers};

/// 2026-01-05 12:00 UTC.
const NOON: i64 = 1_767_614_400_000;

/// A signal in the terms of a test.
#[derive(Debug, Clone)]
struct Row {
    kind: SignalKind,
    time: i64,
    epoch: i32,
    overlap: bool,
    person: Option<[u8; 16]>,
    group: Option<[u8; 16]>,
    business: Option<&'static str>,
    portfolio: Option<&'static str>,
    category: Category,
    tier: Tier,
    count: u32,
    strangers: u32,
    age_s: Option<u64>,
    /// Tokens under the day's key and the day before's.
    pairs: Option<(u64, u64)>,
    to_new_account: Option<bool>,
    /// Label of a list, and what is on it.
    listed: Option<(&'static str, ProfileField)>,
    voice: Voice,
    template: Option<&'static str>,
}

fn message(person: u8, time: i64) -> Row {
    Row {
        kind: SignalKind::MessageSent,
        time,
        epoch: EpochId::of(time).0,
        overlap: false,
        person: Some([person; 16]),
        group: None,
        business: None,
        portfolio: None,
        category: Category::Unknown,
        tier: Tier::Unknown,
        count: 1,
        strangers: 0,
        age_s: Some(40_000_000),
        pairs: None,
        to_new_account: None,
        listed: None,
        voice: Voice::default(),
        template: None,
    }
}

fn sent_by(business: &'static str, person: u32, time: i64, category: Category, tier: Tier) -> Row {
    let hash = blake3::hash(&person.to_le_bytes());
    let person = hash.as_bytes()[..16].try_into().expect("16 bytes");
    Row { kind: SignalKind::BusinessSent, business: Some(business), person: Some(person), category, tier, ..message(0, time) }
}

fn rows(rows: &[Row]) -> RecordBatch {
    let keyed = |f: fn(&Row) -> Option<[u8; 16]>| -> ArrayRef {
        Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(rows.iter().map(f), 16).expect("16 bytes"))
    };
    let tokens = |f: fn(&Row) -> Option<u64>| -> ArrayRef {
        let values = rows.iter().map(|r| f(r).map(u64::to_le_bytes));
        Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(values, 8).expect("8 bytes"))
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|r| r.kind.code()).collect::<UInt8Array>()),
        Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|r| r.time))),
        Arc::new(Date32Array::from_iter_values(rows.iter().map(|r| r.epoch))),
        Arc::new(BooleanArray::from_iter(rows.iter().map(|r| Some(r.overlap)))),
        keyed(|r| r.person),
        keyed(|r| r.group),
        Arc::new(StringArray::from_iter(rows.iter().map(|r| r.business))),
        Arc::new(StringArray::from_iter(rows.iter().map(|r| r.portfolio))),
        Arc::new(rows.iter().map(|r| r.category.code()).collect::<UInt8Array>()),
        Arc::new(rows.iter().map(|r| r.tier.code()).collect::<UInt8Array>()),
        Arc::new(rows.iter().map(|_| 1).collect::<UInt8Array>()),
        Arc::new(BooleanArray::from_iter(rows.iter().map(|_| Some(false)))),
        Arc::new(rows.iter().map(|r| r.count).collect::<UInt32Array>()),
        Arc::new(rows.iter().map(|r| r.strangers).collect::<UInt32Array>()),
        Arc::new(UInt64Array::from_iter(rows.iter().map(|r| r.age_s))),
        tokens(|r| r.pairs.map(|(now, _)| now)),
        tokens(|r| r.pairs.map(|(_, before)| before)),
        Arc::new(BooleanArray::from_iter(rows.iter().map(|r| r.to_new_account))),
        Arc::new(StringArray::from_iter(rows.iter().map(|r| r.listed.map(|(list, _)| list)))),
        Arc::new(rows.iter().map(|r| r.listed.map(|(_, field)| field.code())).collect::<UInt8Array>()),
        Arc::new(rows.iter().map(|r| r.voice.code()).collect::<UInt16Array>()),
        Arc::new(StringArray::from_iter(rows.iter().map(|r| r.template))),
    ];
    RecordBatch::try_new(Arc::clone(&SIGNALS), columns).expect("signals")
}

/// What stands at last of signals that come behind `before`, cut into batches of this size and of three partitions by turns, with a sweep behind each and,
/// if asked for, a restart; without how often it was told (I9).
fn standing_after(before: &[Row], content: &[Row], size: usize, restarts: bool) -> Vec<Alert> {
    let rules = || Rules::detectors().expect("rules");
    let mut engine = Engine::new(rules());
    engine.apply(&batch(0, 0, before)).expect("signals");
    let mut latest = std::collections::BTreeMap::new();
    for (nth, part) in content.chunks(size).enumerate() {
        engine.apply(&batch((nth % 3) as i32, nth as i64 + 1, part)).expect("signals");
        if restarts {
            let saved = engine.snapshot().expect("saves");
            engine = Engine::restore(rules(), &saved).expect("restores");
            assert_eq!(engine.snapshot().expect("saves"), saved);
        }
        engine.sweep();
        latest.extend(engine.take_alerts().into_iter().map(|a| (a.fingerprint.clone(), a)));
    }
    latest.retain(|_, alert| alert.stands());
    latest.into_values().map(|a| Alert { revision: 1, ..a }).collect()
}

fn batch(origin: i32, sequence: i64, content: &[Row]) -> SignalBatch {
    SignalBatch {
        origin: PartitionId { source: "events".into(), partition: origin },
        sequence: Sequence(sequence),
        chunk: 0,
        rows: rows(content),
        cover: None,
    }
}

fn alerts(content: &[Row]) -> Vec<Alert> {
    let mut engine = Engine::new(Rules::detectors().expect("rules"));
    for (i, part) in content.chunks(700).enumerate() {
        engine.apply(&batch(0, i as i64, part)).expect("signals");
    }
    engine.take_alerts()
}

fn evenly(n: i64, over_ms: i64, from: i64) -> Vec<Row> {
    (0..n).map(|i| message(1, from + i * over_ms / n)).collect()
}

#[test]
fn p22_a_thousand_in_sixty_seconds_fire_and_nine_hundred_and_ninety_nine_do_not() {
    assert_eq!(alerts(&evenly(999, 59_000, NOON)), []);
    let found = alerts(&evenly(1000, 59_000, NOON));
    assert_eq!(found.iter().map(|a| (a.rule.as_str(), a.observed)).collect::<Vec<_>>(), [("bulk_per_minute", 1000)]);
    // Sliding: no clock minute holds them all.
    assert_eq!(alerts(&evenly(1000, 59_000, NOON + 31_337)).len(), 1);
    // A thousand in 61 s, evenly, are 983 in any minute.
    assert_eq!(alerts(&evenly(1000, 61_000, NOON)), []);
}

#[test]
fn p22_a_burst_across_midnight_is_whole_under_the_day_it_starts_in() {
    let midnight = EpochId::of(NOON).end_ms();
    let (old, new) = (EpochId::of(NOON).0, EpochId::of(NOON).0 + 1);
    // The person is another pseudonym under the next day's key; after midnight each message comes under both.
    let across = |from: i64| -> Vec<Row> {
        evenly(1200, 59_000, from)
            .into_iter()
            .flat_map(|row| {
                if row.time < midnight {
                    return vec![row];
                }
                let today = Row { person: Some([2; 16]), epoch: new, ..row.clone() };
                vec![Row { epoch: old, overlap: true, ..row }, today]
            })
            .collect()
    };
    let found = alerts(&across(midnight - 30_000));
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].observed, found[0].subject.value.as_str()), (1200, "01".repeat(16).as_str()));
    // Wholly after midnight: told once, under the new day's key.
    let after = alerts(&across(midnight + 1_000));
    assert_eq!(after.iter().map(|a| a.subject.value.clone()).collect::<Vec<_>>(), ["02".repeat(16)]);
}

#[test]
fn a_burst_of_a_new_account_fires_and_that_of_an_old_one_does_not() {
    let burst = |n: i64, age: Option<u64>| {
        alerts(&evenly(n, 14_000, NOON).into_iter().map(|r| Row { age_s: age, ..r }).collect::<Vec<_>>())
    };
    assert_eq!(burst(100, Some(120)).iter().map(|a| a.rule.clone()).collect::<Vec<_>>(), ["new_account_burst"]);
    assert_eq!(burst(99, Some(120)), []);
    assert_eq!(burst(100, Some(601)), []);
    assert_eq!(burst(100, None), [], "an unknown age is not young");
}

#[test]
fn p24_a_business_beyond_tier_and_baseline_fires_and_passcodes_and_an_airline_do_not() {
    let day = |business, people: u32, category, tier| -> Vec<Row> {
        (0..people).map(|i| sent_by(business, i, NOON + i64::from(i) * 20, category, tier)).collect()
    };
    let found = alerts(&day("shop-9", 1_500, Category::Marketing, Tier::T250));
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].rule.as_str(), found[0].subject.value.as_str()), ("business_reach", "shop-9"));
    assert!((1_100..=1_500).contains(&found[0].observed), "{}", found[0].observed);
    let near = alerts(&day("shop-8", 300, Category::Marketing, Tier::T250));
    let told: Vec<_> = near.iter().map(|a| (a.rule.as_str(), a.severity.as_str(), a.threshold)).collect();
    assert_eq!(told, [("business_reach", "medium", 250)], "beyond its limit, six times what its tier usually reaches");
    assert_eq!(alerts(&day("shop-1", 200, Category::Marketing, Tier::T250)), [], "within its tier");
    assert_eq!(alerts(&day("shop-2", 1_900, Category::Marketing, Tier::T2k)), [], "within its tier");
    assert_eq!(alerts(&day("codes", 20_000, Category::Authentication, Tier::T10k)), []);
    assert_eq!(alerts(&day("airline", 20_000, Category::Utility, Tier::T10k)), []);
    assert_eq!(alerts(&day("large", 20_000, Category::Marketing, Tier::Unlimited)), [], "no limit and no past");
}

#[test]
fn p24_a_business_is_held_against_its_own_days_once_they_are_known() {
    let mut content = Vec::new();
    for day in 0..5 {
        content.extend(
            (0..100_u32).map(|i| sent_by("steady", i, NOON + day * DAY_MS + i64::from(i), Category::Marketing, Tier::Unlimited)),
        );
    }
    let quiet = alerts(&content);
    assert_eq!(quiet, []);
    content.extend(
        (0..900_u32).map(|i| sent_by("steady", i, NOON + 5 * DAY_MS + i64::from(i), Category::Marketing, Tier::Unlimited)),
    );
    let found = alerts(&content);
    assert_eq!(found.iter().map(|a| a.baseline.kind.clone()).collect::<Vec<_>>(), ["own"]);
}

#[test]
fn a_limit_is_a_limit_however_much_a_business_is_used_to_and_near_that_no_more_than_a_priority() {
    let day = |day: i64, people: u32| {
        (0..people).map(move |i| sent_by("busy", i, NOON + day * DAY_MS + i64::from(i), Category::Marketing, Tier::T250))
    };
    let usual: Vec<Row> = (0..5).flat_map(|n| day(n, 180)).collect();
    assert_eq!(alerts(&usual), []);
    let of = |people| alerts(&usual.iter().cloned().chain(day(5, people)).collect::<Vec<_>>());
    let told = |found: &[Alert]| found.iter().map(|a| (a.severity.clone(), a.baseline.kind.clone())).collect::<Vec<_>>();
    assert_eq!(told(&of(320)), [("low".to_owned(), "own".to_owned())]);
    assert_eq!(told(&of(900)), [("medium".to_owned(), "own".to_owned())]);
    assert_eq!(of(240), []);
}

#[test]
fn blocks_and_reports_never_raise_more_than_priority() {
    let mut content: Vec<Row> = (0..500_u32).map(|i| sent_by("pushy", i, NOON, Category::Utility, Tier::T2k)).collect();
    let object = |kind| Row { kind, business: Some("pushy"), person: None, ..message(0, NOON + 5) };
    content.extend((0..19).map(|_| object(SignalKind::Blocked)));
    assert_eq!(alerts(&content), []);
    content.push(object(SignalKind::Reported));
    let found = alerts(&content);
    assert_eq!(found.iter().map(|a| (a.rule.as_str(), a.severity.as_str())).collect::<Vec<_>>(), [("business_blocks", "low")]);
}

#[test]
fn reports_by_who_got_nothing_count_against_nobody_and_are_told_as_a_brigade() {
    let sent = |day: i64, people: u32| {
        (0..people).map(move |i| sent_by("shop-3", i, NOON + day * DAY_MS, Category::Marketing, Tier::T2k))
    };
    let usual: Vec<Row> = (0..4).flat_map(|day| sent(day, 100)).collect();
    let report =
        |count, time| Row { kind: SignalKind::Reported, business: Some("shop-3"), person: None, count, ..message(0, time) };
    let reports = |unfounded: i64, founded: i64| {
        let unfounded = (0..unfounded).map(|i| report(0, NOON + 3 * DAY_MS + i * 60_000));
        let founded = (0..founded).map(|i| report(1, NOON + 3 * DAY_MS + i * 60_000));
        alerts(&usual.iter().cloned().chain(unfounded).chain(founded).collect::<Vec<_>>())
    };
    let told = |found: &[Alert]| found.iter().map(|a| (a.rule.clone(), a.severity.clone(), a.observed)).collect::<Vec<_>>();
    let brigade = reports(60, 0);
    assert_eq!(told(&brigade), [("report_brigade".to_owned(), "low".to_owned(), 60)]);
    assert!(brigade[0].explanation.contains(", nearly all of them") && brigade[0].counter_evidence[0].starts_with("<10 reports"));
    assert_eq!(told(&reports(19, 0)), [], "slips");
    assert_eq!(told(&reports(20, 19)), [("report_brigade".to_owned(), "low".to_owned(), 20)], "few of its people object, too");
    // People it wrote to, as on any other day: a priority, with what speaks for an arrangement beside it.
    let opted_in = reports(0, 30);
    assert_eq!(told(&opted_in), [("business_blocks".to_owned(), "low".to_owned(), 30)]);
    assert!(opted_in[0].counter_evidence.iter().any(|said| said.contains("by arrangement")), "{opted_in:?}");
    // After a campaign to five times as many nothing of the kind is said.
    let campaign: Vec<Row> = sent(3, 500).chain((0..40).map(|i| report(1, NOON + 3 * DAY_MS + 1 + i))).collect();
    let unwanted = alerts(&usual.iter().take(300).cloned().chain(campaign).collect::<Vec<_>>());
    assert_eq!(told(&unwanted), [("business_blocks".to_owned(), "low".to_owned(), 40)]);
    assert!(unwanted[0].counter_evidence.iter().all(|said| !said.contains("by arrangement")), "{unwanted:?}");
}

fn added(group: u8, time: i64, count: u32, strangers: u32) -> Row {
    Row { kind: SignalKind::MembersAdded, group: Some([group; 16]), person: None, count, strangers, ..message(0, time) }
}

#[test]
fn a_group_filled_with_strangers_fires_and_a_wedding_does_not() {
    let mass: Vec<_> = (0..12).map(|i| added(3, NOON + i * 30_000, 12, 11)).collect();
    assert_eq!(alerts(&mass).iter().map(|a| (a.rule.as_str(), a.observed)).collect::<Vec<_>>(), [("group_mass_add", 144)]);
    let wedding: Vec<_> = (0..16).map(|i| added(4, NOON + i * 30_000, 12, 2)).collect();
    assert_eq!(alerts(&wedding), []);
}

#[test]
fn i9_a_batch_seen_before_changes_nothing() {
    let mut engine = Engine::new(Rules::detectors().expect("rules"));
    let half = evenly(600, 30_000, NOON);
    assert_eq!(engine.apply(&batch(0, 0, &half)).expect("signals"), Applied::Rows(600));
    assert_eq!(engine.apply(&batch(0, 0, &half)).expect("signals"), Applied::Duplicate);
    assert_eq!(engine.take_alerts(), []);
    assert_eq!(
        engine.apply(&batch(1, 0, &half)).expect("signals"),
        Applied::Rows(600),
        "another partition's first range is not a repeat"
    );
    assert_eq!(engine.take_alerts().len(), 1);
}

#[test]
fn an_ordinary_sender_leaves_nothing_behind() {
    let mut engine = Engine::new(Rules::detectors().expect("rules"));
    let people: Vec<_> = (0..200).map(|i| message(i, NOON)).collect();
    engine.apply(&batch(0, 0, &people)).expect("signals");
    assert_eq!(engine.footprint().senders, 200);
    engine.apply(&batch(0, 1, &[message(250, NOON + 3_600_000)])).expect("signals");
    for _ in 0..3 {
        engine.sweep();
    }
    assert_eq!(engine.footprint().senders, 1);
}

#[test]
fn what_an_officer_reads() {
    let mut content = evenly(1100, 50_000, NOON);
    content.extend(evenly(120, 12_000, NOON).into_iter().map(|r| Row { person: Some([7; 16]), age_s: Some(60), ..r }));
    content.extend((0..1_300_u32).map(|i| sent_by("shop-9", i, NOON + i64::from(i), Category::Marketing, Tier::T250)));
    content.extend((0..60).map(|_| Row {
        kind: SignalKind::Reported,
        business: Some("shop-9"),
        person: None,
        ..message(0, NOON + 5)
    }));
    content.extend((0..3).map(|_| Row { kind: SignalKind::BusinessReplied, business: Some("shop-9"), ..message(0, NOON + 6) }));
    content.extend((0..12).map(|i| added(3, NOON + i * 30_000, 12, 11)));
    let mut found = alerts(&content);
    found.sort_by(|a, b| a.rule.cmp(&b.rule));
    let text = serde_json::to_string_pretty(&found).expect("JSON");
    assert!(text.contains("<10 replies"), "small counts are not told");
    insta::assert_snapshot!("alerts", text);
    insta::assert_snapshot!("cloud_event", serde_json::to_string_pretty(&cloud_event(&found[0])).expect("JSON"));
    let headers: Vec<_> = cloud_event_headers(&found[0]).iter().map(|(name, value)| format!("{name}: {value}")).collect();
    insta::assert_snapshot!("cloud_event_headers", headers.join("\n"));
}

#[test]
fn a_damaged_snapshot_is_refused_wherever_it_is_cut() {
    let mut engine = Engine::new(Rules::detectors().expect("rules"));
    engine.apply(&batch(0, 0, &mixed())).expect("signals");
    let saved = engine.snapshot().expect("snapshot");
    for cut in (0..saved.len()).step_by(97) {
        assert!(Engine::restore(Rules::detectors().expect("rules"), &saved[..cut]).is_err(), "cut at {cut}");
    }
}

/// Something of everything, over two days.
fn mixed() -> Vec<Row> {
    let mut content = evenly(1300, 70_000, NOON);
    content.extend((0..1_200_u32).map(|i| sent_by("shop-9", i, NOON + i64::from(i) * 60, Category::Marketing, Tier::T250)));
    content.extend((0..14).map(|i| added(3, NOON + i * 30_000, 12, 11)));
    content.extend(evenly(110, 20_000, NOON + 5_000).into_iter().map(|r| Row { person: Some([9; 16]), age_s: Some(90), ..r }));
    content.extend((0..300_u32).map(|i| sent_by("shop-9", i, NOON + DAY_MS, Category::Marketing, Tier::T250)));
    content
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn i9_order_and_cuts_do_not_change_the_alerts(seed: u64, size in 50_usize..900) {
        let expected = alerts(&mixed());
        let mut content = mixed();
        // Shuffled as a whole: partitions that are read side by side may be hours apart.
        let mut state = seed | 1;
        for i in (1..content.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            content.swap(i, (state >> 33) as usize % (i + 1));
        }
        let mut engine = Engine::new(Rules::detectors().expect("rules"));
        let mut latest = std::collections::BTreeMap::new();
        for (i, part) in content.chunks(size).enumerate() {
            engine.apply(&batch((i % 3) as i32, i as i64, part)).expect("signals");
            latest.extend(engine.take_alerts().into_iter().map(|a| (a.fingerprint.clone(), Alert { revision: 1, ..a })));
        }
        let mut found: Vec<_> = latest.into_values().collect();
        found.sort_by(|a, b| a.fingerprint.cmp(&b.fingerprint));
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn i9_an_engine_restored_anywhere_goes_on_as_if_nothing_had_happened(cut in 1_usize..2_900) {
        let content = mixed();
        let cut = cut.min(content.len() - 1);
        let mut straight = Engine::new(Rules::detectors().expect("rules"));
        straight.apply(&batch(0, 0, &content[..cut])).expect("signals");
        let saved = straight.snapshot().expect("snapshot");
        let mut restored = Engine::restore(Rules::detectors().expect("rules"), &saved).expect("restores");
        prop_assert_eq!(restored.snapshot().expect("snapshot"), saved);
        for engine in [&mut straight, &mut restored] {
            engine.apply(&batch(0, 1, &content[cut..])).expect("signals");
            engine.sweep();
        }
        prop_assert_eq!(straight.take_alerts(), restored.take_alerts());
        prop_assert_eq!(straight.snapshot().expect("snapshot"), restored.snapshot().expect("snapshot"));
    }
}
