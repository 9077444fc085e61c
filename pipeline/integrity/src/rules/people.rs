//! What is asked of senders.

use serde::Deserialize;

/// Messages of one sender within a time.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BulkPerMinute {
    /// Version.
    pub version: u32,
    /// Fires at this many.
    pub messages: u32,
    /// Length of the window, in milliseconds.
    pub within_ms: i64,
}

/// Messages of one young account within a time.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewAccountBurst {
    /// Version.
    pub version: u32,
    /// Fires at this many.
    pub messages: u32,
    /// Length of the window, in milliseconds.
    pub within_ms: i64,
    /// Oldest account it looks at, in seconds since registration.
    pub account_age_s: u64,
}

/// First contacts of one sender that nobody answers, added up over days.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlowBulk {
    /// Version.
    pub version: u32,
    /// New contacts a day from which on a sender is looked at.
    pub new_a_day: u32,
    /// Fires at this much evidence, in thousandths of a nat.
    pub threshold_millinats: i32,
    /// Share of first contacts that are answered within a day, before any are counted.
    pub prior_rate: f64,
    /// Share of the segment's rate that still is nothing wrong.
    pub null_share: f64,
    /// Least share that is nothing wrong.
    pub least_null: f64,
    /// Largest share that is asked of anybody.
    pub most_null: f64,
    /// Suspects held at most.
    pub most_suspects: u32,
    /// Contacts that wait for an answer at most.
    pub most_waiting: u32,
}

impl SlowBulk {
    pub(super) fn check(&self) -> Result<(), &'static str> {
        if self.new_a_day < 1 || self.threshold_millinats < 1000 {
            return Err("slow_bulk.new_a_day must be at least 1, and threshold_millinats at least 1000");
        }
        let shares = [self.prior_rate, self.null_share, self.least_null, self.most_null];
        if !shares.iter().all(|s| (0.01..=0.99).contains(s)) || self.least_null > self.most_null {
            return Err("slow_bulk's rates and shares must be 0.01 to 0.99, and least_null at most most_null");
        }
        // A suspect's place has 26 bits.
        if !(1..=60_000_000).contains(&self.most_suspects) || !(1..=400_000_000).contains(&self.most_waiting) {
            return Err("slow_bulk.most_suspects must be 1 to 60000000, and most_waiting 1 to 400000000");
        }
        Ok(())
    }
}

/// Members of one registration cohort who write to strangers and are not answered.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Coordinated {
    /// Version.
    pub version: u32,
    /// New people from which on a member is looked at.
    pub contacts: u32,
    /// New people below which a member is taken back that wrote to nobody new for a day.
    pub lasting: u32,
    /// Fewest members whom nearly nobody answers.
    pub members: u32,
    /// Fires where so many of them, or more, have at most this probability.
    pub tail: f64,
    /// How alike members are: a member's own share of answers is beta-distributed around the cohort's, with parameters that add up to this.
    pub spread: f64,
    /// More members than this say no more than as many do.
    pub alike: u32,
    /// Share of first contacts that are answered within the hour, before any are counted.
    pub prior_rate: f64,
    /// Members held at most.
    pub most_members: u32,
}

impl Coordinated {
    pub(super) fn check(&self) -> Result<(), &'static str> {
        if !(2..=20).contains(&self.contacts) || self.members < 10 || self.alike < self.members {
            return Err("coordinated_senders.contacts must be 2 to 20, members at least 10, and alike at least as many");
        }
        if !(self.contacts..=1_000).contains(&self.lasting) {
            return Err("coordinated_senders.lasting must be coordinated_senders.contacts to 1000");
        }
        if !(0.01..=0.99).contains(&self.prior_rate) || !(0.5..=1000.0).contains(&self.spread) {
            return Err("coordinated_senders.prior_rate must be 0.01 to 0.99, and spread 0.5 to 1000");
        }
        if !(1e-12..=0.1).contains(&self.tail) || !(1..=100_000_000).contains(&self.most_members) {
            return Err("coordinated_senders.tail must be 1e-12 to 0.1, and most_members 1 to 100000000");
        }
        Ok(())
    }
}
