//! What is asked of a new template.

use serde::Deserialize;

/// Blocks and reports that the first batch of a new template draws.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BusinessTemplate {
    /// Version.
    pub version: u32,
    /// An unwanted template draws this many times what is usual.
    pub factor: f64,
    /// Fires where what is seen is so many times as likely of an unwanted template as of a usual one: one over this. Of usual templates at most
    /// this share is told of.
    pub alpha: f64,
    /// Watched no longer where it is at most so many times as likely.
    pub accept: f64,
    /// Fewest blocks and reports.
    pub feedback: u32,
    /// Hours of the clock for which a template is watched, that of its first message included.
    pub watch_hours: i32,
    /// Watched no longer after so many messages.
    pub batch: u32,
}

impl BusinessTemplate {
    /// What the rules' text must keep.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        // Of fewer than ten is told that they are fewer, and never from how many on below this.
        if !(8..=1000).contains(&self.feedback) || !(100..=1_000_000).contains(&self.batch) {
            return Err("business_template.feedback must be 8 to 1000, and batch 100 to 1000000");
        }
        if !(1.5..=100.0).contains(&self.factor) || !(1e-9..=0.01).contains(&self.alpha) || !(1e-6..=0.5).contains(&self.accept) {
            return Err("business_template.factor must be 1.5 to 100, alpha 0.000000001 to 0.01, and accept 0.000001 to 0.5");
        }
        if !(1..=24).contains(&self.watch_hours) {
            return Err("business_template.watch_hours must be 1 to 24");
        }
        Ok(())
    }

    /// How much more likely, as a logarithm, so many blocks and reports are of an unwanted template than of a usual one, where `usual` would be usual:
    /// counts are Poisson.
    pub(crate) fn evidence(&self, feedback: u32, usual: f64) -> f64 {
        f64::from(feedback) * self.factor.ln() - (self.factor - 1.0) * usual
    }

    /// The evidence at which it fires.
    pub(crate) fn limit(&self) -> f64 {
        -self.alpha.ln()
    }

    /// The least number of blocks and reports at which it fires where `usual` would be usual.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub(crate) fn needed(&self, usual: f64) -> u32 {
        let least = ((self.limit() + (self.factor - 1.0) * usual) / self.factor.ln()).ceil();
        (least as u32).max(self.feedback)
    }
}
