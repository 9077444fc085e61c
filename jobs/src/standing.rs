//! Who is told of what rules find, as the settings have it; what rules promise beside what verdicts show; and what is kept.
//!
//! ```text
//!   a step that judges ──► look ──► verdicts of two periods, by rule ──► starling_integrity::promise ──► demotion, in the log
//!   the integrity job, each minute ──┘                                                                       │ from the next commit on
//!                                                                               kept, not told ◄─────────────┘ until `alerts restore`
//! ```
//!
//! The step that judges looks by itself, so that nothing waits; the integrity job looks too, for whoever died between the two.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::{Value, json};
use starling_integrity::promise::{self, Observed, Verdict};
use starling_integrity::work::{self, Verdicts};
use starling_integrity::{Rules, Stage, Standing};
use starling_schemas::ids::EpochId;
use starling_store::{DemotionRecord, KEPT_FOR_ALLOWANCE, KEPT_FOR_DEMOTION};

use crate::config::Config;
use crate::home::Home;
use crate::status::timestamp;

/// How often the integrity job looks.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How long a kept finding lives.
const KEPT_LIFE_MS: i64 = 14 * 86_400_000;

/// The rules in force, with the standing that the settings give them.
///
/// # Errors
/// When the rules' text cannot be used.
pub fn rules(config: &Config) -> anyhow::Result<Rules> {
    let mut rules = crate::rules::load(config)?;
    rules.stand(config.alerts.standing.clone());
    Ok(rules)
}

/// What is known of a version of a rule: how it stands, what it promises, and what verdicts show.
#[derive(Debug, Clone)]
pub struct Promise {
    /// Its standing. `None`: there is no such rule any more.
    pub standing: Option<Standing>,
    /// Verdicts on what it told in the present period and the one before, and what they weigh.
    pub observed: Option<Observed>,
    /// Since when it is demoted, milliseconds since 1970-01-01 UTC.
    pub demoted_ms: Option<i64>,
}

impl Promise {
    /// Whether verdicts show more false alerts than it promises.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.observed.is_some_and(|observed| observed.is_broken())
    }

    /// The share that was false of what was told lately, with its exact 95 % interval.
    #[must_use]
    pub fn false_share(&self) -> Option<(f64, f64, f64)> {
        self.observed.and_then(|observed| observed.verdicts.false_share())
    }

    /// In words, for a table.
    #[must_use]
    pub fn says(&self) -> String {
        let Some(standing) = &self.standing else { return "no such rule any more".to_owned() };
        let percent = |share: f64| format!("{:.1}", 100.0 * share).trim_end_matches(".0").to_owned();
        let mut says = format!("{}, promised ≤ {} % false", stage(standing.stage), percent(standing.false_discovery));
        if let Some((share, low, high)) = self.false_share() {
            says.push_str(&format!(", observed {} % ({} to {})", percent(share), percent(low), percent(high)));
        }
        match self.demoted_ms {
            Some(since) => says.push_str(&format!(", demoted since {}", timestamp(since))),
            None if self.is_broken() => says.push_str(if standing.demoted_by_verdicts {
                ": exceeded"
            } else {
                ": exceeded, and told all the same, as users were promised"
            }),
            None => {}
        }
        says
    }
}

/// A stage by its name.
#[must_use]
pub const fn stage(stage: Stage) -> &'static str {
    match stage {
        Stage::Shadow => "shadow",
        Stage::Canary => "canary",
        Stage::Live => "live",
    }
}

/// Where the work on an alert stands, as the metastore has it.
///
/// # Errors
/// When it is of another version.
pub fn of_work(text: &str) -> anyhow::Result<work::Standing> {
    serde_json::from_str(text).context("the work on an alert cannot be read by this version")
}

/// What promises are held against.
pub struct Promises {
    rules: Rules,
    now_ms: i64,
    /// By first name of the rule, and version that told.
    verdicts: BTreeMap<(String, u32), Vec<Verdict>>,
    demotions: Vec<DemotionRecord>,
}

