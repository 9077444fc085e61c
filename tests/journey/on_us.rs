//! P28: events that are played again, made up or broken are told of; an ordinary week is not (I9: whatever the cuts, and however often).

use std::path::{Path, PathBuf};

use serde_json::Value;
use starling_schemas::event::event::Body;
use starling_schemas::event::{Event, Feature, FeatureUsed};

use crate::support::{
    alerts, comparable_alerts, envelope, fail, frame, run_trace, simulate, sql, starling, status, succeed, write_trace,
};

/// 2026-01-05 00:00 UTC.
const MONDAY_MS: i64 = 1_767_571_200_000;
const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// Events of each hour.
const EVENTS: i64 = 60;

fn event(time_ms: i64, nth: i64) -> Event {
    Event {
        body: Some(Body::FeatureUsed(FeatureUsed { feature: Feature::Reaction.into() })),
        ..envelope(&format!("+49151111{:05}", nth % 40), time_ms)
    }
}

/// Makes one frame after the other.
type Made<'a> = &'a dyn Fn(i64) -> Vec<u8>;

/// Five days, of which the last ends at noon: by frames, a few of them as late as phones are that had no network, a few broken. So little that the fixed
/// numbers of the rules alone hold: what shares and the own past allow is in the tests beside them.
fn week() -> Vec<(i64, Vec<u8>)> {
    let mut frames = Vec::new();
    for nth in 0..(4 * 24 + 12) * EVENTS {
        let time_ms = MONDAY_MS + nth * HOUR_MS / EVENTS;
        let late_ms = if nth % 30 == 0 { 3 * HOUR_MS } else { 0 };
        let whole = frame(&event((time_ms - late_ms).max(MONDAY_MS), nth));
        let cut = if nth % 40 == 0 { 9 } else { 0 };
        frames.push((time_ms, whole[..whole.len() - cut].to_vec()));
    }
    frames
}

/// The frames of that week with others put in at a moment of its last day.
fn with(more: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let at_ms = MONDAY_MS + 4 * DAY_MS + 9 * HOUR_MS + HOUR_MS / 2;
    let (before, after): (Vec<_>, Vec<_>) = week().into_iter().partition(|(time_ms, _)| *time_ms < at_ms);
    let plain = |frames: Vec<(i64, Vec<u8>)>| frames.into_iter().map(|(_, frame)| frame);
    plain(before).chain(more.iter().cloned()).chain(plain(after)).collect()
}

fn taken(dir: &Path, name: &str, frames: &[Vec<u8>]) -> PathBuf {
    let (trace, data) = (dir.join("trace.pb"), dir.join(name));
    write_trace(&trace, frames);
    run_trace(&trace, &data);
    data
}

fn only(data: &Path) -> Value {
    let alerts = alerts(data);
    assert_eq!(alerts.len(), 1, "{alerts:?}");
    alerts[0].clone()
}

