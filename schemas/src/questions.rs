//! What may be asked of a dataset, and within which bounds: the part of a dataset's text that questions in SQL go by.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::metrics::NanoRho;

/// Bounds and defaults of questions over a dataset.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Questions {
    /// At most so many groups hold something of one person. A question may lower it.
    pub groups_per_person: u32,
    /// Of one person's rows in a group at most so many count for `COUNT`. A question may lower it.
    pub rows_per_group: u32,
    /// Values one person brings to a quantile, if they are all in one group; `rows_per_group` where it is not said. Fewer make less noise, and take
    /// less of the busiest people's own spread.
    #[serde(default)]
    values_per_person: Option<u32>,
    /// ρ of a question that names no budget.
    rho: f64,
    /// δ of a question whose groups are discovered: with at most this chance a group is shown that one person alone is in.
    #[serde(default)]
    pub threshold_delta: f64,
    /// Whole numbers that may be summed, by column.
    #[serde(default)]
    pub measures: BTreeMap<String, MeasureBounds>,
    /// Columns that may be grouped and filtered by, where the dataset is a file of its own.
    #[serde(default)]
    pub dimensions: BTreeMap<String, DimensionText>,
    /// Where the rows are, if they are not Starling's own.
    #[serde(default)]
    pub source: Option<Source>,
}

/// Bounds of a measure.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasureBounds {
    /// What it is.
    pub description: String,
    /// Its unit, after `times`.
    pub unit: String,
    /// Of a file of one's own: the column it is in, where that has another name.
    #[serde(default)]
    pub column: Option<String>,
    /// Of a file of one's own, where the column has fractions: how many to one. Rows are counted in whole numbers of this part, to the nearest, and halves
    /// away from zero: 100 makes cents of an amount.
    #[serde(default)]
    pub times: Option<u32>,
    /// Smallest and largest value of a row; what is beyond is clamped.
    pub row: [i64; 2],
    /// Smallest and largest sum of one person in a group; what is beyond is clipped, as one sum.
    pub person: [i64; 2],
}

/// A column to group by.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DimensionText {
    /// What it is.
    pub description: String,
    /// All values it may have, where they are public: then groups are listed, and nothing has to be discovered.
    #[serde(default)]
    pub values: Option<Vec<String>>,
}

/// Rows that are not Starling's own.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// A Parquet file, or a folder of them.
    pub parquet: String,
    /// The column that says whose row it is.
    pub person: String,
}

impl Questions {
    /// ρ of a question that names no budget.
    #[must_use]
    pub fn rho(&self) -> NanoRho {
        NanoRho::cost(self.rho)
    }

    /// Values one person brings to a quantile, if they are all in one group.
    #[must_use]
    pub fn values_per_person(&self) -> u32 {
        self.values_per_person.unwrap_or(self.rows_per_group)
    }

    /// What is wrong with it, if anything.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        if self.groups_per_person == 0 || self.rows_per_group == 0 || self.values_per_person == Some(0) {
            return Some("questions: groups_per_person, rows_per_group and values_per_person must be at least 1".to_owned());
        }
        if !(self.rho > 0.0 && self.rho.is_finite()) {
            return Some("questions.rho must be above 0".to_owned());
        }
        if !(0.0..1e-3).contains(&self.threshold_delta) {
            return Some("questions.threshold_delta must be 0 or more, and below 0.001".to_owned());
        }
        for (name, measure) in &self.measures {
            let ([row_low, row_high], [low, high]) = (measure.row, measure.person);
            if row_low > row_high || low > 0 || high < 0 || (low == 0 && high == 0) || low == i64::MIN || row_low == i64::MIN {
                return Some(format!(
                    "questions.measures.{name}: row must be ascending, and person a range around 0 that is not empty"
                ));
            }
            if measure.times == Some(0) {
                return Some(format!(
                    "questions.measures.{name}.times must be 1 or more: how many of its unit are one of the column's"
                ));
            }
            if self.source.is_none() && (measure.column.is_some() || measure.times.is_some()) {
                return Some(format!(
                    "questions.measures.{name}: column and times belong to a source; Starling's own rows have theirs"
                ));
            }
        }
        if self.source.is_none() && !self.dimensions.is_empty() {
            return Some("questions.dimensions belong to a source; Starling's own rows have theirs".to_owned());
        }
        let twice = self.dimensions.keys().find(|name| self.measures.contains_key(*name));
        twice.map(|name| format!("questions: `{name}` is a measure and a dimension"))
    }
}
