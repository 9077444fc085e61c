//! Hours, where they are asked for: two days of events to people served in each hour, and what is left of them then. And nothing of it where they are
//! not.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use arrow::array::AsArray as _;
use futures::TryStreamExt as _;
use starling_schemas::ids::{EpochId, Span, WindowId};
use starling_store::{KeyId, KeyKind, read_table};

use crate::support::{
    days, fail, files_below, metrics, open, people, run_trace, runtime, simulate, sql, starling_on, status, succeed, told,
};

/// The executable, with hours on.
fn on(data: &Path) -> Command {
    let mut command = starling_on(data);
    command.env("STARLING_WINDOW__HOURS", "true");
    command
}

fn run_on(trace: &Path, data: &Path) {
    succeed(on(data).arg("run").arg("--trace").arg(trace).arg("--data-dir").arg(data));
}

fn sql_on(data: &Path, statement: &str) -> Vec<serde_json::Value> {
    let text = succeed(on(data).arg("sql").arg("--data-dir").arg(data).args(["--format", "json", statement]));
    text.lines().map(|line| serde_json::from_str(line).expect("JSON lines")).collect()
}

/// People of each hour in which somebody was there.
fn true_hours(truth: &serde_json::Value) -> BTreeMap<String, u64> {
    let hours = truth["hours"].as_array().expect("hours").iter();
    let hours =
        hours.map(|hour| (hour["window"].as_str().expect("a name").to_owned(), hour["people"].as_u64().expect("a number")));
    hours.filter(|(_, people)| *people > 0).collect()
}

/// The hours that `status` tells, with their states.
fn hours(data: &Path) -> BTreeMap<String, String> {
    let told = status(data);
    let windows = told["windows"].as_array().expect("windows").iter();
    let windows =
        windows.map(|w| (w["window"].as_str().expect("a name").to_owned(), w["state"].as_str().expect("a state").to_owned()));
    windows.filter(|(name, _)| name.starts_with("hour-")).collect()
}

/// The keys of hours, as `status` tells them: name and state.
fn keys(data: &Path) -> Vec<(String, String)> {
    let told = status(data);
    let keys = told["keys"].as_array().expect("keys").iter();
    let keys =
        keys.map(|key| (key["key"].as_str().expect("a name").to_owned(), key["state"].as_str().expect("a state").to_owned()));
    keys.filter(|(name, _)| name.starts_with("analytics_hour/")).collect()
}

fn files_of_hours(data: &Path) -> Vec<PathBuf> {
    let mut files = files_below(data);
    files.retain(|path| path.display().to_string().contains("hour"));
    files
}

/// The pseudonyms in the table of each closed window.
fn named(data: &Path) -> BTreeMap<WindowId, BTreeSet<Vec<u8>>> {
    runtime().block_on(async {
        let (metastore, files, keyring) = open(data).await;
        let mut named = BTreeMap::new();
        for span in Span::ALL {
            for window in metastore.living_windows(span).await.expect("windows") {
                let (id, Some(table)) = (window.id(), window.table) else { continue };
                let key = keyring.get(KeyId { kind: KeyKind::Data, purpose: span.purpose(), epoch: id.epoch });
                let key = key.expect("keyring").expect("a data key");
                let batches: Vec<_> =
                    read_table(&files, &key, &table.path).await.expect("opens").try_collect().await.expect("rows");
                let mut people = BTreeSet::new();
                for batch in batches {
                    assert!(span == Span::Day || batch.num_columns() == 1, "that somebody was there, and nothing else");
                    let column = batch.column_by_name("person").expect("a column").as_fixed_size_binary();
                    people.extend(column.iter().flatten().map(<[u8]>::to_vec));
                }
                named.insert(id, people);
            }
        }
        named
    })
}

