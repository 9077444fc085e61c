//! From text to rules: everything that is wrong is found and told at once.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use starling_schemas::codes::Tier;

use super::{Condition, LEAST, RuleFile, WrittenRule};
use crate::facts::{Cell, Column, Fact, Kind, Row};
use crate::standing::Standing;

const SEVERITIES: [&str; 3] = ["low", "medium", "high"];
/// What people say of a subject; they can say it by arrangement.
const REPORTS: [&str; 4] = ["objections", "blocked", "reported", "unfounded"];
/// Most rules of a file, so that judging stays a small part of the work.
const MOST_RULES: usize = 100;
const MOST_TESTS: usize = 100;
/// Longest `about`, in bytes: it stands in every alert.
const MOST_ABOUT: usize = 600;

/// A rule as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    version: u32,
    about: String,
    on: String,
    when: String,
    counts: String,
    least: u32,
    severity: String,
    #[serde(default)]
    before: Vec<String>,
    standing: Standing,
    tests: Vec<TestText>,
}

/// A window that a rule must or must not fire on. Columns that are not given are 0, false, unknown, or null where they can be.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TestText {
    says: String,
    given: BTreeMap<String, toml::Value>,
    fires: bool,
}

/// Reads all files; see [`super::Written::read`].
pub(super) fn all(shipped: &RuleFile, more: &[RuleFile], detectors: &[&str]) -> Result<Vec<WrittenRule>, Vec<String>> {
    let mut faults = Vec::new();
    let mut rules = file(shipped, &mut faults);
    let shipped: BTreeSet<String> = rules.iter().map(|rule| rule.name.clone()).collect();
    let mut own: BTreeSet<String> = BTreeSet::new();
    for one in more {
        for rule in file(one, &mut faults) {
            let name = rule.name.clone();
            if shipped.contains(&name) && !own.contains(&name) {
                rules.retain(|other| other.name != name);
            }
            own.insert(name);
            rules.push(rule);
        }
    }
    // A name that a rule has, or had.
    let mut taken: BTreeMap<&str, &str> = detectors.iter().map(|name| (*name, "a built-in detector")).collect();
    for rule in &rules {
        for (field, name) in std::iter::once(("", &rule.name)).chain(rule.before.iter().map(|name| ("before: ", name))) {
            if let Some(whose) = taken.insert(name, &rule.file) {
                faults.push(format!(
                    "{}: rule `{}`: {field}`{name}` is taken already, by {whose}: names are kept for ever, choose another",
                    rule.file, rule.name
                ));
            }
        }
    }
    if faults.is_empty() { Ok(rules) } else { Err(faults) }
}

fn file(file: &RuleFile, faults: &mut Vec<String>) -> Vec<WrittenRule> {
    let name = &file.name;
    let table: toml::Table = match toml::from_str(&file.text) {
        Ok(table) => table,
        Err(error) => {
            let before = error.span().and_then(|span| file.text.get(..span.start));
            let line = before.map_or(1, |text| text.matches('\n').count() + 1);
            faults.push(format!("{name}:{line}: {}", error.message()));
            return Vec::new();
        }
    };
    if table.len() > MOST_RULES {
        faults.push(format!("{name}: has more than {MOST_RULES} rules: take out those that nobody looks at"));
        return Vec::new();
    }
    let mut rules = Vec::new();
    for (rule, value) in table {
        let mut of_rule = Vec::new();
        let read = rule_of(name, &rule, value, &mut of_rule);
        let is_sound = of_rule.is_empty();
        faults.extend(of_rule.into_iter().map(|fault| format!("{name}: rule `{rule}`: {fault}")));
        rules.extend(read.filter(|_| is_sound));
    }
    rules
}

