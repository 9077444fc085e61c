//! Which cells of the accounts are alerts: pure functions over numbers.

use std::collections::{BTreeMap, BTreeSet};

use starling_schemas::ids::EpochId;
use starling_store::BEHIND;

use super::{Account, Cell, deeds};
use crate::Rules;
use crate::alert::{Alert, Baseline, SeenWindow, fingerprint};
use crate::judge::{clock, ratio};

/// Days before a day that its usual is taken from.
pub const HISTORY_DAYS: i32 = 14;
/// Days of an account that are judged at most, up to its newest: of those before, what was usual may be forgotten.
pub const JUDGED_DAYS: i32 = 30;
/// Fewer known days of a door or a principal are no usual one.
const KNOWN_DAYS: usize = 3;
/// The same kind of event, refused for want of a field that clients fill.
const NO_AGE: &str = "refused:age_unknown";
const QUARANTINED: &str = "quarantined:";

/// What a rule asks of one kind of count, whatever is usual.
struct Asked {
    rule: &'static str,
    version: u32,
    fixed: u64,
    share: f64,
    over: f64,
    known_days: usize,
}

/// The rule that looks at a count, if one does.
fn asked(rules: &Rules, account: &Account, what: &str) -> Option<Asked> {
    let door = |rule, version, fixed, over| Some(Asked { rule, version, fixed, share: 0.0, over, known_days: 0 });
    let (probing, lookups, guessing) = (&rules.door_probing, &rules.door_lookups, &rules.door_guessing);
    let probed = |fixed| door("door_probing", probing.version, fixed, probing.over_baseline);
    let looked_up = |fixed| door("door_lookups", lookups.version, fixed, lookups.over_baseline);
    let guessed = |fixed| door("door_guessing", guessing.version, fixed, guessing.over_baseline);
    match (account, what) {
        (Account::Partition { .. }, BEHIND) => {
            let rule = &rules.pipeline_replay;
            Some(Asked {
                rule: "pipeline_replay",
                version: rule.version,
                fixed: rule.events,
                share: rule.share,
                over: rule.over_baseline,
                known_days: rule.known_days,
            })
        }
        (Account::Partition { .. }, what) if what == NO_AGE || what.starts_with(QUARANTINED) => {
            let rule = &rules.pipeline_poisoning;
            Some(Asked {
                rule: "pipeline_poisoning",
                version: rule.version,
                fixed: rule.events,
                share: rule.share,
                over: rule.over_baseline,
                known_days: rule.known_days,
            })
        }
        (Account::Principal(_), deeds::FORBIDDEN) => probed(probing.forbidden),
        (Account::Principal(_), deeds::UNKNOWN) => probed(probing.unknown),
        (Account::Principal(_), deeds::BUDGET) => probed(probing.budget),
        (Account::Principal(_), deeds::LIMITS) => probed(probing.limits),
        (Account::Principal(_), deeds::UNFIT) => probed(probing.unfit),
        (Account::Principal(_), deeds::VARIANT) => {
            let rule = &rules.door_differencing;
            door("door_differencing", rule.version, rule.questions, rule.over_baseline)
        }
        (Account::Principal(_), deeds::LOOKUP) => looked_up(lookups.opened),
        (Account::Principal(_), deeds::MISSING) => looked_up(lookups.missing),
        (Account::Principal(_), deeds::LOGIN) => guessed(guessing.of_user),
        (Account::Door(_), deeds::LOGIN) => guessed(guessing.at_door),
        (Account::Door(_), deeds::NAME) => guessed(guessing.names),
        (Account::Door(_), deeds::TOKEN) => guessed(guessing.tokens),
        _ => None,
    }
}

/// Whether a cell reaches its rule's fixed number: only then what is usual has to be known.
#[must_use]
pub fn may_fire(rules: &Rules, cell: &Cell) -> bool {
    asked(rules, &cell.account, &cell.what).is_some_and(|asked| cell.times >= asked.fixed)
}

/// Counts of one hour, and of one day's hours.
type Counts = BTreeMap<String, u64>;
type Hours = BTreeMap<EpochId, Counts>;

/// What is usual of an account before a day.
struct Usual {
    known_days: usize,
    /// Events of a usual hour.
    events: f64,
    /// What the fullest hours of the known days had, by what was counted; a day that has none of it is not there.
    fullest: BTreeMap<String, Vec<u64>>,
}

impl Usual {
    fn before(day: EpochId, days: &BTreeMap<EpochId, Hours>) -> Self {
        let (mut known_days, mut hourly, mut fullest) = (0, Vec::new(), BTreeMap::<String, Vec<u64>>::new());
        for hours in days.range(EpochId(day.0.saturating_sub(HISTORY_DAYS))..day).map(|(_, hours)| hours) {
            known_days += 1;
            let events: u64 = hours.values().flatten().filter(|(what, _)| *what != BEHIND).map(|(_, times)| times).sum();
            hourly.push(events / u64::try_from(hours.len()).unwrap_or(u64::MAX).max(1));
            let mut most = Counts::new();
            for (what, times) in hours.values().flatten() {
                let most = most.entry(what.clone()).or_default();
                *most = (*most).max(*times);
            }
            most.into_iter().for_each(|(what, times)| fullest.entry(what).or_default().push(times));
        }
        #[allow(clippy::cast_precision_loss)]
        let events = median(hourly, known_days) as f64;
        Self { known_days, events, fullest }
    }

