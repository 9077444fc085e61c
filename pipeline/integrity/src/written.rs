//! # Written rules: what integrity staff want found, as text
//!
//! ```text
//!   TOML, a table a rule ──read──► when: typed (condition) ──tests──► Written ──► judge/written: what changed, all at once
//!                                  any fault refuses the whole file            └─► backtest: what was kept of the last days
//! ```
//!
//! A rule names a fact ([`Fact`]), a condition over its columns, and the column that it counts. It fires where the condition is true and what it
//! counts reaches `least`, which is ten or more: smaller counts are told of nobody. Beside each rule stand its tests, windows that it must and must
//! not fire on; they run whenever rules are read, and a rule that fails one is not taken in. Nor is any other of its file: a detector runs with
//! all the rules there are or does not start.
//!
//! A rule's name may change: `before` lists the names it had, the first one first, and what it found keeps its fingerprint, so that open alerts and
//! verdicts stay with it. Another condition under the same name is a new `version`; windows that are still counted are judged anew. A rule that is
//! taken out leaves what it found as it is.
//!
//! **What a condition says of small counts is known where it fires**: `replied = 0` tells that nobody replied, though the count itself is told as
//! "<10". Whoever reviews a rule minds that.

mod condition;
mod read;

use std::sync::Arc;

pub(crate) use condition::Condition;

use crate::facts::{Cell, Column, Fact, Row};
use crate::standing::Standing;

/// Smaller counts of people, or of what they did, are told of nobody.
pub(crate) const LEAST: u32 = 10;

/// A file of written rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleFile {
    /// Where it is, for faults.
    pub name: String,
    /// TOML.
    pub text: String,
}

/// A rule that somebody wrote, read, typed and tested.
#[derive(Debug, Clone)]
pub struct WrittenRule {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u32,
    /// Why it is there.
    pub about: String,
    /// What it looks at.
    pub on: Fact,
    /// The condition, as it is written.
    pub when: String,
    /// The column that is told as observed.
    pub counts: &'static str,
    /// Fires where that reaches so many.
    pub least: u32,
    /// `low`, `medium` or `high`.
    pub severity: &'static str,
    /// Names it had, the first one first.
    pub before: Vec<String>,
    /// Who is told of what it finds.
    pub standing: Standing,
    /// How many tests stand beside it.
    pub tests: usize,
    /// The file it is from.
    pub file: String,
    /// Place of `counts` among the fact's columns.
    place: usize,
    condition: Condition,
    /// Of all that decides whether it fires.
    digest: [u8; 16],
}

impl PartialEq for WrittenRule {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, &self.about, &self.before, &self.standing, self.severity, self.digest)
            == (&other.name, &other.about, &other.before, &other.standing, other.severity, other.digest)
    }
}

impl WrittenRule {
    /// The name that its fingerprints are of: the first it had.
    #[must_use]
    pub fn first_name(&self) -> &str {
        self.before.first().unwrap_or(&self.name)
    }

    /// Of all that decides whether it fires.
    pub(crate) fn digest(&self) -> &[u8; 16] {
        &self.digest
    }

    /// Whether a window can be one it fires on, by counts of which none is below the window's own.
    pub(crate) fn may_fire(&self, bounds: &[u32]) -> bool {
        bounds.get(self.place).is_some_and(|n| *n >= self.least)
    }

    /// For each row whether it fires, and on how many. `batch` is of `rows`.
    pub(crate) fn fires(&self, rows: &[Row], batch: &arrow::array::RecordBatch) -> Vec<Option<u32>> {
        let held = self.condition.holds(batch);
        rows.iter().zip(held).map(|(row, held)| self.observed(row).filter(|n| held && *n >= self.least)).collect()
    }

    /// What it counts in a row.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub(crate) fn observed(&self, row: &Row) -> Option<u32> {
        // Counts are whole and fit.
        row.get(self.place).and_then(|cell| cell.number()).map(|n| n as u32)
    }

    /// What a number is held against: the business's own past where people are counted and it is known. Fewer than ten count as ten, so that
    /// they are not told.
    pub(crate) fn baseline(&self, row: &Row) -> Option<f64> {
        let usual = || row.get(self.on.place("usual_reached")?).and_then(|cell| cell.number());
        (self.counts == "reached").then(usual).flatten().map(|n| n.max(f64::from(LEAST)))
    }

    /// How far beyond what it is held against, rounded to hundredths: over the baseline, or over `least` where there is none.
    pub(crate) fn factor(&self, row: &Row, observed: u32) -> f64 {
        let over = self.baseline(row).unwrap_or_else(|| f64::from(self.least));
        (f64::from(observed) / over * 100.0).round() / 100.0
    }

    /// The columns it counts and names, with what they say in a row: counts of people under ten as "<10".
    pub(crate) fn told(&self, row: &Row) -> String {
        let named = self.condition.columns.iter().filter(|place| **place != self.place);
        let told = |place: &usize| -> Option<String> {
            let (column, cell): (&Column, &Cell) = (self.on.columns().get(*place)?, row.get(*place)?);
            Some(format!("{} {}", column.name, column.told(*cell)))
        };
        std::iter::once(&self.place).chain(named).filter_map(told).collect::<Vec<_>>().join(", ")
    }

    /// Whether it names any of these columns.
    pub(crate) fn names(&self, columns: &[&str]) -> bool {
        let named = self.condition.columns.iter().chain([&self.place]);
        named.filter_map(|place| self.on.columns().get(*place)).any(|column| columns.contains(&column.name))
    }
}

/// All written rules in force, in order of their names. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Written(Arc<[WrittenRule]>);

impl Written {
    /// Reads files of rules, one after the other. A later file's rule replaces one of the same name that was `shipped`; otherwise names are unique,
    /// among themselves, among names that rules had before, and beside the `detectors`.
    ///
    /// # Errors
    /// Every fault there is: file, rule, field and what to do.
    pub fn read(shipped: &RuleFile, more: &[RuleFile], detectors: &[&str]) -> Result<Self, Vec<String>> {
        read::all(shipped, more, detectors).map(|mut rules| {
            rules.sort_by(|a, b| a.name.cmp(&b.name));
            Self(rules.into())
        })
    }

    /// The rules.
    #[must_use]
    pub fn rules(&self) -> &[WrittenRule] {
        &self.0
    }

    /// The rules on a fact.
    pub(crate) fn on(&self, fact: Fact) -> impl Iterator<Item = &WrittenRule> {
        self.0.iter().filter(move |rule| rule.on == fact)
    }

    /// The rule that had this name before.
    pub(crate) fn once_named(&self, name: &str) -> Option<&WrittenRule> {
        self.0.iter().find(|rule| rule.before.iter().any(|before| before == name))
    }

    /// The rule of this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&WrittenRule> {
        self.0.iter().find(|rule| rule.name == name)
    }
}