#[test]
fn p14_people_served_in_an_hour_are_those_the_truth_knows_and_no_two_hours_can_be_joined() {
    let dir = tempfile::tempdir().expect("dir");
    let (trace, truth) = simulate(dir.path(), 3_000, 2, 5, &[]);
    let data = dir.path().join("data");
    run_on(&trace, &data);
    let expected = true_hours(&truth);
    assert!(expected.len() > 40, "two days have hours at all times: {}", expected.len());

    // Each hour closed as complete, with each of its people once.
    assert_eq!(hours(&data), expected.keys().map(|hour| (hour.clone(), "closed".to_owned())).collect());
    let found = people(&data);
    let found: BTreeMap<_, _> = found.iter().map(|(window, people)| (window.clone(), people.len() as u64)).collect();
    for (hour, people) in &expected {
        assert_eq!(found.get(hour), Some(people), "{hour}");
    }
    // No name is in two windows, of whatever length.
    let named = named(&data);
    let (each, all) = (named.values().map(BTreeSet::len).sum::<usize>(), named.values().flatten().collect::<BTreeSet<_>>());
    assert!(
        named.len() > expected.len() && each == all.len(),
        "{each} names in {} windows, {} of them different",
        named.len(),
        all.len()
    );

    // The pseudonyms' keys are gone, each with a receipt, and the rows' keys live on for a while.
    let own = keys(&data);
    assert_eq!(own.len(), 2 * expected.len());
    for (key, state) in &own {
        assert_eq!(state.starts_with("destroyed"), key.ends_with("/pseudonym"), "{key} {state}");
    }
    let log = succeed(on(&data).args(["audit", "tail", "--lines", "2000", "--data-dir"]).arg(&data));
    for (key, _) in own.iter().filter(|(key, _)| key.ends_with("/pseudonym")) {
        assert_eq!(log.lines().filter(|line| line.contains("key_destroyed") && line.contains(key.as_str())).count(), 1, "{key}");
    }
    assert!(files_below(&data.join("files/segments")).iter().all(|path| !path.display().to_string().contains("hour-")));
    released_and_asked(&data, &expected);
    what_a_day_can_cost(&data);

    // After their time nothing is left but what was released.
    let before = sql_on(&data, "SELECT day, hour, value FROM stats.people_served_hourly ORDER BY day, hour");
    succeed(on(&data).env("STARLING_WINDOW__KEEP_DAYS", "0").args(["close", "--data-dir"]).arg(&data));
    assert!(keys(&data).iter().all(|(_, state)| state.starts_with("destroyed")), "{:?}", keys(&data));
    let left = files_below(&data.join("files/people"));
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(sql_on(&data, "SELECT day, hour, value FROM stats.people_served_hourly ORDER BY day, hour"), before);
    let question = "SELECT COUNT(DISTINCT person) AS people FROM private.person_hour WHERE hour = 13";
    let refused = fail(on(&data).args(["sql", "--data-dir"]).arg(&data).arg(question));
    assert!(refused.contains("no closed"), "{refused}");
}