impl Promises {
    /// Reads what there is.
    ///
    /// # Errors
    /// When the metastore cannot be read, or the work on an alert is of another version.
    pub async fn read(home: &Home) -> anyhow::Result<Self> {
        let now_ms = home.clock.now_ms();
        let mut verdicts: BTreeMap<(String, u32), Vec<Verdict>> = BTreeMap::new();
        for judged in home.metastore.worked_on_since(promise::counted_from(now_ms)).await? {
            if let Some(abuse) = of_work(&judged.standing)?.abuse {
                let verdict = Verdict { told_ms: judged.told_ms, abuse };
                verdicts.entry((judged.rule, judged.rule_version)).or_default().push(verdict);
            }
        }
        Ok(Self { rules: rules(&home.config)?, now_ms, verdicts, demotions: home.metastore.demotions().await? })
    }

    /// The name by which a rule goes now, whatever it was called.
    #[must_use]
    pub fn name_now<'a>(&'a self, rule: &'a str) -> &'a str {
        self.rules.name_now(self.rules.first_name(rule))
    }

    /// When somebody last lifted a demotion of this version; 0: never.
    fn lifted_ms(&self, first_name: &str, version: u32) -> i64 {
        self.of(first_name, version).filter_map(|demotion| demotion.restored_ms).max().unwrap_or(0)
    }

    fn of(&self, first_name: &str, version: u32) -> impl Iterator<Item = &DemotionRecord> {
        self.demotions.iter().filter(move |demotion| demotion.rule == first_name && demotion.rule_version == version)
    }

    /// What is known of a version of a rule.
    #[must_use]
    pub fn on(&self, rule: &str, version: u32) -> Promise {
        let standing = self.rules.standing(rule).cloned();
        let rule = self.rules.first_name(rule);
        let verdicts = self.verdicts.get(&(rule.to_owned(), version)).map(Vec::as_slice).unwrap_or_default();
        let observed = standing.as_ref().map(|standing| {
            let lifted_ms = self.lifted_ms(rule, version);
            promise::observe(verdicts.iter().copied(), standing.false_discovery, lifted_ms, self.now_ms)
        });
        let in_force = self.of(rule, version).find(|demotion| demotion.restored_ms.is_none()).map(|demotion| demotion.demoted_ms);
        // Where the rule is held to tell, a demotion of before that was said has no force.
        let demoted_ms = in_force.filter(|_| standing.as_ref().is_some_and(|standing| standing.demoted_by_verdicts));
        Promise { standing, observed, demoted_ms }
    }
}

/// Demotes the rules whose verdicts show more false alerts than they promise. Gives their names.
///
/// # Errors
/// When the metastore cannot be read or written.
pub async fn look(home: &Home) -> anyhow::Result<Vec<String>> {
    let promises = Promises::read(home).await?;
    let mut demoted = Vec::new();
    for (rule, version) in promises.rules.in_force() {
        let Promise { standing, observed, demoted_ms } = promises.on(rule, version);
        let (Some(standing), Some(observed)) = (standing, observed) else { continue };
        if demoted_ms.is_some() || !standing.demoted_by_verdicts || !observed.is_broken() {
            continue;
        }
        let Verdicts { confirmed, dismissed } = observed.worst;
        let (promised, evidence) = (standing.false_discovery, observed.evidence.floor());
        let figures = json!({ "promised": promised, "confirmed": confirmed, "dismissed": dismissed, "evidence": evidence });
        let first_name = promises.rules.first_name(rule);
        let lifted_ms = promises.lifted_ms(first_name, version);
        if home.metastore.demote(first_name, version, &figures, lifted_ms, promises.now_ms).await? {
            tracing::warn!(
                rule,
                version,
                promised,
                confirmed,
                dismissed,
                "verdicts show more false alerts than the rule promises: what it finds is kept until a new version, or `starling alerts restore`"
            );
            demoted.push(rule.to_owned());
        }
    }
    Ok(demoted)
}

