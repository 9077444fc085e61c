//! Places where a crash test ends the process.
//!
//! A debug build that finds `STARLING_KILL_AT=<name>` or `STARLING_KILL_AT=<name>:<n>` in its environment aborts at that point: the first
//! time, or the n-th time (from 1). Nothing is flushed and no destructor runs, as with `kill -9`. A release build has no kill points.

#[cfg(debug_assertions)]
use std::{
    collections::HashMap,
    sync::{Mutex, OnceLock, PoisonError},
};

/// All kill points, in the order in which an event meets them.
pub const NAMES: &[&str] = &[
    "after_plan",
    "after_process",
    "after_commit",
    "after_billing",
    "after_segment_written",
    "after_gathered_file",
    "after_gathered",
    "after_begin_close",
    "after_merge",
    "after_finish_close",
    // Between a key's destruction and its receipt.
    "before_receipt",
    "after_key_destroyed",
    "after_charge",
    "after_noise",
    "after_release_file",
    "after_facts_written",
    "after_state_written",
    "after_integrity_commit",
];

/// Reads `name` or `name:n`. A number that is none, or 0, means the first time.
#[cfg(debug_assertions)]
fn parse(text: &str) -> (String, u64) {
    match text.split_once(':') {
        Some((name, times)) => (name.to_owned(), times.parse().unwrap_or(1).max(1)),
        None => (text.to_owned(), 1),
    }
}

/// Says that the process has come to the point `name`. Ends the process if a crash test asked for it; see the module's text.
#[cfg(debug_assertions)]
pub fn reached(name: &'static str) {
    static WANTED: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static SEEN: OnceLock<Mutex<HashMap<&'static str, u64>>> = OnceLock::new();
    let wanted = WANTED.get_or_init(|| std::env::var("STARLING_KILL_AT").ok().map(|text| parse(&text)));
    let Some((wanted, time)) = wanted else { return };
    if wanted != name {
        return;
    }
    let mut seen = SEEN.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    let count = seen.entry(name).or_insert(0);
    *count += 1;
    if *count == *time {
        std::process::abort();
    }
}

/// Does nothing: kill points exist in debug builds only.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn reached(_name: &'static str) {}

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::*;

    #[test]
    fn a_kill_point_is_named_with_or_without_a_count() {
        assert_eq!(parse("after_plan"), ("after_plan".to_owned(), 1));
        assert_eq!(parse("after_plan:3"), ("after_plan".to_owned(), 3));
        assert_eq!(parse("after_plan:x"), ("after_plan".to_owned(), 1));
    }

    #[test]
    fn names_are_unique() {
        let unique: std::collections::HashSet<_> = NAMES.iter().collect();
        assert_eq!(unique.len(), NAMES.len());
    }

    #[test]
    fn without_the_variable_nothing_happens() {
        reached("after_plan");
    }
}
