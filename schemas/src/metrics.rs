//! Datasets and metrics as reviewed text: what is released, over what, within which bounds, at what cost.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::codes::Activity;

/// A cost or limit in zero-concentrated differential privacy (Bun & Steinke 2016), in billionths of ρ, so that the ledger adds exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct NanoRho(pub i64);

impl NanoRho {
    /// Rounds a cost up.
    #[must_use]
    #[allow(clippy::cast_possible_truncation)]
    pub fn cost(rho: f64) -> Self {
        Self((rho * 1e9 - 1e-6).ceil() as i64)
    }

    /// As ρ.
    #[must_use]
    #[allow(clippy::cast_precision_loss)]
    pub fn rho(self) -> f64 {
        self.0 as f64 / 1e9
    }
}

/// What is being summed per person and group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// One per person.
    People,
    /// The `events` counter.
    Events,
    /// The `seconds` counter.
    Seconds,
}

/// A column people are grouped by. All have a public list of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dimension {
    /// Country of the calling code.
    Country,
    /// Client platform.
    Platform,
    /// Conversation kind of a message.
    ConversationKind,
}

impl Dimension {
    /// The column's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Country => "country",
            Self::Platform => "platform",
            Self::ConversationKind => "conversation_kind",
        }
    }
}

/// Which activities a metric counts.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum Activities {
    Named(Vec<String>),
    Word(String),
}

/// How much one person can change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bounds {
    /// At most so many groups hold something of one person.
    pub groups_per_person: u32,
    /// At most so much of one person in each of them.
    pub value_per_group: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Budget {
    rho: f64,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct MetricText {
    name: String,
    title: String,
    description: String,
    dataset: String,
    measure: Measure,
    unit: String,
    #[serde(default = "one")]
    divide_by: u32,
    dimensions: Vec<Dimension>,
    activities: Activities,
    bounds: Bounds,
    budget: Budget,
}

const fn one() -> u32 {
    1
}

/// One released statistic.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    /// Table name under `stats`.
    pub name: String,
    /// A few words for people.
    pub title: String,
    /// What the number means.
    pub description: String,
    /// Name of its [`Dataset`].
    pub dataset: String,
    /// What is summed.
    pub measure: Measure,
    /// Unit of the released value.
    pub unit: String,
    /// The released value is the noisy sum divided by this.
    pub divide_by: u32,
    /// Columns it is grouped by.
    pub dimensions: Vec<Dimension>,
    /// Activities that count.
    pub activities: Vec<Activity>,
    /// Bounds per person.
    pub bounds: Bounds,
    /// Cost of one window.
    pub rho: NanoRho,
}

/// What a metric draws from, and how much it may ever cost one person.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dataset {
    /// What a row is.
    pub description: String,
    /// The neighbouring relation in words.
    pub privacy_unit: String,
    /// Limit of one block.
    rho_limit: f64,
    /// δ at which ε is told to people.
    pub delta: f64,
}

impl Dataset {
    /// Limit of one block (this dataset, one window).
    #[must_use]
    pub fn limit(&self) -> NanoRho {
        NanoRho::cost(self.rho_limit)
    }
}

/// All datasets and metrics.
#[derive(Debug, Clone, PartialEq)]
pub struct Catalogue {
    /// By name.
    pub datasets: BTreeMap<String, Dataset>,
    /// In the order they are released.
    pub metrics: Vec<Metric>,
}

/// A definition that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {what}")]
pub struct DefinitionError {
    /// File the definition stands in.
    pub file: String,
    /// What is wrong, and what to write instead.
    pub what: String,
}

impl Catalogue {
    /// The definitions this build carries.
    ///
    /// # Errors
    /// [`DefinitionError`] naming file and fault.
    pub fn builtin() -> Result<Self, DefinitionError> {
        Self::parse(
            include_str!("../metrics/datasets.toml"),
            &[
                ("people_served_daily.toml", include_str!("../metrics/people_served_daily.toml")),
                ("messages_daily.toml", include_str!("../metrics/messages_daily.toml")),
                ("call_minutes_daily.toml", include_str!("../metrics/call_minutes_daily.toml")),
            ],
        )
    }

