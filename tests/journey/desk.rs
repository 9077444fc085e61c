//! The work on alerts, as integrity staff do it: at a terminal and over HTTP, with every step in the hash-chained log (I6) and appeals that
//! somebody else answers (P29).

use std::path::Path;
use std::process::Output;

use crate::http::Served;
use crate::support::{alerts, run_trace, simulate, starling, succeed};

/// A command of the desk.
fn desk(data: &Path, arguments: &[&str]) -> Output {
    starling().arg("alerts").args(arguments).arg("--data-dir").arg(data).output().expect("runs")
}

fn done(data: &Path, arguments: &[&str]) -> String {
    let output = desk(data, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn refused(data: &Path, arguments: &[&str]) -> String {
    let output = desk(data, arguments);
    assert!(!output.status.success() && output.stdout.is_empty(), "{arguments:?} was let through");
    String::from_utf8(output.stderr).expect("text")
}

#[test]
fn p29_i6_an_alert_goes_from_new_over_an_appeal_to_closed_and_each_step_is_logged() {
    let dir = tempfile::tempdir().expect("dir");
    let (trace, _) = simulate(dir.path(), 1_000, 1, 4, &[]);
    let data = dir.path().join("data");
    run_trace(&trace, &data);
    let before = alerts(&data);
    let business = before.iter().find(|a| a["subject"]["kind"] == "business").expect("a business is alerted on");
    let fingerprint = business["fingerprint"].as_str().expect("fingerprint");
    let short = &fingerprint[..8];
    let rule = business["rule"].as_str().expect("rule");

    // From new to acted on; what is not allowed says what is.
    assert!(done(&data, &["--open"]).contains(&fingerprint[..12]));
    assert!(refused(&data, &["confirm", short, "--by", "ana", "--reason", "spam"]).contains("take it first"));
    assert!(done(&data, &["take", short, "--by", "ana"]).contains("triaged, with ana"));
    assert!(
        refused(&data, &["note", short, "--by", "ana", "they call from +49 170 1234567"]).contains("could be a phone number")
    );
    done(&data, &["note", short, "--by", "ana", "the third campaign this week"]);
    done(&data, &["case", short, "--by", "ana", "campaign-3"]);
    assert!(refused(&data, &["confirm", short, "--by", "ana", "--reason", "brigade"]).contains("does not fit"));
    done(&data, &["confirm", short, "--by", "ana", "--reason", "spam"]);
    assert!(done(&data, &["act", short, "--by", "ben", "limited"]).contains("actioned"));

    // The appeal: by another reviewer, in writing, and what was done is to be undone.
    done(&data, &["appeal", short, "--by", "desk", "these are our own customers"]);
    for same in ["ana", "ben"] {
        let text = refused(&data, &["answer", short, "--by", same, "--grant", "we looked again"]);
        assert!(text.contains("neither decided nor acted"), "{text}");
    }
    assert!(done(&data, &["--open"]).contains("appealed"));
    let granted = done(&data, &["answer", short, "--by", "cleo", "--grant", "they are; the limit is lifted"]);
    assert!(granted.contains("closed") && granted.contains("is to be undone"), "{granted}");
    assert!(!done(&data, &["--open"]).contains(&fingerprint[..12]), "it is dealt with");

    let shown = done(&data, &["show", short]);
    for step in ["taken by ana", "note: the third campaign", "confirmed: spam", "done: limited", "appeal granted: they are"] {
        assert!(shown.contains(step), "{step}: {shown}");
    }
    let precision = done(&data, &["precision"]);
    assert!(precision.lines().any(|l| l.starts_with(rule) && l.contains("0.0 % (0.0 to 97.5)")), "{precision}");
    let work: serde_json::Value = serde_json::from_str(&done(&data, &["show", short, "--json"])).expect("JSON");
    assert_eq!(
        (&work["work"]["state"], &work["work"]["cleared"], work["steps"].as_array().map(Vec::len)),
        (&"closed".into(), &true.into(), Some(7))
    );

    // The log has each step once, holds, and what was seen is what it was.
    let log = succeed(starling().args(["audit", "tail", "--lines", "1000", "--data-dir"]).arg(&data));
    assert_eq!(log.matches("alert_step").count(), 7, "{log}");
    assert!(!log.contains("customers") && !log.contains("campaign this week"), "what people write is not in the log");
    succeed(starling().args(["audit", "verify", "--data-dir"]).arg(&data));
    let after: Vec<_> = alerts(&data).into_iter().map(|a| (a["fingerprint"].clone(), a["explanation"].clone())).collect();
    assert_eq!(after.len(), before.len());
    assert_eq!(after.last().map(|a| a.0.clone()), Some(fingerprint.into()), "who follows the feed sees where it stands");
}

#[test]
fn a_silence_has_an_owner_and_an_end_and_is_told() {
    let dir = tempfile::tempdir().expect("dir");
    let (trace, _) = simulate(dir.path(), 1_000, 1, 4, &[]);
    let data = dir.path().join("data");
    run_trace(&trace, &data);
    let first = alerts(&data).remove(0);
    let fingerprint = first["fingerprint"].as_str().expect("fingerprint");
    assert!(refused(&data, &["silence", fingerprint, "--by", "ana", "--for", "31d", "a campaign"]).contains("30 days"));
    assert!(refused(&data, &["silence", fingerprint, "--by", "ana", "--for", "2w", "a campaign"]).contains("90m, 12h, 7d"));
    done(&data, &["silence", fingerprint, "--by", "ana", "--for", "7d", "a campaign we know"]);
    assert!(done(&data, &["silences"]).contains("a campaign we know"));
    assert!(!done(&data, &["--open"]).contains(&fingerprint[..12]));
    assert!(done(&data, &[]).contains(&fingerprint[..12]), "the whole feed still has it");
    done(&data, &["unsilence", fingerprint, "--by", "ben"]);
    assert!(done(&data, &["--open"]).contains(&fingerprint[..12]));
    assert!(refused(&data, &["unsilence", fingerprint, "--by", "ben"]).contains("no silence"));
    assert!(refused(&data, &["show", "abc"]).contains("first 6 hexadecimal digits"));
    assert!(refused(&data, &["show", "g00000"]).contains("first 6 hexadecimal digits"));
}

#[test]
fn steps_are_taken_over_http_by_the_same_rules() {
    let dir = tempfile::tempdir().expect("dir");
    let (trace, _) = simulate(dir.path(), 1_000, 1, 4, &[]);
    let data = dir.path().join("data");
    run_trace(&trace, &data);
    let first = alerts(&data).remove(0);
    let path = format!("/v1/alerts/{}", first["fingerprint"].as_str().expect("fingerprint"));
    let served = Served::start(&data, None);
    let step = |body: &str| served.post(&format!("{path}/steps"), "Content-Type: application/json\r\n", body);

    let taken = step(r#"{"by":"ana","step":"take","assignee":"ben"}"#);
    assert!(taken.starts_with("HTTP/1.1 200") && taken.contains(r#""assignee":"ben""#), "{taken}");
    let early = step(r#"{"by":"ben","step":"act","enforcement":"banned"}"#);
    assert!(early.starts_with("HTTP/1.1 422") && early.contains("only what is confirmed"), "{early}");
    for unreadable in
        [r#"{"by":"ben","step":"ban"}"#, r#"{"step":"close"}"#, "{", r#"{"by":"ben","step":"note","text":"x","more":1}"#]
    {
        let answer = step(unreadable);
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("the body is no step"), "{unreadable}: {answer}");
    }
    // A page in a browser can only send this without asking first.
    let plain = served.post(&format!("{path}/steps"), "Content-Type: text/plain\r\n", r#"{"by":"ana","step":"close"}"#);
    assert!(plain.starts_with("HTTP/1.1 400"), "{plain}");
    let none =
        served.post("/v1/alerts/000000000000/steps", "Content-Type: application/json\r\n", r#"{"by":"ana","step":"close"}"#);
    assert!(none.starts_with("HTTP/1.1 404"), "{none}");
    let shown = served.whole(&path, "");
    assert!(
        shown.starts_with("HTTP/1.1 200") && shown.contains(r#""state":"triaged""#) && shown.contains(r#""number":1"#),
        "{shown}"
    );
}

#[test]
fn i6_a_step_whose_disk_fails_is_in_the_log_if_and_only_if_it_was_taken() {
    let dir = tempfile::tempdir().expect("dir");
    let (trace, _) = simulate(dir.path(), 1_000, 1, 4, &[]);
    let data = dir.path().join("data");
    run_trace(&trace, &data);
    let first = alerts(&data).remove(0);
    let fingerprint = first["fingerprint"].as_str().expect("fingerprint");
    for point in starling_store::faultpoint::STEPS {
        let fault = format!("{point} taking a step on an alert=EIO");
        let mut take = starling();
        take.args(["alerts", "take", fingerprint, "--by", "ana", "--data-dir"]).arg(&data);
        let output = take.env("STARLING_FAIL_AT", fault).output().expect("runs");
        assert!(!output.status.success() && output.stdout.is_empty(), "{point}");
        let shown: serde_json::Value = serde_json::from_str(&done(&data, &["show", fingerprint, "--json"])).expect("JSON");
        let taken = shown["steps"].as_array().map_or(0, Vec::len);
        assert_eq!(taken, usize::from(*point == "committed"), "{point}");
        let log = succeed(starling().args(["audit", "tail", "--lines", "1000", "--data-dir"]).arg(&data));
        assert_eq!(log.matches("alert_step").count(), taken, "{point}");
        succeed(starling().args(["audit", "verify", "--data-dir"]).arg(&data));
    }
    assert!(done(&data, &["take", fingerprint, "--by", "ana"]).contains("triaged"), "taking it again does no harm");
}
