//! Clocks. Days are closed and keys destroyed by this machine's, so one that is wrong does both at the wrong time; and two machines whose clocks
//! differ do not agree on which days are over.

use starling_schemas::time::Clock as _;

use crate::clock::SystemClock;
use crate::columns::duration;
use crate::home::Home;

/// How far two clocks may be apart: more than it takes to ask, and less than anything here depends on.
const APART_MS: i64 = 30_000;

pub(super) async fn look(home: &Home, say: &mut impl FnMut(bool, String)) {
    let before_ms = SystemClock.now_ms();
    // An error was told by whoever looked at the metastore.
    let Ok(probe) = home.metastore.probe().await else { return };
    let now_ms = SystemClock.now_ms();
    if let Some(theirs_ms) = probe.now_ms {
        let (good, what) = beside_the_database(before_ms, now_ms, theirs_ms);
        say(good, what);
    }
    let Ok(newest) = home.metastore.audit_tail(1).await else { return };
    if let Some(ahead) = newest.last().and_then(|entry| written_ahead(entry.at_ms, now_ms)) {
        say(false, ahead);
    }
}

/// Compares the database's clock with this one, which was looked at before and after it was asked.
fn beside_the_database(before_ms: i64, after_ms: i64, theirs_ms: i64) -> (bool, String) {
    let apart_ms = (before_ms - theirs_ms).max(theirs_ms - after_ms);
    if apart_ms <= APART_MS {
        return (true, "clock: it agrees with the database's".to_owned());
    }
    let ahead = if theirs_ms > after_ms { "behind" } else { "ahead of" };
    (
        false,
        format!(
            "clock: this machine's is {} {ahead} the database's: days are closed and keys destroyed by it; have NTP set both",
            duration(apart_ms)
        ),
    )
}

/// What there is to say of an audit entry that was written later than now.
fn written_ahead(at_ms: i64, now_ms: i64) -> Option<String> {
    (at_ms - now_ms > APART_MS).then(|| {
        format!(
            "clock: the newest entry of the audit log is {} in the future: this machine's clock is behind, or the one that wrote it was ahead; days \
             may have been closed too early",
            duration(at_ms - now_ms)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_differ_are_told_and_the_time_it_takes_to_ask_is_not_taken_for_it() {
        for (before, after, theirs, good, words) in [
            (1_000, 2_000, 1_500, true, "agrees"),
            (0, 120_000, 60_000, true, "agrees"),
            (0, 1_000, 31_000, true, "agrees"),
            (0, 1_000, 31_001, false, "30s behind the database's"),
            (100_000, 100_500, 30_000, false, "1m 10s ahead of the database's"),
        ] {
            let (is_good, what) = beside_the_database(before, after, theirs);
            assert_eq!((is_good, what.contains(words)), (good, true), "{what}");
        }
        assert_eq!(written_ahead(31_000, 1_000), None);
        let told = written_ahead(7_200_000, 0).expect("told");
        assert!(told.contains("2h in the future"), "{told}");
    }
}
