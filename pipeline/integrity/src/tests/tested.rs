//! How many businesses and groups were tested, however their signals come.

use super::*;

/// Two days: three businesses that write to many, of which one is silent on the second, and thirty groups in which something happens again and again.
fn content() -> Vec<Row> {
    let mut rows = Vec::new();
    for day in 0..2_i64 {
        for n in 0..60_u32 {
            let time = NOON + day * DAY_MS + i64::from(n) * 120_000;
            for business in ["a", "b", "c"].into_iter().take(3 - usize::from(day == 1)) {
                rows.push(sent_by(business, n, time, Category::Marketing, Tier::Unknown));
            }
            rows.push(added(u8::try_from(n % 30).expect("small").wrapping_mul(8), time, 1, 0));
        }
    }
    rows
}

#[test]
fn i9_each_business_and_group_is_counted_once_a_day_however_rows_are_cut_and_forgotten() {
    let content = content();
    let today = EpochId::of(NOON).0;
    let mut of_all = None;
    for size in [1, 7, content.len()] {
        let mut engine = Engine::new(Rules::detectors().expect("rules"));
        for (i, part) in content.chunks(size).enumerate() {
            engine.apply(&batch(0, i as i64, part)).expect("signals");
            engine.take_alerts();
            // Who is silent for a while is forgotten, and comes again.
            (0..3).for_each(|_| engine.sweep());
            if i % 5 == 0 {
                engine =
                    Engine::restore(Rules::detectors().expect("rules"), &engine.snapshot().expect("saves")).expect("restores");
            }
        }
        assert_eq!([0, 1, 2].map(|day| engine.tested("business", today + day)), [Some(3), Some(2), Some(0)], "{size}");
        for day in [0, 1] {
            let groups = engine.tested("group", today + day).expect("counted");
            assert!((30..=40).contains(&groups), "{size}: {groups}");
        }
        let tested = engine.tested_days().expect("JSON");
        assert_eq!(of_all.get_or_insert_with(|| tested.clone()), &tested, "{size} rows a batch");
        let read = starling_schemas::chosen::TestedDays::read(&[tested]).expect("reads");
        for kind in ["person", "business", "group"] {
            assert_eq!(
                (0..3).map(|day| read.of(kind, today + day)).collect::<Vec<_>>(),
                (0..3).map(|day| engine.tested(kind, today + day)).collect::<Vec<_>>()
            );
        }
    }
    assert_eq!(Engine::new(Rules::detectors().expect("rules")).tested_days().expect("nothing"), "");
}
