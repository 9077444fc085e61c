//! # Standing: who is told of what a rule finds
//!
//! ```text
//!   shadow ──► canary ──► live          by whoever keeps the rules, a line of reviewed text each
//!      ▲          │         │
//!      └──────────┴─────────┘           by itself: past `expires`, or where verdicts show more false alerts than `false_discovery` promises
//! ```
//!
//! A rule always finds the same; its standing says only whether a finding is *told*, which puts it in the feed and sends it out, or *kept*, where
//! whoever keeps the rules can look at it and nobody is woken. What was told stays told, and grows; what was kept is told once the rule's standing
//! allows it and it grows on.
//!
//! Canary takes a fixed share of subjects, by a hash of rule and subject: the same subject is always in or out, whoever asks and in whatever order
//! signals came (I9). A day's allowance counts what was told for the first time that day, over all parts and processes; what exceeds it is kept, and
//! said to be. Findings are the same after a replay, fingerprints and bodies (I9); *which* of them the allowance cuts off depends on the order in which
//! parts commit, and, as what `expires` says, on the day by the clock on which they do.
//!
//! What this module decides is what a standing says by itself; demotions and allowance are decided in the transaction that commits findings (`store`). What
//! verdicts have to say of a promise, [`promise`](crate::promise) decides. A kept finding lives 14 days from when it was first kept; of a person or group it
//! names the keyed form alone, which means nobody once the day's key is destroyed, days before that.

use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use starling_schemas::ids::EpochId;
use starling_store::{KEPT_FOR_ALLOWANCE, KEPT_FOR_DEMOTION, Telling};

use crate::alert::Subject;

/// How far a rule has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Nobody is told.
    Shadow,
    /// Some are told of a share of subjects.
    Canary,
    /// All is told.
    Live,
}

/// Why a finding is kept and not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kept {
    /// The rule is in shadow.
    Shadow,
    /// The subject is not in the canary's share.
    Canary,
    /// The rule is past its last day.
    Expired,
    /// As many as a day allows have been told.
    Allowance,
    /// Verdicts showed more false alerts than the rule promises.
    Demoted,
}

impl Kept {
    /// All reasons.
    pub const ALL: [Self; 5] = [Self::Shadow, Self::Canary, Self::Expired, Self::Allowance, Self::Demoted];

    /// As it is kept and shown.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Shadow => "shadow",
            Self::Canary => "canary",
            Self::Expired => "expired",
            Self::Allowance => KEPT_FOR_ALLOWANCE,
            Self::Demoted => KEPT_FOR_DEMOTION,
        }
    }
}

/// Who is told of what a rule finds, until when, and of how much.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Standing {
    /// How far it has come.
    pub stage: Stage,
    /// Of a canary: share of subjects that are told of, above 0 and below 1.
    #[serde(default)]
    pub share: Option<f64>,
    /// The last day on which anybody is told, `"YYYY-MM-DD"`, UTC. A canary must have one.
    #[serde(default, deserialize_with = "date", serialize_with = "written")]
    pub expires: Option<Date>,
    /// Alerts told for the first time in a day, UTC, at most.
    pub daily_alerts: u32,
    /// Share of what is told that is false, at most; what the rule promises.
    pub false_discovery: f64,
    /// Whether verdicts that show more put it back in shadow. Not where a promise to users says that it tells.
    #[serde(default = "yes")]
    pub demoted_by_verdicts: bool,
}

fn yes() -> bool {
    true
}

fn date<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Option<Date>, D::Error> {
    let text = String::deserialize(input)?;
    text.parse().map(Some).map_err(|_| serde::de::Error::custom("expires must be a day as \"YYYY-MM-DD\""))
}

fn written<S: serde::Serializer>(date: &Option<Date>, output: S) -> Result<S::Ok, S::Error> {
    match date {
        Some(date) => output.serialize_str(&date.to_string()),
        None => output.serialize_none(),
    }
}

impl Standing {
    /// Says what is wrong with it.
    ///
    /// # Errors
    /// A sentence that begins with the field's name.
    pub fn check(&self) -> Result<(), &'static str> {
        match (self.stage, self.share) {
            (Stage::Canary, Some(share)) if share > 0.0 && share < 1.0 => {}
            (Stage::Canary, _) => return Err("share must be above 0 and below 1 where the stage is canary"),
            (_, Some(_)) => return Err("share is for the stage canary only"),
            (_, None) => {}
        }
        if self.stage == Stage::Canary && self.expires.is_none() {
            return Err("expires must say the last day of a canary");
        }
        if self.daily_alerts == 0 {
            return Err("daily_alerts must be at least 1; stage = \"shadow\" tells nobody");
        }
        if !(0.001..=0.5).contains(&self.false_discovery) {
            return Err("false_discovery must be 0.001 to 0.5");
        }
        Ok(())
    }

    /// Whether what `rule` finds of `subject` is told on `today` (UTC), its allowance and verdicts aside.
    ///
    /// # Errors
    /// Why it is kept.
    pub fn tells(&self, rule: &str, subject: &Subject, today: EpochId) -> Result<(), Kept> {
        if self.expires.is_some_and(|last| day_of(last) < i64::from(today.0)) {
            return Err(Kept::Expired);
        }
        match self.stage {
            Stage::Live => Ok(()),
            Stage::Shadow => Err(Kept::Shadow),
            Stage::Canary if place(rule, subject) < self.share.unwrap_or(0.0) => Ok(()),
            Stage::Canary => Err(Kept::Canary),
        }
    }

    /// The same for the transaction that commits the finding, which knows of allowance and demotions.
    #[must_use]
    pub fn telling(&self, rule: &str, subject: &Subject, today: EpochId) -> Telling {
        match self.tells(rule, subject, today) {
            Ok(()) => Telling::Told { daily: self.daily_alerts, demotable: self.demoted_by_verdicts },
            Err(kept) => Telling::Kept(kept.name()),
        }
    }
}

