//! `starling evaluate`: what it counts is what the truth and the feed of a run say.

use std::path::Path;

use serde_json::Value;

use crate::support::{alerts, fail, run_trace, simulate, starling, succeed};

fn evaluate(trace: &Path, truth: &Path) -> Value {
    let text = succeed(starling().args(["evaluate", "--json", "--trace"]).arg(trace).arg("--truth").arg(truth));
    let mut report: Value = serde_json::from_str(&text).expect("JSON");
    assert!(report["signals_a_second"].as_f64() > Some(0.0));
    assert!(report["bytes"].as_u64() > Some(10_000));
    // How hash tables grow is not the same each time.
    for name in ["signals_a_second", "bytes"] {
        report.as_object_mut().expect("an object").remove(name);
    }
    report
}

#[test]
fn rules_are_judged_by_the_truth_and_the_same_trace_gets_the_same_judgement() {
    let dir = tempfile::tempdir().expect("dir");
    let (trace, truth) = simulate(dir.path(), 2_000, 3, 9, &[]);
    let told = dir.path().join("truth.json");
    let report = evaluate(&trace, &told);
    assert_eq!(report, evaluate(&trace, &told), "the same trace, the same judgement");

    let abusers = truth["abusers"].as_array().expect("planted");
    assert!(abusers.len() >= 5 && truth["harmless"].as_array().expect("planted").len() >= 5);
    let scenarios = report["scenarios"].as_array().expect("scenarios");
    let planted: u64 = scenarios.iter().map(|s| s["found"]["of"].as_u64().expect("a count")).sum();
    assert_eq!(planted, abusers.len() as u64);
    for scenario in scenarios {
        assert_eq!(scenario["found"]["hits"], scenario["found"]["of"], "{scenario}");
        assert_eq!(scenario["by_expected_rule"], scenario["found"]["of"], "{scenario}");
    }
    let of = |kind: &str| scenarios.iter().find(|s| s["kind"] == kind).expect("planted").clone();
    // The thousandth of 1,000 to 1,500 messages within a minute raises it.
    let bulk = of("fast_bulk");
    let planted = abusers.iter().find(|a| a["kind"] == "fast_bulk").expect("planted");
    let share = bulk["share_before_largest"].as_f64().expect("found");
    let count = planted["count"].as_f64().expect("a count");
    assert!((1_000.0 / (count * 1.5)..=1.0).contains(&share), "{share} of {count}");
    assert!(bulk["delay_ms_largest"].as_i64().expect("found") <= 60_000, "{bulk}");
    assert_eq!(report["false_alerts"], serde_json::json!([]), "{report}");
    assert!(report["false_by_user_days"]["of"].as_u64() > Some(1_000) && report["days"].as_u64() >= Some(3), "{report}");

    // What is chosen by its e-values: the more, the higher the level; and nobody who is not planted is.
    let chosen = report["chosen"].as_array().expect("levels");
    assert_eq!(chosen.iter().map(|c| c["promised"].as_f64().expect("a level")).collect::<Vec<_>>(), [0.01, 0.05, 0.1]);
    let count = |place: usize, name: &str| chosen[place]["realised"][name].as_u64().expect("a count");
    assert!(count(0, "of") <= count(1, "of") && count(1, "of") <= count(2, "of"), "{chosen:?}");
    assert!(count(2, "of") > 0 && count(2, "hits") == 0, "{chosen:?}");
    for level in chosen {
        let (found, left_out) = (level["found"].as_u64().expect("a count"), &level["left_out"]);
        assert_eq!(
            level["realised"]["of"].as_u64().expect("a count") + left_out["hits"].as_u64().expect("a count"),
            found,
            "{level}"
        );
    }

    // The stream finds the same.
    let data = dir.path().join("data");
    run_trace(&trace, &data);
    assert_eq!(report["alerts"], alerts(&data).len());

    // A truth in which one abuser is somebody else: one less is found, and the alerts on the real one are false.
    let mut other = truth.clone();
    let abusers = other["abusers"].as_array_mut().expect("planted");
    let place = abusers.iter().position(|a| a["kind"] == "fast_bulk").expect("planted");
    abusers[place]["subject"] = "+4915200000017".into();
    std::fs::write(&told, other.to_string()).expect("writes");
    let judged = evaluate(&trace, &told);
    let bulk =
        judged["scenarios"].as_array().expect("scenarios").iter().find(|s| s["kind"] == "fast_bulk").cloned().expect("planted");
    assert_eq!((&bulk["found"]["hits"], &bulk["found"]["of"]), (&0.into(), &1.into()), "{bulk}");
    assert!(bulk["delay_ms_median"].is_null() && bulk["found"]["high"].as_f64() > Some(0.9), "one miss proves little: {bulk}");
    assert_eq!(judged["false_alerts"][0]["who"], "others");
    assert!(judged["precision"]["hits"].as_u64() < report["precision"]["hits"].as_u64());
    assert_eq!(
        judged["chosen"][2]["realised"]["of"], report["chosen"][2]["realised"]["of"],
        "who is chosen is not asked of the truth"
    );

    // One in which nobody is an abuser: all that is chosen is false.
    other["abusers"] = serde_json::json!([]);
    std::fs::write(&told, other.to_string()).expect("writes");
    let judged = evaluate(&trace, &told);
    let realised = &judged["chosen"][2]["realised"];
    assert_eq!((&realised["hits"], &realised["of"]), (&realised["of"], &report["chosen"][2]["realised"]["of"]), "{realised}");
}

