//! Datasets and metrics as reviewed text: what is released, over what, within which bounds, at what cost.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::cost::{self, Allotment, AllotmentText, AttoDelta, BlockLimits, Cost};
use crate::ids::Span;
use crate::questions::Questions;

pub use crate::cost::NanoRho;

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Budget {
    rho: f64,
    #[serde(default)]
    delta: f64,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct MetricText {
    name: String,
    title: String,
    description: String,
    dataset: String,
    unit: String,
    query: String,
    #[serde(default)]
    groups_per_person: Option<u32>,
    #[serde(default)]
    rows_per_group: Option<u32>,
    #[serde(default)]
    values_per_person: Option<u32>,
    budget: Budget,
}

/// One released statistic: a query over `private.<dataset>` that is asked of every window once.
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
    /// Unit of the released value.
    pub unit: String,
    /// One SELECT over `private.<dataset>`: the columns it is grouped by, and `value` as the last. It names no day: the release adds the window.
    pub query: String,
    /// At most so many groups hold something of one person; `None`: as many as the dataset allows.
    pub groups_per_person: Option<u32>,
    /// Of one person's rows in a group at most so many count for row counts; `None`: as many as the dataset allows.
    pub rows_per_group: Option<u32>,
    /// Values one person brings to a quantile, if they are all in one group; `None`: as many as the dataset allows.
    pub values_per_person: Option<u32>,
    /// Cost of one window.
    pub rho: NanoRho,
    /// δ of finding the groups in the data. 0: they are listed, and those with nobody in them have a row, too.
    pub threshold_delta: f64,
}

impl Metric {
    /// The question the ledger charges it as.
    #[must_use]
    pub fn question(&self) -> String {
        format!("metric:{}", self.name)
    }
}

/// What a metric draws from, and how much it may ever cost one person.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dataset {
    /// What a row is.
    pub description: String,
    /// How long the windows are that its rows, blocks and releases are of.
    #[serde(default)]
    pub window: Span,
    /// The neighbouring relation in words.
    pub privacy_unit: String,
    /// Limit of one block.
    rho_limit: f64,
    /// δ at which ε is told to people.
    pub delta: f64,
    /// Most δ that thresholds may spend in one block. 0: no groups are discovered from data.
    #[serde(default)]
    threshold_delta_limit: f64,
    /// Share of `rho_limit` that only scheduled releases may spend: all of it, if the text does not say less; nothing of one's own files, which
    /// have no releases.
    #[serde(default)]
    releases_share: Option<f64>,
    /// What each team's questions may spend.
    #[serde(default)]
    teams: BTreeMap<String, AllotmentText>,
    /// What may be asked of it in SQL; without it, nothing.
    #[serde(default)]
    pub questions: Option<Questions>,
}

impl Dataset {
    /// Limit of one block (this dataset, one window).
    #[must_use]
    pub fn limit(&self) -> NanoRho {
        NanoRho::cost(self.rho_limit)
    }

    /// All limits of one block.
    #[must_use]
    pub fn limits(&self) -> BlockLimits {
        let total = Cost { rho: self.limit(), delta: AttoDelta::stated(self.threshold_delta_limit) };
        BlockLimits { total, teams_rho: NanoRho(total.rho.0 - self.for_releases().0) }
    }

    /// What of a block's limit only scheduled releases may spend.
    #[must_use]
    pub fn for_releases(&self) -> NanoRho {
        cost::reserved(self.limit(), self.share_of_releases())
    }

    fn share_of_releases(&self) -> f64 {
        let own = self.questions.as_ref().is_some_and(|questions| questions.source.is_some());
        self.releases_share.unwrap_or(if own { 0.0 } else { 1.0 })
    }

    /// What a team may spend. `None`: it has no allotment here, and so may ask nothing that costs. Where the text names no team at all, everybody
    /// may spend what is there for questions.
    #[must_use]
    pub fn allotment(&self, team: &str) -> Option<Allotment> {
        let for_questions = self.limits().teams_rho;
        if self.teams.is_empty() && for_questions.0 > 0 {
            return Some(Allotment { rho_per_block: for_questions, rho_per_refill: cost::WITHOUT_END, refill_days: 1 });
        }
        self.teams.get(team).map(AllotmentText::read)
    }

    /// All teams with an allotment, by name.
    pub fn allotments(&self) -> impl Iterator<Item = (&str, Allotment)> {
        self.teams.iter().map(|(name, text)| (name.as_str(), text.read()))
    }