/// What is released of the hours and what may be asked is near the truth, each hour once.
fn released_and_asked(data: &Path, expected: &BTreeMap<String, u64>) {
    let name = |row: &serde_json::Value| {
        format!("hour-{}T{:02}", row["day"].as_str().expect("a day"), row["hour"].as_u64().expect("an hour"))
    };
    let exact = |hour: &str| f64::from(u32::try_from(expected[hour]).expect("small"));
    let released = sql_on(data, "SELECT day, hour, value, low, high, status FROM stats.people_served_hourly ORDER BY day, hour");
    assert!(released.iter().map(name).eq(expected.keys().cloned()), "one row an hour: {released:?}");
    let sigma = (1.0_f64 / (2.0 * 0.00005)).sqrt();
    let shown: Vec<_> = released.iter().filter(|row| row["status"] == "released").collect();
    assert!(!shown.is_empty());
    for row in shown {
        let (value, exact) = (row["value"].as_f64().expect("a value"), exact(&name(row)));
        assert!((value - exact).abs() < 6.5 * sigma, "{value} of {exact}: {row}");
    }
    let question = "SELECT day, hour, COUNT(DISTINCT person) AS people FROM private.person_hour WHERE day = DATE '2026-01-05' AND hour >= 12 \
         GROUP BY day, hour ORDER BY day, hour";
    let asked = sql_on(data, question);
    let afternoon = expected.keys().filter(|hour| hour.as_str() >= "hour-2026-01-05T12" && hour.starts_with("hour-2026-01-05"));
    assert!(asked.iter().map(name).eq(afternoon.cloned()), "{asked:?}");
    let sigma = (1.0_f64 / (2.0 * 0.00001)).sqrt();
    for row in &asked {
        assert!((row["people"].as_f64().expect("a number") - exact(&name(row))).abs() < 6.5 * sigma, "{row}");
    }
    let told = succeed(on(data).args(["sql", "--data-dir"]).arg(data).arg(format!("EXPLAIN PRIVACY {question}")));
    assert!(told.contains(&format!("{} hours, 2026-01-05T12 to 2026-01-05T23", asked.len())), "{told}");
    let charged = sql_on(data, "SELECT day, hour, charges FROM meta.budget WHERE dataset = 'person_hour' ORDER BY day, hour");
    for row in &charged {
        let is_asked = row["day"] == "2026-01-05" && row["hour"].as_u64() >= Some(12);
        assert_eq!(row["charges"].as_u64(), Some(1 + u64::from(is_asked)), "{row}");
    }
    assert_eq!(charged.len(), expected.len());
}

/// What one person can have lost in a day holds every hour of it, whether hours are on or off when it is told.
fn what_a_day_can_cost(data: &Path) {
    for command in [on(data), starling_on(data)].iter_mut() {
        let told = succeed(command.args(["budget", "--json", "--data-dir"]).arg(data));
        let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
        let day = told["one_person_at_most"][0]["first_day"].as_str().expect("a day").to_owned();
        let blocks = told["blocks"].as_array().expect("blocks").iter();
        let of_the_day = blocks.filter(|block| block["day"].as_str().is_some_and(|at| at.starts_with(&day)));
        let (mut hours, mut sum) = (0, 0.0);
        for block in of_the_day {
            hours += usize::from(block["dataset"] == "person_hour");
            sum += block["spent_rho"].as_f64().expect("a number");
        }
        let worst = told["one_person_at_most"][0]["rho"].as_f64().expect("a number");
        assert!(hours > 20 && (worst - sum).abs() < 1e-9, "{worst} of {sum} over {hours} hours");
    }
    let text = succeed(on(data).args(["budget", "--data-dir"]).arg(data));
    assert!(text.contains("person_hour") && text.contains("person_day"), "{text}");
}

#[test]
fn without_hours_no_file_key_window_or_name_of_one_exists() {
    let dir = tempfile::tempdir().expect("dir");
    let (trace, _) = simulate(dir.path(), 1_000, 1, 5, &[]);
    let data = dir.path().join("data");
    run_trace(&trace, &data);
    assert_eq!((hours(&data), keys(&data)), (BTreeMap::new(), vec![]));
    assert_eq!(files_of_hours(&data), [] as [PathBuf; 0]);
    for table in ["private.person_hour", "stats.people_served_hourly"] {
        let refused = fail(
            starling_on(&data).args(["sql", "--data-dir"]).arg(&data).arg(format!("SELECT COUNT(DISTINCT person) FROM {table}")),
        );
        assert!(refused.contains("there is no "), "{refused}");
    }
    let tables = sql(&data, "SELECT DISTINCT table_name FROM meta.columns WHERE table_name LIKE '%hour%'");
    assert!(tables.is_empty(), "{tables:?}");
    for command in [&["metrics", "list"][..], &["metrics", "check"][..]] {
        let told = succeed(starling_on(&data).args(command));
        assert!(told.contains("people_served_weekly") && !told.contains("hourly"), "{told}");
        let told = succeed(on(&data).args(command));
        assert!(told.contains("people_served_hourly"), "{told}");
    }
    assert_eq!(days(&status(&data)).len(), 1);
}