    /// What the fullest hour of a usual day has. `None`: too few days are known.
    fn own(&self, what: &str, needed: usize) -> Option<u64> {
        let seen = self.fullest.get(what).cloned().unwrap_or_default();
        (self.known_days >= needed).then(|| median(seen, self.known_days))
    }
}

/// The lower median of so many numbers, of which those that are not there are zero.
fn median(mut numbers: Vec<u64>, of: usize) -> u64 {
    numbers.sort_unstable();
    let zeros = of.saturating_sub(numbers.len());
    let middle = of.saturating_sub(1) / 2;
    middle.checked_sub(zeros).and_then(|at| numbers.get(at)).copied().unwrap_or_default()
}

/// A cell that passed its threshold.
struct Fired<'a> {
    account: &'a Account,
    hour: EpochId,
    what: &'a str,
    threshold: u64,
    own: Option<u64>,
    /// How often the threshold has doubled.
    doublings: u32,
}

impl Fired<'_> {
    /// As it is told: it only changes when it doubles.
    fn told(&self) -> u64 {
        self.threshold.saturating_mul(1_u64.checked_shl(self.doublings).unwrap_or(u64::MAX))
    }
}

fn fire<'a>(asked: &Asked, usual: &Usual, account: &'a Account, hour: EpochId, what: &'a str, times: u64) -> Option<Fired<'a>> {
    if usual.known_days < asked.known_days {
        return None;
    }
    let own = usual.own(what, asked.known_days.max(KNOWN_DAYS));
    let threshold = asked.fixed.max(ceil(asked.share * usual.events)).max(ceil(asked.over * own.map_or(0.0, float)));
    let doublings = times.checked_div(threshold)?.checked_ilog2()?;
    Some(Fired { account, hour, what, threshold, own, doublings })
}

#[allow(clippy::cast_precision_loss)]
fn float(number: u64) -> f64 {
    number as f64
}

/// Of what is no number, or too large, as much as there is.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn ceil(number: f64) -> u64 {
    number.ceil() as u64
}

/// What the accounts show of `from`, a day, and of the days after it, of [`JUDGED_DAYS`] at most. `cells`: of these days and of [`HISTORY_DAYS`]
/// before; each hour's once.
#[must_use]
pub fn judge(rules: &Rules, cells: &[Cell], from: EpochId) -> Vec<Alert> {
    judge_last(rules, cells, from, JUDGED_DAYS)
}

/// The same, of so many days of an account at most.
#[must_use]
pub fn judge_last(rules: &Rules, cells: &[Cell], from: EpochId, judged_days: i32) -> Vec<Alert> {
    let mut accounts: BTreeMap<&Account, BTreeMap<EpochId, Hours>> = BTreeMap::new();
    for cell in cells {
        let days = accounts.entry(&cell.account).or_default();
        let hour = days.entry(cell.hour.day()).or_default().entry(cell.hour).or_default();
        let times = hour.entry(cell.what.clone()).or_default();
        *times = times.saturating_add(cell.times);
    }
    let mut groups: BTreeMap<(&'static str, u32, EpochId, crate::Subject), Group<'_>> = BTreeMap::new();
    for (account, days) in &accounts {
        let newest = days.keys().next_back().map_or(from.0, |day| day.0);
        let first = EpochId(newest.saturating_sub(judged_days.saturating_sub(1)));
        for (day, hours) in days.range(from.max(first)..) {
            let usual = Usual::before(*day, days);
            for (hour, what, times) in
                hours.iter().flat_map(|(hour, counts)| counts.iter().map(move |(what, times)| (hour, what, times)))
            {
                let Some(asked) = asked(rules, account, what) else { continue };
                let Some(fired) = fire(&asked, &usual, account, *hour, what, *times) else { continue };
                groups.entry((asked.rule, asked.version, *day, account.subject())).or_default().fired.push(fired);
            }
        }
    }
    groups.into_iter().filter_map(|((rule, version, day, subject), group)| group.alert(rule, version, day, subject)).collect()
}

/// What fired of one rule about one subject on one day.
#[derive(Default)]
struct Group<'a> {
    fired: Vec<Fired<'a>>,
}