#[test]
fn p28_i9_a_slice_that_is_played_again_is_told_once_however_it_is_cut_and_read() {
    let dir = tempfile::tempdir().expect("dir");
    let calm = taken(dir.path(), "calm", &with(&[]));
    assert_eq!(alerts(&calm), Vec::<Value>::new(), "an ordinary week");

    // All of the day before, as it was.
    let slice: Vec<Vec<u8>> = week()
        .into_iter()
        .filter(|(time_ms, _)| (MONDAY_MS + 3 * DAY_MS..MONDAY_MS + 4 * DAY_MS).contains(time_ms))
        .map(|(_, frame)| frame)
        .collect();
    let frames = with(&slice);
    let data = taken(dir.path(), "data", &frames);
    let alert = only(&data);
    assert_eq!((&alert["rule"], &alert["subject"]["kind"]), (&"pipeline_replay".into(), &"pipeline".into()), "{alert}");
    let partition = status(&data)["partitions"][0]["partition"].as_str().expect("a name").to_owned();
    assert_eq!(partition, format!("{}/0", alert["subject"]["value"].as_str().expect("a name")));
    let (start, observed) = (MONDAY_MS + 4 * DAY_MS + 9 * HOUR_MS, alert["observed"].as_u64().expect("a number"));
    assert_eq!(alert["window"], serde_json::json!({ "start_ms": start, "end_ms": start + HOUR_MS }));
    assert!((1_000..=slice.len() as u64).contains(&observed), "{alert}");
    let told = alert["explanation"].as_str().expect("a sentence");
    assert!(told.contains("more than an hour behind") && told.contains("2026-01-09 09:00:00"), "{told}");
    let row = &sql(&data, "SELECT rule, subject_kind, subject, state, key_day FROM integrity.alerts")[0];
    assert_eq!(
        (&row["rule"], &row["subject_kind"], &row["state"]),
        (&"pipeline_replay".into(), &"pipeline".into(), &"new".into())
    );
    let expected = comparable_alerts(&data);
    // It is worked on as any other is.
    let name = alert["fingerprint"].as_str().expect("a name");
    succeed(starling().args(["alerts", "take", name, "--by", "ivy", "--data-dir"]).arg(&data));

    // The same file once more, which is at its end: nothing is told again.
    run_trace(&dir.path().join("trace.pb"), &data);
    assert_eq!(only(&data)["revision"], alert["revision"]);
    // Ranges of another size: the very same alert.
    let cut = dir.path().join("cut");
    succeed(
        starling()
            .env("STARLING_INGEST__MAX_EVENTS", "777")
            .args(["run", "--trace"])
            .arg(dir.path().join("trace.pb"))
            .arg("--data-dir")
            .arg(&cut),
    );
    assert_eq!(comparable_alerts(&cut), expected);
    // The commit of what was found fails at any of its steps: told of, and found at the next run. Detectors look when they begin and not again, so
    // that it is the commit at the end.
    for step in ["begin", "commit", "committed"] {
        let failed = dir.path().join(step);
        let fault = format!("{step} committing findings=EIO");
        let mut command = starling();
        command
            .env("STARLING_FAIL_AT", fault)
            .env("STARLING_ALERTS__LOOK_EVERY_S", "3600")
            .args(["run", "--trace"])
            .arg(dir.path().join("trace.pb"))
            .arg("--data-dir")
            .arg(&failed);
        let told = fail(&mut command);
        assert!(told.contains("run the same command again"), "{told}");
        run_trace(&dir.path().join("trace.pb"), &failed);
        assert_eq!(comparable_alerts(&failed), expected, "{step}");
    }
    // Killed between ranges, and gone on with.
    let killed = dir.path().join("killed");
    let mut command = starling();
    command.env("STARLING_INGEST__MAX_EVENTS", "777").env("STARLING_KILL_AT", "after_commit:5");
    let _ = command
        .args(["run", "--trace"])
        .arg(dir.path().join("trace.pb"))
        .arg("--data-dir")
        .arg(&killed)
        .output()
        .expect("starts");
    run_trace(&dir.path().join("trace.pb"), &killed);
    assert_eq!(comparable_alerts(&killed), expected);
}

#[test]
fn p28_events_that_are_broken_or_of_the_future_are_told_by_their_class() {
    let dir = tempfile::tempdir().expect("dir");
    let noon = MONDAY_MS + 4 * DAY_MS + 9 * HOUR_MS;
    let broken = |nth: i64| frame(&event(noon, nth))[..20].to_vec();
    let ahead = |nth: i64| frame(&event(noon + 20_000 * DAY_MS, nth));
    let ageless = |nth: i64| frame(&Event { choices: None, ..event(noon, nth) });
    let cases: [(&str, &str, Made<'_>); 3] = [
        ("malformed", "could not be read (malformed)", &broken),
        ("ahead", "could not be read (time_out_of_range)", &ahead),
        ("ageless", "say no age band", &ageless),
    ];
    for (name, said, make) in cases {
        let few = taken(dir.path(), &format!("{name}-few"), &with(&(0..400).map(make).collect::<Vec<_>>()));
        assert_eq!(alerts(&few), Vec::<Value>::new(), "{name}: fewer than the rule's number");
        let data = taken(dir.path(), name, &with(&(0..1_200).map(make).collect::<Vec<_>>()));
        let alert = only(&data);
        assert_eq!(alert["rule"], "pipeline_poisoning", "{alert}");
        assert!(alert["explanation"].as_str().expect("a sentence").contains(said), "{alert}");
        // Kept and not told where its rule's standing says so.
        let kept = dir.path().join(format!("{name}-kept"));
        let settings = dir.path().join("settings.toml");
        let standing = "[alerts.standing.pipeline_poisoning]\nstage = \"shadow\"\ndaily_alerts = 5\nfalse_discovery = 0.1\n";
        std::fs::write(&settings, standing).expect("writes");
        let trace = dir.path().join("trace.pb");
        succeed(starling().args(["run", "--trace"]).arg(&trace).arg("--data-dir").arg(&kept).arg("--config").arg(&settings));
        assert_eq!(alerts(&kept), Vec::<Value>::new());
        let text = succeed(starling().args(["alerts", "--kept", "--json", "--data-dir"]).arg(&kept));
        assert!(text.contains("pipeline_poisoning") && text.lines().count() == 1, "{text}");
    }
}

#[test]
fn p28_a_simulated_week_with_its_bad_events_is_no_attack_on_us() {
    let dir = tempfile::tempdir().expect("dir");
    let (trace, _) = simulate(dir.path(), 1_500, 7, 11, &["--bad", "0.05"]);
    let data = dir.path().join("data");
    run_trace(&trace, &data);
    let ours: Vec<_> = alerts(&data)
        .into_iter()
        .filter(|alert| alert["subject"]["kind"] == "pipeline" || alert["subject"]["kind"] == "principal")
        .collect();
    assert_eq!(ours, Vec::<Value>::new());
}
