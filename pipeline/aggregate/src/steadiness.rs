//! Whether the wall clock goes on as time does: a pure watch over two clocks.
//!
//! Deadlines are times of the wall clock, and keys die by them. A clock that is set on by mistake, by a month, say, would destroy the keys of
//! every open day at once, and nothing brings them back. Nobody can tell a clock that was put right from one that was put wrong; but that it
//! jumped shows beside a monotonic clock. Then closing is held back for [`HOLD_MS`], long enough for an alarm, a time server or a person to put
//! it right again, and short beside any deadline. After that the clock is believed: keys must die (I7).
//!
//! A process that starts under a wrong clock sees no jump. A machine that sleeps does: its monotonic clock stands meanwhile.

/// A step of the wall clock against the monotonic one, in milliseconds, that no time server makes in small corrections.
pub const JUMP_MS: i64 = 60_000;

/// How long closing is held back after a jump, in milliseconds of the monotonic clock.
pub const HOLD_MS: i64 = 600_000;

/// What a look at the clocks found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// The wall clock may be believed.
    Steady,
    /// It has just jumped by so many milliseconds, on (above 0) or back.
    Jumped {
        /// How far.
        by_ms: i64,
    },
    /// It jumped a while ago; for so many milliseconds more it is not believed.
    Holding {
        /// How long.
        left_ms: i64,
    },
}

/// Watches the wall clock beside a monotonic one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Steadiness {
    /// Wall clock minus monotonic clock at the last look.
    difference_ms: Option<i64>,
    hold_until_ms: Option<i64>,
}

impl Steadiness {
    /// Looks at both clocks, `monotonic_ms` counted from any fixed moment.
    pub fn look(&mut self, wall_ms: i64, monotonic_ms: i64) -> Look {
        let difference_ms = wall_ms.saturating_sub(monotonic_ms);
        let by_ms = difference_ms.saturating_sub(self.difference_ms.replace(difference_ms).unwrap_or(difference_ms));
        if by_ms.saturating_abs() >= JUMP_MS {
            self.hold_until_ms = Some(monotonic_ms.saturating_add(HOLD_MS));
            return Look::Jumped { by_ms };
        }
        match self.hold_until_ms {
            Some(until) if monotonic_ms < until => Look::Holding { left_ms: until.saturating_sub(monotonic_ms) },
            _ => Look::Steady,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use starling_schemas::ids::DAY_MS;

    use super::*;

    #[test]
    fn a_clock_set_on_or_back_is_not_believed_for_ten_minutes() {
        for by_ms in [30 * DAY_MS, DAY_MS, -DAY_MS, JUMP_MS] {
            let mut watch = Steadiness::default();
            assert_eq!(watch.look(50 * DAY_MS, 0), Look::Steady);
            assert_eq!(watch.look(50 * DAY_MS + 1_000, 1_000), Look::Steady);
            assert_eq!(watch.look(50 * DAY_MS + 2_000 + by_ms, 2_000), Look::Jumped { by_ms });
            assert_eq!(watch.look(50 * DAY_MS + 3_000 + by_ms, 3_000), Look::Holding { left_ms: HOLD_MS - 1_000 });
            assert_eq!(watch.look(50 * DAY_MS + 2_000 + HOLD_MS + by_ms, 2_000 + HOLD_MS), Look::Steady);
        }
    }

    #[test]
    fn a_clock_that_stands_is_noticed_once_it_has_stood_for_a_minute() {
        let mut watch = Steadiness::default();
        let looks: Vec<Look> = (0..3).map(|minute| watch.look(DAY_MS, minute * JUMP_MS)).collect();
        assert_eq!(looks, [Look::Steady, Look::Jumped { by_ms: -JUMP_MS }, Look::Jumped { by_ms: -JUMP_MS }]);
    }

    proptest! {
        #[test]
        fn a_clock_that_only_drifts_is_believed(steps in prop::collection::vec((0..30_000_i64, -1_000..1_000_i64), 1..100)) {
            let (mut watch, mut wall_ms, mut monotonic_ms) = (Steadiness::default(), 40 * DAY_MS, 0);
            for (passed_ms, drift_ms) in steps {
                monotonic_ms += passed_ms;
                wall_ms += passed_ms + drift_ms;
                prop_assert_eq!(watch.look(wall_ms, monotonic_ms), Look::Steady);
            }
        }
    }
}