/// Days since 1970-01-01.
fn day_of(date: Date) -> i64 {
    (date - jiff::civil::date(1970, 1, 1)).get_days().into()
}

/// Where a subject stands among all, from 0 to 1, for one rule. A keyed subject's place changes with its day.
#[allow(clippy::cast_precision_loss)]
fn place(rule: &str, subject: &Subject) -> f64 {
    let mut hasher = blake3::Hasher::new_derive_key("starling integrity: canary share");
    for part in [rule, &subject.kind, &subject.value] {
        hasher.update(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    // 53 bits are what a float holds.
    (u64::from_le_bytes(first) >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(text: &str) -> Result<Standing, String> {
        let standing: Standing = toml::from_str(text).map_err(|e| e.message().to_owned())?;
        standing.check().map(|()| standing).map_err(str::to_owned)
    }

    fn business(n: usize) -> Subject {
        Subject { kind: "business".to_owned(), value: format!("b{n}"), epoch: None }
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let rest = "daily_alerts = 5\nfalse_discovery = 0.05\n";
        for (given, name) in [
            ("stage = 'canary'\nexpires = '2027-01-31'", "share"),
            ("stage = 'canary'\nexpires = '2027-01-31'\nshare = 1.0", "share"),
            ("stage = 'canary'\nexpires = '2027-01-31'\nshare = nan", "share"),
            ("stage = 'canary'\nshare = 0.1", "expires"),
            ("stage = 'live'\nshare = 0.1", "share"),
            ("stage = 'live'\nexpires = '2027-02-30'", "expires"),
            ("stage = 'loud'", "unknown variant"),
        ] {
            let error = standing(&format!("{given}\n{rest}")).expect_err(given);
            assert!(error.contains(name), "{given}: {error}");
        }
        assert!(standing("stage = 'live'\ndaily_alerts = 0\nfalse_discovery = 0.05").is_err());
        assert!(standing("stage = 'live'\ndaily_alerts = 5\nfalse_discovery = 0").is_err());
    }

    #[test]
    fn a_rule_tells_through_its_last_day_and_not_after() {
        let rule = standing("stage = 'live'\nexpires = '1970-01-03'\ndaily_alerts = 5\nfalse_discovery = 0.05").expect("right");
        assert_eq!(rule.tells("r", &business(1), EpochId(2)), Ok(()));
        assert_eq!(rule.tells("r", &business(1), EpochId(3)), Err(Kept::Expired));
    }

    #[test]
    fn a_canary_takes_its_share_and_always_the_same() {
        let text = "stage = 'canary'\nshare = 0.2\nexpires = '2027-01-31'\ndaily_alerts = 5\nfalse_discovery = 0.05";
        let rule = standing(text).expect("right");
        let told = |name: &str| -> Vec<usize> {
            (0..2_000).filter(|n| rule.tells(name, &business(*n), EpochId(20_000)).is_ok()).collect()
        };
        let one = told("one");
        // The hash is fixed, so this is one number and no chance.
        assert!((340..=460).contains(&one.len()), "{}", one.len());
        assert_eq!(one, told("one"));
        assert_ne!(one, told("two"), "who is in one rule's canary is not in every rule's");
        assert!(
            (0..2_000)
                .filter(|n| !one.contains(n))
                .all(|n| rule.tells("one", &business(n), EpochId(20_000)) == Err(Kept::Canary))
        );
    }

    #[test]
    fn what_is_read_is_written_as_it_was_and_the_transaction_is_told_the_same() {
        let text = "stage = \"canary\"\nshare = 0.25\nexpires = \"2027-01-31\"\ndaily_alerts = 5\nfalse_discovery = 0.05\ndemoted_by_verdicts = false\n";
        let rule = standing(text).expect("right");
        assert_eq!(toml::to_string(&rule).expect("writes"), text);
        let mut seen = [0, 0];
        for n in 0..100 {
            let (tells, telling) = (rule.tells("r", &business(n), EpochId(0)), rule.telling("r", &business(n), EpochId(0)));
            match tells {
                Ok(()) => assert_eq!(telling, Telling::Told { daily: 5, demotable: false }),
                Err(kept) => assert_eq!(telling, Telling::Kept(kept.name())),
            }
            seen[usize::from(tells.is_ok())] += 1;
        }
        assert!(seen.iter().all(|n| *n > 0), "{seen:?}");
        assert_eq!(Kept::ALL.map(Kept::name), ["shadow", "canary", "expired", "allowance", "demoted"]);
    }

    #[test]
    fn shadow_tells_nobody() {
        let rule = standing("stage = 'shadow'\ndaily_alerts = 5\nfalse_discovery = 0.05").expect("right");
        assert_eq!(rule.tells("r", &business(1), EpochId(0)), Err(Kept::Shadow));
    }
}
