//! I1, I9: events at, just before and just after each boundary in time have one outcome, fixed by the range's plan.

#![allow(missing_docs, dead_code)]

mod common;

use std::sync::Arc;

use common::{DAY, encoded, event, message, run_with};
use starling_minimize::{Limits, RangeContext};
use starling_schemas::codes::{Fault, Outcome};
use starling_schemas::ids::EpochId;

const YESTERDAY: EpochId = EpochId(DAY.0 - 1);
const TOMORROW: EpochId = EpochId(DAY.0 + 1);

#[test]
fn i1_i9_each_side_of_each_boundary_has_its_outcome_also_in_a_replay() {
    let earliest_ms = Limits::default().earliest_ms;
    let latest_ms = TOMORROW.start_ms() + 5_000;
    let out_of_range = (None, Outcome::Quarantined(Fault::TimeOutOfRange));
    let counted = |day| (Some(day), Outcome::Counted);
    let late = |day| (Some(day), Outcome::Late);
    let first_day = EpochId::of(earliest_ms);
    // Nothing closed yet · yesterday closed · today closed.
    let cases = [
        ("before the earliest", earliest_ms - 1, [out_of_range; 3]),
        ("at the earliest", earliest_ms, [counted(first_day), late(first_day), late(first_day)]),
        ("yesterday's last millisecond", DAY.start_ms() - 1, [counted(YESTERDAY), late(YESTERDAY), late(YESTERDAY)]),
        ("midnight", DAY.start_ms(), [counted(DAY), counted(DAY), late(DAY)]),
        ("after midnight", DAY.start_ms() + 1, [counted(DAY), counted(DAY), late(DAY)]),
        ("today's last millisecond", DAY.end_ms() - 1, [counted(DAY), counted(DAY), late(DAY)]),
        ("the next midnight", DAY.end_ms(), [counted(TOMORROW); 3]),
        ("before the latest", latest_ms - 1, [counted(TOMORROW); 3]),
        ("at the latest", latest_ms, [counted(TOMORROW); 3]),
        ("after the latest", latest_ms + 1, [out_of_range; 3]),
        ("never", i64::MAX, [out_of_range; 3]),
        ("ever", i64::MIN, [out_of_range; 3]),
    ];
    for (name, time_ms, expected) in cases {
        let mut one = event(message());
        one.event_time_ms = time_ms;
        let frames = [encoded(&one)];
        for (closed_through, (day, outcome)) in [None, Some(YESTERDAY), Some(DAY)].into_iter().zip(expected) {
            for attempt in ["first", "replay"] {
                let minimized = run_with(
                    Arc::default(),
                    RangeContext { closed_through, hours_after: None, latest_ms, read_to_ms: None },
                    &frames,
                );
                assert_eq!(minimized.counts, [(day, outcome, 1)], "{name}, closed through {closed_through:?}, {attempt}");
                assert_eq!(minimized.clean.num_rows(), usize::from(outcome == Outcome::Counted), "{name}");
            }
        }
    }
}