#[test]
fn hours_that_are_turned_off_close_as_incomplete_and_those_after_being_turned_on_are_whole() {
    let dir = tempfile::tempdir().expect("dir");
    let next = dir.path().join("next");
    std::fs::create_dir(&next).expect("folder");
    let (trace, truth) = simulate(dir.path(), 1_000, 1, 5, &[]);
    let (trace_after, truth_after) = simulate(&next, 1_000, 1, 6, &["--start", "2026-01-06"]);
    let data = dir.path().join("data");

    // Dies when the first hour begins to close; the next run is without hours.
    let killed = on(&data)
        .args(["run", "--trace"])
        .arg(&trace)
        .arg("--data-dir")
        .arg(&data)
        .env("STARLING_KILL_AT", "after_begin_close")
        .output();
    assert!(killed.expect("starts").status.code().is_none(), "killed");
    let open = hours(&data);
    assert!(open.len() > 20 && open.values().all(|state| state == "open" || state == "closing"), "{open:?}");
    run_trace(&trace, &data);
    assert!(true_hours(&truth).keys().eq(open.keys()));
    assert!(hours(&data).values().all(|state| state == "incomplete"), "{:?}", hours(&data));
    let pseudonyms: Vec<_> = keys(&data).into_iter().filter(|(key, _)| key.ends_with("/pseudonym")).collect();
    assert!(!pseudonyms.is_empty() && pseudonyms.iter().all(|(_, state)| state.starts_with("destroyed")), "{pseudonyms:?}");
    let released = sql(&data, "SELECT count(*) AS n FROM meta.releases WHERE hour IS NOT NULL");
    assert_eq!(released[0]["n"], 0, "of what is not kept nothing is released");

    // On again: nothing that was read without is in an hour that is called complete.
    run_on(&trace_after, &data);
    let after = hours(&data);
    for hour in true_hours(&truth_after).keys() {
        assert_eq!(after[hour], "closed", "{hour}");
    }
    let found = people(&data);
    for (hour, exact) in true_hours(&truth_after) {
        assert_eq!(found[&hour].len() as u64, exact, "{hour}");
    }
}

#[test]
fn i7_an_hour_that_cannot_close_holds_up_nothing_and_closes_as_incomplete_at_its_deadline() {
    let dir = tempfile::tempdir().expect("dir");
    let (trace, _) = simulate(dir.path(), 1_000, 1, 5, &[]);
    let data = dir.path().join("data");
    let run = || {
        let mut command = on(&data);
        command.args(["run", "--trace"]).arg(&trace).arg("--data-dir").arg(&data);
        command
    };
    let killed = run().env("STARLING_KILL_AT", "after_begin_close").output().expect("starts");
    assert!(killed.status.code().is_none(), "killed");
    let lost = hours(&data).into_keys().nth(5).expect("more hours than that");
    let segments = files_below(&data.join("files/segments").join(&lost));
    assert!(!segments.is_empty());
    segments.iter().for_each(|path| std::fs::remove_file(path).expect("removes"));
    let own_key = format!("analytics_hour/{}/pseudonym", &lost["hour-".len()..]);
    let is_destroyed = |state: &str| state.starts_with("destroyed");

    // All others close, those after it and the day, and it is named.
    let refused = fail(&mut run());
    assert!(refused.contains(&format!("closing {lost} failed")), "{refused}");
    let states = hours(&data);
    assert!(
        states.len() > 20 && states.iter().all(|(hour, state)| *state == if *hour == lost { "closing" } else { "closed" }),
        "{states:?}"
    );
    let told = status(&data);
    let day = told["windows"].as_array().expect("windows").iter().find(|window| window["window"] == "2026-01-05");
    assert_eq!(day.expect("the day")["state"], "closed");
    for (key, state) in keys(&data).iter().filter(|(key, _)| key.ends_with("/pseudonym")) {
        assert_eq!(is_destroyed(state), *key != own_key, "{key} {state}");
    }

    // It was all read, but not all is there: past its deadline it closes without, and its key dies.
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    let mut close = on(&data);
    close.env("STARLING_WINDOW__ALLOWED_LATENESS_S", "0").env("STARLING_WINDOW__DEADLINE_S", "1");
    let closed = succeed(close.args(["close", "--data-dir"]).arg(&data));
    assert_eq!(closed.trim(), format!("{lost}  closed as incomplete"));
    assert_eq!(hours(&data)[&lost], "incomplete");
    assert!(keys(&data).iter().any(|(key, state)| *key == own_key && is_destroyed(state)), "{:?}", keys(&data));
}