    /// What is wrong with its budget, and what to write instead.
    fn fault(&self) -> Option<String> {
        cost::fault(self.rho_limit, self.delta, self.threshold_delta_limit, self.share_of_releases(), &self.teams)
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

/// The metrics of this build by file, in the order they are released.
macro_rules! reviewed {
    ($($name:literal),* $(,)?) => {
        &[$((concat!($name, ".toml"), include_str!(concat!("../metrics/", $name, ".toml")))),*]
    };
}

const REVIEWED: &[(&str, &str)] = reviewed![
    "people_served_daily",
    "messages_daily",
    "call_minutes_daily",
    "senders_daily",
    "messages_per_sender_daily",
    "group_activity_daily",
    "business_replies_daily",
    "calls_daily",
    "callers_daily",
    "call_length_daily",
    "call_seconds_per_caller_daily",
    "groups_created_daily",
    "feature_users_daily",
    "ai_users_daily",
    "channel_viewers_daily",
    "status_posters_daily",
    "crashes_daily",
    "people_with_crashes_daily",
    "business_reach_daily",
    "business_messages_daily",
    "new_accounts_daily",
    "first_week_daily",
    "versions_daily",
    "crashes_by_version_daily",
    "call_quality_daily",
    "features_daily",
    "media_kinds_daily",
    "business_conversations_daily",
    "people_served_hourly",
    "people_served_weekly",
    "people_served_monthly",
];

impl Catalogue {
    /// The metrics that are released of windows of this length.
    pub fn metrics_of(&self, span: Span) -> impl Iterator<Item = &Metric> {
        self.metrics.iter().filter(move |metric| self.datasets.get(&metric.dataset).is_some_and(|dataset| dataset.window == span))
    }

    /// The same without the datasets and metrics of windows of this length.
    #[must_use]
    pub fn without(mut self, span: Span) -> Self {
        self.metrics.retain(|metric| self.datasets.get(&metric.dataset).is_none_or(|dataset| dataset.window != span));
        self.datasets.retain(|_, dataset| dataset.window != span);
        self
    }

    /// The definitions this build carries.
    ///
    /// # Errors
    /// [`DefinitionError`] naming file and fault.
    pub fn builtin() -> Result<Self, DefinitionError> {
        Self::parse(include_str!("../metrics/datasets.toml"), REVIEWED)
    }

    /// The same, and behind them metrics that are still to be reviewed and priced. `more`: (file name, text) each.
    ///
    /// # Errors
    /// [`DefinitionError`] naming file and fault.
    pub fn builtin_and(more: &[(&str, &str)]) -> Result<Self, DefinitionError> {
        Self::read(include_str!("../metrics/datasets.toml"), &[REVIEWED, more].concat())
    }

    /// Adds datasets whose rows are files of one's own.
    ///
    /// # Errors
    /// [`DefinitionError`] naming file and fault.
    pub fn add_datasets(&mut self, file: &str, text: &str) -> Result<(), DefinitionError> {
        let wrong = |what: String| DefinitionError { file: file.to_owned(), what };
        let more: BTreeMap<String, Dataset> = toml::from_str(text).map_err(|e| wrong(e.to_string()))?;
        for (name, dataset) in more {
            let questions = dataset.questions.as_ref();
            if let Some(fault) = dataset.fault().or_else(|| questions.and_then(Questions::fault)) {
                return Err(wrong(format!("[{name}] {fault}")));
            }
            if questions.is_none_or(|questions| questions.source.is_none()) {
                return Err(wrong(format!("[{name}] needs [{name}.questions.source] with parquet and person")));
            }
            if !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') || name.is_empty() {
                return Err(wrong(format!("[{name}] name: use a-z, 0-9 and _")));
            }
            if self.datasets.insert(name.clone(), dataset).is_some() {
                return Err(wrong(format!("[{name}] is there already: choose another name")));
            }
        }
        Ok(())
    }

    /// Reads definitions. `metrics`: (file name, text) each.
    ///
    /// # Errors
    /// [`DefinitionError`] naming file and fault.
    pub fn parse(datasets: &str, metrics: &[(&str, &str)]) -> Result<Self, DefinitionError> {
        let read = Self::read(datasets, metrics)?;
        read.overspent().map_or(Ok(read), Err)
    }

    /// The same for metrics that are still to be priced: together they may cost more than there is.
    fn read(datasets: &str, metrics: &[(&str, &str)]) -> Result<Self, DefinitionError> {
        let wrong = |file: &str, what: String| DefinitionError { file: file.to_owned(), what };
        let datasets: BTreeMap<String, Dataset> =
            toml::from_str(datasets).map_err(|e| wrong("datasets.toml", e.message().to_owned()))?;
        for (name, dataset) in &datasets {
            if let Some(what) = dataset.fault().or_else(|| dataset.questions.as_ref().and_then(Questions::fault)) {
                return Err(wrong("datasets.toml", format!("dataset `{name}`: {what}")));
            }
        }
        let mut out = Vec::new();
        for (file, text) in metrics {
            let text: MetricText = toml::from_str(text).map_err(|e| wrong(file, e.message().to_owned()))?;
            let Some(dataset) = datasets.get(&text.dataset) else {
                return Err(wrong(file, format!("dataset `{}` is not in datasets.toml", text.dataset)));
            };
            if let Some(what) = fault(&text, dataset) {
                return Err(wrong(file, what));
            }
            if out.iter().any(|metric: &Metric| metric.name == text.name) {
                return Err(wrong(file, format!("name: there is another metric `{}`", text.name)));
            }
            out.push(Metric {
                name: text.name,
                title: text.title,
                description: text.description,
                dataset: text.dataset,
                unit: text.unit,
                query: text.query.trim().to_owned(),
                groups_per_person: text.groups_per_person,
                rows_per_group: text.rows_per_group,
                values_per_person: text.values_per_person,
                rho: NanoRho::cost(text.budget.rho),
                threshold_delta: text.budget.delta,
            });
        }
        Ok(Self { datasets, metrics: out })
    }

    /// The first dataset whose metrics cost more than is kept for them.
    fn overspent(&self) -> Option<DefinitionError> {
        // Where questions have a share, releases must be safe from them.
        for (name, dataset) in self.datasets.iter().filter(|(_, dataset)| dataset.for_releases() < dataset.limit()) {
            let needed: i64 = self.metrics.iter().filter(|metric| metric.dataset == *name).map(|metric| metric.rho.0).sum();
            if needed > dataset.for_releases().0 {
                let what = format!(
                    "dataset `{name}`: its metrics cost rho {} a block and releases_share keeps {} for them, so questions could leave them too \
                     little: raise releases_share or rho_limit, or make a metric cheaper",
                    NanoRho(needed).rho(),
                    dataset.for_releases().rho()
                );
                return Some(DefinitionError { file: "datasets.toml".to_owned(), what });
            }
        }
        None
    }
}

/// What is wrong with a metric's text, if anything. Its query is looked at where SQL is understood.
fn fault(text: &MetricText, dataset: &Dataset) -> Option<String> {
    if !text.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') || text.name.is_empty() {
        return Some("name: use a-z, 0-9 and _".to_owned());
    }
    for (what, text) in [("title", &text.title), ("description", &text.description), ("unit", &text.unit), ("query", &text.query)]
    {
        if text.trim().is_empty() {
            return Some(format!("{what}: must not be empty"));
        }
    }
    let Some(questions) = &dataset.questions else {
        return Some(format!("dataset `{}` may not be asked: give it a section questions in datasets.toml", text.dataset));
    };
    let bounds = [
        ("groups_per_person", text.groups_per_person, questions.groups_per_person),
        ("rows_per_group", text.rows_per_group, questions.rows_per_group),
        ("values_per_person", text.values_per_person, questions.values_per_person()),
    ];
    for (what, own, most) in bounds {
        if own.is_some_and(|own| own == 0 || own > most) {
            return Some(format!("{what}: write 1 to {most}, which is the dataset's, or leave it out"));
        }
    }
    if !(text.budget.rho > 0.0 && text.budget.rho.is_finite()) || NanoRho::cost(text.budget.rho) > dataset.limit() {
        return Some("budget.rho must be above 0 and within the dataset's rho_limit".to_owned());
    }
    let most = questions.threshold_delta;
    (!(text.budget.delta >= 0.0 && text.budget.delta <= most)).then(|| {
        format!("budget.delta must be 0 to {most:e}, the dataset's threshold_delta; above 0 groups are found in the data, else they are listed")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_builtin_metrics_fit_into_their_blocks_budget_and_leave_a_fifth_for_questions() {
        let catalogue = Catalogue::builtin().expect("reviewed text");
        for (name, dataset) in &catalogue.datasets {
            let sum: i64 = catalogue.metrics.iter().filter(|m| &m.dataset == name).map(|m| m.rho.0).sum();
            assert!(sum <= dataset.limit().0 / 5 * 4, "{name}: metrics cost {sum} of {}", dataset.limit().0);
        }
        assert!(catalogue.metrics.len() >= 20, "{}", catalogue.metrics.len());
        assert!(REVIEWED.iter().all(|(file, text)| text.contains(&format!("name = \"{}\"", file.trim_end_matches(".toml")))));
    }

    #[test]
    fn a_wrong_definition_says_where_and_what_to_do() {
        let data = include_str!("../metrics/datasets.toml");
        let right = include_str!("../metrics/messages_daily.toml");
        let changes = [
            ("messages_daily", "Messages-Daily"),
            ("\"messages\"", "\" \""),
            ("person_day\"", "person_year\""),
            ("groups_per_person = 3", "groups_per_person = 4"),
            ("groups_per_person = 3", "groups_per_person = 0"),
            ("groups_per_person = 3", "most_groups = 3"),
            ("[budget]", "[budget]\ndelta = 0.1"),
            ("rho = ", "rho = 1"),
        ];
        let texts = changes.map(|(from, to)| {
            assert!(right.contains(from), "{from}");
            let error = Catalogue::parse(data, &[("messages_daily.toml", &right.replacen(from, to, 1))]).expect_err(to);
            format!("{}\n  {}\n", to.trim(), error.to_string().lines().next().unwrap_or_default())
        });
        insta::assert_snapshot!("wrong_definitions", texts.concat());
        let twice = [("messages_daily.toml", right), ("again.toml", right)];
        let error = Catalogue::parse(data, &twice).expect_err("twice");
        insta::assert_snapshot!(error, @"again.toml: name: there is another metric `messages_daily`");
    }

    const SHARED: &str = "[d]\ndescription = \"x\"\nprivacy_unit = \"y\"\nrho_limit = 0.01\ndelta = 1e-9\nthreshold_delta_limit = 1e-10\n\
                          releases_share = 0.7\n[d.teams.growth]\nrho_per_block = 0.001\nrho_per_refill = 0.02\nrefill_days = 7\n";

    #[test]
    fn a_dataset_that_says_nothing_of_questions_keeps_everything_for_releases() {
        let silent = "[d]\ndescription = \"x\"\nprivacy_unit = \"y\"\nrho_limit = 0.01\ndelta = 1e-9\n";
        let catalogue = Catalogue::parse(silent, &[]).expect("good");
        let dataset = &catalogue.datasets["d"];
        let total = Cost::noise(NanoRho(10_000_000));
        assert_eq!(dataset.limits(), BlockLimits { total, teams_rho: NanoRho(0) });
        assert_eq!((dataset.allotment("growth"), dataset.allotments().count()), (None, 0));
    }

    #[test]
    fn shares_and_allotments_are_read_from_the_text() {
        let catalogue = Catalogue::parse(SHARED, &[]).expect("good");
        let dataset = &catalogue.datasets["d"];
        let total = Cost { rho: NanoRho(10_000_000), delta: AttoDelta(100_000_000) };
        assert_eq!(dataset.limits(), BlockLimits { total, teams_rho: NanoRho(3_000_000) });
        let allotment = Allotment { rho_per_block: NanoRho(1_000_000), rho_per_refill: NanoRho(20_000_000), refill_days: 7 };
        assert_eq!(dataset.allotment("growth"), Some(allotment));
    }

    #[test]
    fn a_wrong_budget_says_where_and_what_to_write() {
        let changes = [
            ("rho_limit = 0.01", "rho_limit = 0"),
            ("delta = 1e-9", "delta = 1.0"),
            ("threshold_delta_limit = 1e-10", "threshold_delta_limit = 1e-30"),
            ("releases_share = 0.7", "releases_share = 1.2"),
            ("releases_share = 0.7\n", ""),
            ("releases_share = 0.7", "releases_share = 0.99"),
            ("refill_days = 7", "refill_days = 0"),
            ("rho_per_refill = 0.02", "rho_per_refill = 0.0001"),
            ("teams.growth", "teams.releases"),
            ("refill_days", "refill_day"),
            ("[d.teams", "[d.team"),
        ];
        let texts = changes.map(|(right, wrong)| {
            assert!(SHARED.contains(right), "{right}");
            let error = Catalogue::parse(&SHARED.replacen(right, wrong, 1), &[]).expect_err(wrong);
            format!("{}\n  {error}\n", wrong.trim())
        });
        insta::assert_snapshot!("wrong_budgets", texts.concat());
    }

    #[test]
    fn metrics_must_be_safe_from_questions() {
        let data = include_str!("../metrics/datasets.toml").replace("releases_share = 0.8", "releases_share = 0.2");
        let metric = include_str!("../metrics/messages_daily.toml");
        assert!(Catalogue::parse(&data, &[("messages_daily.toml", metric)]).is_ok(), "0.0013 of 0.00298");
        let both = [("messages_daily.toml", metric), ("people.toml", include_str!("../metrics/people_served_daily.toml"))];
        let error = Catalogue::parse(&data, &both).expect_err("0.0035 of 0.00298");
        insta::assert_snapshot!(error, @"datasets.toml: dataset `person_day`: its metrics cost rho 0.0035 a block and releases_share keeps 0.00298 for them, so questions could leave them too little: raise releases_share or rho_limit, or make a metric cheaper");
    }
}