fn is_name(name: &str) -> bool {
    (3..=48).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

fn rule_of(file: &str, name: &str, value: toml::Value, faults: &mut Vec<String>) -> Option<WrittenRule> {
    let text: Text = match value.try_into() {
        Ok(text) => text,
        Err(error) => {
            faults.push(toml::de::Error::message(&error).to_owned());
            return None;
        }
    };
    let mut need = |ok: bool, fault: String| {
        if !ok {
            faults.push(fault);
        }
    };
    const NAME: &str = "3 to 48 small letters, digits and _, a letter first";
    need(is_name(name), format!("a rule's name is {NAME}"));
    for before in &text.before {
        need(is_name(before), format!("before: a rule's name is {NAME}"));
    }
    need(text.version >= 1, "version: at least 1; another condition is a new version".to_owned());
    let about = text.about.trim();
    need(
        (20..=MOST_ABOUT).contains(&about.len()) && !about.contains('\n'),
        format!("about: say in 20 to {MOST_ABOUT} bytes, on one line, why the rule is there; it stands in each alert"),
    );
    need(text.least >= LEAST, format!("least: at least {LEAST}; smaller counts are told of nobody"));
    let severity = SEVERITIES.into_iter().find(|severity| *severity == text.severity);
    need(severity.is_some(), format!("severity: one of {}", SEVERITIES.join(", ")));
    if let Err(what) = text.standing.check() {
        need(false, format!("standing: {what}"));
    }
    let Some(fact) = Fact::parse(&text.on) else {
        need(false, format!("on: one of {}", Fact::ALL.map(Fact::name).join(", ")));
        return None;
    };
    let counts = fact.counts().iter().find(|column| column.name == text.counts);
    let names = || fact.counts().iter().map(|column| column.name).collect::<Vec<_>>().join(", ");
    need(counts.is_some(), format!("counts: one of {}", names()));
    let condition = Condition::parse(&text.when, fact).map_err(|what| need(false, format!("when: {what}"))).ok()?;
    let (column, severity) = (counts?, severity?);
    // Whatever else the condition names may say nothing.
    let mut named = condition.columns.iter().filter_map(|place| fact.counts().get(*place)).chain([column]);
    let by_reports = named.any(|column| REPORTS.contains(&column.name));
    need(
        !by_reports || severity == "low",
        "severity: \"low\", as it looks at what people report or block: that can be by arrangement, and alone never enforces (P25)"
            .to_owned(),
    );
    // Not its name: a rule that is renamed finds the same.
    let judged = [&text.on, &text.when, column.name];
    let rule = WrittenRule {
        name: name.to_owned(),
        version: text.version,
        about: about.to_owned(),
        on: fact,
        counts: column.name,
        least: text.least,
        severity,
        before: text.before,
        standing: text.standing,
        tests: text.tests.len(),
        file: file.to_owned(),
        place: fact.place(column.name)?,
        digest: digest(&judged, text.version, text.least),
        when: text.when.split_whitespace().collect::<Vec<_>>().join(" "),
        condition,
    };
    run(&rule, &text.tests, faults);
    Some(rule)
}

fn digest(parts: &[&str], version: u32, least: u32) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new_derive_key("starling integrity: written rule");
    for part in parts {
        hasher.update(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.update(&version.to_le_bytes()).update(&least.to_le_bytes());
    let mut out = [0; 16];
    out.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    out
}

/// Runs a rule's tests.
fn run(rule: &WrittenRule, tests: &[TestText], faults: &mut Vec<String>) {
    for (fires, which) in [(true, "on which it fires"), (false, "on which it does not")] {
        if !tests.iter().any(|test| test.fires == fires) {
            faults.push(format!("tests: at least one {which}"));
        }
    }
    if tests.len() > MOST_TESTS {
        faults.push(format!("tests: at most {MOST_TESTS}"));
        return;
    }
    let mut rows = Vec::new();
    for test in tests {
        match row_of(rule.on, test) {
            Ok(row) => rows.push(row),
            Err(fault) => faults.push(format!("test \"{}\": {fault}", test.says)),
        }
    }
    let Some(batch) = rule.on.batch(&rows).filter(|_| rows.len() == tests.len()) else { return };
    for (test, found) in tests.iter().zip(rule.fires(&rows, &batch)) {
        if found.is_some() != test.fires {
            let (does, should) = if test.fires { ("does not fire", "fires") } else { ("fires", "does not fire") };
            faults.push(format!(
                "test \"{}\": the rule {does}; mend the condition, or say fires = {} if that is meant ({should} now)",
                test.says,
                found.is_some()
            ));
        }
    }
}

#[allow(clippy::cast_precision_loss)]
fn row_of(fact: Fact, test: &TestText) -> Result<Row, String> {
    if test.says.trim().is_empty() {
        return Err("says: a few words on what happens in this window".to_owned());
    }
    let mut row: Row = fact.columns().iter().map(Column::nothing).collect();
    for (name, value) in &test.given {
        let place = fact
            .place(name)
            .ok_or_else(|| format!("given: `{name}` is no column of {}; the columns are {}", fact.name(), fact.names()))?;
        let (Some(column), Some(cell)) = (fact.columns().get(place), row.get_mut(place)) else { continue };
        *cell = match (column.kind, value) {
            (Kind::Number, toml::Value::Integer(n)) if (0..=i64::from(u32::MAX)).contains(n) => Cell::Number(Some(*n as f64)),
            (Kind::Number, toml::Value::Float(n)) if (0.0..=f64::from(u32::MAX)).contains(n) => Cell::Number(Some(*n)),
            (Kind::Number, _) => return Err(format!("given: {name} is a number of 0 to {}", u32::MAX)),
            (Kind::Flag, toml::Value::Boolean(flag)) => Cell::Flag(*flag),
            (Kind::Flag, _) => return Err(format!("given: {name} is true or false")),
            (Kind::Tier, value) => {
                let names = || Tier::ALL.iter().map(|tier| tier.name()).collect::<Vec<_>>().join(", ");
                let tier = value.as_str().and_then(Tier::parse);
                Cell::Tier(tier.ok_or_else(|| format!("given: {name} is one of {}, as text", names()))?)
            }
        };
    }
    Ok(row)
}

#[cfg(test)]
mod tests {
    use super::super::Written;
    use super::*;

    const GOOD: &str = r#"
[unanswered_campaign]
version = 1
about = "A campaign that nearly nobody answers: lists that were bought answer less than customers do."
on = "business_day"
when = "reached >= 500 AND replied < 0.02 * sent AND sent_authentication = 0"
counts = "reached"
least = 500
severity = "medium"
before = ["old_name"]
[unanswered_campaign.standing]
stage = "shadow"
daily_alerts = 20
false_discovery = 0.05
[[unanswered_campaign.tests]]
says = "nobody answers"
given = { reached = 5000, sent = 6000, replied = 90 }
fires = true
[[unanswered_campaign.tests]]
says = "an airline on a bad day is answered"
given = { reached = 5000, sent = 6000, replied = 900 }
fires = false
"#;

    fn at(name: &str, text: &str) -> RuleFile {
        RuleFile { name: name.to_owned(), text: text.to_owned() }
    }

    fn read(text: &str) -> Result<Written, Vec<String>> {
        Written::read(&at("shipped.toml", ""), &[at("rules.toml", text)], &["bulk_per_minute"])
    }

    #[test]
    fn a_rule_is_read_typed_and_tested() {
        let written = read(GOOD).expect("good");
        let rule = written.named("unanswered_campaign").expect("there");
        assert_eq!((rule.first_name(), rule.least, rule.tests, rule.counts), ("old_name", 500, 2, "reached"));
        let rules = crate::Rules { written: read(GOOD).expect("good"), ..crate::Rules::detectors().expect("reviewed") };
        for name in [rule.name.as_str(), "old_name"] {
            assert_eq!((rules.first_name(name), rules.name_now(rules.first_name(name))), ("old_name", rule.name.as_str()));
        }
        assert_eq!((rules.first_name("slow_bulk"), rules.name_now("gone")), ("slow_bulk", "gone"));
        assert_eq!(written.on(Fact::GroupHour).count(), 0);
    }

    #[test]
    fn every_fault_is_told_with_file_rule_field_and_what_to_do() {
        for (line, instead, expected) in [
            ("version = 1", "version = 0", "version: at least 1"),
            ("version = 1", "version = -1", "rule `unanswered_campaign`: "),
            ("version = 1", "", "missing field `version`"),
            ("version = 1", "version = 1\nwehn = \"x\"", "unknown field `wehn`"),
            ("on = \"business_day\"", "on = \"sender_day\"", "on: one of business_day, group_hour"),
            ("counts = \"reached\"", "counts = \"tier_limit\"", "counts: one of sent, "),
            ("counts = \"reached\"", "counts = \"came\"", "counts: one of sent, "),
            ("least = 500", "least = 9", "least: at least 10"),
            ("severity = \"medium\"", "severity = \"critical\"", "severity: one of low, medium, high"),
            ("counts = \"reached\"", "counts = \"reported\"", "severity: \"low\""),
            ("when = \"", "when = \"objections >= 20 AND ", "severity: \"low\""),
            ("before = [\"old_name\"]", "before = [\"Old\"]", "before: a rule's name is"),
            ("before = [\"old_name\"]", "before = [\"bulk_per_minute\"]", "taken already, by a built-in detector"),
            ("before = [\"old_name\"]", "before = [\"unanswered_campaign\"]", "taken already, by rules.toml"),
            ("stage = \"shadow\"", "stage = \"canary\"", "standing: share must be"),
            ("stage = \"shadow\"", "stage = \"loud\"", "unknown variant"),
            ("replied < 0.02", "repleid < 0.02", "when: `repleid` is no column"),
            ("replied = 900", "replied = 9", "test \"an airline on a bad day is answered\": the rule fires"),
            ("replied = 90 ", "replied = 190 ", "test \"nobody answers\": the rule does not fire"),
            ("reached = 5000, sent = 6000, replied = 90 ", "reached = 499, sent = 6000 ", "does not fire"),
            ("replied = 900", "replied = \"many\"", "given: replied is a number"),
            ("replied = 900", "replied = -1", "given: replied is a number"),
            ("replied = 900", "repleid = 900", "given: `repleid` is no column"),
            ("replied = 900", "tier = \"1k\"", "given: tier is one of unknown, 250"),
            ("fires = false", "fires = true", "tests: at least one on which it does not"),
            ("says = \"nobody answers\"", "says = \"\"", "says: a few words"),
            ("about = \"A campaign", "about = \"\" #", "about: say in"),
        ] {
            let text = GOOD.replace(line, instead);
            assert_ne!(text, GOOD, "{line}");
            let faults = read(&text).expect_err(instead);
            assert!(faults.iter().any(|fault| fault.contains(expected)), "{instead}: {faults:?}");
            assert!(faults.iter().all(|fault| fault.starts_with("rules.toml: rule `unanswered_campaign`: ")), "{faults:?}");
        }
        let faults = read(&GOOD.replace("least = 500", "least = ")).expect_err("no TOML");
        assert!(faults.len() == 1 && faults[0].starts_with("rules.toml:8: "), "{faults:?}");
        // One that is wrong takes the good one beside it along, and both faults are told.
        let second = GOOD.replace("unanswered_campaign", "second").replace("old_name", "older_name");
        let text = format!("{GOOD}{}", second.replace("least = 500", "least = 5").replace("version = 1", "version = 0"));
        assert_eq!(read(&text).expect_err("one is wrong").len(), 2);
    }

    #[test]
    fn one_s_own_rule_replaces_a_shipped_one_of_its_name_and_no_other() {
        let own = GOOD.replace("version = 1", "version = 2");
        let written = Written::read(&at("shipped.toml", GOOD), &[at("own.toml", &own)], &[]).expect("replaced");
        let kept: Vec<_> = written.rules().iter().map(|rule| (rule.version, rule.file.as_str())).collect();
        assert_eq!(kept, [(2, "own.toml")]);
        for more in
            [vec![at("a.toml", &own), at("b.toml", &own)], vec![at("a.toml", &GOOD.replace("unanswered_campaign", "third"))]]
        {
            let faults = Written::read(&at("shipped.toml", GOOD), &more, &[]).expect_err("taken");
            assert!(faults.iter().any(|fault| fault.contains("is taken already")), "{faults:?}");
        }
    }

    #[test]
    fn what_decides_whether_it_fires_is_in_its_digest_and_nothing_else() {
        let digest = |text: &str| *read(text).expect("good").named("unanswered_campaign").expect("there").digest();
        for (line, instead) in [("version = 1", "version = 2"), ("least = 500", "least = 501"), ("0.02 *", "0.021 *")] {
            assert_ne!(digest(&GOOD.replace(line, instead)), digest(GOOD), "{instead}");
        }
        for (line, instead) in [
            ("daily_alerts = 20", "daily_alerts = 21"),
            ("A campaign", "Campaigns"),
            ("\"medium\"", "\"low\""),
            ("\"old_name\"", "\"older_name\""),
        ] {
            assert_eq!(digest(&GOOD.replace(line, instead)), digest(GOOD), "{instead}");
            assert_ne!(read(&GOOD.replace(line, instead)), read(GOOD), "{instead}");
        }
    }
}