#[test]
fn i9_a_run_with_hours_that_is_killed_or_meets_a_fault_ends_as_if_it_had_not() {
    let dir = tempfile::tempdir().expect("dir");
    let (trace, truth) = simulate(dir.path(), 1_000, 1, 11, &[]);
    let expected = true_hours(&truth);
    let settings = dir.path().join("starling.toml");
    std::fs::write(&settings, "[ingest]\nmax_events = 2000\n[window]\nhours = true\n").expect("settings");
    let run = |data: &Path| {
        let mut command = starling_on(data);
        command.args(["run", "--trace"]).arg(&trace).arg("--config").arg(&settings).arg("--data-dir").arg(data);
        command
    };
    // Each is passed by an hour first, as hours close and are released before their day.
    let kills = [
        "after_segment_written:5",
        "after_begin_close",
        "after_merge:2",
        "after_finish_close:3",
        "before_receipt",
        "after_charge",
        "after_noise:2",
        "after_release_file",
    ];
    let kills = kills.map(|point| ("STARLING_KILL_AT", point.to_owned()));
    let turning = ["begin", "commit", "committed"].map(|step| format!("{step} turning hours on or off"));
    let closing = ["beginning to close a window", "finishing the close of a window", "recording a release"];
    let faults = turning.into_iter().chain(closing.map(|during| format!("committed {during}")));
    let faults = faults.map(|point| ("STARLING_FAIL_AT", format!("{point}=EIO")));
    for (number, (variable, point)) in kills.into_iter().chain(faults).enumerate() {
        let data = dir.path().join(format!("data-{number}"));
        let disturbed = run(&data).env(variable, &point).output().expect("starts");
        if variable == "STARLING_KILL_AT" {
            assert!(disturbed.status.code().is_none(), "killed at {point}");
        } else {
            // It goes on, or stops and says so.
            assert!(told(&disturbed).contains("fault point reached"), "{point}: {}", told(&disturbed));
        }
        succeed(&mut run(&data));
        assert_eq!(hours(&data), expected.keys().map(|hour| (hour.clone(), "closed".to_owned())).collect(), "{point}");
        let found = people(&data);
        for (hour, exact) in &expected {
            assert_eq!(found[hour].len() as u64, *exact, "{hour} after {point}");
        }
        assert!(keys(&data).iter().all(|(key, state)| state.starts_with("destroyed") == key.ends_with("/pseudonym")), "{point}");
        let once = sql_on(&data, "SELECT count(*) AS n, count(DISTINCT metric || file) AS d FROM meta.releases");
        let releases = expected.len() + metrics();
        assert_eq!((&once[0]["n"], &once[0]["d"]), (&releases.into(), &releases.into()), "I3 after {point}");
        let charges = sql_on(&data, "SELECT DISTINCT charges FROM meta.budget WHERE dataset = 'person_hour'");
        assert_eq!(charges.iter().map(|row| row["charges"].as_u64()).collect::<Vec<_>>(), [Some(1)], "I2 after {point}");
        assert_eq!(files_of_hours(&data.join("files/segments")), [] as [PathBuf; 0], "{point}");
    }
    assert!(expected.keys().all(|hour| EpochId::parse(&hour["hour-".len()..]).is_some_and(EpochId::is_hour)));
}