/// The integrity job's looks, one a minute.
#[derive(Default)]
pub struct Looks(Option<Instant>);

impl Looks {
    /// Looks if it is time. What fails is tried again a minute later: detection does not wait for it.
    pub async fn due(&mut self, home: &Home) {
        if self.0.is_some_and(|last| last.elapsed() < LOOK_EVERY) {
            return;
        }
        self.0 = Some(Instant::now());
        if let Err(error) = look(home).await {
            tracing::warn!(
                error = format!("{error:#}"),
                "promises of rules could not be held against verdicts; it is tried again"
            );
        }
    }
}

/// Lifts the demotion of a rule: what was told until now is not counted again. Gives the versions it was lifted from.
///
/// # Errors
/// [`work::NotAllowed`]; when the rule is not demoted, or the metastore cannot be written.
pub async fn restore(home: &Home, rule: &str, by: &str, text: &str) -> anyhow::Result<Vec<u32>> {
    work::check_name("who takes the step", by)?;
    work::check_text("a reason", text)?;
    let rules = rules(&home.config)?;
    let versions = home.metastore.restore_rule(rules.first_name(rule), by, text, home.clock.now_ms()).await?;
    anyhow::ensure!(!versions.is_empty(), "no rule of that name is demoted: see `starling alerts precision`");
    Ok(versions)
}

/// What was kept today of what people would expect in the feed.
#[derive(Debug, Clone)]
pub struct KeptToday {
    /// The rule.
    pub rule: String,
    /// Why.
    pub kept_for: String,
    /// How many findings.
    pub count: u64,
    /// In words.
    pub says: String,
}

impl KeptToday {
    /// For a program.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({ "rule": self.rule, "kept_for": self.kept_for, "count": self.count, "says": self.says })
    }
}

/// What was first kept today, UTC, by rule and reason, without what shadow and canary keep: that is as somebody wanted it.
///
/// # Errors
/// When the metastore cannot be read.
pub async fn kept_today(home: &Home) -> anyhow::Result<Vec<KeptToday>> {
    let counts = home.metastore.kept_counts(EpochId::of(home.clock.now_ms()).start_ms()).await?;
    if counts.is_empty() {
        return Ok(Vec::new());
    }
    let (rules, demotions) = (rules(&home.config)?, home.metastore.demotions().await?);
    let words = |rule: &str, kept_for: &str| -> Option<String> {
        let standing = rules.standing(rule);
        if kept_for == KEPT_FOR_ALLOWANCE {
            return Some(standing.map_or("allowance reached".to_owned(), |s| format!("allowance of {} reached", s.daily_alerts)));
        }
        if kept_for == KEPT_FOR_DEMOTION {
            let first_name = rules.first_name(rule);
            let since = demotions.iter().find(|demotion| demotion.rule == first_name && demotion.restored_ms.is_none());
            return Some(since.map_or("demoted".to_owned(), |d| format!("demoted since {}", timestamp(d.demoted_ms))));
        }
        let last = standing.and_then(|standing| standing.expires).filter(|_| kept_for == "expired")?;
        Some(format!("its last day was {last}"))
    };
    let told = counts.into_iter().filter_map(|count| {
        let why = words(&count.rule, &count.kept_for)?;
        let says = format!("{} of {} kept today: {why}", count.count, count.rule);
        Some(KeptToday { rule: count.rule, kept_for: count.kept_for, count: count.count, says })
    });
    Ok(told.collect())
}

/// Erases findings that were kept for as long as they may be. Gives how many.
///
/// # Errors
/// When the metastore cannot be read or written.
pub async fn expire_kept(home: &Home) -> anyhow::Result<u64> {
    let now_ms = home.clock.now_ms();
    Ok(home.metastore.erase_kept(now_ms.saturating_sub(KEPT_LIFE_MS), now_ms).await?)
}
