//! Thresholds of the rules about the pipeline itself.

use serde::Deserialize;

/// Days that may be asked for before a partition is judged.
const MOST_KNOWN_DAYS: usize = 14;

/// Events that lie behind what their partition had been read to.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PipelineReplay {
    /// Version.
    pub version: u32,
    /// Fewest in an hour.
    pub events: u64,
    /// And so large a share of the events in a usual hour.
    pub share: f64,
    /// And so many times the account's own fullest hour of a usual day.
    pub over_baseline: f64,
    /// Days that must be known of a partition.
    pub known_days: usize,
}

/// Events of one class that cannot be read, or lack what clients say.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PipelinePoisoning {
    /// Version.
    pub version: u32,
    /// Fewest of a class in an hour.
    pub events: u64,
    /// And so large a share of the events in a usual hour.
    pub share: f64,
    /// And so many times the account's own fullest hour of a usual day.
    pub over_baseline: f64,
    /// Days that must be known of a partition.
    pub known_days: usize,
}

/// Refused statements of one principal within an hour.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DoorProbing {
    /// Version.
    pub version: u32,
    /// Over what the role may not read.
    pub forbidden: u64,
    /// Naming what there is not.
    pub unknown: u64,
    /// Beyond the budget.
    pub budget: u64,
    /// Beyond limits of size, time or memory.
    pub limits: u64,
    /// Any other.
    pub unfit: u64,
    /// And so many times the principal's own fullest hour of a usual day.
    pub over_baseline: f64,
}

/// Private questions of one principal that differ in literals alone, within an hour.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DoorDifferencing {
    /// Version.
    pub version: u32,
    /// Fewest that an earlier one was but for its literals.
    pub questions: u64,
    /// And so many times the principal's own fullest hour of a usual day.
    pub over_baseline: f64,
}

/// Alerts that one principal opened, or asked for in vain, within an hour.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DoorLookups {
    /// Version.
    pub version: u32,
    /// Different ones that were opened.
    pub opened: u64,
    /// That there are none of.
    pub missing: u64,
    /// And so many times the principal's own fullest hour of a usual day.
    pub over_baseline: f64,
}

/// Refused log-ins within an hour.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DoorGuessing {
    /// Version.
    pub version: u32,
    /// Of one user.
    pub of_user: u64,
    /// At one door.
    pub at_door: u64,
    /// Different names at one door.
    pub names: u64,
    /// Tokens at one door that are nobody's.
    pub tokens: u64,
    /// And so many times the account's own fullest hour of a usual day.
    pub over_baseline: f64,
}

/// Says what is wrong with a rule over partitions.
fn check_partitions(rule: &str, events: u64, share: f64, over: f64, known_days: usize) -> Result<(), String> {
    if events < 10 {
        return Err(format!("{rule}.events must be at least 10"));
    }
    if !(0.0..=1.0).contains(&share) {
        return Err(format!("{rule}.share must be 0 to 1"));
    }
    if !(1..=MOST_KNOWN_DAYS).contains(&known_days) {
        return Err(format!("{rule}.known_days must be 1 to {MOST_KNOWN_DAYS}"));
    }
    check_over(rule, over)
}

fn check_over(rule: &str, over: f64) -> Result<(), String> {
    if (1.0..=1000.0).contains(&over) { Ok(()) } else { Err(format!("{rule}.over_baseline must be 1 to 1000")) }
}

/// Says what is wrong with a rule over doors.
fn check_doors(rule: &str, numbers: &[(&str, u64)], over: f64) -> Result<(), String> {
    match numbers.iter().find(|(_, number)| *number < 5) {
        Some((name, _)) => Err(format!("{rule}.{name} must be at least 5")),
        None => check_over(rule, over),
    }
}

impl crate::Rules {
    /// What rules about the pipeline itself must keep.
    pub(crate) fn check_on_us(&self) -> Result<(), String> {
        let (replay, poisoning) = (&self.pipeline_replay, &self.pipeline_poisoning);
        check_partitions("pipeline_replay", replay.events, replay.share, replay.over_baseline, replay.known_days)?;
        check_partitions("pipeline_poisoning", poisoning.events, poisoning.share, poisoning.over_baseline, poisoning.known_days)?;
        let DoorProbing { forbidden, unknown, budget, limits, unfit, over_baseline, version: _ } = self.door_probing;
        let numbers = [("forbidden", forbidden), ("unknown", unknown), ("budget", budget), ("limits", limits), ("unfit", unfit)];
        check_doors("door_probing", &numbers, over_baseline)?;
        let differencing = &self.door_differencing;
        check_doors("door_differencing", &[("questions", differencing.questions)], differencing.over_baseline)?;
        let DoorLookups { opened, missing, over_baseline, version: _ } = self.door_lookups;
        check_doors("door_lookups", &[("opened", opened), ("missing", missing)], over_baseline)?;
        let DoorGuessing { of_user, at_door, names, tokens, over_baseline, version: _ } = self.door_guessing;
        let numbers = [("of_user", of_user), ("at_door", at_door), ("names", names), ("tokens", tokens)];
        check_doors("door_guessing", &numbers, over_baseline)
    }
}
