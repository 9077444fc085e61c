//! `starling billing` on a whole run: exact, apart, logged, and still there when the person rows are gone.

use std::collections::BTreeMap;

use crate::support::{bill, days, run_trace, simulate, sql, starling, status, succeed};

fn sum(bill: &[serde_json::Value], stage: &str) -> u64 {
    bill.iter().map(|row| row[stage].as_u64().expect("a count")).sum()
}

#[test]
fn p35_the_bill_is_exact_logged_and_outlives_the_person_rows() {
    let dir = tempfile::tempdir().expect("dir");
    let (trace, truth) = simulate(dir.path(), 1_000, 2, 4, &[]);
    let data = dir.path().join("data");
    run_trace(&trace, &data);
    let all = bill(&data, &[]);
    // Each stage of a simulated business message is an event of its own, and the truth counts events by kind.
    let stages: u64 = ["sent", "delivered", "read", "replied"].iter().map(|stage| sum(&all, stage)).sum();
    assert_eq!(Some(stages), truth["events_by_kind"]["business_message"].as_u64(), "{}", truth["events_by_kind"]);
    assert!(sum(&all, "sent") >= sum(&all, "delivered") && sum(&all, "delivered") > sum(&all, "read"));
    let day = bill(&data, &["--from", "2026-01-05", "--to", "2026-01-05"]);
    assert!(!day.is_empty() && day.len() < all.len() && day.iter().all(|row| row["day"] == "2026-01-05"));
    let one = all[0]["business"].as_str().expect("a business");
    assert!(bill(&data, &["--business", one]).iter().all(|row| row["business"] == one));
    let mut by_category = BTreeMap::<&str, u64>::new();
    all.iter().for_each(|row| *by_category.entry(row["category"].as_str().expect("a name")).or_default() += 1);
    assert!(by_category.len() > 1 && !by_category.contains_key("unknown"), "{by_category:?}");

    // In SQL it is the same to the last message, for whoever may read it; days that are left out are left out.
    let asked = sql(&data, "SELECT * FROM billing.daily ORDER BY day, business, portfolio, category, country");
    assert_eq!(asked, all);
    let of_day = sql(&data, "SELECT count(*) AS n, sum(sent) AS sent FROM billing.daily WHERE day = '2026-01-05'");
    assert_eq!((of_day[0]["n"].as_u64(), of_day[0]["sent"].as_u64()), (Some(day.len() as u64), Some(sum(&day, "sent"))));
    let refused = starling().args(["sql", "--data-dir"]).arg(&data).arg("SELECT * FROM billing.messages").output().expect("runs");
    assert!(!refused.status.success());
    // Apart: it spends no budget, and every look is in the log.
    assert!(sql(&data, "SELECT * FROM meta.charges").iter().all(|row| !row.to_string().contains("billing")));
    let log = succeed(starling().args(["audit", "tail", "--lines", "1000", "--data-dir"]).arg(&data));
    assert_eq!(log.matches("billing_read").count(), 5, "{log}");
    assert!(!log.contains(one), "the log names no business that was asked about");

    // The person rows expire with their key; the bill stays.
    let settings = dir.path().join("s.toml");
    std::fs::write(&settings, "[window]\nkeep_days = 0\n").expect("settings");
    succeed(starling().args(["close", "--data-dir"]).arg(&data).arg("--config").arg(&settings));
    let days = days(&status(&data));
    assert!(days.len() == 2 && days.iter().all(|w| w["expired"] == true), "{days:?}");
    assert_eq!(bill(&data, &[]), all);
}

#[test]
fn i6_no_bill_is_shown_when_the_audit_log_cannot_be_written() {
    let dir = tempfile::tempdir().expect("dir");
    let (trace, _) = simulate(dir.path(), 1_000, 1, 4, &[]);
    let data = dir.path().join("data");
    run_trace(&trace, &data);
    let mut command = starling();
    command.args(["billing", "--data-dir"]).arg(&data).env("STARLING_FAIL_AT", "begin appending to the audit log:1:*=ENOSPC");
    let output = command.output().expect("runs");
    assert!(!output.status.success() && output.stdout.is_empty());
}