impl Group<'_> {
    fn alert(self, rule: &'static str, version: u32, day: EpochId, subject: crate::Subject) -> Option<Alert> {
        let fullest =
            self.fired.iter().max_by_key(|fired| (fired.doublings, fired.told(), std::cmp::Reverse((fired.hour, fired.what))))?;
        let told: u64 = self.fired.iter().map(Fired::told).fold(0, u64::saturating_add);
        let revision = self.fired.iter().map(|fired| 1 + fired.doublings).sum();
        let hours = || self.fired.iter().map(|fired| fired.hour);
        let numbers: BTreeSet<i32> = self.fired.iter().filter_map(|fired| number(fired.account)).collect();
        let usual = match fullest.own {
            Some(own) => format!("the fullest hour of its usual day has {own}"),
            None => "too few of its days are known to say what is usual".to_owned(),
        };
        let mut explanation = format!(
            "{}: at least {} {} in the hour from {} UTC; {usual}. The rule fires at {}.",
            place(fullest.account),
            fullest.told(),
            said(fullest.what),
            clock(fullest.hour.start_ms()),
            fullest.threshold
        );
        if self.fired.len() > 1 {
            let hours: BTreeSet<EpochId> = hours().collect();
            explanation.push_str(&format!(" That day it fired in {} of its hours", hours.len()));
            if !numbers.is_empty() {
                let numbers: Vec<String> = numbers.iter().take(16).map(i32::to_string).collect();
                explanation.push_str(&format!(", in partitions {}", numbers.join(", ")));
            }
            explanation.push('.');
        }
        Some(Alert {
            fingerprint: fingerprint(rule, &subject, day.0),
            rule: rule.to_owned(),
            rule_version: version,
            severity: if fullest.doublings >= 2 { "high" } else { "medium" }.to_owned(),
            window: SeenWindow { start_ms: fullest.hour.start_ms(), end_ms: fullest.hour.end_ms() },
            observed: fullest.told(),
            threshold: fullest.threshold,
            baseline: match fullest.own {
                Some(own) => Baseline { kind: "own".to_owned(), value: Some(float(own)) },
                None => Baseline { kind: "rule".to_owned(), value: None },
            },
            factor: ratio(float(fullest.told()), float(fullest.own.unwrap_or(fullest.threshold)).max(1.0)),
            evidence: told,
            // How many partitions do not show it is not told: there may be more of them without any growth.
            counter_evidence: vec![innocent(rule).to_owned()],
            explanation,
            data_gaps: gaps(rule).iter().map(|gap| (*gap).to_owned()).collect(),
            first_ms: hours().min()?.start_ms(),
            last_ms: hours().max()?.end_ms(),
            revision,
            withdrawn: false,
            e_value_log10: None,
            subject,
        })
    }
}

const fn number(account: &Account) -> Option<i32> {
    match account {
        Account::Partition { number, .. } => Some(*number),
        _ => None,
    }
}

/// Where it was seen, without a name: explanations go where subjects do not.
fn place(account: &Account) -> String {
    match account {
        Account::Partition { number, .. } => format!("Partition {number}"),
        Account::Door(_) => "One door".to_owned(),
        Account::Principal(_) => "One user".to_owned(),
    }
}

/// A count in words that go on after a number.
fn said(what: &str) -> String {
    if let Some(fault) = what.strip_prefix(QUARANTINED) {
        return format!("events that could not be read ({fault})");
    }
    match what {
        BEHIND => "events lay more than an hour behind what had been read",
        NO_AGE => "events that say no age band",
        deeds::FORBIDDEN => "statements were refused for what the role may not read",
        deeds::UNKNOWN => "statements were refused for names that there are not",
        deeds::BUDGET => "questions were refused that the budget does not hold",
        deeds::LIMITS => "statements were refused that met a limit",
        deeds::UNFIT => "statements were refused as they were written",
        deeds::VARIANT => "private questions differed from an earlier one in literals alone",
        deeds::LOOKUP => "alerts were opened one by one",
        deeds::MISSING => "alerts were asked for that there are not",
        deeds::LOGIN => "log-ins were refused",
        deeds::NAME => "different names were refused a log-in",
        deeds::TOKEN => "tokens were nobody's",
        other => other,
    }
    .to_owned()
}

/// What would look the same without anybody who means harm.
fn innocent(rule: &str) -> &'static str {
    match rule {
        "pipeline_replay" => {
            "phones that send what they kept during a long outage, and a producer that was restored from a copy, look the same"
        }
        "pipeline_poisoning" => "a producer's release that writes what this version cannot read looks the same",
        "door_probing" => "a program that repeats a broken statement looks the same",
        "door_differencing" => {
            "somebody who asks the same of one group after another looks the same; the budget bounds what all of it tells"
        }
        "door_lookups" => "a program that opens each alert of the feed looks the same",
        _ => "a program with an old password or token looks the same",
    }
}

fn gaps(rule: &str) -> &'static [&'static str] {
    match rule {
        "pipeline_replay" => &["events have no id by which one that came before could be told"],
        "door_differencing" => &["questions are compared within one process and hour"],
        _ => &[],
    }
}
