//! `starling doctor` over a data directory: what it finds there.

use starling_schemas::time::Clock;

use crate::support::{fail, open, run_trace, runtime, simulate, starling, succeed};

/// The machine's clock.
struct Now;

impl Clock for Now {
    fn now_ms(&self) -> i64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        i64::try_from(since.as_millis()).expect("fits")
    }
}

#[test]
fn a_log_that_was_written_in_the_future_and_keys_that_others_may_enter_are_found() {
    let dir = tempfile::tempdir().expect("dir");
    let (trace, _) = simulate(dir.path(), 1_000, 1, 3, &[]);
    let data = dir.path().join("data");
    run_trace(&trace, &data);
    let doctor = || {
        let mut command = starling();
        command.arg("doctor").arg("--data-dir").arg(&data);
        command.env("STARLING_SERVE__LISTEN", "127.0.0.1:0").env("STARLING_METRICS__LISTEN", "127.0.0.1:0");
        command
    };
    let told = succeed(&mut doctor());
    assert!(told.contains("books: ") && told.contains("the chain holds") && !told.contains("clock"), "{told}");

    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let keys = data.join("keys");
        let key = std::fs::read_dir(&keys).expect("folder").map(|entry| entry.expect("entry").path()).find(|path| path.is_file());
        let key = key.expect("a key");
        let mode = |path: &std::path::Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("mode");
        };
        for (path, open, private, words) in [
            (&keys, 0o755, 0o700, "FAIL  keys: others could enter"),
            (&key, 0o644, 0o600, "FAIL  keys: others may read 1 of the files"),
        ] {
            mode(path, open);
            let output = doctor().output().expect("starts");
            let told = crate::support::told(&output);
            assert!(!output.status.success() && told.contains(words), "{told}");
            mode(path, private);
        }
        succeed(&mut doctor());
    }

    runtime().block_on(async {
        let (metastore, ..) = open(&data).await;
        let tomorrow = Now.now_ms() + 24 * 3600 * 1000;
        metastore.append_audit("test", serde_json::json!({}), tomorrow).await.expect("appends");
    });
    let output = doctor().output().expect("starts");
    let told = crate::support::told(&output);
    assert!(told.lines().any(|line| line.starts_with("FAIL  clock: the newest entry of the audit log is 2")), "{told}");
    assert!(fail(&mut doctor()).contains("1 of "), "and nothing else is wrong");
}