#[test]
fn a_new_template_that_people_do_not_want_is_found_within_hours_and_a_usual_one_is_not() {
    let dir = tempfile::tempdir().expect("dir");
    let (trace, truth) = simulate(dir.path(), 1_000, 10, 9, &["--planted", "3"]);
    let report = evaluate(&trace, &dir.path().join("truth.json"));
    let scenarios = report["scenarios"].as_array().expect("scenarios");
    let unwanted = scenarios.iter().find(|s| s["kind"] == "unwanted_template").expect("planted");
    assert_eq!((&unwanted["found"]["hits"], &unwanted["by_expected_rule"]), (&2.into(), &2.into()), "{unwanted}");
    assert!(unwanted["delay_ms_largest"].as_i64() < Some(3 * 3_600_000), "{unwanted}");
    let harmless = truth["harmless"].as_array().expect("planted");
    assert_eq!(harmless.iter().filter(|one| one["kind"] == "new_template").count(), 2);
    let wrong = report["false_alerts"].as_array().expect("false ones");
    let of_templates = |one: &&Value| one["rule"] == "business_template" || one["who"] == "new_template";
    assert_eq!(wrong.iter().filter(of_templates).count(), 0, "{wrong:?}");
    // What such an alert tells is counted once more, from the trace.
    assert!(report["not_recounted"]["business_template"].is_null(), "{report}");
}

#[test]
fn i4_a_truth_that_cannot_be_used_is_refused_without_its_values() {
    let dir = tempfile::tempdir().expect("dir");
    let (trace, truth) = simulate(dir.path(), 1_000, 1, 9, &[]);
    let told = dir.path().join("truth.json");
    for (field, value, expected) in [
        ("subject", "hunter2", "is no sender with an E.164 number"),
        ("subject_kind", "hunter2", "is no sender with an E.164 number"),
        ("start_ms", "hunter2", "this is no truth"),
    ] {
        let mut wrong = truth.clone();
        wrong["abusers"][0][field] = value.into();
        std::fs::write(&told, wrong.to_string()).expect("writes");
        let text = fail(starling().args(["evaluate", "--trace"]).arg(&trace).arg("--truth").arg(&told));
        assert!(text.contains(expected) && !text.contains("hunter2"), "{text}");
    }
    std::fs::write(&told, truth.to_string()).expect("writes");
    let text = fail(starling().args(["evaluate", "--trace"]).arg(dir.path().join("none")).arg("--truth").arg(&told));
    assert!(text.contains("none"), "{text}");
    // The report for people tells scenarios and rules, and no number of anybody.
    let text = succeed(starling().args(["evaluate", "--trace"]).arg(&trace).arg("--truth").arg(&told));
    assert!(text.contains("Abusers found") && text.contains("per million user-days"), "{text}");
    for planted in truth["abusers"].as_array().expect("planted") {
        let subject = planted["subject"].as_str().expect("text");
        assert!(!text.contains(subject), "{text}");
    }
}
