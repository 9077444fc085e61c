use super::*;

#[test]
fn every_table_of_the_detectors_is_among_their_names() {
    let table: toml::Table = toml::from_str(include_str!("../rules.toml")).expect("TOML");
    let rules = Rules::detectors().expect("reviewed text");
    let mut names: Vec<_> = rules.detectors_in_force().iter().map(|(name, _)| (*name).to_owned()).collect();
    names.sort_unstable();
    let tables: Vec<_> = table.keys().filter(|name| *name != "standing").cloned().collect();
    assert_eq!(names, tables);
    for (name, version) in rules.detectors_in_force() {
        assert_eq!(table[name]["version"].as_integer(), Some(i64::from(version)), "{name}");
    }
}

#[test]
fn shipped_rules_are_written_ones_in_shadow_and_have_passed_their_tests() {
    let rules = Rules::builtin().expect("reviewed text");
    let shipped = rules.written.rules();
    assert!(shipped.len() >= 3 && shipped.iter().all(|rule| rule.tests >= 3));
    for rule in shipped {
        assert_eq!(rules.standing(&rule.name).map(|standing| standing.stage), Some(crate::Stage::Shadow), "{}", rule.name);
    }
    assert_eq!(rules.standing("no_such_rule"), None);
}

#[test]
fn p22_the_builtin_rule_is_a_thousand_in_sixty_seconds() {
    let rules = Rules::builtin().expect("reviewed text");
    assert_eq!((rules.bulk_per_minute.messages, rules.bulk_per_minute.within_ms), (1000, 60_000));
}

#[test]
fn an_unknown_name_or_a_missing_tier_is_refused() {
    let text = include_str!("../rules.toml");
    assert!(Rules::parse(&text.replace("members = 100", "member = 100")).is_err());
    for (given, wrong) in
        [("least_null = 0.1", "least_null = 0.6"), ("most_suspects = 1", "most_suspects = 0#1"), ("= 9200", "= 92")]
    {
        let error = Rules::parse(&text.replace(given, wrong)).expect_err(wrong);
        assert!(error.to_string().contains("slow_bulk"), "{error}");
    }
    for (given, wrong) in
        [("spread = 4.0", "spread = 0"), ("contacts = 5", "contacts = 1"), ("\nmembers = 10\n", "\nmembers = 9\n")]
    {
        let error = Rules::parse(&text.replace(given, wrong)).expect_err(wrong);
        assert!(error.to_string().contains("coordinated_senders"), "{error}");
    }
    let error = Rules::parse(&text.replace("10k = 1500\n", "")).expect_err("a tier is missing");
    assert!(error.to_string().contains("10k"), "{error}");
}

#[test]
fn every_rule_has_a_standing_and_promises_to_users_are_not_demoted() {
    let text = include_str!("../rules.toml");
    let rules = Rules::parse(text).expect("reviewed text");
    // Each table of a rule is one of the list: a rule that is added must have its standing.
    let tables: toml::Table = toml::from_str(text).expect("TOML");
    let named: std::collections::BTreeSet<&str> = tables.keys().map(String::as_str).filter(|name| *name != "standing").collect();
    assert_eq!(named, BUILT_IN.into_iter().collect());
    for rule in BUILT_IN {
        let standing = rules.standing(rule).expect("has one");
        assert_eq!(standing.stage, crate::Stage::Live, "{rule}");
        // P22, P23, P24.
        let is_promised = ["bulk_per_minute", "business_reach", "business_blocks"].contains(&rule);
        assert_eq!(standing.demoted_by_verdicts, !is_promised, "{rule}");
    }
    assert!(rules.standing("standing").is_none());
    // Nor does a setting that says nothing of it, or says otherwise.
    let mut told = rules;
    for rule in ["bulk_per_minute", "group_churn"] {
        let other: Standing = toml::from_str("stage = 'live'\ndaily_alerts = 9\nfalse_discovery = 0.02").expect("right");
        told.stand([(rule.to_owned(), other)]);
        let standing = told.standing(rule).expect("has one");
        assert_eq!((standing.daily_alerts, standing.demoted_by_verdicts), (9, rule == "group_churn"), "{rule}");
    }
    let without = text.replace("[standing.group_churn]", "[standing.group_burn]");
    let error = Rules::parse(&without).expect_err("one is missing").to_string();
    assert!(error.contains("standing.group_churn is missing"), "{error}");
    let more = format!("{text}\n[standing.sheep]\nstage = \"live\"\ndaily_alerts = 1\nfalse_discovery = 0.1\n");
    let error = Rules::parse(&more).expect_err("one too many").to_string();
    assert!(error.contains("standing.sheep: there is no such rule"), "{error}");
    let wrong = text.replacen("daily_alerts = 5000", "daily_alerts = 0", 1);
    let error = Rules::parse(&wrong).expect_err("tells nobody").to_string();
    assert!(error.contains("standing.bulk_per_minute.daily_alerts"), "{error}");
}

#[test]
fn a_threshold_of_an_hour_rule_that_makes_no_sense_is_refused_by_name() {
    let text = include_str!("../rules.toml");
    for (rule, line, instead) in [
        ("group_link_joins", "within_ms = 3600000", "within_ms = 3600001"),
        ("group_link_joins", "within_ms = 3600000", "within_ms = 4200000"),
        ("group_link_joins", "within_ms = 3600000", "within_ms = 0"),
        ("group_link_joins", "joins = 50", "joins = 9"),
        ("group_link_joins", "over_baseline = 10.0", "over_baseline = 0.5"),
        ("group_link_joins.segment_baseline", "known = 8", "known = 0"),
        ("group_link_joins.segment_baseline", "new = 25", "new = nan"),
        ("group_churn", "within_ms = 3600000", "within_ms = -600000"),
        ("group_churn", "left = 30", "left = 9"),
        ("group_churn", "left = 30", "left = 51"),
        ("group_churn", "came = 50", "came = 9"),
        ("group_churn", "share = 0.5", "share = 1.5"),
        ("group_reports", "within_ms = 3600000", "within_ms = 7200000"),
        ("group_reports", "reports = 20", "reports = 1"),
        ("group_reports", "null_base = 1.0", "null_base = 0"),
        ("group_reports", "null_rate = 0.01", "null_rate = inf"),
        ("group_reports", "shape = 2.0", "shape = 0"),
        ("group_reports", "tail = 1e-6", "tail = 0.5"),
        ("group_report_brigade", "reports = 20", "reports = 9"),
        ("group_report_brigade", "share = 0.5", "share = 0.05"),
        ("group_report_brigade", "within_ms = 3600000", "within_ms = 4200000"),
    ] {
        let (before, section) = text.split_once(&format!("[{rule}]\n")).expect("a section");
        let changed = format!("{before}[{rule}]\n{}", section.replacen(line, instead, 1));
        assert_ne!(changed, text, "{line}");
        let error = Rules::parse(&changed).expect_err(instead).to_string();
        let name = format!("{rule}.{}", line.split_once(' ').expect("a name").0);
        assert!(error.contains(&name), "{name}: {error}");
    }
}