    /// Reads definitions. `metrics`: (file name, text) each.
    ///
    /// # Errors
    /// [`DefinitionError`] naming file and fault.
    pub fn parse(datasets: &str, metrics: &[(&str, &str)]) -> Result<Self, DefinitionError> {
        let wrong = |file: &str, what: String| DefinitionError { file: file.to_owned(), what };
        let datasets: BTreeMap<String, Dataset> =
            toml::from_str(datasets).map_err(|e| wrong("datasets.toml", e.message().to_owned()))?;
        let mut out = Vec::new();
        for (file, text) in metrics {
            let text: MetricText = toml::from_str(text).map_err(|e| wrong(file, e.message().to_owned()))?;
            let Some(dataset) = datasets.get(&text.dataset) else {
                return Err(wrong(file, format!("dataset `{}` is not in datasets.toml", text.dataset)));
            };
            let activities = match &text.activities {
                Activities::Word(word) if word == "active" => Activity::ALL.iter().copied().filter(|a| a.is_active()).collect(),
                Activities::Word(word) => {
                    return Err(wrong(file, format!("activities = \"{word}\": write \"active\" or a list of activity names")));
                }
                Activities::Named(names) => names
                    .iter()
                    .map(|n| Activity::parse(n).ok_or_else(|| wrong(file, format!("`{n}` is no activity"))))
                    .collect::<Result<Vec<_>, _>>()?,
            };
            if !text.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') || text.name.is_empty() {
                return Err(wrong(file, "name: use a-z, 0-9 and _".to_owned()));
            }
            if text.bounds.groups_per_person == 0 || text.bounds.value_per_group == 0 || text.divide_by == 0 {
                return Err(wrong(file, "bounds and divide_by must be at least 1".to_owned()));
            }
            if text.measure == Measure::People && text.bounds.value_per_group != 1 {
                return Err(wrong(file, "a person counts once: value_per_group must be 1".to_owned()));
            }
            if !(text.budget.rho > 0.0 && text.budget.rho.is_finite()) || NanoRho::cost(text.budget.rho) > dataset.limit() {
                return Err(wrong(file, "budget.rho must be above 0 and within the dataset's rho_limit".to_owned()));
            }
            out.push(Metric {
                name: text.name,
                title: text.title,
                description: text.description,
                dataset: text.dataset,
                measure: text.measure,
                unit: text.unit,
                divide_by: text.divide_by,
                dimensions: text.dimensions,
                activities,
                bounds: text.bounds,
                rho: NanoRho::cost(text.budget.rho),
            });
        }
        Ok(Self { datasets, metrics: out })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_builtin_metrics_fit_into_their_blocks_budget() {
        let catalogue = Catalogue::builtin().expect("reviewed text");
        for (name, dataset) in &catalogue.datasets {
            let sum: i64 = catalogue.metrics.iter().filter(|m| &m.dataset == name).map(|m| m.rho.0).sum();
            assert!(sum <= dataset.limit().0, "{name}: metrics cost {sum} of {}", dataset.limit().0);
        }
        assert_eq!(catalogue.metrics.len(), 3);
    }

    #[test]
    fn a_wrong_definition_says_where_and_what_to_do() {
        let data = include_str!("../metrics/datasets.toml");
        let text = include_str!("../metrics/messages_daily.toml").replace("message_channel", "message_chanel");
        let error = Catalogue::parse(data, &[("messages_daily.toml", &text)]).expect_err("no such activity");
        assert_eq!(error.to_string(), "messages_daily.toml: `message_chanel` is no activity");
    }

    #[test]
    fn costs_round_up() {
        assert_eq!(NanoRho::cost(0.004), NanoRho(4_000_000));
        assert_eq!(NanoRho::cost(0.000_000_000_1), NanoRho(1));
    }
}
